"""`dblens user`: the accounts of others."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import output, people
from dblens.cli.people import As, Json, Yes
from dblens.errors import InvalidInput

app = typer.Typer(
    no_args_is_help=True,
    help="Accounts: a super_admin administers them; others see the members of their organization.",
)

User = Annotated[str, typer.Argument(help="Name, e-mail address or id.")]
Limit = Annotated[int, typer.Option("--limit", help="How many at most.")]


@app.command("list", epilog="Examples:\n\n`dblens user list --search ann`\n\n`dblens user list --waiting --as root`")
def list_(
    *,
    search: Annotated[str | None, typer.Option("--search", help="A part of name or e-mail address.")] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only who waits for approval.")] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Only who is disabled.")] = False,
    limit: Limit = 200,
    who: As = None,
    json: Json = False,
) -> None:
    """List accounts."""
    at = people.workspace(who)
    approved, active = (False if waiting else None), (False if disabled else None)
    found = people.pages(
        lambda after: at.users.list(
            search=search, active=active, approved=approved, limit=min(limit, 200), after=after
        ),
        limit,
    )
    people.show(
        found, ("name", "display", "email", "role", "active", "approved", "super_admin", "last_login_at"), json=json
    )


@app.command("show", epilog="Examples:\n\n`dblens user show ann`")
def show(user: User, *, who: As = None, json: Json = False) -> None:
    """Show an account."""
    people.one(people.workspace(who).users.read(user), json=json)


@app.command(
    epilog="Examples:\n\n`dblens user create root --super-admin --password` (the first one, on the service's machine)\n\n"
    "`dblens user create ann --email ann@example.org --as root`\n\n"
    "`dblens user create bob --organization acme --role developer --as root`"
)
def create(
    name: str,
    *,
    email: Annotated[str | None, typer.Option("--email")] = None,
    display: Annotated[str | None, typer.Option("--display", help="The shown name.")] = None,
    super_admin: Annotated[bool, typer.Option("--super-admin", help="Administers the instance.")] = False,
    organization: Annotated[str | None, typer.Option("--organization", help="A member of this organization.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Their role there.")] = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a first password.")] = False,
    password_file: Annotated[
        str | None, typer.Option("--password-file", metavar="FILE", help="Read it from a file, `-` is stdin.")
    ] = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Make an account: with a first password, or with a link to set one, which is shown once."""
    at = people.workspace(who)
    given = people.password("first password", password_file, new=True) if password or password_file else None
    made = at.users.create(
        name,
        email=email,
        display=display,
        password=given,
        super_admin=super_admin,
        organization=organization,
        role=role,
    )
    if json:
        output.json(made)
        return
    output.lines([(f"{made.user.name} has an account", "green")])
    if made.reset is not None:
        _hand_over(made.reset.link or made.reset.token, made.reset.expires_at.isoformat(timespec="minutes"))


@app.command(epilog="Examples:\n\n`dblens user update ann --email ann@example.org --as root`")
def update(
    user: User,
    *,
    display: Annotated[str | None, typer.Option("--display", help="The shown name.")] = None,
    email: Annotated[str | None, typer.Option("--email")] = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Change the shown name or the e-mail address."""
    made = people.workspace(who).users.update(user, display=display, email=email)
    people.done(f"{made.name} is changed", made, json=json)


@app.command(epilog="Examples:\n\n`dblens user approve ann --as root`")
def approve(user: User, *, who: As = None, json: Json = False) -> None:
    """Let somebody who signed up in."""
    made = people.workspace(who).users.approve(user)
    people.done(f"{made.name} may log in", made, json=json)


@app.command(epilog="Examples:\n\n`dblens user disable ann --as root`")
def disable(user: User, *, who: As = None, json: Json = False) -> None:
    """Let a user in no more; sessions and access tokens end at once."""
    made = people.workspace(who).users.disable(user)
    people.done(f"{made.name} is disabled", made, json=json)


@app.command(epilog="Examples:\n\n`dblens user enable ann --as root`")
def enable(user: User, *, who: As = None, json: Json = False) -> None:
    """Let a user in again; a lockout ends too."""
    made = people.workspace(who).users.enable(user)
    people.done(f"{made.name} may log in", made, json=json)


@app.command(epilog="Examples:\n\n`dblens user delete ann --to acme=bob --to beta=eve --as root`")
def delete(
    user: User,
    *,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ORG=NAME", help="Who gets their connections there.")
    ] = None,
    yes: Yes = False,
    who: As = None,
    json: Json = False,
) -> None:
    """Delete an account."""
    heirs = dict(_pair(text) for text in to or [])
    at = people.workspace(who)
    people.ask(f"Delete the account {user}?", yes=yes)
    at.users.delete(user, to=heirs or None)
    people.done(f"{user} is deleted", json=json)


@app.command(epilog="Examples:\n\n`dblens user reset ann --as root`")
def reset(user: User, *, who: As = None, json: Json = False) -> None:
    """Make a link to set a new password, shown once. The old password, sessions and access tokens end at once."""
    made = people.workspace(who).users.reset(user)
    if json:
        output.json(made)
        return
    _hand_over(made.link or made.token, made.expires_at.isoformat(timespec="minutes"))


@app.command(epilog="Examples:\n\n`dblens user sessions ann --as root`\n\n`dblens user sessions ann --end --as root`")
def sessions(
    user: User,
    *,
    end: Annotated[bool, typer.Option("--end", help="End them all, and the access tokens.")] = False,
    limit: Limit = 200,
    who: As = None,
    json: Json = False,
) -> None:
    """List where a user is logged in, or end that."""
    at = people.workspace(who)
    if end:
        at.users.end_sessions(user)
        people.done(f"{user} is logged out everywhere", json=json)
        return
    found = people.pages(lambda after: at.users.sessions(user, limit=min(limit, 200), after=after), limit)
    people.show(found, ("id", "kind", "client", "address", "created_at", "seen_at", "expires_at"), json=json)


@app.command("super-admin", epilog="Examples:\n\n`dblens user super-admin ann --as root`")
def super_admin(
    user: User,
    *,
    revoke: Annotated[bool, typer.Option("--revoke", help="No longer.")] = False,
    who: As = None,
    json: Json = False,
) -> None:
    """Let a user administer the instance, or no longer."""
    made = people.workspace(who).users.super_admin(user, allowed=not revoke)
    people.done(f"{made.name} is {'no ' if revoke else ''}super_admin", made, json=json)


def _hand_over(secret: str, until: str) -> None:
    output.note(
        f"note: hand this over, it is shown only now; `dblens account reset` sets a password with it until {until}"
    )
    output.lines([(secret, "")])


def _pair(text: str) -> tuple[str, str]:
    organization, equals, name = text.partition("=")
    if not (organization and equals and name):
        raise InvalidInput(f"--to is {text!r}", hint="--to ORGANIZATION=NAME")
    return organization, name
