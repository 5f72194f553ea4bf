"""What an operation writes comes as the answer's body, in frames (`wire.FRAMES`), and is complete only when its end says so.

An answer that ends earlier is an error, however cleanly the connection was closed: proxies and servers close cleanly what broke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dblens.client.doors import unpacked
from dblens.client.problems import problem
from dblens.errors import ConnectionFailed
from dblens.workspace.wire import FRAMES, Frames

if TYPE_CHECKING:
    from dblens.client.doors import Request
    from dblens.client.service import Service
    from dblens.workspace.registry import Operation


def poured(service: Service, about: Operation, request: Request) -> Any:
    """Hand the answer's body to the request's sink and return the operation's result.

    Raises what the operation raised, also late, and EngineError when the answer is not whole: what was written is a part then.
    """
    sink = request.sink
    assert sink is not None
    frames, broken = Frames(), ""
    with service.stream(
        request.method, request.path, query=request.query, body=request.body, headers={"Accept": FRAMES}
    ) as stream:
        if stream.headers.get("content-type", "").partition(";")[0] != FRAMES:
            raise ConnectionFailed(f"{service.url} answers to {about.name} without an end of its own")
        try:
            for part in stream.parts():
                for data in frames.feed(part):
                    sink(data)
            end = frames.finish()
        except msgspec.MsgspecError as error:
            broken = str(error)
    if broken:
        raise ConnectionFailed(f"the end of the answer of {service.url} is broken: {broken}", hint="ask again")
    if end.status == "error":
        raise problem(end.error or {})
    return unpacked(about, end.result, service.url)
