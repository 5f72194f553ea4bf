"""`dblens history`: what was asked, by oneself or in the organization."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import output

EXAMPLES = (
    "Examples:\n\n`dblens history`\n\n`dblens history --search orders --failed`\n\n"
    "`dblens history --all --user ann --since 2026-11-01 --json | jq '.items[].text'`\n\n"
    "`dblens history --forget --connection shop`"
)


def history(
    *,
    everyone: Annotated[
        bool, typer.Option("--all/--mine", help="Of everybody; for auditors of the organization.")
    ] = False,
    search: Annotated[str | None, typer.Option("--search", "-s", help="A piece of the text.")] = None,
    connection: Annotated[str | None, typer.Option("--connection", "-c", help="Name or id.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Only what this user asked.")] = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="Only with this end: `ok`, `engine.query`, …")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what did not end well.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", help="From this day or instant on; without a zone it is UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Before this day or instant; without a zone it is UTC.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on where the list before ended.")] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete these from one's own history; the audit stays.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
) -> None:
    """Show what was asked, the newest first."""
    import dblens
    from dblens.cli.audit import instant
    from dblens.errors import InvalidInput
    from dblens.store.queries import Which

    which = Which(
        search=search, connection=connection, user=user, outcome=outcome, failed=True if failed else None,
        since=instant("--since", since), until=instant("--until", until),
    )  # fmt: skip
    queries = dblens.open().queries
    if forget:
        if everyone:
            raise InvalidInput(
                "--forget with --all", hint="one forgets one's own; the organization's end by `queries.history_days`"
            )
        gone = queries.forget(which)
        output.json({"deleted": gone}) if json else output.note(f"{gone} deleted")
        return
    page = (queries.everyone if everyone else queries.history)(which, limit=limit, after=after)
    if json:
        output.json(page)
        return
    output.table(
        ["when", *(["user"] if everyone else []), "connection", "outcome", "rows", "seconds", "text"],
        [
            [
                f"{each.started_at:%Y-%m-%d %H:%M:%S}",
                *([each.user] if everyone else []),
                each.connection,
                each.outcome,
                each.affected if each.rows in (None, 0) and each.affected is not None else each.rows,
                f"{each.microseconds / 1e6:.3f}",
                _short(each.text),
            ]
            for each in page.items
        ],
    )
    if page.after is not None:
        output.note(f"there are more: --after {page.after}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 or not output.on_terminal() else f"{line[:99]}…"
