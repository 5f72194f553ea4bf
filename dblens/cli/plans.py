"""`dblens migrate list|show|delete|clone|template`: stored plans, copies of whole databases, configurations that run again by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

import dblens
from dblens.cli import output, show
from dblens.cli.progress import reporting
from dblens.errors import InvalidInput, VerificationFailed

templates = typer.Typer(no_args_is_help=True, help="Keep configurations of migrations and comparisons, run them again.")

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
PlanId = Annotated[str, typer.Argument(help="The id of a stored plan.", metavar="ID")]
Named = Annotated[str, typer.Argument(help="Name or id of the template.", metavar="TEMPLATE")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many.")]
After = Annotated[str | None, typer.Option("--after", help="Go on where the list before ended.")]
Accept = Annotated[str, typer.Option("--accept", metavar="all|ID,…", help="Losses to accept.")]
Tables = Annotated[list[str] | None, typer.Option("--table", "-t", help="Table or pattern to take; repeatable.")]
Excluded = Annotated[list[str] | None, typer.Option("--exclude", help="Table or pattern to leave out; repeatable.")]
Existing = Annotated[
    Literal["refuse", "append", "replace"] | None,
    typer.Option("--existing", help="When the target has the table already."),
]
Rules = Annotated[list[str] | None, typer.Option("--rule", "-r", help="MATCH:ACTION=VALUE; repeatable.")]
Where = Annotated[
    str | None, typer.Option("--where", help="Of a comparison: a condition that both engines understand.")
]
OptionsFile = Annotated[
    Path | None,
    typer.Option(
        "--options", metavar="FILE", help="More options of a migration as JSON (`options` of a plan); `-`: stdin."
    ),
]


def list_plans(*, limit: Limit = 50, after: After = None, json: Json = False) -> None:
    """List the stored plans between connections that are shared with you, the newest first.

    \b
    Example: dblens migrate list --json
    """
    page = dblens.open().migrations.list(limit=limit, after=after)
    if json:
        output.json(page)
        return
    output.table(
        ["plan", "from", "to", "created", "hash"],
        [(p.id, p.source, p.target, p.created_at, p.hash) for p in page.items],
    )
    _more(page.after)


def show_plan(plan: PlanId, *, json: Json = False) -> None:
    """Show a stored plan: tables, losses, what does not come along.

    \b
    Example: dblens migrate show 4b6f884b0e
    """
    from dblens.cli.plan_text import show_plan as shown
    from dblens.migrate import model

    found = dblens.open().migrations.read(plan)
    if json:
        output.write(model.write(found) + "\n")
    else:
        shown(found)
        output.note(f"apply it: dblens migrate apply {found.id} --hash {found.hash}")


def delete_plan(plan: PlanId, *, json: Json = False) -> None:
    """Delete a stored plan; what was applied by it stays.

    \b
    Example: dblens migrate delete 4b6f884b0e
    """
    dblens.open().migrations.delete(plan)
    show.result({"id": plan, "deleted": True}, f"deleted {plan}", as_json=json)


def clone(
    source: Annotated[str, typer.Argument(help="Connection to copy.", metavar="SRC")],
    name: Annotated[str, typer.Argument(help="Name of the new connection.", metavar="NAME")],
    *,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="CONNECTION", help="Connection to the server that gets the copy, else SRC."),
    ] = None,
    database: Annotated[str | None, typer.Option("--database", help="Name of the new database, else NAME.")] = None,
    accept: Accept = "",
    json: Json = False,
) -> None:
    """Copy a database into a new one on any server or engine, verify every row, and keep a connection to it.

    \b
    Example: dblens migrate clone shop shop-test --on staging
    """
    with reporting() as report:
        made = dblens.open(report=report).migrations.clone(
            source, name, on or source, database=database, accept=_split(accept)
        )
    show.result(made, f"{made.name}: {made.outcome.rows:,} rows, every row equal", as_json=json)


def attach(app: typer.Typer) -> None:
    """Add the commands to `dblens migrate`."""
    app.command("list")(list_plans)
    app.command("show")(show_plan)
    app.command("delete")(delete_plan)
    app.command("clone")(clone)
    app.add_typer(templates, name="template")


# -------------------------------------------------------------------------------------------------------------------- templates


@templates.command(
    "create",
    epilog="Examples:\n\n`dblens migrate template create nightly shop warehouse --existing replace --accept all`\n\n"
    "`dblens migrate template create check shop warehouse --verify --table 'order*'`",
)
def create_template(
    name: Annotated[str, typer.Argument(help="Its name.", metavar="NAME")],
    source: Annotated[str, typer.Argument(help="Connection to read from.", metavar="SRC")],
    target: Annotated[str, typer.Argument(help="Connection to write to, or to compare with.", metavar="DST")],
    *,
    verify: Annotated[bool, typer.Option("--verify", help="A comparison, not a migration.")] = False,
    table: Tables = None,
    exclude: Excluded = None,
    existing: Existing = None,
    rule: Rules = None,
    options: OptionsFile = None,
    accept: Accept = "",
    where: Where = None,
    json: Json = False,
) -> None:
    """Keep a configuration under a name."""
    configuration = _configuration(
        verify=verify, table=table, exclude=exclude, existing=existing, rule=rule, options=options, accept=accept, where=where
    )  # fmt: skip
    kind: Any = "verify" if verify else "migration"
    made = dblens.open().templates.create(name, source, target, kind=kind, configuration=configuration)
    show.result(made, f"kept {made.name}: dblens migrate template run {made.name}", as_json=json)


@templates.command(
    "update",
    epilog="Example: `dblens migrate template update nightly --existing replace` (the whole configuration anew)",
)
def update_template(
    template: Named,
    *,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    table: Tables = None,
    exclude: Excluded = None,
    existing: Existing = None,
    rule: Rules = None,
    options: OptionsFile = None,
    accept: Accept = "",
    where: Where = None,
    json: Json = False,
) -> None:
    """Give a template another name or, when any option is given, another configuration in place of the one it has."""
    ws = dblens.open().templates
    configuration = None
    if any(given for given in (table, exclude, existing, rule, options, accept, where)):
        configuration = _configuration(
            verify=ws.read(template).kind == "verify", table=table, exclude=exclude, existing=existing, rule=rule,
            options=options, accept=accept, where=where,
        )  # fmt: skip
    made = ws.update(template, name=name, configuration=configuration)
    show.result(made, f"changed {made.name}", as_json=json)


@templates.command("list", epilog="Example: `dblens migrate template list --json`")
def list_templates(*, limit: Limit = 50, after: After = None, json: Json = False) -> None:
    """List the templates between connections that are shared with you."""
    page = dblens.open().templates.list(limit=limit, after=after)
    if json:
        output.json(page)
        return
    output.table(
        ["name", "kind", "changed", "id"],
        [(t.name, t.kind, f"{t.updated_at:%Y-%m-%d %H:%M}", t.id) for t in page.items],
    )
    _more(page.after)


@templates.command("show", epilog="Example: `dblens migrate template show nightly`")
def show_template(template: Named) -> None:
    """Write a template as JSON."""
    output.json(dblens.open().templates.read(template))


@templates.command("delete", epilog="Example: `dblens migrate template delete nightly`")
def delete_template(template: Named, *, json: Json = False) -> None:
    """Delete a template; its runs stay."""
    dblens.open().templates.delete(template)
    show.result({"template": template, "deleted": True}, f"deleted {template}", as_json=json)


@templates.command(
    "run", epilog="Example: `dblens migrate template run nightly` (8: they differ, 7: a loss it does not accept)"
)
def run_template(template: Named, *, json: Json = False) -> None:
    """Run a template: plan and apply, or compare. Its history: `dblens run list --operation template.run`."""
    from dblens.cli.plan_text import show_outcome, show_verdicts

    with reporting() as report:
        ran = dblens.open(report=report).templates.run(template)
    if json:
        output.json(ran)
    elif ran.outcome is not None:
        show_outcome(ran.outcome)
    elif ran.comparison is not None:
        show_verdicts(ran.comparison.verdicts)
        show.listing("equal" if ran.comparison.equal else "NOT EQUAL", ran.comparison.notes)
    if ran.comparison is not None and not ran.comparison.equal:
        raise typer.Exit(VerificationFailed.exit)


def _configuration(
    *,
    verify: bool,
    table: list[str] | None,
    exclude: list[str] | None,
    existing: str | None,
    rule: list[str] | None,
    options: Path | None,
    accept: str,
    where: str | None,
) -> Any:
    from dblens.migrate.options import Options, parse_rule
    from dblens.workspace.templates import Check, Configuration

    if verify:
        if exclude or existing or rule or options or accept:
            raise InvalidInput(
                "a comparison takes --table and --where only", hint="drop --verify, or the other options"
            )
        return Configuration(check=Check(tables=tuple(table or ()), where=where))
    if where is not None:
        raise InvalidInput("--where is for a comparison", hint="add --verify, or filter by --rule TABLE:filter=…")
    found = Options() if options is None else _read(options)
    rules = tuple(parse_rule(text, None, keyed=True) for text in rule or ())
    given = {"tables": tuple(table or ()), "exclude": tuple(exclude or ()), "existing": existing}
    found = msgspec.structs.replace(found, **{k: v for k, v in given.items() if v}, rules=(*found.rules, *rules))
    return Configuration(options=found, accept=tuple(_split(accept)))


def _read(path: Path) -> Any:
    from dblens.migrate.options import Options

    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return msgspec.json.decode(text, type=Options)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} holds no options: {error}", hint="take `options` of a plan") from error


def _split(accept: str) -> list[str]:
    return [id for id in accept.split(",") if id]


def _more(after: str | None) -> None:
    if after is not None:
        output.note(f"there are more: --after {after}")
