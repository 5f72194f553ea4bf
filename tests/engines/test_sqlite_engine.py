"""What only SQLite has: values of any class in any column, files as staging, and a swap in one transaction or one rename.

Over 600 lines because every story shares its fixtures of files.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy import inspect as alchemy

from dblens import engines
from dblens.engines.base import Block, Check, Chunk, Field, Move, RunRecord, Source, Target, Url
from dblens.engines.sqlite import files, swap
from dblens.errors import (
    Conflict,
    ConnectionFailed,
    InvalidInput,
    Irreversible,
    NotFound,
    PermissionDenied,
    QueryFailed,
    Unsupported,
)
from dblens.schema.model import Column, Index, IndexPart, Key, Schema, Table
from dblens.schema.stable import schema_hash, stable
from dblens.schema.types import Boolean, DataType, Date, Decimal, Dynamic, Float, Integer, Text, Timestamp, Uuid
from dblens.values.codec import canonical
from dblens.values.digest import Accumulator
from dblens.values.forms import Form

RUN = RunRecord(
    id="run1",
    plan_hash="h",
    state="copying",
    epoch=1,
    holder="me",
    beat_at="2026-01-01T00:00:00+00:00",
    document='{"a":1}',
)


def raw(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def opened(path: Path, **options: Any) -> Target:
    return engines.connect(Url(scheme="sqlite", database=str(path)), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a %s 'b'?#.db"


def table_of(session: Source, name: str) -> Table:
    return session.inspect().table("main", name)


def fields(table: Table, form: Form | None = None) -> list[Field]:
    from dblens.engines.forms import form_of

    return [Field(column=c, form=form or form_of(c.type), target=c) for c in table.columns if c.generated is None]


# ---------------------------------------------------------------------------------------------------------------------- opening


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(NotFound, match="no such file") as caught:
        opened(path)
    assert caught.value.hint
    with closing(opened(path, create=True)) as session:
        assert session.inspect().tables == ()
        assert session.list_runs() == []
    assert not path.exists(), "reading made a file"
    with closing(opened(path, create=True)) as session:
        session.execute("CREATE TABLE t (a)")
    assert path.exists()


def test_what_is_no_database(path: Path, tmp_path: Path) -> None:
    path.write_text("this is not a database, it only looks like a file" * 100)
    with pytest.raises(ConnectionFailed, match="not a SQLite database"):
        opened(path)
    with pytest.raises(ConnectionFailed, match="folder"):
        opened(tmp_path)
    with pytest.raises(InvalidInput, match="cache"):
        engines.connect(Url(scheme="sqlite", database=str(path), options={"cache": "shared"}))


def test_read_only(path: Path) -> None:
    raw(path, "CREATE TABLE t (a)")
    url = Url(scheme="sqlite", database=str(path), options={"mode": "ro"})
    for session in (opened(path, read_only=True), engines.connect(url)):
        with closing(session), pytest.raises(PermissionDenied):
            session.execute("INSERT INTO t VALUES (1)")


# -------------------------------------------------------------------------------------------------------------- values by class


def test_profile_types_by_what_is_stored(path: Path) -> None:
    raw(
        path,
        "CREATE TABLE t (i INTEGER, bad INTEGER, r REAL, huge INTEGER, flag BOOLEAN, five BOOLEAN, price DECIMAL(10,2), long DECIMAL(4,1),"
        " n NUMERIC, day DATE, noday DATE, seen DATETIME, unix DATETIME, zoned TIMESTAMP, u UUID, short VARCHAR(3), b BLOB, none DATE)",
        "INSERT INTO t VALUES (1, 'abc', 1, 9223372036854775807, 1, 1, 1.10, 123.45, 1.5, '2024-02-29', '2024-02-30', '2024-01-01T00:00:00.5',"
        " 1704067200, '2024-01-01 00:00:00Z', '01234567-89ab-cdef-0123-456789abcdef', 'abc', x'00', NULL)",
        "INSERT INTO t VALUES ('123', 5, 2.5, -9223372036854775807 - 1, 0, 5, 100, 1, 2, '0001-01-01', 'x', '2024-01-01 00:00:00',"
        " 2460310.5, '2024-01-01 01:00:00+01:00', NULL, 'abcd', 'text', NULL)",
    )
    with closing(opened(path)) as session:
        table = session.profile(table_of(session, "t"))
    assert {c.name: c.type for c in table.columns} == {
        "i": Integer(64),
        "bad": Dynamic(("integer", "text")),
        "r": Float(64),
        "huge": Integer(64),
        "flag": Boolean(),
        "five": Integer(64),
        "price": Decimal(10, 2),
        "long": Float(64),
        "n": Float(64),
        "day": Date(),
        "noday": Text(),
        "seen": Timestamp(6),
        "unix": Float(64),
        "zoned": Timestamp(6, zone=True),
        "u": Uuid(),
        "short": Text(),
        "b": Dynamic(("text", "blob")),
        "none": Date(),
    }


def test_text_is_never_replaced(path: Path) -> None:
    raw(
        path,
        "CREATE TABLE t (v TEXT)",
        "INSERT INTO t VALUES ('a'), (CAST(x'61ff' AS TEXT)), (CAST(x'610062' AS TEXT))",
    )
    with closing(opened(path)) as session:
        table = table_of(session, "t")
        (field,) = fields(table)
        found = session.check(table, [(field, Check(kind="invalid_text")), (field, Check(kind="nul_character"))])
        assert [(r.count, r.samples) for r in found] == [(1, (("2",),)), (1, (("3",),))]
        assert list(session.canonical_rows(table, [field])) == [(b"a",), (b"a\xff",), (b"a\0b",)]
        for fmt in ("pgtext", "mytext", "rows"):
            with pytest.raises(InvalidInput, match="not UTF-8"):
                list(session.export(table, [field], fmt))
        stripped = msgspec.structs.replace(
            field, repairs=(Check(kind="invalid_text", repair="strip"), Check(kind="nul_character", repair="null"))
        )
        assert [r for b in session.export(table, [stripped], "rows") for r in b.data] == [("a",), ("a",), (None,)]
        assert list(session.canonical_rows(table, [stripped])) == [(b"a",), (b"a",), (None,)]


def test_blobs_and_texts_are_two_things(path: Path) -> None:
    raw(path, "CREATE TABLE t (v)", "INSERT INTO t VALUES ('b:61'), (x'61'), ('a'), (1), ('1'), (1.0)")
    with closing(opened(path)) as session:
        table = table_of(session, "t")
        for form in (Form.TEXT, Form.DYNAMIC, Form.NATIVE):
            texts = [v for (v,) in session.canonical_rows(table, fields(table, form))]
            blob, others = texts[1], texts[:1] + texts[2:]
            assert blob not in others
        assert texts == [b"t:b:61", b"b:61", b"t:a", b"i:1", b"t:1", b"r:1"]


def test_where_the_sign_of_zero_is_kept(path: Path) -> None:
    raw(path, "CREATE TABLE t (r REAL, n)", "INSERT INTO t VALUES (-0.0, -0.0), (9e999, -9e999)")
    with closing(opened(path)) as session:
        table = table_of(session, "t")
        assert list(session.canonical_rows(table, fields(table, Form.FLOAT))) == [
            (b"0", b"-0"),
            (b"Infinity", b"-Infinity"),
        ]
        field = Field(column=table.column("n"), form=Form.FLOAT)
        nan = Check(kind="nonfinite", repair="null", low="-Infinity", high="Infinity")
        counts = session.check(
            table, [(field, Check(kind="negative_zero")), (field, Check(kind="nonfinite")), (field, nan)]
        )
        assert [r.count for r in counts] == [1, 1, 0]


def test_mixed_values_that_do_not_fit(path: Path) -> None:
    raw(
        path,
        "CREATE TABLE t (i INTEGER, d DATE)",
        "INSERT INTO t VALUES (1, '2024-01-01'), ('abc', 'soon'), (1.5, 5), (NULL, NULL)",
    )
    with closing(opened(path)) as session:
        table = table_of(session, "t")
        number, day = fields(table)
        found = session.check(table, [(number, Check(kind="mixed_storage")), (day, Check(kind="not_this_type"))])
        assert [r.count for r in found] == [2, 2]
        with pytest.raises(InvalidInput, match="'i'"):
            list(session.export(table, [number], "rows"))
        text = msgspec.structs.replace(number, form=Form.TEXT, repairs=(Check(kind="mixed_storage", repair="text"),))
        assert [r for b in session.export(table, [text], "rows") for r in b.data] == [
            ("1",),
            ("abc",),
            ("1.5",),
            (None,),
        ]


DOUBLES = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1).map(
    lambda n: struct.unpack("<d", struct.pack("<q", n))[0]
).filter(lambda x: x == x)
PLAIN: dict[Form, st.SearchStrategy[Any]] = {
    Form.INT: st.integers(-(2**63), 2**63 - 1),
    Form.FLOAT: DOUBLES,
    Form.TEXT: st.text(),
    Form.BYTES: st.binary(),
    Form.DYNAMIC: st.integers(-(2**63), 2**63 - 1) | DOUBLES | st.text() | st.binary(),
    Form.DECIMAL: st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12
    ).map(str)
    | st.integers(-99, 99),
    Form.DATE: st.dates().map(str),
    Form.TIME: st.times().map(str),
    Form.TIMESTAMP: st.datetimes().map(lambda d: d.isoformat(" ")),
    Form.TIMESTAMPTZ: st.datetimes().map(lambda d: d.isoformat(" ") + "Z"),
    Form.UUID: st.uuids().map(str) | st.uuids().map(lambda u: str(u).upper()),
    Form.BITS: st.text("01"),
    Form.INTERVAL: st.tuples(st.integers(), st.integers(), st.integers()).map(lambda p: " ".join(map(str, p))),
}


@pytest.mark.parametrize("form", PLAIN)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_digest_is_the_codecs(form: Form, data: st.DataObject, tmp_path: Path) -> None:
    """Whatever rule renders a column, the texts are those of `values.codec`."""
    values = data.draw(st.lists(st.none() | PLAIN[form], max_size=20))
    where = tmp_path / f"{os.urandom(6).hex()}.db"
    db = sqlite3.connect(where)
    db.execute("CREATE TABLE t (v)")
    db.executemany("INSERT INTO t VALUES (?)", [(v,) for v in values])
    db.commit()
    db.close()
    expected = [(canonical(form, v),) for v in values]
    sums = Accumulator()
    sums.add_rows(expected)
    with closing(opened(where)) as session:
        table = table_of(session, "t")
        assert list(session.canonical_rows(table, fields(table, form))) == expected
        assert session.fingerprint(table, fields(table, form)) == sums.fingerprint()
        if form in (Form.DYNAMIC, Form.INTERVAL):
            return
        # The copier's conversions say the same, though they share none of the code.
        exported = [r for b in session.export(table, fields(table, form), "rows") for r in b.data]
        assert [(canonical(form, v),) for (v,) in exported] == expected
        blocks = b"".join(b.data for b in session.export(table, fields(table, form), "pgtext"))
        lines = blocks.split(b"\n")[:-1]
        assert [(_from_copy(form, text),) for text in lines] == expected


def _from_copy(form: Form, text: bytes) -> bytes | None:
    if text == b"\\N":
        return None
    plain = (
        text.replace(b"\\\\", b"\0\0\0")
        .replace(b"\\t", b"\t")
        .replace(b"\\n", b"\n")
        .replace(b"\\r", b"\r")
        .replace(b"\0\0\0", b"\\")
    )
    if form == Form.BYTES:
        return canonical(form, bytes.fromhex(plain[2:].decode()))
    return canonical(form, plain.decode())


# ---------------------------------------------------------------------------------------------------------------------- schemas


RICH = (
    (
        'CREATE TABLE "Über;--" (id INTEGER PRIMARY KEY AUTOINCREMENT, "a""b" VARCHAR(10) COLLATE NOCASE NOT NULL DEFAULT \'x\', n INT,'
        ' twice INT GENERATED ALWAYS AS (n * 2) STORED, CONSTRAINT "u %s" UNIQUE ("a""b", n), CONSTRAINT positive CHECK (n > 0))'
    ),
    (
        'CREATE TABLE child (a TEXT, b INT, x TEXT, PRIMARY KEY (a, b), CONSTRAINT up FOREIGN KEY (b) REFERENCES "Über;--" (id)'
        " ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID"
    ),
    "CREATE TABLE loose (k TEXT PRIMARY KEY, ref INT REFERENCES tight)",
    "CREATE TABLE tight (k TEXT PRIMARY KEY, any_of ANY) STRICT",
    "CREATE UNIQUE INDEX part ON child (b DESC, lower(x)) WHERE x IS NOT NULL",
    "CREATE VIEW v (one) AS SELECT a FROM child",
    "CREATE TRIGGER tr AFTER INSERT ON child BEGIN UPDATE loose SET ref = 1; END",
    "CREATE VIRTUAL TABLE words USING fts5 (body)",
    "INSERT INTO loose VALUES (NULL, 1), (NULL, 2)",
)


def test_a_schema_comes_back_as_it_was(path: Path, tmp_path: Path) -> None:
    raw(path, *RICH)
    again = tmp_path / "again.db"
    with closing(opened(path)) as session:
        schema = session.inspect()
        raw(again, *session.engine.ddl.create(schema))
    with closing(opened(again)) as session:
        assert _unwritten(session.inspect()) == _unwritten(schema)
    by_name = {t.name: t for t in schema.tables}
    assert set(by_name) == {"Über;--", "child", "loose", "tight"}, "shadow tables are no tables"
    over = by_name["Über;--"]
    assert over.column("id").identity is not None
    assert over.column("twice").generated is not None
    assert over.uniques == (Key(name="u %s", columns=('a"b', "n")),)
    assert over.checks[0].name == "positive"
    (key,) = by_name["child"].foreign_keys
    assert (key.name, key.table, key.on_delete, key.on_update, key.initially_deferred) == (
        "up",
        "Über;--",
        "cascade",
        "set null",
        True,
    )
    assert by_name["loose"].column("k").nullable, "SQLite lets NULL into this key"
    assert not by_name["tight"].column("k").nullable
    (index,) = by_name["child"].indexes
    assert index.parts == (IndexPart(column="b", descending=True), IndexPart(expression="lower(x)"))
    assert index.where == "x IS NOT NULL"
    assert [(r.kind, r.name) for r in schema.routines] == [("virtual table", "words")]
    assert [t.events for t in by_name["child"].triggers] == [("insert",)]


def _unwritten(schema: Schema) -> Schema:
    """Return a schema without what depends on how its statements were written."""
    tables = tuple(
        msgspec.structs.replace(t, indexes=tuple(msgspec.structs.replace(i, definition=None) for i in t.indexes))
        for t in schema.tables
    )
    return msgspec.structs.replace(
        stable(schema), tables=stable(msgspec.structs.replace(schema, tables=tables)).tables, database=""
    )


def test_sqlalchemy_sees_the_same(path: Path) -> None:
    raw(path, *RICH[:4])
    with closing(opened(path)) as session:
        schema = session.inspect()
    other = create_engine(f"sqlite:///{path}", creator=lambda: sqlite3.connect(path))
    view = alchemy(other)
    assert sorted(view.get_table_names()) == [t.name for t in schema.tables]
    for table in schema.tables:
        columns = view.get_columns(table.name)
        assert [c["name"] for c in columns] == [c.name for c in table.columns]
        assert view.get_pk_constraint(table.name)["constrained_columns"] == list(
            table.primary_key.columns if table.primary_key else ()
        )
        keys = view.get_foreign_keys(table.name)
        assert {(tuple(k["constrained_columns"]), k["referred_table"]) for k in keys} == {
            (k.columns, k.table) for k in table.foreign_keys
        }
    other.dispose()


def test_meanings_survive_in_our_own_files(path: Path) -> None:
    from dblens.engines.sqlite import ddl, types

    kinds: list[DataType] = [
        Boolean(),
        Decimal(12, 3),
        Date(),
        Timestamp(6, zone=True),
        Uuid(),
        Text(7),
        Integer(64, unsigned=True),
    ]
    stored = [(f"c{i}", types.store(Column(name="c", type=k, native="x"), "postgresql")) for i, k in enumerate(kinds)]
    table = Table(
        namespace="main", name="t", columns=tuple(Column(name=n, type=s.type, native=s.native) for n, s in stored)
    )
    raw(path, *ddl.build([table], {}).before)
    with closing(opened(path)) as session:
        assert [c.type for c in table_of(session, "t").columns] == kinds


# -------------------------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_and_who_may_join_it(path: Path) -> None:
    raw(path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    with closing(opened(path)) as session:
        snapshot = session.begin_snapshot()
        with closing(session.join(snapshot)) as other:
            assert other.count(table_of(other, "t")) == 1
        raw(path, "INSERT INTO t VALUES (2)")
        assert session.count(table_of(session, "t")) == 1
        with pytest.raises(Unsupported, match="written since"):
            session.join(snapshot)
        session.end_snapshot()
        assert session.count(table_of(session, "t")) == 2


@pytest.mark.parametrize(
    "ddl",
    [
        "(id INTEGER PRIMARY KEY, v)",
        "(a TEXT, b INT, v, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "(rowid, _rowid_, v)",
        "(v)",
    ],
)
def test_chunks_hold_every_row_once(path: Path, ddl: str) -> None:
    raw(path, f"CREATE TABLE t {ddl}")
    with closing(sqlite3.connect(path)) as db:
        width = 2 if "id INTEGER" in ddl else 1 if ddl == "(v)" else 3
        db.executemany(
            f"INSERT INTO t VALUES ({', '.join('?' * width)})",
            [tuple(str(i % 7) if n == 0 and width == 3 else i for n in range(width)) for i in range(-50, 51)],
        )
        db.commit()
    with closing(opened(path)) as session:
        table = table_of(session, "t")
        whole = session.fingerprint(table, fields(table, Form.DYNAMIC)).total
        parts = session.chunks(table, 10)
        assert len(parts) == 11
        total = sum(
            (session.fingerprint(table, fields(table, Form.DYNAMIC), keys=k).total for k in parts), start=type(whole)()
        )
        assert total == whole


# ------------------------------------------------------------------------------------------------------------------------- runs


TARGET = Table(
    namespace="main",
    name="item",
    columns=(
        Column(name="id", type=Integer(64), native="INTEGER", nullable=False),
        Column(name="name", type=Text(), native="TEXT"),
        Column(name="at", type=Timestamp(6, zone=True), native="TEXT"),
    ),
    primary_key=Key(name=None, columns=("id",)),
    indexes=(Index(name="item_name", parts=(IndexPart(column="name"),)),),
)
FIELDS = [
    Field(column=c, form=f, target=c)
    for c, f in zip(TARGET.columns, (Form.INT, Form.TEXT, Form.TIMESTAMPTZ), strict=True)
]
DATA = [(1, "ä", "2024-01-01 00:00:00.500"), (2, None, None), (7, "NULL", "0044-03-15 12:00:00 BC")]


def stage(
    session: Target, data: Sequence[tuple[Any, ...]] = DATA, record: RunRecord = RUN, *, indexes: bool = True
) -> RunRecord:
    record = session.open_run(record)
    build = session.engine.ddl.build([TARGET], {("main", "item"): ("main", "item")})
    session.build(build.before)
    chunk = Chunk(run=record.id, table=("main", "item"), number=0, epoch=record.epoch)
    session.load(("main", "item"), FIELDS, "rows", [Block(data=list(data), size=10, rows=len(data))], chunk, fast=True)
    if indexes:
        session.build(build.after)
    return record


MOVES = [Move(live=("main", "item"), staged=("main", "item"), table=TARGET, previous=("main", "_dblens_run1_item"))]
LIVE = (
    'CREATE TABLE "item" (id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (item.id > 0), name TEXT, at TEXT, up INT REFERENCES item)',
    "CREATE INDEX item_name ON item (name COLLATE NOCASE)",
    "CREATE TRIGGER item_log AFTER INSERT ON item BEGIN INSERT INTO log VALUES (new.id); END",
    "CREATE TABLE log (id INT)",
    "CREATE TABLE other (item INT REFERENCES item)",
    "CREATE VIEW names AS SELECT name FROM item",
    "INSERT INTO item VALUES (100, 'old', 'x', NULL)",
    "DELETE FROM log",
    "DELETE FROM item",
    "INSERT INTO item VALUES (1, 'old', 'x', 1)",
    "DELETE FROM log",
)


def dump(path: Path) -> list[str]:
    """Return all statements that make the file again, our own objects included, in no particular order."""
    with closing(sqlite3.connect(path)) as db:
        found = list(db.iterdump())
    if rows(path, "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"):
        found += map(str, rows(path, "SELECT * FROM sqlite_sequence"))
    return sorted(found)


def litter(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if "dblens" in p.name)


def test_publishing_a_new_file_and_taking_it_back(path: Path) -> None:
    with closing(opened(path, create=True)) as session:
        record = stage(session)
        assert not path.exists()
        assert [c.rows for c in session.ledger("run1")] == [3]
        record = session.swap(record, MOVES)
        assert record.state == "swapped"
        assert rows(path, "SELECT * FROM item")[0] == (1, "ä", "2024-01-01 00:00:00.5Z")
        assert list(session.canonical_rows(TARGET, FIELDS))[2] == (b"7", b"NULL", b"0044-03-15 12:00:00 BC")
        assert session.read_run("run1") == record
        assert not [n for (n,) in rows(path, "SELECT name FROM sqlite_schema") if n.startswith("_dblens")]
        record = session.unswap(record, MOVES)
        assert not path.exists()
        session.close_run(record)
    assert litter(path) == []


@pytest.mark.parametrize("size", ["absent", "empty"])
def test_rollback_spares_what_others_made_in_the_new_file(path: Path, size: str) -> None:
    if size == "empty":
        path.touch()
    with closing(opened(path, create=True)) as session:
        record = session.swap(stage(session), MOVES)
        raw(path, "CREATE TABLE mine (a)", "INSERT INTO mine VALUES (1)")
        session.close_run(session.unswap(record, MOVES))
    assert rows(path, "SELECT name FROM sqlite_schema") == [("mine",)]


def test_an_empty_file_is_empty_again(path: Path) -> None:
    path.touch()
    with closing(opened(path)) as session:
        record = session.swap(stage(session), MOVES)
        assert path.stat().st_size
        session.close_run(session.unswap(record, MOVES))
    assert path.stat().st_size == 0


@pytest.mark.parametrize("check", [" CHECK (item.id > 0)", ""], ids=["a check that names its table", "plain"])
def test_replacing_in_a_live_file(path: Path, check: str) -> None:
    raw(path, LIVE[0].replace(" CHECK (item.id > 0)", check), *LIVE[1:])
    before = dump(path)
    with closing(opened(path)) as session:
        schema = schema_hash(session.inspect())
        record = session.swap(stage(session), MOVES)
        assert [r[1] for r in rows(path, "SELECT * FROM item")] == ["ä", None, "NULL"]
        assert len(rows(path, "SELECT * FROM names")) == 3
        assert {t.name for t in session.inspect().tables} == {"item", "log", "other"}
        assert rows(path, "SELECT * FROM log") == [], "a trigger fired"
        record = session.unswap(record, MOVES)
        session.close_run(record)
        assert schema_hash(session.inspect()) == schema
    assert dump(path) == before
    assert litter(path) == []


def test_finalize_leaves_nothing_of_ours(path: Path) -> None:
    raw(path, *LIVE)
    with closing(opened(path)) as session:
        record = session.swap(stage(session), MOVES)
        session.close_run(msgspec.structs.replace(record, state="finalized"))
        assert len(rows(path, "SELECT * FROM item")) == 3
    assert not [n for (n,) in rows(path, "SELECT name FROM sqlite_schema") if n.startswith("_dblens")]
    assert litter(path) == []


def test_a_view_that_would_break_stops_the_swap(path: Path) -> None:
    raw(path, "CREATE TABLE item (id INTEGER PRIMARY KEY, gone TEXT)", "CREATE VIEW v AS SELECT gone FROM item")
    before = dump(path)
    with closing(opened(path)) as session:
        record = stage(session)
        with pytest.raises(Conflict, match="view 'v'"):
            session.swap(record, MOVES)
        assert dump(path) == before


def test_rows_outside_that_would_lose_their_parent_stop_the_swap(path: Path) -> None:
    raw(path, *LIVE, "INSERT INTO item VALUES (5, 'five', NULL, NULL)", "INSERT INTO other VALUES (5)")
    with closing(opened(path)) as session:
        record = stage(session)
        with pytest.raises(Conflict, match="1 rows of 'other'"):
            session.swap(record, MOVES)
    assert rows(path, "SELECT count(*) FROM item") == [(2,)]


class Crash(BaseException):
    """Stands for kill -9: nothing after it runs."""


STEPS = ["_show", "sync", "unlink", "_copy_in", "_put_aside", "remember", "write"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("live", [False, True], ids=["new file", "live file"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_step_of_swap_and_rollback(
    path: Path, live: bool, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old or new, never a mix; called again it ends as if nothing had happened."""
    if live:
        raw(path, *LIVE)
    before = dump(path) if live else None
    old = [("old",)] if live else None
    new = [("ä",), (None,), ("NULL",)]

    def seen() -> list[tuple[Any, ...]] | None:
        return rows(path, "SELECT name FROM item ORDER BY id") if path.exists() else None

    session = opened(path, create=True)
    record = stage(session)
    _crash(monkeypatch, step, when, lambda: session.swap(record, MOVES))
    assert seen() in (old, new)
    session.close()
    session = opened(path, create=True)
    known = session.read_run("run1")
    assert known is not None
    record = session.open_run(known, takeover=True)
    assert record.epoch == 2
    record = session.swap(record, MOVES)
    assert (record.state, seen()) == ("swapped", new)
    _crash(monkeypatch, step, when, lambda: session.unswap(record, MOVES))
    assert seen() in (old, new)
    session.close()
    session = opened(path, create=True)
    known = session.read_run("run1")
    assert known is not None
    record = session.open_run(known, takeover=True)
    record = session.unswap(record, MOVES)
    assert seen() == old
    session.close_run(record)
    session.close()
    assert litter(path) == []
    assert (dump(path) if live else None) == before


