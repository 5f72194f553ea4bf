"""Many rows' octets in one block: what a COPY sends, without an object a row.

`values.speed` and `values.exchange` read the block in C; to Python it is a sequence of octets.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload


class Packed(Sequence[memoryview]):
    """Rows side by side in `data`: the first from `begin` to `ends[0]`, each next one from there to its own end."""

    __slots__ = ("begin", "data", "ends")

    def __init__(self, data: bytes, ends: memoryview, begin: int = 0) -> None:
        self.data = data
        self.ends = ends
        """Signed 64-bit integers, ascending."""
        self.begin = begin

    @classmethod
    def of(cls, rows: Iterable[bytes | memoryview]) -> Packed:
        """Pack rows."""
        given = list(rows)
        return cls(b"".join(given), memoryview(array("q", accumulate(map(len, given)))))

    def __len__(self) -> int:
        return len(self.ends)

    def _from(self, index: int) -> int:
        return self.ends[index - 1] if index > 0 else self.begin

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Packed: ...
    def __getitem__(self, index: int | slice) -> memoryview | Packed:
        """Return one row, or some that follow one another without copying them. Raises IndexError, and ValueError for a step."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("packed rows are cut without a step")
            return Packed(self.data, self.ends[start : max(start, stop)], self._from(start))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError("no such row")
        return memoryview(self.data)[self._from(place) : self.ends[place]]

    def __iter__(self) -> Iterator[memoryview]:
        octets, begin = memoryview(self.data), self.begin
        for end in self.ends:
            yield octets[begin:end]
            begin = end

    def without(self, octets: int) -> Packed:
        """Return the same rows with the first one shorter by its first octets."""
        return Packed(self.data, self.ends, self.begin + octets)
