"""`dblens serve` as a process: where it listens, who gets in, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dblens.store.keys import make_key

V = "/api/v1"
Start = Callable[..., subprocess.Popen[str]]


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DBLENS_")}
    return {**kept, "DBLENS_DATA_FOLDER": str(folder), "XDG_CONFIG_HOME": str(folder), **more}


def team(folder: Path) -> dict[str, str]:
    for name in ("kek", "audit"):
        make_key(folder / name)
    return _keys(folder)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def make(*args: str, **more: str) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [sys.executable, "-c", "from dblens.cli import main; main()", "serve", "--json", *args],
            env=environment(tmp_path, **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(made)
        return made

    yield make
    for each in begun:
        with contextlib.suppress(ProcessLookupError):
            each.kill()
        each.communicate(timeout=20)


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return dict(json.loads(line))


def local(url: str, folder: Path, **more: Any) -> dict[str, str]:
    secret = (folder / "local-secret").read_text().strip()
    with httpx.Client(base_url=url, **more) as client:
        made = client.post(f"{V}/auth/local", json={"secret": secret})
    assert made.status_code == 200, made.text
    return {"Authorization": f"Bearer {made.json()['access']}"}


def test_alone_on_a_free_port(start: Start, tmp_path: Path) -> None:
    process = start("--port", "0")
    where = ready(process)
    assert (where["host"], where["mode"], where["pid"]) == ("127.0.0.1", "single", process.pid)
    head = local(where["url"], tmp_path)
    answer = httpx.get(f"{where['url']}{V}/connections", headers=head)
    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert httpx.get(f"{where['url']}{V}/docs").status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert (out, err) == ("", "")


def test_it_stops_with_its_parent(start: Start) -> None:
    process = start("--port", "0", "--exit-with-parent")
    ready(process)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    begun = time.monotonic()
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - begun < 5


def test_an_open_stream_does_not_hold_it(start: Start, tmp_path: Path) -> None:
    from dblens.settings import Settings
    from dblens.store import runs
    from dblens.store.records import now
    from dblens.workspace.house import House

    house = House.open(Settings(store_url=f"sqlite:///{tmp_path / 'store.sqlite'}", data_folder=tmp_path))
    owner = house.owner
    with house.store.write() as tx:
        run = runs.create_run(tx, owner.org_id or "", "migration.plan", user_id=owner.user_id, now=now()).id
    house.close()
    process = start("--port", "0")
    url = ready(process)["url"]
    with httpx.stream("GET", f"{url}{V}/runs/{run}/events", headers=local(url, tmp_path)) as answer:
        lines = answer.iter_lines()
        assert "retry" in next(lines)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        list(lines)
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - begun < 6


def test_a_unix_socket_in_a_folder_of_ones_own(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    process = start("--socket", str(path))
    where = ready(process)
    assert where["socket"] == str(path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o077 == 0
    transport = httpx.HTTPTransport(uds=str(path))
    head = local("http://dblens", tmp_path, transport=transport)
    with httpx.Client(base_url="http://dblens", transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get(f"{V}/connections", headers=head).status_code == 200
    second = start("--socket", str(path))
    assert second.wait(timeout=20) == 4
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert not path.exists()


def test_a_socket_that_a_dead_process_left_is_taken(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    first = start("--socket", str(path))
    ready(first)
    first.kill()
    first.wait(timeout=20)
    assert path.exists()
    ready(start("--socket", str(path)))


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_enter_is_refused(start: Start, tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    process = start("--socket", str(folder / "api.sock"))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "entered by others" in err


def test_alone_it_does_not_serve_the_network(start: Start) -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        process = start("--host", host, "--port", "0")
        _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        assert "this machine only" in err


def test_a_port_that_is_taken(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--port", str(taken.getsockname()[1]))
        _, err = process.communicate(timeout=20)
    assert process.returncode == 4
    assert "cannot be listened on" in err


def test_a_team_needs_its_keys(start: Start, tmp_path: Path) -> None:
    keys = team(tmp_path)
    for missing in ("DBLENS_KEK_FILE", "DBLENS_AUDIT_KEY_FILE"):
        process = start("--port", "0", **{k: v for k, v in keys.items() if k != missing})
        out, err = process.communicate(timeout=30)
        assert process.returncode != 0
        assert out == ""
        assert json.loads(err)["error"]["code"] in ("store.failed", "vault.failed", "input.invalid")


def test_a_team_is_set_up_with_the_code_that_was_printed(start: Start, tmp_path: Path) -> None:
    process = start("--port", "0", **team(tmp_path))
    assert process.stderr is not None
    code = process.stderr.readline().strip().rpartition(" ")[2]
    url = ready(process)["url"]
    body = {"name": "root", "password": "plum orbit kettle 4471", "code": code, "organization": "acme"}
    assert httpx.post(f"{url}{V}/auth/set-up", json={**body, "code": "x"}).status_code == 403
    assert httpx.post(f"{url}{V}/auth/set-up", json=body).status_code == 204
    assert httpx.get(f"{url}{V}/docs").status_code == 404
    assert not (tmp_path / "local-secret").exists()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert code not in err
    again = start("--port", "0", **_keys(tmp_path))
    ready(again)
    again.send_signal(signal.SIGTERM)
    assert again.communicate(timeout=20)[1] == ""


def _keys(folder: Path) -> dict[str, str]:
    return {
        "DBLENS_MODE": "team",
        "DBLENS_KEK_FILE": str(folder / "kek"),
        "DBLENS_AUDIT_KEY_FILE": str(folder / "audit"),
    }


def test_below_a_prefix(start: Start) -> None:
    url = ready(start("--port", "0", "--root-path", "/services/dblens"))["url"]
    assert url.endswith("/services/dblens")
    assert httpx.get(f"{url}{V}/version").status_code == 200
