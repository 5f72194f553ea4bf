"""No public method of a door escapes the gate, and no class of the workspace is a door in secret."""

from __future__ import annotations

import inspect
import subprocess
import sys
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import dblens.workspace as doors
from dblens.workspace import registry
from dblens.workspace.operation import Door
from dblens.workspace.permissions import NOUNS, known

ROOT = Path(__file__).resolve().parents[2]
NOT_YET: set[str] = set()
"""Doors of the single-user beginnings that are not operations yet. This set only shrinks."""

NO_DOORS = {
    "access",
    "asked",
    "bounds",
    "context",
    "deliver",
    "describe",
    "entrance",
    "entry",
    "executor",
    "fields",
    "home",
    "house",
    "journal",
    "kept",
    "lines",
    "masks",
    "matrix",
    "new_database",
    "operation",
    "people",
    "permissions",
    "policy",
    "principal",
    "registry",
    "retention",
    "setting_kinds",
    "sides",
    "speech",
    "tale",
    "talks",
    "ways",
    "webhook",
    "wire",
}
"""Modules of what stands around the doors; a class in any other module that can be called is a door."""


def classes() -> list[type]:
    """Return every public class of the workspace's modules that are not listed above."""
    found = []
    for module in iter_modules(doors.__path__):
        if module.name in NO_DOORS:
            continue
        home = import_module(f"{doors.__name__}.{module.name}")
        found += [c for c in vars(home).values() if inspect.isclass(c) and c.__module__ == home.__name__]
    return found


def public(kind: type) -> list[str]:
    """Return the public methods that a class itself or its bases outside the standard library define."""
    names = []
    for base in kind.__mro__:
        if base.__module__.startswith("dblens."):
            names += [
                n for n, v in vars(base).items() if not n.startswith("_") and (callable(v) or hasattr(v, "__get__"))
            ]
    return names


def is_record(kind: type) -> bool:
    return hasattr(kind, "__struct_fields__") or issubclass(kind, Exception | tuple)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_a_class_with_public_methods_is_a_door(kind: type) -> None:
    if kind.__name__ in NOT_YET or kind.__name__.startswith("_") or is_record(kind):
        return
    assert issubclass(kind, Door) or not public(kind), f"{kind.__name__} is no Door, but has {public(kind)}"


@pytest.mark.parametrize("kind", [c for c in classes() if issubclass(c, Door)], ids=lambda kind: kind.__name__)
def test_every_public_method_of_a_door_is_an_operation(kind: type) -> None:
    assert public(kind)
    for name in public(kind):
        about = getattr(inspect.getattr_static(kind, name), "__operation__", None)
        assert isinstance(about, registry.Operation), f"{kind.__name__}.{name}"
        assert registry.TABLE.get(about.name) is about


def test_what_the_workspace_offers_is_a_door_or_listed() -> None:
    for name, value in vars(doors.Workspace).items():
        if isinstance(value, cached_property | property) and not name.startswith("_"):
            function = value.func if isinstance(value, cached_property) else value.fget
            made = str(inspect.get_annotations(function)["return"])  # type: ignore[arg-type]
            kind = next((c for c in classes() if c.__name__ == made), None)
            assert made in NOT_YET or (kind is not None and issubclass(kind, Door)), f"Workspace.{name} -> {made}"


def test_the_list_of_exceptions_only_shrinks() -> None:
    there = {kind.__name__: kind for kind in classes()}
    assert {name for name in NOT_YET if name in there and not issubclass(there[name], Door)} == NOT_YET


def test_every_operation_has_a_permission_that_exists() -> None:
    for about in registry.load():
        assert about.permission in known()
        assert about.noun in NOUNS
        assert about.doc
        assert about.on == "connection" or not about.connections


def test_a_method_that_escapes_is_found() -> None:
    class Wrong:
        def escape(self) -> int:
            return 1

    assert public(type("Other", (Wrong,), {"__module__": "dblens.workspace.x"})) == []
    Wrong.__module__ = "dblens.workspace.x"
    assert public(Wrong) == ["escape"]


def test_the_gate_itself_loads_no_store_and_no_driver() -> None:
    """A door that needs neither must not pay for them."""
    code = "import dblens.workspace.operation, dblens.workspace.journal, sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert not loaded & {"sqlalchemy", "sqlite3", "psycopg", "pymysql", "pymongo", "asyncio", "socket"}
