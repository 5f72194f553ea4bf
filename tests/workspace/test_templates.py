"""Templates: kept configurations, who sees them, what a run of one needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.errors import Conflict, InvalidInput, LossNotAccepted, NotFound, PermissionDenied
from dblens.migrate.options import Options, Rule
from dblens.store.runs import Run
from dblens.workspace.templates import Check, Configuration, Ran, Template
from tests.workspace.desk import Desk, until


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.connection("src", rows=20)
    made.connection("dst")
    yield made
    made.close()


REPLACE = Configuration(options=Options(existing="replace"))


def again(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def test_a_migration_runs_again_by_name(desk: Desk) -> None:
    ws = desk.as_("ann")
    made = ws.templates.create("nightly", "src", "dst", configuration=REPLACE)
    assert ws.templates.read("nightly") == ws.templates.read(made.id) == made == again(made, Template)
    first = ws.templates.run("nightly")
    assert first.outcome is not None
    assert first.outcome.equal
    assert again(first, Ran) == first
    assert first.plan is not None
    ws.migrations.finalize("dst", first.plan)
    with closing(sqlite3.connect(desk.folder / "src.db")) as db:
        db.execute("insert into t values (99, 'new')")
        db.commit()
    second = ws.templates.run("nightly")
    assert second.outcome is not None
    assert second.outcome.rows == 21
    history = ws.runs.list(operation="template.run").items
    assert [r.arguments["arguments"]["template"] for r in history] == ["nightly", "nightly"]
    parts = ws.runs.list(parent=history[0].id).items
    assert {r.operation for r in parts} == {"migration.plan", "migration.apply"}
    (row,) = [r for r in desk.rows("migration.apply") if r.phase == "ended" and r.run_id == max(p.id for p in parts)]
    assert row.detail["parent"] == history[0].id


def test_only_the_losses_of_the_template_are_accepted(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.folder / "src.db")) as db:
        db.execute("create table child (id integer primary key, t_id integer references t (id))")
        db.execute("insert into child values (1, 999)")
        db.commit()
    ws = desk.as_("ann")
    ws.templates.create("n", "src", "dst")
    with pytest.raises(LossNotAccepted):
        ws.templates.run("n")
    loss = "main.child.t_id:orphans"
    ws.templates.update("n", configuration=Configuration(accept=(loss, "main.gone.x:long")))
    outcome = ws.templates.run("n").outcome
    assert outcome is not None
    assert [each.id for each in outcome.losses] == [loss]


def test_a_comparison_is_a_template_too(desk: Desk) -> None:
    ws = desk.as_("ann")
    ws.templates.create("copy", "src", "dst")
    ws.templates.run("copy")
    ws.templates.create("check", "src", "dst", kind="verify", configuration=Configuration(check=Check(tables=("t",))))
    found = ws.templates.run("check").comparison
    assert found is not None
    assert found.equal
    assert [t.name for t in ws.templates.list(kind="verify").items] == ["check"]


def test_a_template_is_for_who_sees_both_sides(desk: Desk) -> None:
    ann, bob = desk.as_("ann"), desk.as_("bob")
    src, dst = (ann.connections.read(name).id for name in ("src", "dst"))
    ann.templates.create("n", "src", "dst")
    assert bob.templates.list().items == ()
    with pytest.raises(NotFound):
        bob.templates.read("n")
    desk.share(src, "bob", "view")
    desk.share(dst, "bob", "view")
    assert [t.name for t in bob.templates.list().items] == ["n"]
    assert bob.templates.read("n").name == "n"
    for call in (bob.templates.run, bob.templates.delete):
        with pytest.raises(PermissionDenied):
            call("n")
    for each in (src, dst):
        desk.share(each, "vic", "use")
    with pytest.raises(PermissionDenied, match=r"migration\.plan"):  # the viewer reads templates, and may not plan
        desk.as_("vic").templates.run("n")
    with pytest.raises(NotFound):
        desk.as_("eve").templates.read("n")
    with pytest.raises(NotFound):
        bob.templates.create("m", "src", "nothing")


def test_names_pages_and_what_does_not_fit(desk: Desk) -> None:
    ws = desk.as_("ann").templates
    for name in ("a", "b", "c"):
        ws.create(name, "src", "dst")
    page = ws.list(limit=2)
    assert [t.name for t in page.items] == ["a", "b"]
    assert [t.name for t in ws.list(limit=2, after=page.after).items] == ["c"]
    with pytest.raises(Conflict):
        ws.create("a", "src", "dst")
    assert ws.update("a", name="z").name == "z"
    ws.delete("z")
    with pytest.raises(NotFound):
        ws.read("z")
    with pytest.raises(InvalidInput):
        ws.create("d", "src", "dst", kind="verify", configuration=REPLACE)
    with pytest.raises(InvalidInput):
        ws.create("d", "src", "dst", configuration=Configuration(check=Check(where="x = 1")))
    rules = Configuration(options=Options(rules=(Rule(match="t", filter="id > 3"),)), accept=("all",))
    ws.create("r", "src", "dst", configuration=rules)
    assert ws.read("r").configuration == rules


def test_behind_the_answer(desk: Desk) -> None:
    ws = desk.as_("ann", background=True)
    ws.templates.create("n", "src", "dst")
    run: Any = ws.templates.run("n")
    assert isinstance(run, Run)
    until(lambda: ws.runs.read(run.id).state == "succeeded")
    assert ws.runs.result(run.id)["outcome"]["equal"]
