"""The quick way through a SQLite table gives the answers of the exact way: same types, same counts, same samples."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import get_args

import pytest

from dblens.engines.base import Check, CheckKind, Field
from dblens.engines.forms import form_of
from dblens.engines.sqlite import checks, driver, inspect, profile, prove
from dblens.engines.sqlite.ddl import quote
from dblens.errors import QueryFailed
from dblens.events import silent
from dblens.schema.model import Table
from dblens.values.forms import Form
from tests.hazards import sqlite as hazards
from tests.hazards.model import Hazard
from tests.unit.values.test_doubt import AWKWARD, RAW

NATIVES = [
    "", "INTEGER", "DECIMAL(12,2)", "NUMERIC(4,4)", "DECIMAL(18,2)", "DECIMAL", "REAL", "BOOLEAN", "YEAR", "TEXT", "VARCHAR(5)", "TEXT COLLATE RTRIM", "JSON",
    "DATE", "TIMESTAMP", "TIME", "UUID", "BLOB", "VARBINARY(4)", "TEXT /* timestamptz(6) */", "TEXT /* timestamp(6) */", "TEXT /* uuid */", "TEXT /* json */",
]  # fmt: skip
NUMBERS = [
    "1.25",
    "99.99",
    "9999999999.99",
    "10000000000",
    "-0.01",
    "0.005",
    "1e15",
    "9e999",
    "-9223372036854775808",
    "0",
    "1",
    "2",
    "0.1+0.2",
    "1.005",
    "-0.0",
]
LITERALS: list[object] = [
    *dict.fromkeys(h.literal for part in vars(hazards).values() if isinstance(part, list) for h in part if isinstance(h, Hazard)),
    *[b"t" + v for v in (*[t.encode() for t in AWKWARD if len(t) < 5000], *RAW)],
    *NUMBERS,
]  # fmt: skip
BOUNDS = [
    {"low": "0", "high": "100", "limit": 10, "scale": 2},
    {"low": "-9223372036854775808", "high": "9223372036854775807", "limit": 3, "scale": 1},
]


def ask(db: driver.Db, table: Table, form: Form, proofs: dict[str, prove.Proof]) -> list[object]:
    field = Field(column=table.column("v"), form=form)
    kinds = [k for k in get_args(CheckKind) if k != "collation_equal"]
    asked = [(field, Check(kind=k, **b)) for k in kinds for b in BOUNDS]  # type: ignore[arg-type]
    asked.append((field, Check(kind="outside_dates", low="1000-01-01", high="9999-12-31")))
    return list(checks.run(db, table, asked, None, proofs))


@pytest.mark.parametrize("native", NATIVES)
def test_the_quick_way_answers_as_the_exact_way(native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db, random = driver.Db(str(tmp_path / "t.db"), mode="rwc"), Random(native)
    samples = [[v] for v in random.sample(LITERALS, 60)] + [random.sample(LITERALS, 3) for _ in range(30)]
    for i, values in enumerate(samples):
        db.run(f"CREATE TABLE t{i} (k INTEGER PRIMARY KEY, v {native})")
        for value in [*values, *["NULL"] * (i % 3 == 0)]:
            text = f"CAST(x'{value[1:].hex()}' AS TEXT)" if isinstance(value, bytes) else value
            try:
                db.run(
                    f"INSERT INTO t{i} (v) VALUES ({text if isinstance(text, str) else '?'})",
                    [] if isinstance(text, str) else [text],
                )
            except QueryFailed:
                continue  # a literal that this column's declaration refuses
    exact_prove, exact_suspect = prove.prove, checks._suspect
    for table in inspect.inspect(db, "3", "t").tables:
        monkeypatch.setattr(prove, "prove", exact_prove)
        quick, proofs = profile.profile(db, table, silent)
        monkeypatch.setattr(prove, "prove", lambda *_: {})
        held = db.rows(f"SELECT typeof(v), quote(v) FROM {quote(table.name)}")
        assert quick == profile.profile(db, table, silent)[0], held
        for form in {form_of(quick.column("v").type), Form.TEXT}:
            monkeypatch.setattr(checks, "_suspect", lambda *_: "1")
            exact = ask(db, quick, form, {})
            monkeypatch.setattr(checks, "_suspect", exact_suspect)
            assert ask(db, quick, form, proofs) == exact, held
            assert ask(db, quick, form, {}) == exact, held
    db.close()


def test_usual_values_are_proven_in_one_scan(tmp_path: Path) -> None:
    db = driver.Db(str(tmp_path / "t.db"), mode="rwc")
    db.run("CREATE TABLE t (k INTEGER PRIMARY KEY, d DECIMAL(12,2), t TIMESTAMP, j JSON, n TEXT, b BOOLEAN, e DATE)")
    row = [1.25, "2024-02-29 10:00:00.5", '{"größe": [1, {"größe": 3.25}]}', "größe", 1, None]
    db.many("INSERT INTO t (d, t, j, n, b, e) VALUES (?,?,?,?,?,?)", [row] * 3 + [[3, *row[1:5], "2024-02-29"]])
    (table,) = inspect.inspect(db, "3", "t").tables
    profiled, proofs = profile.profile(db, table, silent)
    assert sorted(proofs) == ["b", "d", "e", "j", "k", "n", "t"]
    assert profiled.columns[1:4] == table.columns[1:4]
    assert {"not_json", "json_duplicate_key", "json_nul"} <= proofs["j"].nothing
    db.close()
