"""Sessions of stored connections: pools that follow a change, nothing left open, what a process may reach at all."""

from __future__ import annotations

import os
import pickle
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dblens.engines.access import guard
from dblens.engines.access.pool import Limits
from dblens.errors import Conflict, DBLensError, InvalidInput, NotAuthenticated, NotFound, PermissionDenied
from dblens.migrate.link import Link
from dblens.redaction import Secret
from dblens.settings import Settings, load
from dblens.store import connections
from dblens.store.database import Store
from dblens.workspace import bounds, lines
from dblens.workspace.lines import Lines
from dblens.workspace.ways import ConnectionChanges, NewConnection
from tests.servers import Postgres
from tests.servers.process import LOW_USER
from tests.workspace.rooms import NOW, Rooms, move_in

CANARY = "k4n4r13n-v0g3l"


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    store = Store.open(f"sqlite:///{tmp_path / 'own' / 'store.sqlite'}")
    store.create_all()
    made = move_in(store, tmp_path / "home")
    yield made
    made.house.close()


def kept(rooms: Rooms, url: str, name: str = "it", **more: Any) -> str:
    return rooms.doors("acme", "developer").connections.create(NewConnection(name=name, url=Secret(url), **more)).id


def file(tmp_path: Path, name: str = "a.db") -> str:
    with closing(sqlite3.connect(tmp_path / name)) as db:
        db.execute("CREATE TABLE t (a)")
    return f"sqlite:///{tmp_path / name}"


def change(rooms: Rooms, id: str, **changes: Any) -> None:
    doors = rooms.doors("acme", "developer").connections
    doors.update(id, ConnectionChanges(**changes), version=doors.read(id).version)


# ------------------------------------------------------------------------------------------------------------------------ pools


def test_a_pool_is_made_once_and_lends_again(rooms: Rooms, tmp_path: Path) -> None:
    id, org, held = kept(rooms, file(tmp_path)), rooms.org("acme"), rooms.house.lines
    assert held.status(id) == {}
    for _ in range(3):
        with held.session(org, id) as session:
            session.execute("SELECT 1")
            assert held.status(id)["main"].in_use == 1
    status = held.status(id)["main"]
    assert (status.opened, status.borrowed, status.idle, status.in_use) == (1, 3, 1, 0)
    assert rooms.doors("acme", "developer").connections.pool(id)["main"].opened == 1
    with held.session(org, id, login="read_only") as session, pytest.raises(DBLensError):
        session.execute("INSERT INTO t VALUES (1)")
    assert set(held.status(id)) == {"main", "read_only"}


def test_a_pool_follows_the_connection(rooms: Rooms, tmp_path: Path) -> None:
    """Another file, then read-only: no session of before is lent again, also when another process made the change."""
    id, org, held = kept(rooms, file(tmp_path)), rooms.org("acme"), rooms.house.lines
    with held.session(org, id) as session:
        session.execute("INSERT INTO t VALUES (1)")
    change(rooms, id, fields={"path": file(tmp_path, "b.db").removeprefix("sqlite:///")})
    assert held.status(id)["main"].idle == 0
    with held.session(org, id) as session:
        session.execute("INSERT INTO t VALUES (2)")
    with rooms.house.store.write() as tx:  # as another process does it: nobody tells this one
        connections.update_connection(tx, org, id, version=2, now=NOW, read_only=True)
    with pytest.raises(DBLensError), held.session(org, id) as session:
        session.execute("INSERT INTO t VALUES (3)")
    for name, rows in (("a.db", [(1,)]), ("b.db", [(2,)])):
        with closing(sqlite3.connect(tmp_path / name)) as db:
            assert db.execute("SELECT a FROM t").fetchall() == rows


def test_a_session_that_is_lent_while_the_connection_changes_is_not_lent_again(rooms: Rooms, tmp_path: Path) -> None:
    id, org, held = kept(rooms, file(tmp_path)), rooms.org("acme"), rooms.house.lines
    with held.session(org, id):
        change(rooms, id, colour="red")
    assert held.status(id)["main"].idle == 0


