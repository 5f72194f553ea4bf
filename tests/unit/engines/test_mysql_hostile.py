"""A server that asks for the client's files gets the announced stream, or nothing at all."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblens.engines.base import Url
from dblens.engines.mysql.driver import ClientLink, Link, mysqlclient
from dblens.engines.mysql.infile import Loader
from dblens.errors import DBLensError, QueryFailed

SECRET = "/etc/passwd"
OK = b"\x00\x00\x00\x02\x00\x00\x00"


class HostileServer:
    """Speaks just enough of the protocol to log a client in; answers each query that says `ask` with a request for a file."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.received: list[bytes] = []
        self.asked = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client:
            flags = 0x81FF7 | 0x80 | 0x8000 | 0x80000
            greeting = (
                b"\x0a5.7.0-hostile\0" + struct.pack("<I", 7) + b"12345678\0" + struct.pack("<H", flags & 0xFFFF) + b"\x2d"
                + b"\x02\x00" + struct.pack("<H", flags >> 16) + b"\x15" + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0"
            )  # fmt: skip
            self._send(client, 0, greeting)
            self._read(client)
            self._send(client, 2, OK)
            while True:
                command = self._read(client)
                if not command or command[:1] == b"\x01":
                    return
                if b"ask" not in command:
                    self._send(client, 1, OK)
                    continue
                self.asked += 1
                self._send(client, 1, b"\xfb" + SECRET.encode())
                got = b""
                while piece := self._read(client):
                    got += piece
                self.received.append(got)
                self._send(client, self.last + 1, OK)

    def _send(self, client: socket.socket, number: int, payload: bytes) -> None:
        try:
            client.sendall(struct.pack("<I", len(payload))[:3] + bytes([number & 255]) + payload)
        except OSError:
            return

    def _read(self, client: socket.socket) -> bytes:
        head = self._exactly(client, 4)
        if len(head) < 4:
            return b""
        self.last = head[3]
        return self._exactly(client, int.from_bytes(head[:3], "little"))

    @staticmethod
    def _exactly(client: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = client.recv(size - len(data))
            except OSError:
                return b""
            if not piece:
                return b""
            data += piece
        return data


@pytest.fixture
def server() -> Iterator[HostileServer]:
    made = HostileServer()
    yield made
    made.socket.close()


def _url(server: HostileServer) -> Url:
    return Url(scheme="mysql", host="127.0.0.1", port=server.port, user="me", options={"ssl-mode": "disabled"})


def test_a_load_serves_the_announced_stream_whatever_is_asked_for(server: HostileServer) -> None:
    link = Loader(_url(server), "canary", None)
    link.load("load data local infile 'dblens' -- ask", [b"one\n", b"two\n"])
    assert server.received == [b"one\ntwo\n"]
    link.close()


def test_outside_a_load_the_loader_gives_nothing(server: HostileServer) -> None:
    link = Loader(_url(server), "canary", None)
    with pytest.raises(DBLensError, match="asked this client for a local file"):
        link.run("select 'ask'")
    assert server.asked == 1
    assert all(got == b"" for got in server.received)
    # One announcement is good for one request.
    link = Loader(_url(server), "canary", None)
    link.load("load data -- ask", [b"mine"])
    with pytest.raises(DBLensError, match="asked this client for a local file"):
        link.run("select 'ask'")
    assert [got for got in server.received if got] == [b"mine"]


@pytest.mark.parametrize("driver", ["pymysql", *(["mysqlclient"] if mysqlclient() else [])])
def test_reading_connections_never_send_a_file(server: HostileServer, driver: str) -> None:
    secret = Path(SECRET).read_bytes()
    link = Link(_url(server), "canary", None) if driver == "pymysql" else ClientLink(_url(server), "canary", None)
    with pytest.raises(DBLensError):
        link.rows("select 'ask'")
    link.close()
    link = Link(_url(server), "canary", None) if driver == "pymysql" else ClientLink(_url(server), "canary", None)
    with pytest.raises(DBLensError):
        list(link.stream("select 'ask'"))
    link.close()
    assert server.asked == 2
    assert not any(got and (got in secret or secret in got) for got in server.received)


def test_a_stream_that_breaks_is_never_taken_for_a_whole_one(server: HostileServer) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise QueryFailed("the source died")

    link = Loader(_url(server), "canary", None)
    with pytest.raises(QueryFailed, match="the source died"):
        link.load("load data -- ask", broken())
    link.close()
