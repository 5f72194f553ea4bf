"""What a target remembers of migrations: run records, the chunk ledger, finished DDL statements, and who works on it.

All of it lies in the schema `_dblens`, which is made by the first run and dropped with the last.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Sequence

import msgspec

from dblens.engines.base import Chunk, KeyRange, Place, RunRecord
from dblens.engines.postgres.ddl import CONTROL, at, quote
from dblens.engines.postgres.link import Link
from dblens.errors import Conflict, DBLensError, NotFound
from dblens.events import Progress, Report

_Q = quote(CONTROL)
LOCK = 0x64626C656E73
"""Key of the advisory lock (the letters dblens); PostgreSQL keeps advisory locks per database."""
LOCK_ATTEMPTS = 5
"""Tries a fifth of a second apart: the server needs a moment to notice that a holder was killed."""
BATCH = 200
"""DDL statements a transaction: many enough to be quick, few enough for the server's lock table."""

_CONTROL = (
    f"CREATE SCHEMA IF NOT EXISTS {_Q}",
    f"COMMENT ON SCHEMA {_Q} IS 'dblens: records of migrations into this database'",
    (
        f"CREATE TABLE IF NOT EXISTS {_Q}.run (id text PRIMARY KEY, plan_hash text NOT NULL, state text NOT NULL, "
        "epoch integer NOT NULL, holder text NOT NULL, beat_at text NOT NULL, document text NOT NULL, "
        "made text[] NOT NULL DEFAULT '{}')"
    ),
    (
        f"CREATE TABLE IF NOT EXISTS {_Q}.chunk (run text NOT NULL, namespace text NOT NULL, name text NOT NULL, "
        "number integer NOT NULL, keys text NOT NULL, rows bigint, epoch integer NOT NULL, "
        "PRIMARY KEY (run, namespace, name, number))"
    ),
    f"CREATE TABLE IF NOT EXISTS {_Q}.step (hash text PRIMARY KEY, run text NOT NULL)",
)
_COLUMNS = "id, plan_hash, state, epoch, holder, beat_at, document"


def exists(link: Link) -> bool:
    """Tell whether the control area is there."""
    return bool(link.one("SELECT to_regclass($1) IS NOT NULL", [f"{_Q}.run"])[0])


def lock(link: Link) -> None:
    """Take the one-migration-per-target lock. Raises Conflict with the holder's name."""
    for attempt in range(LOCK_ATTEMPTS):
        if link.one("SELECT pg_try_advisory_lock($1)", [LOCK], what="the migration lock")[0]:
            return
        if attempt < LOCK_ATTEMPTS - 1:
            time.sleep(0.2)
    holders = link.rows(
        "SELECT a.pid, a.application_name, a.client_addr::text, a.backend_start::text FROM pg_locks l "
        "JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND (l.classid::bigint << 32) + l.objid::bigint = $1",
        [LOCK],
    )
    named = ""
    if exists(link):
        # Of several unfinished runs the one that was touched last is at work.
        row = link.one(f"SELECT id, holder, beat_at FROM {_Q}.run ORDER BY beat_at DESC LIMIT 1")
        named = f": run {row[0]} of {row[1]}, last seen {row[2]}" if row else ""
    session = f" (server process {holders[0][0]} from {holders[0][2] or 'a local socket'})" if holders else ""
    raise Conflict(
        f"another migration works on {link.database!r}{named}{session}",
        hint="wait for its end, or end that process; one migration at a time writes to a target",
    )


def release(link: Link) -> None:
    """Give the lock back; a broken connection has lost it already."""
    with contextlib.suppress(DBLensError):
        link.one("SELECT pg_advisory_unlock($1)", [LOCK], what="the migration lock")


