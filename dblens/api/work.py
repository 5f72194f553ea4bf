"""Where operations work: a bounded number of threads, so that a crowd waits in line and is told to come back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from dblens.errors import RateLimited

T = TypeVar("T")
THREADS: Final = 32
HEAVY: Final = 6
"""How many operations that say `cost="heavy"` work at a time: they must not take every thread."""
STREAMS: Final = 32
"""How many answers flow at a time, queries most of them; each has a thread of its own, so that nothing else waits for it."""
ENTRANCE: Final = 4
"""How many logins work at a time: each hashes a password for a tenth of a second, and strangers decide how many there are."""
SHORT: Final = 8
"""How many look up who asks, or how a run is: these never wait behind work."""
PATIENCE: Final = 20.0
"""Seconds that a request waits for a thread before it is told to come back."""


class Work:
    """The threads of one application. Its parts belong to an event loop, so they are made in it."""

    def __init__(self, *, threads: int = THREADS, heavy: int = HEAVY, streams: int = STREAMS) -> None:
        self._sizes = {"normal": threads, "heavy": heavy, "stream": streams, "entrance": ENTRANCE, "short": SHORT}
        self._limiters: dict[str, anyio.CapacityLimiter] = {}

    def limiter(self, lane: str) -> anyio.CapacityLimiter:
        """Return what bounds a lane: normal, heavy, stream, entrance or short."""
        found = self._limiters.get(lane)
        if found is None:
            found = self._limiters[lane] = anyio.CapacityLimiter(self._sizes[lane])
        return found

    async def run(self, function: Callable[..., T], *args: Any, lane: str = "normal") -> T:
        """Return what a function returns in a thread of a lane. Raises RateLimited when none is free in time."""
        limiter, token = self.limiter(lane), object()
        await take(limiter, token)
        try:
            return await anyio.to_thread.run_sync(functools.partial(function, *args), limiter=_free())
        finally:
            limiter.release_on_behalf_of(token)


async def take(limiter: anyio.CapacityLimiter, token: object) -> None:
    """Take a place. Raises RateLimited after `PATIENCE`."""
    with anyio.move_on_after(PATIENCE) as waited:
        await limiter.acquire_on_behalf_of(token)
    if waited.cancelled_caught:
        raise RateLimited("the service is busy", retry_after=5, hint="try again in a few seconds")


def _free() -> anyio.CapacityLimiter:
    """Return a limiter for one thread: the place was taken before, with patience that ends."""
    return anyio.CapacityLimiter(1)
