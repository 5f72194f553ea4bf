"""The end of a run is told: in the list of who is concerned, by a real mail server, to a real receiver that checks the signature."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.engines.access import guard
from dblens.errors import ConnectionFailed, DBLensError, InvalidInput, PermissionDenied, TimedOut
from dblens.redaction import Secret
from dblens.store.database import Store
from dblens.workspace import deliver, webhook
from dblens.workspace.deliver import Deliverer
from dblens.workspace.operation import Door, operation
from dblens.workspace.registry import Table
from tests.accounts.test_mail import Box, Server, authenticator, certificate
from tests.store.conftest import store
from tests.workspace.rooms import Rooms, move_in

__all__ = ["certificate", "store"]
SECRET = "a-secret-of-the-webhook"
LONG = Table()


class Working(Door):
    """Something that takes long."""

    @operation("migration.apply", mutates=True, long=True, table=LONG)
    def work(self, fail: bool) -> int:
        """Work."""
        if fail:
            raise InvalidInput("no such thing")
        return 1


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    opened = Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}")
    opened.create_all()
    made = move_in(opened, tmp_path)
    made.house.deliverer = Deliverer(made.house, waits=(0.02, 0.02))
    made.house.on_end[:] = [made.house.deliverer.ended]
    yield made
    made.house.close()


def texts(rooms: Rooms, org: str, role: str, name: str | None = None) -> list[str]:
    return [item.text for item in rooms.doors(org, role, name).notifications.list().items]


# ----------------------------------------------------------------------------------------------------------------- notifications


def test_the_end_of_a_real_run_is_in_the_list_of_who_began_it(store: Store, tmp_path: Path) -> None:
    rooms = move_in(store, tmp_path)
    who = rooms.person("acme", "developer")
    door = Working(rooms.house.context(who))
    assert door.work(False) == 1
    with pytest.raises(InvalidInput):
        door.work(True)
    assert texts(rooms, "acme", "developer") == ["migration.apply failed", "migration.apply succeeded"]
    item = rooms.doors("acme", "developer").notifications.list().items[0]
    assert item.kind == "run.ended"
    assert item.run_id
    assert texts(rooms, "acme", "admin") == []
    rooms.house.close()


def test_a_crashed_run_is_told_too(rooms: Rooms) -> None:
    who = rooms.person("acme", "developer")
    rooms.house.deliverer.ended(msgspec.structs.replace(rooms.run("acme", who, "failed"), state="crashed"))
    assert texts(rooms, "acme", "developer") == ["migration.apply crashed"]


def test_who_wants_failures_only_hears_of_them_only(rooms: Rooms) -> None:
    who = rooms.person("acme", "developer")
    mine = rooms.doors("acme", "developer").notifications
    for ends, expected in (("none", 0), ("failed", 1), ("all", 2)):
        mine.prefer(ends=ends)  # type: ignore[arg-type]
        before = len(mine.list().items)
        for state in ("succeeded", "failed"):
            rooms.house.deliverer.ended(rooms.run("acme", who, state))
        assert len(mine.list().items) - before == expected


def test_an_owner_may_ask_for_the_runs_of_others(rooms: Rooms) -> None:
    owner, other = rooms.person("acme", "admin"), rooms.person("acme", "developer")
    there = rooms.connection("acme", "shop", owner.user_id, host="h", database="d")
    rooms.house.deliverer.ended(rooms.run("acme", other, "succeeded", there))
    assert texts(rooms, "acme", "admin") == []
    rooms.doors("acme", "admin").notifications.prefer(others=True)
    rooms.house.deliverer.ended(rooms.run("acme", other, "failed", there))
    assert texts(rooms, "acme", "admin") == ["migration.apply on shop failed"]


def test_a_part_of_a_run_and_who_left_are_not_told(rooms: Rooms) -> None:
    who = rooms.person("acme", "developer")
    whole = rooms.run("acme", who, "succeeded")
    rooms.house.deliverer.ended(rooms.run("acme", who, "failed", parent_id=whole.id))
    assert texts(rooms, "acme", "developer") == []
    from dblens.store import organizations

    with rooms.house.store.write() as tx:
        organizations.remove_member(tx, rooms.orgs["acme"], who.user_id, must_remain=())
    rooms.house.deliverer.ended(whole)
    rooms.house.deliverer.ended(rooms.run("acme", None, "succeeded"))


def test_a_text_is_one_line(rooms: Rooms) -> None:
    who = rooms.person("acme", "developer")
    name = "shop\r\nBcc: all@example.org\u202e<img src=x onerror=alert(1)>\x1b[31m"
    there = rooms.connection("acme", name, who.user_id, host="h", database="d")
    rooms.house.deliverer.ended(rooms.run("acme", who, "succeeded", there))
    (text,) = texts(rooms, "acme", "developer")
    assert text.isprintable()
    assert "\u202e" not in text


def test_what_goes_wrong_while_telling_is_not_the_runs(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(deliver, "_facts", broken)
    rooms.house.deliverer.ended(rooms.run("acme", rooms.person("acme", "developer"), "succeeded"))


# -------------------------------------------------------------------------------------------------------------------------- mail


@pytest.fixture
def post_office(certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Box, int]]:
    """A mail server that wants TLS and a login; its certificate is known here."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    box = Box()
    server = Server(
        box, hostname="localhost", port=0, tls_context=certificate[1], require_starttls=True, auth_required=True,
        authenticator=authenticator,
    )  # fmt: skip
    server.start()
    yield box, server.port
    server.stop()


