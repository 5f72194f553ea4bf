"""Users and their identities.

A user has one name and at most one e-mail address, unique as they are folded: `Ada` and `ADA` are the same name. Identities
(issuer, subject) say who somebody is elsewhere; two are never one user because a name or an address is the same.
Password hashes leave this chapter only as a `Credential`, which does not show them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import unicodedata
from typing import Any

import msgspec
import sqlalchemy as sa

from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.store import tables as t
from dblens.store.database import Transaction
from dblens.store.records import new_id
from dblens.store.rows import Page, columns, contains, fits, one, page, record, unique

LONGEST_NAME = 64

# Letters that draw nothing (Unicode: Default_Ignorable_Code_Point outside category C): with them two names look like one.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account. `version` grows whenever every session has to end."""

    id: str
    name: str
    display: str
    email: str | None
    active: bool
    approved: bool
    must_change: bool
    super_admin: bool
    version: int
    failures: int
    lockouts: int
    locked_until: dt.datetime | None
    current_org_id: str | None
    created_at: dt.datetime
    last_login_at: dt.datetime | None


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A user with the hash of the password, None for a user who has none."""

    user: User
    password_hash: str | None

    def __repr__(self) -> str:
        return f"Credential(user={self.user!r})"

    def __rich_repr__(self) -> Any:
        yield "user", self.user


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a user is to an issuer: `local`, `hub:<url>`, `oidc:<issuer>`."""

    issuer: str
    subject: str
    user_id: str
    created_at: dt.datetime


# ----------------------------------------------------------------------------------------------------------------- names, addresses


def fold(name: str) -> str:
    """Return what two names must not have in common: compatibility forms and case are no difference."""
    for _ in range(2):  # case folding may leave something to normalise, and the reverse
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return name


def check_name(name: str) -> str:
    """Return a user's name in its composed form. Raises InvalidInput."""
    fits("name", name, LONGEST_NAME)
    name = unicodedata.normalize("NFC", name)
    # Both forms are looked at: U+FF20 is an at sign only once it is folded.
    for char in name + fold(name):
        if unicodedata.category(char)[0] in "CZ" or _INVISIBLE.match(char) or char in "@/\\":
            raise InvalidInput(
                f"name {name!a} holds {char!a}",
                hint="letters, digits and signs that can be seen, without spaces, line ends, @, / and \\",
            )
    return name


def check_email(email: str) -> str:
    """Return an e-mail address. Raises InvalidInput for anything but plain ASCII `local@domain`."""
    fits("email", email, 254)
    if not _EMAIL.fullmatch(email):
        raise InvalidInput(f"email is {email!a}", hint="an address like ada@example.org, in ASCII")
    return email


# ------------------------------------------------------------------------------------------------------------------------- users


def create_user(
    tx: Transaction,
    name: str,
    *,
    now: dt.datetime,
    email: str | None = None,
    display: str | None = None,
    password_hash: str | None = None,
    approved: bool = True,
    must_change: bool = False,
    super_admin: bool = False,
) -> User:
    """Make a user, who belongs to no organization. Raises InvalidInput, Conflict for a name or address that is taken."""
    name = check_name(name)
    email = check_email(email) if email is not None else None
    made = User(
        id=new_id(),
        name=name,
        display=_display(display or name),
        email=email,
        active=True,
        approved=approved,
        must_change=must_change,
        super_admin=super_admin,
        version=1,
        failures=0,
        lockouts=0,
        locked_until=None,
        current_org_id=None,
        created_at=now,
        last_login_at=None,
    )
    row = msgspec.structs.asdict(made) | {
        "folded": fits("name", fold(name), 255),
        "email_folded": email and email.lower(),
        "password_hash": password_hash,
    }
    with unique(tx, f"the name {name!r} or the e-mail address is taken", "choose another"):
        tx.execute(t.users.insert().values(**row))
    return made


def get_user(tx: Transaction, user_id: str) -> User:
    """Return a user, active or not. Raises NotFound."""
    return record(User, one(tx, _users().where(t.users.c.id == user_id), f"no user {user_id!r}"))


def lock_user(tx: Transaction, user_id: str) -> Credential | None:
    """Return a user whom nobody else can change until the transaction ends, None when there is none."""
    return _credential(tx, _credentials().where(t.users.c.id == user_id).with_for_update())


def find_user(tx: Transaction, login: str) -> User:
    """Return a user by name or by e-mail address. Raises NotFound."""
    found = find_credential(tx, login)
    if found is None:
        raise NotFound(f"no user {login[:LONGEST_NAME]!a}")
    return found.user


def find_credential(tx: Transaction, login: str) -> Credential | None:
    """Return a user with the password's hash by name or, with an at sign in it, by e-mail address."""
    if len(login) > 320 or any(char == "\0" or "\ud800" <= char <= "\udfff" for char in login):
        return None  # nobody is called so, and a driver would raise
    where = t.users.c.email_folded == login.lower() if "@" in login else t.users.c.folded == fold(login)
    return _credential(tx, _credentials().where(where))


