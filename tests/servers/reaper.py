"""No test server outlives its session: kill whole process trees, and sweep what a dead session left."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Protocol

from tests.servers.folders import RUN_PREFIX, temp_root

OWNER_FILE = "owner"  # "<our pid> <our start time> <server pid> <its start time>"


class Closable(Protocol):
    folder: Path | None

    def close(self) -> None: ...


_open: dict[int, Closable] = {}


def _stat(pid: int) -> tuple[str, int, str] | None:
    """State, parent and start time of a process; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return fields[0], int(fields[1]), fields[19]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie waiting for its parent does not."""
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"


def family(pid: int) -> dict[int, str]:
    """A process and its living descendants, each with its start time: the two together name it for ever."""
    known = {int(path.name): found for path in Path("/proc").glob("[0-9]*") if (found := _stat(int(path.name)))}
    tree = {pid}
    while more := {child for child, found in known.items() if found[1] in tree} - tree:
        tree |= more
    return {member: known[member][2] for member in tree if member in known and known[member][0] not in "ZX"}


def _is(pid: int, started: str) -> bool:
    found = _stat(pid)
    return found is not None and found[2] == started and found[0] not in "ZX"


def kill_members(members: dict[int, str]) -> None:
    """SIGKILL those that still are the processes we saw, and wait until they are gone."""
    for pid, started in members.items():
        if _is(pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(_is(*member) for member in members.items()) and time.monotonic() < deadline:
        time.sleep(0.002)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and its descendants.

    Killing the process group is not enough: every PostgreSQL backend leads its own group, and one busy in a
    COPY would keep the shared memory, and so the data folder, for seconds. The parent is stopped first so that
    it starts no further child between the look and the kill.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    kill_members(family(pid))


def free_port() -> int:
    """A free port below the range of outgoing connections.

    While a killed server is away, no client's own source port can take its place there, and a client that
    retries cannot connect to itself.
    """
    with contextlib.suppress(OSError, ValueError):
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        for _ in range(50):
            # Processes that look at the same moment (xdist workers) see different ports.
            port = random.randrange(max(1024, min(15000, low // 2)), low - 64) // 64 * 64 + os.getpid() % 64
            if not port_taken(port):
                return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_taken(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def register(server: Closable, folder: Path, pid: int) -> None:
    """Remember a started server, here and on disk, so that this or a later session can end it."""
    _open[id(server)] = server
    ours, theirs = _stat(os.getpid()), _stat(pid)
    if ours and theirs:
        note = folder.with_name(f"{folder.name}.{OWNER_FILE}")
        note.write_text(f"{os.getpid()} {ours[2]} {pid} {theirs[2]}")


def forget(server: Closable) -> None:
    """The server was closed."""
    _open.pop(id(server), None)
    if server.folder is not None:
        server.folder.with_name(f"{server.folder.name}.{OWNER_FILE}").unlink(missing_ok=True)


def close_all() -> list[str]:
    """Close every server that is still open in this process; return what they were."""
    left = list(_open.values())
    for server in left:
        with contextlib.suppress(Exception):
            server.close()
    return [repr(server) for server in left]


def sweep() -> list[str]:
    """End servers and delete folders of sessions that died without doing so; return the folders' names."""
    swept = []
    for note in temp_root().glob(f"{RUN_PREFIX}*.{OWNER_FILE}"):
        with contextlib.suppress(OSError, ValueError):
            if note.lstat().st_uid != os.geteuid():
                continue
            owner, owner_started, pid, started = note.read_text().split()
            session, server = _stat(int(owner)), _stat(int(pid))
            if session and session[2] == owner_started and session[0] not in "ZX":
                continue
            if server and server[2] == started:
                kill_tree(int(pid))
            shutil.rmtree(note.with_name(note.name.removesuffix(f".{OWNER_FILE}")), ignore_errors=True)
            note.unlink()
            swept.append(note.name)
    return swept


atexit.register(close_all)
