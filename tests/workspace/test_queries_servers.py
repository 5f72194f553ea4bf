"""Questions through the one door to real servers: who leaves stops them, who cancels stops theirs, and what reads writes nothing.

What the server itself lists as running is the judge of every stop.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from dblens.accounts import login
from dblens.api.app import create_app
from dblens.errors import Cancelled, ConfirmationNeeded, Conflict, InvalidInput, NotFound, PermissionDenied, TimedOut
from dblens.redaction import Secret
from dblens.store import accounts
from dblens.workspace import entrance
from dblens.workspace.ways import NewConnection
from tests.api.conftest import FAST, HERE, serving
from tests.memory import grown
from tests.servers.fixtures import require
from tests.workspace.desk import Desk, until

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")

SEED = int(os.environ.get("DBLENS_SEED", "11"))


class Side:
    """A server's own words for what the tests ask of it."""

    def __init__(self, name: str) -> None:
        self.server: Any = require(name)
        self.postgres = name.startswith("pg")
        self.url: str = self.server.create_database()
        database = self.url.rpartition("/")[2]
        self.db = self.server.connect(database)

    def lookup(self, sql: str) -> list[tuple[Any, ...]]:
        with self.db.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def sleep(self, seconds: float, mark: str) -> str:
        return f"select {'pg_sleep' if self.postgres else 'sleep'}({seconds}) as {mark}"

    def endless(self, mark: str) -> str:
        """More rows than anybody waits for."""
        if self.postgres:
            return f"select a.n as {mark} from generate_series(1, 1000000) a(n), generate_series(1, 1000000) b(n)"
        hundred = "with recursive r as (select 1 n union all select n + 1 from r where n < 100) "
        # MySQL's hash join would write all of it to disk before the first row.
        return f"{hundred}select /*+ no_bnl() */ a.n as {mark} from r a, r b, r c, r d, r e, r f"

    def runs(self, mark: str) -> bool:
        """Whether the server lists a statement with that mark as one that runs."""
        if self.postgres:
            where = f"pg_stat_activity where state = 'active' and query like '%{mark}%' and pid <> pg_backend_pid()"
        else:
            where = f"information_schema.processlist where info like '%{mark}%' and id <> connection_id()"
        return self.lookup(f"select count(*) from {where}") != [(0,)]


