"""Secrets at rest: bound to their place, counted, rotated under a running second process, and nowhere in the clear."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dblens.errors import InvalidInput, NotFound, StoreError, VaultError
from dblens.redaction import Secret
from dblens.store import keys, secrets
from dblens.store.database import Store
from dblens.store.keys import Kek, Keyring
from dblens.store.records import new_id, now
from dblens.store.references import Reference
from dblens.store.tables import data_keys, meta, metadata, organizations
from dblens.store.tables import secrets as rows

CANARY = "Kanari-7f3a/ö'+\"%"
SLOW = examples(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def kek(id: str, octets: bytes | None = None) -> Kek:
    return Kek(id, octets or os.urandom(32))


def spec(*found: Kek) -> str:
    return ",".join(f"{key.id}:{base64.b64encode(key.octets()).decode()}" for key in found)


def organization(store: Store, name: str) -> str:
    id = new_id()
    with store.write() as tx:
        tx.execute(organizations.insert().values(id=id, name=name, slug=name, created_at=now()))
    return id


@pytest.fixture
def ring(store: Store) -> Keyring:
    made = Keyring((kek("k1"),))
    with store.write() as tx:
        keys.adopt(tx, made)
    return made


@pytest.fixture
def org(store: Store) -> str:
    return organization(store, "acme")


def revealed(store: Store, ring: Keyring, org: str, record: str, field: str = "password") -> str:
    with store.read() as tx:
        found = secrets.get(tx, ring, org, record, field)
    assert isinstance(found, Secret)
    return found.reveal()


def put(store: Store, ring: Keyring, org: str, record: str, field: str = "password", text: str = CANARY) -> None:
    with store.write() as tx:
        secrets.put(tx, ring, org, record, field, Secret(text))


def dump(store: Store) -> bytes:
    """Everything that lies on the disk or in the tables of a store."""
    if store.path is not None:
        files = [store.path, Path(f"{store.path}-wal"), Path(f"{store.path}-shm")]
        return b"".join(file.read_bytes() for file in files if file.exists())
    done = subprocess.run(
        ["pg_dump", "--data-only", store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)],
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        text = done.stdout
    else:  # the server is newer than the tool: every row of every table instead
        with store.read() as tx:
            text = repr([tx.execute(sa.select(table)).all() for table in metadata.sorted_tables]).encode()
    octets = b"".join(bytes.fromhex(found.decode()) for found in __import__("re").findall(rb"\\\\x([0-9a-f]+)", text))
    return text + octets


# --------------------------------------------------------------------------------------------------------------- put, get, delete


@pytest.mark.parametrize("text", ["", "x", CANARY, "a\0b", "🧊" * 1000, "-----BEGIN KEY-----\nabc\r\n\n", "x" * 65_536])
def test_kept_exactly(store: Store, ring: Keyring, org: str, text: str) -> None:
    put(store, ring, org, "r1", text=text)
    assert revealed(store, ring, org, "r1") == text


def test_replaced_listed_deleted(store: Store, ring: Keyring, org: str) -> None:
    reference = Reference.parse("env:SHOP_PASSWORD")
    put(store, ring, org, "r1", text="first")
    put(store, ring, org, "r1", text="second")
    put(store, ring, org, "r1", "ssh.key")
    put(store, ring, org, "r2")
    with store.write() as tx:
        secrets.put(tx, ring, org, "r1", "token", reference)
        assert secrets.get(tx, ring, org, "r1", "token") == reference
        assert [(kept.field, kept.kind) for kept in secrets.list_secrets(tx, org, "r1")] == [
            ("password", "inline"),
            ("ssh.key", "inline"),
            ("token", "reference"),
        ]
    assert revealed(store, ring, org, "r1") == "second"
    with store.write() as tx:
        secrets.delete(tx, org, "r1", "password")
        with pytest.raises(NotFound):
            secrets.delete(tx, org, "r1", "password")
        assert secrets.delete_all(tx, org, "r1") == 2
        assert secrets.list_secrets(tx, org, "r1") == ()
    assert revealed(store, ring, org, "r2") == CANARY


def test_another_organization_sees_nothing(store: Store, ring: Keyring, org: str) -> None:
    other = organization(store, "beta")
    put(store, ring, org, "r1")
    with store.write() as tx:
        assert secrets.list_secrets(tx, other, "r1") == ()
        assert secrets.delete_all(tx, other, "r1") == 0
        for verb in (
            lambda: secrets.get(tx, ring, other, "r1", "password"),
            lambda: secrets.delete(tx, other, "r1", "password"),
        ):
            with pytest.raises(NotFound):
                verb()
    with pytest.raises(NotFound, match="no organization"), store.write() as tx:
        secrets.put(tx, ring, new_id(), "r1", "password", Secret("x"))
    assert revealed(store, ring, org, "r1") == CANARY


@pytest.mark.parametrize("field", ["", "Password", "a b", "x" * 64, "a|b", "9", "ä", 5, None])
def test_bad_fields_are_refused(store: Store, ring: Keyring, org: str, field: object) -> None:
    with pytest.raises(InvalidInput), store.write() as tx:
        secrets.put(tx, ring, org, "r1", field, Secret("x"))  # type: ignore[arg-type]
    for text in ("x" * 65_537, "\ud800"):
        with pytest.raises(InvalidInput) as refused:
            put(store, ring, org, "r1", text=text)
        assert text not in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ attack 29: swapping


def _move(store: Store, given: dict[str, str], to: dict[str, str]) -> None:
    """What somebody who can write the database does: put one row's sealed octets (and key) into another row."""
    c = rows.c
    with store.write() as tx:
        match = [c[name] == value for name, value in given.items()]
        found = tx.execute(sa.select(c.kind, c.key_id, c.value).where(*match)).one()
        match = [c[name] == value for name, value in to.items()]
        done = tx.execute(rows.update().where(*match).values(**found._mapping))
        assert done.rowcount == 1


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("org", "r1", "password"), ("org", "r2", "password")),
        (("org", "r1", "password"), ("org", "r1", "token")),
        (("org", "r1", "password"), ("other", "r1", "password")),
    ],
)
def test_swapped_ciphertext_is_refused(
    store: Store, ring: Keyring, org: str, source: tuple[str, ...], target: tuple[str, ...]
) -> None:
    ids = {"org": org, "other": organization(store, "beta")}
    for place in (source, target):
        put(store, ring, ids[place[0]], *place[1:], text=f"of {place}")
    places = [{"org_id": ids[p[0]], "record_id": p[1], "field": p[2]} for p in (source, target)]
    _move(store, places[0], places[1])
    with pytest.raises(VaultError, match="not what was kept"):
        revealed(store, ring, ids[target[0]], *target[1:])
    assert revealed(store, ring, ids[source[0]], *source[1:]) == f"of {source}"


