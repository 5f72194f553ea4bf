"""The corpus itself: it covers what it must, every server holds it, and the codec renders what raw drivers read as it was written down."""

from __future__ import annotations

import datetime as dt
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import bson
import psycopg
import pymysql
import pytest
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from dblens.values.codec import canonical
from dblens.values.forms import Form
from tests.hazards import ALL, BY_ENGINE, CorpusTable, load_corpus
from tests.servers import MariaDB, Mongo, MySQL, Postgres, SQLite

NewDatabase = Callable[..., str]
Rendered = list[tuple[int, bytes | None]]


def test_it_is_large_enough() -> None:
    assert len(ALL) >= 300
    assert all(len(hazards) >= 60 for hazards in BY_ENGINE.values())


def test_identities_are_unique() -> None:
    for engine, hazards in BY_ENGINE.items():
        assert [i for i, n in Counter(h.id for h in hazards).items() if n > 1] == [], engine


@pytest.mark.parametrize("row", [73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84])
def test_every_row_of_the_fault_matrix_is_covered(row: int) -> None:
    assert sum(f"row-{row}" in h.tags for h in ALL) >= 5


@pytest.mark.parametrize("form", list(Form))
def test_every_form_is_covered(form: Form) -> None:
    assert any(h.form == form for h in ALL)


@pytest.mark.parametrize("hazard", ALL, ids=lambda h: h.id)
def test_expected_texts_are_canonical(hazard: Any) -> None:
    """A canonical text is its own canonical text, so nothing was written down in another spelling."""
    if hazard.canonical is None or isinstance(hazard.canonical, bytes):
        return
    value: object = hazard.canonical
    if hazard.form in (Form.BYTES, Form.BSON):
        value = bytes.fromhex(hazard.canonical)
    elif hazard.form == Form.DYNAMIC:
        tag, _, text = hazard.canonical.partition(":")
        readers: dict[str, Callable[[str], object]] = {"i": int, "r": float, "t": str, "b": bytes.fromhex}
        value = readers[tag](text)
    assert canonical(hazard.form, value) == hazard.expected


# ------------------------------------------------------------------------------------------- raw driver values through the codec


def compare(table: CorpusTable, got: Rendered) -> None:
    names = {n: h.id for n, h in enumerate(table.hazards, 1)}
    wrong = [(names[n], text, want) for (n, text), (_, want) in zip(got, table.rows, strict=True) if text != want]
    assert wrong == []


def render(form: Form, raw: object) -> bytes | None:
    return canonical(form, raw)


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_postgresql(kind: str, request: pytest.FixtureRequest, new_database: NewDatabase) -> None:
    server: Postgres = request.getfixturevalue(kind)
    url = new_database(server)
    with psycopg.connect(url) as db:
        tables = load_corpus(url, "postgresql")
        db.execute("SET TimeZone = 'UTC'; SET datestyle = 'ISO'; SET extra_float_digits = 3; SET bytea_output = 'hex'")
        for table in tables:
            column = "v"
            if table.form == Form.FLOAT:
                column = "v::float8"
            elif table.form == Form.INTERVAL:
                column = (
                    "CASE WHEN v::text ~ 'infinity' THEN v::text ELSE extract(year from v) * 12 + extract(month from v) || ' ' || extract(day from v) || ' ' || "
                    "trunc(extract(hour from v) * 3600000000 + extract(minute from v) * 60000000 + extract(microsecond from v)) END"
                )
            elif table.form == Form.JSON and table.native.endswith("[]"):
                column = "to_json(v)"
            elif table.native == "money":
                column = "v::numeric"
            cursor = db.execute(f'SELECT id, {column} FROM "{table.name}" ORDER BY id'.encode())
            result = cursor.pgresult
            assert result is not None
            got: Rendered = []
            for row in range(result.ntuples):
                raw = result.get_value(row, 1)
                value: object = raw
                if raw is not None:
                    text = raw.decode()
                    if table.form == Form.BYTES:
                        value = bytes.fromhex(text[2:])
                    elif table.native == "boolean":
                        value = text == "t"
                    elif table.native.startswith("char("):
                        value = text.rstrip(" ")
                got.append((row + 1, render(table.form, value)))
            compare(table, got)


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_mysql(kind: str, request: pytest.FixtureRequest, new_database: NewDatabase) -> None:
    server: MariaDB | MySQL = request.getfixturevalue(kind)
    url = new_database(server)
    tables = load_corpus(url, "mysql")
    encoders: dict[Any, Any] = {**pymysql.converters.encoders}  # and no decoders: values stay texts
    db = pymysql.connect(
        host="127.0.0.1", port=server.port, user="dblens", password=url.split(":")[2].split("@")[0],
        database=tables[0].namespace, charset="utf8mb4", conv=encoders, init_command="SET time_zone = '+00:00'",
    )  # fmt: skip
    with db, db.cursor() as cursor:
        for table in tables:
            column = "v"
            if table.form == Form.FLOAT:
                column = "cast(v as double)"  # v + 0e0 would lose -0.0
            elif table.form == Form.BITS:
                column = f"lpad(bin(v + 0), {table.native[4:-1]}, '0')"
            cursor.execute(f"SELECT id, {column} FROM `{table.name}` ORDER BY id")
            got: Rendered = []
            for number, raw in cursor.fetchall():
                value = raw
                if raw is not None and table.form == Form.GEOMETRY:
                    value = f"{struct.unpack('<I', raw[:4])[0]}:{raw[4:].hex()}"
                got.append((int(number), render(table.form, value)))
            compare(table, got)


def test_sqlite(sqlite: SQLite, new_database: NewDatabase) -> None:
    url = new_database(sqlite)
    tables = load_corpus(url, "sqlite")
    db = sqlite3.connect(url.removeprefix("sqlite:///"))
    db.text_factory = lambda octets: octets.decode("utf-8", "surrogateescape")
    for table in tables:
        got: Rendered = []
        for number, value in db.execute(f'SELECT id, v FROM "{table.name}" ORDER BY id'):
            got.append((number, render(table.form, value)))
        compare(table, got)
    db.close()


def test_mongodb(mongo: Mongo, new_database: NewDatabase) -> None:
    url = new_database(mongo)
    tables = load_corpus(url, "mongodb")
    options: CodecOptions[dict[str, Any]] = CodecOptions(
        datetime_conversion=DatetimeConversion.DATETIME_MS, tz_aware=True
    )
    client: MongoClient[RawBSONDocument] = MongoClient(url, document_class=RawBSONDocument, directConnection=True)
    for table in tables:
        if table.form == Form.DOCUMENT:
            continue  # its text is defined by the engine's own module
        got: Rendered = []
        for number, document in enumerate(client[table.namespace][table.name].find(sort=[("_id", 1)]), 1):
            value: Any = bytes(document.raw) if table.form == Form.BSON else bson.decode(document.raw, options).get("v")
            if isinstance(value, bson.DatetimeMS):
                value = value.as_datetime().replace(tzinfo=dt.UTC)
            elif isinstance(value, bson.ObjectId):
                value = str(value)
            elif isinstance(value, bson.Binary):
                value = bytes(value)
            got.append((number, render(table.form, value)))
        compare(table, got)
    client.close()
