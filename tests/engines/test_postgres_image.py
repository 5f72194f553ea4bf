"""Rows hashed as PostgreSQL sends them: what the images prove, what they leave to the texts, and that the copier's reading is theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dblens.engines.base import Field
from dblens.engines.postgres import export, image
from dblens.engines.postgres.link import Link
from dblens.errors import ConnectionFailed, EngineError
from dblens.migrate.apply import apply_plan
from dblens.migrate.link import link
from dblens.migrate.options import Options
from dblens.migrate.plan import make_plan
from dblens.schema.model import Table
from dblens.transfer.verify import IMAGE, Side, side_digest, verify_table
from dblens.values.digest import Accumulator
from dblens.values.forms import Form
from tests.servers import Postgres

SHAPE = "(id int PRIMARY KEY, amount numeric, note text, at timestamptz, body jsonb, raw bytea)"
ROWS = "SELECT i, i / 7.0, CASE WHEN i % 5 > 0 THEN 'n' || i END, now(), '{\"a\": [1, 2]}'::jsonb, '\\x00ff' FROM generate_series(1, 2000) i"


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does meanwhile."""
    monkeypatch.setattr(Link, "near", True)


@pytest.fixture
def session(pg15: Postgres) -> Iterator[Any]:
    with closing(link(pg15.create_database(), allow_password=True).connect()) as session:
        session.execute(f"CREATE TABLE a {SHAPE}")
        session.execute(f"CREATE TABLE b {SHAPE}")
        session.execute(f"INSERT INTO a {ROWS}")
        session.execute("INSERT INTO b SELECT * FROM a")
        yield session


def side(session: Any, name: str) -> Side:
    table: Table = next(t for t in session.inspect().tables if t.name == name)
    return Side(
        session=session, table=table, fields=tuple(Field(column=c, form=Form.NATIVE, target=c) for c in table.columns)
    )


def test_equal_images_end_it(session: Any) -> None:
    # One session reads one table after the other: the second side has a session of its own.
    with closing(session.join(session.begin_snapshot())) as other:
        verdict = verify_table("t", side(session, "a"), side(other, "b"), key=["id"])
    assert (verdict.equal, verdict.method, verdict.source_rows, verdict.target_rows) == (True, IMAGE, 2000, 2000)
    assert verdict.source_digest == verdict.target_digest == side_digest(side(session, "b"), IMAGE)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("UPDATE b SET raw = '\\x00fe' WHERE id = 77", "raw"),
        ("UPDATE b SET at = at + interval '1 microsecond' WHERE id = 77", "at"),
        ("UPDATE b SET note = '' WHERE id = 75", "note"),
        ("UPDATE b SET amount = -amount WHERE id = 77", "amount"),
    ],
)
def test_a_changed_value_is_named(session: Any, change: str, column: str) -> None:
    session.execute(change)
    with closing(session.join(session.begin_snapshot())) as other:
        verdict = verify_table("t", side(session, "a"), side(other, "b"), key=["id"])
    assert (verdict.equal, verdict.method, verdict.differing) == (False, "digest", 1)
    assert [c.column for c in verdict.differences[0].columns] == [column]


def test_other_types_with_the_same_texts_are_compared_by_text(session: Any) -> None:
    session.execute("ALTER TABLE b ALTER note TYPE varchar(20)")
    with closing(session.join(session.begin_snapshot())) as other:
        verdict = verify_table("t", side(session, "a"), side(other, "b"), key=["id"])
    assert (verdict.equal, verdict.method) == (True, "digest")


def test_an_empty_table_and_a_filter(session: Any) -> None:
    session.execute("DELETE FROM b")
    empty = side(session, "b")
    assert session.image(empty.table, empty.fields).total.count == 0
    full = side(session, "a")
    assert session.image(full.table, full.fields, where="id <= 10 -- of them").total.count == 10


