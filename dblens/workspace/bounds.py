"""What this process may reach: the policy of hosts, sockets and files, and of references, as the settings say. No door.

Whatever they say, DBLens does not connect to itself: its store's server, its own address, its store's file and its keys are out of bounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from dblens.engines.access import guard
from dblens.engines.access.guard import Policy
from dblens.engines.access.spec import PORTS
from dblens.errors import InvalidInput
from dblens.settings import Settings
from dblens.store import references
from dblens.store.hashicorp import HashiCorp

_SOCKET_FOLDERS = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - where a server without a host listens
_vaults: dict[str, HashiCorp] = {}


def policy(settings: Settings) -> Policy:
    """Return what connections may reach. Raises InvalidInput for a denied host that is none."""
    team = settings.mode == "team"
    base = guard.TEAM if team else guard.SINGLE_USER
    roots = tuple(map(str, settings.sqlite_roots))
    ours, files = _store(settings.store_url)
    denied = [_denied(entry) for entry in settings.denied_hosts]
    return msgspec.structs.replace(
        base,
        allow_loopback=_or(settings.reach_loopback, base.allow_loopback),
        allow_private=_or(settings.reach_private, base.allow_private),
        allow_sockets=_or(settings.reach_sockets, base.allow_sockets),
        sqlite_roots=roots if roots or team else base.sqlite_roots,
        extra_denied=(*ours, _place(settings.host, settings.port), *denied),
        denied_files=(*files, *_files(settings)),
    )


def reference_policy(settings: Settings) -> references.Policy:
    """Return which references are resolved, with HashiCorp Vault when the environment names one. Raises InvalidInput."""
    return references.policy(settings, _vault(settings))


def _vault(settings: Settings) -> HashiCorp | None:
    """Make the right to read from Vault, once.

    A service takes it out of its environment, so that no child inherits it. On a laptop the variables are the person's: other
    programs of theirs read them too, and an address without a token is no mistake until something is asked for.
    """
    address = os.environ.get("VAULT_ADDR", "")
    if settings.mode == "team":
        if address in _vaults:
            return _vaults[address]
        made = HashiCorp.from_environment()
        if made is not None:
            _vaults[address] = made
        return made
    try:
        return HashiCorp.from_environment(dict(os.environ))
    except InvalidInput:
        return None


def _or(given: bool | None, default: bool) -> bool:
    return default if given is None else given


def _store(url: str) -> tuple[list[str], list[str]]:
    """Return where the store's server is, as places and as socket folders; or its file."""
    if url.startswith("sqlite:///"):
        return [], [str(Path(url.removeprefix("sqlite:///")).absolute())]
    parts = urlsplit(url)
    asked = parse_qsl(parts.query)
    ports = [port for name, value in asked if name == "port" for port in value.split(",")]
    named = [host for name, value in asked if name in ("host", "hostaddr") for host in value.split(",")]
    places: list[str] = []
    folders: list[str] = []
    for at, entry in enumerate([*named, *parts.netloc.rpartition("@")[2].split(",")]):
        if not entry and named:
            continue
        host, port = _split(entry)
        port = port or ports[min(at, len(ports) - 1)] if ports else port
        if host.startswith("/") or not host:
            folders += [host] if host else _SOCKET_FOLDERS
            host = "127.0.0.1"  # the same server may listen there too
        places.append(_place(host, int(port or PORTS["postgresql"])))
    return places, folders


def _split(entry: str) -> tuple[str, str]:
    """Split `host:port` or `[v6]:port`; a host may be a folder, and a bare IPv6 address has no port."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    if entry.startswith("/") or entry.count(":") != 1:
        return entry, ""
    host, _, port = entry.partition(":")
    return host, port


def _place(host: str, port: int) -> str:
    """Return `host:port` as the guard reads it. A name of this machine stands for its whole loopback network."""
    if host in ("", "localhost", "*"):
        host = "127.0.0.1" if host == "localhost" else "0.0.0.0"  # noqa: S104 - compared, not listened on
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _files(settings: Settings) -> Iterator[str]:
    """Yield the files and sockets that are ours."""
    for path in (
        settings.kek_file,
        settings.audit_key_file,
        settings.signing_key_file,
        settings.token_file,
        settings.socket,
    ):
        if path is not None:
            yield str(path)
    for name in ("kek", "audit-key", "signing-key", "local-secret", "store.sqlite"):
        yield str(settings.data_folder / name)


def _denied(entry: str) -> str:
    """Check a denied host, address or network, now and not with the first connection. Raises InvalidInput."""
    host, _, port = entry.rpartition(":") if entry.count(":") == 1 or "]:" in entry else (entry, "", "1")
    try:
        if not 0 < int(port) < 65536:
            raise ValueError
        if "/" in host:
            ip_network(host, strict=False)
        else:
            guard.host_name(host)
    except (InvalidInput, ValueError):
        raise InvalidInput(
            f"denied_hosts: {entry!r} is no host", hint="10.0.0.0/8, 192.0.2.7, db.example.org, name:port"
        ) from None
    return entry
