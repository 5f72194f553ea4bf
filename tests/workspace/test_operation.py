"""Every call goes through the gate: audited, authorized, called, audited."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import Conflict, NotAuthenticated, NotFound, PermissionDenied, StoreError
from dblens.settings import Secret
from dblens.store.audit import Row
from dblens.store.database import Store
from dblens.store.tables import audit, meta
from dblens.workspace.context import Context
from dblens.workspace.journal import Journal
from dblens.workspace.operation import Door, acting, current, operation
from dblens.workspace.registry import Table
from tests.workspace.conftest import NOW, Shelf
from tests.workspace.doors import TABLE, Backups, Spec

Make = Callable[..., Context]
Rows = Callable[[], list[Row]]


def told(rows: list[Row]) -> list[tuple[str, str, str | None]]:
    return [(row.phase, row.action, row.outcome) for row in rows]


# --------------------------------------------------------------------------------------------------------------------------- calls


def test_a_change_is_told_before_and_after(context: Make, shelf: Shelf, rows: Rows) -> None:
    shelf.put("shop", "use")
    seen: list[list[Row]] = []
    door = Backups(context(client="pytest", address="::1", session_id="s1"), lambda: seen.append(rows()))
    assert door.create("shop", label="nightly", password="canary") == "id-shop"
    assert told(seen[0]) == [("started", "backup.create", None)]
    before, after = rows()
    assert told([before, after]) == [("started", "backup.create", None), ("ended", "backup.create", "ok")]
    assert before.run_id == after.run_id
    assert after.microseconds is not None
    assert after.microseconds > 0
    for row in (before, after):
        where = (row.actor, row.actor_id, row.org_id, row.connection_id, row.target, row.client, row.address)
        assert where == ("ann", "u1", "acme", "id-shop", "nightly", "pytest", "::1")
        assert row.detail["session"] == "s1"
    assert before.detail["arguments"] == {"label": "nightly"}
    assert before.detail["hidden"] == ["password"]
    assert after.detail["facts"] == {"bytes": 7}
    assert "canary" not in json.dumps([before.detail, after.detail])


def test_a_read_is_one_row_and_waits(context: Make, store: Store, journal: Journal, rows: Rows) -> None:
    assert Backups(context()).list(limit=3, text="canary") == 3
    with store.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(audit)) == 0
    assert journal.waiting == 1
    (row,) = rows()
    assert told([row]) == [("read", "backup.list", "ok")]
    assert row.detail["arguments"] == {"limit": 3}
    assert row.detail["hidden"] == ["text"]


def test_a_failure_is_told_by_its_code_and_without_its_text(context: Make, shelf: Shelf, rows: Rows) -> None:
    with pytest.raises(Conflict, match="canary"):
        Backups(context()).conflict("x")
    shelf.put("shop", "use")

    def boom() -> None:
        raise RuntimeError("canary")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(RuntimeError):
        Backups(context(), boom).query("shop", "canary")
    with pytest.raises(KeyboardInterrupt):
        Backups(context(), stop).create("shop")
    assert [row.outcome for row in rows()] == [None, "conflict", "error", None, "interrupted"]
    assert [row.detail.get("error") for row in rows()][1::2] == ["Conflict", None]
    assert "canary" not in "".join(json.dumps(row.detail) + str(row.target) for row in rows())


def test_a_denied_change_does_not_run_and_is_told(context: Make, shelf: Shelf, rows: Rows) -> None:
    shelf.put("shop", "manage")
    door = Backups(context("viewer"))
    with pytest.raises(PermissionDenied, match=r"the role viewer has no backup\.create"):
        door.create("shop")
    assert door.ran == []
    assert told(rows()) == [("started", "backup.create", None), ("denied", "backup.create", "permission.denied")]
    assert rows()[1].detail["reason"].startswith("backup.create is refused")


def test_a_denied_read_does_not_run_and_is_told_at_once(context: Make, store: Store, journal: Journal) -> None:
    door = Backups(context("auditor"))
    with pytest.raises(PermissionDenied):
        door.list()
    assert door.ran == []
    assert journal.waiting == 0
    with store.read() as tx:
        assert tx.execute(sa.select(audit.c.phase, audit.c.action)).all() == [("denied", "backup.list")]


def test_an_outsider_is_told_that_it_is_not_there(context: Make, shelf: Shelf, rows: Rows) -> None:
    shelf.put("theirs", "manage", org_id="beta")
    shelf.put("hidden", "none")
    door = Backups(context())
    texts = set()
    for name in ("theirs", "hidden", "missing"):
        with pytest.raises(NotFound) as found:
            door.create(name)
        texts.add(str(found.value).replace(name, "?"))
    assert texts == {"no connection '?'"}
    assert door.ran == []
    assert [row.outcome for row in rows() if row.phase == "denied"] == ["not_found"] * 3
    assert [row.detail["asked"] for row in rows() if row.phase == "denied"] == [["theirs"], ["hidden"], ["missing"]]
    with pytest.raises(NotFound):
        door.create("postgresql://ann:canary@h/d")
    assert "canary" not in repr(rows())
    with pytest.raises(NotFound, match="no organization 'beta'"):
        door.rename("x", organization="beta")
    assert Backups(context("admin")).rename("x", organization="acme") == "x"


def test_organization_administration_needs_a_recent_login(context: Make) -> None:
    assert Backups(context("admin")).rename("x") == "x"
    for more in ({"authenticated_at": NOW - dt.timedelta(minutes=16)}, {"authenticated_at": None}, {"kind": "token"}):
        with pytest.raises(NotAuthenticated, match="log in again"):
            Backups(context("admin", **more)).rename("x")


def test_each_connection_needs_its_own_level(context: Make, shelf: Shelf, rows: Rows) -> None:
    shelf.put("a", "use")
    shelf.put("b", "manage")
    door = Backups(context())
    assert door.migrate("a", "b") == ["id-a", "id-b"]
    assert rows()[0].detail["connections"] == ["id-a", "id-b"]
    with pytest.raises(PermissionDenied, match="it needs 'manage' on the connection; you have 'use'"):
        door.migrate("b", "a")
    shelf.put("a", "view")
    with pytest.raises(PermissionDenied):
        door.migrate("a", "b")
    assert door.ran == [("migrate", ("id-a", "id-b"))]
    assert door.verify(("a", "b")) == ("id-a", "id-b")
    shelf.put("b", "none")
    with pytest.raises(NotFound, match="no connection 'b'"):
        door.verify(["a", "b"])


def test_a_connection_may_be_found_by_other_means(context: Make, shelf: Shelf) -> None:
    door = Backups(context())
    with pytest.raises(NotFound):
        door.plan("p1")
    shelf.put("p1", "none")
    with pytest.raises(NotFound):
        door.plan("p1")
    shelf.put("p1", "view")
    assert door.plan("p1") == "p1"


def test_a_principal_limited_to_connections_sees_no_other(context: Make, shelf: Shelf) -> None:
    shelf.put("a", "manage")
    shelf.put("b", "manage")
    door = Backups(context("admin", kind="run", connections=("id-a",), scopes=("backup.create",)))
    assert door.create("a") == "id-a"
    with pytest.raises(NotFound):
        door.create("b")
    with pytest.raises(PermissionDenied, match="not scoped"):
        door.restore("a")


def test_an_operation_within_another_is_authorized_and_told_with_its_parent(
    context: Make, shelf: Shelf, rows: Rows
) -> None:
    shelf.put("shop", "manage")
    run = Backups(context()).restore("shop")
    assert told(rows()) == [
        ("started", "backup.restore", None),
        ("started", "backup.create", None),
        ("ended", "backup.create", "ok"),
        ("ended", "backup.restore", "ok"),
    ]
    assert [row.detail.get("parent") for row in rows()] == [None, run, run, None]
    assert current() is None
    door = Backups(context("admin", kind="token", scopes=("backup.restore",)))
    with pytest.raises(PermissionDenied, match=r"not scoped for backup\.create"):
        door.restore("shop")
    assert door.ran == [("restore", "id-shop")]
    assert [row.outcome for row in rows()[-2:]] == ["permission.denied", "permission.denied"]


def test_a_thread_takes_part_in_a_call_when_told_so(context: Make, rows: Rows) -> None:
    inner = Backups(context())

    def elsewhere() -> None:
        call = current()

        def work() -> None:
            with acting(call):
                inner.list()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    Backups(context(), elsewhere).list()
    first, second = rows()
    assert first.detail["parent"] == second.run_id


def test_a_record_is_shown_by_the_fields_that_may_be_shown(context: Make, rows: Rows) -> None:
    Backups(context()).make(Spec(name="shop", password=Secret("canary")), password=Secret("canary"))
    assert rows()[0].detail["arguments"] == {"spec.name": "shop"}
    assert rows()[0].target == "shop"
    assert "canary" not in repr(rows())


# --------------------------------------------------------------------------------------------------- nothing runs unaudited


def _break(store: Store) -> None:
    with store.write() as tx:
        tx.execute(meta.insert().values(key="audit.head", value="{}"))


def _mend(store: Store) -> None:
    with store.write() as tx:
        tx.execute(meta.delete())


def test_no_change_runs_when_the_audit_cannot_be_written(context: Make, store: Store, shelf: Shelf) -> None:
    shelf.put("shop", "manage")
    _break(store)
    door = Backups(context())
    with pytest.raises(StoreError, match="the audit cannot be written"):
        door.create("shop")
    assert door.ran == []
    _mend(store)


def test_after_a_batch_that_failed_no_read_runs(context: Make, store: Store, journal: Journal, rows: Rows) -> None:
    door = Backups(context())
    door.list()
    _break(store)
    with pytest.raises(StoreError):
        journal.flush()
    for _ in range(3):
        with pytest.raises(StoreError, match="nothing runs"):
            door.list()
    assert door.ran == [("list", 5)]
    _mend(store)
    journal.flush()
    door.list()
    assert told(rows()) == [("read", "backup.list", "ok")] * 2


def test_an_outcome_that_cannot_be_written_is_owed(context: Make, store: Store, shelf: Shelf, journal: Journal) -> None:
    """What was done is told as done; nothing else runs until its outcome is written."""
    shelf.put("shop", "manage")

    def lose() -> None:
        with store.write() as tx:
            kept.append(tx.scalar(sa.select(meta.c.value)))
            tx.execute(meta.update().values(value="{}"))

    kept: list[Any] = []
    assert Backups(context(), lose).create("shop") == "id-shop"
    with pytest.raises(StoreError):
        Backups(context()).list()
    with store.write() as tx:
        tx.execute(meta.update().values(value=kept[0]))
    journal.flush()
    Backups(context()).list()
    assert journal.verify().ok
    with store.read() as tx:
        found = tx.execute(sa.select(audit.c.phase, audit.c.outcome).order_by(audit.c.number)).all()
    assert found == [("started", None), ("ended", "ok"), ("read", "ok")]


# ---------------------------------------------------------------------------------------------------------------------- refusals


def _generator(self: Any) -> Iterator[int]:
    """Yield."""
    yield 1


async def _coroutine(self: Any) -> int:
    """Wait."""
    return 1


async def _agenerator(self: Any) -> AsyncIterator[int]:
    """Yield."""
    yield 1


def _iterator(self: Any) -> Iterator[int]:
    """Return an iterator."""
    return iter([1])


def _untyped(self: Any, x) -> int:  # type: ignore[no-untyped-def]
    """Take anything."""
    return 1


def _unreturned(self: Any):  # type: ignore[no-untyped-def]
    """Return anything."""


def _several(self: Any, *many: int) -> int:
    """Take many."""
    return 1


def _silent(self: Any) -> int:
    return 1


def _later(self: Any) -> Missing:  # type: ignore[name-defined]  # noqa: F821
    """Return what is not there."""


def _fine(self: Any, limit: int, password: str, spec: Secret) -> int:
    """Do it."""
    return limit


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (_generator, "runs after its outcome"),
        (_coroutine, "runs after its outcome"),
        (_agenerator, "runs after its outcome"),
        (_iterator, "runs after its outcome"),
        (_untyped, "'x' has no type"),
        (_unreturned, "result has no type"),
        (_several, "no name of its own"),
        (_silent, "no docstring"),
        (_later, "import the types"),
        (property(_fine), "not a plain method"),
        (staticmethod(_fine), "not a plain method"),
        (classmethod(_fine), "not a plain method"),
        (Backups, "not a plain method"),
    ],
)
def test_what_cannot_be_guarded_is_refused_at_import(function: Any, why: str) -> None:
    table = Table()
    with pytest.raises(TypeError, match=why):
        operation("backup.list", table=table)(function)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"shown": ("password",)}, "must not show"),
        ({"shown": ("spec",)}, "must not show"),
        ({"shown": ("limit.token",)}, "must not show"),
        ({"shown": ("nothing",)}, "no parameter"),
        ({"target": "password"}, "must not show"),
        ({"target": "nothing"}, "no parameter"),
        ({"on": "connection"}, "no parameter 'connection'"),
        ({"connections": {"limit": "use"}}, "it names connections"),
        ({"permission": "nonsense.read"}, "is no permission"),
        ({"permission": "*.*"}, "is no permission"),
    ],
)
def test_what_an_operation_says_of_itself_is_checked(options: dict[str, Any], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        operation("backup.list", table=Table(), **options)(_fine)


@pytest.mark.parametrize(
    "name", ["", "backup", "backup.", "Backup.list", "backup.li-st", "nonsense.list", "backup.a.b", "*.list"]
)
def test_a_name_is_a_noun_and_a_verb(name: str) -> None:
    with pytest.raises(TypeError, match="no name of an operation"):
        operation(name, table=Table())(_fine)


def test_one_name_is_one_method() -> None:
    table = Table()
    operation("backup.list", table=table)(_fine)
    with pytest.raises(TypeError, match=r"_fine and .*_other"):

        @operation("backup.list", table=table)
        def _other(self: Any) -> int:
            """Do another."""
            return 1


def test_what_comes_back_may_not_run_later(context: Make, shelf: Shelf, rows: Rows) -> None:
    shelf.put("shop", "use")

    async def late() -> int:
        return 1

    for made in (lambda: (n for n in [1]), late):
        with pytest.raises(TypeError, match="runs after its outcome"):
            Backups(context(), made).query("shop", "select 1")
    assert [row.outcome for row in rows()] == ["error", "error"]


def test_a_door_has_no_other_public_method() -> None:
    for name, value in {
        "open": lambda self: 1,
        "prop": property(lambda self: 1),
        "__call__": lambda self: 1,
        "__getattr__": lambda self, name: 1,
        "__iter__": lambda self: iter(()),
        "made": staticmethod(lambda: 1),
        "raw": {"a": 1},
    }.items():
        with pytest.raises(TypeError, match=f"{name} is public and no operation"):
            type("Wrong", (Door,), {name: value})

    class Mixin:
        def sneaky(self) -> int:
            return 1

    with pytest.raises(TypeError, match="sneaky"):
        type("Wrong", (Mixin, Door), {})
    type("Fine", (Backups,), {"_private": lambda self: 1})


def test_the_gate_leaves_no_way_round_it() -> None:
    for method in ("create", "list", "query"):
        assert not hasattr(getattr(Backups, method), "__wrapped__")
        assert not inspect.iscoroutinefunction(getattr(Backups, method))
    assert str(inspect.signature(Backups.list)) == "(self, limit: 'int' = 5, text: 'str' = '') -> 'int'"
    assert asyncio.iscoroutinefunction(_coroutine)


def test_the_table_holds_what_routes_need() -> None:
    about = TABLE.get("backup.create")
    assert (about.permission, about.on, about.connections, about.mutates) == (
        "backup.create",
        "connection",
        {"connection": "use"},
        True,
    )
    assert [(p.name, p.type, p.required) for p in about.parameters] == [
        ("connection", str, True),
        ("label", str, False),
        ("password", str | None, False),
    ]
    assert about.result is str
    assert about.doc == "Back up a connection."
    assert about.method == "create"
    assert about.door.endswith("doors.Backups")
    assert TABLE.find("backup.none") is None
    with pytest.raises(NotFound):
        TABLE.get("backup.none")
