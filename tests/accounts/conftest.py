"""Accounts over both stores, with a clock that is set, quick hashes, and letters that are kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dblens.accounts import login, signup
from dblens.accounts.base import Accounts, Authenticated, Caller, LoggedIn, Rules
from dblens.accounts.jwt import Keys
from dblens.accounts.limits import DEFAULTS, Limit, Limits
from dblens.accounts.mail import Letters, Mail
from dblens.accounts.passwords import Passwords
from dblens.store.accounts import User
from dblens.store.database import Store
from tests.store.conftest import store

__all__ = ["store"]

START = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
GOOD = "Grundstein-7 liegt"
HERE = Caller(address="192.0.2.7", client="pytest")
NO_LIMITS = {what: Limit() for what in DEFAULTS}
SIGNING = Ed25519PrivateKey.generate()


@dataclasses.dataclass
class Clock:
    now: dt.datetime = START

    def __call__(self) -> dt.datetime:
        return self.now

    def on(self, **more: float) -> None:
        self.now += dt.timedelta(**more)


def quick() -> Passwords:
    return Passwords(time_cost=1, memory_kib=64)


@dataclasses.dataclass
class World:
    """An instance with one super_admin, `root`."""

    at: Accounts
    clock: Clock
    sent: list[Mail]
    root: User

    def user(self, name: str = "ada", password: str = GOOD, email: str | None = None) -> User:
        from dblens.store import accounts

        with self.at.store.write() as tx:
            made = accounts.create_user(
                tx, name, email=email, password_hash=self.at.passwords.hash(password), now=self.clock()
            )
            accounts.link_identity(tx, "local", made.id, made.id, now=self.clock())
        return made

    def log_in(self, name: str = "ada", password: str = GOOD) -> LoggedIn:
        return login.log_in(self.at, name, password, HERE)

    def who(self, token: str, *, must_change_too: bool = False) -> Authenticated:
        return login.authenticate_bearer(
            self.at.store, self.at.keys, token, self.clock(), must_change_too=must_change_too
        )

    def auth(self, name: str = "ada", password: str = GOOD) -> Authenticated:
        return self.who(self.log_in(name, password).tokens.access)


@pytest.fixture
def make(store: Store) -> Callable[..., World]:
    def made(*, mail: bool = True, limits: Limits | None = None, rules: Rules | None = None) -> World:
        clock, sent = Clock(), []
        at = Accounts(
            store,
            Keys(SIGNING),
            rules=rules,
            passwords=quick(),
            limits=limits or Limits(NO_LIMITS),
            letters=Letters("https://dblens.example.org/app/", sent.append) if mail else None,
            clock=clock,
        )
        root = signup.set_up(at, "root", "Oberster Waechter 1", HERE)
        return World(at=at, clock=clock, sent=sent, root=root)

    return made


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()
