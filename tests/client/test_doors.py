"""The remote doors are made of the table and of nothing else, and a call travels whole."""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest

import dblens.client
import dblens.workspace
from dblens.client.doors import packed, remote
from dblens.client.service import Service
from dblens.client.workspace import NOUNS, RemoteWorkspace, Wire
from dblens.errors import ConnectionFailed, InvalidInput, PermissionDenied
from dblens.events import silent
from dblens.redaction import Secret
from dblens.store.audit_find import Filter
from dblens.store.rows import Page
from dblens.workspace import Workspace, registry, wire
from dblens.workspace.audit import Audit
from dblens.workspace.operation import Door, operation
from dblens.workspace.registry import Operation, Table
from tests.client.stub import Say, Stub

Make = Callable[..., Service]
TABLE = registry.load()


def doors() -> dict[str, type[Door]]:
    """Return the doors of a workspace by their nouns."""
    there = {module.name for module in iter_modules(dblens.workspace.__path__)}
    return {
        name: getattr(import_module(f"dblens.workspace.{name}"), kind) for name, kind in NOUNS.items() if name in there
    }


@pytest.mark.parametrize("about", list(TABLE), ids=lambda about: about.name)
def test_every_operation_has_a_remote_method_with_its_signature_and_words(about: Operation) -> None:
    module, _, name = about.door.rpartition(".")
    noun = module.rpartition(".")[2]
    assert NOUNS[noun] == name, "an operation that no noun of a workspace leads to"
    here = getattr(doors()[noun], about.method)
    there = getattr(remote(doors()[noun]), about.method)
    assert inspect.signature(there) == inspect.signature(here)
    assert inspect.getdoc(there) == inspect.getdoc(here)
    assert (there.__name__, there.__qualname__, there.__module__) == (here.__name__, here.__qualname__, here.__module__)
    assert there.__operation__ is about


@pytest.mark.parametrize("noun", sorted(doors()))
def test_every_remote_method_is_an_operation_of_the_table(noun: str) -> None:
    kind = remote(doors()[noun])
    public = [name for name in dir(kind) if not name.startswith("_")]
    assert public
    for name in public:
        about = getattr(kind, name).__operation__
        assert TABLE.get(about.name) is about
        assert about.method == name
        where = wire.route(about)
        assert (where is None) == about.local


def test_the_nouns_are_those_of_the_workspace() -> None:
    assert set(NOUNS) == {name for name in vars(Workspace) if not name.startswith("_")}
    assert set(doors()) == set(NOUNS)


def test_no_operation_is_named_in_the_client() -> None:
    """There is one list of calls, and it is not here; what a run and a login need beside it is in `wire.PREFIX` paths."""
    names = {about.name for about in TABLE}
    for path in Path(dblens.client.__file__).parent.glob("*.py"):
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        assert not names & {text for text in texts if isinstance(text, str)}, path.name


def test_completion_and_help(service: Make) -> None:
    ws: Any = RemoteWorkspace(Wire(service(), silent))
    assert set(NOUNS) <= set(dir(ws))
    assert {"own", "read", "export"} <= set(dir(ws.audit))
    assert "newest first" in (inspect.getdoc(ws.audit.own) or "")
    assert str(inspect.signature(ws.audit.own)).startswith("(which: ")
    assert ws.audit is ws.audit


# ------------------------------------------------------------------------------------------------------------------------ packing

