"""Which connection an argument names, read from the store for each question."""

from __future__ import annotations

from typing import Any

import pytest

from dblens.errors import InvalidInput, NotFound
from dblens.store import connections, organizations
from dblens.store.database import Store
from dblens.store.records import new_id, now
from dblens.store.tables import users
from dblens.workspace.access import StoreAccess
from dblens.workspace.principal import Principal, local


def user(tx: Any, name: str) -> str:
    made = new_id()
    tx.execute(users.insert().values(id=made, name=name, folded=name, display=name, created_at=now()))
    return made


def somebody(user_id: str, org_id: str | None, **more: Any) -> Principal:
    return Principal(**{"kind": "account", "user_id": user_id, "name": "x", "org_id": org_id, **more})


def test_grants_count_at_once_and_others_organizations_are_not_there(store: Store) -> None:
    with store.write() as tx:
        roles = {role.name: role for role in organizations.ensure_roles(tx, [("developer", 60, ["x.y"])], now=now())}
        ann, bob = user(tx, "ann"), user(tx, "bob")
        acme, beta = (organizations.create_organization(tx, name, now=now()) for name in ("acme", "beta"))
        for org in (acme, beta):
            organizations.add_member(tx, org.id, ann, roles["developer"].id, now=now())
        organizations.add_member(tx, acme.id, bob, roles["developer"].id, now=now())
        shop = connections.create_connection(
            tx, acme.id, name="shop", engine="sqlite", fields={}, owner_id=ann, now=now()
        )
        twin = connections.create_connection(
            tx, acme.id, name=shop.id, engine="sqlite", fields={}, owner_id=bob, now=now()
        )
    access = StoreAccess(store)
    for reference in ("shop", shop.id):
        held = access.connection(somebody(ann, acme.id), reference)
        assert (held.id, held.org_id, held.grant) == (shop.id, acme.id, "owner")
        assert access.connection(somebody(bob, acme.id), reference).grant == "none"
        for elsewhere in (beta.id, None):
            with pytest.raises(NotFound, match="no connection"):
                access.connection(somebody(ann, elsewhere), reference)
    assert access.connection(somebody(bob, acme.id), shop.id).id != twin.id, (
        "an id goes before a name that looks like it"
    )
    with pytest.raises(NotFound, match="no connection"):
        access.connection(somebody(ann, acme.id), "missing")
    with store.write() as tx:
        connections.grant(tx, acme.id, shop.id, kind="user", grantee_id=bob, level="use", now=now())
    assert access.connection(somebody(bob, acme.id), "shop").grant == "use"
    with store.write() as tx:
        connections.revoke(tx, acme.id, shop.id, kind="user", grantee_id=bob)
    assert access.connection(somebody(bob, acme.id), "shop").grant == "none"


def test_a_raw_address_is_for_ones_own_machine(store: Store) -> None:
    access = StoreAccess(store)
    for address in ("postgresql://h/d", "sqlite:x.db", "mongodb+srv://h/d", 7):
        with pytest.raises(InvalidInput, match="single-user mode"):
            access.connection(somebody("u", "o"), address)
        assert access.connection(local("ann", "u", "o"), address).id is None
