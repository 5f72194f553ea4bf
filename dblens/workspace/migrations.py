"""The door to migrations: plan, apply, resume, verify, roll back, finalize."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from dblens.engines import address
from dblens.errors import InvalidInput
from dblens.events import Report, Warned, silent
from dblens.migrate.apply import Outcome, ResumeMode, apply_plan, resume
from dblens.migrate.compare import Comparison, compare
from dblens.migrate.link import Link
from dblens.migrate.model import Plan
from dblens.migrate.options import Options
from dblens.migrate.plan import make_plan
from dblens.migrate.undo import RunStatus, finalize, rollback, status
from dblens.transfer.copy import target_fields
from dblens.transfer.verify import Side, verify_table


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

    def verify_plan(
        self,
        plan: Plan,
        *,
        source: Link | str | None = None,
        target: Link | str | None = None,
        mask_key: bytes | None = None,
        report: Report = silent,
    ) -> Comparison:
        """Compare a migration's live tables with its source row by row as its plan says: names, masks, losses, shapes of documents."""
        with ExitStack() as stack:
            left = stack.enter_context(closing(_link(source or plan.source.url).connect(read_only=True)))
            right = stack.enter_context(closing(_link(target or plan.target.url).connect(read_only=True)))
            for session in (left, right):
                note = session.begin_snapshot().note
                stack.callback(session.end_snapshot)
                if note:
                    report(Warned(note))
            tables = [t for t in plan.tables if t.mode != "none" and not t.append]
            if not tables:
                raise InvalidInput("the plan has no table of rows to compare", hint="it appends, or moves no rows")
            verdicts = [
                verify_table(
                    t.name,
                    Side(session=left, table=t.source, fields=t.compared, where=t.where),
                    Side(session=right, table=t.at(t.live), fields=target_fields(t.compared, t.masks)),
                    key=t.key,
                    masks=t.masks,
                    mask_key=mask_key,
                    report=report,
                )
                for t in tables
            ]
            return Comparison(
                source=left.fingerprint_id,
                target=right.fingerprint_id,
                equal=all(v.equal for v in verdicts),
                verdicts=tuple(verdicts),
                notes=tuple(f"{t.name}: appended to rows of others, so not compared" for t in plan.tables if t.append),
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
