"""What a login may do beyond reading: asked of the live server, to say whether it keeps anything from being written by itself."""

from __future__ import annotations

from typing import Final

# Each row: what the login may do, or nothing. The first that is found of a kind is enough.
_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
SQL: Final = f"""
SET LOCAL search_path TO pg_catalog;
SELECT 'is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL SELECT 'may pass by row security (BYPASSRLS)' FROM pg_roles WHERE rolname = current_user AND rolbypassrls AND NOT rolsuper
UNION ALL SELECT 'may make roles (CREATEROLE)' FROM pg_roles WHERE rolname = current_user AND rolcreaterole AND NOT rolsuper
UNION ALL SELECT 'may make databases (CREATEDB)' FROM pg_roles WHERE rolname = current_user AND rolcreatedb AND NOT rolsuper
UNION ALL SELECT 'may replicate (REPLICATION)' FROM pg_roles WHERE rolname = current_user AND rolreplication AND NOT rolsuper
UNION ALL SELECT 'is a member of ' || r.rolname FROM pg_roles r, pg_roles me WHERE me.rolname = current_user AND NOT me.rolsuper
  AND pg_has_role(me.oid, r.oid, 'MEMBER') AND r.oid <> me.oid
  AND (r.rolsuper OR r.rolname = ANY (ARRAY['pg_write_all_data', 'pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files',
    'pg_signal_backend', 'pg_maintain', 'pg_checkpoint', 'pg_create_subscription', 'pg_database_owner', 'pg_signal_autovacuum_worker']))
UNION ALL (SELECT 'may write ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND c.relkind = ANY ('{{r,p,v,f,m}}') AND {_OURS}
  AND has_schema_privilege(n.oid, 'USAGE')
  AND (has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') OR has_any_column_privilege(c.oid, 'INSERT, UPDATE')) LIMIT 1)
UNION ALL (SELECT 'may move the sequence ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND c.relkind = 'S' AND {_OURS}
  AND has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'USAGE, UPDATE') LIMIT 1)
UNION ALL (SELECT 'may make objects in the schema ' || quote_ident(n.nspname) FROM pg_namespace n
  WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND {_OURS} AND has_schema_privilege(n.oid, 'CREATE') LIMIT 1)
UNION ALL SELECT 'may make schemas in the database' WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND has_database_privilege(current_database(), 'CREATE')
UNION ALL (SELECT 'may call ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname) || ', which acts with the rights of its owner'
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND p.prosecdef AND p.provolatile = 'v'
  AND p.proowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user) AND {_OURS}
  AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') LIMIT 1)
"""


def told(found: list[str]) -> tuple[bool, str]:
    """Return whether a login only reads, and why or why not."""
    if found:
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        return False, f"the login {', '.join(found[:4])}{more}: log in as one who may only read"
    return True, "the login may write no table, make no object and act on no file (temporary tables apart)"
