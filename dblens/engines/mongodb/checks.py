"""Predicates of the plan's checks, on a value's canonical text. Shared by plan, copier and verifier (the plan's own questions)."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from dblens.engines.base import Check
from dblens.errors import Unsupported
from dblens.values.codec import float_text, plain_number
from dblens.values.forms import Form

Predicate = Callable[[str], bool]

JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_JSON = (Form.JSON, Form.DOCUMENT)
_NEVER = frozenset(
    [
        "zero_date",
        "outside_day",
        "sub_millisecond",
        "mixed_storage",
        "empty_enum",
        "invalid_text",
        "not_this_type",
        "missing_field",
        "null_key",
        "collation_equal",
        "not_json",
    ]
)
"""Kinds that a canonical text of BSON never shows; `scan` answers some of them from the document instead."""


def _year(text: str) -> tuple[int, str]:
    """Return the astronomical year (1 BC is 0; a bound may write it with a minus) and the rest of a date."""
    bc = text.endswith(" BC")
    minus = text.startswith("-")
    head, _, tail = text.removesuffix(" BC").removeprefix("-").partition("-")
    return (1 - int(head) if bc else -int(head) if minus else int(head)), tail


def _outside_dates(low: str | None, high: str | None) -> Predicate:
    first, last = (_year(low) if low else None), (_year(high) if high else None)

    def outside(text: str) -> bool:
        if "infinity" in text:
            return False  # a question of its own: infinite_time
        key = _year(text)
        # A bound that is a day takes in its whole day.
        return bool((first and key < first) or (last and (key[0], key[1][: len(last[1])]) > last))

    return outside


def _overflow(limit: int | None, scale: int | None) -> Predicate:
    def overflow(text: str) -> bool:
        if text in ("NaN", "Infinity", "-Infinity"):
            return False
        whole, _, fraction = text.removeprefix("-").partition(".")
        whole = whole.lstrip("0")
        if scale is not None and len(fraction) > scale:
            return True
        return limit is not None and len(whole) > limit - (scale or 0)

    return overflow


def _numbers(text: str) -> list[str]:
    found: list[str] = []
    json.loads(text, parse_float=found.append, parse_int=found.append)
    return found


def _inexact(token: str) -> bool:
    try:
        return float_text(float(token)) != plain_number(token)
    except (ValueError, OverflowError):
        return True


def _repeats(text: str) -> bool:
    repeated = False

    def hook(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        repeated = repeated or len({k for k, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=hook)
    return repeated


def _odd_key(text: str) -> bool:
    from dblens.engines.mongodb import extjson
    from dblens.engines.mongodb.rawbson import Pairs

    def odd(value: Any) -> bool:
        match value:
            case dict() | Pairs():
                items = value.items() if isinstance(value, dict) else value
                return any("." in k or k.startswith("$") or odd(v) for k, v in items)
            case list():
                return any(map(odd, value))
        return False

    return odd(extjson.decode(text))


def predicate(check: Check, form: Form) -> Predicate:
    """Return the question as a function of a canonical text. Raises Unsupported for a kind this engine does not know."""
    limit = check.limit or 0
    match check.kind:
        case "nul_character":
            return (lambda text: JSON_NUL.search(text) is not None) if form in _JSON else (lambda text: "\0" in text)
        case "json_nul":
            return lambda text: JSON_NUL.search(text) is not None
        case "nonfinite":
            if check.low == "-Infinity" and check.high == "Infinity":
                return lambda text: text == "NaN"
            if form in _JSON:
                return lambda text: '"NaN"' in text or 'Infinity"' in text
            return lambda text: text in ("NaN", "Infinity", "-Infinity")
        case "negative_zero":
            return lambda text: text == "-0"
        case "outside_dates":
            return _outside_dates(check.low, check.high)
        case "infinite_time":
            return lambda text: "infinity" in text
        case "outside_integers":
            low = int(check.low) if check.low is not None else None
            high = int(check.high) if check.high is not None else None
            return lambda text: (low is not None and int(text) < low) or (high is not None and int(text) > high)
        case "not_boolean":
            return lambda text: text not in ("0", "1")
        case "decimal_overflow":
            return _overflow(check.limit, check.scale)
        case "too_long":
            return (lambda text: len(text) // 2 > limit) if form == Form.BYTES else (lambda text: len(text) > limit)
        case "oversize":
            return (
                (lambda text: len(text) // 2 > limit)
                if form in (Form.BYTES, Form.BSON)
                else (lambda text: len(text.encode()) > limit)
            )
        case "trailing_space":
            return lambda text: text.endswith(" ")
        case "four_byte_text":
            return lambda text: any(c > "\uffff" for c in text)
        case "json_number":
            return lambda text: any(map(_inexact, _numbers(text)))
        case "json_duplicate_key":
            return _repeats
        case "document_key":
            return _odd_key
        case kind if kind in _NEVER:
            return lambda _text: False
    raise Unsupported(f"the check {check.kind!r}", "MongoDB has no such question")


def folded(text: str, collation: str | None) -> str:
    """Return what a collation compares, never telling apart what the collation holds equal (it may hold more apart)."""
    text = text.rstrip(" ")
    if collation and "bin" in collation:
        return text
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.casefold()
