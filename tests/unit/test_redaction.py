"""A secret is shown by nothing but `reveal`, and no log, traceback or driver's message shows it by another way."""

from __future__ import annotations

import base64
import contextlib
import copy
import gc
import io
import json
import logging
import pickle
import re
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dblens import redaction
from dblens.redaction import LONGEST, Redacting, Secret, excepthook, scrub, scrub_value

CANARY = "Kanari-7f3a/ö'+\"% \\x"


def test_nothing_shows_it() -> None:
    secret = Secret(CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{secret:>20}", "%s %r" % (secret, secret)]  # noqa: UP031
    shown += ["{}".format(secret), repr([secret]), repr({"a": secret}), json.dumps({"a": secret}, default=str)]  # noqa: UP032
    shown += [str(vars(secret)) if hasattr(secret, "__dict__") else "", str(dir(secret))]
    assert not [text for text in shown if "Kanari" in text]
    for carried in (pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            carried(secret)  # type: ignore[operator]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps([secret], protocol)
    assert secret.reveal() == CANARY
    assert copy.copy(secret) is copy.deepcopy(secret) is secret


def test_equality() -> None:
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret(CANARY + "x")
    assert Secret("ä") != Secret("a")
    assert Secret(CANARY) != CANARY
    assert len({Secret(CANARY), Secret(CANARY), Secret("x")}) == 2
    for other in (None, b"x", 5):
        with pytest.raises(TypeError):
            Secret(other)  # type: ignore[arg-type]


def test_locals_in_a_traceback() -> None:
    def fails(password: Secret) -> None:
        holder = {"password": password, "list": [password]}
        raise ValueError(f"cannot log in with {password} {holder}")

    try:
        fails(Secret(CANARY))
    except ValueError as error:
        found = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    frames = found[found.index("in fails") :]
    assert "***" in frames
    assert "Kanari" not in frames


def _decoded(word: str) -> bytes:
    """What somebody finds who tries base64 on every part of a word, from every place."""
    found = b""
    for part in word.replace("-", "+").replace("_", "/").replace("=", "").split("***"):
        for start in range(4):
            piece = part[start:][: len(part[start:]) // 4 * 4]
            with contextlib.suppress(ValueError):
                found += base64.b64decode(piece)
    return found


@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        repr(CANARY),
        json.dumps(CANARY),
        json.dumps(CANARY, ensure_ascii=False),
        urllib.parse.quote(CANARY),
        urllib.parse.quote(CANARY, safe=""),
        re.sub("%..", lambda octet: octet[0].lower(), urllib.parse.quote(CANARY, safe="")),
        urllib.parse.quote_plus(CANARY),
        urllib.parse.urlencode({"p": CANARY}),
        repr(CANARY.encode()),
        "'" + CANARY.replace("'", "''") + "'",
        "password='" + CANARY.replace("\\", "\\\\").replace("'", "\\'") + "'",
        CANARY.encode().hex(),
        CANARY.encode().hex().upper(),
        *(base64.b64encode(f"{'u' * n}:{CANARY}".encode()).decode() for n in range(4)),
        *(base64.urlsafe_b64encode(f"{'u' * n}:{CANARY}:x".encode()).decode() for n in range(4)),
    ],
)
def test_every_way_to_write_it(form: str) -> None:
    alive = Secret(CANARY)
    found = scrub(f"before {form} after")
    assert found.startswith("before ")
    assert found.endswith(" after")
    assert "***" in found
    assert CANARY not in urllib.parse.unquote_plus(found)
    for word in found.split():
        assert b"nari" not in _decoded(word)
    assert alive.reveal() == CANARY


@given(
    st.text(min_size=6, max_size=30).filter(lambda text: "*" not in text), st.text(max_size=20), st.text(max_size=20)
)
@example("aaaaaa", "aa", "aa")
@examples(max_examples=200, deadline=None)
def test_any_secret_in_any_text(text: str, before: str, after: str) -> None:
    alive = Secret(text)
    found = scrub(before + text + after)
    assert text not in found
    assert alive.reveal() == text


def test_only_those_alive_are_searched_for() -> None:
    assert "ganz-geheim" in scrub("ganz-geheim")
    alive = Secret("ganz-geheim")
    twin = Secret("ganz-geheim")
    assert scrub("ganz-geheim") == "***"
    del alive
    gc.collect()
    assert scrub("ganz-geheim") == "***"  # an equal one still lives
    del twin
    gc.collect()
    assert scrub("ganz-geheim") == "ganz-geheim"
    alive, twin = Secret("ganz-geheim"), Secret("ganz-geheim")
    del twin
    gc.collect()
    assert scrub("ganz-geheim") == "***"  # whichever of them went first
    assert alive


def test_short_ones_leave_words_alone() -> None:
    alive = [Secret("e"), Secret(""), Secret("sho")]
    assert scrub("the shop") == "the shop"
    assert len(alive) == 3


def test_a_line_of_a_key() -> None:
    lines = [
        "-----BEGIN PRIVATE KEY-----",
        "MIIEvgIBADANBgkqhkiG9w0BAQ",
        "QYJKoZIhvcNAQEFAASCBKgwggSk",
        "-----END PRIVATE KEY-----",
    ]
    alive = Secret("\n".join(lines))
    assert scrub(f"bad line: {lines[2]!r}") == "bad line: '***'"
    assert alive


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:geheim@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:ge@he:im@host/db", "postgresql+psycopg://me:***@host/db"),
        ("redis://:geheim@host", "redis://:***@host"),
        ("a mongodb://me:geheim@a,b and mysql://you:geheim@c", "a mongodb://me:***@a,b and mysql://you:***@c"),
        ("host=a password=geheim user=b", "host=a password=*** user=b"),
        (r"host=a password = 'ge\'he im' user=b", "host=a password = *** user=b"),
        ('connect("host", sslpassword="geheim")', 'connect("host", sslpassword=***)'),
        ("?user=me&password=geheim&x=1", "?user=me&password=***&x=1"),
        ("{'password': 'geheim', 'port': 1}", "{'password': \"***\", 'port': 1}"),
        ('{"client_secret": "geheim"}', '{"client_secret": "***"}'),
        ("Authorization: Bearer abcdef.ghijkl-mno_p", "Authorization: Bearer ***"),
        ("PGPASSWORD=geheim pg_dump", "PGPASSWORD=*** pg_dump"),
        ("password authentication failed for user 'me'", "password authentication failed for user 'me'"),
        ("http://127.0.0.1:8503/runs?limit=5", "http://127.0.0.1:8503/runs?limit=5"),
        ("unknown token: 'x'", "unknown token: 'x'"),
    ],
)
def test_drivers_messages(text: str, clean: str) -> None:
    assert scrub(text) == clean


