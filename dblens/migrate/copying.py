"""The copy phase: units of work over one or several workers, and the reconciliation of a relaxed resume."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, cast

import msgspec

from dblens.engines.base import (
    ALL,
    Block,
    Chunk,
    Embedding,
    Embeds,
    Field,
    Format,
    KeyRange,
    Place,
    RunRecord,
    Snapshot,
    Target,
)
from dblens.errors import Unsupported
from dblens.events import Progress, Report, Warned
from dblens.migrate.journal import Journal, entry
from dblens.migrate.link import Link
from dblens.migrate.model import Plan, TablePlan
from dblens.transfer.copy import TableCopy, copy_range, target_fields
from dblens.transfer.verify import Side, verify_table
from dblens.values.codec import canonical
from dblens.values.digest import Accumulator, Fingerprint


class _Unit(msgspec.Struct, frozen=True):
    table: TablePlan
    number: int
    keys: KeyRange


class _Into:
    """A target that puts what is loaded into arrays of its staged documents."""

    def __init__(self, target: Target, embedding: Embedding) -> None:
        self.target, self.embedding = target, embedding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def load(
        self,
        place: Place,
        fields: Sequence[Field],
        fmt: Format,
        blocks: Iterable[Block],
        chunk: Chunk,
        *,
        fast: bool,  # noqa: ARG002 - always whole
    ) -> int:
        if not isinstance(self.target, Embeds):
            raise Unsupported(f"embedding {self.embedding.field!r}", f"{self.target.engine.title} has no documents")
        return self.target.embed(place, fields, fmt, blocks, chunk, self.embedding)


class Copying:
    """Copies all tables of a plan into staging."""

    def __init__(
        self,
        plan: Plan,
        reader: Target,
        writer: Target,
        target: Link,
        record: RunRecord,
        journal: Journal,
        mask_key: bytes | None,
        report: Report,
    ) -> None:
        self.plan, self.reader, self.writer, self.target = plan, reader, writer, target
        self.record, self.journal = record, journal
        self.mask_key, self.report = mask_key, report
        self._copied: dict[str, int] = {}
        self.images: dict[str, Fingerprint] = {}
        """Digests of source tables, by name, that were read once for both the copier and the verifier."""
        self._lock = threading.Lock()

    def run(self, snapshot: Snapshot, *, relaxed: bool) -> None:
        """Copy what the ledger does not hold yet."""
        done = {(c.table, c.number) for c in self.writer.ledger(self.record.id)} if relaxed else set()
        units = [u for u in self._units() if (u.table.staged, u.number) not in done and not u.table.embedding]
        jobs = max(1, min(self.plan.options.jobs, len(units)))
        if jobs > 1 and not (snapshot.shared and self.writer.engine.facts.parallel_loads):
            why = self.reader.supports("shared_snapshot").why or "one writer at a time"
            self.report(Warned(f"one worker instead of {jobs}: {why}"))
            jobs = 1
        if jobs == 1:
            for unit in units:
                self._copy(unit, self.reader, self.writer)
        else:
            self._parallel(units, jobs, snapshot)
        if not relaxed:
            self._embed()

    def _embed(self) -> None:
        """Put the rows of embedded tables into their documents, which must be there."""
        for table in self.plan.tables:
            if table.embedding and table.mode != "none":
                self._copy(_Unit(table, 0, ALL), self.reader, cast("Target", _Into(self.writer, table.embedding)))

    def _units(self) -> list[_Unit]:
        units: list[_Unit] = []
        fresh = False
        for table in sorted(self.plan.tables, key=lambda t: -t.rows):
            if table.mode == "ledger" and table.name not in self.journal.chunks:
                fresh = True
                self.journal.chunks[table.name] = self.reader.chunks(
                    table.source, self.plan.options.chunk_rows, where=table.where
                )
            units.extend(self._units_of(table))
        if fresh:
            # The cut must outlive a crash: chunk numbers in the ledger mean these ranges.
            self.record = entry(self.record, self.journal, "copying")
            self.writer.write_run(self.record)
        return units

    def _units_of(self, table: TablePlan) -> list[_Unit]:
        match table.mode:
            case "fast":
                return [_Unit(table, 0, ALL)]
            case "ledger":
                return [_Unit(table, i, keys) for i, keys in enumerate(self.journal.chunks[table.name])]
        return []

    def _copy(self, unit: _Unit, reader: Target, writer: Target) -> None:
        table = unit.table
        job = TableCopy(
            source=table.source,
            target=table.target,
            place=table.staged,
            fields=table.fields,
            where=table.where,
            masks=table.masks,
            # A table that is a single chunk is restarted whole either way.
            fast=table.mode == "fast",
            rows=table.rows,
        )
        chunk = Chunk(
            run=self.record.id, table=table.staged, number=unit.number, keys=unit.keys, epoch=self.record.epoch
        )
        with self._lock:
            before = self._copied.get(table.name, 0)
        sums = Accumulator() if table.mode == "fast" and table.compared == table.fields else None
        loaded = copy_range(
            reader,
            writer,
            job,
            chunk,
            mask_key=self.mask_key,
            keys=unit.keys,
            report=self.report,
            done=before,
            sums=sums,
        )
        with self._lock:
            self._copied[table.name] = self._copied.get(table.name, 0) + loaded
            if sums is not None and (found := sums.fingerprint()).total.count:
                self.images[table.name] = found

    def _parallel(self, units: list[_Unit], jobs: int, snapshot: Snapshot) -> None:
        work: queue.SimpleQueue[_Unit] = queue.SimpleQueue()
        for unit in units:
            work.put(unit)
        errors: list[BaseException] = []

        def loop(reader: Target, writer: Target) -> None:
            try:
                while not errors:
                    try:
                        unit = work.get_nowait()
                    except queue.Empty:
                        return
                    self._copy(unit, reader, writer)
            except BaseException as error:  # noqa: BLE001 - raised by the caller below
                errors.append(error)

        with ExitStack() as stack:
            pairs = [(self.reader, self.writer)]
            for _ in range(jobs - 1):
                joined = stack.enter_context(closing(self.reader.join(snapshot)))
                pairs.append((joined, stack.enter_context(closing(self.target.connect()))))  # type: ignore[arg-type]
            threads = [
                threading.Thread(target=loop, args=pair, name=f"dblens-copy-{i}") for i, pair in enumerate(pairs)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    # ---- relaxed resume

    def reconcile(self) -> None:
        """Bring every staged table to the new snapshot: find what differs, and put it right by key."""
        for table in self.plan.tables:
            if table.mode == "none" or table.embedding:
                continue
            fields = target_fields(table.fields, table.masks)
            key = table.target.primary_key.columns if table.target.primary_key else ()
            verdict = verify_table(
                table.name,
                Side(session=self.reader, table=table.source, fields=table.fields, where=table.where),
                Side(session=self.writer, table=table.at(table.staged), fields=fields),
                key=key,
                masks=table.masks,
                mask_key=self.mask_key,
            )
            if verdict.equal:
                continue
            whole = not key or not verdict.complete or verdict.differing > len(verdict.differences)
            if whole or any(d.kind == "duplicated" for d in verdict.differences):
                self.report(Warned(f"{table.name}: copied again whole ({'no key' if not key else 'too much changed'})"))
                self._again(table)
                continue
            wanted = {d.key for d in verdict.differences}
            rows = self._rows(table, key, wanted)
            gone = [d.key for d in verdict.differences]
            self.writer.repair(table.staged, fields, key, rows, gone)
            self.report(Progress(f"reconcile {table.name}", len(wanted), len(wanted)))
        self._embed()

    def _again(self, table: TablePlan) -> None:
        self.writer.clear(table.staged)
        self.writer.forget_chunks(self.record.id, table.staged)
        for unit in self._units_of(table):
            self._copy(unit, self.reader, self.writer)

    def _rows(
        self, table: TablePlan, key: tuple[str, ...], wanted: set[tuple[str | None, ...]]
    ) -> list[tuple[Any, ...]]:
        """Return the source's rows with the wanted keys as exchange values: one more read of the table, bounded memory."""
        if table.masks:
            raise Unsupported("relaxed resume of a masked table", "its rows cannot be matched by key; resume --strict")
        positions = [i for k in key for i, f in enumerate(table.fields) if f.target and f.target.name == k]

        def found() -> Iterator[tuple[Any, ...]]:
            blocks = self.reader.export(table.source, table.fields, "rows", where=table.where)
            with closing(blocks):
                for block in blocks:
                    for row in block.data:
                        texts = tuple(
                            None if (t := canonical(table.fields[i].form, row[i])) is None else t.decode()
                            for i in positions
                        )
                        if texts in wanted:
                            yield row

        return list(found())
