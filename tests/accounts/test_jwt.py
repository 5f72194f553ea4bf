"""Attack 4: every way to make a token that is not ours look like one."""

from __future__ import annotations

import base64
import datetime as dt
import json
import pickle
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dblens.accounts.jwt import Keys, key_id
from dblens.errors import InvalidInput, NotAuthenticated

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
PRIVATE = Ed25519PrivateKey.generate()
KEYS = Keys(PRIVATE)
GOOD: dict[str, Any] = {
    "iss": "dblens",
    "aud": "dblens-api",
    "sub": "u",
    "sid": "s",
    "jti": "j",
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 600,
}


def forge(claims: dict[str, Any], key: Any = PRIVATE, algorithm: str = "EdDSA", **header: Any) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": KEYS.kid, "typ": "at+jwt"} | header)


def raw(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def refused(token: str, now: dt.datetime = NOW) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        KEYS.read(token, now=now)
    assert caught.value.message == "the login is not valid any more"
    assert len(token) < 20 or token not in str(caught.value)


def test_what_was_signed_is_read_for_ten_minutes() -> None:
    token = KEYS.sign("u", "s", now=NOW)
    claims = KEYS.read(token, now=NOW + dt.timedelta(minutes=9, seconds=59))
    assert (claims.user_id, claims.session_id) == ("u", "s")
    assert claims.expires_at == NOW + dt.timedelta(minutes=10)
    refused(token, NOW + dt.timedelta(minutes=10))
    refused(token, NOW - dt.timedelta(minutes=2))  # made in the future
    assert KEYS.sign("u", "s", now=NOW) != token  # its own jti


def test_a_token_says_who_and_which_session_and_no_role() -> None:
    payload = jwt.decode(KEYS.sign("u", "s", now=NOW), options={"verify_signature": False})
    assert sorted(payload) == ["aud", "exp", "iat", "iss", "jti", "sid", "sub"]


def test_the_forger_makes_good_tokens_when_nothing_is_wrong() -> None:
    assert KEYS.read(forge(GOOD), now=NOW).user_id == "u"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, "HS256"])
def test_alg_none(alg: Any) -> None:
    for signature in (b"", b"x" * 64):
        refused(raw({"alg": alg, "kid": KEYS.kid, "typ": "at+jwt"}, GOOD, signature))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_hmac_with_the_public_key(algorithm: str) -> None:
    import hashlib
    import hmac

    public = PRIVATE.public_key()
    for key in (
        public.public_bytes(Encoding.Raw, PublicFormat.Raw),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        KEYS.jwks().keys[0].x.encode(),
    ):
        unsigned = raw({"alg": algorithm, "kid": KEYS.kid, "typ": "at+jwt"}, GOOD).rpartition(".")[0]
        mac = hmac.new(key, unsigned.encode(), getattr(hashlib, "sha" + algorithm[2:])).digest()
        refused(f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "other",
        "../../../../dev/null",
        "/dev/null",
        "' OR 1=1 --",
        "http://evil/jwks",
        None,
        7,
        ["a"],
        {"a": 1},
        "\0",
    ],
)
def test_a_key_is_only_looked_up_by_its_name(kid: Any) -> None:
    refused(raw({"alg": "EdDSA", "kid": kid, "typ": "at+jwt"}, GOOD, b"x" * 64))
    if isinstance(kid, str):
        refused(forge(GOOD, kid=kid))  # rightly signed, but under another name


def test_a_key_in_the_token_is_not_believed() -> None:
    mine = Ed25519PrivateKey.generate()
    jwk = msgspec.to_builtins(Keys(mine).jwks().keys[0])
    refused(forge(GOOD, mine, jwk=jwk))
    refused(forge(GOOD, mine, kid=key_id(mine.public_key()), jwk=jwk, jku="http://evil/jwks", x5u="http://evil"))


@pytest.mark.parametrize("claim", ["exp", "iat", "sub", "sid", "jti", "aud", "iss"])
def test_every_claim_is_required(claim: str) -> None:
    refused(forge({name: value for name, value in GOOD.items() if name != claim}))
    refused(forge(GOOD | {claim: None}) if claim != "iss" else raw({"alg": "EdDSA"}, GOOD))


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "other"},
        {"aud": ["other", "dblens-api"]},
        {"iss": "evil"},
        {"sub": 7},
        {"sid": 7},
        {"sid": ""},
        {"jti": ["j"]},
        {"exp": "9999999999"},
        {"exp": 1e300},
        {"exp": True},
        {"exp": GOOD["iat"]},
        {"iat": GOOD["iat"] + 3600, "exp": GOOD["iat"] + 7200},
    ],
)
def test_a_claim_of_another_kind(wrong: dict[str, Any]) -> None:
    refused(forge(GOOD | wrong))


@pytest.mark.parametrize("typ", ["JWT", "run+jwt", None, 1])
def test_a_token_for_something_else_signed_with_the_same_key(typ: Any) -> None:
    token = raw({"alg": "EdDSA", "kid": KEYS.kid, "typ": typ}, GOOD).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(PRIVATE.sign(token.encode())).rstrip(b"=").decode()
    refused(f"{token}.{signature}")


def test_a_changed_token() -> None:
    token = forge(GOOD)
    head, body, signature = token.split(".")
    other = raw({}, GOOD | {"sub": "root"}).split(".")[1]
    for changed in (
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "",
        "..",
        "a.b.c",
        token + "x" * 5000,
    ):
        refused(changed)


@given(st.text(max_size=200))
def test_noise_is_refused(text: str) -> None:
    refused(text)


def test_keys_are_changed_without_ending_sessions_and_shown_nowhere() -> None:
    new = Ed25519PrivateKey.generate()
    token = KEYS.sign("u", "s", now=NOW)
    assert Keys(new, PRIVATE.public_key()).read(token, now=NOW).user_id == "u"
    with pytest.raises(NotAuthenticated):
        Keys(new).read(token, now=NOW)
    assert "Private" not in repr(KEYS)
    with pytest.raises(TypeError):
        pickle.dumps(KEYS)
    assert set(msgspec.to_builtins(KEYS.jwks().keys[0])) == {"kid", "kty", "crv", "alg", "use", "x"}
    with pytest.raises(InvalidInput):
        Keys(new, lifetime=dt.timedelta(days=1))
