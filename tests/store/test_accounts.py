"""Users, identities, sessions and tokens on both stores."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound
from dblens.store import accounts, organizations, sessions, tokens
from dblens.store import tables as t
from dblens.store.accounts import User
from dblens.store.database import Store

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def made(store: Store, name: str = "ada", **more: Any) -> User:
    with store.write() as tx:
        return accounts.create_user(tx, name, now=NOW, **more)


def opened(store: Store, user: User, **more: Any) -> sessions.Session:
    asked = {"kind": "login", "client": "t", "address": "::1", "now": NOW, "expires_at": NOW + HOUR} | more
    with store.write() as tx:
        return sessions.create_session(tx, user, **asked)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run all at the same time and return what each returned or raised."""
    results: list[Any] = [None] * len(works)
    gate = threading.Barrier(len(works))

    def run(number: int, work: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[number] = work()
        except DBLensError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


# ------------------------------------------------------------------------------------------------------------------------ users


def test_a_user_is_kept_and_found_by_name_and_address_whatever_the_case(store: Store) -> None:
    user = made(store, "Ada", email="Ada@Example.org", display="Ada L.", password_hash="$argon2id$secret")
    with store.read() as tx:
        assert accounts.get_user(tx, user.id) == user
        assert accounts.find_user(tx, "aDA") == accounts.find_user(tx, "ada@EXAMPLE.org") == user
        found = accounts.find_credential(tx, "ada")
        assert found is not None
        assert found.password_hash == "$argon2id$secret"
        assert "secret" not in repr(found) + repr(user)
        with pytest.raises(NotFound, match="no user 'bob'"):
            accounts.find_user(tx, "bob")
        for odd in ("a\0b", "\ud800", "x" * 5000, ""):
            assert accounts.find_credential(tx, odd) is None


@pytest.mark.parametrize("twin", ["ada", "ADA", "ａｄａ", "Ada"])
def test_two_names_that_fold_alike_are_one(store: Store, twin: str) -> None:
    made(store, "Ada")
    with pytest.raises(Conflict, match="taken"):
        made(store, twin)


def test_sharp_s_and_composed_letters_fold_alike(store: Store) -> None:
    made(store, "stra\N{LATIN SMALL LETTER SHARP S}e")
    made(store, "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}")
    for twin in ("STRASSE", "zoe\N{COMBINING DIAERESIS}"):
        with pytest.raises(Conflict):
            made(store, twin)


HIDDEN = ("ZERO WIDTH SPACE", "RIGHT-TO-LEFT OVERRIDE", "NO-BREAK SPACE", "HANGUL FILLER", "VARIATION SELECTOR-16")
MORE_HIDDEN = ("LINE SEPARATOR", "DIAERESIS", "FULLWIDTH COMMERCIAL AT", "COMBINING GRAPHEME JOINER")
ODD = ("", " ", "a b", "a\nb", "a\0b", "a\tb", "a@b", "a/b", "a\\b", "\ud800", "x" * 65)


@pytest.mark.parametrize("name", [*ODD, *(f"a{unicodedata.lookup(sign)}b" for sign in (*HIDDEN, *MORE_HIDDEN))])
def test_a_name_that_cannot_be_told_from_another_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        accounts.check_name(name)
    assert "name" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.encode()  # can be printed


@given(st.text(max_size=70))
@example("İ")
@example("ẞ")
def test_a_name_is_refused_clearly_or_folds_to_what_stays(name: str) -> None:
    try:
        kept = accounts.check_name(name)
    except InvalidInput as error:
        error.message.encode()  # can be printed
        return
    assert not any(unicodedata.category(char)[0] in "CZ" for char in kept)
    folded = accounts.fold(kept)
    assert folded == accounts.fold(folded) == accounts.fold(name)
    assert "@" not in folded
    for twin in (kept.casefold(), kept.lower(), unicodedata.normalize("NFKD", kept)):
        assert accounts.fold(twin) == folded


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(name=st.text(min_size=1, max_size=64))
def test_any_name_that_is_accepted_comes_back_the_same(store: Store, name: str) -> None:
    try:
        user = made(store, name)
    except (InvalidInput, Conflict):
        return
    with store.read() as tx:
        assert accounts.find_user(tx, name).name == user.name == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a b@c.de",
        "a@b\n.de",
        "a@b\r\nBcc: x@y",
        "ä@b.de",
        "a@bü.de",
        "a@-b.de",
        "a@b..de",
        "a@b.",
        '"a b"@c.de',
        "a,b@c.de",
        "<a@b.de>",
        "a" * 65 + "@b.de",
        "mıke@example.org",
        "a@" + "b" * 260,
    ],
)
def test_an_odd_address_is_refused(email: str) -> None:
    with pytest.raises(InvalidInput, match="email"):
        accounts.check_email(email)


