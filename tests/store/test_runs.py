"""Runs and locks under a clock of the test's own: one worker each, one holder each, and nothing stuck."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound
from dblens.store import locks, runs
from dblens.store.database import Store
from tests.store.world import AT, LEASE, World, after, make_world


@pytest.fixture
def w(store: Store) -> World:
    with store.write() as tx:
        world = make_world(tx, "a")
        runs.finish(tx, world.org, world.run, "a-worker", "succeeded", now=AT)
        runs.request_cancel(tx, world.org, world.queued, now=AT)
    return world


def test_the_life_of_a_run(store: Store, w: World) -> None:
    with store.write() as tx:
        made = runs.create_run(tx, w.org, "x.y", user_id=w.user, lock="db", arguments={"a": [1, None]}, now=AT)
        assert (made.state, made.arguments, made.progress, made.result, made.error) == (
            "queued",
            {"a": [1, None]},
            {},
            None,
            None,
        )
        with pytest.raises(Conflict, match="is not this worker's"):
            runs.heartbeat(tx, w.org, made.id, "w", lease=LEASE, now=AT)
        got = runs.claim(tx, "w", lease=LEASE, now=AT)
        assert got is not None
        assert (got.id, got.state, got.worker, got.lease_until) == (made.id, "running", "w", AT + LEASE)
        assert runs.claim(tx, "other", lease=LEASE, now=AT) is None
        runs.set_progress(tx, w.org, made.id, "w", {"rows": 5}, now=after(1))
        assert runs.heartbeat(tx, w.org, made.id, "w", lease=LEASE, now=after(20)).lease_until == after(50)
        done = runs.finish(tx, w.org, made.id, "w", "succeeded", result={"ok": [1]}, now=after(40))
        assert (done.state, done.result, done.progress, done.ended_at, done.lease_until) == (
            "succeeded",
            {"ok": [1]},
            {"rows": 5},
            after(40),
            None,
        )
        assert locks.holder(tx, "db", now=after(40)) is None
        for late in (
            lambda: runs.heartbeat(tx, w.org, made.id, "w", lease=LEASE, now=after(41)),
            lambda: runs.finish(tx, w.org, made.id, "w", "failed", now=after(41)),
            lambda: runs.set_progress(tx, w.org, made.id, "w", {}, now=after(41)),
            lambda: runs.claim_one(tx, w.org, made.id, "w", lease=LEASE, now=after(41)),
        ):
            with pytest.raises(Conflict):
                late()


def test_another_worker_may_not_speak_for_a_run(store: Store, w: World) -> None:
    with store.write() as tx:
        made = runs.create_run(tx, w.org, "x", user_id=None, now=AT)
        runs.claim_one(tx, w.org, made.id, "mine", lease=LEASE, now=AT)
        for act in (
            lambda: runs.heartbeat(tx, w.org, made.id, "theirs", lease=LEASE, now=AT),
            lambda: runs.set_progress(tx, w.org, made.id, "theirs", {}, now=AT),
            lambda: runs.finish(tx, w.org, made.id, "theirs", "succeeded", now=AT),
        ):
            with pytest.raises(Conflict, match="not this worker's"):
                act()


def test_a_lock_has_one_holder(store: Store, w: World) -> None:
    with store.write() as tx:
        first, second, free = (
            runs.create_run(tx, w.org, "x", user_id=None, lock=lock, now=AT) for lock in ("db", "db", "other")
        )
        assert runs.claim(tx, "w1", lease=LEASE, now=AT).id == first.id  # type: ignore[union-attr]
        assert runs.claim(tx, "w2", lease=LEASE, now=AT).id == free.id  # type: ignore[union-attr]
        assert runs.claim(tx, "w3", lease=LEASE, now=AT) is None
        with pytest.raises(Conflict, match="another run is at work on 'db'") as caught:
            runs.claim_one(tx, w.org, second.id, "w3", lease=LEASE, now=AT)
        assert first.id not in str(caught.value)  # it may be another organization's
        assert runs.get_run(tx, w.org, second.id).state == "queued"
        runs.finish(tx, w.org, first.id, "w1", "failed", error={"code": "x"}, now=AT)
        assert runs.claim(tx, "w3", lease=LEASE, now=AT).id == second.id  # type: ignore[union-attr]


def test_a_dead_worker_holds_a_lock_for_one_lease_at_most(store: Store, w: World) -> None:
    with store.write() as tx:
        dead = runs.create_run(tx, w.org, "x", user_id=None, lock="db", now=AT)
        runs.claim_one(tx, w.org, dead.id, "w1", lease=LEASE, now=AT)
        waiting = runs.create_run(tx, w.org, "x", user_id=None, lock="db", now=AT)
        assert runs.claim(tx, "w2", lease=LEASE, now=after(29.9)) is None
        got = runs.claim(tx, "w2", lease=LEASE, now=after(30))  # nobody swept in between
        assert got is not None
        assert got.id == waiting.id
        crashed = runs.get_run(tx, w.org, dead.id)
        assert (crashed.state, crashed.ended_at, crashed.error["code"]) == ("crashed", after(30), "run.crashed")  # type: ignore[index]
        # The dead one wakes up: every word of it is refused, and it does not free what is not its own.
        for act in (
            lambda: runs.heartbeat(tx, w.org, dead.id, "w1", lease=LEASE, now=after(31)),
            lambda: runs.finish(tx, w.org, dead.id, "w1", "succeeded", now=after(31)),
        ):
            with pytest.raises(Conflict):
                act()
        assert locks.holder(tx, "db", now=after(31)) == waiting.id
        locks.release(tx, "db", dead.id)
        assert locks.holder(tx, "db", now=after(31)) == waiting.id


def test_an_expired_lease_is_lost_even_when_nobody_took_it(store: Store, w: World) -> None:
    with store.write() as tx:
        made = runs.create_run(tx, w.org, "x", user_id=None, now=AT)
        runs.claim_one(tx, w.org, made.id, "w", lease=LEASE, now=AT)
        with pytest.raises(Conflict):
            runs.heartbeat(tx, w.org, made.id, "w", lease=LEASE, now=after(30))
        with pytest.raises(Conflict):
            runs.finish(tx, w.org, made.id, "w", "succeeded", now=after(30))
        assert runs.sweep(tx, now=after(29.999)) == ()
        swept = runs.sweep(tx, now=after(30))
        assert [(r.id, r.state) for r in swept] == [(made.id, "crashed")]
        assert runs.sweep(tx, now=after(99)) == ()


def test_sweeping_frees_locks(store: Store, w: World) -> None:
    with store.write() as tx:
        made = runs.create_run(tx, w.org, "x", user_id=None, lock="db", now=AT)
        runs.claim_one(tx, w.org, made.id, "w", lease=LEASE, now=AT)
        runs.sweep(tx, now=after(60))
        assert locks.holder(tx, "db", now=AT) is None


def test_cancelling(store: Store, w: World) -> None:
    with store.write() as tx:
        queued = runs.create_run(tx, w.org, "x", user_id=None, now=AT)
        assert runs.request_cancel(tx, w.org, queued.id, now=after(1)).state == "cancelled"
        assert runs.claim(tx, "w", lease=LEASE, now=after(2)) is None
        running = runs.create_run(tx, w.org, "x", user_id=None, now=AT)
        runs.claim_one(tx, w.org, running.id, "w", lease=LEASE, now=AT)
        assert runs.request_cancel(tx, w.org, running.id, now=after(1)).state == "running"
        runs.request_cancel(tx, w.org, running.id, now=after(2))
        assert runs.heartbeat(tx, w.org, running.id, "w", lease=LEASE, now=after(3)).cancel_at == after(1)
        ended = runs.finish(tx, w.org, running.id, "w", "cancelled", now=after(4))
        assert runs.request_cancel(tx, w.org, running.id, now=after(5)) == ended
        for state in ("crashed", "queued", "done"):
            with pytest.raises(InvalidInput, match="state is"):
                runs.finish(tx, w.org, running.id, "w", state, now=AT)  # type: ignore[arg-type]


def test_a_log_is_numbered_without_gaps(store: Store, w: World) -> None:
    with store.write() as tx:
        made = runs.create_run(tx, w.org, "x", user_id=None, now=AT)
    failed: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for n in range(25):
                with store.write() as tx:
                    runs.add_log(tx, w.org, made.id, f"{name} {n}", now=AT)
        except DBLensError as error:
            failed.append(error)

    several = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert not failed
    with store.read() as tx:
        lines, at = [], None
        while True:
            part = runs.read_log(tx, w.org, made.id, limit=30, after=at)
            lines += part.items
            if (at := part.after) is None:
                break
        assert [line.number for line in lines] == list(range(1, 101))
        assert [line.text for line in lines if line.text.startswith("a")] == [f"a {n}" for n in range(25)]
        assert runs.read_log(tx, w.org, made.id, after="100").items == ()
        with pytest.raises(InvalidInput), store.write() as second:
            runs.add_log(second, w.org, made.id, "x", level="fatal", now=AT)


def test_workers_never_get_the_same_run(store: Store, w: World) -> None:
    with store.write() as tx:
        made = {runs.create_run(tx, w.org, "x", user_id=None, lock=f"l{n % 5}", now=AT).id for n in range(30)}
    got: list[str] = []
    failed: list[BaseException] = []

    def work(name: str) -> None:
        idle = 0
        try:
            while idle < 40:
                with store.write() as tx:
                    run = runs.claim(tx, name, lease=LEASE, now=AT)
                if run is None:
                    idle += 1
                    continue
                with store.write() as tx:
                    assert locks.holder(tx, run.lock or "", now=AT) == run.id
                    got.append(run.id)
                    runs.finish(tx, w.org, run.id, name, "succeeded", now=AT)
        except (DBLensError, AssertionError) as error:
            failed.append(error)

    several = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert not failed
    assert sorted(got) == sorted(made)


def test_lists_and_retention(store: Store, w: World) -> None:
    with store.write() as tx:
        parent = runs.create_run(tx, w.org, "restore", user_id=w.user, connection_id=w.connection, now=AT)
        child = runs.create_run(tx, w.org, "snapshot", user_id=w.user, parent_id=parent.id, now=AT)
        assert [r.id for r in runs.list_runs(tx, w.org, parent_id=parent.id).items] == [child.id]
        assert [r.id for r in runs.list_runs(tx, w.org, state="queued").items] == [child.id, parent.id]
        assert [r.id for r in runs.list_runs(tx, w.org, operation="restore").items] == [parent.id]
        assert {r.id for r in runs.list_runs(tx, w.org, connection_id=w.connection).items} == {parent.id, w.run}
        for wrong in ({"parent_id": "0" * 32}, {"connection_id": "0" * 32}):
            with pytest.raises(NotFound):
                runs.create_run(tx, w.org, "x", user_id=None, now=AT, **wrong)  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="no user"):
            runs.create_run(tx, w.org, "x", user_id="0" * 32, now=AT)
        assert runs.prune(tx, before=AT) == 0
        assert runs.prune(tx, before=AT + dt.timedelta(days=1)) == 2
        assert {r.id for r in runs.list_runs(tx, w.org).items} == {parent.id, child.id}
