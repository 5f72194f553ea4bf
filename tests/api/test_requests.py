"""What a request may look like, and what a wrong one is told: every field by name, nothing of the inside."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from starlette.testclient import TestClient

from dblens.redaction import Secret
from tests.api.conftest import World
from tests.api.doors import STATE

V = "/api/v1"


@pytest.fixture
def admin(world: World) -> dict[str, str]:
    return world.headers("acme", "admin")


def fields(answer: Any) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return {each["field"]: each["message"] for each in answer.json().get("fields", ())}


def test_a_body_becomes_records_and_secrets(thing: TestClient, admin: dict[str, str]) -> None:
    spec = {"name": "x", "port": 5, "password": "canary-password", "tls": {"mode": "off"}, "tags": ["a", "b"]}
    spec["hops"] = [{"ca": "c"}]
    answer = thing.post(f"{V}/templates", json={"spec": spec, "when": "2026-11-23T12:00:00+01:00"}, headers=admin)
    assert answer.status_code == 201, answer.text
    made = STATE["created"][-1]
    assert isinstance(made.password, Secret)
    assert made.password.reveal() == "canary-password"
    assert made.tls.mode == "off"
    assert made.tags == ("a", "b")
    assert made.hops[0].ca == "c"
    assert "canary" not in answer.text


def test_every_rejected_field_is_named_in_one_answer(thing: TestClient, admin: dict[str, str]) -> None:
    spec = {"port": "5", "extra": 1, "tls": {"mode": "maybe", "x": 1}, "tags": ["a", 3], "hops": [{}, {"mode": 1}]}
    body = {"spec": spec, "when": "2026-11-23T12:00:00", "unheard": True}
    answer = thing.post(f"{V}/templates", json=body, headers=admin)
    assert answer.status_code == 422
    found = fields(answer)
    assert set(found) == {
        "spec.name", "spec.port", "spec.extra", "spec.tls.mode", "spec.tls.x", "spec.tags[1]", "spec.hops[1].mode",
        "when", "unheard",
    }  # fmt: skip
    assert found["unheard"] == found["spec.extra"] == "unknown"
    assert found["spec.name"] == "missing"
    assert all(name in answer.json()["detail"] for name in found)


def test_a_secret_of_another_type_is_not_shown(thing: TestClient, admin: dict[str, str]) -> None:
    answer = thing.post(f"{V}/templates", json={"spec": {"name": "x", "password": ["canary-password"]}}, headers=admin)
    assert fields(answer) == {"spec.password": "expected a text"}
    assert "canary" not in answer.text


def test_a_query_is_read_strictly(thing: TestClient, admin: dict[str, str]) -> None:
    query = "name=null&since=2026-11-23T12:00:00Z&kinds=a&kinds=b&limit=7&after=x&all=true"
    answer = thing.get(f"{V}/templates?{query}", headers=admin)
    assert answer.status_code == 200, answer.text
    which, limit, after, all_ = STATE["list"]
    assert (which.name, which.kinds, limit, after, all_) == ("null", ("a", "b"), 7, "x", True)
    assert answer.json() == {"items": ["a", "b"], "after": None}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", {"limit"}),
        ("limit=1001", {"limit"}),
        ("limit=9999999999999999999999", {"limit"}),
        ("limit=1&limit=2", {"limit"}),
        ("all=1&since=yesterday&kinds=c&x=1&y=2", {"all", "since", "kinds[0]", "x", "y"}),
        ("since=2026-11-23T12:00:00", {"since"}),
        ("name=a%00b", {"name"}),
        ("token=secret&access_token=secret", {"token", "access_token"}),
    ],
)
def test_a_wrong_query_is_named(thing: TestClient, admin: dict[str, str], query: str, named: set[str]) -> None:
    answer = thing.get(f"{V}/templates?{query}", headers=admin)
    assert answer.status_code == 422
    assert set(fields(answer)) == named


def test_a_query_that_is_no_text_is_refused(thing: TestClient, admin: dict[str, str]) -> None:
    assert thing.get(f"{V}/templates?name=%ff", headers=admin).status_code == 400
    many = "&".join(f"k{number}=1" for number in range(600))
    assert thing.get(f"{V}/templates?{many}", headers=admin).status_code == 400


@pytest.mark.parametrize("name", ["a/b", "a b", "é🙂", "a%2Fb", "own", "..", "a?b#c", "+"])
def test_a_name_in_a_path_is_one_part_of_it(thing: TestClient, admin: dict[str, str], name: str) -> None:
    from urllib.parse import quote

    path = quote(name, safe="") if name != ".." else "%2E%2E"
    answer = thing.get(f"{V}/templates/{path}", headers=admin)
    assert (answer.status_code, answer.json()) == (200, name)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 5000, "application/json", 400),
        (b"NaN", "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "application/json; charset=latin-1", 415),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b"{}", "multipart/form-data; boundary=x", 415),
    ],
)
def test_a_body_that_is_none(thing: TestClient, admin: dict[str, str], body: bytes, kind: str, status: int) -> None:
    answer = thing.post(f"{V}/tokens", content=body, headers={**admin, "Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == "input.invalid"


def test_null_is_no_body(client: TestClient, admin: dict[str, str]) -> None:
    """Where nothing has to be given an empty body will do, but what is there has to be an object."""
    for body, status in ((b"", 200), (b"{}", 200), (b"null", 422), (b"0", 422)):
        answer = client.post(
            f"{V}/account/revoke-others", content=body, headers={**admin, "Content-Type": "application/json"}
        )
        assert answer.status_code == status, (body, answer.text)


def test_a_body_is_bounded(thing: TestClient, admin: dict[str, str]) -> None:
    big = json.dumps({"name": "x" * 5_000_000}).encode()
    head = {**admin, "Content-Type": "application/json"}
    assert thing.post(f"{V}/tokens", content=big, headers=head).status_code == 413
    assert thing.post(f"{V}/tokens", content=iter([big]), headers=head).status_code == 413
    assert (
        thing.post(f"{V}/tokens", content=b"\x1f\x8b", headers={**head, "Content-Encoding": "gzip"}).status_code == 415
    )


def test_methods(thing: TestClient, admin: dict[str, str]) -> None:
    answer = thing.put(f"{V}/templates", headers=admin)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert answer.json()["status"] == 405
    answer = thing.options(f"{V}/templates")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = thing.head(f"{V}/templates", headers=admin)
    assert (answer.status_code, answer.content) == (200, b"")
    assert thing.head(f"{V}/queries/export", headers=admin).status_code == 405
    assert thing.head(f"{V}/templates").status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/api/v1/nothing", "/api/v1/templates/", "//", "/api/v1/../x"]
)
def test_nowhere(thing: TestClient, path: str) -> None:
    answer = thing.get(f"http://service{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["x-request-id"] == answer.json()["id"]


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("value", 500, "error"),
        ("unsupported", 501, "unsupported"),
        ("limited", 429, "rate.limited"),
        ("query", 400, "engine.query"),
        ("secret", 502, "engine.connection"),
        ("store", 503, "store.failed"),
        ("surrogate", 422, "input.invalid"),
        ("verify", 409, "verify.failed"),
    ],
)
def test_an_error_is_a_problem(
    thing: TestClient, admin: dict[str, str], how: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = thing.get(f"{V}/queries/run?how={how}", headers=admin)
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code)
    assert "hunter2" not in answer.text
    assert "canary" not in answer.text
    if how == "limited":
        assert answer.headers["retry-after"] == "7"
        assert told["retry_after"] == 7
    if how == "unsupported":
        assert (told["feature"], told["why"]) == ("a thing", "it is not")
    if how == "verify":
        assert told["verdict"] == {"rows": 3}
    if how == "value":
        assert told["id"] in caplog.text
        assert "Traceback" in caplog.text
        assert "Error" not in answer.text.replace("Internal error", "")
        assert "hunter2" not in caplog.text


def test_a_result_with_a_secret_is_no_answer(thing: TestClient, admin: dict[str, str]) -> None:
    answer = thing.get(f"{V}/queries/history", headers=admin)
    assert answer.status_code == 500
    assert "canary" not in answer.text


def test_headers_that_protect(thing: TestClient, admin: dict[str, str]) -> None:
    for answer in (
        thing.get(f"{V}/templates", headers=admin),
        thing.get("/x"),
        thing.get(f"{V}/queries/run", headers=admin),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "unsafe-inline" not in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_log_has_no_query_and_no_header(
    thing: TestClient, admin: dict[str, str], world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dblens.api"):
        thing.get(f"{V}/templates?name=canary-in-query", headers={**admin, "User-Agent": "x\ty"})
        thing.get("/canary-in-path%0aforged")
    assert f"GET {V}/templates 200" in caplog.text
    assert world.user("acme", "admin").id in caplog.text
    assert "canary" not in caplog.text
    assert admin["Authorization"][7:] not in caplog.text


def test_below_a_prefix_whether_or_not_it_is_stripped(house: Any, world: World) -> None:
    from dblens.api.app import create_app

    with TestClient(create_app(house, root_path="/services/dblens"), base_url="http://service") as client:
        for path in ("/services/dblens/api/v1/version", "/api/v1/version"):
            assert client.get(path).json()["api"] == "v1"
        assert client.get("/services/dblensx/api/v1/version").status_code == 404
        assert client.get("/api/v1/openapi.json").json()["servers"] == [{"url": "/services/dblens"}]
