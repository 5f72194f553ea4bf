"""Documents as a flat grid: hybrid Extended JSON texts in, columns of dotted paths and exact cells out.

A cell is the exact text of its value; None where the document has no such field, which is not its null. A column whose values are all
strings is of kind `text`: its cells are the strings themselves. Any other is of kind `json`: each cell is Extended JSON, so `"5"`, `5`
and `null` stay three things. Documents within documents become columns of their own; arrays, empty documents, documents whose first key
begins with `$` (wrappers, references) and documents with a key twice stay one cell. A key with a dot, a quote or no character stands in
quotes within the path. What does not fit in the columns is a document of paths in the last column, `__rest`.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from dblens.errors import InvalidInput

_quote = json.encoder.encode_basestring
_DEEPEST = 200
REST = "__rest"


class FlatColumn(NamedTuple):
    """A column: its name, the keys that lead to it (none for what is left over), and what its cells are."""

    name: str
    path: tuple[str, ...]
    kind: Literal["text", "json"]


class _Number(str):
    """A number in its own spelling."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, every key kept."""

    __slots__ = ()


def flat(documents: Sequence[str], most_columns: int) -> tuple[tuple[FlatColumn, ...], list[tuple[str | None, ...]]]:
    """Return columns and rows of documents; `most_columns` counts the rest's too. `_id` stands first, others as they are first met.

    Raises InvalidInput for a text that is no document, and for fewer than 2 columns.
    """
    if most_columns < 2:
        raise InvalidInput(f"a flat grid of {most_columns} columns", hint="2 or more: one and the rest")
    found = [list(_leaves(_document(text, n), (), 0)) for n, text in enumerate(documents, 1)]
    paths = dict.fromkeys(path for leaves in found for path, _ in leaves)
    ordered = sorted(paths, key=lambda path: path[0] != "_id")  # stable: the others keep their order
    twice = any(len({path for path, _ in leaves}) != len(leaves) for leaves in found)
    kept = ordered if len(ordered) <= most_columns and not twice else ordered[: most_columns - 1]
    rest = twice or len(kept) < len(ordered)
    places = {path: n for n, path in enumerate(kept)}
    strings = [True] * len(kept)
    for leaves in found:
        for path, value in leaves:
            if path in places and type(value) is not str:
                strings[places[path]] = False
    rows: list[tuple[str | None, ...]] = []
    for leaves in found:
        row: list[str | None] = [None] * (len(kept) + rest)
        left: list[str] = []
        for path, value in leaves:
            place = places.get(path)
            if place is None or row[place] is not None:
                left.append(f"{_quote(_name(path))}:{_text(value)}")
            else:
                row[place] = value if strings[place] else _text(value)
        if left:
            row[-1] = "{" + ",".join(left) + "}"
        rows.append(tuple(row))
    columns = [FlatColumn(_name(path), path, "text" if strings[n] else "json") for n, path in enumerate(kept)]
    if rest:
        name = REST
        while any(column.name == name for column in columns):
            name += "_"
        columns.append(FlatColumn(name, (), "json"))
    return tuple(columns), rows


def _document(text: str, number: int) -> _Object:
    try:
        found = json.loads(text, object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"document {number} is no Extended JSON: {text[:40]!r}") from error
    if not isinstance(found, _Object):
        raise InvalidInput(f"row {number} holds no document but {text[:40]!r}", hint="a flat grid is made of documents")
    return found


def _leaves(document: _Object, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in document:
        here = (*path, key)
        if isinstance(value, _Object) and value and depth < _DEEPEST and _opens(value):
            yield from _leaves(value, here, depth + 1)
        else:
            yield here, value


def _opens(document: _Object) -> bool:
    return not document[0][0].startswith("$") and len({key for key, _ in document}) == len(document)


def _name(path: tuple[str, ...]) -> str:
    return ".".join(_quote(key) if not key or "." in key or '"' in key else key for key in path)


def _text(value: Any) -> str:
    """Return a value in hybrid Extended JSON, in its own spelling."""
    match value:
        case _Number():
            return str(value)
        case str():
            return _quote(value)
        case _Object():
            return "{" + ",".join(f"{_quote(key)}:{_text(each)}" for key, each in value) + "}"
        case list():
            return "[" + ",".join(map(_text, value)) + "]"
        case None:
            return "null"
    return "true" if value else "false"
