"""How a session answers people: one statement at a time, its rows streamed, stopped on the server, read-only where that is asked.

An engine offers it as a part of its own, `Engine.ask(session)`; what copies and proves rows (`base.Source`, `base.Target`) is another road.

Rows are tuples of Python values, by the type of their column:

| type | value | column in Arrow |
|---|---|---|
| Boolean | bool | bool |
| Integer, Year | int | int8 … int64, uint8 … uint64 (24 bits: 32) |
| Decimal with precision <= 76 and a scale | decimal.Decimal, or a str of plain digits | decimal128, decimal256 |
| Decimal without | str, the canonical text | utf8 |
| Float | float, also NaN and infinities | float, double |
| Binary | bytes | binary |
| Date | datetime.date | date32 |
| Time, within a day and without zone | datetime.time | time64[us] |
| Timestamp | datetime.datetime, aware (UTC) when it is an instant | timestamp[us], of an instant in UTC |
| any other | str: the canonical text of its form, for text the text | utf8 |

A value that its column in Arrow cannot hold (infinity, a year before 1, 24:00:00, a zero date, NaN in a decimal, SQLite's text in a
number's column) is `Odd`: it travels beside the rows and is never rounded, cut or shown as NULL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

import msgspec

from dblens.schema.types import DataType
from dblens.values.forms import Form


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Common shape of the values below: frozen and serialisable."""


class Odd(NamedTuple):
    """A value that its column's Arrow type cannot hold: its canonical text in `form` (`dynamic` for SQLite's other storage classes)."""

    text: str
    form: Form


class Out(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One column of an answer. `table` and `column` say where its values lie, where the server tells; nothing for an expression."""

    name: str
    type: DataType
    native: str
    form: Form
    namespace: str | None = None
    table: str | None = None
    column: str | None = None


class Layer(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One of the things that keep a read-only statement from writing; `why` says what it rests on, or why it does not hold here."""

    name: Literal["login", "transaction", "protocol", "parser", "file", "authorizer", "allow_list", "aftercheck"]
    active: bool
    why: str = ""


class PlanNode(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One step of an execution plan. Numbers are None where the engine gives none; times in milliseconds, all loops together."""

    title: str
    relation: str | None = None
    index: str | None = None
    estimated_rows: float | None = None
    actual_rows: float | None = None
    cost: float | None = None
    milliseconds: float | None = None
    facts: dict[str, str] = {}
    children: tuple[PlanNode, ...] = ()


class Explained(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """An execution plan: as the engine wrote it (`format` json or text) and as a tree. `note`: what this engine does not tell."""

    raw: str
    format: Literal["json", "text"]
    tree: PlanNode
    analyzed: bool = False
    note: str = ""


class Transaction(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """State of an explicit transaction; `failed`: it can only be rolled back (PostgreSQL)."""

    read_only: bool
    isolation: str = ""
    failed: bool = False


class Lexis(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """What a splitter of statements must know of an engine's language."""

    dialect: str
    """sqlglot's name of it; empty for what is no SQL."""
    placeholder: Literal["numbered", "format", "question"]
    """Spelling of a parameter: `$1`, `%s` (then any other `%` is doubled, when there are parameters) or `?`."""
    identifier_quotes: str = '"'
    string_quotes: str = "'"
    backslash_escapes: bool = False
    """A backslash within a string takes the next character with it (PostgreSQL: only in `E'…'`)."""
    dollar_quotes: bool = False
    hash_comments: bool = False
    nested_comments: bool = False
    dashes_need_space: bool = False
    """`--` begins a comment only before white space (MySQL)."""
    executed_comments: bool = False
    """`/*! … */` and `/*M! … */` are no comments but statements' text."""
    delimiter_command: bool = False
    brackets: bool = False
    """`[name]` is an identifier."""
    bodies: Literal["nested", "trigger", "atomic"] = "nested"
    """Where `;` does not end a trigger or routine: between BEGIN … END, nested; until `; END` (SQLite); in BEGIN ATOMIC … END (PostgreSQL)."""


class Answer(Protocol):
    """A statement that runs, or ran. A context manager; leaving it stops what is still running on the server and frees it.

    The columns are known before the first batch; `()` for what returns no rows. `affected` and `notices` are final once `batches` has ended.
    """

    @property
    def columns(self) -> tuple[Out, ...]: ...
    @property
    def affected(self) -> int | None: ...
    @property
    def notices(self) -> tuple[str, ...]: ...
    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows as they come from a server-side cursor, few at first, never more than about `octets` at once.

        Raises QueryFailed, Cancelled, TimedOut, ConnectionFailed; InvalidInput for a cell over the cap, naming column, row and size.
        """
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Limits(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds of one statement: the whole operation's seconds, rows and octets of a batch, octets of one cell.

    Rows of a batch that is larger live long enough for Python's garbage collector to look at everything again and again: with 8,192
    it took half of the time.
    """

    seconds: float | None = None
    rows: int = 1024
    octets: int = 8 * 1024 * 1024
    cell: int = 64 * 1024 * 1024


class Asks(Protocol):
    """A session, as people ask it. Not thread-safe, except `cancel`. Driver errors leave it only as DBLens errors."""

    def ask(
        self,
        statement: str,
        params: Sequence[object] = (),
        *,
        read_only: bool = True,
        limits: Limits = Limits(),
        tag: str = "",
    ) -> Answer:
        """Run one statement. `params` stand in the places that the engine's `Lexis` spells.

        `read_only`: in every layer that `layers` names as active, in a transaction of its own that is rolled back. Otherwise in the explicit
        transaction, or by itself and committed. `tag` goes before the statement as a comment, for the server's own log.
        Raises PermissionDenied for what read-only refuses, QueryFailed with the position where the server names one, InvalidInput for
        text that is more than one statement or one that manages transactions by itself.
        """
        ...

    def layers(self) -> tuple[Layer, ...]:
        """Return what keeps a read-only statement from writing with this login, asked of the live server; inactive ones too."""
        ...

    def explain(
        self, statement: str, params: Sequence[object] = (), *, analyze: bool = False, limits: Limits = Limits()
    ) -> Explained:
        """Return a statement's plan. `analyze` runs it, read-only. Raises Unsupported where the engine cannot."""
        ...

    def begin(self, *, read_only: bool = False, isolation: str = "") -> None:
        """Begin an explicit transaction. Raises Conflict when there is one, InvalidInput for an isolation level that is unknown here."""
        ...

    def commit(self) -> None:
        """Commit it. Raises Conflict without one, QueryFailed when the server refuses."""
        ...

    def rollback(self) -> None:
        """Roll it back; nothing happens without one."""
        ...

    @property
    def transaction(self) -> Transaction | None: ...
    def cancel(self) -> None:
        """Stop what this session runs now on the server, from any thread; nothing happens when it runs nothing.

        Never reaches another statement than the one that ran when it was called. The session answers afterwards.
        """
        ...
