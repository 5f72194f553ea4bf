"""The 54 ways around read-only of `reliability.md` §5, and MongoDB's, each with the tests that try it.

Fifty are the cells of the table in §5.1 (a cell that names several statements is several); the last four are what §5.4 and attack 18 add.
`{other}` and `{file}` are paths that the test makes. A test that runs one statement of a list is named with that statement; the index fails
when the list no longer holds it.
"""

from __future__ import annotations

from typing import NamedTuple


class Try(NamedTuple):
    """A test that tries it: where it is, its function, and the statement among its parameters (none: the test is about this alone)."""

    file: str
    function: str
    statement: str = ""


class Bypass(NamedTuple):
    """One of them. `naive`: what came of it where read-only was only said: the measured answer of §5.1."""

    engine: str
    what: str
    naive: str
    tries: tuple[Try, ...]


_PG, _MY, _LITE, _MONGO = (
    f"test_{name}.py" for name in ("bypasses", "read_only_mysql", "read_only_sqlite", "read_only_mongodb")
)


def _pg(statement: str, *more: str) -> tuple[Try, ...]:
    return (
        Try(_PG, "test_postgresql_refuses_and_nothing_is_changed", statement),
        *(Try(_PG, each, statement) for each in more),
    )


def _my(*statements: str, gateless: bool = False) -> tuple[Try, ...]:
    found = [Try(_MY, "test_a_way_around_is_refused_and_changes_nothing", each) for each in statements]
    return (
        *found,
        *(Try(_MY, "test_the_server_refuses_without_the_list_of_words", each) for each in statements if gateless),
    )


def _lite(*statements: str, layer: bool = False, out: bool = False) -> tuple[Try, ...]:
    found = [Try(_LITE, "test_reading_only_writes_nowhere", each) for each in statements]
    found += [Try(_LITE, "test_each_layer_holds_by_itself", each) for each in statements if layer]
    found += [Try(_LITE, "test_writing_leads_out_of_the_file_neither", each) for each in statements if out]
    return tuple(found)


def _mongo(function: str, *statements: str) -> tuple[Try, ...]:
    return tuple(Try(_MONGO, function, each) for each in statements)


ALONE = "test_postgresql_refuses_without_the_list_of_words"
"""With the gate wide open: the server's own transaction refuses."""

