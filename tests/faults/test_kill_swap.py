"""kill -9 in the middle of the swap and of the rollback: all tables old or all new, `status` says which, and either way ends well."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

import dblens
from dblens.migrate import model
from tests.faults.steady import open_link, plan, run_sql, states
from tests.servers.fixtures import require

New = Callable[..., str]
TABLES = [f"t{i}" for i in range(6)]
OLD, NEW = 1, 2


def make(url: str, age: int) -> None:
    """Six tables, each with a row that says how old it is, and rows that refer to another table."""
    if url.startswith("mongodb"):
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with closing(client):
            for table in TABLES:
                client.get_default_database()[table].insert_many({"_id": i, "age": age} for i in range(30))
        return
    statements = []
    for n, table in enumerate(TABLES):
        refers = (
            f", parent int references {TABLES[n - 1]} (id)" if n and not url.startswith("mysql") else ", parent int"
        )
        statements.append(f"create table {table} (id int primary key, age int not null{refers})")
        statements.append(f"insert into {table} values " + ", ".join(f"({i}, {age}, {i})" for i in range(30)))
    run_sql(url, *statements)


def ages(url: str) -> list[int | None]:
    """The age of every table as any other user sees it; None for a table that is missing or mixed."""
    found: list[int | None] = []
    for table in TABLES:
        if url.startswith("mongodb"):
            client: MongoClient[dict[str, Any]] = MongoClient(url)
            with closing(client):
                values = {d["age"] for d in client.get_default_database()[table].find({}, {"age": 1})}
        else:
            values = {row[0] for row in run_sql(url, f"select distinct age from {table}")}
        found.append(values.pop() if len(values) == 1 else None)
    return found


class Killer:
    """Runs the worker and kills it a random moment after a step began."""

    def __init__(self, source: str, target: str, folder: Path) -> None:
        self.source, self.target, self.file = source, target, folder / "plan.json"
        seed = int(os.environ.get("DBLENS_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
        print(f"seed {seed}")
        self.random = random.Random(seed)
        self.window = 0.02

    def run(self, do: str, run: str, step: str | None) -> bool:
        """Run; return whether it was killed. The window follows how long the step takes here."""
        job = {
            "do": do,
            "run": run,
            "mode": "strict",
            "plan": str(self.file),
            "source": self.source,
            "target": self.target,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "DBLENS_FAULT_JOB": json.dumps(job)},
        )
        assert process.stdout
        assert process.stderr
        began = 0.0
        for line in process.stdout:
            if step is not None and line.strip() == f"start {step}":
                time.sleep(self.random.random() * self.window)
                process.kill()
                began = time.monotonic()
                break
        process.stdout.read()
        errors = process.stderr.read()
        code = process.wait()
        process.stdout.close()
        process.stderr.close()
        if not began:
            assert step is None or code == 0, errors[-2000:]
            assert code == 0, errors[-2000:]
        if began and code == 0:
            self.window = max(0.002, self.window * 0.7)  # it was quicker than we were
        return code == -9


def old_or_new(kind: str, target: str, run: str) -> None:
    """One of both, and what `status` says fits what is there."""
    seen, state = ages(target), states(target).get(run)
    if kind == "mongo":
        # One collection at a time, by two renames: one of them may be away for a moment, and the journal says so.
        assert seen.count(None) <= 1
        if None in seen or len(set(seen)) > 1:
            assert state in ("swapping", "rolling_back")
        if state == "swapped":
            assert seen == [NEW] * len(TABLES)
        return
    assert seen in ([OLD] * len(TABLES), [NEW] * len(TABLES)), (state, seen)
    if state in ("swapped",):
        assert seen == [NEW] * len(TABLES)
    if state in (None, "copying", "copied", "built", "verified"):
        assert seen == [OLD] * len(TABLES)


def rounds(kind: str, new_database: New, folder: Path, kills: int) -> None:
    server = require(kind)
    source, target = new_database(require("pg15")), new_database(server)
    make(source, NEW)
    make(target, OLD)
    killer = Killer(source, target, folder)
    ws = dblens.open()
    done = undone = 0
    for turn in range(4 * kills):
        if done >= kills and undone >= kills:
            break
        made = plan(source, target, existing="replace")
        killer.file.write_text(model.write(made))
        if done < kills:
            done += killer.run("apply", made.id, "swap")
            old_or_new(kind, target, made.id)
            if turn % 2:  # back, wherever it stopped
                ws.migrations.rollback(open_link(target), made.id)
                assert ages(target) == [OLD] * len(TABLES)
                assert states(target) == {}
                continue
            killer.run("resume", made.id, None)
        else:
            killer.run("apply", made.id, None)
        assert ages(target) == [NEW] * len(TABLES)
        assert states(target) == {made.id: "swapped"}
        if undone < kills:
            undone += killer.run("rollback", made.id, "rollback")
            old_or_new(kind, target, made.id)
        if made.id in states(target):
            killer.run("rollback", made.id, None)
        assert ages(target) == [OLD] * len(TABLES)
        assert states(target) == {}
    assert done >= kills, (done, undone)
    assert undone >= kills, (done, undone)


@pytest.mark.parametrize("kind", ["pg15", "mariadb", "sqlite", "mongo"])
def test_kill_nine_in_the_swap_and_in_the_rollback(kind: str, new_database: New, tmp_path: Path) -> None:
    rounds(kind, new_database, tmp_path, 3)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["pg15", "pg18", "mariadb", "mysql", "sqlite", "mongo"])
def test_kill_nine_in_the_swap_fifty_times(kind: str, new_database: New, tmp_path: Path) -> None:
    rounds(kind, new_database, tmp_path, 50)
