"""Compare two databases table by table: as they are, or as a plan says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

import msgspec

from dblens.engines.base import Field, Target
from dblens.engines.forms import form_of
from dblens.errors import InvalidInput
from dblens.events import Progress, Report, Warned, silent
from dblens.migrate.convert import as_documents
from dblens.migrate.link import Link
from dblens.migrate.model import Plan
from dblens.migrate.options import matches
from dblens.schema.model import Column, Table
from dblens.schema.types import Document
from dblens.transfer.copy import target_fields
from dblens.transfer.pair import shared_form
from dblens.transfer.verify import Side, TableVerdict, Tolerance, verify_table


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts of the tables that both sides have, and what only one side has."""

    source: str
    target: str
    equal: bool
    verdicts: tuple[TableVerdict, ...]
    only_source: tuple[str, ...] = ()
    only_target: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    repair: tuple[str, ...] = ()


def compare(
    source: Link,
    target: Link,
    *,
    tables: Sequence[str] = (),
    where: str | None = None,
    tolerance: dict[str, float] | None = None,
    shared_columns: bool = False,
    repair: bool = False,
    report: Report = silent,
) -> Comparison:
    """Compare every table that both sides have by that name, in one snapshot a side.

    `where` is a condition that both engines understand; `tolerance` accepted distances by column name. `shared_columns` compares what
    both have instead of calling a missing column a difference. Raises InvalidInput when nothing can be compared.
    """
    with ExitStack() as stack:
        left, right = (_instant(side, stack, report) for side in (source, target))
        pairs, only_source, only_target = _pairs(left, right, tables)
        verdicts, notes, script = [], [], []
        compared: list[set[str]] = []
        for i, (left_table, right_table) in enumerate(pairs):
            report(Progress("verify tables", i, len(pairs), "tables"))
            ours, theirs, fields, missing = _matched(left, right, left_table, right_table)
            name = f"{ours.namespace}.{ours.name}"
            if missing:
                notes.append(f"{name}: not on both sides: {', '.join(missing)}")
            compared.append({(f.target or f.column).name for f in fields})
            if not fields:
                continue
            start = time.monotonic()
            verdict = verify_table(
                name,
                Side(session=left, table=ours, fields=fields, where=where),
                Side(
                    session=right,
                    table=theirs,
                    fields=tuple(Field(column=f.target or f.column, form=f.form) for f in fields),
                    where=where,
                ),
                key=_key(theirs, fields),
                tolerance=Tolerance(tolerance or {}),
                report=report,
            )
            verdict = msgspec.structs.replace(
                verdict,
                equal=verdict.equal and (shared_columns or not missing),
                seconds=round(time.monotonic() - start, 3),
            )
            verdicts.append(verdict)
            if repair and not verdict.equal:
                from dblens.migrate.repair import script_for

                script.extend(script_for(right.engine, theirs, fields, verdict))
        unknown = set(tolerance or ()) - {c for v in compared for c in v}
        if unknown:
            raise InvalidInput(
                f"no compared column is called {sorted(unknown)[0]!r}", hint="a tolerance names a column of the target"
            )
        return Comparison(
            source=left.fingerprint_id,
            target=right.fingerprint_id,
            equal=all(v.equal for v in verdicts) and not (only_source and not tables),
            verdicts=tuple(verdicts),
            only_source=tuple(only_source),
            only_target=tuple(only_target),
            notes=tuple(notes),
            repair=tuple(script),
        )


def compare_planned(
    plan: Plan, source: Link, target: Link, mask_key: bytes | None = None, report: Report = silent
) -> Comparison:
    """Compare a migration's live tables with its source as its plan says: names, masks, losses, shapes of documents.

    Raises InvalidInput when the plan has no table to compare, or for another mask key.
    """
    with ExitStack() as stack:
        left, right = (_instant(side, stack, report) for side in (source, target))
        tables = [t for t in plan.tables if t.mode != "none" and not t.append]
        if not tables:
            raise InvalidInput("the plan has no table of rows to compare", hint="it appends, or moves no rows")
        verdicts = [
            verify_table(
                t.name,
                Side(session=left, table=t.source, fields=t.compared, where=t.where),
                Side(session=right, table=t.at(t.live), fields=target_fields(t.compared, t.masks)),
                key=t.key,
                masks=t.masks,
                mask_key=mask_key,
                report=report,
            )
            for t in tables
        ]
        return Comparison(
            source=left.fingerprint_id,
            target=right.fingerprint_id,
            equal=all(v.equal for v in verdicts),
            verdicts=tuple(verdicts),
            notes=tuple(f"{t.name}: appended to rows of others, so not compared" for t in plan.tables if t.append),
        )


