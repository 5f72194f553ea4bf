"""mongosh-style text, read by recursive descent into values and calls. Nothing is evaluated: there is no JavaScript here.

    statement := "show" word | "db" step*
    step      := "." name | "[" string "]" | "(" values ")"
    value     := literal | object | array | regular expression | constructor "(" values ")" | "?" | "EJSON" "(" value ")"

Differences to mongosh: keys stay in their written order, a repeated key is refused, whole numbers beyond int32 are int64 and not double,
dates without a zone are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dblens.engines.mongodb.shell_tokens import Token, tokens, wrong
from dblens.engines.mongodb.shell_values import (
    BLANK,
    CONSTRUCTORS,
    DEPTH,
    DOCUMENT,
    Given,
    construct,
    explicit,
    given,
    number,
    regex,
    unwrapped,
)
from dblens.errors import InvalidInput

_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_CONSTANTS = {"true": True, "false": False, "null": None, "NaN": math.nan, "Infinity": math.inf}
_NO_SCRIPT = "JavaScript is not run: write literals and calls of db's methods"
_SHOWN = ("collections", "tables", "dbs", "databases")


class Call(NamedTuple):
    """A method's call. `spots`: where each argument begins in the text."""

    name: str
    args: list[Any]
    at: int
    spots: list[int]


class Spoken(NamedTuple):
    """A statement: `show …`, or calls on the database (no `collection`) or a collection."""

    text: str
    shown: str
    collection: str | None
    calls: tuple[Call, ...]


class _Reader:
    """Tokens one by one, with the parameters that stand for `?`."""

    def __init__(self, text: str, params: Sequence[object] | None) -> None:
        self.text, self.params = text, params
        self.used = 0
        self._tokens = tokens(text)
        self.token: Token = next(self._tokens)

    def take(self) -> Token:
        found = self.token
        if found.kind != "end":
            self.token = next(self._tokens)
        return found

    def at(self, mark: str) -> bool:
        return self.token.kind == "mark" and self.token.value == mark

    def skip(self, mark: str) -> bool:
        if self.token.kind == "mark" and self.token.value == mark:
            self.token = next(self._tokens)
            return True
        return False

    def ended(self) -> bool:
        return self.token.kind == "end"

    def need(self, mark: str, after: str) -> None:
        if not self.skip(mark):
            raise self.wrong(f"{mark!r} is missing after {after}")

    def wrong(self, what: str, hint: str | None = None, at: int | None = None) -> InvalidInput:
        return wrong(self.text, self.token.start if at is None else at, what, hint)


# ----------------------------------------------------------------------------------------------------------------------- values


def _value(r: _Reader, depth: int) -> Any:
    token = r.token
    match token.kind:
        case "string":
            r.take()
            return token.value
        case "number":
            return _number(r, negative=False)
        case "word":
            return _word(r, depth)
        case "regex":
            r.take()
            pattern, _, options = token.value[1:].rpartition("/")
            try:
                return regex(pattern, options)
            except ValueError as error:
                raise r.wrong(str(error), at=token.start) from error
    match token.value if token.kind == "mark" else "":
        case "{":
            return _object(r, depth + 1)
        case "[":
            return _array(r, depth + 1)
        case "-" | "+":
            r.take()
            if r.token.kind == "word" and r.token.value == "Infinity":
                r.take()
                return -math.inf if token.value == "-" else math.inf
            if r.token.kind != "number":
                raise r.wrong("a number is missing after the sign")
            return _number(r, negative=token.value == "-")
        case "?":
            value, n = _param(r)
            return BLANK if r.params is None else Given(given(value, n))
        case ":" if r.params is None:
            r.take()
            if r.take().kind == "word":
                return BLANK
            raise r.wrong("a parameter's name is missing after ':'", at=token.start)
        case ":":
            raise r.wrong("a parameter without a value", "parameters are given beside the text")
    raise r.wrong("a value is missing" if token.kind == "end" or token.value in ",:;)]}" else "not a value", _NO_SCRIPT)


def _param(r: _Reader) -> tuple[object, int]:
    if r.params is None:
        r.take()
        return None, 0
    if r.used >= len(r.params):
        raise r.wrong("a parameter without a value", f"{len(r.params)} values were given")
    r.take()
    r.used += 1
    return r.params[r.used - 1], r.used


