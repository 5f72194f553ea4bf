"""`dblens schema` as a program: data on stdout, the rest on stderr, exit codes, passwords never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dblens import cli
from dblens.cli import output, passwords
from dblens.cli.passwords import Given
from dblens.engines.base import Url
from dblens.errors import DBLensError, InvalidInput
from dblens.schema import types as t
from dblens.schema.model import Column, Index, IndexPart, Key, Schema, Table, View

ROOT = Path(__file__).resolve().parents[2]
New = Callable[..., str]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dblens", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )


def stored(folder: Path, name: str, *columns: Column, **more: object) -> str:
    """Write a stored schema and return its path."""
    table = Table(namespace="main", name="t", columns=columns, primary_key=Key(name=None, columns=("id",)))
    schema = Schema(engine="sqlite", version="3.40", database="d", namespaces=("main",), tables=(table,), **more)  # type: ignore[arg-type]
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.encode(schema))
    return str(path)


ID = Column(name="id", type=t.Integer(), native="integer", nullable=False)
NOTE = Column(name="note", type=t.Text(), native="text")


def test_help_is_quick_and_shows_examples() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run("--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert "schema" in done.stdout
    print(f"--help: {min(seconds):.3f} s")
    shown = run("schema", "diff", "--help").stdout
    assert "dblens schema diff shop.json" in " ".join(shown.split())


def test_version() -> None:
    from dblens import __version__

    assert run("--version").stdout == f"dblens {__version__}\n"


def test_diff_of_stored_schemas_lists_changes(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a", ID, NOTE), stored(tmp_path, "b", ID)
    done = run("schema", "diff", a, b)
    assert done.returncode == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["object", "change", "risk", "reason"]
    assert lines[1][:3] == ["main.t", "drop column note text", "destructive"]
    assert "1 change, 1 destructive" in done.stderr


def test_exit_code_only_on_request(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a", ID, NOTE), stored(tmp_path, "b", ID)
    assert run("schema", "diff", a, b, "--exit-code").returncode == 1
    same = run("schema", "diff", a, a, "--exit-code")
    assert (same.returncode, same.stdout) == (0, "")
    assert "no differences" in same.stderr


def test_diff_as_json(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a", ID), stored(tmp_path, "b", ID, NOTE)
    document = json.loads(run("schema", "diff", a, b, "--json").stdout)
    assert document["equal"] is False
    assert document["changes"][0]["change"] == "AddColumn"
    assert (document["destructive"], document["blocking"]) == (0, 0)
    assert document["a"]["engine"] == "sqlite"


def test_show_of_a_stored_schema(tmp_path: Path) -> None:
    view = View(namespace="main", name="v", definition="create view v as select 1")
    path = stored(tmp_path, "a", ID, NOTE, views=(view,))
    shown = run("schema", "show", path)
    assert "  t  (table)" in shown.stdout
    assert "    id    integer  primary key, not null" in shown.stdout
    assert "  v  (view)" in shown.stdout
    assert shown.stderr == ""
    assert msgspec.json.decode(run("schema", "show", path, "--json").stdout, type=Schema).views == (view,)
    assert "  v  (view)" not in run("schema", "show", path, "--table", "t").stdout


def test_names_cannot_drive_the_terminal(tmp_path: Path) -> None:
    evil = Column(name="\x1b[31mred\x1b[0m\nnext [bold]x[/]", type=t.Text(), native="text")
    shown = run("schema", "show", stored(tmp_path, "a", ID, evil)).stdout
    assert "\x1b" not in shown
    assert r"\x1b[31mred\x1b[0m\nnext [bold]x[/]" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["schema", "show", "nonsense"], 4, "no connection"),
        (["schema", "show", "oracle://h/d"], 2, "unknown URL scheme"),
        (["schema", "show", "missing.json"], 4, "no such file"),
        (["schema", "show", "postgresql://u:sesame@h/d"], 2, "holds a password"),
        (["schema", "show", "postgresql://u@h/d?password=sesame"], 2, "holds a password"),
        (["schema", "show", "postgresql://u@h/d", "--password", "sesame"], 2, "every process can see it"),
        (["schema", "show", "postgresql://u@h/d", "--password", "@/nowhere/at/all"], 4, "no such password file"),
        (["schema", "show", "postgresql://u@h/d", "--password-env", "NOT_SET_ANYWHERE"], 2, "is not set"),
        (["schema", "show", "{a}", "--table", "zzz"], 2, "no table matches zzz"),
        (["schema", "show", "{a}", "--sql", "--json"], 2, "together"),
        (["schema", "show"], 2, "Missing argument"),
        (["schema", "nonsense"], 2, "No such command"),
        (["schema", "diff", "{a}", "{a}", "--ignore", "everything"], 2, "not an option"),
        (["schema", "diff", "{a}", "{a}", "--by", "feeling"], 2, "not an option"),
        (["schema", "diff", "{a}", "{a}", "--map", "x"], 2, "not B=NAME"),
        (["schema", "diff", "{a}", "{a}", "--rename-table", "main.nope=x"], 2, "no table main.nope"),
        (["schema", "diff", "{a}", "{a}", "--rename-column", "a=b"], 2, "not NS.TABLE.OLD=NAME"),
        (["schema", "diff", "{a}", "{broken}"], 2, "holds no stored schema"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_one_clear_error(arguments: list[str], code: int, words: str, as_json: bool, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"engine": 7}')
    paths = {"a": stored(tmp_path, "a", ID), "broken": str(broken)}
    filled = [x.format(**paths) if "{" in x else x for x in arguments]
    done = run(*filled, *(["--json"] if as_json and "--json" not in filled else []))
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "sesame" not in done.stderr
    assert "Traceback" not in done.stderr
    if as_json or "--json" in filled:
        error = json.loads(done.stderr)["error"]
        assert words in error["message"]
        assert error["exit"] == code
    else:
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n\nhint: ") == 1 or any(
            each in words for each in ("not NS", "not B=", "no connection")
        )


def test_unexpected_error_is_short_and_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = stored(tmp_path, "a", ID)

    def fail(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("dblens.cli.tree.tree", fail)
    monkeypatch.delenv("DBLENS_DEBUG", raising=False)
    assert cli.run(["schema", "show", path]) == 1
    short = capsys.readouterr().err
    assert short.startswith("error: unexpected KeyError: 'surprise'\n\nhint: ")
    assert "DBLENS_DEBUG=1" in short
    monkeypatch.setenv("DBLENS_DEBUG", "1")
    assert cli.run(["schema", "show", path]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dblens.cli.tree.tree", stop)
    assert cli.run(["schema", "show", stored(tmp_path, "a", ID)]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dblens", "schema", "show", stored(tmp_path, "a", ID)]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = stored(tmp_path, "a", ID, Column(name="größe ☃", type=t.Text(), native="text"))
    command = [sys.executable, "-m", "dblens", "schema", "show", path]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment, timeout=60, check=True)
    assert "größe ☃" in done.stdout.decode("utf-8")


# ---------------------------------------------------------------------------------------------------------------- passwords

PG = Url(scheme="postgresql", host="db", port=5432, user="me", database="shop")
MY = Url(scheme="mysql", host="db", user="me", database="shop")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGPASSFILE", raising=False)
    return tmp_path


def secret(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_variable_and_file_come_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret(home / ".pgpass", "*:*:*:*:from-pgpass\n")
    monkeypatch.setenv("SECRET", "from:env'%@\\\n")
    (home / "file").write_text("from file \n")
    assert passwords.resolve(PG, "source", Given(env="SECRET")) == "from:env'%@\\\n"
    assert passwords.resolve(PG, "source", Given(file=f"@{home}/file")) == "from file "
    assert passwords.resolve(PG, "source") == "from-pgpass"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("db:5432:shop:me:right", "right"),
        ("*:*:*:me:right", "right"),
        ("other:5432:shop:me:wrong\ndb:5432:*:me:right", "right"),
        ("# db:5432:shop:me:wrong\ndb:5432:shop:me:a:b\\:c\\\\d", "a:b:c\\d"),
        ("db:5433:shop:me:wrong", None),
        ("db:5432:shop:you:wrong", None),
        ("db:5432:shop", None),
    ],
)
def test_pgpass(line: str, found: str | None, home: Path) -> None:
    secret(home / ".pgpass", line + "\n")
    assert passwords.resolve(PG, "source") == found


def test_a_pgpass_that_others_can_read_is_ignored(home: Path) -> None:
    secret(home / ".pgpass", "*:*:*:*:x\n", 0o644)
    assert passwords.resolve(PG, "source") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[client]\npassword=right", "right"),
        ('!includedir /etc/x\n[client]\nuser = me\npassword = "ri#g\\\\ht"\nskip-ssl\n', "ri#g\\ht"),
        ("[client]\npassword=wrong\n[mysql]\npassword='right'", "right"),
        ("[client]\nuser=you\npassword=wrong", None),
        ("[client]\nhost=other\npassword=wrong", None),
        ("[mysqld]\npassword=wrong", None),
        ("not an ini file", None),
    ],
)
def test_my_cnf(text: str, found: str | None, home: Path) -> None:
    secret(home / ".my.cnf", text)
    assert passwords.resolve(MY, "target") == found


def test_files_need_no_password(home: Path) -> None:
    assert home
    assert passwords.resolve(Url(scheme="sqlite", database="x.db"), "source") is None


def test_prompt_only_on_a_terminal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "typed"

    monkeypatch.setattr("getpass.getpass", ask)
    assert passwords.resolve(PG, "target") is None
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert passwords.resolve(PG, "target") == "typed"
    assert asked == ["Password for target me@db/shop (empty: none): "]


def test_passwords_are_cut_out_of_messages(capsys: pytest.CaptureFixture[str]) -> None:
    url, password = passwords.address("postgresql://u:open%3Asesame@h/d", "source", allow_in_url=True)
    assert password == "open:sesame"
    assert "sesame" not in repr(url) + str(url)
    output.error("the server said open:sesame", "not open:sesame", "x", 1)
    output.note("open:sesame")
    assert "sesame" not in capsys.readouterr().err


def test_address_refuses_by_default() -> None:
    with pytest.raises(InvalidInput) as caught:
        passwords.address("mysql://u:sesame@h/d", "source")
    assert "sesame" not in str(caught.value)


def test_every_error_class_keeps_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = stored(tmp_path, "a", ID)
    from dblens import errors

    for kind in (
        errors.NotAuthenticated,
        errors.Conflict,
        errors.ConnectionFailed,
        errors.StalePlan,
        errors.StoreError,
    ):

        def fail(*_: object, error: type[DBLensError] = kind) -> None:
            raise error("it failed", hint="do this")

        monkeypatch.setattr("dblens.cli.tree.tree", fail)
        assert cli.run(["schema", "show", path]) == kind.exit
        assert capsys.readouterr().err == "error: it failed\n\nhint: do this\n"


# ------------------------------------------------------------------------------------------------------------ with databases


def test_sqlite_show_sql_and_drift(tmp_path: Path) -> None:
    from dblens import engines

    path = tmp_path / "shop.db"
    with closing(engines.connect(Url(scheme="sqlite", database=str(path)), create=True)) as session:
        session.execute("create table t (id integer primary key, note text)")
    url = f"sqlite:///{path}"
    saved = tmp_path / "saved.json"
    saved.write_text(run("schema", "show", url, "--json").stdout)
    assert run("schema", "diff", str(saved), url, "--exit-code").returncode == 0
    with closing(engines.connect(Url(scheme="sqlite", database=str(path)))) as session:
        session.execute("create index i on t (note)")
    drift = run("schema", "diff", str(saved), url, "--sql", "--exit-code")
    assert drift.returncode == 1
    assert "create unique index" not in drift.stdout.lower()
    assert "index" in drift.stdout.lower()
    assert drift.stdout.rstrip().endswith(";")
    assert "create table" in run("schema", "show", url, "--sql").stdout.lower()


def test_script_keeps_names_inside_comments(tmp_path: Path) -> None:
    evil = Index(name="i\ndrop table t; --", parts=(IndexPart(column="id"),), kind="fulltext\ndrop table t; --")
    a = stored(tmp_path, "a", ID)
    schema = msgspec.json.decode(Path(a).read_bytes(), type=Schema)
    table = msgspec.structs.replace(schema.tables[0], indexes=(evil,))
    b = tmp_path / "b.json"
    b.write_bytes(msgspec.json.encode(msgspec.structs.replace(schema, tables=(table,))))
    script = run("schema", "diff", a, str(b), "--sql").stdout
    assert not [line for line in script.splitlines() if line.startswith("drop table")]
