"""A text runs statement by statement: bounds that do not lie, a stop that reaches the server, errors with their place."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest

from dblens.errors import Cancelled, InvalidInput, QueryFailed, TimedOut
from dblens.query import stream
from dblens.query.run import Ran, RunLimits, Running, StatementResult, run
from tests.unit.query.fakes import COLUMNS, Asks, Said, engine, until

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")


def rows(asks: Asks, statement: str) -> Any:
    """`select 250` has so many rows, `wait 3` takes so many seconds, `bad` fails, anything else changes 2 rows."""
    word, _, number = statement.partition(" ")
    match word:
        case "select":
            return Said(asks, rows=int(number.split()[0].strip("?") or 1))
        case "slow":
            return Said(asks, wait=float(number), rows=0)
        case "late":
            return Said(asks, rows=200, error=QueryFailed("division by zero"))
        case "bad":
            raise QueryFailed("no such table: x")
    return Said(asks, affected=2, notices=("careful",))


class Sink:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.flushed = 0

    def __call__(self, data: bytes) -> None:
        self.parts.append(data)

    def flush(self) -> None:
        self.flushed += 1

    def tables(self) -> list[list[dict[str, Any]]]:
        return [
            [{"id": row["id"], "text": row["text"]} for batch in reading.batches() for row in batch.to_pylist()]
            for reading in stream.readings(b"".join(self.parts))
        ]


def ran(text: str, sink: Any = None, asks: Asks | None = None, **more: Any) -> Ran:
    asks = asks or Asks(rows)
    return run(asks, engine(), text, write=sink or Sink(), **more)


def test_each_statement_has_its_result_and_its_stream() -> None:
    sink, heard = Sink(), list[StatementResult]()
    found = ran("select 3;\nupdate t set a = 1;\n\n select 2", sink, report=heard.append)
    assert [(each.number, each.rows, each.affected, each.truncated) for each in found.statements] == [
        (1, 3, None, ""), (2, 0, 2, ""), (3, 2, None, ""),
    ]  # fmt: skip
    assert [(each.start, each.end, each.line) for each in found.statements] == [(0, 8, 1), (10, 28, 2), (32, 40, 4)]
    assert heard == list(found.statements)
    assert found.statements[0].columns == COLUMNS
    assert found.statements[1].notices == ("careful",)
    assert [len(table) for table in sink.tables()] == [3, 2]
    assert sink.tables()[0][2] == {"id": 2, "text": "é2"}
    assert found.layers[0].name == "transaction"


@pytest.mark.parametrize(("limit", "came", "cut"), [(249, 249, "rows"), (250, 250, ""), (251, 250, ""), (0, 0, "rows")])
def test_the_cap_of_rows_asks_for_one_more(limit: int, came: int, cut: str) -> None:
    sink, asks = Sink(), Asks(rows)
    found = ran("select 250", sink, asks, limits=RunLimits(rows=limit)).statements[0]
    assert (found.rows, found.truncated) == (came, cut)
    assert len(sink.tables()[0]) == came
    assert asks.limits[0].rows == limit + 1
    told = next(iter(stream.readings(b"".join(sink.parts))))
    list(told.batches())
    assert told.told is not None
    assert msgspec.json.decode(told.told[stream.RESULT], type=StatementResult).truncated == cut
    assert asks.left == 1


def test_the_cap_of_octets_is_said() -> None:
    sink = Sink()
    found = ran("select 1000", sink, limits=RunLimits(rows=None, octets=5000)).statements[0]
    assert found.truncated == "octets"
    assert 0 < found.rows < 1000
    assert len(sink.tables()[0]) == found.rows


def test_an_answer_without_rows_has_a_stream_with_its_columns() -> None:
    sink = Sink()
    asks = Asks(lambda asks, _: Said(asks, wait=0.001))
    assert ran("select 0", sink, asks).statements[0].rows == 0
    reading = next(iter(stream.readings(b"".join(sink.parts))))
    assert reading.schema.names[:2] == ["id", "text"]


def test_each_batch_goes_on_at_once() -> None:
    sink = Sink()
    ran("select 250", sink)
    assert sink.flushed == 4  # and the end


def test_the_first_error_ends_it_and_tells_its_place() -> None:
    asks, sink = Asks(rows), Sink()
    with pytest.raises(QueryFailed, match=r"^statement 2 of 3 \(line 2\): no such table: x") as told:
        ran("select 3;\n bad;\nselect 2", sink, asks)
    assert told.value.statement == 2  # type: ignore[attr-defined]
    assert [each[0] for each in asks.asked] == ["select 3", "bad"]
    assert len(sink.tables()[0]) == 3
    with pytest.raises(QueryFailed, match=r"^no such table: x"):
        ran("bad")


def test_an_error_after_rows_is_in_the_stream_too() -> None:
    sink = Sink()
    with pytest.raises(QueryFailed, match="division by zero"):
        ran("late", sink)
    with pytest.raises(QueryFailed, match=r"division by zero \(after 200 rows\)"):
        sink.tables()


def test_parameters_are_looked_at_before_anything_runs() -> None:
    asks = Asks(rows)
    for params, why in (({}, "no value for :b"), ({"b": 1, "c": 2}, "no parameter 'c'")):
        with pytest.raises(InvalidInput, match=why):
            ran("select 3; select :b", asks=asks, params=params)
    assert asks.asked == []
    ran("select 3; update t set a = :a where b = :b; delete from t where a = :a", asks=asks, params={"a": 1, "b": "x"})
    assert [each[1] for each in asks.asked] == [(), (1, "x"), (1,)]


def test_nothing_to_run() -> None:
    for text in ("", " ;; ", "-- nothing"):
        with pytest.raises(InvalidInput, match="no statement"):
            ran(text)


def test_it_is_stopped_from_another_thread() -> None:
    asks = Asks(rows)
    running = Running()
    threading.Timer(0.1, running.stop).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled, match=r"^statement 2 of 3"):
        ran("select 2; slow 30; select 2", asks=asks, running=running)
    assert time.monotonic() - begun < 1
    assert asks.cancels >= 1
    assert [each[0] for each in asks.asked] == ["select 2", "slow 30"]
    before = asks.cancels
    assert running.stop()
    assert asks.cancels == before  # the session is somebody else's now


def test_a_stop_that_comes_before_the_statement_still_stops_it() -> None:
    """The server forgets a cancel that finds nothing at work: it is said again until it is over."""
    asks = Asks(rows)
    running = Running()
    begin = threading.Event()

    def script(asks: Asks, statement: str) -> Any:
        begin.set()
        time.sleep(0.15)  # on its way to the server
        asks.stopped.clear()
        return rows(asks, statement)

    asks.script = script
    threading.Thread(target=lambda: begin.wait() and running.stop(), daemon=True).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        ran("slow 30", asks=asks, running=running)
    assert time.monotonic() - begun < 1
    assert asks.cancels >= 2


def test_what_was_stopped_before_it_began_does_not_begin() -> None:
    asks, running = Asks(rows), Running()
    running.stop(patience=0.01)
    with pytest.raises(Cancelled):
        ran("select 1", asks=asks, running=running)
    assert asks.asked == []


@pytest.mark.parametrize("text", ["slow 30", "select 2; slow 30"])
def test_the_deadline_is_of_the_whole(text: str) -> None:
    asks = Asks(rows)
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        ran(text, asks=asks, limits=RunLimits(seconds=0.2))
    assert 0.15 < time.monotonic() - begun < 1
    assert asks.cancels >= 1
    assert asks.limits[-1].seconds is not None
    assert asks.limits[-1].seconds <= 0.2


def test_many_short_batches_do_not_outlive_the_deadline() -> None:
    """A server's own timeout counts each fetch anew."""
    asks = Asks(lambda asks, _: Said(asks, rows=500, batch=1, wait=0.01))
    asks.cancel = lambda: None  # type: ignore[method-assign]
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        ran("select 1", asks=asks, limits=RunLimits(rows=None, seconds=0.3))
    assert time.monotonic() - begun < 1


def test_an_interrupt_stops_it_on_the_server() -> None:
    asks = Asks(rows)

    def script(asks: Asks, statement: str) -> Any:
        raise KeyboardInterrupt

    asks.script = script
    with pytest.raises(KeyboardInterrupt):
        ran("select 1", asks=asks)
    assert asks.cancels == 1


def test_tag_and_way_go_to_the_session() -> None:
    asks = Asks(rows)
    ran("select 1", asks=asks, read_only=False, tag="dblens user=ann")
    assert asks.asked == [("select 1", (), False, "dblens user=ann")]
    assert until(lambda: threading.active_count() < 50)
