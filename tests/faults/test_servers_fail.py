"""Servers that restart, connections that break, replies that are lost, disks that fill: old or new, and exact in the end."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dblens
from dblens.errors import Conflict, ConnectionFailed, DBLensError, EngineError, StalePlan
from dblens.migrate.options import Options
from tests.faults.steady import (
    Stopped,
    Strike,
    apply,
    content,
    every_block,
    fails,
    fill,
    judged_equal,
    live_tables,
    open_link,
    plan,
    resume,
    run_sql,
    states,
    stop,
)
from tests.servers import Postgres, Proxy, Server, ServerProcess
from tests.servers.fixtures import require
from tests.servers.folders import temp_root

__all__ = ["every_block"]

New = Callable[..., str]
PAIRS = [("pg15", "pg18"), ("mariadb", "pg15"), ("pg15", "mariadb")]


def process(kind: str) -> ServerProcess:
    server = require(kind)
    assert isinstance(server, ServerProcess)
    return server


@pytest.fixture
def pair(request: pytest.FixtureRequest, new_database: New) -> tuple[Server, str, Server, str]:
    """Source server and filled database, target server and empty database."""
    left, right = (require(kind) for kind in request.param)
    source, target = new_database(left), new_database(right)
    fill(source)
    return left, source, right, target


def pairs(*kinds: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", kinds, indirect=True, ids=[f"{a}-{b}" for a, b in kinds])


Pair = tuple[Server, str, Server, str]


# --------------------------------------------------------------------------------------------------------------- a restart


@pairs(*PAIRS)
@pytest.mark.parametrize(
    ("side", "mode", "how"),
    [("source", "ledger", "relaxed"), ("target", "ledger", "relaxed"), ("target", "fast", "strict")],
)
def test_a_server_restarts_in_the_middle_of_the_copy(
    pair: Pair, side: str, mode: str, how: str, every_block: None
) -> None:
    left, source, right, target = pair
    made = plan(source, target, mode=mode, chunk_rows=700)
    server = left if side == "source" else right
    strike = Strike(server.kill, at=1 if mode == "fast" else 4)
    error = fails(lambda: apply(made, source, target, strike))
    assert strike.struck
    assert isinstance(error, EngineError), error
    server.start()
    assert live_tables(target) == set()
    assert states(target) == {made.id: "copying"}
    outcome = resume(made, source, target, how)
    assert outcome.equal
    assert outcome.state == "swapped"
    judged_equal(source, target)
    dblens.open().migrations.rollback(open_link(target), made.id)
    assert live_tables(target) == set()
    assert states(target) == {}


@pairs(*PAIRS)
def test_the_target_restarts_before_the_swap(pair: Pair) -> None:
    _, source, right, target = pair
    made = plan(source, target)
    strike = Strike(right.kill, step="swap")
    fails(lambda: apply(made, source, target, strike))
    right.start()
    assert live_tables(target) == set()
    assert states(target)[made.id] in ("verified", "swapping")
    assert resume(made, source, target, "strict").equal
    judged_equal(source, target)


# ------------------------------------------------------------------------------------------------- connections that break


@pairs(*PAIRS)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_connection_is_cut_in_the_middle_of_a_chunk(pair: Pair, side: str) -> None:
    left, source, right, target = pair
    made = plan(source, target, mode="ledger", chunk_rows=2000)
    server = left if side == "source" else right
    assert isinstance(server, ServerProcess)
    with Proxy(server.address) as proxy:
        through = (proxy.url(source), target) if side == "source" else (source, proxy.url(target))
        cut = Strike(lambda: proxy.cut_after(60_000, "down" if side == "source" else "up"), at=1)
        error = fails(lambda: apply(made, *through, cut))
        assert isinstance(error, EngineError), error
    assert live_tables(target) == set()
    assert resume(made, source, target, "relaxed").equal
    judged_equal(source, target)


COMMITS = {"postgresql": b"COMMIT", "mysql": b"commit"}


@pairs(("pg15", "pg18"), ("pg15", "mariadb"), ("mariadb", "pg15"))
@pytest.mark.parametrize("how", ["strict", "relaxed"])
def test_the_acknowledgement_of_a_commit_is_lost(pair: Pair, how: str) -> None:
    """The server has committed the chunk and the client cannot know: it must end up there exactly once."""
    _, source, right, target = pair
    assert isinstance(right, ServerProcess)
    made = plan(source, target, mode="ledger", chunk_rows=700)
    with Proxy(right.address) as proxy:
        strike = Strike(lambda: proxy.lose_reply_after(COMMITS[target.partition(":")[0]]), at=3)
        try:
            outcome = apply(made, source, proxy.url(target), strike)
        except ConnectionFailed:
            assert states(target) == {made.id: "copying"}
            assert live_tables(target) == set()
            outcome = resume(made, source, target, how)
        assert proxy.reply_lost.is_set()
    assert outcome.equal
    judged_equal(source, target)


@pairs(("mariadb", "pg15"), ("pg15", "mariadb"))
@pytest.mark.parametrize("step", ["swap", "verify"])
def test_the_acknowledgement_of_the_swap_is_lost(pair: Pair, step: str) -> None:
    _, source, right, target = pair
    assert isinstance(right, ServerProcess)
    made = plan(source, target)
    with Proxy(right.address) as proxy:
        strike = Strike(lambda: proxy.lose_reply_after(COMMITS[target.partition(":")[0]]), step=step)
        try:
            outcome = apply(made, source, proxy.url(target), strike)
        except ConnectionFailed:
            seen = live_tables(target)
            assert seen in (set(), {"item", "event"})
            if states(target)[made.id] == "swapped":
                assert seen == {"item", "event"}
            outcome = resume(made, source, target, "strict")
        assert strike.struck
    assert outcome.equal
    assert outcome.state == "swapped"
    judged_equal(source, target)
    dblens.open().migrations.rollback(open_link(target), made.id)
    assert live_tables(target) == set()


# --------------------------------------------------------------------------------------------------------- two at one target


@pytest.mark.parametrize("kind", ["pg15", "mariadb", "sqlite", "mongo"])
def test_two_migrations_of_one_target(kind: str, new_database: New) -> None:
    """The second is refused with the holder's name, whatever it wants to do; the first ends as if nothing had been."""
    source, target = new_database(require("pg15")), new_database(require(kind))
    fill(source, 2000)
    existing = "replace" if kind == "sqlite" else "refuse"
    first, second = (plan(source, target, mode="ledger", chunk_rows=300, existing=existing) for _ in range(2))
    refused: list[DBLensError] = []

    def intrude() -> None:
        refused.append(fails(lambda: apply(second, source, target)))
        refused.append(fails(lambda: resume(first, source, target, "strict")))
        refused.append(fails(lambda: dblens.open().migrations.rollback(open_link(target), first.id)))

    def from_another_thread() -> None:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()

    outcome = apply(first, source, target, Strike(from_another_thread, at=3))
    assert len(refused) == 3
    for error in refused:
        assert isinstance(error, Conflict), error
        assert f"pid {os.getpid()}" in error.message, error
        assert error.hint
    assert outcome.equal
    assert states(target) == {first.id: "swapped"}
    judged_equal(source, target)


