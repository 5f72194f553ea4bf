"""A way through an SSH server, by the system's `ssh`.

The program gets a command line without secrets, a configuration that is only ours, the one host key that was given, and the address that
was checked. It listens on a Unix socket in a private folder (and on a loopback port where TLS needs one), and it ends with this process,
however that ends: it hangs on a pipe whose other end only we hold.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping

from dblens.engines.access import guard
from dblens.engines.access.guard import Policy
from dblens.engines.access.material import PrivateFolder
from dblens.engines.access.spec import Tunnel
from dblens.errors import ConnectionFailed, InvalidInput, NotAuthenticated, TimedOut, Unsupported

OPEN_SECONDS = 15.0
_NAME = "dblens-hop"
# The shell waits for ssh; a second process waits for the end of our pipe, which the kernel closes even after kill -9 of us.
_KEEPER = (
    'exec 3<&0; "$@" </dev/null 3<&- & p=$!; (trap "" HUP; cat <&3 >/dev/null; kill -TERM $p) 2>/dev/null & wait $p'
)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/local/bin", "LANG": "C", "HOME": "/nonexistent"}


class Forward:
    """An open tunnel. `socket_path` always works; `port` on 127.0.0.1 only when it was asked for."""

    def __init__(
        self, process: subprocess.Popen[bytes], folder: PrivateFolder, socket_path: str, port: int | None
    ) -> None:
        self._process, self._folder = process, folder
        self.socket_path, self.port = socket_path, port

    def __repr__(self) -> str:
        return f"Forward({'open' if self.alive else 'closed'})"

    @property
    def alive(self) -> bool:
        """Whether ssh still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process group of the tunnel."""
        return self._process.pid

    def dial(self, seconds: float) -> socket.socket:
        """Open a connection through the tunnel. Raises ConnectionFailed, TimedOut."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(seconds)
        try:
            made.connect(self.socket_path)
        except TimeoutError:
            made.close()
            raise TimedOut("the SSH tunnel does not answer", hint="open the connection again") from None
        except OSError as error:
            made.close()
            raise ConnectionFailed("the SSH tunnel is down", hint="open the connection again") from error
        return made

    def close(self) -> None:
        """End ssh and delete everything it needed."""
        _end(self._process)
        self._folder.close()


def program() -> str:
    """Return the path of `ssh`. Raises Unsupported without it."""
    found = shutil.which("ssh", path=_ENVIRONMENT["PATH"])
    if found is None:
        raise Unsupported(
            "the SSH tunnel",
            "the program ssh is not installed here",
            hint="install it (Debian: apt-get install openssh-client)",
        )
    return found


def open_tunnel(
    tunnel: Tunnel,
    secrets: Mapping[str, str],
    policy: Policy,
    far_host: str,
    far_port: int,
    *,
    tcp: bool = False,
    seconds: float = OPEN_SECONDS,
) -> Forward:
    """Open a tunnel to `far_host:far_port` as the SSH server sees it. `tcp`: listen on a loopback port too.

    Raises Unsupported without ssh, InvalidInput for a missing secret, PermissionDenied for a forbidden hop, NotAuthenticated, TimedOut,
    ConnectionFailed (unknown host key, refused, unreachable).
    """
    ssh = program()
    began = time.monotonic()
    for name in (tunnel.key_secret, tunnel.passphrase_secret, tunnel.password_secret):
        if name is not None and not secrets.get(name):
            raise InvalidInput(
                f"the tunnel needs the secret {name!r}, which is not set", hint="set it on the connection"
            )
    addresses = guard.check_host(tunnel.host, tunnel.port, policy, seconds=min(seconds, guard.RESOLVE_SECONDS))
    far = guard.check_far_host(far_host)
    last: Exception = ConnectionFailed("the tunnel was not tried")
    for attempt in range(3):  # another process may take the loopback port before ssh does
        left = seconds - (time.monotonic() - began)
        folder = PrivateFolder()
        try:
            return _open(ssh, tunnel, secrets, addresses[attempt % len(addresses)], far, far_port, folder, tcp, left)
        except _PortTakenError as error:
            folder.close()
            last = ConnectionFailed("no free local port for the tunnel", hint="try again")
            last.__cause__ = error
        except BaseException:
            folder.close()
            raise
    raise last


class _PortTakenError(Exception):
    pass


