"""The store's key: signatures that prove who and when, through rotation, and evidence notebooks that carry one."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dblens.errors import InvalidInput, NotFound, VaultError
from dblens.migrate import notebook as notebooks
from dblens.migrate.evidence import PURPOSE, manifest_hash, signed_form
from dblens.redaction import Secret
from dblens.signature import PublicKey, Signature, framed, judge, message, read_keys, write_keys
from dblens.store import keys, secrets, signing
from dblens.store.database import Store
from dblens.store.keys import Kek, Keyring
from dblens.store.signing import Signer
from dblens.store.tables import meta
from tests.unit.migrate.test_notebook_check import executed, manifest

T0 = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


@pytest.fixture
def ring(store: Store) -> Keyring:
    made = Keyring((Kek("k1", os.urandom(32)),))
    with store.write() as tx:
        keys.adopt(tx, made)
    return made


def opened(store: Store, ring: Keyring, at: dt.datetime = T0) -> Signer:
    with store.write() as tx:
        return signing.signer(tx, ring, clock=lambda: at)


def known(store: Store, ring: Keyring) -> tuple[PublicKey, ...]:
    with store.read() as tx:
        return signing.known(tx, ring)


# ---------------------------------------------------------------------------------------------------------------------- the store


def test_signed_and_proven(store: Store, ring: Keyring) -> None:
    assert known(store, ring) == ()
    signer = opened(store, ring)
    assert opened(store, ring).public == signer.public  # made once
    made = signer.sign(b"data", purpose="p")
    assert (made.key_id, made.algorithm, made.at) == (signer.public.id, "Ed25519", T0)
    assert judge(b"data", made, known(store, ring), purpose="p").state == "signed"
    for data, purpose, why in [
        (b"Data", "p", "not the signature"),
        (b"", "p", "not the signature"),
        (b"data", "q", "made for 'p'"),
    ]:
        found = judge(data, made, known(store, ring), purpose=purpose)
        assert found.state == "wrong"
        assert why in found.why
    for change in (
        {"at": T0 + dt.timedelta(microseconds=1)},
        {"value": base64.b64encode(bytes(64)).decode()},
        {"value": "?"},
        {"value": ""},
        {"algorithm": "none"},
        {"purpose": "q"},
        {"at": T0.replace(tzinfo=None)},
    ):
        assert (
            judge(b"data", msgspec.structs.replace(made, **change), known(store, ring), purpose="p").state == "wrong"
        ), change
    assert judge(b"data", made, (), purpose="p").state == "unknown"
    assert judge(b"data", msgspec.structs.replace(made, key_id="x"), known(store, ring), purpose="p").state == "unknown"


def test_rotation_keeps_the_old_public_key(store: Store, ring: Keyring) -> None:
    old = opened(store, ring)
    before = old.sign(b"data", purpose="p")
    with store.write() as tx:
        made = signing.rotate_signing(tx, ring, now=T0 + dt.timedelta(days=1))
        with pytest.raises(NotFound):  # the old private part is gone
            secrets.get_instance(tx, ring, f"signing.{old.public.id}")
    new = opened(store, ring, T0 + dt.timedelta(days=2))
    assert new.public == made != old.public
    assert [(key.id, key.retired_at) for key in known(store, ring)] == [
        (made.id, None),
        (old.public.id, T0 + dt.timedelta(days=1)),
    ]
    assert judge(b"data", before, known(store, ring), purpose="p").state == "signed"
    assert judge(b"data", new.sign(b"data", purpose="p"), known(store, ring), purpose="p").state == "signed"
    late = (
        msgspec.structs.replace(old) if False else Signer(old._private, old.public, lambda: T0 + dt.timedelta(days=3))
    )
    found = judge(b"data", late.sign(b"data", purpose="p"), known(store, ring), purpose="p")
    assert (found.state, "retired" in found.why) == ("wrong", True)


def test_the_key_survives_the_rotation_of_its_key(store: Store, ring: Keyring) -> None:
    signer = opened(store, ring)
    rotated = Keyring((Kek("k2", os.urandom(32)), ring.first))
    with store.write() as tx:
        assert secrets.rewrap_all(tx, rotated) == 2
    alone = Keyring((rotated.first,))
    assert opened(store, alone).public == signer.public
    assert judge(b"x", opened(store, alone).sign(b"x", purpose="p"), known(store, alone), purpose="p").state == "signed"
    with pytest.raises(VaultError):
        opened(store, ring)


def test_who_can_write_the_database_adds_no_key(store: Store, ring: Keyring) -> None:
    """Neither by writing one into the list, nor by putting an own store's sealed list in its place."""
    opened(store, ring)
    forged = Keyring((Kek("k1", os.urandom(32)),))
    with store.write() as tx:
        mine = tx.execute(sa.select(meta).where(meta.c.key.startswith("secret."))).all()
        tx.execute(meta.delete())
        secrets.put_instance(tx, forged, "signing.public", Secret("[]"))
        theirs = tx.scalar(sa.select(meta.c.value).where(meta.c.key == "secret.signing.public"))
        tx.execute(meta.delete())
        for row in mine:
            tx.execute(meta.insert().values(key=row.key, value=theirs if row.key.endswith("public") else row.value))
    with pytest.raises(VaultError, match="not what was kept"):
        known(store, ring)
    with store.write() as tx:  # one name's sealed octets under the other name
        for row in mine:
            tx.execute(meta.update().where(meta.c.key == row.key).values(value=mine[0].value))
    with pytest.raises(VaultError, match="not what was kept"):
        known(store, ring) and opened(store, ring)