def test_types_with_identities_of_their_own_have_no_image(session: Any) -> None:
    session.execute("CREATE TYPE mood AS ENUM ('glad')")
    session.execute("CREATE TABLE c (id int PRIMARY KEY, m mood, n int[])")
    other = side(session, "c")
    assert session.images(other.table, other.fields[:1]) == ("integer",)
    assert session.images(other.table, other.fields[:2]) is None
    assert session.images(other.table, other.fields[2:]) is None
    assert session.images(other.table, (Field(column=other.fields[0].column, form=Form.INT),)) is None


def test_the_copier_gets_the_verifiers_reading(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    a, sums = side(session, "a"), Accumulator()
    blocks = session.export_images(a.table, a.fields, "pgbinary", where=None, sums=sums)
    octets = b"".join(b.data for b in blocks)
    assert octets == b"".join(b.data for b in session.export(a.table, a.fields, "pgbinary"))
    assert sums.fingerprint() == session.image(a.table, a.fields)
    assert session.export_images(a.table, a.fields, "pgtext", where=None, sums=sums) is None
    monkeypatch.setattr(export, "binary_statement", lambda *_: "COPY (SELECT id FROM a) TO STDOUT (FORMAT binary)")
    assert session.export_images(a.table, a.fields, "pgbinary", where=None, sums=sums) is None


def test_a_migration_reads_the_source_once(pg15: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    source = link(pg15.create_database(), allow_password=True)
    with closing(source.connect()) as session:
        session.execute(f"CREATE TABLE a {SHAPE}")
        session.execute(f"INSERT INTO a {ROWS}")
    read: list[str] = []
    original = image.blocks

    def counted(link: Any, table: Table, *rest: Any) -> Any:
        read.append(link.database)
        return original(link, table, *rest)

    monkeypatch.setattr(image, "blocks", counted)
    target = link(pg15.create_database(), allow_password=True)
    outcome = apply_plan(make_plan(source, target, Options()), source, target)
    assert [v.method for v in outcome.verdicts] == [IMAGE]
    assert sorted(read) == sorted([source.url.database, target.url.database])


ODD = """
CREATE TABLE odd (id int PRIMARY KEY, s smallint, b bigint, f double precision, r real, n numeric, t timestamp, z timestamptz,
    d date, o boolean, x bytea, v varchar(20), c char(5), j json, jb jsonb, u uuid, m interval, e text[]);
INSERT INTO odd VALUES
 (1, -32768, 9223372036854775807, '-0', 1.1, 1.50, 'infinity', '-infinity', 'infinity', true, '\\x00ff', 'é€😀', 'a', '{"b":1, "a": 1}', '{"b": 1.50}',
  '12345678-1234-1234-1234-1234567890AB', '1 mon -2 days 3.5 s', '{a,NULL}'),
 (2, 0, -9223372036854775808, 'NaN', 'Infinity', 'NaN', '4713-01-01 00:00 BC', '2024-03-31 02:30:00.000001+02', '0044-03-15 BC', false, '', '', '',
  '[1e2]', '"\\u00e4"', '00000000-0000-0000-0000-000000000000', '0', '{}'),
 (3, 1, 0, 1e23, 3.4e38, 1e-20, '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.9+00', '5874897-12-31', NULL, NULL, NULL, 'x    ', NULL, NULL,
  NULL, NULL, NULL),
 (4, NULL, NULL, 5e-324, -0.0, -0, '2024-02-29 12:00:00.120', '1999-12-31 23:59:59.5-11', '2000-01-01', true, '\\x', 'NULL', NULL, 'null', 'null',
  NULL, NULL, '{{1,2},{3,4}}'),
 (5, 2, 3, 12345.678, 0.1, 100, NULL, NULL, NULL, false, '\\x5c', E'a\\tb\\\\', 'ab', '0', '0', NULL, '-1 year', NULL);
"""
FORMS = (
    [Form.INT] * 3
    + [Form.FLOAT] * 2
    + [Form.DECIMAL, Form.TIMESTAMP, Form.TIMESTAMPTZ, Form.DATE, Form.INT, Form.BYTES]
)
FORMS += [Form.TEXT, Form.TEXT, Form.JSON, Form.JSON, Form.UUID, Form.INTERVAL, Form.JSON]


@pytest.mark.parametrize("native", [False, True])
def test_far_and_near_give_one_digest(session: Any, monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """Rendered and hashed in the server, streamed and hashed in the client, or row by row: the same sums."""
    for statement in ODD.split(";\n"):
        if statement.strip():
            session.execute(statement)
    table: Table = next(t for t in session.inspect().tables if t.name == "odd")
    for column, form in zip(table.columns, FORMS, strict=True):
        fields = (Field(column=column, form=Form.NATIVE if native else form),)
        by_rows = Accumulator()
        by_rows.add_rows(session.canonical_rows(table, fields))
        for near in (True, False):
            monkeypatch.setattr(Link, "near", near)
            assert session.fingerprint(table, fields) == by_rows.fingerprint(), (column.name, near)
        exact = Accumulator()
        exact.add_rows(session.canonical_rows(table, fields, exact=True))
        assert session.fingerprint(table, fields, exact=True) == exact.fingerprint(), column.name


def test_a_far_server_hashes_by_itself(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Link, "near", False)
    a = side(session, "a")
    assert session.images(a.table, a.fields) is None
    monkeypatch.setattr(session._link, "copy_rows", lambda *_: pytest.fail("rows crossed the network"))
    assert session.fingerprint(a.table, a.fields).total.count == 2000


@pytest.mark.parametrize(("wait", "near"), [(0.0, True), (0.01, False)])
def test_nearness_is_measured_once(pg15: Postgres, monkeypatch: pytest.MonkeyPatch, wait: float, near: bool) -> None:
    monkeypatch.undo()
    trips: list[str] = []

    def answer(sql: str) -> tuple[int]:
        trips.append(sql)
        time.sleep(wait)
        return (1,)

    with closing(link(pg15.create_database(), allow_password=True).connect()) as session:
        monkeypatch.setattr(session._link, "one", answer)
        assert [session._link.near, session._link.near] == [near, near]
    assert len(trips) == 3


# ------------------------------------------------------------------------------------------------------------------- two readers


def test_two_readers_see_every_row_once(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with dead rows in between, in a snapshot that others write after, and where no second connection is to be had."""
    session.execute("DELETE FROM a WHERE id % 3 = 0")
    session.execute("UPDATE a SET note = 'changed' WHERE id % 7 = 0")
    a = side(session, "a")
    alone = session.image(a.table, a.fields)
    halves: list[str] = []
    read = image._read

    def seen(link: Link, table: Table, fields: Any, where: str | None, *more: Any) -> Any:
        halves.append(where or "")
        return read(link, table, fields, where, *more)

    monkeypatch.setattr(image, "_read", seen)
    monkeypatch.setattr(image, "LARGE", 1)
    assert session.image(a.table, a.fields) == alone
    assert len(halves) == 2, halves
    assert not session._link.in_transaction

    session.begin_snapshot()
    with closing(session._link.again()) as stranger:
        stranger.run("INSERT INTO public.a SELECT i, 0, '', now(), '{}', '' FROM generate_series(5000, 9000) i")
    assert session.image(a.table, a.fields) == alone
    session.end_snapshot()
    assert session.image(a.table, a.fields).total.count == alone.total.count + 4001
    assert len(halves) == 6

    def refused(_link: Link) -> Link:
        raise ConnectionFailed("too many connections")

    monkeypatch.setattr(Link, "again", refused)
    assert session.image(a.table, a.fields).total.count == alone.total.count + 4001
    assert len(halves) == 7


@pytest.mark.parametrize("which", ["first", "second"])
def test_when_one_of_two_readers_fails_both_end(session: Any, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    monkeypatch.setattr(image, "LARGE", 1)
    read = image._read

    def failing(link: Link, table: Table, fields: Any, where: str | None, *more: Any) -> Any:
        if (link is session._link) == (which == "first"):
            raise EngineError("gone")
        return read(link, table, fields, where, *more)

    monkeypatch.setattr(image, "_read", failing)
    a = side(session, "a")
    with pytest.raises(EngineError, match="gone"):
        session.image(a.table, a.fields)
    monkeypatch.undo()
    assert session.image(a.table, a.fields).total.count == 2000
    assert session.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").rows == [(1,)]
