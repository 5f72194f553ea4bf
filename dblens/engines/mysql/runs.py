"""A run in its target: the staging database with its record and ledger, and the lock that makes it the only one.

Layout of run R: database `_dblens_R` holds the staged tables under their own names beside the control tables (`~dblens~run`,
`~dblens~chunk`, `~dblens~merge`), database `_dblens_R~prev` what a swap replaced.
"""

from __future__ import annotations

import hashlib
from typing import cast

import msgspec

from dblens.engines.base import Chunk, KeyRange, Place, RunRecord, RunState
from dblens.engines.mysql import ddl
from dblens.engines.mysql.driver import Link
from dblens.engines.mysql.sql import literal, quote, where_is
from dblens.errors import Conflict, NotFound, PermissionDenied

_FIELDS = "id, plan_hash, state, epoch, holder, beat_at, document"
LOCK_SECONDS = 3
_BIN = "character set utf8mb4 collate utf8mb4_bin"


def lock_name(database: str) -> str:
    """Return the name of the lock of one target database (at most 64 characters)."""
    return "dblens:" + hashlib.sha256(database.encode()).hexdigest()[:40]


def take_lock(link: Link, database: str) -> None:
    """Take the one-migration-per-target lock on this connection. Raises Conflict naming the holder."""
    # A process that was killed a moment ago still holds it until the server has noticed.
    (got,) = link.one("select get_lock(%s, %s)", (lock_name(database), LOCK_SECONDS))
    if got == 1:
        return
    (by,) = link.one("select is_used_lock(%s)", (lock_name(database),))
    newest = max(list_runs(link, database), key=lambda r: r.beat_at, default=None)
    who = (
        f"{newest.holder} (run {newest.id}, {newest.state}, last seen {newest.beat_at})"
        if newest
        else f"connection {by}"
    )
    raise Conflict(
        f"another migration into {database!r} is running: {who}",
        hint="wait until it ends, or end that process; only one migration writes to a target at a time",
    )


def unlock(link: Link, database: str) -> None:
    """Give the lock back."""
    link.one("select release_lock(%s)", (lock_name(database),))


def open_run(link: Link, database: str, record: RunRecord, takeover: bool) -> RunRecord:
    """Create the staging database, the control tables and the record, or take the record over with a new epoch."""
    area = ddl.control(record.id, "run")[0]
    try:
        link.run(f"create database if not exists {quote(area)} {_BIN}")
    except PermissionDenied as error:
        raise PermissionDenied(
            f"no right to create the staging database {area!r}: {error.message}",
            hint=f"an administrator runs: {grant_text(link)}",
        ) from error
    link.run(
        f"create table if not exists {where_is(ddl.control(record.id, 'run'))} (id varchar(191) {_BIN} primary key, "
        f"target varchar(64) {_BIN} not null, plan_hash varchar(191) {_BIN} not null, state varchar(32) {_BIN} not null, "
        f"epoch bigint not null, holder text {_BIN} not null, beat_at varchar(64) {_BIN} not null, document longtext {_BIN} not null) "
        "engine=InnoDB"
    )
    link.run(
        f"create table if not exists {where_is(ddl.control(record.id, 'chunk'))} (run varchar(64) {_BIN} not null, "
        f"namespace varchar(64) {_BIN} not null, name varchar(64) {_BIN} not null, number bigint not null, "
        f"key_range longtext {_BIN} not null, row_count bigint, epoch bigint not null, primary key (run, namespace, name, number)) "
        "engine=InnoDB"
    )
    table = where_is(ddl.control(record.id, "run"))
    link.run("start transaction")
    try:
        rows = link.rows(f"select {_FIELDS} from {table} where id = %s for update", (record.id,))
        if not rows:
            link.run(
                f"insert into {table} (target, {_FIELDS}) values (%s, %s, %s, %s, %s, %s, %s, %s)",
                (database, *_values(record)),
            )
            kept = record
        elif takeover:
            kept = msgspec.structs.replace(
                _record(rows[0]), epoch=int(rows[0][3]) + 1, holder=record.holder, beat_at=record.beat_at
            )
            link.run(
                f"update {table} set epoch = %s, holder = %s, beat_at = %s where id = %s",
                (kept.epoch, kept.holder, kept.beat_at, kept.id),
            )
        else:
            raise Conflict(f"the run {record.id} is known to {database!r} already", hint="resume it, or roll it back")
        link.run("commit")
    except BaseException:
        link.run("rollback")
        raise
    return kept


