"""A server that answers what it was told to, cut off where it was told to, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]


@dataclass
class Say:
    """An answer: whole, or broken on purpose."""

    status: int = 200
    body: bytes = b"null"
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    cut: bool = False
    """Say that there is more than there is, then close."""
    silent: bool = False
    """Close without a word."""
    chunks: tuple[bytes, ...] | None = None
    """Send these in chunks; with `cut` the last one is missing."""
    before: Callable[[], object] | None = None


def problem(status: int, code: str, detail: str = "no", **more: Any) -> Say:
    body = {"type": "x", "title": "x", "status": status, "code": code, "detail": detail, **more}
    return Say(status, json.dumps(body).encode(), kind="application/problem+json")


class Stub:
    """Answers one after the other; the last one again and again. `by` answers by path first."""

    def __init__(self) -> None:
        self.answers: list[Say] = [Say()]
        self.by: dict[str, Callable[[Asked], Say]] = {}
        self.asked: list[Asked] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 64 * 1024  # head and body in one packet

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                size = int(self.headers.get("content-length", "0"))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, self.rfile.read(size), self.client_address)
                stub.asked.append(asked)
                made = stub.by.get(self.path.partition("?")[0])
                if made is not None:
                    say = made(asked)
                else:
                    say = stub.answers.pop(0) if len(stub.answers) > 1 else stub.answers[0]
                if say.before is not None:
                    say.before()
                if say.silent:
                    self.close_connection = True
                    return
                self.send_response(say.status)
                self.send_header("content-type", say.kind)
                for name, value in say.headers.items():
                    self.send_header(name, value)
                if say.chunks is not None:
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    for chunk in say.chunks:
                        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                        self.wfile.flush()
                    if say.cut:
                        self.close_connection = True
                    else:
                        self.wfile.write(b"0\r\n\r\n")
                    return
                self.send_header("content-length", str(len(say.body) + (10 if say.cut else 0)))
                self.end_headers()
                self.wfile.write(say.body)
                if say.cut:
                    self.close_connection = True

            do_GET = do_POST = do_PATCH = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that left is no news

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
