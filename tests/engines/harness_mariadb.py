"""MariaDB 10.11."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tests.engines.harness import Gap
from tests.engines.harness_mysql_family import MySQLFamily


class Harness(MySQLFamily):
    name, server = "mariadb", "mariadb"
    EXPECTED_GAPS: ClassVar[Mapping[str, Gap]] = {}