def test_a_changed_secret_is_what_the_next_session_logs_in_with(
    rooms: Rooms, pg15: Postgres, new_database: Callable[..., str], tmp_path: Path
) -> None:
    new_database(pg15)
    id, org, held = kept(rooms, pg15.url("postgres", low=True)), rooms.org("acme"), rooms.house.lines
    with held.session(org, id) as session:
        session.execute("SELECT 1")
    change(rooms, id, secrets={"password": Secret("wrong")})
    with pytest.raises((NotAuthenticated, PermissionDenied, DBLensError)) as failed, held.session(org, id):
        pass
    assert "authentication" in str(failed.value).lower()
    place = tmp_path / "password"
    place.write_text("wrong too\n")
    change(rooms, id, references={"password": f"file:{place}"})
    with pytest.raises(DBLensError), held.session(org, id):
        pass
    from tests.servers.process import PASSWORD

    place.write_text(f"{PASSWORD}\n")  # it changed where it lies, and DBLens was not told
    with held.session(org, id) as session:
        session.execute("SELECT 1")
    with pg15.connect() as db:
        seen = db.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [LOW_USER]).fetchone()
    assert seen == (1,)


def test_the_pool_of_a_deleted_connection_is_closed(rooms: Rooms, tmp_path: Path) -> None:
    id, org, held = kept(rooms, file(tmp_path)), rooms.org("acme"), rooms.house.lines
    with held.session(org, id):
        pass
    pool = held.pool(org, id)
    rooms.doors("acme", "developer").connections.delete(id)
    assert held.status(id) == {}
    with pytest.raises(Conflict), pool.borrow():
        pass
    with pytest.raises(NotFound), held.session(org, id):
        pass
    other = kept(rooms, file(tmp_path, "b.db"), "other")
    with held.session(org, other):
        pass
    with rooms.house.store.write() as tx:
        connections.delete_connection(tx, org, other)  # by another process
    with pytest.raises(NotFound), held.session(org, other):
        pass
    assert held.status(other) == {}


def test_a_pool_is_an_organizations_own(rooms: Rooms, tmp_path: Path) -> None:
    id, held = kept(rooms, file(tmp_path)), rooms.house.lines
    with held.session(rooms.org("acme"), id):
        pass
    for org in (rooms.org("beta"), None):
        with pytest.raises(NotFound), held.session(org, id):
            pass
        with pytest.raises(NotFound):
            held.line(org, id)
    assert held.status(id)["main"].idle == 1  # and whose it is goes on with it


