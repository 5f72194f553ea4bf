"""The door to connections: what is kept and never shown, who may do what, what is refused by name, what real servers say.

Over 600 lines because every method is tried against another organization, every grant and a secret that must not be seen.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from dblens.engines.access import connect as opening
from dblens.engines.access.guard import SINGLE_USER
from dblens.errors import Conflict, DBLensError, EngineError, InvalidInput, NotFound, PermissionDenied, VaultError
from dblens.redaction import Secret
from dblens.store import connections as kept
from dblens.store import plans, runs, teams
from dblens.store import secrets as sealed
from dblens.store import tables as t
from dblens.store.audit_find import Filter, every
from dblens.store.database import Store
from dblens.workspace import registry
from dblens.workspace.connections import Connections
from dblens.workspace.ways import Carried, ConnectionChanges, ConnectionDocument, NewConnection, Way, read_document
from tests.servers import Postgres
from tests.servers.process import PASSWORD, USER
from tests.store.conftest import store
from tests.workspace.rooms import LEASE, NOW, Rooms, move_in

__all__ = ["store"]

CANARY = "k4n4r13n-v0g3l"
URL = f"postgresql://ann:{CANARY}@db.example.org:6543/shop?sslmode=verify-full&application_name=x"


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path / 'own' / 'store.sqlite'}")
    opened.create_all()
    yield opened
    opened.close()


@pytest.fixture
def rooms(store: Store, tmp_path: Path) -> Iterator[Rooms]:
    """A laptop's rules, over a SQLite file and over PostgreSQL."""
    made = move_in(store, tmp_path / "home", references=("env:SHOP_*",))
    yield made
    made.house.close()


@pytest.fixture
def laptop(lite: Store, tmp_path: Path) -> Iterator[Rooms]:
    """A laptop's rules over a SQLite file, for what is about real servers."""
    made = move_in(lite, tmp_path / "home")
    yield made
    made.house.close()


@pytest.fixture
def team(lite: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rooms]:
    """A team's rules: nothing is reached that is not allowed."""
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    (tmp_path / "files").mkdir()
    made = move_in(lite, tmp_path / "home", mode="team", sqlite_roots=(tmp_path / "files",), references=("env:SHOP_*",))
    yield made
    made.house.close()


def door(rooms: Rooms, org: str = "acme", role: str = "developer", name: str | None = None, **more: Any) -> Connections:
    return rooms.doors(org, role, name, **more).connections


def make(rooms: Rooms, name: str = "shop", url: str = URL, **more: Any) -> str:
    """Return the id of a connection of acme's developer."""
    return door(rooms).create(NewConnection(name=name, url=Secret(url), **more)).id


def everything(store: Store) -> str:
    """Return all that the store holds, as text."""
    with store.read() as tx:
        return "\n".join(repr(tuple(row)) for table in t.metadata.sorted_tables for row in tx.execute(sa.select(table)))


def count(rooms: Rooms) -> int:
    with rooms.house.store.read() as tx:
        return int(tx.scalar(sa.select(sa.func.count()).select_from(t.connections)) or 0)


# ------------------------------------------------------------------------------------------------------------------------ making


def test_a_url_is_taken_apart_and_its_password_is_sealed(rooms: Rooms) -> None:
    new = NewConnection(name="shop", url=Secret(URL), environment="production", colour="#cc0000", read_only=True)
    made = door(rooms).create(new)
    assert made.fields == {
        "engine": "postgresql", "host": "db.example.org", "port": 6543, "database": "shop", "user": "ann",
        "options": {"application_name": "x"}, "tls": {"mode": "verify-full"},
    }  # fmt: skip
    assert made.address == "postgresql://ann@db.example.org:6543/shop?application_name=x"
    assert (made.environment, made.colour, made.read_only) == ("production", "#cc0000", True)
    assert (made.level, made.via, made.owner, made.version) == ("manage", "owner", "acme-developer", 1)
    assert [(secret.name, secret.kind) for secret in made.secrets] == [("password", "inline")]
    assert door(rooms).read("shop") == door(rooms).read(made.id) == made
    line = rooms.house.lines.line(rooms.org("acme"), made.id)
    assert line.plain() == {"password": CANARY}


def test_fields_may_be_a_mapping_and_secrets_texts(rooms: Rooms) -> None:
    new = NewConnection(
        name="shop",
        fields={"engine": "mysql", "host": "DB.example.org", "database": "shop", "user": "ann", "read_only_user": "r"},  # type: ignore[arg-type]
        secrets={"password": CANARY},  # type: ignore[dict-item]
        references={"read_only_password": "env:SHOP_READER"},
    )
    made = door(rooms).create(new)
    assert made.fields["host"] == "db.example.org"
    assert [(secret.name, secret.kind) for secret in made.secrets] == [
        ("password", "inline"),
        ("read_only_password", "reference"),
    ]


def test_the_key_of_a_certificate_is_a_secret_wherever_it_stands(rooms: Rooms) -> None:
    pem = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"
    fields = {
        "engine": "postgresql", "host": "h", "database": "d", "user": "u",
        "tls": {"cert": "-----BEGIN CERTIFICATE-----\n", "key": pem},
    }  # fmt: skip
    made = door(rooms).create(NewConnection(name="x", fields=fields))  # type: ignore[arg-type]
    assert [secret.name for secret in made.secrets] == ["tls.key"]
    assert CANARY not in everything(rooms.house.store) + repr(made)


