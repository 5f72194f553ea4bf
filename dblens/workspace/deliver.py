"""What happens when a run ends: a notification for everybody concerned, a mail for those who want one, the organization's webhooks.

Notifications are in the store before anything else. Mails and posts go from threads of this process: tried again a few times, longer
and longer apart, then given up; a process that is killed loses those that wait. Whatever goes wrong is logged and never the run's.

Texts are one line without control characters. They are text, not HTML: mails are text/plain, and in what is posted `<`, `>` and `&`
are written as JSON escapes.
"""

from __future__ import annotations

import atexit
import datetime as dt
import heapq
import itertools
import logging
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dblens.accounts import mail, rules_stored
from dblens.accounts.mail import Mail
from dblens.errors import ConnectionFailed, DBLensError, MailFailed, NotFound, StoreError, TimedOut, Unsupported
from dblens.redaction import Secret
from dblens.store import accounts, connections, notifications, organizations, secrets, settings
from dblens.store.accounts import User
from dblens.store.database import Transaction
from dblens.store.records import new_id
from dblens.store.runs import Run
from dblens.workspace import webhook
from dblens.workspace.setting_kinds import PREFERENCES, Application, Preferences, Webhook, Webhooks, checked, read

if TYPE_CHECKING:
    from dblens.workspace.house import House

WAITS: Final = (2.0, 15.0, 60.0)
"""How long to wait before each further try, in seconds."""
LONGEST: Final = 1000
"""How many may wait; more are dropped, and the log says so."""
KEPT: Final = 50
"""Of how many deliveries an organization's administrators see the outcome."""
DELIVERY: Final = "delivery."
WEBHOOKS: Final = "webhooks"
"""The record to which the secrets of an organization's webhooks belong; the field is the webhook's name."""
_AGAIN: Final = frozenset({408, 425, 429})
log = logging.getLogger(__name__)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How a post to a webhook ended. Of its address only the host is told: the rest may be a password."""

    id: str
    at: dt.datetime
    webhook: str
    host: str
    event: str
    run_id: str | None
    ok: bool
    attempts: int
    milliseconds: int
    status: int | None = None
    error: str | None = None


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something to send; `send` is told the number of the try and returns whether another may help."""

    what: str
    send: Callable[[int], bool]


