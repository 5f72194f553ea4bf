"""`values.speed`: on any batch C gives what Python gives."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.values import speed
from dblens.values.digest import Accumulator
from tests.unit.values.test_speed import BUILT, encoded

# -------------------------------------------------------------------------------------------------------- C equals Python

texts = (
    st.text(max_size=40) | st.text(st.characters(codec=None), max_size=6) | st.sampled_from(["", "\\N", "\0", "NULL"])
)
floats = st.floats() | st.integers(-(10**8), 10**8).map(lambda n: n / 100) | st.sampled_from([-0.0, 1e15, 1e16, 1e-4])
integers = st.integers() | st.integers(-(2**70), 2**70) | st.booleans()
numbers = st.from_regex(r"\A[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?\Z")
stamps = st.from_regex(
    r"\A[0-9]{4,5}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,9})?(Z|\+00| BC)?\Z"
)
clocks = st.from_regex(r"\A-?[0-9]{1,3}:[0-6][0-9](:[0-6][0-9](\.[0-9]{0,9})?)?\Z")
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=6),
    max_leaves=20,
)
documents = (
    trees.map(json.dumps)
    | trees.map(lambda t: json.dumps(t, ensure_ascii=False, indent=1))
    | st.text(st.sampled_from('{}[],:"\\u0d8e1.- tn'), max_size=30)
)
anything_else = st.just(1)
values: dict[str, st.SearchStrategy[Any]] = {
    "i": integers,
    "f": floats | integers | numbers,
    "v": integers | st.integers(-1, 2),
    "s": texts,
    "r": st.binary(max_size=40),
    "t": texts | st.binary(max_size=20),
    "b": st.binary(max_size=40),
    "n": integers | floats | texts | numbers,
    "d": integers | floats | numbers | numbers.map(str.encode) | st.decimals() | texts,
    "z": stamps | stamps.map(str.encode) | texts,
    "k": clocks | texts,
    "j": documents | documents.map(lambda d: d.encode("utf-8", "surrogatepass")) | integers,
    "y": integers | floats | texts | st.binary(max_size=20),
    "w": stamps | stamps.map(str.encode) | texts,
    "a": stamps.map(lambda t: t[:10]) | stamps | st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]\Z").map(str.encode),
    "u": st.uuids().map(str)
    | st.uuids().map(lambda u: str(u).upper())
    | st.uuids().map(lambda u: str(u).encode())
    | texts,
    "o": anything_else,
}
anything = st.one_of(*values.values())


def outcome(call: Any) -> object:
    try:
        return call()
    except ValueError:
        return ValueError


@st.composite
def batches(draw: st.DrawFn, known: str) -> tuple[bytes, list[tuple[Any, ...]]]:
    kinds = draw(st.text(st.sampled_from(known), min_size=1, max_size=5))
    odd = draw(st.integers(0, 9)) == 0
    cells = [st.none() | (anything if odd else values[k.lower()]) for k in kinds]
    return kinds.encode(), draw(st.lists(st.tuples(*cells), max_size=4))


@settings(max_examples=int(os.environ.get("DBLENS_EXAMPLES", "400")), deadline=None)
@given(batches("ifvsrtbnwzoNSWZRIF"), st.sampled_from(["pgtext", "mytext"]))
def test_c_encodes_as_python(batch: tuple[bytes, list[tuple[Any, ...]]], dialect: speed.Dialect) -> None:
    if isinstance(BUILT, str):
        pytest.skip(BUILT)
    kinds, rows = batch
    expected = outcome(lambda: speed.PYTHON.encode_rows(rows, kinds, dialect))
    assert outcome(lambda: BUILT[0].encode_rows(rows, kinds, dialect)) == expected


@settings(max_examples=int(os.environ.get("DBLENS_EXAMPLES", "600")), deadline=None)
@given(batches("ifvsrtbdzkjywauoDZKJYWAUSF"))
def test_c_renders_and_digests_as_python(batch: tuple[bytes, list[tuple[Any, ...]]]) -> None:
    if isinstance(BUILT, str):
        pytest.skip(BUILT)
    kinds, rows = batch
    assert outcome(lambda: BUILT[0].render_rows(rows, kinds)) == outcome(lambda: speed.PYTHON.render_rows(rows, kinds))
    ours, theirs = Accumulator().lanes, Accumulator().lanes
    assert outcome(lambda: BUILT[0].digest_rows(rows, kinds, ours)) == outcome(
        lambda: speed.PYTHON.digest_rows(rows, kinds, theirs)
    )
    assert ours == theirs


@given(floats)
def test_loaded_floats_are_exact(value: float) -> None:
    for kit in [speed.PYTHON] if isinstance(BUILT, str) else [speed.PYTHON, BUILT[0]]:
        back = float(encoded(kit, "f", value))
        assert (
            math.isnan(back)
            if math.isnan(value)
            else (back, math.copysign(1, back)) == (value, math.copysign(1, value))
        )


@given(st.text(max_size=60))
def test_loaded_text_comes_back(text: str) -> None:
    unescape = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r", "\\0": "\0"}
    import re

    for kit in [speed.PYTHON] if isinstance(BUILT, str) else [speed.PYTHON, BUILT[0]]:
        written = encoded(kit, "s", text, "mytext").decode()
        assert "\t" not in written
        assert "\n" not in written
        assert re.sub(r"\\.", lambda m: unescape[m[0]], written) == text
