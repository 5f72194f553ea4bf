r"""Whole batches of driver rows to load text, canonical texts and digests: in C where it was built, in Python otherwise.

The Python functions here define the result; `_speed.c` does the same many times faster and calls the function for a single value
(`_LOADERS`, `_RENDERERS`, or the caller's own `singles`, one a column) for each that is out of the ordinary. `DBLENS_PURE=1` in the environment keeps to Python. A column's kind is one octet of `kinds`; every
kind takes None (NULL). ValueError for a value that its kind cannot hold, for a row of another width, for an unknown kind; nothing is
added to the sums then.

| kind | takes | `encode_rows` writes | `digest_rows`, `render_rows` give |
|---|---|---|---|
| i | int, bool | digits | digits |
| f | float; int that is a double; to render also its text | `repr`, `NaN`, `Infinity` (not in mytext) | form float |
| v | bool, 0, 1 | 0 or 1 | 0 or 1 |
| s | str | escaped | its UTF-8 |
| r | bytes that are text | escaped, as they are | as they are |
| t | str or bytes known to need no escape | as they are | as they are |
| b | bytes | hex, in pgtext behind `\\x` | hex |
| n | int, float, str, bytes: a number as the driver has it | digits, `repr`, or escaped text | – |
| w | str, bytes: a wall clock | `T` as a space | form timestamp |
| a | str, bytes | – | form date |
| u | str, bytes | – | form uuid |
| o | anything that the column's own `singles` function takes | what that returns | what that returns |
| d | int, float, Decimal, str, bytes | – | form decimal |
| z | str, bytes: a moment in UTC | `T` as a space, `Z` dropped | form timestamptz (a text without offset stays as it is) |
| k | str, bytes | – | form time |
| j | str, bytes, int, float | – | form json |
| y | int, float, str, bytes | – | form dynamic |

A capital letter is the same kind without octets: a str may stand in its column, bytes may not.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import re
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, cast

from dblens.values import binary
from dblens.values.codec import renderer
from dblens.values.forms import Form

if TYPE_CHECKING:
    from types import ModuleType

Dialect = Literal["pgtext", "mytext"]
Rows = Sequence[Sequence[Any]]
Lines = Sequence[bytes | memoryview]
Singles: TypeAlias = "tuple[Callable[[Any], bytes], ...]"
"""By column: what turns a single value into its text, or raises ValueError."""
Lanes: TypeAlias = "array[int]"
"""Sums of a fingerprint in place: 4,096 triples of count, first lane, second lane, unsigned 64-bit."""

_LANE = (1 << 64) - 1


class HasLanes(Protocol):
    """Something that keeps sums: `values.digest.Accumulator`."""

    @property
    def lanes(self) -> Lanes: ...


# ------------------------------------------------------------------------------------------------------------ single values


def _refuse(kind: str, value: object) -> ValueError:
    return ValueError(f"kind {kind!r} cannot hold {type(value).__name__} {value!r:.80}")


def _load_int(value: object) -> bytes:
    if isinstance(value, int):
        return b"%d" % value
    raise _refuse("i", value)


def _load_float(value: object) -> bytes:
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(float(value)).encode()
        return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
    if isinstance(value, int) and _is_double(value):
        return b"%d" % value
    raise _refuse("f", value)


def _finite_float(value: object) -> bytes:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"MySQL has no {value}")
    return _load_float(value)


def _is_double(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _flag(value: object) -> bytes:
    if isinstance(value, int) and value in (0, 1):
        return b"1" if value else b"0"
    raise _refuse("v", value)


def _str(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    raise _refuse("s", value)


def _raw(value: object) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise _refuse("r", value)


def _clean(value: object) -> bytes:
    return _str(value) if isinstance(value, str) else _raw(value)


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?", re.ASCII)


def _moment(kind: str, value: object) -> bytes:
    text = _clean(value).decode()
    bare = text.removesuffix("Z") if kind == "z" else text
    if _MOMENT.fullmatch(bare) is None:
        raise _refuse(kind, value)
    return bare.replace("T", " ").encode()


def _own(value: object) -> bytes:
    raise _refuse("o", value)


def _without_octets(table: dict[int, Callable[[Any], bytes]]) -> dict[int, Callable[[Any], bytes]]:
    """Add the capital kinds."""

    def strict(kind: int, single: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def checked(value: object) -> bytes:
            if isinstance(value, (bytes, bytearray, memoryview)):
                raise _refuse(chr(kind - 32), value)
            return single(value)

        return checked

    return table | {kind - 32: strict(kind, single) for kind, single in table.items()}


def _hex(value: object) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex().encode()
    raise _refuse("b", value)


def _pg_escape(text: bytes) -> bytes:
    if b"\0" in text:
        raise ValueError(f"PostgreSQL text cannot hold U+0000: {text[:80]!r}")
    return text.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _my_escape(text: bytes) -> bytes:
    return (
        text.replace(b"\\", b"\\\\")
        .replace(b"\t", b"\\t")
        .replace(b"\n", b"\\n")
        .replace(b"\r", b"\\r")
        .replace(b"\0", b"\\0")
    )


def _loaders(
    escape: Callable[[bytes], bytes], real: Callable[[object], bytes], prefix: bytes
) -> dict[int, Callable[[Any], bytes]]:
    def number(value: object) -> bytes:
        if isinstance(value, int):
            return b"%d" % value
        return real(value) if isinstance(value, float) else escape(_clean(value))

    table: dict[str, Callable[[Any], bytes]] = {
        "i": _load_int,
        "f": real,
        "v": _flag,
        "s": lambda v: escape(_str(v)),
        "r": lambda v: escape(_raw(v)),
        "t": _clean,
        "b": lambda v: prefix + _hex(v),
        "n": number,
        "w": lambda v: _moment("w", v),
        "z": lambda v: _moment("z", v),
        "o": _own,
    }
    return _without_octets({ord(k): f for k, f in table.items()})


_LOADERS: dict[str, dict[int, Callable[[Any], bytes]]] = {
    "pgtext": _loaders(_pg_escape, _load_float, b"\\\\x"),
    "mytext": _loaders(_my_escape, _finite_float, b""),
}


def _text_form(kind: str, form: Form) -> Callable[[object], bytes]:
    render = renderer(form)

    def text(value: object) -> bytes:
        if isinstance(value, (str, bytes, bytearray)):
            return render(value).encode()
        raise _refuse(kind, value)

    return text


def _formed(form: Form) -> Callable[[object], bytes]:
    render = renderer(form)
    return lambda value: render(value).encode()


_RENDERERS: dict[int, Callable[[Any], bytes]] = _without_octets(
    {
        ord("i"): _load_int,
        ord("f"): _formed(Form.FLOAT),
        ord("v"): _flag,
        ord("s"): _str,
        ord("r"): _raw,
        ord("t"): _clean,
        ord("b"): _hex,
        ord("d"): _formed(Form.DECIMAL),
        ord("z"): _text_form("z", Form.TIMESTAMPTZ),
        ord("k"): _text_form("k", Form.TIME),
        ord("j"): _formed(Form.JSON),
        ord("y"): _formed(Form.DYNAMIC),
        ord("w"): _text_form("w", Form.TIMESTAMP),
        ord("a"): _text_form("a", Form.DATE),
        ord("u"): _text_form("u", Form.UUID),
        ord("o"): _own,
    }
)

# ------------------------------------------------------------------------------------------------------ batches, in Python


def _singles(table: dict[int, Callable[[Any], bytes]], kinds: bytes, given: Singles | None) -> Singles:
    for kind in kinds:
        if kind not in table:
            raise ValueError(f"unknown kind of column: {kind}")
    if given is not None and len(given) != len(kinds):
        raise ValueError(f"{len(given)} functions for {len(kinds)} columns")
    return tuple([table[kind] for kind in kinds]) if given is None else given


def _loaders_of(dialect: Dialect) -> dict[int, Callable[[Any], bytes]]:
    if dialect not in _LOADERS:
        raise ValueError(f"unknown dialect: {dialect}")
    return _LOADERS[dialect]


def _check(row: Sequence[Any], width: int) -> None:
    if len(row) != width:
        raise ValueError(f"a row of {len(row)} values for {width} columns")


def _encode_rows(rows: Rows, kinds: bytes, dialect: Dialect, singles: Singles | None = None) -> bytes:
    steps = _singles(_loaders_of(dialect), kinds, singles)
    lines = []
    for row in rows:
        _check(row, len(steps))
        lines.append(b"\t".join([b"\\N" if v is None else f(v) for f, v in zip(steps, row, strict=True)]))
    return b"\n".join([*lines, b""])


def _render_rows(rows: Rows, kinds: bytes, singles: Singles | None = None) -> list[tuple[bytes | None, ...]]:
    steps = _singles(_RENDERERS, kinds, singles)
    texts = []
    for row in rows:
        _check(row, len(steps))
        texts.append(tuple([None if v is None else f(v) for f, v in zip(steps, row, strict=True)]))
    return texts


def _digest_rows(rows: Rows, kinds: bytes, lanes: Lanes, singles: Singles | None = None) -> int:
    texts = _render_rows(rows, kinds, singles)
    return _digest_lines(
        [b"".join([b"-" if f is None else b"%d:%b" % (len(f), f) for f in row]) for row in texts], lanes
    )


def _digest_lines(lines: Lines, lanes: Lanes) -> int:
    digests = [hashlib.sha256(text).digest() for text in lines]
    for digest in digests:
        at = 3 * ((digest[0] << 4) | (digest[1] >> 4))
        lanes[at] += 1
        lanes[at + 1] = (lanes[at + 1] + int.from_bytes(digest[:8], "big")) & _LANE
        lanes[at + 2] = (lanes[at + 2] + int.from_bytes(digest[8:16], "big")) & _LANE
    return len(digests)


# ---------------------------------------------------------------------------------------------------------------- the choice


class Encode(Protocol):
    """`encode_rows`."""

    def __call__(self, rows: Rows, kinds: bytes, dialect: Dialect, singles: Singles | None = None, /) -> bytes: ...


class Digest(Protocol):
    """`digest_rows`, with `lanes` in the place of what keeps them."""

    def __call__(self, rows: Rows, kinds: bytes, lanes: Lanes, singles: Singles | None = None, /) -> int: ...


class Render(Protocol):
    """`render_rows`."""

    def __call__(
        self, rows: Rows, kinds: bytes, singles: Singles | None = None, /
    ) -> list[tuple[bytes | None, ...]]: ...


class Kit(NamedTuple):
    """One implementation of the functions below; `lanes` in the place of what keeps them."""

    name: str
    encode_rows: Encode
    digest_rows: Digest
    digest_lines: Callable[[Lines, Lanes], int]
    digest_messages: Callable[[Lines, bytes, Lanes], int]
    render_rows: Render


def _digest_messages(messages: Lines, kinds: bytes, lanes: Lanes) -> int:
    _singles(binary.KINDS, kinds, None)
    return _digest_lines(binary.lines(messages, kinds), lanes)


PYTHON = Kit("python", _encode_rows, _digest_rows, _digest_lines, _digest_messages, _render_rows)


def native(module: ModuleType) -> Kit:
    """Return the kit of a built `_speed` module, bound to this module's definitions."""
    c = cast("Any", module)

    def encode(rows: Rows, kinds: bytes, dialect: Dialect, singles: Singles | None = None) -> bytes:
        steps = _singles(_loaders_of(dialect), kinds, singles)
        return cast("bytes", c.encode_rows(rows, kinds, steps, dialect == "mytext"))

    def digest(rows: Rows, kinds: bytes, lanes: Lanes, singles: Singles | None = None) -> int:
        return cast("int", c.digest_rows(rows, kinds, _singles(_RENDERERS, kinds, singles), lanes))

    def render(rows: Rows, kinds: bytes, singles: Singles | None = None) -> list[tuple[bytes | None, ...]]:
        return cast("list[tuple[bytes | None, ...]]", c.render_rows(rows, kinds, _singles(_RENDERERS, kinds, singles)))

    def messages(messages: Lines, kinds: bytes, lanes: Lanes) -> int:
        return cast("int", c.digest_messages(messages, kinds, _singles(binary.KINDS, kinds, None), lanes))

    return Kit("c", encode, digest, c.digest_lines, messages, render)


