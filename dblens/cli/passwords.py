"""Where passwords come from: a variable or a file that is named, ~/.pgpass, ~/.my.cnf, a prompt. Never the command line.

A command line is seen by every process of the machine, so a password as an option's value or in a URL is refused (the URL by
`dblens.engines.address.parse`, unless `--allow-password-in-url`). What was found is remembered, to be cut out of error messages.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from dblens.engines.address import parse
from dblens.engines.base import Url
from dblens.errors import InvalidInput, NotFound

_known: set[str] = set()


class Given(msgspec.Struct, frozen=True):
    """What the command line says about one side's password: `env` names a variable, `file` is `@path`."""

    env: str | None = None
    file: str | None = None


def address(text: str, side: str, given: Given = Given(), *, allow_in_url: bool = False) -> tuple[Url, str | None]:
    """Return the address and the password of one side (`source`, `target`).

    Raises InvalidInput for a bad URL, a password in the URL that is not allowed, or a source that does not give one.
    """
    url, inside = parse(text, allow_password=allow_in_url)
    password = resolve(url, side, given) if inside is None else inside
    if password:
        _known.add(password)
    return url, password


def resolve(url: Url, side: str, given: Given = Given()) -> str | None:
    """Return the password for an address, None when there is none to find. Raises InvalidInput, NotFound."""
    if given.env is not None:
        return _from_env(given.env, side)
    if given.file is not None:
        return _from_file(given.file, side)
    if url.host is None and url.user is None:
        return None
    finder = _FILES.get(url.scheme)
    found = finder(url) if finder else None
    if found is not None:
        return found
    return _ask(url, side) if url.user else None


def remember(password: str) -> None:
    """Cut a password out of every message from now on."""
    _known.add(password)


def scrub(text: str) -> str:
    """Return a text without any password that this process was given (short ones would cut up ordinary words)."""
    for password in _known:
        if len(password) >= 4:
            text = text.replace(password, "***")
    return text


def _from_env(name: str, side: str) -> str:
    if name not in os.environ:
        raise InvalidInput(
            f"the variable {name} for the {side} password is not set",
            hint=f"export {name} first, then run the same command",
        )
    return os.environ[name]


def _from_file(text: str, side: str) -> str:
    if not text.startswith("@"):
        raise InvalidInput(
            f"the {side} password is given on the command line, where every process can see it",
            hint=f"put it in a file and say @path, or name a variable with --{side}-password-env",
        )
    path = Path(text[1:]).expanduser()
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no such password file: {path}", hint="the path follows the @") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the password file {path} cannot be read: {type(error).__name__}") from None
    return content.removesuffix("\n").removesuffix("\r")


def _ask(url: Url, side: str) -> str | None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    import getpass

    host = f"@{url.host}" if url.host else ""
    return getpass.getpass(f"Password for {side} {url.user}{host}/{url.database or ''} (empty: none): ") or None


# --------------------------------------------------------------------------------------------------------- password files


def _pgpass(url: Url) -> str | None:
    """Look an address up in ~/.pgpass or $PGPASSFILE: host:port:database:user:password, `*` matches all, backslash escapes."""
    path = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
    try:
        if path.stat().st_mode & 0o077:
            return None  # libpq ignores a file that others can read, and so do we
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    wanted = (url.host or "localhost", str(url.port or 5432), url.database or "", url.user or "")
    for line in content.splitlines():
        if line.startswith("#"):
            continue
        fields = _split(line)
        if len(fields) == 5 and all(f in ("*", w) for f, w in zip(fields, wanted, strict=False)):
            return fields[4]
    return None


def _split(line: str) -> list[str]:
    fields, escaped = [""], False
    for char in line:
        if escaped or char not in ":\\":
            fields[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif len(fields) < 5:
            fields.append("")
        else:
            fields[-1] += char
    return fields


def _mycnf(url: Url) -> str | None:
    """Look an address up in ~/.my.cnf: the password of [client] and its kin, when host, port and user there do not contradict."""
    path = Path.home() / ".my.cnf"
    parser = configparser.ConfigParser(
        allow_no_value=True, strict=False, interpolation=None, comment_prefixes=("#", ";")
    )
    try:
        if path.stat().st_mode & 0o022:
            return None  # the server's own clients ignore a file that others can write
        text = path.read_text(encoding="utf-8")
        parser.read_string("\n".join(line for line in text.splitlines() if not line.startswith("!")))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return None
    found: dict[str, str] = {}
    for section in ("client", "client-server", "client-mariadb", "mysql"):
        if parser.has_section(section):
            found.update({k.replace("_", "-"): _unquoted(v) for k, v in parser.items(section) if v is not None})
    said = {"host": url.host or "localhost", "port": str(url.port or 3306), "user": url.user or ""}
    if any(found.get(name, value) != value for name, value in said.items()):
        return None
    return found.get("password")


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    result, escaped = "", False
    for char in value:
        if escaped:
            result += {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "s": " "}.get(char, char)
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            result += char
    return result


_FILES: dict[str, Callable[[Url], str | None]] = {
    "postgresql": _pgpass,
    "postgres": _pgpass,
    "mysql": _mycnf,
    "mariadb": _mycnf,
}
"""Password files by URL scheme, as the engines' own clients read them."""
