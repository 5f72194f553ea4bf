"""The migration on the command line, as a person and as a script use it: plan, apply, status, rollback, finalize, resume, verify."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dblens.cli.migrate import DONE_WITH_EXCLUSIONS
from dblens.migrate.link import link
from tests import samples
from tests.faults.steady import Stopped, Strike, apply, fill, live_tables, plan, run_sql, stop
from tests.servers import PASSWORD, MariaDB, Postgres
from tests.servers.fixtures import require
from tests.surfaces.test_bad_input import bare, refused, run

New = Callable[..., str]
BOTH = ("--source-password-env", "TEST_PASSWORD", "--target-password-env", "TEST_PASSWORD")
TARGET = ("--target-password-env", "TEST_PASSWORD")
PAIRS = [("sqlite", "pg15"), ("pg15", "mariadb"), ("mariadb", "sqlite"), ("pg15", "mongo")]


def document(done: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    """The JSON on stdout: exactly one document, nothing else; and no secret anywhere."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def databases(left: str, right: str, new_database: New) -> tuple[str, str]:
    source, target = new_database(require(left)), new_database(require(right))
    fill(source, 1000)
    return source, target


def planned(source: str, target: str, file: Path, *more: str, code: int = 0) -> Any:
    done = run("migrate", "plan", bare(source), bare(target), *BOTH, "--json", *more)
    found = document(done, code)
    file.write_text(done.stdout)
    assert PASSWORD not in file.read_text()
    return found


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_plan_apply_status_rollback(left: str, right: str, new_database: New, tmp_path: Path) -> None:
    source, target = databases(left, right, new_database)
    replace = ("--existing", "replace") if right == "sqlite" else ()
    file = tmp_path / "plan.json"
    made = planned(source, target, file, *replace)
    assert not made.get("blocks")
    assert live_tables(target) == set()
    assert document(run("migrate", "status", bare(target), *TARGET, "--json")) == []
    outcome = document(run("migrate", "apply", str(file), "--accept", "all", *BOTH, "--json"))
    assert outcome["equal"] is True
    assert (outcome["state"], outcome["id"], outcome["plan_hash"]) == ("swapped", made["id"], made["hash"])
    assert outcome["rows"] == 2000
    (state,) = document(run("migrate", "status", bare(target), *TARGET, "--json"))
    assert (state["id"], state["state"], state["rows"], state["tables"]) == (made["id"], "swapped", 2000, 2)
    refused(run("migrate", "apply", str(file), "--accept", "all", *BOTH), 7)  # the target is another one now
    undone = document(run("migrate", "rollback", bare(target), *TARGET, "--json"))
    assert undone == {"id": made["id"], "state": "rolled_back"}
    assert live_tables(target) == set()
    assert document(run("migrate", "status", bare(target), *TARGET, "--json")) == []


@pytest.mark.parametrize(("left", "right"), [("mariadb", "pg15"), ("pg15", "sqlite")])
def test_finalize_ends_the_way_back(left: str, right: str, new_database: New, tmp_path: Path) -> None:
    source, target = databases(left, right, new_database)
    file = tmp_path / "plan.json"
    made = planned(source, target, file)
    document(run("migrate", "apply", str(file), *BOTH, "--json"))
    assert document(run("migrate", "finalize", bare(target), *TARGET, "--json"))["id"] == made["id"]
    refused(run("migrate", "rollback", bare(target), *TARGET), 4)
    assert live_tables(target) == {"item", "event"}
    assert document(run("verify", bare(source), bare(target), *BOTH, "--json"))["equal"] is True


@pytest.mark.parametrize("relaxed", ["--strict", "--relaxed"])
def test_resume_after_a_stop(relaxed: str, new_database: New) -> None:
    source, target = databases("pg15", "mariadb", new_database)
    made = plan(source, target, mode="ledger", chunk_rows=100)
    with pytest.raises(Stopped):
        apply(made, source, target, Strike(stop, at=6))
    (state,) = document(run("migrate", "status", bare(target), *TARGET, "--json"))
    assert state["state"] == "copying"
    assert 0 < state["chunks_done"] < state["chunks"]
    assert str(os.getpid()) in state["holder"]
    refused(run("migrate", "finalize", bare(target), *TARGET), 4, "copying")
    outcome = document(run("migrate", "resume", bare(source), bare(target), relaxed, *BOTH, "--json"))
    assert outcome["equal"] is True
    assert outcome["state"] == "swapped"
    assert document(run("verify", bare(source), bare(target), *BOTH, "--json"))["equal"] is True


