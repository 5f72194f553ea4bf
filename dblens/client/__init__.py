"""The same nouns over HTTP: a workspace of a DBLens service, for whoever is logged in.

It needs httpx and nothing else of the service: `pip install 'dblens[client]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dblens.errors import InvalidInput
from dblens.events import Report, silent
from dblens.settings import Settings

if TYPE_CHECKING:
    from dblens.client.service import Bearer
    from dblens.workspace import Workspace

__all__ = ["bearer", "connect"]


def connect(
    settings: Settings, *, report: Report = silent, background: bool = False, super_admin: bool = False
) -> Workspace:
    """Return the workspace of the service that `settings.url` names; nothing is sent before the first call.

    The token is the settings' own, that of their file, or of the login made by `dblens login`. `report` hears of the progress of long
    work; with `background`, a long operation returns its run at once. `super_admin`: act as one, which a login may whose account is
    one, and nobody does by accident. Raises InvalidInput.
    """
    from dblens.client.service import Service
    from dblens.client.workspace import RemoteWorkspace, Wire

    if settings.url is None:
        raise InvalidInput("no service is named", hint="set DBLENS_URL")
    service = Service(settings.url, bearer(settings), organization=settings.organization, super_admin=super_admin)
    return cast("Workspace", RemoteWorkspace(Wire(service, report, background=background)))


def bearer(settings: Settings) -> Bearer:
    """Return where the token comes from: the settings themselves, their file, or the login that is kept."""
    from dblens.client import login, tokens

    if settings.token is not None:
        return tokens.Given(settings.token)
    if settings.token_file is not None:
        return tokens.InFile(settings.token_file)
    return login.kept(settings, settings.url or "")
