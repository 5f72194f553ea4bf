"""`dblens edit`: shown before it runs, all or nothing, data on stdout."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dblens.cli import run

pytest.importorskip("sqlglot")


@pytest.fixture
def url(tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute("create table t(id integer primary key, name text)")
        db.executemany("insert into t values (?, ?)", [(1, "a"), (9007199254740993, None)])
    return f"sqlite:///{tmp_path / 'a.db'}"


def names(tmp_path: Path) -> list[str | None]:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        return [name for (name,) in db.execute("select name from t order by id")]


def test_shown_then_done(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "changes.json"
    file.write_text(
        '{"action": "update", "old": {"id": 9007199254740993, "name": null}, "new": {"name": "x"}}\n'
        '{"action": "insert", "new": {"id": 5, "name": "new"}}\n'
    )
    assert run(["edit", url, "t", "--changes", str(file), "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert out.startswith('UPDATE "main"."t" SET "name" = :v1 WHERE "id" = :v2 AND "name" IS NULL;')
    assert "9007199254740993" in out
    assert names(tmp_path) == ["a", None]
    assert run(["edit", url, "t", "--changes", str(file), "--json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert (made["updated"], made["inserted"], made["rows"][1]["values"]) == (1, 1, {"id": "5", "name": "new"})
    assert names(tmp_path) == ["a", "new", "x"]
    assert run(["edit", url, "t", "--changes", str(file), "--json"]) == 4
    assert "was changed since: name is 'x', was NULL" in capfd.readouterr().err
    assert names(tmp_path) == ["a", "new", "x"]


@pytest.mark.parametrize("text", ["[", '[{"action": "drop"}]', '[{"action": "insert", "new": {"id": 0.5}}]', "[{}]"])
def test_what_is_no_change(url: str, tmp_path: Path, text: str) -> None:
    file = tmp_path / "changes.json"
    file.write_text(text)
    assert run(["edit", url, "t", "--changes", str(file)]) == 2
    assert run(["edit", url, "t", "--changes", str(tmp_path / "nothing")]) == 2
    assert names(tmp_path) == ["a", None]
