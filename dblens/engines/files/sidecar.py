"""What DBLens told of a file that it wrote exactly: the types of its columns, and the marks of cells that a column cannot hold.

The words are those of `dblens.query.export`, whose docstring defines the format; they are read here by their structure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.engines.files.model import Batch
from dblens.errors import ArchiveCorrupt, ArchiveTooNew, InvalidInput
from dblens.values.forms import CODEC_VERSION, Form

MARK: Final = "'["
HIDDEN: Final = "dblens"
_VERSION: Final = 1


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside the file, as far as reading needs it."""

    dblens: int = 1
    codec: int
    format: str
    columns: tuple[Out, ...]
    keys: tuple[str, ...] = ()
    separator: str = ","
    rows: int = 0
    sha256: str = ""


def path_of(path: Path) -> Path:
    """Return where the sidecar of a file lies."""
    return path.with_name(f"{path.name}.dblens.json")


def decoded(text: str | bytes, where: str) -> Sidecar:
    """Return a sidecar. Raises ArchiveCorrupt, ArchiveTooNew."""
    try:
        versions = json.loads(text)
        if versions.get("dblens", 1) > _VERSION or versions.get("codec", 1) > CODEC_VERSION:
            raise ArchiveTooNew(f"{where} was written by a newer DBLens", hint="upgrade DBLens")
        return msgspec.json.decode(text, type=Sidecar)
    except (ValueError, AttributeError, TypeError) as error:
        raise ArchiveCorrupt(
            f"{where} does not tell the file's columns: {error}", hint="without it the file is read as any other"
        ) from error


def beside(path: Path, sha256: Any) -> Sidecar | None:
    """Return the sidecar beside a file, None without one. Raises ArchiveCorrupt when it is of another file; `sha256()` is the file's."""
    there = path_of(path)
    try:
        text = there.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput(f"{str(there)!r} cannot be read: {error.strerror}", hint="check its rights") from error
    found = decoded(text, repr(str(there)))
    if found.sha256 and found.sha256 != sha256():
        raise ArchiveCorrupt(
            f"{str(path)!r} is not the file that {there.name!r} tells of: it was changed since",
            hint="delete the sidecar to read the file as any other, or export it again",
        )
    return found


def unmarked(batch: Batch, columns: tuple[Out, ...]) -> Batch:
    """Take the marked cells of a batch of texts for what they say. Raises InvalidInput for a mark that says nothing."""
    pa = arrow.library()
    for number, column in enumerate(columns):
        values = batch.arrays[number]
        marked = pa.compute.starts_with(values, MARK)
        if not marked.true_count:
            continue
        cells = values.to_pylist()
        for row, is_marked in enumerate(marked.to_pylist()):
            if is_marked:
                cells[row] = put(batch, row, number, column, _read(cells[row], batch, row, column))
        batch.arrays[number] = pa.array(cells, pa.utf8())
    return batch


def put(batch: Batch, row: int, number: int, column: Out, odd: Odd) -> str | None:
    """Return a cell's text where the column's array can hold it; else keep it beside, and return None."""
    if odd.form is column.form and column.form is not Form.DYNAMIC and _is_unicode(odd.text):
        return odd.text
    batch.odds.setdefault(row, {})[number] = odd
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(text: str, batch: Batch, row: int, column: Out) -> Odd:
    try:
        form, value = json.loads(text[1:])
        if not isinstance(value, str):
            raise ValueError(value)
        return Odd(value, Form(form))
    except (ValueError, TypeError) as error:
        line = batch.place(row)[0]
        raise InvalidInput(
            f"line {line}, column {column.name!r}: {text[:60]!r} is no cell of an exact file",
            hint="the file was changed since it was written",
        ) from error
