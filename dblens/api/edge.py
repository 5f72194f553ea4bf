"""What every request passes first and every answer last: pure ASGI, so that streams flow through it unbuffered.

Prefix, request id, foreign origins refused, security headers, one line in the log without query, headers or body, and the last resort:
an answer for an error that nobody caught.
"""

from __future__ import annotations

import logging
import secrets
import time
import urllib.parse
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dblens.api import problems
from dblens.api.problems import Refusal

HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
)
log = logging.getLogger("dblens.api.access")


class Prefix:
    """Serve below a prefix whether or not the proxy in front strips it. `uvicorn --root-path` would put it in twice."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say where the application is mounted, and route by the path as it was sent: `a%2Fb` is one part of it, not two."""
        if scope["type"] == "http":
            raw = scope.get("raw_path")
            path = raw.decode("latin-1") if raw else urllib.parse.quote(scope["path"], safe="/%:@!$&'()*+,;=~-._")
            if self.prefix and not f"{path}/".startswith(f"{self.prefix}/"):
                path = self.prefix + path
            scope = {**scope, "path": path, "root_path": self.prefix}
        await self.app(scope, receive, send)


class Edge:
    """The outermost layer of our own."""

    def __init__(self, app: ASGIApp, *, origins: Callable[[], tuple[str, ...]] = tuple) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _no_socket(send))
            return
        request_id = secrets.token_hex(8)
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        begun, told = time.perf_counter(), {"status": 0, "bytes": 0}

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                there = {name.lower() for name, _ in message["headers"]}
                more = [header for header in HEADERS if header[0] not in there]
                message = {**message, "headers": [*message["headers"], *more, (b"x-request-id", request_id.encode())]}
            elif message["type"] == "http.response.body":
                told["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            self._own_origin(Request(scope))
            await self.app(scope, receive, out)
        except Refusal as error:
            await problems.answer(error, request_id)(scope, receive, out)
        except Exception as error:
            if told["status"]:  # the server cuts the connection: nothing may take what was sent for the whole
                problems.log.error("request %s failed after its beginning", request_id, exc_info=error)
                raise
            await problems.answer(error, request_id)(scope, receive, out)
        finally:
            _note(scope, told, time.perf_counter() - begun)

    def _own_origin(self, request: Request) -> None:
        """Refuse what a page of another site sends. Nothing here works by cookie, so this is the second line."""
        found = request.headers.getlist("origin")
        if not found:
            return
        host = request.headers.get("host", "")
        for origin in found:
            parts = urllib.parse.urlsplit(origin)
            if origin in self.origins() or (parts.scheme in ("http", "https") and host and parts.netloc == host):
                continue
            raise Refusal(403, "a page of another origin asks", code="permission.denied")


def _note(scope: Scope, told: MutableMapping[str, int], seconds: float) -> None:
    """Write one line: never the query, a header or a body. What somebody chose is shown as ASCII without control characters."""
    state = scope.get("state", {})
    client = scope.get("client")
    path = str(state.get("route") or "-")
    log.info(
        "%s %s %s %d %.1f ms %d bytes %s %s",
        state.get("request_id"),
        scope["method"] if scope["method"].isascii() and scope["method"].isalpha() else "-",
        path,
        told["status"],
        seconds * 1000,
        told["bytes"],
        client[0] if client else "unix",
        state.get("user") or "-",
    )


async def _no_socket(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})
