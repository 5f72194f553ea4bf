"""The words of an export: formats, options, what came of it."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from dblens.engines.asking import Out
from dblens.errors import InvalidInput

Format = Literal["csv", "tsv", "jsonl", "parquet", "arrow", "xlsx"]
Style = Literal["safe", "exact"]
Compression = Literal["", "gzip", "zstd"]
FORMATS: Final[tuple[Format, ...]] = ("csv", "tsv", "jsonl", "parquet", "arrow", "xlsx")
TEXTS: Final = ("csv", "tsv", "jsonl")
"""Formats that may be compressed as a whole and tell their types in a sidecar."""
_ENDINGS: Final[dict[str, Format]] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".xlsx": "xlsx",
}  # fmt: skip
_COMPRESSED: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd"}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a file is written. `style` None: exact for parquet and arrow, safe for the others. `separator` is of csv."""

    style: Style | None = None
    compression: Compression = ""
    separator: str = ","

    def of(self, format: Format) -> Options:
        """Return them with nothing left open. Raises InvalidInput for what does not fit the format."""
        if format not in FORMATS:
            raise InvalidInput(f"format is {format!r}", hint=", ".join(FORMATS))
        if self.compression and format not in TEXTS:
            raise InvalidInput(
                f"{format} with {self.compression}", hint="only csv, tsv and jsonl are compressed as a whole"
            )
        if self.separator not in (",", ";", "|", "\t"):
            raise InvalidInput(f"separator is {self.separator!r}", hint="comma, semicolon, bar or tab")
        if self.separator != "," and format != "csv":
            raise InvalidInput(f"{format} with a separator", hint="only csv has one")
        style: Style = self.style or ("exact" if format in ("parquet", "arrow") else "safe")
        return msgspec.structs.replace(self, style=style, separator="\t" if format == "tsv" else self.separator)


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Cells of a column that the file does not hold exactly: how many, the first one's row (from 1), and what became of them."""

    column: str
    what: str
    count: int
    first: int


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader must know to restore the rows of an exact file; `sha256` is that of the file as it lies there, empty within one."""

    dblens: int = 1
    codec: int
    format: Format
    columns: tuple[Out, ...]
    keys: tuple[str, ...] = ()
    """Names of the columns in JSON Lines, where two columns cannot have the same."""
    separator: str = ","
    rows: int = 0
    sha256: str = ""


class Exported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was written. `sidecar` is the text of a file to be kept beside it, empty where there is none."""

    format: Format
    style: Style
    rows: int
    octets: int
    sha256: str
    columns: tuple[Out, ...] = ()
    losses: tuple[Loss, ...] = ()
    sidecar: str = ""
    seconds: float = 0.0


def format_of(name: str) -> tuple[Format, Compression]:
    """Return the format and the compression that a file's name tells. Raises InvalidInput."""
    lower, compression = name.lower(), _NONE
    for ending, how in _COMPRESSED.items():
        if lower.endswith(ending):
            lower, compression = lower.removesuffix(ending), how
    for ending, format in _ENDINGS.items():
        if lower.endswith(ending):
            return format, compression
    raise InvalidInput(f"the format of {name!r} is not known from its name", hint=f"--format {'|'.join(FORMATS)}")


_NONE: Compression = ""


class Losses:
    """Losses as they are counted."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[int]] = {}

    def add(self, column: str, what: str, count: int, first: int) -> None:
        """Count cells; `first` is the row of the first of them."""
        if count:
            held = self._found.setdefault((column, what), [0, first])
            held[0] += count

    def mask(self, column: str, what: str, mask: Any, base: int) -> None:
        """Count the cells where an Arrow array is true; `base` rows came before them."""
        count = mask.true_count
        if count:
            self.add(column, what, count, base + mask.index(True).as_py() + 1)

    def all(self) -> tuple[Loss, ...]:
        """Return them."""
        return tuple(
            Loss(column=column, what=what, count=count, first=first)
            for (column, what), (count, first) in self._found.items()
        )
