"""The one-migration-per-target lock: a lease document with a heartbeat, because MongoDB has no advisory locks.

The lease runs out 60 s after its holder's last beat. A holder that died on this very machine is recognised at once by its process id and
start time. Times are the server's, so clocks of clients do not matter.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import secrets
import threading
from pathlib import Path
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, PyMongoError

from dblens.errors import Conflict

SECONDS = 60
_BEAT = 15
ID = "_lock"


def _started(pid: int) -> str | None:
    """Return when a process of this machine started (clock ticks since boot), None when there is no such process or no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


class Lease:
    """Holds the lock from `acquire` to `release`; renews it from a thread of its own."""

    def __init__(self, runs: Collection[dict[str, Any]]) -> None:
        self._runs = runs
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    @property
    def held(self) -> bool:
        """Tell whether the lock is ours."""
        return self._thread is not None and not self.lost

    def _now(self) -> dt.datetime:
        now = self._runs.database.client.admin.command("hello")["localTime"]
        assert isinstance(now, dt.datetime)
        return now.replace(tzinfo=None)

    def acquire(self, holder: str, run: str) -> None:
        """Take the lock. Raises Conflict with the holder's name."""
        if self.held:
            return
        now = self._now()
        found = self._runs.find_one({"_id": ID})
        if found is not None and self._dead(found):
            self._runs.delete_one({"_id": ID, "token": found["token"]})
        lease = {
            "token": self._token, "holder": holder, "run": run, "until": now + dt.timedelta(seconds=SECONDS),
            "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid()),
        }  # fmt: skip
        try:
            self._runs.find_one_and_update(
                {"_id": ID, "$or": [{"token": self._token}, {"until": {"$lt": now}}]},
                {"$set": lease},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError as error:
            other = self._runs.find_one({"_id": ID}) or {}
            raise Conflict(
                f"another migration works on this target: {other.get('holder', 'unknown')} (run {other.get('run', '?')})",
                hint=f"wait for it to end; when its process is gone the lock falls {SECONDS} s after its last sign of life",
            ) from error
        self.lost = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._renew, name="dblens-lease", daemon=True)
        self._thread.start()

    @staticmethod
    def _dead(found: dict[str, Any]) -> bool:
        pid = found.get("pid")
        if found.get("boot") != _boot() or not isinstance(pid, int) or not Path("/proc/self/stat").exists():
            return False
        return _started(pid) != found.get("started")

    def _renew(self) -> None:
        while not self._stop.wait(_BEAT):
            try:
                until = self._now() + dt.timedelta(seconds=SECONDS)
                done = self._runs.update_one({"_id": ID, "token": self._token}, {"$set": {"until": until}})
                self.lost = done.matched_count == 0
            except PyMongoError:
                # A beat may fail while the server restarts; the epoch fences us when another takes over meanwhile.
                continue
            if self.lost:
                return

    def release(self) -> None:
        """Give the lock back."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(timeout=5)
        self._thread = None
        self._runs.delete_one({"_id": ID, "token": self._token})
