"""A session on one SQLite file: the engine's verbs, each handed to its chapter.

After `open_run` the session reads and writes the run's partial file; once the run is swapped, the live file again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from dblens.engines.base import (
    ALL,
    Block,
    Check,
    CheckResult,
    Chunk,
    ConflictRule,
    Engine,
    Feature,
    Field,
    Format,
    KeyRange,
    MergeCounts,
    Move,
    Place,
    Result,
    RunRecord,
    Snapshot,
    Support,
    Url,
)
from dblens.engines.sqlite import canonical, checks, export, keys, load, merge, profile, staging, swap
from dblens.engines.sqlite import inspect as catalog
from dblens.engines.sqlite.ask import SqliteAsks
from dblens.engines.sqlite.ddl import quote, where_is
from dblens.engines.sqlite.driver import Db, mapped
from dblens.engines.sqlite.files import Files, State
from dblens.engines.sqlite.prove import Proof
from dblens.errors import Conflict, InvalidInput, NotFound, PermissionDenied, QueryFailed, TimedOut, Unsupported
from dblens.events import Report, silent
from dblens.schema.model import ForeignKey, Schema, Table, TableRef
from dblens.values.digest import Fingerprint


def connect(
    engine: Engine,
    url: Url,
    *,
    create: bool = False,
    read_only: bool = False,
) -> Session:
    """Open a session on the file that a URL names, or on a private database in memory without one."""
    for name in url.options:
        if name not in engine.options:
            raise InvalidInput(f"SQLite knows no option {name!r}", hint=f"it knows {', '.join(sorted(engine.options))}")
    mode = url.options.get("mode", "rw")
    if mode not in ("ro", "rw", "rwc"):
        raise InvalidInput(f"mode={mode!r} is no mode of SQLite", hint="ro, rw or rwc")
    for part in (url.host, url.user):
        if part:
            raise InvalidInput(
                f"a SQLite URL has no host or user: {url}", hint="write sqlite:///relative.db or sqlite:////absolute.db"
            )
    database = url.database if url.database not in (None, "", ":memory:") else None
    immutable = url.options.get("immutable", "0") in ("1", "true", "yes")
    return Session(
        engine,
        database,
        create=create or mode == "rwc",
        read_only=read_only or mode == "ro" or immutable,
        immutable=immutable,
    )


class Session:
    """One connection, and the run that works through it."""

    def __init__(self, engine: Engine, path: str | None, *, create: bool, read_only: bool, immutable: bool) -> None:
        self._engine = engine
        self._path = path
        self._read_only = read_only
        self._immutable = immutable
        self._files = Files(path) if path is not None else None
        self._run: State | None = None
        self._watch: Db | None = None
        self._seen: int | None = None
        # What profiling proved in this snapshot, with the number of changes that this connection had made by then.
        self._proven: dict[Place, tuple[int, dict[str, Proof]]] = {}
        # A file that is still to be made comes into being with the first write, so that a run that fails leaves none behind.
        self._missing = False
        self.asks: SqliteAsks | None = None
        if self._files is not None and not os.path.exists(self._files.target):
            if not create and not self._files.list():
                raise NotFound(f"no such file: {path}", hint="check the path; --create-target makes a new database")
            folder = self._files.folder
            if not os.path.isdir(folder):
                raise NotFound(f"no such folder: {folder}", hint="create it first")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionDenied(f"{folder} cannot be written", hint="check the rights on the folder")
            self._missing = True
        self._db = self._open()

    def _open(self) -> Db:
        if self._missing or self._files is None:
            return Db(None)
        return Db(self._path, mode="ro" if self._read_only else "rw", immutable=self._immutable)

    def _reopen(self) -> None:
        """Go back to the live file, or to its empty stand-in."""
        self._db.close()
        self._missing = self._files is not None and not os.path.exists(self._files.target)
        self._db = self._open()

    # ---- what it is

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def version(self) -> str:
        return sqlite3.sqlite_version

    @property
    def flavour(self) -> str:
        return sqlite3.sqlite_version.split(".")[0]

    @property
    def database(self) -> str:
        return self._path or ":memory:"

    @property
    def fingerprint_id(self) -> str:
        where = os.path.abspath(self._path) if self._path else ":memory:"
        return f"sqlite:///{where}, {sqlite3.sqlite_version}"

    def namespaces(self) -> list[str]:
        return ["main"]

    def list_tables(self, namespace: str) -> list[TableRef]:
        return catalog.list_tables(self._db) if namespace == "main" else []

    def inspect(self, *, namespaces: Sequence[str] = ()) -> Schema:
        if namespaces and "main" not in namespaces:
            return Schema(engine="sqlite", version=self.version, database=self.database)
        return catalog.inspect(self._db, self.version, self.database)

    def execute(
        self, statement: str, params: Sequence[object] = (), *, limit: int | None = None, timeout: float | None = None
    ) -> Result:
        self.live()
        timer = threading.Timer(timeout, self.cancel) if timeout is not None else None
        if timer is not None:
            timer.start()
        try:
            return self._execute(statement, params, limit)
        except QueryFailed:
            raise
        except Exception as error:
            if timer is not None and timer.finished.is_set() and "stopped" in str(error):
                raise TimedOut(
                    f"stopped after {timeout} s: {statement[:200]!r}", hint="narrow the query, or allow more time"
                ) from error
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _execute(self, statement: str, params: Sequence[object], limit: int | None) -> Result:
        raw = self._db.raw
        with mapped(self._db.path, statement):
            raw.text_factory = lambda octets: octets.decode("utf-8", "surrogateescape")
            cursor = raw.execute(statement, params)
            if cursor.description is None:
                return Result(affected=cursor.rowcount if cursor.rowcount >= 0 else None)
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
            cursor.close()
        truncated = limit is not None and len(rows) > limit
        names = tuple(str(d[0]) for d in cursor.description)
        return Result(columns=names, rows=rows[:limit] if truncated else rows, truncated=truncated)

    def cancel(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.raw.interrupt()

    def live(self, *, create: bool = True) -> Db:
        """Return the handle. `create`: on the file, which comes into being where it is missing."""
        if create and self._missing and self._run is None and self._path is not None:
            self._db.close()
            self._db, self._missing = Db(self._path, mode="rwc"), False
        return self._db

    def file(self) -> str | None:
        """Return the path of the file that the handle is on, None without one."""
        return None if self._missing or self._run is not None else self._path

    def reads_only(self) -> bool:
        """Return whether the handle itself was opened read-only."""
        return self._read_only

    def close(self) -> None:
        if self.asks is not None:
            self.asks.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._db.close()
        if self._files is not None:
            self._files.release()

    def supports(self, feature: Feature) -> Support:
        match feature:
            case "shared_snapshot":
                return Support(
                    ok=False,
                    why="SQLite sessions cannot share a snapshot; they can only find out that nothing was written",
                )
            case "bulk_load":
                return Support(ok=False, why="SQLite has no loader; rows are inserted in one transaction")
            case "create_database" if self._path is None:
                return Support(ok=False, why="a database in memory has no file")
        return Support(ok=True)

    def missing_privileges(self, *, write: bool, place: str | None = None) -> list[str]:  # noqa: ARG002 - one file, one place
        if not write or self._files is None:
            return []
        lacking = []
        if os.path.exists(self._files.target) and not os.access(self._files.target, os.W_OK):
            lacking.append(f"write access to {self._files.target} (chmod u+w)")
        if not os.access(self._files.folder, os.W_OK | os.X_OK):
            lacking.append(f"write access to the folder {self._files.folder} (chmod u+wx)")
        if self._read_only:
            lacking.append("a URL without mode=ro")
        return lacking

    # ---- reading

    def begin_snapshot(self) -> Snapshot:
        if self._db.raw.in_transaction:
            raise Conflict("this session is in a snapshot or a transaction already", hint="end it first")
        watch = (
            None
            if self._missing or self._path is None or self._run is not None
            else Db(self._path, mode="ro", immutable=self._immutable)
        )
        for _ in range(100):
            before = watch.one("PRAGMA data_version") if watch else None
            self._db.run("BEGIN")
            self._db.one("SELECT count(*) FROM main.sqlite_schema")
            seen = watch.one("PRAGMA data_version") if watch else None
            if before == seen:
                break
            self._db.run("ROLLBACK")
        else:
            raise Conflict(f"{self.database} is written all the time", hint="try again when it is quieter")
        self._watch, self._seen = watch, seen
        wal = self._db.one("PRAGMA main.journal_mode") == "wal"
        note = (
            ""
            if wal or self._path is None or self._run is not None
            else "writers of the file wait until reading ends (it is not in WAL mode)"
        )
        return Snapshot(id=f"{os.getpid()}-{id(self):x}-{seen}", shared=False, consistent=True, note=note)

    def end_snapshot(self) -> None:
        if self._db.raw.in_transaction:
            self._db.run("ROLLBACK")
        if self._watch is not None:
            self._watch.close()
        self._watch = self._seen = None
        self._proven.clear()

    def join(self, snapshot: Snapshot) -> Session:
        if self._watch is None or not self._db.raw.in_transaction:
            raise Unsupported("joining a snapshot", "this session holds none")
        other = Session(self._engine, self._path, create=False, read_only=True, immutable=self._immutable)
        try:
            other._db.run("BEGIN")
            other._db.one("SELECT count(*) FROM main.sqlite_schema")
            if self._watch.one("PRAGMA data_version") != self._seen:
                raise Unsupported(f"joining snapshot {snapshot.id}", "the file was written since it began")
        except BaseException:
            other.close()
            raise
        return other

    def profile(self, table: Table, report: Report = silent) -> Table:
        profiled, proofs = profile.profile(self._db, table, report)
        if self._db.raw.in_transaction:
            self._proven[table.namespace, table.name] = (self._db.raw.total_changes, proofs)
        return profiled

    def count(self, table: Table, *, where: str | None = None) -> int:
        condition = f" WHERE ({where})" if where else ""
        return int(self._db.one(f"SELECT count(*) FROM {where_is((table.namespace, table.name))}{condition}"))

    def check(
        self, table: Table, checks_: Sequence[tuple[Field, Check]], *, where: str | None = None
    ) -> list[CheckResult]:
        changes, proofs = self._proven.get((table.namespace, table.name), (-1, {}))
        if not self._db.raw.in_transaction or self._db.raw.total_changes != changes:
            proofs = {}
        return checks.run(self._db, table, checks_, where, proofs)

    def chunks(self, table: Table, rows: int, *, where: str | None = None) -> list[KeyRange]:
        return keys.chunks(self._db, table, rows, where)

    def formats_out(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002 - the fields decide
        return export.formats_out(fields)

    def export(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, keys: KeyRange = ALL, where: str | None = None
    ) -> Generator[Block]:
        return export.export(self._db, table, fields, fmt, keys, where)

    def fingerprint(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,
        report: Report = silent,
    ) -> Fingerprint:
        return canonical.fingerprint(self._db, table, fields, keys, where, report, exact)

    def canonical_rows(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        buckets: frozenset[int] | None = None,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,
    ) -> Iterator[tuple[bytes | None, ...]]:
        return canonical.canonical_rows(self._db, table, fields, buckets, keys, where, exact)

    # ---- the run

    def _target(self) -> Files:
        if self._files is None:
            raise Unsupported(
                "migrating into a database in memory", "it would be gone with the session", hint="name a file"
            )
        return self._files

    def _state(self) -> State:
        if self._run is None:
            raise Conflict("this session has not opened the run", hint="call open_run first")
        return self._run

    def _fence(self) -> None:
        """Raise Conflict when another session took the run over."""
        state = self._state()
        there = self._target().read(state.record.id)
        if there is None or there.record.epoch != state.record.epoch:
            by = there.record.holder if there else "nobody: the run was closed"
            raise Conflict(f"the run {state.record.id} was taken over by {by}", hint="leave it to that process")

    def _keep(self, record: RunRecord, **changes: Any) -> RunRecord:
        self._run = msgspec.structs.replace(self._state(), record=record, **changes)
        self._target().write(self._run)
        return record

    def formats_in(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002 - one way for all
        return ("rows",)

    def open_run(self, record: RunRecord, *, takeover: bool = False) -> RunRecord:
        if self._read_only:
            raise PermissionDenied(f"{self.database} was opened read-only", hint="leave out mode=ro")
        files = self._target()
        files.take_lock(f"{record.holder} (run {record.id})")
        state, on_partial = staging.open_run(files, record, takeover)
        self._run = state
        if on_partial:
            self._db.close()
            self._missing = False
            self._db = staging.open_partial(files, state)
        else:
            self._reopen()
        return state.record

    def read_run(self, run: str) -> RunRecord | None:
        state = self._files.read(run) if self._files is not None else None
        return None if state is None else state.record

    def list_runs(self) -> list[RunRecord]:
        return [] if self._files is None else [s.record for s in self._files.list()]

    def write_run(self, record: RunRecord) -> None:
        files = self._target()
        there = files.read(record.id)
        if there is None:
            raise NotFound(f"{files.target} knows no run {record.id!r}", hint="it was closed")
        if there.record.epoch != record.epoch:
            raise Conflict(
                f"the run {record.id} was taken over by {there.record.holder}", hint="leave it to that process"
            )
        files.write(msgspec.structs.replace(there, record=record))
        if self._run is not None and self._run.record.id == record.id:
            self._run = msgspec.structs.replace(there, record=record)

    def ledger(self, run: str) -> list[Chunk]:
        if self._run is not None and self._run.record.id == run:
            return load.ledger(self._db, run)
        path = self._files.partial(run) if self._files is not None else ""
        if not os.path.exists(path):
            return []
        try:
            # Not read-only: a run that was killed left a journal, which the first reader rolls back.
            db = Db(path, busy_seconds=1.0)
        except TimedOut:
            return []  # the run itself is in the middle of a load, and what it committed before cannot be read until it commits again
        try:
            return load.ledger(db, run)
        finally:
            db.close()

    def forget_chunks(self, run: str, table: Place | None = None) -> None:
        load.forget_chunks(self._db, run, table)

    def clear(self, place: Place) -> None:
        self._db.run(f"DELETE FROM {where_is(place)}")

    def build(self, statements: Iterable[str], report: Report = silent) -> None:
        staging.build(self._db, statements, report)

    def load(
        self, place: Place, fields: Sequence[Field], fmt: Format, blocks: Iterable[Block], chunk: Chunk, *, fast: bool
    ) -> int:
        state = self._state()
        if chunk.epoch != state.record.epoch:
            raise Conflict(
                f"epoch {chunk.epoch} of the run {state.record.id} is over, it is {state.record.epoch} now",
                hint="stop this worker",
            )
        if fast and not state.unsynced and not load.ledger(self._db, state.record.id):
            self._keep(state.record, unsynced=True)
        staging.set_durability(self._db, durable=not (fast and self._state().unsynced))
        return load.load(self._db, place, fields, fmt, blocks, chunk, fast=fast, fence=self._fence)

    def repair(
        self,
        place: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        delete: Sequence[tuple[Any, ...]],
    ) -> int:
        return load.repair(self._db, place, fields, key, rows, delete)

    def renumber(self, table: Table, place: Place) -> None:
        staging.renumber(self._db, table, place)

    def analyze(self, place: Place) -> None:
        self._db.run("PRAGMA analysis_limit = 1000")
        self._db.run(f"ANALYZE main.{quote(place[1])}")

    def orphans(
        self, place: Place, key: ForeignKey, referred: Place, *, samples: int = 5
    ) -> tuple[int, list[tuple[str, ...]]]:
        return staging.orphans(self._db, place, key, referred, samples)

    def swap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        files = self._target()
        self._fence()
        state = self._state()
        if record.state == "swapped":
            return record
        way = state.way or ("publish" if files.before() != "present" else "inplace")
        record = self._keep(
            msgspec.structs.replace(record, state="swapping"),
            way=way,
            before=state.before if state.way else files.before(),
        )
        self._db.close()
        try:
            if way == "publish":
                swap.publish(files, self._state())
            elif moves:
                swap.replace(files, record, moves, report)
        finally:
            partial = files.partial(record.id)
            self._db = Db(partial) if os.path.exists(partial) else Db(None)
        record = self._keep(msgspec.structs.replace(record, state="swapped"))
        self._reopen()
        swap.remove(files.partial(record.id))
        return record

    def unswap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:  # noqa: ARG002 - one transaction
        files = self._target()
        self._fence()
        record = self._keep(msgspec.structs.replace(record, state="rolling_back"))
        self._db.close()
        self._db = Db(None)
        match self._state().way:
            case "publish":
                swap.unpublish(files, self._state(), moves)
            case "inplace":
                swap.restore(files, record)
        record = self._keep(msgspec.structs.replace(record, state="rolled_back"))
        self._reopen()
        return record

    def merge(
        self,
        record: RunRecord,
        staged: Place,
        live: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rule: ConflictRule,
    ) -> MergeCounts:
        self._fence()
        names = [(f.target or f.column).name for f in fields]
        return merge.merge(self._target(), record, staged, live, names, key, rule)

    def unmerge(self, record: RunRecord, live: Place, key: Sequence[str], *, force: bool = False) -> None:  # noqa: ARG002 - by image
        merge.unmerge(self._target(), record, live[1], force=force)

    def close_run(self, record: RunRecord) -> None:
        files = self._target()
        if self._run is not None and self._run.record.id == record.id:
            self._db.close()
            self._db = Db(None)
            self._run = None
        if record.state not in ("swapped", "finalized"):
            merge.unmerge_all(files, record)
            swap.restore(files, record)
        swap.clean(files, record)
        files.forget(record.id)
        self._reopen()

    def dependents(self, places: Sequence[Place]) -> list[str]:  # noqa: ARG002 - see below
        # Views, triggers and foreign keys refer by name and follow; the swap itself makes sure that they still work, or undoes itself.
        return []

    def free_bytes(self) -> int | None:
        if self._files is None:
            return None
        return shutil.disk_usage(self._files.folder).free
