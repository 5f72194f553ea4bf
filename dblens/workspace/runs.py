"""The door to runs: what is at work and what was, its log, its result; and the word to stop.

One's own runs are always there. Of others one sees those on a connection that is shared with one; whoever manages every connection of
the organization, or reads its audit, sees all. What came out of a run may hold data, so it is for its owner and for those who may use
the connection.
"""

from __future__ import annotations

import datetime as dt
import typing
from typing import Any

import msgspec

from dblens.errors import Conflict, DBLensError, NotFound, PermissionDenied, revived
from dblens.store import connections, runs
from dblens.store.rows import Page, chosen
from dblens.store.runs import LogLine, Run, State
from dblens.workspace.operation import Door, operation
from dblens.workspace.permissions import covers
from dblens.workspace.policy import Grant, effective
from dblens.workspace.sides import manages_all, visible

_AUDIT = "audit.read"


class Runs(Door):
    """Look at runs, and stop them."""

    @operation(
        "run.list",
        on="organization",
        cost="light",
        shown=("state", "operation", "connection", "parent", "since", "everyone", "limit", "after"),
    )
    def list(
        self,
        *,
        state: State | None = None,
        operation: str | None = None,
        connection: str | None = None,
        parent: str | None = None,
        since: dt.datetime | None = None,
        everyone: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Run]:
        """List one's own runs, the newest first, without their results; `everyone`: all that one may see. Raises NotFound, InvalidInput.

        `connection` is a name or id; `since` the time from which on they were created.
        """
        context, principal = self.context, self.context.principal
        if state is not None:
            chosen("state", state, typing.get_args(State))
        among = None if not everyone or self._sees_all() else tuple(visible(context))
        connection_id = None if connection is None else self._connection(connection)
        with context.store.read() as tx:
            found = runs.list_runs(
                tx,
                principal.org_id or "",
                state=state,
                operation=operation,
                user_id=None if everyone else principal.user_id,
                connection_id=connection_id,
                parent_id=parent,
                since=since,
                seen_by=None if among is None else (principal.user_id, among),
                limit=limit,
                after=after,
            )
        return Page(items=tuple(_without_result(run) for run in found.items if self._within(run)), after=found.after)

    @operation("run.read", on="organization", cost="light", shown=("run",))
    def read(self, run: str) -> Run:
        """Return a run without its result. Raises NotFound."""
        return _without_result(self._seen(run)[0])

    @operation("run.log", on="organization", cost="light", shown=("run", "limit", "after"))
    def log(self, run: str, *, limit: int = 200, after: str | None = None) -> Page[LogLine]:
        """Return a page of a run's log, oldest line first; it is kept whatever the run's end was. Raises NotFound."""
        self._seen(run)
        with self.context.store.read() as tx:
            return runs.read_log(tx, self.context.principal.org_id or "", run, limit=limit, after=after)

    @operation("run.result", permission="run.read", on="organization", cost="light", shown=("run",))
    def result(self, run: str) -> Any:
        """Return what a run returned, as plain values, or raise what it raised.

        Raises NotFound, Conflict while it works, PermissionDenied for whoever may not use the connection.
        """
        found, grant = self._seen(run)
        if not self._own(found) and grant not in ("use", "manage", "owner"):
            raise PermissionDenied("run.result is refused: it is for whoever may use the connection")
        if found.state in ("queued", "running"):
            raise Conflict(f"run {run} is {found.state}", hint="wait until it ends: `dblens run watch`")
        if found.state != "succeeded":
            raise _raised(found)
        return found.result

    @operation("run.cancel", on="organization", mutates=True, cost="light", target="run")
    def cancel(self, run: str) -> Run:
        """Ask a run to stop: one's own, or one on a connection that one manages. Nothing happens to one that ended.

        Raises NotFound, PermissionDenied.
        """
        found, grant = self._seen(run)
        principal, house = self.context.principal, self.context.house
        if not self._own(found) and grant not in ("manage", "owner") and not manages_all(principal):
            raise PermissionDenied(
                "run.cancel is refused: the run is another's, on a connection that you do not manage"
            )
        if house is None:
            raise NotFound(f"no run {run!r}")
        return _without_result(house.cancel(found.org_id, found.id))

    # ------------------------------------------------------------------------------------------------------------------ parts

    def _own(self, run: Run) -> bool:
        return run.user_id == self.context.principal.user_id

    def _sees_all(self) -> bool:
        principal = self.context.principal
        if manages_all(principal):
            return True
        limited = principal.scopes is not None and not covers(principal.scopes, _AUDIT)
        return principal.connections is None and not limited and covers(principal.permissions, _AUDIT)

    def _seen(self, run_id: str) -> tuple[Run, Grant]:
        """Return a run that the caller may know of, with what is granted on its connection. Raises NotFound."""
        org_id = self.context.principal.org_id or ""
        with self.context.store.read() as tx:
            found = runs.get_run(tx, org_id, run_id)
        grant = self._grant(found.connection_id)
        if self._within(found) and (self._own(found) or grant != "none" or self._sees_all()):
            return found, grant
        raise NotFound(f"no run {run_id!r}")

    def _within(self, run: Run) -> bool:
        """Return whether a token that is limited to some connections reaches the run."""
        limit = self.context.principal.connections
        return limit is None or run.connection_id is None or run.connection_id in limit

    def _grant(self, connection_id: str | None) -> Grant:
        if connection_id is None:
            return "none"
        principal = self.context.principal
        with self.context.store.read() as tx:
            try:
                found = connections.get_shared(tx, principal.org_id or "", connection_id, principal.user_id)
            except NotFound:
                return "none"
        grant: Any = "owner" if found.via == "owner" else found.level or "none"
        return effective(principal, connection_id, grant)

    def _connection(self, reference: str) -> str:
        """Return the id of a connection that the caller may know of. Raises NotFound."""
        held = self.context.access.connection(self.context.principal, reference)
        if held.id is None or (
            effective(self.context.principal, held.id, held.grant) == "none" and not self._sees_all()
        ):
            raise NotFound(f"no connection {reference!r}")
        return held.id


def _without_result(run: Run) -> Run:
    return msgspec.structs.replace(run, result=None)


def _raised(run: Run) -> DBLensError:
    told = run.error or {}
    if run.state == "cancelled" and not told:
        return revived("engine.cancelled", f"run {run.id} was cancelled", None)
    return revived(str(told.get("code", "error")), str(told.get("message", run.state)), told.get("hint"))
