"""Where key-encryption keys come from: the environment, a private file, the user's keyring; a team gives its own."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from dblens.errors import DBLensError, InvalidInput, StoreError
from dblens.redaction import Secret
from dblens.settings import Settings, load
from dblens.store import keys
from dblens.store.database import Store
from tests.store.test_secrets import CANARY, kek, organization, put, revealed, spec


def single(folder: Path, **more: object) -> Settings:
    return Settings(store_url=f"sqlite:///{folder}/store.sqlite", data_folder=folder / "data", **more)  # type: ignore[arg-type]


def lite(folder: Path) -> Store:
    store = Store.open(f"sqlite:///{folder}/store.sqlite")
    store.create_all()
    return store


def test_alone_on_a_laptop_the_key_is_made_once(tmp_path: Path) -> None:
    store, settings = lite(tmp_path), single(tmp_path)
    mask = os.umask(0)
    try:
        ring = keys.unlock(store, settings)
    finally:
        os.umask(mask)
    file = settings.data_folder / "kek"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 == 0
    assert list(file.parent.iterdir()) == [file]
    assert keys.unlock(store, settings).ids == ring.ids
    org = organization(store, "acme")
    put(store, ring, org, "r1")
    assert revealed(store, keys.unlock(store, settings), org, "r1") == CANARY
    file.chmod(0o640)
    with pytest.raises(StoreError, match="can be read by others"):
        keys.unlock(store, settings)
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
        with pytest.raises(StoreError, match="belongs to another user"):
            keys.unlock(store, settings)
    file.unlink()
    with pytest.raises(StoreError, match="is missing") as refused:
        keys.unlock(store, settings)
    assert refused.value.hint
    assert not file.exists()  # no new key, that would open nothing
    store.close()


def test_two_processes_make_one_key(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = lite(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: keys.unlock(store, single(tmp_path)), range(8)))
    assert len({ring.ids for ring in rings}) == 1
    store.close()


def test_a_team_gives_its_key(store: Store, tmp_path: Path) -> None:
    team = single(tmp_path, mode="team")
    with pytest.raises(StoreError, match="no key-encryption key was given") as refused:
        keys.unlock(store, team)
    assert "DBLENS_KEK_FILE" in (refused.value.hint or "")
    if store.path is None:  # a store on PostgreSQL is a team's whatever the mode says
        with pytest.raises(StoreError, match="no key-encryption key was given"):
            keys.unlock(store, single(tmp_path))
    assert not list(tmp_path.glob("**/kek"))
    file = tmp_path / "keys"
    file.write_text(f"# new first\n{spec(kek('k2'))}\n{spec(kek('k1'))}\n")
    file.chmod(0o400)
    assert keys.unlock(store, single(tmp_path, mode="team", kek_file=file)).ids == ("k2", "k1")


def test_keys_of_the_environment_are_taken_away(tmp_path: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    code = (
        "import os, subprocess, sys\n"
        "from dblens.settings import load\n"
        "from dblens.store import keys\n"
        "from dblens.store.database import Store\n"
        "store = Store.open(sys.argv[1]); store.create_all()\n"
        "ring = keys.unlock(store, load())\n"
        "child = subprocess.run(['env'], capture_output=True, text=True).stdout\n"
        "print(ring, 'DBLENS_KEK' in os.environ, child)\n"
    )
    environ = {**os.environ, "DBLENS_KEK": f"k7:{key}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/s.sqlite"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Keyring(k7) False ")
    assert key not in done.stdout + done.stderr
    assert load({"DBLENS_KEK": f"k7:{key}", "HOME": str(tmp_path)}).kek is not None


def test_bad_keys_are_refused_without_a_word_of_them(tmp_path: Path) -> None:
    good = base64.b64encode(os.urandom(32)).decode()
    short = base64.b64encode(b"geheimgeheim1234").decode()
    for text, told in [
        ("", "no key-encryption key"),
        ("geheim!", "key 1 is not base64"),
        (short, "key 1 has 16 octets"),
        (f"k1:{good},k2:{short}", "key 2 has 16 octets"),
        (f"{good}:{good}", "the id of key 1"),
        (f"{'a' * 43}:{good}", "the id of key 1"),
        (f"k1:{good},k1:{good}", "have one id"),
        (base64.b64encode(b"geheim01" * 4).decode(), "not random"),
        (base64.b64encode(bytes(32)).decode(), "not random"),
    ]:
        with pytest.raises(InvalidInput, match=told) as refused:
            keys.parse(Secret(text), "DBLENS_KEK")
        inside = refused.value.__traceback__.tb_next  # type: ignore[union-attr]  # this test's own frame has them
        shown = "".join(traceback.TracebackException(InvalidInput, refused.value, inside, capture_locals=True).format())
        assert "in parse" in shown
        for part in (good, short, "geheim"):
            assert part not in shown, told
    assert (
        keys.parse(Secret(good.rstrip("=").translate(str.maketrans("+/", "-_"))), "x").ids
        == keys.parse(Secret(good), "x").ids
    )
    twice = single(tmp_path, kek_file=tmp_path / "a", kek_keyring="dblens")
    with pytest.raises(InvalidInput, match="given twice"):
        keys.unlock(lite(tmp_path), twice)
    for place in (tmp_path / "none", Path("/dev/null"), tmp_path):
        with pytest.raises((StoreError, InvalidInput)):
            keys.read_file(place)


def test_the_keyring_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    kept = {("dblens", "main"): spec(kek("k1"))}
    monkeypatch.setattr(keyring, "get_password", lambda service, name: kept.get((service, name)))
    store = lite(tmp_path)
    assert keys.unlock(store, single(tmp_path, kek_keyring="main")).ids == ("k1",)
    with pytest.raises(StoreError, match="no entry 'none'"):
        keys.unlock(store, single(tmp_path, kek_keyring="none"))
    with pytest.raises(InvalidInput, match="no keyring of a user"):
        keys.unlock(store, single(tmp_path, mode="team", kek_keyring="main"))
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(DBLensError, match="not installed"):
        keys.unlock(store, single(tmp_path, kek_keyring="main"))
    store.close()
