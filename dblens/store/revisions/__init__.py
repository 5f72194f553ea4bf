"""Alembic's revisions: each step of the store's tables, forward and back."""
