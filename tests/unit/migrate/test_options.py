"""Rules and patterns: what they match, and that none is silently unused."""

from __future__ import annotations

import pytest

from dblens.errors import InvalidInput
from dblens.migrate.options import Options, Rule, RuleBook, matches, parse_rule, split_path
from dblens.transfer.mask import Mask, key_id


def book(*rules: Rule) -> RuleBook:
    return RuleBook(Options(rules=rules))


def test_patterns() -> None:
    assert matches("orders", "public", "orders")
    assert matches("public.orders", "public", "orders")
    assert matches("ord*", "public", "orders")
    assert matches("*.orders", "public", "orders")
    assert not matches("Orders", "public", "orders")
    assert not matches("other.orders", "public", "orders")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("orders:rename=bestellungen", Rule(match="orders", rename="bestellungen")),
        ("orders:filter=year > 2020 and x = 'a:b'", Rule(match="orders", filter="year > 2020 and x = 'a:b'")),
        ("orders:exclude", Rule(match="orders", exclude=True)),
        ("orders.id:type=numeric(20,0)", Rule(match="orders.id", type="numeric(20,0)")),
        ("orders.name:constant=", Rule(match="orders.name", constant="")),
        ("orders.name:expression=upper(name)", Rule(match="orders.name", expression="upper(name)")),
        ("*.email:mask=redact", Rule(match="*.email", mask=Mask("redact"))),
        ("*.email:mask=null", Rule(match="*.email", mask=Mask("null"))),
    ],
)
def test_rules_from_the_command_line(text: str, rule: Rule) -> None:
    assert parse_rule(text, None) == rule


def test_a_hash_remembers_which_key_but_not_the_key() -> None:
    rule = parse_rule("*.email:mask=hash", key_id(b"secret"))
    assert rule.mask == Mask("hash", key_id(b"secret"))
    with pytest.raises(InvalidInput, match="needs a key") as refused:
        parse_rule("*.email:mask=hash", None)
    assert "--mask-key-env" in str(refused.value.hint)


@pytest.mark.parametrize(
    "text",
    ["", "orders", ":rename=x", "orders:", "orders:fly=1", "orders:rename", "orders:mask=blur", "orders:exclude=1",
     "orders:type", "orders:match=x", "orders:mask"],
)  # fmt: skip
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_rule(text, "00000000")
    assert refused.value.hint


def test_table_rules_and_column_rules_are_kept_apart() -> None:
    rules = book(
        Rule(match="orders", rename="o"),
        Rule(match="public.orders", filter="true"),
        Rule(match="orders.id", rename="nr"),
        Rule(match="*.email", mask=Mask("null")),
    )
    assert [r.match for r in rules.for_table("public", "orders")] == ["orders", "public.orders"]
    assert [r.match for r in rules.for_column("public", "orders", "id")] == ["orders.id"]
    assert [r.match for r in rules.for_column("public", "orders", "email")] == ["*.email"]
    assert rules.for_column("public", "orders", "other") == []
    rules.check()


def test_three_parts_name_one_namespace() -> None:
    rules = book(Rule(match="a.t.c", rename="x"))
    assert rules.for_column("b", "t", "c") == []
    assert rules.for_column("a", "t", "c")


def test_a_table_rule_for_another_namespace_does_not_apply() -> None:
    rules = book(Rule(match="a.t", rename="x"))
    assert rules.for_table("b", "t") == []
    assert rules.for_table("a", "t")


def test_a_rule_that_matched_nothing_is_an_error() -> None:
    rules = book(Rule(match="orders", rename="o"), Rule(match="orders.nmae", rename="n"))
    rules.for_table("public", "orders")
    rules.for_column("public", "orders", "name")
    with pytest.raises(InvalidInput, match=r"orders\.nmae"):
        rules.check()


def test_a_column_action_on_a_table_is_no_table_rule() -> None:
    rules = book(Rule(match="orders", type="text"))
    assert rules.for_table("public", "orders") == []
    with pytest.raises(InvalidInput, match="orders"):
        rules.check()


def test_paths() -> None:
    assert split_path("a") == ("a",)
    assert split_path("a.b c.d") == ("a", "b c", "d")
    assert split_path(r"a\.b.c\.") == ("a.b", "c.")
    for text in ("", "a.", ".a", "a..b"):
        with pytest.raises(InvalidInput, match="not a path"):
            split_path(text)
