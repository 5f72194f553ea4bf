"""One service, spoken to over HTTP: connections that are kept, retries that do nothing twice, a token that nothing shows.

A request that only reads is tried again when the connection or a proxy fails. One that changes something is tried again when it was
never sent, or once under its idempotency key. Redirects are not followed and TLS is always verified: the token is for one address.

Nothing of httpx leaves this module: its exceptions carry the request with its headers, so they end here, and what is raised instead
is raised outside of the frames that hold a revealed secret.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol, TypeAlias
from urllib.parse import quote, urlencode

import msgspec

from dblens.client.address import address, on_this_machine
from dblens.client.problems import answered, document
from dblens.errors import ConnectionFailed, Unsupported
from dblens.redaction import Secret, scrub
from dblens.version import __version__

if TYPE_CHECKING:
    import httpx

Body: TypeAlias = Callable[[], bytes]
Query: TypeAlias = Sequence[tuple[str, str]]

ORGANIZATION: Final = "X-DBLens-Organization"
AS: Final = "X-DBLens-As"
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 600.0
"""How long an operation may be silent. A long one answers at once, with its run."""
_PAUSES: Final = (0.2, 0.6, 1.5)
_KEPT_SECONDS: Final = 4.0
"""Less than the five seconds after which uvicorn closes an idle connection."""
_PATIENCE: Final = 60.0


class Bearer(Protocol):
    """Where a request's token comes from."""

    def get(self) -> Secret | None:
        """Return the token of the next request, None for one without. Raises NotAuthenticated when nobody is logged in."""

    def renew(self, used: Secret) -> Secret | None:
        """Return another than the one that was refused, None when there is none."""