def test_no_secret_is_seen_anywhere(rooms: Rooms) -> None:
    """In the store's tables, in the audit, in a repr, in an error, in a list, in an export."""
    doors, own = door(rooms), door(rooms, kind="local")
    given = NewConnection(name="shop", url=Secret(URL))
    changes = ConnectionChanges(secrets={"password": Secret(f"{CANARY}2")})
    seen = [repr(given), str(given), repr(Way(url=Secret(URL))), repr(changes)]
    made = doors.create(given)
    seen += [repr(doors.update(made.id, changes, version=1)), repr(doors.duplicate(made.id, "copy"))]
    seen += [repr(doors.list()), msgspec.json.encode(doors.export()).decode(), repr(doors.export())]
    for wrong in (
        lambda: doors.create(NewConnection(name="x", url=Secret(f"postgresql://a:{CANARY}@h@h/d"))),
        lambda: doors.create(NewConnection(name="x", url=Secret(f"mysqlx://a:{CANARY}@h/d"))),
        lambda: doors.create(NewConnection(name="shop", url=Secret(URL))),
        lambda: doors.create(NewConnection(name="x", url=Secret(f"postgresql://a:{CANARY}@h/d?hostaddr=evil"))),
        lambda: doors.read(URL),
        *(lambda call=call: call(own, URL) for _, call in calls(rooms).values()),  # type: ignore[misc]
        lambda: doors.create(NewConnection(name="x", fields={"engine": "sqlite", "password": CANARY})),  # type: ignore[arg-type]
        lambda: doors.create(NewConnection(name="x", fields={"engine": CANARY})),  # type: ignore[arg-type]
        lambda: doors.create(NewConnection(name="x", url=Secret(URL), references={"ssh.key": CANARY})),
    ):
        with pytest.raises(DBLensError) as failed:
            wrong()
        seen.append(str(failed.value) + repr(failed.value.__dict__))
    line = rooms.house.lines.line(rooms.org("acme"), made.id)
    seen += [repr(line), repr(rooms.house.lines), repr(rooms.house), repr(line.spec)]
    rooms.house.journal.flush()
    seen += [repr(row) for row in every(rooms.house.store, None, Filter())]
    seen.append(everything(rooms.house.store))
    for text in seen:
        assert CANARY not in text


def test_every_field_that_is_refused_is_named() -> None:
    with pytest.raises(InvalidInput) as failed:
        NewConnection(
            name="x",
            fields={"engine": "oracle", "hots": 1, "port": "a", "password": CANARY, "tunnel": {"host": 3}},  # type: ignore[arg-type]
        )
    for told in ("engine: one of postgresql", "hots: unknown, did you mean 'hosts'", "port: expected int", "password: is a secret",
                 "tunnel.host: expected str", "tunnel.user: missing", "tunnel.host_key: missing"):  # fmt: skip
        assert told in failed.value.message
    assert CANARY not in str(failed.value)


