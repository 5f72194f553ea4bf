"""Which form two existing columns share."""

from __future__ import annotations

import pytest

from dblens.engines.forms import form_of
from dblens.schema.model import Column
from dblens.schema.types import (
    Array,
    Binary,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Dynamic,
    Enum,
    Float,
    Integer,
    Interval,
    Json,
    ObjectId,
    Set,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.transfer.pair import shared_form
from dblens.values.forms import Form


def column(type: DataType, native: str = "x") -> Column:
    return Column(name="c", type=type, native=native)


@pytest.mark.parametrize(
    ("left", "right", "form"),
    [
        (Boolean(), Integer(8), Form.INT),
        (Integer(64, True), Decimal(20, 0), Form.DECIMAL),
        (Year(), Integer(16), Form.INT),
        (Decimal(10, 2), Float(), Form.FLOAT),
        (Integer(), Float(), Form.FLOAT),
        (Decimal(10, 2), Text(), Form.DECIMAL),
        (Text(), Decimal(10, 2), Form.DECIMAL),
        (Timestamp(zone=True), Timestamp(), Form.TIMESTAMP),
        (Timestamp(6), Timestamp(3), Form.TIMESTAMP),
        (Timestamp(), Text(), Form.TIMESTAMP),
        (Date(), Text(), Form.DATE),
        (Uuid(), Text(36), Form.UUID),
        (Json(), Text(), Form.JSON),
        (Set(("a",)), Json(), Form.JSON),
        (Array(Integer()), Text(), Form.JSON),
        (Enum(("a",)), Text(), Form.TEXT),
        (Binary(), Binary(16), Form.BYTES),
        (ObjectId(), Text(24), Form.TEXT),
        (Interval(), Text(), Form.INTERVAL),
        (Time(span=True), Time(), Form.TIME),
        (Time(zone=True), Text(), Form.TIMETZ),
        (Integer(), Dynamic(), Form.INT),
        (Document(), Document(), Form.DOCUMENT),
        (Document(), Json(), Form.DOCUMENT),
        (Document(), Text(), Form.DOCUMENT),
    ],
)
def test_shared_form(left: DataType, right: DataType, form: Form) -> None:
    assert shared_form(column(left), column(right, "y"), same_engine=False) == form
    assert shared_form(column(right, "y"), column(left), same_engine=False) == form


def test_one_engines_own_type_compares_by_its_own_text() -> None:
    assert shared_form(column(Uuid(), "uuid"), column(Uuid(), "uuid"), same_engine=True) == Form.NATIVE
    assert shared_form(column(Integer(), "int"), column(Integer(), "int"), same_engine=True) == Form.INT
    assert shared_form(column(Float(), "float"), column(Float(), "float"), same_engine=True) == Form.FLOAT
    assert shared_form(column(Text(5), "varchar(5)"), column(Text(), "text"), same_engine=True) == Form.TEXT


@pytest.mark.parametrize("form", list(Form))
def test_every_form_but_the_pass_throughs_is_reached(form: Form) -> None:
    types: list[DataType] = [
        Boolean(),
        Decimal(),
        Float(),
        Text(),
        Binary(),
        Date(),
        Time(),
        Time(zone=True),
        Timestamp(),
    ]
    types += [Timestamp(zone=True), Interval(), Uuid(), Json(), Document(), Dynamic()]
    if form not in (Form.NATIVE, Form.BSON, Form.BITS, Form.GEOMETRY):
        assert form in {form_of(t) for t in types}
