"""`dblens account`: one's own account at a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dblens.cli import people
from dblens.cli.people import Json
from dblens.errors import InvalidInput

if TYPE_CHECKING:
    from dblens.redaction import Secret

app = typer.Typer(no_args_is_help=True, help="Your own account: profile, password, where you are logged in.")

File = Annotated[
    str | None, typer.Option("--password-file", metavar="FILE", help="Read the password from a file, `-` is stdin.")
]


@app.command("show", epilog="Examples:\n\n`dblens account show --json`")
def show(*, json: Json = False) -> None:
    """Show who you are, in which organizations, and what you may do."""
    found = people.workspace().account.read()
    if json:
        people.one(found, json=True)
        return
    fields = ("name", "display", "email", "kind", "role", "super_admin", "must_change", "scopes", "authenticated_at")
    people.show([found], fields, json=False)
    people.show(found.organizations, ("slug", "name", "role", "current"), json=False)


@app.command(epilog="Examples:\n\n`dblens account update --display 'Ann Lee'`")
def update(*, display: Annotated[str, typer.Option("--display", help="The shown name.")], json: Json = False) -> None:
    """Change the shown name."""
    made = people.workspace().account.update(display=display)
    people.done(f"you are shown as {made.display}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens account email ann@example.org`")
def email(address: str, *, password_file: File = None, json: Json = False) -> None:
    """Change the e-mail address; where mail is sent, it holds once the link in the mail was followed."""
    at = people.workspace()
    given = None if at.account.read().kind == "local" else people.password("password", password_file)
    made = at.account.email(address, given)
    told = f"a link was sent to {address}: follow it" if made.pending else f"your address is {made.email}"
    people.done(told, made, json=json)


@app.command(
    epilog="Examples:\n\n`dblens account password`\n\n`dblens account password --password-file old --new-password-file new`"
)
def password(
    *,
    password_file: File = None,
    new_password_file: Annotated[
        str | None, typer.Option("--new-password-file", metavar="FILE", help="Read the new one from a file.")
    ] = None,
    json: Json = False,
) -> None:
    """Set a new password; every other session ends."""
    at = people.workspace()
    current = people.password("present password", password_file)
    at.account.password(current, people.password("new password", new_password_file, new=True))
    people.done("the password is changed; other sessions have ended", json=json)


@app.command(epilog="Examples:\n\n`dblens account reset` (asks for the token and the password)")
def reset(
    *,
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="Read the token from a file, `-` is stdin.")
    ] = None,
    new_password_file: Annotated[
        str | None, typer.Option("--new-password-file", metavar="FILE", help="Read the new password from a file.")
    ] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Send it unencrypted, in a network you trust.")
    ] = False,
    json: Json = False,
) -> None:
    """Set a new password with the token, or the link, that you got from an administrator or by mail; it is good once."""
    from dblens import settings
    from dblens.redaction import Secret

    found = settings.load()
    token = Secret(people.password("token", token_file).reveal().strip().rpartition("token=")[2])
    new = people.password("new password", new_password_file, new=True)
    if found.url is not None:
        _reset_there(found.url, token, new, plain_http=plain_http)
    else:
        from dblens.accounts.base import Caller
        from dblens.workspace import entrance
        from dblens.workspace.home import house

        entrance.reset(house(found), token, new, Caller(address="", client="command line"))
    people.done("the password is set: log in with it; everything that was open has ended", json=json)


@app.command(epilog="Examples:\n\n`dblens account confirm`")
def confirm(*, password_file: File = None, json: Json = False) -> None:
    """Prove again who you are: administration needs a login of the last quarter of an hour."""
    people.workspace().account.confirm(people.password("password", password_file))
    people.done("confirmed", json=json)


@app.command(epilog="Examples:\n\n`dblens account sessions`")
def sessions(
    *, limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 200, json: Json = False
) -> None:
    """List where you are logged in."""
    at = people.workspace()
    found = people.pages(lambda after: at.account.sessions(limit=min(limit, 200), after=after), limit)
    people.show(found, ("id", "current", "kind", "client", "address", "created_at", "seen_at", "expires_at"), json=json)


@app.command(epilog="Examples:\n\n`dblens account revoke 01a2…`\n\n`dblens account revoke --others`")
def revoke(
    session: Annotated[str | None, typer.Argument(help="The id: `dblens account sessions`.")] = None,
    *,
    others: Annotated[bool, typer.Option("--others", help="All but this one.")] = False,
    json: Json = False,
) -> None:
    """End one of your sessions, or all the others."""
    if (session is None) != others:
        raise InvalidInput("name one session by its id, or --others", hint="`dblens account sessions`")
    at = people.workspace()
    if session is not None:
        at.account.revoke(session)
        people.done("the session is ended", json=json)
    else:
        ended = at.account.revoke_others()
        people.done(f"{ended} sessions are ended", {"ended": ended}, json=json)


class _Nobody:
    """No token: for what is asked before one is had."""

    def get(self) -> Secret | None:
        return None

    def renew(self, used: Secret) -> Secret | None:  # noqa: ARG002
        return None


def _reset_there(url: str, token: Secret, new: Secret, *, plain_http: bool) -> None:
    import msgspec

    from dblens.client.address import address, plain
    from dblens.client.service import Service
    from dblens.redaction import Secret
    from dblens.workspace.wire import PREFIX

    url = address(url)
    if plain(url) and not plain_http:
        raise InvalidInput(f"what is sent to {url} can be read on its way", hint="use https, or --plain-http")
    given = {"token": token, "password": new}
    service = Service(url, _Nobody())
    try:
        service.request(
            "POST", f"{PREFIX}/auth/password/reset", body=lambda: msgspec.json.encode(given, enc_hook=Secret.reveal)
        )
    finally:
        service.close()
