"""What a query returns here and there: the same rows or which differ, by key or as a whole, whatever their order.

Compared are canonical texts (`values.forms`), so that 1.50 of one engine is 1.5 of another. Two equal digests settle it; otherwise both
sides are sorted on disk and walked along together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final, Literal

import msgspec

from dblens.engines import arrow
from dblens.engines.asking import Lexis, Out
from dblens.errors import InvalidInput, Unsupported
from dblens.query.sorting import Pair, Sorter
from dblens.values import speed
from dblens.values.digest import Accumulator, line
from dblens.values.forms import Form

_LONGEST: Final = 200
Texts = tuple[bytes | None, ...]


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that differs. `missing`: not in the other answer, `extra`: only there. `columns` are those that were changed."""

    kind: Literal["changed", "missing", "extra"]
    key: tuple[str | None, ...] = ()
    columns: tuple[str, ...] = ()
    here: tuple[str | None, ...] | None = None
    there: tuple[str | None, ...] | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long one side took: to its first row, and to its last."""

    seconds: float
    first_row_seconds: float | None = None


class Compared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a dual run. `text` and `other_text` are what each side was asked. Values in samples are cut after 200 characters."""

    equal: bool
    text: str
    other_text: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    rows: int
    other_rows: int
    changed: int = 0
    missing: int = 0
    extra: int = 0
    digest: str
    other_digest: str
    timing: Timing
    other_timing: Timing
    samples: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()


class Side:
    """One answer as it comes: counted, digested and sorted. A sink of batches."""

    def __init__(self, key: Sequence[str], *, room: int | None = None) -> None:
        self._wanted, self.columns = tuple(key), tuple[Out, ...]()
        self._places: tuple[int, ...] = ()
        self._sums, self._sorter = Accumulator(), Sorter() if room is None else Sorter(room)
        self.rows = 0

    def begin(self, schema: Any) -> Any:
        """Take the columns. Raises InvalidInput for a key that is none of them, or twice there."""
        self.columns = arrow.outs(schema)
        names = [column.name for column in self.columns]
        places = []
        for name in self._wanted:
            found = [at for at, each in enumerate(names) if each == name]
            found = found or [at for at, each in enumerate(names) if each.casefold() == name.casefold()]
            if len(found) != 1:
                what = f"the key {name!r} is {'no column' if not found else 'more than one column'} of the answer"
                raise InvalidInput(what, hint=f"the columns are {', '.join(names)[:500]}")
            places.append(found[0])
        self._places = tuple(places)
        return self.batch

    def batch(self, batch: Any) -> None:
        """Take rows."""
        dynamic = [at for at, column in enumerate(self.columns) if column.form is Form.DYNAMIC]
        odd = bool(arrow.odds_of(batch))
        rows: list[Texts] = list(arrow.canonical_rows(batch))
        if dynamic or odd:
            rows = [_bare(row, self.columns) for row in rows]
        speed.digest_rows(rows, b"r" * len(self.columns), self._sums)
        self.rows += len(rows)
        if self._places:
            for row in rows:
                self._sorter.add(line([row[at] for at in self._places]), line(row))
        else:
            for row in rows:
                self._sorter.add(line(row), b"")

    @property
    def keyed(self) -> bool:
        """Return whether rows are matched by a key, not as a whole."""
        return bool(self._places)

    @property
    def digest(self) -> str:
        """Return the digest of all rows, whatever their order."""
        return str(self._sums.fingerprint().total)

    def sorted(self) -> Iterator[Pair]:
        """Yield keys and rows in order."""
        return self._sorter.sorted()

    def close(self) -> None:
        """Give the disk back."""
        self._sorter.close()


def _bare(row: Texts, columns: Sequence[Out]) -> Texts:
    """Return texts without SQLite's storage classes: other engines have none."""
    return tuple(
        text[2:] if text is not None and text[1:2] == b":" and _is_dynamic(text, column) else text
        for text, column in zip(row, columns, strict=True)
    )


def _is_dynamic(text: bytes, column: Out) -> bool:
    """Return whether a text tells its class: every one of a dynamic column, and in a column of numbers or moments only an odd cell."""
    if column.form is Form.DYNAMIC:
        return True
    return column.form not in (Form.TEXT, Form.NATIVE, Form.JSON, Form.DOCUMENT) and text[:1] in (
        b"i",
        b"r",
        b"t",
        b"b",
    )


class Found(msgspec.Struct, kw_only=True):
    """What two sides have and have not in common."""

    changed: int = 0
    missing: int = 0
    extra: int = 0
    samples: list[Difference] = []
    notes: list[str] = []


