"""The data set `orders`: the same rows for the same number, in every engine and in every loader's file format."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from dblens.values import speed

Row = tuple[Any, ...]
TABLE = "orders"
DDL = {
    "pg": """CREATE TABLE orders (id bigint PRIMARY KEY, customer integer NOT NULL, quantity integer NOT NULL,
        status integer NOT NULL, total numeric(12,2) NOT NULL, weight double precision NOT NULL,
        created_at timestamp(6) NOT NULL, shipped_on date, paid boolean NOT NULL, note text NOT NULL,
        document jsonb NOT NULL, token bytea NOT NULL)""",
    "my": """CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, quantity int NOT NULL,
        status int NOT NULL, total decimal(12,2) NOT NULL, weight double NOT NULL,
        created_at datetime(6) NOT NULL, shipped_on date, paid boolean NOT NULL, note text NOT NULL,
        document json NOT NULL, token varbinary(16) NOT NULL) CHARACTER SET utf8mb4""",
    "sl": """CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, quantity INTEGER NOT NULL,
        status INTEGER NOT NULL, total DECIMAL(12,2) NOT NULL, weight DOUBLE NOT NULL,
        created_at TIMESTAMP NOT NULL, shipped_on DATE, paid BOOLEAN NOT NULL, note TEXT NOT NULL,
        document JSON NOT NULL, token BLOB NOT NULL)""",
}
KINDS = b"iiiitfttvssb"
LOAD_DATA = (
    "LOAD DATA LOCAL INFILE '{}' INTO TABLE orders CHARACTER SET utf8mb4"
    " (id, customer, quantity, status, total, weight, created_at, shipped_on, paid, note, document, @t) SET token = unhex(@t)"
)
_WORDS = (
    "plain words in a row", "größe", "naïve", "日本語", "emoji 😀", "tab\there", "line\nbreak", 'a "quoted" one', "it's", "back\\slash",
)  # fmt: skip


def rows(count: int) -> Iterator[Row]:
    """The first `count` rows, always the same."""
    r = random.Random(20_261_122)
    for i in range(1, count + 1):
        note = " ".join(r.choices(_WORDS, k=4))
        shipped = None if r.random() < 0.2 else f"2025-{r.randint(1, 12):02}-{r.randint(1, 28):02}"
        stamp = f"2024-{r.randint(1, 12):02}-{r.randint(1, 28):02} {r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02}.{r.randrange(10**6):06}"
        gift = "true" if r.random() < 0.5 else "false"
        document = f'{{"sku": "A-{r.randrange(10_000)}", "tags": ["x", "größe"], "price": {r.randrange(10**5) / 100}, "gift": {gift}}}'
        yield (
            i, r.randrange(50_000), r.randint(1, 20), r.randrange(5), f"{r.randrange(10**7)}.{r.randrange(100):02}",
            r.random() * 1000, stamp, shipped, r.random() < 0.7, note, document, r.randbytes(16),
        )  # fmt: skip


class Files:
    """Prepared files of one size, each made when first asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def _write(self, name: str, kinds: bytes, dialect: speed.Dialect) -> Path:
        path = self.folder / name
        if not path.exists():
            source = rows(self.count)
            with path.open("wb") as out:
                while batch := list(islice(source, 5000)):
                    out.write(speed.encode_rows(batch, kinds, dialect))
            path.chmod(0o644)
        return path

    def pgtext(self) -> Path:
        return self._write("orders.pgtext", KINDS, "pgtext")

    def mytext(self) -> Path:
        return self._write("orders.mytext", KINDS, "mytext")

    def ascii(self) -> Path:
        """Units and records parted by 0x1F and 0x1E, for `sqlite3 -ascii`; octets as hex, NULL as ''."""
        path = self.folder / "orders.ascii"
        if not path.exists():
            with path.open("w", encoding="utf-8", newline="") as out:
                for row in rows(self.count):
                    cells = ["" if v is None else v.hex() if isinstance(v, bytes) else str(v) for v in row]
                    cells[8] = str(int(row[8]))
                    out.write("\x1f".join(cells) + "\x1e")
        return path

    def sqlite(self) -> Path:
        """A source database; copy it before writing to it."""
        path = self.folder / "orders.sqlite"
        if not path.exists():
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("PRAGMA journal_mode=off")
            db.execute("PRAGMA synchronous=off")
            db.execute(DDL["sl"])
            db.execute("BEGIN")
            db.executemany(f"INSERT INTO orders VALUES ({','.join('?' * 12)})", rows(self.count))
            db.execute("COMMIT")
            db.close()
        return path

    def pgbinary(self, url: str) -> Path:
        """COPY BINARY of a PostgreSQL source."""
        path = self.folder / "orders.pgbinary"
        if not path.exists():
            with (
                psycopg.connect(url) as db,
                db.cursor().copy("COPY orders TO STDOUT (FORMAT binary)") as blocks,
                path.open("wb") as out,
            ):
                for block in blocks:
                    out.write(block)
        return path


def fill_postgres(url: str, files: Files) -> None:
    """Make the source table, vacuumed and checkpointed, so that no round pays for it."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(DDL["pg"])
        with (
            db.cursor().copy(f"COPY orders ({', '.join(_columns())}) FROM STDIN") as copy,
            files.pgtext().open("rb") as source,
        ):
            shutil.copyfileobj(source, _Sink(copy), 1 << 18)
        db.execute("VACUUM ANALYZE orders")
        db.execute("CHECKPOINT")


class _Sink:
    def __init__(self, copy: psycopg.Copy) -> None:
        self.copy = copy

    def write(self, data: bytes) -> None:
        self.copy.write(data)


def _columns() -> list[str]:
    return ["id", "customer", "quantity", "status", "total", "weight", "created_at", "shipped_on", "paid", "note", "document", "token"]  # fmt: skip


def fill_mysql(db: pymysql.Connection[Any], files: Files) -> None:
    """Make the source table."""
    with db.cursor() as cursor:
        cursor.execute(DDL["my"])
        cursor.execute(LOAD_DATA.format(files.mytext()))
        cursor.execute("ANALYZE TABLE orders")
