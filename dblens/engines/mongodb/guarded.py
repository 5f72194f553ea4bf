"""pymongo on a checked route: every socket that it opens, to seeds and to members that the server names, is checked and then dialled by us.

pymongo has no public place for this. Its one function that opens sockets is replaced by one that does as before, except for clients whose
`driver` option carries a route. When a new pymongo has no such function, guarded connections are refused, never unguarded.
"""

from __future__ import annotations

import importlib
import socket
import threading
from types import ModuleType
from typing import Any

from pymongo.driver_info import DriverInfo

from dblens.engines.access.route import Route
from dblens.errors import DBLensError, Unsupported
from dblens.version import __version__

_lock = threading.Lock()
_PLACES = ("pymongo.pool_shared", "pymongo.synchronous.pool")
_OPENS, _MARK = "_create_connection", "_dblens_guarded"
_SECONDS = 10.0


class RoutedDriver(DriverInfo):
    """pymongo's driver information, which it hands to every pool, with our route on it."""

    route: Route


def guarded(route: Route) -> dict[str, Any]:
    """Return MongoClient's keywords for a checked route."""
    _install()
    driver = RoutedDriver("dblens", __version__)
    driver.route = route
    return {**{k: v for k, v in route.parameters.items() if k != "hosts"}, "driver": driver}


def _place() -> ModuleType:
    for name in _PLACES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if callable(getattr(module, _OPENS, None)):
            return module
    raise Unsupported(
        "a guarded connection to MongoDB",
        "this pymongo opens its sockets in another way",
        hint="install pymongo 4.10 to 4.20",
    )


def _install() -> None:
    with _lock:
        module = _place()
        original = getattr(module, _OPENS)
        if getattr(original, _MARK, False):
            return

        def create(address: tuple[str, int | None], options: Any) -> socket.socket:
            driver = options.driver
            if not isinstance(driver, RoutedDriver):
                made: socket.socket = original(address, options)
                return made
            return _dial(driver.route, address, options.connect_timeout or _SECONDS)

        setattr(create, _MARK, True)
        setattr(module, _OPENS, create)


def _dial(route: Route, address: tuple[str, int | None], seconds: float) -> socket.socket:
    host, port = address
    try:
        return route.dial(host, port or 27017, seconds)
    except DBLensError as error:
        # pymongo expects the system's errors; ours stays behind as the cause.
        raise OSError(error.message) from error
