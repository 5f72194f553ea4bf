"""Organizations and members: everything somebody may do, and everything that must be refused to them."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable

import hypothesis as h
import hypothesis.strategies as st
import msgspec
import pytest

from dblens.errors import (
    Conflict,
    DBLensError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unsupported,
)
from dblens.redaction import Secret
from dblens.store import accounts, connections, invitations, organizations, runs
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.workspace import permissions
from dblens.workspace.entry import principal_of
from dblens.workspace.principal import Principal
from tests.workspace.people import GOOD, INVITATION, NOW, ROLES, World


def test_whoever_makes_an_organization_is_its_admin(world: World) -> None:
    door = world.as_("zoe").organizations
    made = door.create("Zoë & Co")
    assert (made.slug, made.role, made.rank) == ("zo-co", "admin", 80)
    assert [(item.slug, item.role) for item in door.list().items] == [("zo-co", "admin")]
    with pytest.raises(Conflict, match="taken"):
        door.create("other", slug="zo-co")
    with pytest.raises(PermissionDenied, match="only a super_admin"):
        door.create("other", admin="bob")
    assert world.role_of("zoe", made.id) == "admin"
    (row,) = [row for row in world.rows("organization.create") if row.outcome == "ok"]
    assert row.target == made.id


def test_an_organization_without_its_admin_is_never_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Conflict("no")

    monkeypatch.setattr(organizations, "add_member", fail)
    with pytest.raises(Conflict):
        world.as_("zoe").organizations.create("half")
    with pytest.raises(NotFound), world.house.store.read() as tx:
        organizations.find_organization(tx, "half")


def test_a_super_admin_makes_one_for_somebody_and_sees_all(world: World) -> None:
    door = world.as_("root").organizations
    made = door.create("gamma", admin="zoe")
    assert (made.role, world.role_of("zoe", made.id), world.role_of("root", made.id)) == (None, "admin", None)
    assert {item.slug for item in door.list().items} == {"acme", "beta", "gamma"}
    assert [item.slug for item in door.list(search="bet").items] == ["beta"]
    with world.house.store.write() as tx:
        accounts.disable_user(tx, world.user("bob").id)
    with pytest.raises(Conflict, match="cannot log in"):
        door.create("delta", admin="bob")


def test_nobody_makes_organizations_without_end(world: World) -> None:
    from dblens.accounts import configured
    from dblens.accounts.limits import Limits

    configured._of(world.house.store).limits = Limits()
    door = world.as_("zoe").organizations
    for number in range(20):
        door.create(f"o{number}")
    with pytest.raises(RateLimited):
        door.create("one too many")


def test_reading_renaming_and_searching(world: World) -> None:
    door = world.as_("ada").organizations
    assert door.read(world.acme).role == "admin"
    assert door.update(world.acme, name="ACME", slug="acme-two").slug == "acme-two"
    assert [item.name for item in door.list(search="acme-T").items] == ["ACME"]
    assert door.list(search="nothing").items == ()
    found = door.members(world.acme, search="DEVEL")
    assert [(m.name, m.role) for m in found.items] == [("developer", "developer")]
    page = door.members(world.acme, limit=2)
    assert len(page.items) == 2
    assert page.after is not None
    assert len(door.members(world.acme, limit=200, after=page.after).items) == 4


def test_choosing_another_organization_counts_for_the_next_request(world: World) -> None:
    with world.house.store.write() as tx:
        viewer = organizations.find_role(tx, world.beta, "viewer")
        organizations.add_member(tx, world.beta, world.user("developer").id, viewer.id, now=NOW)
    auth = world.log_in("developer")
    before = principal_of(world.house.store, auth)
    door = world.house.workspace(before).organizations
    other = door.use("beta" if before.org_id == world.acme else "acme")
    assert other.current
    after = principal_of(world.house.store, auth)
    assert (after.org_id, after.role) == (other.id, other.role)
    for name in ("gamma", world.user("bob").id, "bob"):
        with pytest.raises(NotFound):
            door.use(name)
    with pytest.raises(NotFound, match="no organization 'beta'"):
        world.as_("viewer").organizations.use("beta")


def test_deleting_needs_rest(either: World) -> None:
    door = either.as_("ada").organizations
    with either.house.store.write() as tx:
        run = runs.create_run(tx, either.acme, "migration.apply", user_id=either.user("ada").id, now=NOW)
    with pytest.raises(Conflict, match="queued") as caught:
        door.delete(either.acme)
    assert run.id in str(caught.value.hint)
    with either.house.store.write() as tx:
        runs.claim_one(tx, either.acme, run.id, "w", lease=dt.timedelta(hours=1), now=either.clock())
    with pytest.raises(Conflict, match="running"):
        door.delete(either.acme)
    with either.house.store.write() as tx:
        runs.finish(tx, either.acme, run.id, "w", "succeeded", now=either.clock())
    token = either.token("ada", "*")
    door.delete(either.acme)
    assert either.as_("developer").organizations.list().items == ()
    assert principal_of(either.house.store, either.log_in("developer")).role is None
    with pytest.raises(PermissionDenied):
        either.bearer(token).teams.list()
    with pytest.raises(NotFound):
        either.as_("root", organization=either.acme)


# --------------------------------------------------------------------------------------------------------------------- members


def test_admit_assign_remove(either: World) -> None:
    door = either.as_("ada").organizations
    made = door.admit(either.acme, "bob@example.org", "developer")
    assert (made.name, made.role) == ("bob", "developer")
    with pytest.raises(Conflict, match="already a member"):
        door.admit(either.acme, "bob@example.org", "viewer")
    assert door.assign(either.acme, "bob", "helper").rank == 10
    assert door.assign(either.acme, either.user("bob").id, "auditor").role == "auditor"
    left = door.remove(either.acme, "bob")
    assert (left.connections, left.tokens) == (0, 0)
    assert either.role_of("bob") is None
    assert either.role_of("bob", either.beta) == "viewer"
    with pytest.raises(NotFound, match="no member 'bob'"):
        door.remove(either.acme, "bob")


def test_who_is_not_known_to_an_admin_is_admitted_by_address_only(world: World) -> None:
    """An organization of one's own must not be a way to read the instance's accounts."""
    door = world.as_("ada").organizations
    for name in ("bob", world.user("bob").id, "nobody", "nobody@example.org", "BOB"):
        with pytest.raises(NotFound) as caught:
            door.admit(world.acme, name, "viewer")
        assert caught.value.message == f"no account {name!r} that you may add by this name"
    with world.house.store.write() as tx:
        accounts.disable_user(tx, world.user("bob").id)
    with pytest.raises(NotFound):
        door.admit(world.acme, "bob@example.org", "viewer")
    with world.house.store.write() as tx:
        accounts.enable_user(tx, world.user("bob").id)
        organizations.add_member(
            tx, world.beta, world.user("ada").id, organizations.find_role(tx, world.beta, "viewer").id, now=NOW
        )
    # They share an organization now: the name is nothing new.
    assert door.admit(world.acme, "bob", "viewer").name == "bob"
    assert world.as_("root").organizations.admit(world.acme, "zoe", "admin").role == "admin"


def test_changes_take_effect_at_once(world: World) -> None:
    auth, token = world.log_in("developer"), world.token("developer", "*")

    def now() -> Principal:
        return principal_of(world.house.store, auth)

    assert world.house.workspace(now()).roles.list().items
    assert world.bearer(token).roles.list().items
    world.as_("ada").organizations.assign(world.acme, "developer", "viewer")
    for workspace in (world.house.workspace(now()), world.bearer(token)):
        assert workspace.teams.list().items
        with pytest.raises(PermissionDenied):
            workspace.roles.list()
    world.as_("ada").organizations.remove(world.acme, "developer", to="ada")
    assert (now().role, now().org_id) == (None, None)
    with pytest.raises(PermissionDenied):
        world.house.workspace(now()).teams.list()
    with pytest.raises(NotAuthenticated):
        world.bearer(token)


def test_what_a_member_had_goes_to_somebody_named(either: World) -> None:
    door = either.as_("ada").organizations
    token = either.token("developer", "*")
    leavers: list[Callable[[str | None], object]] = [
        lambda to: door.remove(either.acme, "developer", to=to),
        lambda to: either.as_("developer").organizations.leave("acme", to=to),
    ]
    for leaver in leavers:
        with pytest.raises(Conflict, match="owned by this member"):
            leaver(None)
        for wrong in ("bob", "nobody", "zoe@example.org"):
            with pytest.raises(NotFound, match="no member"):
                leaver(wrong)
        with pytest.raises(InvalidInput, match="themselves"):
            leaver("developer")
    assert either.role_of("developer") == "developer"
    assert either.bearer(token).teams.list().items
    left = door.remove(either.acme, "developer", to="analyst")
    assert (left.connections, left.tokens) == (1, 1)
    with either.house.store.read() as tx:
        assert connections.get_connection(tx, either.acme, either.shop).owner_id == either.user("analyst").id
        assert not connections.list_connections(tx, either.beta, owner_id=either.user("analyst").id).items
    with pytest.raises(NotAuthenticated):
        either.bearer(token)


def test_a_disabled_member_gets_nothing_handed_over(world: World) -> None:
    with world.house.store.write() as tx:
        accounts.disable_user(tx, world.user("analyst").id)
    with pytest.raises(Conflict, match="disabled"):
        world.as_("ada").organizations.remove(world.acme, "developer", to="analyst")


def test_the_last_admin_stays(world: World) -> None:
    ada, root = world.as_("ada").organizations, world.as_("root").organizations
    ada.assign(world.acme, "admin", "developer")
    for attempt in (
        lambda: ada.assign(world.acme, "ada", "viewer"),
        lambda: ada.remove(world.acme, "ada"),
        lambda: ada.leave(world.acme),
        lambda: root.assign(world.acme, "ada", "viewer"),
        lambda: root.remove(world.acme, "ada"),
    ):
        with pytest.raises(Conflict, match="nobody else could administer"):
            attempt()
    # An admin who cannot log in counts for nothing.
    ada.assign(world.acme, "admin", "admin")
    with world.house.store.write() as tx:
        accounts.disable_user(tx, world.user("admin").id)
    with pytest.raises(Conflict, match="nobody else could administer"):
        ada.leave(world.acme)
    assert world.role_of("ada") == "admin"


def test_of_two_admins_who_remove_each_other_one_stays(either: World) -> None:
    doors = {"ada": either.as_("ada").organizations, "admin": either.as_("admin").organizations}
    start = threading.Barrier(2)
    done: list[str] = []

    def remove(who: str, whom: str) -> None:
        start.wait()
        try:
            doors[who].remove(either.acme, whom)
            done.append(who)
        except Conflict:
            pass

    threads = [threading.Thread(target=remove, args=pair) for pair in (("ada", "admin"), ("admin", "ada"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert [either.role_of("ada"), either.role_of("admin")].count("admin") == 1


def test_super_admin_is_no_role_of_an_organization(world: World) -> None:
    """Whoever got it by a membership would administer the instance."""
    door = world.as_("root").organizations
    for attempt in (
        lambda: door.assign(world.acme, "viewer", "super_admin"),
        lambda: door.admit(world.acme, "bob", "super_admin"),
        lambda: door.invite(world.acme, "x@example.org", "super_admin"),
        lambda: world.as_("root").users.create("eve", organization="acme", role="super_admin"),
    ):
        with pytest.raises(InvalidInput, match="is no role of an organization"):
            attempt()
    with world.house.store.write() as tx:  # and if a row says so nevertheless, it gives nothing
        role = organizations.find_role(tx, world.acme, "super_admin")
        tx.execute(t.members.update().where(t.members.c.user_id == world.user("viewer").id).values(role_id=role.id))
    found = world.principal("viewer")
    assert (found.role, found.rank, found.permissions) == (None, 0, ())


# ----------------------------------------------------------------------------------------------------------------- invitations


def test_an_invitation_is_for_its_address_and_good_once(either: World) -> None:
    made = either.as_("ada").organizations.invite(either.acme, "Bob@Example.org", "developer")
    assert made.token is not None
    assert made.token not in repr(made)
    assert (made.invitation.role, made.invitation.created_by, made.mailed) == ("developer", "ada", False)
    for wrong in ("zoe", "bea"):
        with pytest.raises(NotFound, match="for another account"):
            either.as_(wrong).organizations.accept(Secret(made.token))
    bob = either.as_("bob").organizations
    assert bob.accept(Secret(made.token)).slug == "acme"
    assert either.role_of("bob") == "developer"
    with pytest.raises(NotFound):
        bob.accept(Secret(made.token))
    with pytest.raises(NotFound):
        bob.accept(Secret("dbl_inv_guess"))
    text = msgspec.json.encode(either.rows()).decode()
    assert made.token not in text


def test_an_invitation_ends(world: World) -> None:
    door = world.as_("ada").organizations
    for days in (0, 31, True, -1):
        with pytest.raises(InvalidInput, match="days is"):
            door.invite(world.acme, "bob@example.org", "viewer", days=days)
    made = door.invite(world.acme, "bob@example.org", "viewer", days=1)
    assert made.token is not None
    world.clock.on(days=1)
    with pytest.raises(NotFound, match="expired"):
        world.as_("bob").organizations.accept(Secret(made.token))
    assert made.invitation.id not in [item.id for item in world.as_("ada").organizations.invitations(world.acme).items]


def test_an_invitation_that_was_taken_back_is_void(world: World) -> None:
    door = world.as_("ada").organizations
    assert [(item.email, item.role) for item in door.invitations(world.acme).items] == [("zoe@example.org", "helper")]
    door.revoke_invitation(world.acme, world.invited)
    assert door.invitations(world.acme).items == ()
    with pytest.raises(NotFound):
        door.revoke_invitation(world.acme, world.invited)
    with pytest.raises(NotFound):
        world.as_("zoe").organizations.accept(Secret(INVITATION))


@pytest.mark.parametrize("how", ["removed", "demoted", "disabled", "deleted"])
def test_what_a_dismissed_admin_handed_out_is_void(world: World, how: str) -> None:
    with world.house.store.write() as tx:
        user = world.user("admin").id
        if how == "removed":
            organizations.remove_member(tx, world.acme, user, must_remain=())
        elif how == "demoted":
            role = organizations.find_role(tx, world.acme, "viewer").id
            organizations.set_member_role(tx, world.acme, user, role, must_remain=())
        elif how == "disabled":
            accounts.disable_user(tx, user)
        else:
            accounts.delete_user(tx, user)
    with pytest.raises(NotFound, match="not valid"):
        world.as_("zoe").organizations.accept(Secret(INVITATION))
    assert world.role_of("zoe") is None


def test_an_invitation_goes_by_mail_where_there_is_one(world: World) -> None:
    world.house.settings = msgspec.structs.replace(world.house.settings, public_url="https://dblens.example.org")
    with pytest.raises(Unsupported, match="by mail"):
        world.as_("ada").organizations.invite(world.acme, "new@example.org", "viewer", mail=True)
    sent = world.mail()
    world.as_("ada").organizations.update(world.acme, name="Evil\nhttps://evil.example")
    made = world.as_("ada").organizations.invite(world.acme, "new@example.org", "viewer")
    assert (made.mailed, made.token, made.link) == (True, None, None)
    assert sent[0].to == "new@example.org"
    assert "https://dblens.example.org/accept-invitation#token=dbl_inv_" in sent[0].text
    assert "https://evil" not in sent[0].text
    by_hand = world.as_("ada").organizations.invite(world.acme, "new@example.org", "viewer", mail=False)
    assert by_hand.token is not None
    assert by_hand.link == f"https://dblens.example.org/accept-invitation#token={by_hand.token}"
    assert len(sent) == 1


def test_who_is_a_member_is_not_invited(world: World) -> None:
    with pytest.raises(Conflict, match="a member already"):
        world.as_("ada").organizations.invite(world.acme, "VIEWER@example.org", "viewer")
    with pytest.raises(InvalidInput, match="email"):
        world.as_("ada").organizations.invite(world.acme, "not an address", "viewer")


# ---------------------------------------------------------------------------------------------------------------------- attacks


def _other(world: World) -> list[tuple[str, object]]:
    """Calls by the admin of beta that name something of acme."""
    bea = world.as_("bea")
    o = bea.organizations
    return [
        ("read", lambda: o.read(world.acme)),
        ("update", lambda: o.update(world.acme, name="x")),
        ("delete", lambda: o.delete(world.acme)),
        ("members", lambda: o.members(world.acme)),
        ("invitations", lambda: o.invitations(world.acme)),
        ("invite", lambda: o.invite(world.acme, "x@example.org", "viewer")),
        ("admit", lambda: o.admit(world.acme, "bea@example.org", "admin")),
        ("assign", lambda: o.assign(world.acme, "viewer", "admin")),
        ("remove", lambda: o.remove(world.acme, "viewer")),
        ("revoke_invitation", lambda: o.revoke_invitation(world.acme, world.invited)),
        ("leave", lambda: o.leave(world.acme)),
        ("use", lambda: o.use(world.acme)),
        ("own, their member", lambda: o.assign(world.beta, "viewer", "viewer")),
        ("own, their member's id", lambda: o.remove(world.beta, world.user("viewer").id)),
        ("own, their role", lambda: o.assign(world.beta, "bob", world.role)),
        ("own, their invitation", lambda: o.revoke_invitation(world.beta, world.invited)),
        ("own, heir of theirs", lambda: o.remove(world.beta, "bob", to="viewer")),
        ("team", lambda: bea.teams.read(world.crew)),
        ("team update", lambda: bea.teams.update(world.crew, name="x")),
        ("team delete", lambda: bea.teams.delete(world.crew)),
        ("team members", lambda: bea.teams.members(world.crew)),
        ("team add", lambda: bea.teams.add(world.crew, "bea")),
        ("team add theirs", lambda: bea.teams.add("crew", "viewer")),
        ("team remove", lambda: bea.teams.remove(world.crew, world.user("viewer").id)),
        ("role", lambda: bea.roles.read(world.role)),
        ("role update", lambda: bea.roles.update(world.role, rank=1)),
        ("role delete", lambda: bea.roles.delete(world.role)),
        ("user", lambda: bea.users.read("viewer")),
        ("user by id", lambda: bea.users.read(world.user("viewer").id)),
        ("tokens of", lambda: bea.tokens.list_all(user="viewer")),
        ("tokens end", lambda: bea.tokens.revoke_all("viewer")),
        ("token", lambda: bea.tokens.revoke(world.token_of("viewer"))),
        ("session", lambda: bea.account.revoke(world.session_of("viewer"))),
    ]


def test_nothing_of_another_organization_is_there(world: World) -> None:
    """Attack 1: ids and names of others, each where something of one's own belongs. Not found, never denied, and nothing changes."""
    world.log_in("viewer")
    calls = _other(world)
    before = [world.role_of(name) for name in ROLES]
    for what, call in calls:
        with pytest.raises(NotFound) as caught:
            call()  # type: ignore[operator]
        assert "rank" not in str(caught.value), what
        assert "acme" not in str(caught.value).lower().replace(world.acme, ""), what
    assert [world.role_of(name) for name in ROLES] == before
    with world.house.store.read() as tx:
        assert organizations.get_organization(tx, world.acme).name == "Acme"
        assert invitations.get_invitation(tx, world.acme, world.invited).accepted_at is None


