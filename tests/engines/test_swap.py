"""Showing staged tables in place of live ones, and taking that back."""

from __future__ import annotations

import msgspec
import pytest

from dblens.engines.base import RunRecord
from dblens.errors import DBLensError
from dblens.schema.model import Schema
from tests.engines.support import Case, Staging, fields_of, home, inspected

NAMES = ["person", "purchase"]


def state(case: Case, url: str) -> tuple[Schema, dict[str, object]]:
    """Return everything that a user of the database sees (estimates aside), by a session of its own."""
    session = case.open(url)
    schema = session.inspect()
    tables = tuple(msgspec.structs.replace(t, rows_estimate=None, bytes=None) for t in schema.tables)
    schema = msgspec.structs.replace(schema, tables=tables)
    prints: dict[str, object] = {}
    for table in schema.tables:
        prints[table.name] = session.fingerprint(table, fields_of(session, table))
    session.close()
    return schema, prints


def staged(case: Case, url: str, *, change: bool) -> Staging:
    """Stage the sample's tables into a database, with one more row than the live ones."""
    source_url = case.database()
    case.harness.sample(source_url)
    if change:
        case.harness.change(source_url, "person")
    staging = case.begin(case.open(source_url), case.open(url), NAMES)
    staging.build()
    for name in NAMES:
        staging.load(name)
    staging.build(after=True)
    for name in NAMES:
        staging.target.renumber(staging.tables[name][1], staging.staged(name))
        staging.target.analyze(staging.staged(name))
    return staging


def live(case: Case) -> str:
    """Return a database with the sample, ready to have its tables replaced."""
    url = case.database()
    case.harness.sample(url)
    session = case.open(url)
    places = [(t.namespace, t.name) for t in session.inspect().tables if t.name in NAMES]
    if session.dependents(places):
        case.harness.release(url)
        assert session.dependents(places) == []
    session.close()
    return url


def people(case: Case, url: str) -> int:
    session = case.open(url)
    try:
        return session.count(inspected(session, "person"))
    finally:
        session.close()


def test_swap_into_an_empty_database(engine_case: Case) -> None:
    url = engine_case.database()
    before = state(engine_case, url)
    staging = staged(engine_case, url, change=True)
    assert state(engine_case, url) == before, "nothing is seen before the swap"
    done = staging.target.swap(staging.record, staging.moves())
    assert done.state == "swapped"
    schema, _ = state(engine_case, url)
    assert {t.name for t in schema.tables} == set(NAMES)
    assert people(engine_case, url) == 6
    undone = staging.target.unswap(done, staging.moves())
    assert isinstance(undone, RunRecord)
    staging.target.close_run(undone)
    assert state(engine_case, url) == before


def test_the_copy_has_the_same_shape(engine_case: Case) -> None:
    url = engine_case.database()
    staging = staged(engine_case, url, change=False)
    done = staging.target.swap(staging.record, staging.moves())
    staging.target.close_run(done)
    session = engine_case.open(url)
    for name in NAMES:
        source, copy = staging.tables[name][0], session.profile(inspected(session, name))
        assert {c.name for c in copy.columns} == {c.name for c in source.columns}
        if source.inferred:
            continue
        assert [c.name for c in copy.columns] == [c.name for c in source.columns]
        assert [(c.native, c.nullable, c.default, c.collation) for c in copy.columns] == [
            (c.native, c.nullable, c.default, c.collation) for c in source.columns
        ]
        assert copy.primary_key is not None
        assert source.primary_key is not None
        assert copy.primary_key.columns == source.primary_key.columns
        assert {k.columns for k in copy.uniques} == {k.columns for k in source.uniques}
        assert {i.name for i in copy.indexes} == {i.name for i in source.indexes}
        assert {(k.columns, k.table, k.on_delete) for k in copy.foreign_keys} == {
            (k.columns, k.table, k.on_delete) for k in source.foreign_keys
        }
        assert len(copy.checks) == len(source.checks)
        assert copy.comment == source.comment


