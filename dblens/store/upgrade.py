"""Bring a store to the revision that this DBLens expects, back again, and tell whether it is sound.

One transaction per call: a process that is killed in the middle leaves the old tables or the new ones. On SQLite the transaction is
`BEGIN IMMEDIATE`, on PostgreSQL it holds an advisory lock, so of two processes one does the work and the other finds it done.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput, StoreError
from dblens.store.database import Store, Transaction
from dblens.store.tables import metadata

if TYPE_CHECKING:
    # Half a second to import, and nothing of it is needed to open a store whose tables fit.
    from alembic.config import Config
    from alembic.script import ScriptDirectory

REVISIONS = Path(__file__).parent / "revisions"
_LOCK = 0x64626C656E73  # "dblens": the advisory lock's number
_BUSY = "55P03"  # the lock was not had in time
_PATIENCE = 60.0
_alembic = threading.Lock()  # Alembic keeps its context in module globals


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that `check` looked at; `detail` says what is wrong, empty when it is `ok`."""

    what: Literal["revision", "schema", "integrity", "references", "privacy"]
    ok: bool
    detail: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """From which revision to which an upgrade or downgrade went; None is a store without tables."""

    before: str | None
    after: str | None


def head() -> str:
    """Return the revision that this DBLens expects."""
    found = [file.name[1:].partition("_")[0] for file in (REVISIONS / "versions").glob("r*_*.py")]
    if not found:
        raise StoreError(f"no revision under {REVISIONS}", hint="install DBLens again")
    return max(found)


def current(store: Store) -> str | None:
    """Return the store's revision, None when it has no tables. Raises StoreError."""
    with store.read() as tx:
        return _current(tx)


def open_store(url: str, *, create: bool = True) -> Store:
    """Open a store whose tables fit this DBLens; a brand-new SQLite file gets its tables at once.

    Raises StoreError for an older store (it is upgraded on purpose only), for a newer one, and for a database of something else.
    """
    store = Store.open(url, create=create)
    try:
        _fit(store)
    except BaseException:
        store.close()
        raise
    return store


def _fit(store: Store) -> None:
    with store.read() as tx:
        revision = _current(tx)
        if revision == head():
            return
        names = sa.inspect(tx).get_table_names()
    if revision is None:
        if names:
            raise StoreError(f"{store.place} is not a DBLens store: it holds {names[0]!r}", hint="name another place")
        if store.engine.dialect.name == "sqlite":
            upgrade(store)
            return
        raise StoreError(f"the store {store.place} has no tables", hint="run `dblens store upgrade`")
    _known(store, revision)
    raise StoreError(
        f"the store {store.place} has revision {revision}, this DBLens needs {head()}",
        hint="back it up, then run `dblens store upgrade`",
    )


def upgrade(store: Store) -> Moved:
    """Go to the newest revision. Waits for another process that does the same. Raises StoreError."""
    from alembic import command

    return _move(store, lambda config: command.upgrade(config, "head"))


def downgrade(store: Store, revision: str) -> Moved:
    """Go back to a revision; `base` drops every table with all that is in them. Raises InvalidInput, StoreError."""
    if revision != "base" and revision not in revisions():
        raise InvalidInput(f"no revision {revision!r}", hint=f"one of base, {', '.join(revisions())}")
    from alembic import command

    return _move(store, lambda config: command.downgrade(config, revision))


def revisions() -> tuple[str, ...]:
    """Return all revisions that this DBLens knows, oldest first."""
    return tuple(reversed([item.revision for item in _script().walk_revisions()]))


def draft(store: Store, message: str) -> Path:
    """Write the next revision from what `tables.py` has and an upgraded store lacks; return its file. For developers."""
    from alembic import command

    number = f"{int(head()) + 1:04}"
    with altering(store) as tx, _alembic:
        config = _config(REVISIONS)
        config.attributes["connection"] = tx
        made = command.revision(config, message, autogenerate=True, rev_id=number)
    if made is None or isinstance(made, list):
        raise StoreError(f"no draft of revision {number} was made", hint="one draft at a time")
    return Path(made.path)


def check(store: Store) -> tuple[Finding, ...]:
    """Look at revision, tables, pages, references and file modes; report all of it. Raises StoreError when it cannot be read."""
    with store.read() as tx:
        revision = _current(tx)
        findings = [
            Finding(what="revision", ok=revision == head(), detail="" if revision == head() else _off(revision)),
            _schema(tx),
        ]
    if store.path is not None:
        findings += [*_pages(store), _privacy(store.path)]
    return tuple(findings)


