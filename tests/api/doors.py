"""Doors for tests of the API itself, in a table of their own: every shape of parameter, sinks, long work, secrets, failures."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from dblens import errors
from dblens.events import Progress, StepStarted
from dblens.redaction import Secret
from dblens.store.rows import Page
from dblens.workspace import registry
from dblens.workspace.operation import Door, operation
from dblens.workspace.registry import Table

TABLE = Table()
STATE: dict[str, Any] = {}


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How a connection is encrypted."""

    mode: Literal["off", "on"] = "on"
    ca: str | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a thing is made of."""

    name: str
    port: int = 1
    password: Secret | None = None
    tls: Tls = Tls()
    tags: tuple[str, ...] = ()
    hops: Sequence[Tls] = ()


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """A filter."""

    name: str | None = None
    since: dt.datetime | None = None
    kinds: tuple[Literal["a", "b"], ...] = ()


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A thing."""

    name: str
    tags: tuple[str, ...] = ()


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is issued once."""

    id: str
    token: str


class Things(Door):
    """A noun."""

    @operation("template.list", table=TABLE)
    def list(
        self, which: Which = Which(), *, limit: int = 50, after: str | None = None, all: bool = False
    ) -> Page[str]:
        """List things."""
        STATE["list"] = (which, limit, after, all)
        return Page(items=("a", "b"))

    @operation("template.read", table=TABLE)
    def read(self, template: str) -> str:
        """Return the name that it was given."""
        return template

    @operation("template.create", mutates=True, table=TABLE)
    def create(self, spec: Spec, note: str = "", when: dt.datetime | None = None) -> Made:
        """Make a thing."""
        STATE.setdefault("created", []).append(spec)
        return Made(name=spec.name, tags=spec.tags)

    @operation("template.delete", mutates=True, table=TABLE)
    def delete(self, template: str) -> None:
        """Delete it."""

    @operation("token.create", mutates=True, table=TABLE)
    def issue(self, name: str) -> Issued:
        """Issue a token. Raises Conflict."""
        STATE["issued"] = STATE.get("issued", 0) + 1
        if name == "slow":
            STATE["at work"].set()
            STATE["go on"].wait(10)
        if name == "fails":
            raise errors.Conflict("this once")
        return Issued(id=str(STATE["issued"]), token="canary-of-a-token-7531")

    @operation("settings.update", mutates=True, step_up=True, table=TABLE)
    def settings(self, value: str) -> str:
        """Change a setting."""
        return value

    @operation("query.run", table=TABLE)
    def fail(self, how: str = "value") -> str:
        """Fail in a way that is asked for."""
        kinds: dict[str, Exception] = {
            "value": ValueError("canary inside: password=hunter2"),
            "unsupported": errors.Unsupported("a thing", "it is not"),
            "limited": errors.RateLimited("slow down", retry_after=7),
            "query": errors.QueryFailed("syntax error", hint="look"),
            "secret": errors.ConnectionFailed("no way to postgresql://u:hunter2@h/d"),
            "store": errors.StoreError("gone"),
            "surrogate": errors.InvalidInput("a \ud800 b"),
            "verify": errors.VerificationFailed("differs", verdict={"rows": 3}),
        }
        raise kinds[how]

    @operation("query.history", table=TABLE)
    def leak(self) -> Any:
        """Return a secret, which is a defect."""
        return {"a": Secret("canary-leaked")}

    @operation("query.export", table=TABLE, cost="heavy")
    def export(
        self,
        write: Callable[[bytes], object],
        blocks: int = 3,
        size: int = 100_000,
        fail_at: int = -1,
        format: str = "x",
    ) -> int:
        """Write blocks."""
        STATE["open"] = STATE.get("open", 0) + 1
        written = 0
        try:
            for number in range(blocks):
                if number == fail_at:
                    raise ValueError("canary: the cursor died")
                write(bytes([65 + number % 26]) * size)
                written += size
                STATE["written"] = written
        except BaseException as error:
            STATE["ended"] = type(error).__name__
            raise
        finally:
            STATE["open"] -= 1
        return written

    @operation("backup.create", on="organization", mutates=True, long=True, table=TABLE)
    def backup(self, steps: int = 3, seconds: float = 0.0, fail: bool = False) -> dict[str, int]:
        """Work for long. Raises Conflict."""
        for number in range(steps):
            self.context.report(StepStarted(step=f"step {number}"))
            self.context.report(Progress(task="rows", done=number, total=steps))
            time.sleep(seconds)
        if fail:
            raise errors.Conflict("it did not work", hint="another time")
        return {"steps": steps}

    @operation("monitor.read", table=TABLE)
    def busy(self) -> str:
        """Work until told to go on."""
        event: threading.Event = STATE["busy"]
        event.wait(20)
        return "done"


for _about in registry.load():
    if _about.noun == "run":
        TABLE.add(_about)


class Workspace:
    """What the service gives a principal: these doors, beside DBLens' own."""

    def __init__(self, context: Any, own: Any) -> None:
        self.doors = Things(context)
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
