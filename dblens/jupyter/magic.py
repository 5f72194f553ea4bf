"""`%dblens` and `%%dblens`: ask a database from a notebook's cell.

Cells go through the same door as `ws.query`: what only reads is read-only by the server, writes to production ask first, an interrupt
stops the query, and each statement carries who asked, from which notebook and cell. Text is never filled with values: they travel as
parameters.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from dblens.engines.asking import Lexis
from dblens.errors import ConfirmationNeeded, DBLensError, InvalidInput, NotFound
from dblens.jupyter import named, options
from dblens.jupyter.named import Kept
from dblens.jupyter.options import HELP, Options


class Magic:
    """What the cells of one kernel share: the workspace, the connection of cells that name none, kept queries."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.default: str | None = None
        self.kept: dict[str, dict[str, Kept]] = {}
        """Kept queries by connection, then by name."""
        self.generation = 0
        """Counts up when what is known of schemas is to be read anew."""
        self._workspace: Any = None
        self._links: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Magic(default={self.default!r})"

    @property
    def workspace(self) -> Any:
        """Return the workspace that cells ask through, opened at the first use. Raises what `dblens.open` raises."""
        if self._workspace is None:
            import dblens

            self._workspace = dblens.open()
        return self._workspace

    # ------------------------------------------------------------------------------------------------------------------ entry

    def line(self, line: str) -> Any:
        """Run `%dblens`."""
        return self._guarded(self._line, line)

    def cell(self, line: str, cell: str) -> Any:
        """Run `%%dblens`."""
        return self._guarded(self._cell, line, cell)

    def _guarded(self, work: Any, *given: str) -> Any:
        """Do it; an error of ours is shown as its message and hint, without the frames that led there."""
        try:
            return work(*given)
        except DBLensError as error:
            lines = [f"{type(error).__name__}: {error.message}"]
            if error.hint:
                lines += ["", f"hint: {error.hint}"]
            error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]  # IPython shows what this returns
            raise

    def _line(self, line: str) -> Any:
        first, _, rest = line.strip().partition(" ")
        if not first:
            return self._status()
        commands = {"use": self._use, "forget": self._forget, "refresh": self._refresh, "workspace": self._take}
        if first in commands:
            return commands[first](rest.strip())
        found = options.read(line, whole=False)
        if found.help:
            _say(HELP)
            return None
        if not found.rest:
            raise InvalidInput(
                f"no text after {found.connection!r}", hint="`%dblens CONNECTION SELECT …`, or `%dblens --help`"
            )
        return self._asked(found, found.rest)

    def _cell(self, line: str, cell: str) -> Any:
        found = options.read(line)
        if found.help:
            _say(HELP)
            return None
        return self._asked(found, cell)

    # -------------------------------------------------------------------------------------------------------------- commands

    def _status(self) -> None:
        page = self.workspace.connections.list(limit=200)
        for each in page.items:
            mark = "*" if each.name == self.default else " "
            _say(f"{mark} {each.name}  {each.engine}  {each.environment}")
        if not page.items:
            _say("no connections yet: `dblens connection create NAME --url URL`")
        for connection, queries in self.kept.items():
            for name in queries:
                _say(f"  {name}  (kept query on {connection})")

    def _use(self, name: str) -> None:
        if not name:
            raise InvalidInput("use what?", hint="`%dblens use CONNECTION`")
        if isinstance(self.place(name), str):
            self.workspace.connections.read(name)
        self.default = name

    def _forget(self, name: str) -> None:
        if not any(queries.pop(name, None) for queries in self.kept.values()):
            raise NotFound(f"no kept query {name!r}", hint="`%dblens` lists them")

    def _refresh(self, _rest: str) -> None:
        self.generation += 1

    def _take(self, name: str) -> None:
        found = self.shell.user_ns.get(name)
        if not (hasattr(found, "query") and hasattr(found, "queries")):
            raise InvalidInput(f"the variable {name!r} holds no Workspace", hint=f"{name or 'ws'} = dblens.open()")
        self._workspace = found
        self.generation += 1

    # ------------------------------------------------------------------------------------------------------------------- ask

    def place(self, name: str) -> Any:
        """Return a connection as the doors take it: its name, or a link for an address or a variable with one."""
        from dblens.migrate.link import Link, is_address, link

        held = self.shell.user_ns.get(name) if name.isidentifier() else None
        if isinstance(held, Link):
            return held
        if not is_address(name):
            return name
        if name not in self._links:
            self._links[name] = link(name)
        return self._links[name]

    def lexis(self, name: str) -> Lexis | None:
        """Return what is to be known of the language of a connection, to take its texts apart."""
        found: Lexis | None = self.engine(name).lexis
        return found

    def engine(self, name: str) -> Any:
        """Return a connection's engine. Raises NotFound."""
        from dblens import engines

        place = self.place(name)
        return engines.get(self.workspace.connections.read(place).engine) if isinstance(place, str) else place.engine

    def _asked(self, found: Options, text: str) -> Any:
        name = found.connection or self.default
        if name is None:
            raise InvalidInput("no connection is named", hint="`%%dblens CONNECTION`, or `%dblens use CONNECTION` once")
        if not text.strip():
            raise InvalidInput("the cell has no text", hint="the query begins on the second line")
        place, queries = self.place(name), self.kept.setdefault(name, {})
        if found.keep is not None or queries:
            lexis = self.lexis(name)
            if found.keep is not None:
                if lexis is None or not lexis.dialect:
                    raise InvalidInput(
                        "only SQL can be kept with --as", hint="put the rows into a variable: --to df NAME"
                    )
                fresh = named.kept(found.keep, name, text, lexis)
                named.composed(f"SELECT 1 FROM {fresh.name}", {**queries, fresh.name: fresh}, lexis)
                text = named.composed(text, {key: each for key, each in queries.items() if key != fresh.name}, lexis)
                if not found.run:
                    queries[fresh.name] = fresh
                    return None
                results = self._results(found, place, text)
                queries[fresh.name] = fresh  # what failed is not kept
                return results
            if lexis is not None:
                text = named.composed(text, queries, lexis)
        return self._results(found, place, text)

    def _results(self, found: Options, place: Any, text: str) -> Any:
        ws = self.workspace
        try:
            results = ws.query(
                place,
                text,
                params=self._params(found, place, text),
                limit=found.limit or None,
                read_only=True if found.read_only else None,
                timeout=found.timeout,
                confirm=found.confirm,
                origin=self.origin(),
            )
        except ConfirmationNeeded as needed:
            needed.hint = f"look at it, then add `--confirm {needed.confirm}` to the first line"
            raise
        if found.to is None:
            return None if found.quiet else results
        value = results if found.to == "results" else getattr(results, found.to)()
        self.shell.user_ns[found.variable] = value
        if not found.quiet:
            _say(f"{found.variable}: {results.last!r}")
        return None

    def _params(self, found: Options, place: Any, text: str) -> dict[str, Any] | None:
        given = dict(found.params)
        if found.from_notebook:
            names = found.names
            if not names:
                told = self.workspace.queries.check(place, text)
                names = tuple(dict.fromkeys(name for each in told.statements for name in each.params))
            for name in names:
                if name in given:
                    continue
                if name not in self.shell.user_ns:
                    raise InvalidInput(f"the notebook has no variable {name!r}", hint=f"set it, or -p {name}=VALUE")
                given[name] = self.shell.user_ns[name]
        return given or None

    def origin(self) -> Any:
        """Return where a cell's query comes from: notebook and cell, as far as the frontend tells."""
        from dblens.workspace.speech import Origin

        return Origin(client="magic", notebook=_notebook(self.shell), cell=_cell_id(self.shell))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _notebook(shell: Any) -> str:
    """Return the notebook's path. Jupyter's server puts it into the kernel's environment; VS Code into a variable."""
    told = os.environ.get("JPY_SESSION_NAME") or shell.user_ns.get("__vsc_ipynb_file__") or ""
    if told:
        return str(told)
    return "" if not sys.argv or "ipykernel" in sys.argv[0] else Path(sys.argv[0]).name


def _cell_id(shell: Any) -> str:
    """Return the cell's id, which the frontend sends with the request, else the number of its execution."""
    parent = getattr(shell, "parent_header", None) or {}
    found = (parent.get("metadata") or {}).get("cellId")
    return str(found) if found else f"In [{shell.execution_count}]"
