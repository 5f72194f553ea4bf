"""The accounts of others: a super_admin's work, and how little everybody else sees of it."""

from __future__ import annotations

import msgspec
import pytest

from dblens.accounts import recovery
from dblens.accounts.base import Caller
from dblens.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, PermissionDenied
from dblens.redaction import Secret
from dblens.store import accounts, connections, organizations, tables
from dblens.workspace import entrance
from dblens.workspace.entry import operator, principal_of
from tests.workspace.people import GOOD, HERE, NOW, World

NEW = "Schlussstein-8 sitzt"


def test_admins_of_an_organization_see_its_members_and_nobody_else(world: World) -> None:
    for who in ("ada", "developer", "auditor"):
        door = world.as_(who).users
        names = {user.name for user in door.list().items}
        assert names == {"ada", "admin", "developer", "analyst", "auditor", "viewer"}
        for search in ("bob", "zoe@", "root", world.user("bob").id):
            assert door.list(search=search).items == ()
    door = world.as_("ada").users
    for name in ("bob", "bob@example.org", "nobody", world.user("bob").id):
        with pytest.raises(NotFound) as caught:
            door.read(name)
        assert caught.value.message == f"no member {name!r}"
    seen = door.read("viewer")
    assert (seen.role, seen.super_admin, seen.locked_until, seen.organizations) == ("viewer", None, None, ())
    with pytest.raises(InvalidInput, match="administrators of the instance"):
        door.list(active=False)
    page = door.list(limit=4)
    assert len(page.items) + len(door.list(after=page.after).items) == 6


def test_a_super_admin_sees_all(world: World) -> None:
    door = world.as_("root").users
    assert len(door.list(limit=200).items) == 10
    assert [user.name for user in door.list(search="BOB").items] == ["bob"]
    found = door.read("bob@example.org")
    assert (found.organizations, found.super_admin, found.approved) == (("beta",), False, True)
    door.disable("bob")
    assert [user.name for user in door.list(active=False).items] == ["bob"]


def test_a_permission_alone_administers_no_accounts(world: World) -> None:
    """A custom role may hold `user.*`, by a super_admin's mistake: it is about an organization, and accounts are not."""
    principal = msgspec.structs.replace(world.principal("ada"), permissions=("*.*",))
    door = world.house.workspace(principal).users
    for attempt in (
        lambda: door.create("eve"),
        lambda: door.disable("bob"),
        lambda: door.reset("root"),
        lambda: door.delete("viewer"),
        lambda: door.super_admin("ada", allowed=True),
        lambda: door.end_sessions("bob"),
        lambda: door.sessions("root"),
        lambda: door.update("bob", email="mine@example.org"),
        lambda: door.approve("bob"),
        lambda: door.enable("bob"),
    ):
        with pytest.raises(PermissionDenied, match="by a super_admin"):
            attempt()


def test_a_user_with_a_first_password_has_to_change_it(either: World) -> None:
    door = either.as_("root").users
    made = door.create("eve", email="eve@example.org", password=Secret(GOOD), organization="acme", role="analyst")
    assert made.reset is None
    assert made.user.must_change
    assert either.role_of("eve") == "analyst"
    done = entrance.log_in(either.house, "eve", Secret(GOOD), HERE)
    bearer = Secret(done.tokens.access)
    with pytest.raises(PermissionDenied, match="changed first"):
        entrance.authenticate(either.house, bearer, HERE)
    assert (
        either.house.workspace(entrance.authenticate(either.house, bearer, HERE, operation="account.read"))
        .account.read()
        .must_change
    )
    principal = entrance.authenticate(either.house, bearer, HERE, operation="account.password")
    either.house.workspace(principal).account.password(Secret(GOOD), Secret(NEW))
    assert entrance.authenticate(either.house, bearer, HERE).role == "analyst"


def test_a_user_without_password_gets_a_link_that_is_shown_once(world: World) -> None:
    world.house.settings = msgspec.structs.replace(world.house.settings, public_url="https://dblens.example.org/")
    made = world.as_("root").users.create("eve")
    assert made.reset is not None
    assert made.reset.token not in repr(made) + repr(made.reset)
    assert made.reset.link == f"https://dblens.example.org/reset-password#token={made.reset.token}"
    entrance.reset(world.house, Secret(made.reset.token), Secret(NEW), HERE)
    assert entrance.log_in(world.house, "eve", Secret(NEW), HERE).user.name == "eve"
    with pytest.raises(NotAuthenticated):
        entrance.reset(world.house, Secret(made.reset.token), Secret(GOOD), HERE)
    assert made.reset.token not in msgspec.json.encode(world.rows()).decode()


