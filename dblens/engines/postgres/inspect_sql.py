"""Catalog queries of `inspect`: one a kind of object, all namespaces at once. `$1` is the list of namespaces.

Expressions are asked from the server (`pg_get_expr` and its kin) with an empty search path, so every name of a user comes qualified.
Sizes are pages of the last VACUUM or ANALYZE times 8192: asking for real sizes touches every file (about 40 µs a table and fork).
"""

from __future__ import annotations

NAMESPACES = """
SELECT nspname::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspname !~ '^_dblens(_|$)'
  AND has_schema_privilege(oid, 'USAGE')
ORDER BY nspname COLLATE "C"
"""

LISTING = """
SELECT c.relname::text,
       CASE c.relkind WHEN 'r' THEN CASE WHEN c.relispartition THEN 'partition' ELSE 'table' END
                      WHEN 'p' THEN CASE WHEN c.relispartition THEN 'partition' ELSE 'partitioned' END
                      WHEN 'f' THEN 'foreign' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' END,
       CASE WHEN c.reltuples >= 0 AND c.relkind <> 'v' THEN c.reltuples::bigint END,
       obj_description(c.oid, 'pg_class')
FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
ORDER BY c.relname COLLATE "C"
"""

# Objects of extensions belong to the extension.
_OWN = "NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = '{catalog}'::regclass AND x.objid = {oid} AND x.deptype = 'e')"


def _acl(column: str, owner: str, letter: str) -> str:
    """Return SQL for grants as [grantee, privilege, grantable …], the owner's own ones left out."""
    return (
        f"CASE WHEN {column} IS NOT NULL THEN (SELECT array_agg(ARRAY[CASE WHEN a.grantee = 0 THEN 'PUBLIC' "
        "ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable::text] "
        "ORDER BY CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END COLLATE \"C\", a.privilege_type) "
        f"FROM aclexplode({column}) a WHERE a.grantee <> {owner}) END /* {letter} */"
    )


TABLES = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition, pg_get_userbyid(c.relowner)::text,
       {_acl("c.relacl", "c.relowner", "r")}, c.reltuples::bigint, c.relpages::bigint, c.reloptions, c.relrowsecurity,
       d.description, pg_get_expr(c.relpartbound, c.oid),
       CASE WHEN c.relispartition THEN (SELECT pn.nspname || '.' || p.relname FROM pg_inherits i
            JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid) END,
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
       CASE WHEN c.reltoastrelid <> 0 THEN (SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid) END::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'f') AND {_OWN.format(catalog="pg_class", oid="c.oid")}
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

