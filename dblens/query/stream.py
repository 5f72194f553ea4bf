"""Rows as an Arrow IPC stream whose end is said in it: the last batch has no rows and tells `dblens.status` and `dblens.rows`.

Arrow's readers take the end of the bytes for the end of the stream, and proxies turn a broken answer into a whole one. So whoever reads
must see the last batch and compare the number of rows (`Reading` does). Several streams may follow each other, one per statement.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

from dblens.errors import DBLensError, EngineError, QueryFailed, Unsupported, revived
from dblens.redaction import scrub

MEDIA_TYPE: Final = "application/vnd.apache.arrow.stream"
STATUS: Final = b"dblens.status"
ROWS: Final = b"dblens.rows"
CODE: Final = b"dblens.code"
MESSAGE: Final = b"dblens.message"
RESULT: Final = b"dblens.result"
"""What is known of the statement, as JSON of `run.StatementResult`."""

Write = Callable[[bytes], object]


def library() -> Any:
    """Return pyarrow. Raises Unsupported when it is not installed."""
    try:
        import_module("pyarrow.ipc")
        return import_module("pyarrow")
    except ImportError:
        raise Unsupported("Arrow", "pyarrow is not installed", hint="pip install 'dblens[query]'") from None


class Stream:
    """A stream that is written as its batches come; without `end` or `fail` it is a stream that was cut off."""

    def __init__(self, schema: Any, write: Write) -> None:
        self._pa, self._schema, self._write = library(), schema, write
        self._buffer = io.BytesIO()
        self._writer = self._pa.ipc.new_stream(self._buffer, schema)
        self.rows = 0

    def batch(self, batch: Any) -> None:
        """Write a batch."""
        self._writer.write_batch(batch)
        self.rows += batch.num_rows
        self._flush()

    def end(self, told: Mapping[bytes, bytes] | None = None) -> None:
        """Say that this was all; `told` goes into the end."""
        self._last({STATUS: b"ok", **(told or {})})

    def fail(self, error: BaseException) -> None:
        """Say why there is no more. The text of an error that is none of DBLens's is not for a reader."""
        if isinstance(error, DBLensError):
            message = scrub(error.message).encode("utf-8", "replace")
            self._last({STATUS: b"error", CODE: error.code.encode(), MESSAGE: message})
        else:
            self._last({STATUS: b"error", CODE: b"error", MESSAGE: type(error).__name__.encode()})

    def _last(self, told: dict[bytes, bytes]) -> None:
        pa, schema = self._pa, self._schema
        empty = pa.RecordBatch.from_arrays([pa.array([], type=field.type) for field in schema], schema=schema)
        self._writer.write_batch(empty, custom_metadata={**told, ROWS: str(self.rows).encode()})
        self._writer.close()
        self._flush()

    def _flush(self) -> None:
        data = self._buffer.getvalue()
        if data:
            self._buffer.seek(0)
            self._buffer.truncate()
            self._write(data)


class Reading:
    """One stream, as it comes. `told` is what its end said, once it was read."""

    def __init__(self, source: Any) -> None:
        pa = self._pa = library()
        self.told: dict[bytes, bytes] | None = None
        self.rows = 0
        try:
            self._reader = pa.ipc.open_stream(source)
        except (pa.ArrowInvalid, OSError) as error:
            raise _cut(0) from error
        self.schema = self._reader.schema

    def batches(self) -> Iterator[Any]:
        """Yield the batches. Raises EngineError when the end is missing or counts other rows, and the error that it tells."""
        while (batch := self._next()) is not None:
            yield batch
        if self.told is None:
            raise _cut(self.rows)
        self._judge(self.told)

    def _next(self) -> Any:
        pa = self._pa
        try:
            while True:
                found = self._reader.read_next_batch_with_custom_metadata()
                told = dict(found.custom_metadata or {})
                if STATUS in told:
                    self.told = told
                    continue  # to the mark after it, so that the source stands where the next stream begins
                self.rows += found.batch.num_rows
                return found.batch
        except StopIteration:
            return None
        except (pa.ArrowInvalid, OSError) as error:
            raise _cut(self.rows) from error

    def _judge(self, told: dict[bytes, bytes]) -> None:
        if told[STATUS] != b"ok":
            message = told.get(MESSAGE, b"").decode("utf-8", "replace")
            code = told.get(CODE, b"").decode("ascii", "replace")
            error = revived(code, f"{message} (after {self.rows} rows)", None)
            raise error if isinstance(error, EngineError) else QueryFailed(error.message)
        if told.get(ROWS) != str(self.rows).encode():
            raise EngineError(f"{self.rows} rows came, not {told.get(ROWS, b'?').decode()}", hint="ask again")


def rows_of(source: Any) -> Iterator[Any]:
    """Yield the batches of one stream as they come. Raises what `Reading` raises."""
    return Reading(source).batches()


def readings(source: Any) -> Iterator[Reading]:
    """Yield the streams that follow each other; each is read to its end before the next. Raises what `Reading` raises."""
    held = source if hasattr(source, "at_end") else Source(source)
    while not held.at_end():
        reading = Reading(held.handle)
        yield reading
        if reading.told is None:
            for _ in reading.batches():
                pass


class Source:
    """Bytes in memory, or what has `read`, with a look at whether anything follows."""

    def __init__(self, source: Any) -> None:
        pa = library()
        octets = isinstance(source, bytes | bytearray | memoryview | pa.Buffer)
        self._memory = pa.BufferReader(source) if octets else None
        self._read = None if octets else source.read
        self._peeked = b""
        self.closed = False
        self.handle: Any = self._memory if octets else self
        """What Arrow reads from: memory is not copied."""

    def at_end(self) -> bool:
        """Return whether nothing follows; waits for the next byte."""
        if self._memory is not None:
            return bool(self._memory.tell() >= self._memory.size())
        if not self._peeked:
            self._peeked = self._read(1)  # type: ignore[misc]
        return not self._peeked

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes, fewer only at the end: Arrow takes less for a stream that was cut."""
        parts, self._peeked = [self._peeked] if self._peeked else [], b""
        left = size - sum(map(len, parts))
        while left > 0:
            part = self._read(left)  # type: ignore[misc]
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Arrow closes what it read from; the source is its maker's."""


def _cut(rows: int) -> EngineError:
    return EngineError(f"the rows were cut off after {rows}", hint="ask again: what came is not complete")
