"""A repair script: statements that make the target's differing rows equal to the source's."""

from __future__ import annotations

from collections.abc import Sequence

from dblens.engines.base import Engine, Field
from dblens.schema.model import Table
from dblens.transfer.verify import TableVerdict
from dblens.values.forms import Form


def script_for(engine: Engine, table: Table, fields: Sequence[Field], verdict: TableVerdict) -> list[str]:
    """Return statements in the target's language, one a differing row; comments where no statement can be given."""
    name = f"{table.namespace}.{table.name}"
    if engine.facts.documents:
        return [f"-- {name}: no repair script for documents; {verdict.differing} differ"]
    if not verdict.key:
        return [f"-- {name}: no key, so no single row can be named; {verdict.differing} differ"]
    ddl = engine.ddl
    where_table = f"{ddl.quote(table.namespace)}.{ddl.quote(table.name)}"
    forms = {(f.target or f.column).name: f.form for f in fields}

    def literal(column: str, text: str | None) -> str:
        if text is not None and forms[column] == Form.BYTES:
            return f"x'{text}'" if engine.facts.identifier_unit == "characters" else f"'\\x{text}'"
        return ddl.literal(text)

    statements = []
    if not verdict.complete:
        statements.append(f"-- {name}: too many differences; the first {len(verdict.differences)} only")
    for difference in verdict.differences:
        condition = " and ".join(
            f"{ddl.quote(k)} = {literal(k, v)}" for k, v in zip(verdict.key, difference.key, strict=True)
        )
        if difference.kind == "extra":
            statements.append(f"delete from {where_table} where {condition};")
        elif difference.kind == "missing":
            columns = ", ".join(ddl.quote(c.column) for c in difference.columns)
            values = ", ".join(literal(c.column, c.source) for c in difference.columns)
            statements.append(f"insert into {where_table} ({columns}) values ({values});")
        elif difference.kind == "changed":
            changes = ", ".join(f"{ddl.quote(c.column)} = {literal(c.column, c.source)}" for c in difference.columns)
            statements.append(f"update {where_table} set {changes} where {condition};")
        else:
            statements.append(f"-- {name}: {difference.count} duplicates of {condition}; delete them by hand")
    return statements
