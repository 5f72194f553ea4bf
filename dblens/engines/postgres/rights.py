"""What a login lacks, as the GRANT texts that would give it."""

from __future__ import annotations

from dblens.engines.postgres.ddl import CONTROL, at, quote
from dblens.engines.postgres.link import Link

_OURS = "n.nspname !~ '^(pg_|_dblens)' AND n.nspname <> 'information_schema'"


def missing(link: Link, *, write: bool, namespace: str | None) -> list[str]:
    """Return GRANT texts for reading every table, or for staging and swapping."""
    login = quote(link.login)
    lacking = []
    if write:
        if not link.one("SELECT has_database_privilege(current_database(), 'CREATE')")[0]:
            lacking.append(f"GRANT CREATE ON DATABASE {quote(link.database)} TO {login}")
        wanted = namespace or "public"
        row = link.one(
            "SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE') FROM pg_namespace "
            "WHERE nspname = $1",
            [wanted],
        )
        if row and not row[0]:
            lacking.append(f"GRANT USAGE, CREATE ON SCHEMA {quote(wanted)} TO {login}")
        for (name,) in link.rows(
            "SELECT nspname::text FROM pg_namespace WHERE nspname = $1 AND NOT pg_has_role(nspowner, 'USAGE')",
            [CONTROL],
        ):
            lacking.append(f"ALTER SCHEMA {quote(name)} OWNER TO {login}")
        return lacking
    scope, params = ("AND n.nspname = $1", [namespace]) if namespace else ("", [])
    for (name,) in link.rows(
        "SELECT DISTINCT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE c.relkind IN ('r', 'p') AND {_OURS} {scope} AND NOT has_schema_privilege(n.oid, 'USAGE') ORDER BY 1",
        params,
    ):
        lacking.append(f"GRANT USAGE ON SCHEMA {quote(name)} TO {login}")
    tables = link.rows(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE c.relkind IN ('r', 'p') AND {_OURS} {scope} AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1, 2",
        params,
    )
    return lacking + [f"GRANT SELECT ON TABLE {at((place[0], place[1]))} TO {login}" for place in tables]
