"""Delete what is older than the settings say: audit, runs, notifications, histories of queries, forgotten keys of requests. Called by a timer of the service."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import msgspec

from dblens.store import idempotency, notifications, organizations, queries, runs, settings
from dblens.store.audit import Entry
from dblens.workspace.setting_kinds import History, Queries, Retention, read

if TYPE_CHECKING:
    from dblens.workspace.house import House

EVERY: Final = dt.timedelta(hours=23)
LAST: Final = "retention.last"
_IDEMPOTENCY: Final = dt.timedelta(days=2)


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted. `audit_through` is the last row of the audit that went, None when none did."""

    runs: int = 0
    notifications: int = 0
    keys: int = 0
    queries: int = 0
    audit_through: int | None = None


def retain_due(house: House, *, every: dt.timedelta = EVERY) -> Retained | None:
    """Delete what is too old, at most once a day for all processes of the store; return what went, None when it was not due.

    Raises StoreError, also when the audit is not whole: then nothing of it is deleted.
    """
    now = house.clock()
    with house.store.write() as tx:
        found = settings.find_settings(tx, settings.INSTANCE, [LAST]).get(LAST)
        if found is not None and now - found.updated_at < every:
            return None
        settings.put_setting(tx, settings.INSTANCE, LAST, {}, now=now)
        kept = read(tx, None, Retention) or Retention()
    done = _rows(house, kept, now)
    if kept.audit_days is None:
        return done
    note = Entry(
        at=now, phase="checkpoint", action="audit.retain", actor="retention", outcome="ok",
        detail={"as": "service", "keep_days": kept.audit_days},
    )  # fmt: skip
    made = house.journal.retain(now - dt.timedelta(days=kept.audit_days), note)
    return done if made is None else msgspec.structs.replace(done, audit_through=int(made.detail["through"]))


def _rows(house: House, kept: Retention, now: dt.datetime) -> Retained:
    """Delete by the instance's rule, then by each organization's where it is shorter; each in a transaction of its own."""
    ended = told = history = 0
    with house.store.write() as tx:
        keys = idempotency.prune(tx, before=now - _IDEMPOTENCY)
        told += notifications.prune(tx, before=now - dt.timedelta(days=kept.notification_days))
        if kept.run_days is not None:
            ended += runs.prune(tx, before=now - dt.timedelta(days=kept.run_days))
    after: str | None = None
    while True:
        with house.store.read() as tx:
            page = organizations.list_organizations(tx, limit=200, after=after)
        for each in page.items:
            with house.store.write() as tx:
                own = read(tx, each.id, History) or History()
                if own.run_days is not None:
                    ended += runs.prune_own(tx, each.id, before=now - dt.timedelta(days=own.run_days))
                asked = read(tx, each.id, Queries) or Queries()
                if asked.history_days is not None:
                    before = now - dt.timedelta(days=asked.history_days)
                    history += queries.prune_own(tx, each.id, before=before)
                if own.notification_days is not None:
                    before = now - dt.timedelta(days=own.notification_days)
                    told += notifications.prune_own(tx, each.id, before=before)
        after = page.after
        if after is None:
            return Retained(runs=ended, notifications=told, keys=keys, queries=history)
