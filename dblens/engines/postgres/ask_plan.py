"""Execution plans as PostgreSQL writes them in JSON, as a tree."""

from __future__ import annotations

import json
from typing import Any, Final

from dblens.engines.asking import Explained, PlanNode
from dblens.errors import QueryFailed

_TAKEN: Final = frozenset(
    {"Node Type", "Plans", "Plan Rows", "Actual Rows", "Total Cost", "Actual Total Time", "Relation Name", "Index Name"}
)
_RELATIONS: Final = ("Relation Name", "CTE Name", "Function Name", "Tuplestore Name", "Table Function Name")


def words(*, analyze: bool) -> str:
    """Return what goes before the statement."""
    return f"EXPLAIN (FORMAT JSON{', ANALYZE, BUFFERS' if analyze else ''}) "


def explained(raw: str, *, analyze: bool) -> Explained:
    """Return a plan as the server wrote it and as a tree."""
    try:
        plans = json.loads(raw)
        top = plans[0]
    except (ValueError, LookupError) as error:
        raise QueryFailed("the server wrote no plan", hint="it has none for this statement") from error
    if "Plan" not in top:
        return Explained(raw=raw, format="json", tree=PlanNode(title="Utility statement"), note="it has no plan")
    facts = {name: _fact(value) for name, value in top.items() if name not in ("Plan", "Triggers")}
    children = tuple(
        [
            PlanNode(
                title=f"Trigger {trigger.get('Trigger Name', '')}".rstrip(),
                relation=trigger.get("Relation"),
                milliseconds=trigger.get("Time"),
                facts={"Calls": _fact(trigger.get("Calls"))},
            )
            for trigger in top.get("Triggers", ())
        ]
    )
    return Explained(
        raw=raw,
        format="json",
        tree=_node(top["Plan"], facts, children),
        analyzed=analyze,
        note="rows and times are of all loops and workers together"
        if analyze
        else "estimates only: analyze measures, in a transaction that is read-only",
    )


def _node(found: dict[str, Any], more: dict[str, str], others: tuple[PlanNode, ...] = ()) -> PlanNode:
    loops = float(found.get("Actual Loops", 1))
    rows, took = found.get("Actual Rows"), found.get("Actual Total Time")
    title = str(found.get("Node Type", ""))
    if found.get("Join Type") not in (None, "Inner"):
        title += f" ({found['Join Type']})"
    return PlanNode(
        title=title,
        relation=next((str(found[name]) for name in _RELATIONS if name in found), None),
        index=found.get("Index Name"),
        estimated_rows=_number(found.get("Plan Rows")),
        actual_rows=None if rows is None else float(rows) * loops,
        cost=_number(found.get("Total Cost")),
        milliseconds=None if took is None else round(float(took) * loops, 6),
        facts={name: _fact(value) for name, value in found.items() if name not in _TAKEN} | more,
        children=(*[_node(each, {}) for each in found.get("Plans", ())], *others),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