def test_the_private_part_is_nowhere(store: Store, ring: Keyring) -> None:
    from tests.store.test_secrets import dump

    signer = opened(store, ring)
    with store.read() as tx:
        text = secrets.get_instance(tx, ring, f"signing.{signer.public.id}").reveal()
    raw = base64.b64decode(text)
    try:
        with store.write() as tx:
            signing.signer(tx, ring)
            raise ValueError("on purpose")
    except ValueError as error:
        inside = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shown = [
        repr(signer),
        str(signer),
        str(signer.public),
        inside.replace(text, "").replace(repr(raw), ""),
        signer.sign(b"", purpose="").value,
    ]
    with store.read() as tx:
        shown.append(signing.export(tx, ring).decode())
    for where in shown:
        assert text not in where
        assert raw.hex() not in where
    for octets in (raw, text.encode(), raw.hex().encode()):
        assert octets not in dump(store)
    for carried in (pickle.dumps, json.dumps, msgspec.json.encode):
        with pytest.raises(TypeError):
            carried(signer)  # type: ignore[operator]


# ----------------------------------------------------------------------------------------------------------------------- off-box


def test_somebody_else_verifies_with_cryptography_alone(store: Store, ring: Keyring, tmp_path: Path) -> None:
    """Without DBLens: what is signed is written down in `dblens/signature.py`."""
    signer = opened(store, ring)
    made = signer.sign(b"the data", purpose="p")
    with store.read() as tx:
        (tmp_path / "keys.json").write_bytes(signing.export(tx, ring))
    (tmp_path / "signature.json").write_bytes(msgspec.json.encode(made))
    code = """
import base64, datetime, json
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
s, keys = json.load(open("signature.json")), json.load(open("keys.json"))["keys"]
key = next(k for k in keys if k["id"] == s["key_id"])
at = datetime.datetime.fromisoformat(s["at"].replace("Z", "+00:00"))
micros = (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)
parts = [b"dblens/signature/1", s["purpose"].encode(), s["key_id"].encode(), str(micros).encode(), b"the data"]
data = b"".join(len(p).to_bytes(8, "big") + p for p in parts)
Ed25519PublicKey.from_public_bytes(base64.b64decode(key["public"])).verify(base64.b64decode(s["value"]), data)
"""
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def test_the_file_of_keys(store: Store, ring: Keyring) -> None:
    opened(store, ring)
    with store.write() as tx:
        signing.rotate_signing(tx, ring, now=T0 + dt.timedelta(days=1))
    mine = known(store, ring)
    assert read_keys(write_keys(mine)) == mine
    other = msgspec.structs.replace(mine[0], id=mine[1].id)
    for document in (
        b"",
        b"[]",
        b"\xff",
        b'{"dblens_keys": 2, "keys": []}',
        b'{"dblens_keys": 1, "keys": [], "more": 1}',
        write_keys([other]),
        write_keys([msgspec.structs.replace(mine[0], public="?")]),
        write_keys([msgspec.structs.replace(mine[0], created_at=T0.replace(tzinfo=None))]),
    ):
        with pytest.raises(InvalidInput):
            read_keys(document)
    made = Signature(key_id=mine[1].id, purpose="p", at=T0, value="AAAA")
    with pytest.raises(InvalidInput, match="not what its id says"):
        judge(b"", made, [other], purpose="p")


