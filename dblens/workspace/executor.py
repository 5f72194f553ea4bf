"""Execute runs: lease and heartbeat, progress, log, cancel, result; in place or on a bounded pool of threads.

The store is the truth. A worker that dies leaves a run whose lease expires; whoever sweeps next marks it crashed and frees its lock.
A cancel is a request in the store: the work hears of it at its next event, as Cancelled raised by `report`.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import secrets
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

import msgspec

from dblens.errors import Cancelled, Conflict, DBLensError, EngineError, NotFound, StoreError
from dblens.events import Event, Progress, Report, StepDone, StepStarted, Warned, silent
from dblens.store import locks, records, runs
from dblens.store.database import Store
from dblens.store.runs import Run

T = TypeVar("T")
log = logging.getLogger(__name__)
Clock = Callable[[], dt.datetime]
LEASE = dt.timedelta(seconds=30)
FLUSH_SECONDS = 1.0
"""How often progress and log lines reach the store while a run works."""
LONGEST_LOG = 10_000
"""Lines a run may log; what is beyond is counted, not kept."""


_watch: ContextVar[_Watch | None] = ContextVar("dblens_watch", default=None)


@contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Have `stop` called, from another thread, when the run at work here is cancelled; it ends the statement that runs."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    with watch.stopped_by(stop):
        try:
            yield
        except EngineError as error:
            if watch.cancelled and not isinstance(error, Cancelled):
                raise watch.told() from error  # a statement that was ended says so in many ways
            raise


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
        self._stops: list[Callable[[], object]] = []
        self._stopped = 0
        self._wake = threading.Event()
        self._ended = False
        self._due = clock()
        self.cancelled = False
        self.lost: Conflict | None = None

    def report(self, event: Event) -> None:
        """Note an event. Raises Cancelled when somebody asked the run to stop, Conflict when it is no longer this worker's."""
        if self.lost is not None:
            raise self.lost
        if self.cancelled:
            raise self.told()
        with self._lock:
            if isinstance(event, Progress):
                self._progress = event
            else:
                self._note(*_line(event))
        self.also(event)

    def told(self) -> Cancelled:
        """Return what the work is told when it must stop."""
        return Cancelled(f"run {self.run.id} was cancelled")

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

    def cancel(self) -> None:
        """Hear of a cancel at once, without waiting for the next beat."""
        self.cancelled = True
        self._wake.set()

    @contextmanager
    def stopped_by(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call `stop` when the run is cancelled, or is no longer this worker's."""
        with self._lock:
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)

    def _stop_all(self) -> None:
        """End the statements that run now. Twice: one may have begun just after the first time, and no event came since."""
        if self._stopped >= 2 or not (self.cancelled or self.lost is not None):
            return
        self._stopped += 1
        with self._lock:
            stops = list(self._stops)
        for stop in stops:
            try:
                stop()
            except Exception as error:  # noqa: BLE001 - the lease must be renewed whatever a driver says
                self.note("warning", f"a statement could not be stopped: {_told(error)}")

    def beat(self) -> None:
        """Write down what there is, renew the lease when a third of it is gone, hear of a cancel."""
        with self._lock:
            lines, self._lines = self._lines, []
            progress, self._progress = self._progress, None
        now = self.clock()
        org, run = self.run.org_id, self.run.id
        try:
            if not (lines or progress or now >= self._due):
                with self.store.read() as tx:  # cheap, so that a silent statement hears of a cancel too
                    self.cancelled = self.cancelled or runs.get_run(tx, org, run).cancel_at is not None
                return
            with self.store.write() as tx:
                found = runs.heartbeat(tx, org, run, self.worker, lease=self.lease, now=now)
                for level, text in lines:
                    runs.add_log(tx, org, run, text, level=level, now=now)
                if progress is not None:
                    runs.set_progress(tx, org, run, self.worker, msgspec.to_builtins(progress), now=now)
        except (Conflict, NotFound) as error:
            self.lost = error if isinstance(error, Conflict) else Conflict(f"run {run} was deleted")
            return
        except StoreError:
            # The lease may outlive a short failure of the store; when it does not, the next beat says so.
            with self._lock:
                self._lines[:0] = lines
                self._progress = self._progress or progress
            return
        self._due = now + self.lease / 3
        self.cancelled = self.cancelled or found.cancel_at is not None

    def __enter__(self) -> _Watch:
        self._thread = threading.Thread(target=self._beats, name=f"dblens-run-{self.run.id[:8]}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join()
        if self._dropped:
            self._lines.append(("warning", f"{self._dropped} more lines were not kept"))
        self.beat()

    def _beats(self) -> None:
        while True:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            if self._ended:
                return
            self.beat()
            self._stop_all()


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
    watched: Callable[[_Watch], object] = id,
) -> T:
    """Execute a run that `worker` claimed: return what the work returns, `sealed` into the store as its result.

    Whatever the work raises is raised again after it was written down: DBLens' errors with code, message and hint, others by their
    class alone (their text may hold anything), with the traceback in the log by file and line.
    """
    with _Watch(store, run, worker, lease, clock, also) as watch:
        watched(watch)
        token = _watch.set(watch)
        try:
            result = work(watch.report)
        except BaseException as error:  # noqa: BLE001 - written down here, raised again below
            watch.note("error", _told(error))
            failure: BaseException | None = error
        else:
            failure = None
        finally:
            _watch.reset(token)
    if failure is None:
        if watch.lost is not None:
            raise watch.lost
        with store.write() as tx:
            runs.finish(tx, run.org_id, run.id, worker, "succeeded", result=sealed(result), now=clock())
        return result
    state: runs.State = "cancelled" if isinstance(failure, Cancelled) and watch.cancelled else "failed"
    with suppress(Conflict), store.write() as tx:  # a run that was lost is somebody else's to end
        runs.finish(tx, run.org_id, run.id, worker, state, error=shown(failure), now=clock())
    raise failure


