"""`dblens migrate`: plan, apply, verify, resume, rollback, finalize, status, notebook."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

import dblens
from dblens.cli import output, passwords, plans, show, signing
from dblens.cli.progress import reporting
from dblens.cli.sides import side as side_of
from dblens.errors import InvalidInput, StalePlan, VerificationFailed

app = typer.Typer(help="Move a database into another engine, prove every row equal, or undo it.", no_args_is_help=True)

DONE_WITH_EXCLUSIONS = 11
"""Exit code of a migration that is complete and verified, though objects such as views and triggers did not come along."""

Source = Annotated[str, typer.Argument(help="Connection, or URL without a password, of the source.", metavar="SRC")]
Destination = Annotated[
    str, typer.Argument(help="Connection, or URL without a password, of the target.", metavar="DST")
]
PlanFile = Annotated[
    Path,
    typer.Argument(help="Plan written by `dblens migrate plan --json`, or the id of a stored one.", metavar="PLAN"),
]
PlanHash = Annotated[
    str | None,
    typer.Option("--hash", help="With an id: the hash of the plan that was looked at; another one is refused."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
SourceEnv = Annotated[
    str | None, typer.Option("--source-password-env", metavar="NAME", help="Variable with the source's password.")
]
TargetEnv = Annotated[
    str | None, typer.Option("--target-password-env", metavar="NAME", help="Variable with the target's password.")
]
SourceFile = Annotated[
    str | None, typer.Option("--source-password", metavar="@FILE", help="File with the source's password, as @path.")
]
TargetFile = Annotated[
    str | None, typer.Option("--target-password", metavar="@FILE", help="File with the target's password, as @path.")
]
AllowInline = Annotated[
    bool, typer.Option("--allow-password-in-url", help="Accept a password in a URL (it shows in the process list).")
]
MaskKeyEnv = Annotated[
    str | None, typer.Option("--mask-key-env", metavar="NAME", help="Variable with the key of mask=hash rules.")
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="ID", help="The migration; needed when the target knows several.")
]
Accept = Annotated[
    str, typer.Option("--accept", metavar="all|ID,…", help="Losses to accept, by the ids of the loss ledger.")
]


def _link(url: str, side: str, env: str | None, file: str | None, allow: bool) -> Any:
    return side_of(url, side, passwords.Given(env, file), allow_in_url=allow)


def _mask_key(name: str | None) -> Any:
    from dblens.redaction import Secret

    if name is None:
        return None
    value = os.environ.get(name)
    if not value:
        raise InvalidInput(
            f"the variable {name} is not set", hint="export it with the mask key, or drop --mask-key-env"
        )
    return Secret(value)


def _read_plan(path: Path) -> Any:
    from dblens.migrate import model

    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read the plan {path}: {error.strerror}", hint="check the path") from error
    return model.read(text)


Given = tuple[str | None, str | None]
"""Where a side's password comes from: the name of a variable, `@` and a file."""


def _planned(ws: Any, plan: Path, hash: str | None, source: Given, target: Given) -> dict[str, Any]:
    """Return what a plan is to the doors: id and hash of a stored one, else the document with a link to each side."""
    if re.fullmatch("[0-9a-f]{10}", str(plan)) and not plan.exists():
        return {"plan": str(plan), "hash": hash}
    made = _read_plan(plan)
    if hash is not None and hash != made.hash:
        raise StalePlan(f"the plan {made.id} has another hash than {hash}", hint="look at it again")
    if not any((*source, *target)) and any(kept.id == made.id for kept in ws.migrations.list(limit=200).items):
        return {"plan": made.id, "hash": made.hash}
    left, right = _link(made.source.url, "source", *source, False), _link(made.target.url, "target", *target, False)
    return {"plan": made, "source": left, "target": right}


def _options(values: dict[str, Any]) -> Any:
    from dblens.migrate.options import Options

    try:
        return msgspec.convert({k: v for k, v in values.items() if v is not None}, Options)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"bad option: {error}", hint="see dblens migrate plan --help") from error


