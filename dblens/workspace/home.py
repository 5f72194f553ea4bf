"""The houses that this process has open: one per store, however often it is asked for."""

from __future__ import annotations

import threading

from dblens.settings import Settings
from dblens.workspace.house import House

_open: dict[str, House] = {}
_guard = threading.Lock()


def house(settings: Settings) -> House:
    """Return the house over the settings' store, opened at the first call. Raises StoreError, InvalidInput."""
    with _guard:
        found = _open.get(settings.store_url)
        if found is None:
            found = _open[settings.store_url] = House.open(settings)
        return found


def close() -> None:
    """Close all of them."""
    with _guard:
        houses = list(_open.values())
        _open.clear()
    for each in houses:
        each.close()
