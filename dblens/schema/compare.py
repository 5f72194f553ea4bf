"""What counts as the same: options of a comparison, and every object reduced to what is compared.

Between databases of one engine spellings are compared; between engines, meanings. A reduced object ("projection") is the object with
everything blanked that the comparison ignores: always what changes by use (row estimates, sizes, next values, shares of a sample),
and what the options name. Two objects are the same exactly when their projections are equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from dblens.schema.model import (
    Check,
    Column,
    Default,
    ForeignKey,
    Generated,
    Grant,
    Identity,
    Index,
    Key,
    NamedType,
    Routine,
    Schema,
    Sequence,
    Table,
    Trigger,
    View,
)
from dblens.schema.types import Array, DataType, Enum, Opaque

Ignorable = Literal["owner", "grants", "comment", "collation"]
SameType = Callable[[Column, Column], bool]


class Renamed(msgspec.Struct, frozen=True, kw_only=True):
    """A table, or a column of `table` (by its new name), that is the same under another name."""

    namespace: str
    old: str
    new: str
    table: str | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How two schemas are compared.

    `by` auto: spelling between databases of one engine and product, meaning otherwise. `tables` are names or patterns (`orders`,
    `public.*`); the rest of both schemas is left out. `namespaces` maps the second schema's namespaces to the first's; a single one
    on each side is mapped by itself. `renamed` says what is the same under another name; nothing is ever guessed.
    """

    ignore: frozenset[Ignorable] = frozenset()
    only_tables: bool = False
    tables: tuple[str, ...] = ()
    by: Literal["auto", "spelling", "meaning"] = "auto"
    namespaces: dict[str, str] = {}
    renamed: tuple[Renamed, ...] = ()


DEFAULT = Options()


def same_product(a: Schema, b: Schema) -> bool:
    """Return whether both come from one engine and product, so that equal types are spelled equally.

    Flavours that are words name products of one engine (MariaDB beside MySQL); numbers are versions, which spell alike.
    """
    words = {schema.flavour for schema in (a, b) if schema.flavour and not schema.flavour[0].isdigit()}
    return a.engine == b.engine and len(words) <= 1


_SPELLED = Opaque(native="")
"""Stands for a type whose spelling is compared."""


