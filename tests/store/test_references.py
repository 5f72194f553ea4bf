"""References: resolved in the service only, only what its policy names, through no link, and with no value in any message."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dblens.errors import DBLensError, InvalidInput, Unsupported, VaultError
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store.hashicorp import HashiCorp
from dblens.store.references import LARGEST_FILE, Policy, Reference, allow, policy, resolve

CANARY = "Kanari-4711-verschwiegen"
ALONE = Policy(allowed=("env:*", "file:/**", "keyring:**", "vault:**"), team=False)


def team(*allowed: str, **more: Any) -> Policy:
    return Policy(allowed=allowed, team=True, **more)


def told(verb: Callable[[], object], kind: type[DBLensError]) -> str:
    """The error that a verb raises, as whoever sees everything sees it; the canary is not in it."""
    with pytest.raises(kind) as refused:
        verb()
    inside = refused.value.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    shown = "".join(traceback.TracebackException(kind, refused.value, inside, capture_locals=True).format())
    assert CANARY not in shown + repr(refused.value)
    return refused.value.message


# ------------------------------------------------------------------------------------------------------------------------ syntax


@pytest.mark.parametrize(
    "text", ["env:SHOP", "file:/run/secrets/shop", "keyring:shop/me@host", "vault:shop/prod/db#password", "file:/a b/ä"]
)
def test_written_as_read(text: str) -> None:
    reference = Reference.parse(text)
    assert reference.text == text
    assert text.split(":")[0] == reference.kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "env:",
        "env:A B",
        "env:A=B",
        "env:1A",
        "ENV:A",
        "file:a",
        "file:/",
        "file:/a/",
        "file://a",
        "file:/a/../b",
        "file:/./a",
        "file:/a\x00b",
        "file:/a\nb",
        "keyring:x",
        "keyring:/x",
        "vault:a",
        "vault:a#b",
        "vault:a/b",
        "vault:a/../b#c",
        "vault:a/b#",
        "vault:a/b?x=1#c",
        "vault:a/%2e%2e/b#c",
        "vault:a//b#c",
        "vault:/a/b#c",
        f"env:{'A' * 300}",
        CANARY,
        f"http://x/{CANARY}",
        5,
        None,
    ],
)
def test_what_is_no_reference(text: str) -> None:
    assert str(text) not in told(lambda: Reference.parse(text), InvalidInput) or not text


# ------------------------------------------------------------------------------------------------------------------------ policy


def test_a_team_allows_nothing_by_itself(tmp_path: Path) -> None:
    for more in ({"mode": "team"}, {"store_url": "postgresql://h/d"}):
        settings = Settings(**{"store_url": "sqlite:////x", "data_folder": tmp_path, **more})  # type: ignore[arg-type]
        found = policy(settings)
        for text in ("env:HOME", "file:/etc/hostname", "keyring:a/b", "vault:a/b#c"):
            message = told(lambda text=text, found=found: resolve(Reference.parse(text), found), InvalidInput)  # type: ignore[misc]
            assert message == f"the reference {text!r} is not allowed here"
    found = policy(Settings(store_url="sqlite:////x", data_folder=tmp_path))
    assert resolve(Reference.parse("env:HOME"), found, {"HOME": "x"}).reveal() == "x"
    for bad in ("SHOP_*", "env", "env:", "file:run", "http:x"):
        with pytest.raises(InvalidInput, match="is no pattern"):
            policy(Settings(store_url="sqlite:////x", data_folder=tmp_path, references=(bad,)))


@pytest.mark.parametrize(
    ("pattern", "text", "ok"),
    [
        ("env:SHOP_*", "env:SHOP_PASSWORD", True),
        ("env:SHOP_*", "env:XSHOP_PASSWORD", False),
        ("env:SHOP_*", "env:shop_password", False),
        ("env:SHOP", "env:SHOPS", False),
        ("env:S?OP", "env:SHOP", True),
        ("env:S.OP", "env:SHOP", False),
        ("env:*", "env:DBLENS_KEK", False),
        ("env:*", "env:dblens_kek", False),
        ("env:*", "env:VAULT_TOKEN", False),
        ("env:*", "env:JUPYTERHUB_API_TOKEN", False),
        ("vault:shop/*", "vault:shop/db#password", True),
        ("vault:shop/*", "vault:shop/a/db#password", False),
        ("vault:shop/**", "vault:shop/a/db#password", True),
        ("vault:shop/*", "vault:shopping/db#password", False),
        ("vault:shop/db#user", "vault:shop/db#password", False),
        ("keyring:*", "keyring:a/b", False),
        ("keyring:**", "keyring:a/b", False),
        ("file:/run/secrets/*", "file:/run/secrets/a", True),
        ("file:/run/secrets/*", "file:/run/secrets/a/b", False),
        ("file:/run/secrets/*", "file:/run/secretsx", False),
        ("file:/**", "file:/proc/self/environ", False),
        ("file:/**", "file:/sys/x", False),
        ("file:/**", "file:/dev/null", False),
        ("file:*", "env:X", False),
    ],
)
def test_patterns(pattern: str, text: str, ok: bool) -> None:
    assert team(pattern).permits(Reference.parse(text)) is ok
    if ok:
        allow(Reference.parse(text), team(pattern))
    else:
        with pytest.raises(InvalidInput, match="not allowed here"):
            allow(Reference.parse(text), team(pattern))


# ------------------------------------------------------------------------------------------------------------------ env, keyring


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", CANARY)
    assert resolve(Reference.parse("env:SHOP_PASSWORD"), team("env:SHOP_*")) == Secret(CANARY)
    assert "not set" in told(lambda: resolve(Reference.parse("env:SHOP_NONE"), team("env:SHOP_*")), VaultError)
    # A variable that exists and one that does not are refused alike.
    answers = [
        told(lambda n=n: resolve(Reference.parse(f"env:{n}"), team("env:X")), InvalidInput)
        for n in ("SHOP_PASSWORD", "NONE_SUCH")
    ]  # type: ignore[misc]
    assert answers[0].replace("SHOP_PASSWORD", "?") == answers[1].replace("NONE_SUCH", "?")


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    kept = {("shop", "me/you"): CANARY}

    def get(service: str, name: str) -> str | None:
        if service == "locked":
            raise keyring.errors.KeyringLocked(CANARY)
        return kept.get((service, name))

    monkeypatch.setattr(keyring, "get_password", get)
    assert resolve(Reference.parse("keyring:shop/me/you"), ALONE).reveal() == CANARY
    assert "no such entry" in told(lambda: resolve(Reference.parse("keyring:shop/x"), ALONE), VaultError)
    assert "KeyringLocked" in told(lambda: resolve(Reference.parse("keyring:locked/x"), ALONE), VaultError)
    assert "not allowed" in told(
        lambda: resolve(Reference.parse("keyring:shop/me/you"), team("keyring:**")), InvalidInput
    )
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "not installed" in told(lambda: resolve(Reference.parse("keyring:shop/x"), ALONE), Unsupported)


# ------------------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text(f"{CANARY}\n")
    (folder / "deep" / "b").write_text(CANARY)
    (tmp_path / "outside").write_text(CANARY)
    return folder


def read(path: Path | str, allowed: Policy) -> str:
    return resolve(Reference.parse(f"file:{path}"), allowed).reveal()


def test_files(root: Path) -> None:
    assert read(root / "a", team(f"file:{root}/*")) == CANARY
    assert read(root / "deep" / "b", team(f"file:{root}/**")) == CANARY
    assert read(root / "a", ALONE) == CANARY
    assert "cannot be read" in told(lambda: read(root / "none", team(f"file:{root}/*")), VaultError)
    assert "not a file" in told(lambda: read(root / "deep", team(f"file:{root}/*")), VaultError)
    (root / "big").write_text(CANARY * (LARGEST_FILE // len(CANARY) + 1))
    assert "more than" in told(lambda: read(root / "big", team(f"file:{root}/*")), VaultError)
    (root / "binary").write_bytes(b"\xff" + CANARY.encode())
    assert "UTF-8" in told(lambda: read(root / "binary", team(f"file:{root}/*")), VaultError)
    os.mkfifo(root / "pipe")
    assert "not a file" in told(lambda: read(root / "pipe", team(f"file:{root}/*")), VaultError)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a", "deep", "pipe", "none"):
        with contextlib.suppress(DBLensError):
            read(root / name, team(f"file:{root}/*"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_does_not_lead_out(root: Path) -> None:
    allowed = team(f"file:{root}/**")
    (root / "link").symlink_to(root.parent / "outside")
    (root / "folder").symlink_to(root.parent)
    (root / "inner").symlink_to(root / "a")
    (root / "system").symlink_to("/proc/self/environ")
    for name in ("link", "folder/outside", "system"):
        assert "not allowed here" in told(lambda name=name: read(root / name, allowed), InvalidInput)  # type: ignore[misc]
    assert "not allowed here" in told(lambda: read(root / "system", ALONE), InvalidInput)
    assert read(root / "inner", allowed) == CANARY  # within the allowed folder a link is no way out
    named = root.parent / "named"
    named.symlink_to(root)
    assert read(named / "a", team(f"file:{named}/*")) == CANARY  # the administrator named the folder through a link


def test_a_link_that_comes_between_check_and_open_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody swapped the file, or its folder, right after its real place was found."""
    from dblens.store import references

    allowed, real = team(f"file:{root}/**"), references._real
    outside = root.parent / "outside"
    (root.parent / "other").mkdir()
    (root.parent / "other" / "b").write_text(CANARY)

    def swapped(path: Path) -> Path:
        found = real(path)
        if path == root / "a":
            (root / "a").unlink()
            (root / "a").symlink_to(outside)
        if path == root / "deep" / "b":
            (root / "deep").rename(root / "gone")
            (root / "deep").symlink_to(root.parent / "other")
        return found

    monkeypatch.setattr(references, "_real", swapped)
    for path in (root / "a", root / "deep" / "b"):
        assert "cannot be read" in told(lambda path=path: read(path, allowed), VaultError)  # type: ignore[misc]


