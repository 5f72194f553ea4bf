"""How sessions answer people: one suite for every engine, in the words of `engines.asking` alone.

Statements are SQL that all of them read, but for what `Harness.EXACT` and `Harness.text_of` spell. Parameters are written `:name`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dblens.engines.asking import Answer, Asks, Lexis, Limits, Odd, Out, PlanNode
from dblens.errors import (
    Cancelled,
    Conflict,
    DBLensError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)
from dblens.query.params import bound
from tests.engines.harness import SqlHarness
from tests.engines.support import Case

HEAVY = "SELECT sum(d0.d * d7.d + d13.d) FROM " + ", ".join(f"digit d{n}" for n in range(14))
"""Adds up 10^14 rows; a plain count(*) MySQL would multiply."""
NAMES = (
    "a b",
    "ü",
    '"',
    "`",
    "'",
    "%s",
    "%",
    "{}",
    ";--",
    "]",
    "日本",
    "a.b",
    "\\",
    "x" * 60,
    "/* */",
    ":name",
    "$1",
    "?",
)


@dataclass(frozen=True)
class Talk:
    """The people's side of a session, and how its language spells parameters."""

    it: Asks
    lexis: Lexis


def opened(case: Case, url: str) -> Talk:
    session = case.open(url)
    ask, lexis = session.engine.ask, session.engine.lexis
    assert ask is not None, f"{session.engine.title} answers nobody"
    assert lexis is not None
    return Talk(ask(session), lexis)


def sql(case: Case) -> SqlHarness:
    assert isinstance(case.harness, SqlHarness), "it speaks no SQL"
    return case.harness


@contextlib.contextmanager
def asked(
    talk: Talk, text: str, _limits: Limits = Limits(), _read_only: bool = True, **values: object
) -> Iterator[Answer]:
    statement, params = bound(text, talk.lexis, values)
    with talk.it.ask(statement, params, read_only=_read_only, limits=_limits) as answer:
        yield answer


def rows_of(
    talk: Talk, text: str, _limits: Limits = Limits(), _read_only: bool = True, **values: object
) -> list[tuple[Any, ...]]:
    with asked(talk, text, _limits, _read_only, **values) as answer:
        return [tuple(row) for batch in answer.batches() for row in batch]


def write(talk: Talk, text: str, **values: object) -> int | None:
    with asked(talk, text, Limits(), False, **values) as answer:
        for _ in answer.batches():
            pass
        return answer.affected


def between(talk: Talk, text: str, limits: Limits, do: Callable[[], object]) -> None:
    """Read an answer, and do something after each batch."""
    with asked(talk, text, limits) as answer:
        for _ in answer.batches():
            do()


def digits(case: Case) -> str:
    """Return the URL of a database with the sample, and with `digit` (0 … 9) to multiply."""
    if "asks" not in case.shared:
        url = case.server.create_database()
        case.harness.sample(url)
        sql(case).run(
            url,
            ["CREATE TABLE digit (d integer)", "INSERT INTO digit VALUES " + ", ".join(f"({n})" for n in range(10))],
        )
        case.shared["asks"] = url
    found: str = case.shared["asks"]
    return found


def many(rows: int, more: str = "") -> str:
    """Return a query of so many rows, at most a million, numbered from 1."""
    tables = max(1, len(str(rows - 1)))
    number = " + ".join(f"d{n}.d * {10**n}" for n in range(tables))
    return (
        f"SELECT {number} + 1 AS n{more} FROM "
        + ", ".join(f"digit d{n}" for n in range(tables))
        + f" WHERE {number} < {rows}"
    )


@pytest.fixture
def asks(engine_case: Case) -> Talk:
    return opened(engine_case, digits(engine_case))