def test_nothing_is_half_made(world: World) -> None:
    door = world.as_("root").users
    for more in ({"organization": "acme"}, {"role": "viewer"}):
        with pytest.raises(InvalidInput, match="go together"):
            door.create("eve", **more)
    with pytest.raises(NotFound):
        door.create("eve", organization="acme", role="pilot")
    with pytest.raises(NotFound):
        door.create("eve", organization="gamma", role="viewer")
    with pytest.raises(InvalidInput, match="too short"):
        door.create("eve", password=Secret("short"))
    with pytest.raises(NotFound):
        door.read("eve")
    with pytest.raises(Conflict, match="taken"):
        door.create("BOB")


def test_disabling_ends_everything_at_once(world: World) -> None:
    auth, token = world.log_in("developer"), world.token("developer", "*")
    done = entrance.log_in(world.house, "developer", Secret(GOOD), HERE)
    world.as_("root").users.disable("developer")
    with pytest.raises(NotAuthenticated):
        entrance.authenticate(world.house, Secret(done.tokens.access), HERE)
    with pytest.raises(NotAuthenticated):
        entrance.refresh(world.house, Secret(done.tokens.refresh), HERE)
    with pytest.raises(NotAuthenticated):
        world.bearer(token)
    assert principal_of(world.house.store, auth).role is None, "and the membership gives nothing"
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "developer", Secret(GOOD), HERE)
    world.as_("root").users.enable("developer")
    with pytest.raises(NotAuthenticated):  # what ended stays ended
        world.bearer(token)
    assert entrance.log_in(world.house, "developer", Secret(GOOD), HERE).user.active


def test_ending_sessions_and_resetting(world: World) -> None:
    door = world.as_("root").users
    token = world.token("bob", "*", organization=world.beta)
    done = entrance.log_in(world.house, "bob", Secret(GOOD), Caller(address="198.51.100.9", client="curl"))
    (session,) = door.sessions("bob").items
    assert (session.address, session.client, session.current) == ("198.51.100.9", "curl", False)
    door.end_sessions("bob")
    assert door.sessions("bob").items == ()
    for gone in (done.tokens.access, token):
        with pytest.raises(NotAuthenticated):
            entrance.authenticate(world.house, Secret(gone), HERE)
    issued = door.reset("bob")
    assert issued.token not in repr(issued)
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "bob", Secret(GOOD), HERE)
    entrance.reset(world.house, Secret(issued.token), Secret(NEW), HERE)
    assert entrance.log_in(world.house, "bob", Secret(NEW), HERE)


def test_deleting_hands_over_what_was_owned_in_each_organization(either: World) -> None:
    door = either.as_("root").users
    with either.house.store.write() as tx:
        role = organizations.find_role(tx, either.beta, "viewer").id
        organizations.add_member(tx, either.beta, either.user("developer").id, role, now=NOW)
        other = connections.create_connection(
            tx, either.beta, name="two", engine="mysql", fields={}, owner_id=either.user("developer").id, now=NOW
        ).id
    with pytest.raises(Conflict, match="owned by this member"):
        door.delete("developer")
    with pytest.raises(Conflict, match="'beta'"):
        door.delete("developer", to={"acme": "ada"})
    with pytest.raises(NotFound, match="no member 'ada'"):
        door.delete("developer", to={"acme": "ada", "beta": "ada"})
    with pytest.raises(NotFound, match="no organization 'gamma'"):
        door.delete("developer", to={"gamma": "ada"})
    assert either.role_of("developer") == "developer"
    door.delete("developer", to={"acme": "ada", either.beta: "bob"})
    with either.house.store.read() as tx:
        assert connections.get_connection(tx, either.acme, either.shop).owner_id == either.user("ada").id
        assert connections.get_connection(tx, either.beta, other).owner_id == either.user("bob").id
        with pytest.raises(NotFound):
            accounts.find_user(tx, "developer")
    with pytest.raises(InvalidInput, match="no member of"):
        door.delete("viewer", to={"beta": "bob"})


