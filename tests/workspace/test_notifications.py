"""One's own notifications: nobody else's are seen or marked; of what to be told is one's own choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dblens.errors import InvalidInput, NotFound
from dblens.store import notifications
from dblens.store.database import Store
from dblens.workspace.permissions import SYSTEM_ROLES
from tests.store.conftest import store
from tests.workspace.rooms import NOW, Rooms, move_in

__all__ = ["store"]


@pytest.fixture
def rooms(store: Store, tmp_path: Path) -> Iterator[Rooms]:
    made = move_in(store, tmp_path)
    yield made
    made.house.close()


def told(rooms: Rooms, org: str, role: str, *texts: str) -> list[str]:
    who = rooms.person(org, role)
    with rooms.house.store.write() as tx:
        return [
            notifications.add_notification(tx, rooms.orgs[org], who.user_id, kind="run.ended", text=text, now=NOW).id
            for text in texts
        ]


def test_one_sees_ones_own_newest_first(rooms: Rooms) -> None:
    told(rooms, "acme", "viewer", "first", "second", "third")
    told(rooms, "acme", "admin", "of another")
    mine = rooms.doors("acme", "viewer").notifications
    page = mine.list(limit=2)
    assert [item.text for item in page.items] == ["third", "second"]
    assert [item.text for item in mine.list(limit=2, after=page.after).items] == ["first"]
    assert mine.count().unread == 3


def test_marking_some_and_all(rooms: Rooms) -> None:
    first, second, third = told(rooms, "acme", "viewer", "first", "second", "third")
    mine = rooms.doors("acme", "viewer").notifications
    assert mine.mark([first, third]).unread == 1
    assert [item.id for item in mine.list(unread=True).items] == [second]
    assert len(mine.list().items) == 3
    assert mine.mark().unread == 0
    assert mine.mark([]).unread == 0


def test_those_of_others_are_not_there(rooms: Rooms) -> None:
    (theirs,) = told(rooms, "acme", "admin", "theirs")
    (own,) = told(rooms, "acme", "viewer", "own")
    mine = rooms.doors("acme", "viewer").notifications
    with pytest.raises(NotFound):
        mine.mark([own, theirs])
    assert mine.count().unread == 1, "half of it was marked"
    assert rooms.doors("acme", "admin").notifications.count().unread == 1


@pytest.mark.parametrize("role", SYSTEM_ROLES)
def test_every_role_has_them(rooms: Rooms, role: str) -> None:
    mine = rooms.doors("acme", role).notifications
    assert mine.list().items == ()
    assert mine.preferences().ends == "all"


def test_preferences_are_of_one_organization_and_fall_back_to_its_own(rooms: Rooms) -> None:
    admin = rooms.doors("acme", "admin")
    admin.settings.update("notifications", {"ends": "failed", "mail": True})
    mine = rooms.doors("acme", "viewer").notifications
    assert (mine.preferences().ends, mine.preferences().mail) == ("failed", True)
    chosen = mine.prefer(ends="none")
    assert (chosen.ends, chosen.mail, chosen.others) == ("none", True, False)
    admin.settings.update("notifications", {"mail": False})
    assert mine.preferences() == chosen
    assert admin.notifications.preferences().ends == "failed"
    assert mine.prefer(reset=True).ends == "failed"
    with pytest.raises(InvalidInput, match="ends"):
        mine.prefer(ends="often")  # type: ignore[arg-type]


def test_too_many_ids_are_refused(rooms: Rooms) -> None:
    mine = rooms.doors("acme", "viewer").notifications
    with pytest.raises(InvalidInput, match="ids"):
        mine.mark(["x"] * 201)
    with pytest.raises(InvalidInput, match="ids"):
        mine.mark("abc")
