"""`dblens compare`: one query on two databases, or two on one: the same rows or which differ, with what each side took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dblens.cli import output
from dblens.cli.passwords import Given
from dblens.cli.query import Params, Timeout, read_params, read_text
from dblens.errors import InvalidInput

if TYPE_CHECKING:
    from dblens.query.dual import Compared, Difference

EXAMPLES = (
    "Examples:\n\n`dblens compare old new 'select * from orders' --key id`\n\n"
    "`dblens compare mysql-shop pg-shop @report.sql --translate --json`\n\n"
    "`dblens compare shop shop 'select * from a' --other-text 'select * from b' --exit-code`"
)


def compare(
    connection: Annotated[str, typer.Argument(help="A connection's name or, on one's own machine, an address.")],
    other: Annotated[str, typer.Argument(help="The other one; may be the same.")],
    text: Annotated[str, typer.Argument(help="The query, `@file`, or `-` for stdin.")],
    *,
    other_text: Annotated[
        str | None, typer.Option("--other-text", metavar="TEXT", help="What the other is asked; also `@file`.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", "-k", metavar="COLUMN", help="Match rows by it; repeatable.")
    ] = None,
    translate: Annotated[bool, typer.Option("--translate", help="Put the text into the other's dialect.")] = False,
    param: Params = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Refuse answers of more rows.")] = 5_000_000,
    samples: Annotated[int, typer.Option("--samples", min=0, max=1000, help="How many differing rows to show.")] = 20,
    timeout: Timeout = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 when they differ.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    password_env: Annotated[str | None, typer.Option("--password-env", metavar="VAR", help="Of the first.")] = None,
    other_password_env: Annotated[
        str | None, typer.Option("--other-password-env", metavar="VAR", help="Of the other.")
    ] = None,
    allow_password_in_url: Annotated[bool, typer.Option("--allow-password-in-url", hidden=True)] = False,
) -> None:
    """Compare what a query returns on two databases, value by value, whatever the order of the rows. Read-only."""
    import dblens
    from dblens.cli.sides import side
    from dblens.workspace.speech import Origin

    if text == "-" and other_text == "-":
        raise InvalidInput("stdin for both texts", hint="name a file for one of them")
    here = side(connection, "source", Given(password_env, None), allow_in_url=allow_password_in_url)
    there = side(other, "target", Given(other_password_env, None), allow_in_url=allow_password_in_url)
    given: dict[str, Any] = {
        "other_text": None if other_text is None else read_text(other_text), "by": key or [], "translate": translate,
        "params": read_params(param), "limit": limit, "timeout": timeout, "samples": samples,
        "origin": Origin(client="dblens compare"),
    }  # fmt: skip
    made: Compared = dblens.open().queries.compare(here, there, read_text(text), **given)
    if json:
        output.json(made)
    else:
        _show(made)
    if exit_code and not made.equal:
        raise typer.Exit(1)


def _show(made: Compared) -> None:
    if made.other_text != made.text:
        output.note(f"the other was asked: {made.other_text}")
    for note in made.notes:
        output.note(f"note: {note}")
    rows = [
        ("rows", made.rows, made.other_rows),
        ("digest", made.digest, made.other_digest),
        ("seconds", f"{made.timing.seconds:.3f}", f"{made.other_timing.seconds:.3f}"),
        ("first row", _seconds(made.timing.first_row_seconds), _seconds(made.other_timing.first_row_seconds)),
    ]
    output.table(["", "here", "there"], rows)
    output.note(
        "equal" if made.equal else f"{made.changed} changed, {made.missing} missing there, {made.extra} only there"
    )
    if made.samples:
        output.table(["", *(made.key or ["row"]), "column", "here", "there"], _lines(made))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _lines(made: Compared) -> list[list[object]]:
    found: list[list[object]] = []
    for each in made.samples:
        key: list[object] = [_cell(v) for v in each.key] if made.key else [""]
        found += [[each.kind, *key, column, one, other] for column, one, other in _cells(each, made)]
    return found


def _cells(each: Difference, made: Compared) -> list[tuple[str, str, str]]:
    """Return the columns of a row that differ; a row of one side only is one line."""
    if each.here is None or each.there is None:
        row = [_cell(v) for v in each.here or each.there or ()]
        told = ", ".join(row)
        return [("", told if each.here is not None else "", told if each.there is not None else "")]
    cells = zip(made.columns, each.here, each.there, strict=True)
    return [(name, _cell(one), _cell(other)) for name, one, other in cells if name in each.columns]


def _cell(value: str | None) -> str:
    return "NULL" if value is None else value
