"""Where connections may go: hosts are resolved once, every address is checked, and only a checked address is dialled.

A name is never checked and then handed to a driver, which would resolve it again and might get another answer (DNS rebinding). The same
check serves databases, the SSH hop and webhooks.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import msgspec

from dblens.errors import ConnectionFailed, InvalidInput, PermissionDenied, TimedOut

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
RESOLVE_SECONDS = 5.0
CONNECT_SECONDS = 10.0
MOST_ADDRESSES = 16

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254", "169.254.170.2", "169.254.170.23",  # most clouds, container credentials
            "168.63.129.16", "100.100.100.200", "192.0.0.192",  # Azure, Alibaba, Oracle
            "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",  # Amazon, Google, Scaleway
        ),
    )
)  # fmt: skip
METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "metadata", "instance-data"})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SIXTOFOUR = ipaddress.IPv6Network("2002::/16")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
_THIS = ipaddress.IPv4Network("0.0.0.0/8")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a service lets its users reach.

    `extra_denied`: addresses, networks (`10.0.0.0/8`), `address:port` or `name:port` of the service itself and of its metadata database;
    `0.0.0.0:port` stands for that port on every address of this machine. `sqlite_roots`: folders that SQLite files must lie in, None for
    anywhere. `denied_files`: files that no connection may open (the metadata store, keys).
    """

    allow_loopback: bool = True
    allow_private: bool = True
    extra_denied: tuple[str, ...] = ()
    sqlite_roots: tuple[str, ...] | None = None
    denied_files: tuple[str, ...] = ()
    allow_sockets: bool = True


SINGLE_USER = Policy()
TEAM = Policy(allow_loopback=False, allow_private=False, sqlite_roots=(), allow_sockets=False)


def host_name(text: str) -> str:
    """Return a host in its one spelling: lower case, ASCII (IDNA), no trailing dot; IPv6 without brackets.

    Raises InvalidInput for what is no host name, for several hosts, and for IPv4 spelled as one number, in octal or in hexadecimal.
    """
    shown = text[:80]
    if "," in text:
        raise InvalidInput(f"several hosts in one: {shown!r}", hint="name one host; MongoDB takes more in `hosts`")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        try:
            if "%" in bare:  # a scope: only link-local addresses have one
                raise ValueError
            return str(ipaddress.IPv6Address(bare))
        except ValueError:
            raise InvalidInput(f"not a host: {shown!r}", hint="write the port in its own field, no scheme") from None
    try:
        # UTS 46 spellings (full-width digits, ideographic stops) become what a resolver would make of them.
        name = text.encode("idna").decode("ascii").lower() if not text.isascii() else text.lower()
    except UnicodeError:
        raise InvalidInput(f"not a host name: {shown!r}", hint="labels have 1 to 63 characters") from None
    name = name.removesuffix(".")
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"not a host name: {shown!r}", hint="letters, digits, '-' and '.', for example db.example.org"
        )
    try:
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        pass
    with contextlib.suppress(OSError):
        plain = socket.inet_ntoa(socket.inet_aton(name))
        raise InvalidInput(f"{shown!r} is an unusual spelling of an address", hint=f"write {plain}, if that is meant")
    if name.rpartition(".")[2].isdigit():
        raise InvalidInput(f"not a host name: {shown!r}", hint="a name does not end in a number")
    return name


def faces(address: Address) -> Iterator[Address]:
    """Yield an address and every IPv4 address that it may stand for (mapped, NAT64, 6to4, Teredo, compatible)."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if any(address in net for net in (_NAT64, _NAT64_LOCAL, _TRANSLATED)):
        yield low
    if address in _COMPATIBLE and int(address) > 1:
        yield low
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if (int(address) >> 32) & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE):  # ISATAP
        yield low


def refusal(address: Address, port: int, policy: Policy) -> str | None:
    """Return why an address is out of bounds, None when it is not."""
    for face in faces(address):
        why = _kind(face, policy) or _own(face, port, policy)
        if why is not None:
            return why
    return None


def _kind(face: Address, policy: Policy) -> str | None:
    if face in METADATA:
        return "a cloud's metadata service"
    if face.is_link_local:
        return "a link-local address"
    if face.is_unspecified or (isinstance(face, ipaddress.IPv4Address) and face in _THIS):
        return "the unspecified address"
    if face.is_multicast:
        return "a multicast address"
    if face.is_loopback:
        return None if policy.allow_loopback else "a loopback address"
    if isinstance(face, ipaddress.IPv6Address):
        # Its IPv4 face decides. Pythons differ in what they call 6to4: private since the fix of CVE-2024-4032, global before it.
        if face.ipv4_mapped is not None or any(face in net for net in (_NAT64_LOCAL, _NAT64, _COMPATIBLE, _SIXTOFOUR)):
            return None
        if face.is_site_local and not policy.allow_private:
            return "a private address"
    elif face == ipaddress.IPv4Address("255.255.255.255") or face.is_reserved:
        return "a reserved address"
    elif face in _SHARED and not policy.allow_private:
        return "a private address"
    return None if face.is_global or policy.allow_private else "a private address"


def _own(face: Address, port: int, policy: Policy) -> str | None:
    for entry in policy.extra_denied:
        host, entry_port = _entry(entry)
        if entry_port is not None and entry_port != port:
            continue
        try:
            network = ipaddress.ip_network(host, strict=False)
        except ValueError:
            if any(face == other for a in _quiet(host) for other in faces(a)):
                return "an address of this service"
            continue
        if face in network:
            return "an address that is denied here"
        if entry_port is None:
            continue
        first = network.network_address
        if (first.is_loopback and face.is_loopback) or (first.is_unspecified and (face.is_loopback or _is_ours(face))):
            return "an address of this service"
    return None


def _entry(entry: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]:port` or `network`."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, int(rest[1:]) if rest else None
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, int(port)
    return entry, None


def _is_ours(address: Address) -> bool:
    """Tell whether an address belongs to this machine; nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _quiet(name: str) -> Sequence[Address]:
    try:
        return lookup(name, RESOLVE_SECONDS)
    except (ConnectionFailed, TimedOut):
        return ()  # the service's own name resolves nowhere: no address can be it