def differences(here: Side, there: Side, *, samples: int = 20) -> Found:
    """Walk along both sides and return how they differ. Raises InvalidInput when they have not as many columns."""
    if len(here.columns) != len(there.columns):
        raise InvalidInput(
            f"{len(here.columns)} columns here, {len(there.columns)} there", hint="ask both for the same columns"
        )
    found = Found(notes=_notes(here.columns, there.columns))
    if (here.rows, here.digest) == (there.rows, there.digest):
        return found
    names, keyed = [column.name for column in here.columns], here.keyed
    for key, mine, theirs in _together(here.sorted(), there.sorted()):
        only_mine, only_theirs = _apart(mine, theirs)
        for number in range(max(len(only_mine), len(only_theirs))):
            first = only_mine[number] if number < len(only_mine) else None
            second = only_theirs[number] if number < len(only_theirs) else None
            kind: Literal["changed", "missing", "extra"] = (
                "missing" if second is None else "extra" if first is None else "changed"
            )
            setattr(found, kind, getattr(found, kind) + 1)
            if len(found.samples) < samples:
                one, other = (None if each is None else _fields(each if keyed else key) for each in (first, second))
                changed = (
                    ()
                    if one is None or other is None
                    else [n for n, a, b in zip(names, one, other, strict=True) if a != b]
                )
                found.samples.append(
                    Difference(
                        kind=kind, key=_shown(_fields(key)) if keyed else (), columns=tuple(changed),
                        here=None if one is None else _shown(one), there=None if other is None else _shown(other),
                    )
                )  # fmt: skip
    return found


def _together(here: Iterator[Pair], there: Iterator[Pair]) -> Iterator[tuple[bytes, list[bytes], list[bytes]]]:
    """Yield each key with its rows on both sides."""
    groups = [groupby(side, key=lambda pair: pair[0]) for side in (here, there)]
    mine, theirs = (next(side, None) for side in groups)
    while mine is not None or theirs is not None:
        key = min(side[0] for side in (mine, theirs) if side is not None)
        rows: list[list[bytes]] = [[], []]
        if mine is not None and mine[0] == key:
            rows[0] = [row for _, row in mine[1]]
            mine = next(groups[0], None)
        if theirs is not None and theirs[0] == key:
            rows[1] = [row for _, row in theirs[1]]
            theirs = next(groups[1], None)
        yield key, rows[0], rows[1]


def _apart(mine: list[bytes], theirs: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return what is left of two sorted lists without the rows that both have."""
    if mine == theirs:
        return [], []
    left, right = list[bytes](), list[bytes]()
    a = b = 0
    while a < len(mine) and b < len(theirs):
        if mine[a] == theirs[b]:
            a, b = a + 1, b + 1
        elif mine[a] < theirs[b]:
            left.append(mine[a])
            a += 1
        else:
            right.append(theirs[b])
            b += 1
    return left + mine[a:], right + theirs[b:]


def _fields(row: bytes) -> Texts:
    """Return the fields of a line of `values.digest`."""
    found, at = list[bytes | None](), 0
    while at < len(row):
        if row[at : at + 1] == b"-":
            found.append(None)
            at += 1
            continue
        colon = row.index(b":", at)
        size = int(row[at:colon])
        found.append(row[colon + 1 : colon + 1 + size])
        at = colon + 1 + size
    return tuple(found)


def _shown(row: Texts) -> tuple[str | None, ...]:
    return tuple(None if text is None else _cut(text.decode("utf-8", "backslashreplace")) for text in row)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _notes(here: Sequence[Out], there: Sequence[Out]) -> list[str]:
    found = []
    for number, (one, other) in enumerate(zip(here, there, strict=True), 1):
        if one.name.casefold() != other.name.casefold():
            found.append(f"column {number} is {one.name!r} here and {other.name!r} there")
        if one.form is not other.form and Form.DYNAMIC not in (one.form, other.form):
            found.append(
                f"column {one.name!r} is {one.native} ({one.form}) here and {other.native} ({other.form}) there"
            )
    return found


def translated(text: str, here: Lexis, there: Lexis) -> str:
    """Return a statement in the other engine's dialect. Raises InvalidInput for what has no translation, Unsupported for what is no SQL."""
    if not here.dialect or not there.dialect:
        raise Unsupported("translation", "only SQL is translated", hint="give the other text yourself")
    if here.dialect == there.dialect:
        return text
    import sqlglot
    from sqlglot.errors import ErrorLevel, SqlglotError

    try:
        found = sqlglot.transpile(
            text, read=here.dialect, write=there.dialect, unsupported_level=ErrorLevel.RAISE, pretty=False
        )
    except SqlglotError as error:
        raise InvalidInput(
            f"this has no translation from {here.dialect} to {there.dialect}: {str(error)[:300]}",
            hint="give the other text yourself",
        ) from error
    return ";\n".join(found)
