"""The door to connections: make, try, change, share, carry, and make databases beside them.

A secret comes in and never goes out: what is shown of a connection says only which secrets it has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from dblens.engines.access import reach
from dblens.engines.access.pool import Status
from dblens.engines.access.reach import Reach
from dblens.engines.access.spec import EngineName
from dblens.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unsupported, VaultError
from dblens.store import connections, secrets
from dblens.store.connections import LEVELS, Level
from dblens.store.rows import Page
from dblens.workspace import fields, kept, new_database, ways
from dblens.workspace.house import House
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import find_member
from dblens.workspace.ways import (
    ConnectionChanges,
    ConnectionDocument,
    ConnectionSummary,
    ConnectionView,
    Environment,
    Granted,
    Imported,
    NewConnection,
    Way,
)


class Connections(Door):
    """Connections of the organization, as far as they are shared with the caller."""

    # ------------------------------------------------------------------------------------------------------------------ look

    @operation("connection.list", on="organization", cost="light", shown=("engine", "environment", "limit", "after"))
    def list(
        self,
        *,
        search: str | None = None,
        engine: EngineName | None = None,
        environment: Environment | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[ConnectionSummary]:
        """List the connections that the caller may see, by a part of the name, engine and environment. Raises InvalidInput."""
        who = self.context.principal
        with self.context.store.read() as tx:
            found = connections.list_shared(
                tx,
                self._org,
                who.user_id,
                everything=kept.sees_all(self.context),
                only=who.connections,
                search=search,
                engine=engine,
                environment=environment,
                limit=limit,
                after=after,
            )
        return Page(items=tuple(kept.summary(self.context, each) for each in found.items), after=found.after)

    @operation("connection.read", on="connection", level="view", cost="light")
    def read(self, connection: str) -> ConnectionView:
        """Return a connection: its fields, which secrets it has, what the caller may do with it. Raises NotFound."""
        with self.context.store.read() as tx:
            return kept.view(self.context, tx, kept.stored(connection))

    @operation("connection.pool", on="connection", level="use", cost="light")
    def pool(self, connection: str) -> dict[str, Status]:
        """Return what this process' pools of a connection hold, by login (`main`, `read_only`); nothing for one not in use."""
        return self._house.lines.status(kept.stored(connection))

    # ---------------------------------------------------------------------------------------------------------------- change

    @operation(
        "connection.create",
        on="organization",
        mutates=True,
        shown=("new.name", "new.environment", "new.colour", "new.read_only"),
    )
    def create(self, new: NewConnection) -> ConnectionView:
        """Keep a connection, with its secrets sealed. It is not opened: `test` does that.

        Raises InvalidInput, which names what is wrong, PermissionDenied for a SQLite file out of bounds, Conflict for a name in use.
        """
        spec, given = ways.read(new, self._house.lines.references)
        with self.context.store.write() as tx:
            made = kept.keep(self.context, tx, new, kept.placed(self.context, spec))
            kept.seal(self.context, tx, made.id, given)
            view = kept.view(self.context, tx, made.id)
        tell(target=made.id, engine=made.engine, secrets=sorted(given))
        return view

    @operation(
        "connection.update",
        on="connection",
        level="manage",
        mutates=True,
        shown=("version", "changes.name", "changes.environment", "changes.colour", "changes.read_only"),
    )
    def update(self, connection: str, changes: ConnectionChanges, *, version: int) -> ConnectionView:
        """Change a connection of the version that was read; sessions are opened anew from then on.

        Secrets are not carried to another server, hop or weaker check of a certificate: they have to be given again, or removed.
        Raises InvalidInput, NotFound, Conflict when it was changed meanwhile or the name is in use.
        """
        org_id, id, now = self._org, kept.stored(connection), self.context.clock()
        lines, keyring = self._house.lines, self._house.keyring
        given = ways.read_secrets(changes.secrets, changes.references, lines.references)
        more = {"environment": changes.environment, "read_only": changes.read_only}
        row: dict[str, Any] = {name: value for name, value in more.items() if value is not None}
        if changes.name is not None:
            row["name"] = ways.named(changes.name)
        if changes.colour is not None:
            row["colour"] = ways.coloured(changes.colour)
        if not (row or given or changes.secrets or changes.fields):
            raise InvalidInput("there is nothing to change", hint="give a name, fields, secrets, …")
        with self.context.store.write() as tx:
            before = connections.get_connection(tx, org_id, id)
            has = {secret.field for secret in secrets.list_secrets(tx, org_id, id)}
            has -= {name for name, value in changes.secrets.items() if value is None}
            spec = kept.spec_of(before)
            if changes.fields:
                after, inside = ways.merged(before.fields, changes.fields)
                if after.engine != before.engine:
                    raise InvalidInput(f"fields: engine is {before.engine!r} for good", hint="make another connection")
                given = {**inside, **given}
                if (left := sorted(has - set(given))) and (spec is None or ways.elsewhere(spec, after)):
                    raise InvalidInput(
                        f"the connection leads elsewhere now, and its secrets do not: {', '.join(left)}",
                        hint="give them again, or remove them with null",
                    )
                spec = kept.placed(self.context, after)
                row["fields"] = ways.plain(spec)
            if spec is not None:
                # What was imported lacks its secrets, which may be set one after the other.
                fewer = bool(changes.fields) or None in changes.secrets.values()
                ways.complete(spec, has | set(given), lacking=fewer)
            connections.update_connection(tx, org_id, id, version=version, now=now, **row)
            for name, value in changes.secrets.items():
                if value is None:
                    with contextlib.suppress(NotFound):
                        secrets.delete(tx, org_id, id, name)
            for name, secret in given.items():
                secrets.put(tx, keyring, org_id, id, name, secret, now=now)
            view = kept.view(self.context, tx, id)
        lines.changed(id)
        tell(changed=sorted(row), secrets=sorted({*given, *changes.secrets}))
        return view

    @operation("connection.delete", on="connection", level="manage", mutates=True, shown=("force",))
    def delete(self, connection: str, *, force: bool = False) -> None:
        """Delete a connection with its secrets and grants; the database stays.

        Raises NotFound, Conflict while a run works on it and, unless `force`, while a template names it.
        """
        id = kept.stored(connection)
        with self.context.store.write() as tx:
            if used := kept.uses(tx, self._org, id, templates=not force, now=self.context.clock()):
                raise Conflict(f"the connection is in use: {', '.join(used)}", hint="end or delete that first")
            connections.delete_connection(tx, self._org, id)
        self._house.lines.forget(id)

    @operation("connection.duplicate", on="connection", level="manage", mutates=True, shown=("name",))
    def duplicate(self, connection: str, name: str) -> ConnectionView:
        """Copy a connection under another name, its secrets sealed anew for the copy, without its grants. Raises InvalidInput, Conflict."""
        id = kept.stored(connection)
        with self.context.store.write() as tx:
            made = connections.duplicate_connection(
                tx,
                self._org,
                id,
                name=ways.named(name),
                owner_id=self.context.principal.user_id,
                now=self.context.clock(),
            )
            kept.copy_secrets(self.context, tx, id, made.id)
            view = kept.view(self.context, tx, made.id)
        tell(target=made.id)
        return view

    # ------------------------------------------------------------------------------------------------------------------ try

    @operation("connection.test", on="connection", level="use")
    def test(self, connection: str) -> Reach:
        """Open the connection, ask for a sign of life and close it. The answer names the cause of what went wrong.

        One that is read-only is opened so that nothing can be written. Raises NotFound.
        """
        house, id = self._house, kept.stored(connection)
        try:
            line = house.lines.line(self._org, id)
        except (VaultError, Unsupported, InvalidInput) as error:
            found = kept.unopened(error)
        else:
            found = reach.test(line.spec, line.plain(), house.lines.policy, read_only=line.connection.read_only)
        tell(ok=found.ok, cause=found.cause)
        return found

    @operation("connection.try", permission="connection.create", on="organization", cost="heavy")
    def try_(self, way: Way) -> Reach:
        """Open what is not kept yet, as `test` does. Raises InvalidInput, which names what is wrong."""
        lines = self._house.lines
        spec, given = ways.read(way, lines.references)
        try:
            found = reach.test(spec, lines.resolved(given), lines.policy, read_only=True)
        except (VaultError, Unsupported) as error:
            found = kept.unopened(error)
        tell(ok=found.ok, cause=found.cause, engine=spec.engine)
        return found

    @operation(
        "connection.create_database",
        on="connection",
        level="manage",
        mutates=True,
        cost="heavy",
        shown=("database", "name", "environment"),
    )
    def create_database(
        self, connection: str, database: str, *, name: str | None = None, environment: Environment | None = None
    ) -> ConnectionView:
        """Make a database on a connection's server, with the connection's login, and return a new connection to it.

        Of SQLite it is a file, relative to the connection's own. Raises InvalidInput, PermissionDenied, Conflict when the database or
        the name is there already, EngineError.
        """
        org_id, id, house = self._org, kept.stored(connection), self._house
        name = ways.named(database.rpartition("/")[2] if name is None else name)
        with self.context.store.read() as tx, contextlib.suppress(NotFound):
            connections.find_connection(tx, org_id, name)
            raise Conflict(f"there is already a connection {name!r}", hint="give another name")
        line = house.lines.line(org_id, id)
        with contextlib.closing(line), new_database.made(line, database, house.lines.policy) as spec:
            new = msgspec.structs.replace(
                line.connection, name=name, environment=environment or line.connection.environment, read_only=False
            )
            with self.context.store.write() as tx:
                made = kept.keep(self.context, tx, new, spec)
                kept.copy_secrets(self.context, tx, id, made.id)
                view = kept.view(self.context, tx, made.id)
        tell(target=made.id)
        return view

    # ---------------------------------------------------------------------------------------------------------------- share

    @operation("connection.share", on="connection", level="manage", mutates=True, shown=("to", "kind", "level"))
    def share(self, connection: str, to: str, level: Level, *, kind: Literal["user", "team"] = "user") -> Granted:
        """Let a member (id, name or e-mail address) or a team (id or name) view, use or manage a connection.

        It takes the place of what was granted before. Raises InvalidInput, NotFound, PermissionDenied for more than the caller has.
        """
        id, who = kept.stored(connection), self.context.principal
        if level not in LEVELS:
            raise InvalidInput(f"level is {level!r}", hint=f"one of {', '.join(LEVELS)}")
        with self.context.store.write() as tx:
            shared = connections.get_shared(tx, self._org, id, who.user_id)
            held = kept.held(self.context, shared)[0]
            if held is None or LEVELS.index(level) > LEVELS.index(held):
                raise PermissionDenied(f"you cannot share {level!r}: you have {held!r} yourself", hint="share less")
            grantee, named = kept.grantee(self.context, tx, kind, to)
            if kind == "user" and grantee == shared.connection.owner_id:
                raise InvalidInput(f"{named!r} owns the connection", hint="the owner may do everything with it")
            made = connections.grant(
                tx, self._org, id, kind=kind, grantee_id=grantee, level=level, now=self.context.clock()
            )
        tell(grantee=grantee)
        return Granted(kind=kind, id=grantee, name=named, level=level, created_at=made.created_at)

    @operation(
        "connection.unshare",
        permission="connection.share",
        on="connection",
        level="manage",
        mutates=True,
        shown=("to", "kind"),
    )
    def unshare(self, connection: str, to: str, *, kind: Literal["user", "team"] = "user") -> None:
        """Take back what was granted to a user or a team. It counts at once. Raises NotFound."""
        with self.context.store.write() as tx:
            try:
                grantee, _ = kept.grantee(self.context, tx, kind, to)
            except NotFound:
                grantee = to  # who is no member any more may still have a grant, by id
            connections.revoke(tx, self._org, kept.stored(connection), kind=kind, grantee_id=grantee)
        tell(grantee=grantee)

    @operation(
        "connection.grants",
        permission="connection.share",
        on="connection",
        level="manage",
        cost="light",
        shown=("limit", "after"),
    )
    def grants(self, connection: str, *, limit: int = 50, after: str | None = None) -> Page[Granted]:
        """List who was granted a connection. Raises InvalidInput."""
        with self.context.store.read() as tx:
            found = connections.list_grants(tx, self._org, kept.stored(connection), limit=limit, after=after)
            items = tuple(kept.granted(self.context, tx, grant) for grant in found.items)
        return Page(items=items, after=found.after)

    @operation(
        "connection.transfer",
        permission="connection.share",
        on="connection",
        level="manage",
        mutates=True,
        shown=("to",),
    )
    def transfer(self, connection: str, to: str) -> None:
        """Give a connection to another member, who owns it from then on. For its owner, and for who manages all connections.

        Raises NotFound, PermissionDenied.
        """
        id, who = kept.stored(connection), self.context.principal
        with self.context.store.write() as tx:
            found = connections.get_connection(tx, self._org, id)
            if found.owner_id != who.user_id and not kept.sees_all(self.context):
                raise PermissionDenied("only the owner gives a connection away", hint="ask the owner, or an admin")
            heir = find_member(tx, self._org, to)
            if not heir.active:
                raise Conflict(f"{heir.name!r} is disabled", hint="name another member")
            connections.give(tx, self._org, id, to=heir.user_id, now=self.context.clock())
        tell(grantee=heir.user_id)

    # ---------------------------------------------------------------------------------------------------------------- carry

    @operation("connection.export", on="connection", connections={"connections": "view"})
    def export(self, connections: Sequence[str] = ()) -> ConnectionDocument:
        """Return connections as a document without secrets, the named ones or all that the caller may see. Raises NotFound, InvalidInput."""
        with self.context.store.read() as tx:
            document = kept.packed(self.context, tx, [kept.stored(each) for each in connections])
        tell(connections=len(document.connections))
        return document

    @operation("connection.import", on="organization", mutates=True, cost="heavy", shown=("existing", "dry_run"))
    def import_(
        self, document: ConnectionDocument, *, existing: Literal["refuse", "skip"] = "refuse", dry_run: bool = False
    ) -> Imported:
        """Keep the connections of a document: all of them, or nothing when one is wrong. Their secrets are set afterwards.

        Raises InvalidInput, which names every one that is wrong, Conflict for names in use unless they are to be skipped.
        """
        found = kept.unpacked(self.context, document)
        with self.context.store.write() as tx:
            taken = tuple(new.name for new, _ in found if kept.taken(self.context, tx, new.name))
            if taken and existing != "skip":
                shown = ", ".join(map(repr, taken[: fields.MOST_SHOWN]))
                raise Conflict(f"there are connections of these names: {shown}", hint="existing='skip' leaves them out")
            made = [(new, spec) for new, spec in found if new.name not in taken]
            if not dry_run:
                for new, spec in made:
                    kept.keep(self.context, tx, new, spec)
        tell(created=0 if dry_run else len(made), skipped=len(taken))
        return Imported(
            dry_run=dry_run,
            created=tuple(new.name for new, _ in made),
            skipped=taken,
            lacking={new.name: new.secrets for new, _ in made if new.secrets},
        )

    # --------------------------------------------------------------------------------------------------------------- within

    @property
    def _org(self) -> str:
        return kept.org_of(self.context)

    @property
    def _house(self) -> House:
        return kept.house_of(self.context)
