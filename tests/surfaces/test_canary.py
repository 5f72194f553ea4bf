"""Passwords that are known to the test go every way there is; then they are looked for, in every spelling, everywhere something is kept.

The scene is played once: a team's service with everything logged, the command line, the client, and a workspace in this process, over a
PostgreSQL role that really has the password. Each channel is searched for each secret; and each channel's search is shown to find one.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

import dblens
from dblens.client import connect
from dblens.errors import DBLensError
from dblens.redaction import Secret
from dblens.settings import Settings, load
from dblens.workspace import home
from dblens.workspace.ways import NewConnection, Way
from tests.attacks.served import DEBUG, ROOT, Served, ended
from tests.servers import Postgres
from tests.surfaces.detector import Watch, canary, hits, opened, rows, spellings, stored

# ---------------------------------------------------------------------------------------------------------------------- the scene


class Scene:
    """What was played, and what is left of it."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        self.folder, self.server = folder, server
        self.secrets: dict[str, str] = {
            name: canary(name)
            for name in ("db", "wrong", "account", "changed", "reset", "typed", "other", "smtp", "webhook", "library")
        }
        self.channels: dict[str, bytes] = {}
        self.did: list[str] = []
        self.took: list[tuple[float, str]] = []
        self.answers: list[bytes] = []
        self.said: list[bytes] = []
        self.shown: list[bytes] = []
        self.pickles: list[bytes] = []
        self.traces: list[bytes] = []
        self.logged = io.StringIO()

    # ---- steps

    def play(self) -> None:
        self.roles()
        (self.folder / "sources").mkdir()
        self.source = self.folder / "sources" / "left.sqlite"
        with contextlib.closing(sqlite3.connect(self.source)) as db:
            db.execute("create table item (id integer primary key, name text)")
            db.executemany("insert into item values (?, ?)", ((i, f"row {i}") for i in range(500)))
            db.commit()
        self.file = self.folder / "password"
        self.file.write_text(self.secrets["db"])
        self.file.chmod(0o600)
        (self.folder / "team").mkdir(mode=0o700)
        service = Served(
            self.folder / "team", mode="team", debug=True, DBLENS_REACH_LOOPBACK="true",
            DBLENS_SQLITE_ROOTS=str(self.folder / "sources"),
        )  # fmt: skip
        handler = logging.StreamHandler(self.logged)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(1)
        try:
            with Watch() as watch, service:
                self.api(service)
                self.client(service)
                self.command_line(service)
                self.library()
                self.last(service)
            self.channels["processes"] = watch.all()
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        self.keep(service)

    def roles(self) -> None:
        """Make a role that has the password, with databases of its own."""
        with self.server.connect() as db:
            for name, word in (("canary", "db"), ("canary_library", "library")):
                db.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(sql.Identifier(name), sql.Literal(self.secrets[word])))  # fmt: skip
                for n in range(4):
                    db.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(
                            sql.Identifier(f"{name}_{n}"), sql.Identifier(name)
                        )
                    )
        parts = urllib.parse.urlsplit(self.server.url("canary_0"))
        self.place = f"{parts.hostname}:{parts.port}"
        with psycopg.connect(
            host=parts.hostname, port=parts.port, user="canary", password=self.secrets["db"], dbname="canary_0"
        ):
            pass
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(
                host=parts.hostname, port=parts.port, user="canary", password=self.secrets["wrong"], dbname="canary_0"
            )

    def url(self, n: int, user: str = "canary", password: str | None = None) -> str:
        login = user if password is None else f"{user}:{urllib.parse.quote(password, safe='')}"
        return f"postgresql://{login}@{self.place}/{user}_{n}"

    def api(self, service: Served) -> None:
        code = re.search(r"code for the set-up: (\S+)", service.log.read_text())
        assert code is not None
        self.http = httpx.Client(base_url=f"{service.url}/api/v1", timeout=60)
        word = self.secrets
        self.ask("POST", "/auth/set-up", {"name": "root", "password": word["account"], "code": code[1], "organization": "acme", "email": "root@example.org"}, want=204)  # fmt: skip
        self.ask("POST", "/auth/login", {"name": "root", "password": word["wrong"]}, want=401)
        self.ask("POST", "/auth/login", {"name": word["typed"], "password": word["account"]}, want=401)
        self.ask("POST", "/auth/login", {"name": "root", "password": [word["account"]]}, want=422)
        self.log_in("root", word["account"], "access")
        self.ask(
            "POST", "/account/password", {"current": word["account"], "new": word["changed"]}, want=204, also=(200,)
        )
        self.log_in("root", word["changed"], "access2")
        root = {"X-DBLens-As": "super_admin"}
        made = self.ask(
            "POST",
            "/users",
            {"name": "bob", "email": "bob@example.org", "password": word["other"]},
            root,
            want=201,
            issues=True,
        )
        issued = self.ask("POST", f"/users/{made.get('id', 'bob')}/reset", {}, root, want=200, issues=True)
        self.issued("reset link", issued["token"])
        self.ask(
            "POST", "/auth/password/reset", {"token": "wrong" + issued["token"], "password": word["reset"]}, want=401
        )
        self.ask("POST", "/auth/password/reset", {"token": issued["token"], "password": word["reset"]}, want=204)
        smtp = {"host": "127.0.0.1", "port": 9, "sender": "dblens@example.org", "user": "mailer"}
        self.ask(
            "PATCH", "/settings", {"name": "smtp", "value": smtp, "secrets": {"password": word["smtp"]}}, root, want=200
        )
        self.ask("POST", "/settings/test-mail", {"to": "root@example.org"}, root)
        hook = {"name": "ops", "url": "http://127.0.0.1:9/hook"}
        self.ask(
            "PATCH",
            "/settings",
            {"name": "webhooks", "value": {"hooks": [hook]}, "secrets": {"ops": word["webhook"]}},
            want=200,
        )
        self.ask("POST", "/settings/test-webhook", {"webhook": "ops"})
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
        issued = self.ask(
            "POST",
            "/tokens",
            {
                "name": "ci",
                "scopes": ["connection.*", "migration.*", "verify.*", "run.*", "account.*", "template.*"],
                "expires_at": until,
            },
            want=201,
            issues=True,
        )
        self.pat = issued["secret"]
        self.issued("access token", self.pat)
        self.did.append(
            "account: set-up, logins, a wrong one, a name that is a password, change, reset, tokens, mail, webhook"
        )

        new = {"name": "right", "url": self.url(0, password=word["db"])}
        self.ask("POST", "/connections", {"new": new}, want=201)
        self.ask(
            "POST",
            "/connections",
            {"new": {"name": "beside", "url": self.url(1), "secrets": {"password": word["db"]}}},
            want=201,
        )
        self.ask(
            "POST",
            "/connections",
            {"new": {"name": "bad", "url": self.url(1), "secrets": {"password": word["wrong"]}}},
            want=201,
        )
        self.ask("POST", "/connections", {"new": {"name": "left", "url": f"sqlite:///{self.source}"}}, want=201)
        self.ask(
            "POST",
            "/connections",
            {"new": {"name": "x", "url": self.url(1, password=word["db"]), "surprise": word["db"]}},
        )
        self.ask("POST", "/connections", {"new": {"name": "x", "secrets": {"password": [word["db"]]}}}, want=422)
        self.ask(
            "POST",
            "/connections",
            {"new": {"name": "x", "url": f"{self.url(1, password=word['db'])}?passfile=/x"}},
            want=422,
        )
        for name in ("right", "beside"):
            assert self.ask("GET", f"/connections/{name}/test", want=200)["ok"] is True
        assert self.ask("GET", "/connections/bad/test", want=200)["ok"] is False
        self.ask("POST", "/connections/try", {"way": {"url": self.url(0, password=word["wrong"])}}, want=200)
        self.ask("POST", "/connections/try", {"way": {"url": self.url(0, password=word["db"])}}, want=200)
        self.ask("POST", "/connections/right/duplicate", {"name": "double"}, want=200, also=(201,))
        self.ask("GET", "/connections")
        self.ask("GET", "/connections/right", want=200)
        document = self.ask("GET", "/connections/export", want=200)
        self.ask("POST", "/connections/import", {"document": document, "existing": "skip"}, want=200)
        self.did.append("connections: made, tried, tested, wrong, copied, exported, imported")

        plan = self.run("/migrations/plan", {"source": "left", "target": "right"})
        applied = {"plan": plan["id"], "hash": plan["hash"]}
        self.run("/migrations/apply", applied)
        self.run("/migrations/verify", applied)
        self.run("/migrations/compare", {"source": "left", "target": "right"})
        self.run("/migrations/rollback", {"target": "right"})
        self.run("/migrations/plan", {"source": "left", "target": "bad"}, state="failed")
        self.run("/migrations/clone", {"source": "left", "name": "copy", "on": "right", "database": "canary_clone"})
        body = {
            "name": "nightly",
            "source": "left",
            "target": "beside",
            "configuration": {"options": {"existing": "replace"}},
        }
        self.ask("POST", "/templates", body, want=201)
        self.run("/templates/nightly/run", {})
        self.did.append("migrations: plan, apply, verify, compare, rollback, a wrong password, clone, template")

    def log_in(self, name: str, password: str, label: str) -> None:
        made = self.ask("POST", "/auth/login", {"name": name, "password": password}, want=200, issues=True)
        self.issued(label, made["access"])
        self.issued(f"{label}, refresh", made["refresh"])
        fresh = self.ask("POST", "/auth/refresh", {"refresh": made["refresh"]}, want=200, issues=True)
        self.issued(f"{label}, renewed", fresh["access"])
        self.issued(f"{label}, renewed refresh", fresh["refresh"])
        self.http.headers["Authorization"] = f"Bearer {fresh['access']}"

    def issued(self, name: str, text: str) -> None:
        """Note a secret that the service made. Its head is the same for all of a kind, so its end is looked for."""
        self.secrets[name] = text[-40:]

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None, *, want: int | None = None, also: tuple[int, ...] = (), issues: bool = False) -> Any:  # fmt: skip
        answer = self.http.request(method, path, json=body, headers=headers)
        assert want is None or answer.status_code in (want, *also), (method, path, answer.status_code, answer.text)
        assert answer.status_code < 500 or answer.status_code in (501, 502, 503, 504), (method, path, answer.text)
        self.answers.append(repr(sorted(answer.headers.items())).encode())
        if not issues:
            self.answers.append(answer.content)
        return answer.json() if answer.content else None

    def run(self, path: str, body: Any, state: str = "succeeded") -> Any:
        started = time.monotonic()
        begun = self.ask("POST", path, body, want=202)
        done = ended(self.http, begun["id"], 90)
        assert done["state"] == state, (path, done)
        self.took.append((round(time.monotonic() - started, 1), path))
        self.ask("GET", f"/runs/{begun['id']}", want=200)
        self.ask("GET", f"/runs/{begun['id']}/log", want=200)
        self.answers.append(self.http.get(f"/runs/{begun['id']}/events").content)
        return self.ask("GET", f"/runs/{begun['id']}/result")

    def client(self, service: Served) -> None:
        """The same over the client, in this process: objects, their pickles, and errors."""
        settings = Settings(
            store_url="sqlite:////nowhere", data_folder=self.folder, url=service.url, token=Secret(self.pat)
        )
        workspace = connect(settings)
        word = self.secrets
        made = workspace.connections.create(
            NewConnection(name="by-client", url=Secret(self.url(2)), secrets={"password": Secret(word["db"])})
        )
        self.show(
            settings,
            workspace,
            workspace.connections,
            made,
            workspace.connections.list(),
            workspace.connections.test("by-client"),
        )
        self.fail(
            lambda: workspace.connections.create(
                NewConnection(name="by-client", url=Secret(self.url(2, password=word["db"])))
            )
        )
        self.show(workspace.connections.try_(Way(url=Secret(self.url(2, password=word["wrong"])))))
        plan = workspace.migrations.plan("left", "by-client")
        self.show(plan, workspace.migrations.apply(plan.id, plan.hash), workspace.runs.list(), workspace.account.read())
        self.show(workspace.migrations.verify("left", "by-client"))
        self.fail(lambda: workspace.migrations.plan("left", "bad"))
        self.fail(lambda: workspace.connections.read("nowhere"))
        workspace.migrations.rollback("by-client")
        self.did.append("client: connection, wrong password, plan, apply, verify, rollback")

    def command_line(self, service: Served) -> None:
        """Each command as a process of its own; passwords by file and by stdin."""
        word, team = self.secrets, {"DBLENS_URL": service.url, "XDG_CONFIG_HOME": str(self.folder / "cli"), "DBLENS_DATA_FOLDER": str(self.folder / "cli")}  # fmt: skip
        (self.folder / "cli").mkdir(mode=0o700)
        self.cli(team, "login", service.url, "--name", "root", "--password-file", "-", stdin=word["wrong"], code=None)
        self.cli(team, "login", service.url, "--name", "root", "--password-file", "-", stdin=word["changed"])
        self.cli(team, "whoami", "--json")
        self.cli(
            team, "connection", "create", "by-cli", "--url", self.url(3), "--password-file", str(self.file), "--json"
        )
        self.cli(team, "connection", "create", "refused", "--url", self.url(3, password="x"), code=None)
        for what in (["test", "by-cli"], ["list"], ["show", "by-cli", "--json"], ["export"], ["test", "bad"]):
            self.cli(team, "connection", *what, code=None)
        planned = self.cli(team, "migrate", "plan", "left", "by-cli", "--json")
        plan = json.loads(planned)
        self.cli(team, "migrate", "apply", plan["id"], "--hash", plan["hash"])
        self.cli(team, "migrate", "verify", plan["id"], code=None)
        self.cli(team, "migrate", "rollback", "by-cli")
        self.cli(team, "run", "list")
        self.cli(team, "audit", "export", code=None)
        alone = {"DBLENS_DATA_FOLDER": str(self.folder / "alone"), "XDG_CONFIG_HOME": str(self.folder / "alone")}
        (self.folder / "alone").mkdir(mode=0o700)
        book = self.folder / "proof.ipynb"
        source, target = f"sqlite:///{self.source}", self.url(3)
        # The notebook's kernel is a process of its own. The way that leaves nothing in its environment is libpq's own file.
        passwords = self.folder / "pgpass"
        passwords.write_text(f"*:*:*:canary:{word['db'].replace(chr(92), chr(92) * 2).replace(':', chr(92) + ':')}\n")
        passwords.chmod(0o600)
        self.cli(
            {**alone, "PGPASSFILE": str(passwords)}, "migrate", "notebook", source, target, "-o", str(book), "--sign"
        )
        assert book.exists()
        self.cli(alone, "migrate", "status", target, "--password", f"@{self.file}", code=None)
        wrong = self.folder / "wrong"
        wrong.write_text(word["wrong"])
        wrong.chmod(0o600)
        self.cli(alone, "migrate", "plan", source, target, "--target-password", f"@{wrong}", code=None)
        self.cli(
            {**alone, "DBLENS_DEBUG": "1"},
            "migrate",
            "plan",
            source,
            target,
            "--target-password",
            f"@{wrong}",
            code=None,
        )
        self.cli(alone, "connection", "create", "own", "--url", target, "--password-file", str(self.file))
        self.cli(alone, "connection", "test", "own")
        self.did.append(
            "command line: login, a wrong one, connection, plan, apply, verify, rollback, notebook, tracebacks"
        )

    def cli(self, env: dict[str, str], *args: str, stdin: str = "", code: int | None = 0) -> str:
        begun = time.monotonic()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DBLENS_")}
        for start in ([sys.executable, "-c", DEBUG],):
            ran = subprocess.run(
                [*start, *args],
                input=stdin,
                capture_output=True,
                text=True,
                cwd=ROOT,
                env={**kept, **env},
                timeout=180,
                check=False,
            )
            self.said += [ran.stdout.encode(), ran.stderr.encode()]
            self.took.append((round(time.monotonic() - begun, 1), " ".join(args[:2])))
            assert code is None or ran.returncode == code, (args, ran.returncode, ran.stdout[-500:], ran.stderr[-3000:])
        return ran.stdout

    def library(self) -> None:
        """In this process, over a store of one's own."""
        word, place = self.secrets, self.folder / "library"
        place.mkdir(mode=0o700)
        before = {name: os.environ.get(name) for name in ("DBLENS_DATA_FOLDER", "XDG_CONFIG_HOME")}
        os.environ |= {"DBLENS_DATA_FOLDER": str(place), "XDG_CONFIG_HOME": str(place)}
        try:
            workspace = dblens.open()
            made = workspace.connections.create(
                NewConnection(name="mine", url=Secret(self.url(0, "canary_library", word["library"])))
            )
            workspace.connections.create(NewConnection(name="left", url=Secret(f"sqlite:///{self.source}")))
            house = home.house(load())
            line = house.lines.line(house.owner.org_id, made.id)
            self.show(
                workspace,
                workspace.connections.context,
                workspace.connections,
                made,
                house,
                house.lines,
                house.keyring,
                house.settings,
                line,
                line.spec,
            )
            with contextlib.closing(line.connect()) as session:
                self.show(session)
            line.close()
            self.show(workspace.connections.test("mine"), workspace.connections.export(["mine"]))
            self.show(workspace.connections.try_(Way(url=Secret(self.url(0, "canary_library", word["wrong"])))))
            plan = workspace.migrations.plan("left", "mine")
            self.show(plan, workspace.migrations.apply(plan.id, plan.hash), workspace.migrations.status("mine"))
            self.fail(lambda: workspace.migrations.plan("left", self.url(0, "canary_library", word["wrong"])))
            self.fail(
                lambda: workspace.connections.create(
                    NewConnection(name="mine", url=Secret(self.url(0, "canary_library", word["library"])))
                )
            )
            self.fail(
                lambda: workspace.connections.create(
                    NewConnection(name="x", url=Secret(f"{self.url(0, 'canary_library', word['library'])}?a=b"))
                )
            )
            workspace.migrations.rollback("mine")
            self.show(workspace.runs.list(), workspace.audit.read())
        finally:
            home.close()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        self.did.append("library: connection, wrong password, plan, apply, rollback")

    def show(self, *things: object) -> None:
        """Keep what objects say of themselves, and their pickles where there are any."""
        for thing in things:
            self.shown += [repr(thing).encode(), str(thing).encode(), f"{thing!a}".encode()]
            if hasattr(thing, "__dict__"):
                self.shown.append(repr(vars(thing)).encode())
            for protocol in (0, 5):
                with contextlib.suppress(TypeError, pickle.PicklingError, AttributeError):
                    self.pickles.append(pickle.dumps(thing, protocol))

    def fail(self, do: Callable[[], object]) -> None:
        """Do what goes wrong, and keep how it is told."""
        with pytest.raises(DBLensError) as caught:
            do()
        error = caught.value
        self.traces.append("".join(traceback.format_exception(error)).encode())
        self.show(error, error.args)

    def last(self, service: Served) -> None:
        """Ask for what is told at the end, while the service still runs."""
        self.channels["audit"] = self.http.get("/audit/export", params={"format": "jsonl"}).content
        self.channels["audit"] += self.http.get("/audit/export", params={"format": "csv"}).content
        self.channels["openapi"] = self.http.get("/openapi.json").content
        backup = self.folder / "backup.dblens"
        env = {k: v for k, v in service.env.items() if k.startswith(("DBLENS_", "XDG_"))}
        self.cli(env, "store", "backup", str(backup))
        self.cli(env, "store", "check", code=None)
        self.channels["backup"] = opened(backup.read_bytes())
        self.channels["store"] = stored(self.folder / "team")  # with what is in the write-ahead log still
        self.channels["store"] += stored(self.folder / "library") + stored(self.folder / "alone")

    def keep(self, service: Served) -> None:
        self.channels["store"] += stored(self.folder / "team")
        self.channels["rows"] = rows(self.folder / "team" / "store.sqlite")
        self.channels["service's log"] = service.log.read_bytes() + service.out.read_bytes()
        self.channels["answers"] = b"\n".join(self.answers)
        self.channels["commands' output"] = b"\n".join(self.said)
        self.channels["objects"] = b"\n".join(self.shown)
        self.channels["pickles"] = b"\n".join(self.pickles)
        self.channels["tracebacks"] = b"\n".join(self.traces)
        self.channels["this process' log"] = self.logged.getvalue().encode()
        self.channels["notebook"] = (self.folder / "proof.ipynb").read_bytes()
        self.channels["login file"] = b"".join(
            p.read_bytes() for p in (self.folder / "cli").rglob("*") if p.is_file() and "login" not in p.name
        )
        for name in ("kek", "audit-key"):
            self.secrets[name] = (self.folder / "team" / name).read_text().strip()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pg15: Postgres) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("canary"), pg15)
    try:
        made.play()
        yield made
    finally:
        with pg15.connect() as db:
            for (name,) in db.execute("select datname from pg_database where datname like 'canary%'").fetchall():
                db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for name in ("canary", "canary_library"):
                db.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
        shutil.rmtree(made.folder, ignore_errors=True)


