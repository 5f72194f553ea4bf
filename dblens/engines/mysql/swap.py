"""Swap and its undo: ONE atomic RENAME TABLE, settled after a crash by looking where the tables are."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from dblens.engines.base import Move, Place, RunRecord
from dblens.engines.mysql import runs
from dblens.engines.mysql.driver import Link
from dblens.engines.mysql.sql import literal, quote, where_is
from dblens.errors import Conflict, Irreversible, TimedOut
from dblens.events import Report, StepDone, StepStarted, Warned

LOCK_WAIT = 3
ATTEMPTS = 10


def swap(link: Link, record: RunRecord, moves: Sequence[Move], report: Report) -> RunRecord:
    """Move live tables out and staged tables in, then write the record's state."""
    record = msgspec.structs.replace(record, state="swapping")
    runs.write_run(link, record)
    blocking = dependents(link, [m.live for m in moves if m.previous is not None])
    if blocking:
        raise Conflict(
            "tables that would be replaced are in use by others:\n  " + "\n  ".join(blocking),
            hint="drop these (and create them again afterwards), or choose other tables",
        )
    report(StepStarted("swap"))
    start = time.monotonic()
    for area in {m.previous[0] for m in moves if m.previous is not None}:
        link.run(f"create database if not exists {quote(area)}")
    # Names of foreign keys are unique in a database: all old tables leave before the first new one enters.
    outs: list[tuple[Place, Place]] = []
    ins: list[tuple[Place, Place]] = []
    for move in moves:
        if runs.exists(link, move.staged):
            if runs.exists(link, move.live):
                if move.previous is None:
                    raise Conflict(
                        f"{'.'.join(move.live)} came into being since the plan", hint="rename or drop it, then resume"
                    )
                outs.append((move.live, move.previous))
            ins.append((move.staged, move.live))
        elif not runs.exists(link, move.live):
            raise Conflict(
                f"neither {'.'.join(move.staged)} nor {'.'.join(move.live)} is there",
                hint="someone dropped it; start again",
            )
    _rename(link, [*outs, *ins], report)
    record = msgspec.structs.replace(record, state="swapped")
    runs.write_run(link, record)
    report(StepDone("swap", time.monotonic() - start))
    return record


def unswap(link: Link, record: RunRecord, moves: Sequence[Move], report: Report) -> RunRecord:
    """Move the new tables back to staging and the previous ones live, from wherever a swap or its undo stopped."""
    record = msgspec.structs.replace(record, state="rolling_back")
    runs.write_run(link, record)
    outs: list[tuple[Place, Place]] = []
    ins: list[tuple[Place, Place]] = []
    for move in moves:
        staged_there = runs.exists(link, move.staged)
        previous_there = move.previous is not None and runs.exists(link, move.previous)
        live_there = runs.exists(link, move.live)
        if not staged_there and live_there and (previous_there or move.previous is None):
            outs.append((move.live, move.staged))
            live_there = False
        if previous_there and move.previous is not None:
            if live_there:
                raise Irreversible(
                    f"{'.'.join(move.live)} and its previous copy are both there beside the staged one",
                    hint="rename one of them by hand, then roll back again",
                )
            ins.append((move.previous, move.live))
    blocking = dependents(link, [old for old, _ in outs])
    if blocking:
        raise Conflict(
            "tables to be put back are in use by others:\n  " + "\n  ".join(blocking),
            hint="drop these, then roll back again",
        )
    _rename(link, [*outs, *ins], report)
    record = msgspec.structs.replace(record, state="rolled_back")
    runs.write_run(link, record)
    return record


def _rename(link: Link, renames: Sequence[tuple[Place, Place]], report: Report) -> None:
    if not renames:
        return
    statement = "rename table " + ", ".join(f"{where_is(old)} to {where_is(new)}" for old, new in renames)
    (kept,) = link.one("select @@session.lock_wait_timeout")
    link.run(f"set session lock_wait_timeout = {LOCK_WAIT}")
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                link.run(statement)
                return
            except TimedOut:
                if attempt == ATTEMPTS:
                    raise
                report(Warned(f"swap waits for a lock on the tables (attempt {attempt} of {ATTEMPTS})"))
                time.sleep(min(0.2 * 2**attempt, 5.0))
    finally:
        link.run(f"set session lock_wait_timeout = {int(kept)}")


def dependents(link: Link, places: Sequence[Place]) -> list[str]:
    """Return what stops a swap of live tables: triggers on them, and foreign keys from outside. Views follow by name."""
    if not places:
        return []
    pairs = "(" + ", ".join(f"({literal(a)}, {literal(b)})" for a, b in places) + ")"
    found = [
        f"trigger {_s(name)} on {_s(space)}.{_s(table)}"
        for name, space, table in link.rows(
            "select trigger_name, event_object_schema, event_object_table from information_schema.triggers "
            f"where (event_object_schema, event_object_table) in {pairs} order by 1"
        )
    ]
    for name, space, table, other, referred in link.rows(
        "select distinct constraint_name, table_schema, table_name, referenced_table_schema, referenced_table_name "
        f"from information_schema.key_column_usage where (referenced_table_schema, referenced_table_name) in {pairs} order by 1"
    ):
        if (_s(space), _s(table)) not in places and not _s(space).startswith("_dblens_"):
            found.append(f"foreign key {_s(name)} of {_s(space)}.{_s(table)} to {_s(other)}.{_s(referred)}")
    return found


def _s(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
