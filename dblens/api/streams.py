"""Answers that flow: what an operation writes into its sink, with back-pressure, an end that is said, and a work that stops with its reader.

The operation writes in a thread and waits while its reader is slow. When the reader leaves, or takes nothing for `PATIENCE` seconds, its
next write raises Cancelled. An error before anything was sent is an ordinary problem. After that it is told in the last frame
(`wire.FRAMES`), or, to a client that wants plain bytes, by a connection cut before its end: never by an answer that looks whole.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec
from starlette.types import Receive, Scope, Send

from dblens.api import problems
from dblens.api.work import Work, take
from dblens.errors import Cancelled, DBLensError
from dblens.workspace import wire

BLOCK: Final = 64 * 1024
PATIENCE: Final = 60.0
"""Seconds that a reader may take nothing."""


class Sink:
    """Takes bytes in the operation's thread and hands them over in blocks; waits while there is no room.

    An operation that waits for a database before it writes learns by `leaving` that nobody waits for it any more.
    """

    def __init__(self, send: anyio.abc.ObjectSendStream[bytes]) -> None:
        self._send, self._buffer = send, bytearray()
        self.handed = False
        self._guard, self._left = threading.Lock(), False
        self._hooks: list[Callable[[], object]] = []

    def leaving(self, hook: Callable[[], object]) -> None:
        """Have a function called, in another thread, when the reader leaves; at once when they left already."""
        with self._guard:
            self._hooks.append(hook)
            left = self._left
        if left:
            hook()

    def leave(self) -> None:
        """Say that the reader left."""
        with self._guard:
            self._left, hooks = True, list(self._hooks)
        for hook in hooks:
            try:
                hook()
            except Exception:  # noqa: BLE001 - one hook must not keep the others from being called
                problems.log.exception("what should stop with its reader did not")

    def __call__(self, data: bytes) -> int:
        """Take bytes. Raises Cancelled when nobody reads any more."""
        self._buffer += data
        if len(self._buffer) >= BLOCK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand over what there is."""
        if self._buffer:
            data, self._buffer, self.handed = bytes(self._buffer), bytearray(), True
            anyio.from_thread.run(self._hand, data)

    async def _hand(self, data: bytes) -> None:
        try:
            await self._send.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Cancelled("the reader left") from None


class Outcome(msgspec.Struct, kw_only=True):
    """How the work ended, once it did."""

    result: Any = None
    error: BaseException | None = None


class Flowing:
    """An ASGI response: the bytes that an operation writes. `work(write)` does it and returns the result."""

    def __init__(
        self,
        threads: Work,
        work: Callable[[Callable[[bytes], object]], Any],
        *,
        framed: bool,
        media_type: str,
        request_id: str,
        patience: float = PATIENCE,
    ) -> None:
        self.threads, self.work, self.framed, self.media_type = threads, work, framed, media_type
        self.request_id, self.patience = request_id, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises what the work raised when plain bytes were sent before: the server then cuts the connection."""
        limiter, place = self.threads.limiter("stream"), object()
        await take(limiter, place)
        try:
            await self._flow(scope, receive, send)
        finally:
            limiter.release_on_behalf_of(place)

    async def _flow(self, scope: Scope, receive: Receive, send: Send) -> None:
        give, got = anyio.create_memory_object_stream[bytes](2)
        sink, outcome = Sink(give), Outcome()
        started = finished = False

        async def working() -> None:
            try:
                outcome.result = await anyio.to_thread.run_sync(self._worked, sink, limiter=anyio.CapacityLimiter(1))
            except Exception as error:  # noqa: BLE001 - told to the reader below
                outcome.error = error
            finally:
                give.close()

        async def leaving(around: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            got.close()  # the next write in the thread raises
            await left()
            around.cancel()

        async def left() -> None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(sink.leave, limiter=anyio.CapacityLimiter(1))

        async with anyio.create_task_group() as group:
            # The work is shielded: it is told to stop by its sink and ends by itself, so that its cursor is closed by its own thread.
            group.start_soon(_shielded, working)
            async with anyio.create_task_group() as inner:
                inner.start_soon(leaving, inner.cancel_scope)
                sent = 0
                try:
                    async for data in got:
                        if not started:
                            started = True
                            await send(self._start())
                        await self._out(send, wire.frame(data) if self.framed else data)
                        sent += len(data)
                    finished = True
                except TimeoutError:
                    got.close()
                    await left()
                inner.cancel_scope.cancel()
        if finished:
            await self._end(scope, receive, send, outcome, started, sent)
        elif outcome.error is not None and not isinstance(outcome.error, Cancelled):
            raise outcome.error

    def _worked(self, sink: Sink) -> Any:
        try:
            result = self.work(sink)
        except DBLensError:
            if (
                sink.handed
            ):  # what was written before belongs to what was sent; otherwise the error is all of the answer
                sink.flush()
            raise
        sink.flush()
        return result

    async def _out(self, send: Send, data: bytes) -> None:
        with anyio.fail_after(self.patience):
            await send({"type": "http.response.body", "body": data, "more_body": True})

    def _start(self) -> dict[str, Any]:
        kind = wire.FRAMES if self.framed else self.media_type
        headers = [(b"content-type", kind.encode()), (b"x-accel-buffering", b"no")]
        return {"type": "http.response.start", "status": 200, "headers": headers}

    async def _end(
        self, scope: Scope, receive: Receive, send: Send, outcome: Outcome, started: bool, sent: int
    ) -> None:
        error = outcome.error
        if error is not None and not started:
            await problems.answer(error, self.request_id, authenticated=True)(scope, receive, send)
            return
        if not started:
            await send(self._start())
        if self.framed:
            told = None if error is None else msgspec.to_builtins(problems.problem_of(error, self.request_id))
            if told is not None and told["status"] == 500:
                problems.log.error("request %s failed", self.request_id, exc_info=error)
            result = None if error is not None else msgspec.to_builtins(outcome.result)
            end = wire.End(status="ok" if error is None else "error", bytes=sent, result=result, error=told)
            await self._out(send, wire.ending(end))
        elif error is not None:
            raise error
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _shielded(function: Callable[[], Any]) -> None:
    with anyio.CancelScope(shield=True):
        await function()


async def closing_stream(items: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a generator yields, which works in a thread, and close it when the reader leaves: Starlette alone never does."""
    end = object()
    step: Callable[[], Any] = functools.partial(next, items, end)
    try:
        while (item := await anyio.to_thread.run_sync(step)) is not end:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(close)
