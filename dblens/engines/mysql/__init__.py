"""MySQL and MariaDB."""

from __future__ import annotations

from dblens.engines.base import Engine, Facts
from dblens.engines.mysql import alter, ddl, types
from dblens.engines.mysql.ask import LEXIS, ask
from dblens.engines.mysql.driver import OPTIONS
from dblens.engines.mysql.edits import edits
from dblens.engines.mysql.session import connect

engine = Engine(
    name="mysql",
    title="MySQL / MariaDB",
    schemes=("mysql", "mariadb"),
    default_port=3306,
    options=OPTIONS,
    facts=Facts(
        identifier_limit=64,
        identifier_unit="characters",
        bits_literal="b'{}'",
        # Table names do not fold on Linux (lower_case_table_names = 0), column names always do.
        folds_case=True,
        max_columns=1017,
        schemas=False,
        forbidden_in_names="\0",
        reserved_prefixes=(ddl.CONTROL,),
        maintenance_database="information_schema",
        indexes_per_table=True,
        constraints_per_table=False,
        strict_foreign_types=True,
    ),
    types=types,
    ddl=ddl,
    connect=connect,
    alter=alter,
    ask=ask,
    edits=edits,
    lexis=LEXIS,
)
