"""Carry out a plan: stage, copy, build, verify every row, swap. Whatever fails leaves the live tables as they were."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Literal

import msgspec

from dblens.engines.base import Move, RunRecord, RunState, Target
from dblens.errors import (
    Conflict,
    InvalidInput,
    LossNotAccepted,
    PlanError,
    StalePlan,
    VerificationFailed,
)
from dblens.events import Report, StepDone, StepStarted, Warned, silent
from dblens.migrate.copying import Copying
from dblens.migrate.journal import Journal, entry, find, holder, journal_of, now
from dblens.migrate.link import Link
from dblens.migrate.model import Loss, Notice, Plan, TablePlan, plan_hash
from dblens.migrate.recount import has_losses, recount
from dblens.schema.stable import schema_hash
from dblens.transfer.copy import target_fields
from dblens.transfer.mask import key_id
from dblens.transfer.verify import Side, TableVerdict, verify_table
from dblens.values.digest import Fingerprint

ResumeMode = Literal["strict", "relaxed"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a migration ended with. `equal` is the verdict over all tables."""

    id: str
    state: RunState
    plan_hash: str
    equal: bool
    rows: int
    verdicts: tuple[TableVerdict, ...]
    losses: tuple[Loss, ...]
    exclusions: tuple[Notice, ...]
    seconds: dict[str, float]
    snapshot: str
    merged: dict[str, dict[str, int]] = {}


def check_acceptance(plan: Plan, accept: Sequence[str]) -> tuple[str, ...]:
    """Return the accepted losses' ids. Raises PlanError for blocks, LossNotAccepted, InvalidInput for ids that no loss has."""
    if plan_hash(plan) != plan.hash:
        raise PlanError("the plan was changed after it was made: its hash does not match", hint="plan again")
    if plan.blocks:
        listed = "\n".join(f"  {b.kind} {b.name}: {b.reason}" for b in plan.blocks[:20])
        raise PlanError(
            f"the plan is blocked by {len(plan.blocks)} findings:\n{listed}",
            hint="change the data, or exclude or retype the columns by rules, and plan again",
        )
    known = {loss.id for loss in plan.losses}
    chosen = known if "all" in accept else set(accept)
    unknown = chosen - known
    if unknown:
        raise InvalidInput(f"no loss of the plan is called {sorted(unknown)[0]!r}", hint="ids stand in the loss ledger")
    open_losses = [loss for loss in plan.losses if loss.id not in chosen]
    if open_losses:
        listed = "\n".join(f"  {loss.id}: {loss.count} values ({loss.repair})" for loss in open_losses[:20])
        raise LossNotAccepted(
            f"{len(open_losses)} losses are not accepted:\n{listed}",
            hint="accept them with --accept ID,… or --accept all, or avoid them by rules",
        )
    return tuple(sorted(chosen))


def apply_plan(
    plan: Plan,
    source: Link,
    target: Link,
    *,
    accept: Sequence[str] = (),
    mask_key: bytes | None = None,
    report: Report = silent,
) -> Outcome:
    """Apply a plan and return its outcome, verified and swapped.

    Raises LossNotAccepted, StalePlan, PlanError before anything is written; VerificationFailed after everything written is removed again.
    """
    accepted = check_acceptance(plan, accept)
    _check_mask_key(plan, mask_key)
    with ExitStack() as stack:
        reader = stack.enter_context(closing(source.connect(read_only=True)))
        writer = stack.enter_context(closing(target.connect(create=plan.options.create_target)))
        _check_fresh(plan, reader, writer)
        if writer.read_run(plan.id) is not None:
            raise Conflict(
                f"the plan {plan.id} was applied already",
                hint="`dblens migrate status` shows it; resume, roll back or finalize it, or plan again",
            )
        record = RunRecord(id=plan.id, plan_hash=plan.hash, state="copying", epoch=1, holder=holder(), beat_at=now())
        journal = Journal(plan=plan, accepted=accepted)
        record = writer.open_run(entry(record, journal, "copying"))
        return _Run(plan, source, target, reader, writer, record, journal, mask_key, report).go()


