"""The difference of two schemas as typed changes: of one engine or two, live or stored.

Pure and deterministic. The changes come in a runnable order: what refers to others goes first and comes back last. Applied to the
first schema (`apply.apply_changes`) they give the second one, up to what the options ignore and what changes by use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypedDict, TypeVar

import msgspec

from dblens.errors import InvalidInput
from dblens.schema import changes as c
from dblens.schema import risk
from dblens.schema.apply import apply_changes
from dblens.schema.compare import DEFAULT, Comparison, Options, SameType, sorted_grants
from dblens.schema.model import Column, Key, Routine, Schema, Table, View
from dblens.schema.order import load_order, strongly_connected
from dblens.schema.types import Enum

_Item = TypeVar("_Item")


def diff(
    a: Schema, b: Schema, options: Options = DEFAULT, *, same_type: SameType | None = None
) -> tuple[c.Change, ...]:
    """Return the changes that turn `a` into `b`, in a runnable order.

    `same_type` may say that columns of two engines have the same type although their `DataType` differs, because that is how one
    engine stores the other's. Objects of `b` keep `b`'s own spelling, under the namespaces of `a`. Between engines, extensions, named
    types and sequences owned by a column are not compared: they belong to one engine. Raises InvalidInput for a rename that names
    nothing.
    """
    b = map_namespaces(b, _namespace_map(a, b, options))
    renames = tuple(_renames(a, options))
    if renames:
        a = apply_changes(a, renames)
    return renames + tuple(_sorted(_changes(Comparison(a, b, options, same_type), a, b)))


# --------------------------------------------------------------------------------------------------------------- namespaces


def used_namespaces(schema: Schema) -> tuple[str, ...]:
    """Return the namespaces that a schema names or uses, in order."""
    things: Iterable[Any] = (*schema.tables, *schema.views, *schema.sequences, *schema.routines, *schema.types)
    return tuple(sorted({*schema.namespaces, *(thing.namespace for thing in things)}))


def _namespace_map(a: Schema, b: Schema, options: Options) -> Mapping[str, str]:
    if options.namespaces:
        unknown = sorted(set(options.namespaces) - set(used_namespaces(b)))
        if unknown:
            raise InvalidInput(
                f"no namespace {unknown[0]!r} in the second schema",
                hint=f"it has {', '.join(used_namespaces(b)) or 'none'}; mappings read second=first",
            )
        return options.namespaces
    ours, theirs = used_namespaces(a), used_namespaces(b)
    return {theirs[0]: ours[0]} if len(ours) == len(theirs) == 1 else {}


def map_namespaces(schema: Schema, names: Mapping[str, str]) -> Schema:
    """Return a schema with its namespaces renamed, foreign keys included."""
    if all(old == new for old, new in names.items()):
        return schema
    replace = msgspec.structs.replace

    def moved(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
        return tuple(replace(i, namespace=names.get(i.namespace, i.namespace)) for i in items)  # type: ignore[type-var, attr-defined]

    def keys(table: Table) -> Table:
        found = tuple(
            replace(k, namespace=names.get(k.namespace, k.namespace)) if k.namespace else k for k in table.foreign_keys
        )
        return replace(table, foreign_keys=found, columns=tuple(map(column, table.columns)))

    spelled = {f"{t.namespace}.{t.name}": f"{names.get(t.namespace, t.namespace)}.{t.name}" for t in schema.types}

    def column(old: Column) -> Column:
        """Return a column whose type is spelled with the new namespace, when the type is one of the schema's own."""
        base = old.native.rstrip("[]")
        if base not in spelled:
            return old
        type = old.type
        if isinstance(type, Enum) and type.name in spelled:
            type = replace(type, name=spelled[type.name])
        return replace(old, type=type, native=spelled[base] + old.native[len(base) :])

    return replace(
        schema,
        namespaces=tuple(dict.fromkeys(names.get(n, n) for n in schema.namespaces)),
        tables=moved(tuple(keys(t) for t in schema.tables)),
        views=moved(schema.views),
        sequences=moved(schema.sequences),
        routines=moved(schema.routines),
        types=moved(schema.types),
    )


