"""What the commands about people share: as whom they act, in which organization, and where passwords come from.

On the service's own machine (`DBLENS_MODE=team`, no `DBLENS_URL`) who has the store and its keys acts as one of its super_admins:
`--as NAME`. That is in the audit with the name, and with who was logged in to the machine. Against a service (`DBLENS_URL`) a login whose account is
one acts so with `--as super_admin`.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dblens.cli import output
from dblens.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from dblens.redaction import Secret
    from dblens.store.rows import Page
    from dblens.workspace import Workspace

T = TypeVar("T")
SUPER_ADMIN = "super_admin"

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="On the service's own machine: the super_admin to act as; elsewhere: super_admin."
    ),
]
Org = Annotated[
    str | None,
    typer.Option("--organization", "-o", metavar="ORG", help="Id or short name; else the current organization."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def workspace(who: str | None = None, organization: str | None = None) -> Workspace:
    """Return the workspace of the service that `DBLENS_URL` names, of this machine's person, or of a team's store as `who`.

    Raises InvalidInput, PermissionDenied, NotFound.
    """
    import msgspec

    from dblens import settings

    found = settings.load()
    local = found.url is None and found.mode == "team"
    if who is not None and not local and (found.url is None or who != SUPER_ADMIN):
        raise InvalidInput(
            "--as NAME is for the service's own machine: DBLENS_MODE=team, its store and keys, and no DBLENS_URL",
            hint="leave --as out; against a service --as super_admin acts as one by your own login",
        )
    organization = organization or found.organization
    if found.url is not None:
        from dblens.client import connect

        found = found if organization is None else msgspec.structs.replace(found, organization=organization)
        return connect(found, super_admin=who is not None)
    from dblens.workspace import entry
    from dblens.workspace.home import house

    home = house(found)
    if local:
        return home.workspace(entry.operator(home, who, organization=organization))
    owner = home.owner
    if organization is not None:
        mine = home.workspace(owner).account.read().organizations
        org_id = next((place.id for place in mine if organization in (place.id, place.slug)), None)
        if org_id is None:
            raise NotFound(f"no organization {organization!r}", hint="`dblens org list`")
        owner = msgspec.structs.replace(owner, org_id=org_id)
    return home.workspace(owner)


def current(at: Workspace) -> str:
    """Return the id of the organization that a workspace acts in. Raises InvalidInput without any."""
    found = at.account.read().organization
    if found is None:
        raise InvalidInput("no organization is chosen", hint="`dblens org use NAME`, or --organization NAME")
    return found


def pages(read: Callable[[str | None], Page[T]], limit: int) -> Iterator[T]:
    """Return the items of a list, at most `limit` of them, page by page."""
    after: str | None = None
    left = limit
    while left > 0:
        found = read(after)
        yield from found.items[:left]
        left -= len(found.items)
        after = found.after
        if after is None:
            return
    output.note(f"note: there are more than {limit}; --limit shows more")


def show(records: Iterable[Any], columns: tuple[str, ...], *, json: bool) -> None:
    """Write records as JSON, or as a table of some of their fields."""
    rows = list(records)
    if json:
        output.json(rows)
    else:
        output.table(list(columns), [[_cell(getattr(row, name)) for name in columns] for row in rows])


def one(record: Any, *, json: bool) -> None:
    """Write a record as JSON, or as a table of its fields."""
    if json:
        output.json(record)
    else:
        output.table(["field", "value"], [(n, _cell(getattr(record, n))) for n in record.__struct_fields__])


def done(text: str, value: object = None, *, json: bool) -> None:
    """Write what was done: a line, or JSON."""
    if json:
        output.json({"done": text} if value is None else value)
    else:
        output.lines([(text, "green")])


def ask(question: str, *, yes: bool) -> None:
    """Go on when somebody says yes. Raises InvalidInput where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question} Nobody can be asked here", hint="add --yes")
    typer.confirm(question, abort=True, err=True)


def password(what: str, file: str | None, *, new: bool = False) -> Secret:
    """Return a password from a file (`-` is stdin) or a prompt, never from the command line. Raises InvalidInput, NotFound."""
    from dblens.redaction import Secret

    if file is not None:
        return Secret(_from_file(what, file))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(f"the {what} is missing, and nobody can be asked here", hint="give a file, or - for stdin")
    found = getpass.getpass(f"{what[0].upper()}{what[1:]}: ")
    if new and getpass.getpass("The same again: ") != found:
        raise InvalidInput("the two are different", hint="type it again")
    return Secret(found)


def _from_file(what: str, file: str) -> str:
    if file == "-":
        return sys.stdin.readline().rstrip("\r\n")
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        raise NotFound(f"no file {file} for the {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the {what} in {file} cannot be read: {type(error).__name__}") from None


def _cell(value: object) -> object:
    if isinstance(value, list | tuple):
        return " ".join(str(_cell(each)) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="seconds")
    return value
