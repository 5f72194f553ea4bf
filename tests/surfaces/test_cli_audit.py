"""`dblens audit`, `settings`, `notification` and `search` as commands: what they say where, their exit codes, what they never show."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens import cli
from dblens.errors import StoreError
from dblens.workspace import home

CANARY = "Kanarienvogel-4711-schweigt"


class Told:
    """What a command said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        assert self.status != 0, self.out
        assert "Traceback" not in self.err
        return json.loads(self.err.splitlines()[-1])["error"]


Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command on a store of its own."""
    monkeypatch.setenv("DBLENS_DATA_FOLDER", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def go(*arguments: str) -> Told:
        status = cli.run(arguments)
        said = capfd.readouterr()
        return Told(status, said.out, said.err)

    yield go
    with contextlib.suppress(StoreError):  # where a test broke the audit, its last rows cannot be written
        home.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "home" / "store.sqlite"


def tamper(store: Path, *statements: str) -> None:
    home.close()
    with sqlite3.connect(store) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def busy(run: Run) -> None:
    """Leave some rows: two changes, a refusal, reads."""
    for environment in ("staging", "production"):
        assert run("settings", "set", "defaults", f"environment={environment}").status == 0
    assert run("settings", "set", "defaults", "environment=moon").status == 2
    assert run("search", "settings").status == 0
    assert run("notification", "count").status == 0


# ------------------------------------------------------------------------------------------------------------------------- audit


def test_rows_are_filtered_by_what_was_asked(run: Run) -> None:
    busy(run)
    rows = run("audit", "list", "--json").json["items"]
    assert [row["number"] for row in rows] == sorted((row["number"] for row in rows), reverse=True)
    assert not {"previous", "mac"} & set(rows[0])
    changed = run("audit", "list", "--action", "settings.*", "--outcome", "ok", "--json").json["items"]
    assert [(row["action"], row["target"]) for row in changed] == [("settings.update", "defaults")] * 2
    wrong = run("audit", "list", "--outcome", "input.invalid", "--json").json["items"]
    assert [row["action"] for row in wrong] == ["settings.update"]
    one = run("audit", "list", "--run", wrong[0]["run_id"], "--json").json["items"]
    assert [row["phase"] for row in one] == ["ended", "started"]
    assert run("audit", "list", "--user", "nobody", "--json").json["items"] == []
    assert run("audit", "list", "--user", wrong[0]["actor"], "--limit", "1", "--json").json["after"]
    assert run("audit", "list", "--since", "2999-01-01", "--json").json["items"] == []
    assert run("audit", "own", "--until", "2999-01-01T00:00:00+01:00", "--limit", "3", "--json").json["items"]
    assert run("audit", "list", "--since", "yesterday", "--json").error["message"] == "--since is 'yesterday'"
    assert run("audit", "list", "--connection", "no such one", "--json").status == 4


def test_pages_follow_each_other(run: Run) -> None:
    busy(run)
    first = run("audit", "list", "--limit", "3", "--json").json
    second = run("audit", "list", "--limit", "3", "--after", first["after"], "--json").json
    assert first["items"][-1]["number"] == second["items"][0]["number"] + 1
    table = run("audit", "list", "--limit", "2")
    assert table.out.startswith("row\tat (UTC)\twho\taction")
    assert "there is more: --after" in table.err


def test_statistics_count_what_did_not_end_well(run: Run) -> None:
    busy(run)
    found = {row["key"]: row for row in run("audit", "statistics", "--by", "action", "--json").json}
    assert (found["settings.update"]["calls"], found["settings.update"]["failed"]) == (3, 1)
    assert run("audit", "statistics", "--by", "weather", "--json").status == 2


def test_an_export_is_whole_private_and_safe_for_a_spreadsheet(run: Run, tmp_path: Path) -> None:
    busy(run)
    assert run("settings", "test-webhook", "=cmd|' /C calc'!A0").status == 4
    file = tmp_path / "audit.csv"
    lines = run("audit", "export", "--csv", str(file), "--json").json["lines"]
    assert file.stat().st_mode & 0o777 == 0o600
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert len(rows) == lines
    assert not [cell for row in rows[1:] for cell in row if cell[:1] in ("=", "+", "@")]
    assert run("audit", "export", "--csv", str(file), "--json").error["code"] == "conflict"
    assert run("audit", "export", "--csv", "--jsonl", str(tmp_path / "x"), "--json").status == 2
    whole = run("audit", "export", "--jsonl", "-", "--action", "settings.update")
    assert [json.loads(line)["action"] for line in whole.out.splitlines()] == ["settings.update"] * 6
    assert list(tmp_path.glob(".*part")) == []


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE audit SET outcome = 'ok' WHERE number = 6", 6),
        ("UPDATE audit SET actor = actor || char(10) || 'x' WHERE number = 3", 3),
        ("DELETE FROM audit WHERE number = 4", 4),
        ("DELETE FROM audit WHERE number >= 7", 7),
        ("UPDATE audit SET number = 100 + number WHERE number = 5", 5),
    ],
    ids=["an edit", "a newline", "a deletion", "a cut tail", "a moved row"],
)
def test_the_first_broken_link_is_named(run: Run, store: Path, statement: str, row: int) -> None:
    busy(run)
    good = run("audit", "verify")
    assert good.status == 0
    assert "rows are whole, rows 1 to" in good.out
    tamper(store, statement)
    bad = run("audit", "verify")
    assert bad.status == 9
    assert bad.out.startswith(f"BROKEN at row {row}: ")
    verdict = run("audit", "verify", "--json")
    assert verdict.status == 9
    assert json.loads(verdict.out)["broken"]["number"] == row


def test_a_chain_that_was_written_anew_is_found(run: Run, store: Path) -> None:
    """Whoever can write the database, and lacks the key, computes every link again with another one."""
    from dblens.store import audit
    from dblens.store.audit import Entry
    from dblens.store.audit_find import Filter, every
    from dblens.store.database import Store

    busy(run)
    tamper(store)
    opened = Store.open(f"sqlite:///{store}")
    rows = list(every(opened, None, Filter()))
    opened.close()
    tamper(store, "DELETE FROM audit", "DELETE FROM meta WHERE key = 'audit.head'")
    opened = Store.open(f"sqlite:///{store}")
    with opened.write() as tx:
        entries = [Entry(**{name: getattr(row, name) for name in Entry.__struct_fields__}) for row in rows[1:]]
        audit.append(tx, b"another key, of 32 octets or more", entries)
    opened.close()
    bad = run("audit", "verify")
    assert bad.status == 9
    assert "BROKEN at row 1" in bad.out


def test_an_old_copy_put_back_is_found_by_a_head_kept_elsewhere(run: Run, store: Path, tmp_path: Path) -> None:
    busy(run)
    home.close()
    copy = tmp_path / "copy.sqlite"
    with sqlite3.connect(store) as database:
        database.execute("VACUUM INTO ?", (str(copy),))
    database.close()
    copy.chmod(0o600)
    busy(run)
    head = tmp_path / "kept.head"
    told = run("audit", "head")
    assert told.status == 0
    head.write_text(told.out)
    assert run("audit", "verify", "--head", str(head)).status == 0
    home.close()
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (store.parent / name).unlink(missing_ok=True)
    shutil.copy(copy, store)
    assert run("audit", "verify").status == 0, "the old copy is whole in itself"
    bad = run("audit", "verify", "--head", str(head))
    assert bad.status == 9
    assert "BROKEN" in bad.out
    head.write_text('{"format": "something"}')
    assert run("audit", "verify", "--head", str(head), "--json").status == 2
    assert run("audit", "verify", "--head", str(tmp_path / "none"), "--json").error["code"] == "input.invalid"


def test_retention_asks_and_has_a_lower_bound(run: Run) -> None:
    busy(run)
    assert run("audit", "retain", "365", "--json").error["hint"] == "export them first, then add --yes"
    assert "from 30 to 36500" in run("audit", "retain", "5", "--yes", "--json").error["hint"]
    assert run("audit", "retain", "30", "--yes", "--json").json == {"first": 0}


# ---------------------------------------------------------------------------------------------------------------------- settings


def test_a_setting_is_set_shown_and_reset(run: Run) -> None:
    assert {setting["name"] for setting in run("settings", "list", "--json").json} > {"smtp", "webhooks"}
    set_ = run("settings", "set", "accounts", "sign_up=true", 'email_domains=["example.org"]', "--json").json
    assert set_["value"]["email_domains"] == ["example.org"]
    assert "sign_up\ttrue\tfalse\ttrue or false" in run("settings", "show", "accounts").out
    assert run("settings", "reset", "accounts", "--json").json["set"] is False
    wrong = run("settings", "set", "accounts", "sign_up=perhaps", "idle_hours=0", "x=1", "--json")
    assert wrong.status == 2
    assert all(word in wrong.error["message"] for word in ("sign_up", "idle_hours", "'x' is no field"))
    assert run("settings", "set", "nothing", "x=1", "--json").status == 4
    assert run("settings", "set", "accounts", "--json").status == 2


def test_a_secret_comes_from_a_file_or_a_variable_and_is_never_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(CANARY + "\n")
    monkeypatch.setenv("HOOK", CANARY)
    smtp = ("host=mail.example.org", "sender=dblens@example.org", "user=dblens")
    said = [
        run("settings", "set", "smtp", *smtp, "--secret", f"password=@{file}"),
        run("settings", "set", "webhooks", 'hooks=[{"name":"ops","url":"https://93.184.216.34/"}]', "--secret", "ops=env:HOOK"),
        run("settings", "show", "smtp"),
        run("settings", "list", "--json"),
        run("audit", "list", "--json"),
        run("audit", "export", "-"),
    ]  # fmt: skip
    assert [told.status for told in said] == [0] * 6
    assert not [told for told in said if CANARY in told.out + told.err]
    assert "the secret 'password' is set" in said[2].err
    home.close()
    for part in store.parent.iterdir():
        assert CANARY.encode() not in part.read_bytes()
    refused = run("settings", "set", "smtp", "--secret", f"password={CANARY}", "--json")
    assert refused.status == 2
    assert CANARY not in refused.out + refused.err
    assert run("settings", "set", "smtp", "--secret", "password=env:NOT_SET", "--json").status == 4


def test_a_webhook_that_does_not_answer_is_told_by_the_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", CANARY)
    hooks = 'hooks=[{"name":"ops","url":"http://127.0.0.1:9/"}]'
    assert run("settings", "set", "webhooks", hooks, "--secret", "ops=env:HOOK").status == 0
    told = run("settings", "test-webhook", "ops")
    assert told.status == 3
    assert "refuses connections" in told.out
    assert [done["ok"] for done in run("settings", "deliveries", "--json").json] == [False]
    assert run("settings", "test-mail", "ann@example.org", "--json").error["code"] == "unsupported"


# -------------------------------------------------------------------------------------------------------- search, notifications


def test_search_and_notifications(run: Run) -> None:
    hits = run("search", "webhook", "--kind", "setting", "--json").json
    assert [hit["name"] for hit in hits] == ["webhooks"]
    assert run("search", "webhook").out.startswith("kind\tname\tdetail\tid\n")
    assert run("search", "x", "--kind", "password", "--json").status == 2
    assert run("notification", "prefer", "--ends", "failed", "--mail", "--json").json == {
        "ends": "failed", "mail": True, "others": False,
    }  # fmt: skip
    assert run("notification", "prefer", "--reset", "--json").json["ends"] == "all"
    assert run("notification", "list", "--json").json == {"items": [], "after": None}
    assert run("notification", "read", "--all", "--json").json == {"unread": 0}
    assert run("notification", "read", "--json").status == 2
    assert run("notification", "read", "nothing", "--json").status == 4


@pytest.mark.parametrize("noun", ["audit", "settings", "notification"])
def test_every_command_has_an_example(noun: str) -> None:
    import typer.main

    group: Any = typer.main.get_command(cli.app)
    for name, command in group.commands[noun].commands.items():
        assert "Example" in (command.epilog or ""), name
        assert command.help, name
