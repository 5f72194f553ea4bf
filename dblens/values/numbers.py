"""Numbers as canonical text: plain decimals from any spelling, doubles by their shortest digits."""

from __future__ import annotations

import math
import re

NUMBER = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?", re.ASCII)
SPECIAL = {
    "nan": "NaN",
    "-nan": "NaN",
    "snan": "NaN",
    "-snan": "NaN",
    "inf": "Infinity",
    "infinity": "Infinity",
    "+inf": "Infinity",
    "+infinity": "Infinity",
    "-inf": "-Infinity",
    "-infinity": "-Infinity",
}
_LIMIT = 150_000
"""Zeros that an exponent may stand for: PostgreSQL's numeric has at most 131,072 digits before the point and 16,383 behind it."""


def plain_number(text: str) -> str:
    """Return a number's canonical plain text from any decimal spelling (`1E+3`, `.50`, `-0.0`). Raises ValueError."""
    match = NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        special = SPECIAL.get(text.lower())
        if special is None:
            raise ValueError(f"not a number: {text[:80]!r}")
        return special
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if match[4] is None:
        left, right = whole.lstrip("0") or "0", fraction.rstrip("0")
        number = f"{left}.{right}" if right else left
        return f"-{number}" if sign == "-" and number != "0" else number
    digits = (whole + fraction).lstrip("0")
    return written_out(sign, digits, int(match[4]) - len(fraction), _LIMIT) or _refuse(text)


def _refuse(text: str) -> str:
    raise ValueError(f"number too long to write out: {text[:80]!r}")


def written_out(sign: str, digits: str, exponent: int, limit: int) -> str | None:
    """Return `digits` (an integer without leading zeros) times ten to the exponent, None when that takes more than `limit` added zeros."""
    if not digits:
        return "0"
    point = len(digits) + exponent
    if exponent > limit or -point > limit:
        return None
    if exponent >= 0:
        number = digits + "0" * exponent
    else:
        left, right = (digits[:point], digits[point:]) if point > 0 else ("0", "0" * -point + digits)
        right = right.rstrip("0")
        number = f"{left}.{right}" if right else left
    return f"-{number}" if sign == "-" else number


def float_text(value: float) -> str:
    """Return a double's canonical text: its shortest round-trip digits without exponent, `-0` kept."""
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    if "e" in text or not math.isfinite(value):
        return plain_number(text)
    return text


def float_of_text(text: str) -> str:
    """Round to the nearest double, as every reader of an engine's float text does, but never to infinity or zero. Raises ValueError."""
    match = NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        special = SPECIAL.get(text.lower())
        if special is None:
            raise ValueError(f"not a double: {text[:80]!r}")
        return special
    number = float(text)
    if math.isinf(number) or (number == 0 and (match[2] + (match[3] or "")).strip("0")):
        raise ValueError(f"beyond a double: {text[:80]!r}")
    return float_text(number)
