"""One connection through mysqlclient (when importable) or pymysql, with the same few verbs and DBLens errors only.

Rows come in two ways: `rows` gives driver values (zero dates as text, never silently None); `stream` gives the octets that
the server sent, unbuffered and unconverted, which is all that a copy or a digest needs and costs a fraction of the CPU.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pymysql
from pymysql.constants import FIELD_TYPE

from dblens.engines.access.guard import dial_checked
from dblens.engines.access.route import Route, route_of
from dblens.engines.base import Result, Url
from dblens.errors import (
    Cancelled,
    Conflict,
    ConnectionFailed,
    DBLensError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    QueryFailed,
    TimedOut,
    Unsupported,
)

OPTIONS = frozenset(
    {
        "ssl-mode", "ssl_mode", "ssl_ca", "ssl-ca", "ssl_cert", "ssl-cert", "ssl_key", "ssl-key",
        "unix_socket", "socket", "connect_timeout", "read_timeout", "driver",
    }
)  # fmt: skip
SSL_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
Raw = tuple[bytes | None, ...]
BATCH = 2000

# Strict for what is written, but zero dates and days that do not exist may be read, compared and loaded (MySQL to MySQL).
SQL_MODE = (
    "ALLOW_INVALID_DATES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO"
)
SESSION = (
    f"set session sql_mode = '{SQL_MODE}', time_zone = '+00:00', autocommit = 1, foreign_key_checks = 1, unique_checks = 1, "
    "session net_write_timeout = 600, session wait_timeout = 28800"
)


def mysqlclient() -> Any | None:
    """Return the MySQLdb module, None when it cannot be imported or DBLENS_MYSQL_DRIVER=pymysql."""
    if os.environ.get("DBLENS_MYSQL_DRIVER") == "pymysql":
        return None
    try:
        import MySQLdb
    except ImportError:
        return None
    return MySQLdb


def translate(error: BaseException, doing: str) -> DBLensError:
    """Return the DBLens error for a driver's exception; `doing` says what was attempted."""
    args: tuple[Any, ...] = error.args
    number = args[0] if args and isinstance(args[0], int) else 0
    text = str(args[1]) if len(args) > 1 else str(error)
    message = f"{doing}: {text}" + (f" ({number})" if number else "")
    if "LOAD_LOCAL" in text or "local infile" in text.lower():
        return QueryFailed(
            f"{doing}: the server asked this client for a local file, which was refused",
            hint="no server has a reason to ask for one here; do not trust this server",
        )
    match number:
        case 1045 | 1698 | 1251 | 2061 | 2059 | 1862 | 1820:
            return NotAuthenticated(
                message, hint="check user and password, and that the account may log in from this host"
            )
        case 1049:
            return NotFound(message, hint="create the database first, or pass --create-target")
        case 1044 | 1142 | 1143 | 1227 | 1370 | 1410:
            return PermissionDenied(message, hint="ask for the missing privilege (GRANT … ON … TO …)")
        case 1146 | 1051:
            return NotFound(message, hint="the table is not there (dropped or renamed since the schema was read?)")
        case 1317 | 1094:
            return Cancelled(message, hint="the statement was stopped on request")
        case 1205 | 3024 | 1969 | 1213 | 3572:
            return TimedOut(message, hint="another session holds a lock, or the time limit passed; try again")
        case 1062 | 1586 | 1050 | 1007:
            return Conflict(message, hint="the key or object is already there")
        case 2003 | 2002 | 2005 | 2013 | 2006 | 2055 | 1040 | 1129 | 1130 | 2026 | 1053 | 1927 | 4031:
            return ConnectionFailed(message, hint=_network_hint(number, text))
        case 1153:
            return QueryFailed(
                message, hint="a value is larger than the server's max_allowed_packet; raise it on the server"
            )
        case 1114 | 1021:
            return QueryFailed(message, hint="the server's disk or tablespace is full; free space and resume")
        case _:
            return QueryFailed(message, hint="the server refused the statement; its own message says why")


def _network_hint(number: int, text: str) -> str:
    lower = text.lower()
    if number == 2005 or "name or service" in lower or "unknown mysql server host" in lower or "getaddrinfo" in lower:
        return "the host name cannot be resolved; check its spelling and your DNS"
    if "refused" in lower or "(111)" in lower or "(115)" in lower:
        return "nothing listens at that host and port; is the server running, and is the port right?"
    if "timed out" in lower:
        return "no answer; check host, port and firewalls"
    if number == 2026 or "ssl" in lower or "tls" in lower or "certificate" in lower:
        return "the TLS handshake failed; check ssl-mode and ssl_ca"
    if number == 1040:
        return "the server's max_connections is reached; lower --jobs or wait"
    if number in (2006, 2013, 2055, 1053, 1927, 4031):
        return "the connection was lost; the server may have restarted or the network dropped it; run it again"
    return "check host, port and that this client's address may connect"


