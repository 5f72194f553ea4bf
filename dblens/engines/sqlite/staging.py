"""Building in the run's partial file: opening it, DDL that may be run again, numbering, orphans."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from dblens.engines.base import Place, RunRecord
from dblens.engines.sqlite import sqlparse, swap
from dblens.engines.sqlite.ddl import quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.files import Files, State, boot_id, remove
from dblens.engines.sqlite.load import create_ledger
from dblens.errors import Conflict
from dblens.events import Progress, Report
from dblens.schema.model import ForeignKey, Table

PAGE = 8192
CACHE_KIB = 65536


def open_run(files: Files, record: RunRecord, takeover: bool) -> tuple[State, bool]:
    """Begin a run, or take one over; return its state and whether it goes on in the partial file."""
    there = files.read(record.id)
    if there is None:
        state = State(record=record, before=files.before(), boot=boot_id())
        remove(files.partial(record.id))
        files.write(state)
        return state, True
    if not takeover:
        raise Conflict(f"the run {record.id} is known to {files.target} already", hint="resume it, or roll it back")
    kept = msgspec.structs.replace(
        there.record, epoch=there.record.epoch + 1, holder=record.holder, beat_at=record.beat_at
    )
    state = msgspec.structs.replace(there, record=kept)
    partial = os.path.exists(files.partial(record.id))
    going_on = kept.state not in ("swapping", "swapped", "finalized", "rolling_back", "rolled_back")
    if going_on and (not partial or (state.unsynced and state.boot != boot_id())):
        # The machine went down while writes were not forced to the disk (or somebody deleted the file): nothing in it can be trusted.
        remove(files.partial(record.id))
        partial = True
        state = msgspec.structs.replace(
            state, record=msgspec.structs.replace(kept, state="copying"), boot=boot_id(), unsynced=False
        )
    files.write(state)
    return state, partial and kept.state in ("copying", "copied", "built", "verified", "failed", "swapping")


def open_partial(files: Files, state: State) -> Db:
    """Open the partial file for building."""
    db = Db(files.partial(state.record.id), mode="rwc")
    db.run(f"PRAGMA page_size = {PAGE}")
    # A rollback journal costs next to nothing here: pages that are new to the file are not journaled, and a kill leaves no damage.
    db.one("PRAGMA journal_mode = TRUNCATE")
    db.run(f"PRAGMA cache_size = -{CACHE_KIB}")
    db.run("PRAGMA temp_store = MEMORY")
    db.run("PRAGMA foreign_keys = OFF")
    db.run("PRAGMA legacy_alter_table = ON")
    create_ledger(db)
    return db


def set_durability(db: Db, *, durable: bool) -> None:
    """Force commits to the disk, or leave that to the end."""
    db.run(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")


def build(db: Db, statements: Iterable[str], report: Report) -> None:
    """Run DDL; pass over a statement whose object is there in exactly that shape. Raises Conflict when it is there in another."""
    listed = list(statements)
    for i, statement in enumerate(listed):
        report(Progress("build", i, len(listed), "statements"))
        kind, name = sqlparse.created(statement)
        found = db.rows("SELECT sql FROM main.sqlite_schema WHERE type = ? AND name = ?", (kind, name)) if kind else []
        if not found:
            db.run(statement)
        elif sqlparse.body(str(found[0][0])) != sqlparse.body(statement):
            raise Conflict(
                f"the {kind} {name!r} is staged in another shape than planned", hint="resume --strict, or roll back"
            )


def renumber(db: Db, table: Table, place: Place) -> None:
    """Set the AUTOINCREMENT number to the greatest of what was planned and what is there."""
    column = next((c for c in table.columns if c.identity is not None), None)
    sql = db.one("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?", (place[1],))
    if column is None or column.identity is None or not sqlparse.read_table(str(sql or "")).autoincrement:
        return  # a plain INTEGER PRIMARY KEY takes the greatest rowid + 1 by itself
    greatest = int(db.one(f"SELECT max({quote(column.name)}) FROM {where_is(place)}") or 0)
    planned = column.identity.next - 1 if column.identity.next is not None else 0
    with db.transaction():
        swap.set_sequence(db, place[1], max(greatest, planned, 0))


def orphans(db: Db, place: Place, key: ForeignKey, referred: Place, samples: int) -> tuple[int, list[tuple[str, ...]]]:
    """Count rows that refer to nothing, with samples of what they refer to."""
    columns = [f"c.{quote(name)}" for name in key.columns]
    held = " AND ".join(f"{c} IS NOT NULL" for c in columns)
    parents = key.referred
    if not parents:
        rows = db.rows("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE pk > 0 ORDER BY pk", (referred[1],))
        parents = tuple(str(n) for (n,) in rows)
    source = f"FROM {where_is(place)} c"
    condition = held
    if swap.exists(db, referred[1]):
        # The parent stands on the left: its collation and affinity decide, as in SQLite's own check.
        joined = " AND ".join(f"p.{quote(name)} = {c}" for name, c in zip(parents, columns, strict=True))
        source += f" LEFT JOIN {where_is(referred)} p ON {joined}"
        condition += f" AND p.{quote(parents[0])} IS NULL"
    count = int(db.one(f"SELECT count(*) {source} WHERE {condition}"))
    if not count:
        return 0, []
    shown = ", ".join(f"dblens_as_text({c})" for c in columns)
    found = db.rows(f"SELECT DISTINCT {shown} {source} WHERE {condition} LIMIT {samples}")
    return count, [tuple(map(str, row)) for row in found]


__all__ = ["build", "open_partial", "open_run", "orphans", "renumber", "set_durability"]
