"""The history of queries as it is written: in batches behind the answers, by the organization's rule of texts. No door of its own.

The audit answers for what was done, at once and in a chain; the history is for finding a query again. A process that is killed loses
what it asked in its last second.
"""

from __future__ import annotations

import atexit
import logging
import re
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dblens.errors import DBLensError, InvalidInput, NotFound
from dblens.redaction import HIDDEN, scrub
from dblens.store import queries
from dblens.store.queries import Asked

if TYPE_CHECKING:
    from dblens.engines.asking import Lexis
    from dblens.store.database import Store

log = logging.getLogger(__name__)
SECONDS: Final = 1.0
ROOM: Final = 5000
LONGEST: Final = 100_000
"""Characters of a text that are kept."""
_PASSWORD: Final = re.compile(
    r"(\b(?:PASSWORD|IDENTIFIED\s+(?:WITH\s+\S+\s+)?(?:BY|AS)|SECRET|TOKEN|API_?KEY|pwd)\b\s*(?:[=:(]\s*|TO\s+)?(?:PASSWORD\s+)?\(?\s*)"
    r"('(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\")",
    re.IGNORECASE | re.DOTALL,
)


class Book:
    """Writes a process's queries into its store's history. Safe for several threads."""

    def __init__(self, store: Store, *, seconds: float = SECONDS, room: int = ROOM) -> None:
        self._store, self._seconds, self._room = store, seconds, room
        self._changed, self._writing = threading.Condition(), threading.Lock()
        self._waiting: deque[Asked] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, asked: Asked) -> None:
        """Keep a query, soon. Never waits for the store; when that is far behind, the oldest that waits is lost and the log says so."""
        with self._changed:
            if len(self._waiting) >= self._room:
                log.error("the history of queries is %s behind: one is lost", len(self._waiting))
                self._waiting.popleft()
            self._waiting.append(asked)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="dblens-history", daemon=True)
                self._thread.start()
                atexit.register(self.close)  # a command line ends at once
            self._changed.notify_all()

    def flush(self) -> None:
        """Write what waits, now. Raises StoreError; then it waits on."""
        with self._writing:
            with self._changed:
                batch = list(self._waiting)
                self._waiting.clear()
            if not batch:
                return
            left = list(batch)
            try:
                for org_id in dict.fromkeys(each.org_id for each in batch):
                    some = [each for each in batch if each.org_id == org_id]
                    with suppress(NotFound), self._store.write() as tx:  # an organization may be gone
                        queries.add_history(tx, org_id, some)
                    left = [each for each in left if each.org_id != org_id]
            except BaseException:
                with self._changed:
                    self._waiting.extendleft(reversed(left))
                raise

    def close(self) -> None:
        """Write what waits and take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        atexit.unregister(self.close)
        if thread is not None:
            thread.join(5)
        try:
            self.flush()
        except DBLensError as error:
            log.error("%s queries are not in the history: %s", len(self._waiting), error.message)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._changed.wait_for(self._is_closed, self._seconds)
                if self._closed:
                    return
            try:
                self.flush()
            except DBLensError as error:
                log.error("the history of queries cannot be written: %s", error.message)
                time.sleep(self._seconds)

    def _is_closed(self) -> bool:
        return self._closed


def kept_text(text: str, rule: str, lexis: Lexis | None) -> str:
    """Return what the history keeps of a text; `rule` is full, redacted or none."""
    if rule == "none":
        return ""
    text = without_literals(text, lexis) if rule == "redacted" else text
    return _cut(_fit(scrub(_PASSWORD.sub(lambda found: f"{found[1]}'{HIDDEN}'", text))), LONGEST)


def without_literals(text: str, lexis: Lexis | None) -> str:
    """Return a text with `?` for every string and number in it, and without comments; nothing when it cannot be taken apart."""
    if lexis is None:
        return ""
    from dblens.query.lex import tokens

    parts, at = list[str](), 0
    try:
        for token in tokens(text, lexis):
            if token.kind in ("string", "number", "comment"):
                parts += [text[at : token.start], " " if token.kind == "comment" else "?"]
                at = token.end
    except InvalidInput:
        return ""
    return "".join([*parts, text[at:]])


def kept_error(error: DBLensError, rule: str) -> str | None:
    """Return what the history keeps of an error: its message may show values, so not where texts are not kept whole."""
    return _cut(_fit(scrub(error.message)), 2000) if rule == "full" else None


def _fit(text: str) -> str:
    return text.replace("\0", "�").encode("utf-8", "replace").decode()


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


_PLAIN: Final = re.compile(r"[^\w .:@/+-]+")


def plain(text: str, longest: int = 80) -> str:
    """Return a text that may stand in a comment of any language: letters, digits and a few signs."""
    text = _PLAIN.sub("_", text.replace("--", "_").replace("/*", "_").replace("*/", "_"))
    return text[:longest].strip()


__all__ = ["Book", "kept_error", "kept_text", "plain", "without_literals"]
