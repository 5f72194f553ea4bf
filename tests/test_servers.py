"""The test servers themselves: they start, survive kill -9 with their rows, and leave nothing behind."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tests.servers import (
    LOW_USER,
    PASSWORD,
    USER,
    MariaDB,
    Mongo,
    MySQL,
    Postgres,
    Proxy,
    Server,
    ServerMissing,
    ServerProcess,
    SQLite,
    fixtures,
    folders,
    reaper,
)

Make = Callable[[], ServerProcess]
MAKERS: dict[str, Make] = {
    "pg15": lambda: Postgres(15, durable=True),
    "pg18": lambda: Postgres(18, durable=True),
    "mariadb": lambda: MariaDB(durable=True),
    "mysql": lambda: MySQL(durable=True),
    "mongo": lambda: Mongo(durable=True),
}


def write_row(server: Server, database: str, value: int) -> None:
    if isinstance(server, Postgres):
        with server.connect(database) as db:
            db.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            db.execute("INSERT INTO kept VALUES (%s)", (value,))
    elif isinstance(server, MariaDB | MySQL):
        with server.connect(database) as my, my.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS kept (n int) ENGINE=InnoDB")
            cursor.execute("INSERT INTO kept VALUES (%s)", (value,))
    elif isinstance(server, Mongo):
        with server.connect() as client:
            client[database].command("insert", "kept", documents=[{"n": value}], writeConcern={"w": 1, "j": True})


def read_rows(server: Server, database: str) -> list[int]:
    if isinstance(server, Postgres):
        with server.connect(database) as db:
            return [row[0] for row in db.execute("SELECT n FROM kept ORDER BY n")]  # type: ignore[misc]
    if isinstance(server, MariaDB | MySQL):
        with server.connect(database) as my, my.cursor() as cursor:
            cursor.execute("SELECT n FROM kept ORDER BY n")
            return [row[0] for row in cursor.fetchall()]
    assert isinstance(server, Mongo)
    with server.connect() as client:
        return [found["n"] for found in client[database].kept.find().sort("n")]


def database_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_row_survives_kill_and_stop_and_close_leaves_nothing(kind: str) -> None:
    server = MAKERS[kind]()
    try:
        server.start()
    except ServerMissing as reason:
        fixtures.missing(kind, reason)
    with server:
        url, first, folder = server.create_database(), server.pid, server.folder
        assert server.version
        write_row(server, database_of(url), 1)
        server.kill()
        assert not server.running
        assert not reaper.alive(first)
        server.start()
        assert server.pid != first
        assert server.url(database_of(url)) == url, "the port changed"
        write_row(server, database_of(url), 2)
        family = reaper.family(server.pid)
        server.stop()
        assert not [pid for pid in family if reaper.alive(pid)]
        server.start()
        assert read_rows(server, database_of(url)) == [1, 2]
        server.drop_database(database_of(url))
        family = reaper.family(server.pid)
    assert not [pid for pid in family if reaper.alive(pid)]
    assert folder is not None
    assert not list(folder.parent.glob(f"{folder.name}*"))


def test_kill_takes_busy_backends_along(pg15: Postgres) -> None:
    with psycopg.connect(pg15.url(), autocommit=True) as busy:
        worker = threading.Thread(target=_ignore_loss, args=(busy,))
        worker.start()
        deadline = time.monotonic() + 5
        while len(before := reaper.family(pg15.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        pg15.restart()
        assert time.monotonic() - began < 5
        assert not [pid for pid in before if reaper.alive(pid)]
        worker.join(5)
        assert not worker.is_alive()


def _ignore_loss(db: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.OperationalError):
        db.execute("SELECT count(*) FROM generate_series(1, 1000000000)")


def test_servers_run_unprivileged(pg15: Postgres, mariadb: MariaDB) -> None:
    for one in (pg15, mariadb):
        assert Path(f"/proc/{one.pid}").stat().st_uid == one.account.uid != 0


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_the_low_user_of_postgres_may_only_log_in(kind: str) -> None:
    server = fixtures.require(kind)
    low = psycopg.connect(server.url(low=True), autocommit=True)
    with closing(low), pytest.raises(psycopg.errors.InsufficientPrivilege):
        low.execute("CREATE DATABASE stolen")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.url(low=True).replace(PASSWORD, "wrong"))


def mysql_login(port: int, **more: str) -> pymysql.Connection[Any]:
    login = {"user": USER, "password": PASSWORD, **more}
    return pymysql.connect(host="127.0.0.1", port=port, **login)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_the_low_user_of_mysql_may_only_log_in(kind: str) -> None:
    server = fixtures.require(kind)
    assert isinstance(server, ServerProcess)
    low = mysql_login(server.port, user=LOW_USER)
    with closing(low), low.cursor() as cursor, pytest.raises(pymysql.OperationalError):
        cursor.execute("CREATE DATABASE stolen")
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        mysql_login(server.port, user=LOW_USER, password="wrong")


def test_mongo_can_ask_for_a_password() -> None:
    with Mongo(auth=True) as server:
        with server.connect() as client:
            client.shop.things.insert_one({"n": 1})
        stranger: MongoClient[dict[str, Any]] = MongoClient(server.url("shop").replace(PASSWORD, "wrong"))
        with stranger, pytest.raises(OperationFailure):
            stranger.shop.things.find_one()


def load_local(server: MariaDB | MySQL, path: Path) -> int:
    path.write_text("1\n")
    name = database_of(server.create_database(options="CHARACTER SET latin1"))
    with server.connect(name) as my, my.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n int)")
        return cursor.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE t")


def test_local_infile_can_be_off(mariadb: MariaDB, tmp_path: Path) -> None:
    assert load_local(mariadb, tmp_path / "rows") == 1
    with MariaDB(local_infile=False) as strict, pytest.raises(pymysql.OperationalError):
        load_local(strict, tmp_path / "rows")


def test_local_infile_works_in_mysql(mysql: MySQL, tmp_path: Path) -> None:
    assert load_local(mysql, tmp_path / "rows") == 1


def test_servers_bring_their_own_tools(pg15: Postgres, pg18: Postgres, mariadb: MariaDB) -> None:
    for server, tool, word in (
        (pg15, "pg_dump", "15."),
        (pg18, "psql", "18."),
        (mariadb, "mariadb-dump", "10.11"),
    ):
        done = subprocess.run([*server.tool(tool), "--version"], capture_output=True, text=True, check=True)
        assert word in done.stdout
    with pytest.raises(ServerMissing):
        pg15.tool("no-such-tool")


def test_sqlite_has_the_same_verbs() -> None:
    with SQLite() as server:
        url = server.create_database("shop")
        assert url == f"sqlite:///{server.path('shop')}"
        assert server.path("shop").exists()
        server.drop_database("shop")
        assert not server.path("shop").exists()


def test_a_missing_server_is_a_skip_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBLENS_REQUIRE_SERVERS", "0")
    with pytest.raises(pytest.skip.Exception, match="server missing: pg15: gone"):
        fixtures.missing("pg15", "gone")
    monkeypatch.setenv("DBLENS_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="server missing: pg15: gone"):
        fixtures.missing("pg15", "gone")
    with pytest.raises(pytest.skip.Exception):
        fixtures.missing("mysql", "gone")


def test_a_server_that_cannot_start_shows_its_log() -> None:
    broken = Postgres(15, settings={"no_such_setting": "1"})
    with pytest.raises(RuntimeError, match="no_such_setting"):
        broken.start()
    broken.close()


def test_what_a_killed_session_left_is_swept() -> None:
    code = "from tests.servers import Mongo; import os; s = Mongo().start(); print(s.pid, s.folder, flush=True); os._exit(9)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    pid, folder = done.stdout.split()
    assert reaper.alive(int(pid)), done.stderr
    assert any(Path(folder).name in name for name in reaper.sweep())
    assert not reaper.alive(int(pid))
    assert not Path(folder).exists()


def test_a_cache_folder_others_can_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "temp_root", lambda: tmp_path)
    folders.cache_root().chmod(0o777)
    with pytest.raises(RuntimeError, match="only we can write"):
        folders.cache_root()


def test_a_failed_recipe_leaves_no_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "temp_root", lambda: tmp_path)

    def fail(part: Path) -> None:
        (part / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folders.cached("thing", ("1",), fail)
    path = folders.cached("thing", ("1",), lambda part: (part / "made").touch())
    assert (path / "made").exists()
    assert not list(tmp_path.rglob("*.part"))


# --- the proxy ---------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(pg15: Postgres) -> Iterator[Proxy]:
    with Proxy(pg15.address) as made:
        yield made


@pytest.fixture
def echo() -> Iterator[Proxy]:
    """A proxy in front of a server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_echo, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        with Proxy(listener.getsockname()) as made:
            yield made
        listener.shutdown(socket.SHUT_RDWR)