def mailing(rooms: Rooms, port: int) -> None:
    rooms.doors("acme", "super_admin").settings.update(
        "smtp",
        {"host": "localhost", "port": port, "sender": "DBLens <dblens@example.org>", "user": "dblens"},
        secrets={"password": Secret("canary-of-mail")},
    )


def test_who_chose_mail_gets_one(rooms: Rooms, post_office: tuple[Box, int]) -> None:
    box, port = post_office
    mailing(rooms, port)
    who = rooms.person("acme", "developer")
    rooms.house.deliverer.ended(rooms.run("acme", who, "succeeded"))
    rooms.doors("acme", "developer").notifications.prefer(mail=True)
    there = rooms.connection("acme", "a\r\nBcc: all@example.org <b>", who.user_id, host="h", database="d")
    rooms.house.deliverer.ended(rooms.run("acme", who, "failed", there))
    assert rooms.house.deliverer.wait()
    ((envelope, encrypted, _),) = box.got
    assert encrypted
    assert envelope.rcpt_tos == ["acme-developer@example.org"]
    letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert letter.get_content_type() == "text/plain"
    assert letter["Bcc"] is None
    assert letter["Subject"] == "DBLens: migration.apply on a  Bcc: all@example.org <b> failed"
    assert "row 7 of shop" in letter.get_content()


def test_a_mail_is_tried_and_the_answer_is_told(rooms: Rooms, post_office: tuple[Box, int]) -> None:
    box, port = post_office
    mailing(rooms, port)
    door = rooms.doors("acme", "super_admin").settings
    assert door.test_mail("ann@example.org").to == "ann@example.org"
    assert len(box.got) == 1
    door.update("smtp", {"user": "dblens"}, secrets={"password": Secret("the wrong one")})
    with pytest.raises(DBLensError, match="refused the login"):
        door.test_mail("ann@example.org")
    with pytest.raises(InvalidInput):
        door.test_mail("ann@example.org\r\nBcc: b@example.org")


# ---------------------------------------------------------------------------------------------------------------------- webhooks


class Receiver:
    """A real HTTP server; it keeps what it got, and answers what it is told to."""

    def __init__(self, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.got: list[tuple[dict[str, str], bytes, str]] = []
        self.statuses: list[int] = []
        self.location = ""
        self.drip = 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body, self.path))
                try:
                    self._answer()
                except OSError:
                    return

            def _answer(self) -> None:
                for _ in range(int(outer.drip * 20)):
                    self.wfile.write(b"H")
                    self.wfile.flush()
                    time.sleep(0.05)
                self.send_response(outer.statuses.pop(0) if outer.statuses else 204)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def hook(rooms: Rooms, url: str, **more: Any) -> Any:
    door = rooms.doors("acme", "admin").settings
    door.update("webhooks", {"hooks": [{"name": "ops", "url": url, **more}]}, secrets={"ops": Secret(SECRET)})
    return door


def ends(rooms: Rooms, state: str = "succeeded") -> None:
    rooms.house.deliverer.ended(rooms.run("acme", rooms.person("acme", "developer"), state))
    assert rooms.house.deliverer.wait()


