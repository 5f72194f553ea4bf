"""The answer to one command, read off the connection packet by packet: columns with all that the server tells of them, rows in batches.

pymysql opens the connection (login, TLS); from a command's end to its answer's end this reads by itself. A packet's length is known
before the packet, so a cell over the cap is refused unread, and rows are cut out of large pieces, which takes a third of pymysql's
time. mysqlclient tells neither where a column's values lie nor their character set, and swallows a cell of any size.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pymysql
from pymysql.constants import COMMAND, CR

from dblens.engines.mysql.driver import Raw
from dblens.errors import InvalidInput

PIECE: Final = 256 * 1024
LONG: Final = 1024 * 1024
"""A packet longer than this is read cell by cell."""
PATIENCE: Final = 0.05
"""Seconds that rows wait for more to come with them."""
_MORE, _IN_TRANSACTION, _IN_READ_ONLY = 0x8, 0x1, 0x2000
_FULL: Final = 0xFFFFFF


class Column(NamedTuple):
    """A column as the server describes it."""

    namespace: str
    table: str
    name: str
    origin: str
    charset: int
    length: int
    type: int
    flags: int
    decimals: int


class Done(NamedTuple):
    """What the server says at the end."""

    affected: int
    status: int
    warnings: int
    message: str = ""

    @property
    def more(self) -> bool:
        return bool(self.status & _MORE)

    @property
    def in_transaction(self) -> bool:
        return bool(self.status & _IN_TRANSACTION)

    @property
    def in_read_only(self) -> bool:
        return self.status & (_IN_TRANSACTION | _IN_READ_ONLY) == _IN_TRANSACTION | _IN_READ_ONLY


class Wire:
    """The reading side of a connection while a command is answered."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._buffer = b""
        self._at = 0
        self.read = 0  # rows so far, of this answer
        self.done: Done | None = None
        self._left, self._full = 0, False  # of a packet that is passed over
        self._amid = False  # within a row that was given up: what follows cannot be told apart any more
        self._binary = False
        self._columns: tuple[Column, ...] = ()

    # ------------------------------------------------------------------------------------------------------------ commands

    def query(self, statement: bytes) -> tuple[Column, ...]:
        """Send a statement and return the columns of its answer; none: `done` tells what came of it."""
        self._start(COMMAND.COM_QUERY, statement, binary=False)
        return self._head()

    def prepared(self, statement: bytes) -> tuple[Column, ...]:
        """Do the same by the binary protocol, in which a FLOAT keeps all its digits."""
        self._start(COMMAND.COM_STMT_PREPARE, statement, binary=True)
        made = self._packet()
        number, columns, params = struct.unpack_from("<IHH", made, 1)
        for count in (params, columns):
            for _ in range(count and count + 1):
                self._packet()
        self._statement = number
        self._start(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", number, 0, 1), binary=True)
        return self._head()

    def forget(self) -> None:
        """Free what `prepared` made; it has no answer."""
        self._raw._execute_command(COMMAND.COM_STMT_CLOSE, struct.pack("<I", self._statement))

    def next(self) -> tuple[Column, ...]:
        """Return the columns of the next answer to the same command, when `done` says that there are more."""
        self.done, self.read = None, 0
        return self._head()

    def _start(self, command: int, octets: bytes, *, binary: bool) -> None:
        self._buffer, self._at, self.read, self.done, self._binary = b"", 0, 0, None, binary
        self._amid, self._left, self._full = False, 0, False
        if self._raw._sock is not None:
            self._raw._sock.settimeout(self._raw._read_timeout)
        self._raw._execute_command(command, octets)

    def _head(self) -> tuple[Column, ...]:
        first = self._packet()
        if first[0] == 0:
            self.done, self._columns = _ok(first), ()
            return ()
        if first[0] == 0xFB:  # the server asks for a local file
            self._raw._force_close()
            raise RuntimeError("LOAD_LOCAL")
        count, _ = _number(first, 0)
        self._columns = tuple([_column(self._packet()) for _ in range(count)])
        self._packet()  # the end of the columns
        return self._columns

    # ------------------------------------------------------------------------------------------------------------- packets

    def _fill(self) -> None:
        """Read the next piece behind what is there."""
        piece = self._raw._rfile.read1(PIECE)
        if not piece:
            self._raw._force_close()
            raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
        self._buffer = self._buffer[self._at :] + piece if self._at < len(self._buffer) else piece
        self._at = 0

    def _take(self, size: int) -> bytes:
        while len(self._buffer) - self._at < size:
            if size > LONG:
                return self._gathered(size)
            self._fill()
        start = self._at
        self._at += size
        return self._buffer[start : self._at]

    def _gathered(self, size: int) -> bytes:
        pieces = [self._buffer[self._at :]]
        left = size - len(pieces[0])
        self._buffer, self._at = b"", 0
        while left > 0:
            piece = self._raw._rfile.read1(min(left, LONG))
            if not piece:
                self._raw._force_close()
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _packet(self) -> bytes:
        """Return a whole packet that is no row. Raises what the server says in it, if it is an error."""
        header = self._take(4)
        packet = self._take(int.from_bytes(header[:3], "little"))
        if packet[:1] == b"\xff":
            self.done = Done(0, 0, 0)
            pymysql.err.raise_mysql_exception(packet)
        return packet

    def _ready(self, seconds: float) -> bool:
        """Return whether more of the answer has come, or comes in so many seconds."""
        sock = self._raw._sock
        if getattr(sock, "pending", lambda: 0)():
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    # ---------------------------------------------------------------------------------------------------------------- rows

    def batches(self, rows: int, octets: int, cell: int) -> Iterator[list[Raw]]:
        """Yield rows as the server sends them, few at first; at the end `done` is there."""
        found: list[Raw] = []
        size, first, began = 0, True, time.monotonic()
        while self.done is None:
            before = self._at
            room = rows if not first else min(rows, 256)
            long = self._cut(found, room - len(found), octets - size)
            size += self._at - before
            if long is not None and self.done is None:
                size += self._long_row(found, long, cell)
            full = len(found) >= room or size >= octets
            late = found and (first or time.monotonic() - began > PATIENCE)
            if found and (full or self.done is not None or (late and self._incomplete()) or not self._coming(found)):
                self.read += len(found)
                yield found
                found, size, first, began = [], 0, False, time.monotonic()
            if self.done is None and self._incomplete():
                self._fill()

    def _coming(self, found: list[Raw]) -> bool:
        return not (found and self._incomplete()) or self._ready(PATIENCE)

    def _incomplete(self) -> bool:
        """Return whether the packet that comes next is not whole yet (a long one never has to be)."""
        have = len(self._buffer) - self._at
        if have < 4:
            return True
        length = int.from_bytes(self._buffer[self._at : self._at + 3], "little")
        return length <= LONG and have < 4 + length

    def _cut(self, found: list[Raw], room: int, octets: int) -> int | None:
        """Cut whole rows out of the buffer. Return the length of a long packet that comes next, None when there is none."""
        buffer, at, end, width = self._buffer, self._at, len(self._buffer), len(self._columns)
        stop_at = at + octets
        cells = self._texts() if self._binary else None
        while room > 0 and at < stop_at and end - at >= 4:
            length = buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16
            if length > LONG:
                self._at = at
                return length
            place = at + 4
            after = place + length
            if after > end:
                break
            mark = buffer[place] if length else 0
            if mark == 0xFF:
                self._at, self.done = after, Done(0, 0, 0)
                pymysql.err.raise_mysql_exception(buffer[place:after])
            if mark == 0xFE and length < 9:
                warnings, status = struct.unpack_from("<HH", buffer, place + 1)
                self._at, self.done = after, Done(0, status, warnings)
                return None
            if cells is not None:
                found.append(cells(buffer[place:after]))
            else:
                row: list[bytes | None] = []
                for _ in range(width):
                    size = buffer[place]
                    place += 1
                    if size < 0xFB:
                        row.append(buffer[place : place + size])
                        place += size
                    elif size == 0xFB:
                        row.append(None)
                    else:
                        octets_of = 2 if size == 0xFC else 3 if size == 0xFD else 8
                        size = int.from_bytes(buffer[place : place + octets_of], "little")
                        place += octets_of
                        row.append(buffer[place : place + size])
                        place += size
                found.append(tuple(row))
            at = after
            room -= 1
        self._at = at
        return None

    def _long_row(self, found: list[Raw], length: int, cell: int) -> int:
        """Read a long row cell by cell; refuse a cell over the cap before it is read. Return the row's octets."""
        row = _Row(self, length)
        self._amid = True
        number = self.read + len(found) + 1
        if self._binary:
            mark = row.take(1)
            width = len(self._columns)
            nulls = row.take((width + 9) // 8)
            return self._long_binary(found, row, mark, nulls, cell, number)
        cells: list[bytes | None] = []
        for column in self._columns:
            size = row.number()
            if size is None:
                cells.append(None)
                continue
            _check(column, number, size, row.size + size, cell)
            cells.append(row.take(size))
        row.end()
        self._amid = False
        found.append(tuple(cells))
        return row.size

    def _long_binary(self, found: list[Raw], row: _Row, mark: bytes, nulls: bytes, cell: int, number: int) -> int:
        pieces = [mark, nulls]
        for index, column in enumerate(self._columns):
            if nulls[(index + 2) // 8] >> ((index + 2) % 8) & 1:
                continue
            fixed = _FIXED.get(column.type)
            if fixed is not None:
                pieces.append(row.take(fixed))
            elif column.type in _MOMENTS:
                head = row.take(1)
                pieces += [head, row.take(head[0])]
            else:
                size = row.number() or 0
                _check(column, number, size, row.size + size, cell)
                pieces += [b"\xfe", size.to_bytes(8, "little"), row.take(size)]
        row.end()
        self._amid = False
        found.append(self._texts()(b"".join(pieces)))
        return row.size

    def _texts(self) -> Callable[[bytes], Raw]:
        """Return what writes a row of the binary protocol as the text protocol would, with all digits."""
        readers = [_reader(column) for column in self._columns]
        width = len(readers)
        offset = 1 + (width + 9) // 8

        def texts(packet: bytes) -> Raw:
            place = offset
            row: list[bytes | None] = []
            for index, read in enumerate(readers, 2):
                if packet[1 + index // 8] >> (index % 8) & 1:
                    row.append(None)
                else:
                    value, place = read(packet, place)
                    row.append(value)
            return tuple(row)

        return texts

    def drain(self, seconds: float, octets: int = 64 * 1024 * 1024) -> bool:
        """Read the rest of the answer away, for so long and so much at most. Return whether it has ended."""
        until = time.monotonic() + seconds
        sock = self._raw._sock
        if sock is None or self._amid:
            return False
        while True:
            have = len(self._buffer) - self._at
            if self._left:
                passed = min(have, self._left)
                self._at += passed
                self._left -= passed
                octets -= passed
                if not self._left:
                    continue
            elif have >= 4:
                length = int.from_bytes(self._buffer[self._at : self._at + 3], "little")
                if self._full or length > LONG:
                    self._at += 4
                    self._left, self._full = length, length == _FULL
                    continue
                if have >= 4 + length:
                    packet = self._buffer[self._at + 4 : self._at + 4 + length]
                    self._at += 4 + length
                    octets -= length
                    if packet[:1] == b"\xff":
                        self.done = Done(0, 0, 0)
                        return True
                    if packet[:1] != b"\xfe" or length >= 9:
                        continue
                    warnings, status = struct.unpack_from("<HH", packet, 1)
                    self.done = Done(0, status, warnings)
                    while self.done is not None and self.done.more:
                        self.next()
                    if self.done is not None:
                        return True
                    continue
            if octets < 0 or time.monotonic() > until or not self._ready(max(until - time.monotonic(), 0)):
                return False
            self._fill()


class _Row:
    """A long row: the octets behind the headers of all its packets."""

    def __init__(self, wire: Wire, length: int) -> None:
        self._wire = wire
        wire._take(4)
        self._left, self._full = length, length == _FULL
        self.size = 0

    def take(self, size: int) -> bytes:
        pieces = []
        self.size += size
        while True:
            part = min(size, self._left)
            pieces.append(self._wire._take(part))
            self._left -= part
            size -= part
            if not size:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._next()

    def _next(self) -> None:
        self._left = int.from_bytes(self._wire._take(4)[:3], "little")
        self._full = self._left == _FULL

    def number(self) -> int | None:
        first = self.take(1)[0]
        if first < 0xFB:
            return first
        if first == 0xFB:
            return None
        return int.from_bytes(self.take(2 if first == 0xFC else 3 if first == 0xFD else 8), "little")

    def end(self) -> None:
        """Take the empty packet that follows a row that fills its last one."""
        if self._full and not self._left:
            self._next()


def _check(column: Column, row: int, size: int, so_far: int, cell: int) -> None:
    if size > cell:
        raise InvalidInput(
            f"column {column.name!r} of row {row} holds {size:,} octets, more than the {cell:,} that a cell may have here",
            hint="ask for a part of it (left(…), substring(…)) or its length(…), or raise the cap of a cell",
        )
    if so_far > 4 * cell:
        raise InvalidInput(
            f"row {row} holds more than {4 * cell:,} octets, up to column {column.name!r}",
            hint="ask for fewer columns, or raise the cap of a cell",
        )


def _number(packet: bytes, at: int) -> tuple[int, int]:
    first = packet[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(packet[at + 1 : at + 1 + size], "little"), at + 1 + size


def _ok(packet: bytes) -> Done:
    affected, at = _number(packet, 1)
    _, at = _number(packet, at)
    status, warnings = struct.unpack_from("<HH", packet, at)
    at += 4
    size, at = _number(packet, at) if at < len(packet) else (0, at)
    return Done(affected, status, warnings, packet[at : at + size].decode("utf-8", "replace"))


def _column(packet: bytes) -> Column:
    texts = []
    at = 0
    for _ in range(6):
        size, at = _number(packet, at)
        texts.append(packet[at : at + size].decode("utf-8", "replace"))
        at += size
    charset, length, type, flags, decimals = struct.unpack_from("<HIBHB", packet, at + 1)
    return Column(texts[1], texts[3], texts[4], texts[5], charset, length, type, flags, decimals)


# ------------------------------------------------------------------------------------------------------- the binary protocol

_Read = Callable[[bytes, int], tuple[bytes, int]]
_MOMENTS = frozenset({7, 10, 11, 12})
_FIXED = {1: 1, 2: 2, 13: 2, 3: 4, 9: 4, 8: 8, 4: 4, 5: 8}
_SIGNED = {1: "<b", 2: "<h", 3: "<i", 9: "<i", 8: "<q"}


def _reader(column: Column) -> _Read:
    kind = column.type
    if kind in _SIGNED:
        form = _SIGNED[kind].upper() if column.flags & 32 else _SIGNED[kind]
        return _packed(form, _FIXED[kind])
    if kind == 13:
        return _packed("<H", 2)
    if kind in (4, 5):
        return _packed("<f" if kind == 4 else "<d", _FIXED[kind])
    if kind in _MOMENTS:
        return {10: _date, 11: _time}.get(kind, _timestamp)
    return _string


def _packed(form: str, size: int) -> _Read:
    unpack = struct.Struct(form).unpack_from

    def read(packet: bytes, at: int) -> tuple[bytes, int]:
        return repr(unpack(packet, at)[0]).encode(), at + size

    return read


def _string(packet: bytes, at: int) -> tuple[bytes, int]:
    size, at = _number(packet, at)
    return packet[at : at + size], at + size


def _date(packet: bytes, at: int) -> tuple[bytes, int]:
    size = packet[at]
    year, month, day = struct.unpack_from("<HBB", packet, at + 1) if size else (0, 0, 0)
    return f"{year:04d}-{month:02d}-{day:02d}".encode(), at + 1 + size


def _timestamp(packet: bytes, at: int) -> tuple[bytes, int]:
    size = packet[at]
    date, _ = _date(packet, at)
    clock = struct.unpack_from("<BBB", packet, at + 5) if size >= 7 else (0, 0, 0)
    micros = struct.unpack_from("<I", packet, at + 8)[0] if size >= 11 else 0
    text = date.decode() + " {:02d}:{:02d}:{:02d}".format(*clock)
    return (f"{text}.{micros:06d}" if micros else text).encode(), at + 1 + size


def _time(packet: bytes, at: int) -> tuple[bytes, int]:
    size = packet[at]
    if not size:
        return b"00:00:00", at + 1
    negative, days, hours, minutes, seconds = struct.unpack_from("<BIBBB", packet, at + 1)
    micros = struct.unpack_from("<I", packet, at + 9)[0] if size >= 12 else 0
    text = f"{'-' if negative else ''}{days * 24 + hours:02d}:{minutes:02d}:{seconds:02d}"
    return (f"{text}.{micros:06d}" if micros else text).encode(), at + 1 + size
