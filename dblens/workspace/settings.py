"""The door to what administrators set while the service runs: the instance's settings and their organization's.

The instance's are for who has `settings.instance`, an organization's for its administrators; each change asks for a recent login.
A secret goes beside the value, under a name; it is sealed, never shown again, and asked for anew when what it is used for changes.
"""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dblens.accounts import rules_stored
from dblens.accounts.mail import Mail
from dblens.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from dblens.redaction import Secret
from dblens.store import secrets
from dblens.store import settings as store_settings
from dblens.store.database import Transaction
from dblens.workspace import webhook as posting
from dblens.workspace.deliver import DELIVERY, KEPT, WEBHOOKS, Deliverer, Delivery
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.permissions import INSTANCE_SETTINGS
from dblens.workspace.setting_kinds import (
    KINDS,
    Application,
    Kind,
    Scope,
    Webhook,
    Webhooks,
    checked,
    read,
    scope_of,
    visible,
)

if TYPE_CHECKING:
    from dblens.workspace.house import House

SHORTEST: Final = 16
"""Characters that the secret of a webhook has at least."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as it holds now. `value` is None for one that is not set and has no default; `secrets` are names, never values."""

    name: str
    scope: Scope
    about: str
    value: dict[str, Any] | None
    default: dict[str, Any] | None
    fields: dict[str, str]
    """What each field is, in words."""
    set: bool
    updated_at: dt.datetime | None
    secrets: tuple[str, ...]
    problem: str | None = None
    """Why what is kept is not right, and the default holds."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A mail that the mail server took."""

    to: str


