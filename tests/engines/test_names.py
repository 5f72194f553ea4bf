"""Hostile identifiers: they come through exactly or are refused by name; nothing they say is ever done."""

from __future__ import annotations

import pytest

from dblens.engines.base import Field
from dblens.errors import DBLensError, InvalidInput
from dblens.values.forms import Form
from tests.engines.support import Case, Staging, inspected

NAMES = (
    'quo"te', "back`tick", "apos'trophe", "br[ack]et", "x; DROP TABLE canary; --", "-- comment", "/* comment */", "%s %(name)s %%", "{} {0} {x!r}",
    "back\\slash", "new\nline", "tab\there", " lead", "dot.ted", "select", "Table", "MiXeD", "rtl שלום", "emoji 😀", "ünïcödé", "日本", "?", ":name",
    "$1", "@v", "#hash", "a,b", "(x)", "=1+1", "'", '"', "`", "''", '""', "e\u0301", "x\u200by",
)  # fmt: skip


def test_hostile_names_come_through(engine_case: Case) -> None:
    """One test, for databases are dear; the message says which names failed, and how."""
    url, other = engine_case.database(), engine_case.database()
    engine_case.harness.keyed(url, "k_int", 2, "canary")
    engine_case.harness.keyed(other, "k_int", 2, "canary")
    source, target = engine_case.open(url), engine_case.open(other)
    wrong: list[str] = []
    there = {"canary"}
    for number, name in enumerate(NAMES):
        if name in engine_case.harness.UNNAMEABLE:
            with pytest.raises(InvalidInput):
                engine_case.engine.ddl.quote(name)
            continue
        try:
            engine_case.harness.named(url, name)
            there.add(name)
            _come_through(engine_case.begin(source, target, [name], run=f"n{number}"), name)
        except (DBLensError, AssertionError) as error:
            wrong.append(f"{name!r}: {str(error)[:300]}")
    assert wrong == []
    for session in (source, target):
        assert {t.name for t in session.inspect().tables} == there
        assert session.count(inspected(session, "canary")) == 2


def _come_through(staging: Staging, name: str) -> None:
    target = staging.target
    staging.build()
    for fmt in staging.formats(name):
        target.forget_chunks(staging.record.id)
        assert staging.load(name, fmt) == 1
        theirs, ours = staging.prints(name)
        assert theirs == ours, fmt
    staging.build(after=True)
    target.renumber(staging.tables[name][1], staging.staged(name))
    done = target.swap(staging.record, staging.moves())
    target.close_run(done)
    table = inspected(target, name)
    assert name in [c.name for c in table.columns]
    fields = [Field(column=table.column(name), form=Form.TEXT)]
    assert list(target.canonical_rows(table, fields)) == [(b"x",)]


def test_the_longest_name(engine_case: Case) -> None:
    limit = min(engine_case.engine.facts.identifier_limit, 120)
    for name in (
        "n" * limit,
        "é" * (limit if engine_case.engine.facts.identifier_unit == "characters" else limit // 2),
    ):
        url = engine_case.database()
        engine_case.harness.named(url, name)
        staging = engine_case.begin(engine_case.open(url), engine_case.open(engine_case.database()), [name])
        staging.build()
        assert staging.load(name) == 1
        done = staging.target.swap(staging.record, staging.moves())
        assert staging.target.count(staging.at(name, staging.live(name))) == 1
        staging.target.close_run(done)


def test_a_nul_is_refused(engine_case: Case) -> None:
    with pytest.raises(InvalidInput):
        engine_case.engine.ddl.quote("a\0b")


def test_literals_come_back(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    if session.engine.facts.documents:
        pytest.skip("documents are not written as text")
    texts = ["", "it's", "\\", "\\'", "%s", "{}", "a\nb", "😀", "--", "NULL", "\t", "$$", ":x", "?"]
    for text in texts:
        try:
            literal = session.engine.ddl.literal(text)
        except DBLensError:
            pytest.fail(f"no literal for {text!r}")
        assert session.execute(f"SELECT {literal}").rows[0][0] == text
    assert session.execute(f"SELECT {session.engine.ddl.literal(None)}").rows[0][0] is None
