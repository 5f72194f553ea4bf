"""From a request to a call of an operation and back. One `Call` per operation of the table, one `Place` per path."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import anyio
import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dblens.api import again, arguments, auth, problems
from dblens.api.identity import Identity, wish
from dblens.api.limits import Requests
from dblens.api.problems import Refusal, Rejected
from dblens.api.streams import Flowing
from dblens.api.work import Work
from dblens.errors import DBLensError, NotAuthenticated
from dblens.query import stream
from dblens.redaction import Secret
from dblens.store.runs import Run
from dblens.workspace import wire
from dblens.workspace.house import House
from dblens.workspace.principal import Principal
from dblens.workspace.registry import Operation

BODY: Final = 4 * 1024 * 1024
SLOW: Final = 30.0
"""Seconds in which a body has to come."""
JSON: Final = "application/json"
_MEDIA: Final = {"query.run": stream.MEDIA_TYPE, "query.write": stream.MEDIA_TYPE}


class Answer(Protocol):
    """What a handler returns: an ASGI application for the rest of the request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""


Handler = Callable[[Request], Awaitable[Answer]]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What every handler works with."""

    house: House
    identity: Identity
    threads: Work
    requests: Requests
    body: int = BODY
    workspace: Callable[[Principal], Any]
    """Makes the doors for a request."""
    stopping: threading.Event
    """Set when the server is told to stop: what streams for long ends."""


class Place:
    """A path: its methods, and the one place where their errors become answers."""

    def __init__(self, service: Service, path: str, handlers: Mapping[str, Handler]) -> None:
        self.service, self.path, self.handlers = service, path, dict(handlers)
        allowed = {*self.handlers, "OPTIONS"} | ({"HEAD"} if "GET" in self.handlers else set())
        self.allow = ", ".join(sorted(allowed))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to this path."""
        request = Request(scope, receive)
        request.state.route = self.path
        try:
            answer = await self._answer(request)
        except ClientDisconnect:
            return
        except (DBLensError, Refusal) as error:
            known = getattr(request.state, "user", None) is not None
            answer = problems.answer(error, request.state.request_id, authenticated=known)
        await answer(scope, receive, _bodiless(send) if request.method == "HEAD" else send)

    async def _answer(self, request: Request) -> Answer:
        address = request.client.host if request.client is not None else "unix"
        self.service.requests.hit("address", address)
        if request.method == "OPTIONS":
            return Response(None, 204, {"Allow": self.allow})
        handler = self.handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise Refusal(405, f"{self.path} has no such method", hint=self.allow, headers={"Allow": self.allow})
        return await handler(request)


class Call:
    """The route of one operation."""

    def __init__(self, service: Service, about: Operation, route: wire.Route) -> None:
        self.service, self.about, self.route = service, about, route
        self.sink = next((name for name, place in route.places.items() if place == "sink"), None)
        self.creates = about.mutates and route.method == "POST"
        self.lane = "heavy" if about.cost == "heavy" else "normal"
        self.secret = again.issues_secrets(about.result)

    async def __call__(self, request: Request) -> Answer:
        """Find out who asks, read what they give, do it, answer."""
        if self.sink is not None and request.method == "HEAD":
            raise Refusal(405, "what streams has no HEAD", headers={"Allow": "GET, OPTIONS"})
        who = await principal(self.service, request, self.about.name)
        in_body = self.route.method in ("POST", "PATCH")
        body = await read_body(request, self.service.body) if in_body else b""
        given = arguments.arguments(
            self.about,
            self.route,
            request.path_params,
            request.scope.get("query_string", b"").decode("latin-1"),
            arguments.json_object(body) if body else {},
        )
        key = self._key(request)
        if self.sink is not None:
            return self._flowing(request, who, given, self.sink)
        if key is None:
            return await self.service.threads.run(self._done, who, given, lane=self.lane)
        covered = msgspec.json.encode((request.url.path, sorted(request.path_params.items()))) + b"\0" + body

        def once() -> Response:
            return again.once(
                self.service.house,
                who,
                key,
                operation=self.about.name,
                request=covered,
                secret=self.secret,
                do=lambda: self._done(who, given),
            )

        return await self.service.threads.run(once, lane=self.lane)

    def _key(self, request: Request) -> str | None:
        found = request.headers.getlist(again.HEADER)
        if not found or not self.creates:
            return None
        if len(found) > 1 or not again.is_key(found[0]):
            raise arguments.refused([Rejected(field=again.HEADER, message="1 to 255 visible ASCII characters, once")])
        return found[0]

    def _method(self, who: Principal) -> Callable[..., Any]:
        return method_of(self.service.workspace(who), self.about)

    def _done(self, who: Principal, given: Mapping[str, Any]) -> Response:
        result = self._method(who)(**given)
        if self.about.long and isinstance(result, Run):
            return Response(encoded(result), 202, {"Location": f"{wire.PREFIX}/runs/{result.id}"}, JSON)
        if result is None:
            return Response(None, 204)
        return Response(encoded(result), 201 if self.about.verb == "create" else 200, media_type=JSON)

    def _flowing(self, request: Request, who: Principal, given: Mapping[str, Any], sink: str) -> Flowing:
        method = self._method(who)
        accepted = request.headers.get("accept", "")
        return Flowing(
            self.service.threads,
            lambda write: method(**given, **{sink: write}),
            framed=wire.FRAMES in accepted,
            media_type=_MEDIA.get(self.about.name)
            or {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}.get(
                str(given.get("format")), "application/octet-stream"
            ),
            request_id=request.state.request_id,
        )


