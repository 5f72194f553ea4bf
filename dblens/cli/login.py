"""`dblens login`, `logout`, `whoami`: who one is, at which service. The tokens lie in a file that only this user can read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dblens.cli import output
from dblens.errors import DBLensError, InvalidInput

if TYPE_CHECKING:
    from dblens.client.tokens import Login, LoginFile
    from dblens.redaction import Secret
    from dblens.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Url = Annotated[str | None, typer.Argument(help="The service, like https://dblens.example.org; else `DBLENS_URL`.")]


def login(
    url: Url = None,
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="User name or e-mail address; else it is asked for.")
    ] = None,
    password_file: Annotated[
        str | None, typer.Option("--password-file", metavar="FILE", help="Read the password from a file, `-` is stdin.")
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="Read an access token from stdin instead of logging in.")
    ] = False,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Send the password unencrypted, in a network you trust.")
    ] = False,
    json: Json = False,
) -> None:
    """Log in to a service and keep the login for every command and notebook of this user.

    The password is asked for; it is not kept. What is kept is renewed by itself and ends a week after its last use.
    """
    from dblens.client import login as way
    from dblens.client.address import plain
    from dblens.settings import load

    settings = load()
    at = _url(settings, url)
    if plain(at) and not plain_http:
        raise InvalidInput(f"what is sent to {at} can be read on its way", hint="use https, or --plain-http")
    if token and (name is not None or password_file is not None):
        raise InvalidInput("--token needs no name and no password", hint="it is read from stdin")
    file = _file(settings, at)
    must_change = False
    if token:
        made = _given(at)
    else:
        who = name if name is not None else _name()
        made, must_change = way.log_in(at, who, _password(at, who, password_file))
    _leave(settings, at)
    way.keep(file, made)
    if json:
        output.json({"url": at, "user": made.user, "must_change": must_change})
    else:
        output.lines([(f"logged in to {at}{f' as {made.user}' if made.user else ''}", "green")])
    if must_change:
        output.note("note: the password has to be changed first: `dblens account password`")
    if settings.token is not None or settings.token_file is not None:
        output.note("warning: DBLENS_TOKEN or DBLENS_TOKEN_FILE is set, and is used instead of this login")
    if settings.url is None or _url(settings, None) != at:
        output.note(f"note: commands and notebooks use this service when DBLENS_URL is {at}")


LOGIN_EXAMPLES = (
    "Examples:\n\n`dblens login https://dblens.example.org`\n\n"
    "`dblens login --name ann --password-file -` (the password from stdin)\n\n"
    "`pass dblens/token | dblens login https://dblens.example.org --token`"
)


def logout(url: Url = None, *, json: Json = False) -> None:
    """End the login at a service, there and here. An access token is only forgotten here: `dblens token revoke` ends it."""
    from dblens.settings import load

    settings = load()
    at = _url(settings, url)
    was, ended, told = _leave(settings, at)
    if json:
        output.json({"url": at, "was_logged_in": was, "ended": ended})
    else:
        output.lines([(f"logged out of {at}" if was else f"nobody is logged in to {at}", "green" if was else "")])
    if told is not None:
        output.note(f"warning: the service did not hear of it ({told}); the login ends there by itself within a week")


LOGOUT_EXAMPLES = "Examples:\n\n`dblens logout`\n\n`dblens logout https://dblens.example.org`"


def whoami(*, json: Json = False) -> None:
    """Show who one is: name, organization, role, and where."""
    import dblens
    from dblens.settings import load

    url = load().url
    profile = dblens.open().account.read()
    place = next((each for each in profile.organizations if each.id == profile.organization), None)
    if json:
        output.json({"url": url, "profile": profile})
        return
    told = [
        ("name", profile.name),
        ("organization", profile.organization if place is None else f"{place.name} ({place.slug})"),
        ("role", profile.role),
        ("by", {"account": "login", "token": "access token", "local": "this machine"}.get(profile.kind, profile.kind)),
        ("at", url or "this machine"),
    ]
    if profile.scopes is not None:
        told.append(("limited to", " ".join(profile.scopes)))
    output.table(["what", "value"], told)
    if profile.must_change:
        output.note("note: the password has to be changed first: `dblens account password`")


WHOAMI_EXAMPLES = "Examples:\n\n`dblens whoami`\n\n`dblens whoami --json | jq -r .profile.role`"


# ------------------------------------------------------------------------------------------------------------------------- parts


def _url(settings: Settings, given: str | None) -> str:
    from dblens.client.address import address

    url = given if given is not None else settings.url
    if url is None:
        raise InvalidInput("no service is named", hint="`dblens login https://…`, or set DBLENS_URL")
    return address(url)


def _file(settings: Settings, url: str) -> LoginFile:
    from dblens.client.tokens import LoginFile, folder

    return LoginFile(folder(settings), url)


def _name() -> str:
    import getpass

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput("no name is given", hint="--name, or a terminal to ask on")
    return str(typer.prompt("Name", default=getpass.getuser(), err=True))


def _password(url: str, name: str, file: str | None) -> Secret:
    from dblens.redaction import Secret

    if file == "-":
        text = sys.stdin.readline()
    elif file is not None:
        path = Path(file).expanduser()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the password file {path} cannot be read: {type(error).__name__}") from None
    else:
        import getpass

        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise InvalidInput("no password is given", hint="--password-file, or a terminal to ask on")
        text = getpass.getpass(f"Password of {output.safe(name)} at {url}: ")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise InvalidInput("the password is empty")
    return Secret(text)


def _given(url: str) -> Login:
    """Return a login by the access token on stdin, after the service took it."""
    from dblens.client.address import whole_token
    from dblens.client.login import taken

    if sys.stdin.isatty():
        output.note("the access token, then return:")
    return taken(url, whole_token(sys.stdin.readline().strip(), "stdin"))


def _leave(settings: Settings, url: str) -> tuple[bool, bool, str | None]:
    """Forget a login; say whether there was one, whether the service ended it, and what went wrong there."""
    from dblens.client import login as way

    file = _file(settings, url)
    try:
        found = file.read()
    except InvalidInput:
        file.delete()
        return True, False, "the file was not a login"
    if found is None:
        return False, False, None
    told: str | None = None
    if found.refresh is not None:
        try:
            way.log_out(settings, url)
        except DBLensError as error:
            told = error.message
    file.delete()
    return True, found.refresh is not None and told is None, told
