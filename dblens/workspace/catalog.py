"""The door to schemas: what is in a database, and how two databases differ. Nothing here writes to a database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.engines.base import Rendered, Target
from dblens.errors import NotFound
from dblens.migrate import drift
from dblens.migrate.link import Link
from dblens.schema.changes import Change
from dblens.schema.compare import DEFAULT, Options
from dblens.schema.model import Schema, TableRef
from dblens.workspace.operation import Door, operation
from dblens.workspace.sides import reading


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """What turns one schema into another, and the statements for it in the language of the first one's engine."""

    changes: tuple[Change, ...]
    statements: tuple[Rendered, ...] = ()

    @property
    def equal(self) -> bool:
        """Return whether there is nothing to change."""
        return not self.changes


class Catalog(Door):
    """Inspect databases and compare their schemas."""

    @operation("catalog.schema", permission="catalog.read", on="connection", level="view", shown=("namespaces",))
    def schema(self, connection: str | Link, *, namespaces: Sequence[str] = ()) -> Schema:
        """Read a schema, of all namespaces or the named ones.

        Raises ConnectionFailed, NotFound for a database or namespace that is not there, PermissionDenied.
        """
        with reading(self.context, connection) as session:
            return _schema(session, namespaces)

    @operation("catalog.tables", permission="catalog.read", on="connection", level="view", shown=("namespaces",))
    def tables(self, connection: str | Link, *, namespaces: Sequence[str] = ()) -> list[TableRef]:
        """List tables, views and collections without their columns, one round trip per namespace."""
        with reading(self.context, connection) as session:
            return [ref for namespace in namespaces or session.namespaces() for ref in session.list_tables(namespace)]

    @operation(
        "catalog.compare",
        on="connection",
        connections={"connection": "view", "other": "view"},
        cost="heavy",
        shown=("namespaces", "statements"),
    )
    def compare(
        self,
        connection: str | Link,
        other: str | Link,
        options: Options = DEFAULT,
        *,
        namespaces: Sequence[str] = (),
        statements: bool = False,
    ) -> Differences:
        """Return the changes that turn a connection's schema into the other's, `statements`: with those for them. It runs none of them."""
        with reading(self.context, connection) as session:
            left = _schema(session, namespaces)
        with reading(self.context, other) as session:
            right = _schema(session, namespaces)
        changes = drift.differences(left, right, options)
        rendered = drift.statements(left, changes, origin=right.engine) if statements else []
        return Differences(changes=changes, statements=tuple(rendered))

    @operation("catalog.diff", permission="catalog.compare", cost="heavy")
    def diff(self, a: Schema, b: Schema, options: Options = DEFAULT) -> tuple[Change, ...]:
        """Return the changes that turn schema `a` into `b`, types compared by how one engine stores the other's."""
        return drift.differences(a, b, options)

    @operation("catalog.statements", permission="catalog.compare", shown=("origin",))
    def statements(self, a: Schema, changes: Sequence[Change], *, origin: str | None = None) -> list[Rendered]:
        """Render changes of schema `a` in the language of its engine; `origin` is the engine that they are spelled for, if another.

        What only that engine understands is returned without a statement, with the reason. Raises Unsupported.
        """
        return drift.statements(a, changes, origin=origin)

    @operation("catalog.create", permission="catalog.compare")
    def create(self, schema: Schema) -> list[str]:
        """Render a whole schema as CREATE statements of its own engine, in a runnable order."""
        return drift.create(schema)


def _schema(session: Target, namespaces: Sequence[str]) -> Schema:
    if namespaces:
        known = session.namespaces()
        for name in namespaces:
            if name not in known:
                raise NotFound(
                    f"no namespace {name!r} in {session.database}", hint=f"it has {', '.join(known) or 'none'}"
                )
    return msgspec.structs.replace(session.inspect(namespaces=namespaces), flavour=session.flavour)
