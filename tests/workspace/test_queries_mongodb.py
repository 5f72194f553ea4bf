"""MongoDB through the one door: exact documents, who may write, what has to be confirmed, what the server's log says."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bson
import msgspec
import pymongo
import pytest
from bson import Decimal128, Int64, ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, monitoring

from dblens.engines.mongodb import extjson
from dblens.errors import ConfirmationNeeded, Conflict, InvalidInput, PermissionDenied, QueryFailed, TimedOut
from dblens.redaction import Secret
from dblens.store.queries import Which
from dblens.workspace.loading import LoadOptions
from dblens.workspace.speech import Origin
from dblens.workspace.ways import NewConnection
from tests.engines.test_mongodb_ask import SLOW
from tests.engines.test_mongodb_engine import driver
from tests.servers import Mongo
from tests.workspace.desk import Desk

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")
RAW: Any = CodecOptions(document_class=RawBSONDocument)
ROOT = Path(__file__).resolve().parents[2]
STORED = {
    "_id": ObjectId("5f5e1d000000000000000001"), "big": Int64(2**53 + 1), "small": Int64(5), "i": 5, "d": 5.0, "dec": Decimal128("1.10"),
    "when": bson.DatetimeMS(-62135596800000), "t": 'quo"te\n😀', "none": None, "in": {"a": [1, {"b": bson.Binary(b"\0\xff", 5)}]},
}  # fmt: skip
TEXT = (
    '{"_id":{"$oid":"5f5e1d000000000000000001"},"big":9007199254740993,"small":{"$numberLong":"5"},"i":5,"d":{"$numberDouble":"5.0"},'
    '"dec":{"$numberDecimal":"1.10"},"when":{"$date":{"$numberLong":"-62135596800000"}},"t":"quo\\"te\\n😀","none":null,'
    '"in":{"a":[1,{"b":{"$binary":{"base64":"AP8=","subType":"05"}}}]}}'
)


def sink(_: bytes) -> None:
    return None


class Commands(monitoring.CommandListener):
    """What was sent to the server."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands()
    monkeypatch.setattr(pymongo, "MongoClient", functools.partial(MongoClient, event_listeners=[found]))
    return found


@pytest.fixture
def desk(
    tmp_path: Path, mongo: Mongo, new_database: Callable[..., str], commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    reach = msgspec.structs.replace(desk.house.lines.policy, allow_loopback=True)  # the test server is on this machine
    monkeypatch.setattr(desk.house.lines, "policy", reach)
    url = new_database(mongo)
    desk.db = driver(url)  # type: ignore[attr-defined]
    desk.address = url  # type: ignore[attr-defined]
    for name, environment in (("src", "dev"), ("live", "production")):
        given = NewConnection(name=name, url=Secret(url), environment=environment)
        desk.at_home().connections.create(given)
    yield desk
    desk.close()


def test_an_answer_is_exact_wherever_it_is_read(desk: Desk) -> None:
    desk.db.c.insert_one(STORED)  # type: ignore[attr-defined]
    found = desk.at_home().query("src", "db.c.find({big: :big})", params={"big": 2**53 + 1})
    assert found.ran.read_only
    assert found.rows() == [(TEXT,)]
    assert extjson.decode_raw(found.scalar()) == bson.encode(STORED)
    assert found.df()["document"].tolist() == [TEXT]


def test_documents_are_a_flat_grid_as_well(desk: Desk) -> None:
    desk.db.c.insert_many([STORED, {"_id": 2, "in": {"z": 1.5}, "t": "5", "none": 5}])  # type: ignore[attr-defined]
    found = desk.at_home().query("src", "db.c.find().sort({i: -1})")
    table = found.flat()
    assert table.column_names == ["_id", "big", "small", "i", "d", "dec", "when", "t", "none", "in.a", "in.z"]
    assert table.column("big").to_pylist() == ["9007199254740993", None]
    assert table.column("dec").to_pylist() == ['{"$numberDecimal":"1.10"}', None]
    assert table.column("none").to_pylist() == ["null", "5"]
    assert (table.column("t").to_pylist(), table.schema.field("t").metadata) == (
        [STORED["t"], "5"],
        {b"dblens.cells": b"text"},
    )
    assert found.flat(3).column_names == ["_id", "big", "__rest"]
    assert desk.at_home().query("src", "db.nowhere.find()").flat().num_columns == 0
    with pytest.raises(InvalidInput, match="not of documents"):
        desk.at_home().query("src", "db.c.countDocuments()").flat()


def test_reading_writes_nothing_and_writing_is_told(desk: Desk) -> None:
    home = desk.at_home()
    with pytest.raises(PermissionDenied, match="may only read"):
        home.query("src", "db.c.insertOne({_id: 1})", read_only=True)
    with pytest.raises(PermissionDenied, match="may only read"):
        home.queries.run("src", 'db.c.aggregate([{$out: "d"}])', sink)
    assert desk.db.list_collection_names() == []  # type: ignore[attr-defined]
    done = home.query(
        "src", "db.c.insertOne({_id: :id, t: :t}); db.c.find({_id: :id})", params={"id": 2**53 + 1, "t": "$x"}
    )
    assert (done[0].affected, done[0].notices) == (1, ("insertedIds: [9007199254740993]",))
    assert done[1].rows() == [('{"_id":9007199254740993,"t":"$x"}',)]
    assert not done.ran.read_only
    assert home.query("src", "db.c.countDocuments()").scalar() == 1
    assert home.query("src", "db.c.aggregate([{$group: {_id: null, n: {$sum: 1}}}])").rows() == [
        ('{"_id":null,"n":1}',)
    ]


def test_a_parameter_brings_no_operator(desk: Desk) -> None:
    home = desk.at_home()
    desk.db.c.insert_one({"_id": 1, "user": "ann"})  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="would be an operator"):
        home.query("src", "db.c.find({user: :user})", params={"user": {"$ne": None}})
    assert home.query("src", "db.c.find({user: :user})", params={"user": '{"$ne": null}'}).rows() == []
    with pytest.raises(PermissionDenied, match="JavaScript"):
        home.query("src", "db.c.find(EJSON(:filter))", params={"filter": {"$where": "true"}})


