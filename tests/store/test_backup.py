"""Backup and restore: every row exactly, between engines too; damaged, newer and misplaced archives leave nothing behind."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dblens.errors import ArchiveCorrupt, ArchiveError, ArchiveMissing, ArchiveTooNew, Conflict, StoreError
from dblens.store import backup as b
from dblens.store import upgrade as up
from dblens.store.database import Store
from dblens.store.records import now
from dblens.store.tables import meta, metadata, settings
from tests.servers.fixtures import require
from tests.store.filled import TEXT, content, fill
from tests.store.test_upgrade import NEXT

Make = Callable[[str], Store]


@pytest.fixture
def make(tmp_path: Path, new_database: Callable[..., str]) -> Iterator[Make]:
    """Return a new store without tables, of the engine that is named."""
    opened = []

    def create(kind: str) -> Store:
        url = new_database(require("pg15")) if kind == "pg15" else f"sqlite:///{tmp_path / f's{len(opened)}' / 'store'}"
        opened.append(Store.open(url))
        return opened[-1]

    yield create
    for each in opened:
        each.close()


@pytest.fixture
def filled(make: Make) -> Store:
    store = make("sqlite")
    up.upgrade(store)
    fill(store)
    return store


@pytest.mark.parametrize("to", ["sqlite", "pg15"])
@pytest.mark.parametrize("of", ["sqlite", "pg15"])
def test_every_row_of_every_table_comes_back(of: str, to: str, make: Make, tmp_path: Path) -> None:
    source, target = make(of), make(to)
    up.upgrade(source)
    fill(source, 4)
    with source.write() as tx:  # order must not hang on an engine's collation
        for key in ("b", "B", "a", "Z", "ä", "z", "_", "-", "É", "🙂"):
            tx.execute(settings.insert().values(scope="x", key=key, value=[key], updated_at=now()))
    made = b.backup(source, tmp_path / "x.store", now=now())
    assert made.tables == {name: len(rows) for name, rows in content(source).items()}
    assert all(made.tables.values())
    done = b.restore(tmp_path / "x.store", target)
    assert content(target) == content(source)
    assert (done.before, done.revision, done.tables) == (up.head(), up.head(), made.tables)
    assert all(finding.ok for finding in up.check(target)), up.check(target)
    again = b.backup(target, tmp_path / "y.store", now=made.created_at)
    first, second = (gzip.decompress((tmp_path / f"{n}.store").read_bytes()).splitlines()[1:] for n in "xy")
    assert again.tables == made.tables
    assert sorted(first) == sorted(second)


def test_the_file_is_private_and_whole_or_not_there(filled: Store, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old = os.umask(0)
    try:
        made = b.backup(filled, folder / "x.store", now=now())
    finally:
        os.umask(old)
    assert [p.name for p in folder.iterdir()] == ["x.store"]
    assert (folder / "x.store").stat().st_mode & 0o777 == 0o600
    assert made.bytes == (folder / "x.store").stat().st_size
    before = (folder / "x.store").read_bytes()
    with pytest.raises(Conflict, match="exists already"):
        b.backup(filled, folder / "x.store", now=now())
    assert (folder / "x.store").read_bytes() == before
    with pytest.raises(ArchiveMissing, match="no folder"):
        b.backup(filled, folder / "none" / "x.store", now=now())
    with filled.write() as tx:
        tx.execute(sa.text("DROP TABLE alembic_version"))
    with pytest.raises(StoreError, match="has no tables"):
        b.backup(filled, folder / "y.store", now=now())
    assert [p.name for p in folder.iterdir()] == ["x.store"]


def test_a_backup_that_fails_in_the_middle_leaves_nothing(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(b.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        b.backup(filled, folder / "x.store", now=now())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["sqlite", "pg15"])
def test_a_backup_is_of_one_instant_while_others_write(kind: str, make: Make, tmp_path: Path) -> None:
    store = make(kind)
    up.upgrade(store)
    # Always as many settings as meta rows, in every transaction: a copy of two instants shows otherwise.
    stop = threading.Event()
    written = []

    def write() -> None:
        number = 0
        while not stop.is_set() and number < 3000:
            with store.write() as tx:
                tx.execute(meta.insert().values(key=f"k{number}", value="v"))
                tx.execute(settings.insert().values(scope="x", key=f"k{number}", value=1, updated_at=now()))
            number += 1
            written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for copy in range(8):
            made = b.backup(store, tmp_path / f"{copy}.store", now=now())
            assert made.tables["meta"] == made.tables["settings"]
    finally:
        stop.set()
        writer.join()
    assert len(written) > 20


@pytest.mark.parametrize("kind", ["sqlite", "pg15"])
def test_only_into_an_empty_store(kind: str, make: Make, filled: Store, tmp_path: Path) -> None:
    b.backup(filled, tmp_path / "x.store", now=now())
    target = make(kind)
    up.upgrade(target)
    with target.write() as tx:
        tx.execute(meta.insert().values(key="a", value="mine"))
    with pytest.raises(Conflict, match="not empty: 'meta' has rows"):
        b.restore(tmp_path / "x.store", target)
    assert content(target)["meta"] == [("a", "mine")]
    assert not content(target)["users"]
    theirs = make(kind)
    with theirs.write() as tx:
        tx.execute(sa.text("CREATE TABLE theirs (a INTEGER)"))
    with pytest.raises(Conflict, match="something else: 'theirs'"):
        b.restore(tmp_path / "x.store", theirs)
    tables_only = make(kind)
    up.upgrade(tables_only)
    b.restore(tmp_path / "x.store", tables_only)
    assert content(tables_only) == content(filled)


def _untouched(store: Store) -> None:
    with store.read() as tx:
        assert sa.inspect(tx).get_table_names() == []


def test_flipped_bytes_are_found(filled: Store, make: Make, tmp_path: Path) -> None:
    good, bad = tmp_path / "x.store", tmp_path / "bad.store"
    b.backup(filled, good, now=now())
    data, target, expected = good.read_bytes(), make("sqlite"), content(filled)
    draw = random.Random(3)
    places = [*range(12), *(len(data) - n for n in range(1, 12)), *draw.sample(range(12, len(data) - 12), 60)]
    for place in places:
        bit = draw.randrange(8)
        broken = bytearray(data)
        broken[place] ^= 1 << bit
        bad.write_bytes(broken)
        try:
            b.restore(bad, target)
        except ArchiveError:
            _untouched(target)
            continue
        # The last bits of the compressed stream mean nothing: then the rows must be the same.
        assert content(target) == expected, (place, bit)
        assert place == len(data) - 9, (place, bit)
        target = make("sqlite")


def test_cut_and_longer_archives_are_found(filled: Store, make: Make, tmp_path: Path) -> None:
    good, bad = tmp_path / "x.store", tmp_path / "bad.store"
    b.backup(filled, good, now=now())
    data, target = good.read_bytes(), make("sqlite")
    for length in (0, 1, 5, 10, 11, 40, len(data) // 2, len(data) - 9, len(data) - 1):
        bad.write_bytes(data[:length])
        with pytest.raises(ArchiveCorrupt):
            b.restore(bad, target)
        _untouched(target)
    for tail in (b"x", b"more" * 100, gzip.compress(b"[1]\n")):
        bad.write_bytes(data + tail)
        with pytest.raises(ArchiveCorrupt):
            b.restore(bad, target)
        _untouched(target)
    with pytest.raises(ArchiveMissing, match="no file"):
        b.restore(tmp_path / "none", target)
    with pytest.raises(ArchiveMissing, match="cannot be read"):
        b.restore(tmp_path, target)


Lines = list[Any]


def _without_a_row(lines: Lines) -> None:
    del lines[next(n for n, line in enumerate(lines) if isinstance(line, list))]


def _row_twice(lines: Lines) -> None:
    place = next(n for n, line in enumerate(lines) if isinstance(line, list))
    lines.insert(place, lines[place])


def _another_value(lines: Lines) -> None:
    line = next(line for line in lines if isinstance(line, list) and isinstance(line[1], str) and "Å" in line[1])
    line[1] = line[1].replace("Å", "A")


def _without_a_table(lines: Lines) -> None:
    place = next(n for n, line in enumerate(lines) if isinstance(line, dict) and line.get("table") == "run_log")
    end = next(n for n in range(place + 1, len(lines)) if isinstance(lines[n], dict))
    del lines[place:end]
    del lines[-1]["tables"]["run_log"]


def _foreign_table(lines: Lines) -> None:
    lines.insert(1, {"table": "alembic_version", "columns": ["version_num"]})


def _foreign_column(lines: Lines) -> None:
    lines[1]["columns"] = [*lines[1]["columns"][1:], "id) --"]


def _other_types(lines: Lines) -> None:
    line = next(line for line in lines if isinstance(line, list))
    line[0] = {"a": 1}


def _end_missing(lines: Lines) -> None:
    del lines[-1]


def _no_start(lines: Lines) -> None:
    del lines[0]


def _not_an_object(lines: Lines) -> None:
    lines[0] = 7


def _dangling(lines: Lines) -> None:
    """A row that refers to nothing, with every sum right."""
    import hashlib

    import msgspec

    place = next(n for n, line in enumerate(lines) if isinstance(line, dict) and line.get("table") == "run_log")
    line = lines[place + 1]
    assert isinstance(line, list)
    line[0] = "f" * 32
    end = next(n for n in range(place + 1, len(lines)) if isinstance(lines[n], dict))
    rows = [msgspec.json.encode(row) + b"\n" for row in lines[place + 1 : end]]
    lines[place + 1 : end] = [json.loads(row) for row in sorted(rows)]
    lines[-1]["tables"]["run_log"]["sha256"] = hashlib.sha256(b"".join(sorted(rows))).hexdigest()


@pytest.mark.parametrize("kind", ["sqlite", "pg15"])
@pytest.mark.parametrize(
    "change",
    [
        _without_a_row, _row_twice, _another_value, _without_a_table, _foreign_table, _foreign_column, _other_types,
        _end_missing, _no_start, _not_an_object, _dangling,
    ],
)  # fmt: skip
def test_a_changed_archive_restores_nothing(
    change: Callable[[Lines], None], kind: str, filled: Store, make: Make, tmp_path: Path
) -> None:
    good, bad = tmp_path / "x.store", tmp_path / "bad.store"
    b.backup(filled, good, now=now())
    lines = [json.loads(line) for line in gzip.decompress(good.read_bytes()).splitlines()]
    change(lines)
    _rewrite(bad, lines)
    target = make(kind)
    with pytest.raises((ArchiveCorrupt, StoreError)) as caught:
        b.restore(bad, target)
    assert TEXT not in str(caught.value)
    _untouched(target)


def _rewrite(path: Path, lines: Lines) -> None:
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


@pytest.mark.parametrize(("key", "value"), [("revision", "9999"), ("dblens_store", b.FORMAT + 1)])
def test_a_newer_archive_is_refused(key: str, value: Any, filled: Store, make: Make, tmp_path: Path) -> None:
    good, bad = tmp_path / "x.store", tmp_path / "bad.store"
    b.backup(filled, good, now=now())
    lines = [json.loads(line) for line in gzip.decompress(good.read_bytes()).splitlines()]
    lines[0][key] = value
    _rewrite(bad, lines)
    target = make("sqlite")
    with pytest.raises(ArchiveTooNew):
        b.restore(bad, target)
    _untouched(target)


@pytest.mark.parametrize("kind", ["sqlite", "pg15"])
def test_an_older_archive_is_restored_and_upgraded(
    kind: str, filled: Store, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.backup(filled, tmp_path / "x.store", now=now())
    folder = tmp_path / "revisions"
    shutil.copytree(up.REVISIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "r0003_next.py").write_text(NEXT)
    monkeypatch.setattr(up, "REVISIONS", folder)
    target = make(kind)
    done = b.restore(tmp_path / "x.store", target)
    assert (done.before, done.revision) == ("0002", "0003")
    assert content(target) == content(filled)
    with target.read() as tx:
        assert tx.execute(sa.text("SELECT count(*) FROM extra")).scalar() == 3
    # And a store of the newer revision comes back as it is, column order and all.
    again = make("pg15" if kind == "sqlite" else "sqlite")
    b.backup(target, tmp_path / "y.store", now=now())
    b.restore(tmp_path / "y.store", again)
    assert content(again) == content(filled)


def test_the_key_is_not_in_it_but_its_check_value_is(make: Make, tmp_path: Path) -> None:
    store, target = make("sqlite"), make("pg15")
    up.upgrade(store)
    with store.write() as tx:
        tx.execute(meta.insert().values(key=b.KEK_CHECK, value="check-me"))
    assert b.backup(store, tmp_path / "x.store", now=now()).kek_check == "check-me"
    done = b.restore(tmp_path / "x.store", target, fits=lambda value: value == "check-me")
    assert (done.kek_check, done.key_fits) == ("check-me", True)
    other = b.restore(tmp_path / "x.store", make("sqlite"), fits=lambda _: False)
    assert other.key_fits is False
    assert b.restore(tmp_path / "x.store", make("sqlite")).key_fits is None


def test_every_table_is_in_the_test(filled: Store) -> None:
    assert set(content(filled)) == set(metadata.tables)
    assert all(content(filled).values())
