"""Runs: who sees which, log and result after the end, the queue behind the answer, cancel that reaches a statement, the end's hooks."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.errors import Cancelled, Conflict, NotFound, PermissionDenied, StalePlan
from dblens.migrate.model import Plan
from dblens.store import accounts, connections, organizations
from dblens.store.records import now
from dblens.store.runs import Run
from dblens.workspace import Workspace
from dblens.workspace.executor import Executor, stopping
from tests.workspace.desk import SHORT, Desk, until

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.connection("src", rows=50)
    made.connection("dst")
    yield made
    made.close()


def begun(ws: Workspace, *args: Any, **more: Any) -> Run:
    """Plan behind the answer: the answer is the run."""
    found: Any = ws.migrations.plan("src", "dst", *args, **more)
    assert isinstance(found, Run)
    return found


def ended(desk: Desk, run: Run) -> Run:
    until(lambda: desk.run(run.id).state not in ("queued", "running"))
    desk.house.executor.wait(run.id, 10)
    return desk.run(run.id)


@pytest.fixture
def busy(desk: Desk) -> Iterator[threading.Event]:
    """Every thread of the executor is taken until the event is set."""
    go, reached = threading.Event(), threading.Barrier(3)

    def wait() -> None:
        reached.wait(10)
        assert go.wait(60)

    for _ in range(2):
        desk.house.executor._pool.submit(wait)
    reached.wait(10)
    yield go
    go.set()


# ----------------------------------------------------------------------------------------------------------------- who sees what


def test_own_runs_and_their_results(desk: Desk) -> None:
    ws = desk.as_("ann")
    made = ws.migrations.plan("src", "dst")
    (run,) = ws.runs.list().items
    assert (run.operation, run.state, run.result) == ("migration.plan", "succeeded", None)
    assert ws.runs.read(run.id) == run
    assert msgspec.convert(ws.runs.result(run.id), Plan) == made
    assert any("inspect" in line.text for line in ws.runs.log(run.id).items)


def test_of_others_only_those_on_connections_that_are_shared(desk: Desk) -> None:
    desk.as_("ann").migrations.plan("src", "dst")
    (run,) = desk.as_("ann").runs.list().items
    assert run.connection_id is not None
    for name in ("bob", "eve", "vic"):
        seen = desk.as_(name).runs
        assert seen.list(everyone=True).items == ()
        for call in (seen.read, seen.result):
            with pytest.raises(NotFound):
                call(run.id)
    with pytest.raises(NotFound):
        desk.as_("bob").runs.log(run.id)
    with pytest.raises(NotFound):
        desk.as_("bob").runs.cancel(run.id)
    desk.share(run.connection_id, "bob", "view")
    bob = desk.as_("bob").runs
    assert bob.list().items == ()
    assert [r.id for r in bob.list(everyone=True).items] == [run.id]
    assert bob.read(run.id).id == run.id
    with pytest.raises(PermissionDenied):
        bob.result(run.id)
    with pytest.raises(PermissionDenied):
        bob.cancel(run.id)
    desk.share(run.connection_id, "bob", "use")
    assert bob.result(run.id)["id"]


def test_admins_and_auditors_see_all_but_an_auditor_no_data(desk: Desk) -> None:
    desk.as_("ann").migrations.plan("src", "dst")
    (run,) = desk.as_("ann").runs.list().items
    for name in ("ada", "aud"):
        assert [r.id for r in desk.as_(name).runs.list(everyone=True).items] == [run.id]
        assert desk.as_(name).runs.read(run.id).result is None
    assert desk.as_("ada").runs.result(run.id)["id"]
    with pytest.raises(PermissionDenied):
        desk.as_("aud").runs.result(run.id)
    with pytest.raises(NotFound):
        desk.as_("ada", connections=("0" * 32,)).runs.read(run.id)
    assert desk.as_("ann", connections=("0" * 32,)).runs.list().items == ()


def test_filters_and_pages(desk: Desk) -> None:
    ws = desk.as_("ann")
    for _ in range(3):
        ws.migrations.plan("src", "dst")
    with pytest.raises(NotFound):
        ws.migrations.rollback("dst")
    page = ws.runs.list(limit=3)
    assert len(page.items) == 3
    assert len(ws.runs.list(limit=3, after=page.after).items) == 1
    assert [r.operation for r in ws.runs.list(state="failed").items] == ["migration.rollback"]
    assert len(ws.runs.list(operation="migration.plan").items) == 3
    assert len(ws.runs.list(connection="src").items) == 3
    assert len(ws.runs.list(connection="dst").items) == 1
    assert ws.runs.list(since=now() + dt.timedelta(minutes=1)).items == ()
    with pytest.raises(NotFound):
        desk.as_("bob").runs.list(connection="src")


def test_a_failed_run_keeps_its_log_and_raises_what_it_raised(desk: Desk) -> None:
    ws = desk.as_("ann")
    made = ws.migrations.plan("src", "dst")
    with pytest.raises(StalePlan) as first:
        ws.migrations.apply(made.id, "0" * 64)
    (run,) = ws.runs.list(operation="migration.apply").items
    assert ws.runs.log(run.id).items[-1].level == "error"
    with pytest.raises(StalePlan) as second:
        ws.runs.result(run.id)
    assert (second.value.message, second.value.hint) == (first.value.message, first.value.hint)


# ---------------------------------------------------------------------------------------------------------------------- the queue


def test_behind_the_answer_a_run_waits_queued_and_its_lease_is_kept(desk: Desk, busy: threading.Event) -> None:
    desk.house.executor.lease = dt.timedelta(seconds=0.9)
    ws = desk.as_("ann", background=True)
    run = begun(ws)
    assert run.state == "queued"
    time.sleep(2)
    assert desk.house.sweep() == ()
    assert desk.run(run.id).state == "queued"
    with pytest.raises(Conflict, match="queued"):
        ws.runs.result(run.id)
    busy.set()
    assert ended(desk, run).state == "succeeded"
    assert desk.rows("migration.plan")[-1].outcome == "ok"


def test_a_queued_run_that_was_cancelled_never_begins(desk: Desk, busy: threading.Event) -> None:
    told: list[Run] = []
    desk.house.on_end.append(told.append)
    ws = desk.as_("ann", background=True)
    run = begun(ws)
    assert ws.runs.cancel(run.id).state == "cancelled"
    busy.set()
    until(lambda: told)
    assert (told[0].id, told[0].state) == (run.id, "cancelled")
    assert desk.rows("migration.plan")[-1].outcome == "engine.cancelled"
    with pytest.raises(Cancelled):
        ws.runs.result(run.id)


def test_who_was_disabled_meanwhile_does_not_run(desk: Desk, busy: threading.Event) -> None:
    run = begun(desk.as_("ann", background=True))
    with desk.house.store.write() as tx:
        accounts.disable_user(tx, desk.ids["ann"])
    busy.set()
    found = ended(desk, run)
    assert (found.state, found.error and found.error["code"]) == ("failed", "auth.required")
    assert desk.rows("migration.plan")[-1].outcome == "auth.required"


def test_who_lost_the_connection_or_the_role_meanwhile_does_not_run(desk: Desk, busy: threading.Event) -> None:
    src, dst = (desk.as_("ann").connections.read(name).id for name in ("src", "dst"))
    for id in (src, dst):
        desk.share(id, "bob", "use")
    first, second = (begun(desk.as_(name, background=True)) for name in ("bob", "ann"))
    with desk.house.store.write() as tx:
        connections.revoke(tx, desk.orgs["acme"], dst, kind="user", grantee_id=desk.ids["bob"])
        viewer = organizations.find_role(tx, desk.orgs["acme"], "viewer").id
        organizations.set_member_role(tx, desk.orgs["acme"], desk.ids["ann"], viewer, must_remain=())
    busy.set()
    assert (ended(desk, first).error or {})["code"] == "not_found"
    assert (ended(desk, second).error or {})["code"] == "permission.denied"


def test_a_queued_run_of_a_dead_process_is_ended_by_the_sweep(desk: Desk, busy: threading.Event) -> None:
    run = begun(desk.as_("ann", background=True))
    told: list[Run] = []
    desk.house.on_end.append(told.append)
    with desk.house.store.write() as tx:  # as if its process were gone: nobody renews the lease
        from dblens.store import tables as t

        tx.execute(t.runs.update().where(t.runs.c.id == run.id).values(lease_until=now() - dt.timedelta(seconds=1)))
    assert [r.id for r in desk.house.sweep()] == [run.id]
    assert desk.run(run.id).state == "crashed"
    assert [r.state for r in told] == ["crashed"]
    assert desk.rows("migration.plan")[-1].outcome == "run.crashed"
    busy.set()


def test_nobody_else_takes_a_queued_run_that_has_its_work_elsewhere(desk: Desk, busy: threading.Event) -> None:
    run = begun(desk.as_("ann", background=True))
    other = Executor(desk.house.store)
    with pytest.raises(Conflict):
        other.claim(run)
    from dblens.store import runs

    with desk.house.store.write() as tx:
        assert runs.claim(tx, "another", lease=SHORT, now=now()) is None
    busy.set()
    assert ended(desk, run).state == "succeeded"


# ------------------------------------------------------------------------------------------------------------------- the end


def test_everybody_is_told_of_an_end_and_nobody_can_spoil_it(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Run] = []

    def wrong(run: Run) -> None:
        raise ValueError("a hook")

    desk.house.on_end += [wrong, told.append]
    ws = desk.as_("ann")
    made = ws.migrations.plan("src", "dst")
    with pytest.raises(StalePlan):
        ws.migrations.apply(made.id, "0" * 64)
    assert [(r.operation, r.state) for r in told] == [("migration.plan", "succeeded"), ("migration.apply", "failed")]
    assert "a hook" in caplog.text


def test_a_cancel_reaches_the_statement_at_work_within_a_second(desk: Desk) -> None:
    from dblens.store import runs

    with desk.house.store.write() as tx:
        run = runs.create_run(tx, desk.orgs["acme"], "query.run", user_id=desk.ids["ann"], now=now())
    src = desk.as_("ann").connections.read("src").id
    at_work, seconds = threading.Event(), [0.0]

    def work(report: object) -> None:
        with desk.house.lines.link(desk.orgs["acme"], src) as link, stopping(link.cancel):
            session = link.connect(read_only=True)
            at_work.set()
            session.execute(ENDLESS)

    def go() -> None:
        with pytest.raises(Cancelled):
            desk.house.executor.in_place(run, work)
        seconds.append(time.monotonic())

    thread = threading.Thread(target=go)
    thread.start()
    assert at_work.wait(10)
    time.sleep(0.3)
    asked = time.monotonic()
    desk.as_("ann").runs.cancel(run.id)
    thread.join(30)
    assert not thread.is_alive()
    assert seconds[-1] - asked < 1.5
    assert desk.run(run.id).state == "cancelled"


def test_a_cancel_by_another_process_is_heard_without_an_event(desk: Desk) -> None:
    from dblens.store import runs

    with desk.house.store.write() as tx:
        run = runs.create_run(tx, desk.orgs["acme"], "query.run", user_id=desk.ids["ann"], now=now())
    stopped, at_work = threading.Event(), threading.Event()

    def work(report: object) -> None:
        with stopping(stopped.set):
            at_work.set()
            assert stopped.wait(20)
            raise Cancelled("a statement ended")

    def go() -> None:
        with pytest.raises(Cancelled):
            desk.house.executor.in_place(run, work)

    thread = threading.Thread(target=go)
    thread.start()
    assert at_work.wait(10)
    time.sleep(2.5)  # the lease was just renewed: no beat writes for the next ten seconds
    with desk.house.store.write() as tx:
        runs.request_cancel(tx, desk.orgs["acme"], run.id, now=now())
    thread.join(5)
    assert stopped.is_set()
    thread.join(20)
    assert desk.run(run.id).state == "cancelled"
