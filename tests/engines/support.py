"""A database under test, and the small moves that a migration is made of, in the words of the contract alone."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dblens import engines
from dblens.engines import address
from dblens.engines.base import (
    ALL,
    Block,
    Chunk,
    Engine,
    Field,
    Format,
    KeyRange,
    Move,
    Place,
    RunRecord,
    Source,
    Target,
    Url,
)
from dblens.errors import DBLensError
from dblens.schema.model import Schema, Table
from dblens.values.digest import Accumulator, Fingerprint
from dblens.values.forms import Form
from tests.engines.harness import Harness
from tests.hazards import CorpusTable, load_corpus
from tests.servers import Server


@dataclass
class Case:
    """One engine on one server, with databases and sessions that end with the test."""

    harness: Harness
    server: Server
    shared: dict[str, Any]
    _sessions: list[Target] = field(default_factory=list)
    _databases: list[str] = field(default_factory=list)
    _salt: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def engine(self) -> Engine:
        return engines.get(self.harness.engine)

    def database(self) -> str:
        """Return the URL, password included, of a new empty database."""
        url = self.server.create_database()
        self._databases.append(url)
        return url

    def address(self, url: str) -> tuple[Url, str | None]:
        return address.parse(url, allow_password=True)

    def open(self, url: str, *, read_only: bool = False) -> Target:
        """Open a session of the engine under test."""
        parsed, password = self.address(url)
        session: Target = self.engine.connect(parsed, password, read_only=read_only)
        self._sessions.append(session)
        return session

    def sample(self) -> str:
        """Return the URL of a sample database that tests only read."""
        if "sample" not in self.shared:
            made = self.server.create_database()
            self.harness.sample(made)
            self.shared["sample"] = made
        url: str = self.shared["sample"]
        return url

    def scratch(self) -> str:
        """Return the URL of a database where tests make tables of their own names, and leave them."""
        if "scratch" not in self.shared:
            self.shared["scratch"] = self.server.create_database()
        url: str = self.shared["scratch"]
        return url

    def corpus(self) -> tuple[str, dict[str, CorpusTable]]:
        """Return the URL of a database with the hazard corpus, and its tables by name; tests only read it."""
        if "corpus" not in self.shared:
            url = self.server.create_database()
            self.shared["corpus"] = (url, {t.name: t for t in load_corpus(url, self.harness.engine)})
        found: tuple[str, dict[str, CorpusTable]] = self.shared["corpus"]
        return found

    def record(self, run: str = "r1", **changes: Any) -> RunRecord:
        """Return a new run's record; run ids are unique on a server, as they are in life."""
        base = RunRecord(
            id=self.run(run), plan_hash="h", state="copying", epoch=1, holder="test", beat_at="2026-01-01T00:00:00Z"
        )
        return msgspec.structs.replace(base, **changes)

    def run(self, run: str = "r1") -> str:
        """Return the id of one of this test's runs."""
        return f"{run}{self._salt}"

    def begin(self, source: Target, target: Target, names: Sequence[str], run: str = "r1") -> Staging:
        """Open a run that moves tables of one database into another."""
        schema = source.inspect()
        namespace = home(target)
        pairs = {n: (t := source.profile(table_of(schema, n)), moved(t, namespace)) for n in names}
        return Staging(source, target, target.open_run(self.record(run)), pairs, schema)

    def close(self) -> None:
        for session in self._sessions:
            # Staging may lie beside the database, so that dropping it is not enough.
            with contextlib.suppress(DBLensError):
                for left in session.list_runs():
                    session.close_run(left)
        for session in self._sessions:
            session.close()
        for url in self._databases:
            self.server.drop_database(database_of(url))


def database_of(url: str) -> str:
    """Return the name under which a server made a database."""
    name = url.partition("?")[0].rpartition("/")[2]
    return name.removesuffix(".sqlite")


def table_of(schema: Schema, name: str) -> Table:
    """Return the one table called `name`, in whatever namespace the engine has."""
    found = [t for t in schema.tables if t.name == name]
    assert len(found) == 1, [(t.namespace, t.name) for t in schema.tables]
    return found[0]


def inspected(session: Source, name: str) -> Table:
    return table_of(session.inspect(), name)


def fields_of(session: Source, table: Table, target: Table | None = None, form: Form | None = None) -> list[Field]:
    """Return fields as a same-engine plan has them; `form` for a comparison in one form."""
    made = []
    for column in table.columns:
        stored = session.engine.types.store(column, session.engine.name, flavour=session.flavour)
        made.append(
            Field(
                column=column,
                form=form if form and column.name == "v" else stored.form,
                target=None if target is None else target.column(column.name),
            )
        )
    return made


