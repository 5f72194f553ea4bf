"""Make a plan: read both sides, convert, question every value, and write nothing."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

import msgspec

from dblens.engines.base import ARRAY, Build, CheckResult, Field, Place, Target
from dblens.errors import Conflict, DBLensError, InvalidInput, Unsupported
from dblens.events import Progress, Report, StepDone, StepStarted, silent
from dblens.migrate.align import Nesting, align_foreign_keys, nest, nestings
from dblens.migrate.convert import Converted, Converter, Side
from dblens.migrate.cost import estimate
from dblens.migrate.link import Link
from dblens.migrate.model import Endpoint, Loss, Notice, Plan, TablePlan, seal
from dblens.migrate.nested import array_tables, as_array, leave_orphans
from dblens.migrate.options import Options, RuleBook, matches
from dblens.schema.model import Schema, Table
from dblens.schema.stable import schema_hash
from dblens.transfer.copy import TableCopy, choose_format
from dblens.values.forms import CODEC_VERSION
from dblens.version import __version__


def make_plan(source: Link, target: Link, options: Options, *, report: Report = silent) -> Plan:
    """Plan a migration without writing to either side.

    Raises Conflict when the target already has the tables and `existing` says refuse, InvalidInput for rules that match nothing,
    NotFound for a missing target database unless `create_target`.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(closing(source.connect(read_only=True)))
        writer = target.exists() if options.create_target else target.connect()
        missing = writer is None
        writer = stack.enter_context(closing(writer or target.server()))
        return _Planner(source, target, reader, writer, missing, options, report).plan()


