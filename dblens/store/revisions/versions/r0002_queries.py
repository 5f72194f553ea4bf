"""Queries: their history, and those that are saved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "queries_history",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("org_id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=True),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("connection_id", sa.String(length=32), nullable=True),
        sa.Column("connection", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("statements", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("affected", sa.BigInteger(), nullable=True),
        sa.Column("microseconds", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=100), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("client", sa.String(length=255), nullable=False),
        sa.Column("notebook", sa.String(length=255), nullable=False),
        sa.Column("cell", sa.String(length=100), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name=op.f("fk_queries_history_org_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_queries_history_user_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queries_history")),
    )
    op.create_index(op.f("ix_queries_history_connection_id"), "queries_history", ["connection_id"])
    op.create_index(op.f("ix_queries_history_org_id"), "queries_history", ["org_id"])
    op.create_index(op.f("ix_queries_history_started_at"), "queries_history", ["started_at"])
    op.create_index(op.f("ix_queries_history_user_id"), "queries_history", ["user_id"])
    op.create_table(
        "queries_saved",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("org_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("language", sa.String(length=20), nullable=False),
        sa.Column("connection_id", sa.String(length=32), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_queries_saved_connection_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_queries_saved_created_by"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name=op.f("fk_queries_saved_org_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queries_saved")),
        sa.UniqueConstraint("org_id", "name", name=op.f("uq_queries_saved_org_id_name")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("queries_saved")
    op.drop_table("queries_history")
