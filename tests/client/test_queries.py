"""Queries of a service: whoever leaves stops theirs on the server, though nothing was written yet; memory stays bounded."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dblens.engines.access.spec import ConnectionSpec
from dblens.errors import Cancelled, NotFound
from dblens.query.stream import MEDIA_TYPE, readings
from dblens.workspace.ways import NewConnection
from tests.client.worlds import World, there
from tests.unit.query.fakes import until

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")
ENDLESS = "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c"
ROWS = "with recursive c(n) as (select 1 union all select n + 1 from c limit 3000000) select n, 'text ' || n from c"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with there(tmp_path_factory.mktemp("asked")) as made:
        path = made.databases / "shop.sqlite"
        sqlite3.connect(path).close()
        Path(path).touch()
        fields = ConnectionSpec(engine="sqlite", path=str(path))
        made.workspace.connections.create(NewConnection(name="shop", fields=fields))
        yield made


def at_work(world: World) -> int:
    return world.house.talks.at_work


def post(world: World, **body: Any) -> http.client.HTTPConnection:
    service = world.workspace._wire.service  # type: ignore[attr-defined]
    token = service._bearer.get().reveal()
    where = urlsplit(service.url)
    made = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    made.request("POST", "/api/v1/queries/run", json.dumps({"connection": "shop", **body}), headers)
    return made


def test_a_reader_who_leaves_stops_a_query_that_has_written_nothing(world: World) -> None:
    for _ in range(5):
        connection = post(world, text=ENDLESS)
        assert until(lambda: at_work(world))
        time.sleep(0.1)
        begun = time.monotonic()
        connection.close()
        assert until(lambda: not at_work(world), 3)
        assert time.monotonic() - begun < 1
    assert world.workspace.query("shop", "select 1").scalar() == 1
    assert until(lambda: world.house.lines.status(_id(world))["read_only"].in_use == 0)
    world.house.journal.flush()


def _id(world: World) -> str:
    return world.workspace.connections.read("shop").id


def test_plain_arrow_for_others(world: World) -> None:
    answer = post(world, text="select 1 as a; select 'x' as b").getresponse()
    assert answer.getheader("content-type") == MEDIA_TYPE
    assert [each.schema.names[0] for each in readings(answer.read())] == ["a", "b"]


def test_it_is_stopped_by_its_id(world: World) -> None:
    found: list[BaseException] = []

    def ask() -> None:
        try:
            world.workspace.queries.run("shop", ENDLESS, id, query="a" * 32)
        except Cancelled as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert until(lambda: at_work(world))
    begun = time.monotonic()
    assert world.workspace.queries.cancel("a" * 32)
    thread.join(3)
    assert time.monotonic() - begun < 1
    assert len(found) == 1
    with pytest.raises(NotFound):
        world.workspace.queries.cancel("a" * 32)


def _asked(world: World, how: str) -> None:
    if how == "query":
        world.workspace.query("shop", ENDLESS)
        return
    with world.workspace.stream("shop", ENDLESS) as rows:
        list(rows)


@pytest.mark.parametrize("how", ["query", "stream"])
def test_an_interrupt_stops_it(world: World, how: str) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert until(lambda: at_work(world))
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _asked(world, how)
    assert time.monotonic() - begun < 3
    assert until(lambda: not at_work(world), 1)


def test_a_stream_that_is_left_early(world: World) -> None:
    with world.workspace.stream("shop", ROWS) as rows:
        assert next(iter(rows)).num_rows > 0
        assert at_work(world) == 1
    assert until(lambda: not at_work(world), 1)


def test_a_slow_reader_holds_the_server_back(world: World) -> None:
    with world.workspace.stream("shop", ROWS) as rows:
        batches = iter(rows)
        count = next(batches).num_rows
        time.sleep(0.5)
        assert at_work(world) == 1  # it waits
        count += sum(batch.num_rows for batch in batches)
    assert count == 3_000_000
