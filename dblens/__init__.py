"""DBLens: a notebook-centric workbench for databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dblens.version import __version__

if TYPE_CHECKING:
    from dblens.events import Report
    from dblens.workspace import Workspace

__all__ = ["__version__", "open"]


def open(*, report: Report | None = None) -> Workspace:
    """Open the workspace, the same nouns in both ways to run: the service that `DBLENS_URL` names, else in this process.

    In this process it is the person's own: their store, made at the first use. `report` hears of the progress of long work.
    Raises StoreError, InvalidInput, NotAuthenticated.
    """
    from dblens import settings
    from dblens.events import silent

    found = settings.load()
    if found.url is not None:
        from dblens.client import connect

        return connect(found, report=report or silent)
    from dblens.workspace.home import house

    return house(found).workspace(house(found).owner, report=report or silent)
