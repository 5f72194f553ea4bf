"""A plan as a document: one hash over all of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.engines.base import Build, Check, Field
from dblens.errors import InvalidInput, LossNotAccepted, PlanError
from dblens.migrate import model
from dblens.migrate.apply import check_acceptance
from dblens.migrate.model import Cost, Endpoint, Loss, Notice, Plan, TablePlan
from dblens.migrate.options import Options, Rule
from dblens.schema.model import ForeignKey, Generated
from dblens.transfer.mask import Mask
from dblens.values.forms import Form
from tests.unit.migrate.fakes import column, table


def end(name: str) -> Endpoint:
    return Endpoint(
        url=f"{name}://host/db", engine=name, flavour="1", version="1.2", identity=name, schema_hash=name * 3
    )


def plan(**more: Any) -> Plan:
    source = table("t", "id", "name", key=("id",))
    entry = TablePlan(
        source=source,
        target=source,
        live=("home", "t"),
        staged=("stage", "t"),
        previous=None,
        fields=tuple(Field(column=c, form=Form.TEXT, target=c) for c in source.columns),
        rows=10,
        mode="fast",
        format="rows",
        masks={"name": Mask("redact")},
    )
    values: dict[str, Any] = {
        "id": "r1",
        "created_at": "2026-01-01T00:00:00+00:00",
        "dblens": "0",
        "codec": 1,
        "source": end("a"),
        "target": end("b"),
        "options": Options(rules=(Rule(match="t.name", mask=Mask("redact")),)),
        "tables": (entry,),
        "build": Build(before=("create table …",)),
        "losses": (
            Loss(id="t.name:nul_character", table="t", column="name", kind="nul_character", repair="strip", count=2),
            Loss(id="t.id:too_long", table="t", column="id", kind="too_long", repair="truncate", count=1),
        ),
        "exclusions": (Notice(kind="view", name="v", reason="no", source="select 1"),),
        "cost": Cost(rows=10, octets=100, seconds_low=0.1, seconds_high=1.0),
    }
    return model.seal(Plan(**{**values, **more}))


def test_a_plan_survives_being_written_and_read() -> None:
    made = plan()
    assert model.read(model.write(made)) == made
    assert model.plan_hash(made) == made.hash
    assert len(made.hash) == 64
    assert model.read(json.dumps(json.loads(model.write(made)), indent=7)) == made  # white space is nobody's business


def test_the_hash_is_the_same_every_time_and_differs_by_content() -> None:
    assert plan().hash == plan().hash
    assert plan(id="r2").hash != plan().hash


def test_a_default_that_was_put_together_at_run_time_is_the_same_default() -> None:
    """A server's "no action" is another object than ours: written out or left out, it must not change the hash."""
    action = " ".join(["no", "action"])
    key = ForeignKey(name="k", columns=("id",), table="t", referred=("id",), on_delete=action, match="".join("simple"))  # type: ignore[arg-type]
    shape = table("t", column("id"), foreign_keys=(key,))
    made = model.seal(
        msgspec.structs.replace(plan(), tables=(msgspec.structs.replace(plan().tables[0], source=shape),))
    )
    again = model.read(model.write(made))
    assert again == made
    assert model.read(model.write(again)) == made


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in leaves(v, (*path, k))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in leaves(v, (*path, i))]
    return [path]


DOCUMENT = json.loads(model.write(plan()))


@given(st.sampled_from(leaves(DOCUMENT)))
def test_every_single_edit_is_refused(path: tuple[Any, ...]) -> None:
    """Whatever leaf is changed, the document is refused: as edited, or as no plan."""
    document = json.loads(json.dumps(DOCUMENT))
    place = document
    for step in path[:-1]:
        place = place[step]
    old = place[path[-1]]
    place[path[-1]] = (
        (not old) if isinstance(old, bool) else old + 1 if isinstance(old, (int, float)) else f"{old or ''}x"
    )
    with pytest.raises((PlanError, InvalidInput)) as refused:
        model.read(json.dumps(document))
    assert refused.value.hint


@pytest.mark.parametrize("key", [k for k in DOCUMENT if k != "hash"])
def test_a_part_that_is_taken_out_is_refused(key: str) -> None:
    document = {k: v for k, v in DOCUMENT.items() if k != key}
    with pytest.raises((PlanError, InvalidInput)):
        model.read(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "not json", '{"version": 1}', b"\xff\xfe"])
def test_what_is_no_plan(text: str | bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        model.read(text)
    assert refused.value.hint


def test_a_plan_of_a_newer_dblens() -> None:
    with pytest.raises(InvalidInput, match="upgrade"):
        model.read(model.write(plan(version=model.PLAN_VERSION + 1)))


def test_a_new_hash_over_an_edit_is_a_new_plan() -> None:
    """The hash finds accidents; who computes it again made another plan. Its id and schemas still bind it."""
    edited = model.seal(msgspec.structs.replace(plan(), created_at="2027-01-01T00:00:00+00:00"))
    assert model.read(model.write(edited)) == edited


# ----------------------------------------------------------------------------------------------------------------- acceptance


def test_acceptance() -> None:
    made = plan()
    ids = tuple(sorted(x.id for x in made.losses))
    assert check_acceptance(made, ["all"]) == ids
    assert check_acceptance(made, list(ids)) == ids
    with pytest.raises(LossNotAccepted, match=r"t\.id:too_long") as refused:
        check_acceptance(made, [ids[1]])
    assert ids[1] not in refused.value.message
    with pytest.raises(LossNotAccepted, match="2 losses"):
        check_acceptance(made, [])
    with pytest.raises(InvalidInput, match="nonsense"):
        check_acceptance(made, ["nonsense"])
    assert check_acceptance(plan(losses=()), []) == ()


def test_a_blocked_plan_cannot_be_accepted() -> None:
    blocked = plan(blocks=(Notice(kind="values", name="t.name", reason="3 values: NaN"),))
    with pytest.raises(PlanError, match=r"t\.name: 3 values: NaN"):
        check_acceptance(blocked, ["all"])


def test_a_plan_changed_in_memory_is_refused() -> None:
    with pytest.raises(PlanError, match="hash"):
        check_acceptance(msgspec.structs.replace(plan(), losses=()), [])


# ----------------------------------------------------------------------------------------------------------- a table's plan


def test_the_key_that_names_rows() -> None:
    entry = plan().tables[0]
    assert entry.key == ("id",)
    bare = msgspec.structs.replace(entry, target=table("t", "id"))
    assert bare.key == ()


def test_computed_columns_are_compared_although_not_copied() -> None:
    computed = column("twice", generated=Generated(expression="id * 2"))
    shape = table("t", "id", computed, key=("id",))
    fields = (Field(column=column("id"), form=Form.TEXT, target=column("id")),)
    entry = msgspec.structs.replace(plan().tables[0], source=shape, target=shape, fields=fields)
    assert [f.target.name for f in entry.compared if f.target] == ["id", "twice"]
    assert [f.target.name for f in entry.fields if f.target] == ["id"]


def test_repairs_are_part_of_the_hash() -> None:
    made = plan()
    entry = made.tables[0]
    field = msgspec.structs.replace(entry.fields[0], repairs=(Check(kind="too_long", repair="truncate", limit=3),))
    changed = msgspec.structs.replace(made, tables=(msgspec.structs.replace(entry, fields=(field, entry.fields[1])),))
    assert model.plan_hash(changed) != made.hash
