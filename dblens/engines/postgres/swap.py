"""Showing staged tables in place of live ones, and the way back, each in one transaction.

Tables move between schemas with their indexes, constraints and owned sequences. What depends on a live table from outside (a view, a
foreign key, a trigger) would stay with the old one, so its existence refuses the swap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from dblens.engines.base import Move, Place, RunRecord
from dblens.engines.postgres import runs
from dblens.engines.postgres.ddl import CONTROL, STAGING_COMMENT, at, literal, quote
from dblens.engines.postgres.link import Link
from dblens.errors import Conflict, QueryFailed, TimedOut
from dblens.events import Report, StepStarted, Warned

LOCK_WAIT = "2s"
ATTEMPTS = 15
PAUSE = 1.0


def swap(link: Link, record: RunRecord, moves: Sequence[Move], report: Report) -> RunRecord:
    """Make the staged tables live. Raises Conflict for dependents, TimedOut when locks cannot be had."""
    known = runs.read(link, record.id)
    if known is not None and known.epoch == record.epoch and known.state == "swapped":
        return msgspec.structs.replace(record, state="swapped")
    swapping = msgspec.structs.replace(record, state="swapping")
    runs.write(link, swapping)
    done = msgspec.structs.replace(record, state="swapped")
    report(StepStarted("swap", f"{len(moves)} tables"))
    _patiently(link, lambda: _forth(link, done, moves), moves, report)
    return done


def unswap(link: Link, record: RunRecord, moves: Sequence[Move], report: Report) -> RunRecord:
    """Make the previous tables live again. Looks at where every table is, so it may be called from any state."""
    back = msgspec.structs.replace(record, state="rolling_back")
    runs.write(link, back)
    report(StepStarted("unswap", f"{len(moves)} tables"))
    _patiently(link, lambda: _back(link, back, moves), moves, report)
    return back


def _patiently(link: Link, work: Callable[[], None], moves: Sequence[Move], report: Report) -> None:
    """Run a transaction that needs exclusive locks: wait 2 s at most, so that others do not queue behind us, and try again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with link.transaction("swapping tables"):
                link.run(f"SET LOCAL lock_timeout TO '{LOCK_WAIT}'")
                work()
            return
        except (TimedOut, QueryFailed) as error:
            if isinstance(error, QueryFailed) and "deadlock" not in error.message:
                raise
            blockers = _blockers(link, [m.live for m in moves])
            if attempt == ATTEMPTS:
                raise TimedOut(
                    f"the swap could not lock its tables in {ATTEMPTS} attempts{blockers}",
                    hint="let those sessions end, then resume; the live tables are as they were",
                ) from error
            report(Warned(f"the swap waits for locks (attempt {attempt}){blockers}"))
            time.sleep(PAUSE)


def _blockers(link: Link, places: Sequence[Place]) -> str:
    rows = link.rows(
        "SELECT DISTINCT a.pid, a.usename::text, left(a.query, 80) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.granted AND l.pid <> pg_backend_pid() AND l.relation = ANY(SELECT to_regclass(p)::oid FROM unnest($1::text[]) p) "
        "LIMIT 3",
        [[at(p) for p in places]],
    )
    return "".join(f"; held by process {pid} of {user}: {' '.join(query.split())}" for pid, user, query in rows)


# --------------------------------------------------------------------------------------------------------------- both ways


def _present(link: Link, places: Sequence[Place]) -> dict[Place, bool]:
    rows = link.rows(
        "SELECT n, t, to_regclass(q) IS NOT NULL FROM unnest($1::text[], $2::text[], $3::text[]) AS u(n, t, q)",
        [[p[0] for p in places], [p[1] for p in places], [at(p) for p in places]],
        what="looking where tables are",
    )
    return {(n, t): there for n, t, there in rows}


def _move(link: Link, origin: Place, goal: Place) -> None:
    """Move a table with its partitions between schemas."""
    what = f"moving {'.'.join(origin)} to {'.'.join(goal)}"
    children = link.rows(
        "WITH RECURSIVE tree(oid) AS (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::regclass UNION ALL "
        "SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid) "
        "SELECT c.relname::text FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = $2 AND c.relispartition",
        [at(origin), origin[0]],
        what=what,
    )
    for name in [origin[1], *(c for (c,) in children)]:
        link.run(f"ALTER TABLE {at((origin[0], name))} SET SCHEMA {quote(goal[0])}", what=what)
    if origin[1] != goal[1]:
        link.run(f"ALTER TABLE {at((goal[0], origin[1]))} RENAME TO {quote(goal[1])}", what=what)


