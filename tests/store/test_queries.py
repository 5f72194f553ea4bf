"""History and saved queries on both engines: found by what is asked for, of one organization, kept when people go."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa

from dblens.errors import Conflict, InvalidInput, NotFound
from dblens.store import queries
from dblens.store import tables as t
from dblens.store.database import Store
from dblens.store.queries import Which
from tests.store.world import AT, add_user, after, asked_by, make_world


def test_history_is_found(store: Store) -> None:
    with store.write() as tx:
        world = make_world(tx, "acme")
        other = add_user(tx, "bob")
        made = [
            asked_by(world.org, world.user, world.connection, text="select 100%_x", rows=2**40, started_at=after(1)),
            asked_by(
                world.org, other, "c2", text="delete from A", kind="write", outcome="engine.query", error="no 'x'"
            ),
            asked_by(world.org, None, "c3", text="🙂 é", notebook="n.ipynb", cell="3", connection="other"),
        ]
        assert queries.add_history(tx, world.org, made) == 3

        def found(which: Which = Which(), **more: str) -> list[str]:
            return [each.text for each in queries.list_history(tx, world.org, which, **more).items]  # type: ignore[arg-type]

        assert found() == ["🙂 é", "delete from A", "select 100%_x", "select 1"]
        assert queries.list_history(tx, world.org, Which(search="100%_X")).items[0].rows == 2**40
        assert found(Which(search="0%x")) == []
        assert found(Which(search="DELETE FROM a")) == ["delete from A"]
        assert found(Which(failed=True)) == found(Which(outcome="engine.query")) == found(Which(kind="write"))
        assert found(Which(connection="other")) == found(Which(connection="c3")) == found(Which(notebook="n.ipynb"))
        assert found(Which(user=other)) == ["delete from A"]
        assert found(user_id=world.user) == ["select 100%_x", "select 1"]
        assert found(Which(since=after(1))) == ["select 100%_x"]
        assert len(found(Which(until=after(1)))) == 3
        first = queries.list_history(tx, world.org, limit=3)
        assert len(queries.list_history(tx, world.org, limit=3, after=first.after).items) == 1
        for wrong in (Which(search=""), Which(search="a\0")):
            with pytest.raises(InvalidInput):
                found(wrong)
        assert queries.delete_history(tx, world.org, Which(search="delete"), user_id=world.user) == 0
        assert queries.delete_history(tx, world.org, Which(search="delete"), user_id=other) == 1
        assert queries.prune_own(tx, world.org, before=after(1)) == 2
        assert found() == ["select 100%_x"]


def test_history_outlives_people_and_connections(store: Store) -> None:
    with store.write() as tx:
        world = make_world(tx, "acme")
        tx.execute(t.users.delete().where(t.users.c.id == world.user))
        tx.execute(t.connections.delete().where(t.connections.c.id == world.connection))
        [kept] = queries.list_history(tx, world.org).items
        assert (kept.user_id, kept.user, kept.connection_id) == (None, "ann", world.connection)
        gone = asked_by(world.org, world.user, world.connection)
        assert queries.add_history(tx, world.org, [gone]) == 1
        assert queries.get_history(tx, world.org, gone.id).user_id is None
        assert queries.find_saved(tx, world.org, "recent").created_by is None
        with pytest.raises(NotFound):
            queries.add_history(tx, "f" * 32, [gone])


def test_saved_queries(store: Store) -> None:
    with store.write() as tx:
        world = make_world(tx, "acme")
        text = "select ':x', \"é\" -- 🙂\n" * 100
        made = queries.save_query(
            tx, world.org, name="b", text=text, connection_id=world.connection, params={"x": [1, None, "é"]},
            created_by=world.user, now=AT,
        )  # fmt: skip
        assert queries.get_saved(tx, world.org, made.id) == made
        assert [each.name for each in queries.list_saved(tx, world.org).items] == ["b", "recent"]
        assert [each.name for each in queries.list_saved(tx, world.org, connection_id=world.connection).items] == ["b"]
        page = queries.list_saved(tx, world.org, limit=1)
        assert [each.name for each in queries.list_saved(tx, world.org, limit=1, after=page.after).items] == ["recent"]
        with pytest.raises(Conflict):
            queries.update_saved(tx, world.org, made.id, name="recent", now=AT)
        changed = queries.update_saved(tx, world.org, made.id, connection_id=None, params={}, now=after(1))
        assert changed == msgspec.structs.replace(made, connection_id=None, params={}, updated_at=after(1))
        for wrong in ({"name": ""}, {"text": " "}, {"language": "cobol"}):
            with pytest.raises(InvalidInput):
                queries.update_saved(tx, world.org, made.id, now=AT, **wrong)  # type: ignore[arg-type]
        queries.delete_saved(tx, world.org, made.id)
        assert tx.scalar(sa.select(sa.func.count()).select_from(t.queries_saved)) == 1
