"""Turn source tables into the target's tables: names, types, keys, and the list of what does not come along.

Pure: schema values in, schema values out. What cannot be carried over exactly becomes a `Notice` with its source text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from dblens.engines.base import ARRAY, Check, Engine, Field, Place
from dblens.engines.forms import form_of
from dblens.errors import InvalidInput, Unsupported
from dblens.migrate.model import Notice
from dblens.migrate.naming import Names
from dblens.migrate.options import Options, Rule, RuleBook
from dblens.schema.model import Check as CheckConstraint
from dblens.schema.model import Column, Default, ForeignKey, Identity, Index, IndexPart, Key, Table
from dblens.schema.model import Sequence as NumberSequence
from dblens.schema.types import Document, Integer, Text
from dblens.transfer.mask import Mask, masked_type
from dblens.values.forms import Form


class Converted(msgspec.Struct, kw_only=True):
    """One converted table with its fields, the checks that decide on losses, masks, notes and exclusions."""

    source: Table
    target: Table
    fields: list[Field]
    checks: list[tuple[Field, Check]]
    masks: dict[str, Mask]
    where: str | None
    transforms: list[str]
    exclusions: list[Notice]


class Side(msgspec.Struct, frozen=True):
    """What conversion must know of a side."""

    engine: Engine
    flavour: str
    namespace: str


class Converter:
    """Converts the tables of one migration; remembers the names it gave."""

    def __init__(
        self, source: Side, target: Side, options: Options, rules: RuleBook, sequences: Mapping[str, NumberSequence]
    ) -> None:
        self.source = source
        self.target = target
        self.options = options
        self.rules = rules
        self.same = source.engine.name == target.engine.name
        self.twin = (
            self.same
            and source.flavour.isdigit() == target.flavour.isdigit()
            and (source.flavour == target.flavour or source.flavour.isdigit())
        )
        self._tables: dict[str, Names] = {}
        self._indexes: dict[str, Names] = {}
        self._constraints: dict[str, Names] = {}
        self.sequences = sequences
        self.places: dict[Place, Place] = {}
        """Source place -> live place in the target."""
        self._sources: dict[Place, Table] = {}

    # ---- names

    def place(self, table: Table, several_namespaces: bool) -> tuple[Place, list[Rule]]:
        """Decide a table's namespace and name in the target, by rules first."""
        rules = self.rules.for_table(table.namespace, table.name)
        if self.target.engine.facts.schemas and self.source.engine.facts.schemas and self.options.into is None:
            namespace, name = table.namespace, table.name
        else:
            namespace = self.options.into or self.target.namespace
            home = table.namespace == self.source.namespace or not several_namespaces
            name = table.name if home else f"{table.namespace}__{table.name}"
        for rule in rules:
            name = rule.rename or name
        given = self._tables.setdefault(namespace, self._names()).give(name)
        self.places[(table.namespace, table.name)] = (namespace, given)
        self._sources[(table.namespace, table.name)] = table
        return (namespace, given), rules

    def _renamed(self, table: Table) -> dict[str, str]:
        """Return the target's names of a table's columns; those that a rule excludes are absent."""
        names = self._names()
        renamed: dict[str, str] = {}
        for column in table.columns:
            rules = self.rules.for_column(table.namespace, table.name, column.name)
            if not any(rule.exclude for rule in rules):
                renamed[column.name] = names.give(next((r.rename for r in rules if r.rename), column.name))
        return renamed

    # ---- one table

    def convert(self, table: Table, rules: Sequence[Rule], existing: Table | None) -> Converted:
        """Convert one table. Raises InvalidInput for rules that contradict it, Unsupported where no type will do."""
        namespace, name = self.places[(table.namespace, table.name)]
        out = Converted(
            source=table,
            target=Table(namespace=namespace, name=name),
            fields=[],
            checks=[],
            masks={},
            where=None,
            transforms=[],
            exclusions=[],
        )
        for rule in rules:
            out.where = rule.filter or out.where
        label = f"{table.namespace}.{table.name}"
        if name != table.name:
            out.transforms.append(f"{label}: named {name!r} in the target")
        columns, renamed = self._columns(table, out, existing)
        keyed = Key(name=None, columns=())
        primary = table.primary_key
        target = Table(
            namespace=namespace,
            name=name,
            columns=tuple(columns),
            primary_key=self._key(primary, renamed, out, "primary key") if primary else None,
            uniques=tuple(
                k for u in table.uniques if (k := self._key(u, renamed, out, "unique constraint") or keyed).columns
            ),
            foreign_keys=tuple(self._foreign(table, renamed, out)),
            indexes=tuple(self._indexes_of(table, renamed, out)),
            checks=tuple(self._checks(table, columns, out)),
            comment=table.comment,
            options=table.options if self.same else {},
            kind=table.kind if self.twin and table.kind in ("collection", "capped", "timeseries") else "table",
        )
        if target.primary_key and not self.twin:
            key = target.primary_key.columns  # what every target but SQLite makes of it anyway
            target = msgspec.structs.replace(
                target,
                columns=tuple(
                    msgspec.structs.replace(c, nullable=False) if c.name in key else c for c in target.columns
                ),
            )
            keyed_columns = {c.name: c for c in target.columns}
            out.fields = [
                msgspec.structs.replace(f, target=keyed_columns[f.target.name]) if f.target else f for f in out.fields
            ]
        if self.target.engine.facts.documents and not self.same:
            target = as_documents(target)
            by_name = {c.name: c for c in target.columns}
            out.fields = [
                msgspec.structs.replace(f, target=by_name[f.target.name]) if f.target else f for f in out.fields
            ]
        out.target = target
        for trigger in table.triggers:
            out.exclusions.append(
                Notice(
                    kind="trigger",
                    name=f"{label}.{trigger.name}",
                    reason="triggers do not migrate",
                    source=trigger.source,
                )
            )
        if table.partitioning:
            out.transforms.append(
                f"{label}: partitioned by {table.partitioning.kind} ({table.partitioning.key}); becomes one table"
            )
        return out

    def _columns(self, table: Table, out: Converted, existing: Table | None) -> tuple[list[Column], dict[str, str]]:
        indexed = _indexed(table)
        columns: list[Column] = []
        renamed = self._renamed(table)
        label = f"{table.namespace}.{table.name}"
        for column in table.columns:
            rules = self.rules.for_column(table.namespace, table.name, column.name)
            given = renamed.get(column.name)
            if given is None:
                out.exclusions.append(Notice(kind="column", name=f"{label}.{column.name}", reason="excluded by a rule"))
                continue
            if given != column.name:
                out.transforms.append(f"{label}.{column.name}: named {given!r} in the target")
            columns.append(self._column(table, column, given, rules, column.name in indexed, out, existing))
        if not columns:
            raise Unsupported(f"migrating {label}", "it has no columns left")
        if len(columns) > self.target.engine.facts.max_columns:
            raise Unsupported(
                f"migrating {label}",
                f"{len(columns)} columns, {self.target.engine.title} holds {self.target.engine.facts.max_columns}",
            )
        return columns, renamed

    def _column(
        self,
        table: Table,
        column: Column,
        given: str,
        rules: Sequence[Rule],
        indexed: bool,
        out: Converted,
        existing: Table | None,
    ) -> Column:
        label = f"{table.namespace}.{table.name}.{column.name}"
        expression = next((r.expression for r in rules if r.expression), None)
        constant = next((r.constant for r in rules if r.constant is not None), None)
        mask = next((r.mask for r in rules if r.mask), None)
        override = next((r.type for r in rules if r.type), None)
        meaning = column
        if expression is not None or constant is not None:
            # The result's type is the rule's business: text unless `type` says otherwise.
            parsed = self.target.engine.types.parse(override) if override else Text()
            meaning = msgspec.structs.replace(
                column, type=parsed, native="", nullable=True, default=None, identity=None, generated=None
            )
        if mask is not None:
            kept = masked_type(mask, meaning.type)
            if kept != meaning.type:
                meaning = msgspec.structs.replace(meaning, type=kept, native="", default=None, identity=None)
            if mask.kind == "null":
                meaning = msgspec.structs.replace(meaning, nullable=True)
        # A SQLite column may be declared without any type; what a rule or a mask retyped is nobody's native type.
        same_native = self.same and (meaning is column or meaning.native != "")
        stored = self.target.engine.types.store(
            meaning,
            self.source.engine.name if same_native else ("" if self.same else self.source.engine.name),
            indexed=indexed,
            flavour=self.target.flavour,
        )
        form, checks = stored.form, list(stored.checks)
        if self.same and not self.twin and form == Form.NATIVE:
            form = form_of(column.type)
        type, native = stored.type, stored.native
        if override and expression is None and constant is None:
            type, native = self.target.engine.types.parse(override), override
            form = form_of(type) if form == Form.NATIVE else form
            out.transforms.append(f"{label}: type {override} by rule")
        elif stored.note:
            out.transforms.append(f"{label}: {column.native} -> {stored.native}; {stored.note}")
        if existing is not None and not (self.target.engine.facts.documents and not self.same):
            live = next((c for c in existing.columns if c.name == given), None)
            if live is None:
                raise InvalidInput(
                    f"the existing table {existing.name!r} has no column {given!r}",
                    hint="rename the column by a rule, exclude it, or use --existing replace",
                )
            from dblens.transfer.pair import shared_form

            if live.native != native:
                form = shared_form(meaning, live, same_engine=self.same)
            type, native = live.type, live.native
        if mask is not None and meaning.type != column.type and expression is None and constant is None:
            form = form_of(column.type)  # a mask is defined on the source value's canonical text
        generated = column.generated if self.twin and not (expression or constant) else None
        if column.generated and not generated:
            out.transforms.append(
                f"{label}: computed column ({column.generated.expression}) becomes a plain column holding its values"
            )
        target = Column(
            name=given,
            type=type,
            native=native,
            nullable=meaning.nullable,
            default=self._default(meaning, label, out),
            generated=generated,
            identity=self._identity(meaning, label, out),
            collation=(column.collation if self.twin else stored.collation),
            charset=column.charset if self.twin else None,
            on_update=column.on_update if self.twin else None,
            invisible=column.invisible if self.twin else False,
            comment=column.comment,
            path=column.path if self.same else (),
        )
        if column.on_update and not self.twin:
            out.exclusions.append(
                Notice(
                    kind="on update",
                    name=label,
                    reason="the target has no ON UPDATE default",
                    source=f"ON UPDATE {column.on_update}",
                )
            )
        field = Field(
            column=column if (expression is None and constant is None) else meaning,
            form=form,
            expression=expression,
            constant=constant,
            is_constant=constant is not None,
            target=target,
        )
        if generated is None:
            out.fields.append(field)
        if expression or constant is not None:
            out.transforms.append(f"{label}: {'constant ' + repr(constant) if constant is not None else expression}")
        if mask is not None:
            out.masks[given] = mask
            out.transforms.append(f"{label}: masked ({mask.kind})")
        elif constant is None:
            out.checks.extend((field, check) for check in checks)
        if stored.check_expression and existing is None and mask is None:
            quoted = self.target.engine.ddl.quote(given)
            own = CheckConstraint(name=None, expression=stored.check_expression.replace("{c}", quoted))
            expressions = (*out.target.checks, own)
            out.target = msgspec.structs.replace(out.target, checks=expressions)
        return target

    def _default(self, column: Column, label: str, out: Converted) -> Default | None:
        default = column.default
        if default is None or default.kind == "sequence":
            return None  # `_identity` says what becomes of a sequence
        if self.twin:
            return default
        if default.kind in ("literal", "null", "now", "today", "time"):
            return Default(native="", kind=default.kind, value=default.value)
        out.exclusions.append(
            Notice(
                kind="default",
                name=label,
                reason=f"only {self.source.engine.title} understands this default",
                source=default.native,
            )
        )
        return None

    def _identity(self, column: Column, label: str, out: Converted) -> Identity | None:
        """Return how the target numbers the column: a sequence of its own, whatever fed it in the source."""
        identity = column.identity
        if identity is not None:
            return msgspec.structs.replace(identity, sequence=None)
        default = column.default
        if default is None or default.kind != "sequence":
            return None
        if not isinstance(column.type, Integer):
            out.exclusions.append(
                Notice(
                    kind="default", name=label, reason="the sequence that fed it stays behind", source=default.native
                )
            )
            return None
        sequence = self.sequences.get(default.value or "")
        out.transforms.append(f"{label}: fed by the sequence {default.value}; numbered by the target itself")
        if sequence is None:
            return Identity()
        return Identity(start=sequence.start, increment=sequence.increment, next=sequence.next)

    # ---- keys, indexes, checks

    def _key(self, key: Key, renamed: Mapping[str, str], out: Converted, what: str) -> Key | None:
        if any(c not in renamed for c in key.columns):
            out.exclusions.append(
                Notice(
                    kind=what,
                    name=f"{out.source.namespace}.{out.source.name}.{key.name or ', '.join(key.columns)}",
                    reason="a column of it does not come along",
                )
            )
            return None
        name = None
        if key.name and key.name != "PRIMARY":
            name = self._index_scope(out.target).give(key.name)
        return msgspec.structs.replace(key, name=name, columns=tuple(renamed[c] for c in key.columns))

    def _names(self) -> Names:
        return Names(self.target.engine.facts, self.target.engine.ddl.quote)

    def _index_scope(self, table: Table) -> Names:
        """Return the names among which an index of a target table must be unique."""
        if self.target.engine.facts.indexes_per_table:
            return self._indexes.setdefault(f"{table.namespace}.{table.name}", self._names())
        return self._indexes.setdefault(table.namespace, self._index_names(table.namespace))

    def _index_names(self, namespace: str) -> Names:
        # Indexes share a namespace with tables there, so table names are taken from the start.
        names = self._names()
        for place in self.places.values():
            if place[0] == namespace:
                names.give(place[1])
        return names

    def _constraint_scope(self, out: Converted) -> Names:
        """Return the names among which a foreign key of a target table must be unique."""
        place = out.target.namespace
        if self.target.engine.facts.constraints_per_table:
            place = f"{place}.{out.target.name}"
        return self._constraints.setdefault(place, self._names())

    def _foreign(self, table: Table, renamed: Mapping[str, str], out: Converted) -> list[ForeignKey]:
        keys = []
        for key in table.foreign_keys:
            referred = (key.namespace or table.namespace, key.table)
            label = f"{table.namespace}.{table.name}.{key.name or ', '.join(key.columns)}"
            text = f"({', '.join(key.columns)}) references {referred[0]}.{key.table} ({', '.join(key.referred)})"
            reason = None
            if referred not in self.places:
                reason = f"the referred table {referred[0]}.{key.table} is not part of the migration"
            elif any(c not in renamed for c in key.columns) or not self._renamed(self._sources[referred]).keys() >= set(
                key.referred
            ):
                reason = "a column of it does not come along"
            elif self.target.engine.facts.documents:
                reason = "the target has no foreign keys"
            if reason:
                out.exclusions.append(Notice(kind="foreign key", name=label, reason=reason, source=text))
                continue
            given = key.name and self._constraint_scope(out).give(key.name)
            if given != key.name:
                out.transforms.append(f"{label}: named {given!r} in the target")
            namespace, name = self.places[referred]
            theirs = self._renamed(self._sources[referred])
            keys.append(
                msgspec.structs.replace(
                    key,
                    name=given,
                    columns=tuple(renamed[c] for c in key.columns),
                    table=name,
                    namespace=namespace,
                    referred=tuple(theirs[c] for c in key.referred),
                )
            )
        return keys

    def _indexes_of(self, table: Table, renamed: Mapping[str, str], out: Converted) -> list[Index]:
        names = self._index_scope(out.target)
        indexes = []
        for index in table.indexes:
            label = f"{table.namespace}.{table.name}.{index.name}"
            reason = self._why_not(index, renamed)
            if reason:
                out.exclusions.append(
                    Notice(kind="index", name=label, reason=reason, source=index.definition or _describe(index))
                )
                continue
            parts = tuple(
                part
                if part.column is None
                else IndexPart(
                    column=renamed[part.column],
                    descending=part.descending,
                    nulls_first=part.nulls_first if self.twin else None,
                    prefix=part.prefix if self.twin else None,
                    collation=part.collation if self.twin else None,
                    opclass=part.opclass if self.twin else None,
                    kind=part.kind if self.twin else None,
                )
                for part in index.parts
            )
            if not self.twin and any(part.prefix for part in index.parts):
                out.transforms.append(f"{label}: prefix lengths dropped, whole columns are indexed")
            given = names.give(index.name)
            if given != index.name:
                out.transforms.append(f"{label}: named {given!r} in the target")
            indexes.append(
                msgspec.structs.replace(
                    index,
                    name=given,
                    parts=parts,
                    include=tuple(renamed[c] for c in index.include) if self.twin else (),
                    options=index.options if self.twin else {},
                    kind=index.kind if self.twin else "btree",
                    definition=None,
                )
            )
        return indexes

    def _why_not(self, index: Index, renamed: Mapping[str, str]) -> str | None:
        if any(part.column is not None and part.column not in renamed for part in index.parts) or any(
            c not in renamed for c in index.include
        ):
            return "a column of it does not come along"
        if self.twin:
            return None
        if index.where or any(part.expression for part in index.parts):
            return "partial and expression indexes are written in the source's language"
        if index.unique and any(part.prefix for part in index.parts):
            return "a unique index over a prefix cannot be kept"
        if index.kind.lower() not in ("btree", "hash", "art", ""):
            return f"{index.kind} indexes have no counterpart"
        if not index.parts:
            return "its definition cannot be carried over"
        return None

    def _checks(self, table: Table, columns: Sequence[Column], out: Converted) -> list[CheckConstraint]:
        kept = list(out.target.checks)
        for check in table.checks:
            if (
                self.twin
                and len(columns) == len(table.columns)
                and all(a.name == b.name for a, b in zip(columns, table.columns, strict=True))
            ):
                kept.append(check)
            else:
                out.exclusions.append(
                    Notice(
                        kind="check",
                        name=f"{table.namespace}.{table.name}.{check.name or '(unnamed)'}",
                        reason="check expressions are written in the source's language",
                        source=check.expression,
                    )
                )
        return kept


