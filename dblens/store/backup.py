"""Copy a whole store into one file and back, whatever the engine: from the laptop's SQLite to the team's PostgreSQL too.

The file is gzip of JSON lines: a header (format, revision), for each table a line with its columns and one line per row, at the
end a manifest with the number of rows and the SHA-256 of every table. It is read in one snapshot, written under another name,
flushed and renamed, so that there is a whole file or none; only its owner may read it.

It holds password hashes, wrapped keys and ciphertexts. It does not hold the key-encryption key: without that, every inline secret
in it (passwords of connections, SSH keys) is lost, and with it, whoever has both reads them all. Keep them in two places.
Tables are read as they are, not as this DBLens knows them, so an older archive is restored at its own revision and then upgraded.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import sqlalchemy as sa
from alembic import command

from dblens.errors import ArchiveCorrupt, ArchiveMissing, ArchiveTooNew, Conflict, StoreError
from dblens.store.database import Store, Transaction
from dblens.store.records import new_id
from dblens.store.upgrade import altering, current, head, move, revisions
from dblens.version import __version__

FORMAT = 1
KEK_CHECK = "kek.check"
LOST_WITHOUT_KEY = (
    "the key-encryption key is not in the backup: without it every secret kept in the store is lost (passwords of connections,"
    " SSH keys, mail and webhook secrets); keep it in another place than the backup"
)
_VERSIONS = "alembic_version"
_BATCH = 500
_GZIP = bytes.fromhex("1f8b08000000000002ff")  # the only header we write: no name, no time


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What is in an archive. `kek_check` is the check value of the key that its secrets need, None when it has none."""

    path: str
    revision: str
    created_at: dt.datetime
    engine: str
    version: str
    tables: dict[str, int]
    bytes: int
    sha256: str
    kek_check: str | None = None


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore wrote. `key_fits` is None when no secret needs a key, or none was there to try."""

    place: str
    before: str
    """The archive's revision."""
    revision: str
    """The store's, now."""
    tables: dict[str, int]
    kek_check: str | None = None
    key_fits: bool | None = None


# ----------------------------------------------------------------------------------------------------------------------- writing


def backup(store: Store, path: Path, *, now: dt.datetime) -> Backup:
    """Write all that is in a store to a file that does not exist yet. Raises Conflict, StoreError."""
    if path.exists():
        raise Conflict(f"{path} exists already", hint="name another file")
    if not path.parent.is_dir():
        raise ArchiveMissing(f"no folder {path.parent}", hint="make it first")
    revision = current(store)
    if revision is None:
        raise StoreError(f"the store {store.place} has no tables", hint="there is nothing to back up")
    part = path.with_name(f".{path.name}.{new_id()}.part")
    try:
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as raw:
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as out, store.snapshot() as tx:
                made = _write(tx, out, store.engine.dialect.name, now)
            raw.flush()
            os.fsync(raw.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(part, path)  # unlike a rename it never replaces a file that came meanwhile
            _flush(path.parent)
            return msgspec.structs.replace(made, path=str(path), bytes=path.stat().st_size, sha256=_digest(path))
        raise Conflict(f"{path} exists already", hint="name another file")
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}", hint="look at its folder and the space"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _write(tx: Transaction, out: gzip.GzipFile, engine: str, now: dt.datetime) -> Backup:
    tables = _tables(tx)
    revision = tx.execute(sa.text(f"SELECT version_num FROM {_VERSIONS}")).scalar_one()
    start = {"dblens_store": FORMAT, "revision": revision, "created_at": now, "engine": engine, "version": __version__}
    out.write(_line(start))
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        names = [str(column.name) for column in table.columns]
        out.write(_line({"table": str(table.name), "columns": names}))
        digest, count = hashlib.sha256(), 0
        for line in _rows(tx, table, names):
            digest.update(line)
            out.write(line)
            count += 1
        found[str(table.name)] = {"rows": count, "sha256": digest.hexdigest()}
    check = _kek_check(tx)
    out.write(_line({"end": True, "tables": found, "kek_check": check}))
    return Backup(
        path="",
        revision=revision,
        created_at=now,
        engine=engine,
        version=__version__,
        tables={name: each["rows"] for name, each in found.items()},
        bytes=0,
        sha256="",
        kek_check=check,
    )


