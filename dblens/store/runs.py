"""Runs: long operations with a lease. A worker claims a run, renews its lease with heartbeats, and finishes it.

    queued ── claim ──> running ── finish ──> succeeded | failed | cancelled
       ├── cancel ──> cancelled   └── lease expired ──> crashed
       └── refuse ──> failed

A queued run may be bound to the worker that has its work in memory: it has that worker's lease from the beginning, nobody else claims
it, and it is crashed when the worker dies.

A worker whose lease was lost is told so (Conflict) at its next word, whatever that is, and must stop: somebody else may hold the
lock by then. `claim`, `sweep` and `prune` serve the workers of the whole instance; all else names the organization.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

from dblens.errors import Conflict, NotFound
from dblens.store import locks
from dblens.store import tables as t
from dblens.store.connections import get_connection
from dblens.store.database import Transaction
from dblens.store.organizations import get_organization
from dblens.store.records import new_id
from dblens.store.rows import (
    Page,
    allowed,
    chosen,
    columns,
    cut,
    fits,
    nullable_json,
    one,
    page,
    record,
    unique,
    values,
)

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "crashed"]
ENDS: tuple[State, ...] = ("succeeded", "failed", "cancelled")
_CRASHED = {
    "code": "run.crashed",
    "message": "the worker stopped without a word",
    "hint": "look at its log, run it again",
}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A long operation. `error` has code, message and hint; `lock` is what only one run at a time may hold."""

    id: str
    org_id: str
    parent_id: str | None
    operation: str
    state: State
    user_id: str | None
    connection_id: str | None
    lock: str | None
    arguments: dict[str, Any]
    progress: dict[str, Any]
    result: Any
    error: dict[str, Any] | None
    worker: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    lease_until: dt.datetime | None
    cancel_at: dt.datetime | None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a run's log; lines are numbered from 1 without gaps."""

    number: int
    at: dt.datetime
    level: str
    text: str


def create_run(
    tx: Transaction,
    org_id: str,
    operation: str,
    *,
    user_id: str | None,
    connection_id: str | None = None,
    parent_id: str | None = None,
    lock: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    worker: str | None = None,
    lease: dt.timedelta | None = None,
    now: dt.datetime,
) -> Run:
    """Queue a run; its parent and connection must be of the same organization. Raises InvalidInput, NotFound.

    `run_id` is the caller's own, when the audit knows the run already. `worker` and its `lease`: only that worker can execute it.
    """
    get_organization(tx, org_id)
    if parent_id is not None:
        get_run(tx, org_id, parent_id)
    if connection_id is not None:
        get_connection(tx, org_id, connection_id)
    run_id = run_id or new_id()
    row = values(
        t.runs,
        id=run_id,
        org_id=org_id,
        parent_id=parent_id,
        operation=fits("operation", operation, 100),
        state="queued",
        user_id=user_id,
        connection_id=connection_id,
        lock=None if lock is None else fits("lock", lock, 255),
        arguments=dict(arguments or {}),
        progress={},
        worker=None if worker is None else fits("worker", worker, 255),
        lease_until=None if lease is None else now + lease,
        created_at=now,
    )
    with unique(tx, f"no user {user_id!r}", "the account was deleted meanwhile"):
        tx.execute(t.runs.insert().values(**row))
    return get_run(tx, org_id, run_id)


def get_run(tx: Transaction, org_id: str, run_id: str) -> Run:
    """Return a run. Raises NotFound."""
    return _run(one(tx, _runs(org_id).where(t.runs.c.id == run_id), f"no run {run_id!r}"))


def list_runs(
    tx: Transaction,
    org_id: str,
    *,
    state: str | None = None,
    operation: str | None = None,
    user_id: str | None = None,
    connection_id: str | None = None,
    parent_id: str | None = None,
    since: dt.datetime | None = None,
    seen_by: tuple[str, Collection[str]] | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Run]:
    """List runs, the newest first; `seen_by`: those of a user, and those on some connections. Raises InvalidInput."""
    c, query = t.runs.c, _runs(org_id)
    if since is not None:
        query = query.where(c.created_at >= since)
    if seen_by is not None:
        query = query.where((c.user_id == seen_by[0]) | c.connection_id.in_(seen_by[1]))
    wanted = (c.state, state), (c.operation, operation), (c.user_id, user_id), (c.connection_id, connection_id)
    for column, value in (*wanted, (c.parent_id, parent_id)):
        if value is not None:
            query = query.where(column == value)
    return page(tx, query, _run, by=c.id, limit=limit, after=after, newest_first=True)


# ---------------------------------------------------------------------------------------------------------------- for its worker


