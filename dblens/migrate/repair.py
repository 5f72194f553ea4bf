"""A repair script: statements that make the target's differing rows equal to the source's."""

from __future__ import annotations

from collections.abc import Sequence

from dblens.engines.base import Engine, Field
from dblens.schema.model import Table
from dblens.transfer.verify import Cell, Difference, TableVerdict
from dblens.values.forms import Form

_BY_HAND = (Form.GEOMETRY, Form.INTERVAL, Form.DOCUMENT, Form.BSON)
"""Forms whose canonical text is no constant of any engine's language."""


def script_for(engine: Engine, table: Table, fields: Sequence[Field], verdict: TableVerdict) -> list[str]:
    """Return statements in the target's language, one a differing row; comments where no statement can be given."""
    name = f"{table.namespace}.{table.name}"
    if engine.facts.documents:
        return [_comment(f"{name}: no repair script for documents; {verdict.differing} differ")]
    if not verdict.key:
        return [_comment(f"{name}: no key, so no single row can be named; {verdict.differing} differ")]
    script = _Script(engine, table, fields, verdict.key)
    statements = []
    if not verdict.complete or len(verdict.differences) < verdict.differing:
        statements.append(_comment(f"{name}: too many differences; the first {len(verdict.differences)} only"))
    statements.extend(script.statement(difference) for difference in verdict.differences)
    return statements


def _comment(text: str) -> str:
    """Return a comment of one line: names and values are other people's and must not end it."""
    return "-- " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _Script:
    def __init__(self, engine: Engine, table: Table, fields: Sequence[Field], key: Sequence[str]) -> None:
        self.engine, self.table, self.key = engine, table, key
        self.forms = {(f.target or f.column).name: f.form for f in fields}
        quote = engine.ddl.quote
        self.place = f"{quote(table.namespace)}.{quote(table.name)}"

    def statement(self, difference: Difference) -> str:
        pairs = dict(zip(self.key, difference.key, strict=True))
        used = {*pairs, *(c.column for c in difference.columns if difference.kind != "extra")}
        by_hand = sorted(c for c in used if self.forms[c] in _BY_HAND)
        if by_hand or difference.kind == "duplicated":
            named = ", ".join(f"{k} = {v}" for k, v in pairs.items())
            what = f"mend {', '.join(by_hand)}" if by_hand else f"delete {difference.count} duplicates"
            return _comment(f"{self.table.namespace}.{self.table.name}: {what} by hand, where {named}")
        quote = self.engine.ddl.quote
        condition = " and ".join(f"{quote(k)} {self._equals(k, v)}" for k, v in pairs.items())
        if difference.kind == "extra":
            return f"delete from {self.place} where {condition};"
        if difference.kind == "missing":
            columns = ", ".join(quote(c.column) for c in difference.columns)
            return f"insert into {self.place} ({columns}) values ({self._values(difference.columns)});"
        changes = ", ".join(f"{quote(c.column)} = {self._literal(c.column, c.source)}" for c in difference.columns)
        return f"update {self.place} set {changes} where {condition};"

    def _values(self, cells: Sequence[Cell]) -> str:
        return ", ".join(self._literal(c.column, c.source) for c in cells)

    def _equals(self, column: str, text: str | None) -> str:
        return "is null" if text is None else f"= {self._literal(column, text)}"

    def _literal(self, column: str, text: str | None) -> str:
        """Return a canonical text as a constant that the column takes."""
        facts, literal = self.engine.facts, self.engine.ddl.literal
        if text is None:
            return literal(None)
        match self.forms[column]:
            case Form.BYTES:
                return facts.octets_literal.replace("{}", text)
            case Form.BITS:
                return facts.bits_literal.replace("{}", text)
            case Form.TIMESTAMPTZ if "infinity" not in text:
                instant, bc, era = text.partition(" BC")
                return literal(f"{instant}{facts.instant_suffix}{bc}{era}")
            case Form.DYNAMIC:
                kind, _, value = text.partition(":")
                return {"t": literal(value), "b": facts.octets_literal.replace("{}", value)}.get(kind, value)
            case _:
                return literal(text)
