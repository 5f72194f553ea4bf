"""Build the optional C accelerator into the wheel, or leave it out and say so: an install never fails for want of a compiler.

Standard library and hatchling only. The result is one file for every CPython from 3.11 on (stable ABI). Skipped with
DBLENS_NO_SPEED=1, on other Pythons, without a C compiler or Python's headers, and when the compiled module does not load.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "dblens/values/_speed.c"
TARGET = "dblens/values/_speed.abi3.so"
ABI = (3, 11)


class NotBuilt(Exception):  # noqa: N818 - an outcome, not a fault
    """Why there is no accelerator."""


def _compiler() -> list[str]:
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return words
    raise NotBuilt("no C compiler was found")


def build(source: Path, target: Path) -> None:
    """Compile `source` to `target`, complete or not at all, and load it once. Raises NotBuilt."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotBuilt(f"{sys.implementation.name} here has no stable ABI")
    if sys.platform not in ("linux", "darwin"):
        raise NotBuilt(f"not tried on {sys.platform}")
    headers = sysconfig.get_paths()["include"]
    if not Path(headers, "Python.h").exists():
        raise NotBuilt(f"no Python.h in {headers}")
    shared = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".speed-") as folder:
        made = Path(folder, target.name)
        define = f"-DPy_LIMITED_API=0x{ABI[0]:02x}{ABI[1]:02x}0000"
        _run([*_compiler(), "-O3", "-fPIC", *shared, define, f"-I{headers}", str(source), "-o", str(made)], "compiling")
        load = "import importlib.util as u, sys; s = u.spec_from_file_location('_speed', sys.argv[1]); u.module_from_spec(s)"
        _run([sys.executable, "-c", load, str(made)], "loading what was compiled")
        made.replace(target)


def _run(command: list[str], what: str) -> None:
    try:
        # The compiler that Python itself names, on a file of ours.
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{what} failed: {error}") from error
    if done.returncode:
        raise NotBuilt(f"{what} failed: {done.stderr.strip()[-600:] or f'exit {done.returncode}'}")


class SpeedHook(BuildHookInterface[Any]):
    """Adds the accelerator to a wheel; an editable install gets it beside its source."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, then name the wheel after its platform; or tell why not and go on."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        editable = version == "editable"
        self._folder = None if editable else tempfile.TemporaryDirectory(prefix="dblens-speed-")
        target = root / TARGET if self._folder is None else Path(self._folder.name, Path(TARGET).name)
        try:
            if os.environ.get("DBLENS_NO_SPEED") == "1":
                raise NotBuilt("DBLENS_NO_SPEED=1")
            build(root / SOURCE, target)
        except (NotBuilt, OSError) as reason:
            if editable:
                target.unlink(missing_ok=True)  # an older one would not be what the source says
            self.app.display_warning(f"dblens: pure Python, without the C accelerator: {reason}")
            return
        if not editable:
            build_data["force_include"][str(target)] = TARGET
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp{ABI[0]}{ABI[1]}-abi3-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the compiled file from where it was made."""
        folder = getattr(self, "_folder", None)
        if folder is not None:
            folder.cleanup()
