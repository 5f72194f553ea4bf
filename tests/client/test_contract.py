"""One set of scenarios over the workspace in this process and over the one of a service: results, classes and errors are equal.

Each scenario is a story: a list of what was called and what came of it. Ids and times are masked, everything else counts.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblens.engines.access.spec import ConnectionSpec
from dblens.events import Event
from dblens.migrate.options import Options
from dblens.redaction import Secret
from dblens.store.audit_find import Filter
from dblens.workspace import Workspace, registry, wire
from dblens.workspace.templates import Configuration
from dblens.workspace.ways import ConnectionChanges, NewConnection, Way
from tests.client.worlds import PASSWORD, Shown, World, here, outcome, steps, there

Told = list[tuple[str, Any]]
Scenario = Callable[[World, "Story"], None]
SCENARIOS: dict[str, Scenario] = {}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    with here(tmp_path_factory.mktemp("here")) as one, there(tmp_path_factory.mktemp("there")) as other:
        yield one, other


class Story:
    """What was called, and what came of it."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.told: Told = []

    def tell(self, what: str, call: Callable[[], Any], *, words: bool = True) -> Any:
        """Note what comes of a call. Without `words` of an error only the class: the service names the field of a body itself."""
        found = outcome(call)
        self.told.append((what, self.shown(found) if words else type(found).__name__))
        return found


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


_shown: dict[int, Shown] = {}


# ------------------------------------------------------------------------------------------------------------------------ people


@scenario
def account(world: World, story: Story) -> None:
    ws = world.workspace
    story.tell("read", ws.account.read)
    story.tell("update", lambda: ws.account.update(display="Ann é 🦉"))
    story.tell("update nothing", lambda: ws.account.update(display=""))
    story.tell("sessions", ws.account.sessions)
    story.tell("sessions by two", lambda: ws.account.sessions(limit=2))
    story.tell("sessions of no length", lambda: ws.account.sessions(limit=0), words=False)
    story.tell("confirm", lambda: ws.account.confirm(PASSWORD))
    story.tell("confirm wrongly", lambda: ws.account.confirm(Secret("wrong-wrong-wrong")))
    story.tell("revoke nothing", lambda: ws.account.revoke("0" * 32))
    story.tell("e-mail", lambda: ws.account.email("ann2@example.org", password=PASSWORD))
    story.tell("e-mail without password", lambda: ws.account.email("ann3@example.org"))
    story.tell("revoke others", ws.account.revoke_others)
    story.tell("weak password", lambda: ws.account.password(PASSWORD, Secret("tiny1")))


@scenario
def organizations(world: World, story: Story) -> None:
    ws = world.workspace
    mine = story.tell("list", ws.organizations.list).items[0]
    story.tell("read", lambda: ws.organizations.read(mine.id))
    story.tell("read another's", lambda: ws.organizations.read("0" * 32))
    story.tell("read a strange name", lambda: ws.organizations.read("a/b?c#d%2e e"))
    story.tell("update", lambda: ws.organizations.update(mine.id, name="Acme & Söhne"))
    story.tell("members", lambda: ws.organizations.members(mine.id))
    story.tell("members searched", lambda: ws.organizations.members(mine.id, search="an", limit=1))
    story.tell("assign to the last admin", lambda: ws.organizations.assign(mine.id, "ann", "viewer"))
    story.tell("admit nobody", lambda: ws.organizations.admit(mine.id, "nobody", "viewer"))
    invited = story.tell("invite", lambda: ws.organizations.invite(mine.id, "bob@example.org", "viewer", mail=False))
    assert "dbl_inv_" not in repr(invited)
    story.tell("invitations", lambda: ws.organizations.invitations(mine.id))
    story.tell("accept what is for another", lambda: ws.organizations.accept(Secret(invited.token)))
    story.tell("revoke", lambda: ws.organizations.revoke_invitation(mine.id, invited.invitation.id))
    story.tell("leave as the last", lambda: ws.organizations.leave(mine.id))
    story.tell("delete another's", lambda: ws.organizations.delete("0" * 32))
    story.tell("remove nobody", lambda: ws.organizations.remove(mine.id, "nobody"))
    story.tell("use", lambda: ws.organizations.use(mine.slug))
    story.tell("use another's", lambda: ws.organizations.use("nothing"))
    story.tell("create", lambda: ws.organizations.create("Other"))


