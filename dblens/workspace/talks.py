"""What people run on databases now: queries that can be stopped by their id, explicit transactions with their age. No door of its own.

Both belong to who began them: to anybody else their ids are of nothing. A transaction holds a session out of its connection's pool, so
there are few per person, and one that does nothing for its idle time is rolled back. They live in this process only.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from dblens.engines.asking import Asks
from dblens.engines.asking import Transaction as Inside
from dblens.engines.base import Engine, Target
from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound
from dblens.query.run import Running, answering
from dblens.store.records import new_id

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

log = logging.getLogger(__name__)
PER_PERSON: Final = 4
TICK: Final = 0.5
REMEMBERED: Final = 200
"""How many transactions that ended are remembered, to say what became of them."""

End = Literal["committed", "rolled back", "idle", "lost"]


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """An explicit transaction. Times in seconds; `failed`: it can only be rolled back; `ends_at`: when it is rolled back if nothing is done."""

    id: str
    connection_id: str | None
    connection: str
    began_at: dt.datetime
    age_seconds: float
    idle_for_seconds: float
    idle_seconds: float
    ends_at: dt.datetime
    statements: int
    read_only: bool
    isolation: str
    failed: bool = False
    at_work: bool = False


class _Open:
    """A transaction and the session that it holds."""

    def __init__(
        self,
        user_id: str,
        connection_id: str | None,
        connection: str,
        engine: Engine,
        asks: Asks,
        stack: contextlib.ExitStack,
        idle: float,
        began_at: dt.datetime,
    ) -> None:
        self.id, self.user_id, self.connection_id, self.connection = new_id(), user_id, connection_id, connection
        self.engine, self.asks, self.stack, self.idle, self.began_at = engine, asks, stack, idle, began_at
        self.busy = threading.Lock()
        self.begun = self.used = time.monotonic()
        self.statements = 0
        self.inside: Inside | None = asks.transaction

    def shown(self, now: dt.datetime) -> Transaction:
        inside = self.inside or Inside(read_only=False)
        at_work, idle = self.busy.locked(), time.monotonic() - self.used
        return Transaction(
            id=self.id,
            connection_id=self.connection_id,
            connection=self.connection,
            began_at=self.began_at,
            age_seconds=round(time.monotonic() - self.begun, 3),
            idle_for_seconds=0.0 if at_work else round(idle, 3),
            idle_seconds=self.idle,
            ends_at=now + dt.timedelta(seconds=max(0.0, self.idle - (0.0 if at_work else idle))),
            statements=self.statements,
            read_only=inside.read_only,
            isolation=inside.isolation,
            failed=inside.failed,
            at_work=at_work,
        )

    def end(self, *, broken: bool) -> None:
        """Give the session back; a broken one is closed."""
        if broken:
            with contextlib.suppress(RuntimeError):
                self.stack.__exit__(RuntimeError, RuntimeError("its state is not known"), None)
        else:
            self.stack.close()


class Talks:
    """Queries at work and open transactions of a process. Safe for several threads."""

    def __init__(self, clock: Callable[[], dt.datetime]) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._queries: dict[tuple[str, str], Running] = {}
        self._open: dict[str, _Open] = {}
        self._ended: dict[tuple[str, str], End] = {}
        self._closed = threading.Event()
        self._timer: threading.Thread | None = None

    # ---------------------------------------------------------------------------------------------------------------- queries

    @contextlib.contextmanager
    def query(self, user_id: str, query: str, running: Running) -> Iterator[None]:
        """Let a query be stopped by its id for the body; when the body is left it is over. Raises Conflict for an id that is at work."""
        key = user_id, query
        with self._guard:
            if self._closed.is_set():
                raise Conflict("the workspace is closed", hint="open it again")
            if key in self._queries:
                raise Conflict(f"the query {query} is at work", hint="choose another id for each")
            self._queries[key] = running
        try:
            yield
        finally:
            running.over()
            with self._guard:
                self._queries.pop(key, None)

    def cancel(self, user_id: str, query: str, *, patience: float = 2.0) -> bool:
        """Stop a query of that person; return whether it is over. Raises NotFound when there is none, or it is somebody else's."""
        with self._guard:
            found = self._queries.get((user_id, query))
        if found is None:
            raise NotFound(f"no query {query!r} is at work", hint="it ended, or was never begun")
        return found.stop(patience=patience)

    @property
    def at_work(self) -> int:
        """Return how many queries are at work."""
        return len(self._queries)

    # ----------------------------------------------------------------------------------------------------------- transactions

    def begin(
        self,
        user_id: str,
        connection_id: str | None,
        connection: str,
        session: AbstractContextManager[tuple[Engine, Target]],
        *,
        read_only: bool,
        isolation: str,
        idle: float,
    ) -> Transaction:
        """Begin a transaction on a session of its own. Raises Conflict when the person has too many, and what the engine raises."""
        with self._guard:
            if self._closed.is_set():
                raise Conflict("the workspace is closed", hint="open it again")
            if sum(each.user_id == user_id for each in self._open.values()) >= PER_PERSON:
                raise Conflict(f"you have {PER_PERSON} transactions open", hint="commit one, or roll it back")
        with contextlib.ExitStack() as stack:
            engine, target = stack.enter_context(session)
            asks = answering(engine, target)
            asks.begin(read_only=read_only, isolation=isolation)
            made = _Open(user_id, connection_id, connection, engine, asks, stack.pop_all(), idle, self._clock())
        with self._guard:
            self._open[made.id] = made
            self._watch()
            closed = self._closed.is_set()
        if closed:
            self._end(made, "rolled back")
            raise Conflict("the workspace is closed", hint="open it again")
        return made.shown(self._clock())

    @contextlib.contextmanager
    def within(self, user_id: str, transaction: str, connection_id: str | None) -> Iterator[tuple[Engine, Asks]]:
        """Lend a transaction's session for one text. Raises NotFound, Conflict for one that is at work or has ended."""
        found = self._mine(user_id, transaction)
        if found.connection_id != connection_id:
            raise NotFound(f"no transaction {transaction!r} on this connection", hint="query.transactions lists yours")
        if not found.busy.acquire(blocking=False):
            raise Conflict(f"the transaction {transaction} is at work", hint="one statement at a time")
        try:
            if found.id not in self._open:
                self._mine(user_id, transaction)  # ended between the two: it says how
            found.statements += 1
            yield found.engine, found.asks
        finally:
            found.used = time.monotonic()
            found.inside = found.asks.transaction
            found.busy.release()
            if found.inside is None:
                self._end(found, "lost")

    def commit(self, user_id: str, transaction: str) -> Transaction:
        """Commit and end it. Raises NotFound, Conflict, QueryFailed when the server refuses: then it was rolled back."""
        return self._over(self._mine(user_id, transaction), "committed")

    def rollback(self, user_id: str, transaction: str) -> Transaction:
        """Roll it back and end it. Raises NotFound, Conflict."""
        return self._over(self._mine(user_id, transaction), "rolled back")

    def connection_of(self, user_id: str, transaction: str) -> str | None:
        """Return the id of its connection, None for an address. Raises NotFound, Conflict."""
        return self._mine(user_id, transaction).connection_id

    def transactions(self, user_id: str) -> tuple[Transaction, ...]:
        """Return those that a person has open, oldest first."""
        now = self._clock()
        with self._guard:
            mine = [each for each in self._open.values() if each.user_id == user_id]
        return tuple(each.shown(now) for each in mine)

    def _mine(self, user_id: str, transaction: str) -> _Open:
        with self._guard:
            found = self._open.get(transaction)
            how = self._ended.get((user_id, transaction))
        if found is not None and found.user_id == user_id:
            return found
        if how == "idle":
            raise Conflict(
                f"the transaction {transaction} was rolled back: nothing was done in it for too long",
                hint="begin another",
            )
        if how == "lost":
            raise Conflict(f"the transaction {transaction} is gone with its session", hint="begin another")
        if how is not None:
            raise Conflict(f"the transaction {transaction} was {how}", hint="begin another")
        raise NotFound(f"no transaction {transaction!r}", hint="query.transactions lists yours")

    def _over(self, found: _Open, how: Literal["committed", "rolled back"]) -> Transaction:
        if not found.busy.acquire(blocking=False):
            raise Conflict(f"the transaction {found.id} is at work", hint="wait for it, or cancel its query")
        try:
            shown = found.shown(self._clock())
            if how == "committed":
                try:
                    found.asks.commit()
                except DBLensError:
                    self._end(found, "rolled back")
                    raise
                self._end(found, how, done=True)
            else:
                self._end(found, how)
            return msgspec.structs.replace(shown, at_work=False)
        finally:
            found.busy.release()

    def _end(self, found: _Open, how: End, *, done: bool = False) -> None:
        """Take it off the list and give its session back, rolled back unless it is `done`."""
        with self._guard:
            if self._open.pop(found.id, None) is None:
                return
            self._ended[found.user_id, found.id] = how
            while len(self._ended) > REMEMBERED:
                del self._ended[next(iter(self._ended))]
        broken = how == "lost"
        if not done and not broken:
            try:
                found.asks.rollback()
            except DBLensError as error:
                log.warning("a transaction on %s could not be rolled back: %s", found.connection, error.message)
                broken = True
        found.end(broken=broken)

    def sweep(self) -> int:
        """Roll back what has done nothing for its idle time; return how many."""
        now, done = time.monotonic(), 0
        with self._guard:
            old = [each for each in self._open.values() if now - each.used > each.idle]
        for each in old:
            if each.busy.acquire(blocking=False):
                try:
                    if time.monotonic() - each.used > each.idle:
                        self._end(each, "idle")
                        done += 1
                finally:
                    each.busy.release()
        return done

    def close(self) -> None:
        """Stop every query, roll back every transaction, take no more."""
        self._closed.set()
        with self._guard:
            queries, opened = list(self._queries.values()), list(self._open.values())
            timer, self._timer = self._timer, None
        stops = [threading.Thread(target=each.stop, daemon=True) for each in queries]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join(10)
        for each in opened:
            if each.busy.acquire(timeout=10):
                self._end(each, "rolled back")
                each.busy.release()
        if timer is not None:
            timer.join(5)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = threading.Thread(target=self._sweeps, name="dblens-transactions", daemon=True)
            self._timer.start()

    def _sweeps(self) -> None:
        while not self._closed.wait(TICK):
            try:
                self.sweep()
            except Exception:
                log.exception("idle transactions could not be looked at")


def query_id(given: str | None) -> str:
    """Return the id of a query: the caller's own, 32 hexadecimal digits, or a new one. Raises InvalidInput."""
    if given is None:
        return new_id()
    if len(given) != 32 or not all(char in "0123456789abcdef" for char in given):
        raise InvalidInput(f"query is {given[:64]!r}", hint="32 hexadecimal digits in small letters")
    return given
