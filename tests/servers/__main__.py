"""`python -m tests.servers`: start every server once, print versions and times, and leave the templates warm."""

from __future__ import annotations

import os
import time

from tests.servers import ServerMissing, reaper
from tests.servers.fixtures import KINDS, MAY_BE_MISSING


def main() -> int:
    """Return 1 when a required server is missing."""
    required = os.environ.get("DBLENS_REQUIRE_SERVERS") == "1"
    reaper.sweep()
    lost = []
    for kind, make in KINDS.items():
        began = time.monotonic()
        try:
            with make() as server:
                print(f"{kind:8} {server.title:18} {server.version:32} {time.monotonic() - began:5.1f} s")
        except ServerMissing as reason:
            print(f"{kind:8} MISSING: {reason}")
            lost.append(kind)
    return int(required and bool(set(lost) - MAY_BE_MISSING))


if __name__ == "__main__":
    raise SystemExit(main())