def test_a_post_is_signed_and_says_what_ended(rooms: Rooms, receiver: Receiver) -> None:
    door = hook(rooms, f"http://127.0.0.1:{receiver.port}/in?x=1")
    who = rooms.person("acme", "developer")
    there = rooms.connection("acme", "<script>\n&shop", who.user_id, host="h", database="d")
    run = rooms.run("acme", who, "failed", there)
    rooms.house.deliverer.ended(run)
    assert rooms.house.deliverer.wait()
    ((headers, body, path),) = receiver.got
    assert path == "/in?x=1"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    signed = f"{headers['x-dblens-timestamp']}.".encode() + body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["x-dblens-signature"] == f"v1={expected}"
    document = json.loads(body)
    assert document["event"] == headers["x-dblens-event"] == "run.ended"
    assert document["run"]["id"] == run.id
    assert document["run"]["error"] == "engine.query"
    assert b"row 7" not in body, "an error's text may say what is in a database"
    assert b"<" not in body
    assert b"\\n" not in body
    (done,) = door.deliveries()
    assert (done.ok, done.status, done.attempts, done.run_id, done.webhook) == (True, 204, 1, run.id, "ops")


def test_it_is_tried_again_when_that_may_help_and_not_for_ever(rooms: Rooms, receiver: Receiver) -> None:
    door = hook(rooms, f"http://127.0.0.1:{receiver.port}/")
    receiver.statuses = [500, 429, 200]
    ends(rooms)
    assert len({headers["x-dblens-delivery"] for headers, _, _ in receiver.got}) == 1
    assert [(d.ok, d.attempts) for d in door.deliveries()] == [(True, 3)]
    receiver.statuses = [503] * 9
    ends(rooms)
    assert len(receiver.got) == 6
    assert (door.deliveries()[0].ok, door.deliveries()[0].error) == (False, "http.503")
    receiver.statuses = [400]
    ends(rooms)
    assert len(receiver.got) == 7
    assert door.deliveries()[0].attempts == 1


def test_nobody_is_followed_elsewhere(rooms: Rooms, receiver: Receiver) -> None:
    other = Receiver()
    door = hook(rooms, f"http://127.0.0.1:{receiver.port}/")
    receiver.statuses, receiver.location = [302], f"http://127.0.0.1:{other.port}/inner"
    ends(rooms)
    other.close()
    assert other.got == []
    assert len(receiver.got) == 1
    assert door.deliveries()[0].error == "http.302"


def test_only_failures_when_only_failures_are_wanted(rooms: Rooms, receiver: Receiver) -> None:
    hook(rooms, f"http://127.0.0.1:{receiver.port}/", ends="failed")
    ends(rooms)
    assert receiver.got == []
    ends(rooms, "failed")
    assert len(receiver.got) == 1


def test_another_organizations_webhook_hears_nothing(rooms: Rooms, receiver: Receiver) -> None:
    hook(rooms, f"http://127.0.0.1:{receiver.port}/")
    rooms.house.deliverer.ended(rooms.run("beta", rooms.person("beta", "developer"), "succeeded"))
    assert rooms.house.deliverer.wait()
    assert receiver.got == []
    assert rooms.doors("beta", "admin").settings.deliveries() == []


def test_a_test_says_at_once_how_it_ended(rooms: Rooms, receiver: Receiver) -> None:
    door = hook(rooms, f"http://127.0.0.1:{receiver.port}/")
    assert door.test_webhook("ops").ok
    receiver.close()
    done = door.test_webhook("ops")
    assert not done.ok
    assert "refuses connections" in (done.error or "")
    assert [d.event for d in door.deliveries()] == ["test", "test"]


def test_only_the_last_deliveries_are_kept(rooms: Rooms, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "KEPT", 3)
    door = hook(rooms, f"http://127.0.0.1:{receiver.port}/")
    ids = [door.test_webhook("ops").id for _ in range(5)]
    assert [d.id for d in door.deliveries()] == list(reversed(ids))[:3]


def test_a_receiver_that_answers_slowly_is_given_up(receiver: Receiver) -> None:
    receiver.drip = 5
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        webhook.post(f"http://127.0.0.1:{receiver.port}/", b"{}", {}, guard.SINGLE_USER, seconds=0.5)
    assert time.monotonic() - begun < 2


