"""The work of `query.export` and `query.compare`: rows into a file, two answers side by side. Read-only as `query.run` is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from dblens.engines.arrow import library
from dblens.engines.base import Engine
from dblens.errors import InvalidInput
from dblens.events import Report
from dblens.migrate.link import Link
from dblens.query import dual
from dblens.query.dual import Compared, Timing
from dblens.query.export.model import Exported, Format, Options
from dblens.query.run import RunLimits, lexis_of
from dblens.store.records import new_id
from dblens.workspace.operation import tell
from dblens.workspace.speech import Speech, found_params

if TYPE_CHECKING:
    from dblens.query.export.work import Export


Speeches = Callable[[str | Link, str, str], Speech]
"""Makes of a connection, what is done and a text what can be said."""


def exported(
    speeches: Speeches,
    connection: str | Link,
    text: str,
    write: Callable[[bytes], object],
    format: Format,
    options: Options,
    params: dict[str, Any] | None,
    bounds: RunLimits,
    report: Report,
) -> Exported:
    """Run one statement, its rows into a file. Raises InvalidInput for none, for several, and for one that returns no rows."""
    options.of(format)
    speech = speeches(connection, "export", text)
    if len(speech.statements) != 1:
        raise InvalidInput(f"the text has {len(speech.statements)} statements", hint="export one at a time")
    into = _Into(write, lambda schema: _begun(write, schema, format, options, report))
    speech.said(found_params(params), bounds, into, read_only=True)
    if into.made is None:
        raise InvalidInput("there is nothing to export: the statement returns no rows", hint="export a query")
    made = into.made.end()
    tell(
        query=speech.query, rows=made.rows, octets=made.octets, sha256=made.sha256, losses=len(made.losses),
        style=made.style, **speech.facts(),
    )  # fmt: skip
    return made


def compared(
    speeches: Speeches,
    connection: str | Link,
    other: str | Link,
    text: str,
    other_text: str | None,
    by: Sequence[str],
    translate: bool,
    params: dict[str, Any] | None,
    bounds: RunLimits,
    samples: int,
) -> Compared:
    """Run one side, then the other, and compare what came. Raises InvalidInput."""
    if not 0 <= samples <= 1000:
        raise InvalidInput(f"samples is {samples}", hint="0 to 1000")
    if translate and other_text is not None:
        raise InvalidInput("translate with other_text", hint="one of them")
    values = found_params(params)
    here = speeches(connection, "compare", text)
    words = text if other_text is None else other_text
    if translate:
        about = speeches(other, "compare", "").about
        words = dual.translated(text, lexis_of(here.about.engine), lexis_of(about.engine))
    there = speeches(other, "compare", words)
    there.query, there.entry = here.query, new_id()
    library()  # loaded now, so that it is not in what the first side takes
    with closing(dual.Side(by)) as mine, closing(dual.Side(by)) as theirs:
        timing = [_asked(speech, values, bounds, side) for speech, side in ((here, mine), (there, theirs))]
        found = dual.differences(mine, theirs, samples=samples)
        made = Compared(
            equal=not (found.changed or found.missing or found.extra),
            text=text,
            other_text=words,
            columns=tuple(column.name for column in mine.columns),
            key=tuple(by),
            rows=mine.rows,
            other_rows=theirs.rows,
            changed=found.changed,
            missing=found.missing,
            extra=found.extra,
            digest=mine.digest,
            other_digest=theirs.digest,
            timing=timing[0],
            other_timing=timing[1],
            samples=tuple(found.samples),
            notes=(*_translated(text, words, translate=translate), *found.notes),
        )
    tell(query=here.query, rows=made.rows, other_rows=made.other_rows, equal=made.equal, **here.facts())
    return made


def _translated(text: str, words: str, *, translate: bool) -> tuple[str, ...]:
    """Return what has to be said of a translation: that it is no proof."""
    if not translate or words == text:
        return ()
    return (
        "the other text is a translation, not proven to mean the same (division, collations, order of NULL): read it",
    )


def _asked(speech: Speech, values: dict[str, Any], bounds: RunLimits, side: dual.Side) -> Timing:
    """Run one side's statement into it. Raises InvalidInput for what is no answer, or not the whole of it."""
    from dblens.query.export.pushed import Unpacked

    if len(speech.statements) != 1:
        raise InvalidInput(f"the text has {len(speech.statements)} statements", hint="compare one at a time")
    ran = speech.said(values, bounds, Unpacked(side.begin), read_only=True).statements[0]
    if not ran.columns:
        raise InvalidInput("there is nothing to compare: the statement returns no rows", hint="compare a query")
    if ran.truncated:
        what = f"the answer of {speech.about.name!r} has more than {bounds.rows} rows"
        raise InvalidInput(what, hint="ask for fewer, or raise the limit")
    return Timing(seconds=ran.seconds, first_row_seconds=ran.first_row_seconds)


class _Into:
    """The sink of the run: what comes goes into the file's writer, and the reader of the file who leaves stops the query."""

    def __init__(self, write: Callable[[bytes], object], begin: Callable[[Any], Export]) -> None:
        from dblens.query.export.pushed import Unpacked

        self.made: Export | None = None
        self._begin, self._unpacked = begin, Unpacked(self._began)
        for name in ("leaving", "flush"):
            if hasattr(write, name):
                setattr(self, name, getattr(write, name))

    def _began(self, schema: Any) -> Callable[[Any], object]:
        self.made = self._begin(schema)
        return self.made.batch

    def __call__(self, data: bytes) -> int:
        return self._unpacked(data)


def _begun(write: Callable[[bytes], object], schema: Any, format: Format, options: Options, report: Any) -> Export:
    from dblens.query.export.work import Export

    return Export(write, schema, format, options, report)


def everything(engine: Engine, name: str) -> str:
    """Return the query for all of a table or collection, by its name as the catalog has it. Raises InvalidInput."""
    if engine.facts.documents:
        return f"db.getCollection({json.dumps(name)}).find({{}})"
    namespace, dot, table = name.partition(".")
    parts = [namespace, table] if dot and namespace and table else [name]
    return f"SELECT * FROM {'.'.join(map(engine.ddl.quote, parts))}"


def bounds_of(limit: int | None, octets: int | None, timeout: float | None) -> RunLimits:
    """Return the bounds of a run. Raises InvalidInput."""
    for name, value in (("limit", limit), ("octets", octets)):
        if value is not None and value < 0:
            raise InvalidInput(f"{name} is {value}", hint="0 or more")
    if timeout is not None and not 0 < timeout <= 7 * 86_400:
        raise InvalidInput(f"timeout is {timeout}", hint="seconds, more than 0 and at most a week")
    return RunLimits(rows=limit, octets=octets, seconds=timeout)
