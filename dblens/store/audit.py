"""The audit: rows that are only ever added, each sealed to the one before it with a key that the database does not hold.

`mac = HMAC-SHA256(key, number, previous mac, every field)`, so that a changed, inserted, moved or missing row shows, and nobody
without the key can write the chain anew. The newest number and mac lie sealed in `meta`, so that a cut end shows as well. Who can
write the database may put back an old copy of all of it, seal included: only a head that was carried off the machine
(`export_head`) finds that. Old rows go as a whole beginning of the chain, and a checkpoint row says how far (`retain`).

One writer at a time: `BEGIN IMMEDIATE` on SQLite, the head's row locked on PostgreSQL.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput, StoreError
from dblens.store.database import Transaction
from dblens.store.tables import audit, meta

Phase: TypeAlias = Literal["started", "ended", "denied", "read", "checkpoint"]

KEY_SIZE: Final = 32
NOTHING: Final = bytes(32)
"""What the first row of all follows."""
_HEAD: Final = "audit.head"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_STEP = 1000
_LONGEST = 4000
_LONGEST_DETAIL = 16_000


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is told to the audit. `run_id` is the call: a start and its end have the same."""

    at: dt.datetime
    phase: Phase
    action: str
    actor_id: str | None = None
    actor: str = ""
    org_id: str | None = None
    connection_id: str | None = None
    target: str | None = None
    outcome: str | None = None
    microseconds: int | None = None
    client: str = ""
    address: str = ""
    run_id: str | None = None
    detail: dict[str, Any] = {}


class Row(Entry, frozen=True, kw_only=True):
    """An entry with its place in the chain."""

    number: int
    previous: bytes
    mac: bytes


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of the chain at an instant, to be kept where the database's writers cannot reach it."""

    format: Literal["dblens-audit-head/1"] = "dblens-audit-head/1"
    number: int
    mac: str
    at: str
    seal: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The first link that does not hold. `number` is the row where it shows."""

    number: int
    what: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found; `rows` were looked at, `first` is the oldest kept. `old_heads` lie before it and prove nothing now."""

    ok: bool
    rows: int
    first: int | None
    last: int | None
    broken: Broken | None
    heads: int = 0
    old_heads: int = 0


# ------------------------------------------------------------------------------------------------------------------------ write


def append(tx: Transaction, key: bytes, entries: Sequence[Entry]) -> list[Row]:
    """Add entries to the end of the chain, all or none. Raises StoreError when the head is missing or not ours."""
    if not entries:
        return []
    number, mac = _locked(tx, key)
    made = []
    for entry in entries:
        fields = _fitting(entry)
        number, previous = number + 1, mac
        mac = _mac(key, number, previous, fields)
        made.append({**fields, "number": number, "previous": previous, "mac": mac})
    tx.execute(audit.insert(), made)
    _seal(tx, key, number, mac)
    return [Row(**fields) for fields in made]


def retain(tx: Transaction, key: bytes, *, before: dt.datetime, note: Entry) -> Row | None:
    """Delete the rows at the chain's beginning that are older than an instant, and add a checkpoint row with the fields of `note`.

    A row that is not older keeps all that follow it. Return the checkpoint, None when nothing was old enough. Raises StoreError,
    with nothing deleted, when the rows to delete are not whole: deleting them would hide that.
    """
    last, last_mac = _locked(tx, key)
    kept = tx.scalar(sa.select(sa.func.min(audit.c.number)).where(audit.c.at >= before))
    through = last if kept is None else kept - 1
    first = tx.scalar(sa.select(sa.func.min(audit.c.number)))
    if first is None or first > through:
        return None
    walk = _Walk(key)
    for _ in walk.rows(tx, through):
        pass
    broken = walk.broken or walk.beginning(_checkpoints(tx, key))
    if broken is None and (walk.last != through or (through == last and walk.mac != last_mac)):
        broken = Broken(number=walk.last or 0, what="the rows after it are missing")
    if broken is not None:
        raise StoreError(
            f"the audit is broken at row {broken.number}: {broken.what}; nothing was deleted",
            hint="`dblens audit verify` tells more; keep a copy of the store",
        )
    tx.execute(audit.delete().where(audit.c.number <= through))
    detail = {**note.detail, "first": first, "through": through, "mac": walk.mac.hex(), "before": before.isoformat()}
    return append(tx, key, [msgspec.structs.replace(note, phase="checkpoint", detail=detail)])[0]