# ------------------------------------------------------------------------------------------------------------------ renames


def _renames(a: Schema, options: Options) -> Iterator[c.Change]:
    tables = {(t.namespace, t.name): t for t in a.tables}
    for rule in (r for r in options.renamed if r.table is None):
        namespace, old, new = rule.namespace, rule.old, rule.new
        table = tables.pop((namespace, old), None)
        if table is None:
            raise InvalidInput(f"no table {namespace}.{old} to rename", hint="names are those of the first schema")
        if (namespace, new) in tables:
            raise InvalidInput(f"{namespace}.{old} cannot become {new}: the first schema has such a table")
        tables[namespace, new] = table
        yield c.RenameTable(namespace=namespace, before=old, after=new, reason="renamed, as told")
    for rule in (r for r in options.renamed if r.table is not None):
        namespace, name, old, new = rule.namespace, rule.table or "", rule.old, rule.new
        table = tables.get((namespace, name))
        names = {column.name for column in table.columns} if table else set()
        if old not in names or new in names:
            why = "there is no such column" if old not in names else f"there is a column {new} already"
            raise InvalidInput(
                f"{namespace}.{name}.{old} cannot be renamed to {new}: {why}",
                hint="use the table's new name, the column's old one",
            )
        yield c.RenameColumn(namespace=namespace, table=name, before=old, after=new, reason="renamed, as told")


# ------------------------------------------------------------------------------------------------------------------ objects


def _changes(how: Comparison, a: Schema, b: Schema) -> Iterator[c.Change]:
    ours = {(t.namespace, t.name): t for t in a.tables if how.includes(t.namespace, t.name)}
    theirs = {(t.namespace, t.name): t for t in b.tables if how.includes(t.namespace, t.name)}
    for place in sorted(ours.keys() | theirs.keys()):
        before, after = ours.get(place), theirs.get(place)
        if before is None and after is not None:
            yield c.AddTable(table=after, **risk.add_table(after))
        elif after is None and before is not None:
            yield c.DropTable(table=before, **risk.drop_table(before))
        elif before is not None and after is not None:
            yield from _table(how, before, after)
    if how.options.only_tables:
        return
    if not how.options.tables:
        yield from _database(how, a, b)
    views = _pairs(
        (v for v in a.views if how.includes(v.namespace, v.name)),
        (v for v in b.views if how.includes(v.namespace, v.name)),
        lambda v: (v.namespace, v.name),
        how.view,
    )
    for old, new in views:
        if old is None and new is not None:
            yield c.AddView(view=new, reason="the view is missing")
        elif new is None and old is not None:
            yield c.DropView(view=old, reason="only its definition is lost; what selects from it fails")
        elif old is not None and new is not None:
            yield c.ChangeView(before=old, after=new, **risk.change_view(old))


