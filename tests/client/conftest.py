"""A stub, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dblens.client.service import Service
from dblens.client.tokens import Given
from dblens.redaction import Secret
from tests.client.stub import Stub

CANARY = "dbl_pat_cAnArY-0123456789-eh"


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.close()


@pytest.fixture
def service(stub: Stub) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(url: str | None = None, token: str = CANARY, **more: Any) -> Service:
        more.setdefault("sleep", lambda _seconds: None)
        made.append(Service(url or stub.url, Given(Secret(token)), **more))
        return made[-1]

    yield make
    for each in made:
        each.close()
