"""Rate limits on everything that can be tried without being logged in: by the caller's address, and by the account that is tried.

In memory by default, so each process counts for itself: several of them multiply what is allowed, unless `storage` names one that
they share (redis://…). What must not be multiplied, the number of wrong passwords, is counted in the store (`lockout`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from dblens.errors import InvalidInput, RateLimited
from dblens.store.accounts import fold

if TYPE_CHECKING:
    from limits import RateLimitItem


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """How often: texts like `20/minute;100/hour`, or "" for as often as they like."""

    address: str = ""
    account: str = ""


DEFAULTS: Mapping[str, Limit] = {
    "login": Limit(address="20/minute;200/hour", account="10/minute;60/hour"),
    "sign_up": Limit(address="5/hour"),
    "set_up": Limit(address="10/minute"),
    "refresh": Limit(address="120/minute"),
    "forgot": Limit(address="10/hour", account="3/hour"),
    "reset": Limit(address="10/minute;60/hour"),
    "verify": Limit(address="10/minute;60/hour"),
    "mail": Limit(account="5/hour"),
    "token": Limit(account="30/hour"),
    "organization": Limit(account="20/day"),
    "invite": Limit(account="60/hour"),
}


class Limits:
    """Counts tries in a sliding window."""

    def __init__(self, rules: Mapping[str, Limit] | None = None, *, storage: str = "memory://") -> None:
        import limits
        from limits.storage import storage_from_string
        from limits.strategies import SlidingWindowCounterRateLimiter

        try:
            self._counter = SlidingWindowCounterRateLimiter(storage_from_string(storage))
            self._rules = {
                what: (_parse(limit.address), _parse(limit.account))
                for what, limit in {**DEFAULTS, **(rules or {})}.items()
            }
        except (ValueError, limits.errors.ConfigurationError) as error:
            raise InvalidInput(f"rate limits: {error}", hint="like 20/minute;100/hour, kept at memory://") from error

    def hit(self, what: str, *, address: str | None = None, account: str | None = None) -> None:
        """Count a try. Raises RateLimited, with the seconds to wait."""
        if wait := self._over(what, address, account):
            raise RateLimited("too many tries", retry_after=wait)

    def allows(self, what: str, *, account: str) -> bool:
        """Count a try of which nobody shall learn that it was one too many."""
        return not self._over(what, None, account)

    def over(self, what: str, *, address: str | None = None, account: str | None = None) -> bool:
        """Say whether a try would be one too many, without counting it."""
        return any(not self._counter.test(item, what, *key) for item, key in self._keys(what, address, account))

    def _over(self, what: str, address: str | None, account: str | None) -> int:
        wait = 0
        for item, (kind, key) in self._keys(what, address, account):
            if not self._counter.hit(item, what, kind, key):
                until = self._counter.get_window_stats(item, what, kind, key).reset_time
                wait = max(wait, 1, math.ceil(until - time.time()))
        return wait

    def _keys(self, what: str, address: str | None, account: str | None) -> list[tuple[RateLimitItem, tuple[str, str]]]:
        by_address, by_account = self._rules[what]
        keys = [(item, ("address", network(address))) for item in by_address if address is not None]
        return keys + [(item, ("account", _account(account))) for item in by_account if account is not None]


def network(address: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 of an IPv6 one, of which everybody has all."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def _account(login: str) -> str:
    # Hashed, because it is what somebody typed: no text of theirs shall end another's key, or lie about in a shared storage.
    return hashlib.sha256(fold(login[:320]).encode("utf-8", "surrogatepass")).hexdigest()


def _parse(text: str) -> list[RateLimitItem]:
    if not text:
        return []
    import limits

    return limits.parse_many(text)
