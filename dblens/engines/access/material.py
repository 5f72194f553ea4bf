"""Keys and certificates as files, for as long as a program needs them: a private folder in memory where there is one, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

_PREFIX = "dblens-access-"
_swept: set[str] = set()
_lock = threading.Lock()


def _place() -> Path:
    """Return where private folders go: memory first, so that keys touch no disk."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm", tempfile.gettempdir()):  # noqa: S108 - 0700 folders within
        if candidate and len(candidate) < 48 and os.access(candidate, os.W_OK | os.X_OK):
            return Path(candidate)
    return Path(tempfile.gettempdir())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sweep(place: Path) -> None:
    """Remove what killed processes of this user left behind, once a place."""
    with _lock:
        if str(place) in _swept:
            return
        _swept.add(str(place))
    for left in place.glob(f"{_PREFIX}*"):
        match = re.match(rf"{_PREFIX}(\d+)-", left.name)
        with contextlib.suppress(OSError):
            if match and not left.is_symlink() and left.stat().st_uid == os.geteuid() and not _alive(int(match[1])):
                shutil.rmtree(left, ignore_errors=True)


class PrivateFolder:
    """A folder of mode 0700 with files of mode 0600. Removed by `close`, at the end of the process, or by the next process' sweep."""

    def __init__(self) -> None:
        place = _place()
        _sweep(place)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
        self._finalizer = weakref.finalize(self, shutil.rmtree, str(self.path), ignore_errors=True)

    def write(self, name: str, text: str, *, mode: int = 0o600) -> str:
        """Write a new file and return its path."""
        path = self.path / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        return str(path)

    def remove(self, name: str) -> None:
        """Delete one file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path / name)

    def close(self) -> None:
        """Delete the folder and all in it."""
        self._finalizer()
