"""Loads files and tables in memory into tables: the work of `query.preview` and `query.load`. No door of its own.

A load is a migration with a file as its source: planned, staged, copied, verified row by row, shown at once, and undone by
`migration.rollback`. The file is read in the caller's own process, so these operations do not travel.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Literal

import msgspec

from dblens.engines.base import ConflictRule, Engine, Target
from dblens.engines.files import Bad, File, Reading
from dblens.engines.files.model import spelled
from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.migrate.apply import Outcome, apply_plan
from dblens.migrate.link import Link
from dblens.migrate.loaded import FileLink
from dblens.migrate.model import Loss, Notice, Plan
from dblens.migrate.options import Options, Rule
from dblens.migrate.plan import make_plan
from dblens.query.statements import Statement
from dblens.redaction import Secret
from dblens.schema.model import Table
from dblens.schema.types import DataType, Document, Dynamic
from dblens.workspace import masks
from dblens.workspace.context import Context
from dblens.workspace.executor import stopping
from dblens.workspace.lines import Line
from dblens.workspace.operation import tell
from dblens.workspace.sides import sides
from dblens.workspace.speech import Origin, Speech

Mode = Literal["auto", "create", "append"]
_SAMPLE = 5


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a file becomes rows of a table.

    `mode` auto: create the table, append when it is there and `key` or `conflict` says how. `types`: natives of the target by column.
    `key`: the columns that identify a row, in the file's names. `rules`: of migrations, with a column's name in `match`.
    """

    reading: Reading = Reading()
    mode: Mode = "create"
    types: dict[str, str] = {}
    key: tuple[str, ...] = ()
    conflict: ConflictRule = "error"
    rules: tuple[Rule, ...] = ()


class LoadColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column on its way: its type in the file, proven or told, its name and type in the table (None: left out), first values."""

    name: str
    type: str
    proven: bool
    target: str | None
    native: str | None
    sample: tuple[str | None, ...] = ()


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a load would do; nothing was written."""

    source: str
    format: str
    table: str
    append: bool
    rows: int
    columns: tuple[LoadColumn, ...]
    statements: tuple[str, ...]
    losses: tuple[Loss, ...]
    blocks: tuple[Notice, ...]
    notes: tuple[str, ...]
    bad: tuple[Bad, ...]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did. `id` is the migration's, by which it is rolled back or finalized; `digest` that of the rows, proven on both sides."""

    id: str
    source: str
    table: str
    append: bool
    rows: int
    inserted: int
    updated: int
    skipped: int
    equal: bool
    digest: str
    columns: tuple[LoadColumn, ...]
    losses: tuple[Loss, ...]
    bad: tuple[Bad, ...]
    seconds: dict[str, float]


class _Work(msgspec.Struct, frozen=True):
    """A load that is planned."""

    right: Link
    left: FileLink
    plan: Plan
    preview: Preview
    seconds: float


def previewed(context: Context, connection: str | Link, source: object, table: str, options: LoadOptions) -> Preview:
    """Return what loading would do. Raises what `query.preview` raises."""
    with _planned(context, connection, source, table, options) as work:
        tell(rows=work.preview.rows, columns=len(work.preview.columns), bad=len(work.preview.bad))
        return work.preview


def loaded(
    context: Context,
    connection: str | Link,
    source: object,
    table: str,
    options: LoadOptions,
    *,
    accept: Sequence[str],
    confirm: str | None,
    mask_key: Secret | None,
    origin: Origin,
) -> Loaded:
    """Load, and return what was done. Raises what `query.load` raises."""
    _confirmed(context, connection, table, options, confirm, origin)
    with _planned(context, connection, source, table, options) as work:
        key = masks.key(context, work.plan, mask_key)
        outcome = apply_plan(work.plan, work.left, work.right, accept=accept, mask_key=key, report=context.report)
        made = _loaded(work, outcome)
    tell(run=made.id, rows=made.rows, inserted=made.inserted, updated=made.updated, bad=len(made.bad), equal=made.equal)
    return made


def _confirmed(
    context: Context, connection: str | Link, table: str, options: LoadOptions, confirm: str | None, origin: Origin
) -> None:
    """Ask for a confirmation where the organization's rule for writes wants one."""
    action: Literal["ddl", "write"] = "write" if options.mode == "append" else "ddl"
    text = f"load into {table}"
    said = Statement(number=1, text=text, start=0, end=len(text), line=1, column=1, action=action)
    about = Speech.about_of(context, connection)
    Speech(context, about, connection, "load", text, (said,), None, origin).confirmed({}, confirm)


@contextmanager
def _planned(
    context: Context, connection: str | Link, source: object, table: str, options: LoadOptions
) -> Iterator[_Work]:
    begun = time.monotonic()
    with sides(context, connection) as (right,):
        if isinstance(right, Line):
            right.writable()
        with closing(right.connect(read_only=True)) as session:
            place = _place(session, right, table)
            live = _live(session, place)
            appended = _append(options, live, place)
            file = _file(source, place[1], options, right.engine, live if appended else None)
        left = FileLink(file)
        with stopping(left.cancel):
            chosen = masks.keyed(context, _options(options, place, appended))
            plan = make_plan(left, right, chosen, report=context.report)
            yield _Work(right, left, plan, _preview(file, plan, appended), time.monotonic() - begun)


# ----------------------------------------------------------------------------------------------------------------------- parts


