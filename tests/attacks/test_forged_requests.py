"""Requests that claim to be somebody: bearers of another kind, headers of proxies, cookies, pages of other sites, hijacked streams."""

from __future__ import annotations

import datetime as dt
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from dblens.accounts import login
from dblens.api.app import create_app
from dblens.api.limits import Rates
from dblens.store import accounts, runs, teams, tokens
from dblens.store.records import now
from dblens.workspace import entrance
from dblens.workspace.house import House
from tests.api.conftest import HERE, World, serving, team_settings
from tests.attacks.served import Served

ME = "/api/v1/account"
NOBODY = {401}


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


# --------------------------------------------------------------------------------------------- 5: a token that is for something else


def test_a_token_of_another_system_opens_nothing(client: TestClient, world: World) -> None:
    """Of a hub, of another service, of another purpose here: nothing but an access token of this service is believed."""
    user = world.user("acme", "developer")
    at = entrance.accounts_of(world.house)
    with world.house.store.read() as tx:
        user = accounts.get_user(tx, user.id)
    made = login.open_session(at, user, HERE, kind="api").tokens
    moment = now()
    claims = {
        "iss": at.keys.issuer, "aud": at.keys.audience, "sub": user.id, "sid": "0" * 32, "jti": "x",
        "iat": int(moment.timestamp()), "exp": int(moment.timestamp()) + 600,
    }  # fmt: skip
    theirs = Ed25519PrivateKey.generate()
    elsewhere = {
        "a hub's token": hashlib.sha256(b"hub").hexdigest(),
        "another service's JWT under our key's name": jwt.encode(
            claims, theirs, algorithm="EdDSA", headers={"kid": at.keys.kid, "typ": "at+jwt"}
        ),
        "our refresh token": made.refresh,
        "the name": user.name,
        "the id": user.id,
        "the session": jwt.decode(made.access, options={"verify_signature": False})["sid"],
    }
    with world.house.store.write() as tx:
        tokens.add_reset_token(
            tx,
            user.id,
            hashlib.sha256(b"reset").digest(),
            purpose="password",
            expires_at=moment + dt.timedelta(hours=1),
        )
    elsewhere["a reset token"] = "reset"
    assert client.get(ME, headers=bearer(made.access)).status_code == 200
    for what, text in elsewhere.items():
        answer = client.get(ME, headers=bearer(text))
        assert answer.status_code == 401, what
        assert text not in answer.text, f"{what} is repeated"


def test_a_bearer_is_only_believed_in_its_header(client: TestClient, world: World) -> None:
    token = world.token("acme", "developer")
    assert client.get(ME, headers=bearer(token)).status_code == 200
    for url in (f"{ME}?token={token}", f"{ME}?access_token={token}", f"{ME}?authorization=Bearer%20{token}"):
        assert client.get(url).status_code == 401
    for headers in (
        {"X-Access-Token": token},
        {"Authorization": f"token {token}"},
        {"Authorization": f"Basic {token}"},
    ):
        assert client.get(ME, headers=headers).status_code == 401


def test_a_token_scoped_for_less_does_less(client: TestClient, world: World) -> None:
    headers = world.headers("acme", "admin")
    until = (now() + dt.timedelta(days=1)).isoformat()
    made = client.post(
        "/api/v1/tokens", headers=headers, json={"name": "ci", "scopes": ["team.list"], "expires_at": until}
    )
    assert made.status_code == 201, made.text
    token = made.json()["secret"]
    assert client.get("/api/v1/teams", headers=bearer(token)).status_code == 200
    assert client.get("/api/v1/runs", headers=bearer(token)).status_code == 403
    assert client.post("/api/v1/teams", headers=bearer(token), json={"name": "more"}).status_code == 403
    for more in ({"X-DBLens-Organization": "beta"}, {"X-DBLens-As": "super_admin"}):
        assert client.get("/api/v1/teams", headers={**bearer(token), **more}).status_code in (403, 404)


# ------------------------------------------------------------------------------------------------- 6: headers that anybody may send


IDENTITY = (
    "X-Forwarded-User", "X-Remote-User", "Remote-User", "X-Auth-Request-User", "X-Auth-Request-Email", "X-User",
    "X-JupyterHub-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "Tailscale-User-Login", "Cf-Access-Authenticated-User-Email",
)  # fmt: skip


def test_no_header_says_who_somebody_is(client: TestClient, world: World) -> None:
    for name in IDENTITY:
        assert client.get(ME, headers={name: "admin-acme"}).status_code == 401, name
        told = client.get(ME, headers={**world.headers("acme", "viewer"), name: "admin-acme"}).json()
        assert "viewer-acme" in str(told), name
        assert "admin-acme" not in str(told), name


@pytest.fixture
def strict(house: House) -> Any:
    """The same service with a low limit for who has no login."""
    return create_app(house, rates=Rates(stranger="10/minute"))


