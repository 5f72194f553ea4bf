"""Why a connection cannot be opened: one named cause, a hint, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from dblens import engines
from dblens.engines.access import connect as opening
from dblens.engines.access.guard import CONNECT_SECONDS, Policy, check_host, dial_checked
from dblens.engines.access.sniff import sniff
from dblens.engines.access.spec import PORTS, ConnectionSpec
from dblens.errors import DBLensError, InvalidInput, NotAuthenticated, NotFound, PermissionDenied, TimedOut, Unsupported

Cause = Literal[
    "input", "forbidden", "dns", "tcp", "tunnel", "tls", "authentication", "permission", "missing_database", "timeout",
    "not_this_engine", "file", "server", "secret",
]  # fmt: skip
Verified = Literal["yes", "no", "unknown"]


class Reach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of `test`. `stage`: where it ended; `cause`: empty when `ok`. Milliseconds.

    `read_only_verified`: whether the read-only login could be shown to have no right to write (None: there is no such login).
    """

    ok: bool
    stage: str
    cause: Cause | Literal[""] = ""
    message: str = ""
    hint: str = ""
    version: str = ""
    latency_ms: float = 0.0
    total_ms: float = 0.0
    stages: dict[str, float] = {}
    missing_privileges: tuple[str, ...] = ()
    read_only_verified: bool | None = None


class _Clock:
    def __init__(self) -> None:
        self.stage = "input"
        self.times: dict[str, float] = {}
        self._since = self.began = time.monotonic()

    def note(self, stage: str) -> None:
        """Begin a stage."""
        now = time.monotonic()
        self.times[self.stage] = round(self.times.get(self.stage, 0.0) + (now - self._since) * 1000, 3)
        self.stage, self._since = stage, now


def test(
    spec: ConnectionSpec,
    secrets: Mapping[str, str],
    policy: Policy,
    *,
    seconds: float = CONNECT_SECONDS,  # noqa: PT028
    read_only: bool = False,  # noqa: PT028
) -> Reach:
    """Try a connection, and its read-only login when there is one. Never raises a DBLensError, never tells a secret.

    `read_only`: nothing may be written, not even by opening it (a SQLite file).
    """
    clock = _Clock()
    try:
        probe = _probe(spec)
        with opening.connect(probe, secrets, policy, read_only=read_only, seconds=seconds, note=clock.note) as opened:
            clock.note("ping")
            began = time.monotonic()
            opened.ping(seconds)
            latency = (time.monotonic() - began) * 1000
            version = opened.session.version
            clock.note("privileges")
            missing = tuple(opened.session.missing_privileges(write=False)[:20])
        verified = None
        if probe.read_only_user:
            clock.note("read_only")
            verified = _read_only(probe, secrets, policy, seconds)
        clock.note("done")
    except DBLensError as error:
        clock.note(clock.stage)
        cause = cause_of(error, clock.stage)
        message, hint = error.message, error.hint or _HINTS.get(cause, "see the message")
        if cause in ("timeout", "server", "not_this_engine") and clock.stage == "session":
            other = _listener(spec, policy)
            if other not in ("", engines.get(spec.engine).title.partition(" ")[0]):
                cause, hint = "not_this_engine", f"{other} listens there: check engine and port"
        return Reach(
            ok=False,
            stage=clock.stage,
            cause=cause,
            message=_clean(message, secrets, spec),
            hint=_clean(hint, secrets, spec),
            stages=clock.times,
            total_ms=round((time.monotonic() - clock.began) * 1000, 3),
        )
    return Reach(
        ok=True,
        stage="done",
        version=version,
        latency_ms=round(latency, 3),
        total_ms=round((time.monotonic() - clock.began) * 1000, 3),
        stages=clock.times,
        missing_privileges=missing,
        read_only_verified=verified,
    )


def _listener(spec: ConnectionSpec, policy: Policy) -> str:
    """Return what really listens there; empty when it cannot be asked (tunnel, socket, SRV)."""
    host, port = spec.host, spec.port or PORTS[spec.engine]
    if host is None or spec.tunnel or spec.srv or spec.hosts:
        return ""
    try:
        addresses = check_host(host, port, policy)
        return sniff(lambda seconds: dial_checked(addresses, port, host, seconds))
    except DBLensError:
        return ""


