"""`python -m tests.bench`: see the package's text."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from tests.bench.contenders import Run, contenders
from tests.bench.sides import Bench

PAIRS = "pg-pg,my-pg,pg-my,sl-pg,pg-sl,my-sl,sl-my,my-my"
ENGINES = ("pg", "my", "sl")
LIMIT = "psql | psql"
"""Not a peer (it makes no table), but what a pass-through could be at best."""


def main() -> int:
    """Return 0 whatever the times are."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="speed", choices=["speed", "memory", "load"])
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--pairs", default=None, help=f"of {PAIRS}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="contenders by name, comma-separated")
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--rate", type=float, default=100, help="reads per second of load")
    parser.add_argument("--connections", type=int, default=200, help="open connections of load")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of tables")
    given = parser.parse_args()
    if given.what == "memory":
        from tests.bench.memory import memory

        return memory(given.rows or 10_000_000, (given.pairs or "pg-pg,my-pg,pg-sl").split(","), as_json=given.json)
    if given.what == "load":
        from tests.bench.load import load

        found = load(seconds=given.seconds, rate=given.rate, connections=given.connections, as_json=given.json)
        return 1 if found["dblens"]["errors"] else 0
    pairs = [tuple(pair.split("-")) for pair in (given.pairs or PAIRS).split(",")]
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(ENGINES):
            parser.error(f"not a pair: {'-'.join(pair)}")
    rows = given.rows or 250_000
    only = {name.strip() for name in given.only.split(",") if name.strip()}
    results = []
    # The PostgreSQL floor's file comes out of a PostgreSQL source.
    with Bench({engine for pair in pairs for engine in pair}, rows) as bench:
        for source, target in pairs:
            results.append(measure(bench, source, target, given.rounds, only))
            if not given.json:
                print(table(results[-1]), flush=True)
    if given.json:
        json.dump(
            {"rows": rows, "rounds": given.rounds, "cores": os.cpu_count(), "pairs": results}, sys.stdout, indent=1
        )
        print()
    return 0


def measure(bench: Bench, source: str, target: str, rounds: int, only: set[str]) -> dict[str, object]:
    """Run a pair's contenders in turns; keep each phase's minimum, and the first failure in words."""
    url = bench.source(source)
    if target == "pg":
        bench.files.pgbinary(bench.source("pg"))
    load = os.getloadavg()[0]
    found: dict[str, list[Run]] = {}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name, contender in contenders(source, target).items():
            if (only and name not in only) or name in failed:
                continue
            place = bench.create(target)
            try:
                found.setdefault(name, []).append(contender(bench, source, url, place))
            except (RuntimeError, OSError) as error:
                failed[name] = str(error)
            finally:
                bench.drop(target, place)
            time.sleep(0.2)  # let the server's own cleaning settle
    best = {}
    for name, runs in found.items():
        if runs:
            seconds = {phase: round(min(r.seconds[phase] for r in runs), 3) for phase in runs[0].seconds}
            best[name] = {"seconds": seconds, "client": round(min(r.client for r in runs), 2), **runs[0].notes}
    return {"pair": f"{source}-{target}", "load": round(load, 1), "best": best, "failed": failed}


def table(result: dict[str, object]) -> str:
    """A pair as text: seconds, and ratios of the copy and the total to floor and best peer."""
    best = result["best"]
    assert isinstance(best, dict)
    floor = best.get("floor", {}).get("seconds", {}).get("total")
    peers = [b["seconds"]["total"] for name, b in best.items() if name not in ("floor", "dblens", LIMIT)]
    peer = min(peers, default=None)
    lines = [
        f"\n{result['pair']}   (load {result['load']})",
        f"{'':20}{'plan':>8}{'copy':>8}{'verify':>8}{'total':>8}{'client':>8}   copy/floor  copy/peer  total/floor  total/peer",
    ]
    for name, entry in best.items():
        s = entry["seconds"]
        cells = "".join(f"{s[p]:8.2f}" if p in s else f"{'':8}" for p in ("plan", "copy", "verify", "total"))
        ratios = [s["copy"] / floor if floor else None, s["copy"] / peer if peer else None]
        ratios += [s["total"] / floor if floor else None, s["total"] / peer if peer else None]
        text = "".join(
            f"{'–' if r is None else f'{r:.2f}':>{w}}" for r, w in zip(ratios, (13, 11, 13, 12), strict=True)
        )
        more = f"   {','.join(entry['formats'])} {','.join(entry['modes'])}" if "formats" in entry else ""
        if name == "dblens":
            more += f"   start {s['imports']:.2f} build {s.get('build', 0):.2f} swap {s.get('swap', 0):.2f}"
        if name == "dblens" and LIMIT in best:
            more += f"   copy = {s['copy'] / best[LIMIT]['seconds']['total']:.2f} x {LIMIT}"
        lines.append(f"{name:20}{cells}{entry['client']:8.2f}{text}{more}")
    failed = result["failed"]
    assert isinstance(failed, dict)
    lines += [f"{name:20}failed: {why.strip().splitlines()[-1][:200] if why else ''}" for name, why in failed.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
