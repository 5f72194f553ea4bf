"""HashiCorp Vault, version 2 of its key-value store: read one field, with a token or an AppRole of the service's environment.

Plain HTTP of the standard library: no redirect is followed (it would carry the token to another host), TLS is checked, and without
TLS only this machine is spoken to. Answers are bounded, and nothing of them is in a message.
"""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
import urllib.parse
from collections.abc import MutableMapping
from typing import Any, Final, NoReturn

import msgspec

from dblens.errors import InvalidInput, VaultError
from dblens.redaction import Secret

_LARGEST: Final = 1_048_576
_LOCAL: Final = ("127.0.0.1", "::1", "localhost")


class HashiCorp:
    """A Vault server and the right to read from it. Safe for several threads."""

    def __init__(
        self,
        address: str,
        *,
        token: Secret | None = None,
        role_id: str | None = None,
        secret_id: Secret | None = None,
        namespace: str | None = None,
        ca_file: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InvalidInput("VAULT_ADDR is not right", hint="https://vault.example.org:8200")
        if parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise InvalidInput(f"VAULT_ADDR would send the token to {parts.hostname} unencrypted", hint="https://…")
        if token is None and (role_id is None or secret_id is None):
            raise InvalidInput(
                "Vault needs a token or a role", hint="set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID"
            )
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._token, self._role_id, self._secret_id = token, role_id, secret_id
        self._namespace, self._timeout, self._ca_file = namespace, timeout, ca_file
        self._until = float("inf")
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> HashiCorp | None:
        """Make one of VAULT_ADDR and what goes with it, None without. Takes the secrets out of the environment. Raises InvalidInput."""
        environ = os.environ if environ is None else environ
        address = environ.get("VAULT_ADDR")
        if not address:
            return None
        token, secret_id = (_taken(environ, name) for name in ("VAULT_TOKEN", "VAULT_SECRET_ID"))
        return cls(
            address,
            token=token,
            role_id=environ.get("VAULT_ROLE_ID"),
            secret_id=secret_id,
            namespace=environ.get("VAULT_NAMESPACE"),
            ca_file=environ.get("VAULT_CACERT"),
        )

    def read(self, path: str, field: str) -> Secret:
        """Return a field of `mount/path`. Raises VaultError."""
        mount, _, rest = path.partition("/")
        where = f"/v1/{urllib.parse.quote(mount)}/data/{urllib.parse.quote(rest)}"
        status, answer = self._ask("GET", where, token=self._login())
        if status == 403 and self._role_id is not None:  # the token may have been revoked before its time
            status, answer = self._ask("GET", where, token=self._login(anew=True))
        told = f"vault:{path}#{field}"
        if status == 404:
            raise VaultError(
                f"{told}: Vault has nothing there", hint="mount, path and version 2 of the key-value store?"
            )
        if status == 403:
            raise VaultError(f"{told}: Vault refuses to give it", hint="does the service's policy allow `read` on it?")
        if status != 200:
            raise VaultError(f"{told}: Vault answers {status}", hint="is it sealed, or is VAULT_ADDR another server?")
        value = _value(answer, field)
        if value is None:
            raise VaultError(f"{told}: there is no such field, or it is no text")
        return value

    def _login(self, *, anew: bool = False) -> Secret:
        with self._lock:
            if self._token is not None and not (anew and self._role_id) and time.monotonic() < self._until:
                return self._token
            assert self._role_id is not None
            assert self._secret_id is not None
            role = _role(self._role_id, self._secret_id)
            status, answer = self._ask("POST", "/v1/auth/approle/login", body=role)
            if status != 200:
                raise VaultError(f"Vault refuses the service's role ({status})", hint="VAULT_ROLE_ID, VAULT_SECRET_ID")
            self._token, seconds = _lease(answer)
            self._until = time.monotonic() + seconds * 0.8 if seconds else float("inf")
            return self._token

    def _ask(
        self, method: str, path: str, *, token: Secret | None = None, body: Secret | None = None
    ) -> tuple[int, Secret]:
        try:
            return self._exchange(method, path, token, body)
        except (OSError, http.client.HTTPException) as error:
            problem = type(error).__name__
        raise VaultError(
            f"Vault at {self._host} does not answer: {problem}", hint="VAULT_ADDR, VAULT_CACERT; is it up?"
        )

    def _exchange(self, method: str, path: str, token: Secret | None, body: Secret | None) -> tuple[int, Secret]:
        line: http.client.HTTPConnection
        if self._tls:
            context = ssl.create_default_context(cafile=self._ca_file)
            line = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        else:
            line = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            line.request(
                method,
                self._base + path,
                body=None if body is None else body.reveal().encode(),
                headers={
                    "X-Vault-Request": "true",
                    **({} if token is None else {"X-Vault-Token": token.reveal()}),
                    **({} if self._namespace is None else {"X-Vault-Namespace": self._namespace}),
                },
            )
            answer = line.getresponse()
            return answer.status, Secret(answer.read(_LARGEST).decode("utf-8", "replace"))
        finally:
            line.close()

    def __repr__(self) -> str:
        return f"HashiCorp({self._host})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a right to read secrets is not pickled")


def _taken(environ: MutableMapping[str, str], name: str) -> Secret | None:
    return Secret(value) if (value := environ.pop(name, None)) else None


def _role(role_id: str, secret_id: Secret) -> Secret:
    return Secret(msgspec.json.encode({"role_id": role_id, "secret_id": secret_id.reveal()}).decode())


def _value(answer: Secret, field: str) -> Secret | None:
    found = _decoded(answer)
    for key in ("data", "data", field):
        found = found.get(key) if isinstance(found, dict) else None
    return Secret(found) if isinstance(found, str) else None


def _lease(answer: Secret) -> tuple[Secret, float]:
    found = _decoded(answer)
    auth = found.get("auth") if isinstance(found, dict) else None
    token = auth.get("client_token") if isinstance(auth, dict) else None
    seconds = auth.get("lease_duration") if isinstance(auth, dict) else None
    del found, auth
    if not isinstance(token, str):
        raise VaultError("Vault's answer to the service's role is not understood", hint="is VAULT_ADDR a Vault?")
    return Secret(token), float(seconds) if isinstance(seconds, int) else 0.0


def _decoded(answer: Secret) -> Any:
    try:
        return msgspec.json.decode(answer.reveal())
    except (msgspec.DecodeError, RecursionError):
        return None
