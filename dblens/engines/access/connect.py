"""Open a session that goes only where it may, with TLS, tunnel and limits as the specification says."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Literal, Self

from dblens import engines
from dblens.engines.access import files, guard, tunnel
from dblens.engines.access.guard import CONNECT_SECONDS, Policy
from dblens.engines.access.material import PrivateFolder
from dblens.engines.access.route import Route, Routed
from dblens.engines.access.spec import PORTS, ConnectionSpec, split_host
from dblens.engines.access.watch import OCTETS, Watch
from dblens.engines.base import Target, Url
from dblens.errors import ConnectionFailed, DBLensError, InvalidInput, PermissionDenied, TimedOut

Stage = Literal["input", "file", "dns", "tunnel", "tcp", "session"]
Note = Callable[[Stage], None]
Login = Literal["main", "read_only"]
_NOWHERE = "/nonexistent/dblens"


def _silent(_: Stage) -> None:
    return None


class Opened:
    """A session with what it stands on: tunnel, certificate files. Close it, not the session."""

    def __init__(self, session: Target, watch: Watch, stack: contextlib.ExitStack, *, read_only: bool) -> None:
        self.session, self.read_only = session, read_only
        self._watch, self._stack, self._closed = watch, stack, False

    def __repr__(self) -> str:
        return f"Opened({self.session!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Close the session, then what it stands on. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        with self._stack:
            self.session.close()

    def ping(self, seconds: float) -> None:
        """Ask the server for a sign of life within a time. Raises any DBLensError without one."""
        statement = '{"ping": 1}' if self.session.engine.facts.documents else "SELECT 1"
        with self._watch.armed(seconds):
            descriptor = getattr(self.session, "descriptor", None)
            if descriptor is not None:
                self._watch.add(descriptor())
            self.session.execute(statement, timeout=seconds)


def connect(
    spec: ConnectionSpec,
    secrets: Mapping[str, str],
    policy: Policy,
    *,
    login: Login = "main",
    read_only: bool = False,
    create: bool = False,
    seconds: float = CONNECT_SECONDS,
    note: Note = _silent,
) -> Opened:
    """Open a session. `secrets`: values by the names of `spec.SECRETS`; `note` hears of each stage as it begins.

    `login="read_only"` logs in as the specification's read-only user and makes the session read-only. All within `seconds` a stage.
    Raises InvalidInput, PermissionDenied (out of bounds, or refused by the server), NotAuthenticated, NotFound, ConnectionFailed, TimedOut.
    """
    note("input")
    spec = spec.validate()
    secrets = {**spec.secrets(), **secrets}
    read_only = read_only or login == "read_only"
    if login == "read_only" and spec.read_only_user is None and spec.engine != "sqlite":
        raise InvalidInput("the connection has no read-only login", hint="set read_only_user and read_only_password")
    url = spec.to_url(read_only=login == "read_only")
    if spec.engine == "sqlite":
        return _open_file(spec, url, policy, read_only=read_only, create=create, note=note)
    password = secrets.get("read_only_password" if login == "read_only" else "password")
    watch = Watch()
    with contextlib.ExitStack() as stack:
        route = _route(spec, secrets, policy, watch, stack, seconds, note)
        routed = Routed(**{name: getattr(url, name) for name in Url.__struct_fields__}, route=route)
        note("session")
        try:
            with watch.armed(seconds):
                session = engines.get(spec.engine).connect(routed, password, create=create, read_only=read_only)
        except DBLensError as error:
            better = watch.refused or _tripped(watch, spec, seconds)
            if better is not None:
                raise better from error
            raise
        if watch.tripped:
            session.close()
            raise _tripped(watch, spec, seconds) or ConnectionFailed("the connection broke")
        return Opened(session, watch, stack.pop_all(), read_only=read_only)


def _tripped(watch: Watch, spec: ConnectionSpec, seconds: float) -> DBLensError | None:
    where = f"{spec.host or spec.socket}"
    if watch.tripped == "time":
        return TimedOut(
            f"{where} did not finish the greeting within {seconds:g} s", hint="the server is overloaded, or it is none"
        )
    if watch.tripped == "octets":
        return ConnectionFailed(
            f"{where} sent more than {OCTETS // 1024 // 1024} MiB before the session stood",
            hint="do not trust this server",
        )
    return None


def _open_file(spec: ConnectionSpec, url: Url, policy: Policy, *, read_only: bool, create: bool, note: Note) -> Opened:
    import msgspec

    note("file")
    create = create or spec.options.get("mode") == "rwc"
    checked = files.check_file(spec.path or "", policy, create=create)
    # The path of the address is made absolute, so that nothing is resolved again from another place.
    session = engines.get("sqlite").connect(
        msgspec.structs.replace(url, database=checked.path), create=create, read_only=read_only
    )
    try:
        checked.recheck()
    except BaseException:
        session.close()
        raise
    return Opened(session, Watch(), contextlib.ExitStack(), read_only=read_only)


def _route(
    spec: ConnectionSpec,
    secrets: Mapping[str, str],
    policy: Policy,
    watch: Watch,
    stack: contextlib.ExitStack,
    seconds: float,
    note: Note,
) -> Route:
    """Find the way: resolve and check, or open the tunnel; and try the way once, so that its failure has its own name."""
    port = spec.port or PORTS[spec.engine]
    unix: str | None = None
    addresses: tuple[str, ...] = ()
    far: Callable[[str, int, float], socket.socket]
    if spec.socket is not None:
        if not policy.allow_sockets:
            raise PermissionDenied("Unix sockets are not allowed here", hint="name the server's host")
        if any(spec.socket.rstrip("/") == d or spec.socket.startswith(f"{d}/") for d in policy.denied_files):
            raise PermissionDenied(f"the socket {spec.socket!r} belongs to DBLens itself", hint="name another")
        unix = spec.socket
        far = _unix_dial(unix)
    elif spec.tunnel is not None:
        note("tunnel")
        # PostgreSQL's library speaks TLS on TCP only; everything else goes through a socket that only we can open.
        tcp = spec.engine == "postgresql" and spec.tls is not None and spec.tls.mode not in ("disable", "prefer")
        way = tunnel.open_tunnel(spec.tunnel, secrets, policy, spec.host or "", port, tcp=tcp)
        stack.callback(way.close)
        if way.port is not None:
            addresses, port = ("127.0.0.1",), way.port
        else:
            unix = way.socket_path
        far = _tunnel_dial(way)
    else:
        far = _guarded(policy)
        if not spec.srv:
            note("dns")
            for host, number in ((spec.host or "", port), *map(split_host, spec.hosts)):
                found = guard.check_host(host, number or port, policy)
                addresses = addresses or found
            note("tcp")
            if not spec.hosts:
                guard.dial_checked(addresses, port, spec.host or "", seconds).close()

    def dial(host: str, number: int, limit: float) -> socket.socket:
        try:
            made = far(host, number, limit)
        except PermissionDenied as error:
            watch.refused = error
            raise
        watch.add(made.fileno())
        return made

    parameters = _PARAMETERS[spec.engine](spec, secrets, stack, seconds)
    trusted = spec.socket is not None or (
        spec.tunnel is None and bool(addresses) and all(ip_address(a).is_loopback for a in addresses)
    )
    return Route(
        addresses=addresses, port=port, socket=unix, dial=dial, watch=watch, trusted=trusted, parameters=parameters
    )


def _guarded(policy: Policy) -> Callable[[str, int, float], socket.socket]:
    return lambda host, port, seconds: guard.dial(host, port, policy, seconds=seconds)


def _tunnel_dial(way: tunnel.Forward) -> Callable[[str, int, float], socket.socket]:
    return lambda _host, _port, seconds: way.dial(seconds)


def _unix_dial(path: str) -> Callable[[str, int, float], socket.socket]:
    def dial(_host: str, _port: int, seconds: float) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(seconds)
        try:
            made.connect(path)
        except OSError as error:
            made.close()
            raise ConnectionFailed(
                f"the socket {path!r} cannot be opened: {error.strerror}", hint="check the path"
            ) from error
        return made

    return dial


# ---------------------------------------------------------------------------------------------------------- driver parameters


def _authorities() -> str:
    """Return the file of the machine's certificate authorities."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if path is not None:
            with contextlib.suppress(OSError), open(path, "rb"):
                return path
    raise InvalidInput("this machine has no certificate authorities", hint="give the field tls.ca")


