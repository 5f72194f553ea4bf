"""Runs and their ledger: chunk lines live and die with their rows, and old writers are fenced off."""

from __future__ import annotations

import msgspec
import pytest

from dblens.engines.base import Chunk, KeyRange
from dblens.errors import Conflict
from tests.engines.support import Case, Staging


def begun(case: Case, url: str | None = None) -> Staging:
    staging = case.begin(case.open(case.sample()), case.open(url or case.database()), ["person", "plain"])
    staging.build()
    return staging


def test_a_chunk_line_comes_with_its_rows(engine_case: Case) -> None:
    staging = begun(engine_case)
    target = staging.target
    assert target.ledger(engine_case.run()) == []
    staging.load("person", fast=False, number=3)
    (line,) = target.ledger(engine_case.run())
    assert (line.table, line.number, line.rows, line.run) == (staging.staged("person"), 3, 5, engine_case.run())
    staging.load("plain", fast=True)
    assert {(c.table, c.number) for c in target.ledger(engine_case.run())} == {
        (staging.staged("person"), 3),
        (staging.staged("plain"), 0),
    }


def test_the_ledger_survives_the_session(engine_case: Case) -> None:
    url = engine_case.database()
    staging = begun(engine_case, url)
    keys = KeyRange(columns=("id",), lo=None, hi=("'%s", "\\"), rows=5)
    source, target = staging.source, staging.target
    fields = staging.fields("plain")
    fmt = staging.formats("plain")[0]
    chunk = Chunk(run=engine_case.run(), table=staging.staged("plain"), number=7, keys=keys, epoch=staging.record.epoch)
    target.load(
        staging.staged("plain"), fields, fmt, source.export(staging.tables["plain"][0], fields, fmt), chunk, fast=False
    )
    target.close()
    again = engine_case.open(url)
    (line,) = again.ledger(engine_case.run())
    assert (line.number, line.keys.lo, line.keys.hi, line.rows) == (7, None, ("'%s", "\\"), 3)


def test_fast_empties_first_and_ledger_mode_adds(engine_case: Case) -> None:
    staging = begun(engine_case)
    staging.load("plain", fast=False, number=0)
    staging.load("plain", fast=False, number=1)
    assert staging.rows("plain") == 6 or staging.source.inspect().tables[0].inferred
    staging.target.forget_chunks(engine_case.run(), staging.staged("plain"))
    staging.load("plain", fast=True)
    assert staging.rows("plain") == 3


def test_forget_and_clear(engine_case: Case) -> None:
    staging = begun(engine_case)
    staging.load("person")
    staging.load("plain")
    staging.target.forget_chunks(engine_case.run(), staging.staged("person"))
    assert {c.table for c in staging.target.ledger(engine_case.run())} == {staging.staged("plain")}
    staging.target.clear(staging.staged("person"))
    assert staging.rows("person") == 0
    assert staging.rows("plain") == 3
    staging.target.forget_chunks(engine_case.run())
    assert staging.target.ledger(engine_case.run()) == []
    staging.target.clear(staging.staged("person"))


def test_a_run_is_remembered(engine_case: Case) -> None:
    url = engine_case.database()
    target = engine_case.open(url)
    assert target.read_run(engine_case.run()) is None
    assert target.list_runs() == []
    opened = target.open_run(engine_case.record(document='{"a": "it\'s %s \\\\ \\n 😀"}'))
    assert opened.epoch >= 1
    assert target.read_run(engine_case.run()) == opened
    changed = msgspec.structs.replace(opened, state="copied", document='{"b": 2}')
    target.write_run(changed)
    target.close()
    again = engine_case.open(url)
    assert again.read_run(engine_case.run()) == changed
    assert again.list_runs() == [changed]
    assert again.read_run("other") is None


def test_reading_about_runs_writes_nothing(engine_case: Case) -> None:
    url = engine_case.database()
    engine_case.harness.sample(url)
    session = engine_case.open(url)
    before = session.inspect()
    spaces = session.namespaces()
    session.read_run(engine_case.run())
    session.list_runs()
    assert engine_case.open(url).inspect() == before
    assert engine_case.open(url).namespaces() == spaces


def test_one_migration_at_a_time(engine_case: Case) -> None:
    url = engine_case.database()
    first, second = engine_case.open(url), engine_case.open(url)
    first.open_run(engine_case.record(holder="alice@box"))
    with pytest.raises(Conflict) as caught:
        second.open_run(engine_case.record("r2"))
    assert "alice@box" in str(caught.value)
    first.close()
    second.open_run(engine_case.record(), takeover=True)


def test_a_fenced_writer_writes_no_more(engine_case: Case) -> None:
    """Its lock is lost with its connection's network, say, and another one took the run over."""
    url = engine_case.database()
    staging = begun(engine_case, url)
    old = staging.record
    staging.target.close()
    newer = engine_case.open(url)
    taken = newer.open_run(old, takeover=True)
    assert taken.epoch > old.epoch
    stale = Staging(staging.source, newer, old, staging.tables, staging.schema)
    with pytest.raises(Conflict):
        stale.load("person", fast=False, epoch=old.epoch)
    assert newer.ledger(engine_case.run()) == []
    assert stale.rows("person") == 0
    with pytest.raises(Conflict):
        newer.write_run(msgspec.structs.replace(old, state="copied"))
    assert newer.read_run(engine_case.run()) == taken


def test_building_twice_is_settled_by_looking(engine_case: Case) -> None:
    staging = begun(engine_case)
    staging.build()
    staging.load("person")
    staging.load("plain")
    staging.build(after=True)
    staging.build(after=True)
    assert staging.rows("person") == 5


def test_closing_a_run_leaves_nothing(engine_case: Case) -> None:
    url = engine_case.database()
    engine_case.harness.sample(url)
    before = engine_case.open(url).inspect()
    staging = begun(engine_case, url)
    staging.load("person")
    staging.target.close_run(staging.record)
    staging.target.close_run(staging.record)
    fresh = engine_case.open(url)
    assert fresh.inspect() == before
    assert fresh.read_run(engine_case.run()) is None
    assert (
        fresh.namespaces() == engine_case.open(engine_case.sample()).namespaces()
        or fresh.engine.facts.default_namespace is None
    )
