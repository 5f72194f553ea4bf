"""A live MongoDB connection: the verbs of `Target`, each handed on to its chapter.

Over 600 lines because every verb of the contract stands here, each a few lines that delegate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.operations import DeleteMany, DeleteOne, InsertOne, ReplaceOne

from dblens.engines.base import (
    ALL,
    Block,
    Check,
    CheckResult,
    Chunk,
    ConflictRule,
    Embedding,
    Engine,
    Feature,
    Field,
    Format,
    KeyRange,
    MergeCounts,
    Move,
    Place,
    Result,
    RunRecord,
    Snapshot,
    Source,
    Support,
    Url,
)
from dblens.engines.mongodb import arrays, canonical, embed, export, extjson, inspect, load, names, scan, stage
from dblens.engines.mongodb.errors import guard
from dblens.engines.mongodb.flatten import Prover
from dblens.engines.mongodb.lock import Lease
from dblens.engines.mongodb.rawbson import OPTIONS
from dblens.errors import Cancelled, InvalidInput, PermissionDenied, Unsupported
from dblens.events import Progress, Report, silent
from dblens.schema.model import ForeignKey, Schema, Table, TableRef
from dblens.values.digest import Accumulator, Fingerprint, bucket_of, row_digest

P = ParamSpec("P")
R = TypeVar("R")

_NOTE = (
    "MongoDB gives no one instant over several collections here: documents written while the migration reads may be seen or not; "
    "the verification compares with what is there then"
)
_READS = frozenset(
    "find aggregate count distinct listCollections listIndexes listDatabases collStats dbStats explain ping hello buildInfo "
    "connectionStatus getMore serverStatus validate".lower().split()
)
_ADMIN = frozenset({"renamecollection", "listdatabases", "getparameter", "currentop", "killop"})
_SYSTEM = ("admin", "config", "local")
_BATCH = 1000


def _writes(method: Callable[Concatenate[MongoSession, P], R]) -> Callable[Concatenate[MongoSession, P], R]:
    """Refuse a method of a read-only session, and turn driver errors into DBLens errors."""

    @wraps(method)
    def wrapped(self: MongoSession, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.read_only:
            raise PermissionDenied(f"{method.__name__} on a read-only session", hint="open the database for writing")
        with guard(method.__name__.replace("_", " ")):
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[MongoSession, P], R]", wrapped)


class MongoSession:
    """One client of one database. Not thread-safe, except `cancel`."""

    def __init__(
        self, engine: Engine, url: Url, client: MongoClient[dict[str, Any]], hello: dict[str, Any], *, read_only: bool
    ) -> None:
        self._engine = engine
        self.url = url
        self.client = client
        self.read_only = read_only
        self.concern = WriteConcern(w="majority" if "setName" in hello or hello.get("msg") == "isdbgrid" else 1, j=True)
        self.transactional = "setName" in hello or hello.get("msg") == "isdbgrid"
        self._database = url.database or "test"
        self._version = str(client.admin.command("buildInfo").get("version", "?"))
        self.lsid: ClientSession | None = client.start_session() if hello.get("logicalSessionTimeoutMinutes") else None
        self._cancelled = threading.Event()
        self._lease: Lease | None = None
        self._drop_runs = False

    # ---- identity

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def version(self) -> str:
        return self._version

    @property
    def flavour(self) -> str:
        return self._version.partition(".")[0]

    @property
    def database(self) -> str:
        return self._database

    @property
    def fingerprint_id(self) -> str:
        host = self.url.host or "localhost"
        return f"mongodb://{host}:{self.url.port or 27017}/{self._database} as {self.url.user or '(no user)'}, {self._version}"

    # ---- handles

    def _options(self) -> CodecOptions[RawBSONDocument]:
        return CodecOptions(document_class=RawBSONDocument)

    def raw_database(self, namespace: str) -> Database[Any]:
        """Return a database whose documents are raw octets, written with the journal flushed."""
        return Database(self.client, namespace, codec_options=self._options(), write_concern=self.concern)

    def raw(self, place: Place) -> Collection[Any]:
        """Return a collection of raw documents."""
        return self.raw_database(place[0])[place[1]]

    @property
    def durable(self) -> Database[dict[str, Any]]:
        """The session's database, written with the journal flushed."""
        return Database(self.client, self._database, codec_options=OPTIONS, write_concern=self.concern)

    # ---- session

    def namespaces(self) -> list[str]:
        return [self._database]

    def list_tables(self, namespace: str) -> list[TableRef]:
        return inspect.list_tables(self, namespace)

    def inspect(self, *, namespaces: Sequence[str] = ()) -> Schema:
        return inspect.read(self, list(namespaces) or self.namespaces())

    def execute(
        self, statement: str, params: Sequence[object] = (), *, limit: int | None = None, timeout: float | None = None
    ) -> Result:
        if params:
            raise InvalidInput(
                "MongoDB commands take no parameters", hint="write values into the command as Extended JSON"
            )
        command = stage.extjson_command(statement)
        name = next(iter(command)).lower()
        if self.read_only and (name not in _READS or _has_out(command)):
            raise PermissionDenied(f"the command {name!r} on a read-only session", hint="open the database for writing")
        if timeout is not None:
            command["maxTimeMS"] = max(1, int(timeout * 1000))
        database = self.client["admin" if name in _ADMIN else self._database]
        with guard(f"running {name}"):
            if name in ("find", "aggregate", "listcollections", "listindexes"):
                if name == "aggregate":
                    command.setdefault("cursor", {})
                cursor = database.cursor_command(command, session=self.lsid, codec_options=OPTIONS)
                rows: list[tuple[Any, ...]] = []
                with cursor:
                    for document in cursor:
                        if limit is not None and len(rows) >= limit:
                            return Result(columns=("document",), rows=rows, truncated=True)
                        rows.append((extjson.encode(document),))
                return Result(columns=("document",), rows=rows)
            reply = database.command(command, session=self.lsid, codec_options=OPTIONS)
        shown = {k: v for k, v in reply.items() if not k.startswith("$") and k != "operationTime"}
        return Result(columns=("document",), rows=[(extjson.encode(shown),)], affected=shown.get("n"))

    def cancel(self) -> None:
        self._cancelled.set()
        if self.lsid is not None:
            with guard("cancelling"):
                self.client.admin.command({"killSessions": [self.lsid.session_id]})

    def close(self) -> None:
        try:
            if self._lease is not None:
                with guard("releasing the lock"):
                    self._lease.release()
                self._finish_drop()
        finally:
            self.client.close()

    def supports(self, feature: Feature) -> Support:
        match feature:
            case "snapshot" | "shared_snapshot":
                return Support(ok=False, why=_NOTE)
            case "bulk_load":
                return Support(ok=True)
            case "atomic_swap":
                return Support(
                    ok=False,
                    why="MongoDB renames one collection at a time, and a replaced one in two steps with a moment in between when it is "
                    "missing; a journal makes the swap resumable",
                )
            case "transactional_ddl":
                return Support(ok=False, why="MongoDB commands on collections are not transactional")
            case "create_database":
                return Support(ok=True, why="a database comes into being with its first collection")
            case "cancel":
                ok = self.lsid is not None
                return Support(ok=ok, why="" if ok else "the server has no sessions to kill")
        raise InvalidInput(f"unknown feature: {feature!r}")

    def missing_privileges(self, *, write: bool, place: str | None = None) -> list[str]:
        database = place or self._database
        with guard("reading privileges"):
            info = self.client.admin.command({"connectionStatus": 1, "showPrivileges": True}).get("authInfo", {})
        users = info.get("authenticatedUsers") or []
        if not users:
            return []  # no access control on this server
        needed = {"find", "listCollections", "listIndexes"}
        if write:
            needed |= {
                "insert",
                "update",
                "remove",
                "createCollection",
                "createIndex",
                "dropCollection",
                "renameCollectionSameDB",
            }
        for privilege in info.get("authenticatedUserPrivileges") or []:
            resource = privilege.get("resource", {})
            here = resource.get("db") in ("", database) and resource.get("collection", "") == ""
            if resource.get("anyResource") or here:
                needed -= set(privilege.get("actions", ()))
                if "anyAction" in privilege.get("actions", ()):
                    return []
        roles = {r["role"] for r in info.get("authenticatedUserRoles") or [] if r.get("db") in (database, "admin")}
        strong = {"root", "readWriteAnyDatabase", "dbOwner", "readWrite"} | (
            set() if write else {"read", "readAnyDatabase"}
        )
        if not needed or roles & strong:
            return []
        role = "readWrite" if write else "read"
        user = users[0]
        return [
            f'db.getSiblingDB("{user["db"]}").grantRolesToUser("{user["user"]}", [{{role: "{role}", db: "{database}"}}])'
        ]

    # ---- source

    def begin_snapshot(self) -> Snapshot:
        return Snapshot(id="", shared=False, consistent=False, note=_NOTE)

    def end_snapshot(self) -> None:
        """Nothing to end: there is no instant (see `begin_snapshot`)."""

    def join(self, snapshot: Snapshot) -> Source:  # noqa: ARG002
        raise Unsupported("reading one instant from several sessions", _NOTE, hint="use --jobs 1")

    def array_table(self, collection: Table, path: tuple[str, ...], name: str) -> Table:
        return arrays.table_of(collection, path, name)

    def profile(self, table: Table, report: Report = silent) -> Table:
        label = f"profile {table.namespace}.{table.name}"
        import bson

        if arrays.path_of(table):
            items = arrays.ArrayProver(table)
            for batch in self._stored(table, label=label, joined=True):
                items.add(batch)
                report(Progress(label, items.documents, table.rows_estimate))
            return items.table()
        prover = Prover()
        for batch in self._stored(table, label=label, joined=True):
            prover.add(bson.decode_all(batch, OPTIONS))
            report(Progress(label, prover.documents, table.rows_estimate))
        return prover.table(table)

    def count(self, table: Table, *, where: str | None = None) -> int:
        if arrays.path_of(table):
            return sum(map(len, self.batches(table, where=where)))
        with guard(f"counting {table.namespace}.{table.name}"):
            return int(self.raw((table.namespace, table.name)).count_documents(scan.where(where), session=self.lsid))

    def batches(self, table: Table, *, keys: KeyRange = ALL, where: str | None = None) -> Iterator[list[bytes]]:
        """Read raw documents in batches, as the verifier does: a collection's, or those made of an array's elements."""
        path = arrays.path_of(table)
        found = self._stored(table, keys=keys, where=where)
        return arrays.cut(found, path) if path else found

    def _stored(
        self, table: Table, *, keys: KeyRange = ALL, where: str | None = None, label: str = "", joined: bool = False
    ) -> Iterator[Any]:
        """Read a collection's raw documents in batches: lists of octets, or each batch's octets in one piece."""
        self._cancelled.clear()
        with guard(label or f"reading {table.namespace}.{table.name}"):
            cursor = self.raw((table.namespace, arrays.collection_of(table))).find_raw_batches(
                scan.query(keys, where), session=self.lsid, batch_size=_BATCH, no_cursor_timeout=False
            )
            with cursor:
                while True:
                    try:
                        batch = next(cursor, None)
                    except OperationFailure as error:
                        if self._cancelled.is_set():  # killing the session takes its cursors away
                            raise Cancelled("stopped on request", hint="start it again when you want to") from error
                        raise
                    if self._cancelled.is_set():
                        raise Cancelled("stopped on request", hint="start it again when you want to")
                    if batch is None:
                        return
                    yield batch if joined else list(canonical.split(batch))

    def check(
        self, table: Table, checks: Sequence[tuple[Field, Check]], *, where: str | None = None
    ) -> list[CheckResult]:
        return scan.check(table, checks, self.batches(table, where=where))

    def chunks(self, table: Table, rows: int, *, where: str | None = None) -> list[KeyRange]:
        with guard(f"cutting {table.namespace}.{table.name} into chunks"):
            collection = self.raw((table.namespace, arrays.collection_of(table)))
            return scan.chunks(collection, table, rows, where, self.lsid)

    def formats_out(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002
        return export.formats(fields)

    def export(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, keys: KeyRange = ALL, where: str | None = None
    ) -> Generator[Block]:
        label = f"{table.namespace}.{table.name}"
        batches: Iterator[list[bytes]] = self._stored(table, keys=keys, where=where)
        if path := arrays.path_of(table):
            batches = arrays.unwound(batches, path)
        if fmt == "bson":
            return export.raw_blocks(batches)
        if fmt == "rows":
            return export.rows(batches, fields, label)
        raise Unsupported(f"exporting {label} as {fmt}", "MongoDB gives rows and bson")

    def fingerprint(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,  # noqa: ARG002 - the client's JSON is always the canonical form
        report: Report = silent,
    ) -> Fingerprint:
        total = Accumulator()
        done = 0
        reader = canonical.Reader(table, fields)
        label = f"verify {table.namespace}.{table.name}"
        for batch in self.batches(table, keys=keys, where=where):
            done += total.add_rows(scan.rows(reader, batch, table))
            report(Progress(label, done, table.rows_estimate))
        return total.fingerprint()

    def canonical_rows(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        buckets: frozenset[int] | None = None,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,  # noqa: ARG002 - the client's JSON is always the canonical form
    ) -> Iterator[tuple[bytes | None, ...]]:
        reader = canonical.Reader(table, fields)
        for batch in self.batches(table, keys=keys, where=where):
            for row in scan.rows(reader, batch, table):
                if buckets is None or bucket_of(row_digest(row)) in buckets:
                    yield row

    # ---- target: runs

    def formats_in(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002
        return export.formats([msgspec.structs.replace(f, column=f.target or f.column) for f in fields])

    @property
    def _runs(self) -> stage.Runs:
        return stage.Runs(self)

    @_writes
    def open_run(self, record: RunRecord, *, takeover: bool = False) -> RunRecord:  # noqa: ARG002 - the epoch fences either way
        if self._lease is None:
            self._lease = Lease(self.durable[names.RUNS])
        self._drop_runs = False
        self._lease.acquire(record.holder, record.id)
        return self._runs.open(record)

    def read_run(self, run: str) -> RunRecord | None:
        with guard(f"reading the run {run}"):
            return self._runs.read(run)

    def list_runs(self) -> list[RunRecord]:
        with guard("listing runs"):
            return self._runs.all()

    @_writes
    def write_run(self, record: RunRecord) -> None:
        self._runs.write(record)

    def ledger(self, run: str) -> list[Chunk]:
        with guard(f"reading the ledger of {run}"):
            return self._runs.ledger(run)

    @_writes
    def forget_chunks(self, run: str, table: Place | None = None) -> None:
        self._runs.forget(run, table)

    @_writes
    def clear(self, place: Place) -> None:
        self.raw(place).delete_many({})

    @_writes
    def build(self, statements: Iterable[str], report: Report = silent) -> None:
        stage.build(self, list(statements), report)

    # ---- target: rows

    @_writes
    def load(
        self, place: Place, fields: Sequence[Field], fmt: Format, blocks: Iterable[Block], chunk: Chunk, *, fast: bool
    ) -> int:
        """Load blocks; idempotent instead of transactional.

        A transaction of MongoDB ends after 60 s and keeps all it wrote in memory, so a chunk is not one: its line says `begun` first, a
        chunk that had been begun is written again by `_id` (the same keys give the same documents), and the line is `done` last, in one
        small transaction with the epoch where the server has transactions.
        """
        runs = self._runs
        runs.check_epoch(chunk)
        again = runs.begun(chunk) and not fast
        collection = self.raw(place)
        encoder = load.Encoder(fields, chunk)
        if fast and collection.find_one({}, {"_id": 1}) is not None:
            collection.delete_many({})
        if again and not encoder.keyed:
            collection.delete_many(load.generated(encoder.prefix))
        label = f"loading {place[1]}"
        rows = 0
        for call in load.calls(encoder.raws(blocks, fmt, label)):
            if rows and not fast:
                runs.check_epoch(chunk)
            documents = [RawBSONDocument(raw) for raw in call]
            if again and encoder.keyed:
                collection.bulk_write([ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents], ordered=False)
            else:
                self._insert(collection, documents, fast=fast)
            rows += len(call)
        runs.commit(msgspec.structs.replace(chunk, rows=rows))
        return rows

    @_writes
    def embed(
        self,
        place: Place,
        fields: Sequence[Field],
        fmt: Format,
        blocks: Iterable[Block],
        chunk: Chunk,
        embedding: Embedding,
    ) -> int:
        """Put rows into their documents: first beside them as they come, then array by array in one ordered read."""
        return embed.embed(self, place, fields, fmt, blocks, chunk, embedding)

    @staticmethod
    def _insert(collection: Collection[Any], documents: list[RawBSONDocument], *, fast: bool) -> None:
        """Insert documents.

        Beside a fast load, which starts empty, a document of the same `_id` is what a lost attempt left: the new one takes its place,
        and a key that the source really holds twice shows in the verification.
        """
        try:
            collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failed = (error.details or {}).get("writeErrors", [])
            if (
                fast
                or not failed
                or any(f.get("code") != 11000 or list(f.get("keyPattern", {})) != ["_id"] for f in failed)
            ):
                raise
            left = [documents[f["index"]] for f in failed]
            collection.bulk_write([ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in left], ordered=False)

    @_writes
    def repair(
        self,
        place: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        delete: Sequence[tuple[Any, ...]],
    ) -> int:
        collection = self.raw(place)
        chunk = Chunk(run="repair", table=place, number=0)
        by_name = {(f.target or f.column).name: f for f in fields}
        wanted = set(key)
        # Fields keep their own order, because the order inside a composite _id matters.
        ordered = [f for f in fields if (f.target or f.column).name in wanted]
        places = [list(key).index((f.target or f.column).name) for f in ordered]
        missing = [name for name in key if name not in by_name]
        if missing:
            raise InvalidInput(f"the key column {missing[0]!r} is not among the fields", hint="plan again")
        key_encoder = load.Encoder(ordered, chunk)
        row_encoder = load.Encoder(fields, chunk)
        full = key_encoder.keyed and all((c.path or (c.name,))[0] == "_id" for c in key_encoder.columns)

        def filter_of(values: Sequence[Any]) -> dict[str, Any]:
            document = key_encoder.document([values[i] for i in places])
            if full:
                return {"_id": document["_id"]}
            document.pop("_id", None)
            return document

        writes: list[Any] = [
            DeleteOne(filter_of(_typed(values, key, by_name)))
            if full
            else DeleteMany(filter_of(_typed(values, key, by_name)))
            for values in delete
        ]
        for row in rows:
            document = RawBSONDocument(row_encoder.raw(row))
            if full:
                writes.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
            else:
                values = {(f.target or f.column).name: v for f, v in zip(fields, row, strict=True)}
                writes.append(DeleteMany(filter_of([values[name] for name in key])))
                writes.append(InsertOne(document))
        if not writes:
            return 0
        if self.transactional and len(writes) <= _BATCH:
            with self.client.start_session() as session:
                session.with_transaction(lambda s: collection.bulk_write(writes, session=s), write_concern=self.concern)
        else:
            collection.bulk_write(writes)
        return len(rows)

    def renumber(self, table: Table, place: Place) -> None:
        """MongoDB numbers nothing."""

    def analyze(self, place: Place) -> None:
        """MongoDB keeps no statistics that a command refreshes."""

    def orphans(
        self,
        place: Place,  # noqa: ARG002
        key: ForeignKey,  # noqa: ARG002
        referred: Place,  # noqa: ARG002
        *,
        samples: int = 5,  # noqa: ARG002
    ) -> tuple[int, list[tuple[str, ...]]]:
        raise Unsupported("looking for orphans", "MongoDB has no foreign keys", hint="check them in the source")

    # ---- target: change over

    @_writes
    def swap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        return stage.swap(self, record, moves, report)

    @_writes
    def unswap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        return stage.unswap(self, record, moves, report)

    @_writes
    def merge(
        self,
        record: RunRecord,
        staged: Place,
        live: Place,
        fields: Sequence[Field],
        key: Sequence[str],  # noqa: ARG002 - documents are merged by _id
        rule: ConflictRule,
    ) -> MergeCounts:
        if not load.Encoder(fields, Chunk(run=record.id, table=staged, number=0)).keyed and rule != "error":
            raise Unsupported(
                f"merging into {live[1]!r} by rule {rule}", "its rows have no key", hint="use --conflict error"
            )
        self._runs.write(record)
        return stage.merge(self, record, staged, live, rule)

    @_writes
    def unmerge(self, record: RunRecord, live: Place, key: Sequence[str], *, force: bool = False) -> None:  # noqa: ARG002
        stage.unmerge(self, record, live, force=force)

    @_writes
    def close_run(self, record: RunRecord) -> None:
        stage.drop_areas(self, record.id)
        self._runs.drop(record.id)
        if self._lease is None:
            self._finish_drop()

    def drop_runs_when_free(self) -> None:
        """Drop the control collection once the lock in it is given back."""
        self._drop_runs = True

    def _finish_drop(self) -> None:
        if self._drop_runs:
            runs = self.durable[names.RUNS]
            with guard("dropping the control collection"):
                if runs.find_one({}) is None:
                    runs.drop()

    def dependents(self, places: Sequence[Place]) -> list[str]:  # noqa: ARG002
        """Return nothing: views and $lookup refer to collections by name, so they follow a swap."""
        return []

    def free_bytes(self) -> int | None:
        try:
            stats = self.client[self._database].command("dbStats")
        except OperationFailure:
            return None  # a login without dbStats: the plan says that it is not known
        total, used = stats.get("fsTotalSize"), stats.get("fsUsedSize")
        return int(total - used) if total and used is not None else None


def _typed(values: Sequence[Any], key: Sequence[str], by_name: dict[str, Field]) -> list[Any]:
    """Return key values as exchange values; keys of differences come as canonical texts."""
    from dblens.values.forms import Form

    out: list[Any] = []
    for value, name in zip(values, key, strict=True):
        form = by_name[name].form
        if isinstance(value, (str, bytes)) and form in (Form.INT, Form.FLOAT, Form.BYTES):
            text = value if isinstance(value, str) else None
            if text is not None:
                value = int(text) if form == Form.INT else float(text) if form == Form.FLOAT else bytes.fromhex(text)  # noqa: PLW2901
        out.append(value)
    return out


def _has_out(command: dict[str, Any]) -> bool:
    return any("$out" in step or "$merge" in step for step in command.get("pipeline", ()) if isinstance(step, dict))
