"""Doubt is never missed: what Python or C holds beyond doubt, the exact questions of the engines answer with no."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dblens.engines.mysql import checks as mysql
from dblens.engines.sqlite import functions
from dblens.values import doubt
from tests.unit.values.test_speed import BUILT

KITS: list[tuple[Callable[[bytes], Callable[..., int]], Callable[..., list[int]]]] = [(doubt._doubt, doubt._doubtful)]
if not isinstance(BUILT, str):
    KITS.append((BUILT[1].doubt, BUILT[1].doubtful))
SHAPES = {"d": "date", "s": "timestamp", "z": "timestamptz", "k": "time", "u": "uuid"}


def exact(kind: str, octets: bytes) -> list[str]:
    """The questions that the slow ways answer with yes about a value of a kind."""
    if kind == "t":
        return ["text"] * (functions._invalid(octets) or b"\0" in octets)
    if kind in SHAPES:
        return [SHAPES[kind]] * (not functions.fits(SHAPES[kind], octets))
    asked = [q for q, bit in doubt.JSON_QUESTIONS.items() if ord(kind) & bit]
    found = [q for q in asked if q != "document_key" and functions._json_question(octets, q)]
    if functions.is_json(octets.decode("utf-8", "replace")) and not functions._invalid(octets):
        questions = mysql._json_questions("mariadb")
        found += [q for q in asked if questions[q](octets.decode())]
    return found


KINDS = [*"tdszku", *(doubt.json_kind([q]) for q in doubt.JSON_QUESTIONS), doubt.json_kind(list(doubt.JSON_QUESTIONS))]
AWKWARD = [
    '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '{"a":{"b":1,"b":2}}', '[{"x":[{"k":1,"k":null}]}]', '"\\u0000"', '"\\\\u0000"', '"\\\\\\u0000"',
    "1e400", "1.0", "1.50", "0.1", "-0", "-0.0", "12345678901234567890", "123456789012345", "0.1234567890123456", "01", "1.", ".5", "+1", "NaN",
    "Infinity", "-", '{"a.b":1}', '{"$a":1}', '{"a\\u0000":1}', "[1,]", '{"a":1,}', "{,}", "[", "]", "", " ", "nul", "nulll", "true false", '"\\ud800"',
    '"\\x"', '"\t"', '"\x7f"', "\ufeff1", "[1]\0", "\x0b1", "[" * 60 + "]" * 60, "[" * 900 + "]" * 900, "[" * 3000 + "]" * 3000,
    "{" + ",".join(f'"k{i}":{i}' for i in range(300)) + ',"k0":1}', '{"größe":"ß","größe":2}', '"😀"', '{"a":1,"b":{"a":1},"c":{"a":2}}',
    "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "2024-00-01", "2024-01-00",
    "2024-04-31", "2024-13-01", "2024-01-01 ", "0044-03-15 BC", "infinity", "2024-01-01\n", "２０２４-01-01", "2024-01-01 24:00:00",
    "2024-01-01 23:59:60", "2024-01-01T23:59:59.123456", "2024-01-01 23:59:59.1234567", "2024-01-01 23:59:59.", "2024-01-01 00:00:00Z",
    "2024-01-01 00:00:00+02:00", "2024-01-01 00:00:00+0200", "2024-01-01 00:00:00+02", "2024-01-01 00:00:00+2:00", "2024-01-01 00:00:00+99:00",
    "12:00:00", "24:00:00", "-12:00:00", "12:00", "12:00:00.5", "6f1c1a0e-7c1b-4c9e-9d52-3d6e1f5a0b11", "6F1C1A0E-7C1B-4C9E-9D52-3D6E1F5A0B11",
]  # fmt: skip
RAW = [
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b'"\xff"',
    b"a\0b",
    b"12345678\0",
    b"1234567\xe9",
    b"\xf0\x9f\x98\x80",
]


@pytest.mark.parametrize(("make", "batch"), KITS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_missed_among_awkward_values(make: Any, batch: Any, kind: str) -> None:
    values = [t.encode() for t in AWKWARD] + RAW
    beyond = [v for v in values if not make(kind.encode())(v)]
    assert [(v, q) for v in beyond for q in exact(kind, v)] == []
    assert batch([(v, 0) for v in values], kind.encode()) == [i for i, v in enumerate(values) if v not in beyond]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner),
)
TEXTS = st.one_of(
    JSON.map(lambda v: json.dumps(v).encode()),
    JSON.map(lambda v: json.dumps(v, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.text(alphabet='{}[]:,"\\u0a1 .e-\n').map(str.encode),
    st.binary(),
    st.text().map(lambda t: t.encode("utf-8", "surrogatepass")),
    *(st.from_regex(re.compile(p.pattern, re.ASCII), fullmatch=True).map(str.encode) for p in functions.SHAPES.values()),
    st.from_regex(r"\d{4}-[01]\d-[0-3]\d[ T]\d\d:\d\d:\d\d(\.\d{0,7})?(Z|[+-]\d\d:?\d\d)?", fullmatch=True).map(str.encode),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(0, 40))
@example(b'{"":0,"":0}', 0)
def test_nothing_is_missed_in_any_text(octets: bytes, cut: int) -> None:
    for value in (octets, octets[:cut] + octets[cut + 1 :]):
        for make, _ in KITS:
            for kind in KINDS:
                if not make(kind.encode())(value):
                    assert exact(kind, value) == [], (kind, value)


@pytest.mark.parametrize(("make", "batch"), KITS)
def test_the_usual_is_beyond_doubt(make: Any, batch: Any) -> None:
    usual = {
        "t": "größe 😀",
        "d": "2024-02-29",
        "s": "2024-02-29 23:59:59.123456",
        "z": "2024-02-29T23:59:59+02:00",
        "k": "23:59:59.5",
        "u": "6f1c1a0e-7c1b-4c9e-9d52-3d6e1f5a0b11",
        KINDS[-1]: '{"sku": "A-1", "tags": ["x", "größe"], "price": 3.25, "gift": true, "more": {"sku": null}}',
    }
    kinds = "".join(usual).encode()
    row = tuple(v.encode() for v in usual.values())
    assert make(kinds)(*row) == 0
    assert make(kinds)(*[None] * len(row)) == 0
    assert make(kinds)(*row[:-1], b"{") == 1
    assert make(kinds)(*row[:-1], "text") == 1
    assert batch([(*row, "key"), (*row[:-1], b'{"a":1,"a":1}', "key")], kinds) == [1]
    assert batch([(b"0",), (b"1",)], b"0") == [1]
