"""The first line of a `%%dblens` cell: its options, read by the rules of a shell."""

from __future__ import annotations

import io
import shlex
from typing import Any, Final, Literal, NoReturn

import msgspec

from dblens.errors import InvalidInput

To = Literal["df", "arrow", "polars", "results"]
TARGETS: Final[tuple[To, ...]] = ("df", "arrow", "polars", "results")
HELP: Final = """\
%%dblens [CONNECTION] [OPTIONS]        ask a database: the rest of the cell is SQL, or a MongoDB shell's text
  --limit N          rows at most of each statement (10000); 0: all
  --to KIND NAME     put the rows into a variable: df, arrow, polars, results
  --params [NAME…]   take `:name` in the text from the notebook's variables; without names: each that the text has
  -p NAME=TEXT       a parameter, NAME:=JSON for another value than a text; repeatable
  --as NAME          keep the text as a query that later cells of this connection use like a table
  --no-run           with --as: keep it only
  --read-only        the server must refuse to write, whatever the text says
  --confirm TOKEN    what the refusal before said
  --timeout SECONDS  stop it after so long
  --quiet            show nothing

%dblens                              connections, the default one, kept queries
%dblens CONNECTION SELECT …          a query on one line
%dblens use CONNECTION               the connection of cells that name none
%dblens forget NAME                  a kept query
%dblens refresh                      read schemas anew for completion
%dblens workspace NAME               ask through a Workspace that a variable holds

Examples
  %%dblens shop --to df orders
  select * from orders where placed >= :day      -- with  -p day=2026-01-01

  %%dblens shop --as recent
  select * from orders where placed > now() - interval '7 days'
  %%dblens shop
  select status, count(*) from recent group by status

  %%dblens events --limit 20
  db.clicks.find({page: "/"}).sort({at: -1})

The result is `_`: `_.df()`, `_.arrow()`, `_.rows()`, `_.plot("bar")`. Interrupting the cell stops the query on its server."""


class Options(msgspec.Struct, kw_only=True):
    """What a first line says."""

    connection: str | None = None
    rest: str = ""
    """What follows the connection on the line of a line magic."""
    limit: int = 10_000
    to: To | None = None
    variable: str | None = None
    from_notebook: bool = False
    names: tuple[str, ...] = ()
    params: dict[str, Any] = {}
    keep: str | None = None
    run: bool = True
    read_only: bool = False
    confirm: str | None = None
    timeout: float | None = None
    quiet: bool = False
    help: bool = False


def read(line: str, *, whole: bool = True) -> Options:
    """Return the options of a line. `whole`: all of it is options; else the text of a query begins after the connection.

    Raises InvalidInput, which names what was not understood.
    """
    options = Options()
    words = _Words(line)
    while (word := words.next()) is not None:
        if not word.startswith("-") or word == "-":
            if options.connection is None:
                options.connection = word
                if not whole:
                    options.rest = words.rest()
                    break
                continue
            _no(f"{word!r} follows the connection {options.connection!r}", "the text begins on the next line")
        _option(word, words, options)
    if options.keep is None and not options.run:
        _no("--no-run keeps nothing", "add --as NAME")
    return options


def _option(word: str, words: _Words, options: Options) -> None:
    match word:
        case "--help" | "-h":
            options.help = True
        case "--limit" | "-n":
            options.limit = _number(word, words.value(word), least=0)
        case "--timeout":
            options.timeout = _seconds(words.value(word))
        case "--to":
            kind = words.value(word)
            options.to = next((each for each in TARGETS if each == kind), None)
            if options.to is None:
                _no(f"--to {kind!r}", f"one of {', '.join(TARGETS)}, then a name")
            options.variable = _name(word, words.value(f"{word} {kind}"))
        case "--params":
            options.from_notebook = True
            while (name := words.peek()) is not None and name.isidentifier() and options.connection is not None:
                options.names = (*options.names, name)
                words.next()
        case "-p" | "--param":
            name, value = _param(words.value(word))
            options.params[name] = value
        case "--as":
            options.keep = _name(word, words.value(word))
        case "--no-run":
            options.run = False
        case "--read-only":
            options.read_only = True
        case "--confirm":
            options.confirm = words.value(word)
        case "--quiet" | "-q":
            options.quiet = True
        case _:
            _no(f"no option {word!r}", "`%dblens --help` shows all")


class _Words:
    """The words of a line, one after the other; what follows a word is still there as it was written."""

    def __init__(self, line: str) -> None:
        self._line = line.strip()
        self._stream = io.StringIO(self._line)
        lexer = shlex.shlex(self._stream, posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        self._lexer, self._ahead = lexer, list[str]()

    def peek(self) -> str | None:
        if not self._ahead:
            word = self.next()
            if word is not None:
                self._ahead.append(word)
            return word
        return self._ahead[0]

    def next(self) -> str | None:
        if self._ahead:
            return self._ahead.pop(0)
        try:
            return self._lexer.get_token()
        except ValueError as error:
            raise InvalidInput(f"the line {self._line!r}: {error}", hint="close the quotation") from None

    def value(self, option: str) -> str:
        word = self.next()
        if word is None:
            _no(f"{option} without a value", "`%dblens --help` shows what it takes")
        return word

    def rest(self) -> str:
        return self._stream.read().strip()


def _no(what: str, hint: str) -> NoReturn:
    raise InvalidInput(what, hint=hint)


def _name(option: str, name: str) -> str:
    if not name.isidentifier():
        _no(f"{option}: {name!r} is no name", "letters, digits and _")
    return name


def _number(option: str, text: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        _no(f"{option} {text!r}", f"a whole number from {least}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1e6:
        _no(f"--timeout {text!r}", "seconds, more than nothing")
    return found


def _param(text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    as_json = name.endswith(":")
    name = name.removesuffix(":")
    if not mark or not name.isidentifier():
        _no(f"-p {text!r}", "name=text, or name:=JSON")
    if not as_json:
        return name, value
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"-p {text!r} is no JSON: {error}", hint="name:=7, name:=null, name:='\"text\"'") from None
