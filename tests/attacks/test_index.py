"""The table of attacks is whole: every attack has tests that exist, and at least one defence that was taken out."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.attacks.index import ATTACKS, TESTS
from tests.attacks.removed import REMOVALS, Removal, there

ROOT = Path(__file__).resolve().parents[2]
WANTED = {*range(1, 22), *range(25, 34)}


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef)) | {
        f"{each.name}::{node.name}" for each in classes for node in each.body if isinstance(node, ast.FunctionDef)
    }


def test_every_attack_has_tests_and_a_defence_that_was_taken_out() -> None:
    assert set(ATTACKS) == set(TESTS) == WANTED
    assert {removal.attack for removal in REMOVALS} == WANTED


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_every_test_that_is_named_exists(attack: int) -> None:
    assert TESTS[attack]
    for test in (*TESTS[attack], *(r.test for r in REMOVALS if r.attack == attack)):
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in functions(file), test


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda r: f"{r.attack}-{Path(r.file).stem}")
def test_every_defence_stands_where_it_is_said_to_stand(removal: Removal) -> None:
    assert there(removal), f"{removal.file} holds it not once: {removal.defence}"
    assert removal.without != removal.defence
    changed = (ROOT / removal.file).read_text(encoding="utf-8").replace(removal.defence, removal.without)
    ast.parse(changed)  # what is left still runs, so that the test fails for what is missing and not for a slip
