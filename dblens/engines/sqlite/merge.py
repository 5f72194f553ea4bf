"""Appending staged rows to a live table in one transaction, with images before and after so that it can be undone."""

from __future__ import annotations

from collections.abc import Sequence

from dblens.engines.base import ConflictRule, MergeCounts, Place, RunRecord
from dblens.engines.sqlite import swap
from dblens.engines.sqlite.ddl import OWN, quote
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.files import Files
from dblens.engines.sqlite.swap import STAGED, Note
from dblens.errors import Conflict, Irreversible, NotFound, QueryFailed


def _identity(db: Db, name: str) -> list[str]:
    """Return what identifies a row of the live table: its rowid, else its primary key; quoted."""
    if not db.one("SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'", (name,)):
        taken = {c.lower() for c in swap.columns(db, name)}
        alias = next((a for a in ("_rowid_", "rowid", "oid") if a not in taken), None)
        if alias is not None:
            return [alias]
    rows = db.rows("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE pk > 0 ORDER BY pk", (name,))
    return [quote(str(n)) for (n,) in rows]


def merge(
    files: Files,
    record: RunRecord,
    staged: Place,
    live: Place,
    names: Sequence[str],
    key: Sequence[str],
    rule: ConflictRule,
) -> MergeCounts:
    """Append rows; `names` are the columns moved, `key` those that tell whether a row is there already."""
    name = live[1]
    with swap.opened(files.target, files.partial(record.id)) as db:
        done = swap.notes(db, record.id, "merged").get(name)
        if done is not None:
            return MergeCounts(inserted=done.inserted, updated=done.updated, skipped=done.skipped)
        if not swap.exists(db, name):
            raise NotFound(f"no table {name!r} in {files.target}", hint="it was dropped since the plan: plan again")
        with db.transaction():
            return _merge(db, record.id, staged[1], name, names, key, rule)


def _merge(
    db: Db, run: str, staged: str, name: str, names: Sequence[str], key: Sequence[str], rule: ConflictRule
) -> MergeCounts:
    here, there = f"main.{quote(name)}", f"{STAGED}.{quote(staged)}"
    listed = ", ".join(map(quote, names))
    triggers = swap.sources(db, name, kinds=("trigger",))
    orphans = swap.orphan_count(db, name)
    last = swap.sequence(db, name)
    for _, own, _ in triggers:
        db.run(f"DROP TRIGGER main.{quote(own)}")
    same = " AND ".join(f"l.{quote(k)} = s.{quote(k)}" for k in key)
    total = int(db.one(f"SELECT count(*) FROM {there}"))
    clash = (
        int(db.one(f"SELECT count(*) FROM {there} s WHERE EXISTS (SELECT 1 FROM {here} l WHERE {same})")) if key else 0
    )
    if clash and rule == "error":
        shown = ", ".join(f"dblens_as_text(s.{quote(k)})" for k in key)
        sample = db.rows(f"SELECT {shown} FROM {there} s WHERE EXISTS (SELECT 1 FROM {here} l WHERE {same}) LIMIT 1")[0]
        raise Conflict(
            f"{clash} of {total} rows have a key that {name!r} already has, for example {', '.join(map(str, sample))}",
            hint="choose --conflict skip or update; nothing was written",
        )
    before = after = None
    identity = _identity(db, name)
    marks = [f"_dblens_id{i}" for i in range(len(identity))]
    images = swap.columns(db, name)
    image = ", ".join([f"{c} AS {m}" for c, m in zip(identity, marks, strict=True)] + [quote(c) for c in images])
    updated = 0
    if clash and rule == "update":
        before = f"{OWN}{run}_before_{name}"
        db.run(
            f"CREATE TABLE main.{quote(before)} AS SELECT {image} FROM {here} l WHERE EXISTS (SELECT 1 FROM {there} s WHERE {same})"
        )
        changed = [n for n in names if n not in key]
        if changed:
            sets = ", ".join(f"{quote(n)} = s.{quote(n)}" for n in changed)
            updated = _run(db, name, f"UPDATE {here} AS l SET {sets} FROM {there} AS s WHERE {same}")
        else:
            updated = clash
    news = f"{OWN}{run}_new_{name}"
    db.run(f"CREATE TABLE main.{quote(news)} ({', '.join(marks)})")
    fresh = f" WHERE NOT EXISTS (SELECT 1 FROM {here} l WHERE {same})" if key else ""
    with_ids = _returned(
        db, name, f"INSERT INTO {here} ({listed}) SELECT {listed} FROM {there} s{fresh} RETURNING {', '.join(identity)}"
    )
    db.many(f"INSERT INTO main.{quote(news)} VALUES ({', '.join('?' * len(marks))})", with_ids)
    after = f"{OWN}{run}_after_{name}"
    joined = " AND ".join(f"n.{m} IS l.{c}" for c, m in zip(identity, marks, strict=True))
    db.run(
        f"CREATE TABLE main.{quote(after)} AS SELECT {_of('l', identity, marks, images)} FROM main.{quote(news)} n JOIN {here} l ON {joined}"
    )
    if before is not None:
        db.run(
            f"INSERT INTO main.{quote(after)} SELECT {_of('l', identity, marks, images)} FROM main.{quote(before)} n JOIN {here} l ON {joined}"
        )
    db.run(f"DROP TABLE main.{quote(news)}")
    if swap.orphan_count(db, name) > orphans:
        raise Conflict(
            f"appended rows of {name!r} refer to nothing", hint="append the referred rows first; nothing was written"
        )
    for _, _, sql in triggers:
        db.run(sql)
    counts = MergeCounts(inserted=len(with_ids), updated=updated, skipped=clash if rule == "skip" else 0)
    note = Note(
        inserted=counts.inserted, updated=counts.updated, skipped=counts.skipped, sequence=last, before=before, after=after,
        objects=tuple(sql for _, _, sql in triggers),
    )  # fmt: skip
    swap.remember(db, run, "merged", name, note)
    return counts


