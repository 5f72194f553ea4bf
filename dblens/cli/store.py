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

    Nor is a service's audit key in it (`DBLENS_AUDIT_KEY_FILE`): without that the restored audit can be read, but neither proven
    nor continued. Alone on a laptop it is, sealed by the key-encryption key.
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


@app.command(
    epilog="Examples:\n\n`dblens store rotate --kek --new` (alone on a laptop)\n\n"
    "`DBLENS_KEK_FILE=/run/secrets/dblens-kek dblens store rotate --kek` (the new key is in the first line already)\n\n"
    "`dblens store rotate --dek acme`\n\n`dblens store rotate --signing`\n\n`dblens store rotate --login`"
)
def rotate(
    organization: Annotated[
        str | None, typer.Argument(help="With --dek: this organization only, its id or short name; else all of them.")
    ] = None,
    *,
    kek: Annotated[bool, typer.Option("--kek", help="Wrap everything with the first key-encryption key.")] = False,
    new: Annotated[
        bool, typer.Option("--new", help="With --kek: first make a new key, before the others in the key file.")
    ] = False,
    dek: Annotated[
        bool, typer.Option("--dek", help="Give organizations new data keys, seal their secrets anew.")
    ] = False,
    signing: Annotated[bool, typer.Option("--signing", help="Make a new key that signs, destroy the old one.")] = False,
    login: Annotated[bool, typer.Option("--login", help="Make a new key that signs logins' access tokens.")] = False,
    json: Json = False,
) -> None:
    """Rotate keys while the store is in use. Say which: --kek, --dek, --signing or --login. No secret is lost when it is cut short: repeat it.

    --kek: the key-encryption key lies outside of the store and wraps the data keys. In this order, for a service:

    1. make a key, and put it FIRST in the list of every process (`DBLENS_KEK_FILE`: a key to a line; the old one stays second);
    2. start every process again: one that still has only the old key is refused after step 3, says so, and loses nothing;
    3. `dblens store rotate --kek`; what the old key wrapped is wrapped by the new one, and the old one never wraps again;
    4. put a copy of the NEW key where you keep such copies (a safe, another vault), and not beside the backups of the store.

    Keep the OLD key as long as you keep backups from before step 3: they open with it and with nothing else. Whoever has a backup
    and its key has every password; who has lost the key has lost every secret in the store, and nobody can bring it back.

    --dek: use it when somebody may have seen a data key, or by calendar. No process needs anything new.

    --signing: what the old key signed stays provable, its public part is kept; nobody can sign with it any more.

    --login: the access tokens of logins (ten minutes each) are signed with a new key; the public part of the last one is kept, so
    nobody is logged out. Twice in a row, when somebody may have seen the key: then tokens from before are refused.

    The key of the audit's chain is not rotated: the chain is proven with the one key that it was written with.
    """
    if sum((kek, dek, signing, login)) != 1:
        raise InvalidInput("which key?", hint="one of --kek, --dek, --signing, --login")
    if (organization is not None and not dek) or (new and not kek):
        raise InvalidInput(
            "what was given belongs to another rotation", hint="an organization to --dek, --new to --kek"
        )
    if new:
        _add_key()
    from dblens.cli import rotation

    done = rotation.rotate("kek" if kek else "dek" if dek else "signing" if signing else "login", organization)
    if json:
        output.json(done)
    else:
        output.lines([(done.told, "green")])
    if kek:
        output.note("note: keep a copy of the new key, and the old key as long as backups from before this are kept")
        output.note(
            "note: a process that has only the old key is refused from now on: start it again with the new list"
        )


def _add_key() -> None:
    from dblens.settings import load
    from dblens.store import keys

    settings = load()
    if settings.kek is not None or settings.kek_keyring is not None:
        raise InvalidInput(
            "--new makes a key in a key file, and the key comes from elsewhere",
            hint="put the new key first in DBLENS_KEK or the keyring's entry, then leave --new out",
        )
    file = settings.kek_file or settings.data_folder / "kek"
    made = keys.add_key(file)
    output.note(f"note: {file} begins with the new key {made.first.id!r}")


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
