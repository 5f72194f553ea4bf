"""`dblens connection`: make, try, change, share and carry connections."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

import dblens
from dblens.cli import output
from dblens.cli.way import put, read_fields, read_json, read_secrets, read_text, read_way
from dblens.errors import ConnectionFailed, InvalidInput
from dblens.redaction import Secret

if TYPE_CHECKING:
    from dblens.engines.access.reach import Reach
    from dblens.workspace.ways import ConnectionView, NewConnection, Way

app = typer.Typer(
    help="Keep connections to databases, with their passwords sealed, and share them.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The connection's name or id.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="scheme://user@host:port/database, without a password; `-` reads it from stdin."
    ),
]
UrlEnv = Annotated[
    str | None, typer.Option("--url-env", metavar="VAR", help="Variable with the URL; it may hold the password.")
]
Fields = Annotated[
    str | None, typer.Option("--fields", metavar="FILE", help="JSON file with the fields instead; `-` reads stdin.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field, as tls.mode=verify-full; @FILE reads it from a file."),
]
PasswordEnv = Annotated[str | None, typer.Option("--password-env", metavar="VAR", help="Variable with the password.")]
PasswordFile = Annotated[
    str | None, typer.Option("--password-file", metavar="FILE", help="File with the password; `-` reads stdin.")
]
References = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME=REFERENCE",
        help="Where a secret lies: password=env:VAR, file:/path, keyring:service/name, vault:mount/path#field.",
    ),
]
SecretFiles = Annotated[
    list[str] | None,
    typer.Option("--secret-file", metavar="NAME=FILE", help="File with a secret to keep: ssh.key=id_ed25519."),
]
Environment = Literal["dev", "staging", "production"]
Engine = Literal["postgresql", "mysql", "sqlite", "mongodb"]
Level = Literal["view", "use", "manage"]
Tag = Annotated[
    Environment | None,
    typer.Option("--environment", "-e", help="What kind of system it is; else as the setting `defaults` says."),
]
Colour = Annotated[str, typer.Option("--colour", help="#rrggbb or a word, to tell it apart.")]
ReadOnly = Annotated[
    bool | None,
    typer.Option("--read-only/--read-write", help="No session of it may write; else as the setting `defaults` says."),
]
Team = Annotated[bool, typer.Option("--team", help="It is a team's name, not a member's.")]


@app.command(
    epilog="Examples:\n\n`dblens connection create shop --url postgresql://me@db.example.org/shop` (asks for the password)\n\n"
    "`dblens connection create shop --url-env DATABASE_URL -e production --read-only`\n\n"
    "`dblens connection create shop --url mysql://me@db/shop --secret password=vault:kv/shop#password`\n\n"
    "`dblens connection create notes --url sqlite:////srv/notes.db`"
)
def create(
    name: Annotated[str, typer.Argument(help="A name for it.", metavar="NAME")],
    *,
    url: Url = None,
    url_env: UrlEnv = None,
    fields: Fields = None,
    set_: Set = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    secret: References = None,
    secret_file: SecretFiles = None,
    environment: Tag = None,
    colour: Colour = "",
    read_only: ReadOnly = None,
    json: Json = False,
) -> None:
    """Keep a connection. Its password is sealed in the store; it is never an argument, because every process sees those."""
    from dblens.workspace.ways import NewConnection

    given = read_way(url, url_env, fields, set_, password_env, password_file, secret, secret_file)
    new: NewConnection = NewConnection(name=name, environment=environment, colour=colour, read_only=read_only, **given)
    made = dblens.open().connections.create(new)
    _told(made, "is kept", json=json)


@app.command(
    name="list", epilog="Examples:\n\n`dblens connection list`\n\n`dblens connection list shop -e production --json`"
)
def list_(
    search: Annotated[str | None, typer.Argument(help="A part of the name.", metavar="[TEXT]")] = None,
    *,
    engine: Annotated[Engine | None, typer.Option("--engine", help="Of this engine only.")] = None,
    environment: Annotated[Environment | None, typer.Option("--environment", "-e", help="Of this kind only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="At most so many.")] = 200,
    after: Annotated[str | None, typer.Option("--after", help="Go on after the list that said so.")] = None,
    json: Json = False,
) -> None:
    """List the connections that you may see."""
    page = dblens.open().connections.list(
        search=search, engine=engine, environment=environment, limit=limit, after=after
    )
    if json:
        output.json(page)
        return
    columns = ["name", "engine", "address", "environment", "may write", "your level"]
    rows = [
        (c.name, c.engine, c.address, c.environment, "no" if c.read_only else "yes", c.level or "") for c in page.items
    ]
    output.table(columns, rows)
    if page.after is not None:
        output.note(f"note: there are more: --after {page.after}")


@app.command(epilog="Examples:\n\n`dblens connection show shop`\n\n`dblens connection show shop --json | jq .fields`")
def show(name: Name, *, json: Json = False) -> None:
    """Show a connection: its fields, which secrets it has, and what you may do with it."""
    found = dblens.open().connections.read(name)
    if json:
        output.json(found)
        return
    kept = ", ".join(f"{each.name} ({each.kind})" for each in found.secrets)
    rows = [
        ("name", found.name), ("id", found.id), ("address", found.address), ("environment", found.environment),
        ("colour", found.colour), ("may write", "no" if found.read_only else "yes"), ("owner", found.owner),
        ("your level", found.level), ("secrets", kept or "none"), ("version", found.version),
        *((f"fields.{field}", _line(value)) for field, value in found.fields.items()),
    ]  # fmt: skip
    output.table(["what", "value"], rows)


@app.command(
    name="test", epilog="Examples:\n\n`dblens connection test shop`\n\n`dblens connection test shop --json | jq .cause`"
)
def reach(name: Name, *, json: Json = False) -> None:
    """Open a connection and close it. Exit code 0: it works; 3: it does not, and the cause is named."""
    _reached(dblens.open().connections.test(name), json=json)


@app.command(
    name="try",
    epilog="Examples:\n\n`dblens connection try --url postgresql://me@db.example.org/shop --password-env PGPASSWORD`",
)
def try_(
    *,
    url: Url = None,
    url_env: UrlEnv = None,
    fields: Fields = None,
    set_: Set = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    secret: References = None,
    secret_file: SecretFiles = None,
    json: Json = False,
) -> None:
    """Open a connection that is not kept, and close it. Exit codes as of `test`."""
    from dblens.workspace.ways import Way

    way: Way = Way(**read_way(url, url_env, fields, set_, password_env, password_file, secret, secret_file))
    _reached(dblens.open().connections.try_(way), json=json)


@app.command(
    epilog="Examples:\n\n`dblens connection update shop --set port=5433`\n\n`dblens connection update shop --password-file -`\n\n"
    "`dblens connection update shop --name webshop -e production --read-only`"
)
def update(
    name: Name,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    set_: Set = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", metavar="FIELD", help="Remove a field.")] = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    secret: References = None,
    secret_file: SecretFiles = None,
    remove_secret: Annotated[
        list[str] | None, typer.Option("--remove-secret", metavar="NAME", help="Remove a secret.")
    ] = None,
    environment: Annotated[
        Environment | None, typer.Option("--environment", "-e", help="What kind of system it is.")
    ] = None,
    colour: Annotated[str | None, typer.Option("--colour", help="#rrggbb or a word; empty for none.")] = None,
    read_only: Annotated[bool | None, typer.Option("--read-only/--writable", help="Whether it may write.")] = None,
    version: Annotated[
        int | None, typer.Option("--version", help="Only if it still is this version; by default, the present one.")
    ] = None,
    json: Json = False,
) -> None:
    """Change a connection. One that leads to another server needs its secrets again."""
    from dblens.workspace.ways import ConnectionChanges

    doors = dblens.open().connections
    before = doors.read(name)
    changed = read_fields(set_)
    for field in unset or ():
        put(changed, field, None)
    kept, references = read_secrets(password_env, password_file, secret, secret_file)
    removed: dict[str, Secret | None] = dict.fromkeys(remove_secret or (), None)
    changes = ConnectionChanges(
        name=new_name,
        fields=changed or None,
        environment=environment,
        colour=colour,
        read_only=read_only,
        secrets={**removed, **kept},
        references=references,
    )
    made = doors.update(before.id, changes, version=before.version if version is None else version)
    _told(made, "is changed", json=json)


@app.command(epilog="Examples:\n\n`dblens connection delete shop`\n\n`dblens connection delete shop --yes --force`")
def delete(
    name: Name,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also when a template names it.")] = False,
    json: Json = False,
) -> None:
    """Delete a connection with its secrets and grants. The database stays as it is."""
    doors = dblens.open().connections
    found = doors.read(name)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput("its secrets would be gone for good", hint="add --yes")
        typer.confirm(f"Delete the connection {found.name!r} ({found.address}) and its secrets?", abort=True, err=True)
    doors.delete(found.id, force=force)
    if json:
        output.json({"deleted": found.id})
    else:
        output.lines([(f"{found.name} is deleted", "green")])


@app.command(epilog="Examples:\n\n`dblens connection duplicate shop shop-copy`")
def duplicate(
    name: Name, copy: Annotated[str, typer.Argument(help="The copy's name.", metavar="COPY")], *, json: Json = False
) -> None:
    """Copy a connection with its secrets, without its grants; the copy is yours."""
    _told(dblens.open().connections.duplicate(name, copy), "is kept", json=json)


@app.command(
    epilog="Examples:\n\n`dblens connection share shop bob --level use`\n\n`dblens connection share shop crew --team --level view`"
)
def share(
    name: Name,
    to: Annotated[str, typer.Argument(help="A member's name, e-mail address or id; or a team.", metavar="WHO")],
    *,
    level: Annotated[Level, typer.Option("--level", help="view: fields and structure; use: data; manage: all.")],
    team: Team = False,
    json: Json = False,
) -> None:
    """Let a member or a team view, use or manage a connection, without its password. It counts at once."""
    made = dblens.open().connections.share(name, to, level, kind="team" if team else "user")
    if json:
        output.json(made)
    else:
        output.lines([(f"{made.name} ({made.kind}) may {made.level} {name}", "green")])


@app.command(epilog="Examples:\n\n`dblens connection unshare shop bob`\n\n`dblens connection unshare shop crew --team`")
def unshare(
    name: Name,
    to: Annotated[str, typer.Argument(help="A member, or a team.", metavar="WHO")],
    *,
    team: Team = False,
    json: Json = False,
) -> None:
    """Take back what was granted. It counts at once."""
    dblens.open().connections.unshare(name, to, kind="team" if team else "user")
    if json:
        output.json({"unshared": to})
    else:
        output.lines([(f"{to} has no grant on {name} any more", "green")])


@app.command(epilog="Examples:\n\n`dblens connection grants shop`")
def grants(
    name: Name,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="At most so many.")] = 200,
    after: Annotated[str | None, typer.Option("--after", help="Go on after the list that said so.")] = None,
    json: Json = False,
) -> None:
    """List who was granted a connection."""
    page = dblens.open().connections.grants(name, limit=limit, after=after)
    if json:
        output.json(page)
        return
    output.table(
        ["kind", "name", "level", "since"], [(g.kind, g.name or g.id, g.level, g.created_at) for g in page.items]
    )
    if page.after is not None:
        output.note(f"note: there are more: --after {page.after}")


@app.command(epilog="Examples:\n\n`dblens connection transfer shop bob`")
def transfer(
    name: Name,
    to: Annotated[str, typer.Argument(help="A member's name, e-mail address or id.", metavar="WHO")],
    *,
    json: Json = False,
) -> None:
    """Give a connection to another member, who owns it from then on."""
    dblens.open().connections.transfer(name, to)
    if json:
        output.json({"owner": to})
    else:
        output.lines([(f"{name} is {to}'s now", "green")])


@app.command(
    epilog="Examples:\n\n`dblens connection export > connections.json`\n\n`dblens connection export shop notes -o two.json`"
)
def export(
    names: Annotated[list[str] | None, typer.Argument(help="Those to take; all without.", metavar="[NAME]...")] = None,
    *,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")] = None,
    json: Json = False,  # noqa: ARG001 - it is JSON either way
) -> None:
    """Write connections as a JSON document, without secrets."""
    document = dblens.open().connections.export(list(names or ()))
    if file is None:
        output.json(document)
        return
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    output.note(f"{file}: {len(document.connections)} connections, without secrets")


@app.command(
    name="import",
    epilog="Examples:\n\n`dblens connection import connections.json --dry-run`\n\n"
    "`dblens connection export | DBLENS_URL=https://dblens.example.org dblens connection import -`",
)
def import_(
    file: Annotated[str, typer.Argument(help="What `export` wrote; `-` reads stdin.", metavar="FILE")],
    *,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out those whose name is in use, instead of refusing all.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    json: Json = False,
) -> None:
    """Keep the connections of a document, all or none. Their secrets are set afterwards, with `update`."""
    from dblens.workspace.ways import read_document

    document = read_document(read_json(read_text(file), file))
    done = dblens.open().connections.import_(document, existing="skip" if skip_existing else "refuse", dry_run=dry_run)
    if json:
        output.json(done)
        return
    verb = "would be kept" if done.dry_run else "is kept"
    output.lines([(f"{each} {verb}", "green") for each in done.created])
    output.lines([(f"{each} is there already", "yellow") for each in done.skipped])
    for each, lacking in done.lacking.items():
        output.note(f"note: {each} lacks {', '.join(lacking)}: `dblens connection update {each} --password-file -`")


@app.command(epilog="Examples:\n\n`dblens connection pool shop --json`")
def pool(name: Name, *, json: Json = False) -> None:
    """Show the sessions that the service (or this process) holds open: in use, idle, waited for, their ages."""
    found = dblens.open().connections.pool(name)
    if json:
        output.json(found)
        return
    columns = ["login", "in use", "idle", "waiting", "size", "longest wait s", "oldest s"]
    rows = [
        (login, p.in_use, p.idle, p.waiting, p.size, f"{p.longest_wait:.3f}", f"{max(p.ages, default=0):.0f}")
        for login, p in found.items()
    ]
    output.table(columns, rows)


@app.command(
    name="create-database",
    epilog="Examples:\n\n`dblens connection create-database shop shop_test`\n\n"
    "`dblens connection create-database notes notes2.db --name notes2`",
)
def create_database(
    name: Name,
    database: Annotated[str, typer.Argument(help="The new database; of SQLite, a file.", metavar="DATABASE")],
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="The new connection's name.")] = None,
    environment: Annotated[
        Environment | None, typer.Option("--environment", "-e", help="Its kind; by default the same.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a database on a connection's server with its login, and keep a connection to it."""
    made = dblens.open().connections.create_database(name, database, name=new_name, environment=environment)
    _told(made, "is made and kept", json=json)


# ------------------------------------------------------------------------------------------------------------------------- shown


def _told(made: ConnectionView, how: str, *, json: bool) -> None:
    if json:
        output.json(made)
    else:
        output.lines([(f"{made.name} {how}: {made.address}", "green")])


def _reached(found: Reach, *, json: bool) -> None:
    if json:
        output.json(found)
    elif found.ok:
        output.lines([(f"ok: {found.version}, {found.latency_ms:g} ms", "green")])
        if found.missing_privileges:
            output.note(f"warning: missing rights to read: {', '.join(found.missing_privileges)}")
        if found.read_only_verified is False:
            output.note("warning: the read-only login may write")
    else:
        output.lines([(f"{found.cause}: {found.message}", "red")])
        output.note(f"hint: {found.hint}")
    if not found.ok:
        raise typer.Exit(ConnectionFailed.exit)


def _line(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
