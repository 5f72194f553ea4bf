"""What statements seem to do. Advice: nothing here keeps anybody from writing."""

from __future__ import annotations

import sys
import time

import pytest

from dblens.engines.asking import Lexis
from dblens.errors import Unsupported
from dblens.query import classify as chapter
from dblens.query.classify import classify
from tests.unit.query.lexes import ALL, MYSQL, POSTGRES, SHELL, SQL, SQLITE

READS = [
    (POSTGRES, "SELECT 1"), (POSTGRES, "TABLE t"), (POSTGRES, "VALUES (1)"), (POSTGRES, "(SELECT 1) UNION (SELECT 2)"), (POSTGRES, "WITH a AS (SELECT 1) SELECT * FROM a"),
    (POSTGRES, "SELECT pg_size_pretty(pg_relation_size('x')), pg_sleep(1), pg_get_viewdef('v')"), (POSTGRES, "EXPLAIN DELETE FROM t"), (POSTGRES, "EXPLAIN ANALYZE SELECT 1"),
    (POSTGRES, "SHOW search_path"), (POSTGRES, "SELECT 'DELETE FROM t', \"delete\" FROM t -- DELETE FROM t"), (POSTGRES, "SELECT $$ DELETE $$"), (POSTGRES, "SELECT * FROM t WHERE a = :a LIMIT :n"),
    (MYSQL, "SELECT /*!40001 SQL_NO_CACHE */ * FROM t"), (MYSQL, "SHOW TABLES"), (MYSQL, "DESCRIBE t"), (MYSQL, "DESC t"), (MYSQL, "EXPLAIN UPDATE t SET a = 1"), (MYSQL, "SELECT 1 /* /* */ FROM t"),
    (SQLITE, "PRAGMA table_info(t)"), (SQLITE, "PRAGMA main.index_list('t')"), (SQLITE, "PRAGMA journal_mode"), (SQLITE, "EXPLAIN QUERY PLAN DELETE FROM t"), (SQLITE, "SELECT [delete] FROM t"),
    (SHELL, "db.a.find({a: 1}).sort({b: 1}).limit(5)"), (SHELL, "db.a.aggregate([{$match: {a: 1}}])"), (SHELL, "db.getCollection('x').countDocuments({})"), (SHELL, "show dbs"),
]  # fmt: skip
OTHERS = [
    (POSTGRES, "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "write"), (POSTGRES, "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x", "write"),
    (POSTGRES, "EXPLAIN ANALYZE DELETE FROM t", "write"), (POSTGRES, "EXPLAIN (ANALYZE, FORMAT JSON) UPDATE t SET a = 1", "write"), (POSTGRES, "EXPLAIN (ANALYZE false) DELETE FROM t", "write"),
    (POSTGRES, "SELECT * INTO b FROM t", "ddl"), (POSTGRES, "SELECT * FROM t FOR UPDATE", "write"), (POSTGRES, "SELECT * FROM (SELECT * FROM t FOR SHARE) x", "write"),
    (POSTGRES, "SELECT nextval('s')", "write"), (POSTGRES, "SELECT pg_catalog.setval('s', 1)", "write"), (POSTGRES, "SELECT \"nextval\"('s')", "write"), (POSTGRES, "SELECT lo_unlink(1)", "write"),
    (POSTGRES, "SELECT dblink_exec('x', 'DELETE')", "write"), (POSTGRES, "SELECT pg_terminate_backend(1)", "write"), (POSTGRES, "SELECT 1 WHERE pg_try_advisory_lock(1)", "write"),
    (POSTGRES, "SELECT set_config('a', 'b', false)", "write"), (POSTGRES, "SELECT query_to_xml('DELETE', true, true, '')", "write"), (POSTGRES, "COPY t TO PROGRAM 'x'", "write"),
    (POSTGRES, "COPY (DELETE FROM t RETURNING *) TO STDOUT", "write"), (POSTGRES, "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "write"), (POSTGRES, "CALL f()", "unknown"),
    (POSTGRES, "DO $$ BEGIN DELETE FROM t; END $$", "unknown"), (POSTGRES, "EXECUTE x", "unknown"), (POSTGRES, "PREPARE x AS DELETE FROM t", "unknown"), (POSTGRES, "SELECT 1; DELETE FROM t", "unknown"),
    (POSTGRES, "BEGIN", "transaction"), (POSTGRES, "COMMIT", "transaction"), (POSTGRES, "SAVEPOINT a", "transaction"), (POSTGRES, "SET search_path = x", "session"), (POSTGRES, "SET TRANSACTION READ WRITE", "transaction"),
    (POSTGRES, "ALTER SYSTEM SET a = 1", "ddl"), (POSTGRES, "VACUUM t", "write"), (POSTGRES, "NOTIFY x", "write"), (POSTGRES, "GRANT ALL ON t TO x", "ddl"), (POSTGRES, "nonsense here", "unknown"), (POSTGRES, "", "unknown"),
    (POSTGRES, "SELECT 'unclosed", "unknown"),
    (MYSQL, "SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */", "unknown"), (MYSQL, "/*!50000 DELETE FROM t */", "write"), (MYSQL, "/*! SELECT */ /*! 1 */", "unknown"), (MYSQL, "SELECT /*!99999 ' */ 1 INTO OUTFILE 'x' /*!99999 ' */", "unknown"),
    (MYSQL, "SELECT 1 /*M!100000 FROM t FOR UPDATE */", "write"), (MYSQL, "SELECT a INTO @x FROM t", "session"), (MYSQL, "SELECT get_lock('a', 1)", "write"), (MYSQL, "SELECT nextval(s)", "write"),
    (MYSQL, "SELECT NEXT VALUE FOR s", "unknown"), (MYSQL, "SELECT * FROM t LOCK IN SHARE MODE", "write"), (MYSQL, "REPLACE INTO t VALUES (1)", "write"), (MYSQL, "LOAD DATA INFILE 'x' INTO TABLE t", "write"),
    (MYSQL, "SET GLOBAL a = 1", "ddl"), (MYSQL, "SET @@global.a = 1", "ddl"), (MYSQL, "SET PASSWORD = 'x'", "ddl"), (MYSQL, "ANALYZE DELETE FROM t", "write"), (MYSQL, "EXPLAIN ANALYZE DELETE FROM t", "write"),
    (MYSQL, "HANDLER t OPEN", "unknown"), (MYSQL, "FLUSH TABLES", "write"), (MYSQL, "BEGIN NOT ATOMIC DELETE FROM t; END", "unknown"), (MYSQL, "RENAME TABLE a TO b", "ddl"),
    (SQLITE, "PRAGMA journal_mode = wal", "write"), (SQLITE, "PRAGMA optimize", "write"), (SQLITE, "PRAGMA user_version(5)", "write"), (SQLITE, "ATTACH 'x' AS y", "session"), (SQLITE, "VACUUM INTO 'x'", "write"),
    (SQLITE, "SELECT load_extension('x')", "write"), (SQLITE, "SELECT writefile('x', 'y')", "write"), (SQLITE, "INSERT OR REPLACE INTO t VALUES (1)", "write"), (SQLITE, "REPLACE INTO t VALUES (1)", "write"),
    (SHELL, "db.a.insertOne({a: 1})", "write"), (SHELL, "db.a.drop()", "ddl"), (SHELL, "db.a.aggregate([{$out: 'b'}])", "write"), (SHELL, "db.a.aggregate([{\"$merge\": 'b'}])", "write"),
    (SHELL, "db.a.find({$where: 'x'})", "unknown"), (SHELL, "db.a.find({'\\u0024where': 'x'})", "unknown"), (SHELL, "db.a.mystery()", "unknown"), (SHELL, "db.a", "unknown"), (SHELL, "while (1) {}", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("lexis", "text"), READS, ids=lambda v: v[:40] if isinstance(v, str) else "")
def test_what_only_reads(lexis: Lexis, text: str) -> None:
    assert classify(text, lexis).action == "read"
    assert classify(text, lexis).reads


@pytest.mark.parametrize(("lexis", "text", "action"), OTHERS, ids=lambda v: v[:40] if isinstance(v, str) else "")
def test_what_does_more(lexis: Lexis, text: str, action: str) -> None:
    assert classify(text, lexis).action == action


@pytest.mark.parametrize("lexis", SQL.values(), ids=SQL)
@pytest.mark.parametrize(
    "where",
    ["", " WHERE 1 = 1", " WHERE TRUE", " WHERE (1)", " WHERE id = id", " WHERE t.id = t.id", " WHERE 'a' = 'a'", " WHERE id > 5 OR 1 = 1", " WHERE NOT 1 = 2", " WHERE 1 < 2", " WHERE name LIKE '%'",
     " WHERE ((TRUE) AND 2 <> 3)"],
)  # fmt: skip
def test_changes_of_every_row_are_told(lexis: Lexis, where: str) -> None:
    for text, code in (
        (f"UPDATE t SET a = 1{where}", "update_without_where"),
        (f"DELETE FROM t{where}", "delete_without_where"),
    ):
        warnings = classify(text, lexis).warnings
        assert [w.code for w in warnings] == [code]
        assert " t" in warnings[0].text


@pytest.mark.parametrize(
    "where",
    [
        "id = 5",
        "1 = 2",
        "id = other",
        "FALSE",
        "a AND 1 = 1",
        "name LIKE 'a%'",
        "id IS NOT NULL",
        "EXISTS (SELECT 1 FROM u)",
    ],
)
def test_other_changes_are_not(where: str) -> None:
    for lexis in SQL.values():
        assert classify(f"DELETE FROM t WHERE {where}", lexis).warnings == ()


@pytest.mark.parametrize(
    ("lexis", "text", "code", "names"),
    [
        (POSTGRES, "DROP TABLE IF EXISTS a.b", "drop", "a.b"), (POSTGRES, "DROP FUNCTION f(int)", "drop", "f"), (MYSQL, "DROP DATABASE shop", "drop", "shop"), (MYSQL, "DROP USER bob", "drop", "bob"),
        (POSTGRES, "TRUNCATE a, b CASCADE", "truncate", "a, b"), (MYSQL, "TRUNCATE TABLE t", "truncate", "t"), (POSTGRES, "ALTER TABLE ONLY a.b ADD c int", "alter", "a.b"),
        (SQLITE, "ALTER TABLE t RENAME TO u", "alter", "t"), (POSTGRES, "SELECT * FROM a, s.b", "cross_join", "s.b"), (POSTGRES, "SELECT * FROM a CROSS JOIN b", "cross_join", "b"),
        (MYSQL, "SELECT * FROM a JOIN b", "cross_join", "b"), (POSTGRES, "SELECT * FROM a JOIN b ON true", "cross_join", "b"), (POSTGRES, "WITH x AS (DELETE FROM t RETURNING 1) SELECT 1", "delete_without_where", "t"),
        (SHELL, "db.a.deleteMany({})", "delete_without_where", "a"), (SHELL, "db.a.drop()", "drop", "a"),
    ],
)  # fmt: skip
def test_warnings_name_the_table(lexis: Lexis, text: str, code: str, names: str) -> None:
    found = {w.code: w.text for w in classify(text, lexis).warnings}
    assert names in found[code]


@pytest.mark.parametrize(
    "text",
    ["SELECT * FROM a, b WHERE a.x = b.x", "SELECT * FROM a JOIN b USING (x)", "SELECT * FROM a NATURAL JOIN b", "SELECT * FROM a, b WHERE x = y", "SELECT * FROM a JOIN b ON a.x = b.x", "SELECT * FROM a",
     "SELECT * FROM a, generate_series(1, 3)", "SELECT * FROM a, LATERAL (SELECT a.x) l"],
)  # fmt: skip
def test_joins_with_a_condition_are_not_told(text: str) -> None:
    assert classify(text, POSTGRES).warnings == ()


def test_tables_are_those_outside_of_its_own_with() -> None:
    kind = classify(
        "WITH x AS (SELECT * FROM s.a) SELECT * FROM x JOIN b USING (i) WHERE EXISTS (SELECT 1 FROM c)", POSTGRES
    )
    assert set(kind.tables) == {"s.a", "b", "c"}
    assert classify("INSERT INTO t SELECT * FROM u", MYSQL).verbs == ("insert", "select")


def test_long_and_deep_texts_are_answered_soon() -> None:
    began = time.monotonic()
    assert classify("INSERT INTO t VALUES " + ",".join(["(1, 'x')"] * 100_000), MYSQL).action == "write"
    assert classify("SELECT " + "(" * 50_000 + "1" + ")" * 50_000, POSTGRES).action in ("unknown", "read")
    assert classify("SELECT " + " + ".join(["1"] * 20_000), SQLITE).action in ("unknown", "read")
    assert time.monotonic() - began < 10


def test_nothing_is_said_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for lexis in ALL.values():
        classify("CREATE secret_word", lexis)
        classify("REPLACE secret_word", lexis)
    assert caplog.text == ""


def test_without_sqlglot_it_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    chapter._cached.cache_clear()
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    with pytest.raises(Unsupported, match=r"dblens\[query\]"):
        classify("SELECT 41", POSTGRES)
