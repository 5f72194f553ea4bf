"""How a session on a SQLite file answers people.

A read-only statement runs on a handle of its own that was opened `mode=ro`, with `query_only`, under an authorizer, in a transaction that is rolled
back. Every statement of a user runs under an authorizer: none attaches files, loads extensions, writes the schema's text or manages transactions.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dblens.engines.asking import Explained, Layer, Limits, Transaction
from dblens.engines.sqlite.ask_plan import tree_of
from dblens.engines.sqlite.ask_run import Running
from dblens.engines.sqlite.driver import BUSY_SECONDS, Db
from dblens.errors import Cancelled, Conflict, InvalidInput, PermissionDenied, TimedOut, Unsupported

if TYPE_CHECKING:
    from dblens.engines.sqlite.session import Session

_ISOLATION = ("deferred", "immediate", "exclusive")


class SqliteAsks:
    """The people's side of a session: its own read-only handle beside the session's, one answer at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()  # between what runs and `cancel`
        self._running: Running | None = None
        self._reader: Db | None = None
        self._beside: Db | None = None  # the session's handle that the reader was opened beside
        self._known = (
            session.live(create=False),
            _identity(session.file()),
        )  # the handle, and the file it was opened on
        self._opening = self._halt = False
        self._seconds: float | None = None  # of the statement that is asked
        self._transaction: Transaction | None = None
        self._explicit: Db | None = None

    def close(self) -> None:
        """Stop what runs and close the handle beside the session."""
        running = self._running
        if running is not None:
            running.close()
        if self._reader is not None and self._reader is not self._beside:
            self._reader.close()
        self._reader = self._explicit = self._transaction = None

    # ---- statements

    def ask(
        self,
        statement: str,
        params: Sequence[object] = (),
        *,
        read_only: bool = True,
        limits: Limits = Limits(),
        tag: str = "",  # noqa: ARG002 - a file keeps no log of statements
    ) -> Running:
        values = tuple(map(_value, params))
        return self._start(statement, values, read_only=read_only, limits=limits)

    def _start(
        self, statement: str, values: tuple[object, ...], *, read_only: bool, limits: Limits, plan: bool = False
    ) -> Running:
        if self._running is not None:
            raise Conflict("this session still gives another answer", hint="read it to its end, or leave it")
        self._seconds = limits.seconds
        if self._transaction is not None:
            assert self._explicit is not None
            if self._transaction.failed or not self._explicit.raw.in_transaction:
                raise Conflict("the transaction was rolled back by SQLite", hint="roll back, then begin again")
            db, own = self._explicit, False
            refuse = read_only or self._transaction.read_only
        else:
            db, own, refuse = (self._reading() if read_only else self._session.live()), True, read_only
        running = Running(db, statement, values, refuse=refuse, own=own, limits=limits, plan=plan, ended=self._ended)
        with self._lock:
            self._running = running
        running.start()
        return running

    def _ended(self, running: Running) -> None:
        with self._lock:
            if self._running is running:
                self._running = None
        if self._transaction is not None and self._explicit is not None and not self._explicit.raw.in_transaction:
            self._transaction = Transaction(
                read_only=self._transaction.read_only, isolation=self._transaction.isolation, failed=True
            )

    def cancel(self) -> None:
        with self._lock:  # held until the interruption is said, so that it reaches no later statement
            if self._running is not None:
                self._running.interrupt()
            elif self._opening:
                self._halt = True

    def _reading(self) -> Db:
        """Return the handle for read-only statements: one of its own on the same file, the session's where there is no file."""
        session = self._session
        db = session.live(create=False)
        if self._reader is not None and self._beside is db:
            return self._reader
        if self._reader is not None and self._reader is not self._beside:
            self._reader.close()
        self._reader, self._beside = db, db
        path = session.file()
        if path is None or session.reads_only():
            return db
        if self._known[0] is not db:  # the session went to another file by itself, after a migration
            self._known = (db, _identity(path))
        reader = self._patiently(path)
        if self._known[1] is None or _identity(path) != self._known[1]:
            reader.close()
            self._reader = None
            raise PermissionDenied(f"{path} was exchanged while it was opened", hint="try again")
        reader.raw.execute("PRAGMA trusted_schema = OFF")
        self._reader = reader
        return reader

    def _patiently(self, path: str) -> Db:
        """Open a read-only handle, in steps that `cancel` can stop, while another process holds the file's lock."""
        until = time.monotonic() + (BUSY_SECONDS if self._seconds is None else min(self._seconds, BUSY_SECONDS))
        self._halt, self._opening = False, True
        try:
            while True:
                try:
                    reader = Db(path, mode="ro", busy_seconds=0.05)
                    break
                except TimedOut:
                    if self._halt:
                        raise Cancelled(f"stopped while {path} was locked by another process") from None
                    if time.monotonic() > until:
                        raise
        finally:
            self._opening = False
        reader.raw.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        return reader

    # ---- what it rests on

    def layers(self) -> tuple[Layer, ...]:
        db = self._reading()
        opened = _opened_read_only(db)
        hard = hasattr(db.raw, "setconfig")
        why = "denies writes, ATTACH, VACUUM INTO, extensions, functions on files, pragmas but a list, and transactions by hand"
        lacking = (
            ""
            if hard
            else "; SQLITE_DBCONFIG_DEFENSIVE cannot be set before Python 3.12 (writes are denied without it)"
        )
        return (
            Layer(name="login", active=False, why="SQLite has no logins"),
            Layer(name="transaction", active=True, why="query_only is on, and the transaction is rolled back"),
            Layer(name="protocol", active=True, why="sqlite3 runs one statement at a time"),
            Layer(name="parser", active=False, why="the server decides; a parser's word is advice"),
            Layer(name="file", active=opened, why="opened with mode=ro" if opened else "a database in memory has no file to open read-only"),
            Layer(name="authorizer", active=True, why=why + lacking),
            Layer(name="allow_list", active=True, why="only pragmas that tell something are run"),
            Layer(name="aftercheck", active=True, why="the number of changes of the handle is compared"),
        )  # fmt: skip

    def explain(
        self, statement: str, params: Sequence[object] = (), *, analyze: bool = False, limits: Limits = Limits()
    ) -> Explained:
        if analyze:
            raise Unsupported("EXPLAIN ANALYZE", "SQLite gives no measured plans")
        values = tuple(map(_value, params))
        running = self._start(f"EXPLAIN QUERY PLAN {statement}", values, read_only=True, limits=limits, plan=True)
        with running:
            rows = [row for batch in running.batches() for row in batch]
        return tree_of(rows, statement)

    # ---- explicit transactions

    def begin(self, *, read_only: bool = False, isolation: str = "") -> None:
        if self._transaction is not None:
            raise Conflict("there is a transaction already", hint="commit it or roll it back")
        if self._running is not None:
            raise Conflict("this session still gives another answer", hint="read it to its end, or leave it")
        kind = isolation.strip().lower() or "deferred"
        if kind not in _ISOLATION or (read_only and kind != "deferred"):
            known = "deferred" if read_only else ", ".join(_ISOLATION)
            raise InvalidInput(f"{isolation!r} is no kind of transaction here", hint=f"one of {known}")
        db = self._reading() if read_only else self._session.live()
        if db.raw.in_transaction:
            raise Conflict("this session is in a snapshot or a transaction already", hint="end it first")
        db.run(f"BEGIN {kind.upper()}")
        if read_only:
            db.rows("SELECT count(*) FROM main.sqlite_schema")  # now it sees one state of the file until its end
        self._explicit = db
        self._transaction = Transaction(read_only=read_only, isolation=kind)

    def commit(self) -> None:
        db = self._over("commit")
        if self._transaction is not None and (self._transaction.failed or not db.raw.in_transaction):
            raise Conflict("the transaction was rolled back by SQLite", hint="roll back, then begin again")
        db.run("ROLLBACK" if self._transaction is not None and self._transaction.read_only else "COMMIT")
        self._explicit = self._transaction = None

    def rollback(self) -> None:
        if self._transaction is None:
            return
        db = self._over("roll back")
        if db.raw.in_transaction:
            db.run("ROLLBACK")
        self._explicit = self._transaction = None

    def _over(self, what: str) -> Db:
        if self._transaction is None or self._explicit is None:
            raise Conflict(f"there is no transaction to {what}", hint="begin one")
        if self._running is not None:
            self._running.close()
        return self._explicit

    @property
    def transaction(self) -> Transaction | None:
        return self._transaction


