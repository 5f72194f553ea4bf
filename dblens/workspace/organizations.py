"""The door to organizations: make them, choose one, and who is in them with which role.

Nobody hands out a role above their own or a permission they lack, to anybody, themselves included; nobody touches a member above
them; one active admin always remains; what somebody owned stays in the organization when they leave it.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from dblens.accounts.base import digest, secret
from dblens.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unsupported
from dblens.redaction import Secret
from dblens.store import accounts, connections, invitations, organizations, runs
from dblens.store.accounts import User, check_email
from dblens.store.invitations import Invitation
from dblens.store.organizations import Member, Organization, Role
from dblens.store.rows import Page
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import (
    accounts_at,
    end_membership,
    find_member,
    find_organization,
    find_role,
    find_user,
    instance_wide,
    must_remain,
    person,
)
from dblens.workspace.permissions import is_super, may_assign, may_grant
from dblens.workspace.principal import Principal

if TYPE_CHECKING:
    from dblens.store.database import Transaction

INVITATION = "dbl_inv_"
LONGEST_INVITATION = 30
"""Days."""
_GONE = "the invitation is not valid: used, revoked or expired, or for another account"


class OrganizationView(msgspec.Struct, frozen=True, kw_only=True):
    """An organization as the caller sees it: `role` is their own there, `current` the one they work in."""

    id: str
    name: str
    slug: str
    created_at: dt.datetime
    role: str | None = None
    rank: int | None = None
    current: bool = False


class InvitationView(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation, without what proves it."""

    id: str
    email: str
    role: str
    created_by: str | None
    created_at: dt.datetime
    expires_at: dt.datetime
    accepted_at: dt.datetime | None = None