def _of(alias: str, identity: Sequence[str], marks: Sequence[str], images: Sequence[str]) -> str:
    ids = [f"{alias}.{c} AS {m}" for c, m in zip(identity, marks, strict=True)]
    return ", ".join(ids + [f"{alias}.{quote(c)} AS {quote(c)}" for c in images])


def _run(db: Db, name: str, statement: str) -> int:
    try:
        return db.run(statement)
    except QueryFailed as error:
        raise Conflict(f"{name!r} refuses the rows: {error.message}", hint="nothing was written") from error


def _returned(db: Db, name: str, statement: str) -> list[tuple[object, ...]]:
    try:
        return db.rows(statement)
    except QueryFailed as error:
        raise Conflict(f"{name!r} refuses the rows: {error.message}", hint="nothing was written") from error


def unmerge(files: Files, record: RunRecord, name: str, *, force: bool) -> None:
    """Undo a merge. Raises Irreversible when its rows were changed or deleted since, unless `force`."""
    if files.before() != "present":
        return
    with swap.opened(files.target) as db:
        note = swap.notes(db, record.id, "merged").get(name)
        if note is None or note.after is None:
            return
        with db.transaction():
            _unmerge(db, record.id, name, note, force)


def _unmerge(db: Db, run: str, name: str, note: Note, force: bool) -> None:
    here, after = f"main.{quote(name)}", f"main.{quote(note.after or '')}"
    identity = _identity(db, name)
    marks = [f"_dblens_id{i}" for i in range(len(identity))]
    images = swap.columns(db, name)
    joined = " AND ".join(f"n.{m} IS l.{c}" for c, m in zip(identity, marks, strict=True))
    kept = {str(c) for c in swap.columns(db, note.after or "")}
    if not force:
        # The image's columns stand on the left: they have no collation of their own, so 'a' is not 'A'.
        equal = " AND ".join(
            f"(n.{quote(c)} IS l.{quote(c)} AND typeof(n.{quote(c)}) = typeof(l.{quote(c)}))"
            for c in images
            if c in kept
        )
        changed = int(
            db.one(
                f"SELECT count(*) FROM {after} n WHERE NOT EXISTS (SELECT 1 FROM {here} l WHERE {joined} AND {equal or '1'})"
            )
        )
        if changed or not set(images) <= kept:
            raise Irreversible(
                f"{changed} rows that were appended to {name!r} were changed or deleted since",
                hint="keep them (`dblens migrate finalize`), or lose those changes with --discard-changes",
            )
    triggers = swap.sources(db, name, kinds=("trigger",))
    for _, own, _ in triggers:
        db.run(f"DROP TRIGGER main.{quote(own)}")
    ids = identity[0] if len(identity) == 1 else f"({', '.join(identity)})"
    db.run(f"DELETE FROM {here} WHERE {ids} IN (SELECT {', '.join(marks)} FROM {after})")
    if note.before is not None:
        common = [c for c in images if c in set(swap.columns(db, note.before))]
        with_id = identity[0] in ("_rowid_", "rowid", "oid")
        into = ", ".join(([identity[0]] if with_id else []) + [quote(c) for c in common])
        what = ", ".join((marks if with_id else []) + [quote(c) for c in common])
        db.run(f"INSERT INTO {here} ({into}) SELECT {what} FROM main.{quote(note.before)}")
        db.run(f"DROP TABLE main.{quote(note.before)}")
    for _, _, sql in triggers:
        db.run(sql)
    swap.set_sequence(db, name, note.sequence)
    db.run(f"DROP TABLE {after}")
    swap.forget(db, run, "merged", name)


def unmerge_all(files: Files, record: RunRecord) -> None:
    """Undo whatever merges of a run are left, rows changed since included: the run ends as if it had never been."""
    if files.before() != "present":
        return
    with swap.opened(files.target) as db:
        names = list(swap.notes(db, record.id, "merged"))
    for name in names:
        unmerge(files, record, name, force=True)
