"""What one scan proves about a table at once: every column's storage class and meaning, and questions that need not be asked again.

Each column has a term that is true of any value that could break the guess taken from a sample. Usually no row makes any term true.
The terms hold no exact answer: a column with a doubtful value is left to the slower predicates, and gets the same type from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dblens.engines.sqlite.ddl import quote, where_is
from dblens.engines.sqlite.driver import Db
from dblens.engines.sqlite.types import affinity
from dblens.schema.model import Column, Table
from dblens.schema.types import (
    Binary,
    Boolean,
    DataType,
    Date,
    Decimal,
    Document,
    Float,
    Integer,
    Json,
    Text,
    Time,
    Timestamp,
    Uuid,
    Year,
)
from dblens.values import doubt

_ARGUMENTS = 60
"""Values that one call looks at: SQLite passes at most 127, and the function's name grows with them."""
_AT_ONCE = 250
_JSON = ("not_json", "json_duplicate_key", "json_nul")
_EXACT_DIGITS = 15


class Proof(msgspec.Struct, frozen=True):
    """What is proven of a column: its meaning, the storage classes that may occur, its values' shape, checks that count nothing."""

    type: DataType
    classes: tuple[str, ...]
    shape: str | None = None
    nothing: frozenset[str] = frozenset()


class _Term(msgspec.Struct, frozen=True):
    """A column's proof, the condition and the kind of doubt that would break it, and kinds of doubt that only cost checks."""

    column: Column
    proof: Proof
    condition: str | None = None
    kind: str | None = None
    extra: tuple[tuple[str, frozenset[str]], ...] = ()


def doubtful(db: Db, asked: Sequence[tuple[str, str]]) -> list[str]:
    """Return conditions that together are true of a row in which any of the expressions is in doubt of its kind."""
    merged: dict[tuple[str, bool], str] = {}
    for expression, kind in dict.fromkeys(asked):
        about_json = "@" < kind < "`"
        place = (expression, about_json) if about_json else (f"{expression} {kind}", False)
        merged[place] = chr(ord(kind) | ord(merged.get(place, "@"))) if about_json else kind
    expressions = [e if about_json else e.removesuffix(f" {k}") for (e, about_json), k in merged.items()]
    calls, kinds = [], "".join(merged.values())
    for start in range(0, len(expressions), _ARGUMENTS):
        part, letters = expressions[start : start + _ARGUMENTS], kinds[start : start + _ARGUMENTS]
        name = f"dblens_doubt_{letters.encode().hex()}"
        db.raw.create_function(name, len(part), doubt.doubt(letters), deterministic=True)
        calls.append(f"{name}({', '.join([f'CAST({e} AS BLOB)' for e in part])})")
    return calls


def not_text(e: str) -> str:
    """Return a condition that is true of numbers and octets: texts stand between them in SQLite's order."""
    return f"({e} COLLATE BINARY < '' OR {e} COLLATE BINARY >= x'')"


def inexact(e: str, precision: int | None, scale: int | None) -> str | None:
    """Return a condition that is true of all that is no number of DECIMAL(p,s) by its shortest digits, None where doubles are too coarse.

    A decimal of at most 15 digits has a double of its own, so dividing the rounded whole number finds it exactly.
    """
    if precision is None or precision > _EXACT_DIGITS or not 0 <= (scale or 0) <= precision:
        return None
    limit, unit = 10 ** (precision - (scale or 0)), f"{10 ** (scale or 0)}.0"
    c = f"{e} COLLATE BINARY"
    return f"({c} <= -{limit} OR {c} >= {limit} OR round({e} * {unit}) / {unit} <> {e})"


def _class(column: Column, name: str) -> str:
    c = quote(column.name)
    other = f"typeof({c}) <> '{name}'"
    return f"({c} IS NOT NULL AND {other})" if column.nullable else f"({other})"


