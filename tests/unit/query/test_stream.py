"""An Arrow stream says its end: what was cut, miscounted or failed is never taken for the whole (attack 30)."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dblens.errors import Cancelled, EngineError, QueryFailed
from dblens.query import stream

pa = pytest.importorskip("pyarrow")
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def batch(at: int) -> Any:
    return pa.record_batch({"id": [at, at + 1], "text": ["é", None]}, schema=SCHEMA)


def whole(number: int, fail: Exception | None = None) -> bytes:
    parts: list[bytes] = []
    made = stream.Stream(SCHEMA, parts.append)
    for at in range(number):
        made.batch(batch(at))
    if fail is None:
        made.end({stream.RESULT: b"{}"})
    else:
        made.fail(fail)
    return b"".join(parts)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_round_trip(number: int) -> None:
    found = list(stream.rows_of(io.BytesIO(whole(number))))
    assert [batch.num_rows for batch in found] == [2] * number
    assert all(batch.schema == SCHEMA for batch in found)


def test_any_reader_of_arrow_understands_it() -> None:
    assert pa.ipc.open_stream(whole(3)).read_all().num_rows == 6


def test_each_batch_is_handed_on_at_once() -> None:
    parts: list[bytes] = []
    made = stream.Stream(SCHEMA, parts.append)
    made.batch(batch(0))
    assert len(parts) == 1
    reader = pa.ipc.open_stream(b"".join(parts))
    assert reader.read_next_batch().num_rows == 2


@pytest.mark.parametrize(
    ("error", "kind"), [(QueryFailed("division by zero"), QueryFailed), (Cancelled("c"), Cancelled)]
)
def test_a_late_error_is_raised_after_the_rows(error: Exception, kind: type[Exception]) -> None:
    found = []
    with pytest.raises(kind, match="after 4 rows"):
        found.extend(stream.rows_of(io.BytesIO(whole(2, error))))
    with pytest.raises(QueryFailed) as told:
        list(stream.rows_of(io.BytesIO(whole(2, ValueError("canary password=hunter2")))))
    assert "canary" not in str(told.value)


def test_what_was_cut_anywhere_is_noticed() -> None:
    data = whole(3)
    for cut in range(0, len(data), 7):
        with pytest.raises(EngineError):
            list(stream.rows_of(io.BytesIO(data[:cut])))


def test_rows_that_are_lost_on_the_way_are_noticed() -> None:
    parts: list[bytes] = []
    made = stream.Stream(SCHEMA, parts.append)
    made.batch(batch(0))
    made.batch(batch(1))
    made.end()
    del parts[1]
    with pytest.raises(EngineError, match="2 rows came, not 4"):
        list(stream.rows_of(io.BytesIO(b"".join(parts))))


class Trickle:
    """Gives a few bytes at a time, as a network does."""

    def __init__(self, data: bytes) -> None:
        self.left = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.left.read(min(size, 5))


@pytest.mark.parametrize("kind", [bytes, pa.py_buffer, io.BytesIO, Trickle])
def test_streams_one_after_the_other(kind: Any) -> None:
    found = []
    for reading in stream.readings(kind(whole(2) + whole(0) + whole(1))):
        found.append(sum(batch.num_rows for batch in reading.batches()))
        assert reading.told is not None
        assert reading.told[stream.RESULT] == b"{}"
    assert found == [4, 0, 2]


def test_a_stream_that_is_not_read_is_passed_over() -> None:
    assert len(list(stream.readings(whole(2) + whole(1)))) == 2


def test_of_several_streams_the_last_one_is_cut() -> None:
    data = whole(2) + whole(1)
    for cut in range(len(whole(2)) + 1, len(data), 7):
        with pytest.raises(EngineError):
            list(stream.readings(data[:cut]))


def test_a_stream_of_others_has_no_end() -> None:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch(0))
    with pytest.raises(EngineError, match="cut off after 2"):
        list(stream.rows_of(io.BytesIO(sink.getvalue())))
