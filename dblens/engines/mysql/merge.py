"""Append staged rows to a live table in one transaction, with a pre-image so that it can be undone.

The staged table stays until `close_run`: it is the memory of what was inserted. The pre-image table holds the live rows that were
changed (rule update) or met (rule skip), or, for a table without a key, all live rows as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dblens.engines.base import ConflictRule, Field, MergeCounts, Place, RunRecord
from dblens.engines.mysql import ddl, load
from dblens.engines.mysql.driver import Link
from dblens.engines.mysql.runs import exists
from dblens.engines.mysql.sql import quote, where_is
from dblens.errors import Conflict, Irreversible


def _places(run: str, live: Place) -> tuple[str, str]:
    """Return the quoted names of the table of merges and of the pre-image of one live table."""
    mark = hashlib.sha256("\0".join(live).encode()).hexdigest()[:24]
    return where_is(ddl.control(run, "merge")), where_is(ddl.control(run, f"pre~{mark}"))


def _plain_columns(link: Link, place: Place) -> list[str]:
    rows = link.rows(
        "select column_name, extra from information_schema.columns where table_schema = %s and table_name = %s order by ordinal_position",
        place,
    )
    texts = [(v.decode() if isinstance(v, bytes) else str(v), str(e or "").lower()) for v, e in rows]
    return [name for name, extra in texts if "virtual generated" not in extra and "stored generated" not in extra]


def _names(names: Sequence[str], alias: str = "") -> str:
    return ", ".join(f"{alias}{quote(n)}" for n in names)


def _equal(names: Sequence[str], a: str, b: str) -> str:
    return " and ".join(f"{a}.{quote(n)} <=> {b}.{quote(n)}" for n in names) or "1"


def _same(names: Sequence[str], a: str, b: str) -> str:
    """Return the condition that two rows hold the same octets (collations must not hide a change)."""
    return " and ".join(f"cast({a}.{quote(n)} as binary) <=> cast({b}.{quote(n)} as binary)" for n in names) or "1"


def merge(
    link: Link,
    record: RunRecord,
    staged: Place,
    live: Place,
    fields: Sequence[Field],
    key: Sequence[str],
    rule: ConflictRule,
) -> MergeCounts:
    """Append the staged rows; called again after its commit it returns the same counts."""
    merges, pre = _places(record.id, live)
    link.run(
        f"create table if not exists {merges} (namespace varchar(64) not null, name varchar(64) not null, rule varchar(16) not null, "
        "inserted bigint not null, updated bigint not null, skipped bigint not null, columns longtext not null, "
        "primary key (namespace, name)) engine=InnoDB character set utf8mb4 collate utf8mb4_bin"
    )
    done = link.rows(f"select inserted, updated, skipped from {merges} where namespace = %s and name = %s", live)
    if done:
        return MergeCounts(inserted=int(done[0][0]), updated=int(done[0][1]), skipped=int(done[0][2]))
    names = [(f.target or f.column).name for f in fields]
    all_names = _plain_columns(link, live)
    # DDL commits by itself: the pre-image table is made anew before the transaction begins.
    link.run(f"drop table if exists {pre}")
    link.run(f"create table {pre} as select {_names(all_names)} from {where_is(live)} where 0")
    source, target = where_is(staged), where_is(live)
    met = f"exists (select 1 from {source} s where {_equal(key, 's', 't')})" if key else "1"
    link.run("start transaction")
    try:
        kept = link.run(
            f"insert into {pre} ({_names(all_names)}) select {_names(all_names, 't.')} from {target} t where {met} for update"
        )
        if key and kept and rule == "error":
            (sample,) = link.rows(f"select {_names(key)} from {pre} limit 1")
            raise Conflict(
                f"{kept} rows of {'.'.join(live)} have a key that the new rows have too, the first: {dict(zip(key, sample, strict=True))!r}",
                hint="choose the rule skip or update, or clear those rows; nothing was written",
            )
        updated = skipped = 0
        if key and kept and rule == "update":
            others = [n for n in names if n not in key]
            if others:
                sets = ", ".join(f"t.{quote(n)} = s.{quote(n)}" for n in others)
                link.run(f"update {target} t join {source} s on {_equal(key, 't', 's')} set {sets}")
            updated = kept
        elif key and rule == "skip":
            skipped = kept
        fresh = f" where not exists (select 1 from {pre} p where {_equal(key, 'p', 's')})" if key else ""
        inserted = link.run(
            f"insert into {target} ({_names(names)}) select {_names(names, 's.')} from {source} s{fresh}"
        )
        link.run(
            f"insert into {merges} (namespace, name, rule, inserted, updated, skipped, columns) values (%s, %s, %s, %s, %s, %s, %s)",
            (*live, rule, inserted, updated, skipped, "\0".join(names)),
        )
        load.check_epoch(link, record.id, record.epoch)
        link.run("commit")
    except BaseException:
        load.rollback(link)
        raise
    return MergeCounts(inserted=inserted, updated=updated, skipped=skipped)


def unmerge(link: Link, record: RunRecord, live: Place, key: Sequence[str], force: bool) -> None:
    """Undo a merge; nothing to do when none was committed. Raises Irreversible when its rows were changed since."""
    merges_place = ddl.control(record.id, "merge")
    if not exists(link, merges_place):
        return
    merges, pre = _places(record.id, live)
    done = link.rows(f"select rule, columns from {merges} where namespace = %s and name = %s", live)
    if not done:
        return
    rule, names = str(done[0][0]), str(done[0][1]).split("\0")
    source, target = where_is(ddl.staged(live, record.id)), where_is(live)
    all_names = _plain_columns(link, live)
    link.run("start transaction")
    try:
        if not force:
            changed = (
                _changed_rows(link, source, target, pre, names, key, rule)
                if key
                else _changed_count(link, source, target, pre, names)
            )
            if changed:
                raise Irreversible(
                    f"{changed} appended rows of {'.'.join(live)} were changed or deleted since",
                    hint="keep them (finalize), or undo all the same with --discard-changes",
                )
        if key:
            fresh = f"not exists (select 1 from {pre} p where {_equal(key, 'p', 's')})"
            link.run(f"delete t from {target} t join {source} s on {_equal(key, 't', 's')} where {fresh}")
            if rule == "update":
                # Only the columns that the merge wrote go back; a row deleted since comes back whole.
                sets = ", ".join(f"t.{quote(n)} = p.{quote(n)}" for n in all_names if n not in key)
                if sets:
                    link.run(f"update {target} t join {pre} p on {_equal(key, 't', 'p')} set {sets}")
                link.run(
                    f"insert into {target} ({_names(all_names)}) select {_names(all_names, 'p.')} from {pre} p "
                    f"where not exists (select 1 from {target} t where {_equal(key, 't', 'p')})"
                )
        else:
            link.run(f"delete from {target}")
            link.run(f"insert into {target} ({_names(all_names)}) select {_names(all_names)} from {pre}")
        link.run(f"delete from {merges} where namespace = %s and name = %s", live)
        load.check_epoch(link, record.id, record.epoch)
        link.run("commit")
    except BaseException:
        load.rollback(link)
        raise


def _changed_rows(
    link: Link, source: str, target: str, pre: str, names: Sequence[str], key: Sequence[str], rule: str
) -> int:
    """Count the rows that the merge wrote and that are not as it left them."""
    written = f" where not exists (select 1 from {pre} p where {_equal(key, 'p', 's')})" if rule != "update" else ""
    (expected,) = link.one(f"select count(*) from {source} s{written}")
    joined = f"select count(*) from {source} s join {target} t on {_equal(key, 't', 's')} and {_same(names, 't', 's')}{written}"
    (found,) = link.one(joined)
    return int(expected) - int(found)


def _changed_count(link: Link, source: str, target: str, pre: str, names: Sequence[str]) -> int:
    """Count the difference of a table without a key to what the merge left, by groups of equal rows."""
    aliased = ", ".join(f"cast({quote(n)} as binary) c{i}" for i, n in enumerate(names))
    columns = ", ".join(f"c{i}" for i in range(len(names)))
    joined = f"select {aliased}, 1 n from {target} union all select {aliased}, -1 from {pre} union all select {aliased}, -1 from {source}"
    (difference,) = link.one(
        f"select coalesce(sum(abs(d)), 0) from (select sum(n) d from ({joined}) a group by {columns}) g"
    )
    return int(difference)
