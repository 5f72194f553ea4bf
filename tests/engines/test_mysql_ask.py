"""How MySQL and MariaDB answer people: exact values, bounded memory, limits, cancel, transactions, plans; under both drivers' sessions.

Over 600 lines because two servers and two drivers share its fixtures.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.engines import connect
from dblens.engines.address import parse
from dblens.engines.asking import Limits, Odd
from dblens.engines.mysql import ask_values
from dblens.engines.mysql.ask import MySQLAsks
from dblens.engines.mysql.ask_answer import _comment
from dblens.engines.mysql.driver import mysqlclient
from dblens.engines.mysql.session import MySQLSession
from dblens.errors import (
    Cancelled,
    Conflict,
    ConnectionFailed,
    DBLensError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
)
from dblens.schema.types import Binary, Bits, Date, Decimal, Float, Geometry, Integer, Json, Text, Time, Timestamp, Year
from dblens.values.forms import Form
from tests.memory import grown
from tests.servers.fixtures import require
from tests.servers.mysql import _MySQLFamily

DRIVERS = ["pymysql", *(["mysqlclient"] if mysqlclient() else [])]
ENDLESS = "with recursive r as (select 1 n union all select n + 1 from r where n < 900) select a.n, b.n m, c.n o from r a, r b, r c"
HUNDRED = "with recursive r as (select 1 n union all select n + 1 from r where n < 100) "


@pytest.fixture(params=["mariadb", "mysql"], scope="module")
def server(request: pytest.FixtureRequest) -> _MySQLFamily:
    found = require(request.param)
    assert isinstance(found, _MySQLFamily)
    return found


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Base:
    """A fresh database, sessions on it, and a plain connection beside them."""

    def __init__(self, server: _MySQLFamily, driver: str) -> None:
        self.server, self.driver = server, driver
        self.maria = server.name == "mariadb"
        self.address = server.create_database()
        self.name = self.address.rpartition("/")[2]
        self.db = server.connect(self.name)
        self.sessions: list[MySQLSession] = []

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with self.db.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def asks(self) -> MySQLAsks:
        url, password = parse(f"{self.address}?driver={self.driver}", allow_password=True)
        session = connect(url, password)
        assert isinstance(session, MySQLSession)
        self.sessions.append(session)
        ask = session.engine.ask
        assert ask is not None
        found = ask(session)
        assert isinstance(found, MySQLAsks)
        return found

    def running(self, word: str) -> list[int]:
        """Ids of connections that run a statement with this word in it, by the server's own list."""
        rows = self.run("show full processlist")
        return [row[0] for row in rows if row[7] and word in str(row[7]) and "processlist" not in str(row[7])]

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.db.close()
        self.server.drop_database(self.name)


@pytest.fixture
def base(server: _MySQLFamily, driver: str) -> Iterator[Base]:
    made = Base(server, driver)
    yield made
    made.close()


@pytest.fixture
def asks(base: Base) -> MySQLAsks:
    return base.asks()


def rows(asks: MySQLAsks, statement: str, *params: object, **options: Any) -> list[tuple[Any, ...]]:
    with asks.ask(statement, params, **options) as answer:
        return [row for batch in answer.batches() for row in batch]


def one(asks: MySQLAsks, statement: str, *params: object, **options: Any) -> Any:
    found = rows(asks, statement, *params, **options)
    assert len(found) == 1, found
    return found[0][0] if len(found[0]) == 1 else found[0]


def write(asks: MySQLAsks, statement: str, *params: object) -> int | None:
    with asks.ask(statement, params, read_only=False) as answer:
        assert list(answer.batches()) == []
        return answer.affected


# ------------------------------------------------------------------------------------------------------------------- values

