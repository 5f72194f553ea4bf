"""One producer thread, a queue bounded in octets, one consumer: the client stays out of both servers' way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from dblens.engines.base import Block

QUEUE_OCTETS = 8 * 1024 * 1024


class Pipe:
    """Iterate blocks that another thread produces, at most `limit` octets ahead (one block may exceed it).

    The producer's exception is raised in the consumer; closing the consumer closes the producer's iterator.
    """

    def __init__(self, produce: Callable[[], Iterable[Block]], limit: int = QUEUE_OCTETS) -> None:
        self._produce = produce
        self._limit = limit
        self._blocks: deque[Block] = deque()
        self._octets = 0
        self._changed = threading.Condition()
        self._done = False
        self._stopped = False
        self._error: BaseException | None = None
        self.peak = 0
        self._thread = threading.Thread(target=self._run, name="dblens-producer", daemon=True)

    def _run(self) -> None:
        try:
            blocks = iter(self._produce())
            try:
                for block in blocks:
                    with self._changed:
                        while self._octets and self._octets + block.size > self._limit and not self._stopped:
                            self._changed.wait()
                        if self._stopped:
                            break
                        self._blocks.append(block)
                        self._octets += block.size
                        self.peak = max(self.peak, self._octets)
                        self._changed.notify_all()
            finally:
                close = getattr(blocks, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # noqa: BLE001 - handed over to the consumer, who raises it
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[Block]:
        self._thread.start()
        try:
            while True:
                with self._changed:
                    while not self._blocks and not self._done:
                        self._changed.wait()
                    if not self._blocks:
                        break
                    block = self._blocks.popleft()
                    self._octets -= block.size
                    self._changed.notify_all()
                yield block
            if self._error is not None:
                raise self._error
        finally:
            self.close()

    def close(self) -> None:
        """Stop the producer and wait for its end."""
        with self._changed:
            self._stopped = True
            self._blocks.clear()
            self._octets = 0
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
