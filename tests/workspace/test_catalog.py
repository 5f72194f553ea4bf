"""The catalog as a door: stored connections and addresses, rights, and results that travel as JSON."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dblens
from dblens.engines.base import Rendered
from dblens.errors import InvalidInput, NotFound, PermissionDenied
from dblens.migrate.link import link
from dblens.schema.changes import AddColumn, Change
from dblens.schema.compare import Options, Renamed
from dblens.schema.model import Schema, TableRef
from dblens.workspace.catalog import Differences
from tests.workspace.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.connection("src", rows=5)
    made.connection("other", rows=5)
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("alter table t add column y integer")
    yield made
    made.close()


def again(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def test_a_stored_connection_is_read_by_name(desk: Desk) -> None:
    catalog = desk.as_("ann").catalog
    schema = catalog.schema("src")
    assert [c.name for c in schema.tables[0].columns] == ["id", "x"]
    assert [ref.name for ref in catalog.tables("src")] == ["t"]
    with pytest.raises(NotFound, match="no namespace 'zz'"):
        catalog.schema("src", namespaces=["zz"])
    assert desk.rows("catalog.schema")[0].connection_id == desk.as_("ann").connections.read("src").id


def test_two_connections_are_compared_with_statements(desk: Desk) -> None:
    found = desk.as_("ann").catalog.compare("src", "other", statements=True)
    assert [type(c) for c in found.changes] == [AddColumn]
    assert not found.equal
    assert "ADD COLUMN" in found.statements[0].statements[0].upper()
    assert desk.as_("ann").catalog.compare("src", "src").equal


def test_everything_that_travels_comes_back_the_same(desk: Desk) -> None:
    catalog = desk.as_("ann").catalog
    a, b = catalog.schema("src"), catalog.schema("other")
    assert again(a, Schema) == a
    changes = catalog.diff(again(a, Schema), again(b, Schema))
    assert again(changes, tuple[Change, ...]) == changes
    rendered = catalog.statements(a, again(changes, list[Change]))
    assert again(rendered, list[Rendered]) == rendered
    assert again(catalog.tables("src"), list[TableRef]) == catalog.tables("src")
    found = catalog.compare("src", "other", statements=True)
    assert again(found, Differences) == found
    options = Options(
        ignore=frozenset({"owner"}),
        namespaces={"a": "b"},
        renamed=(Renamed(namespace="main", old="t", new="u"), Renamed(namespace="main", table="u", old="x", new="z")),
    )
    assert again(options, Options) == options
    assert catalog.create(a) == desk.at_home().catalog.create(again(a, Schema))


def test_who_may_look(desk: Desk) -> None:
    src = desk.as_("ann").connections.read("src").id
    for name in ("bob", "eve"):
        with pytest.raises(NotFound):
            desk.as_(name).catalog.schema("src")
    desk.share(src, "bob", "view")
    assert desk.as_("bob").catalog.schema("src").tables
    for other in ("other", desk.as_("ann").connections.read("other").id):
        with pytest.raises(NotFound):
            desk.as_("bob").catalog.compare("src", other)
    desk.share(src, "aud", "view")
    with pytest.raises(PermissionDenied):
        desk.as_("aud").catalog.schema("src")
    with pytest.raises(PermissionDenied):
        desk.as_("vic").catalog.diff(desk.at_home().catalog.schema("src"), desk.at_home().catalog.schema("src"))


def test_an_address_is_for_ones_own_machine_only(desk: Desk) -> None:
    url = f"sqlite:///{desk.folder}/src.db"
    assert dblens.open().catalog.schema(url).tables
    assert dblens.open().catalog.schema(link(url)).tables
    for side in (url, link(url)):
        with pytest.raises(InvalidInput, match="single-user"):
            desk.as_("ann").catalog.schema(side)