def _number(r: _Reader, *, negative: bool) -> Any:
    token = r.take()
    try:
        return number(token.value, negative=negative)
    except ValueError as error:
        raise r.wrong(str(error), at=token.start) from error


def _word(r: _Reader, depth: int) -> Any:
    token = r.take()
    word = token.value
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if word == "undefined":
        raise r.wrong("undefined, which BSON no longer has", "write null, or leave the key out", at=token.start)
    if word == "new":
        if r.token.kind != "word" or r.token.value not in CONSTRUCTORS:
            raise r.wrong("no constructor that is known here", f"one of {', '.join(CONSTRUCTORS)}")
        word = r.take().value
    elif word == "EJSON":
        return _ejson(r, depth)
    if word == "Long" and r.at("."):
        r.take()
        word = f"Long.{r.take().value}"
    if word not in CONSTRUCTORS:
        raise r.wrong("a word that is no value", _NO_SCRIPT, at=token.start)
    if word in ("MinKey", "MaxKey") and not r.at("("):
        return construct(word, [])
    args, _ = _arguments(r, depth + 1, word)
    try:
        return construct(word, args)
    except ValueError as error:
        raise r.wrong(f"{word}: {error}", at=token.start) from error


def _ejson(r: _Reader, depth: int) -> Any:
    if depth > DEPTH:
        raise r.wrong(f"nested more than {DEPTH} deep")
    r.need("(", "EJSON")
    if r.params is None and (r.at("?") or r.at(":")):
        _value(r, depth)
        found: Any = {}
    elif r.at("?"):
        value, n = _param(r)
        found = _text_value(value, depth) if isinstance(value, str) else explicit(value, n)
    else:
        token = r.token
        found = _value(r, depth + 1)
        if isinstance(found, str):
            if token.kind != "string":
                raise r.wrong("EJSON takes a text or a document", at=token.start)
            found = _text_value(found, depth)
    r.need(")", "EJSON's value")
    return found


def _text_value(text: str, depth: int) -> Any:
    inner = _Reader(text, ())
    found = _value(inner, depth + 1)
    if inner.token.kind != "end":
        raise inner.wrong("more than one value")
    return found


def _object(r: _Reader, depth: int, *, plain: bool = False) -> Any:
    """Return a document, or the value that it stands for in Extended JSON; `plain`: the document whatever its keys are."""
    start = r.token.start
    if depth > DEPTH:
        raise r.wrong(f"nested more than {DEPTH} deep")
    r.take()
    made: dict[str, Any] = {}
    while not r.skip("}"):
        key = r.take()
        if key.kind not in ("word", "string", "number"):
            raise r.wrong(
                "a key is missing" if key.kind != "mark" or key.value != "." else "spreading", _NO_SCRIPT, at=key.start
            )
        name = key.value
        if key.kind == "number" and not (name.isdigit() and name.isascii()):
            raise r.wrong("a key that is no whole number", "write the key in quotes", at=key.start)
        if "\0" in name:
            raise r.wrong("a key with a NUL character", at=key.start)
        if name in made:
            raise r.wrong(f"the key {name[:40]!r} is there twice", at=key.start)
        r.need(":", f"the key {name[:40]!r}")
        inside = name == DOCUMENT and not made and not plain and r.at("{")
        made[name] = _object(r, depth + 1, plain=True) if inside else _value(r, depth)
        if not r.skip(",") and not r.at("}"):
            raise r.wrong("',' or '}' is missing", _NO_SCRIPT)
    if made and not plain and next(iter(made)).startswith("$"):
        try:
            return unwrapped(made)
        except ValueError as error:
            raise r.wrong(str(error), at=start) from error
    return made


def _array(r: _Reader, depth: int) -> list[Any]:
    if depth > DEPTH:
        raise r.wrong(f"nested more than {DEPTH} deep")
    r.take()
    made: list[Any] = []
    while not r.skip("]"):
        made.append(_value(r, depth))
        if not r.skip(",") and not r.at("]"):
            raise r.wrong("',' or ']' is missing", _NO_SCRIPT)
    return made


