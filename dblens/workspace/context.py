"""What a door works with, and the operation at work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from dblens.errors import DBLensError
from dblens.events import Report, silent
from dblens.workspace.policy import RECENT, Grant
from dblens.workspace.principal import Principal
from dblens.workspace.registry import Operation

if TYPE_CHECKING:
    from dblens.store.database import Store
    from dblens.workspace.house import House
    from dblens.workspace.journal import Journal


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that an argument names, and what was granted on it. `id` is None for a raw address."""

    id: str | None
    org_id: str | None
    grant: Grant


class Access(Protocol):
    """Finds what an argument names."""

    def connection(self, principal: Principal, reference: object) -> Held:
        """Return the connection of the principal's organization with that id or name. Raises NotFound, InvalidInput."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a door works with, for the time of one request of one principal."""

    store: Store
    principal: Principal
    journal: Journal
    access: Access
    clock: Callable[[], dt.datetime]
    report: Report = silent
    recent: dt.timedelta = RECENT
    house: House | None = None
    """What the process has once: sessions, keys, runs. A door that needs none of it works without."""
    background: bool = False
    """Whether long operations go on behind the answer, which is their run."""


class Call(msgspec.Struct, kw_only=True):
    """An operation at work. `facts` and `target` go into its outcome."""

    id: str
    operation: Operation
    parent: str | None
    run: str | None = None
    """The run that it is part of; of a long operation its own."""
    target: str | None = None
    facts: dict[str, Any] = {}


class NotBegun(Exception):  # noqa: N818 - no error of its own: it carries the reason from the house to the gate
    """A run that could not begin, and why."""

    def __init__(self, why: DBLensError) -> None:
        super().__init__()
        self.why = why
