"""What came of a query, in hand: one result per statement, as Arrow, DataFrames or plain rows; or as batches that stream by.

One implementation for a workspace in this process and for a service's: both have the same door, which writes Arrow streams into a sink.
The query works in a thread of its own, so that an interrupt, or a reader who has enough, stops it on the server.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import datetime as dt
import decimal
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, overload

import msgspec

from dblens.engines.asking import Layer, Out
from dblens.errors import Cancelled, DBLensError, InvalidInput, Unsupported
from dblens.query import grid, stream
from dblens.query.run import MEBI, Cut, Ran, StatementResult

if TYPE_CHECKING:
    from dblens.query.statements import Action

LIMIT: Final = 10_000
AWAKE: Final = 0.1
"""Seconds that a wait lasts at most before it looks for an interrupt: where others handle signals (Polars does), those wake nobody."""
ROOM: Final = 4 * MEBI
"""Octets that a stream holds for a reader who is slower than the server, beside the batch that is being read."""


class Checked(Protocol):
    """What the door says of a text."""

    @property
    def reads(self) -> bool: ...
    @property
    def action(self) -> Action: ...


class Door(Protocol):
    """The door to queries, in this process or of a service."""

    def run(self, connection: Any, text: str, write: Callable[[bytes], object], **more: Any) -> Ran: ...
    def write(self, connection: Any, text: str, write: Callable[[bytes], object], **more: Any) -> Ran: ...
    def check(self, connection: Any, text: str) -> Any: ...
    def cancel(self, query: str) -> bool: ...


class Result:
    """What came of one statement."""

    def __init__(self, about: StatementResult, table: Any = None) -> None:
        self.about, self._table = about, table

    def __repr__(self) -> str:
        return grid.told(self)

    def __len__(self) -> int:
        return self.about.rows

    @property
    def columns(self) -> tuple[Out, ...]:
        """Return the columns with their types; nothing for a statement that returns no rows."""
        return self.about.columns

    @property
    def truncated(self) -> Cut:
        """Return why there are more rows than these: `rows` or `octets`, empty when these are all."""
        return self.about.truncated

    @property
    def affected(self) -> int | None:
        """Return how many rows were changed, None where the server does not say."""
        return self.about.affected

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return self.about.seconds

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what the server said beside it."""
        return self.about.notices

    def arrow(self, *, raw: bool = False) -> Any:
        """Return a pyarrow.Table. Columns with values that their type in Arrow cannot hold become text, exactly; `raw` leaves them beside."""
        if self._table is None:
            return stream.library().table({})
        if raw:
            return self._table
        from dblens.engines import arrow

        return arrow.promoted(self._table)

    def df(self, *, exact: bool = False) -> Any:
        """Return a pandas.DataFrame; `exact` with Arrow's own types, in which no integer becomes a float."""
        try:
            import pandas as pd
        except ImportError:
            raise Unsupported("df()", "pandas is not installed", hint="pip install pandas") from None
        if exact:
            return self.arrow().to_pandas(types_mapper=pd.ArrowDtype)
        return self.arrow().to_pandas(integer_object_nulls=True)

    def polars(self) -> Any:
        """Return a polars.DataFrame."""
        try:
            import polars as pl
        except ImportError:
            raise Unsupported("polars()", "polars is not installed", hint="pip install polars") from None
        return pl.from_arrow(self.arrow())

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples of Python values."""
        table = self.arrow()
        if not table.num_columns:
            return [() for _ in range(table.num_rows)]
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def flat(self, columns: int = 200) -> Any:
        """Return documents as a pyarrow.Table of text, a column for each path of keys; see `dblens.query.grid`."""
        return grid.flat(self, columns)

    def scalar(self) -> Any:
        """Return the only value. Raises InvalidInput for another number of rows or columns."""
        rows = self.rows()
        if len(rows) != 1 or len(rows[0]) != 1:
            raise InvalidInput(
                f"the result has {len(rows)} rows and {len(self.columns)} columns", hint="ask for one value"
            )
        return rows[0][0]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow().__arrow_c_stream__(requested_schema)

    def plot(self, kind: str = "line", **how: Any) -> Any:
        """Return a Plotly figure of the rows: line, bar, area, scatter, pie, histogram or box; see `query.plot`."""
        from dblens.query.plot import figure

        return figure(self.df(), kind, **how)

    def _repr_html_(self) -> str:
        from dblens.query import show

        return show.html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from dblens.query import show

        printer.text("…" if cycle else show.text(self))


class Results(Sequence[Result]):
    """What came of each statement, in order; asked as a whole it answers for the last one that returned rows, else for the last."""

    def __init__(self, results: Sequence[Result], ran: Ran) -> None:
        self._results, self.ran = tuple(results), ran

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._results)) or "Results()"

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        return self._results[index]

    @property
    def last(self) -> Result:
        """Return the last result with rows, else the last. Raises InvalidInput when there is none."""
        if not self._results:
            raise InvalidInput("there is no result")
        return next((each for each in reversed(self._results) if each.columns), self._results[-1])

    @property
    def query(self) -> str:
        """Return the query's id."""
        return self.ran.query

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return what kept it from writing."""
        return self.ran.layers

    @property
    def seconds(self) -> float:
        """Return how long all of it took."""
        return self.ran.seconds

    @property
    def columns(self) -> tuple[Out, ...]:
        """Return the columns."""
        return self.last.columns

    @property
    def truncated(self) -> Cut:
        """Return why there are more rows than these, empty when these are all."""
        return self.last.truncated

    @property
    def affected(self) -> int | None:
        """Return how many rows were changed, by all statements that say so."""
        found = [each.affected for each in self._results if each.affected is not None]
        return sum(found) if found else None

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what the server said beside it."""
        return tuple(notice for each in self._results for notice in each.notices)

    def arrow(self, *, raw: bool = False) -> Any:
        """Return a pyarrow.Table; see `Result.arrow`."""
        return self.last.arrow(raw=raw)

    def df(self, *, exact: bool = False) -> Any:
        """Return a pandas.DataFrame; see `Result.df`."""
        return self.last.df(exact=exact)

    def polars(self) -> Any:
        """Return a polars.DataFrame."""
        return self.last.polars()

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples of Python values."""
        return self.last.rows()

    def flat(self, columns: int = 200) -> Any:
        """Return documents as a flat table; see `Result.flat`."""
        return self.last.flat(columns)

    def scalar(self) -> Any:
        """Return the only value; see `Result.scalar`."""
        return self.last.scalar()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow().__arrow_c_stream__(requested_schema)

    def plot(self, kind: str = "line", **how: Any) -> Any:
        """Return a Plotly figure of the rows: line, bar, area, scatter, pie, histogram or box; see `query.plot`."""
        return self.last.plot(kind, **how)

    def _repr_html_(self) -> str:
        from dblens.query import show

        return show.html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from dblens.query import show

        printer.text("…" if cycle else show.text(self))


# ------------------------------------------------------------------------------------------------------------------------ ask


def ask(
    door: Door,
    connection: Any,
    text: str,
    *,
    params: Mapping[str, object] | None = None,
    limit: int | None = LIMIT,
    read_only: bool | None = None,
    timeout: float | None = None,
    confirm: str | None = None,
    transaction: str | None = None,
    origin: Any = None,
    octets: int | None = 256 * MEBI,
    query: str | None = None,
) -> Results:
    """Run a text and return all of what came of it. `read_only` None: as the text's own words say. See `Workspace.query`."""
    stream.library()
    query, call = _call(
        door, connection, text, params=params, limit=limit, read_only=read_only, timeout=timeout, confirm=confirm,
        transaction=transaction, origin=origin, octets=octets, query=query,
    )  # fmt: skip
    sink = stream.library().BufferOutputStream()
    work = _Work(lambda: call(sink.write))
    try:
        ran = work.done(lambda: door.cancel(query))
    except DBLensError as error:
        with contextlib.suppress(DBLensError):
            error.results = _partial(sink.getvalue())  # type: ignore[attr-defined]  # before the statement that failed
        raise
    tables = _tables(sink.getvalue())
    return Results([Result(each, tables.pop(0)[1] if each.returns_rows else None) for each in ran.statements], ran)