def _material(spec: ConnectionSpec, secrets: Mapping[str, str], stack: contextlib.ExitStack) -> dict[str, str]:
    """Write the certificates that were given into a private folder; return their paths."""
    if spec.tls is None:
        return {}
    texts = {"ca": spec.tls.ca, "cert": spec.tls.cert, "key": secrets.get("tls.key") if spec.tls.cert else None}
    if spec.tls.cert and not texts["key"]:
        raise InvalidInput("the client certificate has no key", hint="give the field tls.key")
    if not any(texts.values()):
        return {}
    folder = PrivateFolder()
    stack.callback(folder.close)
    return {name: folder.write(f"{name}.pem", text) for name, text in texts.items() if text}


def _postgres(
    spec: ConnectionSpec, secrets: Mapping[str, str], stack: contextlib.ExitStack, seconds: float
) -> dict[str, Any]:
    mode = spec.tls.mode if spec.tls else "prefer"
    paths = _material(spec, secrets, stack)
    verified = mode in ("verify-ca", "verify-full")
    return {
        # Each of these also has an environment variable or a default file: what is given here counts alone.
        "sslmode": "disable" if spec.socket or (spec.tunnel and not verified and mode != "require") else mode,
        "sslrootcert": paths.get("ca") or (_authorities() if verified else _NOWHERE),
        "sslcert": paths.get("cert", _NOWHERE), "sslkey": paths.get("key", _NOWHERE),
        "sslcrl": _NOWHERE, "sslcrldir": _NOWHERE, "sslcertmode": "allow" if "cert" in paths else "disable",
        "passfile": _NOWHERE, "options": " ", "requirepeer": "", "gssencmode": "disable", "krbsrvname": "postgres", "gssdelegation": "0",
        "sslnegotiation": "postgres", "sslcompression": "0", "sslsni": "1", "ssl_min_protocol_version": "TLSv1.2",
        "load_balance_hosts": "disable", "channel_binding": "prefer", "target_session_attrs": "any",
        "connect_timeout": str(max(2, int(seconds))),
        # A server that is not known to be the right one is never told the password itself.
        "require_auth": "scram-sha-256,md5,none" + (",password" if verified or spec.socket else ""),
        **{name: value for name, value in spec.options.items() if name != "connect_timeout"},
    }  # fmt: skip