class Invited(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation made just now. `token` can be read only now, and not at all when it was sent by mail."""

    invitation: InvitationView
    mailed: bool
    token: str | None = None
    link: str | None = None

    def __repr__(self) -> str:
        return f"Invited(invitation={self.invitation!r}, mailed={self.mailed!r})"

    def __rich_repr__(self) -> Any:
        yield "invitation", self.invitation
        yield "mailed", self.mailed


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What became of what a member had: connections handed over, access tokens ended."""

    connections: int
    tokens: int


class Organizations(Door):
    """Organizations and their members. `organization` is an id, of the one that the caller acts in."""

    @operation("organization.list", cost="light", shown=("limit", "after"))
    def list(self, *, search: str | None = None, limit: int = 50, after: str | None = None) -> Page[OrganizationView]:
        """Return a page of one's own organizations; for a super_admin, of all. Raises InvalidInput."""
        principal = self.context.principal
        with self.context.store.read() as tx:
            if is_super(principal):
                every = organizations.list_organizations(tx, search=search, limit=limit, after=after)
                return Page(items=tuple(self._view(item, None) for item in every.items), after=every.after)
            mine = organizations.list_memberships(tx, principal.user_id, limit=limit, after=after)
        if principal.kind == "token":  # which is good for one only
            items = [item for item in mine.items if item.organization.id == principal.org_id]
        else:
            items = [*mine.items]
        if search:
            wanted = search.casefold()
            items = [i for i in items if wanted in i.organization.name.casefold() or wanted in i.organization.slug]
        return Page(items=tuple(self._view(item.organization, item.role) for item in items), after=mine.after)

    @operation("organization.read", on="organization", cost="light")
    def read(self, organization: str) -> OrganizationView:
        """Return an organization. Raises NotFound."""
        with self.context.store.read() as tx:
            found = organizations.get_organization(tx, organization)
            try:
                role: Role | None = organizations.role_of(tx, organization, self.context.principal.user_id)
            except NotFound:
                role = None
        return self._view(found, role)

    @operation("organization.create", mutates=True, target="name", shown=("slug", "admin"))
    def create(self, name: str, *, slug: str | None = None, admin: str | None = None) -> OrganizationView:
        """Make an organization, of which the caller becomes the admin; only a super_admin names another `admin`.

        Raises InvalidInput, Conflict for a slug that is taken, PermissionDenied, RateLimited.
        """
        context, principal = self.context, self.context.principal
        if admin is not None and not instance_wide(principal):
            raise PermissionDenied(
                "only a super_admin makes an organization for somebody else", hint="leave `admin` out"
            )
        if not instance_wide(principal):
            accounts_at(context).limits.hit("organization", account=principal.name)
        with context.store.write() as tx:
            first = accounts.get_user(tx, principal.user_id) if admin is None else _active(find_user(tx, admin))
            made = organizations.create_organization(tx, name, slug=slug, now=context.clock())
            role = organizations.find_role(tx, made.id, "admin")
            organizations.add_member(tx, made.id, first.id, role.id, now=context.clock())
        tell(target=made.id, slug=made.slug)
        return self._view(made, role if first.id == principal.user_id else None)

    @operation("organization.update", on="organization", mutates=True, step_up=True, shown=("organization", "slug"))
    def update(self, organization: str, *, name: str | None = None, slug: str | None = None) -> OrganizationView:
        """Change the name or the short name. Raises InvalidInput, NotFound, Conflict."""
        with self.context.store.write() as tx:
            found = organizations.rename_organization(tx, organization, name=name, slug=slug)
        return self._view(found, None, like=self.context.principal)

    @operation("organization.delete", on="organization", mutates=True, step_up=True, shown=("organization",))
    def delete(self, organization: str) -> None:
        """Delete an organization: it and all that is in it are there for nobody any more. Raises NotFound, Conflict while a run is at work."""
        context = self.context
        with context.store.write() as tx:
            working = [runs.list_runs(tx, organization, state=state, limit=1).items for state in ("running", "queued")]
            if any(working):
                run = next(items[0] for items in working if items)
                raise Conflict(
                    f"{run.operation} is {run.state} in this organization",
                    hint=f"wait for it, or `dblens run cancel {run.id}`",
                )
            gone = _connections(tx, organization)
            organizations.delete_organization(tx, organization, now=context.clock())
        tell(connections=len(gone))
        if context.house is not None:
            for connection in gone:
                context.house.lines.forget(connection)
            self._forget_owner()

    @operation("organization.use", mutates=True, cost="light", target="organization")
    def use(self, organization: str) -> OrganizationView:
        """Choose the organization to work in, by id or short name, until another is chosen. Raises NotFound, PermissionDenied."""
        context, principal = self.context, self.context.principal
        person(principal, "choose an organization: it is good for one only")
        with context.store.write() as tx:
            try:
                org_id = find_organization(tx, organization)
                role = organizations.role_of(tx, org_id, principal.user_id)
            except NotFound:
                raise NotFound(f"no organization {organization[:100]!r}", hint="`dblens org list`") from None
            found = organizations.set_current(tx, principal.user_id, org_id)
        tell(target=found.id)
        if principal.kind == "local" and not is_super(principal):
            # Every request of a login is asked again who it is; the person at this machine is asked once.
            self._forget_owner()
            msgspec.structs.force_setattr(context, "principal", msgspec.structs.replace(principal, org_id=org_id))
        return msgspec.structs.replace(self._view(found, role), current=True)

    # --------------------------------------------------------------------------------------------------------------- members

    @operation("organization.members", on="organization", shown=("organization", "limit", "after"))
    def members(
        self, organization: str, *, search: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[Member]:
        """Return a page of the members; `search` looks in name, shown name and e-mail address. Raises InvalidInput."""
        with self.context.store.read() as tx:
            return organizations.list_members(tx, organization, search=search, limit=limit, after=after)

    @operation(
        "organization.admit",
        on="organization",
        mutates=True,
        step_up=True,
        target="user",
        shown=("organization", "role"),
    )
    def admit(self, organization: str, user: str, role: str) -> Member:
        """Make somebody who has an account a member.

        An organization's own admin names them by their e-mail address, or anybody they share an organization with: the names of
        others are not told. Raises NotFound, PermissionDenied for a role above one's own, Conflict for a member, RateLimited.
        """
        context, principal = self.context, self.context.principal
        if not instance_wide(principal):
            accounts_at(context).limits.hit("invite", account=principal.name)
        with context.store.write() as tx:
            given = find_role(tx, organization, role)
            may_assign(principal, None, given.rank, given.permissions)
            found = _admissible(tx, principal, user)
            made = organizations.add_member(tx, organization, found.id, given.id, now=context.clock())
        tell(target=found.id)
        return made

    @operation(
        "organization.assign",
        on="organization",
        mutates=True,
        step_up=True,
        target="user",
        shown=("organization", "role"),
    )
    def assign(self, organization: str, user: str, role: str) -> Member:
        """Give a member another role. Raises NotFound, PermissionDenied for a role or member above one's own rank, Conflict."""
        with self.context.store.write() as tx:
            member = find_member(tx, organization, user)
            given = find_role(tx, organization, role)
            may_assign(self.context.principal, member.rank, given.rank, given.permissions)
            made = organizations.set_member_role(
                tx, organization, member.user_id, given.id, must_remain=must_remain(tx, organization)
            )
        tell(target=member.user_id, before=member.role)
        return made

    @operation(
        "organization.remove",
        on="organization",
        mutates=True,
        step_up=True,
        target="user",
        shown=("organization", "to"),
    )
    def remove(self, organization: str, user: str, *, to: str | None = None) -> Left:
        """End a membership with its teams, grants and access tokens; `to` is the member who gets their connections.

        Raises NotFound, PermissionDenied for a member above oneself, Conflict for the last admin or when `to` is missing.
        """
        with self.context.store.write() as tx:
            member = find_member(tx, organization, user)
            may_assign(self.context.principal, member.rank, None)
            moved, ended = end_membership(tx, self.context, organization, member, to)
        tell(target=member.user_id, connections=moved, tokens=ended)
        return Left(connections=moved, tokens=ended)

    @operation("organization.leave", mutates=True, target="organization", shown=("to",))
    def leave(self, organization: str, *, to: str | None = None) -> Left:
        """End one's own membership, by the organization's id or short name. Raises as `remove` does."""
        context, principal = self.context, self.context.principal
        person(principal, "leave an organization")
        with context.store.write() as tx:
            try:
                org_id = find_organization(tx, organization)
                member = organizations.get_member(tx, org_id, principal.user_id)
            except NotFound:
                raise NotFound(f"no organization {organization[:100]!r}", hint="`dblens org list`") from None
            moved, ended = end_membership(tx, context, org_id, member, to)
        tell(target=org_id, connections=moved, tokens=ended)
        self._forget_owner()
        return Left(connections=moved, tokens=ended)

    # ----------------------------------------------------------------------------------------------------------- invitations

    @operation(
        "organization.invite",
        on="organization",
        mutates=True,
        step_up=True,
        target="email",
        shown=("organization", "role", "days", "mail"),
    )
    def invite(self, organization: str, email: str, role: str, *, days: int = 7, mail: bool | None = None) -> Invited:
        """Invite whoever has an e-mail address. Sent by mail where that is configured (or `mail=False`), else handed over by hand.

        Raises InvalidInput, NotFound, PermissionDenied for a role above one's own, Conflict for a member, Unsupported, RateLimited.
        """
        context, principal = self.context, self.context.principal
        check_email(email)
        if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= LONGEST_INVITATION:
            raise InvalidInput(f"days is {days!r}", hint=f"from 1 to {LONGEST_INVITATION}")
        at = accounts_at(context)
        by_mail = at.letters is not None if mail is None else mail
        if by_mail and at.letters is None:
            raise Unsupported(
                "an invitation by mail", "no mail is configured", hint="leave `mail` out: you get a token"
            )
        at.limits.hit("invite", account=principal.name)
        if by_mail:
            at.limits.hit("mail", account=email)
        token, moment = INVITATION + secret(), context.clock()
        with context.store.write() as tx:
            given = find_role(tx, organization, role)
            may_grant(principal, given.rank, given.permissions)
            if any(member.email and member.email.lower() == email.lower() for member in _near(tx, organization, email)):
                raise Conflict(f"{email} is a member already", hint="`dblens org assign` changes the role")
            made = invitations.create_invitation(
                tx,
                organization,
                email=email,
                role_id=given.id,
                hash=digest(token),
                created_by=principal.user_id,
                expires_at=moment + dt.timedelta(days=days),
                now=moment,
            )
            named = organizations.get_organization(tx, organization).name
        tell(invitation=made.id)
        view = _invitation(made, given.name, principal.name)
        if by_mail and at.letters is not None:
            at.letters.invite(email, named, principal.name, token)
            return Invited(invitation=view, mailed=True)
        link = None if at.letters is None else at.letters.link("accept-invitation", token)
        return Invited(invitation=view, mailed=False, token=token, link=link)

    @operation(
        "organization.invitations",
        on="organization",
        permission="organization.invite",
        shown=("organization", "limit", "after"),
    )
    def invitations(self, organization: str, *, limit: int = 50, after: str | None = None) -> Page[InvitationView]:
        """Return a page of the invitations that can still be accepted. Raises InvalidInput."""
        with self.context.store.read() as tx:
            found = invitations.list_invitations(
                tx, organization, open_at=self.context.clock(), limit=limit, after=after
            )
            items = []
            for item in found.items:
                role = organizations.get_role(tx, organization, item.role_id)
                items.append(_invitation(item, role.name, _name(tx, item.created_by)))
        return Page(items=tuple(items), after=found.after)

    @operation(
        "organization.revoke_invitation",
        on="organization",
        permission="organization.invite",
        mutates=True,
        target="invitation",
        shown=("organization",),
    )
    def revoke_invitation(self, organization: str, invitation: str) -> None:
        """Take an invitation back. Raises NotFound, PermissionDenied for one to a role above one's own rank."""
        with self.context.store.write() as tx:
            found = invitations.get_invitation(tx, organization, invitation)
            may_assign(self.context.principal, organizations.get_role(tx, organization, found.role_id).rank, None)
            invitations.revoke_invitation(tx, organization, invitation)

    @operation("organization.accept", mutates=True)
    def accept(self, token: Secret) -> OrganizationView:
        """Become a member by an invitation to one's own e-mail address. Raises NotFound, Conflict, PermissionDenied, RateLimited."""
        context, principal = self.context, self.context.principal
        person(principal, "accept an invitation")
        accounts_at(context).limits.hit("invite", account=principal.name)
        moment, hash = context.clock(), digest(token.reveal())
        with context.store.write() as tx:
            found = invitations.find_invitation(tx, hash, now=moment)
            user = accounts.get_user(tx, principal.user_id)
            if user.email is None or user.email.lower() != found.email.lower():
                raise NotFound(_GONE, hint="the account needs the e-mail address that was invited")
            _still_offered(tx, found)
            invitations.accept_invitation(tx, hash, user.id, now=moment)
            made = organizations.get_organization(tx, found.org_id)
            role = organizations.role_of(tx, found.org_id, user.id)
        tell(target=made.id, invitation=found.id, role=role.name)
        return self._view(made, role)

    # --------------------------------------------------------------------------------------------------------------- helpers

    def _view(self, found: Organization, role: Role | None, *, like: Principal | None = None) -> OrganizationView:
        principal = self.context.principal
        name = role.name if role is not None else like.role if like is not None else None
        return OrganizationView(
            id=found.id,
            name=found.name,
            slug=found.slug,
            created_at=found.created_at,
            role=name,
            rank=role.rank if role is not None else like.rank if like is not None else None,
            current=found.id == principal.org_id,
        )

    def _forget_owner(self) -> None:
        """Let the person at this machine be looked up anew: the organization they worked in may be another."""
        if self.context.house is not None and self.context.principal.kind == "local":
            vars(self.context.house).pop("owner", None)


def _active(user: User) -> User:
    if not user.active or not user.approved:
        raise Conflict(f"{user.name!r} cannot log in", hint="enable or approve the account first")
    return user


def _admissible(tx: Transaction, principal: Principal, name: str) -> User:
    """Return the user that somebody may make a member. Raises NotFound, the same for nobody and for who may not be named so."""
    missing = NotFound(f"no account {name[:100]!r} that you may add by this name", hint="invite them by e-mail")
    try:
        found = find_user(tx, name)
    except NotFound:
        raise missing from None
    if instance_wide(principal):
        return _active(found)
    known = found.email is not None and found.email.lower() == name.lower()
    if not known and not organizations.share_organization(tx, principal.user_id, found.id):
        raise missing
    if not found.active or not found.approved:
        raise missing
    return found


def _still_offered(tx: Transaction, found: Invitation) -> None:
    """Look that who invited could do so now: what a dismissed admin handed out is void. Raises NotFound."""
    role = organizations.get_role(tx, found.org_id, found.role_id)
    try:
        author = accounts.get_user(tx, found.created_by or "")
        if author.super_admin and author.active:
            return
        theirs = organizations.role_of(tx, found.org_id, author.id)
    except NotFound:
        raise NotFound(_GONE, hint="ask for another") from None
    acting = Principal(
        kind="account", user_id=author.id, name=author.name, role=theirs.name, rank=theirs.rank,
        permissions=theirs.permissions,
    )  # fmt: skip
    try:
        may_grant(acting, role.rank, (*role.permissions, "organization.invite"))
    except PermissionDenied:
        raise NotFound(_GONE, hint="ask for another") from None


def _near(tx: Transaction, org_id: str, email: str) -> tuple[Member, ...]:
    return organizations.list_members(tx, org_id, search=email, limit=200).items


def _connections(tx: Transaction, org_id: str) -> list[str]:
    found: list[str] = []
    after: str | None = None
    while True:
        part = connections.list_connections(tx, org_id, limit=200, after=after)
        found += [item.id for item in part.items]
        after = part.after
        if after is None:
            return found


def _name(tx: Transaction, user_id: str | None) -> str | None:
    return None if user_id is None else accounts.get_user(tx, user_id).name


def _invitation(found: Invitation, role: str, by: str | None) -> InvitationView:
    return InvitationView(
        id=found.id,
        email=found.email,
        role=role,
        created_by=by,
        created_at=found.created_at,
        expires_at=found.expires_at,
        accepted_at=found.accepted_at,
    )