class Entry:
    """The route of a way in: nobody is known yet."""

    def __init__(self, service: Service, way: auth.Way) -> None:
        self.service, self.way = service, way

    async def __call__(self, request: Request) -> Answer:
        """Read what is given, do it, answer."""
        way = self.way
        given = None
        wanted = wish(request)
        keys = arguments.parsed(request.scope.get("query_string", b"").decode("latin-1"))
        wrong = [Rejected(field=key[:100], message="unknown in the query") for key in keys]
        if way.method == "POST":
            body = await read_body(request, 64 * 1024)
            found = arguments.json_object(body) if body else {}
            if way.takes is None:
                arguments.fields({}, found, "", wrong)
            else:
                given = arguments.value(way.takes, found, "", wrong)
        if wrong:
            raise arguments.refused(wrong)
        return await self.service.threads.run(self._done, wanted, given, lane="entrance")

    def _done(self, wanted: Any, given: Any) -> Response:
        result = self.way.do(self.service.house, self.service.identity, wanted, given)
        return Response(None, 204) if result is None else Response(encoded(result), 200, media_type=JSON)


async def principal(service: Service, request: Request, operation: str | None = None) -> Principal:
    """Return who asks. Raises NotAuthenticated, PermissionDenied, NotFound, RateLimited."""
    wanted = wish(request)
    service.requests.look("stranger", wanted.caller.address)
    try:
        found = await service.threads.run(lambda: service.identity.principal(wanted, operation=operation), lane="short")
    except NotAuthenticated:
        service.requests.hit("stranger", wanted.caller.address)
        raise
    request.state.user = found.user_id
    service.requests.hit("principal", found.user_id)
    return found


async def read_body(request: Request, most: int) -> bytes:
    """Return the body: JSON, whole, not too large, not too slow. Raises Refusal."""
    said = request.headers.get("content-length")
    if said is not None and said.isdigit() and int(said) > most:
        raise _too_large(most)
    data = bytearray()
    with anyio.move_on_after(SLOW) as waited:
        async for part in request.stream():
            data += part
            if len(data) > most:
                raise _too_large(most)
    if waited.cancelled_caught:
        raise Refusal(408, f"the body did not come within {SLOW:.0f} s", headers={"Connection": "close"})
    if data:
        _json_only(request)
    return bytes(data)


def _json_only(request: Request) -> None:
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = rest.strip().lower().replace('"', "")
    if kind.strip().lower() != JSON or charset not in ("", "charset=utf-8"):
        raise Refusal(415, "the body is not application/json", hint="Content-Type: application/json, in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed", hint="send it as it is")


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most} bytes", headers={"Connection": "close"})


def method_of(workspace: Any, about: Operation) -> Callable[..., Any]:
    """Return an operation's method, bound to a workspace."""
    module, _, _name = about.door.rpartition(".")
    found: Callable[..., Any] = getattr(getattr(workspace, module.rpartition(".")[2]), about.method)
    return found


def encoded(value: object) -> bytes:
    """Return a result as JSON. A secret in one is a defect: then there is no answer."""
    return msgspec.json.encode(value, enc_hook=_no_secret)


def _no_secret(value: object) -> Any:
    if isinstance(value, Secret):
        raise TypeError("a result holds a secret")
    raise TypeError(f"a {type(value).__name__} does not travel")


def _bodiless(send: Send) -> Send:
    """Send an answer without its body, as HEAD wants it."""

    async def out(message: Any) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return out
