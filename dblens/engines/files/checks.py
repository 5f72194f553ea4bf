"""The plan's questions about values, on their canonical texts, and the repairs of accepted losses.

Copier and verifier share them on purpose: both must agree on which values an accepted loss concerns and what becomes of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from dblens.engines.base import Check, Field
from dblens.engines.files.prove import is_json
from dblens.errors import Unsupported
from dblens.values.forms import Form
from dblens.values.numbers import float_text, plain_number

Predicate = Callable[[str], bool]
Repair = Callable[[str], "str | None"]
_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_JSON: Final = (Form.JSON, Form.DOCUMENT)
_HEX: Final = (Form.BYTES, Form.BSON)
_WORDS: Final = ("NaN", "Infinity", "-Infinity")


def predicate(check: Check, form: Form) -> Predicate | None:
    """Return the question as a function of a canonical text, None where its answer is always no. Raises Unsupported."""
    limit = check.limit or 0
    match check.kind:
        case "nul_character":
            return (lambda t: _NUL.search(t) is not None) if form in _JSON else (lambda t: "\0" in t)
        case "json_nul":
            return lambda t: _NUL.search(t) is not None
        case "invalid_text":
            return _surrogates
        case "nonfinite" if check.low == "-Infinity" and check.high == "Infinity":
            return lambda t: t == "NaN"
        case "nonfinite":
            return lambda t: t in _WORDS
        case "negative_zero":
            return lambda t: t == "-0"
        case "infinite_time":
            return lambda t: "infinity" in t
        case "zero_date":
            return lambda t: t[5:7] == "00" or t[8:10] == "00"
        case "outside_dates":
            return _outside(check.low, check.high)
        case "outside_day":
            return lambda t: t.startswith("-") or t[:8] >= "24:00:00" or len(t.partition(":")[0]) > 2
        case "outside_integers":
            low, high = (None if bound is None else int(bound) for bound in (check.low, check.high))
            return lambda t: (low is not None and int(t) < low) or (high is not None and int(t) > high)
        case "not_boolean":
            return lambda t: t not in ("0", "1")
        case "decimal_overflow":
            return lambda t: t not in _WORDS and _overflows(t, check.limit, check.scale)
        case "too_long":
            return (lambda t: len(t) // 2 > limit) if form in _HEX else (lambda t: len(t) > limit)
        case "oversize":
            return (
                (lambda t: len(t) // 2 > limit)
                if form in _HEX
                else (lambda t: len(t.encode("utf-8", "surrogatepass")) > limit)
            )
        case "sub_millisecond":
            return lambda t: len(t.removesuffix(" BC").partition(".")[2]) > 3
        case "trailing_space":
            return lambda t: t.endswith(" ")
        case "four_byte_text":
            return lambda t: any(c > "\uffff" for c in t)
        case "mixed_storage":
            return lambda t: t[:2] != "t:"
        case "json_number":
            return lambda t: any(map(_inexact, _numbers(t)))
        case "not_json":
            return lambda t: not is_json(t) or (limit > 0 and _depth(t) > limit)
        case "json_duplicate_key" | "not_this_type" | "null_key" | "missing_field" | "collation_equal" | "empty_enum":
            return None  # the canonical text has no key twice; types are proven
        case "document_key":
            return lambda t: _odd_key(json.loads(t))
    raise Unsupported(f"the check {check.kind!r}", "files have no such question")


def repair(check: Check, form: Form) -> Repair | None:
    """Return what becomes of a value that the check concerns, None where it stays as it is. Raises Unsupported."""
    limit, scale = check.limit, check.scale
    match check.repair, check.kind:
        case "null", _:
            return lambda _: None
        case "none" | "block", _:
            return None
        case "strip" | "truncate" | "round", "negative_zero":
            return lambda _: "0"
        case "strip", "nul_character" | "json_nul":
            return (lambda t: _NUL.sub(r"\1", t)) if form in _JSON else (lambda t: t.replace("\0", ""))
        case "strip", "invalid_text":
            return lambda t: "".join(c for c in t if not _surrogates(c))
        case "strip", "four_byte_text":
            return lambda t: "".join(c for c in t if c <= "\uffff")
        case "strip", "trailing_space":
            return lambda t: t.rstrip(" ")
        case "truncate", "too_long" if limit is not None:
            return lambda t: t[: 2 * limit if form in _HEX else limit]
        case "truncate", "sub_millisecond":
            return _milliseconds
        case "truncate" | "round", "decimal_overflow" if scale is not None:
            mode = ROUND_DOWN if check.repair == "truncate" else ROUND_HALF_EVEN
            return lambda t: _quantized(t, scale, mode)
        case "text", "mixed_storage":
            return lambda t: t[2:]
        case "text", _:
            return None
    raise Unsupported(f"repair {check.repair!r} of {check.kind!r}", "files do not know it")


def changes(field: Field, texts: Sequence[bytes | None]) -> dict[int, str | None]:
    """Return what the repairs of accepted losses make of a column's canonical texts, by row."""
    steps = [(p, r) for c in field.repairs if (p := predicate(c, field.form)) and (r := repair(c, field.form))]
    found: dict[int, str | None] = {}
    for row, octets in enumerate(texts):
        if octets is None:
            continue
        text: str | None = decoded(octets)
        for asked, made in steps:
            if text is not None and asked(text):
                text = found[row] = made(text)
    return found