UTC = dt.UTC
CELLS: tuple[tuple[str, str, Any, object, Form], ...] = (
    ("tinyint", "-128", Integer(8), -128, Form.INT),
    ("tinyint(1)", "1", Integer(8), 1, Form.INT),
    ("smallint unsigned", "65535", Integer(16, True), 65535, Form.INT),
    ("mediumint", "-8388608", Integer(24), -8388608, Form.INT),
    ("int(8) unsigned zerofill", "7", Integer(32, True), 7, Form.INT),
    ("bigint", "-9223372036854775808", Integer(64), -(2**63), Form.INT),
    ("bigint unsigned", "18446744073709551615", Integer(64, True), 2**64 - 1, Form.INT),
    ("decimal(65,30)", "-" + "9" * 35 + "." + "1" * 30, Decimal(65, 30), "-" + "9" * 35 + "." + "1" * 30, Form.DECIMAL),
    ("decimal(5,2)", "-999.99", Decimal(5, 2), "-999.99", Form.DECIMAL),
    ("decimal(10,0)", "1234567890", Decimal(10, 0), "1234567890", Form.DECIMAL),
    ("decimal(8,3) unsigned zerofill", "1.5", Decimal(8, 3, True), "00001.500", Form.DECIMAL),
    ("float", "16777216", Float(32), 16777216.0, Form.FLOAT),
    ("float", "0.1", Float(32), 0.10000000149011612, Form.FLOAT),
    ("double", "0.1", Float(64), 0.1, Form.FLOAT),
    ("double", "2.2250738585072014e-308", Float(64), 2.2250738585072014e-308, Form.FLOAT),
    ("double", "1.7976931348623157e308", Float(64), 1.7976931348623157e308, Form.FLOAT),
    ("bit(1)", "b'1'", Bits(1), "1", Form.BITS),
    ("bit(64)", "b'1'", Bits(64), "1".zfill(64), Form.BITS),
    ("year", "2155", Year(), 2155, Form.INT),
    ("year", "0", Year(), 0, Form.INT),
    ("date", "'9999-12-31'", Date(), dt.date(9999, 12, 31), Form.DATE),
    ("date", "'0000-00-00'", Date(), Odd("0000-00-00", Form.DATE), Form.DATE),
    ("date", "'2024-00-10'", Date(), Odd("2024-00-10", Form.DATE), Form.DATE),
    ("date", "'2023-02-31'", Date(), Odd("2023-02-31", Form.DATE), Form.DATE),
    ("datetime(6)", "'2024-02-29 23:59:59.000001'", Timestamp(6), dt.datetime(2024, 2, 29, 23, 59, 59, 1), Form.TIMESTAMP),
    ("datetime(3)", "'0000-00-00 00:00:00'", Timestamp(3), Odd("0000-00-00 00:00:00", Form.TIMESTAMP), Form.TIMESTAMP),
    ("datetime", "'2024-01-02 03:04:05'", Timestamp(0), dt.datetime(2024, 1, 2, 3, 4, 5), Form.TIMESTAMP),
    ("timestamp(2)", "'2024-01-02 03:04:05.25'", Timestamp(2, True), dt.datetime(2024, 1, 2, 3, 4, 5, 250000, UTC), Form.TIMESTAMPTZ),
    ("time(6)", "'-838:59:59'", Time(6, span=True), "-838:59:59", Form.TIME),
    ("time", "'838:59:59'", Time(0, span=True), "838:59:59", Form.TIME),
    ("time(3)", "'12:00:00.5'", Time(3, span=True), "12:00:00.5", Form.TIME),
    ("char(3)", "'é'", Text(3, True), "é", Form.TEXT),
    ("varchar(20)", "''", Text(20), "", Form.TEXT),
    ("varchar(20)", "'NULL'", Text(20), "NULL", Form.TEXT),
    ("longtext", "'😀\\n\\\\'", Text(), "😀\n\\", Form.TEXT),
    ("enum('a','b')", "'b'", Text(), "b", Form.TEXT),
    ("set('a','b','c')", "'a,c'", Text(), "a,c", Form.TEXT),
    ("set('a','b','c')", "''", Text(), "", Form.TEXT),
    ("varbinary(9)", "x'00ff41'", Binary(9), b"\x00\xffA", Form.BYTES),
    ("binary(4)", "x'01'", Binary(4, True), b"\x01\0\0\0", Form.BYTES),
    ("longblob", "x''", Binary(), b"", Form.BYTES),
    ("geometry", "st_geomfromtext('POINT(1 2)')", Geometry(), "0:0101000000000000000000f03f0000000000000040", Form.GEOMETRY),
)  # fmt: skip


