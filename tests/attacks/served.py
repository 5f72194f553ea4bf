"""`dblens serve` as its own process over a folder, for tests that kill it, load it or look at what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from dblens.engines.access.spec import from_url
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import connections, secrets
from dblens.store.keys import make_key
from dblens.workspace.house import House

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
DEBUG = """
import logging, sys
logging.basicConfig(level=1, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("asyncio").setLevel(logging.DEBUG)
sys.argv[0] = "dblens"
from dblens.cli import main
main()
"""
"""The command line with everything logged that anybody has to say, by us and by what we use."""


class Served:
    """A service that can be killed and started again over the same store. What it writes to stderr is in `log`."""

    def __init__(self, folder: Path, *, mode: str = "single", debug: bool = False, **env: str) -> None:
        self.folder = folder
        self.command = [sys.executable, "-c", DEBUG] if debug else [sys.executable, "-m", "dblens"]
        self.log, self.out = folder / "service.log", folder / "service.out"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DBLENS_")}
        self.env |= {"DBLENS_DATA_FOLDER": str(folder), "XDG_CONFIG_HOME": str(folder), "DBLENS_MODE": mode}
        if mode == "team":
            for name in ("kek", "audit-key"):
                if not (folder / name).exists():
                    make_key(folder / name)
            self.env |= {
                "DBLENS_STORE_URL": f"sqlite:///{folder / 'store.sqlite'}",
                "DBLENS_KEK_FILE": str(folder / "kek"),
                "DBLENS_AUDIT_KEY_FILE": str(folder / "audit-key"),
            }
        self.env |= env
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def settings(self) -> Settings:
        """What a process over the same store is set up with."""
        given = {name: self.env.get(f"DBLENS_{name.upper()}") for name in ("mode", "store_url", "kek_file")}
        given["audit_key_file"] = self.env.get("DBLENS_AUDIT_KEY_FILE")
        given["data_folder"] = str(self.folder)
        given["store_url"] = given["store_url"] or f"sqlite:///{self.folder / 'store.sqlite'}"
        return msgspec.convert({k: v for k, v in given.items() if v}, Settings, dec_hook=lambda kind, v: kind(v))

    def start(self, *more: str) -> Served:
        command = [*self.command, "serve", "--json", *(more or ("--port", "0"))]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=self.env, start_new_session=True,
            )  # fmt: skip
        said: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def listen(stream: Any) -> None:
            with self.out.open("ab") as out:
                for line in stream:
                    out.write(line)
                    out.flush()
                    said.put(line)
            said.put(b"")

        threading.Thread(target=listen, args=(self.process.stdout,), daemon=True).start()
        try:
            line = said.get(timeout=PATIENCE)
        except queue.Empty:
            line = b""
        if not line.startswith(b'{"url"'):
            self.kill()
            raise AssertionError(f"it does not serve: {line.decode()} {self.log.read_text()[-2000:]}")
        self.url = json.loads(line)["url"]
        return self

    def start_on_socket(self) -> Served:
        """Start where DBLENS_SOCKET says."""
        return self.start("--no-docs")

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it as an administrator would."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def bearer(self) -> str:
        """The token of the person at this machine."""
        answer = httpx.post(
            f"{self.url}/api/v1/auth/local", json={"secret": (self.folder / "local-secret").read_text().strip()}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access"])

    def client(self) -> httpx.Client:
        """A client that is logged in as the person at this machine."""
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {self.bearer()}"}, timeout=60
        )

    @contextlib.contextmanager
    def house(self) -> Iterator[House]:
        """The store, opened by this process."""
        made = House.open(self.settings)
        try:
            yield made
        finally:
            made.close()


def keep(house: House, org_id: str, owner: str, name: str, url: str, **more: Any) -> str:
    """Store a connection by its URL, as somebody who owns it would; return its id."""
    spec, password = from_url(url)
    with house.store.write() as tx:
        made = connections.create_connection(
            tx, org_id, name=name, engine=spec.engine, fields=spec.export(), owner_id=owner, now=house.clock(), **more,
        )  # fmt: skip
        if password is not None:
            secrets.put(tx, house.keyring, org_id, made.id, "password", Secret(password), now=house.clock())
    return made.id


def ended(client: httpx.Client, run_id: str, seconds: float = PATIENCE) -> dict[str, Any]:
    """Wait for a run to end, by polling; return it."""
    end = time.monotonic() + seconds
    while True:
        run: dict[str, Any] = client.get(f"/runs/{run_id}").json()
        if run.get("state") not in ("queued", "running") or time.monotonic() > end:
            return run
        time.sleep(0.05)
