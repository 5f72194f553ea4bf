"""What a user is told, until it was read: one list per user and organization."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import get_member
from dblens.store.records import new_id
from dblens.store.rows import Page, columns, fits, one, page, record, values


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """Something a user should know, often the end of a run."""

    id: str
    org_id: str
    user_id: str
    kind: str
    text: str
    run_id: str | None
    created_at: dt.datetime
    read_at: dt.datetime | None = None


def add_notification(
    tx: Transaction, org_id: str, user_id: str, *, kind: str, text: str, run_id: str | None = None, now: dt.datetime
) -> Notification:
    """Tell a member something. Raises InvalidInput, NotFound."""
    get_member(tx, org_id, user_id)
    made = Notification(
        id=new_id(),
        org_id=org_id,
        user_id=user_id,
        kind=fits("kind", kind, 40),
        text=fits("text", text, 10_000),
        run_id=run_id,
        created_at=now,
    )
    tx.execute(t.notifications.insert().values(**values(t.notifications, **msgspec.structs.asdict(made))))
    return made


def get_notification(tx: Transaction, org_id: str, user_id: str, notification_id: str) -> Notification:
    """Return one of a user's notifications. Raises NotFound."""
    query = sa.select(*columns(Notification, t.notifications)).where(*_of(org_id, user_id))
    query = query.where(t.notifications.c.id == notification_id)
    return record(Notification, one(tx, query, f"no notification {notification_id!r}"))


def list_notifications(
    tx: Transaction,
    org_id: str,
    user_id: str,
    *,
    unread: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Page[Notification]:
    """List a user's notifications, the newest first. Raises InvalidInput."""
    query = sa.select(*columns(Notification, t.notifications)).where(*_of(org_id, user_id))
    if unread:
        query = query.where(t.notifications.c.read_at.is_(None))
    return page(
        tx,
        query,
        lambda row: record(Notification, row),
        by=t.notifications.c.id,
        limit=limit,
        after=after,
        newest_first=True,
    )


def count_unread(tx: Transaction, org_id: str, user_id: str) -> int:
    """Return how many notifications a user has not read."""
    query = sa.select(sa.func.count()).select_from(t.notifications)
    return tx.execute(query.where(*_of(org_id, user_id), t.notifications.c.read_at.is_(None))).scalar_one()


def mark_read(
    tx: Transaction, org_id: str, user_id: str, ids: Collection[str] | None = None, *, now: dt.datetime
) -> int:
    """Mark a user's notifications as read, all of them without `ids`; return how many were not yet."""
    where: list[Any] = [*_of(org_id, user_id), t.notifications.c.read_at.is_(None)]
    if ids is not None:
        where.append(t.notifications.c.id.in_(ids))
    return tx.execute(t.notifications.update().where(*where).values(read_at=now)).rowcount


def prune(tx: Transaction, *, before: dt.datetime) -> int:
    """Delete what was read before a time, in every organization; return how many."""
    return tx.execute(t.notifications.delete().where(t.notifications.c.read_at < before)).rowcount


def prune_own(tx: Transaction, org_id: str, *, before: dt.datetime) -> int:
    """Delete what was read before a time in an organization; return how many."""
    c = t.notifications.c
    return tx.execute(t.notifications.delete().where(c.org_id == org_id, c.read_at < before)).rowcount


def _of(org_id: str, user_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return t.notifications.c.org_id == org_id, t.notifications.c.user_id == user_id
