"""Appending staged rows to a live table, with a pre-image that undoes it.

The staged table keeps what was appended, the pre-image what was there before under the same keys; both live until the run is closed.
Merge, pre-image and the note that it happened are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.engines.base import ConflictRule, Field, MergeCounts, Place, RunRecord
from dblens.engines.postgres.ddl import CONTROL, at, columns_text, previous, quote
from dblens.engines.postgres.link import Link
from dblens.engines.postgres.load import check_epoch, stored
from dblens.errors import Conflict, InvalidInput, Irreversible
from dblens.schema.model import Column

NUMBER = -1
"""Ledger number of a merge: chunks count from 0."""


class _Note(msgspec.Struct):
    """What `unmerge` must know of a merge."""

    staged: Place
    columns: tuple[str, ...]
    counts: MergeCounts


def merge(
    link: Link,
    record: RunRecord,
    staged: Place,
    live: Place,
    fields: Sequence[Field],
    key: Sequence[str],
    rule: ConflictRule,
) -> MergeCounts:
    """Append staged rows. Raises Conflict at the first key conflict under rule error, with nothing written."""
    columns = [stored(f) for f in fields]
    missing = [k for k in key if k not in [c.name for c in columns]]
    if missing:
        raise InvalidInput(f"the key column {missing[0]!r} of {'.'.join(live)} is not among the appended columns")
    what = f"appending to {'.'.join(live)}"
    with link.transaction(what):
        check_epoch(link, record.id, record.epoch)
        done = _note(link, record.id, live)
        if done is not None:
            return done.counts
        link.run("SET LOCAL lock_timeout TO '10s'")
        # Readers go on; writers wait, so that nothing comes between looking for conflicts and appending.
        link.run(f"LOCK TABLE {at(live)} IN SHARE ROW EXCLUSIVE MODE", what=what)
        counts = _append(link, record.id, staged, live, columns, tuple(key), rule, what)
        note = _Note(staged=staged, columns=tuple(c.name for c in columns), counts=counts)
        link.run(
            f"INSERT INTO {quote(CONTROL)}.chunk (run, namespace, name, number, keys, rows, epoch) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                record.id,
                *live,
                NUMBER,
                msgspec.json.encode(note).decode(),
                counts.inserted + counts.updated,
                record.epoch,
            ],
            what="the ledger",
        )
        _renumber(link, live, columns, what)
    return counts


def _append(
    link: Link,
    run: str,
    staged: Place,
    live: Place,
    columns: Sequence[Column],
    key: tuple[str, ...],
    rule: ConflictRule,
    what: str,
) -> MergeCounts:
    names = columns_text(c.name for c in columns)
    picked = ", ".join(f"s.{quote(c.name)}" for c in columns)
    insert = f"INSERT INTO {at(live)} ({names}) OVERRIDING SYSTEM VALUE SELECT {picked} FROM {at(staged)} s"
    if not key:
        return MergeCounts(inserted=link.run(insert, what=what))
    same = " AND ".join(f"l.{quote(k)} = s.{quote(k)}" for k in key)
    exists = f"EXISTS (SELECT 1 FROM {at(live)} l WHERE {same})"
    shown = ", ".join(f"s.{quote(k)}::text" for k in key)
    if rule == "error":
        hit = link.rows(f"SELECT {shown} FROM {at(staged)} s WHERE {exists} LIMIT 1", what=what)
        if hit:
            raise Conflict(
                f"{'.'.join(live)} has a row with the key {', '.join(map(str, hit[0]))} already",
                hint="choose --conflict skip or update, or filter those rows out; nothing was written",
            )
        return MergeCounts(inserted=link.run(insert, what=what))
    pre = previous(live, run)
    link.run(f"CREATE SCHEMA IF NOT EXISTS {quote(pre[0])}", what=what)
    link.run(
        f"CREATE TABLE {at(pre)} AS SELECT l.* FROM {at(live)} l WHERE EXISTS (SELECT 1 FROM {at(staged)} s WHERE {same})",
        what=what,
    )
    met = int(link.one(f"SELECT count(*) FROM {at(staged)} s WHERE {exists}", what=what)[0])
    inserted = link.run(f"{insert} WHERE NOT {exists}", what=what)
    if rule == "skip":
        # Rows that were there stay: the staged ones under their keys are dropped, so that undoing leaves them alone.
        old = " AND ".join(f"p.{quote(k)} = s.{quote(k)}" for k in key)
        link.run(f"DELETE FROM {at(staged)} s USING {at(pre)} p WHERE {old}", what=what)
        link.run(f"TRUNCATE {at(pre)}", what=what)
        return MergeCounts(inserted=inserted, skipped=met)
    others = [c.name for c in columns if c.name not in key]
    if not others:
        return MergeCounts(inserted=inserted, updated=met)
    changes = ", ".join(f"{quote(n)} = s.{quote(n)}" for n in others)
    old = " AND ".join(f"p.{quote(k)} = s.{quote(k)}" for k in key)
    updated = link.run(
        f"UPDATE {at(live)} l SET {changes} FROM {at(staged)} s WHERE {same} "
        f"AND EXISTS (SELECT 1 FROM {at(pre)} p WHERE {old})",
        what=what,
    )
    return MergeCounts(inserted=inserted, updated=updated)


def _renumber(link: Link, live: Place, columns: Sequence[Column], what: str) -> None:
    """Move sequences behind appended columns past what was appended, never back."""
    for column in columns:
        found = link.one("SELECT pg_get_serial_sequence($1, $2)", [at(live), column.name], what=what)
        if not found or found[0] is None:
            continue
        up, reached = link.one(
            "SELECT s.seqincrement > 0, greatest(coalesce(pg_sequence_last_value(s.seqrelid), s.seqstart), s.seqstart) FROM pg_sequence s "
            "WHERE s.seqrelid = $1::regclass",
            [found[0]],
            what=what,
        )
        extreme = link.one(
            f"SELECT {'max' if up else 'min'}({quote(column.name)})::numeric FROM {at(live)}", what=what
        )[0]
        if extreme is not None and (int(extreme) >= reached if up else int(extreme) < reached):
            link.one("SELECT setval($1::regclass, $2, true)", [found[0], int(extreme)], what=what)


def _note(link: Link, run: str, live: Place) -> _Note | None:
    row = link.one(
        f"SELECT keys FROM {quote(CONTROL)}.chunk WHERE run = $1 AND namespace = $2 AND name = $3 AND number = $4",
        [run, *live, NUMBER],
        what="the ledger",
    )
    return msgspec.json.decode(row[0], type=_Note) if row else None


def unmerge(link: Link, record: RunRecord, live: Place, key: Sequence[str], *, force: bool) -> None:
    """Undo a merge; nothing to do when it never happened. Raises Irreversible when its rows were changed since."""
    what = f"taking back what was appended to {'.'.join(live)}"
    with link.transaction(what):
        check_epoch(link, record.id, record.epoch)
        note = _note(link, record.id, live)
        if note is None:
            return
        link.run("SET LOCAL lock_timeout TO '10s'")
        link.run(f"LOCK TABLE {at(live)} IN SHARE ROW EXCLUSIVE MODE", what=what)
        if key:
            _unmerge_keyed(link, record.id, live, tuple(key), note, what, force=force)
        else:
            _unmerge_rows(link, live, note, what, force=force)
        link.run(
            f"DELETE FROM {quote(CONTROL)}.chunk WHERE run = $1 AND namespace = $2 AND name = $3 AND number = $4",
            [record.id, *live, NUMBER],
            what="the ledger",
        )


def _changed(live: Place, count: int) -> Irreversible:
    return Irreversible(
        f"{count} of the rows appended to {'.'.join(live)} were changed or deleted since",
        hint="keep them (`dblens migrate finalize`), or lose those changes with --discard-changes",
    )


def _row_text(alias: str, columns: Sequence[str]) -> str:
    return f"ROW({', '.join(f'{alias}.{quote(c)}' for c in columns)})::text"


def _unmerge_keyed(
    link: Link, run: str, live: Place, key: tuple[str, ...], note: _Note, what: str, *, force: bool
) -> None:
    staged = note.staged
    same = " AND ".join(f"l.{quote(k)} = s.{quote(k)}" for k in key)
    if not force:
        # Texts, because not every type has an equality operator (json, point, xml).
        kept = f"EXISTS (SELECT 1 FROM {at(live)} l WHERE {same} AND {_row_text('l', note.columns)} = {_row_text('s', note.columns)})"
        changed = int(link.one(f"SELECT count(*) FROM {at(staged)} s WHERE NOT {kept}", what=what)[0])
        if changed:
            raise _changed(live, changed)
    link.run(f"DELETE FROM {at(live)} l USING {at(staged)} s WHERE {same}", what=what)
    pre = previous(live, run)
    if link.one("SELECT to_regclass($1) IS NOT NULL", [at(pre)])[0]:
        plain = link.rows(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped "
            "AND attgenerated = '' ORDER BY attnum",
            [at(live)],
            what=what,
        )
        names = columns_text(n for (n,) in plain)
        link.run(f"INSERT INTO {at(live)} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {at(pre)}", what=what)
        link.run(f"DROP TABLE {at(pre)}", what=what)


def _unmerge_rows(link: Link, live: Place, note: _Note, what: str, *, force: bool) -> None:
    """Take away one equal row for each appended one of a table without a key."""
    staged = note.staged
    gone = (
        f"SELECT l.id FROM (SELECT l.ctid AS id, {_row_text('l', note.columns)} AS row, row_number() OVER "
        f"(PARTITION BY {_row_text('l', note.columns)} ORDER BY l.ctid DESC) AS n FROM {at(live)} l) l JOIN "
        f"(SELECT {_row_text('s', note.columns)} AS row, count(*) AS n FROM {at(staged)} s GROUP BY 1) s "
        "ON s.row = l.row AND l.n <= s.n"
    )
    expected = int(link.one(f"SELECT count(*) FROM {at(staged)}", what=what)[0])
    deleted = link.run(f"DELETE FROM {at(live)} WHERE ctid IN ({gone})", what=what)
    if deleted != expected and not force:
        raise _changed(live, expected - deleted)
