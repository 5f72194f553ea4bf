"""The attacks of the threat model, each with tests that fail when its defence is removed: `index.py` says which, `removed.py` proves it."""