class _Planner:
    def __init__(
        self,
        source: Link,
        target: Link,
        reader: Target,
        writer: Target,
        missing: bool,
        options: Options,
        report: Report,
    ) -> None:
        self.source, self.target = source, target
        self.reader, self.writer, self.missing = reader, writer, missing
        self.options, self.report = options, report
        self.run = secrets.token_hex(5)
        self.rules = RuleBook(options)
        self.losses: list[Loss] = []
        self.blocks: list[Notice] = []
        self.exclusions: list[Notice] = []
        self.transforms: list[str] = []
        self.dropped_keys: set[tuple[str, str | None]] = set()

    def _step(self, name: str, start: float, detail: str = "") -> float:
        now = time.monotonic()
        self.report(StepDone(name, now - start, detail))
        return now

    def plan(self) -> Plan:
        clock = time.monotonic()
        self.report(StepStarted("inspect"))
        snapshot = self.reader.begin_snapshot()
        try:
            schema = self.reader.inspect(namespaces=self.options.namespaces)
            there = (
                Schema(engine=self.writer.engine.name, version=self.writer.version, database="")
                if self.missing
                else self.writer.inspect()
            )
            clock = self._step("inspect", clock, f"{len(schema.tables)} tables")
            tables = self._chosen(schema)
            tables += array_tables(self.options, self.reader, self.target.engine, schema, tables)
            self.report(StepStarted("profile"))
            profiled = [self.reader.profile(table, self.report) for table in tables]
            clock = self._step("profile", clock)
            plans = self._tables(schema, profiled, there)
            self._step("check", clock, f"{len(self.losses)} losses")
            return self._assemble(schema, there, plans, snapshot.note or snapshot.id)
        finally:
            self.reader.end_snapshot()

    # ---- what to take

    def _chosen(self, schema: Schema) -> list[Table]:
        chosen = []
        for pattern in self.options.tables:
            if not any(matches(pattern, t.namespace, t.name) for t in schema.tables):
                raise InvalidInput(
                    f"no table matches {pattern!r} in the source",
                    hint="names are case-sensitive; `dblens schema show URL` lists them",
                )
        for table in schema.tables:
            wanted = not self.options.tables or any(
                matches(p, table.namespace, table.name) for p in self.options.tables
            )
            left_out = any(matches(p, table.namespace, table.name) for p in self.options.exclude) or any(
                r.exclude for r in self.rules.for_table(table.namespace, table.name)
            )
            name = f"{table.namespace}.{table.name}"
            if table.kind == "partition":
                continue  # its rows come through the parent
            if not wanted or left_out:
                self.exclusions.append(Notice(kind="table", name=name, reason="not chosen"))
            elif table.kind == "foreign":
                self.exclusions.append(Notice(kind="foreign table", name=name, reason="its rows lie on another server"))
            else:
                chosen.append(table)
        if not chosen:
            raise InvalidInput(
                f"the source {self.reader.fingerprint_id} has no table to migrate",
                hint="check the database name and --tables / --exclude",
            )
        return chosen

    def _other_objects(self, schema: Schema) -> None:
        for view in schema.views:
            kind = "materialized view" if view.materialized else "view"
            self.exclusions.append(
                Notice(
                    kind=kind,
                    name=f"{view.namespace}.{view.name}",
                    reason="views are listed, not migrated",
                    source=view.definition,
                )
            )
        for routine in schema.routines:
            self.exclusions.append(
                Notice(
                    kind=routine.kind,
                    name=f"{routine.namespace}.{routine.name}",
                    reason="routines are listed, not migrated",
                    source=routine.source,
                )
            )
        for sequence in schema.sequences:
            if sequence.owned_by is None:
                self.exclusions.append(
                    Notice(
                        kind="sequence",
                        name=f"{sequence.namespace}.{sequence.name}",
                        reason="no table owns it",
                        source=f"start {sequence.start} increment {sequence.increment} next {sequence.next}",
                    )
                )

    # ---- tables

    def _tables(self, schema: Schema, tables: Sequence[Table], there: Schema) -> list[TablePlan]:
        home = self.reader.engine.facts.default_namespace or self.reader.database
        into = self.options.into or self.target.engine.facts.default_namespace or (self.target.url.database or "")
        converter = Converter(
            Side(self.reader.engine, self.reader.flavour, home),
            Side(self.target.engine, self.writer.flavour, into),
            self.options,
            self.rules,
            {f"{s.namespace}.{s.name}": s for s in schema.sequences},
        )
        nested = nestings(self.options, tables, self.target.engine)
        several = len({t.namespace for t in tables}) > 1
        rules = {id(t): converter.place(t, several)[1] for t in tables}
        live = {(t.namespace, t.name): t for t in there.tables}
        live_names = {(v.namespace, v.name) for v in there.views}
        taken = [p for s, p in converter.places.items() if s not in nested and (p in live or p in live_names)]
        self._existing(taken, live_names)
        converted: list[tuple[Converted, Place, Table | None]] = []
        append = self.options.existing == "append" or self.options.content == "data"
        for table in tables:
            place = converter.places[(table.namespace, table.name)]
            existing = live.get(place) if append else None
            if self.options.content == "data" and existing is None:
                raise InvalidInput(
                    f"the target has no table {place[1]!r} to take the data of {table.name!r}",
                    hint="migrate the schema too (--content all)",
                )
            try:
                converted.append((converter.convert(table, rules[id(table)], existing), place, existing))
            except Unsupported as error:
                self.blocks.append(Notice(kind="table", name=f"{table.namespace}.{table.name}", reason=error.message))
        align_foreign_keys([c for c, _, _ in converted], self.target.engine)
        by_source = {(c.source.namespace, c.source.name): c for c, _, _ in converted}
        plans = []
        for i, (c, place, existing) in enumerate(converted):
            self.report(Progress("check tables", i, len(converted), "tables"))
            as_array(c, by_source)
            nesting = nested.get((c.source.namespace, c.source.name))
            parent = by_source.get((nesting.parent.namespace, nesting.parent.name)) if nesting else None
            if nesting is None:
                plans.append(self._table(c, place, place in live, existing))
            elif parent is not None:  # else it is blocked, and so is the plan
                plans.append(self._embedded(c, parent, nesting, live))
        self.rules.check()
        self._other_objects(schema)
        return plans

    def _embedded(self, c: Converted, parent: Converted, nesting: Nesting, live: dict[Place, Table]) -> TablePlan:
        """Plan a table whose rows become elements of another's documents."""
        place = (parent.target.namespace, parent.target.name)
        waiting = self.target.engine.ddl.staged((place[0], f"{place[1]}[]{c.target.name}"), self.run)
        embedding = nest(c, parent, nesting, waiting)
        own = c.where
        left = leave_orphans(c, parent, nesting, self.reader) if self.options.content != "schema" else None
        if left:
            self.losses.append(left)
        made = self._table(c, place, place in live, None)
        mode = "none" if made.mode == "none" else "fast"
        return msgspec.structs.replace(made, embedding=embedding, mode=mode, filter=own if left else None)

    def _existing(self, taken: Sequence[Place], views: set[Place]) -> None:
        if not taken:
            return
        names = ", ".join(f"{n}.{t}" for n, t in taken[:10]) + (" …" if len(taken) > 10 else "")
        if self.options.existing == "refuse" and self.options.content != "data":
            raise Conflict(
                f"the target already has {len(taken)} of the tables: {names}",
                hint="choose --existing replace (the old ones are kept until finalize) or --existing append",
            )
        covered = [p for p in taken if p in views]
        if covered:
            raise Conflict(
                f"the target has views of the same names: {', '.join('.'.join(p) for p in covered)}",
                hint="rename the tables by a rule, or drop the views",
            )
        if self.options.existing == "replace":
            for dependent in self.writer.dependents(taken):
                self.blocks.append(
                    Notice(kind="dependent", name=dependent, reason="it depends on a table that would be replaced")
                )

    def _table(self, c: Converted, live: Place, present: bool, existing: Table | None) -> TablePlan:
        label = f"{c.source.namespace}.{c.source.name}"
        self.exclusions.extend(c.exclusions)
        self.transforms.extend(c.transforms)
        results = self.reader.check(c.source, c.checks, where=c.where) if c.checks else []
        repairs: dict[str, list[CheckResult]] = {}
        for (field, check), result in zip(c.checks, results, strict=True):
            if not result.count:
                continue
            if check.repair == "block":
                self.blocks.append(
                    Notice(
                        kind="values",
                        name=f"{label}.{field.column.name}",
                        reason=f"{result.count} values: {check.why or check.kind}; for example at {_keys(result.samples)}",
                    )
                )
                continue
            repairs.setdefault(field.column.name, []).append(result)
            self.losses.append(
                Loss(
                    id=f"{label}.{field.column.name}:{check.kind}",
                    table=label,
                    column=field.column.name,
                    kind=check.kind,
                    repair=check.repair,
                    count=result.count,
                    samples=result.samples,
                    why=check.why,
                )
            )
        fields = tuple(_repaired(f, repairs.get(f.column.name, [])) for f in c.fields)
        target = _nullable_where_nulled(c.target, fields)
        target = self._without_orphans(c, target, label)
        if existing is not None:
            target = msgspec.structs.replace(target, foreign_keys=(), indexes=(), uniques=(), checks=())
        by_name = {col.name: col for col in target.columns}
        fields = tuple(msgspec.structs.replace(f, target=by_name[f.target.name]) if f.target else f for f in fields)
        rows = 0 if self.options.content == "schema" else self.reader.count(c.source, where=c.where)
        job = TableCopy(source=c.source, target=target, place=live, fields=fields, masks=c.masks)
        ddl = self.target.engine.ddl
        mode = "none" if self.options.content == "schema" else self.options.mode
        if mode == "auto":
            mode = "fast" if rows <= self.target.engine.facts.fast_rows_limit else "ledger"
        return TablePlan(
            source=c.source,
            target=target,
            live=live,
            staged=ddl.staged(live, self.run),
            previous=ddl.previous(live, self.run) if present and existing is None else None,
            fields=fields,
            rows=rows,
            mode=mode,
            format=choose_format(self.reader, self.writer, job),
            where=c.where,
            masks=c.masks,
            transforms=tuple(c.transforms),
            append=existing is not None,
        )

    def _without_orphans(self, c: Converted, target: Table, label: str) -> Table:
        """Leave out foreign keys that the source's own rows break, as a loss to accept, so that the rest can be enforced."""
        if ARRAY in c.source.options:
            return target  # every element lies in its document
        keep = []
        for key in target.foreign_keys:
            origin = next(
                (k for k in c.source.foreign_keys if k.name == key.name and len(k.columns) == len(key.columns)), None
            )
            if origin is None or (self.reader.engine.facts.enforces_foreign_keys and origin.validated):
                keep.append(key)
                continue
            referred = (origin.namespace or c.source.namespace, origin.table)
            count, samples = self.reader.orphans((c.source.namespace, c.source.name), origin, referred)
            if not count:
                keep.append(key)
                continue
            self.losses.append(
                Loss(
                    id=f"{label}.{','.join(origin.columns)}:orphans",
                    table=label,
                    column=",".join(origin.columns),
                    kind="orphans",
                    repair="none",
                    count=count,
                    samples=tuple(tuple(s) for s in samples),
                    why=f"rows refer to nothing in {referred[1]}; the foreign key is left out",
                )
            )
        return msgspec.structs.replace(target, foreign_keys=tuple(keep))

    # ---- the whole

    def _assemble(self, schema: Schema, there: Schema, plans: list[TablePlan], note: str) -> Plan:
        for lacking in self.reader.missing_privileges(write=False):
            self.blocks.append(Notice(kind="privilege", name="source", reason=lacking))
        if not self.missing:
            for lacking in self.writer.missing_privileges(write=True):
                self.blocks.append(Notice(kind="privilege", name="target", reason=lacking))
        ddl = self.target.engine.ddl
        types = schema.types if self.reader.engine.name == self.target.engine.name else ()
        places = {p.live: p.staged for p in plans}
        build = Build()
        try:
            own = [p.target for p in plans if not p.embedding]
            build = ddl.build(own, places, types, self.writer.flavour)
        except DBLensError as error:
            self.blocks.append(Notice(kind="ddl", name="target", reason=error.message))
        cost = estimate(plans, self.reader, None if self.missing else self.writer, self.target.engine)
        if cost.target_free is not None and cost.target_free < cost.octets * 2:
            needs = f"needs about {cost.octets * 2} octets (data and indexes), {cost.target_free} are free"
            self.blocks.append(Notice(kind="disk", name="target", reason=needs))
        return seal(
            Plan(
                id=self.run,
                created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                dblens=__version__,
                codec=CODEC_VERSION,
                source=Endpoint(
                    url=str(self.source.url),
                    engine=self.reader.engine.name,
                    flavour=self.reader.flavour,
                    version=self.reader.version,
                    identity=self.reader.fingerprint_id,
                    schema_hash=schema_hash(schema),
                ),
                target=Endpoint(
                    url=str(self.target.url),
                    engine=self.target.engine.name,
                    flavour=self.writer.flavour,
                    version=self.writer.version,
                    identity=self.writer.fingerprint_id if not self.missing else str(self.target.url),
                    schema_hash=schema_hash(there),
                    missing=self.missing,
                ),
                options=self.options,
                tables=tuple(plans),
                types=types,
                build=build,
                losses=tuple(self.losses),
                blocks=tuple(self.blocks),
                exclusions=tuple(self.exclusions),
                notes=tuple(self._notes(plans)),
                swap=tuple(_swap_text(p) for p in plans if not p.embedding),
                undo=tuple(_undo_text(p) for p in plans if not p.embedding),
                snapshot=note,
                cost=cost,
            )
        )

    def _notes(self, plans: Sequence[TablePlan]) -> list[str]:
        notes = []
        atomic = self.writer.supports("atomic_swap")
        if not atomic.ok:
            notes.append(f"the swap is not atomic: {atomic.why}")
        if any(not (p.target.primary_key or p.target.uniques) for p in plans):
            notes.append("tables without a key are compared as multisets: a differing row is shown whole")
        if self.options.existing == "replace":
            notes.append("replaced tables are kept until `dblens migrate finalize`")
        return notes


