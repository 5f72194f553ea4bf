"""SQLite's EXPLAIN QUERY PLAN as a tree: what is searched, by which index. It tells no costs and no numbers of rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dblens.engines.asking import Explained, PlanNode

_STEP = re.compile(
    r"(?:SCAN|SEARCH) (?:TABLE )?(?P<relation>.+?)"
    r"(?: USING (?:AUTOMATIC )?(?:PARTIAL )?(?:COVERING )?INDEX (?P<index>.+?))?(?: USING (?:INTEGER )?PRIMARY KEY)?(?: \([^()]*\))?",
    re.DOTALL,
)


def tree_of(rows: Sequence[tuple[Any, ...]], statement: str) -> Explained:
    """Return a plan from the rows (id, parent, unused, detail) that SQLite answers with."""
    children: dict[int, list[tuple[int, str]]] = {}
    for number, parent, _, detail in rows:
        children.setdefault(int(parent), []).append((int(number), str(detail)))

    def node(number: int, detail: str, depth: int) -> PlanNode:
        below = tuple(node(n, d, depth + 1) for n, d in children.get(number, ())) if depth < 200 else ()
        found = _STEP.fullmatch(detail)
        return PlanNode(
            title=detail,
            relation=found["relation"] if found else None,
            index=found["index"] if found else None,
            children=below,
        )

    def lines(number: int, depth: int) -> list[str]:
        return [
            line for n, d in children.get(number, ()) for line in ("  " * min(depth, 200) + d, *lines(n, depth + 1))
        ]

    top = [node(n, d, 1) for n, d in children.get(0, ())]
    whole = top[0] if len(top) == 1 else PlanNode(title="QUERY PLAN", children=tuple(top))
    return Explained(
        raw="\n".join(lines(0, 0)) or f"nothing to plan: {statement[:80]}",
        format="text",
        tree=whole,
        note="SQLite tells the way, no costs, no estimates and no measured times",
    )
