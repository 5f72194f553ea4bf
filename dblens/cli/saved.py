"""`dblens saved`: queries that are kept under names, for the whole organization; as files they are `.sql` and `.mongodb`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dblens
from dblens.cli import output
from dblens.cli.query import (
    LIMIT,
    Confirm,
    Csv,
    Json,
    Limit,
    Params,
    ReadOnly,
    Table,
    Timeout,
    Verbose,
    Yes,
    ask,
    one_of,
    read_params,
    read_text,
)
from dblens.errors import Conflict, DBLensError, InvalidInput

if TYPE_CHECKING:
    from dblens.query.files import Written
    from dblens.store.queries import Saved

app = typer.Typer(no_args_is_help=True, help="Keep queries under names, run them, write and read them as files.")

Name = Annotated[str, typer.Argument(help="The name, or the id.")]
Connection = Annotated[str | None, typer.Option("--connection", "-c", help="The connection that it is for.")]
Replace = Annotated[bool, typer.Option("--replace", help="Change the one of that name.")]


@app.command("list", epilog="Examples:\n\n`dblens saved list`\n\n`dblens saved list --search orders --json`")
def list_(
    *,
    search: Annotated[str | None, typer.Option("--search", "-s", help="In name, description and text.")] = None,
    connection: Connection = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on where the list before ended.")] = None,
    json: Json = False,
) -> None:
    """List saved queries by name."""
    page = dblens.open().queries.saved(search=search, connection=connection, limit=limit, after=after)
    if json:
        output.json(page)
        return
    rows = [
        (each.name, each.language, ", ".join(each.params), each.description.partition("\n")[0]) for each in page.items
    ]
    output.table(["name", "language", "parameters", "description"], rows)
    if page.after is not None:
        output.note(f"there are more: --after {page.after!r}")


@app.command(epilog="Examples:\n\n`dblens saved show recent`\n\n`dblens saved show recent --json`")
def show(name: Name, *, json: Json = False) -> None:
    """Show a saved query as its file would hold it."""
    from dblens.query import files

    ws = dblens.open()
    found = ws.queries.show(name)
    if json:
        output.json(found)
    else:
        output.write(files.write(_written(ws, found)))


@app.command(
    epilog="Examples:\n\n`dblens saved run recent`\n\n`dblens saved run recent shop-copy --param since=2026-01-01 --csv`"
)
def run(
    name: Name,
    connection: Annotated[str | None, typer.Argument(help="Another connection than its own.")] = None,
    *,
    read_only: ReadOnly = None,
    param: Params = None,
    limit: Limit = LIMIT,
    timeout: Timeout = None,
    json: Json = False,
    csv: Csv = False,
    table: Table = False,
    confirm: Confirm = None,
    yes: Yes = False,
    verbose: Verbose = False,
) -> None:
    """Run a saved query on its connection or another; what is not given has its default."""
    one_of(json, csv, table)
    ws = dblens.open()
    found = ws.queries.show(name)
    where: Any = connection or found.connection_id
    if where is None:
        raise InvalidInput(f"the query {found.name!r} has no connection", hint="name one after it")
    if connection is not None:
        from dblens.cli.sides import side

        where = side(connection, "source")
    params = {**found.params, **(read_params(param) or {})}
    ask(
        ws, where, found.text, params=params or None, limit=limit, timeout=timeout, read_only=read_only, confirm=confirm,
        yes=yes, json=json, csv=csv, table=table, verbose=verbose,
    )  # fmt: skip


@app.command(
    epilog="Examples:\n\n`dblens saved save recent 'select * from orders where day > :since' -c shop -p since=2026-01-01`\n\n"
    "`dblens saved save recent @recent.sql --replace`"
)
def save(
    name: Annotated[str, typer.Argument(help="Its name.")],
    text: Annotated[str, typer.Argument(help="The query, `@file`, or `-` for stdin.")],
    *,
    connection: Connection = None,
    description: Annotated[str, typer.Option("--description", "-d", help="What it is for.")] = "",
    param: Params = None,
    language: Annotated[str, typer.Option("--language", help="sql or mongodb; the connection's without a word.")] = "",
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Keep a query under a name."""
    made = dblens.open().queries.save(
        name, read_text(text), connection=connection, description=description, params=read_params(param),
        language=language, replace=replace,
    )  # fmt: skip
    _said(made, "saved", json=json)


@app.command(epilog="Examples:\n\n`dblens saved delete recent`")
def delete(name: Name) -> None:
    """Delete a saved query."""
    dblens.open().queries.unsave(name)
    output.note(f"deleted {name!r}")


@app.command(
    "export",
    epilog="Examples:\n\n`dblens saved export recent > recent.sql`\n\n`dblens saved export --all --to queries/`",
)
def export(
    name: Annotated[str | None, typer.Argument(help="The name, or the id.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them, each into a file.")] = False,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Where the files go.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write saved queries as `.sql` and `.mongodb` files."""
    from dblens.query import files

    ws = dblens.open()
    if (name is None) == (not everything):
        raise InvalidInput("name a query, or say --all")
    if name is not None and to is None:
        output.write(files.write(_written(ws, ws.queries.show(name))))
        return
    if to is None:
        raise InvalidInput("--all without --to", hint="name the folder that the files go to")
    to.mkdir(parents=True, exist_ok=True)
    found = [ws.queries.show(name)] if name is not None else _all(ws)
    for each in found:
        written = _written(ws, each)
        path = to / files.file_name(each.name, written.language)
        if path.exists() and not force:
            raise Conflict(f"{path} is there already", hint="--force writes over it")
        path.write_text(files.write(written), "utf-8")
        output.note(f"wrote {path}")


@app.command("import", epilog="Examples:\n\n`dblens saved import queries/*.sql --replace`")
def import_(
    file: Annotated[list[Path], typer.Argument(help="Files, `.sql` or `.mongodb`.")],
    *,
    connection: Connection = None,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Read saved queries from files; a connection that a file names and that is not there is left out."""
    from dblens.query import files

    ws = dblens.open()
    for path in file:
        try:
            data = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} cannot be read: {error}", hint="a text file in UTF-8") from error
        found = files.read(data, file=path.name)
        made = ws.queries.save(
            found.name, found.text, connection=connection or _there(ws, found.connection), language=found.language,
            description=found.description, params=found.params, replace=replace,
        )  # fmt: skip
        _said(made, "read", json=json)


def _there(ws: Any, connection: str | None) -> str | None:
    if connection is None:
        return None
    try:
        ws.connections.read(connection)
    except DBLensError as error:
        output.note(f"the connection {connection!r} is left out: {error.message}")
        return None
    return connection


def _all(ws: Any) -> list[Saved]:
    found: list[Saved] = []
    after: str | None = None
    while True:
        page = ws.queries.saved(limit=200, after=after)
        found += page.items
        after = page.after
        if after is None:
            return found


def _written(ws: Any, found: Saved) -> Written:
    from dblens.query.files import Written

    name = None
    if found.connection_id is not None:
        try:
            name = ws.connections.read(found.connection_id).name
        except DBLensError:
            name = None  # not shared with oneself
    return Written(
        name=found.name,
        text=found.text,
        language="mongodb" if found.language == "mongodb" else "sql",
        connection=name,
        description=found.description,
        params=found.params,
    )


def _said(made: Saved, what: str, *, json: bool) -> None:
    if json:
        output.json(made)
    else:
        output.note(f"{what} {made.name!r}")
