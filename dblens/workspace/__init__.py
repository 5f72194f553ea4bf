"""The doors: one guarded way in, one file per noun.

Importing this loads no driver: an engine's driver is loaded when its first session opens.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dblens.workspace.catalog import Catalog
    from dblens.workspace.migrations import Migrations


class Workspace:
    """The doors of an in-process workspace, each built when it is first used."""

    @cached_property
    def catalog(self) -> Catalog:
        """Return the door to schemas: inspect, list, compare."""
        from dblens.workspace.catalog import Catalog

        return Catalog()

    @cached_property
    def migrations(self) -> Migrations:
        """Return the door to migrations: plan, apply, verify, undo."""
        from dblens.workspace.migrations import Migrations

        return Migrations()


__all__ = ["Workspace"]