class Settings(Door):
    """Read and change settings."""

    @operation("settings.list", permission="settings.read", cost="light")
    def list(self) -> builtins.list[Setting]:
        """Return all settings that the caller may read, with what holds now."""
        context = self.context
        with context.store.read() as tx:
            return [self._shown(tx, kind) for kind in KINDS.values() if visible(kind, context.principal)]

    @operation("settings.read", cost="light", shown=("name",))
    def read(self, name: str) -> Setting:
        """Return a setting. Raises NotFound, PermissionDenied."""
        kind = self._kind(name)
        with self.context.store.read() as tx:
            return self._shown(tx, kind)

    @operation("settings.update", mutates=True, step_up=True, shown=("name",), target="name")
    def update(self, name: str, value: dict[str, Any], *, secrets: dict[str, Secret] | None = None) -> Setting:
        """Change the fields that are given, and seal the secrets: `password` of smtp, of each webhook the one under its name.

        Raises InvalidInput, which names every field that is not right, NotFound, PermissionDenied also for a webhook's host.
        """
        kind = self._kind(name)
        context = self.context
        given = dict(secrets or {})
        if not isinstance(value, Mapping):
            raise InvalidInput(f"value is {type(value).__name__}", hint="an object: fields and what they are")
        with context.store.write() as tx:
            scope = scope_of(kind, context.principal.org_id)
            kept = store_settings.find_settings(tx, scope, [kind.name]).get(kind.name)
            before = kept.value if kept is not None and isinstance(kept.value, dict) else _plain(kind.default)
            made = checked(kind.record, {**(before or {}), **value})
        # Outside of the transaction: looking a host up may take seconds.
        if isinstance(made, Webhooks):
            for hook in made.hooks:
                posting.allowed(hook.url, self._house.lines.policy)
        with context.store.write() as tx:
            held = store_settings.find_settings(tx, scope, [kind.name]).get(kind.name)
            if (held.value if held is not None else None) != (kept.value if kept is not None else None):
                raise Conflict("the setting was changed by somebody else meanwhile", hint="read it again")
            self._seal(tx, kind, before or {}, made, given)
            store_settings.put_setting(tx, scope, kind.name, msgspec.to_builtins(made), now=context.clock())
            shown = self._shown(tx, kind)
        tell(fields=sorted(map(str, value)), secrets=sorted(given))
        return shown

    @operation(
        "settings.reset", permission="settings.update", mutates=True, step_up=True, shown=("name",), target="name"
    )
    def reset(self, name: str) -> Setting:
        """Go back to the default, and delete the secrets beside it. Raises NotFound, PermissionDenied."""
        kind = self._kind(name)
        context = self.context
        scope = scope_of(kind, context.principal.org_id)
        with context.store.write() as tx:
            if kind.name in store_settings.find_settings(tx, scope, [kind.name]):
                store_settings.delete_setting(tx, scope, kind.name)
            for secret in self._sealed(tx, kind):
                self._unseal(tx, kind, secret)
            return self._shown(tx, kind)

    @operation(
        "settings.test_mail", permission="settings.update", mutates=True, step_up=True, shown=("to",), target="to"
    )
    def test_mail(self, to: str) -> Sent:
        """Send a mail now and wait until the mail server took it. Raises InvalidInput, MailFailed, Unsupported without a server."""
        self._kind("smtp")
        with self.context.store.read() as tx:
            title = (read(tx, None, Application) or Application()).title
        self._deliverer.mail(Mail(to=to, subject=f"{title}: a test", text="This mail tests the mail server.\n"))
        return Sent(to=to)

    @operation(
        "settings.test_webhook",
        permission="settings.update",
        mutates=True,
        step_up=True,
        shown=("webhook",),
        target="webhook",
    )
    def test_webhook(self, webhook: str) -> Delivery:
        """Post once to a webhook of the organization and return how it ended. Raises NotFound."""
        org_id = scope_of(self._kind("webhooks"), self.context.principal.org_id)
        with self.context.store.read() as tx:
            hook = _hook(read(tx, org_id, Webhooks) or Webhooks(), webhook)
        done = self._deliverer.test(org_id, hook)
        tell(ok=done.ok, status=done.status)
        return done

    @operation("settings.deliveries", permission="settings.read", cost="light")
    def deliveries(self) -> builtins.list[Delivery]:
        """Return how the last posts to the organization's webhooks ended, the newest first."""
        org_id = scope_of(self._kind("webhooks"), self.context.principal.org_id)
        with self.context.store.read() as tx:
            kept = store_settings.list_newest(tx, org_id, DELIVERY, limit=KEPT)
        return [msgspec.convert(each.value, Delivery) for each in kept]

    # ---------------------------------------------------------------------------------------------------------------- secrets

    def _seal(self, tx: Transaction, kind: Kind, before: dict[str, Any], made: Any, given: dict[str, Secret]) -> None:
        names = _secret_names(made)
        if unknown := sorted(set(given) - set(names)):
            raise InvalidInput(f"secrets: {unknown[0]!a} is no name", hint=f"one of {', '.join(names) or 'none'}")
        kept = set(self._sealed(tx, kind))
        if isinstance(made, Webhooks):
            for name in names:
                secret = given.get(name)
                if secret is None and name not in kept:
                    raise InvalidInput(f"secrets: the webhook {name!r} has none", hint=f"give one under {name!r}")
                if secret is not None and len(secret.reveal()) < SHORTEST:
                    raise InvalidInput(f"secrets: that of {name!r} is short", hint=f"at least {SHORTEST} characters")
        elif kind.name == "smtp":
            now = msgspec.to_builtins(made)
            moved = [field for field in ("host", "port", "security", "user") if before.get(field) != now[field]]
            if "password" in kept and moved and "password" not in given and now["user"] is not None:
                # Otherwise whoever may set a host could have the password sent to their own.
                raise InvalidInput(
                    f"{moved[0]} was changed: the password has to be given again", hint="secrets: password"
                )
            if now["user"] is None and "password" in given:
                raise InvalidInput("secrets: a password without a user", hint="set user too")
        for name in kept - set(names):
            self._unseal(tx, kind, name)
        for name, secret in given.items():
            if kind.scope == "instance":
                secrets.put_instance(tx, self._house.keyring, _instance_name(kind, name), secret)
            else:
                org_id = scope_of(kind, self.context.principal.org_id)
                secrets.put(tx, self._house.keyring, org_id, WEBHOOKS, name, secret, now=self.context.clock())

    def _sealed(self, tx: Transaction, kind: Kind) -> tuple[str, ...]:
        if kind.name == "smtp":
            return ("password",) if secrets.has_instance(tx, rules_stored.SMTP_PASSWORD) else ()
        if kind.record is Webhooks:
            org_id = scope_of(kind, self.context.principal.org_id)
            return tuple(each.field for each in secrets.list_secrets(tx, org_id, WEBHOOKS))
        return ()

    def _unseal(self, tx: Transaction, kind: Kind, name: str) -> None:
        if kind.scope == "instance":
            secrets.delete_instance(tx, _instance_name(kind, name))
        else:
            secrets.delete(tx, scope_of(kind, self.context.principal.org_id), WEBHOOKS, name)

    # ------------------------------------------------------------------------------------------------------------------ others

    def _kind(self, name: str) -> Kind:
        kind = KINDS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise NotFound(f"no setting {name!r}", hint=f"one of {', '.join(KINDS)}")
        if kind.scope == "instance" and not visible(kind, self.context.principal):
            raise PermissionDenied(f"{name} is a setting of the instance and needs {INSTANCE_SETTINGS}")
        scope_of(kind, self.context.principal.org_id)
        return kind

    def _shown(self, tx: Transaction, kind: Kind) -> Setting:
        scope = scope_of(kind, self.context.principal.org_id)
        kept = store_settings.find_settings(tx, scope, [kind.name]).get(kind.name)
        value, problem = _plain(kind.default), None
        if kept is not None:
            try:
                value = msgspec.to_builtins(checked(kind.record, kept.value))
            except InvalidInput as error:
                problem = error.message
        return Setting(
            name=kind.name,
            scope=kind.scope,
            about=kind.about,
            value=value,
            default=_plain(kind.default),
            fields={field.name: _words(field.type) for field in msgspec.structs.fields(kind.record)},
            set=kept is not None,
            updated_at=None if kept is None else kept.updated_at,
            secrets=self._sealed(tx, kind),
            problem=problem,
        )

    @property
    def _house(self) -> House:
        if self.context.house is None:
            raise InvalidInput("settings need a whole house", hint="open the workspace by `dblens.open()`")
        return self.context.house

    @property
    def _deliverer(self) -> Deliverer:
        return self._house.deliverer


