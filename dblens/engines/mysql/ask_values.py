"""Values in the places that a statement leaves for them: literals, written here, because the text protocol takes none apart.

The session's sql_mode is put back before every statement, so a backslash escapes in what is written here.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal

from dblens.engines.mysql.sql import literal as text_literal
from dblens.errors import InvalidInput

_PLACE = re.compile(r"%(.?)", re.DOTALL)


def bound(statement: str, params: Sequence[object]) -> str:
    """Return a statement with its parameters (`%s`; `%%` is one `%`). Without parameters nothing is a place.

    Raises InvalidInput for more or fewer values than places, and for values that no literal holds.
    """
    if not params:
        return statement
    values = iter(params)
    used = 0

    def put(found: re.Match[str]) -> str:
        nonlocal used
        if found[1] == "%":
            return "%"
        if found[1] != "s":
            raise InvalidInput(f"no place for a value: %{found[1]}", hint="write %s, and any other % twice")
        used += 1
        try:
            return literal(next(values))
        except StopIteration:
            raise InvalidInput(f"{len(params)} values for more places", hint="give one value a place") from None

    text = _PLACE.sub(put, statement)
    if used != len(params):
        raise InvalidInput(f"{len(params)} values for {used} places", hint="give one value a place")
    return text


def literal(value: object) -> str:
    """Return a value as a literal. Raises InvalidInput for what MySQL has none for."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(value)
        case float():
            if not math.isfinite(value):
                raise InvalidInput(f"MySQL has no {value}", hint="use NULL, or compare otherwise")
            text = repr(value)
            return text if "e" in text else f"{text}e0"
        case Decimal():
            if not value.is_finite():
                raise InvalidInput(f"MySQL has no {value}", hint="use NULL, or compare otherwise")
            return format(value, "f")
        case bytes() | bytearray() | memoryview():
            return f"x'{bytes(value).hex()}'"
        case dt.datetime():
            moment = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo is not None else value
            return f"'{moment.isoformat(' ')}'"
        case dt.date() | dt.time():
            return f"'{value.isoformat()}'"
        case dt.timedelta():
            micros = value // dt.timedelta(microseconds=1)
            seconds, part = divmod(abs(micros), 1_000_000)
            return f"'{'-' if micros < 0 else ''}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{part:06d}'"
        case uuid.UUID():
            return f"'{value}'"
        case str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InvalidInput(
                    "a parameter holds half of a surrogate pair", hint="it is no Unicode text"
                ) from error
            return text_literal(value)
    raise InvalidInput(f"a parameter of {type(value).__name__}", hint="pass a text, number, octets, date, time or None")