@pytest.fixture
def scratch(engine_case: Case) -> Talk:
    """A database of the test's own, with the table `note` of two rows."""
    url = engine_case.database()
    sql(engine_case).run(
        url,
        [
            "CREATE TABLE note (id integer NOT NULL PRIMARY KEY, t varchar(100))",
            "INSERT INTO note VALUES (1, 'a'), (2, NULL)",
        ],
    )
    engine_case.shared["note"] = url
    return opened(engine_case, url)


NOTES = "SELECT id, t FROM note ORDER BY id"
THERE = [(1, "a"), (2, None)]


# ---- what comes back


def test_columns_and_rows(asks: Talk) -> None:
    with asked(asks, "SELECT id, name, email FROM person ORDER BY id") as answer:
        assert [column.name for column in answer.columns] == ["id", "name", "email"]
        assert all(isinstance(column, Out) and column.native is not None for column in answer.columns)
        rows = [row for batch in answer.batches() for row in batch]
        assert answer.affected is None
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0] == (1, "Ada", "ada@example.org")
    assert [row[2] for row in rows] == ["ada@example.org", None, "x", "", "é"]
    assert rows[2][1].startswith("日本 \\ tab\t")


def test_values_are_exact(engine_case: Case, asks: Talk) -> None:
    cases = sql(engine_case).EXACT
    rows = rows_of(asks, "SELECT " + ", ".join(f"{expression} AS c{n}" for n, (expression, _) in enumerate(cases)))
    assert len(rows) == 1
    for (expression, expected), value in zip(cases, rows[0], strict=True):
        shown = value.text if isinstance(value, Odd) else value
        if isinstance(expected, Decimal) and isinstance(shown, str):  # plain digits are as good
            assert format(Decimal(shown), "f") == shown
            shown = Decimal(shown)
        assert (shown, type(shown)) == (expected, type(expected)), expression


def test_values_out_of_parameters(asks: Talk) -> None:
    for text in ("it's", 'a "quoted" \\ %s :name ; -- $1 ?', "é😀", "'; DROP TABLE person; --"):
        assert rows_of(asks, "SELECT count(*) FROM person WHERE name = :t", t=text) == [(0,)]
    assert rows_of(asks, "SELECT id FROM person WHERE name = :n AND id < :i", n="Ada", i=3) == [(1,)]
    assert rows_of(asks, "SELECT id FROM person WHERE id IN (:ids) AND name LIKE '%d%' ORDER BY id", ids=[1, 2, 3]) == [
        (1,)
    ]
    assert rows_of(asks, "SELECT id FROM person WHERE id = :a OR id = :a + 1 ORDER BY id", a=1) == [(1,), (2,)]


