"""Settings: who may read and change which, what is wrong is named by field, and no secret comes out again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblens.errors import InvalidInput, NotAuthenticated, NotFound, PermissionDenied, Unsupported
from dblens.redaction import Secret
from dblens.store import secrets
from dblens.store.audit_find import Filter, every
from dblens.store.database import Store
from dblens.workspace.setting_kinds import KINDS
from tests.store.conftest import store
from tests.workspace.rooms import NOW, Rooms, move_in

__all__ = ["store"]
CANARY = "Kanarienvogel-4711-schweigt"
SMTP = {"host": "mail.example.org", "sender": "DBLens <dblens@example.org>", "user": "dblens"}
OPS = {"name": "ops", "url": "https://198.51.100.7/hook"}


@pytest.fixture
def rooms(store: Store, tmp_path: Path) -> Iterator[Rooms]:
    made = move_in(store, tmp_path)
    yield made
    made.house.close()


def test_each_administrator_sees_their_own(rooms: Rooms) -> None:
    names = {role: {s.name for s in rooms.doors("acme", role).settings.list()} for role in ("admin", "super_admin")}
    assert names["admin"] == {name for name, kind in KINDS.items() if kind.scope == "organization"}
    assert names["super_admin"] == set(KINDS)
    for role in ("developer", "analyst", "auditor", "viewer"):
        with pytest.raises(PermissionDenied):
            rooms.doors("acme", role).settings.list()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.scope == "instance"])
def test_the_instances_are_not_for_an_organizations_admin(rooms: Rooms, name: str) -> None:
    door = rooms.doors("acme", "admin").settings
    for call in (lambda: door.read(name), lambda: door.update(name, {}), lambda: door.reset(name)):
        with pytest.raises(PermissionDenied, match=r"settings\.instance"):
            call()
    with pytest.raises(PermissionDenied):
        door.test_mail("ann@example.org")


def test_a_token_scoped_for_settings_is_not_for_the_instances(rooms: Rooms) -> None:
    door = rooms.doors("acme", "super_admin", scopes=("settings.read", "settings.update")).settings
    with pytest.raises(PermissionDenied):
        door.read("smtp")
    assert "smtp" not in {setting.name for setting in door.list()}


def test_a_change_needs_a_recent_login(rooms: Rooms) -> None:
    old = NOW - dt.timedelta(minutes=16)
    for role, name in (("admin", "defaults"), ("super_admin", "accounts")):
        door = rooms.doors("acme", role, authenticated_at=old).settings
        assert door.read(name).name == name
        for call in (lambda: door.update(name, {}), lambda: door.reset(name)):  # noqa: B023
            with pytest.raises(NotAuthenticated):
                call()


def test_what_is_not_given_stays_and_reset_goes_back(rooms: Rooms) -> None:
    door = rooms.doors("acme", "admin").settings
    assert door.read("defaults").value == {"environment": "dev", "read_only": False}
    assert not door.read("defaults").set
    door.update("defaults", {"environment": "staging"})
    changed = door.update("defaults", {"read_only": True})
    assert changed.value == {"environment": "staging", "read_only": True}
    assert changed.default == {"environment": "dev", "read_only": False}
    assert changed.fields["environment"] == "dev | production | staging"
    assert rooms.doors("beta", "admin").settings.read("defaults").value == changed.default, "another organization's"
    assert not door.reset("defaults").set
    assert door.reset("defaults").value == changed.default


def test_every_wrong_field_is_named_and_nothing_is_kept(rooms: Rooms) -> None:
    door = rooms.doors("acme", "super_admin").settings
    with pytest.raises(InvalidInput) as caught:
        door.update("accounts", {"sign_up": "yes", "idle_hours": 0, "lockout_failures": 5, "is_admin": True})
    for word in ("sign_up", "idle_hours", "'is_admin' is no field"):
        assert word in caught.value.message
    assert "lockout_failures" not in caught.value.message
    assert not door.read("accounts").set
    with pytest.raises(InvalidInput, match="sender is missing"):
        door.update("smtp", {"host": "mail.example.org"})
    with pytest.raises(InvalidInput, match="email_domains"):
        door.update("accounts", {"email_domains": ["not a domain"]})
    with pytest.raises(InvalidInput, match="line end"):
        door.update("application", {"title": "DBLens\r\nBcc: all@example.org"})
    with pytest.raises(NotFound, match="no setting 'nothing'"):
        door.update("nothing", {})
    with pytest.raises(InvalidInput, match="value"):
        door.update("accounts", [1])  # type: ignore[arg-type]


def test_a_new_connection_is_as_the_defaults_say(rooms: Rooms) -> None:
    from dblens.workspace.ways import NewConnection

    doors = rooms.doors("acme", "admin")
    way = {"fields": {"engine": "sqlite", "path": str(rooms.house.settings.data_folder / "shop.db")}}
    before = doors.connections.create(NewConnection(name="before", **way))
    assert (before.environment, before.read_only) == ("dev", False)
    doors.settings.update("defaults", {"environment": "production", "read_only": True})
    after = doors.connections.create(NewConnection(name="after", **way))
    assert (after.environment, after.read_only) == ("production", True)
    said = doors.connections.create(NewConnection(name="said", environment="staging", read_only=False, **way))
    assert (said.environment, said.read_only) == ("staging", False)


def test_what_the_accounts_read_is_what_was_set(rooms: Rooms) -> None:
    from dblens.workspace.entrance import accounts_of

    door = rooms.doors("acme", "super_admin").settings
    door.update("accounts", {"sign_up": True, "idle_hours": 5})
    assert accounts_of(rooms.house).rules.sign_up
    assert accounts_of(rooms.house).rules.idle == dt.timedelta(hours=5)
    door.reset("accounts")
    assert not accounts_of(rooms.house).rules.sign_up


# ----------------------------------------------------------------------------------------------------------------------- secrets


def everything_shown(rooms: Rooms, result: object) -> str:
    rooms.house.journal.flush()
    rows = [msgspec.json.encode(msgspec.to_builtins(row)).decode() for row in every(rooms.house.store, None, Filter())]
    return repr(result) + msgspec.json.encode(result).decode() + "".join(rows)


def test_the_mail_password_is_sealed_and_never_shown(rooms: Rooms) -> None:
    door = rooms.doors("acme", "super_admin").settings
    made = door.update("smtp", SMTP, secrets={"password": Secret(CANARY)})
    assert made.secrets == ("password",)
    shown = everything_shown(rooms, [made, door.list(), door.read("smtp")])
    assert CANARY not in shown
    assert '"name":"smtp"' in shown, "the audit names what was changed"
    with rooms.house.store.read() as tx:
        assert secrets.get_instance(tx, rooms.house.keyring, "smtp.password").reveal() == CANARY
    assert door.reset("smtp").secrets == ()
    with rooms.house.store.read() as tx, pytest.raises(NotFound):
        secrets.get_instance(tx, rooms.house.keyring, "smtp.password")


@pytest.mark.parametrize("change", [{"host": "evil.example.org"}, {"port": 2525}, {"security": "tls"}, {"user": "x"}])
def test_the_mail_password_goes_nowhere_else(rooms: Rooms, change: dict[str, Any]) -> None:
    door = rooms.doors("acme", "super_admin").settings
    door.update("smtp", SMTP, secrets={"password": Secret(CANARY)})
    with pytest.raises(InvalidInput, match="password has to be given again"):
        door.update("smtp", change)
    assert (door.read("smtp").value or {})["host"] == SMTP["host"]
    assert door.update("smtp", {"sender": "other@example.org"}).secrets == ("password",)
    assert door.update("smtp", change, secrets={"password": Secret("another one")}).secrets == ("password",)


def test_a_password_is_not_sent_in_the_clear(rooms: Rooms) -> None:
    door = rooms.doors("acme", "super_admin").settings
    with pytest.raises(InvalidInput, match="none"):
        door.update("smtp", SMTP | {"security": "none"})
    with pytest.raises(InvalidInput, match="no name"):
        door.update("accounts", {}, secrets={"password": Secret("x")})


def test_a_webhook_has_a_secret_of_its_own(rooms: Rooms) -> None:
    door = rooms.doors("acme", "admin").settings
    with pytest.raises(InvalidInput, match="'ops' has none"):
        door.update("webhooks", {"hooks": [OPS]})
    with pytest.raises(InvalidInput, match="short"):
        door.update("webhooks", {"hooks": [OPS]}, secrets={"ops": Secret("short")})
    made = door.update("webhooks", {"hooks": [OPS]}, secrets={"ops": Secret(CANARY)})
    assert made.secrets == ("ops",)
    assert CANARY not in everything_shown(rooms, made)
    again = door.update("webhooks", {"hooks": [OPS, OPS | {"name": "b"}]}, secrets={"b": Secret("b" * 16)})
    assert again.secrets == ("b", "ops")
    assert door.update("webhooks", {"hooks": []}).secrets == ()
    with rooms.house.store.read() as tx, pytest.raises(NotFound):
        secrets.get(tx, rooms.house.keyring, rooms.orgs["acme"], "webhooks", "ops")


def test_the_address_of_a_webhook_is_in_no_audit(rooms: Rooms) -> None:
    door = rooms.doors("acme", "admin").settings
    url = "https://198.51.100.7/T0/B0/verysecretpath"
    made = door.update("webhooks", {"hooks": [OPS | {"url": url}]}, secrets={"ops": Secret("x" * 16)})
    assert "verysecretpath" in str(made.value), "its administrator sees it"
    rooms.house.journal.flush()
    rows = [msgspec.json.encode(msgspec.to_builtins(row)) for row in every(rooms.house.store, None, Filter())]
    assert not [row for row in rows if b"verysecretpath" in row]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://198.51.100.7/", "198.51.100.7", "https://", "https://user:pw@198.51.100.7/", "https://198.51.100.7/#x",
        "https://198.51.100.7:0/", "https://198.51.100.7:99999/", "https://a b/", "https://a\nb/", "javascript:alert(1)",
        "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://a,b/", "file:///etc/passwd",
        "https://good.example.org\\@evil/", "https://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(rooms: Rooms, url: str) -> None:
    door = rooms.doors("acme", "admin").settings
    with pytest.raises(InvalidInput):
        door.update("webhooks", {"hooks": [OPS | {"url": url}]}, secrets={"ops": Secret("x" * 16)})
    assert not door.read("webhooks").set


def test_a_mail_without_a_server_is_refused_by_name(rooms: Rooms) -> None:
    with pytest.raises(Unsupported, match="no mail server"):
        rooms.doors("acme", "super_admin").settings.test_mail("ann@example.org")
    with pytest.raises(NotFound, match="no webhook 'ops'"):
        rooms.doors("acme", "admin").settings.test_webhook("ops")


def test_a_value_that_somebody_else_wrote_is_shown_as_wrong(rooms: Rooms) -> None:
    from dblens.store import settings

    with rooms.house.store.write() as tx:
        settings.put_setting(tx, settings.INSTANCE, "retention", {"run_days": "ever"}, now=NOW)
    shown = rooms.doors("acme", "super_admin").settings.read("retention")
    assert "run_days" in (shown.problem or "")
    assert shown.value == shown.default
