"""The team of `tests/api`, for attacks on its service; and a service that listens."""

from __future__ import annotations

from tests.api.conftest import app, client, house, live, world

__all__ = ["app", "client", "house", "live", "world"]
