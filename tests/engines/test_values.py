"""The verifier's reading: the engine renders and hashes every hazard as the canonical forms say, without the help of our codec."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dblens.engines.base import ALL, Field, Target
from dblens.schema.model import Table
from dblens.schema.types import Document
from dblens.values.codec import canonical
from dblens.values.digest import bucket_of, row_digest
from dblens.values.forms import Form
from tests.engines.support import Case, inspected, summed
from tests.hazards import CorpusTable

Row = tuple[bytes | None, ...]


class Prepared(NamedTuple):
    session: Target
    table: Table
    corpus: CorpusTable
    fields: list[Field]


def prepared(case: Case, name: str) -> Prepared:
    url, tables = case.corpus()
    if name not in tables:
        pytest.skip("this server has no such type")
    corpus = tables[name]
    session = case.open(url)
    sampled = inspected(session, name)
    table = session.profile(sampled)
    # A field that is no column of its own after the full scan can still be read by its path.
    by_name = {c.name: c for c in (*sampled.columns, *table.columns)}
    key = next(c for n, c in by_name.items() if n in ("id", "_id"))
    if corpus.form == Form.BSON:
        whole = next(c for c in table.columns if c.type == Document() and not c.path)
        return Prepared(session, table, corpus, [Field(column=key, form=Form.INT), Field(column=whole, form=Form.BSON)])
    fields = [Field(column=key, form=Form.INT), Field(column=by_name["v"], form=corpus.form)]
    return Prepared(session, table, corpus, fields)


def sort(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda r: int(r[0] or b"0"))


def test_canonical_texts(engine_case: Case, corpus_table: str) -> None:
    """`canonical_rows(exact=True)` is what was written down by hand."""
    session, table, corpus, fields = prepared(engine_case, corpus_table)
    got = sort(list(session.canonical_rows(table, fields, exact=True)))
    assert len(got) == len(corpus.rows)
    wrong = [
        (hazard.id, have[1], want[1])
        for hazard, have, want in zip(corpus.hazards, got, corpus.rows, strict=True)
        if have != want
    ]
    assert wrong == []


def test_fingerprint(engine_case: Case, corpus_table: str) -> None:
    """The engine's digest is the digest of those texts; JSON may be hashed in the engine's own normal form."""
    session, table, corpus, fields = prepared(engine_case, corpus_table)
    got = session.fingerprint(table, fields)
    rows = list(session.canonical_rows(table, fields))
    assert got == summed(rows), "fingerprint and canonical_rows disagree"
    if corpus.form != Form.JSON:
        assert sort(rows) == corpus.rows
        assert got == summed(corpus.rows)


def test_exported_values(engine_case: Case, corpus_table: str) -> None:
    """The copier's exchange values, rendered by the codec, are the same texts: copier and verifier agree by way of a third."""
    session, table, corpus, fields = prepared(engine_case, corpus_table)
    if "rows" not in session.formats_out(table, fields):
        pytest.skip("these fields travel as whole documents only")
    got: list[Row] = []
    for block in session.export(table, fields, "rows"):
        for row in block.data:
            values = tuple(row)
            got.append(tuple(canonical(f.form, v) for f, v in zip(fields, values, strict=True)))
    wrong = [
        (hazard.id, have[1], want[1])
        for hazard, have, want in zip(corpus.hazards, sort(got), corpus.rows, strict=True)
        if have != want
    ]
    assert wrong == []


def test_buckets_select_rows(engine_case: Case, corpus_table: str) -> None:
    session, table, _, fields = prepared(engine_case, corpus_table)
    rows = list(session.canonical_rows(table, fields))
    wanted = frozenset(bucket_of(row_digest(r)) for r in rows[::2])
    expected = [r for r in rows if bucket_of(row_digest(r)) in wanted]
    assert sort(list(session.canonical_rows(table, fields, buckets=wanted))) == sort(expected)
    assert list(session.canonical_rows(table, fields, buckets=frozenset())) == []
    exact = list(session.canonical_rows(table, fields, buckets=wanted, exact=True))
    assert [r[0] for r in sort(exact)] == [r[0] for r in sort(expected)]


def test_where_and_order_of_fields(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    table = session.profile(inspected(session, "plain"))
    fields = [Field(column=table.column("b"), form=Form.TEXT), Field(column=table.column("a"), form=Form.INT)]
    rows = sorted(session.canonical_rows(table, fields), key=str)
    assert rows == [(None, b"2"), (b"same", b"1"), (b"same", b"1")]
    assert session.fingerprint(table, fields, keys=ALL) == summed(rows)


def test_constants(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    table = session.profile(inspected(session, "plain"))
    column = table.column("b")
    fields = [
        Field(column=table.column("a"), form=Form.INT),
        Field(column=column, form=Form.TEXT, is_constant=True, constant="it's %s \\"),
        Field(column=column, form=Form.TEXT, is_constant=True),
    ]
    rows = sorted(session.canonical_rows(table, fields))
    assert rows == [(n, b"it's %s \\", None) for n in (b"1", b"1", b"2")]
    assert session.fingerprint(table, fields) == summed(rows)


def test_an_empty_table(engine_case: Case) -> None:
    url = engine_case.database()
    engine_case.harness.keyed(url, "k_int", 0)
    session = engine_case.open(url)
    table = inspected(session, "k_int")
    fields = [Field(column=c, form=Form.INT) for c in table.columns]
    assert session.fingerprint(table, fields).total.count == 0
    assert list(session.canonical_rows(table, fields)) == []
    assert session.count(table) == 0
