"""A run as it goes, by server-sent events: `progress`, `log`, and `end` when it ended. Polling `/runs/{run}` and its log tells the same.

    id: the number of the last log line that was sent, so `Last-Event-ID` goes on after it; a comment every few seconds keeps proxies awake

The bearer stands in the header as everywhere, never in the address. Whether the reader may still read is asked again while it lasts, by
the same operations as at its beginning: a login that ended, or a role that was taken away, ends the stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio
import msgspec
from starlette.types import Receive, Scope, Send

from dblens.api.work import Work
from dblens.errors import DBLensError, InvalidInput, PermissionDenied, RateLimited
from dblens.store import runs
from dblens.store.database import Store
from dblens.store.runs import LogLine, Run

EVERY: Final = 0.5
HEARTBEAT: Final = 10.0
AGAIN: Final = 15.0
"""Seconds after which the right to read is asked again."""
LONGEST: Final = 3600.0
MOST: Final = 100
MOST_OF_ONE: Final = 10
ENDED: Final = ("succeeded", "failed", "cancelled", "crashed")


class Watchers:
    """How many streams are open, of all and of one user."""

    def __init__(self) -> None:
        self.open: dict[str, int] = {}

    def come(self, who: str) -> None:
        """Count one more. Raises RateLimited."""
        if sum(self.open.values()) >= MOST or self.open.get(who, 0) >= MOST_OF_ONE:
            raise RateLimited("too many event streams are open", retry_after=10, hint="close one, or poll the run")
        self.open[who] = self.open.get(who, 0) + 1

    def go(self, who: str) -> None:
        """Count one less."""
        self.open[who] -= 1
        if not self.open[who]:
            del self.open[who]


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader may see: the run, and whether its log too."""

    run: Run
    log: bool


def watched(workspace: Any, run_id: str) -> Watched:
    """Ask for a run as anybody does, through the gate. Raises what `run.read` raises."""
    run = workspace.runs.read(run_id)
    try:
        workspace.runs.log(run_id, limit=1)
    except PermissionDenied:
        return Watched(run=run, log=False)
    return Watched(run=run, log=True)


def after(header: str | None) -> int:
    """Return which log line a reader had last. Raises InvalidInput."""
    if not header:
        return 0
    if not (header.isascii() and header.isdigit() and len(header) < 10):
        raise InvalidInput(f"Last-Event-ID is {header[:40]!a}", hint="the `id` of an event of this stream")
    return int(header)


class Events:
    """An ASGI response: the events of a run until it ends, the reader leaves, or may not read any more."""

    def __init__(
        self,
        threads: Work,
        store: Store,
        seen: Watched,
        again: Callable[[], Watched],
        *,
        last: int,
        every: float = EVERY,
        heartbeat: float = HEARTBEAT,
        recheck: float = AGAIN,
        stopping: Callable[[], bool] = bool,
    ) -> None:
        self.threads, self.store, self.seen, self.again, self.last = threads, store, seen, again, last
        self.every, self.heartbeat, self.recheck = every, heartbeat, recheck
        self.stopping = stopping

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with anyio.create_task_group() as group:

            async def leaving() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(leaving)
            async for text in self._events():
                with anyio.fail_after(60):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            group.cancel_scope.cancel()
        with anyio.move_on_after(5):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[str]:
        begun = said = checked = anyio.current_time()
        told: bytes | None = None
        yield "retry: 2000\n\n"
        while True:
            try:
                if anyio.current_time() - checked >= self.recheck:
                    self.seen, checked = await self.threads.run(self.again, lane="short"), anyio.current_time()
                run, lines = await self.threads.run(self._look, lane="short")
            except DBLensError:
                return  # without an end: who asks again is told why
            for line in lines:
                self.last, said = line.number, anyio.current_time()
                yield _event("log", line, self.last)
            state = msgspec.json.encode({"state": run.state, "progress": run.progress, "cancel_at": run.cancel_at})
            if state != told:
                told, said = state, anyio.current_time()
                yield _event("progress", msgspec.Raw(state), self.last)
            if run.state in ENDED and len(lines) < runs_page():
                # What came of it is for fewer than may see that it ended: `run.result` asks.
                yield _event("end", msgspec.structs.replace(run, result=None), self.last)
                return
            if anyio.current_time() - said >= self.heartbeat:
                said = anyio.current_time()
                yield ": still here\n\n"
            if self.stopping() or anyio.current_time() - begun > LONGEST:
                return
            if not lines:
                await anyio.sleep(self.every)

    def _look(self) -> tuple[Run, tuple[LogLine, ...]]:
        run = self.seen.run
        with self.store.read() as tx:
            found = runs.get_run(tx, run.org_id, run.id)
            if not self.seen.log:
                return found, ()
            return found, runs.read_log(tx, run.org_id, run.id, limit=runs_page(), after=str(self.last)).items


def runs_page() -> int:
    """Return how many log lines are read at once."""
    return 200


def _event(kind: str, data: object, number: int) -> str:
    return f"event: {kind}\nid: {number}\ndata: {msgspec.json.encode(data).decode()}\n\n"


class Counted:
    """A stream that counts among those that are open."""

    def __init__(self, watchers: Watchers, who: str, events: Events) -> None:
        self.watchers, self.who, self.events = watchers, who, events
        watchers.come(who)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await self.events(scope, receive, send)
        finally:
            self.watchers.go(self.who)