def test_a_swapped_data_key_is_refused(store: Store, ring: Keyring, org: str) -> None:
    """With its data key carried along into the other organization, too."""
    other = organization(store, "beta")
    put(store, ring, org, "r1")
    put(store, ring, other, "r1", text="other")
    with store.write() as tx:
        mine = tx.execute(sa.select(data_keys).where(data_keys.c.org_id == org)).one()
        tx.execute(data_keys.update().where(data_keys.c.org_id == other).values(wrapped=mine.wrapped))
    with pytest.raises(VaultError, match="not what was kept"):
        revealed(store, ring, other, "r1")
    with pytest.raises(VaultError, match="not what was kept"):  # and nothing new is sealed with another's key
        put(store, ring, other, "r2")
    with store.write() as tx:
        tx.execute(data_keys.update().where(data_keys.c.id == mine.id).values(org_id=other))
    _move(
        store,
        {"org_id": org, "record_id": "r1", "field": "password"},
        {"org_id": other, "record_id": "r1", "field": "password"},
    )
    with pytest.raises(VaultError, match="not what was kept"):
        revealed(store, ring, other, "r1")


def test_a_secret_is_not_taken_for_a_reference(store: Store, ring: Keyring, org: str) -> None:
    put(store, ring, org, "r1", text="env:HOME")
    with store.write() as tx:
        tx.execute(rows.update().values(kind="reference"))
    with pytest.raises(VaultError), store.read() as tx:
        secrets.get(tx, ring, org, "r1", "password")


