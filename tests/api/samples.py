"""The smallest request that an operation accepts, from the types of its parameters alone."""

from __future__ import annotations

import datetime as dt
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from dblens.redaction import Secret
from dblens.workspace import registry, wire
from dblens.workspace.registry import Operation

ROUTES = [(about, route) for about in registry.load() if (route := wire.route(about)) is not None]


def sample(kind: Any) -> Any:
    """Return a value as JSON has it."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(next(each for each in inside if each is not type(None)))
    if origin is Literal:
        return inside[0]
    if wire.is_struct(kind):
        tag = {kind.__struct_config__.tag_field: kind.__struct_config__.tag} if kind.__struct_config__.tag else {}
        return tag | {f.encode_name: sample(f.type) for f in msgspec.structs.fields(kind) if f.required}
    if wire.is_list(kind):
        return [] if not inside or inside[0] is Any else [sample(inside[0])]
    if kind in (str, Any, object):
        return "x"
    if kind is Secret:
        return "plum orbit kettle 4471"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind)).value
    plain = {int: 1, float: 1.0, bool: True, bytes: "", dt.datetime: "2026-11-23T12:00:00Z", dt.date: "2026-11-23"}
    return plain.get(kind, {})


def request(about: Operation, route: wire.Route, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a test client sends: the required parameters, with some of them given."""
    values = {p.name: sample(wire.travelling(p.type)) for p in about.parameters if p.required and not wire.is_sink(p)}
    values |= {name: value for name, value in given.items() if name in route.places}
    path = route.path
    for name, place in route.places.items():
        if place == "path":
            path = path.replace(f"{{{name}}}", quote(str(values.pop(name)), safe=""))
    if route.method in ("GET", "DELETE"):
        query: dict[str, Any] = {}
        for name, value in values.items():
            query |= value if isinstance(value, dict) else {name: value}
        texts = {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items()}
        return {"method": route.method, "url": path, "params": texts}
    return {"method": route.method, "url": path, "json": values}
