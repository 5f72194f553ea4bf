"""Rows changed by hand: one suite for every engine, through the door. Exactly the row that was shown, exactly the value that was given."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar

import pytest

import dblens
from dblens.engines import address
from dblens.engines.base import Target
from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound, QueryFailed, Unsupported
from dblens.migrate.link import Link
from dblens.query.edit import Draft, Edited, RowChange, _Runner
from dblens.query.run import answering
from tests.engines import harness_mongodb
from tests.engines.harness import SqlHarness
from tests.engines.support import Case
from tests.servers import Server

pytest.importorskip("sqlglot")

TYPES: Mapping[str, Mapping[str, str]] = {
    "sqlite": {"big": "INTEGER", "num": "DECIMAL(20,4)", "dbl": "REAL", "txt": "TEXT COLLATE NOCASE", "bin": "BLOB", "js": "JSON", "ts": "DATETIME"},
    "mysql": {"big": "bigint", "num": "decimal(38,10)", "dbl": "double", "txt": "varchar(100)", "bin": "varbinary(20)", "js": "json", "ts": "datetime(6)"},
    "postgresql": {"big": "bigint", "num": "numeric(38,10)", "dbl": "double precision", "txt": "varchar(100)", "bin": "bytea", "js": "json", "ts": "timestamp(6)"},
}  # fmt: skip
OTHERS: Mapping[str, Sequence[tuple[str, str]]] = {
    "sqlite": (
        ("BOOLEAN", "1"), ("DATE", "2024-01-01"), ("TIME", "00:00:01"), ("UUID", "00000000-0000-0000-0000-000000000001"),
        ("", "i:5"), ("", "t:5"), ("", "r:1.5"), ("", "b:00"), ("INTEGER", "t:abc"), ("BLOB", "t:x"), ("DECIMAL(10,2)", "t:x"),
    ),
    "mysql": (
        ("float", "0.5"), ("tinyint(1)", "1"), ("enum('x','y')", "y"), ("set('x','y')", "x,y"), ("bit(4)", "0101"),
        ("time(6)", "-838:59:58.000001"), ("year", "2001"), ("timestamp(6) NULL", "2024-01-01 00:00:00.000001"),
        ("bigint unsigned", "18446744073709551615"), ("decimal(65,30)", "0.1"), ("varchar(9) CHARACTER SET latin1", "é"),
    ),
    "postgresql": (
        ("real", "0.10000000149011612"), ("boolean", "1"), ("interval", "1 2 3"), ("bit(4)", "0101"), ("time", "24:00:00"),
        ("uuid", "00000000-0000-0000-0000-000000000001"), ("timetz", "00:00:00+01"), ("timestamptz", "2024-01-01 00:00:00.000001"),
        ("timestamptz", "0044-03-15 12:00:00 BC"), ("timestamptz", "infinity"), ("jsonb", '{"a":1.5}'), ("numeric", "NaN"),
        ("inet", "10.0.0.1/8"), ("point", "(1,2)"), ("int4range", "[1,5)"), ("char(5)", "ab   "),
    ),
}  # fmt: skip
NAMES = ("a b", 'q"q', "b`b", "s's", ";--", "%s", "{}", "[]", ":v1", "?", "é")


class Grid:
    """A table as somebody sees it who edits it."""

    def __init__(self, case: Case, url: str, table: str) -> None:
        parsed, password = address.parse(url, allow_password=True)
        self.case, self.url, self.table, self.link = case, url, table, Link(parsed, password)
        self.ws: Any = dblens.open()

    def edit(self, *changes: RowChange, **options: Any) -> Edited:
        made: Edited = self.ws.queries.edit(self.link, self.table, list(changes), **options)
        return made

    def draft(self, *changes: RowChange) -> Draft:
        made: Draft = self.ws.queries.draft(self.link, self.table, list(changes))
        return made

    def rows(self) -> list[dict[str, str | None]]:
        """Return all rows as canonical texts, by the engine's own answer, in the order of their first column."""
        session: Target = self.case.open(self.url)
        engine = session.engine
        names: tuple[str, ...]
        if engine.facts.documents:
            text, names = f'db.getCollection("{self.table}").find({{}}).sort({{_id: 1}})', ("_id", "v", "w")
        else:
            text, names = f"SELECT * FROM {engine.ddl.quote(self.table)} ORDER BY 1", ()
        with answering(engine, session).ask(text) as answer:
            rows = [row for some in answer.batches() for row in some]
            columns = names or tuple(out.name for out in answer.columns)
            assert engine.edits is not None
            return [
                dict(zip(columns, engine.edits.row(answer.columns, row, columns), strict=True)) for row in rows
            ]  # fmt: skip