def _tables(data: Any) -> list[tuple[StatementResult, Any]]:
    found = []
    for reading in stream.readings(data):
        batches = list(reading.batches())
        table = stream.library().Table.from_batches(batches, schema=reading.schema)
        told = (reading.told or {}).get(stream.RESULT, b"")
        found.append((msgspec.json.decode(told, type=StatementResult), table))
    return found


def _partial(data: Any) -> Results:
    """Return the results that are whole in what came."""
    found = list[Result]()
    with contextlib.suppress(DBLensError):
        for reading in stream.readings(data):
            batches = list(reading.batches())
            told = msgspec.json.decode((reading.told or {}).get(stream.RESULT, b""), type=StatementResult)
            found.append(Result(told, stream.library().Table.from_batches(batches, schema=reading.schema)))
    return Results(found, Ran(statements=tuple(each.about for each in found), seconds=0.0, read_only=False))


def _call(
    door: Door,
    connection: Any,
    text: str,
    *,
    read_only: bool | None,
    query: str | None,
    params: Mapping[str, object] | None,
    confirm: str | None,
    transaction: str | None,
    origin: Any,
    **more: Any,
) -> tuple[str, Callable[[Callable[[bytes], object]], Ran]]:
    """Return the query's id and what runs it into a sink: by `run` what only reads, else by `write`."""
    if read_only and (transaction is not None or confirm is not None):
        raise InvalidInput("read_only with a transaction or a confirmation", hint="those are for what may write")
    if read_only is None:
        read_only = transaction is None and confirm is None and bool(door.check(connection, text).reads)
    query = secrets.token_hex(16) if query is None else query
    given = {**more, "query": query, "params": sent(params)}
    if origin is not None:
        given["origin"] = origin
    if read_only:
        return query, lambda sink: door.run(connection, text, sink, **given)
    return query, lambda sink: door.write(connection, text, sink, confirm=confirm, transaction=transaction, **given)