def _locked(tx: Transaction, key: bytes) -> tuple[int, bytes]:
    """Lock the chain's end for this transaction and return it."""
    _usable(key)
    if tx.dialect.name == "postgresql":  # a writer that hangs must not hang everybody
        tx.exec_driver_sql("SET LOCAL lock_timeout = '15s'")
    query = sa.select(meta.c.value).where(meta.c.key == _HEAD).with_for_update()
    value = tx.scalar(query)
    if value is None:
        # The first writer of all makes the row; of two at once the second waits for the first and then finds it.
        insert: Any
        if tx.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert
        tx.execute(insert(meta).values(key=_HEAD, value="").on_conflict_do_nothing())
        value = tx.scalar(query)
        if not value and tx.scalar(sa.select(sa.func.count()).select_from(audit)) == 0:
            return 0, NOTHING
    return _opened(key, value or "")


def _opened(key: bytes, value: str) -> tuple[int, bytes]:
    """Return number and mac of a sealed head of ours. Raises StoreError."""
    try:
        kept = msgspec.json.decode(value, type=Head)
        if hmac.compare_digest(kept.seal, _sealed(key, kept.number, kept.mac, kept.at)):
            return kept.number, bytes.fromhex(kept.mac)
    except (msgspec.DecodeError, ValueError):
        pass
    raise StoreError(
        "the audit's head is missing or was not sealed with this key",
        hint="give the key the audit was written with; `dblens audit verify` tells whether somebody changed it",
    )


def _seal(tx: Transaction, key: bytes, number: int, mac: bytes) -> None:
    head = _head(key, number, mac, dt.datetime.now(dt.UTC))
    text = msgspec.json.encode(head).decode()
    tx.execute(meta.update().where(meta.c.key == _HEAD).values(value=text))


def _head(key: bytes, number: int, mac: bytes, at: dt.datetime) -> Head:
    when = at.isoformat()
    return Head(number=number, mac=mac.hex(), at=when, seal=_sealed(key, number, mac.hex(), when))


def _sealed(key: bytes, number: int, mac: str, at: str) -> str:
    return hmac.new(key, f"dblens-audit-head/1\n{number}\n{mac}\n{at}".encode(), hashlib.sha256).hexdigest()


def _usable(key: bytes) -> None:
    if len(key) < KEY_SIZE:
        raise InvalidInput(f"the audit's key has {len(key)} bytes", hint=f"at least {KEY_SIZE} random bytes")


# ------------------------------------------------------------------------------------------------------------- canonical encoding

_FIELDS = tuple(name for name in Entry.__struct_fields__)
_SIZES = {name: getattr(audit.c[name].type, "length", None) or _LONGEST for name in _FIELDS}


def _fitting(entry: Entry) -> dict[str, Any]:
    """Return an entry's fields as every store keeps them: no NUL, no lone surrogate, nothing longer than its column.

    They are made to fit rather than refused, or a caller with a long user agent could do nothing.
    """
    fields = {name: getattr(entry, name) for name in _FIELDS}
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _text(value, _SIZES[name])
    fields["at"] = _EPOCH + (entry.at - _EPOCH) // _MICROSECOND * _MICROSECOND
    fields["detail"] = _plain(entry.detail)
    if len(encoded := _json(fields["detail"])) > _LONGEST_DETAIL:
        fields["detail"] = {"cut": _text(encoded, _LONGEST)}
    return fields


