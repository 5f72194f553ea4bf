"""No token and no password in a repr, a pickle, a dictionary, a log or a traceback, whatever goes wrong."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from dblens.client import connect, login
from dblens.client.service import Service
from dblens.client.tokens import Kept
from dblens.client.workspace import RemoteWorkspace
from dblens.errors import DBLensError
from dblens.events import silent
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.workspace.wire import FRAMES
from tests.client import stub as s
from tests.client.stub import Say, Stub
from tests.client.worlds import outcome

TOKEN = "dbl_pat_CANARY-token-0123456789abcdef"
PASSWORD = "CANARY-password-0123456789abcdef"
SECRETS = (TOKEN, PASSWORD, "CANARY")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that anybody logs, as plainly as logging can."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    root = logging.getLogger()
    names = ["", "httpx", "httpcore", "httpcore.http11", "httpcore.connection", "dblens"]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(1)
    root.addHandler(handler)
    yield out
    root.removeHandler(handler)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def workspace(stub: Stub, tmp_path: Path) -> Any:
    settings = Settings(store_url="sqlite:////x", data_folder=tmp_path, url=stub.url, token=Secret(TOKEN))
    made: Any = connect(settings)
    made._wire.service._sleep = lambda _seconds: None
    return made


def everything(value: object, depth: int = 7, seen: set[int] | None = None) -> Iterator[str]:
    """Yield what a curious person sees of an object and of what it holds: repr, str and the same of its attributes and items.

    A secret and a client of httpx are shown as they show themselves.
    """
    seen = set() if seen is None else seen
    if id(value) in seen or depth == 0:
        return
    seen.add(id(value))
    yield repr(value)
    yield str(value)
    if isinstance(value, dict):
        inside: list[object] = [*value, *value.values()]
    elif isinstance(value, list | tuple | set):
        inside = list(value)
    elif isinstance(value, str | bytes | int | float | Secret) or value is None or isinstance(value, type):
        inside = []
    else:
        inside = list(getattr(value, "__dict__", {}).values())
    for each in inside:
        yield from everything(each, depth - 1, seen)


def verbose(error: BaseException) -> str:
    """Return a traceback as the most talkative notebook shows it: with every local of every frame, causes and contexts too."""
    told, queue, seen = [], [error], set()
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        told.append("".join(traceback.format_exception(one, chain=False)))
        told += list(everything(vars(one)))
        frame: TracebackType | None = one.__traceback__
        while frame is not None:
            if "/tests/" not in frame.tb_frame.f_code.co_filename:
                told += list(everything(dict(frame.tb_frame.f_locals), 4))
            frame = frame.tb_next
        queue += [each for each in (one.__cause__, one.__context__) if each is not None]
    return "\n".join(told)


def clean(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


def test_the_search_finds_what_is_there() -> None:
    """A canary that nobody would find proves nothing."""

    def broken(token: str) -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        broken(TOKEN)
    assert TOKEN in "\n".join(everything(dict(caught.traceback[-1].frame.f_locals)))
    assert not clean("\n".join(everything({"a": [type("X", (), {})(), {"b": TOKEN}]})))


def test_nothing_shows_it(stub: Stub, workspace: Any) -> None:
    stub.answers = [Say(body=b'"x"')]
    workspace.audit.head()
    assert stub.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert clean("\n".join(everything(workspace)))
    assert clean("\n".join(everything(vars(workspace))))
    assert clean(repr(workspace.audit.head))


def test_nothing_is_pickled_or_copied(workspace: Any) -> None:
    service = workspace._wire.service
    for each in (workspace, workspace.audit, workspace.audit.head, service):
        for way in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                way(each)
    with pytest.raises(TypeError):
        pickle.dumps(service._bearer)


BROKEN: dict[str, Callable[[], Say]] = {
    "refused": lambda: s.problem(403, "permission.denied", "no"),
    "unauthorized": lambda: s.problem(401, "auth.required", "no"),
    "echoed": lambda: s.problem(422, "input.invalid", f"what is {PASSWORD} and Bearer {TOKEN}?", hint=TOKEN),
    "cut": lambda: Say(body=b"[1", cut=True),
    "silent": lambda: Say(silent=True),
    "html": lambda: Say(200, b"<html>"),
    "redirect": lambda: Say(302, b"", {"Location": "https://x/?t=1"}),
    "proxy": lambda: Say(502, f"upstream said {TOKEN}".encode(), kind="text/plain"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_traceback_shows_it(stub: Stub, workspace: Any, logged: io.StringIO, name: str) -> None:
    stub.answers = [BROKEN[name]()]
    given = Secret(PASSWORD)
    calls: list[Callable[[], Any]] = [
        workspace.account.read,
        lambda: workspace.account.confirm(given),
        lambda: workspace.audit.export(lambda _: None),
    ]
    for call in calls:
        error = outcome(call)
        if isinstance(error, DBLensError):
            assert clean(verbose(error))
            assert clean(f"{error} {error!r}")
    assert stub.asked
    assert clean(logged.getvalue())


def test_an_interrupt_shows_nothing_either(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(httpx.Client, "send", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        workspace.account.confirm(Secret(PASSWORD))
    assert clean(verbose(caught.value))


def test_an_interrupt_of_a_stream_neither(stub: Stub, workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    def interrupted(self: httpx.Response) -> Iterator[bytes]:
        held = dict(self.request.headers)
        yield b""
        raise KeyboardInterrupt(held)

    stub.answers = [Say(kind=FRAMES, chunks=(b"",))]
    monkeypatch.setattr(httpx.Response, "iter_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        workspace.audit.export(lambda _: None)
    assert clean(verbose(caught.value))


def test_a_service_that_is_not_there(tmp_path: Path, logged: io.StringIO) -> None:
    settings = Settings(store_url="sqlite:////x", data_folder=tmp_path, url="http://127.0.0.1:9", token=Secret(TOKEN))
    workspace: Any = connect(settings)
    workspace._wire.service._sleep = lambda _seconds: None
    for call in (workspace.account.read, lambda: workspace.account.confirm(Secret(PASSWORD))):
        with pytest.raises(DBLensError) as caught:
            call()
        assert clean(verbose(caught.value))
    assert clean(logged.getvalue())


def test_a_login_shows_nothing(stub: Stub, tmp_path: Path, logged: io.StringIO) -> None:
    for say in (
        Say(body=b'{"access": "CANARY-a", "access_expires_at": "x", "refresh": "CANARY-r"}'),
        Say(body=b'{"access": ["CANARY"]}'),
        Say(silent=True),
        s.problem(401, "auth.required", "the name or the password is wrong"),
    ):
        stub.answers = [say]
        with pytest.raises(DBLensError) as caught:
            login.log_in(stub.url, "ann", Secret(PASSWORD))
        assert clean(verbose(caught.value))
    good = {"access": "CANARY-a", "access_expires_at": "2030-01-01T00:00:00Z", "refresh": "CANARY-r"}
    stub.answers = [Say(body=json.dumps(good | {"name": "ann"}).encode())]
    made, _ = login.log_in(stub.url, "ann", Secret(PASSWORD))
    assert clean("\n".join(everything(made)))
    bearer: Kept = login.kept(Settings(store_url="sqlite:////x", data_folder=tmp_path), stub.url)
    login.keep(bearer._file, made)
    assert bearer.get().reveal() == "CANARY-a"
    assert clean("\n".join(everything(RemoteWorkspace(_wired(Service(stub.url, bearer))))))
    assert clean(logged.getvalue())


def _wired(service: Service) -> Any:
    from dblens.client.workspace import Wire

    return Wire(service, silent)


def test_where_it_is_shown_at_all(stub: Stub, workspace: Any) -> None:
    """The token leaves in one header of one request to one address, and nowhere else."""
    stub.answers = [Say(body=b'"x"')]
    workspace.audit.head()
    (asked,) = stub.asked
    shown = [name for name, value in asked.headers.items() if TOKEN in value]
    assert shown == ["authorization"]
    assert TOKEN not in asked.path
    assert TOKEN.encode() not in asked.body
