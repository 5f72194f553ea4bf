"""Teams of an organization: members who are granted connections together."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.organizations import Member, get_member, get_organization, members_of
from dblens.store.records import new_id
from dblens.store.rows import Page, columns, fits, one, page, record, unique


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """A team of an organization."""

    id: str
    org_id: str
    name: str
    created_at: dt.datetime


def create_team(tx: Transaction, org_id: str, name: str, *, now: dt.datetime) -> Team:
    """Make a team without members. Raises InvalidInput, NotFound, Conflict for a name that is taken."""
    get_organization(tx, org_id)
    made = Team(id=new_id(), org_id=org_id, name=fits("name", name, 100), created_at=now)
    with unique(tx, f"there is already a team {name!r}"):
        tx.execute(t.teams.insert().values(**msgspec.structs.asdict(made)))
    return made


def get_team(tx: Transaction, org_id: str, team_id: str) -> Team:
    """Return a team. Raises NotFound."""
    return record(Team, one(tx, _teams(org_id).where(t.teams.c.id == team_id), f"no team {team_id!r}"))


def find_team(tx: Transaction, org_id: str, name: str) -> Team:
    """Return a team by its name. Raises NotFound."""
    return record(Team, one(tx, _teams(org_id).where(t.teams.c.name == name), f"no team {name!r}"))


def list_teams(
    tx: Transaction, org_id: str, *, user_id: str | None = None, limit: int = 50, after: str | None = None
) -> Page[Team]:
    """List an organization's teams, or those that a user is in. Raises InvalidInput."""
    query = _teams(org_id)
    if user_id is not None:
        query = query.where(t.teams.c.id.in_(teams_of(org_id, user_id)))
    return page(tx, query, lambda row: record(Team, row), by=t.teams.c.id, limit=limit, after=after)


def rename_team(tx: Transaction, org_id: str, team_id: str, name: str) -> Team:
    """Give a team another name. Raises InvalidInput, NotFound, Conflict."""
    found = get_team(tx, org_id, team_id)
    with unique(tx, f"there is already a team {name!r}"):
        where = t.teams.c.id == team_id, t.teams.c.org_id == org_id
        tx.execute(t.teams.update().where(*where).values(name=fits("name", name, 100)))
    return msgspec.structs.replace(found, name=name)


def delete_team(tx: Transaction, org_id: str, team_id: str) -> None:
    """Delete a team with what it was granted. Raises NotFound."""
    get_team(tx, org_id, team_id)
    grants = t.connection_grants.c
    tx.execute(
        t.connection_grants.delete().where(
            grants.org_id == org_id, grants.grantee_kind == "team", grants.grantee_id == team_id
        )
    )
    tx.execute(t.teams.delete().where(t.teams.c.id == team_id, t.teams.c.org_id == org_id))


def add_to_team(tx: Transaction, org_id: str, team_id: str, user_id: str) -> None:
    """Put a member of the organization into a team; nothing changes when already there. Raises NotFound."""
    get_team(tx, org_id, team_id)
    get_member(tx, org_id, user_id)
    there = teams_of(org_id, user_id).where(t.team_members.c.team_id == team_id)
    if tx.execute(there).first() is None:
        with unique(tx, "another request put the member into the team"):
            tx.execute(t.team_members.insert().values(team_id=team_id, user_id=user_id, org_id=org_id))


def remove_from_team(tx: Transaction, org_id: str, team_id: str, user_id: str) -> None:
    """Take a member out of a team. Raises NotFound."""
    m = t.team_members.c
    where = m.org_id == org_id, m.team_id == team_id, m.user_id == user_id
    if not tx.execute(t.team_members.delete().where(*where)).rowcount:
        raise NotFound(f"no member {user_id!r} of team {team_id!r}")


def list_team_members(
    tx: Transaction, org_id: str, team_id: str, *, limit: int = 50, after: str | None = None
) -> Page[Member]:
    """List the members of a team. Raises InvalidInput, NotFound."""
    get_team(tx, org_id, team_id)
    inside = sa.select(t.team_members.c.user_id)
    inside = inside.where(t.team_members.c.org_id == org_id, t.team_members.c.team_id == team_id)
    return page(
        tx,
        members_of(org_id).where(t.members.c.user_id.in_(inside)),
        lambda row: record(Member, row),
        by=t.members.c.user_id,
        limit=limit,
        after=after,
        key=lambda member: member.user_id,
    )


def teams_of(org_id: str, user_id: str) -> sa.Select[Any]:
    """Return the query for the ids of a user's teams in an organization."""
    m = t.team_members.c
    return sa.select(m.team_id).where(m.org_id == org_id, m.user_id == user_id)


def _teams(org_id: str) -> sa.Select[Any]:
    return sa.select(*columns(Team, t.teams)).where(t.teams.c.org_id == org_id)