@scenario
def teams(world: World, story: Story) -> None:
    ws = world.workspace
    made = [story.tell(f"create {name}", lambda n=name: ws.teams.create(n)) for name in ("data", "ops", "a/b c%d")]
    story.tell("create it again", lambda: ws.teams.create("data"))
    story.tell("create without a name", lambda: ws.teams.create(""))
    first = story.tell("first page", lambda: ws.teams.list(limit=2))
    story.tell("second page", lambda: ws.teams.list(limit=2, after=first.after))
    story.tell("a page too long", lambda: ws.teams.list(limit=500))
    story.tell("a page much too long", lambda: ws.teams.list(limit=100_000), words=False)
    story.tell("no page", lambda: ws.teams.list(limit=-1), words=False)
    story.tell("read", lambda: ws.teams.read(made[0].id))
    story.tell("read what is not there", lambda: ws.teams.read("0" * 32))
    story.tell("add", lambda: ws.teams.add(made[0].id, "ann"))
    story.tell("mine", lambda: ws.teams.list(mine=True))
    story.tell("members", lambda: ws.teams.members(made[0].id))
    story.tell("remove", lambda: ws.teams.remove(made[0].id, "ann"))
    story.tell("update", lambda: ws.teams.update(made[0].id, name="datà"))
    story.tell("update to a taken name", lambda: ws.teams.update(made[0].id, name="ops"))
    story.tell("delete", lambda: ws.teams.delete(made[1].id))
    story.tell("delete again", lambda: ws.teams.delete(made[1].id))


@scenario
def roles(world: World, story: Story) -> None:
    ws = world.workspace
    story.tell("list", ws.roles.list)
    story.tell("permissions", ws.roles.permissions)
    made = story.tell("create", lambda: ws.roles.create("reader", ["team.list", "audit.own"], rank=5))
    story.tell("create what nobody has", lambda: ws.roles.create("evil", ["no.such"]))
    story.tell("create above oneself", lambda: ws.roles.create("root", ["team.list"], rank=1000))
    story.tell("read", lambda: ws.roles.read(made.id))
    story.tell("update", lambda: ws.roles.update(made.id, permissions=["team.list"]))
    story.tell("delete", lambda: ws.roles.delete(made.id))
    story.tell("delete a system's", lambda: ws.roles.delete("admin"))


@scenario
def users(world: World, story: Story) -> None:
    """Refused to an admin of an organization, in the same words; done by a super_admin."""
    for who, ws in (("admin", world.workspace), ("super", world.super_admin)):

        def tell(what: str, call: Callable[[], Any], who: str = who) -> Any:
            return story.tell(f"{who}: {what}", call)

        tell("list", ws.users.list)
        tell("read", lambda ws=ws: ws.users.read("ann"))
        made = tell("create", lambda ws=ws: ws.users.create("eve", email="eve@example.org", display="Eve"))
        assert who == "admin" or made.reset.token not in repr(made)
        tell("create it again", lambda ws=ws: ws.users.create("eve"))
        tell("update", lambda ws=ws: ws.users.update("eve", display="Eve é"))
        tell("approve", lambda ws=ws: ws.users.approve("eve"))
        tell("disable", lambda ws=ws: ws.users.disable("eve"))
        tell("enable", lambda ws=ws: ws.users.enable("eve"))
        tell("reset", lambda ws=ws: ws.users.reset("eve"))
        tell("sessions", lambda ws=ws: ws.users.sessions("eve"))
        tell("end sessions", lambda ws=ws: ws.users.end_sessions("eve"))
        tell("super_admin", lambda ws=ws: ws.users.super_admin("eve", allowed=True))
        tell("delete with heirs", lambda ws=ws: ws.users.delete("eve", to={"0" * 32: "ann"}))
        tell("delete", lambda ws=ws: ws.users.delete("eve"))
        tell("delete oneself", lambda ws=ws: ws.users.delete("ann"))


@scenario
def tokens(world: World, story: Story) -> None:
    ws = world.workspace
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)
    story.tell("list", ws.tokens.list)
    made = story.tell("create", lambda: ws.tokens.create("ci", ("team.list", "audit.own"), soon))
    assert "dbl_pat_" not in repr(made)
    story.tell("create what is no scope", lambda: ws.tokens.create("ci", ("no such",), soon))
    story.tell("create for ever", lambda: ws.tokens.create("ci", ("team.list",), soon.replace(year=9000)))
    story.tell("list again", lambda: ws.tokens.list(limit=1))
    story.tell("revoke what is not there", lambda: ws.tokens.revoke("0" * 32))
    story.tell("list all", lambda: ws.tokens.list_all(user="ann"))
    story.tell("revoke all of nobody", lambda: ws.tokens.revoke_all("nobody"))
    story.tell("revoke all", lambda: ws.tokens.revoke_all("ann"))


