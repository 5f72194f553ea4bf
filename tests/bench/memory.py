"""How much the client grows while it moves many narrow rows: the peak of its resident memory above what it was before the plan."""

from __future__ import annotations

import json
import os
import sys

from tests.bench.contenders import migrate
from tests.bench.sides import Bench

LIMIT = 256 << 20
TABLE = "CREATE TABLE narrow (id bigint PRIMARY KEY, amount int NOT NULL, code varchar(12) NOT NULL)"


def _fill(bench: Bench, engine: str, rows: int) -> str:
    url = bench.create(engine)
    if engine == "pg":
        assert bench.pg
        with bench.pg.connect(url.rpartition("/")[2]) as db:
            db.execute(TABLE)
            db.execute(f"INSERT INTO narrow SELECT i, i % 1000, 'c' || i % 100000 FROM generate_series(1, {rows:d}) i")
            db.execute("VACUUM ANALYZE narrow")
    else:
        assert bench.my
        with bench.my.connect(url.rpartition("/")[2]) as connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
            numbers = f"seq_1_to_{rows:d}"
            cursor.execute(f"INSERT INTO narrow SELECT seq, seq % 1000, concat('c', seq % 100000) FROM {numbers}")
            cursor.execute("ANALYZE TABLE narrow")
    return url


def memory(rows: int, pairs: list[str], *, as_json: bool) -> int:
    """Print the growth by pair. Returns 0: a number to read, not a test."""
    found = []
    with Bench({engine for pair in pairs for engine in pair.split("-")}, rows) as bench:
        sources: dict[str, str] = {}
        for pair in pairs:
            source, target = pair.split("-")
            if source not in sources:
                sources[source] = _fill(bench, source, rows)
            place = bench.create(target)
            load = os.getloadavg()[0]
            try:
                run = migrate(sources[source], place, {"options": {"create_target": target == "sl"}})
            except RuntimeError as error:
                found.append({"pair": pair, "failed": str(error)[-600:]})
                if not as_json:
                    print(f"{pair}: failed: {str(error).strip().splitlines()[-1][:300]}", flush=True)
                continue
            finally:
                bench.drop(target, place)
            start, peak = int(str(run.notes["memory_start"])), int(str(run.notes["memory_peak"]))
            grown = peak - start
            found.append(
                {"pair": pair, "rows": rows, "start": start, "grown": grown, "within": grown <= LIMIT, "load": load,
                 "seconds": run.seconds, "client": run.client, "modes": run.notes["modes"], "formats": run.notes["formats"]}
            )  # fmt: skip
            if not as_json:
                word = "within" if grown <= LIMIT else "ABOVE"
                print(
                    f"{pair}: {rows:,} rows, client {start >> 20} MiB + {grown >> 20} MiB ({word} {LIMIT >> 20}),"
                    f" total {run.seconds['total']:.1f} s, client CPU {run.client:.1f} s, {run.notes['formats']} {run.notes['modes']}",
                    flush=True,
                )
    if as_json:
        json.dump(found, sys.stdout, indent=1)
        print()
    return 0
