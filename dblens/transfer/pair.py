"""Which canonical form two existing columns share, when no plan decided it (verify, append, data only)."""

from __future__ import annotations

from dblens.engines.forms import form_of
from dblens.schema.model import Column
from dblens.schema.types import Float, Integer
from dblens.values.forms import Form


def shared_form(source: Column, target: Column, *, same_engine: bool) -> Form:
    """Return the form for comparing two columns.

    The same native type of one engine compares by the engine's own text. Otherwise the narrower meaning decides: text on one side
    takes the other side's form, because engines without a type store its canonical text.
    """
    if same_engine and source.native == target.native:
        return form_of(source.type) if isinstance(source.type, (Float, Integer)) else Form.NATIVE
    left, right = form_of(source.type), form_of(target.type)
    if left == right:
        return left
    numbers = [Form.INT, Form.DECIMAL, Form.FLOAT]
    if left in numbers and right in numbers:
        return max(left, right, key=numbers.index)
    if right in (Form.TEXT, Form.DYNAMIC):
        return left
    if left in (Form.TEXT, Form.DYNAMIC):
        return right
    if Form.DOCUMENT in (left, right) and Form.JSON in (left, right):
        return Form.DOCUMENT
    if {left, right} <= {Form.TIMESTAMP, Form.TIMESTAMPTZ}:
        return Form.TIMESTAMP
    return Form.TEXT
