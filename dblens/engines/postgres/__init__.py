"""PostgreSQL 15 to 18."""

from __future__ import annotations

from dblens.engines.base import Engine, Facts, Url
from dblens.engines.postgres import alter, ddl, types
from dblens.engines.postgres.ask import LEXIS, ask
from dblens.engines.postgres.edits import edits
from dblens.engines.postgres.session import PostgresSession
from dblens.engines.postgres.session import connect as _connect


def connect(
    url: Url,
    password: str | None = None,
    *,
    create: bool = False,
    read_only: bool = False,
    application: str = "dblens",
) -> PostgresSession:
    """Open a session on the database that a URL names.

    Raises ConnectionFailed with the cause, NotFound for a missing database unless `create`, PermissionDenied, and InvalidInput for an
    option that is not on the list.
    """
    return _connect(engine, url, password, create=create, read_only=read_only, application=application)


engine = Engine(
    name="postgresql",
    title="PostgreSQL",
    schemes=("postgresql", "postgres"),
    default_port=5432,
    # Nothing that changes settings (`options`) or reads files, but for the three of TLS.
    options=frozenset(
        {
            "sslmode",
            "sslrootcert",
            "sslcert",
            "sslkey",
            "channel_binding",
            "connect_timeout",
            "application_name",
            "target_session_attrs",
            "gssencmode",
        }
    ),
    facts=Facts(
        identifier_limit=63,
        identifier_unit="octets",
        folds_case=False,
        max_columns=1600,
        schemas=True,
        default_namespace="public",
        reserved_prefixes=("pg_",),
        maintenance_database="postgres",
        octets_literal=r"'\x{}'",
        bits_literal="B'{}'",
        instant_suffix="+00",
    ),
    types=types,
    ddl=ddl,
    connect=connect,
    alter=alter,
    ask=ask,
    edits=edits,
    lexis=LEXIS,
)