def test_the_cost_is_bounded() -> None:
    alive = [Secret(f"secret number {n} of many") for n in range(300)]
    scrub("x")
    for hostile in (
        "a://" * 60_000,
        "password=" * 30_000,
        "x" * 1_000_000,
        "'" * 300_000,
        "password='" + "\\" * 200_000,
        "bearer " * 50_000,
    ):
        before = time.perf_counter()
        found = scrub(hostile)
        assert time.perf_counter() - before < 5
        assert len(found) <= LONGEST + 50
    tail = "y" * (LONGEST - 10) + alive[0].reveal() + "z" * 100
    assert "secret nu" not in scrub(tail)  # not even the part of it before the cut


def test_values() -> None:
    alive = Secret(CANARY)

    class Shows:
        def __str__(self) -> str:
            return f"Shows({CANARY})"

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(CANARY)

    broken = Broken()
    given_ = {"a": CANARY, "b": [1, None, (CANARY, 2.5)], CANARY: {"c": Shows()}, "d": alive, "e": broken}
    found = scrub_value(given_)
    assert found == {"a": "***", "b": [1, None, ("***", 2.5)], "***": {"c": "Shows(***)"}, "d": alive, "e": broken}
    loop: list[object] = []
    loop.append(loop)
    assert scrub_value(loop)