# ------------------------------------------------------------------------------------------------------------------ connections


@scenario
def connections(world: World, story: Story) -> None:
    ws = world.workspace
    file = f"{world.databases}/shop.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("create table orders (id integer primary key, what text not null)")
        database.executemany("insert into orders (what) values (?)", [(f"a {n} é",) for n in range(10)])
    database.close()
    shop = story.tell("create", lambda: ws.connections.create(NewConnection(name="shop", fields=spec(file))))
    url = Secret("postgresql://ann:hunter2-hunter2@127.0.0.1:1/shop")
    pg = story.tell("create by url", lambda: ws.connections.create(NewConnection(name="pg é", url=url, colour="red")))
    assert "hunter2" not in repr(pg)
    story.tell("create again", lambda: ws.connections.create(NewConnection(name="shop", fields=spec(file))))
    story.tell("create out of bounds", lambda: ws.connections.create(NewConnection(name="x", fields=spec("/etc/x"))))
    story.tell("create of nothing", lambda: ws.connections.create(NewConnection(name="x")))
    story.tell("create without a name", lambda: ws.connections.create(NewConnection(name="", url=url)))
    evil = Secret("postgresql://h/db?host=evil&passfile=/etc/passwd&password=hunter2-hunter2")
    story.tell("create with options", lambda: ws.connections.create(NewConnection(name="x", url=evil)))
    page = story.tell("list", lambda: ws.connections.list(limit=1))
    story.tell("list on", lambda: ws.connections.list(limit=1, after=page.after))
    story.tell("list some", lambda: ws.connections.list(search="SHO", engine="sqlite", environment="dev"))
    story.tell("read by name", lambda: ws.connections.read("shop"))
    story.tell("read by id", lambda: ws.connections.read(pg.id))
    story.tell("read by a name of its own kind", lambda: ws.connections.read("pg é"))
    story.tell("read what is not there", lambda: ws.connections.read("nö/such?x=1"))
    story.tell("test", lambda: ws.connections.test("shop"))
    story.tell("test what does not listen", lambda: ws.connections.test("pg é"))
    story.tell("try", lambda: ws.connections.try_(Way(url=url)))
    changes = ConnectionChanges(environment="production", secrets={"password": Secret("hunter3-hunter3")})
    story.tell("update", lambda: ws.connections.update("pg é", changes, version=pg.version))
    story.tell("update of an old version", lambda: ws.connections.update("pg é", changes, version=pg.version))
    fewer = ConnectionChanges(fields={"database": None}, secrets={"password": None})
    story.tell("take away", lambda: ws.connections.update("pg é", fewer, version=pg.version + 1))
    story.tell("no change", lambda: ws.connections.update("shop", ConnectionChanges(), version=shop.version))
    story.tell("duplicate", lambda: ws.connections.duplicate("shop", "shop2"))
    story.tell("share with oneself", lambda: ws.connections.share("shop", "ann", "use"))
    story.tell("share with nobody", lambda: ws.connections.share("shop", "nobody", "use"))
    team = ws.teams.list(limit=1).items[0]
    story.tell("share", lambda: ws.connections.share("shop", team.name, "use", kind="team"))
    story.tell("grants", lambda: ws.connections.grants("shop"))
    story.tell("unshare", lambda: ws.connections.unshare("shop", team.id, kind="team"))
    story.tell("unshare again", lambda: ws.connections.unshare("shop", team.id, kind="team"))
    story.tell("transfer", lambda: ws.connections.transfer("shop", "ann"))
    story.tell("transfer to nobody", lambda: ws.connections.transfer("shop", "nobody"))
    document = story.tell("export", lambda: ws.connections.export(["shop", "pg é"]))
    story.tell("import refuses", lambda: ws.connections.import_(document))
    story.tell("import skips", lambda: ws.connections.import_(document, existing="skip", dry_run=True))
    story.tell("new database", lambda: ws.connections.create_database("shop", "new.sqlite"))
    story.tell("pool", lambda: sorted(ws.connections.pool("shop")))
    story.tell("delete", lambda: ws.connections.delete("shop2"))
    story.tell("delete again", lambda: ws.connections.delete("shop2"))


