"""Loading what people have: tables in memory, spreadsheets, other encodings, hostile archives; and stopping half-way."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import dblens
from dblens.engines.files.model import Reading
from dblens.errors import ArchiveCorrupt, InvalidInput, NotFound, Unsupported
from dblens.migrate.link import Link, link
from dblens.workspace.loading import LoadOptions
from tests.memory import grown
from tests.servers.fixtures import require

pa = pytest.importorskip("pyarrow")
ROOT = Path(__file__).resolve().parents[2]


class Shelf:
    """A folder with an empty SQLite database, and the workspace of who sits here."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "db.sqlite"
        sqlite3.connect(self.path).close()
        self.path.touch()
        self.ws, self.side = dblens.open(), link(f"sqlite:///{self.path}", allow_password=True)

    def load(self, source: object, table: str = "t", **options: Any) -> Any:
        loaded = self.ws.queries.load(self.side, source, table, LoadOptions(**options), accept=["all"])
        assert loaded.equal
        return loaded

    def rows(self, text: str = "select * from t order by 1") -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(text).fetchall()

    def tables(self) -> set[str]:
        return {name for (name,) in self.rows("select name from sqlite_schema where name not like 'sqlite_%'")}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# ------------------------------------------------------------------------------------------------------------------- in memory

MOMENT = dt.datetime(2024, 2, 29, 12, 30, 15, 1)
COLUMNS = {
    "id": [1, 2**53 + 1],
    "price": [decimal.Decimal("1.10"), None],
    "ok": [True, False],
    "at": [MOMENT, None],
    "text": ["NULL", ""],
    "raw": [b"\x00\xff", None],
}


def test_tables_in_memory_keep_their_types(shelf: Shelf) -> None:
    table = pa.table(COLUMNS)
    loaded = shelf.load(table)
    assert [each.type for each in loaded.columns] == [
        "integer(64)", "decimal(3,2)", "boolean", "timestamp", "text", "binary",
    ]  # fmt: skip
    assert shelf.rows("select id, price, ok, text, raw from t order by id") == [
        (1, "1.1", 1, "NULL", b"\x00\xff"), (2**53 + 1, None, 0, "", None),
    ]  # fmt: skip


def test_frames_of_pandas_and_polars(shelf: Shelf) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    shelf.load(pandas.DataFrame({"id": [1, 2], "x": [0.1, None], "n": ["a", None]}))
    assert shelf.rows() == [(1, 0.1, "a"), (2, None, None)]
    shelf.load(polars.DataFrame(COLUMNS), "p")
    assert shelf.rows("select id, text from p order by 1") == [(1, "NULL"), (2**53 + 1, "")]
    with pytest.raises(Unsupported, match="a DataFrame of pandas or polars"):
        shelf.ws.queries.load(shelf.side, 7, "seven")
    assert "seven" not in shelf.tables()


