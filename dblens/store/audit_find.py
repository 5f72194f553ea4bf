"""Look into the audit: a filter, pages, statistics, all rows in order for an export."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput
from dblens.store.audit import Phase, Row
from dblens.store.database import Store, Transaction
from dblens.store.rows import Page
from dblens.store.tables import audit

By: TypeAlias = Literal["action", "actor", "outcome", "day"]

LONGEST_PAGE: Final = 1000
_DAY = 86_400_000_000


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows. What is None is not looked at; `since` is inside, `until` outside. `action` may end in `.*`."""

    actor_id: str | None = None
    actor: str | None = None
    connection_id: str | None = None
    action: str | None = None
    outcome: str | None = None
    phase: Phase | None = None
    run_id: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls, and how many of them did not end well. `key` is the action, the actor, the outcome or the day."""

    key: str
    calls: int
    failed: int
    microseconds: int


def find(tx: Transaction, org_id: str | None, which: Filter, *, limit: int = 50, after: str | None = None) -> Page[Row]:
    """Return a page of rows, newest first. `org_id` None: of every organization and of the instance. Raises InvalidInput."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LONGEST_PAGE:
        raise InvalidInput(f"limit is {limit!r}", hint=f"a whole number from 1 to {LONGEST_PAGE}")
    query = _where(sa.select(audit), org_id, which)
    if after is not None:
        query = query.where(audit.c.number < _number(after))
    rows = [_row(row) for row in tx.execute(query.order_by(audit.c.number.desc()).limit(limit + 1))]
    more = len(rows) > limit
    del rows[limit:]
    return Page(items=tuple(rows), after=str(rows[-1].number) if more else None)


def statistics(tx: Transaction, org_id: str | None, which: Filter, *, by: By) -> list[Count]:
    """Count calls by what they did, who, how they ended, or the day (UTC), most first, 1000 at most; days in order.

    A call counts once, when it ended; one that never did (the process died) is not in it.
    """
    keys: dict[str, sa.ColumnElement[Any]] = {
        "action": audit.c.action,
        "actor": audit.c.actor,
        "outcome": sa.func.coalesce(audit.c.outcome, ""),
        "day": sa.type_coerce(audit.c.at, sa.BigInteger) // _DAY,
    }
    if by not in keys:
        raise InvalidInput(f"by is {by!r}", hint=f"one of {', '.join(keys)}")
    key = keys[by]
    calls = sa.func.count()
    failed = sa.func.sum(sa.case((audit.c.outcome == "ok", 0), else_=1))
    took = sa.func.sum(sa.func.coalesce(audit.c.microseconds, 0))
    query = _where(sa.select(key, calls, failed, took), org_id, which).where(
        audit.c.phase.in_(("ended", "denied", "read"))
    )
    order = (key.desc(),) if by == "day" else (calls.desc(), key)
    rows = tx.execute(query.group_by(key).order_by(*order).limit(1000)).all()
    return [
        Count(
            key=_date(row[0]) if by == "day" else str(row[0]),
            calls=row[1],
            failed=int(row[2]),
            microseconds=int(row[3]),
        )
        for row in (reversed(rows) if by == "day" else rows)
    ]


def every(store: Store, org_id: str | None, which: Filter, *, step: int = LONGEST_PAGE) -> Iterator[Row]:
    """Yield the rows that are there now, oldest first, each page in a short transaction of its own."""
    with store.read() as tx:
        last = tx.scalar(sa.select(sa.func.max(audit.c.number))) or 0
    done = 0
    while True:
        with store.read() as tx:
            query = _where(sa.select(audit), org_id, which)
            query = query.where(audit.c.number > done, audit.c.number <= last).order_by(audit.c.number).limit(step)
            rows = [_row(row) for row in tx.execute(query)]
        yield from rows
        if len(rows) < step:
            return
        done = rows[-1].number


def _where(query: sa.Select[Any], org_id: str | None, which: Filter) -> sa.Select[Any]:
    if org_id is not None:
        query = query.where(audit.c.org_id == org_id)
    for name in ("actor_id", "actor", "connection_id", "outcome", "phase", "run_id"):
        value = getattr(which, name)
        if value is not None:
            query = query.where(audit.c[name] == value)
    if which.action is not None:
        noun, dot, verb = which.action.partition(".")
        if dot and verb == "*":
            query = query.where(audit.c.action.startswith(f"{noun}.", autoescape=True))
        else:
            query = query.where(audit.c.action == which.action)
    for name, instant in (("since", which.since), ("until", which.until)):
        if instant is None:
            continue
        if instant.tzinfo is None:
            raise InvalidInput(
                f"{name} has no time zone: {instant.isoformat()}", hint="for instance 2026-11-23T00:00:00Z"
            )
        query = query.where(audit.c.at >= instant if name == "since" else audit.c.at < instant)
    return query


def _row(row: sa.Row[Any]) -> Row:
    return Row(**row._mapping)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"after is {text!r}", hint="what the page before gave as `after`")
    return int(text)


def _date(day: int) -> str:
    return (dt.date(1970, 1, 1) + dt.timedelta(days=int(day))).isoformat()
