"""An Arrow stream says its end: what was cut, miscounted or failed is never taken for the whole (attack 30)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from dblens.api import arrow
from dblens.errors import Cancelled, EngineError, QueryFailed

pa = pytest.importorskip("pyarrow")
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def batches(number: int, fail: Exception | None = None, closed: list[bool] | None = None) -> Iterator[Any]:
    try:
        for at in range(number):
            yield pa.record_batch({"id": [at, at + 1], "text": ["é", None]}, schema=SCHEMA)
        if fail is not None:
            raise fail
    finally:
        if closed is not None:
            closed.append(True)


def whole(number: int, fail: Exception | None = None) -> bytes:
    return b"".join(arrow.streamed(SCHEMA, batches(number, fail)))


@pytest.mark.parametrize("number", [0, 1, 5])
def test_round_trip(number: int) -> None:
    found = list(arrow.rows_of(io.BytesIO(whole(number))))
    assert [batch.num_rows for batch in found] == [2] * number
    assert all(batch.schema == SCHEMA for batch in found)


def test_any_reader_of_arrow_understands_it() -> None:
    assert pa.ipc.open_stream(whole(3)).read_all().num_rows == 6


@pytest.mark.parametrize(
    ("error", "kind"), [(QueryFailed("division by zero"), QueryFailed), (Cancelled("c"), Cancelled)]
)
def test_a_late_error_is_raised_after_the_rows(error: Exception, kind: type[Exception]) -> None:
    found = []
    with pytest.raises(kind, match="after 4 rows"):
        found.extend(arrow.rows_of(io.BytesIO(whole(2, error))))
    with pytest.raises(QueryFailed) as told:
        list(arrow.rows_of(io.BytesIO(whole(2, ValueError("canary password=hunter2")))))
    assert "canary" not in str(told.value)


def test_what_was_cut_anywhere_is_noticed() -> None:
    data = whole(3)
    for cut in range(0, len(data), 7):
        with pytest.raises(EngineError):
            list(arrow.rows_of(io.BytesIO(data[:cut])))


def test_rows_that_are_missing_are_counted() -> None:
    """Somebody on the way who drops a batch but keeps the end."""
    parts = list(arrow.streamed(SCHEMA, batches(3)))
    with pytest.raises(EngineError, match="4 rows came, not 6"):
        list(arrow.rows_of(io.BytesIO(parts[0] + parts[2] + parts[3])))


def test_a_stream_of_others_has_no_end() -> None:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(next(batches(1)))
    with pytest.raises(EngineError, match="cut off after 2"):
        list(arrow.rows_of(io.BytesIO(sink.getvalue())))


def test_closing_it_closes_the_cursor() -> None:
    closed: list[bool] = []
    flow = arrow.streamed(SCHEMA, batches(5, closed=closed))
    next(flow)
    flow.close()  # type: ignore[attr-defined]
    assert closed == [True]
