"""How a session on MySQL or MariaDB answers people.

It has a connection of its own, opened with the first question and always through pymysql (see `ask_wire`): a tab's variables, a read-only
state or a killed statement never reach what copies and proves. Before every statement it puts back what the answer's meaning
rests on (sql_mode, time zone, character sets), whatever ran before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pymysql
from pymysql.constants import CLIENT

from dblens.engines.asking import Answer, Explained, Layer, Lexis, Limits, Transaction
from dblens.engines.mysql import ask_gate, ask_login, ask_plan, ask_values
from dblens.engines.mysql.ask_answer import SERVER, MySQLAnswer
from dblens.engines.mysql.ask_wire import Done, Wire
from dblens.engines.mysql.driver import SQL_MODE, Link
from dblens.errors import (
    Conflict,
    ConnectionFailed,
    DBLensError,
    InvalidInput,
    PermissionDenied,
    QueryFailed,
)

if TYPE_CHECKING:
    from dblens.engines.mysql.session import MySQLSession

LEXIS: Final = Lexis(
    dialect="mysql",
    placeholder="format",
    identifier_quotes="`",
    string_quotes="'\"",
    backslash_escapes=True,
    hash_comments=True,
    dashes_need_space=True,
    executed_comments=True,
    delimiter_command=True,
)
_ISOLATION: Final = ("read uncommitted", "read committed", "repeatable read", "serializable")
_IDLE: Final = 10.0
"""Seconds after which a connection that is used again is first asked whether it lives."""
_TRANSACTION_GONE = "the connection was lost, and with it the transaction"


def ask(session: Any) -> MySQLAsks:
    """Return how a session answers. What an earlier user of the session left in it (variables, temporary tables, locks) is gone."""
    kept: MySQLAsks | None = session.asking
    if kept is None:
        kept = session.asking = MySQLAsks(session)
    else:
        kept.clean()
    return kept


class MySQLAsks:
    """A session, as people ask it; see `dblens.engines.asking.Asks`."""

    def __init__(self, session: MySQLSession) -> None:
        self._session = session
        self._maria = session.flavour == "mariadb"
        self._link: Link | None = None
        self._wire: Wire | None = None
        self._used = 0.0
        self._server = ""  # which of perhaps several behind one name this connection leads to
        self._touched = False  # something other than a read-only statement ran: variables, tables, locks may be there
        self._answer: MySQLAnswer | None = None
        self._guard = threading.RLock()
        self._transaction: Transaction | None = None

    def __repr__(self) -> str:
        return f"MySQLAsks({self._session!r})"

    # --------------------------------------------------------------------------------------------------------- connection

    def _connected(self) -> Link:
        """Return the connection, opened or opened again where that loses nothing."""
        if self._link is not None and time.monotonic() - self._used > _IDLE and self._answer is None:
            try:
                self._link.raw.ping(reconnect=False)
            except (pymysql.MySQLError, OSError):
                self._drop()
        if self._link is None or self._link.raw._sock is None:
            if self._transaction is not None:
                self._transaction = None
                raise ConnectionFailed(_TRANSACTION_GONE, hint="begin again: nothing of it was written")
            self._link = self._session.another_link(found_rows=True)
            self._wire = Wire(self._link.raw)
            self._touched = False
            self._used = time.monotonic()
            self._server = str(self._lookup(SERVER)[0])
        self._used = time.monotonic()
        return self._link

    def _drop(self) -> None:
        """Give the connection up; the next statement opens another."""
        if self._link is not None:
            self._link.close()
        self._link = self._wire = None

    def close(self) -> None:
        """Leave the server."""
        answer = self._answer
        self._drop()
        if answer is not None:
            answer._over = True
            self._answer = None
        self._transaction = None

    def clean(self) -> None:
        """Roll back what is open and forget variables, temporary tables and locks: the session is as if new."""
        if self._answer is not None:
            self._answer.__exit__(None, None, None)
        if self._link is None:
            self._transaction = None
            return
        if self._transaction is not None or self._touched:
            self._transaction = None
            self._reset()

    def _reset(self) -> None:
        """COM_RESET_CONNECTION, which both servers know; a connection that cannot is given up."""
        from dblens.engines.mysql.driver import SESSION

        link = self._link
        if link is None:
            return
        try:
            link.raw._execute_command(0x1F, b"")
            link.raw._read_ok_packet()
            link.raw.select_db(self._session.database)
            self._simple("set names utf8mb4")
            self._simple(SESSION)
            self._touched = False
        except (pymysql.MySQLError, OSError, DBLensError):
            self._drop()

    def _simple(self, statement: str) -> Done:
        """Run a statement of ours that returns no rows."""
        link = self._connected()
        wire = self._wire
        assert wire is not None
        with link._guard(statement):
            wire.query(statement.encode())
            assert wire.done is not None
            return wire.done

    def _lookup(self, statement: str) -> list[tuple[str | None, ...]]:
        """Run a query of ours and return its rows as texts."""
        link = self._connected()
        wire = self._wire
        assert wire is not None
        with link._guard(statement):
            wire.query(statement.encode())
            found = [row for batch in wire.batches(1000, 1 << 20, 1 << 24) for row in batch]
        return [tuple([None if v is None else v.decode("utf-8", "replace") for v in row]) for row in found]

    # ---------------------------------------------------------------------------------------------------------- statements

    def ask(
        self,
        statement: str,
        params: Sequence[object] = (),
        *,
        read_only: bool = True,
        limits: Limits = Limits(),
        tag: str = "",
    ) -> Answer:
        if self._answer is not None:
            raise Conflict("the session still answers another statement", hint="read or leave that answer first")
        self._connected()
        bound = ask_values.bound(statement, params)
        text = ask_gate.read(bound)
        ask_gate.managed(text, within=self._transaction is not None)
        if read_only:
            ask_gate.reading(text)
        return self._run(bound[: text.end], read_only=read_only, limits=limits, tag=tag)

    def _run(self, statement: str, *, read_only: bool, limits: Limits, tag: str = "") -> MySQLAnswer:
        own = self._transaction is None
        if read_only and self._transaction is not None and not self._transaction.read_only:
            raise Conflict(
                "a read-only statement runs in a transaction of its own, and one that may write is open",
                hint="commit it or roll it back first, or run this as a write",
            )
        answer = MySQLAnswer(self, read_only=read_only, own=own, limits=limits)
        with self._guard:
            self._answer = answer
        try:
            answer._start(statement, tag)
        except BaseException:
            answer._end(failed=True)
            raise
        return answer

    def _prepare(self, answer: MySQLAnswer) -> None:
        """Put the session into the state that a statement needs."""
        seconds = answer.limits.seconds
        state = f"sql_mode = '{SQL_MODE}', time_zone = '+00:00', character_set_client = utf8mb4, character_set_results = utf8mb4, character_set_connection = utf8mb4"
        if self._maria:
            state += f", max_statement_time = {0 if seconds is None else max(seconds, 0.001):.3f}"
        else:
            state += f", max_execution_time = {0 if seconds is None else max(round(seconds * 1000), 1)}"
        if answer.own:
            name = "tx_read_only" if self._maria else "transaction_read_only"
            state += f", autocommit = 1, {name} = {int(answer.read_only)}"
        self._simple(f"set session {state}")
        if answer.own and answer.read_only:
            done = self._simple("start transaction read only")
            if not done.in_read_only:
                raise QueryFailed(
                    "the server did not begin a read-only transaction", hint="nothing was run; is a proxy in between?"
                )

    # -------------------------------------------------------------------------------------------------------------- layers

    def layers(self) -> tuple[Layer, ...]:
        if self._answer is not None:
            raise Conflict("the session still answers another statement", hint="read or leave that answer first")
        link = self._connected()
        granted = [str(row[0]) for row in self._lookup("show grants")]
        read, why = ask_login.only_reads(granted)
        if self._transaction is None:
            self._simple("start transaction read only")
            status = self._simple("do 0")
            self._simple("rollback")
        else:
            status = self._simple("do 0")
        multiple = bool(link.raw.client_flag & CLIENT.MULTI_STATEMENTS)
        return (
            Layer(name="login", active=read, why=why),
            Layer(
                name="transaction",
                active=status.in_read_only,
                why="START TRANSACTION READ ONLY in a session that is READ ONLY, rolled back; it stops neither files, global variables nor locks"
                if status.in_read_only
                else "the transaction that is open may write",
            ),
            Layer(name="protocol", active=not multiple, why="the connection takes one statement at a time"),
            Layer(
                name="allow_list",
                active=True,
                why="statements that only read, without INTO, locks and functions that act; stored functions and views run with their makers' rights",
            ),
            Layer(
                name="aftercheck",
                active=status.in_read_only,
                why="with each answer the server says whether the read-only transaction still holds; it counts no writes",
            ),
        )

    # ------------------------------------------------------------------------------------------------------------- explain

    def explain(
        self, statement: str, params: Sequence[object] = (), *, analyze: bool = False, limits: Limits = Limits()
    ) -> Explained:
        if self._answer is not None:
            raise Conflict("the session still answers another statement", hint="read or leave that answer first")
        self._connected()
        bound = ask_values.bound(statement, params)
        text = ask_gate.read(bound)
        ask_gate.managed(text, within=False)
        writes = text.words[:1] and text.words[0] in ("INSERT", "UPDATE", "DELETE", "REPLACE") and not text.executed
        if analyze or not writes:
            ask_gate.reading(text)
        words = ask_plan.words(self._maria, analyze=analyze)
        asked = f"{words} {bound[: text.end]}"
        read_only = analyze or not writes
        within = self._transaction is not None and not self._transaction.read_only
        if not read_only and self._transaction is not None and self._transaction.read_only:
            raise PermissionDenied("the open transaction is read-only", hint="roll it back first")
        if writes and not self._maria:
            with contextlib.suppress(
                DBLensError
            ):  # the second version knows no plans of writes; before 8.3 there is only the first
                self._simple("set session explain_json_format_version = 1")
        with self._run(asked, read_only=read_only and not within, limits=limits) as answer:
            raw = "\n".join(str(row[0]) for batch in answer.batches() for row in batch)
        if writes and not self._maria:
            with contextlib.suppress(DBLensError):
                self._simple("set session explain_json_format_version = default")
        return ask_plan.explained(raw, maria=self._maria, analyze=analyze)

    # -------------------------------------------------------------------------------------------------------- transactions

    @property
    def transaction(self) -> Transaction | None:
        return self._transaction

    def begin(self, *, read_only: bool = False, isolation: str = "") -> None:
        if self._transaction is not None:
            raise Conflict("a transaction is open already", hint="commit it or roll it back first")
        if self._answer is not None:
            raise Conflict("the session still answers another statement", hint="read or leave that answer first")
        level = " ".join(isolation.lower().replace("_", " ").split())
        if level and level not in _ISOLATION:
            raise InvalidInput(f"unknown isolation level: {isolation!r}", hint=f"one of {', '.join(_ISOLATION)}")
        self._connected()
        name = "tx_read_only" if self._maria else "transaction_read_only"
        self._simple(f"set session autocommit = 1, sql_mode = '{SQL_MODE}', {name} = {int(read_only)}")
        if level:
            self._simple(f"set transaction isolation level {level}")
        self._simple(f"start transaction {'read only' if read_only else 'read write'}")
        self._transaction = Transaction(read_only=read_only, isolation=level)

    def commit(self) -> None:
        if self._transaction is None:
            raise Conflict("no transaction is open", hint="begin one first")
        self._idle()
        try:
            self._simple("commit")
        except ConnectionFailed as error:
            self._drop()
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
        if self._link is None:
            return
        try:
            self._simple("rollback")
        except DBLensError:
            self._drop()  # the server rolls back what a lost connection left

    def _idle(self) -> None:
        if self._answer is not None:
            raise Conflict("the session still answers another statement", hint="read or leave that answer first")

    # -------------------------------------------------------------------------------------------------------------- cancel

    def cancel(self) -> None:
        answer = self._answer
        if answer is not None:
            answer._stop("cancelled")

    def _ended(self, answer: MySQLAnswer) -> None:
        with self._guard:
            if self._answer is answer:
                self._answer = None
