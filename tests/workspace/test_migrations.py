"""Migrations between stored connections: plans by id and hash, rights, masks, locks, a worker that was killed; and clones."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.errors import Conflict, InvalidInput, LossNotAccepted, NotFound, PermissionDenied, StalePlan
from dblens.events import StepStarted
from dblens.migrate import model
from dblens.migrate.apply import Outcome
from dblens.migrate.compare import Comparison
from dblens.migrate.model import Plan
from dblens.migrate.options import Options, Rule
from dblens.migrate.undo import RunStatus
from dblens.redaction import Secret
from dblens.store import secrets
from dblens.store.rows import Page
from dblens.transfer.mask import Mask, key_id
from dblens.workspace import masks
from dblens.workspace.migrations import Cloned, Kept
from tests.workspace.desk import Desk, until


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def two(desk: Desk) -> tuple[str, str]:
    return desk.connection("src", rows=200), desk.connection("dst")


def again(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def values(desk: Desk, name: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(desk.folder / f"{name}.db")) as db:
        return db.execute("select * from t order by id").fetchall()


def test_a_plan_is_kept_and_applied_by_id_and_hash(desk: Desk, two: tuple[str, str]) -> None:
    ws = desk.as_("ann").migrations
    made = ws.plan("src", "dst")
    (kept,) = ws.list().items
    assert (kept.id, kept.hash, kept.source, kept.target) == (made.id, made.hash, "src", "dst")
    assert ws.list(source="src", target=kept.target_id).items == (kept,)
    assert ws.list(source="dst").items == ()
    assert ws.read(made.id) == made
    outcome = ws.apply(made.id, made.hash)
    assert outcome.equal
    assert values(desk, "dst") == values(desk, "src")
    assert ws.verify_plan(made.id, made.hash).equal
    assert ws.verify("src", "dst").equal
    assert [s.state for s in ws.status("dst")] == ["swapped"]
    assert ws.rollback("dst", made.id) == made.id
    ws.delete(made.id)
    assert ws.list().items == ()
    with pytest.raises(NotFound):
        ws.read(made.id)


def test_everything_that_travels_comes_back_the_same(desk: Desk, two: tuple[str, str]) -> None:
    ws = desk.as_("ann").migrations
    options = Options(rules=(Rule(match="t.x", mask=Mask(kind="hash")),), exclude=("zz",))
    assert again(options, Options) == options
    made = ws.plan("src", "dst", options)
    assert again(made, Plan) == made
    assert model.plan_hash(again(made, Plan)) == made.hash
    made = ws.plan("src", "dst")
    outcome = ws.apply(made.id, made.hash)
    assert again(outcome, Outcome) == outcome
    with closing(sqlite3.connect(desk.folder / "dst.db")) as db:
        db.execute("update t set x = 'other' where id = 7")
        db.execute("delete from t where id = 8")
        db.commit()
    found = ws.verify("src", "dst", repair=True)
    assert not found.equal
    assert found.repair
    assert again(found, Comparison) == found
    status = ws.status("dst")
    assert again(status, list[RunStatus]) == status
    page = ws.list()
    assert again(page, Page[Kept]) == page


def test_another_hash_is_a_stale_plan(desk: Desk, two: tuple[str, str]) -> None:
    ws = desk.as_("ann").migrations
    made = ws.plan("src", "dst")
    with pytest.raises(StalePlan):
        ws.apply(made.id, "0" * 64)
    with pytest.raises(InvalidInput, match="hash is missing"):
        ws.apply(made.id)
    assert desk.at_home().migrations.apply(made.id).equal


def test_a_document_is_refused_from_elsewhere_and_good_at_home(desk: Desk, two: tuple[str, str]) -> None:
    made = desk.as_("ann").migrations.plan("src", "dst")
    with pytest.raises(InvalidInput, match="not as a document"):
        desk.as_("ann").migrations.apply(made, made.hash)
    with pytest.raises(InvalidInput, match="single-user"):
        desk.as_("ann").migrations.plan("src", f"sqlite:///{desk.folder}/x.db")
    with pytest.raises(InvalidInput, match="own sides"):
        desk.at_home().migrations.apply(made.id, made.hash, target="src")
    assert desk.at_home().migrations.apply(made, source="src", target="dst").equal


def test_a_plan_is_for_who_may_use_both_sides(desk: Desk, two: tuple[str, str]) -> None:
    source, target = two
    made = desk.as_("ann").migrations.plan("src", "dst")
    bob = desk.as_("bob").migrations
    desk.share(source, "bob", "use")
    assert bob.list().items == ()
    for call in (lambda: bob.read(made.id), lambda: bob.apply(made.id, made.hash), lambda: bob.delete(made.id)):
        with pytest.raises(NotFound):
            call()
    desk.share(target, "bob", "view")
    assert [p.id for p in bob.list().items] == [made.id]
    with pytest.raises(PermissionDenied):
        bob.apply(made.id, made.hash)
    desk.share(target, "bob", "use")
    assert bob.apply(made.id, made.hash).equal
    with pytest.raises(NotFound):
        desk.as_("eve").migrations.read(made.id)
    for name in ("aud", "vic"):
        desk.share(source, name, "use")
        desk.share(target, name, "use")
        with pytest.raises(PermissionDenied):
            desk.as_(name).migrations.read(made.id)


def test_a_read_only_target_is_refused_before_anything_is_planned(desk: Desk) -> None:
    desk.connection("src", rows=3)
    desk.connection("shelf", read_only=True)
    heard: list[Any] = []
    with pytest.raises(PermissionDenied, match="read-only"):
        desk.as_("ann", report=heard.append).migrations.plan("src", "shelf")
    assert heard == []
    for call in ("rollback", "finalize"):
        with pytest.raises(PermissionDenied, match="read-only"):
            getattr(desk.as_("ann").migrations, call)("shelf")


def test_masks_are_stable_within_an_organization(desk: Desk, two: tuple[str, str]) -> None:
    ws = desk.as_("ann").migrations
    options = Options(rules=(Rule(match="t.x", mask=Mask(kind="hash")),))
    desk.connection("third")
    made, other = ws.plan("src", "dst", options), ws.plan("src", "third", options)
    name = made.tables[0].masks["x"].key_id
    assert name is not None
    assert other.tables[0].masks["x"].key_id == name
    key = masks.key(desk.house.context(desk.principal("ann")), made, None)
    assert key is not None
    assert key_id(key) == name
    with desk.house.store.read() as tx:
        kept = secrets.get(tx, desk.house.keyring, desk.orgs["acme"], desk.orgs["acme"], masks.FIELD)
    assert isinstance(kept, Secret)
    assert kept.reveal().encode() == key
    assert kept.reveal() not in model.write(made)
    own = Options(rules=(Rule(match="t.x", mask=Mask(kind="hash", key_id="12345678")),))
    assert ws.plan("src", "dst", own).tables[0].masks["x"].key_id == "12345678"
    assert masks.key(desk.house.context(desk.principal("eve")), made, None) is None
    assert masks.key(desk.house.context(desk.principal("ann")), made, Secret("mine")) == b"mine"


def test_two_migrations_at_a_time_into_one_target(desk: Desk, two: tuple[str, str]) -> None:
    desk.connection("other", rows=5)
    ws = desk.as_("ann").migrations
    first, second = ws.plan("src", "dst"), ws.plan("other", "dst")
    reached, go = threading.Event(), threading.Event()

    def slow(event: object) -> None:
        if isinstance(event, StepStarted) and event.step == "copy":
            reached.set()
            assert go.wait(30)

    thread = threading.Thread(target=lambda: desk.as_("ann", report=slow).migrations.apply(first.id, first.hash))
    thread.start()
    try:
        assert reached.wait(30)
        with pytest.raises(Conflict, match="another run is at work"):
            ws.apply(second.id, second.hash)
        with pytest.raises(Conflict, match="another run is at work"):
            desk.as_("ann", background=True).migrations.apply(second.id, second.hash)
    finally:
        go.set()
        thread.join()
    assert len(values(desk, "dst")) == 200
    ended = [row.outcome for row in desk.rows("migration.apply") if row.phase == "ended"]
    assert ended == ["conflict", "conflict", "ok"]
    states = [run.state for run in desk.as_("ann").runs.list(operation="migration.apply").items]
    assert sorted(states) == ["failed", "failed", "succeeded"]


KILLED = """
import sys, pathlib
from dblens.events import StepStarted
from tests.workspace.desk import SHORT, Desk
desk = Desk(pathlib.Path(sys.argv[1]))
desk.house.executor.lease = SHORT
import time
def slow(event):
    if isinstance(event, StepStarted) and event.step == "build":
        print("now", flush=True)
        time.sleep(60)
