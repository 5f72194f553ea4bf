"""Mail: plain-text letters with a link, and SMTP to send them.

A link begins with the address in the settings, never with what a request calls its host, and has its token in the fragment,
which browsers send to nobody.
"""

from __future__ import annotations

import email.utils
import logging
import queue
import smtplib
import ssl
import threading
import urllib.parse
from collections.abc import Callable
from email.message import EmailMessage
from typing import Literal

import msgspec

from dblens.errors import DBLensError, InvalidInput, MailFailed
from dblens.store.accounts import check_email

_IGNORE = "If you did not ask for it, ignore this mail."
_IGNORE_INVITE = "If you do not know them, ignore this mail."
log = logging.getLogger(__name__)


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A letter to one person. Its text may hold a token, so it is not shown."""

    to: str
    subject: str
    text: str

    def __repr__(self) -> str:
        return f"Mail(subject={self.subject!r})"


Send = Callable[[Mail], None]


class Smtp(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail is handed in. `security`: TLS from the start (465), STARTTLS (587), or none, for a relay on this machine."""

    host: str
    sender: str
    port: int = 587
    security: Literal["tls", "starttls", "none"] = "starttls"
    user: str | None = None
    password: str | None = None
    ca_file: str | None = None
    timeout: float = 15.0

    def __repr__(self) -> str:
        return f"Smtp(host={self.host!r}, port={self.port}, security={self.security!r})"


def message(sender: str, mail: Mail) -> EmailMessage:
    """Return a letter as it is sent. Raises InvalidInput for an address or subject that would begin another header."""
    shown, address = email.utils.parseaddr(sender)
    check_email(address)
    check_email(mail.to)
    if any(ord(char) < 32 or ord(char) == 127 for char in sender + mail.subject):
        raise InvalidInput("a line end in a mail's sender or subject", hint="one line each")
    made = EmailMessage()
    made["From"] = email.utils.formataddr((shown, address))
    made["To"] = mail.to
    made["Subject"] = mail.subject
    made["Date"] = email.utils.localtime()
    made["Message-ID"] = email.utils.make_msgid(domain=address.partition("@")[2])
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(mail.text)
    return made


def deliver(smtp: Smtp, mail: Mail) -> None:
    """Send a letter and wait until the server took it. Raises InvalidInput, MailFailed."""
    letter = message(smtp.sender, mail)
    if smtp.password is not None and smtp.security == "none":
        raise InvalidInput("a mail password would be sent unencrypted", hint="security: tls or starttls")
    try:
        context = ssl.create_default_context(cafile=smtp.ca_file)
        if smtp.security == "tls":
            link: smtplib.SMTP = smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=smtp.timeout, context=context)
        else:
            link = smtplib.SMTP(smtp.host, smtp.port, timeout=smtp.timeout)
        with link:
            if smtp.security == "starttls":
                link.starttls(context=context)
            if smtp.user is not None and smtp.password is not None:
                link.login(smtp.user, smtp.password)
            link.send_message(letter)
    except smtplib.SMTPAuthenticationError:
        told = f"the mail server {smtp.host}:{smtp.port} refused the login"
        raise MailFailed(told, hint="check user and password") from None  # the server's text may repeat them
    except (smtplib.SMTPException, OSError, ValueError) as error:
        told = f"the mail server {smtp.host}:{smtp.port} did not take a mail: {type(error).__name__}"
        raise MailFailed(told, hint="check host, port and security") from error


class Outbox:
    """Sends from a thread of its own, so that the time of an answer does not tell whether somebody is being written to."""

    def __init__(self, send: Send, *, longest: int = 1000, waits: tuple[float, ...] = (5.0, 60.0)) -> None:
        self._send, self._waits = send, waits
        self._letters: queue.Queue[Mail | None] = queue.Queue(longest)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dblens-mail", daemon=True)
        self._thread.start()

    def __call__(self, mail: Mail) -> None:
        """Take a letter. When a thousand wait it is dropped, and the log says so."""
        try:
            self._letters.put_nowait(mail)
        except queue.Full:
            log.error("mail dropped, too many wait: %s", mail.subject)

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, without trying again, and end the thread."""
        self._stop.set()
        try:
            self._letters.put(None, timeout=timeout)
        except queue.Full:
            log.error("the outbox did not end: %d mails wait", self._letters.qsize())
        self._thread.join(timeout)

    def _run(self) -> None:
        while (mail := self._letters.get()) is not None:
            for wait in (*self._waits, None):
                try:
                    self._send(mail)
                    break
                except DBLensError as error:
                    log.warning("mail not sent: %s", error.message)
                    if wait is None or self._stop.wait(wait):
                        break


class Letters:
    """What is written to whom, with links that begin with `base_url`."""

    def __init__(self, base_url: str, send: Send) -> None:
        parts = urllib.parse.urlsplit(base_url)
        odd = any(ord(char) <= 32 or ord(char) == 127 for char in base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or odd:
            raise InvalidInput(f"base_url is {base_url!r}", hint="like https://data.example.org/dblens")
        if parts.username or parts.password:
            raise InvalidInput("base_url holds a user or password", hint="leave them out")
        self.base_url = base_url.rstrip("/")
        self._send = send

    def link(self, page: str, token: str) -> str:
        """Return a link that carries a token in its fragment."""
        return f"{self.base_url}/{page}#token={urllib.parse.quote(token, safe='')}"

    def reset(self, to: str, name: str, token: str) -> None:
        """Write how to set a new password."""
        text = f"Somebody, hopefully you, asked to set a new password for your DBLens account {name}.\n\n"
        text += f"{self.link('reset-password', token)}\n\nThe link works once, for 30 minutes. {_IGNORE}"
        self._post(to, "DBLens: set a new password", text)

    def verify(self, to: str, name: str, token: str) -> None:
        """Write how to prove that an address belongs to an account."""
        text = f"This address was given for the DBLens account {name}.\n\n{self.link('verify-email', token)}\n\n"
        text += "The link works once, for a day, and asks for that account's password. " + _IGNORE
        self._post(to, "DBLens: confirm your e-mail address", text)

    def known(self, to: str, name: str) -> None:
        """Write that somebody signed up with an address that has an account."""
        text = f"Somebody, perhaps you, signed up to DBLens with this address. It has an account already: {name}.\n\n"
        text += f"If you forgot its password: {self.base_url}/forgot-password"
        self._post(to, "DBLens: you have an account", text)

    def invite(self, to: str, organization: str, by: str, token: str) -> None:
        """Write that somebody is invited into an organization."""
        text = f"{_line(by)} invites you into the organization {_line(organization)} of DBLens.\n\n"
        text += f"{self.link('accept-invitation', token)}\n\nThe link works once, for the account with this address. {_IGNORE_INVITE}"
        self._post(to, "DBLens: an invitation", text)

    def changed(self, to: str, name: str, what: str) -> None:
        """Write that something about an account was changed."""
        text = f"{what} of your DBLens account {name} was changed.\n\nIf that was not you, tell an administrator."
        self._post(to, "DBLens: your account was changed", text)

    def _post(self, to: str, subject: str, text: str) -> None:
        # An answer must not tell that there was somebody to write to, so what goes wrong here goes to the log.
        try:
            self._send(Mail(to=to, subject=subject, text=text + "\n"))
        except DBLensError as error:
            log.warning("mail not sent: %s", error.message)


def _line(text: str) -> str:
    """Return what somebody called themselves as a part of one line, so that it writes no text of its own, nor a link."""
    shown = "".join(char if char.isprintable() else " " for char in text[:100])
    return f'"{shown.replace("://", ": //")}"'
