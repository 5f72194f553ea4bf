"""`dblens export` and `dblens compare`: a file that is whole or not there, data on stdout, everything else on stderr."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dblens.cli import run

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")


@pytest.fixture
def url(tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute("create table orders(id integer primary key, name text)")
        db.executemany("insert into orders values (?, ?)", [(1, "=1+1"), (2, None), (3, "")])
    return f"sqlite:///{tmp_path / 'a.db'}"


SAFE = b'id,name\r\n1,\'=1+1\r\n2,\r\n3,""\r\n'


def test_to_a_file(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "o.csv"
    assert run(["export", url, "orders", "-o", str(file)]) == 0
    assert file.read_bytes() == SAFE
    told = capfd.readouterr()
    assert told.out == ""
    assert "3 rows" in told.err
    assert "not exact: column 'name'" in told.err
    assert run(["export", url, "select 1", "-o", str(file)]) == 4
    assert file.read_bytes() == SAFE
    assert run(["export", url, "orders", "-o", str(file), "--overwrite", "--exact", "--json"]) == 0
    assert file.read_bytes() == SAFE.replace(b"'=", b"=")
    found = json.loads(capfd.readouterr().out)
    beside = json.loads((tmp_path / "o.csv.dblens.json").read_bytes())
    assert found["sha256"] == beside["sha256"]
    assert (found["rows"], found["losses"]) == (3, [])


def test_what_fails_leaves_nothing(url: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert run(["export", url, "select * from nothing", "-o", str(tmp_path / "o.parquet")]) == 3
    assert run(["export", url, "delete from orders returning id", "-o", str(tmp_path / "o.csv")]) == 5
    assert run(["export", url, "orders", "-o", str(tmp_path / "o.txt")]) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_formats_by_name_and_by_word(url: str, tmp_path: Path) -> None:
    for name in ("o.tsv", "o.jsonl", "o.parquet", "o.arrow", "o.xlsx", "o.csv.gz"):
        assert run(["export", url, "orders", "-o", str(tmp_path / name)]) == 0, name
    assert gzip.decompress((tmp_path / "o.csv.gz").read_bytes()) == SAFE
    assert run(["export", url, "orders", "-o", str(tmp_path / "o"), "-f", "csv"]) == 0
    assert (tmp_path / "o").read_bytes() == SAFE
    text = tmp_path / "q.sql"
    text.write_text("select * from orders where id = :id")
    assert run(["export", url, f"@{text}", "-p", "id:=1", "-o", str(tmp_path / "q.jsonl")]) == 0
    assert (tmp_path / "q.jsonl").read_bytes() == b'{"id": 1, "name": "=1+1"}\n'


def test_to_stdout(url: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for more in (["-o", "-", "-f", "csv"], ["-o", "-"], []):
        assert run(["export", url, "orders", *more]) == 0
        assert capfdbinary.readouterr().out == SAFE
    assert run(["export", url, "orders", "--json"]) == 2


def test_compare(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", url, url, "select * from orders", "--exit-code"]) == 0
    other = "select id, coalesce(name, '?') as name from orders where id < 3"
    assert run(["compare", url, url, "select * from orders", "--other-text", other, "-k", "id", "--exit-code"]) == 1
    told = capfd.readouterr()
    assert "1 changed, 1 missing there, 0 only there" in told.err
    assert "changed\t2\tname\tNULL\t?" in told.out
    assert run(["compare", url, url, "select 1 as a", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["equal"], found["rows"], found["other_rows"]) == (True, 1, 1)