def test_lists_hold_nothing_of_another_organization(world: World) -> None:
    world.token("viewer", "*")
    bea = world.as_("bea")
    text = msgspec.json.encode(
        [
            bea.organizations.list(),
            bea.organizations.members(world.beta),
            bea.organizations.invitations(world.beta),
            bea.teams.list(),
            bea.teams.members("crew"),
            bea.roles.list(),
            bea.users.list(search="e"),
            bea.tokens.list_all(),
            bea.account.read(),
        ]
    ).decode()
    for theirs in (world.acme, world.crew, world.role, "ada@example.org", world.user("viewer").id):
        assert theirs not in text


def test_a_token_of_one_organization_says_nothing_of_the_others(world: World) -> None:
    with world.house.store.write() as tx:
        role = organizations.find_role(tx, world.beta, "admin")
        organizations.add_member(tx, world.beta, world.user("developer").id, role.id, now=NOW)
    workspace = world.by_token("developer", "*")
    assert [item.slug for item in workspace.organizations.list().items] == ["acme"]
    assert [place.slug for place in workspace.account.read().organizations] == ["acme"]
    for attempt in (
        lambda: workspace.organizations.use("beta"),
        lambda: workspace.organizations.leave("beta"),
        lambda: workspace.organizations.accept(Secret(INVITATION)),
    ):
        with pytest.raises(PermissionDenied):
            attempt()


