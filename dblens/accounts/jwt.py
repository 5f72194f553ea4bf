"""Access tokens of a session: JWT signed with Ed25519, good for ten minutes, saying who and which session and nothing more.

What somebody may do is not in them: it is read from the store on each request, and so is whether the session still lives.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import secrets
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dblens.errors import InvalidInput, NotAuthenticated

REFUSED = "the login is not valid any more"
LONGEST = 4096
_TYPE = "at+jwt"
_CLAIMS = ("exp", "iat", "sub", "sid", "jti", "aud", "iss")
_AHEAD = 60


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says, once it is known to be ours and of now."""

    user_id: str
    session_id: str
    token_id: str
    expires_at: dt.datetime


class Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """A public key."""

    kid: str
    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    alg: Literal["EdDSA"] = "EdDSA"
    use: Literal["sig"] = "sig"
    x: str


class Jwks(msgspec.Struct, frozen=True, kw_only=True):
    """The public keys whose signatures are believed at this moment, the one that signs first."""

    keys: tuple[Jwk, ...]


class Keys:
    """The key that signs, and those whose signatures are believed: by the name `kid`, which is only ever looked up here."""

    def __init__(
        self,
        signing: Ed25519PrivateKey,
        *believed: Ed25519PublicKey,
        issuer: str = "dblens",
        audience: str = "dblens-api",
        lifetime: dt.timedelta = dt.timedelta(minutes=10),
    ) -> None:
        if not dt.timedelta(0) < lifetime <= dt.timedelta(hours=1):
            raise InvalidInput(f"access tokens live for {lifetime}", hint="more than nothing, at most an hour")
        self.issuer, self.audience, self.lifetime = issuer, audience, lifetime
        self._signing = signing
        self.kid = key_id(signing.public_key())
        self.public = {key_id(key): key for key in (signing.public_key(), *believed)}

    def __repr__(self) -> str:
        return f"Keys(kid={self.kid!r})"

    def __reduce__(self) -> Any:
        raise TypeError("signing keys are not pickled")

    def sign(self, user_id: str, session_id: str, *, now: dt.datetime) -> str:
        """Return a token for a session."""
        import jwt

        payload = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user_id,
            "sid": session_id,
            "jti": secrets.token_hex(16),
            "iat": int(now.timestamp()),
            "exp": int((now + self.lifetime).timestamp()),
        }
        return jwt.encode(payload, self._signing, algorithm="EdDSA", headers={"kid": self.kid, "typ": _TYPE})

    def read(self, token: str, *, now: dt.datetime) -> Claims:
        """Return what a token of ours says. Raises NotAuthenticated, with one answer for every fault."""
        import jwt

        try:
            if len(token) > LONGEST:
                raise jwt.InvalidTokenError("too long")
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            key = self.public.get(kid) if isinstance(kid, str) else None
            if key is None or header.get("typ") != _TYPE:
                raise jwt.InvalidTokenError("an unknown key, or not a token of a session")
            payload = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=self.audience,
                issuer=self.issuer,
                # The times are judged below, by the caller's clock.
                options={
                    "require": list(_CLAIMS),
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            return _claims(payload, now)
        except (jwt.PyJWTError, UnicodeError, ValueError) as error:
            raise NotAuthenticated(REFUSED, hint="log in again") from error

    def jwks(self) -> Jwks:
        """Return the public keys as others read them (RFC 7517, RFC 8037)."""
        return Jwks(keys=tuple(Jwk(kid=kid, x=_public(key)["x"]) for kid, key in self.public.items()))


def named(token: str) -> str | None:
    """Return the key that a token says it was signed with, None when it says nothing readable. Nothing of it is believed."""
    import jwt

    try:
        kid = None if len(token) > LONGEST else jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, UnicodeError, ValueError):
        return None
    return kid if isinstance(kid, str) else None


def key_id(key: Ed25519PublicKey) -> str:
    """Return a key's thumbprint (RFC 7638): its name follows from itself."""
    text = json.dumps(_public(key), separators=(",", ":"), sort_keys=True)
    return _base64(hashlib.sha256(text.encode()).digest())


def _public(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(payload: dict[str, Any], now: dt.datetime) -> Claims:
    import jwt

    at, until, texts = payload["iat"], payload["exp"], [payload[name] for name in ("sub", "sid", "jti")]
    if not all(isinstance(text, str) and text for text in texts):
        raise jwt.InvalidTokenError("a claim is of another type")
    if type(at) is not int or type(until) is not int:
        raise jwt.InvalidTokenError("a time is not a whole number of seconds")
    moment = now.timestamp()
    if not at - _AHEAD <= moment < until:
        raise jwt.ExpiredSignatureError("not of now")
    user_id, session_id, token_id = texts
    expires_at = dt.datetime.fromtimestamp(min(until, 253402300799), dt.UTC)
    return Claims(user_id=user_id, session_id=session_id, token_id=token_id, expires_at=expires_at)
