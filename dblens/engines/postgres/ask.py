"""How a session on PostgreSQL answers people.

It has a connection of its own, opened with the first question: settings, locks and transactions of people never meet what copies and
proves, and their search path and row security are the login's own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg import pq

from dblens.engines.asking import Answer, Explained, Layer, Lexis, Limits, Transaction
from dblens.engines.postgres import ask_gate, ask_login, ask_plan
from dblens.engines.postgres.ask_run import Bounds, PostgresAnswer, used
from dblens.engines.postgres.ask_types import Kind
from dblens.engines.postgres.ask_values import given
from dblens.engines.postgres.ask_wire import Wire
from dblens.errors import Cancelled, Conflict, ConnectionFailed, DBLensError, InvalidInput, PermissionDenied, TimedOut

if TYPE_CHECKING:
    from dblens.engines.postgres.session import PostgresSession

LEXIS: Final = Lexis(
    dialect="postgres", placeholder="numbered", dollar_quotes=True, nested_comments=True, bodies="atomic"
)
_ISOLATION: Final = ("read uncommitted", "read committed", "repeatable read", "serializable")
_IDLE: Final = 10.0
"""Seconds after which a connection that is used again is first asked whether it lives."""
_FORGOTTEN: Final = 24 * 3600
"""Seconds after which the server itself ends an explicit transaction in which nothing is done."""
_KNOWN: Final = 60.0
"""Seconds for which what a login may do is not asked again."""
_TAG: Final = 500
_TRANSACTION_GONE: Final = "the connection was lost, and with it the transaction"


def ask(session: Any) -> PostgresAsks:
    """Return how a session answers. What an earlier user of the session left in it (settings, temporary tables, locks) is gone."""
    kept: PostgresAsks | None = session.asking
    if kept is None:
        kept = session.asking = PostgresAsks(session)
    else:
        kept.clean()
    return kept


class PostgresAsks:
    """A session, as people ask it; see `dblens.engines.asking.Asks`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._wire: Wire | None = None
        self._used = 0.0
        self._answer: PostgresAnswer | None = None
        self._guard = threading.Lock()
        self._transaction: Transaction | None = None
        self._login: tuple[float, bool, str] | None = None
        self.kinds: dict[tuple[int, int], Kind] = {}

    def __repr__(self) -> str:
        return f"PostgresAsks({self._session!r})"

    # ------------------------------------------------------------------------------------------------------- connection

    def _connected(self) -> Wire:
        """Return the connection, opened or opened again where that loses nothing."""
        wire = self._wire
        if wire is not None and wire.alive and time.monotonic() - self._used > _IDLE:
            try:
                wire.simple("")
            except DBLensError:
                wire.sever()
        if wire is not None and not wire.alive:
            self._drop()
            wire = None
        if wire is None:
            if self._transaction is not None:
                self._transaction = None
                raise ConnectionFailed(_TRANSACTION_GONE, hint="begin again: nothing of it was written")
            link = self._session.another_link()
            try:
                wire = self._wire = Wire(link)
            except BaseException:
                link.close()
                raise
        self._used = time.monotonic()
        return wire

    def _drop(self) -> None:
        """Give the connection up; the next statement opens another."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.link.close()

    def close(self) -> None:
        """Leave the server."""
        answer = self._answer
        if answer is not None:
            with contextlib.suppress(DBLensError):
                answer.stop("cancelled")
            answer.leave()
        self._transaction = None
        self._drop()

    def clean(self) -> None:
        """Roll back what is open and forget settings, temporary tables and locks: the session is as if new."""
        if self._answer is not None:
            self._answer.leave()
        wire = self._wire
        if wire is None:
            self._transaction = None
            return
        try:
            if self._transaction is not None:
                self._transaction = None
                wire.simple("ROLLBACK")
            if wire.touched and wire.alive:
                wire.fresh()
                self._login = None
        except DBLensError:
            self._drop()

    # ------------------------------------------------------------------------------------------------------- statements

    def ask(
        self,
        statement: str,
        params: Sequence[object] = (),
        *,
        read_only: bool = True,
        limits: Limits = Limits(),
        tag: str = "",
    ) -> Answer:
        self._idle()
        text = ask_gate.read(statement)
        ask_gate.managed(text, within=self._transaction is not None and not read_only)
        used(params, text)
        if read_only:
            ask_gate.reading(text)
        elif self._session.reads_only:
            raise PermissionDenied("the connection is read-only", hint="use one that is not")
        return self._run(statement, text, params, read_only=read_only, limits=limits, tag=tag)

    def _run(
        self,
        statement: str,
        text: ask_gate.Read,
        params: Sequence[object],
        *,
        read_only: bool,
        limits: Limits,
        tag: str = "",
    ) -> PostgresAnswer:
        wire = self._connected()
        state = self.transaction
        if state is not None and state.failed and text.first != "ROLLBACK":
            raise Conflict("the transaction has failed", hint="roll it back, then begin again")
        bounds: Bounds = "none" if not read_only else "own" if state is None else "point"
        sent = given(wire.link, params)
        answer = PostgresAnswer(self, wire, read_only=read_only, bounds=bounds, limits=limits)
        with self._guard:
            self._answer = answer
        answer.start(statement[: text.end], text, sent, _comment(tag))
        return answer

    def ended(self, answer: PostgresAnswer) -> None:
        """Hear that an answer has ended."""
        with self._guard:
            if self._answer is answer:
                self._answer = None
        if self._transaction is not None and self._wire is not None and not self._wire.alive:
            self._transaction = None

    def _idle(self) -> None:
        if self._answer is not None:
            raise Conflict("the session still answers another statement", hint="read or leave that answer first")

    # ----------------------------------------------------------------------------------------------------------- layers

    def layers(self) -> tuple[Layer, ...]:
        self._idle()
        wire = self._connected()
        self._not_failed()
        own = self._transaction is None
        begin = "BEGIN READ ONLY" if own else "SAVEPOINT dblens_layers; SET LOCAL transaction_read_only TO on"
        end = "ROLLBACK" if own else "ROLLBACK TO SAVEPOINT dblens_layers; RELEASE SAVEPOINT dblens_layers"
        known = self._login
        stale = known is None or time.monotonic() - known[0] > _KNOWN
        asks = f"; {ask_login.SQL}" if stale else ""
        try:
            found = wire.lookup(f"{begin}; SELECT pg_catalog.current_setting('transaction_read_only'){asks}")
        finally:
            if wire.alive:
                wire.simple(end)
        if stale:
            known = (time.monotonic(), *ask_login.told([str(row[0]) for row in found[1]]))
            self._login = known
        assert known is not None
        held = found[0] == [("on",)]
        superuser = "superuser" in known[2]
        return (
            Layer(name="login", active=known[1], why=known[2]),
            Layer(
                name="transaction",
                active=held,
                why="each statement in BEGIN READ ONLY of its own, rolled back; it stops neither files, programs, locks nor what acts on other sessions"
                if held
                else "the server did not begin a read-only transaction: is a proxy in between?",
            ),
            Layer(name="protocol", active=True, why="the extended protocol, which takes one statement at a time"),
            Layer(
                name="allow_list",
                active=True,
                why="statements that only read; volatile functions in C or an untrusted language only where they are known to do nothing. "
                "What a function or view calls inside of the server is not seen"
                + (", and with a superuser's rights the server stops nothing of it" if superuser else ""),
            ),
            Layer(
                name="aftercheck",
                active=True,
                why="a read-only statement that was given a transaction id is told as an error, and rolled back",
            ),
        )

    def _not_failed(self) -> None:
        state = self.transaction
        if state is not None and state.failed:
            raise Conflict("the transaction has failed", hint="roll it back, then begin again")

    # ---------------------------------------------------------------------------------------------------------- explain

    def explain(
        self, statement: str, params: Sequence[object] = (), *, analyze: bool = False, limits: Limits = Limits()
    ) -> Explained:
        self._idle()
        text = ask_gate.read(statement)
        if text.first == "EXPLAIN":
            raise InvalidInput("the statement is an EXPLAIN already", hint="explain what it explains")
        used(params, text)
        asked = ask_plan.words(analyze=analyze) + statement[: text.end]
        whole = ask_gate.read(asked)
        ask_gate.reading(whole)
        with self._run(asked, whole, params, read_only=True, limits=limits) as answer:
            raw = "\n".join([str(row[0]) for batch in answer.batches() for row in batch])
        return ask_plan.explained(raw, analyze=analyze)

    # ----------------------------------------------------------------------------------------------------- transactions

    @property
    def transaction(self) -> Transaction | None:
        state, wire = self._transaction, self._wire
        if state is None or wire is None:
            return None
        failed = wire.state == pq.TransactionStatus.INERROR
        return Transaction(read_only=state.read_only, isolation=state.isolation, failed=failed)

    def begin(self, *, read_only: bool = False, isolation: str = "") -> None:
        if self._transaction is not None:
            raise Conflict("a transaction is open already", hint="commit it or roll it back first")
        self._idle()
        level = " ".join(isolation.lower().replace("_", " ").split())
        if level and level not in _ISOLATION:
            raise InvalidInput(f"unknown isolation level: {isolation!r}", hint=f"one of {', '.join(_ISOLATION)}")
        if self._session.reads_only and not read_only:
            raise PermissionDenied("the connection is read-only", hint="begin a read-only transaction")
        wire = self._connected()
        wire.simple(
            f"{wire.pins}BEGIN{f' ISOLATION LEVEL {level.upper()}' if level else ''} {'READ ONLY' if read_only else 'READ WRITE'}; "
            f"SET LOCAL idle_in_transaction_session_timeout TO '{_FORGOTTEN}s'" + ("; SELECT 1" if read_only else "")
            # Once it has read, none makes it READ WRITE. One that writes takes no snapshot yet.
        )
        self._transaction = Transaction(read_only=read_only, isolation=level)

    def commit(self) -> None:
        if self._transaction is None:
            raise Conflict("no transaction is open", hint="begin one first")
        self._idle()
        wire = self._connected()
        self._not_failed()
        try:
            wire.simple("COMMIT")
        except ConnectionFailed as error:
            raise ConnectionFailed(
                f"{error.message}: whether the transaction was committed is not known",
                hint="look at the data before you run it again",
            ) from error
        finally:
            self._transaction = None

    def rollback(self) -> None:
        if self._transaction is None:
            return
        self._idle()
        self._transaction = None
        wire = self._wire
        if wire is None:
            return
        try:
            wire.simple("ROLLBACK")
        except (ConnectionFailed, Cancelled, TimedOut):
            self._drop()  # the server rolls back what a lost connection left

    # ----------------------------------------------------------------------------------------------------------- cancel

    def cancel(self) -> None:
        with self._guard:
            answer = self._answer
        if answer is not None:
            answer.stop("cancelled")


def _comment(tag: str) -> str:
    """Return a tag that no comment ends or nests in: printable, without the signs of comments."""
    plain = "".join([c if c.isprintable() else " " for c in tag])[:_TAG]
    return plain.replace("*", "").replace("/", "|").strip()
