"""The store's tables, as SQLAlchemy Core sees them; a revision under `revisions/` makes each of them.

Everything that belongs to an organization has `org_id`, and every query names it. Ids are 32 hexadecimal digits that sort by time
(`records.new_id`). Times are microseconds since 1970 in UTC (`UtcTime`), because SQLite has no type for an instant.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class UtcTime(sa.types.TypeDecorator[dt.datetime]):
    """An aware instant, kept as whole microseconds. Raises ValueError for a naive one."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> int | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without zone: {value!r}")
        return (value - _EPOCH) // dt.timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002
        return None if value is None else _EPOCH + dt.timedelta(microseconds=value)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _id(**more: Any) -> sa.Column[Any]:
    return sa.Column("id", sa.String(32), primary_key=True, **more)


def _ref(
    name: str, target: str, *, nullable: bool = False, ondelete: str | None = "CASCADE", **more: Any
) -> sa.Column[Any]:
    return sa.Column(name, sa.String(32), sa.ForeignKey(target, ondelete=ondelete), nullable=nullable, **more)


def _time(name: str, *, nullable: bool = False, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, UtcTime, nullable=nullable, **more)


def _text(name: str, size: int = 255, *, nullable: bool = False, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.String(size), nullable=nullable, **more)


def _flag(name: str, default: bool) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=False, default=default)


def _json(name: str, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON, nullable=False, **more)


# --------------------------------------------------------------------------------------------------------------- the instance

meta = sa.Table(
    "meta", metadata, sa.Column("key", sa.String(100), primary_key=True), sa.Column("value", sa.Text, nullable=False)
)

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("scope", sa.String(32), primary_key=True),  # an organization's id, or "instance"
    sa.Column("key", sa.String(100), primary_key=True),
    _json("value"),
    _time("updated_at"),
)

# -------------------------------------------------------------------------------------------------------------------- accounts

users = sa.Table(
    "users",
    metadata,
    _id(),
    _text("name"),
    _text("folded", unique=True),  # name, case-folded: what must be unique
    _text("email", 320, nullable=True),
    _text("email_folded", 320, nullable=True, unique=True),
    _text("display"),
    sa.Column("password_hash", sa.Text, nullable=True),
    _flag("active", True),
    _flag("approved", True),
    _flag("must_change", False),
    _flag("super_admin", False),
    sa.Column("version", sa.Integer, nullable=False, default=1),  # a new one ends every session
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("lockouts", sa.Integer, nullable=False, default=0),
    _time("locked_until", nullable=True),
    _ref("current_org_id", "organizations.id", nullable=True, ondelete="SET NULL"),
    _time("created_at"),
    _time("last_login_at", nullable=True),
)

