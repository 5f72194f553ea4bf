"""Revisions: they make exactly `tables.py`, go forward and back with rows in every table, and are done once or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dblens.errors import InvalidInput, StoreError
from dblens.store import upgrade as up
from dblens.store.database import Store
from dblens.store.revisions import __main__ as drafting
from dblens.store.tables import UtcTime, metadata
from tests.servers.fixtures import require
from tests.store.filled import content, fill

ROOT = Path(__file__).resolve().parents[2]

# A second revision as they will be: a table that others refer to is made anew on SQLite, a table is added, rows are changed.
NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "0003", "0002", None, None

def upgrade():
    op.create_table("extra", sa.Column("id", sa.String(32), sa.ForeignKey("users.id"), primary_key=True))
    op.execute("INSERT INTO extra SELECT id FROM users")
    with op.batch_alter_table("users") as batch:
        batch.add_column(sa.Column("note", sa.Text, nullable=False, server_default="-"))
        batch.alter_column("display", type_=sa.Text, existing_type=sa.String(255), existing_nullable=False)
    with op.batch_alter_table("organizations") as batch:
        batch.add_column(sa.Column("plan", sa.Text))

def downgrade():
    with op.batch_alter_table("organizations") as batch:
        batch.drop_column("plan")
    with op.batch_alter_table("users") as batch:
        batch.alter_column("display", type_=sa.String(255), existing_type=sa.Text, existing_nullable=False)
        batch.drop_column("note")
    op.drop_table("extra")
"""


MADE_AFTER = {"0001": ("queries_history", "queries_saved")}
"""Tables that are gone, with what is in them, in a store that went back to a revision."""


@pytest.fixture(params=["sqlite", "pg15"])
def url(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[..., str]) -> str:
    return (
        f"sqlite:///{tmp_path / 'a' / 'store.sqlite'}" if request.param == "sqlite" else new_database(require("pg15"))
    )


@pytest.fixture
def empty(url: str) -> Iterator[Store]:
    opened = Store.open(url)
    yield opened
    opened.close()


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The revisions and one more, in a folder whose name Alembic's configuration could trip over."""
    folder = tmp_path / "100% of:my revisions"
    shutil.copytree(up.REVISIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "r0003_next.py").write_text(NEXT)
    return folder


def test_revisions_make_exactly_the_tables(empty: Store) -> None:
    assert up.current(empty) is None
    assert up.upgrade(empty) == up.Moved(before=None, after=up.head())
    with empty.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        for table in metadata.tables.values():  # what Alembic does not compare
            there = sa.inspect(tx).get_pk_constraint(table.name)
            assert there["constrained_columns"] == [c.name for c in table.primary_key.columns]
            assert there["name"] == f"pk_{table.name}"
            names = {fk["name"] for fk in sa.inspect(tx).get_foreign_keys(table.name)}
            assert names == {fk.name for fk in table.foreign_key_constraints}
    assert all(finding.ok for finding in up.check(empty)), up.check(empty)


def test_every_revision_forward_and_back_with_rows_in_every_table(empty: Store) -> None:
    up.upgrade(empty)
    fill(empty)
    before = content(empty)
    for revision in reversed(up.revisions()[:-1]):
        up.downgrade(empty, revision)
        kept = before | {name: [] for name in MADE_AFTER.get(revision, ())}
        assert up.upgrade(empty).after == up.head()
        assert content(empty) == kept
    before = kept
    assert up.upgrade(empty) == up.Moved(before=up.head(), after=up.head())
    assert content(empty) == before
    assert up.downgrade(empty, "base").after is None
    with empty.read() as tx:
        assert set(sa.inspect(tx).get_table_names()) <= {"alembic_version"}
    up.upgrade(empty)
    assert all(finding.ok for finding in up.check(empty))


