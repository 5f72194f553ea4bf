"""Parameters in a text: `:name`, outside of strings, names, comments, dollar quotes, casts and slices. Values never become text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput
from dblens.query.lex import Token, place, tokens

_OPERANDS = frozenset({"word", "name", "string", "number"})


class _Found(NamedTuple):
    name: str
    start: int
    end: int
    listed: bool
    """Directly in the brackets of an IN."""


def names(text: str, lexis: Lexis) -> tuple[str, ...]:
    """Return the names of a text's parameters, each once, in the order of their first places."""
    return tuple(dict.fromkeys(found.name for found in _found(text, lexis)))


def bound(text: str, lexis: Lexis, values: Mapping[str, object]) -> tuple[str, tuple[object, ...]]:
    """Return the text with the engine's own placeholders, and the values in their order.

    A list or tuple becomes as many placeholders within `IN (:name)`; elsewhere it is one value, where the engine has such. Raises InvalidInput
    for a name without a value, a value without a name, an empty list in IN, and a text that has the engine's own placeholders as well.
    """
    places = list(_found(text, lexis))
    known = tuple(dict.fromkeys(found.name for found in places))
    _same(known, values)
    if not places:
        return text, ()
    _no_others(text, lexis)
    given: list[object] = []
    numbers: dict[tuple[str, bool], list[int]] = {}
    pieces: list[str] = []
    at = 0
    for found in places:
        value = values[found.name]
        items = value if isinstance(value, list | tuple) and found.listed else None
        if items is not None and not items:
            raise InvalidInput(f"the list for :{found.name} is empty", hint="IN needs one value or more")
        if isinstance(value, list | tuple) and items is None and lexis.dialect and lexis.placeholder != "numbered":
            raise InvalidInput(f"the value of :{found.name} is a list", hint=f"a list stands in IN (:{found.name})")
        key = (found.name, items is not None)
        if lexis.placeholder != "numbered" or key not in numbers:
            added = [value] if items is None else list(items)
            numbers[key] = list(range(len(given) + 1, len(given) + 1 + len(added)))
            given += added
        pieces.append(_plain(text[at : found.start], lexis))
        match lexis.placeholder:
            case "numbered":
                pieces.append(", ".join(f"${n}" for n in numbers[key]))
            case "format":
                pieces.append(", ".join(["%s"] * len(numbers[key])))
            case "question":
                marks = ", ".join(["?"] * len(numbers[key]))
                # As wide as the name, so that the places which the engine's own parser tells are those of the text.
                pieces.append(marks if lexis.dialect else marks.ljust(found.end - found.start))
        at = found.end
    pieces.append(_plain(text[at:], lexis))
    return "".join(pieces), tuple(given)


def _plain(text: str, lexis: Lexis) -> str:
    return text.replace("%", "%%") if lexis.placeholder == "format" else text


def _same(known: tuple[str, ...], values: Mapping[str, object]) -> None:
    lacking = [name for name in known if name not in values]
    if lacking:
        given = ", ".join(sorted(map(str, values))) or "none"
        raise InvalidInput(
            f"no value for {', '.join(f':{n}' for n in lacking)}", hint=f"values were given for: {given}"
        )
    unused = [name for name in values if name not in known]
    if unused:
        there = ", ".join(f":{n}" for n in known) or "none"
        raise InvalidInput(f"no parameter is called {', '.join(map(str, unused))}", hint=f"the text has: {there}")


def _no_others(text: str, lexis: Lexis) -> None:
    """Refuse the engine's own placeholders beside ours: values would land in the wrong places. Any `%` is doubled, so `%s` is none."""
    if lexis.placeholder == "format" or not lexis.dialect:
        return
    mark = "$" if lexis.placeholder == "numbered" else "?"
    for token in tokens(text, lexis):
        if token.kind != "mark" or text[token.start] != mark:
            continue
        if mark == "$" and not text[token.end : token.end + 1].isdigit():
            continue
        line, column = place(text, token.start)
        raise InvalidInput(
            f"{text[token.start : token.start + 8].split(maxsplit=1)[0]!r} on line {line}, column {column}, beside parameters with names",
            hint="spell every parameter as :name",
        )


def _found(text: str, lexis: Lexis) -> Iterator[_Found]:
    opened: list[tuple[str, bool]] = []  # brackets, and whether IN stands before them
    before: Token | None = None  # what came last, but comments
    colon: tuple[Token, bool] | None = None
    for token in tokens(text, lexis):
        if token.kind == "comment":
            continue
        mark = text[token.start] if token.kind == "mark" else ""
        if colon is not None and colon[1] and token.kind == "word" and token.start == colon[0].end:
            yield _Found(text[token.start : token.end], colon[0].start, token.end, bool(opened) and opened[-1][1])
        colon = None
        if mark in ("(", "[", "{"):
            word = text[before.start : before.end].upper() if before is not None and before.kind == "word" else ""
            opened.append((mark, mark == "(" and word == "IN"))
        elif mark in (")", "]", "}") and opened:
            opened.pop()
        elif mark == ":":
            colon = (token, _may_begin(text, token, before, lexis, slices=bool(opened) and opened[-1][0] == "["))
        before = token


def _may_begin(text: str, colon: Token, before: Token | None, lexis: Lexis, *, slices: bool) -> bool:
    """Say whether a colon may begin a parameter: not that of a cast, a slice, a label or a document's key."""
    if before is None:
        return True
    operand = before.kind in _OPERANDS or text[before.end - 1] in ")]}"
    if not lexis.dialect:
        return not operand
    if before.end == colon.start and (operand or text[before.start] == ":"):
        return False
    return not (slices and operand)
