"""`dblens query`, `dblens history`, `dblens saved` as programs: data on stdout, the rest on stderr, exit codes, Ctrl-C on the server."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import pytest

from dblens.query import files
from dblens.query.files import Written
from tests.servers import Mongo

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")
ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c"


class Shell:
    """A person with a database and a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "shop.db"
        self.url = f"sqlite:///{self.path}"
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("create table t (id integer primary key, x text, f real, b blob)")
            db.executemany(
                "insert into t values (?, ?, ?, ?)",
                [(1, 'é, "q"', 0.1, b"\x00\xff"), (2, "", None, None), (9007199254740993, None, 1e300, b"")],
            )
            db.commit()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dblens", *arguments]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "DBLENS_DATA_FOLDER": str(self.folder / "home"), "PYTHONPATH": str(ROOT)}

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
            timeout=60, input=given if given is not None else "",
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_documents_as_columns(shell: Shell, mongo: Mongo, new_database: Callable[..., str]) -> None:
    url = new_database(mongo)
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        client.get_default_database().c.insert_many(
            [{"_id": 1, "in": {"z": 1.5, "t": "a,b"}}, {"_id": 2, "big": 2**60}]
        )
    asked = ("query", url, "db.c.find().sort({_id: 1})", "--flat")
    done = shell.run(*asked, "--csv")
    assert (done.returncode, done.stdout) == (0, '_id,in.z,in.t,big\n1,1.5,"a,b",\n2,,,1152921504606846976\n'), (
        done.stderr
    )
    assert shell.json(*asked)["results"][0]["rows"][1] == ["2", None, None, "1152921504606846976"]
    assert shell.run(*asked).stdout.splitlines()[0].split("\t") == ["_id", "in.z", "in.t", "big"]
    assert "1 row," in shell.run("query", url, "db.c.find({_id: 2})", "--flat").stderr
    assert shell.run("query", url, "db.none.find()", "--flat", "--json").returncode == 0
    refused = shell.run("query", shell.url, "select 1", "--flat")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "not of documents" in refused.stderr


