"""`dblens org|team|role|user|token|account`: alone on a laptop, and on the machine of a team's service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens import settings
from dblens.cli import run
from dblens.redaction import Secret
from dblens.store.audit_find import Filter, every
from dblens.store.keys import make_key
from dblens.store.upgrade import open_store
from dblens.workspace import entrance, home
from tests.workspace.people import GOOD, HERE

ROOT = Path(__file__).resolve().parents[2]
NEW = "Schlussstein-8 sitzt"


class Line:
    """The command line, in this process: what it wrote, as JSON, and its exit code."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str) -> Any:
        status = run([*arguments, "--json"])
        out, err = self._capfd.readouterr()
        assert status == 0, err
        return json.loads(out) if out.strip() else None

    def plain(self, *arguments: str) -> tuple[str, str]:
        status = run(arguments)
        out, err = self._capfd.readouterr()
        assert status == 0, err
        return out, err

    def fails(self, *arguments: str) -> dict[str, Any]:
        status = run([*arguments, "--json"])
        out, err = self._capfd.readouterr()
        assert status != 0
        assert out == ""
        assert "Traceback" not in err
        return dict(json.loads(err.splitlines()[-1])["error"])


@pytest.fixture
def line(capfd: pytest.CaptureFixture[str]) -> Line:
    return Line(capfd)


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DBLENS_DATA_FOLDER", str(tmp_path / "data"))
    home.close()
    yield
    home.close()


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("kek", "audit"):
        make_key(tmp_path / name)
        monkeypatch.setenv(f"DBLENS_{name.upper()}{'_KEY' if name == 'audit' else ''}_FILE", str(tmp_path / name))
    monkeypatch.setenv("DBLENS_DATA_FOLDER", str(tmp_path / "data"))
    monkeypatch.setenv("DBLENS_MODE", "team")
    home.close()
    from dblens.store.database import Store
    from dblens.store.upgrade import upgrade

    store = Store.open(settings.load().store_url)
    upgrade(store)
    store.close()
    yield
    home.close()


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], str]:
    def made(text: str) -> str:
        file = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        file.write_text(text + "\n")
        return str(file)

    return made


@pytest.mark.usefixtures("laptop")
def test_alone_on_a_laptop(line: Line) -> None:
    (first,) = line("org", "list")
    assert (first["slug"], first["role"], first["current"]) == ("personal", "admin", True)
    assert line("org", "create", "Data Team")["slug"] == "data-team"
    assert [found["current"] for found in line("org", "list")] == [True, False]
    line("org", "use", "data-team")
    assert line("org", "show")["name"] == "Data Team"
    assert line("org", "show", "personal")["name"] == "personal"
    assert [member["role"] for member in line("org", "members")] == ["admin"]
    line("role", "create", "tester", "catalog.*", "verify.run", "--rank", "30")
    assert line("role", "show", "tester")["permissions"] == ["catalog.*", "verify.run"]
    assert line("role", "update", "tester", "--rank", "20")["rank"] == 20
    assert {role["name"] for role in line("role", "list")} >= {"admin", "tester"}
    line("team", "create", "crew")
    me = line("account", "show")["name"]
    line("team", "add", "crew", me)
    assert [member["name"] for member in line("team", "members", "crew")] == [me]
    line("team", "remove", "crew", me)
    line("team", "rename", "crew", "others")
    line("team", "delete", "others", "--yes")
    assert line("team", "list") == []
    line("role", "delete", "tester", "--yes")
    assert line.fails("org", "leave", "data-team", "--yes")["code"] == "conflict"
    line("org", "delete", "data-team", "--yes")
    assert [found["slug"] for found in line("org", "list")] == ["personal"]
    assert line.fails("org", "show", "data-team")["code"] == "not_found"
    assert line.fails("account", "confirm", "--password-file", os.devnull)["code"] == "input.invalid"
    assert "--as NAME is for the service" in line.fails("user", "list", "--as", "root")["message"]


