"""How an operation travels: the rule that the service and its client share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import pytest

from dblens.migrate.link import Link
from dblens.redaction import Secret
from dblens.store.rows import Page
from dblens.workspace import wire
from dblens.workspace.operation import operation
from dblens.workspace.registry import Table


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """A filter."""

    name: str | None = None
    kinds: tuple[str, ...] = ()


class Deep(msgspec.Struct, frozen=True, kw_only=True):
    """A record in a record."""

    which: Which = Which()


class Doors:
    """What is decorated by the tests."""

    def nothing(self) -> int:
        """Do it."""
        return 1

    def one(self, team: str) -> int:
        """Do it."""
        return 1

    def maybe(self, team: str | None = None) -> int:
        """Do it."""
        return 1

    def pages(self, which: Which = Which(), *, limit: int = 5, after: str | None = None) -> Page[str]:
        """Do it."""
        return Page(items=())

    def deep(self, which: Deep = Deep()) -> int:
        """Do it."""
        return 1

    def clash(self, name: str, which: Which = Which()) -> int:
        """Do it."""
        return 1

    def unless(self, name: str | None = "x") -> int:
        """Do it."""
        return 1

    def names(self, names: Sequence[str]) -> int:
        """Do it."""
        return 1

    def some(self, names: Sequence[str] = (), since: dt.datetime | None = None, by: Literal["a", "b"] = "a") -> int:
        """Do it."""
        return 1

    def secret(self, word: Secret) -> int:
        """Do it."""
        return 1

    def password(self, password: str) -> int:
        """Do it."""
        return 1

    def sink(self, write: Callable[[bytes], object], limit: int = 1) -> int:
        """Do it."""
        return 1

    def link(self, source: str | Link, others: Sequence[Link | str] = ()) -> int:
        """Do it."""
        return 1


def made(name: str, method: str, **options: Any) -> wire.Route | None:
    table = Table()
    operation(name, table=table, **options)(getattr(Doors, method))
    return wire.route(table.get(name))


CASES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("team.list", "pages", {}, "GET", "/teams"),
    ("team.read", "one", {}, "GET", "/teams/{team}"),
    ("team.read", "maybe", {}, "GET", "/teams/read"),
    ("team.read", "nothing", {}, "GET", "/teams/read"),
    ("account.read", "nothing", {}, "GET", "/account"),
    ("settings.list", "nothing", {}, "GET", "/settings/list"),
    ("team.create", "nothing", {"mutates": True}, "POST", "/teams"),
    ("team.update", "one", {"mutates": True}, "PATCH", "/teams/{team}"),
    ("team.update", "maybe", {"mutates": True}, "POST", "/teams/update"),
    ("team.delete", "one", {"mutates": True}, "DELETE", "/teams/{team}"),
    ("team.delete", "names", {"mutates": True}, "POST", "/teams/delete"),
    ("team.end_it", "one", {"mutates": True}, "POST", "/teams/{team}/end-it"),
    ("team.look", "one", {}, "GET", "/teams/{team}/look"),
    ("team.look", "nothing", {"long": True}, "POST", "/teams/look"),
    ("team.look", "deep", {}, "POST", "/teams/look"),
    ("team.look", "clash", {}, "POST", "/teams/look"),
    ("team.look", "unless", {}, "POST", "/teams/look"),
    ("team.look", "names", {}, "POST", "/teams/look"),
    ("team.look", "some", {}, "GET", "/teams/look"),
    ("team.look", "secret", {}, "POST", "/teams/look"),
    ("team.look", "password", {}, "POST", "/teams/look"),
    ("team.look", "sink", {}, "GET", "/teams/look"),
    ("team.look", "link", {}, "GET", "/teams/look"),
]


@pytest.mark.parametrize(("name", "method", "options", "verb", "path"), CASES, ids=str)
def test_the_rule(name: str, method: str, options: dict[str, Any], verb: str, path: str) -> None:
    found = made(name, method, **options)
    assert found is not None
    assert (found.method, found.path) == (verb, wire.PREFIX + path)


def test_where_parameters_go() -> None:
    found = made("team.look", "sink")
    assert found is not None
    assert found.places == {"write": "sink", "limit": "query"}
    found = made("team.list", "pages")
    assert found is not None
    assert found.spread == ("which",)
    assert made("team.list", "pages", local=True) is None


def test_what_lives_in_this_process_only_stays_here() -> None:
    assert wire.travelling(str | Link) is str
    assert wire.travelling(Sequence[Link | str]) == list[str]
    assert wire.travelling(str | Link | None) == str | None
    assert wire.travelling(tuple[str | Link, ...]) == tuple[str, ...]
    assert wire.travelling(Which) is Which
