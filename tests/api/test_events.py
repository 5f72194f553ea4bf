"""Runs over HTTP: 202 and the run, its events as they come, resumed after the last one seen, ended when the right to read ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from dblens.api import events
from dblens.store import organizations, runs
from dblens.store.records import now
from dblens.workspace.house import House
from tests.api.conftest import World, until

V = "/api/v1"


@pytest.fixture
def head(world: World) -> dict[str, str]:
    return world.headers("acme", "developer")


def read(lines: Iterator[str], most: int = 1000) -> Iterator[tuple[str, str, Any]]:
    """Yield kind, id and data of each event; a comment has the kind `:`."""
    kind, number, data = "", "", ""
    for line in lines:
        if line.startswith(":"):
            yield ":", "", None
        elif not line:
            if kind:
                yield kind, number, json.loads(data)
            kind = ""
        else:
            name, _, value = line.partition(": ")
            kind, number, data = (
                (value, number, data)
                if name == "event"
                else (kind, value, data)
                if name == "id"
                else (kind, number, value)
            )


def begin(url: str, head: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}{V}/backups", json=body, headers=head)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{V}/runs/{answer.json()['id']}"
    return dict(answer.json())


def test_long_work_answers_at_once_with_its_run(live_things: str, head: dict[str, str]) -> None:
    run = begin(live_things, head, steps=3)
    assert run["state"] in ("queued", "running")
    with httpx.stream("GET", f"{live_things}{V}/runs/{run['id']}/events", headers=head) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = list(read(answer.iter_lines()))
    kinds = [kind for kind, _, _ in found]
    assert kinds[-1] == "end"
    assert found[-1][2]["state"] == "succeeded"
    assert found[-1][2]["result"] is None
    logged = [data for kind, _, data in found if kind == "log"]
    assert [line["number"] for line in logged] == list(range(1, len(logged) + 1))
    assert any("step 2" in line["text"] for line in logged)
    assert any(kind == "progress" and data["progress"].get("done") == 2 for kind, _, data in found)


def test_resumed_after_the_last_event(live_things: str, head: dict[str, str]) -> None:
    run = begin(live_things, head, steps=5)
    url = f"{live_things}{V}/runs/{run['id']}/events"
    with httpx.stream("GET", url, headers=head) as answer:
        whole = [number for kind, number, _ in read(answer.iter_lines()) if kind == "log"]
    with httpx.stream("GET", url, headers={**head, "Last-Event-ID": whole[2]}) as answer:
        rest = [number for kind, number, _ in read(answer.iter_lines()) if kind == "log"]
    assert rest == whole[3:]
    for wrong in ("x", "-1", "9" * 30):
        answer = httpx.get(url, headers={**head, "Last-Event-ID": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "input.invalid")


def test_who_may_not_read_the_run_gets_no_events(live_things: str, world: World, head: dict[str, str]) -> None:
    run = begin(live_things, head, steps=1)
    url = f"{live_things}{V}/runs/{run['id']}/events"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=world.headers("beta", "admin")).status_code == 404
    assert httpx.get(url, headers=world.headers("acme", "viewer")).status_code == 404
    assert httpx.get(f"{live_things}{V}/runs/{'0' * 32}/events", headers=head).status_code == 404


def test_progress_and_a_failure_by_polling(live_things: str, head: dict[str, str]) -> None:
    run = begin(live_things, head, steps=1, fail=True)
    url = f"{live_things}{V}/runs/{run['id']}"
    assert until(lambda: httpx.get(url, headers=head).json()["state"] == "failed")
    told = httpx.get(f"{url}/result", headers=head)
    assert (told.status_code, told.json()["code"], told.json()["detail"]) == (409, "conflict", "it did not work")
    good = begin(live_things, head, steps=1)
    url = f"{live_things}{V}/runs/{good['id']}"
    assert until(lambda: httpx.get(url, headers=head).json()["state"] == "succeeded")
    assert httpx.get(f"{url}/result", headers=head).json() == {"steps": 1}


def test_a_run_is_cancelled(live_things: str, head: dict[str, str]) -> None:
    run = begin(live_things, head, steps=1000, seconds=0.05)
    found: list[str] = []

    def watch() -> None:
        with httpx.stream("GET", f"{live_things}{V}/runs/{run['id']}/events", headers=head, timeout=60) as answer:
            found.extend(data["state"] for kind, _, data in read(answer.iter_lines()) if kind == "end")

    watching = threading.Thread(target=watch)
    watching.start()
    time.sleep(0.3)
    assert httpx.post(f"{live_things}{V}/runs/{run['id']}/cancel", headers=head).status_code == 200
    watching.join(40)
    assert found == ["cancelled"]


@pytest.fixture
def endless(house: House, world: World) -> str:
    """A run that nobody works on."""
    with house.store.write() as tx:
        user = world.user("acme", "developer").id
        return runs.create_run(tx, world.orgs["acme"], "backup.create", user_id=user, now=now()).id


def quick(monkeypatch: pytest.MonkeyPatch, **times: float) -> None:
    made = events.Events.__init__
    monkeypatch.setattr(events.Events, "__init__", lambda self, *a, **k: made(self, *a, **{**k, **times}))


def test_a_comment_keeps_the_way_open(
    live_things: str, head: dict[str, str], endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch, heartbeat=0.2, every=0.1)
    with httpx.stream("GET", f"{live_things}{V}/runs/{endless}/events", headers=head) as answer:
        seen = []
        for kind, _, _ in read(answer.iter_lines()):
            seen.append(kind)
            if seen.count(":") == 2:
                break
    assert seen == ["progress", ":", ":"]


@pytest.mark.parametrize("how", ["logout", "role"])
def test_a_stream_ends_when_the_right_to_read_does(
    live_things: str, house: House, world: World, how: str, monkeypatch: pytest.MonkeyPatch, endless: str
) -> None:
    quick(monkeypatch, every=0.1, recheck=0.2)
    token = world.token("acme", "developer", fresh=True)
    head = {"Authorization": f"Bearer {token}"}
    user, org = world.user("acme", "developer"), world.orgs["acme"]
    begun = time.monotonic()
    with httpx.stream("GET", f"{live_things}{V}/runs/{endless}/events", headers=head) as answer:
        found = read(answer.iter_lines())
        assert next(found)[0] == "progress"
        if how == "logout":
            assert httpx.post(f"{live_things}{V}/auth/logout", headers=head).status_code == 204
        else:
            with house.store.write() as tx:
                organizations.set_member_role(
                    tx, org, user.id, organizations.create_role(
                        tx, org, name="nothing", rank=1, permissions=["team.list"], now=now()
                    ).id, must_remain=()
                )  # fmt: skip
        assert [kind for kind, _, _ in found if kind == "end"] == []
    assert time.monotonic() - begun < 10
    if how == "role":
        assert httpx.get(f"{live_things}{V}/runs/{endless}/events", headers=head).status_code == 403
        with house.store.write() as tx:
            found_role = organizations.find_role(tx, org, "developer")
            organizations.set_member_role(tx, org, user.id, found_role.id, must_remain=())


def test_streams_of_one_user_are_bounded(thing: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    watchers = events.Watchers()
    for _ in range(events.MOST_OF_ONE):
        watchers.come("ann")
    with pytest.raises(events.RateLimited):
        watchers.come("ann")
    watchers.come("bob")
    watchers.go("ann")
    watchers.come("ann")
    monkeypatch.setattr(events, "MOST", 11)
    with pytest.raises(events.RateLimited):
        watchers.come("cat")
    for who in ["ann"] * 10 + ["bob"]:
        watchers.go(who)
    assert watchers.open == {}


def test_a_stream_that_ended_counts_no_more(
    live_things: str, world: World, endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = world.headers("acme", "admin")
    monkeypatch.setattr(events, "MOST_OF_ONE", 1)
    url = f"{live_things}{V}/runs/{endless}/events"
    with httpx.stream("GET", url, headers=head) as answer:
        assert answer.status_code == 200
        assert httpx.get(url, headers=head).status_code == 429
    assert until(lambda: _status(url, head) == 200, 10)


def _status(url: str, head: dict[str, str]) -> int:
    with httpx.stream("GET", url, headers=head) as answer:
        return answer.status_code