def test_an_address_is_judged_in_no_time() -> None:
    with pytest.raises(InvalidInput):
        accounts.check_email("a@" + "a" * 200 + "!")


def test_users_are_searched_in_parts_and_no_sign_is_special(store: Store) -> None:
    users = [made(store, f"user{number}", email=f"u{number}@example.org") for number in range(5)]
    made(store, "per_cent%")
    with store.read() as tx:
        first = accounts.search_users(tx, search="USER", limit=3)
        rest = accounts.search_users(tx, search="USER", limit=3, after=first.after)
        assert [*first.items, *rest.items] == users
        assert rest.after is None
        assert [user.name for user in accounts.search_users(tx, search="_cent%").items] == ["per_cent%"]
        assert len(accounts.search_users(tx, search="@example").items) == 5
        assert accounts.search_users(tx, active=False).items == ()
        for limit in (0, 201, True):
            with pytest.raises(InvalidInput, match="limit"):
                accounts.search_users(tx, limit=limit)


def test_update_says_what_is_wrong_and_changes_only_what_is_given(store: Store) -> None:
    user, other = made(store, email="ada@example.org"), made(store, "bob", email="bob@example.org")
    with store.write() as tx:
        tokens.add_reset_token(tx, user.id, b"r" * 32, purpose="password", expires_at=NOW + HOUR)
        changed = accounts.update_user(tx, user.id, display="Countess", email="new@example.org")
        assert (changed.display, changed.email, changed.name) == ("Countess", "new@example.org", "ada")
        assert tokens.take_reset_token(tx, b"r" * 32, purpose="password", now=NOW) is None
        with pytest.raises(Conflict, match="address"):
            accounts.update_user(tx, other.id, email="NEW@example.org")
        with pytest.raises(InvalidInput, match="display"):
            accounts.update_user(tx, other.id, display="two\nlines")
        with pytest.raises(NotFound):
            accounts.update_user(tx, "0" * 32, display="x")


def test_a_deleted_user_leaves_no_session_token_or_grant(store: Store) -> None:
    user, boss = made(store), made(store, "boss", super_admin=True)
    opened(store, user)
    with store.write() as tx:
        org = organizations.create_organization(tx, "Acme", now=NOW)
        (role,) = organizations.ensure_roles(tx, [("viewer", 10, ["connection.read"])], now=NOW)
        organizations.add_member(tx, org.id, user.id, role.id, now=NOW)
        tokens.create_access_token(
            tx, org.id, user.id, name="ci", hash=b"h" * 32, scopes=["*"], expires_at=NOW + HOUR, now=NOW
        )
        accounts.link_identity(tx, "hub:https://hub", "ada", user.id, now=NOW)
        tx.execute(
            t.connections.insert().values(
                id="c" * 32, org_id=org.id, name="shop", engine="sqlite", fields={}, environment="", colour="",
                owner_id=user.id, created_at=NOW, updated_at=NOW,
            )
        )  # fmt: skip
        grant = {"grantee_kind": "user", "grantee_id": user.id, "org_id": org.id, "level": "use", "created_at": NOW}
        tx.execute(t.connection_grants.insert().values(connection_id="c" * 32, **grant))
    with store.write() as tx:
        accounts.delete_user(tx, user.id)
        for table in (t.sessions, t.access_tokens, t.identities, t.members, t.connection_grants):
            assert tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0, table.name
        assert tx.execute(sa.select(t.connections.c.owner_id)).scalar_one() is None
        with pytest.raises(NotFound):
            accounts.get_user(tx, user.id)
        assert accounts.get_user(tx, boss.id) == boss