def test_the_last_admin_of_an_organization_is_not_deleted(world: World) -> None:
    door = world.as_("root").users
    with pytest.raises(Conflict, match="last admin of 'beta'"):
        door.delete("bea")
    door.delete("admin")
    with pytest.raises(Conflict, match="last admin of 'acme'"):
        door.delete("ada")
    assert world.user("ada").active
    # Who may be dangerous is let out at once nevertheless: an organization of one's own is no shield.
    assert not door.disable("ada").active


def test_super_admins_are_made_by_super_admins_and_one_remains(world: World) -> None:
    door = world.as_("root").users
    for attempt in (lambda: door.disable("root"), lambda: door.delete("root")):
        with pytest.raises(Conflict, match="their own account"):
            attempt()
    with pytest.raises(Conflict, match="nobody else could administer"):
        door.super_admin("root", allowed=False)
    assert door.super_admin("zoe", allowed=True).super_admin
    zoe = world.as_("zoe", super_admin=True).users
    assert not zoe.super_admin("root", allowed=False).super_admin
    with pytest.raises(PermissionDenied):
        world.as_("root")
    with pytest.raises(PermissionDenied):  # an ordinary role does not borrow it
        world.as_("zoe").users.disable("bob")


def test_approving(world: World) -> None:
    with world.house.store.write() as tx:
        accounts.update_user(tx, world.user("bob").id, approved=False)
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "bob", Secret(GOOD), HERE)
    door = world.as_("root").users
    assert [user.name for user in door.list(approved=False).items] == ["bob"]
    assert door.approve("bob").approved
    assert entrance.log_in(world.house, "bob", Secret(GOOD), HERE)


def test_changing_an_account(world: World) -> None:
    door = world.as_("root").users
    assert door.update("bob", display="Bob B.", email="b@example.org").email == "b@example.org"
    with pytest.raises(Conflict, match="taken"):
        door.update("bob", email="ada@example.org")


# ------------------------------------------------------------------------------------------------------- on the service's machine


def test_on_the_services_machine_a_super_admin_acts_by_name(world: World) -> None:
    principal = operator(world.house, "root", organization="acme")
    assert (principal.kind, principal.role, principal.org_id, principal.name) == (
        "local",
        "super_admin",
        world.acme,
        "root",
    )
    workspace = world.house.workspace(principal)
    world.clock.on(days=300)  # no login there is too old
    assert workspace.users.disable("bob").name == "bob"
    row = world.rows("user.disable")[-1]
    assert (row.actor, row.client.partition(",")[0], row.detail["as"]) == ("root", "command line", "local")
    with pytest.raises(PermissionDenied, match="no use of connections"):
        workspace.catalog.tables("sqlite:///x.sqlite")


def test_nobody_else_acts_there(world: World) -> None:
    for name in ("ada", "nobody", "zoe"):
        with pytest.raises(PermissionDenied, match="no active super_admin"):
            operator(world.house, name)
    with pytest.raises(InvalidInput, match="no local owner"):
        operator(world.house, None)
    world.as_("root").users.super_admin("zoe", allowed=True)
    world.as_("zoe", super_admin=True).users.disable("root")
    with pytest.raises(PermissionDenied, match="no active super_admin"):
        operator(world.house, "root")
    with pytest.raises(NotFound):
        operator(world.house, "zoe", organization="gamma")


def test_where_nobody_administers_the_first_is_made_there(world: World) -> None:
    with world.house.store.write() as tx:
        tx.execute(tables.users.update().values(super_admin=False))
    principal = operator(world.house, None)
    door = world.house.workspace(principal).users
    with pytest.raises(InvalidInput, match="the first user is a super_admin"):
        door.create("eve")
    made = door.create("eve", super_admin=True, password=Secret(GOOD))
    assert made.user.super_admin
    assert not made.user.must_change
    assert operator(world.house, "eve").role == "super_admin"
    with pytest.raises(Conflict, match="somebody administers"):
        door.create("mallory", super_admin=True)


def test_recovery_is_the_same_code(world: World) -> None:
    """What an admin issues is what `forgot` would have sent: one use, one end."""
    issued = world.as_("root").users.reset("bob")
    at = entrance.accounts_of(world.house)
    world.clock.on(minutes=31)
    with pytest.raises(NotAuthenticated):
        recovery.reset(at, issued.token, NEW, HERE)
