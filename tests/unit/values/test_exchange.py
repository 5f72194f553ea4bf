"""Exchange rows: C does what Python does, and both what the table of kinds says."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.values import exchange
from tests.unit.values.test_binary import message
from tests.unit.values.test_speed import BUILT

MODULES = [None] if isinstance(BUILT, str) else [None, BUILT[1]]


@pytest.fixture(params=MODULES, ids=lambda m: "python" if m is None else "c")
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(exchange, "speed", SimpleNamespace(module=request.param))
    return request.param


def asked(value: object) -> object:
    if value == 13:
        raise ValueError("no luck")
    return ("asked", value)


@pytest.mark.parametrize(
    ("kind", "value", "shaped"),
    [
        ("-", [1], [1]),
        ("f", 1.5, 1.5),
        ("f", 0.0, 0.0),
        ("f", float("inf"), float("inf")),
        ("f", -0.0, None),
        ("f", float("nan"), None),
        ("f", 1, None),
        ("d", "1.50", "1.5"),
        ("d", "100.00", "100"),
        ("d", "100", "100"),
        ("d", "-0.5", None),
        ("d", "-0", None),
        ("d", ".0", ""),
        ("d", "1.", None),
        ("d", 5, None),
        ("d", "NaN", "NaN"),
        ("w", "2024-01-31 10:00:00.500000", "2024-01-31 10:00:00.5"),
        ("w", "2024-01-31 10:00:00.000000", "2024-01-31 10:00:00"),
        ("w", "10:20:30", "10:20:30"),
        ("w", "0044-03-15 10:00:00.50 BC", None),
        ("w", "infinity", "infinity"),
        ("z", "2024-01-31 10:00:00.100", "2024-01-31 10:00:00.1Z"),
        ("z", "2024-01-31 10:00:00", "2024-01-31 10:00:00Z"),
        ("z", 5, None),
        ("I", b"-12", -12),
        ("I", b"999999999999999999", 999999999999999999),
        ("I", b"9999999999999999999", None),
        ("I", b"", None),
        ("I", b"-", None),
        ("I", b"1.0", None),
        ("F", b"1e-3", 0.001),
        ("F", "1", None),
        ("R", "é".encode(), "é"),
        ("R", b"", ""),
        ("R", "a", None),
    ],
)
@pytest.mark.usefixtures("module")
def test_shapes(kind: str, value: object, shaped: object) -> None:
    """None stands for: the column's own function is asked."""
    found = exchange.shape_rows([(value, None)], kind.encode() * 2, (asked, asked))
    expected = ("asked", value) if shaped is None else shaped
    assert repr(found) == repr([(expected, None)])
    assert type(found[0][0]) is type(expected)


@pytest.mark.usefixtures("module")
def test_errors() -> None:
    for call in (
        lambda: exchange.shape_rows([(13,)], b"d", (asked,)),
        lambda: exchange.shape_rows([(1, 2)], b"-", (asked,)),
        lambda: exchange.shape_rows([], b"?", (asked,)),
        lambda: exchange.shape_rows([], b"--", (asked,)),
        lambda: exchange.shape_rows([(b"\xff",)], b"R", (asked,)),
        lambda: exchange.shape_rows([(b"1x",)], b"F", (asked,)),
        lambda: exchange.read_messages([b""], b"i"),
        lambda: exchange.read_messages([message([b"\0\1"])], b"ii"),
        lambda: exchange.read_messages([message([b"\0\1"])[:-1]], b"i"),
        lambda: exchange.read_messages([message([b"\0\1"]) + b"x"], b"i"),
        lambda: exchange.read_messages([message([b"\0\1\2"])], b"i"),
        lambda: exchange.read_messages([message([b"\0\1"])], b"f"),
        lambda: exchange.read_messages([message([b""])], b"v"),
        lambda: exchange.read_messages([message([b"\xff"])], b"r"),
        lambda: exchange.read_messages([], b"w"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            call()
    assert exchange.shape_rows([(), ()], b"", ()) == [(), ()]
    assert exchange.read_messages([message([])], b"") == [()]


@settings(max_examples=int(os.environ.get("DBLENS_EXAMPLES", "400")), deadline=None)
@given(st.data())
def test_c_shapes_as_python(data: st.DataObject) -> None:
    if isinstance(BUILT, str):
        pytest.skip(BUILT)
    text = st.text(max_size=8) | st.from_regex(r"\A-?[0-9]{0,5}(\.[0-9]{0,5})?( BC)?\Z")
    octets = st.binary(max_size=8) | st.from_regex(r"\A-?[0-9]{0,20}\Z").map(str.encode)
    kinds = data.draw(st.text(st.sampled_from("-fdwzIR"), max_size=4))
    row = tuple(data.draw(st.none() | st.floats() | st.integers(0, 12) | text | octets) for _ in kinds)
    singles = (asked,) * len(kinds)

    def outcome(call: Callable[[], object]) -> object:
        try:
            return repr(call())
        except ValueError:
            return ValueError

    assert outcome(lambda: BUILT[1].shape_rows([row], kinds.encode(), singles)) == outcome(
        lambda: exchange._shape_rows([row], kinds.encode(), singles)
    )


@pytest.mark.usefixtures("module")
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(),
            st.none() | st.text(max_size=10),
            st.none() | st.binary(max_size=10),
            st.none() | st.integers(0, 1),
        ),
        max_size=4,
    )
)
def test_messages_are_read_back(rows: list[tuple[Any, ...]]) -> None:
    def packed(row: tuple[Any, ...]) -> bytes:
        i, f, r, b, v = row
        return message([
            None if i is None else i.to_bytes(8, "big", signed=True),
            None if f is None else struct.pack(">d", f),
            None if r is None else r.encode(),
            b,
            None if v is None else bytes([v]),
        ])  # fmt: skip

    found = exchange.read_messages([memoryview(packed(r)) for r in rows], b"ifrbv")
    for ours, theirs in zip(found, rows, strict=True):
        same = (
            ours[1] is theirs[1]
            if theirs[1] is None
            else math.isnan(ours[1])
            if math.isnan(theirs[1])
            else struct.pack(">d", ours[1]) == struct.pack(">d", theirs[1])
        )
        assert same
        assert ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
