"""What a hazard is, and the words in which the corpus is written down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dblens.values.forms import Form


class Missing:
    """A field that a document does not have at all."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Raw:
    """A whole BSON document given by its octets after the `_id` element: what no driver would write (duplicate keys …)."""

    elements: bytes


@dataclass(frozen=True, slots=True)
class Hazard:
    """One value that databases, drivers or tools are known to change.

    `native` is the column's spelling in its own engine. `literal` is SQL text (`None`: NULL; anything but text is a value to bind). `canonical` is the
    expected canonical text by `dblens.values.forms`, written by hand; octets where it is not valid UTF-8; None for NULL.
    `only` names the flavour (`mariadb`, `mysql`, `18` for a least major version) that can hold it.
    """

    id: str
    native: str
    literal: object
    form: Form
    canonical: str | bytes | None
    tags: frozenset[str] = frozenset()
    only: str | None = None

    @property
    def expected(self) -> bytes | None:
        """Expected canonical octets."""
        return self.canonical.encode() if isinstance(self.canonical, str) else self.canonical


@dataclass(frozen=True, slots=True)
class CorpusTable:
    """A table that holds the hazards of one native type and form: `id` (1 …) beside `v`. `rows` = expected (id, text of v)."""

    namespace: str
    name: str
    native: str
    form: Form
    hazards: tuple[Hazard, ...]
    prelude: tuple[str, ...] = field(default=(), compare=False)

    @property
    def rows(self) -> list[tuple[bytes, bytes | None]]:
        """Expected canonical texts of `id` and `v`, by id."""
        return [(b"%d" % (n + 1), h.expected) for n, h in enumerate(self.hazards)]


Item = tuple[object, ...]


def group(
    native: str, form: Form, tags: str, items: Iterable[Item], *, only: str | None = None, name: str | None = None
) -> list[Hazard]:
    """Write hazards of one type down: items are (id, literal, canonical[, further tags[, only]]); tags are separated by spaces."""
    made = []
    for item in items:
        ident, literal, text, *rest = item
        more = str(rest[0]) if rest else ""
        own = rest[1] if len(rest) > 1 else only
        assert text is None or isinstance(text, (str, bytes))
        made.append(
            Hazard(
                id=f"{name or slug(native)}-{form}-{ident}",
                native=native,
                literal=literal,
                form=form,
                canonical=text,
                tags=frozenset(f"{tags} {more}".split()),
                only=None if own is None else str(own),
            )
        )
    return made


def slug(native: str) -> str:
    """Return a native spelling as part of a name."""
    return re.sub(r"[^a-z0-9]+", "_", native.lower()).strip("_")[:40] or "none"


def tables(hazards: Sequence[Hazard], namespace: str) -> list[CorpusTable]:
    """Group hazards by native type and form into tables, each with a NULL behind its values (whole documents have none)."""
    groups: dict[tuple[str, Form], list[Hazard]] = {}
    for hazard in hazards:
        groups.setdefault((hazard.native, hazard.form), []).append(hazard)
    made: list[CorpusTable] = []
    taken: set[str] = set()
    for (native, form), members in groups.items():
        stem = f"h_{slug(native)}_{form}"
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        if form != Form.BSON and all(h.literal is not None for h in members):
            members.append(Hazard(f"{name}-null", native, None, form, None, frozenset({"null"})))
        made.append(CorpusTable(namespace, name, native, form, tuple(members)))
    return made


# ------------------------------------------------------------------------------------------------- texts shared by all engines

