"""Organizations, roles, members, teams, invitations: what holds whatever the caller does."""

from __future__ import annotations

import hashlib
import threading

import pytest
import sqlalchemy as sa

from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound
from dblens.store import connections, invitations, organizations, teams
from dblens.store import tables as t
from dblens.store.database import Store
from tests.store.world import AT, ROLES, World, add_user, after, make_world


def test_short_names(store: Store) -> None:
    with store.write() as tx:
        made = organizations.create_organization(tx, "Data & Co, Zürich", now=AT)
        assert made.slug == "data-co-z-rich"
        assert organizations.find_organization(tx, made.slug) == made
        assert organizations.create_organization(tx, "数据", now=AT).slug.startswith("org-")
        with pytest.raises(Conflict, match="'data-co-z-rich' is taken"):
            organizations.create_organization(tx, "data co z-rich", now=AT)
        assert organizations.rename_organization(tx, made.id, name="New", slug="new").slug == "new"
        assert (
            organizations.get_organization(tx, made.id).name == "New"
        )  # the Conflict before did not end the transaction
        for bad in ("", "A", "a b", "-a", "a-", "x" * 64, "deleted-1", "a\n"):
            with pytest.raises(InvalidInput, match="slug is"):
                organizations.rename_organization(tx, made.id, slug=bad)
        for bad in ("", " ", "x" * 256, "a\0b", "\ud800"):
            with pytest.raises(InvalidInput, match="name"):
                organizations.create_organization(tx, bad, now=AT)


def test_system_roles_are_written_as_the_code_knows_them(store: Store) -> None:
    with store.write() as tx:
        first = organizations.ensure_roles(tx, ROLES, now=AT)
        again = organizations.ensure_roles(tx, [("admin", 95, ["a.b"]), ROLES[1]], now=after(5))
        assert [r.id for r in first] == [r.id for r in again]
        assert (again[0].rank, again[0].permissions, again[0].created_at) == (95, ("a.b",), AT)
        org = organizations.create_organization(tx, "o", now=AT).id
        assert {r.name for r in organizations.list_roles(tx, org).items} == {"admin", "viewer"}
        with pytest.raises(Conflict, match="'admin' is a system role"):
            organizations.create_role(tx, org, "admin", [], rank=1, now=AT)
        with pytest.raises(NotFound):  # a system role is not the organization's to change
            organizations.update_role(tx, org, first[0].id, permissions=["*"])
        with pytest.raises(NotFound):
            organizations.delete_role(tx, org, first[1].id)