RANKS = {role: permissions.SYSTEM_ROLES[role].rank for role in ROLES} | {"helper": 10, "lead": 70}


@h.settings(max_examples=100, deadline=None, suppress_health_check=[h.HealthCheck.function_scoped_fixture])
@h.given(
    actor=st.sampled_from([*ROLES, "lead", "helper"]),
    target=st.sampled_from(["self", *ROLES, "lead", "helper", "stranger"]),
    role=st.sampled_from([*ROLES, "lead", "helper", "super_admin", "owner", None]),
    how=st.sampled_from(["assign", "admit", "invite", "remove"]),
)
def test_rank_rules_hold_for_every_actor_target_and_role(
    world: World, actor: str, target: str, role: str | None, how: str
) -> None:
    """Attack 2. Even one who has every permission to do so gives nothing above their own and touches nobody above them."""
    h.assume((role is None) == (how == "remove"))
    h.assume((target == "stranger") == (how in ("admit", "invite")))
    with world.house.store.write() as tx:
        _people(tx, world)
    given = ("organization.assign", "organization.admit", "organization.invite", "organization.remove")
    held = permissions.SYSTEM_ROLES[actor].permissions if actor in ROLES else ("team.*", "catalog.read")
    principal = msgspec.structs.replace(
        world.principal("x-" + actor), role=actor, rank=RANKS[actor], permissions=(*held, *given)
    )
    door = world.house.workspace(principal).organizations
    whom = "x-" + (actor if target == "self" else target)
    before = _roles(world)
    try:
        if how == "assign":
            door.assign(world.acme, whom, role or "")
        elif how == "admit":
            door.admit(world.acme, "x-stranger@example.org", role or "")
        elif how == "invite":
            door.invite(world.acme, "x-stranger@example.org", role or "")
        else:
            door.remove(world.acme, whom)
        done = True
    except (PermissionDenied, InvalidInput, NotFound):
        done = False
        assert _roles(world) == before
    theirs = RANKS[actor if target == "self" else target] if target != "stranger" else -1
    allowed = theirs <= RANKS[actor]
    if role is not None:
        allowed &= role in RANKS and RANKS[role] <= RANKS[actor]
        if role in RANKS:
            wanted = permissions.SYSTEM_ROLES[role].permissions if role in ROLES else ("catalog.read",)
            if role == "lead":
                wanted = ("team.*", "catalog.read")
            everyone = (*principal.permissions, *permissions.EVERYONE)
            allowed &= all(permissions.covers(everyone, pattern) for pattern in wanted)
    assert done == allowed, (actor, target, role, how)


