"""Long work and streams through a service that really serves: progress, outcome, interrupt, restart, and what is cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.client import connect
from dblens.client.doors import remote
from dblens.client.workspace import Wire
from dblens.errors import Cancelled, Conflict, DBLensError
from dblens.events import Event, Progress, Report, StepStarted, silent
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store.runs import Run
from dblens.workspace import entrance
from dblens.workspace.house import House
from tests.api.doors import TABLE, Things, Workspace
from tests.client.worlds import CALLER, NAME, PASSWORD, Served, settle


class Place:
    """A service over the doors of the API's tests, and who is logged in there."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder = house, folder
        self.served = self.serve()
        self.token = Secret(entrance.log_in(house, NAME, PASSWORD, CALLER).tokens.access)

    def serve(self, port: int = 0) -> Served:
        def doors(who: Any) -> Workspace:
            own = self.house.workspace(who, background=True)
            return Workspace(self.house.context(who, background=True), own)

        return Served(self.house, port=port, table=TABLE, workspace=doors)

    def here(self, report: Report = silent) -> Things:
        return Things(self.house.context(entrance.authenticate(self.house, self.token, CALLER), report=report))

    def workspace(self, **more: Any) -> Any:
        settings = Settings(store_url="sqlite:////x", data_folder=self.folder, url=self.served.url, token=self.token)
        return connect(settings, **more)

    def there(self, **more: Any) -> Any:
        wire: Wire = self.workspace(**more)._wire
        return remote(Things)(wire)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    house, _ = settle(folder)
    made = Place(house, folder)
    yield made
    made.served.close()
    house.close()


def test_the_same_is_heard_and_had(place: Place) -> None:
    near: list[Event] = []
    far: list[Event] = []
    assert place.here(near.append).backup(steps=3, seconds=0.0) == {"steps": 3}
    assert place.there(report=far.append).backup(steps=3, seconds=0.0) == {"steps": 3}

    def started(heard: list[Event]) -> list[Event]:
        return [event for event in heard if isinstance(event, StepStarted)]

    assert started(far) == started(near) == [StepStarted(f"step {n}") for n in range(3)]
    assert [event for event in far if isinstance(event, Progress)][-1] == Progress("rows", 2, 3)


def test_it_is_heard_while_it_goes_on(place: Place) -> None:
    times: list[float] = []
    place.there().backup(steps=4, seconds=0.7, report=lambda _event: times.append(time.monotonic()))
    assert times[-1] - times[0] > 1


def test_its_error_is_the_error_of_the_call(place: Place) -> None:
    for each in (place.here(), place.there()):
        with pytest.raises(Conflict) as caught:
            each.backup(fail=True)
        assert (caught.value.message, caught.value.hint) == ("it did not work", "another time")


def test_an_interrupt_stops_it_in_the_service(place: Place) -> None:
    def interrupted(event: Event) -> None:
        if isinstance(event, StepStarted):
            raise KeyboardInterrupt

    with pytest.raises(Cancelled):
        place.there().backup(steps=200, seconds=0.1, report=interrupted)
    newest = place.workspace().runs.list(operation="backup.create", limit=1).items[0]
    assert newest.state == "cancelled"


def test_in_the_background_the_run_is_the_answer(place: Place) -> None:
    run = place.there(background=True).backup(steps=2)
    assert isinstance(run, Run)
    assert run.operation == "backup.create"
    place.house.executor.wait(run.id, 20)
    assert place.workspace().runs.result(run.id) == {"steps": 2}


def test_a_service_that_starts_again_is_found_again(place: Place) -> None:
    """The stream breaks and the port is closed for a while; the work goes on, and its outcome is had."""
    outcome: list[Any] = []
    heard: list[Event] = []
    there = place.there(report=heard.append)

    def work() -> None:
        outcome.append(there.backup(steps=30, seconds=0.1))

    thread = threading.Thread(target=work)
    thread.start()
    while not heard:
        time.sleep(0.02)
    port = int(place.served.url.rpartition(":")[2])
    place.served.close()
    time.sleep(0.5)
    place.served = place.serve(port)
    thread.join(60)
    assert outcome == [{"steps": 30}]
    assert [event for event in heard if isinstance(event, StepStarted)] == [StepStarted(f"step {n}") for n in range(30)]


def poured(call: Callable[..., int], **more: Any) -> tuple[int | DBLensError, bytes]:
    got: list[bytes] = []
    try:
        return call(got.append, **more), b"".join(got)
    except DBLensError as error:
        return error, b"".join(got)


def test_a_stream_is_whole(place: Place) -> None:
    near = poured(place.here().export, blocks=20, size=100_000)
    far = poured(place.there().export, blocks=20, size=100_000)
    assert far == near
    assert far[0] == len(far[1]) == 2_000_000


def test_an_empty_stream_is_whole_too(place: Place) -> None:
    assert poured(place.there().export, blocks=0) == (0, b"")


def test_an_error_within_a_stream_is_no_end(place: Place) -> None:
    error, got = poured(place.there().export, blocks=20, fail_at=10)
    assert isinstance(error, DBLensError)
    assert len(got) <= 1_000_000
    assert "canary" not in str(error)


def test_one_workspace_serves_many_threads(place: Place) -> None:
    there, failed = place.there(), list[BaseException]()

    def work(number: int) -> None:
        try:
            for at in range(10):
                assert there.read(f"{number}-{at}") == f"{number}-{at}"
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("name", ["a/b", "..", ".", "%2e%2e", "ü é?#&", "\U0001f989", "a;b=c", "//", "a\\b"])
def test_a_name_arrives_as_it_is(place: Place, name: str) -> None:
    assert place.there().read(name) == place.here().read(name) == name
