"""The bench runs and moves every row. Nothing here looks at a clock."""

from __future__ import annotations

import hashlib

import pytest

from tests.bench.__main__ import measure, table
from tests.bench.data import rows
from tests.bench.sides import Bench
from tests.servers import ServerMissing


def test_the_data_set_is_the_same_everywhere() -> None:
    digest = hashlib.sha256(repr(list(rows(200))).encode()).hexdigest()
    assert digest == hashlib.sha256(repr([*rows(300)][:200]).encode()).hexdigest()
    assert {type(v) for row in rows(50) for v in row} == {int, str, float, bool, bytes, type(None)}


def test_a_pair_runs() -> None:
    try:
        with Bench({"pg"}, 300) as bench:
            result = measure(bench, "pg", "pg", 1, set())
    except ServerMissing as reason:
        pytest.skip(str(reason))
    assert result["failed"] == {}
    best = result["best"]
    assert isinstance(best, dict)
    assert {"floor", "psql | psql", "pg_dump | psql", "dblens"} <= set(best)
    assert best["dblens"]["rows"] == 300
    assert {"plan", "copy", "verify", "total"} <= set(best["dblens"]["seconds"])
    assert "dblens" in table(result)