def test_a_timer_ends_idle_sessions(rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PRUNE_SECONDS", 0.05)
    house = rooms.house
    held = Lines(house.store, house.keyring, house.settings, Limits(idle_seconds=0.1))
    id = kept(rooms, file(tmp_path))
    with held.session(rooms.org("acme"), id):
        pass
    end = time.monotonic() + 10
    while held.status(id)["main"].idle and time.monotonic() < end:
        time.sleep(0.02)
    assert held.status(id)["main"].idle == 0
    held.close()
    assert not [t for t in threading.enumerate() if t.name == "dblens-pools" and t is held._timer]
    with pytest.raises(Conflict), held.session(rooms.org("acme"), id):
        pass


def test_many_threads_share_a_pool(rooms: Rooms, pg15: Postgres, new_database: Callable[..., str]) -> None:
    house = rooms.house
    held = Lines(house.store, house.keyring, house.settings, Limits(size=3))
    id, org = kept(rooms, new_database(pg15)), rooms.org("acme")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                with held.session(org, id) as session:
                    session.execute("SELECT 1")
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = held.status(id)["main"]
    held.close()
    assert not failures
    assert status.opened <= 3
    assert status.borrowed == 60


# ------------------------------------------------------------------------------------------------------------------------ lines


def test_a_session_takes_what_it_stands_on_with_it(rooms: Rooms, tmp_path: Path) -> None:
    """Whoever closes the session of a line closes its tunnel too, and closing the line closes what is left."""
    id, org = kept(rooms, file(tmp_path)), rooms.org("acme")
    line = rooms.house.lines.line(org, id)
    session = line.connect()
    (opened,) = line._opened
    ended = []
    opened._stack.callback(ended.append, "tunnel")
    session.close()
    assert (ended, line._opened, opened.closed) == (["tunnel"], set(), True)
    session.close()
    left = [line.connect(), line.connect(read_only=True)]
    stood = list(line._opened)
    assert len(stood) == 2
    line.close()
    assert all(opened.closed for opened in stood)
    for each in left:
        with pytest.raises((DBLensError, sqlite3.ProgrammingError)):
            each.execute("SELECT 1")


def test_where_databases_come_by_themselves_the_server_is_the_database(
    rooms: Rooms, tmp_path: Path, mongo: Any, pg15: Postgres, new_database: Callable[..., str]
) -> None:
    for at, (url, database) in enumerate(
        ((file(tmp_path), None), (new_database(mongo), None), (new_database(pg15), "postgres"))
    ):
        id = kept(rooms, url, f"c{at}")
        with closing(rooms.house.lines.line(rooms.org("acme"), id)) as line:
            session = line.server()
            assert database in (None, session.database)
            session.list_tables(session.namespaces()[0])


def test_a_raw_address_is_for_ones_own_machine(rooms: Rooms, tmp_path: Path) -> None:
    url = file(tmp_path)
    with rooms.house.lines.link(None, url) as link:
        link.connect().close()
    with rooms.house.lines.link(None, link) as again:
        assert again is link
    house = rooms.house
    settings = Settings(store_url=house.settings.store_url, data_folder=tmp_path, mode="team")
    held = Lines(house.store, house.keyring, settings)
    for reference in (url, link, "postgresql://u:p@h/d", "SQLITE:x"):
        with pytest.raises(PermissionDenied) as failed, held.link(rooms.org("acme"), reference):
            pass
        assert "u:p" not in str(failed.value)
    assert isinstance(link, Link)


def test_nothing_of_a_line_shows_a_secret(rooms: Rooms) -> None:
    id = kept(rooms, f"postgresql://ann:{CANARY}@db.example.org/shop")
    line = rooms.house.lines.line(rooms.org("acme"), id)
    for each in (line, line.spec, line.url, line._secrets, rooms.house.lines, rooms.house.lines.references):
        assert CANARY not in repr(each) + str(each)
    for each in (line, rooms.house.lines):
        with pytest.raises(TypeError):
            pickle.dumps(each)


# ----------------------------------------------------------------------------------------------------------------------- bounds


def settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings(**{"store_url": f"sqlite:///{tmp_path}/store.sqlite", "data_folder": tmp_path, **more})


def test_what_a_process_may_reach_is_set_by_the_mode_and_by_settings(tmp_path: Path) -> None:
    laptop = bounds.policy(settings(tmp_path))
    assert (laptop.allow_loopback, laptop.allow_private, laptop.allow_sockets, laptop.sqlite_roots) == (
        True,
        True,
        True,
        None,
    )
    team = bounds.policy(settings(tmp_path, mode="team"))
    assert (team.allow_loopback, team.allow_private, team.allow_sockets, team.sqlite_roots) == (False, False, False, ())
    office = bounds.policy(settings(tmp_path, mode="team", reach_private=True, sqlite_roots=(tmp_path,)))
    assert (office.allow_loopback, office.allow_private, office.sqlite_roots) == (False, True, (str(tmp_path),))
    strict = bounds.policy(
        settings(tmp_path, reach_loopback=False, denied_hosts=("192.0.2.0/24", "db.example.org:5432"))
    )
    assert not strict.allow_loopback
    assert {"192.0.2.0/24", "db.example.org:5432"} <= set(strict.extra_denied)
    for wrong in ("a b", "10.0.0.0/99", "host:0", "host:x", "http://x"):
        with pytest.raises(InvalidInput, match="denied_hosts"):
            bounds.policy(settings(tmp_path, denied_hosts=(wrong,)))


def test_the_settings_come_from_the_environment(tmp_path: Path) -> None:
    found = load(
        {
            "DBLENS_DATA_FOLDER": str(tmp_path), "HOME": str(tmp_path), "DBLENS_REACH_PRIVATE": "true", "DBLENS_REACH_LOOPBACK": "false",
            "DBLENS_DENIED_HOSTS": "10.1.0.0/16, db.example.org",
        }
    )  # fmt: skip
    assert (found.reach_private, found.reach_loopback, found.reach_sockets) == (True, False, None)
    assert found.denied_hosts == ("10.1.0.0/16", "db.example.org")


@pytest.mark.parametrize(
    ("store_url", "address", "port"),
    [
        ("postgresql://u:p@192.0.2.7:6000/d", "192.0.2.7", 6000),
        ("postgresql://u@192.0.2.7/d", "192.0.2.7", 5432),
        ("postgresql://u@localhost:6000/d", "127.0.0.9", 6000),
        ("postgresql://u@[2001:db8::7]:6000/d", "2001:db8::7", 6000),
        ("postgresql://u@192.0.2.7:6000,192.0.2.8:6001/d", "192.0.2.8", 6001),
        ("postgresql:///d?host=192.0.2.7,192.0.2.8&port=6000", "192.0.2.8", 6000),
        ("postgresql:///d?host=192.0.2.7:6000&host=192.0.2.8:6001", "192.0.2.8", 6001),
        ("postgresql:///d?host=/var/run/postgresql&port=6000", "127.0.0.1", 6000),
        ("postgresql:///d", "127.0.0.1", 5432),
        ("sqlite:////x/store.sqlite", "127.0.0.1", 8503),
    ],
)
@pytest.mark.parametrize("mode", ["single", "team"])
def test_dblens_does_not_connect_to_itself(tmp_path: Path, store_url: str, address: str, port: int, mode: Any) -> None:
    import ipaddress

    allowed = {"reach_loopback": True, "reach_private": True, "reach_sockets": True}
    policy = bounds.policy(settings(tmp_path, store_url=store_url, mode=mode, **allowed))
    assert guard.refusal(ipaddress.ip_address(address), port, policy)
    assert guard.refusal(ipaddress.ip_address(address), 7777, policy) is None
    if "host=/" in store_url or store_url == "postgresql:///d":
        assert "/var/run/postgresql" in policy.denied_files
    if store_url.startswith("sqlite"):
        assert "/x/store.sqlite" in policy.denied_files


def test_its_own_address_sockets_and_keys_are_out_of_bounds(tmp_path: Path) -> None:
    import ipaddress

    more = {
        "kek_file": tmp_path / "k",
        "audit_key_file": tmp_path / "a",
        "signing_key_file": tmp_path / "s",
        "socket": tmp_path / "api.sock",
    }
    policy = bounds.policy(settings(tmp_path, host="0.0.0.0", port=9000, **more))
    assert guard.refusal(ipaddress.ip_address("127.0.0.1"), 9000, policy)
    for name in ("k", "a", "s", "api.sock", "kek", "audit-key", "store.sqlite"):
        assert str(tmp_path / name) in policy.denied_files


def test_vault_is_taken_from_a_services_environment_and_left_in_a_persons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "_vaults", {})
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    assert bounds.reference_policy(settings(tmp_path)).hashicorp is None
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example.org")
    assert (
        bounds.reference_policy(settings(tmp_path)).hashicorp is None
    )  # no token: told when it is asked for something
    monkeypatch.setenv("VAULT_TOKEN", CANARY)
    found = bounds.reference_policy(settings(tmp_path)).hashicorp
    assert found is not None
    assert CANARY not in repr(found)
    assert os.environ["VAULT_TOKEN"] == CANARY
    taken = bounds.reference_policy(settings(tmp_path, mode="team")).hashicorp
    assert taken is not None
    assert "VAULT_TOKEN" not in os.environ
    assert bounds.reference_policy(settings(tmp_path, mode="team")).hashicorp is taken  # a second house of the process
