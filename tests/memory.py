"""How much more memory a piece of work takes, at its peak.

`ru_maxrss` does not tell: it remembers what the parent had at the fork, and every peak before. Linux resets the peak of a process when
`5` is written to its `clear_refs` (proc(5)).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Growth:
    """What was added, in KiB, once the work is over."""

    kib = 0


@contextmanager
def grown() -> Iterator[Growth]:
    """Measure the body: its highest resident memory less the resident memory before it."""
    found = Growth()
    Path("/proc/self/clear_refs").write_text("5")
    before = _of("VmRSS")
    yield found
    found.kib = _of("VmHWM") - before


def _of(name: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])
