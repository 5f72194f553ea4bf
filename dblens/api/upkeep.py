"""What the service does by itself while it serves: ends the runs whose worker died, and deletes what nobody asks for any more."""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import Final

import anyio
import anyio.to_thread

from dblens.errors import DBLensError
from dblens.store import sessions
from dblens.workspace import retention
from dblens.workspace.house import House

SWEEP: Final = 5.0
PRUNE: Final = 3600.0
LATE: Final = 60.0
"""Seconds without a sweep after which the service is not ready."""
SESSIONS: Final = dt.timedelta(days=30)
"""How long a login is kept after it expired."""
log = logging.getLogger("dblens.api.upkeep")


class Upkeep:
    """The two timers of a house."""

    def __init__(self, house: House, *, sweep: float = SWEEP, prune: float = PRUNE) -> None:
        self.house = house
        self.sweep_every, self.prune_every = sweep, prune
        self.swept: float | None = None

    def alive(self) -> bool:
        """Return whether the last sweep was not long ago."""
        return self.swept is not None and time.monotonic() - self.swept < LATE

    async def run(self) -> None:
        """Work until cancelled. Whatever fails is written to the log and tried again."""
        pruned: float | None = None
        while True:
            await self._do(self.sweep)
            if pruned is None or time.monotonic() - pruned >= self.prune_every:
                pruned = time.monotonic()
                await self._do(self.prune)
            await anyio.sleep(self.sweep_every)

    async def _do(self, step: object) -> None:
        try:
            await anyio.to_thread.run_sync(step)  # type: ignore[arg-type]
        except DBLensError as error:
            log.warning("upkeep: %s", error.message)
        except Exception:
            log.exception("upkeep failed")

    def sweep(self) -> None:
        """End the runs of dead workers."""
        ended = self.house.sweep()
        self.swept = time.monotonic()
        for run in ended:
            log.warning("run %s (%s) crashed: its worker %s said nothing any more", run.id, run.operation, run.worker)

    def prune(self) -> None:
        """Delete what is older than the settings say, and logins that expired long ago."""
        done = retention.retain_due(self.house)
        if done is not None:
            log.info("retention: %s", done)
        with self.house.store.write() as tx:
            sessions.sweep(tx, before=self.house.clock() - SESSIONS)
