"""Files as octets: looked at before they are opened, decompressed, in UTF-8 whatever they are written in."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from dblens.engines import arrow
from dblens.engines.files.model import Encoding
from dblens.errors import ArchiveCorrupt, InvalidInput, NotFound

BLOCK: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


class Opened:
    """A file that is there, is one, and is not empty. Raises NotFound, InvalidInput."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            raise NotFound(f"no such file: {str(path)!r}", hint="check the path") from error
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InvalidInput(f"{str(path)!r} cannot be read: {why}", hint="check the path") from error
        if stat.S_ISDIR(found.st_mode):
            raise InvalidInput(f"{str(path)!r} is a folder", hint="name a file")
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(f"{str(path)!r} is no regular file", hint="it is read several times: save it first")
        if not found.st_size:
            raise InvalidInput(f"{str(path)!r} is empty", hint="a file of nothing has no columns")
        self.size = found.st_size
        self.position = 0

    def identity(self) -> str:
        """Return what changes when the file does: its number, size and time."""
        found = self.path.stat()
        return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"

    def open(self) -> BufferedReader:
        """Open it. Raises InvalidInput when it cannot be read."""
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise InvalidInput(
                f"{str(self.path)!r} cannot be read: {error.strerror}", hint="check its rights"
            ) from error

    def sha256(self) -> str:
        """Return the digest of the file as it lies there."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def blocks(self, compression: str) -> Iterator[bytes]:
        """Yield its octets, decompressed. Raises ArchiveCorrupt for compression that is broken or cut off."""
        with self.open() as raw:
            file = _decompressed(raw, compression)
            try:
                while block := file.read(BLOCK):
                    self.position = raw.tell()
                    yield block
            except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
                what = f"{str(self.path)!r} is no whole {compression or 'file'}: {error}"
                raise ArchiveCorrupt(what, hint="write it again") from error
        self.position = self.size


def _decompressed(raw: BinaryIO, compression: str) -> Any:
    if compression == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if compression == "zstd":
        pa = arrow.library()
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    return raw


def utf8(blocks: Iterator[bytes], encoding: Encoding | None) -> Iterator[bytes]:
    """Yield text in UTF-8 without a byte order mark. Octets that are not UTF-8 pass: whoever counts lines names them.

    UTF-16 is known by its mark; any other encoding must be told. Raises InvalidInput.
    """
    first = next(blocks, b"")
    if encoding in (None, "utf-8", "utf-16") and first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    if encoding in (None, "utf-8"):
        _refuse_wide(first)
        yield first.removeprefix(_BOM)
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder("cp1252" if encoding == "windows-1252" else encoding or "utf-8")()
    line = 1
    try:
        for block in _and(first, blocks):
            text = decoder.decode(block)
            line += text.count("\n")
            yield text.encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise InvalidInput(
            f"line {line} or one soon after is not {encoding}: {error}", hint="choose another --encoding"
        ) from error


def _and(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks


def _refuse_wide(first: bytes) -> None:
    """UTF-16 without its mark looks like Latin letters with a NUL behind each."""
    head = first[:4096]
    if len(head) >= 8 and head.count(0) * 5 > len(head) * 2:
        raise InvalidInput(
            "the file is no text, or UTF-16 without its mark", hint="--encoding utf-16 reads little endian"
        )


def rights(path: Path) -> bool:
    """Return whether the file may be read."""
    return os.access(path, os.R_OK)
