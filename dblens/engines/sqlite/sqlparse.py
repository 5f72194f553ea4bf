"""Reads what PRAGMAs do not tell out of a CREATE TABLE text: checks, collations, generated expressions, names of constraints,
AUTOINCREMENT, deferrability, and our comments on meaning. SQLite itself has accepted the text, so only its shape is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n\f]+|--[^\n]*(?:\n|\Z))|(?P<comment>/\*.*?(?:\*/|\Z))|(?P<string>[xX]?'(?:[^']|'')*')"
    r'|(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|0[xX][0-9a-fA-F]+)'
    r"|(?P<word>[^\W\d][\w$]*)|(?P<sign>\|\||<<|>>|<=|>=|<>|!=|==|->>|->|.)",
    re.DOTALL,
)
_STARTS = frozenset(
    {"constraint", "primary", "not", "null", "unique", "check", "default", "collate", "references", "generated", "as"}
)
_TABLE = frozenset({"constraint", "primary", "unique", "check", "foreign"})


class Token(msgspec.Struct, frozen=True):
    """A word, name, string, number, sign or comment with its place in the text."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The token as a lower-case keyword, empty for anything quoted."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """The identifier that the token spells."""
        text = self.text
        if self.kind == "name":
            closing = text[-1]
            return text[1:-1] if text[0] == "[" else text[1:-1].replace(closing * 2, closing)
        if self.kind == "string":
            return text[1:-1].replace("''", "'")
        return text


class Reference(msgspec.Struct, kw_only=True):
    """A REFERENCES clause: its constraint's name and deferrability."""

    name: str | None = None
    columns: tuple[str, ...] = ()
    deferrable: bool = False
    initially_deferred: bool = False


class Column(msgspec.Struct, kw_only=True):
    """What a column's definition says beyond PRAGMA table_xinfo."""

    name: str
    collation: str | None = None
    generated: str | None = None
    meaning: str | None = None


class Definition(msgspec.Struct, kw_only=True):
    """What a table's definition says beyond PRAGMAs. `keys`: names of primary and unique constraints by their columns, lower case."""

    columns: dict[str, Column] = {}
    checks: list[tuple[str | None, str]] = []
    references: list[Reference] = []
    primary_name: str | None = None
    uniques: list[tuple[str | None, tuple[str, ...]]] = []
    autoincrement: bool = False


def tokens(text: str) -> list[Token]:
    """Return a statement's tokens without white space; comments only where they hold a meaning of ours."""
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "sign"
        if kind != "space":
            found.append(Token(kind, match[0], match.start(), match.end()))
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.all = tokens(text)
        self.list = [t for t in self.all if t.kind != "comment"]
        self.comments = [t for t in self.all if t.kind == "comment"]
        self.at = 0

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.at + ahead
        return self.list[place] if place < len(self.list) else None

    def next(self) -> Token:
        token = self.list[self.at]
        self.at += 1
        return token

    def take(self, *words: str) -> bool:
        """Pass over these keywords when they come next."""
        for i, word in enumerate(words):
            token = self.peek(i)
            if token is None or (token.word or token.text) != word:
                return False
        self.at += len(words)
        return True

    def bracket(self) -> str:
        """Pass over `( … )` and return what is inside, as written."""
        opening = self.next()
        depth = 1
        while depth:
            token = self.next()
            if token.text == "(":
                depth += 1
            elif token.text == ")":
                depth -= 1
        return self.text[opening.end : token.start].strip()

    def names(self) -> tuple[str, ...]:
        """Pass over `(a, b COLLATE x DESC)` and return the columns."""
        found: list[str] = []
        depth, fresh = 0, True
        while True:
            token = self.next()
            if token.text == "(":
                depth += 1
            elif token.text == ")":
                depth -= 1
                if not depth:
                    return tuple(found)
            elif token.text == "," and depth == 1:
                fresh = True
                continue
            elif fresh and depth == 1:
                found.append(token.name)
                fresh = False

    def ended(self) -> bool:
        token = self.peek()
        return token is None or token.text in (",", ")")


def read_table(text: str) -> Definition:
    """Read a CREATE TABLE statement; an empty definition for `CREATE TABLE … AS` and anything else without brackets."""
    reader, out = _Reader(text), Definition()
    while (token := reader.peek()) is not None and token.text != "(":
        if token.word == "as":
            return out
        reader.next()
    if token is None:
        return out
    reader.next()
    while (token := reader.peek()) is not None and token.text != ")":
        if token.word in _TABLE and not _is_column(reader):
            _table_constraint(reader, out)
        else:
            _column(reader, out)
        reader.take(",")
    return out


def _is_column(reader: _Reader) -> bool:
    """Tell whether a definition that begins with a keyword of constraints is a column of that (unquoted) name: SQLite refuses that."""
    following = reader.peek(1)
    return following is None or following.text in (",", ")")


def _column(reader: _Reader, out: Definition) -> None:
    token = reader.next()
    column = Column(name=token.name)
    out.columns[column.name.lower()] = column
    start = token.end
    while not reader.ended() and (ahead := reader.peek()) is not None and ahead.word not in _STARTS:
        if ahead.text == "(":
            reader.bracket()
        else:
            reader.next()
    following = reader.peek()
    stop = following.start if following is not None else len(reader.text)
    for comment in reader.comments:
        if start <= comment.start < stop:
            column.meaning = comment.text[2:-2].strip()
    name: str | None = None
    while not reader.ended():
        token = reader.next()
        match token.word:
            case "constraint":
                name = reader.next().name
                continue
            case "primary":
                reader.take("key")
                out.primary_name = name
                if not reader.take("asc"):
                    reader.take("desc")
                _conflict(reader)
                out.autoincrement = reader.take("autoincrement") or out.autoincrement
            case "unique":
                out.uniques.append((name, (column.name.lower(),)))
                _conflict(reader)
            case "not" | "null":
                reader.take("null")
                _conflict(reader)
            case "check":
                out.checks.append((name, reader.bracket()))
            case "collate":
                column.collation = reader.next().name
            case "generated" | "as":
                if token.word == "generated":
                    reader.take("always", "as")
                column.generated = reader.bracket()
                if not reader.take("stored"):
                    reader.take("virtual")
            case "references":
                out.references.append(_reference(reader, name, (column.name,)))
            case "default":
                _default(reader)
        name = None


