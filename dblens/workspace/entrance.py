"""The way in: set-up, sign-up, login and what follows, for everybody who is nobody yet. Each is in the audit, as operations are.

A row holds who (once that is known), from where, with which client, and how it ended; no secret. What somebody typed as a name is
not kept either when nobody is called so: it may be a password in the wrong field. Tries over the limit, and tokens that are not
valid, are one row a minute for each address, so that a flood of them fills no disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dblens.accounts import configured, jwt, login, recovery, signup
from dblens.accounts.base import Accounts, Caller, LoggedIn
from dblens.accounts.limits import network
from dblens.accounts.lockout import locked
from dblens.errors import DBLensError, NotAuthenticated, PermissionDenied, RateLimited, StoreError
from dblens.redaction import Secret
from dblens.store import accounts, organizations, secrets, sessions
from dblens.store.accounts import User
from dblens.store.audit import Entry, Phase
from dblens.store.database import Transaction
from dblens.store.records import new_id
from dblens.workspace.entry import principal_of
from dblens.workspace.principal import Principal

if TYPE_CHECKING:
    from dblens.workspace.house import House

T = TypeVar("T")
MUST_CHANGE: Final = frozenset({"account.read", "account.password"})
"""The operations that somebody may call who has to set a new password first."""
_SELDOM: Final = 60.0


def accounts_of(house: House) -> Accounts:
    """Return the accounts of a house, with the rules that are set now. Raises StoreError, VaultError."""
    return configured.configured(house.store, house.keyring, house.settings, house.clock)


def set_up_code(house: House) -> Secret | None:
    """Return the code that the first set-up over the network asks for, to be shown to who started the service; None after it."""
    return configured.set_up_code(house.store, house.keyring)


def needs_set_up(house: House) -> bool:
    """Say whether there is no user yet."""
    with house.store.read() as tx:
        return not accounts.any_user(tx)


def set_up(
    house: House,
    name: str,
    password: Secret,
    caller: Caller,
    *,
    code: Secret,
    email: str | None = None,
    organization: str | None = None,
) -> None:
    """Make the first user, a super_admin and, when it is named, the admin of the first organization.

    Raises InvalidInput, Conflict when it was done, PermissionDenied for a wrong code, RateLimited.
    """
    at = accounts_of(house)
    wanted = set_up_code(house)
    at.set_up_code = None if wanted is None else wanted.reveal()

    def also(tx: Transaction, made: User) -> None:
        if organization is not None:
            _found(tx, house, made, organization)
        if wanted is not None:
            secrets.delete_instance(tx, configured.SET_UP_CODE)

    def work(story: _Story) -> None:
        story.user = signup.set_up(at, name, password.reveal(), caller, email=email, code=code.reveal(), also=also)

    _told(house, "account.set_up", caller, work, over=at.limits.over("set_up", address=caller.address))


def sign_up(
    house: House,
    name: str,
    password: Secret,
    caller: Caller,
    *,
    email: str | None = None,
    display: str | None = None,
) -> None:
    """Ask for an account. Raises PermissionDenied when nobody may, InvalidInput, RateLimited."""
    at = accounts_of(house)

    def work(_story: _Story) -> None:
        signup.sign_up(at, name, password.reveal(), caller, email=email, display=display)

    _told(house, "account.sign_up", caller, work, over=at.limits.over("sign_up", address=caller.address))


def verify_email(house: House, token: Secret, password: Secret, caller: Caller) -> None:
    """Prove an e-mail address by the token sent to it and the password. Raises NotAuthenticated, Conflict, RateLimited."""
    at = accounts_of(house)

    def work(story: _Story) -> None:
        story.user = signup.verify_email(at, token.reveal(), password.reveal(), caller)

    _told(house, "account.verify_email", caller, work, over=at.limits.over("verify", address=caller.address))


def log_in(house: House, name: str, password: Secret, caller: Caller, *, kind: str = "login") -> LoggedIn:
    """Log in by name or e-mail address. Raises NotAuthenticated, RateLimited."""
    at = accounts_of(house)

    def work(story: _Story) -> LoggedIn:
        with house.store.read() as tx:
            found = accounts.find_credential(tx, name)
        story.user = None if found is None else found.user
        story.facts["known"] = found is not None
        if found is not None and locked(found.user, house.clock()):
            story.facts["locked"] = True
        done = login.log_in(at, name, password.reveal(), caller, kind=kind)
        story.facts["session"] = done.session.id
        return done

    over = at.limits.over("login", address=caller.address, account=name)
    return _told(house, "account.log_in", caller, work, over=over)


def refresh(house: House, token: Secret, caller: Caller) -> LoggedIn:
    """Exchange a refresh token for new tokens. Used a second time, it ends the session. Raises NotAuthenticated, RateLimited."""
    at = accounts_of(house)

    def work(story: _Story) -> LoggedIn:
        done = login.refresh(at, token.reveal(), caller)
        story.user = done.user
        story.facts["session"] = done.session.id
        return done

    return _told(house, "account.refresh", caller, work, over=at.limits.over("refresh", address=caller.address))


def log_out(house: House, principal: Principal) -> None:
    """End the session of a request. Raises PermissionDenied for who has none, NotFound when it ended meanwhile."""

    def work(story: _Story) -> None:
        story.kind = principal.kind
        if principal.kind != "account" or principal.session_id is None:
            raise PermissionDenied("there is no login to end", hint="an access token is revoked: `dblens token revoke`")
        with house.store.write() as tx:
            story.user = accounts.get_user(tx, principal.user_id)
            sessions.revoke_session(tx, principal.user_id, principal.session_id, now=house.clock())
        story.facts["session"] = principal.session_id

    _told(house, "account.log_out", Caller(address=principal.address, client=principal.client), work)


def forgot(house: House, name: str, caller: Caller) -> None:
    """Have a link sent to the address of an account, if there is one: the answer is the same. Raises RateLimited, Unsupported."""
    at = accounts_of(house)

    def work(story: _Story) -> None:
        with house.store.read() as tx:
            found = accounts.find_credential(tx, name)
        story.facts["known"] = found is not None
        story.target = None if found is None else found.user.id  # somebody asked for it: not them, as far as is known
        recovery.forgot(at, name, caller)

    _told(house, "account.forgot", caller, work, over=at.limits.over("forgot", address=caller.address, account=name))


def reset(house: House, token: Secret, new: Secret, caller: Caller) -> None:
    """Set a new password by a token. Everything the account had open ends. Raises InvalidInput, NotAuthenticated, RateLimited."""
    at = accounts_of(house)

    def work(story: _Story) -> None:
        story.user = recovery.reset(at, token.reveal(), new.reveal(), caller)

    _told(house, "account.reset", caller, work, over=at.limits.over("reset", address=caller.address))


def authenticate(
    house: House,
    bearer: Secret,
    caller: Caller,
    *,
    organization: str | None = None,
    super_admin: bool = False,
    operation: str | None = None,
) -> Principal:
    """Return who makes a request, by a session's access token or a personal one, with the rights of this moment.

    `organization` (id or short name) and `super_admin` are what the request asks to act as; `operation` is what it wants: two of
    them may be called by who has to set a new password first.
    Raises NotAuthenticated, PermissionDenied, NotFound for an organization of others.
    """
    try:
        auth = login.authenticate_bearer(
            house.store,
            configured.signing_keys(house.store, house.keyring, unknown=jwt.named(bearer.reveal())),
            bearer.reveal(),
            house.clock(),
            address=caller.address,
            must_change_too=operation in MUST_CHANGE,
        )
    except (NotAuthenticated, PermissionDenied) as error:
        story = _Story(house, "account.authenticate", caller)
        if _seldom(house, story.action, caller):
            house.journal.write(story.entry("denied", error))
        raise
    return principal_of(
        house.store,
        auth,
        organization=organization,
        as_super_admin=super_admin,
        client=caller.client,
        address=caller.address,
    )


# ----------------------------------------------------------------------------------------------------------------------- audit


class _Story:
    """What the audit is told of one of these."""

    def __init__(self, house: House, action: str, caller: Caller) -> None:
        self.house, self.action, self.caller = house, action, caller
        self.id = new_id()
        self.kind = "nobody"
        self.user: User | None = None
        self.target: str | None = None
        self.facts: dict[str, Any] = {}
        self.begun = time.perf_counter()

    def entry(self, phase: Phase, error: BaseException | None = None) -> Entry:
        detail: dict[str, Any] = {"as": self.kind}
        if self.facts:
            detail["facts"] = dict(self.facts)
        if error is not None:
            detail["error"] = type(error).__name__
        started = phase == "started"
        return Entry(
            at=self.house.clock(),
            phase=phase,
            action=self.action,
            actor_id=None if self.user is None else self.user.id,
            actor="" if self.user is None else self.user.name,
            target=self.target,
            outcome=None if started else _outcome(error),
            microseconds=None if started else int((time.perf_counter() - self.begun) * 1_000_000),
            client=sessions.clip(self.caller.client, 255),
            address=sessions.clip(self.caller.address, 64),
            run_id=self.id,
            detail=detail,
        )


def _told(house: House, action: str, caller: Caller, work: Callable[[_Story], T], *, over: bool = False) -> T:
    """Do something between its two rows. What is over a limit anyway is refused without the first."""
    story = _Story(house, action, caller)
    if not over:
        house.journal.write(story.entry("started"))
    try:
        result = work(story)
    except RateLimited as error:
        if _seldom(house, action, caller):
            _ended(house, story.entry("denied", error))
        raise
    except (NotAuthenticated, PermissionDenied) as error:
        _ended(house, story.entry("denied", error))
        raise
    except BaseException as error:
        _ended(house, story.entry("ended", error))
        raise
    _ended(house, story.entry("ended"))
    return result


def _ended(house: House, entry: Entry) -> None:
    """Write how it ended. What was done was done: when it cannot be written it is owed, and nothing else runs until it is."""
    try:
        house.journal.write(entry)
    except StoreError as error:
        house.journal.owe(entry, error)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    return error.code if isinstance(error, DBLensError) else "error"


_told_at: dict[tuple[str, str, str], float] = {}
_guard = threading.Lock()


def _seldom(house: House, action: str, caller: Caller) -> bool:
    """Say whether this is the first of an address within a minute."""
    key, moment = (house.store.place, action, network(caller.address)), time.monotonic()
    with _guard:
        if len(_told_at) > 10_000:
            _told_at.clear()
        if moment - _told_at.get(key, -_SELDOM) < _SELDOM:
            return False
        _told_at[key] = moment
        return True


def _found(tx: Transaction, house: House, user: User, name: str) -> None:
    """Make the first organization, with its admin."""
    made = organizations.create_organization(tx, name, now=house.clock())
    role = organizations.find_role(tx, made.id, "admin")
    organizations.add_member(tx, made.id, user.id, role.id, now=house.clock())
    organizations.set_current(tx, user.id, made.id)
