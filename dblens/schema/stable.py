"""A schema's hash: what a plan is bound to. Numbers that move by themselves (sizes, estimates, next values) are left out."""

from __future__ import annotations

import hashlib

import msgspec

from dblens.schema.model import Column, Schema, Sequence, Table


def _column(column: Column) -> Column:
    identity = column.identity and msgspec.structs.replace(column.identity, next=None)
    return msgspec.structs.replace(column, identity=identity, presence=None, shares=())


def _table(table: Table) -> Table:
    # Columns sampled from documents differ from look to look; the collection's own options and indexes do not.
    columns = () if table.inferred else tuple(map(_column, table.columns))
    return msgspec.structs.replace(table, columns=columns, rows_estimate=None, bytes=None, sampled=None)


def _sequence(sequence: Sequence) -> Sequence:
    return msgspec.structs.replace(sequence, next=None)


def stable(schema: Schema) -> Schema:
    """Return the schema without what changes though nobody altered it."""
    return msgspec.structs.replace(
        schema, tables=tuple(map(_table, schema.tables)), sequences=tuple(map(_sequence, schema.sequences))
    )


def schema_hash(schema: Schema) -> str:
    """Return the SHA-256 of the stable schema, 64 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(stable(schema), order="deterministic")).hexdigest()
