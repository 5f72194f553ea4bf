"""What people ask of MongoDB in mongosh-style text, on the Mongo-wire server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId, Regex

from dblens.engines import address, connect
from dblens.engines.asking import Answer, Limits
from dblens.engines.mongodb import extjson
from dblens.engines.mongodb.ask import MongoAsks, ask
from dblens.errors import (
    Cancelled,
    Conflict,
    DBLensError,
    InvalidInput,
    PermissionDenied,
    QueryFailed,
    TimedOut,
    Unsupported,
)
from dblens.values.forms import Form
from tests.engines.test_mongodb_engine import driver
from tests.servers import Mongo

New = Callable[..., str]
SLOW = (
    'db.n.aggregate([{$lookup: {from: "n", pipeline: [{$match: {a: {$gt: -1}}}], as: "x"}}, {$unwind: "$x"}, '
    '{$lookup: {from: "n", pipeline: [{$match: {a: {$gt: -1}}}], as: "y"}}, {$unwind: "$y"}, {$group: {_id: "$y.a", n: {$sum: 1}}}])'
)


@pytest.fixture
def url(mongo: Mongo, new_database: New) -> str:
    return new_database(mongo)


@pytest.fixture
def db(url: str) -> Any:
    return driver(url)


@pytest.fixture
def asks(url: str) -> Iterator[MongoAsks]:
    with closing(connect(*address.parse(url, allow_password=True))) as session:
        yield ask(session)


def rows(answer: Answer) -> list[tuple[Any, ...]]:
    with answer:
        return [row for batch in answer.batches() for row in batch]


def documents(asks: MongoAsks, text: str, *params: object, **more: Any) -> list[Any]:
    return [extjson.decode(row[0]) for row in rows(asks.ask(text, params, **more))]


def write(asks: MongoAsks, text: str, *params: object) -> Answer:
    answer = asks.ask(text, params, read_only=False)
    rows(answer)
    return answer


# ------------------------------------------------------------------------------------------------------------------------ reads


def test_find_with_all_that_belongs_to_it(asks: MongoAsks, db: Any) -> None:
    db.orders.insert_many([{"_id": n, "a": n % 5, "t": f"x{n}"} for n in range(20)])
    found = documents(asks, "db.orders.find({a: {$gte: 3}}, {t: 1}).sort({_id: -1}).skip(1).limit(3);")
    assert found == [{"_id": 18, "t": "x18"}, {"_id": 14, "t": "x14"}, {"_id": 13, "t": "x13"}]
    assert documents(asks, "db.orders.findOne({_id: 7})") == [{"_id": 7, "a": 2, "t": "x7"}]
    assert documents(asks, "db.orders.findOne({_id: 700})") == []
    assert rows(asks.ask("db.orders.countDocuments({a: 1})")) == [(4,)]
    assert rows(asks.ask("db.orders.countDocuments({a: 99})")) == [(0,)]
    assert rows(asks.ask("db.orders.find({a: 1}).limit(2).count()")) == [(2,)]
    assert rows(asks.ask("db.orders.estimatedDocumentCount()")) == [(20,)]
    assert sorted(documents(asks, "db.orders.distinct('a', {a: {$lt: 3}})")) == [0, 1, 2]
    assert documents(
        asks, 'db.orders.aggregate([{$group: {_id: "$a", n: {$sum: 1}}}, {$sort: {_id: 1}}, {$limit: 1}])'
    ) == [{"_id": 0, "n": 4}]
    assert documents(asks, "db.runCommand({find: 'orders', filter: {_id: 3}})") == [{"_id": 3, "a": 3, "t": "x3"}]


def test_columns_say_where_documents_lie(asks: MongoAsks, db: Any) -> None:
    db.orders.insert_one({"_id": 1})
    with asks.ask("db.orders.find()") as answer:
        (column,) = answer.columns
    assert (column.name, column.form, column.table, column.namespace) == ("document", Form.DOCUMENT, "orders", db.name)
    with asks.ask("db.orders.find({}, {_id: 1})") as answer:
        assert answer.columns[0].table is None
    with asks.ask("db.orders.countDocuments()") as answer:
        assert (answer.columns[0].name, answer.columns[0].form) == ("count", Form.INT)


def test_documents_are_exact(asks: MongoAsks, db: Any) -> None:
    stored = {
        "_id": ObjectId("5f5e1d000000000000000001"), "l": Int64(2**53 + 1), "s": Int64(5), "i": 5, "d": 5.0, "n": Decimal128("1.10"), "z": -0.0,
        "r": Regex("a/b", "i"), "e": None, "t": 'quo"te\n\u2028😀', "u": {"$x": 1},
    }  # fmt: skip
    db.c.insert_one(stored)
    ((text,),) = rows(asks.ask("db.c.find()"))
    assert extjson.decode_raw(text) == bson.encode(stored)


def test_what_is_written_in_text_is_stored_as_written(asks: MongoAsks, db: Any) -> None:
    answer = write(
        asks,
        """db.c.insertOne({_id: 1, big: 9007199254740993, small: 5, d: 1.5, o: ObjectId("5f5e1d000000000000000001"),
        when: ISODate("2026-01-31T12:30:00.5Z"), dec: NumberDecimal("1.10"), l: NumberLong("5"), r: /x\\/y/i, n: null, a: [1, 'two', {}],
        bin: BinData(0, "AAE="), neg: -0.0, ej: {$numberLong: "7"},})""",
    )
    assert answer.affected == 1
    assert answer.notices == ("insertedIds: [1]",)
    stored = db.c.find_one()
    assert stored["big"] == 9007199254740993
    assert isinstance(stored["l"], Int64)
    assert isinstance(stored["ej"], Int64)
    assert str(stored["dec"]) == "1.10"
    assert stored["bin"] == b"\0\1"
    assert stored["when"].microsecond == 500000
    assert stored["r"].pattern == "x\\/y"
    assert list(stored) == ["_id", "big", "small", "d", "o", "when", "dec", "l", "r", "n", "a", "bin", "neg", "ej"]


def test_odd_names(asks: MongoAsks, db: Any) -> None:
    for name in ("odd name", "a.b", "stats", "find", "é😀", "a-b"):
        db[name].insert_one({"_id": name})
        assert documents(asks, f"db[{extjson.quote(name)}].find()") == [{"_id": name}]
        assert documents(asks, f"db.getCollection({extjson.quote(name)}).find()") == [{"_id": name}]
    assert documents(asks, "db.a.b.find()") == [{"_id": "a.b"}]
    assert documents(asks, "db.stats.find()") == [{"_id": "stats"}]
    assert [row[0] for row in rows(asks.ask("show collections"))] == sorted(
        ("odd name", "a.b", "stats", "find", "é😀", "a-b")
    )
    assert (db.name,) in rows(asks.ask("show dbs"))


def test_a_missing_collection_is_empty(asks: MongoAsks) -> None:
    assert documents(asks, "db.nowhere.find()") == []


def test_the_server_s_refusal_is_told(asks: MongoAsks, db: Any) -> None:
    db.c.insert_one({"a": 1})
    with pytest.raises(QueryFailed):
        rows(asks.ask("db.c.find({a: {$in: 5}})"))
    assert documents(asks, "db.c.find({}, {_id: 0})") == [{"a": 1}]


def test_indexes_and_plans(asks: MongoAsks, db: Any) -> None:
    db.c.insert_many([{"a": n} for n in range(50)])
    answer = write(asks, "db.c.createIndex({a: 1}, {unique: true})")
    assert answer.notices[0] == "indexes: a_1"
    assert [each["name"] for each in documents(asks, "db.c.getIndexes()")] == ["_id_", "a_1"]
    plan = asks.explain("db.c.find({a: 7})", analyze=True)
    assert plan.analyzed
    assert plan.tree.actual_rows == 1
    assert "totalDocsExamined" in plan.tree.facts
    (told,) = documents(asks, 'db.c.find({a: 7}).explain("executionStats")')
    assert told["executionStats"]["nReturned"] == 1
    (told,) = documents(asks, "db.c.explain().aggregate([{$match: {a: 1}}])")
    assert told["queryPlanner"]["namespace"].endswith(".c") or told["stages"]
    write(asks, 'db.c.dropIndex("a_1")')
    assert len(documents(asks, "db.c.getIndexes()")) == 1
    with pytest.raises(Unsupported):
        asks.explain("db.c.deleteMany({})")
    with pytest.raises(PermissionDenied):
        asks.explain('db.c.aggregate([{$out: "x"}])', analyze=True)
    assert db.c.count_documents({}) == 50
    assert "x" not in db.list_collection_names()


# ----------------------------------------------------------------------------------------------------------------------- writes


def test_writes(asks: MongoAsks, db: Any) -> None:
    assert write(asks, "db.c.insertMany([{_id: 1, a: 1}, {_id: 2, a: 1}, {_id: 3}])").affected == 3
    answer = write(asks, "db.c.updateMany({a: 1}, {$set: {b: 2}})")
    assert (answer.affected, answer.notices) == (2, ("matched 2, modified 2",))
    answer = write(asks, "db.c.updateOne({_id: 9}, {$set: {b: 2}}, {upsert: true})")
    assert (answer.affected, answer.notices) == (1, ("matched 0, modified 0", "upsertedIds: [9]"))
    assert write(asks, "db.c.replaceOne({_id: 9}, {z: 1})").affected == 1
    assert db.c.find_one({"_id": 9}) == {"_id": 9, "z": 1}
    answer = asks.ask("db.c.findOneAndUpdate({_id: 1}, {$inc: {a: 4}}, {returnDocument: 'after'})", read_only=False)
    assert extjson.decode(rows(answer)[0][0]) == {"_id": 1, "a": 5, "b": 2}
    assert answer.affected == 1
    assert rows(asks.ask("db.c.findOneAndDelete({_id: 77})", read_only=False)) == []
    assert write(asks, "db.c.deleteOne({_id: 9})").affected == 1
    answer = write(
        asks,
        "db.c.bulkWrite([{insertOne: {document: {_id: 10}}}, {insertOne: {document: {_id: 11}}}, "
        "{updateOne: {filter: {_id: 10}, update: {$set: {q: 1}}}}, {deleteMany: {filter: {_id: {$lt: 4}}}}])",
    )
    assert answer.affected == 6
    assert list(db.c.find().sort("_id")) == [{"_id": 10, "q": 1}, {"_id": 11}]
    write(asks, "db.createCollection('made')")
    write(asks, "db.made.renameCollection('made2')")
    assert sorted(db.list_collection_names()) == ["c", "made2"]
    write(asks, "db.made2.drop()")
    assert write(asks, "db.c.aggregate([{$match: {_id: 11}}, {$out: 'o'}])").columns == ()
    assert db.o.find_one() == {"_id": 11}
    assert write(asks, "db.c.deleteMany({})").affected == 2


def test_a_key_that_is_there_twice(asks: MongoAsks, db: Any) -> None:
    with pytest.raises(Conflict, match=r"line 2: the key .* is there twice; 1 written before it stay"):
        write(asks, "db.c.insertMany([{_id: 1}, {_id: 1}, {_id: 2}])")
    assert db.c.count_documents({}) == 1


def test_an_update_without_operators_is_refused(asks: MongoAsks, db: Any) -> None:
    db.c.insert_one({"_id": 1, "kept": 1})
    for text in ("db.c.updateOne({}, {a: 1})", "db.c.updateMany({}, {})", "db.c.replaceOne({}, {$set: {a: 1}})"):
        with pytest.raises(InvalidInput):
            write(asks, text)
    assert db.c.find_one() == {"_id": 1, "kept": 1}


# ------------------------------------------------------------------------------------------------------------------- parameters


def test_parameters_are_values(asks: MongoAsks, db: Any) -> None:
    db.c.insert_many([{"_id": 1, "user": "ann", "secret": "$user"}, {"_id": 2, "user": "$user"}])
    assert [each["_id"] for each in documents(asks, "db.c.find({user: ?})", "ann")] == [1]
    assert [each["_id"] for each in documents(asks, "db.c.find({user: ?})", "$user")] == [2]
    assert documents(asks, "db.c.find({user: ?})", '{"$ne": 1}') == []
    with pytest.raises(InvalidInput, match="would be an operator"):
        asks.ask("db.c.find({user: ?})", ({"$ne": 1},))
    assert len(documents(asks, "db.c.find({user: EJSON(?)})", {"$ne": 1})) == 2
    assert len(documents(asks, "db.c.find(EJSON(?))", '{"user": {"$ne": "ann"}}')) == 1


def test_a_parameter_is_no_field_s_path(asks: MongoAsks, db: Any) -> None:
    db.c.insert_many([{"_id": 1, "user": "ann"}, {"_id": 2, "user": "$user"}])
    by = 'db.c.aggregate([{$match: {$expr: {$eq: ["$user", ?]}}}])'
    assert [each["_id"] for each in documents(asks, by, "$user")] == [2]
    assert [each["_id"] for each in documents(asks, 'db.c.find({$expr: {$eq: ["$user", ?]}})', "$user")] == [2]
    assert documents(
        asks, "db.c.aggregate([{$match: {_id: 1}}, {$project: {_id: 0, x: {$concat: [?, '!']}}}])", "$user"
    ) == [{"x": "$user!"}]


# ------------------------------------------------------------------------------------------------- streaming, deadlines, stopping


def test_a_stream_is_read_a_few_at_a_time_and_closed_on_the_server(asks: MongoAsks, db: Any, mongo: Mongo) -> None:
    db.c.insert_many([{"_id": n, "t": "x" * 1000} for n in range(5000)])
    before = open_cursors(mongo)
    sizes = []
    with asks.ask("db.c.find()", limits=Limits(octets=200_000)) as answer:
        for batch in answer.batches():
            sizes.append(len(batch))
            if len(sizes) == 5:
                break
    assert sizes[0] == 100
    assert max(sizes) * 1000 <= 200_000
    assert open_cursors(mongo) <= before
    assert len(rows(asks.ask("db.c.find({}, {t: 0})", limits=Limits(rows=300)))) == 5000


def open_cursors(mongo: Mongo) -> int:
    with mongo.connect() as client:
        status = client.admin.command("serverStatus")
        return int(status.get("metrics", {}).get("cursor", {}).get("open", {}).get("total", 0))


def test_a_cell_over_the_cap(asks: MongoAsks, db: Any) -> None:
    db.c.insert_many([{"_id": 1}, {"_id": 2, "t": "x" * 5000}])
    with pytest.raises(InvalidInput, match=r"column 'document', row 2, has 50.. octets: more than 1000"):
        rows(asks.ask("db.c.find().sort({_id: 1})", limits=Limits(cell=1000)))
    assert rows(asks.ask("db.c.countDocuments()")) == [(2,)]


def test_the_deadline_is_of_the_whole(asks: MongoAsks, db: Any) -> None:
    db.n.insert_many([{"a": n} for n in range(400)])
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        rows(asks.ask(SLOW, limits=Limits(seconds=0.5)))
    assert time.monotonic() - begun < 5
    with asks.ask("db.n.find()", limits=Limits(seconds=0.3)) as answer:
        batches = answer.batches()
        next(batches)
        time.sleep(0.35)
        with pytest.raises(TimedOut):
            list(batches)
    with pytest.raises(TimedOut):
        rows(asks.ask(SLOW[:-1] + ").maxTimeMS(200)"))
    assert rows(asks.ask("db.n.countDocuments()")) == [(400,)]


def test_cancel_while_nothing_runs_and_between_batches(asks: MongoAsks, db: Any) -> None:
    asks.cancel()
    db.n.insert_many([{"a": n} for n in range(1000)])
    assert rows(asks.ask("db.n.countDocuments()")) == [(1000,)]
    with asks.ask("db.n.find()") as answer:
        batches = answer.batches()
        assert len(next(batches)) == 100
        asks.cancel()
        with pytest.raises(Cancelled):
            list(batches)
    assert rows(asks.ask("db.n.countDocuments()")) == [(1000,)]


def test_cancel_reaches_only_what_runs(asks: MongoAsks, db: Any, url: str) -> None:
    db.n.insert_many([{"a": n} for n in range(1000)])
    with closing(connect(*address.parse(url, allow_password=True))) as session:
        other = ask(session)
        with other.ask("db.n.find()") as answer:
            batches = answer.batches()
            next(batches)
            with asks.ask("db.n.find()") as mine:
                running = mine.batches()
                next(running)
                asks.cancel()
                with pytest.raises(Cancelled):
                    list(running)
            assert sum(map(len, batches)) == 900


def test_a_session_runs_one_statement_at_a_time(asks: MongoAsks, db: Any) -> None:
    db.n.insert_many([{"a": n} for n in range(1000)])
    with asks.ask("db.n.find()"), pytest.raises(Conflict):
        asks.ask("db.n.find()")
    assert len(rows(asks.ask("db.n.find()"))) == 1000


def test_cancel_of_a_command_that_runs(asks: MongoAsks, db: Any) -> None:
    db.n.insert_many([{"a": n} for n in range(300)])
    told: list[DBLensError] = []

    def run() -> None:
        try:
            rows(asks.ask(SLOW, limits=Limits(seconds=8)))
        except DBLensError as error:
            told.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    asks.cancel()
    thread.join(30)
    took = time.monotonic() - begun
    assert [type(error) for error in told] == [Cancelled]
    assert rows(asks.ask("db.n.countDocuments()")) == [(300,)]
    print(f"stopped after {took:.2f} s")


def test_the_tag_is_in_the_server_s_log_of_operations(asks: MongoAsks, db: Any) -> None:
    db.n.insert_many([{"a": n} for n in range(1000)])
    with asks.ask('db.n.find().comment("mine")', tag="tag-of-cell-7") as answer:
        assert asks._now is not None
        assert len(answer.columns) == 1
        marked = asks._marked(asks._now, {"find": "n", "comment": "mine"}, "tag-of-cell-7")["comment"]
    assert marked.startswith("mine tag-of-cell-7 dblens:")


# ----------------------------------------------------------------------------------------------------------------- transactions


def test_transactions(asks: MongoAsks, db: Any) -> None:
    db.c.insert_one({"_id": 0})
    with pytest.raises(Conflict):
        asks.commit()
    asks.rollback()
    with pytest.raises(InvalidInput):
        asks.begin(isolation="serializable")
    asks.begin()
    assert asks.transaction is not None
    with pytest.raises(Conflict):
        asks.begin()
    write(asks, "db.c.insertOne({_id: 1})")
    assert rows(asks.ask("db.c.countDocuments()")) == [(2,)]
    assert db.c.count_documents({}) == 1
    asks.rollback()
    assert (asks.transaction, db.c.count_documents({})) == (None, 1)
    asks.begin()
    write(asks, "db.c.insertOne({_id: 1})")
    asks.commit()
    assert db.c.count_documents({}) == 2
    asks.begin(read_only=True)
    with pytest.raises(PermissionDenied):
        write(asks, "db.c.insertOne({_id: 2})")
    asks.rollback()
    asks.begin()
    with pytest.raises(Conflict):
        write(asks, "db.c.insertOne({_id: 1})")
    assert asks.transaction is not None
    assert asks.transaction.failed
    with pytest.raises(Conflict):
        rows(asks.ask("db.c.countDocuments()"))
    with pytest.raises(QueryFailed):
        asks.commit()
    assert rows(asks.ask("db.c.countDocuments()")) == [(2,)]


def test_layers(asks: MongoAsks) -> None:
    login, lists = asks.layers()
    assert (login.name, login.active) == ("login", False)
    assert "nobody is logged in" in login.why
    assert (lists.name, lists.active) == ("allow_list", True)
