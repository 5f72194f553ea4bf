"""Find what holds a text: one query per noun, each of one organization, the best hits first.

What a user may not see is no hit, so each query is told who asks. A name that begins with the text comes first, then one with a word
that does, then one that holds it anywhere; a hit in something else than the name (a host, an e-mail) comes after all of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from dblens.store import tables as t
from dblens.store.connections import granted
from dblens.store.database import Transaction
from dblens.store.organizations import members_of
from dblens.store.rows import fits

LONGEST: Final = 200
_BREAKS: Final = " -_./:@"
_NAME: Final = 100
"""What a hit in the name is worth more than one elsewhere; it is 0 there."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something whose name or detail holds the text. The higher the score, the better."""

    id: str
    name: str
    detail: str
    score: int


def needle(text: str) -> str:
    """Return what is searched for. Raises InvalidInput for nothing, and for more than 200 characters."""
    return fits("text", text.strip() if isinstance(text, str) else text, LONGEST)


def find_connections(
    tx: Transaction, org_id: str, user_id: str, text: str, *, everything: bool, only: Sequence[str] | None, limit: int
) -> list[Found]:
    """Find connections that the user owns or was granted, or all (`everything`), of those in `only`."""
    c = t.connections.c
    fields = [c.fields[name].as_string() for name in ("host", "database", "path")]
    query = sa.select(c.id, c.name, c.engine, c.environment, *(f.label(f"f{n}") for n, f in enumerate(fields)))
    query = query.where(c.org_id == org_id, _seen(org_id, user_id, everything, only))
    return [
        Found(id=row.id, name=row.name, detail=_told(row.engine, row.environment, row.f0, row.f1, row.f2), score=score)
        for row, score in _best(tx, query, text, c.name, fields, limit)
    ]


def find_runs(
    tx: Transaction, org_id: str, user_id: str, text: str, *, everything: bool, only: Sequence[str] | None, limit: int
) -> list[Found]:
    """Find runs of the user, and those on connections that the user sees, or all (`everything`), of those on connections in `only`."""
    r, c = t.runs.c, t.connections.c
    query = sa.select(r.id, r.operation, r.state, c.name.label("connection"))
    query = query.select_from(t.runs.outerjoin(t.connections, (c.id == r.connection_id) & (c.org_id == r.org_id)))
    query = query.where(r.org_id == org_id)
    if not everything:
        query = query.where((r.user_id == user_id) | r.connection_id.in_(_ids(org_id, user_id)))
    if only is not None:
        query = query.where(r.connection_id.in_(only))
    found = _best(tx, query, text, r.operation, [r.id, c.name], limit, newest=r.id)
    return [
        Found(id=row.id, name=row.operation, detail=_told(row.state, row.connection), score=score)
        for row, score in found
    ]


def find_plans(
    tx: Transaction, org_id: str, user_id: str, text: str, *, everything: bool, only: Sequence[str] | None, limit: int
) -> list[Found]:
    """Find plans by the connections they lead from and to; the user must see both of them."""
    p, source, target = t.plans.c, t.connections.alias("source"), t.connections.alias("target")
    query = sa.select(p.id, source.c.name.label("source"), target.c.name.label("target"), p.hash)
    joined = t.plans.join(source, (source.c.id == p.source_id) & (source.c.org_id == p.org_id))
    joined = joined.join(target, (target.c.id == p.target_id) & (target.c.org_id == p.org_id))
    query = query.select_from(joined).where(p.org_id == org_id)
    for side in (source, target):
        if not everything:
            query = query.where(side.c.id.in_(_ids(org_id, user_id)))
        if only is not None:
            query = query.where(side.c.id.in_(only))
    found = _best(tx, query, text, source.c.name, [target.c.name, p.id, p.hash], limit, newest=p.created_at)
    return [
        Found(id=row.id, name=f"{row.source} → {row.target}", detail=row.hash[:12], score=score) for row, score in found
    ]


def find_templates(tx: Transaction, org_id: str, text: str, *, limit: int) -> list[Found]:
    """Find templates."""
    c = t.templates.c
    query = sa.select(c.id, c.name, c.kind).where(c.org_id == org_id)
    return [
        Found(id=row.id, name=row.name, detail=row.kind, score=score)
        for row, score in _best(tx, query, text, c.name, [c.kind], limit)
    ]


