"""A session on one MySQL or MariaDB database: the verbs of the contract, each handed to its chapter.

Three connections, opened as they are needed: `main` reads (and holds the snapshot), `side` holds the lock and writes records and
DDL of a run, `loader` runs LOAD DATA LOCAL. A fourth, short-lived one kills a query that is given up.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pymysql
from pymysql.constants import CLIENT

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
    Source,
    Support,
    Url,
)
from dblens.engines.mysql import build, canonical, checks, export, image, inspect, load, merge, runs, sql, swap
from dblens.engines.mysql.driver import Link, Raw, check_options, open_link
from dblens.engines.mysql.infile import Loader
from dblens.engines.mysql.sql import literal, quote, where_is
from dblens.errors import Cancelled, DBLensError, EngineError, InvalidInput, PermissionDenied, TimedOut, Unsupported
from dblens.events import Report, silent
from dblens.schema.model import ForeignKey, Schema, Table, TableRef
from dblens.schema.types import Boolean, Integer
from dblens.values.digest import Accumulator, Fingerprint

if TYPE_CHECKING:
    from dblens.engines.base import Target
    from dblens.engines.mysql.ask import MySQLAsks

_SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")


def connect(
    url: Url, password: str | None = None, *, create: bool = False, read_only: bool = False, application: str = "dblens"
) -> Target:
    """Open a session on the database that the URL names; `create` makes it when it is missing."""
    check_options(url)
    if not url.database:
        raise InvalidInput(f"the URL names no database: {url}", hint="write mysql://user@host:3306/database")
    if create:
        link = Link(url, password, None)
        try:
            link.run(f"create database if not exists {quote(url.database)} character set utf8mb4")
        finally:
            link.close()
    return MySQLSession(url, password, read_only, application)


class MySQLSession:
    """A live session; see `dblens.engines.base.Target` for what each method promises."""

    def __init__(self, url: Url, password: str | None, read_only: bool, application: str) -> None:
        self._url, self._password, self._read_only, self._application = url, password, read_only, application
        self._side: Link | None = None
        self._loader: Loader | None = None
        self._locked = False
        self._snapshot: Snapshot | None = None
        self._cancelled = threading.Event()
        self.asking: MySQLAsks | None = None
        self._main = open_link(url, password, url.database)
        self._main.killer = self._kill
        version, current = self._main.one("select version(), database()")
        self._version, self._database = _s(version), _s(current)
        self._flavour = "mariadb" if "mariadb" in self._version.lower() else "mysql"
        (self._port,) = self._main.one("select @@port")
        if self._flavour == "mysql":
            self._main.run("set session information_schema_stats_expiry = 0")
        if read_only:
            self._main.run("set session transaction read only")

    def __repr__(self) -> str:
        return f"MySQLSession({str(self._url)!r})"

    # ---------------------------------------------------------------------------------------------------------- identity

    def descriptor(self) -> int:
        """Return the reading connection's socket, for the watchdog of a connection pool."""
        return (
            int(self._main.raw.fileno()) if self._main.driver == "mysqlclient" else int(self._main.raw._sock.fileno())
        )

    @property
    def engine(self) -> Engine:
        from dblens.engines.mysql import engine

        return engine

    @property
    def version(self) -> str:
        return self._version

    @property
    def flavour(self) -> str:
        return self._flavour

    @property
    def database(self) -> str:
        return self._database

    @property
    def driver(self) -> str:
        """Return the reading driver's name."""
        return self._main.driver

    @property
    def _cheap_rows(self) -> bool:
        return self._main.driver == "mysqlclient"

    @property
    def fingerprint_id(self) -> str:
        host = self._url.host or "localhost"
        return f"mysql://{host}:{self._port}/{self._database} as {self._url.user or 'root'}, {self._version}"

    # ------------------------------------------------------------------------------------------------------- connections

    def _side_link(self) -> Link:
        if self._side is None:
            self._side = Link(self._url, self._password, self._database)
        return self._side

    def another_link(self, *, database: bool = True, found_rows: bool = False) -> Link:
        """Open one more pymysql connection; `found_rows`: what a statement affects are the rows that it found."""
        factory = functools.partial(pymysql.connect, client_flag=CLIENT.FOUND_ROWS) if found_rows else pymysql.connect
        return Link(self._url, self._password, self._database if database else None, factory)

    def _load_link(self) -> Loader:
        if self._loader is None:
            self._loader = Loader(self._url, self._password, self._database)
        return self._loader

    def _kill(self, connection: int) -> None:
        """Stop what a connection of ours runs; the connection and its snapshot live on."""
        try:
            link = Link(self._url, self._password, None)
        except DBLensError:
            # Without a second connection the only way to stop the server is to leave.
            self._main.close()
            return
        try:
            link.run(f"kill query {int(connection)}")
        except DBLensError:
            # The query ended in the meantime, which is what was wanted.
            return
        finally:
            link.close()

    def _stream(self, statement: str) -> Iterator[Sequence[Raw]]:
        return self._main.stream(statement)

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        return self._main.rows(statement)

    def cancel(self) -> None:
        self._cancelled.set()
        for link in (self._main, self._side, self._loader):
            if link is not None:
                self._kill(link.id)

    def close(self) -> None:
        if self._locked:
            # A dropped connection keeps its locks until the server notices; the next session must not wait for that.
            with contextlib.suppress(EngineError):
                runs.unlock(self._side_link(), self._database)
        for link in (self._loader, self._side, self._main):
            if link is not None:
                link.close()
        self._loader = self._side = None
        self._locked = False
        if self.asking is not None:
            self.asking.close()

    # ------------------------------------------------------------------------------------------------------------ reading

    def namespaces(self) -> list[str]:
        return [self._database]

    def list_tables(self, namespace: str) -> list[TableRef]:
        return inspect.list_tables(self._query, namespace)

    def inspect(self, *, namespaces: Sequence[str] = ()) -> Schema:
        return inspect.inspect(
            self._query, self._flavour, self._version, self._database, namespaces or self.namespaces()
        )

    def execute(
        self, statement: str, params: Sequence[object] = (), *, limit: int | None = None, timeout: float | None = None
    ) -> Result:
        timer: threading.Timer | None = None
        late = threading.Event()
        if timeout is not None:

            def stop() -> None:
                late.set()
                self._kill(self._main.id)

            timer = threading.Timer(timeout, stop)
            timer.daemon = True
            timer.start()
        try:
            return self._main.result(statement, params, limit)
        except Cancelled as error:
            if late.is_set():
                raise TimedOut(
                    f"the statement ran longer than {timeout} s and was stopped", hint="raise the limit"
                ) from error
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def supports(self, feature: Feature) -> Support:
        match feature:
            case "snapshot" | "atomic_swap" | "create_database" | "cancel":
                return Support(ok=True)
            case "shared_snapshot":
                return Support(ok=False, why="MySQL has no way for another session to join a snapshot")
            case "transactional_ddl":
                return Support(ok=False, why="every DDL statement of MySQL commits by itself")
            case "bulk_load":
                (on,) = self._main.one("select @@global.local_infile")
                ok = str(on) in ("1", "ON", "b'ON'")
                return Support(ok=ok, why="" if ok else "the server has local_infile = OFF; rows are inserted instead")
        raise Unsupported(str(feature), "no such feature")

    def missing_privileges(self, *, write: bool, place: str | None = None) -> list[str]:
        grants = [_s(row[0]) for row in self._main.rows("show grants")]
        database = place or self._database
        have = _granted(grants, database)
        wanted = (
            {"SELECT"}
            if not write
            else {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES"}
        )
        (user,) = self._main.one("select current_user()")
        name, _, host = _s(user).rpartition("@")
        to = f"TO {literal(name)}@{literal(host)}"
        missing = sorted(wanted - have)
        found = [f"GRANT {', '.join(missing)} ON {quote(database)}.* {to}"] if missing else []
        if write and wanted - _granted(grants, "_dblens_0000000000"):
            found.append(runs.grant_text(self._main))
        return found

    def begin_snapshot(self) -> Snapshot:
        if self._snapshot is not None:
            return self._snapshot
        odd = self._main.rows(
            "select table_name, engine from information_schema.tables where table_schema = %s and table_type = 'BASE TABLE' "
            "and engine <> 'InnoDB' order by table_name",
            (self._database,),
        )
        self._main.run("set session transaction isolation level repeatable read")
        self._main.run("start transaction with consistent snapshot, read only")
        note = "one instant for one session: other sessions cannot join it, so tables are read one after another"
        if odd:
            shown = ", ".join(f"{_s(t)} ({_s(e)})" for t, e in odd[:10])
            note += f"; tables that are not InnoDB are read as they are at that moment: {shown}"
        self._snapshot = Snapshot(
            id=f"mysql:{self._main.id}:{time.time_ns()}",
            shared=False,
            consistent=not odd,
            note=note,
            position=self._position(),
        )
        return self._snapshot

    def _position(self) -> str | None:
        """Return the binary log position, None where there is none or we may not see it."""
        command = "show master status" if self._flavour == "mariadb" else "show binary log status"
        try:
            rows = self._main.rows(command)
        except DBLensError:
            return None
        return f"{_s(rows[0][0])}:{_s(rows[0][1])}" if rows else None

    def end_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot = None
            self._main.run("rollback")

    def join(self, snapshot: Snapshot) -> Source:
        raise Unsupported(
            f"joining snapshot {snapshot.id}",
            "MySQL cannot hand a snapshot to another session without stopping all writes (FLUSH TABLES WITH READ LOCK)",
        )

    def profile(self, table: Table, report: Report = silent) -> Table:  # noqa: ARG002 - one statement, nothing to report between
        doubtful = [
            c
            for c in table.columns
            if isinstance(c.type, Integer) and c.native.lower().replace(" ", "") == "tinyint(1)"
        ]
        if not doubtful:
            return table
        sums = ", ".join(f"sum({quote(c.name)} not in (0, 1)), count({quote(c.name)})" for c in doubtful)
        row = self._query(f"select {sums} from {where_is((table.namespace, table.name))}")[0]
        # A column without a single value proves nothing: it stays a number.
        proven = {c.name for i, c in enumerate(doubtful) if row[2 * i + 1] and not int(row[2 * i] or 0)}
        columns = tuple(msgspec.structs.replace(c, type=Boolean()) if c.name in proven else c for c in table.columns)
        return msgspec.structs.replace(table, columns=columns)

    def count(self, table: Table, *, where: str | None = None) -> int:
        return int(
            self._query(f"select count(*) from {where_is((table.namespace, table.name))}{sql.filters(where)}")[0][0]
        )

    def check(
        self, table: Table, checks_: Sequence[tuple[Field, Check]], *, where: str | None = None
    ) -> list[CheckResult]:
        return checks.answer(self._query, self._stream, self._flavour, table, checks_, where)

    def chunks(self, table: Table, rows: int, *, where: str | None = None) -> list[KeyRange]:
        names = sql.key_columns(table)
        columns = [table.column(n) for n in names]
        if not names or not all(map(sql.rangeable, columns)) or rows < 1:
            return [ALL]
        place = where_is((table.namespace, table.name))
        order = ", ".join(map(quote, names))
        texts = ", ".join(map(sql.bound_text, columns))
        found: list[KeyRange] = []
        lo: tuple[str, ...] | None = None
        while True:
            reached = KeyRange(columns=names, lo=lo)
            step = self._query(
                f"select {texts} from {place}{sql.filters(sql.key_condition(table, reached), where)} order by {order} limit 1 offset {rows - 1}"
            )
            hi = tuple(_s(v) for v in step[0]) if step else None
            found.append(KeyRange(columns=names, lo=lo, hi=hi, rows=rows if hi else None))
            if hi is None:
                break
            lo = hi
        return found if len(found) > 1 else [ALL]

    def formats_out(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002 - the fields decide
        return export.formats(fields)

    def export(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, keys: KeyRange = ALL, where: str | None = None
    ) -> Generator[Block]:
        return export.export(self._stream, table, fields, fmt, keys, where, self._cheap_rows)

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
        return canonical.fingerprint(self._stream, table, fields, keys, where, report, self._cheap_rows, exact)

    def images(self, table: Table, fields: Sequence[Field]) -> tuple[str, ...] | None:  # noqa: ARG002
        return image.forms(fields, self._flavour) if self._cheap_rows else None

    def image(
        self, table: Table, fields: Sequence[Field], *, where: str | None = None, report: Report = silent
    ) -> Fingerprint:
        return image.fingerprint(self._stream, table, fields, where, report)

    def export_images(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, where: str | None, sums: Accumulator
    ) -> Generator[Block] | None:
        if fmt != "mytext" or self.images(table, fields) is None:
            return None
        return image.blocks(self._stream, table, fields, where, sums)

    def canonical_rows(
        self,
        table: Table,
        fields: Sequence[Field],
        *,
        buckets: frozenset[int] | None = None,
        keys: KeyRange = ALL,
        where: str | None = None,
        exact: bool = False,
    ) -> Iterator[tuple[bytes | None, ...]]:
        return canonical.canonical_rows(self._stream, table, fields, buckets, keys, where, exact)

    # ------------------------------------------------------------------------------------------------------------ writing

    def _writes(self) -> Link:
        if self._read_only:
            raise PermissionDenied(f"the session on {self._url} is read only", hint="open it without read_only")
        return self._side_link()

    def formats_in(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:  # noqa: ARG002 - the fields decide
        return load.formats(fields)

    def open_run(self, record: RunRecord, *, takeover: bool = False) -> RunRecord:
        link = self._writes()
        if not self._locked:
            runs.take_lock(link, self._database)
            self._locked = True
        return runs.open_run(link, self._database, record, takeover)

    def read_run(self, run: str) -> RunRecord | None:
        return runs.read_run(self._side_link(), self._database, run)

    def list_runs(self) -> list[RunRecord]:
        return runs.list_runs(self._side_link(), self._database)

    def write_run(self, record: RunRecord) -> None:
        runs.write_run(self._writes(), record)

    def ledger(self, run: str) -> list[Chunk]:
        return runs.ledger(self._side_link(), run)

    def forget_chunks(self, run: str, table: Place | None = None) -> None:
        runs.forget_chunks(self._writes(), run, table)

    def clear(self, place: Place) -> None:
        self._writes().run(f"truncate table {where_is(place)}")

    def build(self, statements: Iterable[str], report: Report = silent) -> None:
        build.build(self._writes(), statements, report)

    def load(
        self, place: Place, fields: Sequence[Field], fmt: Format, blocks: Iterable[Block], chunk: Chunk, *, fast: bool
    ) -> int:
        self._writes()
        try:
            return load.load(self._load_link(), place, fields, fmt, blocks, chunk, fast=fast)
        except BaseException:
            # A load that failed may have left its connection anywhere; the next one gets a new one.
            if self._loader is not None:
                self._loader.close()
                self._loader = None
            raise

    def repair(
        self,
        place: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        delete: Sequence[tuple[Any, ...]],
    ) -> int:
        return load.repair(self._writes(), place, fields, key, rows, delete)

    def renumber(self, table: Table, place: Place) -> None:
        for column in table.columns:
            if column.identity is None:
                continue
            increment = abs(column.identity.increment) or 1
            link = self._writes()
            (greatest,) = link.one(f"select max({quote(column.name)}) from {where_is(place)}")
            following = max(column.identity.next or column.identity.start, int(greatest or 0) + increment, 1)
            link.run(f"alter table {where_is(place)} auto_increment = {following}")

    def analyze(self, place: Place) -> None:
        self._writes().rows(f"analyze table {where_is(place)}")

    def orphans(
        self, place: Place, key: ForeignKey, referred: Place, *, samples: int = 5
    ) -> tuple[int, list[tuple[str, ...]]]:
        present = " and ".join(f"c.{quote(n)} is not null" for n in key.columns)
        match = " and ".join(f"p.{quote(r)} = c.{quote(n)}" for n, r in zip(key.columns, key.referred, strict=True))
        tail = f"from {where_is(place)} c where {present} and not exists (select 1 from {where_is(referred)} p where {match})"
        count = int(self._query(f"select count(*) {tail}")[0][0])
        if not count or samples < 1:
            return count, []
        names = ", ".join(f"concat(c.{quote(n)})" for n in key.columns)
        return count, [
            tuple(_s(v) for v in row) for row in self._query(f"select distinct {names} {tail} limit {int(samples)}")
        ]

    def swap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        return swap.swap(self._writes(), record, moves, report)

    def unswap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        return swap.unswap(self._writes(), record, moves, report)

    def merge(
        self,
        record: RunRecord,
        staged: Place,
        live: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rule: ConflictRule,
    ) -> MergeCounts:
        return merge.merge(self._writes(), record, staged, live, fields, key, rule)

    def unmerge(self, record: RunRecord, live: Place, key: Sequence[str], *, force: bool = False) -> None:
        merge.unmerge(self._writes(), record, live, key, force)

    def close_run(self, record: RunRecord) -> None:
        runs.close_run(self._writes(), record)

    def dependents(self, places: Sequence[Place]) -> list[str]:
        return swap.dependents(self._side_link(), places)

    def free_bytes(self) -> int | None:
        if (self._url.host or "127.0.0.1") not in ("127.0.0.1", "localhost", "::1"):
            return None
        (folder,) = self._main.one("select @@datadir")
        with contextlib.suppress(OSError):
            stat = os.statvfs(_s(folder))
            return stat.f_bavail * stat.f_frsize
        return None


def _s(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _granted(grants: Sequence[str], database: str) -> set[str]:
    """Return the privileges that SHOW GRANTS lines give on a whole database."""
    import re

    every = {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES"}
    have: set[str] = set()
    for line in grants:
        match = re.match(r"GRANT (.+?) ON (?:\*\.\*|`((?:[^`]|``)*)`\.\*) TO ", line)
        if match is None:
            continue
        if match[2] is not None and not _like(match[2].replace("``", "`"), database):
            continue
        have |= every if match[1].startswith("ALL PRIVILEGES") else {p.strip() for p in match[1].split(",")}
    return have


def _like(pattern: str, name: str) -> bool:
    """Match a database pattern of a grant (`%`, `_`, backslash escapes)."""
    import re

    text = "".join(
        re.escape(part[1]) if part.startswith("\\") else {"%": ".*", "_": "."}.get(part, re.escape(part))
        for part in re.findall(r"\\.|.", pattern, re.DOTALL)
    )
    return re.fullmatch(text, name, re.DOTALL) is not None
