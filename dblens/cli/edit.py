"""`dblens edit`: rows of a table changed by a file of changes: shown, then done, all of them or none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dblens.cli import output
from dblens.cli.passwords import Given
from dblens.cli.query import Confirm, Json, PasswordEnv, PasswordFile, Timeout, Yes, agreed, refused
from dblens.errors import ConfirmationNeeded, InvalidInput

if TYPE_CHECKING:
    from dblens.query.edit import Draft, Edited, RowChange

EXAMPLES = (
    "Examples:\n\n`dblens edit shop orders --changes changes.json --dry-run`\n\n"
    '`echo \'{"action": "update", "old": {"id": 7, "state": "new"}, "new": {"state": "paid"}}\' | dblens edit shop orders --changes -`\n\n'
    "The file is JSON: a list of changes, or one change a line. `old` has the row's key and what was shown of it, null for NULL; "
    "numbers with a fraction stand in quotes."
)


def edit(
    connection: Annotated[str, typer.Argument(help="A connection's name or, on one's own machine, an address.")],
    table: Annotated[str, typer.Argument(help="A table or collection: `table`, or `namespace.table`.")],
    *,
    changes: Annotated[str, typer.Option("--changes", "-c", metavar="FILE", help="The changes; `-` is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the statements, run none.")] = False,
    piecemeal: Annotated[
        bool, typer.Option("--piecemeal", help="One by one where there are no transactions: what was done stays.")
    ] = False,
    loose: Annotated[bool, typer.Option("--loose", help="Keep what the database makes of a value.")] = False,
    timeout: Timeout = 60.0,
    confirm: Confirm = None,
    yes: Yes = False,
    json: Json = False,
    password_env: PasswordEnv = None,
    password: PasswordFile = None,
    allow_password_in_url: Annotated[bool, typer.Option("--allow-password-in-url", hidden=True)] = False,
) -> None:
    """Change, insert and delete rows. Each change touches exactly the row that its old values tell, or nothing is done at all."""
    import dblens
    from dblens.cli.sides import side
    from dblens.workspace.speech import Origin

    where = side(connection, "target", Given(password_env, password), allow_in_url=allow_password_in_url)
    wanted = _read(changes)
    queries = dblens.open().queries
    if dry_run or not json:
        draft: Draft = queries.draft(where, table, wanted)
        if json:
            output.json(draft)
        else:
            _show(draft, data=dry_run)
        if dry_run:
            return
    given: dict[str, Any] = {
        "piecemeal": piecemeal, "loose": loose, "timeout": timeout, "origin": Origin(client="dblens edit"),
    }  # fmt: skip
    try:
        made: Edited = queries.edit(where, table, wanted, confirm=confirm, **given)
    except ConfirmationNeeded as needed:
        if not yes and not agreed(needed):
            raise refused(needed) from needed
        made = queries.edit(where, table, wanted, confirm=needed.confirm, **given)
    if json:
        output.json(made)
    for note in made.notes:
        output.note(f"note: {note}")
    output.note(f"{made.updated} updated, {made.inserted} inserted, {made.deleted} deleted")


def _read(name: str) -> list[RowChange]:
    """Return the changes of a file. Raises InvalidInput."""
    import msgspec

    from dblens.query.edit import RowChange

    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{name!r} cannot be read: {error}", hint="name a file of changes") from error
    try:
        if data.lstrip()[:1] == b"[":
            return msgspec.json.decode(data, type=list[RowChange])
        return [msgspec.json.decode(line, type=RowChange) for line in data.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"the changes cannot be read: {error}",
            hint='a list of {"action": "update", "old": {…}, "new": {…}}, or one a line; fractions in quotes',
        ) from error


def _show(draft: Draft, *, data: bool) -> None:
    """Write the statements: to stdout when that is all that was asked for."""
    for each in draft.statements:
        given = ", ".join(f":{name} = {'NULL' if text is None else repr(text)}" for name, text in each.params.items())
        line = f"{each.text};" + (f"  -- {given}" if given else "")
        if data:
            output.lines([(line, "")])
        else:
            output.note(line)
    for note in draft.notes:
        output.note(f"note: {note}")
