"""The door to migrations: plan, apply, resume, verify, roll back, finalize."""

from __future__ import annotations

from collections.abc import Sequence

from dblens.engines import address
from dblens.events import Report, silent
from dblens.migrate.apply import Outcome, ResumeMode, apply_plan, resume
from dblens.migrate.compare import Comparison, compare
from dblens.migrate.link import Link
from dblens.migrate.model import Plan
from dblens.migrate.options import Options
from dblens.migrate.plan import make_plan
from dblens.migrate.undo import RunStatus, finalize, rollback, status


def link(url: str, password: str | None = None, *, allow_password: bool = False) -> Link:
    """Return a link to the database at `url`. Raises InvalidInput for a URL with a password unless allowed."""
    parsed, inline = address.parse(url, allow_password=allow_password)
    return Link(parsed, password if password is not None else inline)


class Migrations:
    """Migrations between databases named by URL. Passwords are arguments of their own and are not kept."""

    def plan(
        self,
        source: Link | str,
        target: Link | str,
        options: Options | None = None,
        *,
        report: Report = silent,
    ) -> Plan:
        """Plan a migration without writing to either side."""
        return make_plan(_link(source), _link(target), options or Options(), report=report)

    def apply(
        self,
        plan: Plan,
        *,
        source: Link | str | None = None,
        target: Link | str | None = None,
        accept: Sequence[str] = (),
        mask_key: bytes | None = None,
        report: Report = silent,
    ) -> Outcome:
        """Apply a plan: copy, verify every row, swap. Raises LossNotAccepted, StalePlan, VerificationFailed."""
        return apply_plan(
            plan,
            _link(source or plan.source.url),
            _link(target or plan.target.url),
            accept=accept,
            mask_key=mask_key,
            report=report,
        )

    def resume(
        self,
        source: Link | str,
        target: Link | str,
        run: str | None = None,
        *,
        mode: ResumeMode = "strict",
        mask_key: bytes | None = None,
        report: Report = silent,
    ) -> Outcome:
        """Go on with a migration that stopped."""
        return resume(run, _link(source), _link(target), mode=mode, mask_key=mask_key, report=report)

    def verify(
        self,
        source: Link | str,
        target: Link | str,
        *,
        tables: Sequence[str] = (),
        where: str | None = None,
        tolerance: dict[str, float] | None = None,
        shared_columns: bool = False,
        repair: bool = False,
        report: Report = silent,
    ) -> Comparison:
        """Compare two databases row by row as they are."""
        return compare(
            _link(source),
            _link(target),
            tables=tables,
            where=where,
            tolerance=tolerance,
            shared_columns=shared_columns,
            repair=repair,
            report=report,
        )

    def rollback(
        self, target: Link | str, run: str | None = None, *, discard_changes: bool = False, report: Report = silent
    ) -> str:
        """Bring the target back to where it was. Raises Irreversible when it was written since the swap."""
        return rollback(run, _link(target), discard_changes=discard_changes, report=report)

    def finalize(self, target: Link | str, run: str | None = None, *, report: Report = silent) -> str:
        """Drop the replaced copy for good."""
        return finalize(run, _link(target), report=report)

    def status(self, target: Link | str) -> list[RunStatus]:
        """Return the migrations that a target knows."""
        return status(_link(target))


def _link(side: Link | str) -> Link:
    return link(side) if isinstance(side, str) else side