MINE = Table()


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What something is made of."""

    name: str
    password: Secret
    roots: tuple[Path, ...] = ()


class Made(msgspec.Struct, frozen=True):
    """What came of it."""

    id: str
    at: dt.datetime
    tags: tuple[str, ...] = ()


class Backups(Door):
    """A noun."""

    @operation("backup.list", table=MINE)
    def list(
        self,
        which: Filter = Filter(),
        *,
        tags: tuple[str, ...] = (),
        deep: bool = False,
        before: dt.datetime | None = None,
        limit: int = 50,
    ) -> Page[Made]:
        """List."""
        raise AssertionError

    @operation("backup.read", table=MINE)
    def read(self, backup: str) -> Made:
        """Read."""
        raise AssertionError

    @operation("backup.find", table=MINE)
    def find(self, name: str) -> Made | None:
        """Find."""
        raise AssertionError

    @operation("backup.anything", table=MINE)
    def anything(self) -> Any:
        """Return anything."""
        raise AssertionError

    @operation("backup.create", mutates=True, table=MINE)
    def create(self, spec: Spec, *, count: int = 1, note: str | None = None) -> Made:
        """Create."""
        raise AssertionError

    @operation("backup.delete", mutates=True, table=MINE)
    def delete(self, backup: str) -> None:
        """Delete."""
        raise AssertionError

    @operation("backup.check", mutates=True, local=True, table=MINE)
    def check(self, backup: str) -> None:
        """Check, at this machine."""
        raise AssertionError


@pytest.fixture
def backups(service: Make) -> Any:
    return remote(Backups)(Wire(service(), silent))


MADE = Say(201, b'{"id": "b1", "at": "2026-11-23T12:00:00Z", "tags": ["x"], "of_tomorrow": 1}')


def test_a_query(stub: Stub, backups: Any) -> None:
    stub.answers = [Say(body=b'{"items": [{"id": "b1", "at": "2026-11-23T12:00:00Z"}], "after": "b1"}')]
    since = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
    found = backups.list(Filter(action="team.*", since=since), tags=("a b", "é&="), deep=True, before=since, limit=7)
    assert found == Page(items=(Made("b1", dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)),), after="b1")
    asked = urlsplit(stub.asked[0].path)
    assert (stub.asked[0].method, asked.path) == ("GET", "/api/v1/backups")
    moment = since.isoformat()
    assert parse_qs(asked.query, strict_parsing=True) == {
        "action": ["team.*"],
        "since": [moment],
        "before": [moment],
        "tags": ["a b", "é&="],
        "deep": ["true"],
        "limit": ["7"],
    }


def test_what_was_not_given_is_not_sent(stub: Stub, backups: Any) -> None:
    stub.answers = [Say(body=b'{"items": []}')]
    backups.list()
    assert stub.asked[0].path == "/api/v1/backups"


@pytest.mark.parametrize("name", ["shop", "a/b", "ü é", "..", ".", "%2e", "a?b#c", "a;b", "x" * 300])
def test_a_name_is_one_part_of_the_path(stub: Stub, backups: Any, name: str) -> None:
    stub.answers = [MADE]
    backups.read(name)
    head, _, part = stub.asked[0].path.rpartition("/")
    assert (head, unquote(part)) == ("/api/v1/backups", name)
    assert set(part) != {"."}


def test_a_body(stub: Stub, backups: Any) -> None:
    stub.answers = [MADE]
    made = backups.create(Spec(name="é", password=Secret("s3cret-s3cret"), roots=(Path("/a"),)), note=None)
    assert made == Made("b1", dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC), ("x",))
    asked = stub.asked[0]
    assert (asked.method, asked.path) == ("POST", "/api/v1/backups")
    assert json.loads(asked.body) == {"spec": {"name": "é", "password": "s3cret-s3cret", "roots": ["/a"]}, "note": None}
    assert len(asked.headers["idempotency-key"]) >= 32


def test_every_creation_has_a_key_of_its_own(stub: Stub, backups: Any) -> None:
    stub.answers = [MADE]
    for _ in range(2):
        backups.create(Spec(name="x", password=Secret("s3cret-s3cret")))
    assert len({asked.headers["idempotency-key"] for asked in stub.asked}) == 2


def test_nothing_comes_back_from_what_returns_nothing(stub: Stub, backups: Any) -> None:
    stub.answers = [Say(204, b"")]
    assert backups.delete("x") is None
    assert stub.asked[0].method == "DELETE"
    assert "idempotency-key" not in stub.asked[0].headers


def test_nothing_may_come_back_where_nothing_may_be(stub: Stub, backups: Any) -> None:
    stub.answers = [Say(204, b"")]
    assert backups.find("x") is None
    assert backups.anything() is None
    with pytest.raises(ConnectionFailed):
        backups.read("x")
    stub.answers = [Say(body=b'{"a": [1, null]}')]
    assert backups.anything() == {"a": [1, None]}


def test_what_is_for_ones_own_machine_is_refused_here(stub: Stub, backups: Any) -> None:
    with pytest.raises(PermissionDenied, match="one's own machine only"):
        backups.check("x")
    assert not stub.asked


@pytest.mark.parametrize(
    "call",
    [
        lambda b: b.read(""),
        lambda b: b.read(object()),
        lambda b: b.read("\ud800"),
        lambda b: b.list(object()),
        lambda b: b.list(tags=[{}]),
        lambda b: b.create(object()),
        lambda b: b.create(Spec(name="\ud800", password=Secret("s3cret-s3cret"))),
    ],
)
def test_what_cannot_travel_is_said_before_anything_is_sent(
    stub: Stub, backups: Any, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        call(backups)
    assert "s3cret" not in str(caught.value)
    assert not stub.asked


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"id": 1}', b"[", b"\xff"])
def test_an_answer_that_is_none_is_said(stub: Stub, backups: Any, body: bytes) -> None:
    stub.answers = [Say(body=body)]
    with pytest.raises(ConnectionFailed, match=r"answers to backup\.read what is not known here"):
        backups.read("x")


def test_a_sink_is_no_part_of_a_request() -> None:
    about: Operation = Audit.export.__operation__  # type: ignore[attr-defined]
    where = wire.route(about)
    assert where is not None
    made = packed(about, where, {"write": print, "format": "csv", "which": Filter(action="x.y")})
    assert (made.sink, list(made.query)) == (print, [("format", "csv"), ("action", "x.y")])
