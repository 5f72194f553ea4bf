"""Stopping what runs on MongoDB, against replies that servers give: the test server has neither `$currentOp` nor `killOp`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from bson import Int64
from pymongo.errors import OperationFailure

from dblens.engines.asking import Limits
from dblens.engines.mongodb.ask import MongoAsks, Statement, marked_operations
from dblens.errors import DBLensError

MINE, OTHERS = "dblens:00112233445566778899aabbccddeeff", "dblens:ffeeddccbbaa99887766554433221100"


def operations(mark: str) -> list[dict[str, Any]]:
    """Return what `$currentOp` tells on a replica set's member (7.0), on a mongos, and in 4.4, cut to what matters."""
    return [
        {
            "type": "op", "host": "db1:27017", "desc": "conn29", "connectionId": 29, "client": "10.0.0.7:51812", "active": True, "op": "command", "ns": "shop.$cmd.aggregate",
            "opid": 211754, "secs_running": Int64(3), "microsecs_running": Int64(3004512), "lsid": {"id": "x", "uid": b"y"},
            "command": {"aggregate": "orders", "pipeline": [{"$group": {"_id": "$a"}}], "cursor": {}, "comment": f"mine tag {mark}", "$db": "shop"},
        },
        {
            "type": "op", "host": "db1:27017", "active": True, "op": "getmore", "ns": "shop.orders", "opid": 211760, "command": {"getMore": Int64(7384957), "collection": "orders", "$db": "shop"},
            "cursor": {"cursorId": Int64(7384957), "nDocsReturned": Int64(101), "originatingCommand": {"find": "orders", "filter": {}, "comment": mark, "$db": "shop"}},
        },
        {"shard": "shard0", "type": "op", "op": "query", "ns": "shop.orders", "opid": "shard0:99", "command": {"find": "orders", "comment": mark, "$db": "shop"}},
        {"type": "op", "op": "command", "opid": 5, "command": {"aggregate": 1, "pipeline": [{"$currentOp": {"allUsers": False}}], "cursor": {}, "$db": "admin"}},
        {"type": "op", "op": "none", "opid": 6, "command": {}},
        {"type": "op", "op": "update", "ns": "shop.orders", "opid": 7, "command": {"q": {}, "u": {"$set": {"a": 1}}, "multi": False, "upsert": False}},
        {"type": "idleSession", "op": "none", "lsid": {"id": "z"}},
        {"type": "idleCursor", "cursor": {"cursorId": Int64(1), "originatingCommand": {"find": "orders", "comment": mark}}},
    ]  # fmt: skip


class Server:
    """A client whose server answers from a script and notes what it is told."""

    read_preference = None

    def __init__(self, *, refuses: tuple[str, ...] = ()) -> None:
        self.refuses, self.told = refuses, list[dict[str, Any]]()
        self.admin = self

    def __getitem__(self, name: str) -> Server:
        return self

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        self.told.append(command)
        name = next(iter(command))
        if name in self.refuses:
            raise OperationFailure(
                f"not authorized on admin to execute command {name}", 13, {"codeName": "Unauthorized"}
            )
        if name == "aggregate":
            found = [*operations(self.mark), *operations(OTHERS)]
            return {"cursor": {"id": Int64(0), "ns": "admin.$cmd.aggregate", "firstBatch": found}, "ok": 1.0}
        if name == "killOp":
            return {"info": "attempting to kill op", "ok": 1.0}
        if name == "killCursors":
            return {
                "cursorsKilled": command["cursors"],
                "cursorsNotFound": [],
                "cursorsAlive": [],
                "cursorsUnknown": [],
                "ok": 1.0,
            }
        return {"ok": 1.0}

    mark = ""


class Session:
    """A server session."""

    session_id = {"id": "mine"}  # noqa: RUF012 - it is not changed

    def end_session(self) -> None:
        """Nothing."""


def running(server: Server, *, cursor: int = 0) -> tuple[MongoAsks, Statement]:
    session: Any = SimpleNamespace(version="7.0.14", client=server, lsid=object(), database="shop", read_only=False)
    server.start_session = Session  # type: ignore[attr-defined]
    asks = MongoAsks(session)
    run = asks._now = Statement(asks, Limits())
    run.collection, run.cursor = "orders", SimpleNamespace(cursor_id=cursor) if cursor else None
    server.mark = run.mark
    return asks, run


def test_what_carries_the_mark_is_found() -> None:
    assert marked_operations([*operations(OTHERS), *operations(MINE)], MINE) == [211754, 211760, "shard0:99"]
    assert marked_operations(operations(OTHERS), MINE) == []
    assert (
        marked_operations(
            [{}, {"command": None}, {"command": {"comment": {"a": 1}}, "opid": 1}, {"cursor": None}], MINE
        )
        == []
    )


def test_all_three_ways_are_gone_and_nobody_else_is_met() -> None:
    server = Server()
    asks, run = running(server, cursor=7384957)
    asks.cancel()
    assert run.cancelled.is_set()
    assert [each for each in server.told if "aggregate" not in each] == [
        {"killOp": 1, "op": 211754}, {"killOp": 1, "op": 211760}, {"killOp": 1, "op": "shard0:99"},
        {"killCursors": "orders", "cursors": [Int64(7384957)]}, {"killSessions": [{"id": "mine"}]},
    ]  # fmt: skip
    assert server.told[0]["pipeline"] == [{"$currentOp": {"allUsers": False}}]  # one's own: no privilege is needed


@pytest.mark.parametrize(
    "refuses", [("aggregate",), ("killOp",), ("killCursors",), ("killSessions",), ("aggregate", "killSessions")]
)
def test_a_login_that_may_not_one_may_another(refuses: tuple[str, ...]) -> None:
    server = Server(refuses=refuses)
    asks, run = running(server, cursor=5)
    asks.cancel()
    assert run.cancelled.is_set()
    assert {"aggregate", "killCursors", "killSessions"} <= {next(iter(each)) for each in server.told}


def test_when_no_way_is_open_it_is_said() -> None:
    server = Server(refuses=("aggregate", "killCursors", "killSessions"))
    asks, run = running(server, cursor=5)
    with pytest.raises(DBLensError, match="cancelling"):
        asks.cancel()
    assert run.cancelled.is_set()  # this side goes no further all the same


def test_what_ended_is_not_stopped() -> None:
    server = Server()
    asks, run = running(server)
    run.end()
    asks.cancel()
    assert server.told == []
