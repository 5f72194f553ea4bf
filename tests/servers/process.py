"""One server process: start it, know when it answers, end it without leaving anything behind."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from tests.servers import reaper
from tests.servers.folders import Account, clean_env, run_folder

USER, LOW_USER = "dblens", "dblens_low"
PASSWORD = "s3cret-of-dblens-tests"  # searchable: a leak test looks for exactly this text
START_SECONDS = 60.0


class ServerMissing(Exception):
    """The server's binaries cannot be had on this machine; the message says why."""


class Server(ABC):
    """What every test server can do; SQLite too, which has no process."""

    name: str
    title: str
    version = ""

    @abstractmethod
    def start(self) -> Self: ...
    @abstractmethod
    def stop(self) -> None: ...
    @abstractmethod
    def kill(self) -> None: ...
    @abstractmethod
    def close(self) -> None: ...
    @property
    @abstractmethod
    def running(self) -> bool: ...
    @abstractmethod
    def url(self, database: str | None = None, *, low: bool = False) -> str: ...
    @abstractmethod
    def create_database(self, name: str | None = None) -> str: ...
    @abstractmethod
    def drop_database(self, name: str) -> None: ...

    def tool(self, name: str) -> list[str]:
        """Command line prefix of a client program of this server's own version."""
        raise ServerMissing(f"{self.title} brings no {name}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.title} {self.version or 'not started'}>"


class ServerProcess(Server):
    """A server with a process. An engine says how to prepare, command and greet it; the rest is here."""

    account_needed = True  # PostgreSQL and MariaDB refuse to run as root

    def __init__(self) -> None:
        self.account = Account()
        self.folder: Path | None = None
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Fill a fresh run folder, from the template. Raises ServerMissing."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]: ...

    @abstractmethod
    def handshake(self) -> str:
        """Log in over the network and return the server's version; any exception means not yet."""

    stop_signal = signal.SIGTERM
    close_signal = signal.SIGKILL

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"{self.title} was never started")
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def start(self) -> Self:
        """Start, or start again on the same port after `stop` or `kill`, and wait until it answers."""
        if self.running:
            return self
        fresh = self.folder is None
        if self.folder is None:
            folder = run_folder(self.name, self.account)
            try:
                self.prepare(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self.folder = folder
        for attempt in range(5):
            if fresh:
                self.port = reaper.free_port()
            self._spawn(self.folder)
            try:
                self._wait()
                return self
            except RuntimeError:
                self.kill()
                # Another process may take a port between our look and the server's bind; only then try again.
                if not fresh or attempt == 4 or not reaper.port_taken(self.port):
                    raise
        return self

    def _spawn(self, folder: Path) -> None:
        with (folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(folder), cwd=folder, env=clean_env(folder), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, umask=0o077,
                **(self.account.become() if self.account_needed else {}),
            )  # fmt: skip
        reaper.register(self, folder, self.process.pid)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        error: Exception | None = None
        while time.monotonic() < deadline:
            if not self.running:
                raise RuntimeError(f"{self.title} ended while it started\n{self.log_tail()}") from error
            try:
                self.version = self.handshake()
                return
            except Exception as failure:  # noqa: BLE001  each driver has its own error tree, and here all mean "not yet"
                error = failure
                time.sleep(0.02)
        raise RuntimeError(f"no answer from {self.title} in {START_SECONDS:.0f} s: {error}\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        """The end of the server's own log, for error messages."""
        try:
            text = ((self.folder or Path()) / "server.log").read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the server in good order; its data stays for the next `start`."""
        if self.running:
            self._end(self.stop_signal)

    def _end(self, how: signal.Signals) -> None:
        assert self.process is not None
        members = reaper.family(self.process.pid)
        self.process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        reaper.kill_members(members)  # what is still there, and children that outlived their parent
        self.process.wait()

    def kill(self) -> None:
        """SIGKILL the server and every process it started, at once; nothing is flushed or answered."""
        if self.process is not None and self.running:
            reaper.kill_tree(self.process.pid)
            self.process.wait()

    def restart(self) -> Self:
        """Kill and start again: what a client sees of a crash."""
        self.kill()
        return self.start()

    def close(self) -> None:
        """End the server without ceremony and delete everything it wrote."""
        if self.running and self.close_signal != signal.SIGKILL:
            self._end(self.close_signal)
        self.kill()
        reaper.forget(self)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder, self.process = None, None


def new_name() -> str:
    """A database name nobody else has."""
    return f"t_{secrets.token_hex(6)}"
