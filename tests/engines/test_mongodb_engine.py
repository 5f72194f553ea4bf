"""What only MongoDB does: chunks written twice, the lock, the swap's journal, merge, hazards as a source, mongodump folders."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import bson
import msgspec
import pytest
from bson import DatetimeMS, Decimal128, Int64, MinKey
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

import dblens
from dblens.engines import address, connect
from dblens.engines.base import Block, Check, Chunk, Embedding, Field, Move, RunRecord, Target
from dblens.engines.mongodb import extjson, stage
from dblens.engines.mongodb.rawbson import Pairs, build
from dblens.errors import Cancelled, Conflict, InvalidInput, Irreversible, PermissionDenied, QueryFailed
from dblens.migrate.link import link
from dblens.schema.model import Column, Table
from dblens.schema.types import Integer, Text
from dblens.values.forms import Form
from tests import samples
from tests.mongodump import restore
from tests.servers import Mongo, Postgres

New = Callable[..., str]
RECORD = RunRecord(id="run1", plan_hash="h", state="copying", epoch=1, holder="me@here", beat_at="2026-01-01T00:00:00Z")
KEY = Column(name="k", type=Integer(), native="long", path=("_id",), nullable=False)
VALUE = Column(name="v", type=Text(), native="string", path=("v",))
KEYED = (Field(column=KEY, form=Form.INT, target=KEY), Field(column=VALUE, form=Form.TEXT, target=VALUE))
PLAIN = KEYED[1:]


@pytest.fixture
def url(mongo: Mongo, new_database: New) -> str:
    return new_database(mongo)


@pytest.fixture
def opened(url: str) -> Iterator[Target]:
    with closing(open_session(url)) as session:
        yield session


def open_session(url: str, **more: Any) -> Target:
    return connect(*address.parse(url, allow_password=True), **more)


def driver(url: str) -> Any:
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    return client[url.partition("?")[0].rpartition("/")[2]]


def chunk(session: Target, number: int = 0, name: str = "t", **more: Any) -> Chunk:
    place = session.engine.ddl.staged((session.database, name), RECORD.id)
    return Chunk(run=RECORD.id, table=place, number=number, epoch=1, **more)


def put(session: Target, line: Chunk, rows: list[tuple[Any, ...]], *, fields: Any = KEYED, fast: bool = False) -> int:
    return session.load(line.table, fields, "rows", [Block(data=rows, size=1, rows=len(rows))], line, fast=fast)


# --------------------------------------------------------------------------------------------------------------------- loading


def test_a_chunk_that_was_lost_is_written_again_without_doubles(opened: Target, url: str) -> None:
    opened.open_run(RECORD)
    line = chunk(opened)

    def broken() -> Iterator[Block]:
        yield Block(data=[(n, f"old {n}") for n in range(6000)], size=1, rows=6000)
        raise RuntimeError("the source went away")

    with pytest.raises(RuntimeError):
        opened.load(line.table, KEYED, "rows", broken(), line, fast=False)
    assert opened.ledger(RECORD.id) == []
    assert 0 < driver(url)[line.table[1]].count_documents({}) <= 6000
    assert put(opened, line, [(n, f"new {n}") for n in range(6000)]) == 6000
    texts = driver(url)[line.table[1]].distinct("v")
    assert len(texts) == 6000
    assert all(t.startswith("new ") for t in texts)
    assert [c.rows for c in opened.ledger(RECORD.id)] == [6000]


def test_rows_without_a_key_keep_their_doubles_when_written_again(opened: Target, url: str) -> None:
    opened.open_run(RECORD)
    rows = [("same",), ("same",), (None,)]
    for _ in range(2):
        put(opened, chunk(opened, 0), rows, fields=PLAIN)
        put(opened, chunk(opened, 1), rows, fields=PLAIN)
    opened.forget_chunks(RECORD.id)
    put(opened, chunk(opened, 1), rows[:1], fields=PLAIN)
    assert driver(url)[chunk(opened).table[1]].count_documents({}) == 6
    put(opened, chunk(opened, 1), rows[:1], fields=PLAIN)
    assert driver(url)[chunk(opened).table[1]].count_documents({}) == 4


def test_a_stale_writer_is_refused(opened: Target, url: str) -> None:
    opened.open_run(RECORD)
    assert opened.open_run(RECORD).epoch == 2
    with pytest.raises(Conflict, match="taken over"):
        put(opened, chunk(opened), [(1, "x")])
    with pytest.raises(Conflict, match="taken over"):
        opened.write_run(RECORD)
    assert driver(url)[chunk(opened).table[1]].count_documents({}) == 0


def test_keys_that_are_there_twice_name_themselves(opened: Target) -> None:
    opened.open_run(RECORD)
    with pytest.raises(Conflict, match='"7"'):
        put(opened, chunk(opened), [(7, "a"), (7, "b")], fast=True)


# ------------------------------------------------------------------------------------------------------------------------ lock


def test_the_lock_names_its_holder(opened: Target, url: str) -> None:
    opened.open_run(RECORD)
    with closing(open_session(url)) as other, pytest.raises(Conflict, match="me@here"):
        other.open_run(msgspec.structs.replace(RECORD, id="other", holder="you"))
    opened.close()
    with closing(open_session(url)) as other:
        assert other.open_run(RECORD).epoch == 2
        other.close_run(RECORD)
    assert driver(url).list_collection_names() == []


def test_the_lock_of_a_killed_process_falls_at_once(url: str) -> None:
    script = (
        "import os, sys, signal\n"
        "from dblens.engines import address, connect\n"
        "import msgspec\nfrom dblens.engines.base import RunRecord\n"
        "s = connect(*address.parse(sys.argv[1], allow_password=True))\n"
        "s.open_run(msgspec.json.decode(sys.argv[2], type=RunRecord))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, url, msgspec.json.encode(RECORD).decode()], check=False, cwd=os.getcwd()
    )
    with closing(open_session(url)) as session:
        assert session.read_run(RECORD.id) is not None
        assert session.open_run(RECORD).epoch == 2
        session.close_run(RECORD)


# ------------------------------------------------------------------------------------------------------------------------ swap


def _prepared(session: Target, url: str, names: list[str]) -> list[Move]:
    database = driver(url)
    moves = []
    for name in names:
        place = (session.database, name)
        database[name].insert_one({"_id": "old"})
        move = Move(
            live=place,
            staged=session.engine.ddl.staged(place, RECORD.id),
            previous=session.engine.ddl.previous(place, RECORD.id),
            table=Table(namespace=place[0], name=name),
        )
        database[move.staged[1]].insert_one({"_id": "new"})
        moves.append(move)
    return moves


def _state(url: str, names: list[str]) -> list[str]:
    return [next(iter(driver(url)[name].find()), {"_id": "nothing"})["_id"] for name in names]


@pytest.mark.parametrize("stop", range(1, 5))
@pytest.mark.parametrize("then", ["swap", "unswap"])
def test_a_swap_that_stopped_goes_on_or_back(
    opened: Target, url: str, stop: int, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", 'b"😀;--']
    moves = _prepared(opened, url, names)
    record = opened.open_run(RECORD)
    done = 0
    real = stage._rename

    def rename(*args: Any) -> None:
        nonlocal done
        done += 1
        if done == stop:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(stage, "_rename", rename)
    with pytest.raises(KeyboardInterrupt):
        opened.swap(record, moves)
    there = opened.read_run(RECORD.id)
    assert there is not None
    assert there.state == "swapping"
    if then == "swap":
        assert opened.swap(record, moves).state == "swapped"
        assert opened.swap(record, moves).state == "swapped"
        assert _state(url, names) == ["new", "new"]
    done = -100
    assert opened.unswap(record, moves).state == "rolled_back"
    assert opened.unswap(record, moves).state == "rolled_back"
    assert _state(url, names) == ["old", "old"]
    assert _state(url, [m.staged[1] for m in moves]) == ["new", "new"]
    opened.close_run(record)


# ----------------------------------------------------------------------------------------------------------------------- merge


def _merge_case(session: Target, url: str) -> tuple[RunRecord, Chunk, tuple[str, str]]:
    driver(url)["live"].insert_many([{"_id": Int64(1), "v": "mine", "more": 1}, {"_id": Int64(9), "v": "nine"}])
    record = session.open_run(RECORD)
    line = chunk(session, name="live")
    put(session, line, [(1, "theirs"), (2, "two")])
    return record, line, (session.database, "live")


def test_merge_by_rule_and_back(opened: Target, url: str) -> None:
    record, line, live = _merge_case(opened, url)
    before = list(driver(url)["live"].find().sort("_id"))
    with pytest.raises(Conflict, match="the key"):
        opened.merge(record, line.table, live, KEYED, ["k"], "error")
    assert list(driver(url)["live"].find().sort("_id")) == before
    counts = opened.merge(record, line.table, live, KEYED, ["k"], "update")
    assert (counts.inserted, counts.updated, counts.skipped) == (1, 1, 0)
    assert opened.merge(record, line.table, live, KEYED, ["k"], "update") == counts
    assert [d["v"] for d in driver(url)["live"].find().sort("_id")] == ["theirs", "two", "nine"]
    opened.unmerge(record, live, ["k"])
    opened.unmerge(record, live, ["k"])
    assert list(driver(url)["live"].find().sort("_id")) == before
    opened.close_run(record)


def test_merge_that_skips(opened: Target, url: str) -> None:
    record, line, live = _merge_case(opened, url)
    counts = opened.merge(record, line.table, live, KEYED, ["k"], "skip")
    assert (counts.inserted, counts.updated, counts.skipped) == (1, 0, 1)
    assert opened.merge(record, line.table, live, KEYED, ["k"], "skip") == counts
    assert [d["v"] for d in driver(url)["live"].find().sort("_id")] == ["mine", "two", "nine"]


def test_a_merge_is_not_undone_over_later_changes(opened: Target, url: str) -> None:
    record, line, live = _merge_case(opened, url)
    opened.merge(record, line.table, live, KEYED, ["k"], "update")
    driver(url)["live"].update_one({"_id": 2}, {"$set": {"v": "changed"}})
    with pytest.raises(Irreversible, match="2"):
        opened.unmerge(record, live, ["k"])
    assert driver(url)["live"].count_documents({}) == 3
    opened.unmerge(record, live, ["k"], force=True)
    assert driver(url)["live"].count_documents({}) == 2


# --------------------------------------------------------------------------------------------------------------------- reading


def _hazards() -> list[bytes]:
    deep: Any = 1
    for _ in range(97):
        deep = {"a": deep}
    return [
        build(document)
        for document in (
            {"_id": 1, "v": 1, "only": None, "d": Decimal128("NaN")},
            {"_id": 2, "v": "1", "d": Decimal128("1.10")},
            {"_id": 3, "v": MinKey(), "a.b": 1, "$x": {"$oid": "no wrapper"}, "": ""},
            {"_id": 4, "v": deep},
            {"_id": 5, "v": "nul \0", "text": "a\0b"},
            {"_id": 6, "v": [Int64(1), 1.0, None, {"b": 1, "a": DatetimeMS(-62135596800000)}]},
        )
    ]


def test_hazards_are_read_whole(opened: Target, url: str) -> None:
    raws = _hazards()
    driver(url)["h"].insert_many([RawBSONDocument(raw) for raw in raws])
    table = opened.profile(opened.inspect().tables[0])
    assert [c.name for c in table.columns] == ["_id", "d", "a.b", "empty_name", "text", "doc"]
    fields = [
        Field(column=c, form=f)
        for c, f in zip(
            table.columns, (Form.INT, Form.DECIMAL, Form.INT, Form.TEXT, Form.TEXT, Form.DOCUMENT), strict=True
        )
    ]
    rows = {row[0]: row for row in opened.canonical_rows(table, fields)}
    assert [extjson.decode_raw(rows[str(n).encode()][5].decode()) for n in range(1, 7)] == raws
    assert rows[b"1"][1:5] == (b"NaN", None, None, None)
    exported = [row for block in opened.export(table, fields, "rows") for row in block.data]
    assert {str(r[0]).encode(): r[5].encode() for r in exported} == {k: r[5] for k, r in rows.items()}
    missing, nul, nonfinite, odd, json_nul = opened.check(
        table,
        [
            (fields[1], Check(kind="missing_field")),
            (fields[4], Check(kind="nul_character")),
            (fields[1], Check(kind="nonfinite")),
            (fields[5], Check(kind="document_key")),
            (fields[5], Check(kind="json_nul")),
        ],
    )
    assert (missing.count, nul.count, nonfinite.count, odd.count, json_nul.count) == (4, 1, 1, 1, 1)
    assert nul.samples == (("5",),)
    assert odd.samples == (("3",),)


def test_a_field_that_changed_type_since_is_an_error(opened: Target, url: str) -> None:
    driver(url)["t"].insert_one({"_id": 1, "v": 1})
    table = opened.profile(opened.inspect().tables[0])
    fields = [Field(column=table.column("v"), form=Form.INT)]
    driver(url)["t"].insert_one({"_id": 2, "v": "text"})
    with pytest.raises(QueryFailed, match="document 2"):
        list(opened.export(table, fields, "rows"))
    with pytest.raises(QueryFailed, match="document 2"):
        opened.fingerprint(table, fields)


def test_filters_and_bad_ones(opened: Target, url: str) -> None:
    driver(url)["t"].insert_many([{"_id": n, "at": bson.DatetimeMS(n)} for n in range(10)])
    table = opened.profile(opened.inspect().tables[0])
    assert opened.count(table, where='{"at": {"$gte": {"$date": {"$numberLong": "5"}}}}') == 5
    for text in ("{", "[1]", "x = 1"):
        with pytest.raises(InvalidInput, match="filter"):
            opened.count(table, where=text)


def test_options_and_indexes_are_read_and_made_again(opened: Target, url: str) -> None:
    database = driver(url)
    database.create_collection("c", validator={"$jsonSchema": {"required": ["a"]}}, validationLevel="moderate")
    database["c"].create_index(
        [("a", 1), ("b.c", -1)], name="i", unique=True, partialFilterExpression={"a": {"$gt": 1}}
    )
    database["c"].create_index("t", name="ttl", expireAfterSeconds=60, sparse=True)
    database.create_collection("capped", capped=True, size=4096, max=5)
    database.create_collection("seen", viewOn="c", pipeline=[{"$match": {"a": 2}}])
    before = opened.inspect()
    assert [(t.name, t.kind) for t in before.tables] == [("c", "collection"), ("capped", "capped")]
    assert before.views[0].definition == '{"viewOn":"c","pipeline":[{"$match":{"a":2}}]}'
    statements = opened.engine.ddl.create(before)
    for name in ("seen", "c", "capped"):
        database.drop_collection(name)
    opened.build(statements)
    opened.build(statements)
    assert opened.inspect() == before


def test_commands(opened: Target, url: str) -> None:
    driver(url)["t"].insert_many([{"_id": n} for n in range(5)])
    found = opened.execute('{"find": "t", "sort": {"_id": -1}}', limit=2)
    assert found.rows == [('{"_id":4}',), ('{"_id":3}',)]
    assert found.truncated
    assert opened.execute('{"delete": "t", "deletes": [{"q": {"_id": 1}, "limit": 1}]}').affected == 1
    with pytest.raises(InvalidInput, match="not a MongoDB command"):
        opened.execute("select 1")
    with pytest.raises(QueryFailed):
        opened.execute('{"noSuchCommand": 1}')
    with closing(open_session(url, read_only=True)) as reader:
        assert reader.execute('{"count": "t"}').affected == 4
        for command in ('{"drop": "t"}', '{"aggregate": "t", "pipeline": [{"$out": "u"}]}'):
            with pytest.raises(PermissionDenied):
                reader.execute(command)
        with pytest.raises(PermissionDenied):
            reader.open_run(RECORD)
    assert driver(url)["t"].count_documents({}) == 4


def test_cancel_stops_a_reader_from_another_thread(opened: Target, url: str) -> None:
    driver(url)["t"].insert_many([{"_id": n} for n in range(3500)])
    table = opened.profile(opened.inspect().tables[0])
    blocks = opened.export(table, [Field(column=table.column("_id"), form=Form.INT)], "rows")
    next(blocks)
    thread = threading.Thread(target=opened.cancel)
    thread.start()
    thread.join()
    with pytest.raises(Cancelled):
        list(blocks)
    assert opened.count(table) == 3500


def test_repeated_keys_are_read_where_the_server_keeps_them(opened: Target, url: str) -> None:
    raw = build(Pairs([("_id", 1), ("a", 1), ("a", 2)]))
    driver(url)["t"].insert_one(RawBSONDocument(raw))
    (row,) = [row for block in opened.export(opened.inspect().tables[0], [], "bson") for row in block.data]
    if row != raw:
        pytest.skip("the test server drops repeated keys")


# --------------------------------------------------------------------------------------------------------------------- embedding


ELEMENT = Column(name="v", type=Text(), native="string", path=("item", "v"))
EMBEDDED = (KEYED[0], Field(column=VALUE, form=Form.TEXT, target=ELEMENT))
INTO = Embedding(parent="shop.p", field="rows", link=("k",), order=("v",), waiting=("", "_dblens_run1.p[]rows"))


def embed(session: Any, url: str, rows: list[tuple[Any, ...]]) -> int:
    place = (session.database, "p")
    into = msgspec.structs.replace(INTO, waiting=(session.database, INTO.waiting[1]))
    blocks = [Block(data=rows, size=10, rows=len(rows))]
    return int(session.embed(place, EMBEDDED, "rows", blocks, Chunk(run="run1", table=place, number=0), into))


def test_embedding_again_gives_the_same(opened: Target, url: str) -> None:
    driver(url).p.insert_many([{"_id": Int64(1), "x": "kept"}, {"_id": Int64(2)}])
    for _ in range(2):
        assert embed(opened, url, [(1, "b"), (1, "a")]) == 2
        assert list(driver(url).p.find().sort("_id")) == [
            {"_id": 1, "x": "kept", "rows": [{"v": "a"}, {"v": "b"}]},
            {"_id": 2, "rows": []},
        ]
    # Nothing waits any more, and no line of the ledger speaks of it.
    assert INTO.waiting[1] not in driver(url).list_collection_names()
    assert opened.ledger("run1") == []
    assert embed(opened, url, [(2, None)]) == 1
    assert [d["rows"] for d in driver(url).p.find().sort("_id")] == [[], [{"v": None}]]


def test_a_row_without_a_document_is_an_error(opened: Target, url: str) -> None:
    driver(url).p.insert_one({"_id": Int64(1)})
    with pytest.raises(QueryFailed, match=r"1 rows of 'rows' belong to .*7.*, which no document of shop\.p has"):
        embed(opened, url, [(1, "a"), (7, "b")])


def test_two_moves_of_one_collection(opened: Target, url: str) -> None:
    record = opened.open_run(RECORD)
    driver(url)["_dblens_run1.t"].insert_one({"_id": "new"})
    driver(url).t.insert_one({"_id": "old"})
    live, staged, previous = ((opened.database, n) for n in ("t", "_dblens_run1.t", "_dblens_run1_prev.t"))
    move = Move(live=live, staged=staged, table=Table(namespace=opened.database, name="t"), previous=previous)
    record = opened.swap(record, [move, move])
    assert list(driver(url).t.find()) == [{"_id": "new"}]
    opened.unswap(record, [move, move])
    assert list(driver(url).t.find()) == [{"_id": "old"}]


def test_merge_of_composite_keys(opened: Target, url: str) -> None:
    record = opened.open_run(RECORD)
    driver(url).s.insert_many([{"_id": {"a": 1, "b": 1}, "v": "new"}, {"_id": {"a": 2, "b": 1}, "v": "new"}])
    driver(url).t.insert_one({"_id": {"a": 1, "b": 1}, "v": "old"})
    key = tuple(msgspec.structs.replace(KEY, name=n, path=("_id", n)) for n in ("a", "b"))
    fields = tuple(Field(column=c, form=Form.INT, target=c) for c in key)
    counts = opened.merge(record, (opened.database, "s"), (opened.database, "t"), fields, ("a", "b"), "skip")
    assert (counts.inserted, counts.skipped) == (1, 1)
    assert [d["v"] for d in driver(url).t.find().sort("_id")] == ["old", "new"]


# --------------------------------------------------------------------------------------------------------------------- journeys


@pytest.mark.parametrize("folder", ["testdirs/db1", "indextestdump/indextest"])
def test_mongodump_to_postgresql(mongo: Mongo, pg15: Postgres, new_database: New, folder: str) -> None:
    place = samples.folder() / "mongodump" / "restore" / folder
    source, target = new_database(mongo), new_database(pg15)
    counts = restore(place, source)
    ws = dblens.open()
    a, b = link(source, allow_password=True), link(target, allow_password=True)
    plan = ws.migrations.plan(a, b)
    assert not plan.blocks
    outcome = ws.migrations.apply(plan, source=a, target=b, accept=["all"])
    assert outcome.equal
    assert outcome.rows == sum(counts.values())
    with closing(b.connect(read_only=True)) as session:
        assert {t.name for t in session.inspect().tables} == set(counts)
    ws.migrations.rollback(b, plan.id)
    with closing(b.connect(read_only=True)) as session:
        assert session.inspect().tables == ()


def test_odd_documents_of_bsondump_come_back() -> None:
    folder = samples.folder() / "mongodump" / "bsondump" / "testdata"
    from dblens.engines.mongodb import rawtext
    from tests.mongodump import documents

    for name in ("all_types.bson", "all_in_one_doc.bson", "sample.bson"):
        for raw in documents((folder / name).read_bytes()):
            text = extjson.encode_raw(raw)
            assert extjson.decode_raw(text) == raw
            assert rawtext.document(raw) == text
