"""The service as a process: one uvicorn worker over one house, on a port of this machine or a Unix socket, stopped gracefully.

At the end what streams is told to end, requests get some seconds, runs are asked to stop. A run that does not hear is left: its lease
expires, and whoever sweeps next says that it crashed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
import uvicorn

from dblens.api.app import create_app
from dblens.errors import Conflict, InvalidInput
from dblens.redaction import install
from dblens.settings import Settings
from dblens.workspace import entrance
from dblens.workspace.house import House

REQUESTS: Final = 10
"""Seconds that requests get to end."""
RUNS: Final = 20.0
"""Seconds that runs get to stop."""
log = logging.getLogger("dblens.api")


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Where it listens, once it does."""

    url: str
    host: str | None = None
    port: int | None = None
    socket: str | None = None
    pid: int
    mode: str


def serve(
    settings: Settings,
    *,
    root_path: str = "",
    docs: bool | None = None,
    exit_with_parent: bool = False,
    ready: Callable[[Serving], None] = lambda _serving: None,
    code: Callable[[str], None] = lambda _code: None,
) -> None:
    """Serve until a signal, or the end of stdin, says stop. `ready` hears where; `code` the set-up code while nobody has an account.

    Raises InvalidInput, StoreError without what team mode needs (key-encryption key, key of the audit), Conflict when the place is taken.
    """
    install()
    _alone_stays_home(settings)
    house = House.open(settings)
    try:
        with contextlib.closing(_listening(settings)) as listening:
            app = create_app(house, root_path=root_path, docs=docs)
            where = _where(settings, listening, root_path)
            server = _Server(_config(app, settings), lambda: ready(where), app.state.service.stopping)
            if settings.mode == "team" and (found := entrance.set_up_code(house)) is not None:
                code(found.reveal())
            if exit_with_parent:
                threading.Thread(target=_until_end, args=(server,), name="dblens-parent", daemon=True).start()
            server.run([listening])
    finally:
        if settings.socket is not None:
            settings.socket.unlink(missing_ok=True)
        _close(house)


def _alone_stays_home(settings: Settings) -> None:
    if settings.mode == "team" or settings.socket is not None:
        return
    try:
        here = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise InvalidInput(
            f"host is {settings.host!r}, but single-user mode serves this machine only",
            hint="127.0.0.1, or DBLENS_MODE=team with accounts",
        )


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        loop="asyncio",
        ws="none",
        access_log=False,  # ours has no query in it
        log_config=None,
        server_header=False,
        # Only these may say whose request they pass on; nobody's header is believed otherwise.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        limit_concurrency=2000,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=REQUESTS,
    )


class _Server(uvicorn.Server):
    """Says when it listens, and after a signal returns, so that the house is closed. A second signal does not wait."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: threading.Event) -> None:
        super().__init__(config)
        self._ready, self._stopping = ready, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals for the time of serving; uvicorn's own would raise them again before the house is closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


def _until_end(server: uvicorn.Server) -> None:
    """Wait for the end of stdin: it is the parent's pipe, and closes however the parent ends."""
    while os.read(0, 4096):
        pass
    server.should_exit = True


def _close(house: House) -> None:
    closing = threading.Thread(target=house.close, name="dblens-close", daemon=True)
    closing.start()
    end = time.monotonic() + RUNS
    while closing.is_alive() and time.monotonic() < end:
        closing.join(0.2)
    if closing.is_alive():
        log.warning("a run did not stop: its lease frees itself")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # a thread that does not end would hold the process


# ---------------------------------------------------------------------------------------------------------------------- sockets


def _listening(settings: Settings) -> socket.socket:
    if settings.socket is not None:
        return _unix(settings.socket)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((settings.host, settings.port))
    except OSError as error:
        made.close()
        raise Conflict(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}", hint="`--port 0` finds one"
        ) from error
    made.listen(2048)
    return made


def _unix(path: Path) -> socket.socket:
    """Listen on a socket in a folder that nobody else can enter: who can connect is who owns the folder."""
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise InvalidInput(f"{folder} can be entered by others", hint=f"chmod 700 {folder}")
        if path.is_socket():
            _forsaken(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(2048)
    except OSError as error:
        raise Conflict(
            f"{path} cannot be listened on: {error.strerror or error}", hint="name another socket"
        ) from error
    return made


def _forsaken(path: Path) -> None:
    """Remove a socket that a dead process left. Raises Conflict when somebody listens."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise Conflict(f"somebody serves at {path} already", hint="stop it, or name another socket")


def _where(settings: Settings, listening: socket.socket, root_path: str) -> Serving:
    if settings.socket is not None:
        path = str(settings.socket)
        return Serving(url=f"http+unix://{path}", socket=path, pid=os.getpid(), mode=settings.mode)
    port = listening.getsockname()[1]
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    return Serving(
        url=f"http://{shown}:{port}{root_path}", host=settings.host, port=port, pid=os.getpid(), mode=settings.mode
    )