def test_rollback_refuses_what_was_written_since(new_database: New, tmp_path: Path) -> None:
    source, target = databases("mariadb", "pg15", new_database)
    file = tmp_path / "plan.json"
    planned(source, target, file)
    document(run("migrate", "apply", str(file), *BOTH, "--json"))
    run_sql(target, "update item set name = 'mine' where id = 3")
    refused(run("migrate", "rollback", bare(target), *TARGET), 7, "item", "--discard-changes")
    assert run_sql(target, "select name from item where id = 3") == [("mine",)]
    document(run("migrate", "rollback", bare(target), *TARGET, "--discard-changes", "--json"))
    assert live_tables(target) == set()


def test_exclusions_have_their_exit_code(new_database: New, tmp_path: Path) -> None:
    source, target = databases("pg15", "mariadb", new_database)
    run_sql(source, "create view cheap as select * from item where price < 1")
    file = tmp_path / "plan.json"
    made = planned(source, target, file)
    (excluded,) = [e for e in made["exclusions"] if e["kind"] == "view"]
    assert "price" in excluded["source"]
    outcome = document(run("migrate", "apply", str(file), *BOTH, "--json"), DONE_WITH_EXCLUSIONS)
    assert outcome["equal"] is True
    assert [e["name"] for e in outcome["exclusions"]] == [excluded["name"]]
    shown = run("migrate", "plan", bare(source), bare(target), *BOTH, "--existing", "replace")
    assert shown.returncode == 0
    assert "view" in shown.stdout
    for words in (["migrate", "status", bare(target), *TARGET], ["verify", bare(source), bare(target), *BOTH]):
        shown = run(*words)
        assert shown.returncode == 0, shown.stderr
        assert "item" in shown.stdout or made["id"] in shown.stdout


def test_a_plan_comes_by_stdin_and_targets_are_made(new_database: New, tmp_path: Path, pg15: Postgres) -> None:
    source = new_database(require("sqlite"))
    fill(source, 1000)
    name = "made_by_dblens_test"
    target = pg15.url(name)
    try:
        refused(run("migrate", "plan", source, bare(target), *TARGET, "--json"), 4, name, "--create-target")
        done = run("migrate", "plan", source, bare(target), *TARGET, "--create-target", "--json")
        document(done)
        with pg15.connect() as db:
            assert db.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is None
        applied = subprocess.run(
            [sys.executable, "-m", "dblens", "migrate", "apply", "-", *TARGET, "--json"],
            input=done.stdout, capture_output=True, text=True, check=False, env={**os.environ, "TEST_PASSWORD": PASSWORD},
        )  # fmt: skip
        assert document(applied)["equal"] is True
        assert document(run("verify", source, bare(target), *TARGET, "--json"))["equal"] is True
    finally:
        pg15.drop_database(name)


# --------------------------------------------------------------------------------------------------------- verify and repair

COLUMNS = {
    "postgresql": "id bigint primary key, t text, n numeric(12,3), f double precision, b bytea, d date, ts timestamp(6), tz timestamptz, j jsonb, u uuid, o boolean",
    "mysql": "id bigint primary key, t text, n decimal(12,3), f double, b varbinary(100), d date, ts datetime(6), tz datetime(6), j json, u char(36), o tinyint(1)",
    "sqlite": "id integer primary key, t text, n text, f real, b blob, d text, ts text, tz text, j text, u text, o integer",
}  # fmt: skip
VALUES = (
    ("'plain'", "1.500", "0.1", "x'00ff27'", "'2026-01-01'", "'2026-01-01 10:11:12.123456'"),
    ("'it''s \"quoted\" %s {} -- ;'", "-0.001", "1e300", "x''", "'1999-12-31'", "'2026-06-30 23:59:59'"),
    ("'two\nlines\tand a tab 🧊'", "null", "-0.5", "null", "null", "null"),
    ("''", "123456789.125", "3", "x'27'", "'2026-02-28'", "'2026-01-01 00:00:00.000001'"),
)


def wide(url: str) -> None:
    """A table with the types that a repair script must spell."""
    engine = link(url, allow_password=True).engine.name
    rows = []
    for i, (t, n, f, b, d, ts) in enumerate(VALUES, start=1):
        octets = b.replace("x'", "'\\x") if engine == "postgresql" else b
        text = t.replace("\\", "\\\\") if engine == "mysql" else t
        tz = ts if ts == "null" else (ts[:-1] + "+00'" if engine == "postgresql" else ts)
        true = {"postgresql": "true"}.get(engine, "1")
        number = n if engine != "sqlite" or n == "null" else f"'{n}'"
        rows.append(
            f'({i}, {text}, {number}, {f}, {octets}, {d}, {ts}, {tz}, \'{{"a": [{i}, null], "b": "x\'\'y"}}\','
            f" '00000000-0000-4000-8000-00000000000{i}', {true})"
        )
    run_sql(url, f"create table wide ({COLUMNS[engine]})", "insert into wide values " + ", ".join(rows))


