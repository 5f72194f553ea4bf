"""`…/dblens/api/*` of a Jupyter server: the one way from a page to the service, in the name of this server's owner.

Who may use the Jupyter server is Jupyter's decision; its cookies and tokens stay here, and the service's stay away from the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any, Final

import httpx
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.iostream import StreamClosedError

from dblens.errors import ConnectionFailed, DBLensError, NotAuthenticated
from dblens.jupyter.upstream import Upstream, problem
from dblens.redaction import Secret
from dblens.version import __version__

BODY: Final = 64 << 20
"""Octets of a request's body."""
_BLOCK: Final = 1 << 18
_ASKED: Final = frozenset(
    {"accept", "content-type", "if-none-match", "idempotency-key", "last-event-id", "range", "x-request-id",
     "x-dblens-as", "x-dblens-organization"}
)  # fmt: skip
"""What is passed on of a request; so never Cookie, Authorization or X-XSRFToken."""
_OWN: Final = frozenset(
    {"connection", "content-length", "content-type", "date", "keep-alive", "proxy-authenticate", "proxy-authorization", "server",
     "set-cookie", "te", "trailer", "transfer-encoding", "upgrade"}
)  # fmt: skip
"""What is not passed on of an answer: it is between two neighbours, or theirs to set."""


class _Handler(APIHandler):
    """An answer with a type of its own; `APIHandler` would call every one JSON."""

    auth_resource = "dblens"
    _kind = "application/json"

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        """End the answer."""
        return super().finish(*args, set_content_type=self._kind, **kwargs)

    def _owner_only(self) -> None:
        """Refuse a visitor of a shared server: they would act as its owner. Raises HTTPError."""
        owner = os.environ.get("JUPYTERHUB_USER")
        if owner and self.current_user.username != owner:
            raise web.HTTPError(403, reason="this is for the owner of the server; use your own")


class About(_Handler):
    """What a page has to know before it asks anything: versions that fit, and how this server reaches the service."""

    def initialize(self, upstream: Upstream) -> None:
        """Take the service."""
        self.upstream = upstream

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer without starting anything."""
        self._owner_only()
        await self.finish({"version": __version__, "mode": "single" if self.upstream.alone else "team"})


class Forward(_Handler):
    """One request, passed on and streamed back."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

    def initialize(self, upstream: Upstream) -> None:
        """Take the service."""
        self.upstream = upstream
        self._work: asyncio.Task[Any] | None = None

    @web.authenticated  # Jupyter's login, and its token against forged requests
    @authorized
    async def _forward(self, path: str) -> None:
        self._owner_only()
        parts = path.split("/")
        if ".." in parts or "." in parts or len(self.request.body) > BODY:
            raise web.HTTPError(400, reason="no such path, or a body that is too large")
        if parts[:2] == ["v1", "auth"]:
            raise web.HTTPError(404, reason="logins are made by this server, not by its pages")
        self._work = asyncio.current_task()
        try:
            answer = await self._asked(path)
        except DBLensError as error:
            await self._failed(error)
            return
        try:
            await self._answered(answer)
        finally:
            await answer.aclose()  # also when the page has gone: the service stops what it does for it

    get = head = post = put = patch = delete = _forward

    def on_connection_close(self) -> None:
        """Stop asking when the page has gone."""
        if self._work is not None:
            self._work.cancel()

    async def _asked(self, path: str) -> httpx.Response:
        """Return the service's answer, not read yet. Raises ConnectionFailed, NotAuthenticated."""
        used: Secret | None = None
        again = False
        while True:
            service = await self.upstream.service()
            token = await self.upstream.authorization(used)
            headers = {name: value for name, value in self.request.headers.get_all() if name.lower() in _ASKED}
            request = service.client.build_request(
                self.request.method or "GET",
                f"{service.base}/api/{path}" + (f"?{self.request.query}" if self.request.query else ""),
                headers={**headers, "Authorization": f"Bearer {token.reveal()}", "Accept-Encoding": "identity"},
                content=self.request.body or None,
            )
            try:
                answer = await service.client.send(request, stream=True)
            except httpx.TransportError as error:
                harmless = self.request.method in ("GET", "HEAD") or isinstance(error, httpx.ConnectError)
                if not again and harmless and await self.upstream.ended():
                    again = True  # its child was gone: the next one is asked, unless the first may have begun to change something
                    continue
                raise ConnectionFailed(
                    f"the DBLens service is not reachable: {type(error).__name__}",
                    hint="try again; its words are in the log",
                ) from error
            if answer.status_code != 401 or used is not None:
                return answer
            await answer.aclose()
            used = token  # it has ended, or the service was started anew: once more with another

    async def _answered(self, answer: httpx.Response) -> None:
        self.set_status(answer.status_code)
        for name, value in answer.headers.multi_items():
            if name.lower() not in _OWN:
                self.set_header(name, value)
        if "content-length" in answer.headers:
            self.set_header("Content-Length", answer.headers["content-length"])
        self._kind = answer.headers.get("content-type", "application/json")
        self.set_header("Content-Type", self._kind)
        if self.request.method != "HEAD":
            try:
                async for block in answer.aiter_raw(_BLOCK):
                    self.write(block)
                    await self.flush()  # waits for the page: so does the service, and its database
            except (httpx.TransportError, httpx.StreamError) as error:
                # A clean end would make a part look like the whole.
                self.log.warning("an answer of the DBLens service was cut off: %s", type(error).__name__)
                with contextlib.suppress(StreamClosedError):
                    self.detach().close()
                return
            except StreamClosedError:
                return  # the page has gone
        await self.finish()

    async def _failed(self, error: DBLensError) -> None:
        status = 401 if isinstance(error, NotAuthenticated) else 502
        self.set_status(status)
        self._kind = "application/problem+json"
        await self.finish(problem(error, status))
