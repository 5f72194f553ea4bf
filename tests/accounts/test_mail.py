"""Letters and a real conversation with a mail server."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from dblens.accounts.mail import Letters, Mail, Outbox, Smtp, deliver, message
from dblens.errors import InvalidInput, MailFailed

MAIL = Mail(to="ada@example.org", subject="DBLens: grüße", text="Ein Link:\n.\nhttps://x/y#token=abc\n")
SENDER = "DBLens Ümlaut <dblens@example.org>"


class Server(Controller):
    """Listens at a port that is free."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Box:
    def __init__(self) -> None:
        self.got: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if b"refuse me" in envelope.content:
            return "550 no\r\n"
        self.got.append((envelope, session.ssl is not None, session.authenticated))
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        made.serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    )
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256()
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return folder / "ca.pem", context


def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"dblens", b"canary-of-mail")
    return AuthResult(success=good, handled=good)


@pytest.fixture
def starttls(certificate: tuple[Path, ssl.SSLContext]) -> Iterator[tuple[Box, Smtp]]:
    box = Box()
    server = Server(
        box,
        hostname="localhost",
        port=0,
        tls_context=certificate[1],
        require_starttls=True,
        auth_required=True,
        authenticator=authenticator,
    )
    yield from serving(server, box, certificate[0], "starttls")


@pytest.fixture
def tls(certificate: tuple[Path, ssl.SSLContext]) -> Iterator[tuple[Box, Smtp]]:
    box = Box()
    server = Server(box, hostname="localhost", port=0, ssl_context=certificate[1])
    yield from serving(server, box, certificate[0], "tls")


def serving(server: Controller, box: Box, ca: Path, security: Any) -> Iterator[tuple[Box, Smtp]]:
    server.start()
    with_login = {"user": "dblens", "password": "canary-of-mail"} if security == "starttls" else {}
    yield (
        box,
        Smtp(
            host="localhost",
            port=server.port,
            sender=SENDER,
            security=security,
            ca_file=str(ca),
            timeout=5,
            **with_login,
        ),
    )
    server.stop()


@pytest.mark.parametrize("kind", ["starttls", "tls"])
def test_a_letter_arrives_encrypted(kind: str, request: pytest.FixtureRequest) -> None:
    box, smtp = request.getfixturevalue(kind)
    deliver(smtp, MAIL)
    ((envelope, encrypted, authenticated),) = box.got
    assert encrypted or kind == "tls"  # there nothing else is spoken
    assert authenticated or kind == "tls"
    got = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert envelope.rcpt_tos == ["ada@example.org"]
    assert (got["To"], got["Subject"], got["Auto-Submitted"]) == ("ada@example.org", MAIL.subject, "auto-generated")
    assert got.get_content().replace("\r\n", "\n") == MAIL.text
    assert got["From"] == SENDER


def test_what_goes_wrong_is_told_without_a_secret(starttls: tuple[Box, Smtp], certificate: tuple[Path, Any]) -> None:
    import msgspec

    box, smtp = starttls
    wrong = msgspec.structs.replace(smtp, password="canary-wrong")
    for setting, told in (
        (wrong, "refused the login"),
        (msgspec.structs.replace(smtp, ca_file=None), "SSLCertVerificationError"),  # not believed without its authority
        (msgspec.structs.replace(smtp, host="127.0.0.1"), "SSLCertVerificationError"),  # another name
        (msgspec.structs.replace(smtp, security="tls"), "did not take"),
        (msgspec.structs.replace(smtp, port=1), "ConnectionRefusedError"),
        (msgspec.structs.replace(smtp, ca_file="/nowhere/ca.pem"), "FileNotFoundError"),
        (msgspec.structs.replace(smtp, host="a" * 70 + ".example"), "did not take"),
    ):
        with pytest.raises(MailFailed, match=told) as caught:
            deliver(setting, MAIL)
        assert "canary" not in f"{caught.value!r}{caught.value}{setting!r}"
    with pytest.raises(MailFailed):
        deliver(smtp, msgspec.structs.replace(MAIL, text="refuse me"))
    with pytest.raises(InvalidInput, match="unencrypted"):
        deliver(msgspec.structs.replace(smtp, security="none"), MAIL)
    assert box.got == []


@pytest.mark.parametrize(
    "odd",
    [
        {"to": "ada@example.org\r\nBcc: eve@example.org"},
        {"to": "ada@example.org\nBcc: eve@example.org"},
        {"to": "ada@example.org, eve@example.org"},
        {"to": "Ada <ada@example.org>"},
        {"subject": "hello\r\nBcc: eve@example.org"},
        {"subject": "hello\nX: y"},
        {"subject": "hello\rX: y"},
        {"sender": "DBLens\r\nBcc: eve@example.org <dblens@example.org>"},
        {"sender": "nobody"},
    ],
)
def test_no_address_or_subject_begins_another_header(odd: dict[str, str]) -> None:
    fields = {"to": MAIL.to, "subject": MAIL.subject, "sender": SENDER} | odd
    with pytest.raises(InvalidInput):
        message(fields["sender"], Mail(to=fields["to"], subject=fields["subject"], text="x"))


def test_a_link_begins_with_the_settings_and_hides_its_token_in_the_fragment() -> None:
    sent: list[Mail] = []
    letters = Letters("https://data.example.org/dblens/", sent.append)
    letters.reset("ada@example.org", "ada", "tok/en")
    assert "https://data.example.org/dblens/reset-password#token=tok%2Fen\n" in sent[0].text
    assert "tok" not in repr(sent[0])


@pytest.mark.parametrize(
    "base", ["", "data.example.org", "javascript:alert(1)", "ftp://x", "https://", "https://x?y", "https://x#y", "https://a\nb", "https://user:pw@x"],
)  # fmt: skip
def test_an_odd_base_is_refused(base: str) -> None:
    with pytest.raises(InvalidInput, match="base_url"):
        Letters(base, print)


def test_the_outbox_sends_behind_ones_back_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    sent, failed, gate = [], [], threading.Event()

    def send(mail: Mail) -> None:
        gate.wait(5)
        if not failed:
            failed.append(mail)
            raise MailFailed("the mail server is away")
        sent.append(mail)

    outbox = Outbox(send, longest=2, waits=(0.01,))
    for _ in range(9):  # returns at once although nothing goes out
        outbox(MAIL)
    gate.set()
    end = time.monotonic() + 10
    while len(sent) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    outbox.close()
    assert failed
    assert 2 <= len(sent) <= 3  # the first may have left the queue before the last came
    assert "mail dropped" in caplog.text
    assert "token" not in caplog.text


def test_a_letter_that_cannot_be_sent_does_not_show_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    def send(mail: Mail) -> None:
        raise MailFailed("the mail server is away")

    Letters("https://x", send).reset("ada@example.org", "ada", "secret-token")
    assert "the mail server is away" in caplog.text
    assert "secret-token" not in caplog.text
