"""Which connection an argument names, and what its store grants on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dblens.errors import InvalidInput, NotFound
from dblens.workspace.operation import Held
from dblens.workspace.principal import Principal

if TYPE_CHECKING:
    from dblens.store.database import Store

_ID = re.compile(r"[0-9a-f]{32}")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.]*://|sqlite:", re.IGNORECASE)


class StoreAccess:
    """Reads the store for every question: a grant that was taken away counts at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def connection(self, principal: Principal, reference: object) -> Held:
        """Return the connection of the principal's organization with that id or name. A raw address is for one's own machine only.

        Raises NotFound, InvalidInput.
        """
        if not isinstance(reference, str) or _ADDRESS.match(reference):
            if principal.kind == "local":
                return Held(id=None, org_id=principal.org_id, grant="owner")
            raise InvalidInput(
                "a raw address is for single-user mode only",
                hint="name a connection; `dblens connection create` makes one",
            )
        if principal.org_id is None:
            raise NotFound(f"no connection {reference!r}")
        from dblens.store import connections

        with self._store.read() as tx:
            try:
                if _ID.fullmatch(reference) is None:
                    raise NotFound(reference)
                found = connections.get_shared(tx, principal.org_id, reference, principal.user_id)
            except NotFound:
                named = connections.find_connection(tx, principal.org_id, reference)
                found = connections.get_shared(tx, principal.org_id, named.id, principal.user_id)
        return Held(
            id=found.connection.id,
            org_id=found.connection.org_id,
            grant="owner" if found.via == "owner" else found.level or "none",
        )
