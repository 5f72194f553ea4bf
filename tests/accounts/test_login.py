"""Attacks 3 and 9: a token after its end, and finding out or trying passwords and names. Also sessions and access tokens."""

from __future__ import annotations

import datetime as dt
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from dblens.accounts import admin, lockout, login, profile, recovery
from dblens.accounts.base import Caller
from dblens.accounts.limits import Limit, Limits
from dblens.accounts.passwords import Passwords
from dblens.errors import InvalidInput, NotAuthenticated, NotFound, PermissionDenied, RateLimited
from dblens.store import accounts, organizations
from dblens.store import tables as t
from tests.accounts.conftest import GOOD, HERE, NO_LIMITS, START, World, quick

NEW = "Ganz anderer Satz 9"


def member(world: World, user_id: str) -> str:
    with world.at.store.write() as tx:
        org = organizations.create_organization(tx, "Acme", now=START)
        (role,) = organizations.ensure_roles(tx, [("viewer", 10, ["connection.read"])], now=START)
        organizations.add_member(tx, org.id, user_id, role.id, now=START)
    return org.id


# ------------------------------------------------------------------------------------------------------------------ logging in


def test_a_login_by_name_and_by_address_whatever_the_case(world: World) -> None:
    user = world.user("Ada", email="ada@example.org")
    for name in ("ada", "ADA", "Ada@Example.ORG"):
        done = login.log_in(world.at, name, GOOD, Caller(address="::1", client="Firefox"))
        assert done.user.id == user.id
        assert (done.session.address, done.session.client, done.session.kind) == ("::1", "Firefox", "login")
        assert done.user.last_login_at == START
        auth = world.who(done.tokens.access)
        assert (auth.user.id, auth.scopes, auth.authenticated_at) == (user.id, None, START)


def test_no_token_or_hash_is_shown(world: World) -> None:
    world.user()
    done = world.log_in()
    shown = repr(done) + repr(world.at) + repr(world.who(done.tokens.access))
    for hidden in (done.tokens.access, done.tokens.refresh, "argon2", GOOD):
        assert hidden not in shown


def test_what_is_kept_is_no_token(world: World) -> None:
    world.user()
    done = world.log_in()
    with world.at.store.read() as tx:
        kept = b"".join(tx.execute(sa.select(t.refresh_tokens.c.hash)).scalars())
    assert done.tokens.refresh.encode() not in kept
    assert len(kept) == 32


# --------------------------------------------------------------------------------------------- attack 9: guessing and finding out


