"""Kept queries that others use like tables: each that a text names becomes a common table expression before it.

By tokens, not by a tree: the text stays the user's own, and what no parser knows is not changed. A name counts where it stands bare,
neither qualified nor quoted; one that the text defines itself (`WITH recent AS …`) is the text's. A name that is used as a column
only adds an expression that no engine runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import msgspec

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput
from dblens.query import classify, lex, split

_TAKE: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
"""The first words of the statements before which `WITH` may stand in every dialect."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A query that was kept under a name, on a connection."""

    name: str
    connection: str
    text: str


def kept(name: str, connection: str, text: str, lexis: Lexis) -> Kept:
    """Return a query to be kept. Raises InvalidInput for what is not one statement that only reads."""
    pieces = split.split(text, lexis)
    if len(pieces) != 1:
        raise InvalidInput(f"{len(pieces)} statements cannot be kept as {name!r}", hint="keep one")
    found = classify.classify(pieces[0].text, lexis)
    if found.action != "read" or _first(pieces[0].text, lexis) not in _TAKE:
        raise InvalidInput(f"only a SELECT can be kept as {name!r}", hint="leave --as out")
    return Kept(name=name, connection=connection, text=pieces[0].text)


def composed(text: str, queries: Mapping[str, Kept], lexis: Lexis) -> str:
    """Return a text with the kept queries that it uses before each of its statements. Raises InvalidInput for a circle of names."""
    if not queries or not lexis.dialect:
        return text
    parts, at = list[str](), 0
    for piece in split.split(text, lexis):
        parts += [text[at : piece.start], _statement(piece.text, queries, lexis)]
        at = piece.end
    return "".join(parts) + text[at:]


def _statement(text: str, queries: Mapping[str, Kept], lexis: Lexis) -> str:
    used = _used(text, queries, lexis)
    if not used:
        return text
    if _first(text, lexis) not in _TAKE:
        raise InvalidInput(
            f"{used[0]!r} is a kept query, which only a SELECT can use",
            hint=f"`%dblens forget {used[0]}` when a table of that name is meant",
        )
    order = list[str]()
    for name in used:
        _before(name, queries, lexis, order, ())
    made = ",\n".join(f"{name} AS (\n{queries[name].text}\n)" for name in order)
    words = [token for token in lex.tokens(text, lexis) if token.kind not in ("comment", "opened", "closed")]
    if _word(text, words[0]) != "WITH":
        return f"WITH {made}\n{text}"
    after = words[1] if len(words) > 1 and _word(text, words[1]) == "RECURSIVE" else words[0]
    return f"{text[: after.end]} {made},\n{text[after.end :].lstrip()}"


def _before(name: str, queries: Mapping[str, Kept], lexis: Lexis, order: list[str], path: tuple[str, ...]) -> None:
    """Add a query after those that it uses itself."""
    if name in path:
        raise InvalidInput(f"kept queries use each other in a circle: {' → '.join((*path, name))}", hint="rename one")
    if name in order:
        return
    for other in _used(queries[name].text, queries, lexis):
        _before(other, queries, lexis, order, (*path, name))
    order.append(name)


def _used(text: str, queries: Mapping[str, Kept], lexis: Lexis) -> tuple[str, ...]:
    """Return the names of kept queries that a statement uses, each once, as they were kept."""
    folded = {name.casefold(): name for name in queries}
    found = [token for token in lex.tokens(text, lexis) if token.kind != "comment"]
    own = {
        _plain(text, token)
        for token, after in pairwise(found)
        if token.kind in ("word", "name") and _word(text, after) in ("AS", "(") and _defines(text, found, token)
    }
    used = dict[str, None]()
    for at, token in enumerate(found):
        name = folded.get(text[token.start : token.end].casefold()) if token.kind == "word" else None
        if name is None or name.casefold() in own:
            continue
        if (at and _word(text, found[at - 1]) == ".") or (
            at + 1 < len(found) and _word(text, found[at + 1]) in (".", "(")
        ):
            continue
        used[name] = None
    return tuple(used)


def _defines(text: str, found: list[lex.Token], token: lex.Token) -> bool:
    """Return whether a name stands where WITH defines one."""
    at = found.index(token)
    if not at or _word(text, found[0]) != "WITH":
        return False
    before = _word(text, found[at - 1])
    if before not in ("WITH", "RECURSIVE", ","):
        return False
    rest = [_word(text, each) for each in found[at + 1 : at + 200]]
    return rest[:1] == ["AS"] or (rest[:1] == ["("] and "AS" in rest)


def _first(text: str, lexis: Lexis) -> str:
    for token in lex.tokens(text, lexis):
        if token.kind != "comment" and _word(text, token) != "(":
            return _word(text, token)
    return ""


def _word(text: str, token: lex.Token) -> str:
    return text[token.start : token.end].upper()


def _plain(text: str, token: lex.Token) -> str:
    return text[token.start : token.end].strip('"`[]').casefold()