def test_the_stores_own_files_are_never_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("kek", "store.sqlite"):
        (data / name).write_text(CANARY)
    (tmp_path / "key").write_text(CANARY)
    (tmp_path / "link").symlink_to(data / "kek")
    (tmp_path / "way").symlink_to(data)
    found = policy(
        Settings(store_url=f"sqlite:///{data}/store.sqlite", data_folder=tmp_path / "way", kek_file=tmp_path / "key")
    )
    for path in ("data/kek", "data/store.sqlite", "key", "link", "way/kek"):
        assert "not allowed here" in told(lambda path=path: read(tmp_path / path, found), InvalidInput)  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------------------------- Vault


class Server:
    """A Vault as its API documents it: version 2 of the key-value store at `shop/`, AppRole."""

    def __init__(self) -> None:
        self.tokens = {"root-token-1234"}
        self.seen: list[tuple[str, str]] = []
        self.logins = 0
        self.answer: tuple[int, bytes, dict[str, str]] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers.get("X-Vault-Namespace", "")))
                status, body, headers = outer.get(self.path, self.headers.get("X-Vault-Token"))
                self._send(status, body, headers)

            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/auth/approle/login" or given != {"role_id": "r", "secret_id": CANARY}:
                    return self._send(400, json.dumps({"errors": [f"invalid {given}"]}).encode(), {})
                outer.logins += 1
                outer.tokens = {f"token-{outer.logins}-abcd"}
                auth = {"client_token": f"token-{outer.logins}-abcd", "lease_duration": 3600}
                return self._send(200, json.dumps({"auth": auth}).encode(), {})

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def get(self, path: str, token: str | None) -> tuple[int, bytes, dict[str, str]]:
        if self.answer:
            return self.answer
        if token not in self.tokens:
            return 403, json.dumps({"errors": [f"permission denied {token}"]}).encode(), {}
        if path != "/v1/shop/data/prod/db":
            return 404, b'{"errors": []}', {}
        data = {"password": CANARY, "port": 5432, "note": None}
        return 200, json.dumps({"data": {"data": data, "metadata": {"version": 3}}}).encode(), {}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def ask(hashicorp: HashiCorp | None, text: str = "vault:shop/prod/db#password") -> Secret:
    return resolve(Reference.parse(text), team("vault:shop/**", hashicorp=hashicorp))