def claim(
    tx: Transaction,
    worker: str,
    *,
    lease: dt.timedelta,
    now: dt.datetime,
    operations: Collection[str] | None = None,
) -> Run | None:
    """Take the oldest queued run whose lock can be had, of any organization, or None. Two workers never get the same."""
    c = t.runs.c
    held = sa.select(t.locks.c.name).where(t.locks.c.name == c.lock, t.locks.c.expires_at > now).exists()
    query = sa.select(*columns(Run, t.runs)).where(c.state == "queued", c.worker.is_(None), ~held)
    if operations is not None:
        query = query.where(c.operation.in_(operations))
    # One that another worker is looking at is passed over; of one whose lock was lost meanwhile the next is tried.
    for row in tx.execute(query.order_by(c.id).limit(20).with_for_update(skip_locked=True, of=t.runs)).all():
        if (got := _start(tx, _run(row), worker, lease, now)) is not None:
            return got
    return None


def claim_one(tx: Transaction, org_id: str, run_id: str, worker: str, *, lease: dt.timedelta, now: dt.datetime) -> Run:
    """Take a queued run to execute it in place. Raises NotFound, Conflict when it is not queued or its lock is held."""
    found = _locked(tx, org_id, run_id)
    if found.state != "queued" or found.worker not in (None, worker):
        raise Conflict(f"run {run_id} is {found.state}", hint="only a queued run can be started")
    got = _start(tx, found, worker, lease, now)
    if got is None:
        raise held(found)
    return got


def held(run: Run) -> Conflict:
    """Return what a run is told whose lock another one holds."""
    return Conflict(
        f"another run is at work on {run.lock!r}", hint="wait until it ends; a dead one frees it when its lease expires"
    )


def _start(tx: Transaction, run: Run, worker: str, lease: dt.timedelta, now: dt.datetime) -> Run | None:
    if run.lock is not None:
        before = sa.select(t.locks.c.run_id).where(t.locks.c.name == run.lock, t.locks.c.run_id != run.id)
        dead = tx.execute(before.with_for_update()).scalar_one_or_none()
        if not locks.take(tx, run.lock, run.id, until=now + lease, now=now):
            return None
        if dead is not None:  # it cannot go on without its lock, so it is told now rather than at the next sweep
            _crash(tx, (t.runs.c.id == dead, t.runs.c.state == "running"), now)
    row = {"state": "running", "worker": fits("worker", worker, 255), "started_at": now, "lease_until": now + lease}
    tx.execute(t.runs.update().where(t.runs.c.id == run.id, t.runs.c.org_id == run.org_id).values(**row))
    return get_run(tx, run.org_id, run.id)


def renew_queued(tx: Transaction, worker: str, *, until: dt.datetime) -> int:
    """Renew the lease of the queued runs that are bound to a worker; return how many."""
    where = t.runs.c.worker == worker, t.runs.c.state == "queued"
    return tx.execute(t.runs.update().where(*where).values(lease_until=until)).rowcount


def refuse(tx: Transaction, org_id: str, run_id: str, error: Mapping[str, Any], *, now: dt.datetime) -> Run:
    """End a queued run as failed: it could not begin. One that ended already stays as it is. Raises NotFound."""
    if _locked(tx, org_id, run_id).state == "queued":
        _set(tx, org_id, run_id, state="failed", ended_at=now, lease_until=None, error=nullable_json(dict(error)))
    return get_run(tx, org_id, run_id)


def heartbeat(tx: Transaction, org_id: str, run_id: str, worker: str, *, lease: dt.timedelta, now: dt.datetime) -> Run:
    """Renew the lease; the answer's `cancel_at` says whether to stop. Raises NotFound, Conflict when the lease was lost."""
    found = _mine(tx, org_id, run_id, worker, now)
    if found.lock is not None and not locks.prolong(tx, found.lock, run_id, until=now + lease):
        raise _lost(run_id)
    _set(tx, org_id, run_id, lease_until=now + lease)
    return get_run(tx, org_id, run_id)


def set_progress(
    tx: Transaction, org_id: str, run_id: str, worker: str, progress: Mapping[str, Any], *, now: dt.datetime
) -> None:
    """Say how far the run is. Raises InvalidInput, NotFound, Conflict when the lease was lost."""
    _mine(tx, org_id, run_id, worker, now)
    _set(tx, org_id, run_id, progress=dict(progress))


def add_log(tx: Transaction, org_id: str, run_id: str, text: str, *, level: str = "info", now: dt.datetime) -> LogLine:
    """Append a line to a run's log; also after its end, because a log tells what happened. Raises InvalidInput, NotFound."""
    _locked(tx, org_id, run_id)  # so that two writers never count the same number
    chosen("level", level, ("debug", "info", "warning", "error"))
    last = tx.execute(sa.select(sa.func.max(t.run_log.c.number)).where(t.run_log.c.run_id == run_id)).scalar()
    line = LogLine(number=(last or 0) + 1, at=now, level=level, text=fits("text", text, 100_000, empty=True))
    tx.execute(t.run_log.insert().values(run_id=run_id, **msgspec.structs.asdict(line)))
    return line


