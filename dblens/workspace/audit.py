"""The door to the audit: own history for everyone, all of an organization for its auditors, proof that nobody changed it.

Reading it is audited like everything else.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from dblens.errors import InvalidInput, PermissionDenied
from dblens.store import audit_find
from dblens.store.audit import Entry, Row, Verdict, read_head
from dblens.store.audit_find import By, Count, Filter
from dblens.store.audit_text import csv_lines, json_lines
from dblens.store.rows import Page
from dblens.workspace.operation import Door, current, operation, tell
from dblens.workspace.permissions import EVERYWHERE, covers

SHORTEST_DAYS, LONGEST_DAYS = 30, 36_500
"""What retention never deletes."""


class Audit(Door):
    """Read the audit, export it, prove it, shorten it."""

    @operation("audit.own", cost="light", shown=("limit", "after"))
    def own(self, which: Filter = Filter(), *, limit: int = 50, after: str | None = None) -> Page[Row]:
        """Return a page of one's own rows of every organization, newest first. Raises InvalidInput."""
        context = self.context
        context.journal.flush()
        which = msgspec.structs.replace(which, actor_id=context.principal.user_id)
        with context.store.read() as tx:
            return audit_find.find(tx, None, which, limit=limit, after=after)

    @operation("audit.read", shown=("limit", "after", "everywhere", *(f"which.{n}" for n in Filter.__struct_fields__)))
    def read(
        self, which: Filter = Filter(), *, limit: int = 50, after: str | None = None, everywhere: bool = False
    ) -> Page[Row]:
        """Return a page of the organization's rows, newest first; `everywhere`: of the whole instance. Raises InvalidInput."""
        org_id = self._scope(everywhere)
        self.context.journal.flush()
        with self.context.store.read() as tx:
            return audit_find.find(tx, org_id, which, limit=limit, after=after)

    @operation("audit.statistics", permission="audit.read", shown=("by", "everywhere"))
    def statistics(self, by: By, which: Filter = Filter(), *, everywhere: bool = False) -> list[Count]:
        """Count the organization's calls by action, actor, outcome or day. Raises InvalidInput."""
        org_id = self._scope(everywhere)
        self.context.journal.flush()
        with self.context.store.read() as tx:
            return audit_find.statistics(tx, org_id, which, by=by)

    @operation(
        "audit.export",
        cost="heavy",
        shown=("format", "everywhere", *(f"which.{n}" for n in Filter.__struct_fields__)),
    )
    def export(
        self,
        write: Callable[[bytes], object],
        format: Literal["csv", "jsonl"] = "jsonl",
        which: Filter = Filter(),
        *,
        everywhere: bool = False,
    ) -> int:
        """Write the organization's rows line by line, oldest first, and return how many lines. Raises InvalidInput."""
        if format not in ("csv", "jsonl"):
            raise InvalidInput(f"format is {format!r}", hint="csv or jsonl")
        org_id = self._scope(everywhere)
        self.context.journal.flush()
        rows = audit_find.every(self.context.store, org_id, which)
        lines = 0
        for line in csv_lines(rows) if format == "csv" else json_lines(rows):
            write(line)
            lines += 1
        tell(lines=lines)
        return lines

    @operation("audit.verify", cost="heavy")
    def verify(self, heads: Sequence[str] = ()) -> Verdict:
        """Look at every link of the chain, against heads exported before, and name the first broken one. Raises InvalidInput."""
        verdict = self.context.journal.verify([read_head(head) for head in heads])
        tell(verdict="ok" if verdict.broken is None else f"broken at {verdict.broken.number}", rows=verdict.rows)
        return verdict

    @operation("audit.head", permission="audit.verify", cost="light")
    def head(self) -> str:
        """Return the end of the chain, sealed, as JSON: kept off this machine it proves later that nothing was cut off."""
        return self.context.journal.head(self.context.clock())

    @operation("audit.retain", mutates=True, step_up=True, cost="heavy", shown=("keep_days",))
    def retain(self, keep_days: int) -> int:
        """Delete the instance's rows that are older, leave a checkpoint, return the first row kept; 0 when nothing was deleted.

        Raises InvalidInput for less than 30 days or more than a hundred years, StoreError when the rows to delete are not whole.
        """
        if not isinstance(keep_days, int) or isinstance(keep_days, bool):
            raise InvalidInput(f"keep_days is {keep_days!r}", hint="a whole number")
        if not SHORTEST_DAYS <= keep_days <= LONGEST_DAYS:
            raise InvalidInput(f"keep_days is {keep_days}", hint=f"from {SHORTEST_DAYS} to {LONGEST_DAYS}")
        now, principal, call = self.context.clock(), self.context.principal, current()
        note = Entry(
            at=now,
            phase="checkpoint",
            action="audit.retain",
            actor_id=principal.user_id,
            actor=principal.name,
            outcome="ok",
            client=principal.client,
            address=principal.address,
            run_id=call.id if call is not None else None,
        )
        made = self.context.journal.retain(now - dt.timedelta(days=keep_days), note)
        if made is None:
            return 0
        tell(through=made.detail["through"])
        return int(made.detail["through"]) + 1

    def _scope(self, everywhere: bool) -> str | None:
        principal = self.context.principal
        if not everywhere:
            if principal.org_id is None:
                raise PermissionDenied("no organization is chosen", hint="choose one, or ask for everywhere=True")
            return principal.org_id
        limited = principal.scopes is not None and not covers(principal.scopes, EVERYWHERE)
        if limited or not covers(principal.permissions, EVERYWHERE):
            raise PermissionDenied(f"the audit of every organization needs {EVERYWHERE}")
        return None
