"""`dblens login`, `logout` and `whoami` against a service that really serves."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dblens
from dblens.accounts import configured
from dblens.accounts.limits import Limits
from dblens.cli import run
from dblens.client.login import kept
from dblens.settings import load
from dblens.store import sessions
from dblens.workspace import home
from tests.client.stub import Say, Stub
from tests.client.worlds import NAME, PASSWORD, Served, settle


class Cli:
    """The command line of somebody with a home of their own."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self.capsys, self.patch = url, capsys, monkeypatch

    def __call__(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        self.patch.setattr(sys, "stdin", io.StringIO(stdin))
        status = run(list(args))
        out, err = self.capsys.readouterr()
        assert PASSWORD.reveal() not in out + err
        assert "dbl_pat_" not in out + err
        return status, out, err


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    house, _ = settle(tmp_path_factory.mktemp("service"))
    made = Served(house)
    made.house = house  # type: ignore[attr-defined]
    yield made
    made.close()
    house.close()


@pytest.fixture
def cli(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    configured._of(served.house.store).limits = Limits()  # type: ignore[attr-defined] # one test must not tire out the next
    monkeypatch.setenv("DBLENS_DATA_FOLDER", str(tmp_path / "home"))
    monkeypatch.setenv("DBLENS_URL", served.url)
    monkeypatch.delenv("DBLENS_TOKEN", raising=False)
    return Cli(served.url, capsys, monkeypatch)


def test_login_whoami_logout(cli: Cli, served: Served, tmp_path: Path) -> None:
    status, out, err = cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal() + "\n")
    assert (status, out, err) == (0, f"logged in to {served.url} as {NAME}\n", "")
    (file,) = (tmp_path / "home" / "logins").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert PASSWORD.reveal() not in file.read_text()

    status, out, _ = cli("whoami")
    assert status == 0
    assert dict(line.split("\t") for line in out.splitlines()[1:]) == {
        "name": "ann",
        "organization": "Acme (acme)",
        "role": "admin",
        "by": "login",
        "at": served.url,
    }
    assert dblens.open().account.read().name == NAME

    status, out, err = cli("logout")
    assert (status, out, err) == (0, f"logged out of {served.url}\n", "")
    assert not file.exists()
    status, _, err = cli("whoami")
    assert status == 5
    assert f"dblens login {served.url}" in err
    assert cli("logout")[1] == f"nobody is logged in to {served.url}\n"


def test_the_service_ends_the_session_too(cli: Cli, served: Served) -> None:
    cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())
    token = kept(load(), served.url).get()
    cli("logout")
    cli.patch.setenv("DBLENS_TOKEN", token.reveal())
    status, _, err = cli("whoami")
    assert status == 5
    assert token.reveal() not in err


def test_a_login_in_place_of_another_ends_it(cli: Cli, served: Served) -> None:
    def live() -> int:
        house = served.house  # type: ignore[attr-defined]
        with house.store.read() as tx:
            user = next(iter(tx.execute(sessions.sa.select(sessions.t.users.c.id)).scalars()))
            return len(sessions.list_sessions(tx, user, live_at=house.clock(), limit=200).items)

    before = live()
    for _ in range(3):
        assert cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())[0] == 0
    assert live() == before + 1
    cli("logout")
    assert live() == before


def test_a_wrong_password_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())
    status, out, err = cli("login", "--name", NAME, "--password-file", "-", stdin="wrong-wrong-wrong")
    assert (status, out) == (5, "")
    assert "the name or the password is wrong" in err
    assert "wrong-wrong-wrong" not in err
    assert cli("whoami", "--json")[0] == 0
    cli("logout")


def test_a_password_from_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD.reveal() + "\n")
    status, out, _ = cli("login", "--name", NAME, "--password-file", str(file), "--json")
    assert status == 0
    assert json.loads(out) == {"url": cli.url, "user": NAME, "must_change": False}
    assert cli("login", "--name", NAME, "--password-file", str(tmp_path / "none"))[0] == 2
    cli("logout")


def test_nothing_is_asked_without_a_terminal(cli: Cli) -> None:
    status, _, err = cli("login", "--name", NAME)
    assert status == 2
    assert "--password-file" in err
    assert cli("login")[0] == 2


def test_an_access_token_from_stdin(cli: Cli, served: Served) -> None:
    cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=3)
    issued = dblens.open().tokens.create("ci", ("account.*", "team.list"), until)
    cli("logout")
    status, out, _ = cli("login", "--token", stdin=issued.secret + "\n")
    assert (status, out) == (0, f"logged in to {served.url} as {NAME}\n")
    status, out, _ = cli("whoami", "--json")
    assert status == 0
    assert json.loads(out)["profile"]["kind"] == "token"
    assert (
        cli("logout", "--json")[1]
        == json.dumps({"url": served.url, "was_logged_in": True, "ended": False}, separators=(",", ":")) + "\n"
    )
    assert cli("login", "--token", stdin="dbl_pat_wrong\n")[0] == 5
    assert cli("login", "--token", stdin="two words\n")[0] == 2


def test_a_service_that_is_gone_does_not_keep_one_logged_in(cli: Cli, stub: Stub) -> None:
    cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())
    good = {"access": "a-token", "access_expires_at": "2099-01-01T00:00:00Z", "refresh": "r-token", "name": "ann"}
    stub.answers = [Say(body=json.dumps(good).encode())]
    assert cli("login", stub.url, "--name", NAME, "--password-file", "-", stdin="x")[0] == 0
    stub.answers = [Say(500, b"", kind="text/html")]
    status, out, err = cli("logout", stub.url)
    assert (status, out) == (0, f"logged out of {stub.url}\n")
    assert "did not hear of it" in err
    assert cli("whoami")[0] == 0  # at the other service one is still logged in
    cli("logout")


def test_a_password_is_not_sent_where_others_can_read_it(cli: Cli) -> None:
    status, _, err = cli("login", "http://dblens.invalid", "--name", NAME, "--password-file", "-", stdin="x")
    assert status == 2
    assert "--plain-http" in err


def test_what_stands_in_the_way_is_said(cli: Cli) -> None:
    cli.patch.setenv("DBLENS_TOKEN", "dbl-something")
    _, _, err = cli("login", "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())
    assert "is used instead of this login" in err
    cli.patch.delenv("DBLENS_TOKEN")
    cli("logout")
    cli.patch.delenv("DBLENS_URL")
    assert cli("login")[0] == 2
    _, _, err = cli("login", cli.url, "--name", NAME, "--password-file", "-", stdin=PASSWORD.reveal())
    assert f"when DBLENS_URL is {cli.url}" in err
    cli("logout", cli.url)


def test_who_one_is_at_this_machine(cli: Cli) -> None:
    cli.patch.delenv("DBLENS_URL")
    status, out, _ = cli("whoami", "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["url"], found["profile"]["kind"]) == (None, "local")
    home.close()


def test_a_super_admin_acts_as_one_when_asked_to(cli: Cli, tmp_path: Path) -> None:
    """By name and by an own login only: without `--as` the role in the organization counts."""
    file = tmp_path / "password"
    file.write_text(PASSWORD.reveal())
    file.chmod(0o600)
    assert cli("login", cli.url, "--name", NAME, "--password-file", str(file))[0] == 0
    assert cli("user", "create", "newcomer", "--password-file", str(file))[0] == 5
    status, _, told = cli("user", "create", "newcomer", "--password-file", str(file), "--as", "super_admin")
    assert status == 0, told
    assert cli("user", "list", "--as", "root")[0] == 2
