"""`dblens serve`: the service itself, for oneself or for a team."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from dblens.cli import output

Json = Annotated[bool, typer.Option("--json", help="Write one line of JSON to stdout when it listens.")]


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="The address to listen on (DBLENS_HOST, else 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port (DBLENS_PORT, else 8503); 0 takes a free one.")
    ] = None,
    socket: Annotated[
        Path | None, typer.Option(help="A Unix socket instead, in a folder that only you can enter (DBLENS_SOCKET).")
    ] = None,
    root_path: Annotated[
        str, typer.Option(help="The prefix under which a proxy mounts it, like /services/dblens.")
    ] = "",
    docs: Annotated[
        bool | None,
        typer.Option(
            "--docs/--no-docs", envvar="DBLENS_DOCS", help="The page at /api/v1/docs; by default not for a team."
        ),
    ] = None,
    exit_with_parent: Annotated[
        bool, typer.Option(help="Stop when stdin ends, as it does when the parent dies.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every request to stderr.")] = False,
    json: Json = False,
) -> None:
    """Serve the REST API until a signal says stop; runs are asked to stop then.

    Alone (DBLENS_MODE=single) it listens on this machine only, and lets you in by the secret in `local-secret` in the data folder.
    For a team (DBLENS_MODE=team) it needs DBLENS_STORE_URL, DBLENS_KEK_FILE and DBLENS_AUDIT_KEY_FILE; the first time it prints the
    code for the set-up to stderr.

    Example: DBLENS_MODE=team dblens serve --host 127.0.0.1 --port 8503
    """
    import msgspec

    from dblens.api.server import Serving
    from dblens.api.server import serve as go
    from dblens.redaction import install
    from dblens.settings import load

    settings = load()
    if socket is not None:
        settings = msgspec.structs.replace(settings, socket=socket.absolute())
    elif host is not None or port is not None:
        settings = msgspec.structs.replace(
            settings,
            host=settings.host if host is None else host,
            port=settings.port if port is None else port,
            socket=None,
        )
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("uvicorn.error").setLevel(logging.INFO if verbose else logging.WARNING)
    install()

    def ready(serving: Serving) -> None:
        if json:
            output.json(serving)
        else:
            output.note(f"DBLens serves at {serving.url} ({serving.mode}); stop it with Ctrl+C")

    def code(text: str) -> None:
        # Shown on purpose, and only here: `note` would hide it.
        sys.stderr.write(f"Nobody has an account yet. The code for the set-up: {text}\n")
        sys.stderr.flush()

    go(settings, root_path=root_path, docs=docs, exit_with_parent=exit_with_parent, ready=ready, code=code)
