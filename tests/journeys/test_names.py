"""Hostile names in every position, over every ordered pair: round trip or renamed in the plan, and a canary table survives."""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import closing

import pytest
from pymongo import MongoClient

import dblens
from dblens.engines.base import Engine
from dblens.migrate.model import Plan
from dblens.migrate.options import Options
from dblens.schema.model import Table
from tests.faults.steady import open_link, run_sql
from tests.servers.fixtures import require

New = Callable[..., str]
KINDS = ["pg15", "mariadb", "sqlite", "mongo"]

NAMES = [
    'dou"ble',
    "it's",
    "back`tick",
    "back\\slash",
    "[bracket]",
    "new\nline",
    "tab\tulator",
    "🧊 ice",
    "ünï cödé",
    "select",
    "user",
    "semi;--",
    "/* comment */",
    "%s %d %%",
    "{} {0} {x}",
    "a:b ?1 $1 @v",
    "x" * 63,
    "y" * 64,
    "z" * 65,
    "é" * 31,
    "Case",
    "case",
    "robert'); drop table canary;--",
]
IN_TABLES = [
    'dou"ble',
    "it's",
    "back`tick",
    "new\nline",
    "🧊",
    "select",
    "semi;--",
    "%s {}",
    "x" * 63,
    "y" * 64,
    "Case",
    "case",
]
LIMITS = {"pg15": (63, True), "mariadb": (64, False), "sqlite": (10_000, False), "mongo": (110, True)}


def fits(kind: str, name: str) -> bool:
    """Whether an engine can hold the name at all."""
    limit, octets = LIMITS[kind]
    return (len(name.encode()) if octets else len(name)) <= limit


def unique(kind: str, names: list[str]) -> list[str]:
    """The names of one scope that can stand beside each other in this engine."""
    kept: dict[str, str] = {}
    for name in names:
        possible = not (kind == "mongo" and "$" in name) and not (kind == "mariadb" and max(name) > "\uffff")
        if fits(kind, name) and possible:
            kept.setdefault(name.lower() if kind in ("mariadb", "sqlite") else name, name)
    return list(kept.values())


def quoter(kind: str) -> Callable[[str], str]:
    """Quote by the engine's own rules, written here once more."""
    if kind == "mariadb":
        return lambda name: "`" + name.replace("`", "``") + "`"
    return lambda name: '"' + name.replace('"', '""') + '"'


def make(kind: str, url: str) -> int:
    """A wide table with every name as a column, and tables, keys, indexes, constraints of such names; return the tables."""
    columns, tables = unique(kind, NAMES), unique(kind, IN_TABLES)
    if kind == "mongo":
        client: MongoClient[dict[str, object]] = MongoClient(url)
        with closing(client):
            db = client.get_default_database()
            wide = [c for c in columns if "." not in c]
            db["wide"].insert_many({"_id": i, **{c: f"{c} {i}" for c in wide}} for i in range(5))
            for table in tables:
                db[table].insert_many({"_id": i, table.replace(".", "_"): i} for i in range(5))
        return len(tables) + 1
    q = quoter(kind)
    text = "varchar(120)" if kind == "mariadb" else "text"
    statements = [f"create table wide (id int primary key, {', '.join(f'{q(c)} {text}' for c in columns)})"]
    for i in range(5):
        values = ", ".join("'" + f"{n} {i}" + "'" for n in range(len(columns)))
        statements.append(f"insert into wide values ({i}, {values})")
    for n, table in enumerate(tables):
        parent = tables[n - 1] if n else None
        named = f"c{n}" + table[:40]
        body = [
            f"{q('id' + table[:20])} int primary key",
            f"{q('p' + table[:20])} int",
            f"code {'varchar(20)' if kind == 'mariadb' else 'text'}",
        ]
        body.append(f"constraint {q('u' + named)} unique (code)")
        if parent:
            body.append(
                f"constraint {q('f' + named)} foreign key ({q('p' + table[:20])}) references {q(parent)} ({q('id' + parent[:20])})"
            )
        statements.append(f"create table {q(table)} ({', '.join(body)})")
        statements.append(f"create index {q('i' + named)} on {q(table)} ({q('p' + table[:20])})")
        statements.append(f"insert into {q(table)} values " + ", ".join(f"({i}, {i}, 'c{i}')" for i in range(5)))
    if kind == "mariadb":
        statements = [s.replace("\\", "\\\\") if s.startswith("insert") else s for s in statements]
    run_sql(url, *statements)
    return len(tables) + 1


