"""The pieces of mongosh-style text: words, numbers, strings, regular expressions, marks. Comments and white space are left out.

Every character is looked at once: time grows with the text's length, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dblens.errors import InvalidInput

Kind = Literal["word", "number", "string", "regex", "mark", "end"]
_BLANKS = " \t\v\f\u00a0\ufeff"
_BREAKS = "\n\r\u2028\u2029"
_SPACES = frozenset(_BLANKS + _BREAKS)
_BROKEN = frozenset(_BREAKS)
_MARKS = frozenset("{}[](),:;?-+")
_SKIPPED = re.compile(f"[{_BLANKS}{_BREAKS}]++")
_WORD = re.compile(r"[^\W\d][\w$]*+|\$[\w$]*+")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]++n?|(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?|\.", re.ASCII)
_PLAIN = re.compile(r"[^\\'\"\n\r\u2028\u2029]*+")
_BODY = re.compile(r"(?:[^/\\\n\r\[]|\\[^\n\r]|\[(?:[^\]\\\n\r]|\\[^\n\r])*+\])++/")
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}
_ENDS = frozenset(",:;)]}? \n")
_HEX = frozenset("0123456789abcdefABCDEF")


class Token(NamedTuple):
    """A token. `value`: the word, the number's spelling, the string's characters, the mark; of a regular expression `/…/options`."""

    kind: Kind
    value: str
    start: int
    end: int
    broken: bool
    """A line ends before it."""


def wrong(text: str, at: int, what: str, hint: str | None = None) -> InvalidInput:
    """Return the error for a place in a text: line, column and a short piece of it."""
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    piece = text[at : at + 30].partition("\n")[0] or "the end"
    error = InvalidInput(f"{what} on line {line}, column {column}: {piece!r}", hint=hint)
    error.position = at  # type: ignore[attr-defined]
    return error


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a text, `end` last. Raises InvalidInput for what does not end and for characters that mean nothing."""
    at, length, broken = 0, len(text), False
    before = ""  # last character of the token before: a `/` begins a regular expression only where a value may stand
    new = tuple.__new__  # a million tokens: the class's own constructor would cost half of the time
    while at < length:
        first = text[at]
        start = at
        kind: Kind = "mark"
        value = first
        if first in _MARKS or (first == "." and not text[at + 1 : at + 2].isdigit()):
            at += 1
        elif first in _SPACES:
            skipped = _SKIPPED.match(text, at)
            assert skipped is not None
            broken = broken or not _BROKEN.isdisjoint(skipped.group())
            at = skipped.end()
            continue
        elif first in "0123456789.":
            kind, at = "number", _number_end(text, at)
            value = text[start:at]
        elif first in "'\"":
            value, at = _string(text, at)
            kind = "string"
        elif first == "/" and text[at + 1 : at + 2] in ("/", "*"):
            at, lines = _after_comment(text, at)
            broken = broken or lines
            continue
        elif first == "/" and (not before or before in "(,:[{=!&|?;"):
            at = _regex_end(text, at)
            kind, value = "regex", text[start:at]
        elif (word := _WORD.match(text, at)) is not None:
            kind, value, at = "word", word.group(), word.end()
        elif first == "`":
            raise wrong(text, at, "a template string", "write the string in single or double quotes")
        else:
            raise wrong(
                text, at, "a character that means nothing here", "JavaScript is not run: literals and calls only"
            )
        yield new(Token, (kind, value, start, at, broken))
        before, broken = text[at - 1], False
    yield Token("end", "", length, length, broken)


def _after_comment(text: str, at: int) -> tuple[int, bool]:
    if text[at + 1] == "/":
        end = text.find("\n", at)
        return (len(text) if end < 0 else end), False
    end = text.find("*/", at + 2)
    if end < 0:
        raise wrong(text, at, "a comment that does not end", "close it with */")
    return end + 2, "\n" in text[at:end]


def _number_end(text: str, at: int) -> int:
    found = _NUMBER.match(text, at)
    assert found is not None
    end = found.end()
    follows = text[end : end + 1]
    if follows in _ENDS and text[at] != "0":
        return end
    if text[at] == "0" and text[at + 1 : at + 2].isdigit():
        raise wrong(text, at, "a number that begins with 0", "leave the zero out, or write hexadecimal as 0x…")
    if text[end : end + 1] == "n" and text[at:end].isdigit():
        end += 1
    if text[end : end + 1].isalnum() or text[end : end + 1] in ("_", "$"):
        raise wrong(text, at, "not a number")
    return end


def _regex_end(text: str, at: int) -> int:
    found = _BODY.match(text, at + 1)
    if found is None:
        raise wrong(text, at, "a regular expression that does not end", "close it with / on the same line")
    end = found.end()
    while text[end : end + 1].isalpha():
        end += 1
    return end


def _string(text: str, start: int) -> tuple[str, int]:
    quote, parts, at = text[start], [], start + 1
    while True:
        found = _PLAIN.match(text, at)
        assert found is not None
        if found.end() > at:
            parts.append(found.group())
            at = found.end()
        mark = text[at : at + 1]
        if mark == quote:
            break
        if mark == "\\":
            piece, at = _escape(text, at, start)
            parts.append(piece)
        elif mark and mark not in "\n\r":
            parts.append(mark)
            at += 1
        else:
            raise wrong(text, start, "a string that does not end", f"close it with {quote} on the same line")
    value = "".join(parts)
    if not value.isascii():
        value = _paired(text, start, value)
    return value, at + 1


def _paired(text: str, start: int, value: str) -> str:
    """Return a string whose surrogates are joined to characters."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise wrong(
                text, start, "half a character (a lone surrogate) in a string", "BSON strings are UTF-8"
            ) from error
    return value


def _escape(text: str, at: int, start: int) -> tuple[str, int]:
    mark = text[at + 1 : at + 2]
    if mark in _SIMPLE:
        return _SIMPLE[mark], at + 2
    if mark == "x":
        return _code(text, at, at + 2, at + 4), at + 4
    if mark == "u" and text[at + 2 : at + 3] == "{":
        close = text.find("}", at, at + 12)
        if close < 0:
            raise wrong(text, at, "not an escape")
        return _code(text, at, at + 3, close), close + 1
    if mark == "u":
        return _code(text, at, at + 2, at + 6), at + 6
    if mark == "0" and not text[at + 2 : at + 3].isdigit():
        return "\0", at + 2
    if mark.isdigit():
        raise wrong(text, at, "an octal escape", r"write it as \x…")
    if mark == "\r" and text[at + 2 : at + 3] == "\n":
        return "", at + 3
    if mark and mark in _BREAKS:
        return "", at + 2
    if not mark:
        raise wrong(text, start, "a string that does not end")
    return mark, at + 2


def _code(text: str, at: int, begin: int, end: int) -> str:
    digits = text[begin:end]
    if not digits or len(digits) != end - begin or not _HEX.issuperset(digits) or int(digits, 16) > 0x10FFFF:
        raise wrong(text, at, "not an escape")
    return chr(int(digits, 16))
