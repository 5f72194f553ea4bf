"""References: where a secret lies instead of the secret. `env:NAME`, `file:/path`, `keyring:service/name`, `vault:mount/path#field`.

Only the service resolves them, each time anew, and only what its policy allows: a team's allows nothing unless its settings name it
(`env:SHOP_*`, `file:/run/secrets/*`, `vault:shop/*`). The text of a reference may be shown, its value never. What is not allowed gives
the same answer whether it exists or not.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from dblens.errors import InvalidInput, Unsupported, VaultError
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.store.hashicorp import HashiCorp

KINDS: Final = ("env", "file", "keyring", "vault")
LARGEST_FILE: Final = 65_536
_SYNTAX: Final = "env:NAME, file:/path, keyring:service/name or vault:mount/path#field"
_FORMS: Final = {
    "env": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}"),
    "file": re.compile(r"(/[^/\0\n\r]{1,255}){1,64}"),
    "keyring": re.compile(r"[^/\0\n\r]{1,255}/[^\0\n\r]{1,255}"),
    "vault": re.compile(r"[A-Za-z0-9_.-]{1,128}(/[A-Za-z0-9_.-]{1,128}){1,32}#[A-Za-z0-9_.-]{1,128}"),
}
_NEVER_NAMES: Final = ("DBLENS_*", "VAULT_*", "JUPYTERHUB_*")
"""Variables that are the service's own."""
_NEVER_FOLDERS: Final = tuple(map(Path, ("/proc", "/sys", "/dev")))


class Reference(msgspec.Struct, frozen=True):
    """Where a secret lies: kind and place. No secret itself, so it may be shown."""

    kind: str
    place: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference. Raises InvalidInput, which does not repeat the text: it may be a secret put in the wrong place."""
        kind, place, problem = _parts(text)
        del text  # not in a traceback's locals either
        if problem:
            raise InvalidInput(problem, hint=f"write {_SYNTAX}")
        return cls(kind, place)

    @property
    def text(self) -> str:
        """The reference as it is written."""
        return f"{self.kind}:{self.place}"


def _parts(text: str) -> tuple[str, str, str]:
    kind, _, place = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind not in KINDS or not _FORMS[kind].fullmatch(place):
        return "", "", "the reference to a secret is not right"
    if any(part in (".", "..") for part in re.split(r"[/#]", place)) and kind != "keyring":
        return "", "", "the reference has a . or .. in its path"
    return kind, place, ""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which references are resolved. In patterns `*` stands for anything within a part of a path, `**` for any parts."""

    allowed: tuple[str, ...]
    team: bool
    forbidden: tuple[Path, ...] = ()
    """Folders whose files are never read: the store's own."""
    hashicorp: HashiCorp | None = None

    def permits(self, reference: Reference) -> bool:
        """Tell whether a reference may be resolved; of a file only its name is looked at."""
        if reference.kind == "env" and any(fnmatch.fnmatchcase(reference.place.upper(), n) for n in _NEVER_NAMES):
            return False
        if reference.kind == "keyring" and self.team:
            return False  # a service has no keyring of the user who asks
        if reference.kind == "file" and self.hides(Path(reference.place)):
            return False
        return any(_matches(pattern, reference) for pattern in self.allowed)

    def hides(self, path: Path) -> bool:
        """Tell whether a path lies where nothing is read for anybody."""
        folders = [*_NEVER_FOLDERS, *(f for folder in self.forbidden for f in (folder, _real(folder)))]
        return any(path == folder or folder in path.parents for folder in folders)


def policy(settings: Settings, hashicorp: HashiCorp | None = None) -> Policy:
    """Return the policy of a process: alone on a laptop everything, in a team what the settings name. Raises InvalidInput."""
    for pattern in settings.references:
        kind, colon, rest = pattern.partition(":")
        if kind not in KINDS or not colon or not rest or (kind == "file" and not rest.startswith("/")):
            raise InvalidInput(
                f"references: {pattern!r} is no pattern", hint="env:SHOP_*, file:/run/secrets/*, vault:shop/*"
            )
    team = settings.mode == "team" or settings.store_url.startswith("postgresql")
    everything = ("env:*", "file:/**", "keyring:**", "vault:**")
    return Policy(
        allowed=settings.references or (() if team else everything),
        team=team,
        forbidden=(settings.data_folder, *(path for path in (settings.kek_file, settings.audit_key_file) if path)),
        hashicorp=hashicorp,
    )