SECTION_5: tuple[Bypass, ...] = (
    # plain INSERT
    Bypass("postgresql", "INSERT, where a setting says read-only", "refused", _pg("INSERT INTO t VALUES (9)")),
    Bypass("postgresql", "INSERT in a read-only transaction", "refused", _pg("INSERT INTO t VALUES (9)", ALONE)),
    Bypass("mariadb mysql", "INSERT into InnoDB in a read-only session", "refused", _my("INSERT INTO t VALUES (9)")),
    Bypass("mariadb mysql", "INSERT into MyISAM in a read-only session", "refused", _my("INSERT INTO my VALUES (9)")),
    Bypass("mariadb mysql", "INSERT in a read-only transaction", "refused", _my("INSERT INTO t VALUES (9)", "INSERT INTO my VALUES (9)", gateless=True)),
    Bypass("sqlite", "INSERT into a file opened mode=ro", "refused", _lite("INSERT INTO t VALUES (9, 'x')", layer=True)),
    Bypass("sqlite", "INSERT with query_only", "refused", _lite("INSERT INTO t VALUES (9, 'x')", layer=True)),
    # the person flips the flag
    Bypass("postgresql", "SET of the session's default", "allowed", _pg("SET default_transaction_read_only = off")),
    Bypass("postgresql", "BEGIN READ WRITE", "allowed", _pg("BEGIN READ WRITE")),
    Bypass("postgresql", "SET TRANSACTION READ WRITE within the transaction", "refused", _pg("SET TRANSACTION READ WRITE")),
    Bypass("mariadb mysql", "SET SESSION TRANSACTION READ WRITE", "allowed",
           _my("SET SESSION TRANSACTION READ WRITE", "SET @@session.tx_read_only = 0", "SET @@session.transaction_read_only = 0")),
    Bypass("sqlite", "PRAGMA query_only = OFF", "allowed", _lite("PRAGMA query_only = OFF", "PRAGMA main.query_only(0)")),
    # COMMIT; INSERT
    Bypass("postgresql", "COMMIT; INSERT in the simple protocol", "allowed", _pg("COMMIT; INSERT INTO t VALUES (9)")),
    Bypass("postgresql", "COMMIT; INSERT in the extended protocol", "refused", _pg("COMMIT; INSERT INTO t VALUES (9)", ALONE)),
    Bypass("mariadb mysql", "COMMIT, then INSERT", "allowed", (*_my("COMMIT", "COMMIT; INSERT INTO t VALUES (9)"), Try(_MY, "test_the_protocol_takes_one_statement"))),
    # DDL
    Bypass("postgresql", "CREATE TEMP TABLE", "refused", _pg("CREATE TEMP TABLE made (a int)")),
    Bypass("mariadb mysql", "CREATE TABLE in a read-only session", "refused", _my("CREATE TABLE made (a int)")),
    Bypass("mariadb mysql", "CREATE TABLE in a read-only transaction, which it commits", "allowed", _my("CREATE TABLE made (a int)", gateless=True)),
    Bypass("mariadb mysql", "DROP TABLE IF EXISTS of what is not there", "allowed", _my("DROP TABLE IF EXISTS nothing_there", gateless=True)),
    Bypass("sqlite", "PRAGMA user_version with query_only", "refused", _lite("PRAGMA user_version = 5", layer=True)),
    # the server's files and programs
    Bypass("postgresql", "COPY TO PROGRAM", "allowed", _pg("COPY (SELECT 1) TO PROGRAM 'cat > {file}'")),
    Bypass("mariadb mysql", "SELECT INTO OUTFILE", "allowed", _my("SELECT 1 INTO OUTFILE '{file}'", "SELECT 1 INTO DUMPFILE '{file}'")),
    Bypass("sqlite", "VACUUM INTO of a file opened mode=ro", "allowed", _lite("VACUUM INTO '{other}'")),
    Bypass("sqlite", "VACUUM INTO with query_only", "refused", _lite("VACUUM INTO '{other}'")),
    # side channels
    Bypass("postgresql", "dblink_exec that writes", "allowed", _pg("SELECT dblink_exec('{dsn}', 'insert into t values (9)')")),
    Bypass("postgresql", "lo_create", "allowed", _pg("SELECT lo_create(4711)")),
    Bypass("postgresql", "an advisory lock", "allowed", _pg("SELECT pg_advisory_lock(4711)")),
    Bypass("postgresql", "LOCK in ACCESS EXCLUSIVE MODE", "allowed", _pg("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")),
    Bypass("postgresql", "pg_reload_conf", "allowed", _pg("SELECT pg_reload_conf()")),
    Bypass("postgresql", "set_config", "allowed", _pg("SELECT set_config('transaction_read_only', 'off', false)", ALONE)),
    Bypass("postgresql", "pg_cancel_backend", "allowed", _pg("SELECT pg_cancel_backend(0)")),
    Bypass("mariadb mysql", "SET GLOBAL", "allowed", _my("SET GLOBAL max_connect_errors = 4711")),
    Bypass("mariadb mysql", "FLUSH TABLES", "allowed", _my("FLUSH TABLES")),
    Bypass("mariadb mysql", "GET_LOCK", "allowed", _my("SELECT GET_LOCK('dblens_bypass', 0)", "DO GET_LOCK('dblens_bypass', 0)")),
    Bypass("sqlite", "ATTACH of another database that is then written", "allowed", _lite("ATTACH '{other}' AS o")),
    Bypass("sqlite", "ATTACH that makes a file", "allowed", _lite("ATTACH DATABASE 'file:{other}?mode=rwc' AS o")),
    Bypass("sqlite", "PRAGMA journal_mode = wal", "allowed", _lite("PRAGMA journal_mode = wal")),
    # sequences and row locks
    Bypass("postgresql", "nextval", "refused", _pg("SELECT nextval('s')", ALONE)),
    Bypass("postgresql", "setval", "refused", _pg("SELECT setval('s', 500)", ALONE)),
    Bypass("postgresql", "SELECT FOR UPDATE", "refused", _pg("SELECT * FROM t FOR UPDATE", ALONE)),
    # a login that may only read
    Bypass("postgresql", "INSERT by a reader (pg_read_all_data)", "refused", _pg("INSERT INTO t VALUES (9)")),
    Bypass("postgresql", "COPY TO PROGRAM by a reader", "refused", _pg("COPY (SELECT 1) TO PROGRAM 'cat > {file}'")),
    Bypass("postgresql", "a function with its maker's rights, called by a reader", "allowed", _pg("SELECT writes()")),
    Bypass("postgresql", "the same in a read-only transaction", "refused", _pg("SELECT writes()", ALONE)),
    Bypass("mariadb mysql", "INSERT by a reader", "refused", _my("INSERT INTO t VALUES (9)")),
    Bypass("mariadb mysql", "SELECT INTO OUTFILE by a reader", "refused", _my("SELECT 1 INTO OUTFILE '{file}'")),
    Bypass("mariadb mysql", "GET_LOCK by a reader", "allowed", _my("SELECT GET_LOCK('dblens_bypass', 0)")),
    Bypass("sqlite", "ATTACH, with the authorizer alone", "refused", _lite("ATTACH '{other}' AS o", out=True)),
    Bypass("sqlite", "VACUUM INTO, with the authorizer alone", "refused", _lite("VACUUM INTO '{other}'", out=True)),
    Bypass("sqlite", "PRAGMA, with the authorizer alone", "refused", _lite("PRAGMA writable_schema = ON", "PRAGMA journal_mode = wal", out=True)),
    # §5.4 and attack 18: what a parser takes for a SELECT, and code
    Bypass("postgresql", "a WITH that deletes", "a SELECT to the parser", _pg("WITH x AS (DELETE FROM t RETURNING v) SELECT * FROM x", ALONE)),
    Bypass("postgresql", "EXPLAIN ANALYZE of a DELETE", "opaque to the parser", _pg("EXPLAIN ANALYZE DELETE FROM t", ALONE)),
    Bypass("postgresql", "SELECT INTO a table", "a SELECT to the parser", _pg("SELECT 1 AS a INTO made", ALONE)),
    Bypass("postgresql", "DO with code", "opaque to the parser", _pg("DO $$ BEGIN INSERT INTO t VALUES (9); END $$", ALONE)),
)  # fmt: skip

