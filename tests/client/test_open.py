"""`dblens.open()` with an address in the environment: the same three lines, and what they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblens.client.login import log_in
from tests.client.worlds import NAME, PASSWORD, Served, settle

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = {"psycopg", "psycopg_pool", "pymysql", "MySQLdb", "pymongo", "bson"}
OF_THE_SERVICE = {"fastapi", "starlette", "uvicorn"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    house, _ = settle(tmp_path_factory.mktemp("service"))
    made = Served(house)
    yield made
    made.close()
    house.close()


@pytest.fixture(scope="module")
def token(served: Served) -> str:
    return log_in(served.url, NAME, PASSWORD)[0].access.reveal()


def kernel(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code as a notebook's kernel would: another process, with an environment of its own."""
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    plain |= {"DBLENS_DATA_FOLDER": str(folder), "XDG_CONFIG_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=plain | environment, capture_output=True, text=True, timeout=120, cwd=folder, check=False
    )


LOADED = "import sys, json; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"


def loaded(code: str, folder: Path, **environment: str) -> set[str]:
    done = kernel(f"{code}\n{LOADED}", folder, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_three_lines(served: Served, token: str, tmp_path: Path) -> None:
    code = "import dblens; ws = dblens.open(); print(ws.account.read().name, ws); print(ws.teams.list())"
    done = kernel(code, tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN=token)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"ann RemoteWorkspace('{served.url}')", "Page(items=(), after=None)"]
    assert not list(tmp_path.iterdir()), "a client makes no store"


def test_a_token_in_a_file(served: Served, token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    code = "import dblens; print(dblens.open().account.read().name)"
    file.chmod(0o644)
    done = kernel(code, tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN_FILE=str(file))
    assert "can be read by others" in done.stderr
    assert token not in done.stderr
    file.chmod(0o600)
    done = kernel(code, tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN_FILE=str(file))
    assert done.stdout == "ann\n", done.stderr


def test_the_organization_of_the_environment(served: Served, token: str, tmp_path: Path) -> None:
    code = "import dblens; print(dblens.open().account.read().role)"
    environment = {"DBLENS_URL": served.url, "DBLENS_TOKEN": token}
    assert kernel(code, tmp_path, **environment, DBLENS_ORGANIZATION="acme").stdout == "admin\n"
    done = kernel(code, tmp_path, **environment, DBLENS_ORGANIZATION="other")
    assert "NotFound: no organization 'other'" in done.stderr


def test_nobody_is_logged_in(served: Served, tmp_path: Path) -> None:
    done = kernel("import dblens; dblens.open().account.read()", tmp_path, DBLENS_URL=served.url)
    assert f"NotAuthenticated: nobody is logged in to {served.url}" in done.stderr
    assert f"dblens login {served.url}" in done.stderr


def test_opening_loads_neither_drivers_nor_the_store(served: Served, token: str, tmp_path: Path) -> None:
    found = loaded("import dblens; dblens.open()", tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN=token)
    assert not found & (DRIVERS | OF_THE_SERVICE | {"sqlalchemy", "alembic", "httpx", "cryptography", "sqlite3"})


def test_a_call_loads_no_driver_and_nothing_of_the_service(served: Served, token: str, tmp_path: Path) -> None:
    """The records of a noun lie beside its queries, so SQLAlchemy comes along: it is a dependency of DBLens itself."""
    code = "import dblens; dblens.open().audit.own()"
    found = loaded(code, tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN=token)
    assert "httpx" in found
    assert not found & (DRIVERS | OF_THE_SERVICE | {"alembic"})


BLOCKED = "import sys\nfor name in {names!r}: sys.modules[name] = None\nimport dblens\n{code}"


@pytest.mark.parametrize("noun", ["account", "audit", "catalog", "connections", "migrations"])
def test_a_noun_needs_nothing_of_the_service(served: Served, token: str, tmp_path: Path, noun: str) -> None:
    code = BLOCKED.format(names=sorted(OF_THE_SERVICE), code=f"dblens.open().{noun}")
    done = kernel(code, tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN=token)
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_httpx_it_is_said_what_to_install(served: Served, token: str, tmp_path: Path) -> None:
    code = BLOCKED.format(names=["httpx"], code="dblens.open().audit.head()")
    done = kernel(code, tmp_path, DBLENS_URL=served.url, DBLENS_TOKEN=token)
    assert "pip install 'dblens[client]'" in done.stderr, done.stderr[-2000:]