TEXTS: Final[tuple[tuple[str, str, str], ...]] = (
    ("empty", "", "row-78"),
    ("word-null", "NULL", "row-78"),
    ("word-null-lower", "null", "row-78"),
    ("backslash-n", "\\N", "row-78"),
    ("angle-null", "<null>", "row-78"),
    ("minus", "-", "row-78"),
    ("line-alike", "3:abc", "row-78"),
    ("line-alike-null", "1:a-", "row-78"),
    ("space", " ", "row-78 trailing"),
    ("trailing-spaces", "ab  ", "row-78 trailing"),
    ("leading-spaces", "  ab", "row-78"),
    ("trailing-tab", "ab\t", "row-78"),
    ("trailing-newline", "ab\n", "row-78"),
    ("crlf", "a\r\nb\rc\nd", "row-78"),
    ("backslashes", "a\\b\\\\c\\t\\n\\x41\\", "row-78"),
    ("copy-end", "\\.", "row-78"),
    ("quotes", "'\"`''\"\"", "row-78"),
    ("controls", "\x01\x02\x07\x08\x0b\x0c\x1a\x1b\x1f\x7f", "row-75"),
    ("c1-controls", "\x80\x85\x9f", "row-75"),
    ("separators", "\u2028\u2029\u00a0\u200b", "row-75"),
    ("nfc", "\u00e9", "row-75 row-80"),
    ("nfd", "e\u0301", "row-75 row-80"),
    ("bom", "\ufefftext", "row-75"),
    ("replacement", "\ufffd", "row-75"),
    ("noncharacter", "\ufffe\uffff", "row-75"),
    ("mojibake", "Ã©â‚¬", "row-75"),
    ("sharp-s", "ß", "row-80"),
    ("double-s", "ss", "row-80"),
    ("upper", "STRASSE", "row-80"),
    ("dotted-i", "İIıi", "row-80"),
    ("rtl", "\u202eשלום العربية\u202c", "row-75 rtl"),
    ("cjk", "日本語 中文 한국어", "row-75"),
    ("formula", "=1+1", "row-87"),
    ("script", "<script>alert(1)</script>", "row-87"),
    ("ansi", "\x1b[31mred\x1b[0m", "row-87"),
    ("placeholders", "%s %d %% {} {0} $1 :a ?", "row-62"),
    ("injection", "'; DROP TABLE canary; --", "row-62"),
    ("number-alike", "00123.4500", "row-82"),
)
"""Texts within the basic plane and without U+0000: every engine holds them."""

ASTRAL: Final[tuple[tuple[str, str, str], ...]] = (
    ("emoji", "😀", "row-75 four-byte"),
    ("family", "👩‍👩‍👧‍👦🇩🇪👍🏽", "row-75 four-byte"),
    ("last-code-point", "\U0010ffff", "row-75 four-byte"),
    ("astral-letters", "𝒳𐍈𠜎", "row-75 four-byte"),
)
"""Texts beyond the basic plane."""

DOUBLES: Final[tuple[tuple[str, str, str, str], ...]] = (
    # id, literal that every SQL engine reads as a double, canonical text, tags
    ("tenth-sum", "0.30000000000000004", "0.30000000000000004", "row-76"),
    ("tenth", "0.1", "0.1", "row-76"),
    ("small", "1e-7", "0.0000001", "row-76"),
    ("seventeen-digits", "123456789012345680", "123456789012345680", "row-76"),
    ("beyond-2-53", "9007199254740993", "9007199254740992", "row-76"),
    ("max", "1.7976931348623157e308", "17976931348623157" + "0" * 292, "row-76"),
    ("lowest", "-1.7976931348623157e308", "-17976931348623157" + "0" * 292, "row-76"),
    ("1e22", "1e22", "1" + "0" * 22, "row-76"),
    ("1e23", "1e23", "1" + "0" * 23, "row-76"),
    ("half-way", "72057594037927945", "72057594037927950", "row-76"),
    ("1e16", "1e16", "1" + "0" * 16, "row-76"),
    ("1e15-and-half", "1000000000000000.5", "1000000000000000.5", "row-76"),
    ("zero", "0", "0", "row-76"),
    ("whole", "-42", "-42", "row-76"),
    ("third", "0.3333333333333333", "0.3333333333333333", "row-76"),
    ("one-plus-ulp", "1.0000000000000002", "1.0000000000000002", "row-76"),
    ("least-normal", "2.2250738585072014e-308", "0." + "0" * 307 + "22250738585072014", "row-76 denormal"),
)
DENORMALS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("greatest-denormal", "2.225073858507201e-308", "0." + "0" * 307 + "2225073858507201", "row-76 denormal"),
    ("least-denormal", "5e-324", "0." + "0" * 323 + "5", "row-76 denormal"),
    ("negative-denormal", "-5e-324", "-0." + "0" * 323 + "5", "row-76 denormal"),
)