def _instant(side: Link, stack: ExitStack, report: Report) -> Target:
    """Return a session that reads at one instant, until the stack ends."""
    session = stack.enter_context(closing(side.connect(read_only=True)))
    note = session.begin_snapshot().note
    stack.callback(session.end_snapshot)
    if note:
        report(Warned(note))
    return session


def _pairs(
    left: Target, right: Target, patterns: Sequence[str]
) -> tuple[list[tuple[Table, Table]], list[str], list[str]]:
    ours = [t for t in left.inspect().tables if t.kind not in ("partition", "foreign")]
    theirs = [t for t in right.inspect().tables if t.kind not in ("partition", "foreign")]
    exact = {(t.namespace, t.name): t for t in theirs}
    by_name: dict[str, list[Table]] = {}
    for table in theirs:
        by_name.setdefault(table.name, []).append(table)
    pairs, only = [], []
    for table in ours:
        if patterns and not any(matches(p, table.namespace, table.name) for p in patterns):
            continue
        found = exact.get((table.namespace, table.name))
        if found is None and len(by_name.get(table.name, [])) == 1:
            found = by_name[table.name][0]
        if found is None:
            only.append(f"{table.namespace}.{table.name}")
        else:
            pairs.append((table, found))
    if not pairs:
        raise InvalidInput(
            f"{left.fingerprint_id} and {right.fingerprint_id} have no table name in common",
            hint="tables are matched by name, case-sensitive; check --table",
        )
    met = {id(t) for _, t in pairs}
    rest = [f"{t.namespace}.{t.name}" for t in theirs if id(t) not in met and not patterns]
    return pairs, only, rest


def _matched(
    left: Target, right: Target, ours: Table, theirs: Table
) -> tuple[Table, Table, tuple[Field, ...], list[str]]:
    """Return both tables with the columns that are compared, and what only one of them has."""
    documents = left.engine.facts.documents, right.engine.facts.documents
    rows = theirs if documents[0] else ours
    if documents[0] == documents[1] or any(c.name == "_id" for c in rows.columns):
        ours, theirs = left.profile(ours), right.profile(theirs)
        return ours, theirs, *_fields(ours, theirs, left.engine.name == right.engine.name)
    # Rows that became documents: the same columns by their path, the key as `_id`.
    rows = (right if documents[0] else left).profile(rows)
    collection, fields, missing = _by_path(rows, ours if documents[0] else theirs)
    if not documents[0]:
        return rows, collection, fields, missing
    turned = tuple(msgspec.structs.replace(f, column=f.target or f.column, target=f.column) for f in fields)
    return collection, rows, turned, missing


def _by_path(rows: Table, collection: Table) -> tuple[Table, tuple[Field, ...], list[str]]:
    """Match a table's columns with the fields of a collection that a migration makes of it."""
    inferred = {c.path: c for c in collection.columns}
    shaped = as_documents(rows)
    columns, fields, missing = [], [], []
    for column, place in zip(rows.columns, shaped.columns, strict=True):
        other = inferred.get(place.path)
        if other is None and collection.columns:
            missing.append(column.name)
            continue
        known = other is not None and not isinstance(other.type, Document)
        form = shared_form(column, other, same_engine=False) if known and other else form_of(column.type)
        columns.append(msgspec.structs.replace(place, native=other.native if other else place.native))
        fields.append(Field(column=column, form=form, target=columns[-1]))
    used = {c.path[0] for c in columns} | (set() if rows.primary_key else {"_id"})
    missing.extend(c.name for c in collection.columns if len(c.path) == 1 and c.path[0] not in used)
    shaped = msgspec.structs.replace(
        shaped, namespace=collection.namespace, name=collection.name, columns=tuple(columns), options=collection.options
    )
    return shaped, tuple(fields), missing


def _fields(ours: Table, theirs: Table, same_engine: bool) -> tuple[tuple[Field, ...], list[str]]:
    columns: dict[str, Column] = {c.name: c for c in theirs.columns}
    folded = {c.name.lower(): c for c in theirs.columns}
    fields, missing, used = [], [], set()
    for column in ours.columns:
        other = columns.get(column.name) or folded.get(column.name.lower())
        if other is None:
            missing.append(column.name)
            continue
        used.add(other.name)
        fields.append(Field(column=column, form=shared_form(column, other, same_engine=same_engine), target=other))
    missing.extend(c.name for c in theirs.columns if c.name not in used)
    return tuple(fields), missing


def _key(theirs: Table, fields: Sequence[Field]) -> tuple[str, ...]:
    names = {f.target.name for f in fields if f.target}
    for key in (theirs.primary_key, *theirs.uniques):
        if key and set(key.columns) <= names:
            return key.columns
    return ()
