"""A few open sessions of one connection, lent to one thread each, first come first served."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from dblens.engines.access.connect import Opened
from dblens.engines.base import Target
from dblens.errors import Conflict, DBLensError, InvalidInput, TimedOut

Clock = Callable[[], float]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes, and times in seconds. `check_seconds`: how long a session may take to show that it lives when it is borrowed."""

    size: int = 8
    waiting: int = 256
    wait_seconds: float = 30.0
    idle_seconds: float = 300.0
    age_seconds: float = 3600.0
    check_seconds: float = 5.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool holds now. Ages and idle times in seconds, counters since it began."""

    size: int
    in_use: int
    idle: int
    waiting: int
    borrowed: int
    opened: int
    replaced: int
    timeouts: int
    longest_wait: float
    ages: tuple[float, ...]
    idle_for: tuple[float, ...]


class _Lent:
    __slots__ = ("born", "generation", "opened", "since")

    def __init__(self, opened: Opened, born: float, generation: int) -> None:
        self.opened, self.born, self.generation, self.since = opened, born, generation, born


class _Ticket:
    __slots__ = ("ready",)

    def __init__(self) -> None:
        self.ready = threading.Event()


class Pool:
    """Bounded, fair, thread-safe. `open` makes a session (see `connect.connect`); it runs outside of the pool's lock."""

    def __init__(self, open: Callable[[], Opened], limits: Limits = Limits(), *, clock: Clock = time.monotonic) -> None:
        if limits.size < 1:
            raise InvalidInput(f"a pool of {limits.size} sessions", hint="at least one")
        self._open, self._limits, self._clock = open, limits, clock
        self._lock = threading.Lock()
        self._idle: deque[_Lent] = deque()
        self._used: dict[int, _Lent] = {}
        self._places = 0  # sessions there are or are being opened
        self._queue: deque[_Ticket] = deque()
        self._generation = 0
        self._closed = False
        self._borrowed = self._opened = self._replaced = self._timeouts = 0
        self._longest = 0.0

    def __repr__(self) -> str:
        status = self.status()
        return f"Pool(in_use={status.in_use}, idle={status.idle}, waiting={status.waiting}, size={status.size})"

    @contextlib.contextmanager
    def borrow(self, *, wait_seconds: float | None = None) -> Iterator[Target]:
        """Lend a live session for the body. Raises TimedOut when none becomes free in time, Conflict when the pool is closed.

        A session whose body raised is looked at before it is lent again; one in an unknown state is closed.
        """
        lent = self._take(self._limits.wait_seconds if wait_seconds is None else wait_seconds)
        broken = True
        try:
            yield lent.opened.session
            broken = False
        except DBLensError:
            broken = False  # a refused statement; the check at the next borrow finds a lost connection
            raise
        finally:
            self._give_back(lent, broken=broken)

    def change(self, open: Callable[[], Opened]) -> None:
        """Use another way to open from now on (other credentials): idle sessions end now, lent ones when they come back."""
        with self._lock:
            self._open = open
            self._generation += 1
            old, self._idle = list(self._idle), deque()
            self._places -= len(old)
            self._wake()
        _end(old)

    def renew(self) -> None:
        """Open every session anew from now on: what its way to open looks up has changed."""
        self.change(self._open)

    def close(self) -> None:
        """Close idle sessions now and lent ones when they come back; refuse new ones."""
        with self._lock:
            self._closed = True
            old, self._idle = list(self._idle), deque()
            self._places -= len(old)
            waiting, self._queue = list(self._queue), deque()
        for ticket in waiting:
            ticket.ready.set()
        _end(old)

    def prune(self) -> int:
        """Close sessions that are idle or alive for too long; return how many. For a timer of the service."""
        with self._lock:
            kept: deque[_Lent] = deque()
            old: list[_Lent] = []
            for lent in self._idle:
                (old.append if self._stale(lent) else kept.append)(lent)
            self._idle = kept
            self._places -= len(old)
            self._wake()
        _end(old)
        return len(old)

    def status(self) -> Status:
        """Return what the pool holds now."""
        with self._lock:
            now = self._clock()
            return Status(
                size=self._limits.size,
                in_use=self._places - len(self._idle),
                idle=len(self._idle),
                waiting=len(self._queue),
                borrowed=self._borrowed,
                opened=self._opened,
                replaced=self._replaced,
                timeouts=self._timeouts,
                longest_wait=self._longest,
                ages=tuple(now - lent.born for lent in (*self._idle, *self._used.values())),
                idle_for=tuple(now - lent.since for lent in self._idle),
            )

    # ---- lending

    def _take(self, wait_seconds: float) -> _Lent:
        self._line_up(wait_seconds)
        # From here on a place is ours: any way out of here without a session must give it back.
        try:
            while True:
                with self._lock:
                    lent = self._idle.pop() if self._idle else None
                    if lent is not None:
                        self._places -= 1  # it takes our place
                    opener, generation = self._open, self._generation
                if lent is None:
                    opened = opener()
                    now = self._clock()
                    lent = _Lent(opened, now, generation)
                    with self._lock:
                        self._opened += 1
                    break
                if self._alive(lent):
                    break
                with self._lock:
                    self._replaced += 1
                _end([lent])
        except BaseException:
            with self._lock:
                self._places -= 1
                self._wake()
            raise
        with self._lock:
            self._used[id(lent)] = lent
            self._borrowed += 1
        return lent

    def _line_up(self, wait_seconds: float) -> None:
        """Take a place, waiting for one in the order of arrival."""
        ticket = _Ticket()
        with self._lock:
            self._refuse_closed()
            if not self._queue and self._free():
                self._places += 1
                return
            if len(self._queue) >= self._limits.waiting:
                self._timeouts += 1
                raise TimedOut(
                    f"{len(self._queue)} callers already wait for a session",
                    hint="try again later, or raise the pool's size",
                )
            self._queue.append(ticket)
        began = time.monotonic()
        try:
            won = ticket.ready.wait(wait_seconds)
        except BaseException:  # KeyboardInterrupt: a place that was handed over in the meantime must not be lost
            with self._lock:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                else:
                    self._places -= 1
                    self._wake()
            raise
        with self._lock:
            self._longest = max(self._longest, time.monotonic() - began)
            if not won and ticket in self._queue:
                self._queue.remove(ticket)
                self._timeouts += 1
                raise TimedOut(
                    f"no session became free within {wait_seconds:g} s ({self._limits.size} are in use)",
                    hint="try again later, or raise the pool's size",
                )
            # Otherwise a place was handed over, at the last moment perhaps.
            if self._closed:
                self._refuse_closed()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Conflict("the connection was closed", hint="open it again")

    def _free(self) -> bool:
        """Whether a place can be taken: an idle session counts, because its place is taken over."""
        return self._places - len(self._idle) < self._limits.size

    def _wake(self) -> None:
        while self._queue and self._free():
            self._places += 1
            self._queue.popleft().ready.set()

    def _stale(self, lent: _Lent) -> bool:
        now = self._clock()
        return (
            lent.generation != self._generation
            or now - lent.since > self._limits.idle_seconds
            or now - lent.born > self._limits.age_seconds
        )

    def _alive(self, lent: _Lent) -> bool:
        if self._stale(lent):
            return False
        try:
            lent.opened.ping(self._limits.check_seconds)
        except DBLensError:
            return False
        return True

    def _give_back(self, lent: _Lent, *, broken: bool) -> None:
        with self._lock:
            self._used.pop(id(lent), None)
            lent_again = not (broken or self._closed or lent.opened.closed or self._stale_now(lent))
            if lent_again:
                lent.since = self._clock()
                self._idle.append(lent)
            else:
                self._places -= 1
            self._wake()
        if not lent_again:
            _end([lent])

    def _stale_now(self, lent: _Lent) -> bool:
        return lent.generation != self._generation or self._clock() - lent.born > self._limits.age_seconds


def _end(sessions: list[_Lent]) -> None:
    for lent in sessions:
        with contextlib.suppress(DBLensError, OSError):
            lent.opened.close()
