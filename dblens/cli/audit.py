"""`dblens audit`: who did what, as a list, a count, a file; and the proof that nobody changed it."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dblens.cli import output
from dblens.errors import ArchiveCorrupt, Conflict, InvalidInput

if TYPE_CHECKING:
    from dblens.store.audit import Row
    from dblens.store.audit_find import Filter

app = typer.Typer(no_args_is_help=True, help="Read the audit, export it, prove it. Reading it is audited too.")

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
User = Annotated[str | None, typer.Option("--user", help="Only what this user did.")]
Connection = Annotated[str | None, typer.Option("--connection", help="Only on this connection: its name or id.")]
Action = Annotated[str | None, typer.Option("--action", help="Only this operation: `connection.test`, `connection.*`.")]
Outcome = Annotated[str | None, typer.Option("--outcome", help="Only with this end: `ok`, `permission.denied`, …")]
Since = Annotated[str | None, typer.Option("--since", help="From this day or instant on; without a zone it is UTC.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this day or instant; without a zone it is UTC.")]
Run = Annotated[str | None, typer.Option("--run", help="Only of this run.")]
Everywhere = Annotated[bool, typer.Option("--everywhere", help="Of every organization and of the instance.")]
Limit = Annotated[int, typer.Option("--limit", help="How many rows at most.")]
After = Annotated[str | None, typer.Option("--after", help="Go on after this row, as the list before said.")]

_ID = re.compile(r"[0-9a-f]{32}")


@app.command(
    "list",
    epilog="Examples:\n\n`dblens audit list --since 2026-11-01 --outcome permission.denied`\n\n"
    "`dblens audit list --user ann --action 'connection.*' --json | jq '.items[].target'`",
)
def list_(
    *,
    user: User = None,
    connection: Connection = None,
    action: Action = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    run: Run = None,
    everywhere: Everywhere = False,
    limit: Limit = 50,
    after: After = None,
    json: Json = False,
) -> None:
    """Show what was done in the organization, the newest first. For its auditors and administrators."""
    doors = _doors()
    which = _which(doors, user, connection, action, outcome, since, until, run)
    _page(doors.audit.read(which, limit=limit, after=after, everywhere=everywhere), json=json)


@app.command(epilog="Examples:\n\n`dblens audit own`\n\n`dblens audit own --since 2026-11-23 --json`")
def own(
    *,
    connection: Connection = None,
    action: Action = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    run: Run = None,
    limit: Limit = 50,
    after: After = None,
    json: Json = False,
) -> None:
    """Show what you did yourself, in every organization, the newest first. For everybody."""
    doors = _doors()
    which = _which(doors, None, connection, action, outcome, since, until, run)
    _page(doors.audit.own(which, limit=limit, after=after), json=json)


@app.command(
    epilog="Examples:\n\n`dblens audit statistics --by actor --since 2026-11-01`\n\n`dblens audit statistics --by day --json`"
)
def statistics(
    *,
    by: Annotated[Literal["action", "actor", "outcome", "day"], typer.Option("--by", help="What to count.")] = "action",
    user: User = None,
    connection: Connection = None,
    action: Action = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    everywhere: Everywhere = False,
    json: Json = False,
) -> None:
    """Count calls, and how many of them did not end well."""
    doors = _doors()
    which = _which(doors, user, connection, action, outcome, since, until, None)
    found = doors.audit.statistics(by, which, everywhere=everywhere)
    if json:
        output.json(found)
    else:
        rows = [(c.key, c.calls, c.failed, f"{c.microseconds / 1e6 / max(c.calls, 1):.3f}") for c in found]
        output.table([by, "calls", "failed", "seconds each"], rows)


@app.command(
    epilog="Examples:\n\n`dblens audit export --csv --since 2026-11-01 november.csv`\n\n"
    "`dblens audit export --jsonl --everywhere - | gzip > audit.jsonl.gz`"
)
def export(
    file: Annotated[
        Path, typer.Argument(help="The file to write, readable by you only; it must not exist. `-`: stdout.")
    ],
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, safe for a spreadsheet.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="A JSON object to a line. The default.")] = False,
    user: User = None,
    connection: Connection = None,
    action: Action = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    everywhere: Everywhere = False,
    json: Json = False,
) -> None:
    """Write rows to a file, the oldest first, all of them or none."""
    if csv and jsonl:
        raise InvalidInput("--csv and --jsonl are both given", hint="keep one")
    doors = _doors()
    which = _which(doors, user, connection, action, outcome, since, until, None)
    kind: Literal["csv", "jsonl"] = "csv" if csv else "jsonl"

    def go(write: Callable[[bytes], object]) -> int:
        return int(doors.audit.export(write, kind, which, everywhere=everywhere))

    if str(file) == "-":
        go(_stdout)
        return
    lines = _whole(file, go)
    if json:
        output.json({"file": str(file), "format": kind, "lines": lines})
    else:
        output.lines([(f"{file}: {lines} lines", "green")])


@app.command(
    epilog="Examples:\n\n`dblens audit verify`\n\n`dblens audit verify --head /safe/2026-11-01.head --head /safe/2026-11-15.head`"
)
def verify(
    *,
    head: Annotated[
        list[Path] | None, typer.Option("--head", help="A file that `dblens audit head` wrote, kept elsewhere.")
    ] = None,
    json: Json = False,
) -> None:
    """Look at every link of the chain and name the first broken one: a row changed, put in, moved or taken out.

    \b
    Who can write the database may put back an old copy of all of it; only a head kept elsewhere finds that.
    Exit code 0: whole; 9: broken.
    """
    heads = [line for file in head or () for line in _read(file).splitlines() if line.strip()]
    verdict = _doors().audit.verify(heads)
    if json:
        output.json(verdict)
    elif verdict.broken is not None:
        output.lines([(f"BROKEN at row {verdict.broken.number}: {verdict.broken.what}", "red")])
    else:
        span = f", rows {verdict.first} to {verdict.last}" if verdict.rows else ""
        told = f"{verdict.rows} rows are whole{span}"
        told += f"; {verdict.heads} heads fit" if heads else ""
        output.lines([(told, "green")])
        if verdict.old_heads:
            output.note(f"note: {verdict.old_heads} heads are older than what retention kept, and prove nothing now")
    if not verdict.ok:
        raise typer.Exit(ArchiveCorrupt.exit)


@app.command(
    epilog="Examples:\n\n`dblens audit head > /media/usb/2026-11-23.head`\n\n`dblens audit verify --head FILE`"
)
def head() -> None:
    """Write the sealed end of the chain: kept on another machine it proves later that nothing was cut off or put back."""
    output.write(_doors().audit.head() + "\n")


@app.command(epilog="Examples:\n\n`dblens audit export --everywhere old.jsonl && dblens audit retain 365 --yes`")
def retain(
    days: Annotated[int, typer.Argument(help="How many days to keep, at least 30.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete the instance's rows that are older, and leave a checkpoint that says so. The setting `retention` does it each day."""
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput("retention deletes rows of the audit", hint="export them first, then add --yes")
        typer.confirm(f"Delete what is older than {days} days?", abort=True, err=True)
    first = _doors().audit.retain(days)
    if json:
        output.json({"first": first})
    else:
        told = f"row {first} is the first one now" if first else "nothing was old enough"
        output.lines([(told, "green")])


