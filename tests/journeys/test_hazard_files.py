"""The hazard corpus through files: query → Arrow → file → load into the same database; each value equal, or in a list of losses.

The judge asks the database for both tables and compares what it says; the load's own verdict is of the file and the new table only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import dblens
from dblens.errors import InvalidInput
from dblens.migrate.link import Link, link
from dblens.query.export.model import Options
from dblens.query.export.target import Target
from tests.hazards import load_corpus
from tests.servers.fixtures import require

arrow = pytest.importorskip("dblens.engines.arrow")
pytest.importorskip("pyarrow")
pytest.importorskip("xlsxwriter")
FORMATS: Final = ("csv", "tsv", "jsonl", "parquet", "arrow", "xlsx")
ENGINES: Final = {
    "pg15": "postgresql", "pg18": "postgresql", "mariadb": "mysql", "mysql": "mysql", "sqlite": "sqlite", "mongo": "mongodb",
}  # fmt: skip
REFUSED: Final = {
    "xlsx": "a workbook's cell holds 32767",  # the 524,288 characters of the corpus: by the export, which leaves no file
    "jsonl": "surrogate",  # octets in SQLite's texts that are no UTF-8: by the load, which writes nothing
}
CASES = [("sqlite", each) for each in FORMATS] + [("pg15", "csv"), ("mongo", "jsonl")]
REST = [(kind, each) for kind in ENGINES for each in FORMATS if (kind, each) not in CASES]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "format"), CASES)
def test_every_value_comes_back_or_is_listed(
    kind: str, format: Any, new_database: Callable[..., str], tmp_path: Path
) -> None:
    _round(kind, format, new_database, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "format"), REST)
def test_every_value_comes_back_or_is_listed_the_rest(
    kind: str, format: Any, new_database: Callable[..., str], tmp_path: Path
) -> None:
    _round(kind, format, new_database, tmp_path)


def _round(kind: str, format: Any, new_database: Callable[..., str], folder: Path) -> None:
    url = new_database(require(kind))
    corpus = load_corpus(url, ENGINES[kind])
    assert sum(len(table.hazards) for table in corpus) > 20
    ws, side = dblens.open(), link(url, allow_password=True)
    wrong, refused, listed = [], 0, 0
    for number, table in enumerate(corpus):
        file, new = folder / f"{number}.{format}", f"n{number}"
        try:
            with Target(str(file)) as target:
                made = ws.queries.export(
                    side, table.name, target.write, format, table=True, options=Options(style="exact")
                )
                target.publish(made.sidecar)
            loaded = ws.queries.load(side, str(file), new, accept=["all"])
        except InvalidInput as error:
            if REFUSED.get(format, "\0") not in error.message:
                raise
            refused += 1
            continue
        assert loaded.equal
        losses = sum(each.count for each in (*made.losses, *loaded.losses))
        before, after = _texts(ws, side, table.name), _texts(ws, side, new)
        assert len(before) == len(after) == loaded.rows
        differing = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        listed += losses
        if len(differing) > losses:
            wrong.append((table.name, losses, differing[:3]))
    print(f"{kind} {format}: {len(corpus)} tables, {refused} refused, {listed} values listed as losses")
    assert not wrong, wrong
    assert refused <= 1


def _texts(ws: Any, side: Link, table: str) -> list[tuple[bytes | None, ...]]:
    """Return a table's rows as the database tells them, in their canonical texts, by key."""
    quoted = side.engine.ddl.quote(table)
    text = f'db["{table}"].find({{}})' if side.engine.facts.documents else f"select * from {quoted}"
    found = ws.query(side, text, limit=None).last.arrow(raw=True)
    return sorted((tuple(map(_plain, row)) for row in arrow.canonical_rows(found)), key=repr)


def _plain(octets: bytes | None) -> bytes | None:
    """Return a text without SQLite's class before it: a column of one class may come back as a column that says so."""
    return octets[2:] if octets is not None and octets[:2] in (b"i:", b"r:", b"t:", b"b:") else octets
