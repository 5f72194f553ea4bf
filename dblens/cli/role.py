"""`dblens role`: roles and the permissions they are made of."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import people
from dblens.cli.people import As, Json, Org, Yes

app = typer.Typer(no_args_is_help=True, help="Roles: the system's, and an organization's own.")

Role = Annotated[str, typer.Argument(help="The role's name or id.")]
Patterns = Annotated[list[str], typer.Argument(help="Permissions: `noun.verb`, `noun.*`, `*.verb`.")]
Limit = Annotated[int, typer.Option("--limit", help="How many at most.")]


@app.command("list", epilog="Examples:\n\n`dblens role list`")
def list_(*, limit: Limit = 200, organization: Org = None, who: As = None, json: Json = False) -> None:
    """List the roles, the system's first."""
    at = people.workspace(who, organization)
    found = list(people.pages(lambda after: at.roles.list(limit=min(limit, 200), after=after), limit))
    found.sort(key=lambda role: (not role.system, -role.rank, role.name))
    people.show(found, ("name", "rank", "system", "about"), json=json)


@app.command("show", epilog="Examples:\n\n`dblens role show developer`")
def show(role: Role, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Show a role with its permissions."""
    people.one(people.workspace(who, organization).roles.read(role), json=json)


@app.command(epilog="Examples:\n\n`dblens role permissions`\n\n`dblens role permissions --json | jq '.[].name'`")
def permissions(*, organization: Org = None, who: As = None, json: Json = False) -> None:
    """List every permission, what it is good for, and which system roles have it."""
    found = people.workspace(who, organization).roles.permissions()
    people.show(found, ("name", "roles", "about"), json=json)


@app.command(epilog="Examples:\n\n`dblens role create tester catalog.* query.run connection.list --rank 30`")
def create(
    name: str,
    patterns: Patterns,
    *,
    rank: Annotated[int, typer.Option("--rank", help="Nobody gives a role above their own rank.")] = 10,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Make a role of permissions that you have yourself."""
    made = people.workspace(who, organization).roles.create(name, patterns, rank=rank)
    people.done(f"{made.name}: {' '.join(made.permissions)}", made, json=json)


@app.command(
    epilog="Examples:\n\n`dblens role update tester --name qa`\n\n`dblens role update tester catalog.* verify.run`"
)
def update(
    role: Role,
    patterns: Annotated[list[str] | None, typer.Argument(help="The permissions from now on; else they stay.")] = None,
    *,
    name: Annotated[str | None, typer.Option("--name")] = None,
    rank: Annotated[int | None, typer.Option("--rank")] = None,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Change a role of the organization's own; its members feel it at once."""
    made = people.workspace(who, organization).roles.update(role, name=name, permissions=patterns or None, rank=rank)
    people.done(f"{made.name} ({made.rank}): {' '.join(made.permissions)}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens role delete tester`")
def delete(role: Role, *, yes: Yes = False, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Delete a role that nobody has."""
    at = people.workspace(who, organization)
    people.ask(f"Delete the role {role}?", yes=yes)
    at.roles.delete(role)
    people.done(f"{role} is deleted", json=json)
