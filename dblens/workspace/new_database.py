"""A new database beside a stored one, with the same login: made by the engine itself, its name quoted by the engine. No door."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dblens.engines.access import files
from dblens.engines.access.guard import Policy
from dblens.engines.access.spec import ConnectionSpec
from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound, PermissionDenied
from dblens.workspace.lines import Line


@contextlib.contextmanager
def made(line: Line, database: str, policy: Policy) -> Iterator[ConnectionSpec]:
    """Make a database and lend its specification. A body that fails leaves no file behind; a database of a server stays.

    Raises InvalidInput for a name that the engine does not take, PermissionDenied, Conflict when it is there already, EngineError.
    """
    line.writable()
    if not isinstance(database, str) or not database.strip():
        raise InvalidInput("database is empty", hint="name the database to make")
    if line.spec.engine == "sqlite":
        yield from _file(line, database, policy)
        return
    _fits(line, database)
    spec = msgspec.structs.replace(line.spec, database=database)
    if line.engine.facts.documents and line.spec.user and not line.spec.auth_database:
        # Without it the login is looked for in the database itself, and in the new one there is none.
        spec = msgspec.structs.replace(spec, auth_database="admin" if line.spec.srv else line.spec.database)
    spec = spec.validate()
    _make(line, spec)
    try:
        yield spec
    except DBLensError as error:
        error.add_note(f"the database {database!r} was made, without a connection to it")
        raise


def _make(line: Line, spec: ConnectionSpec) -> None:
    try:
        opened = line.open(spec)
    except NotFound:
        opened = None
    if opened is not None:
        with opened:
            session = opened.session
            # Where a database comes into being with its first collection, an empty one is none yet.
            if line.engine.facts.maintenance_database is not None or any(
                map(session.list_tables, session.namespaces())
            ):
                raise Conflict(f"there is already a database {spec.database!r}", hint="name another")
        return
    line.open(spec, create=True).close()


def _fits(line: Line, database: str) -> None:
    """Refuse a name that the server would cut or misread. Raises InvalidInput."""
    facts = line.engine.facts
    size = len(database.encode()) if facts.identifier_unit == "octets" else len(database)
    limit = min(facts.identifier_limit, 63) if facts.documents else facts.identifier_limit
    if size > limit:
        raise InvalidInput(f"database has {size} {facts.identifier_unit}", hint=f"at most {limit}")
    forbidden = '/\\. "$*<>:|?\0' if facts.documents else facts.forbidden_in_names
    if wrong := next((char for char in database if char in forbidden), None):
        raise InvalidInput(f"database holds {wrong!r}, which the engine does not take", hint="name another")


def _file(line: Line, database: str, policy: Policy) -> Iterator[ConnectionSpec]:
    """Make an empty file, which is an empty database; never one that is there already, not even through a link."""
    assert line.spec.path is not None
    path = database if os.path.isabs(database) else str(Path(line.spec.path).parent / database)
    checked = files.check_file(path, policy, create=True)
    try:
        os.close(os.open(checked.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Conflict(f"there is already a file {database!r}", hint="name another") from None
    except OSError as error:
        raise PermissionDenied(f"{database!r} cannot be made: {error.strerror}", hint="check the folder") from None
    spec = msgspec.structs.replace(line.spec, path=checked.path)
    try:
        line.open(spec).close()
        yield spec
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(checked.path)
        raise
