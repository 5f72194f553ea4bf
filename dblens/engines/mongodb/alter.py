"""Changes as MongoDB commands: one command document in JSON per statement, as `runCommand` takes it.

Fields of collections are sampled, not declared: a field that came or went changes no document, so there is no command for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dblens.engines.base import Rendered
from dblens.schema import changes as c
from dblens.schema.apply import apply_changes
from dblens.schema.model import Index, Schema, Table, View

_Sql = tuple[str, ...]
_KINDS = {"text": "text", "2dsphere": "2dsphere", "2d": "2d", "hashed": "hashed", "wildcard": 1}


def render(changes: Sequence[c.Change], *, schema: Schema, flavour: str = "") -> list[Rendered]:  # noqa: ARG001
    """Render changes of `schema` in a runnable order."""
    apply_changes(schema, changes)  # refuses changes of something else before anything is printed
    return [_one(change) for change in changes]


def command(name: str, target: str, **arguments: object) -> str:
    """Return a command document as JSON, the command's name first."""
    return json.dumps({name: target, **{k: v for k, v in arguments.items() if v is not None}}, ensure_ascii=False)


def _of(change: c.Change, statements: _Sql, undo: _Sql | None, reason: str = "") -> Rendered:
    return Rendered(
        statements=statements,
        undo=None if change.destructive else undo,
        destructive=change.destructive,
        blocking=change.blocking,
        reason=reason or change.reason,
    )


def _pair(change: c.Change, add: _Sql, drop: _Sql | None) -> Rendered:
    if type(change).__name__.startswith("Add"):
        return _of(change, add, drop)
    return _of(change, drop or (), add)


def _one(change: c.Change) -> Rendered:
    match change:
        case c.AddTable():
            return _of(change, _create(change.table), (command("drop", change.table.name),))
        case c.DropTable():
            return _of(change, (command("drop", change.table.name),), None)
        case c.RenameTable():
            places = [f"{change.namespace}.{name}" for name in (change.before, change.after)]
            forth = command("renameCollection", places[0], to=places[1])
            return _of(
                change,
                (forth,),
                (command("renameCollection", places[1], to=places[0]),),
                "run it on the admin database",
            )
        case c.RenameColumn():
            forth, back = (
                command(
                    "update",
                    change.table,
                    updates=[{"q": {old: {"$exists": True}}, "u": {"$rename": {old: new}}, "multi": True}],
                )
                for old, new in ((change.before, change.after), (change.after, change.before))
            )
            return _of(change, (forth,), (back,), "rewrites every document that has the field")
        case c.AddIndex() | c.DropIndex():
            return _index(change)
        case c.AddKey() | c.DropKey():
            return _key(change)
        case c.AlterTable():
            return _options(change)
        case c.AddCheck() | c.DropCheck():
            return _validator(change)
        case c.AddView() | c.DropView():
            return _pair(change, (_view("create", change.view),), (command("drop", change.view.name),))
        case c.ChangeView():
            return _of(change, (_view("collMod", change.after),), (_view("collMod", change.before),))
        case c.AddColumn() | c.DropColumn() | c.AlterColumn():
            return Rendered(reason="fields are not declared: documents are not changed")
        case c.AddNamespace() | c.DropNamespace():
            return Rendered(reason="a database comes into being with its first collection")
    return Rendered(reason="MongoDB has no such objects")


# --------------------------------------------------------------------------------------------------------------- collections


def _json(text: str) -> object:
    """Return an option's value: inspect keeps documents as JSON text, plain words as they are."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _create(table: Table) -> _Sql:
    options = {key: _json(value) for key, value in sorted(table.options.items())}
    if table.kind == "capped":
        options.setdefault("capped", True)
    indexes = [_spec(index) for index in table.indexes if index.name != "_id_"]
    made = command("create", table.name, **options)
    return (made, command("createIndexes", table.name, indexes=indexes)) if indexes else (made,)


_MODIFIABLE = {
    "validator": {},
    "validationLevel": "strict",
    "validationAction": "error",
    "changeStreamPreAndPostImages": {"enabled": False},
}
"""Options that collMod can change, with what stands for none."""


def _options(change: c.AlterTable) -> Rendered:
    if change.what in ("owner", "grants", "comment", "row_security", "inferred", "partitioning", "partition_of"):
        return Rendered(reason=f"MongoDB keeps no {change.what} of a collection")
    before, after = change.before.options, change.after.options
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    fixed = [name for name in names if name not in _MODIFIABLE]
    if change.what == "kind" or fixed:
        return Rendered(
            blocking=True,
            reason=f"{', '.join(fixed) or 'kind'} cannot be changed: create another collection and copy the documents",
        )
    forth, back = (
        command("collMod", change.table, **{n: _json(side[n]) if n in side else _MODIFIABLE[n] for n in names})
        for side in (after, before)
    )
    return Rendered(
        statements=(forth,), undo=(back,), reason="documents already there are checked when they are next written"
    )


def _validator(change: c.AddCheck | c.DropCheck) -> Rendered:
    rule = _json(change.check.expression)
    if not isinstance(rule, dict):
        return Rendered(reason="the check is not a MongoDB validator")
    forth = (command("collMod", change.table, validator=rule),)
    back = (command("collMod", change.table, validator={}),)
    if isinstance(change, c.DropCheck):
        return _of(change, back, forth)
    return _of(change, forth, back, "documents already there are checked when they are next written")


def _view(verb: str, view: View) -> str:
    """Return the command for a view; its definition is JSON {"viewOn": …, "pipeline": […]}."""
    definition = _json(view.definition)
    parts = definition if isinstance(definition, dict) else {"pipeline": definition}
    return command(verb, view.name, **parts)


# ------------------------------------------------------------------------------------------------------------------- indexes


def _spec(index: Index) -> dict[str, object]:
    """Return an index as createIndexes takes it."""
    key: dict[str, object] = {}
    for part in index.parts:
        kind = part.kind or (index.kind if index.kind in _KINDS else None)
        key[part.column or part.expression or ""] = _KINDS.get(kind, kind) if kind else (-1 if part.descending else 1)
    spec: dict[str, object] = {"key": key, "name": index.name}
    if index.unique:
        spec["unique"] = True
    if index.where:
        spec["partialFilterExpression"] = _json(index.where)
    if not index.visible:
        spec["hidden"] = True
    for name, value in sorted(index.options.items()):
        spec.setdefault(name, _json(value))
    return spec


def _index(change: c.AddIndex | c.DropIndex) -> Rendered:
    made = (command("createIndexes", change.table, indexes=[_spec(change.index)]),)
    return _pair(change, made, (command("dropIndexes", change.table, index=change.index.name),))


def _key(change: c.AddKey | c.DropKey) -> Rendered:
    if change.primary:
        return Rendered(reason="the primary key of a collection is _id")
    name = change.key.name or "_".join(f"{column}_1" for column in change.key.columns)
    spec = {"key": dict.fromkeys(change.key.columns, 1), "name": name, "unique": True}
    made = (command("createIndexes", change.table, indexes=[spec]),)
    return _pair(change, made, (command("dropIndexes", change.table, index=name),))
