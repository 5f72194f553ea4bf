"""Makes the corpus's tables in a database, with the engine's driver alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

from tests.hazards import model, mongodb, mysql, postgres, sqlite
from tests.hazards.model import MISSING, CorpusTable, Hazard, Raw


def load_corpus(url: str, engine: str, *, namespace: str | None = None) -> list[CorpusTable]:
    """Create and fill every table of an engine's corpus that this server can hold; `url` holds the password. Tables are not dropped first."""
    return {"postgresql": _postgres, "mysql": _mysql, "sqlite": _sqlite, "mongodb": _mongodb}[engine](url, namespace)


def _able(hazards: Iterable[Hazard], flavours: Sequence[str], major: int = 0) -> list[Hazard]:
    """Return the hazards that a server can hold."""
    return [h for h in hazards if h.only is None or h.only in flavours or (h.only.isdigit() and major >= int(h.only))]


def _insert(quoted: str, table: CorpusTable) -> list[str]:
    return [
        f"INSERT INTO {quoted} VALUES ({n}, {'NULL' if h.literal is None else h.literal})"
        for n, h in enumerate(table.hazards, 1)
    ]


def _postgres(url: str, namespace: str | None) -> list[CorpusTable]:
    import psycopg

    schema = namespace or "public"
    flavours: tuple[str, ...] = ()
    with psycopg.connect(url) as db:
        with contextlib.suppress(psycopg.errors.FeatureNotSupported), db.transaction():
            db.execute("SELECT '<a/>'::xml")
            flavours = ("xml",)
        made = model.tables(_able(postgres.HAZARDS, flavours, db.info.server_version // 10000), schema)
        statements = [
            f'CREATE SCHEMA IF NOT EXISTS "{schema}"',
            f'SET search_path = "{schema}"',
            "SET TimeZone = 'UTC'",
        ]
        for statement in [*statements, *postgres.PRELUDE]:
            db.execute(statement.encode())
        for table in made:
            db.execute(f'CREATE TABLE "{table.name}" (id integer PRIMARY KEY, v {table.native})'.encode())
            for statement in _insert(f'"{table.name}"', table):
                db.execute(statement.encode())
    return made


def _mysql(url: str, namespace: str | None) -> list[CorpusTable]:
    import pymysql

    parts = urlsplit(url)
    database = namespace or unquote(parts.path.removeprefix("/"))
    db = pymysql.connect(
        host=parts.hostname or "127.0.0.1", port=parts.port or 3306, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=database, charset="utf8mb4",
    )  # fmt: skip
    try:
        with db.cursor() as cursor:
            cursor.execute("SELECT version()")
            flavour = "mariadb" if "MariaDB" in str(cursor.fetchone()) else "mysql"
            made = model.tables(_able(mysql.HAZARDS, (flavour,)), database)
            for statement in mysql.PRELUDE:
                cursor.execute(statement)
            for table in made:
                # DYNAMIC rows and InnoDB by default; NULL is spelled out for MariaDB's old TIMESTAMP rules.
                native = table.native if table.native.endswith(" NULL") else f"{table.native} NULL"
                if native.startswith("tinyint(1)") and flavour == "mysql":
                    native = "tinyint(1) NULL"
                cursor.execute(f"CREATE TABLE `{table.name}` (id int PRIMARY KEY, v {native})")
                for statement in _insert(f"`{table.name}`", table):
                    cursor.execute(statement)
        db.commit()
    finally:
        db.close()
    return made


def _sqlite(url: str, namespace: str | None) -> list[CorpusTable]:
    import sqlite3

    path = unquote(url.removeprefix("sqlite:///").partition("?")[0])
    db = sqlite3.connect(path)
    try:
        made = model.tables(sqlite.HAZARDS, namespace or "main")
        for statement in sqlite.PRELUDE:
            db.execute(statement)
        for table in made:
            db.execute(f'CREATE TABLE "{table.name}" (id INTEGER PRIMARY KEY, v {table.native})')
            for statement in _insert(f'"{table.name}"', table):
                db.execute(statement)
        db.commit()
    finally:
        db.close()
    return made


def _mongodb(url: str, namespace: str | None) -> list[CorpusTable]:
    import bson
    from bson.raw_bson import RawBSONDocument
    from pymongo import MongoClient

    parts = urlsplit(url)
    database = namespace or unquote(parts.path.removeprefix("/"))
    client: MongoClient[RawBSONDocument] = MongoClient(url, document_class=RawBSONDocument, directConnection=True)
    try:
        # The Mongo-wire test server refuses dates outside Python's years and deprecated types.
        status = client.admin.command("buildInfo")
        flavours = () if "secantusVersion" in status else ("mongod",)
        made = model.tables(_able(mongodb.HAZARDS, flavours), database)
        for table in made:
            documents = []
            for number, hazard in enumerate(table.hazards, 1):
                match hazard.literal:
                    case Raw(elements):
                        body = b"\x10_id\0" + number.to_bytes(4, "little") + elements + b"\0"
                        octets = (len(body) + 4).to_bytes(4, "little") + body
                    case value if value is MISSING:
                        octets = bson.encode({"_id": number})
                    case value:
                        octets = bson.encode({"_id": number, "v": value})
                documents.append(RawBSONDocument(octets))
            client[database][table.name].insert_many(documents)
    finally:
        client.close()
    return made