def lookup(name: str, seconds: float) -> list[Address]:
    """Resolve a name to all its addresses within a time. Raises ConnectionFailed, TimedOut."""
    try:
        return [ipaddress.ip_address(name)]
    except ValueError:
        pass
    # The resolver of the C library has no time limit of its own that we could set: it answers into a queue, or too late.
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            answers.put([str(entry[4][0]).partition("%")[0] for entry in found])
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=ask, name="dblens-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.01, seconds))
    except queue.Empty:
        raise TimedOut(
            f"the name {name!r} was not resolved within {seconds:g} s (DNS)", hint="check the DNS server"
        ) from None
    if isinstance(answer, OSError):
        raise ConnectionFailed(
            f"the host name {name!r} is unknown (DNS)", hint="check its spelling and your DNS"
        ) from answer
    return [ipaddress.ip_address(text) for text in dict.fromkeys(answer)]


def check_host(host: str, port: int, policy: Policy, *, seconds: float = RESOLVE_SECONDS) -> tuple[str, ...]:
    """Resolve a host and check every address of it; return the addresses to connect to.

    Raises InvalidInput for what is no host, PermissionDenied for an address that is out of bounds (all of them must be within),
    ConnectionFailed or TimedOut when DNS does not answer.
    """
    name = host_name(host)
    if name in METADATA_NAMES:
        raise _denied(host, "a cloud's metadata service")
    addresses = lookup(name, seconds)
    for address in addresses:
        why = refusal(address, port, policy)
        if why is not None:
            raise _denied(host, why)
    return tuple(str(address) for address in addresses[:MOST_ADDRESSES])


def check_far_host(host: str) -> str:
    """Check a host that only the SSH server resolves: written as an address it must not be a metadata or link-local one."""
    name = host_name(host)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        why = "a cloud's metadata service" if name in METADATA_NAMES else None
    else:
        why = refusal(address, 0, Policy())
    if why is not None:
        raise _denied(host, why)
    return name


def _denied(host: str, why: str) -> PermissionDenied:
    # The resolved address is not told: a stranger could read our DNS out with it.
    return PermissionDenied(
        f"the host {host[:80]!r} leads to {why}, where this service does not connect",
        hint="name the database's own host; an administrator decides which networks are allowed",
    )


def dial(host: str, port: int, policy: Policy, *, seconds: float = CONNECT_SECONDS) -> socket.socket:
    """Open a TCP connection to a host after checking it. Raises as `check_host`, ConnectionFailed, TimedOut."""
    began = time.monotonic()
    addresses = check_host(host, port, policy, seconds=min(seconds, RESOLVE_SECONDS))
    return dial_checked(addresses, port, host, max(0.1, seconds - (time.monotonic() - began)))


def dial_checked(addresses: Sequence[str], port: int, shown: str, seconds: float) -> socket.socket:
    """Open a TCP connection to the first checked address that answers. Raises ConnectionFailed, TimedOut."""
    end = time.monotonic() + seconds
    last: OSError | None = None
    for index, address in enumerate(addresses):
        left = end - time.monotonic()
        if left <= 0:
            break
        try:
            made = socket.create_connection((address, port), timeout=max(0.05, left / (len(addresses) - index)))
        except OSError as error:
            last = error
            continue
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return made
    if last is None or isinstance(last, TimeoutError):
        raise TimedOut(
            f"no answer from {shown}:{port} within {seconds:g} s (TCP)", hint="check host, port and firewall"
        )
    if isinstance(last, ConnectionRefusedError):
        raise ConnectionFailed(
            f"{shown}:{port} refuses connections (TCP)", hint="is a server listening there? check host and port"
        ) from last
    raise ConnectionFailed(
        f"{shown}:{port} cannot be reached: {last.strerror or last} (TCP)", hint="check host and network"
    ) from last
