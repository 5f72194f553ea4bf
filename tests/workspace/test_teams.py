"""Teams: who is in them, and that a change counts at once for what they were granted."""

from __future__ import annotations

import msgspec
import pytest

from dblens.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from dblens.store import connections
from tests.workspace.people import NOW, World


def test_a_team_from_the_first_day_to_the_last(either: World) -> None:
    door = either.as_("ada").teams
    made = door.create("data")
    assert door.read("data") == door.read(made.id) == made
    with pytest.raises(Conflict, match="already a team"):
        door.create("data")
    for name in ("", " ", "x" * 101, "a\0b"):
        with pytest.raises(InvalidInput, match="name"):
            door.create(name)
    assert door.update("data", name="insights").name == "insights"
    door.add("insights", "viewer")
    door.add("insights", "viewer@example.org")  # there already
    assert [member.name for member in door.members("insights").items] == ["viewer"]
    assert {team.name for team in either.as_("viewer").teams.list(mine=True).items} == {"crew", "insights"}
    assert {team.name for team in door.list().items} == {"crew", "insights"}
    door.remove("insights", "viewer")
    with pytest.raises(NotFound):
        door.remove("insights", "viewer")
    door.delete("insights")
    with pytest.raises(NotFound, match="no team"):
        door.read("insights")
    rows = [row for row in either.rows("team.add") if row.phase == "started"]
    assert [(row.target, row.detail["arguments"]["user"]) for row in rows][:1] == [("insights", "viewer")]


def test_only_members_are_in_teams(world: World) -> None:
    door = world.as_("ada").teams
    for name in ("bob", "zoe@example.org", "nobody", world.user("bob").id):
        with pytest.raises(NotFound, match="no member"):
            door.add("crew", name)


def test_a_team_named_like_the_id_of_another_is_not_it(world: World) -> None:
    door = world.as_("ada").teams
    door.create(world.crew)
    assert door.read(world.crew).name == "crew"


def test_nobody_moves_who_ranks_above_them(world: World) -> None:
    low = msgspec.structs.replace(world.principal("viewer"), permissions=("team.*",))
    door = world.house.workspace(low).teams
    with pytest.raises(PermissionDenied, match="above you"):
        door.add("crew", "ada")
    world.as_("ada").teams.add("crew", "ada")
    with pytest.raises(PermissionDenied, match="above you"):
        door.remove("crew", "ada")


def test_what_a_team_was_granted_ends_with_the_membership_at_once(world: World) -> None:
    with world.house.store.write() as tx:
        connections.grant(tx, world.acme, world.shop, kind="team", grantee_id=world.crew, level="use", now=NOW)
    viewer = world.principal("viewer")
    assert world.house.access.connection(viewer, "shop").grant == "use"
    world.as_("ada").teams.remove("crew", "viewer")
    assert world.house.access.connection(viewer, "shop").grant == "none"
    world.as_("ada").teams.add("crew", "viewer")
    assert world.house.access.connection(viewer, "shop").grant == "use"
    world.as_("ada").teams.delete("crew")
    assert world.house.access.connection(viewer, "shop").grant == "none"
