"""Accounts: who somebody is, proved by password, session or token. What they may do is decided elsewhere, on each request."""
