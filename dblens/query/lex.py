"""The pieces of a statement's text: strings, comments, names, words. All that is known of a language comes from its `Lexis`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput

Kind = Literal["comment", "string", "name", "word", "number", "end", "opened", "closed", "mark"]
"""`end`: the delimiter of statements; `opened`, `closed`: the edges of an executed comment; `mark`: any other single character."""
SPACE = " \t\n\v\f\r"
"""What separates: other white space of Unicode is part of names."""


class Token(NamedTuple):
    """A token: the characters from `start` to `end`."""

    kind: Kind
    start: int
    end: int


_WORD = r"[A-Za-z_\x80-\U0010ffff]"
_WORDS = r"[A-Za-z0-9_$\x80-\U0010ffff]"
_SPACES = f"[{SPACE}]"
_CONTINUED = rf"(?:[ \t\v\f]*+[\n\r](?:{_SPACES}++|--[^\n\r]*+[\n\r])*+'(?:[^'\\]++|''|\\.)*+')*"
"""A string of PostgreSQL goes on after a line's end, and one that began as `E'…'` goes on as such.

Its last repeat is not possessive: before Python 3.11.5 such a one goes on from where a failed try ended (gh-106052).
"""
_REGEX = re.compile(r"/(?![*/])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*+\])++/[a-z]*+")
_BLOCK = re.compile(r"/\*|\*/")


def _string(quote: str, *, backslash: bool, doubled: bool = True) -> str:
    q = re.escape(quote)
    inner = [f"[^{q}\\\\]++" if backslash else f"[^{q}]++"]
    inner += [q + q] if doubled else []
    inner += [r"\\."] if backslash else []
    return f"{q}(?:{'|'.join(inner)})*+{q}"


@lru_cache(maxsize=64)
def _pattern(lexis: Lexis, delimiter: str) -> re.Pattern[str]:
    """Return one pattern whose groups are the kinds of tokens. Quantifiers are possessive, so that nothing is ever tried twice."""
    script = not lexis.dialect
    parts = []
    if delimiter != ";":
        parts.append(f"(?P<end>{re.escape(delimiter)})")
    line = r"[^\n\r]*+" if lexis.nested_comments else r"[^\n]*+"
    comments = ["//" + line] if script else [rf"--(?={_SPACES}|[\x00-\x1f]|\Z){line}" if lexis.dashes_need_space else "--" + line]  # fmt: skip
    if lexis.hash_comments:
        comments.append("#" + line)
    parts.append(f"(?P<comment>{'|'.join(comments)})")
    if lexis.executed_comments:
        parts.append(r"(?P<opened>/\*M?!\d*+)")
    parts.append(r"(?P<block>/\*)")
    strings = [_string(q, backslash=lexis.backslash_escapes, doubled=not script) for q in lexis.string_quotes]
    if lexis.dollar_quotes:
        strings.insert(0, rf"[eE]{_string(chr(39), backslash=True)}{_CONTINUED}")
        parts.append(rf"(?P<dollar>\$(?:{_WORD}[A-Za-z0-9_\x80-\U0010ffff]*+)?\$)")
    parts.append(f"(?P<string>{'|'.join(strings)})")
    names = [_string(q, backslash=False) for q in lexis.identifier_quotes]
    if lexis.brackets:
        names.append(r"\[[^\]]*+\]")
    if names:
        parts.append(f"(?P<name>{'|'.join(names)})")
    unclosed = re.escape(lexis.string_quotes + lexis.identifier_quotes) + (r"\[" if lexis.brackets else "")
    if unclosed:
        parts.append(f"(?P<unclosed>[{unclosed}])")
    if delimiter == ";":
        parts.append(f"(?P<word>{_WORD}{_WORDS}*+)")
        parts.append(r"(?P<number>\d[\w.]*+)")
        parts.append("(?P<end>;)")
    else:  # `END$$`: the delimiter ends a word, whatever it is made of
        not_it = f"(?!{re.escape(delimiter)})"
        parts.append(f"(?P<word>{_WORD}(?:{not_it}{_WORDS})*)")
        parts.append(rf"(?P<number>\d(?:{not_it}[\w.])*)")
    parts.append("(?P<mark>.)")
    return re.compile(rf"{_SPACES}*+(?:{'|'.join(parts)}|\Z)", re.DOTALL)


def tokens(text: str, lexis: Lexis, start: int = 0, delimiter: str = ";") -> Iterator[Token]:
    """Yield what a text is made of, but white space. Raises InvalidInput for a string, name or comment that does not end.

    Time grows with the length of the text, whatever it holds.
    """
    match_at = _pattern(lexis, delimiter).match
    position, length = start, len(text)
    inside = False  # an executed comment
    script, before = not lexis.dialect, ""
    while position < length:
        found = match_at(text, position)
        assert found is not None
        kind: Any = found.lastgroup  # one of Kind, or of the groups below
        if kind is None:
            break
        start, position = found.span(kind)
        if kind == "word":
            if script:
                before = text[position - 1]
            yield Token(kind, start, position)
            continue
        match kind:
            case "block":
                position = _after_block(text, start, lexis)
                yield Token("comment", start, position)
                continue
            case "dollar":
                word = found[kind]
                close = text.find(word, position)
                if close < 0:
                    raise _unclosed(text, start, f"the text that {word} opens")
                position = close + len(word)
                kind = "string"
            case "unclosed":
                quote = found[kind]
                raise _unclosed(text, start, f"the {'name' if quote not in lexis.string_quotes else 'string'} that {quote} opens")  # fmt: skip
            case "opened":
                inside = True
            case "mark" if inside and text.startswith("*/", start):
                inside = False
                kind, position = "closed", start + 2
            case "mark" if script and text[start] == "/" and before in "(,:[{=!&|?;":
                expression = _REGEX.match(text, start)
                if expression is not None:
                    kind, position = "string", expression.end()
        if kind != "comment":
            before = text[position - 1]
        yield Token(kind, start, position)
    if inside:
        raise _unclosed(text, text.rfind("/*"), "the comment")


def _after_block(text: str, start: int, lexis: Lexis) -> int:
    """Return where the comment that begins at `start` ends."""
    if not lexis.nested_comments:
        close = text.find("*/", start + 2)
        if close < 0:
            raise _unclosed(text, start, "the comment")
        return close + 2
    depth = 0
    for found in _BLOCK.finditer(text, start):
        depth += 1 if found.group() == "/*" else -1
        if depth == 0:
            return found.end()
    raise _unclosed(text, start, "the comment")


def _unclosed(text: str, start: int, what: str) -> InvalidInput:
    line, column = place(text, start)
    return InvalidInput(
        f"{what} on line {line}, column {column}, does not end: {text[start : start + 40]!r}", hint="close it"
    )


def place(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of a character, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