@app.command()
def plan(
    source: Source,
    target: Destination,
    table: Annotated[
        list[str] | None, typer.Option("--table", "-t", help="Table or pattern to take; repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Table or pattern to leave out; repeatable.")
    ] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", help="Source namespace to read; repeatable.")
    ] = None,
    into: Annotated[str | None, typer.Option("--into", help="Target namespace.")] = None,
    content: Annotated[Literal["all", "schema", "data"], typer.Option("--content", help="What to move.")] = "all",
    existing: Annotated[
        Literal["refuse", "append", "replace"],
        typer.Option("--existing", help="When the target has the table already."),
    ] = "refuse",
    conflict: Annotated[
        Literal["error", "skip", "update"], typer.Option("--conflict", help="Key conflicts of an append.")
    ] = "error",
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", "-r", help="MATCH:ACTION=VALUE, for example customer.email:mask=hash; repeatable."),
    ] = None,
    child_table: Annotated[
        list[str] | None,
        typer.Option(
            "--child-table",
            metavar="COLLECTION.PATH",
            help="Array of documents that becomes a table of its own, for example orders.items; repeatable.",
        ),
    ] = None,
    embed: Annotated[
        list[str] | None,
        typer.Option(
            "--embed",
            metavar="CHILD[:PARENT]",
            help="Table that becomes an array of the documents its foreign key refers to; repeatable.",
        ),
    ] = None,
    create_target: Annotated[bool, typer.Option("--create-target", help="Make the target database.")] = False,
    mode: Annotated[
        Literal["auto", "fast", "ledger"],
        typer.Option("--mode", help="fast restarts a table whole, ledger resumes by chunk."),
    ] = "auto",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Parallel workers.")] = 1,
    chunk_rows: Annotated[int, typer.Option("--chunk-rows", min=1, help="Rows of a chunk in ledger mode.")] = 100_000,
    mask_key_env: MaskKeyEnv = None,
    source_password_env: SourceEnv = None,
    target_password_env: TargetEnv = None,
    source_password: SourceFile = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowInline = False,
    json: Json = False,
) -> None:
    """Plan a migration: a dry run that writes to neither side.

    \b
    Example: dblens migrate plan sqlite:///shop.db postgresql://me@localhost/shop --json > plan.json
             dblens migrate plan shop warehouse
    """
    from dblens.migrate import model
    from dblens.migrate.link import is_address
    from dblens.migrate.options import parse_rule
    from dblens.transfer.mask import key_id

    key = _mask_key(mask_key_env)
    options = _options(
        {
            "tables": table,
            "exclude": exclude,
            "namespaces": namespace,
            "into": into,
            "content": content,
            "existing": existing,
            "conflict": conflict,
            "children": child_table,
            "embed": embed,
            "create_target": create_target,
            "mode": mode,
            "jobs": jobs,
            "chunk_rows": chunk_rows,
        }
    )
    stored = not (is_address(source) or is_address(target))
    name = key_id(key.reveal().encode()) if key else None
    rules = tuple(parse_rule(text, name, keyed=stored) for text in rule or ())
    options = msgspec.structs.replace(options, rules=rules)
    left = _link(source, "source", source_password_env, source_password, allow_password_in_url)
    right = _link(target, "target", target_password_env, target_password, allow_password_in_url)
    with reporting() as report:
        made = dblens.open(report=report).migrations.plan(left, right, options)
    if json:
        output.write(model.write(made) + "\n")
    else:
        from dblens.cli.plan_text import show_plan

        show_plan(made)
        if stored:
            output.note(f"kept; apply it: dblens migrate apply {made.id} --hash {made.hash}")


@app.command()
def apply(
    plan: PlanFile,
    hash: PlanHash = None,
    accept: Accept = "",
    mask_key_env: MaskKeyEnv = None,
    source_password_env: SourceEnv = None,
    target_password_env: TargetEnv = None,
    source_password: SourceFile = None,
    target_password: TargetFile = None,
    json: Json = False,
) -> None:
    """Apply a plan: copy, build keys, verify every row, swap.

    \b
    Exit code 0: done; 11: done, with objects excluded (listed); 7: stale, edited or unaccepted plan; 8: rows differ (undone).
    Example: dblens migrate apply plan.json --accept all
             dblens migrate apply 4b6f884b0e --hash e57a962e8701…
    """
    given = (source_password_env, source_password), (target_password_env, target_password)
    with reporting() as report:
        ws = dblens.open(report=report)
        outcome = ws.migrations.apply(
            **_planned(ws, plan, hash, *given),
            accept=[a for a in accept.split(",") if a],
            mask_key=_mask_key(mask_key_env),
        )
    _finish(outcome, json)


