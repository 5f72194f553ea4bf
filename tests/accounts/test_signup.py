"""The first user, sign-up, identities from outside, and what administrators do."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest

from dblens.accounts import admin, recovery, signup
from dblens.accounts.base import Accounts, Caller, Rules
from dblens.accounts.jwt import Keys
from dblens.accounts.limits import Limit, Limits
from dblens.accounts.passwords import Passwords
from dblens.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, PermissionDenied, RateLimited
from dblens.store import accounts
from dblens.store.database import Store
from tests.accounts.conftest import GOOD, HERE, NO_LIMITS, SIGNING, World, quick

OPEN = Rules(sign_up=True, approval=False)


def link_in(text: str) -> str:
    return re.findall(r"#token=(\S+)", text)[0]


# ----------------------------------------------------------------------------------------------------------------------- set-up


def test_the_first_user_is_made_once(store: Store) -> None:
    at = Accounts(store, Keys(SIGNING), passwords=quick(), limits=Limits(NO_LIMITS), set_up_code="abc")
    assert signup.needs_set_up(at)
    for code in ("", "abd", "\ud800"):
        with pytest.raises(PermissionDenied, match="code"):
            signup.set_up(at, "root", GOOD, HERE, code=code)
    with pytest.raises(InvalidInput, match="password"):
        signup.set_up(at, "root", "root", HERE, code="abc")

    def fails(tx: Any, user: Any) -> None:
        raise Conflict("no organization")

    with pytest.raises(Conflict, match="no organization"):
        signup.set_up(at, "root", GOOD, HERE, code="abc", also=fails)
    assert signup.needs_set_up(at)  # nothing half-done
    made = signup.set_up(at, "root", GOOD, HERE, code="abc", email="root@example.org")
    assert made.super_admin
    assert not signup.needs_set_up(at)
    with pytest.raises(Conflict, match="set up already"):
        signup.set_up(at, "second", GOOD, HERE, code="abc")


# ---------------------------------------------------------------------------------------------------------------------- sign-up


def test_nobody_signs_up_where_it_is_off(world: World) -> None:
    with pytest.raises(PermissionDenied, match="nobody can sign up"):
        signup.sign_up(world.at, "ada", GOOD, HERE, email="ada@example.org")


def test_an_address_is_proved_before_the_first_login(make: Callable[..., World]) -> None:
    world = make(rules=OPEN)
    signup.sign_up(world.at, "ada", GOOD, HERE, email="Ada@example.org")
    with pytest.raises(NotAuthenticated):
        world.log_in()
    with pytest.raises(NotAuthenticated):  # who was tricked into the link does not know the password
        signup.verify_email(world.at, link_in(world.sent[0].text), "guess", HERE)
    assert signup.verify_email(world.at, link_in(world.sent[0].text), GOOD, HERE).email == "Ada@example.org"
    assert world.log_in().user.name == "ada"


def test_an_administrator_approves_where_that_is_asked(make: Callable[..., World]) -> None:
    world = make(rules=Rules(sign_up=True, approval=True))
    signup.sign_up(world.at, "ada", GOOD, HERE, email="ada@example.org")
    signup.verify_email(world.at, link_in(world.sent[0].text), GOOD, HERE)
    with pytest.raises(NotAuthenticated):
        world.log_in()
    (waiting,) = admin.search_users(world.at, approved=False).items
    admin.approve_user(world.at, world.root, waiting.id)
    world.log_in()


def test_the_answer_is_the_same_for_what_is_taken(make: Callable[..., World]) -> None:
    world = make(rules=OPEN)
    before = world.user("ada", email="ada@example.org")
    for name, email in (("ADA", "new@example.org"), ("new", "ADA@example.org"), ("free", "free@example.org")):
        assert signup.sign_up(world.at, name, GOOD, HERE, email=email) is None  # type: ignore[func-returns-value]
    assert [(mail.to, mail.subject) for mail in world.sent] == [
        ("ada@example.org", "DBLens: you have an account"),
        ("free@example.org", "DBLens: confirm your e-mail address"),
    ]
    with world.at.store.read() as tx:
        assert accounts.find_user(tx, "ada") == before
        assert accounts.find_user(tx, "free").email is None  # not theirs until it is proved
        assert accounts.find_credential(tx, "new") is None


def test_nobody_keeps_an_address_from_its_owner(make: Callable[..., World]) -> None:
    world = make(rules=OPEN)
    signup.sign_up(world.at, "squatter", GOOD, HERE, email="ada@example.org")
    signup.sign_up(world.at, "ada", GOOD, HERE, email="ada@example.org")
    signup.verify_email(world.at, link_in(world.sent[1].text), GOOD, HERE)
    with pytest.raises(Conflict):
        signup.verify_email(world.at, link_in(world.sent[0].text), GOOD, HERE)
    assert world.log_in("ada@example.org").user.name == "ada"


def test_a_name_is_free_again_when_nobody_proved_the_address_for_a_day(make: Callable[..., World]) -> None:
    world = make(rules=OPEN)
    signup.sign_up(world.at, "ada", "Des ersten Satz 1", HERE, email="first@example.org")
    world.clock.on(days=1, seconds=1)
    signup.sign_up(world.at, "ada", GOOD, HERE, email="second@example.org")
    signup.verify_email(world.at, link_in(world.sent[1].text), GOOD, HERE)
    assert world.log_in().user.email == "second@example.org"
    signup.sign_up(world.at, "ada", GOOD, HERE, email="third@example.org")
    assert len(world.sent) == 2


@pytest.mark.parametrize(
    "email",
    ["ada@evil.org", "ada@corp.example.evil.org", "ada@evilcorp.example", "ada@sub.corp.example", "corp.example@x.y"],
)
def test_only_the_allowed_domains_sign_up(make: Callable[..., World], email: str) -> None:
    world = make(rules=Rules(sign_up=True, approval=False, email_domains=("Corp.example",)))
    with pytest.raises(InvalidInput, match="nobody signs up"):
        signup.sign_up(world.at, "ada", GOOD, HERE, email=email)
    with pytest.raises(InvalidInput, match="email"):
        signup.sign_up(world.at, "ada", GOOD, HERE)
    signup.sign_up(world.at, "ada", GOOD, HERE, email="ada@CORP.example")
    assert world.sent


def test_a_domain_that_nothing_proves_is_refused_as_a_setting(make: Callable[..., World]) -> None:
    with pytest.raises(InvalidInput, match="nothing proves"):
        make(mail=False, rules=Rules(sign_up=True, approval=False, email_domains=("corp.example",)))


def test_without_mail_an_account_works_at_once_or_after_approval(make: Callable[..., World]) -> None:
    world = make(mail=False, rules=OPEN)
    signup.sign_up(world.at, "ada", GOOD, HERE)
    world.log_in()
    signup.sign_up(world.at, "ada", "Ein anderer Satz 1", HERE)
    with pytest.raises(NotAuthenticated):
        world.log_in(password="Ein anderer Satz 1")


def test_a_weak_password_or_odd_name_is_told_and_nothing_is_kept(make: Callable[..., World]) -> None:
    world = make(rules=OPEN)
    for name, password, email in (
        ("ada", "short", "ada@example.org"),
        ("a\nb", GOOD, "ada@example.org"),
        ("ada", GOOD, "ada@example.org\r\nBcc: eve@example.org"),
        ("ada", GOOD, None),
    ):
        with pytest.raises(InvalidInput):
            signup.sign_up(world.at, name, password, HERE, email=email)
    assert world.sent == []
    assert len(admin.search_users(world.at).items) == 1


def test_sign_ups_are_limited(make: Callable[..., World]) -> None:
    world = make(
        rules=OPEN, limits=Limits(NO_LIMITS | {"sign_up": Limit(address="1/hour"), "mail": Limit(account="1/hour")})
    )
    signup.sign_up(world.at, "ada", GOOD, HERE, email="ada@example.org")
    with pytest.raises(RateLimited):
        signup.sign_up(world.at, "bob", GOOD, HERE, email="bob@example.org")
    signup.sign_up(world.at, "eve", GOOD, Caller(address="192.0.2.8"), email="ada@example.org")
    assert len(world.sent) == 1  # one mailbox, many addresses


# ----------------------------------------------------------------------------------------------------------- from outside


def test_an_identity_from_outside_is_never_merged_with_a_name(world: World) -> None:
    ada = world.user(email="ada@example.org")
    first = signup.provision(world.at, "hub:https://hub", "ada", "ada")
    assert (first.name, first.email, first.super_admin) == ("ada-2", None, False)
    assert first.id != ada.id
    assert signup.provision(world.at, "hub:https://hub", "ada", "renamed").id == first.id
    assert signup.provision(world.at, "hub:https://other", "ada", "ada").name == "ada-3"
    assert signup.provision(world.at, "hub:https://hub", "root", "root").id != world.root.id
    with pytest.raises(InvalidInput, match="issuer"):
        signup.provision(world.at, "local", ada.id, "ada")
    admin.disable_user(world.at, world.root, first.id)
    with pytest.raises(NotAuthenticated):
        signup.provision(world.at, "hub:https://hub", "ada", "ada")


# -------------------------------------------------------------------------------------------------------------- administration


def test_an_administrator_makes_a_user_who_sets_the_password(world: World) -> None:
    link = admin.create_user(world.at, world.root, "ada", email="ada@example.org")
    assert isinstance(link, admin.ResetLink)
    assert link.link is not None
    assert link.link.startswith("https://dblens.example.org/app/reset-password#token=")
    recovery.reset(world.at, link.token, GOOD, HERE)
    world.log_in()
    with pytest.raises(Conflict, match="taken"):
        admin.create_user(world.at, world.root, "ADA", password=GOOD)
    with pytest.raises(InvalidInput):
        admin.create_user(world.at, world.root, "bob", password="weak")


def test_only_a_super_admin_touches_a_super_admin(world: World) -> None:
    ada = world.user()
    for act in (
        lambda: admin.create_user(world.at, ada, "eve", super_admin=True),
        lambda: admin.disable_user(world.at, ada, world.root.id),
        lambda: admin.enable_user(world.at, ada, world.root.id),
        lambda: admin.delete_user(world.at, ada, world.root.id),
        lambda: admin.reset_user(world.at, ada, world.root.id),
        lambda: admin.approve_user(world.at, ada, world.root.id),
        lambda: admin.end_sessions(world.at, ada, world.root.id),
        lambda: admin.set_super_admin(world.at, ada, ada.id, True),
    ):
        with pytest.raises(PermissionDenied):
            act()


def test_nobody_disables_themselves_and_the_last_super_admin_stays(world: World) -> None:
    second = world.user("second")
    admin.set_super_admin(world.at, world.root, second.id, True)
    for act in (admin.disable_user, admin.delete_user):
        with pytest.raises(Conflict, match="their own"):
            act(world.at, world.root, world.root.id)
    admin.set_super_admin(world.at, world.root, world.root.id, False)
    with world.at.store.read() as tx:
        second = accounts.get_user(tx, second.id)
    with pytest.raises(Conflict, match="nobody else"):
        admin.set_super_admin(world.at, second, second.id, False)
    with pytest.raises(NotFound):
        admin.disable_user(world.at, second, "0" * 32)


def test_more_is_done_in_the_same_transaction_or_nothing(world: World) -> None:
    ada = world.user()

    def fails(tx: Any, user: Any) -> None:
        assert user.id == ada.id or user.name == "new"
        raise Conflict("their connections have no new owner")

    for act in (
        lambda: admin.delete_user(world.at, world.root, ada.id, also=fails),
        lambda: admin.disable_user(world.at, world.root, ada.id, also=fails),
        lambda: admin.create_user(world.at, world.root, "new", password=GOOD, also=fails),
    ):
        with pytest.raises(Conflict, match="no new owner"):
            act()
    world.log_in()
    assert len(admin.search_users(world.at).items) == 2


def test_the_real_parameters_log_in_too(world: World) -> None:
    world.at.passwords = Passwords()
    made = admin.create_user(world.at, world.root, "ada", password=GOOD)
    assert not isinstance(made, admin.ResetLink)
    assert world.log_in().user.must_change
    assert world.log_in().session.expires_at == world.clock() + dt.timedelta(days=30)
