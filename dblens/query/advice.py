"""Warnings about statements that often are not meant: changes of whole tables, what cannot be undone, joins of everything with everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from sqlglot import exp


class Warning_(msgspec.Struct, frozen=True, omit_defaults=True):  # noqa: N801 - Warning is Python's
    """Something that a person may not have meant. Codes: update_without_where, delete_without_where, drop, truncate, alter, cross_join."""

    code: str
    text: str


def of_ddl(first: str, words: Sequence[str], named: str) -> tuple[Warning_, ...]:
    """Return the warning of a DDL statement by its first word. `named`: what it is about, as far as known."""
    what = next(
        (w.lower() for w in words[1:] if w and w not in ("IF", "EXISTS", "ONLY", "TEMPORARY", "TEMP", "OR")), "object"
    )
    name = named or "what it names"
    match first:
        case "DROP":
            return (Warning_("drop", f"DROP removes {what} {name} with all that it holds; there is no undo"),)
        case "TRUNCATE":
            return (Warning_("truncate", f"TRUNCATE removes all rows of {name}"),)
        case "ALTER":
            return (Warning_("alter", f"ALTER changes {what} {name} and may lock or rewrite it"),)
    return ()


def of_tree(tree: exp.Expr) -> tuple[Warning_, ...]:
    """Return the warnings about all changes and joins in a tree."""
    from sqlglot import exp

    found = []
    for node in tree.find_all(exp.Update, exp.Delete):
        where = node.args.get("where")
        verb = "UPDATE" if isinstance(node, exp.Update) else "DELETE"
        table = _named(node.this)
        does = "changes" if verb == "UPDATE" else "removes"
        if where is None:
            found.append(Warning_(f"{verb.lower()}_without_where", f"{verb} without WHERE {does} every row of {table}"))
        elif _always(where.this):
            condition = where.this.sql()[:80]
            said = f"{verb} {does} every row of {table}: `{condition}` is always true"
            found.append(Warning_(f"{verb.lower()}_without_where", said))
    for select in tree.find_all(exp.Select):
        found += [
            Warning_("cross_join", f"every row of {a} is joined with every row of {b}") for a, b in _crossed(select)
        ]
    return tuple(dict.fromkeys(found))


def _named(node: exp.Expr | None) -> str:
    from sqlglot import exp

    if isinstance(node, exp.Table):
        return ".".join(part.name for part in node.parts if isinstance(part, exp.Identifier)) or node.sql()[:80]
    return "a subquery" if node is None or not node.alias else str(node.alias)


def _always(condition: exp.Expr) -> bool:
    """Say whether a condition is surely true for every row (or for every row but NULLs: `a = a`)."""
    from sqlglot import exp

    match condition:
        case exp.Paren(this=inner):
            return _always(inner)
        case exp.Boolean():
            return bool(condition.this)
        case exp.Literal():
            return _number(condition) not in (None, 0.0)
        case exp.Or():
            return _always(condition.left) or _always(condition.right)
        case exp.And():
            return _always(condition.left) and _always(condition.right)
        case exp.Not(this=inner):
            return _never(inner)
        case exp.EQ() | exp.GTE() | exp.LTE() | exp.Is() | exp.NullSafeEQ() if condition.left == condition.right:
            return True
        case exp.Like() | exp.ILike() if condition.expression.is_string and set(condition.expression.name) == {"%"}:
            return True
        case exp.EQ() | exp.NEQ() | exp.GT() | exp.LT() | exp.GTE() | exp.LTE():
            return _compared(condition) is True
    return False


def _never(condition: exp.Expr) -> bool:
    from sqlglot import exp

    match condition:
        case exp.Paren(this=inner):
            return _never(inner)
        case exp.Boolean():
            return not condition.this
        case exp.Literal():
            return _number(condition) == 0.0
        case exp.Not(this=inner):
            return _always(inner)
        case exp.EQ() | exp.NEQ() | exp.GT() | exp.LT() | exp.GTE() | exp.LTE():
            return _compared(condition) is False
    return False


def _compared(condition: exp.Expr) -> bool | None:
    """Return what a comparison of two literals says, None for any other."""
    from sqlglot import exp

    left, right = condition.args.get("this"), condition.args.get("expression")
    if not isinstance(left, exp.Literal) or not isinstance(right, exp.Literal) or left.is_string != right.is_string:
        return None
    a: float | str | None = left.name if left.is_string else _number(left)
    b: float | str | None = right.name if right.is_string else _number(right)
    if a is None or b is None:
        return None
    match condition:
        case exp.EQ():
            return a == b
        case exp.NEQ():
            return a != b
    if isinstance(a, str) or isinstance(b, str):
        return None
    match condition:
        case exp.GT():
            return a > b
        case exp.LT():
            return a < b
        case exp.GTE():
            return a >= b
    return a <= b


def _number(literal: exp.Literal) -> float | None:
    try:
        return None if literal.is_string else float(literal.name)
    except ValueError:
        return None


def _crossed(select: exp.Select) -> list[tuple[str, str]]:
    """Return the pairs of tables that no condition ties together. A condition on columns without their tables' names is taken to tie."""
    from sqlglot import exp

    start = select.args.get("from_") or select.args.get("from")
    if start is None:
        return []
    sources = [start.this]
    conditions = [select.args["where"].this] if select.args.get("where") else []
    loose: list[exp.Expr] = []
    nested = list(start.this.args.get("joins") or ()) if isinstance(start.this, exp.Table) else []
    for join in [*nested, *(select.args.get("joins") or ())]:
        source = join.this
        on = join.args.get("on")
        if on is not None:
            conditions.append(on)
        tied = join.args.get("using") or join.args.get("method") == "NATURAL" or (on is not None and not _always(on))
        if not tied and isinstance(source, exp.Table | exp.Subquery) and not isinstance(source.this, exp.Func):
            loose.append(source)
        sources.append(source)
    names = {source.alias_or_name for source in sources if source is not None}
    pairs = []
    for source in loose:
        name = source.alias_or_name
        if any(_ties(condition, name, names) for condition in conditions):
            continue
        other = sources[0] if sources[0] is not source else sources[-1]
        pairs.append((_named(other), _named(source)))
    return pairs


def _ties(condition: exp.Expr, name: str, names: set[str]) -> bool:
    from sqlglot import exp

    for binary in condition.find_all(exp.Predicate):
        seen = {column.table for column in binary.find_all(exp.Column)}
        if (name in seen or "" in seen) and len(seen & (names | {""})) > 1:
            return True
        if seen == {""} and sum(1 for _ in binary.find_all(exp.Column)) > 1:
            return True
    return False
