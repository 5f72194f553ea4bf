"""What long work says while it runs: small frozen events handed to one `report` callable."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Rows done of a task, so that a surface can draw rows/s and an ETA; `total` is None when unknown."""

    task: str
    done: int
    total: int | None = None
    unit: str = "rows"


class StepStarted(msgspec.Struct, frozen=True, tag="step_started"):
    """A named phase began (inspect, copy, verify, swap …)."""

    step: str
    detail: str = ""


class StepDone(msgspec.Struct, frozen=True, tag="step_done"):
    """A named phase ended after `seconds`."""

    step: str
    seconds: float
    detail: str = ""


class Warned(msgspec.Struct, frozen=True, tag="warned"):
    """Something a person should know that does not stop the work."""

    message: str


Event = Progress | StepStarted | StepDone | Warned
Report = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Drop every event."""
