"""Rotate a key of the store, with its rows in the audit."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Literal

import msgspec

from dblens.errors import DBLensError, NotFound

if TYPE_CHECKING:
    from dblens.store.audit import Entry, Phase
    from dblens.workspace.house import House

Key = Literal["kek", "dek", "signing", "login"]


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What was rotated. `count` is how much was wrapped or sealed anew; `keys` are ids: of the first one, or of the key that signs."""

    key: Key
    count: int
    keys: tuple[str, ...]
    organizations: tuple[str, ...] = ()
    told: str


def rotate(key: Key, organization: str | None) -> Rotated:
    """Rotate a key. Raises InvalidInput, NotFound, StoreError, VaultError."""
    from dblens.settings import load
    from dblens.store.records import new_id
    from dblens.workspace.home import house

    at = house(load())
    call = new_id()
    at.journal.write(_entry(at, "started", key, call))
    try:
        done = {"kek": _kek, "dek": _dek, "signing": _signing, "login": _login}[key](at, organization)
    except BaseException as error:
        at.journal.write(
            _entry(at, "ended", key, call, outcome=error.code if isinstance(error, DBLensError) else "error")
        )
        raise
    at.journal.write(_entry(at, "ended", key, call, outcome="ok", count=done.count))
    return done


def _kek(at: House, _organization: str | None) -> Rotated:
    from dblens.store import secrets

    with at.store.write() as tx:
        count = secrets.rewrap_all(tx, at.keyring)
    first = at.keyring.first.id
    told = f"{count} keys and secrets of the instance were wrapped anew; everything is wrapped by {first!r}"
    return Rotated(key="kek", count=count, keys=(first,), told=told)


def _dek(at: House, organization: str | None) -> Rotated:
    from dblens.store import organizations, secrets

    wanted: list[tuple[str, str]] = []
    with at.store.read() as tx:
        if organization is not None:
            try:
                found = organizations.get_organization(tx, organization)
            except NotFound:
                found = organizations.find_organization(tx, organization)
            wanted.append((found.id, found.slug))
        after: str | None = None
        while organization is None:
            page = organizations.list_organizations(tx, limit=200, after=after)
            wanted += [(item.id, item.slug) for item in page.items]
            after = page.after
            if after is None:
                break
    count = sum(secrets.rotate(at.store, at.keyring, org_id, clock=at.clock) for org_id, _ in wanted)
    names = tuple(slug for _, slug in wanted)
    told = f"{count} secrets of {len(names)} organizations were sealed anew"
    return Rotated(key="dek", count=count, keys=(), organizations=names, told=told)


def _signing(at: House, _organization: str | None) -> Rotated:
    from dblens.store import signing

    with at.store.write() as tx:
        made = signing.rotate_signing(tx, at.keyring, now=at.clock())
    return Rotated(key="signing", count=1, keys=(made.id,), told=f"the store signs with {made.id} now")


def _login(at: House, _organization: str | None) -> Rotated:
    from dblens.accounts import signing

    with at.store.write() as tx:
        made = signing.rotate(tx, at.keyring)
    return Rotated(key="login", count=1, keys=(made,), told=f"logins are signed with {made} now; nobody is logged out")


def _entry(at: House, phase: Phase, key: Key, call: str, *, outcome: str | None = None, count: int = 0) -> Entry:
    from dblens.store.audit import Entry

    detail = {"as": "command line", "arguments": {"key": key}}
    if outcome is not None:
        detail["facts"] = {"count": count}
    return Entry(
        at=at.clock(),
        phase=phase,
        action="store.rotate",
        actor=getpass.getuser(),
        target=key,
        outcome=outcome,
        client="command line",
        run_id=call,
        detail=detail,
    )
