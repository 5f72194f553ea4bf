"""The doors over HTTP, made from the doors themselves: an operation's method here has its name, signature and words, and its route.

There is no list of calls here: what the table of operations and its one rule (`wire.route`) say is what can be called.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import inspect
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import msgspec

from dblens.errors import ConnectionFailed, InvalidInput, PermissionDenied
from dblens.redaction import Secret
from dblens.workspace.operation import Door
from dblens.workspace.registry import Operation
from dblens.workspace.wire import Route, allows_none, route

if TYPE_CHECKING:
    from dblens.client.service import Body, Query
    from dblens.client.workspace import Wire


class Request(msgspec.Struct, frozen=True):
    """A call as it travels. `sink` is where the answer's body goes."""

    method: str
    path: str
    query: Query
    body: Body | None
    sink: Callable[[bytes], object] | None = None

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.path!r})"


class RemoteDoor:
    """A noun of a service."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._wire.service.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a remote workspace holds a token and is not pickled")


@functools.cache
def remote(kind: type[Door]) -> type[RemoteDoor]:
    """Return the class that offers a door's operations over HTTP, each with the signature and the words it has there."""
    methods = {name: _method(function, about) for name, function, about in operations(kind)}
    return type(kind.__name__, (RemoteDoor,), {"__doc__": kind.__doc__, "__module__": __name__, **methods})


def operations(kind: type) -> Iterator[tuple[str, Callable[..., Any], Operation]]:
    """Yield the operations of a door: name, method, what the table says."""
    for name in dir(kind):
        function = inspect.getattr_static(kind, name)
        about = getattr(function, "__operation__", None)
        if isinstance(about, Operation):
            yield name, function, about


def _method(function: Callable[..., Any], about: Operation) -> Callable[..., Any]:
    where = route(about)

    def call(door: RemoteDoor, /, *args: Any, **kwargs: Any) -> Any:
        report = kwargs.pop("report", None) if about.long else None
        bound = about.signature.bind(door, *args, **kwargs)
        given = dict(list(bound.arguments.items())[1:])
        if where is None:
            raise PermissionDenied(f"{about.name} is refused: it is for one's own machine only")
        return door._wire.call(about, packed(about, where, given), report)

    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(call, name, getattr(function, name))
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    call.__operation__ = about  # type: ignore[attr-defined]
    return call


# ----------------------------------------------------------------------------------------------------------------- what is sent


def packed(about: Operation, where: Route, given: Mapping[str, Any]) -> Request:
    """Return a call as it travels; what was not given has its default there. Raises InvalidInput for what cannot travel."""
    path, query, body, sink = where.path, [], {}, None
    for name, value in given.items():
        match where.places[name]:
            case "path":
                path = path.replace(f"{{{name}}}", _segment(name, value))
            case "query" if name in where.spread:
                query += _fields(name, value)
            case "query":
                query += _pairs(name, value)
            case "sink":
                sink = value
            case "body":
                body[name] = value
    if where.method not in ("POST", "PATCH"):
        return Request(where.method, path, query, None, sink)
    _octets(about, body)  # what cannot travel is said now, and not from within the connection
    return Request(where.method, path, query, functools.partial(_octets, about, body), sink)


def _octets(about: Operation, body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError) as error:
        told = type(error).__name__ if isinstance(error, UnicodeError) else str(error)
    raise InvalidInput(f"{about.name}: what was given cannot travel: {told}")


def _plain(value: Any) -> Any:
    """Return what JSON has no word for. A secret travels to the one address that it is meant for."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, types.MappingProxyType):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no plain value")


def _segment(name: str, value: Any) -> str:
    text = _text(name, value)
    if not text:
        raise InvalidInput(f"{name} is empty")
    return _quoted(name, text).replace(".", "%2E") if set(text) == {"."} else _quoted(name, text)


def _quoted(name: str, text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeError:
        raise InvalidInput(f"{name} is {text!a}", hint="it is no text") from None


def _fields(name: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, msgspec.Struct):
        raise InvalidInput(f"{name} is {value!r}", hint="a record of its own type")
    defaults = {field.name: field.default for field in msgspec.structs.fields(value)}
    return [
        pair
        for field in value.__struct_fields__
        if getattr(value, field) != defaults[field]
        for pair in _pairs(field, getattr(value, field))
    ]


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, list | tuple | set | frozenset):
        return [pair for each in value for pair in _pairs(name, each)]
    text = _text(name, value)
    _quoted(name, text)
    return [(name, text)]


def _text(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return _text(name, value.value)
        case str() | int() | float() | uuid.UUID():
            return str(value)
        case dt.datetime() | dt.date():
            return value.isoformat()
        case _:
            raise InvalidInput(f"{name} is a {type(value).__name__}", hint="a plain value")


# ----------------------------------------------------------------------------------------------------------------- what is had


@functools.lru_cache(maxsize=1024)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_special)


def _special(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"no way to read {kind}")


def unpacked(about: Operation, given: bytes | object, address: str) -> Any:
    """Return a result as the operation's own type, from JSON or its plain values. Raises ConnectionFailed when it is none."""
    if about.result is type(None) or (given == b"" and (about.result is Any or allows_none(about.result))):
        return None
    try:
        if isinstance(given, bytes):
            return _decoder(about.result).decode(given)
        return msgspec.convert(given, about.result, dec_hook=_special)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        told = str(error)
    raise ConnectionFailed(
        f"{address} answers to {about.name} what is not known here: {told}",
        hint="are the service and this DBLens of different versions?",
    )
