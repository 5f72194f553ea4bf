"""The error tree: what the docstring promises is what the classes are."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from dblens import errors
from dblens.errors import DBLensError

LEAVES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, DBLensError) and c is not DBLensError
]
ROW = re.compile(r"[├└]─ (\w+)(?:\([^)]*\))?\s+([\w.]+)\s+(\d{3})\s+(\d+)$", re.MULTILINE)
DOCUMENTED = {name: (code, int(http), int(exit)) for name, code, http, exit in ROW.findall(errors.__doc__ or "")}


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_class_is_documented(kind: type[DBLensError]) -> None:
    assert DOCUMENTED[kind.__name__] == (kind.code, kind.http, kind.exit)


def test_documentation_has_no_ghosts() -> None:
    assert set(DOCUMENTED) == {kind.__name__ for kind in LEAVES}


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in (*LEAVES, DBLensError)]
    assert len(codes) == len(set(codes))


def test_exit_codes_leave_1_and_signals_alone() -> None:
    assert {kind.exit for kind in LEAVES} == set(range(2, 11))


def make(kind: type[DBLensError]) -> DBLensError:
    if kind is errors.Unsupported:
        return errors.Unsupported("views", "there are none", hint="use a table")
    if kind is errors.RateLimited:
        return errors.RateLimited("too many logins", retry_after=8, hint="try 8")
    return kind("it failed with 7", hint="try 8")


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_error_survives_a_process_boundary(kind: type[DBLensError]) -> None:
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert str(error).endswith(f"\n\nhint: {error.hint}")
