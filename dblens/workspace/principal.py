"""Who acts: the end of every way to authenticate, and all that a decision about rights looks at. It holds no secret."""

from __future__ import annotations

import datetime as dt
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["local", "account", "token", "hub", "service", "run"]


class Principal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who acts, in one organization, for the time of one request; the role is read from the store for each.

    `local` is the person at this machine, `account` a login, `token` a personal access token, `hub` an identity of JupyterHub,
    `service` DBLens itself, `run` a run that acts for its owner.
    """

    kind: Kind
    user_id: str
    name: str
    org_id: str | None = None
    role: str | None = None
    rank: int = 0
    permissions: tuple[str, ...] = ()
    """The patterns of the role."""
    scopes: tuple[str, ...] | None = None
    """The patterns a token is limited to, None when there is no such limit."""
    connections: tuple[str, ...] | None = None
    """The ids of the only connections it may touch, None when there is no such limit."""
    session_id: str | None = None
    token_id: str | None = None
    """The personal access token that it asks with."""
    authenticated_at: dt.datetime | None = None
    """When a person last gave a password; None for what has none to give."""
    client: str = ""
    address: str = ""


def local(name: str, user_id: str, org_id: str, *, client: str = "") -> Principal:
    """Return the person at this machine, who may do everything: the same person owns the file, the key and the secrets."""
    return Principal(
        kind="local",
        user_id=user_id,
        name=name,
        org_id=org_id,
        role="owner",
        rank=100,
        permissions=("*.*",),
        client=client,
    )