def _database(how: Comparison, a: Schema, b: Schema) -> Iterator[c.Change]:
    """Compare what belongs to no table."""
    ours, theirs = _namespaces(how, a), _namespaces(how, b)
    for name in sorted(theirs - ours):
        yield c.AddNamespace(name=name, reason="the namespace is missing")
    for name in sorted(ours - theirs):
        yield c.DropNamespace(
            name=name, destructive=True, reason="everything that is still in the namespace goes with it"
        )
    if how.same_engine:
        yield from _extensions(dict(a.extensions), dict(b.extensions))
        for old_t, new_t in _pairs(a.types, b.types, lambda t: (t.namespace, t.name), how.named_type):
            if old_t is None and new_t is not None:
                yield c.AddType(type=new_t, reason="the type is missing")
            elif new_t is None and old_t is not None:
                yield c.DropType(type=old_t, reason="no column uses it afterwards")
            elif old_t is not None and new_t is not None:
                yield c.ChangeType(before=old_t, after=new_t, **risk.change_type(old_t, new_t))
    sequences = _pairs(
        (s for s in a.sequences if how.same_engine or not s.owned_by),
        (s for s in b.sequences if how.same_engine or not s.owned_by),
        lambda s: (s.namespace, s.name),
        how.sequence,
    )
    for old_s, new_s in sequences:
        if old_s is None and new_s is not None:
            yield c.AddSequence(sequence=new_s, reason="the sequence is missing")
        elif new_s is None and old_s is not None:
            yield c.DropSequence(sequence=old_s, destructive=True, reason="its present value is lost")
        elif old_s is not None and new_s is not None:
            yield c.ChangeSequence(before=old_s, after=new_s, reason="the sequence differs; its present value is kept")
    for old_r, new_r in _pairs(a.routines, b.routines, _routine_name(how), how.routine):
        if old_r is None and new_r is not None:
            yield c.AddRoutine(routine=new_r, reason=f"the {new_r.kind} is missing")
        elif new_r is None and old_r is not None:
            yield c.DropRoutine(routine=old_r, reason="only its source is lost; what calls it fails")
        elif old_r is not None and new_r is not None:
            yield c.ChangeRoutine(before=old_r, after=new_r, reason=f"the {old_r.kind} differs")


def _namespaces(how: Comparison, schema: Schema) -> set[str]:
    """Return the namespaces to compare: between engines only those with something that is compared."""
    if how.same_engine:
        return set(used_namespaces(schema))
    things: tuple[Any, ...] = (*schema.tables, *schema.views, *schema.routines)
    return {thing.namespace for thing in things} | {s.namespace for s in schema.sequences if not s.owned_by}


def _routine_name(how: Comparison) -> Callable[[Routine], tuple[str, ...]]:
    if how.same_engine:
        return lambda r: (r.namespace, r.name, r.kind, r.signature)
    return lambda r: (r.namespace, r.name, r.kind)


