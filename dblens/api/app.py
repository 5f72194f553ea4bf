"""The application: the operation table as routes, the ways in, runs as they go, health, the documentation's page."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import anyio
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dblens.accounts import configured
from dblens.api import auth, events, openapi, problems
from dblens.api.edge import Edge, Prefix
from dblens.api.health import Health, Live, Version
from dblens.api.identity import Identity, local_secret, wish
from dblens.api.limits import Rates, Requests
from dblens.api.problems import Refusal
from dblens.api.routes import JSON, Answer, Call, Entry, Handler, Place, Service, encoded, principal
from dblens.api.upkeep import Upkeep
from dblens.api.work import Work
from dblens.redaction import Secret, install
from dblens.version import __version__
from dblens.workspace import registry, wire
from dblens.workspace.house import House
from dblens.workspace.principal import Principal
from dblens.workspace.registry import Table

STATIC: Final = Path(__file__).with_name("static")
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_ASSETS: Final = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}


def create_app(
    house: House,
    *,
    root_path: str = "",
    docs: bool | None = None,
    local: Secret | None = None,
    rates: Rates | None = None,
    threads: int | None = None,
    upkeep: Upkeep | None = None,
    table: Table | None = None,
    workspace: Callable[[Principal], Any] | None = None,
) -> FastAPI:
    """Return the service over a house, which stays the caller's to close.

    `root_path` is where a proxy mounts it. `docs`: the page at /api/v1/docs, by default not in team mode. `local` is the secret of the
    person at this machine, in single-user mode only; by default the one in the data folder.
    `table` and `workspace` are other operations than DBLens' own, with their doors. Raises StoreError.
    """
    install()  # before the first line of any log
    team = house.settings.mode == "team"
    if local is None and not team:
        local = local_secret(house.settings.data_folder)
    service = Service(
        house=house,
        identity=Identity(house, None if team else local),
        threads=Work() if threads is None else Work(threads=threads),
        requests=Requests(rates),
        workspace=workspace or (lambda who: house.workspace(who, background=True)),
        stopping=threading.Event(),
    )
    keeper = upkeep or Upkeep(house)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(keeper.run)
            yield
            group.cancel_scope.cancel()

    app = FastAPI(
        title="DBLens",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    places: dict[str, dict[str, Handler]] = {}
    _operations(places, service, table)
    _runs(places, service)
    for way in auth.WAYS:
        _put(places, way.path, way.method, Entry(service, way))
    _machines(places, service, Health(house, keeper))
    _page(places, not team if docs is None else docs, lambda: openapi.text(table, server=root_path))
    # A path without a parameter goes before one with: `/runs/own` is not the run called own.
    for path in sorted(places, key=lambda path: (path.count("{"), path)):
        app.router.routes.append(Route(path, Place(service, path, places[path]), include_in_schema=False))
    app.add_exception_handler(HTTPException, _nowhere)
    public = house.settings.public_url
    origins = () if public is None else ("/".join(public.split("/", 3)[:3]),)
    app.add_middleware(Edge, origins=lambda: origins)
    app.add_middleware(Prefix, prefix=root_path)
    app.openapi = lambda: openapi.document(table)  # type: ignore[method-assign]
    app.state.service = service
    return app


def _put(places: dict[str, dict[str, Handler]], path: str, method: str, handler: Handler) -> None:
    there = places.setdefault(path, {})
    if method in there:
        raise TypeError(f"{method} {path} is there twice")
    there[method] = handler


def _operations(places: dict[str, dict[str, Handler]], service: Service, table: Table | None) -> None:
    for about in registry.load() if table is None else table:
        route = wire.route(about)
        if route is not None:
            _put(places, route.path, route.method, Call(service, about, route))


def _runs(places: dict[str, dict[str, Handler]], service: Service) -> None:
    """Add what a run has beside its operations: its events."""
    watchers = events.Watchers()

    async def stream(request: Request) -> Answer:
        if request.method == "HEAD":
            raise Refusal(405, "what streams has no HEAD", headers={"Allow": "GET, OPTIONS"})
        last = events.after(request.headers.get("last-event-id"))
        run_id = request.path_params["run"]
        who = await principal(service, request, "run.read")
        wanted = wish(request)
        seen = await service.threads.run(lambda: events.watched(service.workspace(who), run_id))

        def once_more() -> events.Watched:
            return events.watched(service.workspace(service.identity.principal(wanted)), run_id)

        made = events.Events(
            service.threads,
            service.house.store,
            seen,
            once_more,
            last=last,
            stopping=service.stopping.is_set,
        )
        return events.Counted(watchers, who.user_id, made)

    _put(places, openapi.EVENTS, "GET", stream)


def _machines(places: dict[str, dict[str, Handler]], service: Service, health: Health) -> None:
    async def live(_request: Request) -> Answer:
        return Response(encoded(Live()), media_type=JSON)

    async def ready(_request: Request) -> Answer:
        return Response(encoded(await service.threads.run(health.ready, lane="short")), media_type=JSON)

    async def version(_request: Request) -> Answer:
        return Response(encoded(Version()), media_type=JSON)

    def keys() -> bytes:
        return encoded(configured.signing_keys(service.house.store, service.house.keyring).jwks())

    async def jwks(_request: Request) -> Answer:
        body = await service.threads.run(keys, lane="short")
        return Response(body, 200, {"Cache-Control": "public, max-age=300"}, JSON)

    _put(places, openapi.JWKS, "GET", jwks)
    _put(places, openapi.LIVE, "GET", live)
    _put(places, openapi.READY, "GET", ready)
    _put(places, openapi.VERSION, "GET", version)


def _page(places: dict[str, dict[str, Handler]], on: bool, description: Callable[[], bytes]) -> None:
    """Add the description of the API and, when it is on, the page that shows it: its scripts are ours, nothing comes from elsewhere."""

    async def described(_request: Request) -> Answer:
        return Response(description(), media_type=JSON)

    _put(places, f"{wire.PREFIX}/openapi.json", "GET", described)
    if not on:
        return

    async def page(_request: Request) -> Answer:
        return Response(_asset("page.html"), 200, {"Content-Security-Policy": _PAGE_POLICY}, "text/html; charset=utf-8")

    def asset(name: str) -> Handler:
        async def file(_request: Request) -> Answer:
            return Response(_asset(name), 200, {"Cache-Control": "public, max-age=3600"}, _ASSETS[name])

        return file

    _put(places, f"{wire.PREFIX}/docs", "GET", page)
    for name in _ASSETS:
        _put(places, f"{wire.PREFIX}/docs/{name}", "GET", asset(name))


@lru_cache(maxsize=8)
def _asset(name: str) -> bytes:
    return (STATIC / name).read_bytes()


async def _nowhere(request: Request, error: Any) -> Response:
    """Answer what the router itself refuses: a path that leads nowhere."""
    status = int(getattr(error, "status_code", 404))
    told = Refusal(status, "there is nothing here", code="not_found" if status == 404 else "error")
    return problems.answer(told, request.state.request_id)
