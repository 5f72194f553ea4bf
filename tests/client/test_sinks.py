"""What an operation writes: handed on as it comes, and never taken for whole when it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dblens.client.doors import packed
from dblens.client.service import Service
from dblens.client.sinks import poured
from dblens.errors import ConnectionFailed, EngineError, StoreError
from dblens.workspace.audit import Audit
from dblens.workspace.registry import Operation
from dblens.workspace.wire import FRAMES, End, ending, frame, route
from tests.client import stub as s
from tests.client.stub import Say, Stub

Make = Callable[..., Service]
ABOUT: Operation = Audit.export.__operation__  # type: ignore[attr-defined]
LINES = frame(b"one\n") + frame(b"two\n")
OK = ending(End(status="ok", bytes=8, result=2))


def pour(service: Service, into: list[bytes]) -> object:
    where = route(ABOUT)
    assert where is not None
    return poured(service, ABOUT, packed(ABOUT, where, {"write": into.append, "format": "csv"}))


def flowing(*chunks: bytes, cut: bool = False, kind: str = FRAMES) -> Say:
    return Say(kind=kind, chunks=chunks, cut=cut)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_all_of_it_comes_and_then_the_result(stub: Stub, service: Make, size: int) -> None:
    whole = LINES + OK
    stub.answers = [flowing(*(whole[at : at + size] for at in range(0, len(whole), size)))]
    got: list[bytes] = []
    assert pour(service(), got) == 2
    assert got == [b"one\n", b"two\n"]
    assert stub.asked[0].headers["accept"] == FRAMES
    assert stub.asked[0].path.startswith("/api/v1/audit/export?format=csv")


@pytest.mark.parametrize(
    "say",
    [
        flowing(LINES),  # ends cleanly, without its end
        flowing(LINES, cut=True),
        flowing(LINES + OK[:9]),
        flowing(LINES[:9]),
        flowing(frame(b"one\n") + OK),  # a frame was lost on the way
        flowing(LINES + bytes(4) + b"\0\0\0\3{]}"),
        flowing(b"one\ntwo\n"),
        flowing(b"one\ntwo\n", kind="text/csv"),
    ],
    ids=["clean", "cut", "half-end", "half-frame", "lost", "broken-end", "no-frames", "plain"],
)
def test_what_is_not_whole_is_an_error(stub: Stub, service: Make, say: Say) -> None:
    stub.answers = [say]
    with pytest.raises(EngineError):
        pour(service(), [])


def test_a_late_error_is_the_operations_own(stub: Stub, service: Make) -> None:
    told = {"code": "store.failed", "detail": "the disk is full", "hint": "make room", "status": 503}
    stub.answers = [flowing(LINES + ending(End(status="error", bytes=8, error=told)))]
    got: list[bytes] = []
    with pytest.raises(StoreError, match="the disk is full"):
        pour(service(), got)
    assert got == [b"one\n", b"two\n"]


def test_an_early_error_too(stub: Stub, service: Make) -> None:
    stub.answers = [s.problem(503, "store.failed", "no store")]
    with pytest.raises(StoreError, match="no store"):
        pour(service(), [])


def test_a_sink_that_fails_is_its_callers_error(stub: Stub, service: Make) -> None:
    stub.answers = [flowing(LINES + OK)]

    def full(_data: bytes) -> None:
        raise OSError("no space left")

    where = route(ABOUT)
    assert where is not None
    with pytest.raises(OSError, match="no space left") as caught:
        poured(service(), ABOUT, packed(ABOUT, where, {"write": full}))
    assert not isinstance(caught.value, ConnectionFailed)