def test_a_hundred_forged_addresses_are_one_address(strict: Any, world: World) -> None:
    with serving(strict) as url:
        statuses = [
            httpx.get(
                url + ME,
                headers={
                    "X-Forwarded-For": f"203.0.113.{n}",
                    "Forwarded": f"for=203.0.113.{n}",
                    "X-Real-IP": f"203.0.113.{n}",
                },
            ).status_code
            for n in range(100)
        ]
    assert set(statuses[:10]) == NOBODY
    assert set(statuses[11:]) == {429}


def test_dblens_serve_believes_no_proxy_that_it_does_not_know(tmp_path: Path) -> None:
    """The process as it is started: what the audit writes down is the address that was seen, unless the proxy is trusted."""
    for trusted, expected in (("", "127.0.0.1"), ("127.0.0.1", "203.0.113.7"), ("10.0.0.1", "127.0.0.1")):
        folder = tmp_path / (trusted or "nobody")
        folder.mkdir(mode=0o700)
        with Served(folder, mode="team", DBLENS_TRUSTED_PROXIES=trusted) as service:
            answer = httpx.post(
                f"{service.url}/api/v1/auth/login",
                json={"name": "nobody", "password": "wrong-password-here"},
                headers={"X-Forwarded-For": "203.0.113.7"},
            )
            assert answer.status_code == 401
        with service.house() as house:
            from dblens.store.audit_find import Filter, every

            seen = {row.address for row in every(house.store, None, Filter()) if row.action == "account.log_in"}
        assert seen == {expected}, trusted


# -------------------------------------------------------------------------------------------------------- 7: pages of other sites


def test_no_cookie_is_set_or_believed(client: TestClient, world: World) -> None:
    token = world.token("acme", "admin")
    for name in ("access", "token", "session", "Authorization", "dblens", "jupyterhub-services"):
        answer = client.get(ME, headers={"Cookie": f"{name}={token}"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    answer = client.get(ME, headers=bearer(token))
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example.org", "null", "http://service.evil.example.org", "http://service:81", "file://"]
)
def test_a_page_of_another_origin_is_refused(client: TestClient, world: World, origin: str) -> None:
    before = client.get("/api/v1/teams", headers=world.headers("acme", "admin")).json()
    for method, path, body in (
        ("GET", ME, None),
        ("POST", "/api/v1/teams", {"name": "csrf"}),
        ("OPTIONS", "/api/v1/teams", None),
    ):
        headers = {**world.headers("acme", "admin"), "Origin": origin}
        answer = client.request(method, path, headers=headers, json=body)
        assert answer.status_code == 403, (method, path)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert client.get("/api/v1/teams", headers=world.headers("acme", "admin")).json() == before
    same = {**world.headers("acme", "admin"), "Origin": "http://service"}
    assert client.get(ME, headers=same).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_form_is_no_call(client: TestClient, world: World, kind: str) -> None:
    """What a page may send without being asked first is not read."""
    headers = {**world.headers("acme", "admin"), "Content-Type": kind}
    assert client.post("/api/v1/teams", headers=headers, content=b'{"name": "csrf"}').status_code == 415


def test_answers_are_not_for_frames_scripts_or_caches(client: TestClient, world: World) -> None:
    for path in (ME, "/api/v1/nowhere", "/api/v1/openapi.json"):
        headers = client.get(path, headers=world.headers("acme", "admin")).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"


# ------------------------------------------------------------------------------------------------------ 8: a stream of somebody else


@pytest.fixture
def run_id(world: World) -> str:
    with world.house.store.write() as tx:
        made = runs.create_run(
            tx, world.orgs["acme"], "migration.apply", user_id=world.user("acme", "developer").id, now=now()
        )
        runs.claim_one(tx, made.org_id, made.id, "w", lease=dt.timedelta(minutes=5), now=now())
        runs.finish(tx, made.org_id, made.id, "w", "succeeded", now=now())
    return made.id


def test_progress_is_for_who_may_see_the_run(client: TestClient, world: World, run_id: str) -> None:
    path = f"/api/v1/runs/{run_id}/events"
    mine = world.headers("acme", "developer")
    assert "event: end" in client.get(path, headers=mine).text
    assert client.get(path).status_code == 401
    assert client.get(f"{path}?token={world.token('acme', 'developer')}").status_code == 401
    assert client.get(path, headers={**mine, "Origin": "https://evil.example.org"}).status_code == 403
    assert client.get(path, headers=world.headers("beta", "admin")).status_code == 404
    assert client.get(path, headers=world.headers("acme", "viewer")).status_code == 404
    assert (
        client.get(path, headers={**world.headers("beta", "admin"), "X-DBLens-Organization": "acme"}).status_code == 404
    )


def test_no_websocket_is_opened(live: str, world: World) -> None:
    """There is none: who asks for one, with whatever Origin, is not upgraded."""
    host, _, port = live.removeprefix("http://").partition(":")
    for path in (ME, "/api/v1/runs/x/events", "/"):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert not raw.recv(100).startswith(b"HTTP/1.1 101")


# --------------------------------------------------------------------------------------------------- 9, 10: through the front door


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[TestClient, World]]:
    """A team of its own, whose limits count."""
    made = House.open(team_settings(tmp_path, public_url="https://db.example.org/lens"))
    world = World(made)
    with TestClient(create_app(made), base_url="http://service", client=("198.51.100.1", 5)) as client:
        yield client, world
    made.close()


