"""25: nothing that is read can run. No pickle, no YAML, no XML, no code: by what DBLens imports, and by crafted files at its doors."""

from __future__ import annotations

import ast
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dblens.errors import DBLensError
from dblens.migrate import model
from dblens.store import backup
from dblens.store.database import Store
from tests.api.conftest import World

ROOT = Path(__file__).resolve().parents[2] / "dblens"
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "ruamel", "pandas",
           "xml", "lxml", "plistlib", "xmlrpc", "code", "codeop", "runpy", "imp", "jsonpickle"}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle"}
EXCEPT: dict[tuple[str, str], str] = {
    ("dblens/query/results.py", "pandas"): "Result.df() makes a DataFrame of Arrow; nothing is read with it"
}
"""(file, what) -> why it may."""


def found(text: str) -> Iterator[str]:
    """Yield what a module could run what it reads with."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").partition(".")[0] in MODULES:
            yield node.module or ""
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node.func.id
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("read_pickle", "allow_pickle")
        ):
            yield node.func.attr
        elif isinstance(node, ast.keyword) and node.arg == "shell" and getattr(node.value, "value", None) is not False:
            yield "shell="
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield "allow_pickle"


def test_nothing_that_runs_what_it_reads_is_used() -> None:
    files = [*ROOT.rglob("*.py"), *(ROOT.parent / "flows").rglob("*.py")]
    assert len(files) > 100
    wrong = {
        (str(path.relative_to(ROOT.parent)), what) for path in files for what in found(path.read_text(encoding="utf-8"))
    }
    assert wrong == set(EXCEPT), wrong ^ set(EXCEPT)


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from pickle import loads", "import yaml", "import xml.etree.ElementTree as e", "eval('1')", "exec(x)",
     "import pandas as pd", "p.read_pickle(x)", "subprocess.run(x, shell=True)", "np.load(x, allow_pickle=True)", "__import__(x)"],
)  # fmt: skip
def test_the_search_finds_it(text: str) -> None:
    assert list(found(text))


def test_a_running_service_has_loaded_no_parser_of_these() -> None:
    """What a library brings is not used either: after a start, with the routes made, no YAML and no XML parser is there."""
    code = (
        "import dblens.api.app, dblens.api.server, dblens.workspace.registry as r, sys; r.load(); "
        "print(*[m for m in ('yaml', 'lxml', 'xml.sax.expatreader', 'dill', 'cloudpickle', 'joblib', 'pandas') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert said.stdout.split() == []


# ---------------------------------------------------------------------------------------------------------------- crafted files


class Bomb:
    """Touches a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


@pytest.fixture
def crafted(tmp_path: Path) -> Iterator[list[bytes]]:
    """Files that run something, or read a file, in whoever takes them for more than data."""
    trap = tmp_path / "ran"
    (tmp_path / "proof").write_text("it works")
    yaml = f"!!python/object/apply:os.system ['touch {trap}']\n"
    xml = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
    code = f'{{"a": __import__("os").system("touch {trap}")}}'
    yield [pickle.dumps(Bomb(trap)), pickle.dumps(Bomb(trap), 0), yaml.encode(), xml.encode(), code.encode()]
    assert not trap.exists()
    pickle.loads(pickle.dumps(Bomb(trap)))  # the trap itself works
    assert trap.exists()


def test_a_plan_is_json_or_nothing(crafted: list[bytes]) -> None:
    for each in crafted:
        with pytest.raises(DBLensError):
            model.read(each.decode("latin-1"))


def test_a_backup_of_the_store_is_read_line_by_line(crafted: list[bytes], tmp_path: Path) -> None:
    import gzip

    from dblens.store.upgrade import open_store

    store: Store = open_store(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    for each in crafted:
        for data in (each, gzip.compress(each)):
            path = tmp_path / "crafted.backup"
            path.write_bytes(data)
            with pytest.raises(DBLensError):
                backup.restore(store, path)
    store.close()


def test_a_body_is_json_or_nothing(crafted: list[bytes], client: TestClient, world: World) -> None:
    headers = world.headers("acme", "admin")
    for each in crafted:
        for kind in (
            "application/json",
            "application/x-python-pickle",
            "application/yaml",
            "application/xml",
            "text/xml",
        ):
            for path in ("/api/v1/connections/import", "/api/v1/migrations/plan", "/api/v1/teams"):
                answer = client.post(path, headers={**headers, "Content-Type": kind}, content=each)
                assert answer.status_code in (400, 415), (path, kind, answer.text)
                assert "root:" not in answer.text


def test_settings_are_data(crafted: list[bytes], tmp_path: Path) -> None:
    from dblens import settings

    for each in crafted:
        config = tmp_path / "config.toml"
        config.write_bytes(each)
        config.chmod(0o600)
        with pytest.raises(DBLensError):
            settings.load({"DBLENS_CONFIG": str(config), "HOME": str(tmp_path)})


def test_nothing_public_takes_a_pickle_for_itself() -> None:
    """What holds a secret is not made into a pickle; what is told in one (errors) does not run on the way back."""
    from dblens import errors

    class Spy(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            assert module.startswith("dblens.errors") or (module, name) in (("builtins", "getattr"), ("copyreg", "_reconstructor")), (module, name)  # fmt: skip
            return super().find_class(module, name)

    error = errors.InvalidInput("x", hint="y")
    back = Spy(io.BytesIO(pickle.dumps(error))).load()
    assert back.message == "x"
