"""schemathesis over the description: no 500, no status that is not written down, answers as described, nothing accepted without a login.

A few examples of each route in CI, many at night.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.checks import load_all_checks  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dblens.api import openapi  # noqa: E402
from dblens.api.app import create_app  # noqa: E402
from dblens.workspace.house import House  # noqa: E402
from tests.api.conftest import FAST, World, team_settings  # noqa: E402

load_all_checks()
EXAMPLES = int(os.environ.get("DBLENS_FUZZ", "4"))
_WANTED = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service of its own: what is tried changes it."""
    house = House.open(team_settings(tmp_path_factory.mktemp("fuzz")))
    world = World(house)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", create_app(house, rates=FAST))
    schema.world = world
    yield schema
    house.close()


# An endless stream is no answer to wait for; it is tested by itself.
STREAMS = {"/api/v1/runs/{run}/events"}
OPERATIONS = [
    pytest.param(path, method, id=f"{method} {path}")
    for path, methods in openapi.document()["paths"].items()
    for method in methods
    if path not in STREAMS
]


def tried(case: Any, world: World, role: str, mode: GenerationMode) -> None:
    case.headers.pop("X-DBLens-Organization", None)  # random ones are 404, which hides all else
    case.headers.pop("X-DBLens-As", None)
    headers = {} if case.operation.path.startswith("/api/v1/auth") else world.headers("acme", role)
    answer = case.call(headers=headers)
    told = f"{case.as_curl_command()}\n{answer.status_code} {answer.text[:2000]}"
    assert answer.status_code not in (500, 503), told
    assert "Traceback" not in answer.text, told
    checks = [*_WANTED, negative_data_rejection] if mode is GenerationMode.NEGATIVE else _WANTED
    case.validate_response(answer, checks=checks)


def fuzz(path: str, method: str, schema: Any, role: str, mode: GenerationMode, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method.upper()].as_strategy(generation_mode=mode))
    def work(case: Any) -> None:
        tried(case, schema.world, role, mode)

    with contextlib.suppress(Unsatisfiable):  # some have nothing that could be wrong
        work()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_an_admin_may_send(path: str, method: str, mode: GenerationMode, fuzzed: Any) -> None:
    fuzz(path, method, fuzzed, "admin", mode, EXAMPLES)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("role", ["super_admin", "developer", "viewer"])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_others_may_send(path: str, method: str, role: str, mode: GenerationMode, fuzzed: Any) -> None:
    fuzz(path, method, fuzzed, role, mode, 100)
