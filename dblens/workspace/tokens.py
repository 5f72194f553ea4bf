"""The door to personal access tokens: named, limited to scopes and to one organization, with an end.

A token may do what its owner may at the moment of its use and its scopes allow, never more; it makes no other token.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from dblens.accounts import profile
from dblens.accounts.base import Authenticated
from dblens.errors import InvalidInput, NotFound
from dblens.store import accounts, tokens
from dblens.store.rows import Page
from dblens.store.tokens import AccessToken
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import accounts_at, chosen_organization, find_member, own_login, person
from dblens.workspace.permissions import checked, may_assign


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """An access token, without what proves it. `user` is its owner's name."""

    id: str
    name: str
    user_id: str
    user: str
    scopes: tuple[str, ...]
    created_at: dt.datetime
    expires_at: dt.datetime
    used_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """An access token made just now: the only time that `secret` can be read."""

    token: TokenView
    secret: str

    def __repr__(self) -> str:
        return f"IssuedToken(token={self.token!r})"

    def __rich_repr__(self) -> Any:
        yield "token", self.token


class Tokens(Door):
    """Access tokens for the organization that the caller acts in."""

    @operation("token.list", on="organization", cost="light", shown=("ended", "limit", "after"))
    def list(self, *, ended: bool = False, limit: int = 50, after: str | None = None) -> Page[TokenView]:
        """Return a page of one's own tokens, the newest first; with `ended` those too that are not valid any more. Raises InvalidInput."""
        context, principal = self.context, self.context.principal
        with context.store.read() as tx:
            found = tokens.list_access_tokens(
                tx,
                principal.user_id,
                org_id=chosen_organization(context),
                live_at=None if ended else context.clock(),
                limit=limit,
                after=after,
            )
        return Page(items=tuple(_view(item, principal.name) for item in found.items), after=found.after)

    @operation(
        "token.create", on="organization", mutates=True, step_up=True, target="name", shown=("scopes", "expires_at")
    )
    def create(self, name: str, scopes: Sequence[str], expires_at: dt.datetime) -> IssuedToken:
        """Make a token that is good for `scopes` (permission patterns, `*.*` for all that one may) until a time.

        Raises InvalidInput, PermissionDenied for an access token, RateLimited.
        """
        context, principal = self.context, self.context.principal
        person(principal, "make another")
        if not scopes:
            raise InvalidInput("scopes: none given", hint="permission patterns, like connection.read or catalog.*")
        patterns = tuple("*" if scope == "*.*" else scope for scope in checked(scopes))
        at, org_id = accounts_at(context), chosen_organization(context)
        if principal.kind == "local":
            with context.store.read() as tx:
                auth = Authenticated(user=accounts.get_user(tx, principal.user_id))
        else:
            auth = own_login(context)
        made = profile.issue_access_token(at, auth.user, org_id, name, patterns, expires_at)
        tell(id=made.token.id)
        return IssuedToken(token=_view(made.token, principal.name), secret=made.secret)

    @operation("token.revoke", on="organization", mutates=True)
    def revoke(self, token: str) -> None:
        """End one of one's own tokens, by its id. Raises NotFound, also for somebody else's, PermissionDenied for an access token."""
        context, principal = self.context, self.context.principal
        person(principal, "end another")
        tell(target=token[:100])
        with context.store.write() as tx:
            if tokens.get_access_token(tx, principal.user_id, token).org_id != chosen_organization(context):
                raise NotFound(f"no access token {token[:100]!r}")
            tokens.revoke_access_token(tx, principal.user_id, token, now=context.clock())

    @operation("token.list_all", on="organization", shown=("user", "ended", "limit", "after"))
    def list_all(
        self, *, user: str | None = None, ended: bool = False, limit: int = 50, after: str | None = None
    ) -> Page[TokenView]:
        """Return a page of every member's tokens for the organization, or of one member's. Raises InvalidInput, NotFound."""
        context = self.context
        org_id = chosen_organization(context)
        with context.store.read() as tx:
            found = tokens.list_organization_tokens(
                tx,
                org_id,
                user_id=None if user is None else find_member(tx, org_id, user).user_id,
                live_at=None if ended else context.clock(),
                limit=limit,
                after=after,
            )
        return Page(items=tuple(_view(item.token, item.user.name) for item in found.items), after=found.after)

    @operation("token.revoke_all", on="organization", mutates=True, target="user")
    def revoke_all(self, user: str) -> int:
        """End every token of a member for the organization; return how many. Raises NotFound, PermissionDenied for who ranks above."""
        context = self.context
        org_id = chosen_organization(context)
        with context.store.write() as tx:
            member = find_member(tx, org_id, user)
            may_assign(context.principal, member.rank, None)
            ended = tokens.revoke_access_tokens(tx, member.user_id, now=context.clock(), org_id=org_id)
        tell(id=member.user_id, tokens=ended)
        return ended


def _view(token: AccessToken, name: str) -> TokenView:
    return TokenView(
        id=token.id,
        name=token.name,
        user_id=token.user_id,
        user=name,
        scopes=tuple("*.*" if scope == "*" else scope for scope in token.scopes),
        created_at=token.created_at,
        expires_at=token.expires_at,
        used_at=token.used_at,
        revoked_at=token.revoked_at,
    )
