"""What a login may do beside reading, by what SHOW GRANTS says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_GRANT = re.compile(r"GRANT (?P<rights>.+?) ON (?P<place>.+?) TO .+?(?P<option> WITH GRANT OPTION)?$", re.DOTALL)
_ROLE = re.compile(r"GRANT (?P<role>[`'].+?) TO ", re.DOTALL)
_COLUMNS = re.compile(r"\([^)]*\)")
READING: Final = frozenset(
    {"SELECT", "USAGE", "SHOW VIEW", "SHOW DATABASES", "PROCESS", "REPLICATION CLIENT", "BINLOG MONITOR", "SLAVE MONITOR", "REPLICA MONITOR",
     "SHOW_ROUTINE", "SHOW CREATE ROUTINE", "REFERENCES"}
)  # fmt: skip


def only_reads(grants: Sequence[str]) -> tuple[bool, str]:
    """Return whether a login can do nothing but read, and why not (or what that rests on)."""
    more: dict[str, None] = {}
    for line in grants:
        found = _GRANT.match(line)
        if found is None:
            role = _ROLE.match(line)
            if "DEFAULT ROLE" not in line:
                more[f"what role {role['role']} may" if role else line[:80]] = None
            continue
        place = found["place"]
        for right in _COLUMNS.sub("", found["rights"]).split(","):
            name = right.strip().upper()
            if name not in READING:
                more[f"{name} on {place}"] = None
        if found["option"]:
            more[f"GRANT OPTION on {place}"] = None
    if not more:
        return True, "the login may only read"
    named = list(more)
    rest = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return False, f"the login may do more than read: {', '.join(named[:6])}{rest}; use one with SELECT alone"
