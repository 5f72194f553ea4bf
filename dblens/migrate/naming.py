"""Names in the target: cut to its limit, kept apart where it folds case, the same every time, and shown in the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from dblens.engines.base import Facts
from dblens.errors import InvalidInput


class Names:
    """Hands out unique names within one scope of a target (tables of a namespace, columns of a table, indexes of a namespace)."""

    def __init__(self, facts: Facts, quote: Callable[[str], str] | None = None) -> None:
        self._facts = facts
        self._quote = quote
        self._taken: set[str] = set()

    def _size(self, name: str) -> int:
        return len(name.encode("utf-8", "surrogatepass")) if self._facts.identifier_unit == "octets" else len(name)

    def _fold(self, name: str) -> str:
        return name.lower() if self._facts.folds_case else name

    def _cut(self, name: str, limit: int) -> str:
        while self._size(name) > limit:
            name = name[:-1]
        return name

    def _can_hold(self, name: str) -> bool:
        """Tell whether the target's own quoting takes the name, apart from its length."""
        if self._quote is None or not name:
            return True
        try:
            self._quote(self._cut(name, self._facts.identifier_limit))
        except InvalidInput:
            return False
        return True

    def give(self, name: str) -> str:
        """Return the target's name for a source name: itself where possible, else a prefix and 8 hexadecimal digits of its SHA-256."""
        clean = name
        for character in self._facts.forbidden_in_names:
            clean = clean.replace(character, "_")
        if not self._can_hold(clean):
            # Characters that some engines' names cannot have: beyond the basic plane, blanks at the end, controls.
            clean = "".join(c if c < "\U00010000" and (c.isprintable() or c == "\n") else "_" for c in clean.rstrip())
            if not self._can_hold(clean):
                clean = "".join(c if c.isalnum() and c.isascii() else "_" for c in clean)
        if not clean or self._fold(clean).startswith(self._facts.reserved_prefixes or ("\0",)):
            clean = f"t_{clean}"
        if clean == name and self._size(clean) <= self._facts.identifier_limit and self._fold(clean) not in self._taken:
            self._taken.add(self._fold(clean))
            return clean
        for salt in range(1_000):
            seed = name if not salt else f"{name}\0{salt}"
            tail = "_" + hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            short = self._cut(clean, self._facts.identifier_limit - len(tail)) + tail
            if self._fold(short) not in self._taken:
                self._taken.add(self._fold(short))
                return short
        raise AssertionError("a thousand collisions of a 32-bit hash")
