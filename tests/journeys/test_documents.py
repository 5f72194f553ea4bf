"""Arrays of documents as child tables, and child tables as arrays of documents: every element compared, then rolled back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import bson
import msgspec
import pytest
from bson import DatetimeMS, Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

import dblens
from dblens.errors import InvalidInput, Irreversible, LossNotAccepted, QueryFailed, StalePlan
from dblens.migrate import model
from dblens.migrate.copying import Copying
from dblens.migrate.evidence import make_manifest
from dblens.migrate.link import Link, link
from dblens.migrate.model import Plan
from dblens.migrate.options import Options, Rule
from dblens.redaction import Secret
from dblens.schema.stable import schema_hash
from dblens.transfer.mask import Mask, key_id
from dblens.workspace.migrations import Migrations
from tests.faults.steady import live_tables, open_link, run_sql
from tests.servers import Mongo, Postgres
from tests.servers.fixtures import require
from tests.surfaces.test_bad_input import run

New = Callable[..., str]
ITEMS: list[Any] = [
    {"sku": "a", "n": 1, "price": Decimal128("1.10"), "at": DatetimeMS(1_700_000_000_123), "tax": {"de": 0.19}},
    {"sku": "b", "n": 2, "price": Decimal128("2"), "a.b": "dotted", "parts": [{"x": 1}, {"x": 2}]},
    {"sku": None, "n": 3},
]
ORDERS: list[dict[str, Any]] = [
    {"_id": 1, "items": ITEMS, "tags": ["x", "y", "x"], "ship": {"legs": [{"to": "Rom"}, {"to": "Ulm"}]}},
    {"_id": 2},
    {"_id": 3, "items": None, "tags": None, "ship": None},
    {"_id": 4, "items": [], "tags": []},
    {"_id": 5, "items": "not a list", "ship": {"legs": 7}},
    {"_id": 6, "items": [{"n": 4}, 42, None, "text", ["in", "side"], {}], "tags": [None, "z"]},
]


def ws() -> Migrations:
    return dblens.open().migrations  # asked for each time: another test may have closed the house


def side(url: str) -> Link:
    return link(url, allow_password=True)


def driver(url: str) -> Any:
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    return client[url.partition("?")[0].rpartition("/")[2]]


def shop(url: str) -> str:
    driver(url).orders.insert_many(ORDERS)
    return url


def plan(source: str, target: str, **options: object) -> Plan:
    made = ws().plan(side(source), side(target), msgspec.convert(options, Options))
    assert not made.blocks, made.blocks
    return model.read(model.write(made))  # what a document of it says is what is applied


def schema_of(url: str) -> str:
    with closing(side(url).connect(read_only=True)) as session:
        return schema_hash(session.inspect())


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(side(url).connect()) as session:
        return session.execute(statement).rows


@pytest.fixture
def orders(mongo: Mongo, new_database: New) -> str:
    return shop(new_database(mongo))


def sql_target(kind: str, new_database: New, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'out.db'}" if kind == "sqlite" else new_database(require(kind))


# ---------------------------------------------------------------------------------------------------------------- child tables


@pytest.mark.parametrize("kind", ["pg15", "mariadb", "sqlite"])
def test_arrays_become_tables(kind: str, orders: str, new_database: New, tmp_path: Path) -> None:
    target = sql_target(kind, new_database, tmp_path)
    before = None if kind == "sqlite" else schema_of(target)
    made = plan(
        orders, target, children=("orders.items", "orders.tags", "orders.ship.legs"), create_target=kind == "sqlite"
    )
    outcome = ws().apply(made, source=side(orders), target=side(target), accept=["all"])
    assert outcome.equal
    counted = {v.table.partition(".")[2]: v.source_rows for v in outcome.verdicts}
    assert counted == {"orders": 6, "orders_items": 9, "orders_tags": 5, "orders_ship_legs": 2}
    assert {v.key for v in outcome.verdicts if "_" in v.table.partition(".")[2]} == {("parent_id", "idx")}
    found = rows(target, "select parent_id, idx, sku, n from orders_items order by parent_id, idx")
    assert found == [
        (1, 0, "a", 1), (1, 1, "b", 2), (1, 2, None, 3),
        (6, 0, None, 4), (6, 1, None, None), (6, 2, None, None), (6, 3, None, None), (6, 4, None, None), (6, 5, None, None),
    ]  # fmt: skip
    prices = rows(target, "select price from orders_items where price is not null order by idx")
    assert [Decimal(str(p)) for (p,) in prices] == [Decimal("1.1"), Decimal(2)]
    assert rows(target, "select parent_id, idx, value from orders_tags order by parent_id, idx") == [
        (1, 0, "x"), (1, 1, "y"), (1, 2, "x"), (6, 0, None), (6, 1, "z"),
    ]  # fmt: skip
    documents = [d for (d,) in rows(target, "select doc from orders_items where parent_id = 6 order by idx")]
    assert [d is None for d in documents] == [False, False, True, False, False, False]
    said = "\n".join(t for p in made.tables for t in p.transforms)
    assert (
        "3 documents have no array there (1 missing, 1 null, 1 string) and give no rows; orders.doc keeps the whole"
        in said
    )
    run = ws().rollback(side(target), made.id)
    assert run == made.id
    assert kind == "sqlite" or schema_of(target) == before


def test_children_follow_the_filter_of_their_documents_and_rules(
    orders: str, pg15: Postgres, new_database: New
) -> None:
    target = new_database(pg15)
    rules = (
        Rule(match="orders", filter='{"_id": {"$lt": 6}}'),
        Rule(match="orders_items", rename="lines"),
        Rule(match="orders_items.sku", rename="article"),
        Rule(match="orders.doc", exclude=True),
    )
    made = plan(orders, target, children=("orders.items",), rules=rules)
    assert {t.source.name: t.rows for t in made.tables} == {"orders": 5, "orders_items": 3}
    assert "what is no element stays behind" in "".join(t for p in made.tables for t in p.transforms)
    assert ws().apply(made, source=side(orders), target=side(target), accept=["all"]).equal
    assert rows(target, "select article from lines order by idx") == [("a",), ("b",), (None,)]
    # The foreign key is there: an element without its document is refused.
    with pytest.raises(QueryFailed, match="foreign key"):
        rows(target, "update lines set parent_id = 99 where idx = 0")


@pytest.mark.parametrize(
    ("children", "says"),
    [
        (("orders.item",), "no document of 'orders' has an array at 'item'"),
        (("order.items",), "no collection of the migration has an array 'order.items'"),
        (("orders.items.parts",), "leads through the array 'items'"),
        (("orders.ship",), "no document of 'orders' has an array at 'ship'"),
        (("orders.",), "not a path"),
    ],
)
def test_a_path_without_an_array(children: tuple[str, ...], says: str, orders: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        plan(orders, f"sqlite:///{tmp_path / 'x.db'}", children=children, create_target=True)
    assert raised.value.hint
    assert not (tmp_path / "x.db").exists()


def test_dotted_keys_and_taken_names(mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source = new_database(mongo)
    raw = RawBSONDocument(
        bson.encode({"_id": "k", "a.b": [{"parent_id": 1, "idx": "mine", "doc": True, "value": 2.5}]})
    )
    driver(source)["odd.name"].insert_one(raw)
    driver(source)["odd.name_a.b"].insert_one({"_id": 1})
    target = f"sqlite:///{tmp_path / 'x.db'}"
    made = plan(source, target, children=("odd.name.a\\.b",), create_target=True)
    assert ws().apply(made, source=side(source), target=side(target), accept=["all"]).equal
    child = next(t for t in made.tables if t.source.name == "odd.name_a.b_")
    assert [c.name for c in child.source.columns] == [
        "parent_id", "idx", "parent_id_", "idx_", "doc", "value", "doc_",
    ]  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "x.db")) as file:
        assert file.execute('select parent_id, idx, parent_id_, idx_, value from "odd.name_a.b_"').fetchall() == [
            ("k", 0, 1, "mine", 2.5)
        ]


def test_one_changed_element_is_named(orders: str, pg15: Postgres, new_database: New) -> None:
    target = new_database(pg15)
    made = plan(orders, target, children=("orders.items",))
    ws().apply(made, source=side(orders), target=side(target), accept=["all"])
    assert ws().verify_plan(made, source=side(orders), target=side(target)).equal
    rows(target, "update orders_items set n = 77 where parent_id = 1 and idx = 1")
    found = ws().verify_plan(made, source=side(orders), target=side(target))
    wrong = [v for v in found.verdicts if not v.equal]
    assert [v.table.partition(".")[2] for v in wrong] == ["orders_items"]
    (difference,) = wrong[0].differences
    assert (difference.kind, difference.key) == ("changed", ("1", "1"))
    assert [(c.column, c.source, c.target) for c in difference.columns] == [("n", "2", "77")]
    # The source is read as it is now: an element pushed since is missing in the target.
    driver(orders).orders.update_one({"_id": 4}, {"$push": {"items": {"n": 9}}})
    missing = {
        d.key
        for v in ws().verify_plan(made, source=side(orders), target=side(target)).verdicts
        for d in v.differences
        if d.kind == "missing"
    }
    assert missing == {("4", "0")}


def test_many_elements_chunk_by_chunk(mongo: Mongo, pg15: Postgres, new_database: New) -> None:
    source, target = new_database(mongo), new_database(pg15)
    driver(source).c.insert_many([{"_id": i, "v": [j * i for j in range(i % 50)]} for i in range(1, 400)])
    driver(source).c.insert_one({"_id": 1000, "v": list(range(5000))})
    made = plan(source, target, children=("c.v",), mode="ledger", chunk_rows=150)
    outcome = ws().apply(made, source=side(source), target=side(target), accept=["all"])
    assert outcome.equal
    assert rows(target, "select count(*), count(distinct parent_id), max(idx) from c_v") == [
        (sum(i % 50 for i in range(400)) + 5000, sum(1 for i in range(400) if i % 50) + 1, 4999)
    ]


# ------------------------------------------------------------------------------------------------------------------- embedding

TABLES = (
    "create table orders (id integer primary key, who varchar(20) not null)",
    "create table order_items (id integer primary key, order_id integer, sku varchar(20), price numeric(9,2))",
    "create table audit (id integer primary key, note varchar(20))",
)
DATA = (
    "insert into orders values (1, 'ada'), (2, 'bob'), (3, 'nobody')",
    "insert into order_items values (30, 1, 'third', 3.50), (7, 1, 'first', 1.10), (12, 1, 'second', null), (8, 2, 'only', 9)",
    "insert into audit values (1, 'x')",
)
KEY = "alter table order_items add constraint of_order foreign key (order_id) references orders (id)"


def sql_shop(kind: str, new_database: New, tmp_path: Path) -> str:
    if kind == "sqlite":
        url, tables = f"sqlite:///{tmp_path / 'shop.db'}", list(TABLES)
        tables[1] = tables[1].replace("order_id integer", "order_id integer references orders (id)")
    else:
        url, tables = new_database(require(kind)), [*TABLES, KEY]
    with closing(side(url).connect(create=kind == "sqlite")) as session:
        for statement in (*tables, *DATA):
            session.execute(statement)
    return url


def elements(target: str, key: Any = 1) -> list[dict[str, Any]]:
    found = driver(target).orders.find_one({"_id": key})["order_items"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("kind", ["pg15", "mariadb", "sqlite"])
def test_rows_become_elements(kind: str, mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop(kind, new_database, tmp_path), new_database(mongo)
    driver(target).kept.insert_one({"_id": 1})
    before = schema_of(target)
    made = plan(source, target, embed=("order_items",))
    child = next(t for t in made.tables if t.embedding)
    assert child.shown.endswith(".orders.order_items[]")
    assert not any("order_items" in statement for statement in (*made.build.before, *made.build.after, *made.swap))
    outcome = ws().apply(made, source=side(source), target=side(target), accept=["all"])
    assert outcome.equal
    assert {v.table.partition(".")[2]: v.target_rows for v in outcome.verdicts} == {
        "orders": 3,
        "order_items": 4,
        "audit": 1,
    }
    assert set(driver(target).list_collection_names()) >= {"orders", "audit", "kept"}
    assert "order_items" not in driver(target).list_collection_names()
    assert [(e["id"], e["sku"]) for e in elements(target)] == [(7, "first"), (12, "second"), (30, "third")]
    assert elements(target)[1]["price"] is None
    assert elements(target)[0]["price"].to_decimal() == Decimal128("1.10").to_decimal()
    assert "order_id" not in elements(target)[0]
    assert elements(target, 3) == []
    # One element that moved to another document, and one that changed, are both named.
    driver(target).orders.update_one({"_id": 1}, {"$set": {"order_items.2.sku": "other"}})
    (only,) = elements(target, 2)
    driver(target).orders.update_one({"_id": 2}, {"$set": {"order_items": []}})
    driver(target).orders.update_one({"_id": 3}, {"$set": {"order_items": [only]}})
    found = ws().verify_plan(made, source=side(source), target=side(target))
    (wrong,) = [v for v in found.verdicts if not v.equal]
    assert wrong.table.endswith(".order_items")
    assert {(d.kind, d.key, d.columns[0].column) for d in wrong.differences} == {
        ("changed", ("8",), "order_id"),
        ("changed", ("30",), "sku"),
    }
    with pytest.raises(Irreversible, match="written after the swap"):
        ws().rollback(side(target), made.id)
    ws().rollback(side(target), made.id, discard_changes=True)
    assert schema_of(target) == before
    assert driver(target).list_collection_names() == ["kept"]


def test_orphans_are_a_loss_to_accept(mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as file:
        file.execute("insert into order_items values (90, null, 'null', 0), (91, 404, 'dangling', 0)")
        file.commit()
    made = plan(source, target, embed=("order_items:orders",))
    (loss,) = [x for x in made.losses if x.kind == "orphans"]
    assert (loss.id, loss.count, loss.repair) == ("main.order_items.order_id:orphans", 2, "drop")
    assert set(loss.samples) == {("90",), ("91",)}
    with pytest.raises(LossNotAccepted):
        ws().apply(made, source=side(source), target=side(target))
    assert driver(target).list_collection_names() == []
    outcome = ws().apply(made, source=side(source), target=side(target), accept=[loss.id])
    assert outcome.equal
    assert {v.table: v.source_rows for v in outcome.verdicts}["main.order_items"] == 4
    assert sum(len(elements(target, k)) for k in (1, 2, 3)) == 4
    proof = make_manifest(made, outcome)
    assert proof.losses == ("main.order_items.order_id:orphans: 2 (drop)",)
    assert {t.table: t.rows for t in proof.tables}["main.order_items"] == 4


def test_rows_of_documents_that_stay_behind(mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    rules = (Rule(match="orders", filter="id <> 2"), Rule(match="order_items", filter="id < 30"))
    made = plan(source, target, embed=("order_items",), rules=rules)
    assert [(x.count, x.samples) for x in made.losses if x.kind == "orphans"] == [(1, (("8",),))]
    assert ws().apply(made, source=side(source), target=side(target), accept=["all"]).equal
    assert [e["id"] for e in elements(target)] == [7, 12]
    assert driver(target).orders.find_one({"_id": 2}) is None


def test_masked_keys_still_find_their_documents(mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    key = b"a key that is long enough to be one"
    mask = Mask(kind="hash", key_id=key_id(key))
    made = plan(
        source,
        target,
        embed=("order_items",),
        rules=tuple(
            msgspec.to_builtins(Rule(match=match, mask=mask)) for match in ("orders.id", "order_items.order_id")
        ),
    )
    assert (
        ws().apply(made, source=side(source), target=side(target), accept=["all"], mask_key=Secret(key.decode())).equal
    )
    found = {d["who"]: [e["id"] for e in d["order_items"]] for d in driver(target).orders.find()}
    assert found == {"ada": [7, 12, 30], "bob": [8], "nobody": []}
    assert 1 not in driver(target).orders.distinct("_id")
    assert ws().verify_plan(made, source=side(source), target=side(target), mask_key=Secret(key.decode())).equal
    with pytest.raises(InvalidInput, match="key"):
        ws().verify_plan(made, source=side(source), target=side(target))


def test_only_the_schema(mongo: Mongo, orders: str, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    made = plan(source, target, embed=("order_items",), content="schema")
    ws().apply(made, source=side(source), target=side(target), accept=["all"])
    assert set(driver(target).list_collection_names()) >= {"orders", "audit"}
    assert driver(target).orders.count_documents({}) == 0
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    made = plan(orders, empty, children=("orders.items",), content="schema", create_target=True)
    ws().apply(made, source=side(orders), target=side(empty), accept=["all"])
    assert rows(empty, "select count(*) from orders_items") == [(0,)]


@pytest.mark.parametrize("mode", ["strict", "relaxed"])
def test_embedding_stopped_and_resumed(
    mode: Any, mongo: Mongo, new_database: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    made = plan(source, target, embed=("order_items",))
    embed = Copying._embed

    def half(self: Copying) -> None:
        embed(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Copying, "_embed", half)
    with pytest.raises(KeyboardInterrupt):
        ws().apply(made, source=side(source), target=side(target), accept=["all"])
    monkeypatch.undo()
    assert "orders" not in driver(target).list_collection_names()
    with closing(sqlite3.connect(tmp_path / "shop.db")) as file:
        file.execute("update orders set who = 'eve' where id = 1")
        file.execute("delete from order_items where order_id = 2")
        file.execute("insert into order_items values (1, 3, 'new', 5)")
        file.commit()
    outcome = ws().resume(side(source), side(target), made.id, mode=mode)
    assert outcome.equal
    assert [e["id"] for e in elements(target, 3)] == [1]
    assert elements(target, 2) == []
    assert len(elements(target, 1)) == 3
    assert driver(target).orders.find_one({"_id": 1})["who"] == "eve"
    ws().rollback(side(target), made.id)
    assert driver(target).list_collection_names() == []


def test_embedding_replaces_and_comes_back(mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    driver(target).orders.insert_one({"_id": "old"})
    made = plan(
        source, target, embed=("order_items",), existing="replace", rules=(Rule(match="order_items", rename="lines"),)
    )
    assert ws().apply(made, source=side(source), target=side(target), accept=["all"]).equal
    assert len(driver(target).orders.find_one({"_id": 1})["lines"]) == 3
    ws().rollback(side(target), made.id)
    assert list(driver(target).orders.find()) == [{"_id": "old"}]
    assert driver(target).list_collection_names() == ["orders"]


def test_composite_keys_and_two_arrays_of_one_parent(pg15: Postgres, mongo: Mongo, new_database: New) -> None:
    source, target = new_database(pg15), new_database(mongo)
    for statement in (
        "create table p (b bigint, name text, a text, primary key (a, b))",
        "create table c1 (n int primary key, pb int, pa varchar(9), foreign key (pa, pb) references p (a, b))",
        "create table c2 (pa text not null, pb bigint not null, pos int, primary key (pa, pb, pos), foreign key (pa, pb) references p)",
        "insert into p values (1, 'x', 'k'), (2, 'y', 'k'), (1, 'z', 'l')",
        "insert into c1 values (5, 2, 'k'), (4, 2, 'k'), (3, 1, 'l'), (2, null, 'l')",
        "insert into c2 select a, b, g from p, generate_series(1, 1200) g",
    ):
        rows(source, statement)
    made = plan(source, target, embed=("c1", "c2"), jobs=2)
    assert [(x.count, x.samples) for x in made.losses if x.kind == "orphans"] == [(1, (("2",),))]
    outcome = ws().apply(made, source=side(source), target=side(target), accept=["all"])
    assert outcome.equal
    assert {v.table: v.target_rows for v in outcome.verdicts} == {"public.p": 3, "public.c1": 3, "public.c2": 3600}
    document = driver(target).p.find_one({"name": "y"})
    assert document["_id"] == {"b": Int64(2), "a": "k"}
    assert document["c1"] == [{"n": 4}, {"n": 5}]
    assert [e["pos"] for e in document["c2"]] == list(range(1, 1201))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"embed": ("nothing",)}, "no tables of the migration are called 'nothing'"),
        ({"embed": ("audit",)}, "has no foreign keys to a table of the migration"),
        ({"embed": ("order_items:audit",)}, "has no foreign keys to 'audit'"),
        ({"embed": ("order_items", "order_items:orders")}, "embedded twice"),
        ({"embed": ("order_items",), "existing": "append"}, "collections that are there already"),
        ({"embed": ("order_items",), "rules": (Rule(match="order_items", rename="who"),)}, "cannot be called 'who'"),
        ({"embed": ("order_items",), "rules": (Rule(match="order_items", rename="a.b"),)}, "cannot be called 'a.b'"),
        (
            {"embed": ("order_items",), "rules": (Rule(match="order_items.order_id", exclude=True),)},
            "have to come along",
        ),
        (
            {"embed": ("order_items",), "rules": (Rule(match="order_items.order_id", constant="1"),)},
            "have to come along",
        ),
        (
            {"embed": ("order_items",), "rules": (Rule(match="order_items.order_id", mask=Mask(kind="redact")),)},
            "would hold different values",
        ),
        ({"children": ("orders.items",)}, "cannot become a child table"),
    ],
)
def test_what_cannot_be_embedded(
    options: dict[str, Any], says: str, mongo: Mongo, new_database: New, tmp_path: Path
) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    with pytest.raises(InvalidInput, match=says) as raised:
        plan(source, target, **{k: msgspec.to_builtins(v) for k, v in options.items()})
    assert raised.value.hint
    assert driver(target).list_collection_names() == []


def test_embedding_needs_documents(new_database: New, tmp_path: Path) -> None:
    source = sql_shop("sqlite", new_database, tmp_path)
    with pytest.raises(InvalidInput, match="no documents to embed"):
        plan(source, f"sqlite:///{tmp_path / 'y.db'}", embed=("order_items",), create_target=True)


def test_a_document_beyond_16_mib_names_its_parent(mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as file:
        file.executemany("insert into order_items values (?, 2, ?, 1)", ((100 + i, "x" * 1_000_000) for i in range(17)))
        file.commit()
    made = plan(source, target, embed=("order_items",))
    with pytest.raises(
        QueryFailed, match=r'document {"\$numberLong":"2"} would outgrow the 16777216 octets.*order_items'
    ) as raised:
        ws().apply(made, source=side(source), target=side(target), accept=["all"])
    assert "collection of its own" in (raised.value.hint or "")
    assert "orders" not in driver(target).list_collection_names()
    ws().rollback(side(target), made.id)
    assert driver(target).list_collection_names() == []


def test_on_the_command_line(orders: str, mongo: Mongo, new_database: New, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    target = f"sqlite:///{tmp_path / 'out.db'}"
    asked = ("migrate", "plan", orders, target, "--child-table", "orders.items", "--child-table", "orders.tags")
    done = run(*asked, "--create-target", "--json")
    assert done.returncode == 0, done.stderr
    file.write_text(done.stdout)
    done = run("migrate", "apply", str(file), "--accept", "all")
    assert done.returncode == 0, done.stderr
    assert "every row equal" in done.stdout
    assert run("migrate", "verify", str(file)).returncode == 0
    rows(target, "delete from orders_tags where parent_id = 6 and idx = 1")
    done = run("migrate", "verify", str(file), "--json")
    assert done.returncode == 8
    wrong = [v for v in json.loads(done.stdout)["verdicts"] if not v["equal"]]
    assert [(v["table"].partition(".")[2], v["differences"][0]["kind"], v["differences"][0]["key"]) for v in wrong] == [
        ("orders_tags", "missing", ["6", "1"])
    ]
    there = new_database(mongo)
    source = sql_shop("sqlite", new_database, tmp_path)
    done = run("migrate", "plan", source, there, "--embed", "order_items")
    assert done.returncode == 0
    assert "orders.order_items[]" in "".join(done.stdout.split())
    assert "embedded as the array 'order_items' of orders" in " ".join(done.stdout.split())
    done = run("migrate", "plan", source, there, "--embed", "nothing")
    assert done.returncode == 2
    assert "hint" in done.stderr


def test_the_plan_covers_both(orders: str, new_database: New, mongo: Mongo, tmp_path: Path) -> None:
    made = plan(orders, f"sqlite:///{tmp_path / 'x.db'}", children=("orders.items",), create_target=True)
    other = msgspec.structs.replace(made, options=msgspec.structs.replace(made.options, children=()))
    assert model.plan_hash(other) != made.hash
    source, target = sql_shop("sqlite", new_database, tmp_path), new_database(mongo)
    embedded = plan(source, target, embed=("order_items",))
    apart = [msgspec.structs.replace(t, embedding=None) for t in embedded.tables]
    assert model.plan_hash(msgspec.structs.replace(embedded, tables=tuple(apart))) != embedded.hash


def test_orphans_that_came_later_are_not_dropped_silently(mongo: Mongo, new_database: New) -> None:
    """Rows that lost their parent since the plan were counted by nobody, so nobody accepted to lose them."""
    source, target = new_database(require("sqlite")), new_database(mongo)
    run_sql(
        source,
        "create table orders (id integer primary key, who text)",
        "create table order_items (id integer primary key, order_id integer references orders (id), sku text)",
        "insert into orders values (1, 'a'), (2, 'b')",
        "insert into order_items values (10, 1, 'x'), (11, 2, 'y'), (12, 7, 'lost')",
    )
    a, b = open_link(source), open_link(target)
    ws = dblens.open()
    made = ws.migrations.plan(a, b, Options(embed=("order_items",)))
    assert [(x.kind, x.repair, x.count) for x in made.losses] == [("orphans", "drop", 1)]
    run_sql(source, "insert into order_items values (13, 8, 'later')")
    with pytest.raises(StalePlan, match="1 were accepted, now 2"):
        ws.migrations.apply(made, source=a, target=b, accept=["all"])
    assert live_tables(target) == set()
    run_sql(source, "delete from order_items where id = 13")
    assert ws.migrations.apply(made, source=a, target=b, accept=["all"]).equal