def spec(path: str) -> ConnectionSpec:
    return ConnectionSpec(engine="sqlite", path=path)


# ----------------------------------------------------------------------------------------------------- catalog, migrations, runs


@scenario
def catalog(world: World, story: Story) -> None:
    ws = world.workspace
    story.tell("tables", lambda: ws.catalog.tables("shop"))
    schema = story.tell("schema", lambda: ws.catalog.schema("shop"))
    story.tell("schema of what is not there", lambda: ws.catalog.schema("nothing"))
    story.tell("schema of what does not listen", lambda: ws.catalog.schema("pg é"))
    empty = story.tell("schema of nothing", lambda: ws.catalog.schema("new.sqlite"))
    changes = story.tell("diff", lambda: ws.catalog.diff(empty, schema))
    story.tell("statements", lambda: ws.catalog.statements(empty, changes))
    story.tell("create", lambda: ws.catalog.create(schema))
    story.tell("compare", lambda: ws.catalog.compare("shop", "new.sqlite", statements=True))


@scenario
def migrations(world: World, story: Story) -> None:
    """Long work: its steps are heard, its result is the operation's own, and so is its error."""
    ws = world.workspace
    world.heard.clear()
    story.tell("plan", lambda: ws.migrations.plan("shop", "new.sqlite"))
    mine: list[Event] = []
    story.tell("plan, told", lambda: type(ws.migrations.plan("shop", "new.sqlite", report=mine.append)).__name__)
    story.tell("heard of the plan", lambda: steps(mine))
    story.tell("plan of what is not there", lambda: ws.migrations.plan("shop", "nothing"))
    story.tell("plan of what does not listen", lambda: ws.migrations.plan("pg é", "new.sqlite"))
    kept = story.tell("list", ws.migrations.list).items[0]
    story.tell("read", lambda: ws.migrations.read(kept.id))
    story.tell("apply with another hash", lambda: ws.migrations.apply(kept.id, "0" * 64))
    world.heard.clear()
    story.tell("apply", lambda: ws.migrations.apply(kept.id, kept.hash))
    story.tell("heard of it", lambda: steps(world.heard))
    story.tell("apply again", lambda: ws.migrations.apply(kept.id, kept.hash))
    story.tell("verify the plan", lambda: ws.migrations.verify_plan(kept.id, kept.hash))
    story.tell("verify", lambda: ws.migrations.verify("shop", "new.sqlite", tables=("orders",)))
    story.tell("status", lambda: ws.migrations.status("new.sqlite"))
    story.tell("rollback", lambda: ws.migrations.rollback("new.sqlite"))
    story.tell("rollback again", lambda: ws.migrations.rollback("new.sqlite"))
    story.tell("delete", lambda: ws.migrations.delete(kept.id))
    story.tell("clone", lambda: ws.migrations.clone("shop", "copy of shop", "shop", database="copy.sqlite"))
    story.tell("finalize", lambda: ws.migrations.finalize("copy of shop"))
    story.tell("finalize nothing", lambda: ws.migrations.finalize("new.sqlite"))
    story.tell("resume nothing", lambda: ws.migrations.resume("shop", "new.sqlite"))


@scenario
def templates(world: World, story: Story) -> None:
    ws = world.workspace
    options = Options(tables=("orders",), chunk_rows=1000)
    made = story.tell(
        "create",
        lambda: ws.templates.create("nightly é", "shop", "new.sqlite", configuration=Configuration(options=options)),
    )
    story.tell("create again", lambda: ws.templates.create("nightly é", "shop", "new.sqlite"))
    story.tell("list", lambda: ws.templates.list(kind="migration"))
    story.tell("read by name", lambda: ws.templates.read("nightly é"))
    story.tell("run", lambda: ws.templates.run(made.id))
    story.tell("update", lambda: ws.templates.update(made.id, name="nightly"))
    story.tell("delete", lambda: ws.templates.delete(made.id))
    story.tell("run what is not there", lambda: ws.templates.run(made.id))


@scenario
def search(world: World, story: Story) -> None:
    ws = world.workspace
    story.tell("find", lambda: ws.search.find("shop"))
    story.tell("find some", lambda: ws.search.find("a", kinds=("connection",), limit=1))
    story.tell("find nothing", lambda: ws.search.find("zzzzzz"))
    story.tell("find without a word", lambda: ws.search.find(""))