def test_every_type_comes_exactly_with_its_origin(base: Base, asks: MySQLAsks) -> None:
    columns = ", ".join(f"c{i} {native}" for i, (native, *_) in enumerate(CELLS))
    base.run("set session sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
    base.run(f"create table `t%s``x` ({columns})")
    base.run("insert into `t%s``x` values (" + ", ".join(text for _, text, *_ in CELLS) + ")")
    base.run("insert into `t%s``x` () values ()")
    with asks.ask("select * from `t%s``x`") as answer:
        found = [row for batch in answer.batches() for row in batch]
        for out, value, (native, _, meaning, wanted, form) in zip(answer.columns, found[0], CELLS, strict=True):
            assert (out.type, out.form) == (meaning, form), native
            assert (value, type(value)) == (wanted, type(wanted)), native
            assert (out.namespace, out.table, out.column) == (base.name, "t%s`x", out.name)
        assert found[1] == (None,) * len(CELLS)
    # The same without a FLOAT: then rows come by the text protocol.
    some = [i for i, cell in enumerate(CELLS) if cell[0] != "float"]
    texts = rows(asks, f"select {', '.join(f'c{i}' for i in some)} from `t%s``x` where c0 is not null")
    assert texts == [tuple(CELLS[i][3] for i in some)]


def test_an_enum_that_is_no_member_is_an_empty_text_and_no_null(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (e enum('a'))")
    base.run("set session sql_mode = ''")
    base.run("insert into t values ('zzz'), (null)")
    assert rows(asks, "select e from t order by e is null") == [("",), (None,)]


def test_mysql_json_is_in_its_canonical_form(base: Base, asks: MySQLAsks) -> None:
    if base.maria:
        pytest.skip("MariaDB's JSON is text and comes as such")
    with asks.ask("""select cast('{"b": [1, 2.50, 1e2], "a": "é"}' as json) j""") as answer:
        assert (answer.columns[0].type, answer.columns[0].form) == (Json(), Form.JSON)
        assert list(answer.batches()) == [[('{"a":"é","b":[1,2.5,100]}',)]]


def test_expressions_have_no_origin_and_never_overflow_what_they_are_announced_as(asks: MySQLAsks) -> None:
    with asks.ask(
        "select 1 a, cast(-1 as signed) b, 18446744073709551615 c, 12345678901234567890.123456789 d, 1 = 1 e, null f"
    ) as answer:
        assert list(answer.batches()) == [[(1, -1, 2**64 - 1, "12345678901234567890.123456789", 1, None)]]
        assert all(c.table is None and c.column is None for c in answer.columns)
        assert [c.type for c in answer.columns[:3]] == [Integer(64), Integer(64), Integer(64, True)]


def test_an_alias_tells_the_column_behind_it(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (id int primary key, v int)")
    with asks.ask("select x.v as renamed, x.v + 1 as computed from t x") as answer:
        assert list(answer.batches()) == []
        first, second = answer.columns
        assert (first.name, first.table, first.column) == ("renamed", "t", "v")
        assert (second.table, second.column) == (None, None)


def test_the_same_answer_in_arrow(base: Base, asks: MySQLAsks) -> None:
    pytest.importorskip("pyarrow")
    from dblens.engines import arrow

    columns = ", ".join(f"c{i} {native}" for i, (native, *_) in enumerate(CELLS))
    base.run("set session sql_mode = 'ALLOW_INVALID_DATES'")
    base.run(f"create table t ({columns})")
    base.run("insert into t values (" + ", ".join(text for _, text, *_ in CELLS) + ")")
    with asks.ask("select * from t") as answer:
        made = arrow.Writer(answer.columns)
        (batch,) = [made.batch(some) for some in answer.batches()]
    (texts,) = arrow.canonical_rows(batch)
    for (_, _, _, wanted, form), text in zip(CELLS, texts, strict=True):
        assert text is not None
        if isinstance(wanted, Odd):
            assert text.decode() == wanted.text
        elif form in (Form.TEXT, Form.TIME, Form.BITS):
            assert text.decode() == wanted


def test_a_changed_session_does_not_change_what_values_mean(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (i timestamp, s varchar(9))")
    base.run("set session time_zone = '+00:00'")
    base.run("insert into t values ('2024-01-02 03:04:05', 'é')")
    base.run(
        "create procedure p() begin set session time_zone = '+05:00'; set names latin1; set session sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'; end"
    )
    for statement in (
        "set time_zone = '+05:00'",
        "set names latin1",
        "set session sql_mode = ''",
        "set @@session.time_zone = '+05:00'",
        "set character set latin1",
    ):
        with pytest.raises(InvalidInput, match="does not set"):
            asks.ask(statement, read_only=False)
    write(asks, "call p()")
    assert one(asks, 'select i, s, "a\\"b", %s from t', "x\\'y") == (
        dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "é",
        'a"b',
        "x\\'y",
    )


# --------------------------------------------------------------------------------------------------------------- parameters


def test_parameters_are_values_and_nothing_else(asks: MySQLAsks) -> None:
    values: list[object] = [
        "a'b\"c\\d%s%%;-- \n\0\x1a😀", "", None, 2**63, -5, 1.5, 1e300, b"\x00'\xff", True, dt.date(2024, 2, 29), dt.datetime(2024, 1, 1, 1, 2, 3, 4), "' or 1=1 -- ",
    ]  # fmt: skip
    found = one(asks, "select " + ", ".join(["%s"] * len(values)) + ", '100%%'", *values)
    assert found[:9] == ("a'b\"c\\d%s%%;-- \n\0\x1a😀", "", None, 2**63, -5, 1.5, 1e300, b"\x00'\xff", 1)
    assert found[9:] == ("2024-02-29", "2024-01-01 01:02:03.000004", "' or 1=1 -- ", "100%")
    assert one(asks, "select '100%s'") == "100%s", "without parameters nothing is a place"


def test_parameters_that_do_not_fit(asks: MySQLAsks) -> None:
    for statement, values in (
        ("select %s", (1, 2)),
        ("select %s, %s", (1,)),
        ("select %d", (1,)),
        ("select %s", (object(),)),
        ("select %s", (float("nan"),)),
    ):
        with pytest.raises(InvalidInput):
            asks.ask(statement, values)
    assert ask_values.literal(dt.timedelta(hours=-839)) == "'-839:00:00.000000'"


# ---------------------------------------------------------------------------------------------------- what comes beside rows


def test_affected_notices_and_positions(base: Base, asks: MySQLAsks) -> None:
    write(asks, "create table t (id int primary key, v int)")
    assert write(asks, "insert into t values (1, 1), (2, 2)") == 2
    assert write(asks, "update t set v = 1") == 2, "the rows that were found, changed or not"
    assert write(asks, "delete from t where id = 9") == 0
    assert rows(asks, "select count(*) from t") == [(2,)]
    with asks.ask("select 1 + 'x'") as answer:
        list(answer.batches())
        assert len(answer.notices) == 1
        assert "1292" in answer.notices[0]
    with pytest.raises(QueryFailed, match="1064") as failed:
        asks.ask("select 1,\n 2 frm t where")
    assert failed.value.position >= 12  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        asks.ask("select * from nope")
    with pytest.raises(Conflict):
        write(asks, "insert into t values (1, 1)")
    assert one(asks, "select 5") == 5


def test_the_tag_is_in_the_servers_list_and_cannot_be_closed(base: Base, asks: MySQLAsks) -> None:
    tag = "who=ann */ ; drop table t /*! x */ \n# --"
    seen: list[str] = []

    def look() -> None:
        time.sleep(0.2)
        with base.server.connect() as other, other.cursor() as cursor:
            cursor.execute("show full processlist")
            seen.extend(str(row[7]) for row in cursor.fetchall() if row[7] and "mark_of_tag" in str(row[7]))

    thread = threading.Thread(target=look)
    thread.start()
    rows(asks, "select sleep(0.6), 'mark_of_tag'", tag=tag)
    thread.join()
    assert len(seen) == 1
    assert seen[0].startswith("/* dblens ")
    assert "who=ann" in seen[0]
    assert seen[0].count("*/") == 1
    assert seen[0].count("/*") == 1
    for each in ("*/", "/*", "/*/", "**//", "*\x00/", "!x", "*", "/", "*/*/*"):
        text = f"/* dblens 0 {_comment(each)}*/"
        assert text.find("*/") == len(text) - 2, each
        assert text.count("/*") == 1, each


def test_several_answers_of_a_procedure(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    base.run("create procedure p() begin insert into t values (1); select 1 a; select 2 b; select 3 c; end")
    with asks.ask("call p()", read_only=False) as answer:
        assert [row for batch in answer.batches() for row in batch] == [(1,)]
        assert any("2 more answers" in each for each in answer.notices)
    assert rows(asks, "select * from t") == [(1,)]


def test_a_procedure_that_leaves_a_transaction_open(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    base.run("create procedure p() begin start transaction; insert into t values (1); end")
    with pytest.raises(QueryFailed, match="left a transaction open"):
        asks.ask("call p()", read_only=False)
    assert rows(asks, "select * from t") == []


def test_one_statement_at_a_time(asks: MySQLAsks) -> None:
    for statement in (
        "select 1; select 2",
        "select 1;;select 2",
        "insert into t values (1); commit",
        "",
        " ",
        "-- nothing",
        "/* x */;",
    ):
        for read_only in (True, False):
            with pytest.raises(InvalidInput):
                asks.ask(statement, read_only=read_only)
    assert one(asks, "select 1 ; -- end") == 1
    assert one(asks, "select ';' -- ; select 2\n;") == ";"


def test_no_answer_while_another_is_read(asks: MySQLAsks) -> None:
    with asks.ask(ENDLESS), pytest.raises(Conflict):
        asks.ask("select 1")
    assert one(asks, "select 1") == 1


# ------------------------------------------------------------------------------------------------------------------- bounds


def test_leaving_early_stops_the_server_and_the_session_answers_next(base: Base, asks: MySQLAsks) -> None:
    for _ in range(3):
        began = time.monotonic()
        with asks.ask(ENDLESS + " /* left_early */") as answer:
            for _batch in answer.batches():
                break
        assert time.monotonic() - began < 1.5
        assert not base.running("left_early")
        assert one(asks, "select 1") == 1
    (first,) = {one(asks, "select connection_id()")}
    assert first == one(asks, "select connection_id()")


def test_batches_are_few_at_first_and_never_larger_than_asked(asks: MySQLAsks) -> None:
    with asks.ask(
        HUNDRED + "select a.n, repeat('x', 1000) from r a, r b, r c limit 20000",
        limits=Limits(rows=500, octets=100_000),
    ) as answer:
        sizes = [len(batch) for batch in answer.batches()]
    assert sum(sizes) == 20_000
    assert sizes[0] <= 256
    assert max(sizes) <= 105
    with asks.ask(HUNDRED + "select a.n from r a, r b limit 5000", limits=Limits(rows=500)) as answer:
        assert max(len(batch) for batch in answer.batches()) <= 500


def test_rows_that_come_slowly_are_handed_on(asks: MySQLAsks) -> None:
    began = time.monotonic()
    wide = "select n, sleep(0.1), repeat('x', 20000) from (" + HUNDRED + "select n from r limit 20) q"
    with asks.ask(wide) as answer:
        for batch in answer.batches():
            assert batch
            first = time.monotonic() - began
            break
    assert first < 1.6


def test_a_huge_cell_is_refused_before_it_is_read(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (id int, v longblob)")
    base.run("insert into t values (1, 'x'), (2, repeat('y', 40 * 1024 * 1024))")
    with grown() as growth, asks.ask("select id, v from t order by id", limits=Limits(cell=1 << 20)) as answer:  # noqa: SIM117
        with pytest.raises(InvalidInput, match="column 'v' of row 2 holds 41,943,040 octets"):
            list(answer.batches())
    assert growth.kib < 32 * 1024
    assert one(asks, "select 1") == 1
    found = one(asks, "select v from t where id = 2")
    assert found == b"y" * 40 * 1024 * 1024
    assert len(one(asks, "select v, cast(1 as float) from t where id = 2")[0]) == 40 * 1024 * 1024, (
        "and by the binary protocol"
    )


@pytest.mark.parametrize(
    "size", [0, 250, 251, 65535, 65536, 2**20, 2**24 - 6, 2**24 - 5, 2**24 - 4, 2**24 - 3, 2**24, 2 * (2**24) - 9]
)
def test_packets_of_every_size(base: Base, size: int) -> None:
    asks = base.asks()
    found = rows(asks, f"select repeat('x', {size}), 7 union all select 'y', 8")
    assert [(len(text), number) for text, number in found] == [(size, 7), (1, 8)]


def test_many_columns(base: Base, asks: MySQLAsks) -> None:
    with asks.ask("select " + ", ".join(f"{i} c{i}" for i in range(1600))) as answer:
        assert list(answer.batches()) == [[tuple(range(1600))]]
        assert len(answer.columns) == 1600


def test_an_endless_generator_stays_bounded(base: Base, asks: MySQLAsks) -> None:
    statement = (
        "select seq, repeat('x', 200) from seq_1_to_1000000000000"
        if base.maria
        else ENDLESS.replace("select a.n,", "select repeat('x', 200), a.n,")
    )
    count = 0
    with grown() as growth, pytest.raises(TimedOut):  # noqa: PT012, SIM117
        with asks.ask(statement, limits=Limits(seconds=1.5)) as answer:
            for batch in answer.batches():
                count += len(batch)
    assert count > 50_000
    assert growth.kib < 64 * 1024
    assert one(asks, "select 1") == 1


# ------------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "statement",
    [
        "select sleep(20)",
        ENDLESS,
        "select count(*) from (" + ENDLESS + ") q",
        "update t set v = v + sleep(20)",
        "do sleep(20)",
        "call p()",
    ],
)
def test_a_statement_has_so_many_seconds(base: Base, statement: str) -> None:
    asks = base.asks()
    base.run("create table t (v int)")
    base.run("insert into t values (1)")
    base.run("create procedure p() begin select 1; select sleep(20); end")
    reads = statement.startswith(("select", "with"))
    began = time.monotonic()
    with pytest.raises(TimedOut):  # noqa: PT012, SIM117
        with asks.ask(statement, read_only=reads, limits=Limits(seconds=0.4)) as answer:
            for _ in answer.batches():
                pass
    assert time.monotonic() - began < 2.5
    assert rows(asks, "select v from t") == [(1,)]
    assert not base.running("sleep(20)")


def test_a_reader_that_is_slow_is_within_the_deadline_too(asks: MySQLAsks) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut):  # noqa: PT012, SIM117
        with asks.ask(ENDLESS, limits=Limits(seconds=0.5)) as answer:
            for _ in answer.batches():
                time.sleep(0.1)
    assert time.monotonic() - began < 2.5
    assert one(asks, "select 1") == 1


# ------------------------------------------------------------------------------------------------------------------- cancel


def cancelled_at_random(base: Base, times: int, seed: int) -> None:
    dice = random.Random(seed)
    asks, bystander = base.asks(), base.asks()
    base.run("create table if not exists t (id int primary key, v int)")
    base.run("insert ignore into t values (1, 0)")
    hit: list[BaseException] = []
    stop = threading.Event()

    def beside() -> None:
        """A session of the same login with short statements, none of which may ever be stopped."""
        while not stop.is_set():
            try:
                assert one(bystander, "select 1 + sleep(0.01)") == 1
            except BaseException as error:  # noqa: BLE001
                hit.append(error)
                return

    other = threading.Thread(target=beside)
    other.start()
    late = 0
    kinds: list[tuple[str, bool]] = [
        ("select sleep(30), 'cancel_me'", True),
        (ENDLESS + " /* cancel_me */", True),
        ("select count(*), 'cancel_me' from (" + ENDLESS + ") q", True),
        ("select 'cancel_me'", True),
        ("update t set v = v + 1 + sleep(0.2) where id = 1 /* cancel_me */", False),
    ]
    try:
        for _ in range(times):
            statement, read_only = dice.choice(kinds)
            moment = dice.choice([0.0, 0.001, 0.003, 0.01, 0.05, 0.2]) * dice.random()
            told: list[float] = []
            ended = threading.Event()

            def cancel(
                after: float = moment,
                told: list[float] = told,
                ended: threading.Event = ended,
                slow: bool = "sleep(30)" in statement or "(" + ENDLESS in statement,
            ) -> None:
                time.sleep(after)
                while not ended.is_set():
                    told.append(time.monotonic())
                    asks.cancel()
                    if not slow:
                        return
                    ended.wait(0.01)

            thread = threading.Thread(target=cancel)
            thread.start()
            try:
                with asks.ask(statement, read_only=read_only, limits=Limits(seconds=20)) as answer:
                    for count, _ in enumerate(answer.batches()):
                        if count > 20:
                            break
            except Cancelled:
                if told and time.monotonic() - told[0] > 1.0:
                    late += 1
            finally:
                ended.set()
            thread.join()
            assert not base.running("cancel_me"), statement
            assert one(asks, "select 7") == 7, "the session answers next"
    finally:
        stop.set()
        other.join()
    assert not hit, hit
    assert late == 0


def test_cancel_at_25_random_moments(base: Base) -> None:
    cancelled_at_random(base, 25, 4)


@pytest.mark.nightly
def test_cancel_at_100_random_moments(base: Base) -> None:
    cancelled_at_random(base, 100, int(os.environ.get("DBLENS_SEED", "17")))


def test_cancel_reaches_the_server_within_a_second(base: Base, asks: MySQLAsks) -> None:
    told: list[float] = []

    def cancel() -> None:
        time.sleep(0.3)
        assert base.server.connect  # the server is there
        told.append(time.monotonic())
        asks.cancel()
        told.append(time.monotonic())

    for statement in ("select sleep(30), 'stop_me'", "select count(*), 'stop_me' from (" + ENDLESS + ") q"):
        told.clear()
        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(Cancelled):
            rows(asks, statement)
        ended = time.monotonic()
        thread.join()
        assert ended - told[0] < 1.0
        assert not base.running("stop_me")
        assert one(asks, "select 1") == 1


def test_cancel_when_nobody_reads(base: Base, asks: MySQLAsks) -> None:
    """The server is stuck in writing: only the end of the connection reaches it, and the session opens another."""
    answer = asks.ask(ENDLESS + " /* stuck */")
    batches = answer.batches()
    next(batches)
    time.sleep(0.3)
    began = time.monotonic()
    asks.cancel()
    while base.running("stuck"):
        assert time.monotonic() - began < 1.2
        time.sleep(0.02)
    with pytest.raises(Cancelled):
        for _ in batches:
            pass
    assert one(asks, "select 1") == 1


def test_cancel_when_nothing_runs_stops_nothing(asks: MySQLAsks) -> None:
    asks.cancel()
    assert one(asks, "select 1") == 1
    asks.cancel()
    assert one(asks, "select sleep(0.05)") == 0


@pytest.mark.parametrize("other", ["statement", "server"])
def test_a_kill_for_another_statement_does_nothing(base: Base, asks: MySQLAsks, other: str) -> None:
    """The id runs something, but not what was to be stopped, or on another server behind the same name: then nothing is killed."""
    base.run("create procedure p() select sleep(0.8) + 0, 'killed_not'")
    killed: list[bool] = []

    def kill() -> None:
        until = time.monotonic() + 5
        while not base.running("sleep(0.8)") and time.monotonic() < until:
            time.sleep(0.01)
        answer = asks._answer
        assert answer is not None
        if other == "statement":
            answer._opening = "/* dblens 0000000000000000 "
        else:
            asks._server = "('elsewhere:3306:1',)"
        killed.append(answer._kill_once())

    thread = threading.Thread(target=kill)
    thread.start()
    statement = "select sleep(0.8) + 0, 'killed_not'" if other == "statement" else "call p()"
    assert one(asks, statement, read_only=other == "statement") == (0, "killed_not")
    thread.join()
    assert killed == [False]


# ------------------------------------------------------------------------------------------------------------- transactions


def test_an_explicit_transaction(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    assert asks.transaction is None
    asks.begin(isolation="read committed")
    assert asks.transaction is not None
    assert asks.transaction.isolation == "read committed"
    assert not asks.transaction.read_only
    write(asks, "insert into t values (1)")
    assert not base.run("select * from t")
    assert rows(asks, "select * from t", read_only=False) == [(1,)]
    asks.commit()
    assert asks.transaction is None
    assert list(base.run("select * from t")) == [(1,)]
    asks.begin()
    write(asks, "delete from t")
    asks.rollback()
    asks.rollback()
    assert list(base.run("select * from t")) == [(1,)]
    with pytest.raises(Conflict):
        asks.commit()
    with pytest.raises(InvalidInput):
        asks.begin(isolation="chaos")
    asks.begin()
    with pytest.raises(Conflict):
        asks.begin()
    with pytest.raises(Conflict, match="transaction of its own"):
        asks.ask("select 1")
    asks.rollback()


def test_isolation_is_the_servers(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    base.run("insert into t values (1)")
    asks.begin(read_only=True, isolation="repeatable_read")
    assert rows(asks, "select v from t") == [(1,)]
    base.run("update t set v = 2")
    assert rows(asks, "select v from t") == [(1,)]
    with pytest.raises(PermissionDenied):
        asks.ask("update t set v = 3", read_only=False)
    asks.commit()
    assert rows(asks, "select v from t") == [(2,)]


@pytest.mark.parametrize(
    "statement",
    ["begin", "begin work", "start transaction", "commit", "rollback", "savepoint a", "release savepoint a", "set autocommit = 0", "set @@autocommit = 0",
     "set session transaction read write", "set transaction isolation level serializable", "lock tables t write", "unlock tables", "xa start 'a'",
     "/*! commit */", "/* x */ COMMIT", "set @@session.tx_read_only = 0", "set @a = 1, autocommit = 0"],
)  # fmt: skip
def test_nobody_manages_transactions_by_text(base: Base, statement: str) -> None:
    asks = base.asks()
    with pytest.raises(InvalidInput):
        asks.ask(statement, read_only=False)
    assert one(asks, "select 1") == 1


def test_ddl_does_not_commit_a_transaction_in_passing(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    asks.begin()
    write(asks, "insert into t values (1)")
    for statement in (
        "create table u (v int)",
        "drop table t",
        "truncate table t",
        "alter table t add w int",
        "analyze table t",
        "grant select on *.* to nobody",
    ):
        with pytest.raises(Conflict, match="would commit"):
            asks.ask(statement, read_only=False)
    write(asks, "create temporary table u (v int)")
    write(asks, "savepoint a")
    write(asks, "insert into t values (2)")
    write(asks, "rollback to savepoint a")
    asks.rollback()
    assert not base.run("select * from t")


def test_a_procedure_that_commits_is_said(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    base.run("create procedure p() commit")
    asks.begin()
    write(asks, "insert into t values (1)")
    with asks.ask("call p()", read_only=False) as answer:
        list(answer.batches())
        assert any("committed" in each for each in answer.notices)
    assert asks.transaction is None


def test_a_lost_connection_is_a_lost_transaction(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (v int)")
    asks.begin()
    write(asks, "insert into t values (1)")
    base.run(f"kill {asks._link.id}")  # type: ignore[union-attr]
    with pytest.raises(ConnectionFailed):
        write(asks, "insert into t values (2)")
    assert asks.transaction is None
    assert rows(asks, "select * from t") == []


def test_a_session_that_is_lent_again_is_as_if_new(base: Base, asks: MySQLAsks) -> None:
    write(asks, "set @mine = 5")
    write(asks, "create temporary table mine (v int)")
    assert one(asks, "select get_lock('mine', 0)", read_only=False) == 1
    assert one(asks, "select @mine") == 5
    asks.begin()
    answer = asks.ask(ENDLESS, read_only=False)
    next(answer.batches())
    session = base.sessions[-1]
    assert session.engine.ask is not None
    again = session.engine.ask(session)
    assert again.transaction is None
    assert one(again, "select @mine, database()") == (None, base.name)  # type: ignore[arg-type]
    assert base.run("select is_free_lock('mine')")[0][0] == 1
    with pytest.raises(NotFound):
        again.ask("select * from mine")


# -------------------------------------------------------------------------------------------------------------------- plans


def test_plans(base: Base, asks: MySQLAsks) -> None:
    base.run("create table t (id int primary key, v int, key by_v (v))")
    base.run("insert into t select n, n from (" + HUNDRED + "select n from r) q")
    statement = "select a.id from t a join t b on b.v = a.id where a.v > %s order by b.id limit 5"
    plan = asks.explain(statement, (10,))

    def nodes(node: Any) -> list[Any]:
        return [node, *(below for child in node.children for below in nodes(child))]

    found = nodes(plan.tree)
    assert plan.format == "json"
    assert not plan.analyzed
    assert plan.note
    assert {"a", "b"} <= {n.relation for n in found}
    assert any(n.index in ("by_v", "PRIMARY") for n in found)
    assert any(n.estimated_rows for n in found)
    assert not any(n.actual_rows for n in found)
    measured = asks.explain(statement, (10,), analyze=True)
    found = nodes(measured.tree)
    assert measured.analyzed
    assert any(n.actual_rows for n in found)
    assert any(n.milliseconds for n in found)
    plan = asks.explain("update t set v = 1 where id = 5")
    assert any(n.relation == "t" for n in nodes(plan.tree)), plan.raw
    assert one(asks, "select count(*) from t where v = 1") == 1
    for statement in ("update t set v = 1", "delete from t", "insert into t values (1000, 1)", "select 1 into @x"):
        with pytest.raises(DBLensError):
            asks.explain(statement, analyze=True)
    with pytest.raises(DBLensError):
        asks.explain("create table u (v int)")
    assert one(asks, "select count(*) from t") == 100


# ------------------------------------------------------------------------------------------------------------------- memory

_MEMORY = """
import sys
from dblens.engines import connect
from dblens.engines.address import parse
from dblens.engines.mysql import engine
from tests.memory import grown
url, password = parse(sys.argv[1], allow_password=True)
asks = engine.ask(connect(url, password))
def read(statement):
    count = 0
    with asks.ask(statement) as answer:
        for batch in answer.batches():
            count += len(batch)
    return count
read(sys.argv[2] + " limit 20000")
with grown() as growth:
    count = read(sys.argv[2] + " limit " + sys.argv[3])
print(count, growth.kib)
"""


def millions(base: Base, run: Callable[..., Any], count: int) -> None:
    statement = HUNDRED + "select a.n, b.n m, 'text' s from r a, r b, r c, r d"
    out = run(base.address, statement, str(count))
    rows_read, more = map(int, out.split())
    assert rows_read == count
    assert more <= 64 * 1024, f"{more} KiB"


@pytest.fixture
def run_alone() -> Callable[..., str]:
    import subprocess
    import sys

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        return done.stdout

    return run


def test_a_million_rows_in_bounded_memory(base: Base, run_alone: Callable[..., str]) -> None:
    millions(base, run_alone, 1_000_000)


@pytest.mark.nightly
def test_ten_million_rows_in_bounded_memory(base: Base, run_alone: Callable[..., str]) -> None:
    millions(base, run_alone, 10_000_000)
