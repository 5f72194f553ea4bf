"""A run that goes on in the service: its events, a stream that breaks, an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dblens.client.events import events
from dblens.client.runs import Waiting
from dblens.client.service import Service
from dblens.errors import ConnectionFailed, NotAuthenticated, NotFound
from dblens.events import Event, Progress, StepDone, StepStarted, Warned, silent
from tests.client import stub as s
from tests.client.stub import Asked, Say, Stub

Make = Callable[..., Service]
RUN, EVENTS, CANCEL = "/api/v1/runs/r1", "/api/v1/runs/r1/events", "/api/v1/runs/r1/cancel"


def sent(number: int, event: str, data: Any) -> bytes:
    return f"id: {number}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


def line(number: int, level: str, text: str) -> bytes:
    return sent(number, "log", {"number": number, "at": "2026-11-23T12:00:00Z", "level": level, "text": text})


END = sent(9, "end", {"id": "r1", "state": "succeeded"})
DONE = {"type": "progress", "task": "copy", "done": 5, "total": 9, "unit": "rows"}
ROWS = sent(3, "progress", {"state": "running", "progress": DONE, "cancel_at": None})
STARTED = sent(0, "progress", {"state": "running", "progress": {}, "cancel_at": None})


def stream(*chunks: bytes, cut: bool = False) -> Say:
    return Say(kind="text/event-stream", chunks=chunks, cut=cut)


def state(name: str, **more: Any) -> Say:
    return Say(body=json.dumps({"id": "r1", "state": name, **more}).encode())


class Clock:
    """Time that only sleeping makes pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def waiting(service: Service, report: Any = silent) -> Waiting:
    clock = Clock()
    return Waiting(service, "r1", report, sleep=clock.sleep, clock=clock)


# ------------------------------------------------------------------------------------------------------------------------ parser


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_read_however_they_are_cut(size: int, end: str) -> None:
    text = ": hello\nid: 7\nevent: log\ndata: é1\ndata: 2\n\ndata:3\n\nid: 8\n\nevent: lost\ndata: 4\n".replace(
        "\n", end
    )
    octets = text.encode()
    found = list(events(octets[at : at + size] for at in range(0, len(octets), size)))
    assert [(e.event, e.data, e.id) for e in found] == [("log", "é1\n2", "7"), ("message", "3", "7")]


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    with pytest.raises(ConnectionFailed):
        list(events(b"x" * 1024 * 1024 for _ in range(20)))


# ------------------------------------------------------------------------------------------------------------------------ waiting


def test_what_a_run_says_is_heard(stub: Stub, service: Make) -> None:
    heard: list[Event] = []
    stub.by = {
        EVENTS: lambda _: stream(
            STARTED,
            line(1, "info", "copy … shop.orders"),
            b": still here\n\n",
            ROWS,
            ROWS,
            line(4, "warning", "a word"),
            line(5, "info", "copy: 1.25 s, 9 rows"),
            line(6, "debug", "rows: 5"),
            END,
        )
    }
    waiting(service(), heard.append).wait()
    assert heard == [
        StepStarted("copy", "shop.orders"),
        Progress("copy", 5, 9),
        Warned("a word"),
        StepDone("copy", 1.25, "9 rows"),
    ]


def test_a_stream_that_breaks_goes_on_where_it_was(stub: Stub, service: Make) -> None:
    heard: list[Event] = []
    parts = [
        stream(line(1, "warning", "one"), line(2, "warning", "two"), cut=True),
        stream(line(3, "warning", "three"), END),
    ]
    stub.by = {EVENTS: lambda _: parts.pop(0), RUN: lambda _: state("running")}
    waiting(service(), heard.append).wait()
    assert heard == [Warned("one"), Warned("two"), Warned("three")]
    asked = [a.headers.get("last-event-id") for a in stub.asked if a.path == EVENTS]
    assert asked == [None, "2"]