def shown(error: BaseException) -> dict[str, str | None]:
    """Return an error as a run keeps it: of an unexpected one the class alone, its text may hold anything."""
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
        self._waiting: dict[str, tuple[str, Future[None]]] = {}
        self._watches: dict[str, _Watch] = {}
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def claim(self, run: Run) -> Run:
        """Take a queued run for this process. Raises Conflict when it is not queued, or its lock is held."""
        with self.store.write() as tx:
            return runs.claim_one(tx, run.org_id, run.id, self.worker, lease=self.lease, now=self.clock())

    def enqueue(self, run: Run, begin: Callable[[], object]) -> None:
        """Have `begin` called by the next free thread. Until then this process keeps its queued runs alive by their lease."""
        with self._guard:
            self._waiting[run.id] = (run.org_id, self._pool.submit(self._begun, run, begin))
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="dblens-queue", daemon=True)
                self._keeper.start()

    def _begun(self, run: Run, begin: Callable[[], object]) -> None:
        try:
            begin()
        except BaseException as error:  # noqa: BLE001 - the run says how it ended; the thread has nobody to tell
            log.debug("run %s: %s", run.id, _told(error))
        finally:
            with self._guard:
                self._waiting.pop(run.id, None)

    def _keep(self) -> None:
        while not self._closing.wait(self.lease.total_seconds() / 3):
            try:
                with self.store.write() as tx:
                    runs.renew_queued(tx, self.worker, until=self.clock() + self.lease)
            except StoreError as error:
                log.warning("the queued runs could not be kept alive: %s", error.message)

    def execute(
        self,
        run: Run,
        work: Callable[[Report], T],
        *,
        also: Report = silent,
        sealed: Callable[[T], object] = msgspec.to_builtins,
    ) -> T:
        """Execute a claimed run in the calling thread."""
        try:
            return execute(
                self.store,
                run,
                work,
                worker=self.worker,
                clock=self.clock,
                lease=self.lease,
                also=also,
                sealed=sealed,
                watched=lambda watch: self._watches.__setitem__(run.id, watch),
            )
        finally:
            self._watches.pop(run.id, None)

    def start(
        self, run: Run, work: Callable[[Report], T], *, sealed: Callable[[T], object] = msgspec.to_builtins
    ) -> None:
        """Claim a queued run and execute it when a thread is free. Raises Conflict when its lock is held now."""
        with self.store.read() as tx:
            if run.lock is not None and locks.holder(tx, run.lock, now=self.clock()) is not None:
                raise runs.held(run)
        self.enqueue(run, lambda: self.in_place(run, work, sealed=sealed))

    def in_place(
        self,
        run: Run,
        work: Callable[[Report], T],
        *,
        also: Report = silent,
        sealed: Callable[[T], object] = msgspec.to_builtins,
    ) -> T:
        """Claim a queued run and execute it in the calling thread."""
        return self.execute(self.claim(run), work, also=also, sealed=sealed)

    def cancel(self, org_id: str, run_id: str) -> Run:
        """Ask a run to stop, wherever it works; one of this process hears it at once. Raises NotFound."""
        with self.store.write() as tx:
            found = runs.request_cancel(tx, org_id, run_id, now=self.clock())
        watch = self._watches.get(run_id)
        if watch is not None and watch.run.org_id == org_id:
            watch.cancel()
        return found

    def wait(self, run_id: str, timeout: float | None = None) -> None:
        """Wait until a run of this process ended, however it ended. Returns at once for any other run."""
        with self._guard:
            found = self._waiting.get(run_id)
        if found is not None:
            found[1].exception(timeout)

    def sweep(self) -> tuple[Run, ...]:
        """Mark the runs of dead workers as crashed; return them."""
        now = self.clock()
        with self.store.read() as tx:
            if not runs.any_dead(tx, now=now):
                return ()
        with self.store.write() as tx:
            return runs.sweep(tx, now=now)

    def close(self, *, cancel: bool = False) -> None:
        """Wait for what is at work; `cancel` asks it to stop first."""
        with self._guard:
            pending = [(run_id, org_id) for run_id, (org_id, _) in self._waiting.items()]
        for run_id, org_id in pending if cancel else ():
            self.cancel(org_id, run_id)
        self._pool.shutdown(wait=True)
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
