"""The target's side of a run: record, ledger, staged collections, swap with a journal, merge with a pre-image.

MongoDB renames one collection at a time. Every move is settled by looking which of live, staged and previous exist, so a swap or unswap
that stopped anywhere is completed by calling it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import OperationFailure
from pymongo.operations import DeleteOne, InsertOne, ReplaceOne

from dblens.engines.base import Chunk, ConflictRule, MergeCounts, Move, Place, RunRecord, RunState
from dblens.engines.mongodb import extjson, names
from dblens.engines.mongodb.errors import guard
from dblens.errors import Conflict, Irreversible, NotFound
from dblens.events import Report, StepDone

if TYPE_CHECKING:
    from dblens.engines.mongodb.session import MongoSession

_BATCH = 1000


class Runs:
    """The control collections of one database."""

    def __init__(self, session: MongoSession) -> None:
        self._session = session
        database = session.durable
        self._runs: Collection[dict[str, Any]] = database[names.RUNS]
        self._chunks: Collection[dict[str, Any]] = database[names.CHUNKS]

    # ---- records

    def read(self, run: str) -> RunRecord | None:
        """Return a run's record."""
        found = self._runs.find_one({"_id": {"run": run}})
        return None if found is None else msgspec.json.decode(found["record"], type=RunRecord)

    def all(self) -> list[RunRecord]:
        """Return all records, oldest first."""
        found = self._runs.find({"record": {"$exists": True}}).sort("_id", 1)
        return sorted(
            (msgspec.json.decode(r["record"], type=RunRecord) for r in found), key=lambda r: (r.beat_at, r.id)
        )

    @staticmethod
    def _fields(record: RunRecord) -> dict[str, Any]:
        return {"epoch": record.epoch, "state": record.state, "record": msgspec.json.encode(record).decode()}

    def open(self, record: RunRecord) -> RunRecord:
        """Insert the record, or take it over with the next epoch."""
        while True:
            there = self.read(record.id)
            if there is None:
                self._runs.replace_one({"_id": {"run": record.id}}, self._fields(record), upsert=True)
                return record
            taken = msgspec.structs.replace(there, epoch=there.epoch + 1, holder=record.holder, beat_at=record.beat_at)
            done = self._runs.update_one(
                {"_id": {"run": record.id}, "epoch": there.epoch}, {"$set": self._fields(taken)}
            )
            if done.matched_count:
                return taken

    def write(self, record: RunRecord) -> None:
        """Replace the record. Raises Conflict when another epoch holds it."""
        done = self._runs.update_one({"_id": {"run": record.id}, "epoch": record.epoch}, {"$set": self._fields(record)})
        if not done.matched_count:
            self._fenced(record.id, record.epoch)

    def _fenced(self, run: str, epoch: int) -> None:
        there = self.read(run)
        if there is None:
            raise NotFound(f"the target does not know the run {run!r}", hint="`dblens migrate status` lists its runs")
        raise Conflict(
            f"the run {run} was taken over by {there.holder} (epoch {there.epoch}, ours {epoch})",
            hint="stop this process; the other one goes on",
        )

    def check_epoch(self, chunk: Chunk) -> None:
        """Raise Conflict when a chunk's writer has been replaced. Runs that are not recorded (plain loads) pass."""
        there = self._runs.find_one({"_id": {"run": chunk.run}}, {"epoch": 1})
        if there is not None and there["epoch"] != chunk.epoch:
            self._fenced(chunk.run, chunk.epoch)

    # ---- ledger

    @staticmethod
    def _line(chunk: Chunk) -> dict[str, Any]:
        return {"run": chunk.run, "namespace": chunk.table[0], "table": chunk.table[1], "number": chunk.number}

    def begun(self, chunk: Chunk) -> bool:
        """Note that a chunk is being written; return whether it had been begun before."""
        before = self._chunks.find_one_and_update(
            {"_id": self._line(chunk)}, {"$set": {"run": chunk.run, "done": False}}, upsert=True
        )
        return before is not None

    def commit(self, chunk: Chunk) -> None:
        """Write a chunk's ledger line. With transactions, in one with a check of the epoch that a takeover conflicts with."""
        line = {"run": chunk.run, "done": True, "chunk": msgspec.json.encode(chunk).decode()}

        def write(session: Any) -> None:
            done = self._runs.update_one(
                {"_id": {"run": chunk.run}, "epoch": chunk.epoch}, {"$inc": {"commits": 1}}, session=session
            )
            if not done.matched_count and self._runs.find_one({"_id": {"run": chunk.run}}, session=session) is not None:
                self._fenced(chunk.run, chunk.epoch)
            self._chunks.replace_one({"_id": self._line(chunk)}, line, upsert=True, session=session)

        if self._session.transactional:
            with self._session.client.start_session() as session:
                session.with_transaction(write, write_concern=self._session.concern)
        else:
            write(None)

    def ledger(self, run: str) -> list[Chunk]:
        """Return the committed chunks by table and number."""
        found = [
            msgspec.json.decode(line["chunk"], type=Chunk) for line in self._chunks.find({"run": run, "done": True})
        ]
        return sorted(found, key=lambda c: (c.table, c.number))

    def forget(self, run: str, table: Place | None) -> None:
        """Delete ledger lines."""
        query: dict[str, Any] = {"run": run}
        if table is not None:
            query |= {"_id.namespace": table[0], "_id.table": table[1]}
        self._chunks.delete_many(query)

    def drop(self, run: str) -> None:
        """Delete a run's record and lines, and the control collections when nothing else is in them."""
        self._chunks.delete_many({"run": run})
        self._runs.delete_one({"_id": {"run": run}})
        if self._runs.find_one({"record": {"$exists": True}}) is None:
            self._chunks.drop()
            if self._runs.find_one({"_id": {"$ne": "_lock"}}) is None:
                self._session.drop_runs_when_free()


