"""Row lines, row digests and order-free fingerprints.

A row's line is the concatenation of its fields, each `<octets>:<text>` in UTF-8, NULL as `-`. Its digest is the first 128 bits
of SHA-256 of the line, kept as two unsigned 64-bit lanes, big endian. A set of rows is summed as (count, sum of lane 0, sum of
lane 1), each lane modulo 2^64: order does not matter, duplicates count. Two lanes instead of one 128-bit sum, because both
PostgreSQL and MySQL add 64-bit integers exactly and cheaply.

Rows fall into 4,096 buckets by the first three hexadecimal digits of their own digest. Two sides that differ in one row differ in
at most two buckets, so only those are read again, on any engine, with or without a primary key.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dblens.values.speed import digest_lines

BUCKETS = 4096
_LANE = (1 << 64) - 1

Fields = Sequence[bytes | None]


def line(fields: Fields) -> bytes:
    """Return the line of one row of canonical texts."""
    return b"".join([b"-" if f is None else b"%d:%b" % (len(f), f) for f in fields])


def row_digest(fields: Fields) -> bytes:
    """Return the 16-octet digest of one row."""
    return hashlib.sha256(line(fields)).digest()[:16]


class Sum(msgspec.Struct, frozen=True, array_like=True):
    """Count of rows and the two lane sums modulo 2^64."""

    count: int = 0
    lane0: int = 0
    lane1: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, (self.lane0 + other.lane0) & _LANE, (self.lane1 + other.lane1) & _LANE)

    def __str__(self) -> str:
        return f"{self.count}:{self.lane0:016x}{self.lane1:016x}"


class Fingerprint(msgspec.Struct, frozen=True):
    """Sums of a table by bucket. Buckets without rows are absent."""

    buckets: dict[int, Sum]

    @property
    def total(self) -> Sum:
        """Sum over all buckets."""
        count = lane0 = lane1 = 0
        for part in self.buckets.values():
            count += part.count
            lane0 += part.lane0
            lane1 += part.lane1
        return Sum(count, lane0 & _LANE, lane1 & _LANE)

    def differing(self, other: Fingerprint) -> list[int]:
        """Return the buckets whose sums differ, ascending."""
        return sorted(
            b
            for b in self.buckets.keys() | other.buckets.keys()
            if self.buckets.get(b, Sum()) != other.buckets.get(b, Sum())
        )


def bucket_of(digest: bytes) -> int:
    """Return the bucket of a row digest: its first 12 bits."""
    return (digest[0] << 4) | (digest[1] >> 4)


class Accumulator:
    """Adds rows up into a fingerprint, in the client. Not for two threads at once."""

    def __init__(self) -> None:
        self.lanes = array("Q", bytes(3 * 8 * BUCKETS))
        """By bucket: count, first lane, second lane. `values.speed` adds to it in place."""

    def add_digest(self, digest: bytes) -> None:
        """Add a row by its 16-octet digest."""
        self._add(bucket_of(digest), 1, int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big"))

    def add_lines(self, lines: Iterable[bytes]) -> int:
        """Add rows by their lines; return how many."""
        batch: list[bytes] = []
        octets = n = 0
        for text in lines:
            batch.append(text)
            octets += len(text)
            if octets > 1 << 18:  # enough to make the call cheap, little enough to stay in the cache
                n += digest_lines(batch, self)
                batch.clear()
                octets = 0
        return n + digest_lines(batch, self)

    def add_rows(self, rows: Iterable[Fields]) -> int:
        """Add rows of canonical texts; return how many."""
        return self.add_lines(map(line, rows))

    def add_sums(self, sums: Mapping[int, Sum]) -> None:
        """Add sums that an engine computed."""
        for bucket, part in sums.items():
            self._add(bucket, part.count, part.lane0, part.lane1)

    def _add(self, bucket: int, count: int, lane0: int, lane1: int) -> None:
        at, lanes = 3 * bucket, self.lanes
        lanes[at] += count
        lanes[at + 1] = (lanes[at + 1] + lane0) & _LANE
        lanes[at + 2] = (lanes[at + 2] + lane1) & _LANE

    def fingerprint(self) -> Fingerprint:
        """Return what was added so far."""
        lanes = self.lanes.tolist()
        return Fingerprint({b: Sum(*lanes[3 * b : 3 * b + 3]) for b in range(BUCKETS) if lanes[3 * b]})