PG = {"engine": "postgresql", "host": "h", "database": "d", "user": "u"}
HOP = {"host": "hop", "user": "u", "host_key": f"ssh-ed25519 {'A' * 40}", "key_secret": "ssh.key"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "fields or a url"),
        ({"fields": PG, "url": Secret("sqlite:///x.db")}, "fields or a url"),
        ({"fields": PG, "secrets": {"pasword": Secret("x")}}, "pasword"),
        ({"fields": PG, "secrets": {"password": Secret("")}}, "password is empty"),
        ({"fields": PG, "secrets": {"password": 7}}, "password is a int"),
        ({"fields": PG, "references": {"password": "http://x"}}, "reference"),
        ({"fields": PG, "references": {"password": "env:DBLENS_KEK"}}, "not allowed"),
        ({"fields": PG, "references": {"password": "file:/proc/self/environ"}}, "not allowed"),
        ({"fields": PG, "secrets": {"password": Secret("x")}, "references": {"password": "env:X"}}, "twice"),
        ({"url": Secret(URL), "secrets": {"password": Secret("x")}}, "twice"),
        ({"url": Secret("sqlite:///x.db"), "secrets": {"password": Secret("x")}}, "SQLite has no 'password'"),
        ({"fields": PG, "secrets": {"read_only_password": Secret("x")}}, "read_only_user"),
        ({"fields": PG, "secrets": {"tls.key": Secret("x")}}, "tls.cert"),
        ({"fields": {**PG, "tunnel": HOP}}, "'ssh.key' is missing"),
        ({"fields": {**PG, "tls": {"cert": "-----BEGIN CERTIFICATE-----"}}}, "'tls.key' is missing"),
        ({"fields": {**PG, "port": 0}}, "port"),
        ({"fields": {**PG, "host": "a,b"}}, "several hosts"),
        ({"fields": PG, "name": " "}, "name is empty"),
        ({"fields": PG, "name": "x" * 101}, "101"),
        ({"fields": PG, "name": "a\nb"}, "cannot be seen"),
        ({"fields": PG, "name": "a\u202eb"}, "cannot be seen"),
        ({"fields": PG, "name": "a" * 32}, "looks like an id"),
        ({"fields": PG, "name": "postgresql://x"}, "looks like an id"),
        ({"fields": PG, "name": "sqlite:x"}, "looks like an id"),
        ({"fields": PG, "name": ".."}, "looks like an id"),
        ({"fields": PG, "colour": "red;background:url(x)"}, "colour"),
        ({"fields": PG, "environment": "prod"}, "environment"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_nothing_is_written(laptop: Rooms, given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as failed:
        door(laptop).create(NewConnection(**{"name": "x", **given}))
    assert told in failed.value.message
    assert count(laptop) == 0
    assert "secrets" not in everything(laptop.house.store)


# Attacks 12 and 13: what a URL's query, or an option, must not be able to say.
OVERRIDES = [
    *((f"postgresql://u@good.example.org/d?{q}", q.partition("=")[0]) for q in (
        "host=evil", "hostaddr=127.0.0.1", "port=1", "dbname=x", "user=postgres", "service=x", "servicefile=/x", "passfile=/etc/passwd",
        "sslcert=/x", "sslkey=/x", "sslrootcert=/x", "sslcrl=/x", "sslcrldir=/x", "sslkeylogfile=/tmp/x", "gsslib=gssapi", "krbsrvname=x",
        "options=-crole%3Dpostgres", "requirepeer=x", "password=x", "require_auth=none", "client_encoding=x", "sslpassword=x",
    )),
    *((f"mysql://u@good.example.org/d?{q}", q.partition("=")[0]) for q in (
        "host=evil", "unix_socket=/x", "local_infile=1", "allow_local_infile=true", "read_default_file=/x", "init_command=x", "ssl_ca=/x",
        "ssl_key=/x", "plugin_dir=/x", "passwd=x",
    )),
    *((f"mongodb://u@good.example.org/d?{q}", q.partition("=")[0]) for q in (
        "tlsCAFile=/x", "tlsCertificateKeyFile=/x", "tlsInsecure=true", "tlsAllowInvalidCertificates=true", "proxyHost=evil",
        "authMechanismProperties=x", "TLSINSECURE=true",
    )),
    *((f"sqlite:///x.db?{q}", q.partition("=")[0]) for q in ("vfs=x", "cache=shared", "nolock=1")),
]  # fmt: skip


@pytest.mark.parametrize(("url", "parameter"), OVERRIDES)
def test_a_query_overrides_nothing(team: Rooms, url: str, parameter: str) -> None:
    for attempt in (
        lambda: door(team).create(NewConnection(name="x", url=Secret(url))),
        lambda: door(team).try_(Way(url=Secret(url))),
    ):
        with pytest.raises(InvalidInput, match=parameter):
            attempt()
    made = door(team).create(NewConnection(name="good", fields=PG))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=parameter):
        door(team).update(made.id, ConnectionChanges(fields={"options": {parameter: "x"}}), version=1)
    assert count(team) == 1


# ----------------------------------------------------------------------------------------------------------------------- looking


def test_a_list_holds_what_is_shared_and_says_why(rooms: Rooms) -> None:
    mine = make(rooms)
    other = rooms.connection("acme", "notes", rooms.person("acme", "developer", "eve").user_id, path="/x")
    reader = rooms.person("acme", "analyst")
    assert [item.id for item in door(rooms).list().items] == [mine]
    assert door(rooms, role="analyst").list().items == ()
    door(rooms).share(mine, reader.name, "view")
    (found,) = door(rooms, role="analyst").list().items
    assert (found.id, found.level, found.via) == (mine, "view", "user")
    every_one = {item.id: (item.level, item.via) for item in door(rooms, role="admin").list().items}
    assert every_one == {mine: ("manage", "role"), other: ("manage", "role")}
    limited = door(rooms, role="admin", connections=(other,)).list().items
    assert [item.id for item in limited] == [other]
    assert door(rooms, "beta", "admin").list().items == ()


def test_a_list_is_filtered_and_comes_in_pages(rooms: Rooms) -> None:
    doors = door(rooms)
    for number in range(5):
        make(rooms, f"shop-{number}", environment="production" if number % 2 else "dev")
    make(rooms, "notes", "sqlite:///notes.db")
    assert [item.name for item in doors.list(engine="sqlite").items] == ["notes"]
    assert [item.name for item in doors.list(search="SHOP", environment="production").items] == ["shop-1", "shop-3"]
    names, after = [], None
    while True:
        page = doors.list(limit=2, after=after)
        names += [item.name for item in page.items]
        if (after := page.after) is None:
            break
    assert names == [*(f"shop-{n}" for n in range(5)), "notes"]
    for limit in (0, 201, -1):
        with pytest.raises(InvalidInput):
            doors.list(limit=limit)


def test_a_connection_that_this_version_does_not_understand_is_still_listed(rooms: Rooms) -> None:
    id = rooms.connection("acme", "old", rooms.person("acme", "developer").user_id, from_the_future=True)
    assert door(rooms).read(id).address == ""
    assert door(rooms).test(id).cause == "input"


# ------------------------------------------------------------------------------------------------------- who may do what


def calls(rooms: Rooms) -> dict[str, tuple[str, Callable[[Connections, str], object]]]:
    """Return every method on one connection, with the level it needs, written by hand."""
    heir = rooms.person("acme", "developer", "heir").name
    return {
        "read": ("view", lambda d, c: d.read(c)),
        "export": ("view", lambda d, c: d.export([c])),
        "test": ("use", lambda d, c: d.test(c)),
        "pool": ("use", lambda d, c: d.pool(c)),
        "grants": ("manage", lambda d, c: d.grants(c)),
        "share": ("manage", lambda d, c: d.share(c, heir, "view")),
        "unshare": ("manage", lambda d, c: d.unshare(c, heir)),
        "update": ("manage", lambda d, c: d.update(c, ConnectionChanges(colour="red"), version=_version(rooms, c))),
        "duplicate": ("manage", lambda d, c: d.duplicate(c, f"copy-{os.urandom(4).hex()}")),
        "create_database": ("manage", lambda d, c: d.create_database(c, f"{os.urandom(4).hex()}.db")),
        "transfer": ("owner", lambda d, c: d.transfer(c, heir)),
        "delete": ("manage", lambda d, c: d.delete(c)),
    }


def _version(rooms: Rooms, reference: str) -> int:
    with rooms.house.store.read() as tx:
        for org in rooms.orgs.values():
            for item in kept.list_connections(tx, org, limit=200).items:
                if reference in (item.id, item.name):
                    return item.version
    return 1


def test_the_calls_above_are_all_there_are() -> None:
    mine = {about.method for about in registry.load() if about.noun == "connection" and about.on == "connection"}
    assert mine == {"read", "export", "test", "pool", "grants", "share", "unshare", "update", "duplicate", "create_database",
                    "transfer", "delete"}  # fmt: skip


@pytest.mark.parametrize("level", ["none", "view", "use", "manage", "team", "owner", "admin"])
def test_levels(laptop: Rooms, tmp_path: Path, level: str) -> None:
    reach = {"none": 0, "view": 1, "use": 2, "manage": 3, "team": 2, "owner": 4, "admin": 4}[level]
    for name, (needed, call) in calls(laptop).items():
        path = tmp_path / f"{name}.db"
        sqlite3.connect(path).close()
        owner = door(laptop, name="owner")
        id = owner.create(NewConnection(name=f"c-{name}", url=Secret(f"sqlite:///{path}"))).id
        owner.share(id, laptop.person("acme", "developer", "heir").name, "use")
        who = laptop.person("acme", "developer", "guest")
        if level in ("view", "use", "manage"):
            owner.share(id, who.name, level)  # type: ignore[arg-type]
        if level == "team":
            with laptop.house.store.write() as tx:
                crew = teams.create_team(tx, laptop.org("acme"), f"crew-{name}", now=NOW).id
                teams.add_to_team(tx, laptop.org("acme"), crew, who.user_id)
            owner.share(id, f"crew-{name}", "use", kind="team")
        doors = (
            owner
            if level == "owner"
            else door(laptop, role="admin")
            if level == "admin"
            else door(laptop, name="guest")
        )
        if reach >= {"view": 1, "use": 2, "manage": 3, "owner": 4}[needed]:
            call(doors, id)
        else:
            with pytest.raises(NotFound if reach == 0 else PermissionDenied):
                call(doors, id)
            assert owner.read(id).version == 1


@pytest.mark.parametrize("by", ["id", "name"])
def test_another_organization_finds_nothing(rooms: Rooms, by: str) -> None:
    """Attack 1: by the id that an outsider knows, and by the name that an outsider guesses."""
    id = make(rooms)
    before = everything(rooms.house.store)
    for name, (_, call) in calls(rooms).items():
        with pytest.raises(NotFound) as failed:
            call(door(rooms, "beta", "admin"), id if by == "id" else "shop")
        assert "shop" not in failed.value.message or by == "name", name
    with rooms.house.store.read() as tx:
        assert kept.get_connection(tx, rooms.org("acme"), id).version == 1
    assert before.count("'shop'") == everything(rooms.house.store).count("'shop'") or by == "name"


def test_a_role_without_the_permission_needs_more_than_a_grant(rooms: Rooms) -> None:
    id = make(rooms)
    for role in ("viewer", "analyst"):
        door(rooms).share(id, rooms.person("acme", role).name, "manage")
        for name in ("update", "share", "delete", "duplicate", "create_database", "export"):
            with pytest.raises(PermissionDenied):
                calls(rooms)[name][1](door(rooms, role=role), id)
        with pytest.raises(PermissionDenied):
            door(rooms, role=role).create(NewConnection(name="x", url=Secret(URL)))
        with pytest.raises(PermissionDenied):
            door(rooms, role=role).try_(Way(url=Secret(URL)))
    with pytest.raises(PermissionDenied):
        door(rooms, scopes=("connection.read",)).delete(id)


# ---------------------------------------------------------------------------------------------------------------------- changing


def test_a_change_needs_the_version_that_was_read(rooms: Rooms) -> None:
    id, doors = make(rooms), door(rooms)
    made = doors.update(id, ConnectionChanges(name="webshop", environment="staging", read_only=True), version=1)
    assert (made.name, made.environment, made.read_only, made.version) == ("webshop", "staging", True, 2)
    with pytest.raises(Conflict, match="version 2, not 1"):
        doors.update(id, ConnectionChanges(colour="red", secrets={"password": Secret("other")}), version=1)
    assert rooms.house.lines.line(rooms.org("acme"), id).plain() == {"password": CANARY}
    make(rooms, "taken")
    with pytest.raises(Conflict, match="taken"):
        doors.update(id, ConnectionChanges(name="taken"), version=2)
    with pytest.raises(InvalidInput, match="nothing"):
        doors.update(id, ConnectionChanges(), version=2)
    assert doors.read(id).version == 2


def test_fields_are_merged_and_null_removes_one(rooms: Rooms) -> None:
    id, doors = make(rooms), door(rooms)
    made = doors.update(id, ConnectionChanges(fields={"database": "other", "options": None}), version=1)
    assert made.fields == {
        "engine": "postgresql", "host": "db.example.org", "port": 6543, "database": "other", "user": "ann",
        "tls": {"mode": "verify-full"},
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="nope: unknown"):
        doors.update(id, ConnectionChanges(fields={"nope": 1}), version=2)
    with pytest.raises(InvalidInput, match="for good"):
        doors.update(id, ConnectionChanges(fields={"engine": "mysql", "options": None}), version=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "evil.example.org"}, {"port": 1}, {"host": None, "socket": "/tmp/x", "tls": None}, {"tls": {"mode": "disable"}},
        {"tls": None}, {"tls": {"ca": "-----BEGIN CERTIFICATE-----"}},
        {"tunnel": {"host": "evil", "user": "u", "host_key": HOP["host_key"], "password_secret": "password"}},
    ],
)  # fmt: skip
def test_a_secret_is_not_carried_to_another_server(rooms: Rooms, fields: dict[str, Any]) -> None:
    """Who manages a connection may use its password, not read it: not by sending it to a server of their own either."""
    id, guest = make(rooms), rooms.person("acme", "developer", "guest")
    door(rooms).share(id, guest.name, "manage")
    doors = door(rooms, name="guest")
    with pytest.raises(InvalidInput, match="leads elsewhere"):
        doors.update(id, ConnectionChanges(fields=fields), version=1)
    assert doors.read(id).fields["host"] == "db.example.org"
    made = doors.update(id, ConnectionChanges(fields=fields, secrets={"password": Secret("theirs")}), version=1)
    assert made.version == 2
    assert rooms.house.lines.line(rooms.org("acme"), id).plain() == {"password": "theirs"}


