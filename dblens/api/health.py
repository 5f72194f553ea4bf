"""Is it alive, is it ready, what is it. Asked by machines without a login, so it tells nothing else."""

from __future__ import annotations

import time
from typing import Final, Literal

import msgspec

from dblens.api.upkeep import Upkeep
from dblens.errors import StoreError
from dblens.store import accounts
from dblens.version import __version__
from dblens.workspace.house import House

_FRESH: Final = 1.0
"""Seconds for which an answer is given again: the question costs a look into the store, and anybody may ask."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a request needs is there."""

    store: Literal["ok"] = "ok"
    audit: Literal["ok"] = "ok"
    sweep: Literal["ok"] = "ok"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What answers here."""

    version: str = __version__
    api: str = "v1"


class Health:
    """Looks at a house."""

    def __init__(self, house: House, upkeep: Upkeep) -> None:
        self.house, self.upkeep = house, upkeep
        self._last: tuple[float, StoreError | None] | None = None

    def ready(self) -> Ready:
        """Say that it is ready. Raises StoreError, which names the part that is not."""
        if self._last is None or time.monotonic() - self._last[0] > _FRESH:
            self._last = (time.monotonic(), self._found())
        if self._last[1] is not None:
            raise StoreError(self._last[1].message, hint=self._last[1].hint)
        return Ready()

    def _found(self) -> StoreError | None:
        try:
            with self.house.store.read() as tx:
                accounts.any_user(tx)
        except StoreError:
            return StoreError("not ready: the store does not answer", hint="the service's log says more")
        try:
            self.house.journal.reserve()
            self.house.journal.release()
        except StoreError:
            return StoreError("not ready: the audit cannot be written", hint="the service's log says more")
        if not self.upkeep.alive():
            return StoreError("not ready: the sweep of dead runs is late", hint="the service's log says more")
        return None
