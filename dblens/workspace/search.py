"""The door to the search over all nouns: one text, typed hits, and never one that the caller could not list.

Each noun is asked for only when the caller's role and token may list it, and then only for what is shared with the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from dblens.errors import InvalidInput
from dblens.store import search as store_search
from dblens.store.database import Transaction
from dblens.store.rows import LONGEST_PAGE
from dblens.store.search import Found
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.permissions import ANY_CONNECTION, EVERYONE, SUPER_ADMIN, covers
from dblens.workspace.principal import Principal
from dblens.workspace.registry import load

Kind: TypeAlias = Literal["connection", "run", "template", "plan", "team", "member", "role", "setting", "action"]

_NEEDS: Final[dict[Kind, str]] = {
    "connection": "connection.list",
    "run": "run.list",
    "template": "template.list",
    "plan": "migration.list",
    "team": "team.list",
    "member": "organization.members",
    "role": "role.list",
    "setting": "settings.read",
    "action": "audit.read",
}
"""What a caller must be allowed to find a kind at all."""


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """Something that holds the text. The higher the score, the better; `id` is what its noun's operations take."""

    kind: Kind
    id: str
    name: str
    detail: str
    score: int


class Search(Door):
    """Find anything by a piece of its name."""

    @operation("search.find", on="organization", cost="light", shown=("kinds", "limit"))
    def find(self, text: str, *, kinds: Sequence[Kind] | None = None, limit: int = 20) -> list[Hit]:
        """Return the best hits among all that the caller may list, or only among some kinds. Raises InvalidInput."""
        wanted = store_search.needle(text)
        if unknown := [kind for kind in kinds or () if kind not in _NEEDS]:
            raise InvalidInput(f"kinds holds {unknown[0]!r}", hint=f"some of {', '.join(_NEEDS)}")
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LONGEST_PAGE:
            raise InvalidInput(f"limit is {limit!r}", hint=f"a whole number from 1 to {LONGEST_PAGE}")
        principal = self.context.principal
        hits: list[Hit] = []
        with self.context.store.read() as tx:
            for kind, needed in _NEEDS.items():
                if (kinds is None or kind in kinds) and _may(principal, needed):
                    hits += [
                        Hit(kind=kind, **msgspec.structs.asdict(found))
                        for found in _ASK[kind](tx, principal, wanted, limit)
                    ]
        hits.sort(key=lambda hit: (-hit.score, hit.name.casefold(), hit.kind))
        tell(hits=len(hits[:limit]))
        return hits[:limit]


def _may(principal: Principal, permission: str) -> bool:
    if principal.scopes is not None and not covers(principal.scopes, permission):
        return False
    return covers((*principal.permissions, *EVERYONE), permission)


def _all(principal: Principal) -> bool:
    """Return whether the caller manages every connection of the organization: the same rule as `policy.effective`."""
    return principal.role != SUPER_ADMIN and covers(principal.permissions, ANY_CONNECTION)


def _connections(tx: Transaction, who: Principal, text: str, limit: int) -> list[Found]:
    if who.role == SUPER_ADMIN:
        return []
    return store_search.find_connections(
        tx, _org(who), who.user_id, text, everything=_all(who), only=who.connections, limit=limit
    )


def _runs(tx: Transaction, who: Principal, text: str, limit: int) -> list[Found]:
    return store_search.find_runs(
        tx, _org(who), who.user_id, text, everything=_all(who), only=who.connections, limit=limit
    )


def _plans(tx: Transaction, who: Principal, text: str, limit: int) -> list[Found]:
    return store_search.find_plans(
        tx, _org(who), who.user_id, text, everything=_all(who), only=who.connections, limit=limit
    )


def _settings(tx: Transaction, who: Principal, text: str, limit: int) -> list[Found]:  # noqa: ARG001 - names, no rows
    from dblens.workspace.setting_kinds import KINDS, visible

    scored = [
        Found(id=kind.name, name=kind.name, detail=kind.about, score=store_search.score(text, kind.name, kind.about))
        for kind in KINDS.values()
        if visible(kind, who)
    ]
    return [found for found in scored if found.score][:limit]


def _actions(tx: Transaction, who: Principal, text: str, limit: int) -> list[Found]:  # noqa: ARG001 - names, no rows
    scored = []
    for about in load():
        first = about.doc.partition("\n")[0]
        scored.append(Found(id=about.name, name=about.name, detail=first, score=store_search.score(text, about.name)))
    return sorted((found for found in scored if found.score), key=lambda found: (-found.score, found.name))[:limit]


def _org(who: Principal) -> str:
    assert who.org_id is not None  # the gate refuses a search without an organization
    return who.org_id


_ASK: Final[dict[Kind, Callable[[Transaction, Principal, str, int], list[Found]]]] = {
    "connection": _connections,
    "run": _runs,
    "template": lambda tx, who, text, limit: store_search.find_templates(tx, _org(who), text, limit=limit),
    "plan": _plans,
    "team": lambda tx, who, text, limit: store_search.find_teams(tx, _org(who), text, limit=limit),
    "member": lambda tx, who, text, limit: store_search.find_members(tx, _org(who), text, limit=limit),
    "role": lambda tx, who, text, limit: store_search.find_roles(tx, _org(who), text, limit=limit),
    "setting": _settings,
    "action": _actions,
}
