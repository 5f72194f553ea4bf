"""Completion of `%%dblens` cells by the kernel: JupyterLab, Notebook, consoles and VS Code all ask it.

Schemas are read in the background and kept for a while: a key press waits for them a moment and never for long.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dblens.errors import DBLensError
from dblens.jupyter import suggest
from dblens.jupyter.options import TARGETS
from dblens.jupyter.suggest import Suggestion

if TYPE_CHECKING:
    from dblens.engines.base import Engine
    from dblens.jupyter.magic import Magic
    from dblens.schema.model import Schema

PATIENCE: Final = 1.5
"""Seconds that a key press waits for a schema that is not there yet; the next one finds it."""
FRESH: Final = 300.0
"""Seconds for which a schema is kept."""
_OPTIONS: Final = ("--limit", "--to", "--params", "--as", "--no-run", "--read-only", "--confirm", "--timeout", "--quiet", "-p", "--help")  # fmt: skip
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ID: Final = "dblens.complete"
log = logging.getLogger(__name__)


class Completer:
    """Answers IPython's completer for the cells of one kernel."""

    def __init__(self, magic: Magic) -> None:
        self.magic = magic
        self._schemas: dict[str, _Kept] = {}
        self._connections: tuple[float, tuple[str, ...]] = (0.0, ())

    def complete(self, text: str, at: int) -> tuple[str, list[Suggestion]] | None:
        """Return what may stand at a place of a cell, and what would be replaced; None when the cell is none of ours.

        Never raises for what a database or a text does: a completion that is not there is no reason to stop typing.
        """
        first, line_end = _first_line(text)
        if first is None:
            return None
        try:
            if at <= line_end:
                return self._options(text[:at])
            words = first.split()[1:]
            name = next((word for word in words if not word.startswith("-")), None) or self.magic.default
            if name is None:
                return "", []
            known = self._known(name)
            if known is None:
                return "", []
            body, place = text[line_end + 1 :], at - line_end - 1
            lexis = known.engine.lexis
            if lexis is None or not lexis.dialect:
                return suggest.shell(body, place, known)
            return suggest.sql(body, place, lexis, known)
        except DBLensError as error:
            log.debug("nothing to complete with: %s", error.message)
            return "", []

    def _options(self, line: str) -> tuple[str, list[Suggestion]]:
        fragment = "" if line.endswith((" ", "\t")) else line.rsplit(maxsplit=1)[-1]
        words = line.split()[: None if not fragment else -1]
        if fragment.startswith("%%"):
            return fragment, []
        if words[-1] == "--to":
            found = [Suggestion(each, "option") for each in TARGETS]
        elif fragment.startswith("-"):
            found = [Suggestion(each, "option") for each in _OPTIONS]
        else:
            found = [Suggestion(each, "connection") for each in self._names()]
            found += [Suggestion(each, "option") for each in _OPTIONS]
        return fragment, [each for each in found if each.text.startswith(fragment)]

    def _names(self) -> tuple[str, ...]:
        if time.monotonic() - self._connections[0] > 10 or not self._connections[1]:
            page = self.magic.workspace.connections.list(limit=200)
            self._connections = (time.monotonic(), tuple(each.name for each in page.items))
        return self._connections[1]

    def _known(self, name: str) -> _Known | None:
        kept = self._schemas.get(name)
        if kept is None or not kept.fresh(self.magic.generation):
            kept = self._schemas[name] = _Kept(self.magic, name, kept)
        schema, engine = kept.schema()
        if schema is None or engine is None:
            return None
        return _Known(schema, engine, tuple(self.magic.kept.get(name, ())))


class _Kept:
    """A schema that is being read, or was. While it is read anew, the one before is used."""

    def __init__(self, magic: Magic, name: str, before: _Kept | None) -> None:
        self._magic, self._name = magic, name
        self._generation, self._begun = magic.generation, time.monotonic()
        self._found: tuple[Schema, Engine] | None = None if before is None else before._found
        self._done = threading.Event()
        threading.Thread(target=self._read, name="dblens-complete", daemon=True).start()

    def fresh(self, generation: int) -> bool:
        return generation == self._generation and time.monotonic() - self._begun < (
            FRESH if self._found is not None or not self._done.is_set() else 10.0
        )

    def schema(self) -> tuple[Schema, Engine] | tuple[None, None]:
        if self._found is None:
            self._done.wait(PATIENCE)
        return self._found or (None, None)

    def _read(self) -> None:
        try:
            engine = self._magic.engine(self._name)
            self._found = (self._magic.workspace.catalog.schema(self._magic.place(self._name)), engine)
        except DBLensError as error:
            log.debug("the schema of %s is not known: %s", self._name, error.message)
        finally:
            self._done.set()


class _Known:
    """Names of a schema."""

    def __init__(self, schema: Schema, engine: Engine, queries: Sequence[str]) -> None:
        self.engine, self._schema, self._queries = engine, schema, queries

    def namespaces(self) -> Sequence[str]:
        return self._schema.namespaces if self.engine.facts.schemas else ()

    def tables(self, namespace: str | None = None) -> Sequence[str]:
        wanted = None if namespace is None else namespace.casefold()
        return [t.name for t in self._schema.tables if wanted is None or t.namespace.casefold() == wanted]

    def columns(self, table: str, namespace: str | None = None) -> Sequence[str]:
        small = table.casefold()
        for each in self._schema.tables:
            if each.name.casefold() == small and (
                namespace is None or each.namespace.casefold() == namespace.casefold()
            ):
                return [column.name for column in each.columns]
        return ()

    def queries(self) -> Sequence[str]:
        return self._queries

    def spelled(self, name: str) -> str:
        """Return a name as it has to be written: quoted where its case or its characters would not come through."""
        folds = self.engine.facts.schemas  # bare names become lower case
        if _PLAIN.match(name) and not (folds and name != name.lower()) and name.upper() not in suggest.RESERVED:
            return name
        return self.engine.ddl.quote(name)


# ----------------------------------------------------------------------------------------------------------------------- IPython


def install(shell: Any, magic: Magic) -> None:
    """Make IPython ask for the cells of ours."""
    from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

    completer = Completer(magic)

    def matcher(context: CompletionContext) -> Any:
        lines = context.full_text.split("\n")
        at = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        found = completer.complete(context.full_text, at)
        if found is None:
            return {"completions": [], "suppress": False}
        fragment, suggestions = found
        return {
            "completions": [SimpleCompletion(each.text, type=each.kind) for each in suggestions],
            "matched_fragment": fragment,
            "suppress": True,
            "ordered": True,
        }

    shell.Completer.custom_matchers.append(context_matcher(identifier=_ID, priority=1000)(matcher))


def remove(shell: Any) -> None:
    """Make IPython ask no more."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != _ID]


def _first_line(text: str) -> tuple[str | None, int]:
    """Return the first line that is not empty when it is `%%dblens` or `%dblens`, and where it ends."""
    start = len(text) - len(text.lstrip())
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    line = text[start:end]
    return (line, end) if re.match(r"%%dblens(\s|$)", line) else (None, end)
