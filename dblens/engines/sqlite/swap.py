"""Showing what a run built, and taking it back.

Where nothing was (no file, or one of 0 octets), the partial file itself takes the target's name: one link or rename. Where a database
lies, the staged tables are copied into it in one transaction while the replaced ones are renamed: readers and writers of the file see the
old or the new, whatever crashes, and everything else in the file stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import msgspec

from dblens.engines.base import Move, RunRecord
from dblens.engines.sqlite.ddl import OWN, previous, quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.files import Files, State, remove, sync
from dblens.engines.sqlite.load import LEDGER
from dblens.errors import Conflict, DBLensError, EngineError, QueryFailed
from dblens.events import Progress, Report

STAGED = "dblens_staged"
"""Name under which the partial file is attached."""


class Note(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the live file remembers of a table that a run changed: enough to undo it."""

    previous: str | None = None
    objects: tuple[str, ...] = ()
    create: str | None = None
    inserted: int = 0
    updated: int = 0
    skipped: int = 0
    sequence: int | None = None
    before: str | None = None
    after: str | None = None


def memory(run: str) -> str:
    """Return the name of the live file's table of notes on a run."""
    return f"{OWN}run_{run}"


@contextlib.contextmanager
def opened(path: str, staged: str | None = None) -> Iterator[Db]:
    """Open the live file for changes of its schema; foreign keys and renames by reference are off."""
    db = Db(path)
    try:
        db.run("PRAGMA foreign_keys = OFF")
        db.run("PRAGMA legacy_alter_table = ON")
        if staged is not None:
            db.run(f"ATTACH DATABASE ? AS {STAGED}", (staged,))
        yield db
    finally:
        db.close()


def notes(db: Db, run: str, kind: str) -> dict[str, Note]:
    """Return the notes of one kind (`moved`, `merged`) by table."""
    if not exists(db, memory(run)):
        return {}
    rows = db.rows(f"SELECT name, note FROM main.{quote(memory(run))} WHERE kind = ? ORDER BY rowid", (kind,))
    return {name: msgspec.json.decode(note, type=Note) for name, note in rows}


def remember(db: Db, run: str, kind: str, name: str, note: Note) -> None:
    """Add a note, in the transaction of the change."""
    db.run(
        f"CREATE TABLE IF NOT EXISTS main.{quote(memory(run))} (kind TEXT, name TEXT, note TEXT, PRIMARY KEY (kind, name))"
    )
    db.run(f"INSERT INTO main.{quote(memory(run))} VALUES (?, ?, ?)", (kind, name, msgspec.json.encode(note).decode()))


def forget(db: Db, run: str, kind: str, name: str) -> None:
    """Delete a note, in the transaction of the undoing."""
    db.run(f"DELETE FROM main.{quote(memory(run))} WHERE kind = ? AND name = ?", (kind, name))


def exists(db: Db, name: str, schema: str = "main") -> bool:
    """Tell whether a table or view is there."""
    return bool(
        db.one(
            f"SELECT 1 FROM {schema}.sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = lower(?)", (name,)
        )
    )


def sources(
    db: Db, name: str, schema: str = "main", kinds: Sequence[str] = ("index", "trigger")
) -> list[tuple[str, str, str]]:
    """Return kind, name and CREATE text of what belongs to a table."""
    listed = ", ".join("?" * len(kinds))
    query = (
        f"SELECT type, name, sql FROM {schema}.sqlite_schema WHERE lower(tbl_name) = lower(?) AND sql IS NOT NULL AND type IN ({listed}) "
        "ORDER BY rowid"
    )
    return [(str(a), str(b), str(c)) for a, b, c in db.rows(query, (name, *kinds))]


def columns(db: Db, name: str, schema: str = "main") -> list[str]:
    """Return a table's columns that can be written."""
    return [
        str(c)
        for (c,) in db.rows(
            "SELECT name FROM pragma_table_xinfo(?, ?) WHERE hidden IN (0, 1) ORDER BY cid", (name, schema)
        )
    ]


def sequence(db: Db, name: str, schema: str = "main") -> int | None:
    """Return a table's last AUTOINCREMENT number."""
    if not exists(db, "sqlite_sequence", schema):
        return None
    found = db.one(f"SELECT seq FROM {schema}.sqlite_sequence WHERE name = ?", (name,))
    return None if found is None else int(found)


def set_sequence(db: Db, name: str, value: int | None) -> None:
    """Set a table's last AUTOINCREMENT number."""
    if exists(db, "sqlite_sequence"):
        db.run("DELETE FROM main.sqlite_sequence WHERE name = ?", (name,))
        if value is not None:
            db.run("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)", (name, value))


# ------------------------------------------------------------------------------------------------------------------ publishing


