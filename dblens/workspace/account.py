"""The door to one's own account: who one is and where, e-mail address and password, sessions."""

from __future__ import annotations

import datetime as dt

import msgspec

from dblens.accounts import login, profile, recovery
from dblens.errors import InvalidInput, PermissionDenied
from dblens.redaction import Secret
from dblens.store import accounts, organizations, sessions
from dblens.store.rows import Page
from dblens.store.sessions import Session
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import accounts_at, own_login, person
from dblens.workspace.principal import Kind


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An organization that one is a member of."""

    id: str
    name: str
    slug: str
    role: str
    current: bool


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Who one is, and as what one acts: `role`, `permissions` and `scopes` are those of this very request."""

    id: str
    name: str
    display: str
    email: str | None
    kind: Kind
    must_change: bool
    super_admin: bool
    """Whether the account may act as super_admin."""
    role: str | None
    permissions: tuple[str, ...]
    scopes: tuple[str, ...] | None
    organization: str | None
    """The id of the organization that one acts in."""
    organizations: tuple[Place, ...]
    session: str | None
    authenticated_at: dt.datetime | None
    created_at: dt.datetime
    last_login_at: dt.datetime | None


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A login on one device."""

    id: str
    kind: str
    client: str
    address: str
    created_at: dt.datetime
    authenticated_at: dt.datetime
    seen_at: dt.datetime
    expires_at: dt.datetime
    current: bool


class EmailChange(msgspec.Struct, frozen=True, kw_only=True):
    """The address that holds now; `pending` says that the new one is first proved by the link sent to it."""

    email: str | None
    pending: bool


class Account(Door):
    """One's own account."""

    @operation("account.read", cost="light")
    def read(self) -> Profile:
        """Return one's profile with one's organizations."""
        return self._profile()

    @operation("account.update", mutates=True)
    def update(self, *, display: str) -> Profile:
        """Change the shown name. Raises InvalidInput, PermissionDenied for an access token."""
        person(self.context.principal, "change the account it belongs to")
        with self.context.store.write() as tx:
            accounts.update_user(tx, self.context.principal.user_id, display=display)
        return self._profile()

    @operation("account.email", permission="account.update", mutates=True)
    def email(self, email: str, password: Secret | None = None) -> EmailChange:
        """Change the e-mail address: at once where no mail is sent, else once the link sent to it was followed.

        Raises InvalidInput, NotAuthenticated, PermissionDenied, Conflict for one that is taken, RateLimited.
        """
        context, principal = self.context, self.context.principal
        person(principal, "change the account it belongs to")
        if principal.kind == "local":  # without password: whoever sits here has the store
            with context.store.write() as tx:
                return EmailChange(email=accounts.update_user(tx, principal.user_id, email=email).email, pending=False)
        if password is None:
            raise InvalidInput("password is missing", hint="the account's present password")
        user = profile.set_email(accounts_at(context), own_login(context), email, password.reveal())
        return EmailChange(email=user.email, pending=user.email != email)

    @operation("account.password", mutates=True)
    def password(self, current: Secret, new: Secret) -> None:
        """Set a new password, which ends every other session. Raises InvalidInput, NotAuthenticated, PermissionDenied, RateLimited."""
        auth = own_login(self.context)
        recovery.change_password(accounts_at(self.context), auth, current.reveal(), new.reveal())

    @operation("account.confirm", permission="account.password", mutates=True)
    def confirm(self, password: Secret) -> None:
        """Prove again who one is, before administration. Raises InvalidInput, NotAuthenticated, PermissionDenied, RateLimited."""
        auth = own_login(self.context)
        login.confirm(accounts_at(self.context), auth, password.reveal())

    @operation("account.sessions", cost="light", shown=("limit", "after"))
    def sessions(self, *, limit: int = 50, after: str | None = None) -> Page[SessionView]:
        """Return a page of one's live sessions, the newest first; the person at this machine has none. Raises InvalidInput."""
        context, principal = self.context, self.context.principal
        with context.store.read() as tx:
            found = sessions.list_sessions(tx, principal.user_id, live_at=context.clock(), limit=limit, after=after)
        return Page(items=tuple(session_view(item, principal.session_id) for item in found.items), after=found.after)

    @operation("account.revoke", mutates=True, target="session")
    def revoke(self, session: str) -> None:
        """End one of one's own sessions. Raises NotFound, also for somebody else's, PermissionDenied for an access token."""
        auth = own_login(self.context)
        login.revoke_session(accounts_at(self.context), auth, session)

    @operation("account.revoke_others", permission="account.revoke", mutates=True)
    def revoke_others(self) -> int:
        """End all of one's sessions but this; return how many. Raises PermissionDenied for an access token."""
        context, auth = self.context, own_login(self.context)
        if auth.session is None:
            raise PermissionDenied("there is no session to keep", hint="log in")
        with context.store.write() as tx:
            ended = sessions.revoke_sessions(tx, auth.user.id, now=context.clock(), but=auth.session.id)
        tell(sessions=ended)
        return ended

    def _profile(self) -> Profile:
        principal = self.context.principal
        with self.context.store.read() as tx:
            user = accounts.get_user(tx, principal.user_id)
            mine = organizations.list_memberships(tx, user.id, limit=200).items
        if principal.kind == "token":  # which is good for one only
            mine = tuple(item for item in mine if item.organization.id == principal.org_id)
        return Profile(
            id=user.id,
            name=user.name,
            display=user.display,
            email=user.email,
            kind=principal.kind,
            must_change=user.must_change,
            super_admin=user.super_admin,
            role=principal.role,
            permissions=principal.permissions,
            scopes=principal.scopes,
            organization=principal.org_id,
            organizations=tuple(
                Place(
                    id=item.organization.id,
                    name=item.organization.name,
                    slug=item.organization.slug,
                    role=item.role.name,
                    current=item.organization.id == principal.org_id,
                )
                for item in mine
            ),
            session=principal.session_id,
            authenticated_at=principal.authenticated_at,
            created_at=user.created_at,
            last_login_at=user.last_login_at,
        )


def session_view(session: Session, current: str | None) -> SessionView:
    """Return a session as its user sees it; `current` is the id of the one that asks."""
    fields = {name: getattr(session, name) for name in SessionView.__struct_fields__ if name != "current"}
    return SessionView(**fields, current=session.id == current)