def _schemas(link: Link, run: str, names: Sequence[str]) -> None:
    """Create schemas that are missing and remember them, so that the way back can drop them."""
    there = {n for (n,) in link.rows("SELECT nspname::text FROM pg_namespace WHERE nspname = ANY($1)", [list(names)])}
    for name in sorted(set(names) - there):
        link.run(f"CREATE SCHEMA {quote(name)}", what=f"creating the schema {name}")
        if not name.startswith(CONTROL):
            link.run(
                f"UPDATE {quote(CONTROL)}.run SET made = array_append(made, $2) WHERE id = $1",
                [run, name],
                what="the run",
            )


def _named_types(link: Link, schema: str) -> list[tuple[str, bool]]:
    """Return the enums, domains, ranges and composites of a schema, and whether each is a domain."""
    return [
        (n, d)
        for n, d in link.rows(
            "SELECT t.typname::text, t.typtype = 'd' FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
            "WHERE n.nspname = $1 AND t.typtype IN ('e', 'd', 'r', 'c') AND (t.typrelid = 0 OR EXISTS "
            "(SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')) ORDER BY 1",
            [schema],
            what="looking for staged types",
        )
    ]


def _staging(link: Link, run: str) -> list[tuple[str, str]]:
    """Return the run's staging schemas and the live namespace that each stands for, which its comment tells."""
    rows = link.rows(
        "SELECT nspname::text, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = ANY($1)",
        [runs.staging_schemas(link, run)],
    )
    return [(n, c.removeprefix(STAGING_COMMENT)) for n, c in rows if c and c.startswith(STAGING_COMMENT)]


def _shift_type(link: Link, name: str, domain: bool, origin: str, goal: str) -> None:
    kind = "DOMAIN" if domain else "TYPE"
    link.run(f"ALTER {kind} {at((origin, name))} SET SCHEMA {quote(goal)}", what=f"moving the type {origin}.{name}")


# -------------------------------------------------------------------------------------------------------------------- forth


def _forth(link: Link, done: RunRecord, moves: Sequence[Move]) -> None:
    runs.write(link, done)  # locks the record and checks the epoch
    places = [p for m in moves for p in (m.live, m.staged, m.previous) if p]
    there = _present(link, places)
    lost = [m for m in moves if not there[m.staged]]
    if lost:
        raise Conflict(
            f"{len(lost)} staged tables are not there, first {'.'.join(lost[0].staged)}",
            hint="resume the migration, or roll back",
        )
    replaced = [m for m in moves if there[m.live]]
    unplanned = [m for m in replaced if m.previous is None]
    if unplanned:
        raise Conflict(
            f"the target has got a table {'.'.join(unplanned[0].live)} since the plan was made",
            hint="roll back and plan again",
        )
    for move in sorted(replaced, key=lambda m: m.live):
        link.run(f"LOCK TABLE {at(move.live)} IN ACCESS EXCLUSIVE MODE", what=f"locking {'.'.join(move.live)}")
    outside = dependents(link, [m.live for m in replaced])
    if outside:
        raise Conflict(
            "what depends on tables to be replaced would stay with the old ones:\n"
            + "\n".join(f"  {d}" for d in outside[:20]),
            hint="drop them and create them again after the swap, or migrate into another namespace",
        )
    _schemas(link, done.id, [m.live[0] for m in moves] + [m.previous[0] for m in replaced if m.previous])
    rights = {m.live: _rights(link, m.live) for m in replaced}
    for move in replaced:
        assert move.previous is not None
        _move(link, move.live, move.previous)
    _types_forth(link, done.id)
    for move in moves:
        _move(link, move.staged, move.live)
        for statement in rights.get(move.live, ()):
            link.run(statement, what=f"giving {'.'.join(move.live)} its grants")


def _types_forth(link: Link, run: str) -> None:
    for schema, live in _staging(link, run):
        staged = _named_types(link, schema)
        if not staged:
            continue
        _schemas(link, run, [live])
        present = dict(_named_types(link, live))
        for name, domain in staged:
            if name in present:
                users = _type_users(link, live, name, run)
                if users:
                    raise Conflict(
                        f"the type {live}.{name} is there already and used by {', '.join(users[:5])}",
                        hint="migrate into another namespace, or drop the type first",
                    )
                _schemas(link, run, [f"{schema}_prev"])
                _shift_type(link, name, present[name], live, f"{schema}_prev")
            _shift_type(link, name, domain, schema, live)


