"""The audit's writer in this process: what changes something is written at once, reads in batches.

Nothing runs unaudited: a read first takes a place in the buffer, and when the buffer is full, or what is in it cannot be written,
the read is refused. A process that is killed loses the reads of the last `age` seconds and no change.
"""

from __future__ import annotations

import atexit
import datetime as dt
import hmac
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dblens.errors import StoreError

if TYPE_CHECKING:
    from dblens.store.audit import Entry, Head, Row, Verdict
    from dblens.store.database import Store

_BATCH: Final = 500


class Journal:
    """Writes entries to a store's audit. One per process and store; safe for several threads."""

    def __init__(
        self, store: Store, key: bytes, *, size: int = 200, age: float = 1.0, room: int = 2000, patience: float = 2.0
    ) -> None:
        """Write reads when `size` of them wait, or one for `age` seconds; hold `room` at most; make a reader wait `patience` s."""
        self._store, self._key = store, key
        self._size, self._age, self._room, self._patience = size, age, room, patience
        self._changed = threading.Condition()
        self._writing = threading.Lock()  # one batch at a time, in order
        self._buffer: deque[tuple[float, Entry]] = deque()
        self._taken = 0
        self._failure: StoreError | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        atexit.register(self.close)

    def write(self, *entries: Entry) -> None:
        """Write entries now, after what waits. Raises StoreError: then nothing was written, and nothing may run."""
        self._drain(*entries)

    def reserve(self) -> None:
        """Take a place for a read that is about to run. Raises StoreError after `patience` seconds at most."""
        end = time.monotonic() + self._patience
        with self._changed:
            while True:
                if self._closed:
                    raise StoreError("the workspace is closed", hint="open it again")
                if self._failure is not None:
                    raise StoreError(
                        "the audit cannot be written, so nothing runs", hint="look at the store"
                    ) from self._failure
                if len(self._buffer) + self._taken < self._room:
                    self._taken += 1
                    return
                if not self._changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    raise StoreError(
                        f"the audit is {self._room} reads behind, so nothing runs", hint="the store is slow: look at it"
                    )

    def note(self, entry: Entry) -> None:
        """Fill the place that was taken. Never waits for the store."""
        with self._changed:
            self._taken -= 1
            self._keep(entry)

    def release(self) -> None:
        """Give the place back: the read did not run."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def owe(self, entry: Entry, failure: StoreError) -> None:
        """Keep the outcome of something that ran and could not be written; until it is, nothing else runs."""
        with self._changed:
            self._failure = failure
            self._keep(entry)

    def flush(self) -> None:
        """Write what waits. Raises StoreError."""
        self._drain()

    def close(self) -> None:
        """Write what waits and take nothing more. Raises StoreError when it cannot be written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._patience)
        self._drain()

    def verify(self, heads: Sequence[Head] = ()) -> Verdict:
        """Look at the whole chain, with what waits written first. Raises StoreError, InvalidInput."""
        from dblens.store import audit

        self.flush()
        with self._store.snapshot() as tx:
            return audit.verify(tx, self._key, heads=heads)

    def head(self, now: dt.datetime) -> str:
        """Return the chain's end, sealed, to be kept elsewhere. Raises StoreError."""
        from dblens.store import audit

        self.flush()
        with self._store.read() as tx:
            return audit.export_head(tx, self._key, now=now)

    def retain(self, before: dt.datetime, note: Entry) -> Row | None:
        """Delete the beginning of the chain that is older than an instant. Raises StoreError."""
        from dblens.store import audit

        self.flush()
        with self._writing, self._store.write() as tx:
            return audit.retain(tx, self._key, before=before, note=note)

    def key_for(self, purpose: str) -> bytes:
        """Return a key made of the audit's, for one purpose: every process of the store makes the same."""
        return hmac.digest(self._key, b"dblens " + purpose.encode(), "sha256")

    @property
    def waiting(self) -> int:
        """Return how many entries are not written yet."""
        return len(self._buffer)

    def _keep(self, entry: Entry) -> None:
        self._buffer.append((time.monotonic(), entry))
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="dblens-audit", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._due():
                    left = None if not self._buffer else self._buffer[0][0] + self._age - time.monotonic()
                    self._changed.wait(left)
                if self._closed:
                    return
            try:
                self._drain()
            except StoreError:  # kept in `_failure`: the next call is refused with it
                with self._changed:
                    if not self._closed:
                        self._changed.wait(self._age)

    def _due(self) -> bool:
        if not self._buffer:
            return False
        return len(self._buffer) >= self._size or time.monotonic() - self._buffer[0][0] >= self._age

    def _drain(self, *more: Entry) -> None:
        from dblens.store import audit

        with self._writing:
            while True:
                with self._changed:
                    batch = [entry for _, entry in list(self._buffer)[:_BATCH]]
                    last = len(batch) == len(self._buffer)
                if not batch and not more:
                    return
                try:
                    with self._store.write() as tx:
                        audit.append(tx, self._key, [*batch, *(more if last else ())])
                except Exception as error:  # whatever it was: nothing may run unaudited
                    failure = StoreError(
                        f"the audit cannot be written: {type(error).__name__}", hint="look at the store"
                    )
                    with self._changed:
                        self._failure = failure if batch else self._failure
                        self._changed.notify_all()
                    raise failure from error
                with self._changed:
                    for _ in batch:
                        self._buffer.popleft()
                    if last:
                        self._failure = None
                    self._changed.notify_all()
                if last:
                    return
