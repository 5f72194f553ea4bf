"""`dblens query`: ask a database; its rows on stdout, everything else on stderr; Ctrl-C stops it on the server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dblens.cli import output
from dblens.cli.passwords import Given
from dblens.errors import ConfirmationNeeded, InvalidInput

if TYPE_CHECKING:
    from dblens.engines.asking import Explained, PlanNode
    from dblens.query.run import Ran

EXAMPLES = (
    "Examples:\n\n`dblens query shop 'select * from orders where id = :id' --param id:=7`\n\n"
    "`dblens query shop @report.sql --csv > report.csv`\n\n"
    "`dblens query sqlite:///shop.db - --json < report.sql | jq '.results[0].rows'`\n\n"
    "`dblens query shop 'delete from carts where created < :day' --param day=2026-01-01 --write --yes`\n\n"
    "`dblens query shop 'select * from orders' --explain --analyze`\n\n"
    "`dblens query shop-mongo 'db.orders.find({total: {$gt: 100}})' --flat --csv`"
)
LIMIT = 10_000

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Csv = Annotated[bool, typer.Option("--csv", help="Write CSV to stdout; NULL is nothing, an empty text is quoted.")]
Table = Annotated[bool, typer.Option("--table", help="Draw a table, also where nobody reads.")]
Flat = Annotated[bool, typer.Option("--flat", help="Show documents as columns, one for each path of keys.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter, `name=text` or `name:=JSON`; repeatable."),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="How many rows at most; 0: all.")]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Stop it after so long.")]
ReadOnly = Annotated[
    bool | None,
    typer.Option(
        "--read-only/--write", help="Whether the server must refuse to write. Without: as the text's own words say."
    ),
]
Confirm = Annotated[str | None, typer.Option("--confirm", metavar="TOKEN", help="What the refusal before said.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Confirm writes without being asked.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also say what kept it from writing.")]
PasswordEnv = Annotated[str | None, typer.Option("--password-env", metavar="VAR", help="Variable with the password.")]
PasswordFile = Annotated[str | None, typer.Option("--password", metavar="@FILE", help="File with the password.")]


def query(
    connection: Annotated[str, typer.Argument(help="A connection's name or, on one's own machine, an address.")],
    text: Annotated[str, typer.Argument(help="The query, `@file`, or `-` for stdin.")],
    *,
    read_only: ReadOnly = None,
    param: Params = None,
    limit: Limit = LIMIT,
    timeout: Timeout = None,
    json: Json = False,
    csv: Csv = False,
    table: Table = False,
    flat: Flat = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the plan instead of running it.")] = False,
    analyze: Annotated[bool, typer.Option("--analyze", help="With --explain: run it, and show what it took.")] = False,
    confirm: Confirm = None,
    yes: Yes = False,
    save: Annotated[
        str | None, typer.Option("--save", metavar="NAME", help="Keep the text under a name, after it worked.")
    ] = None,
    verbose: Verbose = False,
    password_env: PasswordEnv = None,
    password: PasswordFile = None,
    allow_password_in_url: Annotated[bool, typer.Option("--allow-password-in-url", hidden=True)] = False,
) -> None:
    """Ask a database: SQL, or a MongoDB shell's text. What only reads is kept from writing by the server."""
    import dblens
    from dblens.cli.sides import side

    one_of(json, csv, table)
    if analyze and not explain:
        raise InvalidInput("--analyze without --explain", hint="add --explain")
    where = side(connection, "source", Given(password_env, password), allow_in_url=allow_password_in_url)
    words, given = read_text(text), read_params(param)
    ws = dblens.open()
    if explain:
        plan = ws.queries.explain(where, words, params=given, analyze=analyze, timeout=timeout or 60.0)
        show_plan(plan, json=json)
        return
    ask(
        ws, where, words, params=given, limit=limit, timeout=timeout, read_only=read_only, confirm=confirm, yes=yes,
        json=json, csv=csv, table=table, flat=flat, verbose=verbose,
    )  # fmt: skip
    if save is not None:
        kept = ws.queries.save(save, words, connection=connection if isinstance(where, str) else None)
        output.note(f"saved as {kept.name!r}")


def ask(
    ws: Any,
    where: Any,
    text: str,
    *,
    params: dict[str, Any] | None,
    limit: int,
    timeout: float | None,
    read_only: bool | None,
    confirm: str | None,
    yes: bool,
    json: bool,
    csv: bool,
    table: bool,
    verbose: bool,
    flat: bool = False,
) -> None:
    """Run a text and show what comes of it, asking for a confirmation where one is needed and somebody is there."""
    from dblens.workspace.speech import Origin

    given: dict[str, Any] = {
        "params": params,
        "limit": limit or None,
        "timeout": timeout,
        "read_only": read_only,
        "origin": Origin(client="dblens query"),
    }

    def run(confirm: str | None) -> Ran | None:
        if flat:
            from dblens.cli import rows

            found = ws.query(where, text, confirm=confirm, **given)
            return _shown(rows.Flat(found), json=json, csv=csv, table=table)
        with ws.stream(where, text, confirm=confirm, **given) as source:
            return _shown(source, json=json, csv=csv, table=table)

    try:
        ran = run(confirm)
    except ConfirmationNeeded as needed:
        if not yes and not agreed(needed):
            raise refused(needed) from needed
        ran = run(needed.confirm)
    _told(ran, limit, verbose=verbose)