DAMAGE = (
    "update wide set t = 'damaged', n = null, b = null where id = 1",
    "update wide set f = 7, d = null, j = null, u = null where id = 2",
    "update wide set ts = null, tz = null, o = null, t = null where id = 4",
    "delete from wide where id = 3",
    "insert into wide (id, t) values (77, 'extra')",
)


@pytest.mark.parametrize(
    ("left", "right"),
    [("sqlite", "pg15"), ("pg15", "mariadb"), ("mariadb", "sqlite"), ("pg15", "pg15"), ("pg15", "sqlite")],
)
def test_verify_names_what_differs_and_the_repair_script_repairs(
    left: str, right: str, new_database: New, tmp_path: Path
) -> None:
    source, target = new_database(require(left)), new_database(require(right))
    wide(source)
    file = tmp_path / "plan.json"
    planned(source, target, file)
    document(run("migrate", "apply", str(file), "--accept", "all", *BOTH, "--json"))
    script = tmp_path / "repair.sql"
    equal = run("verify", bare(source), bare(target), *BOTH, "--json", "--repair", str(script))
    assert document(equal)["equal"] is True
    assert not script.exists()
    run_sql(target, *DAMAGE)
    found = document(run("verify", bare(source), bare(target), *BOTH, "--json", "--repair", str(script)), 8)
    (verdict,) = found["verdicts"]
    named = {(d["kind"], tuple(d["key"])): sorted(c["column"] for c in d["columns"]) for d in verdict["differences"]}
    assert named[("changed", ("1",))] == ["b", "n", "t"]
    assert named[("changed", ("2",))] == ["d", "f", "j", "u"]
    assert named[("changed", ("4",))] == ["o", "t", "ts", "tz"]
    assert ("missing", ("3",)) in named
    assert ("extra", ("77",)) in named
    assert len(named) == verdict["differing"] == 5
    execute(right, target, script)
    assert document(run("verify", bare(source), bare(target), *BOTH, "--json"))["equal"] is True
    text = run("verify", bare(source), bare(target), *BOTH)
    assert text.returncode == 0
    assert "equal" in text.stdout


def execute(kind: str, url: str, script: Path) -> None:
    """Run a script with the engine's own client, where there is one: it must not need us."""
    if kind == "sqlite":
        import sqlite3

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            db.executescript(script.read_text("utf-8"))
        return
    client = {"postgresql": samples.psql, "mysql": samples.mysql}[link(url, allow_password=True).engine.name]
    zone = b"set time zone 'Asia/Tokyo';\n" if kind.startswith("pg") else b"set time_zone = '+09:00';\n"
    client(require(kind), url, zone + script.read_bytes())


def test_verify_with_a_tolerance_a_condition_and_chosen_tables(new_database: New) -> None:
    source, target = databases("sqlite", "pg15", new_database)
    apply(plan(source, target), source, target)
    run_sql(target, "update item set price = price + 0.01 where id = 7", "update event set note = 'x' where kind = 1")
    words = ["verify", bare(source), bare(target), *TARGET, "--json"]
    found = document(run(*words), 8)
    assert {v["table"]: v["equal"] for v in found["verdicts"]} == {"main.item": False, "main.event": False}
    assert document(run(*words, "--table", "item", "--tolerance", "price=0.01"))["equal"] is True
    assert document(run(*words, "--table", "item", "--tolerance", "price=0.001"), 8)["equal"] is False
    assert document(run(*words, "--table", "item", "--where", "id <> 7"))["equal"] is True
    refused(run(*words[:-1], "--tolerance", "price"), 2, "price")
    refused(run(*words[:-1], "--tolerance", "pirce=1"), 2, "pirce")
    refused(run(*words[:-1], "--table", "nothing"), 2)


# -------------------------------------------------------------------------------------------------------------- passwords


