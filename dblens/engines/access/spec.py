"""What a connection is, as fields: read from input, checked, shown without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from dblens.engines.access import guard, params
from dblens.engines.base import Url
from dblens.errors import InvalidInput

EngineName = Literal["postgresql", "mysql", "sqlite", "mongodb"]
TlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
PORTS: Mapping[str, int] = {"postgresql": 5432, "mysql": 3306, "mongodb": 27017}
SCHEMES: Mapping[str, EngineName] = {
    "postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite",
    "mongodb": "mongodb", "mongodb+srv": "mongodb",
}  # fmt: skip
SECRETS = ("password", "read_only_password", "tls.key", "ssh.password", "ssh.key", "ssh.key_passphrase")
"""Names under which secrets travel beside a specification, in a mapping of name -> value."""
MOST_PEM = 256 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SSH_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")
_HOST_KEY = re.compile(r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]{1,60} [A-Za-z0-9+/]{16,6000}={0,3}( [^\r\n]{0,200})?")
_TLS_WORDS: Mapping[str, TlsMode] = {
    "disable": "disable", "disabled": "disable", "allow": "prefer", "prefer": "prefer", "preferred": "prefer", "require": "require",
    "required": "require", "verify-ca": "verify-ca", "verify_ca": "verify-ca", "verify-full": "verify-full",
    "verify_identity": "verify-full",
}  # fmt: skip


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Common shape: frozen, unknown fields refused."""


