"""Key ranges: together they are the whole table, and no row lies in two."""

from __future__ import annotations

import pytest

from dblens.engines.base import Field
from dblens.values.digest import Sum
from dblens.values.forms import Form
from tests.engines.support import Case, inspected

SIZES = (0, 1, 9, 10, 11, 20, 95)


@pytest.mark.parametrize("rows", SIZES)
def test_chunks_cover_the_table_once(engine_case: Case, keyed_table: str, rows: int) -> None:
    url, name = engine_case.scratch(), f"{keyed_table}_{rows}"
    engine_case.harness.keyed(url, keyed_table, rows, name)
    session = engine_case.open(url)
    table = session.profile(inspected(session, name))
    ranges = session.chunks(table, 10)
    assert ranges
    if rows > 20 and engine_case.harness.KEYS[keyed_table]:
        assert rows / 30 <= len(ranges) <= rows / 3, "about ten rows each"
    if rows == 0:
        assert all(
            list(session.canonical_rows(table, [Field(column=c, form=Form.INT) for c in table.columns[:1]], keys=r))
            == []
            for r in ranges
        )
        return
    fields = [Field(column=table.column("v"), form=Form.INT)]
    whole = session.fingerprint(table, fields)
    assert whole.total.count == rows
    total = Sum()
    seen: list[bytes | None] = []
    for keys in ranges:
        part = session.fingerprint(table, fields, keys=keys)
        got = [r[0] for r in session.canonical_rows(table, fields, keys=keys)]
        assert part.total.count == len(got)
        total += part.total
        seen += got
    assert total == whole.total
    assert sorted(seen, key=str) == sorted((r[0] for r in session.canonical_rows(table, fields)), key=str)


def test_exported_chunks_are_the_table(engine_case: Case, keyed_table: str) -> None:
    url = engine_case.database()
    engine_case.harness.keyed(url, keyed_table, 25)
    staging = engine_case.begin(engine_case.open(url), engine_case.open(engine_case.database()), [keyed_table])
    staging.build()
    ranges = staging.source.chunks(staging.tables[keyed_table][0], 10)
    for fmt in staging.formats(keyed_table):
        staging.target.clear(staging.staged(keyed_table))
        staging.target.forget_chunks(staging.record.id)
        loaded = [staging.load(keyed_table, fmt, fast=False, number=n, keys=k) for n, k in enumerate(ranges)]
        assert sum(loaded) == 25, (fmt, loaded)
        theirs, ours = staging.prints(keyed_table)
        assert theirs == ours
        assert len(staging.target.ledger(staging.record.id)) == len(ranges)


def test_rows_written_later_fall_into_a_range(engine_case: Case) -> None:
    """The first and last ranges are open: a row beyond today's greatest key is not lost."""
    url = engine_case.database()
    engine_case.harness.keyed(url, "k_int", 25)
    session = engine_case.open(url)
    ranges = session.chunks(inspected(session, "k_int"), 10)
    assert ranges[0].lo is None
    assert ranges[-1].hi is None
