"""Servers for all tests, the word on what was missing, and no process left behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

from tests.servers import fixtures, reaper
from tests.servers.fixtures import mariadb, mongo, mysql, new_database, pg15, pg18, sqlite

__all__ = ["mariadb", "mongo", "mysql", "new_database", "pg15", "pg18", "sqlite"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and every child inherits it: tests that interrupt one would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("same", derandomize=True)
_HOME = tempfile.mkdtemp(prefix="dblens-home-")
os.environ["DBLENS_DATA_FOLDER"] = _HOME  # no test touches the developer's own store
os.environ["XDG_CONFIG_HOME"] = _HOME
for _name in ("DBLENS_STORE_URL", "DBLENS_URL", "DBLENS_MODE", "DBLENS_CONFIG"):
    os.environ.pop(_name, None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and sweep what a session that was killed left behind (once, not in every worker)."""
    config.addinivalue_line("markers", "nightly: slow or destructive; run with -m nightly")
    # A change is judged by the same examples as the one before it; the nightly run, and DBLENS_EXAMPLES=random, look for new ones.
    if os.environ.get("DBLENS_EXAMPLES") != "random" and config.option.markexpr != "nightly":
        hypothesis.settings.load_profile("same")
    if not hasattr(config, "workerinput"):
        reaper.sweep()


def pytest_runtest_setup() -> None:
    """A crash test that failed half-way may have left a shared server dead."""
    fixtures.revive()


def pytest_sessionfinish() -> None:
    """Close the session's servers, and any that a test forgot."""
    fixtures.close()
    for forgotten in reaper.close_all():
        print(f"\na test did not close {forgotten}", file=sys.stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker that crashed could not close its servers."""
    shutil.rmtree(_HOME, ignore_errors=True)
    if not hasattr(config, "workerinput"):
        reaper.sweep()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say last, and in one line, which servers the tests did not see."""
    yield
    reasons: dict[str, str] = {}
    for report in [*terminalreporter.stats.get("skipped", []), *terminalreporter.stats.get("error", [])]:
        told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _, found, text = told.rpartition(fixtures.MISSING)
        if found:
            kind, _, reason = text.partition(": ")
            reasons[kind] = reason.splitlines()[0]
    if reasons:
        what = "; ".join(f"{kind} ({reason})" for kind, reason in sorted(reasons.items()))
        terminalreporter.write_line(f"NOT TESTED, server missing: {what}", yellow=True, bold=True)
