"""One migration in a fresh process, as a user runs it. Reads its order from stdin as JSON, writes what it took to stdout.

Passwords come by environment variables, never in an address.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def _memory(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {what} in /proc/self/status")


def main() -> None:
    order = json.load(sys.stdin)
    began = time.perf_counter()
    import msgspec

    import dblens
    from dblens.migrate.link import link
    from dblens.migrate.options import Options

    source = link(order["source"], os.environ.get("BENCH_SOURCE_PASSWORD") or None)
    target = link(order["target"], os.environ.get("BENCH_TARGET_PASSWORD") or None)
    options = msgspec.convert(order.get("options", {}), Options)
    migrations = dblens.open().migrations
    start = _memory("VmRSS")
    ready = time.perf_counter()
    plan = migrations.plan(source, target, options)
    planned = time.perf_counter()
    outcome = migrations.apply(plan, source=source, target=target, accept=["all"])
    applied = time.perf_counter()
    report = {
        "imports": ready - began,
        "plan": planned - ready,
        "apply": applied - planned,
        **outcome.seconds,
        "equal": outcome.equal,
        "rows": outcome.rows,
        "formats": [t.format for t in plan.tables],
        "modes": [t.mode for t in plan.tables],
        "losses": [f"{loss.id}: {loss.count}" for loss in plan.losses],
        "memory_start": start,
        "memory_peak": _memory("VmHWM"),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
