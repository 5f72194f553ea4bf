"""What a run remembers in its target: the plan, the chunks, the proof. Kept in `RunRecord.document`."""

from __future__ import annotations

import datetime as dt
import os
import socket

import msgspec

from dblens.engines.base import KeyRange, MergeCounts, RunRecord, RunState, Target
from dblens.errors import NotFound
from dblens.migrate.model import Plan
from dblens.transfer.verify import TableVerdict


class Journal(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The run's own memory. `chunks` by table name, `digests` of the live tables right after the swap, by table name."""

    plan: Plan
    accepted: tuple[str, ...] = ()
    chunks: dict[str, list[KeyRange]] = {}
    snapshot: str = ""
    verdicts: tuple[TableVerdict, ...] = ()
    digests: dict[str, str] = {}
    merged: dict[str, MergeCounts] = {}
    error: str | None = None
    seconds: dict[str, float] = {}


def holder() -> str:
    """Return who works here: host and process."""
    return f"{socket.gethostname()} pid {os.getpid()}"


def now() -> str:
    """Return the current UTC time, ISO 8601, seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def journal_of(record: RunRecord) -> Journal:
    """Return the journal in a record."""
    return msgspec.json.decode(record.document, type=Journal)


def entry(record: RunRecord, journal: Journal, state: RunState) -> RunRecord:
    """Return the record with a new state, journal and heartbeat."""
    return msgspec.structs.replace(
        record, state=state, beat_at=now(), holder=holder(), document=msgspec.json.encode(journal).decode()
    )


def find(target: Target, run: str | None) -> RunRecord:
    """Return a run's record, or the only one there is. Raises NotFound."""
    if run is not None:
        record = target.read_run(run)
        if record is None:
            raise NotFound(
                f"the target {target.fingerprint_id} knows no migration {run!r}",
                hint="`dblens migrate status URL` lists them; finalized and rolled-back runs are forgotten",
            )
        return record
    records = target.list_runs()
    if len(records) != 1:
        raise NotFound(
            f"the target {target.fingerprint_id} knows {len(records)} migrations",
            hint="name one: " + ", ".join(r.id for r in records)
            if records
            else "start one with `dblens migrate apply`",
        )
    return records[0]