class _Work:
    """A call in a thread that knows what its caller's context knows."""

    def __init__(self, call: Callable[[], Ran]) -> None:
        self._call, self.over = call, threading.Event()
        self.result: Ran | None = None
        self.error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="dblens-query", daemon=True)

    def start(self, cancel: Callable[[], object]) -> None:
        """Begin; an interrupt on the way cancels what began."""
        try:
            self._thread.start()
        except BaseException:
            self.stop(cancel)
            raise

    def _work(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.error = error
        finally:
            self.over.set()

    def done(self, cancel: Callable[[], object]) -> Ran:
        """Return what the call returns, or raise what it raises; an interrupt cancels it first."""
        try:
            if self._thread.ident is None:
                self._thread.start()
            while not self.over.wait(AWAKE):
                pass
        except BaseException:
            self.stop(cancel)
            raise
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def stop(self, cancel: Callable[[], object], *, seconds: float = 10.0) -> None:
        """Cancel until it is over: the first word may come before the query is known there."""
        if self._thread.ident is None:
            self.over.set()
            return
        ends = time.monotonic() + seconds
        while not self.over.is_set() and time.monotonic() < ends:
            with contextlib.suppress(DBLensError):
                cancel()
            self.over.wait(0.1)


# --------------------------------------------------------------------------------------------------------------------- stream


class Streaming:
    """A query whose rows stream by: a context manager; iterate over Arrow batches. Leaving it early stops the query on its server.

    `schema` and `columns` are those of the statement whose batches come now; `ran` is known after the last batch.
    """

    def __init__(self, door: Door, query: str, call: Callable[[Callable[[bytes], object]], Ran]) -> None:
        self._door, self.query, self._call = door, query, call
        self._pipe = _Pipe(ROOM)
        self._work: _Work | None = None
        self.schema: Any = None
        self.number = 0
        self._coming: Iterator[tuple[int, Any]] | None = None

    def __enter__(self) -> Self:
        self._work = _Work(self._worked)
        self._work.start(self._cancel)
        return self

    def _worked(self) -> Ran:
        try:
            return self._call(self._pipe.write)
        finally:
            self._pipe.end()

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Any]]:
        """Return the batches that are still to come, with the number of their stream, from 1: each statement with rows has one.

        A statement without any row still yields one empty batch, so that its columns are known. Raises what the query raises.
        """
        if self._coming is None:
            self._coming = self._batches()
        return self._coming

    def _batches(self) -> Iterator[tuple[int, Any]]:
        work = self._work
        if work is None:
            raise InvalidInput("the stream is not open", hint="`with ws.stream(…) as rows:`")
        pa = stream.library()
        try:
            for number, reading in enumerate(stream.readings(self._pipe), 1):
                self.number, self.schema, empty = number, reading.schema, True
                for batch in reading.batches():
                    empty = False
                    yield number, batch
                if empty:
                    yield number, pa.RecordBatch.from_pylist([], schema=reading.schema)
        except DBLensError:
            if work.over.wait(5) and work.error is not None:
                raise work.error from None  # the whole of it, with its hint
            raise
        work.done(self._cancel)

    @property
    def columns(self) -> tuple[Out, ...]:
        """Return the columns of the batches that come now."""
        from dblens.engines import arrow

        return () if self.schema is None else arrow.outs(self.schema)

    @property
    def ran(self) -> Ran | None:
        """Return what came of it, None before it ended."""
        return None if self._work is None else self._work.result

    def _cancel(self) -> None:
        self._pipe.leave()
        self._door.cancel(self.query)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        work = self._work
        if work is None or work.over.is_set():
            return
        work.stop(self._cancel)