def test_the_last_super_admin_stays(store: Store) -> None:
    root = made(store, "root", super_admin=True)
    made(store, "gone", super_admin=True, approved=False)  # does not count: nobody let them in
    for act in (
        lambda tx: accounts.disable_user(tx, root.id),
        lambda tx: accounts.delete_user(tx, root.id),
        lambda tx: accounts.update_user(tx, root.id, super_admin=False),
        lambda tx: accounts.update_user(tx, root.id, approved=False),
    ):
        with pytest.raises(Conflict, match="nobody else"), store.write() as tx:
            act(tx)
    made(store, "second", super_admin=True)
    with store.write() as tx:
        assert not accounts.disable_user(tx, root.id).active


def test_two_super_admins_who_disable_each_other_do_not_both_succeed(store: Store) -> None:
    for round in range(4):
        users = [made(store, f"root{round}{side}", super_admin=True) for side in "ab"]

        def disable(user: User) -> None:
            with store.write() as tx:
                accounts.disable_user(tx, user.id)

        results = at_once(*(lambda user=user: disable(user) for user in users))
        assert [type(result) for result in results].count(Conflict) == 1, results
        with store.write() as tx:  # for the next round: nobody
            tx.execute(t.users.delete())


def test_only_one_of_two_sets_up(store: Store) -> None:
    def set_up(name: str) -> User:
        with store.write() as tx:
            accounts.claim_set_up(tx)
            time.sleep(0.2)  # nobody comes in between
            return accounts.create_user(tx, name, super_admin=True, now=NOW)

    results = at_once(lambda: set_up("a"), lambda: set_up("b"), lambda: set_up("c"))
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 2
    with pytest.raises(Conflict, match="set up already"):
        set_up("d")


def test_nobody_sets_up_a_store_that_has_users(store: Store) -> None:
    made(store)
    with pytest.raises(Conflict), store.write() as tx:
        accounts.claim_set_up(tx)


def test_identities_are_not_merged_by_name(store: Store) -> None:
    ada, other = made(store), made(store, "ada-2")
    with store.write() as tx:
        accounts.link_identity(tx, "hub:https://hub", "ada", other.id, now=NOW)
        found = accounts.find_identity(tx, "hub:https://hub", "ada")
        assert found is not None
        assert found.id == other.id
        assert accounts.find_identity(tx, "hub:https://elsewhere", "ada") is None
        assert accounts.find_identity(tx, "hub:https://hub", "Ada") is None  # the issuer's business, not ours
        with pytest.raises(Conflict, match="has an account"):
            accounts.link_identity(tx, "hub:https://hub", "ada", ada.id, now=NOW)
        assert [each.issuer for each in accounts.list_identities(tx, other.id)] == ["hub:https://hub"]
        with pytest.raises(NotFound):
            accounts.unlink_identity(tx, ada.id, "hub:https://hub", "ada")
        accounts.unlink_identity(tx, other.id, "hub:https://hub", "ada")
        assert accounts.list_identities(tx, other.id) == ()


# --------------------------------------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize("how", ["revoke", "all", "version", "disable", "password", "expire", "unapprove"])
def test_an_ended_session_is_dead_at_once(store: Store, how: str) -> None:
    user = made(store)
    session = opened(store, user)
    with store.read() as tx:
        assert sessions.find_visit(tx, session.id, now=NOW) == sessions.Visit(user=user, session=session)
    with store.write() as tx:
        ends: dict[str, Callable[[], Any]] = {
            "revoke": lambda: sessions.revoke_session(tx, user.id, session.id, now=NOW),
            "all": lambda: sessions.revoke_sessions(tx, user.id, now=NOW),
            "version": lambda: accounts.end_sessions(tx, user.id),
            "disable": lambda: accounts.disable_user(tx, user.id),
            "password": lambda: accounts.set_password(tx, user.id, "h"),
            "unapprove": lambda: accounts.update_user(tx, user.id, approved=False),
            "expire": lambda: None,
        }
        ends[how]()
    with store.read() as tx:
        later = NOW + HOUR if how == "expire" else NOW
        assert sessions.find_visit(tx, session.id, now=later) is None
        assert sessions.list_sessions(tx, user.id, live_at=later).items == ()