@scenario
def runs(world: World, story: Story) -> None:
    ws = world.workspace
    page = story.tell("list", lambda: ws.runs.list(limit=3))
    story.tell("list on", lambda: ws.runs.list(limit=3, after=page.after))
    failed = story.tell("failed", lambda: ws.runs.list(state="failed")).items
    done = story.tell("succeeded", lambda: ws.runs.list(state="succeeded", operation="migration.apply")).items
    story.tell("read", lambda: ws.runs.read(done[0].id))
    story.tell("result", lambda: ws.runs.result(done[0].id))
    story.tell("log", lambda: [line.level for line in ws.runs.log(done[0].id, limit=3).items])
    for at, run in enumerate(failed):
        story.tell(f"result of failure {at}", lambda r=run: ws.runs.result(r.id))
    story.tell("cancel what ended", lambda: ws.runs.cancel(done[0].id))
    story.tell("read nothing", lambda: ws.runs.read("0" * 32))


# ------------------------------------------------------------------------------------------------------------- settings and more


@scenario
def settings(world: World, story: Story) -> None:
    for who, ws in (("admin", world.workspace), ("super", world.super_admin)):

        def tell(what: str, call: Callable[[], Any], who: str = who) -> Any:
            return story.tell(f"{who}: {what}", call)

        names = [each.name for each in tell("list", ws.settings.list)]
        for name in names:
            tell(f"read {name}", lambda ws=ws, name=name: ws.settings.read(name))
            tell(f"reset {name}", lambda ws=ws, name=name: ws.settings.reset(name))
        password = {"password": Secret("hunter2-hunter2")}
        mail = {"host": "127.0.0.1", "port": 1, "sender": "dblens@example.org", "user": "ann"}
        tell("update", lambda ws=ws, mail=mail, p=password: ws.settings.update("mail", mail, secrets=p))
        tell("update wrongly", lambda ws=ws: ws.settings.update("mail", {"nothing": 1}))
        tell("update nothing", lambda ws=ws: ws.settings.update("nothing", {}))
        tell("read what was set", lambda ws=ws: ws.settings.read("mail"))
        tell("test mail", lambda ws=ws: ws.settings.test_mail("ann@example.org"))
        tell("test a webhook", lambda ws=ws: ws.settings.test_webhook("nothing"))
        tell("deliveries", ws.settings.deliveries)


@scenario
def notifications(world: World, story: Story) -> None:
    ws = world.workspace
    story.tell("list", ws.notifications.list)
    story.tell("count", ws.notifications.count)
    story.tell("mark all", ws.notifications.mark)
    story.tell("mark none", lambda: ws.notifications.mark([]))
    story.tell("mark what is not there", lambda: ws.notifications.mark(["0" * 32]))
    story.tell("prefer", lambda: ws.notifications.prefer(ends="failed", mail=False))
    story.tell("preferences", ws.notifications.preferences)
    story.tell("prefer as before", lambda: ws.notifications.prefer(reset=True))


# ------------------------------------------------------------------------------------------------------------------------- audit


def rows_of(lines: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(lines).splitlines()]


@scenario
def audit(world: World, story: Story) -> None:
    ws = world.workspace
    mutating = Filter(phase="ended")
    story.tell("own", lambda: [(r.action, r.outcome) for r in ws.audit.own(mutating, limit=200).items][-3:])
    page = story.tell("read", lambda: ws.audit.read(Filter(action="team.*", phase="ended"), limit=3))
    story.tell("read on", lambda: ws.audit.read(Filter(action="team.*", phase="ended"), limit=3, after=page.after))
    story.tell("read what is no page", lambda: ws.audit.read(after="x"))
    story.tell("statistics", lambda: ws.audit.statistics("outcome", Filter(action="team.*", phase="ended")))
    story.tell("statistics by nothing", lambda: ws.audit.statistics("weather"), words=False)  # type: ignore[arg-type]
    story.tell("everywhere", lambda: ws.audit.read(everywhere=True))
    lines: list[bytes] = []
    story.tell("export", lambda: ws.audit.export(lines.append, "jsonl", Filter(action="team.*", phase="ended")))
    story.tell("exported", lambda: [(r["action"], r["phase"], r["outcome"]) for r in rows_of(lines)])
    more: list[bytes] = []
    story.tell("export csv", lambda: ws.audit.export(more.append, format="csv", which=Filter(action="team.create")))
    story.tell("exported csv", lambda: re.sub(r"\d{2,}", "N", b"".join(more).decode().splitlines()[0]))
    story.tell("export as something", lambda: ws.audit.export(more.append, "xml"), words=False)  # type: ignore[arg-type]
    story.tell("verify", lambda: ws.audit.verify().broken)
    head = ws.audit.head()
    story.tell("verify from a head", lambda: ws.audit.verify([head]).broken)
    story.tell("everywhere, above", lambda: type(world.super_admin.audit.read(everywhere=True, limit=1)).__name__)
    story.tell("retain too little", lambda: ws.audit.retain(1))


