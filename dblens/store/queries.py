"""Queries: what was asked, by whom and how it ended; and the texts that an organization keeps under names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput, NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import get_organization
from dblens.store.records import new_id
from dblens.store.rows import Page, chosen, columns, contains, fits, one, page, record, unique, values

LANGUAGES: Final = ("sql", "mongodb")
_UNSET: Final = object()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A query that was asked. `outcome` is `ok` or the code of the error; `user` and `connection` are their names of then."""

    id: str
    org_id: str
    user_id: str | None
    user: str
    connection_id: str | None
    connection: str
    operation: str
    kind: str
    text: str
    statements: int
    rows: int | None
    affected: int | None
    microseconds: int
    outcome: str
    error: str | None
    client: str
    notebook: str
    cell: str
    started_at: dt.datetime


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A text under a name. `params` are the defaults of its parameters."""

    id: str
    org_id: str
    name: str
    text: str
    language: str
    connection_id: str | None
    description: str
    params: dict[str, Any]
    created_by: str | None
    created_at: dt.datetime
    updated_at: dt.datetime


class Which(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which queries of the history. What is None is not looked at; `since` is inside, `until` outside; `failed`: how it ended."""

    search: str | None = None
    connection: str | None = None
    user: str | None = None
    outcome: str | None = None
    failed: bool | None = None
    kind: str | None = None
    notebook: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


# -------------------------------------------------------------------------------------------------------------------- history


def add_history(tx: Transaction, org_id: str, entries: Sequence[Asked]) -> int:
    """Keep what was asked in an organization; return how many. What is too long was cut by the caller. Raises NotFound."""
    get_organization(tx, org_id)
    there = set(
        tx.execute(sa.select(t.users.c.id).where(t.users.c.id.in_({each.user_id for each in entries}))).scalars()
    )
    rows = []
    for each in entries:
        row = {**msgspec.structs.asdict(each), "org_id": org_id}
        if each.user_id not in there:  # deleted meanwhile
            row["user_id"] = None
        rows.append(values(t.queries_history, **row))
    if rows:
        tx.execute(t.queries_history.insert(), rows)
    return len(rows)


def list_history(
    tx: Transaction,
    org_id: str,
    which: Which = Which(),
    *,
    user_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Asked]:
    """List what was asked, newest first; with `user_id` only by that user. Raises InvalidInput."""
    query = sa.select(*columns(Asked, t.queries_history)).where(*_which(org_id, which, user_id))
    return page(
        tx,
        query,
        lambda row: record(Asked, row),
        by=t.queries_history.c.id,
        limit=limit,
        after=after,
        newest_first=True,
    )


def get_history(tx: Transaction, org_id: str, asked_id: str, *, user_id: str | None = None) -> Asked:
    """Return one of what was asked. Raises NotFound."""
    query = sa.select(*columns(Asked, t.queries_history)).where(*_which(org_id, Which(), user_id))
    return record(
        Asked, one(tx, query.where(t.queries_history.c.id == asked_id), f"no query {asked_id!r} in the history")
    )


def delete_history(
    tx: Transaction, org_id: str, which: Which = Which(), *, user_id: str | None = None, id: str | None = None
) -> int:
    """Forget what was asked, with `user_id` only by that user; return how much. Raises InvalidInput."""
    where = _which(org_id, which, user_id)
    if id is not None:
        where.append(t.queries_history.c.id == fits("id", id, 32))
    return tx.execute(t.queries_history.delete().where(*where)).rowcount


def prune_own(tx: Transaction, org_id: str, *, before: dt.datetime) -> int:
    """Delete what an organization asked before a time; return how many."""
    c = t.queries_history.c
    return tx.execute(t.queries_history.delete().where(c.org_id == org_id, c.started_at < before)).rowcount


def _which(org_id: str, which: Which, user_id: str | None) -> list[sa.ColumnElement[bool]]:
    c = t.queries_history.c
    where: list[sa.ColumnElement[bool]] = [c.org_id == org_id]
    if user_id is not None:
        where.append(c.user_id == user_id)
    if which.search is not None:
        where.append(contains(c.text, fits("search", which.search, 1000)))
    if which.connection is not None:
        where.append(sa.or_(c.connection_id == which.connection, c.connection == which.connection))
    if which.user is not None:
        where.append(sa.or_(c.user_id == which.user, c.user == which.user))
    for name in ("outcome", "kind", "notebook"):
        value = getattr(which, name)
        if value is not None:
            where.append(c[name] == fits(name, value, 255))
    if which.failed is not None:
        where.append(c.outcome != "ok" if which.failed else c.outcome == "ok")
    for name, instant in (("since", which.since), ("until", which.until)):
        if instant is None:
            continue
        if instant.tzinfo is None:
            raise InvalidInput(
                f"{name} has no time zone: {instant.isoformat()}", hint="for instance 2026-11-23T00:00:00Z"
            )
        where.append(c.started_at >= instant if name == "since" else c.started_at < instant)
    return where


