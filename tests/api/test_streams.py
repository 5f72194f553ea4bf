"""Answers that flow, over a real socket: the end is said, a reader that leaves or sleeps stops the work, an error never looks whole.

Attack 30 (a truncated result taken as complete) and 31 (slow reader), pitfalls P2 to P4.
"""

from __future__ import annotations

import http.client
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from dblens.api import streams
from dblens.errors import EngineError
from dblens.workspace import wire
from tests.api.conftest import World, until
from tests.api.doors import STATE

PATH = "/api/v1/queries/export"


@pytest.fixture
def head(world: World) -> dict[str, str]:
    return world.headers("acme", "developer")


def framed(answer: httpx.Response) -> tuple[bytes, wire.End]:
    reader, data = wire.Frames(), b""
    for part in answer.iter_bytes(1000):
        data += b"".join(reader.feed(part))
    return data, reader.finish()


def test_plain_bytes(live_things: str, head: dict[str, str]) -> None:
    answer = httpx.get(f"{live_things}{PATH}?blocks=3", headers=head)
    assert answer.status_code == 200
    assert answer.content == b"A" * 100_000 + b"B" * 100_000 + b"C" * 100_000
    assert answer.headers["content-type"] == "application/octet-stream"


def test_frames_say_their_end_and_the_result(live_things: str, head: dict[str, str]) -> None:
    with httpx.stream("GET", f"{live_things}{PATH}?blocks=3", headers={**head, "Accept": wire.FRAMES}) as answer:
        assert answer.headers["content-type"] == wire.FRAMES
        data, end = framed(answer)
    assert len(data) == 300_000
    assert end == wire.End(status="ok", bytes=300_000, result=300_000)


def test_nothing_is_an_answer_too(live_things: str, head: dict[str, str]) -> None:
    with httpx.stream("GET", f"{live_things}{PATH}?blocks=0", headers={**head, "Accept": wire.FRAMES}) as answer:
        assert framed(answer) == (b"", wire.End(status="ok", bytes=0, result=0))
    assert httpx.get(f"{live_things}{PATH}?blocks=0", headers=head).content == b""


def test_an_early_error_is_a_problem(live_things: str, head: dict[str, str]) -> None:
    answer = httpx.get(f"{live_things}{PATH}?blocks=3&fail_at=0", headers=head)
    assert (answer.status_code, answer.json()["code"]) == (500, "error")
    assert "canary" not in answer.text


def test_a_late_error_is_said_in_the_last_frame(live_things: str, head: dict[str, str]) -> None:
    with httpx.stream(
        "GET", f"{live_things}{PATH}?blocks=9&fail_at=5", headers={**head, "Accept": wire.FRAMES}
    ) as answer:
        assert answer.status_code == 200
        data, end = framed(answer)
    assert (end.status, end.error["status"], end.error["code"]) == ("error", 500, "error")  # type: ignore[index]
    assert len(data) == end.bytes > 0
    assert "canary" not in repr(end)


def test_a_late_error_cuts_plain_bytes(live_things: str, head: dict[str, str]) -> None:
    """The chunked answer has no last chunk, so no client takes it for the whole."""
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{live_things}{PATH}?blocks=9&fail_at=5", headers=head)
    parts = urlsplit(live_things)
    raw = http.client.HTTPConnection(parts.hostname or "", parts.port)
    raw.request("GET", f"{PATH}?blocks=9&fail_at=5", headers=head)
    with pytest.raises(http.client.IncompleteRead):
        raw.getresponse().read()
    raw.close()


@pytest.mark.parametrize("cut", [0, 3, 4, 5, 100, -1])
def test_what_was_cut_is_not_complete(cut: int) -> None:
    whole = wire.frame(b"x" * 100) + wire.ending(wire.End(status="ok", bytes=100))
    reader = wire.Frames()
    list(reader.feed(whole[:cut]))
    with pytest.raises(EngineError, match="cut off"):
        reader.finish()


def test_frames_that_are_missing_are_counted() -> None:
    reader = wire.Frames()
    list(reader.feed(wire.frame(b"x" * 10) + wire.ending(wire.End(status="ok", bytes=20))))
    with pytest.raises(EngineError, match="cut off"):
        reader.finish()
    with pytest.raises(EngineError, match="too long"):
        list(wire.Frames().feed(b"\xff" * 8))


def test_frames_octet_by_octet() -> None:
    whole = wire.frame(b"ab") + wire.frame(b"") + wire.frame(b"c") + wire.ending(wire.End(status="ok", bytes=3))
    reader = wire.Frames()
    found = b"".join(part for at in range(len(whole)) for part in reader.feed(whole[at : at + 1]))
    assert (found, reader.finish().status) == (b"abc", "ok")


def test_a_reader_that_leaves_stops_the_work(live_things: str, head: dict[str, str]) -> None:
    STATE["ended"] = None
    with httpx.stream("GET", f"{live_things}{PATH}?blocks=100000", headers=head) as answer:
        next(answer.iter_bytes())
        assert STATE["open"] == 1
    assert until(lambda: STATE["open"] == 0, 5)
    assert STATE["ended"] == "Cancelled"


def _slow(url: str, head: dict[str, str]) -> socket.socket:
    parts = urlsplit(url)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((parts.hostname, parts.port))
    lines = [f"GET {PATH}?blocks=100000 HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in head.items()), "", ""]
    made.sendall("\r\n".join(lines).encode())
    return made


def test_a_slow_reader_holds_the_work_back(live_things: str, head: dict[str, str]) -> None:
    STATE["written"] = 0
    made = _slow(live_things, head)
    assert until(lambda: STATE["written"] > 0, 5)
    time.sleep(0.5)
    first = STATE["written"]
    time.sleep(0.7)
    assert STATE["written"] == first < 50_000_000
    made.close()
    assert until(lambda: STATE["open"] == 0, 5)


def test_a_reader_that_sleeps_is_dropped(
    live_things: str, head: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = streams.Flowing.__init__
    monkeypatch.setattr(streams.Flowing, "__init__", lambda self, *a, **k: flow(self, *a, **{**k, "patience": 0.5}))
    STATE["ended"] = None
    made = _slow(live_things, head)
    assert until(lambda: STATE["ended"] is not None, 8)
    assert STATE["ended"] == "Cancelled"
    made.close()


def test_streams_are_bounded_and_leave_room_for_others(
    thing: TestClient, live_things: str, head: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dblens.api import work

    monkeypatch.setattr(work, "PATIENCE", 0.3)
    readers = [_slow(live_things, head) for _ in range(work.STREAMS)]
    assert until(lambda: STATE["open"] == work.STREAMS, 5)
    answer = httpx.get(f"{live_things}{PATH}", headers=head)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert httpx.get(f"{live_things}/api/v1/templates", headers=head).status_code == 200
    for each in readers:
        each.close()
    assert until(lambda: STATE["open"] == 0, 8)
    assert httpx.get(f"{live_things}{PATH}", headers=head).status_code == 200


async def _closed_early(items: Any) -> list[bytes]:
    found = []
    flow = streams.closing_stream(items)
    async for item in flow:
        found.append(item)
        if len(found) == 2:
            break
    await flow.aclose()  # type: ignore[attr-defined]
    return found


def test_a_generator_is_closed_when_its_reader_leaves() -> None:
    import anyio

    closed = []

    def numbers() -> Any:
        try:
            for number in range(10):
                yield bytes([number])
        finally:
            closed.append(True)

    assert anyio.run(_closed_early, numbers()) == [b"\0", b"\1"]
    assert closed == [True]
