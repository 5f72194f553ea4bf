"""MySQL's language, as MariaDB and MySQL both speak it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pymysql

from dblens.engines.base import Check
from tests.engines.harness import COMMON, CheckCase, SqlHarness

CHECKS = (
    CheckCase(Check(kind="nul_character"), "varchar(20)", ("'a'", "X'610062'", "''", "NULL"), (1,)),
    CheckCase(Check(kind="negative_zero"), "double", ("0e0", "1e0", "NULL"), ()),
    CheckCase(
        Check(kind="zero_date"), "date", ("'0000-00-00'", "'2024-00-10'", "'2024-01-00'", "'2024-01-01'", "NULL"), (0, 1, 2)
    ),
    CheckCase(
        Check(kind="outside_dates", low="1000-01-01", high="9999-12-31"),
        "date",
        ("'0999-12-31'", "'1000-01-01'", "'9999-12-31'", "NULL"),
        (0,),
    ),
    CheckCase(Check(kind="outside_day"), "time(6)", ("'-00:00:01'", "'24:00:00'", "'838:59:59'", "'23:59:59.999999'", "'00:00:00'"), (0, 1, 2)),
    CheckCase(
        Check(kind="outside_integers", low="-9223372036854775808", high="9223372036854775807"),
        "bigint unsigned",
        ("18446744073709551615", "9223372036854775808", "9223372036854775807", "0", "NULL"),
        (0, 1),
    ),
    CheckCase(Check(kind="not_boolean"), "tinyint(1)", ("0", "1", "5", "-1", "NULL"), (2, 3)),
    CheckCase(
        Check(kind="decimal_overflow", limit=6, scale=2),
        "decimal(20,6)",
        ("1234.56", "12345.6", "0.001", "1.230000", "-9999.99", "NULL"),
        (1, 2),
    ),
    CheckCase(Check(kind="too_long", limit=3), "varchar(10)", ("'abc'", "'abcd'", "X'c3a9c3a9c3a9'", "''", "NULL"), (1,)),
    CheckCase(Check(kind="too_long", limit=3), "varbinary(10)", ("X'616263'", "X'61626364'", "NULL"), (1,)),
    CheckCase(
        Check(kind="sub_millisecond"),
        "datetime(6)",
        ("'2024-01-01 00:00:00.001'", "'2024-01-01 00:00:00.0001'", "'2024-01-01 00:00:00.000001'", "NULL"),
        (1, 2),
    ),
    CheckCase(Check(kind="trailing_space"), "varchar(10)", ("'a'", "'a '", "' '", "' a'", "''", "NULL"), (1, 2)),
    CheckCase(
        Check(kind="four_byte_text"), "varchar(10) CHARACTER SET utf8mb4", ("'a'", "X'f09f9880'", "X'e697a5'", "NULL"), (1,)
    ),
    CheckCase(
        Check(kind="empty_enum"), "enum('a','b','')", ("0", "1", "3", "NULL"), (0,)
    ),
    CheckCase(Check(kind="oversize", limit=3), "longtext", ("'abc'", "'abcd'", "X'c3a9c3a9'", "NULL"), (1, 2)),
    CheckCase(
        Check(kind="json_nul"), "json", ("'{\"a\":\"x\"}'", "'{\"a\":\"\\\\u0000\"}'", "'\"\\\\\\\\u0000\"'", "NULL"), (1,)
    ),
    CheckCase(Check(kind="null_key"), "int", ("1", "NULL", "NULL"), (1, 2)),
)  # fmt: skip


class MySQLFamily(SqlHarness):
    """Both servers."""

    engine = "mysql"
    mark = "`"
    key_text = "varchar(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
    UNNAMEABLE = frozenset({"emoji 😀", "trail "})
    CHECKS: ClassVar[Sequence[CheckCase]] = CHECKS
    EXACT = (
        *COMMON, ("0.1e0", 0.1), ("-1e308", -1e308), ("X'00ff'", b"\0\xff"), ("18446744073709551615", 2**64 - 1), ("-9223372036854775807 - 1", -(2**63)), ("TRUE", 1),
        ("CAST(12345678901234567890.1234567890 AS DECIMAL(30,10))", Decimal("12345678901234567890.1234567890")), ("DATE '2024-02-29'", dt.date(2024, 2, 29)),
        ("TIMESTAMP '2024-01-01 00:00:00.000001'", dt.datetime(2024, 1, 1, 0, 0, 0, 1)), ("'tab\\t nul\\0 \\\\'", "tab\t nul\0 \\"),
    )  # fmt: skip
    SAMPLE: ClassVar[Sequence[str]] = (
        """CREATE TABLE person (
            id int NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(40) NOT NULL, email varchar(80), score double, balance decimal(12,2) DEFAULT 1.50,
            born date, seen datetime(6), photo varbinary(100), note text, big bigint unsigned,
            UNIQUE KEY person_email (email), KEY person_name (name DESC), CONSTRAINT positive CHECK (balance >= 0)
        ) COMMENT 'people, it''s'""",
        """CREATE TABLE purchase (
            person_id int NOT NULL, line smallint NOT NULL, amount decimal(10,2) NOT NULL DEFAULT 0, label varchar(20) DEFAULT 'it''s',
            PRIMARY KEY (person_id, line), CONSTRAINT purchase_person FOREIGN KEY (person_id) REFERENCES person (id) ON DELETE CASCADE
        )""",
        "CREATE TABLE plain (a int, b varchar(20))",
        "CREATE VIEW rich AS SELECT id, name FROM person WHERE balance > 100",
        """INSERT INTO person VALUES
            (1, 'Ada', 'ada@example.org', 0.1, 10.50, '1815-12-10', '2024-01-01 00:00:00.000001', X'00ff', NULL, 18446744073709551615),
            (2, 'Björn', NULL, -0.5, 100, NULL, NULL, X'', '', 0),
            (3, '日本 \\\\ tab\\t nl\\n', 'x', 1e300, 0.01, '9999-12-31', '1999-12-31 23:59:59.5', NULL, 'NULL', NULL),
            (4, '', '', NULL, NULL, NULL, NULL, NULL, '\\\\N', 1),
            (5, 'trail ', 'é', 5e-324, 9999999999.99, '2000-02-29', '2024-10-27 02:30:00', X'5c', 'x', 9223372036854775808)""",
        "INSERT INTO purchase VALUES (1, 1, 9.99, 'a'), (1, 2, 0, NULL), (2, 1, 5, '')",
        "INSERT INTO plain VALUES (1, 'same'), (1, 'same'), (2, NULL)",
    )

    def run(self, url: str, statements: Sequence[str]) -> None:
        parts = urlsplit(url)
        db = pymysql.connect(
            host=parts.hostname or "", port=parts.port or 0, user=parts.username or "", password=unquote(parts.password or ""),
            database=unquote(parts.path[1:]), charset="utf8mb4", init_command="SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
        )  # fmt: skip
        with db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            db.commit()

    def literal(self, text: str) -> str:
        return f"_utf8mb4 X'{text.encode().hex()}'"