def test_names_that_run_into_each_other_are_told_apart() -> None:
    """`a|bc` and `ab|c` are two places, whatever the parts hold."""
    text = st.text(max_size=4)

    @given(st.tuples(text, text, text, text, text), st.tuples(text, text, text, text, text))
    @examples(max_examples=300, deadline=None)
    def places(a: tuple[str, ...], b: tuple[str, ...]) -> None:
        assert (secrets._place(*a) == secrets._place(*b)) == (a == b)

    places()
    assert secrets._place("a", "bc", "d", "k", "i") != secrets._place("ab", "c", "d", "k", "i")
    assert secrets._place("a|b", "c", "d", "k", "i") != secrets._place("a", "b|c", "d", "k", "i")


@SLOW
@given(data=st.data())
def test_flipped_bits_and_cuts_are_refused(data: st.DataObject) -> None:
    key, place = kek("k1"), secrets._place("o", "r", "f", "k", "inline")
    text = data.draw(st.binary(max_size=40))
    sealed = secrets._seal(key, text, place)
    assert secrets._open(key, sealed, place, "it") == text
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    for bad in (bytes(flipped), sealed[: data.draw(st.integers(0, len(sealed) - 1))], sealed + b"\0"):
        with pytest.raises(VaultError):
            secrets._open(key, bad, place, "it")


@pytest.mark.parametrize("column", ["value", "wrapped"])
def test_flipped_bits_in_the_store(store: Store, ring: Keyring, org: str, column: str) -> None:
    put(store, ring, org, "r1")
    table = rows if column == "value" else data_keys
    with store.write() as tx:
        octets = bytearray(tx.scalar(sa.select(table.c[column])))
    for at in range(0, len(octets), 5):
        bad = octets.copy()
        bad[at] ^= 0x10
        with store.write() as tx:
            tx.execute(table.update().values({column: bytes(bad)}))
        with pytest.raises(VaultError) as refused:
            revealed(store, ring, org, "r1")
        assert refused.value.hint


# ------------------------------------------------------------------------------------------------------------- nonces, data keys


def test_no_nonce_comes_twice(store: Store, ring: Keyring, org: str) -> None:
    many = 10_000 if store.path is not None else 1_000
    with store.write() as tx:
        for number in range(many):
            secrets.put(tx, ring, org, f"r{number}", "password", Secret("same"))
    with store.read() as tx:
        found = [bytes(value) for value in tx.scalars(sa.select(rows.c.value))]
        assert tx.scalar(sa.select(data_keys.c.uses)) == many
    assert len(found) == many
    assert len({value[1:13] for value in found}) == many
    assert len({value[13:] for value in found}) == many


def test_a_data_key_is_used_up(store: Store, ring: Keyring, org: str) -> None:
    for number in range(7):
        with store.write() as tx:
            secrets.put(tx, ring, org, f"r{number}", "password", Secret(f"s{number}"), most_uses=3)
    with store.write() as tx:
        found = tx.execute(sa.select(data_keys.c.uses, data_keys.c.retired_at).order_by(data_keys.c.id)).all()
        assert [row.uses for row in found] == [3, 3, 1]
        assert [row.retired_at is None for row in found] == [False, False, True]
        newest = tx.scalar(sa.select(data_keys.c.id).where(data_keys.c.retired_at.is_(None)))
        secrets.put(
            tx, ring, org, "r0", "password", Secret("again"), most_uses=3
        )  # what is written moves to the new key
        assert tx.scalar(sa.select(rows.c.key_id).where(rows.c.record_id == "r0")) == newest
    assert [revealed(store, ring, org, f"r{number}") for number in range(1, 7)] == [
        f"s{number}" for number in range(1, 7)
    ]