def test_own_roles(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        changed = organizations.update_role(tx, w.org, w.role, name="mine", permissions=["x.y"], rank=30)
        assert (changed.name, changed.permissions, changed.rank) == ("mine", ("x.y",), 30)
        organizations.set_member_role(tx, w.org, w.user, w.role, must_remain=[w.admin])
        with pytest.raises(Conflict, match="a member has this role"):
            organizations.delete_role(tx, w.org, w.role)
        organizations.set_member_role(tx, w.org, w.user, w.viewer, must_remain=[w.admin])
        organizations.delete_role(tx, w.org, w.role)
        for rank in (-1, 1001, 1.5, True, "9"):
            with pytest.raises(InvalidInput, match="rank is"):
                organizations.create_role(tx, w.org, "r", [], rank=rank, now=AT)  # type: ignore[arg-type]


def test_a_role_of_an_invitation_stays(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        invitations.create_invitation(
            tx, w.org, email="a@b", role_id=w.role, hash=b"h" * 32, created_by=None, expires_at=after(9), now=AT
        )
        with pytest.raises(Conflict, match="an invitation is for this role"):
            organizations.delete_role(tx, w.org, w.role)


def test_the_last_administrator_stays(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        assert [o.id for o in organizations.sole_holder_of(tx, w.boss, [w.admin])] == [w.org]
        assert organizations.sole_holder_of(tx, w.user, [w.admin]) == ()
        with pytest.raises(Conflict, match="nobody else could administer"):
            organizations.remove_member(tx, w.org, w.boss, must_remain=[w.admin])
        with pytest.raises(Conflict, match="nobody else could administer"):
            organizations.set_member_role(tx, w.org, w.boss, w.viewer, must_remain=[w.admin])
        asleep = add_user(tx, "asleep", active=False)
        organizations.add_member(tx, w.org, asleep, w.admin, now=AT)
        with pytest.raises(Conflict):  # one that cannot log in does not count
            organizations.remove_member(tx, w.org, w.boss, must_remain=[w.admin])
        organizations.set_member_role(tx, w.org, w.user, w.admin, must_remain=[w.admin])
        assert organizations.sole_holder_of(tx, w.boss, [w.admin]) == ()
        organizations.remove_member(tx, w.org, w.boss, must_remain=[w.admin])
        with pytest.raises(Conflict):
            organizations.remove_member(tx, w.org, w.user, must_remain=[w.admin])


def test_two_administrators_who_remove_each_other_at_once(store: Store) -> None:
    for turn in range(5):
        with store.write() as tx:
            w = make_world(tx, f"a{turn}")
            organizations.set_member_role(tx, w.org, w.user, w.admin, must_remain=[w.admin])
        assert _both_at_once(store, w) == [Conflict]
        with store.read() as tx:
            assert len(organizations.list_members(tx, w.org).items) == 1


def _both_at_once(store: Store, w: World) -> list[type[DBLensError]]:
    gate = threading.Barrier(2)
    failed: list[type[DBLensError]] = []

    def remove(who: str) -> None:
        gate.wait()
        try:
            with store.write() as tx:
                organizations.remove_member(tx, w.org, who, must_remain=[w.admin])
        except DBLensError as error:
            failed.append(type(error))

    both = [threading.Thread(target=remove, args=(who,)) for who in (w.boss, w.user)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    return failed


def test_who_leaves_keeps_nothing(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        organizations.set_current(tx, w.user, w.org)
        organizations.remove_member(tx, w.org, w.user, must_remain=[w.admin])
        assert teams.list_team_members(tx, w.org, w.team).items == ()
        grants = connections.list_grants(tx, w.org, w.connection).items
        assert [g.grantee_kind for g in grants] == ["team"]
        assert organizations.get_current(tx, w.user) is None
        with pytest.raises(NotFound):
            organizations.role_of(tx, w.org, w.user)
        organizations.add_member(tx, w.org, w.user, w.viewer, now=AT)  # coming back brings nothing back
        assert connections.get_shared(tx, w.org, w.connection, w.user).level is None


def test_roles_are_read_as_they_are_now(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        assert organizations.role_of(tx, w.org, w.user).name == "viewer"
        organizations.set_member_role(tx, w.org, w.user, w.role, must_remain=[w.admin])
        assert organizations.role_of(tx, w.org, w.user).permissions == ("run.read",)
        organizations.update_role(tx, w.org, w.role, permissions=[])
        assert organizations.role_of(tx, w.org, w.user).permissions == ()
        for column in ("active", "approved"):
            tx.execute(t.users.update().where(t.users.c.id == w.user).values({column: False}))
            with pytest.raises(NotFound):
                organizations.role_of(tx, w.org, w.user)
            tx.execute(t.users.update().where(t.users.c.id == w.user).values({column: True}))
        assert organizations.role_of(tx, w.org, w.user).name == "own"


def test_several_organizations_and_a_current_one(store: Store) -> None:
    with store.write() as tx:
        a, b = make_world(tx, "a"), make_world(tx, "b")
        assert organizations.get_current(tx, a.user).id == a.org  # type: ignore[union-attr]
        with pytest.raises(NotFound):
            organizations.set_current(tx, a.user, b.org)
        organizations.add_member(tx, b.org, a.user, b.viewer, now=AT)
        assert organizations.get_current(tx, a.user).id == a.org  # type: ignore[union-attr]
        organizations.set_current(tx, a.user, b.org)
        assert organizations.get_current(tx, a.user).id == b.org  # type: ignore[union-attr]
        found = organizations.list_memberships(tx, a.user)
        assert [(m.organization.slug, m.role.name) for m in found.items] == [("a", "viewer"), ("b", "viewer")]
        first = organizations.list_memberships(tx, a.user, limit=1)
        assert first.after == a.org
        assert [m.organization.id for m in organizations.list_memberships(tx, a.user, after=first.after).items] == [
            b.org
        ]
        with pytest.raises(Conflict, match="already a member"):
            organizations.add_member(tx, b.org, a.user, b.admin, now=AT)
        with pytest.raises(NotFound, match="no user"):
            organizations.add_member(tx, b.org, "0" * 32, b.admin, now=AT)


def test_searching_members(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        odd = add_user(tx, "100%_sure\\")
        organizations.add_member(tx, w.org, odd, w.viewer, now=AT)
        for text, expected in (
            ("BOSS", [w.boss]),
            ("%", [odd]),
            ("_", [odd]),
            ("\\", [odd]),
            ("zz", []),
            ("a-", [w.boss, w.user]),
        ):
            found = organizations.list_members(tx, w.org, search=text).items
            assert sorted(m.user_id for m in found) == sorted(expected), text


def test_teams(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        stranger = add_user(tx, "stranger")
        with pytest.raises(NotFound, match="no member"):
            teams.add_to_team(tx, w.org, w.team, stranger)
        teams.add_to_team(tx, w.org, w.team, w.user)  # twice is once
        assert [m.user_id for m in teams.list_team_members(tx, w.org, w.team).items] == [w.user]
        with pytest.raises(Conflict, match="already a team 'crew'"):
            teams.create_team(tx, w.org, "crew", now=AT)
        other = teams.create_team(tx, w.org, "other", now=AT)
        with pytest.raises(Conflict):
            teams.rename_team(tx, w.org, other.id, "crew")
        assert [x.id for x in teams.list_teams(tx, w.org, user_id=w.user).items] == [w.team]
        assert len(teams.list_teams(tx, w.org).items) == 2
        teams.delete_team(tx, w.org, w.team)
        assert [g.grantee_kind for g in connections.list_grants(tx, w.org, w.connection).items] == ["user"]
        with pytest.raises(NotFound):
            teams.remove_from_team(tx, w.org, other.id, w.user)


def test_an_invitation_is_good_once_and_for_a_while(store: Store) -> None:
    secret = hashlib.sha256(b"a").digest()
    with store.write() as tx:
        w = make_world(tx, "a")
        new = add_user(tx, "new")
        assert [i.id for i in invitations.list_invitations(tx, w.org, open_at=AT).items] == [w.invitation]
        assert invitations.list_invitations(tx, w.org, open_at=after(3600)).items == ()
        with pytest.raises(NotFound, match="used, revoked or expired"):
            invitations.accept_invitation(tx, secret, new, now=after(3600))
        with pytest.raises(NotFound):
            invitations.accept_invitation(tx, b"?" * 32, new, now=AT)
        assert invitations.accept_invitation(tx, secret, new, now=after(3599)).role == "viewer"
        with pytest.raises(NotFound):
            invitations.accept_invitation(tx, secret, add_user(tx, "second"), now=AT)
        with pytest.raises(NotFound, match="no open invitation"):
            invitations.revoke_invitation(tx, w.org, w.invitation)
        assert "hash" not in repr(invitations.get_invitation(tx, w.org, w.invitation))


def test_two_who_accept_the_same_invitation_at_once(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        users = [add_user(tx, f"u{n}") for n in range(4)]
    gate, done, failed = threading.Barrier(4), [], []

    def accept(user: str) -> None:
        gate.wait()
        try:
            with store.write() as tx:
                done.append(invitations.accept_invitation(tx, hashlib.sha256(b"a").digest(), user, now=AT))
        except NotFound as error:
            failed.append(error)

    several = [threading.Thread(target=accept, args=(user,)) for user in users]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert (len(done), len(failed)) == (1, 3)
    with store.read() as tx:
        assert (
            tx.execute(sa.select(sa.func.count()).select_from(t.members).where(t.members.c.org_id == w.org)).scalar()
            == 3
        )
