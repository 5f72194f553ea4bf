"""`dblens team`: members who are granted connections together."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import people
from dblens.cli.people import As, Json, Org, Yes

app = typer.Typer(no_args_is_help=True, help="Teams of an organization: who is granted a connection together.")

Team = Annotated[str, typer.Argument(help="The team's name or id.")]
User = Annotated[str, typer.Argument(help="A member: name, e-mail address or id.")]
Limit = Annotated[int, typer.Option("--limit", help="How many at most.")]


@app.command("list", epilog="Examples:\n\n`dblens team list --mine`")
def list_(
    *,
    mine: Annotated[bool, typer.Option("--mine", help="Only those that you are in.")] = False,
    limit: Limit = 200,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """List the teams."""
    at = people.workspace(who, organization)
    found = people.pages(lambda after: at.teams.list(mine=mine, limit=min(limit, 200), after=after), limit)
    people.show(found, ("name", "id", "created_at"), json=json)


@app.command(epilog="Examples:\n\n`dblens team create analytics`")
def create(name: str, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Make a team without members."""
    made = people.workspace(who, organization).teams.create(name)
    people.done(f"{made.name} is made", made, json=json)


@app.command(epilog="Examples:\n\n`dblens team members analytics`")
def members(team: Team, *, limit: Limit = 200, organization: Org = None, who: As = None, json: Json = False) -> None:
    """List a team's members."""
    at = people.workspace(who, organization)
    found = people.pages(lambda after: at.teams.members(team, limit=min(limit, 200), after=after), limit)
    people.show(found, ("name", "display", "email", "role", "active"), json=json)


@app.command(epilog="Examples:\n\n`dblens team rename analytics insights`")
def rename(team: Team, name: str, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Give a team another name."""
    made = people.workspace(who, organization).teams.update(team, name=name)
    people.done(f"{team} is called {made.name}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens team delete analytics`")
def delete(team: Team, *, yes: Yes = False, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Delete a team with what it was granted."""
    at = people.workspace(who, organization)
    people.ask(f"Delete the team {team} with what it was granted?", yes=yes)
    at.teams.delete(team)
    people.done(f"{team} is deleted", json=json)


@app.command(epilog="Examples:\n\n`dblens team add analytics ann`")
def add(team: Team, user: User, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Put a member of the organization into a team."""
    people.workspace(who, organization).teams.add(team, user)
    people.done(f"{user} is in {team}", json=json)


@app.command(epilog="Examples:\n\n`dblens team remove analytics ann`")
def remove(team: Team, user: User, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Take a member out of a team."""
    people.workspace(who, organization).teams.remove(team, user)
    people.done(f"{user} is not in {team} any more", json=json)
