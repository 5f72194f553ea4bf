"""A file, or a table in memory, as the source of a migration: read only, read anew for each question, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from dblens.engines import arrow
from dblens.engines.asking import Out
from dblens.engines.base import (
    ALL,
    Block,
    Check,
    CheckResult,
    Engine,
    Feature,
    Field,
    Format,
    KeyRange,
    Result,
    Snapshot,
    Support,
)
from dblens.engines.files import canonical, checks, columnar, export
from dblens.engines.files.model import Bad, Batch, FileFormat, Reader, Reading, format_of, spelled
from dblens.engines.files.octets import Opened
from dblens.engines.files.prove import Proof, unfit
from dblens.errors import Cancelled, InvalidInput, NotFound, StalePlan, Unsupported
from dblens.events import Progress, Report, silent
from dblens.schema.model import Column, Key, Schema, Table, TableRef
from dblens.schema.types import DataType, Decimal, Dynamic, Float
from dblens.values.digest import Accumulator, Fingerprint, bucket_of, row_digest
from dblens.values.forms import Form

NAMESPACE: Final = "file"
FILE: Final = "dblens.file"
"""Option of the table: what changes when the file does."""
_SAMPLES: Final = 5
_TOLD_EVERY: Final = 8


class File:
    """What is loaded: a path or a table in memory, the name of its table, and what is told of its columns.

    What one reading proves is kept here for the sessions that follow: types, the rows set aside. Not for two threads at once.
    """

    def __init__(
        self,
        source: Any,
        name: str,
        *,
        reading: Reading = Reading(),
        types: Mapping[str, DataType] | None = None,
        key: Sequence[str] = (),
        skip: Sequence[str] = (),
    ) -> None:
        """`skip`: columns that are not loaded, so that nothing is asked of them. Raises InvalidInput, NotFound, ArchiveCorrupt, Unsupported."""
        self.reading, self.name = reading.checked(), name
        self._opened: Opened | None = None
        self.compression, self.format = "", "memory"
        self.reader = self._of(source)
        self.columns = self.reader.columns
        self._identity = self._opened.identity() if self._opened is not None else f"{id(source)}"
        self.types: dict[str, DataType] = {}
        self.key: tuple[str, ...] = ()
        self.skip = frozenset(skip)
        self._there(skip)
        self.told(types or {}, key)
        self.proven: Table | None = None
        self.rows = 0
        self.bad: list[Bad] = []
        self._dropped: frozenset[int] = frozenset()
        self._plain_texts: frozenset[str] = frozenset()
        self._stopped = threading.Event()

    def told(self, types: Mapping[str, DataType], key: Sequence[str]) -> None:
        """Tell types, and the columns that identify a row, before anything is proven. Raises InvalidInput for a column that is not there."""
        self._there((*types, *key))
        self.types, self.key = dict(types), tuple(key)

    def _there(self, given: Sequence[str]) -> None:
        names = [column.name for column in self.columns]
        for name in given:
            if name not in names:
                raise InvalidInput(
                    f"the file has no column {name!r}", hint=f"it has {', '.join(map(repr, names[:30]))}"
                )

    @property
    def title(self) -> str:
        """Return what it is called, without the folder it lies in."""
        return self._opened.path.name if self._opened is not None else "(in memory)"

    def _of(self, source: Any) -> Reader:
        if not isinstance(source, str | os.PathLike):
            return columnar.memory(source)
        opened = self._opened = Opened(Path(source))
        named, self.compression = format_of(opened.path.name)
        kind: FileFormat | None = self.reading.format or named
        if kind is None:
            raise InvalidInput(
                f"the format of {opened.path.name!r} is not known from its name", hint="--format csv, tsv, jsonl …"
            )
        self.format = kind
        if self.compression and kind not in ("csv", "tsv", "jsonl"):
            raise Unsupported(
                f"{kind} within {self.compression}", "only csv, tsv and jsonl are read so", hint="unpack it"
            )
        match kind:
            case "csv" | "tsv":
                from dblens.engines.files.delimited import Delimited

                return Delimited(opened, self.compression, self.reading, "\t" if kind == "tsv" else None)
            case "jsonl":
                from dblens.engines.files.jsonl import JsonLines

                return JsonLines(opened, self.compression, self.reading)
            case "parquet":
                return columnar.parquet(opened)
            case "arrow":
                return columnar.ipc(opened)
            case "xlsx":
                from dblens.engines.files.sheets import Sheet

                return Sheet(opened, self.reading)

    def identity(self) -> str:
        """Return what changes when the file does. Raises NotFound when it is gone."""
        if self._opened is None:
            return self._identity
        try:
            return self._opened.identity()
        except OSError as error:
            raise NotFound(f"the file {self.title!r} is gone", hint="plan again") from error

    def cancel(self) -> None:
        """Stop what reads it now."""
        self._stopped.set()

    # ---- rows

    def batches(self, report: Report = silent, task: str = "", *, verifier: bool = False) -> Iterator[Batch]:
        """Yield the rows that are loaded. Raises StalePlan when the file was changed since it was first read, Cancelled."""
        if self.identity() != self._identity:
            raise StalePlan(f"the file {self.title!r} was changed since it was first read", hint="load it again")
        self._stopped.clear()
        for number, batch in enumerate(self.reader.batches(verifier=verifier)):
            if self._stopped.is_set():
                raise Cancelled(f"reading {self.title!r} was stopped")
            if task and number % _TOLD_EVERY == 0:
                done, total = self.reader.seen()
                report(Progress(task=task, done=done, total=total, unit="rows" if self._opened is None else "octets"))
            yield self._kept(batch)

    def _kept(self, batch: Batch) -> Batch:
        gone = (
            {n for n in range(batch.first, batch.first + batch.rows) if n in self._dropped} if self._dropped else None
        )
        if not gone:
            return batch
        keep = [n for n in range(batch.rows) if batch.first + n not in gone]
        indices = arrow.library().array(keep, arrow.library().int64())
        odds = {at: batch.odds[n] for at, n in enumerate(keep) if n in batch.odds}
        return Batch(
            batch.first,
            len(keep),
            [array.take(indices) for array in batch.arrays],
            lambda row: batch.place(keep[row]),
            odds,
        )

    def samples(self, rows: int) -> dict[str, tuple[str | None, ...]]:
        """Return the first values of each column, as the file has them."""
        for batch in self.batches():
            if batch.rows:
                part = [array.slice(0, rows).to_pylist() for array in batch.arrays]
                return {
                    column.name: tuple(None if v is None else str(v)[:200] for v in values)
                    for column, values in zip(self.columns, part, strict=True)
                }
        return {}

    # ---- types

    def prove(self, report: Report = silent) -> Table:
        """Prove every column's type by all of its values, and set bad rows aside. Raises InvalidInput at the first too many."""
        if self.proven is not None:
            return self.proven
        proofs = {
            column.name: Proof(self.reader.kinds.get(column.name, 0) if self.reader.kinds else None)
            for column in self.columns
            if not self.reader.told and column.name not in self.types and column.name not in self.skip
        }
        bad: list[Bad] = []
        dropped: set[int] = set()
        odd_classes: set[str] = set()
        rows = malformed = 0
        for batch in self.batches(report, f"read {self.title}"):
            bad += self.reader.bad[malformed:]
            malformed = len(self.reader.bad)
            for row, reason, name in self._unfit(batch, odd_classes):
                if batch.first + row not in dropped:
                    dropped.add(batch.first + row)
                    line, raw = batch.place(row)
                    bad.append(Bad(line=line, raw=raw, reason=reason, column=name))
                    self._enough(bad)
            self._enough(bad)
            for number, column in enumerate(self.columns):
                proof = proofs.get(column.name)
                if proof is not None:
                    proof.add(batch.arrays[number])
            rows += batch.rows
        bad += self.reader.bad[malformed:]
        self._enough(bad)
        again = {name: proof for name, proof in proofs.items() if proof.again}
        if again:
            for batch in self.batches(report, f"read {self.title} again"):
                for number, column in enumerate(self.columns):
                    if column.name in again:
                        again[column.name].doubles(batch.arrays[number])
        self._plain_texts = frozenset(name for name, proof in proofs.items() if not proof.nul)
        kinds = {
            column.name: Dynamic() if column.name in odd_classes else self._kind(column, proofs.get(column.name))
            for column in self.columns
        }
        self.rows = rows - len(dropped)
        self.bad = sorted(bad, key=lambda each: each.line)
        self._dropped = frozenset(dropped)
        self.proven = self._table(kinds)
        return self.proven

    def _kind(self, column: Out, proof: Proof | None) -> DataType:
        if column.name in self.types:
            return self.types[column.name]
        return column.type if proof is None else proof.kind

    def _unfit(self, batch: Batch, odd_classes: set[str]) -> Iterator[tuple[int, str, str]]:
        """Yield the rows with a text that does not fit the type that was told for its column, and why."""
        for cells in batch.odds.values():
            for number, odd in cells.items():
                if odd.form is Form.DYNAMIC:
                    odd_classes.add(self.columns[number].name)
        strings = arrow.library().types.is_string
        for number, column in enumerate(self.columns):
            kind = self.types.get(column.name)
            if kind is None or column.name in self.skip or not strings(batch.arrays[number].type):
                continue
            for row in unfit(kind, batch.arrays[number]):
                text = batch.arrays[number][row].as_py()
                yield row, f"column {column.name!r}: {text[:60]!r} is no {spelled(kind)}", column.name

    def _enough(self, bad: list[Bad]) -> None:
        if len(bad) <= self.reading.max_bad:
            return
        first = min(bad[: self.reading.max_bad + 1], key=lambda each: each.line)
        more = f", and it is one of more than {self.reading.max_bad}" if self.reading.max_bad else ""
        raise InvalidInput(
            f"line {first.line}: {first.reason}{more}",
            hint="mend the file, choose other types, or set bad rows aside with --max-bad N --quarantine FILE",
        )

    def _table(self, kinds: Mapping[str, DataType]) -> Table:
        columns = tuple(
            Column(
                name=column.name,
                type=kinds[column.name],
                native=column.native
                if self.reader.told and column.name not in self.types
                else spelled(kinds[column.name]),
                nullable=column.name not in self.key,
            )
            for column in self.columns
        )
        key = Key(name=None, columns=self.key) if self.key else None
        return Table(
            namespace=NAMESPACE, name=self.name, columns=columns, primary_key=key, options={FILE: self._identity}
        )

    def seen_as(self) -> Table:
        """Return the table as far as it is known without reading all of it: what a plan is bound to."""
        table = self._table({column.name: self.types.get(column.name, column.type) for column in self.columns})
        return Table(
            namespace=table.namespace, name=table.name, columns=table.columns, primary_key=table.primary_key,
            options={FILE: self.identity()},
        )  # fmt: skip

    def harmless(self, field: Field, check: Check) -> bool:
        """Return whether the proof answers a check with nothing: no value of this kind can be among a column's texts."""
        name = field.column.name
        if check.kind in ("nul_character", "invalid_text", "json_nul"):
            return name in self._plain_texts and check.kind != "json_nul"
        if check.kind in ("not_boolean", "not_json") and check.limit is None:
            return name in self._plain_texts
        numbers = isinstance(field.column.type, Decimal | Float)
        return (
            check.kind == "nonfinite"
            and name in self._plain_texts
            and numbers
            and isinstance(field.column.type, Decimal)
        )