def _people(tx: Transaction, world: World) -> None:
    """Somebody of every rank, as they were at the beginning."""
    try:
        organizations.find_role(tx, world.acme, "lead")
    except NotFound:
        organizations.create_role(tx, world.acme, "lead", ["team.*", "catalog.read"], rank=70, now=NOW)
    for name in (*RANKS, "stranger"):
        found = accounts.find_credential(tx, f"x-{name}")
        user = found.user if found else accounts.create_user(tx, f"x-{name}", email=f"x-{name}@example.org", now=NOW)
        tx.execute(t.members.delete().where(t.members.c.org_id == world.acme, t.members.c.user_id == user.id))
        if name != "stranger":
            role = organizations.find_role(tx, world.acme, name)
            organizations.add_member(tx, world.acme, user.id, role.id, now=NOW)


def _roles(world: World) -> dict[str, str]:
    with world.house.store.read() as tx:
        return {member.name: member.role for member in organizations.list_members(tx, world.acme, limit=200).items}


def test_administration_needs_a_recent_login(world: World) -> None:
    workspace = world.as_("ada")
    world.clock.on(minutes=16)
    for attempt in (
        lambda: workspace.organizations.update(world.acme, name="x"),
        lambda: workspace.organizations.delete(world.acme),
        lambda: workspace.organizations.invite(world.acme, "x@example.org", "viewer"),
        lambda: workspace.organizations.admit(world.acme, "bob@example.org", "viewer"),
        lambda: workspace.organizations.assign(world.acme, "viewer", "analyst"),
        lambda: workspace.organizations.remove(world.acme, "viewer"),
        lambda: workspace.roles.create("r", ["catalog.read"]),
        lambda: workspace.roles.update("helper", rank=11),
        lambda: workspace.roles.delete("helper"),
        lambda: workspace.tokens.create("t", ["catalog.read"], world.clock() + dt.timedelta(days=1)),
    ):
        with pytest.raises(NotAuthenticated, match="not older than"):
            attempt()
    workspace.account.confirm(Secret(GOOD))
    with pytest.raises(NotAuthenticated):  # the proof is in the session: this request began without it
        workspace.organizations.update(world.acme, name="x")


def test_every_refusal_is_in_the_audit(world: World) -> None:
    viewer = world.as_("viewer").organizations
    with pytest.raises(DBLensError):
        viewer.assign(world.acme, "viewer", "admin")
    row = world.rows("organization.assign")[-1]
    assert (row.phase, row.outcome, row.actor, row.target) == ("denied", "permission.denied", "viewer", "viewer")
    assert row.detail["arguments"] == {"organization": world.acme, "role": "admin"}
    world.as_("root").organizations.assign(world.acme, "viewer", "analyst")
    some = msgspec.structs.replace(world.principal("developer"), permissions=("organization.assign",))
    with pytest.raises(PermissionDenied, match="above your own"):
        world.house.workspace(some).organizations.assign(world.acme, "viewer", "admin")
    rows = world.rows("organization.assign")
    assert (rows[-1].phase, rows[-1].outcome) == ("ended", "permission.denied")