def grant_text(link: Link) -> str:
    """Return the GRANT that lets this login make staging databases."""
    (user,) = link.one("select current_user()")
    name, _, host = str(user).rpartition("@")
    return f"GRANT ALL PRIVILEGES ON `\\_dblens\\_%`.* TO {literal(name)}@{literal(host)}"


def _values(record: RunRecord) -> tuple[object, ...]:
    return (record.id, record.plan_hash, record.state, record.epoch, record.holder, record.beat_at, record.document)


def _record(row: tuple[object, ...]) -> RunRecord:
    texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in row]
    return RunRecord(
        id=texts[0], plan_hash=texts[1], state=cast(RunState, texts[2]), epoch=int(texts[3]), holder=texts[4], beat_at=texts[5],
        document=texts[6],
    )  # fmt: skip


def read_run(link: Link, database: str, run: str) -> RunRecord | None:
    """Return the run's record, None when the target database does not know it."""
    try:
        rows = link.rows(
            f"select {_FIELDS} from {where_is(ddl.control(run, 'run'))} where id = %s and target = %s", (run, database)
        )
    except (NotFound, PermissionDenied):
        return None
    return _record(rows[0]) if rows else None


def list_runs(link: Link, database: str) -> list[RunRecord]:
    """Return the records of all runs into a database."""
    areas = link.rows(
        "select table_schema from information_schema.tables where table_schema like '\\_dblens\\_%%' and table_name = %s order by 1",
        (ddl.CONTROL + "run",),
    )
    found = []
    for (area,) in areas:
        name = area.decode() if isinstance(area, bytes) else str(area)
        rows = link.rows(
            f"select {_FIELDS} from {where_is((name, ddl.CONTROL + 'run'))} where target = %s", (database,)
        )
        found += [_record(row) for row in rows]
    return found


def write_run(link: Link, record: RunRecord) -> None:
    """Replace the record of a run. Raises Conflict when another process took it over."""
    table = where_is(ddl.control(record.id, "run"))
    link.run("start transaction")
    try:
        rows = link.rows(f"select epoch, holder from {table} where id = %s for update", (record.id,))
        if not rows or int(rows[0][0]) != record.epoch:
            by = f"{rows[0][1]} (epoch {rows[0][0]}, ours is {record.epoch})" if rows else "nobody: its record is gone"
            raise Conflict(f"the run {record.id} belongs to {by}", hint="this process must stop writing")
        link.run(
            f"update {table} set plan_hash = %s, state = %s, holder = %s, beat_at = %s, document = %s where id = %s",
            (record.plan_hash, record.state, record.holder, record.beat_at, record.document, record.id),
        )
        link.run("commit")
    except BaseException:
        link.run("rollback")
        raise


def ledger(link: Link, run: str) -> list[Chunk]:
    """Return the committed chunks of a run."""
    rows = link.rows(
        f"select namespace, name, number, key_range, row_count, epoch from {where_is(ddl.control(run, 'chunk'))} where run = %s "
        "order by namespace, name, number",
        (run,),
    )
    return [
        Chunk(
            run=run, table=(str(space), str(name)), number=int(number), keys=msgspec.json.decode(keys, type=KeyRange),
            rows=None if count is None else int(count), epoch=int(epoch),
        )
        for space, name, number, keys, count, epoch in rows
    ]  # fmt: skip


def forget_chunks(link: Link, run: str, table: Place | None) -> None:
    """Delete the ledger lines of a table, or of all."""
    text = f"delete from {where_is(ddl.control(run, 'chunk'))} where run = %s"
    if table is None:
        link.run(text, (run,))
    else:
        link.run(text + " and namespace = %s and name = %s", (run, *table))


def close_run(link: Link, record: RunRecord) -> None:
    """Drop both databases of a run; the one with the record last, so that a crash between leaves something to find."""
    run = ddl.control(record.id, "run")
    if exists(link, run):
        rows = link.rows(f"select epoch, holder from {where_is(run)} where id = %s", (record.id,))
        if rows and int(rows[0][0]) != record.epoch:
            raise Conflict(f"the run {record.id} was taken over by {rows[0][1]}", hint="this process must stop writing")
    for area in (ddl.previous(("", ""), record.id)[0], run[0]):
        # Foreign keys inside the area (and from it to live tables) must not stop the drop.
        link.run("set session foreign_key_checks = 0")
        try:
            link.run(f"drop database if exists {quote(area)}")
        finally:
            link.run("set session foreign_key_checks = 1")


def exists(link: Link, place: Place) -> bool:
    """Return whether a table is there."""
    return bool(link.rows("select 1 from information_schema.tables where table_schema = %s and table_name = %s", place))
