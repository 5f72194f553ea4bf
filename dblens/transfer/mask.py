"""Masking: values that leave the source changed for good, and consistently, so that joins still work.

The copier and the verifier each have their own implementation of the one definition below, and meet only in the digest.

| kind | text of the target value, from the canonical text of the source value; NULL stays NULL |
|---|---|
| hash | HMAC-SHA256 with the caller's key, first 32 hexadecimal digits (fewer when the column is shorter); for whole numbers the first 8 octets, big endian, modulo 2^(bits-1) |
| redact | `REDACTED`, cut to the column's length |
| partial | first and last character kept, every other one `*`; all `*` up to four characters |
| null | NULL |
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Literal

import msgspec

from dblens.errors import InvalidInput
from dblens.schema.types import DataType, Integer, Text

MaskKind = Literal["hash", "redact", "partial", "null"]
DIGITS = 32


class Mask(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one column is masked. The key itself is never stored; `key_id` tells keys apart (8 hexadecimal digits)."""

    kind: MaskKind
    key_id: str | None = None


def key_id(key: bytes) -> str:
    """Return what a plan remembers of a key."""
    return hashlib.sha256(b"dblens mask key\0" + key).hexdigest()[:8]


def masked_type(mask: Mask, type: DataType) -> DataType:
    """Return the type that a masked column takes: numbers stay numbers under hash, everything else becomes text."""
    if mask.kind == "null" or isinstance(type, Text):
        return type
    if mask.kind == "hash" and isinstance(type, Integer):
        return type
    return Text(DIGITS if mask.kind == "hash" else None)


def _require(mask: Mask, key: bytes | None) -> bytes:
    if key is None or key_id(key) != mask.key_id:
        raise InvalidInput(
            f"the mask key is {'missing' if key is None else 'not the one the plan was made with'} (key id {mask.key_id})",
            hint="give the same key again with --mask-key-env NAME",
        )
    return key


def masker(mask: Mask, type: DataType, key: bytes | None) -> Callable[[str | None], str | int | None]:
    """Return the copier's masking function from canonical text to exchange value. `type` is the target's.

    Raises InvalidInput when the key is missing or another one.
    """
    length = type.length if isinstance(type, Text) else None
    if mask.kind == "null":
        return lambda _text: None
    if mask.kind == "redact":
        return lambda text: None if text is None else "REDACTED"[:length]
    if mask.kind == "partial":
        return lambda text: (
            None if text is None else text[0] + "*" * (len(text) - 2) + text[-1] if len(text) > 4 else "*" * len(text)
        )
    secret = _require(mask, key)
    if isinstance(type, Integer):
        modulus = 1 << (type.bits - 1)
        return lambda text: (
            None
            if text is None
            else int.from_bytes(hmac.digest(secret, text.encode("utf-8", "surrogateescape"), "sha256")[:8], "big")
            % modulus
        )
    cut = min(DIGITS, length or DIGITS)
    return lambda text: (
        None if text is None else hmac.digest(secret, text.encode("utf-8", "surrogateescape"), "sha256").hex()[:cut]
    )


def expectation(mask: Mask, type: DataType, key: bytes | None) -> Callable[[bytes | None], bytes | None]:
    """Return the verifier's masking function from canonical text to the canonical text expected in the target."""
    limit = type.length if isinstance(type, Text) and type.length else None

    def redact(text: bytes | None) -> bytes | None:
        return None if text is None else b"REDACTED"[:limit]

    def partial(text: bytes | None) -> bytes | None:
        if text is None:
            return None
        characters = list(text.decode("utf-8", "surrogateescape"))
        for i in range(len(characters)):
            if len(characters) <= 4 or 0 < i < len(characters) - 1:
                characters[i] = "*"
        return "".join(characters).encode("utf-8", "surrogateescape")

    if mask.kind == "null":
        return lambda _text: None
    if mask.kind == "redact":
        return redact
    if mask.kind == "partial":
        return partial
    # HMAC by its definition (RFC 2104), not by the library call that the copier uses.
    secret = _require(mask, key)
    block = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    inner, outer = bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block)

    def keyed(text: bytes | None) -> bytes | None:
        if text is None:
            return None
        digest = hashlib.sha256(outer + hashlib.sha256(inner + text).digest()).digest()
        if isinstance(type, Integer):
            return str(int(digest[:8].hex(), 16) & ((1 << (type.bits - 1)) - 1)).encode()
        return digest.hex().encode()[: min(DIGITS, limit or DIGITS)]

    return keyed