def _kek_check(tx: Transaction) -> str | None:
    query = sa.text("SELECT value FROM meta WHERE key = :key")
    return tx.execute(query, {"key": KEK_CHECK}).scalar_one_or_none()


def _rows(tx: Transaction, table: sa.Table, names: list[str]) -> Iterator[bytes]:
    """Read a table as lines, in an order that is the same on every engine: so are the bytes, and their digest."""
    c_locale = tx.dialect.name == "postgresql"
    order = [
        sa.collate(column, "C") if c_locale and isinstance(column.type, sa.String) else column
        for column in table.primary_key.columns
    ]
    query = sa.select(*(table.c[name] for name in names)).order_by(*order)
    for row in tx.execute(query.execution_options(yield_per=_BATCH)):
        yield _line([_plain(value) for value in row])


def _plain(value: object) -> object:
    return base64.b64encode(bytes(value)).decode() if isinstance(value, bytes | memoryview) else value


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


class _JsonText(sa.types.TypeDecorator[str]):
    """A JSON column as the text that is in it, so that a copy has the same text and not only the same meaning."""

    impl = sa.Text
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(sa.type_coerce(bindvalue, sa.Text), sa.JSON)

    def column_expression(self, column: Any) -> Any:
        return sa.cast(column, sa.Text)


def _tables(tx: Transaction) -> tuple[sa.Table, ...]:
    """Return the store's tables as they are, those that others refer to first."""
    found = sa.MetaData()
    found.reflect(tx)
    for table in found.tables.values():
        for column in table.columns:
            if isinstance(column.type, sa.JSON):
                column.type = _JsonText() if tx.dialect.name == "postgresql" else sa.Text()
    return tuple(table for table in found.sorted_tables if table.name != _VERSIONS)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ----------------------------------------------------------------------------------------------------------------------- reading


def restore(path: Path, store: Store, *, fits: Callable[[str], bool] | None = None) -> Restored:
    """Write an archive into a store that is empty, all of it or nothing, then upgrade it to this DBLens.

    `fits` tells whether the present key is the one of a check value. Raises ArchiveMissing, ArchiveCorrupt, ArchiveTooNew,
    Conflict for a store that is not empty, StoreError.
    """
    with _opened(path) as archive, altering(store) as tx:
        _empty(tx, store)
        if archive.revision not in revisions():
            raise ArchiveTooNew(
                f"{path} has revision {archive.revision}, which this DBLens does not know (its newest is {head()})",
                hint="install the DBLens that wrote it, or a newer one",
            )
        move(store, tx, lambda config: command.downgrade(config, "base"))
        move(store, tx, lambda config: command.upgrade(config, archive.revision))
        check, counts = archive.copy_into(tx)
        moved = move(store, tx, lambda config: command.upgrade(config, "head"))
    return Restored(
        place=store.place,
        before=archive.revision,
        revision=moved.after or "",
        tables=counts,
        kek_check=check,
        key_fits=None if check is None or fits is None else fits(check),
    )


def _empty(tx: Transaction, store: Store) -> None:
    names = sa.inspect(tx).get_table_names()
    if names and _VERSIONS not in names:
        raise Conflict(f"{store.place} holds something else: {names[0]!r}", hint="name an empty place")
    for table in _tables(tx):
        if tx.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
            raise Conflict(f"the store {store.place} is not empty: {table.name!r} has rows", hint="name an empty place")


