"""Rows as PostgreSQL's binary COPY sends them, to canonical texts: the definition of what `_speed.c` does with them.

A message is a count of fields (16 bits), then each field as a length (32 bits, -1 for NULL) and its octets, all big endian.
Source of the layouts: PostgreSQL's documentation of COPY, "Binary Format", and the `*_send` functions of its types.

| kind | octets | text |
|---|---|---|
| r | a text | as it is |
| j | a text | form json |
| i | a signed integer of 2, 4 or 8 octets | digits |
| f | a double | form float |
| v | a boolean | 1 or 0 |
| b | any | hex |
| a | days since 2000-01-01, 4 octets | form date |
| w | microseconds since 2000-01-01, 8 octets | form timestamp |
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from dblens.values.codec import canonical
from dblens.values.forms import Form

_DAY = 86_400_000_000
_CYCLE = 146_097
"""Days in 400 years of the Gregorian calendar."""
_TO_MARCH = 730_425
"""Days from 1 March of year 0 to 2000-01-01."""


def _civil(days: int) -> tuple[str, str]:
    """Return the date of a day since 2000-01-01 and what follows years before 1.

    Years are reckoned from 1 March of a year divisible by 400 (H. Hinnant, "chrono-compatible low-level date algorithms").
    """
    cycle, day = divmod(days + _TO_MARCH, _CYCLE)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    year += 400 * cycle + (month > 9)
    era = ""
    if year < 1:
        year, era = 1 - year, " BC"
    return f"{year:04d}-{month + 3 if month < 10 else month - 9:02d}-{day + 1:02d}", era


def _date(raw: bytes) -> bytes:
    days = _whole(raw, (4,))
    if days in (2**31 - 1, -(2**31)):
        return b"infinity" if days > 0 else b"-infinity"
    return "".join(_civil(days)).encode()


def _timestamp(raw: bytes) -> bytes:
    micros = _whole(raw, (8,))
    if micros in (2**63 - 1, -(2**63)):
        return b"infinity" if micros > 0 else b"-infinity"
    days, rest = divmod(micros, _DAY)
    date, era = _civil(days)
    seconds, micros = divmod(rest, 1_000_000)
    fraction = f".{micros:06d}".rstrip("0").rstrip(".")
    return f"{date} {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}{era}".encode()


def _whole(raw: bytes, sizes: tuple[int, ...] = (2, 4, 8)) -> int:
    if len(raw) not in sizes:
        raise ValueError(f"an integer of {len(raw)} octets")
    return int.from_bytes(raw, "big", signed=True)


def _float(raw: bytes) -> bytes:
    if len(raw) != 8:
        raise ValueError(f"a double of {len(raw)} octets")
    return canonical(Form.FLOAT, struct.unpack(">d", raw)[0]) or b""


def _flag(raw: bytes) -> bytes:
    if raw not in (b"\0", b"\1"):
        raise ValueError(f"no boolean: {raw!r}")
    return b"%d" % raw[0]


KINDS: dict[int, Callable[[bytes], bytes]] = {
    ord("r"): bytes,
    ord("j"): lambda raw: canonical(Form.JSON, raw) or b"",
    ord("i"): lambda raw: b"%d" % _whole(raw),
    ord("f"): _float,
    ord("v"): _flag,
    ord("b"): lambda raw: raw.hex().encode(),
    ord("a"): _date,
    ord("w"): _timestamp,
}


def texts(message: bytes | memoryview, kinds: bytes) -> tuple[bytes | None, ...]:
    """Return the canonical texts of a row's message. Raises ValueError for one of another width or shape."""
    data = bytes(message)
    if len(data) < 2 or int.from_bytes(data[:2], "big", signed=True) != len(kinds):
        raise ValueError(f"a row of another width than {len(kinds)}")
    at, row = 2, list[bytes | None]()
    for kind in kinds:
        size = int.from_bytes(data[at : at + 4], "big", signed=True)
        at += 4
        if size < -1 or at + max(size, 0) > len(data):
            raise ValueError("a row that ends early")
        row.append(None if size < 0 else KINDS[kind](data[at : at + size]))
        at += max(size, 0)
    if at != len(data):
        raise ValueError("a row with more behind its last field")
    return tuple(row)


def lines(messages: Sequence[bytes | memoryview], kinds: bytes) -> list[bytes]:
    """Return the row lines of messages."""
    return [
        b"".join([b"-" if text is None else b"%d:%b" % (len(text), text) for text in texts(message, kinds)])
        for message in messages
    ]