# ---------------------------------------------------------------------------------------------------------------------- saved


def save_query(
    tx: Transaction,
    org_id: str,
    *,
    name: str,
    text: str,
    language: str = "sql",
    connection_id: str | None = None,
    description: str = "",
    params: Mapping[str, Any] | None = None,
    created_by: str | None,
    now: dt.datetime,
) -> Saved:
    """Keep a text under a name. Raises InvalidInput, NotFound, Conflict for a name that is taken."""
    get_organization(tx, org_id)
    made = Saved(
        id=new_id(),
        org_id=org_id,
        name=fits("name", name, 100),
        text=fits("text", text, 1_000_000),
        language=chosen("language", language, LANGUAGES),
        connection_id=connection_id,
        description=fits("description", description, 10_000, empty=True),
        params=dict(params or {}),
        created_by=created_by,
        created_at=now,
        updated_at=now,
    )
    with unique(tx, f"there is already a saved query {name!r}", "give another name, or replace it"):
        tx.execute(t.queries_saved.insert().values(**values(t.queries_saved, **msgspec.structs.asdict(made))))
    return made


def get_saved(tx: Transaction, org_id: str, saved_id: str) -> Saved:
    """Return a saved query by its id. Raises NotFound."""
    query = _saved(org_id).where(t.queries_saved.c.id == saved_id)
    return record(Saved, one(tx, query, f"no saved query {saved_id!r}"))


def find_saved(tx: Transaction, org_id: str, name: str) -> Saved:
    """Return a saved query by its name. Raises NotFound."""
    query = _saved(org_id).where(t.queries_saved.c.name == name)
    return record(Saved, one(tx, query, f"no saved query {name!r}"))


def list_saved(
    tx: Transaction,
    org_id: str,
    *,
    search: str | None = None,
    connection_id: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Saved]:
    """List saved queries by name; `search` looks at names, descriptions and texts. Raises InvalidInput."""
    c = t.queries_saved.c
    query = _saved(org_id)
    if search is not None:
        text = fits("search", search, 1000)
        query = query.where(sa.or_(contains(c.name, text), contains(c.description, text), contains(c.text, text)))
    if connection_id is not None:
        query = query.where(c.connection_id == connection_id)
    return page(
        tx, query, lambda row: record(Saved, row), by=c.name, limit=limit, after=after, key=lambda item: item.name
    )


def update_saved(
    tx: Transaction,
    org_id: str,
    saved_id: str,
    *,
    name: str | None = None,
    text: str | None = None,
    language: str | None = None,
    connection_id: Any = _UNSET,
    description: str | None = None,
    params: Mapping[str, Any] | None = None,
    now: dt.datetime,
) -> Saved:
    """Change a saved query; `connection_id=None` takes its connection away. Raises InvalidInput, NotFound, Conflict."""
    get_saved(tx, org_id, saved_id)
    row: dict[str, Any] = {"updated_at": now}
    if name is not None:
        row["name"] = fits("name", name, 100)
    if text is not None:
        row["text"] = fits("text", text, 1_000_000)
    if language is not None:
        row["language"] = chosen("language", language, LANGUAGES)
    if connection_id is not _UNSET:
        row["connection_id"] = connection_id
    if description is not None:
        row["description"] = fits("description", description, 10_000, empty=True)
    if params is not None:
        row["params"] = dict(params)
    with unique(tx, f"there is already a saved query {name!r}", "give another name"):
        where = t.queries_saved.c.org_id == org_id, t.queries_saved.c.id == saved_id
        tx.execute(t.queries_saved.update().where(*where).values(**values(t.queries_saved, **row)))
    return get_saved(tx, org_id, saved_id)


def delete_saved(tx: Transaction, org_id: str, saved_id: str) -> None:
    """Delete a saved query. Raises NotFound."""
    where = t.queries_saved.c.org_id == org_id, t.queries_saved.c.id == saved_id
    if not tx.execute(t.queries_saved.delete().where(*where)).rowcount:
        raise NotFound(f"no saved query {saved_id!r}")


def _saved(org_id: str) -> sa.Select[Any]:
    return sa.select(*columns(Saved, t.queries_saved)).where(t.queries_saved.c.org_id == org_id)
