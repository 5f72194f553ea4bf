"""DBLens in a notebook: `%load_ext dblens.jupyter`, then `%%dblens` cells, with completion by the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dblens.jupyter.magic import Magic

_NAME = "_dblens"


def load_ipython_extension(shell: Any) -> None:
    """Add `%dblens`, `%%dblens` and their completion to an IPython shell."""
    from dblens.jupyter.complete import install
    from dblens.jupyter.magic import Magic

    if getattr(shell, _NAME, None) is None:
        magic = Magic(shell)
        setattr(shell, _NAME, magic)
        shell.register_magic_function(magic.line, "line", "dblens")
        shell.register_magic_function(magic.cell, "cell", "dblens")
        install(shell, magic)


def unload_ipython_extension(shell: Any) -> None:
    """Take them away again."""
    from dblens.jupyter.complete import remove

    magic: Magic | None = getattr(shell, _NAME, None)
    if magic is not None:
        remove(shell)
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("dblens", None)
        setattr(shell, _NAME, None)
