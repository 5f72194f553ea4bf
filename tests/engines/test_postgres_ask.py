"""How PostgreSQL answers people: exact values, limits, cancel by the server's own list, transactions, notices, plans, memory."""

from __future__ import annotations

import datetime as dt
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.engines import connect
from dblens.engines.address import parse
from dblens.engines.asking import Asks, Limits, Odd
from dblens.errors import Cancelled, InvalidInput, TimedOut
from dblens.values.forms import Form
from tests.servers.fixtures import require

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "WITH RECURSIVE r AS (SELECT 1::bigint AS n UNION ALL SELECT n + 1 FROM r) SELECT n, 'endless' FROM r"
CELLS: tuple[tuple[str, object], ...] = (
    ("'-32768'::smallint", -32768),
    ("'-9223372036854775808'::bigint", -(2**63)),
    ("'-999.99'::numeric(5,2)", "-999.99"),
    ("'1.500'::numeric", "1.5"),
    ("'NaN'::numeric(5,2)", Odd("NaN", Form.DECIMAL)),
    ("'0.1'::real", 0.10000000149011612),
    ("'1.7976931348623157e308'::float8", 1.7976931348623157e308),
    ("true", True),
    ("'\\x00ff41'::bytea", b"\x00\xffA"),
    ("'NULL'::text", "NULL"),
    ("''::varchar(3)", ""),
    ("NULL::text", None),
    ("'2024-02-29'::date", dt.date(2024, 2, 29)),
    ("'infinity'::date", Odd("infinity", Form.DATE)),
    ("'24:00:00'::time", Odd("24:00:00", Form.TIME)),
    ("'2024-01-02 03:04:05.000001'::timestamp", dt.datetime(2024, 1, 2, 3, 4, 5, 1)),
    ("'2024-01-02 03:04:05+05'::timestamptz", dt.datetime(2024, 1, 1, 22, 4, 5, tzinfo=dt.UTC)),
    ("'1 year 2 days -00:00:01'::interval", "12 2 -1000000"),
    ("B'0101'", "0101"),
    ("ARRAY[1, NULL, 3]", "[1,null,3]"),
)


class Base:
    """A fresh database and sessions on it."""

    def __init__(self, name: str) -> None:
        self.url = require(name).create_database()
        self.sessions: list[Any] = []

    def asks(self) -> Asks:
        address, password = parse(self.url, allow_password=True)
        session = connect(address, password)
        self.sessions.append(session)
        assert session.engine.ask is not None
        return session.engine.ask(session)  # type: ignore[arg-type]


@pytest.fixture(params=["pg15", "pg18"])
def base(request: pytest.FixtureRequest) -> Iterator[Base]:
    made = Base(request.param)
    yield made
    for session in made.sessions:
        session.close()


def rows(asks: Asks, statement: str, **options: Any) -> list[tuple[Any, ...]]:
    with asks.ask(statement, **options) as answer:
        return [row for batch in answer.batches() for row in batch]


def test_values_are_exact(base: Base) -> None:
    (found,) = rows(base.asks(), "SELECT " + ", ".join(text for text, _ in CELLS))
    for (text, wanted), value in zip(CELLS, found, strict=True):
        plain = format(value, "f") if type(value).__name__ == "Decimal" else value
        assert (plain, type(plain)) == (wanted, type(wanted)), text


@pytest.mark.parametrize("seconds", [0.4])
def test_the_whole_operation_has_a_deadline(base: Base, seconds: float) -> None:
    asks, began = base.asks(), time.monotonic()
    for text in ("SELECT pg_sleep(30)", ENDLESS):
        with pytest.raises(TimedOut):
            rows(asks, text, limits=Limits(seconds=seconds))
    assert time.monotonic() - began < 4
    assert rows(asks, "SELECT 1") == [(1,)]


def test_a_generator_without_end_is_left_after_some_rows(base: Base) -> None:
    asks, began = base.asks(), time.monotonic()
    with asks.ask(ENDLESS, limits=Limits(rows=100)) as answer:
        assert len(next(answer.batches())) <= 100
    assert time.monotonic() - began < 2
    assert rows(asks, "SELECT 1") == [(1,)]


