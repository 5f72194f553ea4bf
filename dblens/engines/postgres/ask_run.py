"""One statement that runs: sent, its rows taken as they come, stopped on the server, its transaction ended.

Rows stream out of the statement itself, not out of a cursor: any statement that returns rows does, and the server's own time limit
counts for all of it. What is not read yet waits in the server, which stops sending. Where a row has no bound, rows come one by one
(memory holds one row and a batch), otherwise in parts of what fills the server's own buffer.

Stopping: a cancel is sent only while something of this answer is on the server, and under a guard that its end takes too. So none is
sent for what ended; one that came too late is swallowed by the next round trip, before another statement may run. A cancel that meets
the server between two of our messages is lost there: it is sent again until the answer is over.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from dblens.engines.asking import Limits, Out
from dblens.engines.postgres import ask_gate, ask_types, ask_wrap
from dblens.engines.postgres.ask_gate import Read
from dblens.engines.postgres.ask_types import Column
from dblens.engines.postgres.ask_values import Given, Reader, Rows, minor_digits
from dblens.engines.postgres.ask_wire import COPIES, Cells, Status, Wire, cells, shape
from dblens.errors import (
    Cancelled,
    Conflict,
    ConnectionFailed,
    DBLensError,
    InvalidInput,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)

if TYPE_CHECKING:
    from dblens.engines.postgres.ask import PostgresAsks

Why = Literal["", "cancelled", "late", "left"]
Bounds = Literal["own", "point", "none"]
"""How a statement is kept apart: in a transaction of its own, behind a savepoint of the open one, or not at all."""

_PART: Final = 64
"""Rows of a part: so many narrow ones fill what the server sends at once."""
_PART_OCTETS: Final = 256 * 1024
_FIRST: Final = 256
"""Rows of the first batch, at most."""
_WAIT: Final = 0.05
"""Seconds after which a batch goes out as it is when the server pauses."""
_QUICK: Final = 0.003
"""Seconds that an answer which is left may take to end by itself, before it is cancelled."""
_STEPS: Final = (0.05, 0.1, 0.15, 0.2, 0.2, 0.2)
"""Seconds to wait after each cancel."""
_LATE: Final = 5.0
"""Seconds after its deadline when a statement that no cancel stops loses its connection."""
_GRACE: Final = 0.25
"""Seconds that the server's own limit lies before ours."""
_POINT: Final = "dblens_read_only"


