"""Which statements may run read-only, by their words: for what a transaction that is READ ONLY lets through.

The server refuses writes, DDL, row locks and sequences in it by itself. It does not refuse files and programs (COPY), functions that act
(`lo_…`, `dblink…`, advisory locks, `pg_reload_conf`, `pg_terminate_backend` …), LOCK, DO, LISTEN. So a read-only statement begins as a
reading one does, and calls no function that acts: neither one of the names here, nor one that the server's own catalog calls volatile and
that is written in C or an untrusted language, unless it is known to do nothing (see `volatile`, `refuse_volatile`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from dblens.engines.postgres.ddl import literal
from dblens.errors import InvalidInput, PermissionDenied

Kind = Literal["word", "name", "string", "number", "parameter", "mark"]


class Token(NamedTuple):
    """A piece of a statement that means something."""

    kind: Kind
    text: str
    """A word in upper case, a name without its quotes, otherwise as it stands."""
    at: int


class Read(NamedTuple):
    """A statement in tokens."""

    tokens: tuple[Token, ...]
    end: int
    """Where its last token ends: what is behind are `;`, comments and white space."""
    parameters: int
    """The highest number of a parameter."""
    escaped: bool
    """It holds a name written U&"…"."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words it begins with, at most four."""
        found: list[str] = []
        for token in self.tokens:
            if token.kind != "word" or len(found) == 4:
                break
            found.append(token.text)
        return tuple(found)

    @property
    def first(self) -> str:
        """Return the first word, behind opening brackets; empty when something else stands there."""
        token = next((t for t in self.tokens if t.text != "("), self.tokens[0])
        return token.text if token.kind == "word" else ""


_SPACE = r"[ \t\n\v\f\r]"
_TOKEN = re.compile(
    rf"""{_SPACE}*+(?:
      (?P<comment>--[^\n\r]*+)
    | (?P<block>/\*)
    | (?P<parameter>\$\d++)
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*+)?\$)
    | (?P<string>[eE]'(?:[^'\\]|''|\\.)*+'(?:[ \t\v\f]*+[\n\r](?:{_SPACE}++|--[^\n\r]*+[\n\r])*+'(?:[^'\\]|''|\\.)*+')*
                |(?:[uU]&)?'(?:[^']|'')*+')
    | (?P<escaped>[uU]&"(?:[^"]|"")*+")
    | (?P<name>"(?:[^"]|"")*+")
    | (?P<unclosed>['"])
    | (?P<number>\d++(?:\.\d++)?(?:[eE][+-]?\d++)?)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+)
    | (?P<mark>.)
    )""",
    re.DOTALL | re.VERBOSE,
)
_EDGE = re.compile(r"/\*|\*/")


def read(statement: str) -> Read:
    """Return a statement in tokens. Raises InvalidInput for text that does not end, is empty, or is more than one statement."""
    if "\0" in statement:
        raise InvalidInput("the statement holds a U+0000", hint="PostgreSQL text cannot hold it")
    tokens: list[Token] = []
    semicolon, end, at, parameters, escaped = -1, 0, 0, 0, False
    while at < len(statement):
        found = _TOKEN.match(statement, at)
        if found is None:
            break  # white space
        group = found.lastgroup or ""
        start, at = found.span(group)
        text = found[group]
        if group == "comment":
            continue
        if group == "block":
            at = _after_comment(statement, start)
            continue
        if group == "unclosed":
            raise InvalidInput(f"what {text} opens at character {start + 1} does not end", hint="close it")
        if group == "mark" and text == ";":
            semicolon = start if semicolon < 0 else semicolon
            continue
        if group == "dollar":
            closed = statement.find(text, at)
            if closed < 0:
                raise InvalidInput(f"what {text} opens at character {start + 1} does not end", hint="close it")
            at = closed + len(text)
        # Only the body of a routine (BEGIN ATOMIC … END) and of a rule hold semicolons; the server judges those.
        if semicolon >= 0 and (not tokens or tokens[0].text != "CREATE"):
            raise InvalidInput(
                f"more than one statement: another begins at character {start + 1}", hint="run them one by one"
            )
        tokens.append(_token(group, text, start))
        escaped |= group == "escaped"
        if group == "parameter":
            parameters = max(parameters, int(text[1:7]))
        end = at
    if not tokens:
        raise InvalidInput("there is no statement in the text", hint="write one")
    return Read(tuple(tokens), end, parameters, escaped)