CHANNELS = (
    "service's log", "answers", "commands' output", "processes", "notebook", "objects", "pickles", "tracebacks", "audit", "openapi",
    "store", "rows", "backup", "this process' log", "login file",
)  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("channel", CHANNELS)
def test_no_secret_is_anywhere(scene: Scene, channel: str) -> None:
    data = scene.channels[channel]
    assert data or channel == "login file", "nothing was kept of this channel, so nothing could be found"
    found = {name: (where, _around(data, text)) for name, text in scene.secrets.items() if (where := hits(data, text))}
    assert not found, f"{channel}: {found}"


def _around(data: bytes, text: str) -> bytes:
    for form in spellings(text).values():
        at = data.find(form)
        if at >= 0:
            return data[max(0, at - 150) : at] + b"<<<HERE>>>" + data[at + len(form) : at + len(form) + 80]
    return b""


def test_every_way_was_gone(scene: Scene) -> None:
    print(*scene.did, sep="\n")
    assert len(scene.did) == 6
    assert set(scene.channels) == set(CHANNELS)
    assert len(scene.secrets) > 15


# ------------------------------------------------------------------------------------------------------- the detector finds something


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_secret_in_any_spelling_is_found_in_the_channel(scene: Scene, channel: str) -> None:
    data, text = scene.channels[channel], canary("planted")
    assert not hits(data, text)
    middle = len(data) // 2
    for name, form in spellings(text).items():
        assert name in hits(data[:middle] + form + data[middle:], text), name
    inside = base64.b64encode(b"password=" + text.encode() + b"; more")
    assert hits(inside, text)