def _crash(monkeypatch: pytest.MonkeyPatch, step: str, when: str, work: Callable[[], object]) -> None:
    """Run something that dies before or after its first call of `step`."""
    owner: Any = {"unlink": os, "write": files.Files}.get(step, swap)
    real = getattr(owner, step)

    def dies(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            real(*args, **kwargs)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dies)
        try:
            work()
        except Crash:
            return


def test_one_migration_at_a_time(path: Path) -> None:
    with closing(opened(path, create=True)) as first, closing(opened(path, create=True)) as second:
        stage(first)
        with pytest.raises(Conflict, match="me"):
            second.open_run(msgspec.structs.replace(RUN, id="run2"))
        with pytest.raises(Conflict, match="me"):
            second.open_run(RUN, takeover=True)
    with closing(opened(path, create=True)) as third:
        record = third.open_run(msgspec.structs.replace(RUN, holder="you"), takeover=True)
        assert (record.epoch, record.holder, record.document) == (2, "you", RUN.document)
        with pytest.raises(Conflict):
            third.write_run(RUN)
        third.close_run(record)


def test_a_machine_that_went_down_makes_the_file_distrusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dblens.engines.sqlite import staging

    with closing(opened(path, create=True)) as session:
        record = stage(session)
        session.write_run(msgspec.structs.replace(record, state="built"))
    monkeypatch.setattr(staging, "boot_id", lambda: "another")
    with closing(opened(path, create=True)) as session:
        record = session.open_run(RUN, takeover=True)
        assert record.state == "copying"
        assert session.ledger("run1") == []
        session.close_run(record)


