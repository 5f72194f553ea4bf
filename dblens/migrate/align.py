"""Foreign keys in targets that demand the very same type at both ends."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.engines.base import Engine
from dblens.migrate.convert import Converted
from dblens.migrate.model import Notice
from dblens.schema.model import Column, ForeignKey
from dblens.schema.types import Integer, Text


def align_foreign_keys(converted: Sequence[Converted], engine: Engine) -> None:
    """Give both ends of a foreign key one type where the target demands it: the wider whole number of the two.

    What cannot be brought together loses its key, with a notice. Changes the converted tables in place.
    """
    if not engine.facts.strict_foreign_types:
        return
    tables = {(c.target.namespace, c.target.name): c for c in converted}
    changed = True
    while changed:
        changed = False
        for c in converted:
            for key in c.target.foreign_keys:
                other = tables.get((key.namespace or c.target.namespace, key.table))
                if other is None:
                    continue  # its table is blocked, so the plan cannot be applied anyway
                for mine, theirs in zip(key.columns, key.referred, strict=True):
                    changed |= _meet(c, mine, other, theirs, engine)
    for c in converted:
        keep = []
        for key in c.target.foreign_keys:
            other = tables.get((key.namespace or c.target.namespace, key.table))
            if other is None:
                continue
            pairs = [
                (c.target.column(a), other.target.column(b)) for a, b in zip(key.columns, key.referred, strict=True)
            ]
            apart = next(((a, b) for a, b in pairs if not _alike(a, b)), None)
            if apart is None:
                keep.append(_possible_actions(c, key))
                continue
            c.exclusions.append(
                Notice(
                    kind="foreign key",
                    name=f"{c.source.namespace}.{c.source.name}.{key.name or ', '.join(key.columns)}",
                    reason=f"its columns are {apart[0].native} here and {apart[1].native} there",
                    source=f"({', '.join(key.columns)}) references {key.table} ({', '.join(key.referred)})",
                )
            )
        c.target = msgspec.structs.replace(c.target, foreign_keys=tuple(keep))


def _possible_actions(c: Converted, key: ForeignKey) -> ForeignKey:
    """Replace SET NULL on a column that is NOT NULL: where it can be declared at all, it always fails, as RESTRICT does."""
    required = [n for n in key.columns if not c.target.column(n).nullable]
    changes = {side: "restrict" for side in ("on_delete", "on_update") if getattr(key, side) == "set null" and required}
    if changes:
        c.transforms.append(
            f"{c.source.namespace}.{c.source.name}.{key.name}: SET NULL on {required[0]!r}, which is NOT NULL, becomes RESTRICT"
        )
    return msgspec.structs.replace(key, **changes)


def _alike(a: Column, b: Column) -> bool:
    if isinstance(a.type, Text) and isinstance(b.type, Text):
        return a.collation == b.collation
    return a.type == b.type


def _meet(left: Converted, mine: str, right: Converted, theirs: str, engine: Engine) -> bool:
    a, b = left.target.column(mine), right.target.column(theirs)
    if not (isinstance(a.type, Integer) and isinstance(b.type, Integer)) or a.type == b.type:
        return False
    signed = not (a.type.unsigned and b.type.unsigned)
    # An unsigned number needs one size more as a signed one.
    bits = max(t.bits * 2 if signed and t.unsigned else t.bits for t in (a.type, b.type))
    if bits > 64:
        return False
    wide = Integer(bits=next(n for n in (8, 16, 24, 32, 64) if n >= bits), unsigned=not signed)
    for side, column in ((left, a), (right, b)):
        if column.type != wide:
            _retype(side, column, wide, engine)
    return True


def _retype(side: Converted, column: Column, type: Integer, engine: Engine) -> None:
    wider = msgspec.structs.replace(column, type=type, native=engine.types.spell(type))
    side.transforms.append(
        f"{side.source.namespace}.{side.source.name}.{column.name}: {wider.native}, as the other end of its foreign key"
    )
    columns = tuple(wider if c.name == column.name else c for c in side.target.columns)
    side.target = msgspec.structs.replace(side.target, columns=columns)
    side.fields = [
        msgspec.structs.replace(f, target=wider) if f.target and f.target.name == column.name else f
        for f in side.fields
    ]
