"""Rows hashed as PostgreSQL sends them: what the images prove, what they leave to the texts, and that the copier's reading is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dblens.engines.base import Field
from dblens.engines.postgres import export, image
from dblens.migrate.apply import apply_plan
from dblens.migrate.options import Options
from dblens.migrate.plan import make_plan
from dblens.schema.model import Table
from dblens.transfer.verify import IMAGE, Side, side_digest, verify_table
from dblens.values.digest import Accumulator
from dblens.values.forms import Form
from dblens.workspace.migrations import link
from tests.servers import Postgres

SHAPE = "(id int PRIMARY KEY, amount numeric, note text, at timestamptz, body jsonb, raw bytea)"
ROWS = "SELECT i, i / 7.0, CASE WHEN i % 5 > 0 THEN 'n' || i END, now(), '{\"a\": [1, 2]}'::jsonb, '\\x00ff' FROM generate_series(1, 2000) i"


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