def test_a_failed_load_leaves_nothing(path: Path) -> None:
    with closing(opened(path, create=True)) as session:
        record = stage(session, [])
        chunk = Chunk(run="run1", table=("main", "item"), number=1, epoch=1)

        def blocks() -> Iterator[Block]:
            yield Block(data=[(1, "a", None)], size=1, rows=1)
            raise InvalidInput("the source failed")

        with pytest.raises(InvalidInput):
            session.load(("main", "item"), FIELDS, "rows", blocks(), chunk, fast=False)
        assert session.count(TARGET) == 0
        with pytest.raises(QueryFailed, match="UNIQUE"):
            session.load(
                ("main", "item"), FIELDS, "rows", [Block(data=[(1, "a", None)] * 2, size=1, rows=2)], chunk, fast=False
            )
        with pytest.raises(InvalidInput, match="64 bits"):
            session.load(
                ("main", "item"), FIELDS, "rows", [Block(data=[(2**64, "a", None)], size=1, rows=1)], chunk, fast=False
            )
        with pytest.raises(Conflict, match="epoch"):
            session.load(("main", "item"), FIELDS, "rows", [], msgspec.structs.replace(chunk, epoch=0), fast=False)
        assert session.count(TARGET) == 0
        session.close_run(record)


@pytest.mark.parametrize("value", [float("nan"), -0.0])
def test_floats_that_sqlite_would_change_are_refused(path: Path, value: float) -> None:
    column = Column(name="v", type=Float(64), native="REAL")
    table = Table(namespace="main", name="f", columns=(column,))
    with closing(opened(path, create=True)) as session:
        record = session.open_run(RUN)
        session.build(session.engine.ddl.build([table], {}).before)
        with pytest.raises(InvalidInput, match="'v'"):
            session.load(("main", "f"), [Field(column=column, form=Form.FLOAT, target=column)], "rows",
                         [Block(data=[(value,)], size=1, rows=1)], Chunk(run="run1", table=("main", "f"), number=0, epoch=1), fast=True)  # fmt: skip
        session.close_run(record)


