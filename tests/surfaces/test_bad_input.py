"""Bad input gets one clear error with a hint and its documented exit code, and nothing is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dblens import errors
from dblens.migrate.link import link
from tests.servers import LOW_USER, PASSWORD, MariaDB, Mongo, Postgres

New = Callable[..., str]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "dblens", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TEST_PASSWORD": PASSWORD, **(env or {})},
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One error, its hint, its exit code, no traceback, no password, nothing on stdout."""
    assert done.returncode == code, (done.returncode, done.stderr)
    if done.stderr.lstrip().startswith("{"):  # under --json the error is one line of JSON
        error = json.loads(done.stderr)["error"]
        assert error["exit"] == code
        assert error["hint"]
    else:
        assert done.stderr.count("error: ") == 1, done.stderr
        assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    assert done.stdout.strip() == ""
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def bare(url: str) -> str:
    """The URL without its password."""
    return url.replace(f":{PASSWORD}@", "@")


@pytest.fixture
def shop(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with closing(link(url).connect(create=True)) as session:
        session.execute("create table item (id integer primary key, name text not null)")
        session.execute("insert into item values (1, 'one'), (2, 'two')")
    return url


def plan(source: str, target: str, *more: str) -> subprocess.CompletedProcess[str]:
    return run("migrate", "plan", source, target, "--target-password-env", "TEST_PASSWORD", "--json", *more)


@pytest.mark.parametrize("text", ["nonsense", "oracle://x/y", "postgresql://host:notaport/db", ""])
def test_wrong_url(text: str, shop: str) -> None:
    refused(plan(shop, text), 2)


def test_missing_file(tmp_path: Path, shop: str) -> None:
    refused(plan(f"sqlite:///{tmp_path / 'none.db'}", shop), 4, "none.db")
    assert not (tmp_path / "none.db").exists()


def test_password_in_url(shop: str) -> None:
    done = plan(shop, "postgresql://me:hunter2@127.0.0.1:1/db")
    refused(done, 2, "--allow-password-in-url")
    assert "hunter2" not in done.stderr


def test_unreachable_host(shop: str) -> None:
    refused(plan(shop, "postgresql://me@127.0.0.1:1/db"), 3, "127.0.0.1")
    refused(plan(shop, "mysql://me@127.0.0.1:1/db"), 3, "127.0.0.1")
    refused(plan(shop, "mongodb://127.0.0.1:1/db?serverSelectionTimeoutMS=500"), 3, "127.0.0.1")
    refused(plan(shop, "postgresql://me@no-such-host.invalid/db"), 3, "no-such-host.invalid")


def test_wrong_password(shop: str, pg15: Postgres, mariadb: MariaDB, new_database: New) -> None:
    for server in (pg15, mariadb):
        url = bare(new_database(server))
        done = run(
            "migrate", "plan", shop, url, "--target-password-env", "WRONG", "--json", env={"WRONG": "not-it-at-all"}
        )
        refused(done, 5)
        assert "not-it-at-all" not in done.stderr


def test_missing_database(shop: str, pg15: Postgres, mariadb: MariaDB) -> None:
    for server in (pg15, mariadb):
        url = bare(server.url("no_such_database"))
        refused(plan(shop, url), 4, "no_such_database", "--create-target")


def test_target_not_empty(shop: str, pg15: Postgres, mariadb: MariaDB, mongo: Mongo, new_database: New) -> None:
    for server in (pg15, mariadb):
        url = new_database(server)
        with closing(link(url, allow_password=True).connect()) as session:
            session.execute("create table item (id int primary key, name varchar(20))")
        refused(plan(shop, bare(url)), 4, "item", "--existing")


def test_no_privilege(shop: str, pg15: Postgres, mariadb: MariaDB, new_database: New, tmp_path: Path) -> None:
    for server in (pg15, mariadb):
        new_database(server)
        name = new_database(server).rpartition("/")[2]
        url = bare(server.url(name, low=True))
        assert LOW_USER in url
        done = plan(shop, url)
        if done.returncode == 0:
            blocked = json.loads(done.stdout)["blocks"]
            assert any("grant" in b["reason"].lower() for b in blocked), blocked
            file = tmp_path / "plan.json"
            file.write_text(done.stdout)
            done = run("migrate", "apply", str(file), "--target-password-env", "TEST_PASSWORD")
            refused(done, 7, "GRANT")
        else:
            refused(done, 5)


def test_edited_plan(shop: str, pg15: Postgres, new_database: New, tmp_path: Path) -> None:
    url = bare(new_database(pg15))
    made = plan(shop, url)
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    document["tables"][0]["rows"] = 1
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document))
    refused(run("migrate", "apply", str(file), "--target-password-env", "TEST_PASSWORD"), 7, "hash")
    file.write_text("{}")
    refused(run("migrate", "apply", str(file)), 2)
    refused(run("migrate", "apply", str(tmp_path / "none.json")), 2)