@pytest.mark.parametrize("flag", ["active", "approved"])
def test_a_session_does_not_live_by_its_version_alone(store: Store, flag: str) -> None:
    user = made(store)
    session = opened(store, user)
    with store.write() as tx:
        tx.execute(t.users.update().values({flag: False}))  # by hand: the version is the same
        assert sessions.find_visit(tx, session.id, now=NOW) is None


def test_a_disabled_and_enabled_user_does_not_get_the_old_sessions_back(store: Store) -> None:
    user = made(store)
    session = opened(store, user)
    with store.write() as tx:
        accounts.disable_user(tx, user.id)
        accounts.enable_user(tx, user.id)
        assert sessions.find_visit(tx, session.id, now=NOW) is None


def test_sessions_of_others_are_not_found_and_lists_are_bounded(store: Store) -> None:
    ada, bob = made(store), made(store, "bob")
    own = [opened(store, ada, client="x\ny\0" + "z" * 300, address="a" * 99) for _ in range(3)]
    assert own[0].client.startswith("x?y?z")
    assert (len(own[0].client), len(own[0].address)) == (255, 64)
    with store.write() as tx:
        with pytest.raises(NotFound):
            sessions.revoke_session(tx, bob.id, own[0].id, now=NOW)
        first = sessions.list_sessions(tx, ada.id, live_at=NOW, limit=2)
        rest = sessions.list_sessions(tx, ada.id, live_at=NOW, limit=2, after=first.after)
        assert [each.id for each in (*first.items, *rest.items)] == sorted((each.id for each in own), reverse=True)
        assert sessions.revoke_sessions(tx, ada.id, now=NOW, but=own[1].id) == 2
        assert [each.id for each in sessions.list_sessions(tx, ada.id, live_at=NOW).items] == [own[1].id]
        sessions.touch_session(tx, own[1].id, address="::2", now=NOW + HOUR / 2)
        assert sessions.list_sessions(tx, ada.id, live_at=NOW).items[0].address == "::2"
        assert sessions.sweep(tx, before=NOW + 2 * HOUR) == 3


def test_a_refresh_token_is_good_once_and_its_second_use_ends_the_session(store: Store) -> None:
    user = made(store)
    session, other = opened(store, user), opened(store, user)
    with store.write() as tx:
        for each, token in ((session, b"1"), (other, b"2")):
            sessions.add_refresh_token(tx, each.id, token * 32, expires_at=NOW + HOUR)
        assert sessions.use_refresh_token(tx, b"?" * 32, now=NOW) is None
        assert sessions.use_refresh_token(tx, b"1" * 32, now=NOW) is not None
        assert sessions.find_visit(tx, session.id, now=NOW) is not None
        assert sessions.use_refresh_token(tx, b"1" * 32, now=NOW) is None
        assert sessions.find_visit(tx, session.id, now=NOW) is None
        assert sessions.find_visit(tx, other.id, now=NOW) is not None  # another family
        assert sessions.use_refresh_token(tx, b"2" * 32, now=NOW + HOUR) is None  # expired


def test_of_two_threads_with_one_refresh_token_one_wins_and_then_the_family_dies(store: Store) -> None:
    user = made(store)
    for number in range(8):
        session, token = opened(store, user), hashlib.sha256(bytes([number])).digest()
        with store.write() as tx:
            sessions.add_refresh_token(tx, session.id, token, expires_at=NOW + HOUR)

        def use(token: bytes = token) -> sessions.Visit | None:
            with store.write() as tx:
                return sessions.use_refresh_token(tx, token, now=NOW)

        results = at_once(use, use)
        assert [result is None for result in results].count(True) == 1, results
        with store.read() as tx:
            assert sessions.find_visit(tx, session.id, now=NOW) is None


# ----------------------------------------------------------------------------------------------------------------------- tokens


