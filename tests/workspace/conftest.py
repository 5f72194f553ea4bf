"""A context over a store, SQLite then PostgreSQL, with connections that need no row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.errors import NotFound
from dblens.store.audit import Row
from dblens.store.audit_find import Filter, every
from dblens.store.database import Store
from dblens.workspace.context import Context, Held
from dblens.workspace.journal import Journal
from dblens.workspace.permissions import SYSTEM_ROLES
from dblens.workspace.principal import Principal
from tests.store.conftest import store
from tests.workspace.people import Template, World

__all__ = ["store"]

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
KEY = b"k" * 32


class Shelf:
    """Connections by name: whose, and the grant."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}

    def put(self, name: str, grant: Any, org_id: str = "acme") -> None:
        self.held[name] = Held(id=f"id-{name}", org_id=org_id, grant=grant)

    def connection(self, principal: Principal, reference: object) -> Held:
        found = self.held.get(str(reference))
        if found is None:
            raise NotFound(f"no connection {reference!r}")
        return found


def somebody(role: str | None, **more: Any) -> Principal:
    given: dict[str, Any] = {
        "kind": "account",
        "user_id": "u1",
        "name": "ann",
        "org_id": "acme",
        "authenticated_at": NOW,
    }
    if role is not None:
        known = SYSTEM_ROLES[role]
        given |= {"role": role, "rank": known.rank, "permissions": known.permissions}
    return Principal(**given | more)


@pytest.fixture
def journal(store: Store) -> Iterator[Journal]:
    made = Journal(store, KEY, age=30)
    yield made
    made.close()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def context(store: Store, journal: Journal, shelf: Shelf) -> Callable[..., Context]:
    def make(role: str | None = "developer", **more: Any) -> Context:
        return Context(store=store, principal=somebody(role, **more), journal=journal, access=shelf, clock=lambda: NOW)

    return make


@pytest.fixture
def rows(store: Store, journal: Journal) -> Callable[[], list[Row]]:
    """What the audit holds, oldest first, with what waits."""

    def read() -> list[Row]:
        journal.flush()
        return list(every(store, None, Filter()))

    return read


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("people"))


@pytest.fixture
def world(template: Template, tmp_path: Path) -> Iterator[World]:
    made = template.world(tmp_path, 0)
    yield made
    made.close()
    made.house.store.close()


@pytest.fixture
def either(store: Store, tmp_path: Path) -> Iterator[World]:
    """The same over SQLite, then PostgreSQL."""
    made = World(store, tmp_path)
    yield made
    made.close()
