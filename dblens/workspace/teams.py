"""The door to teams: members of an organization who are granted connections together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dblens.errors import NotFound
from dblens.store import teams
from dblens.store.organizations import Member
from dblens.store.rows import Page
from dblens.store.teams import Team
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import chosen_organization, find_member
from dblens.workspace.permissions import may_assign

if TYPE_CHECKING:
    from dblens.store.database import Transaction

_ID = re.compile(r"[0-9a-f]{32}")


class Teams(Door):
    """Teams of the organization that the caller acts in. `team` is an id or a name, `user` a member's id, name or e-mail address."""

    @operation("team.list", on="organization", cost="light", shown=("mine", "limit", "after"))
    def list(self, *, mine: bool = False, limit: int = 50, after: str | None = None) -> Page[Team]:
        """Return a page of the teams, or of those that one is in. Raises InvalidInput."""
        context = self.context
        with context.store.read() as tx:
            user_id = context.principal.user_id if mine else None
            return teams.list_teams(tx, chosen_organization(context), user_id=user_id, limit=limit, after=after)

    @operation("team.read", on="organization", permission="team.list", cost="light", target="team")
    def read(self, team: str) -> Team:
        """Return a team. Raises NotFound."""
        with self.context.store.read() as tx:
            return self._found(tx, team)

    @operation("team.create", on="organization", mutates=True, target="name")
    def create(self, name: str) -> Team:
        """Make a team without members. Raises InvalidInput, Conflict for a name that is taken."""
        context = self.context
        with context.store.write() as tx:
            made = teams.create_team(tx, chosen_organization(context), name, now=context.clock())
        tell(id=made.id)
        return made

    @operation("team.update", on="organization", mutates=True, target="team", shown=("name",))
    def update(self, team: str, *, name: str) -> Team:
        """Give a team another name. Raises InvalidInput, NotFound, Conflict."""
        with self.context.store.write() as tx:
            found = self._found(tx, team)
            made = teams.rename_team(tx, found.org_id, found.id, name)
        tell(id=made.id)
        return made

    @operation("team.delete", on="organization", mutates=True, target="team")
    def delete(self, team: str) -> None:
        """Delete a team with what it was granted. Raises NotFound."""
        with self.context.store.write() as tx:
            found = self._found(tx, team)
            teams.delete_team(tx, found.org_id, found.id)
        tell(id=found.id)

    @operation("team.members", on="organization", permission="team.list", target="team", shown=("limit", "after"))
    def members(self, team: str, *, limit: int = 50, after: str | None = None) -> Page[Member]:
        """Return a page of a team's members. Raises InvalidInput, NotFound."""
        with self.context.store.read() as tx:
            found = self._found(tx, team)
            return teams.list_team_members(tx, found.org_id, found.id, limit=limit, after=after)

    @operation("team.add", on="organization", permission="team.update", mutates=True, target="team", shown=("user",))
    def add(self, team: str, user: str) -> None:
        """Put a member of the organization into a team; nothing changes when already there. Raises NotFound, PermissionDenied."""
        with self.context.store.write() as tx:
            found = self._found(tx, team)
            member = find_member(tx, found.org_id, user)
            may_assign(self.context.principal, member.rank, None)
            teams.add_to_team(tx, found.org_id, found.id, member.user_id)
        tell(id=found.id, member=member.user_id)

    @operation("team.remove", on="organization", permission="team.update", mutates=True, target="team", shown=("user",))
    def remove(self, team: str, user: str) -> None:
        """Take a member out of a team. Raises NotFound, PermissionDenied for a member above oneself."""
        with self.context.store.write() as tx:
            found = self._found(tx, team)
            member = find_member(tx, found.org_id, user)
            may_assign(self.context.principal, member.rank, None)
            teams.remove_from_team(tx, found.org_id, found.id, member.user_id)
        tell(id=found.id, member=member.user_id)

    def _found(self, tx: Transaction, team: str) -> Team:
        org_id = chosen_organization(self.context)
        if _ID.fullmatch(team):
            try:
                return teams.get_team(tx, org_id, team)
            except NotFound:
                pass
        return teams.find_team(tx, org_id, team)
