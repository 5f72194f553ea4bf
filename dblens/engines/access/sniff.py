"""What listens at a port, asked only after a driver failed there: servers of another protocol often just fall silent."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

from dblens.errors import DBLensError

Dial = Callable[[float], socket.socket]
_SECONDS = 0.7
# {hello: 1, $db: "admin"} as OP_MSG.
_BODY = b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0"
_HELLO = struct.pack("<i", len(_BODY) + 5) + _BODY + b"\0"
_OP_MSG = struct.pack("<iiiiI", 16 + 5 + len(_HELLO), 1, 0, 2013, 0) + b"\0" + _HELLO


def _exchange(dial: Dial, request: bytes) -> bytes:
    with contextlib.suppress(OSError, DBLensError), dial(_SECONDS) as made:
        made.settimeout(_SECONDS)
        if request:
            made.sendall(request)
        return made.recv(512)
    return b""


def sniff(dial: Dial) -> str:
    """Return the title of the server behind `dial`, empty when it is not known. Takes up to three seconds."""
    greeting = _exchange(dial, b"")
    if greeting.startswith(b"SSH-"):
        return "an SSH server"
    if len(greeting) > 5 and greeting[3:4] == b"\0" and greeting[4] in (9, 10, 0xFF):
        return "MySQL"
    if greeting[:3] in (b"220", b"+OK", b"* O"):
        return "a mail or file server"
    if greeting:
        return "a server of another protocol"
    if _exchange(dial, struct.pack(">ii", 8, 80877103)) in (b"S", b"N"):
        return "PostgreSQL"
    answer = _exchange(dial, _OP_MSG)
    if len(answer) >= 16 and struct.unpack_from("<i", answer, 12)[0] in (1, 2013):
        return "MongoDB"
    if _exchange(dial, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/"):
        return "a web server"
    return ""
