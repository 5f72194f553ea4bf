"""What a good password is, and how it is hashed."""

from __future__ import annotations

import threading
import time

import pytest

from dblens.accounts.passwords import Passwords, check_password
from dblens.errors import InvalidInput, RateLimited
from tests.accounts.conftest import quick


@pytest.mark.parametrize(
    "password",
    [
        "tiny",
        "only-eleven",
        "sevenA1",
        "aaaaaaaaaaaa",
        "abababababab",
        "Password2026!",
        "P@ssw0rd123!",
        "passwordpassword",
        "Welcome1",
        "1234567890123456",
        "qwertyuiop12",
        "correct horse battery staple",
        "Changeme1!",
        "DBLens2026!!",
        "xx ada.lovelace xx",
        "AdaLovelace-1",
        "ada@example.org",
        "x" * 1025,
        "half \ud800 a character",
    ],
)
def test_a_password_that_is_easily_guessed_is_refused_without_being_told(password: str) -> None:
    with pytest.raises(InvalidInput, match="password") as caught:
        check_password(password, name="ada.lovelace", email="ada@example.org")
    assert password not in str(caught.value)


@pytest.mark.parametrize(
    "password", ["Tr0ub4dor&3", "regnet im juni", "длинныйпароль", "xK9!mmQ2", "水曜日に海へ行きましょうね"]
)
def test_a_good_one_passes(password: str) -> None:
    check_password(password, name="ada", email=None)


def test_one_password_typed_on_two_keyboards_is_one() -> None:
    passwords = quick()
    hashed = passwords.hash("Str\N{LATIN SMALL LETTER A WITH DIAERESIS}ndli 77")
    assert passwords.verify(hashed, "Stra\N{COMBINING DIAERESIS}ndli 77")
    assert not passwords.verify(hashed, "Strandli 77")
    assert not passwords.verify(hashed, "str\N{LATIN SMALL LETTER A WITH DIAERESIS}ndli 77")


def test_nobody_and_a_broken_hash_are_false_at_the_price_of_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = quick()
    assert not passwords.verify("not a hash", "x")
    assert not passwords.verify("", "x")
    assert not passwords.verify(None, "x")
    assert not passwords.verify(None, "\ud800" * 5000)


def test_the_parameters_are_those_of_the_design() -> None:
    passwords = Passwords()
    hashed = passwords.hash("x")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not passwords.outdated(hashed)
    assert quick().outdated(hashed)


def test_four_hashes_run_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = quick()
    running, most, lock = 0, 0, threading.Lock()

    class Slow:
        def verify(self, hash: str, password: bytes) -> bool:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.03)
            with lock:
                running -= 1
            return True

    passwords.hasher = Slow()  # type: ignore[assignment]
    threads = [threading.Thread(target=passwords.verify, args=("h", "x")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 4


def test_who_waits_too_long_for_a_hash_is_told_to_come_back() -> None:
    passwords = Passwords(time_cost=1, memory_kib=64, at_once=1, wait=0.01)
    with passwords._turn(), pytest.raises(RateLimited) as caught:
        passwords.verify(None, "x")
    assert (caught.value.http, caught.value.retry_after) == (429, 1)
    assert not passwords.verify(None, "x")