COLUMNS = """
SELECT a.attrelid::bigint, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       CASE WHEN a.atthasdef THEN pg_get_expr(ad.adbin, ad.adrelid) END, a.attgenerated::text, a.attidentity::text,
       CASE WHEN a.attcollation <> t.typcollation THEN
         (SELECT CASE WHEN cn.nspname = 'pg_catalog' THEN co.collname::text ELSE cn.nspname || '.' || co.collname END
          FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation) END,
       d.description, t.typtype::text, t.oid::bigint, a.attnum
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
LEFT JOIN pg_description d ON d.objoid = a.attrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
WHERE n.nspname = ANY($1) AND c.relkind = ANY($2::"char"[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

SEQUENCES = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       CASE WHEN has_sequence_privilege(c.oid, 'USAGE') OR has_sequence_privilege(c.oid, 'SELECT')
            THEN pg_sequence_last_value(c.oid) END, format_type(s.seqtypid, NULL), pg_get_userbyid(c.relowner)::text,
       {_acl("c.relacl", "c.relowner", "s")}, dep.deptype::text, dep.refobjid::bigint, dep.refobjsubid, tn.nspname::text,
       tc.relname::text, ta.attname::text,
       has_sequence_privilege(c.oid, 'SELECT')
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend dep ON dep.classid = 'pg_class'::regclass AND dep.objid = c.oid AND dep.refclassid = 'pg_class'::regclass
  AND dep.deptype IN ('a', 'i') AND dep.refobjsubid > 0
LEFT JOIN pg_class tc ON tc.oid = dep.refobjid LEFT JOIN pg_namespace tn ON tn.oid = tc.relnamespace
LEFT JOIN pg_attribute ta ON ta.attrelid = dep.refobjid AND ta.attnum = dep.refobjsubid
WHERE n.nspname = ANY($1) AND {_OWN.format(catalog="pg_class", oid="c.oid")}
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

FEEDS = """
SELECT ad.adrelid::bigint, a.attname::text, dep.refobjid::bigint
FROM pg_depend dep JOIN pg_attrdef ad ON ad.oid = dep.objid JOIN pg_attribute a ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
JOIN pg_class s ON s.oid = dep.refobjid AND s.relkind = 'S'
JOIN pg_class c ON c.oid = ad.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE dep.classid = 'pg_attrdef'::regclass AND dep.refclassid = 'pg_class'::regclass AND n.nspname = ANY($1)
"""

# `{enforced}`: PostgreSQL 18 has constraints that are not enforced.
CONSTRAINTS = """
SELECT con.conrelid::bigint, con.conname::text, con.contype::text,
       (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(con.conkey) WITH ORDINALITY AS k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum),
       fn.nspname::text, fc.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(con.confkey) WITH ORDINALITY AS k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum),
       con.confdeltype::text, con.confupdtype::text, con.confmatchtype::text, con.condeferrable, con.condeferred,
       con.convalidated, {enforced}, CASE WHEN con.contype = 'c' THEN pg_get_expr(con.conbin, con.conrelid) END,
       CASE WHEN con.contype = 'x' THEN pg_get_constraintdef(con.oid) END, con.conindid::bigint,
       coalesce(i.indnullsnotdistinct, false), con.coninhcount > 0 AND NOT con.conislocal, con.conparentid <> 0
FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class fc ON fc.oid = con.confrelid LEFT JOIN pg_namespace fn ON fn.oid = fc.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = con.conindid
WHERE n.nspname = ANY($1) AND con.contype IN ('p', 'u', 'f', 'c', 'x')
ORDER BY con.conrelid, con.conname COLLATE "C"
"""

INDEXES = """
SELECT i.indrelid::bigint, c.relname::text, i.indisunique, am.amname::text, i.indnkeyatts, i.indnullsnotdistinct,
       pg_get_expr(i.indpred, i.indrelid), c.reloptions, pg_get_indexdef(i.indexrelid),
       ARRAY(SELECT CASE WHEN k.attnum = 0 THEN NULL ELSE (SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum) END
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n) ORDER BY k.n),
       i.indoption::int2[],
       CASE WHEN 0 = ANY(i.indkey::int2[]) THEN
         ARRAY(SELECT pg_get_indexdef(i.indexrelid, k.n::int, false) FROM generate_series(1, i.indnkeyatts) AS k(n)) END,
       ARRAY(SELECT CASE WHEN oc.opcdefault THEN NULL ELSE CASE WHEN ocn.nspname = 'pg_catalog' THEN quote_ident(oc.opcname)
             ELSE quote_ident(ocn.nspname) || '.' || quote_ident(oc.opcname) END END
             FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS k(oid, n) JOIN pg_opclass oc ON oc.oid = k.oid
             JOIN pg_namespace ocn ON ocn.oid = oc.opcnamespace ORDER BY k.n),
       ARRAY(SELECT CASE WHEN k.oid = 0 OR k.oid = coalesce((SELECT a.attcollation FROM pg_attribute a
               WHERE a.attrelid = i.indrelid AND a.attnum = (i.indkey::int2[])[k.n - 1 + array_lower(i.indkey::int2[], 1)]), 100)
             THEN NULL ELSE (SELECT CASE WHEN cn.nspname = 'pg_catalog' THEN co.collname::text
               ELSE cn.nspname || '.' || co.collname END FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
               WHERE co.oid = k.oid) END
             FROM unnest(i.indcollation::oid[]) WITH ORDINALITY AS k(oid, n) ORDER BY k.n),
       d.description, i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class r ON r.oid = i.indrelid
JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_am am ON am.oid = c.relam
LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
WHERE n.nspname = ANY($1) AND NOT EXISTS (SELECT 1 FROM pg_constraint x WHERE x.conindid = i.indexrelid AND x.contype IN ('p', 'u', 'x'))
ORDER BY i.indrelid, c.relname COLLATE "C"
"""

TRIGGERS = """
SELECT t.tgrelid::bigint, t.tgname::text, t.tgtype::int, pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND NOT t.tgisinternal ORDER BY t.tgrelid, t.tgname COLLATE "C"
"""

VIEWS = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind = 'm', pg_get_viewdef(c.oid), pg_get_userbyid(c.relowner)::text,
       {_acl("c.relacl", "c.relowner", "v")}, obj_description(c.oid, 'pg_class'),
       ARRAY(SELECT DISTINCT rn.nspname || '.' || rc.relname FROM pg_rewrite rw JOIN pg_depend dep ON dep.objid = rw.oid
             AND dep.classid = 'pg_rewrite'::regclass AND dep.refclassid = 'pg_class'::regclass AND dep.refobjid <> c.oid
             JOIN pg_class rc ON rc.oid = dep.refobjid JOIN pg_namespace rn ON rn.oid = rc.relnamespace
             WHERE rw.ev_class = c.oid AND rn.nspname <> 'pg_catalog' ORDER BY 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('v', 'm') AND {_OWN.format(catalog="pg_class", oid="c.oid")}
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

ROUTINES = f"""
SELECT n.nspname::text, p.proname::text, p.prokind::text, CASE WHEN p.prokind IN ('f', 'p', 'w') THEN pg_get_functiondef(p.oid) END,
       pg_get_function_identity_arguments(p.oid), l.lanname::text, pg_get_userbyid(p.proowner)::text,
       {_acl("p.proacl", "p.proowner", "f")},
       CASE WHEN p.prokind = 'a' THEN (SELECT 'SFUNC = ' || g.aggtransfn::regproc::text || ', STYPE = '
         || format_type(g.aggtranstype, NULL) || CASE WHEN g.aggfinalfn <> 0 THEN ', FINALFUNC = ' || g.aggfinalfn::regproc::text ELSE '' END
         || CASE WHEN g.agginitval IS NOT NULL THEN ', INITCOND = ' || quote_literal(g.agginitval) ELSE '' END
         || CASE WHEN g.aggcombinefn <> 0 THEN ', COMBINEFUNC = ' || g.aggcombinefn::regproc::text ELSE '' END
         FROM pg_aggregate g WHERE g.aggfnoid = p.oid) END,
       pg_get_function_arguments(p.oid)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE n.nspname = ANY($1) AND {_OWN.format(catalog="pg_proc", oid="p.oid")}
ORDER BY n.nspname COLLATE "C", p.proname COLLATE "C", pg_get_function_identity_arguments(p.oid) COLLATE "C"
"""

TYPES = f"""
SELECT t.oid::bigint, n.nspname::text, t.typname::text, t.typtype::text,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END, NOT t.typnotnull,
       t.typdefault, pg_get_userbyid(t.typowner)::text, obj_description(t.oid, 'pg_type'),
       CASE WHEN t.typtype = 'd' THEN ARRAY(SELECT ARRAY[con.conname::text, pg_get_expr(con.conbin, 0), con.convalidated::text]
         FROM pg_constraint con WHERE con.contypid = t.oid AND con.contype = 'c' ORDER BY con.conname COLLATE "C") END,
       CASE WHEN t.typtype = 'c' THEN ARRAY(SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
         FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) END,
       CASE WHEN t.typtype = 'r' THEN (SELECT 'SUBTYPE = ' || format_type(r.rngsubtype, NULL) FROM pg_range r
         WHERE r.rngtypid = t.oid) END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = ANY($1) AND t.typtype IN ('e', 'd', 'c', 'r')
  AND (t.typtype <> 'c' OR EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
  AND {_OWN.format(catalog="pg_type", oid="t.oid")}
ORDER BY n.nspname COLLATE "C", t.typname COLLATE "C"
"""

EXTENSIONS = 'SELECT extname::text, extversion FROM pg_extension ORDER BY extname COLLATE "C"'
