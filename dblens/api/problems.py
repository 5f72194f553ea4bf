"""Errors as answers: problem documents (RFC 9457). What is inside of the service stays there, under an id that is in its log."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from dblens.errors import (
    ConfirmationNeeded,
    Conflict,
    DBLensError,
    NotAuthenticated,
    RateLimited,
    Unsupported,
    VerificationFailed,
)
from dblens.redaction import scrub

MEDIA_TYPE: Final = "application/problem+json"
TITLES: Final = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Permission denied",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timed out",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid input",
    429: "Too many requests",
    499: "Cancelled",
    500: "Internal error",
    501: "Not supported",
    502: "A database or server did not do its part",
    503: "Service not available",
    504: "Timed out",
}
_MOST: Final = 100
_LONGEST: Final = 2000
log = logging.getLogger("dblens.api")


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A field that was not accepted (`spec.port`, `names[2]`), and why."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong (RFC 9457). `code` is the error's, `id` the request's: the service's log has more under it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    fields: tuple[Rejected, ...] = ()
    """Every field that was rejected."""
    id: str | None = None
    retry_after: int | None = None
    feature: str | None = None
    why: str | None = None
    verdict: Any = None
    confirm: str | None = None
    """What the same request says once somebody looked at the warnings."""
    warnings: tuple[str, ...] = ()


class Refusal(Exception):  # noqa: N818 - no error of the library: a request that HTTP itself refuses
    """A request that is no call of an operation: malformed, too large, to nowhere."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "input.invalid",
        hint: str | None = None,
        fields: Sequence[Rejected] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code, self.hint = status, detail, code, hint
        self.fields, self.headers = tuple(fields), dict(headers or {})


def problem_of(error: BaseException, request_id: str) -> Problem:
    """Return what a client is told of an error. Of an unexpected one nothing but the id."""
    if isinstance(error, Refusal):
        return _problem(error.status, error.code, error.detail, error.hint, request_id, fields=error.fields[:_MOST])
    if isinstance(error, DBLensError):
        more: dict[str, Any] = {}
        if isinstance(error, RateLimited):
            more["retry_after"] = error.retry_after
        if isinstance(error, Unsupported):
            more |= {"feature": error.feature, "why": error.why}
        if isinstance(error, ConfirmationNeeded):
            more |= {"confirm": error.confirm, "warnings": tuple(_clean(text) for text in error.warnings[:_MOST])}
        if isinstance(error, VerificationFailed):
            more["verdict"] = _built(error.verdict)
        more |= {"fields": tuple(getattr(error, "fields", ()))[:_MOST]}
        return _problem(error.http, error.code, error.message, error.hint, request_id, **more)
    return _problem(500, "error", "unexpected error", "the service's log has it under this id", request_id)


def answer(error: BaseException, request_id: str, *, authenticated: bool = False) -> Response:
    """Return the answer that tells an error; an unexpected one is written to the log with its traceback."""
    told = problem_of(error, request_id)
    if told.status == 500:
        log.error("request %s failed", request_id, exc_info=error)
    headers = dict(error.headers) if isinstance(error, Refusal) else {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = _STEP_UP if authenticated else "Bearer"
    if told.retry_after is not None:
        headers["Retry-After"] = str(max(1, told.retry_after))
    elif told.status == 503:
        headers["Retry-After"] = "5"
    elif isinstance(error, Conflict) and error.hint == "wait for it":  # the same request is at work
        headers["Retry-After"] = "1"
    return Response(msgspec.json.encode(told), told.status, headers, MEDIA_TYPE)


_STEP_UP: Final = 'Bearer error="insufficient_user_authentication", max_age=900'
"""RFC 9470: the token is good, the login too old."""


def _problem(status: int, code: str, detail: str, hint: str | None, request_id: str, **more: Any) -> Problem:
    return Problem(
        type=f"urn:dblens:problem:{code}",
        title=TITLES.get(status, "Error"),
        status=status,
        detail=_clean(detail),
        code=code,
        hint=None if hint is None else _clean(hint),
        id=request_id,
        **more,
    )


def _clean(text: str) -> str:
    """Return a text without secrets and lone surrogates, of bounded length."""
    text = scrub(text)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return text.encode("utf-8", "replace").decode()


def _built(value: object) -> Any:
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return None