# ------------------------------------------------------------------------------------------------------- a source that moves


@pytest.mark.parametrize(("left", "right"), [("pg15", "mariadb"), ("mariadb", "pg15"), ("sqlite", "pg15")])
def test_a_source_altered_after_the_plan(left: str, right: str, new_database: New) -> None:
    source, target = new_database(require(left)), new_database(require(right))
    fill(source, 1000)
    made = plan(source, target)
    run_sql(source, "alter table item add column extra int")
    with pytest.raises(StalePlan, match="source"):
        apply(made, source, target)
    assert states(target) == {}
    assert live_tables(target) == set()
    made = plan(source, target, mode="ledger", chunk_rows=100)
    with pytest.raises(Stopped):
        apply(made, source, target, Strike(stop))
    run_sql(source, "alter table item drop column extra")
    with pytest.raises(StalePlan, match="source"):
        resume(made, source, target, "relaxed")
    dblens.open().migrations.rollback(open_link(target), made.id)
    assert (states(target), live_tables(target)) == ({}, set())


def test_a_target_altered_after_the_plan(new_database: New) -> None:
    source, target = new_database(require("mariadb")), new_database(require("pg15"))
    fill(source, 1000)
    made = plan(source, target)
    run_sql(target, "create table newcomer (a int)", "insert into newcomer values (1)")
    with pytest.raises(StalePlan, match="target"):
        apply(made, source, target)
    assert live_tables(target) == {"newcomer"}
    assert run_sql(target, "select a from newcomer") == [(1,)]


@pairs(("pg15", "mariadb"), ("mariadb", "pg15"), ("pg15", "pg18"))
def test_rows_written_after_the_plan_come_along(pair: Pair) -> None:
    """The plan counts, it does not copy: what is there at the copy's instant is what arrives."""
    _, source, _, target = pair
    made = plan(source, target)
    run_sql(
        source,
        "insert into item values (999999, 'late', 1.25)",
        "delete from item where id < 10",
        "insert into event values (1, 'late')",
    )
    outcome = apply(made, source, target)
    assert outcome.rows == made.rows + 1 - 10 + 1
    judged_equal(source, target)


