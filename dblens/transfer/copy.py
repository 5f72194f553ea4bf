"""Copy one table, or one key range of it: the cheapest common format, masked on the way when the plan says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from dblens.engines.base import ALL, Block, Chunk, Field, Format, Images, KeyRange, Place, Source, Target
from dblens.engines.forms import form_of
from dblens.errors import Unsupported
from dblens.events import Progress, Report, silent
from dblens.schema.model import Table
from dblens.schema.types import DataType
from dblens.transfer.mask import Mask, masker
from dblens.transfer.pipe import Pipe
from dblens.values.codec import renderer
from dblens.values.digest import Accumulator
from dblens.values.forms import Form

Masks = Mapping[str, Mask]
"""Masks by the target column's name."""


class TableCopy(msgspec.Struct, frozen=True, kw_only=True):
    """What to copy: a source table's fields into a table that already exists at `place`."""

    source: Table
    target: Table
    place: Place
    fields: tuple[Field, ...]
    where: str | None = None
    masks: dict[str, Mask] = {}
    fast: bool = True
    rows: int | None = None


def target_fields(fields: Sequence[Field], masks: Masks = MappingProxyType({})) -> tuple[Field, ...]:
    """Return the fields as the target sees them: its own columns, same forms, nothing to repair.

    A masked value is of the target column's own form, whatever form it had in the source.
    """
    seen = []
    for field in fields:
        column = field.target or field.column
        form = form_of(column.type) if column.name in masks else field.form
        seen.append(Field(column=column, form=form, target=field.target))
    return tuple(seen)


def choose_format(source: Source, target: Target, job: TableCopy) -> Format:
    """Return the cheapest format that both sides know for these fields. Masks need single values, so rows."""
    offered = source.formats_out(job.source, job.fields)
    accepted = target.formats_in(job.target, job.fields)
    if job.masks:
        offered = tuple(f for f in offered if f == "rows")
    for fmt in offered:
        if fmt in accepted:
            return fmt
    raise Unsupported(
        f"copying {job.source.namespace}.{job.source.name}", f"no common format of {offered} and {accepted}"
    )


def _masked(blocks: Iterable[Block], job: TableCopy, key: bytes | None) -> Iterator[Block]:
    """Replace masked values in rows. Masks are defined on canonical texts, so 1.50 and 1.5 give one hash."""
    steps: list[tuple[int, Callable[[Any], str], Callable[[str | None], str | int | None]]] = []
    for i, field in enumerate(job.fields):
        column = field.target or field.column
        mask = job.masks.get(column.name)
        if mask is not None:
            kind: DataType = column.type
            steps.append((i, _bare if field.form == Form.DYNAMIC else renderer(field.form), masker(mask, kind, key)))
    for block in blocks:
        rows: list[tuple[Any, ...]] = []
        for row in block.data:
            values = list(row)
            for i, render, apply in steps:
                value = values[i]
                values[i] = apply(None if value is None else render(value))
            rows.append(tuple(values))
        yield Block(data=rows, size=block.size, rows=block.rows)


def _bare(value: Any) -> str:
    """Return a value of SQLite without the mark of its type: one customer has one hash in every engine."""
    return renderer(Form.DYNAMIC)(value)[2:]


def copy_range(
    source: Source,
    target: Target,
    job: TableCopy,
    chunk: Chunk,
    *,
    fmt: Format | None = None,
    mask_key: bytes | None = None,
    keys: KeyRange = ALL,
    report: Report = silent,
    done: int = 0,
    sums: Accumulator | None = None,
) -> int:
    """Copy one key range and write its ledger line in the same transaction; return the rows loaded.

    `sums`, for a whole table: the source's images are added to it where the copier's reading is the verifier's to the letter.
    """
    chosen = fmt or choose_format(source, target, job)
    count = done
    last = time.monotonic()
    name = f"{job.source.namespace}.{job.source.name}"

    def produce() -> Iterable[Block]:
        if sums is not None and isinstance(source, Images) and not job.masks:
            images = source.export_images(job.source, job.fields, chosen, where=job.where, sums=sums)
            if images is not None:
                return images
        blocks = source.export(job.source, job.fields, chosen, keys=keys, where=job.where)
        return _masked(blocks, job, mask_key) if job.masks else blocks

    def watched(pipe: Iterable[Block]) -> Iterator[Block]:
        nonlocal count, last
        octets = 0
        for block in pipe:
            yield block
            octets += block.size
            if block.rows is not None:
                count += block.rows
            elif job.rows and job.source.bytes:
                count = min(job.rows, int(job.rows * octets / max(job.source.bytes, octets)))
            now = time.monotonic()
            if now - last > 0.1:
                last = now
                report(Progress(task=f"copy {name}", done=count, total=job.rows))

    pipe = Pipe(produce)
    fields = tuple(_plain(f) for f in job.fields) if job.masks else job.fields
    try:
        loaded = target.load(job.place, fields, chosen, watched(pipe), chunk, fast=job.fast)
    finally:
        pipe.close()
    report(Progress(task=f"copy {name}", done=done + loaded, total=job.rows))
    return loaded


def _plain(field: Field) -> Field:
    """Return a field as its masked values arrive: the target column's own form."""
    column = field.target or field.column
    return msgspec.structs.replace(field, form=form_of(column.type))
