"""Keys are rotated, and the store upgraded, while other processes write and read secrets: none is lost, none is wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import StoreError
from dblens.redaction import Secret
from dblens.store import keys, organizations, secrets, upgrade
from dblens.store.database import Store
from dblens.store.keys import Keyring
from dblens.store.records import now
from dblens.store.tables import data_keys
from tests.servers.fixtures import require

ROOT = Path(__file__).resolve().parents[2]
INSTANCE = "mail password, kept from the beginning"

WORKER = """
import os, sys
from dblens.errors import DBLensError
from dblens.redaction import Secret
from dblens.store import keys, secrets
from dblens.store.database import Store
store = Store.open(os.environ["STORE"], create=False)
keyring = keys.parse(Secret(os.environ["KEYS"]), "a test")
name, org, kept, n = sys.argv[1], sys.argv[2], {}, 0
sys.stdin.close()
try:
    while not os.path.exists(os.environ["STOP"]):
        n += 1
        record, value = f"{name}-{n % 40}", f"{name} value {n}"
        with store.write() as tx:
            secrets.put(tx, keyring, org, record, "password", Secret(value))
        kept[record] = value
        print("kept", record, value, sep="|", flush=True)
        for each, wanted in list(kept.items())[-10:]:
            with store.read() as tx:
                found = secrets.get(tx, keyring, org, each, "password").reveal()
                mail = secrets.get_instance(tx, keyring, "smtp.password").reveal()
            if found != wanted or mail != os.environ["INSTANCE"]:
                print("WRONG", each, flush=True)
                sys.exit(4)
except DBLensError as error:
    print("refused", type(error).__name__, error.message, error.hint, sep="|", flush=True)
    sys.exit(3)
print("done", n, flush=True)
"""

ROTATOR = """
import os, sys
from dblens.redaction import Secret
from dblens.store import keys, secrets
from dblens.store.database import Store
store = Store.open(os.environ["STORE"], create=False)
keyring = keys.parse(Secret(os.environ["KEYS"]), "a test")
if sys.argv[1] == "kek":
    with store.write() as tx:
        print(secrets.rewrap_all(tx, keyring))
else:
    for _ in range(int(sys.argv[3])):
        print(secrets.rotate(store, keyring, sys.argv[2], batch=7))
"""

UPGRADER = """
import os, sys
from pathlib import Path
from dblens.store import upgrade
from dblens.store.database import Store
upgrade.REVISIONS = Path(sys.argv[1])
moved = upgrade.upgrade(Store.open(os.environ["STORE"], create=False))
print(moved.before, moved.after)
"""

REVISION = '''
"""A column of the secrets; on SQLite the whole table is made anew."""
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    anew = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("secrets", recreate=anew) as batch:
        batch.add_column(sa.Column("note", sa.String(20), nullable=True))
    with op.batch_alter_table("data_keys", recreate=anew) as batch:
        batch.add_column(sa.Column("note", sa.String(20), nullable=True))


def downgrade() -> None:
    op.drop_column("secrets", "note")
    op.drop_column("data_keys", "note")
'''


def kek(name: str) -> str:
    return f"{name}:{base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"


def ring(*names: str) -> Keyring:
    return keys.parse(Secret(",".join(map(kek, names))), "a test")


class World:
    """A store with a key, an organization and workers on it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.stop = url, folder, folder / "stop"
        self.store = Store.open(url)
        upgrade.upgrade(self.store)
        with self.store.write() as tx:
            keys.adopt(tx, ring("k1"))
            self.org = organizations.create_organization(tx, "acme", now=now()).id
            secrets.put_instance(tx, ring("k1"), "smtp.password", Secret(INSTANCE))
        self.workers: dict[str, tuple[subprocess.Popen[str], Path]] = {}

    def environ(self, *names: str) -> dict[str, str]:
        given = {"STORE": self.url, "KEYS": ",".join(map(kek, names)), "STOP": str(self.stop), "INSTANCE": INSTANCE}
        return {**os.environ, **given, "PYTHONPATH": str(ROOT)}

    def work(self, name: str, *names: str) -> None:
        """Begin a worker that has the keys of these names."""
        file = self.folder / f"{name}.out"
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, name, self.org],
            cwd=ROOT, env=self.environ(*names), stdin=subprocess.DEVNULL, stdout=file.open("w"),
            stderr=(self.folder / f"{name}.err").open("w"), text=True,
        )  # fmt: skip
        self.workers[name] = (process, file)

    def lines(self, name: str) -> list[str]:
        # The last line may be half written while the worker works.
        return [line for line in self.workers[name][1].read_text().splitlines(keepends=True) if line.endswith("\n")]

    def reach(self, name: str, more: int) -> None:
        """Wait until a worker kept some more secrets."""
        wanted, end = len(self.lines(name)) + more, time.monotonic() + 60
        while len(self.lines(name)) < wanted:
            assert self.workers[name][0].poll() is None, (self.lines(name)[-1:], self.errors(name))
            assert time.monotonic() < end, f"{name} is stuck"
            time.sleep(0.02)

    def errors(self, name: str) -> str:
        return (self.folder / f"{name}.err").read_text()

    def end(self, name: str) -> tuple[int, str]:
        """Wait until a worker ended, and return how."""
        process, _ = self.workers[name]
        process.wait(60)
        return process.returncode, (self.lines(name) or [self.errors(name)])[-1].strip()

    def run(self, script: str, *arguments: str, with_keys: tuple[str, ...] = ("k1",)) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT, env=self.environ(*with_keys), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def whole(self, keyring: Keyring, store: Store | None = None) -> int:
        """Look that every secret is what its worker said last; return how many there are."""
        wanted: dict[str, str] = {}
        for name in self.workers:
            for line in self.lines(name):
                if line.startswith("kept|"):
                    _, record, value = line.strip().split("|")
                    wanted[record] = value
        with (store or self.store).read() as tx:
            for record, value in wanted.items():
                found = secrets.get(tx, keyring, self.org, record, "password")
                assert isinstance(found, Secret)
                assert found.reveal() == value, record
            assert secrets.get_instance(tx, keyring, "smtp.password").reveal() == INSTANCE
        return len(wanted)

    def close(self) -> None:
        for process, _ in self.workers.values():
            process.kill()
            process.wait()
        self.store.close()


