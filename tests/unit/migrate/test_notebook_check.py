"""The evidence check names exactly what was altered, and nothing when nothing was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.errors import ArchiveCorrupt, ArchiveMissing
from dblens.migrate import notebook as notebooks
from dblens.migrate.evidence import Manifest, TableProof, manifest_hash

Notebook = dict[str, Any]


def manifest() -> Manifest:
    bare = Manifest(
        migration="r1",
        plan_hash="p",
        source="a",
        target="b",
        source_schema="s",
        target_schema="t",
        codec=1,
        dblens="0",
        python="3.11",
        snapshot="x",
        tables=(TableProof(table="t", rows=2, columns=3, source_digest="2:ab", target_digest="2:ab", equal=True),),
        losses=("t.c:too_long: 1 (truncate)",),
        exclusions=("view v: views are listed, not migrated",),
        equal=True,
        state="swapped",
    )
    return msgspec.structs.replace(bare, hash=manifest_hash(bare))


def executed() -> Notebook:
    """A notebook as papermill leaves it."""
    shown = {"output_type": "display_data", "metadata": {}, "data": {notebooks.MIME: msgspec.to_builtins(manifest())}}
    return {
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title\n", "text"]},
            {
                "cell_type": "code",
                "id": "b",
                "metadata": {},
                "execution_count": 1,
                "source": ["x = 1\n", "x"],
                "outputs": [
                    {
                        "output_type": "execute_result",
                        "execution_count": 1,
                        "metadata": {},
                        "data": {"text/plain": ["1\n", "2"]},
                    },
                    {"output_type": "stream", "name": "stdout", "text": ["done\n", "ä🧊\n"]},
                ],
            },
            {"cell_type": "code", "id": "c", "metadata": {}, "execution_count": 2, "source": "m", "outputs": [shown]},
        ],
        "metadata": {"kernelspec": {"name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "proof.ipynb"
    path.write_text(json.dumps(executed()), "utf-8")
    assert notebooks.seal(path) == manifest()
    return path


def altered(path: Path, change: Callable[[Notebook], object]) -> list[str]:
    document = json.loads(path.read_text("utf-8"))
    change(document)
    other = path.with_name("altered.ipynb")
    other.write_text(json.dumps(document), "utf-8")
    return notebooks.check(other)[1]


def test_intact(sealed: Path) -> None:
    assert notebooks.check(sealed) == (manifest(), [])
    assert not list(sealed.parent.glob("*.partial"))


def test_saving_it_again_is_no_alteration(sealed: Path) -> None:
    """Editors split lines otherwise, renumber executions, and add metadata of their own."""

    def resave(document: Notebook) -> None:
        for cell in document["cells"]:
            cell["source"] = "".join(cell["source"])
            cell["metadata"]["collapsed"] = False
            if "execution_count" in cell:
                cell["execution_count"] = None
            for output in cell.get("outputs", []):
                if "text" in output:
                    output["text"] = "".join(output["text"])
                if "execution_count" in output:
                    output["execution_count"] = 99
        document["metadata"]["language_info"] = {"name": "python"}

    assert altered(sealed, resave) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d["cells"][1].update(source="x = 2\nx"), ["cell 2: its source"]),
        (lambda d: d["cells"][0].update(source="# Another"), ["cell 1: its source"]),
        (lambda d: d["cells"][1]["outputs"][1].update(text="done\nother\n"), ["cell 2: its outputs"]),
        (lambda d: d["cells"][1]["outputs"][0]["data"].update({"text/plain": "3"}), ["cell 2: its outputs"]),
        (lambda d: d["cells"][1]["outputs"].pop(), ["cell 2: its outputs"]),
        (lambda d: d["cells"][1].update(source="", outputs=[]), ["cell 2: its source", "cell 2: its outputs"]),
    ],
)
def test_a_cell_is_named(sealed: Path, change: Callable[[Notebook], object], named: list[str]) -> None:
    assert altered(sealed, change) == named


def test_a_cell_more_or_less(sealed: Path) -> None:
    assert any("number of cells (3 sealed, 2 now)" in w for w in altered(sealed, lambda d: d["cells"].pop(0)))
    found = altered(sealed, lambda d: d["cells"].append({"cell_type": "markdown", "metadata": {}, "source": "x"}))
    assert found == ["the number of cells (3 sealed, 4 now)"]


def test_the_shown_manifest(sealed: Path) -> None:
    def raise_rows(document: Notebook) -> None:
        document["cells"][2]["outputs"][0]["data"][notebooks.MIME]["tables"][0]["rows"] = 3

    assert altered(sealed, raise_rows) == ["the manifest shown in the last cell", "cell 3: its outputs"]
    found = altered(sealed, lambda d: d["cells"][2].update(outputs=[]))
    assert found == ["the manifest shown in the last cell (it is gone)", "cell 3: its outputs"]


def test_the_kept_manifest(sealed: Path) -> None:
    def lie(document: Notebook) -> None:
        document["metadata"]["dblens"]["manifest"]["equal"] = False

    found = altered(sealed, lie)
    assert "the seal in the notebook's metadata" in found
    assert "the manifest's own fields" in found

    def resealed_lie(document: Notebook) -> None:
        kept = document["metadata"]["dblens"]
        kept["manifest"]["losses"] = []
        kept["hash"] = notebooks._digest({k: v for k, v in kept.items() if k != "hash"})

    assert altered(sealed, resealed_lie) == ["the manifest's own fields", "the manifest shown in the last cell"]
    assert altered(sealed, lambda d: d["metadata"]["dblens"]["manifest"].pop("tables"))[0].startswith("the seal")


def test_a_verdict_that_its_digests_do_not_carry(sealed: Path) -> None:
    def lie(document: Notebook) -> None:
        kept = document["metadata"]["dblens"]
        kept["manifest"]["tables"][0]["target_digest"] = "2:ac"
        honest = msgspec.convert(kept["manifest"], Manifest)
        kept["manifest"]["hash"] = manifest_hash(honest)
        document["cells"][2]["outputs"][0]["data"][notebooks.MIME] = copy.deepcopy(kept["manifest"])
        kept["cells"] = notebooks._cell_hashes(document)
        kept["hash"] = notebooks._digest({k: v for k, v in kept.items() if k != "hash"})

    assert altered(sealed, lie) == ["the verdict of t: digests differ although it says equal"]


def test_every_hash_in_the_seal_is_itself_sealed(sealed: Path) -> None:
    def swap_hash(document: Notebook) -> None:
        document["metadata"]["dblens"]["cells"][1]["outputs"] = "0" * 64

    assert altered(sealed, swap_hash) == ["the seal in the notebook's metadata", "cell 2: its outputs"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, ArchiveMissing),
        ("", ArchiveCorrupt),
        ("[]", ArchiveCorrupt),
        ("{}", ArchiveCorrupt),
        ('{"cells": 5}', ArchiveCorrupt),
        ('{"cells": []}', ArchiveCorrupt),
        ('{"cells": [], "metadata": {"dblens": []}}', ArchiveCorrupt),
        (b"\xff\xfe", ArchiveCorrupt),
    ],
)
def test_what_is_no_evidence(tmp_path: Path, text: str | bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "x.ipynb"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error) as refused:
        notebooks.check(path)
    assert refused.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "kept",
    [
        {"cells": 5, "hash": "x"},
        {"cells": [5, None, "x"], "hash": "x"},
        {"cells": [{}, {}, {}]},
        {"cells": {"a": 1}},
        {"manifest": 3},
        {"manifest": {"tables": "x"}, "cells": [{"source": 1}]},
    ],
)
def test_a_seal_of_nonsense_is_named_not_a_crash(sealed: Path, kept: dict[str, Any]) -> None:
    assert "the seal in the notebook's metadata" in altered(sealed, lambda d: d["metadata"].update(dblens=kept))


def test_an_unfinished_notebook_cannot_be_sealed(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    document = executed()
    document["cells"].pop()
    path.write_text(json.dumps(document))
    with pytest.raises(ArchiveCorrupt, match="no migration manifest"):
        notebooks.seal(path)
    assert json.loads(path.read_text()) == document


def test_the_template_ships_and_has_no_outputs() -> None:
    template = json.loads(notebooks.template().read_text("utf-8"))
    assert any("parameters" in c["metadata"].get("tags", []) for c in template["cells"])
    assert not any(c.get("outputs") for c in template["cells"])
    with pytest.raises(ArchiveMissing):
        notebooks.template("migrations/none.ipynb")
