"""What the door to connections works with: keep, show, seal; what a grant and a role together give. No door of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import typing
from collections.abc import Collection
from typing import Literal

import msgspec

from dblens.engines.access import files
from dblens.engines.access.reach import Reach
from dblens.engines.access.spec import SECRETS, ConnectionSpec, from_fields
from dblens.errors import DBLensError, InvalidInput, NotFound, Unsupported
from dblens.store import accounts, connections, locks, plans, runs, secrets, teams
from dblens.store.connections import Connection, Level, Shared
from dblens.store.database import Transaction
from dblens.store.rows import chosen
from dblens.workspace import fields, setting_kinds, ways
from dblens.workspace.context import Context
from dblens.workspace.house import House
from dblens.workspace.people import find_member
from dblens.workspace.permissions import ANY_CONNECTION, SUPER_ADMIN, covers
from dblens.workspace.policy import Grant, effective
from dblens.workspace.setting_kinds import Defaults
from dblens.workspace.ways import (
    Carried,
    ConnectionDocument,
    ConnectionSummary,
    ConnectionView,
    Environment,
    Granted,
    KeptSecret,
    NewConnection,
)

MOST_CARRIED = 1000
"""How many connections one document holds."""


def org_of(context: Context) -> str:
    """Return the id of the organization that the caller acts in. Raises InvalidInput without any."""
    if context.principal.org_id is None:
        raise InvalidInput("no organization is chosen", hint="`dblens org use NAME`")
    return context.principal.org_id


def house_of(context: Context) -> House:
    """Return the process' keys and sessions. Raises Unsupported for a workspace without."""
    if context.house is None:
        raise Unsupported("connections", "this workspace has no keys", hint="open it with `dblens.open()`")
    return context.house


def placed(context: Context, spec: ConnectionSpec) -> ConnectionSpec:
    """Return a specification whose file is where it may be. Alone on a laptop a path is kept whole: the next one starts elsewhere."""
    if spec.path is None:
        return spec
    policy = house_of(context).lines.policy
    with contextlib.suppress(NotFound):
        files.check_file(spec.path, policy, create=True)
    return msgspec.structs.replace(spec, path=os.path.abspath(spec.path)) if policy.sqlite_roots is None else spec


def keep(
    context: Context, tx: Transaction, new: NewConnection | Carried | Connection, spec: ConnectionSpec
) -> Connection:
    """Keep a connection that the caller owns. Raises InvalidInput, Conflict for a name in use."""
    default = setting_kinds.read(tx, org_of(context), Defaults) or Defaults()
    return connections.create_connection(
        tx,
        org_of(context),
        name=ways.named(new.name),
        engine=spec.engine,
        fields=ways.plain(spec),
        environment=new.environment or default.environment,
        colour=ways.coloured(new.colour),
        read_only=default.read_only if new.read_only is None else new.read_only,
        owner_id=context.principal.user_id,
        now=context.clock(),
    )


def seal(context: Context, tx: Transaction, id: str, given: ways.Given) -> None:
    """Seal secrets in a connection's place. Raises InvalidInput, VaultError."""
    for name, secret in given.items():
        secrets.put(tx, house_of(context).keyring, org_of(context), id, name, secret, now=context.clock())


def copy_secrets(context: Context, tx: Transaction, id: str, to: str) -> None:
    """Seal a connection's secrets again for another: what is sealed is bound to its place."""
    org_id, keyring = org_of(context), house_of(context).keyring
    names = [kept.field for kept in secrets.list_secrets(tx, org_id, id)]
    seal(context, tx, to, {name: secrets.get(tx, keyring, org_id, id, name) for name in names})


def taken(context: Context, tx: Transaction, name: str) -> bool:
    """Return whether a connection has the name."""
    try:
        connections.find_connection(tx, org_of(context), name)
    except NotFound:
        return False
    return True


def held(context: Context, shared: Shared) -> tuple[Level | None, str | None]:
    """Return the level that the caller has on a connection, and why."""
    given: Grant = "owner" if shared.via == "owner" else shared.level or "none"
    held = effective(context.principal, shared.connection.id, given)
    if held == "none":
        return None, None
    via = shared.via if held == given else "role"
    return ("manage" if held == "owner" else held), via


def summary(context: Context, shared: Shared) -> ConnectionSummary:
    """Return a connection as a list shows it to the caller."""
    found, (level, via) = shared.connection, held(context, shared)
    spec = spec_of(found)
    return ConnectionSummary(
        id=found.id,
        name=found.name,
        engine=found.engine,
        address="" if spec is None else str(spec.to_url()),
        environment=found.environment,
        colour=found.colour,
        read_only=found.read_only,
        owner_id=found.owner_id,
        level=level,
        via=via,
        version=found.version,
        updated_at=found.updated_at,
    )


def view(context: Context, tx: Transaction, id: str) -> ConnectionView:
    """Return a connection as it is shown to the caller. Raises NotFound."""
    shared = connections.get_shared(tx, org_of(context), id, context.principal.user_id)
    found = shared.connection
    owner = None
    if found.owner_id is not None:
        with contextlib.suppress(NotFound):
            owner = accounts.get_user(tx, found.owner_id).name
    return ConnectionView(
        **msgspec.structs.asdict(summary(context, shared)),
        fields=found.fields,
        secrets=tuple(
            KeptSecret(name=kept.field, kind=kept.kind, updated_at=kept.updated_at)
            for kept in secrets.list_secrets(tx, org_of(context), id)
        ),
        owner=owner,
        created_at=found.created_at,
    )


