"""What connections look like from outside: what is given to make or change one, what is shown of one. No door, and no secret in a repr.

Every field that is refused is named, all at once; what a rejected field held is not repeated, because it may be a password in the
wrong place.
"""

from __future__ import annotations

import datetime as dt
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from dblens.engines.access.spec import SECRETS, ConnectionSpec, from_url
from dblens.errors import DBLensError, InvalidInput
from dblens.redaction import Secret
from dblens.store import references
from dblens.store.connections import Level
from dblens.store.references import Reference
from dblens.workspace.fields import MOST_SHOWN, cut, read_fields, record

Environment: TypeAlias = Literal["dev", "staging", "production"]
Given: TypeAlias = dict[str, Secret | Reference]
_ID = re.compile(r"[0-9a-f]{32}")
_COLOUR = re.compile(r"(#[0-9a-fA-F]{6}|[a-z]{1,20})?")


class Way(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach a database: by its fields or by a URL, with secrets beside them.

    `secrets` by their names (`password`, `read_only_password`, `tls.key`, `ssh.password`, `ssh.key`, `ssh.key_passphrase`);
    `references` instead of them, by the same names: `env:NAME`, `file:/path`, `keyring:service/name`, `vault:mount/path#field`.
    A URL's password is taken out of it and kept as the secret `password`. In Python, a mapping does for the fields and a text for
    a secret.
    """

    fields: ConnectionSpec | None = None
    url: Secret | None = None
    secrets: dict[str, Secret] = {}
    references: dict[str, str] = {}

    def __post_init__(self) -> None:
        put = msgspec.structs.force_setattr
        if isinstance(self.fields, Mapping):
            put(self, "fields", read_fields(self.fields))
        if isinstance(self.url, str):
            put(self, "url", Secret(self.url))
        if isinstance(self.secrets, dict) and any(isinstance(value, str) for value in self.secrets.values()):
            put(self, "secrets", {k: Secret(v) if isinstance(v, str) else v for k, v in self.secrets.items()})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_shown(self)})"


class NewConnection(Way, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A connection to make. `read_only`: no session of it may write, whatever the login's rights.

    Environment and read_only are as the organization's setting `defaults` says when they are None.
    """

    name: str
    environment: Environment | None = None
    colour: str = ""
    read_only: bool | None = None

    def __repr__(self) -> str:
        return f"NewConnection({_shown(self)})"


class ConnectionChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; None stays as it is. `fields` are merged (RFC 7386): null removes one. A secret that is null is removed."""

    name: str | None = None
    fields: dict[str, Any] | None = None
    environment: Environment | None = None
    colour: str | None = None
    read_only: bool | None = None
    secrets: dict[str, Secret | None] = {}
    references: dict[str, str] = {}

    def __post_init__(self) -> None:
        if any(isinstance(value, str) for value in self.secrets.values()):
            made = {k: Secret(v) if isinstance(v, str) else v for k, v in self.secrets.items()}
            msgspec.structs.force_setattr(self, "secrets", made)

    def __repr__(self) -> str:
        return f"ConnectionChanges({_shown(self)})"


def _shown(given: msgspec.Struct) -> str:
    """Return what was given, of fields and secrets their names only."""
    parts = []
    for field in msgspec.structs.fields(given):
        value = getattr(given, field.name)
        if not field.required and value == field.default:
            continue
        if field.name in ("secrets", "references", "fields", "url"):
            if value:
                parts.append(f"{field.name}={sorted(value) if isinstance(value, dict) else '…'}")
        else:
            parts.append(f"{field.name}={value!r}")
    return ", ".join(parts)


# ------------------------------------------------------------------------------------------------------------------------ shown


class KeptSecret(msgspec.Struct, frozen=True, kw_only=True):
    """That a connection has a secret; never the secret."""

    name: str
    kind: Literal["inline", "reference"]
    updated_at: dt.datetime


class ConnectionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A connection in a list. `level` is what the caller may do with it, `via` why: `owner`, `user`, `role`, or a team's id."""

    id: str
    name: str
    engine: str
    address: str
    environment: str
    colour: str
    read_only: bool
    owner_id: str | None
    level: Level | None
    via: str | None
    version: int
    updated_at: dt.datetime


class ConnectionView(ConnectionSummary, frozen=True, kw_only=True):
    """A connection. `fields` are those that `Way` takes, never with a secret."""

    fields: dict[str, Any]
    secrets: tuple[KeptSecret, ...]
    owner: str | None
    created_at: dt.datetime


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What a user or a team may do with a connection."""

    kind: Literal["user", "team"]
    id: str
    name: str
    level: Level
    created_at: dt.datetime


class Carried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A connection in a document. `secrets`: the names of those that it had, which do not come along."""

    name: str
    fields: ConnectionSpec
    environment: Environment = "dev"
    colour: str = ""
    read_only: bool = False
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.fields, Mapping):
            msgspec.structs.force_setattr(self, "fields", read_fields(self.fields))


class ConnectionDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connections to take elsewhere, without secrets."""

    format: Literal["dblens/connections"] = "dblens/connections"
    version: Literal[1] = 1
    connections: tuple[Carried, ...] = ()


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import made, or would make. `lacking`: the names of secrets to set, by connection."""

    dry_run: bool
    created: tuple[str, ...]
    skipped: tuple[str, ...]
    lacking: dict[str, tuple[str, ...]]


# ------------------------------------------------------------------------------------------------------------------------- read


def read(way: Way, policy: references.Policy) -> tuple[ConnectionSpec, Given]:
    """Return the specification of a way and its secrets by name. Raises InvalidInput, which names what is wrong."""
    if (way.fields is None) == (way.url is None):
        raise InvalidInput("give either fields or a url", hint="`fields={…}` or `url=…`")
    inside: dict[str, Secret] = {}
    if way.url is not None:
        spec, password = from_url(_revealed("url", way.url))
        if password is not None:
            inside["password"] = Secret(password)
    else:
        spec = read_fields(way.fields)
    spec, inside = _split(spec, inside)
    given = read_secrets(way.secrets, way.references, policy)
    if twice := sorted(set(inside) & set(given)):
        raise InvalidInput(f"the secret {twice[0]!r} is given twice", hint="once within the way, or once beside it")
    made: Given = {**inside, **given}
    complete(spec, made)
    return spec, made


def _split(spec: ConnectionSpec, inside: dict[str, Secret]) -> tuple[ConnectionSpec, dict[str, Secret]]:
    """Take the secrets out of a specification."""
    return spec.without_secrets(), inside | {name: Secret(value) for name, value in spec.secrets().items()}


def plain(spec: ConnectionSpec) -> dict[str, Any]:
    """Return the fields of a specification as they are kept and shown: what a person has to know is said, default or not."""
    made = spec.export()
    if spec.tls is not None:
        made["tls"] = {"mode": spec.tls.mode, **made["tls"]}
    return made


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[ConnectionSpec, dict[str, Secret]]:
    """Return a specification with fields replaced, added and (null) removed, and the secrets within. Raises InvalidInput."""
    return _split(read_fields(_patched(before, changes)), {})


