"""Prove two tables equal, row by row, or name the keys and columns that differ.

Both sides are digested at once by `fingerprint`, or first by their rows' images where the engine has them. Equal sums end it. Otherwise only the rows of differing buckets are read again, on
both sides, and compared as multisets; what is left unmatched is paired by key. JSON is hashed in each engine's own normal form first;
when that differs, both sides are read again in the canonical form before anything is called a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import islice
from typing import Literal, TypeVar

import msgspec

from dblens.engines.base import Field, Images, Source
from dblens.errors import Unsupported
from dblens.events import Progress, Report, silent
from dblens.schema.model import Table
from dblens.transfer.mask import Mask, expectation
from dblens.values import speed
from dblens.values.codec import canonical
from dblens.values.digest import BUCKETS, Accumulator, Fingerprint, bucket_of, row_digest
from dblens.values.forms import Form

T = TypeVar("T")
Row = tuple[bytes | None, ...]
Masks = Sequence[Callable[[bytes | None], bytes | None] | None]
ROWS_IN_MEMORY = 200_000
MOST_DIFFERENCES = 1_000
BATCH = 5_000


class Cell(msgspec.Struct, frozen=True):
    """One differing value as canonical text on both sides (None: NULL, or the row is missing)."""

    column: str
    source: str | None
    target: str | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One differing row: its key (canonical texts; the whole row where there is no key) and the columns concerned."""

    kind: Literal["missing", "extra", "changed", "duplicated"]
    key: tuple[str | None, ...]
    columns: tuple[Cell, ...] = ()
    count: int = 1


class TableVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Result for one table. `differing` is exact when `complete`, else a lower bound."""

    table: str
    equal: bool
    source_rows: int
    target_rows: int
    source_digest: str
    target_digest: str
    columns: int
    key: tuple[str, ...] = ()
    differing: int = 0
    complete: bool = True
    differences: tuple[Difference, ...] = ()
    method: str = "digest"
    seconds: float = 0.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison."""

    session: Source
    table: Table
    fields: tuple[Field, ...]
    where: str | None = None


class Tolerance(msgspec.Struct, frozen=True):
    """Accepted numeric distance by target column name."""

    columns: dict[str, float] = {}


def _both(left: Callable[[], T], right: Callable[[], T]) -> tuple[T, T]:
    """Run two readers at once: each mostly waits for its own server."""
    with ThreadPoolExecutor(1, thread_name_prefix="dblens-verify") as pool:
        future = pool.submit(right)
        try:
            first = left()
        except BaseException:
            future.exception()
            raise
        return first, future.result()


class _Reader:
    """Reads one side's canonical rows; `exact`: JSON in canonical form. Masks are made in the client, so digests are then taken here."""

    def __init__(self, side: Side, exact: bool, masks: Masks = ()) -> None:
        self.side, self.exact = side, exact
        self.masks = [(i, m) for i, m in enumerate(masks) if m is not None]

    def _all(self) -> Iterator[Row]:
        side = self.side
        rows = side.session.canonical_rows(side.table, side.fields, where=side.where, exact=self.exact)
        return map(self._masked, rows) if self.masks else iter(rows)

    def rows(self, buckets: frozenset[int]) -> Iterator[Row]:
        side = self.side
        if not self.exact and not self.masks:
            return iter(side.session.canonical_rows(side.table, side.fields, buckets=buckets, where=side.where))
        return (row for row in self._all() if bucket_of(row_digest(row)) in buckets)

    def _masked(self, row: Row) -> Row:
        values = list(row)
        for i, mask in self.masks:
            values[i] = mask(values[i])
        return tuple(values)

    def fingerprint(self, report: Report, name: str) -> Fingerprint:
        side = self.side
        if not self.masks:
            return side.session.fingerprint(side.table, side.fields, where=side.where, exact=self.exact, report=report)
        sums, done, rows, kinds = Accumulator(), 0, self._all(), b"r" * len(side.fields)
        while batch := list(islice(rows, BATCH)):
            done += speed.digest_rows(batch, kinds, sums)
            report(Progress(task=f"verify {name}", done=done))
        return sums.fingerprint()


CANONICAL = "canonical JSON"
"""Method of a verdict whose JSON was compared in canonical form, because the engines write it differently."""
IMAGE = "binary image"
"""Method of a verdict whose rows are equal octet by octet as the engine sends them."""


