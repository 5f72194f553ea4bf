"""SQLite: files, dynamic types, and whole-file migrations that show up at once."""

from __future__ import annotations

from dblens.engines.asking import Lexis
from dblens.engines.base import Engine, Facts, Target, Url
from dblens.engines.sqlite import alter, ddl, types
from dblens.engines.sqlite.ask import asks
from dblens.engines.sqlite.edits import edits
from dblens.engines.sqlite.session import connect as _connect


def _open(
    url: Url,
    password: str | None = None,  # noqa: ARG001 - a file has none
    *,
    create: bool = False,
    read_only: bool = False,
    application: str = "dblens",  # noqa: ARG001
) -> Target:
    return _connect(engine, url, create=create, read_only=read_only)


engine = Engine(
    name="sqlite",
    title="SQLite",
    schemes=("sqlite",),
    default_port=None,
    options=frozenset({"mode", "immutable"}),
    facts=Facts(
        identifier_limit=10_000,
        identifier_unit="octets",
        folds_case=True,
        max_columns=2000,
        schemas=False,
        default_namespace="main",
        reserved_prefixes=("sqlite_", "_dblens_"),
        enforces_foreign_keys=False,
        parallel_loads=False,
    ),
    types=types,
    ddl=ddl,
    connect=_open,
    alter=alter,
    ask=asks,
    edits=edits,
    lexis=Lexis(dialect="sqlite", placeholder="question", identifier_quotes='"`', brackets=True, bodies="trigger"),
)
