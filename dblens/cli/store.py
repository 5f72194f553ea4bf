"""`dblens store`: make, upgrade, look over, back up and restore the place where DBLens keeps its own things."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dblens.cli import output
from dblens.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from dblens.store.database import Store
    from dblens.store.upgrade import Moved

app = typer.Typer(
    no_args_is_help=True,
    help="Look after the store: connections, accounts, runs, audit. `DBLENS_STORE_URL` says where it lies.",
)

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


@app.command(
    epilog="Examples:\n\n`dblens store upgrade`\n\n`DBLENS_STORE_URL=postgresql://dblens@db/dblens dblens store upgrade`"
)
def upgrade(*, json: Json = False) -> None:
    """Make the store, or bring it to the revision that this DBLens needs. A second process that does it too waits."""
    from dblens.store.upgrade import upgrade as go

    with closing(_open()) as store:
        _moved(store, go(store), json=json)


@app.command(
    epilog="Examples:\n\n`dblens store downgrade 0001 --yes`\n\n`dblens store downgrade base --yes` (drops everything)"
)
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, or `base`: no tables at all.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Go back to an older revision, for an older DBLens. What the newer one kept in newer tables is lost: back up first."""
    from dblens.store.upgrade import downgrade as go

    with closing(_open(create=False)) as store:
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput("a downgrade throws data away", hint="back the store up, then add --yes")
            typer.confirm(f"Throw away what {store.place} has since {revision}?", abort=True, err=True)
        _moved(store, go(store, revision), json=json)


@app.command(
    epilog="Examples:\n\n`dblens store check`\n\n`dblens store check --json | jq '.findings[] | select(.ok | not)'`"
)
def check(*, json: Json = False) -> None:
    """Look at the store's revision, tables, pages, references and file modes.

    \b
    Exit code 0: sound; 10: something is wrong, and said.
    """
    from dblens.store.upgrade import check as look
    from dblens.store.upgrade import current

    with closing(_open(create=False)) as store:
        findings = look(store)
        if json:
            output.json({"place": store.place, "revision": current(store), "findings": findings})
        else:
            output.table(["what", "ok", "detail"], [(f.what, "yes" if f.ok else "NO", f.detail) for f in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(StoreError.exit)


@app.command(
    epilog="Examples:\n\n`dblens store backup /backups/dblens-2026-11-23.store`\n\n`dblens store backup laptop.store --json`"
)
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist. Only you can read it.")],
    *,
    json: Json = False,
) -> None:
    """Copy the whole store into one file while it is in use; the file restores into SQLite and PostgreSQL alike.

    The key-encryption key is NOT in it. Without that key every secret kept in the store is lost: passwords of connections, SSH
    keys, mail and webhook secrets. Accounts, roles, connections without passwords, runs and the audit can be read without it.
    Keep the key and the backup in two places: who has both has every password.
    """
    from dblens.store.backup import LOST_WITHOUT_KEY
    from dblens.store.backup import backup as write

    with closing(_open(create=False)) as store:
        made = write(store, file.absolute(), now=dt.datetime.now(dt.UTC))
    if json:
        output.json(made)
    else:
        rows = sum(made.tables.values())
        output.lines([(f"{made.path}: {rows} rows, {made.bytes} bytes, revision {made.revision}", "green")])
    output.note(f"note: {LOST_WITHOUT_KEY}")


@app.command(
    epilog="Examples:\n\n`dblens store restore /backups/dblens-2026-11-23.store`\n\n"
    "`DBLENS_STORE_URL=postgresql://dblens@db/dblens dblens store restore laptop.store` (from a laptop to a team)"
)
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `dblens store backup` wrote.")], *, json: Json = False
) -> None:
    """Write a backup into an empty store, all of it or nothing; every row is read back and compared."""
    from dblens.store.backup import LOST_WITHOUT_KEY
    from dblens.store.backup import restore as read

    with closing(_open()) as store:
        done = read(file.absolute(), store, fits=_fits())
    if json:
        output.json(done)
    else:
        output.lines([(f"{done.place}: {sum(done.tables.values())} rows, revision {done.revision}", "green")])
    if done.key_fits:
        output.note("note: the present key-encryption key is the one that its secrets need")
    elif done.kek_check is not None:
        present = "no key-encryption key is here" if done.key_fits is None else "another key-encryption key is here"
        output.note(f"warning: {present}, and its secrets need the one it was used with; {LOST_WITHOUT_KEY}")


def _open(*, create: bool = True) -> Store:
    from dblens.settings import load
    from dblens.store.database import Store

    return Store.open(load().store_url, create=create)


def _fits() -> Callable[[str], bool] | None:
    """Return what tries the present key on a backup's check value, None without a key; makes no key and asks no keyring."""
    from dblens.settings import load
    from dblens.store import keys

    settings = load()
    file = settings.kek_file or settings.data_folder / "kek"
    if settings.kek is not None:
        found = keys.parse(settings.kek, "DBLENS_KEK")
    elif file.exists() and settings.kek_keyring is None:
        found = keys.read_file(file)
    else:
        return None
    return lambda check: keys.fits(found, check)


def _moved(store: Store, moved: Moved, *, json: bool) -> None:
    if json:
        output.json({"place": store.place, "before": moved.before, "after": moved.after})
        return
    before, after = moved.before or "no tables", moved.after or "no tables"
    told = f"is at revision {after} already" if before == after else f"went from {before} to {after}"
    output.lines([(f"{store.place} {told}", "green")])