def search_users(
    tx: Transaction,
    *,
    search: str | None = None,
    active: bool | None = None,
    approved: bool | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[User]:
    """List the instance's users; `search` looks in name, shown name and e-mail address. Raises InvalidInput."""
    query = _users()
    if search:
        fits("search", search, 255)
        u = t.users.c
        query = query.where(sa.or_(*(contains(column, search) for column in (u.name, u.folded, u.display, u.email))))
    if active is not None:
        query = query.where(t.users.c.active == active)
    if approved is not None:
        query = query.where(t.users.c.approved == approved)
    return page(tx, query, lambda row: record(User, row), by=t.users.c.id, limit=limit, after=after)


def update_user(
    tx: Transaction,
    user_id: str,
    *,
    display: str | None = None,
    email: str | None = None,
    approved: bool | None = None,
    super_admin: bool | None = None,
) -> User:
    """Change what is given. A new address makes every reset and verification sent before void.

    Raises InvalidInput, NotFound, Conflict for an address that is taken or when no super_admin would remain.
    """
    changes: dict[str, Any] = {}
    if display is not None:
        changes["display"] = _display(display)
    if email is not None:
        changes |= {"email": check_email(email), "email_folded": email.lower()}
    if approved is not None:
        changes["approved"] = approved
    if super_admin is not None:
        changes["super_admin"] = super_admin
    if super_admin is False or approved is False:
        _others_remain(tx, user_id)
    get_user(tx, user_id)
    if changes:
        with unique(tx, "the e-mail address is taken", "give another"):
            tx.execute(t.users.update().where(t.users.c.id == user_id).values(**changes))
    if email is not None:
        tx.execute(t.reset_tokens.delete().where(t.reset_tokens.c.user_id == user_id))
    return get_user(tx, user_id)


def set_password(tx: Transaction, user_id: str, password_hash: str | None, *, must_change: bool = False) -> User:
    """Set the password's hash (None: no login by password), forget failures, and end every session and reset. Raises NotFound."""
    done = tx.execute(
        t.users.update()
        .where(t.users.c.id == user_id)
        .values(
            password_hash=password_hash,
            must_change=must_change,
            version=t.users.c.version + 1,
            failures=0,
            lockouts=0,
            locked_until=None,
        )
    )
    if not done.rowcount:
        raise NotFound(f"no user {user_id!r}")
    tx.execute(t.reset_tokens.delete().where(t.reset_tokens.c.user_id == user_id))
    return get_user(tx, user_id)


def renew_hash(tx: Transaction, user_id: str, before: str, after: str) -> None:
    """Replace a hash by one of the same password with other parameters, unless the password was changed meanwhile."""
    same = t.users.c.id == user_id, t.users.c.password_hash == before
    tx.execute(t.users.update().where(*same).values(password_hash=after))


def set_lockout(
    tx: Transaction, user_id: str, *, failures: int, lockouts: int, locked_until: dt.datetime | None
) -> None:
    """Keep how often a password was wrong, and until when no password will do."""
    values = {"failures": failures, "lockouts": lockouts, "locked_until": locked_until}
    tx.execute(t.users.update().where(t.users.c.id == user_id).values(**values))


def write_anyway(tx: Transaction) -> None:
    """Write a row that nobody reads, so that an answer which keeps nothing takes as long as one that counts a failure."""
    decoy = t.meta.c.key == "accounts.decoy"
    if not tx.execute(t.meta.update().where(decoy).values(value=new_id())).rowcount:
        with contextlib.suppress(Conflict), unique(tx, "written by another"):
            tx.execute(t.meta.insert().values(key="accounts.decoy", value=new_id()))


def record_login(tx: Transaction, user_id: str, *, now: dt.datetime) -> None:
    """Keep when a user logged in last."""
    tx.execute(t.users.update().where(t.users.c.id == user_id).values(last_login_at=now))


def end_sessions(tx: Transaction, user_id: str) -> User:
    """End every session of a user, whatever a cache says: the account's version grows. Raises NotFound."""
    query = t.users.update().where(t.users.c.id == user_id).values(version=t.users.c.version + 1)
    if not tx.execute(query).rowcount:
        raise NotFound(f"no user {user_id!r}")
    return get_user(tx, user_id)


def disable_user(tx: Transaction, user_id: str) -> User:
    """Let a user in no more, ending every session. Raises NotFound, Conflict when no super_admin would remain."""
    _others_remain(tx, user_id)
    end_sessions(tx, user_id)
    tx.execute(t.users.update().where(t.users.c.id == user_id).values(active=False))
    return get_user(tx, user_id)


def enable_user(tx: Transaction, user_id: str) -> User:
    """Let a user in again and forget failures. Raises NotFound."""
    get_user(tx, user_id)
    values: dict[str, Any] = {"active": True, "failures": 0, "lockouts": 0, "locked_until": None}
    tx.execute(t.users.update().where(t.users.c.id == user_id).values(**values))
    return get_user(tx, user_id)


def delete_user(tx: Transaction, user_id: str) -> None:
    """Delete a user with sessions, tokens, memberships and grants; what they own is left without owner.

    Raises NotFound, Conflict when no super_admin would remain.
    """
    _others_remain(tx, user_id)
    get_user(tx, user_id)
    grants = t.connection_grants.c
    mine = grants.grantee_kind == "user", grants.grantee_id == user_id
    tx.execute(t.connection_grants.delete().where(*mine))  # no reference could do it: a grantee may be a team
    tx.execute(t.users.delete().where(t.users.c.id == user_id))


def claim_set_up(tx: Transaction) -> None:
    """Take the right to make the first user, once in a store's life. Raises Conflict when it was taken, or users are there."""
    told = "DBLens is set up already", "log in, or let an administrator make an account"
    with unique(tx, *told):  # of two at once the second waits here for the first
        tx.execute(t.meta.insert().values(key="accounts.set_up", value="done"))
    if any_user(tx):
        raise Conflict(told[0], hint=told[1])


def any_user(tx: Transaction) -> bool:
    """Say whether there is a user: without one the first-run set-up is offered."""
    return tx.execute(sa.select(t.users.c.id).limit(1)).first() is not None


def any_super_admin(tx: Transaction) -> bool:
    """Say whether somebody can administer the instance."""
    query = sa.select(t.users.c.id).where(t.users.c.super_admin, t.users.c.active, t.users.c.approved)
    return tx.execute(query.limit(1)).first() is not None


def _others_remain(tx: Transaction, user_id: str) -> None:
    # All of them are locked, in one order, before anything else: two who disable each other must not both succeed.
    query = sa.select(t.users.c.id).where(t.users.c.super_admin, t.users.c.active, t.users.c.approved)
    found = set(tx.execute(query.order_by(t.users.c.id).with_for_update()).scalars())
    if found == {user_id}:
        raise Conflict("nobody else could administer DBLens", hint="make another active user super_admin first")


def _display(text: str) -> str:
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in text):
        raise InvalidInput("display holds a line end or control character", hint="one line of text")
    return fits("display", text, 255)