# ----------------------------------------------------------------------------------------------------------------------- helpers


def _doors() -> Any:
    import dblens

    return dblens.open()


def _which(
    doors: Any,
    user: str | None,
    connection: str | None,
    action: str | None,
    outcome: str | None,
    since: str | None,
    until: str | None,
    run: str | None,
) -> Filter:
    from dblens.store.audit_find import Filter

    if connection is not None and _ID.fullmatch(connection) is None:
        connection = doors.connections.read(connection).id
    return Filter(
        actor=user,
        connection_id=connection,
        action=action,
        outcome=outcome,
        since=instant("--since", since),
        until=instant("--until", until),
        run_id=run,
    )


def instant(option: str, text: str | None) -> dt.datetime | None:
    """Return a day or an instant that an option names, in UTC without a zone. Raises InvalidInput."""
    if text is None:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option} is {text!r}", hint="like 2026-11-23 or 2026-11-23T08:00:00+01:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


def _page(page: Any, *, json: bool) -> None:
    if json:
        output.json({"items": [_plain(row) for row in page.items], "after": page.after})
        return
    rows = [
        (
            row.number,
            f"{row.at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}",
            row.actor,
            row.action,
            row.phase,
            row.outcome,
            row.target or row.connection_id,
            "" if row.microseconds is None else f"{row.microseconds / 1000:.1f}",
            row.address,
        )
        for row in page.items
    ]
    output.table(["row", "at (UTC)", "who", "action", "phase", "outcome", "target", "ms", "from"], rows)
    if page.after is not None:
        output.note(f"note: there is more: --after {page.after}")


def _plain(row: Row) -> dict[str, Any]:
    """Return a row for people: the chain's octets are for `verify`."""
    import msgspec

    return {name: value for name, value in msgspec.structs.asdict(row).items() if name not in ("previous", "mac")}


def _stdout(data: bytes) -> object:
    sys.stdout.flush()
    return sys.stdout.buffer.write(data)


def _whole(file: Path, go: Callable[[Callable[[bytes], object]], int]) -> int:
    """Write a file that only its owner can read, whole or not at all. Raises Conflict, InvalidInput."""
    if file.exists():
        raise Conflict(f"{file} exists already", hint="name another file")
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            lines = go(out.write)
        os.link(part, file)
    except FileExistsError:
        raise Conflict(f"{file} exists already", hint="name another file") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}", hint="look at its folder") from error
    finally:
        part.unlink(missing_ok=True)
    return lines


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"cannot read {file}: {type(error).__name__}", hint="a file of `dblens audit head`"
        ) from None
