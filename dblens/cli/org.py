"""`dblens org`: organizations, their members and invitations."""

from __future__ import annotations

from typing import Annotated

import typer

from dblens.cli import output, people
from dblens.cli.people import As, Json, Org, Yes

app = typer.Typer(no_args_is_help=True, help="Organizations: who is in them, with which role.")

Limit = Annotated[int, typer.Option("--limit", help="How many at most.")]
User = Annotated[str, typer.Argument(help="A member: name, e-mail address or id.")]
Role = Annotated[str, typer.Argument(help="A role: `dblens role list`.")]
To = Annotated[str | None, typer.Option("--to", metavar="NAME", help="The member who gets their connections.")]


@app.command("list", epilog="Examples:\n\n`dblens org list`\n\n`dblens org list --as root` (all of the instance)")
def list_(
    *,
    search: Annotated[str | None, typer.Option("--search", help="A part of the name.")] = None,
    limit: Limit = 200,
    who: As = None,
    json: Json = False,
) -> None:
    """List your organizations; `current` is the one you work in."""
    at = people.workspace(who)
    found = people.pages(lambda after: at.organizations.list(search=search, limit=min(limit, 200), after=after), limit)
    people.show(found, ("slug", "name", "role", "current", "id"), json=json)


@app.command(epilog="Examples:\n\n`dblens org create 'Data team'`\n\n`dblens org create acme --admin ann --as root`")
def create(
    name: str,
    *,
    slug: Annotated[str | None, typer.Option("--slug", help="The short name; else made of the name.")] = None,
    admin: Annotated[str | None, typer.Option("--admin", help="Its admin, by a super_admin; else you.")] = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Make an organization and become its admin."""
    made = people.workspace(who).organizations.create(name, slug=slug, admin=admin)
    people.done(f"{made.slug}: {made.name}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens org use acme`")
def use(organization: str, *, json: Json = False) -> None:
    """Choose the organization to work in, by its short name or id."""
    made = people.workspace().organizations.use(organization)
    people.done(f"you work in {made.slug}, as {made.role}", made, json=json)


@app.command("show", epilog="Examples:\n\n`dblens org show`\n\n`dblens org show acme --json`")
def show(
    organization: Annotated[str | None, typer.Argument(help="Else the current one.")] = None,
    *,
    who: As = None,
    json: Json = False,
) -> None:
    """Show an organization."""
    at = people.workspace(who, organization)
    people.one(at.organizations.read(people.current(at)), json=json)


@app.command(epilog="Examples:\n\n`dblens org update --name 'Data & analytics'`")
def update(
    *,
    name: Annotated[str | None, typer.Option("--name")] = None,
    slug: Annotated[str | None, typer.Option("--slug")] = None,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Change the name or the short name."""
    at = people.workspace(who, organization)
    made = at.organizations.update(people.current(at), name=name, slug=slug)
    people.done(f"{made.slug}: {made.name}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens org delete acme`")
def delete(organization: str, *, yes: Yes = False, who: As = None, json: Json = False) -> None:
    """Delete an organization: its connections, runs and roles are there for nobody any more; its audit stays."""
    at = people.workspace(who, organization)
    people.ask(f"Delete the organization {organization} with all that is in it?", yes=yes)
    at.organizations.delete(people.current(at))
    people.done(f"{organization} is deleted", json=json)


@app.command(epilog="Examples:\n\n`dblens org members --search ann`")
def members(
    *,
    search: Annotated[str | None, typer.Option("--search", help="A part of name or e-mail address.")] = None,
    limit: Limit = 200,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """List the members with their roles."""
    at = people.workspace(who, organization)
    org_id = people.current(at)
    found = people.pages(
        lambda after: at.organizations.members(org_id, search=search, limit=min(limit, 200), after=after), limit
    )
    people.show(found, ("name", "display", "email", "role", "rank", "active"), json=json)


@app.command(
    epilog="Examples:\n\n`dblens org invite ann@example.org developer`\n\n`dblens org invite x@example.org viewer --no-mail`"
)
def invite(
    email: str,
    role: Role,
    *,
    days: Annotated[int, typer.Option("--days", help="How long it is good.")] = 7,
    mail: Annotated[
        bool | None, typer.Option("--mail/--no-mail", help="Else by mail where mail is configured.")
    ] = None,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Invite whoever has an e-mail address; without mail the token is shown, once, to be handed over."""
    at = people.workspace(who, organization)
    made = at.organizations.invite(people.current(at), email, role, days=days, mail=mail)
    if json:
        output.json(made)
        return
    until = made.invitation.expires_at.isoformat(timespec="minutes")
    output.lines([(f"{email} is invited as {made.invitation.role} until {until}", "green")])
    if made.token is not None:
        output.note("note: hand this over, it is shown only now; it is accepted by `dblens org accept`")
        output.lines([(made.link or made.token, "")])


@app.command(epilog="Examples:\n\n`dblens org invitations`")
def invitations(*, limit: Limit = 200, organization: Org = None, who: As = None, json: Json = False) -> None:
    """List the invitations that can still be accepted."""
    at = people.workspace(who, organization)
    org_id = people.current(at)
    found = people.pages(lambda after: at.organizations.invitations(org_id, limit=min(limit, 200), after=after), limit)
    people.show(found, ("id", "email", "role", "created_by", "expires_at"), json=json)


@app.command(epilog="Examples:\n\n`dblens org uninvite 01a2…`")
def uninvite(invitation: str, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Take an invitation back, by its id."""
    at = people.workspace(who, organization)
    at.organizations.revoke_invitation(people.current(at), invitation)
    people.done("the invitation is taken back", json=json)


@app.command(epilog="Examples:\n\n`dblens org accept` (asks for the token)\n\n`dblens org accept --token-file -`")
def accept(
    *,
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="Read the token from a file, `-` is stdin.")
    ] = None,
    json: Json = False,
) -> None:
    """Accept an invitation to your e-mail address."""
    from dblens.redaction import Secret

    given = people.password("invitation's token", token_file).reveal().strip()
    made = people.workspace().organizations.accept(Secret(given.rpartition("token=")[2]))
    people.done(f"you are a member of {made.slug}, as {made.role}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens org admit ann@example.org developer`")
def admit(
    user: Annotated[
        str, typer.Argument(help="E-mail address, or the name of somebody you share an organization with.")
    ],
    role: Role,
    *,
    organization: Org = None,
    who: As = None,
    json: Json = False,
) -> None:
    """Make somebody who has an account a member."""
    at = people.workspace(who, organization)
    made = at.organizations.admit(people.current(at), user, role)
    people.done(f"{made.name} is a member, as {made.role}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens org assign ann admin`")
def assign(user: User, role: Role, *, organization: Org = None, who: As = None, json: Json = False) -> None:
    """Give a member another role."""
    at = people.workspace(who, organization)
    made = at.organizations.assign(people.current(at), user, role)
    people.done(f"{made.name} has the role {made.role}", made, json=json)


@app.command(epilog="Examples:\n\n`dblens org remove ann --to bob`")
def remove(
    user: User, *, to: To = None, organization: Org = None, yes: Yes = False, who: As = None, json: Json = False
) -> None:
    """End a membership with its teams, grants and access tokens."""
    at = people.workspace(who, organization)
    people.ask(f"Remove {user} from the organization?", yes=yes)
    left = at.organizations.remove(people.current(at), user, to=to)
    people.done(f"{user} is no member; {left.connections} connections went to {to or 'nobody'}", left, json=json)


@app.command(epilog="Examples:\n\n`dblens org leave acme --to bob`")
def leave(organization: str, *, to: To = None, yes: Yes = False, json: Json = False) -> None:
    """Leave an organization."""
    at = people.workspace()
    people.ask(f"Leave {organization}?", yes=yes)
    left = at.organizations.leave(organization, to=to)
    people.done(f"you left {organization}; {left.connections} connections went to {to or 'nobody'}", left, json=json)