@app.command()
def verify(
    plan: PlanFile,
    hash: PlanHash = None,
    mask_key_env: MaskKeyEnv = None,
    source_password_env: SourceEnv = None,
    target_password_env: TargetEnv = None,
    source_password: SourceFile = None,
    target_password: TargetFile = None,
    json: Json = False,
) -> None:
    """Compare the tables of an applied plan with their source again, row by row, as the plan says.

    \b
    Exit code 0: equal; 8: they differ.
    Example: dblens migrate verify plan.json
    """
    from dblens.cli.plan_text import show_verdicts

    given = (source_password_env, source_password), (target_password_env, target_password)
    with reporting() as report:
        ws = dblens.open(report=report)
        found = ws.migrations.verify_plan(**_planned(ws, plan, hash, *given), mask_key=_mask_key(mask_key_env))
    if json:
        show.document(found)
    else:
        show_verdicts(found.verdicts)
        show.listing("equal" if found.equal else "NOT EQUAL", found.notes)
    if not found.equal:
        raise typer.Exit(VerificationFailed.exit)


@app.command()
def resume(
    source: Source,
    target: Destination,
    run: Run = None,
    relaxed: Annotated[
        bool,
        typer.Option("--relaxed/--strict", help="relaxed keeps committed chunks and reconciles; strict copies again."),
    ] = False,
    mask_key_env: MaskKeyEnv = None,
    source_password_env: SourceEnv = None,
    target_password_env: TargetEnv = None,
    source_password: SourceFile = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowInline = False,
    json: Json = False,
) -> None:
    """Go on with a migration that stopped.

    \b
    Example: dblens migrate resume sqlite:///shop.db postgresql://me@localhost/shop
    """
    left = _link(source, "source", source_password_env, source_password, allow_password_in_url)
    right = _link(target, "target", target_password_env, target_password, allow_password_in_url)
    with reporting() as report:
        outcome = dblens.open(report=report).migrations.resume(
            left,
            right,
            run,
            mode="relaxed" if relaxed else "strict",
            mask_key=_mask_key(mask_key_env),
        )
    _finish(outcome, json)


@app.command()
def rollback(
    target: Destination,
    run: Run = None,
    discard_changes: Annotated[
        bool, typer.Option("--discard-changes", help="Also when the target was written since the swap.")
    ] = False,
    target_password_env: TargetEnv = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowInline = False,
    json: Json = False,
) -> None:
    """Bring the target back to where it was before the migration.

    \b
    Example: dblens migrate rollback postgresql://me@localhost/shop
    """
    right = _link(target, "target", target_password_env, target_password, allow_password_in_url)
    with reporting() as report:
        done = dblens.open(report=report).migrations.rollback(right, run, discard_changes=discard_changes)
    show.result({"id": done, "state": "rolled_back"}, f"rolled back {done}: the target is as before", as_json=json)


@app.command()
def finalize(
    target: Destination,
    run: Run = None,
    target_password_env: TargetEnv = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowInline = False,
    json: Json = False,
) -> None:
    """Drop the replaced tables and everything the migration kept; there is no way back after that.

    \b
    Example: dblens migrate finalize postgresql://me@localhost/shop
    """
    right = _link(target, "target", target_password_env, target_password, allow_password_in_url)
    with reporting() as report:
        done = dblens.open(report=report).migrations.finalize(right, run)
    show.result({"id": done, "state": "finalized"}, f"finalized {done}: the old copy is gone", as_json=json)


