"""The door to roles: which permissions there are, the system's roles, and an organization's own."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from dblens.errors import NotFound
from dblens.store import organizations
from dblens.store.organizations import Role
from dblens.store.rows import Page
from dblens.workspace import registry
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.people import chosen_organization
from dblens.workspace.permissions import EVERYONE, SYSTEM_ROLES, covers, known, may_assign, may_define

if TYPE_CHECKING:
    from dblens.store.database import Transaction

_ID = re.compile(r"[0-9a-f]{32}")
_ABOUT: Final = {
    "audit.instance": "Read the audit of every organization and of the instance.",
    "organization.connections": "Manage every connection of the organization, whoever owns it.",
    "settings.instance": "Read and change what holds for the whole instance.",
}


class RoleView(msgspec.Struct, frozen=True, kw_only=True):
    """A role. One of the system cannot be changed."""

    id: str
    name: str
    rank: int
    permissions: tuple[str, ...]
    system: bool
    about: str
    created_at: dt.datetime


class PermissionView(msgspec.Struct, frozen=True, kw_only=True):
    """A permission: what it is good for, its operations, and the system roles that have it (`everyone`: every account)."""

    name: str
    about: str
    operations: tuple[str, ...]
    roles: tuple[str, ...]


class Roles(Door):
    """Roles of the organization that the caller acts in. `role` is an id or a name."""

    @operation("role.list", on="organization", cost="light", shown=("limit", "after"))
    def list(self, *, limit: int = 50, after: str | None = None) -> Page[RoleView]:
        """Return a page of the system's roles and the organization's own. Raises InvalidInput."""
        context = self.context
        with context.store.read() as tx:
            found = organizations.list_roles(tx, chosen_organization(context), limit=limit, after=after)
        return Page(items=tuple(_view(role) for role in found.items), after=found.after)

    @operation("role.read", on="organization", permission="role.list", cost="light", target="role")
    def read(self, role: str) -> RoleView:
        """Return a role. Raises NotFound."""
        with self.context.store.read() as tx:
            return _view(self._found(tx, role))

    @operation("role.permissions", permission="role.list", on="organization", cost="light")
    def permissions(self) -> tuple[PermissionView, ...]:
        """Return every permission there is, in order. A role's patterns are made of them: `noun.verb`, `noun.*`, `*.verb`."""
        return described()

    @operation(
        "role.create", on="organization", mutates=True, step_up=True, target="name", shown=("permissions", "rank")
    )
    def create(self, name: str, permissions: Sequence[str], *, rank: int = 10) -> RoleView:
        """Make a role of the organization's own, of permissions that one has oneself and a rank not above one's own.

        Raises InvalidInput, PermissionDenied, Conflict for a name that is taken.
        """
        context = self.context
        patterns = may_define(context.principal, name, rank, permissions)
        with context.store.write() as tx:
            made = organizations.create_role(
                tx, chosen_organization(context), name, patterns, rank=rank, now=context.clock()
            )
        tell(id=made.id)
        return _view(made)

    @operation(
        "role.update",
        on="organization",
        mutates=True,
        step_up=True,
        target="role",
        shown=("name", "permissions", "rank"),
    )
    def update(
        self,
        role: str,
        *,
        name: str | None = None,
        permissions: Sequence[str] | None = None,
        rank: int | None = None,
    ) -> RoleView:
        """Change a role of the organization's own; its members feel it at once. What results must be the caller's to give.

        Raises InvalidInput, NotFound (a system role too), PermissionDenied, Conflict.
        """
        principal = self.context.principal
        with self.context.store.write() as tx:
            found = self._own(tx, role)
            may_assign(principal, found.rank, None)
            patterns = may_define(
                principal,
                found.name if name is None else name,
                found.rank if rank is None else rank,
                found.permissions if permissions is None else permissions,
            )
            made = organizations.update_role(
                tx, chosen_organization(self.context), found.id, name=name, permissions=patterns, rank=rank
            )
        tell(id=made.id)
        return _view(made)

    @operation("role.delete", on="organization", mutates=True, step_up=True, target="role")
    def delete(self, role: str) -> None:
        """Delete a role of the organization's own. Raises NotFound, PermissionDenied, Conflict while somebody has it."""
        with self.context.store.write() as tx:
            found = self._own(tx, role)
            may_assign(self.context.principal, found.rank, None)
            organizations.delete_role(tx, chosen_organization(self.context), found.id)
        tell(id=found.id)

    def _found(self, tx: Transaction, role: str) -> Role:
        org_id = chosen_organization(self.context)
        if _ID.fullmatch(role):
            try:
                return organizations.get_role(tx, org_id, role)
            except NotFound:
                pass
        return organizations.find_role(tx, org_id, role)

    def _own(self, tx: Transaction, role: str) -> Role:
        found = self._found(tx, role)
        if found.org_id is None:
            raise NotFound(f"{found.name!r} is a role of the system", hint="make one of your own: `dblens role create`")
        return found


def described() -> tuple[PermissionView, ...]:
    """Return every permission with what is known of it."""
    operations: dict[str, list[tuple[str, str]]] = {}
    for about in registry.load():
        first = about.doc.partition("\n")[0].partition(" Raises ")[0]
        operations.setdefault(about.permission, []).append((about.name, first))
    made = []
    for name in sorted(known()):
        there = sorted(operations.get(name, ()), key=lambda item: (item[0] != name, item[0]))
        roles = tuple(role.name for role in SYSTEM_ROLES.values() if covers(role.permissions, name))
        made.append(
            PermissionView(
                name=name,
                about=_ABOUT.get(name) or (there[0][1] if there else "Reserved: nothing asks for it yet."),
                operations=tuple(each for each, _ in there),
                roles=("everyone",) if covers(EVERYONE, name) else roles,
            )
        )
    return tuple(made)


def _view(role: Role) -> RoleView:
    system = SYSTEM_ROLES.get(role.name) if role.org_id is None else None
    return RoleView(
        id=role.id,
        name=role.name,
        rank=role.rank,
        permissions=role.permissions,
        system=role.org_id is None,
        about="" if system is None else system.about,
        created_at=role.created_at,
    )
