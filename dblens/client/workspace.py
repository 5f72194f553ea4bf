"""The workspace of a service: the nouns of `dblens.workspace.Workspace`, each made from its door when it is first used."""

from __future__ import annotations

import uuid
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from dblens.client.doors import RemoteDoor, Request, remote, unpacked
from dblens.client.runs import Begun, Waiting
from dblens.client.service import Answer, Service
from dblens.client.sinks import poured
from dblens.errors import ConnectionFailed
from dblens.events import Report
from dblens.workspace import Asking, Workspace
from dblens.workspace.registry import Operation
from dblens.workspace.wire import PREFIX

if TYPE_CHECKING:
    from dblens.store.runs import Run

NOUNS: Final = {
    name: str(value.func.__annotations__["return"])
    for name, value in vars(Workspace).items()
    if isinstance(value, cached_property)
}
"""The nouns of a workspace, and the class of the door to each; its module has the noun's name."""


class Wire:
    """How a call gets to the service and its outcome back."""

    def __init__(self, service: Service, report: Report, *, background: bool = False) -> None:
        self.service, self.report, self.background = service, report, background

    def __repr__(self) -> str:
        return f"Wire({self.service.url!r})"

    def call(self, about: Operation, request: Request, report: Report | None) -> Any:
        """Return what an operation returns, or raise what it raises there."""
        service = self.service
        if request.sink is not None:
            return poured(service, about, request)
        key = str(uuid.uuid4()) if request.method == "POST" and about.mutates else None
        safe = not (about.mutates or about.long)
        answer = service.request(
            request.method, request.path, query=request.query, body=request.body, safe=safe, key=key
        )
        if about.long and answer.status == 202:
            return self._run(about, answer, report or self.report)
        return unpacked(about, answer.body, service.url)

    def _run(self, about: Operation, answer: Answer, report: Report) -> Any:
        """Wait for a run and return its outcome; in the background, return the run."""
        if self.background:
            return _run(answer, self.service.url)
        try:
            begun = msgspec.json.decode(answer.body, type=Begun)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            told = str(error)
        else:
            Waiting(self.service, begun.id, report).wait()
            outcome = self.service.request("GET", f"{PREFIX}/runs/{begun.id}/result")
            return unpacked(about, outcome.body, self.service.url)
        raise ConnectionFailed(f"{self.service.url} answers to {about.name} what is no run: {told}")


def _run(answer: Answer, url: str) -> Run:
    from dblens.store.runs import Run

    try:
        return msgspec.json.decode(answer.body, type=Run)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        told = str(error)
    raise ConnectionFailed(f"{url} answers what is no run: {told}")


class RemoteWorkspace(Asking):
    """The doors of a service, for whoever the token is. Safe for several threads; close it, or leave it to the process's end."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __repr__(self) -> str:
        return f"RemoteWorkspace({self._wire.service.url!r})"

    def __getattr__(self, name: str) -> RemoteDoor:
        if name not in NOUNS:
            raise AttributeError(f"a workspace has no {name!r}: {', '.join(sorted(NOUNS))}")
        kind = getattr(import_module(f"{Workspace.__module__}.{name}"), NOUNS[name])
        door = remote(kind)(self._wire)
        self.__dict__[name] = door
        return door

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *NOUNS})

    def __reduce__(self) -> NoReturn:
        raise TypeError("a remote workspace holds a token and is not pickled")

    def __enter__(self) -> RemoteWorkspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self._wire.service.close()
