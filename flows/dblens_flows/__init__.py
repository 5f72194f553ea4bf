"""Prefect flows of DBLens. None yet: scheduled backups bring the first."""
