"""The door to templates: configurations of migrations and comparisons that are kept and run again by name.

A template names its connections by id, so it follows a connection that gets another name. It is there for whoever may see both of them;
running it needs the rights that the same plan, apply or verify needs by hand.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from dblens.errors import InvalidInput, NotFound
from dblens.migrate.apply import Outcome
from dblens.migrate.compare import Comparison
from dblens.migrate.options import Options
from dblens.redaction import Secret
from dblens.store import plans
from dblens.store.rows import Page
from dblens.workspace.migrations import Migrations
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.registry import Level
from dblens.workspace.sides import visible

Kind: TypeAlias = Literal["migration", "verify"]
_TWO: dict[str, Level] = {"source": "use", "target": "use"}


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a comparison looks at; see `migrations.verify`."""

    tables: tuple[str, ...] = ()
    where: str | None = None
    tolerance: dict[str, float] | None = None
    shared_columns: bool = False


class Configuration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a template runs: `options` and the losses it accepts of a migration, `check` of a comparison."""

    options: Options = Options()
    accept: tuple[str, ...] = ()
    check: Check = Check()


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    target: str
    configuration: Configuration


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A kept configuration; source and target are ids of connections."""

    id: str
    name: str
    kind: Kind
    source: str
    target: str
    configuration: Configuration
    created_by: str | None
    created_at: dt.datetime
    updated_at: dt.datetime


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a template: of a migration its plan and outcome, of a comparison its verdicts."""

    template: str
    plan: str | None = None
    outcome: Outcome | None = None
    comparison: Comparison | None = None


def _view(door: Templates, given: Mapping[str, Any]) -> Sequence[tuple[object, Level]]:
    found = door._named(given["template"])
    return (found.source, "view"), (found.target, "view")


def _use(door: Templates, given: Mapping[str, Any]) -> Sequence[tuple[object, Level]]:
    found = door._named(given["template"])
    return (found.source, "use"), (found.target, "use")


class Templates(Door):
    """Keep configurations, and run them."""

    @operation(
        "template.create",
        on="connection",
        connections=_TWO,
        mutates=True,
        cost="light",
        shown=("name", "kind"),
        target="name",
    )
    def create(
        self,
        name: str,
        source: str,
        target: str,
        *,
        kind: Kind = "migration",
        configuration: Configuration = Configuration(),
    ) -> Template:
        """Keep a configuration under a name. Raises InvalidInput, Conflict for a name that is taken."""
        _known(kind, configuration)
        principal = self.context.principal
        with self.context.store.write() as tx:
            made = plans.create_template(
                tx,
                principal.org_id or "",
                name=name,
                kind=kind,
                body=_body(source, target, configuration),
                created_by=principal.user_id,
                now=self.context.clock(),
            )
        return _template(made)

    @operation("template.list", on="organization", cost="light", shown=("kind", "limit", "after"))
    def list(self, *, kind: Kind | None = None, limit: int = 50, after: str | None = None) -> Page[Template]:
        """List the templates between connections that are shared with the caller."""
        seen, found = visible(self.context), list[Template]()
        while True:
            with self.context.store.read() as tx:
                part = plans.list_templates(
                    tx, self.context.principal.org_id or "", kind=kind, limit=limit, after=after
                )
            for item in map(_template, part.items):
                if item.source in seen and item.target in seen:
                    if len(found) == limit:
                        return Page(items=tuple(found), after=found[-1].id)
                    found.append(item)
            if part.after is None:
                return Page(items=tuple(found))
            after = part.after

    @operation("template.read", on="connection", level="view", locate=_view, cost="light", shown=("template",))
    def read(self, template: str) -> Template:
        """Return a template by its id or name. Raises NotFound."""
        return self._named(template)

    @operation(
        "template.update", on="connection", locate=_use, mutates=True, cost="light", shown=("name",), target="template"
    )
    def update(self, template: str, *, name: str | None = None, configuration: Configuration | None = None) -> Template:
        """Give a template another name or configuration. Raises InvalidInput, NotFound, Conflict."""
        found = self._named(template)
        if configuration is not None:
            _known(found.kind, configuration)
        body = None if configuration is None else _body(found.source, found.target, configuration)
        with self.context.store.write() as tx:
            changed = plans.update_template(
                tx, self.context.principal.org_id or "", found.id, name=name, body=body, now=self.context.clock()
            )
        return _template(changed)

    @operation("template.delete", on="connection", locate=_use, mutates=True, cost="light", target="template")
    def delete(self, template: str) -> None:
        """Delete a template; its runs stay. Raises NotFound."""
        found = self._named(template)
        with self.context.store.write() as tx:
            plans.delete_template(tx, self.context.principal.org_id or "", found.id)

    @operation(
        "template.run",
        permission="template.read",
        on="connection",
        locate=_use,
        lock=1,
        mutates=True,
        long=True,
        cost="heavy",
        shown=("template",),
        target="template",
    )
    def run(self, template: str, *, mask_key: Secret | None = None) -> Ran:
        """Run a template: plan and apply with the losses that it accepts, or compare. Each part needs its own right.

        Raises LossNotAccepted for a loss that the template does not know, and what plan, apply and verify raise.
        """
        found, migrations = self._named(template), Migrations(self.context)
        configuration = found.configuration
        tell(kind=found.kind, name=found.name)
        if found.kind == "verify":
            check = msgspec.structs.asdict(configuration.check)
            return Ran(template=found.id, comparison=migrations.verify(found.source, found.target, **check))
        plan = migrations.plan(found.source, found.target, configuration.options)
        there = {loss.id for loss in plan.losses} | {"all"}
        accept = [id for id in configuration.accept if id in there]
        outcome = migrations.apply(plan.id, plan.hash, accept=accept, mask_key=mask_key)
        return Ran(template=found.id, plan=plan.id, outcome=outcome)

    # ------------------------------------------------------------------------------------------------------------------ parts

    def _named(self, reference: str) -> Template:
        """Return a template by its id, else by its name. Raises NotFound."""
        org_id = self.context.principal.org_id or ""
        with self.context.store.read() as tx:
            try:
                return _template(plans.get_template(tx, org_id, reference))
            except NotFound:
                return _template(plans.find_template(tx, org_id, reference))


def _template(row: plans.Template) -> Template:
    body = msgspec.convert(row.body, _Body)
    return Template(
        id=row.id,
        name=row.name,
        kind="verify" if row.kind == "verify" else "migration",
        source=body.source,
        target=body.target,
        configuration=body.configuration,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _body(source: str, target: str, configuration: Configuration) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(
        _Body(source=source, target=target, configuration=configuration), builtin_types=()
    )
    return found


def _known(kind: str, configuration: Configuration) -> None:
    if kind not in ("migration", "verify"):
        raise InvalidInput(f"kind is {kind!r}", hint="migration or verify")
    if kind == "verify" and (configuration.options != Options() or configuration.accept):
        raise InvalidInput("a comparison takes no options of a migration", hint="give a check")
    if kind == "migration" and configuration.check != Check():
        raise InvalidInput("a migration verifies everything", hint="a check is for kind verify")
