"""Servers that lie: each speaks just enough of a protocol to be believed, and then does harm."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import bson


class Rogue:
    """A TCP server on loopback; `talk` handles one client. What clients send is kept in `received`."""

    def __init__(self, talk: Callable[[Rogue, socket.socket], None], *, tls: ssl.SSLContext | None = None) -> None:
        self.talk, self.tls = talk, tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.received = b""
        self.accepted = 0
        self.stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error, EOFError), client:
            if self.tls is not None:
                with self.tls.wrap_socket(client, server_side=True) as secure:
                    self.talk(self, secure)
                return
            self.talk(self, client)

    def read(self, client: socket.socket, count: int) -> bytes:
        got = b""
        while len(got) < count:
            part = client.recv(count - len(got))
            if not part:
                raise EOFError
            got += part
        self.received += got
        return got

    def drain(self, client: socket.socket) -> None:
        """Keep what the client still sends for a moment."""
        client.settimeout(1)
        with contextlib.suppress(OSError):
            while part := client.recv(4096):
                self.received += part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self.listener.close()


# ---- any protocol


def silent(rogue: Rogue, client: socket.socket) -> None:
    rogue.stop.wait(30)


def ssh_banner(rogue: Rogue, client: socket.socket) -> None:
    client.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    rogue.drain(client)


def web(rogue: Rogue, client: socket.socket) -> None:
    client.settimeout(5)
    rogue.received += client.recv(4096)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def drip(rogue: Rogue, client: socket.socket) -> None:
    """One octet now and then: every single read succeeds in time."""
    with contextlib.suppress(OSError):
        while not rogue.stop.wait(0.1):
            client.sendall(b"\x4a")


def mirror(target: tuple[str, int]) -> Callable[[Rogue, socket.socket], None]:
    """Hand everything on to a real server: with `tls`, a server that speaks TLS from the first octet."""

    def talk(rogue: Rogue, client: socket.socket) -> None:
        with socket.create_connection(target) as server:

            def back() -> None:
                with contextlib.suppress(OSError):
                    while part := server.recv(65536):
                        client.sendall(part)

            threading.Thread(target=back, daemon=True).start()
            while part := client.recv(65536):
                server.sendall(part)

    return talk


# ---- PostgreSQL


def _startup(rogue: Rogue, client: socket.socket) -> None:
    while True:
        (size,) = struct.unpack(">i", rogue.read(client, 4))
        body = rogue.read(client, size - 4)
        if body[:4] in (struct.pack(">i", 80877103), struct.pack(">i", 80877104)):
            client.sendall(b"N")
            continue
        return


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


AUTH_OK = _message(b"R", struct.pack(">i", 0))
READY = _message(b"Z", b"I")
NOTICE = _message(b"N", b"SNOTICE\0VNOTICE\0C00000\0M" + b"x" * 900 + b"\0\0")


def pg_notices(pause: float) -> Callable[[Rogue, socket.socket], None]:
    def talk(rogue: Rogue, client: socket.socket) -> None:
        _startup(rogue, client)
        client.sendall(AUTH_OK)
        while not rogue.stop.is_set():
            client.sendall(NOTICE)
            time.sleep(pause)

    return talk


def pg_after_login(body: bytes, pause: float = 0.0) -> Callable[[Rogue, socket.socket], None]:
    """Log in properly, then answer the first query with `body` and what never ends."""

    def talk(rogue: Rogue, client: socket.socket) -> None:
        _startup(rogue, client)
        client.sendall(AUTH_OK + READY)
        rogue.read(client, 5)
        client.sendall(body)
        junk = NOTICE * 64 if not body else b"\0" * 65536
        while not rogue.stop.is_set():
            client.sendall(junk)
            if pause:
                time.sleep(pause)

    return talk


def pg_first_message(body: bytes) -> Callable[[Rogue, socket.socket], None]:
    def talk(rogue: Rogue, client: socket.socket) -> None:
        _startup(rogue, client)
        client.sendall(body)
        rogue.drain(client)

    return talk


GIANT_ROW = b"T" + struct.pack(">i", 0x7FFFFFF0)
GIANT_AUTH = b"R" + struct.pack(">i", 0x7FFFFFF0)
GIANT_ERROR = b"E" + struct.pack(">i", 0x7FFFFFF0)
ASK_CLEAR = _message(b"R", struct.pack(">i", 3))
ASK_GSS = _message(b"R", struct.pack(">i", 7))
WRONG_DATABASE = _message(b"E", b"SFATAL\0VFATAL\0C28P01\0Mpassword s3cr3t-canary is wrong\0\0")

# ---- MySQL

_FLAGS = 0x817F7 | 0x80 | 0x8000 | 0x80000
MY_GREETING = (
    b"\x0a8.0.0-rogue\0" + struct.pack("<I", 7) + b"12345678\0" + struct.pack("<H", _FLAGS & 0xFFFF) + b"\x2d"
    + b"\x02\x00" + struct.pack("<H", _FLAGS >> 16) + b"\x15" + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0"
)  # fmt: skip
MY_OK = b"\x00\x00\x00\x02\x00\x00\x00"


def _packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def _read_packet(rogue: Rogue, client: socket.socket) -> bytes:
    head = rogue.read(client, 4)
    return rogue.read(client, int.from_bytes(head[:3], "little"))


def my_asks_for_file(path: str) -> Callable[[Rogue, socket.socket], None]:
    """Log a client in and answer everything it says with a request for a file."""

    def talk(rogue: Rogue, client: socket.socket) -> None:
        client.sendall(_packet(0, MY_GREETING))
        _read_packet(rogue, client)
        client.sendall(_packet(2, MY_OK))
        while True:
            _read_packet(rogue, client)
            client.sendall(_packet(1, b"\xfb" + path.encode()))
            rogue.drain(client)

    return talk


def my_switches_to(plugin: bytes) -> Callable[[Rogue, socket.socket], None]:
    """Ask for another authentication: `mysql_clear_password` sends the password as it is."""

    def talk(rogue: Rogue, client: socket.socket) -> None:
        client.sendall(_packet(0, MY_GREETING))
        _read_packet(rogue, client)
        client.sendall(_packet(2, b"\xfe" + plugin + b"\0"))
        rogue.drain(client)

    return talk


def my_endless(rogue: Rogue, client: socket.socket) -> None:
    """Log a client in, then send packets of 16 MiB that always go on."""
    client.sendall(_packet(0, MY_GREETING))
    _read_packet(rogue, client)
    client.sendall(_packet(2, MY_OK))
    rogue.read(client, 5)
    number = 1
    while not rogue.stop.is_set():
        client.sendall(b"\xff\xff\xff" + bytes([number % 256]) + b"\x05" * 0xFFFFFF)
        number += 1


# ---- MongoDB


def mongo_hello(**extra: Any) -> Callable[[Rogue, socket.socket], None]:
    """Answer every command with a hello of a replica set whose members are somewhere else."""

    def talk(rogue: Rogue, client: socket.socket) -> None:
        while True:
            head = rogue.read(client, 16)
            size, request, _, code = struct.unpack("<iiii", head)
            rogue.read(client, size - 16)
            answer = bson.encode({
                "ok": 1.0, "helloOk": True, "ismaster": True, "isWritablePrimary": True, "maxWireVersion": 21, "minWireVersion": 0,
                "maxBsonObjectSize": 16777216, "maxMessageSizeBytes": 48000000, "maxWriteBatchSize": 100000, **extra,
            })  # fmt: skip
            body = struct.pack("<I", 0) + b"\0" + answer
            if code == 2004:  # OP_QUERY is answered by OP_REPLY
                body, reply = struct.pack("<iqii", 8, 0, 0, 1) + answer, 1
            else:
                reply = 2013
            client.sendall(struct.pack("<iiii", 16 + len(body), 1, request, reply) + body)

    return talk


# ---- certificates


def certificate(
    folder: Path, name: str, *, hosts: tuple[str, ...] = (), issuer: tuple[Any, Any] | None = None, days: int = 2
) -> tuple[Any, Any]:
    """Make `<name>.crt` and `<name>.key`: an authority without an issuer, else a certificate for the hosts. Return both."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signed_by, signing_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=3))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=issuer is None, crl_sign=issuer is None, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if hosts:
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(signing_key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
    (folder / f"{name}.key").chmod(0o600)
    return made, key