def test_a_receiver_that_never_shakes_hands_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(TimedOut):
            webhook.post(f"https://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {}, guard.SINGLE_USER, seconds=0.5)
        assert time.monotonic() - begun < 2


def test_tls_is_for_the_name(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., list[str]]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    receiver = Receiver(certificate[1])
    resolve({"localhost": ["127.0.0.1"], "other.example.org": ["127.0.0.1"]})
    assert webhook.post(f"https://localhost:{receiver.port}/", b"{}", {}, guard.SINGLE_USER) == 204
    with pytest.raises(ConnectionFailed, match="certificate"):
        webhook.post(f"https://other.example.org:{receiver.port}/", b"{}", {}, guard.SINGLE_USER)
    receiver.close()
    assert len(receiver.got) == 1


# -------------------------------------------------------------------------------------------------------------- attack 11: SSRF


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Answer for names: each answer is one look-up, the last one stays. What was asked is returned."""
    real, asked = socket.getaddrinfo, []
    answers: dict[str, list[str]] = {}

    def fake(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in answers:
            return real(host, *args, **kwargs)
        asked.append(host)
        left = answers[host]
        found = left.pop(0) if len(left) > 1 else left[0]
        return [entry for one in found.split() for entry in real(one, *args, **kwargs)]

    def made(table: dict[str, list[str]]) -> list[str]:
        answers.update(table)
        return asked

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return made


FORBIDDEN = (
    "127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0",
    "[::]", "169.254.169.254", "[::ffff:169.254.169.254]", "169.254.170.2", "168.63.129.16", "100.100.100.200",
    "[fd00:ec2::254]", "[fe80::1]", "metadata.google.internal", "10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1",
    "[fc00::1]", "224.0.0.1", "255.255.255.255", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "inner.example.org",
    "half.example.org",
)  # fmt: skip
NOT_EVEN_HOSTS = ("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "a,b", "１２７.0.0.1")


@pytest.mark.parametrize("host", FORBIDDEN)
def test_a_webhook_does_not_lead_inside(rooms: Rooms, resolve: Callable[..., Any], host: str) -> None:
    resolve({"inner.example.org": ["10.1.2.3"], "half.example.org": ["93.184.216.34 127.0.0.1"]})
    rooms.house.lines.policy = guard.TEAM
    with pytest.raises(PermissionDenied):
        hook(rooms, f"https://{host}/")
    with pytest.raises(PermissionDenied):
        webhook.post(f"https://{host}/", b"{}", {}, guard.TEAM)


@pytest.mark.parametrize("host", NOT_EVEN_HOSTS)
def test_a_webhooks_host_has_one_spelling(rooms: Rooms, host: str) -> None:
    for policy in (guard.TEAM, guard.SINGLE_USER):
        rooms.house.lines.policy = policy
        with pytest.raises(InvalidInput):
            hook(rooms, f"https://{host}/")
        with pytest.raises(InvalidInput):
            webhook.post(f"https://{host}/", b"{}", {}, policy)


def test_a_team_posts_over_tls_only(rooms: Rooms) -> None:
    rooms.house.lines.policy = guard.TEAM
    with pytest.raises(InvalidInput, match="http://"):
        hook(rooms, "http://93.184.216.34/")
    with pytest.raises(InvalidInput, match="http://"):
        webhook.post("http://93.184.216.34/", b"{}", {}, guard.TEAM)


def test_a_name_that_leads_elsewhere_later_is_refused_then(
    rooms: Rooms, receiver: Receiver, resolve: Callable[..., Any]
) -> None:
    resolve({"rebind.example.org": ["93.184.216.34", "127.0.0.1"]})
    rooms.house.lines.policy = guard.TEAM
    door = hook(rooms, f"https://rebind.example.org:{receiver.port}/")
    ends(rooms)
    assert receiver.got == []
    (done,) = door.deliveries()
    assert (done.ok, done.attempts) == (False, 1), "what is refused is not tried again"
    assert "loopback" in (done.error or "")


def test_what_was_checked_is_what_is_dialled(receiver: Receiver, resolve: Callable[..., list[str]]) -> None:
    """DNS rebinding between the check and the connection: the second answer is never asked for."""
    other = Receiver(address="127.0.0.2")
    asked = resolve({"rebind.example.org": ["127.0.0.1", "127.0.0.2"]})
    webhook.post(f"http://rebind.example.org:{receiver.port}/", b"{}", {}, guard.SINGLE_USER)
    other.close()
    assert asked == ["rebind.example.org"]
    assert len(receiver.got) == 1
    assert receiver.got[0][0]["host"] == f"rebind.example.org:{receiver.port}"
