"""Where test servers live on disk, and as whom they run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

RUN_PREFIX = "dblens-run-"


class Become(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


class Account:
    """The user a server runs as: ourselves, or an unprivileged one when we are root."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            self.uid, self.gid, self.switch = os.geteuid(), os.getegid(), False
            return
        entry = pwd.getpwnam("nobody")
        self.uid, self.gid, self.switch = entry.pw_uid, entry.pw_gid, True

    def become(self) -> Become:
        """Arguments for `subprocess` that change the user, or none."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def run(self, command: Sequence[str], *, cwd: Path) -> None:
        """Run a program of the server as this account, with its output in the error if it fails.

        Raises:
            RuntimeError: the program's exit code is not 0.
        """
        done = subprocess.run(
            command, cwd=cwd, env=clean_env(cwd), stdin=subprocess.DEVNULL, capture_output=True, check=False,
            **self.become(),
        )  # fmt: skip
        if done.returncode:
            output = (done.stdout + done.stderr).decode(errors="replace")
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{output[-4000:]}")


def clean_env(home: Path) -> dict[str, str]:
    """Nothing of the developer's environment reaches a server: no PGDATA, no locale, no proxy."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC"}


def temp_root() -> Path:
    """The temporary folder, or /tmp when root's own TMPDIR is closed to the unprivileged account."""
    root = Path(tempfile.gettempdir()).resolve()
    if os.geteuid() == 0 and not all(p.stat().st_mode & stat.S_IXOTH for p in (root, *root.parents)):
        return Path("/tmp")
    return root


def cache_root() -> Path:
    """Templates and unpacked binaries shared by all test sessions of this user.

    The folder belongs to us, never to the unprivileged account: what we execute from it stays ours.

    Raises:
        RuntimeError: somebody else made the folder first.
    """
    root = temp_root() / f"dblens-test-cache-{os.geteuid()}"
    root.mkdir(mode=0o755, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise RuntimeError(f"{root} is not a folder that only we can write to; remove it")
    root.chmod(0o755)
    return root


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold a lock across processes (xdist workers, parallel sessions) and yield the path it guards."""
    root = cache_root()
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root / name


def cached(name: str, recipe: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Return the folder `name`, made once by `make` for this recipe; a half-made folder is never seen."""
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
    with locked(f"{name}-{digest}") as path:
        if not path.exists():
            for stale in path.parent.glob(f"{path.name}.*.part"):
                shutil.rmtree(stale, ignore_errors=True)
            part = path.with_name(f"{path.name}.{os.getpid()}.part")
            part.mkdir(mode=0o755)
            try:
                make(part)
                part.rename(path)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        return path


def run_folder(name: str, account: Account) -> Path:
    """A fresh folder for one running server, owned by its account."""
    path = Path(tempfile.mkdtemp(prefix=f"{RUN_PREFIX}{name}-", dir=temp_root()))
    os.chown(path, account.uid, account.gid)
    return path


def copy_tree(source: Path, target: Path) -> None:
    """Copy a data folder with owners, times and holes kept; cp is several times faster than shutil here."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True, capture_output=True)
