"""Several processes add to one audit; one is killed in the middle: no gap, every link holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from dblens.store import audit as chain
from dblens.store.database import Store
from dblens.store.tables import audit
from tests.servers.fixtures import require

ROOT = Path(__file__).resolve().parents[2]
KEY = b"k" * 32
WRITER = """
import os, sys
from dblens.store import audit
from dblens.store.audit import Entry
from dblens.store.database import Store
from dblens.store.records import now
store, name, count, size = Store.open(os.environ["STORE"]), sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for n in range(count):
    with store.write() as tx:
        audit.append(tx, b"k" * 32, [Entry(at=now(), phase="read", action="a.b", actor=name, run_id=str(n)) for _ in range(size)])
    print(n, flush=True)
"""


@pytest.fixture(params=["sqlite", "pg15"])
def url(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[..., str]) -> str:
    return f"sqlite:///{tmp_path / 'store.sqlite'}" if request.param == "sqlite" else new_database(require("pg15"))


def writer(url: str, name: str, count: int, size: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, name, str(count), str(size)],
        cwd=ROOT,
        env={**os.environ, "STORE": url},
        stdout=subprocess.PIPE,
        text=True,
    )


def opened(url: str) -> Store:
    store = Store.open(url)
    store.create_all()
    return store


def test_four_processes_leave_one_chain_without_a_gap(url: str) -> None:
    store = opened(url)
    writers = [writer(url, f"w{n}", 25, 3) for n in range(4)]
    for process in writers:
        process.communicate(timeout=120)
        assert process.returncode == 0
    with store.snapshot() as tx:
        verdict = chain.verify(tx, KEY)
        counted = dict(tx.execute(sa.select(audit.c.actor, sa.func.count()).group_by(audit.c.actor)).all())
    store.close()
    assert (verdict.ok, verdict.rows, verdict.last) == (True, 300, 300)
    assert counted == {f"w{n}": 75 for n in range(4)}


def test_killed_in_the_middle_the_chain_is_whole_and_goes_on(url: str) -> None:
    store = opened(url)
    told = 0
    for attempt in range(4):
        process = writer(url, f"k{attempt}", 100_000, 40)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(3 + attempt):
            process.stdout.readline()
            told += 1
        time.sleep(0.003 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        told += sum(1 for line in process.stdout if line.endswith("\n"))
        process.wait()
        process.stdout.close()
        with store.snapshot() as tx:
            verdict = chain.verify(tx, KEY)
        assert verdict.ok, verdict
        assert verdict.rows % 40 == 0, "a batch is whole or not there"
        assert verdict.rows >= 40 * told, "what was told as written is there"
    with store.write() as tx:
        chain.append(tx, KEY, [chain.Entry(at=chain._EPOCH, phase="read", action="a.b")])
    with store.snapshot() as tx:
        assert chain.verify(tx, KEY).ok
    store.close()
