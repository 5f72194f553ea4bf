"""PostgreSQL 18."""

from __future__ import annotations

from tests.engines import harness_postgres15


class Harness(harness_postgres15.Harness):
    name, server = "postgres18", "pg18"
