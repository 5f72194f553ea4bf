"""A team's house with two organizations and somebody of every role, for the doors to people."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from collections.abc import Sequence
from pathlib import Path

from dblens.accounts import configured, login
from dblens.accounts.base import PAT, Authenticated, Caller, digest, secret
from dblens.accounts.limits import DEFAULTS, Limit, Limits
from dblens.accounts.mail import Mail
from dblens.accounts.passwords import Passwords
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import accounts, connections, invitations, organizations, sessions, teams, tokens
from dblens.store.accounts import User
from dblens.store.audit import Row
from dblens.store.audit_find import Filter, every
from dblens.store.database import Store
from dblens.store.keys import Kek, Keyring
from dblens.workspace import Workspace, entrance
from dblens.workspace.entry import principal_of
from dblens.workspace.house import House
from dblens.workspace.journal import Journal
from dblens.workspace.permissions import SYSTEM_ROLES
from dblens.workspace.principal import Principal

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
HERE = Caller(address="192.0.2.7", client="pytest")
GOOD = "Grundstein-7 liegt"
ROLES = ("viewer", "analyst", "auditor", "developer", "admin")
NO_LIMITS = {what: Limit() for what in DEFAULTS}
INVITATION = "dbl_inv_known"


@dataclasses.dataclass
class Clock:
    now: dt.datetime = NOW

    def __call__(self) -> dt.datetime:
        return self.now

    def on(self, **more: float) -> None:
        self.now += dt.timedelta(**more)


class World:
    """`root` is super_admin; acme has one of each role, named so, and `ada`, a second admin; beta has `bea` (admin) and `bob`;
    `zoe` is in no organization, and invited into acme."""

    def __init__(self, store: Store, folder: Path, *, public_url: str | None = None, filled: bool = False) -> None:
        self.clock = Clock()
        settings = Settings(store_url="sqlite:///unused", data_folder=folder, mode="team", public_url=public_url)
        self.house = House(
            store, settings, Keyring((Kek("k1", b"1" * 32),)), Journal(store, b"k" * 32, age=30), clock=self.clock
        )
        shared = configured._of(store)
        shared.passwords, shared.limits = Passwords(time_cost=1, memory_kib=64), Limits(NO_LIMITS)
        if not filled:
            self._fill()
        with store.read() as tx:
            self.acme = organizations.find_organization(tx, "acme").id
            self.beta = organizations.find_organization(tx, "beta").id
            self.crew = teams.find_team(tx, self.acme, "crew").id
            self.role = organizations.find_role(tx, self.acme, "helper").id
            self.shop = connections.find_connection(tx, self.acme, "shop").id
            self.invited = invitations.list_invitations(tx, self.acme).items[0].id

    def _fill(self) -> None:
        with self.house.store.write() as tx:
            organizations.ensure_roles(tx, [(r.name, r.rank, r.permissions) for r in SYSTEM_ROLES.values()], now=NOW)
            hashed = configured._of(self.house.store).passwords.hash(GOOD)
            ids = {}
            for name in ("root", "ada", *ROLES, "bea", "bob", "zoe"):
                made = accounts.create_user(
                    tx, name, email=f"{name}@example.org", password_hash=hashed, super_admin=name == "root", now=NOW
                )
                accounts.link_identity(tx, "local", made.id, made.id, now=NOW)
                ids[name] = made.id
            orgs = {n: organizations.create_organization(tx, n.title(), now=NOW).id for n in ("acme", "beta")}
            people = [("acme", role, role) for role in ROLES]
            people += [("acme", "ada", "admin"), ("beta", "bea", "admin"), ("beta", "bob", "viewer")]
            for org, name, role in people:
                organizations.add_member(
                    tx, orgs[org], ids[name], organizations.find_role(tx, orgs[org], role).id, now=NOW
                )
            for org in orgs.values():
                made_team = teams.create_team(tx, org, "crew", now=NOW)
                teams.add_to_team(tx, org, made_team.id, ids["viewer" if org == orgs["acme"] else "bob"])
                organizations.create_role(tx, org, "spare", ["run.list"], rank=10, now=NOW)
                helper = organizations.create_role(tx, org, "helper", ["catalog.read"], rank=10, now=NOW)
                owner = ids["developer" if org == orgs["acme"] else "bob"]
                connections.create_connection(
                    tx, org, name="shop", engine="postgres", fields={}, owner_id=owner, now=NOW
                )
                invitations.create_invitation(
                    tx, org, email="zoe@example.org", role_id=helper.id,
                    hash=digest(INVITATION if org == orgs["acme"] else secret()), created_by=ids["admin" if org == orgs["acme"] else "bea"],
                    expires_at=NOW + dt.timedelta(days=7), now=NOW,
                )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------------- who

    def user(self, name: str) -> User:
        with self.house.store.read() as tx:
            return accounts.find_user(tx, name)

    def log_in(self, name: str) -> Authenticated:
        done = login.open_session(entrance.accounts_of(self.house), self.user(name), HERE, kind="login")
        return Authenticated(user=done.user, session=done.session)

    def principal(self, name: str, *, organization: str | None = None, super_admin: bool = False) -> Principal:
        return principal_of(
            self.house.store,
            self.log_in(name),
            organization=organization,
            as_super_admin=super_admin,
            client="pytest",
            address="192.0.2.7",
        )

    def as_(self, name: str, *, organization: str | None = None, super_admin: bool | None = None) -> Workspace:
        """Return the doors for somebody; `root` acts as super_admin in acme unless told otherwise."""
        if name == "root" and super_admin is None:
            return self.house.workspace(
                self.principal("root", organization=organization or self.acme, super_admin=True)
            )
        return self.house.workspace(self.principal(name, organization=organization, super_admin=bool(super_admin)))

    def token(self, name: str, *scopes: str, organization: str | None = None) -> str:
        fresh = PAT + secret()
        user = self.user(name)
        with self.house.store.write() as tx:
            tokens.create_access_token(
                tx, organization or self.acme, user.id, name="t", hash=digest(fresh), scopes=scopes,
                expires_at=self.clock() + dt.timedelta(days=1), now=self.clock(),
            )  # fmt: skip
        return fresh

    def by_token(self, name: str, *scopes: str, organization: str | None = None) -> Workspace:
        return self.bearer(self.token(name, *scopes, organization=organization))

    def bearer(self, token: str) -> Workspace:
        return self.house.workspace(entrance.authenticate(self.house, Secret(token), HERE))

    # ------------------------------------------------------------------------------------------------------------------ what

    def role_of(self, name: str, org_id: str | None = None) -> str | None:
        with self.house.store.read() as tx:
            found = organizations.list_memberships(tx, self.user(name).id, limit=200).items
        return next((item.role.name for item in found if item.organization.id == (org_id or self.acme)), None)

    def session_of(self, name: str) -> str:
        with self.house.store.read() as tx:
            page = sessions.list_sessions(tx, self.user(name).id, live_at=self.clock())
        return page.items[0].id

    def token_of(self, name: str) -> str:
        self.token(name, "catalog.read")
        with self.house.store.read() as tx:
            return tokens.list_access_tokens(tx, self.user(name).id).items[0].id

    def rows(self, action: str | None = None) -> Sequence[Row]:
        self.house.journal.flush()
        return [row for row in every(self.house.store, None, Filter()) if action in (None, row.action)]

    def mail(self) -> list[Mail]:
        """Have letters kept from now on, in the list that is returned."""
        from dblens.accounts import rules_stored

        with self.house.store.write() as tx:
            server = rules_stored.MailServer(host="mail.example.org", sender="dblens@example.org")
            rules_stored.write(tx, server, now=self.clock())
        sent: list[Mail] = []
        shared = configured._of(self.house.store)
        shared.smtp = server.smtp(None)
        shared.outbox = sent.append  # type: ignore[assignment]
        return sent

    def close(self) -> None:
        self.house.executor.close(cancel=True)
        self.house.lines.close()
        self.house.journal.close()


class Template:
    """A filled SQLite store, made once and copied for each world."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "template.sqlite"
        store = Store.open(f"sqlite:///{self.file}")
        store.create_all()
        World(store, folder).close()
        with store.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()

    def world(self, folder: Path, number: int) -> World:
        copy = folder / f"{number}.sqlite"
        shutil.copy(self.file, copy)
        return World(Store.open(f"sqlite:///{copy}"), folder, filled=True)
