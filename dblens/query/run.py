"""Run a text on a session: one statement after the other, rows as Arrow streams into a sink, bounded in rows, octets and time.

What the text is split into and what each statement seems to do is advice (`prepared`): whether it may write, the server decides.
A row cap of n asks for n + 1 and drops the last, so `truncated` is never a guess. The deadline is of the whole and kept on this side
too: a server's own timeout counts each fetch anew. The first error ends the run; its message says which statement, on which line.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from dblens.engines.asking import Answer, Asks, Layer, Lexis, Limits, Out
from dblens.engines.base import Engine
from dblens.errors import Cancelled, DBLensError, InvalidInput, TimedOut, Unsupported
from dblens.query import stream
from dblens.query.statements import Statement, prepared

MEBI: Final = 1024 * 1024
Write = Callable[[bytes], object]
Cut = Literal["", "rows", "octets"]
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a run: rows and octets of each statement's answer, seconds of the whole, octets of a cell. None: without."""

    rows: int | None = 10_000
    octets: int | None = 256 * MEBI
    seconds: float | None = None
    cell: int = 64 * MEBI


class Warned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something about a statement that somebody should know before it runs."""

    code: str
    text: str
    statement: int = 1


class StatementResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one statement; `start` and `end` are its place in the text, in characters. Its rows are in the stream, not here."""

    number: int
    start: int
    end: int
    line: int = 1
    kind: str = "unknown"
    columns: tuple[Out, ...] = ()
    rows: int = 0
    affected: int | None = None
    truncated: Cut = ""
    seconds: float = 0.0
    first_row_seconds: float | None = None
    notices: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()

    @property
    def returns_rows(self) -> bool:
        """Return whether it has a stream of its own."""
        return bool(self.columns)


