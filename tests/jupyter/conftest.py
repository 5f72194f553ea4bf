"""A person with a folder, connections of their own, and a kernel that has `%%dblens`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")
pytest.importorskip("ipykernel")
ROOT = Path(__file__).resolve().parents[2]


class Person:
    """A folder with a SQLite shop, and the environment of programs that work there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known = folder, set[str]()
        self.env = {
            **os.environ,
            "DBLENS_DATA_FOLDER": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
            "JUPYTER_DATA_DIR": str(folder / "jupyter-data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "jupyter-run"),
        }
        path = folder / "shop.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute("create table customers (id integer primary key, name text, city text)")
            db.execute("create table orders (id integer primary key, customer_id integer, placed text, total real)")
            db.execute('create table "odd name" ("Mixed Case" text)')
            db.executemany(
                "insert into customers values (?,?,?)", [(1, "Ann", "Bern"), (2, "<b>Bob</b>", None), (3, "", "Rom")]
            )
            db.executemany(
                "insert into orders values (?,?,?,?)",
                [(n, n % 3 + 1, f"2026-01-{n:02}", n * 1.5) for n in range(1, 29)]
                + [(9007199254740993, 1, "2026-02-01", 0.1)],
            )
            db.commit()
        self.connect("shop", f"sqlite:///{path}")

    def connect(self, name: str, url: str, password: str | None = None) -> None:
        """Keep a connection, its password apart from its address; once, whichever test asks first."""
        if name in self.known:
            return
        self.known.add(name)
        url = url.replace(f":{password}@", "@")
        given = ["--password-env", "GIVEN"] if password is not None else []
        subprocess.run(
            [sys.executable, "-m", "dblens", "connection", "create", name, "--url", url, *given],
            env={**self.env, "GIVEN": password or ""}, check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip


class Kernel:
    """A real kernel: what a cell shows, what is offered at a place."""

    def __init__(self, person: Person) -> None:
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=person.env, cwd=str(person.folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.run("%load_ext dblens.jupyter")

    def begin(self, code: str) -> str:
        """Send a cell, and return its message's id."""
        return str(self.client.execute(code))

    def end(self, message: str, timeout: float = 60) -> list[dict[str, Any]]:
        """Return what a cell showed, once it is over."""
        found, ends = [], time.monotonic() + timeout
        while True:
            told = self.client.get_iopub_msg(timeout=max(0.1, ends - time.monotonic()))
            if told["parent_header"].get("msg_id") != message:
                continue
            if told["msg_type"] == "status" and told["content"]["execution_state"] == "idle":
                return found
            if told["msg_type"] in ("stream", "execute_result", "display_data", "error"):
                found.append(told["content"])

    def run(self, code: str) -> list[dict[str, Any]]:
        return self.end(self.begin(code))

    def text(self, code: str) -> str:
        """Return what a cell showed as text."""
        return "".join(
            each.get("text") or each.get("data", {}).get("text/plain") or "\n".join(each.get("traceback", ()))
            for each in self.run(code)
        )

    def offered(self, code: str) -> tuple[list[str], str]:
        """Return what is offered at `|`, and what it would replace."""
        at = code.index("|")
        code = code[:at] + code[at + 1 :]
        message = self.client.complete(code, at)
        while True:
            reply = self.client.get_shell_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == message:
                content = reply["content"]
                return content["matches"], code[content["cursor_start"] : content["cursor_end"]]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="session")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return Person(tmp_path_factory.mktemp("person"))


@pytest.fixture
def kernel(person: Person) -> Iterator[Kernel]:
    made = Kernel(person)
    yield made
    made.close()


def until(what: Callable[[], bool], seconds: float) -> float:
    """Return the seconds until something is so; fail when it is not so in time."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds, "it did not come about in time"
        time.sleep(0.02)
    return time.monotonic() - begun
