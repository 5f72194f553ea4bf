"""Parquet, Arrow files and tables in memory: columns that have types. What Arrow nests becomes JSON, durations become intervals."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import Any, Final

from dblens.engines import arrow
from dblens.engines.asking import Out
from dblens.engines.files.model import Bad, Batch, distinct
from dblens.engines.files.octets import Opened
from dblens.errors import ArchiveCorrupt, InvalidInput, Unsupported
from dblens.schema.types import Interval, Json, Uuid
from dblens.values.forms import Form

ROWS: Final = 16_384
_CUT: Final = "a text told by --type keeps the digits"
Batches = Callable[[], Iterator[Any]]


class Columnar:
    """Record batches; each call of `make` begins anew."""

    def __init__(self, schema: Any, make: Batches, rows: int | None) -> None:
        self._make, self._total, self._done = make, rows, 0
        self.bad: list[Bad] = []
        self.kinds: dict[str, int] = {}
        self.told = True
        fields = [field for field in schema if not arrow.is_odd(field)]
        distinct([field.name for field in fields], "rename one of them")
        outs = arrow.outs(schema)
        self._steps = [_step(field) for field in fields]
        self.columns = tuple(step.out or out for step, out in zip(self._steps, outs, strict=True))
        if not self.columns:
            raise InvalidInput("there are no columns", hint="load what has some")

    def seen(self) -> tuple[int, int | None]:
        return self._done, self._total

    def batches(self, *, verifier: bool = False) -> Iterator[Batch]:  # noqa: ARG002 - the columns have their types
        first = 0
        width = len(self.columns)
        for batch in self._make():
            arrays = [
                step.change(batch.column(n), column.name)
                for n, (step, column) in enumerate(zip(self._steps, self.columns, strict=True))
            ]
            odds = arrow.odds_of(batch) if batch.num_columns > width else {}
            yield Batch(first, batch.num_rows, arrays, partial(_place, batch, first), odds)
            first += batch.num_rows
            self._done = first


def _place(batch: Any, first: int, row: int) -> tuple[int, str]:
    cells = batch.slice(row, 1).to_pylist()[0]
    return first + row + 1, json.dumps(cells, default=str, ensure_ascii=False)


class _Step:
    """What a column's arrays go through, and what the column then is (None: as its field says)."""

    def __init__(self, change: Callable[[Any, str], Any], out: Out | None = None) -> None:
        self.change, self.out = change, out


def _step(field: Any) -> _Step:
    pa, kind = arrow.library(), field.type
    types = pa.types
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return _Step(_uuid, Out(name=field.name, type=Uuid(), native="uuid", form=Form.UUID))
    if isinstance(kind, pa.BaseExtensionType):
        told = kind.extension_name == "arrow.json"
        inner = _step(pa.field(field.name, kind.storage_type))
        out = Out(name=field.name, type=Json(normalised=False), native="json", form=Form.JSON) if told else inner.out
        return _Step(lambda values, name: inner.change(values.storage, name), out)
    if types.is_dictionary(kind):
        inner = _step(pa.field(field.name, kind.value_type))
        return _Step(lambda values, name: inner.change(values.dictionary_decode(), name), inner.out)
    if types.is_run_end_encoded(kind):
        inner = _step(pa.field(field.name, kind.value_type))
        return _Step(lambda values, name: inner.change(pa.compute.run_end_decode(values), name), inner.out)
    if types.is_nested(kind):
        return _Step(_json, Out(name=field.name, type=Json(normalised=False), native=str(kind), form=Form.JSON))
    if types.is_duration(kind) or types.is_interval(kind):
        out = Out(name=field.name, type=Interval(), native=str(kind), form=Form.INTERVAL)
        return _Step(_spans if types.is_interval(kind) else _durations, out)
    if types.is_null(kind):
        return _Step(lambda values, _: values.cast(pa.utf8()))
    if types.is_string_view(kind) or types.is_large_string(kind):
        return _Step(lambda values, name: _narrow(values, pa.utf8(), name))
    if types.is_binary_view(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _Step(lambda values, name: _narrow(values, pa.binary(), name))
    if types.is_float16(kind):
        return _Step(lambda values, _: values.cast(pa.float32()))
    if types.is_timestamp(kind):
        return _Step(partial(_micro, pa.timestamp("us", tz=kind.tz)))
    if types.is_time(kind):
        return _Step(partial(_micro, pa.time64("us")))
    if types.is_date64(kind):
        return _Step(lambda values, _: values.cast(pa.date32()))
    return _Step(lambda values, _: values)


def _narrow(values: Any, kind: Any, name: str) -> Any:
    try:
        return values.cast(kind)
    except arrow.library().ArrowInvalid as error:
        raise InvalidInput(
            f"column {name!r} holds more than 2 GiB in one batch", hint="write smaller row groups"
        ) from error


def _micro(kind: Any, values: Any, name: str) -> Any:
    """Return moments in microseconds, which is what databases hold. Raises InvalidInput for finer ones, and beyond the years."""
    try:
        return values.cast(kind)
    except arrow.library().ArrowInvalid as error:
        raise InvalidInput(
            f"column {name!r} holds moments that are finer than microseconds, or out of range: {error}",
            hint="round them, or load them as texts",
        ) from error


def _uuid(values: Any, _name: str) -> Any:
    import uuid

    pa = arrow.library()
    found = [None if v is None else str(uuid.UUID(bytes=v)) for v in values.storage.to_pylist()]
    return pa.array(found, pa.utf8())


def _durations(values: Any, name: str) -> Any:
    pa = arrow.library()
    try:
        micros = values.cast(pa.duration("us")).cast(pa.int64()).to_pylist()
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"column {name!r} holds durations finer than microseconds", hint="round them") from error
    return pa.array([None if v is None else f"0 0 {v}" for v in micros], pa.utf8())


