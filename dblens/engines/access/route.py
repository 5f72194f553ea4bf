"""An address whose host was resolved and checked: sessions connect there and nowhere else, however often they reconnect."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dblens.engines.access.watch import Watch
from dblens.engines.base import Url


class Route(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Where a driver really connects. Made by `connect`, never by input.

    `addresses`: checked IP addresses, empty when `socket` is a Unix socket. `dial`: open a socket to a host that the driver names, checked
    again each time. `parameters`: the driver's own keywords (TLS, authentication). `trusted`: the server is on this machine. `watch`: bounds what a server may do while a session opens.
    """

    addresses: tuple[str, ...]
    port: int
    dial: Callable[[str, int, float], socket.socket]
    watch: Watch
    socket: str | None = None
    trusted: bool = False
    parameters: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Route({', '.join(self.addresses) or self.socket}:{self.port})"


class Routed(Url, frozen=True, kw_only=True, omit_defaults=True):
    """A URL with its checked route. It prints like the URL."""

    route: Route

    def __repr__(self) -> str:
        return f"Routed({str(self)!r})"


def route_of(url: Url) -> Route | None:
    """Return a URL's checked route, None for a raw URL (single-user mode)."""
    return url.route if isinstance(url, Routed) else None
