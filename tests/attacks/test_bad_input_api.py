"""Every routed operation, given what it does not take: each field is named, in one answer, and nothing is written."""

from __future__ import annotations

import collections.abc
import datetime as dt
import enum
import hashlib
import types
import typing
import urllib.parse
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from dblens.redaction import Secret
from dblens.store.tables import metadata
from dblens.workspace import registry, wire
from dblens.workspace.registry import Operation, Parameter
from tests.api.conftest import World

ROUTED = [(about, route) for about in registry.load() if (route := wire.route(about)) is not None]
IDS = [about.name for about, _ in ROUTED]
CANDIDATES: tuple[Any, ...] = (7, "no such thing", True, [], {}, 1.5, [[[]]])
Case = tuple[Any, str]
"""A value that is wrong, and the field that must be named."""


def wrong(kind: Any, path: str, depth: int = 0) -> Iterator[Case]:
    """Yield JSON values that a type cannot mean, each with the field that is at fault; inside of records and lists too."""
    value = next((each for each in CANDIDATES if not _may(kind, each)), None)
    if value is not None:
        yield value, path
    if depth > 1:
        return
    if _may(kind, None) is False:
        yield None, path
    for each in _alternatives(kind):
        origin, inside = typing.get_origin(each), typing.get_args(each)
        if wire.is_struct(each):
            yield from ((value, where) for value, where in _record(each, path, depth))
        elif wire.is_list(each) and (origin is not tuple or inside[1:] == (...,)):
            yield from (([value], where) for value, where in wrong(wire.travelling(inside[0]), f"{path}[0]", depth + 1))
        elif origin in (dict, collections.abc.Mapping):
            yield from (({"a": value}, where) for value, where in wrong(inside[1], f"{path}.a", depth + 1))


def _record(kind: Any, path: str, depth: int) -> Iterator[Case]:
    config = kind.__struct_config__
    base = {} if config.tag is None else {config.tag_field: config.tag}
    yield {**base, "surprise": 1}, f"{path}.surprise"
    for field in msgspec.structs.fields(kind):
        for value, where in wrong(wire.travelling(field.type), f"{path}.{field.encode_name}", depth + 1):
            yield {**base, field.encode_name: value}, where
        if field.required:
            yield dict(base), f"{path}.{field.encode_name}"


def _alternatives(kind: Any) -> list[Any]:
    """Return the one alternative whose fields can be named: of several records none is meant without its tag."""
    kinds = [wire.travelling(each) for each in _kinds(kind)]
    records = [each for each in kinds if wire.is_struct(each)]
    tagged = [each for each in records if each.__struct_config__.tag is not None]
    others = [each for each in kinds if not wire.is_struct(each)]
    return [*(records if len(records) == 1 else tagged), *others]


