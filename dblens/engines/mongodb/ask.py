"""A MongoDB session as people ask it: mongosh-style text, documents streamed, stopped on the server, read-only by lists and login.

Each statement has a server session (lsid) and a comment of its own: what is stopped is found by them, so a stop never reaches another
statement. Nothing is retried: whether a write whose answer was lost was done, nobody here can know.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import pymongo
from bson.errors import BSONError
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from dblens.engines.asking import Explained, Layer, Limits, Transaction
from dblens.engines.mongodb import ask_guard, ask_plan, extjson, shell
from dblens.engines.mongodb.ask_answer import Counts, Rows, document_out, long, number_out, shown, text_out
from dblens.engines.mongodb.ask_commands import Asked, asked, explained
from dblens.engines.mongodb.errors import translate
from dblens.engines.mongodb.rawbson import OPTIONS
from dblens.errors import Cancelled, Conflict, InvalidInput, PermissionDenied, QueryFailed, TimedOut, Unsupported

if TYPE_CHECKING:
    from dblens.engines.asking import Answer
    from dblens.engines.base import Target
    from dblens.engines.mongodb.session import MongoSession

_STOP_SECONDS: Final = 5.0
_READ_ACTIONS: Final = frozenset(
    {
        "find", "listCollections", "listIndexes", "listDatabases", "collStats", "dbStats", "dbHash", "killCursors", "planCacheRead", "indexStats",
        "changeStream", "listSearchIndexes", "connPoolStats", "serverStatus", "top", "inprog", "hostInfo", "getCmdLineOpts", "getParameter",
        "replSetGetStatus", "replSetGetConfig", "getLog", "getShardMap", "listShards", "shardingState", "netstat", "validate", "viewRole", "viewUser",
        "listSessions", "killAnyCursor", "useUUID", "queryStatsRead", "checkMetadataConsistency", "getClusterParameter",
        "getDefaultRWConcern", "checkFreeMonitoringStatus", "getDatabaseVersion",
    }
)  # fmt: skip
_READ_ROLES: Final = frozenset({"read", "readAnyDatabase", "clusterMonitor"})
_LATE: Final = "it took longer than allowed"


class Statement:
    """What runs: its marks on the server, its deadline, and whether it was told to stop."""

    def __init__(self, asks: MongoAsks, limits: Limits) -> None:
        self.asks = asks
        self.mark = f"dblens:{secrets.token_hex(16)}"
        self.deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
        self.cancelled = threading.Event()
        self.collection: str | None = None
        self.cursor: Any = None
        self.doing = "the statement"
        transaction = asks.transaction_session
        self.own = transaction is None
        self.lsid = transaction if transaction is not None else asks.new_session()
        self._ended = False

    def left(self) -> float | None:
        """Return the seconds that are left. Raises TimedOut when there are none."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(f"{self.doing}: {_LATE}", hint="allow more time, or narrow the query")
        return left

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Run calls of the driver within the deadline; its errors come out as DBLens errors. The deadline counts here and on the server."""
        left = self.left()
        self._stopped(None)
        try:
            with pymongo.timeout(left) if left is not None else contextlib.nullcontext():
                yield
        except (PyMongoError, BSONError) as error:
            self.asks.failed(self)
            self._stopped(error)
            if isinstance(error, PyMongoError) and (
                error.timeout or (self.deadline and time.monotonic() >= self.deadline)
            ):
                raise TimedOut(f"{self.doing}: {_LATE}", hint="allow more time, or narrow the query") from error
            raise translate(error, self.doing) from error

    def _stopped(self, error: Exception | None) -> None:
        if self.cancelled.is_set():
            raise Cancelled(f"{self.doing}: stopped on request", hint="start it again when you want to") from error

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Let go of what the server holds, within a few seconds."""
        try:
            with pymongo.timeout(_STOP_SECONDS):
                yield
        except (PyMongoError, BSONError) as error:
            raise translate(error, "closing the cursor") from error

    def end(self) -> None:
        """Say that it runs no more, and give its session back."""
        if self._ended:
            return
        self._ended = True
        self.asks.ended(self)
        if self.own and self.lsid is not None:
            self.lsid.end_session()


