"""The door to queries: ask, write, explain, stop; transactions, the history, and texts that are kept under names.

`query.run` never writes: its statements run read-only, enforced by the server in every layer that there is. `query.write` is another
operation with a permission of its own; by the organization's rule for the connection's environment it asks for a confirmation first.
Rows go into a sink as Arrow streams (`dblens.query.stream`), one for each statement that returns rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dblens.engines.asking import Explained, Limits
from dblens.errors import InvalidInput, NotFound, PermissionDenied
from dblens.migrate.link import Link
from dblens.query.dual import Compared
from dblens.query.edit import Draft, Edited, RowChange
from dblens.query.export.model import Exported, Format, Options
from dblens.query.run import MEBI, Ran, Warned, answering
from dblens.query.statements import Action, need, prepared
from dblens.redaction import Secret
from dblens.store import queries
from dblens.store.queries import Asked, Saved, Which
from dblens.store.rows import Page
from dblens.workspace.edits import drafted, edited
from dblens.workspace.exports import bounds_of, compared, everything, exported
from dblens.workspace.loading import Loaded, LoadOptions, Preview, loaded, previewed
from dblens.workspace.operation import Door, operation, tell
from dblens.workspace.registry import Level
from dblens.workspace.setting_kinds import Safety
from dblens.workspace.sides import manages_all
from dblens.workspace.speech import Origin, Speech, found_params, house_of
from dblens.workspace.talks import Transaction

if TYPE_CHECKING:
    from dblens.workspace.house import House


class CheckedStatement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one statement seems to do, and its place in the text, in characters; `line` and `column` from 1."""

    number: int
    start: int
    end: int
    line: int
    column: int
    action: Action
    params: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()


