"""Passwords: how they are hashed (argon2id), and which are good enough.

A verification always costs one hash, also for a user who does not exist: the time of an answer tells nothing. Each hash takes
19 MiB, so only a few run at once; otherwise logging in would be a way to use up the memory.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import unicodedata
from collections.abc import Iterator

from dblens.accounts.common import BASES
from dblens.errors import InvalidInput, RateLimited

SHORTEST, SHORTEST_MIXED, LONGEST = 12, 8, 1024
_AROUND = 10
_ROWS = ("1234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm")
_LEET = str.maketrans("013457@$!|", "oieastasil")


class Passwords:
    """Hashes and verifies, `at_once` at a time; the others wait at most `wait` seconds."""

    def __init__(
        self,
        *,
        time_cost: int = 2,
        memory_kib: int = 19 * 1024,
        parallelism: int = 1,
        at_once: int = 4,
        wait: float = 10.0,
    ) -> None:
        import argon2

        self.hasher = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._free = threading.BoundedSemaphore(at_once)
        self._wait = wait
        self._nobody = self.hasher.hash(secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """Return the hash of a password to keep. Raises RateLimited when too many hashes are under way."""
        with self._turn():
            return self.hasher.hash(_bytes(password))

    def verify(self, hash: str | None, password: str) -> bool:
        """Say whether a password has a hash; None, for nobody, costs the same and is False. Raises RateLimited."""
        from argon2.exceptions import InvalidHashError, VerificationError

        with self._turn():
            try:
                self.hasher.verify(hash or self._nobody, _bytes(password))
            except (VerificationError, InvalidHashError):
                return False
        return bool(hash)

    def outdated(self, hash: str) -> bool:
        """Say whether a hash was made with other parameters than today's."""
        return self.hasher.check_needs_rehash(hash)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._free.acquire(timeout=self._wait):
            raise RateLimited("too many logins at this moment", retry_after=max(1, round(self._wait)))
        try:
            yield
        finally:
            self._free.release()


def check_password(password: str, *, name: str, email: str | None = None) -> None:
    """Refuse a password that is too easily guessed. Raises InvalidInput, which says why and never what was given."""
    if any("\ud800" <= char <= "\udfff" for char in password):
        raise InvalidInput("the password holds half a character", hint="type it again")
    if len(password) > LONGEST:
        raise InvalidInput(f"the password has {len(password)} characters", hint=f"at most {LONGEST}")
    if len(password) < (SHORTEST_MIXED if _classes(password) >= 3 else SHORTEST):
        raise InvalidInput(
            f"the password is too short: {len(password)} characters",
            hint=f"{SHORTEST} characters, or {SHORTEST_MIXED} with three of: small letters, capitals, digits, others",
        )
    plain = unicodedata.normalize("NFKC", password).casefold()
    for text in (name, email or "", (email or "").partition("@")[0]):
        word = unicodedata.normalize("NFKC", text).casefold()
        bare = _alphanumeric(word)
        if word and (plain == word or (len(bare) > 3 and (word in plain or bare in _alphanumeric(plain)))):
            raise InvalidInput("the password holds the name or the e-mail address", hint="choose another")
    if len(set(plain)) < 5 or _common(plain):
        raise InvalidInput("the password is one of the first that are tried", hint="choose another")


def _common(plain: str) -> bool:
    """Say whether nothing but a common word is left without the digits and signs that are usually put around it."""
    around = "".join(chr(code) for code in range(33, 127) if not chr(code).isalpha())
    forms = {plain, plain.translate(_LEET), _alphanumeric(plain)}
    forms |= {form.strip(around) for form in forms} | {plain.strip(around).translate(_LEET)}
    if any(plain in (row * 5) or plain in (row[::-1] * 5) for row in _ROWS):
        return True
    return any(form in BASES and len(plain) - len(form) <= _AROUND for form in forms)


def _alphanumeric(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def _classes(password: str) -> int:
    tests = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum())
    return sum(any(test(char) for char in password) for test in tests)


def _bytes(password: str) -> bytes:
    # One password typed on two keyboards may differ in form. What no policy would pass still costs its hash: see `verify`.
    return unicodedata.normalize("NFKC", password[: LONGEST + 1]).encode("utf-8", "surrogatepass")