class Answer(msgspec.Struct, frozen=True):
    """What the service said: status, headers in small letters, the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status})"


class _Failure(msgspec.Struct, frozen=True):
    """What went wrong on the way. `unsent` and `wrong`: the service has certainly not seen the request."""

    kind: Literal["unsent", "unanswered", "late", "wrong"]
    text: str


class Service:
    """A DBLens service at an address, for one user. Safe for several threads; not pickled."""

    def __init__(
        self,
        url: str,
        bearer: Bearer,
        *,
        organization: str | None = None,
        super_admin: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = address(url)
        self._bearer, self._organization, self._super_admin, self._sleep = bearer, organization, super_admin, sleep
        self._guard = threading.Lock()
        self._http: tuple[int, httpx.Client] | None = None

    def __repr__(self) -> str:
        return f"Service({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection to a service holds a token and is not pickled")

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Body | None = None,
        safe: bool | None = None,
        key: str | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Return the answer to a request. `safe`: it changes nothing, so it may be sent again; `key`: it is done once under that key.

        Raises ConnectionFailed, and the error that the service answers with.
        """
        safe = method == "GET" if safe is None else safe
        tried, begun = 0, time.monotonic()
        while True:
            found = self._authorized(method, path, query, body, key, seconds)
            again = self._again(found, tried, safe=safe, key=key, waited=time.monotonic() - begun)
            if again is None:
                return self._whole(found, changes=not safe)
            self._sleep(again)
            tried += 1

    def _again(
        self, found: Answer | _Failure, tried: int, *, safe: bool, key: str | None, waited: float
    ) -> float | None:
        """Return how long to wait before the request is sent again, None when it is not."""
        if isinstance(found, _Failure):
            allowed = found.kind == "unsent" or (
                found.kind == "unanswered" and (safe or (key is not None and not tried))
            )
        elif found.status == 409 and key is not None and tried and waited < _PATIENCE:
            after = found.headers.get("retry-after", "")  # the first one is still at work
            return min(5.0, float(after)) if after.isdigit() else None
        else:
            told = document(found.headers, found.body)
            allowed = safe and found.status in (502, 503) and (told is None or told.get("code") == "store.failed")
        if not allowed or tried >= len(_PAUSES) or (waited > CONNECT_SECONDS and key is None):
            return None
        return _PAUSES[tried] * random.uniform(0.7, 1.3)  # noqa: S311 - so that many clients do not come back at once

    def _whole(self, found: Answer | _Failure, *, changes: bool) -> Answer:
        if isinstance(found, _Failure):
            raise self._lost(found, changes=changes)
        if not 200 <= found.status < 300:
            raise answered(found.status, found.headers, found.body, self.url)
        return found

    def _lost(self, found: _Failure, *, changes: bool) -> ConnectionFailed:
        hint = "is DBLENS_URL right, and is the service up?"
        if found.kind in ("unanswered", "late") and changes:
            hint = "whether it was done is not known: look before you try again"
        return ConnectionFailed(f"no answer from {self.url}: {found.text}", hint=hint)

    def _authorized(
        self, method: str, path: str, query: Query, body: Body | None, key: str | None, seconds: float
    ) -> Answer | _Failure:
        """Send a request with the token; when that is refused, once more with a new one."""
        token = self._bearer.get()
        found = self._once(method, path, query, body, self._headers(key, body), token, seconds)
        if isinstance(found, Answer) and token is not None and _refused(found.status, found.headers):
            renewed = self._bearer.renew(token)
            if renewed is not None:
                found = self._once(method, path, query, body, self._headers(key, body), renewed, seconds)
        return found

    def _headers(self, key: str | None, body: Body | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"dblens/{__version__}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._organization is not None:
            headers[ORGANIZATION] = quote(self._organization, safe="")
        if self._super_admin:
            headers[AS] = "super_admin"
        return headers

    def _once(
        self,
        method: str,
        path: str,
        query: Query,
        body: Body | None,
        headers: Mapping[str, str],
        token: Secret | None,
        seconds: float,
    ) -> Answer | _Failure:
        """Send one request. Whatever goes wrong is returned: a traceback through these frames would show what they hold."""
        stopped: BaseException
        try:
            with self._open(method, path, query, body, headers, token, seconds) as response:
                return Answer(response.status_code, dict(response.headers), response.read())
        except KeyboardInterrupt as error:
            stopped = type(error)()
        except _errors() as error:
            return _failure(error)
        raise stopped

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Iterator[Stream]:
        """Yield an answer whose body is read as it comes. Raises ConnectionFailed, and the error that the service answers with."""
        token = self._bearer.get()
        made = self._begun(method, path, query, body, headers, token, seconds)
        if isinstance(made, Stream) and token is not None and _refused(made.status, made.headers):
            renewed = self._bearer.renew(token)
            if renewed is not None:
                made.close()
                made = self._begun(method, path, query, body, headers, renewed, seconds)
        if isinstance(made, _Failure):
            raise self._lost(made, changes=False)
        try:
            if not 200 <= made.status < 300:
                raise answered(made.status, made.headers, b"".join(made.parts()), self.url)
            yield made
        finally:
            made.close()

    def _begun(
        self,
        method: str,
        path: str,
        query: Query,
        body: Body | None,
        headers: Mapping[str, str] | None,
        token: Secret | None,
        seconds: float,
    ) -> Stream | _Failure:
        stack = contextlib.ExitStack()
        stopped: BaseException
        try:
            whole = {**self._headers(None, body), **(headers or {})}
            response = stack.enter_context(self._open(method, path, query, body, whole, token, seconds))
        except KeyboardInterrupt as error:
            stopped = type(error)()
        except _errors() as error:
            return _failure(error)
        else:
            return Stream(self.url, response, stack)
        raise stopped

    def _open(
        self,
        method: str,
        path: str,
        query: Query,
        body: Body | None,
        headers: Mapping[str, str],
        token: Secret | None,
        seconds: float,
    ) -> AbstractContextManager[httpx.Response]:
        library = _httpx()
        sent = dict(headers)
        if token is not None:
            sent["Authorization"] = f"Bearer {token.reveal()}"
        url = self.url + path + (f"?{urlencode(query)}" if query else "")
        made: AbstractContextManager[httpx.Response] = self._client().stream(
            method,
            url,
            content=None if body is None else body(),
            headers=sent,
            timeout=library.Timeout(CONNECT_SECONDS, read=seconds, write=60.0, pool=60.0),
        )
        return made

    def _client(self) -> httpx.Client:
        """Return this process's pool of connections: a child that was forked makes its own."""
        with self._guard:
            if self._http is None or self._http[0] != os.getpid():
                self._http = (os.getpid(), _pool(self.url))
            return self._http[1]

    def close(self) -> None:
        """Close the connections that are kept. The next request opens new ones."""
        with self._guard:
            if self._http is not None and self._http[0] == os.getpid():
                self._http[1].close()
            self._http = None


class Stream:
    """An answer that is still coming."""

    def __init__(self, url: str, response: httpx.Response, stack: contextlib.ExitStack) -> None:
        self.url, self.status = url, response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)
        self._response, self._stack = response, stack
        self._parts = response.iter_bytes()

    def __repr__(self) -> str:
        return f"Stream({self.status})"

    def parts(self) -> Iterator[bytes]:
        """Yield the body piece by piece. Raises ConnectionFailed when it is cut off."""
        while True:
            part = self._next()
            if part is None:
                return
            if isinstance(part, _Failure):
                raise ConnectionFailed(f"the answer of {self.url} was cut off: {part.text}", hint="ask again")
            yield part

    def _next(self) -> bytes | _Failure | None:
        stopped: BaseException
        try:
            return next(self._parts, None)
        except KeyboardInterrupt as error:
            stopped = type(error)()
        except _errors() as error:
            return _failure(error)
        raise stopped

    def close(self) -> None:
        """Leave the rest."""
        with contextlib.suppress(*_errors()):
            self._stack.close()


def _refused(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a token was refused. When the login is only too old for what was asked, another token does not help."""
    return status == 401 and "insufficient_user_authentication" not in headers.get("www-authenticate", "")


# ------------------------------------------------------------------------------------------------------------------------ httpx


def _httpx() -> ModuleType:
    """Return httpx, when it is there. Raises Unsupported."""
    try:
        import httpx
    except ImportError:
        raise Unsupported("a remote workspace", "httpx is not installed", hint="pip install 'dblens[client]'") from None
    return httpx


def _pool(url: str) -> httpx.Client:
    import httpx

    return httpx.Client(
        http2=False,
        follow_redirects=False,
        trust_env=not on_this_machine(url),  # proxies, and the certificates of SSL_CERT_FILE
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        limits=httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=_KEPT_SECONDS),
    )


def _errors() -> tuple[type[Exception], ...]:
    httpx = _httpx()
    return (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)


def _failure(error: Exception) -> _Failure:
    import httpx

    unsent = (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
    )
    text = scrub(str(error)).strip() or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        text = f"no connection within {CONNECT_SECONDS:.0f} s"
    kind: Literal["unsent", "unanswered", "late", "wrong"] = "unanswered"
    if isinstance(error, unsent):
        kind = "unsent"
    elif isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL | httpx.LocalProtocolError):
        kind = "wrong"
    elif isinstance(error, httpx.TimeoutException):
        kind, text = "late", "it said nothing for too long"
    return _Failure(kind, text)
