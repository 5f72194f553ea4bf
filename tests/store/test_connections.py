"""Connections: names, versions, grants by user and team, owners."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.store import connections, organizations, teams
from dblens.store import tables as t
from dblens.store.database import Store
from tests.store.world import AT, add_user, after, make_world


def test_a_change_is_of_the_version_that_was_read(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        changed = connections.update_connection(
            tx, w.org, w.connection, version=1, fields={"host": "é", "n": 2**60}, environment="production", now=after(1)
        )
        assert (changed.version, changed.fields, changed.updated_at) == (2, {"host": "é", "n": 2**60}, after(1))
        with pytest.raises(Conflict, match="version 2, not 1"):
            connections.update_connection(tx, w.org, w.connection, version=1, colour="red", now=AT)
        assert connections.get_connection(tx, w.org, w.connection) == changed
        for bad in ({"owner_id": w.user}, {"id": "x"}, {"engine": "mysql"}, {"created_at": AT}):
            with pytest.raises(InvalidInput, match=f"'{next(iter(bad))}' cannot be changed"):
                connections.update_connection(tx, w.org, w.connection, version=2, now=AT, **bad)
        for name, value in (
            ("environment", "prod"),
            ("name", ""),
            ("name", "x" * 101),
            ("fields", {"x": float("nan")}),
        ):
            with pytest.raises(InvalidInput, match=name):
                connections.update_connection(tx, w.org, w.connection, version=2, now=AT, **{name: value})
        assert connections.get_connection(tx, w.org, w.connection) == changed


def test_two_changes_at_once(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
    gate, failed = threading.Barrier(4), []

    def change(colour: str) -> None:
        gate.wait()
        try:
            with store.write() as tx:
                connections.update_connection(tx, w.org, w.connection, version=1, colour=colour, now=AT)
        except Conflict as error:
            failed.append(error)

    several = [threading.Thread(target=change, args=(f"c{n}",)) for n in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert len(failed) == 3
    with store.read() as tx:
        assert connections.get_connection(tx, w.org, w.connection).version == 2


def test_names(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        other = make_world(tx, "b")
        with pytest.raises(Conflict, match="already a connection 'shop'"):
            connections.duplicate_connection(tx, w.org, w.connection, name="shop", owner_id=w.user, now=AT)
        copy = connections.duplicate_connection(tx, w.org, w.connection, name="shop 2", owner_id=w.user, now=AT)
        assert (copy.fields, copy.owner_id, copy.version) == ({"host": "h"}, w.user, 1)
        assert connections.list_grants(tx, w.org, copy.id).items == ()
        with pytest.raises(Conflict):
            connections.update_connection(tx, w.org, copy.id, version=1, name="shop", now=AT)
        assert connections.find_connection(tx, other.org, "shop").id == other.connection
        with pytest.raises(NotFound):  # the owner must be a member
            connections.duplicate_connection(tx, w.org, w.connection, name="x", owner_id=other.user, now=AT)


def test_filters(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        for n, engine in enumerate(("mysql", "sqlite", "mysql")):
            connections.create_connection(
                tx, w.org, name=f"db_{n}", engine=engine, fields={}, environment="staging", owner_id=w.user, now=AT
            )

        def names(**more: Any) -> list[str]:
            return [c.name for c in connections.list_connections(tx, w.org, **more).items]

        assert names() == ["shop", "db_0", "db_1", "db_2"]
        assert names(engine="mysql") == ["db_0", "db_2"]
        assert names(environment="dev") == ["shop"]
        assert names(search="DB_") == ["db_0", "db_1", "db_2"]
        assert names(search="b%") == []
        assert names(owner_id=w.boss) == ["shop"]


def test_the_highest_grant_wins(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")

        def level(user: str) -> tuple[Any, Any]:
            shared = connections.get_shared(tx, w.org, w.connection, user)
            listed = {s.connection.id: s for s in connections.list_shared(tx, w.org, user).items}
            assert (w.connection in listed) == (shared.level is not None)
            assert listed.get(w.connection, shared) == shared
            return shared.level, shared.via

        assert level(w.boss) == ("manage", "owner")
        assert level(w.user) == ("use", w.team)
        connections.grant(tx, w.org, w.connection, kind="user", grantee_id=w.user, level="manage", now=AT)
        assert level(w.user) == ("manage", "user")
        connections.revoke(tx, w.org, w.connection, kind="user", grantee_id=w.user)
        assert level(w.user) == ("use", w.team)
        teams.remove_from_team(tx, w.org, w.team, w.user)
        assert level(w.user) == (None, None)
        everything = connections.list_shared(tx, w.org, w.user, everything=True).items
        assert [(s.connection.id, s.level) for s in everything] == [(w.connection, None)]


def test_grants_are_for_members_and_teams_of_the_organization(store: Store) -> None:
    with store.write() as tx:
        w, other = make_world(tx, "a"), make_world(tx, "b")
        for kind, who in (("user", other.user), ("team", other.team), ("user", w.team), ("team", w.user)):
            with pytest.raises(NotFound):
                connections.grant(tx, w.org, w.connection, kind=kind, grantee_id=who, level="use", now=AT)
        for kind, level in (("role", "use"), ("user", "own"), ("user", "")):
            with pytest.raises(InvalidInput):
                connections.grant(tx, w.org, w.connection, kind=kind, grantee_id=w.user, level=level, now=AT)
        with pytest.raises(NotFound):
            connections.revoke(tx, w.org, w.connection, kind="user", grantee_id=w.boss)
        # A grant that lies there of another organization (it cannot, but if it did) opens nothing.
        tx.execute(
            t.connection_grants.insert().values(
                connection_id=w.connection, grantee_kind="user", grantee_id=other.user, org_id=other.org, level="manage",
                created_at=AT,
            )
        )  # fmt: skip
        assert connections.list_shared(tx, other.org, other.user).items[0].connection.id == other.connection
        assert len(connections.list_shared(tx, other.org, other.user).items) == 1
        assert connections.get_shared(tx, w.org, w.connection, other.user).level is None


def test_a_connection_goes_with_its_grants_and_secrets(store: Store) -> None:
    with store.write() as tx:
        w, other = make_world(tx, "a"), make_world(tx, "b")
        for org, record in ((w.org, w.connection), (w.org, "another"), (other.org, w.connection)):
            tx.execute(
                t.secrets.insert().values(
                    org_id=org, record_id=record, field="password", kind="reference", value=b"env:X", updated_at=AT
                )
            )
        connections.delete_connection(tx, w.org, w.connection)
        left = tx.execute(sa.select(t.secrets.c.org_id, t.secrets.c.record_id)).all()
        assert sorted(left) == sorted([(w.org, "another"), (other.org, w.connection)])
        grants = tx.execute(sa.select(t.connection_grants.c.org_id).distinct()).scalars().all()
        assert grants == [other.org]


def test_connections_get_another_owner(store: Store) -> None:
    with store.write() as tx:
        w, other = make_world(tx, "a"), make_world(tx, "b")
        second = connections.create_connection(
            tx, w.org, name="second", engine="mysql", fields={}, owner_id=w.boss, now=AT
        )
        with pytest.raises(NotFound):
            connections.transfer(tx, w.org, w.boss, to=other.user, now=AT)
        with pytest.raises(NotFound):
            connections.transfer(tx, w.org, w.user, to=w.boss, connection_id=second.id, now=AT)
        assert connections.transfer(tx, w.org, w.boss, to=w.user, connection_id=second.id, now=AT) == 1
        moved = connections.get_connection(tx, w.org, second.id)
        assert (moved.owner_id, moved.version) == (w.user, 2)
        assert connections.transfer(tx, w.org, w.boss, to=w.user, now=AT) == 1
        assert connections.transfer(tx, w.org, w.boss, to=w.user, now=AT) == 0
        # Who is deleted leaves a connection without owner rather than no connection.
        heir = add_user(tx, "heir")
        organizations.add_member(tx, w.org, heir, w.viewer, now=AT)
        connections.transfer(tx, w.org, w.user, to=heir, connection_id=second.id, now=AT)
        tx.execute(t.users.delete().where(t.users.c.id == heir))
        assert connections.get_connection(tx, w.org, second.id).owner_id is None
