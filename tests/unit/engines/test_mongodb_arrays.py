"""Arrays as tables: the copier's and the verifier's reading give the same octets, and what elements prove becomes columns."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines.base import ARRAY_NOTE, Field
from dblens.engines.mongodb import arrays, export, extjson
from dblens.engines.mongodb.canonical import Reader
from dblens.engines.mongodb.rawbson import Pairs, Symbol, Undefined, build
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.model import Column, Table
from dblens.schema.types import Document, Integer, Text
from dblens.values.forms import Form

ORDERS = Table(namespace="shop", name="orders", kind="collection")
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(), st.text("a\0é", max_size=3),
    st.just(Decimal128("1.10")), st.just(Undefined()), st.just(Symbol("s")), st.integers(-(2**63), 2**63 - 1).map(Int64),
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "items", "_id", "idx", "item", "", "a.b"])


def pairs(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Pairs]:
    return st.lists(st.tuples(KEYS, values), max_size=4).map(Pairs)


VALUES = st.recursive(LEAVES, lambda inner: st.one_of(pairs(inner), st.lists(inner, max_size=4)), max_leaves=12)


def batches(*documents: Any) -> list[list[bytes]]:
    return [[build(Pairs(d.items()) if isinstance(d, dict) else d) for d in documents]]


@settings(max_examples=300, deadline=None)
@given(st.lists(pairs(VALUES), max_size=4), st.sampled_from([("items",), ("a", "items"), ("a", "b", "")]))
def test_both_ways_give_the_same_octets(documents: list[Pairs], path: tuple[str, ...]) -> None:
    # `_id` is first and there once: so the server stores it.
    whole = [Pairs([("_id", i), *((k, v) for k, v in d if k != "_id")]) for i, d in enumerate(documents)]
    copied = [raw for batch in arrays.unwound(batches(*whole), path) for raw in batch]
    assert copied == [raw for batch in arrays.cut(batches(*whole), path) for raw in batch]


def test_elements_in_order_with_their_place() -> None:
    found = [bson.decode(r) for b in arrays.cut(batches({"_id": "k", "v": [7, None, {"x": 1}]}), ("v",)) for r in b]
    assert found == [
        {"_id": "k", "idx": 0, "item": 7},
        {"_id": "k", "idx": 1, "item": None},
        {"_id": "k", "idx": 2, "item": {"x": 1}},
    ]


def test_a_large_array_comes_in_pieces() -> None:
    for read in (arrays.cut, arrays.unwound):
        sizes = [len(b) for b in read(batches({"_id": 1, "v": list(range(2500))}), ("v",))]
        assert sizes == [1000, 1000, 500]


def test_repeated_keys_are_read_alike() -> None:
    raw = build(Pairs([("_id", 1), ("item", Pairs([("n", 1), ("m", Pairs([("x", 3), ("x", 4)])), ("n", 2)]))]))
    fields = [
        Field(column=Column(name=name, type=Integer(), native="int", path=path), form=Form.INT)
        for name, path in (
            ("n", ("item", "n")),
            ("x", ("item", "m", "x")),
            ("gone", ("item", "n", "x")),
            ("none", ("item", "")),
        )
    ]
    table = Table(namespace="shop", name="t")
    (block,) = export.rows(iter([[raw]]), fields, "t")
    assert block.data == [(2, 4, None, None)]
    assert Reader(table, fields).row(raw) == (b"2", b"4", None, None)


# ------------------------------------------------------------------------------------------------------------------ proven columns


def prove(path: tuple[str, ...], *documents: dict[str, Any]) -> Table:
    prover = arrays.ArrayProver(arrays.table_of(ORDERS, path, "orders_items"))
    prover.add(b"".join(bson.encode(d) for d in documents))
    return prover.table()


def shape(table: Table) -> list[tuple[str, str, tuple[str, ...], bool]]:
    return [(c.name, c.native, c.path, c.nullable) for c in table.columns]


def test_documents_become_columns_and_a_whole() -> None:
    table = prove(("v",), {"_id": Int64(1), "v": [{"a": 1, "b": "x"}, {"a": Int64(2), "b": 3}]}, {"_id": 2, "v": []})
    assert shape(table) == [
        ("parent_id", "long", ("_id",), False),
        ("idx", "int", ("idx",), False),
        ("a", "long", ("item", "a"), True),
        ("doc", "document", ("item",), False),
    ]
    assert table.primary_key is not None
    assert table.primary_key.columns == ("parent_id", "idx")
    (key,) = table.foreign_keys
    assert (key.columns, key.table, key.referred) == (("parent_id",), "orders", ("_id",))
    assert (arrays.collection_of(table), arrays.path_of(table), table.rows_estimate) == ("orders", ("v",), 2)


def test_the_type_of_the_key_is_that_of_all_documents() -> None:
    # Only the first has elements; a reference must have the type that the other end has.
    assert shape(prove(("v",), {"_id": 1, "v": [1]}, {"_id": Int64(2)}))[0][1] == "long"


@pytest.mark.parametrize(
    ("items", "native", "type"),
    [
        (["x", None], "string", Text()),
        ([1, Int64(2)], "long", Integer(bits=64)),
        ([1, "x"], "document", Document()),
        ([[1], [2]], "document", Document()),
        ([], "document", Document()),
    ],
)
def test_plain_elements_become_a_value(items: list[Any], native: str, type: Any) -> None:
    table = prove(("v",), {"_id": 1, "v": items})
    assert shape(table)[2:] == [("value", native, ("item",), True)]
    assert table.columns[2].type == type


def test_mixed_elements_keep_the_whole_nullable() -> None:
    assert shape(prove(("v",), {"_id": 1, "v": [{"a": 1}, 2, None]}))[2:] == [
        ("a", "int", ("item", "a"), True),
        ("doc", "document", ("item",), True),
    ]


def test_what_has_no_array_is_counted() -> None:
    table = prove(
        ("s", "v"), {"_id": 1, "s": {"v": [1]}}, {"_id": 2}, {"_id": 3, "s": {"v": None}}, {"_id": 4, "s": 1}, {"_id": 5, "s": {"v": "t"}}
    )  # fmt: skip
    assert table.options[ARRAY_NOTE].endswith(
        "; 4 documents have no array there (2 missing, 1 null, 1 string) and give no rows"
    )


def test_no_array_and_one_on_the_way() -> None:
    with pytest.raises(InvalidInput, match="no document of 'orders' has an array at 'v'"):
        prove(("v",), {"_id": 1, "v": {"0": 1}})
    with pytest.raises(InvalidInput, match=r"'v\.w' of 'orders' leads through the array 'v'"):
        prove(("v", "w"), {"_id": 1, "v": [{"w": [1]}]}, {"_id": 2, "v": {"w": [1]}})


def test_a_time_series_has_no_children() -> None:
    with pytest.raises(Unsupported, match="no unique _id"):
        arrays.table_of(Table(namespace="shop", name="t", kind="timeseries"), ("v",), "t_v")


def test_raw_documents_as_text() -> None:
    raw = build(Pairs([("b", Int64(2)), ("a", Pairs([("x", 1), ("x", 2)]))]))
    assert extjson.encode(RawBSONDocument(raw)) == extjson.encode_raw(raw)