def beside(query: sa.Select[Any]) -> sa.Select[Any]:
    """Add a user's columns to a query over a table that has some of the same names; `user_beside` reads them."""
    return query.add_columns(*(column.label(f"user_{column.name}_") for column in columns(User, t.users)))


def user_beside(row: sa.Row[Any]) -> User:
    """Make the user of a row of `beside`."""
    return User(**{name: getattr(row, f"user_{name}_") for name in User.__struct_fields__})


def _users() -> sa.Select[Any]:
    return sa.select(*columns(User, t.users))


def _credentials() -> sa.Select[Any]:
    return _users().add_columns(t.users.c.password_hash)


def _credential(tx: Transaction, query: sa.Select[Any]) -> Credential | None:
    row = tx.execute(query).one_or_none()
    return None if row is None else Credential(user=record(User, row), password_hash=row.password_hash)


# -------------------------------------------------------------------------------------------------------------------- identities


def link_identity(tx: Transaction, issuer: str, subject: str, user_id: str, *, now: dt.datetime) -> Identity:
    """Say who a user is to an issuer. Raises InvalidInput, NotFound, Conflict when that is somebody else."""
    get_user(tx, user_id)
    fits("issuer", issuer, 255)
    fits("subject", subject, 255)
    made = Identity(issuer=issuer, subject=subject, user_id=user_id, created_at=now)
    with unique(tx, f"{subject!r} of {issuer!r} has an account already", "unlink it there first"):
        tx.execute(t.identities.insert().values(**msgspec.structs.asdict(made)))
    return made


def find_identity(tx: Transaction, issuer: str, subject: str) -> User | None:
    """Return the user whom an issuer knows as `subject`; names and addresses play no part."""
    i = t.identities.c
    query = _users().join(t.identities, i.user_id == t.users.c.id).where(i.issuer == issuer, i.subject == subject)
    row = tx.execute(query).one_or_none()
    return None if row is None else record(User, row)


def list_identities(tx: Transaction, user_id: str) -> tuple[Identity, ...]:
    """List who a user is elsewhere (at most 100)."""
    i = t.identities.c
    query = sa.select(*columns(Identity, t.identities)).where(i.user_id == user_id)
    return tuple(record(Identity, row) for row in tx.execute(query.order_by(i.issuer, i.subject).limit(100)))


def unlink_identity(tx: Transaction, user_id: str, issuer: str, subject: str) -> None:
    """Forget who a user is to an issuer. Raises NotFound."""
    i = t.identities.c
    mine = i.user_id == user_id, i.issuer == issuer, i.subject == subject
    if not tx.execute(t.identities.delete().where(*mine)).rowcount:
        raise NotFound(f"no identity {subject!r} of {issuer!r}")
