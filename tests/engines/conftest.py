"""One suite over all engines: each test runs once a harness, and its known gaps are strict expected failures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines import (
    harness_mariadb,
    harness_mongodb,
    harness_mysql,
    harness_postgres15,
    harness_postgres18,
    harness_sqlite,
)
from tests.engines.harness import Harness
from tests.engines.support import Case
from tests.hazards import BY_ENGINE
from tests.hazards.model import tables
from tests.servers import fixtures

HARNESSES: tuple[Harness, ...] = (
    harness_postgres15.Harness(),
    harness_postgres18.Harness(),
    harness_mariadb.Harness(),
    harness_mysql.Harness(),
    harness_sqlite.Harness(),
    harness_mongodb.Harness(),
)
_shared: dict[str, dict[str, Any]] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test for every harness; some by table of its corpus, by check, or by key."""
    if "engine_case" not in metafunc.fixturenames:
        return
    own: str | None = next(
        (n for n in ("corpus_table", "check_number", "keyed_table") if n in metafunc.fixturenames), None
    )
    if own is None:
        metafunc.parametrize("engine_case", HARNESSES, ids=[h.name for h in HARNESSES], indirect=True)
        return
    values: list[Any] = []
    for harness in HARNESSES:
        choices: dict[str, list[tuple[object, str]]] = {
            "corpus_table": [(t.name, t.name) for t in tables(BY_ENGINE[harness.engine], "")],
            "check_number": [(n, f"{n}-{c.kind}") for n, c in enumerate(harness.CHECKS)],
            "keyed_table": [(t, t) for t in harness.KEYS],
        }
        values += [pytest.param(harness, option, id=f"{harness.name}-{name}") for option, name in choices[own]]
    metafunc.parametrize(("engine_case", own), values, indirect=["engine_case"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn gaps into strict expected failures."""
    for item in items:
        harness = getattr(item, "callspec", None) and item.callspec.params.get("engine_case")  # type: ignore[attr-defined]
        if not isinstance(harness, Harness):
            continue
        function = f"{item.path.name}::{item.originalname}"  # type: ignore[attr-defined]
        parameter = item.name.partition("[")[2].removesuffix("]").removeprefix(harness.name).removeprefix("-")
        gap = harness.EXPECTED_GAPS.get(f"{function}[{parameter}]") or harness.EXPECTED_GAPS.get(function)
        if gap is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=f"{gap.kind}: {gap.reason}"))


@pytest.fixture
def engine_case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """The engine under test, on its running server."""
    harness: Harness = request.param
    case = Case(harness, fixtures.require(harness.server), _shared.setdefault(harness.name, {}))
    yield case
    case.close()