def carried(context: Context, tx: Transaction, found: Connection) -> Carried:
    """Return a connection as a document holds it. Raises InvalidInput for fields that this DBLens does not take."""
    kept = tuple(secret.field for secret in secrets.list_secrets(tx, org_of(context), found.id))
    return Carried(
        name=found.name,
        fields=from_fields(found.fields),
        environment=typing.cast(Environment, found.environment),
        colour=found.colour,
        read_only=found.read_only,
        secrets=kept,
    )


def grantee(context: Context, tx: Transaction, kind: str, name: str) -> tuple[str, str]:
    """Return the id and name of a member or a team. Raises NotFound, InvalidInput."""
    if kind == "user":
        member = find_member(tx, org_of(context), name)
        return member.user_id, member.name
    if kind != "team":
        raise InvalidInput(f"kind is {kind!r}", hint="user or team")
    try:
        team = teams.get_team(tx, org_of(context), name)
    except NotFound:
        team = teams.find_team(tx, org_of(context), name)
    return team.id, team.name


def granted(context: Context, tx: Transaction, grant: connections.Grant) -> Granted:
    """Return a grant with the name of whom it is to, empty for who is gone."""
    name = ""
    with contextlib.suppress(NotFound):
        if grant.grantee_kind == "team":
            name = teams.get_team(tx, org_of(context), grant.grantee_id).name
        else:
            name = accounts.get_user(tx, grant.grantee_id).name
    return Granted(
        kind=typing.cast(Literal["user", "team"], grant.grantee_kind),
        id=grant.grantee_id,
        name=name,
        level=typing.cast(Level, grant.level),
        created_at=grant.created_at,
    )


def stored(reference: str) -> str:
    """Return the id of a stored connection. Raises InvalidInput for an address, which is not repeated: it may hold a password."""
    if not isinstance(reference, str) or not ways.is_id(reference):
        raise InvalidInput("an address is no stored connection", hint="name one; `dblens connection create` makes it")
    return reference


def spec_of(found: Connection) -> ConnectionSpec | None:
    """Return the specification of a connection, None for fields that this DBLens does not take."""
    try:
        return from_fields(found.fields)
    except InvalidInput:
        return None


def unopened(error: DBLensError) -> Reach:
    """Return the answer of a test whose secrets cannot be had."""
    cause: Literal["input", "secret"] = "input" if isinstance(error, InvalidInput) else "secret"
    return Reach(ok=False, stage=cause, cause=cause, message=error.message, hint=error.hint or "set it again")


def uses(tx: Transaction, org_id: str, id: str, *, templates: bool, now: dt.datetime) -> tuple[str, ...]:
    """Return what uses a connection: runs at work and waiting, also as the side that they lock, and templates."""
    used = []
    for state in ("running", "queued"):
        found = runs.list_runs(tx, org_id, state=state, connection_id=id, limit=5).items
        used += [f"run {run.id} ({run.operation}, {state})" for run in found]
    holder = locks.holder(tx, f"connection:{id}", now=now)
    if holder is not None and not any(holder in each for each in used):
        used.append(f"run {holder}")
    after, more = None, templates
    while more:
        page = plans.list_templates(tx, org_id, limit=200, after=after)
        used += [f"template {each.name!r}" for each in page.items if id in msgspec.json.encode(each.body).decode()]
        after, more = page.after, page.after is not None
    return tuple(used)


def sees_all(context: Context) -> bool:
    """Return whether the caller manages every connection of the organization: the same rule as `policy.effective`."""
    who = context.principal
    return who.role != SUPER_ADMIN and covers(who.permissions, ANY_CONNECTION)


def packed(context: Context, tx: Transaction, ids: Collection[str]) -> ConnectionDocument:
    """Return connections as a document: those of the ids, or all that the caller may see. Raises NotFound, InvalidInput."""
    org_id, who = org_of(context), context.principal
    found = [connections.get_connection(tx, org_id, id) for id in dict.fromkeys(ids)]
    after, more = None, not ids
    while more:
        page = connections.list_shared(
            tx, org_id, who.user_id, everything=sees_all(context), only=who.connections, limit=200, after=after
        )
        found += [shared.connection for shared in page.items]
        after, more = page.after, page.after is not None and len(found) <= MOST_CARRIED
    if len(found) > MOST_CARRIED:
        raise InvalidInput(f"more than {MOST_CARRIED} connections", hint="name those that are wanted")
    return ConnectionDocument(
        connections=tuple(carried(context, tx, each) for each in sorted(found, key=lambda each: each.name))
    )


def unpacked(context: Context, document: ConnectionDocument) -> list[tuple[Carried, ConnectionSpec]]:
    """Return what a document holds, all of it checked. Raises InvalidInput, which names every one that is wrong."""
    if len(document.connections) > MOST_CARRIED:
        raise InvalidInput(f"more than {MOST_CARRIED} connections", hint="import them in parts")
    wrong: list[tuple[str, DBLensError]] = []
    made: list[tuple[Carried, ConnectionSpec]] = []
    seen: set[str] = set()
    for at, each in enumerate(document.connections):
        try:
            if ways.named(each.name) in seen:
                raise InvalidInput(f"{each.name!r} is there twice")
            seen.add(each.name)
            spec = placed(context, fields.read_fields(each.fields))
            if spec.secrets():
                raise InvalidInput("fields.tls.key: a document holds no secrets")
            ways.coloured(each.colour)
            chosen("environment", each.environment, connections.ENVIRONMENTS)
            if unknown := set(each.secrets) - set(SECRETS):
                raise InvalidInput(f"secrets: {sorted(unknown)[0][:80]!r} is the name of none")
        except DBLensError as error:
            wrong.append((f"connections[{at}]", error))
        else:
            made.append((each, spec))
    if wrong:
        raise ways.problems(wrong)
    return made
