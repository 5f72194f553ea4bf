"""SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import ClassVar

from dblens.engines.base import Check
from tests.engines.harness import COMMON, CheckCase, Gap, SqlHarness


class Harness(SqlHarness):
    name, engine, server = "sqlite", "sqlite", "sqlite"
    key_text = "TEXT"
    EXPECTED_GAPS: ClassVar[Mapping[str, Gap]] = {
        "test_connect.py::test_unreachable_host": Gap("never", "a file has no host"),
        "test_connect.py::test_wrong_password": Gap("never", "a file has no password"),
    }
    SAMPLE: ClassVar[Sequence[str]] = (
        """CREATE TABLE person (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR(40) NOT NULL, email TEXT CONSTRAINT person_email UNIQUE, score REAL,
            balance DECIMAL(12,2) DEFAULT 1.50 CONSTRAINT positive CHECK (balance >= 0), born DATE, seen DATETIME, photo BLOB, note TEXT, any_of
        )""",
        "CREATE INDEX person_name ON person (name DESC)",
        """CREATE TABLE purchase (
            person_id INTEGER NOT NULL, line SMALLINT NOT NULL, amount NUMERIC NOT NULL DEFAULT 0, label TEXT DEFAULT 'it''s',
            PRIMARY KEY (person_id, line), CONSTRAINT purchase_person FOREIGN KEY (person_id) REFERENCES person (id) ON DELETE CASCADE
        ) WITHOUT ROWID""",
        "CREATE TABLE plain (a INTEGER, b TEXT)",
        "CREATE VIEW rich AS SELECT id, name FROM person WHERE balance > 100",
        """INSERT INTO person VALUES
            (1, 'Ada', 'ada@example.org', 0.1, 10.50, '1815-12-10', '2024-01-01 00:00:00.000001', x'00ff', NULL, 9223372036854775807),
            (2, 'Björn', NULL, -0.5, 100, NULL, NULL, x'', '', 'text'),
            (3, '日本 \\ tab' || char(9, 10, 13), 'x', 9e999, 0.01, '9999-12-31', '1999-12-31 23:59:59.5', NULL, 'NULL', x'00'),
            (4, '', '', NULL, NULL, NULL, NULL, NULL, '\\N', 1.5),
            (5, 'trail ', 'é', 5e-324, 9999999999.99, '2000-02-29', '2024-10-27 02:30:00', x'5c', '😀', NULL)""",
        "INSERT INTO purchase VALUES (1, 1, 9.99, 'a'), (1, 2, 0, NULL), (2, 1, 5, '')",
        "INSERT INTO plain VALUES (1, 'same'), (1, 'same'), (2, NULL)",
    )
    CHECKS: ClassVar[Sequence[CheckCase]] = (
        CheckCase(Check(kind="nul_character"), "TEXT", ("'a'", "CAST(x'610062' AS TEXT)", "''", "NULL"), (1,)),
        CheckCase(
            Check(kind="invalid_text"),
            "TEXT",
            ("'é'", "CAST(x'ff' AS TEXT)", "CAST(x'c080' AS TEXT)", "'😀'", "NULL"),
            (1, 2),
        ),
        CheckCase(Check(kind="nonfinite"), "REAL", ("9e999", "-9e999", "0.0", "NULL"), (0, 1)),
        CheckCase(Check(kind="negative_zero"), "", ("-0.0", "0.0", "0", "NULL"), (0,)),
        CheckCase(
            Check(kind="outside_integers", low="-2147483648", high="2147483647"),
            "INTEGER",
            ("-2147483649", "2147483647", "9223372036854775807", "NULL"),
            (0, 2),
        ),
        CheckCase(Check(kind="not_boolean"), "BOOLEAN", ("0", "1", "2", "NULL"), (2,)),
        CheckCase(Check(kind="too_long", limit=3), "TEXT", ("'abc'", "'abcd'", "'ééé'", "''", "NULL"), (1,)),
        CheckCase(Check(kind="too_long", limit=3), "BLOB", ("x'616263'", "x'61626364'", "NULL"), (1,)),
        CheckCase(Check(kind="trailing_space"), "TEXT", ("'a'", "'a '", "' '", "' a'", "''", "NULL"), (1, 2)),
        CheckCase(Check(kind="four_byte_text"), "TEXT", ("'a'", "'😀'", "'日'", "NULL"), (1,)),
        CheckCase(Check(kind="oversize", limit=3), "TEXT", ("'abc'", "'abcd'", "'éé'", "NULL"), (1, 2)),
        CheckCase(Check(kind="null_key"), "INT", ("1", "NULL", "NULL"), (1, 2)),
    )

    EXACT = (
        *COMMON, ("0.1", 0.1), ("1e308", 1e308), ("-1e-320", -1e-320), ("9e999", float("inf")), ("x'00ff'", b"\0\xff"), ("x''", b""), ("-9223372036854775808", -(2**63)),
        ("char(9, 10, 13, 0)", "\t\n\r\0"), ("CAST(x'ff41' AS TEXT)", "t:\udcffA"), ("0.1 + 0.2", 0.30000000000000004),
    )  # fmt: skip

    def text_of(self, characters: int) -> str:
        return f"printf('%.*c', {characters}, 'x')"

    def run(self, url: str, statements: Sequence[str]) -> None:
        db = sqlite3.connect(url.removeprefix("sqlite:///"))
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.close()
