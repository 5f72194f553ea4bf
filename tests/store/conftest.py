"""One store after the other: a SQLite file, a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dblens.store.database import Store
from tests.servers.fixtures import require


@pytest.fixture(params=["sqlite", "pg15"])
def store(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[..., str]) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}" if request.param == "sqlite" else new_database(require("pg15"))
    opened = Store.open(url)
    opened.create_all()
    yield opened
    opened.close()
