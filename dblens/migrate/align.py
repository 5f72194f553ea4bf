"""Foreign keys that a target keeps in another way: of one type at both ends, or as rows embedded in documents."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.engines.base import Embedding, Engine, Place
from dblens.errors import InvalidInput
from dblens.migrate.convert import Converted, as_elements
from dblens.migrate.model import Notice
from dblens.migrate.options import Options, matches
from dblens.schema.model import Column, ForeignKey, Table
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


# ------------------------------------------------------------------------------------------------------------------- embedding


class Nesting(msgspec.Struct, frozen=True):
    """A child table whose rows become elements of its parent's documents, and the foreign key that says of which."""

    child: Table
    parent: Table
    key: ForeignKey

    @property
    def link(self) -> dict[str, str]:
        """Return the parent's key columns by the child's that refer to them, in the order of the parent's columns."""
        assert self.parent.primary_key is not None
        mine = dict(zip(self.key.referred or self.parent.primary_key.columns, self.key.columns, strict=True))
        return {mine[c.name]: c.name for c in self.parent.columns if c.name in mine}


def nestings(options: Options, tables: Sequence[Table], engine: Engine) -> dict[Place, Nesting]:
    """Return what `options.embed` asks for, by the child's place in the source. Raises InvalidInput for what cannot be embedded."""
    if not options.embed:
        return {}
    if not engine.facts.documents:
        raise InvalidInput(
            f"{engine.title} has no documents to embed {options.embed[0]!r} in",
            hint="leave --embed out for this target",
        )
    if options.existing == "append" or options.content == "data":
        raise InvalidInput(
            f"{options.embed[0]!r} cannot be embedded in collections that are there already",
            hint="use --existing replace, or leave --embed out",
        )
    found: dict[Place, Nesting] = {}
    for text in options.embed:
        nesting = _nesting(text, tables)
        place = (nesting.child.namespace, nesting.child.name)
        if place in found:
            raise InvalidInput(f"the table {nesting.child.name!r} is to be embedded twice", hint="name it once")
        found[place] = nesting
    for nesting in found.values():
        if (nesting.parent.namespace, nesting.parent.name) in found:
            raise InvalidInput(
                f"{nesting.child.name!r} cannot be embedded in {nesting.parent.name!r}, which is embedded itself",
                hint="embed one level; leave one of them a collection of its own",
            )
    return found


def _named(text: str, tables: Sequence[Table]) -> list[Table]:
    return [t for t in tables if text in (t.name, f"{t.namespace}.{t.name}")] or [
        t for t in tables if matches(text, t.namespace, t.name)
    ]


def _nesting(text: str, tables: Sequence[Table]) -> Nesting:
    name, _, wanted = (text, "", "") if _named(text, tables) else text.rpartition(":")
    children = _named(name, tables)
    if len(children) != 1:
        raise InvalidInput(
            f"{len(children) or 'no'} tables of the migration are called {name or text!r}, to be embedded",
            hint="write --embed child or --embed child:parent; names are case-sensitive",
        )
    child = children[0]
    parents = {(t.namespace, t.name): t for t in (_named(wanted, tables) if wanted else tables) if t is not child}
    keys = [k for k in child.foreign_keys if (k.namespace or child.namespace, k.table) in parents]
    if len(keys) != 1:
        to = f" to {wanted!r}" if wanted else " to a table of the migration"
        listed = f": {', '.join(k.table for k in keys)}" if keys else ""
        raise InvalidInput(
            f"{child.name!r} has {len(keys) or 'no'} foreign keys{to}{listed}; one is needed to embed it",
            hint="write --embed child:parent to choose among several parents",
        )
    key = keys[0]
    parent = parents[(key.namespace or child.namespace, key.table)]
    primary = parent.primary_key.columns if parent.primary_key else ()
    if not primary or set(key.referred or primary) != set(primary):
        raise InvalidInput(
            f"{child.name!r} does not refer to the primary key of {parent.name!r}, which becomes the _id of its documents",
            hint="leave it a collection of its own",
        )
    return Nesting(child, parent, key)


def nest(c: Converted, parent: Converted, nesting: Nesting, waiting: Place) -> Embedding:
    """Turn a converted child table into elements of its parent's documents. Raises InvalidInput for rules that part the two."""
    label = f"{c.source.namespace}.{c.source.name}"
    field = c.target.name
    if not field or "." in field or field.startswith("$") or any(x.path[:1] == (field,) for x in parent.target.columns):
        raise InvalidInput(
            f"the array of {label} cannot be called {field!r} in the documents of {parent.target.name!r}",
            hint=f"name it by a rule: --rule {nesting.child.name}:rename=items",
        )
    mine = {f.column.name: f for f in c.fields if f.target and not f.is_constant and not f.expression}
    theirs = {f.column.name: f for f in parent.fields if f.target and not f.is_constant and not f.expression}
    link: dict[str, str] = {}
    for column, referred in nesting.link.items():
        left, right = mine.get(column), theirs.get(referred)
        if left is None or right is None or left.target is None or right.target is None:
            raise InvalidInput(
                f"{label}.{column} and what it refers to have to come along to embed it",
                hint="drop the rule that excludes or replaces one of them",
            )
        if left.form != right.form or c.masks.get(left.target.name) != parent.masks.get(right.target.name):
            raise InvalidInput(
                f"{label}.{column} and {parent.source.name}.{referred} would hold different values in the target",
                hint="give both the same type and the same mask",
            )
        link[left.target.name] = right.target.name
    order = c.target.primary_key.columns if c.target.primary_key else ()
    for what, names in (("unique constraint", [u.columns for u in c.target.uniques]), ("index", c.target.indexes)):
        c.exclusions.extend(
            Notice(kind=what, name=f"{label}.{_name(n)}", reason="elements of documents have no index of their own")
            for n in names
        )
    c.exclusions = [e for e in c.exclusions if not _is_key(e, label, nesting.key)]
    c.target = as_elements(c.target, parent.target, link, field)
    columns = {x.name: x for x in c.target.columns}
    c.fields = [msgspec.structs.replace(f, target=columns[f.target.name]) if f.target else f for f in c.fields]
    by = f", ordered by {', '.join(order)}" if order else ""
    c.transforms.append(
        f"{label}: embedded as the array {field!r} of {parent.target.name}, by {', '.join(link)}, which is the document's _id{by}; "
        "copied whole (fast mode)"
    )
    return Embedding(
        parent=f"{parent.source.namespace}.{parent.source.name}",
        field=field,
        link=tuple(link),
        order=order,
        waiting=waiting,
    )


def _name(part: object) -> str:
    return ", ".join(part) if isinstance(part, tuple) else str(getattr(part, "name", ""))


def _is_key(notice: Notice, label: str, key: ForeignKey) -> bool:
    return notice.kind == "foreign key" and notice.name == f"{label}.{key.name or ', '.join(key.columns)}"


def with_parent(nesting: Nesting, engine: Engine, where: str | None) -> str:
    """Return the condition, in the source's language, of a child's rows whose parent comes along; `where` is the parent's filter."""
    quote = engine.ddl.quote
    mine = ", ".join(map(quote, nesting.link))
    theirs = ", ".join(map(quote, nesting.link.values()))
    source = f"{quote(nesting.parent.namespace)}.{quote(nesting.parent.name)}"
    left = f"({mine})" if len(nesting.link) > 1 else mine
    return f"{left} IN (SELECT {theirs} FROM {source}{f' WHERE ({where})' if where else ''})"
