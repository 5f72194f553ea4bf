"""Engines that exist only in memory: their facts are chosen by the test."""

from __future__ import annotations

from typing import Any

from dblens.engines.base import Check, Engine, Facts, Stored
from dblens.engines.forms import form_of
from dblens.errors import Unsupported
from dblens.schema.model import Column, Key, Table
from dblens.schema.types import DataType, Integer, Opaque, Text
from dblens.values.forms import Form


class Types:
    """Stores everything as it is, opaque types not at all; texts may hold a NUL that is cut out."""

    def parse(self, native: str) -> DataType:
        return Integer() if native.startswith("int") else Text()

    def spell(self, type: DataType) -> str:
        return "int" if isinstance(type, Integer) else "text"

    def store(self, column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:
        if isinstance(column.type, Opaque):
            raise Unsupported(f"the type {column.native}", "nothing like it")
        if source == "same":
            return Stored(type=column.type, native=column.native, form=Form.NATIVE)
        checks = (Check(kind="nul_character", repair="strip"),) if isinstance(column.type, Text) else ()
        return Stored(type=column.type, native=self.spell(column.type), form=form_of(column.type), checks=checks)


class Ddl:
    """Quotes like the standard."""

    CONTROL = "dblens_"

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def literal(self, text: str | None) -> str:
        return "null" if text is None else "'" + text.replace("'", "''") + "'"


def engine(name: str = "here", **facts: Any) -> Engine:
    default: dict[str, Any] = {
        "identifier_limit": 63,
        "identifier_unit": "octets",
        "folds_case": False,
        "max_columns": 1600,
        "schemas": False,
    }
    return Engine(
        name=name,
        title=name.title(),
        schemes=(name,),
        default_port=None,
        options=frozenset(),
        facts=Facts(**{**default, **facts}),
        types=Types(),
        ddl=Ddl(),  # type: ignore[arg-type]
        connect=None,  # type: ignore[arg-type]
    )


def column(name: str, type: DataType = Text(), **more: Any) -> Column:
    return Column(name=name, type=type, native=more.pop("native", "text"), **more)


def table(name: str, *columns: Column | str, key: tuple[str, ...] = (), **more: Any) -> Table:
    return Table(
        namespace=more.pop("namespace", "home"),
        name=name,
        columns=tuple(column(c) if isinstance(c, str) else c for c in columns),
        primary_key=Key(name=None, columns=key) if key else None,
        **more,
    )