def _place(session: Target, link: Link, name: str) -> tuple[str, str]:
    """Return the namespace and the table that a name means: `table`, or `namespace.table` where there is such a namespace."""
    if not name:
        raise InvalidInput("the table has no name", hint="CONNECTION.TABLE")
    facts = link.engine.facts
    home = facts.default_namespace or session.database
    first, dot, rest = name.partition(".")
    if dot and rest and facts.schemas and first in session.namespaces():
        return first, rest
    if dot and rest and first == home:
        return home, rest
    return home, name


def _live(session: Target, place: tuple[str, str]) -> Table | None:
    """Return the table that is there. Raises Conflict for a view of that name."""
    found = next((ref for ref in session.list_tables(place[0]) if ref.name == place[1]), None)
    if found is None:
        return None
    if "view" in found.kind:
        raise Conflict(f"{'.'.join(place)} is a view", hint="name a table")
    return session.inspect(namespaces=(place[0],)).table(*place)


def _append(options: LoadOptions, live: Table | None, place: tuple[str, str]) -> bool:
    name = ".".join(place)
    if options.mode == "append":
        if live is None:
            raise NotFound(f"there is no table {name} to append to", hint="--create makes it")
        return True
    if live is None:
        return False
    if options.mode == "create":
        raise Conflict(f"the table {name} is there already", hint="--append adds to it; or name another")
    return True


def _file(source: object, name: str, options: LoadOptions, engine: Engine, live: Table | None) -> File:
    """Return the source with the types that are told: by the caller, else by the table that is appended to."""
    renamed = {rule.match: rule.rename for rule in options.rules if rule.rename}
    skipped = [rule.match for rule in options.rules if rule.exclude or rule.constant is not None]
    bare = File(source, name, reading=options.reading, skip=skipped)
    types: dict[str, DataType] = {column: engine.types.parse(native) for column, native in options.types.items()}
    key = options.key
    if live is not None and not engine.facts.documents:
        there = {column.name: column for column in live.columns}
        into = {
            column.name: renamed.get(column.name) or column.name
            for column in bare.columns
            if column.name not in skipped
        }
        unknown = [column for column, target in into.items() if target not in there]
        if unknown:
            raise InvalidInput(
                f"the table {live.name!r} has no column {into[unknown[0]]!r}",
                hint=f"it has {', '.join(there)}; skip or rename the file's column",
            )
        for column, target in into.items():
            if not bare.reader.told and not isinstance(there[target].type, Dynamic):
                types.setdefault(column, there[target].type)
        if not key and live.primary_key is not None:
            back = {target: column for column, target in into.items()}
            if all(column in back for column in live.primary_key.columns):
                key = tuple(back[column] for column in live.primary_key.columns)
    whole = engine.facts.documents and [type(column.type) for column in bare.columns] == [
        Document
    ]  # their _id is the key
    if options.conflict != "error" and not key and not whole:
        raise InvalidInput(f"--conflict {options.conflict} without a key", hint="--key names what identifies a row")
    bare.told(types, key)
    return bare


def _options(options: LoadOptions, place: tuple[str, str], append: bool) -> Options:
    table = glob.escape(place[1])
    rules = [msgspec.structs.replace(rule, match=f"{table}.{glob.escape(rule.match)}") for rule in options.rules]
    retyped = {rule.match for rule in options.rules if rule.type}
    rules += [
        Rule(match=f"{table}.{glob.escape(column)}", type=native)
        for column, native in options.types.items()
        if not append and column not in retyped
    ]
    return Options(
        existing="append" if append else "refuse", conflict=options.conflict, into=place[0], rules=tuple(rules)
    )


def _preview(file: File, plan: Plan, append: bool) -> Preview:
    (table,) = plan.tables or (None,)
    targets = {f.column.name: f.target for f in table.fields if f.target} if table is not None else {}
    proven = file.prove()
    samples = file.samples(_SAMPLE)
    columns = tuple(
        LoadColumn(
            name=column.name,
            type=spelled(column.type),
            proven=not file.reader.told and column.name not in file.types,
            target=targets[column.name].name if column.name in targets else None,
            native=targets[column.name].native if column.name in targets else None,
            sample=samples.get(column.name, ()),
        )
        for column in proven.columns
    )
    return Preview(
        source=file.title,
        format=file.format,
        table=".".join(table.live) if table is not None else file.name,
        append=append,
        rows=file.rows,
        columns=columns,
        statements=() if append else _readable(plan),
        losses=plan.losses,
        blocks=plan.blocks,
        notes=tuple(note for each in plan.tables for note in each.transforms) + plan.notes,
        bad=tuple(file.bad),
    )


def _readable(plan: Plan) -> tuple[str, ...]:
    return (*plan.build.before, *plan.build.after)


def _loaded(work: _Work, outcome: Outcome) -> Loaded:
    preview = work.preview
    verdict = outcome.verdicts[0] if outcome.verdicts else None
    merged: Mapping[str, Any] = next(iter(outcome.merged.values()), {}) if preview.append else {}
    return Loaded(
        id=outcome.id,
        source=preview.source,
        table=preview.table,
        append=preview.append,
        rows=preview.rows,
        inserted=int(merged.get("inserted", 0)) if preview.append else preview.rows,
        updated=int(merged.get("updated", 0)),
        skipped=int(merged.get("skipped", 0)),
        equal=outcome.equal,
        digest=verdict.source_digest if verdict is not None else "",
        columns=preview.columns,
        losses=outcome.losses,
        bad=preview.bad,
        seconds={"plan": round(work.seconds, 3), **outcome.seconds},
    )