def allow(reference: Reference, policy: Policy) -> None:
    """Refuse a reference that the policy does not permit, before it is kept. Raises InvalidInput."""
    if not policy.permits(reference):
        shown = ", ".join(policy.allowed) or "none"
        raise InvalidInput(f"the reference {reference.text!r} is not allowed here", hint=f"allowed: {shown}")


def resolve(reference: Reference, policy: Policy, environ: Mapping[str, str] | None = None) -> Secret:
    """Fetch what a reference points to. Raises InvalidInput when it is not allowed, Unsupported, VaultError when it is not there."""
    allow(reference, policy)
    if reference.kind == "env":
        found = _variable(reference.place, environ)
        if found is None:
            raise VaultError(f"{reference.text}: the variable is not set", hint="set it where the service is started")
        return found
    if reference.kind == "file":
        return _file(reference, policy)
    if reference.kind == "keyring":
        return _keyring(reference)
    if policy.hashicorp is None:
        raise VaultError(
            f"{reference.text}: no Vault is configured", hint="set VAULT_ADDR and VAULT_TOKEN for the service"
        )
    path, _, field = reference.place.partition("#")
    return policy.hashicorp.read(path, field)


def _matches(pattern: str, reference: Reference) -> bool:
    kind, _, rest = pattern.partition(":")
    return kind == reference.kind and _glob(rest).fullmatch(reference.place) is not None


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part) or re.escape(part) for part in parts), re.DOTALL)


# ----------------------------------------------------------------------------------------------------------------------- sources


def _variable(name: str, environ: Mapping[str, str] | None) -> Secret | None:
    """Look a variable up; raises nothing, so that no traceback shows this frame with the whole environment."""
    value = (os.environ if environ is None else environ).get(name)
    return None if value is None else Secret(value)


def _keyring(reference: Reference) -> Secret:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise Unsupported("keyring:", "the package keyring is not installed", hint="pip install keyring") from None
    service, _, name = reference.place.partition("/")
    try:
        found = keyring.get_password(service, name)
    except KeyringError as error:
        raise VaultError(
            f"{reference.text}: the keyring does not answer: {type(error).__name__}", hint="unlock it"
        ) from None
    if found is None:
        raise VaultError(f"{reference.text}: there is no such entry", hint=f"keyring set {service} {name}")
    return Secret(found)


def _file(reference: Reference, policy: Policy) -> Secret:
    """Read a file whose real place is allowed too, one folder at a time and through no link, so that nobody swaps one in between."""
    named = Path(reference.place)
    real = _real(named)
    patterns = [pattern.partition(":")[2] for pattern in policy.allowed if pattern.startswith("file:")]
    if policy.hides(real) or not any(_glob(p).fullmatch(str(real)) for q in patterns for p in (q, _real_root(q))):
        raise InvalidInput(
            f"the reference {reference.text!r} is not allowed here", hint="it leads out of the allowed folders"
        )
    problem, octets = _read(real)
    if problem:
        raise VaultError(f"{reference.text}: {problem}", hint="a small text file that the service can read")
    return octets


def _real(path: Path) -> Path:
    with contextlib.suppress(OSError, RuntimeError):
        return path.resolve()
    return path


def _real_root(pattern: str) -> str:
    """Return a pattern whose folders before the first wildcard are the real ones: an administrator may name them through a link."""
    fixed = re.split(r"[*?]", pattern, maxsplit=1)[0]
    folder = fixed if fixed == pattern else fixed.rpartition("/")[0]
    return pattern if not folder else f"{_real(Path(folder))}{pattern[len(folder) :]}"


def _read(path: Path) -> tuple[str, Secret]:
    """Return what is wrong, or the text; a function of its own, so that no traceback shows its frame."""
    nothing = Secret("")
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.parts[1:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path.name, flags, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return "it is not a file", nothing
            with open(file, "rb", closefd=False) as opened:
                octets = opened.read(LARGEST_FILE + 1)
        finally:
            os.close(file)
    except OSError as error:
        return f"it cannot be read: {error.strerror}", nothing
    finally:
        os.close(folder)
    if len(octets) > LARGEST_FILE:
        return f"it has more than {LARGEST_FILE} octets", nothing
    try:
        return "", Secret(octets.decode("utf-8").removesuffix("\n").removesuffix("\r"))
    except UnicodeDecodeError:
        return "it is not a text in UTF-8", nothing