def decoded(octets: bytes) -> str:
    """Return a canonical text for a question: octets that are not UTF-8 as surrogates."""
    return octets.decode("utf-8", "surrogateescape")


def _surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _year(text: str) -> tuple[int, str]:
    bc, minus = text.endswith(" BC"), text.startswith("-")
    head, _, tail = text.removesuffix(" BC").removeprefix("-").partition("-")
    return (1 - int(head) if bc else -int(head) if minus else int(head)), tail


def _outside(low: str | None, high: str | None) -> Predicate:
    first, last = (_year(low) if low else None), (_year(high) if high else None)

    def outside(text: str) -> bool:
        if "infinity" in text:
            return False  # a question of its own
        key = _year(text)
        return bool((first and key < first) or (last and (key[0], key[1][: len(last[1])]) > last))

    return outside


def _overflows(text: str, limit: int | None, scale: int | None) -> bool:
    whole, _, fraction = text.removeprefix("-").partition(".")
    if scale is not None and len(fraction) > scale:
        return True
    return limit is not None and len(whole.lstrip("0")) > limit - (scale or 0)


def _quantized(text: str, scale: int, mode: str) -> str:
    if text in _WORDS:
        return text
    value = Decimal(text).quantize(Decimal((0, (1,), -scale)), rounding=mode, context=Context(prec=7000))
    return plain_number(format(value, "f"))


def _milliseconds(text: str) -> str:
    head, era = (text[:-3], " BC") if text.endswith(" BC") else (text, "")
    whole, point, fraction = head.partition(".")
    kept = fraction[:3].rstrip("0")
    return (f"{whole}.{kept}" if point and kept else whole) + era


def _numbers(text: str) -> list[str]:
    found: list[str] = []
    json.loads(text, parse_float=found.append, parse_int=found.append)
    return found


def _inexact(token: str) -> bool:
    try:
        if "." not in token and "e" not in token.lower() and -(2**63) <= int(token) < 2**64:
            return False
        return float_text(float(token)) != plain_number(token)
    except (ValueError, OverflowError):
        return True


def _depth(text: str) -> int:
    def deep(value: Any) -> int:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inside is None else 1 + max(map(deep, inside), default=0)

    try:
        return deep(json.loads(text))
    except RecursionError:
        return 1 << 20


def _odd_key(value: Any) -> bool:
    if isinstance(value, dict):
        return any("." in k or k.startswith("$") or _odd_key(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_odd_key, value))
