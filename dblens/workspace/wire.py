"""How an operation travels: its route, where each parameter goes, how a long answer is framed. One rule for the service and its client.

    list → GET /nouns        read → GET /nouns/{noun}       create → POST /nouns      update → PATCH, delete → DELETE /nouns/{noun}
    anything else → /nouns[/{noun}]/verb: GET when it only reads and all it takes fits into a query, POST otherwise

The subject is the required parameter that has the noun's name. An operation for one's own machine has no route.
In a query a parameter that has its default's value is left out, a list is its key again and again, and the fields of a record (those in
`spread`) are keys of their own. In a body every parameter is a field. What is written into a sink is the answer's body, as it is or in frames.
"""

from __future__ import annotations

import collections.abc
import datetime as dt
import enum
import types
import typing
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from dblens.errors import EngineError
from dblens.workspace.registry import Operation, Parameter

Place: TypeAlias = Literal["path", "query", "body", "sink"]
Method: TypeAlias = Literal["GET", "POST", "PATCH", "DELETE"]
PREFIX: Final = "/api/v1"
_ALONE: Final = frozenset({"account", "audit", "catalog", "search", "settings", "store"})
"""Nouns there is one of: their path has no plural."""
_SCALARS: Final = (str, int, float, bool, dt.datetime, dt.date)
_NEVER_IN_A_URL: Final = ("password", "passphrase", "secret", "token", "dsn", "url", "uri", "credential", "sql", "text")
"""Addresses are logged on their way, so what these name travels in a body."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where an operation is found. `places` says for each parameter where it travels; `spread` are the structs whose fields do."""

    method: Method
    path: str
    places: dict[str, Place]
    spread: tuple[str, ...] = ()


def plural(noun: str) -> str:
    """Return a noun as it stands in a path."""
    if noun in _ALONE:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def route(about: Operation) -> Route | None:
    """Return where an operation is found, None for one that does not travel."""
    if about.local:
        return None
    subject = next((p.name for p in about.parameters if p.name == about.noun and p.required), None)
    rest = [p for p in about.parameters if p.name != subject and not is_sink(p)]
    queryable = all(fits_query(p) for p in rest) and not _clash(rest)
    base = f"{PREFIX}/{plural(about.noun)}"
    whole = base if subject is None else f"{base}/{{{subject}}}"
    one = subject is not None or about.noun in _ALONE
    method: Method
    match about.verb:
        case "list" if queryable and not about.mutates and about.noun not in _ALONE:
            method, path = "GET", whole
        case "read" if queryable and not about.mutates and one:
            method, path = "GET", whole
        case "create" if about.mutates:
            method, path = "POST", whole
        case "update" if about.mutates and one:
            method, path = "PATCH", whole
        case "delete" if about.mutates and queryable and one:
            method, path = "DELETE", whole
        case verb:
            path = f"{whole}/{verb.replace('_', '-')}"
            method = "GET" if queryable and not about.mutates and not about.long else "POST"
    where: Place = "query" if method in ("GET", "DELETE") else "body"
    places: dict[str, Place] = {p.name: where for p in rest}
    if subject is not None:
        places[subject] = "path"
    for parameter in about.parameters:
        if is_sink(parameter):
            places[parameter.name] = "sink"
    spread = tuple(p.name for p in rest if where == "query" and is_struct(p.type))
    return Route(method=method, path=path, places=places, spread=spread)


def is_sink(parameter: Parameter) -> bool:
    """Return whether a parameter takes what is written: over the network that is the answer's body."""
    return typing.get_origin(parameter.type) is collections.abc.Callable


def is_struct(kind: Any) -> bool:
    """Return whether a type is a record."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def travelling(kind: Any) -> Any:
    """Return a type as it travels: without what lives in this process only, like the `Link` in `str | Link`."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kept = [travelling(each) for each in inside if not _at_home(each)]
        return typing.Union[tuple(kept)] if kept else kind  # noqa: UP007 - made of what is only known now
    if origin in (collections.abc.Sequence, list) and inside:
        return list[travelling(inside[0])]  # type: ignore[misc]
    if origin is tuple and len(inside) == 2 and inside[1] is ...:
        return tuple[travelling(inside[0]), ...]  # type: ignore[misc]
    return kind


def _at_home(kind: Any) -> bool:
    from dblens.migrate.link import Link

    return isinstance(kind, type) and issubclass(kind, Link)