class _Pipe:
    """Bytes from one thread to another, never more than `room` and one piece."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._held = 0
        self._left = False
        self._rest = memoryview(b"")

    def write(self, data: bytes) -> int:
        """Take bytes; waits while there is no room. Raises Cancelled when the reader left."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._held < self._room)
            if self._left:
                raise Cancelled("the reader left")
            self._held += len(data)
        if data:
            self._parts.put(data)
        return len(data)

    def end(self) -> None:
        """Say that nothing follows."""
        self._parts.put(b"")

    def leave(self) -> None:
        """Say that nobody reads any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _next(self) -> bytes:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._parts.get(timeout=AWAKE)

    def read(self, size: int) -> bytes:
        """Return up to so many bytes, as soon as there are some; none at the end."""
        if not self._rest:
            part = self._next()
            if not part:
                self._parts.put(b"")  # the end stays the end
                return b""
            with self._changed:
                self._held -= len(part)
                self._changed.notify_all()
            self._rest = memoryview(part)
        found, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return found


def streaming(
    door: Door,
    connection: Any,
    text: str,
    *,
    params: Mapping[str, object] | None = None,
    limit: int | None = None,
    read_only: bool | None = None,
    timeout: float | None = None,
    confirm: str | None = None,
    transaction: str | None = None,
    origin: Any = None,
    octets: int | None = None,
    query: str | None = None,
) -> Streaming:
    """Return a query whose rows stream by, without a limit unless one is given. See `Workspace.stream`."""
    stream.library()
    query, call = _call(
        door, connection, text, params=params, limit=limit, read_only=read_only, timeout=timeout, confirm=confirm,
        transaction=transaction, origin=origin, octets=octets, query=query,
    )  # fmt: skip
    return Streaming(door, query, call)


# --------------------------------------------------------------------------------------------------------------------- params


def sent(params: Mapping[str, object] | None) -> dict[str, Any] | None:
    """Return parameters as they travel: what JSON has no word for becomes `{"dblens:bytes": …}`. Raises InvalidInput."""
    return None if params is None else {str(name): _sent(str(name), value) for name, value in params.items()}


def _sent(name: str, value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value) if -(2**63) <= value < 2**63 else {"dblens:integer": str(int(value))}
        case float():
            return value if math.isfinite(value) else {"dblens:float": repr(value)}
        case decimal.Decimal():
            return {"dblens:decimal": str(value)}
        case bytes() | bytearray() | memoryview():
            return {"dblens:bytes": base64.b64encode(value).decode()}
        case dt.datetime():
            return {"dblens:timestamp": value.isoformat()}
        case dt.date():
            return {"dblens:date": value.isoformat()}
        case dt.time():
            return {"dblens:time": value.isoformat()}
        case list() | tuple():
            return [_sent(name, each) for each in value]
        case dict():
            return {str(key): _sent(name, each) for key, each in value.items()}
    plain = getattr(value, "item", None)  # a NumPy scalar
    if callable(plain) and not isinstance(plain(), type(value)):
        return _sent(name, plain())
    raise InvalidInput(f"the parameter {name} is a {type(value).__name__}", hint="a plain value, a list, a document")