def side_digest(side: Side, method: str) -> str:
    """Return one side's digest by the method of an earlier verdict."""
    if method == IMAGE:
        return str(_image(side, silent).total)
    return str(_Reader(side, method == CANONICAL).fingerprint(silent, side.table.name).total)


def _image(side: Side, report: Report) -> Fingerprint:
    if not isinstance(side.session, Images):
        raise Unsupported(f"digesting {side.table.name} by its rows' images", f"{side.session.engine.title} has none")
    return side.session.image(side.table, side.fields, where=side.where, report=report)


def _images(side: Side) -> tuple[str, ...] | None:
    return side.session.images(side.table, side.fields) if isinstance(side.session, Images) else None


def _by_image(
    source: Side, target: Side, report: Report, known: Fingerprint | None
) -> tuple[Fingerprint, Fingerprint] | None:
    """Return equal sums of both sides' images; None where there are none, or where they prove nothing."""
    if source.session.engine.name != target.session.engine.name:
        return None
    binary = _images(source)
    if binary is None or binary != _images(target):
        return None
    if known is not None:
        ours, theirs = known, _image(target, report)
    else:
        ours, theirs = _both(partial(_image, source, report), partial(_image, target, silent))
    return None if ours.differing(theirs) else (ours, theirs)


def _by_text(
    source: Side, target: Side, exact: bool, masks: Masks, report: Report, name: str
) -> tuple[Fingerprint, Fingerprint]:
    left, right = _Reader(source, exact, masks), _Reader(target, exact)
    return _both(partial(left.fingerprint, report, name), partial(right.fingerprint, silent, name))


def _expected(mask: Mask, target: Field, source: Field, key: bytes | None) -> Callable[[bytes | None], bytes | None]:
    """Return what a masked column must hold. The mask is of the value: what SQLite says of its type in front is cut off."""
    masked = expectation(mask, target.column.type, key)
    if source.form != Form.DYNAMIC:
        return masked
    return lambda text: masked(None if text is None else text.partition(b":")[2])


def verify_table(
    name: str,
    source: Side,
    target: Side,
    *,
    key: Sequence[str] = (),
    masks: dict[str, Mask] | None = None,
    mask_key: bytes | None = None,
    tolerance: Tolerance | None = None,
    known: Fingerprint | None = None,
    report: Report = silent,
) -> TableVerdict:
    """Compare two tables of equally many fields; `key` names the target columns that identify a row.

    `known` is the digest of the source's images when the verifier's reading of them fed the copier too.

    Returns a verdict; never raises for a difference.
    """
    columns = [f.column.name for f in target.fields]
    by_name = {f.column.name: f for f in target.fields}
    expected = [
        _expected(masks[c], by_name[c], left, mask_key) if masks and c in masks else None
        for c, left in zip(columns, source.fields, strict=True)
    ]
    sums = None if any(expected) else _by_image(source, target, report, known)
    method, exact = IMAGE, False
    if sums is None:
        # Engines of different kinds nearly always write JSON differently, so their own texts are not tried first.
        json = any(f.form == Form.JSON for f in source.fields)
        exact = json and source.session.engine.name != target.session.engine.name
        sums = _by_text(source, target, exact, expected, report, name)
        if json and not exact and sums[0].differing(sums[1]):
            exact = True
            sums = _by_text(source, target, exact, expected, report, name)
        method = CANONICAL if exact else "digest"
    ours, theirs = sums
    differing = ours.differing(theirs)
    report(Progress(task=f"verify {name}", done=ours.total.count, total=ours.total.count))
    found = _Found(columns, key, tolerance or Tolerance(), [f.form for f in target.fields])
    complete = True
    if differing:
        left, right = _Reader(source, exact, expected), _Reader(target, exact)
        complete = _drill(left, right, differing, max(ours.total.count, theirs.total.count), found)
    return TableVerdict(
        table=name,
        equal=not differing or (complete and found.count == 0),
        source_rows=ours.total.count,
        target_rows=theirs.total.count,
        source_digest=str(ours.total),
        target_digest=str(theirs.total),
        columns=len(columns),
        key=tuple(key),
        differing=found.count,
        complete=complete,
        differences=tuple(found.differences[:MOST_DIFFERENCES]),
        method=method,
    )


