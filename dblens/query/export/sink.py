"""Where the octets of a file go: counted, digested, compressed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from dblens.engines import arrow
from dblens.query.export.model import Compression, Losses

Write = Callable[[bytes], object]


class Sink:
    """What the writers of all formats see: something to write to that knows how far it is and cannot go back."""

    def __init__(self, write: Write) -> None:
        self._write, self._digest, self._octets = write, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write octets."""
        octets = bytes(data)
        if octets:
            self._digest.update(octets)
            self._octets += len(octets)
            self._write(octets)
        return len(octets)

    def tell(self) -> int:
        """Return how many octets there are."""
        return self._octets

    def digest(self) -> str:
        """Return their SHA-256."""
        return self._digest.hexdigest()

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is held here."""

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def readable(self) -> bool:
        """Return that it is not."""
        return False

    def seekable(self) -> bool:
        """Return that it is not."""
        return False


class Writer(Protocol):
    """One format: batches in, octets out."""

    losses: Losses
    keys: tuple[str, ...]

    def batch(self, batch: Any) -> None:
        """Write a batch's rows."""
        ...

    def end(self) -> None:
        """Write what comes last."""
        ...


class Octets:
    """Texts on their way into a sink, compressed or not."""

    def __init__(self, sink: Sink, compression: Compression) -> None:
        self._sink, self._pressed = sink, None
        if compression:
            pa = arrow.library()
            self._pressed = pa.CompressedOutputStream(pa.PythonFile(sink, mode="w"), compression)

    def write(self, data: Any) -> None:
        """Write octets: bytes or an Arrow buffer."""
        if self._pressed is None:
            self._sink.write(data)
        else:
            self._pressed.write(data)

    def end(self) -> None:
        """Write what the compression holds back."""
        if self._pressed is not None:
            self._pressed.close()
