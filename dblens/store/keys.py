"""Key-encryption keys (KEK): where they come from, and the proof that they are the store's.

They lie outside the database: in the environment, in a file only its owner can read, or in the user's keyring. Several may be given,
the first one wraps. `unlock` compares them with check values in `meta` (`kek.check`), so that a wrong key fails when the store is
opened, not when the first password is needed. A key that a rotation retired never wraps again.

Give every process the new list before `secrets.rewrap_all`: one that has only the old key fails at its next use of a secret. Losing
the key is losing every secret: keep a copy of it, in another place than the store's backups.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import sqlalchemy as sa

from dblens.errors import InvalidInput, StoreError, Unsupported, VaultError
from dblens.redaction import Secret
from dblens.settings import Settings
from dblens.signature import framed
from dblens.store.database import Store, Transaction
from dblens.store.tables import data_keys, meta, secrets

CHECK: Final = "kek.check"
SIZE: Final = 32
_LARGEST_FILE: Final = 65_536
_ID = re.compile(
    r"[A-Za-z0-9_-]{1,32}"
)  # shorter than any key: a key put in its place is not taken for an id and shown
_MAKE = 'python -c "import base64, os; print(base64.b64encode(os.urandom(32)).decode())"'


class Kek:
    """One key-encryption key. Its octets are in no repr and no pickle."""

    __slots__ = ("_octets", "id")

    def __init__(self, id: str, octets: bytes) -> None:
        self.id = id
        self._octets = octets

    def octets(self) -> bytes:
        """Return the key."""
        return self._octets

    def check(self) -> str:
        """Return what tells the key from another one and does not give it away."""
        return hmac.new(self._octets, framed(b"dblens/kek-check/1", self.id.encode()), hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return f"Kek({self.id})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not pickled")


class Keyring:
    """The key-encryption keys of this process, the one that wraps first."""

    __slots__ = ("_keys",)

    def __init__(self, keys: tuple[Kek, ...]) -> None:
        self._keys = {key.id: key for key in keys}
        if not keys:
            raise InvalidInput("no key-encryption key", hint=f"make one: {_MAKE}")
        if len(self._keys) < len(keys):
            ids = ", ".join(key.id for key in keys)
            raise InvalidInput(f"two key-encryption keys have one id: {ids}", hint="give each its own")

    @property
    def first(self) -> Kek:
        """The key that wraps."""
        return next(iter(self._keys.values()))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the first one first."""
        return tuple(self._keys)

    def key(self, id: str, what: str) -> Kek:
        """Return a key by its id. Raises VaultError, which names what needs it."""
        found = self._keys.get(id)
        if found is None:
            raise VaultError(
                f"{what} needs the key-encryption key {id!r}, and this process has {', '.join(self._keys)}",
                hint="the keys were rotated: give this process the new list (DBLENS_KEK, DBLENS_KEK_FILE) and start it again",
            )
        return found

    def get(self, id: str) -> Kek | None:
        """Return a key by its id, None when it is not here."""
        return self._keys.get(id)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key is not pickled")


def parse(text: Secret, place: str) -> Keyring:
    """Read `id:key,id:key` or a key to a line, each 32 octets in base64; without an id it gets one of its own. Raises InvalidInput."""
    found, problem, hint = _entries(text.reveal())
    if problem:
        raise InvalidInput(f"{place}: {problem}", hint=hint)
    return Keyring(found)


def _entries(text: str) -> tuple[tuple[Kek, ...], str, str]:
    """Return the keys, or what is wrong and a hint.

    Raises nothing, so that no traceback shows this frame; tells not a word of the text: where an id is expected may stand a key.
    """
    lines = [line.partition("#")[0] for line in text.splitlines()]
    found: list[Kek] = []
    for number, entry in enumerate((e.strip() for line in lines for e in line.split(",") if e.strip()), 1):
        id, colon, encoded = (part.strip() for part in entry.rpartition(":"))
        octets = _decoded(encoded)
        if colon and not _ID.fullmatch(id):
            return (), f"the id of key {number} is not right", "letters, digits, - and _, at most 32"
        if octets is None or len(octets) != SIZE:
            size = "is not base64" if octets is None else f"has {len(octets)} octets"
            return (), f"key {number} {size}", f"{SIZE} random octets in base64: {_MAKE}"
        if len(set(octets)) < 12:  # of 32 random ones some 30 differ
            return (), f"key {number} is not random", f"make one: {_MAKE}"
        digest = hashlib.sha256(framed(b"dblens/kek-id/1", octets)).hexdigest()
        found.append(Kek(id if colon else f"k{digest[:12]}", octets))
    return tuple(found), "", ""


def _decoded(text: str) -> bytes | None:
    with contextlib.suppress(binascii.Error, ValueError):
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return base64.b64decode(padded.translate(str.maketrans("-_", "+/")), validate=True)
    return None


