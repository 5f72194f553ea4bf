"""The doors to files and to dual runs: who may, what is refused, what is kept of it; over real SQLite files."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dblens.errors import InvalidInput, NotFound, PermissionDenied, QueryFailed
from dblens.query.export import Options
from dblens.store.queries import Which
from tests.workspace.desk import Desk

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.src, desk.dst = desk.connection("src", rows=3), desk.connection("dst", rows=3)  # type: ignore[attr-defined]
    for name in ("src", "dst"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as db, db:
            db.execute('create table "or""ders"(id integer primary key, name text)')
            db.executemany('insert into "or""ders" values (?, ?)', [(1, "=1+1"), (2, None), (3, "")])
    yield desk
    desk.close()


def exported(ws: Any, text: str, *more: Any, **options: Any) -> tuple[bytes, Any]:
    parts: list[bytes] = []
    made = ws.queries.export("src", text, parts.append, *more, **options)
    data = b"".join(parts)
    assert (made.octets, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return data, made


def test_a_query_and_a_table(desk: Desk) -> None:
    ws = desk.as_("ann")
    expected = b'id,name\r\n1,\'=1+1\r\n2,\r\n3,""\r\n'
    data, made = exported(ws, 'select * from "or""ders" order by id')
    assert data == expected
    assert [(loss.column, loss.count, loss.first) for loss in made.losses] == [("name", 1, 1)]
    assert exported(ws, 'or"ders', table=True)[0] == expected
    assert exported(ws, 'main.or"ders', "tsv", table=True)[1].rows == 3
    data, made = exported(
        ws, 'select name from "or""ders" where id = :id', params={"id": 1}, options=Options(style="exact")
    )
    assert data == b"name\r\n=1+1\r\n"
    assert made.losses == ()
    assert made.sha256 in made.sidecar
    assert exported(ws, 'or"ders', table=True, limit=1)[1].rows == 1


def test_it_is_audited_and_remembered_without_its_rows(desk: Desk) -> None:
    ws = desk.as_("ann")
    _, made = exported(ws, 'or"ders', table=True)
    row = desk.rows("query.export")[0]
    assert row.detail["facts"]["rows"] == 3
    assert row.detail["facts"]["sha256"] == made.sha256
    assert "1+1" not in str(row)
    assert [(each.operation, each.rows) for each in ws.queries.history(Which()).items] == [("export", 3)]


def test_it_only_reads_and_takes_one_statement(desk: Desk, tmp_path: Path) -> None:
    ws = desk.as_("ann")
    with pytest.raises(PermissionDenied):
        exported(ws, 'delete from "or""ders" returning id')
    with pytest.raises(InvalidInput, match="2 statements"):
        exported(ws, "select 1; select 2")
    with pytest.raises(QueryFailed):
        exported(ws, "no such table", table=True)
    with pytest.raises(InvalidInput, match="format"):
        exported(ws, "select 1", "html")
    with pytest.raises(InvalidInput, match="limit"):
        exported(ws, "select 1", limit=-1)
    with closing(sqlite3.connect(tmp_path / "src.db")) as db:
        assert db.execute('select count(*) from "or""ders"').fetchone() == (3,)


def test_who_may(desk: Desk) -> None:
    desk.share(desk.src, "bob", "view")  # type: ignore[attr-defined]
    for name in ("vic", "aud"):
        desk.share(desk.src, name, "manage")  # type: ignore[attr-defined]
    for name in ("bob", "vic", "aud"):
        with pytest.raises(PermissionDenied):
            exported(desk.as_(name), "select 1")
    with pytest.raises(NotFound):
        desk.as_("eve").queries.export(desk.src, "select 1", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(PermissionDenied):
        exported(desk.as_("ann", scopes=("query.run",)), "select 1")
    with pytest.raises(PermissionDenied):
        desk.as_("ann", scopes=("query.export",)).queries.compare("src", "dst", "select 1")


def test_a_reader_who_leaves_stops_the_query(desk: Desk) -> None:
    class Left(Exception):
        pass

    def gone(_: bytes) -> None:
        raise Left

    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    with pytest.raises(Left):
        desk.as_("ann").queries.export("src", endless, gone)


def test_compare(desk: Desk, tmp_path: Path) -> None:
    ws = desk.as_("ann")
    text = 'select * from "or""ders"'
    made = ws.queries.compare("src", "dst", text, by=["id"])
    assert made.equal
    assert made.digest == made.other_digest
    with closing(sqlite3.connect(tmp_path / "dst.db")) as db, db:
        db.execute('update "or""ders" set name = \'x\' where id = 2')
        db.execute('delete from "or""ders" where id = 3')
    made = ws.queries.compare("src", "dst", text, by=["id"])
    assert not made.equal
    assert (made.rows, made.other_rows, made.changed, made.missing, made.extra) == (3, 2, 1, 1, 0)
    assert made.samples[0].columns == ("name",)
    assert (made.timing.seconds > 0, made.other_timing.seconds > 0) == (True, True)
    other = ws.queries.compare("src", "src", text, other_text=f"{text} order by id desc", translate=False)
    assert other.equal
    assert ws.queries.compare("src", "src", text, translate=True).other_text == text
    ws.queries.compare("src", "dst", text)
    asked = [each.operation for each in ws.queries.history(Which()).items]
    assert asked == ["compare"] * 10
    assert "or" not in str(desk.rows("query.compare")[0].detail).replace("other", "")


def test_compare_refuses(desk: Desk) -> None:
    ws = desk.as_("ann").queries
    with pytest.raises(InvalidInput, match="more than 2 rows"):
        ws.compare("src", "dst", 'select * from "or""ders"', limit=2)
    with pytest.raises(InvalidInput, match="2 statements"):
        ws.compare("src", "dst", "select 1; select 2")
    with pytest.raises(InvalidInput, match="no column"):
        ws.compare("src", "dst", "select 1", by=["x"])
    with pytest.raises(InvalidInput, match="samples"):
        ws.compare("src", "dst", "select 1", samples=-1)
    with pytest.raises(InvalidInput, match="one of them"):
        ws.compare("src", "dst", "select 1", other_text="select 1", translate=True)
    with pytest.raises(PermissionDenied):
        ws.compare("src", "dst", 'delete from "or""ders" returning id')
    desk.share(desk.src, "bob", "use")  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        desk.as_("bob").queries.compare(desk.src, desk.dst, "select 1")  # type: ignore[attr-defined]
