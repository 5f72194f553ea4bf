"""A session that answers from a script: what runs, what it was asked, how it is stopped, all in the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import msgspec

from dblens import engines
from dblens.engines.asking import Answer, Explained, Layer, Lexis, Limits, Out, PlanNode, Transaction
from dblens.engines.base import Engine
from dblens.errors import Cancelled, Conflict
from dblens.schema.types import Integer, Text
from dblens.values.forms import Form

LEXIS = Lexis(dialect="sqlite", placeholder="question")
COLUMNS = (
    Out(name="id", type=Integer(bits=64), native="bigint", form=Form.INT),
    Out(name="text", type=Text(), native="text", form=Form.TEXT),
)


class Said:
    """One statement's answer: rows in batches, each batch a wait; or an error."""

    def __init__(self, asks: Asks, *, rows: int = 0, batch: int = 100, wait: float = 0.0, error: Exception | None = None,
                 affected: int | None = None, notices: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.asks, self.rows, self.batch, self.wait, self.error = asks, rows, batch, wait, error
        self.columns = COLUMNS if rows or wait else ()
        self.affected, self.notices = affected, notices
        self.given = 0

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        while self.given < self.rows:
            self.asks.pause(self.wait)
            size = min(self.batch, self.rows - self.given)
            yield [(self.given + at, f"é{self.given + at}") for at in range(size)]
            self.given += size
        if not self.rows:
            self.asks.pause(self.wait)
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.asks.left += 1


class Asks:
    """A session. `script` is called with each statement and returns its answer, or raises."""

    def __init__(self, script: Callable[[Asks, str], Answer]) -> None:
        self.script = script
        self.asked: list[tuple[str, tuple[object, ...], bool, str]] = []
        self.limits: list[Limits] = []
        self.stopped = threading.Event()
        self.cancels = 0
        self.waits = 0
        self.left = 0
        self.inside: Transaction | None = None
        self.ended: list[str] = []

    def ask(self, statement: str, params: Sequence[object] = (), *, read_only: bool = True, limits: Limits = Limits(),
            tag: str = "") -> Answer:  # fmt: skip
        self.asked.append((statement, tuple(params), read_only, tag))
        self.limits.append(limits)
        self.stopped.clear()
        return self.script(self, statement)

    def pause(self, seconds: float) -> None:
        self.waits += 1
        if seconds and self.stopped.wait(seconds):
            raise Cancelled("canceling statement due to user request")

    def layers(self) -> tuple[Layer, ...]:
        return (Layer(name="transaction", active=True),)

    def explain(self, statement: str, params: Sequence[object] = (), *, analyze: bool = False,
                limits: Limits = Limits()) -> Explained:  # fmt: skip
        self.asked.append((statement, tuple(params), True, ""))
        return Explained(raw="{}", format="json", tree=PlanNode(title="scan"), analyzed=analyze)

    def begin(self, *, read_only: bool = False, isolation: str = "") -> None:
        if self.inside is not None:
            raise Conflict("there is a transaction")
        self.inside = Transaction(read_only=read_only, isolation=isolation)

    def commit(self) -> None:
        self.ended.append("commit")
        self.inside = None

    def rollback(self) -> None:
        self.ended.append("rollback")
        self.inside = None

    @property
    def transaction(self) -> Transaction | None:
        return self.inside

    def cancel(self) -> None:
        self.cancels += 1
        self.stopped.set()


def engine(asks: Asks | None = None) -> Engine:
    """Return the engine of files with its answers from a script."""
    return msgspec.structs.replace(
        engines.get("sqlite"), lexis=LEXIS, ask=None if asks is None else lambda session: asks
    )


def until(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    """Wait for something."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.005)
    return False
