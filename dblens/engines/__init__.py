"""The engines, by name. Adding one: a package beside these, a test harness, and its line in `_ENGINES`."""

from __future__ import annotations

import importlib

from dblens.engines.base import Engine, Target, Url
from dblens.errors import InvalidInput

_ENGINES = {
    "postgresql": "dblens.engines.postgres",
    "mysql": "dblens.engines.mysql",
    "sqlite": "dblens.engines.sqlite",
    "mongodb": "dblens.engines.mongodb",
}
_SCHEMES = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
}


def names() -> tuple[str, ...]:
    """Return the names of all engines."""
    return tuple(_ENGINES)


def get(name: str) -> Engine:
    """Return an engine by name, importing its driver only now. Raises InvalidInput."""
    if name not in _ENGINES:
        raise InvalidInput(f"unknown engine: {name!r}", hint=f"one of {', '.join(_ENGINES)}")
    engine: Engine = importlib.import_module(_ENGINES[name]).engine
    return engine


def engine_of(url: Url) -> Engine:
    """Return the engine that answers to a URL's scheme. Raises InvalidInput."""
    if url.scheme not in _SCHEMES:
        raise InvalidInput(f"unknown URL scheme: {url.scheme!r}", hint=f"one of {', '.join(_SCHEMES)}")
    return get(_SCHEMES[url.scheme])


def connect(url: Url, password: str | None = None, *, create: bool = False, read_only: bool = False) -> Target:
    """Open a session on the database that a URL names."""
    return engine_of(url).connect(url, password, create=create, read_only=read_only)
