"""The driver's exceptions as DBLens errors. No address with a password and no document content but keys goes into a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError, InvalidBSON
from pymongo import errors as driver

from dblens.engines.mongodb import extjson
from dblens.errors import (
    Cancelled,
    Conflict,
    ConnectionFailed,
    DBLensError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)

_CODES: dict[int, tuple[type[DBLensError], str]] = {
    11: (NotAuthenticated, "check user name and password, and the option authSource (often admin)"),
    18: (NotAuthenticated, "check user name and password, and the option authSource (often admin)"),
    13: (PermissionDenied, "ask for the role readWrite on the database"),
    26: (NotFound, "check the collection's name"),
    50: (TimedOut, "allow more time, or narrow the query"),
    262: (TimedOut, "allow more time, or narrow the query"),
    11601: (Cancelled, "it was stopped on request"),
    237: (Cancelled, "it was stopped on request"),
    48: (Conflict, "a collection of that name is there already"),
    121: (QueryFailed, "the collection's validator refuses the document"),
    10334: (QueryFailed, "a document holds at most 16 MiB: move large values out, or exclude the column"),
}


def _duplicate(error: dict[str, object]) -> str:
    key = error.get("keyValue")
    return extjson.encode(key) if isinstance(key, dict) else str(error.get("errmsg", ""))[:300]


def translate(error: Exception, doing: str) -> DBLensError:
    """Return the DBLens error for a driver's exception."""
    match error:
        case driver.BulkWriteError():
            details = error.details or {}
            first = next(iter(details.get("writeErrors") or details.get("writeConcernErrors") or [{}]))
            if first.get("code") == 11000:
                return Conflict(
                    f"{doing}: the key {_duplicate(first)} is there twice",
                    hint="the unique index of the target refuses it",
                )
            known = _CODES.get(first.get("code", 0))
            return (known[0] if known else QueryFailed)(
                f"{doing}: {str(first.get('errmsg', ''))[:300]}", hint=known[1] if known else "see the server's log"
            )
        case driver.DuplicateKeyError():
            return Conflict(
                f"{doing}: the key {_duplicate(dict(error.details or {}))} is there twice",
                hint="a unique index refuses it",
            )
        case driver.DocumentTooLarge():
            return QueryFailed(f"{doing}: a document is larger than 16 MiB", hint=_CODES[10334][1])
        case driver.ExecutionTimeout() | driver.WTimeoutError():
            return TimedOut(
                f"{doing}: the server stopped it after its time limit", hint="allow more time, or narrow the query"
            )
        case driver.OperationFailure():
            kind, hint = _CODES.get(error.code or 0, (QueryFailed, "see the message; the server refused the command"))
            return kind(f"{doing}: {str((error.details or {}).get('errmsg', error))[:400]}", hint=hint)
        case driver.ServerSelectionTimeoutError() | driver.ConnectionFailure():
            return ConnectionFailed(
                f"{doing}: no MongoDB server answers ({type(error).__name__})",
                hint="check host and port, that the server runs, TLS (option tls=true), and directConnection=true for a single member",
            )
        case driver.ConfigurationError() | driver.InvalidURI() | driver.InvalidName():
            return InvalidInput(f"{doing}: {error}", hint="check the address and its options")
        case InvalidBSON():
            return QueryFailed(
                f"{doing}: broken BSON in the database ({error})", hint="run `validate` on the collection"
            )
        case BSONError():
            return QueryFailed(
                f"{doing}: BSON cannot hold this ({error})", hint="change the value, or exclude the column"
            )
    return QueryFailed(f"{doing}: {error}", hint="see the server's log")


@contextmanager
def guard(doing: str) -> Iterator[None]:
    """Turn driver errors of a block into DBLens errors."""
    try:
        yield
    except (driver.PyMongoError, BSONError) as error:
        raise translate(error, doing) from error
