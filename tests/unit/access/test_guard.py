"""Where connections may go: hostile hosts, every spelling of an address, and answers of DNS that change."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dblens.engines.access import guard
from dblens.engines.access.guard import SINGLE_USER, TEAM, Policy, check_far_host, check_host, dial, host_name
from dblens.errors import ConnectionFailed, InvalidInput, PermissionDenied, TimedOut

ALWAYS = [  # refused whatever the policy
    "169.254.169.254", "169.254.170.2", "169.254.1.1", "fe80::1", "168.63.129.16", "100.100.100.200", "192.0.0.192",
    "fd00:ec2::254", "[fd00:ec2::254]", "fd20:ce::254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::169.254.169.254",
    "64:ff9b:1::a9fe:a9fe", "::169.254.169.254", "2002:a9fe:a9fe::1", "fe80::5efe:a9fe:a9fe", "2001:0:a9fe:a9fe::1",
    "0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "255.255.255.255", "240.0.0.1", "224.0.0.1", "ff02::1",
    "metadata.google.internal", "METADATA.GOOGLE.INTERNAL.", "１６９.２５４.１６９.２５４", "169。254。169。254",
]  # fmt: skip
SPELLED = [  # no host at all, or one spelled so that others would read it differently
    "2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0xa9fea9fe", "2852039166", "169.254.43518",
    "010.0.0.1", "1.2.3.4.5", "127.0.0.1.", "256.1.1.1", "a,b", "127.0.0.1,169.254.169.254", "good.example, evil.example",
    "http://169.254.169.254", "http://host/", "host/path", "user@host", "host:5432", "[::1]:5432", "host name", "host\n", "host\0.example",
    "-oProxyCommand=id", "", ".", "..", "a..b", "ex ample", "host%00", "fe80::1%eth0", "host\\evil", "host?x", "host#x", "'host'",
    "host=evil", "%2Fvar%2Frun", "/var/run/postgresql", "x" * 64, ".".join(["x" * 60] * 5), "host..", "①②⑦.①",
]  # fmt: skip
TEAM_ONLY = [
    "127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "::127.0.0.1", "localhost",
    "LOCALHOST.", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1", "198.18.0.1", "fec0::1", "192.0.2.1", "64:ff9b:1::c0a8:101",
]  # fmt: skip


@pytest.mark.parametrize("host", ALWAYS)
@pytest.mark.parametrize("policy", [SINGLE_USER, TEAM], ids=["single", "team"])
def test_never(host: str, policy: Policy) -> None:
    with pytest.raises(PermissionDenied) as caught:
        check_host(host, 5432, policy)
    assert caught.value.hint


@pytest.mark.parametrize("host", SPELLED)
def test_not_one_host(host: str) -> None:
    if host == "127.0.0.1.":  # a trailing dot is one spelling more
        assert host_name(host) == "127.0.0.1"
        return
    with pytest.raises(InvalidInput) as caught:
        check_host(host, 5432, SINGLE_USER)
    assert caught.value.hint


@pytest.mark.parametrize("host", TEAM_ONLY)
def test_denied_in_a_team(host: str) -> None:
    with pytest.raises(PermissionDenied):
        check_host(host, 5432, TEAM)
    assert check_host(host, 5432, SINGLE_USER)


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_public_addresses_pass(host: str) -> None:
    assert check_host(host, 5432, TEAM) == (str(ipaddress.ip_address(host)),)


def answers(monkeypatch: pytest.MonkeyPatch, *rounds: list[str]) -> list[str]:
    """Let DNS answer so, one list a question, the last one for ever; return the names that were asked."""
    asked: list[str] = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        found = rounds[min(len(asked), len(rounds) - 1)]
        asked.append(host)
        return [(0, 0, 0, "", (address, 0)) for address in found]

    monkeypatch.setattr(guard.socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("bad", ["169.254.169.254", "10.0.0.7", "::ffff:127.0.0.1", "fd00:ec2::254", "fe80::1%2"])
def test_one_bad_address_among_good_ones_is_enough(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    answers(monkeypatch, ["8.8.8.8", "8.8.4.4", bad])
    with pytest.raises(PermissionDenied) as caught:
        check_host("db.example.org", 5432, TEAM)
    assert bad.partition("%")[0] not in str(caught.value), "a stranger could read our DNS out"


def test_the_name_is_asked_once_and_the_checked_address_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, ["8.8.8.8"], ["169.254.169.254"])
    dialled: list[object] = []

    def create_connection(address: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(address)
        return socket.socket()

    monkeypatch.setattr(guard.socket, "create_connection", create_connection)
    dial("rebind.example.org", 5432, TEAM).close()
    assert asked == ["rebind.example.org"]
    assert dialled == [("8.8.8.8", 5432)]
    with pytest.raises(PermissionDenied):  # the next connection sees the new answer, and it is checked again
        dial("rebind.example.org", 5432, TEAM)
    assert len(dialled) == 1


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("127.0.0.1:{port}", "127.0.0.1"),
        ("127.0.0.1:{port}", "127.0.0.2"),
        ("127.0.0.1:{port}", "::1"),
        ("0.0.0.0:{port}", "127.0.0.1"),
        ("[::]:{port}", "::ffff:127.0.0.1"),
        ("localhost:{port}", "127.0.0.1"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_services_own_addresses(listener: int, entry: str, host: str) -> None:
    policy = Policy(extra_denied=(entry.format(port=listener),))
    with pytest.raises(PermissionDenied):
        check_host(host, listener, policy)
    if "{port}" in entry:
        assert check_host(host, listener + 1, policy), "another port is another server"


def test_every_address_of_this_machine_stands_for_the_unspecified_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet: only the route is looked up
        except OSError:
            pytest.skip("this machine has no other address")
        own = probe.getsockname()[0]
    with pytest.raises(PermissionDenied):
        check_host(own, 8503, Policy(extra_denied=("0.0.0.0:8503",)))


def test_an_unknown_name_and_a_silent_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionFailed, match="DNS"):
        check_host("no-such-host.invalid", 5432, SINGLE_USER)
    release = threading.Event()
    monkeypatch.setattr(guard.socket, "getaddrinfo", lambda *_, **__: release.wait(20) and [])
    began = time.monotonic()
    with pytest.raises(TimedOut, match="DNS"):
        check_host("slow.example.org", 5432, SINGLE_USER, seconds=0.3)
    assert time.monotonic() - began < 2
    release.set()


def test_many_addresses_are_checked_all_and_dialled_few(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"8.8.{n}.1" for n in range(200)]
    answers(monkeypatch, many)
    assert len(check_host("many.example.org", 5432, TEAM)) == guard.MOST_ADDRESSES
    answers(monkeypatch, [*many, "127.0.0.1"])
    with pytest.raises(PermissionDenied):
        check_host("many.example.org", 5432, TEAM)


@pytest.mark.parametrize("host", ["169.254.169.254", "fd00:ec2::254", "metadata.google.internal", "0.0.0.0"])
def test_the_far_end_of_a_tunnel(host: str) -> None:
    with pytest.raises(PermissionDenied):
        check_far_host(host)
    assert check_far_host("127.0.0.1") == "127.0.0.1"
    assert check_far_host("db.internal") == "db.internal"


def test_international_names() -> None:
    assert host_name("bücher.example") == "xn--bcher-kva.example"
    assert host_name("DB.Example.ORG.") == "db.example.org"
    assert host_name("[2001:DB8::1]") == "2001:db8::1"
    assert host_name("my_host") == "my_host"