def _token(group: str, text: str, start: int) -> Token:
    match group:
        case "word":
            return Token("word", text.upper(), start)
        case "name":
            return Token("name", text[1:-1].replace('""', '"'), start)
        case "escaped":
            return Token("name", text, start)
        case "number":
            return Token("number", text, start)
        case "parameter":
            return Token("parameter", text, start)
        case "mark":
            return Token("mark", text, start)
    return Token("string", text, start)


def _after_comment(statement: str, start: int) -> int:
    """Return where the comment ends that begins here; comments nest."""
    depth, at = 0, start
    while True:
        edge = _EDGE.search(statement, at)
        if edge is None:
            raise InvalidInput(f"the comment that begins at character {start + 1} does not end", hint="close it")
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
        if depth == 0:
            return at


# ------------------------------------------------------------------------------------------------ what is the session's affair

_FIXED: Final = frozenset(
    {"CLIENT_ENCODING", "NAMES", "DATESTYLE", "INTERVALSTYLE", "TIMEZONE", "TIME", "BYTEA_OUTPUT", "EXTRA_FLOAT_DIGITS", "STANDARD_CONFORMING_STRINGS",
     "STATEMENT_TIMEOUT"}
)  # fmt: skip
_TRANSACTION: Final = frozenset(
    {"TRANSACTION", "CHARACTERISTICS", "DEFAULT_TRANSACTION_READ_ONLY", "TRANSACTION_READ_ONLY", "DEFAULT_TRANSACTION_ISOLATION",
     "TRANSACTION_ISOLATION", "DEFAULT_TRANSACTION_DEFERRABLE", "TRANSACTION_DEFERRABLE"}
)  # fmt: skip
_MANAGING: Final = frozenset({"BEGIN", "START", "COMMIT", "END", "ABORT"})
_POINTS: Final = frozenset({"SAVEPOINT", "RELEASE"})


def managed(text: Read, *, within: bool) -> None:
    """Refuse what manages transactions, or what the session needs as it is. `within`: an explicit transaction is open.

    Raises InvalidInput.
    """
    words = text.words
    first, second = words[0] if words else "", words[1] if len(words) > 1 else ""
    points = first in _POINTS or (first == "ROLLBACK" and "TO" in words)
    if (
        first in _MANAGING
        or (first == "ROLLBACK" and not points)
        or (points and not within)
        or (first, second) == ("PREPARE", "TRANSACTION")
    ):
        raise InvalidInput(
            f"{first} manages transactions by itself", hint="use begin, commit and rollback of the session"
        )
    if first in ("SET", "RESET"):
        named = [t.text.upper() for t in text.tokens[1:] if t.kind in ("word", "name")][:3]
        while named and named[0] in ("SESSION", "LOCAL"):
            del named[0]
        what = named[0] if named else ""
        if what in _TRANSACTION:
            raise InvalidInput(
                f"{first} {what} manages transactions by itself", hint="use begin, commit and rollback of the session"
            )
        if what in _FIXED:
            raise InvalidInput(
                f"a query does not set {what.lower()}: answers are read in UTF-8, in UTC and in ISO dates",
                hint="convert in the statement (AT TIME ZONE, to_char …) instead",
            )


# ------------------------------------------------------------------------------------------------------------ only reading

