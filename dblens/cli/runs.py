"""`dblens run`: what is at work and what was, its log, its result; and the word to stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dblens
from dblens.cli import output, show

if TYPE_CHECKING:
    from dblens.store.runs import Run

app = typer.Typer(no_args_is_help=True, help="Look at runs: long operations at work, and how they ended.")

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
RunId = Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")]
ENDED = frozenset({"succeeded", "failed", "cancelled", "crashed"})
POLL_SECONDS = 0.5


@app.command(
    "list",
    epilog="Examples:\n\n`dblens run list`\n\n`dblens run list --all --state failed --since 7d`\n\n"
    "`dblens run list --connection shop --json | jq '.items[].id'`",
)
def list_(
    *,
    state: Annotated[
        str | None, typer.Option("--state", help="queued, running, succeeded, failed, cancelled or crashed.")
    ] = None,
    operation: Annotated[str | None, typer.Option("--operation", help="For example migration.apply.")] = None,
    connection: Annotated[str | None, typer.Option("--connection", "-c", help="Name or id.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", metavar="RUN", help="The parts of a run.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="A time with its offset, or an age: 30m, 12h, 7d.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", "-a", help="Also those of others that you may see.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on where the list before ended.")] = None,
    json: Json = False,
) -> None:
    """List runs, the newest first."""
    given: dict[str, Any] = {
        "state": state,
        "operation": operation,
        "connection": connection,
        "parent": parent,
        "since": None if since is None else _since(since),
        "everyone": everyone,
        "limit": limit,
        "after": after,
    }
    page = dblens.open().runs.list(**given)
    if json:
        output.json(page)
        return
    output.table(
        ["run", "operation", "state", "created", "seconds", "progress"],
        [
            (r.id, r.operation, r.state, f"{r.created_at:%Y-%m-%d %H:%M:%S}", _seconds(r), _progress(r))
            for r in page.items
        ],
    )
    if page.after is not None:
        output.note(f"there are more: --after {page.after}")


@app.command(
    "show",
    epilog="Examples:\n\n`dblens run show 01a2…`\n\n`dblens run show 01a2… --result` (what it returned, as JSON)",
)
def show_(
    run: RunId,
    *,
    result: Annotated[bool, typer.Option("--result", help="Write what it returned, as JSON.")] = False,
    json: Json = False,
) -> None:
    """Show a run: state, progress, how it ended; or what it returned. A run that failed ends with its error's exit code then."""
    runs = dblens.open().runs
    if result:
        output.json(runs.result(run))
        return
    found = runs.read(run)
    if json:
        output.json(found)
        return
    error = found.error or {}
    rows: list[tuple[str, object]] = [
        ("run", found.id),
        ("operation", found.operation),
        ("state", found.state),
        ("part of", found.parent_id),
        ("connection", found.connection_id),
        ("created", found.created_at.isoformat(timespec="seconds")),
        ("seconds", _seconds(found)),
        ("progress", _progress(found)),
        ("error", error.get("message")),
        ("hint", error.get("hint")),
    ]
    output.table(["", ""], [row for row in rows if row[1] not in (None, "")])


@app.command(epilog="Examples:\n\n`dblens run log 01a2…`\n\n`dblens run log 01a2… --json`")
def log(run: RunId, *, json: Json = False) -> None:
    """Write a run's whole log; it is kept after a failure too."""
    runs, after = dblens.open().runs, None
    while True:
        page = runs.log(run, after=after)
        for line in page.items:
            _line(line, json=json)
        if page.after is None:
            return
        after = page.after


@app.command(epilog="Example: `dblens run cancel 01a2…`")
def cancel(run: RunId, *, json: Json = False) -> None:
    """Ask a run to stop: your own, or one on a connection that you manage."""
    found = dblens.open().runs.cancel(run)
    told = f"{run} is asked to stop" if found.state == "running" else f"{run} is {found.state}"
    show.result(found, told, as_json=json)


@app.command(
    epilog="Examples:\n\n`dblens run watch 01a2…`\n\n`dblens run watch 01a2… && notify-send done`\n\n"
    "Ctrl-C stops watching, not the run."
)
def watch(run: RunId, *, json: Json = False) -> None:
    """Follow a run's log until it ends; the exit code is that of its end."""
    runs, after, told = dblens.open().runs, None, ""
    while True:
        found = runs.read(run)
        page = runs.log(run, after=after)
        for line in page.items:
            _line(line, json=json)
            after = str(line.number)
        if found.state in ENDED and page.after is None:
            break
        progress = _progress(found)
        if progress != told and not json:
            output.note(progress)
            told = progress
        if page.after is None:
            time.sleep(POLL_SECONDS)
    if found.state != "succeeded":
        runs.result(run)  # raises what the run raised
    if not json:
        output.note(f"{found.operation}: {found.state} after {_seconds(found)} s")


# ------------------------------------------------------------------------------------------------------------------------ parts


def _line(line: Any, *, json: bool) -> None:
    if json:
        output.json(line)
    else:
        style: output.Style = "red" if line.level == "error" else "yellow" if line.level == "warning" else ""
        output.lines([(f"{line.at:%H:%M:%S} {line.text}", style)])


def _seconds(run: Run) -> str:
    import datetime as dt

    if run.started_at is None:
        return ""
    end = run.ended_at or dt.datetime.now(dt.UTC)
    return f"{(end - run.started_at).total_seconds():.1f}"


def _progress(run: Run) -> str:
    told = run.progress
    if run.state != "running" or not told:
        return ""
    total = f" of {told['total']:,}" if told.get("total") else ""
    return f"{told.get('task', '')} {told.get('done', 0):,}{total} {told.get('unit', '')}".strip()


def _since(text: str) -> Any:
    """Return the time that a text names: one with its offset, or an age. Raises InvalidInput."""
    import datetime as dt

    from dblens.errors import InvalidInput

    unit = {"m": "minutes", "h": "hours", "d": "days"}.get(text[-1:])
    try:
        if unit is not None and text[:-1].isascii() and text[:-1].isdigit():
            return dt.datetime.now(dt.UTC) - dt.timedelta(**{unit: int(text[:-1])})
        found = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        found = dt.datetime.min
    if found.tzinfo is None:
        raise InvalidInput(f"not a time: {text!r}", hint="2026-11-23T12:00:00Z, or an age like 30m, 12h, 7d")
    return found
