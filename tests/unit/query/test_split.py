"""Cutting texts into statements."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens import engines
from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput
from dblens.query.lex import SPACE, tokens
from dblens.query.split import split
from tests.unit.query.lexes import ALL, MYSQL, POSTGRES, SHELL, SQL, SQLITE

_PROCEDURE = (
    "CREATE DEFINER=`root`@`%` PROCEDURE p() BEGIN IF a THEN SELECT 1; END IF; l: LOOP LEAVE l; END LOOP l; BEGIN SELECT 2; END; "
    "CASE a WHEN 1 THEN SELECT 1; END CASE; SELECT CASE 1 WHEN 1 THEN 2 END; END"
)


def texts(text: str, lexis: Lexis) -> list[str]:
    return [piece.text for piece in split(text, lexis)]


@pytest.mark.parametrize("lexis", SQL.values(), ids=SQL)
@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" ;; ; \n;", []),
        ("-- only\n/* comments */ ;", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2 ;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', 'it''s;' ; SELECT 2", ["SELECT ';', 'it''s;'", "SELECT 2"]),
        ("SELECT 1 -- ;\n, 2; SELECT 3", ["SELECT 1 -- ;\n, 2", "SELECT 3"]),
        ("SELECT 1 /* ; ' */, 2; SELECT 3", ["SELECT 1 /* ; ' */, 2", "SELECT 3"]),
        ("SELECT 1; -- the end", ["SELECT 1"]),
        ("SELECT CASE WHEN 1 THEN 2 END; SELECT 3", ["SELECT CASE WHEN 1 THEN 2 END", "SELECT 3"]),
        ("BEGIN; SELECT 1; END; COMMIT", ["BEGIN", "SELECT 1", "END", "COMMIT"]),
        ("SELECT begin, case_, \u00a0x FROM t; SELECT 1", ["SELECT begin, case_, \u00a0x FROM t", "SELECT 1"]),
        ("CREATE TABLE trigger_log (begin_at int); SELECT 1", ["CREATE TABLE trigger_log (begin_at int)", "SELECT 1"]),
    ],
)
def test_what_all_have_in_common(lexis: Lexis, text: str, pieces: list[str]) -> None:
    assert texts(text, lexis) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("SELECT $$;$$; SELECT $a$ $b$ ; $$ $a$", ["SELECT $$;$$", "SELECT $a$ $b$ ; $$ $a$"]),
        ("SELECT a$b$, ';'; SELECT $1", ["SELECT a$b$, ';'", "SELECT $1"]),
        (r"SELECT 'a\'; SELECT E'a\';' , e'\\'; SELECT 3", [r"SELECT 'a\'", r"SELECT E'a\';' , e'\\'", "SELECT 3"]),
        ("SELECT E'a'\n  '\\';'; SELECT 2", ["SELECT E'a'\n  '\\';'", "SELECT 2"]),
        ("SELECT E'a' -- c\n 'b'; SELECT 2", ["SELECT E'a' -- c\n 'b'", "SELECT 2"]),
        ("SELECT 1 /* /* ; */ ; */; SELECT 2", ["SELECT 1 /* /* ; */ ; */", "SELECT 2"]),
        ('SELECT ";", U&"d\\0061;"; SELECT 2', ['SELECT ";", U&"d\\0061;"', "SELECT 2"]),
        ("SELECT a[1:2], b::int; SELECT 2", ["SELECT a[1:2], b::int", "SELECT 2"]),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END; SELECT 2",
            ["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END", "SELECT 2"],
        ),
        ("CREATE FUNCTION f(begin int) RETURNS int AS 'x'; SELECT 2", ["CREATE FUNCTION f(begin int) RETURNS int AS 'x'", "SELECT 2"]),
        ("DO $x$ BEGIN; END; $x$; SELECT 2", ["DO $x$ BEGIN; END; $x$", "SELECT 2"]),
    ],
)  # fmt: skip
def test_postgres(text: str, pieces: list[str]) -> None:
    assert texts(text, POSTGRES) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (r"""SELECT 'a\';', "b\";", "c"";" ; SELECT 2""", [r"""SELECT 'a\';', "b\";", "c"";" """.strip(), "SELECT 2"]),
        ("SELECT `;`, `a``;` # ;\n; SELECT 2", ["SELECT `;`, `a``;` # ;", "SELECT 2"]),
        ("SELECT 5--3; SELECT 1 -- ;", ["SELECT 5--3", "SELECT 1 -- ;"]),
        ("/*!40101 SET NAMES utf8; */; SELECT /*M! 1; */ 2", ["/*!40101 SET NAMES utf8; */", "SELECT /*M! 1; */ 2"]),
        ("SELECT 1 /* /* ; */; SELECT 2", ["SELECT 1 /* /* ; */", "SELECT 2"]),
        (
            "DELIMITER //\nCREATE PROCEDURE p()\nBEGIN SELECT 1; SELECT '//'; END//\ndelimiter ;\nSELECT 2;",
            ["CREATE PROCEDURE p()\nBEGIN SELECT 1; SELECT '//'; END", "SELECT 2"],
        ),
        ("DELIMITER $$\nSELECT 1; $$ SELECT `a$$b` $$\nDELIMITER ;\nSELECT 3", ["SELECT 1;", "SELECT `a$$b`", "SELECT 3"]),
        (f"{_PROCEDURE}; SELECT 9", [_PROCEDURE, "SELECT 9"]),
        ("CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.end = 1; SELECT 2", ["CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.end = 1", "SELECT 2"]),
        ("BEGIN NOT ATOMIC SELECT 1; SELECT 2; END; SELECT 3", ["BEGIN NOT ATOMIC SELECT 1; SELECT 2; END", "SELECT 3"]),
        (r"SELECT \N; SELECT 2", [r"SELECT \N", "SELECT 2"]),
    ],
)  # fmt: skip
def test_mysql(text: str, pieces: list[str]) -> None:
    assert texts(text, MYSQL) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("SELECT [;], `;`, \";\"; SELECT 2", ["SELECT [;], `;`, \";\"", "SELECT 2"]),
        (r"SELECT 'a\'; SELECT 2", [r"SELECT 'a\'", "SELECT 2"]),
        (
            "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM b; END; SELECT 2",
            ["CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM b; END", "SELECT 2"],
        ),
        ("EXPLAIN QUERY PLAN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END; SELECT 2", ["EXPLAIN QUERY PLAN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END", "SELECT 2"]),
        ("CREATE TABLE t (trigger, begin); SELECT 2", ["CREATE TABLE t (trigger, begin)", "SELECT 2"]),
    ],
)  # fmt: skip
def test_sqlite(text: str, pieces: list[str]) -> None:
    assert texts(text, SQLITE) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("db.a.find({x: ';'})\n  .sort({b: 1})\ndb.b.drop();use x\nshow dbs // c", ["db.a.find({x: ';'})\n  .sort({b: 1})", "db.b.drop()", "use x", "show dbs"]),
        ("db.a.find({x: /;'\\/[/']/i, y: `a\n;`})\n", ["db.a.find({x: /;'\\/[/']/i, y: `a\n;`})"]),
        ("db.a.find(\n)\n\n\ndb.b.find()", ["db.a.find(\n)", "db.b.find()"]),
        ("db.a\n .find() /* ; */ ; // x", ["db.a\n .find()"]),
    ],
)  # fmt: skip
def test_a_shell(text: str, pieces: list[str]) -> None:
    assert texts(text, SHELL) == pieces


@pytest.mark.parametrize(
    ("lexis", "text", "line"),
    [
        (POSTGRES, "SELECT 1;\nSELECT 'a", 2),
        (POSTGRES, "SELECT 1;\n\nSELECT $a$ x $b$", 3),
        (POSTGRES, "SELECT 1 /* /* */", 1),
        (POSTGRES, '\nSELECT "a', 2),
        (MYSQL, "SELECT 'a\\'", 1),
        (MYSQL, "SELECT 1;\n/*! SELECT 2", 2),
        (MYSQL, "SELECT `a", 1),
        (SQLITE, "SELECT\n [a", 2),
        (SHELL, "db.a.find({x: 'y})", 1),
    ],
)
def test_what_does_not_end_is_told_with_its_line(lexis: Lexis, text: str, line: int) -> None:
    with pytest.raises(InvalidInput, match=f"line {line},"):
        split(text, lexis)


@pytest.mark.parametrize(
    ("lexis", "text"),
    [
        (POSTGRES, "\\d person"), (POSTGRES, "SELECT 1;\n\\dt"), (POSTGRES, "SELECT 1 \\g"), (POSTGRES, "SELECT 1 \\gset"), (MYSQL, "SELECT 1\\G"),
        (SQLITE, ".tables"), (SQLITE, "SELECT 1;\n.schema t"), (MYSQL, "DELIMITER\nSELECT 1"),
    ],
)  # fmt: skip
def test_commands_of_client_programs_are_refused(lexis: Lexis, text: str) -> None:
    with pytest.raises(InvalidInput):
        split(text, lexis)


def test_places_count_characters() -> None:
    text = "😀é;\n  SELECT 1;\n\n\tSELECT\n2; -- é\nSELECT 3"
    found = split(text, POSTGRES)
    assert [(p.line, p.column) for p in found] == [(1, 1), (2, 3), (4, 2), (5, 4)]
    for piece in found:
        assert text[piece.start : piece.end] == piece.text
        assert text.splitlines()[piece.line - 1][piece.column - 1 :].startswith(piece.text.splitlines()[0])


# ---- properties

_WORDS = st.sampled_from(
    ["SELECT", "a", "from_", "BEGINNING", "x1", "42", "+", "(", ")", ",", "*", "=", "é", "::", "."]
)
_INNER = st.text(alphabet="ab;'\"`$\\-/*#[]\n é😀", max_size=12)


def _part(name: str, inner: str, number: int) -> str:
    """Return a text that holds anything and is one token of the language, or two."""
    match number, name:
        case 0, "mysql":
            return "'" + inner.replace("\\", "\\\\").replace("'", "''") + "'"
        case 0, _:
            return "'" + inner.replace("'", "''") + "'"
        case 1, "mysql":
            return "`" + inner.replace("`", "``") + "`"
        case 1, _:
            return '"' + inner.replace('"', '""') + '"'
        case 2, _:
            return "/*" + inner.replace("*", "").replace("/", "") + "*/"
        case 3, _:
            return "-- " + inner.replace("\n", "") + "\n"
        case 4, "postgres":
            return "$t$" + inner.replace("$", "") + "$t$"
        case 4, "sqlite":
            return "[" + inner.replace("]", "") + "]"
        case 4, _:
            return "# " + inner.replace("\n", "") + "\n"
        case 5, "postgres":
            return "E'" + inner.replace("\\", "\\\\").replace("'", "\\'") + "'"
        case 5, "mysql":
            return '"' + inner.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "`" + inner.replace("`", "") + "`" if name == "sqlite" else "/**/"


@st.composite
def _statements(draw: st.DrawFn, name: str) -> list[str]:
    made = []
    for _ in range(draw(st.integers(0, 5))):
        parts = ["SELECT"]
        for _ in range(draw(st.integers(0, 6))):
            if draw(st.booleans()):
                parts.append(draw(_WORDS))
            else:
                parts.append(_part(name, draw(_INNER), draw(st.integers(0, 5))))
        made.append(" ".join(parts).strip())
    return made


@pytest.mark.parametrize("name", SQL)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_statements_are_cut_as_they_were_put_together(name: str, data: st.DataObject) -> None:
    made = data.draw(_statements(name))
    gaps = data.draw(
        st.lists(st.sampled_from([";", " ; ", ";\n", ";\n\n", " ;;"]), min_size=len(made), max_size=len(made))
    )
    # A comment to the line's end would take the delimiter with it: its line ends first.
    text = "".join(f"{statement}\n{gap}" for statement, gap in zip(made, gaps, strict=True))
    assert texts(text, SQL[name]) == made


@pytest.mark.parametrize("name", ALL)
@given(text=st.text(alphabet="aSELECT;'\"`$\\-/*#[](){}!:.\n\té", max_size=60))
@settings(max_examples=250, deadline=None)
def test_nothing_is_lost_but_what_separates(name: str, text: str) -> None:
    lexis = ALL[name]
    try:
        found = split(text, lexis)
    except InvalidInput:
        return
    rest, at = "", 0
    for piece in found:
        assert text[piece.start : piece.end] == piece.text
        assert piece.text.strip(SPACE) == piece.text != ""
        assert piece.start >= at
        rest, at = rest + text[at : piece.start], piece.end
    rest += text[at:]
    assert all(token.kind in ("end", "comment") for token in tokens(rest, lexis)), rest


_LINES = st.lists(
    st.sampled_from(
        ["SELECT 1;", "CREATE TRIGGER t AFTER INSERT ON a BEGIN", "SELECT 2;", "END;", "end ;", "CREATE TABLE b(x);", "'a;b'", "\"c;\"", "[d;]", "`e;`",
         "-- f;\n", "/* g; */", "CREATE TEMP TRIGGER", "EXPLAIN", "CASE", ";", "END", "é", "CREATE", "TEMPORARY TRIGGER"]
    ), max_size=14,
)  # fmt: skip


@given(parts=_LINES)
@settings(max_examples=500, deadline=None)
def test_sqlite_itself_takes_each_piece_for_complete(parts: list[str]) -> None:
    """`sqlite3.complete_statement` judges: every piece but the last is complete with its `;`, and none is without its last one."""
    text = " ".join(parts)
    found = split(text, SQLITE)
    for number, piece in enumerate(found):
        ends = number + 1 < len(found) or sqlite3.complete_statement(text[piece.start :])
        assert sqlite3.complete_statement(piece.text + "\n;") or not ends, piece
        for cut in [token.end for token in tokens(piece.text, SQLITE) if token.kind == "end"]:
            assert not sqlite3.complete_statement(piece.text[:cut]), piece


@pytest.mark.parametrize(
    ("lexis", "text"),
    [
        (POSTGRES, "SELECT 'a', b FROM c WHERE d = 1;\n" * 30_000), (POSTGRES, "/*" * 500_000), (POSTGRES, "$a$ $b$ " * 125_000), (POSTGRES, "$a " * 330_000),
        (POSTGRES, "E'a'\n" * 200_000), (MYSQL, "'" * 1_000_001), (MYSQL, "\\N '\\'" * 160_000), (MYSQL, "/*!" * 330_000), (SQLITE, "[" * 1_000_000),
        (SQLITE, "a " * 500_000), (SQLITE, "CREATE TRIGGER t BEGIN END;" * 37_000), (SHELL, "{a: /x/}, " * 100_000), (SHELL, "(" * 1_000_000), (POSTGRES, "-" * 1_000_001),
        (MYSQL, ";" * 1_000_000),
    ],
    ids=lambda value: value[:10] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_megabyte_is_cut_at_once(lexis: Lexis, text: str) -> None:
    def seconds(part: str) -> float:
        began = time.process_time()
        with contextlib.suppress(InvalidInput):
            split(part, lexis)
        return time.process_time() - began

    whole = seconds(text)
    assert whole < 2.5, whole  # a second on a quiet machine
    assert whole < 8 * seconds(text[: len(text) // 4]) + 0.2, "more than in proportion"


def test_the_languages_here_are_those_of_the_engines() -> None:
    for name, lexis in {"sqlite": SQLITE, "postgresql": POSTGRES, "mysql": MYSQL}.items():
        told = engines.get(name).lexis
        if told is not None:
            assert told == lexis, name
