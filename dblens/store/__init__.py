"""Metadata: users, organizations, connections, secrets, audit, runs. SQLAlchemy lives here and nowhere else."""