def _drill(left: _Reader, right: _Reader, buckets: list[int], rows: int, found: _Found) -> bool:
    """Read differing buckets again, as many at a time as fit in memory. Returns False when it stopped early, with enough found."""
    step = max(1, int(ROWS_IN_MEMORY / max(1, rows / BUCKETS)))
    for start in range(0, len(buckets), step):
        part = frozenset(buckets[start : start + step])
        ours, theirs = _both(partial(_counted, left, part), partial(_counted, right, part))
        found.add(ours, theirs)
        if found.waiting() > 50 * MOST_DIFFERENCES and start + step < len(buckets):
            found.finish()
            return False
    found.finish()
    return True


def _counted(reader: _Reader, buckets: frozenset[int]) -> Counter[Row]:
    return Counter(reader.rows(buckets))


class _Found:
    """Pairs unmatched rows by key as they come: a changed row may turn up in two different groups of buckets."""

    def __init__(self, columns: Sequence[str], key: Sequence[str], tolerance: Tolerance, forms: Sequence[Form]) -> None:
        self.columns = columns
        self.key = [columns.index(k) for k in key if k in columns]
        self.tolerance = tolerance
        self.forms = forms
        self.ours: dict[Row, list[tuple[Row, int]]] = {}
        self.theirs: dict[Row, list[tuple[Row, int]]] = {}
        self.differences: list[Difference] = []
        self.count = 0

    def waiting(self) -> int:
        return len(self.ours) + len(self.theirs)

    def _key(self, row: Row) -> Row:
        return tuple(row[i] for i in self.key) if self.key else row

    def add(self, ours: Counter[Row], theirs: Counter[Row]) -> None:
        for row, n in (ours - theirs).items():
            self.ours.setdefault(self._key(row), []).append((row, n))
        for row, n in (theirs - ours).items():
            if ours[row]:
                self._say("duplicated", self._key(row), (), n)
            else:
                self.theirs.setdefault(self._key(row), []).append((row, n))

    def finish(self) -> None:
        for key, rows in self.ours.items():
            others = self.theirs.pop(key, [])
            if others and len(rows) == 1 and rows[0][1] == 1 and others[0][1] == 1:
                cells = self._cells(rows[0][0], others[0][0])
                if cells:
                    self._say("changed", key, cells)
                others = others[1:]
            elif others:
                # Several rows under one "key": it is not unique on one side; report both sides as they are.
                self._say("changed", key, self._cells(rows[0][0], others[0][0]), sum(n for _, n in rows))
                others = others[1:]
            else:
                for row, n in rows:
                    self._say("missing", key, self._cells(row, None), n)
            for row, n in others:
                self._say("extra", key, self._cells(None, row), n)
        for key, rows in self.theirs.items():
            for row, n in rows:
                self._say("extra", key, self._cells(None, row), n)
        self.ours, self.theirs = {}, {}

    def _say(
        self,
        kind: Literal["missing", "extra", "changed", "duplicated"],
        key: Row,
        cells: tuple[Cell, ...],
        count: int = 1,
    ) -> None:
        self.count += count
        if len(self.differences) < MOST_DIFFERENCES:
            self.differences.append(Difference(kind=kind, key=tuple(_show(v) for v in key), columns=cells, count=count))

    def _cells(self, ours: Row | None, theirs: Row | None) -> tuple[Cell, ...]:
        cells = []
        for i, column in enumerate(self.columns):
            left, right = ours[i] if ours else None, theirs[i] if theirs else None
            if ours and theirs and (left == right or self._close(i, column, left, right)):
                continue
            if ours is None or theirs is None or left != right:
                cells.append(Cell(column, _show(left), _show(right)))
        return tuple(cells)

    def _close(self, i: int, column: str, left: bytes | None, right: bytes | None) -> bool:
        limit = self.tolerance.columns.get(column)
        if limit is None or left is None or right is None:
            return False
        if self.forms[i] not in (Form.FLOAT, Form.DECIMAL, Form.INT, Form.NATIVE):
            return False
        try:
            ours, theirs = Decimal(left.decode()), Decimal(right.decode())
        except (InvalidOperation, UnicodeDecodeError):
            return False  # no number: an engine's own text of another type
        # In decimals, because 1.01 is not within 0.01 of 1.00 in binary.
        return ours.is_finite() and theirs.is_finite() and abs(ours - theirs) <= Decimal(repr(limit))


def _show(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def digest_of(rows: Iterable[Sequence[object]], forms: Sequence[Form]) -> Fingerprint:
    """Return the fingerprint of driver values held in memory (tests, small samples)."""
    sums = Accumulator()
    sums.add_rows([canonical(form, value) for form, value in zip(forms, row, strict=True)] for row in rows)
    return sums.fingerprint()
