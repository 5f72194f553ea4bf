"""Filters, key ranges, and the one scan that answers a plan's checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bson import json_util
from pymongo.collection import Collection

from dblens.engines.base import ALL, Check, CheckResult, Field, KeyRange
from dblens.engines.mongodb import checks as predicates
from dblens.engines.mongodb import extjson, rawtext
from dblens.engines.mongodb.canonical import Reader, Row, path_of
from dblens.errors import InvalidInput, QueryFailed
from dblens.schema.model import Column, Table
from dblens.values.forms import Form

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

_SAMPLES = 5
_RANGED = ("int", "long", "string", "objectId", "date", "uuid", "binData")
"""Types of `_id` that a range query walks completely. Doubles and decimals are not among them: NaN is in no range."""


def where(text: str | None) -> dict[str, Any]:
    """Parse a filter in Extended JSON. Raises InvalidInput."""
    if not text:
        return {}
    try:
        parsed = json_util.loads(text)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"not a MongoDB filter: {text[:200]!r}", hint='write JSON, for example {"year": {"$gt": 2020}}'
        ) from error
    if not isinstance(parsed, dict):
        raise InvalidInput(
            f"not a MongoDB filter: {text[:200]!r}", hint='write a JSON object, for example {"year": {"$gt": 2020}}'
        )
    return parsed


def query(keys: KeyRange, text: str | None) -> dict[str, Any]:
    """Return the filter of a key range and a condition."""
    bounds: dict[str, Any] = {}
    if keys.lo is not None:
        bounds["$gt"] = extjson.decode(keys.lo[0])
    if keys.hi is not None:
        bounds["$lte"] = extjson.decode(keys.hi[0])
    condition = where(text)
    if not bounds:
        return condition
    ranged = {"_id": bounds}
    return {"$and": [ranged, condition]} if condition else ranged


def _orderable(key: Column) -> bool:
    """Tell whether ranges of `_id` miss none: they only ever find values of the bound's own type."""
    return key.native in _RANGED or [share.name for share in key.shares] == ["object"]


def chunks(
    collection: Collection[Any], table: Table, rows: int, text: str | None, session: ClientSession | None
) -> list[KeyRange]:
    """Cut a collection by `_id` where all of them are of one orderable type, `[ALL]` otherwise."""
    key = next((c for c in table.columns if c.path == ("_id",)), None)
    if key is None or not _orderable(key) or (table.rows_estimate or 0) <= rows or table.kind == "timeseries":
        return [ALL]
    ranges: list[KeyRange] = []
    lo: tuple[str, ...] | None = None
    while True:
        found = collection.find(query(KeyRange(columns=(key.name,), lo=lo), text), {"_id": 1}, session=session)
        last = next(iter(found.sort("_id", 1).skip(rows - 1).limit(1)), None)
        if last is None:
            break
        hi = (extjson.encode(extjson.decode(rawtext.document(last.raw))["_id"]),)
        ranges.append(KeyRange(columns=(key.name,), lo=lo, hi=hi, rows=rows))
        lo = hi
    ranges.append(KeyRange(columns=(key.name,), lo=lo))
    return ranges


def rows(reader: Reader, batch: Sequence[bytes], table: Table) -> Iterator[Row]:
    """Render a batch. Raises QueryFailed naming the document that does not fit its fields."""
    for raw in batch:
        try:
            yield reader.row(raw)
        except ValueError as error:
            bad = next(
                (
                    f.column.name
                    for f, t in zip(reader.fields, reader.texts(raw), strict=True)
                    if isinstance(t, ValueError)
                ),
                "?",
            )
            raise QueryFailed(
                f"{table.namespace}.{table.name}: field {bad!r} of document {_key(raw)} does not fit its type: {error}",
                hint="the collection changed since it was looked at: plan again",
            ) from error


def _key(raw: bytes) -> str:
    return next((rawtext.render(raw, k, a, e) for name, k, a, e in rawtext.elements(raw) if name == "_id"), "(no _id)")


class _Tally:
    def __init__(self) -> None:
        self.count = 0
        self.samples: list[tuple[str | None, ...]] = []

    def add(self, key: tuple[str | None, ...]) -> None:
        self.count += 1
        if len(self.samples) < _SAMPLES:
            self.samples.append(key)


def check(table: Table, asked: Sequence[tuple[Field, Check]], batches: Iterator[list[bytes]]) -> list[CheckResult]:
    """Answer all checks by one scan over the documents."""
    tallies = [_Tally() for _ in asked]
    judges = [predicates.predicate(c, f.form) for f, c in asked]
    groups: list[Counter[tuple[str | None, ...]]] = [Counter() for _ in asked]
    equal = [_columns(table, f, c) for f, c in asked]
    key_reader = _key_reader(table)
    reader = Reader(table, [f for f, _ in asked])
    for batch in batches:
        for raw in batch:
            texts = reader.texts(raw)
            for i, (field, question) in enumerate(asked):
                if _concerned(raw, texts[i], field, question, judges[i]):
                    tallies[i].add(key_reader(raw))
                if question.kind == "collation_equal":
                    groups[i][_folded(raw, equal[i], question)] += 1
    results = []
    for (field, question), tally, group in zip(asked, tallies, groups, strict=True):
        count, samples = tally.count, tally.samples
        if question.kind == "collation_equal":
            # NULLs are never equal to each other in a unique key.
            same = [(key, n) for key, n in group.items() if n > 1 and None not in key]
            count, samples = sum(n for _, n in same), [key for key, _ in same[:_SAMPLES]]
        results.append(CheckResult(check=question, column=field.column.name, count=count, samples=tuple(samples)))
    return results


def _concerned(raw: bytes, text: object, field: Field, question: Check, judge: predicates.Predicate) -> bool:
    kind = question.kind
    if kind == "missing_field":
        path = path_of(field.column)
        return bool(path) and all(name != path[0] for name, *_ in rawtext.elements(raw))
    if isinstance(text, ValueError):
        if kind in ("not_this_type", "invalid_text", "mixed_storage"):
            return True
        raise QueryFailed(
            f"field {field.column.name!r} of document {_key(raw)} does not fit its type: {text}",
            hint="the collection changed since it was looked at: plan again",
        )
    if kind == "null_key":
        return text is None
    return isinstance(text, str) and judge(text)


def _key_reader(table: Table) -> Any:
    names = table.primary_key.columns if table.primary_key else ()
    columns = [c for c in table.columns if c.name in names and c.path]
    plain = Reader(table, [Field(column=c, form=Form.TEXT) for c in columns])

    def read(raw: bytes) -> tuple[str | None, ...]:
        texts = plain.texts(raw) if columns else [_key(raw)]
        return tuple(t if isinstance(t, str) else None for t in texts)

    return read


def _columns(table: Table, field: Field, question: Check) -> Reader | None:
    if question.kind != "collation_equal":
        return None
    wanted = question.columns or (field.column.name,)
    return Reader(table, [Field(column=c, form=Form.TEXT) for c in table.columns if c.name in wanted])


def _folded(raw: bytes, reader: Reader | None, question: Check) -> tuple[str | None, ...]:
    assert reader is not None
    return tuple(predicates.folded(t, question.collation) if isinstance(t, str) else None for t in reader.texts(raw))
