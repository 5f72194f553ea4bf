"""One statement of a user while it runs: its guard, its rows, and how it is stopped."""

from __future__ import annotations

import contextlib
import operator
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from dblens.engines.access.files import sqlite_authorizer
from dblens.engines.asking import Limits, Out
from dblens.engines.sqlite.ask_types import Column
from dblens.engines.sqlite.driver import BUSY_SECONDS, Db, translated
from dblens.errors import Cancelled, Conflict, DBLensError, InvalidInput, PermissionDenied, QueryFailed, TimedOut

_CHUNK = 8
"""Rows fetched before their size is looked at again: so many cells of the largest size are the most that comes unforeseen."""
_HEAD_ROWS, _HEAD_SECONDS = 256, 0.02
"""The rows that decide the types of columns without declared ones: those that come at once."""
_OPCODES = 50_000
"""Between two looks whether the statement was stopped: about a millisecond."""
_BUSY_STEP = 0.05
_LENGTH = 128 * 1024 * 1024
_DEFENSIVE = 1010
"""SQLITE_DBCONFIG_DEFENSIVE."""
_GAP = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+"
_ALONE = re.compile(rf"{_GAP}(?:VACUUM|PRAGMA)\b", re.IGNORECASE | re.DOTALL)
"""Statements that run by themselves: within a transaction they are refused or do nothing."""
_TEXT = operator.methodcaller("decode", "utf-8", "surrogateescape")
_VACUUM = re.compile(rf"{_GAP}VACUUM\b", re.IGNORECASE | re.DOTALL)
_NOTHING = re.compile(rf"(?:{_GAP};?)*+", re.DOTALL)
_QUERY = re.compile(rf"{_GAP}(?:SELECT|WITH|VALUES)\b", re.IGNORECASE | re.DOTALL)
_ANYTHING = re.compile(
    r"'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|`(?:[^`]|``)*+`|\[[^\]]*+\]|--[^\n]*+|/\*.*?(?:\*/|\Z)|(\?\d*+)", re.DOTALL
)
"""What may hold a question mark that is no parameter, and a parameter."""
_STRICT, _LOOSE = sqlite_authorizer(read_only=True), sqlite_authorizer(read_only=False)
_ACTIONS = {
    getattr(sqlite3, f"SQLITE_{name}"): name.replace("_", " ")
    for name in (
        "ATTACH", "DETACH", "FUNCTION", "PRAGMA", "INSERT", "UPDATE", "DELETE", "CREATE_INDEX", "CREATE_TABLE", "CREATE_TRIGGER", "CREATE_VIEW",
        "DROP_INDEX", "DROP_TABLE", "DROP_TRIGGER", "DROP_VIEW", "ALTER_TABLE", "REINDEX", "ANALYZE", "CREATE_VTABLE", "DROP_VTABLE",
    )
}  # fmt: skip
_DRIVERS = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)


