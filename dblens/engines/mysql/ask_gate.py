"""Which statements may run: an allow-list by the words of a statement, for what the server's read-only transaction does not stop.

It stops INSERT, DDL and their like; it does not stop files (INTO OUTFILE, LOAD_FILE), global variables, locks of tables and by name,
and what commits first. So a read-only statement must begin as a reading one does, and hold none of the words and functions below,
whether a name is quoted or not. Comments that the server executes (`/*! … */`) are refused in it: which of them are executed
depends on the server. Stored functions and views act inside of the server with their makers' rights, where no list of words sees them.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, cast

from dblens.errors import Conflict, InvalidInput, PermissionDenied

Kind = Literal["word", "name", "string", "number", "mark"]


class Token(NamedTuple):
    """A piece of a statement that means something."""

    kind: Kind
    text: str
    """A word in upper case, a name without its quotes, otherwise as it stands."""
    at: int


# The session's sql_mode is ours: `"` holds strings, a backslash escapes. Comments are taken as the server takes them: `--` needs white
# space or a control character behind it. A number ends where the server's lexer may end it (`1.5INTO` is two tokens).
# No lookahead within what is repeated: before Python 3.11.5 a possessive repeat goes on from where the last try failed (gh-106052).
_TOKEN = re.compile(
    r"""[ \t\n\v\f\r]*+(?:
      (?P<comment>--(?=[\x00-\x20\x7f]|\Z)[^\n]*+|\#[^\n]*+|/\*(?!M?!)[^*]*+\*++(?:[^/*][^*]*+\*++)*+/)
    | (?P<opened>/\*M?!\d*+)
    | (?P<closed>\*/)
    | (?P<string>'(?:[^'\\]|''|\\.)*+'|"(?:[^"\\]|""|\\.)*+")
    | (?P<name>`(?:[^`]|``)*+`)
    | (?P<unclosed>['"`]|/\*)
    | (?P<number>\d++(?:\.\d*+)?(?:[eE][+-]?\d++)?)
    | (?P<word>[A-Za-z_$\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+)
    | (?P<mark>.)
    )""",
    re.DOTALL | re.VERBOSE,
)
_BODIES = frozenset({"CREATE", "ALTER", "BEGIN", "IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR", "DECLARE"})


class Read(NamedTuple):
    """A statement's tokens, and what stood around them."""

    tokens: tuple[Token, ...]
    executed: bool
    """It holds a comment that servers execute."""
    end: int
    """Where its last token ends: what is behind is `;`, comments and white space."""
    hints: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple([t.text for t in self.tokens if t.kind == "word"][:4])


def read(statement: str) -> Read:
    """Return a statement in tokens. Raises InvalidInput for text that does not end, is empty, or is more than one statement."""
    if "\0" in statement:
        raise InvalidInput("the statement holds a U+0000", hint="write it as \\0 within a string")
    tokens: list[Token] = []
    executed, inside, semicolon, end, at = False, False, -1, 0, 0
    hints: list[str] = []
    while at < len(statement):
        found = _TOKEN.match(statement, at)
        if found is None:
            break  # white space
        kind = found.lastgroup or ""
        start, at = found.span(kind)
        text = found[kind]
        if kind == "comment":
            if text.startswith("/*+"):
                hints.append(text.upper())
            continue
        if kind == "opened":
            executed = inside = True
            end = at
            continue
        if kind == "closed" and inside:
            inside = False
            end = at
            continue
        if kind == "unclosed" or (kind == "closed" and not inside):
            if kind == "closed":
                tokens += [Token("mark", "*", start), Token("mark", "/", start + 1)]
                end = at
                continue
            raise InvalidInput(f"what {text} opens at character {start + 1} does not end", hint="close it")
        if kind == "mark" and text == ";":
            semicolon = start if semicolon < 0 else semicolon
            continue
        if semicolon >= 0 and (not tokens or tokens[0].text not in _BODIES):
            raise InvalidInput(
                f"more than one statement: another begins at character {start + 1}", hint="run them one by one"
            )
        if kind == "word":
            text = text.upper()
        elif kind == "name":
            text = text[1:-1].replace("``", "`")
        tokens.append(Token(cast(Kind, kind), text, start))
        end = at
    if inside:
        raise InvalidInput("an executed comment does not end", hint="close it")
    if not tokens:
        raise InvalidInput("there is no statement in the text", hint="write one")
    return Read(tuple(tokens), executed, end, " ".join(hints))


# ------------------------------------------------------------------------------------------------ what is the session's affair

_FIXED: Final = (
    "AUTOCOMMIT", "SQL_MODE", "TIME_ZONE", "NAMES", "CHARACTER_SET_CLIENT", "CHARACTER_SET_RESULTS", "CHARACTER_SET_CONNECTION",
    "COLLATION_CONNECTION", "TRANSACTION_READ_ONLY", "TX_READ_ONLY", "COMPLETION_TYPE",
)  # fmt: skip
COMMITTING = frozenset(
    {"CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "GRANT", "REVOKE", "ANALYZE", "CHECK", "OPTIMIZE", "REPAIR", "FLUSH", "RESET",
     "INSTALL", "UNINSTALL", "CACHE", "LOCK", "UNLOCK", "CHANGE", "START", "STOP"}
)  # fmt: skip
"""First words of statements that commit what is open."""