@pytest.mark.parametrize("kind", ["pg15", "mysql"])
def test_a_frame_on_a_server(kind: str, new_database: Callable[..., str], shelf: Shelf) -> None:
    side: Link = link(new_database(require(kind)), allow_password=True)
    loaded = shelf.ws.queries.load(side, pa.table(COLUMNS), "t", accept=["all"])
    assert (loaded.equal, loaded.rows) == (True, 2)
    found = shelf.ws.query(side, "select id, price, text, raw from t order by id").rows()
    assert [(row[0], str(row[1]), *row[2:]) for row in found] == [
        (1, "1.10", "NULL", b"\x00\xff"), (2**53 + 1, "None", "", None),
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-mark", "utf-16-be-mark"])
def test_marks_tell_the_encoding(shelf: Shelf, encoding: str) -> None:
    text = "id,name\n1,é😀\n"
    octets = {
        "utf-16-le-mark": b"\xff\xfe" + text.encode("utf-16-le"), "utf-16-be-mark": b"\xfe\xff" + text.encode("utf-16-be"),
    }.get(encoding) or text.encode(encoding)  # fmt: skip
    (shelf.folder / "f.csv").write_bytes(octets)
    shelf.load(str(shelf.folder / "f.csv"))
    assert shelf.rows() == [(1, "é😀")]


def test_an_encoding_that_is_not_the_file_s(shelf: Shelf) -> None:
    (shelf.folder / "f.csv").write_bytes("id,name\n1,é\n".encode("latin-1"))
    (shelf.folder / "w.csv").write_bytes("id,name\n1,x\n2,y\n".encode("utf-16-le"))
    for name, words in (("f.csv", "line 2"), ("w.csv", "UTF-16")):
        with pytest.raises(InvalidInput, match=words):
            shelf.load(str(shelf.folder / name))
    assert shelf.tables() == set()
    shelf.load(str(shelf.folder / "f.csv"), reading=Reading(encoding="latin-1"))
    assert shelf.rows() == [(1, "é")]


# ------------------------------------------------------------------------------------------------------------------- workbooks


@pytest.fixture
def book(shelf: Shelf) -> Path:
    xlsxwriter = pytest.importorskip("xlsxwriter")
    path = shelf.folder / "book.xlsx"
    with closing(xlsxwriter.Workbook(str(path))) as made:
        day = made.add_format({"num_format": "yyyy-mm-dd"})
        sheet = made.add_worksheet("Orders")
        for at, row in enumerate((["id", "total", "day", "note"], [1, 1.5, None, "=1+1"], [2, 2, None, ""])):
            sheet.write_row(at, 0, row[:2])
            sheet.write_string(at, 3, str(row[3]))
        sheet.write_string(0, 2, "day")
        sheet.write_datetime(1, 2, dt.datetime(2024, 2, 29), day)
        sheet.write_formula(2, 1, "=1+1", value=2)
        other = made.add_worksheet("Other")
        other.write_row(0, 0, ["a"])
        other.write_row(1, 0, [7])
    return path


def test_of_a_formula_its_last_result_is_read(shelf: Shelf, book: Path) -> None:
    loaded = shelf.load(str(book))
    assert (loaded.columns[0].name, loaded.columns[0].type) == ("id", "integer(64)")
    assert shelf.rows("select id, total + 0, day, note from t order by id") == [
        (1, 1.5, "2024-02-29", "=1+1"), (2, 2, None, None),
    ]  # fmt: skip
    shelf.load(str(book), "other", reading=Reading(sheet="Other"))
    assert shelf.rows("select a from other") == [(7,)]
    with pytest.raises(NotFound, match="it has 'Orders', 'Other'"):
        shelf.load(str(book), "none", reading=Reading(sheet="Nothing"))


def test_a_workbook_that_would_fill_the_memory_is_refused(shelf: Shelf, book: Path) -> None:
    """600 MiB of blanks in a part that the directory calls small, or says to be so large."""
    honest, liar = shelf.folder / "honest.xlsx", shelf.folder / "liar.xlsx"
    with zipfile.ZipFile(book) as parts, zipfile.ZipFile(honest, "w", zipfile.ZIP_DEFLATED) as made:
        for name in parts.namelist():
            if name != "xl/worksheets/sheet1.xml":
                made.writestr(name, parts.read(name))
        with made.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as part:
            for _ in range(600):
                part.write(b" " * (1 << 20))
    size = (600 << 20).to_bytes(4, "little")
    octets = honest.read_bytes()
    assert octets.count(size) >= 1
    liar.write_bytes(octets.replace(size, (1000).to_bytes(4, "little")))
    with grown() as growth:
        for path, kinds in ((honest, InvalidInput), (liar, (InvalidInput, ArchiveCorrupt))):
            with pytest.raises(kinds):
                shelf.load(str(path))
    assert growth.kib < 64 * 1024
    assert shelf.tables() == set()


def test_archives_that_are_cut_or_are_none(shelf: Shelf, book: Path) -> None:
    cut, text = shelf.folder / "cut.xlsx", shelf.folder / "text.xlsx"
    cut.write_bytes(book.read_bytes()[:-50])
    text.write_text("id,name\n1,x\n")
    half = shelf.folder / "half.csv.gz"
    half.write_bytes(gzip.compress(b"id,x\n" + b"1,y\n" * 10_000)[:-20])
    for path in (cut, text, half):
        with pytest.raises(ArchiveCorrupt, match=path.name):
            shelf.load(str(path))
    assert shelf.tables() == set()


# ---------------------------------------------------------------------------------------------------------------------- stopping


def test_an_interrupt_leaves_nothing_behind(shelf: Shelf) -> None:
    with (shelf.folder / "many.csv").open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{n},some text of row {n}\n" for n in range(2_000_000))
    begun = subprocess.Popen(
        [sys.executable, "-m", "dblens", "load", "many.csv", f"sqlite:///{shelf.path}", "--table", "t"],
        cwd=shelf.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "DBLENS_DATA_FOLDER": str(shelf.folder / "home"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not sum(each.stat().st_size for each in shelf.folder.glob("db.sqlite*")) > 1 << 20:  # it writes
        assert time.monotonic() < until
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.02)
    begun.send_signal(signal.SIGINT)
    _, told = begun.communicate(timeout=60)
    assert begun.returncode == 130, told
    assert "Traceback" not in told
    assert "t" not in shelf.tables()
    shelf.load(pa.table({"id": [1]}))  # and nothing stands in the way of the next
    assert shelf.rows() == [(1,)]
