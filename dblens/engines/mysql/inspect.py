"""Read the schema of MySQL and MariaDB: one round trip an object kind.

The two servers answer the same catalogs differently (spelling of defaults, JSON, checks); what differs is decided here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from dblens.engines.mysql import types
from dblens.engines.mysql.ddl import CONTROL
from dblens.engines.mysql.sql import literal, quote, where_is
from dblens.schema.model import (
    Action,
    Check,
    Column,
    Default,
    DefaultKind,
    ForeignKey,
    Generated,
    Grant,
    Identity,
    Index,
    IndexPart,
    Key,
    Partitioning,
    Routine,
    Schema,
    Table,
    TableRef,
    Trigger,
    View,
)
from dblens.schema.model import Sequence as NumberSequence
from dblens.schema.types import Bits, DataType, Geometry, Json

Query = Callable[[str], list[tuple[Any, ...]]]
Place = tuple[str, str]


def _s(value: Any) -> str:
    """Return a catalog value as text (some catalog columns arrive as octets)."""
    return value.decode("utf-8") if isinstance(value, (bytes, bytearray)) else str(value)


def _o(value: Any) -> str | None:
    return None if value is None else _s(value)


def list_tables(query: Query, namespace: str) -> list[TableRef]:
    """Return tables and views of a namespace without their columns."""
    rows = query(
        "select table_name, table_type, table_rows, table_comment from information_schema.tables "
        f"where table_schema = {literal(namespace)} order by table_name"
    )
    kinds = {"VIEW": "view", "SEQUENCE": "sequence", "SYSTEM VIEW": "view"}
    found = []
    for name, kind, estimate, comment in rows:
        text = _s(name)
        if text.startswith(CONTROL):
            continue
        word = kinds.get(_s(kind), "table")
        note = None if word == "view" else (_o(comment) or None)
        found.append(TableRef(namespace=namespace, name=text, kind=word, rows_estimate=_i(estimate), comment=note))
    return found


def _i(value: Any) -> int | None:
    return None if value is None else int(value)


def inspect(query: Query, flavour: str, version: str, database: str, namespaces: Sequence[str]) -> Schema:
    """Return everything in the given databases."""
    reader = _Reader(query, flavour == "mariadb", namespaces)
    return Schema(
        engine="mysql", version=version, database=database, namespaces=tuple(namespaces), tables=reader.tables(),
        views=reader.views(), sequences=reader.sequences(), routines=reader.routines() + reader.events(),
    )  # fmt: skip


class _Reader:
    def __init__(self, query: Query, maria: bool, namespaces: Sequence[str]) -> None:
        self.query = query
        self.maria = maria
        self.scope = "(" + ", ".join(map(literal, namespaces)) + ")"
        self.json: set[tuple[str, str, str]] = set()
        self.checks = self._checks()
        self.listed = {
            (_s(r[0]), _s(r[1])): r
            for r in query(
                "select table_schema, table_name, table_type, engine, row_format, table_rows, "
                "data_length + index_length, auto_increment, table_collation, create_options, table_comment "
                f"from information_schema.tables where table_schema in {self.scope}"
            )
            if not _s(r[1]).startswith(CONTROL)
        }
        self.columns = self._columns()

    def tables(self) -> tuple[Table, ...]:
        keys, uniques, indexes = self._indexes()
        foreign, triggers, grants, partitions = (
            self._foreign_keys(),
            self._triggers(),
            self._grants(),
            self._partitions(),
        )
        found = []
        for place, row in sorted(self.listed.items()):
            kind = _s(row[2])
            if kind in ("VIEW", "SYSTEM VIEW", "SEQUENCE"):
                continue
            options = {"engine": _s(row[3] or ""), "row_format": _s(row[4] or ""), "collation": _s(row[8] or "")}
            if kind == "SYSTEM VERSIONED":
                options["system_versioned"] = "yes"
            partitioning = partitions.get(place)
            found.append(
                Table(
                    namespace=place[0], name=place[1], kind="partitioned" if partitioning else "table",
                    columns=tuple(self.columns[place]), primary_key=keys.get(place), uniques=tuple(uniques[place]),
                    foreign_keys=tuple(foreign[place]), indexes=tuple(indexes[place]), checks=tuple(self.checks[place]),
                    triggers=tuple(triggers[place]), partitioning=partitioning, comment=_o(row[10]) or None,
                    grants=tuple(grants[place]), rows_estimate=_i(row[5]), bytes=_i(row[6]),
                    options={k: v for k, v in options.items() if v},
                )
            )  # fmt: skip
        return tuple(found)

    # -------------------------------------------------------------------------------------------------------- columns

    def _columns(self) -> dict[Place, list[Column]]:
        srs = "null" if self.maria else "srs_id"
        rows = self.query(
            "select table_schema, table_name, column_name, column_default, is_nullable, column_type, character_set_name, "
            f"collation_name, extra, generation_expression, column_comment, {srs} from information_schema.columns "
            f"where table_schema in {self.scope} order by table_schema, table_name, ordinal_position"
        )
        found: dict[Place, list[Column]] = defaultdict(list)
        for row in rows:
            place = (_s(row[0]), _s(row[1]))
            if place in self.listed:
                found[place].append(self._column(place, row))
        return found

    def _column(self, place: Place, row: tuple[Any, ...]) -> Column:
        name, native, extra = _s(row[2]), _s(row[5]), _s(row[8] or "")
        low = extra.lower()
        type: DataType = types.parse(native)
        charset, collation = _o(row[6]), _o(row[7])
        if (*place, name) in self.json:
            native, type, charset, collation = "json", Json(normalised=False), None, None
        if isinstance(type, Geometry) and row[11] is not None:
            native, type = f"{native} srid {row[11]}", Geometry(type.kind, int(row[11]))
        generated = None
        if row[9] and "generated" in low and "default_generated" not in low:
            generated = Generated(
                expression=self._expression(_s(row[9])), stored="stored" in low or "persistent" in low
            )
        identity = None
        if "auto_increment" in low:
            identity = Identity(next=_i(self.listed[place][7]) or 1)
        update = re.search(r"on update (\S+)", extra, re.IGNORECASE)
        return Column(
            name=name, type=type, native=native, nullable=_s(row[4]) == "YES",
            default=None if generated else self._default(_o(row[3]), low, type), generated=generated, identity=identity,
            collation=collation, charset=charset, on_update=update[1] if update else None,
            invisible=bool(re.search(r"\binvisible\b", low)), comment=_o(row[10]) or None,
        )  # fmt: skip

    def _expression(self, text: str) -> str:
        """Return an expression as it can be written again (MySQL's catalog escapes the quotes in it)."""
        return text if self.maria else text.replace("\\'", "'").replace("\\\\", "\\")

    def _default(self, text: str | None, extra: str, type: DataType) -> Default | None:
        if text is None:
            return None
        if not self.maria and "default_generated" not in extra:
            bits = re.fullmatch(r"b'([01]*)'", text)
            if isinstance(type, Bits) and bits:
                return Default(native=text, kind="literal", value=bits[1])
            if re.fullmatch(r"CURRENT_TIMESTAMP(\(\d*\))?", text):
                return Default(native=text, kind="now")
            return Default(native=literal(text), kind="literal", value=text)
        text = self._expression(text)
        if self.maria and text == "NULL":
            return None
        if (kind := _moment(text)) is not None:
            return Default(native=text, kind=kind)
        if self.maria and (bits := re.fullmatch(r"b'([01]*)'", text)):
            return Default(native=text, kind="literal", value=bits[1])
        if match := re.fullmatch(r"(?:_[a-z0-9]+)?'((?:[^'\\]|''|\\.)*)'", text, re.DOTALL):
            value = re.sub(r"''|\\(.)", lambda m: _UNESCAPE.get(m[1], m[1]) if m[1] else "'", match[1], flags=re.DOTALL)
            return Default(native=text, kind="literal", value=value)
        if re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text, re.IGNORECASE):
            return Default(native=text, kind="literal", value=text)
        if match := re.fullmatch(r"nextval\((.*)\)", text, re.IGNORECASE | re.DOTALL):
            return Default(native=text, kind="sequence", value=match[1].replace("`", ""))
        return Default(native=text)

    # ------------------------------------------------------------------------------------------------ keys and indexes

    def _indexes(self) -> tuple[dict[Place, Key], dict[Place, list[Key]], dict[Place, list[Index]]]:
        extras = "ignored, null" if self.maria else "is_visible, expression"
        rows = self.query(
            "select table_schema, table_name, index_name, non_unique, column_name, collation, sub_part, index_type, index_comment, "
            f"{extras} from information_schema.statistics where table_schema in {self.scope} "
            "order by table_schema, table_name, index_name, seq_in_index"
        )
        grouped: dict[tuple[str, str, str], list[tuple[Any, ...]]] = defaultdict(list)
        for row in rows:
            grouped[_s(row[0]), _s(row[1]), _s(row[2])].append(row)
        keys: dict[Place, Key] = {}
        uniques: dict[Place, list[Key]] = defaultdict(list)
        indexes: dict[Place, list[Index]] = defaultdict(list)
        for (space, table, name), parts in grouped.items():
            place, first = (space, table), parts[0]
            kind = _s(first[7]).lower()
            unique = int(first[3]) == 0
            visible = _s(first[9]) == ("NO" if self.maria else "YES")
            columns = tuple(_s(p[4]) for p in parts if p[4] is not None)
            plain = len(columns) == len(parts) and all(p[6] is None and p[5] != "D" for p in parts) and kind == "btree"
            if name == "PRIMARY":
                keys[place] = Key(name="PRIMARY", columns=columns)
            elif unique and plain and visible:
                uniques[place].append(Key(name=name, columns=columns))
            else:
                indexes[place].append(
                    Index(
                        name=name, unique=unique, kind=kind, visible=visible, comment=_o(first[8]) or None,
                        parts=tuple(
                            IndexPart(
                                column=_o(p[4]), expression=self._expression(_s(p[10])) if p[10] is not None else None,
                                descending=p[5] == "D", prefix=None if kind in ("spatial", "fulltext") else _i(p[6]),
                            )
                            for p in parts
                        ),
                    )
                )  # fmt: skip
        return keys, uniques, indexes

    def _foreign_keys(self) -> dict[Place, list[ForeignKey]]:
        rows = self.query(
            "select k.table_schema, k.table_name, k.constraint_name, k.column_name, k.referenced_table_schema, "
            "k.referenced_table_name, k.referenced_column_name, r.delete_rule, r.update_rule "
            "from information_schema.key_column_usage k join information_schema.referential_constraints r "
            "on r.constraint_schema = k.constraint_schema and r.constraint_name = k.constraint_name and r.table_name = k.table_name "
            f"where k.table_schema in {self.scope} and k.referenced_table_name is not null "
            "order by k.table_schema, k.table_name, k.constraint_name, k.ordinal_position"
        )
        grouped: dict[tuple[str, str, str], list[tuple[Any, ...]]] = defaultdict(list)
        for row in rows:
            grouped[_s(row[0]), _s(row[1]), _s(row[2])].append(row)
        found: dict[Place, list[ForeignKey]] = defaultdict(list)
        for (space, table, name), parts in grouped.items():
            first = parts[0]
            found[space, table].append(
                ForeignKey(
                    name=name, columns=tuple(_s(p[3]) for p in parts), table=_s(first[5]), referred=tuple(_s(p[6]) for p in parts),
                    namespace=None if _s(first[4]) == space else _s(first[4]), on_delete=_action(first[7]), on_update=_action(first[8]),
                )
            )  # fmt: skip
        return found

    def _checks(self) -> dict[Place, list[Check]]:
        if self.maria:
            text = (
                "select constraint_schema, table_name, constraint_name, check_clause, level, 'YES' from information_schema.check_constraints "
                f"where constraint_schema in {self.scope} order by 1, 2, 3"
            )
        else:
            text = (
                "select c.constraint_schema, t.table_name, c.constraint_name, c.check_clause, 'Table', t.enforced "
                "from information_schema.check_constraints c join information_schema.table_constraints t "
                "on t.constraint_schema = c.constraint_schema and t.constraint_name = c.constraint_name and t.constraint_type = 'CHECK' "
                f"where c.constraint_schema in {self.scope} order by 1, 2, 3"
            )
        found: dict[Place, list[Check]] = defaultdict(list)
        for space, table, name, clause, level, enforced in self.query(text):
            place, expression = (_s(space), _s(table)), self._expression(_s(clause))
            if _s(level) == "Column" and expression.lower() == f"json_valid({quote(_s(name))})".lower():
                self.json.add((*place, _s(name)))
            else:
                # MariaDB names a column's check after its column: that name is not one to create again.
                name_of = None if _s(level) == "Column" else _s(name)
                found[place].append(Check(name=name_of, expression=expression, enforced=_s(enforced) == "YES"))
        return found

    # --------------------------------------------------------------------------------------------------- other objects

    def _triggers(self) -> dict[Place, list[Trigger]]:
        rows = self.query(
            "select event_object_schema, event_object_table, trigger_name, action_timing, event_manipulation, action_statement "
            f"from information_schema.triggers where trigger_schema in {self.scope} order by 1, 2, action_timing, event_manipulation, action_order"
        )
        found: dict[Place, list[Trigger]] = defaultdict(list)
        for space, table, name, timing, event, statement in rows:
            source = (
                f"CREATE TRIGGER {quote(_s(name))} {_s(timing)} {_s(event)} ON {where_is((_s(space), _s(table)))} "
                f"FOR EACH ROW {_s(statement)}"
            )
            found[_s(space), _s(table)].append(
                Trigger(name=_s(name), timing=_s(timing).lower(), events=(_s(event).lower(),), source=source)
            )
        return found

    def _grants(self) -> dict[Place, list[Grant]]:
        rows = self.query(
            "select table_schema, table_name, grantee, privilege_type, is_grantable from information_schema.table_privileges "
            f"where table_schema in {self.scope} order by 1, 2, 3, 4"
        )
        found: dict[Place, list[Grant]] = defaultdict(list)
        for space, table, grantee, privilege, grantable in rows:
            found[_s(space), _s(table)].append(
                Grant(grantee=_s(grantee), privilege=_s(privilege), grantable=_s(grantable) == "YES")
            )
        return found

    def _partitions(self) -> dict[Place, Partitioning]:
        rows = self.query(
            "select table_schema, table_name, partition_name, partition_method, partition_expression, partition_description, "
            f"subpartition_method from information_schema.partitions where table_schema in {self.scope} "
            "and partition_name is not null order by 1, 2, partition_ordinal_position, subpartition_ordinal_position"
        )
        found: dict[Place, Partitioning] = {}
        for space, table, name, method, expression, description, sub in rows:
            place = (_s(space), _s(table))
            kind = _s(method) + (f" / {_s(sub)}" if sub else "")
            part = (_s(name), _s(description or ""))
            kept = found.get(place)
            parts = kept.partitions if kept else ()
            found[place] = Partitioning(
                kind=kind, key=_s(expression or ""), partitions=parts if part in parts else (*parts, part)
            )
        return found

    def views(self) -> tuple[View, ...]:
        rows = self.query(
            "select table_schema, table_name, view_definition, definer from information_schema.views "
            f"where table_schema in {self.scope} order by 1, 2"
        )
        found = []
        for space, name, definition, definer in rows:
            place, text = (_s(space), _s(name)), _s(definition or "")
            uses = {
                f"{a}.{b}" for a, b in re.findall(r"`((?:[^`]|``)+)`\.`((?:[^`]|``)+)`", text) if (a, b) in self.listed
            }
            found.append(
                View(
                    namespace=place[0], name=place[1], definition=text, columns=tuple(self.columns[place]),
                    depends_on=tuple(sorted(uses)), owner=_o(definer),
                )
            )  # fmt: skip
        return tuple(found)

    def sequences(self) -> tuple[NumberSequence, ...]:
        places = [p for p, row in sorted(self.listed.items()) if _s(row[2]) == "SEQUENCE"]
        if not places:
            return ()
        rows = self.query(
            " union all ".join(
                f"select {i}, start_value, increment, minimum_value, maximum_value, cycle_option, next_not_cached_value from {where_is(p)}"
                for i, p in enumerate(places)
            )
        )
        return tuple(
            NumberSequence(
                namespace=places[int(i)][0], name=places[int(i)][1], start=int(start), increment=int(step), minimum=int(low),
                maximum=int(high), cycle=bool(int(cycle)), next=int(following),
            )
            for i, start, step, low, high, cycle, following in sorted(rows)
        )  # fmt: skip

    def routines(self) -> tuple[Routine, ...]:
        rows = self.query(
            "select routine_schema, routine_name, routine_type, dtd_identifier, routine_definition, sql_data_access, is_deterministic, "
            f"definer, specific_name from information_schema.routines where routine_schema in {self.scope} order by 1, 2"
        )
        if not rows:
            return ()
        signatures: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for space, name, kind, mode, parameter, type in self.query(
            "select specific_schema, specific_name, routine_type, parameter_mode, parameter_name, dtd_identifier "
            f"from information_schema.parameters where specific_schema in {self.scope} and ordinal_position > 0 "
            "order by 1, 2, ordinal_position"
        ):
            direction = f"{_s(mode)} " if mode and _s(kind) == "PROCEDURE" else ""
            signatures[_s(space), _s(name), _s(kind)].append(f"{direction}{quote(_s(parameter))} {_s(type)}")
        found = []
        for space, name, kind, returns, body, access, deterministic, definer, specific in rows:
            signature = ", ".join(signatures[_s(space), _s(specific), _s(kind)])
            tail = f" RETURNS {_s(returns)}" if _s(kind) == "FUNCTION" else ""
            det = "DETERMINISTIC" if _s(deterministic) == "YES" else "NOT DETERMINISTIC"
            source = f"CREATE {_s(kind)} {where_is((_s(space), _s(name)))}({signature}){tail} {det} {_s(access)}\n{_s(body or '')}"
            found.append(
                Routine(
                    namespace=_s(space), name=_s(name), kind=_s(kind).lower(), source=source, signature=signature, language="sql",
                    owner=_o(definer),
                )
            )  # fmt: skip
        return tuple(found)

    def events(self) -> tuple[Routine, ...]:
        rows = self.query(
            "select event_schema, event_name, event_definition, event_type, execute_at, interval_value, interval_field, status, definer "
            f"from information_schema.events where event_schema in {self.scope} order by 1, 2"
        )
        found = []
        for space, name, body, _kind, at, value, field, status, definer in rows:
            when = f"AT {literal(str(at))}" if at is not None else f"EVERY {literal(_s(value))} {_s(field)}"
            state = "" if _s(status) == "ENABLED" else " DISABLE"
            source = f"CREATE EVENT {where_is((_s(space), _s(name)))} ON SCHEDULE {when}{state} DO {_s(body)}"
            found.append(
                Routine(
                    namespace=_s(space), name=_s(name), kind="event", source=source, language="sql", owner=_o(definer)
                )
            )
        return tuple(found)


_UNESCAPE = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "Z": "\x1a"}
_MOMENTS: tuple[tuple[str, DefaultKind], ...] = (
    (r"(current_timestamp|now|localtimestamp)(\(\d*\))?", "now"),
    (r"(curdate\(\)|current_date(\(\))?)", "today"),
    (r"(curtime\(\d*\)|current_time(\(\d*\))?)", "time"),
    (r"uuid\(\)", "uuid"),
)


def _moment(text: str) -> DefaultKind | None:
    return next((kind for pattern, kind in _MOMENTS if re.fullmatch(pattern, text, re.IGNORECASE)), None)


_ACTIONS: dict[str, Action] = {
    "NO ACTION": "no action", "RESTRICT": "restrict", "CASCADE": "cascade", "SET NULL": "set null", "SET DEFAULT": "set default",
}  # fmt: skip


def _action(rule: Any) -> Action:
    return _ACTIONS.get(_s(rule), "no action")