READING: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
"""What may stand in brackets, behind EXPLAIN, and in FROM."""
_CHANGES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_LOCKS: Final = (("FOR", "UPDATE"), ("FOR", "SHARE"), ("FOR", "NO"), ("FOR", "KEY"))
_FUNCTIONS: Final = {
    "set_config": "changes settings", "nextval": "moves a sequence on", "setval": "moves a sequence on", "pg_notify": "notifies",
    "pg_cancel_backend": "stops another session's query", "pg_terminate_backend": "ends another session", "pg_reload_conf": "makes the server read its configuration",
    "pg_rotate_logfile": "acts on the server", "pg_promote": "acts on the server", "pg_switch_wal": "acts on the server", "pg_stat_file": "reads the server's files",
    "pg_export_snapshot": "writes a file on the server", "pg_create_restore_point": "writes to the log of the server",
    "pg_logical_emit_message": "writes to the log of the server", "pg_current_xact_id": "takes a transaction id", "txid_current": "takes a transaction id",
    "query_to_xml": "runs the SQL of a text", "query_to_xmlschema": "runs the SQL of a text", "query_to_xml_and_xmlschema": "runs the SQL of a text",
    "ts_stat": "runs the SQL of a text", "ts_rewrite": "may run the SQL of a text", "connectby": "runs the SQL of a text",
    "pg_log_backend_memory_contexts": "writes to the log of the server", "set_limit": "changes settings", "loread": "reads a large object by its handle",
    "lowrite": "writes a large object",
}  # fmt: skip
_FAMILIES: Final = (
    ("lo_", "acts on large objects"),
    ("dblink", "leads to another server"),
    ("pg_advisory_", "locks"),
    ("pg_try_advisory_", "locks"),
    ("pg_read_", "reads the server's files"),
    ("pg_ls_", "reads the server's folders"),
    ("pg_file_", "writes the server's files"),
    ("pg_logdir", "reads the server's folders"),
    ("pg_stat_reset", "resets statistics"),
    ("pg_replication_", "acts on replication"),
    ("pg_logical_slot_", "acts on replication"),
    ("pg_create_", "acts on the server"),
    ("pg_drop_", "acts on the server"),
    ("pg_copy_", "acts on the server"),
    ("pg_backup_", "acts on the server"),
    ("pg_wal_replay_", "acts on the server"),
    ("pg_import_", "acts on the server"),
    ("binary_upgrade_", "acts on the server"),
    ("crosstab", "runs the SQL of a text"),
)
_READS: Final = frozenset({"lo_get"})
_HARMLESS: Final = frozenset(
    {"random", "random_normal", "setseed", "gen_random_uuid", "gen_random_bytes", "gen_salt", "uuidv4", "uuidv7", "uuid_generate_v1",
     "uuid_generate_v1mc", "uuid_generate_v4", "clock_timestamp", "timeofday", "pg_sleep", "currval", "lastval", "array_sample", "array_shuffle",
     "lo_get", "bernoulli", "system", "system_rows", "system_time", "pg_blocking_pids", "pg_safe_snapshot_blocking_pids", "pg_collation_actual_version",
     "pg_database_collation_actual_version", "pg_control_checkpoint", "pg_control_init", "pg_control_recovery", "pg_control_system",
     "pg_current_logfile", "pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_database_size", "pg_indexes_size",
     "pg_relation_size", "pg_table_size", "pg_tablespace_size", "pg_total_relation_size", "pg_is_in_recovery", "pg_is_wal_replay_paused",
     "pg_jit_available", "pg_lock_status", "pg_partition_ancestors", "pg_partition_tree", "pg_prepared_xact", "pg_xact_commit_timestamp",
     "pg_xact_commit_timestamp_origin", "pg_xact_status", "txid_status", "pg_stat_have_stats", "pg_notification_queue_usage",
     "pg_sequence_last_value", "pg_show_replication_origin_status", "pg_stat_statements", "pg_stat_statements_info", "pg_last_committed_xact",
     "pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pgstattuple", "pgstatindex", "pgstatginindex",
     "pgstathashindex", "pgstattuple_approx", "pg_relpages", "pg_buffercache_pages"}
)  # fmt: skip
_HARMLESS_FAMILIES: Final = ("pg_stat_get_", "pg_get_")
_HINT: Final = "run it as a write, which asks for the right to"


