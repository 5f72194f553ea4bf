"""Ids and times of the store, and one frozen record per noun: the same from the store to the browser."""

from __future__ import annotations

import datetime as dt
import secrets
import threading
import time

_order = threading.Lock()
_last = 0


def new_id() -> str:
    """Return a new id: 32 hexadecimal digits that sort by the time they were made (UUID version 7, RFC 9562).

    Of one process also those of the same millisecond, and when the clock is set back.
    """
    global _last  # noqa: PLW0603
    made = (time.time_ns() // 1_000_000) << 74 | secrets.randbits(74)
    with _order:
        if made <= _last:
            made = _last + 1 + secrets.randbits(48)
        _last = made
    millis, high, low = made >> 74, made >> 62 & 0xFFF, made & (1 << 62) - 1
    return f"{millis << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"


def now() -> dt.datetime:
    """Return the time, aware, in UTC."""
    return dt.datetime.now(dt.UTC)