def agreed(needed: ConfirmationNeeded) -> bool:
    """Ask the person, when there is one. Raises typer.Abort for no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    output.note(needed.message)
    return typer.confirm("Run it?", err=True, abort=True)


def refused(needed: ConfirmationNeeded) -> ConfirmationNeeded:
    """Return what is said where nobody is there to ask."""
    return ConfirmationNeeded(
        needed.message,
        confirm=needed.confirm,
        warnings=needed.warnings,
        hint=f"look at it, then the same command with --confirm {needed.confirm} (or --yes)",
    )


def _shown(source: Any, *, json: bool, csv: bool, table: bool) -> Ran | None:
    from dblens.cli import rows

    if json:
        rows.as_json(source)
    elif csv:
        rows.as_csv(source)
    else:
        rows.as_table(source, drawn=table)
    found: Ran | None = source.ran
    return found


def _told(ran: Ran | None, limit: int, *, verbose: bool) -> None:
    if ran is None:
        return
    for each in ran.statements:
        which = f"statement {each.number}: " if len(ran.statements) > 1 else ""
        if each.columns:
            said = f"{each.rows} row{'' if each.rows == 1 else 's'}"
        else:
            said = (
                each.kind
                if each.affected is None
                else f"{each.affected} row{'' if each.affected == 1 else 's'} affected"
            )
        output.note(f"{which}{said}, {each.seconds:.3f} s")
        if each.truncated == "rows":
            output.note(f"{which}there are more rows: these are the first {limit} (--limit 0: all)")
        elif each.truncated:
            output.note(f"{which}there are more rows: these are all that fit")
        for notice in each.notices:
            output.note(f"{which}{notice}")
        for warning in each.warnings:
            output.note(f"{which}warning: {warning.text}")
    if verbose:
        output.note(f"query {ran.query}, {'read-only' if ran.read_only else 'may write'}")
        for layer in ran.layers:
            output.note(
                f"{'kept from writing by' if layer.active else 'not active:'} {layer.name}{f' ({layer.why})' if layer.why else ''}"
            )


def one_of(*chosen: bool) -> None:
    """Raise InvalidInput for more than one way to show it."""
    if sum(chosen) > 1:
        raise InvalidInput("--json, --csv and --table together", hint="choose one")


def read_text(text: str) -> str:
    """Return the query: as it stands, of a file or of stdin. Raises InvalidInput."""
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{text[1:]!r} cannot be read: {error}", hint="name a text file in UTF-8") from error


def read_params(given: Sequence[str] | None) -> dict[str, Any] | None:
    """Return parameters by name. Raises InvalidInput."""
    import msgspec

    found: dict[str, Any] = {}
    for each in given or ():
        name, mark, value = each.partition("=")
        if not mark or not name.rstrip(":").isidentifier():
            raise InvalidInput(f"--param {each!r}", hint="name=text, or name:=JSON")
        if name.endswith(":"):
            try:
                found[name[:-1]] = msgspec.json.decode(value)
            except msgspec.DecodeError as error:
                raise InvalidInput(
                    f"--param {each!r} is no JSON: {error}", hint="name:=7, name:=null, name:='\"text\"'"
                ) from error
        else:
            found[name] = value
    return found or None


# ----------------------------------------------------------------------------------------------------------------------- plan


def show_plan(plan: Explained, *, json: bool) -> None:
    """Write a plan: its tree, or all of it as JSON."""
    if json:
        output.json(plan)
        return
    output.lines([(line, "") for line in _plan_lines(plan.tree, "")])
    if plan.note:
        output.note(plan.note)


def _plan_lines(node: PlanNode, before: str) -> Iterator[str]:
    what = node.title + (f" on {node.relation}" if node.relation else "") + (f" by {node.index}" if node.index else "")
    told = [
        f"{word} {value:g}"
        for word, value in (
            ("estimated rows", node.estimated_rows), ("rows", node.actual_rows), ("cost", node.cost), ("ms", node.milliseconds),
        )
        if value is not None
    ]  # fmt: skip
    told += [f"{name}: {value}" for name, value in node.facts.items()]
    yield before + what + (f"  ({', '.join(told)})" if told else "")
    for child in node.children:
        yield from _plan_lines(child, before + "  ")
