"""One's own account: what a login may do about itself, and nothing a token may."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest

from dblens.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, PermissionDenied
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.workspace import entrance
from dblens.workspace.entry import principal_of
from dblens.workspace.house import House
from tests.workspace.people import GOOD, HERE, World

NEW = "Schlussstein-8 sitzt"


def test_the_profile_says_who_one_is_and_as_what_one_acts(either: World) -> None:
    found = either.as_("developer").account.read()
    assert (found.name, found.kind, found.role, found.organization) == (
        "developer",
        "account",
        "developer",
        either.acme,
    )
    assert [(place.slug, place.role, place.current) for place in found.organizations] == [("acme", "developer", True)]
    assert found.scopes is None
    assert "catalog.*" in found.permissions
    by_token = either.by_token("developer", "account.*", "catalog.read").account.read()
    assert (by_token.kind, by_token.scopes) == ("token", ("account.*", "catalog.read"))
    alone = either.as_("zoe").account.read()
    assert (alone.role, alone.organization, alone.organizations, alone.permissions) == (None, None, (), ())
    text = msgspec.json.encode(found).decode()
    assert "password" not in text.replace("account.password", "")


def test_changing_the_password_ends_the_other_sessions(either: World) -> None:
    first = entrance.log_in(either.house, "ada", Secret(GOOD), HERE)
    second = entrance.log_in(either.house, "ada", Secret(GOOD), HERE)
    mine = entrance.authenticate(either.house, Secret(first.tokens.access), HERE)
    door = either.house.workspace(mine).account
    with pytest.raises(NotAuthenticated):
        door.password(Secret("not it at all 1"), Secret(NEW))
    for weak in (GOOD, "short", "ada ada ada ada"):
        with pytest.raises(InvalidInput):
            door.password(Secret(GOOD), Secret(weak))
    door.password(Secret(GOOD), Secret(NEW))
    assert entrance.authenticate(either.house, Secret(first.tokens.access), HERE).name == "ada"
    for gone in (second.tokens.access, second.tokens.refresh):
        with pytest.raises(NotAuthenticated):
            entrance.authenticate(either.house, Secret(gone), HERE)
    text = msgspec.json.encode(either.rows()).decode()
    for secret in (GOOD, NEW, first.tokens.access, second.tokens.refresh):
        assert secret not in text


def test_sessions_are_ones_own(world: World) -> None:
    world.log_in("ada")
    theirs = world.session_of("ada")
    door = world.as_("viewer").account
    other = world.log_in("viewer").session
    assert other is not None
    found = door.sessions().items
    assert [item.current for item in found] == [False, True]
    assert theirs not in [item.id for item in found]
    with pytest.raises(NotFound):
        door.revoke(theirs)
    door.revoke(other.id)
    with pytest.raises(NotFound):
        door.revoke(other.id)
    for _ in range(3):
        world.log_in("viewer")
    assert door.revoke_others() == 3
    assert [item.current for item in door.sessions().items] == [True]
    assert world.session_of("ada") == theirs


def test_an_ended_session_does_nothing_more(world: World) -> None:
    """Attack 3: what began before the end is refused where it would change something of the account."""
    workspace = world.as_("viewer")
    session = workspace.account.read().session
    assert session is not None
    workspace.account.revoke(session)
    for attempt in (
        lambda: workspace.account.confirm(Secret(GOOD)),
        lambda: workspace.account.password(Secret(GOOD), Secret(NEW)),
        workspace.account.revoke_others,
        lambda: workspace.account.email("new@example.org", Secret(GOOD)),
    ):
        with pytest.raises(NotAuthenticated):
            attempt()


def test_confirming_is_step_up(world: World) -> None:
    auth = world.log_in("ada")
    world.clock.on(minutes=16)
    old = world.house.workspace(principal_of(world.house.store, auth))
    with pytest.raises(NotAuthenticated, match="not older"):
        old.organizations.update(world.acme, name="x")
    with pytest.raises(NotAuthenticated):
        old.account.confirm(Secret("wrong"))
    old.account.confirm(Secret(GOOD))
    done = entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    world.clock.on(minutes=9)
    bearer = Secret(done.tokens.access)
    again = world.house.workspace(entrance.authenticate(world.house, bearer, HERE))
    assert again.organizations.update(world.acme, name="x").name == "x"


def test_a_proven_address_and_one_that_is_not(world: World) -> None:
    door = world.as_("ada").account
    with pytest.raises(InvalidInput, match="password is missing"):
        door.email("new@example.org")
    with pytest.raises(NotAuthenticated):
        door.email("new@example.org", Secret("wrong"))
    assert door.email("new@example.org", Secret(GOOD)) == type(door.email("new@example.org", Secret(GOOD)))(
        email="new@example.org", pending=False
    )
    with pytest.raises(Conflict, match="taken"):
        door.email("bob@example.org", Secret(GOOD))
    world.house.settings = msgspec.structs.replace(world.house.settings, public_url="https://dblens.example.org")
    sent = world.mail()
    made = door.email("next@example.org", Secret(GOOD))
    assert (made.pending, made.email) == (True, "new@example.org")
    assert [mail.to for mail in sent] == ["next@example.org", "new@example.org"]
    token = sent[0].text.split("#token=")[1].split()[0]
    entrance.verify_email(world.house, Secret(token), Secret(GOOD), HERE)
    assert world.user("ada").email == "next@example.org"


def test_a_token_changes_nothing_of_the_account(world: World) -> None:
    door = world.by_token("ada", "*").account
    for attempt in (
        lambda: door.update(display="x"),
        lambda: door.email("new@example.org", Secret(GOOD)),
        lambda: door.password(Secret(GOOD), Secret(NEW)),
        lambda: door.confirm(Secret(GOOD)),
        lambda: door.revoke("x"),
        door.revoke_others,
    ):
        with pytest.raises(PermissionDenied, match="an access token cannot"):
            attempt()
    assert world.user("ada").display == "ada"


def test_brute_force_through_the_door_locks_the_account(world: World) -> None:
    """Attack 9: the step-up and the change of a password are no way round the lockout."""
    door = world.as_("ada").account
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            door.confirm(Secret("wrong"))
    with pytest.raises(NotAuthenticated):
        door.confirm(Secret(GOOD))
    world.clock.on(minutes=16)
    world.as_("ada").account.confirm(Secret(GOOD))


def test_the_person_at_this_machine_is_told_so(tmp_path: Path) -> None:
    house = House.open(Settings(store_url=f"sqlite:///{tmp_path}/s.sqlite", data_folder=tmp_path))
    try:
        workspace = house.workspace(house.owner)
        door = workspace.account
        for attempt in (
            lambda: door.password(Secret("x"), Secret(NEW)),
            lambda: door.confirm(Secret("x")),
            lambda: door.revoke("x"),
            door.revoke_others,
        ):
            with pytest.raises(InvalidInput, match="the person at this machine, without password"):
                attempt()
        assert door.sessions().items == ()
        assert door.email("me@example.org").email == "me@example.org"
        assert door.update(display="Me").display == "Me"
        made = workspace.organizations.create("second")
        assert workspace.organizations.use("second").current
        assert workspace.account.read().organization == made.id
        assert house.workspace(house.owner).account.read().organization == made.id, "and of who opens it again"
        issued = workspace.tokens.create("ci", ["catalog.*"], dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
        assert issued.token.user == house.owner.name
        assert workspace.users.create("eve", super_admin=True).user.super_admin
        workspace.organizations.delete(made.id)
        assert house.owner.org_id != made.id
    finally:
        house.close()
