"""Repair scripts: statements in the target's language that name exactly the differing rows."""

from __future__ import annotations

from dblens.migrate.repair import script_for
from dblens.schema.types import Integer
from dblens.transfer.verify import Cell, Difference, TableVerdict
from dblens.values.forms import Form
from tests.unit.migrate.fakes import column, engine, table
from tests.unit.transfer.fakes import fields

SHAPE = fields(("id", Form.INT), ('na"me', Form.TEXT), ("raw", Form.BYTES))
TABLE = table("t;--", column("id", Integer()), 'na"me', "raw", key=("id",))


def verdict(*differences: Difference, **more: object) -> TableVerdict:
    default: dict[str, object] = {
        "table": "home.t",
        "equal": False,
        "source_rows": 2,
        "target_rows": 2,
        "source_digest": "",
        "target_digest": "",
        "columns": 3,
        "key": ("id",),
        "differing": len(differences),
        "differences": differences,
    }
    return TableVerdict(**{**default, **more})  # type: ignore[arg-type]


def test_one_statement_a_row() -> None:
    found = verdict(
        Difference(kind="changed", key=("1",), columns=(Cell('na"me', "it's", "x"), Cell("raw", "00ff", None))),
        Difference(kind="missing", key=("2",), columns=(Cell("id", "2", None), Cell('na"me', None, None))),
        Difference(kind="extra", key=("3",), columns=(Cell("id", None, "3"),)),
    )
    assert script_for(engine(octets_literal="'\\x{}'"), TABLE, SHAPE, found) == [
        """update "home"."t;--" set "na""me" = 'it''s', "raw" = '\\x00ff' where "id" = '1';""",
        """insert into "home"."t;--" ("id", "na""me") values ('2', null);""",
        """delete from "home"."t;--" where "id" = '3';""",
    ]


def test_octets_elsewhere() -> None:
    found = verdict(Difference(kind="changed", key=("1",), columns=(Cell("raw", "00ff", None),)))
    assert "x'00ff'" in script_for(engine(), TABLE, SHAPE, found)[0]


def test_values_by_their_form() -> None:
    """A canonical text is not always a constant of the column's type."""
    shape = fields(
        ("id", Form.INT), ("at", Form.TIMESTAMPTZ), ("bits", Form.BITS), ("any", Form.DYNAMIC), ("place", Form.GEOMETRY)
    )
    here = engine(bits_literal="b'{}'", instant_suffix="+00")

    def one(column: str, value: str) -> str:
        found = verdict(Difference(kind="changed", key=("1",), columns=(Cell(column, value, None),)))
        return script_for(here, TABLE, shape, found)[0]

    assert "\"at\" = '2026-01-01 00:00:00+00' where" in one("at", "2026-01-01 00:00:00")
    assert "\"at\" = '0044-03-15 00:00:00+00 BC' where" in one("at", "0044-03-15 00:00:00 BC")
    assert "\"at\" = 'infinity' where" in one("at", "infinity")
    assert "\"bits\" = b'0101' where" in one("bits", "0101")
    assert '"any" = 5 where' in one("any", "i:5")
    assert '"any" = -0.5 where' in one("any", "r:-0.5")
    assert "\"any\" = 'i:5' where" in one("any", "t:i:5")
    assert "\"any\" = x'00' where" in one("any", "b:00")
    assert one("place", "0:01").startswith("-- ")


def test_a_key_that_is_null() -> None:
    found = verdict(Difference(kind="extra", key=(None,)))
    assert script_for(engine(), TABLE, SHAPE, found) == ["""delete from "home"."t;--" where "id" is null;"""]


def test_what_cannot_be_scripted_is_a_comment() -> None:
    found = verdict(Difference(kind="duplicated", key=("1",), count=2))
    for script in (
        script_for(engine(), TABLE, SHAPE, found),
        script_for(engine(), TABLE, SHAPE, verdict(key=(), differing=3)),
        script_for(engine(documents=True), TABLE, SHAPE, found),
    ):
        assert script
        assert all(line.startswith("-- ") for line in script)


def test_an_incomplete_verdict_says_so() -> None:
    found = verdict(Difference(kind="extra", key=("3",)), complete=False)
    script = script_for(engine(), TABLE, SHAPE, found)
    assert script[0].startswith("-- ")
    assert "first 1 only" in script[0]
    assert len(script) == 2


def test_a_name_cannot_break_out_of_its_comment() -> None:
    """A table name with a newline would end the comment and run what follows."""
    evil = table("x\ndrop table canary;--", "a")
    for found in (verdict(key=()), verdict(Difference(kind="duplicated", key=("1\ndrop table canary;",), count=1))):
        for script in (
            script_for(engine(), evil, SHAPE, found),
            script_for(engine(documents=True), evil, SHAPE, found),
        ):
            for statement in script:
                assert "\n" not in statement