def _built() -> Any:
    # The C file stores big endian digests as native integers and was tried on little endian machines only.
    if os.environ.get("DBLENS_PURE") == "1" or sys.byteorder != "little":
        return None
    try:
        return importlib.import_module("dblens.values._speed")
    except ImportError:
        return None


module = _built()
"""The C module, None where this process keeps to Python."""
_kit = PYTHON if module is None else native(module)
implementation = _kit.name
"""`c` or `python`: what this process uses."""


def encode_rows(rows: Rows, kinds: bytes, dialect: Dialect, singles: Singles | None = None) -> bytes:
    """Return rows as COPY text or LOAD DATA text, each ended by a newline. What `singles` return is not escaped again."""
    return _kit.encode_rows(rows, kinds, dialect, singles)


def digest_rows(rows: Rows, kinds: bytes, sums: HasLanes, singles: Singles | None = None) -> int:
    """Add the digests of rows to `sums`; return how many rows."""
    return _kit.digest_rows(rows, kinds, sums.lanes, singles)


def digest_lines(lines: Lines, sums: HasLanes) -> int:
    """Add the digests of row lines to `sums`; return how many."""
    return _kit.digest_lines(lines, sums.lanes)


def digest_messages(messages: Lines, kinds: bytes, sums: HasLanes) -> int:
    """Add the digests of rows of binary COPY to `sums`, by the kinds of `values.binary`; return how many rows."""
    return _kit.digest_messages(messages, kinds, sums.lanes)


def render_rows(rows: Rows, kinds: bytes, singles: Singles | None = None) -> list[tuple[bytes | None, ...]]:
    """Return the canonical texts of rows."""
    return _kit.render_rows(rows, kinds, singles)
