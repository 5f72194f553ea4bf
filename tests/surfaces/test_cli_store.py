"""`dblens store` as a program: what it says where, its exit codes, and that it shows no password."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.settings import Settings
from dblens.store import keys
from dblens.store.database import Store
from dblens.store.tables import meta
from dblens.store.upgrade import head
from tests.servers.fixtures import require
from tests.store.filled import content, fill

ROOT = Path(__file__).resolve().parents[2]
HEAD = head()
New = Callable[..., str]


def run(
    url: str, *arguments: str, home: Path | None = None, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("DBLENS_", "XDG_"))}
    environ |= {"DBLENS_STORE_URL": url, "HOME": str(home or "/nonexistent"), "PYTHONPATH": str(ROOT)} | (more or {})
    return subprocess.run(
        [sys.executable, "-m", "dblens", "store", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL, env=environ,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failed(done: subprocess.CompletedProcess[str], status: int) -> Any:
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return json.loads(done.stderr.splitlines()[-1])["error"]


def test_from_a_laptop_to_a_team(tmp_path: Path, new_database: New) -> None:
    laptop, team = f"sqlite:///{tmp_path}/deep/store.sqlite", new_database(require("pg15"))
    assert failed(run(laptop, "check", "--json"), 10)["hint"] == "`dblens store upgrade` makes one"
    assert not (tmp_path / "deep").exists()
    assert said(run(laptop, "upgrade", "--json")) == {"place": laptop, "before": None, "after": HEAD}
    assert run(laptop, "upgrade").stdout == f"{laptop} is at revision {HEAD} already\n"
    source = Store.open(laptop)
    fill(source)
    with source.write() as tx:
        tx.execute(meta.insert().values(key="kek.check", value="check-value"))
    found = said(run(laptop, "check", "--json"))
    assert found["revision"] == HEAD
    assert all(finding["ok"] for finding in found["findings"])

    backup = tmp_path / "laptop.store"
    done = run(laptop, "backup", str(backup), "--json")
    assert said(done)["kek_check"] == "check-value"
    assert "without it every secret kept in the store is lost" in done.stderr
    assert backup.stat().st_mode & 0o777 == 0o600
    assert failed(run(laptop, "backup", str(backup), "--json"), 4)["code"] == "conflict"

    done = run(team, "restore", str(backup), "--json")
    assert said(done)["revision"] == HEAD
    assert "no key-encryption key is here, and its secrets need the one it was used with" in done.stderr
    target = Store.open(team)
    assert content(target) == content(source)
    assert failed(run(team, "restore", str(backup), "--json"), 4)["message"].endswith("has rows")
    password = sa.make_url(team).password or ""
    assert len(password) > 5
    for act in (("check",), ("upgrade",), ("restore", str(backup)), ("backup", str(backup)), ("downgrade", "base")):
        told = run(team, *act)
        assert password not in told.stdout + told.stderr
    source.close()
    target.close()


def test_restore_says_whether_the_present_key_fits(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    url, backup = f"sqlite:///{tmp_path}/s", tmp_path / "b"
    run(url, "upgrade")
    store = Store.open(url)
    keys.unlock(store, Settings(store_url=url, data_folder=first))  # makes a key and notes its check value
    shutil.copytree(first, second)
    (second / "kek").write_text(base64.b64encode(os.urandom(32)).decode())
    run(url, "backup", str(backup))
    for number, (home, fits, word) in enumerate(
        ((first, True, "is the one that its secrets need"), (second, False, "another key-encryption key is here"))
    ):
        environ = {"DBLENS_KEK_FILE": str(home / "kek")}
        done = run(f"sqlite:///{tmp_path}/to{number}", "restore", str(backup), "--json", more=environ)
        assert said(done)["key_fits"] is fits
        assert word in done.stderr
    restored = Store.open(f"sqlite:///{tmp_path}/to0")
    keys.unlock(restored, Settings(store_url=url, data_folder=first))
    for each in (store, restored):
        each.close()


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s"
    run(url, "upgrade")
    store = Store.open(url)
    with store.write() as tx:
        tx.execute(sa.text("DROP TABLE run_log"))
    store.close()
    done = run(url, "check", "--json")
    assert done.returncode == 10
    wrong = [finding for finding in json.loads(done.stdout)["findings"] if not finding["ok"]]
    assert [(w["what"], w["detail"]) for w in wrong] == [("schema", "add_table run_log")]
    shown = run(url, "check")
    assert shown.returncode == 10
    assert "schema\tNO\tadd_table run_log" in shown.stdout
    (tmp_path / "s").chmod(0o644)
    assert "can be read by others" in failed(run(url, "check", "--json"), 10)["message"]


def test_a_downgrade_asks_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s"
    run(url, "upgrade")
    assert failed(run(url, "downgrade", "base", "--json"), 2)["message"] == "a downgrade throws data away"
    assert failed(run(url, "downgrade", "0815", "--yes", "--json"), 2)["hint"].endswith(f", {HEAD}")
    assert said(run(url, "downgrade", "base", "--yes", "--json"))["after"] is None
    assert said(run(url, "upgrade", "--json"))["after"] == HEAD


def test_archives_that_are_none(tmp_path: Path) -> None:
    url, bad = f"sqlite:///{tmp_path}/s", tmp_path / "bad"
    assert failed(run(url, "restore", str(bad), "--json"), 9)["code"] == "archive.missing"
    bad.write_text("hello")
    assert failed(run(url, "restore", str(bad), "--json"), 9)["code"] == "archive.corrupt"
    assert said(run(url, "upgrade", "--json"))["before"] is None  # nothing was left there


@pytest.mark.parametrize(
    "url", ["mysql://u:geheim@h/d", "postgresql://u:geheim@127.0.0.1:1/d", "nonsense", "sqlite:////proc/x/s"]
)
def test_places_that_are_none(url: str) -> None:
    done = run(url, "upgrade", "--json")
    error = failed(done, 2 if url.startswith(("mysql", "nonsense")) else 10)
    assert error["code"] in ("input.invalid", "store.failed")
    assert "geheim" not in done.stderr + done.stdout


def test_without_an_address_the_store_is_in_the_home(tmp_path: Path) -> None:
    found = said(run("", "upgrade", "--json", home=tmp_path))
    assert found["place"] == f"sqlite:///{tmp_path}/.local/share/dblens/store.sqlite"


@pytest.mark.parametrize("command", ["upgrade", "downgrade", "check", "backup", "restore"])
def test_help_has_examples(command: str) -> None:
    shown = run("", command, "--help").stdout
    assert f"dblens store {command}" in " ".join(shown.split())
    assert "Examples" in shown
