"""MySQL from Debian's unstable suite, unpacked into a private folder: nothing is installed, /etc/apt stays as it is.

Its own sources file, state and cache; the mirror of this machine's own sources; apt checks the signatures. The
programs run through the C library that came with them. Unstable moves, so every failure means `ServerMissing`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from tests.servers.folders import cache_root, cached
from tests.servers.process import ServerMissing

PACKAGES = ("mysql-server-core", "mysql-client-core")
NOT_NEEDED = ("perl", "libperl", "gcc-", "libc-gconv", "openssl-provider-legacy", "libgdbm", "libdb5")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RETRY_SECONDS = 300
STEP_SECONDS = 240


def mysql_root() -> Path:
    """The folder of the unpacked packages, made once.

    Raises:
        ServerMissing: no apt, no network, no such package, a bad signature, another architecture.
    """
    refused = cache_root() / "mysql-missing"
    if refused.exists() and time.time() - refused.stat().st_mtime < RETRY_SECONDS:
        raise ServerMissing(refused.read_text())
    try:
        root = cached("mysql-sid", PACKAGES, _unpack) / "root"
    except (ServerMissing, OSError, subprocess.SubprocessError) as error:
        refused.write_text(f"{error} (not tried again for {RETRY_SECONDS} s)")  # each xdist worker asks
        raise ServerMissing(str(error)) from error
    return root


def program(root: Path, path: str) -> list[str]:
    """Command line that runs an unpacked program with its own C library."""
    libraries = root / "usr/lib" / _triplet()
    loader = next(iter(sorted(libraries.glob("ld-linux-*.so.*"))), libraries / "ld-linux.so")
    return [str(loader), "--library-path", str(libraries), str(root / path)]


def _triplet() -> str:
    return f"{platform.machine()}-linux-gnu"


def _unpack(part: Path) -> None:
    mirror = _mirror()
    work = part / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "state", "log"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sid.sources").write_text(
        f"Types: deb\nURIs: {mirror}\nSuites: sid\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    settings = {
        "Dir::Etc::SourceList": work / "sid.sources",
        "Dir::Etc::SourceParts": "-",
        "Dir::State": work / "state",
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Log": work / "log",
        "APT::Sandbox::User": "root",  # as root: apt's own user may not enter this folder
        "Acquire::Languages": "none",
    }
    config = work / "apt.conf"
    config.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    _run(["apt-get", "-q", "update"], config)
    _run(["apt-get", "-q", "-y", "install", "--download-only", "--no-install-recommends", *PACKAGES], config)
    archives = sorted((work / "cache/archives").glob("*.deb"))
    for archive in archives:
        if not archive.name.startswith(NOT_NEEDED):
            _run(["dpkg", "-x", str(archive), str(part / "root")], config)
    if not (part / "root/usr/sbin/mysqld").exists():
        raise ServerMissing("the packages hold no mysqld")
    shutil.rmtree(work)


def _mirror() -> str:
    """The Debian mirror of this machine's own sources, as apt itself understands them."""
    if not shutil.which("apt-get") or not shutil.which("dpkg") or not KEYRING.exists():
        raise ServerMissing("MySQL is unpacked from Debian packages, and this is no Debian")
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, check=False, timeout=STEP_SECONDS,
    )  # fmt: skip
    for address in done.stdout.split():
        if address.rstrip("/").endswith("/debian"):
            return address
    raise ServerMissing("the machine's apt sources name no Debian mirror")


def _run(command: list[str], config: Path) -> None:
    own = {"APT_CONFIG": str(config), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=STEP_SECONDS
    )
    # `apt-get update` says 0 although the index could not be fetched; it then warns.
    if done.returncode or "Some index files failed" in done.stderr:
        raise ServerMissing(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-600:]}")