@pytest.fixture(params=["pg15", "pg18", "mysql", "mariadb"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    made = Side(request.param)
    made.lookup("create table t (id integer primary key, x varchar(20))")
    made.lookup("insert into t values (1, 'one'), (2, 'two')")
    yield made
    made.db.close()


@pytest.fixture
def desk(tmp_path: Path, side: Side, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path)
    reach = msgspec.structs.replace(
        made.house.lines.policy, allow_loopback=True
    )  # the test servers are on this machine
    monkeypatch.setattr(made.house.lines, "policy", reach)
    for name, environment in (("src", "dev"), ("live", "production")):
        made.at_home().connections.create(NewConnection(name=name, url=Secret(side.url), environment=environment))
    yield made
    made.close()


def sink(_: bytes) -> None:
    return None


class Asking(threading.Thread):
    """A question in a thread, and what became of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call, self.error = call, None
        self.start()

    def run(self) -> None:
        try:
            self.call()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error  # type: ignore[assignment]


def gone(side: Side, mark: str, since: float) -> None:
    """The server lists it no more, a second after it was stopped at the latest."""
    while side.runs(mark):
        assert time.monotonic() - since < 1.0, "it still runs on the server"
        time.sleep(0.005)
    assert time.monotonic() - since < 1.0


# ---------------------------------------------------------------------------------------------------------------------- leaving


def test_a_client_that_leaves_stops_it_on_the_server(desk: Desk, side: Side) -> None:
    at = entrance.accounts_of(desk.house)
    with desk.house.store.read() as tx:
        user = accounts.find_user(tx, "ann")
    token = login.open_session(at, user, HERE, kind="api").tokens.access
    head = {"Authorization": f"Bearer {token}", "X-DBLens-Organization": desk.orgs["acme"]}
    with serving(create_app(desk.house, rates=FAST)) as url, httpx.Client(base_url=url, headers=head) as client:
        for text, read in ((side.sleep(30, "left_waiting"), False), (side.endless("left_reading"), True)):
            mark = "left_reading" if read else "left_waiting"
            body = {"connection": "src", "text": text, "limit": None, "octets": None}
            with (
                contextlib.suppress(httpx.ReadTimeout),
                client.stream("POST", "/api/v1/queries/run", json=body, timeout=2) as answer,
            ):
                assert answer.status_code == 200, answer.read()
                until(lambda mark=mark: side.runs(mark))
                if read:
                    assert next(answer.iter_raw())
            gone(side, mark, time.monotonic())
            until(lambda: desk.house.talks.at_work == 0, 2)
    assert desk.as_("ann").query("src", "select x from t where id = 2").scalar() == "two"


def test_who_leaves_a_stream_stops_it(desk: Desk, side: Side) -> None:
    with desk.as_("ann").stream("src", side.endless("streamed")) as rows:
        assert next(iter(rows)).num_rows > 0
        assert side.runs("streamed")
    gone(side, "streamed", time.monotonic())


@pytest.mark.nightly
def test_ten_million_rows_stream_by_in_bounded_memory(desk: Desk, side: Side) -> None:
    _millions(desk, "src", f"{side.endless('m')} limit 10000000")


@pytest.mark.nightly
def test_ten_million_rows_of_a_file_stream_by_in_bounded_memory(tmp_path: Path) -> None:
    made = Desk(tmp_path)
    made.connection("lite", rows=1)
    text = "with recursive r(n) as (select 1 union all select n + 1 from r) select n, 'text' as t from r limit 10000000"
    try:
        _millions(made, "lite", text)
    finally:
        made.close()


def _millions(desk: Desk, connection: str, text: str) -> None:
    desk.as_("ann").query(connection, "select 1")
    with grown() as growth, desk.as_("ann").stream(connection, text) as rows:
        count = sum(batch.num_rows for batch in rows)
    print(f"{growth.kib} KiB more for {count} rows")
    assert count == 10_000_000
    assert growth.kib <= 64 * 1024


# ------------------------------------------------------------------------------------------------------------------- cancelling


def cancelled(desk: Desk, side: Side, times: int) -> None:
    """Cancel questions at random moments while another one of the same person goes on."""
    rng, ws = random.Random(SEED), desk.as_("ann").queries
    beside = Asking(lambda: ws.run("src", side.sleep(times / 5, "beside"), sink))
    for turn in range(times):
        query, mark = secrets.token_hex(16), f"stopped_{turn}"
        text = side.endless(mark) if turn % 2 else side.sleep(30, mark)
        asking = Asking(lambda text=text, query=query: ws.run("src", text, sink, limit=None, octets=None, query=query))
        until(lambda: desk.house.talks.at_work == 1 + beside.is_alive())
        time.sleep(rng.uniform(0, 0.2))
        with pytest.raises(NotFound):  # another person's word is of nothing
            desk.as_("bob").queries.cancel(query)
        told = time.monotonic()
        assert ws.cancel(query) is True
        gone(side, mark, told)
        asking.join(5)
        assert isinstance(asking.error, Cancelled), asking.error
        assert desk.as_("ann").query("src", "select x from t where id = 1").scalar() == "one"
    beside.join(60)
    assert beside.error is None, "the other question was stopped too"


def test_a_cancel_reaches_the_server(desk: Desk, side: Side) -> None:
    cancelled(desk, side, 10)


@pytest.mark.nightly
def test_a_hundred_cancels_reach_the_server(desk: Desk, side: Side) -> None:
    cancelled(desk, side, 100)


def test_the_deadline_is_of_the_whole(desk: Desk, side: Side) -> None:
    begun = time.monotonic()
    for text in (side.sleep(30, "late"), side.endless("late"), f"select 1; {side.sleep(30, 'late')}"):
        with pytest.raises(TimedOut):
            desk.as_("ann").queries.run("src", text, sink, limit=None, octets=None, timeout=0.5)
        gone(side, "late", time.monotonic())
    assert time.monotonic() - begun < 10


# -------------------------------------------------------------------------------------------------------------- reading, writing


def test_what_reads_writes_nothing(desk: Desk, side: Side) -> None:
    ws = desk.as_("ann")
    for text in (
        "delete from t",
        "insert into t values (3, 'three')",
        "create table u (id integer)",
        "drop table t",
        "select 1; delete from t",
    ):
        with pytest.raises(PermissionDenied):
            ws.queries.run("src", text, sink)
    with pytest.raises(InvalidInput, match="manages transactions"):
        ws.queries.run("src", "commit; delete from t", sink)
    assert side.lookup("select id, x from t order by id") == [(1, "one"), (2, "two")]
    ran = ws.query("src", "select count(*) from t", read_only=True).ran
    active = {layer.name for layer in ran.layers if layer.active}
    assert "transaction" in active
    assert "allow_list" in active


def test_production_is_written_once_it_is_confirmed(desk: Desk, side: Side) -> None:
    ws, text = desk.as_("ann").queries, "delete from t"
    with pytest.raises(ConfirmationNeeded) as told:
        ws.write("live", text, sink)
    assert any("WHERE" in warning for warning in told.value.warnings), told.value.warnings
    assert side.lookup("select count(*) from t") == [(2,)]
    ran = ws.write("live", text, sink, confirm=told.value.confirm)
    assert ran.statements[0].affected == 2
    assert side.lookup("select count(*) from t") == [(0,)]


def test_a_transaction_that_does_nothing_is_rolled_back_on_the_server(desk: Desk, side: Side) -> None:
    ws = desk.as_("ann").queries
    kept = ws.begin("src")
    ws.write("src", "insert into t values (3, 'kept')", sink, transaction=kept.id)
    assert side.lookup("select count(*) from t") == [(2,)]
    assert ws.commit(kept.id).statements == 1
    assert side.lookup("select count(*) from t") == [(3,)]
    left = ws.begin("src", idle_seconds=1)
    ws.write("src", "update t set x = 'lost' where id = 1", sink, transaction=left.id)
    begun = time.monotonic()
    side.lookup("update t set x = 'free' where id = 1")  # waits for the row until the transaction is gone
    assert time.monotonic() - begun < 10
    assert side.lookup("select x from t where id = 1") == [("free",)]
    with pytest.raises(Conflict, match="nothing was done in it"):
        ws.commit(left.id)
