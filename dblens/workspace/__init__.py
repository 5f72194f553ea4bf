"""The doors: one guarded way in, one file per noun.

Importing this loads no driver: an engine's driver is loaded when its first session opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dblens.migrate.link import Link
    from dblens.query.results import Results, Streaming
    from dblens.workspace.account import Account
    from dblens.workspace.audit import Audit
    from dblens.workspace.catalog import Catalog
    from dblens.workspace.connections import Connections
    from dblens.workspace.context import Context
    from dblens.workspace.migrations import Migrations
    from dblens.workspace.notifications import Notifications
    from dblens.workspace.organizations import Organizations
    from dblens.workspace.queries import Queries
    from dblens.workspace.roles import Roles
    from dblens.workspace.runs import Runs
    from dblens.workspace.search import Search
    from dblens.workspace.settings import Settings
    from dblens.workspace.speech import Origin
    from dblens.workspace.teams import Teams
    from dblens.workspace.templates import Templates
    from dblens.workspace.tokens import Tokens
    from dblens.workspace.users import Users


class Asking:
    """The two ways to ask that everything with a door to queries has; over `ws.queries`, in this process or of a service."""

    queries: Any

    def query(
        self,
        connection: str | Link,
        text: str,
        *,
        params: Mapping[str, object] | None = None,
        limit: int | None = 10_000,
        read_only: bool | None = None,
        timeout: float | None = None,
        confirm: str | None = None,
        transaction: str | None = None,
        origin: Origin | None = None,
    ) -> Results:
        """Run a text and return what came of each statement, at most `limit` rows of each.

        What only reads by its words is run read-only, enforced by the server; anything else needs the right to write, unless
        `read_only` says that it must not. Raises ConfirmationNeeded, PermissionDenied, QueryFailed, Cancelled, TimedOut, InvalidInput.
        """
        from dblens.query import results

        return results.ask(
            self.queries, connection, text, params=params, limit=limit, read_only=read_only, timeout=timeout,
            confirm=confirm, transaction=transaction, origin=origin,
        )  # fmt: skip

    def stream(
        self,
        connection: str | Link,
        text: str,
        *,
        params: Mapping[str, object] | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
        timeout: float | None = None,
        confirm: str | None = None,
        transaction: str | None = None,
        origin: Origin | None = None,
    ) -> Streaming:
        """Return a context manager over a query's rows as Arrow batches, in bounded memory; leaving it early stops the query."""
        from dblens.query import results

        return results.streaming(
            self.queries, connection, text, params=params, limit=limit, read_only=read_only, timeout=timeout,
            confirm=confirm, transaction=transaction, origin=origin,
        )  # fmt: skip


class Workspace(Asking):
    """The doors, for one principal, each built when it is first used."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        principal = self._context.principal
        return f"Workspace({principal.name!r}, organization={principal.org_id!r})"

    @cached_property
    def account(self) -> Account:
        """Return the door to one's own account: profile, password, sessions."""
        from dblens.workspace.account import Account

        return Account(self._context)

    @cached_property
    def audit(self) -> Audit:
        """Return the door to the audit: who did what."""
        from dblens.workspace.audit import Audit

        return Audit(self._context)

    @cached_property
    def catalog(self) -> Catalog:
        """Return the door to schemas: inspect, list, compare."""
        from dblens.workspace.catalog import Catalog

        return Catalog(self._context)

    @cached_property
    def connections(self) -> Connections:
        """Return the door to connections: create, test, share."""
        from dblens.workspace.connections import Connections

        return Connections(self._context)

    @cached_property
    def migrations(self) -> Migrations:
        """Return the door to migrations: plan, apply, verify, undo."""
        from dblens.workspace.migrations import Migrations

        return Migrations(self._context)

    @cached_property
    def notifications(self) -> Notifications:
        """Return the door to one's own notifications."""
        from dblens.workspace.notifications import Notifications

        return Notifications(self._context)

    @cached_property
    def organizations(self) -> Organizations:
        """Return the door to organizations and their members."""
        from dblens.workspace.organizations import Organizations

        return Organizations(self._context)

    @cached_property
    def queries(self) -> Queries:
        """Return the door to queries: ask, write, explain, stop, find again."""
        from dblens.workspace.queries import Queries

        return Queries(self._context)

    @cached_property
    def roles(self) -> Roles:
        """Return the door to roles: permissions by name."""
        from dblens.workspace.roles import Roles

        return Roles(self._context)

    @cached_property
    def runs(self) -> Runs:
        """Return the door to runs: progress, log, cancel."""
        from dblens.workspace.runs import Runs

        return Runs(self._context)

    @cached_property
    def search(self) -> Search:
        """Return the door to the search over all nouns."""
        from dblens.workspace.search import Search

        return Search(self._context)

    @cached_property
    def settings(self) -> Settings:
        """Return the door to what administrators set while the service runs."""
        from dblens.workspace.settings import Settings

        return Settings(self._context)

    @cached_property
    def teams(self) -> Teams:
        """Return the door to teams."""
        from dblens.workspace.teams import Teams

        return Teams(self._context)

    @cached_property
    def templates(self) -> Templates:
        """Return the door to saved configurations that run again by name."""
        from dblens.workspace.templates import Templates

        return Templates(self._context)

    @cached_property
    def tokens(self) -> Tokens:
        """Return the door to access tokens."""
        from dblens.workspace.tokens import Tokens

        return Tokens(self._context)

    @cached_property
    def users(self) -> Users:
        """Return the door to the accounts of others."""
        from dblens.workspace.users import Users

        return Users(self._context)


__all__ = ["Workspace"]