class Counting(Passwords):
    """Counts hashes: what an answer's time is made of."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_kib=64)
        self.count = 0

    def hash(self, password: str) -> str:
        self.count += 1
        return super().hash(password)

    def verify(self, hash: str | None, password: str) -> bool:
        self.count += 1
        inner = self.hasher.verify
        calls = []

        class Watched:
            def verify(self, *given: Any) -> bool:
                calls.append(given)
                return inner(*given)

        kept, self.hasher = self.hasher, Watched()  # type: ignore[assignment]
        try:
            return super().verify(hash, password)
        finally:
            self.hasher = kept
            assert len(calls) == 1, "an answer without a hash"


def answer(world: World, name: str, password: str) -> tuple[str, int]:
    counting = world.at.passwords
    assert isinstance(counting, Counting)
    counting.count = 0
    with pytest.raises(NotAuthenticated) as caught:
        login.log_in(world.at, name, password, HERE)
    return str(caught.value), counting.count


def test_known_unknown_locked_disabled_and_waiting_accounts_get_one_answer_for_one_hash(world: World) -> None:
    for name in ("ada", "locked", "disabled", "waiting", "external"):
        world.user(name)
    with world.at.store.write() as tx:
        accounts.set_lockout(
            tx, accounts.find_user(tx, "locked").id, failures=0, lockouts=1, locked_until=START + dt.timedelta(hours=1)
        )
        accounts.disable_user(tx, accounts.find_user(tx, "disabled").id)
        accounts.update_user(tx, accounts.find_user(tx, "waiting").id, approved=False)
        accounts.set_password(tx, accounts.find_user(tx, "external").id, None)
    world.at.passwords = Counting()
    answers = {
        answer(world, name, "wrong") for name in ("ada", "nobody", "a\0b", "x" * 9999, "\ud800", "no@example.org")
    }
    answers |= {answer(world, name, GOOD) for name in ("nobody", "locked", "disabled", "waiting", "external")}
    answers |= {answer(world, "ada", password) for password in ("", "\ud800", "x" * 99999)}
    assert len(answers) == 1, answers
    assert answers.pop()[1] == 1


def test_every_refusal_writes(world: World) -> None:
    """A failure that is counted is written; the disk must not tell it from one that is not."""
    user = world.user()
    with world.at.store.write() as tx:
        accounts.set_lockout(tx, user.id, failures=0, lockouts=1, locked_until=START + dt.timedelta(hours=1))
    world.user("bob")
    statements: list[str] = []
    sa.event.listen(world.at.store.engine, "after_cursor_execute", lambda *given: statements.append(given[2]))
    for name in ("nobody", "nobody", "ada", "bob"):
        statements.clear()
        with pytest.raises(NotAuthenticated):
            world.log_in(name, "wrong")
        assert any(text.startswith("UPDATE") for text in statements), name


def test_five_failures_lock_and_the_right_password_does_not_work_meanwhile(world: World) -> None:
    world.user()
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            world.log_in(password="wrong")
    world.clock.on(minutes=14, seconds=59)
    with pytest.raises(NotAuthenticated):
        world.log_in()
    with world.at.store.read() as tx:  # the try during the wait has not made it longer
        assert accounts.find_user(tx, "ada").locked_until == START + dt.timedelta(minutes=15)
    world.clock.on(seconds=1)
    done = world.log_in()
    assert (done.user.failures, done.user.lockouts, done.user.locked_until) == (0, 0, None)


def test_four_failures_and_a_success_begin_anew(world: World) -> None:
    world.user()
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(NotAuthenticated):
                world.log_in(password="wrong")
        world.log_in()


def test_each_lockout_is_twice_as_long_up_to_eight_hours() -> None:
    rules = lockout.Lockout()
    waits = [rules.wait(number).total_seconds() / 60 for number in (1, 2, 3, 4, 5, 6, 7, 1000)]
    assert waits == [15, 30, 60, 120, 240, 480, 480, 480]


def test_the_second_lockout_is_longer(world: World) -> None:
    world.user()
    for wait in (15, 30, 60):
        for _ in range(5):
            with pytest.raises(NotAuthenticated):
                world.log_in(password="wrong")
        with world.at.store.read() as tx:
            assert accounts.find_user(tx, "ada").locked_until == world.clock() + dt.timedelta(minutes=wait)
        world.clock.on(minutes=wait)


def test_guesses_at_once_are_counted_one_by_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = world.user()
    told, gate, count = [], threading.Barrier(5), lockout.count
    verified = world.at.passwords.verify

    def together(hash: str | None, password: str) -> bool:
        result = verified(hash, password)
        gate.wait(20)  # all have been told right or wrong before any is counted
        return result

    def slowly(*given: Any, **more: Any) -> None:
        time.sleep(0.1)  # the others could have read the same number meanwhile
        count(*given, **more)

    monkeypatch.setattr(lockout, "count", slowly)
    monkeypatch.setattr(world.at.passwords, "verify", together)

    def guess() -> None:
        try:
            world.log_in(password="wrong")
        except NotAuthenticated as error:
            told.append(error)

    threads = [threading.Thread(target=guess) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with world.at.store.read() as tx:
        held = accounts.get_user(tx, user.id)
    assert len(told) == 5
    assert (held.lockouts, held.failures, lockout.locked(held, START)) == (1, 0, True)


def test_an_administrator_ends_a_lockout(world: World) -> None:
    user = world.user()
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            world.log_in(password="wrong")
    admin.enable_user(world.at, world.root, user.id)
    world.log_in()


def test_tries_are_limited_by_address_and_by_account_before_any_hash(make: Callable[..., World]) -> None:
    world = make(limits=Limits(NO_LIMITS | {"login": Limit(address="3/minute", account="2/minute")}))
    world.at.passwords = Counting()
    for name, password in (("ada", "x"), ("ada", "x")):
        with pytest.raises(NotAuthenticated):
            login.log_in(world.at, name, password, Caller(address="192.0.2.1"))
    hashes = world.at.passwords.count
    with pytest.raises(RateLimited) as caught:
        login.log_in(world.at, "ada", "x", Caller(address="192.0.2.2"))
    assert 1 <= caught.value.retry_after <= 60
    with pytest.raises(NotAuthenticated):
        login.log_in(world.at, "bob", "x", Caller(address="192.0.2.1"))
    with pytest.raises(RateLimited):
        login.log_in(world.at, "eve", "x", Caller(address="192.0.2.1"))
    assert world.at.passwords.count == hashes + 1


def test_a_hash_of_other_parameters_is_renewed_at_the_next_login(world: World) -> None:
    world.user()
    world.at.passwords = Passwords(time_cost=2, memory_kib=128)
    session = world.auth().session
    assert session is not None
    with world.at.store.read() as tx:
        found = accounts.find_credential(tx, "ada")
    assert found is not None
    assert "m=128,t=2" in (found.password_hash or "")
    assert found.user.version == session.user_version  # nobody is logged out by it
    world.log_in()


# --------------------------------------------------------------------------------------------- attack 3: tokens after their end


def ways(world: World) -> dict[str, Callable[[], Any]]:
    with world.at.store.read() as tx:
        user = accounts.find_user(tx, "ada")

    def reset() -> None:
        link = admin.reset_user(world.at, world.root, user.id)
        recovery.reset(world.at, link.token, NEW, HERE)

    def reset_by_mail() -> None:
        recovery.forgot(world.at, "ada", HERE)
        recovery.reset(world.at, world.sent[-1].text.partition("#token=")[2].split()[0], NEW, HERE)

    return {
        "reset by mail": reset_by_mail,
        "log out": lambda: login.log_out(world.at, world.auth_kept),  # type: ignore[attr-defined]
        "log out everywhere": lambda: login.log_out_everywhere(world.at, world.auth(), access_tokens_too=True),
        "own list": lambda: login.revoke_session(world.at, world.auth(), world.auth_kept.session.id),  # type: ignore[attr-defined]
        "change": lambda: recovery.change_password(world.at, world.auth(), GOOD, NEW),
        "admin reset, not used yet": lambda: admin.reset_user(world.at, world.root, user.id),
        "reset": reset,
        "disable": lambda: admin.disable_user(world.at, world.root, user.id),
        "disable and enable": lambda: (
            admin.disable_user(world.at, world.root, user.id),
            admin.enable_user(world.at, world.root, user.id),
        ),
        "delete": lambda: admin.delete_user(world.at, world.root, user.id),
        "end sessions": lambda: admin.end_sessions(world.at, world.root, user.id),
    }


@pytest.mark.parametrize(
    "way",
    [
        "reset by mail",
        "log out",
        "log out everywhere",
        "own list",
        "change",
        "admin reset, not used yet",
        "reset",
        "disable",
        "disable and enable",
        "delete",
        "end sessions",
    ],
)
def test_no_token_outlives_its_session(world: World, way: str) -> None:
    user = world.user(email="ada@example.org")
    org_id = member(world, user.id)
    done = world.log_in()
    world.auth_kept = world.who(done.tokens.access)  # type: ignore[attr-defined]
    pat = profile.create_access_token(
        world.at, world.auth_kept, org_id, "ci", ["connection.read"], START + dt.timedelta(days=1)  # type: ignore[attr-defined]
    )  # fmt: skip
    assert world.who(pat.secret).user.id == user.id
    ways(world)[way]()
    with pytest.raises(NotAuthenticated):
        world.who(done.tokens.access)
    with pytest.raises(NotAuthenticated):
        login.refresh(world.at, done.tokens.refresh, HERE)
    if way in {"log out", "own list", "change"}:  # these end a session, not what was made for programs
        assert world.who(pat.secret).user.id == user.id
    else:
        with pytest.raises(NotAuthenticated):
            world.who(pat.secret)


def test_a_token_of_another_users_session_is_no_token(world: World) -> None:
    ada, bob = world.user(), world.user("bob")
    session = world.log_in().session
    assert session.user_id == ada.id
    with pytest.raises(NotAuthenticated):
        world.who(world.at.keys.sign(bob.id, session.id, now=START))


def test_rights_are_read_at_each_request(world: World) -> None:
    user = world.user()
    done = world.log_in()
    assert not world.who(done.tokens.access).user.super_admin
    admin.set_super_admin(world.at, world.root, user.id, True)
    assert world.who(done.tokens.access).user.super_admin
    admin.set_super_admin(world.at, world.root, user.id, False)
    assert not world.who(done.tokens.access).user.super_admin


# ------------------------------------------------------------------------------------------------------------------- refreshing


def test_a_session_is_prolonged_until_it_idles_or_is_a_month_old(world: World) -> None:
    world.user()
    first = done = world.log_in()
    for _ in range(4):
        world.clock.on(days=6, hours=23)
        with pytest.raises(NotAuthenticated):
            world.who(done.tokens.access)
        done = login.refresh(world.at, done.tokens.refresh, HERE)
        assert world.who(done.tokens.access).session is not None
        assert done.tokens.refresh_expires_at <= first.session.expires_at
    world.clock.now = first.session.expires_at
    with pytest.raises(NotAuthenticated):
        login.refresh(world.at, done.tokens.refresh, HERE)
    idle = world.log_in()
    world.clock.on(days=7)
    with pytest.raises(NotAuthenticated):
        login.refresh(world.at, idle.tokens.refresh, HERE)


def test_a_stolen_refresh_token_ends_the_session_of_thief_and_owner(world: World) -> None:
    world.user()
    done, other = world.log_in(), world.log_in()
    thief = login.refresh(world.at, done.tokens.refresh, HERE)
    with pytest.raises(NotAuthenticated):
        login.refresh(world.at, done.tokens.refresh, HERE)
    for dead in (thief, done):
        with pytest.raises(NotAuthenticated):
            world.who(dead.tokens.access)
    with pytest.raises(NotAuthenticated):
        login.refresh(world.at, thief.tokens.refresh, HERE)
    login.refresh(world.at, other.tokens.refresh, HERE)


def test_of_two_refreshes_at_once_one_wins_and_then_the_family_dies(world: World) -> None:
    world.user()
    for _ in range(5):
        done, gate, results = world.log_in(), threading.Barrier(2), []

        def refresh(token: str = done.tokens.refresh, gate: threading.Barrier = gate, results: Any = results) -> None:
            gate.wait()
            try:
                results.append(login.refresh(world.at, token, HERE))
            except NotAuthenticated as error:
                results.append(error)

        threads = [threading.Thread(target=refresh) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        won = [result for result in results if not isinstance(result, NotAuthenticated)]
        assert (len(results), len(won)) == (2, 1)
        with pytest.raises(NotAuthenticated):
            world.who(won[0].tokens.access)
        with pytest.raises(NotAuthenticated):
            login.refresh(world.at, won[0].tokens.refresh, HERE)


def test_noise_is_no_token(world: World) -> None:
    for token in ("", "x", "\ud800", "x" * 100_000, "dbl_pat_x", "a.b.c", "dbl_pat_\ud800"):
        with pytest.raises(NotAuthenticated):
            login.refresh(world.at, token, HERE)
        with pytest.raises(NotAuthenticated):
            world.who(token)


# --------------------------------------------------------------------------------------------------- sessions and access tokens


def test_one_sees_and_ends_ones_own_sessions_only(world: World) -> None:
    world.user()
    world.user("bob")
    mine, bobs = world.log_in(), world.log_in("bob")
    auth = world.who(mine.tokens.access)
    assert [each.id for each in login.list_sessions(world.at, auth).items] == [mine.session.id]
    with pytest.raises(NotFound):
        login.revoke_session(world.at, auth, bobs.session.id)
    assert world.who(bobs.tokens.access).user.name == "bob"


def test_the_last_use_is_kept_to_the_minute(world: World) -> None:
    world.user()
    done = world.log_in()
    world.clock.on(seconds=59)
    world.who(done.tokens.access)
    assert login.list_sessions(world.at, world.who(done.tokens.access)).items[0].seen_at == START
    world.clock.on(seconds=1)
    world.who(done.tokens.access)
    seen = login.list_sessions(world.at, world.who(done.tokens.access)).items[0].seen_at
    assert seen == START + dt.timedelta(minutes=1)


def test_administration_needs_a_recent_login_which_a_password_renews(world: World) -> None:
    world.user()
    done = world.log_in()
    rules = world.at.rules
    world.clock.on(minutes=5)
    assert world.who(done.tokens.access).recent(rules, world.clock())
    world.clock.on(minutes=11)
    done = login.refresh(world.at, done.tokens.refresh, HERE)
    auth = world.who(done.tokens.access)
    assert not auth.recent(rules, world.clock())  # a refresh proves nothing
    with pytest.raises(NotAuthenticated):
        login.confirm(world.at, auth, "wrong")
    login.confirm(world.at, auth, GOOD)
    assert world.who(done.tokens.access).recent(rules, world.clock())


def test_a_stolen_session_cannot_try_passwords_without_end(world: World) -> None:
    user = world.user()
    auth = world.auth()
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            recovery.change_password(world.at, auth, "wrong", NEW)
    with pytest.raises(NotAuthenticated):
        recovery.change_password(world.at, auth, GOOD, NEW)
    with world.at.store.read() as tx:
        assert lockout.locked(accounts.get_user(tx, user.id), START)


def test_access_tokens_are_scoped_end_and_make_no_others(world: World) -> None:
    user = world.user()
    org_id, auth, until = member(world, user.id), world.auth(), START + dt.timedelta(days=30)
    made = profile.create_access_token(world.at, auth, org_id, "ci", ["connection.*", "audit.read"], until)
    assert made.secret.startswith("dbl_pat_")
    assert made.secret not in repr(made)
    found = world.who(made.secret)
    assert (found.scopes, found.session, found.authenticated_at) == (("audit.read", "connection.*"), None, None)
    assert found.token is not None
    assert found.token.org_id == org_id
    assert not found.recent(world.at.rules, START)
    (listed,) = profile.list_access_tokens(world.at, auth).items
    assert listed.used_at == START
    assert made.secret.encode() not in msgspec.json.encode(listed)
    for act in (
        lambda: profile.create_access_token(world.at, found, org_id, "more", ["*"], until),
        lambda: recovery.change_password(world.at, found, GOOD, NEW),
        lambda: profile.set_display(world.at, found, "x"),
        lambda: profile.set_email(world.at, found, "x@example.org", GOOD),
        lambda: login.log_out(world.at, found),
        lambda: login.log_out_everywhere(world.at, found),
        lambda: login.confirm(world.at, found, GOOD),
        lambda: login.revoke_session(world.at, found, "x"),
        lambda: profile.revoke_access_token(world.at, found, "x"),
    ):
        with pytest.raises(PermissionDenied):
            act()
    world.clock.now = until
    with pytest.raises(NotAuthenticated):
        world.who(made.secret)


def test_an_access_token_may_end_itself(world: World) -> None:
    user = world.user()
    made = profile.create_access_token(
        world.at, world.auth(), member(world, user.id), "ci", ["*"], START + dt.timedelta(days=1)
    )
    found = world.who(made.secret)
    assert found.token is not None
    profile.revoke_access_token(world.at, found, found.token.id)
    with pytest.raises(NotAuthenticated):
        world.who(made.secret)


def test_an_access_token_that_is_too_long_too_wide_or_of_others_is_refused(world: World) -> None:
    user = world.user()
    org_id, auth, day = member(world, user.id), world.auth(), dt.timedelta(days=1)
    for scopes in (
        [],
        ["connection"],
        ["Connection.read"],
        ["connection.read;"],
        ["*.*"],
        [".read"],
        ["a.b\n"],
        [7],
        ["x." * 99],
    ):
        with pytest.raises(InvalidInput):
            profile.create_access_token(world.at, auth, org_id, "ci", scopes, START + day)  # type: ignore[arg-type]
    for until in (START + 367 * day, START, START - day, (START + day).replace(tzinfo=None)):
        with pytest.raises(InvalidInput, match="expires_at"):
            profile.create_access_token(world.at, auth, org_id, "ci", ["*"], until)
    world.user("bob")
    with pytest.raises(NotFound):
        profile.create_access_token(world.at, world.auth("bob"), org_id, "ci", ["*"], START + day)


# ------------------------------------------------------------------------------------------------------------ must change first


def test_a_first_password_is_good_for_a_new_one_only(world: World) -> None:
    admin.create_user(world.at, world.root, "ada", password=GOOD)
    done = world.log_in()
    with pytest.raises(PermissionDenied, match="changed first"):
        world.who(done.tokens.access)
    auth = world.who(done.tokens.access, must_change_too=True)
    with pytest.raises(InvalidInput, match="the old one"):
        recovery.change_password(world.at, auth, GOOD, GOOD)
    recovery.change_password(world.at, auth, GOOD, NEW)
    assert not world.who(done.tokens.access).user.must_change


def test_a_changed_password_ends_every_other_session_and_keeps_this_one(world: World) -> None:
    world.user(email="ada@example.org")
    here, there = world.log_in(), world.log_in()
    recovery.change_password(world.at, world.who(here.tokens.access), GOOD, NEW)
    assert world.who(here.tokens.access).user.name == "ada"
    login.refresh(world.at, here.tokens.refresh, HERE)
    with pytest.raises(NotAuthenticated):
        world.who(there.tokens.access)
    with pytest.raises(NotAuthenticated):
        world.log_in()
    world.log_in(password=NEW)
    assert [mail.subject for mail in world.sent] == ["DBLens: your account was changed"]


def test_an_old_password_that_was_right_a_moment_ago_opens_nothing(world: World) -> None:
    """Between the hash and the answer the password is changed."""
    user = world.user()
    verify = world.at.passwords.verify

    def late(hash: str | None, password: str) -> bool:
        result = verify(hash, password)
        with world.at.store.write() as tx:
            accounts.set_password(tx, user.id, quick().hash(NEW))
        return result

    world.at.passwords.verify = late  # type: ignore[method-assign]
    with pytest.raises(NotAuthenticated):
        world.log_in()


def test_expired_rows_are_swept(world: World) -> None:
    world.user()
    world.log_in()
    world.clock.on(days=45)
    assert login.sweep(world.at) == 1  # the refresh token; the session ended 15 days ago
    world.clock.on(days=16)
    assert login.sweep(world.at) == 1


def test_the_seconds_to_wait_survive_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(RateLimited("too many tries", retry_after=7)))
    assert (error.retry_after, error.http) == (7, 429)