# ------------------------------------------------------------------------------------------------------------------------ swap


def _there(session: MongoSession, namespaces: set[str]) -> set[Place]:
    return {(namespace, name) for namespace in namespaces for name in session.client[namespace].list_collection_names()}


def _rename(session: MongoSession, before: Place, after: Place) -> None:
    with guard(f"renaming {before[1]!r} to {after[1]!r}"):
        session.client.admin.command(
            {"renameCollection": f"{before[0]}.{before[1]}", "to": f"{after[0]}.{after[1]}"},
            write_concern=session.concern,
        )


def _marked(runs: Runs, record: RunRecord, state: RunState) -> RunRecord:
    marked = msgspec.structs.replace(record, state=state)
    runs.write(marked)
    return marked


def _collections(moves: Sequence[Move]) -> list[Move]:
    """Return one move a collection: embedded tables lie in that of their parent."""
    return list({move.staged: move for move in moves}.values())


def swap(session: MongoSession, record: RunRecord, moves: Sequence[Move], report: Report) -> RunRecord:
    """Rename every staged collection to its live name, what was live to its previous name first."""
    runs = Runs(session)
    record = _marked(runs, record, "swapping")
    there = _there(session, {m.live[0] for m in moves})
    for move in _collections(moves):
        if move.staged in there:
            if move.live in there:
                if move.previous is None or move.previous in there:
                    raise Conflict(
                        f"the collection {move.live[1]!r} appeared while the migration ran",
                        hint="move it away and resume, or roll back",
                    )
                _rename(session, move.live, move.previous)
            _rename(session, move.staged, move.live)
        elif move.live not in there:
            raise NotFound(f"neither {move.live[1]!r} nor its staged copy is there", hint="roll back and plan again")
        report(StepDone("swap", 0.0, move.live[1]))
    return _marked(runs, record, "swapped")


def unswap(session: MongoSession, record: RunRecord, moves: Sequence[Move], report: Report) -> RunRecord:
    """Undo `swap`, from any point of it or of itself."""
    runs = Runs(session)
    record = _marked(runs, record, "rolling_back")
    there = _there(session, {m.live[0] for m in moves})
    for move in reversed(_collections(moves)):
        if move.staged not in there and move.live in there:
            _rename(session, move.live, move.staged)
            there.discard(move.live)
        if move.previous is not None and move.previous in there:
            if move.live in there:
                raise Conflict(
                    f"the collection {move.live[1]!r} appeared while the migration was rolled back",
                    hint=f"move it away and roll back again; the old one is kept as {move.previous[1]!r}",
                )
            _rename(session, move.previous, move.live)
        report(StepDone("unswap", 0.0, move.live[1]))
    return _marked(runs, record, "rolled_back")


def drop_areas(session: MongoSession, run: str) -> None:
    """Drop every collection of a run."""
    prefixes = tuple(names.area(run, kind) for kind in ("", "_prev", "_undo"))
    database = session.durable
    for name in database.list_collection_names():
        if name.startswith(prefixes):
            database.drop_collection(name)


# ----------------------------------------------------------------------------------------------------------------------- merge


def _undo_place(run: str, live: Place) -> str:
    return names.within(names.area(run, "_undo"), live[1])


def _mark_of(raw: bytes | memoryview) -> str:
    return hashlib.sha256(raw).hexdigest()


def _raws(collection: Collection[Any], ids: Sequence[Any]) -> dict[str, RawBSONDocument]:
    return {extjson.encode(d["_id"]): d for d in collection.find({"_id": {"$in": list(ids)}})}


def _batches(cursor: Any) -> Any:
    batch: list[RawBSONDocument] = []
    for document in cursor:
        batch.append(document)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def merge(session: MongoSession, record: RunRecord, staged: Place, live: Place, rule: ConflictRule) -> MergeCounts:
    """Put staged documents into a live collection by `_id`.

    The pre-image of each document is written, with the journal flushed, before the document itself: a merge that stopped goes on where it
    was, and `unmerge` finds everything. It is not one transaction: those of MongoDB are limited in time and size.
    """
    database = session.raw_database(live[0])
    source, target = database[staged[1]], database[live[1]]
    undo = database[_undo_place(record.id, live)]
    if rule == "error":
        for batch in _batches(source.find()):
            ids = [d["_id"] for d in batch]
            ours = _raws(undo, ids)
            for key in _raws(target, ids):
                if key not in ours or ours[key].get("old") is not None:
                    raise Conflict(
                        f"the key {key} is in {live[1]!r} already",
                        hint="use --conflict skip or --conflict update, or remove it",
                    )
    for batch in _batches(source.find()):
        _merge_batch(batch, target, undo, rule)
    return _counts(undo)


