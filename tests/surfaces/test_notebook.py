"""The migration notebook: executed by papermill it is the evidence; whatever is altered afterwards is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dblens.cli.migrate import DONE_WITH_EXCLUSIONS
from dblens.migrate import notebook as notebooks
from tests.faults.steady import fill, judged_equal, live_tables, run_sql
from tests.servers import PASSWORD
from tests.servers.fixtures import require
from tests.surfaces.test_bad_input import bare, refused, run

New = Callable[..., str]
BOTH = ("--source-password-env", "TEST_PASSWORD", "--target-password-env", "TEST_PASSWORD")


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path, dict[str, Any]]:
    """Source, target, the executed notebook and its manifest, of one migration with a loss and an exclusion."""
    left, right = require("pg15"), require("mariadb")
    source, target = left.create_database(), right.create_database()
    fill(source, 1000)
    run_sql(
        source,
        "create view cheap as select id from item where price < 1",
        "create table odd (id int primary key, v double precision)",
        "insert into odd values (1, 'NaN'), (2, 1.5)",
    )
    proof = tmp_path_factory.mktemp("proof") / "proof.ipynb"
    done = run("migrate", "notebook", bare(source), bare(target), "-o", str(proof), "--accept", "all", *BOTH, "--json")
    assert done.returncode == DONE_WITH_EXCLUSIONS, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return source, target, proof, json.loads(done.stdout)


Moved = tuple[str, str, Path, dict[str, Any]]


def test_the_manifest_says_what_happened(moved: Moved) -> None:
    source, target, _, manifest = moved
    assert manifest["equal"] is True
    assert manifest["state"] == "swapped"
    tables = {t["table"].rpartition(".")[2]: t for t in manifest["tables"]}
    assert {name: t["rows"] for name, t in tables.items()} == {"item": 1000, "event": 1000, "odd": 2}
    assert all(t["source_digest"] == t["target_digest"] for t in tables.values())
    assert manifest["losses"] == ["public.odd.v:nonfinite: 1 (null)"]
    assert any("view public.cheap" in e for e in manifest["exclusions"])
    assert len(manifest["plan_hash"]) == len(manifest["source_schema"]) == len(manifest["hash"]) == 64
    assert live_tables(target) == {"item", "event", "odd"}
    assert run_sql(target, "select id, v from odd order by id") == [(1, None), (2, 1.5)]
    assert run_sql(source, "select count(*) from item") == run_sql(target, "select count(*) from item")


def test_the_notebook_shows_it(moved: Moved) -> None:
    notebook = json.loads(moved[2].read_text("utf-8"))
    shown = json.dumps([c.get("outputs", []) for c in notebook["cells"]], ensure_ascii=False)
    for words in ("nonfinite", "cheap", "public.item", "equal", moved[3]["hash"]):
        assert words in shown, words
    assert all(c.get("execution_count") for c in notebook["cells"] if c["cell_type"] == "code")
    parameters = "".join(notebook["cells"][2]["source"]) + shown
    assert bare(moved[0]) in "".join("".join(c["source"]) for c in notebook["cells"]) + parameters


def test_no_password_in_the_evidence(moved: Moved) -> None:
    assert PASSWORD not in moved[2].read_text("utf-8")
    assert not [p for p in moved[2].parent.iterdir() if p != moved[2]]


def check(path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = run("migrate", "notebook", "--check", str(path), "--json", *more)
    return done.returncode, json.loads(done.stdout)


def test_intact(moved: Moved) -> None:
    code, found = check(moved[2])
    assert (code, found["intact"], found["altered"]) == (0, True, [])
    assert found["manifest"] == moved[3]


def _outputs(document: dict[str, Any], i: int) -> None:
    document["cells"][i]["outputs"][0] = {"output_type": "stream", "name": "stdout", "text": "all is well\n"}


def _shown_rows(document: dict[str, Any], _i: int) -> None:
    for cell in document["cells"]:
        for output in cell.get("outputs", []):
            if notebooks.MIME in output.get("data", {}):
                output["data"][notebooks.MIME]["tables"][0]["rows"] += 1


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("cell {}: its source", lambda d, i: d["cells"][i].update(source="# nothing to see")),
        ("cell {}: its outputs", _outputs),
        ("the manifest's own fields", lambda d, _: d["metadata"]["dblens"]["manifest"].update(losses=[])),
        ("the manifest shown in the last cell", _shown_rows),
        ("the number of cells", lambda d, i: d["cells"].pop(i)),
    ],
)
def test_what_was_altered_is_named(moved: Moved, tmp_path: Path, what: str, change: Callable[..., object]) -> None:
    document = json.loads(moved[2].read_text("utf-8"))
    i = next(n for n, c in enumerate(document["cells"]) if c["cell_type"] == "code" and c["outputs"])
    change(document, i)
    other = tmp_path / "altered.ipynb"
    other.write_text(json.dumps(document), "utf-8")
    code, found = check(other)
    assert code == 7
    assert found["intact"] is False
    assert any(a.startswith(what.format(i + 1)) for a in found["altered"]), found["altered"]
    text = run("migrate", "notebook", "--check", str(other))
    assert text.returncode == 7
    assert what.format(i + 1) in text.stdout


def test_what_is_no_evidence(tmp_path: Path) -> None:
    refused(run("migrate", "notebook", "--check", str(tmp_path / "none.ipynb")), 9, "none.ipynb")
    (tmp_path / "x.ipynb").write_text("{}")
    refused(run("migrate", "notebook", "--check", str(tmp_path / "x.ipynb")), 9)
    refused(run("migrate", "notebook"), 2)
    refused(run("migrate", "notebook", "--check", str(notebooks.template())), 9, "seal")


def test_a_notebook_that_stops_keeps_its_reason_and_its_exit_code(new_database: New, tmp_path: Path) -> None:
    source, target = new_database(require("pg15")), new_database(require("mariadb"))
    run_sql(
        source,
        "create table odd (id int primary key, v double precision)",
        "insert into odd values (1, 'NaN'), (2, 1.5)",
    )
    proof = tmp_path / "proof.ipynb"
    refused(run("migrate", "notebook", bare(source), bare(target), "-o", str(proof), *BOTH), 7, str(proof))
    text = proof.read_text("utf-8")
    assert "LossNotAccepted" in text
    assert PASSWORD not in text
    assert live_tables(target) == set()
    refused(run("migrate", "notebook", "--check", str(proof)), 9)
    refused(run("migrate", "notebook", bare(source), bare(target), "-o", str(tmp_path / "no" / "x.ipynb"), *BOTH), 2)


def test_judged_by_the_plain_drivers_too(new_database: New, tmp_path: Path) -> None:
    source, target = new_database(require("sqlite")), new_database(require("pg15"))
    fill(source, 1000)
    proof = tmp_path / "proof.ipynb"
    done = run("migrate", "notebook", source, bare(target), "-o", str(proof), *BOTH[2:])
    assert done.returncode == 0, done.stderr
    assert "every row equal" in done.stdout
    judged_equal(source, target)
