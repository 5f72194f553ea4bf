"""The door to queries: what runs where, who may, what has to be confirmed, what is stopped, what is kept.

Over 600 lines because every operation of the one door shares a desk whose sessions a test can script.
Its sessions answer from a script (`tests.unit.query.fakes`); what servers do is tried in `tests/engines/test_asks.py`.
"""

from __future__ import annotations

import datetime as dt
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dblens import engines
from dblens.engines.base import Engine
from dblens.errors import (
    Cancelled,
    ConfirmationNeeded,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)
from dblens.query.results import Streaming
from dblens.store import settings
from dblens.store.queries import Which
from dblens.store.records import now
from dblens.workspace import asked, talks
from dblens.workspace.retention import retain_due
from dblens.workspace.speech import Origin
from tests.unit.query.fakes import Asks, Said, engine, until
from tests.workspace.desk import Desk

pytest.importorskip("pyarrow")
pytest.importorskip("sqlglot")

ID = "0" * 31 + "1"
NUMBER = re.compile(r"\d+")


def answer(asks: Asks, statement: str) -> Any:
    """`select n` has n rows (`select slow` hours of them), what has `broken` in it fails, anything else changes 2 rows.

    `select stuck` has nothing to say for 30 seconds: only a cancel ends it sooner.
    """
    if "broken" in statement:
        raise QueryFailed("no such table: broken")
    if "stuck" in statement:
        return Said(asks, rows=1, wait=30)
    if "slow" in statement:
        return Said(asks, rows=100_000, batch=1, wait=0.05)
    if statement.lower().startswith("select"):
        return Said(asks, rows=int(NUMBER.findall(statement)[0] if NUMBER.search(statement) else 1))
    return Said(asks, affected=2)


@pytest.fixture
def asks() -> Asks:
    return Asks(answer)


