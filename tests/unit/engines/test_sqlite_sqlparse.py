"""The reader of CREATE texts: only what PRAGMAs do not tell, whatever the text looks like."""

from __future__ import annotations

import pytest

from dblens.engines.sqlite import sqlparse


def test_a_table_with_everything() -> None:
    read = sqlparse.read_table(
        """CREATE TABLE "a""b" (id INTEGER CONSTRAINT pk PRIMARY KEY AUTOINCREMENT,
          "n,(" VARCHAR(10) COLLATE NOCASE UNIQUE DEFAULT ('a)') CHECK (length("n,(") < 5), -- a ) comment,
          d DECIMAL(10,2) NOT NULL DEFAULT -1.5 REFERENCES p(x) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
          [g h] int GENERATED ALWAYS AS (id+1) STORED, `v` AS (id || ')'), ts TEXT /* timestamp(6) */ NOT NULL,
          CONSTRAINT u UNIQUE (d, "g h"), CONSTRAINT "c;--" CHECK (d > 0), FOREIGN KEY (d, g) REFERENCES q ON UPDATE NO ACTION)"""
    )
    assert read.primary_name == "pk"
    assert read.autoincrement
    assert read.columns["n,("].collation == "NOCASE"
    assert read.columns["g h"].generated == "id+1"
    assert read.columns["v"].generated == "id || ')'"
    assert read.columns["ts"].meaning == "timestamp(6)"
    assert read.checks == [(None, 'length("n,(") < 5'), ("c;--", "d > 0")]
    assert read.uniques == [(None, ("n,(",)), ("u", ("d", "g h"))]
    first, second = read.references
    assert (first.columns, first.deferrable, first.initially_deferred) == (("d",), True, True)
    assert (second.columns, second.deferrable) == (("d", "g"), False)


@pytest.mark.parametrize(
    ("text", "parts", "where"),
    [
        ("CREATE INDEX i ON t (a)", ["a"], None),
        ("CREATE UNIQUE INDEX i ON t (lower(a) COLLATE nocase DESC, (b+1)) WHERE c > 1", ["lower(a)", "b+1"], "c > 1"),
        ('create index i on "where" ("where" asc) where "where" is not null', ['"where"'], '"where" is not null'),
    ],
)
def test_indexes(text: str, parts: list[str], where: str | None) -> None:
    assert sqlparse.index_parts(text) == (parts, where)


@pytest.mark.parametrize(
    ("text", "timing", "events"),
    [
        ("CREATE TRIGGER x AFTER UPDATE OF a ON t BEGIN DELETE FROM u; END", "after", ("update",)),
        (
            'CREATE TEMP TRIGGER IF NOT EXISTS "after.delete" INSTEAD OF INSERT ON v BEGIN SELECT 1; END',
            "instead of",
            ("insert",),
        ),
        ("CREATE TRIGGER main.x DELETE ON t BEGIN SELECT 1; END", "before", ("delete",)),
    ],
)
def test_triggers(text: str, timing: str, events: tuple[str, ...]) -> None:
    assert sqlparse.trigger_head(text) == (timing, events)


def test_what_a_statement_creates() -> None:
    assert sqlparse.created('CREATE TABLE IF NOT EXISTS "main"."a.b" (x)') == ("table", "a.b")
    assert sqlparse.created("create unique index main.i on t (x)") == ("index", "i")
    assert sqlparse.created("insert into t values ('create table x')") == ("", "")
    assert sqlparse.body('CREATE TABLE "main"."t" (a  INT)') == sqlparse.body("CREATE TABLE t (a INT)")
