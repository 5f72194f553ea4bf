"""Doors for tests, in a table of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dblens.errors import Conflict
from dblens.settings import Secret
from dblens.workspace.operation import Door, current, operation, tell
from dblens.workspace.registry import Table

TABLE = Table()


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection is made of."""

    name: str
    password: Secret


class Backups(Door):
    """A noun."""

    ran: list[tuple[str, Any]]

    def __init__(self, context: Any, inside: Callable[[], object] = lambda: None) -> None:
        super().__init__(context)
        self.ran = []
        self.inside = inside

    @operation("backup.list", on="organization", table=TABLE, shown=("limit",))
    def list(self, limit: int = 5, text: str = "") -> int:
        """Return how many."""
        self.ran.append(("list", limit))
        self.inside()
        return limit

    @operation("backup.create", on="connection", mutates=True, table=TABLE, target="label", shown=("label",))
    def create(self, connection: str, label: str = "", password: str | None = None) -> str:
        """Back up a connection."""
        self.ran.append(("create", connection))
        self.inside()
        tell(bytes=7)
        return connection

    @operation("backup.restore", on="connection", connections={"connection": "manage"}, mutates=True, table=TABLE)
    def restore(self, connection: str) -> str:
        """Restore, after a backup of what is there."""
        self.ran.append(("restore", connection))
        self.create("shop", label="before the restore")
        call = current()
        assert call is not None
        return call.id

    @operation(
        "connection.create", on="organization", mutates=True, table=TABLE, shown=("spec.name",), target="spec.name"
    )
    def make(self, spec: Spec, password: Secret | None = None) -> str:
        """Make a connection."""
        self.inside()
        return spec.name

    @operation("organization.update", on="organization", mutates=True, step_up=True, table=TABLE)
    def rename(self, name: str, organization: str | None = None) -> str:
        """Rename an organization."""
        self.ran.append(("rename", name))
        return name

    @operation(
        "migration.apply", on="connection", connections={"source": "use", "target": "manage"}, mutates=True, table=TABLE
    )
    def migrate(self, source: str, target: str) -> Sequence[str]:
        """Migrate from one to the other."""
        self.ran.append(("migrate", (source, target)))
        return [source, target]

    @operation("migration.read", on="connection", table=TABLE, locate=lambda door, given: [(given["plan_id"], "view")])
    def plan(self, plan_id: str) -> str:
        """Read a plan, whose connection is not an argument."""
        self.ran.append(("plan", plan_id))
        return plan_id

    @operation("verify.run", on="connection", connections={"names": "view"}, table=TABLE)
    def verify(self, names: Sequence[str]) -> Sequence[str]:
        """Verify several."""
        return names

    @operation("query.run", on="connection", table=TABLE, shown=("limit",))
    def query(self, connection: str, sql: str, limit: int = 10) -> Any:
        """Run a query."""
        self.ran.append(("query", sql))
        return self.inside()

    @operation("template.delete", on="organization", mutates=True, table=TABLE)
    def conflict(self, name: str) -> None:
        """Fail."""
        raise Conflict(f"canary in a message: {name}")