def test_rotating_the_data_key(store: Store, ring: Keyring, org: str) -> None:
    other = organization(store, "beta")
    put(store, ring, other, "r0", text="untouched")
    for number in range(25):
        put(store, ring, org, f"r{number}", text=f"s{number}")
    with store.write() as tx:
        secrets.put(tx, ring, org, "r0", "token", Reference.parse("env:X"))
        before = {row.record_id: bytes(row.value) for row in tx.execute(sa.select(rows))}
    assert secrets.rotate(store, ring, org, batch=10) == 26
    with store.read() as tx:
        after = {row.record_id: bytes(row.value) for row in tx.execute(sa.select(rows).where(rows.c.org_id == org))}
        assert tx.scalar(sa.select(sa.func.count()).select_from(data_keys).where(data_keys.c.org_id == org)) == 1
        assert secrets.get(tx, ring, org, "r0", "token") == Reference.parse("env:X")
    assert all(before[record] != after[record] for record in after)
    assert [revealed(store, ring, org, f"r{number}") for number in range(25)] == [f"s{number}" for number in range(25)]
    assert revealed(store, ring, other, "r0") == "untouched"


def test_a_rotation_that_was_cut_short_is_finished_by_the_next(
    store: Store, ring: Keyring, org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        put(store, ring, org, f"r{number}", text=f"s{number}")
    step, calls = secrets.rotate_some, []

    def dies(*args: object) -> int | None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(secrets, "rotate_some", dies)
    with pytest.raises(KeyboardInterrupt):
        secrets.rotate(store, ring, org, batch=2)
    monkeypatch.setattr(secrets, "rotate_some", step)
    assert [revealed(store, ring, org, f"r{number}") for number in range(10)] == [f"s{number}" for number in range(10)]
    assert secrets.rotate(store, ring, org, batch=4) == 10
    with store.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(data_keys)) == 1


def test_a_field_that_was_tampered_with_stops_a_rotation(store: Store, ring: Keyring, org: str) -> None:
    put(store, ring, org, "r1")
    put(store, ring, org, "r2", text="two")
    with store.write() as tx:
        tx.execute(rows.update().where(rows.c.record_id == "r1").values(value=b"\x01" + bytes(40)))
    with pytest.raises(VaultError, match="'r1'"):
        secrets.rotate(store, ring, org)
    assert revealed(store, ring, org, "r2") == "two"


# ------------------------------------------------------------------------------------------------- rotation of the key-encryption key

WORKER = """
import os, sys
from dblens.errors import DBLensError
from dblens.redaction import Secret
from dblens.store import keys, secrets
from dblens.store.database import Store

url, org, other, spec = sys.argv[1], sys.argv[2], sys.argv[3], sys.stdin.readline().strip()
store, ring = Store.open(url), keys.parse(Secret(spec), "stdin")
def attempt(verb):
    try:
        with store.write() as tx:
            verb(tx)
        return "ok"
    except DBLensError as error:
        return f"{type(error).__name__}: {error.message}"
verbs = {
    "open": lambda tx: keys.adopt(tx, ring),
    "get": lambda tx: secrets.get(tx, ring, org, "r1", "password").reveal(),
    "put": lambda tx: secrets.put(tx, ring, org, "r2", "password", Secret("by the worker")),
    "new": lambda tx: secrets.put(tx, ring, other, "r9", "password", Secret("by the worker")),
}
for line in sys.stdin:
    print(attempt(verbs[line.strip()]), flush=True)
"""


