"""What may stand at a place of a text that is not finished: names by aliases, tables, kept queries, words.

Works on tokens of the statement around the place, so that the rest of it may be wrong. Knows no database: names come from `Known`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput
from dblens.query.lex import Token, tokens

MOST: Final = 500
"""Suggestions that are given: a longer list helps nobody, and is sent with every key."""
_BARE: Final = re.compile(r"[\w$]*\Z")
_WORDS: Final = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "BY",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "JOIN",
    "LEFT",
    "RIGHT",
    "INNER",
    "OUTER",
    "CROSS",
    "ON",
    "USING",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "LIKE",
    "BETWEEN",
    "EXISTS",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "DISTINCT",
    "UNION",
    "ALL",
    "EXCEPT",
    "INTERSECT",
    "WITH",
    "INSERT",
    "INTO",
    "VALUES",
    "UPDATE",
    "SET",
    "DELETE",
    "ASC",
    "DESC",
    "CREATE",
    "ALTER",
    "DROP",
    "TABLE",
    "VIEW",
    "INDEX",
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "COALESCE",
    "CAST",
]
RESERVED: Final = frozenset(
    {*_WORDS, "USER", "TABLE", "COLUMN", "KEY", "PRIMARY", "REFERENCES", "DEFAULT", "CHECK", "GRANT", "TO"}
)
_TABLE_FOLLOWS: Final = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "DESCRIBE", "DESC"})
_ENDS: Final = frozenset(
    {"WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "SET", "ON", "USING", "SELECT", "UNION", "VALUES"}
)
_METHODS: Final = [
    "find",
    "findOne",
    "aggregate",
    "countDocuments",
    "estimatedDocumentCount",
    "distinct",
    "getIndexes",
    "explain",
    "insertOne",
    "insertMany",
    "updateOne",
    "updateMany",
    "replaceOne",
    "deleteOne",
    "deleteMany",
]


class Suggestion(NamedTuple):
    """A text that may stand there, and what it is."""

    text: str
    kind: str


class Known(Protocol):
    """What is known of a database."""

    def namespaces(self) -> Sequence[str]: ...
    def tables(self, namespace: str | None = None) -> Sequence[str]: ...
    def columns(self, table: str, namespace: str | None = None) -> Sequence[str]: ...
    def queries(self) -> Sequence[str]: ...
    def spelled(self, name: str) -> str: ...


class _Used(NamedTuple):
    """A table that a statement uses."""

    name: str
    namespace: str | None
    alias: str | None


def sql(text: str, at: int, lexis: Lexis, known: Known) -> tuple[str, list[Suggestion]]:
    """Return the characters before the place that would be replaced, and what may stand there."""
    fragment = _fragment(text[:at])
    start = at - len(fragment)
    before, after = _tokens(text[:start], lexis), _tokens(text[at:], lexis)
    if before is None:  # within a string or a comment
        return fragment, []
    head = _since_end(text, before)
    used = _used(text, head) + _used_after(text[at:], after)
    if head and text[head[-1].start : head[-1].end] == "." and head[-1].end == start and len(head) > 1:
        path = [_name(text, each) for each in _path(text, head[:-1])]
        return fragment, _ranked(fragment, _within(path, used, known))
    word = _last_word(text, head)
    if word in _TABLE_FOLLOWS or (word == "," and _in_tables(text, head)):
        found = [Suggestion(name, "query") for name in known.queries()]
        found += [Suggestion(known.spelled(name), "table") for name in known.tables()]
        found += [Suggestion(known.spelled(name), "schema") for name in known.namespaces()]
        return fragment, _ranked(fragment, found)
    found = []
    for table in used:
        found += [Suggestion(known.spelled(name), "column") for name in known.columns(table.name, table.namespace)]
    found += [
        Suggestion(table.alias or known.spelled(table.name), "alias" if table.alias else "table") for table in used
    ]
    if fragment:
        upper = fragment[:1].isupper()
        found += [Suggestion(each if upper else each.lower(), "keyword") for each in _WORDS]
        found += [Suggestion(known.spelled(name), "table") for name in known.tables()]
    return fragment, _ranked(fragment, found)


def shell(text: str, at: int, known: Known) -> tuple[str, list[Suggestion]]:
    """Return what may stand at a place of a MongoDB shell's text: collections, their methods, fields."""
    fragment = _fragment(text[:at])
    before = text[: at - len(fragment)]
    if re.search(r"\bdb\s*\.\s*\Z", before):
        return fragment, _ranked(
            fragment, [Suggestion(name, "collection") for name in known.tables() if name.isidentifier()]
        )
    if re.search(r"\bdb\s*\.\s*[\w$]+\s*\.\s*\Z", before):
        return fragment, _ranked(fragment, [Suggestion(name, "method") for name in _METHODS])
    collection = re.findall(r"\bdb\s*\.\s*([\w$]+)", before)
    if collection and re.search(r"[{,\"'$]\s*\Z", before):
        return fragment, _ranked(fragment, [Suggestion(name, "field") for name in known.columns(collection[-1])])
    return fragment, [Suggestion("db", "variable")] if fragment and "db".startswith(fragment) else []