def resume(
    run: str | None,
    source: Link,
    target: Link,
    *,
    mode: ResumeMode = "strict",
    mask_key: bytes | None = None,
    report: Report = silent,
) -> Outcome:
    """Go on with a migration that stopped.

    strict: a new source snapshot and everything is copied again. relaxed: committed chunks stay, the rest comes from a new snapshot,
    then every difference to that snapshot is reconciled by key. Both end in the same full verification. Raises NotFound,
    StalePlan when a schema changed, Conflict while another process works on it.
    """
    with ExitStack() as stack:
        writer = stack.enter_context(closing(target.connect()))
        record = find(writer, run)
        journal = journal_of(record)
        plan = journal.plan
        _check_mask_key(plan, mask_key)
        record = writer.open_run(record, takeover=True)
        journal = journal_of(record)
        reader = stack.enter_context(closing(source.connect(read_only=True)))
        work = _Run(plan, source, target, reader, writer, record, journal, mask_key, report)
        if record.state == "swapping":
            return work.finish_swap()
        if record.state in ("swapped", "finalized"):
            return work.outcome()
        if record.state in ("rolling_back", "rolled_back"):
            raise Conflict(
                f"the migration {record.id} is being rolled back", hint="run `dblens migrate rollback` again"
            )
        if schema_hash(reader.inspect(namespaces=plan.options.namespaces)) != plan.source.schema_hash:
            raise StalePlan("the source's schema changed since the plan", hint="roll back and plan again")
        return work.go_on(mode)


def _check_mask_key(plan: Plan, key: bytes | None) -> None:
    wanted = {m.key_id for t in plan.tables for m in t.masks.values() if m.key_id}
    if wanted and (key is None or wanted != {key_id(key)}):
        raise InvalidInput(
            f"the mask key is {'missing' if key is None else 'not the one the plan was made with'}",
            hint="give the key with --mask-key-env NAME",
        )


def _check_fresh(plan: Plan, reader: Target, writer: Target) -> None:
    if schema_hash(reader.inspect(namespaces=plan.options.namespaces)) != plan.source.schema_hash:
        raise StalePlan("the source's schema changed since the plan was made", hint="plan again")
    there = writer.inspect()
    if plan.target.missing:
        if there.tables or there.views:
            raise StalePlan(
                "the target database did not exist when the plan was made and now holds tables", hint="plan again"
            )
    elif schema_hash(there) != plan.target.schema_hash:
        raise StalePlan("the target's schema changed since the plan was made", hint="plan again")