def test_rows_are_data_and_the_rest_is_not(shell: Shell) -> None:
    done = shell.run("query", shell.url, "select * from t where id < :n", "--param", "n:=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split("\t") == ["id", "x", "f", "b"]
    assert len(done.stdout.splitlines()) == 3
    assert "2 rows, " in done.stderr
    found = shell.json("query", shell.url, "select id, x, f from t order by id; select 1 as one", "-v")
    assert found["results"][0]["rows"] == [[1, 'é, "q"', 0.1], [2, "", None], [9007199254740993, None, 1e300]]
    assert [each["name"] for each in found["results"][1]["columns"]] == ["one"]
    assert [each["rows"] for each in found["statements"]] == [3, 1]


def test_csv_is_exact(shell: Shell) -> None:
    done = shell.run("query", shell.url, "-", "--csv", given="select id, x, f from t order by id")
    assert list(csv.reader(io.StringIO(done.stdout))) == [
        ["id", "x", "f"], ["1", 'é, "q"', "0.1"], ["2", "", ""], ["9007199254740993", "", "1e+300"],
    ]  # fmt: skip
    assert done.stdout.splitlines()[2] == '2,"",'  # '' and NULL are two things


def test_of_a_file_cut_and_said(shell: Shell) -> None:
    (shell.folder / "q.sql").write_text("select id from t order by id;\n")
    done = shell.run("query", shell.url, "@q.sql", "--limit", "2", "--verbose", "--table")
    assert "9007199254740993" not in done.stdout
    assert "there are more rows: these are the first 2" in done.stderr
    assert "read-only" in done.stderr
    assert "kept from writing by file" in done.stderr
    assert shell.run("query", shell.url, "@nothing.sql").returncode == 2
    assert shell.run("query", shell.url, "@q.sql", "--json", "--csv").returncode == 2


def test_errors_and_their_exit_codes(shell: Shell) -> None:
    for arguments, code, words in (
        (("select 1;\nselect nothing",), 3, "statement 2 of 2 (line 2)"),
        (("delete from t", "--read-only"), 5, "not allowed"),
        (("select :a",), 2, "no value for :a"),
        (("select 1", "--param", "a"), 2, "--param 'a'"),
        ((ENDLESS, "--timeout", "0.3"), 3, "longer"),
    ):
        done = shell.run("query", shell.url, *arguments)
        assert (done.returncode, words in done.stderr) == (code, True), (arguments, done.stderr)
    done = shell.run("query", shell.url, "select nothing", "--json")
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "engine.query"


def test_writes_are_confirmed(shell: Shell) -> None:
    assert shell.run("query", shell.url, "update t set x = 'n' where id = 1").returncode == 0
    spec = shell.folder / "spec.json"
    spec.write_text(json.dumps({"engine": "sqlite", "path": str(shell.path)}))
    made = shell.run("connection", "create", "shop", "--url", shell.url, "--environment", "production")
    assert made.returncode == 0, made.stderr
    refused = shell.run("query", "shop", "delete from t where id = 1")
    assert refused.returncode == 4
    assert "has to be confirmed" in refused.stderr
    token = refused.stderr.rpartition("--confirm ")[2].split()[0]
    assert shell.run("query", "shop", "delete from t where id = 2", "--confirm", token).returncode == 4
    done = shell.run("query", "shop", "delete from t where id = 1", "--confirm", token)
    assert (done.returncode, "1 row affected" in done.stderr) == (0, True), done.stderr
    assert shell.run("query", "shop", "delete from t where id = 2", "--yes").returncode == 0
    assert shell.json("query", "shop", "select count(*) from t")["results"][0]["rows"] == [[1]]


def test_explain(shell: Shell) -> None:
    done = shell.run("query", shell.url, "select * from t where id = 1", "--explain")
    assert "SEARCH t" in done.stdout
    assert shell.json("query", shell.url, "select * from t", "--explain")["tree"]["title"]


def test_an_interrupt_stops_it(shell: Shell) -> None:
    started = subprocess.Popen(
        shell.command("query", shell.url, ENDLESS), cwd=shell.folder, env=shell.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(3)
    assert started.poll() is None, started.communicate()
    begun = time.monotonic()
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=15)
    assert time.monotonic() - begun < 3
    assert (started.returncode, out) == (130, "")
    assert "interrupted" in err
    [last] = shell.json("history", "--search", "recursive")["items"]
    assert last["outcome"] == "engine.cancelled"


def test_history(shell: Shell) -> None:
    shell.run("query", shell.url, "select 1 as needle")
    shell.run("query", shell.url, "select nothing")
    done = shell.run("history")
    assert [line.split("\t")[2] for line in done.stdout.splitlines()[1:]] == ["engine.query", "ok"]
    assert len(shell.json("history", "--search", "needle", "--mine")["items"]) == 1
    assert len(shell.json("history", "--all", "--failed")["items"]) == 1
    assert shell.json("history", "--forget", "--failed") == {"deleted": 1}
    assert shell.run("history", "--forget", "--all").returncode == 2


def test_saved_queries_and_their_files(shell: Shell) -> None:
    assert shell.run("connection", "create", "shop", "--url", shell.url).returncode == 0
    made = shell.run(
        "saved",
        "save",
        "my recent",
        "select id from t where id > :since",
        "-c",
        "shop",
        "-p",
        "since:=1",
        "-d",
        "two\nlines",
    )
    assert made.returncode == 0, made.stderr
    assert shell.json("saved", "run", "my recent")["results"][0]["rows"] == [[2], [9007199254740993]]
    assert shell.json("saved", "run", "my recent", shell.url, "--param", "since:=2")["results"][0]["rows"] == [
        [9007199254740993]
    ]
    assert shell.run("query", "shop", "select 1", "--save", "one").returncode == 0
    done = shell.run("saved", "export", "--all", "--to", "out")
    assert done.returncode == 0, done.stderr
    text = (shell.folder / "out" / "my-recent.sql").read_text()
    assert text.splitlines()[:5] == [
        "-- name: my recent", "-- connection: shop", "-- description: two", "-- description: lines", "-- param since = 1",
    ]  # fmt: skip
    assert shell.run("saved", "export", "--all", "--to", "out").returncode == 4
    assert shell.run("saved", "delete", "my recent").returncode == 0
    assert shell.run("saved", "show", "my recent").returncode == 4
    assert shell.run("saved", "import", "out/my-recent.sql").returncode == 0
    assert shell.run("saved", "import", "out/my-recent.sql").returncode == 4
    assert shell.run("saved", "import", "out/my-recent.sql", "--replace").returncode == 0
    assert shell.run("saved", "show", "my recent").stdout == text
    assert "my recent" in shell.run("saved", "list").stdout


@pytest.mark.parametrize("language", ["sql", "mongodb"])
def test_a_file_comes_back(language: Any) -> None:
    given = Written(
        name="a: b", text="select 1\n-- name: not this\n", language=language, connection="x y", description="d\ne",
        params={"a": [1, None, "é"], "b": {"$oid": "1"}},
    )  # fmt: skip
    text = files.write(given)
    again = files.read(text, file=files.file_name(given.name, language))
    assert files.write(again) == text
    assert (again.name, again.params, again.description, again.language) == (given.name, given.params, "d\ne", language)
    assert files.read("select 1", file="x/plain.sql").name == "plain"
    assert "/" not in files.file_name("../../etc/passwd", language)
