"""Secrets kept by the store: a key-encryption key wraps one data key per organization, that one seals the fields (AES-256-GCM).

The sealed octets are bound to their place: organization, record, field, data key and whether they are a secret or a reference to
one. Copied to another row, changed by one bit, or cut, they are refused. Nonces are random; a data key seals at most `MOST_USES`
times, so that two nonces being equal stays out of reach, then a new one takes its place and fields move to it as they are written.

A secret of the instance itself (the mail password, the signing key) belongs to no organization: the key-encryption key seals it in
`meta`, under `secret.` and its name.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import os
import re
import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dblens.errors import InvalidInput, NotFound, VaultError
from dblens.redaction import Secret
from dblens.signature import framed
from dblens.store import keys
from dblens.store import tables as t
from dblens.store.database import Store, Transaction
from dblens.store.keys import Kek, Keyring
from dblens.store.records import new_id
from dblens.store.records import now as _clock
from dblens.store.references import Reference
from dblens.store.rows import fits, unique

Kind: TypeAlias = Literal["inline", "reference"]

MOST_USES: Final = 2**20
"""How often a data key seals. At 2**32 a random nonce would have come twice with a chance of 2**-33; this is far below."""
LONGEST: Final = 65_536
_NONCE: Final = 12
_VERSION: Final = b"\x01"
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_INSTANCE: Final = "secret."
_PAUSE: Final = 0.02


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """That a record has a secret in a field; never the secret."""

    record_id: str
    field: str
    kind: Kind
    updated_at: dt.datetime


# ------------------------------------------------------------------------------------------------------------------------ fields


def put(
    tx: Transaction,
    keyring: Keyring,
    org_id: str,
    record_id: str,
    field: str,
    secret: Secret | Reference,
    *,
    now: dt.datetime | None = None,
    most_uses: int = MOST_USES,
) -> None:
    """Keep a secret, or a reference to one, in a record's field in place of what is there. Raises InvalidInput, NotFound, VaultError."""
    fits("record_id", record_id, 32)
    _named(field)
    now = now or _clock()
    _allowed(secret)
    kind: Kind = "reference" if isinstance(secret, Reference) else "inline"
    key = _current(tx, keyring, org_id, now=now, most_uses=most_uses)
    value = _seal(key, _plain(secret), _place(org_id, record_id, field, key.id, kind))
    _upsert(tx, org_id, record_id, field, kind=kind, key_id=key.id, value=value, updated_at=now)


def get(tx: Transaction, keyring: Keyring, org_id: str, record_id: str, field: str) -> Secret | Reference:
    """Return a field's secret, or the reference that is to be resolved. Raises NotFound, VaultError when it was tampered with."""
    c, k = t.secrets.c, t.data_keys.c
    # Field and data key in one statement: between two of them a rotation may have sealed the one anew and deleted the other.
    query = sa.select(c.kind, c.key_id, c.value, k.id, k.kek, k.wrapped)
    query = query.select_from(t.secrets.outerjoin(t.data_keys, (k.id == c.key_id) & (k.org_id == c.org_id)))
    row = tx.execute(query.where(c.org_id == org_id, c.record_id == record_id, c.field == field)).one_or_none()
    if row is None:
        raise NotFound(f"{record_id!r} has no secret {field!r}")
    what = f"the secret {field!r} of {record_id!r}"
    if row.id is None:
        raise _tampered(what)
    place = _place(org_id, record_id, field, row.key_id, row.kind)
    kept = Secret(_open(_unwrapped(keyring, org_id, row, what), row.value, place, what).decode())
    return Reference.parse(kept.reveal()) if row.kind == "reference" else kept


def list_secrets(tx: Transaction, org_id: str, record_id: str) -> tuple[Kept, ...]:
    """List the fields in which a record has a secret."""
    c = t.secrets.c
    query = sa.select(c.field, c.kind, c.updated_at).where(c.org_id == org_id, c.record_id == record_id)
    return tuple(
        Kept(record_id=record_id, field=row.field, kind=row.kind, updated_at=row.updated_at)
        for row in tx.execute(query.order_by(c.field))
    )


