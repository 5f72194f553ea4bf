"""`dblens load` as a program: previews, loads, appends, rows set aside, undo, and files that are none."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
ROOT = Path(__file__).resolve().parents[2]
GOOD = 'id,name,price,at\n1,Ann,1.50,2024-01-02 03:04:05\n2,"B ""x""\r\n",,2024-01-02 03:04:06\n9007199254740993,"",7,2024-01-02 03:04:07\n'
BAD = "id,name,price,at\n3,C,1,2024-01-01 00:00:00\nx,D,2,2024-01-01 00:00:00\n4,E\n"


class Shell:
    """A person with an empty database, a connection to it, and files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "shop.db"
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("create table there (id integer primary key, name text)")
        (folder / "good.csv").write_text(GOOD, newline="")
        (folder / "bad.csv").write_text(BAD)
        self.run("connection", "create", "shop", "--url", f"sqlite:///{self.path}", code=0)

    def run(self, *arguments: str, code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dblens", *arguments], cwd=self.folder, capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "DBLENS_DATA_FOLDER": str(self.folder / "home"), "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    def rows(self, text: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(text).fetchall()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_from_a_preview_to_an_undo(shell: Shell) -> None:
    tables = "select name from sqlite_schema where type = 'table' order by 1"
    before = shell.rows(tables)
    told = json.loads(shell.run("load", "good.csv", "shop.orders", "--dry-run", "--json", code=0).stdout)
    assert [each["type"] for each in told["columns"]] == ["integer(64)", "text", "decimal(3,2)", "timestamp"]
    assert (told["rows"], told["columns"][1]["sample"]) == (3, ["Ann", 'B "x"\r\n', ""])
    assert "would make the table" in shell.run("load", "good.csv", "shop.orders", "--preview", code=0).stderr
    assert shell.rows(tables) == before, "a preview writes nothing"

    shell.run("load", "good.csv", "shop.orders", code=0)
    assert shell.rows("select id, name, price from orders order by id") == [
        (1, "Ann", "1.5"), (2, 'B "x"\r\n', None), (9007199254740993, "", "7"),
    ]  # fmt: skip
    again = shell.run("load", "good.csv", "shop.orders", "--json", code=4)
    assert "--append" in json.loads(again.stderr)["error"]["hint"]
    assert "have a key" in shell.run("load", "good.csv", "shop.orders", "--append", "--key", "id", code=4).stderr
    loaded = json.loads(shell.run("load", "good.csv", "shop.orders", "--append", "--json", code=0).stdout)
    assert (loaded["inserted"], loaded["equal"], loaded["append"]) == (3, True, True)
    assert shell.rows("select count(*) from orders") == [(6,)]
    shell.run("migrate", "rollback", "shop", "--run", loaded["id"], code=0)
    assert shell.rows("select count(*) from orders") == [(3,)], "just what was added is gone"


def test_rows_that_do_not_fit_are_set_aside_or_an_error(shell: Shell) -> None:
    shell.run("load", "good.csv", "shop.orders", code=0)
    assert "line 4: 2 fields, 4 columns" in shell.run("load", "bad.csv", "shop.orders", "--append", code=2).stderr
    shell.run("load", "bad.csv", "shop.orders", "--append", "--max-bad", "1", code=2)
    assert shell.rows("select count(*) from orders") == [(3,)]
    assert not (shell.folder / "bad.csv.bad.jsonl").exists(), "nothing was loaded, nothing is set aside"
    shell.run("load", "bad.csv", "shop.orders", "--append", "--max-bad", "2", code=0)
    aside = [json.loads(line) for line in (shell.folder / "bad.csv.bad.jsonl").read_text().splitlines()]
    assert [(each["line"], each["raw"]) for each in aside] == [(3, "x,D,2,2024-01-01 00:00:00"), (4, "4,E")]
    assert shell.rows("select count(*) from orders") == [(4,)]
    assert "--quarantine" in shell.run("load", "bad.csv", "shop.orders", "--append", "--max-bad", "2", code=4).stderr


def test_options(shell: Shell) -> None:
    (shell.folder / "odd.txt.gz").write_bytes(gzip.compress("1;ä;-\n2;NULL;x\n".encode("latin-1")))
    shell.run(
        "load", "odd.txt.gz", f"sqlite:///{shell.path}", "--table", "odd", "--format", "csv", "--delimiter", ";", "--encoding", "latin-1",
        "--no-header", "--null", "NULL", "--null", "-", "--json", code=0,
    )  # fmt: skip
    assert [row[1:] for row in shell.rows("select * from odd order by 1")] == [("ä", None), (None, "x")]
    shell.run("load", "good.csv", "shop.part", "--skip", "at", "--rename", "name=title", "--type", "price=REAL", code=0)
    assert shell.rows("select id, title, price from part where id = 1") == [(1, "Ann", 1.5)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,b\n1,2,3\n", "line 2: 3 fields, 2 columns"),
        (b"a\n\xff\n", "not UTF-8"),
        (b'a\n"open\n', "line 2"),
    ],
)
def test_files_that_are_none(shell: Shell, content: bytes, words: str) -> None:
    (shell.folder / "wrong.csv").write_bytes(content)
    before = shell.path.read_bytes()
    done = shell.run("load", "wrong.csv", "shop.wrong", code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert shell.path.read_bytes() == before, "nothing is half-written"


def test_what_names_nothing(shell: Shell) -> None:
    assert "names no table" in shell.run("load", "good.csv", "shop", code=2).stderr
    assert "--table" in shell.run("load", "good.csv", f"sqlite:///{shell.path}", code=2).stderr
    assert "no such file" in shell.run("load", "nothing.csv", "shop.x", code=4).stderr
    assert "no connection" in shell.run("load", "good.csv", "nowhere.x", code=4).stderr
    assert "--type" in shell.run("load", "good.csv", "shop.x", "--type", "price", code=2).stderr
    shell.run("load", "good.csv", "shop.x", "--type", "nothing=TEXT", code=2)