# --------------------------------------------------------------------------------------------------------------------- queries


@scenario
def queries(world: World, story: Story) -> None:
    """Rows are compared with what came into the sink; the same errors, also after rows came."""
    from dblens.query.edit import RowChange
    from dblens.query.stream import readings
    from dblens.store.queries import Which
    from dblens.workspace.speech import Origin

    pytest.importorskip("sqlglot")
    ws = world.workspace
    file = f"{world.databases}/asked.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("create table t (id integer primary key, x text)")
        database.executemany("insert into t (x) values (?)", [(f"é {n}",) for n in range(20_000)])
    database.close()
    ws.connections.create(NewConnection(name="asked", fields=spec(file), environment="production"))

    def rows(data: bytearray) -> list[Any]:
        return [[row for batch in each.batches() for row in batch.to_pylist()] for each in readings(bytes(data))]

    def poured(what: str, call: Callable[[Any], Any]) -> Any:
        data = bytearray()
        found = story.tell(what, lambda: call(data.extend))
        story.tell(f"{what}: rows", lambda: outcome(lambda: rows(data)[:1] and [len(each) for each in rows(data)]))
        return found

    one = "select * from t where id < :n; select count(*) as n from t"
    poured("run", lambda write: ws.queries.run("asked", one, write, params={"n": 4}))
    poured("run much", lambda write: ws.queries.run("asked", "select * from t", write, limit=15_000))
    poured("run nothing", lambda write: ws.queries.run("asked", "  ", write))
    poured("run what writes", lambda write: ws.queries.run("asked", "delete from t", write))
    poured("run what is wrong", lambda write: ws.queries.run("asked", "select 1; select nothing", write))
    poured("run on nothing", lambda write: ws.queries.run("nothing", "select 1", write))
    change = "update t set x = 'new' where id = 1"
    needed = poured("write", lambda write: ws.queries.write("asked", change, write))
    assert needed.confirm
    assert needed.warnings
    poured("write confirmed", lambda write: ws.queries.write("asked", change, write, confirm=needed.confirm))
    poured(
        "write wrongly confirmed", lambda write: ws.queries.write("asked", f"{change} ", write, confirm=needed.confirm)
    )
    origin = Origin(client="tests", notebook="n.ipynb", cell="1")
    story.tell("explain", lambda: ws.queries.explain("asked", "select * from t where id = 1", origin=origin))
    story.tell("check", lambda: ws.queries.check("asked", "select 1;\n delete from t"))
    story.tell("cancel nothing", lambda: ws.queries.cancel("0" * 32))
    begun = ws.queries.begin("asked", idle_seconds=60)
    assert ws.queries.transactions()[0].id == begun.id
    told = outcome(lambda: ws.queries.write("asked", "delete from t", id, transaction=begun.id))
    ws.queries.write("asked", "delete from t", id, transaction=begun.id, confirm=told.confirm)
    story.tell("within", lambda: ws.query("asked", "select count(*) from t", transaction=begun.id).rows())
    story.tell("roll back", lambda: ws.queries.rollback(begun.id).statements)
    story.tell("commit what was rolled back", lambda: ws.queries.commit(begun.id))
    story.tell("commit nothing", lambda: ws.queries.commit("0" * 32))
    story.tell("begin in the dark", lambda: ws.queries.begin("asked", isolation="dark"))
    made = ws.query("asked", one, params={"n": 3})
    story.tell("in hand", lambda: [made[0].rows(), made.rows(), made.columns, repr(made.truncated)])
    with ws.stream("asked", "select * from t") as streaming:
        story.tell("streamed", lambda: sum(batch.num_rows for batch in streaming))
    files = [bytearray(), bytearray()]
    story.tell(
        "export", lambda: ws.queries.export("asked", one.partition(";")[0], files[0].extend, params={"n": 3}).rows
    )
    story.tell("export: file", lambda: bytes(files[0]))
    story.tell("export a table", lambda: ws.queries.export("asked", "t", files[1].extend, "jsonl", table=True).sha256)
    story.tell("export nothing", lambda: ws.queries.export("asked", "nothing", id, table=True))
    story.tell("compare", lambda: ws.queries.compare("asked", "asked", "select 1 as a", by=["a"]).equal)
    change = RowChange(action="update", old={"id": 1, "x": "é 0"}, new={"x": "é 1"})
    story.tell("draft", lambda: ws.queries.draft("asked", "t", [change]).text)
    story.tell("draft of nothing", lambda: ws.queries.draft("asked", "t", []))
    story.tell("edit", lambda: ws.queries.edit("asked", "t", [change]))
    story.tell("edit nothing", lambda: ws.queries.edit("asked", "nothing", [change]))
    story.tell("history", lambda: [each.text for each in ws.queries.history(Which(failed=True)).items])
    story.tell("everyone's", lambda: len(ws.queries.everyone(Which(search="count", connection="asked")).items))
    story.tell("forget", lambda: ws.queries.forget(Which(outcome="engine.query")))
    story.tell("save", lambda: ws.queries.save("recent", "select :n", connection="asked", params={"n": 3}))
    story.tell("save again", lambda: ws.queries.save("recent", "select 1"))
    story.tell("replace", lambda: ws.queries.save("recent", "select 2", description="two", replace=True))
    story.tell("saved", lambda: ws.queries.saved(search="TWO"))
    story.tell("show", lambda: ws.queries.show("recent"))
    story.tell("show nothing", lambda: ws.queries.show("a/b"))
    story.tell("unsave", lambda: ws.queries.unsave("recent"))


