"""33: somebody else on the same machine, with another uid: a kernel beside the service. And what lies about for them to find."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblens.api.server import _unix
from dblens.errors import Conflict, InvalidInput, StoreError
from dblens.redaction import Secret
from tests.attacks.served import Served

ROOT = os.geteuid() == 0
OTHER = 65534  # nobody
needs_root = pytest.mark.skipif(not ROOT, reason="only root can become somebody else")

PROBE = """
import json, os, socket, sys
given = json.loads(sys.argv[1])
os.setgroups([]); os.setgid(given["uid"]); os.setuid(given["uid"])
found = {}
def attempt(name, do):
    try:
        do()
    except OSError as error:
        found[name] = type(error).__name__
    else:
        found[name] = "in"
for path in given["files"]:
    attempt(path, lambda: open(path, "rb").read(1))
def connect():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(given["socket"])
attempt("socket", connect)
for name in ("environ", "mem", "maps", "cwd", "fd"):
    path = f"/proc/{given['pid']}/{name}"
    attempt(path, lambda: os.listdir(path) if name in ("cwd", "fd") else open(path, "rb").read(1))
attempt("kill", lambda: os.kill(given["pid"], 0))
def squat():
    os.rename(given["socket"], given["socket"] + ".away")
attempt("squat", squat)
print(json.dumps(found))
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Served, Path]]:
    tmp_path.chmod(0o755)  # nothing above the service's own folders protects it
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest"):
            parent.chmod(0o755)
    folder = tmp_path / "data"
    place = tmp_path / "run" / "api.sock"
    folder.mkdir(mode=0o755)
    made = Served(folder, DBLENS_SOCKET=str(place))
    made.start_on_socket()
    yield made, place
    made.stop()


@needs_root
def test_another_user_gets_in_nowhere(service: tuple[Served, Path]) -> None:
    served, place = service
    assert served.process is not None
    files = [
        str(path)
        for path in sorted(served.folder.rglob("*"))
        if path.is_file() and not path.name.startswith("service.")
    ]
    assert any(path.endswith("store.sqlite") for path in files)
    assert any(path.endswith("local-secret") for path in files)
    given = {"uid": OTHER, "files": files, "socket": str(place), "pid": served.process.pid}
    said = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, json.dumps(given)], capture_output=True, text=True, check=True
    )
    found = json.loads(said.stdout)
    assert set(found.values()) == {"PermissionError"}, found
    # The probe itself finds what is open: as ourselves it gets in.
    mine = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, json.dumps({**given, "uid": 0})], capture_output=True, text=True, check=True
    )
    assert "in" in json.loads(mine.stdout).values()


def test_everything_that_is_written_is_private(service: tuple[Served, Path]) -> None:
    served, place = service
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    for path in served.folder.rglob("*"):
        if not path.name.startswith("service."):
            assert not path.stat().st_mode & 0o077, path


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(InvalidInput, match="entered by others"):
        _unix(open_to_all / "api.sock")
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(there)
    with pytest.raises(InvalidInput, match="entered by others"):
        _unix(tmp_path / "link" / "api.sock")  # whoever made the link can lead it elsewhere


def test_a_socket_that_somebody_serves_is_not_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with contextlib.closing(_unix(folder / "api.sock")), pytest.raises(Conflict, match="already"):
        _unix(folder / "api.sock")
    with contextlib.closing(_unix(folder / "api.sock")):  # what a dead process left is taken away
        pass
    (folder / "file.sock").write_text("")
    with pytest.raises(Conflict):
        _unix(folder / "file.sock")
    assert (folder / "file.sock").exists()


def test_the_secret_of_this_machine_is_not_read_from_where_others_can_write(tmp_path: Path) -> None:
    from dblens.api.identity import local_secret

    secret = local_secret(tmp_path)
    assert isinstance(secret, Secret)
    path = tmp_path / "local-secret"
    path.chmod(0o644)
    with pytest.raises(StoreError, match="read by others"):
        local_secret(tmp_path)
    path.unlink()
    (tmp_path / "planted").write_text("x" * 43)
    path.symlink_to(tmp_path / "planted")
    with pytest.raises(StoreError):
        local_secret(tmp_path)
    path.unlink()
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(StoreError, match="no secret"):
        local_secret(tmp_path)


def test_on_a_port_everybody_needs_the_token(tmp_path: Path) -> None:
    """Loopback is shared by all users of the machine: being there is no proof of anything."""
    import httpx

    with Served(tmp_path) as service:
        for path in ("/account", "/connections", "/runs", "/audit", "/settings/list"):
            assert httpx.get(f"{service.url}/api/v1{path}").status_code == 401
        wrong = httpx.post(f"{service.url}/api/v1/auth/local", json={"secret": "x" * 43})
        assert wrong.status_code == 401


def test_alone_it_does_not_listen_for_others(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "db.example.org"):
        with pytest.raises(AssertionError, match="single-user mode serves this machine only"):
            Served(tmp_path).start("--host", host)


def test_a_team_does_not_start_without_keys_of_its_own(tmp_path: Path) -> None:
    for missing in ("DBLENS_KEK_FILE", "DBLENS_AUDIT_KEY_FILE"):
        folder = tmp_path / missing
        folder.mkdir(mode=0o700)
        service = Served(folder, mode="team")
        del service.env[missing]
        with pytest.raises(AssertionError, match="it does not serve"):
            service.start()


def test_the_key_leaves_the_environment_before_a_child_could_inherit_it(tmp_path: Path) -> None:
    from tests.workspace.rooms import key

    service = Served(tmp_path, DBLENS_KEK=f"k1:{key('canary')}")
    with service:
        assert service.process is not None
        children = subprocess.run(
            [sys.executable, "-c", "import os; from dblens.settings import load; load(); print(os.popen('env').read())"],
            env=service.env, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert key("canary") not in children.stdout
    assert "DBLENS_DATA_FOLDER" in children.stdout