def test_a_parameter_too_many_or_too_few_is_invalid(asks: Talk) -> None:
    one, _ = bound("SELECT id FROM person WHERE id = :a", asks.lexis, {"a": 1})
    with pytest.raises(InvalidInput):
        asks.it.ask(one, (1, 2))
    with pytest.raises((InvalidInput, QueryFailed)):  # without any parameter the text is the server's as it is
        asks.it.ask(one, ())
    assert rows_of(asks, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_columns(engine_case: Case, asks: Talk, name: str) -> None:
    text = f"SELECT 1 AS {sql(engine_case).quote(name)}"
    with asks.it.ask(text) as answer:
        assert [column.name for column in answer.columns] == [name]
        assert list(answer.batches()) == [[(1,)]]


def test_equal_names_of_columns_are_both_kept(asks: Talk) -> None:
    with asked(asks, "SELECT 1 AS a, 2 AS a, 3 AS b") as answer:
        assert [column.name for column in answer.columns] == ["a", "a", "b"]
        assert list(answer.batches()) == [[(1, 2, 3)]]


def test_an_empty_answer_has_columns(asks: Talk) -> None:
    with asked(asks, "SELECT id, name FROM person WHERE 1 = 0") as answer:
        assert [column.name for column in answer.columns] == ["id", "name"]
        assert not [row for batch in answer.batches() for row in batch]


def test_a_huge_statement(asks: Talk) -> None:
    text = "é" * 500_000
    assert rows_of(asks, f"SELECT count(*) FROM person WHERE name = '{text}'") == [(0,)]


# ---- bounds


def test_batches_are_bounded_in_rows(asks: Talk) -> None:
    with asked(asks, many(20_000), Limits(rows=1000)) as answer:
        sizes, numbers = [], set()
        for batch in answer.batches():
            sizes.append(len(batch))
            numbers |= {row[0] for row in batch}
    assert max(sizes) <= 1000
    assert numbers == set(range(1, 20_001))
    assert sum(sizes) == 20_000


def test_batches_are_bounded_in_octets(engine_case: Case, asks: Talk) -> None:
    wide = f", {sql(engine_case).text_of(20_000)} AS t"
    with asked(asks, many(1000, wide), Limits(octets=1 << 20)) as answer:
        sizes = [sum(len(row[1]) for row in batch) for batch in answer.batches()]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 2 << 20


def test_streaming_holds_no_memory(engine_case: Case, asks: Talk) -> None:
    wide = f", {sql(engine_case).text_of(400)} AS t"
    with asked(asks, many(300_000, wide), Limits(octets=1 << 20)) as answer:
        batches = answer.batches()
        count, before = len(next(batches)), resident()
        highest = before
        for batch in batches:
            count += len(batch)
            highest = max(highest, resident())
    assert count == 300_000
    assert highest - before <= 32 << 20, f"{(highest - before) >> 20} MiB for 120 MB of rows"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def test_a_cell_over_the_cap_is_named(engine_case: Case, asks: Talk) -> None:
    text = f"SELECT 1 AS n, {sql(engine_case).text_of(4_000_000)} AS big"
    with pytest.raises(InvalidInput, match="big"):
        rows_of(asks, text, Limits(cell=1_000_000))
    assert [len(row[1]) for row in rows_of(asks, text)] == [4_000_000]


def test_the_deadline_is_that_of_the_whole_statement(asks: Talk) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut):
        rows_of(asks, HEAVY, Limits(seconds=0.5))
    assert time.monotonic() - began < 3
    assert rows_of(asks, "SELECT 1") == [(1,)]


def test_the_deadline_counts_between_batches_too(asks: Talk) -> None:
    with pytest.raises(TimedOut):
        between(asks, many(1_000_000), Limits(seconds=0.6), lambda: time.sleep(0.2))
    assert rows_of(asks, "SELECT 1") == [(1,)]


# ---- stopping


def test_cancel_stops_what_runs(asks: Talk) -> None:
    for _ in range(3):
        began = time.monotonic()
        threading.Timer(0.3, asks.it.cancel).start()
        with pytest.raises(Cancelled):
            rows_of(asks, HEAVY)
        assert time.monotonic() - began < 1.3
        assert rows_of(asks, "SELECT 1") == [(1,)]


def test_cancel_between_batches(asks: Talk) -> None:
    with pytest.raises(Cancelled):
        between(asks, many(1_000_000), Limits(), asks.it.cancel)
    assert rows_of(asks, "SELECT 1") == [(1,)]


def test_cancel_of_nothing_stops_nothing(asks: Talk) -> None:
    asks.it.cancel()
    assert rows_of(asks, "SELECT 1") == [(1,)]
    asks.it.cancel()
    assert len(rows_of(asks, many(10_000))) == 10_000


def test_leaving_early_frees_the_session(asks: Talk) -> None:
    began = time.monotonic()
    for _ in range(3):
        with asked(asks, many(1_000_000)) as answer:
            next(answer.batches())
        assert rows_of(asks, "SELECT 1") == [(1,)]
    with asked(asks, many(1_000_000)):
        pass
    assert rows_of(asks, "SELECT 1") == [(1,)]
    assert time.monotonic() - began < 10
    assert asks.it.transaction is None


