"""`dblens notification`: what one was told, and of what one wants to be told."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import typer

from dblens.cli import output
from dblens.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="What you were told when runs ended, and of what you want to be told.")

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


@app.command("list", epilog="Examples:\n\n`dblens notification list --unread`\n\n`dblens notification list --json`")
def list_(
    *,
    unread: Annotated[bool, typer.Option("--unread", help="Only what was not read.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on after this one, as the list before said.")] = None,
    json: Json = False,
) -> None:
    """Show your notifications, the newest first; `*` is before what you have not read."""
    page = _door().list(unread=unread, limit=limit, after=after)
    if json:
        output.json(page)
        return
    rows = [
        (
            "" if item.read_at else "*",
            f"{item.created_at.astimezone(dt.UTC):%Y-%m-%d %H:%M}",
            item.text,
            item.run_id,
            item.id,
        )
        for item in page.items
    ]
    output.table(["", "at (UTC)", "what", "run", "id"], rows)
    if page.after is not None:
        output.note(f"note: there is more: --after {page.after}")


@app.command(epilog="Examples:\n\n`dblens notification count`")
def count(*, json: Json = False) -> None:
    """Say how many you have not read."""
    found = _door().count()
    _counted(found, json=json)


@app.command(epilog="Examples:\n\n`dblens notification read --all`\n\n`dblens notification read 0193…`")
def read(
    ids: Annotated[list[str] | None, typer.Argument(help="Which.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    json: Json = False,
) -> None:
    """Mark some or all as read."""
    if bool(ids) == everything:
        raise InvalidInput("which ones?", hint="name their ids, or --all")
    _counted(_door().mark(None if everything else list(ids or ())), json=json)


@app.command(
    epilog="Examples:\n\n`dblens notification prefer` (shows what holds)\n\n`dblens notification prefer --ends failed --mail`"
)
def prefer(
    *,
    ends: Annotated[
        Literal["all", "failed", "none"] | None, typer.Option("--ends", help="Of which ends of runs to be told.")
    ] = None,
    mail: Annotated[bool | None, typer.Option("--mail/--no-mail", help="By mail too.")] = None,
    others: Annotated[
        bool | None, typer.Option("--others/--no-others", help="Also of the runs of others on your connections.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to what the organization set, first.")] = False,
    json: Json = False,
) -> None:
    """Choose of what to be told in this organization, or show what holds."""
    door = _door()
    asked = ends is not None or mail is not None or others is not None or reset
    found = door.prefer(ends=ends, mail=mail, others=others, reset=reset) if asked else door.preferences()
    if json:
        output.json(found)
    else:
        rows = [
            ("ends", found.ends),
            ("mail", "yes" if found.mail else "no"),
            ("others", "yes" if found.others else "no"),
        ]
        output.table(["what", "value"], rows)


def _counted(found: Any, *, json: bool) -> None:
    if json:
        output.json(found)
    else:
        output.lines([(f"{found.unread} unread", "")])


def _door() -> Any:
    import dblens

    return dblens.open().notifications