def _text(value: str, longest: int) -> str:
    if not value.isascii() or "\0" in value:
        value = "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in value)
    return value if len(value) <= longest else value[: longest - 1] + "…"


def _plain(value: object) -> Any:
    """Return what JSON keeps exactly; anything else is named by its type, never shown."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value, _LONGEST)
    if isinstance(value, Mapping):
        return {_text(str(name), 100): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _mac(key: bytes, number: object, previous: object, fields: Mapping[str, Any]) -> bytes:
    parts = [b"dblens-audit-row/1\n", _part(number), _part(previous)]
    for name in _FIELDS:
        value = fields[name]
        if name == "detail":
            value = _json(value)
        elif isinstance(value, dt.datetime):
            value = (value - _EPOCH) // _MICROSECOND
        parts.append(_part(value))
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def _part(value: object) -> bytes:
    """Encode a field so that no two rows have the same bytes: its kind, its length, itself."""
    if value is None:
        return b"-"
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return b"t%d:%b" % (len(raw), raw)
    if isinstance(value, bytes):
        return b"b%d:%b" % (len(value), value)
    raw = str(value).encode()
    return b"n%d:%b" % (len(raw), raw)


# ----------------------------------------------------------------------------------------------------------------------- verify


def export_head(tx: Transaction, key: bytes, *, now: dt.datetime) -> str:
    """Return the chain's end as JSON, to be kept off this machine. Raises StoreError when it is missing or not ours."""
    _usable(key)
    value = tx.scalar(sa.select(meta.c.value).where(meta.c.key == _HEAD))
    number, mac = (0, NOTHING) if value is None else _opened(key, value)
    return msgspec.json.encode(_head(key, number, mac, now)).decode()


def read_head(text: str | bytes) -> Head:
    """Read what `export_head` wrote. Raises InvalidInput."""
    try:
        return msgspec.json.decode(text, type=Head)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidInput(
            f"this is no exported head of an audit: {error}", hint="`dblens audit head` writes one"
        ) from error


def verify(tx: Transaction, key: bytes, *, heads: Sequence[Head] = ()) -> Verdict:
    """Look at every link and name the first that is broken. Needs a transaction of `Store.snapshot`.

    `heads` were exported before. Raises InvalidInput for one that this key did not seal.
    """
    _usable(key)
    for head in heads:
        if not hmac.compare_digest(head.seal, _sealed(key, head.number, head.mac, head.at)):
            raise InvalidInput(f"the exported head of row {head.number} was not sealed with this key")
    wanted = {head.number: head.mac for head in heads}
    walk = _Walk(key)
    sealed, broken = _end(tx, key)
    for number, mac in walk.rows(tx):
        if number in wanted and wanted[number] != mac.hex():
            walk.broken = Broken(number=number, what="it is not the row that the exported head names")
            break
        if broken is None and sealed[0] == number and sealed[1] != mac:
            walk.broken = Broken(number=number, what="it is not the row that the sealed head names")
            break
    last = walk.last
    found = walk.broken or walk.beginning(walk.checkpoints) or broken
    if found is None:
        end = max([sealed[0], *wanted])
        if (last or 0) < end:
            found = Broken(number=(last or 0) + 1, what=f"the end is missing: there was a row {end}")
        elif (last or 0) > sealed[0]:
            found = Broken(number=sealed[0] + 1, what="the sealed head does not know it: an old head was put back")
    old = sum(number < (walk.first or 1) for number in wanted)
    return Verdict(
        ok=found is None,
        rows=walk.count,
        first=walk.first,
        last=last,
        broken=found,
        heads=len(wanted) - old,
        old_heads=old,
    )


def _end(tx: Transaction, key: bytes) -> tuple[tuple[int, bytes], Broken | None]:
    """Return number and mac of the sealed head, or what is wrong with it."""
    value = tx.scalar(sa.select(meta.c.value).where(meta.c.key == _HEAD))
    if value is None:
        last = tx.scalar(sa.select(sa.func.max(audit.c.number)))
        lost = None if last is None else Broken(number=last, what="the sealed head is missing")
        return (0, NOTHING), lost
    try:
        return _opened(key, value), None
    except StoreError:
        return (0, NOTHING), Broken(number=0, what="the head was not sealed with this key")