def _pages(store: Store) -> list[Finding]:
    """Check a file page by page; where pages are broken, references cannot be followed."""
    try:
        with store.read() as tx:
            told = [row[0] for row in tx.exec_driver_sql("PRAGMA integrity_check(10)")]
            broken = _dangling(tx) if told == ["ok"] else ""
    except StoreError as error:
        told = [error.message]
    if told != ["ok"]:
        return [Finding(what="integrity", ok=False, detail="; ".join(told))]
    return [Finding(what="integrity", ok=True), Finding(what="references", ok=not broken, detail=broken)]


def _off(revision: str | None) -> str:
    return f"{revision or 'no tables'}, this DBLens needs {head()}"


def _schema(tx: Transaction) -> Finding:
    if _current(tx) is None:
        return Finding(what="schema", ok=False, detail="no tables of a store")
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(tx, opts={"compare_type": True, "target_metadata": metadata})
    drift = [_told(item) for item in compare_metadata(context, metadata)]
    return Finding(what="schema", ok=not drift, detail="; ".join(drift))


def _told(item: object) -> str:
    """Say one of Alembic's differences in a line: `add_table runs` is a table that is missing in the store."""
    if isinstance(item, list):  # changes of one column come grouped
        return ", ".join(_told(part) for part in item)
    assert isinstance(item, tuple)
    words = [
        str(getattr(part, "name", part)) for part in item[1:] if part is not None and not isinstance(part, dict | bool)
    ]
    return " ".join([str(item[0]), *words])


def _privacy(path: Path) -> Finding:
    open_to: list[str] = []
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                open_to.append(f"{file} has mode {mode:03o}, must be 600")
    folder = stat.S_IMODE(path.parent.stat().st_mode)
    if folder & 0o022 and not folder & stat.S_ISVTX:
        open_to.append(f"{path.parent} has mode {folder:03o}: others could replace the file")
    if path.stat().st_uid not in (os.geteuid(), 0):
        open_to.append(f"{path} belongs to another user")
    return Finding(what="privacy", ok=not open_to, detail="; ".join(open_to))


def _dangling(tx: Transaction) -> str:
    rows = tx.exec_driver_sql("PRAGMA foreign_key_check").all()
    return "; ".join(f"row {row[1]} of {row[0]} refers to no row of {row[2]}" for row in rows[:10])


def _current(tx: Transaction) -> str | None:
    if not sa.inspect(tx).has_table("alembic_version"):
        return None
    return tx.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _script(folder: Path | None = None) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(folder or REVISIONS))


def _config(folder: Path) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder / "versions").replace("%", "%%"))
    config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "newline")  # a folder's name may hold a space or a colon
    return config


def _known(store: Store, revision: str | None) -> None:
    if revision is not None and revision not in revisions():
        raise StoreError(
            f"the store {store.place} has revision {revision}, which this DBLens does not know (its newest is {head()})",
            hint="it was written by a newer DBLens: install that one",
        )


def _move(store: Store, step: Callable[[Config], None]) -> Moved:
    with altering(store) as tx:
        return move(store, tx, step)


def move(store: Store, tx: Transaction, step: Callable[[Config], None]) -> Moved:
    """Run one of Alembic's commands inside a transaction of `altering`."""
    from alembic.util import CommandError

    before = _current(tx)
    _known(store, before)
    config = _config(REVISIONS)
    config.attributes["connection"] = tx
    with _alembic:
        try:
            step(config)
        except CommandError as error:
            raise StoreError(f"the store {store.place} cannot go on from {before}: {error}") from error
    return Moved(before=before, after=_current(tx))


@contextlib.contextmanager
def altering(store: Store) -> Iterator[Transaction]:
    """Begin the only transaction that may alter tables, and keep it only when every reference still holds."""
    with store.altering() as tx:
        if tx.dialect.name == "postgresql":
            tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            _alone(tx)
        yield tx
        if tx.dialect.name == "sqlite" and (broken := _dangling(tx)):
            raise StoreError(f"nothing was changed: {broken}", hint="`dblens store check` shows all")


def _alone(tx: Transaction) -> None:
    """Lock every table at once, or none: taken one by one while others work, of two that wait for each other one is ended.

    Half the time after which PostgreSQL looks for such a pair we give way, so that it is never the other's work that ends.
    """
    names = [name for name in sa.inspect(tx).get_table_names() if name in metadata.tables]
    if not names:
        return
    quoted = ", ".join(tx.dialect.identifier_preparer.quote(name) for name in names)
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with tx.begin_nested():
                tx.exec_driver_sql("SET LOCAL lock_timeout = '400ms'")
                tx.exec_driver_sql(f"LOCK TABLE {quoted} IN ACCESS EXCLUSIVE MODE")
                tx.exec_driver_sql("SET LOCAL lock_timeout = 0")
            return
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _BUSY or time.monotonic() > end:
                raise
            time.sleep(0.05)
