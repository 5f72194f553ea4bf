"""A file, or a table in memory, as one side of a migration."""

from __future__ import annotations

from typing import cast

from dblens.engines.base import Engine, Target, Url
from dblens.engines.files import File, Session, engine
from dblens.errors import Unsupported
from dblens.migrate.link import Link


class FileLink(Link):
    """Opens sessions on a file. What was proven of it is common to them."""

    __slots__ = ("file",)

    def __init__(self, file: File) -> None:
        super().__init__(Url(scheme="file", database=file.title))
        self.file = file

    @property
    def engine(self) -> Engine:
        return engine

    def connect(self, *, create: bool = False, read_only: bool = False) -> Target:  # noqa: ARG002 - it is there, or it is not
        """Open a session."""
        return self.remembered(cast("Target", Session(engine, self.file)))

    def exists(self) -> Target | None:
        """Open a session: who made the file's `File` found it there."""
        return self.connect()

    def server(self) -> Target:
        """Refuse: a file lies on no server."""
        raise Unsupported("a server of files", "a file lies in a folder")
