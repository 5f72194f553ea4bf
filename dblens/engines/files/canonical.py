"""The verifier's reader: rows of a file to canonical texts and digests, by the codec. Shares nothing with `export`.

Delimited text is taken apart by `records`, which is not the copier's parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.engines.base import Field
from dblens.engines.files import checks
from dblens.engines.files.model import Batch
from dblens.engines.files.prove import TRUE
from dblens.errors import InvalidInput
from dblens.schema.types import Boolean, Dynamic
from dblens.values import speed
from dblens.values.codec import canonical
from dblens.values.digest import Accumulator
from dblens.values.forms import Form

Row = tuple["bytes | None", ...]
_KINDS: Final = {
    Form.INT: "d",  # whole numbers in digits are decimals
    Form.DECIMAL: "d",
    Form.FLOAT: "f",
    Form.TEXT: "r",
    Form.TIMETZ: "r",
    Form.GEOMETRY: "r",
    Form.DOCUMENT: "r",
    Form.NATIVE: "r",
    Form.DATE: "a",
    Form.TIME: "k",
    Form.TIMESTAMP: "w",
    Form.TIMESTAMPTZ: "z",
    Form.UUID: "u",
    Form.JSON: "j",
}
_PREFIX: Final = {Form.INT: b"i:", Form.FLOAT: b"r:", Form.BYTES: b"b:"}


class Sides:
    """What turns the batches of a file into rows for `values.speed`."""

    def __init__(self, columns: Sequence[Out], fields: Sequence[Field]) -> None:
        self._columns = columns
        self._numbers = {column.name: n for n, column in enumerate(columns)}
        self._fields = fields
        self.dressed = False
        """Whether values of SQLite keep their class for a question about it."""

    def rows(self, batch: Batch) -> tuple[list[tuple[Any, ...]], bytes]:
        """Return a batch's rows and their kinds. Raises InvalidInput for a value that its form cannot hold."""
        kinds, sides = [], []
        for field in self._fields:
            kind, side = self._side(batch, field)
            kinds.append(kind)
            sides.append(side)
        return list(zip(*sides, strict=True)) if sides else [()] * batch.rows, "".join(kinds).encode()

    def _side(self, batch: Batch, field: Field) -> tuple[str, list[Any]]:
        if field.is_constant:
            return "r", [None if field.constant is None else canonical(field.form, field.constant)] * batch.rows
        number = self._numbers[field.column.name]
        kind, side = self._values(batch, number, field)
        odds = {row: cells[number] for row, cells in batch.odds.items() if number in cells}
        classed = isinstance(field.column.type, Dynamic) and field.form is Form.TEXT
        if not odds and not field.repairs and not classed:
            return kind, side
        texts = self._texts(batch, field, kind, side)
        for row, odd in odds.items():
            texts[row] = self._odd(field, odd)
        for row, text in checks.changes(field, texts).items():
            texts[row] = None if text is None else text.encode("utf-8", "surrogateescape")
        return "r", undressed(texts) if classed and not self.dressed else texts

    def _texts(self, batch: Batch, field: Field, kind: str, side: list[Any]) -> list[bytes | None]:
        if kind == "r":
            return side
        try:
            return [row[0] for row in speed.render_rows([(value,) for value in side], kind.encode())]
        except ValueError as error:
            raise self.refused(batch, [field], error) from error

    def _values(self, batch: Batch, number: int, field: Field) -> tuple[str, list[Any]]:
        values, out, form = batch.arrays[number], self._columns[number], field.form
        pa = arrow.library()
        if isinstance(field.column.type, Dynamic):
            return "r", self._dynamic(values, out, form)
        if not pa.types.is_string(values.type):
            told = Out(name=out.name, type=out.type, native=out.native, form=form)
            try:
                return "r", arrow.canonical_column(told, values)
            except ValueError as error:
                raise self.refused(batch, [field], error) from error
        if form is Form.INT and isinstance(field.column.type, Boolean):
            return "r", [None if v is None else b"1" if v.lower() in TRUE else b"0" for v in values.to_pylist()]
        kind = _KINDS.get(form, "")
        if kind == "r":
            return kind, values.cast(pa.binary()).to_pylist()
        if kind:
            return kind, values.to_pylist()
        if form is Form.BYTES:
            return "r", [
                None if v is None else bytes.fromhex(v.removeprefix("\\x")).hex().encode() for v in values.to_pylist()
            ]
        try:
            return "r", [canonical(form, v) for v in values.to_pylist()]
        except ValueError as error:
            raise self.refused(batch, [field], error) from error

    def _dynamic(self, values: Any, out: Out, form: Form) -> list[bytes | None]:
        """Return SQLite's values with their storage class before them, or without it where the target's column has one class."""
        if out.form is Form.DYNAMIC:
            texts: list[bytes | None] = [None if v is None else v.encode() for v in values.to_pylist()]
        else:
            prefix = _PREFIX.get(out.form, b"t:")
            pure = arrow.canonical_column(out, values) if not arrow.library().types.is_string(values.type) else None
            plain = pure if pure is not None else [canonical(out.form, _word(v, out)) for v in values.to_pylist()]
            texts = [None if v is None else prefix + v for v in plain]
        return texts if form is Form.DYNAMIC else [_bare(text, form) for text in texts]

    def _odd(self, field: Field, odd: Odd) -> bytes | None:
        octets = arrow.octets_of(odd)
        if odd.form is Form.DYNAMIC and field.form is not Form.DYNAMIC:
            return _bare(octets, field.form)
        if field.form is Form.DYNAMIC and odd.form is not Form.DYNAMIC:
            return _PREFIX.get(odd.form, b"t:") + octets
        if odd.form is field.form:
            return octets
        try:
            return canonical(field.form, odd.text)
        except ValueError:
            return octets

    def refused(self, batch: Batch, fields: Sequence[Field], error: Exception) -> InvalidInput:
        """Return the error for a value that its form cannot hold, with its line where it can be found."""
        for field in fields:
            if field.is_constant:
                continue
            number = self._numbers[field.column.name]
            for row, value in enumerate(batch.arrays[number].to_pylist()):
                try:
                    canonical(field.form, value)
                except ValueError as found:
                    line = batch.place(row)[0]
                    return InvalidInput(
                        f"line {line}, column {field.column.name!r}: {found}", hint="choose another type"
                    )
        return InvalidInput(f"a value does not fit its column: {error}", hint="choose another type")


