"""The work of `query.draft` and `query.edit`: rows changed by hand, their statements shown before they run. No door of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dblens.engines.asking import Limits
from dblens.engines.base import Engine, Target
from dblens.errors import InvalidInput, NotFound
from dblens.migrate.link import Link
from dblens.query.edit import Batch, Draft, Edited, RowChange, edits_of
from dblens.query.run import Ran, Running, StatementResult, answering
from dblens.query.statements import prepared
from dblens.schema.model import Table
from dblens.workspace.context import Context
from dblens.workspace.operation import tell
from dblens.workspace.speech import Origin, Speech


def drafted(context: Context, connection: str | Link, table: str, changes: Sequence[RowChange]) -> Draft:
    """Return what would run. Raises what `query.draft` raises."""
    draft = _drafted(context, connection, table, changes).draft()
    tell(statements=len(draft.statements))
    return draft


def edited(
    context: Context,
    connection: str | Link,
    table: str,
    changes: Sequence[RowChange],
    *,
    piecemeal: bool,
    loose: bool,
    timeout: float | None,
    query: str | None,
    confirm: str | None,
    origin: Origin,
) -> Edited:
    """Do it, all or nothing. Raises what `query.edit` raises."""
    about = Speech.about_of(context, connection)
    Speech(context, about, connection, "edit", "", (), None, origin).writable()
    batch = _drafted(context, connection, table, changes, loose=loose)
    draft = batch.draft()
    statements = prepared(about.engine, draft.text)
    speech = Speech(context, about, connection, "edit", draft.text, statements, query, origin)
    tell(query=speech.query, changes=len(changes), **speech.facts())
    told = {f"{each.number} {name}": text for each in draft.statements for name, text in each.params.items()}
    speech.confirmed({**told, "piecemeal": piecemeal, "loose": loose}, confirm)
    ran: list[Ran] = []
    with speech.talking(reading=False, done=lambda: ran[0] if ran else None) as (engine, session, running):
        asks = answering(engine, session)
        running.on(asks)
        with _within(timeout, running):
            made = batch.run(
                asks, limits=Limits(seconds=timeout), tag=speech.tag(), piecemeal=piecemeal, check=running.check
            )
        ran.append(_ran(made))
    tell(inserted=made.inserted, updated=made.updated, deleted=made.deleted, atomic=made.atomic)
    return made


def _drafted(
    context: Context, connection: str | Link, name: str, changes: Sequence[RowChange], *, loose: bool = False
) -> Batch:
    about = Speech.about_of(context, connection)
    speech = Speech(context, about, connection, "draft", "", (), None, Origin())
    with speech.session(reading=True) as (engine, session):
        table, others = _table(engine, session, name)
        words = edits_of(engine).columns(table)
        if words is None:
            return Batch(engine, table, (), changes, loose=loose)
        with answering(engine, session).ask(words, read_only=True) as answer:
            outs = answer.columns
            for _ in answer.batches():
                pass
    return Batch(engine, table, outs, changes, loose=loose, others=others)


def _table(engine: Engine, session: Target, name: str) -> tuple[Table, tuple[Table, ...]]:
    """Return the table of a name, `table` or `namespace.table`, and all of its namespace. Raises NotFound, InvalidInput for a view."""
    home = engine.facts.default_namespace or session.database
    first, dot, rest = name.partition(".")
    places = [(home, name)]
    if dot and first and rest and (first == home or first in session.namespaces()):
        places.append((first, rest))
    for namespace, wanted in places:
        found = next((ref for ref in session.list_tables(namespace) if ref.name == wanted), None)
        if found is None:
            continue
        if "view" in found.kind:
            raise InvalidInput(f"{name!r} is a view", hint="change the tables that it is made of")
        if engine.facts.documents:
            return Table(namespace=namespace, name=wanted, kind="collection"), ()
        schema = session.inspect(namespaces=(namespace,))
        made = schema.table(namespace, wanted)
        if made is not None:
            return made, schema.tables
    raise NotFound(f"no table {name!r}", hint="`table`, or `namespace.table`, as `dblens schema list` writes it")


@contextmanager
def _within(seconds: float | None, running: Running) -> Iterator[None]:
    """Stop what runs when the whole of it takes too long."""
    if seconds is None:
        yield
        return
    watch = threading.Timer(seconds, running.stop, ["late"])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _ran(made: Edited) -> Ran:
    result = StatementResult(number=1, start=0, end=0, kind="write", affected=made.affected)
    return Ran(statements=(result,), seconds=0.0, read_only=False)