def _extensions(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[c.Change]:
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours:
            yield c.AddExtension(name=name, version=theirs[name], reason="the extension is missing")
        elif name not in theirs:
            yield c.DropExtension(name=name, version=ours[name], reason="fails while something uses it")
        elif ours[name] != theirs[name]:
            yield c.ChangeExtension(name=name, before=ours[name], after=theirs[name], reason="another version")


def _pairs(
    ours: Iterable[_Item],
    theirs: Iterable[_Item],
    name: Callable[[_Item], tuple[str, ...]],
    reduced: Callable[[_Item], object],
) -> Iterator[tuple[_Item | None, _Item | None]]:
    """Yield what differs between two sets of named objects, by name: (before, after), None where there is none."""
    left = {name(item): item for item in ours}
    right = {name(item): item for item in theirs}
    for key in sorted(left.keys() | right.keys()):
        old, new = left.get(key), right.get(key)
        if old is None or new is None or reduced(old) != reduced(new):
            yield old, new


# ------------------------------------------------------------------------------------------------------------------- tables


class _Where(TypedDict):
    namespace: str
    table: str


def _table(how: Comparison, a: Table, b: Table) -> Iterator[c.Change]:
    where: _Where = {"namespace": a.namespace, "table": a.name}
    yield from _head(how, a, b)
    ours, theirs = {x.name: x for x in a.columns}, {x.name: x for x in b.columns}
    for name, before in ours.items():
        if name not in theirs:
            yield c.DropColumn(**where, column=before, **risk.drop_column(a, before))
    for name, after in theirs.items():
        if name not in ours:
            yield c.AddColumn(**where, column=after, **risk.add_column(b, after))
        else:
            for what in _aspects(how, a, b, ours[name], after):
                yield c.AlterColumn(
                    **where, what=what, before=ours[name], after=after, **risk.alter_column(a, what, ours[name], after)
                )
    gone, new = _multiset(_one(a.primary_key), _one(b.primary_key), how.key)
    for key in gone:
        yield c.DropKey(**where, key=key, primary=True, reason="rows are no longer told apart")
    for key in new:
        yield c.AddKey(**where, key=key, primary=True, **risk.add_key())
    gone, new = _multiset(a.uniques, b.uniques, how.key)
    for key in gone:
        yield c.DropKey(**where, key=key, reason="duplicates are allowed afterwards")
    for key in new:
        yield c.AddKey(**where, key=key, **risk.add_key())
    lost, more = _multiset(a.foreign_keys, b.foreign_keys, lambda k: how.foreign_key(a.namespace, k))
    for reference in lost:
        yield c.DropForeignKey(**where, key=reference, reason="orphans are allowed afterwards")
    for reference in more:
        yield c.AddForeignKey(**where, key=reference, **risk.add_foreign_key(reference))
    old_indexes, new_indexes = _multiset(a.indexes, b.indexes, how.index)
    for index in old_indexes:
        yield c.DropIndex(**where, index=index, **risk.drop_index(index))
    for index in new_indexes:
        yield c.AddIndex(**where, index=index, **risk.add_index(index))
    old_checks, new_checks = _multiset(a.checks, b.checks, how.check)
    for check in old_checks:
        yield c.DropCheck(**where, check=check, reason="values that break it are allowed afterwards")
    for check in new_checks:
        yield c.AddCheck(**where, check=check, **risk.add_check(check))
    if not how.options.only_tables:
        old_triggers, new_triggers = _multiset(a.triggers, b.triggers, how.trigger)
        for trigger in old_triggers:
            yield c.DropTrigger(
                **where, trigger=trigger, reason="only its source is lost; what it did is no longer done"
            )
        for trigger in new_triggers:
            yield c.AddTrigger(
                **where, trigger=trigger, reason="the trigger is missing; it does not run for rows already there"
            )


def _one(item: _Item | None) -> tuple[_Item, ...]:
    return () if item is None else (item,)


def _multiset(
    ours: Iterable[_Item], theirs: Iterable[_Item], reduced: Callable[[_Item], object]
) -> tuple[list[_Item], list[_Item]]:
    """Return the items that only the first has, and those that only the second has, counting equal ones."""
    ours, theirs = tuple(ours), tuple(theirs)
    if ours == theirs:
        return [], []

    def form(item: _Item) -> bytes:
        return msgspec.json.encode(reduced(item), order="deterministic")

    def surplus(items: Iterable[_Item], others: Iterable[_Item]) -> list[_Item]:
        there = Counter(map(form, others))
        found: list[_Item] = []
        for item in items:
            key = form(item)
            if there[key]:
                there[key] -= 1
            else:
                found.append(item)
        return found

    return surplus(ours, theirs), surplus(theirs, ours)


def head(table: Table) -> c.Head:
    """Return what a table is apart from its columns and constraints."""
    return c.Head(**{field: getattr(table, field) for field in c.Head.__struct_fields__})


def _head(how: Comparison, a: Table, b: Table) -> Iterator[c.AlterTable]:
    compared: list[c.TableAspect] = []
    if not how.no_comment and (a.comment or None) != (b.comment or None):
        compared.append("comment")
    if how.same_engine:
        named: tuple[c.TableAspect, ...] = (
            "kind",
            "partitioning",
            "partition_of",
            "options",
            "row_security",
            "inferred",
        )
        compared += [what for what in named if getattr(a, what) != getattr(b, what)]
        if not how.no_owner and a.owner != b.owner:
            compared.append("owner")
        if not how.no_grants and sorted_grants(a) != sorted_grants(b):
            compared.append("grants")
    for what in compared:
        yield c.AlterTable(
            namespace=a.namespace, table=a.name, what=what, before=head(a), after=head(b), **risk.alter_table(what)
        )


def _stays(how: Comparison, key: Key | None, other: Key | None) -> bool:
    return key is not None and other is not None and how.key(key) == how.key(other)


def _aspects(how: Comparison, table: Table, other: Table, a: Column, b: Column) -> Iterator[c.ColumnAspect]:
    left, right = how.column(table, a), how.column(other, b)
    if not how.same_column_type(a, b):
        yield "type"
    # What the key alone kept from being NULL is not kept any more once the key goes.
    bare = a.nullable and not right.nullable and not _stays(how, table.primary_key, other.primary_key)
    if bare or left.nullable != right.nullable:
        yield "nullable"
    if (left.default, left.on_update) != (right.default, right.on_update):
        yield "default"
    if left.generated != right.generated:
        yield "generated"
    if left.identity != right.identity:
        yield "identity"
    if (left.collation, left.charset) != (right.collation, right.charset):
        yield "collation"
    if left.invisible != right.invisible:
        yield "visibility"
    if left.comment != right.comment:
        yield "comment"


# -------------------------------------------------------------------------------------------------------------------- order

_ORDER: tuple[type[Any], ...] = (
    c.DropTrigger, c.DropView, c.DropForeignKey, c.DropIndex, c.DropCheck, c.DropKey, c.DropTable,
    c.AddNamespace, c.AddExtension, c.ChangeExtension, c.AddType, c.ChangeType, c.AddSequence, c.ChangeSequence,
    c.AddTable, c.AlterTable, c.DropColumn, c.AddColumn, c.AlterColumn,
    c.AddKey, c.AddCheck, c.AddIndex, c.AddForeignKey,
    c.AddRoutine, c.ChangeRoutine, c.ChangeView, c.AddView, c.AddTrigger,
    c.DropRoutine, c.DropSequence, c.DropType, c.DropExtension, c.DropNamespace,
)  # fmt: skip
_RANK = {kind: rank for rank, kind in enumerate(_ORDER)}


def _sorted(found: Iterable[c.Change]) -> list[c.Change]:
    """Put changes in a runnable order: by kind, tables by their references, views by what they select from."""
    listed = list(found)
    added = load_order([x.table for x in listed if isinstance(x, c.AddTable)]).places
    dropped = load_order([x.table for x in listed if isinstance(x, c.DropTable)]).places
    tables = {place: rank for rank, place in enumerate(added)} | {place: -rank for rank, place in enumerate(dropped)}
    up = {place: rank for rank, place in enumerate(_views([x.view for x in listed if isinstance(x, c.AddView)]))}
    down = {place: -rank for rank, place in enumerate(_views([x.view for x in listed if isinstance(x, c.DropView)]))}

    def rank(change: c.Change) -> tuple[int, int]:
        match change:
            case c.AddTable() | c.DropTable():
                return _RANK[type(change)], tables[change.table.namespace, change.table.name]
            case c.AddView():
                return _RANK[type(change)], up[change.view.namespace, change.view.name]
            case c.DropView():
                return _RANK[type(change)], down[change.view.namespace, change.view.name]
            case c.DropColumn():
                return _RANK[type(change)], change.column.generated is None  # computed columns before what they read
            case c.AddColumn() if change.column.generated is not None:
                return _RANK[c.AlterColumn], 2  # and after it
            case c.AlterColumn():
                return _RANK[
                    type(change)
                ], 1 if change.what == "generated" and change.after.generated is not None else 0
        return _RANK[type(change)], 0

    return sorted(listed, key=rank)


def _views(views: list[View]) -> list[tuple[str, str]]:
    """Return views after those they select from; `depends_on` names them with or without their namespace."""
    names = {(v.namespace, v.name) for v in views}
    graph = {
        (v.namespace, v.name): [
            p
            for p in names
            if p != (v.namespace, v.name)
            and (f"{p[0]}.{p[1]}" in v.depends_on or (p[0] == v.namespace and p[1] in v.depends_on))
        ]
        for v in sorted(views, key=lambda v: (v.namespace, v.name))
    }
    return [place for component in strongly_connected(graph) for place in component]
