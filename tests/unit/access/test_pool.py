"""The pool: bounded, fair, replaced when dead, and never leaking a place."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dblens.engines.access.pool import Limits, Pool
from dblens.errors import Conflict, ConnectionFailed, DBLensError, InvalidInput, TimedOut


class Fake:
    """An `Opened` without a server."""

    made: list[Fake]

    def __init__(self, name: str = "a") -> None:
        self.name, self.session, self.closed, self.dead, self.users, self.pings = name, self, False, False, 0, 0

    def ping(self, seconds: float) -> None:
        self.pings += 1
        if self.dead:
            raise ConnectionFailed("gone", hint="none")

    def close(self) -> None:
        self.closed = True


class World:
    def __init__(self, **limits: Any) -> None:
        self.now, self.made, self.fail, self.lock = 0.0, [], False, threading.Lock()  # type: ignore[var-annotated]
        self.pool = Pool(self.open, Limits(**limits), clock=lambda: self.now)  # type: ignore[arg-type]

    def open(self) -> Any:
        if self.fail:
            raise ConnectionFailed("no server", hint="none")
        fake = Fake()
        with self.lock:
            self.made.append(fake)
        return fake

    @property
    def alive(self) -> int:
        return sum(not f.closed for f in self.made)


def test_a_session_is_used_again_and_checked_on_borrow() -> None:
    world = World(size=2)
    for _ in range(3):
        with world.pool.borrow() as session:
            assert world.pool.status().in_use == 1
            first = session
    assert len(world.made) == 1
    assert first.pings == 2  # type: ignore[attr-defined]
    status = world.pool.status()
    assert (status.in_use, status.idle, status.borrowed, status.opened) == (0, 1, 3, 1)


def test_a_dead_session_is_replaced() -> None:
    world = World(size=1)
    with world.pool.borrow():
        pass
    world.made[0].dead = True
    with world.pool.borrow() as session:
        assert session is world.made[1]
    assert world.made[0].closed
    assert world.pool.status().replaced == 1
    assert world.alive == 1


def test_all_idle_ones_dead_at_once() -> None:
    world = World(size=4)
    opened = [world.pool.borrow() for _ in range(4)]
    for b in opened:
        b.__enter__()
    for b in opened:
        b.__exit__(None, None, None)
    for fake in world.made:
        fake.dead = True
    with world.pool.borrow():
        status = world.pool.status()
        assert (status.in_use, status.idle) == (1, 0)
    assert world.alive == 1


def test_old_and_idle_sessions_are_closed() -> None:
    world = World(size=2, idle_seconds=10, age_seconds=100)
    with world.pool.borrow():
        pass
    world.now = 11
    with world.pool.borrow():
        pass
    assert len(world.made) == 2
    for world.now in range(20, 120, 8):
        with world.pool.borrow():
            pass
    assert len(world.made) == 3, "too old, however busy"
    world.now = 500
    assert world.pool.prune() == 1
    assert world.alive == 0
    assert world.pool.status().idle == 0


def test_waiting_ends_and_says_so() -> None:
    world = World(size=1, wait_seconds=0.1)
    with world.pool.borrow():
        began = time.monotonic()
        with pytest.raises(TimedOut, match="1 are in use"), world.pool.borrow():
            pass
        assert 0.09 < time.monotonic() - began < 2
    assert world.pool.status().timeouts == 1
    with world.pool.borrow():
        pass


def test_a_full_queue_is_refused_at_once() -> None:
    world = World(size=1, waiting=0)
    with world.pool.borrow(), pytest.raises(TimedOut, match="wait"), world.pool.borrow():
        pass


def test_first_come_first_served() -> None:
    world = World(size=1)
    order: list[int] = []
    holder = world.pool.borrow()
    holder.__enter__()

    def work(number: int) -> None:
        with world.pool.borrow():
            order.append(number)

    threads = []
    for number in range(20):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        while world.pool.status().waiting != number + 1:
            time.sleep(0.001)
    holder.__exit__(None, None, None)
    for thread in threads:
        thread.join(5)
    assert order == list(range(20))


def test_a_failed_opening_gives_its_place_back() -> None:
    world = World(size=1)
    world.fail = True
    for _ in range(3):
        with pytest.raises(ConnectionFailed), world.pool.borrow():
            pass
    world.fail = False
    with world.pool.borrow():
        pass
    assert world.pool.status().in_use == 0


def test_an_error_of_the_database_keeps_the_session_another_one_does_not() -> None:
    world = World(size=1)
    with pytest.raises(DBLensError), world.pool.borrow():
        raise InvalidInput("no such table", hint="x")
    assert world.alive == 1
    with pytest.raises(KeyboardInterrupt), world.pool.borrow():
        raise KeyboardInterrupt
    assert world.alive == 0
    with world.pool.borrow():
        pass


def test_new_credentials_end_old_sessions() -> None:
    world = World(size=2)
    lent = world.pool.borrow()
    first: Any = lent.__enter__()
    with world.pool.borrow():
        pass
    idle = world.made[1]
    fresh = Fake("b")
    world.pool.change(lambda: fresh)  # type: ignore[arg-type,return-value]
    assert idle.closed
    assert not first.closed
    lent.__exit__(None, None, None)
    assert first.closed
    with world.pool.borrow() as session:
        assert session is fresh.session  # type: ignore[comparison-overlap]


def test_an_opening_under_old_credentials_is_not_kept() -> None:
    world = World(size=1)
    with world.pool.borrow() as session:
        old: Any = session
        world.pool.change(world.open)
    assert old.closed


def test_a_closed_pool() -> None:
    world = World(size=1)
    lent = world.pool.borrow()
    lent.__enter__()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with world.pool.borrow():
                pass
        except Conflict as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not world.pool.status().waiting:
        time.sleep(0.001)
    world.pool.close()
    thread.join(5)
    assert len(caught) == 1
    lent.__exit__(None, None, None)
    assert world.alive == 0
    with pytest.raises(Conflict), world.pool.borrow():
        pass


def test_two_hundred_threads() -> None:
    world = World(size=7)
    most = threading.Lock()
    peak = [0, 0]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                with world.pool.borrow() as session:
                    fake: Any = session
                    fake.users += 1
                    assert fake.users == 1, "lent twice"
                    with most:
                        peak[0] += 1
                        peak[1] = max(peak)
                    time.sleep(0.0005)
                    if (number + turn) % 17 == 0:
                        fake.dead = True
                    with most:
                        peak[0] -= 1
                    fake.users -= 1
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert peak[1] <= 7
    status = world.pool.status()
    assert (status.in_use, status.waiting, status.borrowed) == (0, 0, 2000)
    assert world.alive == status.idle <= 7
    assert status.replaced > 10
    world.pool.close()
    assert world.alive == 0