def fits_query(parameter: Parameter) -> bool:
    """Return whether whatever a parameter may hold can stand in a query: plain values, lists of them, a record of both.

    A query cannot tell nothing from an empty list, nor say None where None is not what happens without a word.
    """
    kind = travelling(parameter.type)
    if is_struct(kind):
        fields = msgspec.structs.fields(kind)
        simple = kind.__struct_config__.tag is None and not parameter.required and parameter.default == _made(kind)
        return simple and all(
            _fits(f.name, travelling(f.type), f.required, None if f.required else f.default) for f in fields
        )
    return _fits(parameter.name, kind, parameter.required, parameter.default)


def _made(kind: Any) -> Any:
    """Return a record of nothing but defaults, None when it has a field without one."""
    try:
        return kind()
    except TypeError:
        return None


def _fits(name: str, kind: Any, required: bool, default: Any) -> bool:
    if any(word in name.lower().split("_") for word in _NEVER_IN_A_URL) or not _plain(kind):
        return False
    if is_list(kind):
        return not required and default is not msgspec.NODEFAULT and default is not None and not len(default)
    return not (allows_none(kind) and (required or default is not None))


def allows_none(kind: Any) -> bool:
    """Return whether None is a value of a type."""
    return kind is type(None) or type(None) in typing.get_args(kind)


def is_list(kind: Any) -> bool:
    """Return whether a type is a list of any length."""
    return typing.get_origin(kind) in (collections.abc.Sequence, list, tuple)


def _clash(rest: list[Parameter]) -> bool:
    """Return whether two keys of the query would have one name."""
    names: list[str] = []
    for p in rest:
        names += [f.name for f in msgspec.structs.fields(p.type)] if is_struct(p.type) else [p.name]
    return len(names) != len(set(names))


def _plain(kind: Any, *, nested: bool = False) -> bool:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return all(each is type(None) or (_plain(each, nested=True) and not is_list(each)) for each in inside)
    if origin is Literal:
        return all(isinstance(each, str) for each in inside)
    if origin in (collections.abc.Sequence, list) or (origin is tuple and len(inside) == 2 and inside[1] is ...):
        return not nested and _plain(inside[0], nested=True)
    return isinstance(kind, type) and (issubclass(kind, _SCALARS) or issubclass(kind, enum.Enum))


# ------------------------------------------------------------------------------------------------------------------------ frames

FRAMES: Final = "application/vnd.dblens.frames"
"""What a client accepts to get the sink's bytes with their end: each frame is its length in 4 octets, big-endian, and its bytes.

A frame of length 0 says that one more comes, the last: JSON, `{"status": "ok", "bytes": …, "result": …}` or
`{"status": "error", "bytes": …, "error": <problem>}`. An answer without it is not complete, whatever HTTP says.
"""
LONGEST_FRAME: Final = 16 * 1024 * 1024


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last frame. `bytes` were sent before it; `result` is what the operation returned, `error` the problem that ended it."""

    status: Literal["ok", "error"]
    bytes: int
    result: Any = None
    error: dict[str, Any] | None = None


def frame(data: bytes) -> bytes:
    """Return a frame; nothing for no bytes, because an empty frame is the beginning of the end."""
    return len(data).to_bytes(4, "big") + data if data else b""


def ending(end: End) -> bytes:
    """Return the last frame."""
    data = msgspec.json.encode(end)
    return bytes(4) + len(data).to_bytes(4, "big") + data


class Frames:
    """Takes an answer apart as it comes: `feed` yields the sink's bytes, `finish` returns the end. Both raise EngineError."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._last = False
        self._bytes = 0
        self._end: End | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the sink's bytes that are whole."""
        self._buffer += data
        while self._end is None and len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if size > LONGEST_FRAME:
                raise EngineError("the answer is not what was asked for: a frame is too long", hint="try again")
            if len(self._buffer) < 4 + size:
                return
            found = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            if self._last:
                self._end = msgspec.json.decode(found, type=End)
            elif size == 0:
                self._last = True
            else:
                self._bytes += size
                yield found

    def finish(self) -> End:
        """Return the end, after the last byte came. Raises EngineError when there was none, or bytes are missing."""
        if self._end is None or self._end.bytes != self._bytes:
            raise EngineError(
                f"the answer was cut off after {self._bytes} bytes", hint="try again: what came is not complete"
            )
        return self._end