@pytest.fixture
def desk(tmp_path: Path, asks: Asks, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made: Engine = engine(asks)
    monkeypatch.setattr(engines, "get", lambda name: made)
    desk = Desk(tmp_path)
    desk.src = desk.connection("src", rows=3)  # type: ignore[attr-defined]
    yield desk
    desk.close()


def sink(_: bytes) -> None:
    return None


def rule(desk: Desk, **values: Any) -> None:
    with desk.house.store.write() as tx:
        settings.put_setting(tx, desk.orgs["acme"], "queries", values, now=now())


def environment(desk: Desk, name: str) -> None:
    from dblens.store import connections

    with desk.house.store.write() as tx:
        connections.update_connection(tx, desk.orgs["acme"], desk.src, version=1, environment=name, now=now())  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------------------------------- run


def test_run_is_read_only_whatever_the_text(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann")
    ws.queries.run("src", "delete from t", sink)
    assert [each[2] for each in asks.asked] == [True]
    row = desk.rows("query.run")[0]
    assert row.phase == "read"
    assert "delete" not in str(row)


def test_who_reads_does_not_write(desk: Desk, asks: Asks) -> None:
    desk.share(desk.src, "bob", "view")  # type: ignore[attr-defined]
    bob = desk.as_("bob").queries
    for call in (
        lambda: bob.run("src", "select 1", sink),
        lambda: bob.write("src", "select 1", sink),
        lambda: bob.explain("src", "select 1"),
        lambda: bob.check("src", "select 1"),
        lambda: bob.begin("src"),
    ):
        with pytest.raises(PermissionDenied):
            call()
    for name in ("vic", "aud"):
        desk.share(desk.src, name, "manage")  # type: ignore[attr-defined]
        with pytest.raises(PermissionDenied):
            desk.as_(name).queries.run("src", "select 1", sink)
    with pytest.raises(NotFound):
        desk.as_("eve").queries.run(desk.src, "select 1", sink)  # type: ignore[attr-defined]
    limited = desk.as_("ann", scopes=("query.run",)).queries
    with pytest.raises(PermissionDenied):
        limited.write("src", "delete from t", sink)
    assert asks.asked == []


def test_results_in_hand(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann")
    found = ws.query("src", "select 3; update t set x = 1 where id = :id; select 2", params={"id": 7}, limit=2)
    assert [len(each) for each in found] == [2, 0, 2]
    assert [each.truncated for each in found] == ["rows", "", ""]
    assert found.rows() == [(0, "é0"), (1, "é1")]
    assert found.arrow().num_rows == 2
    assert found.affected == 2
    assert [each[1] for each in asks.asked] == [(), (7,), ()]
    assert {each[2] for each in asks.asked} == {False}  # one of them writes by its words
    assert ws.query("src", "select 1").scalar
    assert asks.asked[-1][2] is True
    assert ws.query("src", "update t set x = 1 where id = 1", read_only=True).ran.read_only
    assert asks.asked[-1][2] is True
    assert "2 rows × 2 columns, cut by rows" in repr(found)


def test_pandas_and_polars(desk: Desk) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    found = desk.as_("ann").query("src", "select 3")
    assert list(found.df().columns) == ["id", "text"]
    assert found.df(exact=True).shape == (3, 2)
    assert found.polars()["text"].to_list() == ["é0", "é1", "é2"]
    import pyarrow as pa

    assert pa.table(found).num_rows == 3


def test_an_error_brings_what_came_before_it(desk: Desk) -> None:
    with pytest.raises(QueryFailed, match=r"statement 2 of 2 \(line 1\): no such table") as told:
        desk.as_("ann").query("src", "select 3; select broken")
    assert told.value.results.rows()[0] == (0, "é0")  # type: ignore[attr-defined]


def test_params_of_every_kind_arrive(desk: Desk, asks: Asks) -> None:
    import decimal

    given: dict[str, Any] = {
        "a": b"\x00\xff", "b": decimal.Decimal("1.10"), "c": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "d": dt.date(2026, 1, 2), "e": dt.time(1, 2, 3, 4), "f": 2**70, "g": float("inf"), "h": None, "i": True,
        "j": "it's", "k": 2**63 - 1, "l": 0.1,
    }  # fmt: skip
    text = "select " + ", ".join(f":{name}" for name in given)
    desk.as_("ann").query("src", text, params=given)
    assert dict(zip(given, asks.asked[-1][1], strict=True)) == given
    with pytest.raises(InvalidInput, match="no value for :b"):
        desk.as_("ann").query("src", "select :a, :b", params={"a": 1})
    with pytest.raises(InvalidInput, match="a is a object"):
        desk.as_("ann").query("src", "select :a", params={"a": object()})


def test_the_servers_log_says_who(desk: Desk, asks: Asks) -> None:
    origin = Origin(client="jupyter", notebook="a */ drop table t; -- 'x'\n.ipynb", cell="12")
    desk.as_("ann").queries.run("src", "select 1", sink, origin=origin, query=ID)
    tag = asks.asked[-1][3]
    assert tag.startswith("dblens user=ann operation=query.run client=jupyter notebook=a_")
    assert tag.endswith(f"cell=12 query={ID}")
    for evil in ("*", "'", ";", "\n", "--", "\\"):
        assert evil not in tag
    facts = desk.rows("query.run")[0].detail["facts"]
    assert (facts["client"], facts["cell"], facts["kind"]) == ("jupyter", "12", "read")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"limit": -1}, "limit is -1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": 1e9}, "timeout is"),
        ({"query": "x"}, "query is 'x'"),
        ({"params": {"a b": 1}}, "no name of a parameter"),
        ({"params": {"a": {"dblens:bytes": "%"}}}, "is no bytes"),
    ],
)
def test_bad_bounds(desk: Desk, asks: Asks, more: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        desk.as_("ann").queries.run("src", "select 1", sink, **more)
    assert asks.asked == []


def test_explain_and_check(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann").queries
    assert ws.explain("src", "select * from t where id = :id", params={"id": 1}, analyze=True).analyzed
    assert asks.asked[-1][1] == (1,)
    with pytest.raises(InvalidInput, match="has 2 statements"):
        ws.explain("src", "select 1; select 2")
    found = ws.check("src", "select 1;\n delete from t")
    assert [each.action for each in found.statements] == ["read", "write"]
    assert [(each.line, each.column) for each in found.statements] == [(1, 1), (2, 2)]
    assert not found.reads
    assert found.action == "write"
    assert found.warnings
    assert found.rule == "off"
    assert ws.check("src", "select 1").reads


# --------------------------------------------------------------------------------------------------------------------- confirm

WORDS = {
    "read": "select * from t",
    "write": "update t set x = 1 where id = 1",
    "unsafe": "delete from t",
    "ddl": "create table u (a integer)",
    "drop": "drop table t",
    "unknown": "frobnicate the table",
}
ASKED = {
    "off": set(),
    "unsafe": {"unsafe", "drop", "unknown"},
    "ddl": {"unsafe", "drop", "unknown", "ddl"},
    "writes": {"unsafe", "drop", "unknown", "ddl", "write"},
}


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize("level", ASKED)
def test_what_has_to_be_confirmed(desk: Desk, asks: Asks, level: str, what: str) -> None:
    rule(desk, production=level)
    environment(desk, "production")
    ws, text = desk.as_("ann").queries, WORDS[what]
    if what not in ASKED[level]:
        ws.write("src", text, sink)
        return
    with pytest.raises(ConfirmationNeeded) as told:
        ws.write("src", text, sink)
    assert told.value.warnings
    assert asks.asked == []
    ws.write("src", text, sink, confirm=told.value.confirm)
    assert asks.asked[-1][0] == text


def test_the_defaults_by_environment(desk: Desk) -> None:
    ws = desk.as_("ann").queries
    ws.write("src", WORDS["drop"], sink)
    environment(desk, "staging")
    ws.write("src", WORDS["write"], sink)
    with pytest.raises(ConfirmationNeeded):
        ws.write("src", WORDS["unsafe"], sink)


def test_a_confirmation_is_for_one_text_connection_and_person(desk: Desk, asks: Asks) -> None:
    rule(desk, dev="writes")
    other = desk.connection("other", rows=1)
    desk.share(desk.src, "bob", "use")  # type: ignore[attr-defined]
    ann, bob = desk.as_("ann").queries, desk.as_("bob").queries
    text = "delete from t where id = :id"

    def token(*, door: Any = ann, text: str = text, connection: str = "src", id: int = 1) -> str:
        with pytest.raises(ConfirmationNeeded) as told:
            door.write(connection, text, sink, params={"id": id})
        return str(told.value.confirm)

    mine = token()
    for wrong in (
        token(door=bob), token(text=text + " "), token(connection=other), token(id=2), mine[:-1], mine + "0", "", "-", "é-é",
        f"{int(mine.split('-')[0], 36) + 10**6}-{mine.split('-')[1]}",
    ):  # fmt: skip
        with pytest.raises(ConfirmationNeeded):
            ann.write("src", text, sink, params={"id": 1}, confirm=wrong)
    assert asks.asked == []
    desk.house.clock = lambda: now() + dt.timedelta(minutes=11)  # type: ignore[method-assign]
    with pytest.raises(ConfirmationNeeded):
        desk.as_("ann").queries.write("src", text, sink, params={"id": 1}, confirm=mine)
    desk.house.clock = now
    ann.write("src", text, sink, params={"id": 1}, confirm=mine)
    assert len(asks.asked) == 1
    ended = [row for row in desk.rows("query.write") if row.phase == "ended"]
    assert {row.outcome for row in ended} == {"confirm.needed", "ok"}


def test_where_nothing_is_written(desk: Desk, asks: Asks) -> None:
    rule(desk, dev="read_only")
    ws = desk.as_("ann").queries
    for text in WORDS.values():
        with pytest.raises(PermissionDenied, match="nothing is written to dev"):
            ws.write("src", text, sink)
    with pytest.raises(PermissionDenied):
        ws.begin("src")
    assert ws.check("src", "delete from t").refused
    desk.connection("locked", rows=1, read_only=True)
    rule(desk, dev="off")
    with pytest.raises(PermissionDenied, match="'locked' is read-only"):
        ws.write("locked", "delete from t", sink)
    assert asks.asked == []
    ws.run("src", "select 1", sink)


def test_a_write_is_in_the_audit_before_it_is_done(desk: Desk, asks: Asks) -> None:
    seen: list[int] = []

    def script(asks: Asks, statement: str) -> Any:
        seen.append(len([row for row in desk.rows("query.write") if row.phase == "started"]))
        return answer(asks, statement)

    asks.script = script
    desk.as_("ann").queries.write("src", "delete from t where id = 1", sink)
    assert seen == [1]
    ended = desk.rows("query.write")[-1]
    assert (ended.phase, ended.outcome, ended.detail["facts"]["affected"]) == ("ended", "ok", 2)
    assert "delete" not in str(desk.rows("query.write"))


# ---------------------------------------------------------------------------------------------------------------------- cancel


class Asking(threading.Thread):
    """A slow query in a thread."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call, self.error, self.seconds = call, None, 0.0
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        try:
            self.call()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error  # type: ignore[assignment]
        self.seconds = time.monotonic() - begun


def test_a_query_is_stopped_by_its_id(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann").queries
    slow = Asking(lambda: ws.run("src", "select slow", sink, query=ID))
    assert until(lambda: asks.asked)
    assert ws.cancel(ID) is True
    slow.join(2)
    assert isinstance(slow.error, Cancelled)
    assert desk.rows("query.run")[-1].outcome == "engine.cancelled"
    with pytest.raises(NotFound):
        ws.cancel(ID)
    assert desk.house.talks.at_work == 0


def test_somebody_elses_query_is_nobodys(desk: Desk, asks: Asks) -> None:
    desk.share(desk.src, "bob", "manage")  # type: ignore[attr-defined]
    ann = desk.as_("ann").queries
    slow = Asking(lambda: ann.run("src", "select slow", sink, query=ID))
    assert until(lambda: asks.asked)
    for name in ("bob", "ada", "eve"):
        with pytest.raises(NotFound, match="no query"):
            desk.as_(name).queries.cancel(ID)
    assert asks.cancels == 0
    again = Asking(lambda: ann.run("src", "select 1", sink, query=ID))
    again.join(2)
    assert isinstance(again.error, Conflict)
    bob = desk.as_("bob").queries
    bob.run("src", "select 1", sink, query=ID)  # his own of the same id
    ann.cancel(ID)
    slow.join(2)
    assert isinstance(slow.error, Cancelled)


def test_the_deadline(desk: Desk, asks: Asks) -> None:
    with pytest.raises(TimedOut):
        desk.as_("ann").queries.run("src", "select slow", sink, timeout=0.2)
    assert asks.cancels >= 1


def test_an_interrupt_stops_it_on_the_server(desk: Desk, asks: Asks) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert until(lambda: asks.waits, 20)  # before that there is nothing on the server to cancel
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    for ask in (
        lambda ws: ws.query("src", "select stuck", limit=None),
        lambda ws: _read(ws.stream("src", "select stuck")),
    ):
        asks.waits = asks.cancels = 0
        threading.Thread(target=interrupt, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(desk.as_("ann"))
        assert time.monotonic() - begun < 15  # of 30 seconds
        assert asks.cancels >= 1
        assert desk.house.talks.at_work == 0


def _read(streaming: Streaming) -> None:
    with streaming as rows:
        for _ in rows:
            pass


def test_a_house_that_closes_stops_and_rolls_back(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann").queries
    ws.begin("src")
    other = Asks(answer)
    slow = Asking(lambda: ws.run("src", "select slow", sink))
    assert until(lambda: desk.house.talks.at_work and asks.asked)
    desk.house.talks.close()
    slow.join(2)
    assert isinstance(slow.error, Cancelled)
    assert asks.ended == ["rollback"]
    with pytest.raises(Conflict, match="closed"):
        ws.run("src", "select 1", sink)
    assert other.asked == []


# ---------------------------------------------------------------------------------------------------------------------- stream


def test_a_stream_is_bounded(desk: Desk, asks: Asks) -> None:
    asks.script = lambda asks, _: Said(asks, rows=2_000_000, batch=5000)
    with desk.as_("ann").stream("src", "select 1") as rows:
        batches = iter(rows)
        assert next(batches).num_rows == 5000
        held = -1
        while held != rows._pipe._held:  # until nothing more is written
            held = rows._pipe._held
            time.sleep(0.3)
        assert held < 8 * 1024 * 1024
        assert asks.left == 0
        assert next(iter(rows)).num_rows == 5000  # it goes on where it was
        assert sum(batch.num_rows for batch in batches) == 1_990_000
        assert [each.name for each in rows.columns] == ["id", "text"]
    assert rows.ran is not None
    assert rows.ran.rows == 2_000_000


def test_who_leaves_a_stream_stops_it(desk: Desk, asks: Asks) -> None:
    asks.script = lambda asks, _: Said(asks, rows=10_000_000, batch=1000)
    with desk.as_("ann").stream("src", "select 1") as rows:
        next(iter(rows))
    assert until(lambda: desk.house.talks.at_work == 0, 2)
    assert asks.left == 1
    with desk.as_("ann").stream("src", "select slow") as rows:
        assert until(lambda: asks.asked)
    assert until(lambda: desk.house.talks.at_work == 0, 2)


def test_a_stream_tells_errors_and_empty_answers(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann")
    with pytest.raises(QueryFailed, match="no such table"), ws.stream("src", "select 2; select broken") as rows:
        for _ in rows:
            pass
    asks.script = lambda asks, _: Said(asks, wait=0.001)
    with ws.stream("src", "select 1") as rows:
        assert [batch.num_rows for batch in rows] == [0]
    assert isinstance(rows, Streaming)


# --------------------------------------------------------------------------------------------------------------- transactions


def test_a_transaction_has_a_state_and_an_end(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann")
    made = ws.queries.begin("src", isolation="serializable")
    assert (made.connection, made.isolation, made.statements) == ("src", "serializable", 0)
    ws.query("src", "update t set x = 1 where id = 1; select 1", transaction=made.id)
    assert {each[2] for each in asks.asked} == {False}
    [shown] = ws.queries.transactions()
    assert (shown.id, shown.statements, shown.at_work) == (made.id, 1, False)
    assert 0 <= shown.age_seconds < 5
    assert shown.ends_at > now()
    assert ws.queries.commit(made.id).statements == 1
    assert asks.ended == ["commit"]
    assert ws.queries.transactions() == []
    with pytest.raises(Conflict, match="was committed"):
        ws.queries.rollback(made.id)
    again = ws.queries.begin("src")
    ws.queries.rollback(again.id)
    assert asks.ended == ["commit", "rollback"]
    assert desk.house.lines.status(desk.src)["main"].in_use == 0  # type: ignore[attr-defined]
    with pytest.raises(Conflict, match="was rolled back"):
        ws.query("src", "select 1", transaction=again.id)


def test_somebody_elses_transaction_is_nobodys(desk: Desk) -> None:
    desk.share(desk.src, "bob", "manage")  # type: ignore[attr-defined]
    made = desk.as_("ann").queries.begin("src")
    for name in ("bob", "ada"):
        ws = desk.as_(name).queries
        for call in (
            lambda ws=ws: ws.commit(made.id),
            lambda ws=ws: ws.rollback(made.id),
            lambda ws=ws: ws.write("src", "select 1", sink, transaction=made.id),
        ):
            with pytest.raises(NotFound):
                call()
        assert ws.transactions() == []
    other = desk.connection("other", rows=1)
    with pytest.raises(NotFound, match="on this connection"):
        desk.as_("ann").queries.write(other, "select 1", sink, transaction=made.id)


def test_a_right_that_was_taken_away_ends_no_commit(desk: Desk, asks: Asks) -> None:
    desk.share(desk.src, "bob", "use")  # type: ignore[attr-defined]
    made = desk.as_("bob").queries.begin("src")
    from dblens.store import connections

    with desk.house.store.write() as tx:
        connections.revoke(tx, desk.orgs["acme"], desk.src, kind="user", grantee_id=desk.ids["bob"])  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        desk.as_("bob").queries.commit(made.id)
    assert asks.ended == []


def test_one_that_does_nothing_is_rolled_back(desk: Desk, asks: Asks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talks, "TICK", 0.05)
    ws = desk.as_("ann").queries
    made = ws.begin("src", idle_seconds=1)
    for _ in range(4):
        time.sleep(0.4)
        ws.write("src", "select 1", sink, transaction=made.id)
    assert until(lambda: asks.ended, 3)
    assert asks.ended == ["rollback"]
    with pytest.raises(Conflict, match="nothing was done in it"):
        ws.commit(made.id)
    with pytest.raises(InvalidInput, match="from 1 to 300"):
        ws.begin("src", idle_seconds=301)


def test_a_person_has_few_of_them(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann").queries
    for _ in range(talks.PER_PERSON):
        asks.inside = None  # each would have a session of its own
        ws.begin("src")
    with pytest.raises(Conflict, match="4 transactions open"):
        ws.begin("src")


def test_one_thing_at_a_time_in_a_transaction(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann").queries
    made = ws.begin("src")
    slow = Asking(lambda: ws.write("src", "select slow", sink, transaction=made.id, query=ID))
    assert until(lambda: asks.asked)
    assert ws.transactions()[0].at_work
    for call in (
        lambda: ws.write("src", "select 1", sink, transaction=made.id),
        lambda: ws.commit(made.id),
        lambda: ws.rollback(made.id),
    ):
        with pytest.raises(Conflict, match="is at work"):
            call()
    ws.cancel(ID)
    slow.join(2)
    ws.rollback(made.id)
    assert asks.ended == ["rollback"]


def test_a_session_that_is_gone_takes_its_transaction_with_it(desk: Desk, asks: Asks) -> None:
    ws = desk.as_("ann").queries
    made = ws.begin("src")

    def script(asks: Asks, statement: str) -> Any:
        asks.inside = None
        raise QueryFailed("server closed the connection")

    asks.script = script
    with suppress(QueryFailed):
        ws.write("src", "select 1", sink, transaction=made.id)
    with pytest.raises(Conflict, match="gone with its session"):
        ws.commit(made.id)


# --------------------------------------------------------------------------------------------------------------------- history


def test_history_is_ones_own(desk: Desk) -> None:
    desk.share(desk.src, "bob", "use")  # type: ignore[attr-defined]
    ann, bob = desk.as_("ann").queries, desk.as_("bob").queries
    ann.run("src", "select 3 -- first", sink, origin=Origin(notebook="n.ipynb", cell="4"))
    with suppress(QueryFailed):
        ann.write("src", "select broken", sink)
    bob.run("src", "select 5", sink)
    ann.explain("src", "select 1")
    found = ann.history().items
    assert [each.operation for each in found] == ["explain", "write", "run"]
    first = found[-1]
    assert (first.text, first.rows, first.outcome, first.connection) == ("select 3 -- first", 3, "ok", "src")
    assert (first.notebook, first.cell, first.kind, first.statements) == ("n.ipynb", "4", "read", 1)
    assert first.microseconds > 0
    failed = found[1]
    assert (failed.outcome, failed.error, failed.rows) == ("engine.query", "no such table: broken", None)
    assert [each.user for each in desk.as_("aud").queries.everyone().items] == ["ann", "bob", "ann", "ann"]
    assert len(desk.as_("ada").queries.everyone(Which(user="bob")).items) == 1
    for name in ("ann", "vic"):
        with pytest.raises(PermissionDenied):
            desk.as_(name).queries.everyone()
    assert desk.as_("eve").queries.everyone().items == ()
    desk.house.journal.flush()
    run = next(row for row in desk.rows("query.run") if row.actor == "ann")
    assert run.run_id == first.id


def test_history_is_found(desk: Desk) -> None:
    ws = desk.as_("ann").queries
    for n in range(5):
        ws.run("src", f"select {n + 1} as needle{n}_%", sink)
    with suppress(QueryFailed):
        ws.run("src", "select broken", sink)
    assert [each.rows for each in ws.history(Which(search="NEEDLE3_%")).items] == [4]
    assert len(ws.history(Which(failed=True)).items) == 1
    assert len(ws.history(Which(outcome="ok", connection="src")).items) == 5
    assert ws.history(Which(connection="nothing")).items == ()
    page = ws.history(limit=4)
    assert len(page.items) == 4
    assert len(ws.history(limit=4, after=page.after).items) == 2
    later = Which(since=now() + dt.timedelta(hours=1))
    assert ws.history(later).items == ()
    with pytest.raises(InvalidInput, match="no time zone"):
        ws.history(Which(since=dt.datetime(2026, 1, 1)))
    assert ws.forget(Which(failed=True)) == 1
    assert ws.forget(id=page.items[1].id) == 1
    assert desk.as_("bob").queries.forget() == 0
    assert ws.forget() == 4


@pytest.mark.parametrize("kept", ["full", "redacted", "none"])
def test_the_rule_of_texts(desk: Desk, kept: str) -> None:
    rule(desk, history_text=kept)
    ws = desk.as_("ann").queries
    text = "select 42, 'o''brien', broken from t where id = :id /* 99 */"
    with suppress(QueryFailed):
        ws.run("src", text, sink, params={"id": "canary-value"})
    [found] = ws.history().items
    assert found.text == {"full": text, "redacted": "select ?, ?, broken from t where id = :id  ", "none": ""}[kept]
    assert (found.error is None) == (kept != "full")
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "alter user ann password 'hunter2-canary'",
        "CREATE USER x IDENTIFIED BY 'hunter2-canary'",
        "create user x identified with mysql_native_password as 'hunter2-canary'",
        "alter role x with encrypted password\n 'hunter2-canary' valid until 'infinity'",
        "SET PASSWORD FOR x = PASSWORD('hunter2-canary')",
        "select dblink('host=h password=hunter2-canary')",
        "create server s options (password 'hunter2-canary')",
        "copy t from 'https://u:hunter2-canary@h/x'",
    ],
)
def test_the_history_keeps_no_password(desk: Desk, text: str) -> None:
    desk.as_("ann").queries.run("src", text, sink)
    [found] = desk.as_("ann").queries.history().items
    assert "hunter2-canary" not in str(found)
    assert found.text.split()[0].lower() == text.split()[0].lower()


def test_the_history_does_not_hold_a_query_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked.queries, "add_history", lambda *_: time.sleep(1))
    begun = time.monotonic()
    for _ in range(20):
        desk.as_("ann").queries.run("src", "select 1", sink)
    assert time.monotonic() - begun < 1


def test_what_waits_is_written_at_the_end(tmp_path: Path, desk: Desk) -> None:
    from dblens.store.queries import list_history

    desk.as_("ann").queries.run("src", "select 1", sink)
    desk.house.asked.close()
    with desk.house.store.read() as tx:
        assert len(list_history(tx, desk.orgs["acme"]).items) == 1


def test_old_history_is_deleted(desk: Desk) -> None:
    rule(desk, history_days=30)
    ws = desk.as_("ann").queries
    ws.run("src", "select 1", sink)
    ws.history()
    assert getattr(retain_due(desk.house), "queries", None) == 0
    desk.house.clock = lambda: now() + dt.timedelta(days=31)  # type: ignore[method-assign]
    assert getattr(retain_due(desk.house), "queries", None) == 1


# ----------------------------------------------------------------------------------------------------------------------- saved


def test_saved_queries_are_the_organizations(desk: Desk) -> None:
    ann, bob, ada = (desk.as_(name).queries for name in ("ann", "bob", "ada"))
    made = ann.save("recent", "select :n", connection="src", description="the newest", params={"n": 3})
    assert (made.language, made.connection_id, made.params) == ("sql", desk.src, {"n": 3})  # type: ignore[attr-defined]
    assert bob.show("recent") == made == bob.show(made.id)
    assert [each.name for each in bob.saved(search="NEWEST").items] == ["recent"]
    with pytest.raises(Conflict, match="already a saved query"):
        bob.save("recent", "select 1")
    with pytest.raises(PermissionDenied, match="somebody else's"):
        bob.save("recent", "select 1", replace=True)
    with pytest.raises(PermissionDenied, match="somebody else's"):
        bob.unsave("recent")
    assert ann.save("recent", "select 4", replace=True).id == made.id
    assert ann.show("recent").connection_id is None
    with pytest.raises(NotFound):
        bob.save("mine", "select 1", connection="src")  # not shared with him
    for door in (desk.as_("eve").queries,):
        assert door.saved().items == ()
        with pytest.raises(NotFound):
            door.show(made.id)
    with pytest.raises(PermissionDenied):
        desk.as_("vic").queries.save("x", "select 1")
    ada.unsave("recent")
    with pytest.raises(NotFound):
        ann.show("recent")
    with pytest.raises(InvalidInput, match="language is 'cobol'"):
        ann.save("x", "select 1", language="cobol")


def test_an_address_alone_on_ones_machine(
    desk: Desk, asks: Asks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.house.lines, "_team", False)
    address = f"sqlite:///{tmp_path / 'src.db'}"
    home = desk.at_home()
    assert home.query(address, "select 3").arrow().num_rows == 3
    assert home.queries.history().items[0].connection == address
    made = home.queries.begin(address)
    home.query(address, "update t set x = 1", transaction=made.id)
    home.queries.commit(made.id)
    with pytest.raises(InvalidInput, match="single-user"):
        desk.as_("ann").query(address, "select 1")
    assert asks.ended == ["commit"]