class MongoAsks:
    """See `Asks`. `javascript` lets $where, $function and $accumulator through; nothing in DBLens sets it."""

    def __init__(self, session: MongoSession, *, javascript: bool = False) -> None:
        self._session, self._javascript = session, javascript
        self._guard = threading.Lock()
        self._now: Statement | None = None
        self._transaction: Transaction | None = None
        self.transaction_session: Any = None
        self._comments = _version(session.version) >= (4, 4)

    # ---- what a statement needs

    def new_session(self) -> Any:
        """Return a server session, where the server has them."""
        return self._session.client.start_session() if self._session.lsid is not None else None

    def failed(self, statement: Statement) -> None:
        """Note that the server refused something: it has ended the transaction in which that was."""
        if self._transaction is not None and not statement.own:
            self._transaction = Transaction(
                read_only=self._transaction.read_only, isolation=self._transaction.isolation, failed=True
            )

    def ended(self, statement: Statement) -> None:
        """Forget a statement; waits while it is being stopped, so that its session is not yet another's."""
        with self._guard:
            if self._now is statement:
                self._now = None

    # ---- asking

    def ask(
        self,
        statement: str,
        params: Sequence[object] = (),
        *,
        read_only: bool = True,
        limits: Limits = Limits(),
        tag: str = "",
    ) -> Answer:
        """Run one statement; see `Asks.ask`."""
        wanted = asked(shell.parse(statement, params), self._session.database)
        return self._run(wanted, read_only=self._only_reads(wanted, read_only=read_only), limits=limits, tag=tag)

    def _only_reads(self, wanted: Asked, *, read_only: bool) -> bool:
        """Return whether it may only read. Raises PermissionDenied for what read-only refuses, and for JavaScript."""
        if self._transaction is not None and self._transaction.failed:
            raise Conflict("the transaction has failed", hint="roll it back")
        inside = self._transaction is not None and self._transaction.read_only
        only = read_only or self._session.read_only or inside
        if only and not wanted.reads:
            raise PermissionDenied(
                f"{wanted.verb} writes, and this statement may only read", hint="run it as a write, where you may"
            )
        for command in wanted.commands:
            ask_guard.check(
                command,
                read_only=only or bool(wanted.explain),
                javascript=self._javascript,
                database=self._session.database,
            )
        return only

    def _run(self, wanted: Asked, *, read_only: bool, limits: Limits, tag: str) -> Rows:
        with self._guard:
            if self._now is not None:
                raise Conflict("this session still runs another statement", hint="close its answer first")
            run = self._now = Statement(self, limits)
        run.doing, run.collection = wanted.verb, wanted.collection
        try:
            return self._answer(run, wanted, read_only=read_only, limits=limits, tag=tag)
        except BaseException:
            run.end()
            raise

    def _answer(self, run: Statement, wanted: Asked, *, read_only: bool, limits: Limits, tag: str) -> Rows:
        commands = [self._marked(run, command, tag) for command in wanted.commands]
        if wanted.shape == "cursor":
            return self._cursor(run, wanted, commands[0], limits)
        if wanted.shape in ("write", "modified"):
            return self._write(run, wanted, commands, limits)
        if wanted.shape == "names" or (wanted.shape == "count" and "aggregate" in commands[0]):
            found = [dict(each) for each in self._documents(run, commands[0], read_only=read_only)]
            if wanted.shape == "names":
                rows = sorted((str(each["name"]), str(each.get("type", "collection"))) for each in found)
                return Rows(run, (text_out("name"), text_out("type")), limits, rows=rows)
            return Rows(run, (number_out("count"),), limits, rows=[(int(found[0]["n"]) if found else 0,)])
        reply = self._command(run, commands[0], admin=wanted.admin, read_only=read_only)
        match wanted.shape:
            case "count":
                return Rows(run, (number_out("count"),), limits, rows=[(int(reply["n"]),)])
            case "values":
                values = [(extjson.encode(each),) for each in reply["values"]]
                return Rows(run, (document_out("value"),), limits, rows=values)
            case "databases":
                names = sorted((str(each["name"]),) for each in reply["databases"])
                return Rows(run, (text_out("name"),), limits, rows=names)
        return Rows(run, (document_out(),), limits, rows=[(extjson.encode(shown(reply)),)])

    def _marked(self, run: Statement, command: dict[str, Any], tag: str) -> dict[str, Any]:
        """Return a command with its comment: the person's own, the tag, and the mark by which a stop finds it."""
        made = dict(command)
        target = made.get("explain", made)
        if self._comments or next(iter(target)) in ("find", "aggregate"):
            own = target.get("comment")
            words = [] if own is None else [own if isinstance(own, str) else extjson.encode(own)]
            comment = " ".join([*words, *([tag] if tag else []), run.mark])
            if "explain" in made:
                made["explain"] = {**target, "comment": comment}
            made["comment"] = comment
        limit = made.get("maxTimeMS")
        if isinstance(limit, int) and limit > 0:  # the driver sends what is left of its own deadline instead
            until = time.monotonic() + limit / 1000
            run.deadline = until if run.deadline is None else min(run.deadline, until)
        return made

    def _preference(self, run: Statement, *, read_only: bool) -> Any:
        return self._session.client.read_preference if read_only and run.own else None

    def _command(self, run: Statement, command: dict[str, Any], *, admin: bool, read_only: bool) -> dict[str, Any]:
        database = self._session.client["admin" if admin else self._session.database]
        with run.at_work():
            return dict(
                database.command(
                    command,
                    session=run.lsid,
                    codec_options=OPTIONS,
                    read_preference=self._preference(run, read_only=read_only),
                )
            )

    def _documents(self, run: Statement, command: dict[str, Any], *, read_only: bool) -> Iterator[Mapping[str, Any]]:
        with run.at_work():
            yield from self._session.client[self._session.database].cursor_command(
                command,
                session=run.lsid,
                codec_options=OPTIONS,
                read_preference=self._preference(run, read_only=read_only),
            )

    def _cursor(self, run: Statement, wanted: Asked, command: dict[str, Any], limits: Limits) -> Rows:
        size = {"batchSize": min(100, limits.rows + 1)}
        if "find" in command:
            command = {**size, **command}  # what stands first is the command's name
            command = {"find": command.pop("find"), **command}
        elif "aggregate" in command and wanted.reads:
            command["cursor"] = {**size, **dict(command["cursor"])}
        database = self._session.raw_database(self._session.database)
        reads = wanted.reads
        with run.at_work():
            if not reads and run.own:
                command["writeConcern"] = self._session.concern.document
            cursor = database.cursor_command(
                command,
                session=run.lsid,
                codec_options=database.codec_options,
                read_preference=self._preference(run, read_only=reads),
                comment=command.get("comment"),
            )
        run.cursor = cursor
        place = (self._session.database, wanted.collection) if wanted.plain else (None, None)
        columns = (document_out(namespace=place[0], table=place[1]),)
        if not reads:  # $out and $merge: done when the first batch is there; there are no documents
            with run.at_work():
                rows = [(extjson.encode_raw(bytes(each.raw)),) for each in cursor]
            return Rows(run, columns if rows else (), limits, rows=rows)
        return Rows(run, columns, limits, cursor=cursor)

    def _write(self, run: Statement, wanted: Asked, commands: list[dict[str, Any]], limits: Limits) -> Rows:
        counts = Counts()
        before = 0
        reply: dict[str, Any] = {}
        for command in commands:
            if run.own:
                command["writeConcern"] = self._session.concern.document
            reply = self._command(run, command, admin=wanted.admin, read_only=False)
            counts.add(command, reply, before)
            before += max(len(command.get(name, ())) for name in ("documents", "updates", "deletes"))
            if counts.failed and wanted.ordered:
                break
        if counts.failed:
            self.failed(run)
        counts.check(wanted.verb)
        counts.inserted(wanted.ids)
        if wanted.shape == "modified":
            value = reply.get("value")
            rows = [] if value is None else [(extjson.encode(value),)]
            return Rows(
                run, (document_out(),), limits, rows=rows, affected=counts.affected, notices=tuple(counts.notices)
            )
        return Rows(run, (), limits, affected=counts.affected, notices=tuple(counts.notices))

    # ---- what protects

    def layers(self) -> tuple[Layer, ...]:
        """Return what keeps a read-only statement from writing; see `Asks.layers`."""
        lists = Layer(
            name="allow_list",
            active=True,
            why="methods, stages and operators that only read are sent; everything else is refused here",
        )
        return (self._login(), lists)

    def _login(self) -> Layer:
        run = Statement(self, Limits(seconds=_STOP_SECONDS))
        run.doing = "reading privileges"
        try:
            with run.at_work():
                reply = self._session.client.admin.command(
                    {"connectionStatus": 1, "showPrivileges": True}, session=run.lsid
                )
        except (QueryFailed, PermissionDenied) as error:
            return Layer(
                name="login", active=False, why=f"the server does not tell what the login may do: {error.message}"
            )
        finally:
            run.end()
        return login_layer(reply.get("authInfo") or {})

    # ---- plans

    def explain(
        self, statement: str, params: Sequence[object] = (), *, analyze: bool = False, limits: Limits = Limits()
    ) -> Explained:
        """Return a statement's plan; see `Asks.explain`."""
        verbosity = "executionStats" if analyze else "queryPlanner"
        wanted = asked(shell.parse(statement, params), self._session.database)
        if wanted.explain:
            wanted = wanted._replace(commands=({**wanted.commands[0], "verbosity": verbosity},))
        else:
            wanted = explained(wanted, verbosity)
        self._only_reads(wanted, read_only=True)
        with self._guard:
            if self._now is not None:
                raise Conflict("this session still runs another statement", hint="close its answer first")
            run = self._now = Statement(self, limits)
        run.doing = "explain"
        try:
            reply = self._command(run, self._marked(run, wanted.commands[0], ""), admin=False, read_only=True)
        finally:
            run.end()
        return ask_plan.explained(reply, analyzed=analyze)

    # ---- transactions

    @property
    def transaction(self) -> Transaction | None:
        """Return the explicit transaction's state."""
        return self._transaction

    def begin(self, *, read_only: bool = False, isolation: str = "") -> None:
        """Begin a transaction with snapshot isolation, MongoDB's only one; see `Asks.begin`."""
        if self._transaction is not None:
            raise Conflict("there is a transaction already", hint="commit it or roll it back")
        if isolation.lower() not in ("", "snapshot"):
            raise InvalidInput(
                f"the isolation level {isolation!r} is unknown here", hint="snapshot, the only one of MongoDB"
            )
        if not self._session.transactional or self._session.lsid is None:
            raise Unsupported(
                "a transaction", "this server is no replica set", hint="MongoDB has transactions in replica sets"
            )
        if self._session.read_only and not read_only:
            raise PermissionDenied("a writing transaction on a read-only session", hint="begin it read-only")
        session = self._session.client.start_session()
        try:
            session.start_transaction(ReadConcern("snapshot"), self._session.concern)
        except PyMongoError as error:
            session.end_session()
            raise translate(error, "beginning a transaction") from error
        self.transaction_session = session
        self._transaction = Transaction(read_only=read_only, isolation="snapshot")

    def commit(self) -> None:
        """Commit; see `Asks.commit`."""
        if self._transaction is None:
            raise Conflict("there is no transaction", hint="begin one")
        if self._transaction.failed:
            self.rollback()
            raise QueryFailed("the transaction had failed and was rolled back", hint="begin it again")
        self._finish(commit=True)

    def rollback(self) -> None:
        """Roll back; see `Asks.rollback`."""
        if self._transaction is not None:
            self._finish(commit=False)

    def _finish(self, *, commit: bool) -> None:
        session, self.transaction_session, self._transaction = self.transaction_session, None, None
        try:
            if commit:
                session.commit_transaction()
            else:
                session.abort_transaction()
        except PyMongoError as error:
            told = translate(error, "committing" if commit else "rolling back")
            if error.has_error_label("UnknownTransactionCommitResult"):
                told.hint = "whether it was committed is not known: look at the data before you do it again"
            raise told from error
        finally:
            with contextlib.suppress(PyMongoError):
                session.end_session()

    # ---- stopping

    def cancel(self) -> None:
        """Stop what runs now on the server: its operations by comment, its cursor, and all of its session; see `Asks.cancel`."""
        with self._guard:  # it cannot end meanwhile: what is stopped is what ran when this was called
            run = self._now
            if run is None:
                return
            run.cancelled.set()
            errors: list[PyMongoError] = []
            for stop in (self._kill_operations, self._kill_cursor, self._kill_session):
                try:
                    with pymongo.timeout(_STOP_SECONDS):
                        stop(run)
                except PyMongoError as error:  # a login that may not one may another
                    errors.append(error)
            if len(errors) == 3:
                raise translate(errors[-1], "cancelling") from errors[-1]

    def _kill_operations(self, run: Statement) -> None:
        admin = self._session.client.admin
        for found in marked_operations(self._operations(admin), run.mark):
            admin.command({"killOp": 1, "op": found})

    def _operations(self, admin: Any) -> list[Mapping[str, Any]]:
        """Return the login's own operations: no privilege is needed for those."""
        steps: list[Any] = [{"$currentOp": {"allUsers": False}}]
        reply = admin.command({"aggregate": 1, "pipeline": steps, "cursor": {"batchSize": 1000}})
        return cast("list[Mapping[str, Any]]", reply["cursor"]["firstBatch"])

    def _kill_cursor(self, run: Statement) -> None:
        cursor = run.cursor
        if cursor is not None and cursor.cursor_id and run.collection:
            command = {"killCursors": run.collection, "cursors": [long(cursor.cursor_id)]}
            self._session.client[self._session.database].command(command)

    def _kill_session(self, run: Statement) -> None:
        if run.lsid is not None:
            self._session.client.admin.command({"killSessions": [run.lsid.session_id]})


