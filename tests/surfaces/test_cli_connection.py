"""`dblens connection` as a program: every command, what it says where, its exit codes, and that no password is an argument."""

from __future__ import annotations

import getpass
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dblens import cli
from dblens.store import accounts, organizations, teams
from dblens.store.database import Store
from dblens.store.records import now
from dblens.workspace import home
from tests.servers import Postgres
from tests.servers.process import PASSWORD

ROOT = Path(__file__).resolve().parents[2]
CANARY = "k4n4r13n-v0g3l"
COMMANDS = ("create", "list", "show", "test", "try", "update", "delete", "duplicate", "share", "unshare", "grants", "transfer", "export",
            "import", "pool", "create-database")  # fmt: skip


class Shell:
    """A person's command line, with a store of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command line in this process: a hundred interpreters would take minutes."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in [name for name in os.environ if name.startswith(("DBLENS_", "XDG_", "PG"))]:
                patch.delenv(name)
            for name, value in {**self.environ(), **more}.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            try:
                status = cli.run(["connection", *arguments])
            finally:
                home.close()
        told = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(arguments, status, *told)

    def environ(self) -> dict[str, str]:
        return {"DBLENS_DATA_FOLDER": str(self.folder / "dblens"), "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def program(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it as a program of its own."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("DBLENS_", "XDG_", "PG"))}
        return subprocess.run(
            [sys.executable, "-m", "dblens", "connection", *arguments], cwd=self.folder, capture_output=True, text=True,
            check=False, timeout=120, stdin=subprocess.DEVNULL, env=environ | self.environ() | more,
        )  # fmt: skip

    def json(self, *arguments: str, stdin: str = "", **more: str) -> Any:
        done = self.run(*arguments, "--json", stdin=stdin, **more)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def failed(self, status: int, *arguments: str, stdin: str = "", **more: str) -> Any:
        done = self.run(*arguments, "--json", stdin=stdin, **more)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert CANARY not in done.stdout + done.stderr
        return json.loads(done.stderr.splitlines()[-1])["error"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_from_a_file_to_its_copy_and_back(shell: Shell, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "notes.db").close()
    made = shell.json("create", "notes", "--url", "sqlite:///notes.db", "-e", "staging", "--colour", "red")
    assert (made["name"], made["fields"]["path"], made["environment"]) == (
        "notes",
        str(tmp_path / "notes.db"),
        "staging",
    )
    assert shell.run("create", "bare", "--url", "notes.db").returncode == 0
    listed = shell.run("list")
    assert listed.stdout.splitlines()[0].split("\t") == [
        "name",
        "engine",
        "address",
        "environment",
        "may write",
        "your level",
    ]
    assert f"notes\tsqlite\tsqlite:///{tmp_path}/notes.db\tstaging\tyes\tmanage" in listed.stdout
    assert [each["name"] for each in shell.json("list", "NOT", "--engine", "sqlite")["items"]] == ["notes"]
    assert f"fields.path\t{tmp_path}/notes.db" in shell.run("show", "notes").stdout
    assert shell.json("test", "notes")["ok"]
    assert shell.run("test", "notes").stdout.startswith("ok: ")
    assert shell.json("try", "--url", "sqlite:///notes.db")["ok"]
    assert shell.json("try", "--fields", "-", stdin='{"engine": "sqlite", "path": "notes.db"}')["ok"]
    assert shell.json("update", "notes", "--name", "mine", "--read-only", "--colour", "")["version"] == 2
    assert shell.json("show", "mine")["read_only"]
    assert shell.failed(4, "update", "mine", "--writable", "--version", "1")["code"] == "conflict"
    assert shell.failed(5, "create-database", "mine", "x.db")["code"] == "permission.denied"
    assert shell.json("update", "mine", "--writable")["version"] == 3
    assert shell.json("create-database", "mine", "other.db", "--name", "other")["fields"]["path"] == str(
        tmp_path / "other.db"
    )
    assert shell.failed(4, "create-database", "mine", "other.db", "--name", "again")["code"] == "conflict"
    assert shell.json("duplicate", "mine", "copy")["name"] == "copy"
    assert shell.json("pool", "mine") == {}
    assert shell.failed(2, "delete", "copy")["hint"] == "add --yes"
    assert shell.json("delete", "copy", "--yes").keys() == {"deleted"}
    assert shell.failed(4, "show", "copy")["code"] == "not_found"


def test_it_is_a_program(shell: Shell) -> None:
    done = shell.program("create", "shop", "--url-env", "URL", "--json", URL=f"mysql://me:{CANARY}@db.example.org/shop")
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert json.loads(done.stdout)["name"] == "shop"
    assert shell.program("show", "nothing").returncode == 4
    modes = {path.name: path.stat().st_mode & 0o077 for path in (shell.folder / "dblens").iterdir() if path.is_file()}
    assert {"store.sqlite", "kek"} <= set(modes)
    assert set(modes.values()) == {0}


def test_a_test_that_fails_says_why(shell: Shell, tmp_path: Path) -> None:
    shell.json("create", "gone", "--url", "sqlite:///gone.db")
    done = shell.run("test", "gone", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["cause"] == "file"
    done = shell.run("test", "gone")
    assert done.stdout.startswith("file: ")
    assert done.stderr.startswith("hint: ")
    done = shell.run("try", "--url", "postgresql://me@127.0.0.1:1/x", "--json")
    assert (done.returncode, json.loads(done.stdout)["cause"]) == (3, "tcp")


def test_a_password_is_no_argument(shell: Shell) -> None:
    for arguments in (
        ("create", "shop", "--url", f"postgresql://me:{CANARY}@db.example.org/shop"),
        ("try", "--url", f"postgresql://me:{CANARY}@db.example.org/shop"),
        ("create", "shop", "--url", "postgresql://me@db.example.org/shop", "--secret", f"password={CANARY}"),
        ("create", "shop", "--url", "postgresql://me@db.example.org/shop", "--set", f"password={CANARY}"),
        ("create", "shop", "--url", f"postgresql://me@db.example.org/shop?password={CANARY}"),
        ("create", "shop", "--url-env", "NOT_SET"),
        ("create", "shop", "--url", "postgresql://me@h/d", "--password-env", "NOT_SET"),
        ("create", "shop", "--url", "postgresql://me@h/d", "--password-env", "A", "--password-file", "-"),
        ("create", "shop", "--url", "-", "--password-file", "-"),
        ("create", "shop", "--url", "postgresql://me@h/d", "--url-env", "X"),
        ("create", "shop"),
    ):
        assert shell.failed(2, *arguments)["code"] == "input.invalid"
    told = shell.failed(2, "create", "shop", "--url", "postgresql://me@h/d", "--secret", f"password={CANARY}")
    assert "every process of this machine" in told["message"]
    assert shell.json("list")["items"] == []
    assert (
        shell.failed(4, "create", "x", "--url", "postgresql://me@h/d", "--password-file", "no/such")["code"]
        == "not_found"
    )


def test_every_way_to_give_a_password(
    shell: Shell, pg15: Postgres, new_database: Callable[..., str], tmp_path: Path
) -> None:
    whole = new_database(pg15)
    url = whole.replace(f":{PASSWORD}@", "@")
    place = tmp_path / "password"
    place.write_text(PASSWORD + "\n")
    fields = tmp_path / "fields.json"
    made = shell.json("create", "one", "--url", url, "--password-env", "SHOP_PASSWORD", SHOP_PASSWORD=PASSWORD)
    fields.write_text(json.dumps(made["fields"]))
    shell.json("create", "two", "--url", url, "--password-file", str(place))
    shell.json("create", "three", "--url", url, "--password-file", "-", stdin=PASSWORD + "\n")
    shell.json("create", "four", "--url-env", "DATABASE_URL", DATABASE_URL=whole)
    shell.json("create", "five", "--url", "-", stdin=whole + "\n")
    shell.json("create", "six", "--url", url, "--secret", f"password=file:{place}")
    shell.json("create", "seven", "--fields", str(fields), "--secret-file", f"password={place}")
    shell.json(
        "create", "eight", "--url", "-", "--set", "tls.mode=disable", "--set", "options.application_name=x", stdin=whole
    )
    kinds = {}
    for name in ("one", "two", "three", "four", "five", "six", "seven", "eight"):
        assert shell.json("test", name)["ok"], name
        kinds[name] = [(each["name"], each["kind"]) for each in shell.json("show", name)["secrets"]]
    assert {kind for each in kinds.values() for _, kind in each} == {"inline", "reference"}
    assert kinds["six"] == [("password", "reference")]
    assert shell.json("show", "eight")["fields"]["tls"] == {"mode": "disable"}
    shell.json("update", "one", "--remove-secret", "password")
    assert shell.run("test", "one").returncode == 3
    shell.json("update", "one", "--password-file", "-", stdin=PASSWORD)
    assert shell.json("test", "one")["ok"]
    assert "leads elsewhere" in shell.failed(2, "update", "one", "--set", "host=elsewhere.example.org")["message"]
    shell.json("update", "one", "--set", "database=postgres", "--unset", "options")
    assert shell.json("test", "one")["ok"]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "dblens").rglob("*") if path.is_file())
    assert PASSWORD.encode() not in everything


def test_a_person_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DBLENS_DATA_FOLDER", str(tmp_path / "dblens"))
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or CANARY)
    try:
        assert cli.run(["connection", "create", "shop", "--url", "postgresql://me@db.example.org/shop", "--json"]) == 0
    finally:
        home.close()
    assert asked == ["Password of me@db.example.org/shop (empty: none): "]
    told = capsys.readouterr()
    assert CANARY not in told.out + told.err
    assert [each["name"] for each in json.loads(told.out)["secrets"]] == ["password"]


def test_shared_with_a_member_and_a_team(shell: Shell, tmp_path: Path) -> None:
    shell.json("create", "notes", "--url", "sqlite:///notes.db")
    store = Store.open(f"sqlite:///{tmp_path}/dblens/store.sqlite")
    with store.write() as tx:
        org = organizations.get_current(tx, accounts.find_user(tx, accounts.fold(getpass.getuser())).id)
        assert org is not None
        bob = accounts.create_user(tx, "bob", email="bob@example.org", now=now())
        organizations.add_member(tx, org.id, bob.id, organizations.find_role(tx, org.id, "developer").id, now=now())
        teams.create_team(tx, org.id, "crew", now=now())
    store.close()
    assert shell.json("share", "notes", "bob", "--level", "use")["level"] == "use"
    assert shell.run("share", "notes", "crew", "--team", "--level", "view").stdout == "crew (team) may view notes\n"
    assert {(each["kind"], each["name"], each["level"]) for each in shell.json("grants", "notes")["items"]} == {
        ("user", "bob", "use"),
        ("team", "crew", "view"),
    }
    assert "team\tcrew\tview\t" in shell.run("grants", "notes").stdout
    shell.json("unshare", "notes", "crew", "--team")
    assert shell.failed(4, "unshare", "notes", "crew", "--team")["code"] == "not_found"
    assert shell.failed(4, "share", "notes", "eve", "--level", "use")["code"] == "not_found"
    assert shell.failed(2, "share", "notes", "bob", "--level", "own")["code"] == "input.invalid"
    shell.json("transfer", "notes", "bob")
    assert shell.json("show", "notes")["owner"] == "bob"


def test_a_document_goes_out_and_comes_in(shell: Shell, tmp_path: Path) -> None:
    url = f"mysql://me:{CANARY}@db.example.org/shop"
    shell.json("create", "shop", "--url-env", "URL", "-e", "production", URL=url)
    shell.json("create", "notes", "--url", "sqlite:///notes.db")
    document = shell.json("export")
    assert CANARY not in json.dumps(document)
    assert [each["name"] for each in document["connections"]] == ["notes", "shop"]
    assert shell.run("export", "shop", "-o", "one.json").returncode == 0
    assert [each["name"] for each in json.loads((tmp_path / "one.json").read_text())["connections"]] == ["shop"]
    assert shell.failed(4, "import", "one.json")["code"] == "conflict"
    assert shell.json("import", "one.json", "--skip-existing")["skipped"] == ["shop"]
    other = Shell(tmp_path / "other")
    other.folder.mkdir()
    text = json.dumps(document)
    assert other.json("import", "-", "--dry-run", stdin=text)["created"] == ["notes", "shop"]
    assert other.json("list")["items"] == []
    done = other.run("import", "-", stdin=text)
    assert done.stdout == "notes is kept\nshop is kept\n"
    assert "shop lacks password" in done.stderr
    for wrong in ("", "{}", "[]", '{"format": "dblens/connections", "version": 9}'):
        assert other.failed(2, "import", "-", stdin=wrong)["code"] == "input.invalid"


def test_every_command_has_an_example(shell: Shell) -> None:
    listed = shell.run("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in listed
        told = shell.run(command, "--help")
        assert told.returncode == 0
        assert f"dblens connection {command}" in " ".join(told.stdout.split()), command
