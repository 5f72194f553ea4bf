"""The schema model: frozen, acyclic, serialisable. Foreign keys refer by name."""

from __future__ import annotations

from typing import Literal

import msgspec

from dblens.schema.types import DataType


class _Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Common shape of every schema object."""


DefaultKind = Literal["literal", "null", "now", "today", "time", "uuid", "sequence", "expression"]


class Default(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A column's default: `native` as the engine spells it, `kind` and `value` what it means.

    kind literal: `value` is the plain text of the constant (no quotes). now/today/time: the current timestamp, date, time.
    sequence: fed by the sequence named in `value`. expression: only the engine understands it.
    """

    native: str
    kind: DefaultKind = "expression"
    value: str | None = None


class Generated(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A computed column: its native expression; stored or virtual."""

    expression: str
    stored: bool = True


class Identity(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A column numbered by the engine (identity, serial, AUTO_INCREMENT, AUTOINCREMENT).

    `next` is the value that the next insert would take, None when unknown; `sequence` the sequence behind it.
    """

    always: bool = False
    start: int = 1
    increment: int = 1
    next: int | None = None
    sequence: str | None = None


class TypeShare(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """Part of the sampled documents in which a field holds BSON type `name` (0..1)."""

    name: str
    share: float


class Column(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A column, or a field of documents.

    `native` is the engine's full spelling (`varchar(40)`, `int unsigned`). For documents `path` holds the keys from the
    root, `presence` the share of documents that have the field at all, `shares` the BSON types met.
    """

    name: str
    type: DataType
    native: str
    nullable: bool = True
    default: Default | None = None
    generated: Generated | None = None
    identity: Identity | None = None
    collation: str | None = None
    charset: str | None = None
    on_update: str | None = None
    invisible: bool = False
    comment: str | None = None
    path: tuple[str, ...] = ()
    presence: float | None = None
    shares: tuple[TypeShare, ...] = ()


class Key(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A primary key or a unique constraint."""

    name: str | None
    columns: tuple[str, ...]
    deferrable: bool = False
    initially_deferred: bool = False
    nulls_distinct: bool = True


Action = Literal["no action", "restrict", "cascade", "set null", "set default"]


class ForeignKey(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A reference by name; `namespace` is the referred table's (None: the same as the owner's)."""

    name: str | None
    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]
    namespace: str | None = None
    on_delete: Action = "no action"
    on_update: Action = "no action"
    match: str = "simple"
    deferrable: bool = False
    initially_deferred: bool = False
    validated: bool = True


class IndexPart(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """One part of an index: a column, or an expression; `prefix` = MySQL's leading length."""

    column: str | None = None
    expression: str | None = None
    descending: bool = False
    nulls_first: bool | None = None
    prefix: int | None = None
    collation: str | None = None
    opclass: str | None = None
    kind: str | None = None


class Index(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """An index that is not merely the shadow of a key constraint."""

    name: str
    parts: tuple[IndexPart, ...]
    unique: bool = False
    kind: str = "btree"
    where: str | None = None
    include: tuple[str, ...] = ()
    nulls_distinct: bool = True
    visible: bool = True
    options: dict[str, str] = {}
    definition: str | None = None
    comment: str | None = None


class Check(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A check constraint with its native expression."""

    name: str | None
    expression: str
    enforced: bool = True
    validated: bool = True
    """False when rows from before the constraint were never looked at (PostgreSQL's NOT VALID)."""


class Trigger(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A trigger: when it fires and its full source text."""

    name: str
    timing: str
    events: tuple[str, ...]
    source: str


class Grant(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A privilege on an object."""

    grantee: str
    privilege: str
    grantable: bool = False


class Partitioning(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """How a table is partitioned: `kind` (range, list, hash …), its native key text and the partitions' names and bounds."""

    kind: str
    key: str
    partitions: tuple[tuple[str, str], ...] = ()


TableKind = Literal["table", "partitioned", "partition", "foreign", "collection", "timeseries", "capped"]


class Table(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A table or a collection. `inferred` marks columns sampled from documents (`sampled` of them)."""

    namespace: str
    name: str
    kind: TableKind = "table"
    columns: tuple[Column, ...] = ()
    primary_key: Key | None = None
    uniques: tuple[Key, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    indexes: tuple[Index, ...] = ()
    checks: tuple[Check, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    partitioning: Partitioning | None = None
    partition_of: str | None = None
    comment: str | None = None
    owner: str | None = None
    grants: tuple[Grant, ...] = ()
    rows_estimate: int | None = None
    bytes: int | None = None
    options: dict[str, str] = {}
    inferred: bool = False
    sampled: int | None = None
    row_security: bool = False

    def column(self, name: str) -> Column:
        """Return the column called `name`. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


class View(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A view or materialised view with its native definition."""

    namespace: str
    name: str
    definition: str
    materialized: bool = False
    columns: tuple[Column, ...] = ()
    depends_on: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    owner: str | None = None
    grants: tuple[Grant, ...] = ()
    comment: str | None = None


class Sequence(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A number generator; `next` is the value that nextval would give; `owned_by` = table.column."""

    namespace: str
    name: str
    start: int = 1
    increment: int = 1
    minimum: int | None = None
    maximum: int | None = None
    cycle: bool = False
    next: int | None = None
    owned_by: str | None = None
    native: str = "bigint"
    owner: str | None = None
    grants: tuple[Grant, ...] = ()


class Routine(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A function, procedure, aggregate, or event, with its full source text."""

    namespace: str
    name: str
    kind: str
    source: str
    signature: str = ""
    language: str | None = None
    owner: str | None = None
    grants: tuple[Grant, ...] = ()


class NamedType(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A user-defined type: enum (values), domain (base, checks) or composite (source text only)."""

    namespace: str
    name: str
    kind: Literal["enum", "domain", "composite", "range"]
    values: tuple[str, ...] = ()
    base: str | None = None
    nullable: bool = True
    default: str | None = None
    checks: tuple[Check, ...] = ()
    source: str | None = None
    owner: str | None = None
    comment: str | None = None


class Schema(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that was read from one database, ordered by namespace and name."""

    engine: str
    version: str
    database: str
    namespaces: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    views: tuple[View, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    routines: tuple[Routine, ...] = ()
    types: tuple[NamedType, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()
    flavour: str = ""
    """The server's flavour (`Session.flavour`) when the catalog read the schema; empty elsewhere."""

    def table(self, namespace: str, name: str) -> Table:
        """Return one table. Raises KeyError."""
        for table in self.tables:
            if table.namespace == namespace and table.name == name:
                return table
        raise KeyError((namespace, name))


class TableRef(_Node, frozen=True, kw_only=True, omit_defaults=True):
    """A table's, view's or collection's name with what a listing shows without reading its columns."""

    namespace: str
    name: str
    kind: str = "table"
    rows_estimate: int | None = None
    comment: str | None = None
