"""`%%dblens` in JupyterLab, in a browser: completion after an alias, a result in light and dark, an interrupt that reaches the server.

DBLENS_PICTURES names a folder for the screenshots.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import nbformat
import psycopg
import pytest

from tests.jupyter.conftest import Person, until
from tests.servers import PASSWORD
from tests.servers.fixtures import missing
from tests.servers.postgres import Postgres

pytest.importorskip("jupyterlab")
api = pytest.importorskip("playwright.sync_api")
TOKEN = "a-token-of-the-tests"
HOSTILE = (
    "select '<img src=x onerror=\"window.pwned=1\">' as a, '\u202eabc' as b, 9007199254740993 as c, null as d, '' as e"
)


@pytest.fixture(scope="module")
def lab(person: Person) -> Iterator[str]:
    """JupyterLab on a port of its own, in the person's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (person.folder / "lab.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
            f"--IdentityProvider.token={TOKEN}", "--ServerApp.terminals_enabled=False", f"--ServerApp.root_dir={person.folder}",
        ],
        env=person.env, cwd=person.folder, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(f"{url}/api?token={TOKEN}") or process.poll() is not None, 60)
        assert process.poll() is None, (person.folder / "lab.log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("chromium", "no Chromium is installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_a_notebook_in_jupyterlab(person: Person, lab: str, browser: Any, pg15: Postgres) -> None:
    person.connect("pg", pg15.url(), PASSWORD)
    cells = [
        "%load_ext dblens.jupyter",
        "%%dblens shop\nselect c.name, o.placed, o.total, o.id from orders o join customers c on c.id = o.customer_id order by o.id desc limit 6",
        f"%%dblens shop\n{HOSTILE}",
        "%%dblens shop\nselect o. from orders o",
        "%%dblens pg\nselect pg_sleep(66)",
    ]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, person.folder / "work.ipynb")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(f"{lab}/lab/tree/work.ipynb?token={TOKEN}&reset")
    page.locator(".jp-Notebook .jp-CodeCell").nth(4).wait_for(timeout=60_000)
    page.locator(".jp-Toolbar-kernelStatus, .jp-NotebookPanel-toolbar").first.wait_for()

    for number in range(3):
        _cell(page, number)
        page.keyboard.press("Shift+Enter")
    shown = page.locator(".jp-OutputArea-output .dblens")
    shown.nth(1).wait_for(timeout=60_000)
    assert "9007199254740993" in shown.nth(0).inner_text(), "no digit is lost"
    assert "onerror" in shown.nth(1).inner_text(), "a cell is text"
    assert page.evaluate("window.pwned") is None
    assert "⟨U+202E⟩" in shown.nth(1).inner_text()
    assert "NULL" in shown.nth(1).inner_text()
    _picture(page, "magic-light")

    _cell(page, 3, "select o.")
    page.keyboard.press("Tab")
    offered = page.locator(".jp-Completer-item .jp-Completer-match")
    offered.first.wait_for(timeout=20_000)
    assert offered.all_inner_texts() == ["id", "customer_id", "placed", "total"]
    _picture(page, "magic-completion")
    page.keyboard.press("Escape")

    with closing(psycopg.connect(pg15.url(), autocommit=True)) as judge:

        def asleep() -> bool:
            row = judge.execute(
                "select count(*) from pg_stat_activity where query like '%pg_sleep(66%' and state = 'active' and pid <> pg_backend_pid()"
            ).fetchone()
            return row is not None and row[0] > 0

        _cell(page, 4)
        page.keyboard.press("Control+Enter")
        until(asleep, 30)
        page.keyboard.press("Escape")
        page.keyboard.press("i")
        page.keyboard.press("i")
        begun = time.monotonic()
        until(lambda: not asleep(), 3)
        print(f"gone {time.monotonic() - begun:.2f} s after the second key")

    page.keyboard.press("Control+s")
    until(lambda: "text/html" in (person.folder / "work.ipynb").read_text(), 20)
    kept = (person.folder / "work.ipynb").read_text()
    assert PASSWORD not in kept
    assert nbformat.reads(kept, as_version=4).cells[1].outputs

    _dark(lab)
    page.reload()
    page.locator(".jp-OutputArea-output .dblens").nth(1).wait_for(timeout=60_000)
    page.locator("body[data-jp-theme-light='false']").wait_for(state="attached", timeout=20_000)
    _picture(page, "magic-dark")
    page.close()


def _cell(page: Any, number: int, after: str | None = None) -> None:
    """Put the cursor into a cell, behind some words of it."""
    line = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".cm-line")
    (line.nth(1) if line.count() > 1 else line.first).click()
    if after is not None:
        page.keyboard.press("Home")
        for _ in after:
            page.keyboard.press("ArrowRight")


def _dark(lab: str) -> None:
    asked = urllib.request.Request(
        f"{lab}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}",
        data=json.dumps({"raw": '{"theme": "JupyterLab Dark"}'}).encode(), method="PUT",
        headers={"Content-Type": "application/json", "Authorization": f"token {TOKEN}"},
    )  # fmt: skip
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.status == 204


def _picture(page: Any, name: str) -> None:
    folder = os.environ.get("DBLENS_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
