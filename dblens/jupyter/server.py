"""The extension of a Jupyter server: `…/dblens/api/*` leads to the service, which is started with the first request."""

from __future__ import annotations

import os
from typing import Any

from dblens import settings
from dblens.redaction import install


def _load_jupyter_server_extension(app: Any) -> None:
    """Add the routes. What the environment tells of keys is taken out of it: kernels are children of this process."""
    try:
        from jupyter_server.utils import url_path_join

        from dblens.jupyter.forward import About, Forward
        from dblens.jupyter.upstream import Upstream
    except ImportError as error:
        app.log.warning("DBLens answers no pages: %s is missing (pip install 'dblens[lab]')", error.name)
        return
    environment = dict(os.environ)
    install()
    upstream = Upstream(settings.load(), environment, app.log)
    base = app.web_app.settings["base_url"]
    given = {"upstream": upstream}
    app.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, "dblens", "about"), About, given),
            (url_path_join(base, "dblens", "api", "(.*)"), Forward, given),
        ],
    )


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Say where it is."""
    return [{"module": "dblens.jupyter.server"}]