def _patched(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(before)
    for name, value in changes.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            below = made.get(name)
            made[name] = _patched(below if isinstance(below, Mapping) else {}, value)
        else:
            made[name] = value
    return made


def read_secrets(
    secrets: Mapping[str, Secret | None], references_: Mapping[str, str], policy: references.Policy
) -> Given:
    """Return secrets and references by name. Raises InvalidInput for an unknown name, and for a reference the policy forbids."""
    given: Given = {}
    for name, value in secrets.items():
        _known(name)
        if value is None:
            continue
        _revealed(name, value)
        given[name] = value
    for name, text in references_.items():
        _known(name)
        if name in secrets:
            raise InvalidInput(f"the secret {name!r} is given twice", hint="a secret or a reference to one")
        reference = Reference.parse(text)
        references.allow(reference, policy)
        given[name] = reference
    return given


def _known(name: str) -> None:
    if name not in SECRETS:
        raise InvalidInput(f"secrets: {cut(name)!r} is the name of none", hint=f"one of {', '.join(SECRETS)}")


def _revealed(name: str, secret: Secret) -> str:
    if not isinstance(secret, Secret):
        raise InvalidInput(f"{name} is a {type(secret).__name__}", hint="a text")
    if not secret.reveal():
        raise InvalidInput(f"{name} is empty", hint="leave it out")
    return secret.reveal()


def complete(spec: ConnectionSpec, names: Collection[str], *, lacking: bool = True) -> None:
    """Refuse secrets that belong to nothing and, if `lacking`, a tunnel or certificate without its own. Raises InvalidInput."""
    if spec.engine == "sqlite" and names:
        raise InvalidInput(f"secrets: SQLite has no {sorted(names)[0]!r}", hint="leave it out")
    if "read_only_password" in names and not spec.read_only_user:
        raise InvalidInput("secrets: 'read_only_password' without 'read_only_user'", hint="give the field too")
    if "tls.key" in names and not (spec.tls and spec.tls.cert):
        raise InvalidInput("secrets: 'tls.key' without 'tls.cert'", hint="give the field too")
    if not lacking:
        return
    needed = [] if spec.tunnel is None else [spec.tunnel.key_secret, spec.tunnel.passphrase_secret]
    needed += [] if spec.tunnel is None else [spec.tunnel.password_secret]
    needed += ["tls.key"] if spec.tls and spec.tls.cert else []
    for name in needed:
        if name is not None and name not in names:
            raise InvalidInput(f"secrets: {name!r} is missing, and the fields need it", hint="a secret or a reference")


def elsewhere(before: ConnectionSpec, after: ConnectionSpec) -> bool:
    """Return whether a connection would now give its secrets to somebody else: another server, another hop, less of a check."""
    return _place(before) != _place(after) or _trust(after) < _trust(before)


def _place(spec: ConnectionSpec) -> tuple[object, ...]:
    hop = spec.tunnel and (spec.tunnel.host, spec.tunnel.port, spec.tunnel.host_key)
    ca = spec.tls and spec.tls.ca
    return spec.engine, spec.host, spec.port, spec.socket, tuple(sorted(spec.hosts)), spec.srv, hop, ca


def _trust(spec: ConnectionSpec) -> int:
    modes = ("disable", "prefer", "require", "verify-ca", "verify-full")
    return modes.index(spec.tls.mode) if spec.tls else (4 if spec.srv else 0 if spec.engine == "mongodb" else 1)


def named(name: str) -> str:
    """Return a name that is a connection's and nothing else's. Raises InvalidInput."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidInput("name is empty", hint="give the connection a name")
    if len(name) > 100:
        raise InvalidInput(f"name has {len(name)} characters", hint="at most 100")
    if not name.isprintable() or name != name.strip():
        raise InvalidInput("name has a character that cannot be seen", hint="no control characters, no space around it")
    if _ID.fullmatch(name) or "://" in name or name.lower().startswith("sqlite:") or set(name) == {"."}:
        raise InvalidInput("name looks like an id or an address", hint="give the connection a name of its own")
    return name


def is_id(text: str) -> bool:
    """Return whether a text is a connection's id."""
    return _ID.fullmatch(text) is not None


def coloured(colour: str) -> str:
    """Return a colour. Raises InvalidInput."""
    if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
        raise InvalidInput(
            f"colour is {cut(str(colour))!r}", hint="#rrggbb, or a word of small letters; empty for none"
        )
    return colour


def read_document(given: object) -> ConnectionDocument:
    """Return the document that a JSON value is. Raises InvalidInput naming every field that is unknown, missing or wrong."""
    plain = given if isinstance(given, Mapping) else {}
    kind, version = plain.get("format"), plain.get("version")
    if kind != "dblens/connections":
        raise InvalidInput("it is no document of connections", hint="`dblens connection export` writes one")
    if version != 1:
        raise InvalidInput("the document is of another version", hint="this DBLens reads version 1")
    wrong = [f"{cut(str(name))}: unknown" for name in plain if name not in ConnectionDocument.__struct_fields__]
    listed = plain.get("connections", [])
    if not isinstance(listed, list):
        wrong.append("connections: expected a list")
        listed = []
    made = [record(Carried, each, f"connections[{at}].", wrong) for at, each in enumerate(listed)]
    if wrong:
        more = f"; and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise InvalidInput(f"{'; '.join(wrong[:MOST_SHOWN])}{more}", hint="nothing was written")
    return ConnectionDocument(connections=typing.cast(tuple[Carried, ...], tuple(made)))


def problems(pairs: Sequence[tuple[str, DBLensError]]) -> InvalidInput:
    """Return one error that tells all of them, each with its place."""
    told = "; ".join(f"{place}: {error.message}" for place, error in pairs[:MOST_SHOWN])
    more = f"; and {len(pairs) - MOST_SHOWN} more" if len(pairs) > MOST_SHOWN else ""
    return InvalidInput(f"{told}{more}", hint="nothing was written")
