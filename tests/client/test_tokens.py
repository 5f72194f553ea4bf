"""A login on disk: who may read it, who renews it, and that no two ever use the same refresh token."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dblens.client import login, tokens
from dblens.client.service import Service
from dblens.client.tokens import Given, InFile, Kept, Login, LoginFile
from dblens.errors import Conflict, ConnectionFailed, InvalidInput, NotAuthenticated
from dblens.redaction import Secret
from tests.client import stub as s
from tests.client.stub import Asked, Say, Stub

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
URL = "https://dblens.example.org"


def made(number: int, *, ends: dt.datetime | None = None, url: str = URL) -> Login:
    return Login(
        url=url,
        user="ann",
        access=Secret(f"access-{number}"),
        access_expires_at=ends or NOW + dt.timedelta(minutes=10),
        refresh=Secret(f"refresh-{number}"),
        refresh_expires_at=NOW + dt.timedelta(days=7),
    )


def kept(folder: Path, renew: Callable[[Secret], Login], now: dt.datetime = NOW) -> Kept:
    return Kept(folder, URL, renew, now=lambda: now)


def never(_refresh: Secret) -> Login:
    raise AssertionError("it was renewed")


def test_a_login_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "logins", URL)
    old = os.umask(0)
    try:
        login.keep(file, made(1))
    finally:
        os.umask(old)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in file.path.parent.iterdir())
    assert file.read() == made(1)
    assert "refresh-1" not in repr(file.read())
    assert not [path for path in file.path.parent.iterdir() if path.suffix not in (".json", ".lock")]


def test_a_login_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "logins", URL)
    login.keep(file, made(1))
    file.path.chmod(0o640)
    with pytest.raises(InvalidInput, match="can be read by others") as caught:
        kept(tmp_path / "logins", never).get()
    assert "chmod 600" in str(caught.value)
    file.path.chmod(0o600)
    file.path.parent.chmod(0o755)
    with pytest.raises(InvalidInput, match="not yours alone"):
        login.keep(file, made(2))


def test_a_login_at_another_service_is_none_here(tmp_path: Path) -> None:
    login.keep(LoginFile(tmp_path / "l", "https://elsewhere"), made(1))
    with pytest.raises(NotAuthenticated, match="nobody is logged in"):
        kept(tmp_path / "l", never).get()


def test_a_broken_login_says_so(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "logins", URL)
    login.keep(file, made(1))
    file.path.write_bytes(b'{"access": 1')
    with pytest.raises(InvalidInput, match="no login at"):
        kept(tmp_path / "logins", never).get()


def test_a_good_token_is_used_as_it_is(tmp_path: Path) -> None:
    login.keep(LoginFile(tmp_path / "l", URL), made(1))
    assert kept(tmp_path / "l", never).get().reveal() == "access-1"


def test_a_token_near_its_end_is_renewed_and_kept(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "l", URL)
    login.keep(file, made(1, ends=NOW + dt.timedelta(seconds=20)))
    asked: list[Secret] = []

    def renew(refresh: Secret) -> Login:
        asked.append(refresh)
        return made(2)

    one = kept(tmp_path / "l", renew)
    assert one.get().reveal() == "access-2"
    assert one.get().reveal() == "access-2"
    assert [each.reveal() for each in asked] == ["refresh-1"]
    assert file.read() == made(2)


def test_a_refused_token_is_replaced_by_what_another_process_has_already(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "l", URL)
    login.keep(file, made(1))
    one = kept(tmp_path / "l", never)
    used = one.get()
    login.keep(file, made(2))
    found = one.renew(used)
    assert found is not None
    assert found.reveal() == "access-2"


def test_a_login_that_ended_is_forgotten(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "l", URL)
    login.keep(file, made(1))

    def renew(_refresh: Secret) -> Login:
        raise NotAuthenticated("no")

    one = kept(tmp_path / "l", renew)
    with pytest.raises(NotAuthenticated, match="has ended") as caught:
        one.renew(one.get())
    assert f"dblens login {URL}" in str(caught.value)
    assert file.read() is None


def test_a_login_outlives_a_service_that_is_down(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "l", URL)
    login.keep(file, made(1))

    def renew(_refresh: Secret) -> Login:
        raise ConnectionFailed("down")

    with pytest.raises(ConnectionFailed):
        kept(tmp_path / "l", renew).renew(Secret("access-1"))
    assert file.read() == made(1)


def test_an_access_token_that_was_given_is_not_renewed(tmp_path: Path) -> None:
    login.keep(LoginFile(tmp_path / "l", URL), Login(url=URL, user="ann", access=Secret("dbl_pat_x")))
    one = kept(tmp_path / "l", never)
    assert one.renew(one.get()) is None


class Rotating:
    """A service that ends the session when a refresh token comes twice."""

    def __init__(self, stub: Stub) -> None:
        self.good, self.reused, self.guard = 1, 0, threading.Lock()
        self.access: set[str] = set()
        stub.by = {"/api/v1/auth/refresh": self.refresh, "/x": self.work}

    def refresh(self, asked: Asked) -> Say:
        with self.guard:
            if json.loads(asked.body) != {"refresh": f"refresh-{self.good}"}:
                self.reused += 1
                return s.problem(401, "auth.required")
            self.good += 1
            self.access.add(f"Bearer access-{self.good}")
            soon = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=9)).isoformat()
            given = {"access": f"access-{self.good}", "access_expires_at": soon}
            given |= {"refresh": f"refresh-{self.good}", "refresh_expires_at": soon}
            return Say(body=json.dumps(given | {"name": "ann", "token_type": "bearer"}).encode())

    def work(self, asked: Asked) -> Say:
        good = asked.headers["authorization"] in self.access
        return Say() if good else s.problem(401, "auth.required")


def _ask(folder: Path, url: str, go: Any, out: Any) -> None:
    bearer = Kept(folder, url, lambda refresh: login.refreshed(url, refresh), now=login.now)
    service = Service(url, bearer)
    go.wait()
    try:
        for _ in range(5):
            service.request("GET", "/x")
        out.put("ok")
    except Exception as error:  # noqa: BLE001
        out.put(repr(error))


def test_processes_never_use_the_same_refresh_token(tmp_path: Path, stub: Stub) -> None:
    """Six processes whose token is refused at the same moment: one renews, the others find its tokens."""
    rotating = Rotating(stub)
    folder = tmp_path / "l"
    login.keep(LoginFile(folder, stub.url), made(1, url=stub.url, ends=login.now() + dt.timedelta(minutes=5)))
    method = multiprocessing.get_context("fork")
    go, out = method.Event(), method.Queue()
    processes = [method.Process(target=_ask, args=(folder, stub.url, go, out)) for _ in range(6)]
    for process in processes:
        process.start()
    go.set()
    told = [out.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert told == ["ok"] * 6
    assert (rotating.reused, rotating.good) == (0, 2)


def test_a_refresh_whose_answer_was_lost_is_not_sent_again(tmp_path: Path, stub: Stub) -> None:
    stub.by = {"/api/v1/auth/refresh": lambda _: Say(silent=True)}
    login.keep(LoginFile(tmp_path / "l", stub.url), made(1, url=stub.url))
    bearer = Kept(tmp_path / "l", stub.url, lambda refresh: login.refreshed(stub.url, refresh), now=login.now)
    with pytest.raises(ConnectionFailed):
        bearer.renew(Secret("access-1"))
    assert len(stub.asked) == 1


def test_a_lock_that_is_never_freed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LOCK_SECONDS", 0.1)
    file = LoginFile(tmp_path / "l", URL)
    with file.locked(), pytest.raises(Conflict, match="another process"), file.locked():
        pass


# -------------------------------------------------------------------------------------------------------------------- given, file


def test_a_token_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("dbl_pat_one\n")
    path.chmod(0o600)
    bearer = InFile(path)
    found = bearer.get()
    assert found.reveal() == "dbl_pat_one"
    assert bearer.renew(found) is None
    path.write_text("dbl_pat_two\n")
    renewed = bearer.renew(found)
    assert renewed is not None
    assert renewed.reveal() == "dbl_pat_two"


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("dbl_pat_one")
    path.chmod(0o604)
    with pytest.raises(InvalidInput, match="can be read by others") as caught:
        InFile(path).get()
    assert "dbl_pat" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "two words", "a\r\nX-Evil: 1", "a\nb", "t\x00", "gehéim"])
def test_what_is_no_token_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        Given(Secret(text))
    assert not text or text not in str(caught.value)


def test_a_login_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(made(1))