def _kinds(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [inner for each in typing.get_args(kind) for inner in _kinds(each)]
    return [kind]


def _may(kind: Any, value: Any) -> bool:
    """Say whether a JSON value may mean a type, as far as its outermost kind goes."""
    found = [wire.travelling(each) for each in _kinds(kind)]
    return any(_is(each, value) for each in found)


def _is(kind: Any, value: Any) -> bool:
    origin = typing.get_origin(kind)
    if kind is Any or kind is object or isinstance(kind, typing.TypeVar):
        return True
    if origin is typing.Literal:
        return value in typing.get_args(kind) and not isinstance(value, bool)
    if wire.is_list(kind) or origin in (set, frozenset) or kind in (list, tuple, set, frozenset):
        return isinstance(value, list) and value != [[[]]]
    if wire.is_struct(kind) or origin in (dict, collections.abc.Mapping) or kind is dict:
        return isinstance(value, dict)
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (str, Secret):
        return isinstance(value, str)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(value == each.value for each in kind)
    if kind in (dt.datetime, dt.date, bytes):
        return False
    raise AssertionError(f"the test knows no {kind}")


def wrong_text(kind: Any) -> str | None:
    """Return a text that a value in a query cannot be, None where any may be."""
    if all(each in (str, type(None)) for each in _kinds(kind)):
        return "a\0b"
    if wire.is_list(kind):
        return wrong_text(typing.get_args(kind)[0])
    return None if any(each is str for each in _kinds(kind)) else "no such thing"


def cases(about: Operation, route: wire.Route) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    """Yield (query, body, field that must be named) for everything that can be wrong."""
    rest = [p for p in about.parameters if route.places[p.name] in ("query", "body")]
    if route.method in ("POST", "PATCH"):
        yield "", {"surprise": 1}, "surprise"
        yield "surprise=1", {}, "surprise"
        for p in rest:
            yield from (("", {p.name: value}, where) for value, where in wrong(wire.travelling(p.type), p.name))
            if p.required:
                yield "", {}, p.name
        return
    yield "surprise=1", None, "surprise"
    for name, kind, required in _keys(rest, route):
        text = wrong_text(kind)
        if text is not None:
            yield urllib.parse.urlencode({name: text}), None, f"{name}[0]" if wire.is_list(kind) else name
        if required:
            yield "", None, name
        if not wire.is_list(kind):
            yield f"{name}=1&{name}=2", None, name
        if name == "limit":
            yield from ((f"limit={n}", None, "limit") for n in (0, -1, 10**30))


def _keys(rest: list[Parameter], route: wire.Route) -> Iterator[tuple[str, Any, bool]]:
    for p in rest:
        if p.name in route.spread:
            yield from ((f.name, wire.travelling(f.type), f.required) for f in msgspec.structs.fields(p.type))
        else:
            yield p.name, wire.travelling(p.type), p.required


def written(house: Any) -> str:
    """Return a digest of everything in the store but the audit, its head, and when somebody was last seen."""
    digest = hashlib.sha256()
    with house.store.read() as tx:
        for table in metadata.sorted_tables:
            if table.name in ("audit", "audit_log", "meta", "sessions", "tokens"):
                rows: Any = (
                    []
                    if table.name.startswith("audit")
                    else tx.execute(sa.select(sa.func.count()).select_from(table)).all()
                )
            else:
                rows = sorted(map(repr, tx.execute(sa.select(table)).all()))
            digest.update(repr((table.name, rows)).encode())
    return digest.hexdigest()


@pytest.mark.parametrize(("about", "route"), ROUTED, ids=IDS)
def test_every_wrong_field_is_named_and_nothing_is_written(
    about: Operation, route: wire.Route, client: TestClient, world: World
) -> None:
    who = world.root() if about.noun in ("user", "settings", "store") else world.headers("acme", "admin")
    path = route.path
    for name, place in route.places.items():
        if place == "path":
            path = path.replace(f"{{{name}}}", "some-id")
    before = written(world.house)
    tried = 0
    for query, body, field in cases(about, route):
        answer = client.request(
            route.method, path + (f"?{query}" if query else ""), headers=who, **({} if body is None else {"json": body})
        )
        told = answer.json()
        assert answer.status_code == 422, (query, body, field, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        named = [each["field"] for each in told["fields"]]
        assert field in named, (query, body, field, told)
        tried += 1
    assert tried
    assert written(world.house) == before
    subject = next((name for name, place in route.places.items() if place == "path"), None)
    if subject is not None:
        for odd in ("%FF", "a%00b"):
            answer = client.request(route.method, route.path.replace(f"{{{subject}}}", odd), headers=who)
            assert answer.status_code == 422, answer.text
            assert subject in [each["field"] for each in answer.json()["fields"]]


BODIES = [(about, route) for about, route in ROUTED if route.method in ("POST", "PATCH")]


@pytest.mark.parametrize(("about", "route"), BODIES, ids=[about.name for about, _ in BODIES])
def test_what_is_no_object_of_json_is_refused(
    about: Operation, route: wire.Route, client: TestClient, world: World
) -> None:
    who = {**world.headers("acme", "admin"), "Content-Type": "application/json"}
    path = route.path.replace("{", "").replace("}", "")
    for body, status in (
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b"NaN", 400),
    ):
        answer = client.request(route.method, path, headers=who, content=body)
        assert answer.status_code == status, (body[:20], answer.text)
    answer = client.request(route.method, path, headers={**who, "Content-Type": "text/plain"}, content=b"{}")
    assert answer.status_code == 415
    answer = client.request(route.method, path, headers=who, content=b" " * (4 * 1024 * 1024 + 1))
    assert answer.status_code == 413


def test_the_test_finds_what_is_not_named() -> None:
    """The generator itself: each kind of type has something that it is not."""

    class Inner(msgspec.Struct, tag="inner"):
        n: int
        names: list[str] = []

    found = {where for _, where in wrong(Inner | None, "x")}
    assert found == {"x", "x.surprise", "x.n", "x.names", "x.names[0]"}
    assert [value for value, _ in wrong(str, "x")] == [7, None]
    assert next(wrong(typing.Literal["a"], "x"))[0] == 7
