"""Numbering of staged tables, and foreign keys that refer to nothing."""

from __future__ import annotations

from dblens.engines.base import Place
from dblens.engines.postgres.ddl import at, literal, quote
from dblens.engines.postgres.link import Link
from dblens.schema.model import ForeignKey, Table


def renumber(link: Link, table: Table, place: Place) -> None:
    """Set the sequence behind each numbered column so that the next insert takes max(planned next, greatest value + increment).

    A sequence that counts down takes the smallest value + increment instead. A sequence at its end stays there, so that the next
    insert says so rather than repeating a number.
    """
    name = ".".join(place)
    for column in table.columns:
        if column.identity is None and not (column.default is not None and column.default.kind == "sequence"):
            continue
        found = link.one(
            "SELECT s.seqrelid::regclass::text, s.seqincrement, s.seqmin, s.seqmax, n.nspname::text, c.relname::text "
            "FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE s.seqrelid = pg_get_serial_sequence($1, $2)::regclass",
            [at(place), column.name],
            what=f"numbering {name}",
        )
        if not found:
            continue
        _, increment, low, high, namespace, sequence = found
        extreme = "max" if increment > 0 else "min"
        reached = link.one(
            f"SELECT {extreme}({quote(column.name)})::numeric FROM {at(place)}", what=f"numbering {name}"
        )[0]
        wanted = [int(reached) + increment] if reached is not None else []
        if column.identity is not None and column.identity.next is not None:
            wanted.append(column.identity.next)
        if not wanted:
            continue
        value = max(wanted) if increment > 0 else min(wanted)
        qualified = literal(at((namespace, sequence)))
        if low <= value <= high:
            link.one(f"SELECT setval({qualified}::regclass, $1, false)", [value], what=f"numbering {name}")
        else:
            edge = high if value > high else low
            link.one(f"SELECT setval({qualified}::regclass, $1, true)", [edge], what=f"numbering {name}")


def orphans(
    link: Link, place: Place, key: ForeignKey, referred: Place, samples: int
) -> tuple[int, list[tuple[str, ...]]]:
    """Count rows whose key refers to nothing, with samples. Under MATCH FULL a partly NULL key refers to nothing too."""
    columns = key.columns
    pairs = [f"c.{quote(a)} = p.{quote(b)}" for a, b in zip(columns, key.referred, strict=True)]
    present = " AND ".join(f"c.{quote(a)} IS NOT NULL" for a in columns)
    any_null = " OR ".join(f"c.{quote(a)} IS NULL" for a in columns)
    all_null = " AND ".join(f"c.{quote(a)} IS NULL" for a in columns)
    missing = f"({present}) AND NOT EXISTS (SELECT 1 FROM {at(referred)} p WHERE {' AND '.join(pairs)})"
    if key.match.lower() == "full":
        missing = f"({missing}) OR (({any_null}) AND NOT ({all_null}))"
    what = f"looking for orphans in {'.'.join(place)}"
    tail = f"FROM {at(place)} c WHERE {missing}"
    count = int(link.one(f"SELECT count(*) {tail}", what=what)[0])
    if not count:
        return 0, []
    shown = ", ".join(f"coalesce(c.{quote(a)}::text, 'NULL')" for a in columns)
    return count, [tuple(row) for row in link.rows(f"SELECT {shown} {tail} LIMIT {int(samples)}", what=what)]
