"""A plan as data: everything that apply will do, everything that will be lost, bound by one hash."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from dblens.engines.base import Build, Embedding, Field, Place, Repair
from dblens.errors import InvalidInput, PlanError
from dblens.migrate.options import Options
from dblens.schema.model import NamedType, Table
from dblens.transfer.mask import Mask
from dblens.values.forms import Form

PLAN_VERSION = 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Common shape of a plan's parts."""


class Endpoint(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """One side as it was when planned. The URL has no password."""

    url: str
    engine: str
    flavour: str
    version: str
    identity: str
    schema_hash: str
    missing: bool = False


class Loss(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """Values that the target cannot hold as they are: how many, which for example, and what happens to them once accepted."""

    id: str
    table: str
    column: str
    kind: str
    repair: Repair
    count: int
    samples: tuple[tuple[str | None, ...], ...] = ()
    why: str = ""


class Notice(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """An object that does not come along, or stops the plan: what, why, and its source text so that nothing is lost silently."""

    kind: str
    name: str
    reason: str
    source: str | None = None


class TablePlan(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """One table's way: from `source` into `staged`, shown as `live`."""

    source: Table
    target: Table
    live: Place
    staged: Place
    previous: Place | None
    fields: tuple[Field, ...]
    rows: int
    mode: Literal["fast", "ledger", "none"]
    format: str
    where: str | None = None
    masks: dict[str, Mask] = {}
    transforms: tuple[str, ...] = ()
    append: bool = False
    filter: str | None = None
    """The rule's filter alone, where `where` also leaves out rows whose parent does not come along."""
    embedding: Embedding | None = None
    """Where the rows go when they become an array of another table's documents; `live` and the like are then those of that table."""

    @property
    def name(self) -> str:
        """Return `namespace.table` of the source."""
        return f"{self.source.namespace}.{self.source.name}"

    @property
    def shown(self) -> str:
        """Return what the table is called in the target, an embedded one by its array."""
        place = ".".join(self.live)
        return f"{place}.{self.embedding.field}[]" if self.embedding else place

    @property
    def key(self) -> tuple[str, ...]:
        """Return the target columns that identify a row, none when nothing does."""
        if self.target.primary_key:
            return self.target.primary_key.columns
        return self.target.uniques[0].columns if self.target.uniques else ()

    @property
    def compared(self) -> tuple[Field, ...]:
        """Return the fields that verification reads: those copied, and computed columns, which the target computed by itself."""
        copied = {f.target.name for f in self.fields if f.target}
        by_name = {c.name: c for c in self.source.columns}
        computed = [
            Field(column=by_name[c.name], form=Form.NATIVE, target=c)
            for c in self.target.columns
            if c.generated and c.name not in copied and c.name in by_name
        ]
        return (*self.fields, *computed)

    def at(self, place: Place) -> Table:
        """Return the target table as it lies at `place`."""
        return msgspec.structs.replace(self.target, namespace=place[0], name=place[1])


class Cost(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """Estimate of octets and seconds; free space in octets where the target can tell."""

    rows: int
    octets: int
    seconds_low: float
    seconds_high: float
    target_free: int | None = None


class Plan(_Part, frozen=True, kw_only=True, omit_defaults=False):
    """The whole migration. `hash` covers every other field."""

    version: int = PLAN_VERSION
    id: str
    created_at: str
    dblens: str
    codec: int
    source: Endpoint
    target: Endpoint
    options: Options
    tables: tuple[TablePlan, ...]
    types: tuple[NamedType, ...] = ()
    build: Build = Build()
    losses: tuple[Loss, ...] = ()
    blocks: tuple[Notice, ...] = ()
    exclusions: tuple[Notice, ...] = ()
    notes: tuple[str, ...] = ()
    swap: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    snapshot: str = ""
    cost: Cost
    hash: str = ""

    @property
    def rows(self) -> int:
        """Return the rows of all tables."""
        return sum(t.rows for t in self.tables)


def _settled(plan: Plan) -> bytes:
    """Return a plan as JSON that is the same every time: msgspec leaves defaults out by identity, not by equality, so what was made
    at run time must have been read back once.
    """
    return msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(plan), type=Plan), order="deterministic")


def plan_hash(plan: Plan) -> str:
    """Return the SHA-256 of a plan without its hash field."""
    return hashlib.sha256(_settled(msgspec.structs.replace(plan, hash=""))).hexdigest()


def seal(plan: Plan) -> Plan:
    """Return the plan with its hash."""
    return msgspec.structs.replace(plan, hash=plan_hash(plan))


def write(plan: Plan) -> str:
    """Return a plan as JSON text."""
    return msgspec.json.format(_settled(plan), indent=1).decode()


def read(text: str | bytes) -> Plan:
    """Return a plan from JSON text. Raises InvalidInput for what is no plan, PlanError for one that was changed."""
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"not a migration plan: {error}", hint="write one with `dblens migrate plan SRC DST --json > plan.json`"
        ) from error
    if plan.version > PLAN_VERSION:
        raise InvalidInput(
            f"the plan has version {plan.version}, this DBLens knows up to {PLAN_VERSION}", hint="upgrade DBLens"
        )
    # The hash sees values; comparing the documents also sees keys that were added or taken out.
    if plan_hash(plan) != plan.hash or msgspec.json.decode(text) != msgspec.json.decode(write(plan)):
        raise PlanError(
            "the plan was changed after it was made: its hash does not match",
            hint="plan again with the options you want instead of editing the document",
        )
    return plan
