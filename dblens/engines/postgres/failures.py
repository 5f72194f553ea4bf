"""psycopg's errors as DBLens errors: what failed, with the server's words, and what to do next."""

from __future__ import annotations

import psycopg

from dblens.engines.base import Url
from dblens.errors import (
    Cancelled,
    Conflict,
    ConnectionFailed,
    DBLensError,
    EngineError,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)


def connect_failure(error: BaseException, url: Url) -> DBLensError:
    """Return the DBLens error for a failed connection attempt.

    libpq gives no SQLSTATE before the connection stands, so its words decide; servers that speak another language fall to the
    general case, which still shows them.
    """
    text = " ".join(str(error).split())
    where = f"{url.host or 'local socket'}:{url.port or 5432}"
    low = text.lower()
    if "does not exist" in low and "database" in low:
        return NotFound(
            f"the database {url.database!r} does not exist on {where}",
            hint="check the name, or let DBLens make it with --create-target",
        )
    if "permission denied for database" in low or "is not permitted to log in" in low:
        return PermissionDenied(
            f"{url.user or 'this user'} may not connect to {url.database!r} on {where}: {_tail(text)}"
        )
    if "authentication failed" in low or "no password supplied" in low:
        return PermissionDenied(
            f"PostgreSQL at {where} refused {url.user or 'the user'!r}: authentication failed ({_tail(text)})",
            hint="check user and password; they come from the prompt, --…-password-env or ~/.pgpass",
        )
    cause, hint = _cause(low, where)
    return ConnectionFailed(f"cannot connect to PostgreSQL at {where}: {cause} ({_tail(text)})", hint=hint)


def _cause(low: str, where: str) -> tuple[str, str]:
    if "no pg_hba.conf entry" in low:
        return (
            "the server does not let this user in from here",
            "ask for an entry in its pg_hba.conf, or use sslmode=require",
        )
    if "role" in low and "does not exist" in low:
        return "there is no such user", "check the user in the URL"
    if "could not translate host name" in low or "name or service not known" in low or "failed to resolve host" in low:
        return "the host name is unknown (DNS)", "check the host in the URL"
    if "connection refused" in low:
        return "the port refuses connections (TCP)", f"is a server listening on {where}? check host and port"
    if "timeout expired" in low or "timed out" in low:
        return "no answer in time", "check host, port and firewall, or raise connect_timeout in the URL"
    if "no route to host" in low or "network is unreachable" in low:
        return "the host cannot be reached", "check host and network"
    if "ssl" in low or "certificate" in low or "tls" in low:
        return "TLS failed", "check sslmode and sslrootcert in the URL; DBLens never skips a check that was asked for"
    if "too many clients" in low or "remaining connection slots" in low or "too many connections" in low:
        return "the server has no free connection", "wait, lower --jobs, or raise max_connections"
    if "starting up" in low or "shutting down" in low or "recovery" in low:
        return "the server is not ready", "try again in a moment"
    return "the server or the network refused", "read the server's words above"


def _tail(text: str) -> str:
    """Return libpq's words without the repeated address in front."""
    for mark in ("FATAL:", "ERROR:", "failed: "):
        if mark in text:
            return text.rpartition(mark)[2].strip()
    return text


_HINTS = {
    "53100": "free disk space on the server, then resume",
    "53200": "the server is out of memory or of lock slots: lower --jobs, or raise max_locks_per_transaction",
    "53300": "lower --jobs, or raise max_connections",
    "42501": None,
    "2BP01": "drop or change what depends on it first",
    "40001": "try again",
    "40P01": "try again",
}


def failure(error: psycopg.Error, what: str, *, broken: bool = False) -> DBLensError:
    """Return the DBLens error for a failed statement. `broken`: the connection is gone."""
    state = error.sqlstate or ""
    diag = error.diag
    said = " ".join((diag.message_primary or str(error) or type(error).__name__).split())
    if diag.message_detail and state != "28P01":
        said += f" ({' '.join(diag.message_detail.split())[:300]})"
    context = f" [{' '.join(diag.context.split())[:200]}]" if diag.context and state[:2] in ("22", "23") else ""
    message = f"{what}: {said}{context}"
    if state == "57014":
        if "statement timeout" in said:
            return TimedOut(message, hint="give it more time, or look at what it waits for")
        return Cancelled(message)
    if state == "55P03":
        return TimedOut(message, hint="another session holds a lock on the table: let it end, then try again")
    if broken or state[:2] == "08" or state in ("57P01", "57P02", "57P03"):
        return ConnectionFailed(f"the connection broke during {message}", hint="check server and network, then resume")
    if state == "42501":
        return PermissionDenied(message, hint="let the owner grant it to this user")
    if state in ("3D000", "3F000", "42P01"):
        return NotFound(message)
    if state in ("42P04", "42P06", "42P07", "42710", "2BP01", "55006"):
        return Conflict(message, hint=_HINTS.get(state))
    if state[:2] in ("53", "58", "XX"):
        return EngineError(message, hint=_HINTS.get(state, "look into the server's log"))
    return QueryFailed(message, hint=_HINTS.get(state) or diag.message_hint)
