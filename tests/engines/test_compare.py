"""Dual runs between engines: SQLite here, any SQL server there; equal values are equal whatever stores them, and nothing else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import dblens
from dblens.engines import address
from dblens.migrate.link import Link
from tests.engines.harness import SqlHarness
from tests.engines.support import Case

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")

HERE = {"id": "INTEGER PRIMARY KEY", "n": "DECIMAL(20,4)", "f": "REAL", "t": "TEXT", "b": "BLOB", "d": "DATE", "ts": "DATETIME"}  # fmt: skip
THERE: Mapping[str, Mapping[str, str]] = {
    "sqlite": HERE,
    "mysql": {"id": "bigint PRIMARY KEY", "n": "decimal(30,10)", "f": "double", "t": "varchar(100)", "b": "varbinary(9)", "d": "date", "ts": "datetime(6)"},
    "postgresql": {"id": "bigint PRIMARY KEY", "n": "numeric(30,10)", "f": "double precision", "t": "text", "b": "bytea", "d": "date", "ts": "timestamp"},
}  # fmt: skip
ROWS = (
    "(1, 1.5, 0.1, 'é😀', NULL, '2024-02-29', '2024-10-27 02:30:00.000001')",
    "(2, 0, -2.5, '', NULL, NULL, NULL)",
    "(9007199254740993, 12345678.0625, 1e300, 'NULL', NULL, '9999-12-31', '1999-12-31 23:59:59.5')",
    "(4, NULL, NULL, NULL, NULL, NULL, NULL)",
)
COLUMNS = ", ".join(HERE)


class Pair:
    """The same rows in SQLite and in the engine under test."""

    def __init__(self, case: Case, folder: Path) -> None:
        assert isinstance(case.harness, SqlHarness), "it speaks no SQL"
        self.case, self.file, self.url = case, folder / "here.db", case.database()
        self.ws: Any = dblens.open()
        insert = [f"INSERT INTO t ({COLUMNS}) VALUES {row}" for row in ROWS]
        with closing(sqlite3.connect(self.file)) as db, db:
            for statement in (self._table(HERE), *insert):
                db.execute(statement)
        case.harness.run(self.url, [self._table(THERE[case.harness.engine]), *insert])

    @staticmethod
    def _table(columns: Mapping[str, str]) -> str:
        return f"CREATE TABLE t ({', '.join(f'{name} {native}' for name, native in columns.items())})"

    def there(self, *statements: str) -> None:
        assert isinstance(self.case.harness, SqlHarness)
        self.case.harness.run(self.url, statements)

    def compare(self, text: str, **options: Any) -> Any:
        links = [Link(*address.parse(url, allow_password=True)) for url in (f"sqlite:///{self.file}", self.url)]
        return self.ws.queries.compare(*links, text, **options)


def test_equal_values_are_equal_whatever_stores_them(engine_case: Case, tmp_path: Path) -> None:
    pair = Pair(engine_case, tmp_path)
    for by in ([], ["id"]):
        made = pair.compare(f"SELECT {COLUMNS} FROM t", by=by)
        assert (made.rows, made.equal, made.samples) == (4, True, ())
        assert made.digest == made.other_digest
        assert made.timing.seconds > 0
        assert made.other_timing.seconds > 0


def test_rows_that_differ_are_named(engine_case: Case, tmp_path: Path) -> None:
    pair = Pair(engine_case, tmp_path)
    pair.there(
        "UPDATE t SET ts = '2024-10-27 02:30:00.000002', t = 'E' WHERE id = 1",
        "UPDATE t SET t = NULL WHERE id = 2",
        "UPDATE t SET id = 9007199254740992 WHERE id = 9007199254740993",
    )
    made = pair.compare(f"SELECT {COLUMNS} FROM t", by=["id"])
    assert (made.changed, made.missing, made.extra) == (2, 1, 1)
    told = {(each.kind, each.key): each.columns for each in made.samples}
    assert told == {
        ("changed", ("1",)): ("t", "ts"),
        ("changed", ("2",)): ("t",),
        ("missing", ("9007199254740993",)): (),
        ("extra", ("9007199254740992",)): (),
    }
    whole = pair.compare(f"SELECT {COLUMNS} FROM t")
    assert (whole.changed, whole.missing, whole.extra) == (0, 3, 3)


@pytest.mark.nightly
def test_rows_that_are_there_twice_count_twice(engine_case: Case, tmp_path: Path) -> None:
    pair = Pair(engine_case, tmp_path)
    once, twice = "SELECT 1 AS a FROM t", "SELECT 1 AS a FROM t WHERE id < 4"
    for by in ([], ["a"]):
        made = pair.compare(once, other_text=twice, by=by)
        assert (made.rows, made.other_rows, made.equal) == (4, 2, False)
        assert (made.missing, made.extra, made.changed) == (2, 0, 0)


def test_a_translation_is_shown_and_no_proof(engine_case: Case, tmp_path: Path) -> None:
    pair = Pair(engine_case, tmp_path)
    made = pair.compare("SELECT id, ifnull(t, '-') AS t FROM \"t\" WHERE id < 5", by=["id"], translate=True)
    assert made.equal
    if made.other_text != made.text:
        assert "not proven" in made.notes[0]
    assert (made.other_text == made.text) == (engine_case.harness.engine == "sqlite")
