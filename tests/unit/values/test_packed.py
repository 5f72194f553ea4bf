"""Packed rows are a sequence of octets like any other: in Python, in C, cut or whole."""

from __future__ import annotations

import os
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.values import exchange, speed
from dblens.values.digest import Accumulator
from dblens.values.packed import Packed
from tests.unit.values.test_binary import KITS, message
from tests.unit.values.test_exchange import MODULES

octets = st.lists(st.binary(max_size=80), max_size=20)


@pytest.fixture(params=KITS, ids=lambda k: k.name)
def kit(request: pytest.FixtureRequest) -> Any:
    return request.param


@given(octets, st.integers(-25, 25), st.integers(-25, 25))
def test_it_is_the_list_it_was_made_of(rows: list[bytes], a: int, b: int) -> None:
    packed = Packed.of(rows)
    assert [bytes(r) for r in packed] == rows == [bytes(packed[i]) for i in range(len(packed))]
    assert packed.data == b"".join(rows)
    cut = packed[a:b]
    assert [bytes(r) for r in cut] == rows[a:b] == [bytes(cut[i]) for i in range(len(cut))]
    assert [bytes(r) for r in cut[1:]] == rows[a:b][1:]
    if rows:
        assert bytes(packed[-1]) == rows[-1]
        short = packed.without(min(3, len(rows[0])))
        assert [bytes(r) for r in short] == [rows[0][3:], *rows[1:]]


def test_what_it_refuses() -> None:
    packed = Packed.of([b"a", b"b"])
    for index in (2, -3):
        with pytest.raises(IndexError):
            packed[index]
    with pytest.raises(ValueError, match="step"):
        packed[::2]


@settings(max_examples=int(os.environ.get("DBLENS_EXAMPLES", "100")))
@given(octets, st.integers(0, 5), st.integers(-5, 0), st.integers(0, 9))
def test_digests_of_lines(rows: list[bytes], first: int, last: int, shorter: int) -> None:
    packed = Packed.of(rows)[first : len(rows) + last]
    if len(packed):
        packed = packed.without(min(shorter, len(packed[0])))
    expected = Accumulator().lanes
    speed.PYTHON.digest_lines([bytes(r) for r in packed], expected)
    for kit in KITS:
        lanes = Accumulator().lanes
        assert kit.digest_lines(packed, lanes) == len(packed)
        assert lanes == expected


def test_messages(kit: speed.Kit) -> None:
    rows = [message([b"\0\1", None, b"ab"]), message([None, b"1", b""]), message([b"\7\7", b'{"a": 1.50}', None])]
    listed, packed = Accumulator().lanes, Accumulator().lanes
    sent = Packed.of([b"head" + rows[0], *rows[1:], b"\xff\xff"]).without(4)[:-1]
    assert kit.digest_messages(rows, b"ijr", listed) == kit.digest_messages(sent, b"ijr", packed) == 3
    assert listed == packed
    with pytest.raises(ValueError, match="another width"):
        kit.digest_messages(Packed.of([rows[0], b"\xff\xff"]), b"ijr", packed)
    assert listed == packed, "a batch that failed added something"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: "python" if m is None else "c")
def test_exchange_values(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "speed", SimpleNamespace(module=module))
    rows = [message([b"\0\1", None, "ä".encode()]), message([None, b"\0", b""])]
    sent = Packed.of([b"h" * 19 + rows[0], rows[1], b"\xff\xff"]).without(19)
    assert exchange.read_messages(sent[:-1], b"ibr") == [(1, None, "ä"), (None, b"\0", "")]
    assert exchange.read_messages(sent[:0], b"ibr") == []
    with pytest.raises(ValueError, match="another width"):
        exchange.read_messages(sent, b"ibr")


@pytest.mark.skipif(len(MODULES) < 2, reason="the accelerator is not built")
@pytest.mark.parametrize(
    ("data", "ends", "begin"),
    [
        (b"abc", array("q", [1, 4]), 0),
        (b"abc", array("q", [2, 1]), 0),
        (b"abc", array("q", [-1]), 0),
        (b"abc", array("q", [1]), 2),
        (b"abc", array("q", [1]), -1),
        (b"abc", array("q", [2**62]), 0),
        (b"abc", array("b", [1]), 0),
    ],
)
def test_ends_outside_the_block_are_never_read(data: bytes, ends: Any, begin: int) -> None:
    module: Any = MODULES[1]
    bad = Packed(data, memoryview(ends), begin)
    lanes = Accumulator().lanes
    for call in (
        lambda: module.digest_lines(bad, lanes),
        lambda: module.digest_messages(bad, b"r", (bytes,), lanes),
        lambda: module.read_messages(bad, b"r"),
    ):
        with pytest.raises(ValueError, match=r"packed|row"):
            call()
    assert not any(lanes)
    for broken in (SimpleNamespace(ends=1, begin=0, data=b""), SimpleNamespace(ends=b"", begin="", data=b"")):
        with pytest.raises(TypeError):
            module.digest_lines(broken, lanes)
