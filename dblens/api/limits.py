"""How often one caller may ask the API at all: by principal, by address, and by address without a valid login.

Counted in this process (`limits`, in memory): the service is one process. What may be tried without a login, passwords above all, has
stricter limits of its own (`dblens.accounts.limits`), and wrong passwords are counted in the store.
"""

from __future__ import annotations

import math
import time
from typing import Final

import limits
import msgspec
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from dblens.accounts.limits import network
from dblens.errors import RateLimited


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Texts like `600/minute;100/second`. Many users may come from one address: a proxy's, a hub's."""

    principal: str = "15000/minute;600/second"
    address: str = "60000/minute;1500/second"
    stranger: str = "120/minute"
    """Requests of one address that had no valid login."""


class Requests:
    """Counts requests in sliding windows."""

    def __init__(self, rates: Rates | None = None) -> None:
        rates = rates or Rates()
        self._counter: Final = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._items = {name: limits.parse_many(getattr(rates, name)) for name in Rates.__struct_fields__}

    def hit(self, kind: str, who: str) -> None:
        """Count a request. Raises RateLimited, with the seconds to wait."""
        who = network(who) if kind != "principal" else who
        for item in self._items[kind]:
            if not self._counter.hit(item, kind, who):
                self._refuse(item, kind, who)

    def look(self, kind: str, who: str) -> None:
        """Refuse who has had too many already, without counting. Raises RateLimited."""
        who = network(who)
        for item in self._items[kind]:
            if not self._counter.test(item, kind, who):
                self._refuse(item, kind, who)

    def _refuse(self, item: limits.RateLimitItem, kind: str, who: str) -> None:
        until = self._counter.get_window_stats(item, kind, who).reset_time
        raise RateLimited("too many requests", retry_after=max(1, math.ceil(until - time.time())))