def _probe(spec: ConnectionSpec) -> ConnectionSpec:
    """Return the specification for a trial: MySQL by the driver in Python, whose reads the watchdog can end."""
    spec = spec.validate()
    if spec.engine != "mysql":
        return spec
    return msgspec.structs.replace(spec, options={**spec.options, "driver": "pymysql"})


def _read_only(spec: ConnectionSpec, secrets: Mapping[str, str], policy: Policy, seconds: float) -> bool:
    """Log in as the reader and look whether rights to write are missing, as they should be."""
    with opening.connect(spec, secrets, policy, login="read_only", seconds=seconds) as opened:
        opened.ping(seconds)
        return bool(opened.session.missing_privileges(write=True))


def cause_of(error: DBLensError, stage: str) -> Cause:
    """Name the cause of a failed connection, from the error and the stage that it happened in."""
    words = " ".join(str(e) for e in _chain(error)).lower()
    match error:
        case InvalidInput() if stage not in ("session", "tunnel"):
            return "input"
        case PermissionDenied() if stage in ("dns", "input", "tunnel") or "where this service does not" in words:
            return "forbidden"
    if stage in ("file", "tunnel"):
        return "file" if stage == "file" else "tunnel"
    if "not a sqlite database" in words:
        return "file"
    if isinstance(error, TimedOut) or any(isinstance(e, TimeoutError) for e in _chain(error)):
        return "dns" if stage == "dns" else "timeout"
    if stage in ("dns", "tcp"):
        return "dns" if stage == "dns" else "tcp"
    return _of_session(error, words)


def _of_session(error: DBLensError, words: str) -> Cause:
    if "sent more than" in words:
        return "server"
    if isinstance(error, NotFound):
        return "missing_database"
    if any(mark in words for mark in _TLS) and not any(mark in words for mark in _STRANGE):
        return "tls"
    if isinstance(error, PermissionDenied) and "authentication failed" not in words and "no password" not in words:
        return "permission"
    if isinstance(error, (NotAuthenticated, PermissionDenied)) or any(mark in words for mark in _LOGIN):
        return "authentication"
    if any(mark in words for mark in _STRANGE):
        return "not_this_engine"
    if "(dns)" in words or "name or service not known" in words or "nameservers" in words or "dns " in words:
        return "dns"
    if "timeout expired" in words or "timed out" in words:
        return "timeout"
    if "connection refused" in words or "refuses connections" in words:
        return "tcp"
    if isinstance(error, Unsupported):
        return "server"
    if any(mark in words for mark in _BROKEN):
        return "not_this_engine"
    return "server"


_HINTS: Mapping[str, str] = {
    "permission": "ask the database's administrator for the right to connect",
    "authentication": "check user and password",
    "missing_database": "check the name of the database",
}
_TLS = ("certificate", "ssl error", "tls failed", "ssl handshake", "does not support ssl", "ssl is required", "ssl required",
        "server does not support ssl", "certificate_verify_failed", "tlsv1", "wrong_version_number", "ssl connection",
        "no pg_hba.conf entry", "ssl_error", "unexpected_eof")  # fmt: skip
_LOGIN = ("authentication failed", "no password supplied", "access denied", "authentication method requirement", "clear text",
          "password authentication", "server requested", "requirement \"scram", "not permitted to log in", "role \"", "authenticationfailed")  # fmt: skip
_STRANGE = ("wrong_version_number", "received invalid response", "expected authentication request", "packet sequence", "unknown protocol",
            "invalid literal", "not a mysql", "got unknown opcode", "unexpected opcode", "protocolerror", "message length",
            "received invalid", "packet length", "unpack", "lost synchronization", "invalid opcode", "index out of", "responseto",
            "maximum message size", "default max message", "null byte", "handshake packet")  # fmt: skip
_BROKEN = ("lost connection", "server closed the connection", "connection closed", "connection reset", "broken pipe", "no mongodb server",
           "server has gone away", "packet", "the greeting")  # fmt: skip


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _clean(text: str, secrets: Mapping[str, str], spec: ConnectionSpec) -> str:
    """Take every secret out of a text, whatever a server may have sent back."""
    for value in (*secrets.values(), *spec.secrets().values()):
        if len(value) > 3:
            text = text.replace(value, "***")
    return " ".join(text.split())[:1000]