class _Archive:
    """An archive that is read from its first line to its last; nothing in it counts before the last one was checked."""

    def __init__(self, path: Path, file: gzip.GzipFile) -> None:
        self.path = path
        self.file = file
        start = self._next(dict)
        if not isinstance(start.get("dblens_store"), int):
            self._corrupt("it is not a backup of a store")
        if start["dblens_store"] > FORMAT:
            raise ArchiveTooNew(f"{path} has format {start['dblens_store']}", hint="install a newer DBLens")
        if not isinstance(start.get("revision"), str):
            self._corrupt("its first line")
        self.revision: str = start["revision"]

    def copy_into(self, tx: Transaction) -> tuple[str | None, dict[str, int]]:
        """Insert every row, check every digest over what the store then holds; return the key's check value and the counts."""
        tables = {table.name: table for table in _tables(tx)}
        digests: dict[str, dict[str, Any]] = {}
        line = self._next(dict)
        while "table" in line:
            table = tables.get(str(line["table"]))
            names = line.get("columns")
            if (
                table is None
                or table.name in digests
                or not isinstance(names, list)
                or set(names) != set(table.c.keys())
            ):
                self._corrupt(f"table {line['table']!r}")
            count, line = self._insert(tx, table, names)
            found = hashlib.sha256()
            for row in _rows(
                tx, table, names
            ):  # what lies in the store now, read back, not what was meant to be written
                found.update(row)
            digests[table.name] = {"rows": count, "sha256": found.hexdigest()}
        if line.get("end") is not True or line.get("tables") != digests or set(digests) != set(tables):
            wrong = sorted(name for name in tables if (line.get("tables") or {}).get(name) != digests.get(name))
            self._corrupt(f"its rows are not those that were written: {', '.join(wrong) or 'the last line'}")
        self._at_end()
        check = _kek_check(tx)
        if line.get("kek_check") != check:
            self._corrupt("the key's check value")
        return check, {name: each["rows"] for name, each in digests.items()}

    def _insert(self, tx: Transaction, table: sa.Table, names: list[str]) -> tuple[int, dict[str, Any]]:
        decode = [_decoder(table.c[name]) for name in names]
        batch: list[dict[str, Any]] = []
        count = 0
        while True:
            line = self._next((list, dict))
            if isinstance(line, list):
                if len(line) != len(names):
                    self._corrupt(f"a row of {table.name!r}")
                try:
                    batch.append({n: d(value) for n, d, value in zip(names, decode, line, strict=True)})
                except (ValueError, TypeError) as error:
                    self._corrupt(f"a row of {table.name!r}", error)
            if batch and (isinstance(line, dict) or len(batch) == _BATCH):
                try:
                    tx.execute(table.insert(), batch)
                except (sa.exc.IntegrityError, sa.exc.DataError, OverflowError, UnicodeEncodeError) as error:
                    self._corrupt(f"a row of {table.name!r}", error)
                count += len(batch)
                batch = []
            if isinstance(line, dict):
                return count, line

    def _next(self, kind: type | tuple[type, ...]) -> Any:
        try:
            line = self.file.readline()
            value = json.loads(line) if line.endswith(b"\n") else self._corrupt("it ends too early")
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            self._corrupt("it cannot be read", error)
        return value if isinstance(value, kind) else self._corrupt("a line of another kind")

    def _at_end(self) -> None:
        try:  # reading on also checks gzip's own sum
            rest = self.file.read(1)
        except (OSError, EOFError, zlib.error) as error:
            self._corrupt("its end cannot be read", error)
        if rest:
            self._corrupt("something follows its end")

    def _corrupt(self, what: str, error: BaseException | None = None) -> NoReturn:
        raise ArchiveCorrupt(
            f"{self.path} is damaged: {what}", hint="nothing was restored; take another backup"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    try:
        with path.open("rb") as raw:
            if raw.read(len(_GZIP)) != _GZIP:
                raise ArchiveCorrupt(f"{path} is not a backup of a store", hint="name a file of `dblens store backup`")
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw, mode="rb") as file:
                yield _Archive(path, file)
    except FileNotFoundError as error:
        raise ArchiveMissing(f"no file {path}", hint="look at its name") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ArchiveMissing(
            f"{path} cannot be read: {error.strerror}", hint="name a file that you may read"
        ) from error


def _decoder(column: sa.Column[Any]) -> Callable[[Any], Any]:
    if isinstance(column.type, sa.LargeBinary):
        return _bytes
    if isinstance(column.type, sa.Boolean):
        return _kind(bool)
    return _kind(int) if isinstance(column.type, sa.Integer) else _kind(str)


def _bytes(value: Any) -> bytes | None:
    try:
        return None if value is None else base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _kind(kind: type) -> Callable[[Any], Any]:
    def same(value: Any) -> Any:
        if value is not None and type(value) is not kind:
            raise ValueError(f"not {kind.__name__}")
        return value

    return same