def _hook(hooks: Webhooks, name: str) -> Webhook:
    found = next((hook for hook in hooks.hooks if hook.name == name), None)
    if found is None:
        raise NotFound(f"no webhook {name!r}", hint=f"one of {', '.join(h.name for h in hooks.hooks) or 'none'}")
    return found


def _secret_names(made: Any) -> tuple[str, ...]:
    if isinstance(made, Webhooks):
        return tuple(hook.name for hook in made.hooks)
    return ("password",) if isinstance(made, rules_stored.MailServer) else ()


def _instance_name(kind: Kind, name: str) -> str:
    assert (kind.name, name) == ("smtp", "password")
    return rules_stored.SMTP_PASSWORD


def _plain(default: msgspec.Struct | None) -> dict[str, Any] | None:
    return None if default is None else msgspec.to_builtins(default)


def _words(kind: Any) -> str:
    about = msgspec.inspect.type_info(kind)
    return _type_words(about)


def _type_words(about: Any) -> str:
    import msgspec.inspect as known

    match about:
        case known.UnionType(types=types):
            return " or ".join(_type_words(each) for each in types)
        case known.LiteralType(values=values):
            return " | ".join(map(str, values))
        case known.IntType(ge=least, le=most):
            return "a whole number" + (f" from {least} to {most}" if least is not None and most is not None else "")
        case known.BoolType():
            return "true or false"
        case known.StrType(max_length=longest):
            return "a text" + (f" of at most {longest} characters" if longest is not None else "")
        case known.VarTupleType(item_type=item):
            return f"a list: {_type_words(item)}"
        case known.StructType(fields=fields):
            return f"{{{', '.join(field.name for field in fields)}}}"
        case known.NoneType():
            return "null"
        case _:
            return type(about).__name__.removesuffix("Type").lower()