def asks(session: Any) -> SqliteAsks:
    """Return the people's side of a session, the same one each time."""
    if session.asks is None:
        session.asks = SqliteAsks(session)
    found: SqliteAsks = session.asks
    return found


def _identity(path: str | None) -> tuple[int, int] | None:
    try:
        found = os.lstat(os.path.realpath(path)) if path is not None else None
    except OSError:
        return None
    if found is None:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _opened_read_only(db: Db) -> bool:
    """Return whether the file itself refuses a transaction that writes, `query_only` left aside."""
    if db.path == ":memory:" or db.raw.in_transaction:
        return db.path != ":memory:"
    before = db.one("PRAGMA query_only")
    db.run("PRAGMA query_only = OFF")
    try:
        db.raw.execute("BEGIN")
        db.raw.execute(f"PRAGMA user_version = {int(db.one('PRAGMA user_version'))}")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
    else:
        return False
    finally:
        if db.raw.in_transaction:
            db.run("ROLLBACK")
        db.run(f"PRAGMA query_only = {'ON' if before else 'OFF'}")


def _value(value: object) -> object:
    """Return a parameter as SQLite stores it: what it has no class for, as its canonical text."""
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case bytearray() | memoryview():
            return bytes(value)
        case Decimal():
            return format(value, "f")
        case dt.datetime():
            zone = value.tzinfo is not None
            value = value.astimezone(dt.UTC).replace(tzinfo=None) if zone else value
            text = value.isoformat(" ")
            return (text.rstrip("0") if "." in text else text) + ("Z" if zone else "")
        case dt.date():
            return value.isoformat()
        case dt.time():
            text = value.isoformat()
            return text.rstrip("0") if "." in text else text
        case UUID():
            return str(value)
    raise InvalidInput(
        f"a {type(value).__name__} is no value of a parameter", hint="a number, a text, bytes, a date or None"
    )