@pytest.mark.parametrize("closing", ["unswap", "finalize"])
def test_swap_over_live_tables(engine_case: Case, closing: str) -> None:
    url = live(engine_case)
    before = state(engine_case, url)
    staging = staged(engine_case, url, change=True)
    moves = staging.moves(replaced=NAMES)
    assert state(engine_case, url) == before
    done = staging.target.swap(staging.record, moves)
    assert people(engine_case, url) == 6
    theirs, ours = staging.prints("person", staging.live("person"))
    assert theirs == ours
    again = staging.target.swap(done, moves)
    assert again.state == "swapped"
    assert people(engine_case, url) == 6, "a swap that was done is not done twice"
    if closing == "unswap":
        undone = staging.target.unswap(done, moves)
        assert people(engine_case, url) == 5
        undone = staging.target.unswap(undone, moves)
        staging.target.close_run(undone)
        assert state(engine_case, url) == before
    else:
        staging.target.close_run(done)
        schema, _ = state(engine_case, url)
        assert people(engine_case, url) == 6
        assert {t.name for t in schema.tables} == {"person", "purchase", "plain"}
        assert schema.views == before[0].views


def test_untouched_tables_stay(engine_case: Case) -> None:
    url = live(engine_case)
    staging = staged(engine_case, url, change=True)
    done = staging.target.swap(staging.record, staging.moves(replaced=NAMES))
    staging.target.close_run(done)
    session = engine_case.open(url)
    assert session.count(inspected(session, "plain")) == 3


def test_numbers_go_on(engine_case: Case) -> None:
    """After the swap the application's next insert takes a number that no row has."""
    url = engine_case.database()
    staging = staged(engine_case, url, change=False)
    table = staging.tables["person"][1]
    if not any(c.identity for c in table.columns):
        pytest.skip("this engine numbers nothing")
    done = staging.target.swap(staging.record, staging.moves())
    staging.target.close_run(done)
    session = engine_case.open(url)
    quote = session.engine.ddl.quote
    session.execute(f"INSERT INTO {quote('person')} ({quote('name')}) VALUES ('next')")
    result = session.execute(f"SELECT max({quote('id')}) FROM {quote('person')}")
    assert int(result.rows[0][0]) == 6


def test_orphans_are_counted(engine_case: Case) -> None:
    staging = staged(engine_case, engine_case.database(), change=False)
    keys = staging.tables["purchase"][1].foreign_keys
    if not keys:
        pytest.skip("this engine has no foreign keys")
    place, referred = staging.staged("purchase"), staging.staged("person")
    assert staging.target.orphans(place, keys[0], referred) == (0, [])


def test_nobody_depends_on_tables_that_are_not_there(engine_case: Case) -> None:
    session = engine_case.open(engine_case.database())
    assert session.dependents([(home(session), "person")]) == []


def test_what_would_not_follow_is_named_and_refused(engine_case: Case) -> None:
    """Either a view follows its table by name (the tests above looked through it), or it is named and the swap refuses."""
    url = engine_case.database()
    engine_case.harness.sample(url)
    staging = staged(engine_case, url, change=True)
    found = staging.target.dependents([staging.live(n) for n in NAMES])
    if not found:
        staging.target.swap(staging.record, staging.moves(replaced=NAMES))
        view = engine_case.open(url).inspect().views[0]
        assert view.name == "rich"
        return
    assert any("rich" in what for what in found)
    before = state(engine_case, url)
    with pytest.raises(DBLensError) as caught:
        staging.target.swap(staging.record, staging.moves(replaced=NAMES))
    assert "rich" in str(caught.value)
    assert state(engine_case, url) == before


def test_free_space_is_a_number_or_unknown(engine_case: Case) -> None:
    free = engine_case.open(engine_case.sample()).free_bytes()
    assert free is None or free > 0
