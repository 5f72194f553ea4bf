"""DBLens: a notebook-centric workbench for databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dblens.version import __version__

if TYPE_CHECKING:
    from dblens.workspace import Workspace

__all__ = ["__version__", "open"]


def open() -> Workspace:
    """Open the workspace: in-process, over the caller's own rights."""
    from dblens.workspace import Workspace

    return Workspace()