def _open(
    ssh: str,
    tunnel: Tunnel,
    secrets: Mapping[str, str],
    address: str,
    far_host: str,
    far_port: int,
    folder: PrivateFolder,
    tcp: bool,
    seconds: float,
) -> Forward:
    path = str(
        folder.path / f".s.PGSQL.{far_port}"
    )  # the name that PostgreSQL's library looks for; the others take any
    far = f"[{far_host}]:{far_port}" if ":" in far_host else f"{far_host}:{far_port}"
    port = _free_port() if tcp else None
    log = folder.write("log", "")
    command = [ssh, *_options(tunnel, secrets, folder, address, log, seconds), "-L", f"{path}:{far}"]
    if port is not None:
        command += ["-L", f"127.0.0.1:{port}:{far}"]
    environment = dict(_ENVIRONMENT)
    asked = secrets.get(tunnel.password_secret or "") or secrets.get(tunnel.passphrase_secret or "")
    if asked:
        answer = folder.write("answer", asked)
        helper = folder.write("ask", f"#!/bin/sh\nexec cat '{answer}'\n", mode=0o700)
        environment |= {"SSH_ASKPASS": helper, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    process = subprocess.Popen(  # noqa: S603 - a list, found by us, with checked values
        ["/bin/sh", "-c", _KEEPER, "dblens-tunnel", *command, "--", _NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    try:
        _await(process, path, log, tunnel, seconds)
    except BaseException:
        _end(process)
        raise
    finally:
        for name in ("key", "answer", "ask"):
            folder.remove(name)
    return Forward(process, folder, path, port)


def _options(
    tunnel: Tunnel, secrets: Mapping[str, str], folder: PrivateFolder, address: str, log: str, seconds: float
) -> list[str]:
    known = folder.write("known", "".join(f"{_NAME} {line}\n" for line in tunnel.host_key.splitlines()))
    options = {
        "HostName": address, "HostKeyAlias": _NAME, "Port": str(tunnel.port), "User": tunnel.user,
        "StrictHostKeyChecking": "yes", "UserKnownHostsFile": known, "GlobalKnownHostsFile": "/dev/null", "CheckHostIP": "no",
        "UpdateHostKeys": "no", "VerifyHostKeyDNS": "no", "CanonicalizeHostname": "no", "ProxyCommand": "none", "ProxyJump": "none",
        "ControlMaster": "no", "ControlPath": "none", "IdentityAgent": "none", "IdentitiesOnly": "yes", "ForwardAgent": "no",
        "ForwardX11": "no", "PermitLocalCommand": "no", "ExitOnForwardFailure": "yes", "StreamLocalBindMask": "0177",
        "ConnectTimeout": str(max(1, int(seconds))), "ServerAliveInterval": "15", "ServerAliveCountMax": "3", "LogLevel": "ERROR",
        "GSSAPIAuthentication": "no", "HostbasedAuthentication": "no", "NumberOfPasswordPrompts": "1",
    }  # fmt: skip
    if tunnel.key_secret:
        options["IdentityFile"] = folder.write("key", secrets[tunnel.key_secret])
    else:
        options["PubkeyAuthentication"] = "no"
    if tunnel.password_secret:
        options["PreferredAuthentications"] = (
            "publickey," if tunnel.key_secret else ""
        ) + "password,keyboard-interactive"
    else:
        options |= {
            "PreferredAuthentications": "publickey",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
        }
    options["BatchMode"] = "no" if tunnel.password_secret or tunnel.passphrase_secret else "yes"
    listed = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return ["-F", "/dev/null", "-N", "-T", "-E", log, *listed]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], path: str, log: str, tunnel: Tunnel, seconds: float) -> None:
    """Wait until ssh listens, which it does once it is logged in."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if process.poll() is not None:
            raise _failure(log, tunnel)
        if time.monotonic() > end:
            raise TimedOut(
                f"the SSH server {tunnel.host}:{tunnel.port} did not let us in within {seconds:g} s",
                hint="check host and port",
            )
        time.sleep(0.02)


def _failure(log: str, tunnel: Tunnel) -> Exception:
    with open(log, encoding="utf-8", errors="replace") as file:
        said = " ".join(file.read(4000).split())
    where = f"the SSH server {tunnel.host}:{tunnel.port}"
    low = said.lower()
    if "address already in use" in low:
        return _PortTakenError(said)
    if "host key" in low and ("verification failed" in low or "changed" in low or "no " in low):
        return ConnectionFailed(
            f"{where} shows another host key than the one that is known",
            hint="somebody may be listening in; compare the key with its administrator before you change it here",
        )
    if "permission denied" in low or "too many authentication failures" in low or "incorrect passphrase" in low:
        return NotAuthenticated(
            f"{where} refused {tunnel.user!r}", hint="check user, key, passphrase or password of the tunnel"
        )
    if "error in libcrypto" in low or "invalid format" in low:
        return InvalidInput(
            "the tunnel's key cannot be read", hint="paste the whole private key, with its passphrase set"
        )
    if "timed out" in low:
        return TimedOut(f"no answer from {where}", hint="check host, port and firewall")
    return ConnectionFailed(f"{where} cannot be used: {said[-200:] or 'no reason given'}", hint="check host and port")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the tunnel's process group."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    for how, wait in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            break
