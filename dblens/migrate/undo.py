"""After the swap: drop the old copy for good, or go back to it."""

from __future__ import annotations

from contextlib import closing

import msgspec

from dblens.engines.base import Move, RunRecord, Target
from dblens.errors import Conflict, Irreversible
from dblens.events import Report, StepDone, StepStarted, silent
from dblens.migrate.journal import Journal, entry, find, journal_of
from dblens.migrate.link import Link
from dblens.transfer.copy import target_fields
from dblens.transfer.verify import Side, side_digest


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A migration as its target remembers it."""

    id: str
    state: str
    holder: str
    beat_at: str
    source: str
    target: str
    plan_hash: str
    tables: int
    rows: int
    chunks_done: int
    chunks: int
    seconds: dict[str, float]


def status(target: Link) -> list[RunStatus]:
    """Return the migrations that a target knows, newest first."""
    with closing(target.connect()) as session:
        return [_status(session, record) for record in session.list_runs()]


def _status(session: Target, record: RunRecord) -> RunStatus:
    journal = journal_of(record)
    plan = journal.plan
    return RunStatus(
        id=record.id,
        state=record.state,
        holder=record.holder,
        beat_at=record.beat_at,
        source=plan.source.identity,
        target=plan.target.identity,
        plan_hash=record.plan_hash,
        tables=len(plan.tables),
        rows=plan.rows,
        chunks_done=len(session.ledger(record.id)) if record.state in ("copying", "copied") else 0,
        chunks=sum(len(journal.chunks.get(t.name, [0])) for t in plan.tables if t.mode != "none"),
        seconds=journal.seconds,
    )


def finalize(run: str | None, target: Link, *, report: Report = silent) -> str:
    """Drop the replaced tables and everything else the run kept; return its id. After that there is no way back.

    Raises Conflict when the run has not been swapped.
    """
    with closing(target.connect()) as session:
        record = find(session, run)
        if record.state not in ("swapped", "finalized"):
            raise Conflict(
                f"the migration {record.id} is {record.state}, not swapped", hint="resume it, or roll it back"
            )
        record = session.open_run(record, takeover=True)
        report(StepStarted("finalize"))
        session.close_run(msgspec.structs.replace(record, state="finalized"))
        report(StepDone("finalize", 0.0))
        return record.id


def rollback(run: str | None, target: Link, *, discard_changes: bool = False, report: Report = silent) -> str:
    """Bring the target back to where it was before the migration; return the run's id.

    Raises Irreversible with the tables that were written since the swap, unless `discard_changes`.
    """
    with closing(target.connect()) as session:
        record = session.open_run(find(session, run), takeover=True)
        journal = journal_of(record)
        report(StepStarted("rollback"))
        if record.state in ("swapping", "swapped", "rolling_back"):
            if record.state == "swapped" and not discard_changes:
                _refuse_if_written(session, journal)
            record = entry(record, journal, "rolling_back")
            session.write_run(record)
            for table in journal.plan.tables:
                if table.append:
                    session.unmerge(record, table.live, table.key, force=discard_changes)
            moves = [
                Move(live=t.live, staged=t.staged, table=t.target, previous=t.previous)
                for t in journal.plan.tables
                if not t.append
            ]
            record = session.unswap(record, moves, report)
        session.close_run(msgspec.structs.replace(record, state="rolled_back"))
        report(StepDone("rollback", 0.0))
        return record.id


def _refuse_if_written(session: Target, journal: Journal) -> None:
    changed = []
    methods = {v.table: v.method for v in journal.verdicts}
    for table in journal.plan.tables:
        before = journal.digests.get(table.name)
        if before is None or table.append:
            continue
        live = Side(session=session, table=table.at(table.live), fields=target_fields(table.compared, table.masks))
        now = side_digest(live, methods[table.name])
        if now != before:
            rows, rows_now = (int(d.partition(":")[0]) for d in (before, now))
            changed.append(f"  {'.'.join(table.live)}: {rows} rows after the swap, {rows_now} rows now, other values")
    if changed:
        raise Irreversible(
            "the target was written after the swap:\n" + "\n".join(changed),
            hint="keep it (`dblens migrate finalize`), or lose those changes with --discard-changes",
        )
