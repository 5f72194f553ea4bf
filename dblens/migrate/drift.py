"""How two schemas differ, and the statements that turn one into the other: pure, without a session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dblens import engines
from dblens.engines.base import Rendered
from dblens.errors import InvalidInput, NotFound, Unsupported
from dblens.schema import changes as c
from dblens.schema.compare import DEFAULT, Options, SameType
from dblens.schema.diff import diff
from dblens.schema.model import Column, Default, Schema, Table


def differences(a: Schema, b: Schema, options: Options = DEFAULT) -> tuple[c.Change, ...]:
    """Return the changes that turn schema `a` into `b`, types compared by how one engine stores the other's."""
    return diff(a, b, options, same_type=_stored_alike(a, b) if a.engine != b.engine else None)


def statements(a: Schema, changes: Sequence[c.Change], *, origin: str | None = None) -> list[Rendered]:
    """Render changes of schema `a` in the language of its engine.

    `origin` is the engine in whose spelling the changes are written, when it is another one: columns are then spelled anew, and
    what only that engine understands is returned without a statement, with the reason. Raises Unsupported.
    """
    engine = engines.get(a.engine)
    if engine.alter is None:
        raise Unsupported(f"ALTER for {engine.title}", "the engine has no such chapter")
    flavour = a.flavour
    if origin is None or origin == a.engine:
        return engine.alter.render(changes, schema=a, flavour=flavour)
    translated = _Translation(a.engine, origin, flavour)
    kept = [changed for change in changes if (changed := translated.change(change)) is not None]
    return engine.alter.render(kept, schema=a, flavour=flavour) + translated.refused


def create(schema: Schema) -> list[str]:
    """Render a whole schema as CREATE statements of its own engine, in a runnable order."""
    return engines.get(schema.engine).ddl.create(schema)


def load_schema(path: Path) -> Schema:
    """Read a schema that `dblens schema show --json` wrote. Raises NotFound, InvalidInput."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Schema)
    except FileNotFoundError:
        raise NotFound(
            f"no such file: {path}", hint="write one with `dblens schema show URL --json > schema.json`"
        ) from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} holds no stored schema: {error}",
            hint="write one with `dblens schema show URL --json > schema.json`",
        ) from error


def _stored_alike(a: Schema, b: Schema) -> SameType:
    """Return whether columns of two engines hold the same: one is what the other engine stores for it, either way round."""
    ours, theirs = engines.get(a.engine).types, engines.get(b.engine).types

    def same(left: Column, right: Column) -> bool:
        pairs = ((ours, right, b.engine, left, a), (theirs, left, a.engine, right, b))
        for types, column, source, stored, schema in pairs:
            try:
                found = types.store(column, source, flavour=schema.flavour)
            except Unsupported:
                continue
            if found.type == stored.type or found.native == stored.native:
                return True
        return False

    return same


class _Translation:
    """Changes written in another engine's spelling, column by column; what cannot be translated is refused with a reason."""

    def __init__(self, engine: str, origin: str, flavour: str) -> None:
        self.engine = engines.get(engine)
        self.origin = engines.get(origin)
        self.flavour = flavour
        self.refused: list[Rendered] = []

    def change(self, change: c.Change) -> c.Change | None:
        """Return the change in this engine's spelling, None when it was refused."""
        replace = msgspec.structs.replace
        match change:
            case c.AddTable():
                return replace(change, table=self._table(change.table))
            case c.AddColumn():
                return replace(change, column=self._column(change.column, f"{change.table}.{change.column.name}"))
            case c.AlterColumn():
                if change.what == "generated" and change.after.generated is not None:
                    return self._refuse(change, f"the expression of {change.table}.{change.after.name}")
                spelled = self._column(change.after, f"{change.table}.{change.after.name}")
                if change.what == "default" and spelled.default is None and change.after.default is not None:
                    return None  # refused above
                return replace(change, after=spelled)
            case c.AddCheck():
                return self._refuse(change, f"the check {change.check.expression}")
            case c.AddView() | c.ChangeView() | c.AddRoutine() | c.ChangeRoutine() | c.AddTrigger():
                return self._refuse(change, c.describe(change)[1])
            case c.AddIndex():
                foreign = change.index.where or any(part.expression for part in change.index.parts)
                return self._refuse(change, f"the index {change.index.name}") if foreign else change
        return change

    def _refuse(self, change: c.Change, what: str) -> c.Change | None:
        """Note a change that has to be translated by hand, and leave it out."""
        where = c.describe(change)[0]
        self.refused.append(
            Rendered(reason=f"{where}: {what} is written in {self.origin.title}'s language: translate it by hand")
        )
        return None

    def _table(self, table: Table) -> Table:
        place = f"{table.namespace}.{table.name}"
        for trigger in table.triggers:
            self._note(f"{place}: the trigger {trigger.name}")
        for check in table.checks:
            self._note(f"{place}: the check {check.expression}")
        plain = [i for i in table.indexes if not i.where and not any(part.expression for part in i.parts)]
        for index in table.indexes:
            if index not in plain:
                self._note(f"{place}: the index {index.name}")
        return msgspec.structs.replace(
            table,
            kind="table",
            columns=tuple(self._column(column, f"{place}.{column.name}") for column in table.columns),
            checks=(),
            triggers=(),
            indexes=tuple(plain),
            options={},
            grants=(),
            owner=None,
            partitioning=None,
            partition_of=None,
        )

    def _note(self, what: str) -> None:
        self.refused.append(
            Rendered(reason=f"{what} is written in {self.origin.title}'s language: translate it by hand")
        )

    def _column(self, column: Column, where: str) -> Column:
        stored = self.engine.types.store(column, self.origin.name, flavour=self.flavour)
        if column.generated is not None:
            self._note(f"{where}: the expression {column.generated.expression}")
        return msgspec.structs.replace(
            column,
            type=stored.type,
            native=stored.native,
            collation=stored.collation,
            charset=None,
            on_update=None,
            generated=None,
            default=self._default(column.default, where),
        )

    def _default(self, default: Default | None, where: str) -> Default | None:
        """Return a default for the DDL chapter to spell by its meaning (no native text), None when it has none."""
        if default is None or default.kind in ("null", "sequence"):
            return None
        if default.kind != "expression":
            return Default(native="", kind=default.kind, value=default.value)
        self._note(f"{where}: the default {default.native}")
        return None
