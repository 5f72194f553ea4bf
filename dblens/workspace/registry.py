"""The table of operations: the one source of permissions, audit actions, routes, the client's calls and the matrix."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Literal, TypeAlias

import msgspec

from dblens.errors import NotFound

Level: TypeAlias = Literal["view", "use", "manage"]
On: TypeAlias = Literal["organization", "connection"]
Cost: TypeAlias = Literal["light", "normal", "heavy"]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operation; `type` is resolved, `shown` says whether the audit keeps its value."""

    name: str
    type: Any
    required: bool
    keyword: bool
    default: Any = None
    shown: bool = False


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A public method of a door, and all that is decided about it beforehand."""

    name: str
    permission: str
    on: On | None
    connections: dict[str, Level]
    """Which parameters name a connection, and the level each needs."""
    level: Level
    mutates: bool
    step_up: bool
    long: bool
    lock: str | int | None = None
    local: bool = False
    cost: Cost
    parameters: tuple[Parameter, ...]
    result: Any
    signature: inspect.Signature
    doc: str
    target: str | None
    shown: tuple[str, ...]
    locate: Callable[[Any, Mapping[str, Any]], Any] | None = None
    door: str = ""
    method: str = ""

    @property
    def noun(self) -> str:
        """Return what comes before the dot."""
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        """Return what comes after the dot."""
        return self.name.partition(".")[2]


class Table:
    """Operations by name. There is one (`TABLE`); tests make their own."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}

    def add(self, operation: Operation) -> None:
        """Register an operation. Raises TypeError for a name that another method has."""
        there = self._operations.get(operation.name)
        if there is not None and (there.door, there.method) != (operation.door, operation.method):
            raise TypeError(f"{operation.name}: {there.door}.{there.method} and {operation.door}.{operation.method}")
        self._operations[operation.name] = operation

    def __iter__(self) -> Iterator[Operation]:
        return iter(sorted(self._operations.values(), key=lambda operation: operation.name))

    def __len__(self) -> int:
        return len(self._operations)

    def __contains__(self, name: object) -> bool:
        return name in self._operations

    def find(self, name: str) -> Operation | None:
        """Return an operation, None for a name that none has: what is decided about None is no."""
        return self._operations.get(name)

    def get(self, name: str) -> Operation:
        """Return an operation. Raises NotFound."""
        found = self._operations.get(name)
        if found is None:
            raise NotFound(f"no operation {name!r}")
        return found


TABLE = Table()


def load() -> Table:
    """Import every door and return the whole table."""
    import dblens.workspace as doors

    for module in pkgutil.iter_modules(doors.__path__):
        if not module.name.startswith("_"):
            import_module(f"{doors.__name__}.{module.name}")
    return TABLE