def test_a_reset_token_is_taken_once_by_one_of_two(store: Store) -> None:
    user = made(store)
    for number in range(8):
        token = hashlib.sha256(bytes([number])).digest()
        with store.write() as tx:
            tokens.add_reset_token(tx, user.id, token, purpose="password", expires_at=NOW + HOUR)

        def take(token: bytes = token) -> str | None:
            with store.write() as tx:
                return tokens.take_reset_token(tx, token, purpose="password", now=NOW)

        assert sorted(at_once(take, take), key=str) == sorted([user.id, None], key=str)


def test_a_reset_token_is_of_one_purpose_for_a_while_and_the_newest(store: Store) -> None:
    user = made(store)
    with store.write() as tx:
        tokens.add_reset_token(tx, user.id, b"1" * 32, purpose="password", expires_at=NOW + HOUR)
        tokens.add_reset_token(tx, user.id, b"2" * 32, purpose="password", expires_at=NOW + HOUR)
        for hash, purpose, at in ((b"1", "password", NOW), (b"2", "email", NOW), (b"2", "password", NOW + HOUR)):
            assert tokens.take_reset_token(tx, hash * 32, purpose=purpose, now=at) is None
        assert tokens.peek_reset_token(tx, b"2" * 32, purpose="password", now=NOW) == user.id
        assert tokens.take_reset_token(tx, b"2" * 32, purpose="password", now=NOW) == user.id
        with pytest.raises(InvalidInput, match="purpose"):
            tokens.add_reset_token(tx, user.id, b"3" * 32, purpose="other", expires_at=NOW)


def test_access_tokens_are_scoped_to_an_organization_and_end(store: Store) -> None:
    ada, bob = made(store), made(store, "bob")
    more = {"name": "ci", "scopes": ["connection.*", "audit.read"], "expires_at": NOW + HOUR, "now": NOW}
    with store.write() as tx:
        org = organizations.create_organization(tx, "Acme", now=NOW)
        (role,) = organizations.ensure_roles(tx, [("viewer", 10, ["connection.read"])], now=NOW)
        organizations.add_member(tx, org.id, ada.id, role.id, now=NOW)
        with pytest.raises(NotFound):
            tokens.create_access_token(tx, org.id, bob.id, hash=b"0" * 32, **more)
        for wrong in ({"scopes": []}, {"expires_at": NOW}, {"name": ""}, {"scopes": ["a.b"] * 101}):
            with pytest.raises(InvalidInput):
                tokens.create_access_token(tx, org.id, ada.id, hash=b"0" * 32, **(more | wrong))
        one, two, three = (
            tokens.create_access_token(tx, org.id, ada.id, hash=h * 32, **more) for h in (b"1", b"2", b"3")
        )
        assert one.scopes == ("audit.read", "connection.*")
        assert tokens.find_bearer(tx, b"1" * 32, now=NOW) == tokens.Bearer(user=ada, token=one)
        assert tokens.find_bearer(tx, b"1" * 32, now=NOW + HOUR) is None
        with pytest.raises(NotFound):
            tokens.revoke_access_token(tx, bob.id, one.id, now=NOW)
        with pytest.raises(NotFound):
            tokens.get_access_token(tx, bob.id, one.id)
        tokens.revoke_access_token(tx, ada.id, one.id, now=NOW)
        assert tokens.find_bearer(tx, b"1" * 32, now=NOW) is None
        assert tokens.get_access_token(tx, ada.id, one.id).revoked_at == NOW
        tokens.touch_access_token(tx, two.id, now=NOW)
        assert [each.used_at for each in tokens.list_access_tokens(tx, ada.id, live_at=NOW).items] == [None, NOW]
        assert tokens.list_access_tokens(tx, ada.id, org_id="0" * 32).items == ()
        assert tokens.revoke_access_tokens(tx, ada.id, now=NOW, org_id="0" * 32) == 0
        accounts.disable_user(tx, ada.id)
        assert tokens.find_bearer(tx, b"3" * 32, now=NOW) is None
        assert three.id
        assert tokens.revoke_access_tokens(tx, ada.id, now=NOW, org_id=org.id) == 2
