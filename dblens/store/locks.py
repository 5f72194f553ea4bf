"""Locks by name, each with an expiry: one run holds it at a time, and a holder that died holds it up for one lease at most."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.rows import fits


def take(tx: Transaction, name: str, run_id: str, *, until: dt.datetime, now: dt.datetime) -> bool:
    """Take a lock that is free, expired or the run's own, and return whether it was had. Only `runs` may call this: see there."""
    c = t.locks.c
    fits("lock", name, 255)
    free = c.name == name, (c.expires_at <= now) | (c.run_id == run_id)
    if tx.execute(t.locks.update().where(*free).values(run_id=run_id, expires_at=until)).rowcount:
        return True
    try:
        with tx.begin_nested():
            tx.execute(t.locks.insert().values(name=name, run_id=run_id, expires_at=until))
    except sa.exc.IntegrityError:
        return False  # somebody holds it, perhaps since this moment
    return True


def prolong(tx: Transaction, name: str, run_id: str, *, until: dt.datetime) -> bool:
    """Hold a lock for longer, and return whether it is still the run's."""
    where = t.locks.c.name == name, t.locks.c.run_id == run_id
    return bool(tx.execute(t.locks.update().where(*where).values(expires_at=until)).rowcount)


def release(tx: Transaction, name: str, run_id: str) -> None:
    """Give a lock back; nothing happens when it is another run's by now."""
    tx.execute(t.locks.delete().where(t.locks.c.name == name, t.locks.c.run_id == run_id))


def holder(tx: Transaction, name: str, *, now: dt.datetime) -> str | None:
    """Return the id of the run that holds a lock, of whatever organization: not for showing to users."""
    query = sa.select(t.locks.c.run_id).where(t.locks.c.name == name, t.locks.c.expires_at > now)
    return tx.execute(query).scalar_one_or_none()
