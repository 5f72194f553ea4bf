"""Count accepted losses again in the snapshot that is copied: what was written since the plan was not accepted."""

from __future__ import annotations

import msgspec

from dblens.engines.base import Source
from dblens.errors import StalePlan
from dblens.migrate.model import Plan


def has_losses(plan: Plan) -> bool:
    """Tell whether any value is repaired on the way."""
    return any(loss.repair != "none" for loss in plan.losses)


def recount(plan: Plan, reader: Source) -> None:
    """Ask the plan's checks again where values were accepted to be repaired: one scan of each such table.

    Raises StalePlan when a loss grew; fewer are fine. A value of a kind that the plan did not count is refused by the load or found
    by the verdict.
    """
    known = {(loss.table, loss.column, loss.kind): loss.count for loss in plan.losses}
    dropped = {loss.table: loss for loss in plan.losses if loss.repair == "drop"}
    grown = []
    for table in plan.tables:
        if table.name in dropped:
            loss = dropped[table.name]
            count = reader.count(table.source, where=table.filter) - reader.count(table.source, where=table.where)
            if count > loss.count:
                grown.append(f"{loss.id}: {loss.count} were accepted, now {count}")
        asked = [(msgspec.structs.replace(f, repairs=()), check) for f in table.fields for check in f.repairs]
        if not asked or table.mode == "none":
            continue
        for (field, check), result in zip(asked, reader.check(table.source, asked, where=table.where), strict=True):
            accepted = known.get((table.name, field.column.name, check.kind), 0)
            if result.count > accepted:
                grown.append(
                    f"{table.name}.{field.column.name}:{check.kind}: {accepted} were accepted, now {result.count}"
                )
    if grown:
        listed = "\n".join(f"  {line}" for line in grown[:20])
        raise StalePlan(
            f"the source was written since the plan, {len(grown)} losses grew:\n{listed}", hint="plan again"
        )
