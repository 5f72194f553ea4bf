"""`dblens search`: find anything that one may see."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import output

EXAMPLES = "Examples:\n\n`dblens search shop`\n\n`dblens search prod --kind connection --kind template --json`"


def search(
    text: Annotated[str, typer.Argument(help="A piece of a name, a host, a database, an address.")],
    *,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="Only this kind: connection, run, template, plan, team, member, role, setting, action."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many hits at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
) -> None:
    """Find connections, runs, templates, plans, teams, members, roles, settings and actions: those that you may see."""
    import dblens

    hits = dblens.open().search.find(text, kinds=kind, limit=limit)  # type: ignore[arg-type]
    if json:
        output.json(hits)
    else:
        output.table(["kind", "name", "detail", "id"], [(hit.kind, hit.name, hit.detail, hit.id) for hit in hits])
