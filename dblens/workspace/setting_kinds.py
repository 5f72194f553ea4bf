"""What can be set while the service runs: one record per setting, with its defaults, its checks and a sentence about it.

A value is changed field by field: what is not given stays as it is. Everything wrong with what was given is said at once, by field.
What is secret is no part of a value: it is sealed beside it, and only its name is shown.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Struct

from dblens.accounts import rules_stored
from dblens.accounts.rules_stored import AccountRules, MailServer
from dblens.engines.access import guard
from dblens.errors import InvalidInput
from dblens.store import settings
from dblens.store.database import Transaction
from dblens.workspace.permissions import INSTANCE_SETTINGS, covers
from dblens.workspace.principal import Principal

Scope: TypeAlias = Literal["instance", "organization"]
Ends: TypeAlias = Literal["all", "failed", "none"]
Safety: TypeAlias = Literal["off", "unsafe", "ddl", "writes", "read_only"]

_Line = Annotated[str, Meta(max_length=80)]
_Days = Annotated[int, Meta(ge=1, le=36_500)]
_HOOK = re.compile(r"[a-z][a-z0-9_-]{0,39}")
PREFERENCES: Final = "notify."
"""What the key of a user's own preferences begins with, in the organization's scope; the user's id follows."""


class Application(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the instance calls itself."""

    title: _Line = "DBLens"
    """The name in the subjects of mails and on the pages."""
    notice: Annotated[str, Meta(max_length=2000)] = ""
    """What everybody reads before they log in."""
    support: Annotated[str, Meta(max_length=320)] = ""
    """Whom to ask: an address or a link."""


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the instance keeps what happened. None: for ever."""

    audit_days: Annotated[int, Meta(ge=30, le=36_500)] | None = None
    run_days: _Days | None = 365
    """Runs that ended, with their logs."""
    notification_days: _Days = 90
    """Notifications that were read."""


class Defaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new connection of the organization is, when nothing else is said."""

    environment: Literal["dev", "staging", "production"] = "dev"
    read_only: bool = False


class History(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the organization keeps what happened; the instance may keep it shorter. None: as long as the instance."""

    run_days: _Days | None = None
    notification_days: _Days | None = None


class Queries(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What queries that write need, by the connection's environment, and what is kept of queries.

    off: nothing. unsafe: a confirmation of UPDATE and DELETE without WHERE, TRUNCATE, DROP and what cannot be read. ddl: also of
    every change of structure. writes: of every write. read_only: no write at all.
    """

    dev: Safety = "off"
    staging: Safety = "unsafe"
    production: Safety = "writes"
    history_text: Literal["full", "redacted", "none"] = "full"
    """Whether the history keeps texts as they are, without their literals, or not at all."""
    history_days: _Days | None = 365
    idle_seconds: Annotated[int, Meta(ge=5, le=86_400)] = 300
    """After how long an explicit transaction that does nothing is rolled back."""


class Preferences(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which ends of runs somebody is told, and how. `others`: also of the runs of others on one's own connections."""

    ends: Ends = "all"
    mail: bool = False
    others: bool = False


class Webhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the ends of runs are posted to."""

    name: str
    url: Annotated[str, Meta(max_length=2000)]
    ends: Ends = "all"

    def __repr__(self) -> str:
        return f"Webhook(name={self.name!r}, host={self.host!r})"  # the rest of an address may be a password

    @property
    def host(self) -> str:
        """Return the host that the address names."""
        return urllib.parse.urlsplit(self.url).hostname or ""


class Webhooks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The organization's webhooks; each has a secret of at least 16 characters that signs what is posted."""

    hooks: Annotated[tuple[Webhook, ...], Meta(max_length=20)] = ()


class Kind(Struct, frozen=True, kw_only=True):
    """A setting. `default` is None for one that is not there until it is set; `check` looks at what no type can say."""

    name: str
    scope: Scope
    record: type[Struct]
    about: str
    default: Struct | None = None
    check: Callable[[Any], object] | None = None


def _application(value: Application) -> None:
    for name in ("title", "support"):
        if any(ord(char) < 32 or ord(char) == 127 for char in getattr(value, name)):
            raise InvalidInput(f"{name} holds a line end or control character", hint="one line of text")
    if not value.title.strip():
        raise InvalidInput("title is empty", hint="what the instance is called")


def _webhooks(value: Webhooks) -> None:
    names = [hook.name for hook in value.hooks]
    for hook in value.hooks:
        if not _HOOK.fullmatch(hook.name):
            raise InvalidInput(f"hooks: the name {hook.name!a} is not right", hint="small letters, digits, - and _")
        if names.count(hook.name) > 1:
            raise InvalidInput(f"hooks: two are named {hook.name!r}", hint="give each its own name")
        address(hook.url)


def address(url: str) -> urllib.parse.SplitResult:
    """Return the parts of a webhook's address. Raises InvalidInput, whose text holds no more of it than the scheme or the host."""
    if any(ord(char) <= 32 or ord(char) >= 127 for char in url):
        raise InvalidInput("url holds a space or a character that must be escaped", hint="write it as %20")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput("url has no right host or port", hint="https://host/path") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise InvalidInput(f"url begins with {parts.scheme[:20]!r}", hint="https://host/path")
    if parts.username is not None or parts.password is not None or "\\" in parts.netloc:
        raise InvalidInput("url holds a login", hint="leave it out: what is posted is signed")
    if parts.fragment:
        raise InvalidInput("url has a fragment", hint="leave out # and what follows")
    if port == 0:
        raise InvalidInput("url has port 0", hint="https://host:port/path")
    guard.host_name(parts.hostname)
    return parts


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            name="accounts",
            scope="instance",
            record=AccountRules,
            about="who gets an account, and how long a login lasts",
            default=AccountRules(),
            check=lambda value: rules_stored.checked(AccountRules, msgspec.to_builtins(value)),
        ),
        Kind(
            name="application",
            scope="instance",
            record=Application,
            about="how the instance calls itself, and what it tells everybody",
            default=Application(),
            check=_application,
        ),
        Kind(
            name="retention",
            scope="instance",
            record=Retention,
            about="how long audit, runs and notifications are kept",
            default=Retention(),
        ),
        Kind(
            name="smtp",
            scope="instance",
            record=MailServer,
            about="where mail is handed in; its password is sealed",
            check=lambda value: rules_stored.checked(MailServer, msgspec.to_builtins(value)),
        ),
        Kind(
            name="defaults",
            scope="organization",
            record=Defaults,
            about="what a new connection is when nothing else is said",
            default=Defaults(),
        ),
        Kind(
            name="history",
            scope="organization",
            record=History,
            about="how long the organization keeps its runs and notifications",
            default=History(),
        ),
        Kind(
            name="notifications",
            scope="organization",
            record=Preferences,
            about="of which ends of runs members are told unless they chose themselves",
            default=Preferences(),
        ),
        Kind(
            name="queries",
            scope="organization",
            record=Queries,
            about="which writes have to be confirmed in which environment, and what is kept of queries",
            default=Queries(),
        ),
        Kind(
            name="webhooks",
            scope="organization",
            record=Webhooks,
            about="where the ends of the organization's runs are posted to, signed",
            default=Webhooks(),
            check=_webhooks,
        ),
    )
}