@app.command()
def status(
    target: Destination,
    target_password_env: TargetEnv = None,
    target_password: TargetFile = None,
    allow_password_in_url: AllowInline = False,
    json: Json = False,
) -> None:
    """Show the migrations that a target knows.

    \b
    Example: dblens migrate status postgresql://me@localhost/shop
    """
    right = _link(target, "target", target_password_env, target_password, allow_password_in_url)
    found = dblens.open().migrations.status(right)
    if json:
        show.document(found)
        return
    show.section(
        "Migrations",
        ("id", "state", "from", "tables", "rows", "chunks", "by", "last sign"),
        [
            (s.id, s.state, s.source, s.tables, s.rows, f"{s.chunks_done}/{s.chunks}", s.holder, s.beat_at)
            for s in found
        ],
        empty="the target knows no migration",
    )


@app.command()
def notebook(
    source: Annotated[str | None, typer.Argument(help="Connection, or URL, of the source.", metavar="[SRC]")] = None,
    target: Annotated[str | None, typer.Argument(help="Connection, or URL, of the target.", metavar="[DST]")] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Where the executed notebook goes.")] = Path(
        "migration.ipynb"
    ),
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Recompute an executed notebook instead of running one."),
    ] = None,
    sign: Annotated[bool, typer.Option("--sign", help="Sign the executed notebook with the store's key.")] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="With --check: it must be signed by one of these public keys."),
    ] = None,
    export_key: Annotated[
        Path | None, typer.Option("--export-key", metavar="FILE", help="Write the store's public keys, for --key.")
    ] = None,
    accept: Accept = "",
    existing: Annotated[
        Literal["refuse", "append", "replace"],
        typer.Option("--existing", help="When the target has the table already."),
    ] = "refuse",
    create_target: Annotated[bool, typer.Option("--create-target", help="Make the target database.")] = False,
    mask_key_env: MaskKeyEnv = None,
    source_password_env: SourceEnv = None,
    target_password_env: TargetEnv = None,
    json: Json = False,
) -> None:
    """Run a migration as a notebook whose executed copy is the evidence, or check such a copy.

    --check ends with 0 when all is as it was executed, 7 when an unsigned notebook was altered, 9 when its signature is wrong, or,
    with --key, when none of those keys signed it.

    \b
    Example: dblens migrate notebook sqlite:///shop.db postgresql://me@localhost/shop -o proof.ipynb --sign
             dblens migrate notebook --check proof.ipynb
             dblens migrate notebook --export-key public.json
             dblens migrate notebook --check proof.ipynb --key public.json
    """
    from dblens.migrate import notebook as notebooks
    from dblens.migrate.link import is_address

    if check is not None:
        signing.check(check, key, as_json=json)
        return
    if key is not None:
        raise InvalidInput("--key goes with --check", hint="dblens migrate notebook --check FILE --key FILE")
    if export_key is not None:
        ids = signing.export(export_key)
        show.result({"file": str(export_key), "keys": ids}, f"{export_key}: {', '.join(ids)}", as_json=json)
        if source is None:
            return
    if source is None or target is None:
        raise InvalidInput(
            "SRC and DST are missing", hint="dblens migrate notebook SRC DST -o out.ipynb, or --check FILE"
        )
    environment: dict[str, str] = {}
    parameters: dict[str, Any] = {
        "source": source,
        "target": target,
        "accept": [a for a in accept.split(",") if a],
        "options": {"existing": existing, "create_target": create_target},
        "mask_key_env": mask_key_env or "",
    }
    for side, url, env in (("source", source, source_password_env), ("target", target, target_password_env)):
        password = passwords.address(url, side, passwords.Given(env))[1] if is_address(url) else None
        if password is not None:
            name = env or f"DBLENS_{side.upper()}_PASSWORD"
            environment[name] = password
            parameters[f"{side}_password_env"] = name
    made = notebooks.run(parameters, out, environment=environment, sign=signing.store_key() if sign else None)
    word = "every row equal" if made.equal else "NOT EQUAL"
    show.result(msgspec.to_builtins(made), f"{word}; the evidence is {out}", as_json=json)
    if made.exclusions:
        raise typer.Exit(DONE_WITH_EXCLUSIONS)


plans.attach(app)


def _finish(outcome: Any, json: bool) -> None:
    if json:
        show.document(outcome)
    else:
        from dblens.cli.plan_text import show_outcome

        show_outcome(outcome)
    if outcome.exclusions:
        raise typer.Exit(DONE_WITH_EXCLUSIONS)