def _fragment(text: str) -> str:
    found = _BARE.search(text)
    return found[0] if found else ""


def _ranked(fragment: str, found: Sequence[Suggestion]) -> list[Suggestion]:
    """Return those that begin with the fragment, then those that hold it, each once, in the order they came."""
    small = fragment.casefold()
    kept = {each.text.casefold(): each for each in reversed(found) if small in each.text.casefold()}
    order = [each for each in dict.fromkeys(each.text.casefold() for each in found) if each in kept]
    order.sort(key=lambda text: not text.strip('"`').startswith(small))
    return [kept[each] for each in order][:MOST]


# ------------------------------------------------------------------------------------------------------------------------ tokens


def _tokens(text: str, lexis: Lexis) -> list[Token] | None:
    """Return the tokens of a text, None when it ends within a string or a comment."""
    try:
        found = list(tokens(text, lexis))
    except InvalidInput:
        return None
    if found and found[-1].kind == "comment" and found[-1].end == len(text) and not text.endswith(("\n", "*/")):
        return None
    return [each for each in found if each.kind != "comment"]


def _since_end(text: str, found: Sequence[Token]) -> list[Token]:
    """Return the tokens after the last delimiter."""
    for at in range(len(found) - 1, -1, -1):
        if found[at].kind == "end" or text[found[at].start : found[at].end] == ";":
            return list(found[at + 1 :])
    return list(found)


def _last_word(text: str, found: Sequence[Token]) -> str:
    return text[found[-1].start : found[-1].end].upper() if found else ""


def _path(text: str, found: Sequence[Token]) -> list[Token]:
    """Return the names of `a.b` at the end."""
    path = [found[-1]]
    at = len(found) - 2
    while at >= 1 and text[found[at].start : found[at].end] == "." and found[at - 1].kind in ("word", "name"):
        path.insert(0, found[at - 1])
        at -= 2
    return path


def _name(text: str, token: Token) -> str:
    found = text[token.start : token.end]
    return found[1:-1].replace(found[-1] * 2, found[-1]) if token.kind == "name" else found


def _in_tables(text: str, found: Sequence[Token]) -> bool:
    """Return whether a comma stands between tables."""
    for token in reversed(found):
        word = text[token.start : token.end].upper()
        if word in _ENDS or word == "(":
            return False
        if word == "FROM":
            return True
    return False


def _used(text: str, found: Sequence[Token]) -> list[_Used]:
    return list(_tables(text, found))


def _used_after(text: str, found: Sequence[Token] | None) -> list[_Used]:
    """Return the tables named after the place: `SELECT o.| FROM orders o`."""
    if found is None:
        return []
    end = next((at for at, each in enumerate(found) if each.kind == "end"), len(found))
    return list(_tables(text, found[:end]))


def _tables(text: str, found: Sequence[Token]) -> Iterator[_Used]:
    at = 0
    expecting = False
    while at < len(found):
        word = text[found[at].start : found[at].end].upper()
        if word in ("FROM", "JOIN", "UPDATE", "INTO"):
            expecting = True
            at += 1
            continue
        if not expecting or found[at].kind not in ("word", "name") or word in _ENDS:
            expecting = expecting and word in (",", "LATERAL", "ONLY")
            at += 1
            continue
        path = [_name(text, found[at])]
        while (
            at + 2 < len(found)
            and text[found[at + 1].start : found[at + 1].end] == "."
            and found[at + 2].kind in ("word", "name")
        ):
            path.append(_name(text, found[at + 2]))
            at += 2
        at += 1
        alias = None
        if at < len(found) and text[found[at].start : found[at].end].upper() == "AS":
            at += 1
        if at < len(found) and found[at].kind in ("word", "name"):
            told = text[found[at].start : found[at].end]
            if told.upper() not in RESERVED:
                alias = _name(text, found[at])
                at += 1
        yield _Used(path[-1], path[-2] if len(path) > 1 else None, alias)
        expecting = at < len(found) and text[found[at].start : found[at].end] == ","
        at += expecting


def _within(path: Sequence[str], used: Sequence[_Used], known: Known) -> list[Suggestion]:
    """Return what may follow `a.` or `a.b.`."""
    if len(path) > 1:
        return [Suggestion(known.spelled(name), "column") for name in known.columns(path[-1], path[-2])]
    small = path[0].casefold()
    for table in used:
        if small == (table.alias or table.name).casefold():
            return [Suggestion(known.spelled(name), "column") for name in known.columns(table.name, table.namespace)]
    columns = known.columns(path[0])
    if columns:
        return [Suggestion(known.spelled(name), "column") for name in columns]
    return [Suggestion(known.spelled(name), "table") for name in known.tables(path[0])]
