"""What a change costs: whether it loses data, whether it blocks others, and why, judged without knowing the server."""

from __future__ import annotations

from typing import TypedDict

from dblens.schema import changes as c
from dblens.schema.model import Check, Column, ForeignKey, Index, NamedType, Table, View
from dblens.schema.types import Binary, Bits, DataType, Decimal, Enum, Float, Integer, Set, Text, Time, Timestamp


class Risk(TypedDict, total=False):
    """The three fields that every change has."""

    destructive: bool
    blocking: bool
    reason: str


def add_table(table: Table) -> Risk:
    """Judge the creation of a table."""
    return {"reason": f"the {'collection' if table.inferred else 'table'} is missing"}


def drop_table(table: Table) -> Risk:
    """Judge the loss of a table."""
    rows = f"about {table.rows_estimate:,} rows" if table.rows_estimate else "its rows"
    return {"destructive": True, "reason": f"loses the table and {rows}"}


def drop_column(table: Table, column: Column) -> Risk:
    """Judge the loss of a column."""
    if table.inferred:
        return {"reason": "the field is no longer met in the sample; documents are not changed"}
    if column.generated is not None:
        return {"reason": "a computed column: its values can be computed again"}
    return {"destructive": True, "reason": "loses the values of the column"}


def add_column(table: Table, column: Column) -> Risk:
    """Judge a new column."""
    if table.inferred:
        return {"reason": "the field is new in the sample; documents are not changed"}
    if column.generated is not None and column.generated.stored:
        return {"blocking": True, "reason": "computes a value for every row, which rewrites the table"}
    if column.identity is not None:
        return {"blocking": True, "reason": "numbers every row, which rewrites the table"}
    if column.default is not None and column.default.kind not in ("literal", "null", "now", "today", "time"):
        return {"blocking": True, "reason": "evaluates its default for every row, which may rewrite the table"}
    if not column.nullable and column.default is None and column.generated is None:
        return {"reason": "not null without a default: fails when the table has rows"}
    return {"reason": "the column is missing"}


def alter_column(table: Table, what: c.ColumnAspect, before: Column, after: Column) -> Risk:
    """Judge one changed aspect of a column."""
    if table.inferred:
        return {"reason": f"{what} differs in the sample; documents are not changed"}
    match what:
        case "type":
            if widens(before.type, after.type):
                return {"blocking": not _free(before.type, after.type), "reason": "every value fits the new type"}
            return {
                "destructive": True,
                "blocking": True,
                "reason": "values may not fit the new type; the table is rewritten",
            }
        case "nullable":
            if after.nullable:
                return {"reason": "NULL is allowed afterwards"}
            return {"blocking": True, "reason": "reads every row; fails when there is a NULL"}
        case "generated":
            if after.generated is None:
                return {"reason": "the values stay, they are no longer computed"}
            return {"destructive": True, "blocking": True, "reason": "the values are replaced by computed ones"}
        case "collation":
            return {
                "blocking": True,
                "reason": "order and equality change: its indexes are built again, unique ones may fail",
            }
        case "identity":
            return {"reason": "how new rows are numbered changes"}
        case "default":
            return {"reason": "only new rows are concerned"}
        case "visibility":
            return {"reason": "`SELECT *` returns other columns"}
        case "comment":
            return {"reason": "the comment differs"}