class Session:
    """A session on a `File`. Everything that would write, or run a statement, is Unsupported."""

    def __init__(self, engine: Engine, file: File) -> None:
        self._engine, self.file = engine, file

    # ---- what it is

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def version(self) -> str:
        return self.file.format

    @property
    def flavour(self) -> str:
        return self.file.format

    @property
    def database(self) -> str:
        return self.file.title

    @property
    def fingerprint_id(self) -> str:
        digest = hashlib.sha256(self.file.identity().encode()).hexdigest()[:8]
        return f"file {self.file.title} ({self.file.format}, {digest})"

    def namespaces(self) -> list[str]:
        return [NAMESPACE]

    def list_tables(self, namespace: str) -> list[TableRef]:
        return [TableRef(namespace=NAMESPACE, name=self.file.name)] if namespace == NAMESPACE else []

    def inspect(self, *, namespaces: Sequence[str] = ()) -> Schema:
        tables = (self.file.seen_as(),) if not namespaces or NAMESPACE in namespaces else ()
        return Schema(
            engine=self._engine.name,
            version=self.version,
            database=self.database,
            namespaces=(NAMESPACE,),
            tables=tables,
        )

    def execute(
        self,
        statement: str,  # noqa: ARG002 - not even looked at
        params: Sequence[object] = (),  # noqa: ARG002
        *,
        limit: int | None = None,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
    ) -> Result:
        raise Unsupported("running a statement", "a file has no language", hint="load it into a database and ask that")

    def cancel(self) -> None:
        self.file.cancel()

    def close(self) -> None:
        """Nothing is held open."""

    def supports(self, feature: Feature) -> Support:
        return Support(ok=False, why=f"a file has no {feature}")

    def missing_privileges(self, *, write: bool, place: str | None = None) -> list[str]:  # noqa: ARG002 - opened already
        return []

    # ---- reading

    def begin_snapshot(self) -> Snapshot:
        return Snapshot(id=self.fingerprint_id, shared=False, consistent=True)

    def end_snapshot(self) -> None:
        """Do nothing: a file stays as it is, and when it does not, reading it says so."""

    def join(self, snapshot: Snapshot) -> NoReturn:
        raise Unsupported(f"joining snapshot {snapshot.id}", "a file is read by one reader")

    def profile(self, table: Table, report: Report = silent) -> Table:  # noqa: ARG002 - there is one
        return self.file.prove(report)

    def count(self, table: Table, *, where: str | None = None) -> int:  # noqa: ARG002
        _no_condition(where)
        self.file.prove()
        return self.file.rows

    def check(
        self,
        table: Table,  # noqa: ARG002
        checks_: Sequence[tuple[Field, Check]],
        *,
        where: str | None = None,
    ) -> list[CheckResult]:
        _no_condition(where)
        questions: list[tuple[int, Field, Callable[[str], bool]]] = []
        for number, (field, check) in enumerate(checks_):
            asked = None if self.file.harmless(field, check) else checks.predicate(check, field.form)
            if asked is not None:
                questions.append((number, field, asked))
        counts = [0] * len(checks_)
        samples: list[list[tuple[str | None, ...]]] = [[] for _ in checks_]
        fields = tuple(dict.fromkeys(field.column.name for _, field, _ in questions))
        if fields:
            unique = {field.column.name: field for _, field, _ in questions}
            sides = canonical.Sides(self.file.columns, tuple(unique.values()))
            sides.dressed = True
            places = {name: n for n, name in enumerate(unique)}
            for batch in self.file.batches(verifier=True):
                rows = list(canonical.canonical_rows(sides, tuple(unique.values()), iter([batch])))
                for number, field, asked in questions:
                    at = places[field.column.name]
                    for n, row in enumerate(rows):
                        octets = row[at]
                        if octets is not None and asked(checks.decoded(octets)):
                            counts[number] += 1
                            if len(samples[number]) < _SAMPLES:
                                samples[number].append((f"line {batch.place(n)[0]}",))
        return [
            CheckResult(check=check, column=field.column.name, count=counts[n], samples=tuple(samples[n]))
            for n, (field, check) in enumerate(checks_)
        ]

    def chunks(self, table: Table, rows: int, *, where: str | None = None) -> list[KeyRange]:  # noqa: ARG002
        _no_condition(where)
        return [ALL]

    def formats_out(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002
        return export.formats_out(fields)

    def export(
        self,
        table: Table,  # noqa: ARG002
        fields: Sequence[Field],
        fmt: Format,
        *,
        keys: KeyRange = ALL,
        where: str | None = None,
    ) -> Generator[Block]:
        _whole(keys, where)
        self.file.prove()
        return export.export(self.file.columns, fields, fmt, self.file.batches())

    def fingerprint(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,  # noqa: ARG002 - always canonical
        report: Report = silent,
    ) -> Fingerprint:
        _whole(keys, where)
        self.file.prove()
        sums, task = Accumulator(), f"digest {table.namespace}.{table.name}"
        sides = canonical.Sides(self.file.columns, fields)
        for done in canonical.fingerprint(sides, fields, self.file.batches(verifier=True), sums):
            report(Progress(task=task, done=done, total=self.file.rows))
        return sums.fingerprint()

    def canonical_rows(
        self,
        table: Table,  # noqa: ARG002
        fields: Sequence[Field],
        *,
        buckets: frozenset[int] | None = None,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,  # noqa: ARG002
    ) -> Iterator[tuple[bytes | None, ...]]:
        _whole(keys, where)
        self.file.prove()
        sides = canonical.Sides(self.file.columns, fields)
        rows = canonical.canonical_rows(sides, fields, self.file.batches(verifier=True))
        if buckets is None:
            return rows
        return (row for row in rows if bucket_of(row_digest(row)) in buckets)


def _no_condition(where: str | None) -> None:
    if where:
        raise Unsupported(
            "a filter on a file", "it has no language", hint="load all of it, then delete what is not wanted"
        )


def _whole(keys: KeyRange, where: str | None) -> None:
    _no_condition(where)
    if keys.lo is not None or keys.hi is not None:
        raise Unsupported("a part of a file", "it is read as a whole")
