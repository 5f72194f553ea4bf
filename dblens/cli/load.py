"""`dblens load`: a file into a table, every row proven; or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dblens.cli import output
from dblens.cli.passwords import Given
from dblens.cli.query import Confirm, Json, PasswordEnv, PasswordFile, Yes, agreed, refused
from dblens.errors import ConfirmationNeeded, Conflict, InvalidInput

if TYPE_CHECKING:
    from dblens.workspace.loading import Loaded, LoadOptions, Preview

EXAMPLES = (
    "Examples:\n\n`dblens load orders.csv shop.orders --dry-run`\n\n"
    "`dblens load orders.csv.gz shop.public.orders --append --key id --conflict update`\n\n"
    "`dblens load export.csv shop.prices --type price='numeric(10,2)' --skip note --max-bad 20`\n\n"
    "`dblens load sales.xlsx shop.sales --sheet 2026 --json`\n\n"
    "`dblens load data.parquet sqlite:///shop.db --table data`"
)
Words = Literal["csv", "tsv", "jsonl", "parquet", "arrow", "xlsx"]
Encodings = Literal["utf-8", "utf-16", "latin-1", "windows-1252"]
Conflicts = Literal["error", "skip", "update"]
SHOWN = 20
"""Bad rows that are shown one by one."""


def load(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines, Parquet, Arrow or XLSX; also .gz and .zst.")],
    target: Annotated[
        str, typer.Argument(metavar="CONNECTION.TABLE", help="Where to; with --table the connection only.")
    ],
    *,
    table: Annotated[
        str | None, typer.Option("--table", help="The table; needed where CONNECTION is an address.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to a table that is there; without, it is created.")
    ] = False,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="COLUMN", help="What identifies a row; repeatable.")
    ] = None,
    on_conflict: Annotated[
        Conflicts, typer.Option("--conflict", help="With --append: what to do with a row whose key is there.")
    ] = "error",
    type: Annotated[
        list[str] | None, typer.Option("--type", metavar="COLUMN=TYPE", help="A type of the target; repeatable.")
    ] = None,
    rename: Annotated[list[str] | None, typer.Option("--rename", metavar="COLUMN=NAME", help="Repeatable.")] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="COLUMN", help="Leave it out; repeatable.")
    ] = None,
    format: Annotated[
        Words | None, typer.Option("--format", "-f", help="By default as the name or the first octets tell.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option("--delimiter", help="By default found out: , ; | or a tab.")] = None,
    encoding: Annotated[
        Encodings | None, typer.Option("--encoding", help="By default UTF-8, or as a byte order mark says.")
    ] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line has names.")
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option("--null", metavar="TEXT", help="Unquoted cells that are NULL; by default empty ones."),
    ] = None,
    sheet: Annotated[str | None, typer.Option("--sheet", help="Of a workbook; by default the first.")] = None,
    max_bad: Annotated[
        int, typer.Option("--max-bad", min=0, help="Set aside so many rows that do not fit; one more is an error.")
    ] = 0,
    quarantine: Annotated[
        Path | None,
        typer.Option("--quarantine", metavar="FILE", help="Where those go, as JSON Lines; by default FILE.bad.jsonl."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--preview", help="Show types, samples and losses; write nothing.")
    ] = False,
    accept: Annotated[
        str, typer.Option("--accept", metavar="all|ID,…", help="Losses to accept, by the ids that --dry-run shows.")
    ] = "",
    confirm: Confirm = None,
    yes: Yes = False,
    json: Json = False,
    password_env: PasswordEnv = None,
    password: PasswordFile = None,
    allow_password_in_url: Annotated[bool, typer.Option("--allow-password-in-url", hidden=True)] = False,
) -> None:
    """Load a file into a table: types proven by all values, every row compared afterwards, all of it or nothing.

    Rows that cannot be read or do not fit are an error, unless --max-bad sets them aside. `dblens migrate rollback` undoes a load.
    """
    import dblens
    from dblens.cli.progress import reporting
    from dblens.cli.sides import side
    from dblens.workspace.loading import LoadOptions
    from dblens.workspace.speech import Origin

    connection, name = _place(target, table)
    options = LoadOptions(
        reading=_reading(format, delimiter, encoding, header, null, sheet, max_bad),
        mode="append" if append else "create", types=dict(_pair("--type", each) for each in type or ()),
        key=tuple(key or ()), conflict=on_conflict, rules=_rules(rename, skip),
    )  # fmt: skip
    aside = quarantine or file.with_name(f"{file.name}.bad.jsonl")
    if max_bad and not dry_run and aside.exists():
        raise Conflict(f"{str(aside)!r} is there already", hint="--quarantine names another file for bad rows")
    where = side(connection, "target", Given(password_env, password), allow_in_url=allow_password_in_url)
    with reporting(quiet=json) as report:
        ws = dblens.open(report=report)
        if dry_run:
            preview = ws.queries.preview(where, str(file), name, options)
        else:
            loaded = _loaded(ws, where, file, name, options, yes=yes, given={
                "accept": [each for each in accept.split(",") if each], "origin": Origin(client="dblens load"),
            }, confirm=confirm)  # fmt: skip
    if dry_run:
        if json:
            output.json(preview)
        else:
            _show(preview)
        return
    if loaded.bad:
        _set_aside(loaded, aside)
    if json:
        output.json(loaded)
    else:
        _told(loaded, connection, aside)


def _loaded(
    ws: Any,
    where: Any,
    file: Path,
    table: str,
    options: LoadOptions,
    *,
    yes: bool,
    given: dict[str, Any],
    confirm: str | None,
) -> Loaded:
    try:
        made: Loaded = ws.queries.load(where, str(file), table, options, confirm=confirm, **given)
    except ConfirmationNeeded as needed:
        if not yes and not agreed(needed):
            raise refused(needed) from needed
        made = ws.queries.load(where, str(file), table, options, confirm=needed.confirm, **given)
    return made


def _place(target: str, table: str | None) -> tuple[str, str]:
    """Return the connection and the table. Raises InvalidInput."""
    from dblens.migrate.link import is_address

    if table is not None:
        return target, table
    if is_address(target):
        raise InvalidInput("an address has no place for the table's name", hint="--table NAME")
    connection, dot, name = target.partition(".")
    if not (connection and dot and name):
        raise InvalidInput(f"{target!r} names no table", hint="CONNECTION.TABLE, or --table NAME")
    return connection, name


def _reading(
    format: Words | None,
    delimiter: str | None,
    encoding: Encodings | None,
    header: bool | None,
    null: list[str] | None,
    sheet: str | None,
    max_bad: int,
) -> Any:
    from dblens.engines.files import Reading

    return Reading(
        format=format, delimiter="\t" if delimiter == "\\t" else delimiter, encoding=encoding, header=header,
        null_values=None if null is None else tuple(null), sheet=sheet, max_bad=max_bad,
    ).checked()  # fmt: skip


def _rules(rename: list[str] | None, skip: list[str] | None) -> Any:
    from dblens.migrate.options import Rule

    pairs = [_pair("--rename", each) for each in rename or ()]
    return (*(Rule(match=a, rename=b) for a, b in pairs), *(Rule(match=each, exclude=True) for each in skip or ()))


def _pair(option: str, text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not (name and mark and value):
        raise InvalidInput(f"{option} {text!r}", hint=f"{option} COLUMN={'TYPE' if option == '--type' else 'NAME'}")
    return name, value


# ----------------------------------------------------------------------------------------------------------------------- shown


def _show(preview: Preview) -> None:
    rows = [
        (each.name, f"{each.type}{'' if each.proven else ' (told)'}", each.target or "left out", each.native or "",
         ", ".join("NULL" if value is None else value[:30] for value in each.sample[:3]))
        for each in preview.columns
    ]  # fmt: skip
    output.table(["column", "type", "to", "stored as", "first values"], rows)
    how = "would be added to" if preview.append else "would make the table"
    output.note(f"{preview.rows} row{_s(preview.rows)} of {preview.source} ({preview.format}) {how} {preview.table}")
    for statement in preview.statements:
        output.note(statement)
    for loss in preview.losses:
        output.note(
            f"loss {loss.id}: column {loss.column}: {loss.why or loss.kind} ({loss.count} value{_s(loss.count)}): {loss.repair}"
        )
    for block in preview.blocks:
        output.note(f"cannot: {block.name}: {block.reason}")
    for note in preview.notes:
        output.note(f"note: {note}")
    _show_bad(preview.bad)


def _told(loaded: Loaded, connection: str, aside: Path) -> None:
    done = f"{loaded.inserted} added" if loaded.append else f"{loaded.rows} loaded"
    more = [f"{count} {word}" for count, word in ((loaded.updated, "updated"), (loaded.skipped, "skipped")) if count]
    proof = "every row equal" if loaded.equal else "rows differ"
    seconds = sum(loaded.seconds.values())
    output.lines(
        [(f"{loaded.table}: {', '.join([done, *more])}; {proof} (digest {loaded.digest}), {seconds:.1f} s", "green")]
    )
    for loss in loaded.losses:
        output.note(f"accepted loss {loss.id}: column {loss.column}: {loss.count} value{_s(loss.count)}: {loss.repair}")
    if loaded.bad:
        _show_bad(loaded.bad)
        output.note(f"{len(loaded.bad)} row{_s(len(loaded.bad))} set aside: {aside}")
    output.note(f"undo it: dblens migrate rollback {connection} --run {loaded.id}")


def _show_bad(bad: Any) -> None:
    for each in bad[:SHOWN]:
        output.note(f"line {each.line}: {each.reason}")
    if len(bad) > SHOWN:
        output.note(f"and {len(bad) - SHOWN} more")


def _set_aside(loaded: Loaded, aside: Path) -> None:
    """Write the rows that were set aside. Raises InvalidInput where they cannot be written: the load stands, and says so."""
    import msgspec

    try:
        with aside.open("xb") as file:
            for each in loaded.bad:
                file.write(msgspec.json.encode(each) + b"\n")
    except OSError as error:
        raise InvalidInput(
            f"the rows are loaded, but those set aside cannot be written to {str(aside)!r}: {error.strerror}",
            hint=f"dblens migrate rollback undoes the load {loaded.id}",
        ) from error


def _s(count: int) -> str:
    return "" if count == 1 else "s"
