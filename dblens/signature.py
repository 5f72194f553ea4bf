"""A signature, the public keys that it can be checked with, and the check: what anybody needs away from the store that signed.

Ed25519 over `message(…)`: the words `dblens/signature/1`, the purpose, the key's id, the time and the data, each with its length before
it, so that a signature over one thing is none over another. A key's id is the beginning of the SHA-256 of its public part, so a list
of keys cannot give one key the name of another.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from dblens.errors import InvalidInput

ALGORITHM: Final = "Ed25519"
KEYS_VERSION: Final = 1


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature: by which key, over what kind of thing, when. `value` is base64."""

    key_id: str
    algorithm: str = ALGORITHM
    purpose: str
    at: dt.datetime
    value: str


class PublicKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The public part of a store key, in base64; a retired one only proves what was signed before."""

    id: str
    algorithm: str = ALGORITHM
    public: str
    created_at: dt.datetime
    retired_at: dt.datetime | None = None


class KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The public keys of a store, as they are handed to whoever is to check its signatures."""

    dblens_keys: int
    keys: tuple[PublicKey, ...]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature proves. `unknown`: the key is not among those given, so nothing was proven; `wrong` says why."""

    state: Literal["signed", "wrong", "unknown"]
    key_id: str
    at: dt.datetime
    why: str = ""


def framed(*parts: bytes) -> bytes:
    """Join parts so that no other parts give the same octets: each after its length."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def message(data: bytes, *, purpose: str, key_id: str, at: dt.datetime) -> bytes:
    """Return the octets that are signed."""
    micros = (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    return framed(b"dblens/signature/1", purpose.encode(), key_id.encode(), str(micros).encode(), data)


def key_id(public: bytes) -> str:
    """Return the id of a public key: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:32]


def judge(data: bytes, signature: Signature, keys: Iterable[PublicKey], *, purpose: str) -> Judgement:
    """Say what a signature over the data proves, given the keys that are trusted. Raises InvalidInput for a key that is none."""
    found = next((key for key in keys if key.id == signature.key_id), None)
    if found is None:
        return Judgement(
            state="unknown", key_id=signature.key_id, at=signature.at, why="its key is not among those given"
        )
    why = _wrong(data, signature, found, purpose)
    return Judgement(state="wrong" if why else "signed", key_id=found.id, at=signature.at, why=why)


def _wrong(data: bytes, signature: Signature, key: PublicKey, purpose: str) -> str:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if signature.algorithm != ALGORITHM or key.algorithm != ALGORITHM:
        return f"the algorithm is {signature.algorithm!r}, not {ALGORITHM}"
    if signature.purpose != purpose:
        return f"it was made for {signature.purpose!r}, not for {purpose!r}"
    if signature.at.tzinfo is None:
        return "its time has no zone"
    try:
        value = base64.b64decode(signature.value, validate=True)
        public = Ed25519PublicKey.from_public_bytes(_raw(key))
        public.verify(value, message(data, purpose=purpose, key_id=key.id, at=signature.at))
    except (InvalidSignature, binascii.Error, ValueError):
        return "it is not the signature of this content"
    if key.retired_at is not None and signature.at > key.retired_at:
        return f"it was made after its key was retired ({key.retired_at:%Y-%m-%d %H:%M:%S} UTC)"
    return ""


def _raw(key: PublicKey) -> bytes:
    try:
        raw = base64.b64decode(key.public, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32 or key_id(raw) != key.id:
        raise InvalidInput(f"the key {key.id!r} is not what its id says", hint="export the public keys again")
    return raw


def write_keys(keys: Iterable[PublicKey]) -> bytes:
    """Return the public keys as a JSON document."""
    return msgspec.json.format(msgspec.json.encode(KeyFile(dblens_keys=KEYS_VERSION, keys=tuple(keys))), indent=2)


def read_keys(document: bytes) -> tuple[PublicKey, ...]:
    """Read what `write_keys` wrote; every key is what its id says. Raises InvalidInput."""
    try:
        read = msgspec.json.decode(document, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"not a file of public keys: {error}", hint="`dblens migrate notebook --export-key FILE`"
        ) from error
    if read.dblens_keys != KEYS_VERSION:
        raise InvalidInput(f"the public keys have version {read.dblens_keys}", hint="a newer DBLens wrote them")
    for key in read.keys:
        _raw(key)
        if any(at is not None and at.tzinfo is None for at in (key.created_at, key.retired_at)):
            raise InvalidInput(f"a time of the key {key.id!r} has no zone", hint="export the public keys again")
    return read.keys