identities = sa.Table(
    "identities",
    metadata,
    sa.Column("issuer", sa.String(255), primary_key=True),
    sa.Column("subject", sa.String(255), primary_key=True),
    _ref("user_id", "users.id", index=True),
    _time("created_at"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    _id(),
    _ref("user_id", "users.id", index=True),
    sa.Column("user_version", sa.Integer, nullable=False),
    _text("kind", 20),
    _text("client"),
    _text("address", 64),
    _time("created_at"),
    _time("authenticated_at"),
    _time("seen_at"),
    _time("expires_at"),
    _time("revoked_at", nullable=True),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("hash", sa.LargeBinary(32), primary_key=True),
    _ref("session_id", "sessions.id", index=True),
    _time("expires_at"),
    _time("used_at", nullable=True),
)

reset_tokens = sa.Table(
    "reset_tokens",
    metadata,
    sa.Column("hash", sa.LargeBinary(32), primary_key=True),
    _ref("user_id", "users.id", index=True),
    _text("purpose", 20),  # password | email
    _time("expires_at"),
)

access_tokens = sa.Table(
    "access_tokens",
    metadata,
    _id(),
    _ref("user_id", "users.id", index=True),
    _ref("org_id", "organizations.id", index=True),
    _text("name"),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    _json("scopes"),
    _time("created_at"),
    _time("expires_at"),
    _time("used_at", nullable=True),
    _time("revoked_at", nullable=True),
)

# --------------------------------------------------------------------------------------------------------------- organizations

organizations = sa.Table(
    "organizations",
    metadata,
    _id(),
    _text("name"),
    _text("slug", 63, unique=True),
    _time("created_at"),
    _time("deleted_at", nullable=True),
)

roles = sa.Table(
    "roles",
    metadata,
    _id(),
    _ref("org_id", "organizations.id", nullable=True),  # NULL: a system role
    _text("name", 63),
    _json("permissions"),
    sa.Column("rank", sa.Integer, nullable=False),
    _time("created_at"),
    sa.UniqueConstraint("org_id", "name"),
)

members = sa.Table(
    "members",
    metadata,
    _ref("org_id", "organizations.id", primary_key=True),
    _ref("user_id", "users.id", primary_key=True, index=True),
    _ref("role_id", "roles.id", ondelete="RESTRICT"),
    _time("created_at"),
)

teams = sa.Table(
    "teams",
    metadata,
    _id(),
    _ref("org_id", "organizations.id"),
    _text("name", 100),
    _time("created_at"),
    sa.UniqueConstraint("org_id", "name"),
)

team_members = sa.Table(
    "team_members",
    metadata,
    _ref("team_id", "teams.id", primary_key=True),
    _ref("user_id", "users.id", primary_key=True, index=True),
    _ref("org_id", "organizations.id", index=True),
)

invitations = sa.Table(
    "invitations",
    metadata,
    _id(),
    _ref("org_id", "organizations.id", index=True),
    _text("email", 320),
    _ref("role_id", "roles.id"),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    _ref("created_by", "users.id", nullable=True, ondelete="SET NULL"),
    _time("created_at"),
    _time("expires_at"),
    _time("accepted_at", nullable=True),
)

# ----------------------------------------------------------------------------------------------------- connections and secrets

connections = sa.Table(
    "connections",
    metadata,
    _id(),
    _ref("org_id", "organizations.id"),
    _text("name", 100),
    _text("engine", 20),
    _json("fields"),  # host, port, database, user, options, TLS, tunnel: never a secret
    _text("environment", 20),
    _text("colour", 20),
    _flag("read_only", False),
    _ref("owner_id", "users.id", nullable=True, ondelete="SET NULL"),
    sa.Column("version", sa.Integer, nullable=False, default=1),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("org_id", "name"),
)

connection_grants = sa.Table(
    "connection_grants",
    metadata,
    _ref("connection_id", "connections.id", primary_key=True),
    sa.Column("grantee_kind", sa.String(10), primary_key=True),  # user | team
    sa.Column("grantee_id", sa.String(32), primary_key=True),
    _ref("org_id", "organizations.id", index=True),
    _text("level", 10),  # view | use | manage
    _time("created_at"),
)

data_keys = sa.Table(
    "data_keys",
    metadata,
    _id(),
    _ref("org_id", "organizations.id", index=True),
    _text("kek", 100),  # which key-encryption key wrapped it
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("uses", sa.BigInteger, nullable=False, default=0),
    _time("created_at"),
    _time("retired_at", nullable=True),
)

secrets = sa.Table(
    "secrets",
    metadata,
    _ref("org_id", "organizations.id", primary_key=True),
    sa.Column("record_id", sa.String(32), primary_key=True),
    sa.Column("field", sa.String(63), primary_key=True),
    _text("kind", 20),  # inline | reference
    _ref("key_id", "data_keys.id", nullable=True, ondelete="RESTRICT"),
    sa.Column("value", sa.LargeBinary, nullable=False),  # nonce and ciphertext, or the reference's text
    _time("updated_at"),
)

# ---------------------------------------------------------------------------------------------------------------- audit and runs

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    _time("at", index=True),
    _text("org_id", 32, nullable=True, index=True),
    _text("phase", 10),  # started | ended | denied | read | checkpoint
    _text("actor_id", 32, nullable=True, index=True),
    _text("actor"),
    _text("action", 100, index=True),
    _text("connection_id", 32, nullable=True, index=True),
    sa.Column("target", sa.Text, nullable=True),
    _text("outcome", 100, nullable=True),
    sa.Column("microseconds", sa.BigInteger, nullable=True),
    _text("client"),
    _text("address", 64),
    _text("run_id", 32, nullable=True),
    _json("detail"),
    sa.Column("previous", sa.LargeBinary(32), nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    _id(),
    _ref("org_id", "organizations.id", index=True),
    _text("parent_id", 32, nullable=True, index=True),
    _text("operation", 100, index=True),
    _text("state", 20, index=True),  # queued | running | succeeded | failed | cancelled | crashed
    _ref("user_id", "users.id", nullable=True, ondelete="SET NULL", index=True),
    _text("connection_id", 32, nullable=True, index=True),
    _text("lock", 255, nullable=True),  # what only one run at a time may hold
    _json("arguments"),
    _json("progress"),
    sa.Column("result", sa.JSON, nullable=True),
    sa.Column("error", sa.JSON, nullable=True),
    _text("worker", nullable=True),
    _time("created_at", index=True),
    _time("started_at", nullable=True),
    _time("ended_at", nullable=True),
    _time("lease_until", nullable=True),
    _time("cancel_at", nullable=True),
)

locks = sa.Table(
    "locks", metadata, sa.Column("name", sa.String(255), primary_key=True), _text("run_id", 32), _time("expires_at")
)

run_log = sa.Table(
    "run_log",
    metadata,
    _ref("run_id", "runs.id", primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    _time("at"),
    _text("level", 10),
    sa.Column("text", sa.Text, nullable=False),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("user_id", sa.String(32), primary_key=True),
    _text("operation", 100),
    sa.Column("request", sa.LargeBinary(32), nullable=False),  # digest of the arguments: another request is a conflict
    sa.Column("response", sa.JSON, nullable=True),
    _time("created_at", index=True),
)

notifications = sa.Table(
    "notifications",
    metadata,
    _id(),
    _ref("org_id", "organizations.id"),
    _ref("user_id", "users.id", index=True),
    _text("kind", 40),
    sa.Column("text", sa.Text, nullable=False),
    _text("run_id", 32, nullable=True),
    _time("created_at"),
    _time("read_at", nullable=True),
)

# ------------------------------------------------------------------------------------------------------------------- migrations

plans = sa.Table(
    "plans",
    metadata,
    _id(),  # the plan's own id
    _ref("org_id", "organizations.id", index=True),
    _text("hash", 64),
    sa.Column("document", sa.LargeBinary, nullable=False),
    _text("source_id", 32),
    _text("target_id", 32),
    _ref("created_by", "users.id", nullable=True, ondelete="SET NULL"),
    _time("created_at", index=True),
)

templates = sa.Table(
    "templates",
    metadata,
    _id(),
    _ref("org_id", "organizations.id"),
    _text("name", 100),
    _text("kind", 40),
    _json("body"),
    _ref("created_by", "users.id", nullable=True, ondelete="SET NULL"),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("org_id", "name"),
)

# ---------------------------------------------------------------------------------------------------------------------- queries

queries_history = sa.Table(
    "queries_history",
    metadata,
    _id(),
    _ref("org_id", "organizations.id", index=True),
    _ref("user_id", "users.id", nullable=True, ondelete="SET NULL", index=True),
    _text("user"),
    _text("connection_id", 32, nullable=True, index=True),  # of one that may be gone by now; None for an address
    _text("connection"),
    _text("operation", 40),  # run | write | explain
    _text("kind", 20),  # the gravest thing that its statements seemed to do
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("statements", sa.Integer, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=True),
    sa.Column("affected", sa.BigInteger, nullable=True),
    sa.Column("microseconds", sa.BigInteger, nullable=False),
    _text("outcome", 100),  # ok, or the code of the error
    sa.Column("error", sa.Text, nullable=True),
    _text("client"),
    _text("notebook"),
    _text("cell", 100),
    _time("started_at", index=True),
)

queries_saved = sa.Table(
    "queries_saved",
    metadata,
    _id(),
    _ref("org_id", "organizations.id"),
    _text("name", 100),
    sa.Column("text", sa.Text, nullable=False),
    _text("language", 20),  # sql | mongodb
    _ref("connection_id", "connections.id", nullable=True, ondelete="SET NULL"),
    sa.Column("description", sa.Text, nullable=False),
    _json("params"),  # their defaults, by name
    _ref("created_by", "users.id", nullable=True, ondelete="SET NULL"),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("org_id", "name"),
)