def test_without_a_stream_it_is_asked_again_and_again(stub: Stub, service: Make) -> None:
    heard: list[Event] = []
    rows = {"type": "progress", "task": "copy", "done": 5, "total": None, "unit": "rows"}
    states = [state("running"), state("running", progress=rows), state("running", progress=rows), state("failed")]
    stub.by = {EVENTS: lambda _: s.problem(404, "not_found"), RUN: lambda _: states.pop(0)}
    waiting(service(), heard.append).wait()
    assert heard == [Progress("copy", 5)]
    assert [a.path for a in stub.asked] == [EVENTS, RUN, RUN, RUN, RUN]


def test_a_service_that_starts_again_is_waited_for(stub: Stub, service: Make) -> None:
    down = [Say(503, kind="text/html")] * 12
    stub.by = {
        EVENTS: lambda _: down.pop() if down else stream(END),
        RUN: lambda _: down.pop() if down else state("succeeded"),
    }
    waiting(service()).wait()
    assert not down


def test_a_service_that_is_gone_for_good_is_said(stub: Stub, service: Make) -> None:
    stub.by = {EVENTS: lambda _: Say(503, kind="text/html"), RUN: lambda _: Say(503, kind="text/html")}
    with pytest.raises(ConnectionFailed) as caught:
        waiting(service()).wait()
    assert "dblens run show r1" in str(caught.value)


def test_too_many_streams_are_no_reason_to_give_up(stub: Stub, service: Make) -> None:
    states = [state("running"), s.problem(429, "rate.limited", "slow", retry_after=7), state("succeeded")]
    stub.by = {
        EVENTS: lambda _: s.problem(429, "rate.limited", "too many", retry_after=10),
        RUN: lambda _: states.pop(0),
    }
    waits = waiting(service())
    waits.wait()
    assert not states
    assert waits._clock() >= 17


def test_a_login_that_ends_meanwhile_is_said(stub: Stub, service: Make) -> None:
    stub.by = {EVENTS: lambda _: s.problem(401, "auth.required", "log in again")}
    with pytest.raises(NotAuthenticated) as caught:
        waiting(service()).wait()
    assert caught.value.__notes__ == ["run r1 may go on without us"]


def test_a_run_that_is_not_there_is_said(stub: Stub, service: Make) -> None:
    stub.by = {EVENTS: lambda _: s.problem(404, "not_found"), RUN: lambda _: s.problem(404, "not_found", "no run 'r1'")}
    with pytest.raises(NotFound, match="no run 'r1'"):
        waiting(service()).wait()


# ---------------------------------------------------------------------------------------------------------------------- interrupt


def test_an_interrupt_asks_it_to_stop_and_waits(stub: Stub, service: Make) -> None:
    order: list[str] = []

    def interrupted(_event: Event) -> None:
        raise KeyboardInterrupt

    def cancel(_asked: Asked) -> Say:
        order.append("cancel")
        return state("running")

    def flow(_asked: Asked) -> Say:
        order.append("events")
        return stream(ROWS, *([END] if "cancel" in order else []))

    stub.by = {EVENTS: flow, CANCEL: cancel, RUN: lambda _: state("running")}
    waiting(service(), interrupted).wait()
    assert order == ["events", "cancel", "events"]


def test_a_second_interrupt_leaves_it(stub: Stub, service: Make) -> None:
    def interrupted(_event: Event) -> None:
        raise KeyboardInterrupt

    def again(_asked: Asked) -> Say:
        return state("running")

    waits = waiting(service(), interrupted)
    stub.by = {EVENTS: lambda _: stream(ROWS), CANCEL: again, RUN: again}

    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    waits._sleep = sleep
    with pytest.raises(KeyboardInterrupt) as caught:
        waits.wait()
    assert "run r1 was asked to stop" in caught.value.__notes__[0]


def test_a_listener_that_fails_stops_the_run_too(stub: Stub, service: Make) -> None:
    cancelled: list[Asked] = []

    def broken(_event: Event) -> None:
        raise ValueError("the bar broke")

    def cancel(asked: Asked) -> Say:
        cancelled.append(asked)
        return state("running")

    stub.by = {EVENTS: lambda _: stream(ROWS, END), CANCEL: cancel}
    with pytest.raises(ValueError, match="the bar broke"):
        waiting(service(), broken).wait()
    assert len(cancelled) == 1
