"""The proof as data: a manifest that a notebook carries and that anybody can recompute, and what of a notebook is signed."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
from typing import Any, Literal, Protocol

import msgspec

from dblens.migrate.apply import Outcome
from dblens.migrate.model import Plan
from dblens.signature import Signature
from dblens.values.forms import CODEC_VERSION
from dblens.version import __version__

MANIFEST_VERSION = 1
PURPOSE = "dblens/evidence-notebook/1"
"""What a signature over `signed_form` is made for."""


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


class Sign(Protocol):
    """Whatever signs: the store's key, handed down by a surface that holds one."""

    def __call__(self, data: bytes, *, purpose: str) -> Signature: ...


class Authorship(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed a notebook. `unknown`: the key is not among those trusted; `wrong`: not the signature of this notebook."""

    state: Literal["unsigned", "signed", "unknown", "wrong"]
    key_id: str | None = None
    at: dt.datetime | None = None
    why: str = ""


def signed_form(notebook: dict[str, Any], manifest: object) -> bytes:
    """Return all that a reader of the notebook sees, and the manifest, in the one form that is signed.

    Kept: every cell's kind, source, attachments and outputs, in order. Left out, because saving a notebook again changes it: ids,
    execution counts, metadata but for the manifest, how a text is split into lines.
    """
    cells = [
        {
            "kind": cell.get("cell_type"),
            "source": _joined(cell.get("source", "")),
            "attachments": cell.get("attachments") or {},
            "outputs": [_output(output) for output in cell.get("outputs") or []],
        }
        if isinstance(cell, dict)
        else cell
        for cell in notebook["cells"]
    ]
    form = {"form": 1, "manifest": manifest, "cells": cells}
    return json.dumps(form, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()


def _output(output: Any) -> Any:
    if not isinstance(output, dict):
        return output
    kept = {k: v for k, v in output.items() if k not in ("execution_count", "metadata", "transient")}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {k: v if k.endswith("json") else _joined(v) for k, v in kept["data"].items()}
    if "text" in kept:
        kept["text"] = _joined(kept["text"])
    return kept


def _joined(text: object) -> object:
    return "".join(text) if isinstance(text, list) and all(isinstance(line, str) for line in text) else text
