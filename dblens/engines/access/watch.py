"""A watchdog over sockets: what a server may take in time and send in octets while it is not trusted to answer sensibly.

Drivers bound single reads, not their sum: a server that sends a notice every second, or one packet without end, would hold a thread for
ever. The watchdog shuts the sockets down, so that the driver's own read ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Literal

from dblens.errors import PermissionDenied

OCTETS = 16 * 1024 * 1024
"""What a server may send while a session opens; a few kilobytes are usual."""
_TICK = 0.05
_TCP_INFO_RECEIVED = 128  # offset of tcpi_bytes_received in struct tcp_info (Linux 4.1)


class Watch:
    """Sockets under one limit. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._armed = False
        self.tripped: Literal["", "time", "octets"] = ""
        self.refused: PermissionDenied | None = None
        """Why a host that the driver asked for was not dialled; drivers keep that to themselves."""

    def add(self, descriptor: int) -> None:
        """Watch a socket for as long as the watchdog is armed. Not armed, it does nothing."""
        with self._lock:
            if not self._armed:
                return
            twin = socket.socket(fileno=os.dup(descriptor))
            self._held.append(twin)
            late = bool(self.tripped)
        if late:
            self._cut()

    @contextlib.contextmanager
    def armed(self, seconds: float, octets: int = OCTETS) -> Iterator[Watch]:
        """Bound what is done inside: afterwards or beyond, the sockets are shut down and `tripped` says why."""
        self.tripped, self.refused, self._armed = "", None, True
        done = threading.Event()
        guard = threading.Thread(target=self._run, args=(done, seconds, octets), name="dblens-watch", daemon=True)
        guard.start()
        try:
            yield self
        finally:
            done.set()
            guard.join()
            with self._lock:
                self._armed = False
                held, self._held = self._held, []
            for twin in held:  # a twin left open would keep the connection alive behind its owner's back
                twin.close()

    def _run(self, done: threading.Event, seconds: float, octets: int) -> None:
        end = time.monotonic() + seconds
        while not done.wait(_TICK):
            with self._lock:
                received = sum(map(_received, self._held))
            if received > octets:
                self.tripped = "octets"
            elif time.monotonic() > end:
                self.tripped = "time"
            if self.tripped:
                self._cut()
                return

    def _cut(self) -> None:
        with self._lock:
            for twin in self._held:
                with contextlib.suppress(OSError):
                    twin.shutdown(socket.SHUT_RDWR)


def _received(twin: socket.socket) -> int:
    """Return the octets that a TCP connection has received, 0 where the kernel does not say (Unix sockets)."""
    try:
        info = twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return 0
    if len(info) < _TCP_INFO_RECEIVED + 8:
        return 0
    return int(struct.unpack_from("Q", info, _TCP_INFO_RECEIVED)[0])
