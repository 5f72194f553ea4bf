"""Finds a secret in octets, however it is spelled, and collects the octets: of processes below this one, of a store's files and rows."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import secrets as random
import sqlite3
import threading
import urllib.parse
import zlib
from pathlib import Path


def canary(name: str) -> str:
    """Return a secret that no text holds by accident, and that is spelled differently by whoever escapes, quotes or encodes."""
    return f'Kañ4ry-{name}-{random.token_hex(8)}"%/+ x'


def spellings(text: str) -> dict[str, bytes]:
    """Return how a secret may be written."""
    raw = text.encode()
    found = {
        "raw": raw,
        "url": urllib.parse.quote(text, safe="").encode(),
        "url, slashes": urllib.parse.quote(text).encode(),
        "form": urllib.parse.quote_plus(text).encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "json, utf-8": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        "json in json": json.dumps(json.dumps(text)[1:-1])[1:-1].encode(),
        "repr": repr(text)[1:-1].encode(),
        "ascii": ascii(text)[1:-1].encode(),
        "octets": repr(raw)[2:-1].encode(),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "latin-1": text.encode("latin-1", "replace"),
        "utf-16": text.encode("utf-16-le"),
        "html": text.replace('"', "&quot;").encode(),
    }
    for shift in range(3):
        # Of a secret inside of something longer the first and the last characters depend on what is beside it.
        for name, encode in (("base64", base64.b64encode), ("base64, url", base64.urlsafe_b64encode)):
            whole = encode(b"\0" * shift + raw).rstrip(b"=")
            found[f"{name} at {shift}"] = whole[0 if shift == 0 else 4 : -2]
    return found


def hits(data: bytes, text: str) -> list[str]:
    """Return in which spellings a secret stands in some octets."""
    return [name for name, form in spellings(text).items() if form in data]


class Watch:
    """Looks at the command line and the environment of every process below this one, again and again."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], bytes] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            self.look()

    def look(self) -> None:
        parents: dict[int, int] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    parents[int(entry)] = int(stat[1])
        me = os.getpid()
        for pid in parents:
            above, up = parents.get(pid), [pid]
            while above and above != me and len(up) < 50:
                up.append(above)
                above = parents.get(above)
            if above != me:
                continue
            for what in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    data = Path(f"/proc/{pid}/{what}").read_bytes()
                    if data and data not in self.seen.get((pid, what), b""):
                        self.seen[pid, what] = self.seen.get((pid, what), b"") + b"\0" + data

    def all(self) -> bytes:
        return b"\n".join(self.seen.values())


def stored(folder: Path) -> bytes:
    """Return the octets of a store's files, the write-ahead log among them."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("store.sqlite*")))


def opened(data: bytes) -> bytes:
    """Return what a backup holds, packed and unpacked."""
    plain = b""
    with contextlib.suppress(OSError, EOFError, zlib.error):
        plain = gzip.decompress(data)
    return data + plain


def rows(path: Path) -> bytes:
    """Return every value of every table: what runs returned and logged, arguments, the audit, settings, plans."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
        return "\n".join(repr(row) for table in tables for row in db.execute(f'select * from "{table}"')).encode()
