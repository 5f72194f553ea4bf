"""Stored connections on the command line: migrate by name, stored plans, clones, templates, and the runs of all that."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`dblens` with a store of its own, two connections (`src` with rows, `dst`) in it."""
    environment = {**os.environ, "DBLENS_DATA_FOLDER": str(tmp_path / "data")}

    def call(*arguments: str, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dblens", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **more,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    for name, rows in (("src", 30), ("dst", 0)):
        path = tmp_path / f"{name}.db"
        with closing(sqlite3.connect(path)) as db:
            if rows:
                db.execute("create table t (id integer primary key, x text not null)")
                db.executemany("insert into t values (?, ?)", [(i, f"value {i}") for i in range(rows)])
                db.commit()
            else:
                db.execute("vacuum")
        call("connection", "create", name, "--url", f"sqlite:///{path}")
    return call


def told(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_a_migration_by_name_from_plan_to_finalize(cli: Cli) -> None:
    plan = told(cli("migrate", "plan", "src", "dst", "--json"))
    (kept,) = told(cli("migrate", "list", "--json"))["items"]
    assert (kept["id"], kept["source"], kept["target"]) == (plan["id"], "src", "dst")
    assert told(cli("migrate", "show", plan["id"], "--json")) == plan
    assert "hash" in cli("migrate", "show", plan["id"]).stderr
    cli("migrate", "apply", plan["id"], "--hash", "0" * 64, code=7)
    assert told(cli("migrate", "apply", plan["id"], "--hash", plan["hash"], "--json"))["equal"]
    assert told(cli("migrate", "verify", plan["id"], "--json"))["equal"]
    assert told(cli("migrate", "status", "dst", "--json"))[0]["state"] == "swapped"
    assert told(cli("verify", "src", "dst", "--json"))["equal"]
    assert told(cli("schema", "show", "dst", "--json"))["tables"][0]["name"] == "t"
    cli("schema", "diff", "src", "dst", "--exit-code")
    cli("migrate", "finalize", "dst", "--run", plan["id"])
    cli("migrate", "delete", plan["id"])
    cli("migrate", "show", plan["id"], code=4)
    cli("migrate", "plan", "src", "nothing", code=4)
    done = cli("migrate", "plan", "src", "dst", "--source-password-env", "HOME", code=2)
    assert "has its own password" in done.stderr


def test_the_file_of_a_stored_plan_is_applied_by_its_id(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(cli("migrate", "plan", "src", "dst", "--json").stdout)
    assert told(cli("migrate", "apply", str(file), "--json"))["equal"]
    (run,) = told(cli("run", "list", "--operation", "migration.apply", "--json"))["items"]
    assert run["connection_id"]


def test_runs_are_listed_shown_and_followed(cli: Cli) -> None:
    cli("migrate", "plan", "src", "dst")
    cli("migrate", "rollback", "dst", code=4)
    runs = told(cli("run", "list", "--json"))["items"]
    assert [(r["operation"], r["state"]) for r in runs] == [
        ("migration.rollback", "failed"),
        ("migration.plan", "succeeded"),
    ]
    failed, planned = (r["id"] for r in runs)
    assert [
        line.split("\t")[1] for line in cli("run", "list", "--state", "failed", "--since", "1h").stdout.splitlines()
    ] == [
        "operation",
        "migration.rollback",
    ]
    assert told(cli("run", "list", "--connection", "src", "--json"))["items"][0]["id"] == planned
    assert told(cli("run", "show", planned, "--json"))["state"] == "succeeded"
    assert "migration.plan" in cli("run", "show", planned).stdout
    assert told(cli("run", "show", planned, "--result"))["hash"]
    cli("run", "show", failed, "--result", code=4)
    assert "inspect" in cli("run", "log", planned).stdout
    assert all(json.loads(line)["text"] for line in cli("run", "log", planned, "--json").stdout.splitlines())
    assert "knows 0 migrations" in cli("run", "watch", failed, code=4).stderr
    assert "succeeded" in cli("run", "watch", planned).stderr
    assert told(cli("run", "cancel", planned, "--json"))["state"] == "succeeded"
    cli("run", "show", "0" * 32, code=4)
    cli("run", "list", "--since", "yesterday", code=2)
    cli("run", "list", "--state", "asleep", code=2)


def test_a_run_of_another_process_is_cancelled(cli: Cli, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "src.db")) as db:
        db.execute(
            "with recursive n(i) as (select 100 union all select i + 1 from n where i < 5000000) insert into t select i, 'x' || i from n"
        )
        db.commit()
    plan = told(cli("migrate", "plan", "src", "dst", "--json"))
    environment = {**os.environ, "DBLENS_DATA_FOLDER": str(tmp_path / "data")}
    work = subprocess.Popen(
        [sys.executable, "-m", "dblens", "migrate", "apply", plan["id"]],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 30
        running: list[Any] = []
        while not running:
            assert time.monotonic() < end
            running = told(cli("run", "list", "--state", "running", "--json"))["items"]
        cli("run", "cancel", running[0]["id"])
        _, said = work.communicate(timeout=30)
    finally:
        work.kill()
        work.wait()
    assert work.returncode == 3, said
    assert told(cli("run", "show", running[0]["id"], "--json"))["state"] == "cancelled"
    assert told(cli("migrate", "resume", "src", "dst", "--json"))["equal"]


def test_clones_and_templates(cli: Cli) -> None:
    made = told(cli("migrate", "clone", "src", "copy", "--on", "dst", "--database", "copy.db", "--json"))
    assert made["outcome"]["equal"]
    assert told(cli("verify", "src", "copy", "--json"))["equal"]
    cli("migrate", "clone", "src", "copy", "--on", "dst", "--database", "copy.db", code=4)
    template = ("migrate", "template")
    cli(
        *template,
        "create",
        "nightly",
        "src",
        "dst",
        "--existing",
        "replace",
        "--rule",
        "t:filter=id < 10",
        "--accept",
        "all",
    )
    cli(*template, "create", "check", "src", "copy", "--verify", "--table", "t")
    assert [t["name"] for t in told(cli(*template, "list", "--json"))["items"]] == ["nightly", "check"]
    assert told(cli(*template, "show", "nightly"))["configuration"]["options"]["existing"] == "replace"
    assert told(cli(*template, "run", "nightly", "--json"))["outcome"]["rows"] == 10
    assert "equal" in cli(*template, "run", "check").stdout
    cli(*template, "update", "check", "--where", "id < 5", "--name", "quick")
    assert told(cli(*template, "show", "quick"))["configuration"]["check"] == {"where": "id < 5"}
    cli(*template, "delete", "quick")
    cli(*template, "run", "quick", code=4)
    cli(*template, "create", "x", "src", "dst", "--verify", "--accept", "all", code=2)
    history = told(cli("run", "list", "--operation", "template.run", "--json"))["items"]
    assert [r["arguments"]["arguments"]["template"] for r in history] == ["check", "nightly"]
