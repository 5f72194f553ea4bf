"""MongoDB: collections of documents, through pymongo."""

from __future__ import annotations

from typing import Any

from dblens.engines.asking import Asks, Lexis
from dblens.engines.base import Engine, Facts, Target, Url
from dblens.engines.mongodb import alter, ddl, types
from dblens.engines.mongodb.edits import edits
from dblens.errors import InvalidInput

OPTIONS = frozenset(
    {
        "authMechanism", "authSource", "compressors", "connectTimeoutMS", "directConnection", "loadBalanced", "localThresholdMS",
        "maxPoolSize", "readConcernLevel", "readPreference", "replicaSet", "retryReads", "retryWrites", "serverSelectionTimeoutMS",
        "socketTimeoutMS", "srvMaxHosts", "ssl", "tls", "tlsCAFile",
    }
)  # fmt: skip
"""URL options that may be given. Not among them: client key files with passwords, options that switch certificate checks off, and
`authMechanismProperties`, which can name programs and services."""
_INSECURE = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")
_MECHANISMS = ("SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN", "MONGODB-X509", "DEFAULT")


def _options(url: Url) -> dict[str, Any]:
    known = {name.lower(): name for name in OPTIONS}
    options: dict[str, Any] = {}
    for name, value in url.options.items():
        if name.lower() not in known:
            why = "it would switch certificate checks off" if name.lower() in _INSECURE else "it is not on the list"
            raise InvalidInput(
                f"the option {name!r} is not accepted: {why}", hint=f"one of {', '.join(sorted(OPTIONS))}"
            )
        options[known[name.lower()]] = value
    mechanism = options.get("authMechanism")
    if mechanism is not None and mechanism.upper() not in _MECHANISMS:
        raise InvalidInput(f"the authentication {mechanism!r} is not accepted", hint=f"one of {', '.join(_MECHANISMS)}")
    return options


def connect(
    url: Url, password: str | None = None, *, create: bool = False, read_only: bool = False, application: str = "dblens"
) -> Target:
    """Open a session on one database.

    A MongoDB database comes into being with its first collection, so a missing one is an empty one and `create` has nothing to do.
    Raises InvalidInput for an option that is not on the list or a URL without a database, ConnectionFailed, NotAuthenticated.
    """
    from urllib.parse import quote, urlencode

    from bson.codec_options import CodecOptions
    from pymongo import MongoClient

    from dblens.engines.access.route import route_of
    from dblens.engines.mongodb.errors import guard
    from dblens.engines.mongodb.guarded import guarded
    from dblens.engines.mongodb.session import MongoSession

    del create
    options = _options(url)
    if not url.database:
        raise InvalidInput(f"the URL {url} names no database", hint="write mongodb://host:27017/database")
    host = url.host or "localhost"
    if ":" in host:
        host = f"[{host}]"
    port = f":{url.port}" if url.port and url.scheme == "mongodb" else ""
    options.setdefault("serverSelectionTimeoutMS", "10000")
    text = f"{url.scheme}://{host}{port}/?{urlencode(options, quote_via=quote)}"
    login: dict[str, Any] = {}
    if url.user:
        # Beside the URL, so that the password is in no text that could be printed.
        login = {"username": url.user, "password": password}
        if "authSource" not in options and "authMechanism" not in options:
            login["authSource"] = url.database if url.scheme == "mongodb" else "admin"
    route = route_of(url)
    if route is not None:
        seeds = ",".join((f"{host}{port}", *route.parameters["hosts"]))
        rest = {name: value for name, value in _options(url).items() if name not in route.parameters}
        text = f"{url.scheme}://{seeds}/?{urlencode(rest, quote_via=quote)}"
        login |= guarded(route)
    with guard(f"connecting to {url}"):
        codec: CodecOptions[dict[str, Any]] = CodecOptions()
        client: MongoClient[dict[str, Any]] = MongoClient(
            text, appname=application, datetime_conversion="DATETIME_AUTO", document_class=codec.document_class, **login
        )
        try:
            hello = dict(client.admin.command("hello"))
            return MongoSession(engine, url, client, hello, read_only=read_only)
        except BaseException:
            client.close()
            raise


def ask(session: Target) -> Asks:
    """Return a session as people ask it, in mongosh-style text."""
    from dblens.engines.mongodb.ask import ask as asks

    return asks(session)


def splits(text: str) -> list[tuple[int, int]]:
    """Return where the statements of mongosh-style text begin and end. Raises InvalidInput."""
    from dblens.engines.mongodb.shell import split

    return split(text)


def reads(text: str) -> bool:
    """Tell whether mongosh-style text surely only reads."""
    from dblens.engines.mongodb.ask import reads as only

    return only(text)


engine = Engine(
    name="mongodb",
    title="MongoDB",
    schemes=("mongodb", "mongodb+srv"),
    default_port=27017,
    options=OPTIONS,
    facts=Facts(
        identifier_limit=110,
        identifier_unit="octets",
        folds_case=False,
        max_columns=100_000,
        schemas=False,
        documents=True,
        forbidden_in_names="\0$",
        reserved_prefixes=("system.", "_dblens_"),
        enforces_foreign_keys=False,
    ),
    types=types,
    ddl=ddl,
    connect=connect,
    alter=alter,
    ask=ask,
    edits=edits,
    lexis=Lexis(dialect="", placeholder="question", identifier_quotes="", string_quotes="'\"`", backslash_escapes=True),
    splits=splits,
    reads=reads,
)