def delete(tx: Transaction, org_id: str, record_id: str, field: str) -> None:
    """Delete a field's secret. Raises NotFound."""
    c = t.secrets.c
    if not tx.execute(
        t.secrets.delete().where(c.org_id == org_id, c.record_id == record_id, c.field == field)
    ).rowcount:
        raise NotFound(f"{record_id!r} has no secret {field!r}")


def delete_all(tx: Transaction, org_id: str, record_id: str) -> int:
    """Delete every secret of a record; return how many there were."""
    c = t.secrets.c
    return tx.execute(t.secrets.delete().where(c.org_id == org_id, c.record_id == record_id)).rowcount


def _upsert(tx: Transaction, org_id: str, record_id: str, field: str, **more: object) -> None:
    if tx.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    added = insert(t.secrets).values(org_id=org_id, record_id=record_id, field=field, **more)
    tx.execute(added.on_conflict_do_update(index_elements=["org_id", "record_id", "field"], set_=more))


def _allowed(secret: Secret | Reference) -> None:
    if (problem := _problem(secret)) is not None:
        raise InvalidInput(problem, hint=f"at most {LONGEST} characters, without lone surrogates")


def _problem(secret: Secret | Reference) -> str | None:
    """Say what is wrong; raises nothing, so that no traceback shows this frame."""
    text = secret.text if isinstance(secret, Reference) else secret.reveal()
    if len(text) > LONGEST:
        return f"the secret has {len(text)} characters"
    return "the secret holds half a character" if any("\ud800" <= char <= "\udfff" for char in text) else None


def _plain(secret: Secret | Reference) -> bytes:
    return (secret.text if isinstance(secret, Reference) else secret.reveal()).encode()


def _named(field: str) -> None:
    if not isinstance(field, str) or not _NAME.fullmatch(field):
        raise InvalidInput(
            f"the field's name is {field!r}", hint="a letter, then letters, digits, . - and _, at most 63"
        )


# --------------------------------------------------------------------------------------------------------------------- data keys


def _current(tx: Transaction, keyring: Keyring, org_id: str, *, now: dt.datetime, most_uses: int, uses: int = 1) -> Kek:
    """Return the organization's data key with its uses counted; a new one when there is none or the last one is used up."""
    if (found := _counted(tx, keyring, org_id, most_uses, uses)) is not None:
        return found
    kek = keys.wrapping(tx, keyring)  # holds a lock, so of two requests that find no key one makes it
    if (found := _counted(tx, keyring, org_id, most_uses, uses)) is not None:
        return found
    c = t.data_keys.c
    tx.execute(t.data_keys.update().where(c.org_id == org_id, c.retired_at.is_(None)).values(retired_at=now))
    if tx.execute(sa.select(t.organizations.c.id).where(t.organizations.c.id == org_id)).first() is None:
        raise NotFound(f"no organization {org_id!r}")
    key = Kek(new_id(), AESGCM.generate_key(256))
    wrapped = _seal(kek, key.octets(), _wrap_place(org_id, key.id, kek))
    tx.execute(
        t.data_keys.insert().values(id=key.id, org_id=org_id, kek=kek.id, wrapped=wrapped, uses=uses, created_at=now)
    )
    return key


def _counted(tx: Transaction, keyring: Keyring, org_id: str, most_uses: int, uses: int) -> Kek | None:
    c = t.data_keys.c
    newest = sa.select(c.id).where(c.org_id == org_id, c.retired_at.is_(None)).order_by(c.id.desc()).limit(1)
    # In one statement: the count holds between processes, and a rotation that retires the key waits for us.
    left = c.id == newest.scalar_subquery(), c.retired_at.is_(None), c.uses <= most_uses - uses
    count = t.data_keys.update().where(*left).values(uses=c.uses + uses).returning(c.id, c.kek, c.wrapped)
    row = tx.execute(count).one_or_none()
    return None if row is None else _unwrapped(keyring, org_id, row, f"the organization {org_id!r}")


def _data_key(tx: Transaction, keyring: Keyring, org_id: str, id: str | None, what: str) -> Kek:
    c = t.data_keys.c
    row = tx.execute(sa.select(c.id, c.kek, c.wrapped).where(c.org_id == org_id, c.id == id)).one_or_none()
    if row is None:
        raise _tampered(what)
    return _unwrapped(keyring, org_id, row, what)


