"""What names a service and opens it: an address in one spelling, and a token that fits into a header."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from dblens.errors import InvalidInput
from dblens.redaction import Secret

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


def address(url: str) -> str:
    """Return a service's address as it is kept and compared: no password, no query, no slash at its end. Raises InvalidInput."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidInput("the service's address is no URL", hint="like https://dblens.example.org")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInput(
            "the service's address holds more than an address",
            hint="no name, password, query or fragment: `dblens login` asks for the password",
        )
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}{f':{port}' if port and port != default else ''}{parts.path.rstrip('/')}"


def on_this_machine(url: str) -> bool:
    """Return whether an address is of this very machine: no proxy can reach it, and nobody else hears it."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def plain(url: str) -> bool:
    """Return whether what is sent to an address can be read on the way."""
    return url.startswith("http://") and not on_this_machine(url)


def whole_token(text: str, what: str) -> Secret:
    """Return a token that fits into a header. Raises InvalidInput, without showing it."""
    if not _TOKEN.fullmatch(text):
        raise InvalidInput(f"{what} holds no token", hint="a token is one line without spaces")
    return Secret(text)
