"""`dblens settings`: what administrators set while the service runs. Secrets come from a prompt, a file, a variable or stdin."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dblens.cli import output
from dblens.errors import EngineError, InvalidInput, NotFound

if TYPE_CHECKING:
    from dblens.redaction import Secret

app = typer.Typer(
    no_args_is_help=True,
    help="What administrators set: accounts, smtp, application, retention; of an organization webhooks, notifications, …",
)

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Name = Annotated[str, typer.Argument(help="The setting, as `dblens settings list` names it.")]


@app.command(
    "list", epilog="Examples:\n\n`dblens settings list`\n\n`dblens settings list --json | jq '.[] | {name, value}'`"
)
def list_(*, json: Json = False) -> None:
    """Show the settings that you may read, with what holds now; `*` is before what was changed."""
    found = _door().list()
    if json:
        output.json(found)
        return
    output.table(
        ["", "name", "scope", "value", "about"],
        [("*" if s.set else "", s.name, s.scope, _short(s.value), s.about) for s in found],
    )


@app.command(epilog="Examples:\n\n`dblens settings show smtp`")
def show(name: Name, *, json: Json = False) -> None:
    """Show a setting field by field: what holds, the default, what may stand there."""
    _show(_door().read(name), json=json)


@app.command(
    "set",
    epilog="Examples:\n\n`dblens settings set accounts sign_up=true 'email_domains=[\"example.org\"]'`\n\n"
    "`dblens settings set smtp host=mail.example.org sender=dblens@example.org user=dblens --secret password`\n\n"
    "`dblens settings set webhooks --value @hooks.json --secret ops=@/run/secrets/ops`",
)
def set_(
    name: Name,
    fields: Annotated[list[str] | None, typer.Argument(help="`field=value`; a value may be JSON.")] = None,
    *,
    value: Annotated[
        str | None, typer.Option("--value", metavar="JSON|@FILE|-", help="The fields as one JSON object.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME[=@FILE|=-|=env:VARIABLE]",
            help="A secret beside the setting, asked for without a source. Never the secret itself.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Change the fields that are given; the others stay. What is wrong is said for every field, and then nothing is kept."""
    given = _document(value) if value is not None else {}
    for each in fields or ():
        field, equals, text = each.partition("=")
        if not equals:
            raise InvalidInput(f"{each[:40]!r} is no field=value", hint="like sign_up=true")
        given[field] = _value(text)
    secrets = dict(_secret(each) for each in secret or ())
    if not given and not secrets:
        raise InvalidInput("nothing to set", hint="field=value, --value or --secret")
    _show(_door().update(name, given, secrets=secrets or None), json=json)


@app.command(epilog="Examples:\n\n`dblens settings reset accounts`")
def reset(name: Name, *, json: Json = False) -> None:
    """Go back to the default, and delete the secrets beside it."""
    _show(_door().reset(name), json=json)


@app.command("test-mail", epilog="Examples:\n\n`dblens settings test-mail ann@example.org`")
def send_mail(to: Annotated[str, typer.Argument(help="Whom to write to.")], *, json: Json = False) -> None:
    """Send a mail now, and say whether the mail server took it."""
    sent = _door().test_mail(to)
    if json:
        output.json(sent)
    else:
        output.lines([(f"the mail server took a mail to {sent.to}", "green")])


@app.command("test-webhook", epilog="Examples:\n\n`dblens settings test-webhook ops`")
def post_test(name: Annotated[str, typer.Argument(help="Which.")], *, json: Json = False) -> None:
    """Post to a webhook now, and say how that ended.

    \b
    Exit code 0: it answered well; 3: it did not.
    """
    done = _door().test_webhook(name)
    if json:
        output.json(done)
    else:
        told = f"{done.webhook} at {done.host}: {done.error or done.status}, {done.milliseconds} ms"
        output.lines([(told, "green" if done.ok else "red")])
    if not done.ok:
        raise typer.Exit(EngineError.exit)


@app.command(epilog="Examples:\n\n`dblens settings deliveries`")
def deliveries(*, json: Json = False) -> None:
    """Show how the last posts to the organization's webhooks ended."""
    found = _door().deliveries()
    if json:
        output.json(found)
        return
    rows = [
        (
            f"{d.at:%Y-%m-%d %H:%M:%S}",
            d.webhook,
            d.host,
            d.event,
            "ok" if d.ok else d.error,
            d.attempts,
            d.milliseconds,
            d.run_id,
        )
        for d in found
    ]
    output.table(["at (UTC)", "webhook", "host", "event", "end", "tries", "ms", "run"], rows)


# ----------------------------------------------------------------------------------------------------------------------- helpers


def _door() -> Any:
    import dblens

    return dblens.open().settings


def _show(setting: Any, *, json: bool) -> None:
    if json:
        output.json(setting)
        return
    default = setting.default or {}
    value = setting.value or {}
    rows = [
        (field, _json(value.get(field)), _json(default.get(field)), words) for field, words in setting.fields.items()
    ]
    output.table(["field", "value", "default", "may be"], rows, title=f"{setting.name}: {setting.about}")
    for name in setting.secrets:
        output.note(f"note: the secret {name!r} is set")
    if setting.problem:
        output.note(f"warning: what is kept is not right, and the default holds: {setting.problem}")


def _json(value: object) -> str:
    import msgspec

    return "" if value is None else msgspec.json.encode(value).decode()


def _short(value: dict[str, Any] | None) -> str:
    text = ", ".join(f"{field}={_json(each)}" for field, each in (value or {}).items())
    return text if len(text) <= 120 else text[:119] + "…"


def _value(text: str) -> Any:
    """Return JSON where a value looks like it, else the text."""
    import msgspec

    looks = text[:1] in ("{", "[", '"', "-") or text[:1].isdigit() or text in ("true", "false", "null")
    if looks:
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            if text[:1] in ("{", "["):
                raise InvalidInput("a value begins like JSON and is none", hint='field=\'["a", "b"]\'') from None
    return text


def _document(given: str) -> dict[str, Any]:
    import msgspec

    text = _file(Path(given[1:])) if given.startswith("@") else sys.stdin.read() if given == "-" else given
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidInput(f"--value is no JSON object: {error}", hint='{"field": "value"}') from None


def _secret(given: str) -> tuple[str, Secret]:
    from dblens.redaction import Secret

    name, equals, source = given.partition("=")
    if not equals:
        if not sys.stdin.isatty():
            raise InvalidInput(f"nobody can be asked for the secret {name!r}", hint=f"--secret {name}=@FILE or =-")
        return name, Secret(getpass.getpass(f"{name}: "))
    if source.startswith("@"):
        return name, Secret(_file(Path(source[1:])).removesuffix("\n").removesuffix("\r"))
    if source == "-":
        return name, Secret(sys.stdin.readline().removesuffix("\n").removesuffix("\r"))
    if source.startswith("env:"):
        found = os.environ.get(source[4:])
        if found is None:
            raise NotFound(f"the variable {source[4:]!r} is not set", hint=f"the secret {name!r} comes from it")
        return name, Secret(found)
    # What was given may be the secret itself, so it is not told.
    raise InvalidInput(f"--secret {name} has no source", hint=f"{name}=@FILE, {name}=- or {name}=env:VARIABLE")


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"cannot read {path}: {type(error).__name__}", hint="check the path") from None
