"""A text cut into its statements, without understanding them.

A statement ends at `;` (or what `DELIMITER` names) outside of strings, names, comments, dollar quotes and bodies of triggers and routines. In a
text that is no SQL it ends at a line's end too, where all brackets are closed and the next line does not go on with a dot.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dblens.engines.asking import Lexis
from dblens.errors import InvalidInput
from dblens.query.lex import SPACE, Token, place, tokens

_ROUTINES = frozenset({"TRIGGER", "FUNCTION", "PROCEDURE", "EVENT"})
_BETWEEN = frozenset({"OR", "REPLACE", "DEFINER", "TEMP", "TEMPORARY", "AGGREGATE", "CONSTRAINT"})
"""What may stand between CREATE and the word that says what is made."""
_ENDED = frozenset({"IF", "LOOP", "REPEAT", "WHILE", "FOR"})
"""`END IF` and the like end no BEGIN."""


class Piece(msgspec.Struct, frozen=True):
    """One statement: `text` = the whole text from `start` to `end` (characters from 0). `line` and `column` of its start count from 1."""

    text: str
    start: int
    end: int
    line: int
    column: int


def split(text: str, lexis: Lexis) -> list[Piece]:
    r"""Return the statements of a text in order; what holds nothing but comments is none of them.

    Raises InvalidInput for a string or comment that does not end, and for commands that are a client program's (`\d`, `.tables`).
    """
    pieces: list[Piece] = []
    line, counted, newline = 1, 0, -1
    for start, end in _spans(text, lexis) if lexis.dialect else _script(text, lexis):
        line += text.count("\n", counted, start)
        newline = max(newline, text.rfind("\n", counted, start))
        counted = start
        said = text[start:end].rstrip(SPACE)  # a comment may end in white space
        pieces.append(Piece(said, start, start + len(said), line, start - newline))
    return pieces


def _spans(text: str, lexis: Lexis) -> Iterator[tuple[int, int]]:
    delimiter, at = ";", 0
    while True:
        body, first, last = _Body(lexis), -1, -1
        said = False  # something but comments
        for token in tokens(text, lexis, at, delimiter):
            if token.kind == "end" and body.ended(text, delimiter):
                at = token.end
                break
            if not said and token.kind != "comment":
                _refuse_commands(text, token, lexis)
                if lexis.delimiter_command and text[token.start : token.end].upper() == "DELIMITER":
                    delimiter, at = _delimiter(text, token)
                    first = -1
                    break
                said = True
            elif token.kind == "mark" and text[token.start] == "\\":
                _refuse_commands(text, token, lexis)
            if token.kind != "comment":
                body.see(text, token)
            first = token.start if first < 0 else first
            last = token.end
        else:
            if said:
                yield first, last
            return
        if said and first >= 0:
            yield first, last


def _refuse_commands(text: str, token: Token, lexis: Lexis) -> None:
    mark, after = text[token.start], text[token.start + 1 : token.start + 2]
    if mark == "\\" and not (lexis.backslash_escapes and after == "N"):
        program = "a client program (psql, mysql)"
    elif mark == "." and after.isalpha():
        program = "the sqlite3 program"
    else:
        return
    line, column = place(text, token.start)
    word = text[token.start : token.start + 40].split(maxsplit=1)[0]
    raise InvalidInput(
        f"{word!r} on line {line}, column {column}, is a command of {program}, no statement",
        hint="leave it out; `dblens schema show` and the catalog tell what is there",
    )


def _delimiter(text: str, token: Token) -> tuple[str, int]:
    """Return the delimiter that a DELIMITER command names, and where its line ends."""
    stop = text.find("\n", token.end)
    stop = len(text) if stop < 0 else stop
    words = text[token.end : stop].split()
    delimiter = words[0].strip("'\"`") if words else ""
    if not delimiter or "\\" in delimiter:
        raise InvalidInput(f"DELIMITER on line {place(text, token.start)[0]} names none", hint="DELIMITER //")
    return delimiter, stop


class _Body:
    """Whether a `;` ends the statement or stands in the body of a trigger or routine."""

    def __init__(self, lexis: Lexis) -> None:
        self._bodies = lexis.bodies
        self._head = ""
        self._decided = False
        self._routine = False
        self._depth = 0
        self._pending = False  # END was seen, and what follows says what it ends
        self._comment = False  # within an executed comment
        self._last = ("", "")

    def ended(self, text: str, delimiter: str) -> bool:  # noqa: ARG002 - one shape with `see`
        """Say whether the delimiter that stands here ends the statement."""
        if self._comment:
            return False
        if self._pending:
            self._pending = False
            self._depth = max(0, self._depth - 1)
        if delimiter != ";" or not self._routine:
            return True
        if self._bodies == "trigger":
            over = self._last == (";", "END")
            self._last = (self._last[1], ";")
            return over
        return self._depth == 0

    def see(self, text: str, token: Token) -> None:
        """Take the next token into account."""
        if token.kind in ("opened", "closed"):
            self._comment = token.kind == "opened"
            return
        if self._decided and not self._routine:
            return
        word = text[token.start : token.end].upper() if token.kind == "word" else ""
        before = self._last[1]
        if not self._decided:
            self._decide(word, before, mark=token.kind != "word")
        elif self._bodies != "trigger":
            self._count(word, before)
        self._last = (before, word or text[token.start])

    def _decide(self, word: str, before: str, *, mark: bool) -> None:
        if self._bodies == "trigger":  # as sqlite3_complete() does it
            if word in ("CREATE", "EXPLAIN") and (not self._head or (word == "CREATE" and self._head == "EXPLAIN")):
                self._head = word
            elif self._head == "EXPLAIN":
                self._decided = word in ("EXPLAIN", "TEMP", "TEMPORARY", "TRIGGER", "END")
            elif not (self._head and word in ("TEMP", "TEMPORARY")):
                self._decided, self._routine = True, bool(self._head) and word == "TRIGGER"
        elif not self._head:
            if word in ("CREATE", "ALTER") or (word == "BEGIN" and self._bodies == "nested"):
                self._head = word
            elif word != "EXPLAIN" and not (word in ("QUERY", "PLAN") and before in ("EXPLAIN", "QUERY")):
                self._decided = True
        elif self._head == "BEGIN":  # MariaDB: BEGIN NOT ATOMIC … END
            self._decided, self._routine, self._depth = True, word == "NOT", 1
        elif word in _ROUTINES:
            self._decided = self._routine = True
        elif not (mark or word in _BETWEEN or before in ("=", "@")):
            self._decided = True

    def _count(self, word: str, before: str) -> None:
        if self._pending:
            self._pending = False
            if word in _ENDED:
                return
            self._depth = max(0, self._depth - 1)
            if word == "CASE":
                return
        if before in (".", "@"):
            return
        if word == "END":
            self._pending = self._depth > 0
        elif self._bodies == "atomic":
            self._depth += word == "ATOMIC" and before == "BEGIN"
            self._depth += word == "CASE" and self._depth > 0
        else:
            self._depth += word in ("BEGIN", "CASE")


def _script(text: str, lexis: Lexis) -> Iterator[tuple[int, int]]:
    first, last, depth, before = -1, -1, 0, ""
    for token in tokens(text, lexis):
        mark = text[token.start : token.end]
        if token.kind == "comment":
            continue
        if first >= 0 and depth == 0:
            fresh = (
                "\n" in text[last : token.start]
                and token.kind == "word"
                and (before.isalnum() or before in ")]}_$'\"`")
            )
            if token.kind == "end" or fresh:
                yield first, last
                first = -1
        if token.kind == "end" and depth == 0:
            continue
        depth += (mark in ("(", "[", "{")) - (mark in (")", "]", "}"))
        depth = max(0, depth)
        first = token.start if first < 0 else first
        last, before = token.end, mark[-1]
    if first >= 0:
        yield first, last


def blank(text: str) -> bool:
    """Say whether a text holds nothing but white space."""
    return not text.strip(SPACE)
