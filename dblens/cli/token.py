"""`dblens token`: personal access tokens, for programs that act for you."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import output, people
from dblens.cli.people import As, Json, Org
from dblens.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Access tokens: named, scoped, for one organization, with an end.")

Limit = Annotated[int, typer.Option("--limit", help="How many at most.")]


@app.command(
    epilog="Examples:\n\n`dblens token create ci --scope catalog.* --scope migration.plan --days 30`\n\n"
    "`dblens token create ci --scope '*.*' --days 1 --json | jq -r .secret | gh secret set DBLENS_TOKEN`"
)
def create(
    name: str,
    *,
    scope: Annotated[list[str], typer.Option("--scope", help="A permission, like `catalog.*`; repeat it.")],
    days: Annotated[int, typer.Option("--days", help="How long it is good.")],
    organization: Org = None,
    json: Json = False,
) -> None:
    """Make a token, shown once. It may do what you may at the moment of its use and what its scopes allow."""
    import datetime as dt

    if days < 1:
        raise InvalidInput(f"--days is {days}", hint="at least 1")
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=min(days, 36_500))
    made = people.workspace(None, organization).tokens.create(name, scope, until)
    if json:
        output.json(made)
        return
    output.note(f"note: shown only now; good until {until.isoformat(timespec='minutes')}")
    output.lines([(made.secret, "")])


@app.command("list", epilog="Examples:\n\n`dblens token list`\n\n`dblens token list --all --user ann` (for admins)")
def list_(
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Of every member, for admins.")] = False,
    user: Annotated[str | None, typer.Option("--user", help="Of one member, for admins.")] = None,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that are not valid any more.")] = False,
    limit: Limit = 200,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """List tokens: what they may do, until when, when they were last used."""
    at = people.workspace(who, organization)
    size = min(limit, 200)
    if everybody or user is not None:
        found = people.pages(lambda after: at.tokens.list_all(user=user, ended=ended, limit=size, after=after), limit)
    else:
        found = people.pages(lambda after: at.tokens.list(ended=ended, limit=size, after=after), limit)
    people.show(found, ("id", "name", "user", "scopes", "expires_at", "used_at", "revoked_at"), json=json)


@app.command(epilog="Examples:\n\n`dblens token revoke 01a2…`\n\n`dblens token revoke --user ann` (for admins)")
def revoke(
    token: Annotated[str | None, typer.Argument(help="The id of one of your own: `dblens token list`.")] = None,
    *,
    user: Annotated[str | None, typer.Option("--user", help="All tokens of a member, for admins.")] = None,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """End a token at once."""
    if (token is None) == (user is None):
        raise InvalidInput("name one token by its id, or a member with --user", hint="`dblens token list`")
    at = people.workspace(who, organization)
    if token is not None:
        at.tokens.revoke(token)
        people.done("the token is ended", json=json)
    elif user is not None:
        ended = at.tokens.revoke_all(user)
        people.done(f"{ended} tokens of {user} are ended", {"ended": ended}, json=json)
