"""A long operation that goes on in the service: its events here, a word to stop it, its outcome."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from dblens.client.events import Sent, events
from dblens.client.service import Service
from dblens.errors import ConnectionFailed, DBLensError, NotFound, RateLimited, Unsupported
from dblens.events import Event, Progress, Report, StepDone, StepStarted, Warned, silent
from dblens.workspace.wire import PREFIX

ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "crashed"})
SILENCE_SECONDS: Final = 45.0
"""How long a stream of events may say nothing at all: the service sends a comment every quarter of a minute."""
GIVE_UP_SECONDS: Final = 300.0
"""How long a service may be out of reach before nobody waits for its run any more. The run does not need the one who waits."""
_DONE: Final = re.compile(r"(.+?): (\d+\.\d+) s(?:, (.*))?", re.DOTALL)
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


class Begun(msgspec.Struct, frozen=True):
    """What is needed to know of a run."""

    id: str
    state: str
    progress: dict[str, Any] = {}


class _State(msgspec.Struct, frozen=True):
    progress: dict[str, Any] = {}


class _Line(msgspec.Struct, frozen=True):
    level: str
    text: str


class Waiting:
    """Waits for a run, and hands on what it says."""

    def __init__(
        self,
        service: Service,
        run: str,
        report: Report,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self.run, self._report = service, run, report
        self._sleep, self._clock = sleep, clock
        self._path = f"{PREFIX}/runs/{quote(run, safe='')}"
        self._last_id = ""
        self._progress: dict[str, Any] = {}

    def wait(self) -> None:
        """Return when the run has ended, however it did. An interrupt, or an error of the listener, asks it to stop first.

        Raises KeyboardInterrupt at the second interrupt, what the listener raised, ConnectionFailed when the service is gone.
        """
        try:
            self._wait()
        except KeyboardInterrupt:
            self._stop()
        except DBLensError as error:
            error.add_note(f"run {self.run} may go on without us")
            raise
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        """Ask the run to stop, and wait until it did: what it leaves behind is settled then."""
        self._report = silent
        try:
            self._service.request("POST", f"{self._path}/cancel", safe=True)
            self._wait()
        except KeyboardInterrupt as error:
            error.add_note(f"run {self.run} was asked to stop; it goes on until it does")
            raise

    def _wait(self) -> None:
        failed, streams, heard = 0, True, self._clock()
        while True:
            try:
                if streams and self._listen():
                    return
                if self._ended():
                    return
                heard, failed = self._clock(), 0 if streams else failed + 1
            except (NotFound, Unsupported):
                if not streams:
                    raise
                streams = False  # a service, or a proxy, that has no stream: ask again and again
            except RateLimited as error:  # so many streams are open, or so much is asked, that this one has to wait
                streams = False
                self._sleep(min(error.retry_after, 30))
            except ConnectionFailed as error:
                failed += 1
                streams = streams and failed < 3
                if self._clock() - heard > GIVE_UP_SECONDS:
                    error.hint = f"run {self.run} may go on without us: `dblens run show {self.run}`"
                    raise
            self._sleep(_PAUSES[min(failed, len(_PAUSES) - 1)])

    def _listen(self) -> bool:
        """Hand on the events as they come; return whether the last of them was the run's end."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        with self._service.stream("GET", f"{self._path}/events", headers=headers, seconds=SILENCE_SECONDS) as stream:
            for sent in events(stream.parts(), self._last_id):
                self._last_id = sent.id
                if self._heard(sent):
                    return True
        return False

    def _heard(self, sent: Sent) -> bool:
        if sent.event == "end":
            return True
        with contextlib.suppress(msgspec.DecodeError):  # a word of tomorrow
            if sent.event == "log":
                self._tell(line_event(msgspec.json.decode(sent.data, type=_Line)))
            elif sent.event == "progress":
                self._moved(msgspec.json.decode(sent.data, type=_State).progress)
        return False

    def _moved(self, progress: dict[str, Any]) -> None:
        """Hand on how far it is, once; a run says it again with every change of its state."""
        if progress and progress != self._progress:
            self._progress = progress
            with contextlib.suppress(msgspec.ValidationError):
                self._tell(msgspec.convert(progress, Progress))

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._report(event)

    def _ended(self) -> bool:
        """Ask for the run itself; return whether it ended."""
        found = msgspec.json.decode(self._service.request("GET", self._path).body, type=Begun)
        self._moved(found.progress)
        return found.state in ENDED


def line_event(line: _Line) -> Event | None:
    """Return what a line of a run's log was as an event (`executor` writes events as lines); None for any other line."""
    if line.level == "warning":
        return Warned(line.text)
    if line.level != "info":
        return None
    step, begun, detail = line.text.partition(" …")
    if begun:
        return StepStarted(step, detail.strip())
    found = _DONE.fullmatch(line.text)
    return StepDone(found[1], float(found[2]), found[3] or "") if found else None
