"""Lockout: after five wrong passwords none will do for a while, twice as long each time.

It is kept with the account in the store, so that it holds over restarts and for all processes. Only a login with the right
password after the wait, a reset, or an administrator ends it. A try during the wait neither helps nor makes it longer.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from dblens.store import accounts
from dblens.store.accounts import User
from dblens.store.database import Transaction


class Lockout(msgspec.Struct, frozen=True, kw_only=True):
    """After how many failures, for how long at first, and for how long at most."""

    failures: int = 5
    first: dt.timedelta = dt.timedelta(minutes=15)
    longest: dt.timedelta = dt.timedelta(hours=8)

    def wait(self, lockouts: int) -> dt.timedelta:
        """Return how long the nth lockout (from 1) lasts."""
        return min(self.first * (1 << min(lockouts - 1, 30)), self.longest)


def locked(user: User, now: dt.datetime) -> bool:
    """Say whether no password will do now."""
    return user.locked_until is not None and user.locked_until > now


def count(tx: Transaction, rules: Lockout, user: User, *, now: dt.datetime) -> None:
    """Keep that a password was wrong. `user` was read with `lock_user` in this transaction."""
    failures, lockouts, until = user.failures + 1, user.lockouts, user.locked_until
    if failures >= rules.failures:
        failures, lockouts = 0, lockouts + 1
        until = now + rules.wait(lockouts)
    accounts.set_lockout(tx, user.id, failures=failures, lockouts=lockouts, locked_until=until)


def clear(tx: Transaction, user: User) -> None:
    """Forget failures."""
    if user.failures or user.lockouts or user.locked_until:
        accounts.set_lockout(tx, user.id, failures=0, lockouts=0, locked_until=None)