def loadable(fields: Sequence[Field]) -> list[Field]:
    return [f for f in fields if f.column.generated is None]


def summed(rows: Sequence[Sequence[bytes | None]]) -> Fingerprint:
    accumulator = Accumulator()
    accumulator.add_rows(rows)
    return accumulator.fingerprint()


def moved(table: Table, namespace: str, name: str | None = None) -> Table:
    """Return a table of the same engine as planned for another namespace."""
    keys = tuple(msgspec.structs.replace(k, namespace=namespace if k.namespace else None) for k in table.foreign_keys)
    return msgspec.structs.replace(table, namespace=namespace, name=name or table.name, foreign_keys=keys)


@dataclass
class Staging:
    """Tables of a source on their way into a target of the same engine."""

    source: Target
    target: Target
    record: RunRecord
    tables: dict[str, tuple[Table, Table]]
    schema: Schema

    def live(self, name: str) -> Place:
        planned = self.tables[name][1]
        return planned.namespace, planned.name

    def staged(self, name: str) -> Place:
        return self.target.engine.ddl.staged(self.live(name), self.record.id)

    def at(self, name: str, place: Place) -> Table:
        return msgspec.structs.replace(self.tables[name][1], namespace=place[0], name=place[1])

    def build(self, *, after: bool = False) -> None:
        places = {self.live(n): self.staged(n) for n in self.tables}
        build = self.target.engine.ddl.build(
            [t for _, t in self.tables.values()], places, self.schema.types, self.target.flavour
        )
        self.target.build(build.before)
        if after:
            self.target.build(build.after)
            self.target.build(build.foreign)

    def fields(self, name: str) -> list[Field]:
        source, target = self.tables[name]
        return loadable(fields_of(self.source, source, target))

    def formats(self, name: str) -> list[Format]:
        source, target = self.tables[name]
        accepted = self.target.formats_in(target, self.fields(name))
        return [f for f in self.source.formats_out(source, self.fields(name)) if f in accepted]

    def blocks(self, name: str, fmt: Format, keys: KeyRange = ALL) -> list[Block]:
        return list(self.source.export(self.tables[name][0], self.fields(name), fmt, keys=keys))

    def load(
        self,
        name: str,
        fmt: Format | None = None,
        *,
        fast: bool = True,
        number: int = 0,
        keys: KeyRange = ALL,
        epoch: int | None = None,
    ) -> int:
        fmt = fmt or self.formats(name)[0]
        chunk = Chunk(
            run=self.record.id,
            table=self.staged(name),
            number=number,
            keys=keys,
            epoch=self.record.epoch if epoch is None else epoch,
        )
        return self.target.load(
            self.staged(name), self.fields(name), fmt, iter(self.blocks(name, fmt, keys)), chunk, fast=fast
        )

    def prints(self, name: str, place: Place | None = None) -> tuple[Fingerprint, Fingerprint]:
        """Return the fingerprints of the source's table and of its copy; JSON written differently is hashed in canonical form."""
        source, target = self.tables[name]
        place = place or self.staged(name)
        fields = fields_of(self.source, source, target)
        theirs = [Field(column=f.target or f.column, form=f.form, target=f.target) for f in fields]
        left, right = self.source.fingerprint(source, fields), self.target.fingerprint(self.at(name, place), theirs)
        if left != right and any(f.form == Form.JSON for f in fields):
            sums = (Accumulator(), Accumulator())
            sums[0].add_rows(self.source.canonical_rows(source, fields, exact=True))
            sums[1].add_rows(self.target.canonical_rows(self.at(name, place), theirs, exact=True))
            left, right = (s.fingerprint() for s in sums)
        return left, right

    def rows(self, name: str, place: Place | None = None) -> int:
        return self.target.count(self.at(name, place or self.staged(name)))

    def moves(self, *, replaced: Sequence[str] = ()) -> list[Move]:
        ddl = self.target.engine.ddl
        return [
            Move(
                live=self.live(n),
                staged=self.staged(n),
                table=self.tables[n][1],
                previous=ddl.previous(self.live(n), self.record.id) if n in replaced else None,
            )
            for n in self.tables
        ]


def home(session: Source) -> str:
    """Return the namespace where new tables of a database go."""
    return session.engine.facts.default_namespace or session.database
