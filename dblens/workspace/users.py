"""The door to the accounts of others.

Who administers the instance sees and changes all of them; everybody else who may list users sees the members of their organization
and no more: that somebody has an account elsewhere is not told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from dblens.accounts import admin, configured
from dblens.accounts.admin import ResetLink
from dblens.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from dblens.redaction import Secret
from dblens.store import accounts, organizations, secrets, sessions
from dblens.store.accounts import User
from dblens.store.organizations import Member
from dblens.store.rows import Page
from dblens.workspace.account import SessionView, session_view
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import (
    ADMIN,
    accounts_at,
    actor_of,
    chosen_organization,
    find_member,
    find_organization,
    find_role,
    find_user,
    hand_over,
    instance_wide,
)

if TYPE_CHECKING:
    from dblens.store.database import Transaction


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """An account. `role` is set where it is seen as a member of the caller's organization; what follows it, for the instance only."""

    id: str
    name: str
    display: str
    email: str | None
    active: bool
    role: str | None = None
    approved: bool | None = None
    must_change: bool | None = None
    super_admin: bool | None = None
    locked_until: dt.datetime | None = None
    created_at: dt.datetime | None = None
    last_login_at: dt.datetime | None = None
    organizations: tuple[str, ...] = ()
    """The short names of the organizations they are in; only of one account, not in a list."""


class IssuedLink(msgspec.Struct, frozen=True, kw_only=True):
    """A token to set a new password with, to hand over: it can be read only now. `link` is None where no address is configured."""

    user: UserView
    expires_at: dt.datetime
    token: str
    link: str | None = None

    def __repr__(self) -> str:
        return f"IssuedLink(user={self.user.name!r}, expires_at={self.expires_at!r})"

    def __rich_repr__(self) -> Any:
        yield "user", self.user.name
        yield "expires_at", self.expires_at


class CreatedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user made just now, with the way to a first password when none was given."""

    user: UserView
    reset: IssuedLink | None = None


class Users(Door):
    """Accounts. `user` is an id, a name or an e-mail address."""

    @operation("user.list", shown=("active", "approved", "limit", "after"))
    def list(
        self,
        *,
        search: str | None = None,
        active: bool | None = None,
        approved: bool | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[UserView]:
        """Return a page of the accounts, or of the members of one's organization. Raises InvalidInput."""
        context = self.context
        if instance_wide(context.principal):
            with context.store.read() as tx:
                found = accounts.search_users(
                    tx, search=search, active=active, approved=approved, limit=limit, after=after
                )
            return Page(items=tuple(view(user) for user in found.items), after=found.after)
        if active is not None or approved is not None:
            raise InvalidInput("active and approved are for administrators of the instance", hint="leave them out")
        with context.store.read() as tx:
            near = organizations.list_members(tx, chosen_organization(context), search=search, limit=limit, after=after)
        return Page(items=tuple(_member(member) for member in near.items), after=near.after)

    @operation("user.read", cost="light", target="user")
    def read(self, user: str) -> UserView:
        """Return an account, or a member of one's organization. Raises NotFound."""
        context = self.context
        with context.store.read() as tx:
            if not instance_wide(context.principal):
                return _member(find_member(tx, chosen_organization(context), user))
            found = find_user(tx, user)
            places = organizations.list_memberships(tx, found.id, limit=200).items
        return msgspec.structs.replace(view(found), organizations=tuple(place.organization.slug for place in places))

    @operation("user.create", mutates=True, step_up=True, target="name", shown=("super_admin", "organization", "role"))
    def create(
        self,
        name: str,
        *,
        email: str | None = None,
        display: str | None = None,
        password: Secret | None = None,
        super_admin: bool = False,
        organization: str | None = None,
        role: str | None = None,
    ) -> CreatedUser:
        """Make a user: with a first password that has to be changed, or with a link to set one; a member of `organization` as `role`.

        Raises InvalidInput, PermissionDenied, NotFound, Conflict for a name or address that is taken.
        """
        context = self._instance()
        at = accounts_at(context)
        if (organization is None) != (role is None):
            raise InvalidInput("organization and role go together", hint="give both, or none")

        def also(tx: Transaction, made: User) -> None:
            if organization is not None and role is not None:
                org_id = find_organization(tx, organization)
                organizations.add_member(tx, org_id, made.id, find_role(tx, org_id, role).id, now=context.clock())

        plain = None if password is None else password.reveal()
        if context.principal.user_id:
            made = admin.create_user(
                at,
                actor_of(context),
                name,
                email=email,
                display=display,
                password=plain,
                super_admin=super_admin,
                also=also,
            )
        elif super_admin:
            made = admin.first_super_admin(at, name, email=email, password=plain, also=also)
            self._end_set_up()
        else:
            raise InvalidInput("nobody administers DBLens yet", hint="the first user is a super_admin")
        user = made.user if isinstance(made, ResetLink) else made
        tell(id=user.id)
        return CreatedUser(user=view(user), reset=self._issued(made) if isinstance(made, ResetLink) else None)

    @operation("user.update", mutates=True, step_up=True, target="user")
    def update(self, user: str, *, display: str | None = None, email: str | None = None) -> UserView:
        """Change the shown name or the e-mail address. Raises InvalidInput, NotFound, Conflict for an address that is taken."""
        context = self._instance()
        with context.store.write() as tx:
            found = accounts.update_user(tx, find_user(tx, user).id, display=display, email=email)
        tell(id=found.id)
        return view(found)

    @operation("user.approve", permission="user.update", mutates=True, step_up=True, target="user")
    def approve(self, user: str) -> UserView:
        """Let somebody who signed up in. Raises NotFound."""
        at, found = self._named(user)
        return view(admin.approve_user(at, actor_of(self.context), found.id))

    @operation("user.disable", mutates=True, step_up=True, target="user")
    def disable(self, user: str) -> UserView:
        """Let a user in no more; sessions and access tokens end at once. Raises NotFound, Conflict for oneself."""
        at, found = self._named(user)
        return view(admin.disable_user(at, actor_of(self.context), found.id))

    @operation("user.enable", permission="user.disable", mutates=True, step_up=True, target="user")
    def enable(self, user: str) -> UserView:
        """Let a user in again; a lockout ends too. Raises NotFound."""
        at, found = self._named(user)
        return view(admin.enable_user(at, actor_of(self.context), found.id))

    @operation("user.delete", mutates=True, step_up=True, target="user")
    def delete(self, user: str, *, to: Mapping[str, str] | None = None) -> None:
        """Delete a user. `to` names, by organization, the member who gets their connections.

        Raises NotFound, InvalidInput, Conflict for oneself, for the last admin of an organization and where nobody is named.
        """
        at, found = self._named(user)
        context, moved = self.context, 0

        def also(tx: Transaction, gone: User) -> None:
            nonlocal moved
            heirs = {find_organization(tx, name): heir for name, heir in (to or {}).items()}
            places = _memberships(tx, gone.id)
            if strange := set(heirs) - set(places):
                raise InvalidInput(
                    f"{gone.name!r} is no member of {sorted(strange)}", hint="`to` is for their organizations"
                )
            if places:
                role = organizations.find_role(tx, places[0], ADMIN)
                if alone := organizations.sole_holder_of(tx, gone.id, {role.id}):
                    raise Conflict(
                        f"{gone.name!r} is the last admin of {', '.join(repr(place.slug) for place in alone)}",
                        hint="make another member admin, or delete the organization",
                    )
            for place in places:
                moved += hand_over(tx, context, place, gone.id, heirs.get(place))

        admin.delete_user(at, actor_of(context), found.id, also=also)
        tell(id=found.id, connections=moved)

    @operation("user.reset", mutates=True, step_up=True, target="user")
    def reset(self, user: str) -> IssuedLink:
        """Make a link to set a new password. The old one, sessions and access tokens end at once, and a lockout. Raises NotFound."""
        at, found = self._named(user)
        return self._issued(admin.reset_user(at, actor_of(self.context), found.id))

    @operation("user.sessions", permission="user.disable", target="user", shown=("limit", "after"))
    def sessions(self, user: str, *, limit: int = 50, after: str | None = None) -> Page[SessionView]:
        """Return a page of a user's live sessions, the newest first. Raises InvalidInput, NotFound."""
        context = self._instance()
        with context.store.read() as tx:
            found = find_user(tx, user)
            page = sessions.list_sessions(tx, found.id, live_at=context.clock(), limit=limit, after=after)
        return Page(items=tuple(session_view(item, None) for item in page.items), after=page.after)

    @operation("user.end_sessions", permission="user.disable", mutates=True, step_up=True, target="user")
    def end_sessions(self, user: str) -> None:
        """End every session and access token of a user. Raises NotFound."""
        at, found = self._named(user)
        admin.end_sessions(at, actor_of(self.context), found.id)

    @operation(
        "user.super_admin", permission="user.update", mutates=True, step_up=True, target="user", shown=("allowed",)
    )
    def super_admin(self, user: str, *, allowed: bool) -> UserView:
        """Let a user administer the instance, or no longer. Raises NotFound, Conflict for the last one."""
        at, found = self._named(user)
        return view(admin.set_super_admin(at, actor_of(self.context), found.id, allowed))

    # --------------------------------------------------------------------------------------------------------------- helpers

    def _instance(self) -> Any:
        """Return the context of who administers the instance. A role of an organization never does, whatever its patterns say."""
        if not instance_wide(self.context.principal):
            raise PermissionDenied("accounts are administered by a super_admin", hint="ask one")
        return self.context

    def _named(self, user: str) -> tuple[Any, User]:
        context = self._instance()
        with context.store.read() as tx:
            found = find_user(tx, user)
        tell(id=found.id)
        return accounts_at(context), found

    def _issued(self, made: ResetLink) -> IssuedLink:
        link, house = made.link, self.context.house
        if link is None and house is not None and house.settings.public_url is not None:
            link = f"{house.settings.public_url.rstrip('/')}/reset-password#token={made.token}"
        return IssuedLink(user=view(made.user), expires_at=made.expires_at, token=made.token, link=link)

    def _end_set_up(self) -> None:
        """Forget the code that guarded the set-up over the network."""
        try:
            with self.context.store.write() as tx:
                secrets.delete_instance(tx, configured.SET_UP_CODE)
        except NotFound:
            return


def view(user: User) -> UserView:
    """Return an account as administrators of the instance see it."""
    return UserView(**{name: getattr(user, name) for name in UserView.__struct_fields__ if hasattr(user, name)})


def _member(member: Member) -> UserView:
    return UserView(
        id=member.user_id,
        name=member.name,
        display=member.display,
        email=member.email,
        active=member.active,
        role=member.role,
    )


def _memberships(tx: Transaction, user_id: str) -> tuple[str, ...]:
    found: list[str] = []
    after: str | None = None
    while True:
        part = organizations.list_memberships(tx, user_id, limit=200, after=after)
        found += [item.organization.id for item in part.items]
        after = part.after
        if after is None:
            return tuple(found)
