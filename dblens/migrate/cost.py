"""What a migration will take: rows, octets, time, measured on the source where it pays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from dblens.engines.base import Engine, Source, Target
from dblens.migrate.model import Cost, TablePlan

SLOWEST, FASTEST = 40_000.0, 400_000.0
"""Rows a second between which a first estimate lies when nothing could be measured (performance.md, both ends of its table)."""


def estimate(plans: Sequence[TablePlan], reader: Source, writer: Target | None, engine: Engine) -> Cost:
    """Estimate what the tables take; no `writer` where the target's database is not there yet."""
    rows = sum(p.rows for p in plans)
    # Statistics of a fresh table say next to nothing, so a hundred octets a row is the least.
    octets = sum(max(p.source.bytes or 0, p.rows * 100) for p in plans)
    rate = _measure(max(plans, key=lambda p: p.rows), reader) if rows else None
    low, high = (rows / rate, 4 * rows / rate) if rate else (rows / FASTEST, rows / SLOWEST)
    if engine.facts.documents:
        high = max(high, rows / 6_000)
    free = writer.free_bytes() if writer else None
    return Cost(rows=rows, octets=octets, seconds_low=round(low, 2), seconds_high=round(high + 1, 2), target_free=free)


def _measure(plan: TablePlan, reader: Source) -> float | None:
    """Read the largest table for a twentieth of a second and return its rows a second, None when it is too small to be worth it."""
    if plan.format == "bson" or plan.rows < 200_000:
        return None
    start, rows = time.monotonic(), 0
    with closing(reader.export(plan.source, plan.fields, "rows", where=plan.where)) as blocks:
        for block in blocks:
            rows += block.rows or 0
            if time.monotonic() - start > 0.05:
                break
    return rows / max(time.monotonic() - start, 1e-3)
