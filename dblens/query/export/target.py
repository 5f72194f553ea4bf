"""A file that appears whole or not at all: written beside its name, then renamed; nothing is overwritten unasked."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dblens.errors import Conflict, InvalidInput


def sidecar_path(path: Path) -> Path:
    """Return where the sidecar of a file lies."""
    return path.with_name(f"{path.name}.dblens.json")


class Target:
    """A context manager; `write` takes the octets, `publish` gives the file its name. Left without that, nothing remains."""

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path, self._overwrite = Path(path), overwrite
        self._part = self.path.with_name(f".{self.path.name[:100]}.{secrets.token_hex(6)}.part")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._check(self.path)
        try:
            self._file = open(self._part, "xb")
        except OSError as error:
            raise InvalidInput(f"{str(self.path)!r} cannot be written: {error.strerror}") from error
        return self

    def _check(self, path: Path) -> None:
        if path.is_dir():
            raise InvalidInput(f"{str(path)!r} is a folder", hint="name a file")
        if not self._overwrite and os.path.lexists(path):
            raise Conflict(f"{str(path)!r} exists", hint="--overwrite replaces it")

    def write(self, data: bytes) -> int:
        """Write octets. Raises InvalidInput when the disk does not take them."""
        assert self._file is not None
        try:
            return self._file.write(data)
        except OSError as error:
            raise InvalidInput(
                f"{str(self.path)!r} cannot be written: {error.strerror}", hint="look for room"
            ) from error

    def publish(self, sidecar: str = "") -> None:
        """Give the file its name, its sidecar first: that names the file's digest, so a reader sees when they are not of one export.

        Raises Conflict when another file took the name meanwhile.
        """
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if sidecar:
            beside = Target(sidecar_path(self.path), overwrite=True)
            with beside:
                beside.write(sidecar.encode())
                beside.publish()
        elif self._overwrite:
            sidecar_path(self.path).unlink(missing_ok=True)
        self._rename()

    def _rename(self) -> None:
        if self._overwrite:
            os.replace(self._part, self.path)
            return
        try:
            os.link(self._part, self.path)  # unlike a rename it refuses a name that is taken
        except FileExistsError as error:
            raise Conflict(f"{str(self.path)!r} exists", hint="--overwrite replaces it") from error
        except OSError:  # a file system without links
            self._check(self.path)
            os.rename(self._part, self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
