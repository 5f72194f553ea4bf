"""The contracts between DBLens and an engine: values for what differs by number, protocols for what differs by behaviour.

An engine is an `Engine` value made of parts (facts, types, ddl, connect), not a subclass. Floors above speak only these words and
never name an engine. A part that an engine cannot offer says so with a reason (`Support`), it is never a silent default.

Over 600 lines because a contract is read whole: half of them are docstrings, and every engine implements all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from dblens.engines.asking import Asks, Lexis
from dblens.engines.editing import Edits
from dblens.events import Report, silent
from dblens.schema.changes import Change
from dblens.schema.model import Column, ForeignKey, NamedType, Schema, Table, TableRef
from dblens.schema.types import DataType
from dblens.values.digest import Accumulator, Fingerprint
from dblens.values.forms import Form

Place = tuple[str, str]
"""Namespace and name of a table, where it really lies (live, staged or previous)."""


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Common shape of the values below: frozen and serialisable, because plans hold them."""


# ---------------------------------------------------------------------------------------------------------------- addresses


class Url(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """A parsed database address. The password is never part of it: it travels beside it, in memory only."""

    scheme: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    database: str | None = None
    options: dict[str, str] = {}

    def __str__(self) -> str:
        from dblens.engines.address import render

        return render(self)


# -------------------------------------------------------------------------------------------------------------------- facts


class Support(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the live server supports something, and why not."""

    ok: bool
    why: str = ""


Feature = Literal[
    "snapshot",  # one consistent instant for one session
    "shared_snapshot",  # … for several sessions
    "bulk_load",  # the loader's fast path (COPY, LOAD DATA LOCAL)
    "atomic_swap",  # all tables change over in one step
    "transactional_ddl",
    "create_database",
    "cancel",
]

Format = Literal["pgbinary", "pgtext", "mytext", "rows", "bson"]
"""Block formats. Cheapest first in `formats_out` / `formats_in`; every engine produces and accepts `rows`.

pgbinary  octets of COPY BINARY (header and trailer included); only between equal native types.
pgtext    octets of COPY text: tab, newline, `\\N`; bytes as `\\\\x<hex>`; whole rows in a block.
mytext    octets for LOAD DATA (FIELDS TERMINATED BY tab ESCAPED BY backslash): escapes only `\\\\ \\t \\n \\r \\0 \\b \\N`; bytes as bare hex;
          bits as `0101`; whole rows in a block.
rows      list of tuples of exchange values, by the field's form: int -> int; float -> float; bytes -> bytes; geometry -> str;
          dynamic and SQLite-native -> the driver's value; every other form -> str in the spelling of `values.forms`, though fractions
          may keep trailing zeros and decimals theirs; NULL -> None.
bson      list of raw BSON documents.
"""


class Facts(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """Numbers and spellings of an engine that other floors need."""

    identifier_limit: int
    identifier_unit: Literal["octets", "characters"]
    folds_case: bool
    """True when two table or column names that differ only in case collide."""
    max_columns: int
    schemas: bool
    """True when one database holds several namespaces (PostgreSQL)."""
    documents: bool = False
    default_namespace: str | None = None
    forbidden_in_names: str = "\0"
    reserved_prefixes: tuple[str, ...] = ()
    maintenance_database: str | None = None
    """Database to connect to while the wanted one does not exist yet; None when databases come into being by themselves."""
    enforces_foreign_keys: bool = True
    """False when orphans are to be expected in a source (SQLite), so that the plan looks for them."""
    strict_foreign_types: bool = False
    """True when both ends of a foreign key must have the very same type (MySQL)."""
    indexes_per_table: bool = False
    """True when two tables may have an index of the same name (MySQL, MongoDB)."""
    constraints_per_table: bool = True
    """False when two tables cannot have foreign keys of the same name (MySQL)."""
    parallel_loads: bool = True
    """False when only one session can write (SQLite)."""
    fast_rows_limit: int = 5_000_000
    """Tables up to so many rows are loaded in fast mode (restarted whole); larger ones chunk by chunk."""
    octets_literal: str = "x'{}'"
    """Spelling of binary constants around lower-case hexadecimal digits, for repair scripts."""
    bits_literal: str = "'{}'"
    """Spelling of bit strings around zeros and ones, for repair scripts."""
    instant_suffix: str = ""
    """What follows a UTC wall clock to make it an instant whatever the session's zone, for repair scripts."""


# ------------------------------------------------------------------------------------------------------------ types and losses


CheckKind = Literal[
    "nul_character",  # text holds U+0000
    "invalid_text",  # text is not valid in its declared encoding
    "nonfinite",  # NaN or an infinity, in a float or a decimal; with `low` and `high` at the infinities, NaN only
    "negative_zero",  # float -0.0
    "infinite_time",  # infinity / -infinity as date or timestamp
    "zero_date",  # 0000-00-00 and dates with zero month or day
    "outside_dates",  # date or timestamp before `low` or after `high` (ISO texts, years of 4 digits), BC included
    "outside_day",  # time negative or of 24 hours and more ("24:00:00" is outside)
    "outside_integers",  # whole number below `low` or above `high`
    "not_boolean",  # integer other than 0 and 1
    "decimal_overflow",  # needs more than `limit` digits in all or more than `scale` fractional digits
    "too_long",  # more than `limit` characters (text) or octets (binary)
    "sub_millisecond",  # fraction finer than milliseconds
    "trailing_space",  # text that ends in a space, into a type that drops it
    "four_byte_text",  # characters beyond the basic plane, into a 3-octet charset
    "mixed_storage",  # SQLite: storage class outside those the target type takes
    "not_this_type",  # declared or promoted type does not fit the value (text in a DATE column)
    "json_number",  # JSON number that the target changes (beyond double, or trailing zeros of a decimal)
    "json_nul",  # JSON string with \u0000
    "json_duplicate_key",
    "not_json",
    "oversize",  # value or document larger than `limit` octets
    "missing_field",  # MongoDB: field absent, which becomes the same NULL as null
    "document_key",  # key with a dot or a leading dollar
    "collation_equal",  # values of a unique key that the target's collation holds equal (`columns`)
    "null_key",  # NULL in a key column
    "empty_enum",  # MySQL's ENUM error value ''
    "unknown",
]

Repair = Literal["none", "null", "strip", "truncate", "round", "text", "drop", "block"]
"""What happens to the values of an accepted loss. none: stored as they are, only meaning is lost. null: NULL instead. strip: the
offending characters removed. truncate: finer digits dropped (towards negative infinity for instants). round: half to even.
text: its text instead. drop: the rows stay behind. block: cannot be accepted."""


class Check(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """A question about all values of a source column that decides whether a mapping is lossless, and the repair if not."""

    kind: CheckKind
    repair: Repair = "block"
    low: str | None = None
    high: str | None = None
    limit: int | None = None
    scale: int | None = None
    columns: tuple[str, ...] = ()
    collation: str | None = None
    why: str = ""


class CheckResult(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """Answer to a check: rows concerned and up to five sample keys (each a tuple of texts, by the table's key columns)."""

    check: Check
    column: str
    count: int
    samples: tuple[tuple[str | None, ...], ...] = ()


class Stored(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """How a target stores a source column: its own type and spelling, the canonical form that both sides share, and the checks
    under which the mapping loses nothing. `note` tells a person what changes in meaning (shown in the plan as a transform).
    """

    type: DataType
    native: str
    form: Form
    checks: tuple[Check, ...] = ()
    note: str = ""
    check_expression: str | None = None
    """Constraint that keeps the meaning, with `{c}` for the quoted column (`{c} in (0,1)`)."""
    collation: str | None = None


class TypeMap(Protocol):
    """The native <-> DataType chapter of an engine, as a pure module."""

    def parse(self, native: str) -> DataType:
        """Return the meaning of a native spelling."""
        ...

    def spell(self, type: DataType) -> str:
        """Return the native spelling that stores a type. Raises Unsupported."""
        ...

    def store(self, column: Column, source: str, *, indexed: bool = False, flavour: str = "") -> Stored:
        """Decide how this engine, as a target, stores a column of the engine `source`, as the type map of §4.2 says.

        The same engine keeps the native type and form NATIVE without checks. `indexed`: the column is part of a key or an
        index, so a type that cannot be indexed (LONGTEXT) needs a length or a check. `flavour`: the target's flavour
        (`mariadb`, `mysql`, a major version …). Raises Unsupported when there is no way at all.
        """
        ...


# --------------------------------------------------------------------------------------------------------------- reading rows


class KeyRange(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """Rows with lo < key <= hi, in the source's own order. Bounds are the engine's own texts, opaque to others; None = open."""

    columns: tuple[str, ...] = ()
    lo: tuple[str, ...] | None = None
    hi: tuple[str, ...] | None = None
    rows: int | None = None


ALL = KeyRange()


class Field(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One field to move or compare: a column read in a form, after repairs of accepted losses.

    On the source `repairs` are applied (each check's predicate selects the values, its `repair` changes them). `expression` is
    SQL in the source's language instead of the column; `constant` a fixed text (None inside a Field with `is_constant` = NULL).
    `target` is the column as the target stores it, None while only one side is concerned.
    """

    column: Column
    form: Form
    repairs: tuple[Check, ...] = ()
    expression: str | None = None
    constant: str | None = None
    is_constant: bool = False
    target: Column | None = None


class Block(msgspec.Struct):
    """A piece of a table on its way: octets (bytes), rows (list of tuples) or BSON documents (list of bytes), in a known format, with its row count and size in octets (an estimate
    for rows). `rows` may be None for pgbinary, whose rows are not counted on the way.
    """

    data: Any
    size: int
    rows: int | None = None


class Snapshot(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One instant of a source. `shared`: other sessions can join it. `note` says plainly what is not guaranteed."""

    id: str
    shared: bool
    consistent: bool
    note: str = ""
    position: str | None = None


class Result(msgspec.Struct):
    """What a statement returned: column names, rows as tuples of driver values, affected rows."""

    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = []
    affected: int | None = None
    truncated: bool = False


class Session(Protocol):
    """A live connection to one database. Not thread-safe, except `cancel`. Driver errors leave it only as DBLens errors."""

    @property
    def engine(self) -> Engine: ...
    @property
    def version(self) -> str: ...
    @property
    def flavour(self) -> str:
        """What distinguishes servers of one engine: `mariadb` or `mysql`; elsewhere the major version."""
        ...

    @property
    def database(self) -> str: ...
    @property
    def fingerprint_id(self) -> str:
        """Identity of server and database without secrets (`postgresql://host:port/db as user, 15.18`)."""
        ...

    def namespaces(self) -> list[str]:
        """Return the namespaces without system ones and DBLens' own, in one round trip."""
        ...

    def list_tables(self, namespace: str) -> list[TableRef]:
        """Return tables, views and collections of a namespace without their columns, in one round trip."""
        ...

    def inspect(self, *, namespaces: Sequence[str] = ()) -> Schema:
        """Read the schema, one round trip an object kind. No namespaces named: all of `namespaces()`. DBLens' own staging and control
        objects are left out unless their namespace is named.
        """
        ...

    def execute(
        self, statement: str, params: Sequence[object] = (), *, limit: int | None = None, timeout: float | None = None
    ) -> Result:
        """Run one statement in the engine's language and parameter style; commit unless inside `transaction`."""
        ...

    def cancel(self) -> None:
        """Stop what the session runs now, from any thread, on the server too."""
        ...

    def close(self) -> None: ...
    def supports(self, feature: Feature) -> Support: ...
    def missing_privileges(self, *, write: bool, place: str | None = None) -> list[str]:
        """Return the exact GRANT texts that this login lacks for reading all tables, or for staging and swapping in `place`."""
        ...


class Source(Session, Protocol):
    """What a migration reads from."""

    def begin_snapshot(self) -> Snapshot:
        """Fix one instant; all reads of this session see it until `end_snapshot`. Read only, enforced by the server where it can."""
        ...

    def end_snapshot(self) -> None: ...
    def join(self, snapshot: Snapshot) -> Source:
        """Open another session that reads the same instant. Raises Unsupported with the reason."""
        ...

    def profile(self, table: Table, report: Report = silent) -> Table:
        """Return the table with types that its data prove (SQLite's storage classes, BSON types), by a full scan; engines whose
        declared types bind return it as it is.
        """
        ...

    def count(self, table: Table, *, where: str | None = None) -> int:
        """Return the exact number of rows."""
        ...

    def check(
        self, table: Table, checks: Sequence[tuple[Field, Check]], *, where: str | None = None
    ) -> list[CheckResult]:
        """Answer all checks on a table by one full scan (plus one cheap query for samples where a count is not 0), in the order
        given. A check whose kind cannot occur in this engine's type answers 0 without reading.
        """
        ...

    def chunks(self, table: Table, rows: int, *, where: str | None = None) -> list[KeyRange]:
        """Cut a table into key ranges of about `rows` rows, by its primary key or a unique not-null key; `[ALL]` without one."""
        ...

    def formats_out(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:
        """Return the formats in which these fields can be exported exactly, cheapest first, `rows` (or `bson`) last."""
        ...

    def export(
        self,
        table: Table,
        fields: Sequence[Field],
        fmt: Format,
        *,
        keys: KeyRange = ALL,
        where: str | None = None,
    ) -> Generator[Block]:
        """Stream a table's fields as blocks of 128 KiB to 1 MiB, never the whole result in memory. Closing the iterator early
        frees the connection at once without draining it.
        """
        ...

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
        """Digest a table's fields as `values.digest` defines, by the fastest exact way (in the server, or streamed to the client).
        Shares no conversion code with `export`. `exact`: JSON in the canonical form, else the engine's own normal form will do.
        """
        ...

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
        """Stream rows of canonical texts, all or only those in the given buckets (of the same digest as `fingerprint`).

        `exact` False: the texts that `fingerprint` hashes. JSON may then be the engine's own normal form. `exact` True: JSON in
        the canonical form, whatever it costs; `buckets` still refer to the texts that `fingerprint` hashes.
        """
        ...


@runtime_checkable
class Images(Protocol):
    """An optional part of a source: rows can be hashed as the engine sends them, which costs less than any text.

    Equal images mean equal rows; unequal ones mean nothing (a NaN may have other bits), then texts decide.
    """

    def images(self, table: Table, fields: Sequence[Field]) -> tuple[str, ...] | None:
        """Return each field's binary form. Images of two sessions of one engine compare when these are equal; None: no images."""
        ...

    def image(
        self, table: Table, fields: Sequence[Field], *, where: str | None = None, report: Report = silent
    ) -> Fingerprint:
        """Digest a table's rows by their images."""
        ...

    def export_images(
        self, table: Table, fields: Sequence[Field], fmt: Format, *, where: str | None, sums: Accumulator
    ) -> Iterator[Block] | None:
        """Stream the verifier's own reading of the rows as blocks for the copier, adding each row's image to `sums` on the way.

        None where `export` would ask for anything else than the verifier does, to the letter: then both read for themselves.
        """
        ...


ARRAY = "dblens.array"
"""Option of a table whose rows are the elements of an array within documents: the array's path as a JSON list of keys.

Each row reads as a document of its own, `{_id: that of the document, idx: position from 0, item: the element}`; column paths refer to it.
"""
ARRAY_OF = "dblens.array.of"
"""Option of such a table: the collection that holds the documents; without it the collection is called like the table."""
ARRAY_NOTE = "dblens.array.note"
"""Option of such a table once profiled: what a person should know of documents that have no array there."""


@runtime_checkable
class Arrays(Protocol):
    """An optional part of a source of documents: an array within a collection's documents read as a table of its own."""

    def array_table(self, collection: Table, path: tuple[str, ...], name: str) -> Table:
        """Return the table of an array's elements, called `name`; all of `Source` takes it once `profile` has proven its columns.

        Its key is the document's `_id` and `idx`, and it refers to the collection. Raises Unsupported for collections without a unique `_id`.
        `profile` raises InvalidInput when no document has an array at the path, or when the path leads through another array.
        """
        ...


# ---------------------------------------------------------------------------------------------------------------- writing rows


class Chunk(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the ledger: written in the same transaction as its rows."""

    run: str
    table: Place
    number: int
    keys: KeyRange = ALL
    rows: int | None = None
    epoch: int = 0


RunState = Literal[
    "copying",
    "copied",
    "built",
    "verified",
    "swapping",
    "swapped",
    "rolling_back",
    "rolled_back",
    "finalized",
    "failed",
]


class RunRecord(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """A migration as its target remembers it. `epoch` fences: a writer with an older epoch is refused. `document` is ours (msgspec JSON
    text): plan, fingerprints after the swap, timings. `holder` and `beat_at` (UTC ISO) tell who works on it now.
    """

    id: str
    plan_hash: str
    state: RunState
    epoch: int
    holder: str
    beat_at: str
    document: str = "{}"


class Move(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """One table of a swap: the staged copy becomes `live`; what was live goes to `previous` (None: nothing was there).

    `table` is the target table as planned (for its sequences, named types, grants).
    """

    live: Place
    staged: Place
    table: Table
    previous: Place | None = None


class MergeCounts(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """What an append did."""

    inserted: int = 0
    updated: int = 0
    skipped: int = 0


ConflictRule = Literal["error", "skip", "update"]


class Target(Source, Protocol):
    """What a migration writes to. Every method can be called again after a crash at any point of it and ends in the same state."""

    def formats_in(self, table: Table, fields: Sequence[Field]) -> tuple[Format, ...]:
        """Return the formats that can load these fields (`Field.target` = stored column), cheapest first."""
        ...

    def open_run(self, record: RunRecord, *, takeover: bool = False) -> RunRecord:
        """Create staging area, control tables and the run's record, or take an existing record over with epoch + 1.

        Holds the one-migration-per-target lock until `close` (or until this process dies). Raises Conflict with the holder's name while
        another session holds it.
        """
        ...

    def read_run(self, run: str) -> RunRecord | None:
        """Return the run's record, None when this target does not know it. Writes nothing, creates nothing."""
        ...

    def list_runs(self) -> list[RunRecord]: ...
    def write_run(self, record: RunRecord) -> None:
        """Replace the run's record. Raises Conflict when its epoch is not the record's (fenced)."""
        ...

    def ledger(self, run: str) -> list[Chunk]:
        """Return the chunks that were committed."""
        ...

    def forget_chunks(self, run: str, table: Place | None = None) -> None:
        """Delete ledger lines, of one table or all (the rows are truncated by the next fast load or by `clear`)."""
        ...

    def clear(self, place: Place) -> None:
        """Remove every row of a staged table."""
        ...

    def build(self, statements: Iterable[str], report: Report = silent) -> None:
        """Run DDL of the plan. A statement whose object is already there in the planned shape (crash after DDL) is passed over, settled
        by looking, never by guessing.
        """
        ...

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
        """Load blocks into a staged table and write the chunk's ledger line in the same transaction; return the rows loaded.

        fast: empty the table first and take the engine's quickest way into a new table (FREEZE, journal off). Strict: a value that
        the column cannot hold exactly is an error, never a warning. Checks the epoch in the same transaction.
        """
        ...

    def repair(
        self,
        place: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        delete: Sequence[tuple[Any, ...]],
    ) -> int:
        """Delete the rows with the given keys and put `rows` (exchange values) in the place of those with the same key, in one
        transaction. Used by relaxed resume and incremental sync.
        """
        ...

    def renumber(self, table: Table, place: Place) -> None:
        """Set sequences, identity and AUTO_INCREMENT so that the next insert takes max(planned next, greatest value + increment)."""
        ...

    def analyze(self, place: Place) -> None:
        """Refresh planner statistics of a staged table."""
        ...

    def orphans(
        self, place: Place, key: ForeignKey, referred: Place, *, samples: int = 5
    ) -> tuple[int, list[tuple[str, ...]]]:
        """Count rows whose foreign key refers to nothing, with samples of the referring values."""
        ...

    def swap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        """Show the staged tables in place of the live ones: old or new, never a mix (or by journal where the engine has no atomic way,
        said by `supports("atomic_swap")`). The record's new state is part of it. Bounded lock waits with retry. `record.state` moves
        through `swapping` to `swapped`. Grants, owners and comments of replaced tables are put on the new ones.
        """
        ...

    def unswap(self, record: RunRecord, moves: Sequence[Move], report: Report = silent) -> RunRecord:
        """Undo a swap: the previous tables are live again, the new ones go back to staging; also from the middle of either."""
        ...

    def merge(
        self,
        record: RunRecord,
        staged: Place,
        live: Place,
        fields: Sequence[Field],
        key: Sequence[str],
        rule: ConflictRule,
    ) -> MergeCounts:
        """Append staged rows to a live table in one transaction, keeping a pre-image of what changes so that `unmerge` can undo it.
        Raises Conflict at the first key conflict under rule error, with nothing written.
        """
        ...

    def unmerge(self, record: RunRecord, live: Place, key: Sequence[str], *, force: bool = False) -> None:
        """Undo a merge from its pre-image. Raises Irreversible when rows were changed since and `force` is not given."""
        ...

    def close_run(self, record: RunRecord) -> None:
        """Drop everything that belongs to the run: staging, previous copies, ledger, record, and the control area when it was the last."""
        ...

    def dependents(self, places: Sequence[Place]) -> list[str]:
        """Return what outside `places` depends on these live tables and would not follow a swap: views, foreign keys, triggers."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free disk space where the target stores data, None when it cannot be known."""
        ...


class Embedding(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """Where the rows of a child table go: into the array `field` of the documents made of the table `parent` (namespace.table).

    `link` names the child's target columns that refer to the document, in the order of its `_id`; they are not repeated within elements.
    `order` names those that order an array. `waiting` is where the rows lie until they are put into the documents.
    """

    parent: str
    field: str
    link: tuple[str, ...]
    order: tuple[str, ...]
    waiting: Place


@runtime_checkable
class Embeds(Protocol):
    """An optional part of a target of documents: rows of a child table become an array of their parent's documents."""

    def embed(
        self,
        place: Place,
        fields: Sequence[Field],
        fmt: Format,
        blocks: Iterable[Block],
        chunk: Chunk,
        embedding: Embedding,
    ) -> int:
        """Put rows into an array of the staged documents at `place`, each array in the order of the embedding; return the rows.

        Documents without rows get an empty array; what an earlier call left is replaced. Raises QueryFailed for a row without a document
        and for a document that outgrows the engine's limit, naming its key.
        """
        ...


# ------------------------------------------------------------------------------------------------------------------------ DDL


class Build(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """DDL of a set of staged tables by phase. `after` runs once rows are loaded, `foreign` last."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


class Ddl(Protocol):
    """The DDL chapter of an engine, as a pure module: text out of schema values."""

    def quote(self, name: str) -> str:
        """Return an identifier quoted for this engine, whatever it contains. Raises InvalidInput for what it can never hold."""
        ...

    def literal(self, text: str | None) -> str:
        """Return a text as a literal of this engine."""
        ...

    def staged(self, live: Place, run: str) -> Place:
        """Return where a table is built out of sight."""
        ...

    def previous(self, live: Place, run: str) -> Place:
        """Return where a replaced table is kept until `finalize`."""
        ...

    def build(
        self,
        tables: Sequence[Table],
        places: Mapping[Place, Place],
        types: Sequence[NamedType] = (),
        flavour: str = "",
    ) -> Build:
        """Render everything needed to create target tables (already converted to this engine) where `places` says (live -> staged). Names
        of constraints and indexes are kept. References go to staged places when the referred table is among them, else to the live one.
        """
        ...

    def create(self, schema: Schema) -> list[str]:
        """Render the whole schema as CREATE statements in a runnable order (`dblens schema show --sql`)."""
        ...


class Rendered(_Value, frozen=True, kw_only=True, omit_defaults=True):
    """A change as statements of an engine, to be run one by one, and their undo (None: there is none, the data would be gone).

    No statement: the engine has none for this change, `reason` says why and what to do.
    """

    statements: tuple[str, ...] = ()
    undo: tuple[str, ...] | None = None
    destructive: bool = False
    blocking: bool = False
    reason: str = ""


class Alter(Protocol):
    """The ALTER chapter of an engine, as a pure module."""

    def render(self, changes: Sequence[Change], *, schema: Schema, flavour: str = "") -> list[Rendered]:
        """Render changes of `schema` (already spelled for this engine) in a runnable order. Related changes may share statements."""
        ...


class Connect(Protocol):
    def __call__(
        self,
        url: Url,
        password: str | None = None,
        *,
        create: bool = False,
        read_only: bool = False,
        application: str = "dblens",
    ) -> Target:
        """Open a session. `create`: make the database (file) when it is missing. Raises ConnectionFailed with a hint, NotFound for a
        missing database, PermissionDenied, InvalidInput for an option that is not on the engine's list.
        """
        ...


class Engine(msgspec.Struct, frozen=True):
    """An engine as a value: name, the URL schemes it answers to, numbers, and its chapters."""

    name: str
    title: str
    schemes: tuple[str, ...]
    default_port: int | None
    options: frozenset[str]
    facts: Facts
    types: TypeMap
    ddl: Ddl
    connect: Connect
    alter: Alter | None = None
    ask: Callable[[Target], Asks] | None = None
    """How a session answers people; see `engines.asking`."""
    edits: Edits | None = None
    """How single rows are changed by hand; see `engines.editing`."""
    lexis: Lexis | None = None
    splits: Callable[[str], list[tuple[int, int]]] | None = None
    """Where a text's statements begin and end, exactly, for an engine whose `lexis.dialect` is empty: it splits by itself."""
    reads: Callable[[str], bool] | None = None
    """Whether a text surely only reads, for such an engine: by the lists that `ask` goes by. Parameters in it may be anything."""
