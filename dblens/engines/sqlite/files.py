"""The files of a run beside its target: the partial file it builds in, its record, and the lock that makes it the only one.

`shop.db.dblens-<run>.partial` holds the staged tables under their final names, and the ledger; `shop.db.dblens-<run>.json` the record,
replaced as a whole, so that no crash leaves half of one; `shop.db.dblens-lock` is held by the kernel for as long as the process lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
from typing import Literal

import msgspec

from dblens.engines.base import RunRecord
from dblens.errors import Conflict, EngineError, PermissionDenied


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run's record with what only this engine must remember.

    `before`: what lay at the target's path. `way`: how it is swapped, once decided. `boot`, `unsynced`: whether the partial file may
    have lost writes when the machine went down in between.
    """

    record: RunRecord
    before: Literal["absent", "empty", "present"] = "absent"
    way: Literal["", "publish", "inplace"] = ""
    boot: str = ""
    unsynced: bool = False


def boot_id() -> str:
    """Return what changes with every start of the machine, empty where it cannot be known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def sync(path: str) -> None:
    """Bring a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Delete a database file with its journals."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


class Files:
    """Paths and small files of the runs into one target."""

    def __init__(self, target: str) -> None:
        self.target = os.path.realpath(target)
        self.folder = os.path.dirname(self.target)
        self.lock = f"{self.target}.dblens-lock"
        self._held: int | None = None

    def _stem(self, run: str) -> str:
        word = run if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run) else hashlib.sha256(run.encode()).hexdigest()[:32]
        return f"{self.target}.dblens-{word}"

    def partial(self, run: str) -> str:
        """Return the path that a run builds at."""
        return self._stem(run) + ".partial"

    def _record(self, run: str) -> str:
        return self._stem(run) + ".json"

    def before(self) -> Literal["absent", "empty", "present"]:
        """Return what lies at the target's path."""
        try:
            return "present" if os.stat(self.target).st_size else "empty"
        except FileNotFoundError:
            return "absent"

    # ---- records

    def read(self, run: str) -> State | None:
        """Return a run's state, None when there is none."""
        try:
            with open(self._record(run), "rb") as file:
                return msgspec.json.decode(file.read(), type=State)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise EngineError(
                f"{self._record(run)} is no record of a run: {error}", hint="restore it, or delete the run's files"
            ) from error

    def write(self, state: State) -> None:
        """Replace a run's state, durably."""
        path = self._record(state.record.id)
        fresh = f"{path}.new"
        try:
            with open(fresh, "wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
            sync(self.folder)
        except PermissionError as error:
            raise PermissionDenied(
                f"cannot write beside {self.target}: {error}", hint=f"allow writing in {self.folder}"
            ) from error
        except OSError as error:
            raise EngineError(
                f"cannot write beside {self.target}: {error}", hint="check the disk and its free space"
            ) from error

    def forget(self, run: str) -> None:
        """Delete a run's files, its record last."""
        remove(self.partial(run))
        for path in (f"{self._record(run)}.new", self._record(run)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def list(self) -> list[State]:
        """Return the states of all runs into this target, newest first."""
        states = []
        for path in glob.glob(f"{glob.escape(self.target)}.dblens-*.json"):
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError), open(path, "rb") as file:
                states.append(msgspec.json.decode(file.read(), type=State))
        return sorted(states, key=lambda s: (s.record.beat_at, s.record.id), reverse=True)

    # ---- the lock

    @property
    def locked(self) -> bool:
        """Whether this session holds the lock."""
        return self._held is not None

    def take_lock(self, holder: str) -> None:
        """Take the one-migration-per-target lock. Raises Conflict naming its holder."""
        while self._held is None:
            try:
                descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise PermissionDenied(
                    f"cannot write beside {self.target}: {error}", hint=f"allow writing in {self.folder}"
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                by = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                os.close(descriptor)
                raise Conflict(
                    f"another migration into {self.target} is running: {by}",
                    hint="wait until it ends, or end that process; only one migration writes to a target at a time",
                ) from error
            # The file may have been deleted by its last holder between opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == os.stat(self.lock).st_ino:
                    self._held = descriptor
                    break
            os.close(descriptor)
        os.ftruncate(self._held, 0)
        os.pwrite(self._held, holder.encode(), 0)

    def release(self) -> None:
        """Give the lock back and delete its file while it is still ours."""
        if self._held is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.lock)
            os.close(self._held)
            self._held = None
