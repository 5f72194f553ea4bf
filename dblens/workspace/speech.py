"""One text on its way: which connection, what must be confirmed, which session, the tag, the history. No door of its own."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import decimal
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dblens import engines
from dblens.engines import address
from dblens.engines.asking import Asks
from dblens.engines.base import Engine, Target
from dblens.errors import ConfirmationNeeded, DBLensError, InvalidInput, PermissionDenied
from dblens.migrate.link import Link
from dblens.query.run import Ran, RunLimits, Running, answering
from dblens.query.run import run as run_statements
from dblens.query.statements import Statement, need
from dblens.store import connections
from dblens.store.queries import Asked
from dblens.store.records import new_id
from dblens.workspace.asked import kept_error, kept_text, plain
from dblens.workspace.context import Context
from dblens.workspace.lines import local_only
from dblens.workspace.operation import current
from dblens.workspace.setting_kinds import Queries as Rules
from dblens.workspace.setting_kinds import Safety, read
from dblens.workspace.talks import Transaction, query_id

if TYPE_CHECKING:
    from dblens.workspace.house import House

CONFIRM_SECONDS: Final = 600
_PARAM: Final = "dblens:"


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a query comes from, in its caller's own words: the program, the notebook and its cell. It stands in the server's log."""

    client: str = ""
    notebook: str = ""
    cell: str = ""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a connection before a session of it is open; no `id` for an address."""

    id: str | None
    name: str
    engine: Engine
    environment: str
    read_only: bool


class Speech:
    """A text that somebody asks on a connection."""

    def __init__(
        self,
        context: Context,
        about: About,
        connection: str | Link,
        what: str,
        text: str,
        statements: Sequence[Statement],
        query: str | None,
        origin: Origin,
    ) -> None:
        self.context, self.about, self.what, self.text, self.statements = context, about, what, text, statements
        self._connection = connection
        self.query = query_id(query)
        self.origin = Origin(
            client=plain(origin.client or context.principal.client),
            notebook=plain(origin.notebook, 200),
            cell=plain(origin.cell),
        )
        self._rules: Rules | None = None
        self.entry: str | None = None
        """Its id in the history, the operation's without; for the second text of one operation."""

    @staticmethod
    def about_of(context: Context, connection: str | Link) -> About:
        """Return what is known of a connection that the gate authorized. Raises NotFound, InvalidInput."""
        if isinstance(connection, Link):
            return About(
                id=None, name=str(connection.url), engine=connection.engine, environment="dev", read_only=False
            )
        if local_only(connection):
            url, _ = address.parse(connection, allow_password=True)
            return About(id=None, name=str(url), engine=engines.get(url.scheme), environment="dev", read_only=False)
        with context.store.read() as tx:
            found = connections.get_connection(tx, context.principal.org_id or "", connection)
        return About(
            id=found.id,
            name=found.name,
            engine=engines.get(found.engine),
            environment=found.environment,
            read_only=found.read_only,
        )

    @staticmethod
    def began(
        context: Context, connection: str | Link, *, read_only: bool, isolation: str, idle_seconds: int | None
    ) -> Transaction:
        """Begin a transaction. Raises what `Talks.begin` raises, and PermissionDenied where nothing may be written."""
        about = Speech.about_of(context, connection)
        speech = Speech(context, about, connection, "begin", "", (), None, Origin())
        if not read_only:
            speech.writable()
        most = speech.rules().idle_seconds
        if idle_seconds is not None and not 1 <= idle_seconds <= most:
            raise InvalidInput(f"idle_seconds is {idle_seconds}", hint=f"from 1 to {most}, the organization's limit")
        return house_of(context).talks.begin(
            context.principal.user_id,
            about.id,
            about.name,
            speech.session(reading=False),
            read_only=read_only,
            isolation=isolation,
            idle=float(idle_seconds or most),
        )

    # ----------------------------------------------------------------------------------------------------------- confirmation

    def rules(self) -> Rules:
        """Return the organization's rules."""
        if self._rules is None:
            with self.context.store.read() as tx:
                self._rules = read(tx, self.context.principal.org_id, Rules) or Rules()
        return self._rules

    def rule(self) -> Safety:
        """Return what writes need in the connection's environment."""
        found: Safety = getattr(self.rules(), self.about.environment, "writes")
        return found

    def writable(self) -> None:
        """Raise PermissionDenied where nothing may be written."""
        if self.about.read_only:
            raise PermissionDenied(f"the connection {self.about.name!r} is read-only", hint="use another")
        if self.rule() == "read_only":
            raise PermissionDenied(
                f"nothing is written to {self.about.environment} here", hint="a rule of the organization: `queries`"
            )

    def warnings(self) -> tuple[str, ...]:
        """Return what should be looked at, with the number of the statement where there are several."""
        several = len(self.statements) > 1
        return tuple(
            f"statement {each.number} (line {each.line}): {told}" if several else told
            for each in self.statements
            for _, told in each.warnings
        )

    def needs_confirmation(self) -> bool:
        """Return whether the text has to be confirmed by the rule."""
        actions = {each.action for each in self.statements}
        unsafe = any(each.warnings and not each.reads for each in self.statements) or "unknown" in actions
        match self.rule():
            case "off":
                return False
            case "unsafe":
                return unsafe
            case "ddl":
                return unsafe or "ddl" in actions
            case _:
                return bool(actions - {"read"})

    def confirmed(self, params: Mapping[str, Any], confirm: str | None) -> None:
        """Return when the text may be written now. Raises ConfirmationNeeded, PermissionDenied."""
        self.writable()
        if not self.needs_confirmation():
            return
        now = int(self.context.clock().timestamp())
        if confirm is not None:
            at, _, _ = confirm.partition("-")
            if at.isalnum() and at.isascii() and len(at) <= 12:
                made = int(at, 36) if all(c in "0123456789abcdefghijklmnopqrstuvwxyz" for c in at) else 0
                if now - CONFIRM_SECONDS <= made <= now and hmac.compare_digest(self._token(params, made), confirm):
                    return
        told = self.warnings() or (_WORDS[need(self.statements)],)
        raise ConfirmationNeeded(
            f"writing to {self.about.name!r} ({self.about.environment}) has to be confirmed: {'; '.join(told)[:500]}",
            confirm=self._token(params, now),
            warnings=told,
        )

    def _token(self, params: Mapping[str, Any], at: int) -> str:
        """Return the word that stands for this text with these parameters, on this connection, by this person, from this time on."""
        principal, stamp = self.context.principal, _base36(at)
        said = [
            stamp,
            principal.org_id,
            principal.user_id,
            self.about.id or self.about.name,
            self.text,
            repr(sorted(params.items())),
        ]
        key = house_of(self.context).journal.key_for("confirm a query")
        return f"{stamp}-{hmac.new(key, msgspec.json.encode(said), hashlib.sha256).hexdigest()[:32]}"

    # ---------------------------------------------------------------------------------------------------------------- session

    @contextlib.contextmanager
    def session(self, *, reading: bool) -> Iterator[tuple[Engine, Target]]:
        """Lend a session: of the pool, or of an address on one's own machine."""
        house, org_id = house_of(self.context), self.context.principal.org_id
        if local_only(self._connection):
            with (
                house.lines.link(org_id, self._connection) as link,
                closing(link.connect(read_only=reading)) as session,
            ):
                yield self.about.engine, session
            return
        assert self.about.id is not None
        pool = house.lines.reading(org_id, self.about.id) if reading else house.lines.pool(org_id, self.about.id)
        with pool.borrow() as session:
            yield self.about.engine, session

    @contextlib.contextmanager
    def talking(
        self, *, reading: bool, done: Callable[[], Ran | None] = lambda: None
    ) -> Iterator[tuple[Engine, Target, Running]]:
        """Lend a session for something that can be stopped by the query's id, and write the history of how it ended."""
        running = Running()
        with (
            self._history(done),
            house_of(self.context).talks.query(self._user, self.query, running),
            self.session(reading=reading) as (engine, session),
        ):
            try:
                yield engine, session, running
            except BaseException as raised:
                error = running.really(raised)
                if error is raised:
                    raise
                raise error from raised

    def said(
        self,
        params: Mapping[str, Any],
        limits: RunLimits,
        write: Callable[[bytes], object],
        *,
        read_only: bool,
        transaction: str | None = None,
    ) -> Ran:
        """Run the text, stopped when its reader leaves, and write the history of it."""
        running, done = Running(), list[Ran]()
        talks = house_of(self.context).talks
        leaving = getattr(write, "leaving", None)
        with self._history(lambda: done[0] if done else None), talks.query(self._user, self.query, running):
            if leaving is not None:
                leaving(running.leave)
            with self._asks(reading=read_only, transaction=transaction) as (engine, asks):
                ran = run_statements(
                    asks, engine, self.statements, params=params, read_only=read_only, limits=limits, tag=self.tag(),
                    write=write, running=running,
                )  # fmt: skip
                done.append(msgspec.structs.replace(ran, query=self.query))
        return done[0]

    @contextlib.contextmanager
    def _asks(self, *, reading: bool, transaction: str | None) -> Iterator[tuple[Engine, Asks]]:
        if transaction is not None:
            with house_of(self.context).talks.within(self._user, transaction, self.about.id) as found:
                yield found
            return
        with self.session(reading=reading) as (engine, session):
            yield engine, answering(engine, session)

    @property
    def _user(self) -> str:
        return self.context.principal.user_id

    # ------------------------------------------------------------------------------------------------------------------- told

    def tag(self) -> str:
        """Return what the server's log says of the statement: letters, digits and a few signs, so that it ends no comment."""
        told = {
            "user": plain(self.context.principal.name), "operation": f"query.{self.what}", "client": self.origin.client,
            "notebook": self.origin.notebook, "cell": self.origin.cell, "query": self.query,
        }  # fmt: skip
        return "dblens " + " ".join(f"{name}={value.replace(' ', '_')}" for name, value in told.items() if value)

    def facts(self) -> dict[str, str]:
        """Return what the audit keeps of it: no text, but what it seems to do, where it comes from, and its digest."""
        told = {name: value for name, value in msgspec.structs.asdict(self.origin).items() if value}
        digest = hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()[:32]
        return {**told, "kind": need(self.statements), "digest": digest}

    @contextlib.contextmanager
    def _history(self, done: Callable[[], Ran | None]) -> Iterator[None]:
        at, begun, failure = self.context.clock(), time.perf_counter(), None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._keep(at, time.perf_counter() - begun, done(), failure)

    def _keep(self, at: dt.datetime, seconds: float, ran: Ran | None, failure: BaseException | None) -> None:
        principal, rule = self.context.principal, self.rules().history_text
        if principal.org_id is None:
            return
        call = current()
        affected = [] if ran is None else [each.affected for each in ran.statements if each.affected is not None]
        outcome = "ok" if failure is None else failure.code if isinstance(failure, DBLensError) else "interrupted"
        house_of(self.context).asked.add(
            Asked(
                id=self.entry or (call.id if call is not None else new_id()),
                org_id=principal.org_id,
                user_id=principal.user_id,
                user=principal.name[:255],
                connection_id=self.about.id,
                connection=self.about.name[:255],
                operation=self.what,
                kind=need(self.statements),
                text=kept_text(self.text, rule, self.about.engine.lexis),
                statements=len(self.statements),
                rows=None if ran is None else ran.rows,
                affected=sum(affected) if affected else None,
                microseconds=int(seconds * 1_000_000),
                outcome=outcome,
                error=kept_error(failure, rule) if isinstance(failure, DBLensError) else None,
                client=self.origin.client,
                notebook=self.origin.notebook,
                cell=self.origin.cell,
                started_at=at,
            )
        )