class Running:
    """A statement that runs, or ran: the contract's `Answer`."""

    def __init__(
        self,
        db: Db,
        statement: str,
        values: Sequence[object],
        *,
        refuse: bool,
        own: bool,
        limits: Limits,
        plan: bool,
        ended: Callable[[Running], None],
    ) -> None:
        self._db, self._raw = db, db.raw
        self._statement, self._values = statement, values
        self._refuse, self._own, self._limits, self._plan = refuse, own, limits, plan
        self._tell_end = ended
        self._cursor: sqlite3.Cursor | None = None
        self._columns: tuple[Column, ...] = ()
        self._head: list[tuple[Any, ...]] = []
        self._began = time.monotonic()
        self._stopped = ""  # why
        self._denied = ""
        self._over = False
        self._natives: list[str] = []
        self._restore: list[Callable[[], object]] = []
        self._changes = 0
        self._rows = 0
        self.affected: int | None = None
        self.notices: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[Out, ...]:
        return tuple(column.out for column in self._columns)

    # ---- stopping

    def interrupt(self) -> None:
        """Stop it, from any thread. The caller makes sure that it is still the one that runs."""
        self._stopped = self._stopped or "cancelled"
        with contextlib.suppress(sqlite3.Error):
            self._raw.interrupt()

    def _look(self) -> int:
        """Say whether SQLite shall stop. Called between opcodes: an interruption that came before the first one is lost otherwise."""
        if not self._stopped and self._late():
            self._stopped = "late"
        return 1 if self._stopped else 0

    def _late(self) -> bool:
        seconds = self._limits.seconds
        return seconds is not None and time.monotonic() - self._began > seconds

    # ---- running

    def start(self) -> None:
        """Prepare and run it, and read the rows that come at once. What fails leaves the handle as it was."""
        try:
            if "\0" in self._statement:
                raise InvalidInput("the statement holds a NUL character", hint="leave it out")
            if _NOTHING.fullmatch(self._statement):
                raise InvalidInput("there is no statement in the text")
            self._prepare_handle()
            self._open()
            assert self._cursor is not None
            described = self._cursor.description
            if described is None:
                self._finish()
                return
            names = [str(each[0]) for each in described]
            self._head, finished = self._read_head()
            natives = self._natives if len(self._natives) == len(names) else [""] * len(names)
            heads = zip(*self._head, strict=True) if self._head else [()] * len(names)
            self._columns = tuple(Column(n, t, c) for n, t, c in zip(names, natives, heads, strict=True))
            if finished:
                self._finish()
        except BaseException as error:
            self.close()
            if isinstance(error, _DRIVERS):
                raise self._meant(error) from error
            raise

    def _prepare_handle(self) -> None:
        raw, restore = self._raw, self._restore
        raw.text_factory = _TEXT
        if self._refuse and not self._db.one("PRAGMA query_only"):
            self._db.run("PRAGMA query_only = ON")
            restore.append(lambda: raw.execute("PRAGMA query_only = OFF"))
        if self._db.one("PRAGMA trusted_schema"):
            self._db.run("PRAGMA trusted_schema = OFF")
            restore.append(lambda: raw.execute("PRAGMA trusted_schema = ON"))
        config: Any = raw
        if hasattr(config, "setconfig"):  # Python 3.12
            before = config.getconfig(_DEFENSIVE)
            config.setconfig(_DEFENSIVE, True)
            restore.append(lambda: config.setconfig(_DEFENSIVE, before))
        if self._refuse:
            # Above the cap: a cell a little over it is named with its column and row, a larger one never comes into memory. Never low:
            # printf() answers NULL, without an error, when its text would be longer than the limit.
            longest = max((len(v) for v in self._values if isinstance(v, str | bytes)), default=0)
            most = raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(2 * self._limits.cell, 4 * longest, _LENGTH))
            restore.append(lambda: raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most))
        busy = int(self._db.one("PRAGMA busy_timeout"))
        # SQLite waits for locks without looking up; waiting in steps of ours can be stopped.
        self._db.run(f"PRAGMA busy_timeout = {int(_BUSY_STEP * 1000)}")
        restore.append(lambda: raw.execute(f"PRAGMA busy_timeout = {busy}"))
        raw.set_progress_handler(self._look, _OPCODES)
        restore.append(lambda: raw.set_progress_handler(None, 0))

    def _open(self) -> None:
        """Run it to its first row, again and again while another process holds the lock."""
        own = self._own and (self._refuse or _ALONE.match(self._statement) is None)
        if self._own and self._raw.in_transaction:
            raise Conflict("this session is in a snapshot or a transaction already", hint="end it first")
        while True:
            try:
                if own:
                    self._raw.execute("BEGIN")
                if not self._plan and _QUERY.match(self._statement):
                    self._natives = self._described()
                self._changes = self._raw.total_changes
                self._raw.set_authorizer(self._authorize)
                self._cursor = self._raw.execute(self._statement, self._values)
            except sqlite3.OperationalError as error:
                self._raw.set_authorizer(None)
                code = error.sqlite_errorcode or 0
                if own and self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                waits = code & 0xFF == sqlite3.SQLITE_BUSY and (own or code != sqlite3.SQLITE_BUSY_SNAPSHOT)
                if not waits or time.monotonic() - self._began > BUSY_SECONDS or self._look():
                    raise
            else:
                return

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, inner: str | None
    ) -> int:
        if (
            not self._refuse
            and _VACUUM.match(self._statement)
            and (
                action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_DETACH)
                or (action == sqlite3.SQLITE_ATTACH and not first)
            )
        ):
            return sqlite3.SQLITE_OK  # VACUUM's own scratch; VACUUM INTO attaches a file by its name
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT):
            self._denied = "transaction"
            return sqlite3.SQLITE_DENY
        # A plan writes nothing, so a change may be explained; but pragmas act while they are prepared.
        strict = action == sqlite3.SQLITE_PRAGMA if self._plan else self._refuse
        answer = (_STRICT if strict else _LOOSE)(action, first, second, schema, inner)
        if answer != sqlite3.SQLITE_OK and not self._denied:
            self._denied = " ".join(word for word in (_ACTIONS.get(action, ""), first, second) if word)
        return answer

    def _described(self) -> list[str]:
        """Return the declared types of a query's columns, `""` where there is none: SQLite tells those of a view's columns.

        The view lies in the handle's own temporary schema, for as long as it takes to ask. Nothing of the query is run.
        """
        raw = self._raw
        quiet = bool(self._db.one("PRAGMA query_only"))
        if quiet:
            raw.execute("PRAGMA query_only = OFF")
        raw.set_authorizer(_describing)
        try:
            text = (
                _ANYTHING.sub(lambda m: "NULL" if m[1] else m[0], self._statement) if self._values else self._statement
            )
            raw.execute(f"CREATE TEMP VIEW _dblens_answer AS {text}")
            try:
                return [str(row[2] or "") for row in raw.execute("PRAGMA temp.table_xinfo(_dblens_answer)").fetchall()]
            finally:
                raw.execute("DROP VIEW temp._dblens_answer")
        except (sqlite3.Error, sqlite3.Warning) as error:
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise
            return []  # what is wrong with it is said when it runs
        finally:
            raw.set_authorizer(None)
            if quiet:
                raw.execute("PRAGMA query_only = ON")

    # ---- rows

    def _read_head(self) -> tuple[list[tuple[Any, ...]], bool]:
        assert self._cursor is not None
        rows: list[tuple[Any, ...]] = []
        until = time.monotonic() + _HEAD_SECONDS
        octets = 0
        while len(rows) < min(_HEAD_ROWS, self._limits.rows) and octets < self._limits.octets:
            some = self._cursor.fetchmany(min(_CHUNK, len(rows) + 1))
            if not some:
                return rows, True
            rows += some
            octets += _size(some)
            if time.monotonic() > until:
                break
        return rows, False

    def _more(self) -> list[tuple[Any, ...]]:
        if self._look():
            raise self._interruption()
        assert self._cursor is not None
        fetch, most, octets = self._cursor.fetchmany, self._limits.rows, self._limits.octets
        rows: list[tuple[Any, ...]] = []
        size = 0
        getsizeof, full = sys.getsizeof, most - _CHUNK
        while len(rows) < most and size < octets:
            some = fetch(_CHUNK if len(rows) <= full else most - len(rows))
            if not some:
                self._finish()
                break
            rows += some
            size += _CHUNK * sum(map(getsizeof, some[-1]))
        return rows

    def _given(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        stored = list(zip(*rows, strict=True))
        given = [c.values(v, self._limits.cell, self._rows + 1) for c, v in zip(self._columns, stored, strict=True)]
        self._rows += len(rows)
        return rows if all(a is b for a, b in zip(stored, given, strict=True)) else list(zip(*given, strict=True))

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows, once. Raises QueryFailed, Cancelled, TimedOut, InvalidInput for a cell over the cap."""
        try:
            rows, self._head = self._head, []
            while rows:
                yield self._given(rows)
                rows = [] if self._over else self._more()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.close()
            if isinstance(error, _DRIVERS):
                raise self._meant(error) from error
            raise

    # ---- the end

    def _finish(self) -> None:
        """All rows were read: commit what is to be kept, and look whether what was to be read only did so."""
        assert self._cursor is not None
        counted, changed = self._cursor.rowcount, self._raw.total_changes != self._changes
        self._cursor.close()
        self._raw.set_authorizer(None)
        if self._refuse and changed:
            raise PermissionDenied("the statement changed rows although it was to read only; that was rolled back")
        if not self._refuse:
            self.affected = int(self._db.one("SELECT changes()")) if changed else counted if counted >= 0 else None
            if self._own and self._raw.in_transaction:
                self._commit()
        self._leave()

    def _commit(self) -> None:
        while True:
            try:
                self._raw.execute("COMMIT")
            except sqlite3.OperationalError as error:
                busy = (error.sqlite_errorcode or 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() - self._began > BUSY_SECONDS or self._look():
                    raise
            else:
                return

    def _leave(self) -> None:
        """Leave the handle as it was found. No interruption can come any more, so that nothing of this is stopped half-way."""
        if self._over:
            return
        self._over = True
        self._tell_end(self)
        self._raw.set_authorizer(None)
        if self._own and self._raw.in_transaction:
            self._raw.execute("ROLLBACK")
        for restore in reversed(self._restore):
            restore()

    def close(self) -> None:
        """Stop it where it still runs, undo what it did not finish, and free the session."""
        if self._over:
            return
        if self._cursor is not None:
            self._cursor.close()
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- errors

    def _interruption(self) -> DBLensError:
        if self._stopped == "late":
            return TimedOut(
                f"the statement took longer than {self._limits.seconds:.3g} s: {self._statement[:200]!r}",
                hint="narrow the query, or allow more time",
            )
        return Cancelled(f"stopped: {self._statement[:200]!r}")

    def _meant(self, error: Exception) -> DBLensError:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        said = str(error)
        if self._stopped and code in (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY):
            return self._interruption()
        if self._denied == "transaction":
            return InvalidInput(
                "the statement manages transactions", hint="begin, commit and roll back by their own calls"
            )
        if self._denied and (code == sqlite3.SQLITE_AUTH or "not authorized" in said or "prohibited" in said):
            where = "in a read-only query" if self._refuse else "in a query"
            return PermissionDenied(
                f"{self._denied} is not allowed {where}", hint="SQLite refused it before anything ran"
            )
        match code:
            case sqlite3.SQLITE_READONLY if self._refuse:
                return PermissionDenied(
                    f"the statement would write, and the query is read-only: {said}",
                    hint="ask for a query that may write",
                )
            case sqlite3.SQLITE_TOOBIG:
                return InvalidInput(
                    f"row {self._rows + len(self._head) + 1} or later holds a value of more than {max(2 * self._limits.cell, _LENGTH)} octets",
                    hint="take a part of it: substr(column, 1, 1000)",
                )
        if "one statement at a time" in said:
            return InvalidInput("the text holds more than one statement", hint="ask them one by one")
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError) or "binding" in said:
            return InvalidInput(f"the parameters do not fit: {said}", hint="give one value for each place")
        if isinstance(error, ValueError) and not isinstance(error, UnicodeEncodeError):
            return InvalidInput(f"the statement cannot be asked: {said}")
        known = translated(error, self._db.path, self._statement)
        return known if not isinstance(known, QueryFailed) else QueryFailed(said)


def _size(rows: list[tuple[Any, ...]]) -> int:
    """Return about how many octets a few rows take: those of the last of them, for each."""
    return len(rows) * sum(map(sys.getsizeof, rows[-1]))


def _describing(action: int, first: str | None, second: str | None, schema: str | None, inner: str | None) -> int:
    """Authorize what describing a query needs: one temporary view, and telling its columns."""
    match action:
        case sqlite3.SQLITE_CREATE_TEMP_VIEW | sqlite3.SQLITE_DROP_TEMP_VIEW:
            return sqlite3.SQLITE_OK if first == "_dblens_answer" else sqlite3.SQLITE_DENY
        case sqlite3.SQLITE_INSERT | sqlite3.SQLITE_UPDATE | sqlite3.SQLITE_DELETE if schema == "temp":
            named = first in ("sqlite_temp_master", "sqlite_temp_schema", "_dblens_answer")
            return sqlite3.SQLITE_OK if named else sqlite3.SQLITE_DENY
    return _STRICT(action, first, second, schema, inner)
