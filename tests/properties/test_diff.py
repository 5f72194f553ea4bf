"""A diff applied to the first schema gives the second one; nothing differs from itself; changes survive serialisation."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dblens.schema import changes as c
from dblens.schema.apply import apply_changes
from dblens.schema.compare import Comparison, Options
from dblens.schema.diff import diff, head, used_namespaces
from dblens.schema.model import Schema, Table
from tests.properties.schemas import schemas

ONE_TO_ONE = {"public": "public", "other": "other"}
relaxed = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
ignored = st.frozensets(st.sampled_from(["owner", "grants", "comment", "collation"]))


def options(a: Schema, b: Schema, **more: object) -> Options:
    """Map namespaces by name, so that a lone namespace is not taken for another."""
    return Options(namespaces={name: name for name in used_namespaces(b)}, **more)  # type: ignore[arg-type]


def reduced(schema: Schema, how: Comparison) -> object:
    """Return everything of a schema that is compared, in a fixed order: written here anew, not taken from `diff`."""

    def table(t: Table) -> tuple[object, ...]:
        def many(items: object, form: object) -> list[bytes]:
            return sorted(msgspec.json.encode(form(i), order="deterministic") for i in items)  # type: ignore[attr-defined, operator]

        heading = head(t)
        heading = msgspec.structs.replace(
            heading,
            comment=None if how.no_comment else heading.comment,
            owner=None if how.no_owner else heading.owner,
            grants=() if how.no_grants else tuple(sorted(heading.grants, key=repr)),
        )
        return (
            t.namespace,
            t.name,
            heading,
            sorted((how.column(t, x) for x in t.columns), key=lambda x: x.name),
            many([t.primary_key] if t.primary_key else [], how.key),
            many(t.uniques, how.key),
            many(t.foreign_keys, lambda k: how.foreign_key(t.namespace, k)),
            many(t.indexes, how.index),
            many(t.checks, how.check),
            many(t.triggers, how.trigger),
        )

    return (
        used_namespaces(schema),
        schema.extensions,
        sorted((table(t) for t in schema.tables), key=lambda x: x[:2]),  # type: ignore[arg-type, return-value]
        [how.view(v) for v in schema.views],
        [how.sequence(s) for s in schema.sequences],
        sorted((how.routine(r) for r in schema.routines), key=repr),
        [how.named_type(x) for x in schema.types],
    )


@relaxed
@given(a=schemas(), b=schemas(), ignore=ignored)
def test_applied_diff_gives_the_other_schema(a: Schema, b: Schema, ignore: frozenset[str]) -> None:
    chosen = options(a, b, ignore=ignore)
    result = apply_changes(a, diff(a, b, chosen))
    how = Comparison(a, b, chosen)
    assert reduced(result, how) == reduced(b, how)
    assert diff(result, b, chosen) == ()


@relaxed
@given(a=schemas())
def test_nothing_differs_from_itself(a: Schema) -> None:
    assert diff(a, a) == ()


@relaxed
@given(a=schemas(), b=schemas(engine="mysql"))
def test_between_engines_an_applied_diff_leaves_no_difference(a: Schema, b: Schema) -> None:
    chosen = options(a, b)
    assert diff(apply_changes(a, diff(a, b, chosen)), b, chosen) == ()


@relaxed
@given(a=schemas(), b=schemas())
def test_changes_survive_serialisation_and_name_their_risk(a: Schema, b: Schema) -> None:
    changes = diff(a, b, options(a, b))
    assert tuple(msgspec.json.decode(msgspec.json.encode(changes), type=list[c.Change])) == changes
    for change in changes:
        assert change.reason
        assert all(c.describe(change))
    assert msgspec.json.decode(msgspec.json.encode(b), type=Schema) == b


@relaxed
@given(a=schemas(spaces=("one",)), b=schemas(spaces=("two",)))
def test_a_lone_namespace_is_mapped_to_the_other(a: Schema, b: Schema) -> None:
    changes = diff(a, b)
    if used_namespaces(a) and used_namespaces(b):
        assert not any(isinstance(x, (c.AddNamespace, c.DropNamespace)) for x in changes)
        assert diff(apply_changes(a, changes), b) == ()


@pytest.mark.parametrize("only", [True, False])
@relaxed
@given(a=schemas(), b=schemas())
def test_only_tables_leaves_the_rest_out(only: bool, a: Schema, b: Schema) -> None:
    found = diff(a, b, options(a, b, only_tables=only))
    rest = (
        c.AddView,
        c.DropView,
        c.ChangeView,
        c.AddRoutine,
        c.DropRoutine,
        c.AddTrigger,
        c.DropTrigger,
        c.AddSequence,
    )
    if only:
        assert not any(isinstance(x, rest) for x in found)
