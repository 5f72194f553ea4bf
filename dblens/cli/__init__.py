"""The command line: one file per noun; stdout is data, stderr is everything else.

Exit codes are those of `dblens.errors`; 1 is an unexpected error or, with `--exit-code`, a difference; 130 an interrupt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dblens import __version__
from dblens.errors import DBLensError, Unsupported

_EXTRAS = {
    **dict.fromkeys(("argon2", "fastapi", "jwt", "limits", "starlette", "uvicorn"), "server"),
    "httpx": "client",
    "keyring": "keyring",
    **dict.fromkeys(("pyarrow", "sqlglot", "xlsxwriter"), "query"),
    **dict.fromkeys(("ipykernel", "nbclient", "nbformat", "papermill"), "notebook"),
}
"""Packages that come with an extra only."""

app = typer.Typer(
    name="dblens",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dblens {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Inspect databases, compare them, move them with proof.

    Every command takes `--json`. `DBLENS_DEBUG=1` shows tracebacks.
    """


def _assemble() -> None:
    """Attach every noun. Their modules import no driver and nothing heavy, so that `--help` stays quick."""
    from dblens.cli import (
        account,
        audit,
        compare,
        connection,
        demo,
        edit,
        export,
        history,
        load,
        login,
        migrate,
        notification,
        org,
        query,
        role,
        runs,
        saved,
        schema,
        search,
        serve,
        settings,
        store,
        team,
        token,
        user,
        verify,
    )

    app.add_typer(connection.app, name="connection")
    app.command(epilog=query.EXAMPLES)(query.query)
    app.command(epilog=export.EXAMPLES)(export.export)
    app.command(epilog=load.EXAMPLES)(load.load)
    app.command(epilog=compare.EXAMPLES)(compare.compare)
    app.command(epilog=edit.EXAMPLES)(edit.edit)
    app.command(epilog=history.EXAMPLES)(history.history)
    app.add_typer(saved.app, name="saved")
    app.add_typer(schema.app, name="schema")
    app.add_typer(migrate.app, name="migrate")
    app.add_typer(runs.app, name="run")
    app.add_typer(store.app, name="store")
    app.add_typer(org.app, name="org")
    app.add_typer(team.app, name="team")
    app.add_typer(role.app, name="role")
    app.add_typer(user.app, name="user")
    app.add_typer(token.app, name="token")
    app.add_typer(account.app, name="account")
    app.add_typer(audit.app, name="audit")
    app.add_typer(notification.app, name="notification")
    app.add_typer(settings.app, name="settings")
    app.command(epilog=search.EXAMPLES)(search.search)
    app.command()(verify.verify)
    app.command()(serve.serve)
    app.command()(demo.demo)
    app.command(epilog=login.LOGIN_EXAMPLES)(login.login)
    app.command(epilog=login.LOGOUT_EXAMPLES)(login.logout)
    app.command(epilog=login.WHOAMI_EXAMPLES)(login.whoami)


_assemble()


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error is reported on stderr, none is raised."""
    as_json = "--json" in args
    try:
        result = app(args=list(args), prog_name="dblens", standalone_mode=False)
        sys.stdout.flush()
        if result == 130:  # the parser catches the interrupt itself and says nothing
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except DBLensError as error:
        _debug()
        return _report(error.message, error.hint, error.code, error.exit, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", None, "interrupted", 130, as_json=as_json)
    except BrokenPipeError:
        return _left_alone()
    except SystemExit as stop:  # the parser ends the process when the pipe breaks
        if isinstance(stop.__context__, BrokenPipeError):
            return _left_alone()
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the last resort: a short message instead of a traceback
        if hasattr(error, "format_message"):  # a usage error of the parser, whose class moved between its versions
            return _usage(error, as_json=as_json)
        _debug()
        if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
            missing = Unsupported(
                "this command", f"{error.name} is not installed", hint=f"pip install 'dblens[{extra}]'"
            )
            return _report(missing.message, missing.hint, missing.code, missing.exit, as_json=as_json)
        return _report(
            f"unexpected {type(error).__name__}: {error}",
            "this is a defect in DBLens; run again with DBLENS_DEBUG=1 to see where it happened and report it",
            "error",
            1,
            as_json=as_json,
        )


def _left_alone() -> int:
    """Be quiet when the reader left (`| head`): Python would complain again when it flushes at exit."""
    sys.stdout = sys.__stdout__
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _usage(error: Exception, *, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "dblens"
    message: str = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        if message:
            sys.stderr.write(message + "\n")
        return 2
    return _report(message.rstrip("."), f"see `{path} --help`", "input.invalid", 2, as_json=as_json)


def _debug() -> None:
    if os.environ.get("DBLENS_DEBUG") == "1":
        import traceback

        traceback.print_exc()


def _report(message: str, hint: str | None, code: str, status: int, *, as_json: bool) -> int:
    from dblens.cli import output

    output.error(message, hint, code, status, as_json=as_json)
    return status
