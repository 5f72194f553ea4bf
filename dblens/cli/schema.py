"""`dblens schema`: show what is in a database, and how two databases differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dblens.cli import output
from dblens.cli.passwords import Given
from dblens.errors import InvalidInput

if TYPE_CHECKING:
    from dblens.engines.base import Rendered
    from dblens.schema.changes import Change
    from dblens.schema.compare import Options
    from dblens.schema.model import Schema

app = typer.Typer(no_args_is_help=True, help="Show and compare schemas.")

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Namespaces = Annotated[list[str] | None, typer.Option("--namespace", "-n", help="Only this namespace; repeatable.")]
Tables = Annotated[
    list[str] | None, typer.Option("--table", "-t", help="Only these tables: name or pattern; repeatable.")
]
AllowPassword = Annotated[bool, typer.Option("--allow-password-in-url", help="Accept a password inside a URL.")]
PasswordEnv = Annotated[
    str | None,
    typer.Option("--password-env", "--source-password-env", metavar="VAR", help="Variable with the password."),
]
PasswordFile = Annotated[
    str | None, typer.Option("--password", "--source-password", metavar="@FILE", help="File with the password.")
]
SourceEnv = Annotated[
    str | None, typer.Option("--source-password-env", metavar="VAR", help="Variable with the password.")
]
SourceFile = Annotated[str | None, typer.Option("--source-password", metavar="@FILE", help="File with A's password.")]
TargetEnv = Annotated[
    str | None, typer.Option("--target-password-env", metavar="VAR", help="Variable with B's password.")
]
TargetFile = Annotated[str | None, typer.Option("--target-password", metavar="@FILE", help="File with B's password.")]

_URL = "postgresql://, mysql://, sqlite:// or mongodb:// URL, or a .json file written by `schema show --json`"


@app.command(
    epilog="Examples:\n\n"
    "`dblens schema show postgresql://me@localhost/shop`\n\n"
    "`dblens schema show sqlite:///shop.db --table 'order*' --sql`\n\n"
    "`dblens schema show mysql://me@db/shop --json > shop.json`"
)
def show(
    url: Annotated[str, typer.Argument(help=_URL)],
    *,
    namespace: Namespaces = None,
    table: Tables = None,
    json: Json = False,
    sql: Annotated[bool, typer.Option("--sql", help="Write CREATE statements of the engine.")] = False,
    password_env: PasswordEnv = None,
    password: PasswordFile = None,
    allow_password_in_url: AllowPassword = False,
) -> None:
    """Show the tables, columns, keys and everything else of a database."""
    from dblens import open as workspace
    from dblens.cli.tree import tree

    if json and sql:
        raise InvalidInput("--json and --sql together", hint="choose one")
    catalog = workspace().catalog
    schema = _read(url, "source", Given(password_env, password), namespace or [], allow_in_url=allow_password_in_url)
    schema = _chosen(schema, namespace or [], table or [])
    if json:
        output.json(schema)
    elif sql:
        output.write("".join(f"{_statement(text, documents=False)}\n" for text in catalog.create(schema)))
    else:
        output.lines(tree(schema))


@app.command(
    epilog="Examples:\n\n"
    "`dblens schema diff postgresql://me@prod/shop postgresql://me@dev/shop --sql`\n\n"
    "`dblens schema diff shop.json postgresql://me@prod/shop --exit-code` (drift against a stored schema)\n\n"
    "`dblens schema diff mysql://me@db/shop sqlite:///shop.db --ignore comment`"
)
def diff(
    a: Annotated[str, typer.Argument(help=f"What is there: {_URL}")],
    b: Annotated[str, typer.Argument(help="What it is compared with, of the same engine or another.")],
    *,
    sql: Annotated[
        bool, typer.Option("--sql", help="Write the statements that turn A into B, for A's engine.")
    ] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 when they differ.")] = False,
    json: Json = False,
    namespace: Namespaces = None,
    table: Tables = None,
    only_tables: Annotated[
        bool, typer.Option("--only-tables", help="No views, routines, triggers, sequences, types.")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="owner|grants|comment|collation", help="Leave out; repeatable."),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="auto|spelling|meaning", help="Compare types as spelled or as meant.")
    ] = "auto",
    map_namespace: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="B=A", help="B's namespace is A's under another name; repeatable."),
    ] = None,
    rename_table: Annotated[
        list[str] | None, typer.Option("--rename-table", metavar="NS.OLD=NEW", help="The same table; repeatable.")
    ] = None,
    rename_column: Annotated[
        list[str] | None,
        typer.Option("--rename-column", metavar="NS.TABLE.OLD=NEW", help="The same column; repeatable."),
    ] = None,
    source_password_env: SourceEnv = None,
    source_password: SourceFile = None,
    target_password_env: TargetEnv = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowPassword = False,
) -> None:
    """List the changes that turn schema A into schema B; destructive and blocking ones are marked. Changes nothing."""
    from dblens import open as workspace

    options = _options(
        ignore=ignore or [],
        by=by,
        maps=map_namespace or [],
        renamed=(rename_table or [], rename_column or []),
        tables=table or [],
        only_tables=only_tables,
    )
    catalog = workspace().catalog
    names = namespace or []
    left = _read(a, "source", Given(source_password_env, source_password), names, allow_in_url=allow_password_in_url)
    right = _read(b, "target", Given(target_password_env, target_password), names, allow_in_url=allow_password_in_url)
    left, right = _chosen(left, names, []), _chosen(right, names, [])
    changes = catalog.diff(left, right, options)
    statements = catalog.statements(left, changes, origin=right.engine) if sql else None
    if json:
        _write_json(left, right, changes, statements)
    elif statements is not None:
        output.write(_script(statements, left))
    else:
        _write_list(changes)
    if exit_code and changes:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------------------------- inputs


def _read(text: str, side: str, given: Given, namespaces: list[str], *, allow_in_url: bool) -> Schema:
    """Read a schema from a stored file or a database."""
    from dblens import open as workspace
    from dblens.cli.sides import side as side_of
    from dblens.migrate.drift import load_schema

    if "://" not in text and text.endswith(".json"):
        return load_schema(Path(text))
    return workspace().catalog.schema(side_of(text, side, given, allow_in_url=allow_in_url), namespaces=namespaces)


def _chosen(schema: Schema, namespaces: list[str], tables: list[str]) -> Schema:
    from dblens.schema.select import select

    chosen = select(schema, namespaces=namespaces, tables=tables)
    if tables and not (chosen.tables or chosen.views):
        raise InvalidInput(
            f"no table matches {', '.join(tables)}", hint=f"the database has {len(schema.tables)} tables"
        )
    return chosen


def _options(
    *,
    ignore: list[str],
    by: str,
    maps: list[str],
    renamed: tuple[list[str], list[str]],
    tables: list[str],
    only_tables: bool,
) -> Options:
    import msgspec

    from dblens.schema.compare import Options

    tables_renamed, columns_renamed = ([_assigned(text, 2 + n) for text in texts] for n, texts in enumerate(renamed))
    try:
        return msgspec.convert(
            {
                "ignore": ignore,
                "by": by,
                "tables": tables,
                "only_tables": only_tables,
                "namespaces": {names[0]: names[1] for names in (_assigned(text, 1) for text in maps)},
                "renamed": [
                    *({"namespace": a, "old": old, "new": new} for a, old, new in tables_renamed),
                    *({"namespace": a, "table": t, "old": old, "new": new} for a, t, old, new in columns_renamed),
                ],
            },
            Options,
        )
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"not an option of a comparison: {error}",
            hint="--ignore takes owner, grants, comment, collation; --by takes auto, spelling, meaning",
        ) from None


def _assigned(text: str, parts: int) -> tuple[str, ...]:
    """Split `a.b=c` into its parts. Raises InvalidInput."""
    left, equals, right = text.partition("=")
    names = left.split(".", parts - 1)
    if not equals or not right or len(names) != parts or not all(names):
        shape = ".".join(["NS", "TABLE", "OLD"][:parts]) if parts > 1 else "B"
        raise InvalidInput(f"not {shape}=NAME: {text!r}")
    return (*names, right)


# ------------------------------------------------------------------------------------------------------------------ outputs


def _write_json(a: Schema, b: Schema, changes: tuple[Change, ...], statements: list[Rendered] | None) -> None:
    sides = {
        name: {"engine": s.engine, "version": s.version, "database": s.database} for name, s in (("a", a), ("b", b))
    }
    document: dict[str, object] = {
        **sides,
        "equal": not changes,
        "destructive": sum(change.destructive for change in changes),
        "blocking": sum(change.blocking for change in changes),
        "changes": changes,
    }
    if statements is not None:
        document["statements"] = statements
    output.json(document)


def _write_list(changes: tuple[Change, ...]) -> None:
    from dblens.schema.changes import describe

    if not changes:
        output.note("no differences")
        return
    output.table(
        ["object", "change", "risk", "reason"],
        [(*describe(change), _risk(change), change.reason) for change in changes],
    )
    lost = sum(change.destructive for change in changes)
    output.note(
        f"{len(changes)} change{'s' * (len(changes) != 1)}, {lost} destructive, {sum(c.blocking for c in changes)} blocking"
    )


def _risk(change: Change | Rendered) -> str:
    return ", ".join(word for word in ("destructive", "blocking") if getattr(change, word))


def _script(statements: list[Rendered], schema: Schema) -> str:
    from dblens import engines

    documents = engines.get(schema.engine).facts.documents
    dash = "//" if documents else "--"
    found = []
    for rendered in statements:
        words = [word for word in (_risk(rendered).upper(), rendered.reason) if word]
        if not rendered.statements:
            words.insert(0, "NOT RENDERED")
        # One line each: a name with a newline must not leave the comment.
        found.append(f"{dash} {output.safe(': '.join(words))}\n" if words else "")
        found += [f"{_statement(text, documents=documents)}\n" for text in rendered.statements]
        found.append("\n")
    return "".join(found)


def _statement(text: str, *, documents: bool) -> str:
    return text if documents or text.rstrip().endswith(";") else f"{text};"
