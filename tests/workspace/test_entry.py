"""The way in: set-up, login and the rest, what the audit says of them, and what it must not."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from dblens.accounts import configured, jwt, rules_stored, signing
from dblens.accounts.base import Caller
from dblens.accounts.limits import Limit, Limits
from dblens.accounts.rules_stored import AccountRules, MailServer
from dblens.errors import (
    Conflict,
    DBLensError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RateLimited,
    StoreError,
    VaultError,
)
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import accounts, organizations, settings, tokens
from dblens.store.database import Store
from dblens.store.keys import Kek, Keyring
from dblens.workspace import entrance
from dblens.workspace.entry import principal_of
from dblens.workspace.house import House
from dblens.workspace.journal import Journal
from dblens.workspace.permissions import SYSTEM_ROLES
from tests.workspace.people import GOOD, HERE, NO_LIMITS, NOW, World

NEW = "Schlussstein-8 sitzt"


@pytest.fixture
def empty(store: Store, tmp_path: Path) -> Iterator[House]:
    made = House(
        store,
        Settings(store_url="sqlite:///unused", data_folder=tmp_path, mode="team"),
        Keyring((Kek("k1", b"1" * 32),)),
        Journal(store, b"k" * 32, age=30),
    )
    with store.write() as tx:
        organizations.ensure_roles(tx, [(r.name, r.rank, r.permissions) for r in SYSTEM_ROLES.values()], now=NOW)
    yield made
    made.executor.close(cancel=True)
    made.journal.close()


# -------------------------------------------------------------------------------------------------------------------- set-up


def test_the_first_set_up_happens_once_and_by_who_has_the_code(empty: House) -> None:
    assert entrance.needs_set_up(empty)
    code = entrance.set_up_code(empty)
    assert code is not None
    assert entrance.set_up_code(empty) == code, "every process of the service shows the same"
    for wrong in ("", "x", code.reveal() + "x"):
        with pytest.raises(PermissionDenied, match="code is wrong"):
            entrance.set_up(empty, "root", Secret(GOOD), HERE, code=Secret(wrong))
    with pytest.raises(InvalidInput):
        entrance.set_up(empty, "root", Secret("weak"), HERE, code=code)
    assert entrance.needs_set_up(empty)
    entrance.set_up(empty, "root", Secret(GOOD), HERE, code=code, organization="Acme")
    assert entrance.set_up_code(empty) is None
    for late in (code, Secret("")):
        with pytest.raises(Conflict, match="set up already"):
            entrance.set_up(empty, "mallory", Secret(GOOD), HERE, code=late)
    done = entrance.log_in(empty, "root", Secret(GOOD), HERE)
    bearer = Secret(done.tokens.access)
    plain = entrance.authenticate(empty, bearer, HERE)
    assert (plain.role, plain.rank) == ("admin", 80)
    above = entrance.authenticate(empty, bearer, HERE, super_admin=True, organization="acme")
    assert (above.role, above.org_id) == ("super_admin", plain.org_id)


def test_of_two_set_ups_at_once_one_wins(empty: House) -> None:
    code = entrance.set_up_code(empty)
    assert code is not None
    done = _at_once(lambda n: entrance.set_up(empty, f"root{n}", Secret(GOOD), HERE, code=code), 3)
    assert [error for error in done if error is None] == [None]
    assert all(isinstance(error, Conflict | PermissionDenied | NotFound) for error in done if error is not None)
    with empty.store.read() as tx:
        assert len(accounts.search_users(tx).items) == 1


# --------------------------------------------------------------------------------------------------------------------- log in


def test_logging_in_refreshing_and_out(either: World) -> None:
    house = either.house
    done = entrance.log_in(house, "ada@example.org", Secret(GOOD), HERE)
    principal = entrance.authenticate(house, Secret(done.tokens.access), HERE)
    assert (principal.kind, principal.name, principal.role, principal.org_id) == (
        "account",
        "ada",
        "admin",
        either.acme,
    )
    assert (principal.address, principal.client, principal.scopes) == ("192.0.2.7", "pytest", None)
    again = entrance.refresh(house, Secret(done.tokens.refresh), HERE)
    assert entrance.authenticate(house, Secret(again.tokens.access), HERE).session_id == principal.session_id
    entrance.log_out(house, principal)
    for gone in (done.tokens.access, again.tokens.access):
        with pytest.raises(NotAuthenticated):
            entrance.authenticate(house, Secret(gone), HERE)
    with pytest.raises(NotAuthenticated):
        entrance.refresh(house, Secret(again.tokens.refresh), HERE)
    rows = [(row.phase, row.actor, row.outcome) for row in either.rows() if row.action.startswith("account.")]
    assert rows.count(("ended", "ada", "ok")) == 3
    with pytest.raises(NotFound):
        entrance.log_out(house, principal)


def test_a_refresh_token_used_twice_ends_the_session(world: World) -> None:
    """Attack 3: whoever copied it and whoever owns it are both out."""
    done = entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    again = entrance.refresh(world.house, Secret(done.tokens.refresh), HERE)
    with pytest.raises(NotAuthenticated):
        entrance.refresh(world.house, Secret(done.tokens.refresh), HERE)
    for gone in (done.tokens.access, again.tokens.access):
        with pytest.raises(NotAuthenticated):
            entrance.authenticate(world.house, Secret(gone), HERE)
    row = world.rows("account.refresh")[-1]
    assert (row.phase, row.outcome) == ("denied", "auth.required")


def test_every_failure_has_one_answer_and_a_row_without_what_was_typed(world: World) -> None:
    """Attack 9. A password typed as the name must not lie in the audit."""
    with world.house.store.write() as tx:
        accounts.disable_user(tx, world.user("bob").id)
        accounts.update_user(tx, world.user("zoe").id, approved=False)
    answers = set()
    for name, password in (
        ("ada", "wrong"),
        ("Hunter2-typed-as-name", "wrong"),
        ("nobody@example.org", GOOD),
        ("bob", GOOD),
        ("zoe", GOOD),
        ("", ""),
        ("x" * 5000, "y" * 5000),
        ("a\0b", "\ud800"),
    ):
        with pytest.raises(NotAuthenticated) as caught:
            entrance.log_in(world.house, name, Secret(password), HERE)
        answers.add(str(caught.value))
    assert len(answers) == 1
    denied = [row for row in world.rows("account.log_in") if row.phase == "denied"]
    assert len(denied) == 8
    assert [row.detail["facts"]["known"] for row in denied] == [True, False, False, True, True, False, False, False]
    assert [row.actor for row in denied] == ["ada", "", "", "bob", "zoe", "", "", ""]
    assert all((row.address, row.client) == ("192.0.2.7", "pytest") for row in denied)
    text = msgspec.json.encode(world.rows()).decode()
    for typed in ("Hunter2", "wrong", "nobody@example.org", GOOD):
        assert typed not in text


def test_five_wrong_passwords_lock_and_the_audit_says_so(world: World) -> None:
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            entrance.log_in(world.house, "ada", Secret("wrong"), HERE)
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    assert world.rows("account.log_in")[-1].detail["facts"]["locked"] is True
    world.clock.on(minutes=15)
    assert entrance.log_in(world.house, "ada", Secret(GOOD), HERE)


def test_a_flood_is_refused_and_fills_no_disk(world: World) -> None:
    shared = configured._of(world.house.store)
    shared.limits = Limits({**NO_LIMITS, "login": Limit(address="3/minute")})
    before = len(world.rows())
    for _ in range(40):
        with pytest.raises((NotAuthenticated, RateLimited)):
            entrance.log_in(world.house, "ada", Secret("wrong"), HERE)
    assert len(world.rows()) - before == 3 * 2 + 1
    row = world.rows("account.log_in")[-1]
    assert (row.phase, row.outcome) == ("denied", "rate.limited")
    with pytest.raises(RateLimited) as caught:
        entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    assert 0 < caught.value.retry_after <= 120
    assert entrance.log_in(world.house, "ada", Secret(GOOD), Caller(address="198.51.100.1"))
    for _ in range(40):
        with pytest.raises(NotAuthenticated):
            entrance.authenticate(world.house, Secret("dbl_pat_guess"), HERE)
    assert len(list(world.rows("account.authenticate"))) <= 1


def test_nobody_gets_in_when_the_audit_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise StoreError("the disk is full")

    before = world.user("ada").last_login_at
    with monkeypatch.context() as patch:
        patch.setattr(world.house.journal, "write", broken)
        with pytest.raises(StoreError):
            entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    assert world.user("ada").last_login_at == before


# ---------------------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("bearer", ["", "x", "dbl_pat_", "dbl_pat_" + "x" * 43, "a.b.c", "é", "x" * 100_000])
def test_what_is_no_token_gets_nowhere(world: World, bearer: str) -> None:
    with pytest.raises(NotAuthenticated):
        entrance.authenticate(world.house, Secret(bearer), HERE)


def test_a_request_acts_in_one_organization_of_the_caller(world: World) -> None:
    done = entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    bearer = Secret(done.tokens.access)
    for name in ("acme", world.acme):
        assert entrance.authenticate(world.house, bearer, HERE, organization=name).org_id == world.acme
    for name in ("beta", world.beta, "gamma", "", "' or 1=1"):
        with pytest.raises(NotFound, match="no organization"):
            entrance.authenticate(world.house, bearer, HERE, organization=name)
    pat = Secret(world.token("ada", "*"))
    assert entrance.authenticate(world.house, pat, HERE, organization="acme").kind == "token"
    for name in ("beta", "gamma"):
        with pytest.raises(NotFound):
            entrance.authenticate(world.house, pat, HERE, organization=name)
    with pytest.raises(PermissionDenied, match="own login"):
        entrance.authenticate(world.house, Secret(_token_of_root(world)), HERE, super_admin=True)


def test_a_super_admin_by_token_or_without_asking_is_an_ordinary_member(world: World) -> None:
    auth = world.log_in("root")
    assert principal_of(world.house.store, auth).role is None
    assert principal_of(world.house.store, auth, as_super_admin=True).role == "super_admin"
    with pytest.raises(PermissionDenied):
        principal_of(world.house.store, world.log_in("ada"), as_super_admin=True)


def _token_of_root(world: World) -> str:
    with world.house.store.write() as tx:
        role = organizations.find_role(tx, world.acme, "viewer").id
        organizations.add_member(tx, world.acme, world.user("root").id, role, now=NOW)
    return world.token("root", "*")


# --------------------------------------------------------------------------------------------------------------------- recovery


def test_a_reset_by_mail_is_good_once_and_says_nothing(world: World) -> None:
    """Attacks 9 and 10."""
    world.house.settings = msgspec.structs.replace(world.house.settings, public_url="https://dblens.example.org")
    sent = world.mail()
    for name in ("ada", "nobody", "nobody@example.org", "root@example.org"):
        assert entrance.forgot(world.house, name, HERE) is None  # type: ignore[func-returns-value]
    assert [mail.to for mail in sent] == ["ada@example.org", "root@example.org"]
    token = sent[0].text.split("#token=")[1].split()[0]
    assert sent[0].text.count("https://dblens.example.org/reset-password#token=") == 1
    done = _at_once(lambda _: entrance.reset(world.house, Secret(token), Secret(NEW), HERE), 4)
    assert done.count(None) == 1
    assert all(isinstance(error, NotAuthenticated) for error in done if error is not None)
    assert entrance.log_in(world.house, "ada", Secret(NEW), HERE)
    rows = msgspec.json.encode(world.rows()).decode()
    for secret in (token, NEW, GOOD, "nobody@example.org"):
        assert secret not in rows
    known = [row for row in world.rows("account.forgot") if row.phase == "ended"]
    assert [row.detail["facts"]["known"] for row in known] == [True, False, False, True]
    assert [row.actor for row in known] == [""] * 4, "whoever asked is not known"


def test_signing_up_waits_for_proof_and_approval(world: World) -> None:
    with pytest.raises(PermissionDenied, match="nobody can sign up"):
        entrance.sign_up(world.house, "eve", Secret(GOOD), HERE, email="eve@example.org")
    assert world.rows("account.sign_up")[-1].outcome == "permission.denied"
    world.house.settings = msgspec.structs.replace(world.house.settings, public_url="https://dblens.example.org")
    sent = world.mail()
    _set(world, AccountRules(sign_up=True, email_domains=("example.org",)))
    with pytest.raises(InvalidInput, match=r"elsewhere\.org"):
        entrance.sign_up(world.house, "eve", Secret(GOOD), HERE, email="eve@elsewhere.org")
    entrance.sign_up(world.house, "eve", Secret(GOOD), HERE, email="eve@example.org")
    entrance.sign_up(world.house, "bob", Secret(GOOD), HERE, email="eve2@example.org")  # taken: the same answer
    token = sent[0].text.split("#token=")[1].split()[0]
    entrance.verify_email(world.house, Secret(token), Secret(GOOD), HERE)
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "eve", Secret(GOOD), HERE)
    world.as_("root").users.approve("eve")
    assert entrance.log_in(world.house, "eve", Secret(GOOD), HERE).user.email == "eve@example.org"


# ------------------------------------------------------------------------------------------------------------- what is configured


def _set(world: World, value: AccountRules | MailServer) -> None:
    with world.house.store.write() as tx:
        rules_stored.write(tx, value, now=world.clock())


def test_rules_count_at_once(world: World) -> None:
    at = entrance.accounts_of(world.house)
    assert (at.rules.sign_up, at.rules.lockout.failures, at.letters) == (False, 5, None)
    _set(world, AccountRules(session_hours=48, idle_hours=1, lockout_failures=3, access_token_days=1))
    at = entrance.accounts_of(world.house)
    assert (at.rules.longest_session, at.rules.idle) == (dt.timedelta(days=2), dt.timedelta(hours=1))
    for _ in range(3):
        with pytest.raises(NotAuthenticated):
            entrance.log_in(world.house, "ada", Secret("wrong"), HERE)
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    with pytest.raises(InvalidInput, match="expires_at"):
        world.as_("developer").tokens.create("t", ["team.list"], world.clock() + dt.timedelta(days=2))


def test_keys_and_limits_are_the_instances_and_not_the_requests(world: World) -> None:
    one, other = entrance.accounts_of(world.house), entrance.accounts_of(world.house)
    assert one.keys is other.keys
    assert one.limits is other.limits
    assert one.passwords is other.passwords
    again = Store(world.house.store.engine, world.house.store.place)  # as another process has it
    keys = configured.signing_keys(again, world.house.keyring)
    assert keys.kid == one.keys.kid, "sealed in the store, so that every process believes it"
    with pytest.raises(VaultError):
        configured.signing_keys(Store(again.engine, again.place), Keyring((Kek("k2", b"2" * 32),)))


def test_the_key_of_logins_changes_and_nobody_is_logged_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at = world.house
    monkeypatch.setattr(signing, "FRESH", 3600.0)  # this process has not heard of it until it sees a token
    monkeypatch.setattr(signing, "SOON", 0.0)
    first = Secret(entrance.log_in(at, "ada", Secret(GOOD), HERE).tokens.access)
    other = Store(at.store.engine, at.store.place)
    with other.write() as tx:
        made = signing.rotate(tx, at.keyring)
    entrance.authenticate(at, first, HERE)
    later = configured.signing_keys(other, at.keyring)
    assert later.kid == made
    assert [key.kid for key in later.jwks().keys] == [made, jwt.named(first.reveal())]
    visit = sessions_of(first, later)
    entrance.authenticate(at, Secret(later.sign(*visit, now=at.clock())), HERE)
    assert configured.signing_keys(at.store, at.keyring).kid == made, "an unknown key makes a process look again"

    with other.write() as tx:
        signing.rotate(tx, at.keyring)
    monkeypatch.setattr(signing, "FRESH", 0.0)
    with pytest.raises(NotAuthenticated):
        entrance.authenticate(at, first, HERE)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_what_waits_in_the_queue_does_not_begin_with_a_token_that_is_not_good_any_more(world: World, end: str) -> None:
    principal = entrance.authenticate(world.house, Secret(world.token("developer", "migration.*")), HERE)
    assert world.house.renewed(principal).token_id == principal.token_id
    if end == "revoked":
        with world.house.store.write() as tx:
            tokens.revoke_access_token(tx, principal.user_id, principal.token_id or "", now=world.clock())
    else:
        world.clock.on(days=1)
    with pytest.raises(NotAuthenticated, match="not valid any more"):
        world.house.renewed(principal)


def sessions_of(token: Secret, keys: jwt.Keys) -> tuple[str, str]:
    claims = keys.read(token.reveal(), now=NOW)
    return claims.user_id, claims.session_id


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AccountRules, {"sign_up": "yes"}),
        (AccountRules, {"unknown": 1}),
        (AccountRules, {"email_domains": ["a@b"]}),
        (AccountRules, {"email_domains": ["exa mple.org"]}),
        (AccountRules, {"idle_hours": 0}),
        (AccountRules, {"idle_hours": 100, "session_hours": 99}),
        (AccountRules, {"lockout_failures": 1}),
        (MailServer, {"host": "mail"}),
        (MailServer, {"host": "mail.example.org\nRCPT", "sender": "a@example.org"}),
        (MailServer, {"host": "mail/x", "sender": "a@example.org"}),
        (MailServer, {"host": "mail", "sender": "not an address"}),
        (MailServer, {"host": "mail", "sender": "a@example.org", "port": 70000}),
        (MailServer, {"host": "mail", "sender": "a@example.org", "security": "none", "user": "u"}),
    ],
)
def test_rules_that_make_no_sense_are_refused(kind: type, value: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        rules_stored.checked(kind, value)


def test_a_domain_proves_nothing_without_mail_so_somebody_approves(world: World) -> None:
    """Mail may be switched off after the rule was set: nobody is locked out by it, and nobody gets in by it."""
    _set(world, AccountRules(sign_up=True, email_domains=("example.org",), approval=False))
    assert entrance.log_in(world.house, "ada", Secret(GOOD), HERE)
    entrance.sign_up(world.house, "eve", Secret(GOOD), HERE, email="boss@example.org")
    with pytest.raises(NotAuthenticated):
        entrance.log_in(world.house, "eve", Secret(GOOD), HERE)


def test_the_mail_password_is_sealed_and_used(world: World) -> None:
    from dblens.store import secrets

    world.house.settings = msgspec.structs.replace(world.house.settings, public_url="https://dblens.example.org")
    _set(world, MailServer(host="127.0.0.1", sender="DBLens <dblens@example.org>", port=1, user="dblens"))
    with world.house.store.write() as tx:
        secrets.put_instance(tx, world.house.keyring, rules_stored.SMTP_PASSWORD, Secret("Canary-Mail-1"))
    assert entrance.accounts_of(world.house).letters is not None
    smtp = configured._of(world.house.store).smtp
    assert smtp is not None
    assert (smtp.password, "Canary" in repr(smtp)) == ("Canary-Mail-1", False)
    with world.house.store.read() as tx:
        kept = msgspec.json.encode(settings.list_settings(tx, settings.INSTANCE)).decode()
    assert "Canary" not in kept
    configured.close(world.house.store)


def _at_once(work: Callable[[int], object], count: int) -> list[BaseException | None]:
    start, done = threading.Barrier(count), [None] * count
    found: list[BaseException | None] = [*done]

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except DBLensError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
