"""Two answers compared: equal whatever the order, every difference found, on disk where memory ends."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines import arrow
from dblens.engines.asking import Lexis, Odd, Out
from dblens.errors import InvalidInput, Unsupported
from dblens.query import dual, sorting
from dblens.schema import types as t
from dblens.values.forms import Form
from tests.memory import grown

pytest.importorskip("pyarrow")

COLUMNS = (
    Out(name="id", type=t.Integer(), native="int", form=Form.INT),
    Out(name="v", type=t.Text(), native="text", form=Form.TEXT),
)
Row = tuple[int | None, str | None]


def side(rows: list[Any], key: tuple[str, ...] = (), columns: tuple[Out, ...] = COLUMNS, room: int = 300) -> dual.Side:
    made = dual.Side(key, room=room)
    writer = arrow.Writer(columns)
    take = made.begin(writer.schema)
    for at in range(0, len(rows), 3):
        take(writer.batch(rows[at : at + 3]))
    return made


def found(here: list[Any], there: list[Any], key: tuple[str, ...] = (), **more: Any) -> dual.Found:
    with closing(side(here, key)) as one, closing(side(there, key)) as other:
        return dual.differences(one, other, **more)


ROWS = st.lists(
    st.tuples(st.none() | st.integers(0, 4), st.none() | st.sampled_from(["", "a", "1:", "-", "\0"])), max_size=12
)


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS)
def test_whole_rows(here: list[Row], there: list[Row]) -> None:
    result = found(here, there, samples=100)
    missing, extra = Counter(here) - Counter(there), Counter(there) - Counter(here)
    assert (result.changed, result.missing, result.extra) == (0, missing.total(), extra.total())
    told = Counter(each.here for each in result.samples if each.kind == "missing")
    assert told == Counter((None if i is None else str(i), v) for i, v in missing.elements())


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS)
def test_by_key(here: list[Row], there: list[Row]) -> None:
    result = found(here, there, ("id",))
    changed = missing = extra = 0
    for key in {row[0] for row in here + there}:
        mine, theirs = (Counter(row for row in rows if row[0] == key) for rows in (here, there))
        left, right = (mine - theirs).total(), (theirs - mine).total()
        changed += min(left, right)
        missing += max(0, left - right)
        extra += max(0, right - left)
    assert (result.changed, result.missing, result.extra) == (changed, missing, extra)


def test_order_does_not_matter() -> None:
    rows = [(n, f"v{n}") for n in range(500)]
    mixed = random.Random(1).sample(rows, len(rows))
    with closing(side(rows)) as one, closing(side(mixed)) as other:
        assert one.digest == other.digest
        assert dual.differences(one, other) == dual.Found()


def test_what_changed_is_told() -> None:
    result = found([(1, "a"), (2, None), (3, "x")], [(1, "a"), (2, "b" * 300), (4, None)], ("ID",), samples=2)
    assert (result.changed, result.missing, result.extra) == (1, 1, 1)
    assert result.samples == [
        dual.Difference(kind="changed", key=("2",), columns=("v",), here=("2", None), there=("2", "b" * 200 + "…")),
        dual.Difference(kind="missing", key=("3",), here=("3", "x")),
    ]


def test_classes_of_sqlite_are_no_difference() -> None:
    dynamic = (COLUMNS[0], Out(name="V", type=t.Dynamic(), native="", form=Form.DYNAMIC))
    with closing(side([(1, "a"), (2, "5")])) as one:
        rows = [(1, "t:a"), (2, "i:5")]
        with closing(side(rows, columns=dynamic)) as other:
            assert dual.differences(one, other) == dual.Found()
        rows = [(Odd("t:1", Form.DYNAMIC), "t:a"), (2, "i:5")]
        with closing(side(rows, columns=dynamic)) as other:
            assert dual.differences(one, other) == dual.Found()


def test_other_columns() -> None:
    with pytest.raises(InvalidInput, match="2 columns here, 1 there"):
        dual.differences(side([(1, "a")]), side([(1,)], columns=COLUMNS[:1]))
    renamed = (COLUMNS[0], Out(name="w", type=t.Binary(), native="bytea", form=Form.BYTES))
    with closing(side([(1, "a")])) as one, closing(side([(1, b"a")], columns=renamed)) as other:
        result = dual.differences(one, other)
    assert result.notes == [
        "column 2 is 'v' here and 'w' there",
        "column 'v' is text (text) here and bytea (bytes) there",
    ]
    assert result.missing == result.extra == 1


@pytest.mark.parametrize("key", [("nope",), ("id", "nope")])
def test_a_key_that_is_no_column(key: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="no column"):
        side([], key)
    with pytest.raises(InvalidInput, match="more than one"):
        side([], ("id",), columns=(COLUMNS[0], COLUMNS[0]))


def test_sorted_on_disk_in_many_parts() -> None:
    pairs = [(b"%d" % n, b"v" * (n % 7)) for n in random.Random(2).choices(range(1000), k=3000)]
    with sorting.Sorter(room=2000) as sorter:
        for pair in pairs:
            sorter.add(*pair)
        assert list(sorter.sorted()) == sorted(pairs)


def test_translated() -> None:
    pytest.importorskip("sqlglot")
    postgres = Lexis(dialect="postgres", placeholder="numbered")
    mysql = Lexis(dialect="mysql", placeholder="format")
    assert dual.translated("select \"a\" || 'x' from t where id = :id", postgres, mysql) == (
        "SELECT CONCAT(`a`, 'x') FROM t WHERE id = :id"
    )
    assert dual.translated("select 1 +  1", mysql, mysql) == "select 1 +  1"
    with pytest.raises(InvalidInput, match="no translation"):
        dual.translated("select from where (", postgres, mysql)
    with pytest.raises(Unsupported):
        dual.translated("db.x.find()", Lexis(dialect="", placeholder="question"), mysql)


@pytest.mark.nightly
def test_two_million_rows_take_little_memory() -> None:
    writer = arrow.Writer(COLUMNS)
    with grown() as growth, closing(dual.Side(("id",))) as one, closing(dual.Side(("id",))) as other:
        for made, shift in ((one, 0), (other, 1)):
            take = made.begin(writer.schema)
            for at in range(0, 2_000_000, 8192):
                take(writer.batch([(n, f"name {n}") for n in range(at + shift, at + shift + 8192)]))
        result = dual.differences(one, other)
    assert (result.changed, result.missing, result.extra) == (0, 1, 1)
    assert growth.kib < 160 * 1024