def test_rotation_with_a_second_process_that_has_the_old_list(store: Store, ring: Keyring, org: str) -> None:
    other, ids = organization(store, "beta"), ring.ids
    put(store, ring, org, "r1")
    with store.write() as tx:
        secrets.put_instance(tx, ring, "smtp", Secret("mail"))
        before = tx.execute(sa.select(rows)).all()
    url = store.engine.url.set(drivername=store.engine.url.drivername.split("+")[0]).render_as_string(
        hide_password=False
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, org, other], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin
    assert worker.stdout

    def ask(*verbs: str) -> list[str]:
        answers = []
        for verb in verbs:
            worker.stdin.write(f"{verb}\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
            answers.append(worker.stdout.readline().strip())  # type: ignore[union-attr]
        return answers

    try:
        worker.stdin.write(spec(ring.first) + "\n")
        assert ask("open", "get", "put") == ["ok"] * 3
        rotated = Keyring((kek("k2"), ring.first))
        with store.write() as tx:
            keys.adopt(tx, rotated)  # the new list is given out; nothing is wrapped with the new key yet
        assert ask("open", "get", "put") == ["ok"] * 3
        with store.write() as tx:
            assert secrets.rewrap_all(tx, rotated) == 2
            assert secrets.rewrap_all(tx, rotated) == 0
        for answer in ask("get", "put", "new"):
            assert answer.startswith("VaultError: "), answer
            assert "'k" in answer
        assert ask("open")[0].startswith("StoreError: ")
    finally:
        worker.stdin.close()
        worker.wait(10)
    assert ids == ("k1",)
    with store.read() as tx:
        after = tx.execute(sa.select(rows).where(rows.c.record_id == "r1")).all()
        assert after == before  # no credential was touched
        assert set(tx.scalars(sa.select(data_keys.c.kek))) == {"k2"}
    alone = Keyring((rotated.first,))
    with store.write() as tx:
        keys.adopt(tx, alone)  # the old key is needed no more
        assert secrets.get_instance(tx, alone, "smtp").reveal() == "mail"
    assert revealed(store, alone, org, "r1") == CANARY
    assert revealed(store, alone, org, "r2") == "by the worker"


def test_a_retired_key_never_wraps_again(store: Store, ring: Keyring, org: str) -> None:
    put(store, ring, org, "r1")
    rotated = Keyring((kek("k2"), ring.first))
    with store.write() as tx:
        secrets.rewrap_all(tx, rotated)
    back = Keyring((ring.first, rotated.first))
    with pytest.raises(StoreError, match="'k1' was retired"), store.write() as tx:
        keys.adopt(tx, back)
    for verb in (
        lambda tx: secrets.rewrap_all(tx, back),
        lambda tx: secrets.put_instance(tx, back, "smtp", Secret("x")),
    ):
        with pytest.raises(VaultError, match="'k1' was retired"), store.write() as tx:
            verb(tx)
    assert revealed(store, back, org, "r1") == CANARY


def test_a_wrong_key_fails_when_the_store_is_opened(store: Store, ring: Keyring, org: str) -> None:
    put(store, ring, org, "r1")
    for wrong, told in (
        (Keyring((kek("k1"),)), "'k1' is not the one"),
        (Keyring((kek("k9"),)), "needs the key-encryption key 'k1'"),
    ):
        with pytest.raises(StoreError, match=told) as refused, store.write() as tx:
            keys.adopt(tx, wrong)
        assert refused.value.hint
        with store.read() as tx:
            check = tx.scalar(sa.select(meta.c.value).where(meta.c.key == keys.CHECK))
        assert keys.fits(ring, check)
        assert not keys.fits(wrong, check)
    with store.write() as tx:
        tx.execute(meta.delete())
    with pytest.raises(StoreError, match="check value"), store.write() as tx:
        keys.adopt(tx, ring)
    for damaged in ("", "{}", "[]", '{"used": 5}'):
        with pytest.raises(StoreError, match="damaged"):
            keys.fits(ring, damaged)


# ------------------------------------------------------------------------------------------------------------------------ canary


def test_the_canary_is_nowhere(store: Store, ring: Keyring, org: str, caplog: pytest.LogCaptureFixture) -> None:
    """Through every verb, successful and failing, at the most talkative log level."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    told: list[str] = []
    canary = Secret(CANARY)
    try:
        with store.write() as tx:
            secrets.put(tx, ring, org, "r1", "password", canary)
            secrets.put_instance(tx, ring, "smtp", canary)
            found = secrets.get(tx, ring, org, "r1", "password")
            assert found == canary
            told.append(repr((ring, found, secrets.list_secrets(tx, org, "r1"))))
        secrets.rotate(store, ring, org)
        with store.write() as tx:
            secrets.rewrap_all(tx, Keyring((kek("k2"), ring.first)))

        def failing() -> None:
            with store.write() as tx:
                secrets.put(tx, Keyring((kek("k8"),)), org, "r1", "password", canary)

        def failing_late() -> None:
            with store.write() as tx:
                tx.execute(sa.text("drop table secrets"))
                secrets.put(tx, Keyring((kek("k3"), ring.first)), org, "r1", "password", canary)

        for verb in (failing, failing_late):
            try:
                verb()
            except Exception as error:  # noqa: BLE001
                told.extend(traceback.format_exception(error))
                told.extend(traceback.TracebackException.from_exception(error, capture_locals=True).format())
                told.append(str(error) + repr(error))
            else:
                raise AssertionError("it did not fail")
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
    log = caplog.text + "".join(repr(record.__dict__) for record in caplog.records)
    for text in (log, *told):
        for form in (CANARY, repr(CANARY)[1:-1], base64.b64encode(CANARY.encode()).decode()):
            assert form not in text
        assert ring.first.octets().hex() not in text
        assert repr(ring.first.octets())[2:-1] not in text
    lies = dump(store)
    assert len(lies) > 1000
    for octets in (
        CANARY.encode(),
        base64.b64encode(CANARY.encode()),
        ring.first.octets(),
        base64.b64encode(ring.first.octets()),
    ):
        assert octets not in lies


def test_keys_are_not_shown_or_pickled(ring: Keyring) -> None:
    for thing in (ring, ring.first):
        assert ring.first.octets().hex() not in repr(thing) + str(thing)
        for carried in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode):
            with pytest.raises(TypeError):
                carried(thing)  # type: ignore[operator]


def test_secrets_of_the_instance(store: Store, ring: Keyring) -> None:
    with store.write() as tx:
        secrets.put_instance(tx, ring, "smtp", Secret("one"))
        secrets.put_instance(tx, ring, "smtp", Secret("two"))
        secrets.put_instance(tx, ring, "webhook", Secret("three"))
        assert secrets.get_instance(tx, ring, "smtp").reveal() == "two"
        value = tx.scalar(sa.select(meta.c.value).where(meta.c.key == "secret.smtp"))
        tx.execute(meta.update().where(meta.c.key == "secret.webhook").values(value=value))
    with store.read() as tx:
        for text in ("webhook",):
            with pytest.raises(VaultError):
                secrets.get_instance(tx, ring, text)
    for damaged in ("", "{}", '{"kek":"k1","value":"?"}', '{"kek":"k1","value":""}', '{"kek":"k7","value":""}'):
        with store.write() as tx:
            tx.execute(meta.update().where(meta.c.key == "secret.webhook").values(value=damaged))
            with pytest.raises(VaultError):
                secrets.get_instance(tx, ring, "webhook")
    with store.write() as tx:
        secrets.delete_instance(tx, "smtp")
        for verb in (lambda: secrets.get_instance(tx, ring, "smtp"), lambda: secrets.delete_instance(tx, "smtp")):
            with pytest.raises(NotFound):
                verb()


def test_time_is_told(store: Store, ring: Keyring, org: str) -> None:
    at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    with store.write() as tx:
        secrets.put(tx, ring, org, "r1", "password", Secret("x"), now=at)
        assert secrets.list_secrets(tx, org, "r1")[0].updated_at == at