class PostgresAnswer:
    """A statement that runs; see `dblens.engines.asking.Answer`."""

    def __init__(self, asks: PostgresAsks, wire: Wire, *, read_only: bool, bounds: Bounds, limits: Limits) -> None:
        self._asks, self._wire, self.read_only, self.bounds, self.limits = asks, wire, read_only, bounds, limits
        self._columns: tuple[Column, ...] = ()
        self._outs: tuple[Out, ...] = ()
        self._unbound: tuple[int, ...] = ()
        self._reader: Reader | None = None
        self.affected: int | None = None
        self._notices: list[str] = []
        self._text: Read | None = None
        self._statement = ""
        self._offset = 0  # of the statement in what was sent
        self._wraps = False
        self._part: Any = None  # a result that was taken and not read yet
        self._got = 0
        self._fixed = 0  # octets of a row that have a bound
        self._guard = threading.Lock()  # between stopping and the end
        self._reading = threading.RLock()  # whoever takes results
        self._why: Why = ""
        self._on_server = self._ended = self._cancels = False
        self._over = threading.Event()
        self._timer: threading.Timer | None = None
        self._begun = time.monotonic()
        self._before: str | None = None  # the id that the open transaction had

    # ------------------------------------------------------------------------------------------------------- what it is

    @property
    def columns(self) -> tuple[Out, ...]:
        return self._outs

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(self._notices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    # ------------------------------------------------------------------------------------------------------------ start

    def start(self, statement: str, text: Read, params: Given, tag: str) -> None:
        """Send it, and wait until its columns are known."""
        self._statement, self._text = statement, text
        seconds = self.limits.seconds
        if seconds is not None:
            if seconds <= 0:
                raise TimedOut("no time is left for the statement", hint="raise the limit")
            self._timer = threading.Timer(seconds, self.stop, ("late",))
            self._timer.daemon = True
            self._timer.start()
        self._wire.link.db.add_notice_handler(self._notice)
        try:
            self._prelude()
            with self._reading:
                self._run(statement, text, params, tag)
        except BaseException as error:
            raised = self._failed(error)
            self.leave()
            if raised is error:
                raise
            raise raised from error

    def _prelude(self) -> None:
        wire, seconds = self._wire, self.limits.seconds
        timeout = 0 if seconds is None else max(1, int((seconds - min(_GRACE, seconds / 4)) * 1000))
        match self.bounds:
            case "own":
                # The query pins the transaction: none makes it READ WRITE once it has read.
                begun = wire.lookup(
                    f"BEGIN READ ONLY; {_locally(wire.pins)}SET LOCAL statement_timeout TO {timeout}; "
                    "SET LOCAL idle_in_transaction_session_timeout TO 60000; "
                    "SELECT pg_catalog.current_setting('transaction_read_only')"
                )
            case "point":
                begun = wire.lookup(
                    f"SAVEPOINT {_POINT}; {_locally(wire.pins)}SET LOCAL transaction_read_only TO on; SET LOCAL statement_timeout TO {timeout}; "
                    "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text; "
                    "SELECT pg_catalog.current_setting('transaction_read_only')"
                )
                self._before = begun[0][0][0]
            case "none":
                local = "LOCAL " if self._asks.transaction is not None else ""
                wire.simple(f"{wire.pins}SET {local}statement_timeout TO {timeout}")
                begun = [[("on",)]]
                wire.touched = True
        if begun[-1] != [("on",)]:
            raise QueryFailed(
                "the server did not begin a read-only transaction", hint="nothing was run; is a proxy in between?"
            )

    def _run(self, statement: str, text: Read, params: Given, tag: str) -> None:
        wire, lead = self._wire, f"/* {tag} */ " if tag else ""
        self._send(lambda: wire.prepare(statement, params.types))
        wire.all()
        self._send(wire.describe)
        described = [r for r in wire.all() if r.status == Status.COMMAND_OK]
        self._describe(described[0] if described else None, text)
        self._wraps = ask_wrap.wraps(text, self._columns)
        sent, rows = statement, self._rows_at_once()
        if self._wraps:
            sent, self._offset = ask_wrap.wrapped(statement, self._columns, self.limits.cell)
        self._offset += len(lead)
        self._send(lambda: wire.execute(lead + sent, params, rows))
        self._part = self._take()
        if self._part is not None and self._part.nfields != len(self._columns):
            raise QueryFailed("what the statement reads was changed by another session meanwhile", hint="ask again")

    def _send(self, send: Any) -> None:
        """Send a message of this answer, unless it was stopped."""
        with self._guard:
            self._check()
            self._on_server = True
            send()

    def _describe(self, result: Any, text: Read) -> None:
        wire, known = self._wire, self._asks.kinds
        columns = shape(result) if result is not None else []
        if len(columns) > 0:
            ask_types.own_types(known)
        types, places = ask_types.lookup(columns, known)
        names = ask_gate.called(text) if self.read_only else ()
        minor = "SELECT 1::pg_catalog.numeric::pg_catalog.money" if any(c.type == 790 for c in columns) else ""
        acts = ask_gate.volatile(names) if names else ""
        queries = [sql for sql in (types, places, minor, acts) if sql]
        found: list[Cells] = []
        if queries:
            self._send(lambda: wire.query("; ".join(queries)))
            found = [cells(r) for r in wire.all() if r.status == Status.TUPLES_OK]
        answers = iter(found)
        if types:
            known |= ask_types.learned(next(answers))
        located = next(answers) if places else []
        one = str(next(answers)[0][0]) if minor else ""
        if acts:
            ask_gate.refuse_volatile([row[0] or "" for row in next(answers)])
        self._columns = ask_types.described(columns, known, located)
        self._outs = tuple([column.out for column in self._columns])
        self._unbound = tuple([i for i, column in enumerate(self._columns) if column.width is None])
        self._fixed = sum([min(column.width or 0, 40) for column in self._columns]) + 24
        self._reader = Reader(wire.link, self._columns, minor_digits(one)) if self._columns else None

    def _rows_at_once(self) -> int:
        """Return how many rows may be taken at once: one, where a row has no bound."""
        if not self._columns or self._unbound or pq.version() < 170000:
            return 1
        widest = sum([column.width or 0 for column in self._columns]) + 24
        return max(1, min(_PART, _PART_OCTETS // widest, self.limits.rows))

    # ------------------------------------------------------------------------------------------------------------- rows

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        first = True
        while True:
            with self._reading:
                try:
                    self._check()
                    rows, more = self._batch(first=first)
                    if not more:
                        self._complete()
                except BaseException as error:
                    raised = self._failed(error)
                    self.leave()
                    if raised is error:
                        raise
                    raise raised from error
            first = first and not rows
            if rows:
                yield rows
            if not more:
                return

    def _batch(self, *, first: bool) -> tuple[Rows, bool]:
        """Take rows until a batch is full, or the server pauses; say whether there may be more."""
        wire, limits, reader = self._wire, self.limits, self._reader
        rows: Rows = []
        octets, begun = 0, time.monotonic()
        most = min(limits.rows, _FIRST) if first else limits.rows
        while len(rows) < most and octets < limits.octets:
            part = self._part
            if part is None:
                if rows and not wire.ready() and (first or time.monotonic() - begun > _WAIT):
                    break
                part = self._take()
            self._part = None
            if reader is None:  # no columns: rows of nothing, if any
                while part is not None:
                    part = self._take()
            if part is None or reader is None:
                return (reader.finished(rows) if reader is not None else rows), False
            some = reader.rows(part)
            self._got += len(some)
            if len(rows) + len(some) > most and rows:
                self._part = part
                break
            rows += some
            octets += self._fixed * len(some)
            if self._unbound:
                octets += self._measured(some)
        return (reader.finished(rows) if reader is not None else rows), True

    def _measured(self, rows: Rows) -> int:
        """Return the octets of cells without a bound. Raises InvalidInput for one over the cap: of statements that the server does not guard."""
        total, cap = 0, self.limits.cell
        for number, row in enumerate(rows):
            for i in self._unbound:
                value = row[i]
                if value is not None:
                    size = len(value) if not isinstance(value, int | float) else 8
                    if size > cap:
                        raise self._large(self._columns[i].out.name, size, self._got - len(rows) + number + 1)
                    total += size
        return total

    def _take(self) -> Any:
        """Return the next part of the answer, None behind the last."""
        wire = self._wire
        while True:
            result = wire.next()
            if result is None:
                return None
            status = result.status
            if status in (Status.SINGLE_TUPLE, Status.TUPLES_CHUNK):
                return result
            if status in (Status.TUPLES_OK, Status.COMMAND_OK, Status.EMPTY_QUERY):
                self._counted(result)
            elif status in COPIES:
                wire.leave_copy(result)
                with contextlib.suppress(psycopg.Error):
                    wire.all()
                raise InvalidInput(
                    "COPY to or from the client is no query", hint="select the rows, or use export and load"
                )
            else:
                error = error_from_result(result, "utf-8")
                wire.all()
                raise error

    def _counted(self, result: Any) -> None:
        tag = (result.command_status or b"").decode("ascii", "replace")
        if not self.read_only and not (tag.startswith(("SELECT", "FETCH", "SHOW")) and self._columns):
            self.affected = result.command_tuples

    # -------------------------------------------------------------------------------------------------------------- end

    def _complete(self) -> None:
        """All was read: end what was begun, and look whether it wrote."""
        wrote = self._finish(aftercheck=True)
        if wrote:
            raise PermissionDenied(
                f"read-only: the statement wrote, or took the transaction id {wrote} to write; it was rolled back",
                hint="run it as a write, which asks for the right to",
            )

    def _finish(self, *, aftercheck: bool = False) -> str | None:
        """End the answer on the server; nothing of it is there any more. Return the transaction id that a read-only one was given."""
        with self._guard:
            if self._ended:
                return None
            self._ended, self._on_server = True, False
            cancels = self._cancels
        wrote = None
        try:
            if self._wire.alive:
                wrote = self._closed(aftercheck=aftercheck, cancels=cancels)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            with contextlib.suppress(ValueError):
                self._wire.link.db.remove_notice_handler(self._notice)
            self._over.set()
            self._asks.ended(self)
        return wrote

    def _closed(self, *, aftercheck: bool, cancels: bool) -> str | None:
        """Roll back what was begun. A cancel that was sent has reached the server by now: it meets this, and no other statement."""
        wire = self._wire
        sound = wire.state == pq.TransactionStatus.INTRANS
        xid = "pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text"
        match self.bounds:
            case "own":
                look = f"SELECT {xid}, pg_catalog.pg_advisory_unlock_all(); " if aftercheck and sound else ""
                end = "ROLLBACK"
            case "point":
                look = f"SELECT {xid}; " if aftercheck and sound else ""
                end = f"ROLLBACK TO SAVEPOINT {_POINT}; RELEASE SAVEPOINT {_POINT}"
            case "none":
                if not cancels:
                    return None
                look, end = "", ""
        for _ in range(4):
            try:
                found = wire.lookup(look + end)
            except Cancelled:
                look = "" if wire.state == pq.TransactionStatus.INERROR else look
                continue
            except DBLensError:
                if look and wire.alive:
                    look = ""
                    continue
                wire.sever()
                raise
            return found[0][0][0] if look and found[0][0][0] != self._before else None
        wire.sever()
        return None

    def leave(self) -> None:
        """Stop what still runs, and free the session. Raises nothing."""
        if self._ended:
            return
        with self._reading:
            if not self._ended and self._wire.alive and self._on_server and not self._quickly():
                self._why = self._why or "left"
                with self._guard:
                    self._cancel()
                self._drain()
            with contextlib.suppress(DBLensError, psycopg.Error, OSError):
                self._finish()

    def _quickly(self) -> bool:
        """Read on for a moment; say whether the answer has ended."""
        wire, until = self._wire, time.monotonic() + _QUICK
        try:
            while wire.state == pq.TransactionStatus.ACTIVE and time.monotonic() < until:
                if wire.ready():
                    if wire.pgconn.get_result() is None:
                        return True
                else:
                    time.sleep(0.0005)
        except (psycopg.Error, OSError):
            return False
        return wire.state != pq.TransactionStatus.ACTIVE

    def _drain(self) -> None:
        """Throw away what the server still sends, until it says that it ended; a server that does not is left."""
        wire, until = self._wire, time.monotonic() + _LATE
        try:
            while wire.state == pq.TransactionStatus.ACTIVE:
                result = wire.next(max(0.05, until - time.monotonic()))
                if result is None:
                    return
                if result.status in COPIES:
                    wire.leave_copy(result)
        except (psycopg.Error, OSError, TimeoutError):
            wire.sever()

    # ------------------------------------------------------------------------------------------------------------- stop

    def stop(self, why: Why) -> None:
        """Stop it on the server, from any thread; nothing happens when it has ended."""
        with self._guard:
            if self._ended:
                return
            self._why = self._why or why
        failed: BaseException | None = None
        for pause in _STEPS:
            with self._guard:
                if self._ended:
                    return
                failed = self._cancel()
            self._drained()
            if self._over.wait(pause):
                return
        if why == "late" and not self._over.wait(_LATE):
            self._wire.sever()
        elif failed is not None and not self._over.is_set():
            raise ConnectionFailed(
                f"the cancel request did not reach the server: {failed}", hint="check server and network"
            ) from failed

    def _cancel(self) -> BaseException | None:
        """Send a cancel while something of this answer is on the server. The guard is held: its end waits for us."""
        if not self._on_server or not self._wire.alive:
            return None
        self._cancels = True
        try:
            self._wire.cancel()
        except (psycopg.Error, OSError) as error:
            return error
        return None

    def _drained(self) -> None:
        """When nobody reads now, do it: a server that cannot send does not see a cancel."""
        if self._reading.acquire(blocking=False):
            try:
                if not self._ended and self._on_server:
                    self._drain()
                    with contextlib.suppress(DBLensError, psycopg.Error, OSError):
                        self._finish()
            finally:
                self._reading.release()

    def _check(self) -> None:
        """Raise when it was stopped, or left."""
        match self._why:
            case "cancelled":
                raise Cancelled("the statement was cancelled")
            case "late":
                raise TimedOut(
                    f"the statement took longer than {self.limits.seconds:g} s",
                    hint="give it more time, or ask for less",
                )
            case "left":
                raise Conflict("the answer was left", hint="read it within its `with`")
        if self._ended:
            raise Conflict("the answer has ended", hint="its rows are given once")

    # ----------------------------------------------------------------------------------------------------------- errors

    def _failed(self, error: BaseException) -> BaseException:
        """Return the DBLens error that tells what happened."""
        if isinstance(error, psycopg.Error | OSError) or (
            isinstance(error, DBLensError) and self._why in ("cancelled", "late")
        ):
            try:
                if self._why in ("cancelled", "late"):
                    self._check()
            except DBLensError as told:
                return told
        if isinstance(error, psycopg.Error):
            return self._said(error)
        if isinstance(error, OSError):
            return ConnectionFailed(f"the connection broke: {error}", hint=self._unknown())
        return error

    def _said(self, error: psycopg.Error) -> DBLensError:
        state, message = error.sqlstate or "", error.diag.message_primary or str(error)
        if self._wraps:
            large = ask_wrap.too_large(message, self._columns, self.limits.cell)
            if large is not None:
                return self._large(*large, self._got + 1)
        if (
            state == "57014"
            and self.limits.seconds is not None
            and time.monotonic() - self._begun > self.limits.seconds / 2
        ):
            return TimedOut(
                f"the statement took longer than {self.limits.seconds:g} s", hint="give it more time, or ask for less"
            )
        if state == "25006":
            return PermissionDenied(f"read-only: {message}", hint="run it as a write, which asks for the right to")
        made = self._wire.link.failed(error, "the statement")
        if isinstance(made, ConnectionFailed):
            made.hint = self._unknown()
        made.message += self._place(error)
        made.args = (made.message,)
        return made

    def _unknown(self) -> str:
        if self.read_only or self.bounds != "none" or self._asks.transaction is not None:
            return "check server and network, then ask again: nothing was written"
        return "whether it was done is not known: look at the data before you run it again"

    def _place(self, error: psycopg.Error) -> str:
        position = error.diag.statement_position
        if not position or not position.isdigit():
            return ""
        at = int(position) - 1 - self._offset
        if not 0 <= at <= len(self._statement):
            return ""
        line = self._statement.count("\n", 0, at) + 1
        column = at - self._statement.rfind("\n", 0, at)
        return f" (at character {at + 1}: line {line}, column {column})"

    def _large(self, name: str, size: int, row: int) -> InvalidInput:
        what = f"column {name!r}" if name else "the cells together"
        where = f"row {row}"
        cap = self.limits.cell if name else self.limits.cell * ask_wrap.ROW
        return InvalidInput(
            f"{where}: {what} of {size:,} octets, more than {cap:,}",
            hint="select a part of it (substring, octet_length), or raise the cap of cells",
        )

    def _notice(self, told: Any) -> None:
        if len(self._notices) < 200:
            text = " ".join((told.message_primary or "").split())
            self._notices.append(f"{told.severity or 'NOTICE'}: {text[:1000]}")


def _locally(pins: str) -> str:
    return pins.replace("SET ", "SET LOCAL ")


def used(params: Sequence[object], text: Read) -> None:
    """Refuse parameters that are too many or too few. Raises InvalidInput."""
    if text.parameters != len(params):
        raise InvalidInput(
            f"the statement has {text.parameters} parameters, {len(params)} values were given",
            hint="give one for each $n",
        )
