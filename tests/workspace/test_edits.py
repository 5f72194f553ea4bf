"""The door to rows changed by hand: who may, what is confirmed, what is kept of it, and that it is undone whole. Values: tests/engines."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dblens.errors import ConfirmationNeeded, Conflict, InvalidInput, NotFound, PermissionDenied, QueryFailed
from dblens.query.edit import RowChange
from dblens.store import settings
from dblens.store.queries import Which
from dblens.store.records import now
from tests.workspace.desk import Desk

pytest.importorskip("sqlglot")

CHANGE = RowChange(action="update", old={"id": "1", "x": "value 1"}, new={"x": "secret"})


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.src = desk.connection("src", rows=3)  # type: ignore[attr-defined]
    yield desk
    desk.close()


def rows(desk: Desk, name: str = "src") -> list[Any]:
    with closing(sqlite3.connect(desk.folder / f"{name}.db")) as db:
        return db.execute("select x from t order by id").fetchall()


def test_it_is_audited_and_remembered_without_its_values(desk: Desk) -> None:
    ws = desk.as_("ann")
    assert ws.queries.edit("src", "t", [CHANGE]).updated == 1
    assert rows(desk) == [("value 0",), ("secret",), ("value 2",)]
    (told,) = [each for each in desk.rows("query.edit") if each.detail.get("facts", {}).get("updated") is not None]
    assert told.detail["facts"]["updated"] == 1
    assert "secret" not in str(desk.rows("query.edit"))
    (held,) = ws.queries.history(Which()).items
    assert (held.operation, held.kind, held.affected, held.outcome) == ("edit", "write", 1, "ok")
    assert held.text == ws.queries.draft("src", "t", [RowChange(action="update", old={"id": "1", "x": "secret"}, new={"x": "y"})]).text  # fmt: skip
    with pytest.raises(Conflict):
        ws.queries.edit("src", "t", [CHANGE])
    assert ws.queries.history(Which()).items[0].outcome == "conflict"


def test_who_may(desk: Desk) -> None:
    desk.share(desk.src, "bob", "view")  # type: ignore[attr-defined]
    for name in ("vic", "aud"):
        desk.share(desk.src, name, "manage")  # type: ignore[attr-defined]
    for call in ("draft", "edit"):
        for name in ("bob", "vic", "aud"):
            with pytest.raises(PermissionDenied):
                getattr(desk.as_(name).queries, call)("src", "t", [CHANGE])
        with pytest.raises(PermissionDenied):
            getattr(desk.as_("ann", scopes=("query.run",)).queries, call)("src", "t", [CHANGE])
        with pytest.raises(NotFound):
            getattr(desk.as_("eve").queries, call)(desk.src, "t", [CHANGE])  # type: ignore[attr-defined]
    desk.connection("kept", rows=2, read_only=True)
    with pytest.raises(PermissionDenied, match="read-only"):
        desk.as_("ann").queries.edit("kept", "t", [CHANGE])
    assert rows(desk) == [("value 0",), ("value 1",), ("value 2",)]
    assert rows(desk, "kept") == [("value 0",), ("value 1",)]


def test_a_confirmation_is_of_these_very_changes(desk: Desk) -> None:
    ws = desk.as_("ann")
    with desk.house.store.write() as tx:
        settings.put_setting(tx, desk.orgs["acme"], "queries", {"dev": "writes"}, now=now())
    with pytest.raises(ConfirmationNeeded) as needed:
        ws.queries.edit("src", "t", [CHANGE])
    other = RowChange(action="update", old={"id": "1", "x": "value 1"}, new={"x": "other"})
    for changes, loose in (([other], False), ([CHANGE, other], False), ([CHANGE], True)):
        with pytest.raises(ConfirmationNeeded):
            ws.queries.edit("src", "t", changes, confirm=needed.value.confirm, loose=loose)
    assert rows(desk)[1] == ("value 1",)
    assert ws.queries.edit("src", "t", [CHANGE], confirm=needed.value.confirm).updated == 1


def test_one_that_fails_undoes_all(desk: Desk) -> None:
    ws = desk.as_("ann").queries
    for last, error in (
        (RowChange(action="insert", new={"id": "2", "x": "twice"}), QueryFailed),
        (RowChange(action="insert", new={"x": None}), QueryFailed),
        (RowChange(action="delete", old={"id": "9"}), Conflict),
    ):
        with pytest.raises(error):
            ws.edit("src", "t", [CHANGE, RowChange(action="delete", old={"id": "0"}), last])
        assert rows(desk) == [("value 0",), ("value 1",), ("value 2",)]
    done = ws.edit(
        "src", "main.t", [CHANGE, RowChange(action="update", old={"id": "1", "x": "secret"}, new={"x": "z"})]
    )
    assert done.rows[1].values == {"id": "1", "x": "z"}
    with pytest.raises(InvalidInput, match="no column 'nothing'"):
        ws.edit("src", "t", [RowChange(action="insert", new={"nothing": "1"})])


def test_a_trigger_that_takes_the_row_away_undoes_all(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.folder / "src.db")) as db, db:
        db.execute("create trigger a after update on t begin delete from t where id = new.id; end")
        db.execute("create trigger b before delete on t when old.id = 2 begin select raise(ignore); end")
    ws = desk.as_("ann").queries
    with pytest.raises(Conflict, match="not there after it"):
        ws.edit("src", "t", [CHANGE])
    with pytest.raises(Conflict, match="would touch 0 rows"):
        ws.edit("src", "t", [RowChange(action="delete", old={"id": "2"})])
    assert rows(desk) == [("value 0",), ("value 1",), ("value 2",)]