class Tls(_Part, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the connection is encrypted. `ca`, `cert` and `key` are PEM texts, never paths; `key` is a secret.

    Without `ca` the machine's own authorities count.
    """

    mode: TlsMode = "verify-full"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        given = [name for name in ("ca", "cert", "key") if getattr(self, name)]
        return f"Tls(mode={self.mode!r}, given={given!r})"


class Tunnel(_Part, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An SSH server to go through. `host_key` is its known key (`ssh-ed25519 AAAA…`, lines of several are fine): there is no trust on
    first use. The fields ending in `_secret` name secrets.
    """

    host: str
    user: str
    host_key: str
    port: int = 22
    key_secret: str | None = None
    passphrase_secret: str | None = None
    password_secret: str | None = None


class ConnectionSpec(_Part, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A connection. The passwords are beside it (see `SECRETS`).

    `socket`: folder (PostgreSQL) or path (MySQL, MongoDB) of a Unix socket. `hosts`: further `host:port` of a MongoDB replica set. `srv`:
    the host is a MongoDB SRV name. `path`: a SQLite file. `read_only_user`: the login that readers get.
    """

    engine: EngineName
    host: str | None = None
    port: int | None = None
    database: str | None = None
    user: str | None = None
    read_only_user: str | None = None
    socket: str | None = None
    hosts: tuple[str, ...] = ()
    srv: bool = False
    auth_database: str | None = None
    replica_set: str | None = None
    path: str | None = None
    options: dict[str, str] = {}
    tls: Tls | None = None
    tunnel: Tunnel | None = None

    def validate(self) -> ConnectionSpec:
        """Return the specification in its one spelling. Raises InvalidInput naming the field that is wrong."""
        for name in ("database", "user", "read_only_user", "auth_database", "replica_set", "socket", "path"):
            _text(name, getattr(self, name))
        options = params.check(self.engine, self.options)
        if self.engine == "sqlite":
            return self._file(options)
        if self.path is not None:
            raise InvalidInput(f"the field 'path' is for SQLite, not {self.engine}", hint="give host and database")
        if self.engine != "mongodb":
            for name in ("hosts", "srv", "auth_database", "replica_set"):
                if getattr(self, name):
                    raise InvalidInput(f"the field {name!r} is for MongoDB, not {self.engine}", hint="leave it out")
        if not self.database:
            raise InvalidInput("the field 'database' is missing", hint="name the database to connect to")
        if not (self.user or self.engine == "mongodb"):
            raise InvalidInput("the field 'user' is missing", hint="name the login of the database")
        if self.read_only_user and not self.user:
            raise InvalidInput("the field 'user' is missing beside 'read_only_user'", hint="give both logins")
        if self.socket is not None:
            if self.host is not None or self.hosts or self.srv or self.tunnel:
                raise InvalidInput("the field 'socket' excludes host, hosts, srv and tunnel", hint="give one of them")
            if not self.socket.startswith("/"):
                raise InvalidInput(f"the socket {self.socket!r} is no absolute path", hint="begin it with /")
        elif self.host is None:
            raise InvalidInput("the field 'host' is missing", hint="name the server, for example db.example.org")
        _port("port", self.port)
        if self.srv and (self.port is not None or self.hosts):
            raise InvalidInput("an SRV name tells its own hosts and ports", hint="leave port and hosts out")
        if self.tunnel and (self.srv or self.hosts):
            raise InvalidInput("a tunnel leads to one server", hint="leave srv and hosts out")
        if self.tls is not None:
            _tls(self.tls)
            if self.socket is not None and self.tls.mode not in ("disable", "prefer"):
                raise InvalidInput("a Unix socket has no TLS", hint="leave the field 'tls' out")
        return msgspec.structs.replace(
            self,
            host=None if self.host is None else _host("host", self.host),
            hosts=tuple(f"{_bracketed(h)}:{p}" for h, p in map(_place, self.hosts)),
            tunnel=None if self.tunnel is None else _tunnel(self.tunnel),
            options=options,
        )

    def _file(self, options: dict[str, str]) -> ConnectionSpec:
        for name in self.__struct_fields__:
            if name not in ("engine", "path", "options") and getattr(self, name):
                raise InvalidInput(f"the field {name!r} is not for SQLite", hint="a SQLite connection has a path")
        if not self.path:
            raise InvalidInput("the field 'path' is missing", hint="name the database file")
        return msgspec.structs.replace(self, options=options)

    def to_url(self, *, read_only: bool = False) -> Url:
        """Return the address for display and for a driver: no secret, no TLS material, no tunnel."""
        if self.engine == "sqlite":
            return Url(scheme="sqlite", database=self.path, options=self.options)
        options = dict(self.options)
        if self.auth_database:
            options["authSource"] = self.auth_database
        if self.replica_set:
            options["replicaSet"] = self.replica_set
        return Url(
            scheme="mongodb+srv" if self.srv else self.engine,
            host=self.host,
            port=None if self.srv else self.port or PORTS[self.engine],
            user=self.read_only_user or self.user if read_only else self.user,
            database=self.database,
            options=options,
        )

    def secrets(self) -> dict[str, str]:
        """Return the secrets that came within the fields, by their names in `SECRETS`."""
        return {"tls.key": self.tls.key} if self.tls and self.tls.key else {}

    def without_secrets(self) -> ConnectionSpec:
        """Return the specification as it may be stored in the clear, shown and exported."""
        if self.tls is None or self.tls.key is None:
            return self
        return msgspec.structs.replace(self, tls=msgspec.structs.replace(self.tls, key=None))

    def export(self) -> dict[str, Any]:
        """Return the fields without secrets; `from_fields` takes them back."""
        made: dict[str, Any] = msgspec.to_builtins(self.without_secrets())
        return made


def from_fields(fields: Mapping[str, Any]) -> ConnectionSpec:
    """Read a specification from fields. Raises InvalidInput naming the field that is unknown, missing or wrong."""
    for name in ("password", "read_only_password"):
        if name in fields:
            raise InvalidInput(f"the field {name!r} is a secret", hint="give secrets beside the specification")
    try:
        spec = msgspec.convert(dict(fields), ConnectionSpec)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"not a connection: {error}", hint="see the field's name and place above") from None
    return spec.validate()


def from_url(text: str) -> tuple[ConnectionSpec, str | None]:
    """Read a specification and its password from a URL. Raises InvalidInput; the message never shows the URL's login.

    Query parameters are those of the engine's list, and those that are fields here: sslmode, ssl-mode, tls, authSource, replicaSet.
    """
    if _CONTROL.search(text) or len(text) > 4096:
        raise InvalidInput("the URL holds control characters or is too long", hint="percent-encode them")
    scheme, mark, rest = text.partition("://")
    engine = SCHEMES.get(scheme.lower())
    if not mark or engine is None:
        raise InvalidInput(
            "not a database URL" if not mark else f"unknown URL scheme: {scheme[:40]!r}",
            hint=f"write scheme://user@host:port/database, the scheme one of {', '.join(SCHEMES)}",
        )
    rest, _, query = rest.partition("?")
    if "#" in rest or "#" in query:
        raise InvalidInput("the URL holds a '#'", hint="percent-encode it as %23")
    options, named = _query(query)
    if engine == "sqlite":
        return from_fields({"engine": engine, "path": unquote(rest.removeprefix("/")), "options": options}), None
    netloc, _, path = rest.partition("/")
    if netloc.count("@") > 1 or "\\" in netloc:
        raise InvalidInput(
            "the URL holds more than one '@' or a backslash before the path", hint="write %40 and %5C in a login"
        )
    login, _, place = netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    fields: dict[str, Any] = {"engine": engine, "database": unquote(path) or None, "user": unquote(user) or None}
    first, *more = place.split(",")
    if more and engine != "mongodb":
        raise InvalidInput("the URL names several hosts", hint="name one host")
    host = unquote(first)
    if host.startswith("/"):
        fields["socket"] = host
    elif first:
        fields["host"], port = split_host(first, None)
        fields["port"] = port
    if more:
        fields["hosts"] = more
    if scheme.lower() == "mongodb+srv":
        fields["srv"] = True
    for name, value in named.items():
        match name:
            case "authsource":
                fields["auth_database"] = value
            case "replicaset":
                fields["replica_set"] = value
            case "tls" | "ssl":
                if value not in ("true", "false"):
                    raise InvalidInput(f"{value[:40]!r} is no value of the parameter {name!r}", hint="true or false")
                fields["tls"] = {"mode": "verify-full" if value == "true" else "disable"}
            case _:
                mode = _TLS_WORDS.get(value.lower())
                if mode is None:
                    raise InvalidInput(
                        f"{value[:40]!r} is no value of the parameter {name!r}", hint="disable … verify-full"
                    )
                fields["tls"] = {"mode": mode}
    fields["options"] = options
    return from_fields(fields), unquote(password) if has_password else None


_NAMED: Mapping[str, str] = {"sslmode": "sslmode", "ssl-mode": "sslmode", "ssl_mode": "sslmode"}
_NAMED_ANY = frozenset({"authsource", "replicaset", "tls", "ssl"})


def _query(query: str) -> tuple[dict[str, str], dict[str, str]]:
    """Split a query into options and those parameters that are fields of ours."""
    options: dict[str, str] = {}
    named: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        low = name.lower()
        into, key = (named, _NAMED.get(low, low)) if low in _NAMED or low in _NAMED_ANY else (options, name)
        if key in into:
            raise InvalidInput(f"the parameter {name[:80]!r} is given twice", hint="give it once")
        if low in ("password", "passwd", "pwd"):
            raise InvalidInput(
                f"the parameter {low!r} is not accepted in a query", hint="give the password beside the URL"
            )
        into[key] = value
    return options, named


def split_host(text: str, default: int | None = 27017) -> tuple[str, int | None]:
    """Split `host`, `host:port` or `[v6]:port`. Raises InvalidInput."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise InvalidInput(f"not a host: {text[:80]!r}", hint="write [address]:port")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise InvalidInput(f"not a port: {port[:20]!r}", hint="a number from 1 to 65535")
    number = int(port) if port else default
    _port("port", number)
    return guard.host_name(unquote(host)), number


def _host(field: str, text: str) -> str:
    try:
        return guard.host_name(text)
    except InvalidInput as error:
        raise InvalidInput(f"the field {field!r}: {error.message}", hint=error.hint) from None


def _place(text: str) -> tuple[str, int | None]:
    try:
        return split_host(text)
    except InvalidInput as error:
        raise InvalidInput(f"the field 'hosts': {error.message}", hint=error.hint) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _text(name: str, value: str | None) -> None:
    if value is None:
        return
    if _CONTROL.search(value):
        raise InvalidInput(f"the field {name!r} holds a control character: {value[:80]!r}", hint="take it out")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput(
            f"the field {name!r} is no Unicode text: {value[:80]!r}", hint="take the lone surrogate out"
        ) from None
    if size > 4096 or (size > 255 and name not in ("path", "socket")):
        raise InvalidInput(f"the field {name!r} is too long", hint="at most 255 octets")


def _port(name: str, value: int | None) -> None:
    if value is not None and not 0 < value < 65536:
        raise InvalidInput(f"the field {name!r} is out of range: {value}", hint="a number from 1 to 65535")


def _tls(tls: Tls) -> None:
    for name in ("ca", "cert", "key"):
        text = getattr(tls, name)
        if text is None:
            continue
        if len(text) > MOST_PEM or not text.lstrip().startswith("-----BEGIN ") or "\0" in text:
            raise InvalidInput(f"the field 'tls.{name}' is no PEM text", hint="paste the file's content, not its path")
    if tls.mode == "disable" and (tls.ca or tls.cert or tls.key):
        raise InvalidInput("the field 'tls' has certificates but mode 'disable'", hint="choose verify-full")


def _tunnel(tunnel: Tunnel) -> Tunnel:
    _port("tunnel.port", tunnel.port)
    if not _SSH_USER.fullmatch(tunnel.user):
        raise InvalidInput(
            f"the field 'tunnel.user' is no login: {tunnel.user[:80]!r}", hint="letters, digits, . _ - @ +"
        )
    lines = [line.strip() for line in tunnel.host_key.splitlines() if line.strip()]
    if not lines or len(lines) > 8 or not all(_HOST_KEY.fullmatch(line) for line in lines):
        raise InvalidInput(
            "the field 'tunnel.host_key' is no public host key",
            hint="paste a line of ssh-keyscan without the host in front",
        )
    for name in ("key_secret", "passphrase_secret", "password_secret"):
        value = getattr(tunnel, name)
        if value is not None and value not in SECRETS:
            raise InvalidInput(
                f"the field 'tunnel.{name}' names no secret: {value[:80]!r}", hint=f"one of {', '.join(SECRETS)}"
            )
    if not tunnel.key_secret and not tunnel.password_secret:
        raise InvalidInput("the tunnel has neither key nor password", hint="give key_secret or password_secret")
    return msgspec.structs.replace(tunnel, host=_host("tunnel.host", tunnel.host), host_key="\n".join(lines))
