"""Connection parameters that may be given, by engine. A list of what is allowed: drivers grow new parameters that read and write files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dblens.errors import InvalidInput

Check = Callable[[str], bool]


def _one_of(*values: str) -> Check:
    return lambda value: value in values


def _number(low: int, high: int) -> Check:
    return lambda value: value.isascii() and value.isdigit() and len(value) < 10 and low <= int(value) <= high


def _word(value: str) -> bool:
    return 0 < len(value) <= 63 and value.isascii() and all(c.isalnum() or c in "._-/ " for c in value)


_BOOLEAN = _one_of("true", "false")
_MILLISECONDS = _number(1, 60_000)

ALLOWED: Mapping[str, Mapping[str, Check]] = {
    "postgresql": {
        "application_name": _word,
        "channel_binding": _one_of("disable", "prefer", "require"),
        "connect_timeout": _number(1, 60),
        "target_session_attrs": _one_of("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    },
    "mysql": {
        "connect_timeout": _number(1, 60),
        "driver": _one_of("pymysql", "mysqlclient"),
        "read_timeout": _number(1, 86_400),
    },
    "sqlite": {"immutable": _one_of("0", "1"), "mode": _one_of("ro", "rw", "rwc")},
    "mongodb": {
        "authMechanism": _one_of("SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN", "MONGODB-X509", "DEFAULT"),
        "compressors": _one_of("zlib", "zstd", "snappy"),
        "connectTimeoutMS": _MILLISECONDS,
        "directConnection": _BOOLEAN,
        "loadBalanced": _BOOLEAN,
        "localThresholdMS": _MILLISECONDS,
        "maxPoolSize": _number(1, 1000),
        "readConcernLevel": _one_of("local", "majority", "linearizable", "available", "snapshot"),
        "readPreference": _one_of("primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"),
        "retryReads": _BOOLEAN,
        "retryWrites": _BOOLEAN,
        "serverSelectionTimeoutMS": _MILLISECONDS,
        "socketTimeoutMS": _number(1, 86_400_000),
        "srvMaxHosts": _number(0, 1000),
    },
}  # fmt: skip

_ELSEWHERE = {
    "host": "host", "hostaddr": "host", "port": "port", "dbname": "database", "database": "database", "db": "database",
    "user": "user", "username": "user", "unix_socket": "socket", "socket": "socket", "sslmode": "tls.mode", "ssl-mode": "tls.mode",
    "ssl_mode": "tls.mode", "tls": "tls.mode", "ssl": "tls.mode", "sslrootcert": "tls.ca", "ssl_ca": "tls.ca", "ssl-ca": "tls.ca",
    "tlscafile": "tls.ca", "sslcert": "tls.cert", "ssl_cert": "tls.cert", "ssl-cert": "tls.cert", "sslkey": "tls.key", "ssl_key": "tls.key",
    "ssl-key": "tls.key", "tlscertificatekeyfile": "tls.cert and tls.key", "authsource": "auth_database", "replicaset": "replica_set",
}  # fmt: skip
_DANGEROUS = {
    "service": "it reads a file on the server", "servicefile": "it reads a file on the server", "passfile": "it reads a file on the server",
    "sslcrl": "it reads a file on the server", "sslcrldir": "it reads files on the server", "sslkeylogfile": "it writes a file on the server",
    "gsslib": "it loads a library", "krbsrvname": "it uses the server's own tickets", "options": "it changes any setting of the session",
    "local_infile": "a server could then read files of this machine", "allow_local_infile": "a server could then read files of this machine",
    "local-infile": "a server could then read files of this machine", "read_default_file": "it reads a file on the server",
    "read_default_group": "it reads a file on the server", "init_command": "it runs any statement", "plugin_dir": "it loads libraries",
    "proxyhost": "it leads the connection elsewhere", "proxyport": "it leads the connection elsewhere",
    "proxyusername": "it leads the connection elsewhere", "proxypassword": "it leads the connection elsewhere",
    "authmechanismproperties": "it can name programs, files and services", "tlsinsecure": "it switches certificate checks off",
    "tlsallowinvalidcertificates": "it switches certificate checks off", "tlsallowinvalidhostnames": "it switches certificate checks off",
    "vfs": "it changes how files are opened", "cache": "it shares memory between connections",
}  # fmt: skip


def check(engine: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return options in their own spelling. Raises InvalidInput naming the first that is not allowed or whose value is not."""
    allowed = ALLOWED[engine]
    spellings = {name.lower(): name for name in allowed} if engine == "mongodb" else {name: name for name in allowed}
    made: dict[str, str] = {}
    for given, value in options.items():
        name = spellings.get(given.lower() if engine == "mongodb" else given)
        if name is None:
            low = given.lower()
            field = _ELSEWHERE.get(low)
            why = _DANGEROUS.get(low, f"it belongs into the field {field!r}" if field else "it is not on the list")
            raise InvalidInput(
                f"the parameter {given[:80]!r} is not accepted: {why}", hint=f"accepted: {', '.join(sorted(allowed))}"
            )
        if name in made:
            raise InvalidInput(f"the parameter {given!r} is given twice", hint="give it once")
        if not allowed[name](value):
            raise InvalidInput(
                f"{value[:80]!r} is no value of the parameter {name!r}", hint="see the manual for what it takes"
            )
        made[name] = value
    return made
