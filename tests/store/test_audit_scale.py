"""Filters of a large audit go by an index: no question about one user, connection or action reads the whole of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.store import audit_find
from dblens.store.audit_find import Filter
from dblens.store.database import Store
from dblens.store.tables import audit
from tests.store.conftest import store

__all__ = ["store"]
AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
ROWS = 20_000
QUESTIONS = {
    "of one user, everywhere": (None, Filter(actor_id="user-7")),
    "of one user": ("org-1", Filter(actor_id="user-7")),
    "on one connection": ("org-1", Filter(connection_id="connection-77")),
    "of one operation": ("org-1", Filter(action="rare.one")),
    "of one noun": ("org-1", Filter(action="rare.*")),
    "of the last hour": ("org-1", Filter(since=AT + dt.timedelta(seconds=ROWS - 3600))),
    "between two instants": ("org-1", Filter(since=AT + dt.timedelta(hours=2), until=AT + dt.timedelta(hours=2.1))),
}


@pytest.fixture
def large(store: Store) -> Store:
    row = {"phase": "read", "actor": "a", "client": "", "address": "", "detail": {}, "previous": b"", "mac": b""}
    with store.write() as tx:
        tx.execute(
            audit.insert(),
            [
                {
                    **row, "number": n, "at": AT + dt.timedelta(seconds=n), "org_id": f"org-{n % 3}",
                    "actor_id": f"user-{n % 500}", "connection_id": f"connection-{n % 900}",
                    "action": "rare.one" if n % 1000 == 1 else f"noun.verb{n % 7}",
                }
                for n in range(1, ROWS + 1)
            ],
        )  # fmt: skip
        tx.exec_driver_sql("ANALYZE")
    return store


def plan(store: Store, monkeypatch: pytest.MonkeyPatch, org: str | None, which: Filter) -> str:
    """Return how the engine answers a question, as `find` asks it."""
    asked: list[Any] = []
    with store.read() as tx:
        real = tx.execute
        monkeypatch.setattr(tx, "execute", lambda query, *a, **k: asked.append(query) or real(query, *a, **k))
        audit_find.find(tx, org, which)
        monkeypatch.undo()
        (query,) = asked
        text = str(query.compile(tx.engine, compile_kwargs={"literal_binds": True})).replace("%%", "%")
        how = "EXPLAIN QUERY PLAN " if tx.dialect.name == "sqlite" else "EXPLAIN "
        # As the driver gets it when it is given no parameters: a percent sign is only a character.
        return "\n".join(str(row[-1]) for row in tx.execute(sa.text((how + text).replace(":", "\\:"))))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_narrow_question_goes_by_an_index(large: Store, monkeypatch: pytest.MonkeyPatch, question: str) -> None:
    org, which = QUESTIONS[question]
    told = plan(large, monkeypatch, org, which)
    assert "Seq Scan" not in told, told
    assert "SCAN audit" not in told, told
    assert "ix_audit" in told or "pk_audit" in told or "PRIMARY KEY" in told, told
