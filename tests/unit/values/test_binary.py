"""Rows of binary COPY: C and Python give the same texts as the codec gives for the same values."""

from __future__ import annotations

import datetime as dt
import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.values import binary, speed
from dblens.values.codec import canonical
from dblens.values.digest import Accumulator
from dblens.values.forms import Form
from tests.unit.values.test_speed import BUILT

EPOCH = dt.datetime(2000, 1, 1)
KITS = [speed.PYTHON] if isinstance(BUILT, str) else [speed.PYTHON, BUILT[0]]
whole = st.integers(-(2**63), 2**63 - 1) | st.integers(-100, 100)
cells: dict[str, tuple[st.SearchStrategy[Any], Any, Any]] = {
    "i": (whole, lambda v: v.to_bytes(8, "big", signed=True), lambda v: canonical(Form.INT, v)),
    "f": (st.floats(), lambda v: struct.pack(">d", v), lambda v: canonical(Form.FLOAT, v)),
    "v": (st.booleans(), lambda v: bytes([v]), lambda v: canonical(Form.INT, v)),
    "b": (st.binary(max_size=20), bytes, lambda v: canonical(Form.BYTES, v)),
    "r": (st.text(max_size=20), str.encode, str.encode),
    "j": (st.sampled_from(['{"b": 1, "a": [1.50, "ä"]}', "null", "-0.0"]), str.encode, lambda v: canonical(Form.JSON, v)),
    "a": (
        st.dates(),
        lambda v: struct.pack(">i", (v - EPOCH.date()).days),
        lambda v: canonical(Form.DATE, v),
    ),
    "w": (
        st.datetimes(),
        lambda v: struct.pack(">q", (v - EPOCH) // dt.timedelta(microseconds=1)),
        lambda v: canonical(Form.TIMESTAMP, v),
    ),
}  # fmt: skip


def message(fields: list[bytes | None]) -> bytes:
    parts = [struct.pack(">i", -1) if f is None else struct.pack(">i", len(f)) + f for f in fields]
    return struct.pack(">h", len(fields)) + b"".join(parts)


def digest(kit: speed.Kit, messages: list[Any], kinds: str) -> object:
    lanes = Accumulator().lanes
    try:
        assert kit.digest_messages(messages, kinds.encode(), lanes) == len(messages)
    except ValueError:
        assert not any(lanes), "a batch that failed added something"
        return ValueError
    return lanes


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, list[bytes], list[tuple[bytes | None, ...]]]:
    kinds = draw(st.text(st.sampled_from("".join(cells)), max_size=5))
    messages, texts = [], []
    for _ in range(draw(st.integers(0, 4))):
        values = [draw(st.none() | cells[k][0]) for k in kinds]
        messages.append(message([None if v is None else cells[k][1](v) for k, v in zip(kinds, values, strict=True)]))
        texts.append(tuple(None if v is None else cells[k][2](v) for k, v in zip(kinds, values, strict=True)))
    return kinds, messages, texts


@settings(max_examples=int(os.environ.get("DBLENS_EXAMPLES", "500")), deadline=None)
@given(rows())
def test_both_give_the_codecs_texts(case: tuple[str, list[bytes], list[tuple[bytes | None, ...]]]) -> None:
    kinds, messages, texts = case
    expected = Accumulator()
    expected.add_rows(texts)
    assert [binary.texts(m, kinds.encode()) for m in messages] == texts
    for kit in KITS:
        assert digest(kit, messages, kinds) == expected.lanes
        assert digest(kit, [memoryview(m) for m in messages], kinds) == expected.lanes


@pytest.mark.parametrize(
    ("kind", "raw", "text"),
    [
        ("a", struct.pack(">i", 2**31 - 1), b"infinity"),
        ("a", struct.pack(">i", -(2**31)), b"-infinity"),
        ("a", struct.pack(">i", -2451545), b"4714-11-24 BC"),
        ("a", struct.pack(">i", -730120), b"0001-12-31 BC"),
        ("a", struct.pack(">i", 2145031948), b"5874897-12-31"),
        ("w", struct.pack(">q", 2**63 - 1), b"infinity"),
        ("w", struct.pack(">q", -(2**63)), b"-infinity"),
        ("w", struct.pack(">q", -1), b"1999-12-31 23:59:59.999999"),
        ("w", struct.pack(">q", -211813488000000000), b"4714-11-24 00:00:00 BC"),
        ("w", struct.pack(">q", 9223371331200000000 - 1), b"294276-12-31 23:59:59.999999"),
        ("i", b"\xff\xfe", b"-2"),
        ("i", struct.pack(">i", -(2**31)), b"-2147483648"),
        ("i", struct.pack(">q", -(2**63)), b"-9223372036854775808"),
        ("f", struct.pack(">d", -0.0), b"-0"),
        ("f", struct.pack(">d", 0.0), b"0"),
        ("f", b"\xff\xf8" + b"\1" * 6, b"NaN"),
        ("f", struct.pack(">d", float("-inf")), b"-Infinity"),
        ("f", struct.pack(">d", 1e23), b"100000000000000000000000"),
        ("i", b"\0\0\1", ValueError),
        ("f", b"\0" * 4, ValueError),
        ("v", b"\2", ValueError),
        ("v", b"", ValueError),
        ("a", b"\0" * 8, ValueError),
        ("w", b"\0" * 4, ValueError),
        ("j", b"{", ValueError),
        ("j", b'"\xff"', ValueError),
    ],
)
def test_single_values(kind: str, raw: bytes, text: object) -> None:
    for kit in KITS:
        found = digest(kit, [message([raw])], kind)
        if text is ValueError:
            assert found is ValueError
            continue
        expected = Accumulator()
        assert isinstance(text, bytes)
        expected.add_rows([(text,)])
        assert found == expected.lanes


@given(st.binary(max_size=30), st.sampled_from(["", "i", "rr", "ij"]))
def test_a_broken_message_is_refused_by_both(data: bytes, kinds: str) -> None:
    for broken in (data, message([b"ab", b"cd"]) + data, message([b"ab", b"cd"])[: -1 - len(data)]):
        outcomes = [digest(kit, [broken], kinds) for kit in KITS]
        assert all(o == outcomes[0] for o in outcomes)
    with pytest.raises(ValueError, match="unknown kind"):
        speed.PYTHON.digest_messages([], b"x", Accumulator().lanes)


def test_a_bad_message_adds_nothing() -> None:
    for kit in KITS:
        assert digest(kit, [message([b"\0\1"]), message([b"\0"])], "i") is ValueError