class _Run:
    def __init__(
        self,
        plan: Plan,
        source: Link,
        target: Link,
        reader: Target,
        writer: Target,
        record: RunRecord,
        journal: Journal,
        mask_key: bytes | None,
        report: Report,
    ) -> None:
        self.plan, self.source, self.target = plan, source, target
        self.reader, self.writer = reader, writer
        self.record, self.journal = record, journal
        self.mask_key, self.report = mask_key, report
        self.images: dict[str, Fingerprint] = {}

    # ---- phases

    def go(self, *, relaxed: bool = False) -> Outcome:
        """Run every phase; undo all of it when one fails for a reason that resuming would not mend."""
        try:
            return self._phases(relaxed=relaxed)
        except (VerificationFailed, StalePlan, InvalidInput) as error:
            self.report(Warned(f"undoing: {error.message}"))
            self.writer.close_run(self.record)
            raise

    def go_on(self, mode: ResumeMode) -> Outcome:
        """Continue a stopped run."""
        if mode == "relaxed" and self.record.state in ("copying", "copied"):
            return self.go(relaxed=True)
        # Also what a crash in the middle of DDL leaves: the staging area is rebuilt from nothing.
        self.writer.close_run(self.record)
        self.journal = Journal(plan=self.plan, accepted=self.journal.accepted)
        fresh = msgspec.structs.replace(self.record, epoch=self.record.epoch + 1)
        self.record = self.writer.open_run(entry(fresh, self.journal, "copying"))
        return self.go()

    def _phases(self, *, relaxed: bool) -> Outcome:
        snapshot = self.reader.begin_snapshot()
        try:
            if snapshot.note:
                self.report(Warned(snapshot.note))
            self.journal.snapshot = snapshot.note or snapshot.id
            if has_losses(self.plan):
                self._timed("recount losses", lambda: recount(self.plan, self.reader))
            self._timed("stage", lambda: self.writer.build(self.plan.build.before, self.report))
            copying = Copying(
                self.plan, self.reader, self.writer, self.target, self.record, self.journal, self.mask_key, self.report
            )
            self._timed("copy", lambda: copying.run(snapshot, relaxed=relaxed))
            self.record = copying.record
            if not relaxed:
                self.images = copying.images
            self._mark("copied")
            if relaxed:
                self._timed("reconcile", copying.reconcile)
            self._timed("build", self._build)
            self._mark("built")
            self._timed("verify", self._verify_and_analyze)
            self._mark("verified")
        finally:
            self.reader.end_snapshot()
        return self.finish_swap()

    def _timed(self, name: str, work: object) -> None:
        self.report(StepStarted(name))
        start = time.monotonic()
        assert callable(work)
        work()
        seconds = time.monotonic() - start
        self.journal.seconds[name] = round(seconds, 3)
        self.report(StepDone(name, seconds))

    def _mark(self, state: RunState) -> None:
        self.record = entry(self.record, self.journal, state)
        self.writer.write_run(self.record)

    def _build(self) -> None:
        self.writer.build(self.plan.build.after, self.report)
        staged = {t.live: t.staged for t in self.plan.tables}
        for table in self.plan.tables:
            for key in table.target.foreign_keys:
                referred = staged.get((key.namespace or table.target.namespace, key.table))
                if referred is None or table.mode == "none":
                    continue
                count, samples = self.writer.orphans(table.staged, key, referred)
                if count:
                    raise VerificationFailed(
                        f"{count} rows of {table.name} refer to nothing by {key.name or key.columns}, for example {samples[0]}",
                        hint="the source does not enforce this key for all rows; clean it, or leave the table's key out",
                    )
        self.writer.build(self.plan.build.foreign, self.report)
        for table in self.plan.tables:
            if table.append:
                continue
            if self.plan.options.content != "schema" or any(c.identity for c in table.target.columns):
                self.writer.renumber(table.target, table.staged)

    def _analyze(self, writer: Target) -> None:
        for table in self.plan.tables:
            if not table.append:
                writer.analyze(table.staged)

    def _verify_and_analyze(self) -> None:
        """Gather the staged tables' statistics while they are read for the verdict, by a session of its own where the engine has room."""
        if not self.writer.engine.facts.parallel_loads:
            self._analyze(self.writer)
            self._verify()
            return
        with (
            closing(self.target.connect()) as other,
            ThreadPoolExecutor(1, thread_name_prefix="dblens-analyze") as pool,
        ):
            statistics = pool.submit(self._analyze, other)
            try:
                self._verify()
            except BaseException:
                other.cancel()
                raise
            statistics.result()

    def _verify(self) -> None:
        verdicts = []
        for table in self.plan.tables:
            if table.mode == "none":
                continue
            start = time.monotonic()
            verdict = self._verdict(table)
            verdicts.append(msgspec.structs.replace(verdict, seconds=round(time.monotonic() - start, 3)))
        self.journal.verdicts = tuple(verdicts)
        wrong = [v for v in verdicts if not v.equal]
        if wrong:
            first = wrong[0]
            raise VerificationFailed(
                f"{len(wrong)} tables differ from the source; {first.table} in {first.differing} rows"
                + (f", first at key {first.differences[0].key}" if first.differences else ""),
                verdict=tuple(verdicts),
                hint="nothing was shown in the target; the verdict names keys and columns",
            )

    def _verdict(self, table: TablePlan) -> TableVerdict:
        fields = table.compared
        return verify_table(
            table.name,
            Side(session=self.reader, table=table.source, fields=fields, where=table.where),
            Side(session=self.writer, table=table.at(table.staged), fields=target_fields(fields, table.masks)),
            key=table.key,
            masks=table.masks,
            mask_key=self.mask_key,
            known=self.images.get(table.name),
            report=self.report,
        )

    # ---- showing it

    def moves(self) -> list[Move]:
        """Return the swap's moves."""
        return [
            Move(live=t.live, staged=t.staged, table=t.target, previous=t.previous)
            for t in self.plan.tables
            if not t.append
        ]

    def finish_swap(self) -> Outcome:
        """Swap, or finish a swap that stopped, and remember what the live tables held right after it."""
        if not self.journal.digests:
            self.journal.digests = {v.table: v.target_digest for v in self.journal.verdicts}
        self.record = entry(self.record, self.journal, self.record.state)

        def swap() -> None:
            for table in self.plan.tables:
                if table.append and table.name not in self.journal.merged:
                    self.journal.merged[table.name] = self.writer.merge(
                        self.record,
                        table.staged,
                        table.live,
                        target_fields(table.fields, table.masks),
                        table.key,
                        self.plan.options.conflict,
                    )
                    self.record = entry(self.record, self.journal, "swapping")
                    self.writer.write_run(self.record)
            self.record = self.writer.swap(self.record, self.moves(), self.report)

        self._timed("swap", swap)
        self._mark("swapped")
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return what there is to say."""
        verdicts = self.journal.verdicts
        return Outcome(
            id=self.record.id,
            state=self.record.state,
            plan_hash=self.plan.hash,
            equal=all(v.equal for v in verdicts),
            rows=sum(v.source_rows for v in verdicts),
            verdicts=verdicts,
            losses=self.plan.losses,
            exclusions=self.plan.exclusions,
            seconds=self.journal.seconds,
            snapshot=self.journal.snapshot,
            merged={k: msgspec.structs.asdict(v) for k, v in self.journal.merged.items()},
        )
