"""The ways in over HTTP: set-up, login, refresh, logout, the person at this machine; and what is told to nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dblens.accounts import configured
from dblens.api.app import create_app
from dblens.api.identity import LOCAL_FILE, local_secret
from dblens.errors import StoreError
from dblens.settings import Settings
from dblens.workspace import entrance
from dblens.workspace.house import House
from tests.api.conftest import FAST, team_settings
from tests.store.filled import content

V = "/api/v1"
PASSWORD = "plum orbit kettle 4471"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[House]:
    made = House.open(team_settings(tmp_path))
    yield made
    made.close()


@pytest.fixture
def service(empty: House) -> Iterator[TestClient]:
    with TestClient(create_app(empty, rates=FAST), base_url="http://service", client=("127.0.0.1", 5)) as made:
        yield made


def set_up(service: TestClient, empty: House) -> None:
    code = entrance.set_up_code(empty)
    assert code is not None
    body = {"name": "root", "password": PASSWORD, "code": code.reveal(), "organization": "acme"}
    assert service.post(f"{V}/auth/set-up", json=body).status_code == 204


def log_in(service: TestClient, password: str = PASSWORD) -> Any:
    return service.post(f"{V}/auth/login", json={"name": "root", "password": password})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_from_the_first_account_to_the_last_word(service: TestClient, empty: House) -> None:
    assert service.get(f"{V}/auth/state").json() == {"mode": "team", "needs_set_up": True, "local": False}
    wrong = {"name": "root", "password": PASSWORD, "code": "guess"}
    assert service.post(f"{V}/auth/set-up", json=wrong).status_code == 403
    set_up(service, empty)
    assert service.get(f"{V}/auth/state").json()["needs_set_up"] is False
    assert service.post(f"{V}/auth/set-up", json={**wrong, "code": "x"}).status_code in (403, 409)

    assert log_in(service, "wrong password").status_code == 401
    made = log_in(service)
    assert made.status_code == 200
    assert "set-cookie" not in made.headers
    tokens = made.json()
    assert service.get(f"{V}/account", headers=bearer(tokens["access"])).json()["name"] == "root"

    new = service.post(f"{V}/auth/refresh", json={"refresh": tokens["refresh"]})
    assert new.status_code == 200
    assert service.post(f"{V}/auth/refresh", json={"refresh": tokens["refresh"]}).status_code == 401
    assert (
        service.get(f"{V}/account", headers=bearer(new.json()["access"])).status_code == 401
    )  # reuse ended the session

    again = log_in(service).json()
    assert service.post(f"{V}/auth/logout", headers=bearer(again["access"])).status_code == 204
    assert service.get(f"{V}/account", headers=bearer(again["access"])).status_code == 401
    assert service.post(f"{V}/auth/logout", headers=bearer(again["access"])).status_code == 401
    assert service.post(f"{V}/auth/logout").status_code == 401


def test_nobody_learns_who_has_an_account(service: TestClient, empty: House) -> None:
    set_up(service, empty)
    known = service.post(f"{V}/auth/login", json={"name": "root", "password": "wrong password"})
    unknown = service.post(f"{V}/auth/login", json={"name": "nobody", "password": "wrong password"})
    told = [{k: v for k, v in each.json().items() if k != "id"} for each in (known, unknown)]
    assert told[0] == told[1]
    assert known.status_code == unknown.status_code == 401


def test_every_wrong_field_of_a_login_is_named_and_none_is_shown(service: TestClient) -> None:
    answer = service.post(f"{V}/auth/login", json={"password": 5, "user": "canary-1"})
    assert answer.status_code == 422
    assert {each["field"] for each in answer.json()["fields"]} == {"name", "password", "user"}
    assert "canary" not in answer.text
    assert service.post(f"{V}/auth/login?password=canary-1", json={"name": "a", "password": "b"}).status_code == 422


def test_tries_are_limited(service: TestClient, empty: House) -> None:
    set_up(service, empty)
    found = [log_in(service, "wrong password") for _ in range(12)]
    assert [each.status_code for each in found[:5]] == [401] * 5
    assert found[-1].status_code == 429
    assert int(found[-1].headers["retry-after"]) > 0


def test_what_a_login_leaves_behind_holds_no_secret(service: TestClient, empty: House) -> None:
    set_up(service, empty)
    tokens = log_in(service).json()
    empty.journal.flush()
    kept = repr(content(empty.store))
    for secret in (PASSWORD, tokens["access"], tokens["refresh"]):
        assert secret not in kept


def test_step_up_asks_for_a_recent_login(service: TestClient, empty: House) -> None:
    import datetime as dt

    set_up(service, empty)
    head = {**bearer(log_in(service).json()["access"]), "X-DBLens-As": "super_admin"}
    assert service.patch(f"{V}/users/root", json={}, headers=head).status_code != 401
    now = empty.clock()
    empty.recent = dt.timedelta(seconds=-1)
    answer = service.patch(f"{V}/users/root", json={}, headers=head)
    assert now is not None
    assert answer.status_code == 401
    assert "insufficient_user_authentication" in answer.headers["www-authenticate"]


# ------------------------------------------------------------------------------------------------ the person at this machine


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[House]:
    made = House.open(Settings(store_url=f"sqlite:///{tmp_path / 'store.sqlite'}", data_folder=tmp_path))
    yield made
    made.close()


def test_the_person_at_this_machine_gets_in_by_a_file(alone: House, tmp_path: Path) -> None:
    with TestClient(create_app(alone, rates=FAST), base_url="http://service", client=("127.0.0.1", 5)) as client:
        path = tmp_path / LOCAL_FILE
        assert path.stat().st_mode & 0o777 == 0o600
        assert client.get(f"{V}/auth/state").json()["local"] is True
        assert client.post(f"{V}/auth/local", json={"secret": "x" * 43}).status_code == 401
        made = client.post(f"{V}/auth/local", json={"secret": path.read_text().strip()})
        assert made.status_code == 200
        head = bearer(made.json()["access"])
        assert client.get(f"{V}/connections", headers=head).json() == {"items": [], "after": None}
        assert client.get(f"{V}/connections", headers={**head, "X-DBLens-Organization": "other"}).status_code == 404
        assert client.get(f"{V}/connections", headers={**head, "X-DBLens-As": "super_admin"}).status_code == 422
        assert client.post(f"{V}/auth/logout", headers=head).status_code == 204
        assert client.get(f"{V}/connections", headers=head).status_code == 401
    alone.journal.flush()
    assert "account.log_in" in repr(content(alone.store)["audit"])


def test_a_team_has_no_such_person(service: TestClient, empty: House) -> None:
    assert service.post(f"{V}/auth/local", json={"secret": "x"}).status_code == 404
    assert not (empty.settings.data_folder / LOCAL_FILE).exists()
    assert service.get(f"{V}/account", headers=bearer("dbl_loc_x")).status_code == 401


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    first = local_secret(tmp_path)
    assert local_secret(tmp_path) == first
    os.chmod(tmp_path / LOCAL_FILE, 0o644)
    with pytest.raises(StoreError, match="read by others"):
        local_secret(tmp_path)
    (tmp_path / LOCAL_FILE).unlink()
    (tmp_path / LOCAL_FILE).symlink_to("/etc/hostname")
    with pytest.raises(StoreError):
        local_secret(tmp_path)


# ------------------------------------------------------------------------------------------------------------------- health


def test_health_asks_for_no_login_and_tells_nothing(service: TestClient, empty: House) -> None:
    from dblens.version import __version__

    assert service.get(f"{V}/health/live").json() == {"status": "ok"}
    assert service.get(f"{V}/health/ready").json() == {"store": "ok", "audit": "ok", "sweep": "ok"}
    assert service.get(f"{V}/version").json() == {"version": __version__, "api": "v1"}


def test_the_public_keys_of_access_tokens_are_told(service: TestClient, empty: House) -> None:
    (key,) = service.get("/.well-known/jwks.json").json()["keys"]
    assert key["kid"] == configured.signing_keys(empty.store, empty.keyring).kid
    assert set(key) == {"kid", "kty", "crv", "alg", "use", "x"}, "nothing of the private part"


@pytest.mark.parametrize("what", ["store", "audit", "sweep"])
def test_not_ready_is_told(empty: House, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dblens.api import health, upkeep

    kept = upkeep.Upkeep(empty)
    looked = health.Health(empty, kept)
    kept.sweep()
    assert looked.ready().store == "ok"
    looked._last = None

    def broken(*_: object) -> Any:
        raise StoreError("canary /var/lib/secret.sqlite")

    if what == "store":
        monkeypatch.setattr(empty.store, "read", broken)
    elif what == "audit":
        monkeypatch.setattr(empty.journal, "reserve", broken)
    else:
        kept.swept = -1e9
    with pytest.raises(StoreError, match=f"not ready: the {what}") as told:
        looked.ready()
    assert "canary" not in str(told.value)


def test_the_page_is_ours_and_off_for_a_team(service: TestClient, empty: House) -> None:
    assert service.get(f"{V}/docs").status_code == 404
    with TestClient(create_app(empty, docs=True, rates=FAST), base_url="http://service") as client:
        page = client.get(f"{V}/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "unsafe" not in page.headers["content-security-policy"]
        for line in page.text.splitlines():
            assert "://" not in line  # nothing from elsewhere
            assert not (line.startswith("<script") and "src=" not in line)
        for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "page.css"):
            assert f"docs/{name}" in page.text
            assert client.get(f"{V}/docs/{name}").status_code == 200
        assert client.get(f"{V}/docs/../problems.py").status_code == 404
