"""Every defence is taken out of a copy of the tree, and the test that guards it fails. Slow: one run of pytest for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.removed import REMOVALS, Removal, copy, fails, passes


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("tree"))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_with_every_defence_in_its_place_all_of_them_pass(tree: Path) -> None:
    passed, said = passes(tree, *sorted({removal.test for removal in REMOVALS}))
    assert passed, said


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("removal", REMOVALS, ids=lambda r: f"{r.attack}-{Path(r.file).stem}")
def test_without_its_defence_the_test_fails(tree: Path, removal: Removal) -> None:
    assert fails(tree, removal)[0], f"{removal.test} passes without {removal.defence!r}"
