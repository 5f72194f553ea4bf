"""The store's database: where it lies, and its transactions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from dblens.errors import InvalidInput, StoreError
from dblens.store.tables import metadata

Transaction: TypeAlias = sa.Connection
"""What a store's chapters take; opaque above them."""


class Store:
    """An open store. Safe for several threads; a transaction belongs to one."""

    def __init__(self, engine: sa.Engine, place: str) -> None:
        self.engine = engine
        self.place = place
        """Where it lies, without a password."""

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """Open the store at `sqlite:///path` or `postgresql://…`. Raises InvalidInput, StoreError."""
        if url.startswith("sqlite:///"):
            return cls(_sqlite(Path(url.removeprefix("sqlite:///")), create), url)
        if url.startswith("postgresql://"):
            address = sa.make_url(url).set(drivername="postgresql+psycopg")
            engine = sa.create_engine(
                address, pool_pre_ping=True, hide_parameters=True, isolation_level="READ COMMITTED"
            )
            return cls(engine, address.render_as_string(hide_password=True))
        raise InvalidInput(
            f"no store: {url.partition(':')[0]!r}", hint="sqlite:///file or postgresql://user@host/database"
        )

    def write(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """Begin a transaction that may write; commit it, or roll it back on an exception. On SQLite one at a time."""
        return self._transaction("BEGIN IMMEDIATE")

    def read(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """Begin a transaction that only reads, all at one instant on SQLite."""
        return self._transaction("BEGIN")

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sa.Connection]:
        with self._failing(), self.engine.connect() as connection, connection.begin():
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql(begin)  # the driver begins none by itself: see `_prepare`
            yield connection

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:
            raise StoreError(
                f"the store {self.place} does not answer: {error.orig}", hint="check that it is there"
            ) from error

    def create_all(self) -> None:
        """Make every table (tests only; real stores are made by revisions)."""
        metadata.create_all(self.engine)

    def close(self) -> None:
        """Close its connections."""
        self.engine.dispose()


def _sqlite(path: Path, create: bool) -> sa.Engine:
    if not path.exists():
        if not create:
            raise StoreError(f"no store at {path}", hint="`dblens store upgrade` makes one")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made before SQLite opens it, so that nobody else can read it even for a moment; -wal and -shm take over its mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    if path.stat().st_mode & 0o077:
        raise StoreError(f"{path} can be read by others", hint=f"chmod 600 {path}")
    engine = sa.create_engine(f"sqlite:///{path}", hide_parameters=True, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # transactions are begun by us, not guessed by the driver
        for pragma in (
            "journal_mode=WAL",
            "foreign_keys=ON",
            "synchronous=FULL",
            "busy_timeout=30000",
            "trusted_schema=OFF",
        ):
            raw.execute(f"PRAGMA {pragma}")

    return engine