def test_secrets_are_replaced_and_removed(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    id, doors, org = make(rooms), door(rooms), rooms.org("acme")
    monkeypatch.setenv("SHOP_PASSWORD", "from outside")
    made = doors.update(id, ConnectionChanges(references={"password": "env:SHOP_PASSWORD"}), version=1)
    assert [(each.name, each.kind) for each in made.secrets] == [("password", "reference")]
    assert rooms.house.lines.line(org, id).plain() == {"password": "from outside"}
    made = doors.update(id, ConnectionChanges(secrets={"password": None}), version=2)
    assert made.secrets == ()
    assert made.version == 3
    assert rooms.house.lines.line(org, id).plain() == {}
    with pytest.raises(InvalidInput, match="no_such"):
        doors.update(id, ConnectionChanges(secrets={"no_such": None}), version=3)


def test_a_connection_in_use_is_not_deleted(rooms: Rooms) -> None:
    id, doors, org = make(rooms), door(rooms), rooms.org("acme")
    who = rooms.person("acme", "developer")
    with rooms.house.store.write() as tx:
        run = runs.create_run(tx, org, "migration.apply", user_id=who.user_id, connection_id=id, now=NOW)
        template = plans.create_template(
            tx, org, name="nightly", kind="migration", body={"target": id}, created_by=who.user_id, now=NOW
        )
    with pytest.raises(Conflict, match=f"run {run.id}.*template 'nightly'"):
        doors.delete(id)
    with pytest.raises(Conflict, match="run"):
        doors.delete(id, force=True)
    with rooms.house.store.write() as tx:
        runs.request_cancel(tx, org, run.id, now=NOW)
    with pytest.raises(Conflict, match="template"):
        doors.delete(id)
    with rooms.house.store.write() as tx:
        run = runs.create_run(tx, org, "migration.apply", user_id=who.user_id, lock=f"connection:{id}", now=NOW)
        runs.claim_one(tx, org, run.id, "w", lease=LEASE, now=NOW)
    with pytest.raises(Conflict, match=run.id):  # the target of a migration: its first connection is another
        doors.delete(id, force=True)
    with rooms.house.store.write() as tx:
        runs.finish(tx, org, run.id, "w", "succeeded", now=NOW)
        assert sealed.list_secrets(tx, org, id)
        assert template.name == "nightly"
    doors.delete(id, force=True)
    with rooms.house.store.read() as tx:
        assert sealed.list_secrets(tx, org, id) == ()
    with pytest.raises(NotFound):
        doors.read(id)


def test_a_copy_has_its_own_seals(rooms: Rooms) -> None:
    """Attack 29 where connections meet: a sealed secret that was copied into another's place is refused, and told."""
    id, doors, org = make(rooms), door(rooms), rooms.org("acme")
    other = make(rooms, "other", "postgresql://bob:their-own@db.example.org:6543/other")
    doors.share(id, rooms.person("acme", "analyst").name, "use")
    copy = doors.duplicate(id, "copy")
    assert (copy.name, copy.fields, copy.version) == ("copy", doors.read(id).fields, 1)
    assert doors.grants(copy.id).items == ()
    assert rooms.house.lines.line(org, copy.id).plain() == {"password": CANARY}
    c = t.secrets.c
    with rooms.house.store.write() as tx:
        for swapped in (other, copy.id):
            stolen = tx.execute(sa.select(c.kind, c.key_id, c.value).where(c.record_id == id)).one()
            tx.execute(t.secrets.update().where(c.record_id == swapped).values(**stolen._asdict()))
    for swapped in (other, copy.id):
        with pytest.raises(VaultError, match="cannot be opened"):
            rooms.house.lines.line(org, swapped)
        found = doors.test(swapped)
        assert (found.ok, found.cause) == (False, "secret")
        assert CANARY not in repr(found)
    with pytest.raises(Conflict):
        doors.duplicate(id, "other")


# ----------------------------------------------------------------------------------------------------------------------- sharing


def test_sharing_counts_at_once_and_ends_at_once(rooms: Rooms) -> None:
    id, doors, guest = make(rooms), door(rooms), rooms.person("acme", "developer", "guest")
    theirs = door(rooms, name="guest")
    for level in ("view", "use", "manage", "view"):
        made = doors.share(id, "guest@example.org", level)  # type: ignore[arg-type]
        assert (made.kind, made.id, made.name, made.level) == ("user", guest.user_id, "guest", level)
        assert theirs.read(id).level == level
    assert [(each.name, each.level) for each in doors.grants(id).items] == [("guest", "view")]
    doors.unshare(id, guest.user_id)
    with pytest.raises(NotFound):
        theirs.read(id)
    with pytest.raises(NotFound):
        doors.unshare(id, "guest")


def test_nobody_shares_what_they_do_not_hold(rooms: Rooms) -> None:
    id, doors, guest = make(rooms), door(rooms), rooms.person("acme", "developer", "guest")
    doors.share(id, guest.name, "use")
    for level in ("view", "use", "manage"):
        with pytest.raises(PermissionDenied):
            door(rooms, name="guest").share(id, guest.name, level)  # type: ignore[arg-type]
    assert door(rooms, name="guest").read(id).level == "use"
    outsider = rooms.person("beta", "developer")
    for who, kind in ((outsider.name, "user"), ("nobody", "user"), (outsider.user_id, "user"), ("crew", "team")):
        with pytest.raises(NotFound):
            doors.share(id, who, "view", kind=kind)  # type: ignore[arg-type]
    for wrong in ({"level": "own"}, {"kind": "role"}):
        with pytest.raises(InvalidInput):
            doors.share(**{"connection": id, "to": guest.name, "level": "view", **wrong})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="owns"):
        doors.share(id, "acme-developer", "view")


