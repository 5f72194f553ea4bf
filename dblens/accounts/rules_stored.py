"""What administrators set about accounts and mail while the service runs: one record per setting, kept under its key.

`dblens.accounts.configured` reads them; the settings' door writes them. The mail password is no setting: it is the instance's
sealed secret `SMTP_PASSWORD`.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from dblens.accounts.base import Rules
from dblens.accounts.lockout import Lockout
from dblens.accounts.mail import Smtp
from dblens.errors import InvalidInput, NotFound
from dblens.redaction import Secret
from dblens.store import settings
from dblens.store.accounts import check_email
from dblens.store.database import Transaction

ACCOUNTS: Final = "accounts"
SMTP: Final = "smtp"
SMTP_PASSWORD: Final = "smtp.password"  # noqa: S105 - a name
"""The name of the sealed secret (`secrets.put_instance`)."""

_Hours = Annotated[int, msgspec.Meta(ge=1, le=24 * 366)]


class AccountRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting `accounts`: who gets an account here, and how long a login lasts."""

    sign_up: bool = False
    """Whether somebody may ask for an account themselves."""
    email_domains: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)] = ()
    """The domains from which one may sign up; all when empty."""
    approval: bool = True
    """Whether an administrator has to let a new account in."""
    idle_hours: _Hours = 7 * 24
    session_hours: _Hours = 30 * 24
    access_token_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 366
    reset_minutes: Annotated[int, msgspec.Meta(ge=5, le=24 * 60)] = 30
    verification_hours: Annotated[int, msgspec.Meta(ge=1, le=14 * 24)] = 24
    lockout_failures: Annotated[int, msgspec.Meta(ge=3, le=100)] = 5
    lockout_minutes: Annotated[int, msgspec.Meta(ge=1, le=24 * 60)] = 15

    def rules(self) -> Rules:
        """Return the rules as the flows take them."""
        first = dt.timedelta(minutes=self.lockout_minutes)
        return Rules(
            sign_up=self.sign_up,
            email_domains=self.email_domains,
            approval=self.approval,
            idle=dt.timedelta(hours=self.idle_hours),
            longest_session=dt.timedelta(hours=self.session_hours),
            longest_access_token=dt.timedelta(days=self.access_token_days),
            reset=dt.timedelta(minutes=self.reset_minutes),
            verification=dt.timedelta(hours=self.verification_hours),
            lockout=Lockout(
                failures=self.lockout_failures, first=first, longest=max(first, Lockout.__struct_defaults__[2])
            ),
        )


class MailServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting `smtp`: where mail is handed in. Without it no mail is sent. `sender` is an address or `Name <address>`."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    sender: Annotated[str, msgspec.Meta(min_length=3, max_length=320)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    security: Literal["tls", "starttls", "none"] = "starttls"
    user: Annotated[str, msgspec.Meta(max_length=320)] | None = None

    def smtp(self, password: Secret | None) -> Smtp:
        """Return it as the mail library takes it."""
        return Smtp(
            host=self.host,
            sender=self.sender,
            port=self.port,
            security=self.security,
            user=self.user,
            password=None if password is None else password.reveal(),
        )


KINDS: Final[dict[str, type[AccountRules] | type[MailServer]]] = {ACCOUNTS: AccountRules, SMTP: MailServer}
"""What each setting's value is."""

T = TypeVar("T", AccountRules, MailServer)


def checked(kind: type[T], value: object) -> T:
    """Return a setting made of plain values. Raises InvalidInput, which names the field, also for rules that prove nothing."""
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error).replace("`", "'"), hint=", ".join(kind.__struct_fields__)) from None
    if isinstance(made, AccountRules):
        for domain in made.email_domains:
            try:
                check_email(f"somebody@{domain}")
            except InvalidInput:
                raise InvalidInput(f"email_domains holds {domain!a}", hint="like example.org") from None
        if made.session_hours < made.idle_hours:
            raise InvalidInput(
                f"session_hours is {made.session_hours}, less than idle_hours", hint=f"at least {made.idle_hours}"
            )
    else:
        _one_line(made)
    return made


def _one_line(made: MailServer) -> None:
    import email.utils

    for name in ("host", "sender", "user"):
        text = getattr(made, name) or ""
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise InvalidInput(f"{name} holds a line end or control character", hint="one line of text")
    if any(char.isspace() or char in "/@" for char in made.host):
        raise InvalidInput(f"host is {made.host!a}", hint="a name or an address, like mail.example.org")
    check_email(email.utils.parseaddr(made.sender)[1])
    if made.user is not None and made.security == "none":
        raise InvalidInput(
            "user is given but security is 'none'", hint="a login is not sent in the clear: tls or starttls"
        )


def read_rules(tx: Transaction) -> AccountRules:
    """Return the rules that hold: the defaults when none were set. Raises InvalidInput for what somebody else wrote there."""
    found = _read(tx, ACCOUNTS)
    return AccountRules() if found is None else checked(AccountRules, found)


def read_mail(tx: Transaction) -> MailServer | None:
    """Return the mail server, None when there is none. Raises InvalidInput for what somebody else wrote there."""
    found = _read(tx, SMTP)
    return None if found is None else checked(MailServer, found)


def write(tx: Transaction, value: AccountRules | MailServer, *, now: dt.datetime) -> None:
    """Keep a setting in place of the one before. Raises InvalidInput."""
    given = msgspec.to_builtins(value)
    made = checked(AccountRules, given) if isinstance(value, AccountRules) else checked(MailServer, given)
    key = ACCOUNTS if isinstance(made, AccountRules) else SMTP
    settings.put_setting(tx, settings.INSTANCE, key, msgspec.to_builtins(made), now=now)


def _read(tx: Transaction, key: str) -> Any:
    try:
        return settings.get_setting(tx, settings.INSTANCE, key).value
    except NotFound:
        return None
