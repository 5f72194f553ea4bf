"""The store's key on the command line: what signs a notebook, and whose signature a notebook has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from dblens.cli import show
from dblens.errors import ArchiveCorrupt, DBLensError, InvalidInput, StalePlan

if TYPE_CHECKING:
    from dblens.migrate.evidence import Authorship, Sign
    from dblens.signature import PublicKey


def store_key() -> Sign:
    """Return what signs with the local store's key; store and key are made when there are none. Raises StoreError, VaultError."""
    from dblens.store import signing

    with _unlocked() as (store, keyring), store.write() as tx:
        return signing.signer(tx, keyring).sign


def export(file: Path) -> list[str]:
    """Write the public keys of the local store into a file; return their ids. Raises InvalidInput, StoreError, VaultError."""
    from dblens.store import signing

    with _unlocked() as (store, keyring), store.write() as tx:
        signing.signer(tx, keyring)
        document, ids = signing.export(tx, keyring), [key.id for key in signing.known(tx, keyring)]
    try:
        file.write_bytes(document + b"\n")
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}", hint="check the folder") from error
    return ids


def check(file: Path, key_file: Path | None, *, as_json: bool) -> None:
    """Tell whether an executed notebook is as it was, and who signed it. Raises typer.Exit with 7 or 9 when that is not so."""
    from dblens.migrate import notebook as notebooks

    manifest, altered = notebooks.check(file)
    author, note = _author(file, key_file)
    document = {
        "file": str(file),
        "intact": not altered and author.state != "wrong",
        "altered": altered,
        "signature": author,
        "manifest": manifest,
    }
    lines = [f"{file} was altered:", *(f"  {what}" for what in altered)] if altered else []
    if not altered and author.state != "wrong":
        lines = [f"{file} is as it was executed"]
    lines.append(_told(author) + (f" ({note})" if note else ""))
    show.result(msgspec.to_builtins(document), "\n".join(lines), as_json=as_json)
    if author.state == "wrong" or (key_file is not None and author.state != "signed"):
        raise typer.Exit(ArchiveCorrupt.exit)
    if altered:
        raise typer.Exit(StalePlan.exit)


def _author(file: Path, key_file: Path | None) -> tuple[Authorship, str]:
    """Return who signed, by the keys of a file or else the local store's, and why these could not be had."""
    from dblens.migrate import notebook as notebooks

    if key_file is not None:
        return notebooks.authorship(file, _keys(key_file)), ""
    found = notebooks.authorship(file, ())
    if found.state != "unknown":
        return found, ""
    try:
        return notebooks.authorship(file, _local_keys()), ""
    except DBLensError as error:  # the notebook is checked all the same; it is only not known whose the key is
        return found, f"no key of the local store: {error.message}"


def _told(author: Authorship) -> str:
    when = f" at {author.at:%Y-%m-%d %H:%M:%S} UTC" if author.at else ""
    return {
        "unsigned": "unsigned: nothing proves who made it",
        "signed": f"signed by key {author.key_id}, which is known,{when}",
        "unknown": f"signed by key {author.key_id}, which is UNKNOWN here: nothing proves who made it; give its key with --key",
        "wrong": f"the signature is WRONG: {author.why}",
    }[author.state]


def _keys(file: Path) -> tuple[PublicKey, ...]:
    from dblens.signature import read_keys

    try:
        return read_keys(file.read_bytes())
    except OSError as error:
        raise InvalidInput(f"cannot read the keys {file}: {error.strerror}", hint="check the path") from error


def _local_keys() -> tuple[PublicKey, ...]:
    from dblens.store import signing

    with _unlocked(create=False) as (store, keyring), store.read() as tx:
        return signing.known(tx, keyring)


@contextmanager
def _unlocked(*, create: bool = True) -> Iterator[tuple[Any, Any]]:
    from dblens.settings import load
    from dblens.store.keys import unlock
    from dblens.store.upgrade import open_store

    settings = load()
    with closing(open_store(settings.store_url, create=create)) as store:
        yield store, unlock(store, settings)
