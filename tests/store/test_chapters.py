"""Settings, plans, templates, notifications, idempotency keys, and what all lists share."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest

from dblens.errors import Conflict, DBLensError, InvalidInput, NotFound
from dblens.store import connections, idempotency, notifications, organizations, plans, runs, settings, teams
from dblens.store.database import Store
from tests.store.world import AT, add_user, after, make_world


def test_lists_come_in_parts_without_a_gap_or_a_double(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        for n in range(12):
            plans.save_plan(
                tx, w.org, f"p{n}", hash="h", document=b"", source_id="s", target_id="t", created_by=None,
                now=after(n // 3),
            )  # fmt: skip
            plans.create_template(tx, w.org, name=f"t{n}", kind="k", body={}, created_by=None, now=AT)
            runs.create_run(tx, w.org, "x", user_id=None, now=AT)
            settings.put_setting(tx, w.org, f"k{n}", n, now=AT)
            notifications.add_notification(tx, w.org, w.user, kind="k", text=str(n), now=AT)
            user = add_user(tx, f"u{n}")
            organizations.add_member(tx, w.org, user, w.viewer, now=AT)
            organizations.create_role(tx, w.org, f"r{n}", [], rank=1, now=AT)
            organizations.create_organization(tx, f"o{n}", now=AT)
            team = teams.create_team(tx, w.org, f"team{n}", now=AT)
            teams.add_to_team(tx, w.org, w.team, user)
            connections.grant(tx, w.org, w.connection, kind="team", grantee_id=team.id, level="view", now=AT)
            connections.grant(tx, w.org, w.connection, kind="user", grantee_id=user, level="view", now=AT)
            connections.create_connection(tx, w.org, name=f"c{n}", engine="mysql", fields={}, owner_id=w.user, now=AT)
        lists: dict[str, Any] = {
            "plans": lambda **more: plans.list_plans(tx, w.org, **more),
            "templates": lambda **more: plans.list_templates(tx, w.org, **more),
            "runs": lambda **more: runs.list_runs(tx, w.org, **more),
            "settings": lambda **more: settings.list_settings(tx, w.org, **more),
            "notifications": lambda **more: notifications.list_notifications(tx, w.org, w.user, **more),
            "members": lambda **more: organizations.list_members(tx, w.org, **more),
            "roles": lambda **more: organizations.list_roles(tx, w.org, **more),
            "organizations": lambda **more: organizations.list_organizations(tx, **more),
            "teams": lambda **more: teams.list_teams(tx, w.org, **more),
            "team members": lambda **more: teams.list_team_members(tx, w.org, w.team, **more),
            "grants": lambda **more: connections.list_grants(tx, w.org, w.connection, **more),
            "connections": lambda **more: connections.list_connections(tx, w.org, **more),
            "shared": lambda **more: connections.list_shared(tx, w.org, w.user, **more),
        }
        for name, part in lists.items():
            whole = part(limit=200)
            assert whole.after is None, name
            assert len(whole.items) >= 12, name
            for limit in (1, 5, len(whole.items)):
                found, at = [], None
                while True:
                    piece = part(limit=limit, after=at)
                    assert len(piece.items) <= limit
                    found += piece.items
                    if (at := piece.after) is None:
                        break
                assert tuple(found) == whole.items, (name, limit)
            for limit in (0, -1, 201, True, 1.0, "5", None):
                with pytest.raises(InvalidInput, match="limit is"):
                    part(limit=limit)
        newest = [p.id for p in plans.list_plans(tx, w.org).items]
        assert newest[:3] == ["p9", "p11", "p10"]
        for bad in ("x", "9" * 30 + ".a", "-5.a", "٣.a"):
            with pytest.raises(InvalidInput, match="after is"):
                plans.list_plans(tx, w.org, after=bad)


def test_settings(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        for value in (None, 0, "", [], {"a": [1.5, None, "é"]}, 2**60):
            settings.put_setting(tx, settings.INSTANCE, "x", value, now=AT)
            assert settings.get_setting(tx, settings.INSTANCE, "x").value == value
        with pytest.raises(NotFound, match="'x' is not set"):
            settings.get_setting(tx, w.org, "x")
        for value in (float("inf"), {1, 2}, b"x"):
            with pytest.raises(InvalidInput, match="value cannot be kept as JSON"):
                settings.put_setting(tx, settings.INSTANCE, "x", value, now=AT)
        settings.delete_setting(tx, settings.INSTANCE, "x")
        with pytest.raises(NotFound):
            settings.delete_setting(tx, settings.INSTANCE, "x")


def test_plans_never_change(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        document = bytes(range(256)) * 50
        more = {"hash": "h", "source_id": "s", "target_id": "t", "created_by": w.user, "now": AT}
        made = plans.save_plan(tx, w.org, "p", document=document, **more)  # type: ignore[arg-type]
        assert plans.read_plan(tx, w.org, "p") == document
        assert plans.get_plan(tx, w.org, "p") == made
        with pytest.raises(Conflict, match="already a plan 'p'"):
            plans.save_plan(tx, w.org, "p", document=b"other", **more)  # type: ignore[arg-type]
        assert plans.read_plan(tx, w.org, "p") == document
        assert [p.id for p in plans.list_plans(tx, w.org, source_id="s").items] == ["p"]
        with pytest.raises(InvalidInput, match="id has 33 characters"):
            plans.save_plan(tx, w.org, "p" * 33, document=b"", **more)  # type: ignore[arg-type]
        plans.delete_plan(tx, w.org, "p")


def test_templates(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        with pytest.raises(Conflict, match="already a template 'nightly'"):
            plans.create_template(tx, w.org, name="nightly", kind="k", body={}, created_by=None, now=AT)
        changed = plans.update_template(tx, w.org, w.template, body={"a": 1}, now=after(1))
        assert (changed.name, changed.body, changed.updated_at) == ("nightly", {"a": 1}, after(1))
        with pytest.raises(InvalidInput, match="nothing to change"):
            plans.update_template(tx, w.org, w.template, now=AT)
        assert plans.list_templates(tx, w.org, kind="other").items == ()


def test_notifications(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        second = notifications.add_notification(tx, w.org, w.user, kind="k", text="t", now=AT)
        theirs = notifications.add_notification(tx, w.org, w.boss, kind="k", text="t", now=AT)
        assert notifications.count_unread(tx, w.org, w.user) == 2
        assert notifications.mark_read(tx, w.org, w.user, [second.id, theirs.id], now=AT) == 1
        assert notifications.mark_read(tx, w.org, w.user, [second.id], now=after(9)) == 0
        assert [n.id for n in notifications.list_notifications(tx, w.org, w.user, unread=True).items] == [
            w.notification
        ]
        assert notifications.get_notification(tx, w.org, w.user, second.id).read_at == AT
        with pytest.raises(NotFound):  # another user's, in the same organization
            notifications.get_notification(tx, w.org, w.user, theirs.id)
        assert notifications.count_unread(tx, w.org, w.boss) == 1
        assert notifications.prune(tx, before=after(1)) == 1
        assert notifications.mark_read(tx, w.org, w.user, now=AT) == 1


def test_a_request_sent_twice_is_done_once(store: Store) -> None:
    digest, more = b"d" * 32, {"operation": "connection.create", "now": AT}
    with store.write() as tx:
        assert idempotency.begin(tx, "u", "key", request=digest, **more) is None  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="is at work"):
            idempotency.begin(tx, "u", "key", request=digest, **more)  # type: ignore[arg-type]
        assert idempotency.begin(tx, "other user", "key", request=b"x" * 32, **more) is None  # type: ignore[arg-type]
        idempotency.finish(tx, "u", "key", {"id": "c1"})
        assert idempotency.begin(tx, "u", "key", request=digest, **more) == {"id": "c1"}  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="used for another request"):
            idempotency.begin(tx, "u", "key", request=b"e" * 32, **more)  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="used for another request"):
            idempotency.begin(tx, "u", "key", operation="team.create", request=digest, now=AT)
        idempotency.forget(tx, "u", "key")  # finished: it stays
        assert idempotency.begin(tx, "u", "key", request=digest, **more) == {"id": "c1"}  # type: ignore[arg-type]
        idempotency.forget(tx, "other user", "key")
        assert idempotency.begin(tx, "other user", "key", request=digest, **more) is None  # type: ignore[arg-type]


def test_a_request_that_died_can_be_sent_again(store: Store) -> None:
    with store.write() as tx:
        for at, expected in ((AT, None), (after(599), Conflict), (after(600), None), (after(601), Conflict)):
            if expected is None:
                assert idempotency.begin(tx, "u", "k", operation="o", request=b"d" * 32, now=at) is None
            else:
                with pytest.raises(expected):
                    idempotency.begin(tx, "u", "k", operation="o", request=b"d" * 32, now=at)
        assert idempotency.prune(tx, before=after(600) + dt.timedelta(microseconds=1)) == 1


def test_two_of_the_same_request_at_once(store: Store) -> None:
    gate, results = threading.Barrier(4), []

    def send() -> None:
        gate.wait()
        try:
            with store.write() as tx:
                results.append(idempotency.begin(tx, "u", "k", operation="o", request=b"d" * 32, now=AT))
        except DBLensError as error:
            results.append(type(error))

    several = [threading.Thread(target=send) for _ in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert sorted(results, key=str) == sorted([None, Conflict, Conflict, Conflict], key=str)


def test_what_no_database_keeps_is_refused_by_name(store: Store) -> None:
    with store.write() as tx:
        w = make_world(tx, "a")
        for bad in ("a\0", "\udc80", "x" * 101):
            with pytest.raises(InvalidInput, match="name"):
                teams.create_team(tx, w.org, bad, now=AT)
            with pytest.raises(InvalidInput, match="after"):
                teams.list_teams(tx, w.org, after=bad * 20)
    for bad in ("\0", "\udc80"):  # as an id, where nobody looks before the driver does
        with pytest.raises((NotFound, InvalidInput)), store.read() as tx:
            teams.get_team(tx, w.org, bad)