# --------------------------------------------------------------------------------------------------------------------- sources


def unlock(store: Store, settings: Settings) -> Keyring:
    """Find this process's keys and prove that they are the store's; a new store takes them as its own.

    Alone on a laptop the key is made at first use, in a file only its owner can read. Raises InvalidInput for keys that cannot be
    read, StoreError when there are none where they must be given, and when they are not the store's.
    """
    keyring = _given(settings)
    if keyring is None:
        if settings.mode == "team" or store.engine.dialect.name == "postgresql":
            raise StoreError(
                f"the store {store.place} is a team's, and no key-encryption key was given",
                hint=f"set DBLENS_KEK_FILE or DBLENS_KEK; make a key: {_MAKE}",
            )
        keyring = _own(store, settings.data_folder / "kek")
    if not _adopted(store, keyring.first):  # then it is adopted, or refused
        with store.write() as tx:
            adopt(tx, keyring, store.place)
    return keyring


def _adopted(store: Store, first: Kek) -> bool:
    """Return whether the key is the only one that the store uses: the common case, which needs no write and waits for nobody."""
    with store.read() as tx:
        value = tx.scalar(sa.select(meta.c.value).where(meta.c.key == CHECK))
    if value is None:
        return False
    checks = _read(value)
    return set(checks.used) == {first.id} and first.id not in checks.retired and _same(first, checks.used[first.id])


def _given(settings: Settings) -> Keyring | None:
    given = [name for name in ("kek", "kek_file", "kek_keyring") if getattr(settings, name) is not None]
    if len(given) > 1:
        raise InvalidInput(f"the key-encryption key is given twice: {', '.join(given)}", hint="keep one of them")
    if settings.kek is not None:
        return parse(Secret(settings.kek.reveal()), "DBLENS_KEK")
    if settings.kek_file is not None:
        return read_file(settings.kek_file)
    if settings.kek_keyring is not None:
        if settings.mode == "team":
            raise InvalidInput("a service has no keyring of a user", hint="set DBLENS_KEK_FILE instead")
        return _from_keyring(settings.kek_keyring)
    return None


