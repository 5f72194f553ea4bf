"""What the shared suite must know of an engine: how to reach a server, its language for samples, and where it may fall short."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from dblens.engines.base import Check, CheckKind


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a test of the shared suite fails for an engine: it can never hold, not yet, or is not implemented."""

    kind: Literal["never", "notyet", "notimpl"]
    reason: str


@dataclass(frozen=True, slots=True)
class CheckCase:
    """A check, a column's native type, literals for it, and how many of them (by position) the check must count."""

    check: Check
    native: str
    literals: tuple[object, ...]
    bad: tuple[int, ...]

    @property
    def kind(self) -> CheckKind:
        return self.check.kind


class Harness(ABC):
    """One engine on one server.

    `sample` makes the tables `person` (key `id`, numbered by the engine; unique `email`; rows 1..5), `purchase` (key `person_id`, `line`;
    refers to `person`; rows (1,1), (1,2), (2,1)), `plain` (no key, two equal rows) and the view `rich`.
    """

    name: ClassVar[str]
    engine: ClassVar[str]
    server: ClassVar[str]
    EXPECTED_GAPS: ClassVar[Mapping[str, Gap]] = {}
    """By `file.py::test_name` or `file.py::test_name[parameter]`."""
    UNNAMEABLE: ClassVar[frozenset[str]] = frozenset()
    """Names that the server itself refuses for tables."""
    CHECKS: ClassVar[Sequence[CheckCase]] = ()
    KEYS: ClassVar[Mapping[str, Sequence[str]]] = {
        "k_int": ("id",),
        "k_pair": ("a", "b"),
        "k_text": ("k",),
        "k_none": (),
    }

    @abstractmethod
    def sample(self, url: str) -> None:
        """Make the sample tables."""

    @abstractmethod
    def keyed(self, url: str, kind: str, rows: int, name: str | None = None) -> None:
        """Make one of the tables of `KEYS` with so many rows, called like its kind or `name`; `v` counts from 1."""

    @abstractmethod
    def column(self, url: str, table: str, native: str, literals: Sequence[object]) -> None:
        """Make a table with the key `id` (1 …) and a column `v` holding literals."""

    @abstractmethod
    def named(self, url: str, name: str) -> None:
        """Make a table called `name` with a key `id` and a text column called `name`, holding one row (1, 'x')."""

    @abstractmethod
    def release(self, url: str) -> None:
        """Remove what depends on `person` (the view `rich`), where that would keep it from being replaced."""

    @abstractmethod
    def change(self, url: str, table: str) -> None:
        """Write to a table as an application would: add the row 99 to `person`."""


TEXT_KEYS = ("a", "A", "b", "B", "é", "e", "Z", "z", "_", " ", "a b", "10", "9", "-1", "ß", "ss", "'", "\\", "日", "~")


def text_key(number: int) -> str:
    """Return the number-th text key: hostile to anybody who sorts in another collation than the server."""
    return f"{TEXT_KEYS[number % len(TEXT_KEYS)]}{number}"


COMMON: tuple[tuple[str, object], ...] = (
    ("9223372036854775807", 9223372036854775807),
    ("-9223372036854775807", -9223372036854775807),
    ("0", 0),
    ("'é😀'", "é😀"),
    ("''", ""),
    ("'NULL'", "NULL"),
    ("NULL", None),
    ("' trailing '", " trailing "),
    ("'it''s 100%'", "it's 100%"),
)
"""What every server that speaks SQL answers alike."""


class SqlHarness(Harness):
    """What servers that speak SQL share; each still brings its own sample and types."""

    mark: ClassVar[str] = '"'
    key_text: ClassVar[str] = "varchar(40)"
    SAMPLE: ClassVar[Sequence[str]] = ()
    EXACT: ClassVar[Sequence[tuple[str, object]]] = ()
    """Expressions and the Python values that a session answers with (the texts of those that are `Odd`)."""

    def text_of(self, characters: int) -> str:
        """Return an expression for a text of so many characters."""
        return f"repeat('x', {characters})"

    @abstractmethod
    def run(self, url: str, statements: Sequence[str]) -> None:
        """Run statements with the driver alone, then commit."""

    def quote(self, name: str) -> str:
        return self.mark + name.replace(self.mark, self.mark * 2) + self.mark

    def literal(self, text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    def sample(self, url: str) -> None:
        self.run(url, self.SAMPLE)

    def keyed(self, url: str, kind: str, rows: int, name: str | None = None) -> None:
        q, lit = self.quote, self.literal
        columns = {
            "k_int": "id integer NOT NULL PRIMARY KEY, v integer",
            "k_pair": f"a integer NOT NULL, b {self.key_text} NOT NULL, v integer, PRIMARY KEY (a, b)",
            "k_text": f"k {self.key_text} NOT NULL PRIMARY KEY, v integer",
            "k_none": f"v integer, t {self.key_text}",
        }[kind]
        values: Callable[[int], str] = {
            "k_int": lambda n: f"({n * 3 - 7}, {n})",
            "k_pair": lambda n: f"({n // 4 - 2}, {lit(text_key(n))}, {n})",
            "k_text": lambda n: f"({lit(text_key(n))}, {n})",
            "k_none": lambda n: f"({n // 2}, 'same')",
        }[kind]
        statements = [f"CREATE TABLE {q(name or kind)} ({columns})"]
        if rows:
            statements.append(
                f"INSERT INTO {q(name or kind)} VALUES " + ", ".join(values(n) for n in range(1, rows + 1))
            )
        self.run(url, statements)

    def column(self, url: str, table: str, native: str, literals: Sequence[object]) -> None:
        q = self.quote(table)
        rows = [f"INSERT INTO {q} VALUES ({n}, {literal})" for n, literal in enumerate(literals, 1)]
        self.run(url, [f"CREATE TABLE {q} (id integer NOT NULL PRIMARY KEY, v {native})", *rows])

    def named(self, url: str, name: str) -> None:
        q = self.quote(name)
        self.run(
            url,
            [
                f"CREATE TABLE {q} (id integer NOT NULL PRIMARY KEY, {q} {self.key_text})",
                f"INSERT INTO {q} VALUES (1, 'x')",
            ],
        )

    def release(self, url: str) -> None:
        self.run(url, ["DROP VIEW rich"])

    def change(self, url: str, table: str) -> None:
        self.run(url, [f"INSERT INTO {self.quote(table)} (id, name) VALUES (99, 'late')"])
