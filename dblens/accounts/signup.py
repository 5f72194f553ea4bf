"""How an account comes to be: the first one, one's own sign-up, an identity from outside. And the proof of an e-mail address."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hmac
from collections.abc import Callable

from dblens.accounts.base import LOCAL, Accounts, Caller, digest, prove, secret
from dblens.accounts.passwords import check_password
from dblens.errors import Conflict, InvalidInput, NotAuthenticated, PermissionDenied
from dblens.store import accounts, tokens
from dblens.store.accounts import User, check_email, check_name
from dblens.store.database import Transaction

_VOID = "the link is not valid: used, replaced or expired"


def needs_set_up(at: Accounts) -> bool:
    """Say whether there is no user yet."""
    with at.store.read() as tx:
        return not accounts.any_user(tx)


def set_up(
    at: Accounts,
    name: str,
    password: str,
    caller: Caller,
    *,
    email: str | None = None,
    code: str = "",
    also: Callable[[Transaction, User], None] | None = None,
) -> User:
    """Make the first user, a super_admin, once. `also` runs in the same transaction (the first organization).

    Raises InvalidInput, Conflict when it was done, PermissionDenied for a wrong code, RateLimited.
    """
    at.limits.hit("set_up", address=caller.address)
    if at.set_up_code is not None and not hmac.compare_digest(digest(at.set_up_code), digest(code)):
        raise PermissionDenied("the set-up code is wrong", hint="the service printed it when it started")
    hashed = _hashed(at, name, email, password)
    moment = at.clock()
    with at.store.write() as tx:
        accounts.claim_set_up(tx)
        made = accounts.create_user(tx, name, email=email, password_hash=hashed, super_admin=True, now=moment)
        accounts.link_identity(tx, LOCAL, made.id, made.id, now=moment)
        if also is not None:
            also(tx, made)
    return made


def sign_up(
    at: Accounts, name: str, password: str, caller: Caller, *, email: str | None = None, display: str | None = None
) -> None:
    """Ask for an account. The answer is the same whether or not name and address are free: mail tells who can read it.

    Raises PermissionDenied when nobody may, InvalidInput, RateLimited.
    """
    if not at.rules.sign_up:
        raise PermissionDenied("nobody can sign up here", hint="ask an administrator for an account")
    at.limits.hit("sign_up", address=caller.address)
    _check_domain(at, email)
    hashed = _hashed(at, name, email, password)
    moment, token = at.clock(), email_token(email or "")
    known: User | None = None
    made: User | None = None
    with at.store.write() as tx:
        taken = accounts.find_credential(tx, name)
        if taken is not None and _abandoned(at, taken.user, moment):
            accounts.delete_user(tx, taken.user.id)
            taken = None
        owner = accounts.find_credential(tx, email) if email else None
        known = owner.user if owner else None
        if taken is None and owner is None:
            proven = at.letters is None
            with contextlib.suppress(Conflict):  # taken at this very moment: the same answer
                made = accounts.create_user(
                    tx,
                    name,
                    email=email if proven else None,  # an address that nobody proved takes it from nobody
                    display=display,
                    password_hash=hashed,
                    approved=proven and not at.rules.approval,
                    now=moment,
                )
        if made is not None:
            accounts.link_identity(tx, LOCAL, made.id, made.id, now=moment)
            if at.letters is not None:
                until = moment + at.rules.verification
                tokens.add_reset_token(tx, made.id, digest(token), purpose="email", expires_at=until)
    if at.letters is not None and email is not None and at.limits.allows("mail", account=email):
        if known is not None and known.email is not None:
            at.letters.known(known.email, known.name)
        elif made is not None:
            at.letters.verify(email, made.name, token)


def verify_email(at: Accounts, token: str, password: str, caller: Caller) -> User:
    """Prove an e-mail address: with the token it was sent and the account's password, so that neither alone is enough.

    Raises NotAuthenticated, Conflict when the address belongs to another account meanwhile, RateLimited.
    """
    at.limits.hit("verify", address=caller.address)
    moment = at.clock()
    with at.store.read() as tx:
        user_id = tokens.peek_reset_token(tx, digest(token), purpose="email", now=moment)
        found = None if user_id is None else accounts.find_credential(tx, accounts.get_user(tx, user_id).name)
    if found is None:
        raise NotAuthenticated(_VOID, hint="ask for another")
    prove(at, found, password, new_too=True)
    with at.store.write() as tx:
        if tokens.take_reset_token(tx, digest(token), purpose="email", now=moment) != found.user.id:
            raise NotAuthenticated(_VOID, hint="ask for another")
        approved = True if not at.rules.approval else None
        return accounts.update_user(tx, found.user.id, email=_address(token), approved=approved)


def provision(at: Accounts, issuer: str, subject: str, name: str, *, display: str | None = None) -> User:
    """Return the user an issuer vouches for, made at the first time: without role, password or e-mail address.

    Who is known here by the same name is somebody else, so the new user gets the name with a number. `subject` must never be given
    to another person there: for a JupyterHub it is the name with the time that its user was created.
    Raises InvalidInput, Conflict when no name is left, NotAuthenticated for an account that was disabled.
    """
    if issuer == LOCAL or not issuer:
        raise InvalidInput(f"issuer is {issuer!r}", hint="hub:<url> or oidc:<issuer>")
    check_name(name)
    try:
        found = _provision(at, issuer, subject, name, display or name)
    except Conflict:  # two requests of a new user at once: the other made it
        with at.store.read() as tx:
            again = accounts.find_identity(tx, issuer, subject)
        if again is None:
            raise
        found = again
    if not found.active or not found.approved:
        raise NotAuthenticated("the account cannot be used now", hint="ask an administrator")
    return found


def _provision(at: Accounts, issuer: str, subject: str, name: str, display: str) -> User:
    with at.store.write() as tx:
        found = accounts.find_identity(tx, issuer, subject)
        if found is None:
            free = next((each for each in _names(name) if accounts.find_credential(tx, each) is None), None)
            if free is None:
                raise Conflict(f"the name {name!r} is taken", hint="link the identity to an account")
            found = accounts.create_user(tx, free, display=display, now=at.clock())
            accounts.link_identity(tx, issuer, subject, found.id, now=at.clock())
        return found


def email_token(email: str) -> str:
    """Return a token that carries an address. What is kept is the hash of both, so that neither can be exchanged."""
    return f"{secret()}.{base64.urlsafe_b64encode(email.encode()).rstrip(b'=').decode()}"


def _address(token: str) -> str:
    text = token.rpartition(".")[2]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


def _hashed(at: Accounts, name: str, email: str | None, password: str) -> str:
    check_name(name)
    if email is not None:
        check_email(email)
    check_password(password, name=name, email=email)
    return at.passwords.hash(password)


def _check_domain(at: Accounts, email: str | None) -> None:
    allowed = at.rules.email_domains
    if email is None:
        if allowed or at.letters is not None:
            raise InvalidInput("email is missing", hint="give an e-mail address")
        return
    domain = check_email(email).rpartition("@")[2].lower()
    if allowed and domain not in {each.lower() for each in allowed}:
        raise InvalidInput(f"nobody signs up with an address at {domain}", hint=f"allowed: {', '.join(allowed)}")


def _abandoned(at: Accounts, user: User, moment: dt.datetime) -> bool:
    """Say whether a sign-up was never proved in time: it does not keep its name."""
    late = user.created_at + at.rules.verification < moment
    return late and not user.approved and user.email is None and user.last_login_at is None and at.letters is not None


def _names(name: str) -> list[str]:
    return [name, *(f"{name[: accounts.LONGEST_NAME - 3]}-{number}" for number in range(2, 100))]
