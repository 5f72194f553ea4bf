"""Native spellings and meanings: both ways, for every type of the corpus."""

from __future__ import annotations

import pytest

from dblens.engines.base import Field
from dblens.errors import Unsupported
from dblens.schema.model import Column
from dblens.schema.types import (
    Array,
    Binary,
    Bits,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Dynamic,
    Enum,
    Float,
    Geometry,
    Integer,
    Interval,
    Json,
    ObjectId,
    Opaque,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.values.forms import Form
from tests.engines.support import Case

TYPES: tuple[DataType, ...] = (
    Boolean(), Integer(8), Integer(16), Integer(24), Integer(32), Integer(64), Integer(8, True), Integer(32, True), Integer(64, True),
    Decimal(), Decimal(special=True), Decimal(10, 2), Decimal(65, 30), Decimal(1, 0), Decimal(10, 2, True), Float(32), Float(64),
    Text(), Text(1), Text(40), Text(100_000), Text(5, True), Binary(), Binary(16), Binary(4, True), Date(), Time(), Time(0), Time(6, True),
    Time(6, False, True), Timestamp(), Timestamp(0), Timestamp(3), Timestamp(6, True), Interval(), Uuid(), Json(), Json(False),
    Enum(("a", "it's", "")), Set(("a", "b")), Bits(), Bits(8), Bits(64), Bits(None, True), Bits(10, True), Year(), Geometry(), ObjectId(),
    Array(Integer(32)), Array(Text()), Document(), Dynamic(("integer", "text")), Opaque("thing"),
)  # fmt: skip


def test_what_is_spelled_is_understood(engine_case: Case) -> None:
    """A spelling may mean more than what was asked for (TINYINT(1) holds more than a boolean), but its meaning is then stable."""
    types = engine_case.engine.types
    wrong = []
    for type in TYPES:
        try:
            meaning = types.parse(types.spell(type))
            again = types.parse(types.spell(meaning))
        except Unsupported:
            continue
        if again != meaning:
            wrong.append((type, types.spell(type), meaning, again))
    assert wrong == []


def test_inspected_types_are_the_parsed_ones(engine_case: Case) -> None:
    """The catalog and the type chapter agree on what a spelling means (named types and profiled ones aside)."""
    session = engine_case.open(engine_case.corpus()[0])
    wrong = []
    for table in session.inspect().tables:
        for column in table.columns:
            if isinstance(column.type, (Enum, Opaque, Json, Dynamic, Document)) or table.inferred:
                continue
            parsed = session.engine.types.parse(column.native)
            if parsed != column.type and not isinstance(parsed, Opaque):
                wrong.append((column.native, column.type, parsed))
    assert wrong == []


def test_the_same_engine_keeps_everything(engine_case: Case) -> None:
    session = engine_case.open(engine_case.corpus()[0])
    for table in session.inspect().tables:
        for column in table.columns:
            stored = session.engine.types.store(column, session.engine.name, flavour=session.flavour)
            assert stored.native == column.native, table.name
            # Two servers of one engine may differ (MariaDB drops the sign of -0.0), but nothing that this one holds may block.
            assert all(c.why for c in stored.checks), table.name
            blocking = [(Field(column=column, form=stored.form), c) for c in stored.checks if c.repair == "block"]
            assert [r.count for r in session.check(table, blocking)] == [0] * len(blocking), table.name


@pytest.mark.parametrize("source", ["postgresql", "mysql", "sqlite", "mongodb"])
def test_every_foreign_type_has_a_place_or_a_reason(engine_case: Case, source: str) -> None:
    types = engine_case.engine.types
    if source == engine_case.harness.engine:
        return
    for type in TYPES:
        for indexed in (False, True):
            try:
                stored = types.store(Column(name="c", type=type, native="x"), source, indexed=indexed)
            except Unsupported as error:
                assert error.why  # noqa: PT017 - either answer will do
                continue
            assert stored.native or isinstance(type, Dynamic), type
            types.spell(types.parse(stored.native))  # raises if it is no spelling of this engine
            assert stored.form not in (Form.NATIVE, Form.BSON), (
                f"{type}: foreign columns are compared in a neutral form"
            )