def test_a_connection_is_given_away_by_its_owner_or_an_admin(rooms: Rooms) -> None:
    id, doors, guest = make(rooms), door(rooms), rooms.person("acme", "developer", "guest")
    doors.share(id, guest.name, "manage")
    with pytest.raises(PermissionDenied, match="only the owner"):
        door(rooms, name="guest").transfer(id, guest.name)
    with pytest.raises(NotFound):
        doors.transfer(id, rooms.person("beta", "developer").name)
    doors.transfer(id, guest.name)
    assert door(rooms, name="guest").read(id).via == "owner"
    assert door(rooms, name="guest").grants(id).items == ()
    with pytest.raises(NotFound):
        doors.read(id)
    door(rooms, role="admin").transfer(id, "acme-developer")
    assert doors.read(id).owner == "acme-developer"


# ---------------------------------------------------------------------------------------------------------------------- carrying


def test_connections_travel_without_their_secrets(rooms: Rooms) -> None:
    make(rooms, environment="production", colour="red", read_only=True)
    make(rooms, "notes", "sqlite:////srv/notes.db")
    document = door(rooms).export()
    text = msgspec.json.encode(document)
    assert CANARY.encode() not in text
    again = read_document(msgspec.json.decode(text))
    assert again == document
    assert [each.name for each in door(rooms).export(["notes"]).connections] == ["notes"]
    theirs = door(rooms, "beta", "developer")
    told = theirs.import_(again, dry_run=True)
    assert told.created == ("notes", "shop")
    assert theirs.list().items == ()
    done = theirs.import_(again)
    assert (done.created, done.skipped, done.lacking) == (("notes", "shop"), (), {"shop": ("password",)})
    made = theirs.read("shop")
    assert (made.fields, made.environment, made.colour, made.read_only) == (
        door(rooms).read("shop").fields, "production", "red", True,
    )  # fmt: skip
    assert made.secrets == ()
    assert theirs.update("shop", ConnectionChanges(secrets={"password": Secret("x")}), version=1).version == 2
    with pytest.raises(Conflict, match="'notes', 'shop'"):
        theirs.import_(again)
    assert theirs.import_(again, existing="skip").skipped == ("notes", "shop")


