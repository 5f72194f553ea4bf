"""Which SQLite files may be opened, and what a user's SQL may do once inside.

A path is resolved first and then compared with the allowed folders; the last part is opened without following a link, and the file is
looked at again once the session stands, so that a file that was exchanged in between is found.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from dblens.engines.access.guard import Policy
from dblens.errors import InvalidInput, NotFound, PermissionDenied

_NEVER = ("/proc", "/sys", "/dev", "/run/secrets")
_BESIDE = ("-journal", "-wal", "-shm")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A file that may be opened: its real path, and which file it was (None while it is still to be made)."""

    path: str
    identity: tuple[int, int] | None

    def recheck(self) -> None:
        """Raise PermissionDenied when the path now leads to another file than the one that was checked."""
        try:
            now = os.lstat(self.path)
        except FileNotFoundError:
            if self.identity is None:
                return
            raise PermissionDenied(f"{self.path} vanished while it was opened", hint="try again") from None
        changed = self.identity is not None and (now.st_dev, now.st_ino) != self.identity
        if changed or not stat.S_ISREG(now.st_mode) or os.path.realpath(self.path) != self.path:
            raise PermissionDenied(f"{self.path} was exchanged while it was opened", hint="try again")


def check_file(path: str, policy: Policy, *, create: bool = False) -> Checked:
    """Resolve a path and check it. Relative paths begin in the first allowed folder, in the working folder without any.

    Raises InvalidInput for what is no path of a file (`file:` URIs, control characters), PermissionDenied for one out of bounds, NotFound.
    """
    if path.lower().startswith("file:") or "\0" in path or not path or path.startswith(":"):
        raise InvalidInput(f"not a path of a SQLite file: {path[:200]!r}", hint="name the file, no URI")
    roots = None if policy.sqlite_roots is None else [Path(os.path.realpath(root)) for root in policy.sqlite_roots]
    if roots is not None and not roots:
        raise PermissionDenied("SQLite files are not allowed here", hint="an administrator names the allowed folders")
    given = Path(path)
    if not given.is_absolute():
        given = (roots[0] if roots else Path.cwd()) / given
    try:
        real = Path(os.path.realpath(given, strict=False))
    except OSError as error:
        raise InvalidInput(f"not a path of a SQLite file: {path[:200]!r}", hint=str(error.strerror)) from None
    # Compared before anything is opened or told: whether a file exists out of bounds is nobody's business.
    if roots is not None and not any(real.is_relative_to(root) and real != root for root in roots):
        raise PermissionDenied(
            f"{path[:200]!r} lies outside of the allowed folders", hint="an administrator names the allowed folders"
        )
    if any(p.is_relative_to(never) for p in (real, Path(os.path.abspath(given))) for never in _NEVER):
        raise PermissionDenied(f"{path[:200]!r} is no database file", hint="name a file on a disk")
    denied = {os.path.realpath(p) for p in policy.denied_files}
    if str(real) in {d + suffix for d in denied for suffix in ("", *_BESIDE)}:
        raise PermissionDenied(f"{path[:200]!r} belongs to DBLens itself", hint="name another file")
    identity = _identity(real, path, create=create)
    if identity is not None and any(identity == _stat(d) for d in denied):  # a hard link to it
        raise PermissionDenied(f"{path[:200]!r} belongs to DBLens itself", hint="name another file")
    return Checked(path=str(real), identity=identity)


def _identity(real: Path, shown: str, *, create: bool) -> tuple[int, int] | None:
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if create and real.parent.is_dir():
            return None
        raise NotFound(f"no such file: {shown}", hint="check the path") from None
    except OSError as error:
        raise PermissionDenied(
            f"{shown} cannot be opened: {error.strerror}", hint="check the file and its rights"
        ) from None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(f"{shown} is no regular file", hint="name a database file")
    return found.st_dev, found.st_ino


def _stat(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_WRITES = frozenset(
    {
        sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_TRIGGER, sqlite3.SQLITE_DROP_VIEW, sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_REINDEX, sqlite3.SQLITE_ANALYZE,
        sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE,
    }
)  # fmt: skip
_FUNCTIONS = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zipfile"})
_PRAGMAS_READ = frozenset(
    {
        "application_id", "collation_list", "compile_options", "data_version", "database_list", "encoding", "foreign_key_check", "foreign_key_list",
        "freelist_count", "function_list", "index_info", "index_list", "index_xinfo", "integrity_check", "module_list", "page_count",
        "page_size", "pragma_list", "quick_check", "schema_version", "table_info", "table_list", "table_xinfo", "user_version",
    }
)  # fmt: skip
"""Pragmas that only tell something; those that take an argument take a name."""
_PRAGMAS_TOLD = frozenset(
    {"auto_vacuum", "busy_timeout", "cache_size", "foreign_keys", "journal_mode", "max_page_count", "query_only", "synchronous", "temp_store"}
)  # fmt: skip
"""Pragmas that tell a setting when they are given no value; with one they change it."""
_PRAGMAS_WRITE = frozenset({"foreign_keys", "defer_foreign_keys", "optimize", "user_version", "application_id"})
_MODULES = frozenset({"fts3", "fts4", "fts5", "rtree", "rtree_i32", "geopoly"})


def sqlite_authorizer(*, read_only: bool) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """Return an authorizer (`Connection.set_authorizer`) for statements of users.

    Denied: ATTACH and with it VACUUM INTO, DETACH, load_extension and functions that touch files, pragmas but a list (writable_schema,
    journal_mode, temp_store_directory and the like are not on it), modules that read files; `read_only`: every write.
    """

    def authorize(action: int, first: str | None, second: str | None, schema: str | None, inner: str | None) -> int:  # noqa: ARG001
        match action:
            case sqlite3.SQLITE_ATTACH | sqlite3.SQLITE_DETACH:
                return sqlite3.SQLITE_DENY
            case sqlite3.SQLITE_FUNCTION:
                return sqlite3.SQLITE_DENY if (second or "").lower() in _FUNCTIONS else sqlite3.SQLITE_OK
            case sqlite3.SQLITE_PRAGMA:
                name = (first or "").lower()
                sets = second is not None and name in (
                    "user_version",
                    "application_id",
                    "encoding",
                    "page_size",
                    "schema_version",
                )
                if (name in _PRAGMAS_READ and not sets) or (name in _PRAGMAS_TOLD and second is None):
                    return sqlite3.SQLITE_OK
                return sqlite3.SQLITE_OK if name in _PRAGMAS_WRITE and not read_only else sqlite3.SQLITE_DENY
            case sqlite3.SQLITE_CREATE_VTABLE if (second or "").lower() not in _MODULES:
                return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY if read_only and action in _WRITES else sqlite3.SQLITE_OK

    return authorize
