"""Ids and times of the store, and one frozen record per noun: the same from the store to the browser."""

from __future__ import annotations

import datetime as dt
import os
import time


def new_id() -> str:
    """Return a new id: 32 hexadecimal digits that sort by the time they were made (UUID version 7, RFC 9562)."""
    millis = time.time_ns() // 1_000_000
    noise = bytearray(os.urandom(10))
    noise[0] = 0x70 | (noise[0] & 0x0F)
    noise[2] = 0x80 | (noise[2] & 0x3F)
    return millis.to_bytes(6, "big").hex() + noise.hex()


def now() -> dt.datetime:
    """Return the time, aware, in UTC."""
    return dt.datetime.now(dt.UTC)
