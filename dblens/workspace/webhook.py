"""Post to a webhook: signed, to an address that was checked, without following anybody elsewhere.

    X-DBLens-Event: run.ended
    X-DBLens-Delivery: <id>            the same when it is tried again
    X-DBLens-Timestamp: <seconds>
    X-DBLens-Signature: v1=<hexadecimal HMAC-SHA256 of `<seconds>.<body>` with the webhook's secret>

The name is resolved once, every address of it is checked, and one of these is dialled (`engines.access.guard`); TLS is for the name.
A receiver compares the signature in constant time and refuses what is older than some minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time

from dblens.engines.access import guard
from dblens.engines.access.guard import Policy
from dblens.errors import ConnectionFailed, InvalidInput, TimedOut
from dblens.redaction import Secret
from dblens.version import __version__
from dblens.workspace.setting_kinds import address

SECONDS = 10.0
"""How long a delivery may take in all, also from a receiver that answers a byte at a time."""
MOST = 65_536
"""Octets of an answer that are read, and thrown away."""


def signature(secret: Secret, seconds: int, body: bytes) -> str:
    """Return what proves that a body is ours and of that time."""
    made = hmac.new(secret.reveal().encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"v1={made.hexdigest()}"


def headers(secret: Secret, event: str, delivery: str, body: bytes, *, seconds: int) -> dict[str, str]:
    """Return the headers of a delivery."""
    return {
        "Content-Type": "application/json",
        "User-Agent": f"DBLens/{__version__}",
        "X-DBLens-Event": event,
        "X-DBLens-Delivery": delivery,
        "X-DBLens-Timestamp": str(seconds),
        "X-DBLens-Signature": signature(secret, seconds, body),
    }


def allowed(url: str, policy: Policy) -> None:
    """Look whether a webhook may lead there. A name that nobody knows now may be known later.

    Raises InvalidInput, PermissionDenied.
    """
    parts = address(url)
    if parts.scheme != "https" and not policy.allow_loopback:
        raise InvalidInput("url begins with http://", hint="https://: what is posted is nobody else's to read")
    try:
        guard.check_host(parts.hostname or "", parts.port or _PORTS[parts.scheme], policy)
    except (ConnectionFailed, TimedOut):
        return


_PORTS = {"https": 443, "http": 80}


def post(url: str, body: bytes, told: dict[str, str], policy: Policy, *, seconds: float = SECONDS) -> int:
    """Post once and return the status of the answer, a redirect's too: nobody is followed.

    Raises InvalidInput, PermissionDenied for a host that is out of bounds, ConnectionFailed, TimedOut.
    """
    parts = address(url)
    if parts.scheme != "https" and not policy.allow_loopback:
        raise InvalidInput("url begins with http://", hint="https://: what is posted is nobody else's to read")
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    end = time.monotonic() + seconds
    dialled = guard.dial(host, port, policy, seconds=seconds)
    late = threading.Event()

    def give_up() -> None:
        late.set()
        try:
            dialled.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it ended by itself meanwhile

    dialled.settimeout(max(0.05, end - time.monotonic()))
    watch = threading.Timer(max(0.05, end - time.monotonic()), give_up)
    watch.daemon = True
    watch.start()
    shown = f"{host}:{port}"
    try:
        link = dialled
        if parts.scheme == "https":
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # In two steps, so that `give_up` reaches the socket while the handshake is going on.
            link = dialled = context.wrap_socket(dialled, server_hostname=host, do_handshake_on_connect=False)
            link.do_handshake()
        asked = http.client.HTTPConnection(host, port)
        asked.sock = link
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        asked.request("POST", target, body=body, headers={**told, "Host": parts.netloc, "Connection": "close"})
        answer = asked.getresponse()
        answer.read(MOST)
        return answer.status
    except ssl.SSLCertVerificationError as error:
        raise ConnectionFailed(
            f"the certificate of {shown} is not valid: {error.verify_message} (TLS)",
            hint="give the receiver a right one",
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise TimedOut(f"{shown} did not answer within {seconds:g} s", hint="answer first, work later") from None
        raise ConnectionFailed(
            f"{shown} broke off: {type(error).__name__}", hint="is it an HTTP server that takes POST?"
        ) from None
    finally:
        watch.cancel()
        dialled.close()
