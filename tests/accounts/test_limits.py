"""Attack 9, the part that counts tries: by address and by account, with the time to wait."""

from __future__ import annotations

import time

import pytest

from dblens.accounts.limits import Limit, Limits, network
from dblens.errors import InvalidInput, PermissionDenied, RateLimited


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stand the clock of the counters still."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_the_seconds_to_wait_are_enough(clock: list[float]) -> None:
    limits = Limits({"login": Limit(address="3/minute", account="100/minute")})
    for _ in range(3):
        limits.hit("login", address="192.0.2.1", account="ada")
        clock[0] += 1
    with pytest.raises(RateLimited, match="too many tries") as caught:
        limits.hit("login", address="192.0.2.1", account="ada")
    error = caught.value
    assert isinstance(error, PermissionDenied)
    assert (error.http, error.code, error.exit) == (429, "rate.limited", 5)
    assert 1 <= error.retry_after <= 60
    assert f"{error.retry_after} s" in (error.hint or "")
    clock[0] += error.retry_after + 0.1
    limits.hit("login", address="192.0.2.1", account="ada")


def test_addresses_and_accounts_are_counted_apart(clock: list[float]) -> None:
    limits = Limits({"login": Limit(address="5/minute", account="2/minute")})
    for number in range(2):
        limits.hit("login", address=f"192.0.2.{number}", account="ada")
    for twin in ("ada", "ADA", "ａｄａ"):  # one account from many addresses
        with pytest.raises(RateLimited):
            limits.hit("login", address="198.51.100.9", account=twin)
    for number in range(2):
        limits.hit("login", address="198.51.100.9", account=f"user{number}")
    with pytest.raises(RateLimited):  # many accounts from one address
        limits.hit("login", address="198.51.100.9", account="user9")
    limits.hit("refresh", address="198.51.100.9")  # another matter


def test_a_whole_ipv6_network_is_one_caller(clock: list[float]) -> None:
    limits = Limits({"login": Limit(address="2/minute")})
    limits.hit("login", address="2001:db8::1")
    limits.hit("login", address="2001:db8::ffff:2")
    with pytest.raises(RateLimited):
        limits.hit("login", address="2001:db8:0:0:dead::3")
    limits.hit("login", address="2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1"
    assert network("fe80::1%eth0") == "fe80::/64"
    assert network("unix") == "unix"


def test_what_somebody_types_ends_no_key_of_another(clock: list[float]) -> None:
    limits = Limits({"login": Limit(account="1/minute")})
    for login in ("a", "a/1/1/minute", "a/b", "\ud800", "x" * 9999, "a%2Fb", ""):
        limits.hit("login", account=login)
        with pytest.raises(RateLimited):
            limits.hit("login", account=login)


def test_a_silent_limit_and_a_wrong_one(clock: list[float]) -> None:
    limits = Limits({"mail": Limit(account="1/hour")})
    assert limits.allows("mail", account="a@b.de")
    assert not limits.allows("mail", account="A@b.de")
    for wrong in ({"login": Limit(address="often")}, {"login": Limit(address="5 per fortnight")}):
        with pytest.raises(InvalidInput, match="rate limits"):
            Limits(wrong)
    with pytest.raises(InvalidInput):
        Limits(storage="carrier-pigeon://")
