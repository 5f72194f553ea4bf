"""Execute runs: lease and heartbeat, progress, log, cancel, result; in place or on a bounded pool of threads.

The store is the truth. A worker that dies leaves a run whose lease expires; whoever sweeps next marks it crashed and frees its lock.
A cancel is a request in the store: the work hears of it at its next event, as Cancelled raised by `report`.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import socket
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import msgspec

from dblens.errors import Cancelled, Conflict, DBLensError, StoreError
from dblens.events import Event, Progress, Report, StepDone, StepStarted, Warned, silent
from dblens.store import records, runs
from dblens.store.database import Store
from dblens.store.runs import Run

T = TypeVar("T")
Clock = Callable[[], dt.datetime]
LEASE = dt.timedelta(seconds=30)
FLUSH_SECONDS = 1.0
"""How often progress and log lines reach the store while a run works."""
LONGEST_LOG = 10_000
"""Lines a run may log; what is beyond is counted, not kept."""


def worker_name() -> str:
    """Return a name for this process that no other process of any machine has."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"


class _Watch:
    """A run at work: what it said and did not write down yet, and whether it must stop."""

    def __init__(self, store: Store, run: Run, worker: str, lease: dt.timedelta, clock: Clock, also: Report) -> None:
        self.store, self.run, self.worker, self.lease, self.clock, self.also = store, run, worker, lease, clock, also
        self._lock = threading.Lock()
        self._lines: list[tuple[str, str]] = []
        self._logged = self._dropped = 0
        self._progress: Progress | None = None
        self._stop = threading.Event()
        self._due = clock()
        self.cancelled = False
        self.lost: Conflict | None = None

    def report(self, event: Event) -> None:
        """Note an event. Raises Cancelled when somebody asked the run to stop, Conflict when it is no longer this worker's."""
        if self.lost is not None:
            raise self.lost
        if self.cancelled:
            raise Cancelled(f"run {self.run.id} was cancelled")
        with self._lock:
            if isinstance(event, Progress):
                self._progress = event
            else:
                self._note(*_line(event))
        self.also(event)

    def _note(self, level: str, text: str) -> None:
        if self._logged < LONGEST_LOG:
            self._logged += 1
            self._lines.append((level, text))
        else:
            self._dropped += 1

    def note(self, level: str, text: str) -> None:
        """Add a line to the log."""
        with self._lock:
            self._note(level, text)

    def beat(self) -> None:
        """Write down what there is, renew the lease when a third of it is gone, hear of a cancel."""
        with self._lock:
            lines, self._lines = self._lines, []
            progress, self._progress = self._progress, None
        now = self.clock()
        due = now >= self._due
        if not (lines or progress or due):
            return
        org, run = self.run.org_id, self.run.id
        try:
            with self.store.write() as tx:
                found = runs.heartbeat(tx, org, run, self.worker, lease=self.lease, now=now)
                for level, text in lines:
                    runs.add_log(tx, org, run, text, level=level, now=now)
                if progress is not None:
                    runs.set_progress(tx, org, run, self.worker, msgspec.to_builtins(progress), now=now)
        except Conflict as error:
            self.lost = error
            return
        except StoreError:
            # The lease may outlive a short failure of the store; when it does not, the next beat says so.
            with self._lock:
                self._lines[:0] = lines
            return
        self._due = now + self.lease / 3
        self.cancelled = self.cancelled or found.cancel_at is not None

    def __enter__(self) -> _Watch:
        self._thread = threading.Thread(target=self._beats, name=f"dblens-run-{self.run.id[:8]}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._dropped:
            self._lines.append(("warning", f"{self._dropped} more lines were not kept"))
        self.beat()

    def _beats(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self.beat()


def _line(event: Event) -> tuple[str, str]:
    match event:
        case StepStarted(step=step, detail=detail):
            return "info", f"{step} …{f' {detail}' if detail else ''}"
        case StepDone(step=step, seconds=seconds, detail=detail):
            return "info", f"{step}: {seconds:.2f} s{f', {detail}' if detail else ''}"
        case Warned(message=message):
            return "warning", message
        case Progress(task=task, done=done):
            return "debug", f"{task}: {done}"


def execute(
    store: Store,
    run: Run,
    work: Callable[[Report], T],
    *,
    worker: str,
    clock: Clock = records.now,
    lease: dt.timedelta = LEASE,
    also: Report = silent,
    sealed: Callable[[T], object] = msgspec.to_builtins,
) -> T:
    """Execute a run that `worker` claimed: return what the work returns, `sealed` into the store as its result.

    Whatever the work raises is raised again after it was written down: DBLens' errors with code, message and hint, others by their
    class alone (their text may hold anything), with the traceback in the log by file and line.
    """
    with _Watch(store, run, worker, lease, clock, also) as watch:
        try:
            result = work(watch.report)
        except BaseException as error:  # noqa: BLE001 - written down here, raised again below
            watch.note("error", _told(error))
            failure: BaseException | None = error
        else:
            failure = None
    if failure is None:
        if watch.lost is not None:
            raise watch.lost
        with store.write() as tx:
            runs.finish(tx, run.org_id, run.id, worker, "succeeded", result=sealed(result), now=clock())
        return result
    state: runs.State = "cancelled" if isinstance(failure, Cancelled) and watch.cancelled else "failed"
    with suppress(Conflict), store.write() as tx:  # a run that was lost is somebody else's to end
        runs.finish(tx, run.org_id, run.id, worker, state, error=_shown(failure), now=clock())
    raise failure


def _shown(error: BaseException) -> dict[str, str | None]:
    if isinstance(error, DBLensError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {"code": "internal", "message": f"unexpected {type(error).__name__}", "hint": "the run's log says where"}


def _told(error: BaseException) -> str:
    if isinstance(error, DBLensError):
        return str(error)
    places = [
        f"{os.path.basename(f.filename)}:{f.lineno} in {f.name}" for f in traceback.extract_tb(error.__traceback__)
    ]
    return f"unexpected {type(error).__name__} at {' < '.join(reversed(places))}"


class Executor:
    """Runs of this process, a few at a time. `close` waits for them, or asks them to stop."""

    def __init__(self, store: Store, *, size: int = 4, clock: Clock = records.now, lease: dt.timedelta = LEASE) -> None:
        self.store, self.clock, self.lease = store, clock, lease
        self.worker = worker_name()
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="dblens-executor")
        self._at_work: dict[str, tuple[str, Future[object]]] = {}
        self._guard = threading.Lock()

    def start(
        self, run: Run, work: Callable[[Report], T], *, sealed: Callable[[T], object] = msgspec.to_builtins
    ) -> None:
        """Claim a queued run and execute it on the pool. Raises Conflict when its lock is held."""
        with self.store.write() as tx:
            claimed = runs.claim_one(tx, run.org_id, run.id, self.worker, lease=self.lease, now=self.clock())
        with self._guard:
            self._at_work[run.id] = (run.org_id, self._pool.submit(self._execute, claimed, work, sealed))

    def in_place(
        self,
        run: Run,
        work: Callable[[Report], T],
        *,
        also: Report = silent,
        sealed: Callable[[T], object] = msgspec.to_builtins,
    ) -> T:
        """Claim a queued run and execute it in the calling thread."""
        with self.store.write() as tx:
            claimed = runs.claim_one(tx, run.org_id, run.id, self.worker, lease=self.lease, now=self.clock())
        return execute(
            self.store, claimed, work, worker=self.worker, clock=self.clock, lease=self.lease, also=also, sealed=sealed
        )

    def _execute(self, run: Run, work: Callable[[Report], T], sealed: Callable[[T], object]) -> object:
        try:
            return execute(self.store, run, work, worker=self.worker, clock=self.clock, lease=self.lease, sealed=sealed)
        finally:
            with self._guard:
                self._at_work.pop(run.id, None)

    def wait(self, run_id: str, timeout: float | None = None) -> None:
        """Wait until a run of this process ended, however it ended. Returns at once for any other run."""
        with self._guard:
            found = self._at_work.get(run_id)
        if found is not None:
            found[1].exception(timeout)

    def sweep(self) -> tuple[Run, ...]:
        """Mark the runs of dead workers as crashed; return them."""
        with self.store.write() as tx:
            return runs.sweep(tx, now=self.clock())

    def close(self, *, cancel: bool = False) -> None:
        """Wait for what is at work; `cancel` asks it to stop first."""
        with self._guard:
            pending = [(run_id, org_id) for run_id, (org_id, _) in self._at_work.items()]
        for run_id, org_id in pending if cancel else ():
            with self.store.write() as tx:
                runs.request_cancel(tx, org_id, run_id, now=self.clock())
        self._pool.shutdown(wait=True)
