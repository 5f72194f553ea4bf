"""A secret that shows itself only when asked to, and the scrubbing of every text that could show it nevertheless.

`Secret` objects that live are known here, weakly. `scrub` takes their text out of a string, also URL-encoded, escaped, in base64 or
hexadecimal, and what looks like a password in a driver's message (`scheme://user:password@host`, `password=…`, `Bearer …`).
`install` puts that before every log record and every traceback nobody caught.

The cost is bounded: a text is cut at `LONGEST` characters, a secret has some twenty forms, each is one search at the speed of C.
A secret of less than `SHORTEST` characters is not searched for: it would cut up ordinary words.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import sys
import threading
import traceback
import urllib.parse
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, NoReturn

HIDDEN: Final = "***"
SHORTEST: Final = 4
LONGEST: Final = 200_000
_DEPTH: Final = 4
_LINES: Final = 200

_live: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()
_made = 0
_forms_of: tuple[tuple[int, int], tuple[str, ...]] = ((0, 0), ())


class Secret:
    """A text that shows itself only when asked to: not in repr, str, format, a log, a traceback, JSON or a pickle."""

    __slots__ = ("__weakref__", "_text")

    def __init__(self, text: str) -> None:
        global _made  # noqa: PLW0603 - tells `_forms` that there is a new one
        if not isinstance(text, str):
            raise TypeError(f"a secret is a text, not {type(text).__name__}")
        self._text = text
        _live[id(self)] = self
        _made += 1

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        """Compare with another secret in a time that does not tell where they differ."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_octets(self._text), _octets(other._text))

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")


def scrub(text: str) -> str:
    """Return a text without any live secret and without what looks like a password, at most `LONGEST` characters of it."""
    forms = _forms()
    over = len(text) - LONGEST
    if over > 0:
        text = text[:LONGEST]
    for form in forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    if over > 0:  # at the cut may stand the beginning of a secret that is no longer whole
        text = f"{text[: -(len(forms[0]) if forms else 1)]}… ({over} characters more)"
    for pattern, by in _PATTERNS:
        text = pattern.sub(by, text)
    return text


def scrub_value(value: object, depth: int = _DEPTH) -> Any:
    """Scrub the texts in a value made of lists, tuples and dictionaries; anything else whose text shows a secret becomes that text."""
    if isinstance(value, str):
        return scrub(value)
    if value is None or isinstance(value, bool | int | float | Secret):
        return value
    if depth > 0 and isinstance(value, Mapping):
        return {scrub_value(k, 0): scrub_value(v, depth - 1) for k, v in value.items()}
    if depth > 0 and type(value) in (list, tuple, set, frozenset):
        return type(value)(scrub_value(v, depth - 1) for v in value)  # type: ignore[call-arg, attr-defined]
    shown = _shown(value)
    clean = scrub(shown)
    return value if clean == shown else clean


# ------------------------------------------------------------------------------------------------------------------------- forms


def _forms() -> tuple[str, ...]:
    """Return every form of every live secret, longest first; made anew only when a secret came or went."""
    global _forms_of  # noqa: PLW0603
    state = (_made, len(_live))
    if _forms_of[0] != state:
        texts = {secret.reveal() for secret in list(_live.values())}
        found = {form for text in texts if len(text) >= SHORTEST for form in _written(text)}
        _forms_of = (state, tuple(sorted(found, key=lambda form: (-len(form), form))))
    return _forms_of[1]


