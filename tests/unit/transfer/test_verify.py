"""The verifier over rows in memory: it finds what differs, names it, and sees nothing that is not there."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.transfer import verify as module
from dblens.transfer.verify import Difference, TableVerdict, Tolerance, verify_table
from dblens.values.forms import Form
from tests.unit.transfer.fakes import Memory, Row, fields, side

SHAPE = fields(("id", Form.INT), ("name", Form.TEXT), ("price", Form.DECIMAL))
ROWS: list[Row] = [(i, f"name {i}", f"{i}.50") for i in range(3000)]


def judge(
    ours: list[Row], theirs: list[Row], shape: Any = SHAPE, key: tuple[str, ...] = ("id",), **more: Any
) -> TableVerdict:
    return verify_table("n.t", side(Memory(ours), shape), side(Memory(theirs), shape), key=key, **more)


def only(verdict: TableVerdict) -> Difference:
    assert not verdict.equal
    assert verdict.complete
    assert verdict.differing == len(verdict.differences) == 1, verdict.differences
    return verdict.differences[0]


def test_equal_in_any_order_without_reading_rows_again() -> None:
    left, right = Memory(ROWS), Memory(reversed(ROWS))
    verdict = verify_table("n.t", side(left, SHAPE), side(right, SHAPE), key=("id",))
    assert verdict.equal
    assert verdict.differences == ()
    assert verdict.source_digest == verdict.target_digest
    assert (verdict.source_rows, verdict.target_rows, verdict.columns) == (3000, 3000, 3)
    assert left.reads == right.reads == []


def test_both_sides_are_read_at_once() -> None:
    left, right = Memory(ROWS), Memory(ROWS)
    verify_table("n.t", side(left, SHAPE), side(right, SHAPE))
    assert left.threads == {threading.get_ident()}
    assert right.threads
    assert not right.threads & left.threads


@pytest.mark.parametrize("key", [("id",), ("id", "name")])
def test_one_changed_row(key: tuple[str, ...]) -> None:
    theirs = [*ROWS[:1234], (1234, "name 1234", "1234.51"), *ROWS[1235:]]
    found = only(judge(ROWS, theirs, key=key))
    assert found.kind == "changed"
    assert found.key == ("1234", "name 1234")[: len(key)]
    assert [(c.column, c.source, c.target) for c in found.columns] == [("price", "1234.5", "1234.51")]


def test_only_differing_buckets_are_read_again() -> None:
    left, right = Memory(ROWS), Memory([*ROWS[:7], (7, "x", "7.50"), *ROWS[8:]])
    verify_table("n.t", side(left, SHAPE), side(right, SHAPE), key=("id",))
    assert len(left.reads) == 1
    assert left.reads[0] is not None
    assert 1 <= len(left.reads[0]) <= 2


def test_one_missing_one_extra_one_duplicated_row() -> None:
    found = only(judge(ROWS, ROWS[:-1]))
    assert (found.kind, found.key) == ("missing", ("2999",))
    assert [(c.column, c.source, c.target) for c in found.columns] == [
        ("id", "2999", None), ("name", "name 2999", None), ("price", "2999.5", None),
    ]  # fmt: skip
    found = only(judge(ROWS[:-1], ROWS))
    assert (found.kind, found.key) == ("extra", ("2999",))
    found = only(judge(ROWS, [*ROWS, ROWS[5]]))
    assert (found.kind, found.key, found.count) == ("duplicated", ("5",), 1)
    found = only(judge([*ROWS, ROWS[5]], ROWS))
    assert (found.kind, found.key) == ("missing", ("5",))


def test_without_a_key_rows_are_a_multiset() -> None:
    ours: list[Row] = [(1, "a", "1"), (1, "a", "1"), (2, None, None)]
    assert judge(ours, ours[::-1], key=()).equal
    found = only(judge(ours, [*ours, ours[0]], key=()))
    assert (found.kind, found.key, found.count) == ("duplicated", ("1", "a", "1"), 1)
    found = only(judge(ours, ours[1:], key=()))
    assert (found.kind, found.key) == ("missing", ("1", "a", "1"))
    verdict = judge(ours, [(1, "a", "1"), (1, "a", "2"), (2, None, None)], key=())
    assert {(d.kind, d.key) for d in verdict.differences} == {
        ("missing", ("1", "a", "1")), ("extra", ("1", "a", "2")),
    }  # fmt: skip


def test_null_empty_and_the_word_are_three_things() -> None:
    shape = fields(("v", Form.TEXT))
    for a, b in [(None, ""), (None, "NULL"), ("", "NULL"), (None, "-"), (None, "0:")]:
        assert not judge([(a,)], [(b,)], shape, key=()).equal
    left, right = fields(("a", Form.TEXT), ("b", Form.TEXT)), fields(("a", Form.TEXT), ("b", Form.TEXT))
    verdict = verify_table("n.t", side(Memory([("a", None)]), left), side(Memory([(None, "a")]), right))
    assert not verdict.equal
    verdict = verify_table("n.t", side(Memory([("ab", "c")]), left), side(Memory([("a", "bc")]), right))
    assert not verdict.equal


def test_counts_equal_and_sums_of_two_swapped_values_differ() -> None:
    ours: list[Row] = [(1, "a", "1"), (2, "b", "2")]
    theirs: list[Row] = [(1, "b", "1"), (2, "a", "2")]
    verdict = judge(ours, theirs)
    assert [(d.kind, d.key, d.columns[0].column) for d in verdict.differences] == [
        ("changed", ("1",), "name"), ("changed", ("2",), "name"),
    ]  # fmt: skip


def test_a_key_that_is_not_unique_is_reported_not_hidden() -> None:
    ours: list[Row] = [(1, "a", "1"), (1, "b", "1")]
    theirs: list[Row] = [(1, "c", "1"), (1, "d", "1")]
    verdict = judge(ours, theirs)
    assert not verdict.equal
    assert {d.key for d in verdict.differences} == {("1",)}
    shown = {c.source for d in verdict.differences for c in d.columns} | {
        c.target for d in verdict.differences for c in d.columns
    }
    assert {"a", "c", "d"} <= shown


def test_the_target_may_name_its_columns_otherwise() -> None:
    right = fields(("nummer", Form.INT), ("bezeichnung", Form.TEXT), ("preis", Form.DECIMAL))
    theirs = [*ROWS[:9], (9, "x", "9.50")]
    verdict = verify_table("n.t", side(Memory(ROWS[:10]), SHAPE), side(Memory(theirs), right), key=("nummer",))
    found = only(verdict)
    assert found.key == ("9",)
    assert [c.column for c in found.columns] == ["bezeichnung"]


# ------------------------------------------------------------------------------------------------------------------ tolerance


def test_tolerance_accepts_a_distance_and_nothing_more() -> None:
    ours: list[Row] = [(1, "a", "10.00"), (2, "b", "20.00")]
    theirs: list[Row] = [(1, "a", "10.01"), (2, "b", "20.50")]
    verdict = judge(ours, theirs, tolerance=Tolerance({"price": 0.011}))
    assert only(verdict).key == ("2",)
    assert judge(ours, theirs, tolerance=Tolerance({"price": 0.6})).equal
    assert judge([(1, "a", "1.00")], [(1, "a", "1.01")], tolerance=Tolerance({"price": 0.01})).equal
    assert judge(ours, theirs, tolerance=Tolerance({"name": 9.0})).differing == 2


@pytest.mark.parametrize("form", [Form.FLOAT, Form.INT, Form.NATIVE])
def test_tolerance_by_form(form: Form) -> None:
    shape = fields(("id", Form.INT), ("v", form))
    pair = (1, 2) if form == Form.INT else ("1.0", "1.5") if form == Form.NATIVE else (1.0, 1.5)
    assert judge([(1, pair[0])], [(1, pair[1])], shape, tolerance=Tolerance({"v": 1.0})).equal
    assert not judge([(1, None)], [(1, pair[1])], shape, tolerance=Tolerance({"v": 1.0})).equal


def test_tolerance_on_what_is_no_number_is_a_difference_not_a_crash() -> None:
    shape = fields(("id", Form.INT), ("v", Form.NATIVE))
    assert only(judge([(1, "abc")], [(1, "abd")], shape, tolerance=Tolerance({"v": 1.0}))).key == ("1",)
    shape = fields(("id", Form.INT), ("v", Form.FLOAT))
    assert not judge([(1, float("nan"))], [(1, 1.0)], shape, tolerance=Tolerance({"v": 1e9})).equal
    assert not judge([(1, float("inf"))], [(1, 1.0)], shape, tolerance=Tolerance({"v": 1e9})).equal
    assert judge([(1, float("nan"))], [(1, float("nan"))], shape).equal


def test_a_row_within_tolerance_still_shows_its_other_columns() -> None:
    verdict = judge([(1, "a", "10.00")], [(1, "b", "10.01")], tolerance=Tolerance({"price": 0.1}))
    assert [c.column for c in only(verdict).columns] == ["name"]


# ----------------------------------------------------------------------------------------------------------------------- JSON


def compact(text: str) -> str:
    return json.dumps(json.loads(text), separators=(",", ":"))


def spaced(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def test_json_in_two_engines_normal_forms_is_equal() -> None:
    shape = fields(("id", Form.INT), ("doc", Form.JSON))
    documents = [(i, json.dumps({"b": i, "a": [1, None, "ä"]})) for i in range(50)]
    for engine in ("fake", "other"):
        left, right = Memory(documents, compact), Memory(documents, spaced, engine)
        verdict = verify_table("n.t", side(left, shape), side(right, shape), key=("id",))
        assert verdict.equal
        assert verdict.method == module.CANONICAL
        assert left.digests == right.digests == ([False, True] if engine == "fake" else [True])


def test_a_json_difference_survives_the_second_look() -> None:
    shape = fields(("id", Form.INT), ("doc", Form.JSON))
    ours = [(i, json.dumps({"b": i, "a": 1})) for i in range(50)]
    theirs = [*ours[:20], (20, '{"b": 20, "a": "1"}'), *ours[21:]]
    verdict = verify_table("n.t", side(Memory(ours, compact), shape), side(Memory(theirs, spaced), shape), key=("id",))
    found = only(verdict)
    assert found.key == ("20",)
    assert [(c.column, c.source, c.target) for c in found.columns] == [("doc", '{"a":1,"b":20}', '{"a":"1","b":20}')]


def test_equal_json_is_not_read_twice() -> None:
    shape = fields(("doc", Form.JSON))
    left, right = Memory([('{"a":1}',)], compact), Memory([('{"a":1}',)], compact)
    assert verify_table("n.t", side(left, shape), side(right, shape)).method == "digest"
    assert left.digests == right.digests == [False]
    assert left.whole_reads == right.whole_reads == 0


# -------------------------------------------------------------------------------------------------------------- many and none


def test_empty_tables() -> None:
    assert judge([], []).equal
    verdict = judge(ROWS, [])
    assert (verdict.differing, verdict.complete, verdict.target_rows) == (3000, True, 0)
    assert len(verdict.differences) == module.MOST_DIFFERENCES
    assert judge([], ROWS).differing == 3000


def test_many_differences_stop_early_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_IN_MEMORY", 200)
    monkeypatch.setattr(module, "MOST_DIFFERENCES", 10)
    verdict = judge(ROWS, [(i, "other", "1") for i in range(3000)])
    assert not verdict.equal
    assert not verdict.complete
    assert verdict.differing > 0
    assert len(verdict.differences) == 10


def test_a_changed_row_whose_halves_fall_into_two_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two digests of a changed row lie in different buckets, read at different times: still one changed row."""
    monkeypatch.setattr(module, "ROWS_IN_MEMORY", 1)
    theirs = [(i, "x" if i % 100 == 0 else name, price) for i, name, price in ROWS]
    verdict = judge(ROWS, theirs)
    assert Counter(d.kind for d in verdict.differences) == {"changed": 30}
    assert {d.key for d in verdict.differences} == {(str(i),) for i in range(0, 3000, 100)}


