"""The door to migrations: plan, apply, resume, verify, roll back, finalize.

A side is a stored connection or, on one's own machine, an address. A plan between stored connections is kept, and applied by its id and
hash: what is carried out is what was planned here, never a document that somebody sends.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec

from dblens.errors import InvalidInput, StalePlan
from dblens.migrate import model
from dblens.migrate.apply import Outcome, ResumeMode, apply_plan, check_acceptance, resume
from dblens.migrate.compare import Comparison, compare, compare_planned
from dblens.migrate.link import Link, link
from dblens.migrate.model import Plan
from dblens.migrate.options import Options
from dblens.migrate.plan import make_plan
from dblens.migrate.undo import RunStatus, finalize, rollback, status
from dblens.redaction import Secret
from dblens.store import plans
from dblens.store.rows import Page
from dblens.workspace import masks
from dblens.workspace.executor import stopping
from dblens.workspace.lines import Line
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.registry import Level
from dblens.workspace.sides import manages_all, sides, visible

__all__ = ["Cloned", "Kept", "Migrations", "link"]

_TWO: dict[str, Level] = {"source": "use", "target": "use"}
_SHOWN = ("options.content", "options.existing", "options.create_target", "options.tables", "options.exclude")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A stored plan in a list."""

    id: str
    hash: str
    source_id: str
    source: str
    target_id: str
    target: str
    created_by: str | None
    created_at: str