def finish(
    tx: Transaction,
    org_id: str,
    run_id: str,
    worker: str,
    state: State,
    *,
    result: object = None,
    error: Mapping[str, Any] | None = None,
    now: dt.datetime,
) -> Run:
    """End a run as succeeded, failed or cancelled and free its lock. Raises InvalidInput, NotFound, Conflict when the lease was lost."""
    chosen("state", state, ENDS)
    found = _mine(tx, org_id, run_id, worker, now)
    _set(
        tx,
        org_id,
        run_id,
        state=state,
        ended_at=now,
        lease_until=None,
        result=nullable_json(result),
        error=nullable_json(None if error is None else dict(error)),
    )
    if found.lock is not None:
        locks.release(tx, found.lock, run_id)
    return get_run(tx, org_id, run_id)


# ------------------------------------------------------------------------------------------------------------- for its onlookers


def request_cancel(tx: Transaction, org_id: str, run_id: str, *, now: dt.datetime) -> Run:
    """Ask a run to stop: a queued one is cancelled at once, a running one hears it at its next heartbeat. Raises NotFound."""
    found = _locked(tx, org_id, run_id)
    if found.state == "queued":
        _set(tx, org_id, run_id, state="cancelled", ended_at=now, cancel_at=now, lease_until=None)
    elif found.state == "running" and found.cancel_at is None:
        _set(tx, org_id, run_id, cancel_at=now)
    return get_run(tx, org_id, run_id)


def read_log(tx: Transaction, org_id: str, run_id: str, *, limit: int = 200, after: str | None = None) -> Page[LogLine]:
    """Read a run's log from the line after `after`. Raises InvalidInput, NotFound."""
    get_run(tx, org_id, run_id)
    number = int(after) if after is not None and after.isascii() and after.isdigit() and len(after) < 10 else 0
    c = t.run_log.c
    query = sa.select(c.number, c.at, c.level, c.text).where(c.run_id == run_id, c.number > number)
    rows = tx.execute(query.order_by(c.number).limit(allowed(limit) + 1))
    return cut([record(LogLine, row) for row in rows], limit, lambda line: str(line.number))


# ------------------------------------------------------------------------------------------------------------- for the instance


def sweep(tx: Transaction, *, now: dt.datetime) -> tuple[Run, ...]:
    """Mark every run whose worker's lease expired as crashed, free its lock, and return them."""
    return _crash(tx, _dead(now), now)


def any_dead(tx: Transaction, *, now: dt.datetime) -> bool:
    """Return whether a sweep would find something."""
    return tx.execute(sa.select(t.runs.c.id).where(*_dead(now)).limit(1)).first() is not None


def _dead(now: dt.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return t.runs.c.state.in_(("queued", "running")), t.runs.c.lease_until <= now


def prune(tx: Transaction, *, before: dt.datetime) -> int:
    """Delete the runs that ended before a time with their logs; return how many."""
    c = t.runs.c
    return tx.execute(t.runs.delete().where(c.ended_at < before, c.state.not_in(("queued", "running")))).rowcount


def prune_own(tx: Transaction, org_id: str, *, before: dt.datetime) -> int:
    """Delete the runs of an organization that ended before a time with their logs; return how many."""
    c = t.runs.c
    ended = c.org_id == org_id, c.ended_at < before, c.state.not_in(("queued", "running"))
    return tx.execute(t.runs.delete().where(*ended)).rowcount


def _crash(tx: Transaction, where: tuple[sa.ColumnElement[bool], ...], now: dt.datetime) -> tuple[Run, ...]:
    c = t.runs.c
    rows = tx.execute(sa.select(c.id, c.org_id, c.lock).where(*where).order_by(c.id).with_for_update()).all()
    for row in rows:
        _set(tx, row.org_id, row.id, state="crashed", ended_at=now, lease_until=None, error=_CRASHED)
        if row.lock is not None:
            locks.release(tx, row.lock, row.id)
    return tuple(get_run(tx, row.org_id, row.id) for row in rows)


def _mine(tx: Transaction, org_id: str, run_id: str, worker: str, now: dt.datetime) -> Run:
    """Return a run that this worker may still write to; an expired lease is lost even when nobody took it yet."""
    found = _locked(tx, org_id, run_id)
    if found.state != "running" or found.worker != worker or found.lease_until is None or found.lease_until <= now:
        raise _lost(run_id)
    return found


def _lost(run_id: str) -> Conflict:
    return Conflict(f"run {run_id} is not this worker's any more", hint="its lease expired, or it ended: stop the work")


def _locked(tx: Transaction, org_id: str, run_id: str) -> Run:
    return _run(one(tx, _runs(org_id).where(t.runs.c.id == run_id).with_for_update(), f"no run {run_id!r}"))


def _set(tx: Transaction, org_id: str, run_id: str, **row: Any) -> None:
    changed = tx.execute(
        t.runs.update().where(t.runs.c.id == run_id, t.runs.c.org_id == org_id).values(**values(t.runs, **row))
    )
    if not changed.rowcount:
        raise NotFound(f"no run {run_id!r}")


def _runs(org_id: str) -> sa.Select[Any]:
    return sa.select(*columns(Run, t.runs)).where(t.runs.c.org_id == org_id)


def _run(row: sa.Row[Any]) -> Run:
    return record(Run, row)
