"""Settings that administrators change while the service runs, of the instance or of one organization. No secret: see `secrets`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import get_organization
from dblens.store.rows import Page, allowed, columns, fits, one, page, record, unique, values

INSTANCE = "instance"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A value under a key; `scope` is an organization's id or `instance`."""

    scope: str
    key: str
    value: Any
    updated_at: dt.datetime


def put_setting(tx: Transaction, scope: str, key: str, value: object, *, now: dt.datetime) -> Setting:
    """Keep a value in place of the one before. Raises InvalidInput, NotFound for an organization that does not exist."""
    if scope != INSTANCE:
        get_organization(tx, scope)
    row = values(t.settings, scope=scope, key=fits("key", key, 100), value=value, updated_at=now)
    where = t.settings.c.scope == scope, t.settings.c.key == key
    if not tx.execute(t.settings.update().where(*where).values(value=value, updated_at=now)).rowcount:
        with unique(tx, f"another request set {key!r} at the same time", "try again"):
            tx.execute(t.settings.insert().values(**row))
    return Setting(scope=scope, key=key, value=value, updated_at=now)


def get_setting(tx: Transaction, scope: str, key: str) -> Setting:
    """Return a setting. Raises NotFound."""
    query = _settings(scope).where(t.settings.c.key == key)
    return record(Setting, one(tx, query, f"{key!r} is not set"))


def find_settings(tx: Transaction, scope: str, keys: Collection[str]) -> dict[str, Setting]:
    """Return those of the keys that are set."""
    query = _settings(scope).where(t.settings.c.key.in_(keys))
    return {row.key: record(Setting, row) for row in tx.execute(query)}


def list_newest(tx: Transaction, scope: str, prefix: str, *, limit: int = 50) -> tuple[Setting, ...]:
    """Return what lies under keys that begin alike, the last key first: entries of a short log. Raises InvalidInput."""
    query = _settings(scope).where(t.settings.c.key.startswith(prefix, autoescape=True))
    query = query.order_by(t.settings.c.key.desc()).limit(allowed(limit))
    return tuple(record(Setting, row) for row in tx.execute(query))


def keep_newest(tx: Transaction, scope: str, prefix: str, *, keep: int) -> int:
    """Delete all but the last keys of those that begin alike; return how many."""
    key = t.settings.c.key
    where = t.settings.c.scope == scope, key.startswith(prefix, autoescape=True)
    edge = tx.scalar(sa.select(key).where(*where).order_by(key.desc()).offset(keep).limit(1))
    return 0 if edge is None else tx.execute(t.settings.delete().where(*where, key <= edge)).rowcount


def list_settings(tx: Transaction, scope: str, *, limit: int = 200, after: str | None = None) -> Page[Setting]:
    """List what is set in a scope. Raises InvalidInput."""
    return page(
        tx,
        _settings(scope),
        lambda row: record(Setting, row),
        by=t.settings.c.key,
        limit=limit,
        after=after,
        key=lambda setting: setting.key,
    )


def delete_setting(tx: Transaction, scope: str, key: str) -> None:
    """Forget a setting, so that the default holds again. Raises NotFound."""
    where = t.settings.c.scope == scope, t.settings.c.key == key
    if not tx.execute(t.settings.delete().where(*where)).rowcount:
        raise NotFound(f"{key!r} is not set")


def _settings(scope: str) -> sa.Select[Any]:
    return sa.select(*columns(Setting, t.settings)).where(t.settings.c.scope == scope)
