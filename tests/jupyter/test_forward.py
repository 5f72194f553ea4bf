"""`…/dblens/api/*` of a real Jupyter server: who may come in, what is passed on, what never is, and what becomes of the child."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dblens.query import stream
from dblens.version import __version__
from tests.api.conftest import FAST, World, serving, team_settings
from tests.jupyter.conftest import Person, until

pytest.importorskip("jupyter_server")
from dblens.api.app import create_app
from dblens.workspace.house import House

TOKEN = "a-token-of-the-tests"
V = "/dblens/api/v1"


class Jupyter:
    """A Jupyter server with the extension, and whoever holds its token."""

    def __init__(self, person: Person, folder: Path, **more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log, self.url = folder / "jupyter.log", f"http://127.0.0.1:{port}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
                    f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--ServerApp.terminals_enabled=False",
                    "--ServerApp.jpserver_extensions=dblens.jupyter.server=True",
                ],
                env={**person.env, "XDG_RUNTIME_DIR": str(folder), **more}, cwd=folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"token {TOKEN}"}, timeout=60)
        until(self._answers, 60)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/api").status_code == 200
        return False

    def children(self) -> list[int]:
        """The processes of `dblens serve` that it started."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"serve" in (path / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture(scope="module")
def alone(person: Person, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    made = Jupyter(person, tmp_path_factory.mktemp("run"))
    yield made
    made.close()


def test_a_stranger_gets_nothing(alone: Jupyter) -> None:
    for path in (f"{V}/connections", f"{V}/queries/run", "/dblens/about"):
        for headers in ({}, {"Authorization": "token wrong"}):
            assert httpx.get(alone.url + path, headers=headers).status_code == 403
            assert httpx.post(alone.url + path, headers=headers, json={}).status_code in (403, 405)


def test_a_page_is_answered_by_a_child_that_starts_with_the_first_question(alone: Jupyter) -> None:
    about = alone.http.get("/dblens/about").json()
    assert about == {"version": __version__, "mode": "single"}
    answer = alone.http.get(f"{V}/connections")
    assert answer.status_code == 200, answer.text
    assert [each["name"] for each in answer.json()["items"]] == ["shop"]
    [child] = alone.children()
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert TOKEN.encode() not in environment
    assert b"JUPYTER" not in environment.replace(b"jupyter-", b"")
    wrong = alone.http.post(f"{V}/queries/run", json={"connection": "nowhere", "text": "select 1"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (404, "application/problem+json")
    assert wrong.json()["code"] == "not_found"


def test_rows_stream_by_exactly(alone: Jupyter) -> None:
    body = {"connection": "shop", "text": "select id, total from orders order by id desc", "limit": None}
    with alone.http.stream("POST", f"{V}/queries/run", json=body) as answer:
        assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
        octets = answer.read()
    [table] = [list(reading.batches()) for reading in stream.readings(io.BytesIO(octets))]
    assert table[0].column("id")[0].as_py() == 9007199254740993


def test_a_page_that_leaves_stops_what_it_asked(alone: Jupyter) -> None:
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select n, 'left' as t from r"
    body = {"connection": "shop", "text": endless, "limit": None, "octets": None}
    with alone.http.stream("POST", f"{V}/queries/run", json=body) as answer:
        assert next(answer.iter_raw())
    until(lambda: _outcome(alone, endless) not in (None, "ok"), 20)


def _outcome(jupyter: Jupyter, text: str) -> str | None:
    found = jupyter.http.get(f"{V}/queries/history", params={"limit": 5}).json()["items"]
    return next((each["outcome"] for each in found if each["text"] == text), None)


@pytest.mark.parametrize(
    "path", ["/auth/local", "/auth/login", "/auth/state", "/../../etc/passwd", "/./x", "/%2e%2e/x"]
)
def test_logins_and_other_paths_are_not_reached(alone: Jupyter, path: str) -> None:
    target = f"{alone.url}{V}{path}"
    for method in ("GET", "POST"):
        request = httpx.Request(method, target, headers={"Authorization": f"token {TOKEN}"}, json={})
        request.url = httpx.URL(target)
        assert alone.http.send(request).status_code in (400, 404), path


def test_a_forged_request_of_another_page_is_refused(alone: Jupyter) -> None:
    """Who comes by cookie has to show the token against forged requests; a header with Jupyter's token is no browser's."""
    with httpx.Client(base_url=alone.url) as page:
        page.get("/tree", params={"token": TOKEN})  # a page logs in by its address
        assert page.cookies
        assert page.get(f"{V}/connections").status_code == 200
        body = {"spec": {"engine": "sqlite", "name": "forged", "path": "x.db"}}
        forged = page.post(f"{V}/connections", json=body, headers={"Origin": "http://evil.example"})
        assert forged.status_code in (403, 404)
    assert "forged" not in alone.http.get(f"{V}/connections").text


def test_nothing_of_jupyter_is_passed_on_and_nothing_of_the_service_shown(person: Person, tmp_path: Path) -> None:
    """A service that writes down what it hears."""
    heard: list[dict[str, str]] = []

    async def listens(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        heard.append({name.decode(): value.decode() for name, value in scope["headers"]})
        head = [(b"content-type", b"application/json"), (b"set-cookie", b"a=b"), (b"x-told", b"yes")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"{}"})

    with serving(listens) as url:
        jupyter = Jupyter(person, tmp_path, DBLENS_URL=url, DBLENS_TOKEN="dbl_pat_canary-of-the-service")
        try:
            jupyter.http.cookies.set("session", "canary-cookie")
            answer = jupyter.http.get(
                f"{V}/connections", headers={"X-XSRFToken": "canary-xsrf", "X-DBLens-Organization": "acme"}
            )
        finally:
            jupyter.close()
    assert (answer.status_code, answer.headers["x-told"]) == (200, "yes")
    assert "a=b" not in str(answer.headers)
    [one] = heard
    assert one["authorization"] == "Bearer dbl_pat_canary-of-the-service"
    assert one["x-dblens-organization"] == "acme"
    assert not {"cookie", "x-xsrftoken"} & set(one)
    assert TOKEN not in json.dumps(one)
    assert "canary" not in jupyter.log.read_text()


def test_the_same_handler_leads_to_a_team_s_service(person: Person, tmp_path: Path) -> None:
    house = House.open(team_settings(tmp_path))
    world = World(house)
    token = tmp_path / "token"
    token.write_text(world.token("acme", "developer"))
    token.chmod(0o600)
    try:
        with serving(create_app(house, rates=FAST)) as url:
            jupyter = Jupyter(
                person, tmp_path, DBLENS_URL=url, DBLENS_TOKEN_FILE=str(token), DBLENS_ORGANIZATION="acme"
            )
            try:
                assert jupyter.http.get("/dblens/about").json()["mode"] == "team"
                assert jupyter.http.get(f"{V}/account").json()["name"] == "developer-acme"
                assert jupyter.children() == []
                token.write_text("dbl_pat_" + "x" * 43)
                assert jupyter.http.get(f"{V}/account").status_code == 401
                token.write_text(world.token("acme", "admin"))
                assert jupyter.http.get(f"{V}/account").json()["name"] == "admin-acme"
            finally:
                jupyter.close()
    finally:
        house.close()


def test_the_child_comes_and_goes_with_its_server(person: Person, tmp_path: Path) -> None:
    jupyter = Jupyter(person, tmp_path)
    try:
        assert jupyter.children() == [], "nothing is started that nobody asked for"
        assert jupyter.http.get(f"{V}/connections").status_code == 200
        [first] = jupyter.children()
        os.kill(first, signal.SIGKILL)
        until(lambda: first not in jupyter.children(), 10)
        answer = jupyter.http.get(f"{V}/connections")
        assert answer.status_code == 200, answer.text
        [second] = jupyter.children()
        assert second != first
    finally:
        jupyter.process.kill()  # it can say no good-bye
        jupyter.process.wait(10)
        jupyter.http.close()
    until(lambda: not Path(f"/proc/{second}").exists(), 40)


def test_a_service_that_does_not_start_is_told(person: Person, tmp_path: Path) -> None:
    jupyter = Jupyter(person, tmp_path, DBLENS_STORE_URL="sqlite:////proc/nothing/store.sqlite")
    try:
        begun = time.monotonic()
        answer = jupyter.http.get(f"{V}/connections")
        assert answer.status_code == 502
        assert answer.headers["content-type"] == "application/problem+json"
        assert "did not start" in answer.json()["detail"]
        assert time.monotonic() - begun < 30
    finally:
        jupyter.close()
