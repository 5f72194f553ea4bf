"""Migration plans as the service made them, and templates: saved configurations that are run again by name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput, NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import get_organization
from dblens.store.records import new_id
from dblens.store.rows import Page, allowed, columns, cut, fits, one, page, record, unique, values

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stored plan without reading it."""

    id: str
    org_id: str
    hash: str
    source_id: str
    target_id: str
    created_by: str | None
    created_at: dt.datetime


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A saved configuration; `kind` says of what (`migration`, …)."""

    id: str
    org_id: str
    name: str
    kind: str
    body: dict[str, Any]
    created_by: str | None
    created_at: dt.datetime
    updated_at: dt.datetime


def save_plan(
    tx: Transaction,
    org_id: str,
    plan_id: str,
    *,
    hash: str,
    document: bytes,
    source_id: str,
    target_id: str,
    created_by: str | None,
    now: dt.datetime,
) -> Plan:
    """Keep a plan under its own id; it never changes. Raises InvalidInput, NotFound, Conflict for an id that is taken."""
    get_organization(tx, org_id)
    made = Plan(
        id=fits("id", plan_id, 32),
        org_id=org_id,
        hash=fits("hash", hash, 64),
        source_id=source_id,
        target_id=target_id,
        created_by=created_by,
        created_at=now,
    )
    with unique(tx, f"there is already a plan {plan_id!r}", "plan again"):
        tx.execute(t.plans.insert().values(**values(t.plans, **msgspec.structs.asdict(made), document=document)))
    return made


def get_plan(tx: Transaction, org_id: str, plan_id: str) -> Plan:
    """Return what is known of a plan. Raises NotFound."""
    return record(Plan, one(tx, _plans(org_id).where(t.plans.c.id == plan_id), f"no plan {plan_id!r}"))


def read_plan(tx: Transaction, org_id: str, plan_id: str) -> bytes:
    """Return a plan's document, byte for byte. Raises NotFound."""
    query = sa.select(t.plans.c.document).where(t.plans.c.org_id == org_id, t.plans.c.id == plan_id)
    return bytes(one(tx, query, f"no plan {plan_id!r}").document)


def list_plans(
    tx: Transaction,
    org_id: str,
    *,
    source_id: str | None = None,
    target_id: str | None = None,
    among: Collection[str] | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Plan]:
    """List plans, the newest first; `among`: only those with both sides among these. Raises InvalidInput."""
    query = _plans(org_id)
    if among is not None:
        query = query.where(t.plans.c.source_id.in_(among), t.plans.c.target_id.in_(among))
    for column, value in ((t.plans.c.source_id, source_id), (t.plans.c.target_id, target_id)):
        if value is not None:
            query = query.where(column == value)
    c = t.plans.c
    if after is not None:  # by time, then by id: a plan's id is its own and does not sort by time
        at, _, last = after.partition(".")
        if not at.isascii() or not at.isdigit() or len(at) > 18:
            raise InvalidInput(f"after is {after!r}", hint="take it from the part before")
        then = _EPOCH + dt.timedelta(microseconds=int(at))
        query = query.where((c.created_at < then) | ((c.created_at == then) & (c.id < last)))
    query = query.order_by(c.created_at.desc(), c.id.desc()).limit(allowed(limit) + 1)
    return cut(
        [record(Plan, row) for row in tx.execute(query)],
        limit,
        lambda plan: f"{(plan.created_at - _EPOCH) // dt.timedelta(microseconds=1)}.{plan.id}",
    )


def delete_plan(tx: Transaction, org_id: str, plan_id: str) -> None:
    """Delete a plan. Raises NotFound."""
    where = t.plans.c.org_id == org_id, t.plans.c.id == plan_id
    if not tx.execute(t.plans.delete().where(*where)).rowcount:
        raise NotFound(f"no plan {plan_id!r}")


def _plans(org_id: str) -> sa.Select[Any]:
    return sa.select(*columns(Plan, t.plans)).where(t.plans.c.org_id == org_id)


# -------------------------------------------------------------------------------------------------------------------- templates


def create_template(
    tx: Transaction,
    org_id: str,
    *,
    name: str,
    kind: str,
    body: Mapping[str, Any],
    created_by: str | None,
    now: dt.datetime,
) -> Template:
    """Keep a configuration under a name. Raises InvalidInput, NotFound, Conflict for a name that is taken."""
    get_organization(tx, org_id)
    made = Template(
        id=new_id(),
        org_id=org_id,
        name=fits("name", name, 100),
        kind=fits("kind", kind, 40),
        body=dict(body),
        created_by=created_by,
        created_at=now,
        updated_at=now,
    )
    with unique(tx, f"there is already a template {name!r}", "give another name"):
        tx.execute(t.templates.insert().values(**values(t.templates, **msgspec.structs.asdict(made))))
    return made


def get_template(tx: Transaction, org_id: str, template_id: str) -> Template:
    """Return a template. Raises NotFound."""
    query = _templates(org_id).where(t.templates.c.id == template_id)
    return record(Template, one(tx, query, f"no template {template_id!r}"))


def find_template(tx: Transaction, org_id: str, name: str) -> Template:
    """Return a template by its name. Raises NotFound."""
    return record(Template, one(tx, _templates(org_id).where(t.templates.c.name == name), f"no template {name!r}"))


def list_templates(
    tx: Transaction, org_id: str, *, kind: str | None = None, limit: int = 50, after: str | None = None
) -> Page[Template]:
    """List templates. Raises InvalidInput."""
    query = _templates(org_id)
    if kind is not None:
        query = query.where(t.templates.c.kind == kind)
    return page(tx, query, lambda row: record(Template, row), by=t.templates.c.id, limit=limit, after=after)


def update_template(
    tx: Transaction,
    org_id: str,
    template_id: str,
    *,
    name: str | None = None,
    body: Mapping[str, Any] | None = None,
    now: dt.datetime,
) -> Template:
    """Change a template. Raises InvalidInput, NotFound, Conflict."""
    if name is None and body is None:
        raise InvalidInput("nothing to change", hint="give a name or a body")
    get_template(tx, org_id, template_id)
    row: dict[str, Any] = {"updated_at": now}
    if name is not None:
        row["name"] = fits("name", name, 100)
    if body is not None:
        row["body"] = dict(body)
    with unique(tx, f"there is already a template {name!r}", "give another name"):
        where = t.templates.c.org_id == org_id, t.templates.c.id == template_id
        tx.execute(t.templates.update().where(*where).values(**values(t.templates, **row)))
    return get_template(tx, org_id, template_id)


def delete_template(tx: Transaction, org_id: str, template_id: str) -> None:
    """Delete a template. Raises NotFound."""
    where = t.templates.c.org_id == org_id, t.templates.c.id == template_id
    if not tx.execute(t.templates.delete().where(*where)).rowcount:
        raise NotFound(f"no template {template_id!r}")


def _templates(org_id: str) -> sa.Select[Any]:
    return sa.select(*columns(Template, t.templates)).where(t.templates.c.org_id == org_id)