@pytest.mark.usefixtures("laptop")
def test_a_token_is_written_to_stdout_once_and_to_nothing_else(line: Line) -> None:
    out, err = line.plain("token", "create", "ci", "--scope", "catalog.*", "--days", "3")
    assert out.startswith("dbl_pat_")
    assert out.strip() not in err
    (found,) = line("token", "list")
    assert (found["name"], found["scopes"]) == ("ci", ["catalog.*"])
    assert line("token", "list", "--all", "--user", found["user"])[0]["id"] == found["id"]
    line("token", "revoke", found["id"])
    assert line("token", "list") == []
    assert len(line("token", "list", "--ended")) == 1
    made = line("token", "create", "ci", "--scope", "*.*", "--days", "1")
    assert line("token", "revoke", "--user", found["user"]) == {"ended": 1}
    assert made["secret"] not in json.dumps(line("token", "list", "--ended"))
    assert line.fails("token", "create", "ci", "--scope", "nothing.at_all", "--days", "1")["code"] == "input.invalid"
    assert line.fails("token", "create", "ci", "--scope", "*.*", "--days", "0")["code"] == "input.invalid"
    assert line.fails("token", "revoke")["code"] == "input.invalid"


@pytest.mark.usefixtures("team")
def test_on_the_services_machine(line: Line, secret: Callable[[str], str]) -> None:
    assert "a super_admin" in line.fails("user", "create", "ann")["hint"]
    made = line("user", "create", "root", "--super-admin", "--password-file", secret(GOOD))
    assert made["reset"] is None
    assert made["user"]["super_admin"] is True
    for arguments in (["user", "list"], ["user", "create", "eve", "--super-admin"], ["org", "list"]):
        assert "--as NAME" in line.fails(*arguments)["hint"]
    for wrong in ("nobody", "ann"):
        assert line.fails("user", "list", "--as", wrong)["code"] == "permission.denied"
    root = ["--as", "root"]
    line("user", "create", "ann", "--email", "ann@example.org", "--password-file", secret(GOOD), *root)
    out, err = line.plain("user", "create", "bob", *root)
    token = out.splitlines()[-1]
    assert len(token) == 43
    assert "shown only now" in err
    line("org", "create", "Acme", "--admin", "ann", *root)
    assert [found["slug"] for found in line("org", "list", *root)] == ["acme"]
    acme = ["--organization", "acme", *root]
    line("org", "admit", "bob", "developer", *acme)
    assert line("org", "assign", "bob", "viewer", *acme)["role"] == "viewer"
    assert {member["name"]: member["role"] for member in line("org", "members", *acme)} == {
        "ann": "admin",
        "bob": "viewer",
    }
    invited = line("org", "invite", "eve@example.org", "viewer", *acme)
    assert [found["email"] for found in line("org", "invitations", *acme)] == ["eve@example.org"]
    line("org", "uninvite", invited["invitation"]["id"], *acme)
    assert line.fails("org", "remove", "ann", "--yes", *acme)["code"] == "conflict"
    line("org", "remove", "bob", "--yes", *acme)
    assert line.fails("org", "members", *root)["code"] == "input.invalid", "no organization was named"
    assert line("user", "show", "ann", *root)["organizations"] == ["acme"]
    line("user", "disable", "bob", *root)
    assert [found["name"] for found in line("user", "list", "--disabled", *root)] == ["bob"]
    line("user", "enable", "bob", *root)
    line("user", "update", "bob", "--display", "Bob", *root)
    line("user", "approve", "bob", *root)
    issued = line("user", "reset", "bob", *root)
    line("account", "reset", "--token-file", secret(issued["token"]), "--new-password-file", secret(NEW))
    again = line.fails("account", "reset", "--token-file", secret(issued["token"]), "--new-password-file", secret(NEW))
    assert again["code"] == "auth.required"
    assert entrance.log_in(home.house(settings.load()), "bob", Secret(NEW), HERE).user.name == "bob"
    line("user", "super-admin", "bob", *root)
    line("user", "super-admin", "bob", "--revoke", *root)
    assert line.fails("user", "super-admin", "root", "--revoke", *root)["code"] == "conflict"
    assert line("user", "sessions", "ann", *root) == []
    line("user", "sessions", "ann", "--end", *root)
    assert line.fails("user", "delete", "ann", "--yes", *root)["code"] == "conflict"
    assert line.fails("user", "delete", "bob", "--yes", "--to", "acme", *root)["code"] == "input.invalid"
    line("user", "delete", "bob", "--yes", *root)
    house = home.house(settings.load())
    house.journal.flush()
    rows = [row for row in every(house.store, None, Filter()) if row.action == "user.disable"]
    assert [(row.actor, row.client.startswith("command line, ")) for row in rows] == [("root", True)] * 2
    first = next(
        row for row in every(house.store, None, Filter()) if row.action == "user.create" and row.outcome == "ok"
    )
    assert (first.actor_id, first.client) == ("", f"command line, {first.actor}")


