"""What the fault tests share: sources of a known content, faults struck at a known moment, and judges that do not trust us."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import psycopg
import pymysql
import pytest
from pymongo import MongoClient

import dblens
from dblens.errors import DBLensError
from dblens.events import Event, Progress, StepStarted
from dblens.migrate.apply import Outcome, ResumeMode
from dblens.migrate.link import Link, link
from dblens.migrate.model import Plan
from dblens.migrate.options import Options

TABLES = ("item", "event")


def open_link(url: str) -> Link:
    """The way in, for URLs with their password."""
    return link(url, allow_password=True)


def run_sql(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements by the plain driver and return the last one's rows."""
    parts = urlsplit(url)
    rows: list[tuple[Any, ...]] = []
    if parts.scheme == "sqlite":
        with closing(sqlite3.connect(unquote(url.removeprefix("sqlite:///")), timeout=30)) as db:
            for statement in statements:
                rows = db.execute(statement).fetchall()
            db.commit()
        return rows
    if parts.scheme == "postgresql":
        with psycopg.connect(url, autocommit=True) as pg:
            for statement in statements:
                cursor = pg.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows
    my = pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=unquote(parts.path[1:]), autocommit=True, charset="utf8mb4",
    )  # fmt: skip
    with closing(my), my.cursor() as found:
        for statement in statements:
            found.execute(statement)
            rows = list(found.fetchall())
    return rows


def fill(url: str, rows: int = 6000, width: int = 100) -> None:
    """Make the source: a keyed table with awkward text, and one without a key that has duplicates."""
    engine = open_link(url).engine.name
    text = {"sqlite": "text", "postgresql": "text", "mysql": "varchar(400)"}[engine]
    statements = [
        f"create table item (id bigint primary key, name {text}, price decimal(10,2))",
        f"create table event (kind int, note {text})",
    ]
    for start in range(0, rows, 1000):
        part = range(start, start + 1000)
        statements.append(
            "insert into item values "
            + ", ".join(
                f"({i}, {'null' if i % 5 == 0 else repr(f'näme {i} ' + 'x' * width)}, {i % 1000}.{i % 100:02d})"
                for i in part
            )
        )
        statements.append("insert into event values " + ", ".join(f"({i % 7}, 'note {i % 50}')" for i in part))
    run_sql(url, *statements)


def content(url: str, table: str) -> Counter[tuple[str | None, ...]]:
    """Every row of a table as texts, by the plain driver; the columns of `item` and `event` look alike in all of them."""
    if url.startswith("mongodb"):
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with closing(client):
            found = client.get_default_database()[table].find()
            rows = [
                (d["_id"], d.get("name"), d.get("price")) if table == "item" else (d.get("kind"), d.get("note"))
                for d in found
            ]
    else:
        rows = run_sql(url, f"select {'id, name, price' if table == 'item' else 'kind, note'} from {table}")
    return Counter(tuple(_text(v) for v in row) for row in rows)


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text.rstrip("0").rstrip(".") if "." in text and not text.startswith("n") else text


def judged_equal(source: str, target: str) -> None:
    """Equal by our verification, and by the plain drivers row for row."""
    comparison = dblens.open().migrations.verify(open_link(source), open_link(target))
    assert comparison.equal, comparison
    assert {v.table.rpartition(".")[2] for v in comparison.verdicts} == set(TABLES)
    for table in TABLES:
        ours, theirs = content(source, table), content(target, table)
        assert sum(ours.values()) == sum(theirs.values())
        assert ours == theirs


def plan(source: str, target: str, **options: object) -> Plan:
    """A plan without blocks."""
    made = dblens.open().migrations.plan(open_link(source), open_link(target), msgspec.convert(options, Options))
    assert not made.blocks, made.blocks
    return made


def apply(made: Plan, source: str, target: str, report: Callable[[Event], None] = lambda _: None) -> Outcome:
    """Apply with every loss accepted."""
    return dblens.open().migrations.apply(
        made, source=open_link(source), target=open_link(target), accept=["all"], report=report
    )


def resume(
    made: Plan, source: str, target: str, mode: str, report: Callable[[Event], None] = lambda _: None
) -> Outcome:
    """Resume by id."""
    how: ResumeMode = "relaxed" if mode == "relaxed" else "strict"
    return dblens.open().migrations.resume(open_link(source), open_link(target), made.id, mode=how, report=report)


def states(target: str) -> dict[str, str]:
    """What `status` says: state by run."""
    return {s.id: s.state for s in dblens.open().migrations.status(open_link(target))}


def live_tables(url: str) -> set[str]:
    """The tables that a user of the target sees."""
    with closing(open_link(url).connect(read_only=True)) as session:
        return {t.name for t in session.inspect().tables}


class Strike:
    """A report callable that does something once, in the middle of a copy: at its n-th sign of progress."""

    def __init__(self, do: Callable[[], object], at: int = 3, step: str | None = None) -> None:
        self.do, self.at, self.step = do, at, step
        self.seen = 0
        self.struck = False

    def __call__(self, event: Event) -> None:
        if self.struck:
            return
        if self.step is not None:
            self.struck = isinstance(event, StepStarted) and event.step == self.step
        elif isinstance(event, Progress) and event.task.startswith("copy"):
            self.seen += 1
            self.struck = self.seen >= self.at
        if self.struck:
            self.do()


class Stopped(Exception):
    """A crash that leaves the process alive: what a strike raises to stop a run wherever it is."""


def stop() -> None:
    """Stop the run here."""
    raise Stopped


def fails(work: Callable[[], object]) -> DBLensError:
    """The work must fail with one of our errors, its hint, and no secret."""
    from tests.servers import PASSWORD

    with pytest.raises(DBLensError) as failed:
        work()
    assert PASSWORD not in str(failed.value)
    assert PASSWORD not in repr(failed.value)
    return failed.value


@pytest.fixture
def every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a copy report after every block instead of ten times a second, so that small tables have a middle."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 1
            return self.now

    monkeypatch.setattr("dblens.transfer.copy.time", Clock())
