"""What a statement seems to do. Advice for people and for choosing a door, never a defence: what may be written, the server decides.

The whole tree is walked (sqlglot): a SELECT whose CTE deletes, writes. What cannot be read for certain is `unknown`, which counts as a write.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput, Unsupported
from dblens.query.advice import Warning_
from dblens.query.lex import Token, tokens

if TYPE_CHECKING:
    from sqlglot import exp

Action = Literal["read", "write", "ddl", "transaction", "session", "unknown"]
_GRAVITY: Final = ("read", "transaction", "session", "write", "ddl", "unknown")
_LONGEST = 200_000
"""Characters of a statement that are still parsed: about half a second. A longer one is known by its first word, or unknown."""
_CACHED = 50_000


class Kind(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a statement seems to do: the gravest of its parts, its verbs, the tables it names (without those of its own WITH)."""

    action: Action
    verbs: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    warnings: tuple[Warning_, ...] = ()

    @property
    def reads(self) -> bool:
        """Return whether it is known to do nothing but read."""
        return self.action == "read"


_FIRST: Final[dict[str, Action]] = {
    **dict.fromkeys(("BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "END", "ABORT", "XA"), "transaction"),
    **dict.fromkeys(("SET", "RESET", "DISCARD", "USE", "DEALLOCATE", "LISTEN", "UNLISTEN", "LOCK", "UNLOCK", "ATTACH", "DETACH", "CLOSE"), "session"),
    **dict.fromkeys(("SHOW", "HELP"), "read"),
    **dict.fromkeys(("NOTIFY", "VACUUM", "LOAD", "COPY", "FLUSH", "KILL", "OPTIMIZE", "REPAIR", "CHECKPOINT", "PURGE", "CLUSTER", "REFRESH"), "write"),
    **dict.fromkeys(("CREATE", "ALTER", "DROP", "TRUNCATE", "GRANT", "REVOKE", "RENAME", "COMMENT", "SECURITY", "REASSIGN", "IMPORT", "REINDEX"), "ddl"),
}  # fmt: skip
"""Statements that their first word tells."""
_PARSED = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE"})
_WARNED = frozenset({"CREATE", "ALTER", "DROP", "TRUNCATE"})
_INNER = _PARSED | {"CREATE", "EXECUTE", "DECLARE", "REFRESH", "CALL", "DO"}
_GLOBAL = frozenset({"GLOBAL", "PERSIST", "PERSIST_ONLY", "PASSWORD", "DEFAULT", "RESOURCE"})
"""After SET: what is more than the session's."""
_PRAGMAS = frozenset(
    {
        "collation_list", "compile_options", "database_list", "foreign_key_check", "foreign_key_list", "function_list", "index_info", "index_list",
        "index_xinfo", "integrity_check", "module_list", "pragma_list", "quick_check", "table_info", "table_list", "table_xinfo",
    }
)  # fmt: skip
"""Pragmas that only tell, also with an argument."""
_ACTING = frozenset({"incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint"})
"""Pragmas that do something without an argument."""
_FUNCTIONS: Final[dict[str, re.Pattern[str]]] = {
    "postgres": re.compile(
        r"nextval|setval|set_config|lo_(?!get$).*|lowrite|dblink.*|txid_current|query_to_xml.*|query_to_json|cursor_to_xml.*|ts_rewrite|ts_stat"
        r"|(?:database|schema|table)_to_xml.*|currtid.*|brin_.*|gin_clean_pending_list|binary_upgrade.*"
        r"|pg_(?!get_|typeof$|size_|column_|sleep|backend_pid$|is_|stat_get_|postmaster_|conf_load_time$|current_wal|last_|wal_lsn_|walfile_|relation_|show_"
        r"|timezone_|lock_status$|available_|options_to_table$|char_to_|encoding_|collation_|has_role$|my_temp_schema$|client_encoding$|xact_|ls_|stat_file$"
        r"|hba_|ident_|identify_|describe_|tablespace_|database_|snapshot_|visible_|trigger_depth$|safe_|partition_|sequence_|input_|control_|blocking_|read_"
        r"|index_|indexes_|indexam_|table_size$|table_is_|total_|type_is_|function_is_|operator_is_|opclass_is_|opfamily_is_|conversion_is_|ts_.*_is_"
        r"|statistics_|filenode_|jit_|mcv_|listening_|notification_|other_temp|extension_|cursor$|prepared_|config$|event_trigger_"
        r"|safe_snapshot).*"
    ),
    "mysql": re.compile(
        r"get_lock|release_lock|release_all_locks|nextval|setval|sys_.*|master_.*|source_pos_wait|wait_for_.*|wait_until_.*|load_file|asynchronous_.*"
        r"|group_replication_.*|version_tokens_.*|keyring_.*|audit_.*|mysql_firewall.*|set_firewall.*|service_(?:get|release)_.*|gen_.*|mask_.*|ps_.*|http.*"
    ),
    "sqlite": re.compile(r"load_extension|readfile|writefile|edit|fts3_tokenizer|zipfile|sqlar_.*|fileio_.*|lsmode|fsdir"),
}  # fmt: skip
"""Functions that change something, take locks or reach beyond the database. PostgreSQL's `pg_…`: all but those known to tell only."""


def classify(statement: str, lexis: Lexis) -> Kind:
    """Return what one statement seems to do.

    Raises Unsupported without sqlglot. A text that cannot be read, or is more than one statement, is `unknown`.
    """
    return _cached(statement, lexis) if len(statement) <= _CACHED else _classified(statement, lexis)


def _classified(statement: str, lexis: Lexis) -> Kind:
    if lexis.dialect:
        _need_parser()
    try:
        if not lexis.dialect:
            from dblens.query.script import classify_script

            return classify_script(statement, lexis)
        if len(statement) > _LONGEST:
            return _by_first_word(statement, lexis)
        kinds = [_plain(text, lexis) for text in _readings(statement, lexis)]
    except InvalidInput:  # it does not even fall into tokens
        return Kind("unknown")
    if not kinds:
        return Kind("unknown")
    gravest = max(kinds, key=lambda kind: _GRAVITY.index(kind.action))
    return msgspec.structs.replace(
        gravest,
        verbs=tuple(dict.fromkeys(verb for kind in kinds for verb in kind.verbs)),
        tables=tuple(dict.fromkeys(table for kind in kinds for table in kind.tables)),
        warnings=tuple(dict.fromkeys(warning for kind in kinds for warning in kind.warnings)),
    )


def _by_first_word(statement: str, lexis: Lexis) -> Kind:
    """Classify a text that is too long to be parsed: a change of rows is known as such, anything else is unknown."""
    first = next((token for token in tokens(statement, lexis) if token.kind != "comment"), None)
    word = statement[first.start : first.end].lower() if first is not None and first.kind == "word" else ""
    return Kind(
        "write" if word in ("insert", "replace", "update", "delete", "merge") else "unknown", (word,) if word else ()
    )


_cached = lru_cache(maxsize=512)(_classified)
_EXECUTED = re.compile(r"/\*M?!\d*.*?(?:\*/|\Z)", re.DOTALL)


def _readings(statement: str, lexis: Lexis) -> list[str]:
    """Return the texts that the statement may be to a server, comments left out: an executed comment is run, or it is not.

    Raises InvalidInput for more than one of them: which one hides the other's quotes, only the server knows.
    """
    found = list(tokens(statement, lexis))
    opened = sum(1 for token in found if token.kind == "opened")
    if not opened:
        return [_without(statement, found, ("comment",))]
    if opened > 1 or len(_EXECUTED.findall(statement)) > 1:
        raise InvalidInput("more than one executed comment")
    skipped = _EXECUTED.sub(" ", statement)
    readings = [_without(statement, found, ("comment", "opened", "closed"))]
    rest = list(tokens(skipped, lexis))
    if any(token.kind not in ("comment", "end") for token in rest):
        readings.append(_without(skipped, rest, ("comment",)))
    return readings


def _without(text: str, found: list[Token], kinds: tuple[str, ...]) -> str:
    pieces, at = [], 0
    for token in found:
        if token.kind in kinds:
            pieces += [text[at : token.start], " "]
            at = token.end
    return "".join([*pieces, text[at:]]).strip().rstrip(";")


def _plain(text: str, lexis: Lexis) -> Kind:
    """Classify a text without comments."""
    found = list(tokens(text, lexis))
    words = [text[token.start : token.end].upper() if token.kind == "word" else "" for token in found]
    if not found or any(token.kind in ("end", "opened") for token in found):
        return Kind("unknown")
    start = next((n for n, token in enumerate(found) if text[token.start] != "("), 0)
    first, second = words[start], words[start + 1] if start + 1 < len(words) else ""
    verb = (first.lower(),) if first else ()
    if start and first not in _PARSED:
        return Kind("unknown")
    match first:
        case "BEGIN" if second in ("NOT", "ATOMIC"):
            return Kind("unknown", verb)
        case "SET" if second == "TRANSACTION":
            return Kind("transaction", verb)
        case "PREPARE" if second == "TRANSACTION":
            return Kind("transaction", verb)
        case "SET" | "ALTER" if second in _GLOBAL | {"SYSTEM"} or re.search(
            r"@@\s*(?:global|persist)", text, re.IGNORECASE
        ):
            return Kind("ddl", verb)
        case "PRAGMA":
            return Kind(_pragma(text, found[start + 1 :]), verb)
        case "EXPLAIN" | "DESCRIBE" | "DESC":
            return _explained(text, found, words, lexis)
        case "ANALYZE" | "ANALYSE":  # MariaDB: runs the statement; elsewhere: gathers statistics
            inner = next((n for n, word in enumerate(words) if word in _INNER and word != "TABLE"), None)
            return Kind("write", verb) if inner is None else _plain(text[found[inner].start :], lexis)
    if first in _WARNED:
        return _ddl(text, first, words, found, lexis)
    if first in _FIRST:
        return Kind(_FIRST[first], verb)
    if first not in _PARSED:
        return Kind("unknown", verb)
    return _parsed(text, first, lexis)


def _pragma(text: str, rest: list[Token]) -> Action:
    said = [text[token.start : token.end] for token in rest]
    if len(said) >= 3 and said[1] == ".":
        said = said[2:]
    name = said[0].strip('"`[]').lower() if said else ""
    if name in _PRAGMAS:
        return "read"
    return "write" if len(said) != 1 or name in _ACTING else "read"


def _explained(text: str, found: list[Token], words: list[str], lexis: Lexis) -> Kind:
    """Classify EXPLAIN: what is analyzed is run, and `EXPLAIN … INTO` keeps the plan in a variable."""
    inner = next((n for n, word in enumerate(words) if n and word in _INNER), None)
    options = words[1:inner] if inner is not None else words[1:]
    if "INTO" in options and inner is not None:
        return Kind("session", ("explain",))
    if not {"ANALYZE", "ANALYSE"} & set(options):
        return Kind("read", ("explain",))
    if inner is None:
        return Kind("unknown", ("explain",))
    kind = _plain(text[found[inner].start :], lexis)
    return msgspec.structs.replace(kind, verbs=("explain", *kind.verbs))


def _ddl(text: str, first: str, words: list[str], found: list[Token], lexis: Lexis) -> Kind:
    from dblens.query.advice import of_ddl

    tree = _tree(text, lexis)
    tables = _tables(tree) if tree is not None else ()
    named = tables[0] if tables else _after(text, words, found)
    return Kind("ddl", (first.lower(),), tables, of_ddl(first, words, ", ".join(tables) or named))


def _after(text: str, words: list[str], found: list[Token]) -> str:
    """Return the first name that stands behind the words of a DDL statement which no parser reads."""
    for token, word in zip(found[1:], words[1:], strict=True):
        if token.kind == "name" or (token.kind == "word" and word not in _NOISE):
            return text[token.start : token.end]
    return ""


_NOISE = frozenset(
    {
        "TABLE", "VIEW", "INDEX", "MATERIALIZED", "IF", "EXISTS", "NOT", "ONLY", "TEMPORARY", "TEMP", "DATABASE", "SCHEMA", "FUNCTION", "PROCEDURE",
        "TRIGGER", "SEQUENCE", "TYPE", "DOMAIN", "EXTENSION", "ROLE", "USER", "CONCURRENTLY", "UNIQUE", "EVENT", "OR", "REPLACE", "FOREIGN",
    }
)  # fmt: skip


def _need_parser() -> None:
    try:
        import sqlglot  # noqa: F401 - whether it is there
    except ImportError:
        raise Unsupported(
            "classifying statements", "sqlglot is not installed", hint="pip install 'dblens[query]'"
        ) from None


def _tree(text: str, lexis: Lexis) -> exp.Expr | None:
    """Return the one statement that a text is, None for what sqlglot does not read."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    _quiet()
    try:
        trees = sqlglot.parse(text, dialect=lexis.dialect, error_level=sqlglot.ErrorLevel.RAISE)
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError, IndexError, KeyError, AssertionError):
        return None  # its own faults too: what it cannot read is unknown
    return trees[0] if len(trees) == 1 else None


@lru_cache(maxsize=1)
def _quiet() -> None:
    """Keep sqlglot from telling the log that it does not know a statement: that is an answer here, and the text may be private."""
    import logging

    logging.getLogger("sqlglot").addFilter(lambda record: "Falling back" not in str(record.msg))


def _parsed(text: str, first: str, lexis: Lexis) -> Kind:
    """Classify a query or a change of rows by all of its tree."""
    from sqlglot import exp

    from dblens.query.advice import of_tree

    writes = first in ("INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE")
    fallback = Kind("write" if writes else "unknown", (first.lower(),))
    tree = _tree(re.sub(r"\AREPLACE\b", "INSERT", text, flags=re.IGNORECASE), lexis)
    if tree is None:
        # A CTE of PostgreSQL or a multi-table statement that the parser does not know may do more than its first word says.
        return msgspec.structs.replace(fallback, action="unknown")
    pattern = _FUNCTIONS.get(lexis.dialect)
    actions: list[Action] = []
    verbs = [] if first in ("WITH", "VALUES", "TABLE") else [first.lower()]
    for node in tree.walk():
        match node:
            case exp.Insert() | exp.Update() | exp.Delete() | exp.Merge():
                actions.append("write")
                verbs.append("replace" if node is tree and first == "REPLACE" else node.key)
            case exp.Into():
                variable = node.find(exp.Parameter, exp.SessionParameter)
                actions.append("session" if variable is not None else "ddl")
            case exp.Lock():
                actions.append("write")
            case exp.Select() | exp.SetOperation():
                verbs.append("select")
            case (
                exp.Command()
                | exp.DDL()
                | exp.Drop()
                | exp.Alter()
                | exp.TruncateTable()
                | exp.Set()
                | exp.Pragma()
                | exp.Copy()
            ):
                if not isinstance(node, exp.Query | exp.Insert):
                    actions.append("unknown")
            case exp.NextValueFor():
                actions.append("write")
            case exp.Func() if pattern is not None and pattern.fullmatch(_function(node)):
                actions.append("write")
    if not isinstance(tree, exp.Query | exp.Values | exp.Insert | exp.Update | exp.Delete | exp.Merge):
        actions.append("unknown")
    worst: Action = max(actions, key=_GRAVITY.index, default="read")
    return Kind(worst, tuple(dict.fromkeys(verbs)), _tables(tree), of_tree(tree))


def _function(node: exp.Func) -> str:
    from sqlglot import exp

    return str(node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()


def _tables(tree: exp.Expr) -> tuple[str, ...]:
    """Return the tables that a tree names, without those that its WITH makes."""
    from sqlglot import exp

    made = {cte.alias for cte in tree.find_all(exp.CTE)}
    found = []
    for table in tree.find_all(exp.Table):
        parts = [part.name for part in table.parts if isinstance(part, exp.Identifier)]
        if parts and not (len(parts) == 1 and parts[0] in made):
            found.append(".".join(parts))
    return tuple(dict.fromkeys(found))