@given(st.lists(st.binary(max_size=5), max_size=5), st.lists(st.binary(max_size=5), max_size=5))
@examples(max_examples=300, deadline=None)
def test_other_parts_are_other_octets(a: list[bytes], b: list[bytes]) -> None:
    assert (framed(*a) == framed(*b)) == (a == b)
    assert message(b"x", purpose="ab", key_id="c", at=T0) != message(b"x", purpose="a", key_id="bc", at=T0)


# ------------------------------------------------------------------------------------------------------------ evidence notebooks


class Pair:
    """A key without a store."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes_raw()
        self.public = PublicKey(
            id=hashlib.sha256(raw).hexdigest()[:32], public=base64.b64encode(raw).decode(), created_at=T0
        )
        self.sign = Signer(private, self.public, lambda: T0).sign


PAIR = Pair()


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "proof.ipynb"
    path.write_text(json.dumps(executed()), "utf-8")
    assert notebooks.seal(path, PAIR.sign) == manifest()
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(path.read_text("utf-8"))
    change(document)
    other = path.with_name("changed.ipynb")
    other.write_text(json.dumps(document), "utf-8")
    return other


def reseal(document: dict[str, Any]) -> None:
    """What a forger does: make every hash fit what he wrote."""
    kept = document["metadata"]["dblens"]
    kept["cells"] = notebooks._cell_hashes(document)
    kept["hash"] = notebooks._digest({k: v for k, v in kept.items() if k != "hash"})


def test_a_signed_notebook(signed: Path) -> None:
    assert notebooks.check(signed) == (manifest(), [])
    found = notebooks.authorship(signed, [PAIR.public])
    assert (found.state, found.key_id, found.at) == ("signed", PAIR.public.id, T0)
    assert notebooks.authorship(signed, [Pair().public]).state == "unknown"
    assert notebooks.authorship(signed, []).state == "unknown"


def test_an_unsigned_one(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(executed()), "utf-8")
    notebooks.seal(path)
    assert notebooks.authorship(path, [PAIR.public]).state == "unsigned"
    assert notebooks.check(path)[1] == []


def test_saving_it_again_keeps_the_signature(signed: Path) -> None:
    def resave(document: dict[str, Any]) -> None:
        document["metadata"]["language_info"] = {"name": "python"}
        for cell in document["cells"]:
            cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
            cell["metadata"]["collapsed"] = True
            cell.pop("id", None)
            for output in cell.get("outputs", []):
                if "execution_count" in output:
                    output["execution_count"] = 7
                if "text" in output:
                    output["text"] = "".join(output["text"])

    assert notebooks.authorship(changed(signed, resave), [PAIR.public]).state == "signed"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["cells"][0].update(source="# Another"),
        lambda d: d["cells"][1]["outputs"][1].update(text="all is well\n"),
        lambda d: d["cells"][1]["outputs"].pop(),
        lambda d: d["cells"][1]["outputs"][0]["data"].update({"text/html": "<b>5</b>"}),
        lambda d: d["cells"][1]["outputs"].reverse(),
        lambda d: d["cells"][1].update(cell_type="raw"),
        lambda d: d["cells"][0].update(attachments={"a.png": {"image/png": "AA=="}}),
        lambda d: d["cells"].pop(0),
        lambda d: d["cells"].reverse(),
        lambda d: d["cells"].append({"cell_type": "markdown", "metadata": {}, "source": "It is all proven."}),
        lambda d: d["metadata"]["dblens"]["signature"].update(at="2026-11-24T12:00:00Z"),
        lambda d: d["metadata"]["dblens"]["signature"].update(value=""),
        lambda d: d["metadata"]["dblens"]["manifest"].update(losses=[]),
        lambda d: d["metadata"]["dblens"].update(signature={"x": 1}),
        lambda d: d["metadata"]["dblens"].update(signature=None),
    ],
)
def test_a_forger_who_makes_every_hash_fit(signed: Path, change: Callable[[dict[str, Any]], object]) -> None:
    other = changed(signed, lambda d: (change(d), reseal(d)))
    found = notebooks.authorship(other, [PAIR.public])
    assert found.state == "wrong"
    assert found.why


def test_a_forged_manifest(signed: Path) -> None:
    def forge(document: dict[str, Any]) -> None:
        lie = msgspec.structs.replace(manifest(), losses=())
        lie = msgspec.structs.replace(lie, hash=manifest_hash(lie))
        document["metadata"]["dblens"]["manifest"] = msgspec.to_builtins(lie)
        document["cells"][2]["outputs"][0]["data"][notebooks.MIME] = msgspec.to_builtins(lie)
        reseal(document)

    other = changed(signed, forge)
    assert notebooks.check(other)[1] == []  # hashes find accidents only
    assert notebooks.authorship(other, [PAIR.public]).state == "wrong"


def test_a_signature_of_another_notebook_or_purpose(signed: Path) -> None:
    form = signed_form(json.loads(signed.read_text("utf-8")), msgspec.to_builtins(manifest()))
    for made in (PAIR.sign(b"another", purpose=PURPOSE), PAIR.sign(form, purpose="audit")):
        other = changed(
            signed,
            lambda d, made=made: (d["metadata"]["dblens"].update(signature=msgspec.to_builtins(made)), reseal(d)),
        )
        assert notebooks.authorship(other, [PAIR.public]).state == "wrong"


# ----------------------------------------------------------------------------------------------------------------------------- CLI


def cli(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("DBLENS_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-m", "dblens", "migrate", "notebook", *args],
        env={**environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def checked(home: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = cli(home, "--check", *args, "--json")
    return done.returncode, json.loads(done.stdout)


def test_the_command(signed: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    public, other = tmp_path / "public.json", tmp_path / "other.json"
    public.write_bytes(write_keys([PAIR.public]))
    other.write_bytes(write_keys([Pair().public]))
    unsigned = tmp_path / "unsigned.ipynb"
    unsigned.write_text(json.dumps(executed()), "utf-8")
    notebooks.seal(unsigned)
    altered = tmp_path / "altered.ipynb"
    altered.write_text(signed.read_text("utf-8").replace("done", "fine"), "utf-8")

    def state(*args: str) -> tuple[int, str, bool]:
        code, found = checked(home, *args)
        return code, found["signature"]["state"], found["intact"]

    assert state(str(signed), "--key", str(public)) == (0, "signed", True)
    assert state(str(signed), "--key", str(other)) == (9, "unknown", True)
    assert state(str(signed)) == (0, "unknown", True)
    assert state(str(unsigned)) == (0, "unsigned", True)
    assert state(str(unsigned), "--key", str(public)) == (9, "unsigned", True)
    assert state(str(altered), "--key", str(public)) == (9, "wrong", False)
    assert not list(home.iterdir())  # looking made no store
    for file, words in ((signed, "UNKNOWN"), (unsigned, "unsigned: nothing proves"), (altered, "UNKNOWN")):
        assert words in cli(home, "--check", str(file)).stdout
    assert "WRONG" in cli(home, "--check", str(altered), "--key", str(public)).stdout
    for bad in (tmp_path / "none.json", signed):
        assert cli(home, "--check", str(signed), "--key", str(bad)).returncode == 2
    assert cli(home, "--key", str(public)).returncode == 2


def test_sign_with_the_local_store(tmp_path: Path) -> None:
    """A whole migration of two SQLite files, signed; the one who checks has only the exported key."""
    import sqlite3

    source, home, away = tmp_path / "a.db", tmp_path / "home", tmp_path / "away"
    for folder in (home, away):
        folder.mkdir()
    with sqlite3.connect(source) as db:
        db.execute("create table t (id integer primary key, v text)")
        db.execute("insert into t values (1, 'a')")
    db.close()
    proof, public = tmp_path / "proof.ipynb", tmp_path / "public.json"
    target = ("--create-target", f"sqlite:///{source}", f"sqlite:///{tmp_path / 'b.db'}")
    done = cli(home, *target, "-o", str(proof), "--sign")
    assert done.returncode == 0, done.stderr
    code, found = checked(home, str(proof))
    assert (code, found["signature"]["state"]) == (0, "signed")
    done = cli(home, "--export-key", str(public), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys"] == [found["signature"]["key_id"]]
    code, found = checked(away, str(proof), "--key", str(public))
    assert (code, found["signature"]["state"]) == (0, "signed")
    assert checked(away, str(proof))[1]["signature"]["state"] == "unknown"
    private = (home / ".local/share/dblens/kek").read_text().strip()
    assert private not in proof.read_text() + public.read_text() + done.stdout + done.stderr
