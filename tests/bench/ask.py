"""Asking 100,000 rows into Arrow, beside the plain driver: `python -m tests.bench.ask [SERVER …]`.

One line an engine in ENGINES: its server, how its table is made, and the plain drivers that read the same rows into the same library.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import dblens
from dblens.engines import arrow, connect
from dblens.engines.address import parse
from dblens.migrate.link import link
from tests.servers.fixtures import KINDS

ROWS = 100_000
ROUNDS = 9
QUERY = "select * from t"
Plain = Callable[[Any, str], Any]


class Engine(NamedTuple):
    """`fill` makes table `t` of ROWS rows at a URL; `plain` are drivers by name: (server, URL) -> table."""

    fill: Callable[[Any, str], None]
    plain: Mapping[str, Plain]


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """Return rows of a driver as an Arrow table."""
    pa = arrow.library()
    return pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=list(names))


def _mysql_fill(server: Any, url: str) -> None:
    with server.connect(url.rpartition("/")[2]) as db, db.cursor() as cursor:
        cursor.execute(
            "create table t (id int primary key, n bigint, d decimal(12,2), f double, s varchar(40), at datetime)"
        )
        cursor.execute(
            "insert into t with recursive r as (select 1 n union all select n + 1 from r where n < 400) "
            "select (a.n - 1) * 400 + b.n, a.n * 1000000007, b.n / 7, a.n / 3, concat('text number ', b.n), '2024-01-02 03:04:05' "
            f"from r a, r b limit {ROWS}"
        )


def _pymysql(server: Any, url: str) -> Any:
    import pymysql

    with server.connect(url.rpartition("/")[2]) as db, db.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute(QUERY)
        return table([d[0] for d in cursor.description], cursor.fetchall())


def _mysqlclient(server: Any, url: str) -> Any:
    import MySQLdb
    import MySQLdb.cursors

    from tests.servers.process import PASSWORD, USER

    database = url.rpartition("/")[2]
    db = MySQLdb.connect(host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, database=database)
    try:
        cursor = db.cursor(MySQLdb.cursors.SSCursor)
        cursor.execute(QUERY)
        return table([d[0] for d in cursor.description], cursor.fetchall())
    finally:
        db.close()


def _postgres_fill(server: Any, url: str) -> None:
    with server.connect(url.rpartition("/")[2]) as db:
        db.execute(
            "create table t (id int primary key, n bigint, d decimal(12,2), f double precision, s varchar(40), at timestamp, u text)"
        )
        db.execute(
            "insert into t select i, i * 1000000007::bigint, i / 7.0, i / 3.0, 'text number ' || i % 400, "
            f"timestamp '2024-01-02 03:04:05' + i * interval '1 s', 'u' || i from generate_series(1, {ROWS}) i"
        )


def _psycopg(server: Any, url: str) -> Any:
    with server.connect(url.rpartition("/")[2]) as db:
        cursor = db.execute(QUERY)
        return table([d.name for d in cursor.description], cursor.fetchall())


def _sqlite_fill(_: Any, url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as db, db:
        db.execute("create table t (id integer primary key, n integer, d numeric, f real, s text, at text)")
        db.executemany(
            "insert into t values (?, ?, ?, ?, ?, ?)",
            ((i, i * 1000000007, i / 8, i / 3, f"text number {i % 400}", "2024-01-02 03:04:05") for i in range(ROWS)),
        )


def _sqlite(_: Any, url: str) -> Any:
    with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as db:
        cursor = db.execute(QUERY)
        return table([d[0] for d in cursor.description], cursor.fetchall())


_POSTGRES = Engine(_postgres_fill, {"psycopg": _psycopg})
_MYSQL = Engine(_mysql_fill, {"pymysql": _pymysql, "mysqlclient": _mysqlclient})
ENGINES: dict[str, Engine] = {
    "pg15": _POSTGRES,
    "pg18": _POSTGRES,
    "mariadb": _MYSQL,
    "mysql": _MYSQL,
    "sqlite": Engine(_sqlite_fill, {"sqlite3": _sqlite}),
}


def timed(**runs: Callable[[], object]) -> dict[str, float]:
    """Return the median seconds of each, run in turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            gc.collect()
            began = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def measure(kind: str) -> dict[str, float]:
    """Return seconds: the engine's, until its first batch, through the workspace's door, of one row, and of each plain driver."""
    engine = ENGINES[kind]
    with KINDS[kind]() as server:
        url = server.create_database()
        engine.fill(server, url)
        session = connect(*parse(url, allow_password=True))
        assert session.engine.ask is not None
        asks = session.engine.ask(session)
        first: list[float] = []

        def ours() -> None:
            began = time.perf_counter()
            with asks.ask(QUERY) as answer:
                writer, seen = arrow.Writer(answer.columns), 0
                for rows in answer.batches():
                    if not seen:
                        first.append(time.perf_counter() - began)
                    seen += writer.batch(rows).num_rows
            assert seen == ROWS

        def short() -> None:
            with asks.ask("select 1") as answer:
                assert list(answer.batches())

        ws, side = dblens.open(), link(url, allow_password=True)

        def door() -> None:
            assert ws.query(side, QUERY, limit=None).arrow().num_rows == ROWS

        plain = {name: partial(read, server, url) for name, read in engine.plain.items()}
        found = timed(engine=ours, door=door, short=short, **plain)
        session.close()
        return {"first batch": statistics.median(first), **found}


def main() -> int:
    """Print a line an engine."""
    os.environ["DBLENS_DATA_FOLDER"] = tempfile.mkdtemp(prefix="dblens-bench-")
    for kind in sys.argv[1:] or ENGINES:
        found = measure(kind)
        best = min(found[name] for name in ENGINES[kind].plain)
        told = "  ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in found.items())
        print(
            f"{kind:8} {told}  engine {found['engine'] / best:.2f}, door {found['door'] / best:.2f} of the best driver"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