# ----------------------------------------------------------------------------------------------------------------------- merges


@pytest.mark.parametrize("rule", ["error", "skip", "update"])
def test_append_and_undo(path: Path, rule: Any) -> None:
    raw(path, *LIVE)
    before = dump(path)
    with closing(opened(path)) as session:
        record = stage(session, indexes=False)
        if rule == "error":
            with pytest.raises(Conflict, match="for example 1"):
                session.merge(record, ("main", "item"), ("main", "item"), FIELDS, ("id",), rule)
            assert dump(path) == before
            session.close_run(record)
            return
        counts = session.merge(record, ("main", "item"), ("main", "item"), FIELDS, ("id",), rule)
        assert (counts.inserted, counts.updated, counts.skipped) == (2, int(rule == "update"), int(rule == "skip"))
        assert session.merge(record, ("main", "item"), ("main", "item"), FIELDS, ("id",), rule) == counts, (
            "called again after a crash"
        )
        assert rows(path, "SELECT name FROM item ORDER BY id") == [
            ("ä" if rule == "update" else "old",),
            (None,),
            ("NULL",),
        ]
        assert rows(path, "SELECT * FROM log") == [], "a trigger fired"
        raw(path, "UPDATE item SET name = 'null' WHERE id = 7")
        with pytest.raises(Irreversible, match="1 rows"):
            session.unmerge(record, ("main", "item"), ("id",))
        raw(path, "UPDATE item SET name = 'NULL' WHERE id = 7")
        session.unmerge(record, ("main", "item"), ("id",))
        session.unmerge(record, ("main", "item"), ("id",))
        session.close_run(record)
    assert dump(path) == before
    assert litter(path) == []


