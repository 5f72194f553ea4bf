"""The search: typed hits in a fixed order, and nothing that the caller could not list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.errors import InvalidInput, PermissionDenied
from dblens.store import connections, organizations, plans, teams
from dblens.store.database import Store
from tests.store.conftest import store
from tests.workspace.rooms import NOW, Rooms, move_in

__all__ = ["store"]


@pytest.fixture
def rooms(store: Store, tmp_path: Path) -> Iterator[Rooms]:
    made = move_in(store, tmp_path)
    yield made
    made.house.close()


def template(rooms: Rooms, org: str, name: str) -> str:
    org_id = rooms.org(org)
    with rooms.house.store.write() as tx:
        return plans.create_template(tx, org_id, name=name, kind="migration", body={}, created_by=None, now=NOW).id


def found(doors: Any, text: str, **more: Any) -> list[tuple[str, str]]:
    return [(hit.kind, hit.name) for hit in doors.search.find(text, **more)]


def test_a_prefix_comes_before_a_word_and_a_word_before_the_rest(rooms: Rooms) -> None:
    for name in ("my-shop", "bishopric", "SHOPfront", "other"):
        template(rooms, "acme", name)
    doors = rooms.doors("acme", "developer")
    assert found(doors, "shop") == [("template", "SHOPfront"), ("template", "my-shop"), ("template", "bishopric")]
    scores = [hit.score for hit in doors.search.find("shop")]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    assert found(doors, "ShOp", limit=1) == [("template", "SHOPfront")]


def test_a_hit_in_the_name_comes_before_one_elsewhere(rooms: Rooms) -> None:
    me = rooms.person("acme", "developer")
    rooms.connection("acme", "alpha", me.user_id, host="shop.example.org", database="x")
    rooms.connection("acme", "the bishop", me.user_id, host="h", database="x")
    assert found(rooms.doors("acme", "developer"), "shop") == [("connection", "the bishop"), ("connection", "alpha")]


@pytest.mark.parametrize("text", ["%", "_", "a_b", "\\", "'", '"; DROP TABLE users; --'])
def test_no_character_is_special(rooms: Rooms, text: str) -> None:
    template(rooms, "acme", f"x {text} y")
    template(rooms, "acme", "axb")
    assert found(rooms.doors("acme", "developer"), text) == [("template", f"x {text} y")]


def test_case_is_folded_in_every_script(rooms: Rooms) -> None:
    template(rooms, "acme", "Übersicht")
    template(rooms, "acme", "ЗАКАЗЫ")
    doors = rooms.doors("acme", "developer")
    assert found(doors, "übers") == [("template", "Übersicht")]
    assert found(doors, "заказы") == [("template", "ЗАКАЗЫ")]


def everything(rooms: Rooms, org: str) -> None:
    """Make one of each noun with `quux` in its name; the connection belongs to the admin."""
    admin = rooms.person(org, "admin")
    there = rooms.connection(org, f"quux-{org}", admin.user_id, host="quux", database="d")
    template(rooms, org, f"quux-{org}-template")
    rooms.person(org, "viewer", f"quux-{org}-member")
    rooms.run(org, admin, "succeeded", there, operation="quux.run")
    with rooms.house.store.write() as tx:
        teams.create_team(tx, rooms.org(org), f"quux-{org}-team", now=NOW)
        organizations.create_role(tx, rooms.org(org), f"quux-{org}-role", [], rank=5, now=NOW)
        plans.save_plan(
            tx, rooms.org(org), f"plan-{org}", hash="h" * 64, document=b"{}", source_id=there, target_id=there,
            created_by=None, now=NOW,
        )  # fmt: skip


ROLES = ("super_admin", "admin", "developer", "analyst", "auditor", "viewer")


@pytest.mark.parametrize("role", ROLES)
def test_nothing_of_another_organization_is_found(rooms: Rooms, role: str) -> None:
    everything(rooms, "acme")
    everything(rooms, "beta")
    hits = rooms.doors("acme", role).search.find("quux", limit=200)
    assert hits
    assert not [hit for hit in hits if "beta" in f"{hit.name} {hit.detail} {hit.id}"]
    assert not rooms.doors("gamma", role).search.find("quux", limit=200)


@pytest.mark.parametrize("role", ROLES)
def test_a_kind_is_found_by_those_who_may_list_it(rooms: Rooms, role: str) -> None:
    everything(rooms, "acme")
    kinds = {hit.kind for hit in rooms.doors("acme", role).search.find("quux", limit=200)}
    expected = {
        "super_admin": {"team", "member", "role"},
        "admin": {"connection", "run", "template", "plan", "team", "member", "role"},
        "developer": {"template", "team", "member", "role"},
        "analyst": {"template", "team", "member"},
        "auditor": {"team", "member", "role"},
        "viewer": {"template", "team"},
    }
    assert kinds == expected[role]


def test_a_connection_is_found_when_it_is_shared(rooms: Rooms) -> None:
    everything(rooms, "acme")
    me = rooms.person("acme", "developer")
    doors = rooms.doors("acme", "developer")
    with rooms.house.store.read() as tx:
        there = connections.find_connection(tx, rooms.org("acme"), "quux-acme").id
    before = {hit.kind for hit in doors.search.find("quux")}
    assert not before & {"connection", "run", "plan"}
    with rooms.house.store.write() as tx:
        connections.grant(tx, rooms.org("acme"), there, kind="user", grantee_id=me.user_id, level="view", now=NOW)
    assert {hit.kind for hit in doors.search.find("quux")} >= {"connection", "run", "plan"}
    limited = rooms.doors("acme", "developer", connections=())
    assert not {hit.kind for hit in limited.search.find("quux")} & {"connection", "run", "plan"}


def test_a_token_finds_what_it_is_scoped_for(rooms: Rooms) -> None:
    everything(rooms, "acme")
    doors = rooms.doors("acme", "admin", kind="token", scopes=("search.find", "team.list"))
    assert {hit.kind for hit in doors.search.find("quux")} == {"team"}
    with pytest.raises(PermissionDenied):
        rooms.doors("acme", "admin", kind="token", scopes=("team.list",)).search.find("quux")


def test_settings_and_actions_are_for_who_may_read_them(rooms: Rooms) -> None:
    assert ("setting", "webhooks") in found(rooms.doors("acme", "admin"), "webh")
    assert ("setting", "smtp") not in found(rooms.doors("acme", "admin"), "smtp")
    assert ("setting", "smtp") in found(rooms.doors("acme", "super_admin"), "smtp")
    assert ("action", "search.find") in found(rooms.doors("acme", "auditor"), "search")
    assert not found(rooms.doors("acme", "developer"), "search.find")


def test_what_is_asked_for_wrongly_is_named(rooms: Rooms) -> None:
    search = rooms.doors("acme", "admin").search
    for wrong in ("", "   ", "x" * 201, "a\0b"):
        with pytest.raises(InvalidInput, match="text"):
            search.find(wrong)
    with pytest.raises(InvalidInput, match="kinds holds 'password'"):
        search.find("x", kinds=["password"])  # type: ignore[list-item]
    for limit in (0, 201, True):
        with pytest.raises(InvalidInput, match="limit"):
            search.find("x", limit=limit)
