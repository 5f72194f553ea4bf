"""`Idempotency-Key`: a request that is sent twice under one key is done once, and answered twice alike.

What is kept of the request is its HMAC under the store's key: a password in it cannot be guessed from the store. An answer that holds
what is issued once (a new token) is not kept at all: sent again, the request is told that it was done.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.responses import Response

from dblens.errors import Conflict
from dblens.redaction import Secret
from dblens.store import idempotency
from dblens.workspace.house import House
from dblens.workspace.principal import Principal

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_LONGEST: Final = 256 * 1024


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is kept."""

    status: int
    body: str | None
    location: str | None = None


def is_key(text: str) -> bool:
    """Return whether a text may be a key."""
    return _KEY.fullmatch(text) is not None


def once(
    house: House,
    principal: Principal,
    key: str,
    *,
    operation: str,
    request: bytes,
    secret: bool,
    do: Callable[[], Response],
) -> Response:
    """Return the answer to a request that is done at most once. Raises Conflict, and what `do` raises."""
    digest = hmac.new(_secret(house), _covered(principal, operation, request), hashlib.sha256).digest()
    now = house.clock()
    with house.store.write() as tx:
        before = idempotency.begin(tx, principal.user_id, key, operation=operation, request=digest, now=now)
    if before is not None:
        return _repeated(msgspec.convert(before, Answered), key)
    try:
        response = do()
    except BaseException:
        with house.store.write() as tx:
            idempotency.forget(tx, principal.user_id, key)
        raise
    body = bytes(response.body)
    keep = not secret and len(body) <= _LONGEST
    kept = Answered(
        status=response.status_code, body=body.decode() if keep else None, location=response.headers.get("location")
    )
    with house.store.write() as tx:
        idempotency.finish(tx, principal.user_id, key, msgspec.to_builtins(kept))
    return response


def _repeated(kept: Answered, key: str) -> Response:
    if kept.body is None:
        raise Conflict(
            f"the request under the key {key!r} was done; its answer is not kept",
            hint="look whether it is there; use a new key to do it once more",
        )
    headers = {"Idempotent-Replayed": "true"}
    if kept.location is not None:
        headers["Location"] = kept.location
    return Response(kept.body.encode(), kept.status, headers, "application/json" if kept.body else None)


def _covered(principal: Principal, operation: str, request: bytes) -> bytes:
    # A token that may do less does not get the answer that was given to its owner.
    limits = principal.scopes, principal.connections
    return msgspec.json.encode((operation, principal.org_id, principal.role, *limits)) + request


def _secret(house: House) -> bytes:
    return hmac.new(house.keyring.first.octets(), b"dblens idempotency", hashlib.sha256).digest()


_ISSUED: Final = ("password", "passphrase", "secret", "token", "code", "link", "credential", "access", "refresh")


def issues_secrets(kind: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Return whether a result holds what nobody may read in the store: a secret, or a text that is named like one."""
    if kind is Secret:
        return True
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind in seen:
            return False
        seen |= {kind}
        return any(
            (_is_text(f.type) and any(word in f.name.lower().split("_") for word in _ISSUED))
            or issues_secrets(f.type, seen)
            for f in msgspec.structs.fields(kind)
        )
    return any(issues_secrets(each, seen) for each in getattr(kind, "__args__", ()))


def _is_text(kind: Any) -> bool:
    return kind is str or str in getattr(kind, "__args__", ())