def test_who_reads_does_not_write(desk: Desk) -> None:
    reader = desk.as_("ann", scopes=("query.run",))
    with pytest.raises(PermissionDenied):
        reader.query("src", "db.c.insertOne({_id: 1})")
    assert desk.db.list_collection_names() == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("db.c.insertOne({_id: 1})", "write"), ("db.c.deleteMany({})", "without a filter removes every document"), ("db.c.drop()", "no undo"),
        ('db.c.aggregate([{$out: "d"}])', "confirmed"), ("db.runCommand({drop: 'c'})", "confirmed"), ("db.c.updateMany({}, {$set: {a: 1}})", "every document"),
    ],
)  # fmt: skip
def test_on_production_writes_are_confirmed(desk: Desk, text: str, said: str) -> None:
    home = desk.at_home()
    desk.db.c.insert_one({"_id": 0})  # type: ignore[attr-defined]
    with pytest.raises(ConfirmationNeeded) as told:
        home.query("live", text)
    assert said in told.value.message
    assert list(desk.db.c.find()) == [{"_id": 0}]  # type: ignore[attr-defined]
    home.query("live", text, confirm=told.value.confirm)
    assert (
        home.query("live", "db.c.find({_id: :id}).limit(:n)", params={"id": 5, "n": 1}).rows() == []
    )  # reads: nothing to confirm


def test_the_servers_log_says_who(desk: Desk, commands: Commands) -> None:
    desk.db.c.insert_one({"_id": 0})  # type: ignore[attr-defined]
    origin = Origin(client="jupyter", notebook="a.ipynb", cell="7")
    desk.at_home().queries.run("src", "db.c.find()", sink, origin=origin, query="0" * 32)
    (sent,) = (each for each in commands.sent if "find" in each)
    assert (
        "dblens user=ann operation=query.run client=jupyter notebook=a.ipynb cell=7 query=" + "0" * 32
        in sent["comment"]
    )
    desk.at_home().queries.write("src", "db.c.updateOne({}, {$set: {a: 1}})", sink, query="1" * 32)
    (sent,) = (each for each in commands.sent if "update" in each)
    assert "operation=query.write" in sent["comment"]
    items = desk.at_home().queries.history().items
    assert [(each.connection, each.outcome) for each in items] == [("src", "ok"), ("src", "ok")]


def test_mistakes_have_a_place(desk: Desk) -> None:
    home = desk.at_home()
    with pytest.raises(InvalidInput, match="line 2, column 8"):
        home.query("src", "db.c.find({\n  a: 1 b: 2})")
    with pytest.raises(InvalidInput, match="line 1, column 32"):
        home.query("src", "db.c.find({a: :long_name, b: 1 c: 2})", params={"long_name": 1})
    with pytest.raises(QueryFailed):
        home.query("src", "db.c.find({a: {$in: 5}})")
    assert home.queries.history(Which(failed=True)).items[0].outcome == "engine.query"