def update(old: dict[str, Any], **new: Any) -> RowChange:
    return RowChange(action="update", old=old, new=new)


def delete(**old: Any) -> RowChange:
    return RowChange(action="delete", old=old)


def insert(**new: Any) -> RowChange:
    return RowChange(action="insert", new=new)


def keyed(case: Case, rows: int = 3) -> tuple[Grid, str]:
    """Return a table of rows with the keys -4, -1, 2 … and `v` 1, 2, 3 …, and the name of its key."""
    url = case.database()
    case.harness.keyed(url, "k_int", rows)
    return Grid(case, url, "k_int"), case.harness.KEYS["k_int"][0]


def made(case: Case, table: str, columns: str, *statements: str) -> Grid:
    assert isinstance(case.harness, SqlHarness), "it speaks no SQL"
    url = case.database()
    case.harness.run(url, [f"CREATE TABLE {case.harness.quote(table)} ({columns})", *statements])
    return Grid(case, url, table)


# ------------------------------------------------------------------------------------------------------------------- any engine


def test_a_row_is_changed_inserted_and_deleted(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    one = grid.edit(update({key: "-4", "v": "1"}, v="10"))
    assert (one.updated, one.inserted, one.deleted) == (1, 0, 0)
    assert one.rows[0].values[key] == "-4"
    assert one.rows[0].values["v"] == "10"
    assert grid.edit(insert(**{key: 50, "v": 7})).inserted == 1
    assert grid.edit(delete(**{key: -1, "v": "2"})).deleted == 1
    assert [(row[key], row["v"]) for row in grid.rows()] == [("-4", "10"), ("2", "3"), ("50", "7")]


def test_nothing_runs_before_it_was_shown(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    draft = grid.draft(update({key: "-4", "v": "1"}, v="10"), delete(**{key: "2", "v": "3"}))
    assert draft.key == (key,)
    assert [(each.number, each.action, each.row) for each in draft.statements] == [
        (1, "update", f"{key}=-4"),
        (2, "delete", f"{key}=2"),
    ]
    assert "10" in draft.statements[0].params.values()
    assert all(":v" in each.text for each in draft.statements)
    assert [row["v"] for row in grid.rows()] == ["1", "2", "3"]


def test_who_changed_it_before_is_not_overwritten(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    grid.edit(update({key: "-4", "v": "1"}, v="5"))
    for change in (update({key: "-4", "v": "1"}, v="10"), delete(**{key: "-4", "v": "1"})):
        with pytest.raises(Conflict, match=f"{key}=-4 was changed since: v is '5', was '1'"):
            grid.edit(change)
    with pytest.raises(Conflict, match="999 is not there"):
        grid.edit(delete(**{key: "999"}))
    assert [row["v"] for row in grid.rows()] == ["5", "2", "3"]


def test_a_batch_is_all_or_nothing(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    changes = (update({key: "-4", "v": "1"}, v="10"), insert(**{key: "60", "v": "0"}), delete(**{key: "2", "v": "4"}))
    with pytest.raises((Conflict, Unsupported), match=r"change 3|at once"):
        grid.edit(*changes)
    assert [row["v"] for row in grid.rows()] == ["1", "2", "3"]


def test_without_transactions_one_by_one_if_asked(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    done = grid.edit(update({key: "-4", "v": "1"}, v="10"), delete(**{key: "2", "v": "3"}), piecemeal=True)
    assert (done.updated, done.deleted) == (1, 1)
    assert done.atomic or "not in a transaction" in done.notes[0]
    assert [row["v"] for row in grid.rows()] == ["10", "2"]


def test_two_at_once_only_one_wins(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    start, outcomes = threading.Barrier(2), list[str]()

    def change(value: str) -> None:
        mine = Grid(grid.case, grid.url, grid.table)
        start.wait(20)
        try:
            mine.edit(update({key: "-4", "v": "1"}, v=value))
            outcomes.append(value)
        except DBLensError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=change, args=(value,)) for value in ("10", "11")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (won,) = [each for each in outcomes if each in ("10", "11")]
    assert grid.rows()[0]["v"] == won
    assert len(outcomes) == 2


def test_what_cannot_be_is_refused_before_anything_runs(engine_case: Case) -> None:
    grid, key = keyed(engine_case)
    for words, changes in (
        ("no old value of the key: ", [update({"v": "1"}, v="2")]),
        ("no old value of v", [update({key: "-4"}, v="2")]),
        ("changes nothing", [update({key: "-4", "v": "1"}, v="1")]),
        ("without new values", [update({key: "-4", "v": "1"})]),
        ("no new values", [RowChange(action="delete", old={key: "-4"}, new={"v": "1"})]),
        ("no old values", [RowChange(action="insert", old={key: "-4"}, new={"v": "1"})]),
        ("0 changes", []),
        ("1001 changes", [delete(**{key: "1"})] * 1001),
        ("change 2: ", [update({key: "-4", "v": "1"}, v="2"), update({key: "-4", "v": "1"}, v="1")]),
    ):
        with pytest.raises(InvalidInput, match=words):
            grid.edit(*changes)
    with pytest.raises((NotFound, Conflict)):
        Grid(grid.case, grid.url, "nothing").edit(delete(**{key: "1"}))
    assert [row["v"] for row in grid.rows()] == ["1", "2", "3"]


# ------------------------------------------------------------------------------------------------------------------------- SQL


class TestSql:
    """What servers that speak SQL have, and documents have not."""

    VALUES: ClassVar[Sequence[tuple[str, str, str]]] = (
        ("big", "9007199254740993", "-9223372036854775807"),
        ("num", "0.1", "12345678.0625"),
        ("dbl", "0.1", "1.0000000000000002"),
        ("txt", "a", "A"),
        ("bin", "00ff", "275c25"),
        ("js", '{"a":1.5}', '{"a":[1,null,"x"]}'),
        ("ts", "2024-10-27 02:30:00.000001", "2024-10-27 02:30:00.000002"),
    )

    def test_every_value_exactly(self, engine_case: Case) -> None:
        types = TYPES.get(engine_case.harness.engine, {})
        columns = ", ".join(["id integer NOT NULL PRIMARY KEY", *(f"{n} {t}" for n, t in types.items())])
        grid = made(engine_case, "t", columns)
        nothing: dict[str, Any] = dict.fromkeys(types)
        first, second = (
            {**nothing, **{n: a for n, a, _ in self.VALUES}},
            {**nothing, **{n: b for n, _, b in self.VALUES}},
        )
        other = {**first, "txt": "it's 100% ;-- :v1 {} \\ é😀"}
        before = {"id": "1", **nothing}
        assert grid.edit(insert(**before)).rows[0].values == before
        for after in (first, second, other, nothing, first):
            done = grid.edit(RowChange(action="update", old=before, new=after))
            assert done.rows[0].values == {"id": "1", **after}
            before = {"id": "1", **after}
        for name in types:
            for value in (second[name], None):
                with pytest.raises(Conflict, match=f"id=1 was changed since: {name} is"):
                    grid.edit(delete(**{**before, name: value}))
        assert grid.edit(delete(**before)).deleted == 1
        assert grid.rows() == []

    @pytest.mark.nightly
    def test_other_types_exactly(self, engine_case: Case) -> None:
        types = OTHERS.get(engine_case.harness.engine, ())
        columns = ", ".join(f"c{n} {native}" for n, (native, _) in enumerate(types))
        grid = made(engine_case, "t", f"id integer NOT NULL PRIMARY KEY, {columns}", "INSERT INTO t (id) VALUES (1)")
        old: dict[str, Any] = {"id": "1", **{f"c{n}": None for n in range(len(types))}}
        new: dict[str, Any] = {"id": "1", **{f"c{n}": text for n, (_, text) in enumerate(types)}}
        assert grid.edit(RowChange(action="update", old=old, new=new)).rows[0].values == new
        for name in list(new)[1:]:
            with pytest.raises(Conflict, match=f"{name} is .*, was NULL"):
                grid.edit(delete(**{**new, name: None}))
        assert grid.edit(delete(**new)).deleted == 1

    @pytest.mark.nightly
    def test_rows_that_follow_are_told(self, engine_case: Case) -> None:
        grid = made(
            engine_case, "t", "id integer NOT NULL PRIMARY KEY, v integer", "INSERT INTO t VALUES (1, 1)",
            "CREATE TABLE line (t_id integer, FOREIGN KEY (t_id) REFERENCES t (id) ON DELETE CASCADE)",
        )  # fmt: skip
        assert "rows of 'line' follow" in grid.draft(delete(id="1")).notes[0]
        assert grid.draft(update({"id": "1", "v": "1"}, v="2")).notes == ()

    def test_a_value_that_would_be_stored_otherwise_is_refused(self, engine_case: Case) -> None:
        native = {"sqlite": "INTEGER", "mysql": "decimal(10,2)"}.get(engine_case.harness.engine, "numeric(10,2)")
        grid = made(engine_case, "t", f"id integer NOT NULL PRIMARY KEY, n {native}", "INSERT INTO t VALUES (1, 1)")
        if (
            engine_case.harness.engine == "sqlite"
        ):  # no type binds there; what an affinity would round is refused by what it is
            with pytest.raises(InvalidInput, match="no value of form int"):
                grid.edit(update({"id": "1", "n": "1"}, n="1.5"))
            return
        value = "1.239"
        with pytest.raises((Conflict, QueryFailed)):
            grid.edit(update({"id": "1", "n": "1"}, n=value))
        assert grid.rows() == [{"id": "1", "n": "1"}]
        done = grid.edit(update({"id": "1", "n": "1"}, n=value), loose=True)
        assert done.rows[0].values["n"] == "1.24"
        assert "stored as '1.24'" in done.notes[0]

    def test_names_are_hostile(self, engine_case: Case) -> None:
        assert isinstance(engine_case.harness, SqlHarness), "it speaks no SQL"
        q = engine_case.harness.quote
        columns = ", ".join(f"{q(name)} varchar(20)" for name in NAMES)
        grid = made(engine_case, NAMES[0], f"{q('id?')} integer NOT NULL PRIMARY KEY, {columns}")
        row: dict[str, Any] = {"id?": "1", **{name: f"{name}'" for name in NAMES}}
        assert grid.edit(insert(**row)).rows[0].values == row
        other = {**row, **{name: f"\\{name}%s" for name in NAMES}}
        assert grid.edit(RowChange(action="update", old=row, new=other)).rows[0].values == other
        assert grid.edit(delete(**other)).deleted == 1
        assert grid.rows() == []

    def test_without_a_key_all_values_match_and_only_one_row(self, engine_case: Case) -> None:
        grid = made(
            engine_case, "t", "a integer, b varchar(10)", "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, NULL), (3, 'X')"
        )
        assert grid.draft(delete(a="2", b=None)).key == ()
        with pytest.raises(InvalidInput, match="a table without a key: b"):
            grid.edit(delete(a="2"))
        with pytest.raises(Conflict, match="more than once"):
            grid.edit(update({"a": "1", "b": "x"}, b="y"))
        with pytest.raises(Conflict, match="not there"):
            grid.edit(update({"a": "3", "b": "x"}, b="y"))
        assert grid.edit(update({"a": "2", "b": None}, b="new")).updated == 1
        assert [(row["a"], row["b"]) for row in grid.rows()][2] == ("2", "new")
        assert len(grid.rows()) == 4

    @pytest.mark.nightly
    def test_a_unique_key_without_null_is_a_key(self, engine_case: Case) -> None:
        grid = made(
            engine_case, "t", "a integer NOT NULL UNIQUE, b integer UNIQUE, c integer", "INSERT INTO t VALUES (1, 1, 1)"
        )
        assert grid.draft(delete(a="1")).key == ("a",)
        assert (
            grid.edit(update({"a": "1", "c": "1"}, a="2") if False else update({"a": "1", "c": "1"}, c="2")).updated
            == 1
        )

    def test_generated_columns_and_numbered_keys(self, engine_case: Case) -> None:
        numbered = {
            "sqlite": "id INTEGER PRIMARY KEY",
            "mysql": "id integer NOT NULL AUTO_INCREMENT PRIMARY KEY",
        }.get(engine_case.harness.engine, "id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
        grid = made(engine_case, "t", f"{numbered}, v integer DEFAULT 5, g integer GENERATED ALWAYS AS (v * 2) STORED")
        assert grid.edit(insert()).rows[0].values == {"id": "1", "v": "5", "g": "10"}
        assert grid.edit(insert(v="6")).rows[0].values == {"id": "2", "v": "6", "g": "12"}
        assert grid.edit(insert(id="70", v=None)).rows[0].values == {"id": "70", "v": None, "g": None}
        with pytest.raises(InvalidInput, match="generated"):
            grid.edit(insert(g="1"))
        with pytest.raises(InvalidInput, match="generated"):
            grid.edit(update({"id": "1", "g": "10"}, g="1"))
        assert grid.edit(update({"id": "1", "v": "5", "g": "10"}, v="7")).rows[0].values["g"] == "14"

    def test_a_trigger_does_not_change_the_count(self, engine_case: Case) -> None:
        trigger = {
            "sqlite": ["CREATE TRIGGER tr AFTER UPDATE ON t BEGIN UPDATE log SET n = n + 1; END"],
            "mysql": ["CREATE TRIGGER tr AFTER UPDATE ON t FOR EACH ROW UPDATE log SET n = n + 1"],
            "postgresql": [
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE log SET n = n + 1; RETURN NULL; END$$",
                "CREATE TRIGGER tr AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
            ],
        }.get(engine_case.harness.engine, [])
        grid = made(
            engine_case, "t", "id integer NOT NULL PRIMARY KEY, v integer", "CREATE TABLE log (n integer)",
            "INSERT INTO log VALUES (0), (0), (0)", "INSERT INTO t VALUES (1, 1)", *trigger,
        )  # fmt: skip
        assert grid.edit(update({"id": "1", "v": "1"}, v="2")).updated == 1
        assert [row["n"] for row in Grid(grid.case, grid.url, "log").rows()] == ["1", "1", "1"]

    @pytest.mark.nightly
    def test_views_are_not_changed(self, engine_case: Case) -> None:
        grid = made(engine_case, "t", "id integer NOT NULL PRIMARY KEY", "CREATE VIEW seen AS SELECT id FROM t")
        with pytest.raises(InvalidInput, match="view"):
            Grid(grid.case, grid.url, "seen").edit(insert(id="1"))


# -------------------------------------------------------------------------------------------------------------------- documents


def test_documents_keep_types_and_missing_fields(mongo: Server) -> None:
    case = Case(harness_mongodb.Harness(), mongo, {})
    with closing(case):
        _documents(keyed(case)[0])


def _documents(grid: Grid) -> None:
    done = grid.edit(update({"_id": "-4", "v": "1", "w": None}, w='{"$numberLong":"9007199254740993"}'))
    assert done.rows[0].values["w"] == "9007199254740993"
    with pytest.raises(Conflict, match=r"v is '1', was '1\.0'"):
        grid.edit(update({"_id": "-4", "v": "1.0"}, v="2"))
    assert grid.edit(update({"_id": "-4", "v": "1"}, v="null")).rows[0].values["v"] == "null"
    assert grid.edit(update({"_id": "-4", "v": "null"}, v=None)).rows[0].values["v"] is None
    with pytest.raises(Conflict, match="v is NULL, was 'null'"):
        grid.edit(update({"_id": "-4", "v": "null"}, v="1"))
    for name in ("$where", "a.b", ""):
        with pytest.raises(InvalidInput, match="no field"):
            grid.edit(RowChange(action="update", old={"_id": "-4", name: None}, new={name: "1"}))


def test_without_transactions_what_was_read_is_matched_again(mongo: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server that is no replica set: between reading a document and writing it somebody else may come."""
    case = Case(harness_mongodb.Harness(), mongo, {})
    compare, read = _Runner._compare, list[int]()

    def begun(runner: _Runner) -> bool:
        runner._why = "this server is no replica set"
        return False

    def late(runner: _Runner, step: Any) -> None:
        compare(runner, step)
        read.append(1)
        if len(read) == 2:  # the first is of all changes, before any is made
            database = harness_mongodb.Harness()._database(grid.url)
            database["k_int"].update_one({"_id": -4}, {"$set": {"v": 77}})
            database.client.close()

    monkeypatch.setattr(_Runner, "_begin", begun)
    with closing(case):
        grid, _ = keyed(case)
        both = (update({"_id": "-1", "v": "2"}, v="20"), update({"_id": "-1", "v": "20"}, v="21"))
        with pytest.raises(Unsupported, match="no replica set"):
            grid.edit(*both)
        with pytest.raises(Conflict, match="was changed since"):  # told before anything is done
            grid.edit(*both, piecemeal=True)
        assert grid.rows()[1]["v"] == "2"
        monkeypatch.setattr(_Runner, "_compare", late)
        with pytest.raises(Conflict, match="would touch 0 rows"):
            grid.edit(update({"_id": "-4", "v": "1"}, v="10"))
        assert grid.rows()[0]["v"] == "77"
        twice = (insert(_id="8", v="1"), insert(_id="8", v="2"))
        with pytest.raises(DBLensError, match="before it 1 of 2 changes were made, and stay"):
            grid.edit(*twice, piecemeal=True)
        assert [row["_id"] for row in grid.rows()] == ["-4", "-1", "2", "8"]
