"""Checks: each counts exactly the values that it is about, and names their keys."""

from __future__ import annotations

from typing import get_args

from dblens.engines.base import Check, CheckKind, Field
from dblens.engines.forms import form_of
from dblens.values.forms import Form
from tests.engines.support import Case, inspected


def test_a_check_counts_exactly(engine_case: Case, check_number: int) -> None:
    case = engine_case.harness.CHECKS[check_number]
    url, name = engine_case.scratch(), f"check_{check_number}"
    engine_case.harness.column(url, name, case.native, case.literals)
    session = engine_case.open(url)
    table = session.profile(inspected(session, name))
    field = Field(column=table.column("v"), form=form_of(table.column("v").type))
    (result,) = session.check(table, [(field, case.check)])
    assert result.column == "v"
    assert result.check == case.check
    assert result.count == len(case.bad)
    assert sorted(k[0] for k in result.samples if k[0]) == sorted(str(n + 1) for n in case.bad)[:5]


def test_many_checks_answer_in_order(engine_case: Case) -> None:
    url = engine_case.scratch()
    cases = [c for c in engine_case.harness.CHECKS if c.native == engine_case.harness.CHECKS[0].native]
    engine_case.harness.column(url, "check_order", cases[0].native, cases[0].literals)
    session = engine_case.open(url)
    table = session.profile(inspected(session, "check_order"))
    field = Field(column=table.column("v"), form=form_of(table.column("v").type))
    checks = [(field, cases[0].check), (field, Check(kind="null_key")), (field, cases[0].check)]
    results = session.check(table, checks)
    assert [r.check.kind for r in results] == [cases[0].kind, "null_key", cases[0].kind]
    assert results[0] == results[2]
    assert session.check(table, []) == []


def test_samples_are_at_most_five(engine_case: Case) -> None:
    url = engine_case.scratch()
    case = engine_case.harness.CHECKS[0]
    engine_case.harness.column(url, "check_samples", case.native, [case.literals[case.bad[0]]] * 8)
    session = engine_case.open(url)
    table = session.profile(inspected(session, "check_samples"))
    (result,) = session.check(
        table, [(Field(column=table.column("v"), form=form_of(table.column("v").type)), case.check)]
    )
    assert result.count == 8
    assert len(result.samples) == 5


def test_what_cannot_occur_counts_nothing(engine_case: Case) -> None:
    """Any kind may be asked about any column: plain small integers break none of these rules."""
    url = engine_case.scratch()
    engine_case.harness.keyed(url, "k_int", 3, "check_none")
    session = engine_case.open(url)
    table = session.profile(inspected(session, "check_none"))
    field = Field(column=table.column("v"), form=Form.INT)
    needs_more = {
        "not_boolean",
        "collation_equal",
        "unknown",
        "not_this_type",
        "mixed_storage",
        "not_json",
        "outside_dates",
    }
    for kind in get_args(CheckKind):
        if kind in needs_more:
            continue
        check = Check(kind=kind, low="0", high="100", limit=10, scale=2, columns=("v",))
        (result,) = session.check(table, [(field, check)])
        assert result.count == 0, kind
