"""Milliseconds since 1970 and text, for any year that 64 bits reach. The copier's side; the verifier has its own in `canonical`."""

from __future__ import annotations

import datetime as dt
import re

_DAY = 86_400_000
_ERA = 400  # years; the calendar repeats after them
_ERA_DAYS = 146_097
_EPOCH = dt.date(1970, 1, 1).toordinal()
_TEXT = re.compile(r"^(\d{4,})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z?( BC)?$", re.ASCII)


def render(milliseconds: int) -> str:
    """Return an instant as `YYYY-MM-DD HH:MM:SS[.fff]` in UTC, ` BC` behind years before 1."""
    days, rest = divmod(milliseconds, _DAY)
    ordinal = days + _EPOCH - 1  # days since 0001-01-01
    era, within = divmod(ordinal, _ERA_DAYS)
    day = dt.date.fromordinal(within + 1)
    year = day.year + era * _ERA
    seconds, fraction = divmod(rest, 1000)
    tail = f".{fraction:03d}".rstrip("0") if fraction else ""
    bc = " BC" if year < 1 else ""
    shown = 1 - year if year < 1 else year
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{shown:04d}-{day.month:02d}-{day.day:02d} {clock}{tail}{bc}"


def parse(text: str) -> int | None:
    """Return the milliseconds of an instant's text (UTC).

    None when milliseconds cannot tell it: infinity, zero dates, finer fractions, a leap second.
    """
    match = _TEXT.match(text)
    if match is None:
        return None
    fraction = (match[7] or "").rstrip("0")
    if len(fraction) > 3:
        return None
    year = 1 - int(match[1]) if match[8] else int(match[1])
    era, within = divmod(year - 1, _ERA)
    try:
        day = dt.date(within + 1, int(match[2]), int(match[3]))
    except ValueError:
        return None
    hours, minutes, seconds = int(match[4]), int(match[5]), int(match[6])
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    days = day.toordinal() - _EPOCH + era * _ERA_DAYS
    total = days * _DAY + (hours * 3600 + minutes * 60 + seconds) * 1000 + int(fraction.ljust(3, "0") or 0)
    return total if -(2**63) <= total < 2**63 else None