def open_run(link: Link, record: RunRecord, *, takeover: bool) -> RunRecord:
    """Create the control area and the record, or take a record over with the next epoch."""
    with link.transaction("opening the run"):
        if not exists(link):
            for statement in _CONTROL:
                link.run(statement, what="creating the control area")
        known = read(link, record.id, lock=True)
        if takeover:
            if known is None:
                raise NotFound(f"the target does not know the run {record.id}")
            taken = msgspec.structs.replace(known, epoch=known.epoch + 1, holder=record.holder, beat_at=record.beat_at)
            _update(link, taken, known.epoch)
            return taken
        if known is not None:
            raise Conflict(
                f"the run {record.id} exists already ({known.state}, held by {known.holder})", hint="resume it"
            )
        link.run(
            f"INSERT INTO {_Q}.run ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [record.id, record.plan_hash, record.state, record.epoch, record.holder, record.beat_at, record.document],
            what="writing the run's record",
        )
    return record


def read(link: Link, run: str, *, lock: bool = False) -> RunRecord | None:
    """Return a run's record."""
    if not exists(link):
        return None
    tail = " FOR UPDATE" if lock else ""
    row = link.one(f"SELECT {_COLUMNS} FROM {_Q}.run WHERE id = $1{tail}", [run], what="reading the run's record")
    return _record(row) if row else None


def _record(row: Sequence[object]) -> RunRecord:
    return msgspec.convert(dict(zip(_COLUMNS.split(", "), row, strict=True)), RunRecord)


def read_all(link: Link) -> list[RunRecord]:
    """Return all runs' records, newest first."""
    if not exists(link):
        return []
    return [_record(row) for row in link.rows(f"SELECT {_COLUMNS} FROM {_Q}.run ORDER BY beat_at DESC, id")]


def write(link: Link, record: RunRecord) -> None:
    """Replace a run's record. Raises Conflict when its epoch is another one."""
    _update(link, record, record.epoch)


def _update(link: Link, record: RunRecord, epoch: int) -> None:
    touched = link.run(
        f"UPDATE {_Q}.run SET plan_hash = $2, state = $3, epoch = $4, holder = $5, beat_at = $6, document = $7 "
        "WHERE id = $1 AND epoch = $8",
        [
            record.id,
            record.plan_hash,
            record.state,
            record.epoch,
            record.holder,
            record.beat_at,
            record.document,
            epoch,
        ],
        what="writing the run's record",
    )
    if touched:
        return
    found = link.one(f"SELECT epoch, holder FROM {_Q}.run WHERE id = $1", [record.id])
    if not found:
        raise NotFound(f"the target does not know the run {record.id}")
    raise Conflict(
        f"the run {record.id} was taken over by {found[1]} (epoch {found[0]}, ours {epoch})",
        hint="let that worker go on; nothing was written",
    )


def ledger(link: Link, run: str) -> list[Chunk]:
    """Return the chunks that were committed."""
    if not exists(link):
        return []
    return [
        Chunk(
            run=run,
            table=(ns, name),
            number=number,
            keys=msgspec.json.decode(keys, type=KeyRange),
            rows=rows,
            epoch=epoch,
        )
        for ns, name, number, keys, rows, epoch in link.rows(
            f"SELECT namespace, name, number, keys, rows, epoch FROM {_Q}.chunk WHERE run = $1 AND number >= 0 "
            "ORDER BY namespace, name, number",
            [run],
            what="the ledger",
        )
    ]


def forget_chunks(link: Link, run: str, table: Place | None) -> None:
    """Delete ledger lines of one table, or of all."""
    if not exists(link):
        return
    sql = f"DELETE FROM {_Q}.chunk WHERE run = $1 AND number >= 0"
    if table is None:
        link.run(sql, [run], what="the ledger")
    else:
        link.run(f"{sql} AND namespace = $2 AND name = $3", [run, *table], what="the ledger")


