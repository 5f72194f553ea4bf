"""The libpq beneath psycopg: COPY's rows taken from it in C, block by block.

psycopg makes an object of each row and hands the interpreter's lock over for it: 0.8 µs a row, of which the C loop leaves 0.2.
Only on Linux, with the C accelerator, and only where it is certain which libpq the driver calls; otherwise the driver itself is asked.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from psycopg import pq

from dblens.values import speed
from dblens.values.packed import Packed


class State(IntEnum):
    """Why a reading returned."""

    ENOUGH = 0
    PAUSED = 1
    """Nothing came for a while, or a signal did."""
    ENDED = 2
    NOT_READ = 3
    """The connection could not be read."""
    NOT_GOT = 4
    """The driver's library refused."""


Receive = Callable[[pq.abc.PGconn, int, Packed], tuple[State, Packed]]
"""Read on behind rows of before until they have so many octets. Raises MemoryError. Holds no lock of the interpreter meanwhile."""


def _where() -> str | None:
    """Return the file through which the driver calls libpq: its own extension module, or what ctypes loaded."""
    implementation = pq.__impl__
    if implementation == "python":
        name = getattr(getattr(sys.modules.get("psycopg.pq._pq_ctypes"), "pq", None), "_name", None)
    else:
        name = getattr(sys.modules.get(pq.PGconn.__module__), "__file__", None)
    return name if isinstance(name, str) else None


@functools.cache
def receiver() -> Receive | None:
    """Return what reads rows in C, or None where the driver has to."""
    module: Any = speed.module
    name = _where()
    if module is None or name is None or not hasattr(module, "libpq"):
        return None
    library = module.libpq(os.fsencode(name), pq.version())
    if library is None:
        return None

    def receive(pgconn: pq.abc.PGconn, least: int, held: Packed) -> tuple[State, Packed]:
        # Missing in the protocol's types, present in every implementation; None once the connection is closed.
        address: int = getattr(pgconn, "pgconn_ptr", None) or 0
        state, data, ends = module.receive(library, address, pgconn.socket, least, held.data, bytes(held.ends))
        return State(state), Packed(data, memoryview(ends).cast("q"))

    return receive
