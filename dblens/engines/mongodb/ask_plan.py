"""Execution plans of MongoDB as a tree: stages, and how many keys and documents each looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dblens.engines.asking import Explained, PlanNode
from dblens.engines.mongodb import extjson

_KNOWN = (
    "stage",
    "inputStage",
    "inputStages",
    "shards",
    "queryPlan",
    "thenStage",
    "elseStage",
    "outerStage",
    "innerStage",
)
_BELOW = ("inputStage", "queryPlan", "outerStage", "innerStage", "thenStage", "elseStage")
_DEEPEST = 100


def explained(reply: Mapping[str, Any], *, analyzed: bool) -> Explained:
    """Return a reply of `explain` as text and as a tree."""
    shown = {key: value for key, value in reply.items() if key not in ("ok", "operationTime", "$clusterTime")}
    tree = _tree(shown)
    has = "executionStats" in extjson.encode(shown)
    note = "" if analyzed or has else "the planner's choice only; rows, keys and documents are counted when it runs"
    if tree is None:
        tree, note = PlanNode(title="plan"), "this server's plan has another shape: see the text"
    return Explained(raw=extjson.encode(shown), format="json", tree=tree, analyzed=analyzed and has, note=note)


def _tree(reply: Mapping[str, Any]) -> PlanNode | None:
    stages = reply.get("stages")
    if isinstance(stages, list) and stages:
        return _pipeline(stages)
    shards = reply.get("shards")
    if isinstance(shards, Mapping):
        children = tuple(_named(node, name) for name, each in shards.items() if (node := _tree(each)) is not None)
        return PlanNode(title="shards", children=children)
    planner, stats = reply.get("queryPlanner"), reply.get("executionStats")
    if not isinstance(planner, Mapping):
        return None
    relation = str(planner.get("namespace", "")) or None
    if isinstance(stats, Mapping) and isinstance(stats.get("executionStages"), Mapping):
        return _with_totals(_stage(stats["executionStages"], relation, 0), stats)
    winning = planner.get("winningPlan")
    return _stage(winning, relation, 0) if isinstance(winning, Mapping) else None


def _named(node: PlanNode, shard: str) -> PlanNode:
    return PlanNode(title=f"shard {shard}", children=(node,))


def _pipeline(stages: list[Any]) -> PlanNode | None:
    """Return a chain: the last stage above, what it reads from below."""
    below: PlanNode | None = None
    for stage in stages:
        if not isinstance(stage, Mapping):
            continue
        title = next((key for key in stage if key.startswith("$")), "stage")
        inner = stage.get(title)
        child = _tree(inner) if title == "$cursor" and isinstance(inner, Mapping) else None
        if child is not None:
            below = child
            continue
        facts = {} if inner is None else {"stage": extjson.encode(inner)[:2000]}
        below = PlanNode(
            title=title,
            actual_rows=_number(stage.get("nReturned")),
            milliseconds=_number(stage.get("executionTimeMillisEstimate")),
            facts=facts,
            children=() if below is None else (below,),
        )
    return below


def _with_totals(node: PlanNode, stats: Mapping[str, Any]) -> PlanNode:
    facts = dict(node.facts)
    for key in ("totalKeysExamined", "totalDocsExamined"):
        if key in stats:
            facts[key] = str(stats[key])
    took = _number(stats.get("executionTimeMillis"))
    return PlanNode(
        title=node.title, relation=node.relation, index=node.index, estimated_rows=node.estimated_rows,
        actual_rows=_number(stats.get("nReturned")) if node.actual_rows is None else node.actual_rows,
        milliseconds=took if took is not None else node.milliseconds, facts=facts, children=node.children,
    )  # fmt: skip


def _stage(stage: Mapping[str, Any], relation: str | None, depth: int) -> PlanNode:
    if "stage" not in stage and isinstance(
        stage.get("queryPlan"), Mapping
    ):  # slot-based engine: the readable plan lies within
        return _stage(stage["queryPlan"], relation, depth)
    below = [stage[key] for key in _BELOW if isinstance(stage.get(key), Mapping)]
    for key in ("inputStages", "shards"):
        below += [each for each in stage.get(key) or () if isinstance(each, Mapping)]
    children = tuple(_stage(each, relation, depth + 1) for each in below) if depth < _DEEPEST else ()
    facts = {
        key: value if isinstance(value, str) else extjson.encode(value)[:2000]
        for key, value in stage.items()
        if key not in _KNOWN
    }
    index = stage.get("indexName")
    return PlanNode(
        title=str(stage.get("stage", "stage")),
        relation=None if children else relation,
        index=str(index) if index is not None else None,
        actual_rows=_number(stage.get("nReturned")),
        milliseconds=_number(stage.get("executionTimeMillisEstimate")),
        facts=facts,
        children=children,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
