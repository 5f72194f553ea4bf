"""The keys of access tokens: sealed in the store, the same for every process, and changed while logins go on.

The secret is the seed of the key that signs and, after a comma, the public part of the one before: what that one signed is believed
until it runs out (ten minutes), so that nobody is logged out by a rotation. A second rotation within that time drops it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dblens.accounts.jwt import Keys
from dblens.errors import Conflict, NotFound, VaultError
from dblens.redaction import Secret
from dblens.store import keys as keks
from dblens.store import secrets
from dblens.store.database import Store, Transaction
from dblens.store.keys import Keyring

NAME: Final = "jwt"
FRESH: Final = 5.0
"""Seconds for which a process goes by the keys that it read: a read of the store each, of one row."""
SOON: Final = 0.5
"""Seconds between two such reads when a token names a key that is not known: anybody may send one."""
log = logging.getLogger(__name__)


class Kept:
    """The keys as this process last read them."""

    def __init__(self) -> None:
        self._keys: Keys | None = None
        self._text, self._at = "", 0.0

    def keys(self, store: Store, keyring: Keyring, *, unknown: str | None = None) -> Keys:
        """Return the keys; read them again when they are old, or when `unknown` names a key that is not among them.

        Raises VaultError, StoreError.
        """
        unheard = self._keys is not None and unknown is not None and unknown not in self._keys.public
        if self._keys is None or time.monotonic() - self._at > (SOON if unheard else FRESH):
            text = _read(store, keyring).reveal()
            if text != self._text or self._keys is None:
                self._keys, self._text = _parsed(text), text
            self._at = time.monotonic()
        return self._keys


def rotate(tx: Transaction, keyring: Keyring) -> str:
    """Make a new key, keep the public part of the old one, and return the new one's id. Raises VaultError."""
    keks.wrapping(tx, keyring)  # holds the lock: of two rotations one comes after the other
    try:
        before = _parsed(secrets.get_instance(tx, keyring, NAME).reveal())
        old = "," + _text(before.public[before.kid].public_bytes(Encoding.Raw, PublicFormat.Raw))
    except NotFound:
        old = ""
    made = _made() + old
    secrets.put_instance(tx, keyring, NAME, Secret(made))
    return _parsed(made).kid


def _read(store: Store, keyring: Keyring) -> Secret:
    try:
        with store.read() as tx:
            return secrets.get_instance(tx, keyring, NAME)
    except NotFound:
        try:
            with store.write() as tx:
                keks.wrapping(tx, keyring)
                if not secrets.has_instance(tx, NAME):
                    secrets.put_instance(tx, keyring, NAME, Secret(_made()))
        except Conflict:
            log.info("another process made the signing key")
    with store.read() as tx:
        return secrets.get_instance(tx, keyring, NAME)


def _made() -> str:
    return _text(Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _parsed(text: str) -> Keys:
    try:
        seed, *others = (base64.b64decode(part, validate=True) for part in text.split(","))
        return Keys(Ed25519PrivateKey.from_private_bytes(seed), *map(Ed25519PublicKey.from_public_bytes, others))
    except (binascii.Error, ValueError):
        raise VaultError(
            "the signing key of logins is no key", hint="`dblens store restore` a backup from before"
        ) from None
