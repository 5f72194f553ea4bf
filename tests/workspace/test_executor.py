"""Runs at work: what reaches the store, cancel, loss of the lease, a worker that was killed."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dblens.errors import Cancelled, Conflict, InvalidInput
from dblens.events import Progress, Report, StepDone, Warned
from dblens.store import organizations, runs
from dblens.store.database import Store
from dblens.store.records import now
from dblens.store.runs import Run
from dblens.workspace import executor
from dblens.workspace.executor import Executor

SHORT = dt.timedelta(seconds=1.5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "FLUSH_SECONDS", 0.05)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}")
    opened.create_all()
    return opened


@pytest.fixture
def queued(store: Store) -> Callable[..., Run]:
    with store.write() as tx:
        org = organizations.create_organization(tx, name="Acme", slug="acme", now=now()).id

    def make(lock: str | None = None) -> Run:
        with store.write() as tx:
            return runs.create_run(tx, org, "migration.apply", user_id=None, lock=lock, now=now())

    return make


def again(store: Store, run: Run) -> Run:
    with store.read() as tx:
        return runs.get_run(tx, run.org_id, run.id)


def log(store: Store, run: Run) -> list[tuple[str, str]]:
    with store.read() as tx:
        return [(line.level, line.text) for line in runs.read_log(tx, run.org_id, run.id).items]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_a_run_in_place(store: Store, queued: Callable[..., Run]) -> None:
    seen: list[object] = []

    def work(report: Report) -> dict[str, int]:
        report(StepDone("inspect", 0.5, "3 tables"))
        report(Progress("copy t", 5, 10))
        report(Warned("one worker"))
        time.sleep(0.2)
        return {"rows": 10}

    run = queued("target-1")
    assert Executor(store).in_place(run, work, also=seen.append) == {"rows": 10}
    done = again(store, run)
    assert (done.state, done.result, done.error) == ("succeeded", {"rows": 10}, None)
    assert done.progress == {"type": "progress", "task": "copy t", "done": 5, "total": 10, "unit": "rows"}
    assert log(store, run) == [("info", "inspect: 0.50 s, 3 tables"), ("warning", "one worker")]
    assert len(seen) == 3
    # The lock is free again.
    assert Executor(store).in_place(queued("target-1"), lambda _: 1) == 1


def test_errors_are_kept_and_raised(store: Store, queued: Callable[..., Run]) -> None:
    def bad(_: Report) -> None:
        raise InvalidInput("no table matches 'x'", hint="names are case-sensitive")

    def broken(_: Report) -> None:
        password = "geheim"
        raise RuntimeError(f"the driver says {password}")

    run, other = queued("l"), queued("l")
    with pytest.raises(InvalidInput):
        Executor(store).in_place(run, bad)
    assert again(store, run).error == {
        "code": "input.invalid",
        "message": "no table matches 'x'",
        "hint": "names are case-sensitive",
    }
    with pytest.raises(RuntimeError):
        Executor(store).in_place(other, broken)
    failed = again(store, other)
    assert (failed.state, failed.error and failed.error["message"]) == ("failed", "unexpected RuntimeError")
    assert "geheim" not in str(failed) + str(log(store, other))
    assert "test_executor.py" in log(store, other)[0][1]


def test_cancel_reaches_the_work(store: Store, queued: Callable[..., Run]) -> None:
    pool, begun = Executor(store), threading.Event()

    def work(report: Report) -> None:
        while True:
            begun.set()
            report(Progress("copy", 1))
            time.sleep(0.01)

    run = queued("l")
    pool.start(run, work)
    begun.wait()
    with store.write() as tx:
        runs.request_cancel(tx, run.org_id, run.id, now=now())
    pool.wait(run.id, 10)
    until(lambda: again(store, run).state == "cancelled")
    assert pool.sweep() == ()
    pool.close()


def test_a_cancel_of_the_server_is_a_failure(store: Store, queued: Callable[..., Run]) -> None:
    def work(_: Report) -> None:
        raise Cancelled("the administrator ended the session")

    run = queued()
    with pytest.raises(Cancelled):
        Executor(store).in_place(run, work)
    assert again(store, run).state == "failed"


def test_one_at_a_time(store: Store, queued: Callable[..., Run]) -> None:
    pool, go = Executor(store), threading.Event()
    first, second = queued("target"), queued("target")
    pool.start(first, lambda _: go.wait(10))
    until(lambda: again(store, first).state == "running")
    with pytest.raises(Conflict, match="at work on 'target'"):
        pool.start(second, lambda _: None)
    assert again(store, second).state == "queued"
    go.set()
    pool.wait(first.id, 10)
    pool.start(second, lambda _: 7)
    pool.close()
    assert again(store, second).result == 7


def test_a_lost_lease_stops_the_work(store: Store, queued: Callable[..., Run]) -> None:
    run = queued("l")
    pool = Executor(store, lease=SHORT)

    def work(report: Report) -> None:
        # As if this machine had slept: another process sweeps what it takes for dead.
        with store.write() as tx:
            assert [r.id for r in runs.sweep(tx, now=now() + dt.timedelta(minutes=1))] == [run.id]
        end = time.monotonic() + 10
        while time.monotonic() < end:
            report(Progress("copy", 1))
            time.sleep(0.02)

    with pytest.raises(Conflict, match="not this worker's any more"):
        pool.in_place(run, work)
    assert again(store, run).state == "crashed"


def test_a_long_run_keeps_its_lease(store: Store, queued: Callable[..., Run]) -> None:
    run = queued("l")
    Executor(store, lease=dt.timedelta(seconds=0.6)).in_place(run, lambda _: time.sleep(1.5))
    assert again(store, run).state == "succeeded"


def test_a_log_is_bounded(store: Store, queued: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "LONGEST_LOG", 5)
    run = queued()

    def work(report: Report) -> None:
        for i in range(9):
            report(Warned(f"w{i}"))

    Executor(store).in_place(run, work)
    assert [text for _, text in log(store, run)] == ["w0", "w1", "w2", "w3", "w4", "4 more lines were not kept"]


KILLED = """
import sys, time, datetime as dt
from dblens.store.database import Store
from dblens.store import runs
from dblens.workspace import executor
from dblens.events import Warned
executor.FLUSH_SECONDS = 0.05
store = Store.open(sys.argv[1])
with store.read() as tx:
    run = runs.get_run(tx, sys.argv[2], sys.argv[3])
def work(report):
    report(Warned("begun"))
    time.sleep(60)
executor.Executor(store, lease=dt.timedelta(seconds=1.5)).in_place(run, work)
"""


def test_kill_nine_ends_crashed_with_the_lease_freed(store: Store, queued: Callable[..., Run]) -> None:
    run, following = queued("target"), queued("target")
    child = subprocess.Popen([sys.executable, "-c", KILLED, store.place, run.org_id, run.id])
    try:
        until(lambda: log(store, run) == [("warning", "begun")], 30)
    finally:
        child.kill()
        child.wait()
    pool = Executor(store)
    assert again(store, run).state == "running"
    until(lambda: bool(pool.sweep()), 10)
    crashed = again(store, run)
    assert (crashed.state, crashed.error and crashed.error["code"]) == ("crashed", "run.crashed")
    assert log(store, run) == [("warning", "begun")]
    assert pool.in_place(following, lambda _: "next") == "next"
