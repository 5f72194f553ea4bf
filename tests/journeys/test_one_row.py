"""One row among many: changed, missing, extra, duplicated, one flipped bit; found, key and column named, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import dblens
from dblens.migrate.compare import Comparison
from dblens.transfer.verify import TableVerdict
from tests.faults.steady import apply, open_link, plan, run_sql
from tests.servers import SQLite
from tests.servers.fixtures import require

New = Callable[..., str]
PAIRS = [("sqlite", "pg15"), ("pg15", "mariadb")]
FILL = {
    "sqlite": """insert into wide with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
        select i, 'name ' || i, i * 7919 % 1000003, i / 7.0, printf('%d.%02d', i % 1000, i % 100), cast(zeroblob(4) || i as blob),
        case when i % 3 then 'note ' || (i % 50) end from n""",
    "pg15": """insert into wide select i, 'name ' || i, (i::bigint * 7919) % 1000003, i / 7.0::float8, (i % 1000) + (i % 100) / 100.0,
        decode('00000000', 'hex') || convert_to(i::text, 'UTF8'), case when i % 3 > 0 then 'note ' || (i % 50) end
        from generate_series(1, {rows}) i""",
}  # fmt: skip
LOOSE = {
    "sqlite": """insert into loose with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
        select i % 1000, 'v' || (i % 333) from n""",
    "pg15": "insert into loose select i % 1000, 'v' || (i % 333) from generate_series(1, {rows}) i",
}


def build(left: str, right: str, rows: int) -> tuple[str, str]:
    source, target = require(left).create_database(), require(right).create_database()
    blob = "blob" if left == "sqlite" else "bytea"
    run_sql(
        source,
        f"create table wide (id integer primary key, name text, n bigint, f double precision, price decimal(10,2), raw {blob}, note text)",
        "create table loose (k integer, v text)",
        FILL[left].replace("{rows}", str(rows)),
        LOOSE[left].replace("{rows}", str(rows)),
    )
    made = plan(source, target)
    assert made.losses == ()
    outcome = apply(made, source, target)
    assert outcome.equal
    assert outcome.rows == 2 * rows
    return source, target


@pytest.fixture(scope="module", params=PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def moved(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, str]]:
    left, right = request.param
    source, target = build(left, right, 100_000)
    yield right, source, target
    for kind, url in ((left, source), (right, target)):
        server = require(kind)
        name = url.partition("?")[0].rpartition("/")[2]
        server.drop_database(name.removesuffix(".sqlite") if isinstance(server, SQLite) else name)


Moved = tuple[str, str, str]


def verify(source: str, target: str) -> Comparison:
    return dblens.open().migrations.verify(open_link(source), open_link(target))


def one(comparison: Comparison, table: str) -> TableVerdict:
    """The verdict of the one table that differs; the other one is equal."""
    assert not comparison.equal
    wrong = [v for v in comparison.verdicts if not v.equal]
    assert [v.table.rpartition(".")[2] for v in wrong] == [table]
    assert wrong[0].complete
    return wrong[0]


def octets(right: str, text: str) -> str:
    return f"'\\x{text}'" if right.startswith("pg") else f"x'{text}'"


CHANGES = {
    "text": ("name", "name = 'name 77778'"),
    "case of a letter": ("name", "name = 'Name 77777'"),
    "trailing space": ("name", "name = 'name 77777 '"),
    "to null": ("n", "n = null"),
    "number by one": ("n", "n = n + 1"),
    "last bit of a float": ("f", "f = 11111.000000000002"),
    "one cent": ("price", "price = price + 0.01"),
    "from null": ("note", "note = ''"),
}


def judge_change(right: str, source: str, target: str, column: str, change: str, key: int) -> None:
    restore = run_sql(target, f"select {column} from wide where id = {key}")[0][0]
    run_sql(target, f"update wide set {change} where id = {key}")
    verdict = one(verify(source, target), "wide")
    (found,) = verdict.differences
    assert (found.kind, found.key, verdict.differing) == ("changed", (str(key),), 1)
    assert [c.column for c in found.columns] == [column]
    assert found.columns[0].source != found.columns[0].target
    if isinstance(restore, bytes):
        literal = octets(right, restore.hex())
    else:
        literal = "null" if restore is None else repr(restore) if isinstance(restore, (str, float)) else str(restore)
    # Put back exactly: the next look would find two rows otherwise.
    run_sql(target, f"update wide set {column} = {literal} where id = {key}")


@pytest.mark.parametrize("what", CHANGES)
def test_one_changed_row(moved: Moved, what: str) -> None:
    right, source, target = moved
    column, change = CHANGES[what]
    judge_change(right, source, target, column, change, 77778 if what == "from null" else 77777)


def test_one_flipped_bit(moved: Moved) -> None:
    right, source, target = moved
    judge_change(right, source, target, "raw", f"raw = {octets(right, '000000003737373736')}", 77777)


def test_one_missing_one_extra_row(moved: Moved) -> None:
    _, source, target = moved
    run_sql(target, "insert into wide (id, name) values (500000, 'extra')")
    verdict = one(verify(source, target), "wide")
    assert [(d.kind, d.key) for d in verdict.differences] == [("extra", ("500000",))]
    run_sql(target, "delete from wide where id = 500000")
    run_sql(source, "insert into wide (id, name) values (500000, 'missing')")
    verdict = one(verify(source, target), "wide")
    assert [(d.kind, d.key) for d in verdict.differences] == [("missing", ("500000",))]
    run_sql(source, "delete from wide where id = 500000")


def test_one_duplicated_row_without_a_key(moved: Moved) -> None:
    """Of 100 equal rows one too many is found, and one too few."""
    _, source, target = moved
    run_sql(target, "insert into loose values (5, 'v5')")
    verdict = one(verify(source, target), "loose")
    (found,) = verdict.differences
    assert (found.kind, found.key, found.count) == ("duplicated", ("5", "v5"), 1)
    run_sql(source, "insert into loose values (5, 'v5'), (5, 'v5')")
    verdict = one(verify(source, target), "loose")
    (found,) = verdict.differences
    assert (found.kind, found.key, found.count) == ("missing", ("5", "v5"), 1)
    run_sql(target, "insert into loose values (5, 'v5')")
    assert verify(source, target).equal


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_one_row_in_a_million(left: str, right: str) -> None:
    source, target = build(left, right, 1_000_000)
    for column, change in CHANGES.values():
        judge_change(right, source, target, column, change, 77778 if column == "note" else 77777)
    judge_change(right, source, target, "raw", f"raw = {octets(right, '000000003737373736')}", 77777)
    run_sql(target, "delete from wide where id = 999999", "insert into loose values (5, 'v5')")
    comparison = verify(source, target)
    assert {(v.table.rpartition(".")[2], d.kind, d.key) for v in comparison.verdicts for d in v.differences} == {
        ("wide", "missing", ("999999",)),
        ("loose", "duplicated", ("5", "v5")),
    }