def check_options(url: Url) -> None:
    """Refuse options that are not on the engine's list. Raises InvalidInput."""
    for name, value in url.options.items():
        if name not in OPTIONS:
            raise InvalidInput(f"unknown option for MySQL: {name!r}", hint=f"one of {', '.join(sorted(OPTIONS))}")
        if name in ("ssl-mode", "ssl_mode") and value.lower() not in SSL_MODES:
            raise InvalidInput(f"unknown ssl-mode: {value!r}", hint=f"one of {', '.join(SSL_MODES)}")
        if name in ("connect_timeout", "read_timeout") and not (value.isascii() and value.isdigit() and int(value) > 0):
            raise InvalidInput(
                f"{name} is not a number of seconds: {value!r}", hint="write for example connect_timeout=10"
            )
        if name == "driver" and value not in ("pymysql", "mysqlclient"):
            raise InvalidInput(f"unknown driver: {value!r}", hint="pymysql or mysqlclient")


def _option(url: Url, *names: str) -> str | None:
    return next((url.options[n] for n in names if n in url.options), None)


def tls_context(url: Url) -> ssl.SSLContext | None:
    """Return the TLS settings of a URL, None for an unencrypted connection that was asked for (or preferred without TLS)."""
    mode = (_option(url, "ssl-mode", "ssl_mode") or "preferred").lower()
    ca, cert, key = (_option(url, f"ssl_{n}", f"ssl-{n}") for n in ("ca", "cert", "key"))
    if mode == "disabled":
        return None
    if mode == "preferred" and not (ca or cert):
        return None
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = mode == "verify_identity"
    if mode not in ("verify_ca", "verify_identity"):
        context.verify_mode = ssl.CERT_NONE
    if cert:
        context.load_cert_chain(cert, key)
    return context


def pymysql_arguments(url: Url, password: str | None, database: str | None) -> dict[str, Any]:
    """Return the connect arguments that every pymysql connection of a session shares."""
    arguments: dict[str, Any] = {
        "user": url.user or "root", "password": password or "", "database": database, "charset": "utf8mb4",
        "use_unicode": True, "autocommit": True, "local_infile": False, "init_command": SESSION,
        "connect_timeout": int(_option(url, "connect_timeout") or 10),
    }  # fmt: skip
    if (limit := _option(url, "read_timeout")) is not None:
        arguments["read_timeout"] = int(limit)
    route = route_of(url)
    path = route.socket if route is not None else _option(url, "unix_socket", "socket")
    if path:
        arguments["unix_socket"] = path
    else:
        arguments["host"], arguments["port"] = url.host or "127.0.0.1", url.port or 3306
    if route is not None:
        # The name that a certificate is compared with, whatever the socket leads through.
        return {**arguments, "host": url.host or "localhost", "port": route.port, **_guarded(route)}
    context = tls_context(url)
    mode = (_option(url, "ssl-mode", "ssl_mode") or "preferred").lower()
    if context is not None:
        arguments["ssl"] = context
    elif mode == "disabled":
        arguments["ssl_disabled"] = True
    return arguments


class _NoClearPassword:
    """The handler of `mysql_clear_password` for servers that have not proven who they are."""

    def __init__(self, connection: Any) -> None:
        pass

    def authenticate(self, packet: Any) -> Any:  # noqa: ARG002
        raise pymysql.err.OperationalError(2059, "the server asked for the password in clear text, which was refused")


def _guarded(route: Route) -> dict[str, Any]:
    """Return pymysql's arguments for a checked route."""
    given = dict(route.parameters)
    if not given.pop("clear_password"):
        given["auth_plugin_map"] = dict.fromkeys(("mysql_clear_password", "dialog"), _NoClearPassword)
    return given | {"connect_timeout": max(1, int(given["connect_timeout"]))}


def connected(factory: Callable[..., Any], url: Url, password: str | None, database: str | None) -> Any:
    """Open a pymysql connection: over a socket to the checked address where there is a route, TLS still by the host's name."""
    arguments = pymysql_arguments(url, password, database)
    route = route_of(url)
    if route is None:
        return factory(**arguments)
    raw = factory(**arguments, defer_connect=True)
    made = (
        route.dial(url.host or "localhost", route.port, arguments["connect_timeout"])
        if not route.addresses
        else dial_checked(route.addresses, route.port, url.host or "", arguments["connect_timeout"])
    )
    route.watch.add(made.fileno())
    raw.connect(made)
    return raw


