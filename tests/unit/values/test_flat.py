"""Documents as a flat grid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.errors import InvalidInput
from dblens.values.flat import flat


def names(columns: Any) -> list[str]:
    return [column.name for column in columns]


def test_paths_and_exact_texts() -> None:
    columns, rows = flat(
        ['{"a":{"b":1,"c":{"d":"x"}},"_id":{"$oid":"5f"}}', '{"_id":2,"a":{"b":9007199254740993}}'], 10
    )
    assert names(columns) == ["_id", "a.b", "a.c.d"]
    assert [column.kind for column in columns] == ["json", "json", "text"]
    assert rows == [('{"$oid":"5f"}', "1", "x"), ("2", "9007199254740993", None)]


def test_missing_is_not_null_and_types_stay_apart() -> None:
    columns, rows = flat(['{"a":null}', "{}", '{"a":"null"}', '{"a":"5"}', '{"a":5}', '{"a":5.0}'], 5)
    assert columns[0].kind == "json"
    assert rows == [("null",), (None,), ('"null"',), ('"5"',), ("5",), ("5.0",)]


def test_what_does_not_fit_is_in_the_rest() -> None:
    columns, rows = flat(['{"a":1,"b":{"c":2},"d":[1,{"e":"f"}]}'], 2)
    assert names(columns) == ["a", "__rest"]
    assert rows == [("1", '{"b.c":2,"d":[1,{"e":"f"}]}')]


def test_keys_with_dots_do_not_meet_paths() -> None:
    columns, rows = flat(['{"a.b":1,"a":{"b":2},"":3,"__rest":4}', '{"a":{}}'], 4)
    assert names(columns) == ['"a.b"', "a.b", '""', "__rest"]
    assert rows[0] == ("1", "2", "3", '{"__rest":4}')
    assert rows[1][3] == '{"a":{}}'


def test_a_key_twice_is_kept() -> None:
    columns, rows = flat(['{"a":1,"a":2,"n":{"x":1,"x":2}}'], 5)
    assert names(columns) == ["a", "n", "__rest"]
    assert rows == [("1", '{"x":1,"x":2}', '{"a":2}')]


def test_a_column_called_rest() -> None:
    columns, _ = flat(['{"__rest":1,"a":1,"b":2}'], 2)
    assert names(columns) == ["__rest", "__rest_"]


@pytest.mark.parametrize("text", ["5", "[1]", "nonsense", '{"a":'])
def test_what_is_no_document(text: str) -> None:
    with pytest.raises(InvalidInput):
        flat([text], 5)


def test_one_column_is_not_enough() -> None:
    with pytest.raises(InvalidInput):
        flat(["{}"], 1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=5), max_size=5), st.integers(2, 6))
def test_nothing_is_lost(documents: list[dict[str, Any]], most: int) -> None:
    texts = [json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in documents]
    columns, rows = flat(texts, most)
    assert len(columns) <= most
    assert len({column.name for column in columns}) == len(columns)
    for row, document in zip(rows, documents, strict=True):
        for column, cell in zip(columns, row, strict=True):
            if column.path and cell is not None:
                value: Any = document
                for key in column.path:
                    value = value[key]
                assert (cell if column.kind == "text" else json.loads(cell)) == value
        cells = sum(cell is not None for column, cell in zip(columns, row, strict=True) if column.path)
        rest = next((cell for column, cell in zip(columns, row, strict=True) if not column.path and cell), "{}")
        assert cells + len(json.loads(rest)) == _leaves(document)


def _leaves(document: dict[str, Any]) -> int:
    count = 0
    for value in document.values():
        opens = isinstance(value, dict) and value and not next(iter(value)).startswith("$")
        count += _leaves(value) if opens else 1
    return count
