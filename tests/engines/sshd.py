"""A real SSH server of our own: unprivileged, on loopback, with fresh keys, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

from tests.servers import reaper
from tests.servers.fixtures import missing
from tests.servers.folders import Account, temp_root

PASSPHRASE = "c4nary-of-the-key"


class Sshd:
    """One sshd, run by an unprivileged account when we are root (it then lets only that account in)."""

    def __init__(self) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
        if program is None or shutil.which("ssh-keygen") is None:
            missing("sshd", "no sshd; apt-get install openssh-server openssh-client")
        self.program = program
        self.account = Account()
        self.user = pwd.getpwuid(self.account.uid).pw_name
        self.folder = Path(tempfile.mkdtemp(prefix="dblens-sshd-", dir=temp_root()))
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def key(self, name: str, passphrase: str = "") -> str:
        """Make a key pair and return the private key."""
        path = self.folder / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(path)],
            check=True, stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
        return path.read_text()

    def start(self) -> Self:
        self.key("host")
        self.client_key = self.key("client")
        self.locked_key = self.key("locked", PASSPHRASE)
        self.other_key = self.key("other")
        self.key("other_host")
        allowed = self.folder / "authorized"
        allowed.write_text((self.folder / "client.pub").read_text() + (self.folder / "locked.pub").read_text())
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, self.account.uid, self.account.gid)
        self.port = reaper.free_port()
        self.log = self.folder / "log"
        config = self.folder / "config"
        config.write_text(
            f"""
Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.folder}/host
AuthorizedKeysFile {allowed}
PidFile none
StrictModes no
UsePAM {"yes" if self.account.switch else "no"}
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
LogLevel VERBOSE
PrintMotd no
"""
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.program, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={"PATH": "/usr/bin:/bin"}, start_new_session=True, **self.account.become(),
            )  # fmt: skip
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        pytest.fail(f"sshd did not start: {self.log.read_text()}")

    @property
    def host_key(self) -> str:
        return (self.folder / "host.pub").read_text().rpartition(" ")[0]

    @property
    def other_host_key(self) -> str:
        return (self.folder / "other_host.pub").read_text().rpartition(" ")[0]

    def close(self) -> None:
        if self.process is not None:
            reaper.kill_tree(self.process.pid)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