T = TypeVar("T", bound=Struct)


def visible(kind: Kind, who: Principal) -> bool:
    """Return whether a caller who may read settings may read this one."""
    if kind.scope == "organization":
        return who.org_id is not None
    limited = who.scopes is not None and not covers(who.scopes, INSTANCE_SETTINGS)
    return not limited and covers(who.permissions, INSTANCE_SETTINGS)


def scope_of(kind: Kind, org_id: str | None) -> str:
    """Return the scope in which a setting is kept. Raises InvalidInput without an organization."""
    if kind.scope == "instance":
        return settings.INSTANCE
    if org_id is None:
        raise InvalidInput("no organization is chosen", hint="`dblens org use NAME`")
    return org_id


def read(tx: Transaction, org_id: str | None, record: type[T]) -> T | None:
    """Return what holds now: what was set, else the default. A value that is not right (any more) counts as not set."""
    kind = next(kind for kind in KINDS.values() if kind.record is record)
    scope = scope_of(kind, org_id)
    found = settings.find_settings(tx, scope, [kind.name]).get(kind.name)
    if found is not None:
        try:
            return checked(record, found.value)
        except InvalidInput:
            pass  # written by another DBLens, or by hand: `settings.list` shows that it is not right
    return kind.default  # type: ignore[return-value]


def checked(record: type[T], given: object) -> T:
    """Return a record made of plain values. Raises InvalidInput, which names every field that is not right."""
    fields = get_type_hints(record, include_extras=True)
    if not isinstance(given, Mapping):
        raise InvalidInput(f"a setting is an object, not {type(given).__name__}", hint=", ".join(fields))
    wrong: list[str] = []
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            wrong.append(f"{str(name)[:60]!a} is no field")
            continue
        try:
            made[name] = msgspec.convert(value, fields[name])
        except msgspec.ValidationError as error:
            wrong.append(f"{name}: {_told(error)}")
    required = [field.name for field in msgspec.structs.fields(record) if field.required]
    wrong += [f"{name} is missing" for name in required if name not in given]
    if wrong:
        raise InvalidInput("; ".join(wrong), hint=f"fields: {', '.join(fields)}")
    value = record(**made)
    check = next((kind.check for kind in KINDS.values() if kind.record is record), None)
    if check is not None:
        check(value)
    return value


def _told(error: msgspec.ValidationError) -> str:
    text = str(error).replace("`", "'").replace(" - at '$", " at '")
    return text.replace(" at ''", "")[:200]