def _spans(values: Any, name: str) -> Any:
    pa = arrow.library()
    found = []
    for value in values.to_pylist():
        if value is not None and value.nanoseconds % 1000:
            raise InvalidInput(f"column {name!r} holds intervals finer than microseconds", hint="round them")
        found.append(None if value is None else f"{value.months} {value.days} {value.nanoseconds // 1000}")
    return pa.array(found, pa.utf8())


class _Exact(str):
    """A number in its own digits, within JSON."""

    __slots__ = ()


def _json(values: Any, name: str) -> Any:
    pa = arrow.library()
    try:
        found = [None if v is None else _json_text(v) for v in values.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowInvalid) as error:
        raise InvalidInput(
            f"column {name!r} holds what JSON cannot: {error}", hint="leave it out, or flatten it"
        ) from error
    return pa.array(found, pa.utf8())


def _json_text(value: Any) -> str:
    match value:
        case None | bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            return (
                "{"
                + ",".join(f"{json.dumps(str(k), ensure_ascii=False)}:{_json_text(v)}" for k, v in value.items())
                + "}"
            )
        case tuple() | list():
            return "[" + ",".join(map(_json_text, value)) + "]"
        case int():
            return str(value)
        case float():
            if value - value != 0:
                raise ValueError(f"{value} is no number of JSON")
            return repr(value)
        case Decimal():
            return format(value, "f")
        case bytes():
            return json.dumps(base64.b16encode(value).decode().lower())
        case dt.datetime() | dt.date() | dt.time():
            return json.dumps(value.isoformat())
    raise ValueError(f"a {type(value).__name__}")


# ------------------------------------------------------------------------------------------------------------------- files


def parquet(opened: Opened) -> Columnar:
    """Read a Parquet file. Raises ArchiveCorrupt."""
    pq = import_module("pyarrow.parquet")
    pa = arrow.library()
    try:
        told = pq.ParquetFile(opened.path)
        schema, rows = told.schema_arrow, told.metadata.num_rows
        told.close()
    except (pa.ArrowException, OSError) as error:
        raise _broken(opened, "Parquet", error) from error

    def batches() -> Iterator[Any]:
        try:
            with pq.ParquetFile(opened.path, page_checksum_verification=True) as file:
                yield from file.iter_batches(batch_size=ROWS, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _broken(opened, "Parquet", error) from error

    return Columnar(schema, batches, rows)


def ipc(opened: Opened) -> Columnar:
    """Read an Arrow file, or an Arrow stream in a file. Raises ArchiveCorrupt."""
    pa = arrow.library()

    def streamed(source: Any) -> tuple[Any, Iterator[Any]]:
        try:
            file = pa.ipc.open_file(source)
            return file.schema, (file.get_batch(n) for n in range(file.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            return stream.schema, iter(stream)

    try:
        with pa.OSFile(str(opened.path)) as source:
            schema = streamed(source)[0]
    except (pa.ArrowException, OSError) as error:
        raise _broken(opened, "Arrow", error) from error

    def batches() -> Iterator[Any]:
        try:
            with pa.OSFile(str(opened.path)) as source:
                for batch in streamed(source)[1]:
                    yield from _small(batch)
        except (pa.ArrowException, OSError) as error:
            raise _broken(opened, "Arrow", error) from error

    return Columnar(schema, batches, None)


def _small(batch: Any) -> Iterator[Any]:
    for at in range(0, batch.num_rows, ROWS):
        yield batch.slice(at, ROWS)


def _broken(opened: Opened, what: str, error: Exception) -> ArchiveCorrupt:
    return ArchiveCorrupt(f"{str(opened.path)!r} is no whole {what} file: {error}", hint="write it again")


# --------------------------------------------------------------------------------------------------------------- in memory


def memory(source: Any) -> Columnar:
    """Read a table, record batch, DataFrame of pandas or polars, a list of dicts, or anything with an Arrow stream.

    Of pandas the index is left out, and NaN is NULL, because it is what pandas writes for nothing. Raises InvalidInput, Unsupported.
    """
    table = _table(source)
    return Columnar(table.schema, lambda: iter(table.to_batches(max_chunksize=ROWS)), table.num_rows)


def _table(source: Any) -> Any:
    pa = arrow.library()
    module = type(source).__module__.partition(".")[0]
    try:
        if isinstance(source, pa.Table):
            return source
        if isinstance(source, pa.RecordBatch):
            return pa.Table.from_batches([source])
        if isinstance(source, pa.RecordBatchReader):
            return source.read_all()
        if module == "pandas":
            return pa.Table.from_pandas(source, preserve_index=False)
        if module == "polars":
            return (source.collect() if hasattr(source, "collect") else source).to_arrow()
        if isinstance(source, list) and all(isinstance(row, dict) for row in source):
            return _rows(source)
        if hasattr(source, "__arrow_c_stream__"):
            return pa.table(source)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"the {type(source).__name__} is no table of typed columns: {error}", hint="give every column one type"
        ) from error
    raise Unsupported(
        f"loading a {type(source).__name__}", "a file's path, a table of Arrow, or a DataFrame of pandas or polars is"
    )


def _rows(source: list[dict[str, Any]]) -> Any:
    names = dict.fromkeys(str(name) for row in source for name in row)
    return arrow.library().table({name: [row.get(name) for row in source] for name in names})
