"""Rows as lines: no name can forge one, no cell is a formula."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.store.audit import Row
from dblens.store.audit_text import csv_lines, json_lines

AT = dt.datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=dt.UTC)
FORGED = 'x"\r\n7,2026-11-23,read,mallory\n{"number":7}\u2028\u2029\x85\x0b\x0c\x1c\x1e\x00\u202e\ud800'


def row(**more: object) -> Row:
    fields = {"at": AT, "phase": "read", "action": "a.b", "number": 1, "previous": bytes(32), "mac": bytes(32)}
    return Row(**{**fields, **more})  # type: ignore[arg-type]


def cells(rows: list[Row]) -> list[dict[str, str]]:
    text = b"".join(csv_lines(rows)).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("field", ["actor", "target", "client", "address", "outcome", "action"])
def test_a_name_cannot_forge_a_line(field: str) -> None:
    rows = [row(**{field: FORGED}), row(number=2, detail={FORGED: FORGED})]
    lines = b"".join(json_lines(rows)).decode("ascii")
    assert len(lines.splitlines()) == 2
    assert [json.loads(line)["number"] for line in lines.splitlines()] == [1, 2]
    assert json.loads(lines.splitlines()[0])[field] == FORGED
    text = b"".join(csv_lines(rows)).decode()
    assert len(text.splitlines()) == 3
    assert not set(text) & set("\x85\x0b\x0c\x1c\x1e\x00\u2028\u2029\u202e\ud800")
    assert [found["number"] for found in cells(rows)] == ["1", "2"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\t=", "\xa0=", "\uff1d", "\uff20"])
def test_a_cell_is_no_formula(start: str) -> None:
    found = cells([row(actor=f'{start}HYPERLINK("http://x")')])[0]
    assert found["actor"].startswith("'")


@pytest.mark.parametrize("text", ["ann", "a=b", "1-2", "x@y", ""])
def test_another_cell_is_as_it_was(text: str) -> None:
    assert cells([row(actor=text)])[0]["actor"] == text


@given(st.text(max_size=80))
def test_any_text_is_one_line_and_no_formula(text: str) -> None:
    rows = [row(actor=text, target=text, detail={"x": text})]
    assert len(b"".join(csv_lines(rows)).decode().splitlines()) == 2
    assert b"".join(json_lines(rows)).decode("ascii").count("\n") == 1
    assert not cells(rows)[0]["actor"].lstrip().startswith(("=", "+", "-", "@"))


def test_lines_come_as_rows_do() -> None:
    def endless() -> object:
        number = 0
        while True:
            number += 1
            yield row(number=number)

    lines = csv_lines(endless())  # type: ignore[arg-type]
    assert next(lines).startswith(b"number,at,phase,actor")
    assert next(lines).startswith(b"1,2026-11-23T01:02:03.000004+00:00,read")