def test_stale_plan(shop: str, pg15: Postgres, new_database: New, tmp_path: Path) -> None:
    url = new_database(pg15)
    file = tmp_path / "plan.json"
    file.write_text(plan(shop, bare(url)).stdout)
    with closing(link(shop).connect()) as session:
        session.execute("alter table item add column extra text")
    refused(run("migrate", "apply", str(file), "--target-password-env", "TEST_PASSWORD"), 7, "schema changed")
    with closing(link(url, allow_password=True).connect()) as session:
        assert session.inspect().tables == ()


def test_loss_not_accepted(pg15: Postgres, mariadb: MariaDB, new_database: New, tmp_path: Path) -> None:
    source, target = new_database(pg15), new_database(mariadb)
    with closing(link(source, allow_password=True).connect()) as session:
        session.execute("create table m (id int primary key, v double precision)")
        session.execute("insert into m values (1, 'NaN'), (2, 1.5)")
    made = run(
        "migrate", "plan", bare(source), bare(target), "--json",
        "--source-password-env", "TEST_PASSWORD", "--target-password-env", "TEST_PASSWORD",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    losses = json.loads(made.stdout)["losses"]
    assert [(x["kind"], x["count"], x["samples"]) for x in losses] == [("nonfinite", 1, [["1"]])]
    file = tmp_path / "plan.json"
    file.write_text(made.stdout)
    both = ("--source-password-env", "TEST_PASSWORD", "--target-password-env", "TEST_PASSWORD")
    refused(run("migrate", "apply", str(file), *both), 7, losses[0]["id"])
    refused(run("migrate", "apply", str(file), "--accept", "nonsense", *both), 2, "nonsense")
    with closing(link(target, allow_password=True).connect()) as session:
        assert session.inspect().tables == ()


def test_rule_that_matches_nothing(shop: str, pg15: Postgres, new_database: New) -> None:
    refused(plan(shop, bare(new_database(pg15)), "--rule", "item.nmae:rename=title"), 2, "item.nmae")
    refused(plan(shop, bare(new_database(pg15)), "--table", "itme"), 2, "itme")
    refused(plan(shop, bare(new_database(pg15)), "--rule", "item:fly=1"), 2, "fly")


def test_nothing_to_roll_back(pg15: Postgres, new_database: New) -> None:
    url = bare(new_database(pg15))
    refused(run("migrate", "rollback", url, "--target-password-env", "TEST_PASSWORD"), 4)


@pytest.mark.parametrize(("package", "extra"), [("uvicorn", "server"), ("limits", "server"), ("httpx", "client")])
def test_what_an_extra_brings_is_named(package: str, extra: str, tmp_path: Path) -> None:
    """A plain install has no server: the command says which extra it needs."""
    commands = {"uvicorn": ["serve"], "limits": ["user", "create", "bob"], "httpx": ["connection", "list"]}
    code = (
        f"import sys; sys.modules[{package!r}] = None; from dblens.cli import run; sys.exit(run({commands[package]!r}))"
    )
    environment = {
        **os.environ,
        "DBLENS_DATA_FOLDER": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    if package == "httpx":
        environment |= {"DBLENS_URL": "http://127.0.0.1:1", "DBLENS_TOKEN": "x"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == errors.Unsupported.exit, done.stderr
    assert f"dblens[{extra}]" in done.stderr
