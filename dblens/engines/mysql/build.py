"""Run the plan's DDL so that it can be run again: what is already there is compared, never assumed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from dblens.engines.base import Place
from dblens.engines.mysql.driver import Link
from dblens.engines.mysql.sql import quote, where_is
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
        foreign = (match := _ALTER.match(statement)) is not None and _FOREIGN.match(statement[match.end() :])
        try:
            if foreign:
                # With the checks on, MySQL rebuilds the whole table for each key; the caller has looked for orphans itself.
                link.run("set foreign_key_checks = 0")
            link.run(statement)
        except (EngineError, Conflict) as error:
            cause = error.__cause__
            number = cause.args[0] if cause is not None and cause.args else 0
            if number not in _THERE or not _settled(link, statement):
                raise
        finally:
            if foreign:
                link.run("set foreign_key_checks = 1")
        report(StepDone("ddl", 0.0, statement.split("\n", 1)[0][:120]))


def _settled(link: Link, statement: str) -> bool:
    """Return whether what a statement would make is there in the same shape."""
    match = _CREATE.match(statement)
    if match is not None:
        place = (_plain(match[1]), _plain(match[2]))
        with _scratch(link, place) as scratch:
            link.run(f"create table {where_is(scratch)}{statement[match.end() :]}")
            there, planned = _shape(link, place), _shape(link, scratch)
            # A later phase may have added its indexes and foreign keys already.
            return not [x for x in planned if x not in there] and all(
                _LATER.match(x) for x in there if x not in planned
            )
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
    with _scratch(link, place) as scratch:
        # A copy without the indexes, given them again by the same statement, must look like the table.
        link.run(f"create table {where_is(scratch)} like {where_is(place)}")
        for name in _KEY.findall(rest):
            link.run(f"alter table {where_is(scratch)} drop key `{name}`")
        link.run(f"alter table {where_is(scratch)} add {rest}")
        ignored = (" FOREIGN KEY ", " CHECK (")
        one, two = ([x for x in _shape(link, p) if not any(w in x for w in ignored)] for p in (place, scratch))
        return one == two


@contextlib.contextmanager
def _scratch(link: Link, place: Place) -> Iterator[Place]:
    """Give a place in a database of its own, because MySQL's names of checks are unique in each."""
    area = f"{place[0][:50]}~shape"
    link.run(f"create database if not exists {quote(area)}")
    try:
        link.run(f"drop table if exists {where_is((area, place[1]))}")
        yield area, place[1]
    finally:
        link.run(f"drop database if exists {quote(area)}")


def _plain(quoted: str) -> str:
    return quoted.replace("``", "`")


def _shape(link: Link, place: Place) -> list[str]:
    text = str(link.one(f"show create table {where_is(place)}")[1])
    body = re.sub(rf"^CREATE TABLE {_NAME}", "", text)
    body = re.sub(r" AUTO_INCREMENT=\d+", "", body)
    return sorted(line.rstrip(",").strip() for line in body.split("\n"))