def reading(text: Read) -> None:
    """Refuse what does not begin as a reading statement does, or holds what acts. Raises PermissionDenied."""
    if text.escaped:
        raise _refused('a name with escapes (U&"…") is not read', "write the name without them")
    first = text.first
    if first == "EXPLAIN":
        _explains(text)
    elif first not in READING and (first != "SHOW" or text.tokens[0].text != "SHOW"):
        raise _refused(f"{first or text.tokens[0].text!r} does not begin a read-only statement")
    for here, after in zip(text.tokens, (*text.tokens[1:], Token("mark", "", -1)), strict=True):
        if here.kind == "word":
            if here.text == "INTO" and first != "SHOW":
                raise _refused("INTO makes a table")
            if (here.text, after.text) in _LOCKS and after.kind == "word":
                raise _refused(f"FOR {after.text} locks rows")
    if changes(text):
        raise _refused("a part of it changes rows")
    for name in called(text):
        why = _FUNCTIONS.get(name) or next(
            (why for family, why in _FAMILIES if name.startswith(family) and name not in _READS), None
        )
        if why is not None:
            raise _refused(f"{name}() {why}")


def changes(text: Read) -> bool:
    """Say whether a part in brackets is an INSERT, UPDATE, DELETE or MERGE."""
    tokens = text.tokens
    return any(
        here.text in _CHANGES and here.kind == "word" and before.text == "(" and after.kind in ("word", "name")
        for before, here, after in zip(tokens, tokens[1:], tokens[2:], strict=False)
    )


def called(text: Read) -> tuple[str, ...]:
    """Return the names that stand before an opening bracket, as the server knows them."""
    found: dict[str, None] = {}
    for here, after in zip(text.tokens, text.tokens[1:], strict=False):
        if after.text == "(" and after.kind == "mark" and here.kind in ("word", "name"):
            found[here.text.lower() if here.kind == "word" else here.text] = None
    return tuple(found)


def volatile(names: Iterable[str]) -> str:
    """Return SQL for those of some names that are volatile functions in C or in an untrusted language."""
    listed = ", ".join(literal(name) for name in names)
    return (
        "SELECT DISTINCT p.proname::pg_catalog.text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l "
        "ON l.oid OPERATOR(pg_catalog.=) p.prolang WHERE p.provolatile OPERATOR(pg_catalog.=) 'v' AND NOT l.lanpltrusted "
        f"AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[{listed}]::pg_catalog.name[])"
    )


def refuse_volatile(names: Iterable[str]) -> None:
    """Refuse what the server says is volatile and is not known to do nothing. Raises PermissionDenied."""
    for name in sorted(names):
        if name not in _HARMLESS and not name.startswith(_HARMLESS_FAMILIES):
            raise _refused(
                f"{name}() is a volatile function of the server or of an extension, and not known to do nothing"
            )


def _explains(text: Read) -> None:
    """Refuse EXPLAIN of what is not a reading statement, unless it is only planned."""
    at, analyzes, tokens = 1, False, text.tokens
    if at < len(tokens) and tokens[at].text == "(" and not _begins_statement(tokens[at + 1 :]):
        while at < len(tokens) and tokens[at].text != ")":
            analyzes |= tokens[at].text.upper().startswith("ANALY")
            at += 1
        at += 1
    while at < len(tokens) and tokens[at].text in ("ANALYZE", "ANALYSE", "VERBOSE"):
        analyzes |= tokens[at].text != "VERBOSE"
        at += 1
    word = next((t.text for t in tokens[at:] if t.text != "("), "")
    if word not in READING and (analyzes or word not in _CHANGES):
        raise _refused(f"EXPLAIN of {word or 'nothing'} may do more than read")


def _begins_statement(tokens: tuple[Token, ...]) -> bool:
    return next((t.text for t in tokens if t.text != "("), "") in READING


def _refused(what: str, hint: str = _HINT) -> PermissionDenied:
    return PermissionDenied(f"read-only: {what}", hint=hint)
