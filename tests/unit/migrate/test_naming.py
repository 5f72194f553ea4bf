"""Names in the target: unique, within its limits, the same every time."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.engines.base import Facts
from dblens.migrate.naming import Names

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
FACTS = st.builds(
    Facts,
    identifier_limit=st.integers(20, 64),
    identifier_unit=st.sampled_from(["octets", "characters"]),
    folds_case=st.booleans(),
    max_columns=st.just(1000),
    schemas=st.just(False),
    forbidden_in_names=st.sampled_from(["\0", "\0$", "\0."]),
    reserved_prefixes=st.sampled_from([(), ("dblens_",), ("system.", "dblens_")]),
)


def facts(**more: object) -> Facts:
    default = {
        "identifier_limit": 63,
        "identifier_unit": "octets",
        "folds_case": False,
        "max_columns": 9,
        "schemas": True,
    }
    return Facts(**{**default, **more})  # type: ignore[arg-type]


def size(name: str, facts: Facts) -> int:
    return len(name.encode()) if facts.identifier_unit == "octets" else len(name)


@given(FACTS, st.lists(NAMES, max_size=20, unique=True))
def test_unique_within_limits_and_deterministic(facts: Facts, names: list[str]) -> None:
    book = Names(facts)
    given_names = [book.give(n) for n in names]
    folded = [n.lower() if facts.folds_case else n for n in given_names]
    assert len(set(folded)) == len(names)
    for name in given_names:
        assert 0 < size(name, facts) <= facts.identifier_limit
        assert not set(name) & set(facts.forbidden_in_names)
        assert not (facts.reserved_prefixes and name.startswith(facts.reserved_prefixes))
    again = Names(facts)
    assert [again.give(n) for n in names] == given_names


@given(FACTS, st.text("abcdefgh", min_size=1, max_size=19))
def test_a_good_name_is_kept(facts: Facts, name: str) -> None:
    assert Names(facts).give(name) == name


@given(FACTS, NAMES, NAMES)
def test_a_name_does_not_depend_on_what_does_not_collide(facts: Facts, name: str, other: str) -> None:
    alone, second = Names(facts).give(name), Names(facts)
    first_given = second.give(other)
    if (first_given.lower() if facts.folds_case else first_given) != (alone.lower() if facts.folds_case else alone):
        assert second.give(name) == alone


def test_long_names_keep_their_beginning() -> None:
    a, b = "x" * 70 + "1", "x" * 70 + "2"
    names = Names(facts())
    first, second = names.give(a), names.give(b)
    assert first != second
    assert first.startswith("x" * 54 + "_")
    assert len(first) == len(second) == 63


def test_octets_and_characters() -> None:
    assert Names(facts(identifier_limit=64, identifier_unit="characters")).give("ä" * 64) == "ä" * 64
    cut = Names(facts()).give("ä" * 32)
    assert len(cut.encode()) <= 63
    assert "\ufffd" not in cut
    emoji = Names(facts()).give("🧊" * 16)
    assert len(emoji.encode()) <= 63
    assert emoji.startswith("🧊" * 13)


def test_limits_to_the_octet() -> None:
    assert Names(facts()).give("x" * 63) == "x" * 63
    assert Names(facts()).give("x" * 64) != "x" * 64


def test_case_folding_keeps_them_apart() -> None:
    names = Names(facts(folds_case=True))
    first, second, third = names.give("Case"), names.give("case"), names.give("CASE")
    assert first == "Case"
    assert second.startswith("case_")
    assert third.startswith("CASE_")
    assert len({n.lower() for n in (first, second, third)}) == 3
    plain = Names(facts())
    assert [plain.give(n) for n in ("Case", "case")] == ["Case", "case"]


def test_the_same_name_twice_gets_two_names() -> None:
    names = Names(facts())
    assert len({names.give("index") for _ in range(5)}) == 5


@pytest.mark.parametrize(("name", "start"), [("", "t_"), ("\0", "_"), ("dblens_x", "t_dblens_x_"), ("a\0b", "a_b_")])
def test_what_the_target_forbids_is_renamed(name: str, start: str) -> None:
    given_name = Names(facts(reserved_prefixes=("dblens_", "system."))).give(name)
    assert given_name.startswith(start)
    assert "\0" not in given_name


def test_normal_forms_are_two_names() -> None:
    names = Names(facts())
    nfc, nfd = "é", unicodedata.normalize("NFD", "é")
    assert (names.give(nfc), names.give(nfd)) == (nfc, nfd)


def test_hostile_names_are_kept_where_they_fit() -> None:
    for name in ('a"b', "x'; drop table y;--", "%s", "{}", "new\nline", "select", "🧊"):
        assert Names(facts()).give(name) == name


def test_a_reserved_beginning_is_told_as_the_target_folds() -> None:
    folding = facts(folds_case=True, reserved_prefixes=("sqlite_",))
    exact = facts(folds_case=False, reserved_prefixes=("pg_",))
    assert Names(folding).give("SQLite_orders") != "SQLite_orders"
    assert Names(exact).give("PG_orders") == "PG_orders"
