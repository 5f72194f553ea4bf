"""What a process has once: store, keys, audit, sessions, runs. Every request gets a workspace of it, for one principal."""

from __future__ import annotations

import base64
import datetime as dt
import getpass
import logging
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from dblens.errors import Cancelled, Conflict, DBLensError, InvalidInput, NotAuthenticated, NotFound, StoreError
from dblens.events import Report, silent
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import accounts, locks, organizations, runs, secrets, tokens
from dblens.store.audit import Entry
from dblens.store.database import Store, Transaction
from dblens.store.keys import Keyring, make_key, read_file, unlock
from dblens.store.records import now
from dblens.store.runs import Run
from dblens.store.upgrade import open_store
from dblens.workspace.access import StoreAccess
from dblens.workspace.asked import Book
from dblens.workspace.context import Call, Context, NotBegun
from dblens.workspace.executor import Executor, shown
from dblens.workspace.journal import Journal
from dblens.workspace.lines import Lines
from dblens.workspace.permissions import SUPER_ADMIN, SYSTEM_ROLES
from dblens.workspace.policy import RECENT
from dblens.workspace.principal import Principal, local
from dblens.workspace.talks import Talks

if TYPE_CHECKING:
    from dblens.workspace import Workspace
    from dblens.workspace.deliver import Deliverer

T = TypeVar("T")
log = logging.getLogger(__name__)
AUDIT_KEY: Final = "audit.key"
"""The instance's sealed secret."""