def _type_users(link: Link, namespace: str, name: str, run: str) -> list[str]:
    """Return what uses a live type, apart from tables that this run moved away."""
    rows = link.rows(
        "SELECT DISTINCT n.nspname || '.' || c.relname || '.' || a.attname FROM pg_type t JOIN pg_namespace tn "
        "ON tn.oid = t.typnamespace JOIN pg_attribute a ON a.atttypid IN (t.oid, t.typarray) AND NOT a.attisdropped "
        "JOIN pg_class c ON c.oid = a.attrelid AND c.relkind <> 'c' JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE tn.nspname = $1 AND t.typname = $2 AND NOT (n.nspname = ANY($3)) AND c.relkind NOT IN ('i', 'I') LIMIT 6",
        [namespace, name, runs.staging_schemas(link, run)],
    )
    return [r for (r,) in rows]


def _rights(link: Link, place: Place) -> list[str]:
    """Return statements that give the table now at `place` the owner, grants and comments which the one there had."""
    name = at(place)
    out = []
    oid = "$1::regclass"
    owner, comment = link.one(
        f"SELECT pg_get_userbyid(relowner)::text, obj_description(oid, 'pg_class') FROM pg_class WHERE oid = {oid}",
        [name],
    )
    for grantee, privilege, grantable in link.rows(
        "SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable "
        f"FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE c.oid = {oid} AND a.grantee <> c.relowner",
        [name],
    ):
        option = " WITH GRANT OPTION" if grantable else ""
        out.append(f"GRANT {privilege} ON {name} TO {quote(grantee) if grantee else 'PUBLIC'}{option}")
    columns = link.rows(
        "SELECT t.attname::text, CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, "
        f"a.is_grantable FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) a WHERE t.attrelid = {oid} "
        "AND NOT t.attisdropped",
        [name],
    )
    for column, grantee, privilege, grantable in columns:
        option = " WITH GRANT OPTION" if grantable else ""
        to = quote(grantee) if grantee else "PUBLIC"
        # A column that the new table does not have takes its grants with it.
        out.append(_if_column(place, column, f"GRANT {privilege} ({quote(column)}) ON {name} TO {to}{option}"))
    if comment is not None:
        out.append(
            f"DO {literal(f'BEGIN IF obj_description({literal(name)}::regclass) IS NULL THEN COMMENT ON TABLE {name} IS {literal(comment)}; END IF; END')}"
        )
    for column, text in link.rows(
        f"SELECT a.attname::text, col_description(a.attrelid, a.attnum) FROM pg_attribute a WHERE a.attrelid = {oid} "
        "AND a.attnum > 0 AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NOT NULL",
        [name],
    ):
        out.append(_if_column(place, column, f"COMMENT ON COLUMN {name}.{quote(column)} IS {literal(text)}", bare=True))
    current = link.one("SELECT current_user::text")[0]
    if owner != current:
        out.append(f"ALTER TABLE {name} OWNER TO {quote(owner)}")
    return out


def _if_column(place: Place, column: str, statement: str, *, bare: bool = False) -> str:
    """Return a statement that runs only when the table has the column (and, if `bare`, no comment on it)."""
    free = " AND col_description(attrelid, attnum) IS NULL" if bare else ""
    body = (
        f"BEGIN IF EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = {literal(at(place))}::regclass "
        f"AND attname = {literal(column)} AND NOT attisdropped{free}) THEN {statement}; END IF; END"
    )
    return f"DO {literal(body)}"


# --------------------------------------------------------------------------------------------------------------------- back


def _back(link: Link, back: RunRecord, moves: Sequence[Move]) -> None:
    runs.write(link, back)
    places = [p for m in moves for p in (m.live, m.staged, m.previous) if p]
    there = _present(link, places)
    swapped = [m for m in moves if there[m.live] and not there[m.staged]]
    for move in sorted(swapped, key=lambda m: m.live):
        link.run(f"LOCK TABLE {at(move.live)} IN ACCESS EXCLUSIVE MODE", what=f"locking {'.'.join(move.live)}")
    outside = dependents(link, [m.live for m in swapped])
    if outside:
        raise Conflict(
            "what was made since the swap depends on tables that would go:\n"
            + "\n".join(f"  {d}" for d in outside[:20]),
            hint="drop it first; `--discard-changes` does not drop what is not ours",
        )
    for move in swapped:
        _move(link, move.live, move.staged)
    _types_back(link, back.id, swapped)
    for move in moves:
        if move.previous is not None and there[move.previous]:
            _move(link, move.previous, move.live)
    made = link.one(f"SELECT made FROM {quote(CONTROL)}.run WHERE id = $1", [back.id])[0]
    for name in made:
        empty = link.one(
            "SELECT NOT EXISTS (SELECT 1 FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid "
            "AND d.refclassid = 'pg_namespace'::regclass WHERE n.nspname = $1)",
            [name],
        )
        if empty and empty[0] and link.one("SELECT 1 FROM pg_namespace WHERE nspname = $1", [name]):
            link.run(f"DROP SCHEMA {quote(name)}", what=f"dropping the schema {name}")
    link.run(f"UPDATE {quote(CONTROL)}.run SET made = '{{}}' WHERE id = $1", [back.id])


