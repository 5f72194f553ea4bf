"""Parquet and Arrow files: the batches as they are, with what their schema tells."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from dblens.engines import arrow
from dblens.query.export.model import Losses, Options
from dblens.query.export.sink import Sink

_NULL: Final = "NULL, because the column's type cannot hold it; the style `exact` keeps it in a column of its own"
_GROUP_ROWS: Final = 131_072
_GROUP_OCTETS: Final = 8 * 1024 * 1024


class _Columnar:
    def __init__(self, schema: Any, style: str | None) -> None:
        self.losses, self.keys = Losses(), ()
        self._columns, self._rows = arrow.outs(schema), 0
        self._cut = style == "safe" and len(schema) > 0 and arrow.is_odd(schema.field(len(schema) - 1))
        self.schema = arrow.distinctly(schema.remove(len(schema) - 1) if self._cut else schema)

    def _kept(self, batch: Any) -> Any:
        if not self._cut:
            self._rows += batch.num_rows
            return arrow.library().RecordBatch.from_arrays(batch.columns, schema=self.schema)
        for row, found in arrow.odds_of(batch).items():
            for number in found:
                self.losses.add(self._columns[number].name, _NULL, 1, self._rows + row + 1)
        self._rows += batch.num_rows
        return arrow.library().RecordBatch.from_arrays(batch.columns[:-1], schema=self.schema)


class Parquet(_Columnar):
    """Row groups of some 8 MiB, each page with its checksum, compressed by zstd."""

    def __init__(self, schema: Any, sink: Sink, options: Options) -> None:
        super().__init__(schema, options.style)
        self._writer = import_module("pyarrow.parquet").ParquetWriter(
            arrow.library().PythonFile(sink, mode="w"), self.schema, compression="zstd", write_page_checksum=True
        )
        self._held: list[Any] = []

    def batch(self, batch: Any) -> None:
        """Hold a batch until a row group is full."""
        self._held.append(self._kept(batch))
        full = sum(b.nbytes for b in self._held) >= _GROUP_OCTETS
        if full or sum(b.num_rows for b in self._held) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(arrow.library().Table.from_batches(self._held, schema=self.schema), 1_048_576)
            self._held.clear()

    def end(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._writer.close()


class ArrowFile(_Columnar):
    """The batches one by one, not compressed: any reader of Arrow maps them into memory."""

    def __init__(self, schema: Any, sink: Sink, options: Options) -> None:
        super().__init__(schema, options.style)
        pa = arrow.library()
        self._writer = pa.ipc.new_file(pa.PythonFile(sink, mode="w"), self.schema)

    def batch(self, batch: Any) -> None:
        """Write a batch."""
        self._writer.write_batch(self._kept(batch))

    def end(self) -> None:
        """Write the footer."""
        self._writer.close()