def test_passwords_by_file_and_by_the_engines_own_files(new_database: New, tmp_path: Path) -> None:
    in_pg, in_my = new_database(require("pg15")), new_database(require("mariadb"))
    fill(in_pg, 1000)
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    words = ["migrate", "plan", bare(in_pg), bare(in_my), "--json"]
    document(run(*words, "--source-password", f"@{secret}", "--target-password", f"@{secret}"))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".pgpass").write_text(f"# comment\nother:1:*:*:wrong\n127.0.0.1:*:*:dblens:{PASSWORD}\n")
    (home / ".pgpass").chmod(0o600)
    (home / ".my.cnf").write_text(f'[client]\npassword = "{PASSWORD}"\nhost=127.0.0.1\n')
    (home / ".my.cnf").chmod(0o600)
    alone = {"HOME": str(home), "TEST_PASSWORD": ""}
    document(run(*words, env=alone))
    (home / ".pgpass").chmod(0o644)  # libpq ignores it then
    ignored = run(*words, env=alone)
    assert ignored.returncode == 5
    assert json.loads(ignored.stderr.splitlines()[-1])["error"]["hint"]  # libpq itself may warn above it
    refused(run(*words, "--source-password", PASSWORD), 2, "@path")
    refused(run(*words, "--source-password", f"@{tmp_path / 'none'}"), 4, "none")
    refused(run(*words, "--source-password-env", "NOT_SET_ANYWHERE"), 2, "NOT_SET_ANYWHERE")
    document(run("migrate", "plan", in_pg, in_my, "--json", "--allow-password-in-url"))


def test_the_password_is_asked_for_on_a_terminal_and_not_echoed(new_database: New) -> None:
    source, target = new_database(require("sqlite")), new_database(require("pg15"))
    fill(source, 1000)
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child becomes the command
        os.execvpe(
            sys.executable, [sys.executable, "-m", "dblens", "migrate", "plan", source, bare(target)],
            {**os.environ, "HOME": "/nonexistent", "COLUMNS": "200"},
        )  # fmt: skip
    seen = b""
    asked = False
    deadline = time.monotonic() + 60
    with contextlib.suppress(OSError):  # the terminal is gone when the child ends
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            part = os.read(terminal, 65536)
            if not part:
                break
            seen += part
            if not asked and b"Password for target" in seen:
                asked = True
                os.write(terminal, PASSWORD.encode() + b"\n")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    text = seen.decode(errors="replace")
    assert asked, text
    assert code == 0, text
    assert PASSWORD not in text
    assert "item" in text


@pytest.mark.parametrize(("left", "right"), [("pg15", "mariadb"), ("mariadb", "pg15"), ("sqlite", "mongo")])
def test_the_password_is_in_no_argument_list_and_no_output(
    left: str, right: str, new_database: New, tmp_path: Path
) -> None:
    """The canary: the test servers' password is looked for in everything that the command and its children show."""
    source, target = databases(left, right, new_database)
    shown: set[str] = set()
    ended = threading.Event()

    def watch(pid: int) -> None:
        from tests.servers import reaper

        while not ended.is_set():
            with contextlib.suppress(KeyError, FileNotFoundError, ProcessLookupError):
                for member in reaper.family(pid):
                    with contextlib.suppress(OSError):
                        shown.add(Path(f"/proc/{member}/cmdline").read_text(errors="replace"))
            time.sleep(0.01)

    file = tmp_path / "plan.json"
    planned(source, target, file)
    for words in (
        ["migrate", "apply", str(file), "--accept", "all", *BOTH],
        ["migrate", "status", bare(target), *TARGET],
        ["verify", bare(source), bare(target), *BOTH],
        ["migrate", "rollback", bare(target), *TARGET],
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "dblens", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TEST_PASSWORD": PASSWORD, "DBLENS_DEBUG": "1"},
        )  # fmt: skip
        ended.clear()
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        out, err = process.communicate(timeout=120)
        ended.set()
        watcher.join()
        assert process.returncode == 0, err
        assert PASSWORD not in out + err
    assert any("dblens" in line for line in shown)
    assert not [line for line in shown if PASSWORD in line]


@pytest.mark.parametrize("kind", ["pg15", "mariadb", "mongo"])
def test_a_failing_server_does_not_make_us_tell(kind: str, new_database: New, tmp_path: Path) -> None:
    """Errors of drivers carry connection strings: none may come through, with tracebacks neither."""
    source = new_database(require("sqlite"))
    fill(source, 1000)
    target = new_database(require(kind))
    wrong = bare(target).replace("dblens@", "nobody_of_that_name@")
    done = run("migrate", "plan", source, wrong, *TARGET, "--json", env={"DBLENS_DEBUG": "1"})
    if kind == "mongo" and done.returncode == 0:
        return  # a server without accounts
    assert done.returncode in (3, 5), done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_json_errors_are_one_line_on_stderr(new_database: New, mariadb: MariaDB) -> None:
    done = run("migrate", "status", bare(mariadb.url("no_such_database")), *TARGET, "--json")
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["exit"], error["code"]) == (4, 4, "not_found")
    assert error["hint"]