# ---- reading only, and writing


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO note VALUES (3, 'x')", "UPDATE note SET t = 'x'", "DELETE FROM note", "CREATE TABLE other (a integer)", "DROP TABLE note",
        "ALTER TABLE note ADD COLUMN z integer", "CREATE VIEW other AS SELECT 1 AS a", "CREATE INDEX other ON note (t)",
        "INSERT INTO note SELECT id + 10, t FROM note",
    ],
)  # fmt: skip
def test_read_only_refuses(engine_case: Case, scratch: Talk, statement: str) -> None:
    before = engine_case.open(engine_case.shared["note"]).inspect()
    with pytest.raises(PermissionDenied):
        rows_of(scratch, statement)
    assert rows_of(scratch, NOTES) == THERE
    other = opened(engine_case, engine_case.shared["note"])
    assert rows_of(other, NOTES) == THERE
    assert engine_case.open(engine_case.shared["note"]).inspect() == before


def test_writing_is_committed_and_counted(engine_case: Case, scratch: Talk) -> None:
    assert write(scratch, "INSERT INTO note VALUES (:a, :t)", a=3, t="it's 100%") == 1
    assert write(scratch, "UPDATE note SET t = 'z' WHERE id < 3") == 2
    assert write(scratch, "DELETE FROM note WHERE id = 99") == 0
    other = opened(engine_case, engine_case.shared["note"])
    assert rows_of(other, NOTES) == [(1, "z"), (2, "z"), (3, "it's 100%")]
    with asked(scratch, "CREATE TABLE made (a integer)", Limits(), False) as answer:
        assert answer.columns == ()
        assert list(answer.batches()) == []
    assert rows_of(other, "SELECT a FROM made") == []
    assert scratch.it.transaction is None


def test_a_transaction_is_kept_or_rolled_back(engine_case: Case, scratch: Talk) -> None:
    other = opened(engine_case, engine_case.shared["note"])
    scratch.it.begin()
    state = scratch.it.transaction
    assert state is not None
    assert not state.read_only
    write(scratch, "INSERT INTO note VALUES (3, 'x')")
    scratch.it.rollback()
    assert scratch.it.transaction is None
    assert rows_of(other, NOTES) == THERE
    scratch.it.begin()
    write(scratch, "INSERT INTO note VALUES (3, 'x')")
    write(scratch, "INSERT INTO note VALUES (4, 'y')")
    scratch.it.commit()
    assert scratch.it.transaction is None
    assert rows_of(other, NOTES) == [*THERE, (3, "x"), (4, "y")]


def test_transactions_are_begun_once_and_ended_once(scratch: Talk) -> None:
    scratch.it.rollback()
    with pytest.raises(Conflict):
        scratch.it.commit()
    with pytest.raises(InvalidInput):
        scratch.it.begin(isolation="quantum")
    scratch.it.begin()
    with pytest.raises(Conflict):
        scratch.it.begin()
    scratch.it.rollback()


def test_a_read_only_transaction_refuses_and_sees_one_state(engine_case: Case, scratch: Talk) -> None:
    scratch.it.begin(read_only=True)
    state = scratch.it.transaction
    assert state is not None
    assert state.read_only
    with pytest.raises(PermissionDenied):
        write(scratch, "INSERT INTO note VALUES (3, 'x')")
    scratch.it.rollback()
    assert rows_of(scratch, NOTES) == THERE


@pytest.mark.parametrize(
    "text", ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE note", "SELECT 1;\n-- x\nDELETE FROM note"]
)
@pytest.mark.parametrize("read_only", [True, False])
def test_one_statement_only(scratch: Talk, text: str, read_only: bool) -> None:
    with pytest.raises(InvalidInput):
        rows_of(scratch, text, Limits(), read_only)
    assert rows_of(scratch, NOTES) == THERE


