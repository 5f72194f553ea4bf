"""Rows hashed as MySQL and MariaDB send them: what the images prove, and that the copier is fed by the verifier's own reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dblens.engines.base import Field
from dblens.engines.mysql import export, image
from dblens.migrate.apply import apply_plan
from dblens.migrate.link import link
from dblens.migrate.options import Options
from dblens.migrate.plan import make_plan
from dblens.schema.model import Table
from dblens.transfer.verify import IMAGE, Side, side_digest, verify_table
from dblens.values.digest import Accumulator
from dblens.values.forms import Form
from tests.servers.fixtures import require

pytest.importorskip("MySQLdb")
SHAPE = """(id bigint unsigned primary key, d double, n decimal(20,4), t datetime(6), y year, b bit(9), e enum('a', ''), s set('x','y'),
    note varchar(80), c char(5), j json, raw varbinary(20), big longblob, z time(3))"""
ROWS = """select seq, seq / 7, seq / 3, '2024-02-29 10:11:12.5', 2000, b'100000001', if(seq % 2, 'a', null), 'x,y',
    concat('größe\\t\\\\', seq), 'ab', '{"a": 1}', x'00ff5c0a', repeat(x'5c', seq % 50), '-837:59:58.5' from seq"""
SEQ = "create table seq as with recursive r(seq) as (select 1 union all select seq + 1 from r where seq < 900) select seq from r"


def filled(session: Any) -> None:
    session.execute(SEQ)
    session.execute(f"create table a {SHAPE} character set utf8mb4")
    session.execute("create table b like a")
    session.execute(f"insert into a {ROWS}")
    session.execute("insert into b select * from a")


@pytest.fixture(params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest) -> Any:
    return require(request.param)


@pytest.fixture
def url(server: Any) -> str:
    return str(server.create_database())


@pytest.fixture
def sides(url: str) -> Iterator[tuple[Any, Any]]:
    with (
        closing(link(url, allow_password=True).connect()) as one,
        closing(link(url, allow_password=True).connect()) as two,
    ):
        filled(one)
        yield one, two


def side(session: Any, name: str) -> Side:
    table: Table = next(t for t in session.inspect().tables if t.name == name)
    return Side(
        session=session, table=table, fields=tuple(Field(column=c, form=Form.NATIVE, target=c) for c in table.columns)
    )


def test_equal_images_end_it(sides: tuple[Any, Any]) -> None:
    one, two = sides
    verdict = verify_table("t", side(one, "a"), side(two, "b"), key=["id"])
    assert (verdict.equal, verdict.method, verdict.source_rows) == (True, IMAGE, 900)
    assert side_digest(side(one, "b"), IMAGE) == verdict.target_digest


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("update b set raw = x'00ff5c0b' where id = 77", "raw"),
        ("update b set t = t + interval 1 microsecond where id = 77", "t"),
        ("update b set note = '' where id = 77", "note"),
        ("update b set note = null where id = 77", "note"),
        ("update b set d = -d where id = 77", "d"),
        ("update b set c = 'AB' where id = 77", "c"),
    ],
)
def test_a_changed_value_is_named(sides: tuple[Any, Any], change: str, column: str) -> None:
    one, two = sides
    one.execute(change)
    verdict = verify_table("t", side(one, "a"), side(two, "b"), key=["id"])
    assert (verdict.equal, verdict.method, verdict.differing) == (False, "digest", 1)
    assert [c.column for c in verdict.differences[0].columns] == [column]


def test_a_float_has_no_image(sides: tuple[Any, Any]) -> None:
    one, _ = sides
    one.execute("create table f (id int primary key, x float)")
    table = side(one, "f")
    assert one.images(table.table, table.fields[:1]) is not None
    assert one.images(table.table, table.fields) is None


def test_the_copier_gets_the_verifiers_reading(sides: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = sides
    # A YEAR and a BIT are exported as numbers and texts, so the copier reads such a table for itself.
    assert (
        one.export_images(side(one, "a").table, side(one, "a").fields, "mytext", where=None, sums=Accumulator()) is None
    )
    one.execute("alter table a drop y, drop b")
    a, sums = side(one, "a"), Accumulator()
    blocks = one.export_images(a.table, a.fields, "mytext", where="id <= 100", sums=sums)
    assert b"".join(b.data for b in blocks) == b"".join(
        b.data for b in one.export(a.table, a.fields, "mytext", where="id <= 100")
    )
    assert sums.fingerprint() == one.image(a.table, a.fields, where="id <= 100")
    assert sums.fingerprint().total.count == 100
    assert one.export_images(a.table, a.fields, "pgtext", where=None, sums=sums) is None
    monkeypatch.setattr(export, "unrendered_statement", lambda *_: "select 1")
    assert one.export_images(a.table, a.fields, "mytext", where=None, sums=sums) is None


def test_a_migration_reads_the_source_once(server: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = (link(u, allow_password=True) for u in (url, server.create_database()))
    with closing(source.connect()) as session:
        filled(session)
        session.execute("drop table seq")
        session.execute("alter table a drop y, drop b")
    read: list[int] = []
    original = image._watched

    def counted(rows: Any, width: int, sums: Any) -> Any:
        read.append(width)
        return original(rows, width, sums)

    monkeypatch.setattr(image, "_watched", counted)
    outcome = apply_plan(make_plan(source, target, Options()), source, target)
    assert [v.method for v in outcome.verdicts] == [IMAGE, IMAGE]
    # Both tables in the target; in the source the one with a YEAR and a BIT by the verifier alone, the other for the copier too.
    assert sorted(read) == [12, 12, 14, 14]