class Link:
    """A pymysql connection; `ClientLink` is the same over mysqlclient."""

    driver = "pymysql"
    errors: tuple[type[BaseException], ...] = (pymysql.MySQLError, OSError, RuntimeError)

    def __init__(
        self, url: Url, password: str | None, database: str | None, factory: Callable[..., Any] = pymysql.connect
    ):
        self._streaming: Any = None
        try:
            self.raw: Any = connected(factory, url, password, database)
        except (pymysql.MySQLError, OSError, RuntimeError) as error:
            raise translate(error, f"connecting to {url}") from error
        self.id = self._thread_id()

    def _thread_id(self) -> int:
        return int(self.raw.thread_id())

    @contextlib.contextmanager
    def _guard(self, statement: str) -> Iterator[None]:
        try:
            yield
        except self.errors as error:
            if isinstance(error, DBLensError):
                raise
            raise translate(error, f"running {_shown(statement)}") from error

    def run(self, statement: str, params: Sequence[object] | None = None) -> int:
        """Run a statement and return the affected (or matched) rows."""
        with self._guard(statement), self.raw.cursor() as cursor:
            cursor.execute(statement, tuple(params) if params else None)
            return int(cursor.rowcount)

    def rows(self, statement: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return all its rows as driver values."""
        with self._guard(statement), self.raw.cursor() as cursor:
            cursor.execute(statement, tuple(params) if params else None)
            return list(cursor.fetchall())

    def one(self, statement: str, params: Sequence[object] | None = None) -> tuple[Any, ...]:
        """Return the first row. Raises NotFound when there is none."""
        rows = self.rows(statement, params)
        if not rows:
            raise NotFound(f"no row from {_shown(statement)}", hint="the object was dropped meanwhile?")
        return rows[0]

    def result(self, statement: str, params: Sequence[object], limit: int | None) -> Result:
        """Run any statement; return at most `limit` rows without reading more than one row beyond."""
        with self._guard(statement):
            cursor = self._unbuffered()
            done = False
            try:
                cursor.execute(statement, tuple(params) if params else None)
                if cursor.description is None:
                    done = True
                    return Result(affected=int(cursor.rowcount))
                names = tuple(str(d[0]) for d in cursor.description)
                if limit is None:
                    rows, more = list(cursor.fetchall()), False
                    done = True
                else:
                    rows = list(cursor.fetchmany(limit + 1))
                    more = len(rows) > limit
                    done = not more
                return Result(columns=names, rows=rows[:limit] if more else rows, truncated=more)
            finally:
                if not done:
                    self.stop()
                else:
                    cursor.close()

    def _unbuffered(self) -> Any:
        return self.raw.cursor(pymysql.cursors.SSCursor)

    def stream(self, statement: str, batch: int = BATCH) -> Iterator[Sequence[Raw]]:
        """Run a query and yield its rows in batches, each value the octets that the server sent.

        Closing the iterator early kills the query on the server (the caller's `stop`) instead of draining it.
        """
        raw = self.raw
        kept = raw.decoders, raw.use_unicode
        done = False
        with self._guard(statement):
            cursor = self._unbuffered()
            try:
                raw.decoders, raw.use_unicode = {}, False
                try:
                    cursor.execute(statement)
                finally:
                    raw.decoders, raw.use_unicode = kept
                while rows := cursor.fetchmany(batch):
                    yield rows
                done = True
            except GeneratorExit:
                raise
            except self.errors:
                done = True  # the server has ended the result itself
                raise
            finally:
                if done:
                    cursor.close()
                else:
                    self.stop()

    killer: Callable[[int], None] | None = None
    """Kills the running query of a connection id, through another connection; set by the session."""

    def stop(self) -> None:
        """Give up the result that is being read: kill the query, then read away the little that was on its way."""
        if self.killer is not None:
            self.killer(self.id)
        self._drain()

    def _drain(self) -> None:
        result = getattr(self.raw, "_result", None)
        if result is not None and getattr(result, "unbuffered_active", False):
            with contextlib.suppress(*self.errors):
                result._finish_unbuffered_query()
            result.unbuffered_active = False

    def literal(self, value: object) -> str:
        """Return a value as this connection's literal."""
        return str(self.raw.escape(value))

    def close(self) -> None:
        """Close the socket without waiting for results."""
        with contextlib.suppress(*self.errors):
            self.raw._force_close()


class ClientLink(Link):
    """A mysqlclient connection: the same verbs at 2.5 times less CPU."""

    driver = "mysqlclient"

    def __init__(self, url: Url, password: str | None, database: str | None):
        import MySQLdb
        import MySQLdb.cursors
        from MySQLdb.converters import conversions

        self.errors = (MySQLdb.Error, OSError, RuntimeError)
        self._ss = MySQLdb.cursors.SSCursor
        shared = pymysql_arguments(url, password, database)
        arguments: dict[str, Any] = {
            k: v
            for k, v in shared.items()
            if k in ("user", "password", "host", "port", "charset", "connect_timeout", "unix_socket")
        }
        route = route_of(url)
        if route is not None and route.socket is not None:
            arguments["host"] = "localhost"  # any other name would mean TCP to this library
        elif route is not None:
            arguments["host"], arguments["port"] = route.addresses[0], route.port
        if database is not None:
            arguments["database"] = database
        if "read_timeout" in shared:
            arguments["read_timeout"] = shared["read_timeout"]
        # Zero dates stay texts: mysqlclient's own converters would answer None, a wrong value without a word.
        conv = {**conversions, **_date_converters()}
        try:
            self.raw = MySQLdb.connect(
                use_unicode=True, autocommit=True, local_infile=0, init_command=SESSION, conv=conv, **arguments
            )
        except (MySQLdb.Error, OSError) as error:
            raise translate(error, f"connecting to {url}") from error
        self.id = self._thread_id()

    def _unbuffered(self) -> Any:
        return self.raw.cursor(self._ss)

    def stream(self, statement: str, batch: int = BATCH) -> Iterator[Sequence[Raw]]:
        raw = self.raw
        done = False
        with self._guard(statement):
            try:
                # A result takes its converters from the connection at its birth: none, so that octets stay octets.
                kept = raw.converter
                raw.query(statement.encode("utf-8"))
                raw.converter = {}
                try:
                    result = raw.use_result()
                finally:
                    raw.converter = kept
                if result is None:
                    done = True
                    return
                while rows := result.fetch_row(batch, 0):
                    yield rows
                done = True
            except self.errors:
                done = True
                raise
            finally:
                if not done:
                    self.stop()
                result = None

    def _drain(self) -> None:
        """Nothing to do: freeing the result object reads what is left, which after the kill is little."""

    def literal(self, value: object) -> str:
        text = self.raw.literal(value)
        return text.decode("utf-8") if isinstance(text, bytes) else str(text)

    def close(self) -> None:
        with contextlib.suppress(*self.errors):
            self.raw.close()


def _date_converters() -> Mapping[int, Callable[[Any], Any]]:
    from pymysql.converters import convert_date, convert_datetime, convert_timedelta

    return {
        FIELD_TYPE.DATE: convert_date,
        FIELD_TYPE.DATETIME: convert_datetime,
        FIELD_TYPE.TIMESTAMP: convert_datetime,
        FIELD_TYPE.TIME: convert_timedelta,
    }


def open_link(url: Url, password: str | None, database: str | None) -> Link:
    """Open a reading connection with the fastest driver at hand, or the one that option `driver` names."""
    wanted = _option(url, "driver")
    if wanted == "mysqlclient" and mysqlclient() is None:
        raise Unsupported("driver=mysqlclient", "mysqlclient is not installed", hint="pip install 'dblens[fast]'")
    # Python's own TLS checks certificates the same way whatever library mysqlclient was built with.
    route = route_of(url)
    # MariaDB's C library tells any server the password in clear text that asks for it so: on a checked route only who
    # names it gets it, and only on this machine.
    strange = route is not None and (
        route.parameters.get("ssl") is not None or not route.trusted or (wanted is None and route.socket is None)
    )
    if wanted == "pymysql" or mysqlclient() is None or strange or (route is None and tls_context(url) is not None):
        return Link(url, password, database)
    try:
        return ClientLink(url, password, database)
    except DBLensError as error:
        cause = error.__cause__
        if wanted is None and cause is not None and cause.args and cause.args[0] in _NO_PLUGIN:
            return Link(url, password, database)
        raise


_NO_PLUGIN = (2059, 2061, 1251)
"""mysqlclient's C library lacks the authentication plugin that the account wants (caching_sha2_password); pymysql has it."""


def _shown(statement: str) -> str:
    """Return the beginning of a statement for a message, on one line."""
    text = " ".join(statement.split())
    return repr(text if len(text) <= 160 else text[:157] + "…")