@pytest.fixture(params=["sqlite", "pg15"])
def world(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[..., str]) -> Iterator[World]:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}" if request.param == "sqlite" else new_database(require("pg15"))
    made = World(url, tmp_path)
    yield made
    made.close()


def test_the_key_encryption_key_is_rotated_under_way(world: World) -> None:
    world.work("old", "k1")
    world.reach("old", 5)  # it made the data key
    world.work("new", "k2", "k1")
    world.reach("new", 15)
    world.reach("old", 15)
    wrapped = int(world.run(ROTATOR, "kek", with_keys=("k2", "k1")))
    assert wrapped >= 2, "a data key and the mail password"
    world.reach("new", 15)
    status, told = world.end("old")
    assert status == 3, told
    assert told.startswith("refused|VaultError|")
    assert "'k2'" in told
    assert "this process has k1" in told
    assert "DBLENS_KEK_FILE" in told
    world.stop.touch()
    assert world.end("new")[0] == 0
    assert world.whole(ring("k2")) > 20, "the new key alone opens everything"
    with pytest.raises(StoreError, match="'k2'"), world.store.write() as tx:
        keys.adopt(tx, ring("k1"))
    with pytest.raises(StoreError, match="'k1' was retired"), world.store.write() as tx:
        keys.adopt(tx, ring("k1", "k2"))


def test_a_rotation_between_two_steps_of_a_reader_does_no_harm(world: World) -> None:
    """The reader saw the field as it was sealed before; by then its data key may be gone."""
    with world.store.write() as tx:
        secrets.put(tx, ring("k1"), world.org, "r", "password", Secret("kept"))
    done: list[int] = []

    def between(*args: Any) -> None:
        if "FROM secrets" in args[2] and not done:
            done.append(0)
            done.append(int(world.run(ROTATOR, "dek", world.org, "1")))

    sa.event.listen(world.store.engine, "after_cursor_execute", between)
    with world.store.read() as tx:
        found = secrets.get(tx, ring("k1"), world.org, "r", "password")
    assert done == [0, 1]
    assert isinstance(found, Secret)
    assert found.reveal() == "kept"


