"""The chapters of types and DDL that a source never asks for: a file has neither natives nor statements of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dblens.engines.base import Build, Place, Stored
from dblens.errors import Unsupported
from dblens.schema.model import Column, NamedType, Schema, Table
from dblens.schema.types import DataType

_WHY = "files are read, not written: `dblens export` writes them"


def parse(native: str) -> DataType:
    """Refuse: the types of a file's columns are proven or told."""
    raise Unsupported(f"the type {native!r}", _WHY)


def spell(type: DataType) -> str:
    """Return a type as a person reads it."""
    from dblens.engines.files.model import spelled

    return spelled(type)


def store(column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:  # noqa: ARG001
    """Refuse to be a target."""
    raise Unsupported(f"storing {column.name!r} in a file", _WHY)


def quote(name: str) -> str:
    """Return a name for a message."""
    return repr(name)


def literal(text: str | None) -> str:
    """Return a text for a message."""
    return repr(text)


def staged(live: Place, run: str) -> Place:  # noqa: ARG001
    """Refuse to be a target."""
    raise Unsupported(f"staging {live[1]!r} in a file", _WHY)


previous = staged


def build(
    tables: Sequence[Table],  # noqa: ARG001
    places: Mapping[Place, Place],  # noqa: ARG001
    types: Sequence[NamedType] = (),  # noqa: ARG001
    flavour: str = "",  # noqa: ARG001
) -> Build:
    """Refuse to be a target."""
    raise Unsupported("creating tables in a file", _WHY)


def create(schema: Schema) -> list[str]:
    """Refuse to be a target."""
    raise Unsupported(f"creating {schema.database!r} in a file", _WHY)