def publish(files: Files, state: State) -> None:
    """Give the complete partial file the target's name. May be called again after a crash at any point of it."""
    partial, target = files.partial(state.record.id), files.target
    if os.path.exists(partial):
        if os.path.exists(target) and os.path.samefile(partial, target):
            os.unlink(partial)
        else:
            db = Db(partial)
            try:
                db.run(f"DROP TABLE IF EXISTS main.{quote(LEDGER)}")
                db.one("PRAGMA journal_mode = DELETE")
                found = db.one("PRAGMA main.quick_check(1)")
            finally:
                db.close()
            if found != "ok":
                raise EngineError(
                    f"the file built at {partial} is damaged: {found}", hint="check the disk, and resume --strict"
                )
            sync(partial)
            _show(partial, target, state)
    elif not os.path.exists(target):
        raise EngineError(
            f"neither {partial} nor {target} is there", hint="somebody deleted them: roll back and migrate again"
        )
    sync(files.folder)


def _show(partial: str, target: str, state: State) -> None:
    if state.before == "empty":
        if os.path.exists(target) and os.path.getsize(target):
            raise _taken(target)
        os.replace(partial, target)
        return
    try:
        os.link(partial, target)  # unlike a rename, it never replaces what somebody else made meanwhile
        os.unlink(partial)
    except FileExistsError as error:
        raise _taken(target) from error
    except OSError as error:  # a file system without hard links
        if os.path.exists(target):
            raise _taken(target) from error
        os.rename(partial, target)


def _taken(target: str) -> Conflict:
    return Conflict(f"{target} was made by somebody else during the run", hint="move it away and resume, or roll back")


def unpublish(files: Files, state: State, moves: Sequence[Move]) -> None:
    """Take the published file away again; only its tables when others were made in it since."""
    partial, target = files.partial(state.record.id), files.target
    if not os.path.exists(partial) and os.path.exists(target) and os.path.getsize(target):
        with opened(target) as db:
            mine = {m.live[1].lower() for m in moves}
            listed = "SELECT name, tbl_name FROM main.sqlite_schema WHERE type IN ('table', 'view', 'trigger')"
            others = [
                str(name)
                for name, owner in db.rows(listed)
                if str(owner).lower() not in mine and not str(name).lower().startswith(("sqlite_", OWN))
            ]
            if others:
                with db.transaction():
                    for move in moves:
                        db.run(f"DROP TABLE IF EXISTS {where_is(move.live)}")
                return
            mode = db.one("PRAGMA journal_mode = DELETE")
        if mode != "delete" and os.path.exists(target + "-wal"):
            raise Conflict(f"{target} is in use by another process", hint="close it there, and roll back again")
        os.rename(target, partial)
    if state.before == "empty" and not os.path.exists(target):
        with open(target, "xb"):
            pass
    sync(files.folder)


# -------------------------------------------------------------------------------------------------------------- in the live file


def replace(files: Files, record: RunRecord, moves: Sequence[Move], report: Report) -> None:
    """Copy the staged tables into the live file and put the replaced ones aside, in one transaction."""
    with opened(files.target, files.partial(record.id)) as db:
        if notes(db, record.id, "moved"):
            return  # committed before a crash
        with db.transaction():
            views = _working_views(db)
            names = {m.live[1].lower() for m in moves}
            orphans = _outside_orphans(db, names)
            for i, move in enumerate(moves):
                report(Progress("swap", i, len(moves), "tables"))
                _put_aside(db, record.id, move)
            for move in moves:
                _copy_in(db, move.live[1])
            broken = sorted(views - _working_views(db))
            if broken:
                raise Conflict(
                    f"the view {broken[0]!r} would no longer work with the new tables",
                    hint="drop or change it, or leave the table's shape as it is; nothing was changed",
                )
            for name, count in _outside_orphans(db, names).items():
                if count > orphans.get(name, 0):
                    raise Conflict(
                        f"{count} rows of {name!r}, which is not part of the migration, would refer to nothing",
                        hint="take the table along, or clean it; nothing was changed",
                    )


def _put_aside(db: Db, run: str, move: Move) -> None:
    name = move.live[1]
    if not exists(db, name):
        remember(db, run, "moved", name, Note())
        return
    kept = sources(db, name)
    for kind, own, _ in kept:
        db.run(f"DROP {kind.upper()} main.{quote(own)}")
    aside = previous(move.live, run)[1]
    objects = tuple(sql for _, _, sql in kept)
    try:
        db.run(f"ALTER TABLE main.{quote(name)} RENAME TO {quote(aside)}")
    except QueryFailed:
        # A check or computed column that names its own table cannot be renamed without views being rewritten too: keep the rows.
        ((_, _, create),) = sources(db, name, kinds=("table",))
        last = sequence(db, name)
        image = ", ".join([f"{c} AS {mark}" for c, mark in _rowid(db, name)] + [quote(c) for c in columns(db, name)])
        db.run(f"CREATE TABLE main.{quote(aside)} AS SELECT {image} FROM main.{quote(name)}")
        db.run(f"DROP TABLE main.{quote(name)}")
        remember(db, run, "moved", name, Note(previous=aside, objects=objects, create=create, sequence=last))
    else:
        remember(db, run, "moved", name, Note(previous=aside, objects=objects))


