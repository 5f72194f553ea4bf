"""The words of reading a file: how it is to be read, its columns, its rows in batches, and rows that are bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from dblens.engines.asking import Odd, Out
from dblens.errors import InvalidInput
from dblens.schema.types import (
    DataType,
    Decimal,
    Float,
    Integer,
    Time,
    Timestamp,
)

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "arrow", "xlsx"]
FORMATS: Final[tuple[FileFormat, ...]] = ("csv", "tsv", "jsonl", "parquet", "arrow", "xlsx")
Encoding = Literal["utf-8", "utf-16", "latin-1", "windows-1252"]
ENCODINGS: Final[tuple[Encoding, ...]] = ("utf-8", "utf-16", "latin-1", "windows-1252")
_ENDINGS: Final[dict[str, FileFormat]] = {
    ".csv": "csv", ".txt": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
    ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".xlsx": "xlsx", ".xlsm": "xlsx",
}  # fmt: skip
_COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}
MOST_BAD: Final = 10_000
"""Bad rows that a load may set aside: they are kept in memory until its end."""


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a file is read; what is None is found out. `null_values` are the unquoted cells that are NULL, by default the empty one.

    `max_bad`: so many rows that cannot be read, or do not fit their column's type, are set aside; one more is an error.
    """

    format: FileFormat | None = None
    delimiter: str | None = None
    encoding: Encoding | None = None
    header: bool | None = None
    null_values: tuple[str, ...] | None = None
    sheet: str | None = None
    max_bad: int = 0

    def checked(self) -> Reading:
        """Return them. Raises InvalidInput."""
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or ord(self.delimiter) > 126 or self.delimiter in '"\r\n\0'
        ):
            raise InvalidInput(f"the delimiter is {self.delimiter!r}", hint="one ASCII character: , ; | or a tab")
        if not 0 <= self.max_bad <= MOST_BAD:
            raise InvalidInput(f"max_bad is {self.max_bad}", hint=f"0 to {MOST_BAD}")
        return self


class Bad(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that was set aside: its line in the file (its number, where rows are no lines; both from 1), its text, and why."""

    line: int
    raw: str
    reason: str
    column: str = ""


class Batch(msgspec.Struct):
    """Rows as columns: Arrow arrays, of texts where the format has no types, null for NULL; `odds` by row and column.

    `first` numbers the rows that were well-formed, from 0. `place` tells a row's line and its text.
    """

    first: int
    rows: int
    arrays: list[Any]
    place: Callable[[int], tuple[int, str]]
    odds: dict[int, dict[int, Odd]] = {}


class Reader(Protocol):
    """One format. Every call of `batches` reads the file anew, in bounded memory."""

    columns: tuple[Out, ...]
    """Names and, where the file tells them, types."""
    told: bool
    """Whether it does: else `columns` are all texts whose types their values prove."""
    kinds: dict[str, int]
    """For formats with values of some kind (JSON, XLSX), once they were read: bits of KINDS by column."""
    bad: list[Bad]
    """Rows of the latest reading that were not well-formed."""

    def batches(self, *, verifier: bool = False) -> Iterator[Batch]:
        """Yield the rows. `verifier`: read for the proof, where the format has two ways to take rows apart."""
        ...

    def seen(self) -> tuple[int, int | None]:
        """Return how many octets of how many were read by now."""
        ...


STRING, NUMBER, BOOLEAN, NESTED, DAY, MOMENT = 1, 2, 4, 8, 16, 32
"""Kinds of values."""


def format_of(name: str) -> tuple[FileFormat | None, str]:
    """Return the format that a file's name tells, None when it tells none, and its compression."""
    lower, compression = name.lower(), ""
    for ending, how in _COMPRESSED.items():
        if lower.endswith(ending):
            lower, compression = lower.removesuffix(ending), how
    return next((kind for ending, kind in _ENDINGS.items() if lower.endswith(ending)), None), compression


def spelled(kind: DataType) -> str:
    """Return a type as a person reads it."""
    match kind:
        case Decimal(precision, scale) if precision is not None:
            return f"decimal({precision},{scale or 0})"
        case Timestamp(zone=zone):
            return "timestamp with time zone" if zone else "timestamp"
        case Time(zone=zone):
            return "time with time zone" if zone else "time"
        case Integer(bits, unsigned):
            return f"{'unsigned ' if unsigned else ''}integer({bits})"
        case Float(bits):
            return f"float({bits})"
    return type(kind).__name__.lower()


def distinct(names: Sequence[str], hint: str) -> None:
    """Raise InvalidInput when two columns have one name, or one has none."""
    taken: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name:
            raise InvalidInput(f"column {number} has no name", hint=hint)
        if name in taken:
            raise InvalidInput(f"two columns are called {name!r}", hint=hint)
        taken.add(name)