def marked_operations(operations: Sequence[Mapping[str, Any]], mark: str) -> list[Any]:
    """Return the ids of the operations that carry a mark: in their command's comment, or in that of the cursor that they read from."""
    found = []
    for each in operations:
        commands = [each.get("command"), (each.get("cursor") or {}).get("originatingCommand")]
        comments = [str(command.get("comment", "")) for command in commands if isinstance(command, Mapping)]
        if any(mark in comment for comment in comments) and each.get("opid") is not None:
            found.append(each["opid"])
    return found


def login_layer(info: Mapping[str, Any]) -> Layer:
    """Return whether a login can write, by what `connectionStatus` tells of it."""
    users = info.get("authenticatedUsers") or []
    if not users:
        return Layer(
            name="login",
            active=False,
            why="nobody is logged in: the server has no access control, or lets everybody in",
        )
    name = str(users[0].get("user", "?"))
    privileges = info.get("authenticatedUserPrivileges") or []
    roles = {str(each.get("role")) for each in info.get("authenticatedUserRoles") or []}
    if privileges:
        writes = sorted({str(action) for each in privileges for action in each.get("actions", ())} - _READ_ACTIONS)
        if writes:
            return Layer(name="login", active=False, why=f"the login {name!r} may also {', '.join(writes[:5])}")
        return Layer(name="login", active=True, why=f"the login {name!r} has no privilege that writes")
    if roles and roles <= _READ_ROLES:
        return Layer(name="login", active=True, why=f"the login {name!r} has the roles {', '.join(sorted(roles))} only")
    why = f"the login {name!r} has the roles {', '.join(sorted(roles)) or 'none that the server tells'}"
    return Layer(name="login", active=False, why=why)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def ask(session: Target) -> MongoAsks:
    """Return a session as people ask it."""
    return MongoAsks(cast("MongoSession", session))


def reads(text: str) -> bool:
    """Tell whether a text surely only reads: every statement of it passes the lists of read-only. Parameters are taken to fit."""
    for begin, end in shell.split(text):
        piece = text[begin:end]
        try:
            wanted = asked(shell.parse(piece, None), "test")
            for command in wanted.commands:
                ask_guard.check(command, read_only=True)
        except (InvalidInput, PermissionDenied, Unsupported):
            return False
        if not wanted.reads:
            return False
    return True
