"""How Alembic runs a revision: on the connection and inside the transaction that `dblens.store.upgrade` opened."""

from __future__ import annotations

from typing import Literal

from alembic import context

from dblens.store.tables import UtcTime, metadata


def _drafted(kind: str, item: object, _: object) -> str | Literal[False]:
    """Write a type of ours as what the database sees: a revision must not change when our code does."""
    return "sa.BigInteger()" if kind == "type" and isinstance(item, UtcTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column: the table is made anew beside it
    transactional_ddl=True,  # on SQLite too, because its driver does not commit by itself here
    compare_type=True,
    render_item=_drafted,
)
context.run_migrations()
