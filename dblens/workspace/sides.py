"""The sides of an operation at work: links to databases whose statements end when the run is cancelled. No door of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from dblens.engines.base import Target
from dblens.errors import NotFound
from dblens.migrate.link import Link
from dblens.store import connections
from dblens.workspace.context import Context
from dblens.workspace.executor import stopping
from dblens.workspace.permissions import ANY_CONNECTION, SUPER_ADMIN, covers
from dblens.workspace.policy import effective
from dblens.workspace.principal import Principal


@contextmanager
def sides(context: Context, *references: str | Link) -> Iterator[tuple[Link, ...]]:
    """Yield links to what the gate authorized: ids of stored connections or, on one's own machine, addresses."""
    if context.house is None:
        raise NotFound("no connection can be opened here")
    with ExitStack() as stack:
        found = []
        for reference in references:
            link = stack.enter_context(context.house.lines.link(context.principal.org_id, reference))
            stack.enter_context(stopping(link.cancel))
            found.append(link)
        yield tuple(found)


@contextmanager
def reading(context: Context, reference: str | Link) -> Iterator[Target]:
    """Yield a session that only reads."""
    with sides(context, reference) as (link,), closing(link.connect(read_only=True)) as session:
        yield session


def manages_all(principal: Principal) -> bool:
    """Return whether the role manages every connection of its organization, and no token limits it to some."""
    return (
        principal.role != SUPER_ADMIN
        and principal.connections is None
        and covers(principal.permissions, ANY_CONNECTION)
    )


def visible(context: Context) -> dict[str, str]:
    """Return the names, by id, of the connections of the organization that the principal may at least see."""
    principal, found = context.principal, dict[str, str]()
    after: str | None = None
    everything = manages_all(principal)
    while True:
        with context.store.read() as tx:
            page = connections.list_shared(
                tx, principal.org_id or "", principal.user_id, everything=everything, limit=200, after=after
            )
        for item in page.items:
            grant = "owner" if item.via == "owner" else item.level or "none"
            if effective(principal, item.connection.id, grant) != "none":
                found[item.connection.id] = item.connection.name
        after = page.after
        if after is None:
            return found
