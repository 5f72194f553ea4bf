"""The audit's door: own history for everyone, the organization's for its auditors; reading it is audited."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import InvalidInput, NotAuthenticated, PermissionDenied
from dblens.store.audit import Entry, Row
from dblens.store.audit_find import Filter
from dblens.store.database import Store
from dblens.store.tables import audit
from dblens.workspace.audit import Audit
from dblens.workspace.context import Context
from dblens.workspace.journal import Journal
from dblens.workspace.principal import local
from tests.workspace.conftest import NOW, Shelf

Make = Callable[..., Context]
Rows = Callable[[], list[Row]]


@pytest.fixture
def history(journal: Journal) -> None:
    """Three people, two organizations, one row a day."""
    for n in range(12):
        org, user = ("acme", "beta")[n % 2], f"u{n % 3}"
        at = NOW - dt.timedelta(days=100 - n)
        journal.write(
            Entry(
                at=at,
                phase="read",
                action="query.run",
                actor_id=user,
                actor=user,
                org_id=org,
                outcome="ok",
                run_id=f"r{n}",
            )
        )


def ids(rows: Any) -> list[str]:
    return [row.run_id for row in rows if row.action == "query.run"]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("role", [None, "viewer", "analyst", "developer", "auditor", "admin", "super_admin"])
def test_everybody_reads_their_own_history_only(context: Make, role: str | None) -> None:
    door = Audit(context(role))
    assert ids(door.own().items) == ["r10", "r7", "r4", "r1"]
    assert ids(door.own(Filter(actor_id="u2")).items) == ["r10", "r7", "r4", "r1"]
    assert len(door.own(limit=2).items) == 2


@pytest.mark.usefixtures("history")
def test_an_auditor_reads_the_organization_and_no_other(context: Make) -> None:
    for role in ("auditor", "admin", "super_admin"):
        door = Audit(context(role))
        assert ids(door.read().items) == ["r10", "r8", "r6", "r4", "r2", "r0"]
        assert ids(door.read(Filter(actor_id="u2")).items) == ["r8", "r2"]
    assert ids(Audit(context("auditor", org_id="beta")).read().items) == ["r11", "r9", "r7", "r5", "r3", "r1"]
    with pytest.raises(PermissionDenied, match="no organization is chosen"):
        Audit(context("auditor", org_id=None)).read()


@pytest.mark.usefixtures("history")
def test_the_whole_instance_is_for_the_super_admin(context: Make) -> None:
    for role in ("auditor", "admin"):
        for call in (
            lambda door: door.read(everywhere=True),
            lambda door: door.statistics("action", everywhere=True),
            lambda door: door.export(print, everywhere=True),
        ):
            with pytest.raises(PermissionDenied, match=r"audit\.instance"):
                call(Audit(context(role)))
    with pytest.raises(PermissionDenied, match=r"audit\.instance"):
        Audit(context("super_admin", scopes=("audit.read",))).read(everywhere=True)
    assert len(ids(Audit(context("super_admin")).read(everywhere=True).items)) == 12
    own = context()
    mine = Context(
        store=own.store, principal=local("ann", "u1", "acme"), journal=own.journal, access=own.access, clock=own.clock
    )
    assert len(ids(Audit(mine).read(everywhere=True).items)) == 12


@pytest.mark.parametrize("role", ["viewer", "analyst", "developer"])
def test_the_audit_is_not_for_everybody(context: Make, role: str, rows: Rows) -> None:
    door = Audit(context(role))
    calls = [
        door.read,
        lambda: door.statistics("actor"),
        lambda: door.export(print),
        door.verify,
        door.head,
    ]
    for call in calls:
        with pytest.raises(PermissionDenied):
            call()
    with pytest.raises(PermissionDenied):
        door.retain(365)
    told = [(row.phase, row.action) for row in rows() if row.phase == "denied"]
    assert told == [
        ("denied", f"audit.{verb}") for verb in ("read", "statistics", "export", "verify", "head", "retain")
    ]


def test_reading_the_audit_is_in_the_audit(context: Make, rows: Rows) -> None:
    door = Audit(context("auditor"))
    door.read(Filter(actor_id="u9", action="query.*"), limit=3)
    assert [row.action for row in door.read().items] == ["audit.read"], "the reading before is there"
    door.statistics("day")
    door.own()
    door.export(lambda line: None, "csv")
    door.verify([door.head()])
    found = rows()
    assert [row.action for row in found] == [
        "audit.read", "audit.read", "audit.statistics", "audit.own", "audit.export", "audit.head", "audit.verify",
    ]  # fmt: skip
    assert found[0].detail["arguments"]["which.actor_id"] == "u9"
    assert found[4].detail["facts"] == {"lines": 5}
    assert found[6].detail["facts"] == {"verdict": "ok", "rows": 6}


@pytest.mark.usefixtures("history")
def test_an_export_is_streamed_and_whole(context: Make) -> None:
    door = Audit(context("auditor"))
    lines: list[bytes] = []
    assert door.export(lines.append, "jsonl", Filter(action="query.*")) == 6
    assert [json.loads(line)["run_id"] for line in lines] == ["r0", "r2", "r4", "r6", "r8", "r10"]
    lines.clear()
    assert door.export(lines.append, "csv", Filter(action="query.*")) == 7
    table = list(csv.DictReader(io.StringIO(b"".join(lines).decode(), newline="")))
    assert [row["run_id"] for row in table] == ["r0", "r2", "r4", "r6", "r8", "r10"]
    with pytest.raises(InvalidInput, match="format is"):
        door.export(lines.append, "xlsx")  # type: ignore[arg-type]


@pytest.mark.usefixtures("history")
def test_the_door_finds_tampering_and_a_cut_end(context: Make, store: Store) -> None:
    door = Audit(context("auditor"))
    head = door.head()
    assert door.verify([head]).ok
    with store.write() as tx:
        tx.execute(audit.update().where(audit.c.number == 5).values(actor="nobody"))
    broken = door.verify([head]).broken
    assert broken is not None
    assert broken.number == 5
    with pytest.raises(InvalidInput, match="no exported head"):
        door.verify(["{}"])


@pytest.mark.usefixtures("history")
def test_retention_is_for_a_super_admin_with_a_recent_login(context: Make, store: Store, rows: Rows) -> None:
    with pytest.raises(NotAuthenticated):
        Audit(context("super_admin", authenticated_at=NOW - dt.timedelta(hours=1))).retain(90)
    with pytest.raises(PermissionDenied):
        Audit(context("admin")).retain(90)
    door = Audit(context("super_admin"))
    for days in (29, 0, -1, 55_754_390, 10**30, True, "90"):
        with pytest.raises(InvalidInput, match="keep_days is"):
            door.retain(days)  # type: ignore[arg-type]
    assert door.retain(95) == 6
    assert door.verify().ok
    with store.read() as tx:
        assert tx.scalar(sa.select(sa.func.min(audit.c.number))) == 6
    (checkpoint,) = [row for row in rows() if row.phase == "checkpoint"]
    assert (checkpoint.actor, checkpoint.action, checkpoint.detail["through"]) == ("ann", "audit.retain", 5)
    assert door.retain(95) == 0


def test_statistics(context: Make, shelf: Shelf) -> None:
    door = Audit(context("auditor"))
    for _ in range(3):
        door.own()
    with pytest.raises(PermissionDenied):
        door.retain(90)
    counted = {row.key: (row.calls, row.failed) for row in door.statistics("action")}
    assert counted == {"audit.own": (3, 0), "audit.retain": (1, 1)}