def _unwrapped(keyring: Keyring, org_id: str, row: sa.Row[Any], what: str) -> Kek:
    kek = keyring.key(row.kek, what)
    return Kek(row.id, _open(kek, row.wrapped, _wrap_place(org_id, row.id, kek), what))


def rewrap_all(tx: Transaction, keyring: Keyring) -> int:
    """Wrap all data keys with the keyring's first key and retire the others; return how many were wrapped anew.

    Touches a row per data key and one per secret of the instance, no field. Raises VaultError.
    """
    kek = keys.wrapping(tx, keyring)
    c, done = t.data_keys.c, 0
    query = sa.select(c.id, c.org_id, c.kek, c.wrapped).where(c.kek != kek.id).order_by(c.id).with_for_update()
    for row in tx.execute(query).all():
        old = keyring.key(row.kek, f"the data key {row.id!r}")
        what, place = f"the data key {row.id!r}", _wrap_place(row.org_id, row.id, old)
        wrapped = _seal(kek, _open(old, row.wrapped, place, what), _wrap_place(row.org_id, row.id, kek))
        tx.execute(t.data_keys.update().where(c.id == row.id).values(kek=kek.id, wrapped=wrapped))
        done += 1
    names = sa.select(t.meta.c.key).where(t.meta.c.key.startswith(_INSTANCE, autoescape=True)).order_by(t.meta.c.key)
    for name in tx.scalars(names.with_for_update()).all():
        bare = name.removeprefix(_INSTANCE)
        if _instance(tx, bare).kek != kek.id:
            put_instance(tx, keyring, bare, get_instance(tx, keyring, bare))
            done += 1
    keys.retire_others(tx, keyring)
    return done


def rotate(
    store: Store, keyring: Keyring, org_id: str, *, batch: int = 500, clock: Callable[[], dt.datetime] = _clock
) -> int:
    """Give an organization a new data key, seal all its fields with it and delete the old ones; return how many were sealed anew.

    Each batch is a transaction of its own: others read and write meanwhile, and a rotation that was cut short is finished by the
    next. Raises NotFound, VaultError when a field was tampered with (it stays as it is).
    """
    c, done = t.data_keys.c, 0
    with store.write() as tx:
        keys.wrapping(tx, keyring)  # the locks in the order in which everybody takes them: this one, data keys, fields
        tx.execute(t.data_keys.update().where(c.org_id == org_id, c.retired_at.is_(None)).values(retired_at=clock()))
        _current(tx, keyring, org_id, now=clock(), most_uses=MOST_USES, uses=0)
    while (moved := rotate_some(store, keyring, org_id, batch, clock())) is not None:
        done += moved
        if not moved:  # somebody else is at work on all that is left
            time.sleep(_PAUSE)
    with store.write() as tx:
        used = sa.exists().where(t.secrets.c.key_id == c.id)
        tx.execute(t.data_keys.delete().where(c.org_id == org_id, c.retired_at.is_not(None), ~used))
    return done


def rotate_some(store: Store, keyring: Keyring, org_id: str, batch: int, now: dt.datetime) -> int | None:
    """Seal some fields anew and return how many, None when none is left. Never waits for a field while it holds a key."""
    c, k = t.secrets.c, t.data_keys.c
    old = sa.select(k.id).where(k.org_id == org_id, k.retired_at.is_not(None))
    with store.write() as tx:
        query = sa.select(c.record_id, c.field, c.kind, c.key_id, c.value).where(c.org_id == org_id, c.key_id.in_(old))
        if tx.execute(query.limit(1)).first() is None:
            return None
        _current(tx, keyring, org_id, now=now, most_uses=MOST_USES, uses=0)
        rows = tx.execute(query.order_by(c.record_id, c.field).limit(batch).with_for_update(skip_locked=True)).all()
        key = _current(tx, keyring, org_id, now=now, most_uses=MOST_USES, uses=len(rows))
        opened: dict[str, Kek] = {}
        for row in rows:
            what = f"the secret {row.field!r} of {row.record_id!r}"
            if row.key_id not in opened:
                opened[row.key_id] = _data_key(tx, keyring, org_id, row.key_id, what)
            here = org_id, row.record_id, row.field
            place = _place(*here, row.key_id, row.kind)
            value = _seal(key, _open(opened[row.key_id], row.value, place, what), _place(*here, key.id, row.kind))
            where = c.org_id == org_id, c.record_id == row.record_id, c.field == row.field
            tx.execute(t.secrets.update().where(*where).values(key_id=key.id, value=value))
        return len(rows)


