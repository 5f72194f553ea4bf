"""`dblens export`: what a query returns, or a table, as a file that appears whole or not at all; without `-o` on stdout."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dblens.cli import output
from dblens.cli.passwords import Given
from dblens.cli.query import Params, PasswordEnv, PasswordFile, Timeout, read_params, read_text
from dblens.errors import InvalidInput

if TYPE_CHECKING:
    from dblens.events import Report
    from dblens.query.export import Exported, Format

EXAMPLES = (
    "Examples:\n\n`dblens export shop orders -o orders.csv.gz`\n\n"
    "`dblens export shop 'select * from orders where id = :id' --param id:=7 -o order.xlsx`\n\n"
    "`dblens export shop @report.sql -o report.parquet`\n\n"
    "`dblens export shop orders -o orders.csv --exact`: with `orders.csv.dblens.json`, from which `dblens load` restores every value\n\n"
    "`dblens export shop orders --format jsonl | jq .id`"
)
_TABLE = re.compile(r"[^\W\d][\w$-]*(\.[^\W\d][\w$-]*)?")

Words = Literal["csv", "tsv", "jsonl", "parquet", "arrow", "xlsx"]


def export(
    connection: Annotated[str, typer.Argument(help="A connection's name or, on one's own machine, an address.")],
    text: Annotated[str, typer.Argument(help="A query, a table's name, `@file`, or `-` for stdin.")],
    *,
    to: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file; without, or `-`: stdout.")] = "-",
    format: Annotated[
        Words | None, typer.Option("--format", "-f", help="By default as the file's name tells; csv on stdout.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="So that `dblens load` restores every value; not for spreadsheets.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    table: Annotated[bool, typer.Option("--table", help="TEXT is a table's name, whatever is in it.")] = False,
    separator: Annotated[str, typer.Option("--separator", help="Of csv: comma, semicolon, bar.")] = ",",
    param: Params = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many rows at most; 0: all.")] = 0,
    timeout: Timeout = None,
    json: Annotated[bool, typer.Option("--json", help="Write what was done as JSON to stdout.")] = False,
    password_env: PasswordEnv = None,
    password: PasswordFile = None,
    allow_password_in_url: Annotated[bool, typer.Option("--allow-password-in-url", hidden=True)] = False,
) -> None:
    """Write what a query returns as a file: CSV, TSV, JSON Lines, Parquet, Arrow or XLSX. Read-only, enforced by the server.

    Cells that a spreadsheet would take for a formula begin with `'`, unless --exact. What the file does not hold exactly is said.
    """
    import msgspec

    import dblens
    from dblens.cli.progress import reporting
    from dblens.cli.sides import side
    from dblens.query.export.model import Options
    from dblens.query.export.target import Target
    from dblens.workspace.speech import Origin

    if to == "-" and json:
        raise InvalidInput("--json without a file", hint="stdout has room for one of them: -o FILE")
    named, compression = _named(to, format)
    style = "exact" if exact else None
    options = msgspec.convert({"style": style, "compression": compression, "separator": separator}, Options)
    where = side(connection, "source", Given(password_env, password), allow_in_url=allow_password_in_url)
    words = text if table else read_text(text)
    a_table = table or (words == text and _TABLE.fullmatch(text) is not None)
    given: dict[str, Any] = {
        "table": a_table, "options": options, "params": read_params(param), "limit": limit or None, "timeout": timeout,
        "origin": Origin(client="dblens export"),
    }  # fmt: skip
    ws = dblens.open()

    def call(write: Callable[[bytes], object], report: Report) -> Exported:
        made: Exported = ws.queries.export(where, words, _counting(write, report), named, **given)
        return made

    if to == "-":
        with reporting() as report:
            made = call(_to_stdout, report)
        sys.stdout.flush()
    else:
        with reporting(quiet=json) as report, Target(to, overwrite=overwrite) as target:
            made = call(target.write, report)
            target.publish(made.sidecar)
    if json:
        output.json({"file": to, **_plain(made)})
    _told(made, to)


def _named(to: str, format: Format | None) -> tuple[Format, str]:
    """Return the format and the compression; a format that is given goes before the name's. Raises InvalidInput."""
    from dblens.query.export.model import format_of

    if to == "-":
        return format or "csv", ""
    try:
        named, compression = format_of(to)
    except InvalidInput:
        if format is None:
            raise
        return format, ""
    return format or named, compression


def _to_stdout(data: bytes) -> int:
    return sys.stdout.buffer.write(data)


def _counting(write: Callable[[bytes], object], report: Report) -> Callable[[bytes], object]:
    """Return a sink that tells how much went through it."""
    from dblens.events import Progress

    told, octets = time.monotonic(), 0

    def counted(data: bytes) -> object:
        nonlocal told, octets
        octets += len(data)
        if time.monotonic() - told >= 0.2:
            told = time.monotonic()
            report(Progress(task="export", done=octets, unit="octets"))
        return write(data)

    return counted


def _plain(made: Exported) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(made)
    found.pop("sidecar", None)
    found["losses"] = [msgspec.to_builtins(loss) for loss in made.losses]
    found["columns"] = [{"name": column.name, "type": column.native} for column in made.columns]
    return found


def _told(made: Exported, to: str) -> None:
    rows = f"{made.rows} row{'' if made.rows == 1 else 's'}"
    output.note(f"{rows}, {made.octets} octets, {made.seconds:.1f} s{'' if to == '-' else f': {to}'}")
    if made.sidecar and to == "-":
        output.note("what restores the types is not on stdout: choose a file to have it beside")
    for loss in made.losses:
        cells = f"{loss.count} cell{'' if loss.count == 1 else 's'}, first in row {loss.first}"
        output.note(f"not exact: column {loss.column!r}: {loss.what} ({cells})")