def test_guessing_at_the_front_door_ends_and_says_when(own: tuple[TestClient, World]) -> None:
    client, _ = own
    statuses = []
    for n in range(40):
        answer = client.post("/api/v1/auth/login", json={"name": "admin-acme", "password": f"guess-number-{n}"})
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0
            break
    assert statuses[-1] == 429
    assert set(statuses[:-1]) == NOBODY
    one = client.post("/api/v1/auth/login", json={"name": "admin-acme", "password": "guess"})
    two = client.post("/api/v1/auth/login", json={"name": "nobody-of-that-name", "password": "guess"})
    assert {one.status_code, two.status_code} <= {401, 429}


def test_known_and_unknown_names_are_answered_alike(own: tuple[TestClient, World]) -> None:
    client, _ = own
    said = []
    for name in ("admin-acme", "nobody-of-that-name", "admin-acme@example.org"):
        answer = client.post("/api/v1/auth/login", json={"name": name, "password": "wrong-password-9"})
        told = answer.json()
        told.pop("id")
        said.append((answer.status_code, told))
    assert said[0] == said[1] == said[2]


# ------------------------------------------------------------------------------------------------------------- 1, 2: over the wire


def test_what_is_of_another_organization_is_not_there(client: TestClient, world: World) -> None:
    """The same answer as for what is nowhere, whoever asks: also an admin, also a super_admin who acts in another organization."""
    with world.house.store.write() as tx:
        team = teams.create_team(tx, world.orgs["beta"], "theirs", now=now()).id
        run = runs.create_run(tx, world.orgs["beta"], "migration.plan", user_id=None, now=now()).id
    connection = world.connection("beta")
    nowhere = "0" * 32
    for headers in (world.headers("acme", "admin"), world.root("acme")):
        for path, thing in (
            ("/teams/{}", team), ("/teams/{}/members", team), ("/runs/{}", run), ("/runs/{}/events", run),
            ("/runs/{}/result", run), ("/runs/{}/log", run), ("/connections/{}", connection), ("/connections/{}/pool", connection),
            ("/connections/{}/grants", connection), ("/organizations/{}", world.orgs["beta"]),
        ):  # fmt: skip
            told = []
            for id in (thing, nowhere):
                answer = client.get(f"/api/v1{path.format(id)}", headers=headers)
                told.append((answer.status_code, answer.json()["detail"].replace(id, "…"), answer.json()["code"]))
            if headers == world.root("acme") and told[0][0] == 403:
                continue  # a super_admin has no use of connections at all
            assert told[0] == told[1], path
            assert told[0][0] == 404, path


@pytest.mark.parametrize(
    "field", ["role", "org_id", "organization", "super_admin", "rank", "id", "user_id", "owner_id", "active"]
)
def test_nobody_writes_a_field_that_is_not_theirs(client: TestClient, world: World, field: str) -> None:
    """Mass assignment: a profile has a name to show, and no more."""
    answer = client.patch(ME, headers=world.headers("acme", "viewer"), json={"display": "x", field: "admin"})
    assert answer.status_code == 422
    assert field in [each["field"] for each in answer.json()["fields"]]
    assert client.get(ME, headers=world.headers("acme", "viewer")).json().get("role") != "admin"


def test_a_session_that_ended_is_dead_at_the_next_request(client: TestClient, world: World) -> None:
    token = world.token("acme", "analyst", fresh=True)
    assert client.get(ME, headers=bearer(token)).status_code == 200
    assert client.post("/api/v1/auth/logout", headers=bearer(token)).status_code == 204
    assert client.get(ME, headers=bearer(token)).status_code == 401
    assert client.post("/api/v1/auth/logout", headers=bearer(token)).status_code == 401


def test_a_flood_of_streams_of_one_user_is_bounded(client: TestClient) -> None:
    """31: streams hold threads of nobody, but places; each user has a number of them."""
    from dblens.api.events import MOST_OF_ONE, Watchers
    from dblens.errors import RateLimited

    watchers = Watchers()
    for _ in range(MOST_OF_ONE):
        watchers.come("ann")
    with pytest.raises(RateLimited):
        watchers.come("ann")
    watchers.come("bob")
    watchers.go("ann")
    watchers.come("ann")
