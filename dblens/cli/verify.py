"""`dblens verify`: compare two databases row by row as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import dblens
from dblens.cli import show
from dblens.cli.migrate import (
    AllowInline,
    Destination,
    Json,
    Source,
    SourceEnv,
    SourceFile,
    TargetEnv,
    TargetFile,
    _link,
)
from dblens.cli.progress import reporting
from dblens.errors import InvalidInput, VerificationFailed


def verify(
    source: Source,
    target: Destination,
    table: Annotated[list[str] | None, typer.Option("--table", "-t", help="Table or pattern; repeatable.")] = None,
    where: Annotated[str | None, typer.Option("--where", help="Condition that both engines understand.")] = None,
    tolerance: Annotated[
        list[str] | None, typer.Option("--tolerance", metavar="COLUMN=DISTANCE", help="Accepted distance; repeatable.")
    ] = None,
    shared_columns: Annotated[
        bool, typer.Option("--shared-columns", help="Compare only columns that both have.")
    ] = False,
    repair: Annotated[
        Path | None, typer.Option("--repair", metavar="FILE", help="Write statements that would mend the target.")
    ] = None,
    source_password_env: SourceEnv = None,
    target_password_env: TargetEnv = None,
    source_password: SourceFile = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowInline = False,
    json: Json = False,
) -> None:
    """Compare two databases row by row: every value, by digest, down to the differing keys and columns.

    \b
    Exit code 0: equal; 8: they differ.
    Example: dblens verify sqlite:///shop.db postgresql://me@localhost/shop --tolerance weight=0.001
    """
    left = _link(source, "source", source_password_env, source_password, allow_password_in_url)
    right = _link(target, "target", target_password_env, target_password, allow_password_in_url)
    with reporting() as report:
        found = dblens.open(report=report).migrations.verify(
            left,
            right,
            tables=table or (),
            where=where,
            tolerance=_tolerance(tolerance or []),
            shared_columns=shared_columns,
            repair=repair is not None,
        )
    if repair is not None and not found.equal:
        repair.write_text("\n".join(found.repair) + "\n", "utf-8")
    if json:
        show.document(found)
    else:
        from dblens.cli.plan_text import show_verdicts

        show_verdicts(found.verdicts)
        if found.notes:
            show.listing("Notes", found.notes)
        if found.only_source or found.only_target:
            rows = [("source", t) for t in found.only_source] + [("target", t) for t in found.only_target]
            show.section("Only on one side", ("side", "table"), rows)
        show.listing("equal" if found.equal else "NOT EQUAL", [])
    if not found.equal:
        raise typer.Exit(VerificationFailed.exit)


def _tolerance(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name or found[name] < 0:
            raise InvalidInput(f"not a tolerance: {text!r}", hint="write COLUMN=DISTANCE, for example price=0.01")
    return found
