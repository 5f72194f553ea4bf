"""Rows that come as an Arrow stream, piece by piece, straight into a file's writer: no thread, nothing held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dblens.engines import arrow


class Unpacked:
    """A sink of `query.run`: it takes the octets of one Arrow stream in whole messages and hands over schema and batches."""

    def __init__(self, begin: Callable[[Any], Callable[[Any], object]]) -> None:
        self._begin = begin
        self._take: Callable[[Any], object] | None = None
        self._schema: Any = None

    def __call__(self, data: bytes) -> int:
        """Take messages. `begin` gets the schema and returns what takes the batches."""
        pa = arrow.library()
        reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(data))
        while (message := _next(reader)) is not None:
            if message.type == "schema":
                self._schema = pa.ipc.read_schema(message)
                self._take = self._begin(self._schema)
            else:
                if self._take is None:  # `begin` refused, and the stream goes on to say that it failed
                    break
                batch = pa.ipc.read_record_batch(message, self._schema)
                if batch.num_rows:
                    self._take(batch)
        return len(data)


def _next(reader: Any) -> Any:
    try:
        return reader.read_next_message()
    except StopIteration:
        return None
