"""Opening a session: what cannot be opened says so clearly, by the right error, and without the password."""

from __future__ import annotations

import socket
import traceback

import msgspec
import pytest

from dblens.engines.base import Url
from dblens.errors import ConnectionFailed, DBLensError, InvalidInput, NotAuthenticated, NotFound, PermissionDenied
from tests.engines.support import Case

SECRET = "pässw%rd'\"\\:@/ \n"


def refused(case: Case, url: Url, password: str | None) -> DBLensError:
    with pytest.raises(DBLensError) as caught:
        case.engine.connect(url, password)
    error = caught.value
    assert error.hint, "an error says what to do next"
    shown = f"{error!s} {error!r} {error.hint}"
    whole = "".join(traceback.format_exception(error))
    for secret in (password, SECRET):
        if secret:
            assert secret not in shown
            assert secret not in whole
    return error


def test_it_opens(engine_case: Case) -> None:
    url = engine_case.sample()
    session = engine_case.open(url)
    assert session.engine.name == engine_case.harness.engine
    assert session.version
    assert session.flavour
    assert session.database
    _, password = engine_case.address(url)
    for shown in (repr(session), str(session), session.fingerprint_id):
        assert password is None or password not in shown


def test_unreachable_host(engine_case: Case) -> None:
    url, password = engine_case.address(engine_case.sample())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = refused(engine_case, msgspec.structs.replace(url, port=port), password)
    assert isinstance(error, ConnectionFailed)
    assert error.exit == 3
    assert str(port) in str(error)


def test_wrong_password(engine_case: Case) -> None:
    url, _ = engine_case.address(engine_case.sample())
    error = refused(engine_case, url, SECRET)
    assert isinstance(error, (NotAuthenticated, PermissionDenied))
    assert error.exit == 5


def test_missing_database(engine_case: Case) -> None:
    url, password = engine_case.address(engine_case.sample())
    missing = msgspec.structs.replace(url, database=f"{url.database}_not_there")
    error = refused(engine_case, missing, password)
    assert isinstance(error, NotFound)
    assert error.exit == 4
    assert "_not_there" in str(error)


def test_unknown_option(engine_case: Case) -> None:
    url, password = engine_case.address(engine_case.sample())
    error = refused(engine_case, msgspec.structs.replace(url, options={**url.options, "frobnicate": "1"}), password)
    assert isinstance(error, InvalidInput)
    assert error.exit == 2
    assert "frobnicate" in str(error)


def test_create_makes_a_missing_database(engine_case: Case) -> None:
    url, password = engine_case.address(engine_case.database())
    assert url.database
    name = url.database.replace(".sqlite", "") + "_new" + (".sqlite" if url.database.endswith(".sqlite") else "")
    made = msgspec.structs.replace(url, database=name)
    try:
        session = engine_case.engine.connect(made, password, create=True)
        assert session.inspect().tables == ()
        session.close()
    finally:
        engine_case.server.drop_database(name.rpartition("/")[2].removesuffix(".sqlite"))


def test_read_only_is_enforced(engine_case: Case) -> None:
    url = engine_case.database()
    engine_case.harness.sample(url)
    session = engine_case.open(url, read_only=True)
    before = session.inspect()
    with pytest.raises(DBLensError):
        session.open_run(engine_case.record())
    assert engine_case.open(url).inspect() == before


def test_closing_twice_is_fine(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    session.close()
    session.close()


def test_support_always_has_a_reason(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    for feature in (
        "snapshot",
        "shared_snapshot",
        "bulk_load",
        "atomic_swap",
        "transactional_ddl",
        "create_database",
        "cancel",
    ):
        support = session.supports(feature)
        assert support.ok or support.why, feature


def test_nothing_is_missing_for_the_owner(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    assert session.missing_privileges(write=False) == []
    assert session.missing_privileges(write=True) == []


def test_a_query_that_fails_keeps_the_session_usable(engine_case: Case) -> None:
    session = engine_case.open(engine_case.sample())
    with pytest.raises(DBLensError):
        session.execute("this is no statement of any engine (")
    assert session.count(next(t for t in session.inspect().tables if t.name == "person")) == 5