def test_a_rotation_and_a_writer_do_not_wait_for_each_other(tmp_path: Path, new_database: Callable[..., str]) -> None:
    """A deadlock, were the rotation to hold fields while it waits for the data key that a writer holds."""
    world = World(new_database(require("pg15")), tmp_path)
    keyring = ring("k1")
    with world.store.write() as tx:
        secrets.put(tx, keyring, world.org, "r", "password", Secret("old"))
        tx.execute(data_keys.update().values(retired_at=now()))
        secrets.put(tx, keyring, world.org, "other", "password", Secret("makes the next key"))
    problems: list[BaseException] = []

    def rotate() -> None:
        try:
            secrets.rotate_some(world.store, keyring, world.org, 100, now())
        except Exception as error:  # noqa: BLE001 - told below
            problems.append(error)

    thread = threading.Thread(target=rotate)

    def before(*args: Any) -> None:
        if "INSERT INTO secrets" in args[2] and not thread.is_alive():
            thread.start()
            time.sleep(1)  # it waits by now: for the key, and with no field held

    sa.event.listen(world.store.engine, "before_cursor_execute", before)
    with world.store.write() as tx:
        secrets.put(tx, keyring, world.org, "r", "password", Secret("new"))
    thread.join(30)
    sa.event.remove(world.store.engine, "before_cursor_execute", before)
    assert problems == []
    with world.store.read() as tx:
        assert secrets.get(tx, keyring, world.org, "r", "password") == Secret("new")
    world.close()


def test_two_rotators_at_once_do_no_harm(world: World) -> None:
    world.work("w", "k2", "k1")
    world.reach("w", 5)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ROTATOR, *arguments],
            cwd=ROOT, env=world.environ("k2", "k1"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for arguments in (["kek"], ["kek"], ["dek", world.org, "2"])
    ]  # fmt: skip
    for process in both:
        _, problem = process.communicate(timeout=120)
        assert process.returncode == 0, problem
    world.reach("w", 5)
    world.stop.touch()
    assert world.end("w")[0] == 0, world.lines("w")[-1:]
    assert world.whole(ring("k2")) > 5


def test_data_keys_are_rotated_under_way(world: World) -> None:
    for name in ("a", "b"):
        world.work(name, "k1")
        world.reach(name, 10)
    moved = [int(line) for line in world.run(ROTATOR, "dek", world.org, "8").split()]
    assert sum(moved) > 8
    for name in ("a", "b"):
        world.reach(name, 10)
    world.stop.touch()
    for name in ("a", "b"):
        assert world.end(name)[0] == 0, (world.lines(name)[-1:], world.errors(name))
    assert world.whole(ring("k1")) > 20
    secrets.rotate(world.store, ring("k1"), world.org)
    with world.store.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(data_keys)) == 1
    assert world.whole(ring("k1")) > 20