def cancels(base: Base, times: int) -> None:
    asks, other, watch = base.asks(), base.asks(), base.asks()
    seen = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%endless%' AND pid <> pg_backend_pid()"
    kept: list[Any] = []
    beside = threading.Thread(target=lambda: kept.extend(rows(other, f"SELECT 7 FROM pg_sleep({times / 5})")))
    beside.start()
    for _ in range(times):
        told: list[float] = []

        def stop(told: list[float] = told) -> None:
            told.append(time.monotonic())
            asks.cancel()

        timer = threading.Timer(random.uniform(0.0, 0.2), stop)
        with asks.ask(ENDLESS) as answer:  # no limit: nothing but the cancel ends it
            timer.start()
            with pytest.raises(Cancelled):
                sum(len(batch) for batch in answer.batches())
        while rows(watch, seen) != [(0,)]:
            assert time.monotonic() - told[0] < 1.0
        assert time.monotonic() - told[0] < 1.0
        timer.join()
        assert rows(asks, "SELECT 1") == [(1,)]
    beside.join()
    assert kept == [(7,)], "another session's query was stopped"


def test_cancel_reaches_the_server(base: Base) -> None:
    cancels(base, 10)


@pytest.mark.nightly
def test_cancel_reaches_the_server_a_hundred_times(base: Base) -> None:
    cancels(base, 100)


def test_a_cell_over_the_cap_is_refused_by_the_server(base: Base) -> None:
    with pytest.raises(InvalidInput, match="big"):
        rows(base.asks(), "SELECT repeat('x', 100000000) AS big", limits=Limits(cell=1_000_000))


def test_sixteen_hundred_columns(base: Base) -> None:
    (found,) = rows(base.asks(), "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1600)))
    assert found == tuple(range(1600))


def test_notices_and_plans(base: Base) -> None:
    asks = base.asks()
    with asks.ask("DO $$ BEGIN RAISE NOTICE 'hear'; END $$", read_only=False) as answer:
        assert list(answer.batches()) == []
        assert answer.notices == ("NOTICE: hear",)
    plan = asks.explain("SELECT * FROM generate_series(1, 10) g", analyze=True)
    assert plan.analyzed
    assert plan.tree.actual_rows == 10


# ----------------------------------------------------------------------------------------------------------------------- memory

_ALONE = """
import sys
from dblens.engines import connect
from dblens.engines.address import parse
from dblens.engines.asking import Limits
from dblens.errors import InvalidInput
from tests.memory import grown
url, password = parse(sys.argv[1], allow_password=True)
session = connect(url, password)
asks = session.engine.ask(session)
def read(statement):
    count, told = 0, ""
    try:
        with asks.ask(statement, limits=Limits(cell=64 * 1024)) as answer:
            for batch in answer.batches():
                count += len(batch)
    except InvalidInput as error:
        told = error.message
    return count, told
read(sys.argv[2])
with grown() as growth:
    count, told = read(sys.argv[3])
print(count, growth.kib, told)
"""
_MANY = "SELECT n, n * 2 AS m, 'text' AS s FROM generate_series(1, {}) n"


def alone(base: Base, statement: str, rows_wanted: int) -> str:
    """Ask it in a process of its own, which takes 64 MiB more for it at most; return what it was told."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, base.url, _MANY.format(20_000), statement],
        capture_output=True, text=True, timeout=500, check=True, cwd=ROOT,
    )  # fmt: skip
    count, more, told = (*done.stdout.split(maxsplit=2), "")[:3]
    assert int(count) == rows_wanted
    assert int(more) <= 64 * 1024, f"{more} KiB"
    print(f"{more} KiB more for {count} rows")
    return told


def test_a_million_rows_in_bounded_memory(base: Base) -> None:
    assert alone(base, _MANY.format(1_000_000), 1_000_000) == ""


@pytest.mark.nightly
def test_ten_million_rows_in_bounded_memory(base: Base) -> None:
    assert alone(base, _MANY.format(10_000_000), 10_000_000) == ""


@pytest.mark.nightly
def test_a_cell_of_a_gigabyte_is_told_in_bounded_memory(base: Base) -> None:
    told = alone(base, "SELECT repeat('x', 1000000000) AS big", 0)
    assert "big" in told
    assert "1000000000" in told.replace(",", "")