_WORDS: Final = {
    "unknown": "what it does cannot be read from its words",
    "ddl": "it changes the structure",
    "write": "it writes",
    "session": "it changes the session",
    "transaction": "it manages transactions",
    "read": "it reads",
}


def house_of(context: Context) -> House:
    """Return the house. Raises InvalidInput without one."""
    if context.house is None:
        raise InvalidInput("queries need a whole house", hint="open the workspace by `dblens.open()`")
    return context.house


def found_params(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return parameters as they were before they travelled: what JSON has no word for is `{"dblens:bytes": …}` there.

    Raises InvalidInput for a name that is none, and for a value of an unknown kind.
    """
    found = {}
    for name, value in (params or {}).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidInput(f"{name!r} is no name of a parameter", hint="letters, digits and _")
        found[name] = _value(name, value)
    return found


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_value(name, each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        kind, text = next(iter(value.items()))
        if kind.startswith(_PARAM):
            try:
                return _KINDS[kind.removeprefix(_PARAM)](text)
            except (KeyError, ValueError, TypeError, decimal.InvalidOperation):
                raise InvalidInput(
                    f"the parameter {name} is no {kind.removeprefix(_PARAM)}", hint=f"one of {', '.join(_KINDS)}"
                ) from None
    return {key: _value(name, each) for key, each in value.items()}


_KINDS: Final[dict[str, Callable[[str], Any]]] = {
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "integer": int,
    "decimal": decimal.Decimal,
    "timestamp": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "float": float,
}


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"