desk.as_("ann", report=slow).migrations.apply(sys.argv[2], sys.argv[3])
"""


def test_a_worker_that_was_killed_frees_its_lock_and_the_next_run_resumes(desk: Desk, two: tuple[str, str]) -> None:
    ws = desk.as_("ann").migrations
    made = ws.plan("src", "dst")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(desk.folder), made.id, made.hash], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "now\n"
        with pytest.raises(Conflict, match="another run is at work"):
            ws.resume("src", "dst", made.id)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    dead = desk.as_("ann").runs.list(state="running").items[0]

    def resumed() -> bool:
        try:
            return ws.resume("src", "dst", made.id).equal
        except Conflict:
            return False

    until(resumed)
    assert values(desk, "dst") == values(desk, "src")
    assert desk.run(dead.id).state == "crashed"
    assert [r.outcome for r in desk.rows("migration.apply") if r.phase == "ended"] == ["run.crashed"]


def test_a_clone_is_a_database_with_a_connection_and_proof(desk: Desk, two: tuple[str, str]) -> None:
    ws = desk.as_("ann")
    made = ws.migrations.clone("src", "copy", "dst", database="copy.db")
    assert made.outcome.equal
    assert again(made, Cloned) == made
    assert values(desk, "copy") == values(desk, "src")
    assert ws.migrations.verify("src", "copy").equal
    clone = desk.rows("migration.clone")[-1]
    (inner,) = [r for r in desk.rows("connection.create_database") if r.phase == "ended"]
    assert inner.detail["parent"] == clone.run_id
    (run,) = ws.runs.list(operation="migration.apply").items
    assert run.parent_id == clone.run_id
    with pytest.raises(Conflict):
        ws.migrations.clone("src", "copy", "dst", database="copy.db")


def test_a_clone_with_losses_makes_nothing(desk: Desk, two: tuple[str, str]) -> None:
    with closing(sqlite3.connect(desk.folder / "src.db")) as db:
        db.execute("create table child (id integer primary key, t_id integer references t (id))")
        db.execute("insert into child values (1, 999)")
        db.commit()
    ws = desk.as_("ann")
    with pytest.raises(LossNotAccepted):
        ws.migrations.clone("src", "copy", "dst", database="copy.db")
    assert not (desk.folder / "copy.db").exists()
    assert len(ws.migrations.list().items) == 0
    assert ws.migrations.clone("src", "copy", "dst", database="copy.db", accept=["all"]).outcome.equal


def test_who_may_not_manage_the_server_does_not_clone_onto_it(desk: Desk, two: tuple[str, str]) -> None:
    source, target = two
    desk.share(source, "bob", "use")
    desk.share(target, "bob", "use")
    with pytest.raises(PermissionDenied):
        desk.as_("bob").migrations.clone("src", "copy", "dst", database="copy.db")
