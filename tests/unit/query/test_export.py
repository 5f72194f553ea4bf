"""Files that are written: golden octets, judged by other readers; what a file cannot hold is named (attack 27)."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import gzip
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines import arrow
from dblens.engines.asking import Odd, Out
from dblens.errors import Conflict, InvalidInput
from dblens.events import Event, Progress
from dblens.query import export
from dblens.query.export import Exported, Format, Options, Style
from dblens.schema import types as t
from dblens.values.forms import Form
from tests.memory import grown

pa = pytest.importorskip("pyarrow")
UTC = dt.UTC
GOLDEN = Path(__file__).parent / "golden"


def out(name: str, kind: t.DataType, form: Form) -> Out:
    return Out(name=name, type=kind, native="n", form=form)


COLUMNS = (
    out("id", t.Integer(), Form.INT),
    out("=name", t.Text(), Form.TEXT),
    out("price", t.Decimal(30, 2), Form.DECIMAL),
    out("ratio", t.Float(), Form.FLOAT),
    out("open", t.Boolean(), Form.INT),
    out("raw", t.Binary(), Form.BYTES),
    out("day", t.Date(), Form.DATE),
    out("at", t.Timestamp(zone=True), Form.TIMESTAMPTZ),
    out("wall", t.Timestamp(), Form.TIMESTAMP),
    out("doc", t.Json(), Form.JSON),
    out("=name", t.Dynamic(), Form.DYNAMIC),
)
ROWS: list[tuple[Any, ...]] = [
    (1, "=1+1", Number("1.50"), 0.1, True, b"\0\xff", dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
     dt.datetime(2020, 1, 2, 3, 4, 5, 120000), '{"a":1}', "i:5"),
    (2**60, 'a "q", \r\n;x', Number("12345678901234567890.12"), 1e300, False, b"", Odd("infinity", Form.DATE),
     Odd("infinity", Form.TIMESTAMPTZ), dt.datetime(1800, 1, 1, 0, 0, 0, 1), "null", "t:=2"),
    (Odd("t:=cmd|x", Form.DYNAMIC), "", Odd("NaN", Form.DECIMAL), -math.inf, *[None] * 7),
    (-4, "'[x", Number("-7.00"), -0.0, *[None] * 6, Odd("t:\udcff", Form.DYNAMIC)),
    (5, "NULL", None, 0.1 + 0.2, *[None] * 6, "b:00"),
    (6, "\t@x", *[None] * 8, "t:\0"),
    (7, "🦜 \u00a0-x", *[None] * 9),
    (None,) * 11,
]  # fmt: skip


def batches() -> list[Any]:
    writer = arrow.Writer(COLUMNS)
    return [writer.batch(ROWS[:3]), writer.batch([]), writer.batch(ROWS[3:])]


def written(format: Format, style: Style | None = None, **more: Any) -> tuple[bytes, Exported]:
    parts: list[bytes] = []
    made = export.write(batches(), COLUMNS, parts.append, format, Options(style=style, **more))
    data = b"".join(parts)
    assert (made.octets, made.sha256, made.rows) == (len(data), hashlib.sha256(data).hexdigest(), len(ROWS))
    return data, made


def originals() -> list[tuple[bytes | None, ...]]:
    return [row for batch in batches() for row in arrow.canonical_rows(batch)]


# ------------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("style", ["safe", "exact"])
@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_golden(format: Format, style: Style) -> None:
    data, made = written(format, style)
    told = msgspec.json.format(msgspec.json.encode([made.losses, json.loads(made.sidecar or "null")]), indent=1)
    for name, found in ((f"{style}.{format}", data), (f"{style}.{format}.told.json", told + b"\n")):
        file = GOLDEN / name
        if os.environ.get("DBLENS_GOLDEN") == "write":
            file.write_bytes(found)
        assert file.read_bytes() == found


def test_exact_files_lose_nothing_and_say_nothing() -> None:
    for format in export.FORMATS:
        assert written(format, "exact")[1].losses == ()


# ------------------------------------------------------------------------------------------------------- formulas (attack 27)

EVIL = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\u00a0=1",
    "\u3000=1",
    "\ufeff=1",
    "＝1",
    "＋1",
    "－1",
    "＠1",
    "=cmd|' /C calc'!A0",
]
TAME = ["1+1", "a=1", "'=1", "", "NULL", "🦜", "1-1", "http://x/=1"]


def evil(format: Format, values: list[Any], column: Out | None = None, name: str = "=evil") -> bytes:
    columns = [column or out(name, t.Text(), Form.TEXT), out("n", t.Integer(), Form.INT)]
    batch = arrow.Writer(columns).batch([(v, -1) for v in values])
    parts: list[bytes] = []
    export.write([batch], columns, parts.append, format)
    return b"".join(parts)


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_no_cell_of_text_is_a_formula_by_default(format: Format) -> None:
    text = evil(format, EVIL + TAME).decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="," if format == "csv" else "\t"))
    assert rows[0] == ["'=evil", "n"]
    assert [row[0] for row in rows[1:]] == [f"'{v}" for v in EVIL] + TAME
    assert {row[1] for row in rows[1:]} == {"-1"}  # a number is a number


def test_other_texts_are_guarded_too() -> None:
    for kind, form, value in [
        (t.Dynamic(), Form.DYNAMIC, "t:=1"),
        (t.Opaque("x"), Form.NATIVE, "=1"),
        (t.Json(), Form.JSON, "-1"),
        (t.Integer(), Form.INT, Odd("t:=1", Form.DYNAMIC)),
        (t.Enum(("=1",)), Form.TEXT, "=1"),
    ]:
        assert evil("csv", [value], out("c", kind, form)).decode().splitlines()[1].startswith("'"), kind


def test_a_workbook_has_no_formula_and_no_markup_of_its_cells() -> None:
    calamine = pytest.importorskip("python_calamine")
    markup = '<r><t>x</t></r></is></c><c r="A9"><f>1+1</f></c><c><is><r></r>'
    data = evil("xlsx", [*EVIL, *TAME, "http://x", markup])
    sheet = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml").decode()
    assert "<f" not in sheet
    assert "<r>" not in sheet
    assert "hyperlink" not in sheet
    rows = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0).to_python()
    assert rows[0][0] == "'=evil"
    found = [row[0] for row in rows[1:]]
    assert found[-1] == f"'{markup}"
    for cell, value in zip(found, EVIL, strict=False):
        assert cell == f"'{value}" or value == "\r=1"
    assert {row[1] for row in rows[1:]} == {-1.0}


# ------------------------------------------------------------------------------------------------------------- other readers


def parsed(data: bytes, separator: str) -> list[list[str | None]]:
    """Read CSV by its rules alone: `csv` does not tell `""` from nothing."""
    rows: list[list[str | None]] = [[]]
    for cell, end in re.findall(rf'("(?:[^"]|"")*"|[^"\r\n{separator}]*)({separator}|\r\n)', data.decode()):
        rows[-1].append(None if cell == "" else cell[1:-1].replace('""', '"') if cell[0] == '"' else cell)
        if end == "\r\n":
            rows.append([])
    return rows[:-1]


def restored(column: Out, cell: Any, *, marks: bool = True) -> bytes | None:
    """Do what the marks and the sidecar say, apart from the loader."""
    if cell is None:
        return None
    if isinstance(cell, dict):
        form, text = cell["$dblens"]
        return arrow.octets_of(Odd(text, Form(form)))
    if marks and isinstance(cell, str) and cell.startswith("'["):
        form, text = json.loads(cell[1:])
        return arrow.octets_of(Odd(text, Form(form)))
    if isinstance(column.type, t.Boolean):
        return b"1" if cell in ("true", True) else b"0"
    if column.form is Form.TIMESTAMPTZ:
        cell = cell.removesuffix("Z")
    if isinstance(column.type, t.Dynamic | t.Text | t.Json):
        return str(cell).encode()
    from dblens.values.codec import canonical

    return bytes.fromhex(cell).hex().encode() if column.form is Form.BYTES else canonical(column.form, cell)


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_exact_text_comes_back(format: Format) -> None:
    data, made = written(format, "exact")
    told = msgspec.json.decode(made.sidecar, type=export.Sidecar)
    assert told.columns == COLUMNS
    assert (told.rows, told.sha256) == (len(ROWS), made.sha256)
    rows = parsed(data, told.separator)
    assert rows[0] == [column.name for column in COLUMNS]
    assert [tuple(map(restored, COLUMNS, row)) for row in rows[1:]] == originals()


def test_exact_json_lines_come_back_even_through_doubles() -> None:
    data, made = written("jsonl", "exact")
    told = msgspec.json.decode(made.sidecar, type=export.Sidecar)
    rows = [json.loads(line) for line in data.decode().splitlines()]
    assert told.keys == tuple(rows[0]) == ("id", *[c.name for c in COLUMNS[1:10]], "=name_2")
    found = [tuple(restored(c, v, marks=False) for c, v in zip(COLUMNS, row.values(), strict=True)) for row in rows]
    assert found == originals()


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_exact_columns_come_back(format: Format, tmp_path: Path) -> None:
    data, made = written(format)
    assert made.style == "exact"
    assert made.sidecar == ""
    file = tmp_path / "x"
    file.write_bytes(data)
    if format == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(file, page_checksum_verification=True)
    else:
        table = pa.ipc.open_file(file).read_all()
    assert arrow.outs(table.schema) == COLUMNS
    assert list(arrow.canonical_rows(table)) == originals()


def test_exact_workbooks_come_back() -> None:
    calamine = pytest.importorskip("python_calamine")
    data, _ = written("xlsx", "exact")
    book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    assert book.sheet_names == ["Sheet1", "dblens"]
    told = msgspec.json.decode(
        "".join(row[0] for row in book.get_sheet_by_name("dblens").to_python()), type=export.Sidecar
    )
    assert told.columns == COLUMNS
    rows = book.get_sheet_by_index(0).to_python()[1:]
    rows += [[""] * len(COLUMNS)] * (told.rows - len(rows))
    found = [tuple(restored(c, None if v == "" else v) for c, v in zip(COLUMNS, row, strict=True)) for row in rows]
    assert found == originals()


def test_other_programs_read_them(tmp_path: Path) -> None:
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    pandas = pytest.importorskip("pandas")
    for format in ("csv", "parquet", "jsonl"):
        (tmp_path / f"x.{format}").write_bytes(written(format)[0])  # type: ignore[arg-type]
    query = f"select count(*), count(raw), count(price) from '{tmp_path / 'x.parquet'}'"
    assert duckdb.sql(query).fetchall() == [(8, 2, 3)]
    assert duckdb.sql(f"select id from '{tmp_path / 'x.parquet'}' where id > 10").fetchall() == [(2**60,)]
    everything = (
        f"read_csv('{tmp_path / 'x.csv'}', header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"')"
    )
    assert duckdb.sql(f"select count(*), count(day) from {everything}").fetchall() == [(8, 2)]
    table = polars.read_parquet(tmp_path / "x.parquet")
    assert table["price"].to_list()[:2] == [Number("1.50"), Number("12345678901234567890.12")]
    assert table["at"].to_list()[0] == dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    frame = pandas.read_csv(tmp_path / "x.csv", dtype=str, keep_default_na=False)
    assert frame["id"].to_list() == ["1", str(2**60), "'=cmd|x", "-4", "5", "6", "7", ""]
    lines = duckdb.sql(
        f"select count(*), count(open) from read_json('{tmp_path / 'x.jsonl'}', format = 'newline_delimited')"
    )
    assert lines.fetchall() == [(8, 2)]


CELLS = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.sampled_from(EVIL + TAME + ["'[", '"', ",", ";"])
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_any_texts_come_back(rows: list[tuple[str | None, str | None]]) -> None:
    columns = [out("a", t.Text(), Form.TEXT), out("b", t.Text(), Form.TEXT)]
    parts: list[bytes] = []
    batch = arrow.Writer(columns).batch(rows)
    export.write([batch.slice(0, 1), batch.slice(1)], columns, parts.append, "csv", Options(style="exact"))
    found = [tuple(restored(columns[0], cell) for cell in row) for row in parsed(b"".join(parts), ",")[1:]]
    assert found == list(arrow.canonical_rows(batch))
    plain = list(csv.reader(io.StringIO(b"".join(parts).decode(), newline="")))[1:]
    assert len(plain) == len(rows)


# ------------------------------------------------------------------------------------------------------------------ the edges


def test_one_column_has_no_empty_lines() -> None:
    column = [out("c", t.Text(), Form.TEXT)]
    batch = arrow.Writer(column).batch([("a",), (None,), ("",)])
    parts: list[bytes] = []
    made = export.write([batch], column, parts.append, "csv")
    assert b"".join(parts) == b'c\r\na\r\n""\r\n""\r\n'
    assert [(loss.count, loss.first) for loss in made.losses] == [(1, 2)]
    parts.clear()
    assert export.write([batch], column, parts.append, "csv", Options(style="exact")).losses == ()
    assert b"".join(parts) == b'c\r\na\r\n\r\n""\r\n'


@pytest.mark.parametrize(
    ("how", "opened"),
    [("gzip", gzip.decompress), ("zstd", lambda data: pa.input_stream(io.BytesIO(data), "zstd").read())],
)
def test_compressed(how: Any, opened: Any) -> None:
    for format in ("csv", "tsv", "jsonl"):
        assert opened(written(format, compression=how)[0]) == written(format)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.csv", ("csv", "")),
        ("A.TSV.GZ", ("tsv", "gzip")),
        ("x.ndjson.zst", ("jsonl", "zstd")),
        ("a.b.parquet", ("parquet", "")),
    ],
)
def test_format_of_a_name(name: str, found: tuple[str, str]) -> None:
    assert export.format_of(name) == found


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", "csv"])
def test_format_of_other_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="not known"):
        export.format_of(name)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("parquet", Options(compression="gzip")),
        ("tsv", Options(separator=";")),
        ("csv", Options(separator="ab")),
        ("html", Options()),
    ],
)
def test_options_that_do_not_fit(format: Any, options: Options) -> None:
    with pytest.raises(InvalidInput):
        export.Export(lambda _: None, arrow.schema_of(COLUMNS), format, options)


def test_no_columns() -> None:
    with pytest.raises(InvalidInput, match="nothing to export"):
        export.write([], (), lambda _: None, "csv")


def test_a_workbook_goes_on_in_another_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    calamine = pytest.importorskip("python_calamine")
    from dblens.query.export import xlsx

    monkeypatch.setattr(xlsx, "ROWS", 4)
    column = [out("n", t.Integer(), Form.INT)]
    parts: list[bytes] = []
    export.write([arrow.Writer(column).batch([(n,) for n in range(7)])], column, parts.append, "xlsx")
    book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(b"".join(parts)))
    assert [book.get_sheet_by_index(n).to_python() for n in range(3)] == [
        [["n"], [0.0], [1.0], [2.0]],
        [["n"], [3.0], [4.0], [5.0]],
        [["n"], [6.0]],
    ]


def test_a_workbook_says_what_it_cannot_hold() -> None:
    many = [out(f"c{n}", t.Integer(), Form.INT) for n in range(16_385)]
    with pytest.raises(InvalidInput, match="16385 columns"):
        export.write([], many, lambda _: None, "xlsx")
    column = [out("long", t.Text(), Form.TEXT)]
    batch = arrow.Writer(column).batch([("x" * 32_767,), ("🦜" * 16_384,)])
    parts: list[bytes] = []
    made = export.write([batch], column, parts.append, "xlsx")
    assert [(loss.column, loss.count, loss.first) for loss in made.losses] == [("long", 1, 2)]
    with pytest.raises(InvalidInput, match="column 'long', row 2"):
        export.write([batch], column, lambda _: None, "xlsx", Options(style="exact"))


def test_progress() -> None:
    told: list[Event] = []
    export.write(batches(), COLUMNS, lambda _: None, "csv", report=told.append)
    assert next((e.done, e.unit) for e in told if isinstance(e, Progress)) == (8, "rows")


# ------------------------------------------------------------------------------------------------------------------ the target


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with contextlib.suppress(RuntimeError), export.Target(file) as target:
        target.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with export.Target(file) as target:
        target.write(b"whole")
        assert not file.exists()
        target.publish("{}")
    assert file.read_bytes() == b"whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.csv.dblens.json"]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"old")
    with pytest.raises(Conflict, match="exists"), export.Target(file):
        pass
    with export.Target(tmp_path / "b.csv") as target:
        target.write(b"new")
        (tmp_path / "b.csv").write_bytes(b"another's")
        with pytest.raises(Conflict):
            target.publish()
    assert (tmp_path / "b.csv").read_bytes() == b"another's"
    (tmp_path / "a.csv.dblens.json").write_text("of the old one")
    with export.Target(file, overwrite=True) as target:
        target.write(b"new")
        target.publish()
    assert file.read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.csv"]
    with pytest.raises(InvalidInput, match="folder"), export.Target(tmp_path):
        pass
    with pytest.raises(InvalidInput, match="cannot be written"), export.Target(tmp_path / "no" / "a.csv"):
        pass


# ------------------------------------------------------------------------------------------------------------------ the memory


@pytest.mark.nightly
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow"])
def test_two_million_rows_take_no_memory(format: Format) -> None:
    columns = COLUMNS[:3]
    batch = arrow.Writer(columns).batch([(n, f"name {n}", Number(n)) for n in range(8192)])

    def many(number: int) -> Iterator[Any]:
        for _ in range(number):
            yield batch

    export.write(many(4), columns, lambda _: None, format)
    with grown() as growth:
        made = export.write(many(245), columns, lambda _: None, format)
    assert made.rows > 2_000_000
    assert growth.kib < 64 * 1024
