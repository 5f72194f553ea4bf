"""Attack 10: reset tokens used twice, raced for, guessed, led astray. And flooding somebody with mail (9)."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dblens.accounts import admin, profile, recovery, signup
from dblens.accounts.base import Caller
from dblens.accounts.limits import Limit, Limits
from dblens.errors import Conflict, InvalidInput, NotAuthenticated, RateLimited, Unsupported
from dblens.store import accounts
from tests.accounts.conftest import GOOD, HERE, NO_LIMITS, World

NEW = "Ganz anderer Satz 9"


def token_of(world: World) -> str:
    found = re.search(r"#token=([\w.%-]+)", world.sent[-1].text)
    assert found
    return found[1]


def asked(world: World, login: str = "ada") -> str:
    recovery.forgot(world.at, login, HERE)
    return token_of(world)


def test_a_link_sets_a_new_password_once(world: World) -> None:
    world.user(email="ada@example.org")
    token = asked(world, "Ada@example.org")
    assert world.sent[-1].to == "ada@example.org"
    assert recovery.reset(world.at, token, NEW, HERE).name == "ada"
    world.log_in(password=NEW)
    with pytest.raises(NotAuthenticated):
        world.log_in()
    with pytest.raises(NotAuthenticated, match="not valid"):
        recovery.reset(world.at, token, "Noch ein anderer 10", HERE)
    world.log_in(password=NEW)


def test_of_two_resets_with_one_link_one_wins(world: World) -> None:
    world.user(email="ada@example.org")
    for round in range(5):
        token, gate, results = asked(world), threading.Barrier(2), []
        words = [f"Satz der Runde {round}{side}" for side in "ab"]

        def reset(word: str, token: str = token, gate: threading.Barrier = gate, results: Any = results) -> None:
            gate.wait()
            try:
                recovery.reset(world.at, token, word, HERE)
                results.append(word)
            except NotAuthenticated as error:
                results.append(error)

        threads = [threading.Thread(target=reset, args=(word,)) for word in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        (won,) = [result for result in results if isinstance(result, str)]
        assert len(results) == 2
        world.log_in(password=won)


def test_a_link_ends_after_half_an_hour_with_the_next_one_and_with_the_address(world: World) -> None:
    user = world.user(email="ada@example.org")
    late = asked(world)
    world.clock.on(minutes=30)
    with pytest.raises(NotAuthenticated):
        recovery.reset(world.at, late, NEW, HERE)
    old = asked(world)
    newer = asked(world)
    for dead in (late, old, "", "guess", newer[:-1], newer + "x", "\ud800"):
        with pytest.raises(NotAuthenticated):
            recovery.reset(world.at, dead, NEW, HERE)
    with world.at.store.write() as tx:
        accounts.update_user(tx, user.id, email="other@example.org")
    with pytest.raises(NotAuthenticated):
        recovery.reset(world.at, newer, NEW, HERE)


def test_a_refused_password_does_not_use_the_link_up(world: World) -> None:
    world.user(email="ada@example.org")
    token = asked(world)
    with pytest.raises(InvalidInput):
        recovery.reset(world.at, token, "short", HERE)
    with pytest.raises(InvalidInput, match="e-mail"):
        recovery.reset(world.at, token, "I am ada@example.org", HERE)
    recovery.reset(world.at, token, NEW, HERE)


def test_a_reset_ends_a_lockout(world: World) -> None:
    world.user(email="ada@example.org")
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            world.log_in(password="wrong")
    recovery.reset(world.at, asked(world), NEW, HERE)
    world.log_in(password=NEW)


def test_a_disabled_user_is_not_let_in_by_a_link(world: World) -> None:
    user = world.user(email="ada@example.org")
    token = asked(world)
    admin.disable_user(world.at, world.root, user.id)
    with pytest.raises(NotAuthenticated):
        recovery.reset(world.at, token, NEW, HERE)
    world.sent.clear()
    recovery.forgot(world.at, "ada", HERE)
    assert world.sent == []


def test_a_token_for_an_address_sets_no_password_and_the_reverse(world: World) -> None:
    world.user(email="ada@example.org")
    profile.set_email(world.at, world.auth(), "new@example.org", GOOD)
    verify = next(mail.text for mail in world.sent if "verify-email" in mail.text)
    with pytest.raises(NotAuthenticated):
        recovery.reset(world.at, re.findall(r"#token=(\S+)", verify)[0], NEW, HERE)
    with pytest.raises(NotAuthenticated):
        signup.verify_email(world.at, asked(world), GOOD, HERE)


def test_the_answer_is_the_same_for_nobody_and_the_link_is_of_the_settings(world: World) -> None:
    world.user(email="ada@example.org")
    world.user("bob")  # without an address
    poisoned = Caller(address="192.0.2.7", client="Host: evil.example\r\nX-Forwarded-Host: evil.example")
    for name in ("nobody", "bob", "no@example.org", "\ud800", "a\0b", "ada"):
        assert recovery.forgot(world.at, name, poisoned) is None  # type: ignore[func-returns-value]
    (mail,) = world.sent
    assert "https://dblens.example.org/app/reset-password#token=" in mail.text
    assert "evil" not in mail.text
    assert "?" not in mail.text.split("https://")[1].split()[0]


def test_nobody_is_flooded_with_mail(make: Callable[..., World]) -> None:
    rules = {"forgot": Limit(address="100/hour", account="3/hour"), "mail": Limit(account="4/hour")}
    world = make(limits=Limits(NO_LIMITS | rules))
    world.user(email="ada@example.org")
    for login in ("ada", "ada@example.org") * 3:  # each name three times, the mailbox four in all
        recovery.forgot(world.at, login, HERE)
    assert len(world.sent) == 4
    for login in ("ada", "ada@example.org", "nobody"):
        tries = 3 if login == "nobody" else 0
        for _ in range(tries):
            recovery.forgot(world.at, login, HERE)
        with pytest.raises(RateLimited) as caught:  # also for nobody: it tells nothing
            recovery.forgot(world.at, login, HERE)
        assert caught.value.retry_after >= 1


def test_guesses_are_limited_by_address(make: Callable[..., World]) -> None:
    world = make(limits=Limits(NO_LIMITS | {"reset": Limit(address="2/minute")}))
    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            recovery.reset(world.at, "guess", NEW, HERE)
    with pytest.raises(RateLimited):
        recovery.reset(world.at, "guess", NEW, HERE)


def test_without_mail_an_administrator_issues_the_link(make: Callable[..., World]) -> None:
    world = make(mail=False)
    user = world.user(email="ada@example.org")
    for name in ("ada", "nobody"):
        with pytest.raises(Unsupported, match="no mail"):
            recovery.forgot(world.at, name, HERE)
    link = admin.reset_user(world.at, world.root, user.id)
    assert link.token not in repr(link)
    assert link.link is None
    assert link.expires_at == world.clock() + dt.timedelta(minutes=30)
    with pytest.raises(NotAuthenticated):  # dead at once, not only when the link is used
        world.log_in()
    recovery.reset(world.at, link.token, NEW, HERE)
    world.log_in(password=NEW)


def test_who_comes_from_outside_gets_no_password_by_mail(world: World) -> None:
    found = signup.provision(world.at, "hub:https://hub", "ada", "ada")
    with world.at.store.write() as tx:
        accounts.update_user(tx, found.id, email="ada@example.org")
    recovery.forgot(world.at, "ada", HERE)
    assert world.sent == []


def test_a_new_address_is_ones_own_once_it_is_proved_with_the_password(world: World) -> None:
    world.user(email="ada@example.org")
    auth = world.auth()
    with pytest.raises(NotAuthenticated):
        profile.set_email(world.at, auth, "new@example.org", "wrong")
    assert profile.set_email(world.at, auth, "new@example.org", GOOD).email == "ada@example.org"
    assert [(mail.to, "address" in mail.subject) for mail in world.sent] == [
        ("new@example.org", True),
        ("ada@example.org", False),
    ]
    token = re.findall(r"#token=(\S+)", world.sent[0].text)[0]
    with pytest.raises(NotAuthenticated):  # whoever reads that mailbox has no password
        signup.verify_email(world.at, token, "wrong", HERE)
    forged = token.split(".")[0] + "." + signup.email_token("root@example.org").split(".")[1]
    with pytest.raises(NotAuthenticated):
        signup.verify_email(world.at, forged, GOOD, HERE)
    assert signup.verify_email(world.at, token, GOOD, HERE).email == "new@example.org"
    with pytest.raises(NotAuthenticated):
        signup.verify_email(world.at, token, GOOD, HERE)


def test_an_address_taken_meanwhile_is_not_taken_over(world: World) -> None:
    world.user(email="ada@example.org")
    profile.set_email(world.at, world.auth(), "new@example.org", GOOD)
    token = re.findall(r"#token=(\S+)", world.sent[0].text)[0]
    world.user("bob", email="new@example.org")
    with pytest.raises(Conflict, match="address"):
        signup.verify_email(world.at, token, GOOD, HERE)
