"""Migrations as plans: plan, apply, verify, swap, undo, evidence. Knows schemas and sessions, never an engine."""