class House:
    """An open store with all that works on it. One per process and store; safe for several threads; close it."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        keyring: Keyring,
        journal: Journal,
        *,
        clock: Callable[[], dt.datetime] = now,
        size: int = 4,
    ) -> None:
        self.store, self.settings, self.keyring, self.journal, self.clock = store, settings, keyring, journal, clock
        self.access = StoreAccess(store)
        self.lines = Lines(store, keyring, settings)
        self.executor = Executor(store, size=size, clock=clock)
        self.talks, self.asked = Talks(clock), Book(store)
        self.recent = RECENT
        self.on_end: list[Callable[[Run], None]] = [self._notify]
        """Called after a run ended, however it did, in the thread that ended it."""

    @classmethod
    def open(cls, settings: Settings, *, clock: Callable[[], dt.datetime] = now, size: int = 4) -> House:
        """Open the store that the settings name; alone on a laptop it is made at the first use. Raises StoreError, InvalidInput."""
        store = open_store(settings.store_url)
        try:
            keyring = unlock(store, settings)
            journal = Journal(store, _audit_key(store, settings, keyring))
            roles = [(role.name, role.rank, role.permissions) for role in SYSTEM_ROLES.values()]
            with store.read() as tx:
                same = organizations.has_roles(tx, roles)
            if not same:
                with store.write() as tx:
                    organizations.ensure_roles(tx, roles, now=clock())
        except BaseException:
            store.close()
            raise
        return cls(store, settings, keyring, journal, clock=clock, size=size)

    def __repr__(self) -> str:
        return f"House({self.store.place!r})"

    def __reduce__(self) -> Any:
        raise TypeError("a house holds keys and is not pickled")

    def _notify(self, run: Run) -> None:
        self.deliverer.ended(run)

    @cached_property
    def deliverer(self) -> Deliverer:
        """Return who notifies people of the ends of runs, made when the first one ends: it loads mail and HTTP."""
        from dblens.workspace.deliver import Deliverer

        return Deliverer(self)

    def workspace(self, principal: Principal, *, report: Report = silent, background: bool = False) -> Workspace:
        """Return the doors for a principal."""
        from dblens.workspace import Workspace

        return Workspace(self.context(principal, report=report, background=background))

    def context(self, principal: Principal, *, report: Report = silent, background: bool = False) -> Context:
        """Return what the doors work with, for one request of a principal."""
        return Context(
            store=self.store,
            principal=principal,
            journal=self.journal,
            access=self.access,
            clock=self.clock,
            report=report,
            recent=self.recent,
            house=self,
            background=background,
        )

    @cached_property
    def owner(self) -> Principal:
        """The person at this machine, with an organization of their own; made at the first use. Raises PermissionDenied in team mode."""
        if self.settings.mode == "team":
            raise InvalidInput(
                "a team's store has no local owner", hint="log in: `dblens login`, or use its own `--as` commands"
            )
        name = accounts.fold(getpass.getuser())
        with self.store.write() as tx:
            found = accounts.find_credential(tx, name)
            user = found.user if found is not None else accounts.create_user(tx, name, now=self.clock())
            organization = organizations.get_current(tx, user.id)
            if organization is None:
                organization = organizations.create_organization(tx, "personal", now=self.clock())
                role = organizations.find_role(tx, organization.id, "admin")
                organizations.add_member(tx, organization.id, user.id, role.id, now=self.clock())
                organizations.set_current(tx, user.id, organization.id)
        return local(user.name, user.id, organization.id, client="library")

    # ------------------------------------------------------------------------------------------------------------------ runs

    def run(
        self,
        context: Context,
        call: Call,
        work: Callable[[Report], T],
        *,
        parent: str | None,
        connection: str | None,
        lock: str | None,
        arguments: Mapping[str, Any],
        again: Callable[[], None] = lambda: None,
        unbegun: Callable[[Exception], object] = id,
    ) -> T | Run:
        """Do a long operation as a run of its own: here and now, or behind the answer (then the answer is the run).

        Behind the answer it stays queued until a thread is free; then `again` looks whether the principal may still do it, and
        `unbegun` is told why it did not begin. Raises NotBegun when it could not begin at once, what the work raises, Conflict when
        its lease was lost.
        """
        background = context.background and parent is None
        try:
            run, refusal = self._queued(
                context, call, parent=parent, connection=connection, lock=lock, arguments=arguments, bound=background
            )
        except DBLensError as error:
            raise NotBegun(error) from error
        if refusal is not None:
            self._ended(run)
            raise NotBegun(refusal)
        if not background:
            return self._execute(run, work, also=context.report)
        self.executor.enqueue(run, lambda: self._begin(run, work, again, unbegun))
        return run

    def _queued(
        self,
        context: Context,
        call: Call,
        *,
        parent: str | None,
        connection: str | None,
        lock: str | None,
        arguments: Mapping[str, Any],
        bound: bool,
    ) -> tuple[Run, DBLensError | None]:
        """Return the new run, claimed when it is not for a thread of ours (`bound`); or ended, with what stands in its way."""
        if context.principal.org_id is None:
            raise InvalidInput("no organization is chosen", hint="`dblens org use NAME`")
        self.sweep()  # a lock that a dead worker still seems to hold is free then, and its end is in the audit
        now, executor = self.clock(), self.executor
        with self.store.write() as tx:
            run = runs.create_run(
                tx,
                context.principal.org_id,
                call.operation.name,
                user_id=context.principal.user_id,
                connection_id=connection,
                parent_id=parent,
                lock=None if _covered(tx, context.principal.org_id, parent, lock) else lock,
                arguments=arguments,
                run_id=call.id,
                worker=executor.worker if bound else None,
                lease=executor.lease if bound else None,
                now=now,
            )
            try:
                if not bound:
                    return runs.claim_one(tx, run.org_id, run.id, executor.worker, lease=executor.lease, now=now), None
                if run.lock is None or locks.holder(tx, run.lock, now=now) is None:
                    return run, None
                raise runs.held(run)
            except Conflict as error:
                return runs.refuse(tx, run.org_id, run.id, shown(error), now=now), error

    def _begin(
        self,
        run: Run,
        work: Callable[[Report], T],
        again: Callable[[], None],
        unbegun: Callable[[Exception], object],
    ) -> None:
        """Execute a queued run in this thread of the executor, if it still may."""
        try:
            again()
            claimed = self.executor.claim(run)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not wait for ever
            with self.store.write() as tx:
                run = runs.refuse(tx, run.org_id, run.id, shown(error), now=self.clock())
            unbegun(Cancelled(f"run {run.id} was cancelled") if run.state == "cancelled" else error)
            self._ended(run)
            return
        self._execute(claimed, work)

    def _execute(self, run: Run, work: Callable[[Report], T], also: Report = silent) -> T:
        try:
            return self.executor.execute(run, work, also=also, sealed=sealed)
        finally:
            self._ended(run)

    def _ended(self, run: Run) -> None:
        """Tell who wants to know that a run ended. What they do wrong is logged and changes nothing."""
        if not self.on_end:
            return
        try:
            with self.store.read() as tx:
                found = runs.get_run(tx, run.org_id, run.id)
        except DBLensError as error:
            log.error("nobody was told of the end of run %s: %s", run.id, error.message)
            return
        for hook in self.on_end:
            try:
                hook(found)
            except Exception:
                log.exception("who was told of the end of run %s failed", run.id)

    def renewed(self, principal: Principal) -> Principal:
        """Return a principal as the store knows them now. Raises NotAuthenticated for somebody who may not enter any more.

        A token has to be good still; a login that ended since does not take back what it asked for: people log out while work waits.
        """
        if principal.kind == "local":
            return principal
        with self.store.read() as tx:
            try:
                user = accounts.get_user(tx, principal.user_id)
            except NotFound:
                user = None
            if user is None or not (user.active and user.approved):
                raise NotAuthenticated(f"{principal.name!r} has no access any more")
            if principal.token_id is not None:
                token = tokens.get_access_token(tx, principal.user_id, principal.token_id)
                if token.revoked_at is not None or token.expires_at <= self.clock():
                    raise NotAuthenticated(
                        f"the access token {token.name!r} is not valid any more", hint="make another"
                    )
            if principal.role == SUPER_ADMIN:
                if user.super_admin:
                    return principal
                return msgspec.structs.replace(principal, role=None, rank=0, permissions=())
            try:
                held = organizations.role_of(tx, principal.org_id or "", user.id)
            except NotFound:
                return msgspec.structs.replace(principal, role=None, rank=0, permissions=())
        return msgspec.structs.replace(principal, role=held.name, rank=held.rank, permissions=held.permissions)

    def cancel(self, org_id: str, run_id: str) -> Run:
        """Ask a run of an organization to stop. Raises NotFound."""
        return self.executor.cancel(org_id, run_id)

    def sweep(self) -> tuple[Run, ...]:
        """End the runs whose worker died: crashed, their locks freed, their outcome in the audit. Return them."""
        ended = self.executor.sweep()
        entries = [
            Entry(
                at=self.clock(),
                phase="ended",
                action=run.operation,
                actor_id=run.user_id or "",
                actor="",
                org_id=run.org_id,
                connection_id=run.connection_id,
                outcome="run.crashed",
                run_id=run.id,
                detail={"worker": run.worker},
            )
            for run in ended
        ]
        if entries:
            self.journal.write(*entries)
        for run in ended:
            self._ended(run)
        return ended

    def close(self, *, cancel: bool = True) -> None:
        """End what is at work, close sessions, write what the audit still has to say, close the store."""
        self.talks.close()
        self.executor.close(cancel=cancel)
        if "deliverer" in self.__dict__:
            self.deliverer.close()
        self.lines.close()
        self.asked.close()
        self.journal.close()
        self.store.close()


def _covered(tx: Transaction, org_id: str, parent: str | None, lock: str | None) -> bool:
    """Return whether a run of which this one is a part holds the lock already."""
    while parent is not None and lock is not None:
        found = runs.get_run(tx, org_id, parent)
        if found.lock == lock:
            return True
        parent = found.parent_id
    return False


def sealed(result: object) -> Any:
    """Return a run's result as the store keeps it: plain JSON values."""
    return msgspec.json.decode(msgspec.json.encode(result))


