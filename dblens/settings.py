"""How this process is set up: one frozen `Settings`, from the environment (`DBLENS_STORE_URL`) and one TOML file (`store_url = …`).

The environment wins over the file. The file is what `DBLENS_CONFIG` names, else `dblens/config.toml` under `$XDG_CONFIG_HOME`
(`~/.config`) when it exists. What administrators change while the service runs lies in the store (`dblens.store.settings`).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from dblens.errors import InvalidInput
from dblens.redaction import Secret

PREFIX = "DBLENS_"
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):.*(?=@)", re.DOTALL)
_IN_QUERY = re.compile(r"(?<=[?&]password=)[^&]*")
_KEPT_IN_ENVIRONMENT = {"token"}  # every kernel and command of a user needs it; a key must not reach child processes
_taken: dict[str, str] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=False):
    """How this process is set up. In the environment each field is `DBLENS_` and its name in capitals."""

    store_url: str
    """Where the store lies: sqlite:///file or postgresql://user@host/database."""
    mode: Literal["single", "team"] = "single"
    """Alone on a laptop, or a service that holds other people's credentials and asks for everything explicitly."""
    data_folder: Path
    """Where files lie that belong to the store's owner: keys, uploads."""

    kek: Secret | None = None
    """The key-encryption keys, the newest first; from the environment they are taken away, so that no child sees them."""
    kek_file: Path | None = None
    kek_keyring: str | None = None
    """The name of the keyring's entry."""
    audit_key: Secret | None = None
    audit_key_file: Path | None = None
    signing_key_file: Path | None = None

    url: str | None = None
    """The service that the client talks to; without it the workspace is in this process."""
    token: Secret | None = None
    token_file: Path | None = None
    """A file that only its owner can read, for the client; without both it is the login made by `dblens login`."""
    organization: str | None = None
    """The organization that the client works in, by id or slug; without it the token's own, or the current one."""

    host: str = "127.0.0.1"
    port: int = 8503
    socket: Path | None = None
    public_url: str | None = None
    """What links in e-mails begin with: never taken from a request."""
    trusted_proxies: tuple[str, ...] = ()
    sqlite_roots: tuple[Path, ...] = ()
    """Folders in which SQLite databases may lie."""
    reach_loopback: bool | None = None
    """Whether connections may lead to this machine; unless it is said, alone on a laptop they may, in team mode not."""
    reach_private: bool | None = None
    """Whether they may lead into private networks (10.0.0.0/8 and the like); unless it is said, by the mode as above."""
    reach_sockets: bool | None = None
    """Whether they may use Unix sockets of this machine; unless it is said, by the mode as above."""
    denied_hosts: tuple[str, ...] = ()
    """Hosts, addresses, networks or `host:port` that no connection may lead to. DBLens itself is always among them."""
    references: tuple[str, ...] = ()
    """Secrets by reference that are allowed in team mode: `env:SHOP_*`, `file:/run/secrets/*`, `vault:shop/*`."""

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return f"Settings({', '.join(f'{name}={_hidden(value)!r}' for name, value in shown)})"

    def __rich_repr__(self) -> Any:
        for name in self.__struct_fields__:
            yield name, _hidden(getattr(self, name))


def load(environ: MutableMapping[str, str] | None = None) -> Settings:
    """Read the environment and the file. Raises InvalidInput, which names the key that is wrong, never a secret's value.

    Keys are taken out of the environment, because every child process would inherit them.
    """
    environ = os.environ if environ is None else environ
    file = _file(environ)
    given: dict[str, Any] = _from_file(file) if file is not None else {}
    for name in Settings.__struct_fields__:
        if (value := _from_environment(environ, name)) is not None:
            given[name] = value
    given.setdefault("data_folder", str(_folder(environ, "XDG_DATA_HOME", ".local/share")))
    given.setdefault("store_url", f"sqlite:///{Path(given['data_folder'])}/store.sqlite")
    return _made(given)


def _made(given: dict[str, Any]) -> Settings:
    fields: dict[str, Any] = {}
    for name, kind in get_type_hints(Settings).items():
        if name not in given:
            continue
        try:
            fields[name] = msgspec.convert(given[name], kind, strict=False, dec_hook=_special)
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            what = str(error).replace("`", "'")
            raise InvalidInput(
                f"{name} is not right: {what}", hint=f"{PREFIX}{name.upper()}, or {name} in the file"
            ) from None
    return Settings(**fields)


def _special(kind: type, value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text")
    if kind is Secret:
        return Secret(value)
    if kind is Path:
        path = Path(value).expanduser()
        if not path.is_absolute():
            raise ValueError("expected an absolute path")
        return path
    raise TypeError(f"no way to read {kind}")


def _from_environment(environ: MutableMapping[str, str], name: str) -> Any:
    key = PREFIX + name.upper()
    hints = str(get_type_hints(Settings)[name])
    if "Secret" in hints and name not in _KEPT_IN_ENVIRONMENT:
        value = environ.pop(key, None)
        if environ is os.environ:  # asked again in this process, the answer is the same
            value = _taken.get(key) if value is None else _taken.setdefault(key, value)
    else:
        value = environ.get(key)
    if value is None or value == "":
        return None
    return [part.strip() for part in value.split(",") if part.strip()] if "tuple" in hints else value


def _file(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("DBLENS_CONFIG"):
        path = Path(named).expanduser()
        if not path.is_file():
            raise InvalidInput(f"no file {path}", hint="DBLENS_CONFIG names it")
        return path
    path = _folder(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"
    return path if path.is_file() else None


def _folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    given = environ.get(variable, "")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return (Path(given) if given.startswith("/") else home / below_home) / "dblens"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # The parser's own words, without the line: it may hold a password.
        raise InvalidInput(
            f"{path} cannot be read: {type(error).__name__}: {_place(error)}", hint="it is TOML"
        ) from None
    for key in given:
        if key not in Settings.__struct_fields__:
            near = difflib.get_close_matches(key, Settings.__struct_fields__, 1)
            known = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(Settings.__struct_fields__)}"
            raise InvalidInput(f"{path}: unknown key {key!r}", hint=known)
    hidden = [name for name, kind in get_type_hints(Settings).items() if name in given and "Secret" in str(kind)]
    if _hidden(given.get("store_url")) != given.get("store_url"):
        hidden.append("store_url")
    if hidden and path.stat().st_mode & 0o077:
        raise InvalidInput(f"{path} holds {hidden[0]} and can be read by others", hint=f"chmod 600 {path}")
    return given


def _place(error: Exception) -> str:
    found = re.search(r"\(at line \d+, column \d+\)", str(error))
    return found[0].strip("()") if found else getattr(error, "strerror", None) or "not TOML in UTF-8"


def _hidden(value: object) -> object:
    """Return a value to show: of a URL without its password, also one with characters that it should have escaped."""
    return _PASSWORD.sub(r"\1:***", _IN_QUERY.sub("***", value)) if isinstance(value, str) else value