def _written(text: str) -> Iterator[str]:
    """Yield the ways a text is written in logs and messages."""
    yield text
    lines = [line.strip() for line in text.splitlines()[:_LINES]]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= 16 and not line.startswith("-----"))
    octets = _octets(text)
    for safe in ("", "/", "!*'()~", "~"):
        quoted = urllib.parse.quote(octets, safe=safe)
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
        yield quoted.replace("%20", "+")
    yield repr(text)[1:-1]
    yield repr(octets)[2:-1]
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    yield text.replace("'", "''")
    yield text.replace("\\", "\\\\").replace("'", "\\'")
    yield octets.hex()
    yield octets.hex().upper()
    # Inside a longer text (`user:password`) base64 begins at one of three places; what neighbours share a character with is left off.
    for before in range(3):
        skip, size = (0, 2, 3)[before], before + len(octets)
        inner = base64.b64encode(bytes(before) + octets).decode()[skip : size * 8 // 6]
        if len(inner) >= 8:
            yield inner
            yield inner.translate(_URL_SAFE)
    for whole in (base64.b64encode(octets).decode().rstrip("="),):
        yield whole
        yield whole.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")
_PATTERNS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # Up to the last @ that belongs to it. Every repetition is bounded, so a hostile text costs no more than its length times that.
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{1,31}://[^\s/:@'\"<>]{0,256}):[^\s'\"<>]{1,512}@"), rf"\1:{HIDDEN}@"),
    (
        re.compile(
            r"(?i)(\b\w{0,64}(?:password|passwd|pwd|passphrase|secret|token|api_?key)\s{0,4}=\s{0,4})"
            r"(?:'(?:[^'\\]|\\.|''){0,512}'|\"(?:[^\"\\]|\\.){0,512}\"|[^\s,;&'\")}\]]{1,512})"
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"(?i)(['\"]\w{0,64}(?:password|passwd|pwd|passphrase|secret|token|api_?key)['\"]\s{0,4}:\s{0,4})"
            r"(?:'(?:[^'\\]|\\.){0,512}'|\"(?:[^\"\\]|\\.){0,512}\")"
        ),
        rf'\1"{HIDDEN}"',
    ),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s{1,4})[A-Za-z0-9._~+/=-]{8,4096}"), rf"\1{HIDDEN}"),
)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a broken `__str__` must not break logging
        return f"<{type(value).__name__}: {type(error).__name__}>"


# -------------------------------------------------------------------------------------------------------------- logs, tracebacks

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Redacting(logging.Filter):
    """Take every live secret out of a record: message, arguments, extra fields, traceback and stack. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Scrub the record in place, so that handlers that come later see it scrubbed too."""
        _scrub_record(record)
        for name, value in list(record.__dict__.items()):
            if name not in _PLAIN:
                record.__dict__[name] = scrub_value(value)
        return True


def _scrub_record(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format: logging tells it and prints what it was given
        record.msg, record.args = scrub_value(record.msg, 0), scrub_value(record.args)
    else:
        clean = scrub(message)
        if clean != message:
            # Formatters may want the arguments (uvicorn's does): keep their number, unless the secret is spread over them.
            record.msg, record.args = scrub_value(record.msg, 0), scrub_value(record.args)
            if scrub(record.getMessage()) != record.getMessage():
                record.msg, record.args = clean, ()
    if record.exc_info:
        # The traceback as text, and no other: another formatter would write the exception anew.
        if record.exc_info[0] is not None:
            record.exc_text = scrub("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        record.exc_info = None
    elif record.exc_text:
        record.exc_text = scrub(record.exc_text)
    if record.stack_info:
        record.stack_info = scrub(record.stack_info)


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write a traceback nobody caught to stderr, scrubbed; for `sys.excepthook`."""
    sys.stderr.write(scrub("".join(traceback.format_exception(kind, error, trace))))


def install() -> None:
    """Scrub every log record of this process from now on, and every traceback nobody caught. Twice is once."""
    made = logging.getLogRecordFactory()
    if not getattr(made, "redacts", False):

        def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = made(*args, **kwargs)
            _scrub_record(record)
            return record

        redacted.redacts = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(redacted)
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if not any(isinstance(found, Redacting) for found in handler.filters):
            handler.addFilter(Redacting())
    sys.excepthook = excepthook
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable


def _in_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_type is not SystemExit and given.exc_value is not None:
        sys.stderr.write(f"Exception in thread {given.thread.name if given.thread else '?'}:\n")
        excepthook(given.exc_type, given.exc_value, given.exc_traceback)


def _unraisable(given: Any) -> None:
    sys.stderr.write(f"{given.err_msg or 'Exception ignored'}: {scrub(_shown(given.object))}\n")
    if given.exc_value is not None:
        excepthook(given.exc_type, given.exc_value, given.exc_traceback)