MONGODB: tuple[Bypass, ...] = (
    Bypass("mongodb", "$out", "allowed", _mongo("test_a_reader_writes_nothing", 'db.c.aggregate([{$out: "d"}])', 'db.c.aggregate([{"\\u0024out": "d"}])')),
    Bypass("mongodb", "$merge", "allowed", _mongo("test_a_reader_writes_nothing", 'db.c.aggregate([{$merge: "d"}])', "db.c.aggregate([{'\\x24merge': 'd'}])")),
    Bypass("mongodb", "$out and $merge within other stages", "allowed",
           _mongo("test_a_reader_writes_nothing", 'db.c.aggregate([{$lookup: {from: "c", pipeline: [{$out: "d"}], as: "x"}}])', 'db.c.aggregate([{$facet: {x: [{$out: "d"}]}}])')),
    Bypass("mongodb", "$out by explain, and by runCommand", "allowed",
           _mongo("test_a_reader_writes_nothing", 'db.c.explain("executionStats").aggregate([{$out: "d"}])', "db.runCommand({aggregate: 'c', pipeline: [{$out: 'd'}], cursor: {}})")),
    Bypass("mongodb", "writing methods and commands", "allowed", _mongo("test_a_reader_writes_nothing", "db.c.findOneAndDelete({})", "db.runCommand({findAndModify: 'c', remove: true})")),
    Bypass("mongodb", "$where", "allowed", _mongo("test_javascript_is_refused_for_everybody", 'db.c.find({$where: "sleep(1000) || true"})', "db.c.find({'\\u0024where': 'true'})")),
    Bypass("mongodb", "$function", "allowed", _mongo("test_javascript_is_refused_for_everybody", "db.c.find({$expr: {$function: {body: 'f', args: [], lang: 'js'}}})")),
    Bypass("mongodb", "$accumulator", "allowed",
           _mongo("test_javascript_is_refused_for_everybody", "db.c.aggregate([{$group: {_id: 1, x: {$accumulator: {init: 'f', accumulate: 'f', accumulateArgs: [], merge: 'f'}}}}])")),
    Bypass("mongodb", "mapReduce", "allowed", _mongo("test_javascript_is_refused_for_everybody", "db.c.mapReduce('f', 'g', {out: 'd'})", "db.runCommand({mapReduce: 'c', map: 'f', reduce: 'g', out: 'd'})")),
    Bypass("mongodb", "eval", "allowed", (*_mongo("test_javascript_is_refused_for_everybody", "db.eval('1')"), *_mongo("test_what_is_on_no_list_is_refused", "db.runCommand({eval: '1'})"))),
    Bypass("mongodb", "an operator in a parameter", "allowed", (Try(_MONGO, "test_a_parameter_is_never_an_operator"), Try(_MONGO, "test_a_document_that_the_text_takes_passes_the_lists_as_well"))),
    Bypass("mongodb", "text in a parameter", "allowed", (Try(_MONGO, "test_a_parameter_is_never_text_of_the_statement"),)),
    Bypass("mongodb", "a stage or operator that the server learns tomorrow", "allowed",
           _mongo("test_what_is_on_no_list_is_refused", "db.c.aggregate([{$aStageOfTomorrow: {}}])", "db.c.find({a: {$anOperatorOfTomorrow: 1}})")),
    Bypass("mongodb", "another database", "allowed",
           (*_mongo("test_what_is_on_no_list_is_refused", 'db.getSiblingDB("admin").getCollection("system.users").find()'), Try(_MONGO, "test_a_writer_does_not_leave_the_database_either"))),
    Bypass("mongodb", "two statements, and code", "allowed", _mongo("test_what_is_no_statement_is_refused", "db.c.find(); db.c.drop()", "(function(){ return db.c.drop() })()")),
)  # fmt: skip