def find_teams(tx: Transaction, org_id: str, text: str, *, limit: int) -> list[Found]:
    """Find teams."""
    c = t.teams.c
    query = sa.select(c.id, c.name).where(c.org_id == org_id)
    return [
        Found(id=row.id, name=row.name, detail="", score=score)
        for row, score in _best(tx, query, text, c.name, [], limit)
    ]


def find_members(tx: Transaction, org_id: str, text: str, *, limit: int) -> list[Found]:
    """Find members by name, shown name and e-mail."""
    u = t.users.c
    found = _best(tx, members_of(org_id), text, u.name, [u.display, u.email], limit)
    return [
        Found(id=row.user_id, name=row.name, detail=_told(row.display, row.email, row.role), score=score)
        for row, score in found
    ]


def find_roles(tx: Transaction, org_id: str, text: str, *, limit: int) -> list[Found]:
    """Find the organization's own roles and the system's; the role of an instance's administrator is of no organization."""
    c = t.roles.c
    query = sa.select(c.id, c.name, c.org_id).where((c.org_id == org_id) | (c.org_id.is_(None) & (c.rank < 100)))
    return [
        Found(id=row.id, name=row.name, detail="system role" if row.org_id is None else "", score=score)
        for row, score in _best(tx, query, text, c.name, [], limit)
    ]


def score(text: str, name: str, *others: str) -> int:
    """Return how well a text fits what is no row; 0 when it does not. The same order as the queries give."""
    text = text.casefold()
    for worth, value in ((_NAME, name.casefold()), *((0, other.casefold()) for other in others)):
        if value.startswith(text):
            return worth + 30
        if any(value.startswith(text, at + 1) for at, char in enumerate(value) if char in _BREAKS):
            return worth + 20
        if text in value:
            return worth + 10
    return 0


def _best(
    tx: Transaction,
    query: sa.Select[Any],
    text: str,
    name: sa.ColumnElement[Any],
    others: Sequence[sa.ColumnElement[Any]],
    limit: int,
    *,
    newest: sa.ColumnElement[Any] | None = None,
) -> Iterator[tuple[sa.Row[Any], int]]:
    whens: list[tuple[sa.ColumnElement[bool], int]] = []
    for worth, columns in ((_NAME, [name]), (0, others)):
        for more, patterns in ((30, ["{}%"]), (20, [f"%{_escaped(char)}{{}}%" for char in _BREAKS]), (10, ["%{}%"])):
            likes = [_like(column, pattern, text) for column in columns for pattern in patterns]
            if likes:
                whens.append((sa.or_(*likes), worth + more))
    scored = sa.case(*whens, else_=0).label("score")
    anywhere = sa.or_(*(_like(column, "%{}%", text) for column in (name, *others)))
    query = query.add_columns(scored).where(anywhere).order_by(None)
    query = query.order_by(scored.desc(), *(() if newest is None else (newest.desc(),)), name).limit(limit)
    for row in tx.execute(query):
        yield row, row.score


def _like(column: sa.ColumnElement[Any], pattern: str, text: str) -> sa.ColumnElement[bool]:
    # SQLite folds the case of ASCII only: of anything else the usual spellings are tried.
    spellings = {text} if text.isascii() else {text, text.lower(), text.upper(), text.title(), text.capitalize()}
    each = [column.ilike(pattern.replace("{}", _escaped(one)), escape="\\") for one in sorted(spellings)]
    return sa.or_(*each)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _ids(org_id: str, user_id: str) -> sa.Select[Any]:
    """Return the query for the connections that a user owns or was granted."""
    return sa.select(t.connections.c.id).where(
        t.connections.c.org_id == org_id, _seen(org_id, user_id, everything=False, only=None)
    )


def _seen(org_id: str, user_id: str, everything: bool, only: Sequence[str] | None) -> sa.ColumnElement[bool]:
    c = t.connections.c
    mine = sa.select(t.connection_grants.c.connection_id).where(*granted(org_id, user_id))
    seen = sa.true() if everything else (c.owner_id == user_id) | c.id.in_(mine)
    return seen if only is None else sa.and_(seen, c.id.in_(only))


def _told(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)
