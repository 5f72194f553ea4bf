"""The proof as data: a manifest that a notebook carries and that anybody can recompute."""

from __future__ import annotations

import hashlib
import platform

import msgspec

from dblens.migrate.apply import Outcome
from dblens.migrate.model import Plan
from dblens.values.forms import CODEC_VERSION
from dblens.version import __version__

MANIFEST_VERSION = 1


class TableProof(msgspec.Struct, frozen=True, kw_only=True):
    """One table's proof: rows and digest of the source after accepted losses, and of the target."""

    table: str
    rows: int
    columns: int
    source_digest: str
    target_digest: str
    equal: bool


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was migrated, from where to where, by which versions, and what it came to. `hash` covers every other field."""

    manifest: int = MANIFEST_VERSION
    migration: str
    plan_hash: str
    source: str
    target: str
    source_schema: str
    target_schema: str
    codec: int
    dblens: str
    python: str
    snapshot: str
    tables: tuple[TableProof, ...]
    losses: tuple[str, ...]
    exclusions: tuple[str, ...]
    equal: bool
    state: str
    hash: str = ""


def manifest_hash(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest without its hash field."""
    bare = msgspec.structs.replace(manifest, hash="")
    return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()


def make_manifest(plan: Plan, outcome: Outcome) -> Manifest:
    """Return the manifest of a finished migration."""
    manifest = Manifest(
        migration=outcome.id,
        plan_hash=plan.hash,
        source=plan.source.identity,
        target=plan.target.identity,
        source_schema=plan.source.schema_hash,
        target_schema=plan.target.schema_hash,
        codec=CODEC_VERSION,
        dblens=__version__,
        python=platform.python_version(),
        snapshot=outcome.snapshot,
        tables=tuple(
            TableProof(
                table=v.table,
                rows=v.source_rows,
                columns=v.columns,
                source_digest=v.source_digest,
                target_digest=v.target_digest,
                equal=v.equal,
            )
            for v in outcome.verdicts
        ),
        losses=tuple(f"{loss.id}: {loss.count} ({loss.repair})" for loss in plan.losses),
        exclusions=tuple(f"{e.kind} {e.name}: {e.reason}" for e in plan.exclusions),
        equal=outcome.equal,
        state=outcome.state,
    )
    return msgspec.structs.replace(manifest, hash=manifest_hash(manifest))
