"""The same matrix through the gate itself, over a store with real grants: what `connections`, `locate`, `organization` and `local` find.

`test_matrix.py` asks the policy; here the arguments are found as a call finds them. Every operation there is takes part.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.errors import DBLensError, NotAuthenticated, NotFound, PermissionDenied
from dblens.store import connections, plans
from dblens.store.database import Store
from dblens.workspace import registry, wire
from dblens.workspace.operation import _authorized, _found
from dblens.workspace.permissions import EVERYONE, covers
from dblens.workspace.principal import Principal
from dblens.workspace.registry import Operation
from dblens.workspace.talks import _Open
from tests.unit.query.fakes import Asks, engine
from tests.workspace.rooms import NOW, Rooms, move_in
from tests.workspace.test_matrix import HAND

OPERATIONS = {about.name: about for about in registry.load()}
LOCATED: dict[str, dict[str, tuple[str, ...]]] = {
    "migration.apply": {"plan": ("use", "use")},
    "migration.verify": {"plan": ("use", "use")},
    "migration.read": {"migration": ("use", "use")},
    "migration.delete": {"migration": ("use", "use")},
    "query.commit": {"transaction": ("use",)},
    "query.rollback": {"transaction": ("use",)},
    "template.read": {"template": ("view", "view")},
    "template.update": {"template": ("use", "use")},
    "template.delete": {"template": ("use", "use")},
    "template.run": {"template": ("use", "use")},
}
"""By hand: which parameter leads to connections, and the levels they need."""
GRANTS = ("none", "view", "use", "manage", "owner")
ENOUGH = {"view": GRANTS[1:], "use": GRANTS[2:], "manage": GRANTS[3:]}
SCOPES = ("no token", "matching", "noun", "other", "empty")


class Places:
    """Two organizations; in each, for every role and grant, two connections and what leads to them."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.made: dict[tuple[str, str], dict[str, Any]] = {}
        self.count = 0

    def who(self, role: str | None) -> Principal:
        if role is None:
            found = self.rooms.person("acme", "viewer", "nobody")
            return msgspec.structs.replace(found, role=None, rank=0, permissions=())
        return self.rooms.person("acme", role)

    def things(self, org: str, grant: str, who: Principal) -> dict[str, Any]:
        """Return the connections and a plan of an organization; the person has that grant on both, and none in another's."""
        key = f"{org}/{grant}", who.user_id
        if key not in self.made:
            owner = self.rooms.person(org, "developer", f"{org}-owner").user_id
            member = org == "acme" and who.role != "super_admin"  # who is no member is given nothing
            mine = grant == "owner" and member
            ids = [self.rooms.connection(org, f"{n} {key}", who.user_id if mine else owner) for n in "ab"]
            org_id = self.rooms.org(org)
            with self.rooms.house.store.write() as tx:
                if member and grant not in ("none", "owner"):
                    for each in ids:
                        connections.grant(
                            tx, org_id, each, kind="user", grantee_id=who.user_id, level=grant, now=NOW  # type: ignore[arg-type]
                        )  # fmt: skip
            self.made[key] = {"connections": ids, **self.between(org, ids, who)}
        return self.made[key]

    def between(self, org: str, ids: list[str], who: Principal) -> dict[str, str]:
        """Return what leads to two connections: a plan and a template; and to the first: a transaction of the person."""
        self.count += 1
        with self.rooms.house.store.write() as tx:
            plan = plans.save_plan(
                tx, self.rooms.org(org), f"{self.count:032x}", hash="0" * 64, document=b"{}", source_id=ids[0],
                target_id=ids[1], created_by=None, now=NOW,
            )  # fmt: skip
            template = plans.create_template(
                tx, self.rooms.org(org), name=f"template {self.count}", kind="migration",
                body={"source": ids[0], "target": ids[1], "configuration": {}}, created_by=None, now=NOW,
            )  # fmt: skip
        talk = _Open(who.user_id, ids[0], "", engine(), Asks(_nothing), ExitStack(), 1e9, NOW)
        self.rooms.house.talks._open[talk.id] = talk
        return {"plan": plan.id, "migration": plan.id, "template": template.id, "transaction": talk.id}


def _nothing(asks: Asks, statement: str) -> Any:
    raise AssertionError(f"nothing is asked here: {statement}")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    from dblens.store.upgrade import open_store

    folder: Path = tmp_path_factory.mktemp("matrix")
    store: Store = open_store(f"sqlite:///{folder / 'store.sqlite'}")
    rooms = move_in(store, folder, mode="team")
    yield Places(rooms)
    rooms.house.close()


def scoped(kind: str, permission: str) -> tuple[str, ...] | None:
    noun = permission.partition(".")[0]
    other = (f"{'team' if noun != 'team' else 'query'}.*",)
    return {"no token": None, "matching": (permission,), "noun": (f"{noun}.*",), "other": other, "empty": ()}[kind]


def arguments(about: Operation, things: dict[str, Any], organization: str) -> dict[str, Any]:
    """Return arguments of a call that name what there is."""
    given: dict[str, Any] = {p.name: p.default for p in about.parameters}
    for parameter, each in zip(about.connections, things["connections"], strict=False):
        many = typing.get_origin(next(p for p in about.parameters if p.name == parameter).type) is not None
        given[parameter] = each if not many or not _takes_many(about, parameter) else [each]
    for parameter in LOCATED.get(about.name, {}):
        given[parameter] = things[parameter]
    if "organization" in given and about.on == "organization":
        given["organization"] = organization
    return given


