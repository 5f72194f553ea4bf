"""Database addresses: parse and render URLs without ever holding on to a password."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlsplit

from dblens.engines.base import Url
from dblens.errors import InvalidInput

SECRET_OPTIONS = frozenset({"password", "passwd", "pwd", "sslpassword", "tlscertificatekeyfilepassword"})


def parse(text: str, *, allow_password: bool = False) -> tuple[Url, str | None]:
    """Split a URL into an address and its password (None without one).

    `sqlite:///relative.db`, `sqlite:////absolute.db` and a bare path ending in .db, .sqlite or .sqlite3 name files.
    Raises InvalidInput for anything else that is not a URL, and for a password unless `allow_password`.
    """
    if "://" not in text:
        if text.endswith((".db", ".sqlite", ".sqlite3")):
            return Url(scheme="sqlite", database=text), None
        raise InvalidInput(
            f"not a database URL: {text!r}",
            hint="write scheme://user@host:port/database, for example postgresql://me@localhost/shop or sqlite:///shop.db",
        )
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme == "sqlite":
        path, _, query = rest.partition("?")
        return Url(scheme=scheme, database=unquote(path.removeprefix("/")) or ":memory:", options=_options(query)), None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(
            f"not a database URL: {_hidden(text)}", hint=f"{error}; percent-encode special characters"
        ) from None
    password = unquote(parts.password) if parts.password else None
    options = _options(parts.query)
    given = [name for name in options if name.lower() in SECRET_OPTIONS]
    if (password is not None or given) and not allow_password:
        raise InvalidInput(
            f"the URL {_hidden(text)} holds a password",
            hint="leave it out: you are asked for it, or name a variable with --source-password-env / --target-password-env, "
            "or use ~/.pgpass or ~/.my.cnf; --allow-password-in-url accepts it all the same",
        )
    for name in given:
        password = options.pop(name)
    return (
        Url(
            scheme=scheme,
            host=parts.hostname,
            port=port,
            user=unquote(parts.username) if parts.username else None,
            database=unquote(parts.path.removeprefix("/")) or None,
            options=options,
        ),
        password,
    )


def _options(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))


def _hidden(text: str) -> str:
    """Return a URL for a message, with user info and query cut out."""
    scheme, _, rest = text.partition("://")
    return f"{scheme}://…{rest.rpartition('@')[2].partition('?')[0]}" if "@" in rest else text.partition("?")[0]


def render(url: Url) -> str:
    """Return the address as text; it has no password to show."""
    query = "&".join(f"{quote(k, safe='')}={quote(v, safe='/')}" for k, v in sorted(url.options.items()))
    tail = f"?{query}" if query else ""
    if url.scheme == "sqlite":
        return f"sqlite:///{url.database or ''}{tail}"
    host = url.host or ""
    if ":" in host:
        host = f"[{host}]"
    user = f"{quote(url.user, safe='')}@" if url.user else ""
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{user}{host}{port}/{quote(url.database or '', safe='')}{tail}"