def _term(column: Column, guess: str) -> _Term | None:
    """Return how to prove a column from its sample, None where only the slower way can tell."""
    declared, c = column.type, quote(column.name)
    if guess == "null":
        return _Term(column, Proof(declared, ()), f"{c} IS NOT NULL")
    if guess == "text":
        return _text_term(column, declared)
    if guess == "blob":
        bounded = isinstance(declared, Binary) and declared.length is not None
        longer = f" OR length({c}) > {declared.length}" if isinstance(declared, Binary) and bounded else ""
        return _Term(column, Proof(declared if bounded else Binary(), ("blob",)), f"({_class(column, 'blob')}{longer})")
    if isinstance(declared, Decimal) and declared.precision is not None:
        condition = inexact(c, declared.precision, declared.scale)
        if condition is None or affinity(column.native) not in ("numeric", "real"):
            return None
        return _Term(column, Proof(declared, ("integer", "real")), condition)
    if guess == "real":
        return _Term(column, Proof(Float(64), ("real",)), _class(column, "real"))
    if isinstance(declared, Boolean):
        proof = Proof(declared, ("integer",), nothing=frozenset({"not_boolean"}))
        return _Term(column, proof, f"({_class(column, 'integer')} OR {c} NOT BETWEEN 0 AND 1)")
    if isinstance(declared, Year) or (isinstance(declared, Float) and affinity(column.native) == "real"):
        return None
    return _Term(column, Proof(Integer(64), ("integer",)), _class(column, "integer"))


def _text_term(column: Column, declared: DataType) -> _Term | None:
    c, texts = quote(column.name), not_text(quote(column.name))
    clean = ("t", frozenset({"nul_character", "invalid_text"}))
    match declared:
        case Text(length=None):
            return _Term(column, Proof(Text(), ("text",)), texts, extra=(clean,))
        case Text(length=length):
            proof = Proof(declared, ("text",), nothing=clean[1])
            return _Term(column, proof, f"({texts} OR length({c}) > {length})", "t")
        case Json() | Document():
            extra = tuple((doubt.json_kind([q]), frozenset({q})) for q in _JSON if q != "not_json")
            proof = Proof(declared, ("text",), "json", frozenset({"not_json"} | clean[1]))
            return _Term(column, proof, texts, doubt.json_kind(["not_json"]), extra)
        case Date():
            return _Term(column, Proof(declared, ("text",), "date", clean[1]), texts, "d")
        case Timestamp(zone=zone):
            shape, kind = ("timestamptz", "z") if zone else ("timestamp", "s")
            return _Term(column, Proof(declared, ("text",), shape, clean[1]), texts, kind)
        case Time(zone=False):
            return _Term(column, Proof(declared, ("text",), "time", clean[1]), texts, "k")
        case Uuid():
            return _Term(column, Proof(declared, ("text",), "uuid", clean[1]), texts, "u")
    return None


def prove(db: Db, table: Table, guesses: Sequence[str]) -> dict[str, Proof]:
    """Return what is certain of columns, by name; columns that are not in it need a closer look."""
    found: dict[str, Proof] = {}
    terms = [t for c, g in zip(table.columns, guesses, strict=True) if (t := _term(c, g)) is not None]
    for start in range(0, len(terms), _AT_ONCE):
        found |= _prove(db, table, terms[start : start + _AT_ONCE])
    return found


def _prove(db: Db, table: Table, terms: Sequence[_Term]) -> dict[str, Proof]:
    place = where_is((table.namespace, table.name))
    kinds = [(quote(t.column.name), k) for t in terms for k in (t.kind, *[k for k, _ in t.extra]) if k is not None]
    conditions = [t.condition for t in terms if t.condition] + doubtful(db, kinds)
    proofs = {}
    if not db.rows(f"SELECT 1 FROM {place} WHERE {' OR '.join(conditions)} LIMIT 1"):
        for t in terms:
            proofs[t.column.name] = _with(t.proof, [names for _, names in t.extra])
        return proofs
    # Some row breaks something: ask each question by itself, once more over all rows.
    asked, parts = [], []
    for t in terms:
        c = quote(t.column.name)
        own = [t.condition] if t.condition else []
        own += doubtful(db, [(c, t.kind)]) if t.kind else []
        questions = [" OR ".join(own), *[doubtful(db, [(c, kind)])[0] for kind, _ in t.extra]]
        asked.append(len(questions))
        parts += [f"max(coalesce({q}, 0))" for q in questions]
    answers: list[object] = []
    for start in range(0, len(parts), _AT_ONCE):
        answers += db.rows(f"SELECT {', '.join(parts[start : start + _AT_ONCE])} FROM {place}")[0]
    at = 0
    for t, count in zip(terms, asked, strict=True):
        broken, *extra = answers[at : at + count]
        at += count
        if not broken:
            proofs[t.column.name] = _with(
                t.proof, [names for (_, names), b in zip(t.extra, extra, strict=True) if not b]
            )
    return proofs


def _with(proof: Proof, more: Sequence[frozenset[str]]) -> Proof:
    return msgspec.structs.replace(proof, nothing=proof.nothing.union(*more))
