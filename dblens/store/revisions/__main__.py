"""Draft the next revision: `python -m dblens.store.revisions "what it does"`, from what `tables.py` has and the revisions lack.

For developers. Read the draft before it is committed: data that has to move and renamed columns are yours to write.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from dblens.store.database import Store
from dblens.store.upgrade import draft, upgrade


def main(message: str) -> Path:
    """Write the draft and return where."""
    with tempfile.TemporaryDirectory() as folder, closing(Store.open(f"sqlite:///{folder}/store")) as store:
        upgrade(store)
        return draft(store, message)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m dblens.store.revisions "what it does"')
    sys.stdout.write(f"{main(sys.argv[1])}\n")
