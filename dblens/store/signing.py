"""The store's Ed25519 keys: the private part sealed by the key-encryption key, every public part known for ever.

Both lie in `meta` as secrets of the instance: sealed, so that who can write the database can neither read the one nor add to the
others. Rotation makes a new pair and destroys the old private part; what it signed stays provable.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable
from typing import NoReturn

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dblens.errors import NotFound, VaultError
from dblens.redaction import Secret
from dblens.signature import PublicKey, Signature, key_id, message, write_keys
from dblens.store import keys as keks
from dblens.store import secrets
from dblens.store.database import Transaction
from dblens.store.keys import Keyring
from dblens.store.records import now as _clock

_PUBLIC = "signing.public"


class Signer:
    """Signs with the store's present key. Its private part is in no repr and no pickle."""

    __slots__ = ("_clock", "_private", "public")

    def __init__(self, private: Ed25519PrivateKey, public: PublicKey, clock: Callable[[], dt.datetime]) -> None:
        self._private = private
        self.public = public
        self._clock = clock

    def sign(self, data: bytes, *, purpose: str) -> Signature:
        """Sign octets for a purpose; a check for another purpose refuses the signature."""
        at = self._clock().astimezone(dt.UTC)
        value = self._private.sign(message(data, purpose=purpose, key_id=self.public.id, at=at))
        return Signature(key_id=self.public.id, purpose=purpose, at=at, value=base64.b64encode(value).decode())

    def __repr__(self) -> str:
        return f"Signer({self.public.id})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a signer is not pickled")


def signer(tx: Transaction, keyring: Keyring, *, clock: Callable[[], dt.datetime] = _clock) -> Signer:
    """Return what signs for the store; at the first call its key is made. Raises VaultError."""
    present = next((key for key in known(tx, keyring) if key.retired_at is None), None)
    if present is None:
        keks.wrapping(tx, keyring)  # holds the lock: of two processes one makes the key
        present = next((key for key in known(tx, keyring) if key.retired_at is None), None)
    if present is None:
        present = _make(tx, keyring, known(tx, keyring), clock())
    return Signer(_private(secrets.get_instance(tx, keyring, _name(present.id)), present), present, clock)


def known(tx: Transaction, keyring: Keyring) -> tuple[PublicKey, ...]:
    """Return the store's public keys, those that were retired too. Raises VaultError when they were tampered with."""
    try:
        kept = secrets.get_instance(tx, keyring, _PUBLIC)
    except NotFound:
        return ()
    return msgspec.json.decode(kept.reveal(), type=tuple[PublicKey, ...])


def rotate_signing(tx: Transaction, keyring: Keyring, *, now: dt.datetime) -> PublicKey:
    """Make a new key, destroy the private part of the old one, and return the new public part. Raises VaultError."""
    keks.wrapping(tx, keyring)
    before = known(tx, keyring)
    for key in before:
        if key.retired_at is None:
            secrets.delete_instance(tx, _name(key.id))
    retired = tuple(msgspec.structs.replace(key, retired_at=key.retired_at or now) for key in before)
    return _make(tx, keyring, retired, now)


def export(tx: Transaction, keyring: Keyring) -> bytes:
    """Return the public keys as JSON, for somebody who checks signatures elsewhere. Raises VaultError."""
    return write_keys(known(tx, keyring))


def _make(tx: Transaction, keyring: Keyring, others: tuple[PublicKey, ...], now: dt.datetime) -> PublicKey:
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    made = PublicKey(id=key_id(raw), public=base64.b64encode(raw).decode(), created_at=now)
    kept = Secret(base64.b64encode(private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())).decode())
    secrets.put_instance(tx, keyring, _name(made.id), kept)
    secrets.put_instance(tx, keyring, _PUBLIC, Secret(msgspec.json.encode((made, *others)).decode()))
    return made


def _private(kept: Secret, public: PublicKey) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(kept.reveal()))
    if key_id(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)) != public.id:
        raise VaultError("the store's signing key is not the one that its public part names", hint="restore a backup")
    return private


def _name(id: str) -> str:
    return f"signing.{id}"
