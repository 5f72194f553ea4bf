"""Settings: environment over file, unknown keys and bad values by name, no secret shown."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from dblens.errors import InvalidInput
from dblens.redaction import Secret
from dblens.settings import Settings, load

CANARY = "c4nary-p:ss@w/rd"


def _file(home: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = home / ".config" / "dblens" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return {"HOME": str(home)}


def test_without_anything(tmp_path: Path) -> None:
    found = load({"HOME": str(tmp_path)})
    assert found.store_url == f"sqlite:///{tmp_path}/.local/share/dblens/store.sqlite"
    assert (found.mode, found.kek, found.token, found.url) == ("single", None, None, None)
    assert load({"HOME": "/h", "XDG_DATA_HOME": "/x"}).store_url == "sqlite:////x/dblens/store.sqlite"
    assert load({"HOME": "/h", "XDG_DATA_HOME": "relative"}).data_folder == Path("/h/.local/share/dblens")
    with pytest.raises(AttributeError):
        found.mode = "team"  # type: ignore[misc]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = _file(tmp_path, 'store_url = "sqlite:////f/s"\nport = 9\nsqlite_roots = ["/a", "/b"]\nmode = "team"\n')
    found = load(environ)
    assert (found.store_url, found.port, found.mode) == ("sqlite:////f/s", 9, "team")
    assert found.sqlite_roots == (Path("/a"), Path("/b"))
    found = load(environ | {"DBLENS_PORT": "10", "DBLENS_SQLITE_ROOTS": "/c, ~", "DBLENS_STORE_URL": ""})
    assert (found.port, found.store_url) == (10, "sqlite:////f/s")
    assert found.sqlite_roots == (Path("/c"), Path.home())


def test_another_file(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    with pytest.raises(InvalidInput, match="no file"):
        load({"HOME": str(tmp_path), "DBLENS_CONFIG": str(other)})
    other.write_text("port = 11\n")
    assert load(_file(tmp_path, "port = 12\n") | {"DBLENS_CONFIG": str(other)}).port == 11


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stor_url = 'x'", "unknown key 'stor_url'"),
        ("zzz = 1", "unknown key 'zzz'"),
        ("[mode]\na = 1", "mode"),
        ("port = 'many'", "port"),
        ("port = 1.5", "port"),
        ("mode = 'solo'", "mode"),
        ("kek_file = 'relative'", "kek_file"),
        ("sqlite_roots = '/a'", "sqlite_roots"),
        ("store_url = 7", "store_url"),
        ("kek = 7", "kek"),
        ("store_url = ", "config.toml"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=named):
        load(_file(tmp_path, text))


def test_a_near_key_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(_file(tmp_path, "stor_url = 'x'"))
    assert caught.value.hint == "did you mean 'store_url'?"


@pytest.mark.parametrize(
    "text", [f"kek = '{CANARY}'", f"token = '{CANARY}'", f"store_url = 'postgresql://u:{CANARY}@h/d'"]
)
def test_a_file_with_a_secret_is_private(text: str, tmp_path: Path) -> None:
    load(_file(tmp_path, text))
    with pytest.raises(InvalidInput, match="can be read by others") as caught:
        load(_file(tmp_path, text, 0o640))
    assert CANARY not in str(caught.value)
    load(_file(tmp_path, "port = 1", 0o644))


def test_no_secret_is_shown(tmp_path: Path) -> None:
    found = load(
        {
            "HOME": str(tmp_path), "DBLENS_KEK": CANARY, "DBLENS_TOKEN": CANARY, "DBLENS_AUDIT_KEY": CANARY,
            "DBLENS_STORE_URL": f"postgresql://user:{CANARY}@host/db?password={CANARY}&x=1",
        }
    )  # fmt: skip
    assert isinstance(found, Settings)
    assert found.kek == Secret(CANARY)
    assert found.kek.reveal() == CANARY
    shown = [repr(found), str(found), f"{found}", repr(dict(found.__rich_repr__())), str(found.kek), f"{found.kek!r}"]
    assert all(part not in text for text in shown for part in (CANARY, "c4nary", "w/rd"))
    assert "user:***@host" in repr(found)
    for act in (lambda: pickle.dumps(found), lambda: pickle.dumps(found.kek)):
        with pytest.raises(TypeError, match="not pickled"):
            act()


def test_errors_hold_no_secret(tmp_path: Path) -> None:
    for text in (f"kek = ['{CANARY}']", f"kek = '{CANARY}", f"token = {{a = '{CANARY}'}}", f"'{CANARY}' "):
        with pytest.raises(InvalidInput) as caught:
            load(_file(tmp_path, text))
        assert CANARY not in "".join(traceback.format_exception(caught.value)).replace(f"text = {text}", "")


def test_keys_are_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dblens.settings._taken", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DBLENS_KEK", CANARY)
    monkeypatch.setenv("DBLENS_AUDIT_KEY", CANARY)
    monkeypatch.setenv("DBLENS_TOKEN", "t")
    first = load()
    assert "DBLENS_KEK" not in os.environ
    assert "DBLENS_AUDIT_KEY" not in os.environ
    assert os.environ["DBLENS_TOKEN"] == "t"
    assert load() == first
    given = {"HOME": "/h", "DBLENS_KEK": "other"}
    assert load(given).kek == Secret("other")
    assert "DBLENS_KEK" not in given
    assert load({"HOME": "/h"}).kek is None
