"""What a delimited file does not say of itself: its delimiter, and whether its first record names the columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from dblens.engines.files.records import records

_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE: Final = 200
_VALUE: Final = re.compile(r"[+-]?\d[\d.,:/ TZ+-]*|true|false", re.IGNORECASE | re.ASCII)


def delimiter(text: str) -> str:
    """Return the delimiter that cuts the sample's records most evenly into most cells; a comma when none does."""
    best, found = (0.0, 0), ","
    for each in _DELIMITERS:
        if each not in text:
            continue
        widths = Counter[int]()
        for record in records(text, each, frozenset(), 1):
            widths[len(record.cells)] += 1
            if widths.total() >= _SAMPLE:
                break
        width, count = widths.most_common(1)[0]
        score = (round(count / widths.total(), 2), width)
        if width > 1 and score > best:
            best, found = score, each
    return found


def header(first: Sequence[str | None]) -> bool:
    """Return whether a first record names columns: no cell of it is a number, a date, or nothing."""
    return all(cell and _VALUE.fullmatch(cell) is None for cell in first)