def test_caps_and_deadlines(desk: Desk) -> None:
    desk.db.n.insert_many([{"a": n, "t": "x" * 1000} for n in range(400)])  # type: ignore[attr-defined]
    home = desk.at_home()
    found = home.query("src", "db.n.find({}, {_id: 0, a: 1}).sort({a: 1})", limit=3)
    assert (len(found.last), found.truncated, found.rows()[2]) == (3, "rows", ('{"a":2}',))
    assert home.queries.run("src", "db.n.find()", sink, octets=50_000).statements[0].truncated == "octets"
    with pytest.raises(TimedOut):
        home.query("src", SLOW, timeout=0.5)
    with home.stream("src", "db.n.find()") as batches:
        next(iter(batches))
    assert home.query("src", "db.n.countDocuments({})").scalar() == 400


def test_a_plan(desk: Desk) -> None:
    desk.db.n.insert_many([{"a": n} for n in range(10)])  # type: ignore[attr-defined]
    plan = desk.at_home().queries.explain("src", "db.n.find({a: :a})", params={"a": 3}, analyze=True)
    assert plan.tree.actual_rows == 1


def test_on_the_command_line(desk: Desk, tmp_path: Path) -> None:
    desk.db.c.insert_one(STORED)  # type: ignore[attr-defined]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dblens", "query", desk.address, *arguments], capture_output=True, text=True, check=False, timeout=60,  # type: ignore[attr-defined]
            env={**os.environ, "DBLENS_DATA_FOLDER": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    done = run("db.c.find({i: :i})", "--param", "i:=5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == [
        {"columns": [{"name": "document", "type": "document"}], "rows": [[TEXT]]}
    ]
    assert run("db.c.deleteMany({})", "--read-only").returncode == 5
    assert desk.db.c.count_documents({}) == 1  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------------------------ load


def test_documents_that_were_saved_come_back_as_documents(desk: Desk, tmp_path: Path) -> None:
    desk.db.c.insert_one(STORED)  # type: ignore[attr-defined]
    desk.db.c.insert_one({"_id": 2, "when": bson.DatetimeMS(0)})  # type: ignore[attr-defined]
    home, raw = desk.at_home(), desk.db.client.get_database(desk.db.name, codec_options=RAW)  # type: ignore[attr-defined]
    table = home.query("src", "db.c.find().sort({i: -1})").arrow(raw=True)
    loaded = home.queries.load("src", table, "copied")
    assert (loaded.equal, loaded.rows, loaded.losses) == (True, 2, ())
    wanted = [bytes(each.raw) for each in raw.c.find().sort("i", -1)]
    assert [bytes(each.raw) for each in raw.copied.find().sort("i", -1)] == wanted
    with pytest.raises(Conflict, match=r"the key .* is in 'copied' already"):
        home.queries.load("src", table, "copied", options=LoadOptions(mode="append"))
    desk.db.copied.update_one({"_id": 2}, {"$set": {"when": "never"}})  # type: ignore[attr-defined]
    again = home.queries.load("src", table, "copied", options=LoadOptions(mode="append", conflict="update"))
    assert (again.equal, again.inserted) == (True, 0)
    assert [bytes(each.raw) for each in raw.copied.find().sort("i", -1)] == wanted
    assert desk.db.copied.count_documents({}) == 2  # type: ignore[attr-defined]
    part = home.query("src", "db.c.find({}, {_id: 0, i: 1})").arrow(raw=True)
    with pytest.raises(QueryFailed, match="the document has no _id"):
        home.queries.load("src", part, "nameless")
    assert "nameless" not in desk.db.list_collection_names()  # type: ignore[attr-defined]


def test_a_document_beside_other_columns_keeps_its_types(desk: Desk) -> None:
    from dblens.engines import arrow
    from dblens.engines.asking import Out
    from dblens.schema.types import Integer
    from dblens.values.forms import Form

    columns = (Out(name="n", type=Integer(bits=64), native="bigint", form=Form.INT), *_documents())
    writer = arrow.Writer(columns)
    table = arrow.library().Table.from_batches([writer.batch([(1, TEXT), (2, None)])])
    loaded = desk.at_home().queries.load("src", table, "beside", options=LoadOptions(key=("n",)))
    assert loaded.equal
    one, two = desk.db.beside.find().sort("_id", 1)  # type: ignore[attr-defined]
    assert (one["_id"], one["document"]["big"], one["document"]["dec"]) == (1, STORED["big"], STORED["dec"])
    assert two["document"] is None


def _documents() -> tuple[Any, ...]:
    from dblens.engines.mongodb.ask_answer import document_out

    return (document_out(),)