def test_a_document_is_kept_whole_or_not_at_all(rooms: Rooms) -> None:
    good = Carried(name="good", fields=PG)  # type: ignore[arg-type]
    wrong = (
        good,
        Carried(name="", fields=PG),  # type: ignore[arg-type]
        good,
        msgspec.structs.replace(good, name="colour", colour="#12"),
        msgspec.structs.replace(good, name="env", environment="prod"),  # type: ignore[arg-type]
        msgspec.structs.replace(good, name="secret", secrets=("x",)),
        msgspec.structs.replace(good, name="key", fields=msgspec.structs.replace(good.fields, port=0)),
    )
    with pytest.raises(InvalidInput) as failed:
        door(rooms).import_(ConnectionDocument(connections=wrong))
    for at in range(1, 7):
        assert f"connections[{at}]" in failed.value.message
    assert "connections[0]" not in failed.value.message
    assert count(rooms) == 0
    for given, told in (
        ([], "no document"),
        ({"format": "dblens/connections", "version": 2, "connections": []}, "another version"),
        ({"format": "dblens/connections", "version": 1, "connections": {}}, "expected a list"),
        (
            {
                "format": "dblens/connections",
                "version": 1,
                "x": 1,
                "connections": [{"name": 7, "fields": {"port": "x"}}],
            },
            "x: unknown; connections[0].name: expected str, got int; connections[0].fields.port: expected int | null, got str",
        ),
    ):
        with pytest.raises(InvalidInput) as refused:
            read_document(given)
        assert told in refused.value.message


# ------------------------------------------------------------------------------------------------------------- real servers


@pytest.mark.parametrize("server", ["pg15", "mariadb", "mongo", "sqlite"])
def test_a_connection_is_tried(
    laptop: Rooms, server: str, request: pytest.FixtureRequest, new_database: Callable[..., str]
) -> None:
    url = new_database(request.getfixturevalue(server))
    doors = door(laptop)
    assert doors.try_(Way(url=Secret(url))).ok
    id = make(laptop, "it", url)
    found = doors.test(id)
    assert found.ok, found
    assert found.version
    assert doors.test("it").ok
    if server in ("pg15", "mariadb"):
        wrong = doors.update(id, ConnectionChanges(secrets={"password": Secret(f"{CANARY}-wrong")}), version=1)
        found = doors.test(id)
        assert (found.ok, found.cause) == (False, "authentication")
        assert CANARY not in repr(found)
        doors.update(id, ConnectionChanges(references={"password": "env:SHOP_NOT_SET"}), version=wrong.version)
        found = doors.test(id)
        assert (found.cause, found.stage) == ("secret", "secret")
        assert "SHOP_NOT_SET" in found.message


@pytest.mark.parametrize("name", ["-Fc", "--file=/x", "host=evil passfile=/x", 'a"b', "postgresql://evil/x", "x' --"])
def test_a_database_name_is_a_name(laptop: Rooms, pg15: Postgres, name: str) -> None:
    """Attack 14: no name becomes an option or a connection string."""
    fields = {"engine": "postgresql", "host": "127.0.0.1", "port": pg15.port, "database": name, "user": USER}
    way = Way(fields=fields, secrets={"password": Secret(PASSWORD)})  # type: ignore[arg-type]
    found = door(laptop).try_(way)
    assert (found.ok, found.cause) == (False, "missing_database")
    base = {**fields, "database": "postgres"}
    made = door(laptop).create(NewConnection(name="base", fields=base, secrets=way.secrets))  # type: ignore[arg-type]
    try:
        new = door(laptop).create_database(made.id, name, name="new")
        assert door(laptop).test(new.id).ok
    finally:
        pg15.drop_database(name)


@pytest.mark.parametrize("server", ["pg15", "mariadb", "mongo"])
def test_a_new_database_on_the_server_of_a_connection(
    laptop: Rooms, server: str, request: pytest.FixtureRequest, new_database: Callable[..., str]
) -> None:
    running: Any = request.getfixturevalue(server)
    url = new_database(running)
    id = make(laptop, "it", url, environment="staging", colour="red")
    doors = door(laptop)
    name = f"new_{os.urandom(4).hex()}"
    try:
        made = doors.create_database(id, name)
        assert (made.name, made.fields["database"], made.environment, made.colour) == (name, name, "staging", "red")
        assert [each.name for each in made.secrets] == [each.name for each in doors.read(id).secrets]
        assert doors.test(made.id).ok
        with pytest.raises(Conflict, match="connection"):
            doors.create_database(id, "other", name=name)
        if server != "mongo":
            with pytest.raises(Conflict, match="database"):
                doors.create_database(id, name, name="again")
            with pytest.raises(InvalidInput, match="at most"):
                doors.create_database(id, "x" * 65)
        else:
            with laptop.house.lines.line(laptop.org("acme"), made.id).open() as opened:
                opened.session.execute('{"create": "things"}')
            with pytest.raises(Conflict, match="database"):
                doors.create_database(id, name, name="again")
            with pytest.raises(InvalidInput, match="does not take"):
                doors.create_database(id, "a.b")
        assert len(doors.list().items) == 2
    finally:
        running.drop_database(name)