def _word(value: Any, out: Out) -> Any:
    if value is not None and isinstance(out.type, Boolean):
        return "1" if value.lower() in TRUE else "0"
    return bytes.fromhex(value) if value is not None and out.form is Form.BYTES else value


def _bare(text: bytes | None, form: Form) -> bytes | None:
    """Return a value without its class; one of another class than text keeps it, for `mixed_storage` to see."""
    if text is None or form is not Form.TEXT:
        return text if text is None else text[2:]
    return text


def undressed(texts: list[bytes | None]) -> list[bytes | None]:
    """Return texts of a column of mixed classes without their classes."""
    return [None if text is None else text[2:] if text[:2] == b"t:" else text for text in texts]


def fingerprint(sides: Sides, fields: Sequence[Field], batches: Iterator[Batch], sums: Accumulator) -> Iterator[int]:
    """Add the digests of rows to `sums`; yield how many there are, batch by batch."""
    done = 0
    for batch in batches:
        rows, kinds = sides.rows(batch)
        try:
            done += speed.digest_rows(rows, kinds, sums)
        except ValueError as error:
            raise sides.refused(batch, fields, error) from error
        yield done


def canonical_rows(sides: Sides, fields: Sequence[Field], batches: Iterator[Batch]) -> Iterator[Row]:
    """Yield rows of canonical texts."""
    for batch in batches:
        rows, kinds = sides.rows(batch)
        try:
            yield from speed.render_rows(rows, kinds)
        except ValueError as error:
            raise sides.refused(batch, fields, error) from error
