"""What the audit is told of one call: who, what, on which connection, when, how it ended; of the arguments only what may be shown."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dblens.errors import DBLensError, NotAuthenticated, NotFound, PermissionDenied
from dblens.workspace.context import Call, Context

if TYPE_CHECKING:
    from dblens.store.audit import Entry, Phase

_NAME = re.compile(r"[\w .-]{1,100}")


class Tale:
    """What the audit is told of one call."""

    def __init__(self, context: Context, call: Call, given: Mapping[str, Any], connections: Sequence[str]) -> None:
        self.context, self.call, self.given, self.connections = context, call, given, connections
        about = call.operation
        if about.target is not None:
            value = _reached(given, about.target)
            call.target = value if isinstance(value, str) else None

    def entry(self, phase: Phase, error: BaseException | None = None, begun: float | None = None) -> Entry:
        """Return the row for a phase of the call; `begun` is when it started by the performance counter."""
        from dblens.store.audit import Entry

        call, principal = self.call, self.context.principal
        detail: dict[str, Any] = {"as": principal.kind}
        if principal.session_id is not None:
            detail["session"] = principal.session_id
        if principal.token_id is not None:
            detail["token"] = principal.token_id
        if call.parent is not None:
            detail["parent"] = call.parent
        if len(self.connections) > 1:
            detail["connections"] = list(self.connections)
        if phase in ("started", "read", "denied"):
            detail |= self.arguments()
        if call.facts:
            detail["facts"] = {name: _shown(value) for name, value in call.facts.items()}
        if error is not None:
            detail["error"] = type(error).__name__  # its text may hold what nobody may read here
            if phase == "denied" and isinstance(error, PermissionDenied | NotAuthenticated):
                detail["reason"] = error.message
            if phase == "denied" and isinstance(error, NotFound):
                detail["asked"] = self._asked()
        return Entry(
            at=self.context.clock(),
            phase=phase,
            action=call.operation.name,
            actor_id=principal.user_id,
            actor=principal.name,
            org_id=principal.org_id,
            connection_id=self.connections[0] if self.connections else None,
            target=call.target,
            outcome=None if phase == "started" else _outcome(error),
            microseconds=None if begun is None else int((time.perf_counter() - begun) * 1_000_000),
            client=principal.client,
            address=principal.address,
            run_id=call.id,
            detail=detail,
        )

    def _asked(self) -> list[str]:
        """Return what was asked for and not found, where it looks like an id or a name: an address could hold a password."""
        asked: list[str] = []
        for name in (*self.call.operation.connections, "organization"):
            value = self.given.get(name)
            asked += [item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, str)]
        return [item for item in asked if _NAME.fullmatch(item)][:100]

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that may be shown, and the names of those that are hidden."""
        about = self.call.operation
        kept = {path: _shown(_reached(self.given, path)) for path in about.shown}
        named = {path.partition(".")[0] for path in about.shown} | set(about.connections)
        defaults = {parameter.name: parameter.default for parameter in about.parameters}
        hidden = [name for name, value in self.given.items() if name not in named and value is not defaults[name]]
        told: dict[str, Any] = {"arguments": kept} if kept else {}
        return told | ({"hidden": hidden} if hidden else {})


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, DBLensError):
        return error.code
    return "error" if isinstance(error, Exception) else "interrupted"


def _reached(given: Mapping[str, Any], path: str) -> Any:
    name, *rest = path.split(".")
    value = given.get(name)
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


def _shown(value: object) -> Any:
    """Return a value as the audit keeps it. Anything but plain values is named by its type."""
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value[:100]]
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return f"<{type(value).__name__}>"