class Deliverer:
    """Tells of the ends of runs. One per house; safe for several threads; nothing runs until something is to be sent."""

    def __init__(self, house: House, *, waits: tuple[float, ...] = WAITS, threads: int = 2) -> None:
        self._house, self._waits, self._most = house, waits, threads
        self._changed = threading.Condition()
        self._jobs: list[tuple[float, int, int, _Job]] = []
        self._count = itertools.count()
        self._at_work = 0
        self._threads: list[threading.Thread] = []
        self._closed = False

    def ended(self, run: Run) -> None:
        """Tell whoever is concerned that a run ended, but of no part of another run. Raises nothing."""
        if run.parent_id is not None:
            return
        try:
            self._tell(run)
        except DBLensError as error:
            log.warning("the end of run %s was not told: %s", run.id, error.message)
        except Exception:
            log.exception("the end of run %s was not told", run.id)

    def _tell(self, run: Run) -> None:
        house = self._house
        with house.store.write() as tx:
            told = _facts(tx, run)
            letters: list[User] = []
            for user, choice in _concerned(tx, run):
                if not _wanted(choice.ends, run):
                    continue
                notifications.add_notification(
                    tx, run.org_id, user.id, kind="run.ended", text=told.text, run_id=run.id, now=house.clock()
                )
                if choice.mail and user.email:
                    letters.append(user)
            hooks = read(tx, run.org_id, Webhooks) or Webhooks()
            title = (read(tx, None, Application) or Application()).title
            posting = rules_stored.read_mail(tx) is not None
        for user in letters if posting else ():
            self._add(_Job(what="mail", send=self._letter(user.email or "", told, title)))
        for hook in hooks.hooks:
            if _wanted(hook.ends, run):
                self._add(_Job(what=f"webhook {hook.name}", send=self._posting(hook, run, told)))

    # ------------------------------------------------------------------------------------------------------------------- mail

    def mail(self, letter: Mail) -> None:
        """Send a letter now by the mail server that is set. Raises Unsupported without one, InvalidInput, MailFailed."""
        house = self._house
        with house.store.read() as tx:
            server = rules_stored.read_mail(tx)
            if server is None:
                raise Unsupported("mail", "no mail server is set", hint="`dblens settings set smtp host=… sender=…`")
            try:
                password = secrets.get_instance(tx, house.keyring, rules_stored.SMTP_PASSWORD)
            except NotFound:
                password = None
        mail.deliver(server.smtp(password), letter)

    def _letter(self, to: str, told: _Told, title: str) -> Callable[[int], bool]:
        url = self._house.settings.public_url
        link = f"\n\n{url.rstrip('/')}/runs/{told.run_id}" if url else ""
        letter = Mail(
            to=to,
            subject=line(f"{title}: {told.text}", 200),
            text=f"{told.text}.\n{told.why}\nRun {told.run_id}{link}\n\nYou chose to be told: `dblens notification prefer`.\n",
        )

        def send(attempt: int) -> bool:
            try:
                self.mail(letter)
            except MailFailed as error:
                log.warning("mail not sent (try %d): %s", attempt, error.message)
                return True
            return False

        return send

    # --------------------------------------------------------------------------------------------------------------- webhooks

    def test(self, org_id: str, hook: Webhook) -> Delivery:
        """Post once to a webhook and return how it ended."""
        body = _encoded({"event": "test", "at": self._house.clock(), "text": "a test of this webhook"})
        return self._post(org_id, hook, "test", new_id(), None, body, attempt=1)

    def _posting(self, hook: Webhook, run: Run, told: _Told) -> Callable[[int], bool]:
        delivery = new_id()
        body = _encoded({"event": "run.ended", "delivery": delivery, "text": told.text, **told.document})

        def send(attempt: int) -> bool:
            done = self._post(run.org_id, hook, "run.ended", delivery, run.id, body, attempt=attempt)
            return not done.ok and _again(done)

        return send

    def _post(
        self,
        org_id: str,
        hook: Webhook,
        event: str,
        delivery: str,
        run_id: str | None,
        body: bytes,
        *,
        attempt: int,
    ) -> Delivery:
        house, begun = self._house, time.monotonic()
        status: int | None = None
        error: str | None = None
        try:
            with house.store.read() as tx:
                secret = secrets.get(tx, house.keyring, org_id, WEBHOOKS, hook.name)
            if not isinstance(secret, Secret):
                raise NotFound("the secret is a reference")
            seconds = int(house.clock().timestamp())
            told = webhook.headers(secret, event, delivery, body, seconds=seconds)
            status = webhook.post(hook.url, body, told, house.lines.policy)
            if not 200 <= status < 300:
                error = f"http.{status}"
        except DBLensError as failed:
            error = f"{failed.code}: {failed.message}"
        done = Delivery(
            id=delivery,
            at=house.clock(),
            webhook=hook.name,
            host=hook.host,
            event=event,
            run_id=run_id,
            ok=error is None,
            attempts=attempt,
            milliseconds=int((time.monotonic() - begun) * 1000),
            status=status,
            error=None if error is None else line(error, 500),
        )
        self._record(org_id, done)
        return done

    def _record(self, org_id: str, done: Delivery) -> None:
        try:
            with self._house.store.write() as tx:
                settings.put_setting(tx, org_id, DELIVERY + done.id, msgspec.to_builtins(done), now=self._house.clock())
                settings.keep_newest(tx, org_id, DELIVERY, keep=KEPT)
        except DBLensError as error:
            log.warning("the outcome of a delivery was not kept: %s", error.message)

    # ---------------------------------------------------------------------------------------------------------------- threads

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait until nothing is left to send, further tries included; return whether that was so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._at_work, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Send what is due, for some seconds at most; what was to be tried again later is given up, and the log says so."""
        with self._changed:
            later = [job for job in self._jobs if job[2] > 1]
            self._jobs = [job for job in self._jobs if job[2] == 1]
            heapq.heapify(self._jobs)
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        for _, _, _, job in later:
            log.warning("%s: given up, the process ends", job.what)
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _add(self, job: _Job, *, due: float | None = None, attempt: int = 1) -> None:
        with self._changed:
            if self._closed or len(self._jobs) >= LONGEST:
                log.error("%s: dropped, %s", job.what, "the process ends" if self._closed else "too many wait")
                return
            heapq.heappush(self._jobs, (due or time.monotonic(), next(self._count), attempt, job))
            if len(self._threads) < self._most:
                if not self._threads:
                    atexit.register(self.close)
                thread = threading.Thread(target=self._work, name="dblens-deliver", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs or (self._jobs[0][0] > time.monotonic() and not self._closed):
                    if self._closed:
                        return
                    self._changed.wait(max(0.0, self._jobs[0][0] - time.monotonic()) if self._jobs else None)
                _, _, attempt, job = heapq.heappop(self._jobs)
                self._at_work += 1
            last = attempt > len(self._waits)
            again = False
            try:
                again = job.send(attempt)
            except DBLensError as error:
                log.warning("%s: %s", job.what, error.message)
            except Exception:
                log.exception("%s was not sent", job.what)
            if again and not last:
                self._add(job, due=time.monotonic() + self._waits[attempt - 1], attempt=attempt + 1)
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()


# ------------------------------------------------------------------------------------------------------------------------ texts


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    text: str
    why: str
    document: dict[str, Any]


def line(text: str, longest: int) -> str:
    """Return a text as one line: no control characters, no marks that turn the direction of reading, and not too long."""
    plain = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") else char for char in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def preferences(tx: Transaction, org_id: str, user_id: str) -> Preferences:
    """Return what a member chose, else what the organization did."""
    found = settings.find_settings(tx, org_id, [PREFERENCES + user_id]).get(PREFERENCES + user_id)
    if found is not None:
        try:
            return checked(Preferences, found.value)
        except DBLensError:
            log.warning("the preferences of user %s are not right and count as not set", user_id)
    return read(tx, org_id, Preferences) or Preferences()


def _concerned(tx: Transaction, run: Run) -> list[tuple[User, Preferences]]:
    """Return who is told of a run: who began it, and the owner of its connection who asked for that; members only."""
    wanted = {run.user_id: False}
    if run.connection_id is not None:
        try:
            owner = connections.get_connection(tx, run.org_id, run.connection_id).owner_id
            wanted.setdefault(owner, True)
        except NotFound:
            log.debug("the connection of run %s is gone", run.id)
    found = []
    for user_id, other in wanted.items():
        if user_id is None:
            continue
        try:
            organizations.get_member(tx, run.org_id, user_id)
            user = accounts.get_user(tx, user_id)
        except NotFound:
            continue
        choice = preferences(tx, run.org_id, user_id)
        if user.active and (choice.others or not other):
            found.append((user, choice))
    return found


def _wanted(ends: str, run: Run) -> bool:
    return ends == "all" or (ends == "failed" and run.state in ("failed", "crashed"))


def _facts(tx: Transaction, run: Run) -> _Told:
    name = None
    if run.connection_id is not None:
        try:
            name = connections.get_connection(tx, run.org_id, run.connection_id).name
        except NotFound:
            name = None
    org = organizations.get_organization(tx, run.org_id)
    error = run.error or {}
    text = line(f"{run.operation}{f' on {name}' if name else ''} {_SAID.get(run.state, run.state)}", 500)
    document = {
        "at": run.ended_at,
        "organization": {"id": org.id, "name": line(org.name, 200)},
        "run": {
            "id": run.id,
            "operation": run.operation,
            "state": run.state,
            "connection": None if name is None else {"id": run.connection_id, "name": line(name, 200)},
            "user_id": run.user_id,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "error": error.get("code"),  # its message may say what is in a database
        },
    }
    why = line(f"{error.get('message', '')}", 1000)
    return _Told(run_id=run.id, text=text, why=f"\n{why}\n" if why else "", document=document)


_SAID: Final = {"succeeded": "succeeded", "failed": "failed", "cancelled": "was cancelled", "crashed": "crashed"}


def _encoded(document: dict[str, Any]) -> bytes:
    data = msgspec.json.encode(document)
    for char in (b"<", b">", b"&"):
        data = data.replace(char, b"\\u%04x" % char[0])
    return data


def _again(done: Delivery) -> bool:
    """Return whether another try may help: the receiver was not there, or said that it is its own fault."""
    if done.status is not None:
        return done.status >= 500 or done.status in _AGAIN
    kinds = (ConnectionFailed.code, TimedOut.code, StoreError.code)
    return done.error is not None and done.error.partition(":")[0] in kinds
