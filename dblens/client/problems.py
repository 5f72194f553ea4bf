"""The service's answers as the errors that the same call raises in this process: by code, with message, hint and all they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dblens import errors
from dblens.errors import ConnectionFailed, DBLensError, revived
from dblens.redaction import scrub

_LONGEST: Final = 8 * 1024 * 1024
_MORE: Final = ("retry_after", "feature", "why", "verdict", "confirm", "warnings")
"""What errors know beside message and hint."""
_BY_STATUS: Final[Mapping[int, type[DBLensError]]] = {
    401: errors.NotAuthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.InvalidInput,
    429: errors.RateLimited,
}


def problem(given: Mapping[str, Any]) -> DBLensError:
    """Return the error that a problem document tells of. A code of a newer service is an error without a class of its own."""
    code = str(given.get("code") or DBLensError.code)
    hint = given.get("hint")
    message = scrub(str(given.get("detail") or given.get("title") or code))
    error = revived(code, message, scrub(str(hint)) if hint else None)
    for name in _MORE:
        known, told = getattr(error, name, _MORE), given.get(name)
        told = tuple(map(str, told)) if isinstance(known, tuple) and isinstance(told, list) else told
        if known is not _MORE and told is not None and (known is None or isinstance(told, type(known))):
            setattr(error, name, told)
    return error


def answered(status: int, headers: Mapping[str, str], body: bytes, address: str) -> DBLensError:
    """Return the error that an answer is. One that no DBLens wrote (a proxy's) becomes ConnectionFailed, or what its status says."""
    found = document(headers, body)
    if found is not None:
        error = problem(found)
    elif 300 <= status < 400:
        where = headers.get("location", "").split("?")[0].rpartition("@")[2]
        error = ConnectionFailed(
            f"{address} answers with a redirect{f' to {scrub(where)}' if where else ''}",
            hint="DBLENS_URL has to be the service's own address: a token is not sent on",
        )
    elif status in _BY_STATUS:
        error = revived(_BY_STATUS[status].code, f"{address} answers {status}", "the answer is not of a DBLens service")
    else:
        error = ConnectionFailed(f"{address} answers {status}", hint="is it a DBLens service, and is it up?")
    after = headers.get("retry-after", "")
    if isinstance(error, errors.RateLimited) and after.isascii() and after.isdigit():
        error.retry_after = int(after)
    return error


def document(headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
    """Return an answer's problem document, None when it has none."""
    if not headers.get("content-type", "").startswith("application/problem+json") or len(body) > _LONGEST:
        return None
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None
