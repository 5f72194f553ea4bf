"""More pairs of octets than memory holds, in order: sorted in parts, which lie in files without names and are merged when read."""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

Pair = tuple[bytes, bytes]
_ROOM: Final = 24 * 1024 * 1024
_OVERHEAD: Final = 160
"""Octets that Python needs for a pair beside its own."""
_MOST: Final = 64
"""Files open at once."""
_SIZES: Final = struct.Struct("<II")
_BUFFER: Final = 128 * 1024


class Sorter:
    """Takes pairs in any order, gives them back in order once; a context manager that leaves nothing behind."""

    def __init__(self, room: int = _ROOM) -> None:
        self._room, self._held, self._size = room, list[Pair](), 0
        self._parts: list[BinaryIO] = []

    def add(self, key: bytes, value: bytes) -> None:
        """Take a pair."""
        self._held.append((key, value))
        self._size += len(key) + len(value) + _OVERHEAD
        if self._size >= self._room:
            self._spill()

    def _spill(self) -> None:
        self._held.sort()
        self._parts.append(_written(iter(self._held)))
        self._held, self._size = [], 0
        if len(self._parts) >= _MOST:
            merged = _written(heapq.merge(*map(_read, self._parts)))
            self.close()
            self._parts = [merged]

    def sorted(self) -> Iterator[Pair]:
        """Yield all pairs in order."""
        self._held.sort()
        return heapq.merge(*map(_read, self._parts), iter(self._held))

    def close(self) -> None:
        """Give the disk back."""
        for part in self._parts:
            part.close()
        self._parts = []

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _written(pairs: Iterator[Pair]) -> BinaryIO:
    file = cast("BinaryIO", tempfile.TemporaryFile(prefix="dblens-", buffering=_BUFFER))  # noqa: SIM115 - its sorter's to close
    for key, value in pairs:
        file.write(_SIZES.pack(len(key), len(value)))
        file.write(key)
        file.write(value)
    return file


def _read(file: BinaryIO) -> Iterator[Pair]:
    file.seek(0)
    while head := file.read(_SIZES.size):
        key, value = _SIZES.unpack(head)
        yield file.read(key), file.read(value)