def _rowid(db: Db, name: str) -> list[tuple[str, str]]:
    """Return the name of a table's rowid, where there is one to read, and the column that keeps it in an image."""
    if db.one("SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'", (name,)):
        return []
    taken = {c.lower() for c in columns(db, name)}
    return [(alias, "_dblens_id0") for alias in ("_rowid_", "rowid", "oid") if alias not in taken][:1]


def _put_back(db: Db, name: str, note: Note) -> None:
    if note.create is None:
        db.run(f"ALTER TABLE main.{quote(note.previous or '')} RENAME TO {quote(name)}")
    else:
        db.run(note.create)
        kept = [quote(c) for c in columns(db, name)]
        into = ", ".join([c for c, _ in _rowid(db, name)] + kept)
        what = ", ".join([mark for _, mark in _rowid(db, name)] + kept)
        db.run(f"INSERT INTO main.{quote(name)} ({into}) SELECT {what} FROM main.{quote(note.previous or '')}")
        db.run(f"DROP TABLE main.{quote(note.previous or '')}")
        set_sequence(db, name, note.sequence)
    for sql in note.objects:
        db.run(sql)


def _copy_in(db: Db, name: str) -> None:
    ((_, _, create),) = sources(db, name, STAGED, ("table",))
    try:
        db.run(create)
        listed = ", ".join(map(quote, columns(db, name)))
        db.run(f"INSERT INTO main.{quote(name)} ({listed}) SELECT {listed} FROM {STAGED}.{quote(name)}")
        for _, _, sql in sources(db, name, STAGED, ("index",)):
            db.run(sql)
    except QueryFailed as error:
        raise Conflict(
            f"{name!r} cannot be put into the live file: {error.message}",
            hint="rename the object by a rule; nothing was changed",
        ) from error
    last = sequence(db, name, STAGED)
    if last is not None:
        set_sequence(db, name, last)


def _working_views(db: Db) -> set[str]:
    working = set()
    for (name,) in db.rows("SELECT name FROM main.sqlite_schema WHERE type = 'view'"):
        try:
            db.rows(f"SELECT * FROM main.{quote(str(name))} LIMIT 0")
        except DBLensError:
            continue
        working.add(str(name))
    return working


def _outside_orphans(db: Db, names: set[str]) -> dict[str, int]:
    """Return, for tables outside the swap that refer to one inside, their rows that refer to nothing."""
    query = "SELECT DISTINCT m.name, x.\"table\" FROM main.sqlite_schema m JOIN pragma_foreign_key_list(m.name, 'main') x WHERE m.type = 'table'"
    outside = {str(n) for n, parent in db.rows(query) if str(parent).lower() in names and str(n).lower() not in names}
    return {n: orphan_count(db, n) for n in sorted(outside) if not n.startswith(OWN)}


def orphan_count(db: Db, name: str) -> int:
    """Return how many references of a table lead nowhere; a mismatched key counts as more than any number of rows."""
    try:
        return len(db.rows(f"PRAGMA main.foreign_key_check({quote(name)})"))
    except QueryFailed:
        return 1 << 62


def restore(files: Files, record: RunRecord) -> None:
    """Undo `replace` in one transaction: the new tables are dropped, the old ones are what they were."""
    if files.before() != "present":
        return
    with opened(files.target) as db:
        moved = notes(db, record.id, "moved")
        if not moved:
            return
        with db.transaction():
            for name in moved:
                db.run(f"DROP TABLE IF EXISTS main.{quote(name)}")
            for name, note in moved.items():
                if note.previous is not None:
                    _put_back(db, name, note)
                forget(db, record.id, "moved", name)


def clean(files: Files, record: RunRecord) -> None:
    """Drop what a run keeps in the live file: replaced tables, pre-images, notes."""
    if files.before() != "present":
        return
    with opened(files.target) as db:
        if not exists(db, memory(record.id)):
            return
        with db.transaction():
            for note in notes(db, record.id, "moved").values():
                if note.previous is not None:
                    db.run(f"DROP TABLE IF EXISTS main.{quote(note.previous)}")
            for note in notes(db, record.id, "merged").values():
                for name in (note.before, note.after):
                    if name is not None:
                        db.run(f"DROP TABLE IF EXISTS main.{quote(name)}")
            db.run(f"DROP TABLE main.{quote(memory(record.id))}")


__all__ = ["Note", "clean", "publish", "remove", "replace", "restore", "unpublish"]