class Ran(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a text. `layers`: what kept it from writing, asked of the live server; of writes none is asked for."""

    statements: tuple[StatementResult, ...]
    seconds: float
    read_only: bool
    layers: tuple[Layer, ...] = ()
    query: str = ""

    @property
    def rows(self) -> int:
        """Return how many rows came, of all statements."""
        return sum(each.rows for each in self.statements)


class Running:
    """What a session does now: stopped from any thread until it is over, and never reached afterwards."""

    def __init__(self, asks: Asks | None = None) -> None:
        self._asks, self._guard, self._over = asks, threading.Lock(), threading.Event()
        self.why: Literal["", "cancelled", "late"] = ""

    def on(self, asks: Asks) -> None:
        """Say on which session it runs, once it has one. Raises Cancelled when it was told to stop before."""
        with self._guard:
            self._asks = asks
        self.check()

    def stop(self, why: Literal["cancelled", "late"] = "cancelled", *, patience: float = 10.0) -> bool:
        """Stop it on the server, again until it is over: the first time may come just before the statement. Return whether it is."""
        self.why = self.why or why
        ends, tried = time.monotonic() + patience, 0
        while not self._over.is_set() and time.monotonic() < ends:
            with self._guard:  # the session is not given back meanwhile, so it runs nobody else's statement
                if self._over.is_set():
                    break
                if self._asks is not None:
                    with contextlib.suppress(DBLensError):  # the way to the server is busy or gone: once more below
                        self._asks.cancel()
            self._over.wait(_PAUSES[min(tried, len(_PAUSES) - 1)])
            tried += 1
        return self._over.is_set()

    def leave(self) -> None:
        """Stop it without waiting: nobody is there any more who wants it."""
        if not self._over.is_set():
            self.why = self.why or "cancelled"
            threading.Thread(target=self.stop, name="dblens-stop", daemon=True).start()

    def check(self) -> None:
        """Raise Cancelled or TimedOut once it was told to stop."""
        if self.why == "cancelled":
            raise Cancelled("the query was cancelled")
        if self.why == "late":
            raise TimedOut("the query took longer than allowed", hint="give it more time, or ask for less")

    def over(self) -> None:
        """Say that nothing of it runs any more."""
        with self._guard:
            self._over.set()

    def really(self, error: BaseException) -> BaseException:
        """Return the error that tells why it was stopped, when it was: what the server says of a cancel is its own affair."""
        if not self.why or isinstance(error, TimedOut if self.why == "late" else Cancelled):
            return error
        if not isinstance(error, DBLensError | OSError):
            return error
        try:
            self.check()
        except DBLensError as told:
            told.__cause__ = error
            return told
        return error


def run(
    asks: Asks,
    engine: Engine,
    text: str | Sequence[Statement],
    *,
    params: Mapping[str, object] | None = None,
    read_only: bool = True,
    limits: RunLimits = RunLimits(),
    tag: str = "",
    write: Write = lambda _: None,
    running: Running | None = None,
    report: Callable[[StatementResult], object] = lambda _: None,
) -> Ran:
    """Run the statements of a text in order and return what came of each; `report` hears of each as it ends.

    Raises InvalidInput for no statement at all and for parameters that are missing or too many, TimedOut, Cancelled, and what the engine
    raises, with the statement's number in it; nothing after it runs.
    """
    statements = prepared(engine, text) if isinstance(text, str) else tuple(text)
    if not statements:
        raise InvalidInput("there is no statement in the text", hint="write one")
    values = dict(params or {})
    running = Running() if running is None else running
    running.on(asks)
    begun = time.monotonic()
    deadline = None if limits.seconds is None else begun + limits.seconds
    watch = None if limits.seconds is None else threading.Timer(limits.seconds, running.stop, ["late"])
    if watch is not None:
        watch.daemon = True
        watch.start()
    done: list[StatementResult] = []
    try:
        bounds = [each.bound(engine, values) for each in statements]
        _all_used(statements, values)
        layers = asks.layers() if read_only else ()
        for each, (bound, given) in zip(statements, bounds, strict=True):
            try:
                running.check()
                found = _one(asks, each, bound, given, read_only, limits, deadline, tag, write, running)
            except BaseException as raised:
                if not isinstance(raised, Exception):  # an interrupt
                    with contextlib.suppress(DBLensError):
                        asks.cancel()
                error = running.really(raised)
                if isinstance(error, DBLensError):
                    _place(error, each, len(statements))
                if error is raised:
                    raise
                raise error from raised
            done.append(found)
            report(found)
    finally:
        running.over()
        if watch is not None:
            watch.cancel()
    return Ran(statements=tuple(done), seconds=time.monotonic() - begun, read_only=read_only, layers=layers)


def _one(
    asks: Asks,
    each: Statement,
    bound: str,
    given: Sequence[object],
    read_only: bool,
    limits: RunLimits,
    deadline: float | None,
    tag: str,
    write: Write,
    running: Running,
) -> StatementResult:
    begun = time.monotonic()
    left = None if deadline is None else deadline - begun
    if left is not None and left <= 0:
        running.why = running.why or "late"
        running.check()
    most = limits.rows
    asked = Limits(seconds=left, cell=limits.cell, rows=Limits().rows if most is None else min(Limits().rows, most + 1))
    with asks.ask(bound, given, read_only=read_only, limits=asked, tag=tag) as answer:
        columns = tuple(answer.columns)
        rows, cut, first = _rows(answer, columns, limits, deadline, write, running, begun, each)
        return StatementResult(
            number=each.number,
            start=each.start,
            end=each.end,
            line=each.line,
            kind=each.action,
            columns=columns,
            rows=rows,
            affected=None if cut else answer.affected,
            truncated=cut,
            seconds=time.monotonic() - begun,
            first_row_seconds=first,
            notices=tuple(answer.notices),
            warnings=tuple(Warned(code=code, text=told, statement=each.number) for code, told in each.warnings),
        )


def _rows(
    answer: Answer,
    columns: tuple[Out, ...],
    limits: RunLimits,
    deadline: float | None,
    write: Write,
    running: Running,
    begun: float,
    each: Statement,
) -> tuple[int, Cut, float | None]:
    """Pass the rows on as they come. Return how many, whether and why there are more, and when the first was there."""
    if not columns:
        for _ in answer.batches():
            running.check()
        return 0, "", None
    from dblens.engines import arrow

    made = arrow.Writer(columns)
    out = stream.Stream(made.schema, write)
    flush = getattr(write, "flush", None)
    octets, cut, first = 0, _no_cut(), None
    try:
        for some in answer.batches():
            rows = some
            if first is None and rows:
                first = time.monotonic() - begun
            if deadline is not None and time.monotonic() > deadline:
                running.why = running.why or "late"
            running.check()
            if limits.rows is not None and out.rows + len(rows) > limits.rows:
                rows, cut = rows[: limits.rows - out.rows], "rows"
            batch = made.batch(rows) if rows else None
            if batch is not None and limits.octets is not None and octets + batch.nbytes > limits.octets:
                fit = int(batch.num_rows * (limits.octets - octets) / batch.nbytes)
                batch, cut = batch.slice(0, fit), "octets"
            if batch is not None and batch.num_rows:
                octets += batch.nbytes
                out.batch(batch)
                if flush is not None:
                    flush()
            if cut:
                break
    except BaseException as raised:
        error = running.really(raised)
        if isinstance(error, DBLensError):
            out.fail(error)
        raise
    told = StatementResult(
        number=each.number, start=each.start, end=each.end, line=each.line, kind=each.action, columns=columns,
        rows=out.rows, truncated=cut, seconds=time.monotonic() - begun, first_row_seconds=first,
    )  # fmt: skip
    out.end({stream.RESULT: msgspec.json.encode(told)})
    if flush is not None:
        flush()
    return out.rows, cut, first


def _no_cut() -> Cut:
    return ""


def _place(error: DBLensError, each: Statement, of: int) -> None:
    """Say in an error which statement of several it was, and where that begins."""
    if of > 1 and not hasattr(error, "statement"):
        error.message = f"statement {each.number} of {of} (line {each.line}): {error.message}"
        error.args = (error.message,)
    error.statement, error.line = each.number, each.line  # type: ignore[attr-defined]


def _all_used(statements: Sequence[Statement], values: Mapping[str, object]) -> None:
    unknown = set(values) - {name for each in statements for name in each.names}
    if unknown:
        raise InvalidInput(
            f"the text has no parameter {', '.join(sorted(map(repr, unknown)))}", hint="a parameter is written `:name`"
        )


def answering(engine: Engine, session: Any) -> Asks:
    """Return a session as people ask it. Raises Unsupported for an engine that cannot."""
    if engine.ask is None:
        raise Unsupported("queries", f"{engine.title} does not answer them")
    return engine.ask(session)


def lexis_of(engine: Engine) -> Lexis:
    """Return an engine's words. Raises Unsupported for an engine that has none."""
    if engine.lexis is None:
        raise Unsupported("queries", f"{engine.title} does not answer them")
    return engine.lexis