def churn(source: str, tick: int) -> None:
    """Write everywhere: chunks that are done, chunks to come, new keys, keys that go, rows without a key."""
    run_sql(
        source,
        f"update item set name = 'changed {tick}' where id in ({tick}, {tick + 3000}, 5999)",
        f"update item set price = price + 1 where id = {tick + 1500}",
        f"delete from item where id in ({tick + 40}, {tick + 4000})",
        f"insert into item values ({100_000 + tick}, 'new', 1.00), ({-1 - tick}, 'first', 2.00)",
        f"insert into event values ({tick % 7}, 'late')",
        f"delete from event where note = 'note {tick % 50}'",
    )


@pairs(*PAIRS)
@pytest.mark.parametrize("how", ["strict", "relaxed"])
def test_a_source_written_while_a_run_is_stopped_and_resumed(pair: Pair, how: str) -> None:
    _, source, _, target = pair
    made = plan(source, target, mode="ledger", chunk_rows=500)
    with pytest.raises(Stopped):
        apply(made, source, target, Strike(stop, at=5))
    churn(source, 1)
    with pytest.raises(Stopped):
        resume(made, source, target, how, Strike(stop, at=3))
    churn(source, 2)
    outcome = resume(made, source, target, how)
    assert outcome.equal
    judged_equal(source, target)


@pairs(("pg15", "pg18"), ("mariadb", "pg15"))
def test_a_source_written_during_a_run_is_read_as_of_one_instant(pair: Pair) -> None:
    """Writers do not disturb: the target is the source at the snapshot, both tables of the same instant."""
    _, source, _, target = pair
    made = plan(source, target, mode="ledger", chunk_rows=500)
    with pytest.raises(Stopped):
        apply(made, source, target, Strike(stop, at=4))
    churn(source, 1)
    before = {table: content(source, table) for table in ("item", "event")}
    outcome = resume(made, source, target, "relaxed", Strike(lambda: churn(source, 2), at=1))
    assert outcome.equal
    assert {table: content(target, table) for table in ("item", "event")} == before
    assert content(source, "item") != before["item"]


# ------------------------------------------------------------------------------------------------------------ a full disk


@pytest.fixture
def tiny() -> Iterator[Path]:
    """A file system of 12 MiB that a server's account can reach."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = Path(tempfile.mkdtemp(prefix="dblens-tiny-", dir=temp_root()))
    place.chmod(0o755)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=777", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        place.rmdir()
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
    place.rmdir()


def leave(place: Path, octets: int) -> Path:
    """Fill a file system until so much is left."""
    filler = place / "filler"
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, free - octets))
    return filler


@pytest.mark.parametrize("mode", ["fast", "ledger"])
def test_the_disk_fills_up_under_sqlite(mode: str, tiny: Path, new_database: New) -> None:
    source = new_database(require("pg15"))
    fill(source, 8000, 200)
    target = f"sqlite:///{tiny / 'target.db'}"
    run_sql(target, "create table precious (a int)", "insert into precious values (42)")
    made = plan(source, target, mode=mode, chunk_rows=1000)
    filler = leave(tiny, 600_000)
    error = fails(lambda: apply(made, source, target))
    assert isinstance(error, EngineError), error
    assert "full" in error.message.lower() or "space" in error.message.lower(), error
    assert live_tables(target) == {"precious"}
    assert run_sql(target, "select a from precious") == [(42,)]
    filler.unlink()
    known = states(target)
    outcome = resume(made, source, target, "strict") if made.id in known else apply(made, source, target)
    assert outcome.equal
    assert content(source, "item") == content(target, "item")
    assert run_sql(target, "select a from precious") == [(42,)]


def test_a_plan_says_that_the_disk_is_too_small(tiny: Path, new_database: New) -> None:
    source = new_database(require("mariadb"))
    fill(source, 8000, 200)
    target = f"sqlite:///{tiny / 'x.db'}"
    run_sql(target, "create table other (a int)")
    leave(tiny, 100_000)
    made = dblens.open().migrations.plan(open_link(source), open_link(target), Options())
    assert made.cost.target_free is not None
    assert made.cost.target_free < 200_000
    assert [b.kind for b in made.blocks] == ["disk"]


def test_the_disk_fills_up_under_postgres(tiny: Path, new_database: New) -> None:
    source = new_database(require("mariadb"))
    fill(source, 8000, 300)
    with Postgres(15) as server:
        os.chown(tiny, server.account.uid, server.account.gid)
        tiny.chmod(0o700)
        with server.connect() as db:
            db.execute(f"create tablespace tiny location '{tiny}'")
        target = server.create_database(options="TABLESPACE tiny")
        made = plan(source, target)
        filler = leave(tiny, 900_000)
        error = fails(lambda: apply(made, source, target))
        assert isinstance(error, EngineError), error
        assert "space" in error.message.lower() or "extend" in error.message.lower(), error
        filler.unlink()
        assert live_tables(target) == set()
        assert resume(made, source, target, "strict").equal
        judged_equal(source, target)