class Cloned(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a database: the connection to it, and the proof."""

    connection: str
    name: str
    outcome: Outcome


def _of_plan(door: Migrations, given: Mapping[str, Any]) -> Sequence[tuple[object, Level]]:
    """Return the sides of a plan: those it was made with, or an address for each where the plan is a document."""
    plan = given["plan"]
    if isinstance(plan, str):
        if given.get("source") is not None or given.get("target") is not None:
            raise InvalidInput("a stored plan has its own sides", hint="leave out source and target")
        found = door._kept(plan)
        return (found.source_id, "use"), (found.target_id, "use")
    if door.context.principal.kind != "local":
        raise InvalidInput(
            "a plan is applied by its id and hash, not as a document",
            hint="migration.plan keeps what it made; use the id and hash of its answer",
        )
    source, target = given.get("source"), given.get("target")
    return (plan.source.url if source is None else source, "use"), (
        plan.target.url if target is None else target,
        "use",
    )


def _of_stored(door: Migrations, given: Mapping[str, Any]) -> Sequence[tuple[object, Level]]:
    found = door._kept(given["migration"])
    return (found.source_id, "use"), (found.target_id, "use")


class Migrations(Door):
    """Move databases with proof, and undo it."""

    @operation("migration.plan", on="connection", connections=_TWO, long=True, cost="heavy", shown=_SHOWN)
    def plan(self, source: str | Link, target: str | Link, options: Options = Options()) -> Plan:
        """Plan a migration without writing to either side; between stored connections the plan is kept.

        Raises Conflict, InvalidInput, NotFound, and PermissionDenied for a target that is read-only.
        """
        options = options or Options()
        with sides(self.context, source, target) as (left, right):
            _writable(right)
            if isinstance(right, Line):
                options = masks.keyed(self.context, options)
            made = make_plan(left, right, options, report=self.context.report)
            if isinstance(left, Line) and isinstance(right, Line):
                self._keep(made, left.connection.id, right.connection.id)
        tell(plan=made.id, hash=made.hash, tables=len(made.tables), losses=len(made.losses))
        return made

    @operation(
        "migration.apply",
        on="connection",
        locate=_of_plan,
        lock=1,
        mutates=True,
        long=True,
        cost="heavy",
        shown=("hash", "accept"),
    )
    def apply(
        self,
        plan: str | Plan,
        hash: str | None = None,
        *,
        source: str | Link | None = None,
        target: str | Link | None = None,
        accept: Sequence[str] = (),
        mask_key: Secret | None = None,
    ) -> Outcome:
        """Apply a stored plan by its id and hash: copy, verify every row, swap.

        On one's own machine the plan may be a document, for other sides than its own too. Raises LossNotAccepted, StalePlan,
        VerificationFailed.
        """
        found, source, target = self._plan(plan, hash, source, target)
        with sides(self.context, source, target) as (left, right):
            _writable(right)
            tell(target=found.id, hash=found.hash)
            outcome = apply_plan(
                found,
                left,
                right,
                accept=accept,
                mask_key=masks.key(self.context, found, mask_key),
                report=self.context.report,
            )
        tell(rows=outcome.rows, equal=outcome.equal)
        return outcome

    @operation(
        "migration.resume",
        permission="migration.apply",
        on="connection",
        connections=_TWO,
        lock="target",
        mutates=True,
        long=True,
        cost="heavy",
        shown=("run", "mode"),
        target="run",
    )
    def resume(
        self,
        source: str | Link,
        target: str | Link,
        run: str | None = None,
        *,
        mode: ResumeMode = "strict",
        mask_key: Secret | None = None,
    ) -> Outcome:
        """Go on with a migration that stopped. Raises NotFound, StalePlan when a schema changed, VerificationFailed."""
        with sides(self.context, source, target) as (left, right):
            _writable(right)
            key = masks.key(self.context, None, mask_key)
            return resume(run, left, right, mode=mode, mask_key=key, report=self.context.report)

    @operation(
        "migration.compare",
        permission="verify.run",
        on="connection",
        connections=_TWO,
        long=True,
        cost="heavy",
        shown=("tables", "shared_columns", "repair"),
    )
    def verify(
        self,
        source: str | Link,
        target: str | Link,
        *,
        tables: Sequence[str] = (),
        where: str | None = None,
        tolerance: dict[str, float] | None = None,
        shared_columns: bool = False,
        repair: bool = False,
    ) -> Comparison:
        """Compare two databases row by row as they are. `repair` returns statements that would mend the target; it runs none."""
        with sides(self.context, source, target) as (left, right):
            found = compare(
                left,
                right,
                tables=tables,
                where=where,
                tolerance=tolerance,
                shared_columns=shared_columns,
                repair=repair,
                report=self.context.report,
            )
        tell(equal=found.equal)
        return found

    @operation("migration.verify", on="connection", locate=_of_plan, long=True, cost="heavy", shown=("hash",))
    def verify_plan(
        self,
        plan: str | Plan,
        hash: str | None = None,
        *,
        source: str | Link | None = None,
        target: str | Link | None = None,
        mask_key: Secret | None = None,
    ) -> Comparison:
        """Compare a migration's live tables with its source row by row as its plan says: names, masks, losses, shapes of documents."""
        found, source, target = self._plan(plan, hash, source, target)
        with sides(self.context, source, target) as (left, right):
            key = masks.key(self.context, found, mask_key)
            compared = compare_planned(found, left, right, key, self.context.report)
        tell(target=found.id, equal=compared.equal)
        return compared

    @operation(
        "migration.rollback",
        on="connection",
        connections={"target": "use"},
        lock="target",
        mutates=True,
        long=True,
        shown=("run", "discard_changes"),
        target="run",
    )
    def rollback(self, target: str | Link, run: str | None = None, *, discard_changes: bool = False) -> str:
        """Bring the target back to where it was; return the migration's id. Raises Irreversible when it was written since the swap."""
        with sides(self.context, target) as (right,):
            _writable(right)
            return rollback(run, right, discard_changes=discard_changes, report=self.context.report)

    @operation(
        "migration.finalize",
        on="connection",
        connections={"target": "use"},
        lock="target",
        mutates=True,
        long=True,
        shown=("run",),
        target="run",
    )
    def finalize(self, target: str | Link, run: str | None = None) -> str:
        """Drop the replaced copy for good; return the migration's id."""
        with sides(self.context, target) as (right,):
            _writable(right)
            return finalize(run, right, report=self.context.report)

    @operation(
        "migration.clone",
        on="connection",
        connections={"source": "use", "on": "manage"},
        mutates=True,
        long=True,
        cost="heavy",
        shown=("name", "database", "accept"),
        target="name",
    )
    def clone(
        self, source: str, name: str, on: str, *, database: str | None = None, accept: Sequence[str] = ()
    ) -> Cloned:
        """Copy a connection's database into a new one on another's server, of any engine, and verify it; it gets a connection.

        `database` is called like the connection when it is not given. Raises LossNotAccepted before anything was made, Conflict when
        there is such a connection or database, InvalidInput, PermissionDenied, VerificationFailed.
        """
        from dblens.workspace.connections import Connections

        database = database or name
        options = Options(create_target=True)
        with sides(self.context, source, on) as (left, server):
            _writable(server)
            assert isinstance(server, Line)
            right = server.beside(database)
            with closing(right), stopping(right.cancel):
                made = make_plan(left, right, options, report=self.context.report)
            accepted = accept if "all" in accept else [id for id in accept if id in {loss.id for loss in made.losses}]
            check_acceptance(made, accepted)
        new = Connections(self.context).create_database(on, database, name=name)
        self._keep(made, source, new.id)
        tell(target=new.id, plan=made.id)
        outcome = self.apply(made.id, made.hash, accept=accepted)
        return Cloned(connection=new.id, name=new.name, outcome=outcome)

    @operation("migration.status", permission="migration.list", on="connection", connections={"target": "view"})
    def status(self, target: str | Link) -> builtins.list[RunStatus]:
        """Return the migrations that a target knows."""
        with sides(self.context, target) as (right,):
            return status(right)

    # ---------------------------------------------------------------------------------------------------------- stored plans

    @operation("migration.list", on="organization", cost="light", shown=("source", "target", "limit", "after"))
    def list(
        self, *, source: str | None = None, target: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[Kept]:
        """List the stored plans between connections that are shared with the caller, the newest first; `source` and `target` are names or ids."""
        context, org_id = self.context, self.context.principal.org_id or ""
        names = visible(context)
        ids = {name: id for id, name in names.items()}
        source, target = (None if side is None else ids.get(side, side) for side in (source, target))
        among = None if manages_all(context.principal) else tuple(names)
        with context.store.read() as tx:
            found = plans.list_plans(
                tx, org_id, source_id=source, target_id=target, among=among, limit=limit, after=after
            )
        return Page(items=tuple(_shown(plan, names) for plan in found.items), after=found.after)

    @operation("migration.read", on="connection", locate=_of_stored, cost="light", shown=("migration",))
    def read(self, migration: str) -> Plan:
        """Return a stored plan. Raises NotFound."""
        return self._document(migration)

    @operation(
        "migration.delete",
        permission="migration.plan",
        on="connection",
        locate=_of_stored,
        mutates=True,
        cost="light",
        target="migration",
    )
    def delete(self, migration: str) -> None:
        """Delete a stored plan; what was applied by it stays. Raises NotFound."""
        with self.context.store.write() as tx:
            plans.delete_plan(tx, self.context.principal.org_id or "", migration)

    # ------------------------------------------------------------------------------------------------------------------ parts

    def _kept(self, plan_id: str) -> plans.Plan:
        with self.context.store.read() as tx:
            return plans.get_plan(tx, self.context.principal.org_id or "", plan_id)

    def _document(self, plan_id: str) -> Plan:
        with self.context.store.read() as tx:
            return model.read(plans.read_plan(tx, self.context.principal.org_id or "", plan_id))

    def _keep(self, made: Plan, source_id: str, target_id: str) -> None:
        principal = self.context.principal
        with self.context.store.write() as tx:
            plans.save_plan(
                tx,
                principal.org_id or "",
                made.id,
                hash=made.hash,
                document=model.write(made).encode(),
                source_id=source_id,
                target_id=target_id,
                created_by=principal.user_id,
                now=self.context.clock(),
            )

    def _plan(
        self, plan: str | Plan, hash: str | None, source: str | Link | None, target: str | Link | None
    ) -> tuple[Plan, str | Link, str | Link]:
        """Return the plan and its sides. Raises StalePlan for another hash than the plan's."""
        if isinstance(plan, str):
            kept = self._kept(plan)
            if hash is None and self.context.principal.kind != "local":
                raise InvalidInput("the plan's hash is missing", hint="it stands in the plan that was looked at")
            plan, source, target = self._document(plan), kept.source_id, kept.target_id
        if hash is not None and hash != plan.hash:
            raise StalePlan(f"the plan {plan.id} has another hash than {hash}", hint="look at it again: migration.read")
        return plan, self._side(source or plan.source.url), self._side(target or plan.target.url)

    def _side(self, reference: str | Link) -> str | Link:
        """Return the id of a stored connection: what `locate` names comes here as it was given."""
        return self.context.access.connection(self.context.principal, reference).id or reference


def _shown(plan: plans.Plan, names: Mapping[str, str]) -> Kept:
    return Kept(
        id=plan.id,
        hash=plan.hash,
        source_id=plan.source_id,
        source=names.get(plan.source_id, ""),
        target_id=plan.target_id,
        target=names.get(plan.target_id, ""),
        created_by=plan.created_by,
        created_at=plan.created_at.isoformat(),
    )


def _writable(right: Link) -> None:
    if isinstance(right, Line):
        right.writable()