def _arguments(r: _Reader, depth: int, what: str) -> tuple[list[Any], list[int]]:
    if depth > DEPTH:
        raise r.wrong(f"nested more than {DEPTH} deep")
    r.need("(", what)
    args: list[Any] = []
    spots: list[int] = []
    while not r.skip(")"):
        spots.append(r.token.start)
        args.append(_value(r, depth))
        if not r.skip(",") and not r.at(")"):
            raise r.wrong("',' or ')' is missing", _NO_SCRIPT)
    return args, spots


# ------------------------------------------------------------------------------------------------------------------- statements


def parse(text: str, params: Sequence[object] | None = ()) -> Spoken:
    """Return one statement. `params` stand for its `?`, in order; None: `?` and `:name` are `BLANK`, for a look at the text only.

    Raises InvalidInput with line, column and the piece of text that is wrong; PermissionDenied for JavaScript.
    """
    r = _Reader(text, params)
    if r.token.kind == "end":
        raise r.wrong("there is no statement", "write one, such as db.orders.find({})")
    first = r.take()
    if first.kind == "word" and first.value == "show":
        found = Spoken(text, _shown(r), None, ())
    elif first.kind == "word" and first.value == "db":
        found = _chain(r)
    elif first.kind == "word" and first.value == "use":
        raise r.wrong(
            "`use` changes the database", "a connection is one database: use another connection", at=first.start
        )
    else:
        raise r.wrong("a statement begins with db or show", _NO_SCRIPT, at=first.start)
    while r.skip(";"):
        pass
    if not r.ended():
        raise r.wrong("more than one statement, or no method of db", _NO_SCRIPT)
    if params is not None and r.used != len(params):
        raise InvalidInput(f"{len(params)} values for {r.used} parameters", hint="each `?` in the text takes one value")
    return found


def _shown(r: _Reader) -> str:
    if r.token.kind != "word" or r.token.value not in _SHOWN:
        raise r.wrong("nothing that can be shown", f"one of {', '.join(_SHOWN)}")
    return r.take().value


def _chain(r: _Reader) -> Spoken:
    names: list[tuple[str, int, bool]] = []  # name, place, after a dot
    calls: list[Call] = []
    opened = False  # by getCollection
    while True:
        if r.skip("."):
            token = r.take()
            if token.kind != "word":
                raise r.wrong("a name is missing after '.'", at=token.start)
            name, dotted = token.value, True
        elif r.at("[") and not calls:
            r.take()
            token = r.take()
            if token.kind != "string":
                raise r.wrong("a collection's name in quotes is missing after '['", at=token.start)
            name, dotted = token.value, False
            r.need("]", "the collection's name")
        else:
            break
        if not r.at("("):
            if calls:
                raise r.wrong("'(' is missing after a method's name")
            names.append((name, token.start, dotted))
            continue
        if not dotted:
            raise r.wrong("a method is called by its name after '.'", at=token.start)
        args, spots = _arguments(r, 1, name)
        if name == "getCollection" and not names and not calls and not opened:
            names.append((_collection_name(r, args, token.start), token.start, False))
            opened = True
        else:
            calls.append(Call(name, args, token.start, spots))
    if not calls:
        raise r.wrong("a method is missing", "such as db.orders.find({})")
    for name, at, _ in names:
        if not name or "\0" in name:
            raise r.wrong("not a collection's name", at=at)
    return Spoken(r.text, "", ".".join(name for name, _, _ in names) if names else None, tuple(calls))


def _collection_name(r: _Reader, args: list[Any], at: int) -> str:
    plain = [each.value if isinstance(each, Given) else each for each in args]
    if len(plain) != 1 or not isinstance(plain[0], str):
        raise r.wrong("getCollection takes one name", at=at)
    return plain[0]


def split(text: str) -> list[tuple[int, int]]:
    """Return where the statements of a text begin and end: at `;`, and at line ends outside of brackets. Raises InvalidInput."""
    return list(_spans(text))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start, end, depth, dangling = -1, 0, 0, False
    for token in tokens(text):
        mark = token.value if token.kind == "mark" else ""
        ended = token.kind == "end" or (depth == 0 and mark == ";")
        on = mark in (".", "[", "(") or dangling  # such a line goes on with the statement before
        if start >= 0 and (ended or (depth == 0 and token.broken and not on)):
            yield start, end
            start = -1
        if ended:
            continue
        if start < 0:
            start = token.start
        if mark in _OPEN:
            depth += 1
        elif mark in _CLOSE and depth:
            depth -= 1
        dangling, end = mark == ".", token.end
