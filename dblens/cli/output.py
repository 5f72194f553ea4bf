"""What goes where: data to stdout, everything else to stderr; tables for people, JSON and tab-separated lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from dblens.cli.passwords import scrub

Style = Literal["", "bold", "dim", "red", "yellow", "green", "cyan"]


def on_terminal() -> bool:
    """Return whether a person reads stdout."""
    return sys.stdout.isatty()


def safe(text: object) -> str:
    """Return a text that cannot move the cursor or colour the terminal: names and values are other people's."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def _escaped(char: str) -> str:
    return repr(char)[1:-1]


def json(value: object) -> None:
    """Write a value as JSON to stdout, indented for a terminal."""
    data = msgspec.json.encode(value)
    write(msgspec.json.format(data, indent=2 if on_terminal() else -1).decode() + "\n")


def write(text: str) -> None:
    """Write data to stdout in UTF-8, whatever the locale says."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    buffer.write(text.encode("utf-8", "surrogateescape"))
    buffer.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Show rows: a drawn table on a terminal, tab-separated lines with a header line elsewhere. None is an empty cell."""
    cells = [[safe("" if cell is None else cell) for cell in row] for row in rows]
    if not on_terminal():
        write("".join("\t".join(row) + "\n" for row in [list(columns), *cells]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
    for name in columns:
        drawn.add_column(Text(name), overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def lines(items: Iterable[tuple[str, Style]]) -> None:
    """Write lines of text to stdout, styled on a terminal; control characters are shown, not obeyed."""
    if not on_terminal():
        write("".join(safe(text) + "\n" for text, _ in items))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for text, style in items:
        console.print(Text(safe(text), style=style), soft_wrap=True)


def note(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(safe(scrub(text)) + "\n")


def error(message: str, hint: str | None, code: str, status: int, *, as_json: bool = False) -> None:
    """Report an error on stderr: what failed, an empty line, what to do next; or one line of JSON."""
    message, hint = scrub(message), scrub(hint) if hint else None
    if as_json:
        data = msgspec.json.encode({"error": {"code": code, "message": message, "hint": hint, "exit": status}})
        sys.stderr.write(data.decode() + "\n")
        return
    text = "\n".join(safe(part) for part in f"error: {message}".split("\n"))
    if hint:
        text += "\n\nhint: " + "\n".join(safe(part) for part in hint.split("\n"))
    sys.stderr.write(text + "\n")
