"""What a connection may be: fields, URLs, and parameters by name."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from dblens.engines.access.params import ALLOWED
from dblens.engines.access.spec import ConnectionSpec, Tls, from_fields, from_url
from dblens.errors import InvalidInput

SECRET = "c4nary-p4ssword"
PG: dict[str, Any] = {"engine": "postgresql", "host": "db.example.org", "database": "shop", "user": "me"}
MY: dict[str, Any] = {**PG, "engine": "mysql"}
MONGO: dict[str, Any] = {**PG, "engine": "mongodb"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGr1Y6f4UTnZgkAHgJUe8jhOqFXMdjJjyv2cmxpB8nYJ"
HOP: dict[str, Any] = {"host": "hop.example.org", "user": "jump", "host_key": KEY, "key_secret": "ssh.key"}
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

FORBIDDEN = {
    "postgresql": [
        "host", "hostaddr", "port", "dbname", "user", "password", "service", "servicefile", "passfile", "sslcert", "sslkey", "sslrootcert",
        "sslcrl", "sslcrldir", "sslkeylogfile", "sslpassword", "sslcertmode", "gsslib", "gssencmode", "krbsrvname", "options", "replication",
        "requirepeer", "require_auth", "load_balance_hosts", "sslnegotiation", "fallback_application_name", "client_encoding",
        "oauth_issuer", "scram_client_key", "min_protocol_version", "ssl_min_protocol_version", "tcp_user_timeout", "HOST", "frobnicate",
    ],
    "mysql": [
        "host", "local_infile", "allow_local_infile", "local-infile", "ssl_ca", "ssl-ca", "ssl_cert", "ssl_key", "ssl_verify_cert",
        "read_default_file", "read_default_group", "init_command", "unix_socket", "socket", "plugin_dir", "auth_plugin_map", "bind_address",
        "client_flag", "server_public_key", "charset", "defer_connect", "allowLoadLocalInfile", "frobnicate",
    ],
    "mongodb": [
        "proxyHost", "proxyPort", "proxyUsername", "proxyPassword", "tlsCAFile", "tlsCertificateKeyFile", "tlsCertificateKeyFilePassword",
        "tlsCRLFile", "tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames", "tlsDisableOCSPEndpointCheck",
        "authMechanismProperties", "AUTHMECHANISMPROPERTIES", "gssapiServiceName", "srvServiceName", "appName", "password", "frobnicate",
    ],
    "sqlite": ["vfs", "cache", "modeof", "nolock", "psow", "uri", "frobnicate"],
}  # fmt: skip
CASES = [(engine, name) for engine, names in FORBIDDEN.items() for name in names]


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_a_parameter_that_is_not_on_the_list_is_named(engine: str, name: str) -> None:
    fields = {**PG, "engine": engine} if engine != "sqlite" else {"engine": "sqlite", "path": "/tmp/x.db"}
    for fill in ({"options": {name: "1"}},):
        with pytest.raises(InvalidInput) as caught:
            from_fields({**fields, **fill})
        assert repr(name) in str(caught.value)
        assert caught.value.hint
    base = "sqlite:////tmp/x.db" if engine == "sqlite" else f"{engine}://me@db.example.org/shop"
    with pytest.raises(InvalidInput) as caught:
        from_url(f"{base}?{name}=evil")
    assert name.lower() in str(caught.value).lower()


@pytest.mark.parametrize(("engine", "name"), [(e, n) for e, names in ALLOWED.items() for n in names])
def test_values_are_checked_too(engine: str, name: str) -> None:
    fields = {**PG, "engine": engine} if engine != "sqlite" else {"engine": "sqlite", "path": "/tmp/x.db"}
    for value in ("", "'; host=evil", "x\ny", "/etc/passwd\0", "-1", "99999999999"):
        if name == "application_name" and value in ("-1", "99999999999"):
            continue
        with pytest.raises(InvalidInput, match=name):
            from_fields({**fields, "options": {name: value}})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://good/db?host=evil&passfile=/etc/passwd",
        "postgresql://me@good/db?hostaddr=169.254.169.254",
        "postgresql://me@good,evil/db",
        "postgresql://me@good:5432,evil:5432/db",
        "postgresql://me@good/db#fragment",
        "postgresql://me@good\n.evil/db",
        "postgresql://me@good/db%00",
        "postgresql://me@good/db%0Ahost=evil",
        "postgresql://me@/db",
        "postgresql:///db",
        "postgresql://me@good/",
        "postgresql://me@good:99999/db",
        "postgresql://me@good:0/db",
        "postgresql://me@good:/db?port=1",
        "postgresql://me@good/db?sslmode=disable&sslmode=verify-full",
        "postgresql://me@good/db?sslmode=off",
        "postgresql://me@good\\@evil/db",
        "http://169.254.169.254/latest",
        "gopher://x/y",
        "postgresql+psycopg://me@good/db",
        "not a url",
        "",
        "mysql://me@good/db?local_infile=1",
        "mongodb+srv://me@good:27017/db",
        "mongodb+srv://me@one,two/db",
        "sqlite:///x.db?vfs=unix-none",
        "sqlite:///x.db?mode=memory",
    ],
)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_url(url)
    assert caught.value.hint


def test_a_url_is_taken_apart_and_put_together_again() -> None:
    spec, password = from_url(
        f"postgresql://me:{SECRET}@DB.example.org:6432/sh%20op?sslmode=verify-full&connect_timeout=5"
    )
    assert password == SECRET
    assert spec == ConnectionSpec(
        engine="postgresql", host="db.example.org", port=6432, database="sh op", user="me",
        options={"connect_timeout": "5"}, tls=Tls(mode="verify-full"),
    )  # fmt: skip
    assert str(spec.to_url()) == "postgresql://me@db.example.org:6432/sh%20op?connect_timeout=5"
    assert SECRET not in repr(spec)
    mongo, _ = from_url("mongodb://me@a:1,b:2,c/shop?replicaSet=rs0&authSource=admin&readPreference=nearest&tls=true")
    assert mongo.hosts == ("b:2", "c:27017")
    assert (mongo.replica_set, mongo.auth_database, mongo.tls) == ("rs0", "admin", Tls(mode="verify-full"))
    srv, _ = from_url("mongodb+srv://me@cluster.example.org/shop")
    assert srv.srv
    assert str(srv.to_url()) == "mongodb+srv://me@cluster.example.org/shop"
    v6, _ = from_url("mysql://me@[2001:DB8::1]:3307/shop")
    assert (v6.host, v6.port) == ("2001:db8::1", 3307)
    file, _ = from_url("sqlite:////data/a%20b.db?mode=ro")
    assert (file.path, file.options) == ("/data/a b.db", {"mode": "ro"})
    sock, _ = from_url("postgresql://me@%2FVar%2Frun/shop")
    assert sock.socket == "/Var/run"


def test_no_secret_in_what_is_said_about_a_url() -> None:
    for url in (
        f"postgresql://me:{SECRET}@h/d?host=evil",
        f"mysql://me:{SECRET}@h,i/d",
        f"mongodb://me:{SECRET}@h/d?password={SECRET}",
    ):
        with pytest.raises(InvalidInput) as caught:
            from_url(url)
        assert SECRET not in str(caught.value)
        assert SECRET not in str(caught.value.hint)
        assert SECRET not in "".join(traceback.format_exception(caught.value)).replace(url, "")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({**PG, "hots": "x"}, "hots"),
        ({**PG, "password": SECRET}, "password"),
        ({**PG, "engine": "oracle"}, "engine"),
        ({**PG, "port": "5432"}, "port"),
        ({**PG, "port": 70000}, "port"),
        ({**PG, "database": "a\0b"}, "database"),
        ({**PG, "database": "a\nb"}, "database"),
        ({**PG, "database": "x" * 300}, "database"),
        ({**PG, "database": "\ud800"}, "database"),
        ({**PG, "user": "me\r\nroot"}, "user"),
        ({**PG, "user": None}, "user"),
        ({**PG, "host": None}, "host"),
        ({**PG, "path": "/x.db"}, "path"),
        ({**PG, "srv": True}, "srv"),
        ({**PG, "replica_set": "rs0"}, "replica_set"),
        ({**PG, "socket": "/run"}, "socket"),
        ({**PG, "host": None, "socket": "relative"}, "socket"),
        ({**PG, "tls": {"mode": "off"}}, "tls.mode"),
        ({**PG, "tls": {"ca": "/etc/passwd"}}, "tls.ca"),
        ({**PG, "tls": {"ca": "-----BEGIN X" + "x" * 300_000}}, "tls.ca"),
        ({**PG, "tls": {"cafile": PEM}}, "cafile"),
        ({**PG, "tls": {"mode": "disable", "ca": PEM}}, "tls"),
        ({**PG, "tunnel": {**HOP, "proxy": "x"}}, "proxy"),
        ({**PG, "tunnel": {**HOP, "user": "-oProxyCommand=id"}}, "tunnel.user"),
        ({**PG, "tunnel": {**HOP, "user": "a b"}}, "tunnel.user"),
        ({**PG, "tunnel": {**HOP, "host_key": "ssh-rsa"}}, "tunnel.host_key"),
        ({**PG, "tunnel": {**HOP, "host_key": f"* {KEY}"}}, "tunnel.host_key"),
        ({**PG, "tunnel": {**HOP, "host_key": f"@cert-authority * {KEY}"}}, "tunnel.host_key"),
        ({**PG, "tunnel": {**HOP, "key_secret": "/etc/ssh/key"}}, "key_secret"),
        ({**PG, "tunnel": {k: v for k, v in HOP.items() if k != "host_key"}}, "host_key"),
        ({**PG, "tunnel": {k: v for k, v in HOP.items() if k != "key_secret"}}, "key"),
        ({**MONGO, "hosts": ["a:1,b"]}, "hosts"),
        ({**MONGO, "srv": True, "hosts": ["a:1"]}, "SRV"),
        ({**MONGO, "hosts": ["a:1"], "tunnel": HOP}, "tunnel"),
        ({"engine": "sqlite"}, "path"),
        ({"engine": "sqlite", "path": "/x.db", "host": "h"}, "host"),
        ({"engine": "sqlite", "path": "/x\0.db"}, "path"),
        ({"host": "h"}, "engine"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_fields(fields)
    said = str(caught.value)
    assert word in said or ("hosts" in word and "several hosts" in said)
    assert SECRET not in said


def test_names_that_look_like_arguments_are_data() -> None:
    for name in ("host=evil passfile=/x", "postgresql://evil/db", "-Fc", "--file=/x", "a'b\"c", "a%b", "größe"):
        spec = from_fields({**PG, "database": name})
        assert spec.database == name
        again, _ = from_url(str(spec.to_url()))
        assert again == msg(spec)


def msg(spec: ConnectionSpec) -> ConnectionSpec:
    import msgspec

    return msgspec.structs.replace(spec, port=5432)


def test_export_has_no_secret_and_comes_back() -> None:
    spec = from_fields(
        {**PG, "tls": {"mode": "verify-ca", "ca": PEM, "cert": PEM, "key": PEM.replace("AAAA", SECRET)}, "tunnel": HOP}
    )
    assert spec.secrets() == {"tls.key": PEM.replace("AAAA", SECRET)}
    assert SECRET not in repr(spec)
    exported = spec.export()
    assert SECRET not in str(exported)
    assert from_fields(exported) == spec.without_secrets()
    assert from_fields(from_fields(exported).export()) == spec.without_secrets()


def test_the_read_only_login_has_its_own_address() -> None:
    spec = from_fields({**PG, "read_only_user": "reader"})
    assert spec.to_url(read_only=True).user == "reader"
    assert spec.to_url().user == "me"
