"""libpq's parameters for a checked route: the address that was checked, and nothing from environment, home or service files."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from psycopg import pq

from dblens.engines.access.route import Route, route_of
from dblens.engines.base import Url
from dblens.errors import Unsupported

_environment = threading.Lock()
_SERVICE = ("PGSERVICE", "PGSERVICEFILE")


def guarded(route: Route, url: Url, password: str | None) -> dict[str, Any]:
    """Return the parameters that replace what a raw URL would give."""
    known = {option.keyword.decode(): (option.compiled or b"").decode() for option in pq.Conninfo.get_defaults()}
    if "require_auth" not in known:
        raise Unsupported(
            "a guarded connection to PostgreSQL",
            f"this libpq ({pq.version()}) knows no require_auth",
            hint="install psycopg[binary], or libpq 16 or newer",
        )
    environment = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    # An explicit default keeps the environment variable of the same meaning out.
    made: dict[str, Any] = {name: known[name] for name in environment if known[name]}
    made |= {name: value for name, value in route.parameters.items() if name in known}
    made["password"] = password or ""
    if route.socket is not None:
        folder = os.path.dirname(route.socket) if "/.s.PGSQL." in route.socket else route.socket
        made |= {"host": folder, "hostaddr": "", "port": str(route.port)}
    else:
        each = len(route.addresses)
        made |= {
            "host": ",".join([url.host or ""] * each),
            "hostaddr": ",".join(route.addresses),
            "port": ",".join([str(route.port)] * each),
        }
    return made


@contextlib.contextmanager
def guarded_environment(url: Url) -> Iterator[None]:
    """Hide the one variable that no parameter overrides: PGSERVICE, which names a file of further parameters."""
    if route_of(url) is None or not any(name in os.environ for name in _SERVICE):
        yield
        return
    with _environment:
        kept = {name: os.environ.pop(name) for name in _SERVICE if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(kept)