def test_a_run_that_is_closed_unswapped_takes_its_appended_rows_back(path: Path) -> None:
    raw(path, *LIVE)
    before = dump(path)
    with closing(opened(path)) as session:
        record = stage(session, indexes=False)
        session.merge(record, ("main", "item"), ("main", "item"), FIELDS, ("id",), "skip")
        session.close_run(msgspec.structs.replace(record, state="verified"))
    assert dump(path) == before


def test_append_without_a_key_keeps_duplicates(path: Path) -> None:
    raw(
        path, "CREATE TABLE item (id INT, name TEXT, at TEXT)", "INSERT INTO item VALUES (1, 'ä', NULL), (1, 'ä', NULL)"
    )
    before = dump(path)
    with closing(opened(path)) as session:
        record = stage(session, indexes=False)
        assert session.merge(record, ("main", "item"), ("main", "item"), FIELDS, (), "error").inserted == 3
        assert len(rows(path, "SELECT * FROM item")) == 5
        session.unmerge(record, ("main", "item"), ())
        session.close_run(record)
    assert dump(path) == before


# ------------------------------------------------------------------------------------------------------------------------ orphans


def test_orphans_and_numbers(path: Path) -> None:
    raw(
        path,
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY AUTOINCREMENT, p INT REFERENCES p)",
        "INSERT INTO p VALUES (1)",
        "INSERT INTO c (p) VALUES (1), (2), (2), (NULL)",
    )
    with closing(opened(path)) as session:
        child = table_of(session, "c")
        assert session.orphans(("main", "c"), child.foreign_keys[0], ("main", "p")) == (3 - 1, [("2",)])
        assert child.column("id").identity is not None
        identity = msgspec.structs.replace(child.column("id").identity, next=50)  # type: ignore[type-var]
        planned = msgspec.structs.replace(
            child, columns=(msgspec.structs.replace(child.column("id"), identity=identity),)
        )
        session.renumber(planned, ("main", "c"))
        session.execute("INSERT INTO c (p) VALUES (1)")
        assert rows(path, "SELECT max(id) FROM c") == [(50,)]
