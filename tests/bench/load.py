"""Reads at a fixed rate against `dblens serve` over loopback, beside the same uvicorn answering a constant.

The clock of each request starts when it should have been sent, whether or not it could be: a server that stands still for a second
costs a hundred requests up to a second each, not one (no coordinated omission). Every connection stays open and is used in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

READS = (
    "/api/v1/account",
    "/api/v1/organizations",
    "/api/v1/connections?limit=20",
    "/api/v1/runs?limit=20",
    "/api/v1/teams?limit=20",
    "/api/v1/notifications/count",
    "/api/v1/migrations?limit=20",
    "/api/v1/roles",
)
"""What is read, in turn; what this DBLens does not serve is left out."""
TIMEOUT = 10.0
STALE = 4.0
"""Seconds after which a connection that was not used is opened anew: the server ends it after five."""


class Line:
    """One connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.used, self.opened = host, port, 0.0, 0
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self.close()
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        self.used = time.perf_counter()
        self.opened += 1

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def get(self, path: str, bearer: str) -> int:
        """Return the status of an answer, once all of it came."""
        if self.writer is None or time.perf_counter() - self.used > STALE:
            await self.open()
        assert self.reader is not None
        assert self.writer is not None
        head = f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        self.writer.write(head.encode())
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(part[15:]) for part in answer.split("\r\n") if part.startswith("content-length:"))
        await self.reader.readexactly(length)
        self.used = time.perf_counter()
        return int(answer[9:12])


async def drive(
    url: str, paths: list[str], bearer: str, *, rate: float, seconds: float, connections: int
) -> dict[str, Any]:
    """Send `rate` requests a second for some seconds; return counts and times."""
    host, _, port = url.removeprefix("http://").partition(":")
    lines = [Line(host, int(port)) for _ in range(connections)]
    await asyncio.gather(*(line.open() for line in lines))
    free = deque(lines)
    waiting: deque[asyncio.Future[None]] = deque()
    took: list[float] = []
    wrong: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def a_line() -> AsyncIterator[Line]:
        if not free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            await turn
        line = free.popleft()
        try:
            yield line
        finally:
            free.append(line)
            if waiting:
                waiting.popleft().set_result(None)

    async def one(path: str, due: float) -> None:
        async with a_line() as line:
            try:
                status = await asyncio.wait_for(line.get(path, bearer), TIMEOUT)
                if status != 200:
                    wrong[f"{status} {path}"] += 1
            except (OSError, EOFError, TimeoutError, ValueError, StopIteration, asyncio.LimitOverrunError) as error:
                wrong[type(error).__name__] += 1
                line.close()
        took.append(time.perf_counter() - due)

    begun = time.perf_counter() + 0.1
    tasks = []
    for n in range(round(rate * seconds)):
        due = begun + n / rate
        while (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        tasks.append(asyncio.create_task(one(paths[n % len(paths)], due)))
    await asyncio.gather(*tasks)
    for line in lines:
        line.close()
    took.sort()
    return {
        "sent": len(took),
        "errors": sum(wrong.values()),
        "what": dict(wrong),
        "opened again": sum(line.opened for line in lines) - connections,
        **{
            f"p{p}": round(took[min(len(took) - 1, math.ceil(len(took) * p / 100) - 1)] * 1000, 2) for p in (50, 90, 99)
        },
        "max": round(took[-1] * 1000, 2),
    }


# ------------------------------------------------------------------------------------------------------------------------ servers


def constant() -> None:
    """Serve a constant with the configuration that `dblens serve` gives to uvicorn; say where on stdout."""
    import socket

    import uvicorn

    from dblens.api.server import _config
    from dblens.settings import Settings

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    settings = Settings(store_url="sqlite:////nowhere", data_folder=Path("/nowhere"))
    uvicorn.Server(_config(app, settings)).run([listening])


@contextlib.contextmanager
def _constant() -> Iterator[str]:
    code = "from tests.bench.load import constant; constant()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()


def _team(service: Any) -> str:
    """Fill the store of a team; return a login of one of them."""
    from dblens.accounts import login
    from dblens.accounts.base import Caller
    from dblens.store import accounts, organizations, runs, teams
    from dblens.workspace import entrance
    from tests.attacks.served import keep

    with service.house() as house:
        now = house.clock()
        with house.store.write() as tx:
            org = organizations.create_organization(tx, "acme", now=now)
            user = accounts.create_user(tx, "ann", now=now)
            role = organizations.find_role(tx, org.id, "admin")
            organizations.add_member(tx, org.id, user.id, role.id, now=now)
            organizations.set_current(tx, user.id, org.id)
            for n in range(20):
                teams.create_team(tx, org.id, f"team {n}", now=now)
                runs.create_run(tx, org.id, "migration.plan", user_id=user.id, now=now)
        for n in range(50):
            keep(house, org.id, user.id, f"shop {n}", f"postgresql://shop:pässword-{n}@db{n}.example.org/shop")
        with house.store.read() as tx:
            user = accounts.get_user(tx, user.id)
        at = entrance.accounts_of(house)
        return login.open_session(at, user, Caller(address="127.0.0.1", client="bench"), kind="api").tokens.access


def load(*, seconds: float = 60, rate: float = 100, connections: int = 200, as_json: bool = False) -> dict[str, Any]:
    """Measure both, the constant before and after; print the result and return it."""
    from tests.attacks.served import Served

    options: dict[str, Any] = {"rate": rate, "seconds": seconds, "connections": connections}
    found: dict[str, Any] = {**options, "cores": os.cpu_count(), "load before": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory(prefix="dblens-load-") as folder, Served(Path(folder), mode="team") as service:
        bearer = _team(service)
        found["paths"] = [path for path in READS if _serves(service.url, path, bearer)]
        with _constant() as url:
            found["constant"] = asyncio.run(drive(url, ["/"], bearer, **options))
        found["dblens"] = asyncio.run(drive(service.url, found["paths"], bearer, **options))
    found["load after"] = round(os.getloadavg()[0], 2)
    if as_json:
        print(json.dumps(found, indent=1))
        return found
    print(
        f"{rate:g} reads/s for {seconds:g} s, {connections} connections, load {found['load before']}–{found['load after']}"
    )
    for name in ("constant", "dblens"):
        one = found[name]
        print(f"{name:10}{one['sent']:7} sent {one['errors']:4} errors   p50 {one['p50']:7.2f} ms  p99 {one['p99']:7.2f} ms  max {one['max']:7.2f} ms")  # fmt: skip
    if found["dblens"]["what"]:
        print(found["dblens"]["what"])
    return found


def _serves(url: str, path: str, bearer: str) -> bool:
    """Say whether this DBLens has the path: only a path that leads nowhere is left out, no other failure."""
    import httpx

    return httpx.get(url + path, headers={"Authorization": f"Bearer {bearer}"}).status_code != 404