def _checkpoints(tx: Transaction, key: bytes) -> dict[int, str]:
    """Return what the genuine checkpoint rows say: through which row, and its mac."""
    found: dict[int, str] = {}
    for row in tx.execute(_raw().where(audit.c.phase == "checkpoint").order_by(audit.c.number)).mappings():
        fields = _loaded(row)
        if fields is not None and hmac.compare_digest(_mac(key, row["number"], row["previous"], fields), row["mac"]):
            found[fields["detail"].get("through")] = fields["detail"].get("mac")
    return found


def _raw() -> sa.Select[Any]:
    """Select rows as they lie in the store: somebody may have written there what the column's type cannot read."""
    columns: list[Any] = [audit.c.number, audit.c.previous, audit.c.mac]
    for name in _FIELDS:
        column: Any = audit.c[name]
        if name == "at":
            column = sa.type_coerce(column, sa.BigInteger)
        elif name == "detail":
            column = sa.cast(column, sa.Text)
        columns.append(column.label(name))
    return sa.select(*columns)


def _loaded(row: Any) -> dict[str, Any] | None:
    """Return the fields of a raw row, None when what lies there is no audit row at all."""
    fields = {name: row[name] for name in _FIELDS}
    try:
        fields["detail"] = json.loads(fields["detail"])
    except (TypeError, ValueError):
        return None
    return fields if isinstance(row["mac"], bytes) and isinstance(fields["detail"], dict) else None


class _Walk:
    """One way along the chain, in pages."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.broken: Broken | None = None
        self.first: int | None = None
        self.last: int | None = None
        self.count = 0
        self.mac = NOTHING
        self.before: bytes = NOTHING
        """What the oldest row kept says it follows."""
        self.checkpoints: dict[int, str] = {}

    def rows(self, tx: Transaction, through: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield number and mac of every row whose link holds, and stop at the first that does not."""
        last = None
        while True:
            query = _raw().order_by(audit.c.number).limit(_STEP)
            if last is not None:
                query = query.where(audit.c.number > last)
            if through is not None:
                query = query.where(audit.c.number <= through)
            rows = tx.execute(query).mappings().all()
            for row in rows:
                self.broken = self._look(row, last)
                if self.broken is not None:
                    return
                last = row["number"]
                self.last, self.mac, self.count = last, row["mac"], self.count + 1
                yield last, self.mac
            if len(rows) < _STEP:
                return

    def _look(self, row: Any, last: int | None) -> Broken | None:
        number = row["number"]
        if last is None:
            self.first, self.before = number, row["previous"]
        elif number != last + 1:
            return Broken(
                number=last + 1,
                what="the row is missing" if number == last + 2 else f"rows to {number - 1} are missing",
            )
        fields = _loaded(row)
        if fields is None or not hmac.compare_digest(_mac(self.key, number, row["previous"], fields), row["mac"]):
            return Broken(number=number, what="it was changed, or written without the key")
        if last is not None and row["previous"] != self.mac:
            return Broken(number=number, what=f"it does not follow row {last}")
        if fields["phase"] == "checkpoint":
            self.checkpoints[fields["detail"].get("through")] = fields["detail"].get("mac")
        return None

    def beginning(self, checkpoints: Mapping[int, str]) -> Broken | None:
        """Return what is wrong with the chain's beginning: it is the first row of all, or a checkpoint says what was before."""
        if self.first is None or (self.first == 1 and self.before == NOTHING):
            return None
        if self.first > 1 and checkpoints.get(self.first - 1) == self.before.hex():
            return None
        return Broken(number=1, what=f"the rows before {self.first} are missing, and no checkpoint tells of it")