def canary(kind: str, url: str) -> None:
    if kind == "mongo":
        client: MongoClient[dict[str, object]] = MongoClient(url)
        with closing(client):
            client.get_default_database()["canary"].insert_one({"_id": 1, "sings": "yes"})
        return
    run_sql(url, "create table canary (id int primary key, sings varchar(10))", "insert into canary values (1, 'yes')")


def sings(kind: str, url: str) -> bool:
    if kind == "mongo":
        client: MongoClient[dict[str, object]] = MongoClient(url)
        with closing(client):
            return [d["sings"] for d in client.get_default_database()["canary"].find()] == ["yes"]
    return run_sql(url, "select id, sings from canary") == [(1, "yes")]


def said(plan: Plan) -> None:
    """Every name that is not kept stands in the plan; what is kept or given fits the target and is unique."""
    for table in plan.tables:
        transforms = "\n".join(table.transforms)
        if table.live[1] != table.source.name:
            assert repr(table.live[1]) in transforms
        for field in table.fields:
            if field.target and field.target.name != field.column.name:
                assert repr(field.target.name) in transforms, field.target.name
    assert len({t.live for t in plan.tables}) == len(plan.tables)


def shapes(table: Table) -> tuple[int, int, int]:
    return len(table.columns), len(table.foreign_keys), len(table.uniques)


@pytest.mark.parametrize("right", KINDS)
@pytest.mark.parametrize("left", KINDS)
def test_hostile_names(left: str, right: str, new_database: New) -> None:
    source, target = new_database(require(left)), new_database(require(right))
    count = make(left, source)
    canary(left, source)
    canary(right, target)
    a, b = open_link(source), open_link(target)
    ws = dblens.open()
    plan = ws.migrations.plan(a, b, Options(exclude=("canary",)))
    assert not plan.blocks, plan.blocks
    said(plan)
    outcome = ws.migrations.apply(plan, source=a, target=b, accept=["all"])
    assert outcome.equal
    assert len(outcome.verdicts) == count
    assert {v.target_rows for v in outcome.verdicts} == {5}
    assert sings(left, source)
    assert sings(right, target)
    with closing(b.connect(read_only=True)) as session:
        there = {(t.namespace, t.name): t for t in session.inspect().tables}
    for table in plan.tables:
        found = there[table.live]
        if right != "mongo":
            assert [c.name for c in found.columns] == [c.name for c in table.target.columns]
            assert shapes(found) == shapes(table.target), table.name
    assert ws.migrations.status(b)[0].state == "swapped"
    ws.migrations.rollback(b, plan.id)
    assert sings(right, target)
    with closing(b.connect(read_only=True)) as session:
        assert [t.name for t in session.inspect().tables] == ["canary"]


@pytest.mark.parametrize("right", ["pg15", "mariadb", "sqlite"])
def test_hostile_namespaces(right: str, new_database: New) -> None:
    """PostgreSQL's schemas: kept between servers that have them, a prefix of the name elsewhere."""
    source, target = new_database(require("pg15")), new_database(require(right))
    q = quoter("pg15")
    names = ['sch"ema', "new\nline", "semi;--", "%s {}", "x" * 63, "Case", "case", "🧊"]
    statements = []
    for name in names:
        statements += [
            f"create schema {q(name)}",
            f"create table {q(name)}.t (id int primary key, v text)",
            f"insert into {q(name)}.t values (1, 'one'), (2, null)",
        ]
    run_sql(source, *statements)
    canary("pg15", source)
    canary(right, target)
    a, b = open_link(source), open_link(target)
    ws = dblens.open()
    plan = ws.migrations.plan(a, b, Options(exclude=("public.canary",)))
    assert not plan.blocks, plan.blocks
    outcome = ws.migrations.apply(plan, source=a, target=b, accept=["all"])
    assert outcome.equal
    assert len(outcome.verdicts) == len(names)
    if right == "pg15":
        assert {t.live for t in plan.tables} == {(n, "t") for n in names}
    assert sings("pg15", source)
    assert sings(right, target)
    ws.migrations.rollback(b, plan.id)
    assert sings(right, target)


@pytest.mark.parametrize("name", ["postgresql", "mysql", "sqlite", "mongodb"])
def test_quoting_survives_every_ascii_character(name: str) -> None:
    from dblens import engines
    from dblens.errors import InvalidInput

    engine: Engine = engines.get(name)
    for character in string.printable:
        if character in engine.facts.forbidden_in_names:
            continue
        quoted = engine.ddl.quote(f"a{character}b")
        assert "a" in quoted
        assert quoted.count(quoted[0]) >= 2 or name == "mongodb"
    with pytest.raises(InvalidInput):
        engine.ddl.quote("a\0b")