def build(link: Link, statements: Iterable[str], run: str, report: Report) -> None:
    """Run DDL, each batch in one transaction with a note of what was done, so that a second call passes over it."""
    listed = list(statements)
    noted = exists(link)
    done = {h for (h,) in link.rows(f"SELECT hash FROM {_Q}.step")} if noted else set()
    waiting = [
        (s, h) for s in listed if (h := hashlib.sha256(s.encode("utf-8", "surrogatepass")).hexdigest()) not in done
    ]
    count = len(listed) - len(waiting)
    for start in range(0, len(waiting), BATCH):
        batch = waiting[start : start + BATCH]
        with link.transaction("building tables"):
            for statement, digest in batch:
                what = f"running {' '.join(statement.split())[:120]!r}"
                try:
                    link.run(statement, what=what)
                except DBLensError as error:
                    error.hint = error.hint or "the statement stands in the plan; mend the cause and resume"
                    raise
                if noted:
                    link.run(
                        f"INSERT INTO {_Q}.step (hash, run) VALUES ($1, $2)", [digest, run], what="the ledger of DDL"
                    )
        count += len(batch)
        report(Progress(task="build", done=count, total=len(listed), unit="statements"))


def staging_schemas(link: Link, run: str) -> list[str]:
    """Return the schemas that belong to a run."""
    stem = f"{CONTROL}_{run}"
    return [
        n
        for (n,) in link.rows(
            "SELECT nspname::text FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname::text, $2) ORDER BY 1",
            [stem, f"{stem}_"],
        )
    ]


def drop_schemas(link: Link, schemas: Sequence[str]) -> None:
    """Drop schemas of ours with what is in them. Raises Conflict, dropping nothing, when something of others depends on it."""
    if not schemas:
        return
    tables = link.rows(
        "SELECT n.nspname::text, c.relname::text, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition",
        [list(schemas)],
    )
    kinds = {b"v": "VIEW", b"m": "MATERIALIZED VIEW", b"f": "FOREIGN TABLE"}
    plain = [at((n, t)) for n, t, k in tables if _char(k) not in kinds]
    for namespace, name, kind in tables:
        if _char(kind) in kinds:
            link.run(f"DROP {kinds[_char(kind)]} {at((namespace, name))}", what="dropping what the run made")
    # One statement for all, so that references among them do not matter and those of others do.
    for start in range(0, len(plain), 2_000):
        link.run(f"DROP TABLE {', '.join(plain[start : start + 2_000])}", what="dropping what the run made")
    types = link.rows(
        "SELECT n.nspname::text, t.typname::text, t.typtype = 'd' FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
        "WHERE n.nspname = ANY($1) AND t.typtype IN ('e', 'd', 'r', 'c') AND (t.typrelid = 0 OR EXISTS "
        "(SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')) ORDER BY t.oid DESC",
        [list(schemas)],
    )
    for namespace, name, domain in types:
        link.run(f"DROP {'DOMAIN' if domain else 'TYPE'} {at((namespace, name))}", what="dropping what the run made")
    for sequence in link.rows(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = ANY($1) AND c.relkind = 'S'",
        [list(schemas)],
    ):
        link.run(f"DROP SEQUENCE {at(sequence)}", what="dropping what the run made")
    for schema in schemas:
        link.run(f"DROP SCHEMA {quote(schema)}", what=f"dropping the schema {schema}")


def _char(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def close_run(link: Link, record: RunRecord) -> None:
    """Drop everything of a run in one transaction; the control area too when this was the last run."""
    with link.transaction(f"closing the run {record.id}"):
        known = read(link, record.id, lock=True)
        if known is not None and known.epoch > record.epoch:
            raise Conflict(
                f"the run {record.id} was taken over by {known.holder} (epoch {known.epoch}, ours {record.epoch})"
            )
        drop_schemas(link, staging_schemas(link, record.id))
        if not exists(link):
            return
        for table, column in (("chunk", "run"), ("step", "run"), ("run", "id")):
            link.run(f"DELETE FROM {_Q}.{table} WHERE {column} = $1", [record.id], what="closing the run")
        if not link.one(f"SELECT count(*) FROM {_Q}.run")[0]:
            drop_schemas(link, [CONTROL])
