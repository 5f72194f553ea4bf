"""The accounts of a store as its settings say at this moment; what a process shares of them is made once: keys, limits, outbox."""

from __future__ import annotations

import atexit
import datetime as dt
import logging
import secrets as random
import threading
import weakref
from collections.abc import Callable
from typing import Final

import msgspec

from dblens.accounts import mail, rules_stored, signing
from dblens.accounts.base import Accounts, Rules
from dblens.accounts.jwt import Keys
from dblens.accounts.limits import Limits
from dblens.accounts.mail import Letters, Outbox, Smtp
from dblens.accounts.passwords import Passwords
from dblens.errors import NotFound
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store import accounts, secrets
from dblens.store.database import Store
from dblens.store.keys import Keyring
from dblens.store.records import now

SET_UP_CODE: Final = "set_up.code"
"""The name of a sealed secret of the instance."""
log = logging.getLogger(__name__)


class _Shared:
    """What a process has once per store: a limit that each request had for itself would limit nothing."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.limits = Limits()
        self.passwords = Passwords()
        self.keys = signing.Kept()
        self.smtp: Smtp | None = None
        self.outbox: Outbox | None = None


_shared: weakref.WeakKeyDictionary[Store, _Shared] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def configured(store: Store, keyring: Keyring, settings: Settings, clock: Callable[[], dt.datetime] = now) -> Accounts:
    """Return the accounts of a store with the rules and the mail server that are set now. Raises StoreError, VaultError."""
    shared = _of(store)
    keys = signing_keys(store, keyring)
    with store.read() as tx:
        rules, server = rules_stored.read_rules(tx).rules(), rules_stored.read_mail(tx)
        password: Secret | None = None
        if server is not None and server.user is not None:
            try:
                password = secrets.get_instance(tx, keyring, rules_stored.SMTP_PASSWORD)
            except NotFound:
                password = None
    letters = _letters(shared, None if server is None else server.smtp(password), settings.public_url)
    return Accounts(
        store,
        keys,
        rules=_safe(rules, mailing=letters is not None),
        passwords=shared.passwords,
        limits=shared.limits,
        letters=letters,
        clock=clock,
    )


def signing_keys(store: Store, keyring: Keyring, *, unknown: str | None = None) -> Keys:
    """Return the keys of access tokens, made at the first use of a store and sealed in it; `unknown` is the key a token names.

    Raises VaultError, StoreError.
    """
    shared = _of(store)
    with shared.guard:
        return shared.keys.keys(store, keyring, unknown=unknown)


def set_up_code(store: Store, keyring: Keyring) -> Secret | None:
    """Return the code that guards the first set-up over the network, the same for every process; None when there are users."""
    with store.write() as tx:
        if accounts.any_user(tx):
            return None
        try:
            return secrets.get_instance(tx, keyring, SET_UP_CODE)
        except NotFound:
            code = Secret(random.token_urlsafe(18))
            secrets.put_instance(tx, keyring, SET_UP_CODE, code)
            return code


def close(store: Store) -> None:
    """Send the letters that wait, and end what sends them. Raises nothing."""
    shared = _of(store)
    with shared.guard:
        outbox, shared.outbox, shared.smtp = shared.outbox, None, None
    if outbox is not None:
        outbox.close()
        atexit.unregister(outbox.close)


def _of(store: Store) -> _Shared:
    with _guard:
        found = _shared.get(store)
        if found is None:
            found = _shared[store] = _Shared()
        return found


def _safe(rules: Rules, *, mailing: bool) -> Rules:
    """Let an administrator approve where nothing else proves an address: mail may have been switched off after the rule was set."""
    if rules.sign_up and rules.email_domains and not rules.approval and not mailing:
        log.warning(
            "sign-up is limited to e-mail domains and no mail proves an address: an administrator has to approve"
        )
        return msgspec.structs.replace(rules, approval=True)
    return rules


def _letters(shared: _Shared, smtp: Smtp | None, public_url: str | None) -> Letters | None:
    """Return what writes letters, None without a mail server or an address that links begin with."""
    if smtp is None or public_url is None:
        return None
    with shared.guard:
        if shared.outbox is None or shared.smtp != smtp:
            before = shared.outbox
            shared.smtp, shared.outbox = smtp, Outbox(lambda letter: mail.deliver(smtp, letter))
            atexit.register(shared.outbox.close)  # what a short command has to say is sent before it ends
            if before is not None:
                threading.Thread(target=before.close, name="dblens-mail-end", daemon=True).start()
        return Letters(public_url, shared.outbox)