def _merge_batch(
    batch: list[RawBSONDocument], target: Collection[Any], undo: Collection[Any], rule: ConflictRule
) -> None:
    ids = [d["_id"] for d in batch]
    noted, live = _raws(undo, ids), _raws(target, ids)
    notes: list[dict[str, Any]] = []
    writes: list[Any] = []
    for document in batch:
        key = extjson.encode(document["_id"])
        note = noted.get(key)
        old = live.get(key) if note is None else note.get("old")
        if old is not None and rule == "skip":
            if note is None:
                notes.append({"_id": document["_id"], "skipped": True})
            continue
        if note is None:
            notes.append({"_id": document["_id"], "old": old, "new": _mark_of(document.raw)})
        elif note.get("skipped"):
            continue
        if key in live:
            writes.append(ReplaceOne({"_id": document["_id"]}, document))
        else:
            writes.append(InsertOne(document))
    if notes:
        undo.insert_many(notes, ordered=False)
    if writes:
        target.bulk_write(writes, ordered=False)


def _counts(undo: Collection[Any]) -> MergeCounts:
    skipped = undo.count_documents({"skipped": True})
    inserted = undo.count_documents({"skipped": {"$exists": False}, "old": None})
    return MergeCounts(inserted=inserted, skipped=skipped, updated=undo.count_documents({}) - inserted - skipped)


def unmerge(session: MongoSession, record: RunRecord, live: Place, *, force: bool) -> None:
    """Put back what a merge changed. Raises Irreversible when a document was changed since."""
    database = session.raw_database(live[0])
    target, undo = database[live[1]], database[_undo_place(record.id, live)]
    if not force:
        for batch in _batches(undo.find({"skipped": {"$exists": False}})):
            there = _raws(target, [n["_id"] for n in batch])
            for note in batch:
                key = extjson.encode(note["_id"])
                now, old = there.get(key), note.get("old")
                unchanged = now is not None and _mark_of(now.raw) == note["new"]
                undone = (now is None and old is None) or (now is not None and old is not None and now.raw == old.raw)
                if not unchanged and not undone:
                    raise Irreversible(
                        f"the document {key} of {live[1]!r} was changed since the migration",
                        hint="keep the migration, or give --discard-changes to lose that change",
                    )
    for batch in _batches(undo.find({"skipped": {"$exists": False}})):
        writes: list[Any] = []
        for note in batch:
            old = note.get("old")
            where = {"_id": note["_id"]}
            writes.append(DeleteOne(where) if old is None else ReplaceOne(where, old, upsert=True))
        target.bulk_write(writes, ordered=False)


def build(session: MongoSession, statements: Sequence[str], report: Report) -> None:
    """Run commands; one whose collection is there already passes when it has the planned options."""
    for statement in statements:
        parsed = extjson_command(statement)
        name, target = next(iter(parsed.items()))
        if name == "create" and _same_collection(session, parsed):
            continue
        with guard(f"running {name} on {target!r}"):
            try:
                session.client[session.database].command(parsed, write_concern=session.concern)
            except OperationFailure as error:
                if error.code != 48 or not _same_collection(session, parsed):
                    raise
        report(StepDone(str(name), 0.0, str(target)))


def _same_collection(session: MongoSession, parsed: dict[str, Any]) -> bool:
    found = next(iter(session.client[session.database].list_collections(filter={"name": parsed["create"]})), None)
    if found is None:
        return False
    wanted = {k: v for k, v in parsed.items() if k not in ("create", "writeConcern")}
    options = found.get("options", {})
    # The server adds its own defaults to options, so only what the plan names is compared.
    for key, value in wanted.items():
        there = options.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            if any(there.get(k) != v for k, v in value.items()):
                break
        elif there != value:
            break
    else:
        return True
    raise Conflict(
        f"the collection {parsed['create']!r} is there with other options than planned", hint="roll back and plan again"
    )


def extjson_command(statement: str) -> dict[str, Any]:
    """Parse a command document in Extended JSON. Raises InvalidInput."""
    from bson import json_util

    from dblens.errors import InvalidInput

    try:
        parsed = json_util.loads(statement)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"not a MongoDB command: {statement[:200]!r}",
            hint='write a command document in JSON, for example {"find": "orders", "limit": 5}',
        ) from error
    if not isinstance(parsed, dict) or not parsed:
        raise InvalidInput(
            f"not a MongoDB command: {statement[:200]!r}",
            hint='write a JSON object such as {"find": "orders", "limit": 5}',
        )
    return parsed