def _echo(client: socket.socket) -> None:
    with client:
        try:
            while block := client.recv(65536):
                client.sendall(block)
        except OSError:
            return


def dial(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    client.sendall(b"hello")
    assert client.recv(5) == b"hello"
    return client


def drain(client: socket.socket) -> bytes:
    """Everything until the connection ends, however it ends."""
    got = b""
    try:
        while block := client.recv(65536):
            got += block
    except ConnectionError:
        pass
    return got


def test_the_proxy_is_transparent(proxy: Proxy, pg15: Postgres) -> None:
    with psycopg.connect(proxy.url(pg15.url())) as db:
        big = db.execute("SELECT repeat('x', 5000000)").fetchone()
    assert big is not None
    assert len(big[0]) == 5_000_000
    assert proxy.accepted == 1
    assert proxy.bytes["down"] > 5_000_000


def test_cut_resets_and_welcomes_again(proxy: Proxy, pg15: Postgres) -> None:
    with psycopg.connect(proxy.url(pg15.url())) as db:
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            db.execute("SELECT 1")
    psycopg.connect(proxy.url(pg15.url())).close()
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(proxy.url(pg15.url()))
    proxy.refuse(False)
    psycopg.connect(proxy.url(pg15.url())).close()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_cut_after_lets_exactly_so_many_bytes_pass(echo: Proxy, direction: Any) -> None:
    with dial(echo) as client:
        before = echo.bytes[direction]
        echo.cut_after(100_000, direction)
        sender = threading.Thread(target=_send, args=(client, b"x" * 3_000_000))
        sender.start()
        got = drain(client)
        sender.join(5)
    assert echo.bytes[direction] - before == 100_000
    assert len(got) <= 100_000
    if direction == "down":
        assert len(got) == 100_000
    dial(echo).close()


def _send(client: socket.socket, data: bytes) -> None:
    try:
        client.sendall(data)
    except OSError:
        return


@pytest.mark.parametrize("kind", ["pg15", "mariadb"])
def test_a_lost_commit_reply_was_still_committed(kind: str) -> None:
    server = fixtures.require(kind)
    assert isinstance(server, ServerProcess)
    url = server.create_database()
    name = database_of(url)
    write_row(server, name, 1)
    with Proxy(server.address) as proxy:
        if kind == "pg15":
            with psycopg.connect(proxy.url(url)) as db:
                db.execute("INSERT INTO kept VALUES (2)")
                proxy.lose_reply_after(b"COMMIT")
                with pytest.raises(psycopg.OperationalError):
                    db.commit()
        else:
            my = mysql_login(proxy.port, database=name)
            with my.cursor() as cursor:
                cursor.execute("INSERT INTO kept VALUES (2)")
            proxy.lose_reply_after(b"COMMIT")
            with pytest.raises(pymysql.OperationalError):
                my.commit()
        assert proxy.reply_lost.wait(5)
    assert read_rows(server, name) == [1, 2]
    server.drop_database(name)


def test_freeze_is_silence_and_thaw_delivers(echo: Proxy) -> None:
    with dial(echo) as client:
        echo.freeze()
        client.sendall(b"held")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(4)
        echo.thaw()
        client.settimeout(5)
        assert client.recv(4) == b"held"


def test_latency_is_added(echo: Proxy) -> None:
    with dial(echo) as client:
        echo.latency = 0.1
        began = time.monotonic()
        client.sendall(b"slow")
        assert client.recv(4) == b"slow"
        assert time.monotonic() - began >= 0.2


def test_an_unreachable_target_resets_the_client() -> None:
    with Proxy(("127.0.0.1", reaper.free_port())) as proxy, pytest.raises((ConnectionError, AssertionError)):
        dial(proxy).close()


def test_free_ports_lie_below_outgoing_ones() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 <= reaper.free_port() < low for _ in range(20))