@pytest.mark.usefixtures("team")
def test_what_needs_a_yes_does_nothing_without(line: Line, secret: Callable[[str], str]) -> None:
    line("user", "create", "root", "--super-admin", "--password-file", secret(GOOD))
    line("user", "create", "ann", "--as", "root")
    failed = line.fails("user", "delete", "ann", "--as", "root")
    assert (failed["code"], failed["hint"]) == ("input.invalid", "add --yes")
    assert line("user", "show", "ann", "--as", "root")["name"] == "ann"


@pytest.mark.usefixtures("team")
def test_an_invitation_is_accepted_with_the_token_from_a_file(line: Line, secret: Callable[[str], str]) -> None:
    line("user", "create", "root", "--super-admin", "--password-file", secret(GOOD))
    line("user", "create", "ann", "--email", "ann@example.org", "--password-file", secret(GOOD), "--as", "root")
    line("org", "create", "Acme", "--as", "root")
    made = line("org", "invite", "ann@example.org", "viewer", "--organization", "acme", "--as", "root")
    house = home.house(settings.load())
    done = entrance.log_in(house, "ann", Secret(GOOD), HERE)
    principal = entrance.authenticate(house, Secret(done.tokens.access), HERE, operation="account.password")
    house.workspace(principal).account.password(Secret(GOOD), Secret(NEW))
    ann = house.workspace(entrance.authenticate(house, Secret(done.tokens.access), HERE))
    assert ann.organizations.accept(Secret(made["token"])).role == "viewer"
    # A super_admin is not the one who was invited.
    again = line("org", "invite", "eve@example.org", "viewer", "--organization", "acme", "--as", "root")
    assert line.fails("org", "accept", "--token-file", secret(again["token"]))["code"] == "input.invalid"


def test_no_password_is_taken_from_the_command_line(line: Line) -> None:
    for arguments in (
        ["user", "create", "ann", "--password", "hunter2"],
        ["user", "create", "ann", "--password=hunter2"],
        ["account", "password", "hunter2"],
        ["account", "confirm", "hunter2"],
        ["org", "accept", "dbl_inv_x"],
    ):
        assert line.fails(*arguments)["exit"] == 2


def test_a_whole_process(tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("DBLENS_")}
    environ |= {"DBLENS_DATA_FOLDER": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def dblens(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dblens", *arguments],
            cwd=ROOT, env=environ, input=given, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    made = dblens("user", "create", "ann", "--password-file", "-", given=GOOD + "\n")
    assert made.returncode == 0, made.stderr
    assert GOOD not in made.stdout + made.stderr
    assert "ann" in dblens("user", "list").stdout
    store = open_store(f"sqlite:///{tmp_path}/store.sqlite")
    try:
        actions = [row.action for row in every(store, None, Filter())]
        assert actions.count("user.create") == 2
    finally:
        store.close()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert GOOD.encode() not in file.read_bytes(), file
