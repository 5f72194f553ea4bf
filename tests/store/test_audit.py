"""The audit's chain: every way to change it without the key is found, by number."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dblens.errors import InvalidInput, StoreError
from dblens.store import audit as chain
from dblens.store.audit import Entry, Verdict
from dblens.store.database import Store
from dblens.store.tables import audit, meta

KEY, OTHER = b"k" * 32, b"o" * 32
AT = dt.datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=dt.UTC)
CHECKPOINT = Entry(at=AT, phase="checkpoint", action="audit.retain", actor="ann")


def entry(number: int, **more: object) -> Entry:
    fields = {
        "at": AT + dt.timedelta(minutes=number),
        "phase": "read",
        "action": "catalog.read",
        "actor": f"user {number}",
    }
    return Entry(**{**fields, **more})  # type: ignore[arg-type]


def fill(store: Store, count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        with store.write() as tx:
            chain.append(tx, KEY, [entry(number, detail={"n": number, "x": [1, None, "ä"]})])


def verify(store: Store, key: bytes = KEY, *heads: str) -> Verdict:
    with store.snapshot() as tx:
        return chain.verify(tx, key, heads=[chain.read_head(head) for head in heads])


def head(store: Store) -> str:
    with store.read() as tx:
        return chain.export_head(tx, KEY, now=AT)


def change(store: Store, *statements: sa.Executable) -> None:
    with store.write() as tx:
        for statement in statements:
            tx.execute(statement)


def test_an_empty_audit_is_whole(store: Store) -> None:
    assert verify(store).ok
    assert verify(store, KEY, head(store)).ok


def test_rows_are_numbered_linked_and_found_whole(store: Store) -> None:
    with store.write() as tx:
        made = chain.append(tx, KEY, [entry(n) for n in range(5)])
    fill(store, 3, 6)
    assert [row.number for row in made] == [1, 2, 3, 4, 5]
    assert [row.previous for row in made[1:]] == [row.mac for row in made[:-1]]
    verdict = verify(store, KEY, head(store))
    assert (verdict.ok, verdict.rows, verdict.first, verdict.last, verdict.heads) == (True, 8, 1, 8, 1)


def test_a_batch_is_all_or_nothing(store: Store) -> None:
    def half() -> None:
        with store.write() as tx:
            row = chain.append(tx, KEY, [entry(1), entry(2)])[1]
            tx.execute(audit.insert().values(**{name: getattr(row, name) for name in row.__struct_fields__}))

    with pytest.raises(sa.exc.IntegrityError):
        half()
    fill(store, 1)
    assert verify(store).rows == 1


EDITS: dict[str, dict[str, object]] = {
    "at": {"at": AT},
    "org_id": {"org_id": "another"},
    "phase": {"phase": "denied"},
    "actor_id": {"actor_id": "0" * 32},
    "actor": {"actor": "somebody else"},
    "action": {"action": "catalog.none"},
    "connection_id": {"connection_id": "1"},
    "target": {"target": ""},
    "outcome": {"outcome": "ok"},
    "microseconds": {"microseconds": 0},
    "client": {"client": "x"},
    "address": {"address": "::1"},
    "run_id": {"run_id": "1"},
    "detail": {"detail": {"n": 4, "x": [1, None, "a"]}},
    "mac": {"mac": b"m" * 32},
    "previous": {"previous": b"m" * 32},
}


@pytest.mark.parametrize("field", EDITS)
def test_an_edit_of_any_field_is_found(store: Store, field: str) -> None:
    fill(store, 6)
    change(store, audit.update().where(audit.c.number == 4).values(**EDITS[field]))
    verdict = verify(store)
    assert verdict.broken is not None
    assert verdict.broken.number == 4


def test_every_field_is_edited_above() -> None:
    assert set(EDITS) == set(audit.c.keys()) - {"number"}


def _swap(store: Store) -> None:
    for now, then in ((3, 99), (4, 3), (99, 4)):
        change(store, audit.update().where(audit.c.number == now).values(number=then))


def _insert(store: Store) -> None:
    """Make room at 4 and put a copy of row 2 there."""
    for number in (6, 5, 4):
        change(store, audit.update().where(audit.c.number == number).values(number=number + 1))
    with store.write() as tx:
        row = dict(tx.execute(sa.select(audit).where(audit.c.number == 2)).mappings().one())
        tx.execute(audit.insert().values(**{**row, "number": 4}))


def _rewrite(store: Store) -> None:
    """Write the whole chain anew, without the key."""
    with store.write() as tx:
        entries = [entry(number) for number in range(1, 7)]
        tx.execute(audit.delete())
        tx.execute(meta.delete())
        chain.append(tx, OTHER, entries)


def _append_without_key(store: Store) -> None:
    with store.write() as tx:
        row = dict(tx.execute(sa.select(audit).where(audit.c.number == 6)).mappings().one())
        tx.execute(audit.insert().values(**{**row, "number": 7, "previous": row["mac"]}))


def _forge_head(store: Store) -> None:
    change(store, audit.delete().where(audit.c.number > 4))
    with store.write() as tx:
        mac = tx.scalar(sa.select(audit.c.mac).where(audit.c.number == 4))
        sealed = json.loads(tx.scalar(sa.select(meta.c.value)))
        tx.execute(meta.update().values(value=json.dumps({**sealed, "number": 4, "mac": mac.hex()})))


TAMPERING: list[tuple[str, Callable[[Store], object], int]] = [
    ("delete one", lambda s: change(s, audit.delete().where(audit.c.number == 4)), 4),
    ("delete some", lambda s: change(s, audit.delete().where(audit.c.number.between(2, 4))), 2),
    ("cut the beginning", lambda s: change(s, audit.delete().where(audit.c.number <= 2)), 1),
    ("cut the end", lambda s: change(s, audit.delete().where(audit.c.number > 4)), 5),
    ("cut the end and the head", lambda s: change(s, audit.delete().where(audit.c.number > 4), meta.delete()), 4),
    ("cut the end and forge the head", _forge_head, 0),
    ("delete all", lambda s: change(s, audit.delete()), 1),
    ("swap two", _swap, 3),
    ("insert", _insert, 4),
    ("append without the key", _append_without_key, 7),
    ("write all anew without the key", _rewrite, 1),
    ("drop the head", lambda s: change(s, meta.delete()), 6),
]


@pytest.mark.parametrize(
    ("tamper", "number"), [(t, n) for _, t, n in TAMPERING], ids=[name for name, _, _ in TAMPERING]
)
def test_tampering_is_found_and_named(store: Store, tamper: Callable[[Store], object], number: int) -> None:
    fill(store, 6)
    tamper(store)
    verdict = verify(store)
    assert verdict.broken is not None
    assert verdict.broken.number == number
    assert not verdict.ok


def _older_copy(store: Store) -> Callable[[], None]:
    """Return what puts back all that the database holds now: rows and sealed head."""
    with store.read() as tx:
        rows = [dict(row) for row in tx.execute(sa.select(audit)).mappings()]
        heads = [dict(row) for row in tx.execute(sa.select(meta)).mappings()]

    def put_back() -> None:
        with store.write() as tx:
            tx.execute(audit.delete())
            tx.execute(meta.delete())
            tx.execute(audit.insert(), rows)
            tx.execute(meta.insert(), heads)

    return put_back


def test_an_old_copy_put_back_is_found_with_an_exported_head_only(store: Store) -> None:
    fill(store, 3)
    put_back = _older_copy(store)
    fill(store, 3, 4)
    exported = head(store)
    put_back()
    assert verify(store).ok  # all that the database holds is genuine: this is why heads are carried off
    verdict = verify(store, KEY, exported)
    assert verdict.broken is not None
    assert verdict.broken.number == 4
    fill(store, 5, 90)  # and going on from there does not hide it
    verdict = verify(store, KEY, exported)
    assert verdict.broken is not None
    assert verdict.broken.number == 6
    assert "exported head" in verdict.broken.what


def test_genuine_rows_of_two_histories_do_not_fit_together(store: Store) -> None:
    fill(store, 3)
    put_back = _older_copy(store)
    fill(store, 3, 4)
    with store.read() as tx:
        other = dict(tx.execute(sa.select(audit).where(audit.c.number == 4)).mappings().one())
    put_back()
    fill(store, 3, 70)
    assert verify(store).ok
    change(store, audit.update().where(audit.c.number == 4).values(**other))
    verdict = verify(store)
    assert verdict.broken is not None
    assert (verdict.broken.number, verdict.broken.what) == (5, "it does not follow row 4")


def test_an_old_head_put_back_under_newer_rows_is_found(store: Store) -> None:
    fill(store, 3)
    with store.read() as tx:
        old = tx.scalar(sa.select(meta.c.value))
    fill(store, 3, 4)
    change(store, meta.update().values(value=old))
    verdict = verify(store)
    assert verdict.broken is not None
    assert verdict.broken.number == 4


def test_a_head_of_another_key_proves_nothing(store: Store) -> None:
    fill(store, 2)
    forged = json.loads(head(store))
    for name, value in {"number": 1, "mac": "00" * 32, "seal": "00" * 32, "at": "1970"}.items():
        with pytest.raises(InvalidInput, match="not sealed with this key"):
            verify(store, KEY, json.dumps({**forged, name: value}))
    with pytest.raises(InvalidInput, match="unknown field"):
        verify(store, KEY, json.dumps({**forged, "more": 1}))
    with pytest.raises(InvalidInput, match="no exported head"):
        chain.read_head(b"\xff")


def test_nothing_is_added_to_a_chain_whose_head_is_gone_or_forged(store: Store) -> None:
    fill(store, 3)
    for statement in (meta.update().values(value="{}"), meta.update().values(value=""), meta.delete()):
        change(store, statement)
        with pytest.raises(StoreError, match="head is missing or was not sealed"):
            fill(store, 1)
    with store.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(audit)) == 3


def test_nothing_is_added_with_another_key(store: Store) -> None:
    fill(store, 3)
    with pytest.raises(StoreError, match="not sealed with this key"), store.write() as tx:
        chain.append(tx, OTHER, [entry(9)])
    assert verify(store, OTHER).broken is not None
    with pytest.raises(InvalidInput, match="has 3 bytes"), store.write() as tx:
        chain.append(tx, b"abc", [entry(9)])


@pytest.mark.parametrize("column", ["at", "detail", "mac", "previous", "actor", "microseconds"])
def test_what_is_no_row_at_all_is_a_broken_link(tmp_path: Path, column: str) -> None:
    """Only SQLite keeps anything anywhere."""
    store = Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create_all()
    fill(store, 3)
    with store.write() as tx:
        tx.exec_driver_sql(f"UPDATE audit SET {column} = 'nonsense' WHERE number = 2")
    verdict = verify(store)
    assert verdict.broken is not None
    assert verdict.broken.number == 2
    store.close()


# --------------------------------------------------------------------------------------------------------------------- retention


def retain(store: Store, minute: int) -> chain.Row | None:
    with store.write() as tx:
        return chain.retain(tx, KEY, before=AT + dt.timedelta(minutes=minute), note=CHECKPOINT)


def test_retention_deletes_a_beginning_and_says_so_in_the_chain(store: Store) -> None:
    fill(store, 10)
    old = head(store)
    made = retain(store, 5)
    assert made is not None
    assert (made.number, made.phase, made.detail["first"], made.detail["through"]) == (11, "checkpoint", 1, 4)
    verdict = verify(store, KEY, old)
    assert (verdict.ok, verdict.rows, verdict.first, verdict.last) == (True, 7, 5, 11)
    assert retain(store, 5) is None
    fill(store, 3, 12)
    again = retain(store, 9)
    assert again is not None
    assert again.detail["through"] == 8
    verdict = verify(store, KEY, old, head(store))
    assert (verdict.ok, verdict.first, verdict.heads) == (True, 9, 2)
    assert retain(store, 13) is not None
    assert verify(store, KEY, old).old_heads == 1


def test_retention_of_everything_leaves_the_checkpoint(store: Store) -> None:
    fill(store, 3)
    assert retain(store, 60) is not None
    verdict = verify(store)
    assert (verdict.ok, verdict.rows, verdict.first) == (True, 1, 4)
    fill(store, 2, 99)
    assert verify(store).ok


def test_a_younger_row_keeps_all_that_follow_it(store: Store) -> None:
    with store.write() as tx:
        chain.append(tx, KEY, [entry(1), entry(50), entry(2), entry(3)])
    made = retain(store, 10)
    assert made is not None
    assert made.detail["through"] == 1
    assert retain(store, 10) is None


@pytest.mark.parametrize("number", [2, 4])
def test_retention_does_not_delete_the_traces_of_tampering(store: Store, number: int) -> None:
    fill(store, 10)
    change(store, audit.update().where(audit.c.number == number).values(actor="nobody"))
    with pytest.raises(StoreError, match=f"broken at row {number}.*nothing was deleted"):
        retain(store, 5)
    change(store, audit.delete().where(audit.c.number == number))
    with pytest.raises(StoreError, match="nothing was deleted"):
        retain(store, 6)


def test_a_beginning_cut_without_checkpoint_stays_found(store: Store) -> None:
    fill(store, 10)
    retain(store, 5)
    change(store, audit.delete().where(audit.c.number == 5))
    verdict = verify(store)
    assert verdict.broken is not None
    assert "no checkpoint" in verdict.broken.what
    with pytest.raises(StoreError, match="nothing was deleted"):
        retain(store, 8)


def test_a_checkpoint_cannot_be_forged(store: Store) -> None:
    fill(store, 10)
    with store.write() as tx:
        mac = tx.scalar(sa.select(audit.c.mac).where(audit.c.number == 4)).hex()
        values = {"phase": "checkpoint", "detail": {"first": 1, "through": 4, "mac": mac}}
        tx.execute(audit.update().where(audit.c.number == 8).values(**values))
        tx.execute(audit.delete().where(audit.c.number <= 4))
    verdict = verify(store)
    assert verdict.broken is not None
    assert verdict.broken.number == 8


# ------------------------------------------------------------------------------------------------------------------------- fields

TEXT = st.text(st.characters(), max_size=60)  # NUL and lone surrogates too
DETAIL = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actor=TEXT, target=st.none() | TEXT, client=st.text(max_size=400), detail=st.dictionaries(TEXT, DETAIL, max_size=4)
)
def test_whatever_it_holds_a_row_is_kept_and_verified(
    store: Store, actor: str, target: str | None, client: str, detail: dict[str, object]
) -> None:
    with store.write() as tx:
        made = chain.append(tx, KEY, [entry(1, actor=actor, target=target, client=client, detail=detail)])[0]
    with store.read() as tx:
        row = tx.execute(sa.select(audit).where(audit.c.number == made.number)).mappings().one()
    assert chain.Row(**row) == made
    assert verify(store).ok


NEAR = st.tuples(st.text("a-1:t", max_size=4), st.none() | st.text("a-1:t", max_size=4))


@settings(max_examples=400)
@given(a=NEAR, b=NEAR)
@example(a=("aa", "a"), b=("a", "aa"))
@example(a=("a", None), b=("a", "-"))
@example(a=("a", ""), b=("a", None))
def test_no_two_rows_have_the_same_encoding(a: tuple[str, str | None], b: tuple[str, str | None]) -> None:
    """Of two neighbours nothing moves from one to the other, and nothing is not a text."""

    def mac(pair: tuple[str, str | None]) -> bytes:
        fields = {name: getattr(entry(1, action=pair[0], actor_id=pair[1]), name) for name in Entry.__struct_fields__}
        return chain._mac(KEY, 1, b"", fields)

    assert (mac(a) == mac(b)) == (a == b)


def test_a_value_that_is_no_plain_one_is_named_by_its_type_only(store: Store) -> None:
    class Key:
        def __repr__(self) -> str:
            return "canary"

    with store.write() as tx:
        made = chain.append(tx, KEY, [entry(1, detail={"a": Key(), "b": b"canary", "c": 1.5})])[0]
    assert made.detail == {"a": "<Key>", "b": "<bytes>", "c": "<float>"}


def test_a_huge_detail_is_cut(store: Store) -> None:
    with store.write() as tx:
        chain.append(tx, KEY, [entry(1, target="t" * 10_000, detail={str(n): "x" * 3000 for n in range(100)})])
        assert tx.scalar(sa.select(sa.func.length(sa.cast(audit.c.detail, sa.Text)))) < 5000
    assert verify(store).ok
