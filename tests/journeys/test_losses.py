"""A loss that was accepted covers what was counted: what the source got since must be planned again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import dblens
from dblens.errors import StalePlan
from dblens.migrate.options import Options
from tests.faults.steady import live_tables, open_link, run_sql
from tests.servers.fixtures import require

New = Callable[..., str]


@pytest.mark.parametrize(
    ("left", "right", "type", "good", "lost"),
    [
        ("pg15", "mariadb", "double precision", "1.5", "'NaN'"),
        ("pg15", "sqlite", "double precision", "1.5", "'NaN'"),
        ("mariadb", "pg15", "date", "'2024-01-31'", "'0000-00-00'"),
        ("sqlite", "pg15", "text", "'a'", "'a' || char(0) || 'b'"),
    ],
)
@pytest.mark.parametrize("mode", ["fast", "ledger"])
def test_a_loss_that_grew_is_refused(
    left: str, right: str, type: str, good: str, lost: str, mode: str, new_database: New
) -> None:
    source, target = new_database(require(left)), new_database(require(right))
    zero = ["set sql_mode = ''"] if left == "mariadb" else []
    run_sql(
        source,
        f"create table t (id int primary key, v {type})",
        *zero,
        f"insert into t values (1, {lost}), (2, {good})",
    )
    ws = dblens.open()
    a, b = open_link(source), open_link(target)
    options = Options(mode=mode, chunk_rows=1)  # type: ignore[arg-type]
    plan = ws.migrations.plan(a, b, options)
    assert [loss.count for loss in plan.losses] == [1]

    run_sql(source, *zero, f"insert into t values (3, {lost})")
    with pytest.raises(StalePlan, match=r"1 were accepted, now 2"):
        ws.migrations.apply(plan, source=a, target=b, accept=["all"])
    assert live_tables(target) == set()

    again = ws.migrations.plan(a, b, options)
    assert [loss.count for loss in again.losses] == [2]
    run_sql(source, "delete from t where id = 1")  # fewer than accepted is fine
    outcome = ws.migrations.apply(again, source=a, target=b, accept=["all"])
    assert (outcome.equal, outcome.rows) == (True, 2)
    assert "recount losses" in outcome.seconds
