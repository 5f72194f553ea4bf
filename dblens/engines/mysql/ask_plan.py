"""Execution plans: what each server writes, as one tree.

MariaDB: FORMAT=JSON, with what was measured by ANALYZE. MySQL: FORMAT=JSON in its first or second version; EXPLAIN ANALYZE writes a text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dblens.engines.asking import Explained, PlanNode
from dblens.errors import QueryFailed


def words(maria: bool, *, analyze: bool) -> str:
    """Return what goes before the statement."""
    if maria:
        return "analyze format=json" if analyze else "explain format=json"
    return "explain analyze" if analyze else "explain format=json"


def explained(raw: str, *, maria: bool, analyze: bool) -> Explained:
    """Return a plan as the server wrote it and as a tree."""
    if not raw:
        raise QueryFailed("the server wrote no plan", hint="it may have none for this statement")
    if analyze and not maria:
        note = "MySQL gives no octets and no buffers; times are those of all loops"
        return Explained(raw=raw, format="text", tree=_text(raw), analyzed=True, note=note)
    read = json.loads(raw)
    if maria:
        note = (
            "MariaDB names no cost before version 11"
            + ("" if analyze else "; estimates only")
            + "; its times are of a table's reads and of a block, not of each step"
        )
        return Explained(raw=raw, format="json", tree=_maria(read, "query"), analyzed=analyze, note=note)
    if "query_plan" in read:
        tree = _steps(read["query_plan"])
        return Explained(raw=raw, format="json", tree=tree, note="estimates only: EXPLAIN ANALYZE measures")
    return Explained(
        raw=raw, format="json", tree=_maria(read, "query"), note="estimates only: EXPLAIN ANALYZE measures"
    )


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------------- MariaDB, and MySQL's first version

_TAKEN = frozenset(
    {"table_name", "key", "rows", "r_rows", "cost", "r_total_time_ms", "r_table_time_ms", "access_type", "cost_info", "rows_examined_per_scan",
     "message", "loops", "r_loops"}
)  # fmt: skip


def _maria(found: Any, name: str) -> PlanNode:
    """Return a node of nested objects: an object's objects, and its lists of objects, are its children."""
    children: list[PlanNode] = []
    facts: dict[str, str] = {}
    for key, value in found.items():
        if isinstance(value, dict) and key != "cost_info":
            children.append(_maria(value, key))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for each in value:
                only = next(iter(each)) if len(each) == 1 and isinstance(next(iter(each.values())), dict) else None
                children.append(_maria(each[only], only) if only is not None else _maria(each, key))
        elif key not in _TAKEN:
            facts[key] = _fact(value)
    costs = found.get("cost_info") or {}
    loops = _number(found.get("r_loops"))
    rows = _number(found.get("r_rows"))
    access = found.get("access_type")
    title = name.replace("_", " ")
    if access:
        title = f"{title} ({access})"
    if found.get("message"):
        title = f"{title}: {found['message']}"
    if loops is not None:
        facts["loops"] = _fact(found["r_loops"])
    return PlanNode(
        title=title,
        relation=found.get("table_name"),
        index=found.get("key"),
        estimated_rows=_number(found.get("rows", found.get("rows_examined_per_scan"))),
        actual_rows=None if rows is None else rows * (loops if loops is not None else 1),
        cost=_number(found.get("cost", costs.get("query_cost", costs.get("prefix_cost")))),
        milliseconds=_number(found.get("r_total_time_ms", found.get("r_table_time_ms"))),
        facts=facts,
        children=tuple(children),
    )


# ------------------------------------------------------------------------------------------------------ MySQL's second version


def _steps(found: dict[str, Any]) -> PlanNode:
    known = {
        "operation",
        "table_name",
        "index_name",
        "estimated_rows",
        "estimated_total_cost",
        "inputs",
        "inputs_from_select_list",
    }
    inputs = [*(found.get("inputs") or ()), *(found.get("inputs_from_select_list") or ())]
    return PlanNode(
        title=str(found.get("operation") or found.get("access_type") or "step"),
        relation=found.get("alias") or found.get("table_name"),
        index=found.get("index_name"),
        estimated_rows=_number(found.get("estimated_rows")),
        cost=_number(found.get("estimated_total_cost")),
        facts={key: _fact(value) for key, value in found.items() if key not in known},
        children=tuple([_steps(each) for each in inputs]),
    )


# ------------------------------------------------------------------------------------------------------- MySQL's measured text

_LINE = re.compile(r"^(?P<indent> *)-> (?P<rest>.*)$")
_COST = re.compile(r"\(cost=(?:[\d.e+-]+\.\.)?(?P<cost>[\d.e+-]+) rows=(?P<rows>[\d.e+-]+)\)")
_ACTUAL = re.compile(
    r"\(actual time=(?P<first>[\d.e+-]+)\.\.(?P<last>[\d.e+-]+) rows=(?P<rows>[\d.e+-]+) loops=(?P<loops>[\d.e+-]+)\)"
)
_ON = re.compile(r"(?: scan| lookup| search| read)(?: on) (?P<table>\S+)(?: using (?P<index>\S+))?", re.IGNORECASE)


def _text(raw: str) -> PlanNode:
    """Return the tree of `-> …` lines by their indentation; other lines belong to the one before."""
    open_: list[tuple[int, PlanNode, list[Any]]] = []
    roots: list[Any] = []
    lines: list[tuple[int, str]] = []
    for line in raw.splitlines():
        found = _LINE.match(line)
        if found is not None:
            lines.append((len(found["indent"]), found["rest"]))
        elif lines and line.strip():
            lines[-1] = (lines[-1][0], f"{lines[-1][1]} {line.strip()}")

    def build(at: int, indent: int) -> tuple[list[PlanNode], int]:
        made: list[PlanNode] = []
        while at < len(lines) and lines[at][0] >= indent:
            depth, text = lines[at]
            children, at = build(at + 1, depth + 1)
            made.append(_measured(text, tuple(children)))
        return made, at

    del open_, roots
    tops, _ = build(0, 0)
    if not tops:
        return PlanNode(title=raw.strip()[:200])
    return tops[0] if len(tops) == 1 else PlanNode(title="query", children=tuple(tops))


def _measured(text: str, children: tuple[PlanNode, ...]) -> PlanNode:
    cost, actual, on = _COST.search(text), _ACTUAL.search(text), _ON.search(text)
    title = _ACTUAL.sub("", _COST.sub("", text)).replace("(never executed)", "").strip()
    loops = _number(actual["loops"]) if actual else None
    rows = _number(actual["rows"]) if actual else None
    last = _number(actual["last"]) if actual else None
    facts = {"loops": actual["loops"]} if actual else {}
    if "(never executed)" in text:
        facts["executed"] = "never"
    return PlanNode(
        title=title,
        relation=on["table"] if on else None,
        index=on["index"] if on else None,
        estimated_rows=_number(cost["rows"]) if cost else None,
        cost=_number(cost["cost"]) if cost else None,
        actual_rows=None if rows is None or loops is None else rows * loops,
        milliseconds=None if last is None or loops is None else last * loops,
        facts=facts,
        children=children,
    )