def _audit_key(store: Store, settings: Settings, keyring: Keyring) -> bytes:
    """Return the key of the audit's chain. Alone on a laptop it is made at the first use, beside the store's own key."""
    if settings.audit_key is not None and settings.audit_key_file is not None:
        raise InvalidInput("the audit's key is given twice", hint="keep DBLENS_AUDIT_KEY_FILE")
    if settings.audit_key is not None:
        try:
            found = base64.b64decode(settings.audit_key.reveal(), validate=True)
        except ValueError:
            found = b""
        if len(found) < 32:
            raise InvalidInput("DBLENS_AUDIT_KEY is no key", hint="32 octets in base64")
        return found
    if settings.audit_key_file is not None:
        return read_file(settings.audit_key_file).first.octets()
    if settings.mode == "team":
        raise StoreError(
            "a team's audit needs a key of its own, kept outside of the database", hint="set DBLENS_AUDIT_KEY_FILE"
        )
    return _own_audit_key(store, keyring, settings.data_folder / "audit-key")


def _own_audit_key(store: Store, keyring: Keyring, path: Path) -> bytes:
    """Return the audit's key alone on a laptop: a file, and a copy sealed in the store.

    So a backup and the key-encryption key bring everything back. A service's audit key lies in no database.
    """
    with store.read() as tx:
        if secrets.has_instance(tx, AUDIT_KEY):
            return base64.b64decode(secrets.get_instance(tx, keyring, AUDIT_KEY).reveal())
    if not os.path.lexists(path):
        make_key(path)
    octets = read_file(path).first.octets()
    with store.write() as tx:
        if not secrets.has_instance(tx, AUDIT_KEY):
            secrets.put_instance(tx, keyring, AUDIT_KEY, Secret(base64.b64encode(octets).decode()))
    return octets
