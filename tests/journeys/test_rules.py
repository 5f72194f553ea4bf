"""Rules through a whole migration: types, names, filters, expressions, constants and masks; masks keep joins."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest

import dblens
from dblens.errors import InvalidInput
from dblens.migrate.apply import Outcome
from dblens.migrate.model import Plan
from dblens.migrate.options import Options, Rule, parse_rule
from dblens.redaction import Secret
from dblens.transfer.mask import key_id
from tests.faults.steady import live_tables, open_link, run_sql
from tests.servers.fixtures import require

New = Callable[..., str]
KEY = b"the masking key of this test"
PAIRS = [
    ("pg15", "mariadb"),
    ("mariadb", "pg15"),
    ("sqlite", "pg15"),
    ("pg15", "sqlite"),
    ("pg15", "pg15"),
    ("mariadb", "mariadb"),
    ("sqlite", "sqlite"),
]
pairs = pytest.mark.parametrize(("left", "right"), PAIRS)


@pytest.fixture
def databases(left: str, right: str, new_database: New) -> tuple[str, str]:
    source, target = new_database(require(left)), new_database(require(right))
    text = "varchar(80)" if left == "mariadb" else "text"
    stamp = {"pg15": "timestamp", "mariadb": "datetime(6)", "sqlite": "text"}[left]
    run_sql(
        source,
        f"""create table customer (id int primary key, email {text} not null, name {text}, card {text}, credit decimal(10,2),
            born date, seen {stamp})""",
        f"create table orders (id int primary key, customer_id int references customer (id), email {text}, note {text}, year int)",
        """insert into customer values (1, 'ann@example.org', 'Ann', '4111111111111111', 1.50, '1990-01-01', '2026-01-01 10:11:12.5'),
            (2, 'bob@example.org', 'Bób', null, 0.10, null, null), (3, 'cy@example.org', '', '42', null, '2000-02-29', '1999-12-31 23:59:59')""",
        """insert into orders values (10, 1, 'ann@example.org', 'a', 2020), (11, 1, 'ann@example.org', null, 2021),
            (12, 2, 'bob@example.org', 'c', 2022), (13, 3, 'cy@example.org', '', 2023)""",
    )
    return source, target


def go(source: str, target: str, *rules: Rule | str, key: bytes | None = None) -> tuple[Plan, Outcome]:
    parsed = tuple(r if isinstance(r, Rule) else parse_rule(r, key_id(key) if key else None) for r in rules)
    ws = dblens.open()
    a, b = open_link(source), open_link(target)
    plan = ws.migrations.plan(a, b, Options(rules=parsed))
    assert not plan.blocks, plan.blocks
    outcome = ws.migrations.apply(
        plan, source=a, target=b, accept=["all"], mask_key=Secret(key.decode()) if key else None
    )
    assert outcome.equal
    return plan, outcome


Two = tuple[str, str]


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(str(v) if v is not None else None for v in row) for row in run_sql(url, statement)]


@pairs
def test_names_filters_and_exclusions(databases: Two, left: str, right: str) -> None:
    source, target = databases
    plan, outcome = go(
        source,
        target,
        "customer:rename=kunde",
        "customer.email:rename=anschrift",
        "orders:filter=year > 2020",
        "orders.note:exclude",
        "customer.card:exclude",
    )
    assert live_tables(target) == {"kunde", "orders"}
    assert rows(target, "select id, anschrift from kunde order by id")[0] == ("1", "ann@example.org")
    assert rows(target, "select id from orders order by id") == [("11",), ("12",), ("13",)]
    assert {v.table.rpartition(".")[2]: v.source_rows for v in outcome.verdicts} == {"customer": 3, "orders": 3}
    (key,) = next(t for t in plan.tables if t.live[1] == "orders").target.foreign_keys
    assert key.table == "kunde"
    assert {e.name.rpartition(".")[2] for e in plan.exclusions if e.kind == "column"} == {"note", "card"}
    with pytest.raises(Exception, match=r"(?i)foreign|constraint"):
        run_sql(
            target,
            *(["pragma foreign_keys = on"] if right == "sqlite" else []),
            "insert into orders values (99, 77, 'x', 2020)",
        )


@pairs
def test_expressions_constants_and_types(databases: Two, left: str, right: str) -> None:
    source, target = databases
    joined = "concat(name, ' <', email, '>')" if left == "mariadb" else "name || ' <' || email || '>'"
    whole = {"pg15": "bigint", "mariadb": "bigint", "sqlite": "INTEGER"}[right]
    go(
        source,
        target,
        f"customer.name:expression={joined}",
        "customer.card:constant=none of your business; it's %s",
        "orders.note:constant=",
        f"orders.year:type={whole}",
    )
    assert rows(target, "select name, card from customer order by id") == [
        ("Ann <ann@example.org>", "none of your business; it's %s"),
        ("Bób <bob@example.org>", "none of your business; it's %s"),
        (" <cy@example.org>", "none of your business; it's %s"),
    ]
    assert rows(target, "select distinct note from orders") == [("",)]
    assert rows(target, "select year from orders order by id") == [("2020",), ("2021",), ("2022",), ("2023",)]


@pairs
def test_masks_are_consistent_so_that_joins_still_work(databases: Two, left: str, right: str) -> None:
    source, target = databases
    go(
        source,
        target,
        "*.email:mask=hash",
        "customer.name:mask=redact",
        "customer.card:mask=partial",
        "customer.born:mask=null",
        key=KEY,
    )
    expected = hmac.new(KEY, b"ann@example.org", hashlib.sha256).hexdigest()[:32]
    assert rows(target, "select email, name, card, born from customer order by id") == [
        (expected, "REDACTED", "4" + "*" * 14 + "1", None),
        (hmac.new(KEY, b"bob@example.org", hashlib.sha256).hexdigest()[:32], "REDACTED", None, None),
        (hmac.new(KEY, b"cy@example.org", hashlib.sha256).hexdigest()[:32], "REDACTED", "**", None),
    ]
    join = "select c.id, count(*) from customer c join orders o on o.email = c.email group by c.id order by c.id"
    assert rows(target, join) == rows(source, join) == [("1", "2"), ("2", "1"), ("3", "1")]
    everything = str(rows(target, "select * from customer")) + str(rows(target, "select * from orders"))
    assert "example.org" not in everything
    assert "Ann" not in everything


@pairs
def test_masks_of_numbers_dates_and_keys(databases: Two, left: str, right: str) -> None:
    """The key that other tables refer to is masked on both sides of the reference; dates and decimals become text."""
    source, target = databases
    go(
        source,
        target,
        "customer.id:mask=hash",
        "orders.customer_id:mask=hash",
        "customer.credit:mask=hash",
        "customer.born:mask=partial",
        "customer.seen:mask=hash",
        key=KEY,
    )
    join = "select o.id, c.email from orders o join customer c on c.id = o.customer_id order by o.id"
    assert rows(target, join) == rows(source, join)
    ids = {int(r[0] or 0) for r in rows(target, "select id from customer")}
    assert len(ids) == 3
    assert not ids & {1, 2, 3}
    (credit, born, seen) = rows(target, "select credit, born, seen from customer where email = 'ann@example.org'")[0]
    assert credit == hmac.new(KEY, b"1.5", hashlib.sha256).hexdigest()[:32]
    assert born == "1" + "*" * 8 + "1"
    assert seen == hmac.new(KEY, b"2026-01-01 10:11:12.5", hashlib.sha256).hexdigest()[:32]


@pytest.mark.parametrize(("left", "right"), PAIRS[:1])
def test_the_key_is_asked_for_again_and_never_kept(databases: Two, left: str, right: str) -> None:
    source, target = databases
    ws = dblens.open()
    a, b = open_link(source), open_link(target)
    plan = ws.migrations.plan(a, b, Options(rules=(parse_rule("*.email:mask=hash", key_id(KEY)),)))
    from dblens.migrate import model

    assert KEY.decode() not in model.write(plan)
    for key in (None, b"another"):
        with pytest.raises(InvalidInput, match="mask key"):
            ws.migrations.apply(
                plan, source=a, target=b, accept=["all"], mask_key=Secret(key.decode()) if key else None
            )
        assert ws.migrations.status(b) == []
    assert ws.migrations.apply(plan, source=a, target=b, accept=["all"], mask_key=Secret(KEY.decode())).equal


@pytest.mark.parametrize(("left", "right"), PAIRS[1:2])
@pytest.mark.parametrize(
    "rule", ["customer.emial:mask=redact", "order:rename=x", "nothing.*:exclude", "customer.id.x:type=int"]
)
def test_a_rule_that_matches_nothing_is_an_error(databases: Two, rule: str, left: str, right: str) -> None:
    source, target = databases
    with pytest.raises(InvalidInput, match="matches no table or column"):
        go(source, target, rule)