# ------------------------------------------------------------------------------------------------------------------ the instance


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    kek: str
    value: str


def put_instance(tx: Transaction, keyring: Keyring, name: str, secret: Secret) -> None:
    """Keep a secret of the instance under a name. Raises InvalidInput, VaultError."""
    _named(name)
    _allowed(secret)
    kek = keys.wrapping(tx, keyring)
    value = base64.b64encode(_seal(kek, _plain(secret), _instance_place(name, kek))).decode()
    text = msgspec.json.encode(_Sealed(kek=kek.id, value=value)).decode()
    if not tx.execute(t.meta.update().where(t.meta.c.key == _INSTANCE + name).values(value=text)).rowcount:
        with unique(tx, f"another process set {name!r} at the same time", "try again"):
            tx.execute(t.meta.insert().values(key=_INSTANCE + name, value=text))


def get_instance(tx: Transaction, keyring: Keyring, name: str) -> Secret:
    """Return a secret of the instance. Raises NotFound, VaultError when it was tampered with."""
    what, found = f"the instance's secret {name!r}", _instance(tx, name)
    kek = keyring.key(found.kek, what)
    try:
        value = base64.b64decode(found.value, validate=True)
    except (binascii.Error, ValueError):
        raise _tampered(what) from None
    return Secret(_open(kek, value, _instance_place(name, kek), what).decode())


def has_instance(tx: Transaction, name: str) -> bool:
    """Return whether the instance has a secret of that name."""
    return tx.scalar(sa.select(t.meta.c.key).where(t.meta.c.key == _INSTANCE + name)) is not None


def delete_instance(tx: Transaction, name: str) -> None:
    """Delete a secret of the instance. Raises NotFound."""
    if not tx.execute(t.meta.delete().where(t.meta.c.key == _INSTANCE + name)).rowcount:
        raise NotFound(f"the instance has no secret {name!r}")


def _instance(tx: Transaction, name: str) -> _Sealed:
    text = tx.scalar(sa.select(t.meta.c.value).where(t.meta.c.key == _INSTANCE + name))
    if text is None:
        raise NotFound(f"the instance has no secret {name!r}")
    try:
        return msgspec.json.decode(text, type=_Sealed)
    except (msgspec.DecodeError, UnicodeError):
        raise _tampered(f"the instance's secret {name!r}") from None


# ----------------------------------------------------------------------------------------------------------------------- sealing


def _place(org_id: str, record_id: str, field: str, key_id: str, kind: str) -> bytes:
    return framed(b"dblens/secret/1", *(part.encode() for part in (org_id, record_id, field, key_id, kind)))


def _wrap_place(org_id: str, key_id: str, kek: Kek) -> bytes:
    return framed(b"dblens/data-key/1", org_id.encode(), key_id.encode(), kek.id.encode())


def _instance_place(name: str, kek: Kek) -> bytes:
    return framed(b"dblens/instance-secret/1", name.encode(), kek.id.encode())


def _seal(key: Kek, octets: bytes, place: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return _VERSION + nonce + AESGCM(key.octets()).encrypt(nonce, octets, place)


def _open(key: Kek, sealed: bytes, place: bytes, what: str) -> bytes:
    sealed = bytes(sealed)
    if sealed[:1] == _VERSION and len(sealed) > _NONCE + 16:
        with contextlib.suppress(InvalidTag):
            return AESGCM(key.octets()).decrypt(sealed[1 : _NONCE + 1], sealed[_NONCE + 1 :], place)
    raise _tampered(what)


def _tampered(what: str) -> VaultError:
    return VaultError(
        f"{what} cannot be opened: it is not what was kept in this place",
        hint="somebody changed the store's database, or it is damaged; set the secret again, or restore a backup",
    )