# -------------------------------------------------------------------------------------------------------------------------- test


_told: dict[str, list[Any]] = {}


def told(worlds: tuple[World, World], name: str) -> list[Any]:
    """Return a scenario as both tell it. Each goes on where the one before it ended, whichever tests run in this process."""
    for each, scene in SCENARIOS.items():
        if each not in _told:
            stories = [Story(_shown.setdefault(id(world), Shown(world.folder))) for world in worlds]
            for world, story in zip(worlds, stories, strict=True):
                scene(world, story)
            _told[each] = [story.told for story in stories]
        if each == name:
            break
    return _told[name]


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_both_workspaces_tell_the_same(worlds: tuple[World, World], name: str) -> None:
    here_told, there_told = told(worlds, name)
    assert not [each for _, each in here_told if isinstance(each, tuple) and each[0] == "StoreError"]
    assert [what for what, _ in there_told] == [what for what, _ in here_told]
    for (what, expected), (_, found) in zip(here_told, there_told, strict=True):
        assert found == expected, what


def test_the_store_of_the_service_tells_the_same(worlds: tuple[World, World]) -> None:
    """The audit of both: the same operations with the same outcomes in the same order."""
    told(worlds, list(SCENARIOS)[-1])
    one, other = [
        [(r.action, r.phase, r.outcome, sorted(r.detail)) for r in _all(world) if not r.action.startswith("account.")]
        for world in worlds
    ]
    assert other == one


def _all(world: World) -> list[Any]:
    from dblens.store.audit_find import every

    world.house.journal.flush()
    return [row for row in every(world.house.store, None, Filter()) if row.phase != "read"]


def test_every_operation_that_travels_is_in_a_scenario() -> None:
    text = Path(__file__).read_text()
    called = set(re.findall(r"\b(?:ws|super_admin)\.(\w+)\.(\w+)", text))
    for about in registry.load():
        noun = about.door.rpartition(".")[0].rpartition(".")[2]
        assert (noun, about.method) in called or wire.route(about) is None, about.name


def test_a_wrong_call_is_a_wrong_call(worlds: tuple[World, World]) -> None:
    for world in worlds:
        ws: Workspace = world.workspace
        for wrong in (
            lambda ws=ws: ws.teams.create(),
            lambda ws=ws: ws.teams.create("x", "y"),
            lambda ws=ws: ws.teams.create(nam="x"),
            lambda ws=ws: ws.audit.own(report=print),
        ):
            with pytest.raises(TypeError):
                wrong()
        with pytest.raises(AttributeError):
            ws.nonsense  # type: ignore[attr-defined]  # noqa: B018