def test_the_store_is_upgraded_under_way(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = tmp_path / "revisions"
    shutil.copytree(upgrade.REVISIONS, newer, ignore=shutil.ignore_patterns("__pycache__"))
    (newer / "versions" / "r0003_note.py").write_text(REVISION)
    for name in ("a", "b"):
        world.work(name, "k1")
        world.reach(name, 10)
    assert world.run(UPGRADER, str(newer)).split() == ["0002", "0003"]
    for name in ("a", "b"):
        world.reach(name, 10)
    world.stop.touch()
    for name in ("a", "b"):
        assert world.end(name)[0] == 0, (world.lines(name)[-1:], world.errors(name))
    assert world.whole(ring("k1")) > 20
    with pytest.raises(StoreError, match="0003, which this DBLens does not know"):
        upgrade.open_store(world.url)
    monkeypatch.setattr(upgrade, "REVISIONS", newer)
    assert upgrade.downgrade(world.store, "0002").after == "0002"
    assert world.whole(ring("k1")) > 20


# ------------------------------------------------------------------------------------------------------------- an empty folder


def dblens(home: Path, *arguments: str, more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DBLENS_", "XDG_"))}
    environ |= {"DBLENS_DATA_FOLDER": str(home), "HOME": str(home), "PYTHONPATH": str(ROOT), **(more or {})}
    return subprocess.run(
        [sys.executable, "-m", "dblens", *arguments],
        cwd=ROOT, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip


def filled(home: Path) -> tuple[str, dict[str, str]]:
    """Make a store on a laptop with secrets in it, and return its organization and what they are."""
    from dblens.settings import load
    from dblens.workspace.house import House

    house = House.open(load({"DBLENS_DATA_FOLDER": str(home), "HOME": str(home)}))
    org = house.owner.org_id or ""
    kept = {f"record-{n}": f"a password, {n} 'ünïcode' \n" for n in range(50)}
    with house.store.write() as tx:
        for record, value in kept.items():
            secrets.put(tx, house.keyring, org, record, "password", Secret(value))
        secrets.put_instance(tx, house.keyring, "smtp.password", Secret(INSTANCE))
    house.close()
    return org, kept


def equal(home: Path, org: str, kept: dict[str, str]) -> None:
    from dblens.settings import load
    from dblens.workspace.house import House

    house = House.open(load({"DBLENS_DATA_FOLDER": str(home), "HOME": str(home)}))
    with house.store.read() as tx:
        for record, value in kept.items():
            found: Any = secrets.get(tx, house.keyring, org, record, "password")
            assert found.reveal() == value
        assert secrets.get_instance(tx, house.keyring, "smtp.password").reveal() == INSTANCE
    house.close()


def test_a_backup_and_the_key_bring_every_credential_back(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "x.store"
    org, kept = filled(here)
    assert dblens(here, "settings", "set", "application", "title=kept").returncode == 0
    assert dblens(here, "store", "backup", str(file)).returncode == 0
    key = (here / "kek").read_bytes()
    shutil.rmtree(here)
    there.mkdir()
    (there / "kek").write_bytes(key)
    (there / "kek").chmod(0o600)
    done = dblens(there, "store", "restore", str(file), "--json")
    assert json.loads(done.stdout)["key_fits"] is True, done.stderr
    equal(there, org, kept)
    # The audit's own key came back too: the chain is whole and goes on.
    assert dblens(there, "settings", "set", "application", "title=here").returncode == 0
    verdict = dblens(there, "audit", "verify", "--json")
    assert (verdict.returncode, json.loads(verdict.stdout)["ok"]) == (0, True)


def test_without_the_key_it_says_what_is_missing(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "x.store"
    filled(here)
    assert dblens(here, "store", "backup", str(file)).returncode == 0
    there.mkdir()
    done = dblens(there, "store", "restore", str(file))
    assert done.returncode == 0
    assert "no key-encryption key is here" in done.stderr
    done = dblens(there, "settings", "list", "--json")
    told = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, told["code"]) == (10, "store.failed")
    assert "is missing" in told["message"]
    assert "bring the file back" in told["hint"]
    assert not (there / "kek").exists(), "no other key is made in its place"
    keys.make_key(there / "kek")
    done = dblens(there, "settings", "list", "--json")
    told = json.loads(done.stderr.splitlines()[-1])["error"]
    assert done.returncode == 10
    assert "needs the key-encryption key" in told["message"]


def test_the_command_rotates_and_old_backups_still_open(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "x.store"
    org, kept = filled(here)
    assert dblens(here, "store", "backup", str(file)).returncode == 0
    first = (here / "kek").read_bytes()
    done = dblens(here, "store", "rotate", "--kek", "--new", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] >= 3
    assert (here / "kek").read_bytes().endswith(first)
    assert (here / "kek").stat().st_mode & 0o777 == 0o600
    for arguments in (("--dek",), ("--dek", "personal"), ("--signing",), ("--login",), ("--kek",)):
        assert dblens(here, "store", "rotate", *arguments).returncode == 0, arguments
    equal(here, org, kept)
    there.mkdir()
    shutil.copy(here / "kek", there / "kek")
    (there / "kek").write_bytes(first)  # the old one alone: enough for the old backup, and for nothing newer
    (there / "kek").chmod(0o600)
    assert dblens(there, "store", "restore", str(file)).returncode == 0
    equal(there, org, kept)
    listed = json.loads(dblens(here, "audit", "list", "--action", "store.rotate", "--everywhere", "--json").stdout)
    assert [row["outcome"] for row in listed["items"] if row["phase"] == "ended"] == ["ok"] * 6
    wrong = dblens(here, "store", "rotate", "--json")
    assert wrong.returncode == 2
    assert dblens(here, "store", "rotate", "--dek", "nobody", "--json").returncode == 4


def test_two_processes_that_add_a_key_lose_none(tmp_path: Path) -> None:
    keys.make_key(tmp_path / "kek")
    code = "import sys; from pathlib import Path; from dblens.store import keys; keys.add_key(Path(sys.argv[1]))"
    adding = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "kek")], cwd=ROOT, env={**os.environ})
        for _ in range(6)
    ]
    assert [process.wait(60) for process in adding] == [0] * 6
    assert len(keys.read_file(tmp_path / "kek").ids) == 7
