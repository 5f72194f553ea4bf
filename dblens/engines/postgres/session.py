"""A live PostgreSQL session: the contract's methods, each handed to its chapter."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import psycopg

from dblens.engines.base import (
    ALL,
    Block,
    Check,
    CheckResult,
    Chunk,
    ConflictRule,
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
    Support,
    Url,
)
from dblens.engines.postgres import (
    canonical,
    chunks,
    export,
    image,
    load,
    merge,
    numbers,
    rights,
    runs,
    scan,
    streamed,
    swap,
)
from dblens.engines.postgres import checks as checking
from dblens.engines.postgres.ddl import at, quote
from dblens.engines.postgres.inspect import inspect, list_tables, namespaces
from dblens.engines.postgres.link import Link
from dblens.errors import InvalidInput, NotFound, Unsupported
from dblens.events import Report, silent
from dblens.schema.model import ForeignKey, Schema, Table, TableRef
from dblens.values.digest import Accumulator, Fingerprint
from dblens.values.forms import Form

if TYPE_CHECKING:
    from dblens.engines.postgres.ask import PostgresAsks


class PostgresSession:
    """One connection and its state. Not thread-safe, except `cancel`."""

    def __init__(self, link: Link, engine: Engine) -> None:
        self._link = link
        self._engine = engine
        self._snapshot: Snapshot | None = None
        self._locked = False
        self._run = ""
        self.asking: PostgresAsks | None = None

    def __repr__(self) -> str:
        return f"PostgresSession({self.fingerprint_id!r})"

    # ---- session

    def descriptor(self) -> int:
        """Return the connection's socket, for the watchdog of a connection pool."""
        return self._link.db.fileno()

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def version(self) -> str:
        return str(self._link.version)

    @property
    def flavour(self) -> str:
        return str(self._link.number // 10_000)

    @property
    def database(self) -> str:
        return str(self._link.database)

    @property
    def fingerprint_id(self) -> str:
        url = self._link.url
        number = self._link.number
        return (
            f"postgresql://{url.host or 'local'}:{url.port or 5432}/{self.database} as {self._link.login}, "
            f"{number // 10_000}.{number % 10_000}"
        )

    def namespaces(self) -> list[str]:
        return namespaces(self._link)

    def list_tables(self, namespace: str) -> list[TableRef]:
        return list_tables(self._link, namespace)

    def inspect(self, *, namespaces: Sequence[str] = ()) -> Schema:
        return inspect(self._link, tuple(namespaces))

    def execute(
        self, statement: str, params: Sequence[object] = (), *, limit: int | None = None, timeout: float | None = None
    ) -> Result:
        """Run one statement with psycopg's `%s` parameters (a lone `%` means itself when there are none)."""
        link = self._link
        what = "the statement"
        timer: threading.Timer | None = None
        try:
            link.user_path()
            if timeout is not None:
                link.db.execute(f"SET statement_timeout TO {max(1, int(timeout * 1000))}")
                # The server's own clock stops it; this one covers a server that does not answer.
                timer = threading.Timer(timeout + 5, link.cancel)
                timer.daemon = True
                timer.start()
            return _execute(link, statement, params, limit)
        except psycopg.Error as error:
            raise link.failed(error, what) from error
        finally:
            if timer is not None:
                timer.cancel()
            if timeout is not None and not link.db.closed:
                with contextlib.suppress(psycopg.Error):
                    link.db.execute("SET statement_timeout TO 0")

    def cancel(self) -> None:
        self._link.cancel()

    @property
    def reads_only(self) -> bool:
        """Whether the session was opened read-only."""
        return self._link.read_only

    def another_link(self) -> Link:
        """Open one more connection like this one's."""
        return self._link.again()

    def close(self) -> None:
        if self.asking is not None:
            self.asking.close()
        if self._locked:
            # A closed connection frees the lock too, but only once the server has noticed.
            self._locked = False
            runs.release(self._link)
        self._link.close()

    def supports(self, feature: Feature) -> Support:
        if feature == "create_database":
            row = self._link.one("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            return Support(ok=True) if row and row[0] else Support(ok=False, why="this role may not create databases")
        if feature in ("bulk_load", "atomic_swap", "transactional_ddl") and self._link.read_only:
            return Support(ok=False, why="the session is read only")
        return Support(ok=True)

    def missing_privileges(self, *, write: bool, place: str | None = None) -> list[str]:
        return rights.missing(self._link, write=write, namespace=place)

    # ---- source

    def begin_snapshot(self) -> Snapshot:
        if self._snapshot is not None:
            return self._snapshot
        link = self._link
        link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", what="opening a snapshot")
        standby = link.one("SELECT pg_is_in_recovery()")[0]
        if standby:
            link.rows("SELECT 1")
            self._snapshot = Snapshot(
                id="standby", shared=False, consistent=True, note="a standby cannot share its snapshot: one reader only"
            )
            return self._snapshot
        name, position = link.one("SELECT pg_export_snapshot(), pg_current_wal_lsn()::text", what="sharing a snapshot")
        self._snapshot = Snapshot(id=name, shared=True, consistent=True, position=position)
        return self._snapshot

    def end_snapshot(self) -> None:
        if self._snapshot is None:
            return
        self._snapshot = None
        if not self._link.db.closed:
            self._link.run("ROLLBACK", what="closing the snapshot")

    def join(self, snapshot: Snapshot) -> PostgresSession:
        if not snapshot.shared:
            raise Unsupported("joining a snapshot", snapshot.note or "this snapshot is not shared")
        link = self._link.again()
        try:
            link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", what="joining a snapshot")
            if not all(c in "0123456789ABCDEFabcdef-" for c in snapshot.id):
                raise InvalidInput(f"not a snapshot of PostgreSQL: {snapshot.id!r}")
            link.run(f"SET TRANSACTION SNAPSHOT '{snapshot.id}'", what="joining a snapshot")
        except BaseException:
            link.close()
            raise
        other = PostgresSession(link, self._engine)
        other._snapshot = snapshot
        return other

    def profile(self, table: Table, report: Report = silent) -> Table:  # noqa: ARG002 - declared types bind here
        return table

    def count(self, table: Table, *, where: str | None = None) -> int:
        what = f"counting {table.namespace}.{table.name}"
        sql = f"SELECT count(*) FROM {scan.relation(table)}{scan.conditions(table, ALL, where)}"
        return int(self._link.one(sql, what=what)[0])

    def check(
        self, table: Table, checks: Sequence[tuple[Field, Check]], *, where: str | None = None
    ) -> list[CheckResult]:
        return checking.check(self._link, table, checks, where)

    def chunks(self, table: Table, rows: int, *, where: str | None = None) -> list[KeyRange]:
        return chunks.chunks(self._link, table, rows, where)

    def formats_out(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002
        return export.formats(fields)

    def export(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, keys: KeyRange = ALL, where: str | None = None
    ) -> Generator[Block, None, None]:
        return export.export(self._link, table, fields, fmt, keys, where)

    def fingerprint(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,
        report: Report = silent,
    ) -> Fingerprint:
        exact = exact and any(f.form == Form.JSON for f in fields)
        if streamed.pays(self._link, exact):
            return streamed.fingerprint(self._link, table, fields, keys, where, report, exact)
        return canonical.fingerprint(self._link, table, fields, keys, where, report)

    def images(self, table: Table, fields: Sequence[Field]) -> tuple[str, ...] | None:  # noqa: ARG002
        return image.forms(fields) if self._link.near else None

    def image(
        self, table: Table, fields: Sequence[Field], *, where: str | None = None, report: Report = silent
    ) -> Fingerprint:
        return image.fingerprint(self._link, table, fields, where, report)

    def export_images(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, where: str | None, sums: Accumulator
    ) -> Generator[Block, None, None] | None:
        if fmt != "pgbinary" or image.forms(fields) is None:
            return None
        if export.binary_statement(table, fields, ALL, where) != image.statement(table, fields, where):
            return None
        return image.blocks(self._link, table, fields, where, sums)

    def canonical_rows(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        buckets: frozenset[int] | None = None,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,
    ) -> Generator[tuple[bytes | None, ...], None, None]:
        return canonical.rows(self._link, table, fields, buckets, keys, where, exact=exact)

    # ---- target

    def formats_in(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002
        return load.formats(fields)

    def open_run(self, record: RunRecord, *, takeover: bool = False) -> RunRecord:
        fresh = not self._locked
        if fresh:
            runs.lock(self._link)
            self._locked = True
        try:
            opened = runs.open_run(self._link, record, takeover=takeover)
        except BaseException:
            if fresh and not self._link.db.closed:
                self._locked = False
                runs.release(self._link)
            raise
        self._run = record.id
        return opened

    def read_run(self, run: str) -> RunRecord | None:
        return runs.read(self._link, run)

    def list_runs(self) -> list[RunRecord]:
        return runs.read_all(self._link)

    def write_run(self, record: RunRecord) -> None:
        runs.write(self._link, record)

    def ledger(self, run: str) -> list[Chunk]:
        return runs.ledger(self._link, run)

    def forget_chunks(self, run: str, table: Place | None = None) -> None:
        runs.forget_chunks(self._link, run, table)

    def clear(self, place: Place) -> None:
        self._link.run(f"TRUNCATE {at(place)}", what=f"emptying {'.'.join(place)}")

    def build(self, statements: Iterable[str], report: Report = silent) -> None:
        runs.build(self._link, statements, self._run, report)

    def load(
        self,
        place: Place,
        fields: Sequence[Field],
        fmt: Format,
        blocks: Iterable[Block],
        chunk: Chunk,
        *,
        fast: bool,
    ) -> int:
        return load.load(self._link, place, fields, fmt, blocks, chunk, fast=fast)

    def repair(
        self,
        place: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        delete: Sequence[tuple[Any, ...]],
    ) -> int:
        return load.repair(self._link, place, fields, key, rows, delete)

    def renumber(self, table: Table, place: Place) -> None:
        numbers.renumber(self._link, table, place)

    def analyze(self, place: Place) -> None:
        self._link.run(f"ANALYZE {at(place)}", what=f"analyzing {'.'.join(place)}")

    def orphans(
        self, place: Place, key: ForeignKey, referred: Place, *, samples: int = 5
    ) -> tuple[int, list[tuple[str, ...]]]:
        return numbers.orphans(self._link, place, key, referred, samples)

    def swap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        return swap.swap(self._link, record, moves, report)

    def unswap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        return swap.unswap(self._link, record, moves, report)

    def merge(
        self,
        record: RunRecord,
        staged: Place,
        live: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rule: ConflictRule,
    ) -> MergeCounts:
        return merge.merge(self._link, record, staged, live, fields, key, rule)

    def unmerge(self, record: RunRecord, live: Place, key: Sequence[str], *, force: bool = False) -> None:
        merge.unmerge(self._link, record, live, key, force=force)

    def close_run(self, record: RunRecord) -> None:
        runs.close_run(self._link, record)

    def dependents(self, places: Sequence[Place]) -> list[str]:
        return swap.dependents(self._link, places)

    def free_bytes(self) -> int | None:
        return None  # PostgreSQL does not tell


def _execute(link: Link, statement: str, params: Sequence[object], limit: int | None) -> Result:
    with psycopg.Cursor(link.db) as cursor:
        if limit is None or not statement.lstrip().lower().startswith(("select", "with", "values", "table")):
            cursor.execute(statement, list(params) or None)
            if cursor.description is None:
                return Result(affected=cursor.rowcount if cursor.rowcount >= 0 else None)
            names = tuple(c.name for c in cursor.description)
            rows = _fetched(cursor)
            cut = limit is not None and len(rows) > limit
            return Result(columns=names, rows=rows[:limit] if cut else rows, truncated=cut)
        rows = []
        names = ()
        cut = False
        with contextlib.ExitStack() as stack:
            if link.in_transaction:
                # Stopping early cancels the query on the server, which would end an open snapshot.
                link.db.execute("SAVEPOINT dblens_look")
                stack.callback(_release, link)
            stream = cast("Generator[Any, None, None]", cursor.stream(statement, list(params) or None))
            with contextlib.closing(stream):
                for row in stream:
                    if len(rows) >= limit:
                        cut = True
                        break
                    rows.append(row)
                if cursor.description is not None:
                    names = tuple(c.name for c in cursor.description)
        return Result(columns=names, rows=rows, truncated=cut)


def _release(link: Link) -> None:
    link.db.execute("ROLLBACK TO SAVEPOINT dblens_look; RELEASE SAVEPOINT dblens_look")


def _fetched(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    """Return all rows; values that Python's types cannot hold (infinity, BC, 24:00:00) come as the server's text."""
    try:
        return cursor.fetchall()
    except psycopg.DataError:
        result = cursor.pgresult
        if result is None:
            raise
        return [
            tuple(
                None if (v := result.get_value(r, c)) is None else bytes(v).decode("utf-8", "backslashreplace")
                for c in range(result.nfields)
            )
            for r in range(result.ntuples)
        ]


def connect(
    engine: Engine,
    url: Url,
    password: str | None = None,
    *,
    create: bool = False,
    read_only: bool = False,
    application: str = "dblens",
) -> PostgresSession:
    """Open a session; `create` makes a missing database from template0 in UTF-8."""
    unknown = sorted(set(url.options) - engine.options)
    if unknown:
        raise InvalidInput(
            f"the URL option {unknown[0]!r} is not known for PostgreSQL",
            hint=f"known: {', '.join(sorted(engine.options))}",
        )
    try:
        return PostgresSession(Link(url, password, application=application, read_only=read_only), engine)
    except NotFound:
        if not create or not url.database:
            raise
    import msgspec

    server = Link(
        msgspec.structs.replace(url, database=engine.facts.maintenance_database),
        password,
        application=application,
        read_only=False,
    )
    try:
        there = server.one("SELECT 1 FROM pg_database WHERE datname = $1", [url.database])
        if not there:
            server.run(
                f"CREATE DATABASE {quote(url.database)} TEMPLATE template0 ENCODING 'UTF8'",
                what=f"creating the database {url.database!r}",
            )
    finally:
        server.close()
    return PostgresSession(Link(url, password, application=application, read_only=read_only), engine)
