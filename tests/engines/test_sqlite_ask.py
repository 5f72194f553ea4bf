"""What only SQLite's answers have: types by value, its own read-only handle, locks of other processes, and being stopped at any moment."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dblens import engines
from dblens.engines import address
from dblens.engines.asking import Limits, Odd
from dblens.engines.sqlite.ask import SqliteAsks, asks
from dblens.errors import (
    Cancelled,
    Conflict,
    DBLensError,
    InvalidInput,
    PermissionDenied,
    QueryFailed,
    TimedOut,
    Unsupported,
)
from dblens.schema.types import (
    Binary,
    Boolean,
    DataType,
    Date,
    Dynamic,
    Float,
    Integer,
    Json,
    Text,
    Time,
    Timestamp,
    Uuid,
)
from dblens.schema.types import Decimal as DecimalType
from dblens.values.forms import Form

ENDLESS = "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a.db"
    with sqlite3.connect(file) as db:
        db.executescript(
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'a'), (2, NULL); CREATE VIRTUAL TABLE ft USING fts5(x);"
            "INSERT INTO ft VALUES ('hello world'); CREATE VIRTUAL TABLE rt USING rtree(id, low, high); INSERT INTO rt VALUES (1, 0, 1);"
        )
    db.close()
    return file


@pytest.fixture
def asked(path: Path) -> Iterator[SqliteAsks]:
    session = engines.get("sqlite").connect(address.parse(f"sqlite:///{path}")[0])
    yield asks(session)
    session.close()


def rows(it: SqliteAsks, text: str, *params: object, **options: Any) -> list[tuple[Any, ...]]:
    with it.ask(text, params, **options) as answer:
        return [row for batch in answer.batches() for row in batch]


def column(it: SqliteAsks, native: str, *values: object) -> tuple[DataType, list[Any]]:
    """Return the type and the values of a column declared so, holding these."""
    rows(it, f"CREATE TABLE c (id INTEGER PRIMARY KEY, v {native})", read_only=False)
    try:
        for value in values:
            rows(it, "INSERT INTO c (v) VALUES (?)", value, read_only=False)
        with it.ask("SELECT v FROM c ORDER BY id") as answer:
            found = [row[0] for batch in answer.batches() for row in batch]
            assert answer.columns[0].native == native
            return answer.columns[0].type, found
    finally:
        rows(it, "DROP TABLE c", read_only=False)


@pytest.mark.parametrize(
    ("native", "values", "type", "shown"),
    [
        ("INTEGER", (1, -(2**63), None), Integer(64), [1, -(2**63), None]),
        ("TINYINT", (300,), Integer(64), [300]),
        ("INTEGER", (1, "x", 1.5, b"\0"), Integer(64), [1, Odd("t:x", Form.DYNAMIC), Odd("r:1.5", Form.DYNAMIC), Odd("b:00", Form.DYNAMIC)]),
        ("TEXT", ("é", "", None), Text(), ["é", "", None]),
        ("VARCHAR(5)", ("longer than five",), Text(5), ["longer than five"]),
        ("TEXT", ("a", b"\xff"), Text(), ["a", Odd("b:ff", Form.DYNAMIC)]),
        ("REAL", (1.5, 2, float("inf")), Float(64), [1.5, 2.0, float("inf")]),
        ("BLOB", (b"\0", "x"), Binary(), [b"\0", Odd("t:x", Form.DYNAMIC)]),
        ("BOOLEAN", (0, 1, None), Boolean(), [False, True, None]),
        ("BOOLEAN", (0, 2), Integer(64), [0, 2]),
        ("DATE", ("2024-02-29", None), Date(), [dt.date(2024, 2, 29), None]),
        ("DATE", ("2024-02-30",), Text(), ["2024-02-30"]),
        ("DATE", (19000, 19001), Integer(64), [19000, 19001]),
        ("TIME", ("23:59:59.5",), Time(6), [dt.time(23, 59, 59, 500_000)]),
        ("TIME", ("24:00:00",), Text(), ["24:00:00"]),
        ("DATETIME", ("2024-01-01 00:00:00.000001",), Timestamp(6), [dt.datetime(2024, 1, 1, 0, 0, 0, 1)]),
        ("DATETIME", ("2024-01-01 00:00:00.50",), Text(), ["2024-01-01 00:00:00.50"]),
        ("DATETIME", ("2024-01-01T00:00:00",), Text(), ["2024-01-01T00:00:00"]),
        ("TIMESTAMPTZ", ("2024-01-01 00:00:00Z",), Timestamp(6, zone=True), [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]),
        ("DECIMAL(10,2)", (1, 10.5, 99999999.99), DecimalType(10, 2), [Decimal(1), Decimal("10.5"), Decimal("99999999.99")]),
        ("DECIMAL(4,2)", (123.5,), Float(64), [123.5]),
        ("NUMERIC", (1, 10.5, 1e22), DecimalType(), ["1", "10.5", "10000000000000000000000"]),
        ("UUID", ("00000000-0000-0000-0000-0000000000ff",), Uuid(), ["00000000-0000-0000-0000-0000000000ff"]),
        ("JSON", ('{"b": 1, "a": 2}',), Json(normalised=False), ['{"b": 1, "a": 2}']),
        ("", (1, "1", 1.5, b"1"), Dynamic(("integer", "real", "text", "blob")), ["i:1", "t:1", "r:1.5", "b:31"]),
        ("", ("a", "b"), Text(), ["a", "b"]),
    ],
)  # fmt: skip
def test_types_are_proven_by_the_first_rows(
    asked: SqliteAsks, native: str, values: tuple[object, ...], type: DataType, shown: list[Any]
) -> None:
    assert column(asked, native, *values) == (type, shown)


def test_what_comes_later_and_does_not_fit_is_odd(asked: SqliteAsks) -> None:
    numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 3000)"
    with asked.ask(f"{numbers} SELECT CASE WHEN n < 2000 THEN n ELSE 'late' END AS x FROM c") as answer:
        found = [row[0] for batch in answer.batches() for row in batch]
    assert answer.columns[0].type == Integer(64)
    assert found[:1999] == list(range(1, 2000))
    assert set(found[1999:]) == {Odd("t:late", Form.DYNAMIC)}


def test_declared_types_come_through_views_and_parameters(asked: SqliteAsks) -> None:
    rows(asked, "CREATE TABLE d (id INTEGER, born DATE, [odd ? name] TEXT)", read_only=False)
    rows(asked, "CREATE VIEW v AS SELECT born AS b FROM d", read_only=False)
    with asked.ask(
        "SELECT v.b, d.id, ? AS p, d.[odd ? name], '?' AS q FROM v, d WHERE d.id > ? -- ?", (1, 2)
    ) as answer:
        assert [column.native for column in answer.columns] == ["DATE", "INTEGER", "", "TEXT", ""]
    assert rows(asked, "SELECT name FROM sqlite_temp_schema") == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT x FROM ft WHERE ft MATCH 'hello'",
        "SELECT low FROM rt WHERE id = 1",
        "SELECT name FROM pragma_table_info('t')",
        "SELECT value FROM json_each('[1]')",
    ],
)
def test_virtual_tables_are_read(asked: SqliteAsks, text: str) -> None:
    assert len(rows(asked, text)) >= 1


def test_parameters_of_python(asked: SqliteAsks) -> None:
    moment = dt.datetime(2024, 1, 1, 12, 0, 0, 500_000)
    given = (
        Decimal("1.50"),
        dt.date(2024, 1, 2),
        moment,
        moment.replace(tzinfo=dt.UTC),
        dt.time(1, 2, 3),
        True,
        b"x",
        None,
    )
    found = rows(asked, "SELECT ?, ?, ?, ?, ?, ?, ?, ?", *given)
    assert found == [
        ("1.50", "2024-01-02", "2024-01-01 12:00:00.5", "2024-01-01 12:00:00.5Z", "01:02:03", 1, b"x", None)
    ]
    for wrong in (2**63, [1], object(), "\udcff"):
        with pytest.raises(InvalidInput):
            rows(asked, "SELECT ?", wrong)


def test_a_gigabyte_cell_is_refused(asked: SqliteAsks) -> None:
    for text in ("SELECT zeroblob(1000000000)", "SELECT hex(zeroblob(500000000))", "SELECT group_concat(hex(zeroblob(1000000))) FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100) SELECT n FROM c)"):  # fmt: skip
        with pytest.raises(InvalidInput):
            rows(asked, text, limits=Limits(seconds=60, cell=8 << 20))
    with pytest.raises(InvalidInput, match=r"'b' in row 2 has 2000 octets"):
        rows(asked, "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, zeroblob(2000)", limits=Limits(cell=1000))
    assert rows(asked, "SELECT 1") == [(1,)]


def test_2000_columns(asked: SqliteAsks) -> None:
    text = "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(2000))
    assert rows(asked, text) == [tuple(range(2000))]


def test_cancelled_a_hundred_times_at_random(asked: SqliteAsks) -> None:
    """Before the first opcode, while it runs and while it ends: never is the next statement stopped, never does one go on."""
    waits, slowest, chance = 0, 0.0, random.Random(4)
    many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 3000) SELECT n FROM c"
    for number in range(100):
        endless = number % 2 == 0
        stopped: list[float] = []
        endless_runs = threading.Event()
        delay = chance.random() * (0.02 if endless else 0.004)

        def stop(
            delay: float = delay, stopped: list[float] = stopped, endless_runs: threading.Event = endless_runs
        ) -> None:
            time.sleep(delay)
            asked.cancel()
            stopped.append(time.monotonic())
            time.sleep(0.001)
            while endless_runs.is_set():  # it came before the statement began: stop that
                asked.cancel()
                time.sleep(0.005)

        if endless:
            endless_runs.set()
        thread = threading.Thread(target=stop)
        thread.start()
        try:
            found = rows(asked, ENDLESS if endless else many, limits=Limits(seconds=20))
        except Cancelled:
            waits += 1
            slowest = max(slowest, time.monotonic() - stopped[0] if stopped else 0.0)
        else:
            assert not endless
            assert len(found) == 3000
        endless_runs.clear()
        thread.join()
        assert rows(asked, "SELECT a FROM t ORDER BY a") == [(1,), (2,)]
    assert waits >= 50
    assert slowest < 1


def test_a_cancel_that_comes_before_the_first_opcode_is_not_lost(
    asked: SqliteAsks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dblens.engines.sqlite.ask_run import Running

    before = Running._described

    def late(self: Running) -> list[str]:
        asked.cancel()
        return before(self)

    monkeypatch.setattr(Running, "_described", late)
    with pytest.raises((Cancelled, TimedOut)) as caught:
        rows(asked, ENDLESS, limits=Limits(seconds=3))
    assert isinstance(caught.value, Cancelled)


def test_waiting_for_a_lock_is_stopped_too(asked: SqliteAsks, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        for text, read_only in (("SELECT * FROM t", True), ("INSERT INTO t VALUES (3, 'x')", False)):
            began = time.monotonic()
            with pytest.raises(TimedOut):
                rows(asked, text, read_only=read_only, limits=Limits(seconds=0.3))
            threading.Timer(0.2, asked.cancel).start()
            with pytest.raises(Cancelled):
                rows(asked, text, read_only=read_only)
            assert time.monotonic() - began < 2
    finally:
        other.execute("ROLLBACK")
    assert rows(asked, "INSERT INTO t VALUES (3, 'x') RETURNING a", read_only=False) == [(3,)]
    other.close()


def test_returning_is_committed_when_read_and_undone_when_left(asked: SqliteAsks) -> None:
    assert rows(asked, "INSERT INTO t VALUES (3, 'c') RETURNING a, b", read_only=False) == [(3, "c")]
    with asked.ask("INSERT INTO t SELECT n + 10, 'x' FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 5000) SELECT n FROM c) RETURNING a", read_only=False) as answer:  # fmt: skip
        next(answer.batches())
    assert rows(asked, "SELECT count(*) FROM t") == [(3,)]
    with asked.ask("INSERT INTO t VALUES (4, 'd') RETURNING a", read_only=False) as answer:
        assert list(answer.batches()) == [[(4,)]]
        assert answer.affected == 1


def test_a_transaction_that_sqlite_rolled_back_is_over(asked: SqliteAsks) -> None:
    asked.begin(isolation="immediate")
    rows(asked, "INSERT INTO t VALUES (3, 'c')", read_only=False)
    threading.Timer(0.2, asked.cancel).start()
    with pytest.raises(Cancelled):
        rows(
            asked,
            f"INSERT INTO t SELECT n + 100, 'x' FROM ({ENDLESS.replace('count(*)', 'n')})",
            read_only=False,
        )
    state = asked.transaction
    assert state is not None
    assert state.failed
    with pytest.raises(Conflict):
        rows(asked, "INSERT INTO t VALUES (4, 'd')", read_only=False)
    with pytest.raises(Conflict):
        asked.commit()
    asked.rollback()
    assert asked.transaction is None
    assert rows(asked, "SELECT count(*) FROM t") == [(2,)]


def test_in_a_transaction_questions_see_what_it_wrote(asked: SqliteAsks) -> None:
    asked.begin()
    rows(asked, "INSERT INTO t VALUES (3, 'c')", read_only=False)
    assert rows(asked, "SELECT count(*) FROM t") == [(3,)]
    with pytest.raises(PermissionDenied):
        rows(asked, "INSERT INTO t VALUES (4, 'd')")
    assert rows(asked, "INSERT INTO t VALUES (4, 'd') RETURNING a", read_only=False) == [(4,)]
    asked.rollback()
    assert rows(asked, "SELECT count(*) FROM t") == [(2,)]


def test_one_answer_at_a_time(asked: SqliteAsks) -> None:
    many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100000) SELECT n FROM c"
    with asked.ask(many), pytest.raises(Conflict):
        asked.ask("SELECT 1")
    assert rows(asked, "SELECT 1") == [(1,)]


def test_the_session_is_as_it_was(asked: SqliteAsks) -> None:
    session = asked._session
    told = ("query_only", "trusted_schema", "busy_timeout", "foreign_keys")

    def state() -> list[object]:
        db = session.live()
        return [
            *[db.one(f"PRAGMA {name}") for name in told],
            db.raw.in_transaction,
            db.raw.getlimit(sqlite3.SQLITE_LIMIT_LENGTH),
        ]

    before = state()
    for text, read_only in (("INSERT INTO t VALUES (3, 'c')", False), ("SELEC", False), ("SELECT 1; SELECT 2", False), ("ATTACH 'x' AS y", False), ("INSERT INTO t VALUES (1, 'twice')", False), ("SELECT * FROM t", True)):  # fmt: skip
        with contextlib.suppress(DBLensError):
            rows(asked, text, read_only=read_only)
        assert state() == before
    assert session.execute("SELECT count(*) FROM t").rows == [(3,)]


def test_plans(asked: SqliteAsks) -> None:
    rows(asked, "CREATE INDEX t_b ON t (b)", read_only=False)
    told = asked.explain("SELECT a FROM t WHERE b = ?", ("a",))
    assert (told.tree.relation, told.tree.index) == ("t", "t_b")
    assert told.format == "text"
    assert "no costs" in told.note
    asked.explain("DELETE FROM t WHERE a = 1")
    assert rows(asked, "SELECT count(*) FROM t") == [(2,)]
    with pytest.raises(Unsupported):
        asked.explain("SELECT 1", analyze=True)
    with pytest.raises(QueryFailed):
        asked.explain("SELEC")


def test_first_rows_come_before_the_last(asked: SqliteAsks) -> None:
    """The first batch of an endless answer comes at once, and slow rows are not waited for."""
    text = "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
    began = time.monotonic()
    with asked.ask(text) as answer:
        batches = answer.batches()
        assert next(batches)[0] == (1,)
        assert time.monotonic() - began < 0.5
        assert sum(len(next(batches)) for _ in range(20)) > 1000


def test_a_file_that_is_still_to_be_made(tmp_path: Path) -> None:
    session = engines.get("sqlite").connect(address.parse(f"sqlite:///{tmp_path / 'new.db'}")[0], create=True)
    it = asks(session)
    assert rows(it, "SELECT 1") == [(1,)]
    assert not (tmp_path / "new.db").exists()
    rows(it, "CREATE TABLE t (a)", read_only=False)
    rows(it, "INSERT INTO t VALUES (1)", read_only=False)
    assert rows(it, "SELECT a FROM t") == [(1,)]
    assert next(layer for layer in it.layers() if layer.name == "file").active
    session.close()