class Comparison:
    """A comparison under way: options, and whether spelling or meaning is compared."""

    def __init__(self, a: Schema, b: Schema, options: Options, same_type: SameType | None = None) -> None:
        by = options.by
        self.options = options
        self.same_engine = a.engine == b.engine
        self.spelled = by == "spelling" or (by == "auto" and same_product(a, b))
        self.same_type = same_type
        ignore = options.ignore
        self.no_owner = "owner" in ignore or not self.same_engine
        self.no_grants = "grants" in ignore or not self.same_engine
        self.no_comment = "comment" in ignore
        self.no_collation = "collation" in ignore or not self.spelled

    # ------------------------------------------------------------------------------------------------------------ columns

    def column(self, table: Table, column: Column) -> Column:
        """Return a column reduced to what is compared, without its type's hook."""
        return Column(
            name=column.name,
            type=_SPELLED if self.spelled and column.native else meaning(column.type),
            native=column.native if self.spelled else "",
            nullable=self.nullable(table, column),
            default=self._default(column.default),
            on_update=_loose(column.on_update) if not self.spelled and column.on_update else column.on_update,
            generated=self._generated(column.generated),
            identity=self._identity(column),
            collation=None if self.no_collation else column.collation,
            charset=None if self.no_collation else column.charset,
            invisible=column.invisible if self.same_engine else False,
            comment=None if self.no_comment else column.comment or None,
            path=column.path if self.same_engine else (),
        )

    def nullable(self, table: Table, column: Column) -> bool:
        """Return whether a column may be NULL; between engines a primary key's columns never may, whatever is declared."""
        if not self.same_engine and table.primary_key is not None and column.name in table.primary_key.columns:
            return False
        return column.nullable

    def same_column_type(self, a: Column, b: Column) -> bool:
        """Return whether two columns have the same type."""
        if self.spelled:
            # An enum's values belong to its named type, which is compared by itself.
            return a.native == b.native and a.path == b.path and (bool(a.native) or a.type == b.type)
        if self.same_engine and a.path != b.path:
            return False
        return meaning(a.type) == meaning(b.type) or (self.same_type is not None and self.same_type(a, b))

    def _default(self, default: Default | None) -> Default | None:
        if default is None or self.spelled:
            return default
        if default.kind in ("null", "sequence"):
            return None  # the same as none; a sequence counts as numbering
        if default.kind == "expression":
            return Default(native=_loose(default.native))
        return Default(native="", kind=default.kind, value=default.value)

    def _generated(self, generated: Generated | None) -> Generated | None:
        if generated is None or self.spelled:
            return generated
        return Generated(expression=_loose(generated.expression), stored=generated.stored)

    def _identity(self, column: Column) -> Identity | None:
        identity = column.identity
        if self.spelled:
            return identity and Identity(always=identity.always, start=identity.start, increment=identity.increment)
        fed = column.default is not None and column.default.kind == "sequence"
        return Identity() if identity is not None or fed else None

    # -------------------------------------------------------------------------------------------------- constraints, indexes

    def key(self, key: Key) -> Key:
        """Return a primary or unique key reduced to what is compared."""
        if self.spelled:
            return key
        if self.same_engine:
            return msgspec.structs.replace(key, name=None)
        return Key(name=None, columns=key.columns)

    def foreign_key(self, namespace: str, key: ForeignKey) -> ForeignKey:
        """Return a foreign key reduced to what is compared."""
        key = msgspec.structs.replace(key, namespace=key.namespace or namespace)
        if self.spelled:
            return key
        bare = ForeignKey(
            name=None,
            columns=key.columns,
            table=key.table,
            referred=key.referred,
            namespace=key.namespace,
            on_delete="no action" if key.on_delete == "restrict" else key.on_delete,
            on_update="no action" if key.on_update == "restrict" else key.on_update,
        )
        if self.same_engine:
            return msgspec.structs.replace(bare, deferrable=key.deferrable, initially_deferred=key.initially_deferred)
        return bare

    def index(self, index: Index) -> Index:
        """Return an index reduced to what is compared."""
        if self.spelled:
            comment = None if self.no_comment else index.comment or None
            return msgspec.structs.replace(index, definition=None, comment=comment)
        parts = tuple(
            msgspec.structs.replace(
                part,
                expression=_loose(part.expression) if part.expression else None,
                collation=None,
                opclass=None,
                nulls_first=None,
                kind=part.kind if self.same_engine else None,
            )
            for part in index.parts
        )
        return Index(
            name=index.name if self.same_engine else "",
            parts=parts,
            unique=index.unique,
            kind=index.kind if self.same_engine else "btree",
            where=_loose(index.where) if index.where else None,
            include=index.include,
        )

    def check(self, check: Check) -> Check:
        """Return a check constraint reduced to what is compared."""
        if self.spelled:
            return check
        return Check(name=None, expression=_loose(check.expression), enforced=check.enforced)

    def trigger(self, trigger: Trigger) -> Trigger:
        """Return a trigger reduced to what is compared: between engines its name only, the languages differ."""
        if self.same_engine:
            return trigger
        return Trigger(name=trigger.name, timing="", events=(), source="")

    # ---------------------------------------------------------------------------------------------------------- whole objects

    def view(self, view: View) -> View:
        """Return a view reduced to what is compared: between engines its name and column names."""
        if not self.same_engine:
            columns = tuple(Column(name=c.name, type=Opaque(native=""), native="") for c in view.columns)
            return View(namespace=view.namespace, name=view.name, definition="", columns=columns)
        owner = Table(namespace=view.namespace, name=view.name)
        return View(
            namespace=view.namespace,
            name=view.name,
            definition=view.definition if self.spelled else _loose(view.definition),
            materialized=view.materialized,
            columns=tuple(self.column(owner, c) for c in view.columns),
            indexes=tuple(sorted((self.index(i) for i in view.indexes), key=lambda i: i.name)),
            owner=None if self.no_owner else view.owner,
            grants=() if self.no_grants else sorted_grants(view),
            comment=None if self.no_comment else view.comment or None,
        )

    def sequence(self, sequence: Sequence) -> Sequence:
        """Return a sequence reduced to what is compared."""
        return msgspec.structs.replace(
            sequence,
            next=None,
            owner=None if self.no_owner else sequence.owner,
            grants=() if self.no_grants else sorted_grants(sequence),
        )

    def routine(self, routine: Routine) -> Routine:
        """Return a routine reduced to what is compared: between engines its name and kind."""
        if not self.same_engine:
            return Routine(namespace=routine.namespace, name=routine.name, kind=routine.kind, source="")
        return msgspec.structs.replace(
            routine,
            owner=None if self.no_owner else routine.owner,
            grants=() if self.no_grants else sorted_grants(routine),
        )

    def named_type(self, type: NamedType) -> NamedType:
        """Return a named type reduced to what is compared."""
        return msgspec.structs.replace(
            type,
            owner=None if self.no_owner else type.owner,
            comment=None if self.no_comment else type.comment or None,
        )

    def includes(self, namespace: str, name: str) -> bool:
        """Return whether the options' table patterns let a table or view in."""
        patterns = self.options.tables
        return not patterns or any(fnmatchcase(name, p) or fnmatchcase(f"{namespace}.{name}", p) for p in patterns)


def sorted_grants(owner: Table | View | Sequence | Routine) -> tuple[Grant, ...]:
    """Return grants in a fixed order: their order means nothing."""
    return tuple(sorted(owner.grants, key=lambda g: (g.grantee, g.privilege, g.grantable)))


def meaning(type: DataType) -> DataType:
    """Return a type without the name of an enum, which only some engines have."""
    match type:
        case Enum():
            return Enum(values=type.values)
        case Array():
            return Array(item=meaning(type.item))
    return type


_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\s+|\w+|.", re.DOTALL)


def _loose(expression: str) -> str:
    """Return an expression without white space, identifier quotes, case and outer brackets, its literals and inner brackets kept.

    Equal results mean equal expressions; different ones may still mean the same.
    """
    if "\\" in expression:
        return expression  # an escape that only its engine understands may hide where a literal ends
    words: list[str] = []
    for token in _TOKEN.findall(expression):
        if token.isspace():
            continue
        if token[0] in '"`' and len(token) > 1:
            words.append(token[1:-1])
        else:
            words.append(token if token[0] == "'" else token.lower())
    while len(words) > 2 and words[0] == "(" and _closes(words) == len(words) - 1:
        words = words[1:-1]
    return "\x1f".join(words)


def _closes(words: list[str]) -> int:
    """Return the position of the bracket that closes the first one."""
    depth = 0
    for position, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0:
            return position
    return -1
