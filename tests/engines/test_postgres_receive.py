"""COPY's rows in C and by the driver: the same rows, and the same end whatever happens on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest

from dblens.engines.postgres import libpq
from dblens.engines.postgres.link import BLOCK, Link
from dblens.errors import Cancelled, ConnectionFailed, QueryFailed
from dblens.values import speed
from dblens.values.digest import Accumulator
from dblens.values.packed import Packed
from dblens.workspace import migrations
from tests.servers import Postgres

Open = Callable[[], Link]
IN_C = sys.platform == "linux" and speed.implementation == "c"
LONG = 120_000
STUCK = "SELECT repeat('x', 20000), CASE WHEN g = 2 THEN pg_sleep(30) END FROM generate_series(1, 2) g"
"""The server sends what fills its buffer, then nothing for half a minute."""


@pytest.fixture(params=["c", "driver"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "driver":
        monkeypatch.setattr(libpq, "receiver", lambda: None)
    elif not IN_C:
        pytest.skip("rows come by the driver here")
    return str(request.param)


@pytest.fixture
def opened(way: str, pg15: Postgres) -> Iterator[Open]:
    url = pg15.create_database()
    links: list[Link] = []

    def connect() -> Link:
        session: Any = migrations.link(url, allow_password=True).connect()
        links.append(session._link)
        return links[-1]

    yield connect
    for link in links:
        link.close()


@pytest.fixture
def link(opened: Open) -> Link:
    return opened()


def copied(link: Link, query: str, options: str = "") -> list[Packed]:
    return list(link.copy_rows(f"COPY ({query}) TO STDOUT {options}", "reading a test"))


def usable(link: Link) -> bool:
    return link.one("SELECT 1") == (1,) and not link.in_transaction


def test_c_reads_where_it_can() -> None:
    assert (libpq.receiver() is not None) == IN_C


# ---- whole readings


def test_rows_come_whole_and_in_blocks(link: Link) -> None:
    blocks = copied(link, f"SELECT g, repeat('x', g % 900) FROM generate_series(1, {LONG // 40}) g")
    rows = [bytes(r) for block in blocks for r in block]
    assert rows == [f"{g}\t{'x' * (g % 900)}\n".encode() for g in range(1, LONG // 40 + 1)]
    assert b"".join(b.data for b in blocks) == b"".join(rows)
    assert all(BLOCK <= len(b.data) < BLOCK + 1000 for b in blocks[:-1])
    assert usable(link)


def test_both_ways_give_the_same_blocks(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    query = f"SELECT g, g::numeric / 7, repeat('ä', g % 50), NULL FROM generate_series(1, {LONG}) g"
    here = copied(link, query, "(FORMAT binary)")
    monkeypatch.setattr(libpq, "receiver", lambda: None)
    there = copied(link, query, "(FORMAT binary)")
    assert [(b.data, b.ends.tolist(), b.begin) for b in here] == [(b.data, b.ends.tolist(), b.begin) for b in there]
    assert sum(map(len, here)) == LONG + 1


def test_no_rows(link: Link) -> None:
    assert copied(link, "SELECT 1 WHERE false") == []
    (block,) = copied(link, "SELECT 1 WHERE false", "(FORMAT binary)")
    assert block.data[-2:] == b"\xff\xff"
    assert len(block.data) == 21
    assert usable(link)


def test_a_row_of_100_megabytes(link: Link) -> None:
    size = 100_000_000
    sizes = [len(r) for b in copied(link, f"SELECT repeat('x', n) FROM (VALUES (3), ({size}), (5)) v (n)") for r in b]
    assert sizes == [4, size + 1, 6]
    (first, second) = copied(link, f"SELECT repeat('y', n) FROM (VALUES ({size}), (5)) v (n)")
    assert first.data == b"y" * size + b"\n"
    assert second.data == b"yyyyy\n"
    assert usable(link)


def test_rows_that_trickle_in_stay_one_block(link: Link) -> None:
    # Longer between rows than C waits: what came so far is kept.
    query = "SELECT repeat('x', 9000), g, pg_sleep(0.4) FROM generate_series(1, 4) g"
    (block,) = copied(link, query)
    assert [bytes(r[9000:]) for r in block] == [b"\t1\t\n", b"\t2\t\n", b"\t3\t\n", b"\t4\t\n"]
    assert len(copied(link, query, "(FORMAT binary)")) == 1


def test_three_at_once(opened: Open) -> None:
    query = f"SELECT g, md5(g::text) FROM generate_series(1, {LONG}) g"
    found: list[Any] = []

    def read(link: Link) -> None:
        sums = Accumulator()
        for _ in range(3):
            for rows in link.copy_rows(f"COPY ({query}) TO STDOUT", "reading a test"):
                speed.digest_lines(rows, sums)
        found.append(sums.fingerprint())

    threads = [threading.Thread(target=read, args=(opened(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert found[0].total.count == 3 * LONG


# ---- broken readings


@pytest.mark.parametrize("within", [False, True])
def test_an_error_in_the_middle(link: Link, within: bool) -> None:
    query = f"SELECT g, 1 / (g - {LONG}) FROM generate_series(1, {LONG + 5}) g"
    with link.transaction() if within else nullcontext(), pytest.raises(QueryFailed, match="division by zero"):
        copied(link, query)
    assert usable(link)


@pytest.mark.parametrize("within", [False, True])
def test_closing_early(link: Link, within: bool) -> None:
    rows = link.copy_rows("COPY (SELECT generate_series(1, 100000000)) TO STDOUT", "reading a test")
    start = time.monotonic()
    with link.transaction() if within else nullcontext():
        with closing(rows):
            assert len(next(rows)) > 1000
        assert link.one("SELECT 1") == (1,)
    assert time.monotonic() - start < 10
    assert usable(link)


def test_a_terminated_connection(link: Link, opened: Open) -> None:
    rows = link.copy_rows("COPY (SELECT generate_series(1, 100000000)) TO STDOUT", "reading a test")
    next(rows)
    pid = link.db.info.backend_pid
    assert opened().one("SELECT pg_terminate_backend($1)", [pid]) == (True,)
    with pytest.raises(ConnectionFailed, match="reading a test"):
        list(rows)


def test_a_cut_connection(link: Link) -> None:
    rows = link.copy_rows("COPY (SELECT generate_series(1, 100000000)) TO STDOUT", "reading a test")
    next(rows)
    with socket.socket(fileno=os.dup(link.db.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionFailed, match="reading a test"):
        list(rows)


def _soon(work: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.3, work)
    timer.start()
    return timer


def test_cancelling_from_another_thread(link: Link) -> None:
    start = time.monotonic()
    timer = _soon(link.cancel)
    with pytest.raises(Cancelled):
        copied(link, STUCK)
    timer.join()
    assert time.monotonic() - start < 10
    assert usable(link)


def test_an_interrupt_while_it_waits(link: Link) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(KeyboardInterrupt):
            copied(link, STUCK)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 10
    assert usable(link)


def test_other_threads_run_while_it_waits(link: Link) -> None:
    ticks: list[float] = []
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        copied(link, STUCK.replace("30", "1"))
    finally:
        ended.set()
        thread.join()
    assert len(ticks) > 20


def test_closing_from_another_thread(way: str, link: Link) -> None:
    if way == "driver":
        pytest.skip("only what reads without the interpreter's lock has to be waited for")
    start = time.monotonic()
    timer = _soon(link.close)
    with pytest.raises(ConnectionFailed, match="closed during reading a test"):
        copied(link, STUCK)
    timer.join()
    assert time.monotonic() - start < 5


# ---- which library


@pytest.mark.skipif(not IN_C, reason="rows come by the driver here")
def test_only_a_library_that_is_certain() -> None:
    from psycopg import pq

    module: Any = speed.module
    name = libpq._where()
    assert name is not None
    assert module.libpq(os.fsencode(name), pq.version()) is not None
    assert module.libpq(os.fsencode(name), pq.version() + 1) is None
    assert module.libpq(b"libc.so.6", pq.version()) is None, "a library without these functions"
    assert module.libpq(b"/nowhere/libpq.so.5", pq.version()) is None, "a library that is not loaded"
    with pytest.raises(ValueError, match="no connection"):
        module.receive(module.libpq(os.fsencode(name), pq.version()), 0, -1, 1, b"", b"")
    with pytest.raises(ValueError, match="PyCapsule"):
        module.receive(1, 1, -1, 1, b"", b"")


@pytest.mark.skipif(not IN_C, reason="rows come by the driver here")
@pytest.mark.parametrize(
    ("scope", "found"), [("RTLD_LOCAL", True), ("RTLD_GLOBAL", False)], ids=["beside it", "before it"]
)
def test_another_libpq_in_the_process(scope: str, found: bool) -> None:
    """One that other modules loaded for themselves is not looked at; one in front of all makes it uncertain which is called."""
    script = (
        "import ctypes, psycopg\n"
        "from psycopg import pq\n"
        "if pq.__impl__ == 'python': raise SystemExit('same')\n"
        f"try: other = ctypes.CDLL('libpq.so.5', ctypes.{scope})\n"
        "except OSError: raise SystemExit('none')\n"
        "from dblens.engines.postgres import libpq\n"
        "print(libpq.receiver() is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        assert done.stderr.strip() in ("same", "none"), done.stderr
        pytest.skip("there is no second libpq here")
    assert done.stdout.strip() == str(found)


@pytest.mark.skipif(not IN_C, reason="rows come by the driver here")
def test_the_drivers_python_implementation(pg15: Postgres) -> None:
    script = (
        "import sys\n"
        "try: import psycopg\n"
        "except ImportError: raise SystemExit('none')\n"
        "from dblens.engines.postgres import libpq\n"
        "from dblens.workspace import migrations\n"
        "link = migrations.link(sys.argv[1], allow_password=True).connect()._link\n"
        "sql = 'COPY (SELECT g FROM generate_series(1, 200000) g) TO STDOUT'\n"
        "print(psycopg.pq.__impl__, libpq.receiver() is not None, sum(map(len, link.copy_rows(sql, 'a test'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, pg15.create_database()],
        env={**os.environ, "PSYCOPG_IMPL": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.strip() == "none":
        pytest.skip("there is no libpq of the system here")
    assert done.stdout.split() == ["python", "True", "200000"], done.stderr