def widens(before: DataType, after: DataType) -> bool:
    """Return whether every value of one type is a value of the other without change."""
    if before == after:
        return True
    match before, after:
        case Integer(), Integer():
            if before.unsigned == after.unsigned:
                return after.bits >= before.bits
            return before.unsigned and after.bits > before.bits
        case Integer(), Decimal():
            if after.unsigned and not before.unsigned:
                return False
            digits = len(str(2**before.bits if before.unsigned else 2 ** (before.bits - 1)))
            return after.precision is None or after.precision - (after.scale or 0) >= digits
        case Decimal(), Decimal():
            return _decimal_widens(before, after)
        case Float(), Float():
            return after.bits >= before.bits
        case Text(), Text():
            return (after.length is None or (before.length is not None and after.length >= before.length)) and (
                before.fixed == after.fixed or not after.fixed
            )
        case Binary(), Binary():
            grows = after.length is None or (before.length is not None and after.length >= before.length)
            return grows and (not after.fixed or before == after)
        case Bits(), Bits():
            grows = after.length is None or (before.length is not None and after.length >= before.length)
            return grows and after.varying
        case Timestamp(), Timestamp():
            return before.zone == after.zone and after.precision >= before.precision
        case Time(), Time():
            return before.zone == after.zone and after.precision >= before.precision and (after.span or not before.span)
        case Enum(), Enum():
            return set(before.values) <= set(after.values)
        case Set(), Set():
            return set(before.values) <= set(after.values)
        case Enum(), Text():
            return after.length is None or after.length >= max(map(len, before.values), default=0)
    return False


def _decimal_widens(before: Decimal, after: Decimal) -> bool:
    if (after.unsigned and not before.unsigned) or (before.special and not after.special):
        return False
    if after.precision is None:
        return True
    if before.precision is None:
        return False
    scale, other = before.scale or 0, after.scale or 0
    return other >= scale and after.precision - other >= before.precision - scale


def _free(before: DataType, after: DataType) -> bool:
    """Return whether engines usually widen without touching rows: longer variable text."""
    return isinstance(before, Text) and isinstance(after, Text) and not (before.fixed or after.fixed)


def add_key() -> Risk:
    """Judge a new primary or unique key."""
    return {"blocking": True, "reason": "builds an index while writers wait; fails when there are duplicates"}


def add_foreign_key(key: ForeignKey) -> Risk:
    """Judge a new foreign key."""
    if not key.validated:
        return {"reason": "rows already there are not checked"}
    return {"blocking": True, "reason": "checks every row and locks both tables; fails when there are orphans"}


def add_index(index: Index) -> Risk:
    """Judge a new index."""
    fails = "; fails when there are duplicates" if index.unique else ""
    return {"blocking": True, "reason": f"writers wait while the index is built{fails}"}


def drop_index(index: Index) -> Risk:
    """Judge the loss of an index."""
    return {"reason": "duplicates are allowed afterwards" if index.unique else "queries that used it become slower"}


def add_check(check: Check) -> Risk:
    """Judge a new check constraint."""
    if not check.enforced:
        return {"reason": "declared, not enforced"}
    return {"blocking": True, "reason": "reads every row; fails when one breaks it"}


def change_view(view: View) -> Risk:
    """Judge a changed view."""
    if view.materialized:
        return {"blocking": True, "reason": "a materialised view is dropped, created and filled again"}
    return {"reason": "the view differs"}


def change_type(before: NamedType, after: NamedType) -> Risk:
    """Judge a changed named type."""
    lost = [value for value in before.values if value not in after.values]
    if lost:
        return {"destructive": True, "blocking": True, "reason": f"values are no longer allowed: {', '.join(lost[:5])}"}
    kept = [value for value in after.values if value in before.values]
    if before.kind == after.kind == "enum" and kept == list(before.values):
        return {"reason": "more values are allowed"}
    return {"blocking": True, "reason": "the type differs: columns that use it are checked or rewritten"}


def alter_table(what: c.TableAspect) -> Risk:
    """Judge a changed aspect of a table itself."""
    match what:
        case "kind" | "partitioning" | "partition_of":
            return {"blocking": True, "reason": "the table has to be built again to change this"}
        case "options":
            return {"blocking": True, "reason": "a changed table option may rewrite the table"}
        case "row_security":
            return {"reason": "which rows a role sees changes"}
        case "owner" | "grants":
            return {"reason": "who may do what changes"}
        case "inferred":
            return {"reason": "one side was sampled from documents, the other declared"}
        case "comment":
            return {"reason": "the comment differs"}
