"""The service behind a Jupyter server: the team's, or a child process of this server on a Unix socket; and in whose name it is asked.

The child is the very program that `dblens serve` is, so that both ways have one code path. It ends when its stdin does: with this
server, however that ends. The page never sees a token, neither the service's nor the child's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import msgspec

from dblens.errors import ConnectionFailed, NotAuthenticated, Unsupported
from dblens.redaction import Secret
from dblens.settings import Settings

if TYPE_CHECKING:
    from dblens.client.service import Bearer

START: Final = 30.0
"""Seconds in which the child has to listen."""
_STOP: Final = 35.0
"""Seconds that it gets to end: its requests and runs are told to stop meanwhile."""
_KEPT: Final = ("JUPYTER", "JPY_", "DBLENS_URL", "DBLENS_TOKEN", "DBLENS_SOCKET", "DBLENS_MODE")
_LIMITS: Final = httpx.Limits(max_connections=64)
_TIMES: Final = httpx.Timeout(10.0, read=None)


class Service(NamedTuple):
    """Where it is: the base of its addresses, and a client that reaches it."""

    base: str
    client: httpx.AsyncClient


class Upstream:
    """The service, reached and asked on behalf of this Jupyter server's owner. For one event loop."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], log: logging.Logger) -> None:
        """`environment`: what the child gets, less what is not for it."""
        self.settings, self._environment, self._log = settings, dict(environment), log
        self._starting, self._asking = asyncio.Lock(), asyncio.Lock()
        self._service: Service | None = None
        self._child: _Child | None = None
        self._token: Secret | None = None
        self._bearer: Bearer | None = None

    def __repr__(self) -> str:
        return f"Upstream({self.settings.url or 'a child process'!r})"

    @property
    def alone(self) -> bool:
        """Return whether it is a child of this server's, for one person."""
        return self.settings.url is None

    async def service(self) -> Service:
        """Return it, started where it does not run. Raises ConnectionFailed, Unsupported."""
        async with self._starting:
            if self._child is not None and not self._child.alive:
                self._log.warning("the DBLens service ended with status %s; it is started again", self._child.status)
                await self._leave()
            if self._service is None:
                self._service = await self._reach()
            return self._service

    async def _reach(self) -> Service:
        if self.settings.url is not None:
            client = httpx.AsyncClient(timeout=_TIMES, limits=_LIMITS, trust_env=False, follow_redirects=False)
            return Service(self.settings.url.rstrip("/"), client)
        self._child = await _Child.start(self._environment, self._log)
        transport = httpx.AsyncHTTPTransport(uds=str(self._child.socket), limits=_LIMITS)
        return Service("http://dblens", httpx.AsyncClient(transport=transport, timeout=_TIMES))

    async def authorization(self, used: Secret | None = None) -> Secret:
        """Return the token to ask with; another one than `used`, which was refused. Raises NotAuthenticated, ConnectionFailed."""
        async with self._asking:
            if self.alone:
                if self._token is None or (used is not None and used == self._token):
                    self._token = await self._enter()
                return self._token
            found = await asyncio.to_thread(self._renewed, used)
        if found is None:
            raise NotAuthenticated("nobody is logged in at the service", hint="`dblens login` in a terminal")
        return found

    def _renewed(self, used: Secret | None) -> Secret | None:
        from dblens.client import bearer

        if self._bearer is None:
            self._bearer = bearer(self.settings)
        return self._bearer.get() if used is None else self._bearer.renew(used)

    async def _enter(self) -> Secret:
        """Log in as the person at this machine."""
        from dblens.api.identity import local_secret

        service = await self.service()
        secret = await asyncio.to_thread(local_secret, self.settings.data_folder)
        try:
            answer = await service.client.post(
                f"{service.base}/api/v1/auth/local", json={"secret": secret.reveal()}, timeout=START
            )
        except httpx.TransportError as error:
            raise ConnectionFailed("the DBLens service does not answer", hint="its words are in the log") from error
        if answer.status_code != 200:
            raise NotAuthenticated(
                f"the DBLens service refused the secret of this machine ({answer.status_code})",
                hint="is DBLENS_DATA_FOLDER the same for both?",
            )
        return Secret(answer.json()["access"])

    async def ended(self) -> bool:
        """Say whether it was a child that has ended, waiting a moment for that to be known."""
        child = self._child
        return child is not None and await child.ended(1.0)

    async def _leave(self) -> None:
        service, self._service = self._service, None
        child, self._child = self._child, None
        self._token = None
        if service is not None:
            await service.client.aclose()
        if child is not None:
            await child.stop()

    async def close(self) -> None:
        """Stop what was started."""
        async with self._starting:
            await self._leave()


class _Listening(msgspec.Struct, frozen=True):
    """What `dblens serve --json` says once it listens."""

    url: str
    pid: int


class _Child:
    """`dblens serve` on a socket in a folder that only its owner can enter."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, log: logging.Logger) -> None:
        self._process, self._folder, self._log = process, folder, log
        self._words: list[str] = []
        self._reader = asyncio.create_task(self._read())

    @property
    def socket(self) -> Path:
        """Return where it listens."""
        return self._folder / "api.sock"

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return self._process.returncode is None

    @property
    def status(self) -> int | None:
        """Return how it ended."""
        return self._process.returncode

    @classmethod
    async def start(cls, environment: Mapping[str, str], log: logging.Logger) -> _Child:
        """Start it and wait until it listens. Raises ConnectionFailed, Unsupported without what serving needs."""
        runtime = environment.get("XDG_RUNTIME_DIR")
        place = runtime if runtime and os.access(runtime, os.W_OK | os.X_OK) and len(runtime) < 60 else None
        folder = Path(tempfile.mkdtemp(prefix="dblens-", dir=place))  # 0700
        given = {name: value for name, value in environment.items() if not name.startswith(_KEPT)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dblens", "serve", "--socket", str(folder / "api.sock"), "--json", "--exit-with-parent",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=given,
        )  # fmt: skip
        child = cls(process, folder, log)
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), START)
            msgspec.json.decode(line, type=_Listening)
        except (TimeoutError, msgspec.DecodeError) as error:
            await child.stop()
            told = " ".join(child._words[-5:])[:500]
            if "pip install" in told:
                raise Unsupported("serving", told, hint="pip install 'dblens[server]'") from error
            raise ConnectionFailed(f"the DBLens service did not start: {told or 'it said nothing'}") from error
        except BaseException:
            await child.stop()
            raise
        return child

    async def ended(self, seconds: float) -> bool:
        """Say whether it ends within so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._process.wait()), seconds)
        return not self.alive

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            words = line.decode("utf-8", "replace").rstrip()
            self._words = [*self._words[-20:], words]
            self._log.warning("dblens serve: %s", words)

    async def stop(self) -> None:
        """End it; kill it when it does not end."""
        process = self._process
        if process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()  # the end of its stdin tells it to stop
            try:
                await asyncio.wait_for(process.wait(), _STOP)
            except TimeoutError:
                process.kill()
                await process.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        shutil.rmtree(self._folder, ignore_errors=True)


def problem(error: Any, status: int) -> bytes:
    """Return an error of ours as the service itself tells errors."""
    return msgspec.json.encode(
        {
            "type": f"urn:dblens:problem:{error.code.replace('.', ':')}",
            "title": type(error).__name__,
            "status": status,
            "detail": error.message,
            "hint": error.hint,
            "code": error.code,
        }
    )