class Checked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a text seems to do, by its words. `confirm`: whether writing it needs a confirmation; `refused`: whether it is refused."""

    statements: tuple[CheckedStatement, ...]
    reads: bool
    action: Action
    environment: str
    rule: Safety
    confirm: bool
    refused: bool = False
    warnings: tuple[str, ...] = ()


def _of(door: Queries, given: Mapping[str, Any]) -> list[tuple[object, Level]]:
    principal = door.context.principal
    held = door._house.talks.connection_of(principal.user_id, given["transaction"])
    return [] if held is None else [(held, "use")]


class Queries(Door):
    """Ask databases, and find again what was asked."""

    @operation("query.run", on="connection", level="use", shown=("query", "limit", "timeout"))
    def run(
        self,
        connection: str | Link,
        text: str,
        write: Callable[[bytes], object],
        *,
        params: dict[str, Any] | None = None,
        limit: int | None = 10_000,
        octets: int | None = 256 * MEBI,
        timeout: float | None = None,
        query: str | None = None,
        origin: Origin = Origin(),
    ) -> Ran:
        """Run a text that only reads, and write the rows as Arrow streams, one per statement that returns any.

        `limit` and `octets` bound each statement's rows, `timeout` is of the whole in seconds; `query` is an id (32 hexadecimal digits)
        by which it can be stopped. Raises PermissionDenied for what would write, QueryFailed, Cancelled, TimedOut, InvalidInput.
        """
        speech = self._speech(connection, "run", text, query, origin)
        bounds = bounds_of(limit, octets, timeout)
        ran = speech.said(found_params(params), bounds, write, read_only=True)
        tell(query=ran.query, statements=len(ran.statements), rows=ran.rows, **speech.facts())
        return ran

    @operation(
        "query.write", on="connection", level="use", mutates=True, shown=("query", "limit", "timeout", "transaction")
    )
    def write(
        self,
        connection: str | Link,
        text: str,
        write: Callable[[bytes], object],
        *,
        params: dict[str, Any] | None = None,
        limit: int | None = 10_000,
        octets: int | None = 256 * MEBI,
        timeout: float | None = None,
        query: str | None = None,
        transaction: str | None = None,
        confirm: str | None = None,
        origin: Origin = Origin(),
    ) -> Ran:
        """Run a text that may write: each statement by itself and committed, or in the transaction.

        `confirm` is what a ConfirmationNeeded told, for the same text, parameters, connection and person. Raises ConfirmationNeeded,
        PermissionDenied where nothing may be written, QueryFailed, Cancelled, TimedOut, InvalidInput.
        """
        speech = self._speech(connection, "write", text, query, origin)
        bounds, values = bounds_of(limit, octets, timeout), found_params(params)
        tell(**speech.facts())
        speech.confirmed(values, confirm)
        ran = speech.said(values, bounds, write, read_only=False, transaction=transaction)
        changed = [each.affected for each in ran.statements if each.affected is not None]
        tell(query=ran.query, statements=len(ran.statements), rows=ran.rows, affected=sum(changed))
        return ran

    @operation("query.explain", permission="query.run", on="connection", level="use", shown=("analyze", "timeout"))
    def explain(
        self,
        connection: str | Link,
        text: str,
        *,
        params: dict[str, Any] | None = None,
        analyze: bool = False,
        timeout: float | None = 60.0,
        query: str | None = None,
        origin: Origin = Origin(),
    ) -> Explained:
        """Return the plan of one statement; `analyze` runs it, read-only. Raises InvalidInput, Unsupported, QueryFailed, TimedOut."""
        speech = self._speech(connection, "explain", text, query, origin)
        if len(speech.statements) != 1:
            raise InvalidInput(f"the text has {len(speech.statements)} statements", hint="explain one at a time")
        values = found_params(params)
        bound, given = speech.statements[0].bound(speech.about.engine, values)
        unknown = set(values) - set(speech.statements[0].names)
        if unknown:
            raise InvalidInput(f"the text has no parameter {', '.join(sorted(map(repr, unknown)))}")
        with speech.talking(reading=True) as (engine, session, running):
            asks = answering(engine, session)
            running.on(asks)
            return asks.explain(bound, given, analyze=analyze, limits=Limits(seconds=timeout))

    @operation("query.check", permission="query.run", on="connection", level="use", cost="light")
    def check(self, connection: str | Link, text: str) -> Checked:
        """Return what a text seems to do, statement by statement, without running it. Raises InvalidInput."""
        speech = self._speech(connection, "check", text, None, Origin())
        return Checked(
            statements=tuple(
                CheckedStatement(
                    number=each.number,
                    start=each.start,
                    end=each.end,
                    line=each.line,
                    column=each.column,
                    action=each.action,
                    params=each.names,
                    warnings=tuple(Warned(code=code, text=told, statement=each.number) for code, told in each.warnings),
                )
                for each in speech.statements
            ),
            reads=all(each.reads for each in speech.statements),
            action=need(speech.statements),
            environment=speech.about.environment,
            rule=speech.rule(),
            confirm=speech.needs_confirmation(),
            refused=speech.about.read_only or speech.rule() == "read_only",
            warnings=speech.warnings(),
        )

    @operation("query.cancel", on="organization", mutates=True, cost="light", target="query")
    def cancel(self, query: str) -> bool:
        """Stop one of one's own queries on its server; return whether it is over already. Raises NotFound, also for somebody else's."""
        return self._house.talks.cancel(self.context.principal.user_id, query)

    # ---------------------------------------------------------------------------------------------------- files and comparisons

    @operation(
        "query.export",
        on="connection",
        level="use",
        cost="heavy",
        shown=("query", "format", "limit", "timeout", "table"),
    )
    def export(
        self,
        connection: str | Link,
        text: str,
        write: Callable[[bytes], object],
        format: Format = "csv",
        *,
        table: bool = False,
        options: Options = Options(),
        params: dict[str, Any] | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        query: str | None = None,
        origin: Origin = Origin(),
    ) -> Exported:
        """Run one statement that only reads, write its rows as a file, and return what was written and what the file does not hold.

        `table`: the text is the name of a table, `namespace.table` or `table`, all of which is exported. What was written is a whole
        file only when this returns. Raises InvalidInput, PermissionDenied, QueryFailed, Cancelled, TimedOut, Unsupported.
        """
        words = everything(Speech.about_of(self.context, connection).engine, text) if table else text
        return exported(
            self._speeches(query, origin), connection, words, write, format, options, params,
            bounds_of(limit, None, timeout), self.context.report,
        )  # fmt: skip

    @operation(
        "query.compare",
        permission="query.run",
        on="connection",
        connections={"connection": "use", "other": "use"},
        cost="heavy",
        shown=("query", "by", "translate", "limit", "timeout"),
    )
    def compare(
        self,
        connection: str | Link,
        other: str | Link,
        text: str,
        *,
        other_text: str | None = None,
        by: Sequence[str] = (),
        translate: bool = False,
        params: dict[str, Any] | None = None,
        limit: int | None = 5_000_000,
        timeout: float | None = None,
        samples: int = 20,
        query: str | None = None,
        origin: Origin = Origin(),
    ) -> Compared:
        """Run one statement that only reads on two connections, or two statements on one, and compare the rows, whatever their order.

        `by`: columns by which rows are matched; without, a row is there or not. `translate`: the text goes into the other's dialect.
        Raises InvalidInput, also for an answer of more than `limit` rows, PermissionDenied, QueryFailed, Cancelled, TimedOut.
        """
        return compared(
            self._speeches(query, origin), connection, other, text, other_text, by, translate, params,
            bounds_of(limit, None, timeout), samples,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------------------- rows

    @operation("query.draft", permission="query.write", on="connection", level="use", shown=("table",), target="table")
    def draft(self, connection: str | Link, table: str, changes: Sequence[RowChange]) -> Draft:
        """Return the statements that changes of a table's rows would run, with their parameters; nothing is written.

        Raises InvalidInput for changes that cannot be, NotFound, Unsupported.
        """
        return drafted(self.context, connection, table, changes)

    @operation(
        "query.edit",
        permission="query.write",
        on="connection",
        level="use",
        mutates=True,
        shown=("table", "query", "timeout", "piecemeal", "loose"),
        target="table",
    )
    def edit(
        self,
        connection: str | Link,
        table: str,
        changes: Sequence[RowChange],
        *,
        piecemeal: bool = False,
        loose: bool = False,
        timeout: float | None = 60.0,
        query: str | None = None,
        confirm: str | None = None,
        origin: Origin = Origin(),
    ) -> Edited:
        """Change, insert and delete rows by hand, in one transaction: each change touches exactly the row that was shown, or nothing is done.

        `piecemeal`: one by one where there are no transactions. `loose`: what the database makes of a value is kept. Raises Conflict
        naming the row that is not what it was, ConfirmationNeeded, InvalidInput, PermissionDenied, Unsupported, QueryFailed, Cancelled.
        """
        return edited(
            self.context, connection, table, changes, piecemeal=piecemeal, loose=loose,
            timeout=bounds_of(None, None, timeout).seconds, query=query, confirm=confirm, origin=origin,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------------- files

    @operation(
        "query.preview",
        permission="query.write",
        on="connection",
        long=True,
        local=True,
        cost="heavy",
        shown=("table", "options.mode", "options.conflict"),
    )
    def preview(
        self, connection: str | Link, source: object, table: str, options: LoadOptions = LoadOptions()
    ) -> Preview:
        """Return what loading a file (its path) or a table in memory would do: types, samples, rows, statements, losses; nothing is written.

        Raises InvalidInput, NotFound, Conflict, ArchiveCorrupt, Unsupported.
        """
        return previewed(self.context, connection, source, table, options)

    @operation(
        "query.load",
        permission="query.write",
        on="connection",
        mutates=True,
        long=True,
        lock="connection",
        local=True,
        cost="heavy",
        shown=("table", "options.mode", "options.conflict", "accept"),
        target="table",
    )
    def load(
        self,
        connection: str | Link,
        source: object,
        table: str,
        options: LoadOptions = LoadOptions(),
        *,
        accept: Sequence[str] = (),
        confirm: str | None = None,
        mask_key: Secret | None = None,
        origin: Origin = Origin(),
    ) -> Loaded:
        """Load a file (its path) or a table in memory, verified row by row, or change nothing; `migrations.rollback` undoes it.

        `confirm` is what a ConfirmationNeeded told. Raises InvalidInput, NotFound, Conflict, ArchiveCorrupt, Unsupported,
        LossNotAccepted, PlanError, StalePlan, VerificationFailed, ConfirmationNeeded, PermissionDenied.
        """
        return loaded(
            self.context, connection, source, table, options, accept=accept, confirm=confirm, mask_key=mask_key,
            origin=origin,
        )  # fmt: skip

    # ----------------------------------------------------------------------------------------------------------- transactions

    @operation(
        "query.begin",
        permission="query.write",
        on="connection",
        level="use",
        mutates=True,
        shown=("read_only", "isolation"),
    )
    def begin(
        self,
        connection: str | Link,
        *,
        read_only: bool = False,
        isolation: str = "",
        idle_seconds: int | None = None,
    ) -> Transaction:
        """Begin a transaction for `query.write`; one that does nothing for `idle_seconds` is rolled back.

        Raises Conflict for too many, InvalidInput for an isolation level that is unknown there, Unsupported, PermissionDenied.
        """
        made = Speech.began(
            self.context, connection, read_only=read_only, isolation=isolation, idle_seconds=idle_seconds
        )
        tell(target=made.id)
        return made

    @operation(
        "query.commit", permission="query.write", on="connection", locate=_of, mutates=True, target="transaction"
    )
    def commit(self, transaction: str) -> Transaction:
        """Commit one's own transaction. Raises NotFound, Conflict, QueryFailed when the server refuses: it was rolled back then."""
        return self._house.talks.commit(self.context.principal.user_id, transaction)

    @operation(
        "query.rollback", permission="query.write", on="connection", locate=_of, mutates=True, target="transaction"
    )
    def rollback(self, transaction: str) -> Transaction:
        """Roll one's own transaction back. Raises NotFound, Conflict."""
        return self._house.talks.rollback(self.context.principal.user_id, transaction)

    @operation("query.transactions", permission="query.run", on="organization", cost="light")
    def transactions(self) -> list[Transaction]:
        """Return one's own open transactions, oldest first."""
        return list(self._house.talks.transactions(self.context.principal.user_id))

    # ---------------------------------------------------------------------------------------------------------------- history

    @operation("query.history", on="organization", cost="light", shown=("limit", "after"))
    def history(self, which: Which = Which(), *, limit: int = 50, after: str | None = None) -> Page[Asked]:
        """Return a page of what one asked oneself, newest first. Raises InvalidInput."""
        return self._history(which, self.context.principal.user_id, limit, after)

    @operation("query.everyone", permission="audit.read", on="organization", shown=("limit", "after"))
    def everyone(self, which: Which = Which(), *, limit: int = 50, after: str | None = None) -> Page[Asked]:
        """Return a page of what anybody in the organization asked, newest first. Raises InvalidInput."""
        return self._history(which, None, limit, after)

    @operation("query.forget", permission="query.history", on="organization", mutates=True, cost="light", shown=("id",))
    def forget(self, which: Which = Which(), *, id: str | None = None) -> int:
        """Delete what one asked from the history, all of it without more said; return how much. The audit stays. Raises InvalidInput."""
        context = self.context
        self._house.asked.flush()
        with context.store.write() as tx:
            gone = queries.delete_history(
                tx, context.principal.org_id or "", which, user_id=context.principal.user_id, id=id
            )
        tell(deleted=gone)
        return gone

    # ------------------------------------------------------------------------------------------------------------------ saved

    @operation("query.save", on="organization", mutates=True, cost="light", shown=("name", "replace"), target="name")
    def save(
        self,
        name: str,
        text: str,
        *,
        connection: str | None = None,
        language: str = "",
        description: str = "",
        params: dict[str, Any] | None = None,
        replace: bool = False,
    ) -> Saved:
        """Keep a text under a name for the organization, with a connection and defaults of its parameters.

        `language` is sql or mongodb, by default the connection's. `replace`: one's own of that name is changed. Raises InvalidInput,
        NotFound, Conflict for a name that is taken, PermissionDenied for somebody else's.
        """
        context = self.context
        org_id, now = context.principal.org_id or "", context.clock()
        connection_id = None
        if connection is not None:
            about = Speech.about_of(context, self._seen(connection))
            connection_id = about.id
            language = language or ("mongodb" if about.engine.facts.documents else "sql")
        given: dict[str, Any] = {
            "text": text,
            "language": language or "sql",
            "connection_id": connection_id,
            "description": description,
            "params": dict(params or {}),
        }
        with context.store.write() as tx:
            if replace:
                try:
                    there = queries.find_saved(tx, org_id, name)
                except NotFound:
                    pass
                else:
                    self._own(there)
                    return queries.update_saved(tx, org_id, there.id, now=now, **given)
            return queries.save_query(tx, org_id, name=name, created_by=context.principal.user_id, now=now, **given)

    @operation("query.saved", on="organization", cost="light", shown=("limit", "after"))
    def saved(
        self, *, search: str | None = None, connection: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[Saved]:
        """List the organization's saved queries by name; `search` looks at names, descriptions and texts. Raises InvalidInput."""
        connection_id = None if connection is None else Speech.about_of(self.context, self._seen(connection)).id
        with self.context.store.read() as tx:
            return queries.list_saved(
                tx,
                self.context.principal.org_id or "",
                search=search,
                connection_id=connection_id,
                limit=limit,
                after=after,
            )

    @operation("query.show", permission="query.saved", on="organization", cost="light", shown=("name",))
    def show(self, name: str) -> Saved:
        """Return a saved query by its name or id. Raises NotFound."""
        return self._named(name)

    @operation("query.unsave", permission="query.save", on="organization", mutates=True, cost="light", target="name")
    def unsave(self, name: str) -> None:
        """Delete a saved query: one's own, or anybody's for who manages every connection. Raises NotFound, PermissionDenied."""
        found = self._named(name)
        self._own(found)
        with self.context.store.write() as tx:
            queries.delete_saved(tx, self.context.principal.org_id or "", found.id)

    # ------------------------------------------------------------------------------------------------------------------ parts

    def _speech(self, connection: str | Link, what: str, text: str, query: str | None, origin: Origin) -> Speech:
        about = Speech.about_of(self.context, connection)
        return Speech(self.context, about, connection, what, text, prepared(about.engine, text), query, origin)

    def _speeches(self, query: str | None, origin: Origin) -> Callable[[str | Link, str, str], Speech]:
        return lambda connection, what, text: self._speech(connection, what, text, query, origin)

    def _history(self, which: Which, user_id: str | None, limit: int, after: str | None) -> Page[Asked]:
        self._house.asked.flush()
        with self.context.store.read() as tx:
            org_id = self.context.principal.org_id or ""
            return queries.list_history(tx, org_id, which, user_id=user_id, limit=limit, after=after)

    def _named(self, name: str) -> Saved:
        org_id = self.context.principal.org_id or ""
        with self.context.store.read() as tx:
            try:
                return queries.find_saved(tx, org_id, name)
            except NotFound:
                return queries.get_saved(tx, org_id, name)

    def _own(self, found: Saved) -> None:
        principal = self.context.principal
        if found.created_by != principal.user_id and not manages_all(principal):
            raise PermissionDenied(
                f"the saved query {found.name!r} is somebody else's", hint="save it under another name"
            )

    def _seen(self, connection: str) -> str:
        """Return the id of a connection that is shared with the caller. Raises NotFound, InvalidInput."""
        held = self.context.access.connection(self.context.principal, connection)
        if held.id is None:
            raise InvalidInput("an address is no stored connection", hint="`dblens connection create` makes one")
        if held.grant == "none" and not manages_all(self.context.principal):
            raise NotFound(f"no connection {connection!r}")
        return held.id

    @property
    def _house(self) -> House:
        return house_of(self.context)
