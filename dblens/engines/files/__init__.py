"""Files and tables in memory as the source of a migration: CSV, TSV, JSON Lines, Parquet, Arrow, XLSX, DataFrames.

No connection leads here, for there is no URL that does: a file is read where the caller's own process is. `migrate.loaded.FileLink` is the side.
"""

from __future__ import annotations

from dblens.engines.base import Engine, Facts, Target, Url
from dblens.engines.files import types
from dblens.engines.files.model import Bad, Reading
from dblens.engines.files.session import File, Session
from dblens.errors import Unsupported

__all__ = ["Bad", "File", "Reading", "Session", "engine"]


def _open(
    url: Url,
    password: str | None = None,  # noqa: ARG001
    *,
    create: bool = False,  # noqa: ARG001
    read_only: bool = False,  # noqa: ARG001
    application: str = "dblens",  # noqa: ARG001
) -> Target:
    raise Unsupported(
        f"connecting to {url.database!r}", "a file is no database", hint="dblens load FILE CONNECTION.TABLE"
    )


engine = Engine(
    name="files",
    title="Files",
    schemes=(),
    default_port=None,
    options=frozenset(),
    facts=Facts(
        identifier_limit=1 << 20,
        identifier_unit="octets",
        folds_case=False,
        max_columns=1 << 20,
        schemas=False,
        default_namespace="file",
        parallel_loads=False,
    ),
    types=types,
    ddl=types,
    connect=_open,
)
