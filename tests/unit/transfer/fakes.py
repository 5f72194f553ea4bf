"""Sessions over rows in memory: what `transfer` needs of an engine, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from dblens.engines.base import Block, Chunk, Field, Format
from dblens.schema.model import Column, Key, Table
from dblens.schema.types import DataType, Integer, Text
from dblens.transfer.verify import Side
from dblens.values.codec import canonical
from dblens.values.digest import Accumulator, Fingerprint, bucket_of, row_digest
from dblens.values.forms import Form

Row = tuple[Any, ...]
TYPES: dict[Form, DataType] = {Form.INT: Integer(), Form.TEXT: Text()}


def column(name: str, form: Form = Form.TEXT, type: DataType | None = None) -> Column:
    return Column(name=name, type=type or TYPES.get(form, Text()), native="x")


def fields(*specs: tuple[str, Form]) -> tuple[Field, ...]:
    return tuple(Field(column=column(name, form), form=form) for name, form in specs)


class Memory:
    """A session on one table. `native_json`: the engine's own JSON text, hashed until somebody asks for `exact`."""

    def __init__(
        self, rows: Iterable[Row], native_json: Callable[[str], str] | None = None, engine: str = "fake"
    ) -> None:
        self.stored = list(rows)
        self.engine = SimpleNamespace(name=engine)
        self.native_json = native_json
        self.reads: list[frozenset[int] | None] = []
        self.digests: list[bool] = []
        self.whole_reads = 0
        self.threads: set[int] = set()

    def _texts(self, fields: Sequence[Field], exact: bool) -> Iterator[tuple[bytes | None, ...]]:
        self.threads.add(threading.get_ident())
        for row in self.stored:
            yield tuple(
                self.native_json(value).encode()
                if self.native_json and field.form == Form.JSON and not exact and value is not None
                else canonical(field.form, value)
                for field, value in zip(fields, row, strict=True)
            )

    def fingerprint(self, _table: Table, fields: Sequence[Field], *, exact: bool = False, **_more: Any) -> Fingerprint:
        self.digests.append(exact)
        sums = Accumulator()
        sums.add_rows(self._texts(fields, exact))
        return sums.fingerprint()

    def canonical_rows(
        self,
        _table: Table,
        fields: Sequence[Field],
        *,
        buckets: frozenset[int] | None = None,
        exact: bool = False,
        **_more: Any,
    ) -> Iterator[tuple[bytes | None, ...]]:
        self.reads.append(buckets)
        self.whole_reads += buckets is None
        hashed = self._texts(fields, exact=False)
        for texts, shown in zip(hashed, self._texts(fields, exact), strict=True):
            if buckets is None or bucket_of(row_digest(texts)) in buckets:
                yield shown


class Reader(Memory):
    """A source: offers its rows in the given formats, a few at a time."""

    def __init__(self, rows: Iterable[Row], formats: tuple[Format, ...] = ("rows",), step: int = 3) -> None:
        super().__init__(rows)
        self.formats, self.step, self.closed = formats, step, False

    def formats_out(self, _table: Table, _fields: Sequence[Field]) -> tuple[Format, ...]:
        return self.formats

    def export(self, _table: Table, _fields: Sequence[Field], fmt: Format, **_more: Any) -> Generator[Block]:
        try:
            for start in range(0, len(self.stored), self.step):
                part = self.stored[start : start + self.step]
                data: Any = part if fmt == "rows" else b"".join(repr(r).encode() + b"\n" for r in part)
                yield Block(data=data, size=64, rows=len(part))
        finally:
            self.closed = True


class Writer(Memory):
    """A target: keeps what it is given."""

    def __init__(self, formats: tuple[Format, ...] = ("rows",), fail_after: int | None = None) -> None:
        super().__init__(())
        self.formats, self.fail_after = formats, fail_after
        self.chunks: list[tuple[Chunk, Format, bool]] = []
        self.seen: list[Field] = []

    def formats_in(self, _table: Table, _fields: Sequence[Field]) -> tuple[Format, ...]:
        return self.formats

    def load(
        self,
        _place: tuple[str, str],
        fields: Sequence[Field],
        fmt: Format,
        blocks: Iterable[Block],
        chunk: Chunk,
        *,
        fast: bool,
    ) -> int:
        self.seen = list(fields)
        before = len(self.stored)
        for n, block in enumerate(blocks):
            if self.fail_after is not None and n >= self.fail_after:
                raise OSError("the disk is full")
            self.stored.extend(block.data if fmt == "rows" else [(block.data,)])
        self.chunks.append((chunk, fmt, fast))
        return len(self.stored) - before


def table(*names: str, key: tuple[str, ...] = ()) -> Table:
    return Table(
        namespace="n",
        name="t",
        columns=tuple(column(n) for n in names),
        primary_key=Key(name=None, columns=key) if key else None,
    )


def side(memory: Memory, shape: Sequence[Field]) -> Side:
    return Side(session=memory, table=table(*(f.column.name for f in shape)), fields=tuple(shape))  # type: ignore[arg-type]
