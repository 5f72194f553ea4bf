"""The copier: every common format moves every hazard into a second database of the engine, bit for bit."""

from __future__ import annotations

import pytest

from dblens.engines.base import Block, Chunk
from dblens.errors import DBLensError
from tests.engines.support import Case


def test_sample_in_every_format(engine_case: Case) -> None:
    names = ["person", "purchase", "plain"]
    source, target = engine_case.open(engine_case.sample()), engine_case.open(engine_case.database())
    staging = engine_case.begin(source, target, names)
    staging.build()
    for name in names:
        formats = staging.formats(name)
        assert formats
        assert len(set(formats)) == len(formats)
        for fmt in formats:
            for fast in (True, False):
                target.clear(staging.staged(name))
                target.forget_chunks(staging.record.id, staging.staged(name))
                assert staging.load(name, fmt, fast=fast) == {"person": 5, "purchase": 3, "plain": 3}[name], (
                    name,
                    fmt,
                    fast,
                )
                theirs, ours = staging.prints(name)
                assert theirs == ours, (name, fmt, fast)
    target.close_run(staging.record)


def test_hazards_in_every_format(engine_case: Case) -> None:
    """One test for the whole corpus: tables are many, databases are dear. The message names table and format."""
    url, tables = engine_case.corpus()
    source, target = engine_case.open(url), engine_case.open(engine_case.database())
    names = [n for n in tables if not tables[n].name.startswith("h_pair")]
    staging = engine_case.begin(source, target, names)
    staging.build()
    wrong: list[str] = []
    for name in names:
        for fmt in staging.formats(name):
            try:
                target.clear(staging.staged(name))
                target.forget_chunks(staging.record.id, staging.staged(name))
                loaded = staging.load(name, fmt, fast=False)
                theirs, ours = staging.prints(name)
            except (DBLensError, ValueError) as error:
                wrong.append(f"{name} by {fmt}: {str(error)[:300]}")
                continue
            if loaded != len(tables[name].rows):
                wrong.append(f"{name} by {fmt}: {loaded} of {len(tables[name].rows)} rows")
            if theirs != ours:
                wrong.append(f"{name} by {fmt}: {len(theirs.differing(ours))} buckets differ")
    assert wrong == []


def test_blocks_know_their_rows(engine_case: Case) -> None:
    staging = engine_case.begin(
        engine_case.open(engine_case.sample()), engine_case.open(engine_case.database()), ["person"]
    )
    for fmt in staging.formats("person"):
        blocks = staging.blocks("person", fmt)
        counts = [b.rows for b in blocks]
        if fmt != "pgbinary":
            assert sum(c or 0 for c in counts) == 5, fmt
        assert all(b.size > 0 for b in blocks if b.rows != 0)


def test_an_export_can_be_left_early(engine_case: Case) -> None:
    url = engine_case.database()
    engine_case.harness.keyed(url, "k_int", 5000)
    source = engine_case.open(url)
    staging = engine_case.begin(source, engine_case.open(engine_case.database()), ["k_int"])
    for fmt in staging.formats("k_int"):
        blocks = source.export(staging.tables["k_int"][0], staging.fields("k_int"), fmt)
        next(iter(blocks))
        blocks.close()
        assert source.count(staging.tables["k_int"][0]) == 5000, "the connection is usable at once"


def test_an_empty_table(engine_case: Case) -> None:
    url = engine_case.database()
    engine_case.harness.keyed(url, "k_int", 0)
    staging = engine_case.begin(engine_case.open(url), engine_case.open(engine_case.database()), ["k_int"])
    staging.build()
    for fmt in staging.formats("k_int"):
        assert staging.load("k_int", fmt) == 0
        assert staging.rows("k_int") == 0


def test_a_broken_stream_leaves_nothing(engine_case: Case) -> None:
    """A producer that fails half-way rolls its chunk back, rows and ledger line."""
    source, target = engine_case.open(engine_case.sample()), engine_case.open(engine_case.database())
    staging = engine_case.begin(source, target, ["person"])
    staging.build()
    fmt = staging.formats("person")[-1]

    class ProducerError(Exception):
        pass

    def blocks() -> object:
        yield from staging.blocks("person", fmt)
        raise ProducerError

    for fast in (True, False):
        chunk = Chunk(run=staging.record.id, table=staging.staged("person"), number=0, epoch=staging.record.epoch)
        with pytest.raises((ProducerError, DBLensError)):
            target.load(staging.staged("person"), staging.fields("person"), fmt, blocks(), chunk, fast=fast)  # type: ignore[arg-type]
        assert target.ledger(staging.record.id) == []
        assert staging.rows("person") == 0
    assert staging.load("person", fmt) == 5


def test_rows_that_do_not_fit_are_an_error(engine_case: Case) -> None:
    """Strict: NULL into a NOT NULL column is never made something else."""
    source, target = engine_case.open(engine_case.sample()), engine_case.open(engine_case.database())
    staging = engine_case.begin(source, target, ["purchase"])
    staging.build()
    if source.inspect().tables[0].inferred:
        pytest.skip("documents have no NOT NULL")
    fields = staging.fields("purchase")
    block = Block(data=[("7", None, "1", None)], size=10, rows=1)
    chunk = Chunk(run=staging.record.id, table=staging.staged("purchase"), number=0, epoch=staging.record.epoch)
    with pytest.raises(DBLensError):
        target.load(staging.staged("purchase"), fields, "rows", [block], chunk, fast=False)
    assert staging.rows("purchase") == 0
