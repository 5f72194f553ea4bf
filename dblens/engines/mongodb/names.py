"""Where DBLens keeps things in a database, and what it hides."""

from __future__ import annotations

import hashlib

PREFIX = "_dblens_"
RUNS = "_dblens_runs"
CHUNKS = "_dblens_chunks"
_LIMIT = 150  # octets of a collection's name; a namespace has 255 with the database's up to 63


def own(name: str) -> bool:
    """Tell whether a collection is DBLens' own."""
    return name.startswith(PREFIX)


def system(name: str) -> bool:
    """Tell whether a collection belongs to the server."""
    return name.startswith("system.")


def area(run: str, kind: str = "") -> str:
    """Return the prefix of a run's collections: staged ones, `_prev` or `_undo`."""
    return f"{PREFIX}{run}{kind}."


def within(prefix: str, name: str) -> str:
    """Return a collection's name in an area, shortened to a prefix and a hash when it would be too long."""
    full = prefix + name
    if len(full.encode("utf-8")) <= _LIMIT:
        return full
    tail = "_" + hashlib.sha256(name.encode("utf-8")).hexdigest()[:12]
    while len((full + tail).encode("utf-8")) > _LIMIT:
        full = full[:-1]
    return full + tail
