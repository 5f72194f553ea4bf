"""Who may hand out what: nobody above their own rank, nobody what they lack."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.errors import InvalidInput, PermissionDenied
from dblens.workspace import permissions as p
from dblens.workspace.principal import Principal, local

KNOWN = sorted(p.known())
PATTERNS = st.sampled_from(
    [*KNOWN, *sorted({f"{name.partition('.')[0]}.*" for name in KNOWN}), "*.*", "*.read", "*.list"]
)
ROLES = st.sampled_from(sorted(p.SYSTEM_ROLES))


def actor(role: str | None = None, **more: Any) -> Principal:
    given: dict[str, Any] = {"kind": "account", "user_id": "u", "name": "ann", "org_id": "acme", "role": role}
    if role in p.SYSTEM_ROLES:
        given |= {"rank": p.SYSTEM_ROLES[role].rank, "permissions": p.SYSTEM_ROLES[role].permissions}
    return Principal(**given | more)


@st.composite
def actors(draw: st.DrawFn) -> Principal:
    if draw(st.booleans()):
        made = actor(draw(ROLES))
    else:
        made = actor("custom", rank=draw(st.integers(1, 99)), permissions=tuple(draw(st.lists(PATTERNS, max_size=6))))
    scopes = draw(st.none() | st.lists(PATTERNS, max_size=4).map(tuple))
    return msgspec.structs.replace(made, scopes=scopes)


def has(who: Principal, name: str) -> bool:
    """Say what somebody has, name by name, without the function under test for narrower patterns."""

    def one(patterns: tuple[str, ...]) -> bool:
        noun, verb = name.split(".")
        return any(pattern in (name, f"{noun}.*", f"*.{verb}", "*.*") for pattern in patterns)

    own = ["organization.list", "organization.create", "organization.use", "organization.accept", "organization.leave"]
    everyone = ("account.*", "audit.own", "notification.*", "search.find", *own)
    role = one((*who.permissions, *everyone)) or who.role == "super_admin"
    return role and (who.scopes is None or one(who.scopes))


@given(actors(), st.integers(0, 120), st.lists(PATTERNS, max_size=6))
def test_nobody_grants_above_their_rank_or_what_they_lack(who: Principal, rank: int, patterns: list[str]) -> None:
    try:
        p.may_grant(who, rank, patterns)
    except PermissionDenied:
        return
    assert rank <= who.rank
    for name in KNOWN:
        if p.covers(patterns, name):
            assert has(who, name), name


@given(actors(), st.lists(st.sampled_from(KNOWN), max_size=6), st.integers(1, 99))
def test_whoever_has_it_and_ranks_high_enough_may(who: Principal, names: list[str], rank: int) -> None:
    if rank <= who.rank and all(has(who, name) for name in names):
        p.may_grant(who, rank, names)


@given(ROLES, st.none() | ROLES, st.none() | ROLES)
def test_every_actor_target_and_role(who: str, target: str | None, role: str | None) -> None:
    """The outcome is written down by ranks and by who is whose superset, not computed by the policy."""
    rank = {"super_admin": 100, "admin": 80, "developer": 60, "analyst": 40, "auditor": 30, "viewer": 20}
    within = {
        "super_admin": set(rank),
        "admin": {"admin", "developer", "analyst", "auditor", "viewer"},
        "developer": {"developer", "analyst", "viewer"},
        "analyst": {"analyst", "viewer"},
        "auditor": {"auditor"},
        "viewer": {"viewer"},
    }
    may = (target is None or rank[target] <= rank[who]) and (role is None or role in within[who])
    new = p.SYSTEM_ROLES[role] if role else None
    try:
        p.may_assign(
            actor(who), rank[target] if target else None, new.rank if new else None, new.permissions if new else ()
        )
    except PermissionDenied:
        assert not may
    else:
        assert may


def test_nobody_raises_themself() -> None:
    for name, role in p.SYSTEM_ROLES.items():
        for other in p.SYSTEM_ROLES.values():
            if other.rank > role.rank:
                with pytest.raises(PermissionDenied, match="above your own"):
                    p.may_assign(actor(name), role.rank, other.rank, other.permissions)


def test_a_token_hands_out_no_more_than_its_scope() -> None:
    who = actor("admin", kind="token", scopes=("role.*", "team.*"))
    p.may_grant(who, 20, ["team.list"])
    with pytest.raises(PermissionDenied, match=r"query\.run"):
        p.may_grant(who, 20, ["query.run"])
    with pytest.raises(PermissionDenied):
        p.may_grant(actor("super_admin", scopes=()), 20, ["team.list"])


@pytest.mark.parametrize("name", ["admin", "Admin", "SUPER_ADMIN", "super-admin", "owner", "viewer"])
def test_a_custom_role_has_no_name_of_the_system(name: str) -> None:
    with pytest.raises(InvalidInput, match="role of the system"):
        p.may_define(actor("admin"), name, 10, ["team.list"])


@pytest.mark.parametrize("rank", [0, -1, 100, 1000])
def test_a_custom_role_ranks_below_the_instance(rank: int) -> None:
    with pytest.raises(InvalidInput, match="rank is"):
        p.may_define(local("ann", "u", "acme"), "mine", rank, ["team.list"])


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "team",
        "team.",
        "team.listt",
        "nonsense.*",
        "*.nonsense",
        "team.li*",
        "Team.list",
        "team.list ",
        "team.list\n",
    ],
)
def test_a_custom_role_is_made_of_permissions_that_exist(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="no such permission"):
        p.may_define(actor("admin"), "mine", 10, ["team.list", pattern])
    assert not p.covers((pattern,), "team.list")


def test_a_custom_role_is_kept_in_order_and_once() -> None:
    made = p.may_define(actor("admin"), "mine", 10, ["team.list", "query.run", "team.list", "backup.*"])
    assert made == ("backup.*", "query.run", "team.list")


def test_a_pattern_is_covered_by_one_as_wide_only() -> None:
    assert p.covers(["team.*"], "team.*")
    assert p.covers(["*.*"], "team.*")
    assert not p.covers([f"team.{verb}" for verb in ("list", "create", "update", "delete")], "team.*")
    assert not p.covers(["team.*"], "*.*")
    assert not p.covers(["*.list"], "team.*")


def test_the_roles_patterns_all_mean_something() -> None:
    for role in p.SYSTEM_ROLES.values():
        assert p.checked(role.permissions) == tuple(sorted(role.permissions))
