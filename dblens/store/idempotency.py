"""Idempotency keys: a request that a user sends twice is done once, and the second gets the first one's answer.

A key belongs to a user; the request's digest must cover everything that the answer depends on, the organization too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dblens.errors import Conflict
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.rows import fits, unique, values

_HINT = "use a new key for another request"


def begin(
    tx: Transaction,
    user_id: str,
    key: str,
    *,
    operation: str,
    request: bytes,
    now: dt.datetime,
    stale: dt.timedelta = dt.timedelta(minutes=10),
) -> dict[str, Any] | None:
    """Return the answer that was given before, or None: then do it, and call `finish` (or `forget` when it failed).

    Commit this before the work starts, so that a second request sees it. One that never finished is taken over after `stale`.
    Raises InvalidInput, Conflict for another request under the same key, or while the first is at work.
    """
    c = t.idempotency.c
    row = values(t.idempotency, key=fits("key", key, 255), user_id=user_id, operation=operation)
    row |= {"request": request, "created_at": now}
    there = tx.execute(sa.select(t.idempotency).where(*_of(user_id, key)).with_for_update()).one_or_none()
    if there is None:
        with unique(tx, "the same request is at work", "wait for it"):
            tx.execute(t.idempotency.insert().values(**row))
        return None
    if there.operation != operation or bytes(there.request) != request:
        raise Conflict(f"the key {key!r} was used for another request", hint=_HINT)
    if there.response is not None:
        return dict(there.response)
    if there.created_at > now - stale:
        raise Conflict("the same request is at work", hint="wait for it")
    tx.execute(
        t.idempotency.update().where(*_of(user_id, key), c.created_at == there.created_at).values(created_at=now)
    )
    return None


def finish(tx: Transaction, user_id: str, key: str, response: Mapping[str, Any]) -> None:
    """Keep the answer for the next time. Raises InvalidInput."""
    row = values(t.idempotency, response=dict(response))
    tx.execute(t.idempotency.update().where(*_of(user_id, key)).values(**row))


def forget(tx: Transaction, user_id: str, key: str) -> None:
    """Free a key whose request failed, so that it may be tried again; a finished one stays."""
    unfinished = t.idempotency.c.response.is_(sa.null())
    tx.execute(t.idempotency.delete().where(*_of(user_id, key), unfinished))


def prune(tx: Transaction, *, before: dt.datetime) -> int:
    """Delete the keys made before a time; return how many."""
    return tx.execute(t.idempotency.delete().where(t.idempotency.c.created_at < before)).rowcount


def _of(user_id: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return t.idempotency.c.user_id == user_id, t.idempotency.c.key == key