def test_a_table_that_others_refer_to_is_made_anew_without_losing_their_rows(
    empty: Store, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up.upgrade(empty)
    fill(empty)
    before = content(empty)
    monkeypatch.setattr(up, "REVISIONS", newer)
    assert up.upgrade(empty) == up.Moved(before="0002", after="0003")
    assert content(empty) == before
    with empty.write() as tx:
        assert tx.execute(sa.text("SELECT count(*) FROM extra")).scalar() == 3
        assert tx.execute(sa.text("SELECT DISTINCT note FROM users")).scalars().all() == ["-"]
        if tx.dialect.name == "sqlite":
            assert tx.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
            assert tx.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    assert up.downgrade(empty, "0002") == up.Moved(before="0003", after="0002")
    assert content(empty) == before
    monkeypatch.undo()
    assert all(finding.ok for finding in up.check(empty)), up.check(empty)


def test_a_store_of_a_newer_dblens(empty: Store, url: str, newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(up, "REVISIONS", newer)
        up.upgrade(empty)
    for act in (lambda: up.open_store(url), lambda: up.upgrade(empty), lambda: up.downgrade(empty, "0001")):
        with pytest.raises(StoreError, match=r"revision 0003, which this DBLens does not know") as caught:
            act()
        assert "newer DBLens" in (caught.value.hint or "")
    assert up.current(empty) == "0003"
    assert {f.what for f in up.check(empty) if not f.ok} == {"revision", "schema"}


def test_an_older_store_is_upgraded_on_purpose_only(
    empty: Store, url: str, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up.upgrade(empty)
    up.open_store(url).close()
    monkeypatch.setattr(up, "REVISIONS", newer)
    with pytest.raises(StoreError, match="has revision 0002, this DBLens needs 0003") as caught:
        up.open_store(url)
    assert "dblens store upgrade" in (caught.value.hint or "")
    assert up.current(empty) == "0002"


def test_a_new_store(url: str, empty: Store) -> None:
    if url.startswith("sqlite"):
        up.open_store(url).close()
        assert up.current(empty) == up.head()
    else:
        with pytest.raises(StoreError, match="has no tables"):
            up.open_store(url)


def test_somebody_elses_database_is_left_alone(empty: Store, url: str) -> None:
    with empty.write() as tx:
        tx.execute(sa.text("CREATE TABLE theirs (a INTEGER)"))
    with pytest.raises(StoreError, match="not a DBLens store: it holds 'theirs'"):
        up.open_store(url)


def test_the_next_revision_is_drafted_from_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "revisions"
    shutil.copytree(up.REVISIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(up, "REVISIONS", folder)
    changed = sa.MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(changed)
    changed.tables["users"].append_column(sa.Column("seen_at", UtcTime, nullable=True))
    sa.Index(None, changed.tables["users"].c.created_at)
    monkeypatch.setattr("dblens.store.tables.metadata", changed)
    made = drafting.main("Seen, and when")
    assert made == folder / "versions" / "r0003_seen_and_when.py"
    text = made.read_text()
    assert "sa.Column('seen_at', sa.BigInteger(), nullable=True)" in text
    assert "batch_op.create_index" in text
    assert "batch_op.drop_column('seen_at')" in text
    store = Store.open(f"sqlite:///{tmp_path / 's'}")
    assert up.upgrade(store).after == "0003"
    assert up.downgrade(store, "0002").after == "0002"
    store.close()


def test_an_unknown_revision_is_named(empty: Store) -> None:
    with pytest.raises(InvalidInput, match="no revision '0815'"):
        up.downgrade(empty, "0815")
    up.upgrade(empty)
    for odd in ("-1", "head", "heads", "0001:base", ""):
        with pytest.raises(InvalidInput):
            up.downgrade(empty, odd)


# ---------------------------------------------------------------------------------------------------------- other processes

ACT = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from dblens.store import upgrade as up
from dblens.store.database import Store
url, folder, kill_at, ready = sys.argv[1:]
up.REVISIONS = Path(folder)
store = Store.open(url)
seen = 0
@sa.event.listens_for(store.engine, "before_cursor_execute")
def count(*_):
    global seen
    seen += 1
    if seen == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
if ready:
    print("ready", flush=True)
    sys.stdin.readline()
print(up.upgrade(store).before, seen, flush=True)
"""


def _start(url: str, folder: Path, *, kill_at: int = 0, ready: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ACT, url, str(folder), str(kill_at), ready],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_of_several_processes_one_upgrades_and_the_others_find_it_done(url: str, newer: Path) -> None:
    several = [_start(url, newer, ready="yes") for _ in range(4)]
    for each in several:
        assert each.stdout is not None
        line = each.stdout.readline()
        assert line == "ready\n", each.communicate()
    for each in several:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    answers = [each.communicate(timeout=120) for each in several]
    assert [each.returncode for each in several] == [0] * 4, answers
    assert sorted(out.split()[0] for out, _ in answers) == ["0003", "0003", "0003", "None"]


@pytest.mark.parametrize("first", [False, True], ids=["from 0002 with rows", "from nothing"])
def test_a_kill_in_the_middle_of_an_upgrade_leaves_old_or_new(url: str, empty: Store, newer: Path, first: bool) -> None:
    if not first:
        up.upgrade(empty)
        fill(empty)
    old, before = (None, None) if first else ("0002", content(empty))
    left_old = 0
    for statement in range(2, 1000, 12 if first else 3):
        started = _start(url, newer, kill_at=statement)
        _, err = started.communicate(timeout=60)
        assert started.returncode in (0, -signal.SIGKILL), err
        _settled(empty)
        now = up.current(empty)
        assert now in (old, "0003"), statement
        if before is not None:
            assert content(empty) == before, statement
        left_old += now == old
        if started.returncode == 0:
            break
    assert now == "0003"
    assert left_old >= 3


def _settled(store: Store) -> None:
    """Wait until the server has noticed that its client is dead."""
    if store.engine.dialect.name != "postgresql":
        return
    asked = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    for _ in range(200):
        with store.read() as tx:
            if not tx.execute(asked).scalar():
                return
        time.sleep(0.05)
    raise AssertionError("the dead upgrade still holds its lock")


# ------------------------------------------------------------------------------------------------------------------ check


def _wrong(store: Store) -> dict[str, str]:
    return {finding.what: finding.detail for finding in up.check(store) if not finding.ok}


def test_check_finds_drift(empty: Store) -> None:
    up.upgrade(empty)
    with empty.write() as tx:
        tx.execute(sa.text("DROP INDEX ix_runs_state"))
        tx.execute(sa.text("ALTER TABLE users ADD COLUMN surplus INTEGER"))
        tx.execute(sa.text("DROP TABLE run_log"))
    told = _wrong(empty)
    assert set(told) == {"schema"}
    for word in ("add_index ix_runs_state", "surplus", "add_table run_log"):
        assert word in told["schema"], told


def test_check_finds_a_reference_to_nothing(tmp_path: Path) -> None:
    store = up.open_store(f"sqlite:///{tmp_path / 's'}")
    fill(store)
    with store.altering() as tx:
        tx.execute(sa.text("DELETE FROM organizations"))
    assert "of team_members refers to no row of organizations" in _wrong(store)["references"]
    with pytest.raises(StoreError, match="nothing was changed"), up.altering(store) as tx:
        pass
    store.close()


def test_check_finds_what_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "d" / "s"
    store = up.open_store(f"sqlite:///{path}")
    assert not _wrong(store)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        assert f"has mode {mode:03o}" in _wrong(store)["privacy"]
    path.chmod(0o600)
    path.parent.chmod(0o777)
    assert "others could replace the file" in _wrong(store)["privacy"]
    store.close()


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"not a database" * 100)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="is damaged: file is not a database"):
        up.open_store(f"sqlite:///{path}")


def test_check_finds_a_broken_page(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = up.open_store(f"sqlite:///{path}")
    fill(store, 60)
    with store.engine.connect() as raw:
        raw.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        root = raw.exec_driver_sql("SELECT rootpage FROM sqlite_master WHERE name = 'ix_audit_action'").scalar()
        size = raw.exec_driver_sql("PRAGMA page_size").scalar()
    store.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * size + size - 40 : (root - 1) * size + size - 8] = b"\xff" * 32
    path.write_bytes(data)
    damaged = Store.open(f"sqlite:///{path}")
    assert "integrity" in _wrong(damaged)
    damaged.close()


def test_a_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = up.open_store(f"sqlite:///{tmp_path / 'new' / 's'}")
        fill(store)
        files = list((tmp_path / "new").iterdir())
        assert len(files) == 3
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0
        store.close()
    finally:
        os.umask(old)
