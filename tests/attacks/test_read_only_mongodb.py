"""Attack 21: a reader of MongoDB who writes, runs JavaScript, or brings operators in parameters. Nothing changes, nothing is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import bson
import pytest
from bson import Code, Regex

from dblens.engines import address, connect
from dblens.engines.mongodb import reads
from dblens.engines.mongodb.ask import MongoAsks, ask, login_layer
from dblens.errors import InvalidInput, PermissionDenied
from tests.engines.test_mongodb_engine import driver
from tests.servers import Mongo

New = Callable[..., str]

WRITES = (
    "db.c.insertOne({a: 1})",
    "db.c.insertMany([{a: 1}])",
    "db.c.updateOne({}, {$set: {a: 2}})",
    "db.c.updateMany({}, {$set: {a: 2}})",
    "db.c.updateMany({}, [{$set: {a: 2}}])",
    "db.c.replaceOne({}, {a: 2})",
    "db.c.deleteOne({})",
    "db.c.deleteMany({})",
    "db.c.findOneAndUpdate({}, {$set: {a: 2}})",
    "db.c.findOneAndReplace({}, {a: 2})",
    "db.c.findOneAndDelete({})",
    "db.c.bulkWrite([{deleteMany: {filter: {}}}])",
    "db.c.createIndex({a: 1})",
    "db.c.createIndexes([{a: 1}])",
    'db.c.dropIndex("a_1")',
    "db.c.dropIndexes()",
    "db.c.drop()",
    'db["c"].drop()',
    'db.getCollection("c").drop()',
    'db.c.renameCollection("d")',
    'db.createCollection("d")',
    'db.createView("d", "c", [])',
    "db.runCommand({insert: 'c', documents: [{a: 1}]})",
    "db.runCommand({update: 'c', updates: [{q: {}, u: {$set: {a: 2}}}]})",
    "db.runCommand({delete: 'c', deletes: [{q: {}, limit: 0}]})",
    "db.runCommand({findAndModify: 'c', remove: true})",
    "db.runCommand({drop: 'c'})",
    "db.runCommand({create: 'd'})",
    "db.runCommand({collMod: 'c', validator: {}})",
    "db.runCommand({createIndexes: 'c', indexes: [{key: {a: 1}, name: 'a'}]})",
    'db.c.aggregate([{$out: "d"}])',
    'db.c.aggregate([{$match: {}}, {$out: {db: "other", coll: "d"}}])',
    'db.c.aggregate([{$merge: "d"}])',
    "db.c.aggregate([{$match: {}, $out: 'd'}])",
    'db.c.aggregate([{$merge: {into: "c", whenMatched: "replace"}}])',
    'db.c.aggregate([{"\\u0024out": "d"}])',
    "db.c.aggregate([{'\\x24merge': 'd'}])",
    'db.c.aggregate({$match: {}}, {$out: "d"})',
    'db.c.aggregate([{$lookup: {from: "c", pipeline: [{$out: "d"}], as: "x"}}])',
    'db.c.aggregate([{$unionWith: {coll: "c", pipeline: [{$merge: "d"}]}}])',
    'db.c.aggregate([{$facet: {x: [{$out: "d"}]}}])',
    'db.c.aggregate([{$facet: {x: [{$lookup: {from: "c", pipeline: [{$unionWith: {coll: "c", pipeline: [{$out: "d"}]}}], as: "y"}}]}}])',
    'db.c.explain("executionStats").aggregate([{$out: "d"}])',
    'db.c.aggregate([{$out: "d"}]).explain("executionStats")',
    "db.runCommand({aggregate: 'c', pipeline: [{$out: 'd'}], cursor: {}})",
    "db.runCommand({explain: {aggregate: 'c', pipeline: [{$out: 'd'}], cursor: {}}, verbosity: 'executionStats'})",
    "db.aggregate([{$documents: [{a: 1}]}, {$out: 'd'}])",
    'db.c.aggregate(EJSON(\'[{"$out": "d"}]\'))',
)
SCRIPTS = (
    'db.c.find({$where: "sleep(1000) || true"})',
    "db.c.find({$or: [{a: 1}, {$where: 'true'}]})",
    "db.c.find({'\\u0024where': 'true'})",
    "db.c.find({$where: Code('true')})",
    'db.c.find({x: {$code: "true"}})',
    "db.c.find({$where: {$code: 'true', $scope: {}}})",
    "db.c.countDocuments({$where: 'true'})",
    "db.c.distinct('a', {$where: 'true'})",
    "db.c.find({}).sort({a: 1}).min({$where: 1})",
    "db.c.find({$expr: {$function: {body: 'f', args: [], lang: 'js'}}})",
    "db.c.find({}, {x: {$function: {body: 'f', args: [], lang: 'js'}}})",
    "db.c.aggregate([{$group: {_id: 1, x: {$accumulator: {init: 'f', accumulate: 'f', accumulateArgs: [], merge: 'f'}}}}])",
    "db.c.aggregate([{$facet: {x: [{$match: {$where: 'true'}}]}}])",
    "db.c.aggregate([{$lookup: {from: 'c', let: {}, pipeline: [{$match: {$expr: {$function: {}}}}], as: 'x'}}])",
    "db.c.mapReduce('f', 'g', {out: 'd'})",
    "db.runCommand({mapReduce: 'c', map: 'f', reduce: 'g', out: 'd'})",
    "db.runCommand({find: 'c', filter: {$where: 'true'}})",
    "db.c.updateMany({$where: 'true'}, {$set: {a: 2}})",
    "db.c.deleteMany({$where: 'true'})",
    "db.runCommand({delete: 'c', deletes: [{q: {$where: 'true'}, limit: 0}]})",
    "db.createView('v', 'c', [{$match: {$expr: {$function: {}}}}])",
    "db.eval('1')",
)
ELSEWHERE = (
    "db.dropDatabase()",
    "db.runCommand({dropDatabase: 1})",
    "db.runCommand('shutdown')",
    "db.runCommand({eval: '1'})",
    "db.runCommand({killOp: 1, op: 1})",
    "db.runCommand({createUser: 'x', pwd: 'y', roles: []})",
    "db.runCommand({setParameter: 1})",
    "db.adminCommand({shutdown: 1})",
    'db.getSiblingDB("admin").getCollection("system.users").find()',
    "db.aggregate([{$currentOp: {}}])",
    "db.c.aggregate([{$changeStream: {}}])",
    "db.c.aggregate([{$listSessions: {}}])",
    "db.c.aggregate([{$planCacheStats: {}}])",
    "db.c.aggregate([{$aStageOfTomorrow: {}}])",
    "db.c.find({a: {$anOperatorOfTomorrow: 1}})",
)
NOT_SAID = (
    "db.runCommand({find: 'c', lsid: {}})",
    "db.runCommand({find: 'c', $db: 'admin'})",
    "db.runCommand({ping: 1, $readPreference: {}})",
    "db.runCommand({find: 'c', writeConcern: {w: 0}})",
    "db.c.find(); db.c.drop()",
    "db.c.find()\ndb.c.drop()",
    "use admin",
    'db.getSiblingDB("admin").system.users.find()',
    "(function(){ return db.c.drop() })()",
    "db.c.find({a: (() => 1)()})",
    "db.c.find().forEach(x => db.c.drop())",
    "db.c.find().map(function(x){})",
    "load('/etc/passwd')",
    "db.c.find({a: process.env})",
    "db['c'].find({...x})",
    "db.c.find({a: `${1}`})",
    "db.c['drop']()",
)


@pytest.fixture
def url(mongo: Mongo, new_database: New) -> str:
    return new_database(mongo)


@pytest.fixture
def asks(url: str) -> Iterator[MongoAsks]:
    driver(url).c.insert_many([{"_id": n, "a": n} for n in range(5)])
    with closing(connect(*address.parse(url, allow_password=True))) as session:
        yield ask(session)


def state(url: str) -> str:
    db = driver(url)
    found = hashlib.sha256()
    for name in sorted(db.list_collection_names()):
        found.update(f"{name} {sorted(db[name].index_information())}".encode())
        for document in db[name].find().sort("_id"):
            found.update(bson.encode(document))
    return found.hexdigest()


def refuse(
    asks: MongoAsks,
    text: str,
    kind: type[Exception] | tuple[type[Exception], ...],
    *,
    read_only: bool = True,
    params: tuple[Any, ...] = (),
) -> Any:
    with pytest.raises(kind) as refused, asks.ask(text, params, read_only=read_only) as answer:
        list(answer.batches())
    return refused.value


@pytest.mark.parametrize("text", WRITES)
def test_a_reader_writes_nothing(asks: MongoAsks, url: str, text: str) -> None:
    before = state(url)
    refuse(asks, text, PermissionDenied)
    assert state(url) == before
    assert not reads(text)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("text", SCRIPTS)
def test_javascript_is_refused_for_everybody(asks: MongoAsks, url: str, text: str, *, read_only: bool) -> None:
    before = state(url)
    told = refuse(asks, text, PermissionDenied, read_only=read_only)
    if not read_only:
        assert "JavaScript" in told.message
    assert state(url) == before
    assert not reads(text)


@pytest.mark.parametrize("text", ELSEWHERE)
def test_what_is_on_no_list_is_refused(asks: MongoAsks, url: str, text: str) -> None:
    before = state(url)
    refuse(asks, text, PermissionDenied)
    assert state(url) == before
    assert not reads(text)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("text", NOT_SAID)
def test_what_is_no_statement_is_refused(asks: MongoAsks, url: str, text: str, *, read_only: bool) -> None:
    before = state(url)
    refuse(asks, text, InvalidInput, read_only=read_only)
    assert state(url) == before


def test_a_session_for_reading_writes_nothing_whatever_is_asked(url: str) -> None:
    driver(url).c.insert_one({"_id": 1})
    with closing(connect(*address.parse(url, allow_password=True), read_only=True)) as session:
        for text in ("db.c.drop()", 'db.c.aggregate([{$out: "d"}])', "db.runCommand({drop: 'c'})"):
            refuse(ask(session), text, PermissionDenied, read_only=False)
    assert driver(url).list_collection_names() == ["c"]


@pytest.mark.parametrize(
    "stage",
    [
        '{$out: {db: "other", coll: "d"}}', '{$merge: {into: {db: "other", coll: "d"}}}', '{$lookup: {from: {db: "other", coll: "d"}, pipeline: [], as: "x"}}',
        '{$unionWith: {db: "other", coll: "d"}}', '{$facet: {x: [{$lookup: {from: {db: "other", coll: "d"}, pipeline: [], as: "x"}}]}}',
    ],
)  # fmt: skip
def test_a_writer_does_not_leave_the_database_either(asks: MongoAsks, url: str, stage: str) -> None:
    refuse(asks, f"db.c.aggregate([{stage}])", PermissionDenied, read_only=False)
    assert "other" not in driver(url).client.list_database_names()


@pytest.mark.parametrize(
    "stage",
    [
        "{$currentOp: {}}",
        "{$changeStream: {}}",
        "{$listSessions: {}}",
        "{$planCacheStats: {}}",
        "{$aStageOfTomorrow: {}}",
        "{$match: {}, $out: 'd'}",
    ],
)
def test_a_writer_has_a_list_of_stages_as_well(asks: MongoAsks, url: str, stage: str) -> None:
    before = state(url)
    refuse(asks, f"db.c.aggregate([{stage}])", (PermissionDenied, InvalidInput), read_only=False)
    assert state(url) == before


@pytest.mark.parametrize(
    "value",
    [
        {"$ne": 1}, {"$gt": ""}, {"a": {"$where": "1"}}, [{"$ne": 1}], {"$regex": ".*"}, {"$oid": "5f5e1d000000000000000001"}, {"$expr": True},
        {"x": [{"y": {"$in": []}}]}, {"$literal": 1},
    ],
)  # fmt: skip
def test_a_parameter_is_never_an_operator(asks: MongoAsks, value: Any) -> None:
    for text in (
        "db.c.find({a: ?})",
        "db.c.find(?)",
        "db.c.find({$or: [{a: ?}]})",
        "db.c.aggregate([{$match: {a: ?}}])",
    ):
        assert "would be an operator" in refuse(asks, text, InvalidInput, params=(value,)).message


@pytest.mark.parametrize("value", [Code("1"), Regex(".*"), object(), {1: 2}, {"a\0": 1}])
def test_a_parameter_is_never_code(asks: MongoAsks, value: Any) -> None:
    refuse(asks, "db.c.find({a: ?})", InvalidInput, params=(value,))


@pytest.mark.parametrize("value", ['{"$ne": 1}', "'}) || 1", "$a", '"}).drop()//', ":x", "?", "\u2028", "\\"])
def test_a_parameter_is_never_text_of_the_statement(asks: MongoAsks, url: str, value: str) -> None:
    before = state(url)
    for text in (
        "db.c.find({a: ?})",
        "db.c.find({$expr: {$eq: ['$a', ?]}})",
        "db.c.aggregate([{$match: {$expr: {$eq: ['$a', ?]}}}])",
    ):
        with asks.ask(text, (value,)) as answer:
            assert list(answer.batches()) == []
    assert state(url) == before


def test_a_document_that_the_text_takes_passes_the_lists_as_well(asks: MongoAsks) -> None:
    for given in ({"$where": "1"}, '{"$where": "1"}', {"a": {"$code": "1"}}, '{"x": {"$function": {}}}'):
        refuse(asks, "db.c.find(EJSON(?))", PermissionDenied, params=(given,))
    refuse(asks, "db.c.aggregate(EJSON(?))", PermissionDenied, params=([{"$out": "d"}],))


def test_keys_that_only_look_like_operators_are_data(asks: MongoAsks) -> None:
    for key in ("\uff04out", "\ufe69merge", "$\u200bx", "a$out"):
        if not key.startswith("$"):
            with asks.ask("db.c.find({" + f"'{key}': 1" + "})") as answer:
                assert list(answer.batches()) == []


def test_what_reads_is_let_through(asks: MongoAsks) -> None:
    for text in (
        "db.c.find({a: {$gt: 1}, $or: [{a: {$in: [1, 2]}}, {a: /x/}]})",
        "db.c.aggregate([{$match: {a: {$gt: 1}}}, {$group: {_id: null, s: {$sum: '$a'}}}, {$project: {s: {$add: ['$s', 1]}}}])",
        "db.c.aggregate([{$lookup: {from: 'c', localField: 'a', foreignField: 'a', as: 'x'}}, {$unwind: '$x'}, {$count: 'n'}])",
    ):
        assert reads(text)
        with asks.ask(text) as answer:
            assert sum(map(len, answer.batches())) > 0


def test_javascript_by_allowance(url: str) -> None:
    """Nothing in DBLens sets it; the test server has no engine for JavaScript and says so itself."""
    with closing(connect(*address.parse(url, allow_password=True))) as session:
        told = refuse(MongoAsks(session, javascript=True), "db.c.find({$where: 'true'})", Exception)  # type: ignore[arg-type]
    assert not isinstance(told, PermissionDenied)


@pytest.mark.parametrize(
    ("actions", "active"),
    [
        (["find", "listIndexes", "collStats"], True),
        (["find", "insert"], False),
        (["anyAction"], False),
        (["find", "bypassDocumentValidation"], False),
    ],
)
def test_the_login_is_told_by_its_privileges(actions: list[str], *, active: bool) -> None:
    info = {
        "authenticatedUsers": [{"user": "ann", "db": "admin"}],
        "authenticatedUserRoles": [{"role": "read", "db": "x"}],
        "authenticatedUserPrivileges": [{"resource": {"db": "x", "collection": ""}, "actions": actions}],
    }
    assert login_layer(info).active is active
    del info["authenticatedUserPrivileges"]
    assert login_layer(info).active
    info["authenticatedUserRoles"] = [{"role": "readWrite", "db": "x"}]
    assert not login_layer(info).active
