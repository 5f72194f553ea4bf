"""What runs in a round: a pair's floor, its peers, and DBLens."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg

from tests.bench.data import DDL, LOAD_DATA
from tests.bench.measure import Timed, run
from tests.bench.sides import CLIENT_ENV, Bench, bare, installed
from tests.servers import PASSWORD

ROOT = Path(__file__).parents[2]


class Run(msgspec.Struct):
    """One run of one contender: seconds by phase (`total` always), CPU seconds, and what else is worth saying."""

    seconds: dict[str, float]
    client: float
    notes: dict[str, object] = {}


Contender = Callable[[Bench, str, str, str], Run]
"""Called with the bench, the source engine, the source URL and the URL of an empty target."""


def _done(timed: Timed) -> Run:
    return Run(seconds={"copy": timed.wall, "total": timed.wall}, client=timed.client)


def floor_pg(bench: Bench, _source: str, _url: str, target: str) -> Run:
    file = bench.files.pgbinary(bench.source("pg"))
    run(bench.psql(target, "-c", DDL["pg"]), env=CLIENT_ENV)
    bench.checkpoint()
    copy = bench.psql(target, "-c", "COPY orders FROM STDIN (FORMAT binary)")
    return _done(run(copy, env=CLIENT_ENV, source=file))


def floor_my(bench: Bench, _source: str, _url: str, target: str) -> Run:
    file = bench.files.mytext()
    run(bench.mysql("mariadb", target), env=CLIENT_ENV, data=DDL["my"].encode())
    return _done(
        run(
            bench.mysql("mariadb", target, "--local-infile=1"),
            env=CLIENT_ENV,
            data=LOAD_DATA.format(file).encode(),
        )
    )


def floor_sl(bench: Bench, _source: str, _url: str, target: str) -> Run:
    file, path = bench.files.ascii(), target.removeprefix("sqlite:///")
    script = (
        "PRAGMA page_size=8192; PRAGMA journal_mode=off; PRAGMA synchronous=off; PRAGMA cache_size=-65536;\n"
        f"PRAGMA locking_mode=exclusive;\n{DDL['sl']};\n.mode ascii\n.import {file} orders\n"
    )
    return _done(run(["sqlite3", "-batch", path], data=script.encode()))


def psql_pipe(bench: Bench, _source: str, url: str, target: str) -> Run:
    run(bench.psql(target, "-c", DDL["pg"]), env=CLIENT_ENV)
    bench.checkpoint()
    out = bench.psql(url, "-c", "COPY orders TO STDOUT (FORMAT binary)")
    into = bench.psql(target, "-c", "COPY orders FROM STDIN (FORMAT binary)")
    return _done(run(out, into, env=CLIENT_ENV))


def pg_dump_pipe(bench: Bench, _source: str, url: str, target: str) -> Run:
    bench.checkpoint()
    return _done(run(bench.pg_dump(url), bench.psql(target), env=CLIENT_ENV))


def mysqldump_pipe(bench: Bench, _source: str, url: str, target: str) -> Run:
    dump = bench.mysql("mysqldump", url, "--single-transaction", "--quick", "--skip-comments")
    return _done(run(dump, bench.mysql("mariadb", target), env=CLIENT_ENV))


def pgloader(bench: Bench, source: str, url: str, target: str) -> Run:
    """Addresses with passwords stand in a private file: pgloader knows no other way that its command line does not show."""
    script = bench.folder / "pgloader.load"
    script.touch(mode=0o600)
    origin = url if source == "my" else "sqlite://" + url.removeprefix("sqlite://")
    script.write_text(f"LOAD DATABASE FROM {origin} INTO {target} WITH include drop, create tables, no foreign keys;\n")
    home = bench.folder / "pgloader"
    bench.checkpoint()
    timed = run(["pgloader", "--root-dir", str(home), "--no-ssl-cert-verification", str(script)])
    with psycopg.connect(target) as db:
        found = db.execute("SELECT sum(n_live_tup), string_agg(relname, ' ') FROM pg_stat_user_tables").fetchone()
        schema = db.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'orders'").fetchone()
        if schema is None:
            raise RuntimeError(f"pgloader made no table: {found}; {timed.output[-800:].decode(errors='replace')}")
        count = db.execute(f'SELECT count(*) FROM "{schema[0]}".orders').fetchone()
    if not count or count[0] != bench.files.count:
        raise RuntimeError(
            f"pgloader moved {count} rows of {bench.files.count}: {timed.output[-800:].decode(errors='replace')}"
        )
    return _done(timed)


def dblens(bench: Bench, _source: str, url: str, target: str) -> Run:
    return migrate(url, target, {"options": {"create_target": target.startswith("sqlite")}})


def migrate(url: str, target: str, more: dict[str, object]) -> Run:
    """A whole migration in a fresh process."""
    order = {"source": bare(url), "target": bare(target), **more}
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for side, address in (("SOURCE", url), ("TARGET", target)):
        env[f"BENCH_{side}_PASSWORD"] = "" if address.startswith("sqlite") else PASSWORD
    timed = run([sys.executable, "-m", "tests.bench.worker"], env=env, data=json.dumps(order).encode())
    found = json.loads(timed.output)
    if not found["equal"]:
        raise RuntimeError(f"the copy is not equal: {found}")
    copy = sum(found.get(phase, 0.0) for phase in ("stage", "copy", "build"))
    seconds = {"plan": found["plan"], "copy": copy, "verify": found["verify"], "total": timed.wall}
    seconds |= {phase: found[phase] for phase in ("imports", "stage", "build", "swap") if phase in found}
    notes = {k: found[k] for k in ("formats", "modes", "losses", "memory_start", "memory_peak", "rows")}
    return Run(seconds=seconds, client=timed.client, notes=notes)


FLOORS: dict[str, Contender] = {"pg": floor_pg, "my": floor_my, "sl": floor_sl}


def contenders(source: str, target: str) -> dict[str, Contender]:
    """The contenders of a pair whose programs are installed, floor first."""
    chosen: dict[str, Contender] = {"floor": FLOORS[target]}
    if (source, target) == ("pg", "pg"):
        chosen["psql | psql"] = psql_pipe
        chosen["pg_dump | psql"] = pg_dump_pipe
    if (source, target) == ("my", "my") and installed(["mysqldump"]):
        chosen["mysqldump | mysql"] = mysqldump_pipe
    if source in ("my", "sl") and target == "pg" and installed(["pgloader"]):
        chosen["pgloader"] = pgloader
    chosen["dblens"] = dblens
    if target == "sl" and not installed(["sqlite3"]):
        del chosen["floor"]
    return chosen


def count(url: str) -> int:
    """Rows of a SQLite target, for the floor's own check."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        return int(db.execute("SELECT count(*) FROM orders").fetchone()[0])