# -------------------------------------------------------------------------------------------------------------------------- logs


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(extra)s", defaults={"extra": ""}))
    handler.addFilter(Redacting())
    logger = logging.getLogger("dblens.test.redaction")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, out
    logger.removeHandler(handler)


def test_records(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    alive = Secret(CANARY)
    logger.error(CANARY)
    logger.error("password is %s", CANARY)
    logger.error("%(who)s", {"who": CANARY})
    logger.error("%s%s", CANARY[:10], CANARY[10:])  # spread over two arguments
    logger.error("ok", extra={"extra": {"url": [CANARY]}})
    logger.error(ValueError(CANARY))
    logger.error("at %d of %s", 5, alive)
    try:
        try:
            raise ValueError(f"inner {CANARY}")
        except ValueError as error:
            raise RuntimeError(f"postgresql://me:{urllib.parse.quote(CANARY, safe='')}@host/db") from error
    except RuntimeError:
        logger.exception("it failed with %s", CANARY, stack_info=True)
    text = out.getvalue()
    assert "Kanari" not in text
    assert "at 5 of ***" in text
    assert "Traceback" in text
    assert "RuntimeError" in text
    assert "inner ***" in text
    assert text.count("***") >= 8


def test_a_wrong_format_does_not_show_it(
    log: tuple[logging.Logger, io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    logger, _ = log
    alive = Secret(CANARY)
    logger.handlers[0].handle(logging.LogRecord("x", 40, "f", 1, "%d", (CANARY,), None))
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith(("Message", "Arguments"))]
    assert lines == ["Message: '%d'", "Arguments: ('***',)"]
    assert alive


def test_arguments_keep_their_number(log: tuple[logging.Logger, io.StringIO]) -> None:
    """Uvicorn's formatter unpacks five of them."""
    alive = Secret(CANARY)
    record = logging.LogRecord(
        "x", 20, "f", 1, '%s - "%s %s HTTP/%s" %d', ("a", "GET", f"/?p={CANARY}", "1.1", 200), None
    )
    assert Redacting().filter(record)
    assert record.args == ("a", "GET", "/?p=***", "1.1", 200)
    clean = logging.LogRecord("x", 20, "f", 1, "%s", ("nothing",), None)
    Redacting().filter(clean)
    assert (clean.msg, clean.args) == ("%s", ("nothing",))
    assert alive


INSTALLED = """
import logging, sys, threading
from dblens.redaction import Secret, install

logging.basicConfig(level=0)
install(); install()
alive = Secret("ganz-geheim")
logging.getLogger("x").error("with %s", "ganz-geheim", extra={"more": "ganz-geheim"})
late = logging.StreamHandler(sys.stderr)  # a handler that install never saw
logging.getLogger("y").addHandler(late)
try:
    raise ValueError("ganz-geheim")
except ValueError:
    logging.getLogger("y").exception("late ganz-geheim")
def fails():
    raise RuntimeError("in a thread: ganz-geheim")
thread = threading.Thread(target=fails); thread.start(); thread.join()
class Dies:
    def __del__(self):
        raise RuntimeError("unraisable: ganz-geheim")
Dies()
raise SystemError("at last: ganz-geheim")
"""


def test_installed() -> None:
    done = subprocess.run([sys.executable, "-c", INSTALLED], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ganz-geheim" not in done.stdout + done.stderr
    for told in ("with ***", "late ***", "in a thread: ***", "unraisable: ***", "SystemError: at last: ***"):
        assert told in done.stderr


def test_the_hook(capsys: pytest.CaptureFixture[str]) -> None:
    alive = Secret(CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        excepthook(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "Kanari" not in shown.replace('Kanari" not in', "")
    assert "ValueError: ***" in shown
    assert alive


def test_threads_that_make_and_drop_secrets() -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(300):
                text = f"secret-{number}-{turn}-x"
                alive = Secret(text)
                if turn % 10 == 0 and scrub(f"a {text}") != "a ***":
                    raise AssertionError(text)
                del alive
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    gc.collect()
    assert not [s for s in list(redaction._live.values()) if s.reveal().startswith("secret-")]