def _repaired(field: Field, results: Sequence[CheckResult]) -> Field:
    repairs = tuple(r.check for r in results if r.check.repair != "none")
    return msgspec.structs.replace(field, repairs=repairs) if repairs else field


def _nullable_where_nulled(table: Table, fields: Sequence[Field]) -> Table:
    """Return the table whose columns accept NULL where losses become NULL."""
    nulled = {f.target.name for f in fields if f.target and any(r.repair == "null" for r in f.repairs)}
    key = set(table.primary_key.columns) if table.primary_key else set()
    columns = tuple(
        msgspec.structs.replace(c, nullable=True) if c.name in nulled and c.name not in key else c
        for c in table.columns
    )
    return msgspec.structs.replace(table, columns=columns)


def _keys(samples: Sequence[Sequence[str | None]]) -> str:
    return "; ".join(", ".join("NULL" if v is None else v for v in s) for s in samples) or "unknown keys"


def _swap_text(plan: TablePlan) -> str:
    staged, live = ".".join(plan.staged), ".".join(plan.live)
    if plan.append:
        return f"append {staged} to {live}, keeping a pre-image"
    away = f"{live} -> {'.'.join(plan.previous)}, then " if plan.previous else ""
    return f"{away}{staged} -> {live}"


def _undo_text(plan: TablePlan) -> str:
    live = ".".join(plan.live)
    if plan.append:
        return f"delete what was appended to {live} and put its pre-image back"
    return f"{'.'.join(plan.previous)} -> {live}" if plan.previous else f"drop {live}"
