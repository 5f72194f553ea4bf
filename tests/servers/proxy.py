"""A TCP proxy that fails on command: cut, refuse, slow down, fall silent, lose one reply."""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

Direction = Literal["up", "down"]  # up: from the client to the server
BLOCK = 65536
GRACE_SECONDS = 0.1


class Proxy:
    """Forward a loopback port to a server. Faults are armed by methods and strike live connections."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.accepted = 0
        self.bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self.reply_lost = threading.Event()
        self.latency = 0.0
        self.refusing = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._budget: dict[Direction, int | None] = {"up": None, "down": None}
        self._pattern: bytes | None = None
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def url(self, url: str) -> str:
        """The same URL through this proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    def cut(self) -> None:
        """Reset every connection now; new ones are welcome."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()

    def refuse(self, refusing: bool = True) -> None:
        """Reset every new connection at once, until `refuse(False)`."""
        self.refusing = refusing

    def cut_after(self, count: int, direction: Direction = "down") -> None:
        """Forward so many more bytes in this direction, over all connections, then `cut` once."""
        with self._lock:
            self._budget[direction] = count

    def lose_reply_after(self, pattern: bytes) -> None:
        """Let the server read the next request that holds `pattern`, throw its reply away and reset the client.

        This is a lost acknowledgement: for `COMMIT`, the server has committed and the client cannot know.
        `reply_lost` is set when it has happened. Once only. Arm it when connected: drivers send texts such as
        `SET AUTOCOMMIT`, and what a TLS connection sends cannot be read.
        """
        self.reply_lost.clear()
        with self._lock:
            self._pattern = pattern

    def freeze(self) -> None:
        """Half open: keep every connection but forward nothing more."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward again what was held back."""
        self._flowing.set()

    def close(self) -> None:
        """Stop listening and reset every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self._listener.close()
        self.cut()
        self.thaw()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.target, timeout=10)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            pair = _Pair(self, client, server)
            with self._lock:
                self.accepted += 1
                self._pairs.add(pair)
            for way in ("up", "down"):
                threading.Thread(target=pair.pump, args=(way,), name=f"proxy-{way}", daemon=True).start()

    def _spend(self, direction: Direction, size: int) -> tuple[int, bool]:
        """How many of `size` bytes may pass, and whether the cut is due."""
        with self._lock:
            budget = self._budget[direction]
            allowed = size if budget is None else min(size, budget)
            self.bytes[direction] += allowed
            due = budget is not None and size >= budget
            if budget is not None:
                self._budget[direction] = None if due else budget - allowed
            return allowed, due

    def _matches(self, window: bytes) -> bool:
        with self._lock:
            if self._pattern is None or self._pattern not in window:
                return False
            self._pattern = None
            return True


class _Pair:
    """One client connection and its server connection."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.losing = self.dead = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pump(self, direction: Direction) -> None:
        source, sink = (self.client, self.server) if direction == "up" else (self.server, self.client)
        tail = b""
        try:
            while block := source.recv(BLOCK):
                self.proxy._flowing.wait()
                if self.proxy.latency:
                    time.sleep(self.proxy.latency)
                if direction == "up":
                    self.losing = self.losing or self.proxy._matches(tail + block)
                    tail = (tail + block)[-256:]
                elif self.losing:
                    self._lose()
                    return
                allowed, due = self.proxy._spend(direction, len(block))
                sink.sendall(block[:allowed])
                if due:
                    _delivered(sink)
                    self.proxy.cut()
                    return
            if not self.dead:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()
        finally:
            if direction == "down":
                self._forget()

    def _lose(self) -> None:
        """The reply began: give the server a moment to finish its work, then reset both ends."""
        time.sleep(GRACE_SECONDS)
        self.reset()
        self.proxy.reply_lost.set()

    def reset(self) -> None:
        self.dead = True
        for end in (self.client, self.server):
            _reset(end)
        self._forget()

    def _forget(self) -> None:
        with self.proxy._lock:
            self.proxy._pairs.discard(self)


def _delivered(end: socket.socket) -> None:
    """Wait until the other side's kernel holds all we sent: a reset throws away what is still queued here."""
    queued = array.array("i", [0])
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, queued)
        if not queued[0]:
            return
        time.sleep(0.001)


def _reset(end: socket.socket) -> None:
    """Close with RST instead of FIN, and wake a thread that is blocked on it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        end.close()