def as_documents(table: Table) -> Table:
    """Give each column its path in a document: the primary key becomes `_id`, a composite one a sub-document.

    A single column of documents is no field: they are the collection's documents themselves, as when an answer was saved as a file.
    """
    if len(table.columns) == 1 and isinstance(table.columns[0].type, Document):
        return msgspec.structs.replace(table, kind="collection")
    key = table.primary_key.columns if table.primary_key else ()
    columns = tuple(
        msgspec.structs.replace(
            c, path=(("_id",) if key == (c.name,) else ("_id", c.name) if c.name in key else (c.name,))
        )
        for c in table.columns
    )
    return msgspec.structs.replace(table, columns=columns, kind="collection")


def as_elements(table: Table, parent: Table, link: Mapping[str, str], field: str) -> Table:
    """Return a child table as the elements of the array `field` of the parent's documents.

    `link` names the child's columns that refer to the parent's: their value is the document's `_id` and is not repeated.
    """

    def placed(column: Column) -> Column:
        if column.name not in link:
            return msgspec.structs.replace(column, path=("item", column.name))
        theirs = parent.column(link[column.name])
        return msgspec.structs.replace(column, type=theirs.type, native=theirs.native, path=theirs.path)

    return Table(
        namespace=parent.namespace,
        name=parent.name,
        kind="collection",
        columns=tuple(map(placed, table.columns)),
        primary_key=table.primary_key,
        options={ARRAY: json.dumps([field])},
    )


def _indexed(table: Table) -> frozenset[str]:
    names: set[str] = set(table.primary_key.columns if table.primary_key else ())
    for unique in table.uniques:
        names.update(unique.columns)
    for key in table.foreign_keys:
        names.update(key.columns)
    for index in table.indexes:
        names.update(part.column for part in index.parts if part.column)
    return frozenset(names)


def _describe(index: Index) -> str:
    parts = ", ".join(p.column or p.expression or "?" for p in index.parts)
    where = f" where {index.where}" if index.where else ""
    return f"{'unique ' if index.unique else ''}index {index.name} using {index.kind} ({parts}){where}"