def _default(reader: _Reader) -> None:
    following = reader.peek()
    if following is not None and following.text == "(":
        reader.bracket()
    elif reader.next().text in ("+", "-"):
        reader.next()


def _conflict(reader: _Reader) -> None:
    if reader.take("on", "conflict"):
        reader.next()


def _reference(reader: _Reader, name: str | None, columns: tuple[str, ...]) -> Reference:
    reference = Reference(name=name, columns=columns)
    reader.next()
    following = reader.peek()
    if following is not None and following.text == "(":
        reader.names()
    while True:
        if reader.take("on"):
            reader.next()
            if reader.next().word in ("set", "no"):
                reader.next()
        elif reader.take("match"):
            reader.next()
        elif reader.take("not", "deferrable"):
            _initially(reader)
        elif reader.take("deferrable"):
            reference.deferrable = True
            reference.initially_deferred = _initially(reader)
        else:
            return reference


def _initially(reader: _Reader) -> bool:
    return reader.take("initially") and reader.next().word == "deferred"


def _table_constraint(reader: _Reader, out: Definition) -> None:
    name = reader.next().name if reader.take("constraint") else None
    if reader.take("primary", "key"):
        out.primary_name = name
        before = reader.at
        reader.names()
        out.autoincrement = out.autoincrement or any(t.word == "autoincrement" for t in reader.list[before : reader.at])
        _conflict(reader)
    elif reader.take("unique"):
        out.uniques.append((name, tuple(n.lower() for n in reader.names())))
        _conflict(reader)
    elif reader.take("check"):
        out.checks.append((name, reader.bracket()))
        _conflict(reader)
    elif reader.take("foreign", "key"):
        columns = reader.names()
        reader.take("references")
        out.references.append(_reference(reader, name, columns))
    else:
        reader.next()


def view_definition(text: str) -> str:
    """Return a view's SELECT, or the whole CREATE VIEW where it names the view's columns, which a SELECT would lose."""
    for token in tokens(text):
        if token.text == "(":
            return text
        if token.word == "as":
            return text[token.end :].strip()
    return text


def trigger_head(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a trigger's timing (before, after, instead of) and events."""
    timing, events = "before", []
    for token in _head(text):
        match token.word:
            case "before" | "after":
                timing = token.word
            case "instead":
                timing = "instead of"
            case "insert" | "update" | "delete":
                events.append(token.word)
            case "on":
                break
    return timing, tuple(events)


def _head(text: str) -> Iterator[Token]:
    """Yield what follows the trigger's name."""
    found = [t for t in tokens(text) if t.kind != "comment"]
    words = [t.word for t in found]
    at = words.index("trigger") + 1
    if words[at : at + 3] == ["if", "not", "exists"]:
        at += 3
    at += 1
    if at < len(found) and found[at].text == ".":
        at += 2
    yield from found[at:]


def index_parts(text: str) -> tuple[list[str], str | None]:
    """Return the parts of a CREATE INDEX as written, without COLLATE and direction, and its WHERE."""
    reader = _Reader(text)
    while reader.next().word != "on":
        pass
    reader.next()
    reader.next()  # the opening bracket
    parts: list[str] = []
    depth, start = 1, reader.list[reader.at].start
    while True:
        token = reader.next()
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        if (token.text == "," and depth == 1) or depth == 0:
            parts.append(_bare(text[start : token.start]))
            start = token.end
        if depth == 0:
            break
    where = reader.peek()
    return parts, text[where.end :].strip() if where is not None and where.word == "where" else None


def _bare(text: str) -> str:
    """Return an index part without COLLATE, ASC, DESC, and without brackets around the whole."""
    found = [t for t in tokens(text) if t.kind != "comment"]
    while found and found[-1].word in ("asc", "desc"):
        found.pop()
    if len(found) > 2 and found[-2].word == "collate":
        del found[-2:]
    text = text[found[0].start : found[-1].end]
    while text.startswith("(") and text.endswith(")") and _whole(text):
        text = text[1:-1].strip()
    return text


def _whole(text: str) -> bool:
    """Tell whether the first bracket closes at the very end."""
    depth = 0
    for token in tokens(text):
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
            if not depth:
                return token.end == len(text)
    return False


def created(text: str) -> tuple[str, str]:
    """Return what a CREATE statement makes, table or index, and its name; empty texts for any other statement."""
    found = [t for t in tokens(text) if t.kind != "comment"]
    words = [t.word for t in found]
    if not words or words[0] != "create":
        return "", ""
    for kind in ("table", "index"):
        if kind in words[1:3]:
            at = words.index(kind) + 1
            if words[at : at + 3] == ["if", "not", "exists"]:
                at += 3
            if at + 1 < len(found) and found[at + 1].text == ".":
                at += 2
            return kind, found[at].name
    return "", ""


def body(text: str) -> list[str]:
    """Return what a CREATE statement says behind the name of its object, for comparing two of them."""
    found = tokens(text)
    at = next((i for i, t in enumerate(found) if t.text == "(" or t.word == "on"), len(found))
    return [t.text for t in found[at:]]
