"""Rows as an Arrow IPC stream whose end is said in it: the last batch has no rows and tells `dblens.status` and `dblens.rows`.

Arrow's readers take the end of the bytes for the end of the stream, and proxies turn a broken answer into a whole one. So whoever reads
must see the last batch and compare the number of rows (`rows_of` does).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, Final

from dblens.errors import Cancelled, DBLensError, EngineError, QueryFailed, Unsupported
from dblens.redaction import scrub

MEDIA_TYPE: Final = "application/vnd.apache.arrow.stream"
STATUS: Final = b"dblens.status"
ROWS: Final = b"dblens.rows"
CODE: Final = b"dblens.code"
MESSAGE: Final = b"dblens.message"


def library() -> Any:
    """Return pyarrow. Raises Unsupported when it is not installed."""
    try:
        import_module("pyarrow.ipc")
        return import_module("pyarrow")
    except ImportError:
        raise Unsupported("Arrow", "pyarrow is not installed", hint="pip install pyarrow") from None


def streamed(schema: Any, batches: Iterable[Any]) -> Iterator[bytes]:
    """Yield a stream of batches and its end. An error on the way is the end's, so that the answer itself ends well.

    Closing the iterator closes the batches: they hold a cursor.
    """
    pa = library()
    buffer = io.BytesIO()
    writer = pa.ipc.new_stream(buffer, schema)
    rows, end = 0, {STATUS: b"ok"}
    try:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            yield _taken(buffer)
    except DBLensError as error:
        end = {STATUS: b"error", CODE: error.code.encode(), MESSAGE: scrub(error.message).encode("utf-8", "replace")}
    except Exception as error:  # noqa: BLE001 - its text is not for a client
        end = {STATUS: b"error", CODE: b"error", MESSAGE: type(error).__name__.encode()}
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
    empty = schema.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]
    writer.write_batch(empty[0], custom_metadata={**end, ROWS: str(rows).encode()})
    writer.close()
    yield _taken(buffer)


def rows_of(source: Any) -> Iterator[Any]:
    """Yield the batches of a stream as they come. Raises EngineError when its end is missing or counts other rows, and the error it tells."""
    pa = library()
    rows, ended = 0, False
    try:
        reader = pa.ipc.open_stream(source)
        while True:
            try:
                found = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
            told = dict(found.custom_metadata or {})
            if STATUS in told:
                _judge(told, rows)
                ended = True
            else:
                rows += found.batch.num_rows
                yield found.batch
    except (pa.ArrowInvalid, OSError) as error:
        raise EngineError(f"the rows were cut off after {rows}", hint="ask again") from error
    if not ended:
        raise EngineError(f"the rows were cut off after {rows}", hint="ask again: what came is not complete")


def _judge(told: dict[bytes, bytes], rows: int) -> None:
    if told[STATUS] != b"ok":
        message = told.get(MESSAGE, b"").decode("utf-8", "replace")
        kind = Cancelled if told.get(CODE) == b"engine.cancelled" else QueryFailed
        raise kind(f"the query failed after {rows} rows: {message}")
    if told.get(ROWS) != str(rows).encode():
        raise EngineError(f"{rows} rows came, not {told.get(ROWS, b'?').decode()}", hint="ask again")


def _taken(buffer: io.BytesIO) -> bytes:
    data = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return data
