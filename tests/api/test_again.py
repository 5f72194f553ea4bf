"""`Idempotency-Key`: done once, answered alike; nothing secret is kept."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import World
from tests.api.doors import STATE
from tests.store.filled import content

V = "/api/v1"


def test_the_same_request_is_done_once(thing: TestClient, world: World) -> None:
    head = world.headers("acme", "admin", **{"Idempotency-Key": "k-1"})
    before = len(STATE.setdefault("created", []))
    first = thing.post(f"{V}/templates", json={"spec": {"name": "once"}}, headers=head)
    second = thing.post(f"{V}/templates", json={"spec": {"name": "once"}}, headers=head)
    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"
    assert len(STATE["created"]) == before + 1


def test_another_request_under_the_key_is_refused(thing: TestClient, world: World) -> None:
    head = world.headers("acme", "admin", **{"Idempotency-Key": "k-2"})
    assert thing.post(f"{V}/templates", json={"spec": {"name": "a"}}, headers=head).status_code == 201
    for again in (
        thing.post(f"{V}/templates", json={"spec": {"name": "b"}}, headers=head),
        thing.post(f"{V}/tokens", json={"name": "a"}, headers=head),
    ):
        assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_a_key_belongs_to_its_user_and_organization(thing: TestClient, world: World) -> None:
    body = {"spec": {"name": "mine"}}
    for org in ("acme", "beta"):
        head = world.headers(org, "admin", **{"Idempotency-Key": "k-3"})
        answer = thing.post(f"{V}/templates", json=body, headers=head)
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers


def test_a_token_that_may_do_less_gets_no_answer_of_its_owner(thing: TestClient, world: World, house: Any) -> None:
    import hashlib
    import secrets

    from dblens.store import tokens
    from dblens.store.records import now

    user, org, text = world.user("acme", "admin"), world.orgs["acme"], f"dbl_pat_{secrets.token_urlsafe(32)}"
    with house.store.write() as tx:
        tokens.create_access_token(
            tx, org, user.id, name="less", hash=hashlib.sha256(text.encode()).digest(), scopes=["run.read"],
            expires_at=now().replace(year=2099), now=now(),
        )  # fmt: skip
    body = {"spec": {"name": "theirs"}}
    head = {"Idempotency-Key": "k-8"}
    assert thing.post(f"{V}/templates", json=body, headers=world.headers("acme", "admin", **head)).status_code == 201
    less = thing.post(f"{V}/templates", json=body, headers={"Authorization": f"Bearer {text}", **head})
    assert less.status_code in (403, 409)


def test_what_failed_may_be_tried_again(thing: TestClient, world: World) -> None:
    head = world.headers("acme", "admin", **{"Idempotency-Key": "k-4"})
    before = STATE.get("issued", 0)
    for _ in range(2):
        assert thing.post(f"{V}/tokens", json={"name": "fails"}, headers=head).status_code == 409
    assert STATE["issued"] == before + 2


def test_a_second_while_the_first_is_at_work_waits(thing: TestClient, world: World) -> None:
    head = world.headers("acme", "admin", **{"Idempotency-Key": "k-5"})
    STATE["at work"], STATE["go on"] = threading.Event(), threading.Event()
    found: list[Any] = []
    first = threading.Thread(
        target=lambda: found.append(thing.post(f"{V}/tokens", json={"name": "slow"}, headers=head))
    )
    first.start()
    assert STATE["at work"].wait(10)
    second = thing.post(f"{V}/tokens", json={"name": "slow"}, headers=head)
    STATE["go on"].set()
    first.join(10)
    assert found[0].status_code == 201
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")


def test_a_secret_that_was_issued_is_not_kept(thing: TestClient, world: World, house: Any) -> None:
    head = world.headers("acme", "admin", **{"Idempotency-Key": "k-6"})
    first = thing.post(f"{V}/tokens", json={"name": "mine"}, headers=head)
    assert first.json()["token"] == "canary-of-a-token-7531"
    again = thing.post(f"{V}/tokens", json={"name": "mine"}, headers=head)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "not kept" in again.json()["detail"]
    assert "canary-of-a-token" not in repr(content(house.store))


def test_a_password_in_a_request_cannot_be_found_by_its_hash(thing: TestClient, world: World, house: Any) -> None:
    import hashlib

    body = b'{"spec": {"name": "h", "password": "canary-1"}}'
    head = world.headers("acme", "admin", **{"Idempotency-Key": "k-7", "Content-Type": "application/json"})
    assert thing.post(f"{V}/templates", content=body, headers=head).status_code == 201
    kept = repr(content(house.store)["idempotency"])
    assert "canary-1" not in kept
    assert repr(hashlib.sha256(body).digest()) not in kept


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\x7f"])
def test_what_is_no_key_is_refused(thing: TestClient, world: World, key: str) -> None:
    head = world.headers("acme", "admin", **{"Idempotency-Key": key})
    answer = thing.post(f"{V}/templates", json={"spec": {"name": "a"}}, headers=head)
    assert answer.status_code == 422
    assert answer.json()["fields"][0]["field"] == "Idempotency-Key"
