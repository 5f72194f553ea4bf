"""Parameters by name become the engines' placeholders, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput
from dblens.query.params import bound, names
from tests.unit.query.lexes import ALL, MYSQL, POSTGRES, SHELL, SQL, SQLITE


@pytest.mark.parametrize(
    ("lexis", "text", "found"),
    [
        (POSTGRES, "SELECT :a, :b, :a", ("a", "b")),
        (POSTGRES, "SELECT ':a', \":b\", $$:c$$, $x$ :d $x$, E'\\':e' -- :f\n/* :g */", ()),
        (POSTGRES, "SELECT a::int, :a::int, a :: text", ("a",)),
        (POSTGRES, "SELECT x[1:2], x[a:b], x[:n], x[1 :m], x[:a:b]", ("n", "a")),
        (POSTGRES, "SELECT a=:a,(:b),:c||:d", ("a", "b", "c", "d")),
        (MYSQL, "SELECT @a := 1, @b:=:b, ':c', \":d\", `:e`, 'it\\':f' # :g\n", ("b",)),
        (MYSQL, "l:LOOP SELECT :x; END LOOP", ("x",)),
        (MYSQL, "SELECT /*! :a */ 1", ("a",)),
        (SQLITE, 'SELECT [:a], `:b`, ":c", :d', ("d",)),
        (SHELL, "db.a.find({a: :x, b::y, c:d, e :f, 'g':h, i: cond ? :j : :k})", ("x", "y", "j", "k")),
        (POSTGRES, "SELECT :größe, :a1_b", ("größe", "a1_b")),
        (POSTGRES, "SELECT : a, :1", ()),
    ],
)
def test_names_are_found_where_they_are_parameters(lexis: Lexis, text: str, found: tuple[str, ...]) -> None:
    assert names(text, lexis) == found


def test_each_engine_has_its_own_places() -> None:
    text = "SELECT :a, :b, :a, '100%' FROM t WHERE x IN (:ids) AND y IN (1, :ids)"
    values = {"a": 1, "b": "x", "ids": [7, 8]}
    assert bound(text, POSTGRES, values) == (
        "SELECT $1, $2, $1, '100%' FROM t WHERE x IN ($3, $4) AND y IN (1, $3, $4)", (1, "x", 7, 8),
    )  # fmt: skip
    assert bound(text, MYSQL, values) == (
        "SELECT %s, %s, %s, '100%%' FROM t WHERE x IN (%s, %s) AND y IN (1, %s, %s)", (1, "x", 1, 7, 8, 7, 8),
    )  # fmt: skip
    assert bound(text, SQLITE, values) == (
        "SELECT ?, ?, ?, '100%' FROM t WHERE x IN (?, ?) AND y IN (1, ?, ?)", (1, "x", 1, 7, 8, 7, 8),
    )  # fmt: skip


def test_without_parameters_a_text_stays_as_it_is() -> None:
    for lexis in ALL.values():
        assert bound("SELECT '100%', 1 % 2", lexis, {}) == ("SELECT '100%', 1 % 2", ())


def test_lists_outside_of_in_are_one_value_where_there_are_lists() -> None:
    assert bound("SELECT * FROM t WHERE x = ANY(:ids)", POSTGRES, {"ids": [1, 2]})[1] == ([1, 2],)
    assert bound("db.a.find({x: {$in: :ids}})", SHELL, {"ids": [1, 2]}) == ("db.a.find({x: {$in: ?   }})", ([1, 2],))
    for lexis in (MYSQL, SQLITE):
        with pytest.raises(InvalidInput, match=":ids is a list"):
            bound("SELECT * FROM t WHERE x = :ids", lexis, {"ids": [1, 2]})


@pytest.mark.parametrize("lexis", SQL.values(), ids=SQL)
def test_what_is_lacking_or_too_much_is_named(lexis: Lexis) -> None:
    with pytest.raises(InvalidInput, match=r"no value for :b, :c(.|\n)*a, z"):
        bound("SELECT :a, :b, :c", lexis, {"a": 1, "z": 2})
    with pytest.raises(InvalidInput, match=r"no parameter is called z(.|\n)*:a"):
        bound("SELECT :a", lexis, {"a": 1, "z": 2})
    with pytest.raises(InvalidInput, match="the list for :a is empty"):
        bound("SELECT 1 WHERE 1 IN (:a)", lexis, {"a": []})


def test_placeholders_of_the_engine_beside_names_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\$1"):
        bound("SELECT $1, :a", POSTGRES, {"a": 1})
    with pytest.raises(InvalidInput, match=r"\?"):
        bound("SELECT ?, :a", SQLITE, {"a": 1})
    assert bound("SELECT '%s', 5 %s, :a", MYSQL, {"a": 1}) == ("SELECT '%%s', 5 %%s, %s", (1,))
    assert bound("SELECT '?', :a -- ?", SQLITE, {"a": 1}) == ("SELECT '?', ? -- ?", (1,))


@given(value=st.text(), name=st.sampled_from(sorted(SQL)))
def test_a_value_never_becomes_text(value: str, name: str) -> None:
    text, given_ = bound("SELECT :a", SQL[name], {"a": value})
    assert given_ == (value,)
    assert text in ("SELECT $1", "SELECT %s", "SELECT ?")