def _mysql(
    spec: ConnectionSpec,
    secrets: Mapping[str, str],
    stack: contextlib.ExitStack,  # noqa: ARG001 - no file outlives this
    seconds: float,
) -> dict[str, Any]:
    mode = spec.tls.mode if spec.tls else "prefer"
    made: dict[str, Any] = {
        "connect_timeout": seconds,
        "clear_password": mode in ("verify-ca", "verify-full") or bool(spec.socket),
    }
    if mode in ("disable", "prefer") and not (spec.tls and (spec.tls.ca or spec.tls.cert)):
        return made | {"ssl": None, "ssl_disabled": mode == "disable"}
    with contextlib.ExitStack() as short:  # the context holds what it has read
        paths = _material(spec, secrets, short)
        try:
            context = ssl.create_default_context(cafile=paths.get("ca"))
            context.check_hostname = mode == "verify-full"
            if mode not in ("verify-ca", "verify-full"):
                context.verify_mode = ssl.CERT_NONE
            if "cert" in paths:
                context.load_cert_chain(paths["cert"], paths["key"], password=lambda: "")
        except ssl.SSLError as error:
            raise InvalidInput(
                f"the certificates cannot be read: {error.reason or error}", hint="check the PEM texts"
            ) from None
    return made | {"ssl": context}


def _mongodb(
    spec: ConnectionSpec, secrets: Mapping[str, str], stack: contextlib.ExitStack, seconds: float
) -> dict[str, Any]:
    made: dict[str, Any] = {"hosts": spec.hosts}
    for name in ("serverSelectionTimeoutMS", "connectTimeoutMS"):
        # Less than the watchdog allows: pymongo takes its time to give up, and can then still say why.
        made[name] = min(int(spec.options.get(name, 60_000)), int(seconds * 600))
    if spec.tunnel or spec.socket:
        made["directConnection"] = True
    mode = spec.tls.mode if spec.tls else ("verify-full" if spec.srv else "disable")
    if mode in ("disable", "prefer"):
        return made | {"tls": False}
    paths = _material(spec, secrets, stack)
    # Asking the issuer whether a certificate was revoked would fetch an address that the certificate names.
    made |= {"tls": True} | (
        {"tlsAllowInvalidCertificates": True} if mode == "require" else {"tlsDisableOCSPEndpointCheck": True}
    )
    if mode == "verify-ca":
        made["tlsAllowInvalidHostnames"] = True
    if "ca" in paths:
        made["tlsCAFile"] = paths["ca"]
    if "cert" in paths:
        with open(paths["cert"], encoding="utf-8") as cert, open(paths["key"], encoding="utf-8") as key:
            text = cert.read() + key.read()
        both = PrivateFolder()
        stack.callback(both.close)
        made["tlsCertificateKeyFile"] = both.write("both.pem", text)
    return made


_PARAMETERS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "postgresql": _postgres,
    "mysql": _mysql,
    "mongodb": _mongodb,
}
