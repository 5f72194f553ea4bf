"""What the command line says of a way to a database: a URL, fields, secrets. No secret is an argument, because every process sees those."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from dblens.cli import passwords
from dblens.errors import InvalidInput, NotFound
from dblens.redaction import Secret

_NUMBERS, _FLAGS, _LISTS = ("port", "tunnel.port"), ("srv",), ("hosts",)


def read_way(
    url: str | None,
    url_env: str | None,
    fields: str | None,
    set_: list[str] | None,
    password_env: str | None,
    password_file: str | None,
    references: list[str] | None,
    secret_files: list[str] | None,
) -> dict[str, Any]:
    """Return what the command line says of a way: fields, secrets, references. Raises InvalidInput, NotFound."""
    if [url, url_env, fields].count("-") + [password_file].count("-") > 1:
        raise InvalidInput("stdin is read once", hint="name a file or a variable for one of them")
    if sum(given is not None for given in (url, url_env, fields)) > 1:
        raise InvalidInput("there are several ways", hint="one of --url, --url-env, --fields")
    kept, named = read_secrets(password_env, password_file, references, secret_files)
    found: dict[str, Any] = {}
    if fields is not None:
        found = read_json(read_text(fields), fields)
        if not isinstance(found, dict):
            raise InvalidInput(f"{fields} holds no object", hint='{"engine": "postgresql", "host": …}')
    elif url is not None or url_env is not None:
        found, inside = _from_url(url, url_env)
        if inside is not None and ("password" in kept or "password" in named):
            raise InvalidInput("the password is given twice", hint="within the URL, or beside it")
        kept |= {} if inside is None else {"password": inside}
    found = _merged(found, read_fields(set_))
    if not found:
        raise InvalidInput("there is no way to the database", hint="--url scheme://user@host:port/database")
    if found.get("user") and "password" not in kept and "password" not in named:
        asked = _ask(found)
        kept |= {} if asked is None else {"password": asked}
    return {"fields": found, "secrets": kept, "references": named}


def _from_url(url: str | None, variable: str | None) -> tuple[dict[str, Any], Secret | None]:
    """Return the fields of a URL and its password, which is not accepted from the command line. Raises InvalidInput."""
    from dblens.engines.access.spec import from_url

    seen = url is not None and url != "-"
    if variable is not None:
        if variable not in os.environ:
            raise InvalidInput(f"the variable {variable} with the URL is not set", hint=f"export {variable} first")
        text = os.environ[variable]
    else:
        text = read_text("-").strip() if url == "-" else url or ""
    if "://" not in text and text.endswith((".db", ".sqlite", ".sqlite3")):
        text = f"sqlite:///{text}"
    spec, password = from_url(text)
    if password is not None and seen:
        raise InvalidInput(
            "the URL holds a password, and every process of this machine can see it",
            hint="leave it out: you are asked for it, or name --password-env, --password-file, --url-env, --secret; change it now",
        )
    if password is not None:
        passwords.remember(password)
    return spec.export(), None if password is None else Secret(password)


def read_secrets(
    password_env: str | None,
    password_file: str | None,
    references: list[str] | None,
    secret_files: list[str] | None,
) -> tuple[dict[str, Secret], dict[str, str]]:
    """Return secrets to keep and references to them, by name. Raises InvalidInput, NotFound."""
    kept: dict[str, Secret] = {}
    named: dict[str, str] = {}
    if password_env is not None and password_file is not None:
        raise InvalidInput("the password is given twice", hint="--password-env or --password-file")
    if password_env is not None:
        if password_env not in os.environ:
            raise InvalidInput(f"the variable {password_env} is not set", hint=f"export {password_env} first")
        kept["password"] = Secret(os.environ[password_env])
    if password_file is not None:
        kept["password"] = _secret(password_file)
    for text in secret_files or ():
        name, path = _pair(text, "--secret-file", "NAME=FILE")
        kept[name] = _secret(path)
    for text in references or ():
        name, reference = _pair(text, "--secret", "NAME=REFERENCE, for example password=env:PGPASSWORD")
        if reference.partition(":")[0] not in ("env", "file", "keyring", "vault"):
            raise InvalidInput(
                "--secret takes a reference, because every process of this machine can see the command line",
                hint="password=env:VAR, file:/path, keyring:service/name, vault:mount/path#field; or --password-file",
            )
        named[name] = reference
    if twice := sorted(set(kept) & set(named)):
        raise InvalidInput(f"{twice[0]} is given twice", hint="a secret or a reference to one")
    for secret in kept.values():
        passwords.remember(secret.reveal())
    return kept, named


def _secret(path: str) -> Secret:
    return Secret(read_text(path).removesuffix("\n").removesuffix("\r"))


def _ask(fields: dict[str, Any]) -> Secret | None:
    """Ask a person for the password; nobody else is asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    import getpass

    where = fields.get("host") or fields.get("socket") or ""
    found = getpass.getpass(f"Password of {fields['user']}@{where}/{fields.get('database') or ''} (empty: none): ")
    if found:
        passwords.remember(found)
    return Secret(found) if found else None


def read_text(path: str) -> str:
    """Return what a file or, for `-`, stdin holds. Raises NotFound, InvalidInput."""
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", hint="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {type(error).__name__}") from None


def read_json(text: str, place: str) -> Any:
    """Return the value of a JSON text. Raises InvalidInput."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInput(f"{'stdin' if place == '-' else place} is no JSON") from None


def read_fields(pairs: list[str] | None) -> dict[str, Any]:
    """Return the fields that `--set` names; a dot leads into one."""
    found: dict[str, Any] = {}
    for text in pairs or ():
        field, value = _pair(text, "--set", "FIELD=VALUE, for example port=5433")
        put(found, field, _value(field, value))
    return found


def _value(field: str, text: str) -> Any:
    if text.startswith("@"):
        return read_text(text[1:])
    if field in _NUMBERS and text.isascii() and text.isdigit():
        return int(text)
    if field in _FLAGS and text in ("true", "false"):
        return text == "true"
    return text.split(",") if field in _LISTS else text


def put(into: dict[str, Any], field: str, value: object) -> None:
    """Put a value where a dotted name says. Raises InvalidInput."""
    first, dot, rest = field.partition(".")
    if not dot:
        into[first] = value
        return
    below = into.setdefault(first, {})
    if not isinstance(below, dict):
        raise InvalidInput(f"--set {field}: {first} is set already")
    if first == "options":
        below[rest] = value
    else:
        put(below, rest, value)


def _merged(before: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    made = dict(before)
    for name, value in more.items():
        below = made.get(name)
        made[name] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return made


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise InvalidInput(f"{option} takes {form}")
    return name, value