def managed(text: Read, *, within: bool) -> None:
    """Refuse what manages transactions, or what the session needs as it is. `within`: an explicit transaction is open.

    Raises InvalidInput, Conflict for what would commit the open transaction.
    """
    words = text.words
    first, second = words[0] if words else "", words[1] if len(words) > 1 else ""
    hint = "use begin, commit and rollback of the session"
    if (
        first in ("COMMIT", "XA")
        or (first == "BEGIN" and second != "NOT")
        or (first, second) == ("START", "TRANSACTION")
    ):
        raise InvalidInput(f"{first} manages transactions by itself", hint=hint)
    points = first in ("SAVEPOINT", "RELEASE") or (first == "ROLLBACK" and "TO" in words)
    if (first == "ROLLBACK" and not points) or (points and not within):
        raise InvalidInput(f"{first} manages transactions by itself", hint=hint)
    if first in ("LOCK", "UNLOCK") and second in ("TABLE", "TABLES"):
        raise InvalidInput(f"{first} {second} manages transactions by itself", hint=hint)
    if first == "SET":
        named = {t.text.upper() for t in text.tokens if t.kind in ("word", "name")}
        if "TRANSACTION" in named and second in ("TRANSACTION", "SESSION", "LOCAL", "GLOBAL"):
            raise InvalidInput("SET TRANSACTION manages transactions by itself", hint=hint)
        fixed = sorted(named.intersection(_FIXED)) if "GLOBAL" not in named and "PERSIST" not in named else []
        charset = {"CHARSET"} & named or ({"CHARACTER"} & named and {"SET"} & named)
        if fixed or charset:
            raise InvalidInput(
                f"a query does not set {(fixed or ['CHARACTER SET'])[0].lower()}: answers are read in UTF-8, UTC and one sql_mode",
                hint="convert in the statement (convert_tz(…), convert(… using …)) instead",
            )
    temporary = first in ("CREATE", "DROP") and "TEMPORARY" in words
    if (
        within
        and first in COMMITTING
        and not temporary
        and not (first == "ANALYZE" and second in ("FORMAT", "SELECT", "WITH"))
    ):
        raise Conflict(
            f"{first} would commit the open transaction", hint="commit or roll it back first, then run this by itself"
        )


# ------------------------------------------------------------------------------------------------------------ only reading

_READING = frozenset({"SELECT", "WITH", "TABLE", "VALUES", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "ANALYZE", "HELP"})
_WORDS: Final = {
    "INTO": "writes its rows into a file or variable",
    "UPDATE": "updates, or locks rows",
    "DELETE": "deletes",
    "OUTFILE": "writes a file on the server",
    "DUMPFILE": "writes a file on the server",
    "PROCEDURE": "runs a procedure",
    "NEXTVAL": "moves a sequence on",
    "SETVAL": "moves a sequence on",
}
_CALLED: Final = {"INSERT", "REPLACE", "TRUNCATE"}
"""Words that are functions when a bracket follows, and write otherwise."""
_FUNCTIONS: Final = {
    "get_lock": "takes a lock by name", "release_lock": "frees a lock by name", "release_all_locks": "frees locks by name",
    "load_file": "reads a file of the server", "nextval": "moves a sequence on", "setval": "moves a sequence on",
    "sys_exec": "runs a program on the server", "sys_eval": "runs a program on the server", "sys_set": "sets the server's environment",
    "xp_cmdshell": "runs a program on the server", "set_user_variable": "sets a variable",
}  # fmt: skip
_FAMILIES: Final = (
    "group_replication_", "asynchronous_connection_failover_", "keyring_", "audit_log_", "mysql_firewall_", "set_firewall_", "version_tokens_",
    "service_get_", "service_release_", "gen_dictionary_", "masking_dictionar", "mask_dictionar", "innodb_redo_log_", "set_",
)  # fmt: skip
_LOCKS = (("FOR", "SHARE"), ("LOCK", "IN"), ("NEXT", "VALUE"), ("PREVIOUS", "VALUE"))
_HINT = "run it as a write, which asks for the right to"


def reading(text: Read) -> None:
    """Refuse what is not known to do nothing but read. Raises PermissionDenied."""
    if text.executed:
        raise _refused(
            "a comment that the server may execute (/*! … */) is not read-only", "write what is meant without it"
        )
    if "SET_VAR" in text.hints:
        raise _refused("the hint SET_VAR changes the session's variables")
    tokens = text.tokens
    first = next((t for t in tokens if t.text != "("), tokens[0])
    word = first.text if first.kind == "word" else ""
    if word not in _READING:
        raise _refused(f"{word or first.text!r} does not begin a read-only statement")
    words = text.words
    if word == "ANALYZE" and not _explains(words):
        raise _refused("ANALYZE writes statistics of tables")
    shows = word in ("SHOW", "HELP")
    for here, after in zip(tokens, (*tokens[1:], Token("mark", "", -1)), strict=True):
        called = after.text == "(" and after.kind == "mark"
        if here.kind == "word" and not (shows and here.text in ("PROCEDURE", "UPDATE", "DELETE")):
            if here.text in _WORDS:
                raise _refused(f"{here.text} {_WORDS[here.text]}")
            if here.text in _CALLED and not called:
                raise _refused(f"{here.text} writes")
            if (here.text, after.text) in _LOCKS and after.kind == "word":
                raise _refused(f"{here.text} {after.text} locks rows or moves a sequence on")
        if called and here.kind in ("word", "name"):
            name = here.text.lower()
            why = _FUNCTIONS.get(name) or ("acts on the server" if name.startswith(_FAMILIES) else None)
            if why is not None:
                raise _refused(f"{name}() {why}")
        if here.text == ":" and after.text == "=" and after.at == here.at + 1:
            raise _refused(":= sets a variable")


def _explains(words: tuple[str, ...]) -> bool:
    return len(words) > 1 and words[1] in (
        "SELECT",
        "WITH",
        "FORMAT",
        "TABLE" if len(words) > 2 and words[2] == "SELECT" else "SELECT",
    )


def _refused(what: str, hint: str = _HINT) -> PermissionDenied:
    return PermissionDenied(f"read-only: {what}", hint=hint)