def _takes_many(about: Operation, parameter: str) -> bool:
    return wire.is_list(wire.travelling(next(p for p in about.parameters if p.name == parameter).type))


def gate(
    about: Operation, places: Places, who: Principal, things: dict[str, Any], organization: str
) -> DBLensError | None:
    """Return what the gate says to a call, without the call."""
    context = places.rooms.house.context(who)
    workspace = places.rooms.house.workspace(who)
    door = getattr(workspace, about.door.rpartition(".")[0].rpartition(".")[2])
    given = arguments(about, things, organization)
    found, wrong = _found(about, door, given)
    return typing.cast("DBLensError | None", wrong or _authorized(about, context, given, found))


def expected(about: Operation, role: str | None, grant: str, scope: str, own: bool) -> set[type[Exception] | None]:
    """Say what must happen, by the table that is written by hand and the words of the rule."""
    if about.local:
        return {PermissionDenied, NotFound}  # whoever comes over a network
    levels = [*about.connections.values(), *(each for found in LOCATED.get(about.name, {}).values() for each in found)]
    named = about.on == "connection" or (
        about.on == "organization" and any(p.name == "organization" for p in about.parameters)
    )
    if named and not own:
        return {NotFound}
    if about.on == "connection":
        if role == "super_admin":
            return {PermissionDenied, NotFound}
        grant = "owner" if role == "admin" else grant
        if grant == "none":
            return {NotFound}
    if about.permission not in HAND[role] or scope in ("other", "empty"):
        return {PermissionDenied}
    if any(grant not in ENOUGH[level] for level in levels):
        return {PermissionDenied}
    if about.step_up and scope != "no token":
        return {NotAuthenticated}
    return {None}


@pytest.mark.parametrize("role", HAND, ids=str)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_gate_over_a_real_store(name: str, role: str | None, places: Places) -> None:
    about, person = OPERATIONS[name], places.who(role)
    grants = GRANTS if about.on == "connection" else ("owner",)
    for own in (True, False):
        for grant in grants if own else ("manage",):
            things = places.things("acme" if own else "beta", grant, person)
            for scope in SCOPES:
                scopes = scoped(scope, about.permission)
                kind = "account" if scopes is None else "token"
                who = msgspec.structs.replace(person, scopes=scopes, kind=kind)
                if role == "super_admin" and kind == "token":
                    continue  # there is none: see test_matrix
                said = gate(about, places, who, things, places.rooms.org("acme" if own else "beta"))
                case = (name, role, grant, scope, "own" if own else "other")
                assert (None if said is None else type(said)) in expected(about, role, grant, scope, own), (case, said)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_what_is_for_this_machine_is_for_its_person_only(name: str, places: Places) -> None:
    """Whatever it is, once it says `local`; those that do say so have no route either."""
    about, admin = msgspec.structs.replace(OPERATIONS[name], local=True), places.who("admin")
    assert wire.route(about) is None
    things = places.things("acme", "owner", admin)
    everything = msgspec.structs.replace(admin, role="owner", rank=100, permissions=("*.*",))
    for kind in ("account", "token", "hub", "service", "run"):
        who = msgspec.structs.replace(everything, kind=kind)  # type: ignore[arg-type]
        said = gate(about, places, who, things, places.rooms.org("acme"))
        assert isinstance(said, PermissionDenied), (kind, said)
        assert "one's own machine" in said.message
    assert (
        gate(about, places, msgspec.structs.replace(everything, kind="local"), things, places.rooms.org("acme")) is None
    )


def test_each_connection_that_is_located_is_asked_for(places: Places) -> None:
    """One side of a plan that is not shared hides the plan; one that is only to be seen forbids its use."""
    who = places.who("developer")
    for name, parameters in LOCATED.items():
        about, enough = OPERATIONS[name], next(iter(parameters.values()))
        for side in range(len(enough)):
            for level in ("none", "view"):
                ids = list(places.things("acme", "use", who)["connections"])
                ids[side] = places.things("acme", level, who)["connections"][side]
                things = {"connections": ids, **places.between("acme", ids, who)}
                said = gate(about, places, who, things, places.rooms.org("acme"))
                kind = NotFound if level == "none" else None if enough[side] == "view" else PermissionDenied
                assert (None if said is None else type(said)) is kind, (name, side, level, said)


def test_every_operation_that_locates_is_written_down() -> None:
    assert {name for name, about in OPERATIONS.items() if about.locate is not None} == set(LOCATED)
    assert all(about.connections or about.locate for about in OPERATIONS.values() if about.on == "connection")


def test_what_nobody_wrote_down_is_denied(places: Places) -> None:
    """Default deny: an operation whose permission no role has is for nobody."""
    who = places.who("admin")
    new = msgspec.structs.replace(OPERATIONS["team.list"], permission="team.unheard_of")
    stripped = msgspec.structs.replace(who, permissions=("team.list",))
    assert not covers((*stripped.permissions, *EVERYONE), new.permission)
    assert isinstance(_authorized(new, places.rooms.house.context(stripped), {}, []), PermissionDenied)
