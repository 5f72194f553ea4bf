"""Access tokens: never more than their owner, never more than their scopes, never longer than they say."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from dblens.errors import InvalidInput, NotAuthenticated, NotFound, PermissionDenied
from dblens.redaction import scrub
from dblens.store import organizations
from tests.workspace.people import NOW, World

DAY = dt.timedelta(days=1)


def test_a_token_is_shown_once_and_does_what_it_is_scoped_for(either: World) -> None:
    door = either.as_("developer").tokens
    made = door.create("ci", ["team.*", "catalog.read"], NOW + DAY)
    assert made.secret.startswith("dbl_pat_")
    assert made.secret not in repr(made) + str(made)
    assert (made.token.scopes, made.token.user) == (("catalog.read", "team.*"), "developer")
    workspace = either.bearer(made.secret)
    assert workspace.teams.list().items
    with pytest.raises(PermissionDenied, match=r"not scoped for role\.list"):
        workspace.roles.list()
    with pytest.raises(PermissionDenied):  # scoped for it, and its owner may not
        workspace.teams.create("x")
    assert [token.name for token in door.list().items] == ["ci"]
    assert door.list().items[0].used_at == NOW
    text = msgspec.json.encode([either.rows(), door.list()]).decode()
    assert made.secret not in text
    row = next(row for row in either.rows("token.create") if row.phase == "started")
    assert (row.target, row.detail["arguments"]["scopes"]) == ("ci", ["team.*", "catalog.read"])


def test_a_token_ends(world: World) -> None:
    door = world.as_("developer").tokens
    made = door.create("ci", ["*.*"], NOW + DAY)
    assert made.token.scopes == ("*.*",)
    assert world.bearer(made.secret).roles.list().items
    world.clock.on(days=1)
    with pytest.raises(NotAuthenticated):
        world.bearer(made.secret)
    assert world.as_("developer").tokens.list().items == ()
    assert [token.name for token in world.as_("developer").tokens.list(ended=True).items] == ["ci"]
    second = world.as_("developer").tokens.create("ci", ["*.*"], world.clock() + DAY)
    world.as_("developer").tokens.revoke(second.token.id)
    with pytest.raises(NotAuthenticated):
        world.bearer(second.secret)
    with pytest.raises(NotFound):
        world.as_("developer").tokens.revoke(second.token.id)


def test_what_is_no_token(world: World) -> None:
    door = world.as_("developer").tokens
    attempts: list[tuple[Any, ...]] = [
        ("t", [], NOW + DAY),
        ("t", ["catalog"], NOW + DAY),
        ("t", ["catalog.fly"], NOW + DAY),
        ("t", ["*.read"], NOW + DAY),
        ("t", ["catalog.read"], NOW),
        ("t", ["catalog.read"], NOW - DAY),
        ("t", ["catalog.read"], NOW + 367 * DAY),
        ("t", ["catalog.read"], (NOW + DAY).replace(tzinfo=None)),
        ("", ["catalog.read"], NOW + DAY),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidInput):
            door.create(*attempt)
    assert door.list().items == ()


def test_a_token_makes_and_ends_no_other(world: World) -> None:
    mine = world.as_("developer").tokens.create("ci", ["*.*"], NOW + DAY)
    door = world.bearer(mine.secret).tokens
    with pytest.raises(NotAuthenticated):
        door.create("more", ["*.*"], NOW + 2 * DAY)
    with pytest.raises(PermissionDenied, match="cannot end another"):
        door.revoke(mine.token.id)


def test_tokens_of_others_and_of_other_organizations(world: World) -> None:
    with world.house.store.write() as tx:
        role = organizations.find_role(tx, world.beta, "developer").id
        organizations.add_member(tx, world.beta, world.user("developer").id, role, now=NOW)
    here = world.as_("developer", organization="acme").tokens
    there = world.as_("developer", organization="beta").tokens
    made = here.create("ci", ["*.*"], NOW + DAY)
    assert there.list().items == ()
    for door in (there, world.as_("analyst").tokens, world.as_("ada").tokens):
        with pytest.raises(NotFound):
            door.revoke(made.token.id)
    assert world.as_("bea").tokens.list_all().items == ()
    assert world.bearer(made.secret).roles.list().items


def test_admins_see_and_end_the_tokens_for_their_organization(either: World) -> None:
    tokens = {name: either.token(name, "*") for name in ("developer", "analyst", "ada")}
    other = either.token("bob", "*", organization=either.beta)
    door = either.as_("admin").tokens
    assert {token.user for token in door.list_all().items} == {"developer", "analyst", "ada"}
    assert [token.user for token in door.list_all(user="analyst").items] == ["analyst"]
    page = door.list_all(limit=2)
    assert len(page.items) + len(door.list_all(after=page.after).items) == 3
    assert door.revoke_all("developer") == 1
    with pytest.raises(NotAuthenticated):
        either.bearer(tokens["developer"])
    assert either.bearer(tokens["analyst"])
    assert either.bearer(other)
    assert len(door.list_all(ended=True).items) == 3
    low = msgspec.structs.replace(either.principal("viewer"), permissions=("token.*",))
    with pytest.raises(PermissionDenied, match="above you"):
        either.house.workspace(low).tokens.revoke_all("ada")


def test_a_super_admin_gets_no_token_and_no_more_by_one(world: World) -> None:
    with pytest.raises(PermissionDenied):
        world.as_("root").tokens.create("t", ["*.*"], NOW + DAY)
    with world.house.store.write() as tx:
        role = organizations.find_role(tx, world.acme, "viewer").id
        organizations.add_member(tx, world.acme, world.user("root").id, role, now=NOW)
    workspace = world.by_token("root", "*")
    assert workspace.account.read().role == "viewer"
    with pytest.raises(PermissionDenied):
        workspace.users.list()


def test_a_token_in_a_message_is_scrubbed(world: World) -> None:
    made = world.as_("developer").tokens.create("ci", ["*.*"], NOW + DAY)
    assert made.secret not in scrub(f"Authorization: Bearer {made.secret}")
