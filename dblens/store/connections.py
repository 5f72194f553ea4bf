"""Connections of an organization and who may view, use or manage each.

Never a secret: those lie in `secrets`, keyed by the connection's id, and go with it. The owner has `manage`; a grant is to a member
or a team; the highest wins. What a role adds to that, or takes away, is judged above.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import get_member, get_organization
from dblens.store.records import new_id
from dblens.store.rows import Page, chosen, columns, contains, fits, one, page, record, unique, values
from dblens.store.teams import get_team, teams_of

Level: TypeAlias = Literal["view", "use", "manage"]
LEVELS: tuple[Level, ...] = ("view", "use", "manage")
ENVIRONMENTS = ("dev", "staging", "production")
KINDS = ("user", "team")
_CHANGEABLE = frozenset({"name", "fields", "environment", "colour", "read_only"})


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A named way to a database; `version` grows with each change and guards against two people changing it at once."""

    id: str
    org_id: str
    name: str
    engine: str
    fields: dict[str, Any]
    environment: str
    colour: str
    read_only: bool
    owner_id: str | None
    version: int
    created_at: dt.datetime
    updated_at: dt.datetime


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A connection as one user sees it: the level, and why it has that level (`owner`, `user` or a team's id)."""

    connection: Connection
    level: Level | None
    via: str | None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a user or a team may do with a connection."""

    connection_id: str
    org_id: str
    grantee_kind: str
    grantee_id: str
    level: str
    created_at: dt.datetime


def create_connection(
    tx: Transaction,
    org_id: str,
    *,
    name: str,
    engine: str,
    fields: Mapping[str, Any],
    environment: str = "dev",
    colour: str = "",
    read_only: bool = False,
    owner_id: str | None,
    now: dt.datetime,
) -> Connection:
    """Keep a connection; the owner must be a member. Raises InvalidInput, NotFound, Conflict for a name that is taken."""
    get_organization(tx, org_id)
    if owner_id is not None:
        get_member(tx, org_id, owner_id)
    made = Connection(
        id=new_id(),
        org_id=org_id,
        name=fits("name", name, 100),
        engine=fits("engine", engine, 20),
        fields=dict(fields),
        environment=chosen("environment", environment, ENVIRONMENTS),
        colour=colour,
        read_only=read_only,
        owner_id=owner_id,
        version=1,
        created_at=now,
        updated_at=now,
    )
    with _named(tx, name):
        tx.execute(t.connections.insert().values(**values(t.connections, **msgspec.structs.asdict(made))))
    return made


def get_connection(tx: Transaction, org_id: str, connection_id: str) -> Connection:
    """Return a connection. Raises NotFound."""
    query = _connections(org_id).where(t.connections.c.id == connection_id)
    return record(Connection, one(tx, query, f"no connection {connection_id!r}"))


def find_connection(tx: Transaction, org_id: str, name: str) -> Connection:
    """Return a connection by its name. Raises NotFound."""
    query = _connections(org_id).where(t.connections.c.name == name)
    return record(Connection, one(tx, query, f"no connection {name!r}"))


def list_connections(
    tx: Transaction,
    org_id: str,
    *,
    search: str | None = None,
    engine: str | None = None,
    environment: str | None = None,
    owner_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Connection]:
    """List all connections of an organization, whoever may see them. Raises InvalidInput."""
    query = _filtered(_connections(org_id), search, engine, environment, owner_id)
    return page(tx, query, lambda row: record(Connection, row), by=t.connections.c.id, limit=limit, after=after)


def list_shared(
    tx: Transaction,
    org_id: str,
    user_id: str,
    *,
    everything: bool = False,
    only: Collection[str] | None = None,
    search: str | None = None,
    engine: str | None = None,
    environment: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Shared]:
    """List the connections that a user owns or was granted, directly or by a team, with the level; or all of them (`everything`).

    `only`: of these ids.
    """
    query = _filtered(_connections(org_id), search, engine, environment, None)
    if only is not None:
        query = query.where(t.connections.c.id.in_(list(only)))
    if not everything:
        mine = sa.select(t.connection_grants.c.connection_id).where(*granted(org_id, user_id))
        query = query.where((t.connections.c.owner_id == user_id) | t.connections.c.id.in_(mine))
    found = page(tx, query, lambda row: record(Connection, row), by=t.connections.c.id, limit=limit, after=after)
    grants: dict[str, list[sa.Row[Any]]] = {}
    asked = t.connection_grants.c.connection_id.in_([item.id for item in found.items])
    for row in tx.execute(sa.select(t.connection_grants).where(*granted(org_id, user_id), asked)):
        grants.setdefault(row.connection_id, []).append(row)
    return Page(items=tuple(_shared(item, user_id, grants.get(item.id, [])) for item in found.items), after=found.after)


def get_shared(tx: Transaction, org_id: str, connection_id: str, user_id: str) -> Shared:
    """Return a connection with what a user may do with it; `level` is None for nothing. Raises NotFound."""
    found = get_connection(tx, org_id, connection_id)
    asked = t.connection_grants.c.connection_id == connection_id
    rows = tx.execute(sa.select(t.connection_grants).where(*granted(org_id, user_id), asked)).all()
    return _shared(found, user_id, rows)


def update_connection(
    tx: Transaction, org_id: str, connection_id: str, *, version: int, now: dt.datetime, **changes: Any
) -> Connection:
    """Change name, fields, environment, colour or read_only of the version that was read.

    Raises InvalidInput, NotFound, Conflict when it was changed meanwhile or the name is taken.
    """
    if unknown := sorted(set(changes) - _CHANGEABLE):
        raise InvalidInput(f"{unknown[0]!r} cannot be changed", hint=f"one of {', '.join(sorted(_CHANGEABLE))}")
    if "name" in changes:
        fits("name", changes["name"], 100)
    if "environment" in changes:
        chosen("environment", changes["environment"], ENVIRONMENTS)
    found = get_connection(tx, org_id, connection_id)
    c = t.connections.c
    where = c.id == connection_id, c.org_id == org_id, c.version == version
    row = values(t.connections, **changes) | {"version": version + 1, "updated_at": now}
    with _named(tx, changes.get("name", found.name)):
        if not tx.execute(t.connections.update().where(*where).values(**row)).rowcount:
            raise Conflict(
                f"{found.name!r} was changed meanwhile: version {found.version}, not {version}", hint="read it again"
            )
    return get_connection(tx, org_id, connection_id)


def delete_connection(tx: Transaction, org_id: str, connection_id: str) -> None:
    """Delete a connection with its grants and its secrets. Raises NotFound."""
    get_connection(tx, org_id, connection_id)
    tx.execute(t.secrets.delete().where(t.secrets.c.org_id == org_id, t.secrets.c.record_id == connection_id))
    tx.execute(t.connections.delete().where(t.connections.c.org_id == org_id, t.connections.c.id == connection_id))


def duplicate_connection(
    tx: Transaction, org_id: str, connection_id: str, *, name: str, owner_id: str | None, now: dt.datetime
) -> Connection:
    """Copy a connection under another name, without its secrets and grants. Raises InvalidInput, NotFound, Conflict."""
    found = get_connection(tx, org_id, connection_id)
    return create_connection(
        tx,
        org_id,
        name=name,
        engine=found.engine,
        fields=found.fields,
        environment=found.environment,
        colour=found.colour,
        read_only=found.read_only,
        owner_id=owner_id,
        now=now,
    )


def transfer(
    tx: Transaction, org_id: str, owner_id: str, *, to: str, connection_id: str | None = None, now: dt.datetime
) -> int:
    """Give all connections of an owner, or one of them, to another member; return how many. Raises NotFound."""
    get_member(tx, org_id, to)
    c = t.connections.c
    where = [c.org_id == org_id, c.owner_id == owner_id]
    if connection_id is not None:
        where.append(c.id == connection_id)
    change = t.connections.update().where(*where).values(owner_id=to, version=c.version + 1, updated_at=now)
    changed = tx.execute(change).rowcount
    if connection_id is not None and not changed:
        raise NotFound(f"no connection {connection_id!r} of this owner")
    return changed


def give(tx: Transaction, org_id: str, connection_id: str, *, to: str, now: dt.datetime) -> Connection:
    """Give a connection to a member, whoever owns it now; what was granted to that member before is not needed any more.

    Raises NotFound.
    """
    get_member(tx, org_id, to)
    get_connection(tx, org_id, connection_id)
    c = t.connections.c
    change = t.connections.update().where(c.org_id == org_id, c.id == connection_id)
    tx.execute(change.values(owner_id=to, version=c.version + 1, updated_at=now))
    tx.execute(t.connection_grants.delete().where(*_grant(org_id, connection_id, "user", to)))
    return get_connection(tx, org_id, connection_id)


# ----------------------------------------------------------------------------------------------------------------------- grants


def grant(
    tx: Transaction, org_id: str, connection_id: str, *, kind: str, grantee_id: str, level: str, now: dt.datetime
) -> Grant:
    """Let a member or a team view, use or manage a connection, instead of what was granted before. Raises InvalidInput, NotFound."""
    chosen("kind", kind, KINDS)
    chosen("level", level, LEVELS)
    get_connection(tx, org_id, connection_id)
    (get_member if kind == "user" else get_team)(tx, org_id, grantee_id)
    made = Grant(
        connection_id=connection_id,
        org_id=org_id,
        grantee_kind=kind,
        grantee_id=grantee_id,
        level=level,
        created_at=now,
    )
    where = _grant(org_id, connection_id, kind, grantee_id)
    if not tx.execute(t.connection_grants.update().where(*where).values(level=level, created_at=now)).rowcount:
        with unique(tx, "another request granted it at the same time", "look again"):
            tx.execute(t.connection_grants.insert().values(**msgspec.structs.asdict(made)))
    return made


def revoke(tx: Transaction, org_id: str, connection_id: str, *, kind: str, grantee_id: str) -> None:
    """Take a grant back. Raises NotFound."""
    where = _grant(org_id, connection_id, kind, grantee_id)
    if not tx.execute(t.connection_grants.delete().where(*where)).rowcount:
        raise NotFound(f"no grant of {connection_id!r} to {kind} {grantee_id!r}")


def list_grants(
    tx: Transaction, org_id: str, connection_id: str, *, limit: int = 50, after: str | None = None
) -> Page[Grant]:
    """List who was granted a connection. Raises InvalidInput, NotFound."""
    get_connection(tx, org_id, connection_id)
    g = t.connection_grants.c
    query = sa.select(*columns(Grant, t.connection_grants))
    return page(
        tx,
        query.where(g.org_id == org_id, g.connection_id == connection_id),
        lambda row: record(Grant, row),
        by=g.grantee_kind + ":" + g.grantee_id,
        limit=limit,
        after=after,
        key=lambda item: f"{item.grantee_kind}:{item.grantee_id}",
    )


def _connections(org_id: str) -> sa.Select[Any]:
    return sa.select(*columns(Connection, t.connections)).where(t.connections.c.org_id == org_id)


def _filtered(
    query: sa.Select[Any], search: str | None, engine: str | None, environment: str | None, owner_id: str | None
) -> sa.Select[Any]:
    c = t.connections.c
    if search:
        query = query.where(contains(c.name, search))
    for column, value in ((c.engine, engine), (c.environment, environment), (c.owner_id, owner_id)):
        if value is not None:
            query = query.where(column == value)
    return query


def granted(org_id: str, user_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Compare: the grant is to the user or to one of the user's teams, in this organization."""
    g = t.connection_grants.c
    direct = (g.grantee_kind == "user") & (g.grantee_id == user_id)
    by_team = (g.grantee_kind == "team") & g.grantee_id.in_(teams_of(org_id, user_id))
    return g.org_id == org_id, direct | by_team


def _grant(org_id: str, connection_id: str, kind: str, grantee_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    g = t.connection_grants.c
    return g.org_id == org_id, g.connection_id == connection_id, g.grantee_kind == kind, g.grantee_id == grantee_id


def _shared(found: Connection, user_id: str, rows: Any) -> Shared:
    if found.owner_id == user_id:
        return Shared(connection=found, level="manage", via="owner")
    best = max(rows, key=lambda row: LEVELS.index(row.level), default=None)
    if best is None:
        return Shared(connection=found, level=None, via=None)
    return Shared(connection=found, level=best.level, via="user" if best.grantee_kind == "user" else best.grantee_id)


def _named(tx: Transaction, name: str) -> Any:
    return unique(tx, f"there is already a connection {name!r}", "give another name")
