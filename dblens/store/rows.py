"""What the chapters share: pages, values that fit both engines, one row or NotFound, a broken rule as a Conflict."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.store.database import Transaction

T = TypeVar("T")
LONGEST_PAGE = 200


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list. `after` is given to the next call; None when this was the last part."""

    items: tuple[T, ...]
    after: str | None = None


def page(
    tx: Transaction,
    query: sa.Select[Any],
    make: Callable[[sa.Row[Any]], T],
    *,
    by: sa.ColumnElement[Any],
    limit: int,
    after: str | None,
    newest_first: bool = False,
    key: Callable[[T], str] | None = None,
) -> Page[T]:
    """Read a part of a query, ordered by a unique column or expression `by`. Raises InvalidInput."""
    if after is not None:
        fits("after", after, 1000)
        query = query.where(by < after if newest_first else by > after)
    query = query.order_by(None).order_by(by.desc() if newest_first else by).limit(allowed(limit) + 1)
    return cut([make(row) for row in tx.execute(query)], limit, key or _id)


def allowed(limit: int) -> int:
    """Return the length of a page. Raises InvalidInput."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LONGEST_PAGE:
        raise InvalidInput(f"limit is {limit!r}", hint=f"a whole number from 1 to {LONGEST_PAGE}")
    return limit


def cut(items: list[T], limit: int, key: Callable[[T], str]) -> Page[T]:
    """Make a page of what was read, one item more than asked for: that one only says that there is more."""
    return Page(items=tuple(items[:limit]), after=key(items[limit - 1]) if len(items) > limit else None)


def _id(item: object) -> str:
    return item.id  # type: ignore[attr-defined, no-any-return]


def one(tx: Transaction, query: sa.Select[Any] | sa.sql.dml.ReturningInsert[Any], missing: str) -> sa.Row[Any]:
    """Return the only row, or raise NotFound with the text."""
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(missing)
    return row


def record(kind: type[T], row: sa.Row[Any]) -> T:
    """Make a record of a row whose columns have the names of its fields."""
    return kind(**{field: getattr(row, field) for field in kind.__struct_fields__})  # type: ignore[attr-defined]


def columns(kind: type[msgspec.Struct], table: sa.Table) -> list[sa.Column[Any]]:
    """Return the columns of a table that a record has."""
    return [table.c[name] for name in kind.__struct_fields__]


def fits(field: str, value: str, longest: int, *, empty: bool = False) -> str:
    """Return a text that both engines can keep. Raises InvalidInput, which names the field."""
    if not isinstance(value, str):
        raise InvalidInput(f"{field} is {value!r}", hint=f"{field} is a text")
    if not value.strip() and not empty:
        raise InvalidInput(f"{field} is empty", hint=f"give a {field}")
    if len(value) > longest:
        raise InvalidInput(f"{field} has {len(value)} characters", hint=f"at most {longest}")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise InvalidInput(
            f"{field} holds a character that no database keeps", hint="leave out NUL and lone surrogates"
        )
    return value


def values(table: sa.Table, **given: object) -> dict[str, Any]:
    """Return values for a table's columns after looking that both engines can keep them. Raises InvalidInput."""
    for name, value in given.items():
        kind = table.c[name].type
        if value is None or isinstance(value, sa.sql.ClauseElement):
            continue
        if isinstance(kind, sa.String):
            assert isinstance(value, str)
            fits(name, value, kind.length or 10_000_000, empty=True)
        elif isinstance(kind, sa.JSON):
            _json(name, value)
    return dict(given)


def _json(name: str, value: object) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{name} cannot be kept as JSON: {error}", hint="text, numbers, true, false, null, lists, objects"
        ) from error


def nullable_json(value: object) -> Any:
    """Return a value for a JSON column in which None means nothing rather than JSON's null."""
    return sa.null() if value is None else value


@contextlib.contextmanager
def unique(tx: Transaction, message: str, hint: str | None = None) -> Iterator[None]:
    """Raise Conflict when a statement breaks a rule of the tables; what was done before it in the transaction stays."""
    try:
        with tx.begin_nested():
            yield
    except sa.exc.IntegrityError as error:
        raise Conflict(message, hint=hint) from error


def contains(column: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """Compare: the column holds the text, whatever its case (of ASCII on SQLite), with no character special."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.ilike(f"%{escaped}%", escape="\\")


def chosen(field: str, value: str, allowed: Sequence[str]) -> str:
    """Return a value that is one of a few words. Raises InvalidInput."""
    if value not in allowed:
        raise InvalidInput(f"{field} is {value!r}", hint=f"one of {', '.join(allowed)}")
    return value
