"""The store's database: where it lies, and its transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
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

    def __init__(self, engine: sa.Engine, place: str, path: Path | None = None) -> None:
        self.engine = engine
        self.place = place
        """Where it lies, without a password."""
        self.path = path
        """The file, when it is one."""

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """Open the store at `sqlite:///path` or `postgresql://…`. Raises InvalidInput, StoreError."""
        if url.startswith("sqlite:///"):
            path = Path(url.removeprefix("sqlite:///"))
            return cls(_sqlite(path, create), url, path)
        if url.startswith("postgresql://"):
            address = sa.make_url(url).set(drivername="postgresql+psycopg")
            engine = sa.create_engine(
                address,
                pool_pre_ping=True,
                hide_parameters=True,
                isolation_level="READ COMMITTED",
                # A statement kept prepared fails once its table was altered by an upgrade beside us; a proxy keeps none either.
                connect_args={"prepare_threshold": None},
            )
            return cls(engine, address.set(query={}).render_as_string(hide_password=True))
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
    def altering(self) -> Iterator[sa.Connection]:
        """Begin the one transaction that may alter tables; on SQLite without enforcing references, so the caller checks them.

        SQLite alters a table by making it anew, and dropping the old one would delete every row that refers to it.
        """
        with self._failing(), self.engine.connect() as connection:
            lite = self.engine.dialect.name == "sqlite"
            try:
                with connection.begin():
                    if lite:
                        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
                        connection.exec_driver_sql("BEGIN IMMEDIATE")
                    yield connection
            finally:
                if lite and not connection.invalidated:
                    connection.exec_driver_sql("PRAGMA foreign_keys=ON")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Begin a transaction that only reads, all of it at one instant on every engine."""
        lite, engine = self.engine.dialect.name == "sqlite", self.engine
        if not lite:
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with self._failing(), engine.connect() as connection, connection.begin():
            if lite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            raise StoreError(
                f"the store {self.place} does not answer: {_first_line(error)}", hint="check that it is there"
            ) from error
        except (sa.exc.DataError, UnicodeEncodeError) as error:
            raise InvalidInput(
                "a value cannot be kept by the store: too long, or with a character that no database keeps",
                hint="shorten it; leave out NUL and lone surrogates",
            ) from error
        except sa.exc.DatabaseError as error:
            if type(error) is not sa.exc.DatabaseError:  # a broken rule, a wrong statement: the caller's to tell
                raise
            raise StoreError(
                f"the store {self.place} is damaged: {_first_line(error)}",
                hint="restore a backup: `dblens store restore`",
            ) from error

    def create_all(self) -> None:
        """Make every table (tests only; real stores are made by revisions)."""
        metadata.create_all(self.engine)

    def close(self) -> None:
        """Close its connections."""
        self.engine.dispose()


def _first_line(error: sa.exc.DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)


def _sqlite(path: Path, create: bool) -> sa.Engine:
    try:
        _private(path, create)
    except OSError as error:
        raise StoreError(
            f"no store can be at {path}: {error.strerror}", hint="name a file in a folder of yours"
        ) from error
    # Not as text: in a path, ? and % are only characters.
    address = sa.URL.create("sqlite", database=str(path))
    engine = sa.create_engine(address, hide_parameters=True, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # transactions are begun by us, not guessed by the driver
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "synchronous=FULL", "trusted_schema=OFF"):
            raw.execute(f"PRAGMA {pragma}")
        _write_ahead(raw)

    return engine


def _private(path: Path, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a folder", hint="name a file in it")
    if not path.exists():
        if not create:
            raise StoreError(f"no store at {path}", hint="`dblens store upgrade` makes one")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made before SQLite opens it, so that nobody else can read it even for a moment; -wal and -shm take over its mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    if path.stat().st_mode & 0o077:
        raise StoreError(f"{path} can be read by others", hint=f"chmod 600 {path}")


def _write_ahead(raw: Any) -> None:
    """Switch to a write-ahead log. Of two processes that do it at once SQLite refuses one without waiting."""
    end = time.monotonic() + 30
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