def test_an_error_of_one_side_is_raised() -> None:
    class Broken(Memory):
        def fingerprint(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("gone")

    for left, right in [(Broken([]), Memory([])), (Memory([]), Broken([]))]:
        with pytest.raises(RuntimeError, match="gone"):
            verify_table("n.t", side(left, SHAPE), side(right, SHAPE))


VALUES = st.none() | st.sampled_from(["", "a", "NULL", "é", "e\u0301", "a ", "\0", "🧊"])
TABLES = st.lists(st.tuples(st.integers(0, 8), VALUES, VALUES), max_size=25)
LOOSE = fields(("id", Form.INT), ("a", Form.TEXT), ("b", Form.TEXT))


@settings(max_examples=300)
@given(TABLES, TABLES, st.sampled_from([(), ("id",)]))
def test_equal_means_equal_as_multisets(ours: list[Row], theirs: list[Row], key: tuple[str, ...]) -> None:
    verdict = judge(ours, theirs, LOOSE, key)
    assert verdict.equal == (Counter(ours) == Counter(theirs))
    assert verdict.complete
    if not verdict.equal:
        assert verdict.differing > 0


@settings(max_examples=200)
@given(TABLES, TABLES)
def test_without_a_key_the_differences_add_up(ours: list[Row], theirs: list[Row]) -> None:
    """Taking the differences to the source's rows gives the target's rows, exactly."""
    verdict = judge(ours, theirs, LOOSE, ())
    rows = Counter((str(i), a, b) for i, a, b in ours)
    for difference in verdict.differences:
        sign = -1 if difference.kind == "missing" else 1
        assert difference.kind in ("missing", "extra", "duplicated")
        rows[difference.key] += sign * difference.count  # type: ignore[index]
    assert +rows == Counter((str(i), a, b) for i, a, b in theirs)


@settings(max_examples=200)
@given(
    st.dictionaries(st.integers(0, 30), st.tuples(VALUES, VALUES), max_size=25),
    st.dictionaries(st.integers(0, 30), st.tuples(VALUES, VALUES), max_size=25),
)
def test_with_a_key_every_difference_is_named_once(ours: dict[int, Row], theirs: dict[int, Row]) -> None:
    verdict = judge([(k, *v) for k, v in ours.items()], [(k, *v) for k, v in theirs.items()], LOOSE)
    expected = {("missing", (str(k),)) for k in ours.keys() - theirs.keys()}
    expected |= {("extra", (str(k),)) for k in theirs.keys() - ours.keys()}
    expected |= {("changed", (str(k),)) for k in ours.keys() & theirs.keys() if ours[k] != theirs[k]}
    found = [(d.kind, d.key) for d in verdict.differences]
    assert set(found) == expected
    assert len(found) == len(expected) == verdict.differing
    for difference in verdict.differences:
        if difference.kind == "changed":
            left, right = ours[int(str(difference.key[0]))], theirs[int(str(difference.key[0]))]
            assert {c.column for c in difference.columns} == {
                n for n, a, b in zip("ab", left, right, strict=True) if a != b
            }
