"""Connections to real and to lying servers: every cause has its name, and nothing leads where it may not.

Over 600 lines because plain, TLS and tunnelled connections share their servers, which are slow to start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import sql

from dblens.engines.access import guard, tunnel
from dblens.engines.access.connect import connect
from dblens.engines.access.guard import SINGLE_USER, TEAM, Policy
from dblens.engines.access.pool import Limits, Pool
from dblens.engines.access.reach import Reach
from dblens.engines.access.reach import test as reach
from dblens.engines.access.spec import ConnectionSpec, Tls, Tunnel, from_url
from dblens.errors import ConnectionFailed, DBLensError, InvalidInput, NotFound, PermissionDenied, TimedOut, Unsupported
from tests.engines import rogue as lies
from tests.engines.rogue import Rogue, certificate
from tests.engines.sshd import PASSPHRASE, Sshd
from tests.servers import MariaDB, Mongo, Postgres, Server, reaper
from tests.servers.folders import temp_root
from tests.servers.process import LOW_USER, PASSWORD, ServerMissing

CANARY = "s3cr3t-canary"
SERVERS = ["pg15", "mariadb", "mongo_login"]
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def mongo_login() -> Iterator[Mongo]:
    """A Mongo-wire server that asks who one is."""
    server = Mongo(auth=True)
    try:
        server.start()
    except ServerMissing as reason:
        pytest.skip(str(reason))
    yield server
    server.close()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def place(server: Any, new_database: Callable[..., str]) -> tuple[ConnectionSpec, dict[str, str]]:
    spec, password = from_url(new_database(server))
    assert password
    return spec, {"password": password}


on_all = pytest.mark.parametrize("server", SERVERS, indirect=True)


def refused(
    spec: ConnectionSpec, secrets: dict[str, str], policy: Policy = SINGLE_USER, *, seconds: float = 6
) -> Reach:
    """Test a connection that cannot be; whatever comes out tells no secret and takes no longer than it may."""
    began = time.monotonic()
    found = reach(spec, secrets, policy, seconds=seconds)
    assert time.monotonic() - began < 2 * seconds + 5
    assert not found.ok
    assert found.message
    assert found.hint
    for secret in (*secrets.values(), CANARY):
        assert secret not in repr(found)
    return found


# ---- named causes on real servers


@on_all
def test_a_connection_that_works(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    spec, secrets = place
    found = reach(spec, secrets, SINGLE_USER)
    assert found.ok, found
    assert found.version
    assert 0 < found.latency_ms <= found.total_ms
    assert {"dns", "tcp", "session", "ping", "privileges"} <= set(found.stages)
    with connect(spec, secrets, SINGLE_USER) as opened:
        assert opened.session.inspect().tables == ()
        assert secrets["password"] not in repr(opened) + repr(opened.session)
    assert opened.closed


@on_all
def test_wrong_password(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    found = refused(place[0], {"password": f"{CANARY}-wrong"})
    assert (found.cause, found.stage) == ("authentication", "session")


@on_all
def test_closed_port(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    found = refused(replace(place[0], port=reaper.free_port()), place[1])
    assert (found.cause, found.stage) == ("tcp", "tcp")


@on_all
def test_unknown_host(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    found = refused(replace(place[0], host="no-such-host.invalid"), place[1])
    assert (found.cause, found.stage) == ("dns", "dns")


@on_all
def test_forbidden_host(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    assert refused(place[0], place[1], TEAM).cause == "forbidden"
    own = Policy(extra_denied=(f"127.0.0.1:{place[0].port}",))
    assert refused(place[0], place[1], own).cause == "forbidden"
    assert refused(replace(place[0], host="localhost"), place[1], own).cause == "forbidden"


@on_all
def test_bad_input_is_named(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    found = refused(replace(place[0], options={"hostaddr": "127.0.0.1"}), place[1])
    assert (found.cause, found.stage) == ("input", "input")
    assert "hostaddr" in found.message


@pytest.mark.parametrize("server", ["pg15", "mariadb"], indirect=True)
def test_missing_database(place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    assert refused(replace(place[0], database="not_there"), place[1]).cause == "missing_database"


def test_no_permission(pg15: Postgres, mariadb: MariaDB, new_database: Callable[..., str]) -> None:
    spec, password = from_url(new_database(pg15))
    assert password
    with pg15.connect() as db:
        db.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(spec.database or "")))
    assert refused(replace(spec, user=LOW_USER), {"password": password}).cause == "permission"
    spec, password = from_url(new_database(mariadb))
    assert password
    assert refused(replace(spec, user=LOW_USER), {"password": password}).cause == "permission"


@on_all
@pytest.mark.parametrize("full", [False, True], ids=["accepts", "full"])
def test_blackhole(place: tuple[ConnectionSpec, dict[str, str]], full: bool) -> None:
    """A port that takes a connection and says nothing; one that does not even take it."""
    with Rogue(lies.silent) as hole, contextlib.ExitStack() as stack:
        port = hole.port
        if full:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            port = listener.getsockname()[1]
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            time.sleep(0.2)
        found = refused(replace(place[0], port=port), place[1], seconds=2)
    assert (found.cause, found.stage) == ("timeout", "tcp" if full else "session")


OWN = {("postgresql", "pg15"), ("mysql", "mariadb"), ("mongodb", "mongo_login")}
OTHERS = ["pg15", "mariadb", "mongo_login", "ssh", "web"]


@pytest.mark.parametrize(
    ("engine", "other"), [(e, o) for e in ("postgresql", "mysql", "mongodb") for o in OTHERS if (e, o) not in OWN]
)
def test_a_server_of_another_protocol(request: pytest.FixtureRequest, engine: str, other: str) -> None:
    with contextlib.ExitStack() as stack:
        if other in ("ssh", "web"):
            port = stack.enter_context(Rogue(lies.ssh_banner if other == "ssh" else lies.web)).port
        else:
            server: Any = request.getfixturevalue(other)
            port = server.port
        spec = ConnectionSpec(engine=engine, host="127.0.0.1", port=port, user="me", database="d")  # type: ignore[arg-type]
        found = refused(spec, {"password": CANARY}, seconds=2)
    assert found.cause == "not_this_engine", found


def test_the_read_only_login_is_verified(pg15: Postgres, new_database: Callable[..., str]) -> None:
    spec, password = from_url(new_database(pg15))
    assert password
    secrets = {"password": password, "read_only_password": password}
    found = reach(replace(spec, read_only_user=LOW_USER), secrets, SINGLE_USER)
    assert found.ok, found
    assert found.read_only_verified is True
    assert reach(replace(spec, read_only_user=spec.user), secrets, SINGLE_USER).read_only_verified is False
    with connect(replace(spec, read_only_user=LOW_USER), secrets, SINGLE_USER, login="read_only") as opened:
        assert opened.session.execute("SELECT current_user").rows == [(LOW_USER,)]
        with pytest.raises(DBLensError):
            opened.session.execute("CREATE TABLE t (a int)")
    with pytest.raises(InvalidInput, match="read-only login"):
        connect(spec, secrets, SINGLE_USER, login="read_only")


# ---- names are data


def test_database_names_that_look_like_arguments(
    pg15: Postgres, mariadb: MariaDB, new_database: Callable[..., str]
) -> None:
    for name in ("host=evil passfile=/x", "postgresql://evil/db", "-Fc", "--file=/x", "it's \\ % {}"):
        spec, password = from_url(new_database(pg15, name=name))
        assert spec.database == name
        with connect(spec, {"password": password or ""}, SINGLE_USER) as opened:
            assert opened.session.database == name
    for name in ("host=evil", "-p", "--defaults-file=x"):
        with mariadb.connect() as db, db.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}`")
        try:
            spec, password = from_url(mariadb.url(name))
            with connect(spec, {"password": password or ""}, SINGLE_USER) as opened:
                assert opened.session.database == name
        finally:
            with mariadb.connect() as db, db.cursor() as cursor:
                cursor.execute(f"DROP DATABASE `{name}`")
    spec, password = from_url(pg15.url())
    with pytest.raises(NotFound, match="host=evil"):
        connect(replace(spec, database="host=evil"), {"password": password or ""}, SINGLE_USER)


# ---- the environment


def test_the_environment_of_libpq_is_ignored(
    pg15: Postgres, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, password = from_url(new_database(pg15))
    (tmp_path / "services").write_text("[evil]\nhost=192.0.2.1\noptions=-c work_mem=64kB\n")
    (tmp_path / "pass").write_text(f"*:*:*:*:{password}\n")
    (tmp_path / "pass").chmod(0o600)
    (tmp_path / ".pgpass").write_text(f"*:*:*:*:{password}\n")
    (tmp_path / ".pgpass").chmod(0o600)
    for name, value in {
        "HOME": str(tmp_path), "PGHOST": "192.0.2.1", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGSERVICE": "not-there",
        "PGSERVICEFILE": str(tmp_path / "services"), "PGPASSFILE": str(tmp_path / "pass"), "PGOPTIONS": "-c work_mem=64kB",
        "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/etc/passwd", "PGSSLCERT": "/etc/passwd", "PGSSLKEY": "/etc/passwd",
        "PGDATABASE": "template1", "PGUSER": "nobody", "PGREQUIREAUTH": "gss", "PGTARGETSESSIONATTRS": "standby", "PGGSSLIB": "x",
        "PGREQUIREPEER": "nobody", "PGCHANNELBINDING": "require",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with connect(spec, {"password": password or ""}, SINGLE_USER) as opened:
        assert opened.session.execute("SHOW work_mem").rows == [("4MB",)]
    assert os.environ["PGSERVICE"] == "not-there", "what is hidden comes back"
    monkeypatch.setenv("PGPASSWORD", password or "")
    for secrets in ({}, {"password": ""}):
        assert reach(spec, secrets, SINGLE_USER).cause == "authentication"  # type: ignore[arg-type]


def test_the_environment_of_the_others_is_ignored(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".my.cnf").write_text("[client]\nhost=192.0.2.1\npassword=wrong\nuser=nobody\n")
    for name, value in {
        "HOME": str(tmp_path),
        "MYSQL_HOST": "192.0.2.1",
        "MYSQL_TCP_PORT": "1",
        "MYSQL_UNIX_PORT": "/x",
        "MYSQL_PWD": "x",
    }.items():
        monkeypatch.setenv(name, value)
    spec, password = from_url(mariadb.url("mysql"))
    for driver in ("pymysql", "mysqlclient"):
        with connect(replace(spec, options={"driver": driver}), {"password": password or ""}, SINGLE_USER):
            pass


# ---- DNS that changes its mind


@on_all
def test_dns_rebinding(
    server: Any, place: tuple[ConnectionSpec, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to the good server once, then to a bad one: the session stands on the good one, the next is refused."""
    spec, secrets = place
    asked: list[str] = []
    dialled: list[str] = []
    known = socket.getaddrinfo
    opens = socket.create_connection
    limit = 2 if spec.engine == "mongodb" else 1  # pymongo's own connections are checked one by one

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "rebind.example.org":
            return known(host, port, *args, **options)
        asked.append(host)
        return known("127.0.0.1" if len(asked) <= limit else "169.254.169.254", port, *args, **options)

    def create_connection(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        dialled.append(address[0])
        return opens(address, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    moved = replace(spec, host="rebind.example.org")
    # pymongo opens several connections, so one of its own may be the one that is refused; the others must stand.
    given_up = (ConnectionFailed, TimedOut, PermissionDenied) if spec.engine == "mongodb" else ()
    with contextlib.suppress(*given_up), connect(moved, secrets, SINGLE_USER, seconds=3) as opened:
        if spec.engine != "mongodb":
            opened.session.execute("SELECT 1")
            assert len(asked) == 1, "resolved once"
    with pytest.raises(PermissionDenied):
        connect(moved, secrets, SINGLE_USER, seconds=3)
    assert set(dialled) == {"127.0.0.1"}


def test_members_that_a_mongodb_server_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[str] = []
    opens = socket.create_connection

    def create_connection(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        dialled.append(address[0])
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError
        return opens(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    asked: list[str] = []
    known = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return known("127.0.0.1" if host == "seed.example.org" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    members = ["169.254.169.254:27017", "metadata.google.internal:27017", "2852039166:27017"]
    with Rogue(lies.mongo_hello(setName="rs0", hosts=members, primary=members[0], me=members[0])) as rogue:
        spec = ConnectionSpec(
            engine="mongodb", host="seed.example.org", port=rogue.port, user="me", database="d", replica_set="rs0"
        )
        found = refused(spec, {"password": CANARY}, seconds=3)
        assert rogue.accepted, "the seed was asked"
    assert found.cause in ("server", "not_this_engine", "forbidden", "timeout")
    assert set(dialled) == {"127.0.0.1"}
    assert "metadata.google.internal" not in asked


def test_a_mongodb_srv_name_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.name
    import dns.resolver

    class Record:
        priority = weight = 0
        port = 27017
        target = dns.name.from_text("node.cluster.example.org.")

    class Answer(list[Any]):
        rrset = type("R", (), {"ttl": 60})()

    asked: list[str] = []

    def resolve(name: Any, kind: Any = "A", *_: Any, **__: Any) -> Any:
        asked.append(f"{name} {kind}")
        if str(kind) == "SRV":
            return Answer([Record()])
        raise dns.resolver.NoAnswer

    monkeypatch.setattr(dns.resolver, "resolve", resolve)
    known = socket.getaddrinfo
    seen: list[str] = []

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        seen.append(host)
        return known("169.254.169.254" if host == "node.cluster.example.org" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("dialled"))
    spec = ConnectionSpec(engine="mongodb", host="cluster.example.org", srv=True, user="me", database="d")
    found = refused(spec, {"password": CANARY}, seconds=2)
    assert any("SRV" in a for a in asked)
    assert "node.cluster.example.org" in seen
    assert found.cause == "forbidden"


# ---- TLS


@pytest.fixture(scope="module")
def papers() -> Iterator[Path]:
    """An authority, another one, and certificates for a good and a wrong name."""
    folder = Path(tempfile.mkdtemp(prefix="dblens-tls-", dir=temp_root()))
    folder.chmod(0o755)
    good = certificate(folder, "authority")
    certificate(folder, "stranger")
    certificate(folder, "server", hosts=("db.example.org", "127.0.0.1"), issuer=good)
    certificate(folder, "misnamed", hosts=("other.example.org",), issuer=good)
    certificate(folder, "expired", hosts=("127.0.0.1",), issuer=good, days=-1)
    certificate(folder, "client", issuer=good)
    yield folder
    shutil.rmtree(folder)


def pem(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def owned(server: Any, folder: Path, name: str) -> Path:
    """A copy of a key that only the server's account may read."""
    copy = folder / f"{server.name}-{name}"
    shutil.copy(folder / name, copy)
    copy.chmod(0o600)
    os.chown(copy, server.account.uid, server.account.gid)
    return copy


@pytest.fixture(scope="module", params=["pg15", "mariadb", "mongo"])
def secure(request: pytest.FixtureRequest, papers: Path) -> Iterator[tuple[ConnectionSpec, str]]:
    """A server with TLS under a certificate for `db.example.org` and 127.0.0.1."""
    made: Server
    try:
        if request.param == "pg15":
            made = Postgres(15)
            made.settings |= {
                "ssl": "on", "ssl_cert_file": str(papers / "server.crt"), "ssl_key_file": str(owned(made, papers, "server.key")),
                "ssl_ca_file": str(papers / "authority.crt"),
            }  # fmt: skip
        elif request.param == "mariadb":
            made = MariaDB()
            made.settings |= {
                "ssl_cert": str(papers / "server.crt"), "ssl_key": str(owned(made, papers, "server.key")),
                "ssl_ca": str(papers / "authority.crt"),
            }  # fmt: skip
        else:
            made = Mongo(auth=True)
        made.start()
    except ServerMissing as reason:
        pytest.skip(str(reason))
    with contextlib.ExitStack() as stack:
        stack.callback(made.close)
        spec, password = from_url(made.create_database())
        if request.param == "mongo":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(papers / "server.crt", papers / "server.key")
            front = stack.enter_context(Rogue(lies.mirror(("127.0.0.1", spec.port or 0)), tls=context))
            spec = replace(spec, port=front.port)
        yield spec, password or ""


def test_tls_that_holds(secure: tuple[ConnectionSpec, str], papers: Path) -> None:
    spec, password = secure
    ca = pem(papers, "authority.crt")
    for tls in (Tls(mode="require"), Tls(mode="verify-ca", ca=ca), Tls(mode="verify-full", ca=ca)):
        found = reach(replace(spec, tls=tls), {"password": password}, SINGLE_USER)
        assert found.ok, (tls, found)
    with_client = Tls(ca=ca, cert=pem(papers, "client.crt"))
    found = reach(
        replace(spec, tls=with_client), {"password": password, "tls.key": pem(papers, "client.key")}, SINGLE_USER
    )
    assert found.ok, found
    with connect(replace(spec, tls=Tls(ca=ca)), {"password": password}, SINGLE_USER) as opened:
        if spec.engine == "postgresql":
            assert opened.session.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").rows == [(True,)]
        if spec.engine == "mysql":
            assert opened.session.execute("SHOW STATUS LIKE 'Ssl_cipher'").rows[0][1]


def test_the_name_in_the_certificate_is_the_hosts_not_the_address(
    secure: tuple[ConnectionSpec, str], papers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, password = secure
    known = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda h, *a, **k: known("127.0.0.1" if str(h).endswith(".example.org") else h, *a, **k)
    )
    tls = Tls(ca=pem(papers, "authority.crt"))
    found = reach(replace(spec, host="db.example.org", tls=tls), {"password": password}, SINGLE_USER)
    assert found.ok, found
    found = refused(replace(spec, host="wrong.example.org", tls=tls), {"password": password}, seconds=3)
    assert found.cause == "tls", found
    loose = replace(spec, host="wrong.example.org", tls=replace(tls, mode="verify-ca"))
    assert reach(loose, {"password": password}, SINGLE_USER).ok


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
@pytest.mark.parametrize("ca", ["stranger.crt", None], ids=["another", "the machine's"])
def test_tls_with_an_unknown_authority(
    secure: tuple[ConnectionSpec, str], papers: Path, mode: Any, ca: str | None
) -> None:
    spec, password = secure
    tls = Tls(mode=mode, ca=None if ca is None else pem(papers, ca))
    found = refused(replace(spec, tls=tls), {"password": password}, seconds=3)
    assert found.cause == "tls", found


@on_all
def test_tls_that_the_server_does_not_have(place: tuple[ConnectionSpec, dict[str, str]], papers: Path) -> None:
    tls = Tls(ca=pem(papers, "authority.crt"))
    for mode in ("require", "verify-full"):
        found = refused(replace(place[0], tls=replace(tls, mode=mode)), place[1], seconds=3)
        assert (
            found.cause in ("tls", "not_this_engine", "timeout")
            if place[0].engine == "mongodb"
            else found.cause == "tls"
        )


def test_broken_certificates_are_named(pg15: Postgres, mariadb: MariaDB, papers: Path) -> None:
    for server in (pg15, mariadb):
        spec, password = from_url(server.url("mysql" if server is mariadb else None))
        junk = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"
        found = refused(replace(spec, tls=Tls(ca=junk)), {"password": password or ""})
        assert found.cause in ("tls", "input"), found
        found = refused(replace(spec, tls=Tls(cert=pem(papers, "client.crt"))), {"password": password or ""})
        assert "tls.key" in found.hint


def private_folders() -> set[Path]:
    from dblens.engines.access import material

    return set(material._place().glob("dblens-access-*"))


def test_certificates_leave_nothing_behind(secure: tuple[ConnectionSpec, str], papers: Path) -> None:
    spec, password = secure
    before = private_folders()
    tls = Tls(ca=pem(papers, "authority.crt"), cert=pem(papers, "client.crt"))
    secrets = {"password": password, "tls.key": pem(papers, "client.key")}
    with connect(replace(spec, tls=tls), secrets, SINGLE_USER):
        for folder in private_folders() - before:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert all(f.stat().st_mode & 0o777 == 0o600 for f in folder.iterdir())
    assert private_folders() == before
    refused(replace(spec, tls=replace(tls, ca=pem(papers, "stranger.crt"))), secrets, seconds=3)
    assert private_folders() == before


# ---- servers that lie


def fake(engine: Any, rogue: Rogue) -> ConnectionSpec:
    return ConnectionSpec(engine=engine, host="127.0.0.1", port=rogue.port, user="me", database="d")


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"dialog"])
@pytest.mark.parametrize("driver", ["pymysql", None])
def test_mysql_is_never_told_the_password_in_clear(plugin: bytes, driver: str | None) -> None:
    with Rogue(lies.my_switches_to(plugin)) as rogue:
        found = refused(fake("mysql", rogue), {"password": CANARY}, seconds=3)
        assert found.cause in ("authentication", "server", "not_this_engine"), found
        spec = replace(fake("mysql", rogue), options={"driver": driver} if driver else {})
        with pytest.raises(DBLensError):
            connect(spec, {"password": CANARY}, SINGLE_USER, seconds=3)
        assert rogue.accepted
        assert CANARY.encode() not in rogue.received


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_a_rogue_mysql_server_gets_no_file(driver: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("c4nary-of-the-file")
    with Rogue(lies.my_asks_for_file(str(tmp_path / "file"))) as rogue:
        spec = replace(fake("mysql", rogue), options={"driver": driver})
        with (
            pytest.raises(DBLensError) as caught,
            connect(spec, {"password": CANARY}, SINGLE_USER, seconds=3) as opened,
        ):
            opened.session.execute("SELECT 1")
        assert CANARY not in str(caught.value)
        refused(spec, {"password": CANARY}, seconds=3)
        assert rogue.accepted
        assert b"c4nary-of-the-file" not in rogue.received


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_no_statement_of_a_user_reads_a_file_of_this_machine(
    mariadb: MariaDB, new_database: Callable[..., str], driver: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("c4nary-of-the-file\n")
    spec, password = from_url(new_database(mariadb))
    with connect(replace(spec, options={"driver": driver}), {"password": password or ""}, SINGLE_USER) as opened:
        opened.session.execute("CREATE TABLE t (a text)")
        with pytest.raises(DBLensError):
            opened.session.execute(f"LOAD DATA LOCAL INFILE '{tmp_path / 'file'}' INTO TABLE t")
    with connect(spec, {"password": password or ""}, SINGLE_USER) as opened:
        assert opened.session.execute("SELECT * FROM t").rows == []


def memory() -> int:
    """Return the resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1024 // 1024


@pytest.mark.parametrize(
    ("engine", "talk", "causes"),
    [
        ("postgresql", lies.pg_notices(0.0), {"timeout"}),
        ("postgresql", lies.pg_notices(0.2), {"timeout"}),
        ("postgresql", lies.pg_after_login(b""), {"server", "timeout"}),
        ("postgresql", lies.pg_after_login(b"", 0.2), {"timeout"}),
        ("postgresql", lies.pg_after_login(lies.GIANT_ROW), {"server", "timeout"}),
        ("postgresql", lies.pg_first_message(lies.GIANT_AUTH), {"not_this_engine", "server"}),
        ("postgresql", lies.pg_first_message(lies.GIANT_ERROR), {"not_this_engine", "server"}),
        ("postgresql", lies.pg_first_message(lies.ASK_GSS), {"authentication"}),
        ("postgresql", lies.drip, {"not_this_engine", "timeout"}),
        ("mysql", lies.my_endless, {"server", "timeout"}),
        ("mysql", lies.drip, {"not_this_engine", "timeout"}),
        ("mongodb", lies.drip, {"not_this_engine", "timeout"}),
    ],
    ids=["notices", "slow notices", "notices after login", "slow notices after login", "giant row", "giant login", "giant error", "gss",
         "drip", "mysql endless", "mysql drip", "mongodb drip"],
)  # fmt: skip
def test_a_rogue_server_is_bounded_and_named(engine: str, talk: Any, causes: set[str]) -> None:
    before = memory()
    with Rogue(talk) as rogue:
        began = time.monotonic()
        found = refused(fake(engine, rogue), {"password": CANARY}, seconds=3)
        assert time.monotonic() - began < 8
    assert found.cause in causes, found
    assert memory() - before < 200
    assert not [t for t in threading.enumerate() if t.name == "dblens-watch"]
    assert CANARY.encode() not in rogue.received


def test_postgresql_is_never_told_the_password_in_clear() -> None:
    with Rogue(lies.pg_first_message(lies.ASK_CLEAR)) as rogue:
        found = refused(fake("postgresql", rogue), {"password": CANARY}, seconds=3)
        assert found.cause == "authentication", found
        assert CANARY.encode() not in rogue.received


def test_a_server_that_repeats_the_password_is_not_repeated() -> None:
    with Rogue(lies.pg_first_message(lies.WRONG_DATABASE)) as rogue:
        found = refused(fake("postgresql", rogue), {"password": CANARY}, seconds=3)
        assert "***" in found.message


# ---- SQLite


def test_sqlite(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    policy = Policy(sqlite_roots=(str(root),), denied_files=(str(root / "store.db"),))
    with connect(ConnectionSpec(engine="sqlite", path="new.db"), {}, policy, create=True) as opened:
        assert opened.session.inspect().tables == ()
    import sqlite3

    for name in ("shop.db", "store.db"):
        with contextlib.closing(sqlite3.connect(root / name)) as db:
            db.execute("CREATE TABLE t (a)")
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as db:
        db.execute("CREATE TABLE secret (a)")
    (root / "text.db").write_text("this is no database, but long enough to be looked at" * 20)
    (root / "link.db").symlink_to(tmp_path / "out.db")
    found = reach(ConnectionSpec(engine="sqlite", path="shop.db"), {}, policy)
    assert found.ok, found
    for path in ("text.db", "missing.db", "link.db", "../out.db", "store.db", "/proc/self/mem", "/etc/passwd"):
        found = refused(ConnectionSpec(engine="sqlite", path=path), {}, policy)
        assert found.cause in ("file", "forbidden"), (path, found)
    assert refused(ConnectionSpec(engine="sqlite", path="shop.db"), {}, TEAM).cause in ("file", "forbidden")
    assert refused(ConnectionSpec(engine="sqlite", path="file:shop.db?mode=ro"), {}, policy).cause in ("file", "input")


# ---- sockets


def test_unix_sockets(papers: Path, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dblens-sock-", dir=temp_root()))
    folder.chmod(0o777)
    server = Postgres(15, settings={"unix_socket_directories": str(folder)})
    try:
        server.start()
        spec = ConnectionSpec(
            engine="postgresql", socket=str(folder), port=server.port, user="dblens", database="postgres"
        )
        secrets = {"password": PASSWORD}
        assert reach(spec, secrets, SINGLE_USER).ok
        assert refused(spec, secrets, Policy(allow_sockets=False)).cause == "forbidden"
        assert refused(spec, secrets, Policy(denied_files=(str(folder),))).cause == "forbidden"
        with MariaDB() as maria:
            spec = ConnectionSpec(engine="mysql", socket=f"{maria.folder}/socket", user="dblens", database="mysql")
            assert reach(spec, secrets, SINGLE_USER).ok
            with connect(spec, secrets, SINGLE_USER) as opened:
                opened.session.execute("SELECT 1")
            assert refused(spec, secrets, TEAM).cause == "forbidden"
    finally:
        server.close()
        shutil.rmtree(folder)


# ---- SSH


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    server = Sshd()
    try:
        yield server.start()
    finally:
        server.close()


def hop(sshd: Sshd, **changes: Any) -> Tunnel:
    made = Tunnel(host="127.0.0.1", port=sshd.port, user=sshd.user, host_key=sshd.host_key, key_secret="ssh.key")
    return replace(made, **changes)


def processes(word: str) -> list[int]:
    """Processes whose command line holds a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def gone(pids: list[int], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while any(reaper.alive(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(reaper.alive(p) for p in pids)


@on_all
def test_through_a_tunnel(sshd: Sshd, place: tuple[ConnectionSpec, dict[str, str]]) -> None:
    spec, secrets = replace(place[0], tunnel=hop(sshd)), {**place[1], "ssh.key": sshd.client_key}
    before = private_folders()
    found = reach(spec, secrets, SINGLE_USER)
    assert found.ok, found
    assert "tunnel" in found.stages
    assert "tcp" not in found.stages
    with connect(spec, secrets, SINGLE_USER) as opened:
        (folder,) = private_folders() - before
        assert {f.name for f in folder.iterdir() if f.is_file()} == {"log", "known"}, "key and password are gone"
        ours = processes(folder.name)
        assert ours
        for pid in ours:
            for what in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{what}").read_bytes()
                assert PASSWORD.encode() not in text
                assert b"PRIVATE KEY" not in text
        opened.ping(5)
    assert gone(ours)
    assert private_folders() == before


def test_tls_through_a_tunnel(sshd: Sshd, secure: tuple[ConnectionSpec, str], papers: Path) -> None:
    spec, password = secure
    secrets = {"password": password, "ssh.key": sshd.client_key}
    tls = Tls(ca=pem(papers, "authority.crt"))
    found = reach(replace(spec, tunnel=hop(sshd), tls=tls), secrets, SINGLE_USER)
    assert found.ok, found
    stranger = replace(tls, ca=pem(papers, "stranger.crt"))
    assert refused(replace(spec, tunnel=hop(sshd), tls=stranger), secrets, seconds=3).cause == "tls"


def test_a_key_with_a_passphrase(sshd: Sshd, pg15: Postgres) -> None:
    spec, password = from_url(pg15.url())
    locked = replace(spec, tunnel=hop(sshd, passphrase_secret="ssh.key_passphrase"))
    secrets = {"password": password or "", "ssh.key": sshd.locked_key, "ssh.key_passphrase": PASSPHRASE}
    before = private_folders()
    found = reach(locked, secrets, SINGLE_USER)
    assert found.ok, found
    assert refused(locked, {**secrets, "ssh.key_passphrase": "wrong-passphrase"}, seconds=5).cause == "tunnel"
    assert private_folders() == before


def test_a_tunnel_that_cannot_be(sshd: Sshd, pg15: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, password = from_url(pg15.url())
    secrets = {"password": password or "", "ssh.key": sshd.client_key}
    before = private_folders()

    def cause(policy: Policy = SINGLE_USER, given: dict[str, str] = secrets, **changes: Any) -> tuple[str, str]:
        far = changes.pop("far", spec)
        found = refused(replace(far, tunnel=hop(sshd, **changes)), given, policy, seconds=5)
        return found.cause, found.message

    assert cause(given={**secrets, "ssh.key": sshd.other_key})[0] == "tunnel"
    named, said = cause(host_key=sshd.other_host_key)
    assert named == "tunnel"
    assert "another host key" in said
    assert cause(port=reaper.free_port())[0] == "tunnel"
    assert cause(host="no-such-hop.invalid")[0] == "tunnel"
    assert cause(user="somebody-else")[0] == "tunnel"
    assert cause(given={"password": "x", "ssh.key": "-----BEGIN OPENSSH PRIVATE KEY-----\njunk\n"})[0] == "tunnel"
    assert cause(given={"password": "xxxx"})[0] == "tunnel"
    assert cause(policy=TEAM)[0] == "forbidden", "the hop is checked like any host"
    assert cause(policy=Policy(extra_denied=(f"127.0.0.1:{sshd.port}",)))[0] == "forbidden"
    assert cause(host="169.254.169.254")[0] == "forbidden"
    assert cause(far=replace(spec, host="169.254.169.254"))[0] == "forbidden"
    assert cause(far=replace(spec, port=reaper.free_port()))[0] in ("server", "tcp", "not_this_engine"), (
        "nothing behind it"
    )
    monkeypatch.setattr(tunnel.shutil, "which", lambda *_, **__: None)
    named, said = cause()
    assert named == "tunnel"
    assert "not installed" in said
    with pytest.raises(Unsupported) as caught:
        connect(replace(spec, tunnel=hop(sshd)), secrets, SINGLE_USER)
    assert "apt-get install openssh-client" in str(caught.value)
    assert private_folders() == before


def test_a_silent_hop_is_given_up(pg15: Postgres, sshd: Sshd) -> None:
    spec, _ = from_url(pg15.url())
    before = private_folders()
    with Rogue(lies.silent) as hole, pytest.raises(TimedOut):
        tunnel.open_tunnel(
            hop(sshd, port=hole.port),
            {"ssh.key": sshd.client_key},
            SINGLE_USER,
            "127.0.0.1",
            spec.port or 0,
            seconds=1.5,
        )
    assert private_folders() == before


@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_tunnel_ends_with_its_parent(sshd: Sshd, pg15: Postgres, end: str, tmp_path: Path) -> None:
    """Another process opens a tunnel and is killed with -9: ssh goes, and the next process sweeps its folder."""
    key = tmp_path / "key"
    key.write_text(sshd.client_key)
    script = f"""
import sys, pathlib, time
from dblens.engines.access import tunnel
from dblens.engines.access.guard import SINGLE_USER
from dblens.engines.access.spec import Tunnel
hop = Tunnel(host="127.0.0.1", port={sshd.port}, user={sshd.user!r}, host_key={sshd.host_key!r}, key_secret="ssh.key")
way = tunnel.open_tunnel(hop, {{"ssh.key": pathlib.Path({str(key)!r}).read_text()}}, SINGLE_USER, "127.0.0.1", {pg15.port})
print(way.socket_path, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        path = Path(child.stdout.readline().strip())
        assert path.is_socket()
        ours = [p for p in processes(path.parent.name) if p != child.pid]
        assert ours
        if end == "kill":
            child.send_signal(signal.SIGKILL)
        else:
            assert child.stdin is not None
            child.stdin.close()
        child.wait(10)
    assert gone(ours), [Path(f"/proc/{p}/cmdline").read_text() for p in ours if reaper.alive(p)]
    if end == "kill":
        from dblens.engines.access import material

        material._swept.clear()
        material.PrivateFolder().close()
    assert not path.parent.exists()


# ---- the pool on a real server


def test_the_pool_replaces_sessions_that_the_server_ended(pg15: Postgres, new_database: Callable[..., str]) -> None:
    spec, password = from_url(new_database(pg15))
    secrets = {"password": password or ""}
    pool = Pool(lambda: connect(spec, secrets, SINGLE_USER), Limits(size=2))
    with pool.borrow() as session:
        (first,) = session.execute("SELECT pg_backend_pid()").rows[0]
    with pg15.connect() as db:
        db.execute("SELECT pg_terminate_backend(%s)", [first])
    with pool.borrow() as session:
        assert session.execute("SELECT pg_backend_pid()").rows[0] != (first,)
    assert pool.status().replaced == 1
    pool.close()
    with pg15.connect() as db:
        end = time.monotonic() + 5
        left: Any = 1
        while left and time.monotonic() < end:
            (left,) = db.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [spec.database]).fetchone()  # type: ignore[misc]
        assert left == 0


@on_all
def test_a_server_that_falls_silent_is_found_at_the_next_borrow(
    server: Any, place: tuple[ConnectionSpec, dict[str, str]]
) -> None:
    from tests.servers.proxy import Proxy

    spec, secrets = place
    if spec.engine == "mongodb":
        spec = replace(spec, options={**spec.options, "socketTimeoutMS": "1000", "serverSelectionTimeoutMS": "1500"})
    with Proxy(server.address) as proxy:
        moved = replace(spec, port=proxy.port)
        pool = Pool(lambda: connect(moved, secrets, SINGLE_USER, seconds=2), Limits(size=1, check_seconds=1))
        with pool.borrow():
            pass
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises((TimedOut, ConnectionFailed)), pool.borrow():
            pass
        assert time.monotonic() - began < 10
        proxy.thaw()
        with pool.borrow() as session:
            assert session.version
        assert pool.status().in_use == 0
        pool.close()


def test_two_hundred_threads_on_one_server(pg15: Postgres, new_database: Callable[..., str]) -> None:
    spec, password = from_url(new_database(pg15))
    pool = Pool(lambda: connect(spec, {"password": password or ""}, SINGLE_USER), Limits(size=6, wait_seconds=120))
    errors: list[BaseException] = []
    seen: set[Any] = set()

    def work() -> None:
        try:
            for _ in range(3):
                with pool.borrow() as session:
                    seen.add(session.execute("SELECT pg_backend_pid()").rows[0])
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors[:3]
    status = pool.status()
    assert (status.borrowed, status.in_use, status.waiting) == (600, 0, 0)
    assert len(seen) <= 6
    pool.close()


def test_guard_is_what_the_driver_uses(monkeypatch: pytest.MonkeyPatch, pg15: Postgres) -> None:
    """libpq itself resolves nothing: a name that only our resolver knows is enough."""
    known = socket.getaddrinfo
    monkeypatch.setattr(
        guard.socket, "getaddrinfo", lambda h, *a, **k: known("127.0.0.1" if h == "only-ours.invalid" else h, *a, **k)
    )
    spec, password = from_url(pg15.url())
    with connect(replace(spec, host="only-ours.invalid"), {"password": password or ""}, SINGLE_USER) as opened:
        assert "only-ours.invalid" in opened.session.fingerprint_id