def test_vault(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    environ = {"VAULT_ADDR": server.address, "VAULT_TOKEN": "root-token-1234", "VAULT_NAMESPACE": "team/a"}
    vault = HashiCorp.from_environment(environ)
    assert "VAULT_TOKEN" not in environ  # no child process inherits it
    assert ask(vault).reveal() == CANARY
    assert server.seen == [("/v1/shop/data/prod/db", "team/a")]
    for text, message in [
        ("vault:shop/prod/none#password", "nothing there"),
        ("vault:shop/prod/db#none", "no such field"),
        ("vault:shop/prod/db#port", "no such field"),
        ("vault:shop/prod/db#note", "no such field"),
    ]:
        assert message in told(lambda text=text: ask(vault, text), VaultError)  # type: ignore[misc]
    told(lambda: ask(vault, "vault:other/prod/db#password"), InvalidInput)
    server.tokens.clear()
    assert "refuses" in told(lambda: ask(vault), VaultError)
    assert "no Vault is configured" in told(lambda: ask(None), VaultError)
    assert HashiCorp.from_environment({}) is None
    assert "root-token" not in caplog.text + repr(vault)


def test_an_app_role_logs_in_again_when_its_token_was_revoked(server: Server) -> None:
    environ = {"VAULT_ADDR": server.address, "VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": CANARY}
    vault = HashiCorp.from_environment(environ)
    assert "VAULT_SECRET_ID" not in environ
    assert [ask(vault).reveal(), ask(vault).reveal(), server.logins] == [CANARY, CANARY, 1]
    server.tokens.clear()
    assert [ask(vault).reveal(), server.logins] == [CANARY, 2]
    wrong = HashiCorp(server.address, role_id="x", secret_id=Secret(CANARY))
    assert "refuses the service's role (400)" in told(lambda: ask(wrong), VaultError)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((302, b"", {"Location": "http://127.0.0.1:1/"}), "answers 302"),
        ((503, f'{{"sealed": "{CANARY}"}}'.encode(), {}), "answers 503"),
        ((200, CANARY.encode(), {}), "no such field"),
        ((200, b"[" * 100_000, {}), "no such field"),
        ((200, b'{"data": []}', {}), "no such field"),
        ((200, b"\xff\xfe", {}), "no such field"),
    ],
)
def test_a_strange_vault(server: Server, answer: tuple[int, bytes, dict[str, str]], message: str) -> None:
    server.answer = answer
    assert message in told(lambda: ask(HashiCorp(server.address, token=Secret("root-token-1234"))), VaultError)
    assert len(server.seen) == 1  # no redirect was followed with the token


def test_where_vault_may_be() -> None:
    for address in (
        "http://vault.example.org:8200",
        "ftp://127.0.0.1",
        "vault",
        "http://me:pw@127.0.0.1",
        "https://h?x=1",
    ):
        with pytest.raises(InvalidInput):
            HashiCorp(address, token=Secret("x"))
    with pytest.raises(InvalidInput, match="token or a role"):
        HashiCorp("https://vault.example.org", role_id="r")
    assert "does not answer" in told(lambda: ask(HashiCorp("http://127.0.0.1:1", token=Secret(CANARY))), VaultError)
