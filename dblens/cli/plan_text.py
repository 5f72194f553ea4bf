"""Plans, outcomes and verdicts for people at a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dblens.cli.show import listing, section
from dblens.migrate.apply import Outcome
from dblens.migrate.model import Plan
from dblens.transfer.verify import TableVerdict


def show_plan(plan: Plan) -> None:
    """Print a plan: tables, losses, blocks, exclusions, cost."""
    section(
        f"{plan.source.identity} → {plan.target.identity}",
        ("source", "target", "rows", "mode", "format"),
        [(t.name, t.shown, t.rows, t.mode, t.format) for t in plan.tables],
    )
    section(
        "Loss ledger",
        ("id", "values", "becomes", "sample keys", "why"),
        [(x.id, x.count, x.repair, _samples(x.samples), x.why) for x in plan.losses],
        empty="no value is lost",
    )
    if plan.blocks:
        section("Blocked by", ("kind", "name", "reason"), [(b.kind, b.name, b.reason) for b in plan.blocks])
    counted = Counter((e.kind, e.reason) for e in plan.exclusions)
    if counted:
        section("Not migrated", ("kind", "count", "reason"), [(k, n, why) for (k, why), n in counted.items()])
    changed = [t for table in plan.tables for t in table.transforms]
    if changed:
        listing("Transforms", changed)
    if plan.notes:
        listing("Notes", plan.notes)
    cost = plan.cost
    listing(
        "Estimate",
        [
            f"{cost.rows:,} rows, about {cost.octets / 1e6:,.1f} MB, {cost.seconds_low:.0f} to {cost.seconds_high:.0f} s",
            f"plan {plan.id}, hash {plan.hash[:16]}…; nothing was written",
        ],
    )


def show_outcome(outcome: Outcome) -> None:
    """Print what a migration ended with."""
    show_verdicts(outcome.verdicts)
    times = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in outcome.seconds.items())
    word = "every row equal" if outcome.equal else "NOT EQUAL"
    listing(f"{outcome.state}: {word}, {outcome.rows:,} rows", [times, f"run {outcome.id}"])
    if outcome.exclusions:
        listing("Not migrated", [f"{e.kind} {e.name}: {e.reason}" for e in outcome.exclusions])


def show_verdicts(verdicts: Iterable[TableVerdict]) -> None:
    """Print one line a table, and the differing rows below."""
    listed = list(verdicts)
    section(
        "Verdict",
        ("table", "source rows", "target rows", "result", "s"),
        [
            (
                v.table,
                v.source_rows,
                v.target_rows,
                "equal" if v.equal else f"{'' if v.complete else 'at least '}{v.differing} differ",
                v.seconds,
            )
            for v in listed
        ],
    )
    for verdict in listed:
        if verdict.differences:
            section(
                f"Differences in {verdict.table}",
                ("what", "key", "column", "source", "target"),
                [
                    (d.kind, _key(d.key), c.column, _value(c.source), _value(c.target))
                    for d in verdict.differences[:50]
                    for c in (d.columns if d.kind == "changed" else d.columns[:3]) or (None,)
                    if c is not None
                ]
                or [(d.kind, _key(d.key), "", "", "") for d in verdict.differences[:50]],
            )


def _samples(samples: Iterable[Iterable[str | None]]) -> str:
    return "; ".join(_key(s) for s in samples)


def _key(key: Iterable[str | None]) -> str:
    return ", ".join("NULL" if k is None else k for k in key)


def _value(text: str | None) -> str:
    if text is None:
        return "NULL"
    return text if len(text) <= 60 else text[:59] + "…"