@pytest.mark.parametrize("text", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "/* x */ COMMIT", "start transaction"])
@pytest.mark.parametrize("read_only", [True, False])
def test_statements_manage_no_transactions(scratch: Talk, text: str, read_only: bool) -> None:
    with pytest.raises((InvalidInput, QueryFailed) if text.startswith("start") else InvalidInput):
        rows_of(scratch, text, Limits(), read_only)
    assert scratch.it.transaction is None
    assert rows_of(scratch, NOTES) == THERE


def test_a_mistake_is_told_and_does_no_harm(scratch: Talk) -> None:
    for text in ("SELEC 1", "SELECT nothing_like_it FROM note", "SELECT * FROM no_such_table"):
        for read_only in (True, False):
            # A word that begins no statement may be refused before the server sees it.
            with pytest.raises(
                (QueryFailed, NotFound, PermissionDenied)
                if read_only and text == "SELEC 1"
                else (QueryFailed, NotFound)
            ):
                rows_of(scratch, text, Limits(), read_only)
            assert scratch.it.transaction is None
            assert rows_of(scratch, NOTES) == THERE
    with pytest.raises((QueryFailed, Conflict)):
        write(scratch, "INSERT INTO note VALUES (5, 'x'), (1, 'twice')")
    assert rows_of(scratch, NOTES) == THERE


@pytest.mark.parametrize("text", ["", "  ", "-- nothing", "/* nothing */"])
def test_no_statement_is_told(asks: Talk, text: str) -> None:
    with pytest.raises((InvalidInput, QueryFailed)):
        rows_of(asks, text)
    assert rows_of(asks, "SELECT 1") == [(1,)]


def test_a_tag_cannot_become_a_statement(scratch: Talk) -> None:
    for tag in ("user=ada notebook=n.ipynb", "*/ DELETE FROM note; /*", "-- \n DELETE FROM note", "%s %d ? $1"):
        with scratch.it.ask(NOTES, tag=tag) as answer:
            assert [row for batch in answer.batches() for row in batch] == THERE
        with scratch.it.ask("UPDATE note SET t = t", read_only=False, tag=tag) as answer:
            list(answer.batches())
    assert rows_of(scratch, NOTES) == THERE


# ---- what it rests on, and plans


def test_layers_are_told(engine_case: Case) -> None:
    asks = opened(engine_case, engine_case.sample())
    layers = asks.it.layers()
    assert any(layer.active for layer in layers)
    assert len({layer.name for layer in layers}) == len(layers)
    assert all(layer.why for layer in layers if not layer.active)


def test_a_session_begins_without_a_transaction(engine_case: Case) -> None:
    asks = opened(engine_case, engine_case.sample())
    assert asks.it.transaction is None
    asks.it.cancel()
    asks.it.rollback()


def nodes(node: PlanNode) -> Iterator[PlanNode]:
    yield node
    for child in node.children:
        yield from nodes(child)


def test_a_plan_is_a_tree(asks: Talk) -> None:
    text = "SELECT p.name, q.amount FROM person p JOIN purchase q ON q.person_id = p.id WHERE p.name > :n"
    statement, params = bound(text, asks.lexis, {"n": "A"})
    told = asks.it.explain(statement, params)
    assert told.raw
    assert not told.analyzed
    assert all(node.title for node in nodes(told.tree))
    relations = {node.relation for node in nodes(told.tree)}
    assert relations & {"p", "person"}
    assert relations & {"q", "purchase"}


def test_a_plan_of_a_change_changes_nothing(scratch: Talk) -> None:
    with contextlib.suppress(DBLensError):  # not every server plans every change
        scratch.it.explain("DELETE FROM note")
    with contextlib.suppress(DBLensError):
        scratch.it.explain("DELETE FROM note", analyze=True)
    assert rows_of(scratch, NOTES) == THERE
    with pytest.raises(DBLensError):
        scratch.it.explain("SELECT 1; DELETE FROM note")
    assert rows_of(scratch, NOTES) == THERE