def read_file(path: Path) -> Keyring:
    """Read keys from a file that only this process's user or root owns and nobody else can read. Raises InvalidInput, StoreError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be read: {error.strerror}",
            hint="bring the file back from where you keep a copy of it; another key does not open the store",
        ) from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path} is not a file", hint="DBLENS_KEK_FILE names a file of keys")
        if found.st_uid not in (os.geteuid(), 0):
            raise StoreError(f"the key file {path} belongs to another user", hint=f"chown it to uid {os.geteuid()}")
        if found.st_mode & 0o077:
            raise StoreError(
                f"the key file {path} can be read by others", hint=f"chmod 600 {path}; then make a new key"
            )
        text = Secret(os.read(file, _LARGEST_FILE).decode("latin-1"))
    finally:
        os.close(file)
    return parse(text, str(path))


def _from_keyring(entry: str) -> Keyring:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise Unsupported("the keyring", "the package keyring is not installed", hint="pip install keyring") from None
    try:
        found = _secret(keyring.get_password("dblens", entry))
    except KeyringError as error:
        raise StoreError(
            f"the keyring does not answer: {type(error).__name__}", hint="unlock it, then try again"
        ) from None
    if found is None:
        raise StoreError(f"the keyring has no entry {entry!r} of dblens", hint=f"keyring set dblens {entry}")
    return parse(found, f"the keyring's entry {entry!r}")


def _secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)


def _own(store: Store, path: Path) -> Keyring:
    if not os.path.lexists(path):
        with store.read() as tx:
            if _used(tx):
                raise StoreError(
                    f"the key of {store.place} is missing: there is no {path}",
                    hint="bring the file back from where you keep a copy of it; without it the store's secrets are lost",
                )
        make_key(path)
    return read_file(path)


def make_key(path: Path) -> None:
    """Write a new key where nobody else can read it even for a moment; of two processes that do it at once one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        file = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as opened:
            opened.write(base64.b64encode(os.urandom(SIZE)) + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be made: {error.strerror}", hint="DBLENS_KEK_FILE names another"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def add_key(path: Path) -> Keyring:
    """Put a new key before those of a file and return them all. The file is there as it was or whole, never half.

    Two processes that do it at once both succeed. Raises InvalidInput, StoreError.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"there is no folder {path.parent}: {error.strerror}", hint="DBLENS_KEK_FILE names a file"
        ) from None
    partial = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # a key that another process adds at the same time must not be lost
        read_file(path)
        before = path.read_bytes()
        file = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as opened:
            opened.write(base64.b64encode(os.urandom(SIZE)) + b"\n" + before)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(partial, path)
        os.fsync(folder)
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be written: {error.strerror}", hint="look at its folder"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
        os.close(folder)
    return read_file(path)


# ----------------------------------------------------------------------------------------------------------------- check values


class _Checks(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that something in the store is wrapped with, and those that a rotation retired, each with its check value."""

    used: dict[str, str]
    retired: dict[str, str] = {}


def fits(keyring: Keyring, check: str) -> bool:
    """Tell whether keys are those of a check value, of a backup for example. Raises StoreError when that cannot be read."""
    checks = _read(check)
    return all((key := keyring.get(id)) is not None and _same(key, kept) for id, kept in checks.used.items())


def adopt(tx: Transaction, keyring: Keyring, place: str = "the store") -> None:
    """Compare the keys with the store's; a store without any takes the first one as its own. Raises StoreError."""
    checks = locked(tx)
    if checks is None:
        if _used(tx):
            raise StoreError(f"{place} has secrets, and the check value of their key is gone", hint="restore a backup")
        write(tx, _Checks(used={keyring.first.id: keyring.first.check()}))
        return
    for id, kept in checks.used.items():
        key = keyring.get(id)
        if key is None:
            raise StoreError(
                f"{place} needs the key-encryption key {id!r}, and those given are {', '.join(keyring.ids)}",
                hint="give the key that the store was used with, after a new one if it is being rotated",
            )
        if not _same(key, kept):
            raise StoreError(
                f"the key-encryption key {id!r} is not the one that {place} was used with",
                hint="give that one; it may lie in a copy of the key file, or in another service's environment",
            )
    if keyring.first.id in checks.retired:
        raise StoreError(
            f"the key-encryption key {keyring.first.id!r} was retired by a rotation",
            hint=f"put {next(iter(checks.used))!r} first",
        )


def wrapping(tx: Transaction, keyring: Keyring) -> Kek:
    """Return the key that wraps, noted in the store as used. Raises VaultError for one that was retired meanwhile."""
    checks = locked(tx) or _Checks(used={})
    first = keyring.first
    if first.id in checks.retired:
        raise VaultError(
            f"the key-encryption key {first.id!r} was retired by a rotation",
            hint="give this process the new list (DBLENS_KEK, DBLENS_KEK_FILE) and start it again",
        )
    for id, kept in checks.used.items():
        if not _same(keyring.key(id, "the store"), kept):
            raise VaultError(f"the key-encryption key {id!r} is not the store's", hint="give the store's own")
    if first.id not in checks.used:
        write(tx, _Checks(used={**checks.used, first.id: first.check()}, retired=checks.retired))
    return first


def retire_others(tx: Transaction, keyring: Keyring) -> None:
    """Note that everything is wrapped with the first key now, and that the others never wrap again."""
    checks, first = locked(tx) or _Checks(used={}), keyring.first
    gone = {id: kept for id, kept in checks.used.items() if id != first.id}
    write(tx, _Checks(used={first.id: first.check()}, retired={**checks.retired, **gone}))


def locked(tx: Transaction) -> _Checks | None:
    """Read the check values, so that nobody else changes them or makes a data key until the transaction ends."""
    value = tx.scalar(sa.select(meta.c.value).where(meta.c.key == CHECK).with_for_update())
    return None if value is None else _read(value)


def write(tx: Transaction, checks: _Checks) -> None:
    """Keep the check values. Raises StoreError when two processes write the first ones at the same time."""
    value = msgspec.json.encode(checks, order="sorted").decode()
    if tx.execute(meta.update().where(meta.c.key == CHECK).values(value=value)).rowcount:
        return
    try:
        with tx.begin_nested():
            tx.execute(meta.insert().values(key=CHECK, value=value))
    except sa.exc.IntegrityError:
        raise StoreError("another process gave the store its key at the same moment", hint="try again") from None


def _read(value: str) -> _Checks:
    try:
        return msgspec.json.decode(value, type=_Checks)
    except (msgspec.DecodeError, UnicodeError):
        raise StoreError(
            "the check value of the key is damaged", hint="restore a backup: `dblens store restore`"
        ) from None


def _same(key: Kek, kept: str) -> bool:
    return hmac.compare_digest(key.check().encode(), kept.encode("utf-8", "surrogatepass"))


def _used(tx: Transaction) -> bool:
    return any(_rows(tx))


def _rows(tx: Transaction) -> Iterator[bool]:
    for column in (data_keys.c.id, secrets.c.field):
        yield tx.execute(sa.select(column).limit(1)).first() is not None
    instance = meta.c.key.startswith("secret.", autoescape=True) | (meta.c.key == CHECK)
    yield tx.execute(sa.select(meta.c.key).where(instance).limit(1)).first() is not None
