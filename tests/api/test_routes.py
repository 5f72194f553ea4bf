"""Every operation of the table over HTTP: 401 to nobody, 404 across organizations (attack 1), 403 by role, as the policy says.

Generated: an operation that comes is tested by being there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dblens.api import openapi
from dblens.api.app import _put
from dblens.store import organizations, runs, teams, tokens
from dblens.store.records import now
from dblens.workspace import registry, wire
from dblens.workspace.permissions import EVERYONE, SYSTEM_ROLES, covers
from dblens.workspace.registry import Operation
from tests.api.conftest import ROLES, World
from tests.api.samples import ROUTES, request

IDS = [about.name for about, _ in ROUTES]
OVERVIEW = Path(__file__).with_name("overview.txt")


def problem(answer: Any) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return dict(answer.json())


@pytest.mark.parametrize(("about", "route"), ROUTES, ids=IDS)
def test_nobody_is_told_401(client: TestClient, about: Operation, route: wire.Route) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}, {"Cookie": "token=x"}):
        answer = client.request(**request(about, route, {}), headers=headers)
        assert answer.status_code == 401, (about.name, answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert problem(answer)["code"] == "auth.required"


@pytest.mark.parametrize(("about", "route"), ROUTES, ids=IDS)
def test_another_organization_is_not_there(
    client: TestClient, world: World, about: Operation, route: wire.Route
) -> None:
    for name in ("beta", world.orgs["beta"], "unheard-of"):
        headers = world.headers("acme", "admin", **{"X-DBLens-Organization": name})
        answer = client.request(**request(about, route, {}), headers=headers)
        assert answer.status_code == 404, (about.name, answer.text)
        assert problem(answer)["detail"] == f"no organization {name!r}"


@pytest.fixture(scope="module")
def foreign(world: World) -> dict[str, str]:
    """Something of each noun that belongs to the other organization."""
    org, user = world.orgs["beta"], world.user("beta", "developer").id
    with world.house.store.write() as tx:
        role = organizations.create_role(tx, org, name="own", rank=10, permissions=["run.read"], now=now())
        found = {
            "team": teams.create_team(tx, org, name="crew", now=now()).id,
            "role": role.id,
            "run": runs.create_run(tx, org, "migration.plan", user_id=user, now=now()).id,
            "organization": org,
            "user": user,
        }
        made = tokens.create_access_token(
            tx, org, user, name="t", hash=b"h" * 32, scopes=["run.read"], expires_at=now().replace(year=2099), now=now()
        )
        found["token"] = made.id
    found["connection"] = world.connection("beta")
    return found


def test_every_noun_of_an_organization_has_something_foreign(foreign: dict[str, str]) -> None:
    """A noun that comes must be put in there, or said here why not."""
    instance = {"account", "audit", "catalog", "notification", "search", "settings"}
    without = {
        "migration",
        "query",
        "template",
    }  # their ids are no more than random ones to others; see tests/store/test_isolation.py
    assert {about.noun for about, _ in ROUTES} <= set(foreign) | instance | without


FOREIGN = [
    (about, route)
    for about, route in ROUTES
    if about.connections
    or (about.noun in ("team", "role", "run", "organization", "token") and about.noun in route.places)
]


@pytest.mark.parametrize(("about", "route"), FOREIGN, ids=[about.name for about, _ in FOREIGN])
def test_what_is_of_another_organization_is_not_there(
    client: TestClient, world: World, foreign: dict[str, str], about: Operation, route: wire.Route
) -> None:
    given = dict.fromkeys(about.connections, foreign["connection"])
    for p in about.parameters:
        if p.name in about.connections and wire.is_list(p.type):
            given[p.name] = [foreign["connection"]]  # type: ignore[assignment]
    if about.noun in foreign and about.noun in route.places:
        given[about.noun] = foreign[about.noun]
    for role in ("admin", "developer"):
        answer = client.request(**request(about, route, given), headers=world.headers("acme", role))
        allowed = {404} if role == "admin" or about.connections else {403, 404}
        assert answer.status_code in allowed, (about.name, role, answer.text)
        assert "beta" not in answer.text
        assert foreign["connection"] not in problem(answer)["detail"].replace(repr(foreign["connection"]), "")


def has(about: Operation, role: str) -> bool:
    return covers((*SYSTEM_ROLES[role].permissions, *EVERYONE), about.permission)


CASES = [(about, route, role) for about, route in ROUTES for role in (*ROLES, "super_admin")]


@pytest.mark.parametrize(
    ("about", "route", "role"),
    [case for case in CASES if not has(case[0], case[2])],
    ids=lambda value: getattr(value, "name", value if isinstance(value, str) else ""),
)
def test_a_role_without_the_permission_is_told_403(
    client: TestClient, world: World, about: Operation, route: wire.Route, role: str
) -> None:
    given: dict[str, Any] = {name: world.connection("acme") for name in about.connections}
    for p in about.parameters:
        if p.name in about.connections and wire.is_list(p.type):
            given[p.name] = [world.connection("acme")]
    given["organization"] = world.orgs["acme"]
    headers = world.root() if role == "super_admin" else world.headers("acme", role)
    answer = client.request(**request(about, route, given), headers=headers)
    # A connection that is not shared with them is not there at all.
    expected = {403, 404} if about.on == "connection" else {403}
    assert answer.status_code in expected, (about.name, role, answer.text)
    problem(answer)


@pytest.mark.parametrize(
    ("about", "route", "role"),
    [(a, r, role) for a, r, role in CASES if has(a, role) and not a.mutates and not a.long and a.on != "connection"],
    ids=lambda value: getattr(value, "name", value if isinstance(value, str) else ""),
)
def test_a_role_with_the_permission_is_let_in(
    client: TestClient, world: World, about: Operation, route: wire.Route, role: str
) -> None:
    headers = world.root() if role == "super_admin" else world.headers("acme", role)
    given = {"organization": world.orgs["acme"]}
    answer = client.request(**request(about, route, given), headers=headers)
    assert answer.status_code not in (401, 405, 500), (about.name, role, answer.text)
    if answer.status_code == 403:
        assert "is refused" not in answer.json()["detail"], answer.text  # by the operation itself, not at the gate
    documented = openapi.document()["paths"][route.path][route.method.lower()]["responses"]
    assert str(answer.status_code) in documented


def test_routes_do_not_meet() -> None:
    places = [(route.method, route.path) for _, route in ROUTES]
    assert len(places) == len(set(places))


def test_no_secret_travels_in_an_address() -> None:
    for about, route in ROUTES:
        for p in about.parameters:
            if route.places[p.name] == "query":
                assert "Secret" not in repr(p.type), (about.name, p.name)


def test_every_list_is_bounded() -> None:
    for about, _ in ROUTES:
        if "Page[" in repr(about.result):
            limit = next((p for p in about.parameters if p.name == "limit"), None)
            assert limit is not None, about.name
            assert 1 <= limit.default <= 200


def test_the_description_in_the_repository_is_that_of_the_operations() -> None:
    assert openapi.FILE.read_bytes() == openapi.written(), "run `python -m dblens.api.openapi`"


def test_every_route_is_written_down() -> None:
    """Method, path, operation, permission: read it when it changes."""
    assert OVERVIEW.read_text() == openapi.overview(), (
        "run `python -m dblens.api.openapi --overview > tests/api/overview.txt`"
    )


def test_every_operation_travels_or_is_local(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    told = {entry["operationId"]: entry for methods in paths.values() for entry in methods.values()}
    for about in registry.load():
        assert (about.name in told) != about.local, about.name
        if not about.local:
            assert told[about.name]["x-permission"] == about.permission


def test_the_description_is_open_api_3_1() -> None:
    whole = openapi.document()
    assert whole["openapi"].startswith("3.1")
    names = set(whole["components"]["schemas"])
    text = openapi.text().decode()
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in names
    for path, methods in whole["paths"].items():
        for entry in methods.values():
            declared = {p["name"] for p in entry.get("parameters", ()) if p.get("in") == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_operations_that_would_share_an_address_are_refused() -> None:
    places: dict[str, Any] = {}
    _put(places, "/x", "GET", None)  # type: ignore[arg-type]
    _put(places, "/x", "POST", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="GET /x is there twice"):
        _put(places, "/x", "GET", None)  # type: ignore[arg-type]
