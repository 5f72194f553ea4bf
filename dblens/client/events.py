"""Server-sent events, read from an answer as it comes (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from dblens.errors import ConnectionFailed

_LONGEST: Final = 8 * 1024 * 1024


class Sent(msgspec.Struct, frozen=True):
    """An event. `id` is the last one that the stream gave, to go on from."""

    event: str
    data: str
    id: str


def events(parts: Iterable[bytes], last_id: str = "") -> Iterator[Sent]:
    """Yield the events of a stream; one that the end cut off is dropped. Raises ConnectionFailed for what is no such stream."""
    name, data = "message", list[str]()
    for line in _lines(parts):
        if not line:
            if data:
                yield Sent(name, "\n".join(data), last_id)
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                data.append(value)
            case "event":
                name = value
            case "id" if "\0" not in value:
                last_id = value
            case _:  # a comment that keeps the connection open, or a field of tomorrow
                pass


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for part in parts:
        rest += part
        if len(rest) > _LONGEST:
            raise ConnectionFailed("a line of events does not end", hint="is it a DBLens service?")
        # A carriage return at the very end may be the first half of a line's end.
        held = b"\r" if rest.endswith(b"\r") else b""
        *whole, rest = rest[: len(rest) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest += held
        for line in whole:
            yield line.decode("utf-8", "replace")