def test_a_planted_secret_is_found_where_it_is_planted(scene: Scene, tmp_path: Path) -> None:
    """The collecting too: a process, a row of the store, a log, an object, a pickle and a traceback that hold one."""
    text = canary("planted")
    with Watch() as watch:
        for argv, env in (
            (["-c", "import time; time.sleep(0.5)", text], {}),
            (["-c", "import time; time.sleep(0.5)"], {"X": text}),
        ):
            subprocess.run([sys.executable, *argv], env={**os.environ, **env}, check=True)
            watch.look()
    assert "raw" in hits(watch.seen and b"".join(v for (_, what), v in watch.seen.items() if what == "cmdline"), text)
    assert "raw" in hits(b"".join(v for (_, what), v in watch.seen.items() if what == "environ"), text)

    store = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table t (a)")
        db.execute("insert into t values (?)", (text,))
        db.commit()
        assert hits(stored(tmp_path), text), "in the write-ahead log"
        assert hits(rows(store), text)

    empty = Scene(tmp_path, scene.server)
    empty.show({"password": text}, settings := Settings(store_url=f"postgresql://{text}@h/d", data_folder=tmp_path))
    assert settings
    assert hits(b"".join(empty.shown), text)
    assert hits(b"".join(empty.pickles), text)

    def wrong() -> None:
        raise DBLensError(f"cannot log in with {text}")

    empty.fail(wrong)
    assert hits(b"".join(empty.traces), text)
    (tmp_path / "own").mkdir(mode=0o700)
    empty.cli({"DBLENS_DATA_FOLDER": str(tmp_path / "own")}, "connection", "show", text, code=None)
    assert hits(b"".join(empty.said), text), "what a command says is kept"
