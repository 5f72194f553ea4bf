"""kill -9 at random points, per route family and mode: only kills with progress count, and every run is finished before it is judged.

A run is started in its own process, killed after a random number of its events, resumed (and killed again) until it ends; then source and
target must be the same multiset, and the target is rolled back for the next round.
"""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

import dblens
from dblens.errors import NotFound
from dblens.migrate import model
from dblens.migrate.link import Link, link
from dblens.migrate.options import Options
from tests.servers import Mongo, Server
from tests.servers.fixtures import require

ROWS = 6_000
CHUNK = 250
STALL = 90.0
"""Seconds without a word after which something hangs."""
FAMILIES = {
    "pgbinary": ("pg15", "pg15"),
    "pgtext": ("mariadb", "pg15"),
    "mytext": ("pg15", "mariadb"),
    "rows to a file": ("pg15", "sqlite"),
    "rows to documents": ("sqlite", "mongo"),
    "file to server": ("sqlite", "pg15"),
}


def _link(url: str) -> Link:
    return link(url, allow_password=True)


def fill(url: str) -> None:
    """Make the source: a keyed table with awkward text, and one without a key that has duplicates."""
    side = _link(url)
    text = {"sqlite": "text", "postgresql": "text", "mysql": "varchar(200)"}[side.engine.name]
    with closing(side.connect(create=True)) as session:
        session.execute(f"create table item (id bigint primary key, name {text}, price decimal(10,2), seen {text})")
        session.execute(f"create table event (kind int, note {text})")
        for start in range(0, ROWS, 1000):
            values = ", ".join(
                f"({i}, 'näme {i} ''x''', {i % 1000}.{i % 100:02d}, {'null' if i % 5 == 0 else repr(str(i))})"
                for i in range(start, start + 1000)
            )
            session.execute(f"insert into item values {values}")
            values = ", ".join(f"({i % 7}, 'note {i % 50}')" for i in range(start, start + 500))
            session.execute(f"insert into event values {values}")


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Yield what a worker says, None when it says nothing for STALL seconds."""
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def listen() -> None:
        assert process.stdout
        for line in process.stdout:
            said.put(line)
        said.put(None)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    while True:
        try:
            line = said.get(timeout=STALL)
        except queue.Empty:
            yield None
            return
        if line is None:
            listener.join()
            return
        yield line


class Story:
    """Rounds of one migration that is killed over and over."""

    def __init__(self, family: str, mode: str, folder: Path, seed: int) -> None:
        left, right = (require(kind) for kind in FAMILIES[family])
        self.source_url, self.target_url = left.create_database(), right.create_database()
        self.servers: list[Server] = [left, right]
        fill(self.source_url)
        self.mode = mode
        self.plan_file = folder / "plan.json"
        self.random = random.Random(seed)
        self.kills = self.rounds = self.stalls = 0
        self.most = {"apply": 60, "resume": 60}
        """Lines after which a worker is killed at the latest; no more than one says that is left alone, or it would seldom be."""
        self.options = msgspec.convert(
            {"mode": mode, "chunk_rows": CHUNK, "create_target": FAMILIES[family][1] == "sqlite"}, Options
        )

    def plan(self) -> model.Plan:
        plan = dblens.open().migrations.plan(_link(self.source_url), _link(self.target_url), self.options)
        assert not plan.blocks, plan.blocks
        self.plan_file.write_text(model.write(plan))
        return plan

    def start(self, do: str, run: str, resume_mode: str) -> subprocess.Popen[str]:
        job = {"do": do, "run": run, "mode": resume_mode, "plan": str(self.plan_file)}
        job |= {"source": self.source_url, "target": self.target_url}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "DBLENS_FAULT_JOB": json.dumps(job)},
        )

    def known(self, run: str) -> str | None:
        """The state that the target remembers, None when it knows nothing of the run."""
        try:
            found = [s.state for s in dblens.open().migrations.status(_link(self.target_url)) if s.id == run]
        except NotFound:
            return None
        return found[0] if found else None

    def round(self, resume_mode: str, mutate: Callable[[], None] | None) -> None:
        """One migration to its end, killed up to five times on the way."""
        plan = self.plan()
        do = "apply"
        for attempt in range(6):
            process = self.start(do, plan.id, resume_mode)
            assert process.stdout
            assert process.stderr
            limit = self.random.randrange(1, self.most[do]) if attempt < 5 else 10**9
            progress, copied, stalled = False, False, False
            for n, line in enumerate(_lines(process), start=1):
                if line is None:
                    stalled = True
                    self.unstick(process)
                    break
                copied = copied or line.startswith("progress copy")
                if n >= limit and copied:
                    time.sleep(self.random.random() * 0.01)
                    process.kill()
                    progress = True
                    break
            errors = process.stderr.read()
            code = process.wait()
            if not progress and not stalled:
                assert code == 0, (attempt, errors[-3000:])
                self.most[do] = max(2, min(self.most[do], n))
                break
            if code == -9:
                self.kills += 1
            state = self.known(plan.id)
            self.ledger_equals_rows(plan, state)
            if mutate is not None and state not in (None, "swapping", "swapped"):
                mutate()  # once the swap has begun nothing is read again, so later writes are not its business
            do = "resume" if state is not None else "apply"
        self.rounds += 1
        verdict = dblens.open().migrations.verify(_link(self.source_url), _link(self.target_url))
        assert verdict.equal, verdict
        self.counts(plan)
        dblens.open().migrations.rollback(_link(self.target_url), plan.id)

    def unstick(self, process: subprocess.Popen[str]) -> None:
        """Kill a worker that hangs, and the server it waits for: SecantusDB may retry a write conflict for ever after kills."""
        server = self.servers[1]
        assert isinstance(server, Mongo), f"no sign of life for {STALL} s, waiting for {server}"
        process.kill()
        server.kill()
        server.restart()
        self.stalls += 1

    def ledger_equals_rows(self, plan: model.Plan, state: str | None) -> None:
        """After every kill the staged rows are exactly those that the ledger lists."""
        if state != "copying" or self.mode != "ledger" or self.target_url.startswith("sqlite"):
            return
        with closing(_link(self.target_url).connect()) as session:
            if session.engine.facts.documents:
                return  # the ledger line follows the documents there; the next load of the chunk settles it
            ledger = session.ledger(plan.id)
            for table in plan.tables:
                listed = sum(c.rows or 0 for c in ledger if c.table == table.staged)
                assert session.count(table.at(table.staged)) == listed, (table.name, listed)

    def counts(self, plan: model.Plan) -> None:
        """The plain count, asked of both sides, for whom a digest is not enough."""
        with closing(_link(self.source_url).connect()) as left, closing(_link(self.target_url).connect()) as right:
            for table in plan.tables:
                assert left.count(table.source) == right.count(table.at(table.live))


def play(family: str, mode: str, folder: Path, kills: int, *, relaxed: bool = False) -> Story:
    seed = int(os.environ.get("DBLENS_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    print(f"seed {seed}")
    story = Story(family, mode, folder, seed)
    tick = 0

    def mutate() -> None:
        nonlocal tick
        tick += 1
        with closing(_link(story.source_url).connect()) as session:
            session.execute(f"update item set name = 'changed {tick}' where id % 97 = {tick % 97}")
            session.execute(f"delete from item where id % 503 = {tick % 503}")
            session.execute(f"insert into item values ({100_000 + tick}, 'new', 1.00, null)")
            session.execute(f"insert into event values ({tick % 7}, 'late')")

    while story.kills < kills:
        story.round("relaxed" if relaxed else "strict", mutate if relaxed else None)
    print(
        f"{family}, {mode}: {story.kills} kills with progress in {story.rounds} migrations, {story.stalls} stalls of the server"
    )
    return story


@pytest.mark.parametrize("mode", ["fast", "ledger"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kill_nine_leaves_an_exact_multiset(family: str, mode: str, tmp_path: Path) -> None:
    assert play(family, mode, tmp_path, 20).kills >= 20


@pytest.mark.parametrize("family", FAMILIES)
def test_relaxed_resume_follows_a_source_that_is_written(family: str, tmp_path: Path) -> None:
    assert play(family, "ledger", tmp_path, 5, relaxed=True).kills >= 5


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", ["fast", "ledger"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kill_nine_two_hundred_times(family: str, mode: str, tmp_path: Path) -> None:
    assert play(family, mode, tmp_path, 200).kills >= 200