def _types_back(link: Link, run: str, swapped: Sequence[Move]) -> None:
    """Move types back that tables now in staging use, then the ones that they had pushed aside."""
    if not swapped:
        return
    stages = _staging(link, run)
    for schema, live in stages:
        used = link.rows(
            "WITH RECURSIVE used(oid) AS (SELECT DISTINCT a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY($1) AND a.attnum > 0 "
            "UNION SELECT x.oid FROM used u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL ("
            "SELECT t.typelem UNION ALL SELECT t.typbasetype UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid "
            "UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0) x(oid) WHERE x.oid <> 0) "
            "SELECT DISTINCT t.typname::text, t.typtype = 'd' FROM used u JOIN pg_type t ON t.oid = u.oid "
            "JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $2 AND t.typtype IN ('e', 'd', 'r', 'c') "
            "AND (t.typrelid = 0 OR EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')) ORDER BY 1",
            [[s for s, _ in stages], live],
            what="looking for types to move back",
        )
        for name, domain in used:
            _shift_type(link, name, domain, live, schema)
        aside = f"{schema}_prev"
        for name, domain in _named_types(link, aside):
            _shift_type(link, name, domain, aside, live)


# --------------------------------------------------------------------------------------------------------------- dependents


def dependents(link: Link, places: Sequence[Place]) -> list[str]:
    """Return views, rules, foreign keys, triggers, policies and routines outside `places` that depend on these tables."""
    if not places:
        return []
    rows = link.rows(
        "WITH live AS (SELECT to_regclass(p)::oid AS oid FROM unnest($1::text[]) p), "
        "tree AS (SELECT oid FROM live WHERE oid IS NOT NULL UNION SELECT i.inhrelid FROM pg_inherits i JOIN live l ON l.oid = i.inhparent) "
        "SELECT DISTINCT text FROM ("
        "SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' WHEN 'v' THEN 'view ' ELSE 'rule ' || r.rulename || ' on ' END "
        "|| n.nspname || '.' || c.relname AS text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid "
        "AND d.classid = 'pg_rewrite'::regclass JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM tree) "
        "UNION ALL SELECT 'foreign key ' || k.conname || ' of ' || n.nspname || '.' || c.relname FROM pg_constraint k "
        "JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid IN (SELECT oid FROM tree) "
        "AND k.conrelid NOT IN (SELECT oid FROM tree) AND n.nspname !~ '^_dblens' "
        "UNION ALL SELECT 'trigger ' || t.tgname || ' on ' || n.nspname || '.' || c.relname FROM pg_trigger t "
        "JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgrelid IN (SELECT oid FROM tree) "
        "UNION ALL SELECT 'policy ' || p.polname || ' on ' || n.nspname || '.' || c.relname FROM pg_policy p "
        "JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.polrelid IN (SELECT oid FROM tree) "
        "UNION ALL SELECT 'publication ' || b.pubname || ' of ' || n.nspname || '.' || c.relname FROM pg_publication_rel x "
        "JOIN pg_publication b ON b.oid = x.prpubid JOIN pg_class c ON c.oid = x.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE x.prrelid IN (SELECT oid FROM tree) "
        "UNION ALL SELECT 'table ' || n.nspname || '.' || c.relname || ' inherits' FROM pg_inherits i JOIN live l ON l.oid = i.inhparent "
        "JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE NOT c.relispartition AND c.oid NOT IN (SELECT oid FROM live WHERE oid IS NOT NULL) "
        "UNION ALL SELECT 'routine ' || n.nspname || '.' || p.proname FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid "
        "AND d.classid = 'pg_proc'::regclass JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE (d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM tree)) OR (d.refclassid = 'pg_type'::regclass "
        "AND d.refobjid IN (SELECT c.reltype FROM pg_class c WHERE c.oid IN (SELECT oid FROM tree)))"
        ") x ORDER BY 1",
        [[at(p) for p in places]],
        what="looking for dependents",
    )
    return [text for (text,) in rows]
