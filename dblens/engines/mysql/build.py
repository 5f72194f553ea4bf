"""Run the plan's DDL so that it can be run again: what is already there is compared, never assumed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dblens.engines.mysql.ddl import CONTROL
from dblens.engines.mysql.driver import Link
from dblens.engines.mysql.sql import where_is
from dblens.errors import Conflict, EngineError
from dblens.events import Report, StepDone

_NAME = r"`((?:[^`]|``)+)`"
_CREATE = re.compile(rf"^create table {_NAME}\.{_NAME}", re.DOTALL)
_ALTER = re.compile(rf"^alter table {_NAME}\.{_NAME} add ", re.DOTALL)
_FOREIGN = re.compile(rf"^constraint {_NAME} foreign key")
_KEY = re.compile(rf"(?:^|, add )(?:unique |fulltext |spatial )?key {_NAME}")
_LATER = re.compile(r"(UNIQUE |FULLTEXT |SPATIAL )?KEY |CONSTRAINT .* FOREIGN KEY ", re.DOTALL)
_THERE = (1050, 1061, 1826, 1005, 1022, 121, 1060, 3822)
"""Error numbers that say: the table, index or constraint is already there."""


def build(link: Link, statements: Iterable[str], report: Report) -> None:
    """Run statements one by one; a statement whose object is there in the planned shape is passed over."""
    for statement in statements:
        try:
            link.run(statement)
        except (EngineError, Conflict) as error:
            cause = error.__cause__
            number = cause.args[0] if cause is not None and cause.args else 0
            if number not in _THERE or not _settled(link, statement):
                raise
        report(StepDone("ddl", 0.0, statement.split("\n", 1)[0][:120]))


def _settled(link: Link, statement: str) -> bool:
    """Return whether what a statement would make is there in the same shape."""
    match = _CREATE.match(statement)
    if match is not None:
        place = (_plain(match[1]), _plain(match[2]))
        scratch = (place[0], CONTROL + "shape")
        link.run(f"drop table if exists {where_is(scratch)}")
        try:
            link.run(f"create table {where_is(scratch)}{statement[match.end():]}")
            there, planned = _shape(link, place), _shape(link, scratch)
            # A later phase may have added its indexes and foreign keys already.
            return not [x for x in planned if x not in there] and all(_LATER.match(x) for x in there if x not in planned)
        finally:
            link.run(f"drop table if exists {where_is(scratch)}")
    match = _ALTER.match(statement)
    if match is None:
        return False
    place = (_plain(match[1]), _plain(match[2]))
    rest = statement[match.end() :]
    if foreign := _FOREIGN.match(rest):
        return bool(
            link.rows(
                "select 1 from information_schema.referential_constraints "
                "where constraint_schema = %s and table_name = %s and constraint_name = %s",
                (*place, _plain(foreign[1])),
            )
        )
    scratch = (place[0], CONTROL + "shape")
    link.run(f"drop table if exists {where_is(scratch)}")
    try:
        # A copy without the indexes, given them again by the same statement, must look like the table.
        link.run(f"create table {where_is(scratch)} like {where_is(place)}")
        for name in _KEY.findall(rest):
            link.run(f"alter table {where_is(scratch)} drop key `{name}`")
        link.run(f"alter table {where_is(scratch)} add {rest}")
        return _shape(link, place, foreign=False) == _shape(link, scratch)
    finally:
        link.run(f"drop table if exists {where_is(scratch)}")


def _plain(quoted: str) -> str:
    return quoted.replace("``", "`")


def _shape(link: Link, place: tuple[str, str], *, foreign: bool = True) -> list[str]:
    text = str(link.one(f"show create table {where_is(place)}")[1])
    body = re.sub(rf"^CREATE TABLE {_NAME}", "", text)
    body = re.sub(r" AUTO_INCREMENT=\d+", "", body)
    # MySQL names anonymous checks after their table.
    body = re.sub(rf"CONSTRAINT `(?:{re.escape(place[1])})_chk_(\d+)`", r"CONSTRAINT `_chk_\1`", body)
    lines = sorted(line.rstrip(",").strip() for line in body.split("\n"))
    return lines if foreign else [line for line in lines if " FOREIGN KEY " not in line]