def test_a_server_that_refuses_leaves_no_connection(laptop: Rooms, pg15: Postgres) -> None:
    id = make(laptop, "low", pg15.url("postgres", low=True))
    with pytest.raises((PermissionDenied, EngineError)):
        door(laptop).create_database(id, "forbidden_fruit")
    assert [item.name for item in door(laptop).list().items] == ["low"]


def test_a_new_sqlite_file(laptop: Rooms, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    id, doors = make(laptop, "a", f"sqlite:///{tmp_path / 'a.db'}"), door(laptop)
    made = doors.create_database(id, "b.db")
    assert made.fields["path"] == str(tmp_path / "b.db")
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
    assert doors.test(made.id).ok
    for taken in ("b.db", "a.db"):
        with pytest.raises(Conflict, match="already a file"):
            doors.create_database(id, taken, name="other")
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
    doors.create_database(id, "link.db")  # where the link leads, which the checks looked at
    with pytest.raises(NotFound):
        doors.create_database(id, "no/such/folder.db")
    with pytest.raises(InvalidInput):
        doors.create_database(id, "c.db", name="x" * 200)
    assert not (tmp_path / "c.db").exists()


@pytest.mark.parametrize("server", ["pg15", "mariadb", "sqlite"])
def test_a_read_only_connection_does_not_write(
    laptop: Rooms, server: str, request: pytest.FixtureRequest, new_database: Callable[..., str]
) -> None:
    url = new_database(request.getfixturevalue(server))
    lines, org = laptop.house.lines, laptop.org("acme")
    free, bound = make(laptop, "free", url), make(laptop, "bound", url, read_only=True)
    with closing(lines.line(org, free)) as line:
        session = line.connect()
        session.execute("CREATE TABLE t (a int)")
        session.execute("INSERT INTO t VALUES (1)")
        session.close()
    for statement in ("INSERT INTO t VALUES (2)", "DELETE FROM t", "CREATE TABLE u (a int)", "DROP TABLE t"):
        with closing(lines.line(org, bound)) as line, pytest.raises(DBLensError) as failed:
            line.connect().execute(statement)
        assert not isinstance(failed.value, NotFound)
        with pytest.raises(DBLensError), lines.session(org, bound) as session:
            session.execute(statement)
        with lines.link(org, bound) as link, pytest.raises(DBLensError):
            link.connect().execute(statement)
    with closing(lines.line(org, bound)) as line, pytest.raises(PermissionDenied, match="read-only"):
        line.connect(create=True)
    with pytest.raises(PermissionDenied, match="read-only"):
        door(laptop).create_database(bound, "x")
    with closing(lines.line(org, free)) as line:
        session = line.connect()
        assert [ref.name for ref in session.list_tables(session.namespaces()[0])] == ["t"]
    door(laptop).update(bound, ConnectionChanges(read_only=False), version=1)
    with lines.session(org, bound) as session:
        session.execute("INSERT INTO t VALUES (2)")


def test_a_trial_writes_nothing(laptop: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    free, bound = make(laptop, "free", url), make(laptop, "bound", url, read_only=True)
    opened, real = [], opening.connect

    def connect(*args: Any, **more: Any) -> opening.Opened:
        opened.append(real(*args, **more))
        return opened[-1]

    monkeypatch.setattr(opening, "connect", connect)
    assert door(laptop).test(free).ok
    assert door(laptop).test(bound).ok
    assert door(laptop).try_(Way(url=Secret(url))).ok
    assert [each.read_only for each in opened] == [False, True, True]
    assert all(each.closed for each in opened)


@pytest.mark.parametrize("server", ["pg15", "mariadb"])
def test_the_second_login_is_the_one_for_reading(
    laptop: Rooms, server: str, request: pytest.FixtureRequest, new_database: Callable[..., str]
) -> None:
    running: Any = request.getfixturevalue(server)
    url = new_database(running)
    reader = f"r_{os.urandom(4).hex()}"
    host = "" if server == "pg15" else "@'%'"
    with running.connect() as db:
        cursor = db.cursor()
        made = f"CREATE {'ROLE' if server == 'pg15' else 'USER'} {reader}{host} "
        cursor.execute(made + ("LOGIN PASSWORD 'reading'" if server == "pg15" else "IDENTIFIED BY 'reading'"))
        if server == "mariadb":
            cursor.execute(f"GRANT SELECT ON *.* TO {reader}{host}")
    try:
        id = make(laptop, "it", url)
        doors = door(laptop)
        doors.update(
            id,
            ConnectionChanges(fields={"read_only_user": reader}, secrets={"read_only_password": Secret("reading")}),
            version=1,
        )
        found = doors.test(id)
        assert found.ok, found
        assert found.read_only_verified is True
        lines, org = laptop.house.lines, laptop.org("acme")
        with lines.session(org, id, login="read_only") as session, pytest.raises(DBLensError):
            session.execute("CREATE TABLE no (a int)")
        assert set(doors.pool(id)) == {"read_only"}
    finally:
        with running.connect() as db:
            db.cursor().execute(f"DROP {'ROLE' if server == 'pg15' else 'USER'} {reader}{host}")


# --------------------------------------------------------------------------------------------------------- what is out of bounds

# Attack 11.
FORBIDDEN = [
    "127.0.0.1", "127.8.8.8", "localhost", "::1", "0.0.0.0", "::", "169.254.169.254", "169.254.1.1", "fe80::1", "10.0.0.1", "172.16.5.4",
    "192.168.1.1", "100.64.0.1", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fc00::1", "224.0.0.1", "255.255.255.255",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "metadata.google.internal", "metadata", "240.0.0.1",
]  # fmt: skip
NO_HOSTS = [
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "a,b",
    "http://x",
    "h:1:2",
    "evil host",
    "host=evil",
    "[::1",
]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_a_team_does_not_reach_inside(team: Rooms, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def dialled(*_: object, **__: object) -> Any:
        raise AssertionError("it was dialled")

    monkeypatch.setattr(socket, "create_connection", dialled)
    fields = {"engine": "postgresql", "host": host, "database": "d", "user": "u"}
    found = door(team).try_(Way(fields=fields))  # type: ignore[arg-type]
    assert (found.ok, found.cause) == (False, "forbidden"), found
    made = door(team).create(NewConnection(name="x", fields=fields))  # type: ignore[arg-type]
    assert door(team).test(made.id).cause == "forbidden"
    with pytest.raises(PermissionDenied):
        door(team).create_database(made.id, "y")
    hop = {
        **fields,
        "host": "db",
        "tunnel": {**HOP, "host": host, "key_secret": None, "password_secret": "ssh.password"},
    }
    hop["tunnel"].pop("key_secret")  # type: ignore[attr-defined]
    way = Way(fields=hop, secrets={"ssh.password": Secret("x")})  # type: ignore[arg-type]
    assert door(team).try_(way).cause == ("forbidden" if shutil.which("ssh") else "tunnel")


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused(team: Rooms, host: str) -> None:
    with pytest.raises(InvalidInput, match="host"):
        door(team).create(NewConnection(name="x", fields={**PG, "host": host}))  # type: ignore[arg-type]
    assert count(team) == 0


def test_the_stores_own_server_is_out_of_bounds_for_everybody(
    pg15: Postgres, new_database: Callable[..., str], tmp_path: Path
) -> None:
    url = new_database(pg15)
    opened = Store.open(url)
    opened.create_all()
    rooms = move_in(opened, tmp_path / "home")
    try:
        assert rooms.house.lines.policy.allow_loopback == SINGLE_USER.allow_loopback
        for host in ("127.0.0.1", "localhost", "127.0.0.2", "::ffff:127.0.0.1"):
            fields = {"engine": "postgresql", "host": host, "port": pg15.port, "database": "postgres", "user": USER}
            found = door(rooms).try_(Way(fields=fields, secrets={"password": Secret(PASSWORD)}))  # type: ignore[arg-type]
            assert (found.ok, found.cause) == (False, "forbidden"), host
    finally:
        rooms.house.close()


# Attack 19.
def test_sqlite_files_of_a_team_lie_in_their_folders(team: Rooms, lite: Store, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    sqlite3.connect(folder / "good.db").close()
    sqlite3.connect(tmp_path / "bad.db").close()
    (folder / "link.db").symlink_to(tmp_path / "bad.db")
    (folder / "own.db").symlink_to(lite.path or "")
    good = door(team).create(NewConnection(name="good", url=Secret("sqlite:///good.db")))
    assert good.fields["path"] == "good.db"
    assert door(team).test(good.id).ok
    for path in ("../bad.db", str(tmp_path / "bad.db"), "link.db", "own.db", str(lite.path), "/proc/self/environ", "/etc/passwd",
                 "x/../../bad.db", "/dev/shm/x.db"):  # fmt: skip
        for attempt in (
            lambda path=path: door(team).create(NewConnection(name="x", fields={"engine": "sqlite", "path": path})),
            lambda path=path: door(team).update(good.id, ConnectionChanges(fields={"path": path}), version=1),
            lambda path=path: door(team).create_database(good.id, path, name="x"),
            lambda path=path: door(team).import_(
                ConnectionDocument(connections=(Carried(name="x", fields={"engine": "sqlite", "path": path}),))  # type: ignore[arg-type]
            ),
        ):
            with pytest.raises((PermissionDenied, InvalidInput)):
                attempt()
        assert door(team).try_(Way(fields={"engine": "sqlite", "path": path})).ok is False  # type: ignore[arg-type]
    for path in ("file:good.db?mode=rwc", ":memory:", "a\0b"):
        with pytest.raises(InvalidInput):
            door(team).create(NewConnection(name="x", fields={"engine": "sqlite", "path": path}))  # type: ignore[arg-type]
    assert count(team) == 1
    (folder / "good.db").unlink()
    (folder / "good.db").symlink_to(tmp_path / "bad.db")  # exchanged after it was kept
    assert door(team).test(good.id).ok is False


def test_not_even_the_person_at_the_machine_opens_the_store(laptop: Rooms, lite: Store, tmp_path: Path) -> None:
    for path in (lite.path, tmp_path / "home" / "kek", tmp_path / "home" / "audit-key"):
        with pytest.raises((PermissionDenied, InvalidInput)):
            make(laptop, "x", f"sqlite:///{path}")


def test_a_team_allows_the_references_that_its_settings_name(team: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "x")
    monkeypatch.setenv("OTHER", CANARY)
    for text in ("env:OTHER", "env:NOT_THERE", "file:/etc/passwd", "vault:kv/x#y", "keyring:a/b", "env:VAULT_TOKEN"):
        with pytest.raises(InvalidInput, match="not allowed here"):
            door(team).create(NewConnection(name="x", fields=PG, references={"password": text}))  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="not allowed here"):
            door(team).try_(Way(fields=PG, references={"password": text}))  # type: ignore[arg-type]
    made = door(team).create(NewConnection(name="x", fields=PG, references={"password": "env:SHOP_PASSWORD"}))  # type: ignore[arg-type]
    assert team.house.lines.line(team.org("acme"), made.id).plain() == {"password": "x"}


def test_what_is_done_is_in_the_audit(rooms: Rooms) -> None:
    id = make(rooms)
    door(rooms).share(id, rooms.person("acme", "analyst").name, "use")
    door(rooms).delete(id)
    rooms.house.journal.flush()
    rows = [row for row in every(rooms.house.store, None, Filter()) if row.phase == "ended"]
    told = [(row.action, row.connection_id or row.target, row.outcome) for row in rows]
    assert told == [(f"connection.{verb}", id, "ok") for verb in ("create", "share", "delete")]
    assert rows[0].detail["facts"] == {"engine": "postgresql", "secrets": ["password"]}
    assert all(isinstance(row.at, dt.datetime) for row in rows)
