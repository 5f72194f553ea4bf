"""One connection to a SQLite file: opening it, and the driver's errors as ours. Autocommit; transactions are ours to begin."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent

from dblens.engines.sqlite import functions
from dblens.errors import (
    Cancelled,
    ConnectionFailed,
    DBLensError,
    EngineError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)

BUSY_SECONDS = 10.0
"""How long a statement waits for another process's lock before it fails."""
_SURROGATES = "surrogateescape"


class NotUtf8(InvalidInput):
    """A text that was read as str holds octets that are not UTF-8."""


def translated(error: Exception, path: str, statement: str = "") -> DBLensError:
    """Return the DBLens error for a driver's error."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    where = f" in {statement[:200]!r}" if statement else ""
    match primary:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TimedOut(
                f"{path} is locked by another process ({error})", hint="wait until it has finished, or end that process"
            )
        case sqlite3.SQLITE_INTERRUPT:
            return Cancelled(f"stopped{where}")
        case sqlite3.SQLITE_NOTADB:
            return ConnectionFailed(
                f"{path} is not a SQLite database", hint="check the path; an encrypted file or a dump is not one either"
            )
        case sqlite3.SQLITE_CORRUPT:
            return EngineError(
                f"{path} is damaged: {error}", hint="run `PRAGMA integrity_check` on it; restore it from a backup"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return PermissionDenied(
                f"{path} cannot be written: {error}",
                hint="check the rights on the file and its folder, and mode=ro in the URL",
            )
        case sqlite3.SQLITE_CANTOPEN:
            return ConnectionFailed(
                f"{path} cannot be opened: {error}", hint="check the path and the rights on its folder"
            )
        case sqlite3.SQLITE_FULL:
            return EngineError(f"no space left while writing {path}", hint="free disk space, then resume")
        case sqlite3.SQLITE_IOERR:
            return EngineError(f"the disk failed under {path}: {error}", hint="check the disk and its free space")
    if isinstance(error, UnicodeEncodeError):
        return InvalidInput(
            f"not a Unicode text: {error.object[:80]!r}", hint="a lone surrogate cannot be stored as UTF-8"
        )
    if isinstance(error, OverflowError):
        return InvalidInput(f"a whole number is beyond 64 bits{where}", hint="store it as text")
    if "Could not decode to UTF-8" in str(error):
        return NotUtf8(
            f"{path} holds text that is not UTF-8: {error}",
            hint="clean the value, or map the column to octets by a rule (expression: CAST(col AS BLOB))",
        )
    return QueryFailed(f"{error}{where}")


@contextmanager
def mapped(path: str, statement: str = "") -> Iterator[None]:
    """Turn driver errors inside into DBLens errors."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeEncodeError) as error:
        raise translated(error, path, statement) from error


class Db:
    """A connection. Iterating helpers set how texts are read before every fetch, because readers of both kinds may alternate."""

    def __init__(
        self, path: str | None, *, mode: str = "rw", immutable: bool = False, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        """Open a file (`mode` ro, rw or rwc), or a private database in memory without a path. Raises NotFound, ConnectionFailed."""
        self.path = path or ":memory:"
        self.raw = self._open(path, mode, immutable, busy_seconds)
        self.raw.isolation_level = None
        functions.register(self.raw)
        with mapped(self.path):
            if mode == "ro":
                self.raw.execute("PRAGMA query_only = ON")
            self.raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    def _open(self, path: str | None, mode: str, immutable: bool, busy_seconds: float) -> sqlite3.Connection:
        if path is None:
            return sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        if mode != "rwc" and not os.path.exists(path):
            raise NotFound(f"no such file: {path}", hint="check the path; --create-target makes a new database")
        if os.path.isdir(path):
            raise ConnectionFailed(f"{path} is a folder", hint="name a file in it")
        if not os.access(path if os.path.exists(path) else Path(path).parent, os.R_OK):
            raise PermissionDenied(f"{path} cannot be read", hint="check the rights on the file")
        uri = f"file:{percent(os.path.abspath(path))}?mode={mode}" + ("&immutable=1" if immutable else "")
        with mapped(path):
            return sqlite3.connect(uri, uri=True, timeout=busy_seconds, check_same_thread=False, cached_statements=256)

    def close(self) -> None:
        """Close it; an open transaction is rolled back."""
        self.raw.close()

    def run(self, statement: str, params: Sequence[object] = ()) -> int:
        """Run a statement for its effect; return the rows it changed."""
        with mapped(self.path, statement):
            return self.raw.execute(statement, params).rowcount

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once a row."""
        with mapped(self.path, statement):
            self.raw.executemany(statement, rows)

    def rows(self, statement: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows; octets of texts that are not UTF-8 come as lone surrogates (`os.fsdecode`)."""
        with mapped(self.path, statement):
            self.raw.text_factory = _escaped
            return self.raw.execute(statement, params).fetchall()

    def one(self, statement: str, params: Sequence[object] = ()) -> Any:
        """Return the first column of the first row, None without one."""
        rows = self.rows(statement, params)
        return rows[0][0] if rows else None

    def batches(
        self, statement: str, params: Sequence[object], text: Any, most: int, octets: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows in lists of at most `most`, fewer where rows are wide (about `octets` a list).

        `text` is the class that texts come in (bytearray keeps them apart from blobs).
        """
        with mapped(self.path, statement):
            cursor = self.raw.execute(statement, params)
        size = min(most, 64)
        try:
            while True:
                with mapped(self.path, statement):
                    self.raw.text_factory = text
                    rows = cursor.fetchmany(size)
                if not rows:
                    return
                sample = rows[:: max(1, len(rows) // 16)]
                width = sum(len(v) for row in sample for v in row if hasattr(v, "__len__")) // len(sample)
                size = max(1, min(most, 4 * size, octets // (width + 1)))
                yield rows
        finally:
            cursor.close()

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Commit what is done inside, or nothing of it."""
        self.run(f"BEGIN {kind}")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK")
            raise


def _escaped(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("utf-8", _SURROGATES)
