"""The load runs and nothing fails in it. Nothing here looks at a clock."""

from __future__ import annotations

from tests.bench.load import load


def test_no_read_fails_under_a_little_load() -> None:
    found = load(seconds=5, rate=20, connections=20, as_json=True)
    assert found["paths"]
    for name in ("constant", "dblens"):
        assert found[name]["sent"] == 100
        assert found[name]["errors"] == 0, found[name]["what"]
