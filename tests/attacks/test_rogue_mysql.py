"""15: a MySQL server that asks the client for a file, at the first statement that a driver would answer with one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dblens.engines.access.connect import connect
from dblens.engines.access.guard import SINGLE_USER
from dblens.engines.access.spec import ConnectionSpec
from dblens.errors import DBLensError
from tests.engines import rogue as lies
from tests.engines.rogue import Rogue

FILE = "c4nary-of-the-file"


def asks(path: str, *, after: int) -> object:
    """Log a client in, do what it says `after` times, then ask for a file; a driver's own first words expect no file."""

    def talk(rogue: Rogue, client: socket.socket) -> None:
        client.sendall(lies._packet(0, lies.MY_GREETING))
        lies._read_packet(rogue, client)
        client.sendall(lies._packet(2, lies.MY_OK))
        for _ in range(after):
            lies._read_packet(rogue, client)
            client.sendall(lies._packet(1, lies.MY_OK))
        lies._read_packet(rogue, client)
        client.sendall(lies._packet(1, b"\xfb" + path.encode()))
        rogue.drain(client)

    return talk


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient"])
def test_a_rogue_server_gets_no_file(driver: str, after: int, tmp_path: Path) -> None:
    if driver == "mysqlclient":
        pytest.importorskip("MySQLdb")
    path = tmp_path / "file"
    path.write_text(FILE)
    with Rogue(asks(str(path), after=after)) as rogue:  # type: ignore[arg-type]
        spec = ConnectionSpec(
            engine="mysql", host="127.0.0.1", port=rogue.port, user="me", database="d", options={"driver": driver}
        )
        with pytest.raises(DBLensError), connect(spec, {"password": "x"}, SINGLE_USER, seconds=3) as opened:
            opened.session.execute("SELECT 1")
        assert rogue.accepted
    assert FILE.encode() not in rogue.received
