"""The work: batches into a format's writer, with progress, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

import msgspec

from dblens.engines import arrow
from dblens.errors import InvalidInput
from dblens.events import Progress, Report, silent
from dblens.query.export.model import TEXTS, Exported, Format, Options, Sidecar
from dblens.query.export.sink import Sink, Write, Writer
from dblens.values.forms import CODEC_VERSION

_WRITERS: Final = {
    "csv": ("delimited", "Delimited"),
    "tsv": ("delimited", "Delimited"),
    "jsonl": ("jsonlines", "JsonLines"),
    "parquet": ("columnar", "Parquet"),
    "arrow": ("columnar", "ArrowFile"),
    "xlsx": ("xlsx", "Xlsx"),
}
_PAUSE: Final = 0.5


class Export:
    """One file as it is written: batch by batch, then `end`. Nothing is held but what a format must hold."""

    def __init__(
        self, write: Write, schema: Any, format: Format, options: Options = Options(), report: Report = silent
    ) -> None:
        self._format, self._options, self._report = format, options.of(format), report
        self.columns = arrow.outs(schema)
        if not self.columns:
            raise InvalidInput("there is nothing to export: the statement returns no rows", hint="export a query")
        self._sink, self.rows = Sink(write), 0
        module, name = _WRITERS[format]
        made = getattr(import_module(f"dblens.query.export.{module}"), name)
        self._writer: Writer = made(schema, self._sink, self._options)
        self._begun = self._told = time.monotonic()

    def batch(self, batch: Any) -> None:
        """Write the rows of a batch. Raises InvalidInput for what the format cannot hold at all."""
        self._writer.batch(batch)
        self.rows += batch.num_rows
        if time.monotonic() - self._told >= _PAUSE:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._report(Progress(task="export", done=self.rows))
        self._report(Progress(task="export", done=self._sink.tell(), unit="octets"))

    def end(self) -> Exported:
        """Write what comes last and return what came of it."""
        self._writer.end()
        self._tell()
        style = self._options.style
        assert style is not None
        made = Exported(
            format=self._format,
            style=style,
            rows=self.rows,
            octets=self._sink.tell(),
            sha256=self._sink.digest(),
            columns=self.columns,
            losses=self._writer.losses.all(),
            seconds=round(time.monotonic() - self._begun, 3),
        )
        if style == "safe" or self._format not in TEXTS:
            return made
        beside = Sidecar(
            codec=CODEC_VERSION,
            format=self._format,
            columns=self.columns,
            keys=self._writer.keys,
            separator=self._options.separator,
            rows=self.rows,
            sha256=made.sha256,
        )
        text = msgspec.json.format(msgspec.json.encode(beside), indent=2).decode() + "\n"
        return msgspec.structs.replace(made, sidecar=text)


def write(
    batches: Iterable[Any],
    schema: Any,
    write: Write,
    format: Format,
    options: Options = Options(),
    report: Report = silent,
) -> Exported:
    """Write batches of one schema (a pyarrow.Schema, or the columns of an answer) as a file and return what came of it."""
    made = Export(write, schema if hasattr(schema, "names") else arrow.schema_of(schema), format, options, report)
    for batch in batches:
        made.batch(batch)
    return made.end()
