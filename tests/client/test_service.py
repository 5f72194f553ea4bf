"""What is sent again and what is not, whose token goes where, and every way in which a service fails."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dblens import errors
from dblens.client.address import address, on_this_machine, plain
from dblens.client.problems import problem
from dblens.client.service import Service
from dblens.errors import ConnectionFailed, DBLensError, InvalidInput, NotFound
from dblens.redaction import Secret
from tests.client import stub as s
from tests.client.conftest import CANARY
from tests.client.stub import Say, Stub

Make = Callable[..., Service]


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# ----------------------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("status", [502, 503])
def test_what_reads_is_asked_again_when_a_proxy_fails(stub: Stub, service: Make, status: int) -> None:
    stub.answers = [Say(status, b"bad gateway", kind="text/html"), Say(body=b"1")]
    assert service().request("GET", "/x").body == b"1"
    assert len(stub.asked) == 2


def test_it_is_asked_four_times_and_no_more(stub: Stub, service: Make) -> None:
    stub.answers = [Say(503, b"", kind="text/html")]
    with pytest.raises(ConnectionFailed, match=f"{stub.url} answers 503"):
        service().request("GET", "/x")
    assert len(stub.asked) == 4


def test_a_database_that_cannot_be_reached_is_an_answer(stub: Stub, service: Make) -> None:
    stub.answers = [s.problem(502, "engine.connection", "no database at db:5432", hint="is it up?")]
    with pytest.raises(ConnectionFailed, match="no database at db:5432") as caught:
        service().request("GET", "/x")
    assert caught.value.hint == "is it up?"
    assert len(stub.asked) == 1


def test_a_store_that_fails_is_asked_again(stub: Stub, service: Make) -> None:
    stub.answers = [s.problem(503, "store.failed"), Say(body=b"2")]
    assert service().request("GET", "/x").body == b"2"


@pytest.mark.parametrize("say", [Say(silent=True), Say(body=b"[1", cut=True)])
def test_what_changes_something_is_not_sent_twice(stub: Stub, service: Make, say: Say) -> None:
    stub.answers = [say, Say()]
    with pytest.raises(ConnectionFailed, match="no answer from") as caught:
        service().request("DELETE", "/x")
    assert "whether it was done is not known" in str(caught.value)
    assert len(stub.asked) == 1


def test_under_its_key_it_is_sent_once_more(stub: Stub, service: Make) -> None:
    stub.answers = [Say(silent=True), Say(201, b"3")]
    assert service().request("POST", "/x", body=lambda: b"{}", key="k1").body == b"3"
    assert [a.headers["idempotency-key"] for a in stub.asked] == ["k1", "k1"]
    assert [a.body for a in stub.asked] == [b"{}", b"{}"]


def test_under_its_key_it_is_not_sent_a_third_time(stub: Stub, service: Make) -> None:
    stub.answers = [Say(silent=True)]
    with pytest.raises(ConnectionFailed):
        service().request("POST", "/x", body=lambda: b"{}", key="k1")
    assert len(stub.asked) == 2


def test_a_first_one_that_is_still_at_work_is_waited_for(stub: Stub, service: Make) -> None:
    busy = s.problem(409, "conflict", "the same request is at work")
    busy.headers = {"Retry-After": "1"}
    stub.answers = [Say(silent=True), busy, busy, Say(201, b"4")]
    assert service().request("POST", "/x", body=lambda: b"{}", key="k1").body == b"4"


def test_a_conflict_at_the_first_try_is_a_conflict(stub: Stub, service: Make) -> None:
    busy = s.problem(409, "conflict", "the same request is at work")
    busy.headers = {"Retry-After": "1"}
    stub.answers = [busy]
    with pytest.raises(errors.Conflict):
        service().request("POST", "/x", body=lambda: b"{}", key="k1")
    assert len(stub.asked) == 1


def test_a_service_that_does_not_listen_is_named(service: Make, dead: str) -> None:
    tried: list[float] = []
    with pytest.raises(ConnectionFailed, match=f"no answer from {dead}: .*[Cc]onnection refused") as caught:
        service(dead, sleep=tried.append).request("DELETE", "/x")
    assert len(tried) == 3  # it was certainly never sent
    assert "is the service up?" in str(caught.value)


def test_a_silence_that_is_too_long_ends(stub: Stub, service: Make) -> None:
    stub.answers = [Say(before=lambda: time.sleep(1))]
    with pytest.raises(ConnectionFailed, match="said nothing for too long"):
        service().request("GET", "/x", seconds=0.1)
    assert len(stub.asked) == 1


def test_connections_are_kept(stub: Stub, service: Make) -> None:
    one = service()
    for _ in range(3):
        one.request("GET", "/x")
    assert len({asked.peer for asked in stub.asked}) == 1


def test_threads_share_it(stub: Stub, service: Make) -> None:
    one, failed = service(), list[BaseException]()

    def work() -> None:
        try:
            for _ in range(10):
                assert one.request("GET", "/x").body == b"null"
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(stub.asked) == 60


def test_a_forked_child_opens_its_own_connections(stub: Stub, service: Make) -> None:
    one = service()
    one.request("GET", "/parent")
    child = os.fork()
    if child == 0:
        try:
            one.request("GET", "/child")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    one.request("GET", "/parent")
    peers = {asked.path: asked.peer for asked in stub.asked}
    assert peers["/child"] != peers["/parent"]


# ------------------------------------------------------------------------------------------------------------------ token, proxy


def test_a_redirect_is_not_followed(stub: Stub, service: Make) -> None:
    other = Stub()
    try:
        stub.answers = [Say(307, b"", {"Location": f"{other.url}/steal?x=1"})]
        with pytest.raises(ConnectionFailed, match="redirect") as caught:
            service().request("GET", "/x")
        assert not other.asked
        assert other.url in str(caught.value)
        assert "x=1" not in str(caught.value)
    finally:
        other.close()


def test_no_cookie_is_kept(stub: Stub, service: Make) -> None:
    stub.answers = [Say(headers={"Set-Cookie": "a=b; Path=/"}), Say()]
    one = service()
    one.request("GET", "/x")
    one.request("GET", "/x")
    assert "cookie" not in stub.asked[1].headers


def test_no_proxy_stands_between_here_and_here(stub: Stub, service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert service().request("GET", "/x").status == 200


def test_another_machine_is_asked_through_the_proxy_of_the_environment(
    stub: Stub, service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", stub.url)
    assert service("http://dblens.invalid").request("GET", "/x").status == 200
    assert stub.asked[0].path == "http://dblens.invalid/x"


def test_certificates_are_verified(service: Make, tmp_path: Any) -> None:
    import ssl
    import subprocess

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    made = Stub()
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        made._server.socket = context.wrap_socket(made._server.socket, server_side=True)
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            service(made.url.replace("http://127.0.0.1", "https://localhost")).request("GET", "/x")
        assert not made.asked
    finally:
        made.close()


class Renewing:
    """A bearer with one more token."""

    def __init__(self) -> None:
        self.now, self.renewed = Secret("old-old-old"), 0

    def get(self) -> Secret:
        return self.now

    def renew(self, used: Secret) -> Secret:
        self.renewed += 1
        self.now = Secret("new-new-new")
        return self.now


def test_a_refused_token_is_renewed_once(stub: Stub) -> None:
    stub.answers = [s.problem(401, "auth.required"), Say(body=b"5")]
    bearer = Renewing()
    assert Service(stub.url, bearer).request("POST", "/x", body=lambda: b"{}").body == b"5"
    assert [a.headers["authorization"] for a in stub.asked] == ["Bearer old-old-old", "Bearer new-new-new"]
    stub.answers = [s.problem(401, "auth.required", "no")]
    with pytest.raises(errors.NotAuthenticated, match="no"):
        Service(stub.url, bearer).request("GET", "/x")
    assert len(stub.asked) == 4
    assert bearer.renewed == 2


def test_a_login_that_is_too_old_is_not_renewed(stub: Stub) -> None:
    told = s.problem(401, "auth.required", "log in again")
    told.headers = {"WWW-Authenticate": 'Bearer error="insufficient_user_authentication", max_age=900'}
    stub.answers = [told]
    bearer = Renewing()
    with pytest.raises(errors.NotAuthenticated, match="log in again"):
        Service(stub.url, bearer).request("GET", "/x")
    assert bearer.renewed == 0


def test_the_organization_is_told(stub: Stub, service: Make) -> None:
    service(organization="acmé").request("GET", "/x")
    assert stub.asked[0].headers["x-dblens-organization"] == "acm%C3%A9"
    assert stub.asked[0].headers["authorization"] == f"Bearer {CANARY}"


# ------------------------------------------------------------------------------------------------------------------------ errors


TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DBLensError)]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_itself(stub: Stub, service: Make, kind: type[DBLensError]) -> None:
    stub.answers = [s.problem(kind.http, kind.code, "what failed", hint="do this")]
    with pytest.raises(kind, match="what failed") as caught:
        service().request("DELETE", "/x")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("what failed", "do this")
    assert str(caught.value) == "what failed\n\nhint: do this"


def test_every_error_of_the_tree_has_a_code_of_its_own() -> None:
    assert len({kind.code for kind in TREE}) == len(TREE) > 20


def test_errors_know_what_they_knew() -> None:
    limited = problem({"code": "rate.limited", "detail": "slow", "retry_after": 7})
    assert isinstance(limited, errors.RateLimited)
    assert limited.retry_after == 7
    refused = problem({"code": "unsupported", "detail": "x is not supported: y", "feature": "x", "why": "y"})
    assert isinstance(refused, errors.Unsupported)
    assert (refused.feature, refused.why, refused.message) == ("x", "y", "x is not supported: y")
    unequal = problem({"code": "verify.failed", "detail": "no", "verdict": {"equal": False}})
    assert isinstance(unequal, errors.VerificationFailed)
    assert unequal.verdict == {"equal": False}
    assert type(problem({"code": "of.tomorrow", "detail": "new"})) is DBLensError


def test_limits_tell_when_to_come_back(stub: Stub, service: Make) -> None:
    stub.answers = [Say(429, b"slow down", {"Retry-After": "12"}, "text/plain")]
    with pytest.raises(errors.RateLimited) as caught:
        service().request("GET", "/x")
    assert caught.value.retry_after == 12


def test_what_no_dblens_said_is_said_to_be_so(stub: Stub, service: Make) -> None:
    stub.answers = [Say(404, b"<html>nothing here</html>", kind="text/html")]
    with pytest.raises(NotFound, match="answers 404"):
        service().request("GET", "/x")


# ----------------------------------------------------------------------------------------------------------------------- address


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://DBLENS.example.org/", "https://dblens.example.org"),
        ("https://h:443/services/dblens/", "https://h/services/dblens"),
        ("http://127.0.0.1:8503", "http://127.0.0.1:8503"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_address_is_kept_in_one_way(given: str, kept: str) -> None:
    assert address(given) == kept


@pytest.mark.parametrize(
    "given",
    ["", "dblens", "ftp://h", "http://", "https://ann:pw12@h", "https://h?token=pw12", "https://h:x", "http://[::1"],
)
def test_what_is_no_address_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        address(given)
    assert "pw12" not in str(caught.value)


def test_where_others_can_listen() -> None:
    assert on_this_machine("http://localhost:1")
    assert on_this_machine("http://[::1]:1")
    assert not on_this_machine("http://10.0.0.1")
    assert plain("http://dblens.example.org")
    assert not plain("http://127.0.0.1:8503")
    assert not plain("https://dblens.example.org")
